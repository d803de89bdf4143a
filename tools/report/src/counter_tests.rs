//! Every counter is in every output. That a new one gets there is shown where Prometheus is, with a
//! table of its own (tools/stampede/src/metrics).

use std::time::Duration;

use serde_json::to_value;
use stampede_counters::{
    Columns, Counter, Counters, Grown, MediaCounters, ReportCounters, RunCounters, Scope, Unit,
    Value, markdown,
};

use crate::keys::{self, Keys};
use crate::types::{
    ImpairmentSection, PendingAt, PublishSection, RecordingSection, Report, SeriesRow,
};
use crate::{out, running, testing};

/// In which each counter is 1, or a second.
fn ones<T: Counters>() -> T {
    let mut table = T::table().iter();
    let mut ones = T::default();
    ones.set(&mut || {
        Some(match table.next()?.unit {
            Unit::Seconds => Value::Time(Duration::from_secs(1)),
            _ => Value::Count(1),
        })
    });
    ones
}

/// In which every section is there.
fn report() -> Report {
    let mut report = testing::report();
    report.publish.get_or_insert_with(PublishSection::default);
    report.recordings.get_or_insert_with(RecordingSection::default);
    report.impairment.get_or_insert_with(ImpairmentSection::default);
    report.join.pending_at.get_or_insert_with(PendingAt::default);
    report
}

fn no_freezes_of_audio(counter: &&Counter) -> bool {
    !counter.key.starts_with("audio.freezes.")
}

#[test]
fn every_counter_is_in_the_report_its_schema_and_the_keys_of_thresholds() {
    let table = ReportCounters::table();
    assert!(table.len() > 150, "only {}", table.len());
    let (report, keys) = (to_value(report()).unwrap(), Keys::of_schema());
    assert!(!report["server"]["embedded"]["measured"].is_null(), "the fixture has an SFU");
    for counter in table {
        assert_eq!(keys.check(&counter.key), Ok(()));
        let there = keys::has(&report, &counter.key) || !no_freezes_of_audio(&counter);
        assert!(there, "{} is not in the report", counter.key);
        assert!(!counter.help.is_empty() && !counter.short_help().is_empty(), "{counter:?}");
    }
}

#[test]
fn every_counter_of_a_run_ends_one_and_has_its_seconds() {
    let counted: RunCounters = ones();
    let figures = running::figures(&Default::default(), &Default::default(), &counted);
    let row = SeriesRow { counters: Grown::of(&counted), ..SeriesRow::default() };
    let row = to_value(row).unwrap();
    for counter in RunCounters::table().iter().filter(no_freezes_of_audio) {
        assert_eq!(keys::value(&figures, &counter.key), Some(1.0), "{}", counter.key);
        let grew = row["counters"][&counter.key].as_f64();
        assert_eq!(grew, counter.sum.then_some(1.0), "{}", counter.key);
    }
    for expr in [
        "video.packets.cut_off",
        "generator.uncategorised.streams_left_out",
        "generator.uncategorised.snapshots_dropped",
        "impairment.dropped",
    ] {
        let test = format!("{expr}<1 abort").parse::<crate::threshold::Thresholds>().unwrap().0;
        assert!(crate::threshold::crossed(&test, &figures, Duration::ZERO).is_some(), "{expr}");
    }
    let again: SeriesRow = serde_json::from_value(row).unwrap();
    assert_eq!(again.counters, Grown::of(&counted));
}

#[test]
fn every_counter_of_a_stream_has_a_column() {
    let mut report = report();
    report.all_streams.truncate(1);
    report.all_streams[0].counters = Columns(ones());
    report.all_streams[0].counters.streams = Default::default();
    let text = out::csv::text(&report.all_streams).unwrap();
    let (header, row) = text.trim_end().split_once("\r\n").unwrap();
    let names: Vec<&str> = header.split(',').collect();
    let cells: Vec<&str> = row.split(',').collect();
    assert_eq!(names.len(), cells.len());
    for counter in MediaCounters::table().iter().filter(|one| one.scope == Scope::Stream) {
        let at = names.iter().position(|name| *name == counter.column).expect(&counter.column);
        assert!(matches!(cells[at], "1" | "1.0"), "{}", counter.column);
    }
    let read = to_value(&report.all_streams[0]).unwrap();
    let read: crate::types::StreamRow = serde_json::from_value(read).unwrap();
    assert_eq!(read, report.all_streams[0]);
}

/// `STAMPEDE_BLESS=1` writes the table anew.
#[test]
fn the_manual_has_the_table_of_all_counters() {
    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reports.md");
    const BEGIN: &str = "<!-- The table of counters is generated; see its test. -->\n";
    const END: &str = "<!-- The end of the table of counters. -->\n";
    // Said in a sentence before the table.
    let same = |counter: &&Counter| {
        !counter.key.starts_with("audio.") && !counter.key.starts_with("server.embedded.totals.")
    };
    let table: Vec<Counter> = ReportCounters::table().iter().filter(same).cloned().collect();
    let column = |counter: &Counter| {
        let key = counter.key.strip_prefix("video.")?;
        let row = MediaCounters::table().iter().find(|row| row.key == key)?;
        (row.scope == Scope::Stream).then(|| row.column.clone())
    };
    let metric = |counter: &Counter| {
        let row = RunCounters::table().iter().find(|row| row.key == counter.key)?;
        Some(format!("stampede_{}", row.metric))
    };
    let expected = format!("\n{}\n", markdown(&table, column, metric));
    let text = std::fs::read_to_string(FILE).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("docs/reports.md has a place for the table");
    let (found, after) = rest.split_once(END).expect("the table ends");
    if std::env::var_os("STAMPEDE_BLESS").is_some() {
        std::fs::write(FILE, [before, BEGIN, &expected, END, after].concat()).unwrap();
        return;
    }
    assert!(
        found == expected,
        "the table of counters in docs/reports.md is stale; write it anew with STAMPEDE_BLESS=1 \
         cargo test -p stampede-report the_manual_has"
    );
}
