//! What is done on purpose to what subscribers receive, before it is accounted.

use std::net::SocketAddr;
use std::time::Instant;

use stampede_core::{Arrival, Peer};
use stampede_impair::{Class, Cohorts, Counts, Fate, Held, Impairment};

use crate::PeerId;

/// What was done to one cohort since the measured window began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CohortCounts {
    /// Peers it was for.
    pub subscribers: u64,
    /// What was done to their packets.
    pub counts: Counts,
}

impl CohortCounts {
    /// Adds another worker's.
    pub fn merge(&mut self, other: &Self) {
        self.subscribers += other.subscribers;
        self.counts.merge(&other.counts);
    }
}

/// What is done to one peer.
pub(crate) struct PeerImpairment {
    cohort: usize,
    model: Impairment,
}

impl PeerImpairment {
    pub(crate) fn begin_measuring(&mut self) {
        self.model.reset_counts();
    }
}

/// A datagram held back. It is accounted as if it had arrived when it was due.
pub(crate) struct HeldDatagram {
    pub(crate) peer: PeerId,
    pub(crate) source: SocketAddr,
    pub(crate) at: Arrival,
    pub(crate) payload: Box<[u8]>,
}

/// The impairments of one worker.
pub(crate) struct Impairments {
    cohorts: Cohorts,
    held: Held<HeldDatagram>,
    /// One entry a spec, of peers that are gone.
    retired: Vec<CohortCounts>,
}

impl Impairments {
    pub(crate) fn new(cohorts: Cohorts) -> Self {
        let retired = vec![CohortCounts::default(); cohorts.specs().len()];
        Self { cohorts, held: Held::default(), retired }
    }

    /// What is done to the subscriber of this name, if anything.
    pub(crate) fn of(&self, label: &str) -> Option<Box<PeerImpairment>> {
        let (cohort, model) = self.cohorts.of(label)?;
        Some(Box::new(PeerImpairment { cohort, model }))
    }

    /// Gives a datagram to its peer now or later, or drops it.
    pub(crate) fn datagram(
        &mut self,
        impaired: &mut PeerImpairment,
        (id, peer): (PeerId, &mut Peer),
        at: Arrival,
        source: SocketAddr,
        payload: &[u8],
    ) {
        let model = &mut impaired.model;
        let class = Class::of(payload);
        let fate = model.decide(at.instant, class, payload.len());
        let Fate::Deliver { at: due, twice, .. } = fate else { return };
        for copy in 0..=u8::from(twice) {
            if class == Class::Other || !model.holds_packets() {
                peer.handle_datagram(at, source, payload);
                continue;
            }
            let wait_ns = (due - at.instant).as_nanos() as u64;
            let then = Arrival { instant: due, unix_ns: at.unix_ns + wait_ns };
            let datagram = HeldDatagram { peer: id, source, at: then, payload: payload.into() };
            if !self.held.push(due, datagram) {
                model.overflowed(class, at.instant, fate, copy > 0);
                return;
            }
        }
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.held.next()
    }

    /// Takes the next one that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<HeldDatagram> {
        self.held.pop_due(now).map(|(_, datagram)| datagram)
    }

    pub(crate) fn begin_measuring(&mut self) {
        self.retired.fill(CohortCounts::default());
    }

    /// A peer is gone; its counts stay.
    pub(crate) fn retire(&mut self, peer: Option<Box<PeerImpairment>>) {
        let Some(peer) = peer else { return };
        if let Some(cohort) = self.retired.get_mut(peer.cohort) {
            cohort.merge(&CohortCounts { subscribers: 1, counts: peer.model.counts() });
        }
    }

    /// The counts of all that are gone, one entry a spec.
    pub(crate) fn into_counts(self) -> Vec<CohortCounts> {
        self.retired
    }
}
