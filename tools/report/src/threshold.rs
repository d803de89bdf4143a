//! Thresholds: what a run has to keep to pass (`--threshold`).
//!
//! `KEY OP VALUE [&& KEY OP VALUE]… [abort [after DUR]]`: a key of the JSON report, `<`, `<=`,
//! `>`, `>=`, `==` or `!=`, and a number in the key's unit, or with one (`1%`, `250ms`, `2Mbps`,
//! `64MB`) where the key has one. A figure without a value never passes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde_json::Value;
use stampede_core::MediaKind;
use stampede_units::parse;

use super::keys::{self, Keys};
use super::running;
use super::types::{Fault, Outcome, Report, ThresholdRow, Verdict};
use super::unit::{Unit, unit};

/// What the reason of a failed threshold begins with.
const REASON: &str = "threshold ";

/// How a figure is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `<`
    Less,
    /// `<=`
    LessEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterEqual,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

/// By name. Longer ones first: `<=` begins with `<`.
const OPS: [(&str, Op); 6] = [
    ("<=", Op::LessEqual),
    (">=", Op::GreaterEqual),
    ("==", Op::Equal),
    ("!=", Op::NotEqual),
    ("<", Op::Less),
    (">", Op::Greater),
];

impl Op {
    /// True if `value` keeps it.
    pub fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Self::Less => value < limit,
            Self::LessEqual => value <= limit,
            Self::Greater => value > limit,
            Self::GreaterEqual => value >= limit,
            Self::Equal => value == limit,
            Self::NotEqual => value != limit,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = OPS.iter().find(|(_, op)| op == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

/// One comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    /// As given, without its neighbours.
    pub expr: String,
    /// The figure.
    pub key: String,
    /// How it is compared.
    pub op: Op,
    /// With what, in the unit of the key.
    pub limit: f64,
    /// Ends the run when crossed, once this long has passed since its start; `None` is looked at
    /// only at the end.
    pub abort_after: Option<Duration>,
}

/// What one `--threshold` holds: one or more comparisons, all to be kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds(pub Vec<Threshold>);

impl FromStr for Thresholds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (tests, abort_after) = split_abort(text)?;
        let keys = Keys::of_schema();
        let parse = |part: &str| comparison(part.trim(), abort_after, &keys);
        tests.split("&&").map(parse).collect::<Result<_, _>>().map(Self)
    }
}

/// The `abort` at the end, if there is one.
fn split_abort(text: &str) -> Result<(&str, Option<Duration>), String> {
    let Some((tests, rest)) = text.split_once(" abort") else { return Ok((text, None)) };
    match rest.split_whitespace().collect::<Vec<_>>()[..] {
        [] if rest.trim().is_empty() => Ok((tests, Some(Duration::ZERO))),
        ["after", duration] => {
            let after = parse::duration(duration)
                .map_err(|error| format!("'{duration}' after 'abort after': {error}"))?;
            Ok((tests, Some(after)))
        }
        _ => Err(format!("'abort{rest}' is not understood; write 'abort' or 'abort after 10s'")),
    }
}

fn comparison(text: &str, abort_after: Option<Duration>, keys: &Keys) -> Result<Threshold, String> {
    const HINT: &str = "write it like video.loss_rate<1% or video.latency_ms.p95<250ms";
    let (key, op, value) = sides(text, HINT)?;
    keys.check(key)?;
    let limit =
        limit(value, unit(key)).map_err(|error| format!("'{value}' after '{key}{op}': {error}"))?;
    if abort_after.is_some() && !keys::has(&running::shape(), key) {
        let why = running::at_the_end(key).map_or(String::new(), |why| format!(" ({why})"));
        return Err(format!(
            "'{key}' is known only at the end of a run{why}: leave 'abort' out, or use a count or a \
             rate of join, recoveries, video, audio, publish, data, rpc, generator or \
             impairment"
        ));
    }
    let expr = format!("{key}{op}{value}");
    Ok(Threshold { expr, key: key.to_owned(), op, limit, abort_after })
}

/// Key, operator and value of a comparison. `hint` shows how one is written.
///
/// # Errors
/// That it compares nothing, or lacks a side.
pub fn sides<'a>(text: &'a str, hint: &str) -> Result<(&'a str, Op, &'a str), String> {
    let found = OPS.iter().filter_map(|(name, op)| Some((text.find(name)?, *name, *op)));
    // The leftmost; of two that begin there the longer, which comes first.
    let (at, name, op) = found
        .min_by_key(|(at, ..)| *at)
        .ok_or_else(|| format!("'{text}' compares nothing (<, <=, >, >=, ==, !=); {hint}"))?;
    let (key, value) = (text[..at].trim(), text[at + name.len()..].trim());
    if key.is_empty() || value.is_empty() {
        return Err(format!("'{text}' lacks a side; {hint}"));
    }
    Ok((key, op, value))
}

/// A number in the unit of its key.
pub fn limit(text: &str, unit: Unit) -> Result<f64, String> {
    if let Ok(number) = text.parse::<f64>() {
        return number.is_finite().then_some(number).ok_or_else(|| "it is not finite".to_owned());
    }
    let seconds = || parse::duration(text).map(|value| value.as_secs_f64());
    let value = match unit {
        Unit::Share => parse::percent(text),
        Unit::Nanoseconds => parse::duration(text).map(|value| value.as_nanos() as f64),
        Unit::Milliseconds => seconds().map(|value| value * 1e3),
        Unit::Seconds => seconds(),
        Unit::BitsPerSecond => parse::bits_per_second(text),
        Unit::Bytes => parse::bytes(text),
        Unit::Plain => return Err("it is not a number, and this figure has no unit".to_owned()),
    };
    value.map_err(|error| error.to_string())
}

impl Threshold {
    /// True if it replaces the fixed bound on the loss of this kind of media.
    pub fn bounds_loss_of(&self, kind: MediaKind) -> bool {
        let section = match kind {
            MediaKind::Video => "video.",
            MediaKind::Audio => "audio.",
        };
        let figure = self.key.strip_prefix(section);
        matches!(figure, Some("loss_rate" | "packets.unrecovered"))
    }

    /// True if it replaces the fixed bound on smaller pictures than those asked for.
    pub fn bounds_layers(&self) -> bool {
        self.key.starts_with("video.layers.")
    }
}

/// The first threshold that ends a run after `elapsed`, with the figure that crossed it. What has
/// no value yet is not crossed yet.
pub fn crossed<'a>(
    thresholds: &'a [Threshold],
    running: &Value,
    elapsed: Duration,
) -> Option<(&'a Threshold, f64)> {
    thresholds.iter().find_map(|threshold| {
        threshold.abort_after.filter(|after| elapsed >= *after)?;
        let value = keys::value(running, &threshold.key)?;
        (!threshold.op.holds(value, threshold.limit)).then_some((threshold, value))
    })
}

/// What crossed and so ended a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Crossed {
    /// [`Threshold::expr`].
    pub expr: String,
    /// The figure of that moment.
    pub value: f64,
}

/// Sets the figures of a report against its thresholds, and puts rows and verdict into it.
pub fn apply(report: &mut Report, thresholds: &[Threshold], crossed: Option<&Crossed>) {
    let Ok(figures) = serde_json::to_value(&*report) else { return };
    report.thresholds = thresholds.iter().map(|test| row(test, &figures, crossed)).collect();
    blame(&mut report.verdict, &report.thresholds);
}

/// Sets a finished report against further thresholds.
pub fn add(report: &mut Report, thresholds: &[Threshold]) {
    let Ok(figures) = serde_json::to_value(&*report) else { return };
    let rows: Vec<_> = thresholds.iter().map(|test| row(test, &figures, None)).collect();
    blame(&mut report.verdict, &rows);
    report.thresholds.extend(rows);
}

fn row(test: &Threshold, figures: &Value, crossed: Option<&Crossed>) -> ThresholdRow {
    let ended = crossed.filter(|crossed| crossed.expr == test.expr && test.abort_after.is_some());
    let value = match ended {
        Some(crossed) => Some(crossed.value),
        None => keys::value(figures, &test.key),
    };
    let holds = value.is_some_and(|value| test.op.holds(value, test.limit));
    ThresholdRow {
        expr: test.expr.clone(),
        value,
        ok: holds && ended.is_none(),
        aborted: ended.is_some(),
    }
}

/// A failed threshold makes a pass a failure; an invalid run stays one.
fn blame(verdict: &mut Verdict, rows: &[ThresholdRow]) {
    let mut failed = rows.iter().filter(|row| !row.ok).peekable();
    if failed.peek().is_some() && verdict.result == Outcome::Pass {
        verdict.result = Outcome::Fail;
        if verdict.fault == Fault::None {
            verdict.fault = Fault::Unknown;
        }
    }
    verdict.reasons.extend(failed.map(|row| format!("{REASON}{}", said(row))));
}

/// `video.loss_rate<1% was not kept: 2.31 %`.
fn said(row: &ThresholdRow) -> String {
    let word = if row.ok { "kept" } else { "not kept" };
    format!("{} was {word}: {}", row.expr, row.value_text())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(text: &str) -> Result<Vec<Threshold>, String> {
        text.parse::<Thresholds>().map(|thresholds| thresholds.0)
    }

    fn one(text: &str) -> Threshold {
        let [threshold] = <[Threshold; 1]>::try_from(parse(text).unwrap()).unwrap();
        threshold
    }

    #[test]
    fn values_are_taken_in_the_units_of_their_keys() {
        for (text, op, limit) in [
            ("video.loss_rate<0.01", Op::Less, 0.01),
            ("video.loss_rate <= 1%", Op::LessEqual, 0.01),
            ("video.latency_ms.p95<250", Op::Less, 250.0),
            ("video.latency_ms.p95<0.25s", Op::Less, 250.0),
            ("video.freezes.total_s<1m30s", Op::Less, 90.0),
            ("video.bitrate_bps>=2Mbps", Op::GreaterEqual, 2e6),
            ("generator.rss_bytes<1.5GB", Op::Less, 1.5e9),
            ("generator.cpu_ns_per_packet<5us", Op::Less, 5_000.0),
            ("join.failed==0", Op::Equal, 0.0),
            ("join.errors.http_503!=3", Op::NotEqual, 3.0),
            ("recoveries.ice_restart.ms.p99<=1s", Op::LessEqual, 1_000.0),
        ] {
            let threshold = one(text);
            assert_eq!(threshold.op, op, "{text}");
            assert!((threshold.limit - limit).abs() < 1e-9 * limit.max(1.0), "{text}");
            assert_eq!(threshold.abort_after, None);
        }
    }

    #[test]
    fn conjunctions_are_rows_of_their_own_and_share_the_abort() {
        let both = parse("video.loss_rate<5% && join.failed<10 abort after 10s").unwrap();
        assert_eq!(both.len(), 2);
        assert_eq!(both[1].expr, "join.failed<10");
        assert!(both.iter().all(|one| one.abort_after == Some(Duration::from_secs(10))));
        for text in ["join.failed<1 abort", "recoveries.full_reconnect.failed==0 abort"] {
            assert_eq!(one(text).abort_after, Some(Duration::ZERO), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("video.los_rate<1%", "did you mean 'video.loss_rate'?"),
            ("video.loss_rate", "compares nothing"),
            ("video.loss_rate<", "lacks a side"),
            ("video.loss_rate<many", "% sign is missing"),
            ("video.loss_rate<NaN", "not finite"),
            ("join.failed<1%", "has no unit"),
            ("video.latency_ms.p95<2Mbps", "unit"),
            ("video.loss_rate<1% abort soon", "'abort' or 'abort after 10s'"),
            ("video.loss_rate<1% abort after 10", "without a unit"),
            ("video.jitter_ms.p99<10 abort", "known only at the end of a run: "),
            ("recoveries.resume.ms.p99<3s abort", "known only at the end of a run: "),
            ("recordings.frames_dropped<1 abort", "at the end of a run (files are counted when"),
            ("", "compares nothing"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_run_is_ended_by_a_value_never_by_its_absence() {
        let thresholds = parse("video.loss_rate<5% abort after 10s").unwrap();
        let figures = |rate: Value| json!({"video": {"loss_rate": rate}});
        let at = Duration::from_secs;
        assert_eq!(crossed(&thresholds, &figures(json!(null)), at(20)), None);
        assert_eq!(crossed(&thresholds, &figures(json!(0.9)), at(9)), None);
        assert_eq!(crossed(&thresholds, &figures(json!(0.01)), at(20)), None);
        assert_eq!(crossed(&thresholds, &figures(json!(0.9)), at(10)).unwrap().1, 0.9);
        let unarmed = parse("video.loss_rate<5%").unwrap();
        assert_eq!(crossed(&unarmed, &figures(json!(0.9)), at(20)), None);
    }

    #[test]
    fn rows_have_value_and_verdict_and_null_never_passes() {
        let figures = json!({"video": {"loss_rate": 0.02, "latency_ms": null}});
        let row_of = |text: &str, crossed: Option<&Crossed>| row(&one(text), &figures, crossed);
        let kept = row_of("video.loss_rate<5%", None);
        assert_eq!((kept.value, kept.ok), (Some(0.02), true));
        let failed = row_of("video.loss_rate<1%", None);
        assert_eq!((failed.value, failed.ok), (Some(0.02), false));
        for text in ["video.latency_ms.p95<250", "video.latency_ms.p95!=1"] {
            let row = row_of(text, None);
            assert_eq!((row.value, row.ok), (None, false), "{text}");
            assert!(said(&row).ends_with("was not kept: no value"));
        }
        let crossed = Crossed { expr: "video.loss_rate<5%".to_owned(), value: 0.4 };
        let ended = row_of("video.loss_rate<5% abort", Some(&crossed));
        assert_eq!((ended.value, ended.ok, ended.aborted), (Some(0.4), false, true));
        assert!(said(&ended).ends_with("40.00 %; it ended the run"), "{}", said(&ended));
    }

    #[test]
    fn a_failed_threshold_turns_a_pass_into_a_failure_and_leaves_an_invalid_run_invalid() {
        let rows = [ThresholdRow {
            expr: "join.failed<1".to_owned(),
            value: Some(2.0),
            ok: false,
            aborted: false,
        }];
        let judged = |result, fault| {
            let mut verdict = Verdict { result, fault, reasons: Vec::new() };
            blame(&mut verdict, &rows);
            verdict
        };
        let failed = judged(Outcome::Pass, Fault::None);
        assert_eq!((failed.result, failed.fault), (Outcome::Fail, Fault::Unknown));
        assert_eq!(failed.reasons, ["threshold join.failed<1 was not kept: 2"]);
        assert_eq!(judged(Outcome::Invalid, Fault::Generator).result, Outcome::Invalid);
        assert_eq!(judged(Outcome::Pass, Fault::Server).fault, Fault::Server);
    }

    #[test]
    fn only_thresholds_on_loss_replace_the_fixed_bound() {
        use MediaKind::{Audio, Video};
        let bounds = |expr| [Video, Audio].map(|kind| one(expr).bounds_loss_of(kind));
        assert_eq!(bounds("video.loss_rate<5%"), [true, false]);
        assert_eq!(bounds("audio.packets.unrecovered<100"), [false, true]);
        assert_eq!(bounds("publish.upstream_loss_rate<5%"), [false, false]);
        assert_eq!(bounds("join.failed<1"), [false, false]);
        assert!(one("video.layers.height_px.p50>=720").bounds_layers());
        assert!(!one("video.loss_rate<5%").bounds_layers());
    }
}
