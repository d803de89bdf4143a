//! One row a second.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stampede_counters::{Grown, RunCounters, SecondCounters};

use super::server::ServerSecond;

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
    /// By how much each counter grew in this second, by its key; what did not grow is left out.
    pub counters: Grown<RunCounters>,
    /// The scraped server; `null` without `--server-metrics`, or where a scrape failed.
    pub server: Option<ServerSecond>,
}
