//! The JSON report, design.md §5. Units are in the key's last word; unknown is `null`, never 0.

use std::collections::BTreeMap;

use serde::Serialize;
use stampede_sfu::{Ledger, LedgerTotals};

use super::hist::Hist;
pub(crate) use super::server::{Reconciliation, ServerMetrics, ServerSecond, ServerTarget};

/// Name and version of this format.
pub(crate) const SCHEMA: &str = "stampede.report.v1";

/// A whole report.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// What was run.
    pub run: RunSection,
    /// What it means.
    pub verdict: Verdict,
    /// Joins.
    pub join: JoinSection,
    /// Received video; `null` if nobody was to receive any.
    pub video: Option<MediaSection>,
    /// Received audio; `null` if nobody was to receive any.
    pub audio: Option<MediaSection>,
    /// Published media; `null` without publishers.
    pub publish: Option<PublishSection>,
    /// Recordings; `null` without `--record`.
    pub recordings: Option<RecordingSection>,
    /// Files of the flight recorder, worst subscriber first; empty without `--capture`.
    pub captures: Vec<String>,
    /// The load box itself.
    pub generator: GeneratorSection,
    /// The server's own figures.
    pub server: ServerSection,
    /// One row a second, ramp included.
    pub series: Vec<SeriesRow>,
}

/// What was run.
#[derive(Debug, Serialize)]
pub(crate) struct RunSection {
    /// Part of every participant's identity.
    pub id: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// Whole run, from the first join to the last leave.
    pub duration_s: f64,
    /// Measured window: after the ramp, until everybody was told to leave. `null` if the run was
    /// interrupted in the ramp; the figures are then of the ramp.
    pub measured_s: Option<f64>,
    /// True if a signal ended it.
    pub interrupted: bool,
    /// Where it joined.
    pub target: TargetSection,
    /// The options in force, defaults included, secrets never.
    pub options: Options,
    /// Seed of everything random.
    pub seed: u64,
    /// This machine.
    pub machine: Machine,
    /// Version of stampede.
    pub stampede_version: &'static str,
}

/// Where it joined.
#[derive(Debug, Serialize)]
pub(crate) struct TargetSection {
    /// Signalling URL; `null` if the run ended before it was known.
    pub url: Option<String>,
    /// True for the embedded SFU.
    pub embedded: bool,
    /// As the server says in its join response.
    pub server_version: Option<String>,
}

/// The options in force.
#[derive(Debug, Serialize)]
pub(crate) struct Options {
    /// Room names' base.
    pub room: String,
    /// Number of rooms.
    pub rooms: u32,
    /// Per room.
    pub video_publishers: u32,
    /// Per room.
    pub audio_publishers: u32,
    /// Per room.
    pub subscribers: u32,
    /// `--duration`.
    pub duration_s: f64,
    /// Joins per second.
    pub num_per_second: f64,
    /// `--retry`.
    pub retry: u32,
    /// `--retry-sleep`.
    pub retry_sleep_s: f64,
    /// `--video-resolution`.
    pub video_resolution: &'static str,
    /// Names of the published video clips, lowest layer first.
    pub video: Vec<String>,
    /// Name of the published audio clip.
    pub audio: Option<String>,
    /// Recording folder.
    pub record: Option<String>,
    /// Subscribers that record.
    pub record_subscribers: u32,
    /// `--playout-deadline`.
    pub playout_deadline_ms: f64,
    /// Media workers.
    pub workers: usize,
    /// Their cores.
    pub cores: Vec<usize>,
    /// `--backend`.
    pub backend: &'static str,
    /// How the embedded SFU was started; `null` at a real server.
    pub embedded: Option<EmbeddedOptions>,
}

/// How the embedded SFU was started.
#[derive(Debug, Serialize)]
pub(crate) struct EmbeddedOptions {
    /// Its cores.
    pub cores: Vec<usize>,
    /// Share of packets it drops.
    pub drop: f64,
    /// Mean burst of drops in packets.
    pub drop_burst: u32,
    /// How long it holds packets back.
    pub delay_ms: f64,
}

/// This machine.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    /// Cores this process may use.
    pub cpus: usize,
    /// CPU model as the kernel names it.
    pub cpu_model: Option<String>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Kernel name and release.
    pub kernel: String,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// It did what was asked.
    Pass,
    /// Nobody could join, or nothing was received or sent.
    Fail,
    /// The generator was at fault: its figures say nothing about the server.
    Invalid,
}

/// Whose fault what went wrong is (design.md §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fault {
    /// Nothing went wrong.
    None,
    /// This process or this machine.
    Generator,
    /// Sent by the server, never seen by our kernel.
    Network,
    /// Never sent by the server, or refused by it.
    Server,
    /// Lost on the way to the server.
    Publisher,
    /// Not provable with what is known.
    Unknown,
}

/// The verdict with its reasons in plain words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Verdict {
    /// How it ended.
    pub result: Outcome,
    /// Whose fault.
    pub fault: Fault,
    /// Why, most important first.
    pub reasons: Vec<String>,
}

/// Joins of publishers and subscribers.
#[derive(Debug, Default, Serialize)]
pub(crate) struct JoinSection {
    /// Participants that were to join.
    pub requested: u64,
    /// Of them started before the run ended.
    pub started: u64,
    /// Of them connected (DTLS up) at least once.
    pub joined: u64,
    /// Of them started and never connected.
    pub failed: u64,
    /// Connected ones that were dropped before they were told to leave, tries counted singly.
    pub dropped: u64,
    /// Further tries made.
    pub retries: u64,
    /// Sessions that went on over a new websocket after theirs was lost; no drop and no retry.
    pub resumed: u64,
    /// Failed and dropped tries by kind.
    pub errors: BTreeMap<String, u64>,
    /// Most participants connected at one moment.
    pub peak: u64,
    /// From the scheduled start of each join.
    pub phases_ms: Phases,
}

/// Join phases, each from the scheduled start of the join.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Phases {
    /// Websocket open.
    pub websocket: Option<Hist>,
    /// Join response received.
    pub signal: Option<Hist>,
    /// ICE connected.
    pub ice: Option<Hist>,
    /// DTLS connected.
    pub dtls: Option<Hist>,
    /// First RTP packet.
    pub first_packet: Option<Hist>,
    /// First keyframe complete.
    pub first_keyframe: Option<Hist>,
}

/// Packets in their parts (design.md §3).
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Packets {
    /// Should have arrived.
    pub expected: u64,
    /// Arrived, each once.
    pub received: u64,
    /// Not there when passed over.
    pub missing: u64,
    /// Missing ones that came in time.
    pub repaired: u64,
    /// Missing ones that came too late.
    pub late: u64,
    /// Missing ones that were not repaired in time.
    pub unrecovered: u64,
    /// Came more than once.
    pub duplicate: u64,
    /// Came after a higher sequence number; within `missing`.
    pub reordered: u64,
}

/// Frames.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Frames {
    /// Any packet arrived.
    pub received: u64,
    /// All packets arrived in time.
    pub complete: u64,
    /// Complete, with decodable references.
    pub decodable: Option<u64>,
    /// Known to exist and can't be shown.
    pub dropped: Option<u64>,
}

/// Freezes by libwebrtc's rule.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Freezes {
    /// How many.
    pub count: u64,
    /// Together.
    pub total_s: f64,
    /// Streams with at least one.
    pub streams: u64,
}

/// One kind of received media.
#[derive(Debug, Serialize)]
pub(crate) struct MediaSection {
    /// Subscriptions there should have been; `null` if the publishers are not ours.
    pub tracks_expected: Option<u64>,
    /// Streams of which a packet arrived.
    pub tracks_received: u64,
    /// Packets.
    pub packets: Packets,
    /// `unrecovered / expected`.
    pub loss_rate: Option<f64>,
    /// `missing / expected`.
    pub missing_rate: Option<f64>,
    /// Payload bits a second, all streams together, from the first packet to the last.
    pub bitrate_bps: Option<f64>,
    /// Frames.
    pub frames: Frames,
    /// Decodable (video) or complete (audio) frames a second, mean over streams by their length.
    pub fps: Option<f64>,
    /// Freezes; `null` for audio.
    pub freezes: Option<Freezes>,
    /// Interarrival jitter of each stream at its end.
    pub jitter_ms: Option<Hist>,
    /// End-to-end latency; not measured yet.
    pub latency_ms: Option<Hist>,
    /// NACK messages.
    pub nack_sent: u64,
    /// PLI messages.
    pub pli_sent: u64,
}

/// Published media.
#[derive(Debug, Serialize)]
pub(crate) struct PublishSection {
    /// Tracks.
    pub tracks: u64,
    /// Packets, retransmissions not included.
    pub packets_sent: u64,
    /// Payload bytes.
    pub bytes_sent: u64,
    /// Retransmitted packets.
    pub retransmitted: u64,
    /// NACK messages.
    pub nack_received: u64,
    /// PLI and FIR messages.
    pub pli_received: u64,
    /// Frames.
    pub frames_sent: u64,
    /// Keyframes, all layers.
    pub keyframes_sent: u64,
    /// Lost on the way to the server, as its receiver reports say.
    pub upstream_loss_rate: Option<f64>,
}

/// Recordings.
#[derive(Debug, Serialize)]
pub(crate) struct RecordingSection {
    /// The folder.
    pub dir: String,
    /// Files finished.
    pub files: Vec<String>,
    /// Frames written.
    pub frames_written: u64,
    /// Frames not written: the disk was too slow or refused them.
    pub frames_dropped: u64,
    /// What went wrong, in plain words.
    pub errors: Vec<String>,
}

/// The load box itself.
#[derive(Debug, Serialize)]
pub(crate) struct GeneratorSection {
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
    /// UDP datagrams sent.
    pub packets_out: u64,
    /// `cpu_s` over all datagrams, in and out.
    pub cpu_ns_per_packet: Option<f64>,
    /// Memory of this process at the end of the measured window.
    pub rss_bytes: Option<u64>,
    /// What it grew since before the first join, over the peers connected.
    pub rss_bytes_per_peer: Option<u64>,
    /// Datagrams the kernel dropped at our receive buffers.
    pub udp_dropped: u64,
    /// Datagrams the kernel refused to send, or reported undeliverable.
    pub send_errors: u64,
    /// Datagrams not sent because our own send queue was full.
    pub send_queue_full: u64,
}

/// One media worker.
#[derive(Debug, Serialize)]
pub(crate) struct WorkerSection {
    /// Its core; `null` if it is not pinned.
    pub core: Option<usize>,
    /// Peers it held.
    pub peers: u64,
    /// CPU time in the measured window.
    pub cpu_s: f64,
    /// CPU time over wall time.
    pub busy_ratio: f64,
    /// How late due timers ran.
    pub lateness_ms: Option<Hist>,
    /// Age of the oldest datagram of each batch when it was processed, gathering included.
    pub batch_age_ms: Option<Hist>,
    /// Why it ended early; `null` if it did not.
    pub failed: Option<String>,
}

/// The server's own figures.
#[derive(Debug, Serialize)]
pub(crate) struct ServerSection {
    /// The embedded SFU's ledger; `null` at a real server.
    pub embedded: Option<EmbeddedSection>,
    /// Scraped from the server; `null` without `--server-metrics`.
    pub metrics: Option<ServerMetrics>,
}

/// The embedded SFU's ledger.
#[derive(Debug, Serialize)]
pub(crate) struct EmbeddedSection {
    /// Everything since it started.
    #[serde(flatten)]
    pub ledger: Ledger,
    /// Its totals over the measured window only, to set against `video` and `audio`.
    pub measured: Option<LedgerTotals>,
}

/// One second.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct SeriesRow {
    /// Since the start of the run.
    pub t_s: f64,
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
    /// Packets found missing in this second.
    pub missing: u64,
    /// Packets given up in this second.
    pub unrecovered: u64,
    /// Freezes that ended in this second.
    pub freezes: u64,
    /// CPU of all workers.
    pub cpu_cores: f64,
    /// Busiest worker.
    pub busy_ratio_max: f64,
    /// Latest timer.
    pub lateness_ms_max: f64,
    /// The scraped server; `null` without `--server-metrics`, or where a scrape failed.
    pub server: Option<ServerSecond>,
}
