//! The forms in which a report goes out.

pub mod csv;
mod html;
mod junit;
mod markdown;
mod plot;
mod strips;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::types::{Outcome, Report};
use stampede_counters::PacketCounters;
use stampede_output::files::{self, Place, WriteError};
use stampede_output::one_line;

/// In what form a report goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// Everything, for scripts.
    Json,
    /// One self-contained page.
    Html,
    /// One row a stream.
    Csv,
    /// GitHub-flavoured, for a job's summary.
    Markdown,
    /// Thresholds and verdict as test cases.
    Junit,
}

/// All of them, by name.
pub const OUTPUT_KINDS: [(&str, OutputKind); 5] = [
    ("json", OutputKind::Json),
    ("html", OutputKind::Html),
    ("csv", OutputKind::Csv),
    ("markdown", OutputKind::Markdown),
    ("junit", OutputKind::Junit),
];

/// Where a report goes and in what form, `json=FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// In what form.
    pub kind: OutputKind,
    /// The file.
    pub path: PathBuf,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = OUTPUT_KINDS.iter().find(|(_, kind)| *kind == self.kind);
        write!(f, "{}={}", name.map_or("", |(name, _)| name), self.path.display())
    }
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text
            .split_once('=')
            .ok_or_else(|| "the kind is missing; write it like json=report.json".to_owned())?;
        let kind = OUTPUT_KINDS.iter().find(|(known, _)| *known == name);
        let (_, kind) = kind.ok_or_else(|| {
            format!("unknown kind '{name}'; use json, html, csv, markdown or junit")
        })?;
        if path.is_empty() {
            return Err("the file name is missing; write it like json=report.json".to_owned());
        }
        Ok(Self { kind: *kind, path: PathBuf::from(path) })
    }
}

/// Why one form of a report is not where it should be.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The place did not take it.
    #[error("the report could not be written to {}: {source}", path.display())]
    Write {
        /// As given.
        path: PathBuf,
        /// What refused.
        source: WriteError,
    },
    /// It can't be said in this form.
    #[error("the report for {} could not be made: {why}", path.display())]
    Render {
        /// As given.
        path: PathBuf,
        /// What the renderer said.
        why: String,
    },
}

impl OutputError {
    /// True if a signal ended the writing.
    pub fn is_signal(&self) -> bool {
        matches!(self, Self::Write { source, .. } if source.is_signal())
    }
}

/// Whose verdict a report holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// The run's that ends here: an output that is lost is a part of it.
    ThisRun,
    /// A stored one's, which stays as it is.
    Stored,
}

/// Writes a report to all its places, whichever of them fail, and says at once which do. Of a run
/// that ends here what failed goes into the verdict, and files that had been written before are
/// written again with it; what went into a pipe is gone. So files come first, then pipes and
/// devices, and stdout last.
pub fn write_all(report: &mut Report, out: &[Output], of: Of) -> Vec<OutputError> {
    let mut order: Vec<(Place, &Output)> =
        out.iter().map(|out| (files::place(&out.path), out)).collect();
    order.sort_by_key(|(kind, _)| *kind);
    let mut errors = Vec::new();
    // Files, and how many of the errors they hold.
    let mut written = Vec::new();
    for (kind, out) in order {
        match write(report, out) {
            Ok(()) if kind == Place::File => written.push((out, errors.len())),
            Ok(()) => {}
            Err(error) => take(report, of, error, &mut errors),
        }
        warn_of_rows_missing(report, out);
    }
    while let Some(at) = written.iter().position(|(_, known)| *known < errors.len())
        && of == Of::ThisRun
    {
        let (out, _) = written.swap_remove(at);
        match write(report, out) {
            Ok(()) => written.push((out, errors.len())),
            Err(error) => take(report, of, error, &mut errors),
        }
    }
    errors
}

/// An error is said, kept and, of a run that ends here, judged.
fn take(report: &mut Report, of: Of, error: OutputError, errors: &mut Vec<OutputError>) {
    let reason = one_line(&error.to_string());
    stampede_output::say(&format!("error: {reason}"));
    errors.push(error);
    if of == Of::Stored {
        return;
    }
    let verdict = &mut report.verdict;
    if verdict.result == Outcome::Pass {
        // It is why the run is no pass.
        verdict.result = Outcome::Fail;
        verdict.reasons.insert(0, reason);
    } else {
        verdict.reasons.push(reason);
    }
}

fn write(report: &Report, out: &Output) -> Result<(), OutputError> {
    let path = || out.path.clone();
    let text = render(report, out.kind).map_err(|why| OutputError::Render { path: path(), why })?;
    files::write(&out.path, text.into_bytes())
        .map_err(|source| OutputError::Write { path: path(), source })
}

fn warn_of_rows_missing(report: &Report, out: &Output) {
    if out.kind == OutputKind::Csv && (report.all_streams.len() as u64) < report.streams_total {
        tracing::warn!(
            "{} holds {} of {} streams, the worst among them: no more are kept",
            out.path.display(),
            report.all_streams.len(),
            report.streams_total
        );
    }
}

/// True if one of these goes to stdout, which then is for nothing else.
pub fn take_stdout(out: &[Output]) -> bool {
    out.iter().any(|out| files::place(&out.path) == Place::Stdout)
}

/// A report as text.
///
/// # Errors
/// Why it can't be rendered.
pub fn render(report: &Report, kind: OutputKind) -> Result<String, String> {
    match kind {
        OutputKind::Json => {
            let text = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
            Ok(text + "\n")
        }
        OutputKind::Html => html::render(report),
        OutputKind::Csv => csv::render(&report.all_streams),
        OutputKind::Markdown => Ok(markdown::render(report)),
        OutputKind::Junit => junit::render(report),
    }
}

/// `video`, `audio` and whether it passed: the first line of every form.
pub(super) fn headline(report: &Report) -> String {
    use super::show::group;
    let mut line = report.join.balance();
    if let Some(PacketCounters { unrecovered, expected, .. }) = report.packets() {
        line += &format!(", {} of {} packets lost for good", group(unrecovered), group(expected));
    }
    line
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::types::{CohortFigures, FaultRow, ThresholdRow};
    use stampede_counters::RecoveryCounters;

    #[test]
    fn counts_of_any_size_are_merged_compared_and_shown() {
        let one = crate::testing::largest();
        let mut two = one.clone();
        two.run.id = "second".to_owned();
        let merged = crate::merge::merge(&[one.clone(), two]).unwrap();
        assert_eq!(merged.packets().unwrap().expected, u64::MAX);
        assert_eq!(merged.join.counted.requested, u64::MAX);
        assert!(merged.series.iter().all(|row| row.media.missing == u64::MAX));
        for (_, kind) in OUTPUT_KINDS {
            for report in [&one, &merged] {
                assert!(!render(report, kind).unwrap().is_empty());
            }
        }
        assert!(crate::compare::compare(&one, &merged, &[], false).is_ok());
    }

    /// A small report of a real run, with hostile names put into it.
    pub(crate) fn hostile() -> Report {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/report.json");
        let mut report = crate::read(file.as_ref()).unwrap();
        let evil = "</script><script>alert(1)</script>\"'&,\n\u{1}|`";
        report.verdict.reasons.push(evil.to_owned());
        report.run.id = evil.to_owned();
        report.join.errors.insert(evil.to_owned(), 3);
        if let Some(options) = &mut report.run.options {
            options.room = evil.to_owned();
        }
        for row in report.streams.iter_mut().chain(&mut report.all_streams) {
            row.identity = evil.to_owned();
            row.room = Some(evil.to_owned());
        }
        report.cohorts = vec![CohortFigures {
            name: evil.to_owned(),
            impair: Some(evil.to_owned()),
            feedback: evil.to_owned(),
            subscribers: 4,
            video: report.video.clone(),
            audio: report.audio.clone(),
        }];
        report.recoveries.resume.counted =
            RecoveryCounters { tries: 9, recovered: 7, failed: 2, unfinished: 0 };
        let fault = FaultRow { hit: 5, recovered: 4, failed: 1, ..FaultRow::default() };
        report.faults = vec![FaultRow { fault: evil.to_owned(), ..fault }];
        report.thresholds = vec![
            ThresholdRow {
                expr: "video.loss_rate<1%".to_owned(),
                value: Some(0.02),
                ok: false,
                aborted: false,
            },
            ThresholdRow {
                expr: "audio.latency_ms.p95<250".to_owned(),
                value: None,
                ok: false,
                aborted: false,
            },
            ThresholdRow {
                expr: "join.failed==0".to_owned(),
                value: Some(0.0),
                ok: true,
                aborted: false,
            },
        ];
        report
    }

    #[test]
    fn outputs_have_a_kind_and_a_file() {
        let output = Output { kind: OutputKind::Json, path: "a=b.json".into() };
        assert_eq!("json=a=b.json".parse(), Ok(output));
        for text in ["html=x", "csv=x", "markdown=x", "junit=x"] {
            assert_eq!(text.parse::<Output>().unwrap().to_string(), text);
        }
        for (text, why) in [
            ("xml=x", "unknown kind"),
            ("report.json", "kind is missing"),
            ("json=", "file name is missing"),
        ] {
            let error = text.parse::<Output>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
