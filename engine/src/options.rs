//! What an engine is started with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use stampede_core::{CongestionFeedback, Transport};
use stampede_impair::Spec;
use stampede_udp::BackendChoice;

use crate::CaptureOptions;

/// Options of an [`Engine`](crate::Engine). Every queue's maximum is here by name.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Worker threads; 0 means one for each entry of `cores`, or one if that is empty too.
    pub workers: usize,
    /// CPU cores to pin the workers to, in order; fewer than workers are used round robin, none
    /// leaves the workers unpinned.
    pub cores: Vec<usize>,
    /// Which UDP backend to use.
    pub backend: BackendChoice,
    /// How long after a gap was seen a repair still counts (docs/measurement.md, "Packets").
    pub playout_deadline: Duration,
    /// What subscribers tell the server of congestion; as Chrome by default.
    pub feedback: CongestionFeedback,
    /// Of each of `cohorts` the same, where it is not `feedback`; those beyond have none of their own.
    pub feedback_of_cohorts: Vec<Option<CongestionFeedback>>,
    /// Publishers leave out the layers that the server's feedback has no room for.
    pub adapt: bool,
    /// By which ways peers may be connected; UDP, TCP where that does not work, and then TURN, by
    /// default.
    pub transport: Transport,
    /// Whom TLS trusts on the way to TURN servers; without it those are not asked over TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// How long a busy worker gathers datagrams so that it can process them grouped by peer.
    pub gather: Duration,
    /// Most peers that one worker takes; more are refused with
    /// [`AddPeerError::TooManyPeers`](crate::AddPeerError::TooManyPeers).
    pub peers_per_worker_max: usize,
    /// Most packets a publisher keeps for retransmission, per layer; older ones can't be resent.
    pub retransmit_cache_packets_max: usize,
    /// Wanted receive buffer of each peer's socket in bytes; the kernel may grant less.
    pub receive_buffer_bytes: usize,
    /// Memory of each worker's packet ring in bytes, where that is the backend.
    pub packet_ring_bytes_max: usize,
    /// Wanted send buffer of each peer's socket in bytes.
    pub send_buffer_bytes: usize,
    /// Most commands waiting for one worker; more are refused with
    /// [`MailboxFull`](crate::MailboxFull).
    pub commands_max: usize,
    /// Most events in the channel to the signalling plane. A worker keeps what does not fit and
    /// tries again each turn, so that no worker waits; with 4,096 kept it drops and counts
    /// snapshots, never others.
    pub events_max: usize,
    /// Folder for the recordings of recording subscribers; `None` records nothing.
    pub recording_dir: Option<PathBuf>,
    /// The flight recorder; `None` keeps no packets.
    pub capture: Option<CaptureOptions>,
    /// The parts of the subscribers that are accounted for by themselves as well, each with what is
    /// done on purpose to what it receives, before that is accounted (the spec's own `cohort` means
    /// nothing here). Without any there is one to which nothing is done. Outages count from the start
    /// of the engine. A worker holds at most
    /// [`HELD_PACKETS_MAX`](stampede_impair::HELD_PACKETS_MAX) delayed datagrams; one more is
    /// dropped and counted.
    pub cohorts: Vec<Option<Spec>>,
    /// Seed of the impairments.
    pub seed: u64,
    /// The run's clock less this host's, where several hosts make one run: stamps that publishers put
    /// on frames and messages, those of events, and the latencies made of them are by the run's clock.
    pub clock_offset_ns: i64,
    /// Snapshots have what was measured since the one before
    /// ([`WorkerSnapshot::distributions`](crate::WorkerSnapshot::distributions)), for whoever is to
    /// know distributions before the end. Each sample is then recorded twice.
    pub tells_distributions: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            workers: 0,
            cores: Vec::new(),
            backend: BackendChoice::Auto,
            playout_deadline: Duration::from_millis(500),
            feedback: CongestionFeedback::default(),
            feedback_of_cohorts: Vec::new(),
            adapt: false,
            transport: Transport::default(),
            tls: None,
            gather: Duration::from_millis(10),
            peers_per_worker_max: 20_000,
            retransmit_cache_packets_max: 512,
            receive_buffer_bytes: 1 << 20,
            packet_ring_bytes_max: stampede_udp::BackendLimits::default().packet_ring_bytes_max,
            send_buffer_bytes: 256 << 10,
            commands_max: 8_192,
            events_max: 65_536,
            recording_dir: None,
            capture: None,
            cohorts: Vec::new(),
            seed: 1,
            clock_offset_ns: 0,
            tells_distributions: false,
        }
    }
}
