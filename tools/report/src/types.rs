//! The JSON report, design.md §5. Units are in the key's last word; unknown is `null`, never 0.
//!
//! Reports are read back too. Within a section, a key that is not there is one that a later version
//! added: it reads as its type's default, so that stored reports stay readable.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stampede_sfu::{Ledger, LedgerTotals};

pub use super::assembly::AssemblySection;
use super::cohorts::CohortFigures;
use super::hist::Hist;
pub use super::joins::PendingAt;
use super::latency::LatencySource;
pub use super::server::{Reconciliation, ServerMetrics, ServerSecond, ServerTarget};
use super::streams::StreamRow;
pub use super::watch::{WatchFigures, WatchSection};

/// Name and version of this format.
pub const SCHEMA: &str = "stampede.report.v1";

/// A whole report.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
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
    /// The parts of the subscribers, each with figures of its own; empty without `[[cohort]]` and
    /// `--impair`.
    #[serde(default)]
    pub cohorts: Vec<CohortFigures>,
    /// Published media; `null` without publishers.
    pub publish: Option<PublishSection>,
    /// What was injected on purpose in this process; `null` if nothing was to be.
    pub impairment: Option<ImpairmentSection>,
    /// Recordings; `null` without `--record`.
    pub recordings: Option<RecordingSection>,
    /// Files of the flight recorder, worst subscriber first; empty without `--capture`.
    #[serde(default)]
    pub captures: Vec<String>,
    /// The capacity search; `null` without `--find`. The other sections are of the highest step that
    /// held, or of the lowest one if none did.
    #[serde(default)]
    pub find: Option<FindSection>,
    /// The subscribers that could watch least; `null` if nobody was expected to watch anything.
    #[serde(default)]
    pub watch: Option<WatchSection>,
    /// The load box itself.
    pub generator: GeneratorSection,
    /// The server's own figures.
    pub server: ServerSection,
    /// One row a second, ramp included.
    pub series: Vec<SeriesRow>,
    /// What `--threshold` asked for, with what came out.
    #[serde(default)]
    pub thresholds: Vec<ThresholdRow>,
    /// The worst streams, at most [`super::streams::WORST_MAX`], worst first.
    #[serde(default)]
    pub streams: Vec<StreamRow>,
    /// All streams there were; `streams` has the worst of them.
    #[serde(default)]
    pub streams_total: u64,
    /// All streams, for the CSV; not in the JSON.
    #[serde(skip)]
    pub all_streams: Vec<StreamRow>,
}

/// One comparison of a `--threshold`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ThresholdRow {
    /// As given.
    pub expr: String,
    /// The figure; `null` if there is none, which fails the threshold.
    pub value: Option<f64>,
    /// Whether it held.
    pub ok: bool,
    /// True if crossing it ended the run (`abort`); `value` is then of that moment.
    #[serde(default)]
    pub aborted: bool,
}

impl ThresholdRow {
    /// The key that was compared.
    pub fn key(&self) -> &str {
        self.expr.split(['<', '>', '=', '!']).next().unwrap_or_default()
    }

    /// The figure for people.
    pub fn value_text(&self) -> String {
        let shown = |value| super::show::shown(value, super::keys::unit(self.key()));
        let value = self.value.map_or("no value".to_owned(), shown);
        if self.aborted { format!("{value}; it ended the run") } else { value }
    }
}

/// What was run.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RunSection {
    /// Part of every participant's identity.
    pub id: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// Whole run, from the first join to the last leave.
    pub duration_s: f64,
    /// Measured window: after the ramp, until everybody was told to leave. `null` if the run was
    /// interrupted in the ramp; the figures are then of the ramp.
    pub measured_s: Option<f64>,
    /// True if a signal ended it, or cut its end short; `verdict.result` is then `interrupted`.
    pub interrupted: bool,
    /// Where it joined.
    pub target: TargetSection,
    /// The options in force, defaults included, secrets never; `null` in a merged report, whose
    /// `hosts` have them.
    pub options: Option<Options>,
    /// Seed of everything random; `null` in a merged report.
    pub seed: Option<u64>,
    /// This machine; `null` in a merged report.
    pub machine: Option<Machine>,
    /// Version of stampede.
    pub stampede_version: String,
    /// The hosts of a merged report, one row each; `null` in the report of one host.
    #[serde(default)]
    pub hosts: Option<Vec<HostSection>>,
    /// Stages that have ended; `null` without `--stage`.
    #[serde(default)]
    pub stages: Option<Vec<StageRow>>,
}

/// One stage.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct StageRow {
    /// When it began, since the first stage began.
    pub t_s: f64,
    /// How long it took.
    pub duration_s: f64,
    /// Subscribers asked for at its end, over all rooms.
    pub subscribers: u64,
    /// Of them connected at its end.
    pub subscribers_connected: u64,
    /// Subscribers started in it.
    pub joined: u64,
    /// Subscribers told to leave in it.
    pub left: u64,
    /// Packets of video and audio that should have arrived in it.
    pub packets_expected: Option<u64>,
    /// Of them not there when passed over.
    pub packets_missing: Option<u64>,
    /// Given up in it.
    pub packets_unrecovered: Option<u64>,
    /// `packets_unrecovered / packets_expected`.
    pub loss_rate: Option<f64>,
    /// `packets_missing / packets_expected`.
    pub missing_rate: Option<f64>,
    /// Payload bits a second, all streams together.
    pub bitrate_bps: Option<f64>,
}

/// A capacity search.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct FindSection {
    /// What was searched: `subscribers` (per room).
    pub what: String,
    /// The promise.
    pub until: String,
    /// How long each step held.
    pub hold_s: f64,
    /// Steps in the order in which they were made.
    pub steps: Vec<FindStep>,
    /// The highest number that kept the promise; `null` if none did.
    pub highest_ok: Option<u64>,
    /// The lowest number that did not; `null` if all did.
    pub first_broken: Option<u64>,
    /// What broke it there; `null` if nothing did.
    pub limit: Option<Fault>,
    /// False if the search was ended by a signal.
    pub complete: bool,
}

/// One step of a capacity search.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct FindStep {
    /// Subscribers per room.
    pub subscribers: u64,
    /// Everybody joined and the promise held.
    pub ok: bool,
    /// Participants that joined.
    pub joined: u64,
    /// The figures that the promise is about.
    pub figures: BTreeMap<String, Option<f64>>,
    /// Busiest worker.
    pub busy_ratio_max: f64,
    /// What broke it, as far as known.
    pub fault: Fault,
    /// Why, most important first.
    pub reasons: Vec<String>,
}

/// One host of a merged report.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct HostSection {
    /// Its name in the reasons.
    pub host: String,
    /// Its run.
    pub id: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// Its whole run.
    pub duration_s: f64,
    /// Its measured window.
    pub measured_s: Option<f64>,
    /// Its options.
    pub options: Option<Options>,
    /// Its seed.
    pub seed: Option<u64>,
    /// The machine.
    pub machine: Option<Machine>,
    /// Its own verdict.
    pub verdict: Verdict,
}

/// Where it joined.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TargetSection {
    /// Signalling URL; `null` if the run ended before it was known.
    pub url: Option<String>,
    /// True for the embedded SFU.
    pub embedded: bool,
    /// As the server says in its join response.
    pub server_version: Option<String>,
}

/// The options in force.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Options {
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
    pub video_resolution: String,
    /// Names of the published video clips, lowest layer first.
    pub video: Vec<String>,
    /// Name of the published audio clip.
    pub audio: Option<String>,
    /// Recording folder.
    pub record: Option<String>,
    /// Subscribers that record.
    pub record_subscribers: u32,
    /// `--dynacast`.
    #[serde(default)]
    pub dynacast: bool,
    /// `--stage`, each as `DUR:SUBS` in seconds.
    #[serde(default)]
    pub stage: Vec<String>,
    /// `--layout`.
    #[serde(default)]
    pub layout: Option<String>,
    /// `--subscribe-mode`.
    #[serde(default)]
    pub subscribe_mode: String,
    /// `--hidden`.
    #[serde(default)]
    pub hidden: bool,
    /// `--simulate-speakers`.
    #[serde(default)]
    pub simulate_speakers: bool,
    /// Names of the cohorts.
    #[serde(default)]
    pub cohorts: Vec<String>,
    /// `--playout-deadline`.
    pub playout_deadline_ms: f64,
    /// `--interruption-min`.
    #[serde(default)]
    pub interruption_min_s: f64,
    /// `--join-grace`.
    #[serde(default)]
    pub join_grace_s: f64,
    /// `--impair`.
    pub impair: Vec<String>,
    /// Media workers.
    pub workers: usize,
    /// Their cores.
    pub cores: Vec<usize>,
    /// `--backend`.
    pub backend: String,
    /// `--receive-buffer`; `null` in reports of versions without it.
    pub receive_buffer_bytes: Option<usize>,
    /// `--packet-ring`, or what it is without; `null` where there is no such ring, and in reports
    /// of versions without it.
    pub packet_ring_bytes: Option<usize>,
    /// How the embedded SFU was started; `null` at a real server.
    pub embedded: Option<EmbeddedOptions>,
}

/// How the embedded SFU was started.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EmbeddedOptions {
    /// Its cores.
    pub cores: Vec<usize>,
    /// Share of packets it drops.
    pub drop: f64,
    /// Mean burst of drops in packets.
    pub drop_burst: u32,
    /// How long it holds packets back.
    pub delay_ms: f64,
    /// `--embedded-impair`.
    pub impair: Vec<String>,
    /// `--embedded-flag`.
    pub flags: Vec<String>,
}

/// This machine.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Machine {
    /// Its name.
    pub hostname: Option<String>,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It did what was asked.
    Pass,
    /// A threshold failed, nobody could join, too many joins failed or never ended, nothing was
    /// received or sent, too much was lost, too many tracks stayed silent, the server went away, or
    /// a recording or capture that was asked for is not whole.
    Fail,
    /// The generator was at fault: its figures say nothing about the server.
    Invalid,
    /// A signal ended it: its figures are of a part of what was asked for. Before any other; fault
    /// and reasons are of that part.
    Interrupted,
}

impl Outcome {
    /// As people read it: the first word of every form of a report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Invalid => "INVALID",
            Self::Interrupted => "INTERRUPTED",
        }
    }
}

/// Whose fault what went wrong is (design.md §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// How it ended.
    pub result: Outcome,
    /// Whose fault.
    pub fault: Fault,
    /// Why, most important first.
    pub reasons: Vec<String>,
}

/// Joins of publishers and subscribers.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct JoinSection {
    /// Participants that were to join.
    pub requested: u64,
    /// Of them started before the run ended.
    pub started: u64,
    /// Of them connected (DTLS up) at least once.
    pub joined: u64,
    /// Of them given up without ever being connected, after their last try.
    pub failed: u64,
    /// Of them neither: still joining when the run ended. `requested` is `joined`, `failed`,
    /// `pending` and `not_started` together.
    pub pending: u64,
    /// The pending ones by the step they hang at; `null` in reports of versions without it.
    pub pending_at: Option<PendingAt>,
    /// Participants that the run ended without starting.
    pub not_started: u64,
    /// Joined participants that were dropped at least once before they were told to leave, and
    /// those whose websocket was lost and not yet back at the end.
    pub dropped: u64,
    /// The same with every try counted singly.
    pub drops: u64,
    /// Tries that ended without being connected, of whomever.
    pub tries_failed: u64,
    /// Further tries made.
    pub retries: u64,
    /// Sessions that went on over a new websocket after theirs was lost; no drop and no retry.
    pub resumed: u64,
    /// Failed and dropped tries by kind.
    pub errors: BTreeMap<String, u64>,
    /// By kind of error, or of end that a session survived, what was said the first time: close
    /// codes and texts, answers of the server, errors of this machine.
    pub error_texts: BTreeMap<String, String>,
    /// What the sessions made of the server's messages.
    pub signalling: SignallingSection,
    /// Most participants connected at one moment; `null` in a merged report without series.
    pub peak: Option<u64>,
    /// From the scheduled start of each join.
    pub phases_ms: Phases,
}

/// The server's signalling messages, of all sessions together. What was not used is counted here
/// and changed nothing else.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SignallingSection {
    /// Understood.
    pub messages: u64,
    /// Not understood.
    pub malformed: u64,
    /// Offers that were repeated, outdated or not for this role.
    pub offers_ignored: u64,
    /// Answers, of either side, to no offer that was open.
    pub answers_ignored: u64,
    /// Candidates that were malformed, for another peer connection, or too many.
    pub candidates_dropped: u64,
    /// Tracks past the most that a session takes.
    pub tracks_ignored: u64,
}

impl SignallingSection {
    /// Adds another's.
    pub fn merge(&mut self, other: &Self) {
        self.messages += other.messages;
        self.malformed += other.malformed;
        self.offers_ignored += other.offers_ignored;
        self.answers_ignored += other.answers_ignored;
        self.candidates_dropped += other.candidates_dropped;
        self.tracks_ignored += other.tracks_ignored;
    }
}

/// Join phases, each from the scheduled start of the join.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Phases {
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

impl Phases {
    /// All of them in their order, with what people call them.
    pub fn named(&self) -> [(&'static str, Option<&Hist>); 6] {
        [
            ("websocket open", self.websocket.as_ref()),
            ("join response", self.signal.as_ref()),
            ("ICE connected", self.ice.as_ref()),
            ("DTLS connected", self.dtls.as_ref()),
            ("first packet", self.first_packet.as_ref()),
            ("first keyframe", self.first_keyframe.as_ref()),
        ]
    }
}

/// Packets in their parts (design.md §3).
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Packets {
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
    /// Silence and blank frames of the server's own; in no other count.
    pub server_made: u64,
    /// Not there yet when a stream was ended, and within the playout deadline: they might have
    /// come. In no other count.
    pub cut_off: u64,
}

/// Frames.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Frames {
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
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Freezes {
    /// How many.
    pub count: u64,
    /// Together.
    pub total_s: f64,
    /// Streams with at least one.
    pub streams: u64,
    /// The same by cause.
    pub causes: FreezeCauses,
}

/// Freezes by cause.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FreezeCauses {
    /// A frame in them was lost or could not be decoded.
    pub loss: FreezeCause,
    /// Every frame came, but late.
    pub late: FreezeCause,
}

/// Freezes of one cause.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FreezeCause {
    /// How many.
    pub count: u64,
    /// Together.
    pub total_s: f64,
}

/// One kind of received media.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MediaSection {
    /// Subscriptions there should have been; `null` if the publishers are not ours.
    pub tracks_expected: Option<u64>,
    /// Tracks of which a packet arrived, whatever streams they had.
    pub tracks_received: u64,
    /// How long they could be watched.
    #[serde(flatten)]
    pub watch: WatchFigures,
    /// Packets.
    pub packets: Packets,
    /// `unrecovered / expected`.
    pub loss_rate: Option<f64>,
    /// `missing / expected`.
    pub missing_rate: Option<f64>,
    /// Payload bits a second, all tracks together, over the whole measured window.
    pub bitrate_bps: Option<f64>,
    /// Frames.
    pub frames: Frames,
    /// Decodable (video) or complete (audio) frames a second of expected time, mean over tracks.
    pub fps: Option<f64>,
    /// Freezes; `null` for audio.
    pub freezes: Option<Freezes>,
    /// Interarrival jitter of each stream at its end.
    pub jitter_ms: Option<Hist>,
    /// End-to-end latency of frames, from the publisher's stamp to our kernel; `null` with the
    /// reason in `latency_source`.
    pub latency_ms: Option<Hist>,
    /// The same for each height of the picture; empty for audio.
    pub latency_layers_ms: BTreeMap<String, Hist>,
    /// Where the latency comes from.
    pub latency_source: LatencySource,
    /// From a PLI to a complete keyframe; `null` for audio, and if none was answered.
    pub pli_to_keyframe_ms: Option<Hist>,
    /// Switches between simulcast layers; `null` where they can't be seen.
    pub layer_switches: Option<u64>,
    /// NACK messages.
    pub nack_sent: u64,
    /// PLI messages.
    pub pli_sent: u64,
}

/// Published media.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PublishSection {
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
    /// The packets so lost.
    pub upstream_lost: Option<u64>,
    /// The packets those reports cover.
    pub upstream_expected: Option<u64>,
    /// How late packets left after they were due.
    pub lateness_ms: Option<Hist>,
    /// Packets that left more than 10 ms late.
    pub late_packets: u64,
    /// Layers the server said nobody wants, each time it said so (dynacast).
    pub layer_pauses: u64,
    /// Frames not sent for that reason (`--dynacast`), or because the server muted the track.
    pub frames_withheld: u64,
}

/// What `--impair` and the cohorts' `impair` did in the measured window.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ImpairmentSection {
    /// All cohorts together.
    #[serde(flatten)]
    pub all: Injected,
    /// One row an `--impair`, in their order, then one for each cohort with its own.
    pub cohorts: Vec<CohortSection>,
}

/// What was done for one of these reasons.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CohortSection {
    /// `impair-1` for the first `--impair`, else that of the cohort.
    pub name: String,
    /// As it was given.
    pub spec: String,
    /// Peers it was for: each try of a subscriber to join is one.
    #[serde(alias = "subscribers")]
    pub peers: u64,
    /// What was done to them.
    #[serde(flatten)]
    pub injected: Injected,
}

/// Received packets and what was done to them. RTP, retransmissions included, but for
/// `other_dropped`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Injected {
    /// Dropped.
    pub dropped: u64,
    /// Accounted later than they arrived.
    pub delayed: u64,
    /// Held back so that others overtook them; among the delayed.
    pub reordered: u64,
    /// Given to the peer twice.
    pub duplicated: u64,
    /// RTCP dropped, and in outages everything else.
    pub other_dropped: u64,
}

impl Injected {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.dropped += other.dropped;
        self.delayed += other.delayed;
        self.reordered += other.reordered;
        self.duplicated += other.duplicated;
        self.other_dropped += other.other_dropped;
    }
}

/// Recordings.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RecordingSection {
    /// The folder.
    pub dir: String,
    /// Files finished.
    pub files: Vec<String>,
    /// Frames written.
    pub frames_written: u64,
    /// Frames not written: the disk was too slow or refused them.
    pub frames_dropped: u64,
    /// Video frames whose timestamp was not after the one before, and was moved there.
    #[serde(default)]
    pub frames_moved: u64,
    /// Opus packets written in the place of missing ones.
    #[serde(default)]
    pub packets_concealed: u64,
    /// Jumps of Opus timestamps that were not filled.
    #[serde(default)]
    pub timestamp_jumps: u64,
    /// What became of the packets of recorded streams on their way into frames.
    #[serde(default)]
    pub assembly: AssemblySection,
    /// What went wrong, in plain words.
    pub errors: Vec<String>,
}

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

/// The server's own figures.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ServerSection {
    /// The embedded SFU's ledger; `null` at a real server, or when it could not be had.
    pub embedded: Option<EmbeddedSection>,
    /// Why `embedded` is `null` although the embedded SFU ran.
    pub embedded_missing: Option<String>,
    /// Scraped from the server; `null` without `--server-metrics`.
    pub metrics: Option<ServerMetrics>,
}

/// The embedded SFU's ledger.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EmbeddedSection {
    /// Everything since it started.
    #[serde(flatten)]
    pub ledger: Ledger,
    /// Its totals over the measured window only, to set against `video` and `audio`.
    pub measured: Option<LedgerTotals>,
}

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
    /// Packets that should have arrived in this second.
    pub expected: u64,
    /// Packets found missing in this second.
    pub missing: u64,
    /// Missing packets that came in time in this second.
    pub repaired: u64,
    /// Missing packets that came too late in this second.
    pub late: u64,
    /// Packets given up in this second.
    pub unrecovered: u64,
    /// Freezes that ended in this second.
    pub freezes: u64,
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
    /// The scraped server; `null` without `--server-metrics`, or where a scrape failed.
    pub server: Option<ServerSecond>,
}
