//! Why a session ended.

use livekit_protocol as proto;
use proto::DisconnectReason;

use super::flood::Flood;

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
