//! How far the coordinator's clock is from this host's, and how sure that is.
//!
//! Of an exchange four stamps are known, as of NTP's (RFC 5905, section 8): the question left here,
//! came there, its answer left there, and came here. The offset is right to half the time both were
//! on their way, however that was divided between the two. So the shortest exchange says most,
//! until the clocks have drifted so far apart since that a younger one does.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Exchanges that are remembered; the oldest is forgotten.
pub const EXCHANGES_MAX: usize = 64;
/// How fast two clocks may drift apart, in parts per million: that of the crystals of two machines,
/// each slewed by NTP at no more than 500 ppm at worst but within tens of ppm in practice.
pub const DRIFT_PPM: u64 = 100;
/// Latency across hosts is not known where the offset is no surer than this.
pub const BOUND_NS_MAX: u64 = 5_000_000;

/// The four stamps of one exchange, in nanoseconds since the Unix epoch by two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// The question left, by our clock.
    pub sent_ns: u64,
    /// It came, by theirs.
    pub received_ns: u64,
    /// The answer left, by theirs.
    pub answered_ns: u64,
    /// It came, by ours.
    pub back_ns: u64,
}

impl Exchange {
    /// Time on the way, there and back; `None` if the stamps can't be of one exchange.
    fn round_trip_ns(&self) -> Option<u64> {
        let all = self.back_ns.checked_sub(self.sent_ns)?;
        all.checked_sub(self.answered_ns.checked_sub(self.received_ns)?)
    }

    /// Their clock less ours, if both ways took the same.
    fn offset_ns(&self) -> i64 {
        let there = i128::from(self.received_ns) - i128::from(self.sent_ns);
        let back = i128::from(self.answered_ns) - i128::from(self.back_ns);
        i64::try_from((there + back) / 2).unwrap_or(if there < 0 { i64::MIN } else { i64::MAX })
    }
}

/// An offset and how sure it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// The coordinator's clock less this host's.
    pub offset_ns: i64,
    /// The offset is off by no more.
    pub bound_ns: u64,
}

impl Estimate {
    /// True if it is sure enough for latencies.
    pub fn is_sure(&self) -> bool {
        self.bound_ns <= BOUND_NS_MAX
    }

    /// A moment of the coordinator's clock by ours.
    pub fn ours(&self, coordinator_ns: u64) -> u64 {
        coordinator_ns.saturating_add_signed(self.offset_ns.saturating_neg())
    }

    /// Both can be right.
    fn agrees(&self, other: &Self) -> bool {
        let apart = self.offset_ns.abs_diff(other.offset_ns);
        apart <= self.bound_ns.saturating_add(other.bound_ns)
    }
}

/// The exchanges of one connection.
#[derive(Debug, Clone, Default)]
pub struct OffsetMeter {
    kept: VecDeque<Exchange>,
}

impl OffsetMeter {
    /// Takes an exchange; one whose stamps contradict each other says nothing and is passed over.
    /// If it can't be brought together with the ones before it, somebody has set a clock, and those
    /// say nothing any more.
    pub fn add(&mut self, exchange: Exchange) {
        let Some(new) = estimate_of(&exchange, exchange.back_ns) else { return };
        if self.estimate(exchange.back_ns).is_some_and(|known| !known.agrees(&new)) {
            self.kept.clear();
        }
        if self.kept.len() == EXCHANGES_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(exchange);
    }

    /// How many exchanges it is made of.
    pub fn exchanges(&self) -> usize {
        self.kept.len()
    }

    /// What is known when it is `now_ns` by our clock; `None` before the first exchange.
    pub fn estimate(&self, now_ns: u64) -> Option<Estimate> {
        let all = self.kept.iter().filter_map(|one| estimate_of(one, now_ns));
        all.min_by_key(|one| one.bound_ns)
    }
}

/// What one exchange says when it is `now_ns`.
fn estimate_of(exchange: &Exchange, now_ns: u64) -> Option<Estimate> {
    let half = exchange.round_trip_ns()?.div_ceil(2);
    let age_ns = now_ns.saturating_sub(exchange.back_ns);
    let drift = (age_ns / 1_000_000).saturating_mul(DRIFT_PPM);
    // What the division left over.
    let bound_ns = half.saturating_add(drift).saturating_add(1);
    Some(Estimate { offset_ns: exchange.offset_ns(), bound_ns })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE_NS: u64 = 1_700_000_000_000_000_000;
    const MS: u64 = 1_000_000;

    /// An exchange that took so long each way, when their clock is `offset_ns` ahead.
    fn exchange(at_ns: u64, offset_ns: i64, there_ns: u64, back_ns: u64) -> Exchange {
        let theirs = |ours: u64| ours.saturating_add_signed(offset_ns);
        let came = at_ns + there_ns;
        Exchange {
            sent_ns: at_ns,
            received_ns: theirs(came),
            answered_ns: theirs(came + 50_000),
            back_ns: came + 50_000 + back_ns,
        }
    }

    #[test]
    fn the_shortest_exchange_says_most() {
        let mut meter = OffsetMeter::default();
        assert_eq!(meter.estimate(BASE_NS), None);
        let offset = 3_000 * MS as i64;
        for (number, way) in [9 * MS, MS / 10, 20 * MS].into_iter().enumerate() {
            meter.add(exchange(BASE_NS + number as u64 * 100 * MS, offset, way, 2 * way));
        }
        let found = meter.estimate(BASE_NS + 300 * MS).unwrap();
        assert!(found.offset_ns.abs_diff(offset) <= found.bound_ns, "{found:?}");
        assert!(found.bound_ns < MS / 5 && found.is_sure(), "{found:?}");
        assert_eq!(found.ours(BASE_NS).abs_diff(BASE_NS - 3_000 * MS) / MS, 0);
    }

    #[test]
    fn a_bound_grows_with_age_until_it_is_not_sure_any_more() {
        let mut meter = OffsetMeter::default();
        meter.add(exchange(BASE_NS, 0, MS, MS));
        assert!(meter.estimate(BASE_NS + 1_000 * MS).unwrap().is_sure());
        let later = meter.estimate(BASE_NS + 100_000 * MS).unwrap();
        assert!(!later.is_sure(), "10 ms of drift may be: {later:?}");
    }

    #[test]
    fn a_clock_that_was_set_makes_the_older_exchanges_worthless() {
        let mut meter = OffsetMeter::default();
        meter.add(exchange(BASE_NS, 0, MS / 10, MS / 10));
        meter.add(exchange(BASE_NS + 500 * MS, 80 * MS as i64, 4 * MS, 4 * MS));
        let found = meter.estimate(BASE_NS + 600 * MS).unwrap();
        assert!(found.offset_ns.abs_diff(80 * MS as i64) <= found.bound_ns, "{found:?}");
        assert_eq!(meter.exchanges(), 1);
    }

    #[test]
    fn stamps_that_contradict_each_other_are_passed_over() {
        let mut meter = OffsetMeter::default();
        let right = exchange(BASE_NS, 0, MS, MS);
        meter.add(Exchange { back_ns: right.sent_ns - 1, ..right });
        meter.add(Exchange { answered_ns: right.received_ns - 1, ..right });
        meter.add(Exchange { answered_ns: right.received_ns + 100 * MS, ..right });
        meter.add(Exchange { received_ns: 0, answered_ns: u64::MAX, ..right });
        assert_eq!(meter.exchanges(), 0);
        meter.add(right);
        assert_eq!(meter.exchanges(), 1);
    }

    proptest! {
        /// However the time on the way is divided, the truth lies within the bound.
        #[test]
        fn the_truth_is_within_the_bound(
            offset_ms in -10_000_i64..10_000,
            ways in proptest::collection::vec((0..50 * MS, 0..50 * MS), 1..100),
        ) {
            let offset = offset_ms * MS as i64;
            let mut meter = OffsetMeter::default();
            let mut at = BASE_NS;
            for (there, back) in ways {
                meter.add(exchange(at, offset, there, back));
                at += 500 * MS;
            }
            let found = meter.estimate(at).unwrap();
            prop_assert!(found.offset_ns.abs_diff(offset) <= found.bound_ns);
            prop_assert!(meter.exchanges() <= EXCHANGES_MAX);
        }
    }
}
