//! A counter that is declared is in every output: a table of a test's own goes through all of them.

#![allow(unreachable_pub, reason = "declarations are public wherever they stand")]

use schemars::{JsonSchema, schema_for};
use serde::Serialize;
use serde_json::to_value;
use stampede_counters::{Columns, Counters, Grown, Seconds, counters, markdown};
use stampede_report::keys::Keys;
use stampede_report::out::csv;
use stampede_report::threshold::{Op, Threshold, crossed};

use super::*;

counters! {
    /// A table of a test's own.
    pub struct Tested: Stream {
        /// Packets that hesitated; nobody knows why.
        hesitated: u64 = Packets, Lower;
        /// How long they did together.
        hesitating_s: Seconds = Seconds, Lower, column "hesitations_s";
    }
}

/// As a report holds it.
#[derive(Serialize, JsonSchema)]
struct Section {
    video: Tested,
}

/// As the rows of streams do.
#[derive(Default, Serialize)]
struct Row {
    identity: &'static str,
    #[serde(flatten)]
    counters: Columns<Tested>,
}

fn tested() -> Tested {
    Tested { hesitated: 3, hesitating_s: Seconds(Duration::from_millis(1_500)) }
}

#[derive(Debug)]
struct Scrape;

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let families = families::of_table("tested_", &[("video", tested())]);
        families.iter().try_for_each(|family| encode(&mut encoder, family))
    }
}

#[test]
fn sums_differences_and_the_json_have_it() {
    let mut sum = tested();
    sum.merge(&tested());
    assert_eq!((sum.hesitated, sum.hesitating_s.0), (6, Duration::from_secs(3)));
    assert_eq!(sum.since(&tested()), tested());
    let report = to_value(Section { video: sum }).unwrap();
    assert_eq!(report["video"]["hesitated"], 6);
    assert_eq!(report["video"]["hesitating_s"], 3.0);
}

#[test]
fn thresholds_can_use_it_and_end_a_run_by_it() {
    let keys = Keys::of(schema_for!(Section).as_value());
    let running = to_value(Section { video: tested() }).unwrap();
    for (key, value) in [("video.hesitated", 3.0), ("video.hesitating_s", 1.5)] {
        assert_eq!(keys.check(key), Ok(()));
        let threshold = Threshold {
            expr: format!("{key}<1"),
            key: key.to_owned(),
            op: Op::Less,
            limit: 1.0,
            abort_after: Some(Duration::ZERO),
        };
        let crossed = crossed(std::slice::from_ref(&threshold), &running, Duration::ZERO);
        assert_eq!(crossed, Some((&threshold, value)));
    }
}

#[test]
fn columns_seconds_metrics_and_the_manual_have_it() {
    let rows = [Row { identity: "sub", counters: Columns(tested()) }];
    let expected = "identity,hesitated,hesitations_s\r\nsub,3,1.5\r\n";
    assert_eq!(csv::text(&rows).unwrap(), expected);

    let second = to_value(Grown::of(&tested())).unwrap();
    assert_eq!(second, serde_json::json!({"hesitated": 3, "hesitating_s": 1.5}));

    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape));
    let mut scrape = String::new();
    text::encode(&mut scrape, &registry).unwrap();
    for line in [
        "# HELP stampede_tested_hesitated Packets that hesitated",
        "stampede_tested_hesitated_total{kind=\"video\"} 3.0",
        "stampede_tested_hesitating_seconds_total{kind=\"video\"} 1.5",
    ] {
        assert!(scrape.lines().any(|found| found.starts_with(line)), "{line} in\n{scrape}");
    }

    let manual = markdown(Tested::table(), |one| Some(one.column.clone()), |_| None);
    let row = "| `hesitated` | packets | lower | stream | `hesitated` |  | Packets that hesitated; \
               nobody knows why. |";
    assert!(manual.lines().any(|line| line == row), "{manual}");
}
