//! JUnit XML, as CI systems show it: one test case for the verdict, one for each threshold.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Property, Report as Junit, TestCase, TestCaseStatus, TestSuite};

use stampede_counters::{Counters, JoinCounters, RecoveryCounters};

use super::headline;
use crate::types::{Outcome, Report, ThresholdRow};
use crate::watch_words;

/// A report as XML.
///
/// # Errors
/// Why it can't be written.
pub(super) fn render(report: &Report) -> Result<String, String> {
    let interrupted = report.verdict.result == Outcome::Interrupted;
    let time = duration(report);
    let mut suite = TestSuite::new(printable(&format!("stampede {}", report.run.id)));
    // JUnit's dates have no zone.
    let started_at = printable(report.run.started_at.trim_end_matches('Z'));
    suite.extra.insert("timestamp".into(), started_at.into());
    suite.set_time(time);
    suite.add_properties(properties(report));
    suite.add_test_case(verdict(report));
    suite.add_test_cases(report.thresholds.iter().map(|row| threshold(row, interrupted)));
    let mut junit = Junit::new("stampede");
    junit.set_time(time);
    junit.add_test_suite(suite);
    junit.to_string().map_err(|error| error.to_string())
}

/// Zero if the report, which may be a stranger's, has no sensible one.
fn duration(report: &Report) -> Duration {
    Duration::try_from_secs_f64(report.run.duration_s).unwrap_or_default()
}

/// A verdict that passed has no message, so the books, the ways back and watch time are properties.
fn properties(report: &Report) -> Vec<Property> {
    let property = |name: String, value: f64| Property::new(name, value.to_string());
    let joins = JoinCounters::table().iter().zip(report.join.counted.list());
    let joins = joins.filter_map(|(counter, value)| Some((&counter.key, value.number()?)));
    let mut properties: Vec<_> =
        joins.map(|(name, value)| property(format!("join.{name}"), value)).collect();
    for (key, _, way) in report.recoveries.tried() {
        let counted = RecoveryCounters::table().iter().zip(way.counted.list());
        let counted =
            counted.filter_map(|(counter, value)| Some((counter.key.clone(), value.number()?)));
        let times = way.ms.iter().flat_map(|ms| [("ms.p50", ms.p50), ("ms.p99", ms.p99)]);
        let times = times.map(|(name, value)| (name.to_owned(), value));
        let values = counted.chain(times);
        properties.extend(
            values.map(|(name, value)| property(format!("recoveries.{key}.{name}"), value)),
        );
    }
    for (kind, watch) in watch_words::kinds(report) {
        let gaps = &watch.interruptions;
        let values = [
            ("watch_ratio", watch.watch_ratio),
            ("expected_s", watch.expected_s),
            ("played_s", watch.played_s),
            ("interruptions.count", Some(gaps.count as f64)),
            ("interruptions.subscribers", Some(gaps.subscribers as f64)),
            ("interruptions.total_s", Some(gaps.total_s)),
        ];
        let known = values.into_iter().filter_map(|(name, value)| Some((name, value?)));
        properties.extend(known.map(|(name, value)| property(format!("{kind}.{name}"), value)));
    }
    properties
}

fn verdict(report: &Report) -> TestCase {
    let verdict = &report.verdict;
    let status = match verdict.result {
        Outcome::Pass => None,
        Outcome::Fail => Some(NonSuccessKind::Failure),
        Outcome::Invalid | Outcome::Interrupted => Some(NonSuccessKind::Error),
    };
    let status = status.map_or_else(TestCaseStatus::success, |kind| {
        let mut status = TestCaseStatus::non_success(kind);
        status.set_type(format!("{:?}", verdict.fault).to_lowercase());
        status.set_message(printable(&format!("{}: {}", verdict.result.word(), headline(report))));
        status.set_description(printable(&verdict.reasons.join("\n")));
        status
    });
    let mut case = TestCase::new("verdict", status);
    case.set_classname("stampede").set_time(duration(report));
    case
}

/// What an interrupted run kept, it kept for the part of it that was run: no test that passed.
fn threshold(row: &ThresholdRow, interrupted: bool) -> TestCase {
    let mut status = match (row.ok, interrupted) {
        (true, false) => TestCaseStatus::success(),
        (true, true) => TestCaseStatus::skipped(),
        (false, _) => TestCaseStatus::non_success(NonSuccessKind::Failure),
    };
    if row.ok {
        status.set_message(printable(&format!("interrupted; until then {}", row.value_text())));
    } else {
        status.set_message(printable(&row.value_text())).set_type("threshold");
    }
    let mut case = TestCase::new(printable(&row.expr), status);
    case.set_classname("stampede.threshold");
    case
}

/// What XML 1.0 can't hold becomes U+FFFD, and with it all that quick-junit would take for the
/// beginning of a terminal's escape sequence, and swallow together with what follows.
fn printable(text: &str) -> String {
    let strange = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{fffe}' | '\u{ffff}');
    text.chars().map(|c| if strange(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::hostile;
    use super::*;

    #[test]
    fn every_threshold_is_a_test_case_and_the_verdict_too() {
        let mut report = hostile();
        report.verdict.result = Outcome::Fail;
        let text = render(&report).unwrap();
        assert_eq!(text.matches("<testcase ").count(), 4);
        for counted in ["tests=\"4\"", "failures=\"3\"", "errors=\"0\"", "skipped=\"0\""] {
            assert_eq!(text.matches(counted).count(), 2, "{counted}: {text}");
        }
        assert!(text.contains("<property name=\"join.pending\" value=\"0\"/>"), "{text}");
        assert!(
            text.contains("<property name=\"recoveries.resume.failed\" value=\"2\"/>"),
            "{text}"
        );
        assert!(!text.contains("recoveries.moved."), "nobody was moved: {text}");
        assert!(text.contains("name=\"video.loss_rate&lt;1%\""), "{text}");
        assert!(text.contains("message=\"2.00 %\"") && text.contains("message=\"no value\""));
        let kept = "name=\"join.failed==0\" classname=\"stampede.threshold\"/>";
        assert!(text.contains(kept), "{text}");
        let fixture = ["timestamp=\"2", "time=\"", "type=\"threshold\"", "classname=\"stampede\""];
        assert!(fixture.iter().all(|part| text.contains(part)), "{text}");
        assert!(!text.contains("<script") && !text.contains('\u{1}'), "{text}");
        report.verdict.result = Outcome::Invalid;
        assert!(render(&report).unwrap().contains("errors=\"1\""));
        report.verdict.result = Outcome::Interrupted;
        let text = render(&report).unwrap();
        for counted in ["failures=\"2\"", "errors=\"1\"", "skipped=\"1\""] {
            assert_eq!(text.matches(counted).count(), 2, "{counted}: {text}");
        }
        assert!(text.contains("<error ") && text.contains("message=\"INTERRUPTED: "), "{text}");
        assert!(!text.contains(kept), "{text}");
        report.verdict.result = Outcome::Pass;
        report.run.duration_s = f64::NAN;
        let passed = "name=\"verdict\" classname=\"stampede\" time=\"0.000\"/>";
        let text = render(&report).unwrap();
        assert!(text.contains(passed), "{text}");
    }

    #[test]
    fn nothing_that_somebody_named_is_swallowed_or_breaks_the_xml() {
        let mut report = hostile();
        report.verdict.result = Outcome::Fail;
        report.verdict.reasons = vec!["a\u{1b}Pb\u{9b}31mc\u{ffff}".to_owned(), "d".to_owned()];
        let text = render(&report).unwrap();
        assert!(text.contains(">a\u{fffd}Pb\u{fffd}31mc\u{fffd}\nd</failure>"), "{text}");
    }
}
