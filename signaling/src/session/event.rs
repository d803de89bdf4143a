//! What goes into a [`Session`](super::Session) and what comes out of it.

use std::time::Duration;

use livekit_protocol as proto;
use proto::{DisconnectReason, SignalRequest};

use super::flood::Flood;
use super::layout::Layout;

/// Audio or video, from `TrackInfo.type` (livekit_models.proto). Data tracks are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrackKind {
    /// `TrackType::AUDIO`.
    Audio,
    /// `TrackType::VIDEO`.
    Video,
}

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

/// Which of the participant's two peer connections (livekit_rtc.proto `SignalTarget`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// We offer, the server answers.
    Publisher,
    /// The server offers, we answer.
    Subscriber,
}

impl Target {
    pub(crate) fn to_proto(self) -> proto::SignalTarget {
        match self {
            Self::Publisher => proto::SignalTarget::Publisher,
            Self::Subscriber => proto::SignalTarget::Subscriber,
        }
    }
}

/// How a subscriber gets its tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Subscription {
    /// `auto_subscribe=1`: the server subscribes us to everything.
    #[default]
    Auto,
    /// `auto_subscribe=0`: the session sends `subscription` for every track of the wanted kinds as
    /// soon as it is known. With both `false` nothing is subscribed until
    /// [`Session::subscribe`](super::Session::subscribe) says so.
    Manual {
        /// Subscribe to audio tracks.
        audio: bool,
        /// Subscribe to video tracks.
        video: bool,
    },
    /// What a layout shows, at the sizes it has; the role's quality does not count.
    Layout {
        /// The layout.
        layout: Layout,
        /// `auto_subscribe=1`, and videos that are not shown are disabled, as browsers do with
        /// adaptive stream; else only what is shown is subscribed to, as `lk perf load-test` does.
        auto: bool,
    },
}

/// What a participant is in the room for.
#[derive(Debug, Clone, PartialEq)]
pub enum Role {
    /// Receives: the server offers, the engine answers.
    Subscriber {
        /// Automatic or manual subscription.
        subscription: Subscription,
        /// Layer asked for, for every video track.
        quality: Quality,
    },
    /// Sends: every track is announced with `add_track`, then the engine offers.
    Publisher {
        /// What is announced. At most [`PUBLISH_TRACKS_MAX`](super::PUBLISH_TRACKS_MAX).
        tracks: Vec<LocalTrack>,
    },
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
    pub kind: TrackKind,
    /// Codec as LiveKit names it: `vp8`, `h264`, `vp9`, `av1`, `opus`.
    pub codec: String,
    /// Width of the full layer; 0 for audio.
    pub width: u32,
    /// Height of the full layer; 0 for audio.
    pub height: u32,
    /// Layers low to high. Empty for audio; one HIGH layer for video without simulcast.
    pub layers: Vec<LocalLayer>,
}

impl LocalTrack {
    /// What it is announced as.
    #[must_use]
    pub fn source(&self) -> TrackSource {
        match self.kind {
            TrackKind::Audio => TrackSource::Microphone,
            TrackKind::Video => TrackSource::Camera,
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

/// What the media plane tells the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaInput {
    /// The subscriber peer's answer to [`MediaCommand::RemoteOffer`] with this id. An answer to an
    /// offer that was superseded or already answered is counted and dropped.
    LocalAnswer {
        /// Id of the offer that is answered.
        offer_id: u32,
        /// The answer.
        sdp: String,
    },
    /// The publisher peer's offer, asked for by [`MediaCommand::CreateOffer`] or
    /// [`MediaCommand::RestartIce`].
    LocalOffer {
        /// The offer.
        sdp: String,
    },
    /// A local candidate gathered after the SDP went out; not needed when the SDP had them all.
    LocalCandidate {
        /// Which peer connection.
        target: Target,
        /// `candidate:…`, without `a=`.
        candidate: String,
    },
    /// The engine could not use an offer or an answer: ends the session.
    NegotiationFailed {
        /// What was wrong.
        reason: String,
    },
    /// ICE or DTLS was lost or never came up: ends the session.
    Disconnected {
        /// What was lost.
        reason: String,
    },
}

/// What the session wants of the media plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaCommand {
    /// Apply the server's offer to the subscriber peer, and hand back
    /// [`MediaInput::LocalAnswer`] with the same id.
    RemoteOffer {
        /// The server's id of this offer.
        id: u32,
        /// The offer, as it came.
        sdp: String,
        /// `mid` to track sid, authoritative, in no order; empty on old servers.
        mid_to_track_id: Vec<(String, String)>,
    },
    /// Make the publisher peer's offer and hand back [`MediaInput::LocalOffer`]. Asked once.
    CreateOffer,
    /// Make an offer that restarts ICE (RFC 8445 §9) on the publisher peer, and hand back
    /// [`MediaInput::LocalOffer`].
    RestartIce,
    /// Apply the server's answer to the publisher peer.
    RemoteAnswer {
        /// The answer, as it came.
        sdp: String,
    },
    /// A candidate of the server. Never comes before the description it belongs to.
    RemoteCandidate {
        /// Which peer connection.
        target: Target,
        /// `candidate:…`, without `a=`.
        candidate: String,
    },
}

/// What the session wants of its surroundings; drained with
/// [`Session::poll_output`](super::Session::poll_output).
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send this message to the server.
    Send(Box<SignalRequest>),
    /// Do this with the media plane.
    Media(MediaCommand),
    /// This happened.
    Event(SessionEvent),
}

/// Facts from `JoinResponse`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Our participant sid (`PA_…`).
    pub participant_sid: String,
    /// Our identity as the server has it.
    pub identity: String,
    /// Room sid (`RM_…`).
    pub room_sid: String,
    /// Room name.
    pub room_name: String,
    /// Server version; empty when it did not say.
    pub server_version: String,
    /// Server region; empty when it did not say.
    pub region: String,
    /// The server's protocol number; 0 when it did not say.
    pub protocol: i32,
    /// Others in the room when we joined (hidden ones excluded by the server).
    pub participants: usize,
    /// The server will offer.
    pub subscriber_primary: bool,
    /// The server allows an offer before `track_published`.
    pub fast_publish: bool,
    /// How often we ping; zero when the server asked for none.
    pub ping_interval: Duration,
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
}

impl Departure {
    /// Somebody wanted it so: the publisher, or who may remove it. Everything else is an accident.
    #[must_use]
    pub fn is_orderly(self) -> bool {
        match self {
            Self::Unpublished => true,
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
    pub kind: TrackKind,
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

/// Which layers the server still wants of a published track (dynacast,
/// livekit_rtc.proto `SubscribedQualityUpdate`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedCodec {
    /// Codec as the server names it; empty on servers before per-codec updates.
    pub codec: String,
    /// Quality and whether anyone wants it.
    pub qualities: Vec<(Quality, bool)>,
}

/// What happened in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// `join` came; a LiveKit server sends it before anything else.
    Joined(Box<Joined>),
    /// The server accepted one of our tracks.
    TrackPublished {
        /// Our client id.
        cid: String,
        /// The server's sid.
        sid: String,
    },
    /// The server refused one of our tracks. If none is left the session ends.
    PublishRefused {
        /// Our client id.
        cid: String,
        /// `request_response.Reason` in lower case, such as `not_allowed`.
        reason: String,
    },
    /// The first subscriber of one of our tracks (`track_subscribed`).
    PublishedTrackSubscribed {
        /// Our track's sid.
        sid: String,
    },
    /// Dynacast: layers of our track that are wanted. Ignoring it is harmless.
    QualityWanted {
        /// Our track's sid.
        sid: String,
        /// Per codec.
        codecs: Vec<WantedCodec>,
    },
    /// The server muted or unmuted one of our tracks.
    PublishedTrackMuted {
        /// Our track's sid.
        sid: String,
        /// True if muted.
        muted: bool,
    },
    /// The server took one of our tracks out of the room.
    PublishedTrackGone {
        /// Our track's sid.
        sid: String,
    },
    /// Somebody else's track is there; quality (and subscription, if manual) was asked for.
    TrackAvailable(Box<RemoteTrack>),
    /// A track appeared in an offer: its media will come.
    TrackSubscribed {
        /// Track sid.
        sid: String,
        /// The offer's m-line.
        mid: String,
    },
    /// A track that was in the last offer is in this one no longer.
    TrackUnsubscribed {
        /// Track sid.
        sid: String,
    },
    /// Muted or unmuted by its publisher.
    TrackMuted {
        /// Track sid.
        sid: String,
        /// True if muted.
        muted: bool,
    },
    /// Unpublished, or its publisher left.
    TrackGone {
        /// Track sid.
        sid: String,
        /// Which of the two, and why.
        departure: Departure,
    },
    /// Whether we want a track that is available: by what we told the server, or by what it does
    /// unasked. Tracks of which nothing is said are wanted.
    TrackWanted {
        /// Track sid.
        sid: String,
        /// False if it was not subscribed to, or is switched off.
        wanted: bool,
    },
    /// The server can't give us this track (`subscription_response`).
    SubscriptionFailed {
        /// Track sid.
        sid: String,
        /// `unknown`, `codec_unsupported` or `track_not_found`.
        error: &'static str,
    },
    /// The server paused or resumed a stream (`stream_state_update`).
    StreamState {
        /// Track sid.
        sid: String,
        /// True if paused.
        paused: bool,
    },
    /// A pong came.
    Pong {
        /// Round trip of the signalling connection.
        rtt: Duration,
    },
    /// The server took the session up again after
    /// [`Session::resume`](super::Session::resume).
    Resumed,
    /// The last event, unless the session is resumed. Nothing but already queued messages follows.
    Ended(EndReason),
}

/// Why a session ended. [`EndReason::kind`] is what reports count by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndReason {
    /// We left.
    Left,
    /// The server told us to go.
    ServerLeft {
        /// Its reason.
        reason: DisconnectReason,
    },
    /// The server asked us to connect anew; `resume` if it would take the session up again.
    ReconnectAsked {
        /// `action` RESUME rather than RECONNECT.
        resume: bool,
        /// Its reason.
        reason: DisconnectReason,
    },
    /// The server sent us elsewhere (`JoinResponse.alternative_url`).
    Redirected {
        /// Where to.
        url: String,
    },
    /// No `join` in time.
    JoinTimeout,
    /// `add_track` was not answered in time.
    PublishTimeout,
    /// Every track was refused.
    PublishRefused {
        /// The last refusal's reason, such as `not_allowed`.
        reason: String,
    },
    /// No pong within the server's `ping_timeout`.
    PingTimeout,
    /// The server closed the websocket without a `leave`.
    Closed {
        /// Its close code (RFC 6455 §7.4.1): 1005 if the close frame had none, 1006 if there was no
        /// close frame.
        code: u16,
        /// Its text, at most 200 characters.
        text: String,
    },
    /// The websocket broke.
    ConnectionLost {
        /// The I/O or protocol error.
        detail: String,
    },
    /// The server stopped reading: our outbound queue is full.
    OutboundFull,
    /// The server sent more than any participant has use for; nothing more of it is read.
    ServerFlooded {
        /// Of what.
        flood: Flood,
    },
    /// The engine could not use the SDP.
    NegotiationFailed {
        /// What the engine said.
        reason: String,
    },
    /// ICE or DTLS failed.
    MediaLost {
        /// What the engine said.
        reason: String,
    },
}

impl EndReason {
    /// Stable snake_case name for `join.errors{KIND: n}`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::ServerLeft { reason } => server_left_kind(*reason),
            Self::ReconnectAsked { resume: true, .. } => "server_asked_resume",
            Self::ReconnectAsked { resume: false, .. } => "server_asked_reconnect",
            Self::Redirected { .. } => "server_redirected",
            Self::JoinTimeout => "join_timeout",
            Self::PublishTimeout => "publish_timeout",
            Self::PublishRefused { .. } => "publish_refused",
            Self::PingTimeout => "ping_timeout",
            Self::Closed { code, .. } => closed_kind(*code),
            Self::ConnectionLost { .. } => "signal_lost",
            Self::OutboundFull => "signal_stalled",
            Self::ServerFlooded { flood } => flood.kind(),
            Self::NegotiationFailed { .. } => "negotiation_failed",
            Self::MediaLost { .. } => "media_lost",
        }
    }

    /// True if a new websocket can take the session up again: the old one is gone, or the server
    /// asked for it, while the server still has the participant (livekit-client does the same).
    #[must_use]
    pub fn is_resumable(&self) -> bool {
        matches!(
            self,
            Self::Closed { .. }
                | Self::ConnectionLost { .. }
                | Self::PingTimeout
                | Self::ReconnectAsked { resume: true, .. }
        )
    }

    /// Why we resume, as the server is told (livekit_models.proto `ReconnectReason`).
    pub(crate) fn reconnect_reason(&self) -> proto::ReconnectReason {
        match self {
            Self::Closed { .. } | Self::ConnectionLost { .. } | Self::PingTimeout => {
                proto::ReconnectReason::RrSignalDisconnected
            }
            _ => proto::ReconnectReason::RrUnknown,
        }
    }

    /// True if joining again can help: not after our own leave, an eviction or a refusal.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Left | Self::PublishRefused { .. } | Self::Redirected { .. } => false,
            Self::ServerLeft { reason } => !matches!(
                reason,
                DisconnectReason::DuplicateIdentity
                    | DisconnectReason::ParticipantRemoved
                    | DisconnectReason::RoomDeleted
                    | DisconnectReason::RoomClosed
            ),
            _ => true,
        }
    }
}

impl std::fmt::Display for EndReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Left => f.write_str("left"),
            Self::ServerLeft { reason } => {
                write!(f, "the server ended the session: {}", reason.as_str_name())
            }
            Self::ReconnectAsked { resume, reason } => {
                let how = if *resume { "a resume" } else { "a reconnect" };
                write!(f, "the server asked for {how}: {}", reason.as_str_name())
            }
            Self::Redirected { url } => write!(f, "the server redirected to {url}"),
            Self::JoinTimeout => f.write_str("the server sent no join response in time"),
            Self::PublishTimeout => f.write_str("the server did not answer add_track in time"),
            Self::PublishRefused { reason } => write!(f, "the server refused to publish: {reason}"),
            Self::PingTimeout => f.write_str("the server stopped answering pings"),
            Self::Closed { code: 1006, .. } => {
                f.write_str("the server closed the websocket without a close frame (1006)")
            }
            Self::Closed { code, text } if text.is_empty() => {
                write!(f, "the server closed the websocket: code {code}")
            }
            Self::Closed { code, text } => {
                write!(f, "the server closed the websocket: code {code}, {text:?}")
            }
            Self::ConnectionLost { detail } => write!(f, "the websocket broke: {detail}"),
            Self::OutboundFull => f.write_str("the server stopped reading the websocket"),
            Self::ServerFlooded { flood } => write!(f, "the server flooded us: {flood}"),
            Self::NegotiationFailed { reason } => write!(f, "negotiation failed: {reason}"),
            Self::MediaLost { reason } => write!(f, "media connection lost: {reason}"),
        }
    }
}

/// By the code where it has a meaning (RFC 6455 §7.4.1, the IANA registry), else by its range: a
/// server could send any number, and reports count by kinds.
fn closed_kind(code: u16) -> &'static str {
    match code {
        1000 => "signal_closed_1000",
        1001 => "signal_closed_1001",
        1002 => "signal_closed_1002",
        1003 => "signal_closed_1003",
        1005 => "signal_closed_1005",
        1006 => "signal_closed_1006",
        1007 => "signal_closed_1007",
        1008 => "signal_closed_1008",
        1009 => "signal_closed_1009",
        1010 => "signal_closed_1010",
        1011 => "signal_closed_1011",
        1012 => "signal_closed_1012",
        1013 => "signal_closed_1013",
        1014 => "signal_closed_1014",
        1015 => "signal_closed_1015",
        3000..=3999 => "signal_closed_3xxx",
        4000..=4999 => "signal_closed_4xxx",
        _ => "signal_closed_other",
    }
}

fn server_left_kind(reason: DisconnectReason) -> &'static str {
    match reason {
        DisconnectReason::ClientInitiated => "server_left_client_initiated",
        DisconnectReason::DuplicateIdentity => "server_left_duplicate_identity",
        DisconnectReason::ServerShutdown => "server_left_server_shutdown",
        DisconnectReason::ParticipantRemoved => "server_left_participant_removed",
        DisconnectReason::RoomDeleted => "server_left_room_deleted",
        DisconnectReason::StateMismatch => "server_left_state_mismatch",
        DisconnectReason::JoinFailure => "server_left_join_failure",
        DisconnectReason::Migration => "server_left_migration",
        DisconnectReason::SignalClose => "server_left_signal_close",
        DisconnectReason::RoomClosed => "server_left_room_closed",
        DisconnectReason::ConnectionTimeout => "server_left_connection_timeout",
        DisconnectReason::MediaFailure => "server_left_media_failure",
        _ => "server_left_unknown",
    }
}
