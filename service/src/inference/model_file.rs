//! What a TensorFlow Lite model file says about itself: the extension cannot be asked.
//!
//! A file is a flatbuffer of TensorFlow Lite's schema (file identifier `TFL3`). The tables below have only the
//! fields that are read here, by their numbers in that schema; a file is verified as far as they go before any is
//! read. Whether the rest is sound is for the extension to find out.

use std::collections::BTreeSet;

use flatbuffers::{Follow, ForwardsUOffset, InvalidFlatbuffer, Table, VOffsetT, Vector, Verifiable, Verifier};
use thiserror::Error;

use super::tensor::{DataType, Quantization, Shape, Signature, TensorSpec};

/// Tensors that a model may take, or give, at most.
const TENSORS_MAX: usize = 64;

/// What a file of this schema has in its bytes 4 to 7.
const IDENTIFIER: &[u8] = b"TFL3";

/// Bytes of a tensor, or of a row of it, at most.
const TENSOR_BYTES_MAX: usize = 64 << 20;

/// What TensorFlow calls the signature that is meant where none is named.
pub const DEFAULT_SIGNATURE: &str = "serving_default";

/// Why a file cannot be served.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ModelFileError {
    /// It is something else, or damaged.
    #[error("it is not a TensorFlow Lite model: {0}")]
    NotAModel(String),
    /// It is a model, but not one for us.
    #[error("{0}")]
    Unsupported(String),
}

/// Where a table says where its field of that number is.
const fn offset(number: VOffsetT) -> VOffsetT {
    4 + 2 * number
}

/// A table's type, what it takes to find and verify it, and its fields by their numbers.
macro_rules! table {
    ($name:ident { $($field:ident: $number:literal $type:ty;)* }) => {
        #[derive(Clone, Copy)]
        struct $name<'a>(Table<'a>);

        impl<'a> Follow<'a> for $name<'a> {
            type Inner = Self;

            unsafe fn follow(buffer: &'a [u8], place: usize) -> Self {
                // SAFETY: whoever follows says that a table is there.
                Self(unsafe { Table::new(buffer, place) })
            }
        }

        impl<'a> Verifiable for $name<'a> {
            fn run_verifier(verifier: &mut Verifier, place: usize) -> Result<(), InvalidFlatbuffer> {
                verifier.visit_table(place)?
                    $(.visit_field::<$type>(stringify!($field), offset($number), false)?)*
                    .finish();
                Ok(())
            }
        }

        impl<'a> $name<'a> {
            $(fn $field(self) -> Option<<$type as Follow<'a>>::Inner> {
                // SAFETY: tables are reached from a verified root only, and the field was verified as this type.
                unsafe { self.0.get::<$type>(offset($number), None) }
            })*
        }
    };
}

type Numbers<'a, T> = ForwardsUOffset<Vector<'a, T>>;
type Tables<'a, T> = ForwardsUOffset<Vector<'a, ForwardsUOffset<T>>>;

table!(Model {
    subgraphs: 2 Tables<'a, Subgraph<'a>>;
    signatures: 7 Tables<'a, SignatureTable<'a>>;
});
table!(Subgraph {
    tensors: 0 Tables<'a, TensorTable<'a>>;
    inputs: 1 Numbers<'a, i32>;
    outputs: 2 Numbers<'a, i32>;
});
table!(TensorTable {
    shape: 0 Numbers<'a, i32>;
    number: 1 i8;
    name: 3 ForwardsUOffset<&'a str>;
    quantization: 4 ForwardsUOffset<QuantizationTable<'a>>;
    shape_signature: 7 Numbers<'a, i32>;
});
table!(QuantizationTable {
    scale: 2 Numbers<'a, f32>;
    zero_point: 3 Numbers<'a, i64>;
});
table!(SignatureTable {
    inputs: 0 Tables<'a, TensorName<'a>>;
    outputs: 1 Tables<'a, TensorName<'a>>;
    key: 2 ForwardsUOffset<&'a str>;
    subgraph: 4 u32;
});
table!(TensorName {
    name: 0 ForwardsUOffset<&'a str>;
    tensor: 1 u32;
});

/// Reads what a model takes and gives: its signature `serving_default`, else its first one, else the tensors of its
/// main graph under their own names.
///
/// # Errors
/// See [`ModelFileError`].
pub fn signature(file: &[u8]) -> Result<Signature, ModelFileError> {
    let not_a_model = |reason: String| ModelFileError::NotAModel(reason);
    // The identifier comes after the place of the root, four bytes each.
    if file.get(4..8) != Some(IDENTIFIER) {
        return Err(not_a_model("it does not begin as one".to_owned()));
    }
    let model = flatbuffers::root::<Model>(file).map_err(|error| not_a_model(first_line(&error)))?;
    let graphs = model.subgraphs().into_iter().flatten();
    let signature = default_signature(model);
    let graph = graphs.into_iter().nth(signature.and_then(SignatureTable::subgraph).unwrap_or(0) as usize);
    let graph = Graph::of(graph.ok_or_else(|| not_a_model("it has no graph".to_owned()))?);
    match signature {
        Some(table) => graph.signature(
            table.key().unwrap_or(DEFAULT_SIGNATURE),
            &graph.named(table.inputs().into_iter().flatten())?,
            &graph.named(table.outputs().into_iter().flatten())?,
        ),
        None => graph.signature(
            DEFAULT_SIGNATURE,
            &graph.unnamed(graph.table.inputs().into_iter().flatten())?,
            &graph.unnamed(graph.table.outputs().into_iter().flatten())?,
        ),
    }
}

/// What is wrong, without the way to it.
fn first_line(error: &InvalidFlatbuffer) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn default_signature(model: Model<'_>) -> Option<SignatureTable<'_>> {
    let mut tables = model.signatures()?.iter();
    let first = tables.next()?;
    let is_default = |table: &SignatureTable| table.key() == Some(DEFAULT_SIGNATURE);
    Some(if is_default(&first) { first } else { tables.find(is_default).unwrap_or(first) })
}

/// A graph, whose tensors are found by number.
struct Graph<'a> {
    table: Subgraph<'a>,
    tensors: Vec<TensorTable<'a>>,
}

/// A tensor and its name for clients.
type Named<'a> = (&'a str, TensorTable<'a>);

impl<'a> Graph<'a> {
    fn of(table: Subgraph<'a>) -> Self {
        Self { table, tensors: table.tensors().into_iter().flatten().collect() }
    }

    /// Tensors that a signature names.
    fn named(&self, names: impl Iterator<Item = TensorName<'a>>) -> Result<Vec<Named<'a>>, ModelFileError> {
        let named = names.map(|entry| Some((entry.name()?, self.tensor(entry.tensor().unwrap_or(0))?)));
        complete(named)
    }

    /// Tensors that have no name but their own.
    fn unnamed(&self, numbers: impl Iterator<Item = i32>) -> Result<Vec<Named<'a>>, ModelFileError> {
        let unnamed = numbers.map(|number| {
            let tensor = self.tensor(u32::try_from(number).ok()?)?;
            Some((tensor.name()?, tensor))
        });
        complete(unnamed)
    }

    fn tensor(&self, number: u32) -> Option<TensorTable<'a>> {
        self.tensors.get(usize::try_from(number).ok()?).copied()
    }

    fn signature(&self, name: &str, inputs: &[Named<'a>], outputs: &[Named<'a>]) -> Result<Signature, ModelFileError> {
        let has_rows = inputs.iter().chain(outputs).all(|(_, tensor)| is_open(*tensor));
        Ok(Signature {
            name: name.to_owned(),
            inputs: self.specs(inputs, has_rows)?,
            outputs: self.specs(outputs, has_rows)?,
        })
    }

    fn specs(&self, tensors: &[Named<'a>], has_rows: bool) -> Result<Vec<TensorSpec>, ModelFileError> {
        let names: BTreeSet<_> = tensors.iter().map(|(name, _)| name).collect();
        if names.len() < tensors.len() {
            return Err(ModelFileError::Unsupported("two of its tensors have one name".to_owned()));
        }
        tensors.iter().map(|(name, tensor)| self.spec(name, *tensor, has_rows)).collect()
    }

    fn spec(&self, name: &str, tensor: TensorTable<'a>, has_rows: bool) -> Result<TensorSpec, ModelFileError> {
        let unsupported = |reason: &str| ModelFileError::Unsupported(format!("its tensor {name:?} {reason}"));
        let own_name = tensor.name().filter(|name| !name.is_empty()).ok_or_else(|| unsupported("has no own name"))?;
        if self.tensors.iter().filter(|other| other.name() == Some(own_name)).count() > 1 {
            return Err(unsupported("shares its own name with another"));
        }
        let number = tensor.number().unwrap_or(0);
        let data_type = DataType::from_model(number)
            .ok_or_else(|| unsupported(&format!("has elements of type {number}, which are not served")))?;
        let shape = shape(tensor, has_rows).ok_or_else(|| unsupported("has no usable shape"))?;
        let size = shape.dimensions.iter().try_fold(data_type.size(), |size, dimension| size.checked_mul(*dimension));
        size.filter(|size| *size <= TENSOR_BYTES_MAX).ok_or_else(|| unsupported("is too large"))?;
        Ok(TensorSpec {
            name: name.to_owned(),
            tensor: own_name.to_owned(),
            data_type,
            shape,
            quantization: tensor.quantization().and_then(quantization),
            normalization: None,
            labels: Vec::new(),
        })
    }
}

/// As many as may be, and none that leads nowhere.
fn complete<'a>(tensors: impl Iterator<Item = Option<Named<'a>>>) -> Result<Vec<Named<'a>>, ModelFileError> {
    let found: Option<Vec<_>> = tensors.take(TENSORS_MAX + 1).collect();
    match found {
        None => Err(ModelFileError::NotAModel("it names a tensor that is not there".to_owned())),
        Some(tensors) if tensors.is_empty() => Err(ModelFileError::Unsupported("it takes or gives nothing".to_owned())),
        Some(tensors) if tensors.len() > TENSORS_MAX => {
            Err(ModelFileError::Unsupported(format!("it takes or gives more than {TENSORS_MAX} tensors")))
        }
        Some(tensors) => Ok(tensors),
    }
}

/// Whether a tensor's first dimension is open.
fn is_open(tensor: TensorTable) -> bool {
    tensor.shape_signature().is_some_and(|shape| shape.iter().next() == Some(-1))
}

/// What a tensor's shape is; other dimensions than the first are as the model has them without being asked.
fn shape(tensor: TensorTable, has_rows: bool) -> Option<Shape> {
    let dimensions = tensor.shape().into_iter().flatten().skip(usize::from(has_rows));
    let dimensions: Option<_> = dimensions.map(|size| usize::try_from(size).ok().filter(|size| *size > 0)).collect();
    Some(Shape { has_rows, dimensions: dimensions? })
}

/// How a tensor is quantised, if it is, by one scale for all of it.
fn quantization(table: QuantizationTable) -> Option<Quantization> {
    match (table.scale()?, table.zero_point()) {
        (scale, zero_point) if scale.len() == 1 && scale.get(0) > 0.0 => Some(Quantization {
            scale: scale.get(0),
            zero_point: zero_point.filter(|points| !points.is_empty()).map_or(0, |points| points.get(0)),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &[u8] = include_bytes!("../../../models/digits/1/model.tflite");
    const INT8: &[u8] = include_bytes!("../../../models/digits-int8/1/model.tflite");
    const DIABETES: &[u8] = include_bytes!("../../../models/diabetes/1/model.tflite");

    fn tensors(specs: &[TensorSpec]) -> Vec<(&str, &str, String)> {
        specs.iter().map(|spec| (spec.name.as_str(), spec.data_type.name(), spec.shape.to_string())).collect()
    }

    #[test]
    fn a_model_says_what_it_takes_and_gives() {
        let digits = signature(DIGITS).unwrap();
        assert_eq!(tensors(&digits.inputs), [("pixels", "FP32", "[-1, 8, 8, 1]".to_owned())]);
        assert_eq!(tensors(&digits.outputs), [("probabilities", "FP32", "[-1, 10]".to_owned())]);
        assert_eq!((digits.name.as_str(), digits.has_rows()), ("serving_default", true));
        let diabetes = signature(DIABETES).unwrap();
        assert_eq!((diabetes.inputs.len(), diabetes.outputs.len()), (2, 2));
    }

    #[test]
    fn a_quantised_model_says_how() {
        let int8 = signature(INT8).unwrap();
        assert_eq!((int8.inputs[0].data_type, int8.inputs[0].row_bytes()), (DataType::Int8, 64));
        let Quantization { scale, zero_point } = int8.inputs[0].quantization.unwrap();
        assert!((0.0..0.01).contains(&scale) && zero_point == -128, "{scale} {zero_point}");
        assert_eq!(signature(DIGITS).unwrap().inputs[0].quantization, None);
    }

    #[test]
    fn what_is_cut_off_or_something_else_is_no_model() {
        for file in [&b""[..], b"TFL3", b"....TFL4....", &[0; 64], b"\x08\0\0\0TFL3"] {
            assert!(matches!(signature(file), Err(ModelFileError::NotAModel(_))), "{file:?}");
        }
        for size in (0..DIGITS.len()).step_by(97) {
            // What we read may be in the part that is left; the rest is for the extension to miss.
            drop(signature(&DIGITS[..size]));
        }
    }

    #[test]
    fn no_damage_ends_the_process() {
        for file in [DIGITS, INT8, DIABETES] {
            for place in 0..file.len().min(8000) {
                let mut damaged = file.to_vec();
                damaged[place] ^= 0xff;
                drop(signature(&damaged));
            }
        }
    }
}
