//! Received and published media, and what was done to it on purpose.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hist::Hist;
use crate::latency::LatencySource;
use crate::watch::WatchFigures;

/// Packets in their parts (docs/measurement.md, "Packets").
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
