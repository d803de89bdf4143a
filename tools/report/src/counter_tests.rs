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
    DataSection, ImpairmentSection, JoinPaths, PendingAt, PublishSection, RecordingSection, Report,
    RpcSection, SeriesRow,
};
use crate::{out, running, testing};

/// Counters without seconds in the series, though they are known then.
const NO_SECONDS: [(&str, &str); 2] = [
    ("join.", "the run counts joins, not its workers; a row has how many are connected"),
    ("recoveries.", "the run counts them, not its workers"),
];

/// Counters of streams without a column in the CSV.
const NO_COLUMN: [(&str, &str); 1] =
    [("recordings.", "files are of tracks, whatever streams those had")];

/// Declared groups that are in lists, and so have no key, and where those are.
const IN_LISTS: [(&str, &str); 3] = [
    ("SfuWorkerCounters", "server.embedded.workers"),
    ("PublishedCounters", "server.embedded.rooms"),
    ("SecondCounters", "series"),
];

fn why(list: &[(&str, &'static str)], counter: &Counter) -> Option<&'static str> {
    list.iter().find(|(keys, _)| counter.key.starts_with(keys)).map(|(_, why)| *why)
}

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
    report.data.get_or_insert_with(DataSection::default);
    report.rpc.get_or_insert_with(RpcSection::default);
    report.recordings.get_or_insert_with(RecordingSection::default);
    report.impairment.get_or_insert_with(ImpairmentSection::default);
    report.join.pending_at.get_or_insert_with(PendingAt::default);
    report.join.paths.get_or_insert_with(JoinPaths::default);
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

/// The counter's column in the CSV of streams.
fn column(counter: &Counter) -> Option<String> {
    let key = ["video.", "audio."].iter().find_map(|kind| counter.key.strip_prefix(kind))?;
    let row = MediaCounters::table().iter().find(|row| row.key == key)?;
    (row.scope == Scope::Stream).then(|| row.column.clone())
}

#[test]
fn a_counter_that_is_not_in_an_output_has_a_reason_why_not() {
    let running = running::shape();
    let seconds = |key: &str| RunCounters::table().iter().any(|counter| counter.key == key);
    for counter in ReportCounters::table().iter().filter(no_freezes_of_audio) {
        let key = &counter.key;
        let late = running::at_the_end(key).is_some();
        assert_ne!(keys::has(&running, key), late, "abort and Prometheus: {key}");
        let none = late || why(&NO_SECONDS, counter).is_some();
        assert_ne!(seconds(key), none, "series: {key}");
        if counter.scope == Scope::Stream {
            let none = why(&NO_COLUMN, counter).is_some();
            assert_ne!(column(counter).is_some(), none, "CSV: {key}");
        }
    }
    for (keys, _) in running::AT_THE_END.iter().chain(&NO_SECONDS).chain(&NO_COLUMN) {
        let any = ReportCounters::table().iter().any(|counter| counter.key.starts_with(keys));
        assert!(any, "there is no counter {keys}");
    }
}

#[test]
fn every_group_that_is_declared_is_in_the_report() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../engine/counters/src");
    let mut declared = Vec::new();
    for file in std::fs::read_dir(dir).unwrap() {
        let file = file.unwrap().path();
        if file.ends_with("tests.rs") || file.ends_with("declare.rs") {
            continue;
        }
        let text = std::fs::read_to_string(file).unwrap();
        // Those that hold nothing but groups have no counter of their own.
        let bodies = text.split("\ncounters! {").skip(1).map(|rest| rest.split_once("\n}\n"));
        let own = bodies.map(|body| body.unwrap().0).filter(|body| body.contains(" = "));
        let name = |body: &str| {
            body.split_once("pub struct ").unwrap().1.split_once(':').unwrap().0.to_owned()
        };
        declared.extend(own.map(name));
    }
    assert!(declared.len() > 20, "{declared:?}");
    let listed = |group: &str| IN_LISTS.iter().any(|(name, _)| *name == group);
    for group in &declared {
        let there = ReportCounters::table().iter().any(|counter| counter.group == group);
        assert_ne!(there, listed(group), "{group}");
    }
    for (group, _) in IN_LISTS {
        assert!(declared.iter().any(|name| name == group), "{group} is not declared");
    }
}

#[test]
fn every_counter_of_a_run_ends_one_and_has_its_seconds() {
    let counted: RunCounters = ones();
    let figures =
        running::figures(&Default::default(), &Default::default(), &Default::default(), &counted);
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
    let metric = |counter: &Counter| {
        let told = running::at_the_end(&counter.key).is_none();
        told.then(|| format!("stampede_{}", counter.metric))
    };
    let lists = [
        ("told while a run goes on (`abort`, Prometheus, `series`)", &running::AT_THE_END[..]),
        ("in `series`", &NO_SECONDS),
        ("in the CSV", &NO_COLUMN),
    ];
    let mut without = "| Keys | not | because |\n|---|---|---|\n".to_owned();
    for (what, list) in lists {
        for (keys, why) in list {
            without += &format!("| `{keys}` | {what} | {why} |\n");
        }
    }
    let expected = format!("\n{}\n{without}\n", markdown(&table, column, metric));
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
