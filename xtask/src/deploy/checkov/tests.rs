//! That checkov's report is judged, by a stand-in for checkov.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::files;
use crate::unpacked::write_script;

const WAIVED: &str = "kind: Pod\nmetadata:\n  annotations:\n    checkov.io/skip1: CKV_K8S_8=It ends.\n";

fn stand_in(script: &str) -> (TempDir, Checkov) {
    let root = tempfile::tempdir().unwrap();
    files::make_folder(&root.path().join("bin")).unwrap();
    write_script(&root.path().join("bin/python"), &format!("#!/bin/sh\n{script}\n")).unwrap();
    let checkov = Checkov { folder: root.path().to_path_buf() };
    (root, checkov)
}

fn record(file: &str, check: &str, outcome: Value) -> Value {
    let (name, path) = ("Probe should be configured", format!("/{file}"));
    json!({"check_id": check, "check_name": name, "resource": "Pod.a.b", "file_path": path, "check_result": outcome})
}

/// A report in which a check passed, and one was waived that fails without its waiver.
fn good() -> Value {
    json!({"results": {
        "passed_checks": [
            record(GIVEN, "CKV_K8S_9", json!({})),
            record(BARE, "CKV_K8S_9", json!({})),
        ],
        "failed_checks": [record(BARE, "CKV_K8S_8", json!({}))],
        "skipped_checks": [record(GIVEN, "CKV_K8S_8", json!({"suppress_comment": "It ends."}))],
        "parsing_errors": [],
    }})
}

fn judged(report: &Value, text: &str) -> Result<Counts> {
    let (_root, checkov) = stand_in(&format!("printf '%s' '{report}'"));
    checkov.check(text)
}

/// What is wrong with the good report after a change of one of its lists.
fn offence(list: &str, content: Value) -> String {
    let mut report = good();
    report["results"][list] = content;
    judged(&report, WAIVED).unwrap_err().to_string()
}

#[test]
fn what_passed_and_what_was_waived_is_counted_once() {
    let counts = judged(&good(), WAIVED).unwrap();
    assert_eq!(counts, Counts { passed: 1, waived: 1 });
    assert_eq!(counts.to_string(), "1 checks of checkov passed, 1 waived");
}

#[test]
fn a_failed_check_is_named() {
    let failed = json!([record(BARE, "CKV_K8S_8", json!({})), record(GIVEN, "CKV_K8S_7", json!({}))]);
    let said = "checks of checkov failed:\nPod.a.b: Probe should be configured (CKV_K8S_7)";
    assert_eq!(offence("failed_checks", failed), said);
}

#[test]
fn nothing_that_was_checked_does_not_pass() {
    assert_eq!(offence("passed_checks", json!([])), "checkov checked nothing");
    let elsewhere = json!([record(BARE, "CKV_K8S_9", json!({}))]);
    assert_eq!(offence("passed_checks", elsewhere), "checkov checked nothing");
    assert_eq!(offence("parsing_errors", json!(["/given.yaml"])), "checkov cannot read the manifests");
    let summary = judged(&json!({"passed": 0, "failed": 0}), "").unwrap_err();
    assert!(summary.to_string().starts_with("checkov checked nothing:\n"), "{summary}");
}

#[test]
fn a_waiver_is_needed_and_has_a_reason() {
    assert!(offence("failed_checks", json!([])).starts_with("waived checks would pass:\nPod.a.b: "));
    for reason in [json!({}), json!({"suppress_comment": ""}), json!({"suppress_comment": NO_REASON})] {
        let waived = json!([record(GIVEN, "CKV_K8S_8", reason)]);
        assert!(offence("skipped_checks", waived).starts_with("waivers have no reason:\nPod.a.b: "));
    }
    let another = format!("{WAIVED}    checkov.io/skip2: CKV_K8S_999=Of a check that there is not.\n");
    let unknown = judged(&good(), &another).unwrap_err();
    assert_eq!(unknown.to_string(), "2 waivers are written, and checkov waived 1 checks");
}

#[test]
fn one_of_the_files_has_no_waivers() {
    let looks = "grep -q checkov.io/skip given.yaml && ! grep -q checkov.io/skip bare.yaml || exit 1";
    let (_root, checkov) = stand_in(&format!("{looks}\nprintf '%s' '{}'", good()));
    checkov.check(WAIVED).unwrap();
}

#[test]
fn settings_of_whoever_runs_it_do_not_reach_it() {
    // cargo gives tests the variable.
    let looks = "test -z \"$CARGO_MANIFEST_DIR\" && test -e \"$HOME/given.yaml\" || exit 1";
    let (_root, checkov) = stand_in(&format!("{looks}\nprintf '%s' '{}'", good()));
    checkov.check(WAIVED).unwrap();
}

#[test]
fn a_failure_of_checkov_itself_is_one() {
    let (_root, checkov) = stand_in("exit 2");
    assert!(checkov.check(WAIVED).unwrap_err().to_string().contains("exit status: 2"));
}
