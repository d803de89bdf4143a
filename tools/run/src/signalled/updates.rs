//! Updates that participants make of themselves, numbered by each from 1.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use stampede_counters::MetadataCounters;
use stampede_report::hist::Samples;
use stampede_report::types::MetadataSection;

use crate::joins::ParticipantId;

/// Who was told neither of an update nor of a newer one by then missed it. A livekit-server tells
/// updates at once (pkg/rtc/room.go, `onParticipantUpdate`), others may gather them.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
/// Of an update that is younger than this when the window ends nothing is expected.
const HAD_TIME: Duration = Duration::from_secs(5);

/// One update that not everybody has been told of.
#[derive(Debug)]
struct Update {
    number: u32,
    at: Instant,
    /// Others that have not been told.
    left: u32,
}

/// All updates, and who knows of them.
#[derive(Debug, Default)]
pub(super) struct Updates {
    /// By sender, oldest first: those of [`TOLD_WITHIN`].
    waiting: HashMap<ParticipantId, VecDeque<Update>>,
    /// By who was told and of whom: the latest number. Bounded by the scenario's check.
    known: HashMap<(ParticipantId, ParticipantId), u32>,
    counted: MetadataCounters,
    latency: Samples,
}

impl Updates {
    pub(super) fn sent(&mut self, of: ParticipantId, number: u32, at: Instant, others: u32) {
        self.counted.sent += 1;
        self.counted.expected += u64::from(others);
        let waiting = self.waiting.entry(of).or_default();
        waiting.push_back(Update { number, at, left: others });
        while let Some(oldest) = waiting.front()
            && (oldest.left == 0 || at.saturating_duration_since(oldest.at) >= TOLD_WITHIN)
        {
            self.counted.missing += u64::from(oldest.left);
            waiting.pop_front();
        }
    }

    pub(super) fn refused(&mut self) {
        self.counted.refused += 1;
    }

    /// `observer`, who is there since then, was told that `of` is at this number.
    pub(super) fn told(
        &mut self,
        observer: ParticipantId,
        of: ParticipantId,
        number: u32,
        since: Option<Instant>,
        at: Instant,
    ) {
        let known = self.known.entry((observer, of)).or_default();
        if number <= *known {
            return;
        }
        let before = std::mem::replace(known, number);
        let (Some(since), Some(waiting)) = (since, self.waiting.get_mut(&of)) else { return };
        let news = |update: &&mut Update| {
            update.number > before && update.number <= number && update.at >= since
        };
        for update in waiting.iter_mut().filter(news) {
            update.left = update.left.saturating_sub(1);
            let place = match update.number == number {
                true => &mut self.counted.seen,
                false => &mut self.counted.superseded,
            };
            *place += 1;
            self.latency.record(at.saturating_duration_since(update.at));
        }
    }

    /// Who was there since then is gone: of updates of these others it has yet to be told nothing.
    pub(super) fn observer_gone(
        &mut self,
        observer: ParticipantId,
        since: Instant,
        others: impl Iterator<Item = ParticipantId>,
    ) {
        if self.waiting.is_empty() {
            return;
        }
        for of in others {
            let Some(waiting) = self.waiting.get_mut(&of) else { continue };
            let known = self.known.get(&(observer, of)).copied().unwrap_or(0);
            let untold = |update: &&mut Update| update.number > known && update.at >= since;
            for update in waiting.iter_mut().filter(untold) {
                update.left = update.left.saturating_sub(1);
                self.counted.expected -= 1;
            }
        }
    }

    /// Everything is counted anew.
    pub(super) fn restart(&mut self) {
        self.waiting.clear();
        self.counted = MetadataCounters::default();
        self.latency = Samples::new();
    }

    pub(super) fn close(&mut self, now: Instant) {
        for update in std::mem::take(&mut self.waiting).into_values().flatten() {
            match now.saturating_duration_since(update.at) >= HAD_TIME {
                true => self.counted.missing += u64::from(update.left),
                false => self.counted.expected -= u64::from(update.left),
            }
        }
    }

    pub(super) fn section(&self) -> MetadataSection {
        MetadataSection { counted: self.counted, latency_ms: self.latency.as_ms() }
    }
}
