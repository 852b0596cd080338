//! Folders of models: those that come along, and those that a test puts together.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::artifacts;

/// The models that the service comes with.
pub fn shipped_models() -> PathBuf {
    in_the_repository("models")
}

/// Models that are for tests only, without manifests: see `models/test_models.py`.
pub fn small_models() -> PathBuf {
    in_the_repository("tests/models")
}

/// Pictures of digits, whose names begin with what they show.
pub fn images() -> PathBuf {
    in_the_repository("tests/images")
}

/// A file of a model that comes along.
pub fn shipped_file(name: &str, file: &str) -> Vec<u8> {
    fs::read(shipped_models().join(name).join("1").join(file)).unwrap()
}

fn in_the_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path).canonicalize().unwrap()
}

/// A script in `tests/clients`, and a Python that can run it.
pub fn client(script: &str) -> std::process::Command {
    let mut python = std::process::Command::new(artifacts::python());
    python.arg("-B").arg(in_the_repository("tests/clients").join(script));
    python
}

/// A folder of models.
#[derive(Debug)]
pub struct Models(TempDir);

impl Models {
    /// One that is empty.
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// One with the models that come along and those for tests.
    pub fn all() -> Self {
        let models = Self::new();
        for folder in [shipped_models(), small_models()] {
            for name in folders(&folder) {
                models.copy(&folder.join(&name).join("1"), &name, "1");
            }
        }
        models
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Puts a file into a version of a model.
    pub fn put(&self, name: &str, version: &str, file: &str, content: impl AsRef<[u8]>) {
        let folder = self.path().join(name).join(version);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(file), content).unwrap();
    }

    /// Puts a whole version there, the manifest last.
    pub fn copy(&self, from: &Path, name: &str, version: &str) {
        for file in ["model.tflite", "manifest.json"] {
            if let Ok(content) = fs::read(from.join(file)) {
                self.put(name, version, file, content);
            }
        }
    }

    /// Puts a model that comes along there, in another version.
    pub fn copy_shipped(&self, name: &str, version: &str) {
        self.copy(&shipped_models().join(name).join("1"), name, version);
    }

    /// Puts it there with another manifest.
    pub fn copy_changed(&self, name: &str, version: &str, change: impl FnOnce(&mut Value)) {
        let mut manifest = serde_json::from_slice(&shipped_file(name, "manifest.json")).unwrap();
        change(&mut manifest);
        self.put(name, version, "model.tflite", shipped_file(name, "model.tflite"));
        self.put(name, version, "manifest.json", manifest.to_string());
    }
}

fn folders(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    entries.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}
