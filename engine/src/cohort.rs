//! Parts of the subscribers that are accounted for by themselves.

use stampede_core::PeerCounters;

use crate::distributions::Distributions;

/// What a worker knows of one cohort: the measured window, like the worker's own sums.
#[derive(Debug, Clone, Default)]
pub struct CohortReport {
    /// Peers that were in it, tries counted singly.
    pub peers: u64,
    /// Sums over them, with what was done to their packets on purpose.
    pub totals: PeerCounters,
    /// Distributions over them; `None` if nothing was measured: a set of histograms is large.
    pub distributions: Option<Box<Distributions>>,
}

impl CohortReport {
    /// Adds another worker's.
    pub fn merge(&mut self, other: &Self) {
        self.peers += other.peers;
        self.totals.merge(&other.totals);
        if let Some(other) = &other.distributions {
            self.distributions.get_or_insert_default().merge(other);
        }
    }
}

/// The accounts of the peers of one cohort that are gone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Closed {
    peers: u64,
    totals: PeerCounters,
}

impl Closed {
    /// A peer is gone.
    pub(crate) fn add(&mut self, counters: &PeerCounters) {
        self.peers += 1;
        self.totals.merge(counters);
    }

    /// With what the cohort's peers measured.
    pub(crate) fn report(self, distributions: Option<Box<Distributions>>) -> CohortReport {
        let Self { peers, totals } = self;
        CohortReport { peers, totals, distributions }
    }
}
