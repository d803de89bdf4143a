//! Reports and figures made up for tests.

#![allow(clippy::expect_used)]

use std::time::{Duration, Instant};

use serde_json::Value;
use stampede_core::watch::{Cause, Interruption, Tally};

use crate::types::Report;
use crate::watch::{WatchFigures, WatchSums};

/// A small report of a real run.
pub fn report() -> Report {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/report.json");
    crate::read(file.as_ref()).expect("the report beside the code")
}

/// The same with every count as large as a file can hold it.
pub fn largest() -> Report {
    fn fill(value: &mut Value) {
        match value {
            Value::Number(number) if number.is_u64() => *value = u64::MAX.into(),
            Value::Array(rows) => rows.iter_mut().for_each(fill),
            Value::Object(fields) => {
                // Those are numbers of things, and narrower.
                let counts = fields
                    .iter_mut()
                    .filter(|(key, _)| !["run", "core", "ssrc", "layer"].contains(&key.as_str()));
                counts.for_each(|(_, value)| fill(value));
            }
            _ => {}
        }
    }
    let mut value = serde_json::to_value(report()).expect("a report is JSON");
    fill(&mut value);
    serde_json::from_value(value).expect("it is a report still")
}

/// Of subscribers with one track each: how long it was expected, and then silent, in seconds.
pub fn watched(subscribers: &[(u64, u64)]) -> WatchFigures {
    let mut sums = WatchSums::default();
    for (number, (expected_s, silent_s)) in subscribers.iter().enumerate() {
        let mut tally = Tally {
            expected: Duration::from_secs(*expected_s),
            played: Duration::from_secs(expected_s - silent_s),
            ..Tally::default()
        };
        if *silent_s > 0 {
            let from = Instant::now();
            let until = from + Duration::from_secs(*silent_s);
            let (cause, reason) = (Cause::Silent, None);
            tally.interruptions.push(Interruption { from, until, cause, reason, back: true });
        }
        sums.add(number, &tally);
    }
    sums.figures()
}
