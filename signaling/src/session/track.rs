//! Tracks, one's own and those of others, as the signalling has them (livekit_models.proto).

use livekit_protocol as proto;
use proto::DisconnectReason;
use stampede_sdp::MediaKind;

/// The simulcast layer asked for with `track_setting` (livekit_models.proto `VideoQuality`).
///
/// There is no default on the wire: quality 0 *is* LOW, so it is always sent explicitly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
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

/// The size at which a video is shown; a width wins over the quality on the server
/// (livekit pkg/rtc/subscribedtrack.go).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct VideoSize {
    /// The layer meant.
    pub quality: Quality,
    /// Width in pixels; 0 where the quality alone is meant.
    pub width: u32,
    /// Height in pixels; 0 where the quality alone is meant.
    pub height: u32,
}

/// Share of the height asked for that is taken for enough.
const SIZE_TOLERANCE: f32 = 0.9;

/// Height of the layer that a server sends who asks for this, if nothing is in the way. With a size it
/// is the lowest layer that is nine tenths as high at least, else the highest (livekit
/// pkg/rtc/mediatrackreceiver.go, `GetQualityForDimension` and `layerSelectionTolerance`); with a quality the layer of it, or else
/// the best below, or the lowest. `None` if nobody said what is offered.
#[must_use]
pub fn height_due(offered: &[VideoSize], asked: VideoSize) -> Option<u32> {
    let known = || offered.iter().filter(|layer| layer.height > 0);
    if asked.height > 0 {
        let least = (asked.height as f32 * SIZE_TOLERANCE) as u32;
        let enough = known().map(|layer| layer.height).filter(|height| *height >= least);
        return enough.min().or_else(|| known().map(|layer| layer.height).max());
    }
    let below = known().filter(|layer| layer.quality <= asked.quality);
    let due = below.max_by_key(|layer| layer.quality);
    due.or_else(|| known().min_by_key(|layer| layer.quality)).map(|layer| layer.height)
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
    /// What it shows.
    pub source: TrackSource,
    /// Codec as LiveKit names it: `vp8`, `h264`, `h265`, `vp9`, `av1`, `opus`.
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
    /// The layers are spatial layers of one stream (SVC), not streams of their own.
    pub layers_in_one_stream: bool,
    /// What is published for those who can't receive its codec, once the server asks for it.
    pub backup: Option<Box<LocalBackup>>,
}

/// A [`LocalTrack`] in another codec (livekit-client's `backupCodec`).
#[derive(Debug, Clone, PartialEq)]
pub struct LocalBackup {
    /// Client id of what is sent then.
    pub cid: String,
    /// As in [`LocalTrack`].
    pub codec: String,
    /// Layers low to high, each a stream of its own.
    pub layers: Vec<LocalLayer>,
}

impl LocalTrack {
    /// Its layers as others hear of them.
    #[must_use]
    pub fn offered(&self) -> Vec<VideoSize> {
        let size = |layer: &LocalLayer| VideoSize {
            quality: layer.quality,
            width: layer.width,
            height: layer.height,
        };
        self.layers.iter().map(size).collect()
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
    /// Its layers as its publisher offers them; empty for audio, and where nobody said.
    pub layers: Vec<VideoSize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_what_the_server_would_send() {
        let simulcast = [(Quality::Low, 180), (Quality::Medium, 360), (Quality::High, 720)];
        let simulcast = simulcast.map(|(quality, height)| VideoSize {
            quality,
            width: height * 16 / 9,
            height,
        });
        let [small, middle, large] = simulcast;
        let quality = |quality| VideoSize { quality, ..VideoSize::default() };
        for (offered, asked, due) in [
            (&simulcast[..], quality(Quality::High), Some(720)),
            (&simulcast, quality(Quality::Medium), Some(360)),
            (&simulcast, quality(Quality::Low), Some(180)),
            (&simulcast, large, Some(720)),
            (&simulcast, VideoSize { height: 200, ..small }, Some(180)),
            (&simulcast, VideoSize { height: 210, ..small }, Some(360)),
            (&simulcast, VideoSize { height: 1_080, ..large }, Some(720)),
            (&[middle, large], small, Some(360)),
            // Without simulcast there is one layer, whatever is asked for.
            (&[large], quality(Quality::Low), Some(720)),
            (&[small, large], quality(Quality::Medium), Some(180)),
            (&[], quality(Quality::High), None),
            (&[quality(Quality::High)], large, None),
        ] {
            assert_eq!(height_due(offered, asked), due, "{offered:?} {asked:?}");
        }
    }
}
