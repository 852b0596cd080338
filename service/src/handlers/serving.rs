//! TensorFlow Serving's REST API: what it says of models, and `:predict`.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::{Request, StatusCode};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json as value};

use super::tensor_json::{self, NonFinite, Reader};
use super::{Answer, content, json, typed};
use crate::App;
use crate::inference::model::Model;
use crate::inference::repository::Version;
use crate::inference::tensor::{Signature, TensorSpec};
use crate::json::Members;
use crate::problem::{Kind, Problem};
use crate::routes::{INFERENCE_BODY_MAX, ModelPath};

/// `GET /v1/models`: all models and their versions that are served, the newest first. The list is ours: TensorFlow
/// Serving has none.
pub fn list(app: &App) -> Answer {
    let models: Vec<Value> = app
        .inference
        .repository
        .models
        .iter()
        .map(|found| {
            let versions: Vec<_> = found.loaded().map(|model| model.version.to_string()).collect();
            value!({"name": found.name, "versions": versions})
        })
        .collect();
    json(StatusCode::OK, &value!({ "models": models }))
}

/// `GET /v1/models/{m}[/versions/{v}]`: which versions are served, and why others are not.
pub fn status(app: &App, path: &ModelPath<'_>) -> Answer {
    let found = app.inference.repository.get(&path.name)?;
    let number = path.version()?;
    let asked_for = |version: &&Version| number.is_none_or(|number| version.number == number);
    let statuses: Vec<Value> = found.versions.iter().filter(asked_for).map(version_status).collect();
    if let (Some(number), true) = (number, statuses.is_empty()) {
        let detail = format!("model {:?} has no version {number} that is looked at: only the newest are", found.name);
        return Err(Problem::new(Kind::NoSuchModel, detail));
    }
    json(StatusCode::OK, &value!({ "model_version_status": statuses }))
}

fn version_status(version: &Version) -> Value {
    let (state, code, message) = match &version.model {
        Ok(_) => ("AVAILABLE", "OK", ""),
        Err(reason) => ("END", "FAILED_PRECONDITION", reason.as_str()),
    };
    let status = value!({"error_code": code, "error_message": message});
    value!({"version": version.number.to_string(), "state": state, "status": status})
}

/// `GET /v1/models/{m}[/versions/{v}]/metadata`: what a model takes and gives.
pub fn metadata(app: &App, path: &ModelPath<'_>) -> Answer {
    let model = app.inference.repository.find(&path.name, path.version()?)?;
    let signature = value!({
        "inputs": tensor_infos(&model.signature.inputs),
        "outputs": tensor_infos(&model.signature.outputs),
        "method_name": "tensorflow/serving/predict",
    });
    json(
        StatusCode::OK,
        &value!({
            "model_spec": {"name": model.name, "signature_name": "", "version": model.version.to_string()},
            "metadata": {"signature_def": {"signature_def": {(&model.signature.name): signature}}},
        }),
    )
}

fn tensor_infos(tensors: &[TensorSpec]) -> Value {
    let info = |spec: &TensorSpec| {
        let dimensions = spec.shape.signed().into_iter();
        let dim: Vec<Value> = dimensions.map(|size| value!({"size": size.to_string(), "name": ""})).collect();
        let shape = value!({"dim": dim, "unknown_rank": false});
        value!({"name": spec.tensor, "dtype": spec.data_type.tensorflow_name(), "tensor_shape": shape})
    };
    Value::Object(tensors.iter().map(|spec| (spec.name.clone(), info(spec))).collect::<Map<_, _>>())
}

/// `POST /v1/models/{m}[/versions/{v}]:predict`: rows (`instances`) or columns (`inputs`). As in TensorFlow
/// Serving the media type does not matter.
pub async fn predict(app: &App, path: &ModelPath<'_>, request: &Request<Bytes>) -> Answer {
    let model = app.inference.repository.find(&path.name, path.version()?)?;
    let size = request.body().len();
    let decoded = app.inference.in_turn(size, || {
        content::decoded(request, INFERENCE_BODY_MAX).and_then(|body| decode(&body, &model.signature))
    });
    let Decoded { inputs, rows, form } = decoded.await?;
    let outputs = app.inference.infer(model, inputs, rows).await?;
    let size = outputs.iter().map(Vec::len).sum();
    app.inference.in_turn(size, || encode(model, &outputs, rows, form)).await
}

/// How the tensors of a request are laid out, and those of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A list of so many rows.
    Rows(usize),
    /// Whole tensors.
    Columns,
}

/// A request's tensors, in the order of the signature.
#[derive(Debug)]
struct Decoded {
    inputs: Vec<Vec<u8>>,
    rows: usize,
    form: Form,
}

fn decode(body: &[u8], signature: &Signature) -> Result<Decoded, Problem> {
    let marked = tensor_json::mark_tokens(body);
    let body = marked.as_deref().unwrap_or(body);
    let mut members = Members::parse(body).map_err(|error| malformed(error.to_string()))?;
    if let Some(name) = members.take("signature_name") {
        check_signature(name, signature)?;
    }
    let (instances, inputs) = (members.take("instances"), members.take("inputs"));
    if let Some(name) = members.into_names().next() {
        let detail = format!("{name:?} is not known here; send signature_name, and instances or inputs");
        return Err(malformed(detail));
    }
    let mut readers: Vec<Reader> = signature.inputs.iter().map(Reader::of_rows).collect();
    let form = match (instances, inputs) {
        (Some(rows), None) => Form::Rows(read(rows, Instances { readers: &mut readers })?),
        (None, Some(columns)) => {
            read(columns, Tensors { readers: &mut readers, depth: 0 })?;
            Form::Columns
        }
        (Some(_), Some(_)) => return Err(malformed("send either instances or inputs, not both")),
        (None, None) => return Err(malformed("send instances, a list of rows, or inputs, whole tensors")),
    };
    let rows = rows(&readers, signature)?;
    Ok(Decoded { inputs: readers.into_iter().map(Reader::into_data).collect(), rows, form })
}

fn malformed(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(Kind::MalformedBody, detail)
}

fn check_signature(name: &RawValue, signature: &Signature) -> Result<(), Problem> {
    let name: String = serde_json::from_str(name.get()).map_err(|_| malformed("signature_name must be a string"))?;
    if name.is_empty() || name == signature.name {
        return Ok(());
    }
    Err(malformed(format!("signature_name {name:?} is not served; this model has {:?} only", signature.name)))
}

fn read<'a, S: DeserializeSeed<'a>>(value: &'a RawValue, seed: S) -> Result<S::Value, Problem> {
    let mut deserializer = serde_json::Deserializer::from_str(value.get());
    seed.deserialize(&mut deserializer).map_err(|error| Problem::new(Kind::InvalidTensors, error.to_string()))
}

/// How many rows there are: as many of each tensor, and at least one.
fn rows(readers: &[Reader<'_>], signature: &Signature) -> Result<usize, Problem> {
    if !signature.has_rows() {
        return Ok(1);
    }
    let invalid = |detail: String| Problem::new(Kind::InvalidTensors, detail);
    let mut rows = readers.iter().map(|reader| (reader.name(), reader.rows().unwrap_or(0)));
    let (first, count) = rows.next().unwrap_or_default();
    match rows.find(|(_, other)| *other != count) {
        Some((name, other)) => {
            Err(invalid(format!("tensor {first:?} has {count} rows and tensor {name:?} has {other}")))
        }
        None if count == 0 => Err(invalid("there are no rows; send at least one".to_owned())),
        None => Ok(count),
    }
}

/// A list of rows.
struct Instances<'r, 'a> {
    readers: &'r mut [Reader<'a>],
}

impl<'de> DeserializeSeed<'de> for Instances<'_, '_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Instances<'_, '_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of instances")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<usize, A::Error> {
        let mut count = 0;
        while rows.next_element_seed(Tensors { readers: self.readers, depth: 1 })?.is_some() {
            count += 1;
        }
        self.readers.iter_mut().try_for_each(|reader| reader.close(0, count))?;
        Ok(count)
    }
}

/// An object that has each input by its name, or the only input itself; whole, or a row.
struct Tensors<'r, 'a> {
    readers: &'r mut [Reader<'a>],
    depth: usize,
}

impl<'r, 'a> Tensors<'r, 'a> {
    fn only<E: Error>(self) -> Result<tensor_json::Level<'r, 'a>, E> {
        match self.readers {
            [only] => Ok(only.at(self.depth)),
            several => Err(E::custom(format_args!("send an object that has each input: {}", names(several)))),
        }
    }
}

fn names(readers: &[Reader<'_>]) -> String {
    readers.iter().map(|reader| format!("{:?}", reader.name())).collect::<Vec<_>>().join(", ")
}

impl<'de> DeserializeSeed<'de> for Tensors<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tensors<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tensors by name: {}", names(self.readers))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut missing: Vec<&str> = self.readers.iter().map(Reader::name).collect();
        while let Some(name) = members.next_key::<String>()? {
            if let (true, [only]) = (name == "b64" && missing.len() == 1, &mut *self.readers)
                && only.name() != name
            {
                only.bytes(self.depth, &members.next_value::<String>()?)?;
                missing.clear();
                continue;
            }
            let reader = self.readers.iter_mut().find(|reader| reader.name() == name);
            match (reader, missing.iter().position(|missing| *missing == name)) {
                (Some(reader), Some(place)) => {
                    missing.swap_remove(place);
                    members.next_value_seed(reader.at(self.depth))?;
                }
                (Some(_), None) => return Err(A::Error::custom(format_args!("tensor {name:?} is there twice"))),
                (None, _) => {
                    let known = names(self.readers);
                    return Err(A::Error::custom(format_args!("there is no input {name:?}; there are {known}")));
                }
            }
        }
        match missing.first() {
            Some(name) => Err(A::Error::custom(format_args!("input {name:?} is missing"))),
            None => Ok(()),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<(), A::Error> {
        self.only()?.visit_seq(elements)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.only()?.visit_u64(number)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.only()?.visit_i64(number)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.only()?.visit_f64(number)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.only()?.visit_bool(value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.only()?.visit_str(text)
    }
}

fn encode(model: &Model, outputs: &[Vec<u8>], rows: usize, form: Form) -> Answer {
    let specs = &model.signature.outputs;
    let tensors: Vec<Tensor> = specs.iter().zip(outputs).map(|(spec, data)| Tensor::whole(spec, data, rows)).collect();
    let mut body = Vec::new();
    match form {
        Form::Columns => {
            body.extend_from_slice(b"{\"outputs\":");
            write(&mut body, &tensors)?;
        }
        Form::Rows(count) => {
            body.extend_from_slice(b"{\"predictions\":[");
            for place in 0..count {
                if place > 0 {
                    body.push(b',');
                }
                let row: Option<Vec<Tensor>> = tensors.iter().map(|tensor| tensor.row(place, count)).collect();
                write(&mut body, &row.ok_or_else(not_in_rows)?)?;
            }
            body.push(b']');
        }
    }
    body.push(b'}');
    Ok(typed(StatusCode::OK, "application/json", body.into()))
}

fn not_in_rows() -> Problem {
    Problem::new(Kind::InvalidTensors, "the outputs do not have a row for each instance; send inputs, whole tensors")
}

/// An output, or a row of one.
struct Tensor<'a> {
    spec: &'a TensorSpec,
    dimensions: Vec<usize>,
    data: &'a [u8],
}

impl<'a> Tensor<'a> {
    fn whole(spec: &'a TensorSpec, data: &'a [u8], rows: usize) -> Self {
        Self { spec, dimensions: spec.shape.with_rows(rows), data }
    }

    /// One of so many rows, if it has as many.
    fn row(&self, place: usize, count: usize) -> Option<Self> {
        let (rows, inside) = self.dimensions.split_first()?;
        let size = self.data.len() / count;
        let data = self.data.get(place * size..(place + 1) * size).filter(|_| *rows == count)?;
        Some(Self { spec: self.spec, dimensions: inside.to_vec(), data })
    }
}

/// The only tensor itself, or several by name.
fn write(body: &mut Vec<u8>, tensors: &[Tensor<'_>]) -> Result<(), Problem> {
    if let [only] = tensors {
        return write_tensor(body, only);
    }
    for (place, tensor) in tensors.iter().enumerate() {
        body.push(if place == 0 { b'{' } else { b',' });
        // Writing to memory cannot fail.
        let _ = serde_json::to_writer(&mut *body, &tensor.spec.name);
        body.push(b':');
        write_tensor(body, tensor)?;
    }
    body.push(b'}');
    Ok(())
}

fn write_tensor(body: &mut Vec<u8>, Tensor { spec, dimensions, data }: &Tensor<'_>) -> Result<(), Problem> {
    tensor_json::write(body, spec.data_type, dimensions, data, NonFinite::Tokens).map_err(|_| {
        let detail = format!("output {:?} cannot be written as JSON; /v2 has it as binary data", spec.name);
        Problem::new(Kind::InvalidTensors, detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::tensor::DataType;

    fn spec(name: &str, dimensions: &[usize]) -> TensorSpec {
        TensorSpec::of_rows(name, DataType::Uint8, dimensions)
    }

    fn one() -> Signature {
        Signature { name: "serving_default".into(), inputs: vec![spec("x", &[2])], outputs: vec![spec("z", &[1])] }
    }

    fn two() -> Signature {
        Signature { inputs: vec![spec("x", &[2]), spec("y", &[])], ..one() }
    }

    fn decoded(signature: &Signature, body: &str) -> (Vec<Vec<u8>>, usize, Form) {
        let Decoded { inputs, rows, form } = decode(body.as_bytes(), signature).unwrap();
        (inputs, rows, form)
    }

    fn refusal(signature: &Signature, body: &str) -> String {
        let response = decode(body.as_bytes(), signature).unwrap_err().into_inference_response();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{body}");
        String::from_utf8(response.body().to_vec()).unwrap()
    }

    #[test]
    fn rows_and_columns_are_the_same_tensors() {
        let rows = (vec![vec![1, 2, 3, 4]], 2, Form::Rows(2));
        assert_eq!(decoded(&one(), r#"{"instances":[[1,2],[3,4]]}"#), rows);
        assert_eq!(decoded(&one(), r#"{"instances":[{"x":[1,2]},{"x":[3,4]}]}"#), rows);
        assert_eq!(decoded(&one(), r#"{"instances":[{"b64":"AQI="},[3,4]],"signature_name":""}"#), rows);
        let columns = (vec![vec![1, 2, 3, 4]], 2, Form::Columns);
        assert_eq!(decoded(&one(), r#"{"inputs":[[1,2],[3,4]],"signature_name":"serving_default"}"#), columns);
        assert_eq!(decoded(&one(), r#"{"inputs":{"x":[[1,2],[3,4]]}}"#), columns);
        let two_inputs = vec![vec![1, 2, 3, 4], vec![5, 6]];
        let body = r#"{"instances":[{"x":[1,2],"y":5},{"y":6,"x":[3,4]}]}"#;
        assert_eq!(decoded(&two(), body), (two_inputs.clone(), 2, Form::Rows(2)));
        let body = r#"{"inputs":{"y":[5,6],"x":[[1,2],[3,4]]}}"#;
        assert_eq!(decoded(&two(), body), (two_inputs, 2, Form::Columns));
    }

    #[test]
    fn what_is_no_request_is_refused_with_what_would_be_one() {
        for (body, what) in [
            ("", "empty"),
            ("[]", "JSON object"),
            ("{}", "instances"),
            (r#"{"instances":[[1,2]],"inputs":[[1,2]]}"#, "not both"),
            (r#"{"instances":[[1,2]],"instances":[[1,2]]}"#, "occurs twice"),
            (r#"{"instances":[[1,2]],"x":1}"#, "not known"),
            (r#"{"instances":[[1,2]],"signature_name":"other"}"#, "serving_default"),
            (r#"{"instances":[[1,2]],"signature_name":1}"#, "string"),
            (r#"{"instances":[]}"#, "no rows"),
            (r#"{"inputs":[]}"#, "no rows"),
            (r#"{"instances":{"x":[1,2]}}"#, "list"),
            (r#"{"instances":[[1,2],[3]]}"#, "dimension 1"),
            (r#"{"instances":[{"w":[1,2]}]}"#, "there is no input"),
            (r#"{"instances":[{"x":[1,2],"x":[1,2]}]}"#, "twice"),
            (r#"{"instances":[{}]}"#, "missing"),
            (r#"{"instances":[{"b64":"AQI"}]}"#, "b64"),
            (r#"{"instances":[{"b64":"AQI=","x":[1,2]}]}"#, "twice"),
        ] {
            assert!(refusal(&one(), body).contains(what), "{body}: {}", refusal(&one(), body));
        }
        for (body, what) in [
            (r#"{"instances":[[1,2]]}"#, "each input"),
            (r#"{"instances":[{"x":[1,2]}]}"#, "missing"),
            (r#"{"inputs":{"x":[[1,2]],"y":[5,6]}}"#, "1 rows"),
        ] {
            assert!(refusal(&two(), body).contains(what), "{body}: {}", refusal(&two(), body));
        }
    }

    #[test]
    fn a_row_of_each_output_is_written_or_whole_ones() {
        let (x, y) = (spec("x", &[2]), spec("y", &[]));
        let whole = [Tensor::whole(&x, &[1, 2, 3, 4], 2), Tensor::whole(&y, &[5, 6], 2)];
        let text = |tensors: &[Tensor]| {
            let mut body = Vec::new();
            write(&mut body, tensors).unwrap();
            String::from_utf8(body).unwrap()
        };
        assert_eq!(text(&whole), r#"{"x":[[1,2],[3,4]],"y":[5,6]}"#);
        assert_eq!(text(&whole[..1]), "[[1,2],[3,4]]");
        let rows: Vec<_> = whole.iter().map(|tensor| tensor.row(1, 2).unwrap()).collect();
        assert_eq!((text(&rows), text(&rows[1..])), (r#"{"x":[3,4],"y":6}"#.to_owned(), "6".to_owned()));
        assert!(whole[0].row(0, 3).is_none());
    }
}
