//! Reports, as `report` and `compare` are given them.

use stampede_report::compare::compare;
use stampede_report::out::{OUTPUT_KINDS, OutputKind, render};
use stampede_report::{Failure, from_json, merge};

/// A JSON report. One that is read can be shown in every form, merged and compared, and says the same
/// when it is written and read again.
pub(crate) fn run(input: &[u8]) {
    let Ok(report) = from_json(input) else { return };
    for (name, kind) in OUTPUT_KINDS {
        render(&report, kind).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
    let json = render(&report, OutputKind::Json).unwrap();
    let again = from_json(json.as_bytes()).unwrap_or_else(|why| panic!("what was written: {why}"));
    assert_eq!(render(&again, OutputKind::Json).unwrap(), json, "it says the same");
    let (text, _) = compare(&report, &again, &[], false).unwrap();
    assert!(!text.is_empty());
    let mut other = again;
    other.run.id = format!("{}-2", report.run.id);
    let merged: Result<_, Failure> = merge::merge(&[report, other]);
    if let Ok(merged) = merged {
        for (name, kind) in OUTPUT_KINDS {
            render(&merged, kind).unwrap_or_else(|why| panic!("merged, {name}: {why}"));
        }
    }
}

/// Values that a count or a text may be.
pub(crate) const WORDS: &[&[u8]] = &[
    b"null",
    b"0",
    b"-1",
    b"1e308",
    b"18446744073709551615",
    b"0.1",
    b"\"\"",
    b"[]",
    b"{}",
    b"true",
    b"\"NaN\"",
    b"\\u0000",
];

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../report/tests/fixtures/report.json");
    vec![std::fs::read(file).unwrap()]
}
