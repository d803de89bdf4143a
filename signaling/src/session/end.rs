//! Why a session ended.

use livekit_protocol as proto;
use proto::DisconnectReason;

use super::flood::Flood;
use crate::error_kind::ErrorKind;

/// How who was connected comes back after the end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayBack {
    /// A new websocket takes the session up again; what was lost is negotiated anew.
    Resume,
    /// A new session of the same identity.
    Reconnect,
    /// Not at all: it was told to go, refused, or has left.
    None,
}

/// Why a session ended.
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
    /// What it is counted by.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Left => ErrorKind::Left,
            Self::ServerLeft { reason } => ErrorKind::server_left(*reason),
            Self::ReconnectAsked { resume: true, .. } => ErrorKind::ServerAskedResume,
            Self::ReconnectAsked { resume: false, .. } => ErrorKind::ServerAskedReconnect,
            Self::Redirected { .. } => ErrorKind::ServerRedirected,
            Self::JoinTimeout => ErrorKind::JoinTimeout,
            Self::PublishTimeout => ErrorKind::PublishTimeout,
            Self::PublishRefused { .. } => ErrorKind::PublishRefused,
            Self::PingTimeout => ErrorKind::PingTimeout,
            Self::Closed { code, .. } => ErrorKind::Closed((*code).into()),
            Self::ConnectionLost { .. } => ErrorKind::SignalLost,
            Self::OutboundFull => ErrorKind::SignalStalled,
            Self::ServerFlooded { flood } => ErrorKind::ServerFlooded(flood.kind()),
            Self::NegotiationFailed { .. } => ErrorKind::NegotiationFailed,
            Self::MediaLost { .. } => ErrorKind::MediaLost,
        }
    }

    /// How who was connected comes back after this, as livekit-client does it
    /// (client-sdk-js src/room/RTCEngine.ts).
    #[must_use]
    pub fn way_back(&self) -> WayBack {
        match self {
            Self::Closed { .. }
            | Self::ConnectionLost { .. }
            | Self::OutboundFull
            | Self::PingTimeout
            | Self::JoinTimeout
            | Self::MediaLost { .. }
            | Self::ReconnectAsked { resume: true, .. } => WayBack::Resume,
            Self::NegotiationFailed { .. }
            | Self::PublishTimeout
            | Self::ReconnectAsked { resume: false, .. } => WayBack::Reconnect,
            Self::Left
            | Self::ServerLeft { .. }
            | Self::Redirected { .. }
            | Self::PublishRefused { .. }
            | Self::ServerFlooded { .. } => WayBack::None,
        }
    }

    /// True if the server asked for it, so that nobody need wait.
    #[must_use]
    pub fn is_asked_for(&self) -> bool {
        matches!(self, Self::ReconnectAsked { .. })
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
