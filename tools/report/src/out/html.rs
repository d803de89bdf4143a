//! One self-contained page: verdict first, then what led to it. No network, no script needed to
//! read it; a small one shows the figures under the pointer.
//!
//! All names and reasons in a report are hostile: the template escapes whatever it is given, and
//! only the drawings of [`super::plot`], which escape themselves, and the figures for the script,
//! which hold numbers and escaped names, are put in as they are.

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment};
use serde_json::{Map, Value, json};

use super::headline;
use super::plot::{self, LINES_MAX, Line, Plot};
use super::strips;
use crate::hist::Hist;
use crate::layers::LayersSection;
use crate::show::group;
use crate::show::shown;
use crate::types::{CohortFigures, FaultRow, RecoverySection, said};
use crate::types::{Fault, MediaSection, Outcome, Report};
use crate::unit::{self, Unit};
use crate::watch_words;
use stampede_counters::RecoveryCounters;
use stampede_units::show::{bits_per_second, share};

const TEMPLATE: &str = include_str!("report.html");

/// A report as a page.
///
/// # Errors
/// What the template engine says; a bug of ours.
pub(super) fn render(report: &Report) -> Result<String, String> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let page = page(report)?;
    environment.render_str(TEMPLATE, Serde(&page)).map_err(|error| error.to_string())
}

fn page(report: &Report) -> Result<Value, String> {
    let figures = serde_json::to_value(report).map_err(|error| error.to_string())?;
    let (plots, data, each) = plots(report)?;
    let word = report.verdict.result.word();
    let class = match report.verdict.result {
        Outcome::Pass => "pass",
        Outcome::Fail => "fail",
        Outcome::Invalid => "invalid",
        Outcome::Interrupted => "interrupted",
    };
    let fault = match report.verdict.fault {
        Fault::None => None,
        fault => Some(format!("{fault:?}").to_lowercase()),
    };
    Ok(json!({
        "word": word,
        "class": class,
        "headline": headline(report),
        "fault": fault,
        "reasons": report.verdict.reasons,
        "run": figures["run"],
        "duration": plot::clock(report.run.duration_s),
        "measured": report.run.measured_s.map(plot::clock),
        "tiles": tiles(report),
        "watch": strips::section(report, window(report), axis_end(report)),
        "thresholds": thresholds(report),
        "plots": plots,
        "seconds_a_point": each,
        "data": data,
        "media": media(report),
        "cohorts": cohorts(report),
        "recoveries": report.recoveries.tried().map(way_back).collect::<Vec<_>>(),
        "faults": report.faults.iter().map(on_purpose).collect::<Vec<_>>(),
        "phases": phases(report),
        "errors": report.join.errors.iter().map(|(kind, count)| json!([kind, group(*count)]))
            .collect::<Vec<_>>(),
        "streams": streams(report),
        "streams_total": group(report.streams_total),
        "workers": workers(report),
        "sections": sections(&figures),
        "hosts": figures["run"]["hosts"],
    }))
}

/// The figures at a glance.
fn tiles(report: &Report) -> Vec<Value> {
    let (join, pending_at) = (&report.join.counted, report.join.pending_at);
    let tile = |name: &str, value: String, note: String, bad: bool| json!({"name": name, "value": value, "note": note, "bad": bad});
    let mut tiles = vec![tile(
        "joined",
        group(join.joined),
        format!("of {}", group(join.requested)),
        join.joined < join.requested,
    )];
    for (name, count, note) in [
        ("joins failed", join.failed, format!("{} tries", group(join.tries_failed))),
        ("still joining", join.pending, pending_at.map_or(String::new(), |at| said(&at))),
        ("never started", join.not_started, String::new()),
        ("dropped out", join.dropped, format!("{} resumed", group(join.resumed))),
    ] {
        if count > 0 {
            tiles.push(tile(name, group(count), note, true));
        }
    }
    let watched = strips::tiles(report).into_iter();
    tiles.extend(watched.map(|(name, value, note, bad)| tile(&name, value, note, bad)));
    for (name, section) in [("video", &report.video), ("audio", &report.audio)] {
        let Some(section) = section else { continue };
        let packets = &section.packets;
        tiles.push(tile(
            &format!("{name} lost for good"),
            section.loss_rate.map_or("–".to_owned(), share),
            format!("{} of {} packets", group(packets.unrecovered), group(packets.expected)),
            packets.unrecovered > 0,
        ));
    }
    if let Some(video) = &report.video {
        if let Some(freezes) = &video.freezes {
            let note = format!(
                "{:.1} s on {} tracks",
                freezes.total_s.as_secs_f64(),
                group(freezes.streams)
            );
            tiles.push(tile("freezes", group(freezes.count), note, freezes.count > 0));
        }
        match (&video.latency_ms, &video.jitter_ms) {
            (Some(latency), _) => tiles.push(tile(
                "video latency p99",
                format!("{:.1} ms", latency.p99),
                format!("median {:.1} ms", latency.p50),
                false,
            )),
            (None, Some(jitter)) => tiles.push(tile(
                "video jitter p99",
                format!("{:.1} ms", jitter.p99),
                "latency is not known".to_owned(),
                false,
            )),
            (None, None) => {}
        }
    }
    let received: Option<f64> =
        report.video.iter().chain(&report.audio).map(|media| media.bitrate_bps).sum();
    if let Some(received) = received.filter(|bps| *bps > 0.0) {
        let packets = report.generator.counted.udp.datagrams_in;
        tiles.push(tile(
            "received",
            bits_per_second(received),
            format!("{} datagrams", group(packets)),
            false,
        ));
    }
    let busiest = report.generator.workers.iter().map(|worker| worker.busy_ratio).reduce(f64::max);
    if let Some(busiest) = busiest {
        let drops = report.generator.counted.udp.kernel_drops;
        tiles.push(tile(
            "busiest worker",
            format!("{:.0} %", busiest * 100.0),
            format!("{} dropped by our kernel", group(drops)),
            drops > 0,
        ));
    }
    tiles
}

fn thresholds(report: &Report) -> Vec<Value> {
    let row = |row: &crate::types::ThresholdRow| json!({"expr": row.expr, "value": row.value_text(), "ok": row.ok});
    report.thresholds.iter().map(row).collect()
}

/// Plots, the figures behind them for the script, and how many seconds a point stands for.
fn plots(report: &Report) -> Result<(Vec<Value>, String, usize), String> {
    // Reports of earlier versions don't say.
    let planned = report.series.iter().any(|row| row.planned > 0);
    let rows: Vec<Map<String, Value>> = report
        .series
        .iter()
        .map(|row| {
            let mut flat = Map::new();
            let value = serde_json::to_value(row).map_err(|error| error.to_string())?;
            flatten(&value, "", &mut flat);
            a_second(&mut flat, row.length_s);
            if report.watch.is_none() {
                // Reports of earlier versions, and runs in which nothing was to be watched.
                flat.remove("interrupted");
            }
            if !planned {
                flat.remove("planned");
            }
            Ok(flat)
        })
        .collect::<Result<_, String>>()?;
    let t_s: Vec<f64> = report.series.iter().map(|row| row.t_s).collect();
    let (points, each) = plot::gather(&t_s);
    let window = window(report);
    let mut shown_plots = Vec::new();
    let mut data = Vec::new();
    for plot in wanted(&rows, each).into_iter().filter(Plot::has_values) {
        let legend = |line: &Line| json!({"name": line.name, "colour": line.colour});
        shown_plots.push(json!({
            "title": plot.title,
            "legend": plot.lines.iter().map(legend).collect::<Vec<_>>(),
            "svg": plot.svg(&points, window),
        }));
        let lines = plot.lines.iter().map(|line| {
            let text = |value: &Option<f64>| value.map(|value| shown(value, plot.unit));
            let texts: Vec<_> = line.values.iter().map(text).collect();
            json!({"n": line.name, "c": line.colour, "v": texts})
        });
        data.push(lines.collect::<Vec<_>>());
    }
    // Inside a script element only `<` could end it.
    let data = json!({"t": points, "plots": data}).to_string().replace('<', "\\u003c");
    Ok((shown_plots, data, each))
}

/// The measured window on the series' own clock: the last `measured_s` before everybody left,
/// which the report does not say to the second; so from the end of the series.
fn window(report: &Report) -> Option<(f64, f64)> {
    let measured = report.run.measured_s?;
    let end = report.run.duration_s.min(report.series.last()?.t_s);
    Some(((end - measured).max(0.0), end))
}

/// Where the time axis of the plots ends.
fn axis_end(report: &Report) -> f64 {
    report.series.last().map_or(report.run.duration_s, |row| row.t_s).max(1.0)
}

/// Makes the counts of a row that is no whole second those of one, as they are drawn. So little that
/// it says nothing is left out.
fn a_second(row: &mut Map<String, Value>, length_s: f64) {
    const COUNTS: [&str; 9] = [
        "packets_in",
        "packets_out",
        "expected",
        "missing",
        "repaired",
        "repaired_by_red",
        "late",
        "unrecovered",
        "freezes",
    ];
    const LENGTH_S_MIN: f64 = 0.1;
    if (0.9..1.1).contains(&length_s) {
        return;
    }
    for (key, value) in row {
        if COUNTS.contains(&key.as_str()) || key.starts_with("counters.") {
            let count = value.as_f64().filter(|_| length_s >= LENGTH_S_MIN);
            *value = count.map_or(Value::Null, |count| json!(count / length_s));
        }
    }
}

/// Numbers of nested objects under dotted names.
fn flatten(value: &Value, name: &str, flat: &mut Map<String, Value>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                flatten(value, &name, flat);
            }
        }
        Value::Number(_) => {
            flat.insert(name.to_owned(), value.clone());
        }
        _ => {}
    }
}

/// Plots of what is always there. Title, unit, lines with name, key and colour.
type Fixed = (&'static str, Unit, &'static [(&'static str, &'static str, usize)]);

const FIXED: [Fixed; 8] = [
    (
        "Participants",
        Unit::Plain,
        &[
            ("planned", "planned", 5),
            ("joined", "joined", 0),
            ("receiving subscribers", "subscribers", 3),
        ],
    ),
    ("Subscribers interrupted", Unit::Plain, &[("interrupted", "interrupted", 2)]),
    (
        "Datagrams a second",
        Unit::Plain,
        &[("received", "packets_in", 0), ("sent", "packets_out", 4)],
    ),
    ("Received", Unit::BitsPerSecond, &[("UDP payload", "bitrate_bps", 0)]),
    (
        "Packets a second: missing, repaired, unrecovered",
        Unit::Plain,
        &[
            ("missing at first", "missing", 1),
            ("repaired", "repaired", 3),
            ("repaired by RED", "repaired_by_red", 4),
            ("unrecovered", "unrecovered", 2),
        ],
    ),
    ("Freezes a second", Unit::Plain, &[("freezes", "freezes", 2)]),
    (
        "CPU of the workers",
        Unit::Share,
        &[("busiest worker", "busy_ratio_max", 1), ("all together", "cpu_cores", 0)],
    ),
    ("Latest timer", Unit::Milliseconds, &[("lateness", "lateness_ms_max", 4)]),
];

/// Fixed plots, then whatever else the rows have, by topic and unit.
fn wanted(rows: &[Map<String, Value>], each: usize) -> Vec<Plot> {
    let column = |key: &str| {
        let values: Vec<_> = rows.iter().map(|row| row.get(key).and_then(Value::as_f64)).collect();
        plot::gathered(&values, each)
    };
    let mut plots: Vec<Plot> = Vec::new();
    let mut seen = vec!["t_s", "length_s", "expected", "late"];
    for (title, unit, lines) in FIXED {
        let lines = lines.iter().map(|(name, key, colour)| {
            seen.push(key);
            Line { name: (*name).to_owned(), colour: *colour, values: column(key) }
        });
        let lines = lines.collect();
        plots.push(Plot { title: title.to_owned(), unit, lines });
    }
    let mut others: Vec<&String> = Vec::new();
    for key in rows.iter().flat_map(Map::keys) {
        if !seen.contains(&key.as_str()) {
            seen.push(key);
            others.push(key);
        }
    }
    let fixed = plots.len();
    for key in others {
        let (title, name, unit) = topic(key);
        let room = |plot: &&mut Plot| {
            plot.title == title && plot.unit == unit && plot.lines.len() < LINES_MAX
        };
        let line = |colour| Line { name: name.clone(), colour, values: column(key) };
        match plots[fixed..].iter_mut().find(room) {
            Some(plot) => plot.lines.push(line(plot.lines.len())),
            None => plots.push(Plot { title, unit, lines: vec![line(0)] }),
        }
    }
    plots
}

/// Title, name in the legend and unit of a column that has no fixed place.
fn topic(key: &str) -> (String, String, Unit) {
    let spaced = |text: &str| text.replace(['_', '.'], " ");
    let unit = match unit::unit(key) {
        // `latency_p95_ms` and `latency_ms_p95` alike.
        Unit::Plain if key.contains("_ms") => Unit::Milliseconds,
        unit => unit,
    };
    let counted = key.strip_prefix("counters.");
    if key.contains("latency") && counted.is_none() {
        return ("Latency".to_owned(), spaced(key), unit);
    }
    match (counted.unwrap_or(key).split_once('.'), counted) {
        (Some((section, rest)), Some(_)) => {
            (format!("Counted a second: {}", spaced(section)), spaced(rest), unit)
        }
        (Some((section, rest)), None) => {
            let title = format!("{}{}", section[..1].to_uppercase(), spaced(&section[1..]));
            (title, spaced(rest), unit)
        }
        (None, _) => ("Other figures".to_owned(), spaced(key), unit),
    }
}

fn media(report: &Report) -> Vec<Value> {
    let sections = [("video", &report.video), ("audio", &report.audio)];
    let present =
        sections.into_iter().filter_map(|(name, section)| Some((name, section.as_ref()?)));
    present.map(|(name, section)| media_rows(name, section)).collect()
}

/// A row for each kind of media of each cohort.
fn cohorts(report: &Report) -> Vec<Value> {
    let unknown = || "–".to_owned();
    let row = |cohort: &CohortFigures| {
        let (name, impair) = (cohort.name.clone(), cohort.impair.clone());
        let subscribers = group(cohort.subscribers);
        let rows = cohort.media().map(|(kind, section)| {
            let packets = &section.packets;
            let latency = |hist: &Hist| format!("{:.1} / {:.1} ms", hist.p50, hist.p99);
            json!({
                "name": name,
                "impair": impair,
                "bad": packets.unrecovered > 0,
                "cells": [
                    subscribers.clone(),
                    kind.to_owned(),
                    section.watch.watch_ratio.map_or_else(unknown, watch_words::percent),
                    section.loss_rate.map_or_else(unknown, share),
                    group(packets.expected),
                    group(packets.missing),
                    group(packets.repaired),
                    group(packets.repaired_by_red),
                    group(packets.unrecovered),
                    section.freezes.as_ref().map_or_else(unknown, |all| group(all.count)),
                    section.latency_ms.as_ref().map_or_else(unknown, latency),
                ],
            })
        });
        rows.collect::<Vec<_>>()
    };
    report.cohorts.iter().flat_map(row).collect()
}

fn media_rows(name: &str, section: &MediaSection) -> Value {
    let unknown = || "–".to_owned();
    let packets = &section.packets;
    let hist = |hist: &Option<Hist>| {
        hist.as_ref().map_or_else(unknown, |hist| {
            format!("{:.1} / {:.1} / {:.1} ms", hist.p50, hist.p95, hist.p99)
        })
    };
    let some = |count: Option<u64>| count.map_or_else(unknown, group);
    let rows = vec![
        ("tracks received", group(section.tracks_received)),
        ("tracks expected", some(section.tracks_expected)),
        ("watched", section.watch.watch_ratio.map_or_else(unknown, watch_words::percent)),
        ("bitrate", section.bitrate_bps.map_or_else(unknown, bits_per_second)),
        ("packets expected", group(packets.expected)),
        ("received", group(packets.received)),
        ("missing at first", group(packets.missing)),
        ("– repaired in time", group(packets.repaired)),
        ("– repaired by RED", group(packets.repaired_by_red)),
        ("– unrecovered", group(packets.unrecovered)),
        ("of them late", group(packets.late)),
        ("loss for good", section.loss_rate.map_or_else(unknown, share)),
        ("loss at first", section.missing_rate.map_or_else(unknown, share)),
        ("duplicate", group(packets.duplicate)),
        ("reordered", group(packets.reordered)),
        ("frames received", group(section.frames.received)),
        ("frames complete", group(section.frames.complete)),
        ("frames decodable", some(section.frames.decodable)),
        ("frames dropped", some(section.frames.dropped)),
        ("frames a second", section.fps.map_or_else(unknown, |fps| format!("{fps:.1}"))),
        (
            "layers",
            section.layers.as_ref().and_then(LayersSection::summary).unwrap_or_else(unknown),
        ),
        (
            "layer switches / to smaller pictures",
            format!(
                "{} / {}",
                some(section.feedback.layer_switches),
                some(section.feedback.layer_switches_down)
            ),
        ),
        ("freezes", some(section.freezes.as_ref().map(|freezes| freezes.count))),
        ("jitter p50 / p95 / p99", hist(&section.jitter_ms)),
        ("latency p50 / p95 / p99", hist(&section.latency_ms)),
        (
            "NACK / PLI sent",
            format!("{} / {}", group(section.feedback.nack_sent), group(section.feedback.pli_sent)),
        ),
    ];
    let rows: Vec<_> = rows.into_iter().map(|(name, value)| json!([name, value])).collect();
    json!({"name": name, "rows": rows})
}

fn phases(report: &Report) -> Vec<Value> {
    let named = report.join.phases_ms.named();
    let longest = named.iter().filter_map(|(_, hist)| Some(hist.as_ref()?.max)).fold(0.0, f64::max);
    let place = |value: f64| if longest > 0.0 { 100.0 * value / longest } else { 0.0 };
    let row = |(name, hist): (&str, Option<&Hist>)| {
        let hist = hist?;
        let figures = [hist.p50, hist.p90, hist.p99, hist.max].map(|value| format!("{value:.1}"));
        Some(json!({
            "name": name,
            "count": group(hist.count),
            "figures": figures,
            // From the fastest to the slowest, with a mark at the median.
            "from": format!("{:.2}", place(hist.min)),
            "length": format!("{:.2}", (place(hist.max) - place(hist.min)).max(0.5)),
            "median": format!("{:.2}", place(hist.p50)),
        }))
    };
    named.into_iter().filter_map(row).collect()
}

/// A row for a way in which somebody came back, or tried to.
fn way_back((_, name, way): (&str, &str, &RecoverySection)) -> Value {
    let RecoveryCounters { tries, recovered, failed, unfinished } = way.counted;
    let mut cells = [tries, recovered, failed, unfinished].map(group).to_vec();
    cells.extend(times(way.ms.as_ref()));
    json!({"name": name, "bad": failed > 0, "cells": cells})
}

/// A row for what was done on purpose.
fn on_purpose(row: &FaultRow) -> Value {
    let FaultRow { fired, hit, missed, recovered, failed, unfinished, sent_away, .. } = *row;
    let counts = [fired, hit, missed, recovered, failed, unfinished, sent_away];
    let mut cells = counts.map(group).to_vec();
    cells.extend(times(row.ms.as_ref()));
    json!({"name": row.name(), "bad": failed > 0, "cells": cells})
}

/// The median, the 99th percentile and the longest.
fn times(ms: Option<&Hist>) -> [String; 3] {
    ms.map_or_else(
        || [(); 3].map(|()| "–".to_owned()),
        |ms| [ms.p50, ms.p99, ms.max].map(|ms| format!("{ms:.0} ms")),
    )
}

fn streams(report: &Report) -> Vec<Value> {
    let merged = report.run.hosts.is_some();
    let row = |row: &crate::types::StreamRow| {
        let packets = &row.counters.packets;
        let name = match (&row.host, merged) {
            (Some(host), true) => format!("{host}: {}", row.identity),
            _ => row.identity.clone(),
        };
        let unknown = || "–".to_owned();
        json!({
            "name": name,
            "room": row.room,
            "kind": row.kind,
            "bad": packets.unrecovered > 0 || packets.received == 0,
            "cells": [
                row.loss_rate.map_or_else(unknown, share),
                group(packets.expected),
                group(packets.missing),
                group(packets.repaired),
                group(packets.repaired_by_red),
                group(packets.late),
                group(packets.unrecovered),
                group(row.counters.freezes.count),
                format!("{:.1} s", row.counters.freezes.total_s.as_secs_f64()),
                row.jitter_ms.map_or_else(unknown, |ms| format!("{ms:.1} ms")),
                row.bitrate_bps.map_or_else(unknown, bits_per_second),
            ],
        })
    };
    report.streams.iter().map(row).collect()
}

fn workers(report: &Report) -> Vec<Value> {
    let unknown = || "–".to_owned();
    let p99 = |hist: &Option<Hist>| {
        hist.as_ref().map_or_else(unknown, |hist| format!("{:.1} / {:.1} ms", hist.p99, hist.max))
    };
    let row = |(index, worker): (usize, &crate::types::WorkerSection)| {
        let host = worker.host.as_ref().map_or(String::new(), |host| format!("{host} "));
        json!([
            format!("{host}{index}"),
            worker.core.map_or_else(|| "unpinned".to_owned(), |core| core.to_string()),
            group(worker.peers),
            format!("{:.0} %", worker.busy_ratio * 100.0),
            p99(&worker.lateness_ms),
            p99(&worker.batch_age_ms),
        ])
    };
    report.generator.workers.iter().enumerate().map(row).collect()
}

/// Everything that has no table of its own, as names and values: what was published, the
/// generator, the server, options, machine; sections that others add to the report too.
fn sections(figures: &Value) -> Vec<Value> {
    const OWN: [&str; 14] = [
        "schema",
        "run",
        "verdict",
        "join",
        "recoveries",
        "faults",
        "video",
        "audio",
        "cohorts",
        "watch",
        "series",
        "thresholds",
        "streams",
        "streams_total",
    ];
    let mut sections = Vec::new();
    let mut push = |title: &str, value: &Value| {
        let mut rows = Vec::new();
        collect(value, "", &mut rows);
        if !rows.is_empty() {
            sections.push(json!({"title": title, "rows": rows}));
        }
    };
    for (key, value) in figures.as_object().into_iter().flatten() {
        if OWN.contains(&key.as_str()) {
            continue;
        }
        match (key.as_str(), value) {
            ("server", Value::Object(parts)) => {
                for (part, value) in parts {
                    // A ledger has a row for each subscriber; its sums are what is shown.
                    let sums = match value.get("measured") {
                        Some(Value::Null) | None => value.get("totals").unwrap_or(value),
                        Some(measured) => measured,
                    };
                    push(&format!("server: {part}"), sums);
                }
            }
            _ => push(key, value),
        }
    }
    push("options", &figures["run"]["options"]);
    push("machine", &figures["run"]["machine"]);
    sections
}

/// Names and values as text, lists of objects and encoded histograms left out.
fn collect(value: &Value, name: &str, rows: &mut Vec<Value>) {
    let mut push = |text: String| rows.push(json!([name, text]));
    match value {
        Value::Null if name.is_empty() => {}
        Value::Null => push("–".to_owned()),
        Value::Bool(yes) => push(if *yes { "yes" } else { "no" }.to_owned()),
        Value::Number(number) => {
            push(
                number
                    .as_f64()
                    .map_or_else(|| number.to_string(), |number| shown(number, unit::unit(name))),
            );
        }
        Value::String(_) if name.ends_with("hdr") => {}
        Value::String(text) => push(text.clone()),
        Value::Array(list) => {
            let words: Option<Vec<String>> = list
                .iter()
                .map(|item| match item {
                    Value::String(text) => Some(text.clone()),
                    Value::Number(number) => Some(number.to_string()),
                    _ => None,
                })
                .collect();
            if let Some(words) = words.filter(|words| !words.is_empty()) {
                push(words.join(", "));
            }
        }
        Value::Object(object) => {
            for (key, value) in object {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                collect(value, &name, rows);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::hostile;
    use super::*;

    #[test]
    fn the_page_needs_no_network_and_no_name_can_break_out_of_it() {
        let html = render(&hostile()).unwrap();
        assert!(!html.contains("<script>alert"), "a name became markup");
        assert_eq!(html.matches("<script").count(), 2, "the figures and the pointer's script");
        assert_eq!(html.matches("</script").count(), 2);
        assert!(html.contains("&lt;script&gt;alert(1)"), "the name is shown");
        for link in ["src=", "href=", "@import", "url(", "http://", "https://"] {
            let found =
                html.match_indices(link).map(|(at, _)| &html[at..(at + 60).min(html.len())]);
            let found: Vec<_> = found.filter(|text| !text.contains("www.w3.org")).collect();
            assert!(found.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn the_verdict_comes_first_and_every_part_is_there() {
        let html = render(&hostile()).unwrap();
        let at = |text: &str| html.find(text).unwrap_or_else(|| panic!("no {text}"));
        assert!(at("class=\"card verdict") < at("<svg"));
        for part in ["Thresholds", "Participants", "Cohorts", "Join phases", "Came back", "options"]
        {
            at(part);
        }
        for part in ["Worst streams", "Done on purpose", "<td>resume</td><td>9</td><td>7</td>"] {
            at(part);
        }
        assert!(html.contains("no value") && html.contains("not kept"));
        assert!(html.contains("prefers-color-scheme: dark") && html.contains("@media print"));
    }

    #[test]
    fn columns_that_others_add_are_drawn_under_their_topic() {
        let row = |value: Value| value.as_object().unwrap().clone();
        let rows = [row(json!({
            "t_s": 1, "latency_p50_ms": 3.0, "latency_p99_ms": 9.0, "server.cpu_cores": 0.5,
            "server.packets_out": 12, "odd": 1, "counters.video.latency_source.sender_report": 2,
            "counters.video.frames.complete": 25
        }))];
        let plots = wanted(&rows, 1);
        let of = |title: &str, unit| {
            let plot = plots.iter().find(|plot| plot.title == title && plot.unit == unit);
            plot.unwrap_or_else(|| panic!("{title}")).lines.len()
        };
        assert_eq!(of("Latency", Unit::Milliseconds), 2);
        assert_eq!(of("Server", Unit::Plain), 2);
        assert_eq!(of("Counted a second: video", Unit::Plain), 2);
        assert_eq!(of("Other figures", Unit::Plain), 1);
    }

    #[test]
    fn a_day_of_seconds_stays_small() {
        let mut report = hostile();
        let row = report.series[0].clone();
        report.series = (0..86_400)
            .map(|second| {
                let mut row = row.clone();
                row.t_s = f64::from(second);
                row
            })
            .collect();
        assert!(render(&report).unwrap().len() < 1_000_000);
    }
}
