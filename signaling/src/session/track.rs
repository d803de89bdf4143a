//! Tracks, one's own and those of others, as the signalling has them (livekit_models.proto).

use livekit_protocol as proto;
use proto::DisconnectReason;
use stampede_sdp::MediaKind;

/// The simulcast layer asked for with `track_setting` (livekit_models.proto `VideoQuality`).
///
/// There is no default on the wire: quality 0 *is* LOW, so it is always sent explicitly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Quality {
    /// The lowest layer (`q`).
    Low,
    /// The middle layer (`h`).
    Medium,
    /// The full layer (`f`); also the name of the only layer of a track without simulcast.
    #[default]
    High,
}

impl Quality {
    /// The value on the wire.
    #[must_use]
    pub fn to_proto(self) -> proto::VideoQuality {
        match self {
            Self::Low => proto::VideoQuality::Low,
            Self::Medium => proto::VideoQuality::Medium,
            Self::High => proto::VideoQuality::High,
        }
    }

    /// From the value on the wire; `None` for OFF and for numbers of a newer protocol.
    #[must_use]
    pub fn from_proto(value: i32) -> Option<Self> {
        match proto::VideoQuality::try_from(value) {
            Ok(proto::VideoQuality::Low) => Some(Self::Low),
            Ok(proto::VideoQuality::Medium) => Some(Self::Medium),
            Ok(proto::VideoQuality::High) => Some(Self::High),
            Ok(proto::VideoQuality::Off) | Err(_) => None,
        }
    }
}

/// What a track shows (livekit_models.proto `TrackSource`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum TrackSource {
    /// Its publisher did not say.
    #[default]
    Unknown,
    /// A camera.
    Camera,
    /// A microphone.
    Microphone,
    /// A screen or a window: its picture may stand still for as long as it likes.
    ScreenShare,
    /// The sound of a screen share.
    ScreenShareAudio,
}

impl TrackSource {
    /// From the value on the wire.
    #[must_use]
    pub fn from_proto(value: i32) -> Self {
        match proto::TrackSource::try_from(value) {
            Ok(proto::TrackSource::Camera) => Self::Camera,
            Ok(proto::TrackSource::Microphone) => Self::Microphone,
            Ok(proto::TrackSource::ScreenShare) => Self::ScreenShare,
            Ok(proto::TrackSource::ScreenShareAudio) => Self::ScreenShareAudio,
            Ok(proto::TrackSource::Unknown) | Err(_) => Self::Unknown,
        }
    }

    /// The value on the wire.
    #[must_use]
    pub fn to_proto(self) -> proto::TrackSource {
        match self {
            Self::Unknown => proto::TrackSource::Unknown,
            Self::Camera => proto::TrackSource::Camera,
            Self::Microphone => proto::TrackSource::Microphone,
            Self::ScreenShare => proto::TrackSource::ScreenShare,
            Self::ScreenShareAudio => proto::TrackSource::ScreenShareAudio,
        }
    }

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Camera => "camera",
            Self::Microphone => "microphone",
            Self::ScreenShare => "screen_share",
            Self::ScreenShareAudio => "screen_share_audio",
        }
    }
}

/// One track a publisher announces (livekit_rtc.proto `AddTrackRequest`).
#[derive(Debug, Clone, PartialEq)]
pub struct LocalTrack {
    /// Client id; must be the track id in the offer's `a=msid:<stream> <track>`, or the server
    /// takes the first pending track of the same kind (livekit rtc/participant.go:3625).
    pub cid: String,
    /// Name shown to others.
    pub name: String,
    /// Audio or video.
    pub kind: MediaKind,
    /// Codec as LiveKit names it: `vp8`, `h264`, `vp9`, `av1`, `opus`.
    pub codec: String,
    /// Width of the full layer; 0 for audio.
    pub width: u32,
    /// Height of the full layer; 0 for audio.
    pub height: u32,
    /// Layers low to high. Empty for audio; one HIGH layer for video without simulcast.
    pub layers: Vec<LocalLayer>,
    /// Audio: each packet is to bring the one before too (RED), if the server agrees.
    pub red: bool,
    /// Audio: silence is to be left out (DTX), if the server agrees.
    pub dtx: bool,
}

impl LocalTrack {
    /// What it is announced as.
    #[must_use]
    pub fn source(&self) -> TrackSource {
        match self.kind {
            MediaKind::Audio => TrackSource::Microphone,
            MediaKind::Video => TrackSource::Camera,
        }
    }
}

/// One layer of a [`LocalTrack`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalLayer {
    /// LOW, MEDIUM or HIGH.
    pub quality: Quality,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Bitrate in bits per second, as announced.
    pub bitrate_bps: u32,
}

/// How a track of somebody else ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It was unpublished; its publisher stays.
    Unpublished,
    /// Its publisher is gone.
    Left {
        /// As the server says (`ParticipantInfo.disconnect_reason`).
        reason: DisconnectReason,
    },
    /// We are in another room now; what became of it there we are not told any more.
    Moved,
}

impl Departure {
    /// Somebody wanted it so: the publisher, or who may remove it. Everything else is an accident.
    #[must_use]
    pub fn is_orderly(self) -> bool {
        match self {
            Self::Unpublished | Self::Moved => true,
            Self::Left { reason } => matches!(
                reason,
                DisconnectReason::ClientInitiated
                    | DisconnectReason::ParticipantRemoved
                    | DisconnectReason::RoomDeleted
                    | DisconnectReason::RoomClosed
            ),
        }
    }
}

/// Somebody else's track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteTrack {
    /// Track sid (`TR_…`).
    pub sid: String,
    /// Audio or video.
    pub kind: MediaKind,
    /// What it shows.
    pub source: TrackSource,
    /// The publisher's participant sid.
    pub publisher_sid: String,
    /// The publisher's identity.
    pub publisher_identity: String,
    /// Width of the full layer; 0 for audio or unknown.
    pub width: u32,
    /// Height of the full layer; 0 for audio or unknown.
    pub height: u32,
    /// `video/VP8`, `audio/opus`…; empty until the server knows it.
    pub mime_type: String,
    /// Muted by its publisher.
    pub muted: bool,
}
