//! Watch time on the page: its figures, and a strip for each of those who could watch least.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::plot::{self, escaped};
use crate::show::group;
use crate::types::Report;
use crate::watch::{Stretch, WatchFigures, WorstViewer};
use crate::watch_words::{kinds, of_subscribers, percent, seconds};

/// Who has no interruption is listed below this ratio: for less the verdict has no word either.
const LISTED_BELOW: f64 = 0.99;
/// Interruptions in a subscriber's table; the JSON has more.
const ROWS_MAX: usize = 50;
/// Length of a strip in its own units; the page stretches it.
const LENGTH: f64 = 1_000.0;
const HEIGHT: f64 = 16.0;

/// The parts of the page that are about watch time; `null` if nothing was to be watched. `window`
/// is the measured window, `end_s` where the time axis ends.
pub(super) fn section(report: &Report, window: Option<(f64, f64)>, end_s: f64) -> Value {
    let kinds: Vec<Value> = kinds(report).map(|(name, watch)| row(name, watch)).collect();
    if kinds.is_empty() {
        return Value::Null;
    }
    let worst = report.watch.iter().flat_map(|section| &section.worst);
    let listed = worst.filter(|worst| {
        let interrupted = worst.tracks.iter().any(|track| !track.interruptions.is_empty());
        interrupted || worst.watch_ratio < LISTED_BELOW
    });
    let strips: Vec<Value> = listed.map(|worst| strip(worst, window, end_s)).collect();
    let axis = plot::time_ticks(end_s).into_iter().map(
        |tick| json!({"left": format!("{:.2}", 100.0 * tick / end_s), "text": plot::clock(tick)}),
    );
    json!({
        "kinds": kinds,
        "strips": strips,
        "axis": axis.collect::<Vec<_>>(),
        "subscribers": report.watch.as_ref().map_or(0, |section| section.subscribers),
    })
}

/// A tile for each kind of media: name, value, note, and whether it is bad.
pub(super) fn tiles(report: &Report) -> Vec<(String, String, String, bool)> {
    let tile = |(name, watch): (&str, &WatchFigures)| {
        let gaps = &watch.interruptions;
        let note = match (gaps.count, watch.played_of_expected()) {
            (0, played) => played.unwrap_or_default(),
            (count, _) => {
                let subscribers = group(gaps.subscribers);
                format!("{} interruptions on {subscribers} subscribers", group(count))
            }
        };
        let bad = gaps.count > 0 || watch.watch_ratio.is_some_and(|ratio| ratio < LISTED_BELOW);
        let ratio = watch.watch_ratio.map_or_else(|| "–".to_owned(), percent);
        (format!("{name} watched"), ratio, note, bad)
    };
    kinds(report).map(tile).collect()
}

fn row(name: &str, watch: &WatchFigures) -> Value {
    let unknown = || "–".to_owned();
    let known = |value: Option<f64>| value.map_or_else(unknown, seconds);
    let gaps = &watch.interruptions;
    let length = gaps.length_s.as_ref();
    json!({
        "name": name,
        "bad": gaps.count > 0,
        "cells": [
            watch.watch_ratio.map_or_else(unknown, percent),
            watch.watch_ratio_subscribers.as_ref().map_or_else(unknown, of_subscribers),
            known(watch.expected_s),
            known(watch.played_s),
            known(watch.short_gaps_s),
            group(gaps.count),
            group(gaps.subscribers),
            seconds(gaps.total_s),
            length.map_or_else(unknown, |hist| format!("{:.1} / {:.1} s", hist.p50, hist.max)),
        ],
        "causes": if gaps.count > 0 { gaps.cause_list() } else { unknown() },
    })
}

fn strip(worst: &WorstViewer, window: Option<(f64, f64)>, end_s: f64) -> Value {
    let mut rows: Vec<(f64, Value)> = Vec::new();
    for track in &worst.tracks {
        rows.extend(track.interruptions.iter().map(|one| {
            let row = json!({
                "track": format!("{} of {}", track.source.replace('_', " "), track.publisher),
                "cells": [
                    format!("{:.1} s", one.from_s),
                    format!("{:.1} s", one.to_s),
                    format!("{:.1} s", (one.to_s - one.from_s).max(0.0)),
                    one.cause.replace('_', " "),
                ],
                "reason": one.reason.clone().unwrap_or_else(|| "–".to_owned()),
            });
            (one.from_s, row)
        }));
    }
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let count = rows.len();
    let rows: Vec<Value> = rows.into_iter().map(|(_, row)| row).take(ROWS_MAX).collect();
    json!({
        "name": worst.name(),
        "room": worst.room,
        "cohort": worst.cohort,
        "ratio": percent(worst.watch_ratio),
        "svg": svg(&worst.strip, window, end_s),
        "rows": rows,
        "count": group(count as u64),
        "left_out": count.saturating_sub(ROWS_MAX),
    })
}

/// What a state is called on the page, with its class; reports that are read may say anything.
fn state(name: &str) -> (&'static str, &'static str) {
    match name {
        "frozen" => ("short gap", "frozen"),
        "disconnected" => ("disconnected", "disconnected"),
        _ => ("interrupted", "interrupted"),
    }
}

fn svg(stretches: &[Stretch], window: Option<(f64, f64)>, end_s: f64) -> String {
    let at = |t_s: f64| LENGTH * (t_s / end_s).clamp(0.0, 1.0);
    let mut rects = String::new();
    let mut rect = |class: &str, from_s: f64, to_s: f64, title: &str| {
        let (from, width) = (at(from_s), (at(to_s) - at(from_s)).max(1.0));
        let _ = write!(
            rects,
            "<rect class=\"s-{class}\" x=\"{from:.1}\" width=\"{width:.1}\" height=\"{HEIGHT}\">\
             <title>{}</title></rect>",
            escaped(title)
        );
    };
    rect("outside", 0.0, end_s, "not measured");
    let (from_s, to_s) = window.unwrap_or((0.0, end_s));
    rect("played", from_s, to_s, "played, or nothing was expected");
    let mut titles = Vec::new();
    for one in stretches {
        let (name, class) = state(&one.state);
        let title = format!("{name} from {:.1} s to {:.1} s", one.from_s, one.to_s);
        rect(class, one.from_s, one.to_s, &title);
        titles.push(title);
    }
    let label = if titles.is_empty() { "played".to_owned() } else { titles.join(", ") };
    format!(
        "<svg class=\"strip\" viewBox=\"0 0 {LENGTH} {HEIGHT}\" preserveAspectRatio=\"none\" \
         role=\"img\" aria-label=\"{}\">{rects}</svg>",
        escaped(&label)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strip_lies_on_the_time_axis_and_says_what_it_shows() {
        let stretch = |from_s, to_s, state: &str| Stretch { from_s, to_s, state: state.to_owned() };
        let strip = [stretch(10.0, 15.0, "disconnected"), stretch(18.0, 18.2, "\"><script>")];
        let svg = svg(&strip, Some((5.0, 20.0)), 20.0);
        assert!(svg.contains("<rect class=\"s-played\" x=\"250.0\" width=\"750.0\""), "{svg}");
        assert!(
            svg.contains("<rect class=\"s-disconnected\" x=\"500.0\" width=\"250.0\""),
            "{svg}"
        );
        let label = "aria-label=\"disconnected from 10.0 s to 15.0 s, interrupted from 18.0 s to \
                    18.2 s\"";
        assert!(svg.contains(label) && !svg.contains("script"), "{svg}");
    }
}
