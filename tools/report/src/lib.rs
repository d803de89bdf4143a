//! The report: facts about a run become figures, figures a verdict, and both go out in every form;
//! reports are read again, merged and compared.
//!
//! It takes plain facts and knows neither flags nor a running engine.
//!
//! ```
//! use stampede_report::threshold::Thresholds;
//!
//! let Thresholds(tests) = "video.loss_rate<1% && join.failed==0".parse::<Thresholds>()?;
//! assert_eq!((tests[0].key.as_str(), tests[0].limit), ("video.loss_rate", 0.01));
//! # Ok::<(), String>(())
//! ```

#![forbid(unsafe_code)]

pub mod bounds;
pub mod compare;
#[cfg(test)]
mod counter_tests;
mod data_verdict;
pub mod errors;
mod exit;
pub mod facts;
mod failure;
pub mod hist;
pub mod joins;
pub mod judge;
pub mod keys;
pub mod latency;
pub mod layers;
mod layers_verdict;
mod loss;
pub mod merge;
pub mod out;
pub mod recording;
mod rpc_verdict;
pub mod running;
pub mod schema;
mod sections;
pub mod senders;
pub mod show;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod threshold;
pub mod types;
pub mod unit;
mod unlike;
pub mod watch;
pub mod watch_verdict;
pub mod watch_words;

use std::path::Path;

use serde_json::Value;
use stampede_counters::{Counters, ReportCounters};

pub use failure::{Exit, Failure};
use types::Report;

/// Reads a file with a JSON report.
///
/// # Errors
/// What is wrong with the file, exit code 104.
pub fn read(path: &Path) -> Result<Report, Failure> {
    let read = std::fs::read(path).map_err(|error| error.to_string());
    read.and_then(|json| from_json(&json)).map_err(|why| {
        Failure::config(format!("{} can't be used as a report: {why}", path.display()))
    })
}

/// Reads a JSON report.
///
/// # Errors
/// What is wrong with it, in words.
pub fn from_json(json: &[u8]) -> Result<Report, String> {
    // The schema first: of a file of another kind, a missing key says little.
    let value: Value =
        serde_json::from_slice(json).map_err(|error| format!("it is not JSON: {error}"))?;
    match value["schema"].as_str() {
        Some(types::SCHEMA) => {}
        Some(other) => {
            return Err(format!("its schema is '{other}', not '{}'", types::SCHEMA));
        }
        None => {
            return Err("it has no 'schema': write one with --out json=FILE".to_owned());
        }
    }
    let join = value["join"].clone();
    let lacks = ReportCounters::table().iter().map(|counter| counter.key.as_str());
    let lacks = lacks.filter(|key| !types::JOINS_IMPLIED.contains(key) && is_left_out(&value, key));
    let lacks = lacks.collect();
    let mut report: Report = serde_json::from_value(value).map_err(|error| error.to_string())?;
    report.join.complete(&join);
    // Earlier versions judged an interrupted run by what it had time for.
    if report.run.interrupted {
        judge::interrupt(&mut report.verdict);
    }
    report.all_streams = report.streams.clone();
    report.lacks = lacks;
    Ok(report)
}

/// True if a section is there without this key. One that is `null` leaves nothing out.
fn is_left_out(value: &Value, key: &str) -> bool {
    let Some(fields) = value.as_object() else { return false };
    let (first, rest) = key.split_once('.').unwrap_or((key, ""));
    fields.get(first).is_none_or(|part| is_left_out(part, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Outcome;

    #[test]
    fn an_interrupted_run_of_an_older_version_is_read_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/report.json");
        let mut old: Value =
            serde_json::from_str(&std::fs::read_to_string(fixture).unwrap()).unwrap();
        old["run"]["interrupted"] = true.into();
        let join = old["join"].as_object_mut().unwrap();
        for key in ["pending", "pending_at", "not_started", "drops", "tries_failed"] {
            join.remove(key);
        }
        join["requested"] = (join["joined"].as_u64().unwrap() + 3).into();
        let path = dir.path().join("old.json");
        std::fs::write(&path, old.to_string()).unwrap();
        let report = read(&path).unwrap();
        assert_eq!(report.verdict.result, Outcome::Interrupted);
        assert_eq!(Exit::of(&report), Exit::Interrupted);
        assert_eq!(report.join.counted.not_started, 3);
        // Merged with one that was not, it is still one.
        let whole = read(fixture.as_ref()).unwrap();
        let mut other = whole.clone();
        other.run.id = "other".to_owned();
        let merged = merge::merge(&[other, report]).unwrap();
        assert_eq!(merged.verdict.result, Outcome::Interrupted);
        assert_eq!((merged.run.interrupted, merged.join.counted.not_started), (true, 3));
    }
}
