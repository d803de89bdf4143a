//! The report: built once at the end from what is known, judged, written, shown; read again,
//! merged and compared later.

mod assembly;
mod build;
pub(crate) mod cohorts;
pub(crate) mod compare;
pub(crate) mod hist;
pub(crate) mod joins;
pub(crate) mod judge;
pub(crate) mod keys;
pub(crate) mod latency;
mod merge;
pub(crate) mod out;
pub(crate) mod running;
mod schema;
mod senders;
pub(crate) mod server;
pub(crate) mod streams;
pub(crate) mod threshold;
pub(crate) mod types;
mod unlike;
pub(crate) mod viewers;
pub(crate) mod watch;
mod watch_verdict;

use std::path::Path;

use crate::exit::{Exit, Failure};
use crate::flags::{self, ReportFlags};
use crate::{files, signals, summary};
pub(crate) use build::build;
use types::Report;

/// `stampede report`.
///
/// # Errors
/// Files that can't be read, merged or written.
pub(crate) fn command(flags: ReportFlags) -> Result<Exit, Failure> {
    let inputs: Vec<_> = flags.files.iter().map(|file| ("FILE", file.as_path())).collect();
    let out = flags::outputs(flags.out, &inputs)?;
    let mut reports = flags.files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    let mut report = match reports.len() {
        1 => reports.remove(0),
        _ => merge::merge(&reports)?,
    };
    let thresholds: Vec<_> = flags.threshold.into_iter().flat_map(|all| all.0).collect();
    threshold::add(&mut report, &thresholds);
    if out.is_empty() {
        // A reader that went away has seen enough.
        let _ = summary::print(&report);
        return Ok(Exit::of(&report));
    }
    let _armed = signals::arm(files::give_up);
    let errors = out::write_all(&mut report, &out, out::Of::Stored);
    Ok(match Exit::of(&report) {
        _ if errors.iter().any(out::OutputError::is_signal) => Exit::Interrupted,
        Exit::Pass if !errors.is_empty() => Exit::Failure,
        exit => exit,
    })
}

/// Reads a JSON report.
///
/// # Errors
/// What is wrong with the file, exit code 104.
pub(crate) fn read(path: &Path) -> Result<Report, Failure> {
    let failed = |why: String| {
        Failure::config(format!("{} can't be used as a report: {why}", path.display()))
    };
    let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    // The schema first: of a file of another kind, a missing key says little.
    let value: serde_json::Value = serde_json::from_slice(&text)
        .map_err(|error| failed(format!("it is not JSON: {error}")))?;
    match value["schema"].as_str() {
        Some(types::SCHEMA) => {}
        Some(other) => {
            return Err(failed(format!("its schema is '{other}', not '{}'", types::SCHEMA)));
        }
        None => {
            return Err(failed("it has no 'schema': write one with --out json=FILE".to_owned()));
        }
    }
    let join = value["join"].clone();
    let mut report: Report =
        serde_json::from_value(value).map_err(|error| failed(error.to_string()))?;
    report.join.complete(&join);
    // Earlier versions judged an interrupted run by what it had time for.
    if report.run.interrupted {
        judge::interrupt(&mut report.verdict);
    }
    report.all_streams = report.streams.clone();
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Outcome;

    #[test]
    fn an_interrupted_run_of_an_older_version_is_read_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/report.json");
        let mut old: serde_json::Value =
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
        assert_eq!(report.join.not_started, 3);
        // Merged with one that was not, it is still one.
        let whole = read(fixture.as_ref()).unwrap();
        let mut other = whole.clone();
        other.run.id = "other".to_owned();
        let merged = merge::merge(&[other, report]).unwrap();
        assert_eq!(merged.verdict.result, Outcome::Interrupted);
        assert_eq!((merged.run.interrupted, merged.join.not_started), (true, 3));
    }
}
