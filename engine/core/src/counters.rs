//! What a peer reports of what it counted. The counters themselves are declared in
//! `stampede-counters`.

use std::time::Duration;

use stampede_counters::{
    FeedbackCounters, FrameCounters, FreezeCounters, LatencyCounters, MediaCounters,
    PacketCounters, PeerCounters, PublishCounters,
};
use stampede_media::Codec;

use crate::data::DataKind;
use crate::{Arrival, MediaKind};

/// One value of a distribution, handed out as it is measured: a histogram for each stream would
/// cost more memory than the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// A frame was complete: from its publisher's stamp to the kernel's for its last packet.
    Latency {
        /// Audio or video.
        kind: MediaKind,
        /// Height of the picture in pixels, where known: tells simulcast layers apart.
        height: Option<u16>,
        /// How long.
        latency: Duration,
    },
    /// From a PLI (the first since the last keyframe) to a complete keyframe.
    KeyframeAfterPli(Duration),
    /// A REMB went out.
    BandwidthEstimate {
        /// What it says of the way to us.
        bitrate_bps: u64,
    },
    /// The server's feedback gave a publisher a new estimate of the way to the server.
    UplinkEstimate {
        /// What it is good for.
        bitrate_bps: u64,
    },
    /// A data message came, which was expected.
    Data {
        /// How it travelled.
        kind: DataKind,
        /// From when it was sent to the kernel's stamp for the datagram that completed it.
        latency: Duration,
    },
    /// A call between participants was answered in time.
    Rpc {
        /// From the call to the kernel's stamp for the datagram that completed the answer.
        round_trip: Duration,
    },
    /// A publisher's frame left this late.
    Published {
        /// After it was due.
        lateness: Duration,
        /// Its packets.
        packets: u64,
    },
}

/// What the sender says it sent between two of its reports, and what came of it. Both reports lie
/// in the measured window; the sender's count is of every packet of the SSRC, padding included or
/// not as the sender sees fit (RFC 3550 §6.4.1 leaves retransmissions open too).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SenderWindow {
    /// Growth of the sender's packet count.
    pub sent: u64,
    /// Sequence numbers passed over, padding-only ones included.
    pub span: u64,
    /// Of them received padding-only.
    pub padding_only: u64,
    /// Of them not received in first transmission.
    pub missing: u64,
}

/// One received stream (primary SSRC) at its end.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamReport {
    /// Audio or video.
    pub kind: MediaKind,
    /// Codec; `None` if no packet came.
    pub codec: Option<Codec>,
    /// Primary SSRC.
    pub ssrc: u32,
    /// Mid of its m-line.
    pub mid: String,
    /// LiveKit track id (`TR_…`), from `mid_to_track_id`, else from `a=msid`.
    pub track_id: Option<String>,
    /// Packets.
    pub packets: PacketCounters,
    /// Frames.
    pub frames: FrameCounters,
    /// Freezes.
    pub freezes: FreezeCounters,
    /// Interarrival jitter at the end (RFC 3550 A.8); `None` with fewer than two frames.
    pub jitter: Option<Duration>,
    /// What was sent back.
    pub feedback: FeedbackCounters,
    /// What is known of the latency of complete frames.
    pub latency: LatencyCounters,
    /// First packet with payload.
    pub first_packet: Option<Arrival>,
    /// Last packet with payload.
    pub last_packet: Option<Arrival>,
    /// First complete keyframe.
    pub first_keyframe: Option<Arrival>,
    /// Packets the sender says it sent, from its last sender report.
    pub sender_packets: Option<u64>,
    /// When that report came.
    pub sender_report_at: Option<Arrival>,
    /// Between the first and the last sender report of the measured window; `None` with fewer than
    /// two.
    pub sender_window: Option<SenderWindow>,
    /// Payload bits a second between first and last packet; `None` with fewer than two.
    pub bitrate_bps: Option<f64>,
    /// Mean height of its pictures in pixels over the time that they were shown; `None` where it is
    /// not known.
    pub height_mean: Option<f64>,
    /// The stream was replaced or removed by a later offer.
    pub closed: bool,
}

impl StreamReport {
    /// All that was counted of it.
    pub fn counters(&self) -> MediaCounters {
        MediaCounters {
            packets: self.packets,
            frames: self.frames,
            freezes: self.freezes,
            feedback: self.feedback,
            latency: self.latency,
            ..MediaCounters::default()
        }
    }
}

/// One published layer at its end.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishReport {
    /// Client track id.
    pub cid: String,
    /// Audio or video.
    pub kind: MediaKind,
    /// Simulcast layer.
    pub rid: Option<&'static str>,
    /// Primary SSRC once negotiated.
    pub ssrc: Option<u32>,
    /// Counts of this layer; `tracks` is 1.
    pub counters: PublishCounters,
}

/// Everything a peer counted, at its end.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PeerReport {
    /// Received streams, closed ones included.
    pub streams: Vec<StreamReport>,
    /// Published layers.
    pub published: Vec<PublishReport>,
    /// The sums.
    pub counters: PeerCounters,
}
