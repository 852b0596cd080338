//! What the README shows is what happens.

use std::env;
use std::io::Write;
use std::process::Command;

use harness::{Database, Runtime, Service, artifacts, shipped_models};

const README: &str = include_str!("../../README.md");

/// The commands of the `console` blocks, each with the output shown for it.
fn examples() -> Vec<(String, String)> {
    let blocks = README.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut examples = Vec::new();
    for block in blocks {
        for example in block.split("$ ").skip(1) {
            let (command, output) = example.split_once('\n').unwrap();
            examples.push((command.to_owned(), output.to_owned()));
        }
    }
    examples
}

#[test]
fn every_example_gives_the_output_shown() {
    let service = Service::builder(Runtime::Usher).models(&shipped_models()).start();
    let (address, admin) = (service.address().to_string(), service.admin().to_string());
    let folders = format!("{}:{}", artifacts::usher().parent().unwrap().display(), env::var("PATH").unwrap());
    let examples = examples();
    assert!(examples.len() > 10, "{examples:?}");
    for (command, shown) in examples {
        let line = command.replace("localhost:8080", &address).replace("localhost:9090", &admin);
        let mut shell = Command::new("sh");
        shell.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let output = shell.args(["-c", &line]).env("PATH", &folders).env("USHER_ADMIN", &admin).output().unwrap();
        let got = String::from_utf8(output.stdout).unwrap();
        assert_eq!(masked(got.trim_end()), masked(shown.trim_end()), "{command}");
    }
}

/// The text with the digits of every time made zeros, and every process's number and module's digest `0`.
fn masked(text: &str) -> String {
    let zeros = |time: &str| time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let text = after_each(text, "_at\":\"", '"', zeros);
    let text = after_each(&text, "\"started\":\"", '"', zeros);
    let text = after_each(&text, "\"code\":\"", '"', |_| "0".to_owned());
    // The last digits differ between processors.
    let text = after_each(&text, "\"score\":", '}', |_| "0".to_owned());
    after_each(&text, "\"pid\":", ',', |_| "0".to_owned())
}

/// The text with what follows each `label`, up to `end`, changed.
fn after_each(text: &str, label: &str, end: char, change: impl Fn(&str) -> String) -> String {
    let mut parts = text.split(label);
    let mut changed = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (value, rest) = part.split_once(end).unwrap();
        changed.push_str(&format!("{label}{}{end}{rest}", change(value)));
    }
    changed
}

#[test]
fn the_settings_are_those_of_the_module_with_their_defaults() {
    let help = Service::builder(Runtime::Aot).arg("--help").run();
    let settings: Vec<(&str, &str)> = help
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .map(|line| (line.split(' ').next().unwrap(), line.rsplit('[').next().unwrap().trim_end_matches(']')))
        .collect();
    assert!(settings.len() > 5, "{help:?}");
    for (name, default) in &settings {
        let default = if default.is_empty() { String::new() } else { format!("`{default}` ") };
        assert!(README.contains(&format!("| `{name}` | {default}|")), "{name} {default}");
    }
    let configuration = README.split("\n## Configuration\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let listed = configuration.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(listed, settings.len(), "the README lists a setting that is none");
}

/// What `usher serve --help` or another says of a flag, as the README's table begins a row: its name, its twin in
/// the environment, and its default.
fn row(line: &str) -> Option<String> {
    let (flag, about) = line.trim_start().split_once("  ")?;
    let flag = flag.trim_matches(['[', ']']).replace(['<', '>'], "");
    let (twin, after) = about.split_once("[env: ").and_then(|(_, twin)| twin.split_once("=]")).unwrap_or_default();
    let default = after.split_once("[default: ").and_then(|(_, default)| default.split(']').next());
    let cell = |text: &str| if text.is_empty() { " |".to_owned() } else { format!(" `{text}` |") };
    Some(format!("| `{flag}` |{}{}", cell(twin), cell(default.unwrap_or_default())))
}

#[test]
fn the_flags_are_those_of_usher_with_their_defaults() {
    for (command, number, least) in [("serve", 1, 11), ("top", 2, 3)] {
        let mut usher = Command::new(artifacts::usher());
        // Without the environment's values, which it would show.
        let output = usher.args([command, "--help"]).env_clear().output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let flags = help.lines().filter(|line| line.starts_with("  [") || line.trim_start().starts_with("--"));
        let rows: Vec<String> = flags.filter_map(row).collect();
        assert!(rows.len() >= least, "{help}");
        let table = README.split("\n| flag | in the environment |").nth(number).unwrap();
        let table = table.split("\n\n").next().unwrap();
        for row in &rows {
            assert!(table.contains(&format!("\n{row}")), "the README lacks {row}");
        }
        let listed = table.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(listed, rows.len(), "the README lists a flag of {command} that is none");
    }
}

fn metrics_section() -> &'static str {
    README.split("\n## Metrics\n").nth(1).unwrap().split("\n## ").next().unwrap()
}

/// A block of a language in the README's section on metrics.
fn metrics_block(language: &str) -> &'static str {
    metrics_section().split(&format!("```{language}\n")).nth(1).unwrap().split("```").next().unwrap()
}

#[test]
fn the_metrics_are_those_that_are_served() {
    let database = Database::start();
    let builder = Service::builder(Runtime::Usher).models(&shipped_models());
    let service = builder.env("DATABASE_URL", database.url()).start();
    assert_eq!(service.get("/livez").status, 200);
    let served = service.ask_usher("GET", "/metrics").body;
    let mut served: Vec<String> = served
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| format!("| `{name}` | {kind} |"))
        .collect();
    let rows = metrics_section().lines().filter(|line| line.starts_with("| `"));
    let mut listed: Vec<String> =
        rows.map(|row| row.split('|').take(3).map(|cell| format!("{cell}|")).collect()).collect();
    served.sort_unstable();
    listed.sort_unstable();
    assert_eq!(listed, served);
}

/// Whether promtool finds that a file is right.
fn promtool(command: &str, text: &str) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let output = Command::new(artifacts::promtool()).args(["check", command]).arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn prometheus_takes_the_examples() {
    promtool("config", metrics_block("yaml"));
    let queries = metrics_block("promql").lines().enumerate();
    let rules: String = queries.map(|(n, query)| format!("  - record: r{n}\n    expr: '{query}'\n")).collect();
    promtool("rules", &format!("groups:\n- name: g\n  rules:\n{rules}"));
}
