//! Requests over HTTP: each way of serving in each case.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Interruption;
use super::cpu::Cpu;
use super::idle;
use super::load::{self, Load, Tally};
use super::machine::Processors;
use super::serving::{Serving, Way};
use super::syscalls::{self, Syscalls};
use super::wire::Connection;
use crate::artifacts::Forms;

/// Before something is measured, it is loaded for so long.
const WARM_UP: Duration = Duration::from_secs(1);

/// Descriptors that are open beside the idle connections.
const OTHER_DESCRIPTORS: u64 = 500;

const HEALTH: &str = "/api/health";
const USER: &str = "/api/users/1";

/// What `USER` is about.
const NEW_USER: &str = r#"{"name":"Ada Lovelace","email":"ada@example.org"}"#;

/// What is asked for, by how many connections at once, beside how many that do nothing.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub path: &'static str,
    pub connections: usize,
    pub idle: usize,
}

impl Case {
    /// The case in words, as Markdown.
    pub fn title(self) -> String {
        let connections = match self.connections {
            1 => "1 connection".to_owned(),
            many => format!("{many} connections"),
        };
        let idle = match self.idle {
            0 => String::new(),
            many => format!(", {many} idle ones"),
        };
        format!("`GET {}`, {connections}{idle}", self.path)
    }
}

const fn case(path: &'static str, connections: usize, idle: usize) -> Case {
    Case { path, connections, idle }
}

/// Idle connections cost the same whatever is asked for.
const CASES: [Case; 8] = [
    case(HEALTH, 1, 0),
    case(HEALTH, 16, 0),
    case(HEALTH, 64, 0),
    case(HEALTH, 16, 200),
    case(HEALTH, 16, 1000),
    case(USER, 1, 0),
    case(USER, 16, 0),
    case(USER, 64, 0),
];

/// What one way of serving did in one round.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub tally: Tally,
    /// What the serving process used for each request.
    pub cpu: Cpu,
}

impl Run {
    /// The part of its processor's time that the serving process used.
    pub fn busy(&self) -> f64 {
        (self.cpu.user + self.cpu.kernel) * self.tally.per_second / 1e6
    }
}

/// What one way of serving did in one case.
#[derive(Debug)]
pub struct Measured {
    pub way: Way,
    /// In the order of the rounds, which are the same for all.
    pub runs: Vec<Run>,
    pub syscalls: Syscalls,
}

/// What to measure by.
pub struct Plan<'a> {
    pub forms: &'a Forms,
    pub processors: &'a Processors,
    pub rounds: u32,
    /// Of each measurement, in whole seconds.
    pub time: Duration,
    pub interruption: &'a Interruption,
}

impl Plan<'_> {
    /// Measures everything in every case.
    pub fn measure(&self) -> Result<Vec<(Case, Vec<Measured>)>> {
        let most = CASES.iter().map(|case| case.idle * Way::ALL.len()).max().unwrap_or_default();
        idle::raise_descriptor_limit(most as u64 + OTHER_DESCRIPTORS)?;
        CASES.into_iter().map(|case| Ok((case, self.measure_case(case)?))).collect()
    }

    fn measure_case(&self, case: Case) -> Result<Vec<Measured>> {
        eprintln!("\n== {}", plain(&case.title()));
        let mut contenders = Way::ALL.into_iter().map(|way| self.contender(way, case)).collect::<Result<Vec<_>>>()?;
        for round in 0..self.rounds {
            // Whatever comes after another has its heat and its caches, so each comes after each.
            for turn in 0..contenders.len() {
                let place = (turn + round as usize) % contenders.len();
                let contender = contenders.get_mut(place).context("a place is below the number of them")?;
                let run = self.run(contender, case)?;
                contender.runs.push(run);
            }
            tell(round + 1, self.rounds, &contenders);
        }
        eprintln!("counting system calls, of which those that wait by WasmEdge's poll may die with a message");
        contenders.into_iter().map(|contender| self.finished(contender, case)).collect()
    }

    /// Starts one that serves, with its idle connections, and warms it up.
    fn contender(&self, way: Way, case: Case) -> Result<Contender> {
        let start = || {
            let serving = Serving::start(way, self.forms, self.processors)?;
            Connection::open(serving.address)?.ask("POST", "/api/users", NEW_USER)?;
            let idle = idle::open(serving.address, case.idle)?;
            let contender = Contender { way, serving, runs: Vec::new(), _idle: idle };
            self.load(&contender, case, WARM_UP)?;
            anyhow::Ok(contender)
        };
        start().context(way.name())
    }

    fn run(&self, contender: &Contender, case: Case) -> Result<Run> {
        let run = || {
            let before = Cpu::of(contender.serving.pid)?;
            let tally = self.load(contender, case, self.time)?;
            let cpu = Cpu::of(contender.serving.pid)?.each_since(before, tally.requests);
            anyhow::Ok(Run { tally, cpu })
        };
        run().context(contender.way.name())
    }

    /// Counts system calls last, as not everyone survives it.
    fn finished(&self, contender: Contender, case: Case) -> Result<Measured> {
        let pid = contender.serving.pid;
        let counted = syscalls::count(pid, || Ok(self.load(&contender, case, self.time)?.requests));
        self.interruption.check()?;
        let syscalls = counted.context(contender.way.name())?;
        ensure!(
            syscalls != Syscalls::Dies || !contender.way.bears_interruptions(),
            "{} ended while its system calls were counted",
            contender.way.name()
        );
        Ok(Measured { way: contender.way, runs: contender.runs, syscalls })
    }

    fn load(&self, contender: &Contender, case: Case, time: Duration) -> Result<Tally> {
        let url = format!("http://{}{}", contender.serving.address, case.path);
        let tally = load::run(self.processors, Load { url: &url, connections: case.connections, time, script: None });
        // It ends the load, too, which would then be an error of its own.
        self.interruption.check()?;
        let tally = tally?;
        ensure!(tally.requests > 0, "not one request was answered");
        Ok(tally)
    }
}

/// One that serves, and what was measured of it so far.
struct Contender {
    way: Way,
    serving: Serving,
    runs: Vec<Run>,
    _idle: Vec<Connection>,
}

fn tell(round: u32, rounds: u32, contenders: &[Contender]) {
    let rate = |contender: &Contender| {
        let rate = contender.runs.last().map_or(0.0, |run| run.tally.per_second);
        format!("{} {rate:.0}", plain(contender.way.name()))
    };
    let rates: Vec<String> = contenders.iter().map(rate).collect();
    eprintln!("round {round} of {rounds}, requests/s: {}", rates.join(", "));
}

/// Markdown as one says it on a terminal.
fn plain(markdown: &str) -> String {
    markdown.replace('`', "")
}
