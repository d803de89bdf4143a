//! How long could be watched: the report's figures of watch time.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stampede_core::watch::{Cause, Tally};
use stampede_counters::Figure;

use super::hist::{Hist, Samples};
use crate::bounds::LOSS_RATE_MAX;
use crate::show::round;

/// Most subscribers listed in [`WatchSection::worst`].
pub const WORST_MAX: usize = 20;
/// Most interruptions listed of a track; further ones are in the sums.
pub const LISTED_MAX: usize = 50;

/// Watch time of one kind of media: `expected_s` is `played_s`, `short_gaps_s` and the
/// interruptions' `total_s` together.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WatchFigures {
    /// `played_s / expected_s`; `null` where nothing was expected.
    pub watch_ratio: Option<f64>,
    /// Time in which tracks should have played, of all subscribers together.
    pub expected_s: Option<f64>,
    /// Time covered by frames that could be shown.
    pub played_s: Option<f64>,
    /// Gaps shorter than an interruption.
    pub short_gaps_s: Option<f64>,
    /// Of `short_gaps_s` those in which packets were dropped on purpose.
    pub short_gaps_on_purpose_s: Option<f64>,
    /// Longer gaps.
    pub interruptions: Interruptions,
    /// `watch_ratio` of each subscriber.
    pub watch_ratio_subscribers: Option<Hist>,
}

/// Stretches without a playable frame.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Interruptions {
    /// How many.
    pub count: u64,
    /// Subscribers with at least one.
    pub subscribers: u64,
    /// Together.
    pub total_s: f64,
    /// How long each was.
    pub length_s: Option<Hist>,
    /// The same by cause.
    pub causes: Causes,
}

/// Interruptions of one cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CauseFigures {
    /// How many.
    pub count: u64,
    /// Together.
    pub total_s: f64,
}

/// Interruptions by the first cause that holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Causes {
    /// Packets were dropped by `--impair`, or by a cohort's.
    pub on_purpose: CauseFigures,
    /// The subscriber had not joined.
    pub not_joined: CauseFigures,
    /// The subscriber's connection was down.
    pub disconnected: CauseFigures,
    /// The publisher had vanished.
    pub publisher_gone: CauseFigures,
    /// Packets were lost for good.
    pub loss: CauseFigures,
    /// Frames came whole and could not be decoded, and nothing was lost.
    pub no_keyframe: CauseFigures,
    /// Frames came too late to be shown when they were due.
    pub late: CauseFigures,
    /// Nothing came, and signalling stood.
    pub silent: CauseFigures,
}

impl Causes {
    /// The figures of one cause.
    pub fn of(&mut self, cause: Cause) -> &mut CauseFigures {
        match cause {
            Cause::OnPurpose => &mut self.on_purpose,
            Cause::NotJoined => &mut self.not_joined,
            Cause::Disconnected => &mut self.disconnected,
            Cause::PublisherGone => &mut self.publisher_gone,
            Cause::Loss => &mut self.loss,
            Cause::NoKeyframe => &mut self.no_keyframe,
            Cause::Late => &mut self.late,
            Cause::Silent => &mut self.silent,
        }
    }

    /// All of them with their names, in the order in which they are asked.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, CauseFigures)> {
        let mut own = *self;
        Cause::ALL.map(|cause| (cause.name(), *own.of(cause))).into_iter()
    }
}

/// Who could watch least.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WatchSection {
    /// Subscribers that were expected to watch something.
    pub subscribers: u64,
    /// Those with the least watch ratio, worst first; at most 20, and none that missed nothing.
    pub worst: Vec<WorstViewer>,
}

/// One subscriber.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WorstViewer {
    /// Its host in a merged report; `null` in the report of one host.
    pub host: Option<String>,
    /// Its identity.
    pub subscriber: String,
    /// Its room.
    pub room: String,
    /// Its cohort, if there are any.
    pub cohort: Option<String>,
    /// Of all its tracks together.
    pub watch_ratio: f64,
    /// Of all its tracks together.
    pub expected_s: f64,
    /// Of all its tracks together.
    pub played_s: f64,
    /// Its tracks, the worst first.
    pub tracks: Vec<WorstTrack>,
    /// What a viewer of all of them had, in order of time.
    pub strip: Vec<Stretch>,
}

/// One track of a subscriber.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WorstTrack {
    /// Its publisher's identity.
    pub publisher: String,
    /// `camera`, `microphone`, `screen_share`, `screen_share_audio` or `unknown`.
    pub source: String,
    /// `video` or `audio`.
    pub kind: String,
    /// It should have played so long.
    pub expected_s: f64,
    /// It did.
    pub played_s: f64,
    /// In order of time; at most 50.
    pub interruptions: Vec<InterruptionRow>,
}

/// One interruption; seconds since the start of the run.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InterruptionRow {
    /// The nominal end of the last frame.
    pub from_s: f64,
    /// The next frame that could be shown, or the end of the window.
    pub to_s: f64,
    /// One of the names of `interruptions.causes`.
    pub cause: String,
    /// More of the cause, where known.
    pub reason: Option<String>,
}

/// What a subscriber had for a while; seconds since the start of the run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Stretch {
    /// From here.
    pub from_s: f64,
    /// To here.
    pub to_s: f64,
    /// `frozen` in a gap shorter than an interruption, `interrupted`, or `disconnected` if that was
    /// its cause; of several tracks the worst. Between the stretches it played, or was not expected
    /// to. At most 50, the longest.
    pub state: String,
}

impl WatchSection {
    /// Of several hosts: the worst of all.
    pub fn merged<'a>(hosts: impl Iterator<Item = (Option<&'a Self>, &'a String)>) -> Option<Self> {
        let mut sum: Option<Self> = None;
        for (section, host) in hosts {
            let Some(section) = section else { continue };
            let sum = sum.get_or_insert_default();
            sum.subscribers.merge(&section.subscribers);
            sum.worst.extend(section.worst.iter().cloned().map(|mut worst| {
                worst.host = Some(host.clone());
                worst
            }));
        }
        if let Some(sum) = &mut sum {
            sum.worst.sort_by(|a, b| a.watch_ratio.total_cmp(&b.watch_ratio));
            sum.worst.truncate(WORST_MAX);
        }
        sum
    }
}

/// As the report has it.
pub fn seconds(length: Duration) -> f64 {
    round(length.as_secs_f64(), 3)
}

/// Watch time being added up, of one kind of media.
#[derive(Default)]
pub struct WatchSums {
    expected: Duration,
    played: Duration,
    short_gaps: Duration,
    short_gaps_by: [Duration; Cause::ALL.len()],
    lengths: Vec<Duration>,
    causes: BTreeMap<Cause, (u64, Duration)>,
    /// By subscriber: expected, played, interruptions.
    subscribers: BTreeMap<usize, (Duration, Duration, u64)>,
}

impl WatchSums {
    /// Adds a track of the subscriber with this number.
    pub fn add(&mut self, subscriber: usize, tally: &Tally) {
        self.expected += tally.expected;
        self.played += tally.played;
        self.short_gaps += tally.short_gaps;
        for (sum, own) in self.short_gaps_by.iter_mut().zip(tally.short_gaps_by) {
            *sum += own;
        }
        let further = tally.further.iter().map(|(count, _)| count).sum::<u64>();
        let count = tally.interruptions.len() as u64 + further;
        for one in &tally.interruptions {
            self.lengths.push(one.length());
            let (count, total) = self.causes.entry(one.cause).or_default();
            *count += 1;
            *total += one.length();
        }
        for (cause, (further, length)) in Cause::ALL.into_iter().zip(tally.further) {
            if further > 0 {
                let (count, total) = self.causes.entry(cause).or_default();
                *count += further;
                *total += length;
            }
        }
        let own = self.subscribers.entry(subscriber).or_default();
        own.0 += tally.expected;
        own.1 += tally.played;
        own.2 += count;
    }

    /// Without distributions, which are dear to make: what is asked for every second.
    pub fn so_far(&self) -> WatchFigures {
        if self.subscribers.is_empty() {
            return WatchFigures::default();
        }
        let mut causes = Causes::default();
        for (cause, (count, total)) in &self.causes {
            *causes.of(*cause) = CauseFigures { count: *count, total_s: seconds(*total) };
        }
        let interrupted = |(_, _, count): &&(Duration, Duration, u64)| *count > 0;
        WatchFigures {
            watch_ratio: ratio(self.played, self.expected),
            expected_s: Some(seconds(self.expected)),
            played_s: Some(seconds(self.played)),
            short_gaps_s: Some(seconds(self.short_gaps)),
            short_gaps_on_purpose_s: Some(seconds(self.short_gaps_by[Cause::OnPurpose as usize])),
            interruptions: Interruptions {
                count: self.causes.values().map(|(count, _)| count).sum(),
                subscribers: self.subscribers.values().filter(interrupted).count() as u64,
                total_s: seconds(self.causes.values().map(|(_, total)| *total).sum()),
                length_s: None,
                causes,
            },
            watch_ratio_subscribers: None,
        }
    }

    /// As the report has it.
    pub fn figures(&self) -> WatchFigures {
        let mut figures = self.so_far();
        let mut lengths = Samples::new();
        self.lengths.iter().for_each(|length| lengths.record(*length));
        figures.interruptions.length_s = lengths.as_s();
        let (mut ratios, mut min) = (Samples::new(), 1.0_f64);
        for (expected, played, _) in self.subscribers.values() {
            let ratio = ratio(*played, *expected).unwrap_or(1.0);
            min = min.min(ratio);
            // A ratio of 1 is kept as a second.
            ratios.record(Duration::from_secs_f64(ratio));
        }
        figures.watch_ratio_subscribers = ratios.as_s().map(|hist| hist.of_shares(min));
        figures
    }
}

/// Played over expected time; `None` where nothing was expected.
pub fn ratio(played: Duration, expected: Duration) -> Option<f64> {
    (!expected.is_zero()).then(|| round(played.as_secs_f64() / expected.as_secs_f64(), 6))
}

impl WatchFigures {
    /// Of several hosts.
    pub fn merged<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let sum = |of: fn(&Self) -> Option<f64>| {
            let mut known = all.clone().filter_map(of).peekable();
            known.peek().is_some().then(|| round(known.sum(), 3))
        };
        let (expected_s, played_s) = (sum(|one| one.expected_s), sum(|one| one.played_s));
        let expected_above_zero = expected_s.filter(|expected_s| *expected_s > 0.0);
        let parts = all.clone().map(|one| &one.interruptions);
        let ratios = all.clone().filter_map(|one| one.watch_ratio_subscribers.as_ref());
        let (mut count, mut subscribers, mut causes) = (0_u64, 0_u64, Causes::default());
        for part in parts.clone() {
            count.merge(&part.count);
            subscribers.merge(&part.subscribers);
            let mut own = part.causes;
            for cause in Cause::ALL {
                let (sum, one) = (causes.of(cause), *own.of(cause));
                sum.count.merge(&one.count);
                sum.total_s = round(sum.total_s + one.total_s, 3);
            }
        }
        Self {
            watch_ratio: expected_above_zero
                .zip(played_s)
                .map(|(expected_s, played_s)| round(played_s / expected_s, 6)),
            expected_s,
            played_s,
            short_gaps_s: sum(|one| one.short_gaps_s),
            short_gaps_on_purpose_s: sum(|one| one.short_gaps_on_purpose_s),
            interruptions: Interruptions {
                count,
                subscribers,
                total_s: round(parts.clone().map(|part| part.total_s).sum(), 3),
                length_s: Hist::merged_s(parts.filter_map(|part| part.length_s.as_ref())),
                causes,
            },
            watch_ratio_subscribers: Hist::merged_s(ratios.clone())
                .map(|hist| hist.of_shares(ratios.map(|one| one.min).fold(1.0, f64::min))),
        }
    }

    /// What could not be watched.
    pub fn missed(&self) -> Missed {
        let on_purpose_s = self.interruptions.causes.on_purpose.total_s
            + self.short_gaps_on_purpose_s.unwrap_or(0.0);
        let expected_s = self.expected_s.unwrap_or(0.0);
        let missed_s = expected_s - self.played_s.unwrap_or(0.0);
        Missed { expected_s, missed_s: (missed_s - on_purpose_s).max(0.0) }
    }
}

/// What could not be watched of a kind of media.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Missed {
    /// Time that was expected.
    pub expected_s: f64,
    /// Of it what could not be watched, and nobody took away on purpose.
    pub missed_s: f64,
}

impl Missed {
    /// More than a run that passes may miss.
    pub fn is_too_much(&self) -> bool {
        self.missed_s > LOSS_RATE_MAX * self.expected_s
    }

    /// In percent of what was expected.
    pub fn percent(&self) -> f64 {
        if self.expected_s > 0.0 { 100.0 * self.missed_s / self.expected_s } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::watched as figures;

    #[test]
    fn parts_add_up_and_no_ratio_is_above_one() {
        let figures = figures(&[(10, 4), (10, 0), (20, 0)]);
        assert_eq!(figures.watch_ratio, Some(0.9));
        let gaps = &figures.interruptions;
        assert_eq!((gaps.count, gaps.subscribers, gaps.total_s), (1, 1, 4.0));
        assert_eq!(gaps.causes.silent, CauseFigures { count: 1, total_s: 4.0 });
        let ratios = figures.watch_ratio_subscribers.as_ref().unwrap();
        assert_eq!((ratios.min, ratios.p50, ratios.max), (0.6, 1.0, 1.0));
        let merged = WatchFigures::merged([figures.clone(), figures].iter());
        assert_eq!(merged.watch_ratio, Some(0.9));
        assert_eq!(merged.interruptions.causes.silent.count, 2);
        let ratios = merged.watch_ratio_subscribers.unwrap();
        assert_eq!((ratios.count, ratios.min, ratios.max), (6, 0.6, 1.0));
    }
}
