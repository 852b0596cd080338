//! `cargo xtask bench`: measures the service side by side with its native build, for people to read.

mod cpu;
mod http;
mod idle;
mod inference;
mod load;
mod machine;
mod predict;
mod report;
mod serving;
mod statistics;
mod syscalls;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand, value_parser};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use self::machine::Processors;
use crate::artifacts::Forms;
use crate::files;
use crate::paths::Paths;
use crate::versions::Versions;
use crate::{artifacts, system};

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum Subject {
    /// Requests over HTTP, from the embedded store: natively, under plain WasmEdge, under usher
    Http(Options),
    /// Inferences in a guest, side by side with the library called natively
    Inference(inference::Options),
    /// Requests that run a model, and what those who ask for users notice of them
    Predict(Options),
}

/// How long it is measured.
#[derive(Debug, Args)]
pub struct Options {
    /// How often each is measured in each case; in a round, one after the other
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each is measured in a round
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = value_parser!(u64).range(1..))]
    seconds: u64,
}

/// Measures.
pub fn bench(paths: &Paths, subject: &Subject) -> Result<()> {
    let measure: &dyn Fn(&Forms, &Processors) -> Result<()> = match subject {
        Subject::Inference(options) => return inference::bench(paths, options),
        Subject::Http(options) => &|forms, processors| http(paths, forms, processors, options),
        Subject::Predict(options) => &|forms, processors| predict::bench(forms, processors, &paths.models(), options),
    };
    // Asked before the minutes that building may take.
    let processors = Processors::of_this_machine()?;
    system::provide_programs(&Versions::pinned()?.bench.packages, "the benchmarks use")?;
    measure(&artifacts::forms(paths)?, &processors)
}

/// Measures, and writes bench/RESULTS.md when all went well.
fn http(paths: &Paths, forms: &Forms, processors: &Processors, options: &Options) -> Result<()> {
    let machine = machine::Machine::describe(paths, processors)?;
    let interruption = Interruption::noticed()?;
    let plan = http::Plan {
        forms,
        processors,
        rounds: options.rounds,
        time: Duration::from_secs(options.seconds),
        interruption: &interruption,
    };
    let report = report::http(&machine, &plan, &plan.measure()?)?;
    let place = paths.bench_results();
    files::make_folder(place.parent().context("a file lies in a folder")?)?;
    files::write_atomically(&place, report.as_bytes())?;
    println!("{report}");
    eprintln!("written to {}", place.display());
    Ok(())
}

/// Whether a signal has asked us to end. What was started and made is so cleared away, by the same
/// way as after an error.
struct Interruption(Arc<AtomicBool>);

impl Interruption {
    fn noticed() -> Result<Self> {
        let noticed = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register(signal, Arc::clone(&noticed)).context("cannot handle signals")?;
        }
        Ok(Self(noticed))
    }

    /// Fails once there was one.
    fn check(&self) -> Result<()> {
        ensure!(!self.0.load(Ordering::Relaxed), "interrupted: no results were written");
        Ok(())
    }
}
