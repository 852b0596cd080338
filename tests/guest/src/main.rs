//! A guest that calls every function of the TensorFlow Lite extension, rightly and wrongly; a line for each case that
//! went well. Its folder is that of the models.
//!
//! Arguments: none for the cases; `leaks`: sessions that come and go, for somebody who watches the memory; `refused`:
//! what becomes of a right call; `speed ROUNDS`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a panic is how a test fails")]
#![allow(clippy::print_stderr, reason = "a test reads it; under usher there is no standard output")]
#![cfg_attr(target_family = "wasm", allow(clippy::cast_possible_truncation, reason = "addresses have 32 bits here"))]

#[cfg(target_family = "wasm")]
mod cases;
#[cfg(target_family = "wasm")]
mod extension;

#[cfg(target_family = "wasm")]
fn main() {
    let read = |name: &str| std::fs::read(format!("{name}/1/model.tflite")).unwrap();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => cases(&cases::Models { digits: read("digits"), diabetes: read("diabetes") }),
        ["leaks"] => leaks(&read("digits")),
        ["refused"] => eprintln!("{:?}", extension::create(&read("digits"))),
        ["speed", rounds] => speed(&read("digits"), rounds.parse().unwrap()),
        _ => panic!("leaks, refused, or speed ROUNDS"),
    }
}

#[cfg(target_family = "wasm")]
fn cases(models: &cases::Models) {
    // Nothing is stored before the place for it is looked at.
    if extension::raw::create_session(0, 0, u32::MAX) != 3 {
        eprintln!("there is no plugin");
        end();
    }
    for (name, case) in cases::ALL {
        case(models);
        eprintln!("ok {name}");
    }
    end();
}

/// Ends, so that usher, which has told us our number, does not try again.
#[cfg(target_family = "wasm")]
fn end() -> ! {
    std::process::exit(if std::env::var_os("WORKER").is_some() { 2 } else { 0 })
}

/// Says a line after each hundred sessions, and waits for one.
#[cfg(target_family = "wasm")]
fn leaks(model: &[u8]) {
    for _ in std::io::stdin().lines() {
        for round in 0..100 {
            let session = extension::create(model).unwrap();
            let rows = vec![0; cases::PIXELS_BYTES * (1 + round % 3)];
            extension::append(session, cases::PIXELS, &rows).unwrap();
            extension::run(session).unwrap();
            assert!(extension::append(session, cases::PIXELS, &[0]).is_err());
            extension::delete(session).unwrap();
            assert!(extension::create(&model[..model.len() / 2]).is_err());
        }
        eprintln!("100");
    }
}

/// Nanoseconds for giving an input, a run, and taking the output, on the average.
#[cfg(target_family = "wasm")]
fn speed(model: &[u8], rounds: u32) {
    let session = extension::create(model).unwrap();
    let row = [0; cases::PIXELS_BYTES];
    let tensor = extension::output(session, "StatefulPartitionedCall:0").unwrap();
    let mut output = [0; 40];
    let start = std::time::Instant::now();
    for _ in 0..rounds {
        extension::append(session, cases::PIXELS, &row).unwrap();
        extension::run(session).unwrap();
        extension::data(session, tensor, &mut output).unwrap();
    }
    eprintln!("{}", (start.elapsed() / rounds).as_nanos());
}

#[cfg(not(target_family = "wasm"))]
fn main() {}
