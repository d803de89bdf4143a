//! Received and published media, and what was done to it on purpose.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stampede_core::MediaKind;
use stampede_counters::{
    FeedbackCounters, FrameCounters, FreezeCounters, ImpairCounters, MediaCounters, PacketCounters,
    PublishCounters, StreamsCounters,
};

use crate::hist::Hist;
use crate::latency::LatencySource;
use crate::layers::LayersSection;
use crate::watch::WatchFigures;

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
    /// How many streams.
    #[serde(flatten)]
    pub streams: StreamsCounters,
    /// Which layers were on the screen, and whether they were those asked for; `null` for audio.
    pub layers: Option<LayersSection>,
    /// Packets.
    pub packets: PacketCounters,
    /// `unrecovered / expected`.
    pub loss_rate: Option<f64>,
    /// `missing / expected`.
    pub missing_rate: Option<f64>,
    /// Payload bits a second, all tracks together, over the whole measured window.
    pub bitrate_bps: Option<f64>,
    /// Frames.
    pub frames: FrameCounters,
    /// Decodable (video) or complete (audio) frames a second of expected time, mean over tracks.
    pub fps: Option<f64>,
    /// Freezes; `null` for audio.
    pub freezes: Option<FreezeCounters>,
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
    /// Estimates of what the way to a subscriber carries, each REMB sent one; `null` for audio, and if
    /// none was sent.
    pub estimate_bps: Option<Hist>,
    /// What was sent back.
    #[serde(flatten)]
    pub feedback: FeedbackCounters,
}

impl MediaSection {
    /// With these counters; only video freezes.
    pub fn of(counted: &MediaCounters, kind: MediaKind) -> Self {
        let MediaCounters { streams, packets, frames, freezes, feedback, latency } = *counted;
        Self {
            streams,
            packets,
            loss_rate: packets.loss_rate(),
            missing_rate: packets.missing_rate(),
            frames,
            freezes: (kind == MediaKind::Video).then_some(freezes),
            latency_source: LatencySource::of(&latency),
            feedback,
            ..Self::default()
        }
    }

    /// Its counters.
    pub fn counters(&self) -> MediaCounters {
        MediaCounters {
            streams: self.streams,
            packets: self.packets,
            frames: self.frames,
            freezes: self.freezes.unwrap_or_default(),
            feedback: self.feedback,
            latency: self.latency_source.counted,
        }
    }
}

/// Published media.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PublishSection {
    /// What was sent.
    #[serde(flatten)]
    pub counted: PublishCounters,
    /// Lost on the way to the server, as its receiver reports say.
    pub upstream_loss_rate: Option<f64>,
    /// How late packets left after they were due.
    pub lateness_ms: Option<Hist>,
    /// What the way to the server was good for, by its feedback, in bits a second: a value each time that
    /// a publisher's estimate changed. Unknown without `--adapt`.
    pub estimate_bps: Option<Hist>,
}

/// What `--impair` and the cohorts' `impair` did in the measured window.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ImpairmentSection {
    /// All cohorts together.
    #[serde(flatten)]
    pub all: ImpairCounters,
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
    pub injected: ImpairCounters,
}
