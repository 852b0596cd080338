//! Tensors as JSON: nested arrays of numbers, read straight into a tensor's bytes, and written from them.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::inference::tensor::{DataType, TensorSpec};

/// What comes before a token that is no JSON, where [`mark_tokens`] made a string of it. No string can have this
/// character but by an escape.
const MARK: char = '\0';

/// Numbers of a tensor that JSON does not have, as TensorFlow Serving writes and takes them.
const TOKENS: [(&str, f64); 3] = [("NaN", f64::NAN), ("Infinity", f64::INFINITY), ("-Infinity", f64::NEG_INFINITY)];

/// The body with each bare `NaN`, `Infinity` and `-Infinity` made a marked string; nothing if it has none.
pub fn mark_tokens(body: &[u8]) -> Option<Vec<u8>> {
    if memchr::memmem::find(body, b"NaN").is_none() && memchr::memmem::find(body, b"Infinity").is_none() {
        return None;
    }
    let mut marked = Vec::with_capacity(body.len() + 64);
    let (mut rest, mut in_string) = (body, false);
    while let Some((&byte, after)) = rest.split_first() {
        let token = TOKENS.iter().map(|(token, _)| token.as_bytes()).find(|token| rest.starts_with(token));
        match (token, byte) {
            (Some(token), _) if !in_string => {
                marked.extend_from_slice(b"\"\\u0000");
                marked.extend_from_slice(token);
                marked.push(b'"');
                rest = rest.get(token.len()..).unwrap_or_default();
                continue;
            }
            (_, b'\\') if in_string => {
                let escape = rest.get(..2).unwrap_or(rest);
                marked.extend_from_slice(escape);
                rest = rest.get(escape.len()..).unwrap_or_default();
                continue;
            }
            (_, b'"') => in_string = !in_string,
            _ => {}
        }
        marked.push(byte);
        rest = after;
    }
    Some(marked)
}

/// Reads one tensor, or several that are stacked.
#[derive(Debug)]
pub struct Reader<'a> {
    spec: &'a TensorSpec,
    /// How many elements each dimension has: as it must be, or as it was found first.
    sizes: Vec<Option<usize>>,
    /// Whether it may have what TensorFlow Serving has beyond JSON: marked tokens, and base64.
    is_extended: bool,
    data: Vec<u8>,
}

impl<'a> Reader<'a> {
    /// For a tensor with these dimensions, in plain JSON.
    pub fn plain(spec: &'a TensorSpec, dimensions: Vec<usize>) -> Self {
        Self { spec, sizes: dimensions.into_iter().map(Some).collect(), is_extended: false, data: Vec::new() }
    }

    /// For a tensor of any number of rows, as TensorFlow Serving takes it.
    pub fn of_rows(spec: &'a TensorSpec) -> Self {
        let sizes = (0..spec.shape.rank()).map(|place| spec.shape.fixed(place)).collect();
        Self { spec, sizes, is_extended: true, data: Vec::new() }
    }

    /// What reads the next value, which is `depth` dimensions inside of the tensor.
    pub fn at(&mut self, depth: usize) -> Level<'_, 'a> {
        Level { reader: self, depth }
    }

    /// How many elements the first dimension has, as far as it is known.
    pub fn rows(&self) -> Option<usize> {
        self.sizes.first().copied().flatten()
    }

    /// The tensor's name for clients.
    pub fn name(&self) -> &'a str {
        &self.spec.name
    }

    /// The tensor's bytes.
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }

    /// Notes that a dimension has so many elements.
    ///
    /// # Errors
    /// If it must have, or had before, another number of them.
    pub fn close<E: Error>(&mut self, depth: usize, count: usize) -> Result<(), E> {
        match self.sizes.get_mut(depth) {
            Some(Some(size)) if *size == count => Ok(()),
            Some(Some(size)) => {
                let size = *size;
                Err(self.wrong(format_args!("dimension {depth} has {count} elements here, and must have {size}")))
            }
            Some(open) => {
                *open = Some(count);
                Ok(())
            }
            None => Err(self.too_deep()),
        }
    }

    fn wrong<E: Error>(&self, what: impl fmt::Display) -> E {
        E::custom(format_args!("tensor {:?}: {what}", self.spec.name))
    }

    fn too_deep<E: Error>(&self) -> E {
        self.wrong(format_args!("it has more than {} dimensions", self.sizes.len()))
    }

    fn is_element<E: Error>(&self, depth: usize) -> Result<(), E> {
        match depth == self.sizes.len() {
            true => Ok(()),
            false => {
                Err(self.wrong(format_args!("it has {depth} dimensions here, and must have {}", self.sizes.len())))
            }
        }
    }

    fn integer<E: Error>(&mut self, depth: usize, number: i128) -> Result<(), E> {
        self.is_element(depth)?;
        macro_rules! push {
            ($type:ty) => {
                <$type>::try_from(number).map(|number| self.data.extend_from_slice(&number.to_le_bytes())).ok()
            };
        }
        let pushed = match self.spec.data_type {
            DataType::Fp16 | DataType::Fp32 | DataType::Fp64 => return self.float(depth, number as f64),
            DataType::Bool => None,
            DataType::Uint8 => push!(u8),
            DataType::Uint16 => push!(u16),
            DataType::Uint32 => push!(u32),
            DataType::Uint64 => push!(u64),
            DataType::Int8 => push!(i8),
            DataType::Int16 => push!(i16),
            DataType::Int32 => push!(i32),
            DataType::Int64 => push!(i64),
        };
        pushed.ok_or_else(|| self.wrong(format_args!("{number} is no {}", self.spec.data_type.name())))
    }

    fn float<E: Error>(&mut self, depth: usize, number: f64) -> Result<(), E> {
        self.is_element(depth)?;
        match self.spec.data_type {
            DataType::Fp64 => self.data.extend_from_slice(&number.to_le_bytes()),
            DataType::Fp32 if number.is_finite() && (number as f32).is_infinite() => {
                return Err(self.wrong(format_args!("{number:e} is out of the range of FP32")));
            }
            DataType::Fp32 => self.data.extend_from_slice(&(number as f32).to_le_bytes()),
            DataType::Fp16 => return Err(self.wrong("FP16 cannot be sent as JSON; send it as binary data")),
            other => return Err(self.wrong(format_args!("{number:?} is no {}", other.name()))),
        }
        Ok(())
    }

    /// Reads the bytes of everything inside of `depth`, in base64.
    ///
    /// # Errors
    /// If it is no base64, or has another number of bytes.
    pub fn bytes<E: Error>(&mut self, depth: usize, text: &str) -> Result<(), E> {
        let bytes = BASE64_STANDARD.decode(text).map_err(|error| self.wrong(format_args!("b64: {error}")))?;
        let inside = self.sizes.get(depth..).unwrap_or_default().iter().copied().collect::<Option<Vec<_>>>();
        let size = inside.and_then(|sizes| {
            sizes.iter().try_fold(self.spec.data_type.size(), |size, dimension| size.checked_mul(*dimension))
        });
        if size != Some(bytes.len()) {
            let size = size.map_or("a row's".to_owned(), |size| size.to_string());
            return Err(self.wrong(format_args!("b64 has {} bytes, and must have {size}", bytes.len())));
        }
        self.data.extend_from_slice(&bytes);
        Ok(())
    }
}

/// A value somewhere inside of a tensor.
#[derive(Debug)]
pub struct Level<'r, 'a> {
    reader: &'r mut Reader<'a>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Level<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, data_type) = (&self.reader.spec.name, self.reader.spec.data_type.name());
        write!(f, "tensor {name:?} as nested arrays of {data_type}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        if self.depth >= self.reader.sizes.len() {
            return Err(self.reader.too_deep());
        }
        let mut count = 0;
        while elements.next_element_seed(self.reader.at(self.depth + 1))?.is_some() {
            count += 1;
        }
        self.reader.close(self.depth, count)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let text = match members.next_key::<String>()? {
            _ if !self.reader.is_extended => return Err(self.reader.wrong("it has an object where a number must be")),
            Some(name) if name == "b64" => members.next_value::<String>()?,
            _ => return Err(self.reader.wrong("an object here must be {\"b64\": …}")),
        };
        if members.next_key::<String>()?.is_some() {
            return Err(self.reader.wrong("an object here must be {\"b64\": …} and nothing else"));
        }
        self.reader.bytes(self.depth, &text)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.reader.integer(self.depth, number.into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.reader.integer(self.depth, number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.reader.float(self.depth, number)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.reader.is_element(self.depth)?;
        if self.reader.spec.data_type != DataType::Bool {
            return Err(self.reader.wrong(format_args!("{value} is no {}", self.reader.spec.data_type.name())));
        }
        self.reader.data.push(value.into());
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let token = text.strip_prefix(MARK).filter(|_| self.reader.is_extended);
        match token.and_then(|token| TOKENS.iter().find(|(name, _)| *name == token)) {
            Some((_, number)) => self.reader.float(self.depth, *number),
            None => Err(self.reader.wrong(format_args!("{text:?} is no {}", self.reader.spec.data_type.name()))),
        }
    }
}

/// A number that JSON does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotInJson;

/// What becomes of numbers that JSON does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NonFinite {
    /// They are written as TensorFlow Serving does.
    Tokens,
    /// They are refused.
    Refused,
}

/// Writes a tensor with these dimensions as nested arrays.
///
/// # Errors
/// A number that is not finite, if those are refused, or an FP16 one, which only binary data carry.
pub fn write(
    out: &mut Vec<u8>,
    data_type: DataType,
    dimensions: &[usize],
    data: &[u8],
    non_finite: NonFinite,
) -> Result<(), NotInJson> {
    let Some((&count, inside)) = dimensions.split_first() else {
        return write_element(out, data_type, data, non_finite);
    };
    out.push(b'[');
    let size = data.len() / count.max(1);
    for place in 0..count {
        if place > 0 {
            out.push(b',');
        }
        write(out, data_type, inside, data.get(place * size..(place + 1) * size).unwrap_or_default(), non_finite)?;
    }
    out.push(b']');
    Ok(())
}

fn write_element(out: &mut Vec<u8>, data_type: DataType, bytes: &[u8], non_finite: NonFinite) -> Result<(), NotInJson> {
    macro_rules! number {
        ($type:ty) => {
            <$type>::from_le_bytes(bytes.first_chunk().copied().unwrap_or_default())
        };
    }
    let float = match data_type {
        DataType::Fp32 => f64::from(number!(f32)),
        DataType::Fp64 => number!(f64),
        _ => 0.0,
    };
    if !float.is_finite() {
        let token = TOKENS.iter().find(|(_, token)| token.to_bits() == float.to_bits()).map_or("NaN", |(name, _)| name);
        out.extend_from_slice(token.as_bytes());
        return if non_finite == NonFinite::Tokens { Ok(()) } else { Err(NotInJson) };
    }
    // Writing to memory cannot fail.
    let _ = match data_type {
        DataType::Bool => serde_json::to_writer(out, &(number!(u8) != 0)),
        DataType::Uint8 => serde_json::to_writer(out, &number!(u8)),
        DataType::Uint16 => serde_json::to_writer(out, &number!(u16)),
        DataType::Uint32 => serde_json::to_writer(out, &number!(u32)),
        DataType::Uint64 => serde_json::to_writer(out, &number!(u64)),
        DataType::Int8 => serde_json::to_writer(out, &number!(i8)),
        DataType::Int16 => serde_json::to_writer(out, &number!(i16)),
        DataType::Int32 => serde_json::to_writer(out, &number!(i32)),
        DataType::Int64 => serde_json::to_writer(out, &number!(i64)),
        DataType::Fp32 => serde_json::to_writer(out, &number!(f32)),
        DataType::Fp64 => serde_json::to_writer(out, &number!(f64)),
        // It would need a conversion that nothing here has.
        DataType::Fp16 => return Err(NotInJson),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data_type: DataType, dimensions: &[usize], json: &str) -> Result<Vec<u8>, String> {
        let marked = mark_tokens(json.as_bytes()).unwrap_or(json.as_bytes().to_vec());
        let spec = TensorSpec::of_rows("x", data_type, dimensions);
        let mut reader = Reader::of_rows(&spec);
        let mut deserializer = serde_json::Deserializer::from_slice(&marked);
        reader.at(0).deserialize(&mut deserializer).map_err(|error| error.to_string())?;
        deserializer.end().map_err(|error| error.to_string())?;
        Ok(reader.into_data())
    }

    fn floats(json: &str) -> Vec<f32> {
        let data = read(DataType::Fp32, &[], json).unwrap();
        data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    #[test]
    fn numbers_are_read_as_their_type() {
        assert_eq!(floats("[0.96, 1e-7, 1E5, 1, -0.0, 3e38]"), [0.96, 1e-7, 1e5, 1.0, -0.0, 3e38]);
        assert_eq!(read(DataType::Uint8, &[2], "[[0,255],[1,2]]").unwrap(), [0, 255, 1, 2]);
        assert_eq!(read(DataType::Int8, &[], "[-128,127]").unwrap(), [128, 127]);
        assert_eq!(read(DataType::Bool, &[], "[true,false]").unwrap(), [1, 0]);
        assert_eq!(read(DataType::Int64, &[], "[-2]").unwrap(), (-2_i64).to_le_bytes());
    }

    #[test]
    fn numbers_of_another_type_are_refused_by_name() {
        for (data_type, json) in [
            (DataType::Uint8, "[300]"),
            (DataType::Uint8, "[-1]"),
            (DataType::Uint8, "[1.5]"),
            (DataType::Int32, "[1.0]"),
            (DataType::Fp32, "[true]"),
            (DataType::Fp32, "[1e39]"),
            (DataType::Fp32, "[\"1\"]"),
            (DataType::Fp32, "[\"NaN\"]"),
            (DataType::Fp32, "[null]"),
            (DataType::Fp32, "[{}]"),
            (DataType::Bool, "[1]"),
            (DataType::Int8, "[NaN]"),
            (DataType::Fp16, "[1]"),
        ] {
            let error = read(data_type, &[], json).unwrap_err();
            assert!(error.contains("tensor \"x\""), "{json}: {error}");
        }
        for json in ["[1.]", "[nan]", "[Inf]", "[NaNs]", "[1", "[01]"] {
            assert!(read(DataType::Fp32, &[], json).is_err(), "{json}");
        }
    }

    #[test]
    fn tokens_are_numbers_outside_of_strings_only() {
        let [nan, infinity, minus] = floats("[NaN, Infinity, -Infinity]")[..] else { panic!() };
        assert!(nan.is_nan() && infinity == f32::INFINITY && minus == f32::NEG_INFINITY);
        let unchanged = r#"{"a": "NaN \" Infinity \\", "b": "-Infinity"}"#;
        assert_eq!(mark_tokens(unchanged.as_bytes()).unwrap(), unchanged.as_bytes());
        assert_eq!(mark_tokens(b"[1]"), None);
        assert_eq!(mark_tokens(b"\"NaN\\"), Some(b"\"NaN\\".to_vec()));
    }

    #[test]
    fn a_shape_that_does_not_fit_is_named() {
        for (json, what) in [
            ("[[1,2,3],[4,5]]", "dimension 1 has 2 elements"),
            ("[[1,2,3,4]]", "dimension 1 has 4 elements"),
            ("[1,2,3]", "has 1 dimensions here, and must have 2"),
            ("[[[1]]]", "more than 2 dimensions"),
            ("[[1,[2],3]]", "more than 2 dimensions"),
            ("3", "has 0 dimensions"),
        ] {
            let error = read(DataType::Fp32, &[3], json).unwrap_err();
            assert!(error.contains(what), "{json}: {error}");
        }
    }

    #[test]
    fn base64_carries_the_bytes_of_a_row() {
        assert_eq!(read(DataType::Uint8, &[3], r#"[{"b64":"AQID"},[4,5,6]]"#).unwrap(), [1, 2, 3, 4, 5, 6]);
        for json in [
            r#"[{"b64":"AQI"}]"#,
            r#"[{"b64":"AQ=="}]"#,
            r#"[{"b64":1}]"#,
            r#"[{"b64":"AQID","x":1}]"#,
            r#"[{"x":"AQID"}]"#,
            r#"{"b64":"AQID"}"#,
        ] {
            assert!(read(DataType::Uint8, &[3], json).is_err(), "{json}");
        }
    }

    #[test]
    fn numbers_are_written_so_that_they_come_back() {
        let numbers = [1e-8, 1e6, 16_777_217.0, 1.0, -0.0, f32::MIN_POSITIVE / 2.0, 9e-7, f32::MAX, 0.1];
        let data: Vec<u8> = numbers.iter().flat_map(|number: &f32| number.to_le_bytes()).collect();
        let mut out = Vec::new();
        write(&mut out, DataType::Fp32, &[3, 3], &data, NonFinite::Refused).unwrap();
        let back: Vec<[f64; 3]> = serde_json::from_slice(&out).unwrap();
        let bits = |number: f32| number.to_bits();
        assert_eq!(back.concat().iter().map(|number| bits(*number as f32)).collect::<Vec<_>>(), numbers.map(bits));
    }

    #[test]
    fn what_json_does_not_have_is_a_token_or_refused() {
        let numbers = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN];
        let data: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let mut out = Vec::new();
        write(&mut out, DataType::Fp32, &[4], &data, NonFinite::Tokens).unwrap();
        assert_eq!(out, b"[NaN,Infinity,-Infinity,NaN]");
        assert_eq!(write(&mut out, DataType::Fp32, &[4], &data, NonFinite::Refused), Err(NotInJson));
        assert_eq!(write(&mut out, DataType::Fp16, &[1], &[0, 0], NonFinite::Tokens), Err(NotInJson));
    }
}
