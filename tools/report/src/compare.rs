//! `stampede compare`: one report against another. If they were not asked for the same, that is
//! said first, and their sums are compared as rates.

use std::fmt::Write as _;
use std::str::FromStr;

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use super::keys::{self, Keys};
use super::show::{plain, shown};
use super::threshold::{Op, limit, sides};
use super::types::{Outcome, Report};
use super::unit::{Better, Unit, better, counter, unit};
use super::unlike::{self, Per, Size};
use crate::Exit;

/// Changes smaller than this share are counted, not listed.
const SHOWN_CHANGE_MIN: f64 = 0.01;
/// Of a distribution these are listed.
const SHOWN_PERCENTILES: [&str; 2] = ["p50", "p99"];

/// What a limit is set against.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Against {
    /// The new figure itself.
    New(f64),
    /// Its difference from the old one.
    Difference(f64),
    /// The same as a share of the old one.
    Change(f64),
}

/// What must not be.
#[derive(Debug, Clone, PartialEq)]
pub struct FailIf {
    expr: String,
    key: String,
    op: Op,
    against: Against,
}

impl FromStr for FailIf {
    type Err = String;

    /// `KEY OP VALUE`: a value with a sign is a change (`+10%` of the old figure, `-2` of its
    /// unit), one without is the new figure itself.
    fn from_str(text: &str) -> Result<Self, String> {
        const HINT: &str = "write it like video.latency_ms.p99>+10% or video.loss_rate>1%";
        let (key, op, value) = sides(text, HINT)?;
        Keys::of_schema().check(key)?;
        let against = against(value, unit(key))
            .map_err(|error| format!("'{value}' after '{key}{op}': {error}"))?;
        Ok(Self { expr: format!("{key}{op}{value}"), key: key.to_owned(), op, against })
    }
}

fn against(value: &str, unit: Unit) -> Result<Against, String> {
    let sign = match value.as_bytes() {
        [b'+', ..] => 1.0,
        [b'-', ..] => -1.0,
        _ => return limit(value, unit).map(Against::New),
    };
    let size = &value[1..];
    match size.strip_suffix('%') {
        Some(percent) => match percent.trim().parse::<f64>() {
            Ok(percent) if percent.is_finite() && percent >= 0.0 => {
                Ok(Against::Change(sign * percent / 100.0))
            }
            _ => Err("it is not a percentage".to_owned()),
        },
        None => limit(size, unit).map(|size| Against::Difference(sign * size)),
    }
}

impl FailIf {
    /// The two figures that it is about. What it says of the difference is said of what the base
    /// would have been at the size of the new run.
    fn figures(&self, sides: &Sides) -> [Option<f64>; 2] {
        match self.against {
            Against::New(_) => sides.sums(&self.key),
            Against::Difference(_) => sides.at_the_new_size(&self.key),
            Against::Change(_) => sides.rates(&self.key).0,
        }
    }

    /// Whether it holds, and so fails; a figure that is missing where it is needed fails too.
    fn holds(&self, base: Option<f64>, new: Option<f64>) -> bool {
        let Some(new) = new else { return true };
        match (self.against, base) {
            (Against::New(limit), _) => self.op.holds(new, limit),
            (Against::Difference(limit), Some(base)) => self.op.holds(new - base, limit),
            (Against::Change(limit), Some(base)) => self.op.holds(change(base, new), limit),
            (Against::Difference(_) | Against::Change(_), None) => true,
        }
    }
}

/// As a share of the old figure; from 0 it is endless.
fn change(base: f64, new: f64) -> f64 {
    if base == new { 0.0 } else { (new - base) / base.abs() }
}

/// The figures of both.
struct Sides {
    figures: [Value; 2],
    /// Counters that each of them does not know: its file is of a version before them.
    lacks: [Vec<&'static str>; 2],
    /// Of runs that were not asked for the same.
    sizes: Option<[Size; 2]>,
}

impl Sides {
    fn sums(&self, key: &str) -> [Option<f64>; 2] {
        let lacks = self.lacking(key);
        [0, 1].map(|side: usize| keys::value(&self.figures[side], key).filter(|_| !lacks[side]))
    }

    /// Which of the two do not know a counter.
    fn lacking(&self, key: &str) -> [bool; 2] {
        let counter = counter(key).map_or("", |counter| &counter.key);
        [0, 1].map(|side: usize| self.lacks[side].contains(&counter))
    }

    /// What each is divided by; `None` if they are compared as they are.
    fn divisors(&self, key: &str) -> Option<[f64; 2]> {
        let sizes = self.sizes.filter(|_| Per::of(key) != Per::Nothing)?;
        let of = |side: usize| sizes[side].divisor(key, &self.figures[side]);
        Some([of(0)?, of(1)?])
    }

    /// Divided, if they are sums of unlike runs, with what by.
    fn rates(&self, key: &str) -> ([Option<f64>; 2], Per) {
        let [base, new] = self.sums(key);
        match self.divisors(key) {
            Some([of_base, of_new]) => {
                ([base.map(|sum| sum / of_base), new.map(|sum| sum / of_new)], Per::of(key))
            }
            None => ([base, new], Per::Nothing),
        }
    }

    fn at_the_new_size(&self, key: &str) -> [Option<f64>; 2] {
        let [base, new] = self.sums(key);
        let [of_base, of_new] = self.divisors(key).unwrap_or([1.0; 2]);
        [base.map(|sum| sum / of_base * of_new), new]
    }
}

/// Says in what the runs differ.
fn say_differences(text: &mut String, differences: &[unlike::Difference]) {
    let _ = writeln!(text, "  the options differ, so the figures are of unlike runs:");
    for unlike::Difference { name, base, new } in differences {
        let _ = writeln!(text, "    {name:<34}  {base} -> {new}");
    }
    let _ = writeln!(text, "  {}\n", unlike::LEGEND);
}

/// Both in words, with what follows from `fail_if` and from their verdicts.
///
/// # Errors
/// A report that can't be put into JSON, in serde's words.
pub fn compare(
    base: &Report,
    new: &Report,
    fail_if: &[FailIf],
    colour: bool,
) -> Result<(String, Exit), String> {
    let value = |report| serde_json::to_value(report).map_err(|error| error.to_string());
    let differences = unlike::differences(base, new);
    let sides = Sides {
        figures: [value(base)?, value(new)?],
        lacks: [base, new].map(|report| report.lacks.clone()),
        sizes: (!differences.is_empty()).then(|| [base, new].map(Size::of)),
    };
    let mut text = String::new();
    if !differences.is_empty() {
        say_differences(&mut text, &differences);
    }
    for (name, report) in [("base", base), ("new", new)] {
        let word = report.verdict.result.word();
        let _ = writeln!(text, "  {name:<5} {word:<11} {}", super::out::headline(report));
    }
    text.push('\n');
    table(&mut text, &sides, colour);
    let mut exit = Exit::Pass;
    for test in fail_if {
        let values = test.figures(&sides);
        let holds = test.holds(values[0], values[1]);
        if holds {
            exit = Exit::Threshold;
        }
        let word = paint(if holds { "FAILED" } else { "kept" }, Some(!holds), colour, 6);
        let per = match test.against {
            Against::Change(_) => sides.rates(&test.key).1,
            Against::New(_) | Against::Difference(_) => Per::Nothing,
        };
        let [old, new] = values.map(|value| figure(value, &test.key, per));
        let line = format!("  {word}  fail if {}: {old} -> {new} {}", test.expr, per.name());
        let _ = writeln!(text, "{}", line.trim_end());
    }
    for (name, report) in [("base", base), ("new", new)] {
        match report.verdict.result {
            Outcome::Pass | Outcome::Fail => {}
            Outcome::Invalid => {
                let _ = writeln!(text, "  the {name} run is invalid: its figures say nothing");
                exit = if exit == Exit::Interrupted { exit } else { Exit::Invalid };
            }
            Outcome::Interrupted => {
                let _ =
                    writeln!(text, "  the {name} run was interrupted: its figures are of a part");
                exit = Exit::Interrupted;
            }
        }
    }
    Ok((text, exit))
}

fn figure(value: Option<f64>, key: &str, per: Per) -> String {
    match (value, unit(key)) {
        (None, _) => "no value".to_owned(),
        (Some(value), Unit::Plain) if per != Per::Nothing => significant(value),
        (Some(value), Unit::Seconds) if per != Per::Nothing => format!("{} s", significant(value)),
        (Some(value), unit) => shown(value, unit),
    }
}

/// With three digits, however small: a rate of a large run is.
fn significant(value: f64) -> String {
    if value == 0.0 || value.abs() >= 100.0 {
        return plain((value * 10.0).round() / 10.0);
    }
    let digits = (2.0 - value.abs().log10().floor()).clamp(0.0, 9.0) as usize;
    let text = format!("{value:.digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Figures that differ, and how many do so too little to be listed.
fn table(text: &mut String, sides: &Sides, colour: bool) {
    let keys = Keys::of_schema();
    let (mut small, mut unknown) = (0, 0);
    let mut rows = 0;
    let mut listed: Vec<&str> = keys.iter().filter(|key| is_listed(key)).collect();
    // How long could be watched comes before why.
    listed.sort_by_key(|key| watch_rank(key));
    for key in listed {
        let ([was, is], per) = sides.rates(key);
        if was == is {
            continue;
        }
        if sides.lacking(key).contains(&true) {
            unknown += 1;
            continue;
        }
        let share = was.zip(is).map(|(was, is)| change(was, is));
        if share.is_some_and(|share| share.abs() < shown_from(key)) {
            small += 1;
            continue;
        }
        if rows == 0 {
            let (base, new) = ("base", "new");
            let _ =
                writeln!(text, "  {:<36}{base:>15}{new:>15}{:>9}{:>11}", "figure", "", "change");
        }
        rows += 1;
        let better = share.and_then(|share| match better(key) {
            Better::Lower => Some(share < 0.0),
            Better::Higher => Some(share > 0.0),
            Better::Neither => None,
        });
        let word = match better {
            Some(true) => "better",
            Some(false) => "worse",
            None => "",
        };
        let (was, is) = (figure(was, key, per), figure(is, key, per));
        let share = share.map_or(String::new(), percent);
        let word = paint(word, better, colour, 0);
        let per = per.name();
        let line = format!("  {key:<36}{was:>15}{is:>15} {per:<8}{share:>11}  {word}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if rows > 0 {
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "  {rows} figures changed, {small} more by less than {} %",
        plain(SHOWN_CHANGE_MIN * 100.0)
    );
    if unknown > 0 {
        let _ =
            writeln!(text, "  {unknown} counters are known of one report only, the other is older");
    }
    text.push('\n');
}

fn percent(share: f64) -> String {
    if share.is_infinite() { "from 0".to_owned() } else { format!("{:+.1} %", share * 100.0) }
}

/// The least change of a figure that is listed. What nearly all of is watched changes little until
/// nobody would watch it.
fn shown_from(key: &str) -> f64 {
    match key.contains("watch_ratio") {
        true => SHOWN_CHANGE_MIN / 100.0,
        false => SHOWN_CHANGE_MIN,
    }
}

/// Watch time comes first, of all and of the subscribers, and what it is made of.
fn watch_rank(key: &str) -> usize {
    const NAMES: [&str; 6] = [
        "watch_ratio",
        "watch_ratio_subscribers",
        "interruptions",
        "short_gaps_s",
        "expected_s",
        "played_s",
    ];
    let place = NAMES.iter().position(|name| key.split('.').any(|word| word == *name));
    place.unwrap_or(NAMES.len())
}

fn is_listed(key: &str) -> bool {
    let (parent, last) = key.rsplit_once('.').unwrap_or(("", key));
    let ratios = parent.ends_with("watch_ratio_subscribers");
    let of_distribution = ratios
        || parent.ends_with("_ms")
        || parent.ends_with(".ms")
        || parent.ends_with("length_s")
        || parent.contains("phases_ms");
    // Of how much each could watch the least is what the most is elsewhere.
    let percentiles = if ratios { ["p50", "min"] } else { SHOWN_PERCENTILES };
    let whole_sfu = key.starts_with("server.embedded.") && !key.contains(".measured.");
    !(key.starts_with("run.") || key == "streams_total" || whole_sfu)
        && (!of_distribution || percentiles.contains(&last))
}

fn paint(word: &str, good: Option<bool>, colour: bool, width: usize) -> String {
    let padded = format!("{word:<width$}");
    let Some(good) = good.filter(|_| colour) else { return padded };
    let style = if good { AnsiColor::Green } else { AnsiColor::Red };
    let style = Style::new().fg_color(Some(style.into()));
    format!("{style}{padded}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> FailIf {
        text.parse().unwrap()
    }

    #[test]
    fn a_sign_means_a_change_and_none_the_figure_itself() {
        for (text, base, new, holds) in [
            ("video.latency_ms.p99>+10%", 100.0, 111.0, true),
            ("video.latency_ms.p99>+10%", 100.0, 110.0, false),
            ("video.latency_ms.p99>+10%", 100.0, 50.0, false),
            ("video.latency_ms.p99>+5ms", 100.0, 106.0, true),
            ("video.latency_ms.p99>+5", 100.0, 104.0, false),
            ("video.fps<-2", 25.0, 22.9, true),
            ("video.fps<-10%", 25.0, 23.0, false),
            ("video.loss_rate>1%", 0.5, 0.011, true),
            ("video.loss_rate>+0.01", 0.02, 0.025, false),
            ("join.failed>+0%", 0.0, 1.0, true),
            ("join.failed>+0%", 0.0, 0.0, false),
        ] {
            assert_eq!(one(text).holds(Some(base), Some(new)), holds, "{text} {base} {new}");
        }
    }

    #[test]
    fn a_figure_that_is_not_there_fails() {
        assert!(one("video.fps<20").holds(Some(25.0), None));
        assert!(one("video.fps<-10%").holds(None, Some(25.0)));
        assert!(!one("video.fps<20").holds(None, Some(25.0)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("video.fps", "compares nothing"),
            ("video.fsp>1", "did you mean 'video.fps'?"),
            ("video.fps>", "lacks a side"),
            ("video.fps<-x%", "not a percentage"),
            ("video.fps<+1Mbps", "no unit"),
        ] {
            let error = text.parse::<FailIf>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_counter_that_a_report_is_too_old_to_know_is_unknown_and_has_not_grown() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = serde_json::to_value(crate::testing::report()).unwrap();
        file["video"]["packets"].as_object_mut().unwrap().remove("server_made");
        file["join"].as_object_mut().unwrap().remove("pending");
        let path = dir.path().join("old.json");
        std::fs::write(&path, file.to_string()).unwrap();
        let old = crate::read(&path).unwrap();
        assert_eq!(old.lacks, ["video.packets.server_made"]);
        let mut new = old.clone();
        new.lacks.clear();
        new.video.as_mut().unwrap().packets.server_made = 9;
        let test = one("video.packets.server_made>+0");
        let (text, exit) = compare(&old, &new, &[test], false).unwrap();
        assert!(text.contains("0 figures changed, 0 more"), "{text}");
        assert!(text.contains("1 counters are known of one report only"), "{text}");
        assert!(text.contains("no value -> 9"), "{text}");
        assert_eq!(exit, Exit::Threshold, "what is not known is not kept");
    }

    #[test]
    fn the_table_lists_changes_with_their_direction() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/report.json");
        let base = crate::read(file.as_ref()).unwrap();
        let (text, exit) = compare(&base, &base, &[], false).unwrap();
        assert!(text.contains("0 figures changed, 0 more") && exit == Exit::Pass, "{text}");
        let mut new = base.clone();
        let video = new.video.as_mut().unwrap();
        video.fps = video.fps.map(|fps| fps * 2.0);
        video.loss_rate = Some(0.5);
        video.packets.received += 1;
        let tests = ["video.loss_rate>40%".parse().unwrap(), one("video.fps<-1%")];
        let (text, exit) = compare(&base, &new, &tests, false).unwrap();
        assert_eq!(exit, Exit::Threshold);
        let line = |key: &str| text.lines().find(|line| line.contains(key)).unwrap().to_owned();
        assert!(line("video.fps ").contains("+100.0 %  better"), "{text}");
        assert!(line("video.loss_rate ").ends_with("worse"), "{text}");
        assert!(text.contains("2 figures changed, 1 more by less than 1 %"), "{text}");
        assert!(text.contains("FAILED  fail if video.loss_rate>40%"), "{text}");
        assert!(text.contains("kept    fail if video.fps<-1%"), "{text}");
        new.verdict.result = Outcome::Interrupted;
        let (text, exit) = compare(&base, &new, &tests, false).unwrap();
        assert!(exit == Exit::Interrupted && text.contains("new   INTERRUPTED "), "{text}");
        let watched = crate::testing::watched;
        new.verdict.result = Outcome::Fail;
        let mut base = new.clone();
        base.video.as_mut().unwrap().watch = watched(&[(1_000, 0)]);
        new.video.as_mut().unwrap().watch = watched(&[(1_000, 2)]);
        new.audio.as_mut().unwrap().fps = Some(1.0);
        let test = [one("video.watch_ratio<-0.1%")];
        let (text, exit) = compare(&base, &new, &test, false).unwrap();
        assert_eq!(exit, Exit::Threshold, "{text}");
        let at = |key: &str| text.find(key).unwrap_or_else(|| panic!("no {key}: {text}"));
        assert!(at("video.watch_ratio ") < at("audio.fps "), "{text}");
        assert!(at("video.interruptions.causes.silent.total_s ") < at("audio.fps "), "{text}");
        let line = |key: &str| text.lines().find(|line| line.contains(key)).unwrap().to_owned();
        assert!(line("video.watch_ratio ").ends_with("worse"), "{text}");
        assert!(line("video.interruptions.total_s ").ends_with("from 0  worse"), "{text}");
        new.verdict.result = Outcome::Invalid;
        assert_eq!(compare(&base, &new, &tests, false).unwrap().1, Exit::Invalid);
    }

    #[test]
    fn ways_back_are_compared_like_other_figures() {
        let mut base = crate::testing::report();
        base.lacks.clear();
        let mut new = base.clone();
        let way = &mut new.recoveries.ice_restart;
        (way.counted.tries, way.counted.failed) = (7, 1);
        way.ms = base.join.phases_ms.dtls.clone();
        let test = [one("recoveries.ice_restart.ms.p99>1s"), one("recoveries.resume.failed>0")];
        let (text, exit) = compare(&base, &new, &test, false).unwrap();
        let line = |key: &str| text.lines().find(|line| line.contains(key));
        assert!(line("recoveries.ice_restart.ms.p99 ").is_some(), "{text}");
        assert_eq!(line("recoveries.ice_restart.ms.p90 "), None, "{text}");
        let failed = line("recoveries.ice_restart.failed ").unwrap();
        assert!(failed.ends_with("from 0  worse"), "{text}");
        assert_eq!(exit, Exit::Pass, "{text}");
    }

    #[test]
    fn runs_of_unlike_size_are_compared_by_rates_and_that_is_said_first() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/report.json");
        let base = crate::read(file.as_ref()).unwrap();
        let mut new = base.clone();
        // Twice as many subscribers with twice the packets, and three times the NACKs.
        new.run.options.as_mut().unwrap().subscribers *= 2;
        let video = new.video.as_mut().unwrap();
        video.packets.expected *= 2;
        video.packets.received *= 2;
        video.feedback.nack_sent = 300;
        let mut base = base;
        base.video.as_mut().unwrap().feedback.nack_sent = 100;
        let tests = [
            one("video.packets.expected>+1%"),
            one("video.nack_sent>+60%"),
            one("video.nack_sent>+40%"),
            one("video.nack_sent>+90"),
            one("video.nack_sent>299"),
        ];
        let (text, _) = compare(&base, &new, &tests, false).unwrap();
        let first = text.lines().next().unwrap();
        assert!(first.contains("the options differ"), "{text}");
        let line = |word: &str| text.lines().find(|line| line.contains(word)).unwrap_or_default();
        assert!(line("subscribers  ").contains(" -> "), "{text}");
        assert!(line("  video.nack_sent ").contains("/sub s"), "{text}");
        assert!(line("  video.nack_sent ").ends_with("+50.0 %  worse"), "{text}");
        assert!(!text.contains("\n  video.packets.expected "), "the same rate: {text}");
        assert!(line("fail if video.packets.expected>+1%").contains("kept"), "{text}");
        assert!(line("fail if video.nack_sent>+60%").contains("kept"), "{text}");
        assert!(line("fail if video.nack_sent>+40%").contains("FAILED"), "{text}");
        // 100 would have been 200 at twice the size.
        assert!(line("fail if video.nack_sent>+90:").contains("FAILED"), "{text}");
        assert!(line("fail if video.nack_sent>+90:").ends_with("200 -> 300"), "{text}");
        assert!(line("fail if video.nack_sent>299").contains("FAILED"), "{text}");
    }

    #[test]
    fn small_rates_keep_their_digits() {
        for (value, text) in
            [(0.0, "0"), (0.000_123_4, "0.000123"), (23.65, "23.6"), (12_345.67, "12345.7")]
        {
            assert_eq!(significant(value), text);
        }
    }
}
