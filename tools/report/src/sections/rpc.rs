//! Calls between participants.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stampede_counters::RpcCounters;
use stampede_units::show::share;

use crate::hist::Hist;
use crate::show::group;

/// Calls that were made, and what became of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RpcSection {
    /// What was counted.
    #[serde(flatten)]
    pub counted: RpcCounters,
    /// `decided_failed / decided`; `null` while nothing is decided.
    pub failure_rate: Option<f64>,
    /// From a call to the arrival of its answer's last datagram; of answers that came in time.
    pub round_trip_ms: Option<Hist>,
}

impl RpcSection {
    /// Of these counters and round trips.
    pub fn of(counted: RpcCounters, round_trip_ms: Option<Hist>) -> Self {
        Self { counted, failure_rate: counted.failure_rate(), round_trip_ms }
    }

    /// `300 called, 299 answered, 1 without an answer (0.33 %); …`.
    #[must_use]
    pub fn told(&self) -> String {
        let counted = &self.counted;
        let mut text =
            format!("{} called, {} answered", group(counted.called), group(counted.answered));
        let rate = self
            .failure_rate
            .map_or(String::new(), |rate| format!(" ({} of the decided)", share(rate)));
        let silent = counted.ack_timeouts + counted.response_timeouts;
        for (count, what) in [
            (counted.errors.sum(), "answered with an error"),
            (silent, "not answered in time"),
            (counted.late, "answered too late"),
            (counted.cut_off, "cut off"),
            (counted.not_called, "not called"),
            (counted.unanswered, "requests not answered"),
            (counted.dropped, "requests and answers dropped"),
        ] {
            if count > 0 {
                text += &format!(", {} {what}", group(count));
            }
        }
        if counted.failed() > 0 {
            text += &format!("; {} failed{rate}", group(counted.failed()));
        }
        if let Some(hist) = &self.round_trip_ms {
            text += &format!("; round trip {:.1} ms p50, {:.1} ms p99", hist.p50, hist.p99);
        }
        text
    }

    /// Of several runs.
    pub(crate) fn merged(all: &[&Self]) -> Option<Self> {
        let mut counted = RpcCounters::default();
        all.iter().for_each(|one| counted.merge(&one.counted));
        let round_trips = Hist::merged(all.iter().filter_map(|one| one.round_trip_ms.as_ref()));
        (!all.is_empty()).then(|| Self::of(counted, round_trips))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_what_there_is_to_tell() {
        let counted = RpcCounters { called: 1_000, answered: 990, ..RpcCounters::default() };
        assert_eq!(RpcSection::of(counted, None).told(), "1,000 called, 990 answered");
        let mut counted = RpcCounters { ack_timeouts: 4, response_timeouts: 1, late: 1, ..counted };
        (counted.decided, counted.decided_failed, counted.cut_off) = (500, 5, 2);
        counted.errors.unsupported_method = 5;
        let section = RpcSection::of(counted, None);
        let expected = "1,000 called, 990 answered, 5 answered with an error, 5 not answered in \
                        time, 1 answered too late, 2 cut off; 10 failed (1.00 % of the decided)";
        assert_eq!(section.told(), expected);
        let twice = RpcSection::merged(&[&section, &section]).unwrap();
        assert_eq!((twice.counted.called, twice.failure_rate), (2_000, Some(0.01)));
    }
}
