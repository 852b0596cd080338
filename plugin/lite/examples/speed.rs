//! How long an inference takes without WebAssembly: `speed MODEL ROUNDS` prints nanoseconds, on the average. For
//! `cargo xtask bench inference`; what is done is what the guest in `tests/guest` does.
#![allow(clippy::print_stdout, reason = "it is what this is for")]

use std::env;
use std::fs;
use std::time::Instant;

use lite::{Model, Sessions, Wrong};

fn main() -> Result<(), String> {
    let mut arguments = env::args().skip(1);
    let (Some(path), Some(rounds)) = (arguments.next(), arguments.next()) else {
        return Err("usage: speed MODEL ROUNDS".to_owned());
    };
    let file = fs::read(path).map_err(|error| error.to_string())?;
    let rounds = rounds.parse().map_err(|_| "ROUNDS is a number")?;
    println!("{}", nanoseconds(&file, rounds).map_err(|wrong| format!("{wrong:?}"))?);
    Ok(())
}

fn nanoseconds(file: &[u8], rounds: u32) -> Result<u128, Wrong> {
    let model = Model::parse(file).map_err(|_| Wrong::Model)?;
    let mut sessions = Sessions::new();
    let handle = sessions.create(file)?;
    let session = sessions.get_mut(handle)?;
    session.run()?;
    let output = session.output_called(&model.outputs.first().ok_or(Wrong::Name)?.name)?;
    let mut taken = vec![0; session.output_bytes(output)?];
    let inputs = model.inputs.iter().map(|input| Ok((session.input_called(&input.name)?, input)));
    let inputs: Vec<_> = inputs.collect::<Result<_, Wrong>>()?;
    let inputs: Vec<_> = inputs.into_iter().map(|(number, input)| (number, vec![0; bytes(input, file)])).collect();
    let start = Instant::now();
    for _ in 0..rounds {
        for (number, data) in &inputs {
            session.set_input(*number, data)?;
        }
        session.run()?;
        taken.copy_from_slice(session.output(output)?);
    }
    Ok((start.elapsed() / rounds.max(1)).as_nanos())
}

/// Bytes of a row: by trial, as only the library knows the size of an element.
fn bytes(input: &lite::Tensor, file: &[u8]) -> usize {
    let elements: i32 = input.shape.iter().product();
    let elements = usize::try_from(elements).unwrap_or(0);
    let fits = |size: &usize| {
        let mut sessions = Sessions::new();
        let handle = sessions.create(file).ok()?;
        let session = sessions.get_mut(handle).ok()?;
        let number = session.input_called(&input.name).ok()?;
        session.set_input(number, &vec![0; elements * size]).ok()
    };
    // The smallest: larger ones may be several rows.
    [1, 2, 4, 8].into_iter().find(|size| fits(size).is_some()).map_or(0, |size| elements * size)
}
