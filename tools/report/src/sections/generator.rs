//! The load box itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stampede_counters::GeneratorCounters;

use crate::hist::Hist;

/// The load box itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GeneratorSection {
    /// UDP backend.
    pub backend: String,
    /// Why that one.
    pub backend_reason: String,
    /// Media workers.
    pub workers: Vec<WorkerSection>,
    /// CPU time of this process in the measured window, all threads.
    pub cpu_s: f64,
    /// The same in cores.
    pub cpu_cores: Option<f64>,
    /// What it sent and received, and what it lost.
    #[serde(flatten)]
    pub counted: GeneratorCounters,
    /// `cpu_s` over all datagrams, in and out.
    pub cpu_ns_per_packet: Option<f64>,
    /// Memory of this process at the end of the measured window.
    pub rss_bytes: Option<u64>,
    /// What it grew since before the first join, over the peers connected; the workers' receive
    /// buffers are in it.
    pub rss_bytes_per_peer: Option<u64>,
}

/// One media worker.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WorkerSection {
    /// Its host in a merged report; `null` in the report of one host.
    pub host: Option<String>,
    /// Its core; `null` if it is not pinned.
    pub core: Option<usize>,
    /// Peers it held.
    pub peers: u64,
    /// CPU time in the measured window.
    pub cpu_s: f64,
    /// CPU time over wall time.
    pub busy_ratio: f64,
    /// How late due timers ran. Subscribers' timers are looked at every 4 ms, which is in it.
    pub lateness_ms: Option<Hist>,
    /// Age of the oldest datagram of each batch when it was processed, gathering included.
    pub batch_age_ms: Option<Hist>,
    /// Why it ended early; `null` if it did not.
    pub failed: Option<String>,
}
