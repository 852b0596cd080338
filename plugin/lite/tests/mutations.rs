//! Models that are damaged: none may crash the process that loads and runs it. With USHER_LONG=1 there are many more.
#![allow(missing_docs, reason = "test names say it")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a panic is how a test fails")]

use std::fs;
use std::path::Path;

use fastrand::Rng;
use lite::{Model, Sessions};

const MODELS: [&str; 3] = ["digits", "digits-int8", "diabetes"];

/// Where words lie that are likely to mean something: small ones are lengths, offsets and numbers of things, others
/// are weights, of which any will do.
fn telling(model: &[u8]) -> Vec<usize> {
    let words = model.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).enumerate();
    words.filter(|(_, word)| (1..model.len() as u32).contains(word)).map(|(index, _)| index * 4).collect()
}

/// Damages a model: a few words, bytes or bits of it, or a part that is moved.
fn damaged(model: &[u8], telling: &[usize], random: &mut Rng) -> Vec<u8> {
    let mut file = model.to_vec();
    for _ in 0..random.usize(1..4) {
        let anywhere = random.u8(0..4) == 0;
        let place =
            if anywhere { random.usize(0..file.len() / 4 - 1) * 4 } else { telling[random.usize(0..telling.len())] };
        match random.u8(0..5) {
            0 => file[place..place + 4].copy_from_slice(&interesting(random).to_le_bytes()),
            1 => file[place..place + 4].copy_from_slice(&random.u32(..).to_le_bytes()),
            2 => file[place + random.usize(0..4)] = random.u8(..),
            3 => file[place + random.usize(0..4)] ^= 1 << random.u8(0..8),
            _ => {
                let from = random.usize(0..file.len() - 16);
                let length = random.usize(1..16).min(file.len() - place);
                file.copy_within(from..from + length, place);
            }
        }
    }
    file
}

fn interesting(random: &mut Rng) -> u32 {
    let numbers =
        [0, 1, 2, 3, 4, 7, 8, 255, 256, 65_535, 1 << 16, 1 << 24, i32::MAX as u32, 1 << 31, u32::MAX - 1, u32::MAX];
    numbers[random.usize(0..numbers.len())]
}

/// Runs what can be loaded, with one row and with more.
fn use_it(sessions: &mut Sessions, file: &[u8]) -> bool {
    let Ok(handle) = sessions.create(file) else { return false };
    let model = Model::parse(file).unwrap();
    let session = sessions.get_mut(handle).unwrap();
    for rows in [1, 3] {
        for input in &model.inputs {
            let number = session.input_called(&input.name).unwrap();
            let elements: i32 = input.shape.iter().product();
            for bytes in [1, 4] {
                let data = vec![1; usize::try_from(elements).unwrap() * bytes * rows];
                let _ = session.set_input(number, &data);
            }
        }
        let _ = session.run();
    }
    sessions.delete(handle).unwrap();
    true
}

#[test]
fn thousands_of_damaged_models_crash_nothing() {
    let rounds = if std::env::var_os("USHER_LONG").is_some() { 30_000 } else { 800 };
    let mut sessions = Sessions::new();
    let mut random = Rng::with_seed(8);
    for name in MODELS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../models/{name}/1/model.tflite"));
        let model = fs::read(path).unwrap();
        let telling = telling(&model);
        let used = (0..rounds).filter(|_| use_it(&mut sessions, &damaged(&model, &telling, &mut random))).count();
        println!("{name}: {used} of {rounds} damaged models can be used");
        assert!(used > 0 && used < rounds, "the damage is of any kind");
    }
}
