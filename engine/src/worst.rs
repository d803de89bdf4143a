//! The worst peers of a worker: a bounded list that goes out with each snapshot.
//!
//! It is made from counters that a snapshot sums up anyway, so it costs nothing a packet.

use std::time::Duration;

use stampede_core::PeerCounters;

use crate::PeerId;

/// Most peers kept for each of [`WorstBy`]; those that are better than all of them are left out.
/// A snapshot so names at most `WORST_PEERS_MAX * WorstBy::ALL.len()` peers.
pub const WORST_PEERS_MAX: usize = 16;

/// What makes a peer bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WorstBy {
    /// Packets lost for good.
    #[default]
    Unrecovered,
    /// Packets that were not there when passed over, repaired ones included.
    Missing,
    /// Freezes.
    Freezes,
}

impl WorstBy {
    /// Every order there is.
    pub const ALL: [Self; 3] = [Self::Unrecovered, Self::Missing, Self::Freezes];

    /// How bad a peer is; 0 is not bad at all.
    pub fn badness(self, figures: &PeerFigures) -> u64 {
        match self {
            Self::Unrecovered => figures.unrecovered,
            Self::Missing => figures.missing,
            Self::Freezes => figures.freezes,
        }
    }
}

/// What a peer received since the measured window began, video and audio together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerFigures {
    /// Packets that should have come.
    pub expected: u64,
    /// Packets that came.
    pub received: u64,
    /// Packets not there when passed over.
    pub missing: u64,
    /// Of them repaired in time, redundancy (RED) included.
    pub repaired: u64,
    /// Of them given up.
    pub unrecovered: u64,
    /// Freezes.
    pub freezes: u64,
    /// Length of the freezes together.
    pub frozen: Duration,
}

impl PeerFigures {
    /// The figures of these counters.
    pub fn of(counters: &PeerCounters) -> Self {
        let mut packets = counters.video.packets;
        packets.merge(&counters.audio.packets);
        Self {
            expected: packets.expected,
            received: packets.received,
            missing: packets.missing,
            repaired: packets.repaired + packets.repaired_by_red,
            unrecovered: packets.unrecovered,
            freezes: counters.video.freezes.count,
            frozen: counters.video.freezes.total_s.0,
        }
    }
}

/// One of the worst peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerLine {
    /// Which.
    pub id: PeerId,
    /// The participant's identity.
    pub label: String,
    /// How it fares.
    pub figures: PeerFigures,
}

/// Collects the worst of peers that are offered one by one.
#[derive(Debug, Default)]
pub(crate) struct Worst {
    /// For each of [`WorstBy::ALL`] the worst so far, unordered, with the peer's slot.
    lists: [Vec<(usize, PeerFigures)>; WorstBy::ALL.len()],
}

impl Worst {
    /// Looks at the peer in `slot`.
    pub(crate) fn offer(&mut self, slot: usize, figures: PeerFigures) {
        for (by, list) in WorstBy::ALL.into_iter().zip(&mut self.lists) {
            let badness = by.badness(&figures);
            if badness == 0 {
                continue;
            }
            if list.len() < WORST_PEERS_MAX {
                list.push((slot, figures));
                continue;
            }
            let mildest = list.iter_mut().min_by_key(|(_, kept)| by.badness(kept));
            if let Some(mildest) = mildest.filter(|(_, kept)| by.badness(kept) < badness) {
                *mildest = (slot, figures);
            }
        }
    }

    /// The slots kept, each once, with their figures.
    pub(crate) fn into_slots(self) -> Vec<(usize, PeerFigures)> {
        let mut slots: Vec<_> = self.lists.into_iter().flatten().collect();
        slots.sort_unstable_by_key(|(slot, _)| *slot);
        slots.dedup_by_key(|(slot, _)| *slot);
        slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(unrecovered: u64, missing: u64, freezes: u64) -> PeerFigures {
        PeerFigures { unrecovered, missing, freezes, ..PeerFigures::default() }
    }

    #[test]
    fn the_worst_of_each_order_are_kept_once_and_no_more() {
        let mut worst = Worst::default();
        for slot in 0..1_000 {
            worst.offer(slot, figures(slot as u64, 1_000 - slot as u64, 0));
        }
        worst.offer(5_000, figures(2_000, 2_000, 9));
        let slots: Vec<usize> = worst.into_slots().into_iter().map(|(slot, _)| slot).collect();
        let least: Vec<usize> = (0..WORST_PEERS_MAX - 1).collect();
        let most: Vec<usize> = (1_001 - WORST_PEERS_MAX..1_000).collect();
        assert_eq!(slots, [least, most, vec![5_000]].concat());
    }

    #[test]
    fn peers_without_a_fault_are_not_listed() {
        let mut worst = Worst::default();
        worst.offer(1, PeerFigures { expected: 10, received: 10, ..PeerFigures::default() });
        assert!(worst.into_slots().is_empty());
    }
}
