//! What the workers report: once a second, and at the end.

use std::time::Instant;

use hdrhistogram::Histogram;
use stampede_counters::RunCounters;
use stampede_media::AssemblerCounters;
use stampede_media::disk::DiskReport;

use crate::distributions::Distributions;
use crate::health::{HealthReport, Second};
use crate::{CapturedPeer, CohortReport, CoverNews, LeftOut, PeerLine, PeerRow};

/// A worker's counters at one moment.
#[derive(Debug, Clone)]
pub struct WorkerSnapshot {
    /// Which worker.
    pub worker: usize,
    /// The core it is pinned to.
    pub core: Option<usize>,
    /// When, in nanoseconds since the Unix epoch.
    pub at_unix_ns: u64,
    /// Peers it holds.
    pub peers: usize,
    /// Peers of which at least one media packet has arrived since the window began.
    pub peers_receiving: usize,
    /// What it counted since the measured window began, closed peers included.
    pub counted: RunCounters,
    /// The last second of the worker.
    pub second: Second,
    /// The measured window so far.
    pub health: HealthReport,
    /// Latencies of the last second's video frames in microseconds; `None` if none was measured.
    pub video_latency_second_us: Option<Histogram<u64>>,
    /// What its peers measured in the window since the snapshot before: all of these together are
    /// the worker's distributions so far. `None` if nothing, or without
    /// [`EngineOptions::tells_distributions`](crate::EngineOptions::tells_distributions).
    pub distributions: Option<Box<Distributions>>,
    /// The worst of its peers by each of [`WorstBy`](crate::WorstBy), at most
    /// [`WORST_PEERS_MAX`](crate::WORST_PEERS_MAX) each; in no order.
    pub worst: Vec<PeerLine>,
}

/// What a worker did after its last snapshot.
#[derive(Debug, Clone)]
pub struct LastPart {
    /// When the worker ended.
    pub ended: Instant,
    /// The same figures as of a whole second.
    pub second: Second,
    /// Latencies of its video frames in microseconds; `None` if none was measured.
    pub video_latency_us: Option<Histogram<u64>>,
}

/// A worker at its end.
#[derive(Debug, Clone)]
pub struct WorkerReport {
    /// Which worker.
    pub worker: usize,
    /// The core it was pinned to.
    pub core: Option<usize>,
    /// The measured window.
    pub health: HealthReport,
    /// What it counted since the measured window began, of all peers it ever held.
    pub counted: RunCounters,
    /// Distributions over the measured window.
    pub distributions: Distributions,
    /// RTP packets that reached its peers in the whole run, ramp included; see
    /// [`PeerCounters::rtp_arrived`](stampede_core::PeerCounters::rtp_arrived).
    pub rtp_arrived: u64,
    /// A row for each peer, or the [`CLOSED_ROWS_MAX`](crate::CLOSED_ROWS_MAX) and more with the most
    /// to tell.
    pub peers: Vec<PeerRow>,
    /// What is known of the peers without a row.
    pub left_out: LeftOut,
    /// What became of recorded streams' packets on their way into frames, over the whole run.
    pub assembled: AssemblerCounters,
    /// From its last snapshot to its end.
    pub last: LastPart,
    /// What the flight recorder held of its worst peers when they were closed.
    pub captures: Vec<CapturedPeer>,
    /// The same for each of [`EngineOptions::cohorts`](crate::EngineOptions::cohorts).
    pub cohorts: Vec<CohortReport>,
    /// What is new of the time that its peers' streams could be watched, in order, after the last
    /// [`EngineEvent::Cover`](crate::EngineEvent::Cover).
    pub covers: Vec<CoverNews>,
    /// Why it ended before it was told to; its figures are then what was known by then.
    pub failed: Option<String>,
}

/// An engine at its end.
#[derive(Debug)]
pub struct EngineReport {
    /// Workers that ended in order or with a known fault.
    pub workers: Vec<WorkerReport>,
    /// Workers that panicked: a bug, and their figures are lost.
    pub workers_panicked: Vec<usize>,
    /// Recordings, if any were asked for.
    pub recordings: Option<DiskReport>,
    /// Snapshots that nobody had read from the event channel, in their order.
    pub snapshots_unread: Vec<WorkerSnapshot>,
    /// The same of the times in which streams could be watched.
    pub covers_unread: Vec<CoverNews>,
}
