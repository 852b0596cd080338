//! What a model file says of itself, and whether it is one that TensorFlow Lite can be given.
//!
//! The library checks that the file is a flatbuffer of the model's schema. It does not check what the numbers in it
//! mean, and follows them: a tensor's number out of range, or weights that are shorter than their shape, lead it out
//! of its memory. So this looks at all of them, as the library's own verifier would, which it does not export; and
//! refuses besides what no model in use has, and much can go wrong with.

use std::fmt;

use crate::flatbuffer::{Table, bytes};

/// Longest model in bytes.
pub const MAX_MODEL_BYTES: usize = 256 << 20;

/// Most memory that the tensors of one row may take, in bytes.
pub const MAX_TENSOR_BYTES: u64 = 512 << 20;

/// Most inputs, and most outputs: a handle has room for that many.
pub const MAX_OUTPUTS: usize = 255;

/// Most dimensions of a tensor.
const MAX_RANK: usize = 8;

/// The schema's version.
const VERSION: u32 = 3;

/// What a model file has at its fifth byte.
const IDENTIFIER: &[u8; 4] = b"TFL3";

/// Numbers of fields in the schema.
mod field {
    pub const MODEL_VERSION: usize = 0;
    pub const MODEL_CODES: usize = 1;
    pub const MODEL_GRAPHS: usize = 2;
    pub const MODEL_BUFFERS: usize = 4;
    pub const GRAPH_TENSORS: usize = 0;
    pub const GRAPH_INPUTS: usize = 1;
    pub const GRAPH_OUTPUTS: usize = 2;
    pub const GRAPH_OPERATORS: usize = 3;
    pub const TENSOR_SHAPE: usize = 0;
    pub const TENSOR_TYPE: usize = 1;
    pub const TENSOR_BUFFER: usize = 2;
    pub const TENSOR_NAME: usize = 3;
    pub const TENSOR_VARIABLE: usize = 5;
    pub const TENSOR_SPARSITY: usize = 6;
    pub const TENSOR_SIGNATURE: usize = 7;
    pub const OPERATOR_CODE: usize = 0;
    pub const OPERATOR_INPUTS: usize = 1;
    pub const OPERATOR_OUTPUTS: usize = 2;
    pub const OPERATOR_INTERMEDIATES: usize = 8;
    pub const OPERATOR_LARGE: usize = 9;
    pub const BUFFER_DATA: usize = 0;
    pub const BUFFER_OFFSET: usize = 1;
}

/// A model that can be given to TensorFlow Lite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Its inputs, in the library's order.
    pub inputs: Vec<Tensor>,
    /// Its outputs, in the library's order.
    pub outputs: Vec<Tensor>,
    /// What its tensors take that are not constant, in bytes.
    pub tensor_bytes: u64,
}

/// An input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: Vec<u8>,
    /// Its dimensions.
    pub shape: Vec<i32>,
    /// Whether the first dimension is open.
    pub open: bool,
}

/// Why a model cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(&'static str);

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

/// For what a flatbuffer does not hold as a whole.
const DAMAGED: Refusal = Refusal("the file is damaged");

impl Model {
    /// Reads a model file.
    ///
    /// # Errors
    /// If it is none, or not one that can be used.
    pub fn parse(file: &[u8]) -> Result<Self, Refusal> {
        ensure(file.len() <= MAX_MODEL_BYTES, "the file is larger than 256 MiB")?;
        ensure(bytes(file, 4).as_ref() == Some(IDENTIFIER), "it is no TensorFlow Lite model")?;
        let model = Table::root(file).ok_or(DAMAGED)?;
        ensure(model.u32(field::MODEL_VERSION) == Some(VERSION), "its schema's version is not 3")?;
        let buffers = buffers(model)?;
        let codes = model.tables(field::MODEL_CODES).ok_or(DAMAGED)?.len();
        let graphs = model.tables(field::MODEL_GRAPHS).ok_or(DAMAGED)?;
        let mut parsed = graphs.iter().map(|graph| Graph::parse(*graph, &buffers)).collect::<Result<Vec<_>, _>>()?;
        for (graph, table) in parsed.iter().zip(&graphs) {
            graph.check_operators(*table, codes)?;
        }
        ensure(!parsed.is_empty(), "it has no graph")?;
        let tensor_bytes = parsed.iter().map(|graph| graph.tensor_bytes).fold(0, u64::saturating_add);
        ensure(tensor_bytes <= MAX_TENSOR_BYTES, "its tensors take more than 512 MiB")?;
        let main = parsed.swap_remove(0);
        Ok(Self { inputs: main.ends(&main.inputs)?, outputs: main.ends(&main.outputs)?, tensor_bytes })
    }
}

/// The contents of constants; those of others are empty.
fn buffers<'a>(model: Table<'a>) -> Result<Vec<&'a [u8]>, Refusal> {
    let content = |buffer: Table<'a>| {
        ensure(buffer.u64(field::BUFFER_OFFSET) == Some(0), "its weights lie outside of its flatbuffer")?;
        buffer.bytes(field::BUFFER_DATA).ok_or(DAMAGED)
    };
    model.tables(field::MODEL_BUFFERS).ok_or(DAMAGED)?.into_iter().map(content).collect()
}

/// A graph, whose tensors are as they should be.
struct Graph<'a> {
    tensors: Vec<Parsed<'a>>,
    inputs: Vec<usize>,
    outputs: Vec<usize>,
    tensor_bytes: u64,
}

struct Parsed<'a> {
    table: Table<'a>,
    kind: Kind,
    shape: Vec<i32>,
    /// Whether the file holds its content.
    constant: bool,
    variable: bool,
}

impl<'a> Graph<'a> {
    fn parse(graph: Table<'a>, buffers: &[&[u8]]) -> Result<Self, Refusal> {
        let tensors = graph.tables(field::GRAPH_TENSORS).ok_or(DAMAGED)?;
        let tensors = tensors.into_iter().map(|tensor| Parsed::new(tensor, buffers)).collect::<Result<Vec<_>, _>>()?;
        let own = |number| numbers(graph, number, tensors.len());
        let (inputs, outputs) = (own(field::GRAPH_INPUTS)?, own(field::GRAPH_OUTPUTS)?);
        let size = |tensor: &Parsed<'_>| if tensor.constant { 0 } else { tensor.bytes().unwrap_or(u64::MAX) };
        let tensor_bytes = tensors.iter().map(size).fold(0, u64::saturating_add);
        Ok(Self { tensors, inputs, outputs, tensor_bytes })
    }

    /// Checks that each operator reads what is there by then, and writes what nothing else writes.
    fn check_operators(&self, graph: Table<'_>, codes: usize) -> Result<(), Refusal> {
        let mut known: Vec<bool> = self.tensors.iter().map(|tensor| tensor.constant || tensor.variable).collect();
        for input in &self.inputs {
            let first = known.get_mut(*input).is_some_and(|known| !std::mem::replace(known, true));
            ensure(first, "an input is a constant, or is there twice")?;
        }
        for operator in graph.tables(field::GRAPH_OPERATORS).ok_or(DAMAGED)? {
            self.check_operator(operator, codes, &mut known)?;
        }
        let computed = self.outputs.iter().all(|output| known.get(*output) == Some(&true));
        ensure(computed, "an output is not computed")
    }

    fn check_operator(&self, operator: Table<'_>, codes: usize, known: &mut [bool]) -> Result<(), Refusal> {
        let code = operator.u32(field::OPERATOR_CODE).ok_or(DAMAGED)?;
        ensure((code as usize) < codes, "an operator has no code")?;
        ensure(operator.u64(field::OPERATOR_LARGE) == Some(0), "an operator's options lie outside of the flatbuffer")?;
        let inputs = optional_numbers(operator, field::OPERATOR_INPUTS, known.len())?;
        let present = inputs.iter().all(|input| known.get(*input) == Some(&true));
        ensure(present, "an operator reads what nothing has computed")?;
        optional_numbers(operator, field::OPERATOR_INTERMEDIATES, known.len())?;
        for output in numbers(operator, field::OPERATOR_OUTPUTS, known.len())? {
            let first = known.get_mut(output).is_some_and(|known| !std::mem::replace(known, true));
            ensure(first, "two operators write the same, or one writes a constant")?;
        }
        Ok(())
    }

    /// Inputs or outputs, which guests give and get.
    fn ends(&self, numbers: &[usize]) -> Result<Vec<Tensor>, Refusal> {
        ensure(numbers.len() <= MAX_OUTPUTS, "it has more than 255 inputs or outputs")?;
        numbers.iter().filter_map(|number| self.tensors.get(*number)).map(Parsed::end).collect()
    }
}

impl<'a> Parsed<'a> {
    fn new(table: Table<'a>, buffers: &[&[u8]]) -> Result<Self, Refusal> {
        let shape = table.numbers(field::TENSOR_SHAPE).ok_or(DAMAGED)?;
        ensure(shape.len() <= MAX_RANK, "a tensor has more than 8 dimensions")?;
        ensure(shape.iter().all(|length| *length >= 0), "a tensor has a negative dimension")?;
        ensure(!table.has(field::TENSOR_SPARSITY), "it has sparse tensors, which are not supported")?;
        let kind = Kind::of(table.i8(field::TENSOR_TYPE).ok_or(DAMAGED)?)?;
        let buffer = table.u32(field::TENSOR_BUFFER).ok_or(DAMAGED)? as usize;
        let content = *buffers.get(buffer).ok_or(Refusal("a tensor has no buffer"))?;
        let variable = table.i8(field::TENSOR_VARIABLE).ok_or(DAMAGED)? != 0;
        let mut parsed = Self { table, kind, shape, constant: false, variable };
        let size = parsed.bytes().ok_or(Refusal("a tensor is too large"))?;
        parsed.constant = !content.is_empty() || (buffer != 0 && size == 0);
        let fits = content.is_empty()
            || match kind {
                Kind::Bits(_) => content.len() as u64 == size,
                Kind::Text => holds_texts(content),
                Kind::Handle => false,
            };
        ensure(fits, "a constant is not as long as its shape says")?;
        Ok(parsed)
    }

    /// What it takes, in bytes; of what has no size that could be known, nothing.
    fn bytes(&self) -> Option<u64> {
        let Kind::Bits(bits) = self.kind else { return Some(0) };
        let count = self.shape.iter().try_fold(1_u64, |count, length| count.checked_mul(u64::try_from(*length).ok()?));
        Some(count?.checked_mul(bits)?.div_ceil(8)).filter(|bytes| *bytes <= MAX_TENSOR_BYTES)
    }

    fn end(&self) -> Result<Tensor, Refusal> {
        let name = self.table.bytes(field::TENSOR_NAME).ok_or(DAMAGED)?.to_vec();
        ensure(self.table.has(field::TENSOR_NAME) && !name.is_empty(), "an input or output has no name")?;
        ensure(matches!(self.kind, Kind::Bits(8..)), "an input or output is of a type that guests cannot give or get")?;
        let signature = self.table.numbers(field::TENSOR_SIGNATURE).ok_or(DAMAGED)?;
        let open = signature.len() == self.shape.len() && signature.first() == Some(&-1);
        Ok(Tensor { name, shape: self.shape.clone(), open })
    }
}

/// What a tensor's elements are.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Numbers of that many bits.
    Bits(u64),
    /// Texts of any length.
    Text,
    /// Something of the library's own.
    Handle,
}

impl Kind {
    /// By the number that the schema has for it.
    fn of(number: i8) -> Result<Self, Refusal> {
        match number {
            // FLOAT32, INT32, UINT32
            0 | 2 | 15 => Ok(Self::Bits(32)),
            // FLOAT16, INT16, UINT16
            1 | 7 | 16 => Ok(Self::Bits(16)),
            // UINT8, BOOL, INT8
            3 | 6 | 9 => Ok(Self::Bits(8)),
            // INT64, COMPLEX64, FLOAT64, UINT64
            4 | 8 | 10 | 12 => Ok(Self::Bits(64)),
            // COMPLEX128
            11 => Ok(Self::Bits(128)),
            // INT4
            17 => Ok(Self::Bits(4)),
            // STRING
            5 => Ok(Self::Text),
            // RESOURCE, VARIANT
            13 | 14 => Ok(Self::Handle),
            _ => Err(Refusal("a tensor is of an unknown type")),
        }
    }
}

/// Whether bytes are texts as the library has them: how many, where each begins and the last ends, and they.
fn holds_texts(content: &[u8]) -> bool {
    let number = |index: usize| bytes(content, index.checked_mul(4)?).map(|bytes| u32::from_le_bytes(bytes) as usize);
    let Some(count) = number(0).filter(|count| *count < content.len() / 4) else { return false };
    let places: Option<Vec<usize>> = (1..count + 2).map(number).collect();
    places.is_some_and(|places| {
        places.first() == Some(&(4 * (count + 2)))
            && places.is_sorted()
            && places.last().is_some_and(|last| *last <= content.len())
    })
}

/// Numbers of tensors, all of which are there.
fn numbers(table: Table<'_>, number: usize, count: usize) -> Result<Vec<usize>, Refusal> {
    let there = |number: i32| usize::try_from(number).ok().filter(|number| *number < count);
    let numbers = table.numbers(number).ok_or(DAMAGED)?;
    numbers.into_iter().map(|number| there(number).ok_or(Refusal("a tensor is named that is not there"))).collect()
}

/// Numbers of tensors, of which some may be left out (-1).
fn optional_numbers(table: Table<'_>, number: usize, count: usize) -> Result<Vec<usize>, Refusal> {
    let there = |number: i32| usize::try_from(number).ok().filter(|number| *number < count);
    let given = table.numbers(number).ok_or(DAMAGED)?.into_iter().filter(|number| *number != -1);
    given.map(|number| there(number).ok_or(Refusal("a tensor is named that is not there"))).collect()
}

fn ensure(right: bool, otherwise: &'static str) -> Result<(), Refusal> {
    if right { Ok(()) } else { Err(Refusal(otherwise)) }
}
