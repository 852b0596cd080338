//! The models in a folder, laid out as for TensorFlow Serving: `name/version/model.tflite`, with or without our
//! manifest beside it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::manifest::{self, Manifest};
use super::model::Model;
use super::{InferenceError, ModelsConfig, USUAL_FOLDER, ext, model_file};
use crate::grants;
use crate::telemetry::metrics::Metrics;

/// Models at most.
const MODELS_MAX: usize = 64;

/// Versions of a model that are loaded at most: the newest.
const VERSIONS_LOADED: usize = 2;

/// Bytes of a model file at most.
const MODEL_BYTES_MAX: u64 = 256 << 20;

/// Bytes of a manifest at most.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// What the model's file is called where there is no manifest and more than one candidate.
const MODEL_FILE: &str = "model.tflite";

/// The models that were found when the service started.
#[derive(Debug)]
pub struct Repository {
    /// Each with its versions, by name.
    pub models: Vec<Found>,
    /// Whether they can be run at all.
    pub has_extension: bool,
    /// Whether the service is ready only with them.
    required: bool,
}

/// A folder of a model's versions.
#[derive(Debug)]
pub struct Found {
    /// The model's name.
    pub name: String,
    /// The versions that were looked at, the newest first: up to two that are loaded, and those that could not be.
    pub versions: Vec<Version>,
}

/// A version that was looked at.
#[derive(Debug)]
pub struct Version {
    /// Its number.
    pub number: u64,
    /// The model, or why it is not loaded.
    pub model: Result<Arc<Model>, String>,
}

impl Found {
    /// The versions that are loaded, the newest first.
    pub fn loaded(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.versions.iter().filter_map(|version| version.model.as_ref().ok())
    }
}

impl Repository {
    /// Loads the models that are there. What cannot be loaded is logged, and no reason not to start.
    pub fn open(config: &ModelsConfig, metrics: &Metrics) -> Self {
        let folders = subfolders(grants::known_name(&config.folder)).unwrap_or_else(|error| {
            let (folder, none) = (config.folder.display(), "no models: the folder cannot be read");
            // Nobody has asked for models where they would be taken from if they were there.
            if error.kind() == ErrorKind::NotFound && config.folder == Path::new(USUAL_FOLDER) {
                tracing::debug!(%folder, %error, "{none}");
            } else {
                tracing::info!(%folder, %error, "{none}");
            }
            Vec::new()
        });
        if folders.len() > MODELS_MAX {
            tracing::warn!(models = folders.len(), "only the first {MODELS_MAX} models are served");
        }
        // Asked only where there are models: what stands in for a missing extension complains when it is.
        let has_extension = !folders.is_empty() && ext::is_present();
        if !folders.is_empty() && !has_extension {
            tracing::warn!(models = folders.len(), "{}", InferenceError::NoExtension);
        }
        let load = |(name, path): (String, PathBuf)| {
            let versions = load_versions(&name, &path, has_extension, metrics);
            (!versions.is_empty()).then_some(Found { name, versions })
        };
        let models = folders.into_iter().take(MODELS_MAX).filter_map(load).collect();
        Self { models, has_extension, required: config.required }
    }

    /// The newest version of a model that is loaded, or the one that is asked for.
    ///
    /// # Errors
    /// If there is none.
    pub fn find(&self, name: &str, version: Option<u64>) -> Result<&Arc<Model>, InferenceError> {
        if !self.has_extension {
            return Err(InferenceError::NoExtension);
        }
        let found = self.get(name)?;
        let model = found.loaded().find(|model| version.is_none_or(|number| model.version == number));
        model.ok_or_else(|| {
            InferenceError::NoSuchVersion(match version {
                Some(number) => format!(
                    "version {number} of model {name:?} is not served; GET /v1/models/{name} says which are, and why \
                     others are not"
                ),
                None => format!("no version of model {name:?} is served; GET /v1/models/{name} says why"),
            })
        })
    }

    /// A model by its name.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, name: &str) -> Result<&Found, InferenceError> {
        let found = self.models.iter().find(|model| model.name == name);
        found.ok_or_else(|| InferenceError::NoSuchModel(name.to_owned()))
    }

    /// What keeps the service from being ready, if it is required to have its models.
    pub fn unready(&self) -> Option<String> {
        if !self.required {
            return None;
        }
        let missing = self.models.iter().find(|found| found.loaded().next().is_none());
        match missing {
            _ if self.models.is_empty() => {
                Some("models are required (REQUIRE_MODELS), and there are none in MODELS_DIR".to_owned())
            }
            _ if !self.has_extension => {
                Some(format!("models are required (REQUIRE_MODELS), and {}", InferenceError::NoExtension))
            }
            Some(found) => Some(format!(
                "models are required (REQUIRE_MODELS), and no version of {:?} is loaded; GET /v1/models/{} says why",
                found.name, found.name
            )),
            None => None,
        }
    }
}

/// The newest versions, down to the second one that can be loaded.
fn load_versions(name: &str, folder: &Path, has_extension: bool, metrics: &Metrics) -> Vec<Version> {
    let mut numbered: Vec<(u64, PathBuf)> = subfolders(folder)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(name, path)| Some((version_number(&name)?, path)))
        .collect();
    numbered.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    let mut versions: Vec<Version> = Vec::new();
    for (number, path) in numbered {
        let model = match has_extension {
            true => load(name, number, &path, metrics).map(Arc::new),
            false => Err("there is no TensorFlow Lite extension".to_owned()),
        };
        match &model {
            Ok(model) => tracing::info!(model = name, version = number, batches = model.batches(), "model loaded"),
            Err(reason) if has_extension => {
                tracing::error!(model = name, version = number, reason, "a model cannot be loaded");
            }
            Err(_) => {}
        }
        versions.push(Version { number, model });
        if versions.iter().filter(|version| version.model.is_ok()).count() == VERSIONS_LOADED {
            break;
        }
    }
    versions
}

/// A version's number: digits, as TensorFlow Serving takes them.
pub fn version_number(name: &str) -> Option<u64> {
    name.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.parse().ok()).flatten()
}

fn load(name: &str, version: u64, folder: &Path, metrics: &Metrics) -> Result<Model, String> {
    let manifest = match read(&folder.join(manifest::FILE_NAME), MANIFEST_BYTES_MAX) {
        Ok(bytes) => Some(Manifest::parse(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(format!("{} cannot be read: {error}", manifest::FILE_NAME)),
    };
    let file_name = manifest.as_ref().map_or_else(|| only_model_file(folder), |manifest| Ok(manifest.file.clone()))?;
    let file = read(&folder.join(&file_name), MODEL_BYTES_MAX)
        .map_err(|error| format!("{file_name} cannot be read: {error}"))?;
    if let Some(manifest) = &manifest {
        manifest.check_bytes(&file)?;
    }
    let mut signature = model_file::signature(&file).map_err(|error| format!("{file_name}: {error}"))?;
    if let Some(manifest) = manifest {
        signature = manifest.signature(signature)?;
    }
    Model::load(name, version, signature, file, metrics.model(name, version))
        .map_err(|error| format!("{file_name}: {error}"))
}

/// The model's file in a folder without a manifest.
fn only_model_file(folder: &Path) -> Result<String, String> {
    let names = names(folder).map_err(|error| format!("the folder cannot be read: {error}"))?;
    let mut models = names.iter().filter(|name| name.ends_with(".tflite"));
    match (models.next(), models.next()) {
        (Some(only), None) => Ok(only.clone()),
        (Some(_), Some(_)) if names.iter().any(|name| name == MODEL_FILE) => Ok(MODEL_FILE.to_owned()),
        (Some(_), Some(_)) => Err(format!("it has several .tflite files, none of them called {MODEL_FILE}")),
        (None, _) if names.iter().any(|name| name == "saved_model.pb") => Err(format!(
            "it is a SavedModel, which this service does not run: convert it with TensorFlow's TFLiteConverter to \
             {MODEL_FILE}"
        )),
        (None, _) => Err("it has no .tflite file".to_owned()),
    }
}

/// A file's bytes, if it is not larger than that.
fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let size = fs::metadata(path)?.len();
    if size > bytes_max {
        return Err(io::Error::other(format!("it has {size} bytes; {bytes_max} is the most")));
    }
    fs::read(path)
}

/// The folders in a folder, by name; links to folders are followed.
fn subfolders(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let names = names(folder)?.into_iter().map(|name| (name.clone(), folder.join(name)));
    Ok(names.filter(|(_, path)| path.is_dir()).collect())
}

/// The names in a folder, in order; without those that are hidden, as a ConfigMap's own are.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        if let Ok(name) = entry?.file_name().into_string()
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
