//! Inferences in a guest, side by side with the same library called natively.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use serde::Deserialize;

use super::statistics::{Quartiles, median};
use crate::paths::Paths;
use crate::process::capture;
use crate::versions::Versions;
use crate::{cargo, files, plugin};

/// How long it is measured.
#[derive(Debug, Args)]
pub struct Options {
    /// How often each is measured; in a round, one after the other
    #[arg(long, value_name = "N", default_value_t = 40)]
    rounds: u32,
    /// How many inferences are measured in a round
    #[arg(long, value_name = "N", default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(1..))]
    inferences: u32,
}

/// The part of a model's manifest that matters.
#[derive(Debug, Deserialize)]
struct Manifest {
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

#[derive(Debug, Deserialize)]
struct Tensor {
    tensor: String,
    dtype: String,
    shape: Vec<i64>,
}

impl Tensor {
    /// Bytes of a row.
    fn bytes(&self) -> i64 {
        let size = if self.dtype == "FP32" { 4 } else { 1 };
        self.shape.iter().filter(|length| **length > 0).product::<i64>() * size
    }
}

/// What was measured of a model, in microseconds for each inference, round by round.
struct Measured {
    model: String,
    native: Vec<f64>,
    guest: Vec<f64>,
}

/// What runs the models.
struct Programs<'a> {
    paths: &'a Paths,
    native: std::path::PathBuf,
    plugin: std::path::PathBuf,
    compiled: std::path::PathBuf,
}

/// Measures the models of the repository and shows a table.
pub fn bench(paths: &Paths, options: &Options) -> Result<()> {
    let target = Versions::pinned()?.rust.target;
    let plugin = plugin::build(paths)?;
    let guest = plugin::guest(paths, &target)?;
    let native = cargo::build(paths, &["--release", "--package", "lite", "--example", "speed"], "speed")?;
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let compiled = folder.path().join("guest.so");
    capture(Command::new(paths.wasmedge_bin()).arg("compile").arg(&guest).arg(&compiled))?;
    let programs = Programs { paths, native, plugin, compiled };
    let measured = files::entries(&paths.models())?
        .iter()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| programs.measure(&entry.file_name().to_string_lossy(), options))
        .collect::<Result<Vec<_>>>()?;
    println!("{}", table(&measured)?);
    Ok(())
}

impl Programs<'_> {
    fn measure(&self, model: &str, options: &Options) -> Result<Measured> {
        let folder = self.paths.models().join(model).join("1");
        let manifest = fs::read(folder.join("manifest.json")).with_context(|| format!("{model} has no manifest"))?;
        let manifest: Manifest = serde_json::from_slice(&manifest)?;
        let mut measured = Measured { model: model.to_owned(), native: Vec::new(), guest: Vec::new() };
        for _ in 0..options.rounds {
            measured.native.push(self.native(&folder.join("model.tflite"), options.inferences)?);
            measured.guest.push(self.guest(model, &manifest, options.inferences)?);
        }
        Ok(measured)
    }

    fn native(&self, model: &Path, inferences: u32) -> Result<f64> {
        microseconds(&capture(Command::new(&self.native).arg(model).arg(inferences.to_string()))?)
    }

    fn guest(&self, model: &str, manifest: &Manifest, inferences: u32) -> Result<f64> {
        let output = manifest.outputs.first().context("a model has outputs")?;
        // It says on standard error what it has to say.
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(self.paths.wasmedge_bin());
        shell.args(["--run-mode", "aot", "--dir", "."]).arg(&self.compiled);
        shell.args(["speed", model, &inferences.to_string(), &output.tensor]);
        shell.args(manifest.inputs.iter().map(|input| format!("{}={}", input.tensor, input.bytes())));
        shell.current_dir(self.paths.models()).env("WASMEDGE_PLUGIN_PATH", &self.plugin);
        microseconds(&capture(&mut shell)?)
    }
}

fn microseconds(said: &str) -> Result<f64> {
    let nanoseconds: f64 = said.trim().parse().with_context(|| format!("no number was said: {said}"))?;
    Ok(nanoseconds / 1000.0)
}

/// A row for each model. The least is what neither the machine nor its other users disturbed.
fn table(measured: &[Measured]) -> Result<String> {
    let mut text = String::from(
        "µs for each inference, inputs and an output included; least of the rounds, and in brackets their median\n\n\
         | model | native | guest | added | added, in each round: median (quartiles) |\n|---|---:|---:|---:|---:|\n",
    );
    for Measured { model, native, guest } in measured {
        let (least_native, least_guest) = (least(native), least(guest));
        let added = Quartiles::of(guest.iter().zip(native).map(|(guest, native)| guest - native))?;
        text.push_str(&format!(
            "| {model} | {least_native:.2} ({:.2}) | {least_guest:.2} ({:.2}) | {:.2} | {:.2} ({:.2}–{:.2}) |\n",
            median(native.iter().copied())?,
            median(guest.iter().copied())?,
            least_guest - least_native,
            added.median,
            added.lower,
            added.upper
        ));
    }
    Ok(text)
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_what_is_added_to_the_least_and_in_each_round() {
        let measured = Measured { model: "x".to_owned(), native: vec![2.0, 1.0, 5.0], guest: vec![2.5, 2.0, 5.5] };
        let table = table(&[measured]).unwrap();
        assert!(table.ends_with("| x | 1.00 (2.00) | 2.00 (2.50) | 1.00 | 0.50 (0.50–0.75) |\n"), "{table}");
    }

    #[test]
    fn a_row_of_a_model_has_the_open_dimension_once() {
        let of = |dtype: &str, shape: &[i64]| Tensor { tensor: "x".into(), dtype: dtype.into(), shape: shape.into() };
        assert_eq!(of("FP32", &[-1, 8, 8, 1]).bytes(), 256);
        assert_eq!(of("INT8", &[-1, 10]).bytes(), 10);
    }
}
