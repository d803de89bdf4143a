//! What a subscriber's NACKs tell of congestion: how many packets it asks for more than once (LiveKit
//! `pkg/sfu/bwe/remotebwe/nack_tracker.go`). Pure.

use std::time::{Duration, Instant};

/// Packets that were asked for, remembered a track; of more the oldest is forgotten.
const ASKED_MAX: usize = 128;

/// Packets of one track that were asked for lately.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    sequences: Vec<u16>,
    next: usize,
    repeated: u32,
}

impl Asked {
    /// A packet was asked for.
    pub(crate) fn ask(&mut self, sequence: u16) {
        if self.sequences.contains(&sequence) {
            self.repeated += 1;
        } else if self.sequences.len() < ASKED_MAX {
            self.sequences.push(sequence);
        } else {
            self.sequences[self.next] = sequence;
            self.next = (self.next + 1) % ASKED_MAX;
        }
    }

    /// Of packets asked for, how often that was not the first time, since the last call.
    pub(crate) fn take_repeated(&mut self) -> u32 {
        std::mem::take(&mut self.repeated)
    }
}

/// How long is looked at, and what share is too much.
#[derive(Debug, Clone, Copy)]
pub(super) struct NackConfig {
    window_min: Duration,
    window_max: Duration,
    share: f64,
}

/// Between probes.
pub(super) const STEADY: NackConfig = NackConfig {
    window_min: Duration::from_secs(2),
    window_max: Duration::from_secs(3),
    share: 0.08,
};
/// In a probe.
pub(super) const PROBING: NackConfig = NackConfig {
    window_min: Duration::from_millis(500),
    window_max: Duration::from_secs(1),
    share: 0.04,
};

/// The share of packets that were asked for again, in a window that begins with the first such one.
#[derive(Debug)]
pub(super) struct NackShare {
    config: NackConfig,
    since: Option<Instant>,
    packets: u32,
    repeated: u32,
}

impl NackShare {
    pub(super) fn new(config: NackConfig) -> Self {
        Self { config, since: None, packets: 0, repeated: 0 }
    }

    /// Takes what was sent and asked for again since the last call.
    pub(super) fn add(&mut self, now: Instant, packets: u32, repeated: u32) {
        if self.since.is_some_and(|since| now.duration_since(since) > self.config.window_max) {
            (self.since, self.packets, self.repeated) = (None, 0, 0);
        }
        if self.since.is_none() && repeated > 0 {
            self.since = Some(now);
        }
        if self.since.is_some() {
            self.packets = self.packets.saturating_add(packets);
            self.repeated = self.repeated.saturating_add(repeated);
        }
    }

    /// The share, if it is too much.
    pub(super) fn excess(&self, now: Instant) -> Option<f64> {
        let since = self.since?;
        let share = f64::from(self.repeated) / f64::from(self.packets.max(1));
        let long_enough = now.duration_since(since) > self.config.window_min;
        (long_enough && share > self.config.share).then_some(share.min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for_again_counts() {
        let mut asked = Asked::default();
        for sequence in [1, 2, 3, 2, 2, 1] {
            asked.ask(sequence);
        }
        assert_eq!((asked.take_repeated(), asked.take_repeated()), (3, 0));
        (10..10 + ASKED_MAX as u16).for_each(|sequence| asked.ask(sequence));
        asked.ask(1);
        assert_eq!(asked.take_repeated(), 0, "forgotten");
    }

    #[test]
    fn a_window_begins_with_the_first_repetition_and_ends() {
        let (mut share, start) = (NackShare::new(STEADY), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        share.add(at(0), 1_000, 0);
        share.add(at(100), 10, 2);
        assert_eq!(share.excess(at(2_000)), None, "too short");
        share.add(at(2_100), 10, 0);
        assert_eq!(share.excess(at(2_200)), Some(0.1));
        share.add(at(3_200), 10, 0);
        assert_eq!(share.excess(at(3_200)), None, "over");
    }
}
