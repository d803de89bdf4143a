//! The report: built once at the end from what is known, judged, written, shown; read again,
//! merged and compared later.

mod assembly;
mod build;
pub(crate) mod cohorts;
pub(crate) mod compare;
pub(crate) mod hist;
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
    let mut report: Report =
        serde_json::from_value(value).map_err(|error| failed(error.to_string()))?;
    report.all_streams = report.streams.clone();
    Ok(report)
}
