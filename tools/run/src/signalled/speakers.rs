//! Turns of speakers, and what subscribers are told of them.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use stampede_counters::SpeakerCounters;
use stampede_report::hist::Samples;
use stampede_report::types::SpeakersSection;

use crate::joins::ParticipantId;

/// Of a turn that began less than this before the window ends nothing is expected that has not been
/// told: a livekit-server looks every 400 ms (pkg/sfu/audio/audiolevel.go).
const HAD_TIME: Duration = Duration::from_secs(2);

/// Somebody speaks.
#[derive(Debug)]
struct Turn {
    began: Instant,
    /// Who has not been told.
    waiting: HashSet<ParticipantId>,
    /// Who has been told in this turn.
    named: HashSet<ParticipantId>,
}

/// All turns that go on, and who thinks that somebody speaks.
#[derive(Debug, Default)]
pub(super) struct Speakers {
    turns: HashMap<ParticipantId, Turn>,
    /// By speaker: whom the server told last that it is active.
    active: HashMap<ParticipantId, HashSet<ParticipantId>>,
    counted: SpeakerCounters,
    latency: Samples,
}

impl Speakers {
    /// A turn begins, of which these are to be told, but for those who were not told yet that an
    /// earlier one is over: of them nothing new will be heard.
    pub(super) fn speaks(
        &mut self,
        id: ParticipantId,
        at: Instant,
        others: impl Iterator<Item = ParticipantId>,
    ) {
        let active = self.active.get(&id);
        let thinks_so = |other: &ParticipantId| active.is_some_and(|them| them.contains(other));
        let waiting: HashSet<ParticipantId> = others.filter(|other| !thinks_so(other)).collect();
        self.counted.turns += 1;
        self.counted.expected += waiting.len() as u64;
        let turn = Turn { began: at, waiting, named: HashSet::new() };
        // One that goes on would be one whose end was not told: it is not begun twice.
        if let Some(before) = self.turns.insert(id, turn) {
            self.counted.expected -= before.waiting.len() as u64;
        }
    }

    /// The turn is over.
    pub(super) fn silent(&mut self, id: ParticipantId) {
        if let Some(turn) = self.turns.remove(&id) {
            self.counted.missed += turn.waiting.len() as u64;
        }
    }

    pub(super) fn told(
        &mut self,
        observer: ParticipantId,
        of: ParticipantId,
        active: bool,
        at: Instant,
    ) {
        let them = self.active.entry(of).or_default();
        let changed = if active { them.insert(observer) } else { them.remove(&observer) };
        let Some(turn) = self.turns.get_mut(&of).filter(|_| changed) else { return };
        if !active {
            self.counted.flaps += u64::from(turn.named.contains(&observer));
        } else if turn.waiting.remove(&observer) {
            turn.named.insert(observer);
            self.counted.named += 1;
            self.latency.record(at.saturating_duration_since(turn.began));
        }
    }

    /// Somebody is gone: it is told of nobody, and its own turn was cut off.
    pub(super) fn gone(&mut self, id: ParticipantId) {
        if let Some(turn) = self.turns.remove(&id) {
            self.counted.expected -= turn.waiting.len() as u64;
        }
        for turn in self.turns.values_mut() {
            self.counted.expected -= u64::from(turn.waiting.remove(&id));
        }
        for them in self.active.values_mut() {
            them.remove(&id);
        }
    }

    /// Everything is counted anew, from the next turns on.
    pub(super) fn restart(&mut self) {
        self.turns.clear();
        self.counted = SpeakerCounters::default();
        self.latency = Samples::new();
    }

    pub(super) fn close(&mut self, now: Instant) {
        for turn in std::mem::take(&mut self.turns).into_values() {
            let waiting = turn.waiting.len() as u64;
            match now.saturating_duration_since(turn.began) >= HAD_TIME {
                true => self.counted.missed += waiting,
                false => self.counted.expected -= waiting,
            }
        }
    }

    pub(super) fn section(&self) -> SpeakersSection {
        SpeakersSection { counted: self.counted, latency_ms: self.latency.as_ms() }
    }
}
