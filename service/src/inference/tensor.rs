//! Tensors: their element types, shapes and bytes.

use std::fmt;

/// What a tensor's elements are. Their bytes are little-endian, as in a model file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum DataType {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Fp32,
    Fp64,
}

/// A type with its name in the Open Inference Protocol, in TensorFlow, and its number in a model file.
const DATA_TYPES: [(DataType, &str, &str, i8); 12] = [
    (DataType::Bool, "BOOL", "DT_BOOL", 6),
    (DataType::Uint8, "UINT8", "DT_UINT8", 3),
    (DataType::Uint16, "UINT16", "DT_UINT16", 16),
    (DataType::Uint32, "UINT32", "DT_UINT32", 15),
    (DataType::Uint64, "UINT64", "DT_UINT64", 12),
    (DataType::Int8, "INT8", "DT_INT8", 9),
    (DataType::Int16, "INT16", "DT_INT16", 7),
    (DataType::Int32, "INT32", "DT_INT32", 2),
    (DataType::Int64, "INT64", "DT_INT64", 4),
    (DataType::Fp16, "FP16", "DT_HALF", 1),
    (DataType::Fp32, "FP32", "DT_FLOAT", 0),
    (DataType::Fp64, "FP64", "DT_DOUBLE", 10),
];

impl DataType {
    /// The type of that number in a model file, if tensors of it are served.
    pub fn from_model(number: i8) -> Option<Self> {
        DATA_TYPES.into_iter().find(|row| row.3 == number).map(|row| row.0)
    }

    /// The type of that name in the Open Inference Protocol.
    pub fn from_name(name: &str) -> Option<Self> {
        DATA_TYPES.into_iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// Its name in the Open Inference Protocol.
    pub fn name(self) -> &'static str {
        DATA_TYPES.into_iter().find(|row| row.0 == self).map_or("", |row| row.1)
    }

    /// Its name in TensorFlow.
    pub fn tensorflow_name(self) -> &'static str {
        DATA_TYPES.into_iter().find(|row| row.0 == self).map_or("", |row| row.2)
    }

    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => 1,
            Self::Uint16 | Self::Int16 | Self::Fp16 => 2,
            Self::Uint32 | Self::Int32 | Self::Fp32 => 4,
            Self::Uint64 | Self::Int64 | Self::Fp64 => 8,
        }
    }
}

/// The shape that a model gives a tensor: whether it has rows, any number of them, and what else it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Whether the first dimension is open.
    pub has_rows: bool,
    /// The dimensions; without the first one if that is open.
    pub dimensions: Vec<usize>,
}

impl Shape {
    /// How many dimensions there are.
    pub fn rank(&self) -> usize {
        self.dimensions.len() + usize::from(self.has_rows)
    }

    /// Elements in a row, or in all if there are no rows. What was read from a model fits.
    pub fn elements(&self) -> usize {
        self.dimensions.iter().product()
    }

    /// The dimension at that place, unless it is open.
    pub fn fixed(&self, place: usize) -> Option<usize> {
        place.checked_sub(usize::from(self.has_rows)).and_then(|place| self.dimensions.get(place).copied())
    }

    /// The rows of a tensor with these dimensions, 1 if it has none; nothing if the shape is another one.
    pub fn rows_of(&self, dimensions: &[usize]) -> Option<usize> {
        match (self.has_rows, dimensions) {
            (false, all) => (all == self.dimensions).then_some(1),
            (true, [rows, rest @ ..]) => (rest == self.dimensions).then_some(*rows),
            (true, []) => None,
        }
    }

    /// The dimensions of a tensor with so many rows.
    pub fn with_rows(&self, rows: usize) -> Vec<usize> {
        self.has_rows.then_some(rows).into_iter().chain(self.dimensions.iter().copied()).collect()
    }

    /// The dimensions as protocols have them: -1 is open.
    pub fn signed(&self) -> Vec<i64> {
        let fixed = self.dimensions.iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX));
        self.has_rows.then_some(-1).into_iter().chain(fixed).collect()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.signed())
    }
}

/// How the numbers of a quantised tensor stand for others: `scale * (number - zero_point)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantization {
    /// The step between two numbers.
    pub scale: f32,
    /// The number that stands for 0.
    pub zero_point: i64,
}

/// How the pixels of an image, 0 to 255, become a tensor: `(pixel - mean) / std`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// What is taken off.
    pub mean: f32,
    /// What the rest is divided by.
    pub std: f32,
}

/// A tensor that a model takes or gives.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSpec {
    /// Its name for clients.
    pub name: String,
    /// Its name in the model file.
    pub tensor: String,
    /// What its elements are.
    pub data_type: DataType,
    /// Its shape.
    pub shape: Shape,
    /// What its numbers stand for, if it is quantised as a whole.
    pub quantization: Option<Quantization>,
    /// How an image becomes this tensor, where the manifest says it.
    pub normalization: Option<Normalization>,
    /// What its elements are called, where they are classes.
    pub labels: Vec<String>,
}

impl TensorSpec {
    /// A tensor of rows with these dimensions, of which nothing else is known.
    #[cfg(test)]
    pub fn of_rows(name: &str, data_type: DataType, dimensions: &[usize]) -> Self {
        let shape = Shape { has_rows: true, dimensions: dimensions.to_vec() };
        let (quantization, normalization, labels) = (None, None, Vec::new());
        Self {
            name: name.to_owned(),
            tensor: format!("{name}:0"),
            data_type,
            shape,
            quantization,
            normalization,
            labels,
        }
    }

    /// Bytes of a row, or of all if there are no rows.
    pub fn row_bytes(&self) -> usize {
        self.shape.elements() * self.data_type.size()
    }
}

/// What a model takes and gives. Either all tensors have rows, or none has.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    /// Its name.
    pub name: String,
    /// What it takes.
    pub inputs: Vec<TensorSpec>,
    /// What it gives.
    pub outputs: Vec<TensorSpec>,
}

impl Signature {
    /// Whether its tensors have rows, any number of them.
    pub fn has_rows(&self) -> bool {
        self.inputs.iter().chain(&self.outputs).all(|tensor| tensor.shape.has_rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_each_of_one_type() {
        for (data_type, name, tensorflow, number) in DATA_TYPES {
            assert_eq!(DataType::from_name(name), Some(data_type));
            assert_eq!(DataType::from_model(number), Some(data_type));
            assert_eq!((data_type.name(), data_type.tensorflow_name()), (name, tensorflow));
        }
        assert_eq!((DataType::from_name("BYTES"), DataType::from_model(5)), (None, None));
    }

    #[test]
    fn a_shape_says_how_many_rows_dimensions_have() {
        let open = Shape { has_rows: true, dimensions: vec![2, 3] };
        let fixed = Shape { has_rows: false, dimensions: vec![2, 3] };
        assert_eq!((open.rank(), fixed.rank(), open.elements()), (3, 2, 6));
        assert_eq!((open.to_string(), open.with_rows(4)), ("[-1, 2, 3]".to_owned(), vec![4, 2, 3]));
        assert_eq!((open.rows_of(&[7, 2, 3]), open.rows_of(&[2, 3]), open.rows_of(&[])), (Some(7), None, None));
        assert_eq!((fixed.rows_of(&[2, 3]), fixed.rows_of(&[1, 2, 3])), (Some(1), None));
        assert_eq!((open.fixed(0), open.fixed(1), open.fixed(3), fixed.fixed(0)), (None, Some(2), None, Some(2)));
    }
}
