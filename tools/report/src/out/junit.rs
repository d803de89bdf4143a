//! JUnit XML, as CI systems show it: one test case for the verdict, one for each threshold.
//!
//! Written by hand: three elements need no crate, and the ones there are bring dates and UUIDs.

use std::fmt::Write as _;

use super::headline;
use crate::types::{Outcome, Report, ThresholdRow};
use crate::watch_words;

/// A report as XML.
pub(super) fn render(report: &Report) -> String {
    let failed_verdict = u64::from(report.verdict.result == Outcome::Fail);
    let interrupted = report.verdict.result == Outcome::Interrupted;
    let errors = u64::from(interrupted || report.verdict.result == Outcome::Invalid);
    // What an interrupted run kept, it kept for the part of it that was run: not a test that passed.
    let skipped = report.thresholds.iter().filter(|row| row.ok && interrupted).count();
    let failed = report.thresholds.iter().filter(|row| !row.ok).count() as u64;
    let tests = 1 + report.thresholds.len();
    let time = report.run.duration_s;
    let counts = format!(
        "tests=\"{tests}\" failures=\"{}\" errors=\"{errors}\" skipped=\"{skipped}\" \
         time=\"{time:.3}\"",
        failed + failed_verdict
    );
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"stampede\" {counts}>\n  \
         <testsuite name=\"stampede {}\" timestamp=\"{}\" {counts}>\n",
        escaped(&report.run.id),
        escaped(report.run.started_at.trim_end_matches('Z'))
    );
    properties(&mut text, report);
    verdict(&mut text, report);
    for row in &report.thresholds {
        threshold(&mut text, row, interrupted);
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

/// A verdict that passed has no message, so the books and watch time are properties.
fn properties(text: &mut String, report: &Report) {
    text.push_str("    <properties>\n");
    let mut property = |name: &str, value: f64| {
        let _ = writeln!(text, "      <property name=\"{name}\" value=\"{value}\"/>");
    };
    let join = &report.join;
    for (name, value) in [
        ("requested", join.requested),
        ("joined", join.joined),
        ("failed", join.failed),
        ("pending", join.pending),
        ("not_started", join.not_started),
        ("dropped", join.dropped),
    ] {
        property(&format!("join.{name}"), value as f64);
    }
    for (kind, watch) in watch_words::kinds(report) {
        let gaps = &watch.interruptions;
        for (name, value) in [
            ("watch_ratio", watch.watch_ratio),
            ("expected_s", watch.expected_s),
            ("played_s", watch.played_s),
            ("interruptions.count", Some(gaps.count as f64)),
            ("interruptions.subscribers", Some(gaps.subscribers as f64)),
            ("interruptions.total_s", Some(gaps.total_s)),
        ] {
            if let Some(value) = value {
                property(&format!("{kind}.{name}"), value);
            }
        }
    }
    text.push_str("    </properties>\n");
}

fn verdict(text: &mut String, report: &Report) {
    let _ = write!(
        text,
        "    <testcase classname=\"stampede\" name=\"verdict\" time=\"{:.3}\"",
        report.run.duration_s
    );
    let element = match report.verdict.result {
        Outcome::Pass => {
            let _ = writeln!(text, "/>");
            return;
        }
        Outcome::Fail => "failure",
        Outcome::Invalid | Outcome::Interrupted => "error",
    };
    let fault = format!("{:?}", report.verdict.fault).to_lowercase();
    let _ = writeln!(
        text,
        ">\n      <{element} type=\"{fault}\" message=\"{}\">{}</{element}>\n    </testcase>",
        escaped(&format!("{}: {}", report.verdict.result.word(), headline(report))),
        escaped(&report.verdict.reasons.join("\n"))
    );
}

fn threshold(text: &mut String, row: &ThresholdRow, interrupted: bool) {
    let name = escaped(&row.expr);
    let _ = write!(text, "    <testcase classname=\"stampede.threshold\" name=\"{name}\"");
    if row.ok && interrupted {
        let said = escaped(&format!("interrupted; until then {}", row.value_text()));
        let _ = writeln!(text, ">\n      <skipped message=\"{said}\"/>\n    </testcase>");
        return;
    }
    if row.ok {
        let _ = writeln!(text, "/>");
        return;
    }
    let _ = writeln!(
        text,
        ">\n      <failure type=\"threshold\" message=\"{}\"/>\n    </testcase>",
        escaped(&row.value_text())
    );
}

/// For text and attributes. Characters that XML 1.0 can't hold at all become U+FFFD.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' => safe.push_str("&#10;"),
            '\t' | '\r' => safe.push(' '),
            '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            c if c < ' ' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::super::tests::hostile;
    use super::*;

    #[test]
    fn every_threshold_is_a_test_case_and_the_verdict_too() {
        let mut report = hostile();
        report.verdict.result = Outcome::Fail;
        let text = render(&report);
        assert_eq!(text.matches("<testcase ").count(), 4);
        assert!(text.contains("tests=\"4\" failures=\"3\" errors=\"0\""), "{text}");
        assert!(text.contains("<property name=\"join.pending\" value=\"0\"/>"), "{text}");
        assert!(text.contains("name=\"video.loss_rate&lt;1%\""), "{text}");
        assert!(text.contains("message=\"2.00 %\"") && text.contains("message=\"no value\""));
        assert!(text.contains("name=\"join.failed==0\"/>"), "kept: {text}");
        assert!(!text.contains("<script") && !text.contains('\u{1}'), "{text}");
        report.verdict.result = Outcome::Invalid;
        assert!(render(&report).contains("errors=\"1\""));
        report.verdict.result = Outcome::Interrupted;
        let text = render(&report);
        assert!(text.contains("failures=\"2\" errors=\"1\" skipped=\"1\""), "{text}");
        assert!(text.contains("<error ") && text.contains("message=\"INTERRUPTED: "), "{text}");
        assert!(!text.contains("name=\"join.failed==0\"/>"), "{text}");
        report.verdict.result = Outcome::Pass;
        assert!(render(&report).contains("name=\"verdict\" time=\""));
    }
}
