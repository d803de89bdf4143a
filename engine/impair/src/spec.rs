//! What is to happen, as people write it.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stampede_units::show::ExactDuration;
use stampede_units::{UnitError, parse};

/// Longest mean burst of lost packets.
pub const BURST_PACKETS_MAX: u32 = 10_000;

/// Longest duration in a spec: a day. A longer one is a typing error.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Rates that a spec may ask for, in bits a second.
const RATE_BPS: RangeInclusive<f64> = 1e3..=100e9;

/// A span of time since the start of the run, `2s@10s`: two seconds long, from the tenth on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// How long after the start it begins.
    pub from: Duration,
    /// How long it lasts.
    pub length: Duration,
}

impl Window {
    /// Whether `since_start` lies in it.
    #[must_use]
    pub fn holds(&self, since_start: Duration) -> bool {
        since_start >= self.from && since_start < self.end()
    }

    /// How long after the start it ends.
    #[must_use]
    pub fn end(&self) -> Duration {
        self.from.saturating_add(self.length)
    }
}

impl FromStr for Window {
    type Err = ValueError;

    /// `LENGTH@START`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (length, from) = text.split_once('@').ok_or(ValueError::NoStart)?;
        let window = Self { from: duration(from)?, length: duration(length)? };
        if window.length.is_zero() { Err(ValueError::NoLength) } else { Ok(window) }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", ExactDuration(self.length), ExactDuration(self.from))
    }
}

/// Why a value can't be used. Its text is the end of a sentence that begins with the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// It is no duration, percentage or rate.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// A share of nothing.
    #[error("it must be above 0% and at most 100%")]
    NoShare,
    /// A duration of more than a day.
    #[error("it is longer than a day")]
    TooLong,
    /// A rate that no link has.
    #[error("it must lie between 1kbps and 100Gbps")]
    Rate,
    /// A burst of no packets, or of too many.
    #[error("it must be a whole number of packets, 1 to {BURST_PACKETS_MAX}")]
    Burst,
    /// A window without its start.
    #[error("the start is missing; write it like 2s@10s")]
    NoStart,
    /// A window of no length.
    #[error("it must be longer than 0")]
    NoLength,
}

fn duration(text: &str) -> Result<Duration, ValueError> {
    let duration = parse::duration(text)?;
    if duration <= DURATION_MAX { Ok(duration) } else { Err(ValueError::TooLong) }
}

fn share(text: &str) -> Result<f64, ValueError> {
    let share = parse::percent(text)?;
    if share > 0.0 { Ok(share) } else { Err(ValueError::NoShare) }
}

fn rate_bps(text: &str) -> Result<u64, ValueError> {
    let rate = parse::bits_per_second(text)?;
    if RATE_BPS.contains(&rate) { Ok(rate as u64) } else { Err(ValueError::Rate) }
}

/// One impairment and the share of subscribers it is for. Made by parsing
/// `cohort=10%,loss=1%,burst=5,delay=50ms,jitter=10ms,reorder=0.5%,duplicate=0.1%` and, in the same
/// text, `rate=1Mbps,rate_span=20s@10s,outage=2s@10s`; any keys, in any order, `rate_span` and `outage`
/// as often as wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    text: String,
    /// Share of all subscribers it is for, above 0 to 1.
    pub cohort: f64,
    /// Share of packets lost in the long run, 0 to 1.
    pub loss: f64,
    /// Mean length of a run of lost packets; 1 means independent losses, more is a
    /// Gilbert-Elliott model with the same overall share.
    pub burst_packets: u32,
    /// Every packet is this much later.
    pub delay: Duration,
    /// On top of `delay`, uniform between minus and plus this; a packet never overtakes another by
    /// it, and is never early.
    pub jitter: Duration,
    /// Share of packets held back so long that later ones overtake them.
    pub reorder: f64,
    /// Share of packets delivered twice.
    pub duplicate: f64,
    /// Bits a second (UDP payload) that pass; `None` lets all pass.
    pub rate_bps: Option<u64>,
    /// Spans in which `rate_bps` holds; without any it always does.
    pub rate_spans: Vec<Window>,
    /// Spans in which nothing passes, connectivity checks included.
    pub outages: Vec<Window>,
}

/// Why a spec can't be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// Nothing in it.
    #[error("it is empty; write it like loss=1%,delay=50ms")]
    Empty,
    /// No such key.
    #[error(
        "'{0}' is no key; use cohort, loss, burst, delay, jitter, reorder, duplicate, rate, \
         rate_span or outage"
    )]
    UnknownKey(String),
    /// A key without a value.
    #[error("'{0}' has no value; write it like loss=1%")]
    NoValue(String),
    /// A key that counts once.
    #[error("{0} is given twice; only rate_span and outage may be repeated")]
    Twice(&'static str),
    /// A value that is none.
    #[error("{key}={value}: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it, and what is allowed.
        reason: ValueError,
    },
    /// A cohort and nothing that happens to it.
    #[error("'{0}' does nothing; add loss, delay, jitter, reorder, duplicate, rate or outage")]
    Nothing(String),
    /// Spans of no rate.
    #[error("rate_span says when a rate holds, but there is none; add rate=1Mbps")]
    SpanWithoutRate,
    /// A mean burst of nothing.
    #[error("burst={0} is the length of lost runs, but there is no loss; add loss=1%")]
    BurstWithoutLoss(u32),
    /// Share and burst length can't both be had.
    #[error(
        "loss={:.4}% in bursts of {burst_packets} would need gaps shorter than one packet; use \
         longer bursts or a loss of at most {:.4}%",
        loss * 100.0,
        loss_max * 100.0
    )]
    Burst {
        /// The share asked for.
        loss: f64,
        /// The burst asked for.
        burst_packets: u32,
        /// The highest share possible with it.
        loss_max: f64,
    },
}

const KEYS: [&str; 10] = [
    "cohort",
    "loss",
    "burst",
    "delay",
    "jitter",
    "reorder",
    "duplicate",
    "rate",
    "rate_span",
    "outage",
];
/// Those that may be given more than once.
const REPEATED: [&str; 2] = ["rate_span", "outage"];

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut spec = Self {
            text: text.trim().to_owned(),
            cohort: 1.0,
            loss: 0.0,
            burst_packets: 1,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            reorder: 0.0,
            duplicate: 0.0,
            rate_bps: None,
            rate_spans: Vec::new(),
            outages: Vec::new(),
        };
        if spec.text.is_empty() {
            return Err(SpecError::Empty);
        }
        let mut seen = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (name, value) =
                part.split_once('=').ok_or_else(|| SpecError::NoValue(part.to_owned()))?;
            let (name, value) = (name.trim(), value.trim());
            let key = KEYS.into_iter().find(|key| *key == name);
            let key = key.ok_or_else(|| SpecError::UnknownKey(name.to_owned()))?;
            if !REPEATED.contains(&key) && seen.contains(&key) {
                return Err(SpecError::Twice(key));
            }
            seen.push(key);
            spec.set(key, value).map_err(|reason| SpecError::Value {
                key,
                value: value.to_owned(),
                reason,
            })?;
        }
        if seen.iter().all(|key| *key == "cohort") {
            return Err(SpecError::Nothing(spec.text));
        }
        spec.check(&seen)?;
        Ok(spec)
    }
}

impl Spec {
    fn set(&mut self, key: &str, value: &str) -> Result<(), ValueError> {
        match key {
            "cohort" => self.cohort = share(value)?,
            "loss" => self.loss = share(value)?,
            "burst" => {
                let packets = value.parse().map_err(|_| ValueError::Burst)?;
                if !(1..=BURST_PACKETS_MAX).contains(&packets) {
                    return Err(ValueError::Burst);
                }
                self.burst_packets = packets;
            }
            "delay" => self.delay = duration(value)?,
            "jitter" => self.jitter = duration(value)?,
            "reorder" => self.reorder = share(value)?,
            "duplicate" => self.duplicate = share(value)?,
            "rate" => self.rate_bps = Some(rate_bps(value)?),
            "rate_span" => self.rate_spans.push(value.parse()?),
            _ => self.outages.push(value.parse()?),
        }
        Ok(())
    }

    fn check(&self, seen: &[&str]) -> Result<(), SpecError> {
        if seen.contains(&"burst") && self.loss == 0.0 {
            return Err(SpecError::BurstWithoutLoss(self.burst_packets));
        }
        if self.rate_bps.is_none() && !self.rate_spans.is_empty() {
            return Err(SpecError::SpanWithoutRate);
        }
        let burst = f64::from(self.burst_packets);
        let loss_max = burst / (burst + 1.0);
        if self.burst_packets > 1 && self.loss > loss_max {
            let burst_packets = self.burst_packets;
            return Err(SpecError::Burst { loss: self.loss, burst_packets, loss_max });
        }
        Ok(())
    }

    /// One that loses this share of the packets of everybody, in bursts of this mean length, and
    /// delays all.
    ///
    /// # Errors
    /// A burst that can't be had with this share.
    pub fn loss_and_delay(
        loss: f64,
        burst_packets: u32,
        delay: Duration,
    ) -> Result<Self, SpecError> {
        let mut parts = Vec::new();
        if loss > 0.0 {
            parts.push(format!("loss={}%,burst={burst_packets}", loss * 100.0));
        }
        if !delay.is_zero() {
            parts.push(format!("delay={}us", delay.as_micros()));
        }
        let spec = Self {
            text: parts.join(","),
            cohort: 1.0,
            loss,
            burst_packets,
            delay,
            jitter: Duration::ZERO,
            reorder: 0.0,
            duplicate: 0.0,
            rate_bps: None,
            rate_spans: Vec::new(),
            outages: Vec::new(),
        };
        spec.check(&[])?;
        Ok(spec)
    }

    /// Whether it says itself which share of the subscribers it is for.
    #[must_use]
    pub fn names_cohort(&self) -> bool {
        self.text
            .split(',')
            .filter_map(|part| part.split_once('='))
            .any(|(k, _)| k.trim() == "cohort")
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it makes packets wait, so that they have to be kept.
    #[must_use]
    pub fn holds_packets(&self) -> bool {
        !self.delay.is_zero()
            || !self.jitter.is_zero()
            || self.reorder > 0.0
            || self.rate_bps.is_some()
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "cohort=10%,loss=1%,burst=5,delay=50ms,jitter=10ms,reorder=0.5%,\
                       duplicate=0.1%,rate=1Mbps,outage=2s@10s";

    #[test]
    fn every_key_is_read_in_any_order() {
        let spec: Spec = ALL.parse().unwrap();
        assert_eq!((spec.cohort, spec.loss, spec.burst_packets), (0.1, 0.01, 5));
        assert_eq!(spec.delay, Duration::from_millis(50));
        assert_eq!(spec.jitter, Duration::from_millis(10));
        assert_eq!((spec.reorder, spec.duplicate), (0.005, 0.001));
        assert_eq!(spec.rate_bps, Some(1_000_000));
        let window = Window { from: Duration::from_secs(10), length: Duration::from_secs(2) };
        assert_eq!(spec.outages, [window]);
        assert_eq!(window.to_string().parse(), Ok(window));
        let mut backwards: Vec<&str> = ALL.split(',').collect();
        backwards.reverse();
        let backwards: Spec = backwards.join(", ").parse().unwrap();
        assert_eq!(Spec { text: ALL.to_owned(), ..backwards }, spec);
    }

    #[test]
    fn outages_may_be_repeated_and_the_rest_has_defaults() {
        let spec: Spec = "outage=1s@5s,outage=500ms@20s".parse().unwrap();
        assert_eq!((spec.outages.len(), spec.cohort, spec.loss), (2, 1.0, 0.0));
        assert!(spec.outages[1].holds(Duration::from_millis(20_400)));
        assert!(!spec.outages[1].holds(Duration::from_millis(20_500)));
        assert!(!spec.holds_packets() && !spec.names_cohort());
        assert!("loss=1%, cohort = 100%".parse::<Spec>().unwrap().names_cohort());
        assert!("rate=64kbps".parse::<Spec>().unwrap().holds_packets());
    }

    #[test]
    fn errors_name_the_key_the_value_and_what_is_allowed() {
        for (text, needs) in [
            ("", &["empty", "loss=1%"][..]),
            ("los=1%", &["'los'", "cohort, loss"]),
            ("loss", &["'loss'", "no value"]),
            ("loss=1", &["loss=1:", "% sign"]),
            ("loss=101%", &["loss=101%", "between 0% and 100%"]),
            ("loss=0%", &["above 0%"]),
            ("loss=NaN%", &["between 0%"]),
            ("loss=x%", &["'x' is not a number", "1% or 0.5%"]),
            ("loss=1%,loss=2%", &["loss", "twice"]),
            ("loss=1%,burst=0", &["burst=0", "1 to 10000"]),
            ("burst=3", &["burst=3", "add loss"]),
            ("loss=80%,burst=2", &["80.0000%", "at most 66.6667%"]),
            ("delay=50", &["delay=50:", "without a unit"]),
            ("delay=5x", &["unknown unit 'x'"]),
            ("delay=", &["empty"]),
            ("jitter=48h", &["longer than a day"]),
            ("rate=1", &["without a unit"]),
            ("rate=1MB", &["unknown unit 'MB'"]),
            ("rate=1bps", &["between 1kbps"]),
            ("rate_span=2s@1s", &["there is none"]),
            ("outage=2s", &["outage=2s:", "start is missing"]),
            ("outage=0s@1s", &["longer than 0"]),
            ("cohort=10%", &["does nothing"]),
            ("loss=1%,", &["''", "no value"]),
        ] {
            let error = text.parse::<Spec>().unwrap_err().to_string();
            for need in needs {
                assert!(error.contains(need), "{text}: {error}");
            }
        }
    }
}
