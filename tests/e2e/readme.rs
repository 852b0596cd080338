//! What the README shows is what happens.

use std::process::Command;

use harness::{Runtime, Service};

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
    let service = Service::start();
    let examples = examples();
    assert!(examples.len() > 10, "{examples:?}");
    for (command, shown) in examples {
        let line = command.replace("localhost:8080", &service.address().to_string());
        let output = Command::new("sh").args(["-c", &line]).output().unwrap();
        let got = String::from_utf8(output.stdout).unwrap();
        assert_eq!(without_times(got.trim_end()), without_times(shown.trim_end()), "{command}");
    }
}

/// The text with the digits of every time made zeros.
fn without_times(text: &str) -> String {
    let mut parts = text.split("_at\":\"");
    let mut masked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (time, rest) = part.split_once('"').unwrap();
        let time: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        masked.push_str(&format!("_at\":\"{time}\"{rest}"));
    }
    masked
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
