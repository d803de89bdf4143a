//! The forms in which a report goes out.

mod csv;
mod html;
mod junit;
mod markdown;
mod plot;

use super::types::Report;
use crate::exit::Failure;
use crate::flags::values::{Output, OutputKind};

/// Writes a report into all its files, whichever of them fail.
///
/// # Errors
/// What the system said about the first that failed; the others' errors are logged.
pub(crate) fn write_all(report: &Report, out: &[Output]) -> Result<(), Failure> {
    let mut first = Ok(());
    for failure in out.iter().filter_map(|out| write(report, out).err()) {
        if first.is_ok() {
            first = Err(failure);
        } else {
            tracing::error!("{failure}");
        }
    }
    first
}

/// Writes a report into a file.
///
/// # Errors
/// What the system said about the file.
fn write(report: &Report, out: &Output) -> Result<(), Failure> {
    let failed = |why: String| {
        let path = out.path.display();
        Failure::other(format!("the report could not be written to {path}: {why}"))
    };
    let text = render(report, out.kind).map_err(failed)?;
    std::fs::write(&out.path, text).map_err(|error| failed(error.to_string()))?;
    if out.kind == OutputKind::Csv && (report.all_streams.len() as u64) < report.streams_total {
        tracing::warn!(
            "{} holds the worst {} of {} streams: a JSON report has no more",
            out.path.display(),
            report.all_streams.len(),
            report.streams_total
        );
    }
    Ok(())
}

/// A report as text.
///
/// # Errors
/// Why it can't be rendered.
fn render(report: &Report, kind: OutputKind) -> Result<String, String> {
    match kind {
        OutputKind::Json => {
            let text = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
            Ok(text + "\n")
        }
        OutputKind::Html => html::render(report),
        OutputKind::Csv => csv::render(&report.all_streams),
        OutputKind::Markdown => Ok(markdown::render(report)),
        OutputKind::Junit => Ok(junit::render(report)),
    }
}

/// `video`, `audio` and whether it passed: the first line of every form.
pub(super) fn headline(report: &Report) -> String {
    use super::judge::group;
    let mut line = report.join.balance();
    let media = || report.video.iter().chain(&report.audio);
    if media().next().is_some() {
        let lost: u64 = media().map(|section| section.packets.unrecovered).sum();
        let expected: u64 = media().map(|section| section.packets.expected).sum();
        line += &format!(", {} of {} packets lost for good", group(lost), group(expected));
    }
    line
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::report::cohorts::CohortFigures;
    use crate::report::types::ThresholdRow;

    /// A small report of a real run, with hostile names put into it.
    pub(crate) fn hostile() -> Report {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/report.json");
        let mut report = crate::report::read(file.as_ref()).unwrap();
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
            subscribers: 4,
            video: report.video.clone(),
            audio: report.audio.clone(),
        }];
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
}
