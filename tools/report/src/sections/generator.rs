//! The load box itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// UDP datagrams received.
    pub packets_in: u64,
    /// Runs that they came in: what the kernel keeps together (UDP GRO). A datagram alone is one.
    pub udp_runs_in: u64,
    /// UDP datagrams sent.
    pub packets_out: u64,
    /// `cpu_s` over all datagrams, in and out.
    pub cpu_ns_per_packet: Option<f64>,
    /// Memory of this process at the end of the measured window.
    pub rss_bytes: Option<u64>,
    /// What it grew since before the first join, over the peers connected; the workers' receive
    /// buffers are in it.
    pub rss_bytes_per_peer: Option<u64>,
    /// Datagrams the kernel dropped at our receive buffers. It counts a run of datagrams as one;
    /// where they come in runs, this takes the dropped ones to be as long as those of the same
    /// socket that came.
    pub udp_dropped: u64,
    /// Runs it dropped, as it counts them.
    pub udp_runs_dropped: u64,
    /// Datagrams the kernel refused to send; those whose receiver was gone are not among them.
    pub send_errors: u64,
    /// Datagrams not sent because our own send queue was full.
    pub send_queue_full: u64,
    /// What fits no other count.
    pub odd: OddSection,
}

/// What fits no other count of the measured window. Little of it is no trouble: packets of a stream
/// or a peer that has just been closed, for example.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OddSection {
    /// RTP packets of an SSRC that no offer named.
    pub unknown_ssrc: u64,
    /// RTP packets that came before DTLS was up.
    pub before_connected: u64,
    /// Datagrams for a peer that had just been closed.
    pub orphans: u64,
    /// Datagrams longer than 2,048 bytes, or cut by the kernel; dropped.
    pub truncated: u64,
    /// Datagrams of ours that were dropped because a peer had too many waiting.
    pub unsent: u64,
    /// Errors of ICE, DTLS or SDP, for example a handshake that failed.
    pub connection_errors: u64,
    /// Times a socket's receiving paused because all receive buffers were in use; nothing is lost
    /// by that.
    pub receive_pauses: u64,
    /// Snapshots that were not made because too many events waited.
    pub snapshots_dropped: u64,
    /// Streams without a row of their own because their peer closed too many; they are in the sums.
    pub streams_left_out: u64,
}

impl OddSection {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.unknown_ssrc += other.unknown_ssrc;
        self.before_connected += other.before_connected;
        self.orphans += other.orphans;
        self.truncated += other.truncated;
        self.unsent += other.unsent;
        self.connection_errors += other.connection_errors;
        self.receive_pauses += other.receive_pauses;
        self.snapshots_dropped += other.snapshots_dropped;
        self.streams_left_out += other.streams_left_out;
    }
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
