//! Reports of the real binary: forms, thresholds, comparing and merging, and the JSON Schema.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::{alone, run, stampede};
use serde_json::Value;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../report/tests/fixtures/report.json");
const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../report/report.schema.json");

fn stampede_with(args: &[&str]) -> Output {
    stampede().args(args).output().unwrap()
}

fn fixture() -> Value {
    serde_json::from_str(&fs::read_to_string(FIXTURE).unwrap()).unwrap()
}

/// The stored report with something changed, as a file.
fn changed(dir: &Path, name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let mut report = fixture();
    change(&mut report);
    let path = dir.join(name);
    fs::write(&path, report.to_string()).unwrap();
    path
}

/// Panics with every violation.
fn assert_of_schema(report: &Value) {
    let schema: Value = serde_json::from_str(&fs::read_to_string(SCHEMA).unwrap()).unwrap();
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.add_resource("report.schema.json", schema).unwrap();
    let index = compiler.compile("report.schema.json", &mut schemas).unwrap();
    if let Err(error) = schemas.validate(report, index) {
        panic!("{error:#}");
    }
}

/// Everything of `part` is in `whole`; a later version may have more.
fn assert_holds(whole: &Value, part: &Value, name: &str) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (key, part) in part {
                let whole = whole.get(key).unwrap_or_else(|| panic!("{name}.{key} is gone"));
                assert_holds(whole, part, &format!("{name}.{key}"));
            }
        }
        (Value::Array(whole), Value::Array(part)) => {
            assert_eq!(whole.len(), part.len(), "{name}");
            for (whole, part) in whole.iter().zip(part) {
                assert_holds(whole, part, name);
            }
        }
        (whole, part) => assert_eq!(whole, part, "{name}"),
    }
}

#[test]
fn the_schema_refuses_what_is_no_report() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("again.json");
    let out = format!("json={}", file.display());
    assert_eq!(stampede_with(&["report", FIXTURE, "--out", &out]).status.code(), Some(0));
    let mut broken: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_of_schema(&broken);
    broken["video"]["packets"]["expected"] = "many".into();
    let refused = std::panic::catch_unwind(|| assert_of_schema(&broken));
    assert!(refused.is_err());
}

#[test]
fn a_stored_report_is_shown_and_written_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let shown = stampede_with(&["report", FIXTURE]);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("PASS") && text.contains("packets lost"), "{text}");
    for (kind, first) in [
        ("json", "{\n"),
        ("html", "<!doctype html>"),
        ("csv", "host,identity,room,"),
        ("markdown", "## "),
        ("junit", "<?xml "),
    ] {
        let file = dir.path().join(kind);
        let out = format!("{kind}={}", file.display());
        let written = stampede_with(&["report", FIXTURE, "--out", &out]);
        assert_eq!(written.status.code(), Some(0), "{kind}: {written:?}");
        assert!(written.stdout.is_empty(), "{kind}");
        let text = fs::read_to_string(file).unwrap();
        assert!(text.starts_with(first), "{kind}: {}", &text[..200.min(text.len())]);
    }
    let json: Value =
        serde_json::from_str(&fs::read_to_string(dir.path().join("json")).unwrap()).unwrap();
    assert_holds(&json, &fixture(), "");
}

#[test]
fn the_reports_of_two_hosts_become_one() {
    let dir = tempfile::tempdir().unwrap();
    let second = changed(dir.path(), "second.json", |report| {
        report["run"]["id"] = "second".into();
        report["verdict"]["result"] = "invalid".into();
        report["verdict"]["fault"] = "generator".into();
        report["verdict"]["reasons"] = serde_json::json!(["generator: too slow"]);
        report["run"]["machine"]["hostname"] = "slow-box".into();
    });
    let out = dir.path().join("merged.json");
    let arg = format!("json={}", out.display());
    let merged = stampede_with(&["report", FIXTURE, second.to_str().unwrap(), "--out", &arg]);
    assert_eq!(merged.status.code(), Some(98), "the worst of both: {merged:?}");
    let merged: Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    assert_of_schema(&merged);
    let count = |report: &Value| report["video"]["jitter_ms"]["count"].as_u64().unwrap();
    assert_eq!(count(&merged), 2 * count(&fixture()));
    assert_eq!(merged["video"]["jitter_ms"]["p99"], fixture()["video"]["jitter_ms"]["p99"]);
    assert_eq!(merged["verdict"]["reasons"][0], "slow-box: generator: too slow");
    let twice = stampede_with(&["report", FIXTURE, FIXTURE]);
    assert_eq!(twice.status.code(), Some(104));
    assert!(String::from_utf8_lossy(&twice.stderr).contains("given twice"));
}

#[test]
fn comparing_fails_when_it_is_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let slower = changed(dir.path(), "slower.json", |report| {
        let p99 = report["video"]["jitter_ms"]["p99"].as_f64().unwrap();
        report["video"]["jitter_ms"]["p99"] = (p99 * 1.2).into();
    });
    let slower = slower.to_str().unwrap();
    for (limit, code) in [("+10%", 99), ("+30%", 0), ("0ms", 99)] {
        let test = format!("video.jitter_ms.p99>{limit}");
        let ended = stampede_with(&["compare", FIXTURE, slower, "--fail-if", &test]);
        assert_eq!(ended.status.code(), Some(code), "{limit}: {ended:?}");
        let text = String::from_utf8(ended.stdout).unwrap();
        let row = text.lines().find(|line| line.contains("video.jitter_ms.p99 ")).unwrap();
        assert!(row.contains("+20.0 %") && row.contains("worse"), "{text}");
    }
    let missing = ["compare", FIXTURE, slower, "--fail-if", "video.latency_ms.p99>+10%"];
    let mut without = fixture();
    without["video"]["latency_ms"] = Value::Null;
    assert!(without["video"]["latency_ms"].is_null());
    let null = changed(dir.path(), "null.json", |report| *report = without);
    let null = null.to_str().unwrap();
    let ended = stampede_with(&["compare", null, null, missing[3], missing[4]]);
    assert_eq!(ended.status.code(), Some(99), "no value never passes: {ended:?}");
}

#[test]
fn files_that_are_no_reports_are_refused_with_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    for (text, why) in [
        ("", "not JSON"),
        ("{\"a\": 1}", "has no 'schema'"),
        ("{\"schema\": \"other.v9\"}", "its schema is 'other.v9'"),
        ("{\"schema\": \"stampede.report.v1\"}", "missing field"),
    ] {
        let file = dir.path().join("file.json");
        fs::write(&file, text).unwrap();
        let ended = stampede_with(&["report", file.to_str().unwrap()]);
        let line = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(104), "{line}");
        assert!(line.contains(why) && line.lines().count() == 1, "{line}");
    }
}

#[test]
fn a_threshold_on_a_figure_that_is_not_there_is_refused_before_anything_joins() {
    let ended = stampede_with(&["run", "--threshold", "video.los_rate<1%"]);
    let line = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(104), "{line}");
    assert!(line.contains("did you mean 'video.loss_rate'?"), "{line}");
}

const SMALL: [&str; 8] = [
    "run",
    "--subscribers=3",
    "--duration=2s",
    "--num-per-second=50",
    "--no-tui",
    "--seed=7",
    "--retry=0",
    "--room=thresholds",
];

#[test]
fn thresholds_are_set_against_the_figures_of_a_run_and_its_report_is_of_the_schema() {
    let _alone = alone();
    let tests = [
        "--threshold=video.loss_rate<1% && join.failed==0",
        "--threshold=video.latency_ms.p999>100h",
        "--threshold=video.packets.missing>1000000",
    ];
    let ended = run(&[&SMALL[..], &tests].concat());
    ended.assert_code(99);
    assert_of_schema(ended.report());
    let rows = ended.report()["thresholds"].as_array().unwrap();
    let ok: Vec<_> = rows.iter().map(|row| row["ok"].as_bool().unwrap()).collect();
    assert_eq!(ok, [true, true, false, false], "{rows:?}");
    assert_eq!(rows[3]["value"], 0.0);
    assert!(ended.stdout.contains("FAIL") && ended.stdout.contains("thresholds"));
    assert!(ended.stdout.contains("FAILED  video.packets.missing>1000000: 0"), "{}", ended.stdout);
    let streams = ended.report()["streams"].as_array().unwrap();
    assert_eq!(streams.len(), 6, "three subscribers, video and audio");
    assert_eq!(streams[0]["room"], "thresholds");
    assert_eq!(ended.number("/streams_total"), 6.0);
}

#[test]
fn a_crossed_threshold_with_abort_ends_the_run() {
    let _alone = alone();
    for test in ["video.packets.received<50 abort after 2s", "impairment.dropped<20 abort"] {
        let args = ["--duration=60s", "--impair=loss=10%", &format!("--threshold={test}")];
        let ended = run(&[&SMALL[..], &args].concat());
        ended.assert_code(99);
        assert!(ended.number("/run/duration_s") < 50.0);
        let row = &ended.report()["thresholds"][0];
        assert_eq!((row["ok"].as_bool(), row["aborted"].as_bool()), (Some(false), Some(true)));
        assert!(ended.stdout.contains("it ended the run"), "{}", ended.stdout);
        let dropped = |row: &Value| row["counters"]["impairment.dropped"].as_f64().unwrap_or(0.0);
        let series = ended.report()["series"].as_array().unwrap();
        let by_second: f64 = series.iter().map(dropped).sum();
        // Those of the ramp are in no sum.
        assert!(by_second >= ended.number("/impairment/dropped"), "{by_second}");
        assert!(dropped(&series[series.len() - 1]) < 0.9 * by_second, "all at the end");
        assert_of_schema(ended.report());
    }
}
