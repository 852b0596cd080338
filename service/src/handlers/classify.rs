//! `POST /api/classify`: what an image shows, by a model that has labels.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Request, StatusCode};
use serde::Serialize;

use super::query::Query;
use super::{Answer, content, json};
use crate::App;
use crate::inference::image::{ImageInput, InputError};
use crate::inference::model::Model;
use crate::inference::repository::version_number;
use crate::inference::tensor::{DataType, Quantization, TensorSpec};
use crate::problem::{Kind, Problem};
use crate::routes::INFERENCE_BODY_MAX;

/// Labels in an answer, where the client does not say.
const TOP_DEFAULT: usize = 5;

/// Labels in an answer at most.
const TOP_MAX: usize = 100;

#[derive(Serialize)]
struct Classified<'a> {
    model: &'a str,
    version: String,
    labels: Vec<Scored>,
}

#[derive(Serialize)]
struct Scored {
    label: String,
    score: f32,
}

/// The labels of an image with their scores, the best first. The image's bytes say what it is, not the media type.
pub async fn image(app: &App, request: &Request<Bytes>) -> Answer {
    let query = Query::parse(request.uri().query(), &["model", "version", "top"])?;
    let name = query.get("model", |name| Ok(name.to_owned()))?;
    let version =
        query.get("version", |text| version_number(text).ok_or_else(|| "must be a version's number".into()))?;
    let top = query.get("top", |text| {
        let top = text.parse().ok().filter(|top| (1..=TOP_MAX).contains(top));
        top.ok_or_else(|| format!("must be an integer from 1 to {TOP_MAX}").into())
    })?;
    let model = match name {
        Some(name) => app.inference.repository.find(&name, version)?,
        None => only_classifier(app)?,
    };
    let input = ImageInput::of(&model.signature).map_err(problem)?;
    let output = labelled(model)?;
    let size = usize::MAX;
    let pixels = app.inference.in_turn(size, || {
        content::decoded(request, INFERENCE_BODY_MAX).and_then(|body| input.read(&body).map_err(problem))
    });
    let outputs = app.inference.infer(model, vec![pixels.await?], 1).await?;
    let data = outputs.get(output).map_or(&[][..], Vec::as_slice);
    let spec = model.signature.outputs.get(output);
    let labels = spec.map_or_else(Vec::new, |spec| best(spec, data, top.unwrap_or(TOP_DEFAULT)));
    json(StatusCode::OK, &Classified { model: &model.name, version: model.version.to_string(), labels })
}

/// The model that is meant where there is no other.
fn only_classifier(app: &App) -> Result<&Arc<Model>, Problem> {
    if !app.inference.repository.has_extension {
        return Err(crate::inference::InferenceError::NoExtension.into());
    }
    let newest = app.inference.repository.models.iter().filter_map(|found| found.loaded().next());
    let fitting: Vec<_> =
        newest.filter(|model| ImageInput::of(&model.signature).is_ok() && labelled(model).is_ok()).collect();
    match fitting.as_slice() {
        [only] => Ok(only),
        [] => Err(Problem::new(Kind::NoSuchModel, "there is no model that classifies images")),
        several => {
            let names: Vec<_> = several.iter().map(|model| model.name.as_str()).collect();
            Err(Problem::new(Kind::InvalidParameter, format!("say which model: ?model= {}", names.join(" or "))))
        }
    }
}

/// The place of the output that has scores: the one with labels, else the only one there is.
fn labelled(model: &Model) -> Result<usize, Problem> {
    let outputs = &model.signature.outputs;
    let labelled = outputs.iter().position(|spec| !spec.labels.is_empty());
    let place = labelled.or((outputs.len() == 1).then_some(0));
    let readable = |place: &usize| {
        let data_type = outputs.get(*place).map(|spec| spec.data_type);
        matches!(data_type, Some(DataType::Fp32 | DataType::Uint8 | DataType::Int8))
    };
    place.filter(readable).ok_or_else(|| {
        Problem::new(Kind::InvalidParameter, format!("model {:?} has no output that scores labels", model.name))
    })
}

fn best(spec: &TensorSpec, data: &[u8], top: usize) -> Vec<Scored> {
    let Quantization { scale, zero_point } = spec.quantization.unwrap_or(Quantization { scale: 1.0, zero_point: 0 });
    let number = |number: f32| (number - zero_point as f32) * scale;
    let scores: Vec<f32> = match spec.data_type {
        DataType::Int8 => data.iter().map(|byte| number(f32::from(byte.cast_signed()))).collect(),
        DataType::Uint8 => data.iter().map(|byte| number(f32::from(*byte))).collect(),
        _ => data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
    };
    let mut scored: Vec<(usize, f32)> = scores.into_iter().enumerate().collect();
    scored.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let label = |place: usize| spec.labels.get(place).cloned().unwrap_or_else(|| place.to_string());
    scored.into_iter().take(top).map(|(place, score)| Scored { label: label(place), score }).collect()
}

fn problem(error: InputError) -> Problem {
    match error {
        InputError::UnknownFormat => Problem::new(Kind::UnsupportedMediaType, error.to_string())
            .with_header(HeaderName::from_static("accept-post"), HeaderValue::from_static("image/png, image/jpeg")),
        InputError::NoImageModel => Problem::new(Kind::InvalidParameter, error.to_string()),
        InputError::Damaged(_) | InputError::TooLarge => Problem::new(Kind::InvalidImage, error.to_string()),
    }
}
