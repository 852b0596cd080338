//! Results as Markdown.

use std::fmt::Write;

use anyhow::{Context, Result};

use super::http::{Case, Measured, Plan, Run};
use super::machine::Machine;
use super::serving::Way;
use super::statistics::{Quartiles, median};
use super::syscalls::Syscalls;

/// What was measured in each case.
type Results = [(Case, Vec<Measured>)];

/// The page on requests over HTTP.
pub fn http(machine: &Machine, plan: &Plan<'_>, results: &Results) -> Result<String> {
    let mut page = String::from("# Requests over HTTP\n\n");
    page.push_str(&head(machine));
    page.push_str(&how_to_read(plan.rounds, plan.time.as_secs()));
    write!(page, "## Speed as a part of the native build's\n\n{}", overview(results)?)?;
    for (case, measured) in results {
        write!(page, "\n## {}\n\n{}", case.title(), details(measured)?)?;
    }
    Ok(page)
}

fn head(machine: &Machine) -> String {
    let Machine { date, cpu, processors, used, kernel, busy, rustc, wasmedge, commit } = machine;
    let facts = [
        ("date", format!("{date} UTC")),
        ("commit", commit.clone()),
        ("processor", format!("{cpu}, {processors} of them; {used}")),
        ("kernel", kernel.clone()),
        ("load before", busy.clone()),
        ("Rust", rustc.clone()),
        ("WasmEdge", wasmedge.clone()),
    ];
    let facts = facts.map(|(name, fact)| format!("- {name}: {fact}\n")).concat();
    format!("Written by `cargo xtask bench http`, whole; changes by hand are lost.\n\n{facts}\n")
}

fn how_to_read(rounds: u32, seconds: u64) -> String {
    format!(
        "**Absolute numbers belong to this machine only; ratios are what counts.** They belong to an idle machine,\n\
         too: \"load before\" should be near 0.\n\n\
         One worker serves on one processor, from the embedded store, and wrk asks on another. Rounds of each case:\n\
         {rounds}. In each, every way of serving has its turn of {seconds} s, in another order each time.\n\n\
         - *ratio*: requests/s as a part of the native build's in the same round, so that what disturbs both\n  \
           matters less; its median and, in brackets, its quartiles. Everything else is the median of the rounds.\n\
         - *CPU*: what the serving process used for a request, its own code and the kernel's for it apart. The\n  \
           system counts in steps, most often of 10 ms: with few requests in a turn this is coarse.\n\
         - *busy*: the part of its processor's time that it used. Where that is well below 100 % with many\n  \
           connections, wrk was the limit: compare CPU there, as the ratio says less than there is.\n\
         - *latency*: as wrk saw it; half of the requests took p50 at most, 99 in 100 p99.\n\
         - *calls*: system calls for a request, those for making the connections among them, counted by strace in\n  \
           a run of its own; \"dies\": WasmEdge's poll does not survive a tracer.\n\
         - *idle ones*: connections that have had one answer and are kept.\n\n\
         What is compared:\n\n\
         - native: the same source built for this machine, one thread.\n\
         - `wasmedge`: the module compiled ahead of time, under WasmEdge's command line tool.\n\
         - `usher --poll=wasmedge`: under usher, with WasmEdge's way of waiting.\n\
         - `usher`: under usher as it is.\n\n"
    )
}

/// A row for each case, with the ratios of all but the yardstick.
fn overview(results: &Results) -> Result<String> {
    let others = || Way::ALL.into_iter().filter(|way| *way != Way::Native);
    let header: Vec<&str> = std::iter::once("case").chain(others().map(Way::name)).collect();
    let mut rows = Vec::new();
    for (case, measured) in results {
        let native = runs_of(Way::Native, measured)?;
        let mut row = vec![case.title()];
        for way in others() {
            row.push(format!("{:.2}", ratios(runs_of(way, measured)?, native)?.median));
        }
        rows.push(row);
    }
    Ok(table(&header, &rows))
}

/// A row for each way of serving.
fn details(measured: &[Measured]) -> Result<String> {
    let header = ["", "requests/s", "ratio", "CPU µs: own", "kernel's", "busy", "latency µs: p50", "p99", "calls"];
    let native = runs_of(Way::Native, measured)?;
    let rows = measured.iter().map(|one| details_of(one, native)).collect::<Result<Vec<_>>>()?;
    Ok(table(&header, &rows))
}

fn details_of(measured: &Measured, native: &[Run]) -> Result<Vec<String>> {
    let middle = |value: fn(&Run) -> f64| median(measured.runs.iter().map(value));
    let calls = match measured.syscalls {
        Syscalls::PerRequest(calls) => format!("{calls:.2}"),
        Syscalls::Dies => "dies".to_owned(),
    };
    Ok(vec![
        measured.way.name().to_owned(),
        format!("{:.0}", middle(|run| run.tally.per_second)?),
        spread(ratios(&measured.runs, native)?),
        format!("{:.1}", middle(|run| run.cpu.user)?),
        format!("{:.1}", middle(|run| run.cpu.kernel)?),
        format!("{:.0} %", middle(|run| 100.0 * run.busy())?),
        format!("{:.0}", middle(|run| run.tally.p50)?),
        format!("{:.0}", middle(|run| run.tally.p99)?),
        calls,
    ])
}

fn runs_of(way: Way, measured: &[Measured]) -> Result<&[Run]> {
    let found = measured.iter().find(|one| one.way == way);
    Ok(&found.with_context(|| format!("{} was not measured", way.name()))?.runs)
}

/// Requests/s as a part of the yardstick's, round by round.
fn ratios(runs: &[Run], native: &[Run]) -> Result<Quartiles> {
    Quartiles::of(runs.iter().zip(native).map(|(run, yardstick)| run.tally.per_second / yardstick.tally.per_second))
}

fn spread(quartiles: Quartiles) -> String {
    format!("{:.2} ({:.2}–{:.2})", quartiles.median, quartiles.lower, quartiles.upper)
}

/// A table whose first column has words and whose others have numbers.
fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[&str]| format!("| {} |\n", cells.join(" | "));
    let rule: Vec<&str> = (0..header.len()).map(|column| if column == 0 { "---" } else { "---:" }).collect();
    let mut text = line(header) + &line(&rule);
    for row in rows {
        text.push_str(&line(&row.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cpu::Cpu;
    use crate::bench::load::Tally;

    fn run(per_second: f64) -> Run {
        let tally = Tally { requests: 1000, per_second, p50: 40.4, p99: 99.6 };
        Run { tally, cpu: Cpu { user: 12.34, kernel: 5.67 } }
    }

    fn measured() -> Vec<Measured> {
        let of = |way, rates: [f64; 2], syscalls| Measured { way, runs: rates.map(run).to_vec(), syscalls };
        vec![
            of(Way::Native, [1000.0, 2000.0], Syscalls::PerRequest(2.004)),
            of(Way::Plain, [500.0, 400.0], Syscalls::Dies),
            of(Way::UsherWasmedgePoll, [600.0, 1200.0], Syscalls::Dies),
            of(Way::Usher, [900.0, 1640.0], Syscalls::PerRequest(2.1)),
        ]
    }

    #[test]
    fn a_table_has_a_line_for_the_header_the_rule_and_each_row() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["b".to_owned(), "2".to_owned()]];
        assert_eq!(table(&["x", "y"], &rows), "| x | y |\n| --- | ---: |\n| a | 1 |\n| b | 2 |\n");
    }

    #[test]
    fn ratios_are_paired_within_a_round() {
        let lines = details(&measured()).unwrap();
        for expected in [
            "| native | 1500 | 1.00 (1.00–1.00) | 12.3 | 5.7 | 3 % | 40 | 100 | 2.00 |\n",
            // 0.5 and 0.2; the ratio of the medians would be 0.3.
            "| `wasmedge` | 450 | 0.35 (0.28–0.42) | 12.3 | 5.7 | 1 % | 40 | 100 | dies |\n",
            "| `usher` | 1270 | 0.86 (0.84–0.88) | 12.3 | 5.7 | 2 % | 40 | 100 | 2.10 |\n",
        ] {
            assert!(lines.contains(expected), "{lines}");
        }
    }

    #[test]
    fn the_overview_has_a_row_for_each_case() {
        let case = Case { path: "/x", connections: 16, idle: 200 };
        let lines = overview(&[(case, measured())]).unwrap();
        assert!(lines.starts_with("| case | `wasmedge` | `usher --poll=wasmedge` | `usher` |\n"), "{lines}");
        assert!(lines.ends_with("| `GET /x`, 16 connections, 200 idle ones | 0.35 | 0.60 | 0.86 |\n"), "{lines}");
        let incomplete = [(case, measured().split_off(1))];
        assert!(overview(&incomplete).unwrap_err().to_string().contains("native"));
    }
}
