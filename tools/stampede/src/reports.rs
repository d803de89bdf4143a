//! `stampede report` and `stampede compare`.

use std::io::{self, IsTerminal};

use stampede_output::{console, files, no_color};
use stampede_report::{Exit, Failure, compare as comparison, merge, out, read, threshold};

use crate::flags::{self, CompareFlags, ReportFlags};
use crate::{signals, summary};

/// `stampede report`.
///
/// # Errors
/// Files that can't be read, merged or written.
pub(crate) fn report(flags: ReportFlags) -> Result<Exit, Failure> {
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

/// `stampede compare`.
///
/// # Errors
/// Files that can't be read.
pub(crate) fn compare(flags: &CompareFlags) -> Result<Exit, Failure> {
    let (base, new) = (read(&flags.base)?, read(&flags.new)?);
    let colour = io::stdout().is_terminal() && !no_color();
    let (text, exit) =
        comparison::compare(&base, &new, &flags.fail_if, colour).map_err(Failure::other)?;
    console::out(&text);
    Ok(exit)
}
