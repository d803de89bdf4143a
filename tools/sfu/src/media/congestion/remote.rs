//! What a subscriber's own estimates and NACKs tell of the way to it (LiveKit `pkg/sfu/bwe/remotebwe`,
//! whose numbers these are). Pure.

use std::time::Instant;

use super::nacks::{self, NackShare};
use super::trend::{self, Trend};

/// Congestion counts only where the estimate is below this share of what is sent.
const USED_SHARE: f64 = 0.95;
/// How much a share of packets asked for again takes from what is sent.
const NACK_WEIGHT: f64 = 0.4;

/// An estimate, with what is sent at this time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Estimate {
    /// In bit/s.
    pub(crate) bps: u64,
    /// What the layers take that the subscriber gets, in bit/s.
    pub(crate) usage_bps: u64,
    /// Packets of video sent since the last one.
    pub(crate) packets: u32,
    /// And how often one was asked for again.
    pub(crate) repeated: u32,
}

/// The latest estimates, and whether they tell of congestion.
#[derive(Debug)]
pub(super) struct Remote {
    trend: Trend,
    nacks: NackShare,
    congested: bool,
    probing: bool,
}

impl Remote {
    /// Between probes.
    pub(super) fn steady() -> Self {
        Self {
            trend: Trend::new(trend::STEADY),
            nacks: NackShare::new(nacks::STEADY),
            congested: false,
            probing: false,
        }
    }

    /// In a probe.
    pub(super) fn probing() -> Self {
        Self {
            trend: Trend::new(trend::PROBING),
            nacks: NackShare::new(nacks::PROBING),
            congested: false,
            probing: true,
        }
    }

    pub(super) fn is_congested(&self) -> bool {
        self.congested
    }

    /// The highest estimate, once there were enough.
    pub(super) fn highest_bps(&self) -> Option<u64> {
        self.trend.highest()
    }

    /// Takes an estimate. What the way carries, in bit/s, if by it the way is congested and carries
    /// another rate than was known; nothing of a probe, which is just over.
    pub(super) fn estimate(
        &mut self,
        now: Instant,
        estimate: Estimate,
        known_bps: u64,
    ) -> Option<u64> {
        // A probe that has congested the way is over, whatever comes behind it.
        if self.probing && self.congested {
            return None;
        }
        let Estimate { bps, usage_bps, packets, repeated } = estimate;
        self.trend.add(now, bps);
        self.nacks.add(now, packets, repeated);
        let excess = self.nacks.excess(now);
        if !self.trend.falls() && excess.is_none() {
            self.congested = false;
            return None;
        }
        if self.probing {
            self.congested = true;
            return None;
        }
        let carried_bps = match excess.filter(|_| !self.trend.falls()) {
            Some(share) => (usage_bps as f64 * (1.0 - NACK_WEIGHT * share)) as u64,
            None => bps,
        };
        let carried_bps = carried_bps.min(bps);
        let is_news =
            carried_bps as f64 <= USED_SHARE * usage_bps as f64 && carried_bps != known_bps;
        self.congested |= is_news;
        is_news.then_some(carried_bps)
    }
}
