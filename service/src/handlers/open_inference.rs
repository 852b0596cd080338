//! The Open Inference Protocol, version 2, with the binary tensor extension.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Request, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeSeed;
use serde_json::value::RawValue;
use serde_json::{Value, json as value};

use super::tensor_json::{self, NonFinite, Reader};
use super::{Answer, content, json, typed};
use crate::App;
use crate::inference::model::Model;
use crate::inference::tensor::{Signature, TensorSpec};
use crate::problem::{Kind, Problem};
use crate::routes::{INFERENCE_BODY_MAX, ModelPath};

/// Where the JSON of a body ends and the tensors' bytes begin.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// `GET /v2`: the server.
pub fn server() -> Answer {
    let about = value!({
        "name": "usher",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["binary_tensor_data"],
    });
    json(StatusCode::OK, &about)
}

/// `GET /v2/health/live`
pub fn live() -> Answer {
    json(StatusCode::OK, &value!({"live": true}))
}

/// `GET /v2/models/{m}[/versions/{v}]/ready`: whether a model can be run.
pub fn model_ready(app: &App, path: &ModelPath<'_>) -> Answer {
    let model = app.inference.repository.find(&path.name, path.version()?)?;
    json(StatusCode::OK, &value!({"name": model.name, "ready": true}))
}

/// `GET /v2/models/{m}[/versions/{v}]`: what a model takes and gives.
pub fn metadata(app: &App, path: &ModelPath<'_>) -> Answer {
    let model = app.inference.repository.find(&path.name, path.version()?)?;
    let versions = app.inference.repository.get(&path.name)?.loaded().map(|model| model.version.to_string());
    let metadata = value!({
        "name": model.name,
        "versions": versions.collect::<Vec<_>>(),
        "platform": "tensorflow_lite",
        "inputs": tensors(&model.signature.inputs),
        "outputs": tensors(&model.signature.outputs),
    });
    json(StatusCode::OK, &metadata)
}

fn tensors(specs: &[TensorSpec]) -> Vec<Value> {
    let tensor = |spec: &TensorSpec| value!({"name": spec.name, "datatype": spec.data_type.name(), "shape": spec.shape.signed()});
    specs.iter().map(tensor).collect()
}

/// `POST /v2/models/{m}[/versions/{v}]/infer`. The media type does not matter: clients send several.
pub async fn infer(app: &App, path: &ModelPath<'_>, request: &Request<Bytes>) -> Answer {
    let model = app.inference.repository.find(&path.name, path.version()?)?;
    let json_length = json_length(request)?;
    let size = request.body().len();
    let decoded = app.inference.in_turn(size, || {
        content::decoded(request, INFERENCE_BODY_MAX).and_then(|body| decode(&body, json_length, &model.signature))
    });
    let Decoded { id, inputs, rows, outputs: wanted } = decoded.await?;
    let outputs = app.inference.infer(model, inputs, rows).await?;
    let size = outputs.iter().map(Vec::len).sum();
    app.inference.in_turn(size, || encode(model, id.as_deref(), &wanted, &outputs, rows)).await
}

fn json_length(request: &Request<Bytes>) -> Result<Option<usize>, Problem> {
    let mut values = request.headers().get_all(JSON_LENGTH).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let length = digits.and_then(|text| text.parse().ok());
            let wrong =
                || malformed("Inference-Header-Content-Length must be how many bytes of JSON the body begins with");
            length.map(Some).ok_or_else(wrong)
        }
        (Some(_), Some(_)) => Err(malformed("Inference-Header-Content-Length is there twice")),
    }
}

fn malformed(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(Kind::MalformedBody, detail)
}

fn invalid(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(Kind::InvalidTensors, detail)
}

/// The JSON of a request. What it may have besides, as parameters of other servers, is not looked at.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: Option<HeadParameters>,
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
    #[serde(default)]
    outputs: Option<Vec<Output>>,
}

#[derive(Deserialize, Default)]
struct HeadParameters {
    #[serde(default)]
    binary_data_output: bool,
}

#[derive(Deserialize)]
struct Input<'a> {
    name: String,
    shape: Vec<u64>,
    datatype: String,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    parameters: Option<InputParameters>,
}

#[derive(Deserialize)]
struct InputParameters {
    #[serde(default)]
    binary_data_size: Option<u64>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: Option<OutputParameters>,
}

#[derive(Deserialize)]
struct OutputParameters {
    #[serde(default)]
    binary_data: Option<bool>,
    #[serde(default)]
    classification: Option<Value>,
}

/// A request: its tensors in the order of the signature, and the outputs that are wanted, by their places there.
#[derive(Debug)]
struct Decoded {
    id: Option<String>,
    inputs: Vec<Vec<u8>>,
    rows: usize,
    outputs: Vec<Wanted>,
}

#[derive(Debug, Clone, Copy)]
struct Wanted {
    place: usize,
    binary: bool,
}

fn decode(body: &[u8], json_length: Option<usize>, signature: &Signature) -> Result<Decoded, Problem> {
    let (json, mut binary) = body.split_at_checked(json_length.unwrap_or(body.len())).ok_or_else(|| {
        malformed(format!("Inference-Header-Content-Length is more than the body's {} bytes", body.len()))
    })?;
    let Head { id, parameters, inputs, outputs } = serde_json::from_slice(json)
        .map_err(|error| malformed(format!("the body is not a request of the protocol: {error}")))?;
    let mut found: Vec<Option<(Vec<u8>, usize)>> = vec![None; signature.inputs.len()];
    for input in inputs {
        let place = signature.inputs.iter().position(|spec| spec.name == input.name);
        let (Some(spec), Some(found)) =
            (place.and_then(|place| signature.inputs.get(place)), place.and_then(|place| found.get_mut(place)))
        else {
            return Err(invalid(format!("there is no input {:?}; there are {}", input.name, names(&signature.inputs))));
        };
        if found.is_some() {
            return Err(invalid(format!("input {:?} is there twice", spec.name)));
        }
        *found = Some(tensor(spec, &input, &mut binary)?);
    }
    if !binary.is_empty() {
        return Err(malformed(format!("{} bytes come after the last tensor's", binary.len())));
    }
    let (inputs, rows) = complete(found, &signature.inputs)?;
    let binary = parameters.unwrap_or_default().binary_data_output;
    Ok(Decoded { id, inputs, rows, outputs: wanted(outputs, binary, &signature.outputs)? })
}

fn names(specs: &[TensorSpec]) -> String {
    specs.iter().map(|spec| format!("{:?}", spec.name)).collect::<Vec<_>>().join(", ")
}

/// A tensor's bytes and its rows.
fn tensor(spec: &TensorSpec, input: &Input<'_>, binary: &mut &[u8]) -> Result<(Vec<u8>, usize), Problem> {
    let wrong = |what: String| invalid(format!("input {:?} {what}", spec.name));
    if input.datatype != spec.data_type.name() {
        return Err(wrong(format!("has datatype {:?}, and must have {:?}", input.datatype, spec.data_type.name())));
    }
    let dimensions: Option<Vec<usize>> = input.shape.iter().map(|size| usize::try_from(*size).ok()).collect();
    let rows = dimensions.as_deref().and_then(|dimensions| spec.shape.rows_of(dimensions)).filter(|rows| *rows > 0);
    let (Some(dimensions), Some(rows)) = (dimensions, rows) else {
        return Err(wrong(format!("has shape {:?}, and must have {}, at least one row", input.shape, spec.shape)));
    };
    let size =
        spec.row_bytes().checked_mul(rows).ok_or_else(|| wrong(format!("has too many elements: {:?}", input.shape)))?;
    let binary_size = input.parameters.as_ref().and_then(|parameters| parameters.binary_data_size);
    let data = match (input.data, binary_size) {
        (Some(data), None) => from_json(spec, dimensions, data)?,
        (None, Some(said)) => {
            if u64::try_from(size) != Ok(said) {
                return Err(wrong(format!("has binary_data_size {said}, which does not fit its shape and datatype")));
            }
            let split = binary.split_at_checked(size);
            let (data, rest) = split.ok_or_else(|| wrong(format!("has {said} bytes, more than the body has left")))?;
            *binary = rest;
            data.to_vec()
        }
        (Some(_), Some(_)) => return Err(wrong("has both data and binary_data_size; send one".to_owned())),
        (None, None) => return Err(wrong("has neither data nor binary_data_size".to_owned())),
    };
    Ok((data, rows))
}

/// Data as they are laid out in memory, or nested by dimension.
fn from_json(spec: &TensorSpec, dimensions: Vec<usize>, data: &RawValue) -> Result<Vec<u8>, Problem> {
    let is_nested = data.get().strip_prefix('[').is_some_and(|inside| inside.trim_start().starts_with('['));
    let flat = vec![dimensions.iter().product()];
    let mut reader = Reader::plain(spec, if is_nested { dimensions } else { flat });
    let mut deserializer = serde_json::Deserializer::from_str(data.get());
    reader.at(0).deserialize(&mut deserializer).map_err(|error| invalid(error.to_string()))?;
    Ok(reader.into_data())
}

/// All inputs, with as many rows each.
fn complete(found: Vec<Option<(Vec<u8>, usize)>>, specs: &[TensorSpec]) -> Result<(Vec<Vec<u8>>, usize), Problem> {
    let mut inputs = Vec::new();
    let mut rows = None;
    for (tensor, spec) in found.into_iter().zip(specs) {
        let (data, count) = tensor.ok_or_else(|| invalid(format!("input {:?} is missing", spec.name)))?;
        if *rows.get_or_insert(count) != count {
            return Err(invalid(format!("input {:?} has another number of rows than the others", spec.name)));
        }
        inputs.push(data);
    }
    Ok((inputs, rows.unwrap_or(1)))
}

fn wanted(outputs: Option<Vec<Output>>, binary: bool, specs: &[TensorSpec]) -> Result<Vec<Wanted>, Problem> {
    let Some(outputs) = outputs.filter(|outputs| !outputs.is_empty()) else {
        return Ok((0..specs.len()).map(|place| Wanted { place, binary }).collect());
    };
    let mut wanted: Vec<Wanted> = Vec::new();
    for Output { name, parameters } in outputs {
        let place = specs.iter().position(|spec| spec.name == name);
        let place = place.ok_or_else(|| invalid(format!("there is no output {name:?}; there are {}", names(specs))))?;
        if wanted.iter().any(|other| other.place == place) {
            return Err(invalid(format!("output {name:?} is asked for twice")));
        }
        let (own, classification) = parameters.map_or((None, None), |own| (own.binary_data, own.classification));
        if classification.is_some() {
            return Err(invalid(format!("output {name:?}: the classification extension is not served")));
        }
        wanted.push(Wanted { place, binary: own.unwrap_or(binary) });
    }
    Ok(wanted)
}

fn encode(model: &Model, id: Option<&str>, wanted: &[Wanted], outputs: &[Vec<u8>], rows: usize) -> Answer {
    let mut head = Vec::new();
    let mut binary = Vec::new();
    head.extend_from_slice(b"{\"model_name\":");
    push_json(&mut head, &model.name);
    head.extend_from_slice(b",\"model_version\":");
    push_json(&mut head, &model.version.to_string());
    if let Some(id) = id {
        head.extend_from_slice(b",\"id\":");
        push_json(&mut head, id);
    }
    head.extend_from_slice(b",\"outputs\":[");
    for (number, Wanted { place, binary: is_binary }) in wanted.iter().enumerate() {
        let (Some(spec), Some(data)) = (model.signature.outputs.get(*place), outputs.get(*place)) else { continue };
        if number > 0 {
            head.push(b',');
        }
        let dimensions = spec.shape.with_rows(rows);
        head.extend_from_slice(b"{\"name\":");
        push_json(&mut head, &spec.name);
        head.extend_from_slice(
            format!(",\"datatype\":\"{}\",\"shape\":{dimensions:?},", spec.data_type.name()).as_bytes(),
        );
        if *is_binary {
            head.extend_from_slice(format!("\"parameters\":{{\"binary_data_size\":{}}}}}", data.len()).as_bytes());
            binary.extend_from_slice(data);
        } else {
            head.extend_from_slice(b"\"data\":");
            push_data(&mut head, spec, data)?;
            head.push(b'}');
        }
    }
    head.extend_from_slice(b"]}");
    Ok(answer(head, &binary, wanted.iter().any(|wanted| wanted.binary)))
}

fn push_json(out: &mut Vec<u8>, text: &str) {
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// Data as they are laid out in memory.
fn push_data(out: &mut Vec<u8>, spec: &TensorSpec, data: &[u8]) -> Result<(), Problem> {
    let count = data.len() / spec.data_type.size();
    tensor_json::write(out, spec.data_type, &[count], data, NonFinite::Refused)
        .map_err(|_| invalid(format!("output {:?} has what JSON cannot have; ask for it as binary data", spec.name)))
}

fn answer(mut head: Vec<u8>, binary: &[u8], is_binary: bool) -> http::Response<Bytes> {
    if !is_binary {
        return typed(StatusCode::OK, "application/json", head.into());
    }
    let length = HeaderValue::from(head.len());
    head.extend_from_slice(binary);
    let mut response = typed(StatusCode::OK, "application/octet-stream", head.into());
    response.headers_mut().insert(JSON_LENGTH, length);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::tensor::DataType;

    fn spec(name: &str, dimensions: &[usize]) -> TensorSpec {
        TensorSpec::of_rows(name, DataType::Uint8, dimensions)
    }

    fn signature() -> Signature {
        Signature {
            name: "serving_default".to_owned(),
            inputs: vec![spec("x", &[2]), spec("y", &[])],
            outputs: vec![spec("z", &[1]), spec("w", &[])],
        }
    }

    const X: &str = r#"{"name":"x","shape":[2,2],"datatype":"UINT8","data":[1,2,3,4]}"#;
    const Y: &str = r#"{"name":"y","shape":[2],"datatype":"UINT8","data":[5,6]}"#;

    fn request(inputs: &[&str], rest: &str) -> String {
        format!("{{\"inputs\":[{}]{rest}}}", inputs.join(","))
    }

    fn decoded(body: &[u8], json_length: Option<usize>) -> Decoded {
        decode(body, json_length, &signature()).unwrap()
    }

    fn refusal(body: &[u8], json_length: Option<usize>) -> String {
        let response = decode(body, json_length, &signature()).unwrap_err().into_inference_response();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        String::from_utf8(response.body().to_vec()).unwrap()
    }

    #[test]
    fn tensors_are_read_flat_nested_or_binary() {
        let inputs = vec![vec![1, 2, 3, 4], vec![5, 6]];
        let Decoded { inputs: flat, rows, id, .. } = decoded(request(&[Y, X], ",\"id\":\"7\"").as_bytes(), None);
        assert_eq!((flat, rows, id.as_deref()), (inputs.clone(), 2, Some("7")));
        let nested = X.replace("[1,2,3,4]", " [ [1,2],[3,4]]");
        assert_eq!(decoded(request(&[&nested, Y], "").as_bytes(), None).inputs, inputs);
        let binary = X.replace("\"data\":[1,2,3,4]", r#""parameters":{"binary_data_size":4}"#);
        let head = request(&[&binary, Y], "");
        let body = [head.as_bytes(), &[1, 2, 3, 4]].concat();
        assert_eq!(decoded(&body, Some(head.len())).inputs, inputs);
        assert!(refusal(&body, None).contains("trailing"));
        assert!(refusal(&body, Some(0)).contains("protocol"));
        assert!(refusal(&body, Some(body.len() + 1)).contains("more than"));
        assert!(refusal(&body[..body.len() - 1], Some(head.len())).contains("left"));
        assert!(refusal(&[&body[..], &[0]].concat(), Some(head.len())).contains("after"));
    }

    #[test]
    fn outputs_are_those_that_are_asked_for() {
        let wanted = |rest: &str| -> Vec<(usize, bool)> {
            let outputs = decoded(request(&[X, Y], rest).as_bytes(), None).outputs;
            outputs.into_iter().map(|wanted| (wanted.place, wanted.binary)).collect()
        };
        assert_eq!(wanted(""), [(0, false), (1, false)]);
        assert_eq!(wanted(r#","parameters":{"binary_data_output":true,"other":1}"#), [(0, true), (1, true)]);
        let one_of_each = r#","outputs":[{"name":"w","parameters":{"binary_data":true}},{"name":"z"}]"#;
        assert_eq!(wanted(one_of_each), [(1, true), (0, false)]);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let x = |from: &str, to: &str| request(&[&X.replace(from, to), Y], "");
        let binary = |size: &str| x("\"data\":[1,2,3,4]", &format!("\"parameters\":{{\"binary_data_size\":{size}}}"));
        for (body, what) in [
            (x("\"x\"", "\"other\""), "there is no input"),
            (request(&[X, X, Y], ""), "twice"),
            (request(&[X], ""), "missing"),
            (x("UINT8", "FP32"), "datatype"),
            (x("[2,2]", "[2,3]"), "shape"),
            (x("[2,2]", "\"-1\""), "protocol"),
            (x("[2,2]", "[-1]"), "protocol"),
            (x("[2,2]", "[1099511627776,1099511627776]"), "shape"),
            (x("[2,2]", "[1099511627776,2]"), "elements"),
            (x("[2,2]", "[18446744073709551615,2]"), "too many"),
            (x("[2,2]", "[]"), "shape"),
            (x("[2,2]", "[0]"), "shape"),
            (x("[2,2]", "[0,2]"), "at least one row"),
            (x("[1,2,3,4]", "[1,2,3]"), "elements"),
            (x("[1,2,3,4]", "[[1,2],[3]]"), "dimension"),
            (x("[1,2,3,4]", "{\"b64\":\"AQIDBA==\"}"), "object"),
            (x("[1,2,3,4]", "[1,2,3,\"\\u0000NaN\"]"), "no UINT8"),
            (x("[1,2,3,4]", "\"1234\""), "no UINT8"),
            (x("[1,2,3,4]", "null"), "neither"),
            (x("\"data\"", "\"parameters\":{\"binary_data_size\":4},\"data\""), "both"),
            (binary("5"), "binary_data_size"),
            (binary("-4"), "protocol"),
            (binary("9223372036854775808"), "binary_data_size"),
            (x("[2,2]", "[3,2]").replace("[1,2,3,4]", "[1,2,3,4,5,6]"), "another number of rows"),
            (request(&[X, Y], r#","outputs":[{"name":"v"}]"#), "there is no output"),
            (request(&[X, Y], r#","outputs":[{"name":"z"},{"name":"z"}]"#), "twice"),
            (request(&[X, Y], r#","outputs":[{"name":"z","parameters":{"classification":3}}]"#), "classification"),
        ] {
            assert!(refusal(body.as_bytes(), None).contains(what), "{body}: {}", refusal(body.as_bytes(), None));
        }
    }

    #[test]
    fn the_length_of_the_json_is_one_number() {
        let length = |values: &[&'static str]| {
            let mut request = Request::new(Bytes::new());
            for value in values {
                request.headers_mut().append(JSON_LENGTH, HeaderValue::from_static(value));
            }
            json_length(&request)
        };
        assert_eq!((length(&[]).unwrap(), length(&["12"]).unwrap()), (None, Some(12)));
        for wrong in [&["-1"][..], &["+1"], &["x"], &["1.5"], &[""], &["99999999999999999999"], &["1", "1"]] {
            assert!(length(wrong).is_err(), "{wrong:?}");
        }
    }
}
