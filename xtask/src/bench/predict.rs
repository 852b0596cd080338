//! Requests that run a model, over HTTP, and what those who ask for users notice of them.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::Options;
use super::load::{self, Load, Tally};
use super::machine::Processors;
use super::serving::Serving;
use super::statistics::median;
use super::wire::Connection;
use crate::artifacts::Forms;

/// A way to ask for predictions.
struct Case {
    connections: usize,
    /// Rows in a request.
    rows: usize,
}

const CASES: [Case; 4] = [
    Case { connections: 1, rows: 1 },
    Case { connections: 16, rows: 1 },
    Case { connections: 16, rows: 32 },
    // Half as many as may wait: those of the load before may still be there.
    Case { connections: 128, rows: 32 },
];

/// What was measured of a case, round by round.
#[derive(Default)]
struct Measured {
    predictions: Vec<Tally>,
    /// Of who asks for a user meanwhile.
    users: Vec<Tally>,
}

/// Measures and shows a table.
pub fn bench(forms: &Forms, processors: &Processors, models: &Path, options: &Options) -> Result<()> {
    let serving = Serving::with_models(forms, processors, models)?;
    Connection::open(serving.address)?.ask("POST", "/api/users", r#"{"name":"Ada","email":"ada@example.org"}"#)?;
    let time = Duration::from_secs(options.seconds);
    let user_url = format!("http://{}/api/users/1", serving.address);
    let user = Load { url: &user_url, connections: 1, time, script: None };
    let predict_url = format!("http://{}/v1/models/digits:predict", serving.address);
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let mut alone = Vec::new();
    let mut measured: [Measured; CASES.len()] = Default::default();
    for round in 1..=options.rounds {
        alone.push(load::run(processors, user)?);
        for (case, measured) in CASES.iter().zip(&mut measured) {
            let script = folder.path().join("predict.lua");
            fs::write(&script, lua(case.rows)).context("cannot write wrk's script")?;
            let connections = case.connections;
            let predict = Load { url: &predict_url, connections, time, script: Some(&script) };
            measured.predictions.push(load::run(processors, predict)?);
            measured.users.push(meanwhile(processors, predict, user)?);
        }
        eprintln!("round {round} of {}", options.rounds);
    }
    println!("{}", table(&alone, &measured)?);
    Ok(())
}

/// Measures one load while another goes on.
fn meanwhile(processors: &Processors, other: Load<'_>, load: Load<'_>) -> Result<Tally> {
    thread::scope(|scope| {
        let other = scope.spawn(|| load::run(processors, Load { time: other.time + Duration::from_secs(1), ..other }));
        let tally = load::run(processors, load)?;
        other.join().map_err(|_| anyhow!("the other load did not end"))??;
        Ok(tally)
    })
}

/// What wrk asks: so many rows of 64 pixels.
fn lua(rows: usize) -> String {
    let line = format!("[{}]", ["[0],[0.25],[0.5],[1]"; 2].join(","));
    let row = format!("[{}]", vec![line; 8].join(","));
    let body = format!("{{\"instances\":[{}]}}", vec![row; rows].join(","));
    format!("wrk.method = \"POST\"\nwrk.body = '{body}'\n")
}

fn table(alone: &[Tally], measured: &[Measured]) -> Result<String> {
    let of = |tallies: &[Tally], value: fn(&Tally) -> f64| median(tallies.iter().map(value));
    let mut text = format!(
        "medians of the rounds; a user is asked for by one connection, whose latency is p50 / p99 in µs\n\n\
         | predictions of `digits` by | requests/s | rows/s | a user meanwhile | users/s |\n|---|---:|---:|---:|---:|\n\
         | nobody | | | {:.0} / {:.0} | {:.0} |\n",
        of(alone, |tally| tally.p50)?,
        of(alone, |tally| tally.p99)?,
        of(alone, |tally| tally.per_second)?
    );
    for (Case { connections, rows }, Measured { predictions, users }) in CASES.iter().zip(measured) {
        let rate = of(predictions, |tally| tally.per_second)?;
        let (p50, p99) = (of(users, |tally| tally.p50)?, of(users, |tally| tally.p99)?);
        let users = of(users, |tally| tally.per_second)?;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {connections} connections, {rows} rows each | {rate:.0} | {:.0} | {p50:.0} / {p99:.0} | {users:.0} |",
            rate * *rows as f64
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_as_many_rows_as_pixels_of_each_are_right() {
        let script = lua(3);
        let body = script.split('\'').nth(1).unwrap();
        let value: serde_json::Value = serde_json::from_str(body).unwrap();
        let rows = value["instances"].as_array().unwrap();
        let lines = rows.iter().flat_map(|row| row.as_array().unwrap());
        assert_eq!(
            (rows.len(), lines.map(|line| line.as_array().unwrap().len()).collect::<Vec<_>>()),
            (3, vec![8; 24])
        );
    }

    #[test]
    fn rows_are_counted_by_requests() {
        let tally = Tally { requests: 1, per_second: 100.0, p50: 7.0, p99: 9.0 };
        let measured = || Measured { predictions: vec![tally], users: vec![tally] };
        let table = table(&[tally], &[measured(), measured(), measured()]).unwrap();
        assert!(table.ends_with("| 16 connections, 32 rows each | 100 | 3200 | 7 / 9 | 100 |\n"), "{table}");
    }
}
