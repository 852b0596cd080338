//! A guest that calls every function of the TensorFlow Lite extension, rightly and wrongly; a line for each case that
//! went well. Its folder is that of the models.
//!
//! Arguments: none for the cases; `leaks`: sessions that come and go, for somebody who watches the memory; `refused`:
//! what becomes of a right call; `speed MODEL ROUNDS OUTPUT INPUT=BYTES…`.
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
        ["speed", model, rounds, output, ref inputs @ ..] => {
            speed(&read(model), rounds.parse().unwrap(), output, inputs);
        }
        _ => panic!("leaks, refused, or speed MODEL ROUNDS OUTPUT INPUT=BYTES…"),
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

/// Nanoseconds for giving the inputs, a run, and taking an output, on the average. Inputs are told as NAME=BYTES.
#[cfg(target_family = "wasm")]
fn speed(model: &[u8], rounds: u32, output: &str, inputs: &[&str]) {
    let session = extension::create(model).unwrap();
    extension::run(session).unwrap();
    let given = |input: &&str| {
        let (name, bytes) = input.rsplit_once('=').unwrap();
        (name.to_owned(), vec![0; bytes.parse().unwrap()])
    };
    let inputs: Vec<(String, Vec<u8>)> = inputs.iter().map(given).collect();
    let tensor = extension::output(session, output).unwrap();
    let mut taken = vec![0; extension::len(session, tensor).unwrap() as usize];
    let start = std::time::Instant::now();
    for _ in 0..rounds {
        for (name, data) in &inputs {
            extension::append(session, name, data).unwrap();
        }
        extension::run(session).unwrap();
        extension::data(session, tensor, &mut taken).unwrap();
    }
    eprintln!("{}", (start.elapsed() / rounds).as_nanos());
}

#[cfg(not(target_family = "wasm"))]
fn main() {}
