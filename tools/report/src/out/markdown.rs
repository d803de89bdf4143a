//! GitHub-flavoured Markdown: for a pull request, or `$GITHUB_STEP_SUMMARY`.

use std::fmt::Write as _;

use super::headline;
use crate::hist::Hist;
use crate::show::group;
use crate::types::{Fault, MediaSection, Outcome, Report};
use crate::watch_words;
use stampede_units::show::{bits_per_second, share};

/// Streams in the table.
const STREAMS_SHOWN: usize = 10;

/// A report as Markdown.
pub(super) fn render(report: &Report) -> String {
    let mark = match report.verdict.result {
        Outcome::Pass => "✅",
        Outcome::Fail => "❌",
        Outcome::Invalid => "⚠️",
        Outcome::Interrupted => "⏹️",
    };
    let word = report.verdict.result.word();
    let mut text = format!("## {mark} Stampede: {word}\n\n**{}**", headline(report));
    if report.verdict.fault != Fault::None {
        let _ = write!(text, ", fault: {}", format!("{:?}", report.verdict.fault).to_lowercase());
    }
    text.push_str("\n\n");
    for reason in &report.verdict.reasons {
        let _ = writeln!(text, "- {}", escaped(reason));
    }
    watch(&mut text, report);
    thresholds(&mut text, report);
    media(&mut text, report);
    cohorts(&mut text, report);
    data(&mut text, report);
    joins(&mut text, report);
    recoveries(&mut text, report);
    signalling(&mut text, report);
    streams(&mut text, report);
    let _ = writeln!(
        text,
        "\n<sub>run {} · {} · {:.0} s · stampede {}</sub>",
        escaped(&report.run.id),
        escaped(&report.run.started_at),
        report.run.duration_s,
        escaped(&report.run.stampede_version)
    );
    text
}

fn watch(text: &mut String, report: &Report) {
    let kinds: Vec<_> = watch_words::kinds(report).collect();
    if kinds.is_empty() {
        return;
    }
    text.push_str(
        "\n### Watch time\n\n| | watched | expected | played | short gaps | interruptions | \
         subscribers | together | length p50 / max | by cause |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---|\n",
    );
    let unknown = || "–".to_owned();
    let known = |value: Option<f64>| value.map_or_else(unknown, watch_words::seconds);
    for (name, watch) in kinds {
        let gaps = &watch.interruptions;
        let length = |hist: &Hist| format!("{:.1} / {:.1} s", hist.p50, hist.max);
        let cells = [
            watch.watch_ratio.map_or_else(unknown, watch_words::percent),
            known(watch.expected_s),
            known(watch.played_s),
            known(watch.short_gaps_s),
            group(gaps.count),
            group(gaps.subscribers),
            watch_words::seconds(gaps.total_s),
            gaps.length_s.as_ref().map_or_else(unknown, length),
            if gaps.count > 0 { gaps.cause_list() } else { unknown() },
        ];
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    }
    let layers = report.video.as_ref().and_then(|section| section.layers.as_ref()?.summary());
    if let Some(layers) = layers {
        let _ = writeln!(text, "\nLayers: {layers}");
    }
    let worst = report.watch.iter().flat_map(|section| &section.worst).next();
    if let Some(worst) = worst.filter(|worst| worst.watch_ratio < 1.0) {
        let ratio = watch_words::percent(worst.watch_ratio);
        let _ = writeln!(text, "\nThe worst subscriber: {ratio}, {}", escaped(&worst.name()));
    }
}

fn thresholds(text: &mut String, report: &Report) {
    if report.thresholds.is_empty() {
        return;
    }
    text.push_str("\n### Thresholds\n\n| | threshold | value |\n|---|---|---:|\n");
    for row in &report.thresholds {
        let mark = if row.ok { "✅" } else { "❌" };
        let _ = writeln!(text, "| {mark} | {} | {} |", escaped(&row.expr), row.value_text());
    }
}

fn media(text: &mut String, report: &Report) {
    let sections: Vec<_> = [("video", &report.video), ("audio", &report.audio)]
        .into_iter()
        .filter_map(|(name, section)| Some((name, section.as_ref()?)))
        .collect();
    if sections.is_empty() {
        return;
    }
    text.push_str(
        "\n### Media\n\n| | tracks | watched | bitrate | packets | missing | repaired | by RED | \
         unrecovered | loss | freezes | jitter p99 | latency p50 / p99 |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for (name, section) in sections {
        let _ = writeln!(text, "| {name} | {} |", row(section).join(" | "));
    }
}

fn cohorts(text: &mut String, report: &Report) {
    if report.cohorts.is_empty() {
        return;
    }
    text.push_str(
        "\n### Cohorts\n\n| | subscribers | | tracks | watched | bitrate | packets | missing | repaired | \
         by RED | unrecovered | loss | freezes | jitter p99 | latency p50 / p99 |\n\
         |---|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for cohort in &report.cohorts {
        for (kind, section) in cohort.media() {
            let (name, count) = (escaped(&cohort.name), group(cohort.subscribers));
            let _ = writeln!(text, "| {name} | {count} | {kind} | {} |", row(section).join(" | "));
        }
    }
}

fn row(section: &MediaSection) -> Vec<String> {
    let unknown = || "–".to_owned();
    let packets = &section.packets;
    let tracks = match section.tracks_expected {
        Some(expected) => format!("{} of {}", group(section.tracks_received), group(expected)),
        None => group(section.tracks_received),
    };
    let latency = |hist: &Hist| format!("{:.1} / {:.1} ms", hist.p50, hist.p99);
    vec![
        tracks,
        section.watch.watch_ratio.map_or_else(unknown, watch_words::percent),
        section.bitrate_bps.map_or_else(unknown, bits_per_second),
        group(packets.expected),
        group(packets.missing),
        group(packets.repaired),
        group(packets.repaired_by_red),
        group(packets.unrecovered),
        section.loss_rate.map_or_else(unknown, share),
        section.freezes.as_ref().map_or_else(unknown, |freezes| group(freezes.count)),
        section.jitter_ms.as_ref().map_or_else(unknown, |hist| format!("{:.1} ms", hist.p99)),
        section.latency_ms.as_ref().map_or_else(unknown, latency),
    ]
}

fn data(text: &mut String, report: &Report) {
    let kinds = report.data.iter().flat_map(|section| section.named());
    let told: Vec<_> = kinds.filter_map(|(name, one)| Some((name, one.told()?))).collect();
    if !told.is_empty() {
        text.push_str("\n### Data messages\n\n");
    }
    for (name, told) in told {
        let _ = writeln!(text, "- {name}: {told}");
    }
    if let Some(rpc) = &report.rpc {
        let _ = writeln!(text, "\n### Calls\n\n{}", rpc.told());
    }
}

fn joins(text: &mut String, report: &Report) {
    let phases = report.join.phases_ms.named();
    let _ = write!(text, "\n### Joins\n\n{}", report.join.balance());
    text.push_str(&report.join.afterwards());
    text.push_str(
        "\n\n| ms after its schedule | p50 | p90 | p99 | max |\n|---|---:|---:|---:|---:|\n",
    );
    for (name, hist) in phases {
        if let Some(hist) = hist {
            let _ = writeln!(
                text,
                "| {name} | {:.1} | {:.1} | {:.1} | {:.1} |",
                hist.p50, hist.p90, hist.p99, hist.max
            );
        }
    }
    for (kind, count) in &report.join.errors {
        let _ = write!(text, "\n- {} × {}", group(*count), escaped(kind));
    }
    if !report.join.errors.is_empty() {
        text.push('\n');
    }
}

/// How people came back, and what had been done to them on purpose.
fn recoveries(text: &mut String, report: &Report) {
    let mut ways = report.recoveries.tried().peekable();
    if ways.peek().is_some() {
        text.push_str("\n### Recoveries\n\n");
    }
    for (_, name, way) in ways {
        let _ = writeln!(text, "- {name}: {}", way.told());
    }
    if !report.faults.is_empty() {
        text.push_str("\n### Faults\n\n");
    }
    for fault in &report.faults {
        let _ = writeln!(text, "- {}: {}", escaped(&fault.name()), fault.told());
    }
}

/// What participants told and heard of each other.
fn signalling(text: &mut String, report: &Report) {
    let told = report.signalling.told();
    if !told.is_empty() {
        text.push_str("\n### Signalling\n\n");
    }
    for (name, what) in told {
        let _ = writeln!(text, "- {name}: {what}");
    }
}

fn streams(text: &mut String, report: &Report) {
    let worst: Vec<_> = report
        .streams
        .iter()
        .filter(|row| row.counters.packets.unrecovered > 0 || row.counters.freezes.count > 0)
        .collect();
    if worst.is_empty() {
        return;
    }
    let _ = write!(
        text,
        "\n<details><summary>Worst {} of {} streams</summary>\n\n\
         | subscriber | kind | expected | missing | repaired | by RED | unrecovered | freezes | frozen |\n\
         |---|---|---:|---:|---:|---:|---:|---:|---:|\n",
        worst.len().min(STREAMS_SHOWN),
        group(report.streams_total)
    );
    for row in worst.into_iter().take(STREAMS_SHOWN) {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {:.1} s |",
            escaped(&row.identity),
            escaped(&row.kind),
            group(row.counters.packets.expected),
            group(row.counters.packets.missing),
            group(row.counters.packets.repaired),
            group(row.counters.packets.repaired_by_red),
            group(row.counters.packets.unrecovered),
            group(row.counters.freezes.count),
            row.counters.freezes.total_s.as_secs_f64()
        );
    }
    text.push_str("\n</details>\n");
}

/// One line that Markdown and HTML leave alone: a backslash before every character that either
/// could take for its own, entities for the angle brackets.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '@' => safe.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '|' | '~' => {
                safe.push('\\');
                safe.push(c);
            }
            c if c.is_control() => safe.push(' '),
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
    fn the_verdict_leads_and_no_name_can_break_the_page() {
        let text = render(&hostile());
        assert!(text.starts_with("## "), "{text}");
        assert!(text.contains("| ❌ | video.loss\\_rate&lt;1% | 2.00 % |"), "{text}");
        assert!(text.contains("| ❌ | audio.latency\\_ms.p95&lt;250 | no value |"), "{text}");
        assert!(text.contains("| ✅ | join.failed==0 | 0 |"), "{text}");
        assert!(!text.contains("<script") && !text.contains('\u{1}'), "{text}");
        assert!(text.contains("| video |") && text.contains("### Joins"), "{text}");
        assert!(text.contains("| 4 | audio | ") && text.contains("### Cohorts"), "{text}");
        assert!(text.contains("- resume: 7 of 9 tries, 2 failed\n"), "{text}");
        assert!(text.contains("### Faults\n\n- &lt;/script&gt;"), "{text}");
        assert!(text.contains(": hit 5: 4 came back, 1 gave up\n"), "{text}");
        // Every row of a table has as many cells as its head.
        let bars = |line: &str| line.replace("\\|", "").matches('|').count();
        let mut head = None;
        for line in text.lines() {
            head = match (line.starts_with('|'), head) {
                (true, Some(head)) => {
                    assert_eq!(bars(line), head, "{line}");
                    Some(head)
                }
                (true, None) => Some(bars(line)),
                (false, _) => None,
            };
        }
    }
}
