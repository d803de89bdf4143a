//! From the accounts of a run to its figures of watch time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use stampede_core::MediaKind;
use stampede_core::watch::{Cause, Interruption, Tally};
use stampede_signaling::session::TrackKind;

use super::types::SeriesRow;
use super::watch::{
    InterruptionRow, LISTED_MAX, Stretch, WORST_MAX, WatchSection, WatchSums, WorstTrack,
    WorstViewer,
};
use crate::run::RunData;
use crate::run::audience::{Audience, Publication, Viewer};

/// A track of a subscriber and what it came to.
struct Watched<'a> {
    publication: &'a Publication,
    tally: Tally,
}

/// A subscriber and what its tracks came to.
struct Seen<'a> {
    viewer: &'a Viewer,
    tracks: Vec<Watched<'a>>,
}

/// What all subscribers could watch.
pub(crate) struct Viewers<'a> {
    seen: Vec<Seen<'a>>,
    started: Instant,
    until: Instant,
}

/// Interruptions of one kind of media with one cause and reason.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CauseGroup {
    /// Video rather than audio.
    pub video: bool,
    /// Why.
    pub cause: Cause,
    /// More of it, where known.
    pub reason: Option<String>,
    /// Subscribers that had one.
    pub subscribers: u64,
    /// Their lengths together.
    pub total_s: f64,
    /// How long it was for the median subscriber.
    pub length_s_p50: f64,
    /// When the first one began, since the start of the run.
    pub from_s: f64,
    /// How long after it began the first of the last ones ended: when it was over for everybody;
    /// `None` if for somebody it was not.
    pub back_after_s: Option<f64>,
}

/// What the verdict has to know of watch time.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct WatchFacts {
    /// Subscribers that were expected to watch.
    pub subscribers: u64,
    /// Of video and of audio: time expected, and time missed that nobody took away on purpose.
    pub kinds: [(f64, f64); 2],
    /// By cause, what took most time first.
    pub groups: Vec<CauseGroup>,
}

fn index(kind: TrackKind) -> usize {
    usize::from(kind == TrackKind::Audio)
}

impl<'a> Viewers<'a> {
    /// Of a run that has ended.
    pub(crate) fn of(data: &'a RunData) -> Self {
        let end = data.measured.end.map_or(data.clock.started + data.duration, |end| end.at);
        Self::until(&data.audience, data.clock.started, end)
    }

    /// Up to a moment.
    pub(crate) fn until(audience: &'a Audience, started: Instant, until: Instant) -> Self {
        let mut seen: Vec<Seen<'a>> = Vec::new();
        for watched in audience.watched(until) {
            let (viewer, publication, tally) = (watched.viewer, watched.publication, watched.tally);
            let track = Watched { publication, tally };
            match seen.last_mut().filter(|last| std::ptr::eq(last.viewer, viewer)) {
                Some(last) => last.tracks.push(track),
                None => seen.push(Seen { viewer, tracks: vec![track] }),
            }
        }
        Self { seen, started, until }
    }

    /// Of one kind of media, of all subscribers or of one cohort.
    pub(crate) fn sums(&self, kind: MediaKind, cohort: Option<u16>) -> WatchSums {
        let kind = match kind {
            MediaKind::Video => TrackKind::Video,
            MediaKind::Audio => TrackKind::Audio,
        };
        let mut sums = WatchSums::default();
        for (number, seen) in self.seen.iter().enumerate() {
            if cohort.is_some_and(|cohort| cohort != seen.viewer.cohort) {
                continue;
            }
            for track in seen.tracks.iter().filter(|track| track.publication.kind == kind) {
                sums.add(number, &track.tally);
            }
        }
        sums
    }

    /// The subscribers that could watch least; `None` if nobody was expected to watch anything.
    /// `cohort_name` is what their cohorts are called, if there are any.
    pub(crate) fn section(
        &self,
        cohort_name: &dyn Fn(u16) -> Option<String>,
    ) -> Option<WatchSection> {
        if self.seen.is_empty() {
            return None;
        }
        let missed = |seen: &Seen<'_>| -> Duration {
            seen.tracks.iter().map(|track| track.tally.expected - track.tally.played).sum()
        };
        let mut order: Vec<(Duration, &Seen<'_>)> =
            self.seen.iter().map(|seen| (missed(seen), seen)).collect();
        order.retain(|(missed, _)| !missed.is_zero());
        order.sort_by_key(|(missed, _)| std::cmp::Reverse(*missed));
        let worst = order.into_iter().take(WORST_MAX);
        Some(WatchSection {
            subscribers: self.seen.len() as u64,
            worst: worst.map(|(_, seen)| self.worst(seen, cohort_name)).collect(),
        })
    }

    fn worst(&self, seen: &Seen<'_>, cohort_name: &dyn Fn(u16) -> Option<String>) -> WorstViewer {
        let sum = |of: fn(&Tally) -> Duration| -> Duration {
            seen.tracks.iter().map(|track| of(&track.tally)).sum()
        };
        let (expected, played) = (sum(|tally| tally.expected), sum(|tally| tally.played));
        let mut tracks: Vec<&Watched<'_>> = seen.tracks.iter().collect();
        tracks.sort_by_key(|track| {
            std::cmp::Reverse(track.tally.expected.saturating_sub(track.tally.played))
        });
        let tracks = tracks.into_iter().map(|track| WorstTrack {
            publisher: track.publication.publisher.clone(),
            source: track.publication.source.name().to_owned(),
            kind: if index(track.publication.kind) == 0 { "video" } else { "audio" }.to_owned(),
            expected_s: round(track.tally.expected.as_secs_f64()),
            played_s: round(track.tally.played.as_secs_f64()),
            interruptions: self.rows(&track.tally.interruptions),
        });
        WorstViewer {
            host: None,
            subscriber: seen.viewer.identity.clone(),
            room: seen.viewer.room.to_string(),
            cohort: cohort_name(seen.viewer.cohort),
            watch_ratio: played.as_secs_f64() / expected.as_secs_f64().max(f64::MIN_POSITIVE),
            expected_s: round(expected.as_secs_f64()),
            played_s: round(played.as_secs_f64()),
            tracks: tracks.collect(),
            strip: self.strip(seen),
        }
    }

    fn rows(&self, interruptions: &[Interruption]) -> Vec<InterruptionRow> {
        let rows = interruptions.iter().take(LISTED_MAX).map(|one| InterruptionRow {
            from_s: self.at_s(one.from),
            to_s: self.at_s(one.until),
            cause: one.cause.name().to_owned(),
            reason: one.reason.as_deref().map(str::to_owned),
        });
        rows.collect()
    }

    /// Where any track of a subscriber was interrupted.
    fn strip(&self, seen: &Seen<'_>) -> Vec<Stretch> {
        let mut all: Vec<&Interruption> =
            seen.tracks.iter().flat_map(|track| &track.tally.interruptions).collect();
        all.sort_by_key(|one| one.from);
        let mut strip: Vec<Stretch> = Vec::new();
        for one in all {
            let (from_s, to_s) = (self.at_s(one.from), self.at_s(one.until));
            let disconnected = matches!(one.cause, Cause::Disconnected | Cause::NotJoined);
            let state = if disconnected { "disconnected" } else { "interrupted" };
            match strip.last_mut().filter(|last| last.to_s >= from_s) {
                Some(last) => last.to_s = last.to_s.max(to_s),
                None => strip.push(Stretch { from_s, to_s, state: state.to_owned() }),
            }
        }
        strip.truncate(LISTED_MAX);
        strip
    }

    /// Fills in how many subscribers were interrupted in each second.
    pub(crate) fn fill(&self, series: &mut [SeriesRow]) {
        for seen in &self.seen {
            let strip = seen.tracks.iter().flat_map(|track| &track.tally.interruptions);
            let mut rows: Vec<bool> = vec![false; series.len()];
            for one in strip {
                let (from_s, to_s) = (self.at_s(one.from), self.at_s(one.until));
                let first = series.partition_point(|row| row.t_s <= from_s);
                for (row, hit) in series.iter().zip(&mut rows).skip(first) {
                    if row.t_s - row.length_s >= to_s {
                        break;
                    }
                    *hit = true;
                }
            }
            for (row, hit) in series.iter_mut().zip(rows) {
                row.interrupted += u64::from(hit);
            }
        }
    }

    /// Subscribers that are interrupted at the end of what is looked at.
    pub(crate) fn interrupted_now(&self) -> u64 {
        let now =
            |tally: &Tally| tally.interruptions.last().is_some_and(|last| last.until >= self.until);
        let seen = self.seen.iter();
        seen.filter(|seen| seen.tracks.iter().any(|track| now(&track.tally))).count() as u64
    }

    /// What the verdict has to know.
    pub(crate) fn facts(&self) -> WatchFacts {
        let kinds = [MediaKind::Video, MediaKind::Audio].map(|kind| {
            let figures = self.sums(kind, None).figures();
            (figures.expected_s.unwrap_or(0.0), figures.missed_s())
        });
        WatchFacts { subscribers: self.seen.len() as u64, kinds, groups: self.groups() }
    }

    fn groups(&self) -> Vec<CauseGroup> {
        type Key = (usize, Cause, Option<std::sync::Arc<str>>);
        let mut by_key: BTreeMap<Key, BTreeMap<usize, Vec<&Interruption>>> = BTreeMap::new();
        for (number, seen) in self.seen.iter().enumerate() {
            for track in &seen.tracks {
                for one in &track.tally.interruptions {
                    let key = (index(track.publication.kind), one.cause, one.reason.clone());
                    by_key.entry(key).or_default().entry(number).or_default().push(one);
                }
            }
        }
        let mut groups: Vec<CauseGroup> = by_key
            .into_iter()
            .map(|((kind, cause, reason), subscribers)| {
                // Of several tracks of a subscriber the one that had the least.
                let mut lengths: Vec<f64> = subscribers
                    .values()
                    .map(|own| own.iter().map(|one| one.length().as_secs_f64()).fold(0.0, f64::max))
                    .collect();
                lengths.sort_by(f64::total_cmp);
                let all = || subscribers.values().flatten();
                let from = all().map(|one| one.from).min().unwrap_or(self.started);
                let until = all().map(|one| one.until).max().unwrap_or(self.until);
                let back = (until < self.until).then(|| until.saturating_duration_since(from));
                CauseGroup {
                    video: kind == 0,
                    cause,
                    reason: reason.as_deref().map(str::to_owned),
                    subscribers: subscribers.len() as u64,
                    total_s: all().map(|one| one.length().as_secs_f64()).sum(),
                    length_s_p50: lengths[lengths.len() / 2],
                    from_s: self.at_s(from),
                    back_after_s: back.map(|back| round(back.as_secs_f64())),
                }
            })
            .collect();
        groups.sort_by(|a, b| b.total_s.total_cmp(&a.total_s));
        groups
    }

    fn at_s(&self, at: Instant) -> f64 {
        round(at.saturating_duration_since(self.started).as_secs_f64())
    }
}

fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}
