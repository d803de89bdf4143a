//! `stampede init`: a commented scenario file to begin with.

use std::io::ErrorKind;
use std::path::PathBuf;

use clap::Args;

use stampede_output::{console, files};
use stampede_report::{Exit, Failure};

/// What is written.
pub(super) const TEMPLATE: &str = include_str!("scenario.toml");

/// Write a commented scenario file, for `stampede run --scenario FILE`.
#[derive(Debug, Args)]
pub(crate) struct InitFlags {
    /// The file; one that is there already is left alone.
    #[arg(default_value = "stampede.toml", value_name = "FILE")]
    pub file: PathBuf,
}

/// `stampede init`.
///
/// # Errors
/// When the file is there already or can't be written.
pub(crate) fn init(flags: &InitFlags) -> Result<Exit, Failure> {
    let name = flags.file.display();
    files::create_new(&flags.file, TEMPLATE.as_bytes()).map_err(|error| {
        Failure::config(match error.kind() {
            ErrorKind::AlreadyExists => {
                format!("{name} is there already: remove it or name another file")
            }
            _ => format!("{name} can't be written: {error}"),
        })
    })?;
    console::out(&format!("{name} is written; run it with `stampede run --scenario {name}`\n"));
    Ok(Exit::Pass)
}
