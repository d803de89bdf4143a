//! One row a second.

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stampede_counters::{Grown, RunCounters, SecondCounters};

use super::server::ServerSecond;
use crate::hist::{self, Hist};

/// Of rows that don't say.
fn whole_second() -> f64 {
    1.0
}

/// One second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SeriesRow {
    /// When it ended, since the start of the run.
    pub t_s: f64,
    /// How long it was: counts of this row are of that time, rates are a second's. About 1, but the
    /// last row is of what was left, and a worker that stood still has a longer one.
    #[serde(default = "whole_second")]
    pub length_s: f64,
    /// Participants that are there by plan: ramp, stages, stays and absences, whatever came of it.
    pub planned: u64,
    /// Participants connected.
    pub joined: u64,
    /// Subscribers of which at least one media packet arrived.
    pub subscribers: u64,
    /// UDP datagrams received in this second.
    pub packets_in: u64,
    /// UDP datagrams sent in this second.
    pub packets_out: u64,
    /// Received UDP payload.
    pub bitrate_bps: f64,
    /// What became of received media; made of the same growth as `counters`.
    #[serde(flatten)]
    pub media: SecondCounters,
    /// Subscribers with an interruption in this second.
    pub interrupted: u64,
    /// CPU of all workers.
    pub cpu_cores: f64,
    /// Busiest worker.
    pub busy_ratio_max: f64,
    /// Latest timer.
    pub lateness_ms_max: f64,
    /// Median latency of this second's video frames.
    pub latency_ms_p50: Option<f64>,
    /// 95th percentile of it.
    pub latency_ms_p95: Option<f64>,
    /// 99th percentile of it.
    pub latency_ms_p99: Option<f64>,
    /// All of these latencies, as `hdr` of a distribution: rows of several hosts are merged by it.
    pub latency_hdr: Option<String>,
    /// By how much each counter grew in this second, by its key; what did not grow is left out.
    pub counters: Grown<RunCounters>,
    /// The scraped server; `null` without `--server-metrics`, or where a scrape failed.
    pub server: Option<ServerSecond>,
}

impl SeriesRow {
    /// Sets the latencies of its video frames, in microseconds.
    pub fn set_latency(&mut self, latency_us: Option<&Histogram<u64>>) {
        let latency = latency_us.and_then(Hist::of_micros_as_ms);
        self.latency_ms_p50 = latency.as_ref().map(|latency| latency.p50);
        self.latency_ms_p95 = latency.as_ref().map(|latency| latency.p95);
        self.latency_ms_p99 = latency.as_ref().map(|latency| latency.p99);
        self.latency_hdr = latency.and_then(|latency| latency.hdr);
    }
}

/// The latencies of one second on several hosts.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    sum_us: Option<Histogram<u64>>,
    /// A host has some that can't be added.
    unknown: bool,
}

impl Latencies {
    /// Adds those of a row.
    pub(crate) fn add(&mut self, row: &SeriesRow) {
        let Some(text) = &row.latency_hdr else {
            // Of a version that told percentiles alone.
            self.unknown |= row.latency_ms_p50.is_some();
            return;
        };
        match hist::decode(text) {
            Some(own) => self.merge(Self { sum_us: Some(own), unknown: false }),
            None => self.unknown = true,
        }
    }

    /// Adds those of others.
    pub(crate) fn merge(&mut self, other: Self) {
        self.unknown |= other.unknown;
        match (&mut self.sum_us, other.sum_us) {
            (Some(sum), Some(own)) => self.unknown |= sum.add(&own).is_err(),
            (sum @ None, own) => *sum = own,
            (Some(_), None) => {}
        }
    }

    /// Fills in what they come to; nothing, if one is not known.
    pub(crate) fn fill(&self, row: &mut SeriesRow) {
        row.set_latency(self.sum_us.as_ref().filter(|_| !self.unknown));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::hist::Samples;

    fn row(values_ms: &[u64]) -> SeriesRow {
        let mut samples = Samples::new();
        values_ms.iter().for_each(|ms| samples.record(Duration::from_millis(*ms)));
        let mut row = SeriesRow::default();
        row.set_latency(Some(samples.histogram()));
        row
    }

    fn merged(rows: &[SeriesRow]) -> SeriesRow {
        crate::merge::second(rows.iter())
    }

    #[test]
    fn percentiles_of_a_second_are_those_of_all_hosts_values() {
        let (fast, slow) = (row(&[10; 99]), row(&[900; 101]));
        let both = merged(&[fast.clone(), SeriesRow::default(), slow]);
        assert_eq!(both, row(&[&[10; 99][..], &[900; 101]].concat()));
        assert!(both.latency_ms_p50.unwrap() > 890.0 && both.latency_hdr.is_some());
        assert_eq!(merged(&[SeriesRow::default()]).latency_ms_p50, None);
        // One that is not known is not left out of them as if there were none.
        for wrong in [None, Some("%".to_owned())] {
            let unknown = SeriesRow { latency_hdr: wrong, ..fast.clone() };
            let both = merged(&[fast.clone(), unknown]);
            assert_eq!((both.latency_ms_p50, both.latency_hdr), (None, None));
        }
    }
}
