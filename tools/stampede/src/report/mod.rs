//! The report: built once at the end from what is known, judged, written, shown.

mod build;
pub(crate) mod hist;
pub(crate) mod judge;
pub(crate) mod server;
pub(crate) mod types;

use std::io::Write;
use std::path::Path;

use crate::exit::Failure;
pub(crate) use build::{build, minus};
use types::Report;

/// Writes a report as JSON.
///
/// # Errors
/// What the system said about the file.
pub(crate) fn write_json(report: &Report, path: &Path) -> Result<(), Failure> {
    let failed = |why: String| {
        Failure::other(format!("the report could not be written to {}: {why}", path.display()))
    };
    let mut text =
        serde_json::to_string_pretty(report).map_err(|error| failed(error.to_string()))?;
    text.push('\n');
    std::fs::File::create(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| failed(error.to_string()))
}
