//! A model's first run, in a process of its own: what the checks of the file cannot see, such as options that an
//! operator takes for granted, crashes there.

use std::time::Duration;

use crate::model::Model;
use crate::native::{self, Interpreter};
use crate::session::{batch, rows_of, shapes};

/// How long loading and running a model three times may take.
pub const TIME: Duration = Duration::from_secs(10);

/// How much memory it may take, in bytes, with what the process has in any case.
pub const DATA_BYTES: u64 = 4 << 30;

const RUNS: u8 = b'1';
const RUNS_IN_BATCHES: u8 = b'n';

/// Tries a model out: whether it can be used, and with other numbers of rows than its own.
pub fn rehearse(file: &[u8], model: &Model) -> Option<bool> {
    native::rehearse(TIME, DATA_BYTES, || run(file, model)).map(|verdict| verdict == RUNS_IN_BATCHES)
}

/// Runs a model on zeros.
fn run(file: &[u8], model: &Model) -> Option<u8> {
    let mut interpreter = Interpreter::open(file.to_vec(), 1)?;
    interpreter.invoke().then_some(())?;
    let before = output_sizes(&interpreter)?;
    let batches = batch(model).is_some() && runs_in_batches(&mut interpreter, model, &before);
    Some(if batches { RUNS_IN_BATCHES } else { RUNS })
}

/// Whether one row more makes all outputs longer by a row, and one row less shorter again.
fn runs_in_batches(interpreter: &mut Interpreter, model: &Model, before: &[usize]) -> bool {
    let rows = rows_of(model);
    let mut with = |rows| {
        let run = interpreter.reshape(&shapes(model.inputs.iter(), rows)) && interpreter.invoke();
        if run { output_sizes(interpreter) } else { None }
    };
    let grown = with(rows + 1);
    let grown =
        grown.is_some_and(|after| after.iter().zip(before).all(|(after, before)| after * rows == before * (rows + 1)));
    grown && with(rows).is_some_and(|after| after == before)
}

fn output_sizes(interpreter: &Interpreter) -> Option<Vec<usize>> {
    (0..interpreter.outputs()).map(|index| Some(interpreter.output(index)?.len())).collect()
}
