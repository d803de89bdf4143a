//! `stampede compare`: one report against another.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::str::FromStr;

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use super::keys::{self, Better, Keys, Unit};
use super::threshold::{Op, limit, plain, shown, sides};
use super::types::{Outcome, Report};
use crate::console;
use crate::exit::{Exit, Failure};
use crate::flags::CompareFlags;
use crate::live::no_color;

/// Changes smaller than this share are counted, not listed.
const SHOWN_CHANGE_MIN: f64 = 0.01;
/// Of a distribution these are listed.
const SHOWN_PERCENTILES: [&str; 2] = ["p50", "p99"];
/// And these not.
const OTHER_PERCENTILES: [&str; 7] = ["count", "min", "mean", "p90", "p95", "p999", "max"];

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
pub(crate) struct FailIf {
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
        let against = against(value, keys::unit(key))
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

/// `stampede compare`.
///
/// # Errors
/// Files that can't be read.
pub(crate) fn command(flags: &CompareFlags) -> Result<Exit, Failure> {
    let (base, new) = (super::read(&flags.base)?, super::read(&flags.new)?);
    let colour = io::stdout().is_terminal() && !no_color();
    let (text, exit) = compare(&base, &new, &flags.fail_if, colour).map_err(Failure::other)?;
    console::out(&text);
    Ok(exit)
}

fn compare(
    base: &Report,
    new: &Report,
    fail_if: &[FailIf],
    colour: bool,
) -> Result<(String, Exit), String> {
    let value = |report| serde_json::to_value(report).map_err(|error| error.to_string());
    let (old_figures, new_figures) = (value(base)?, value(new)?);
    let mut text = String::new();
    for (name, report) in [("base", base), ("new", new)] {
        let word = format!("{:?}", report.verdict.result).to_uppercase();
        let _ = writeln!(text, "  {name:<5} {word:<8} {}", super::out::headline(report));
    }
    text.push('\n');
    table(&mut text, &old_figures, &new_figures, colour);
    let mut exit = Exit::Pass;
    for test in fail_if {
        let values = [&old_figures, &new_figures].map(|figures| keys::value(figures, &test.key));
        let holds = test.holds(values[0], values[1]);
        if holds {
            exit = Exit::Threshold;
        }
        let word = paint(if holds { "FAILED" } else { "kept" }, Some(!holds), colour, 6);
        let [old, new] = values.map(|value| figure(value, keys::unit(&test.key)));
        let _ = writeln!(text, "  {word}  fail if {}: {old} -> {new}", test.expr);
    }
    for (name, report) in [("base", base), ("new", new)] {
        if report.verdict.result == Outcome::Invalid {
            let _ = writeln!(text, "  the {name} run is invalid: its figures say nothing");
            exit = Exit::Invalid;
        }
    }
    Ok((text, exit))
}

fn figure(value: Option<f64>, unit: Unit) -> String {
    value.map_or("no value".to_owned(), |value| shown(value, unit))
}

/// Figures that differ, and how many do so too little to be listed.
fn table(text: &mut String, old: &Value, new: &Value, colour: bool) {
    let keys = Keys::of_schema();
    let mut small = 0;
    let mut rows = 0;
    for key in keys.iter().filter(|key| is_listed(key)) {
        let (was, is) = (keys::value(old, key), keys::value(new, key));
        if was == is {
            continue;
        }
        let share = was.zip(is).map(|(was, is)| change(was, is));
        if share.is_some_and(|share| share.abs() < SHOWN_CHANGE_MIN) {
            small += 1;
            continue;
        }
        if rows == 0 {
            let _ = writeln!(text, "  {:<36}{:>15}{:>15}{:>11}", "figure", "base", "new", "change");
        }
        rows += 1;
        let better = share.and_then(|share| match keys::better(key) {
            Better::Lower => Some(share < 0.0),
            Better::Higher => Some(share > 0.0),
            Better::Neither => None,
        });
        let word = match better {
            Some(true) => "better",
            Some(false) => "worse",
            None => "",
        };
        let unit = keys::unit(key);
        let (was, is) = (figure(was, unit), figure(is, unit));
        let share = share.map_or(String::new(), percent);
        let word = paint(word, better, colour, 0);
        let line = format!("  {key:<36}{was:>15}{is:>15}{share:>11}  {word}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if rows > 0 {
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "  {rows} figures changed, {small} more by less than {} %\n",
        plain(SHOWN_CHANGE_MIN * 100.0)
    );
}

fn percent(share: f64) -> String {
    if share.is_infinite() { "from 0".to_owned() } else { format!("{:+.1} %", share * 100.0) }
}

fn is_listed(key: &str) -> bool {
    let (parent, last) = key.rsplit_once('.').unwrap_or(("", key));
    let of_distribution = parent.ends_with("_ms") || parent.contains("phases_ms");
    let whole_sfu = key.starts_with("server.embedded.") && !key.contains(".measured.");
    let other_percentile = of_distribution && OTHER_PERCENTILES.contains(&last);
    !(key.starts_with("run.") || key == "streams_total" || whole_sfu || other_percentile)
        && (!of_distribution || SHOWN_PERCENTILES.contains(&last))
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
    fn the_table_lists_changes_with_their_direction() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/report.json");
        let base = super::super::read(file.as_ref()).unwrap();
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
        new.verdict.result = Outcome::Invalid;
        assert_eq!(compare(&base, &new, &tests, false).unwrap().1, Exit::Invalid);
    }
}
