//! The manifest beside a model: what the model is, and that it is whole.

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::model_file::DEFAULT_SIGNATURE;
use super::tensor::{Normalization, Signature, TensorSpec};

/// The manifest's name. It is written last, so that a model that is still being copied has none that fits.
pub const FILE_NAME: &str = "manifest.json";

/// What the manifest says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: String,
    /// The model's file, in the same folder.
    pub file: String,
    size: u64,
    sha256: String,
    #[serde(default, rename = "description")]
    _description: String,
    inputs: Vec<Entry>,
    outputs: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    tensor: String,
    dtype: String,
    shape: Vec<i64>,
    #[serde(default)]
    normalization: Option<Normalization>,
    #[serde(default)]
    labels: Vec<String>,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// What is wrong with it, for whoever wrote it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| format!("{FILE_NAME}: {error}"))?;
        if manifest.format != "tflite" {
            return Err(format!("{FILE_NAME}: format is {:?}; only \"tflite\" is served", manifest.format));
        }
        if manifest.file.contains(['/', '\\']) || manifest.file.starts_with('.') {
            return Err(format!("{FILE_NAME}: file is {:?}; it must be a name in the same folder", manifest.file));
        }
        Ok(manifest)
    }

    /// Whether the model is the one that the manifest was written for.
    ///
    /// # Errors
    /// If it is not.
    pub fn check_bytes(&self, model: &[u8]) -> Result<(), String> {
        if u64::try_from(model.len()) != Ok(self.size) {
            return Err(format!("{} has {} bytes, not {} as {FILE_NAME} says", self.file, model.len(), self.size));
        }
        let digest = format!("{:x}", Sha256::digest(model));
        if !digest.eq_ignore_ascii_case(&self.sha256) {
            return Err(format!("{} is damaged: its SHA-256 is {digest}, not what {FILE_NAME} says", self.file));
        }
        Ok(())
    }

    /// The signature under the manifest's names, with what the model file itself says of its tensors.
    ///
    /// # Errors
    /// A tensor that the model does not have, or another type or shape than it has.
    pub fn signature(self, model: Signature) -> Result<Signature, String> {
        Ok(Signature {
            name: DEFAULT_SIGNATURE.to_owned(),
            inputs: specs(self.inputs, model.inputs, "inputs")?,
            outputs: specs(self.outputs, model.outputs, "outputs")?,
        })
    }
}

fn specs(entries: Vec<Entry>, mut tensors: Vec<TensorSpec>, of: &str) -> Result<Vec<TensorSpec>, String> {
    let count = tensors.len();
    let specs: Result<Vec<_>, _> = entries.into_iter().map(|entry| spec(entry, &mut tensors)).collect();
    let specs = specs.map_err(|error| format!("{FILE_NAME}: {of}: {error}"))?;
    if specs.len() < count {
        return Err(format!("{FILE_NAME}: {of}: the model has {count} tensors there, not {}", specs.len()));
    }
    Ok(specs)
}

fn spec(entry: Entry, tensors: &mut Vec<TensorSpec>) -> Result<TensorSpec, String> {
    let Entry { name, tensor, dtype, shape, normalization, labels } = entry;
    let place = tensors.iter().position(|known| known.tensor == tensor);
    let place = place.ok_or_else(|| format!("the model has no such tensor {tensor:?}, or it is named twice"))?;
    let known = tensors.swap_remove(place);
    if dtype != known.data_type.name() {
        return Err(format!("{name:?} has dtype {dtype:?}, but the model has {}", known.data_type.name()));
    }
    if shape != known.shape.signed() {
        return Err(format!("{name:?} has shape {shape:?}, but the model has {}", known.shape));
    }
    if normalization.is_some_and(|normalization| normalization.std == 0.0) {
        return Err(format!("{name:?} has a normalization with std 0"));
    }
    if !labels.is_empty() && labels.len() != known.shape.elements() {
        return Err(format!("{name:?} has {} labels for {} elements", labels.len(), known.shape.elements()));
    }
    Ok(TensorSpec { name, normalization, labels, ..known })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::model_file;
    use super::*;

    const MODEL: &[u8] = include_bytes!("../../../models/digits/1/model.tflite");
    const MANIFEST: &str = include_str!("../../../models/digits/1/manifest.json");

    fn manifest(change: impl FnOnce(&mut Value)) -> Result<Manifest, String> {
        let mut value = serde_json::from_str(MANIFEST).unwrap();
        change(&mut value);
        Manifest::parse(value.to_string().as_bytes())
    }

    fn refusal(change: impl FnOnce(&mut Value)) -> String {
        let model = model_file::signature(MODEL).unwrap();
        manifest(change).and_then(|manifest| manifest.signature(model)).unwrap_err()
    }

    #[test]
    fn a_manifest_that_fits_gives_names_labels_and_numbers() {
        let manifest = manifest(|_| {}).unwrap();
        manifest.check_bytes(MODEL).unwrap();
        let signature = manifest.signature(model_file::signature(MODEL).unwrap()).unwrap();
        assert_eq!(signature.inputs[0].normalization, Some(Normalization { mean: 0.0, std: 255.0 }));
        assert_eq!(signature.outputs[0].labels.len(), 10);
    }

    #[test]
    fn another_or_half_a_model_is_noticed() {
        let manifest = manifest(|_| {}).unwrap();
        assert!(manifest.check_bytes(&MODEL[1..]).unwrap_err().contains("bytes"));
        let mut damaged = MODEL.to_vec();
        damaged[MODEL.len() / 2] ^= 1;
        assert!(manifest.check_bytes(&damaged).unwrap_err().contains("SHA-256"));
    }

    #[test]
    fn what_does_not_fit_the_model_is_named() {
        for (what, change) in [
            ("format", ("/format", json!("savedmodel"))),
            ("file", ("/file", json!("../model.tflite"))),
            ("no such tensor", ("/inputs/0/tensor", json!("x"))),
            ("dtype", ("/inputs/0/dtype", json!("INT8"))),
            ("shape", ("/inputs/0/shape", json!([1, 8, 8, 1]))),
            ("std 0", ("/inputs/0/normalization/std", json!(0.0))),
            ("labels", ("/outputs/0/labels", json!(["0"]))),
            ("tensors there", ("/outputs", json!([]))),
        ] {
            let error = refusal(|value| *value.pointer_mut(change.0).unwrap() = change.1);
            assert!(error.starts_with(FILE_NAME) && error.contains(what), "{what}: {error}");
        }
        assert!(refusal(|value| value["other"] = json!(1)).contains("other"));
    }
}
