//! A model that runs, with what was given to it.
//!
//! One input is given after the other, so that the number of rows is only known when the model is run. An input with
//! as many rows as the tensors have memory for goes there at once, any other is kept until then.

use crate::model::{MAX_TENSOR_BYTES, Model, Tensor};
use crate::native::Interpreter;
use crate::{Wrong, rehearsal};

/// Most rows that are computed at once. From 256 on XNNPACK, as it is in TensorFlow Lite 2.17, loses count of the rows
/// where it takes means or sums of pictures, and writes past the end of their tensors.
pub const MAX_ROWS: usize = 255;

/// How many bits of a tensor's handle are its number among the outputs.
const NUMBER_BITS: u32 = 8;

/// A model that runs.
#[derive(Debug)]
pub struct Session {
    interpreter: Interpreter,
    inputs: Vec<Input>,
    outputs: Vec<Tensor>,
    /// How many rows the tensors have memory for.
    rows: usize,
    /// How many rows there may be, where the number is not the model's own.
    most_rows: Option<usize>,
    /// What its tensors' handles have in common.
    mark: u32,
    /// Whether the tensors have lost their memory.
    broken: bool,
}

/// An input of a session.
#[derive(Debug)]
struct Input {
    tensor: Tensor,
    row_bytes: usize,
    /// How many rows were given last.
    rows: usize,
    /// What was given, where the tensors have no memory for it yet.
    kept: Vec<u8>,
}

impl Session {
    /// Of a model that was tried out; `handle` is the session's own.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn new(file: Vec<u8>, model: Model, threads: u16, handle: u32) -> Result<Self, Wrong> {
        let batches = rehearsal::rehearse(&file, &model).ok_or(Wrong::Model)?;
        let mut interpreter = Interpreter::open(file, threads).ok_or(Wrong::Model)?;
        if interpreter.inputs() != model.inputs.len() || interpreter.outputs() != model.outputs.len() {
            return Err(Wrong::Model);
        }
        let rows = rows_of(&model);
        let sizes = (0..model.inputs.len()).map(|index| Some(interpreter.input(index)?.len()));
        let sizes: Vec<usize> = sizes.collect::<Option<_>>().ok_or(Wrong::Model)?;
        let most_rows = batches.then(|| most_rows(rows, &model));
        let inputs = model.inputs.into_iter().zip(sizes);
        let inputs = inputs.map(|(tensor, size)| Input { tensor, row_bytes: size / rows, rows, kept: Vec::new() });
        Ok(Self {
            interpreter,
            inputs: inputs.collect(),
            outputs: model.outputs,
            rows,
            most_rows,
            mark: handle << NUMBER_BITS,
            broken: false,
        })
    }

    /// An input's number.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn input_called(&self, name: &[u8]) -> Result<usize, Wrong> {
        self.inputs.iter().position(|input| input.tensor.name == name).ok_or(Wrong::Name)
    }

    /// Gives an input its data: one row, or as many as the model may be run with at once.
    ///
    /// # Errors
    /// If it is not that long.
    pub fn set_input(&mut self, index: usize, data: &[u8]) -> Result<(), Wrong> {
        if self.broken {
            return Err(Wrong::Broken);
        }
        let input = self.inputs.get_mut(index).ok_or(Wrong::Name)?;
        let rows = rows_in(data.len(), input.row_bytes, self.rows, self.most_rows).ok_or(Wrong::Size)?;
        if rows == self.rows {
            let memory = self.interpreter.input(index).filter(|memory| memory.len() == data.len());
            memory.ok_or(Wrong::Size)?.copy_from_slice(data);
            input.kept = Vec::new();
        } else {
            input.kept = data.to_vec();
        }
        input.rows = rows;
        Ok(())
    }

    /// Computes the outputs.
    ///
    /// # Errors
    /// If the inputs have different numbers of rows, or the model does not run with them.
    pub fn run(&mut self) -> Result<(), Wrong> {
        if self.broken {
            return Err(Wrong::Broken);
        }
        let rows = self.inputs.first().map_or(self.rows, |input| input.rows);
        if self.inputs.iter().any(|input| input.rows != rows) {
            return Err(Wrong::Size);
        }
        if rows != self.rows {
            self.make_room(rows)?;
        }
        if self.interpreter.invoke() {
            Ok(())
        } else {
            // What an output holds by now is nobody's.
            self.interpreter.clear();
            Err(Wrong::Run)
        }
    }

    /// Gives the tensors memory for another number of rows, and the inputs what was kept for them.
    fn make_room(&mut self, rows: usize) -> Result<(), Wrong> {
        if !self.interpreter.reshape(&shapes(self.inputs.iter().map(|input| &input.tensor), rows)) {
            self.go_back();
            return Err(Wrong::Run);
        }
        self.rows = rows;
        for (index, input) in self.inputs.iter_mut().enumerate() {
            let memory = self.interpreter.input(index).filter(|memory| memory.len() == input.kept.len());
            memory.ok_or(Wrong::Run)?.copy_from_slice(&input.kept);
            input.kept = Vec::new();
        }
        Ok(())
    }

    /// Goes back to the number of rows that there was memory for; all inputs are zeros then.
    fn go_back(&mut self) {
        self.broken = !self.interpreter.reshape(&shapes(self.inputs.iter().map(|input| &input.tensor), self.rows));
        for input in &mut self.inputs {
            input.rows = self.rows;
            input.kept = Vec::new();
        }
    }

    /// The handle of an output.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn output_called(&self, name: &[u8]) -> Result<u32, Wrong> {
        let number = self.outputs.iter().position(|output| output.name == name).ok_or(Wrong::Name)?;
        Ok(self.mark | u32::try_from(number).map_err(|_| Wrong::Name)?)
    }

    /// How many bytes an output has, by its handle.
    ///
    /// # Errors
    /// If the handle is not of an output of this session.
    pub fn output_bytes(&self, handle: u32) -> Result<usize, Wrong> {
        self.interpreter.output_bytes(self.output_number(handle)?).ok_or(Wrong::Run)
    }

    /// An output's data, by its handle.
    ///
    /// # Errors
    /// If the handle is not of an output of this session, or the model was not run yet and has no memory for it.
    pub fn output(&self, handle: u32) -> Result<&[u8], Wrong> {
        self.interpreter.output(self.output_number(handle)?).ok_or(Wrong::Run)
    }

    fn output_number(&self, handle: u32) -> Result<usize, Wrong> {
        if self.broken {
            return Err(Wrong::Broken);
        }
        let number = (handle ^ self.mark) as usize;
        if number < self.outputs.len() { Ok(number) } else { Err(Wrong::Handle) }
    }
}

/// How many rows a model has when nobody says anything else; 1 where its inputs do not agree.
pub fn rows_of(model: &Model) -> usize {
    batch(model).unwrap_or(1)
}

/// The first dimension of all inputs, where it is open and the same.
pub fn batch(model: &Model) -> Option<usize> {
    let mut rows = model.inputs.iter().map(|input| input.shape.first().filter(|rows| input.open && **rows > 0));
    let first = *rows.next()??;
    rows.all(|rows| rows == Some(&first)).then(|| usize::try_from(first).ok())?
}

/// The inputs' shapes for a number of rows.
pub fn shapes<'a>(inputs: impl Iterator<Item = &'a Tensor>, rows: usize) -> Vec<Vec<i32>> {
    let rows = i32::try_from(rows).unwrap_or(i32::MAX);
    let shape = |input: &Tensor| {
        let mut shape = input.shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = rows;
        }
        shape
    };
    inputs.map(shape).collect()
}

/// How many rows the tensors may take memory for.
fn most_rows(rows: usize, model: &Model) -> usize {
    let row_bytes = (model.tensor_bytes / rows as u64).max(1);
    let fitting = usize::try_from(MAX_TENSOR_BYTES / row_bytes).unwrap_or(MAX_ROWS);
    fitting.clamp(rows, MAX_ROWS.max(rows))
}

/// How many rows data has; none where it is not a number of rows that can be. There is memory for `rows` now.
fn rows_in(bytes: usize, row_bytes: usize, rows: usize, most: Option<usize>) -> Option<usize> {
    if bytes == row_bytes.checked_mul(rows)? {
        return Some(rows);
    }
    let given = bytes.checked_div(row_bytes).filter(|_| bytes.is_multiple_of(row_bytes))?;
    (1..=most?).contains(&given).then_some(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_has_a_whole_number_of_rows_within_bounds() {
        let most = Some(1024);
        for now in [1, 2, 1024] {
            assert_eq!((rows_in(8, 8, now, most), rows_in(8 * 1024, 8, now, most)), (Some(1), most), "{now}");
        }
        for bytes in [0, 7, 9, 8 * 1025] {
            assert_eq!(rows_in(bytes, 8, 1, most), None, "{bytes}");
        }
        assert_eq!(rows_in(16, 8, 1, None), None, "no batches");
        assert_eq!((rows_in(0, 0, 1, most), rows_in(4, 0, 1, most)), (Some(1), None), "rows of nothing");
        assert_eq!((rows_in(32, 8, 4, None), rows_in(8, 8, 4, None)), (Some(4), None), "a fixed number of rows");
    }
}
