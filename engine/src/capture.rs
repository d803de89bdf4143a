//! The flight recorder over all peers of a worker: who is tapped, and which are the worst.

use std::net::SocketAddr;

use stampede_core::{CaptureLimits, CapturedPacket, Peer};

use crate::PeerId;
use crate::worst::PeerFigures;

/// How the flight recorder is set up; memory is only used for tapped peers.
#[derive(Debug, Clone, Copy)]
pub struct CaptureOptions {
    /// What is kept of each tapped peer.
    pub limits: CaptureLimits,
    /// Most subscribers tapped by each worker: the first ones it gets. The worst are chosen among
    /// them.
    pub tapped_per_worker_max: usize,
    /// How many of the worst are handed out, by each worker.
    pub worst: usize,
}

/// The last packets of one peer.
#[derive(Debug, Clone)]
pub struct CapturedPeer {
    /// Which.
    pub id: PeerId,
    /// The participant's identity.
    pub label: String,
    /// Its own address.
    pub local: SocketAddr,
    /// Where its latest datagram came from.
    pub remote: Option<SocketAddr>,
    /// How it fared.
    pub figures: PeerFigures,
    /// Oldest first.
    pub packets: Vec<CapturedPacket>,
    /// Packets of the span that found no room in memory.
    pub dropped: u64,
}

impl CapturedPeer {
    /// Order of the worst: lost for good, then missing, then freezes.
    pub fn badness(&self) -> (u64, u64, u64) {
        badness(&self.figures)
    }

    pub(crate) fn of(id: PeerId, label: &str, peer: &Peer) -> Option<Self> {
        let capture = peer.capture()?;
        Some(Self {
            id,
            label: label.to_owned(),
            local: peer.local(),
            remote: peer.remote(),
            figures: PeerFigures::of(&peer.counters()),
            packets: capture.packets().cloned().collect(),
            dropped: capture.dropped(),
        })
    }
}

pub(crate) fn badness(figures: &PeerFigures) -> (u64, u64, u64) {
    (figures.unrecovered, figures.missing, figures.freezes)
}

/// Keeps the worst `most` of them, worst first.
pub fn keep_worst(captures: &mut Vec<CapturedPeer>, most: usize) {
    captures.sort_by(|a, b| b.badness().cmp(&a.badness()).then_with(|| a.id.cmp(&b.id)));
    captures.truncate(most);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_are_kept_worst_first() {
        let peer = |label: &str, unrecovered, missing| CapturedPeer {
            id: PeerId::default(),
            label: label.to_owned(),
            local: SocketAddr::from(([127, 0, 0, 1], 1)),
            remote: None,
            figures: PeerFigures { unrecovered, missing, ..PeerFigures::default() },
            packets: Vec::new(),
            dropped: 0,
        };
        let mut captures =
            vec![peer("a", 1, 9), peer("b", 0, 50), peer("c", 2, 2), peer("d", 1, 10)];
        keep_worst(&mut captures, 3);
        let labels: Vec<_> = captures.iter().map(|capture| capture.label.as_str()).collect();
        assert_eq!(labels, ["c", "d", "a"]);
    }
}
