//! What is to happen, as people write it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::value;

/// Longest mean burst of lost packets.
pub const BURST_PACKETS_MAX: u32 = 10_000;

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
    type Err = String;

    /// `LENGTH@START`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (length, from) =
            text.split_once('@').ok_or("the start is missing; write it like 2s@10s")?;
        let window = Self { from: value::duration(from)?, length: value::duration(length)? };
        match window.length {
            Duration::ZERO => Err("it must be longer than 0".to_owned()),
            _ => Ok(window),
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}us@{}us", self.length.as_micros(), self.from.as_micros())
    }
}

/// One impairment and the share of subscribers it is for. Made by parsing
/// `cohort=10%,loss=1%,burst=5,delay=50ms,jitter=10ms,reorder=0.5%,duplicate=0.1%` and, in the same
/// text, `rate=1Mbps,outage=2s@10s`; any keys, in any order, `outage` as often as wanted.
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
        "'{0}' is no key; use cohort, loss, burst, delay, jitter, reorder, duplicate, rate or \
         outage"
    )]
    UnknownKey(String),
    /// A key without a value.
    #[error("'{0}' has no value; write it like loss=1%")]
    NoValue(String),
    /// A key that counts once.
    #[error("{0} is given twice; only outage may be repeated")]
    Twice(&'static str),
    /// A value that is none.
    #[error("{key}={value}: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it, and what is allowed.
        reason: String,
    },
    /// A cohort and nothing that happens to it.
    #[error("'{0}' does nothing; add loss, delay, jitter, reorder, duplicate, rate or outage")]
    Nothing(String),
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

const KEYS: [&str; 9] =
    ["cohort", "loss", "burst", "delay", "jitter", "reorder", "duplicate", "rate", "outage"];

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
            if key != "outage" && seen.contains(&key) {
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
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "cohort" => self.cohort = value::percent(value)?,
            "loss" => self.loss = value::percent(value)?,
            "burst" => {
                self.burst_packets = value
                    .parse()
                    .ok()
                    .filter(|packets| (1..=BURST_PACKETS_MAX).contains(packets))
                    .ok_or_else(|| {
                        format!("it must be a whole number of packets, 1 to {BURST_PACKETS_MAX}")
                    })?;
            }
            "delay" => self.delay = value::duration(value)?,
            "jitter" => self.jitter = value::duration(value)?,
            "reorder" => self.reorder = value::percent(value)?,
            "duplicate" => self.duplicate = value::percent(value)?,
            "rate" => self.rate_bps = Some(value::rate_bps(value)?),
            _ => self.outages.push(value.parse()?),
        }
        Ok(())
    }

    fn check(&self, seen: &[&str]) -> Result<(), SpecError> {
        if seen.contains(&"burst") && self.loss == 0.0 {
            return Err(SpecError::BurstWithoutLoss(self.burst_packets));
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
            ("loss=101%", &["loss=101%", "at most 100%"]),
            ("loss=0%", &["above 0%"]),
            ("loss=NaN%", &["above 0%"]),
            ("loss=x%", &["no number"]),
            ("loss=1%,loss=2%", &["loss", "twice"]),
            ("loss=1%,burst=0", &["burst=0", "1 to 10000"]),
            ("burst=3", &["burst=3", "add loss"]),
            ("loss=80%,burst=2", &["80.0000%", "at most 66.6667%"]),
            ("delay=50", &["delay=50:", "no unit"]),
            ("delay=5x", &["'x' is no unit"]),
            ("delay=", &["empty"]),
            ("jitter=48h", &["longer than a day"]),
            ("rate=1", &["unit is missing"]),
            ("rate=1MB", &["'MB' is no unit"]),
            ("rate=1bps", &["between 1kbps"]),
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
