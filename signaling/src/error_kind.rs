//! What kind of error it was: what reports count by and verdicts go by.

use std::fmt;

use livekit_protocol::DisconnectReason;

/// HTTP statuses that are counted singly.
const HTTP: [(u16, &str); 10] = [
    (400, "http_400"),
    (401, "http_401"),
    (403, "http_403"),
    (404, "http_404"),
    (408, "http_408"),
    (429, "http_429"),
    (500, "http_500"),
    (502, "http_502"),
    (503, "http_503"),
    (504, "http_504"),
];
const HTTP_OTHER: &str = "http_other";

/// Close codes with a meaning (RFC 6455 §7.4.1, the IANA registry).
const CLOSED: [(u16, &str); 15] = [
    (1000, "signal_closed_1000"),
    (1001, "signal_closed_1001"),
    (1002, "signal_closed_1002"),
    (1003, "signal_closed_1003"),
    (1005, "signal_closed_1005"),
    (1006, "signal_closed_1006"),
    (1007, "signal_closed_1007"),
    (1008, "signal_closed_1008"),
    (1009, "signal_closed_1009"),
    (1010, "signal_closed_1010"),
    (1011, "signal_closed_1011"),
    (1012, "signal_closed_1012"),
    (1013, "signal_closed_1013"),
    (1014, "signal_closed_1014"),
    (1015, "signal_closed_1015"),
];
/// The codes of each range that has no meaning of its own.
const CLOSED_RANGES: [(CloseCode, &str); 3] = [
    (CloseCode::Registered, "signal_closed_3xxx"),
    (CloseCode::Private, "signal_closed_4xxx"),
    (CloseCode::Other, CLOSED_OTHER),
];
const CLOSED_OTHER: &str = "signal_closed_other";

const SERVER_LEFT: [(DisconnectReason, &str); 12] = [
    (DisconnectReason::ClientInitiated, "server_left_client_initiated"),
    (DisconnectReason::DuplicateIdentity, "server_left_duplicate_identity"),
    (DisconnectReason::ServerShutdown, "server_left_server_shutdown"),
    (DisconnectReason::ParticipantRemoved, "server_left_participant_removed"),
    (DisconnectReason::RoomDeleted, "server_left_room_deleted"),
    (DisconnectReason::StateMismatch, "server_left_state_mismatch"),
    (DisconnectReason::JoinFailure, "server_left_join_failure"),
    (DisconnectReason::Migration, "server_left_migration"),
    (DisconnectReason::SignalClose, "server_left_signal_close"),
    (DisconnectReason::RoomClosed, "server_left_room_closed"),
    (DisconnectReason::ConnectionTimeout, "server_left_connection_timeout"),
    (DisconnectReason::MediaFailure, "server_left_media_failure"),
];
const SERVER_LEFT_UNKNOWN: &str = "server_left_unknown";

const FLOODED: [(Flooded, &str); 8] = [
    (Flooded::Messages, "server_flooded_messages"),
    (Flooded::Bytes, "server_flooded_bytes"),
    (Flooded::Events, "server_flooded_events"),
    (Flooded::Offers, "server_flooded_offers"),
    (Flooded::Candidates, "server_flooded_candidates"),
    (Flooded::Sdp, "server_flooded_sdp"),
    (Flooded::MessageSize, "server_flooded_message_size"),
    (Flooded::Entries, "server_flooded_entries"),
];

/// Declares the kinds that are a word alone, each with its key, so that none lacks
/// one.
macro_rules! error_kinds {
    ($($(#[$doc:meta])+ $kind:ident = $key:literal,)+) => {
        /// The kind of an error of signalling or of RoomService, in a form that can be counted: a
        /// server can't make more of them than there are keys.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorKind {
            $($(#[$doc])+ $kind,)+
            /// The server answered with this HTTP status; `None` for one that is not counted
            /// singly. Made by [`ErrorKind::http`].
            Http(Option<u16>),
            /// The server ended the session and said why. Made by [`ErrorKind::server_left`].
            ServerLeft(DisconnectReason),
            /// The websocket was closed without a `leave`.
            Closed(CloseCode),
            /// The server sent more than any participant has use for.
            ServerFlooded(Flooded),
        }

        const PLAIN: &[(ErrorKind, &str)] = &[$((ErrorKind::$kind, $key),)+];
    };
}

error_kinds! {
    /// The URL can't be used.
    BadUrl = "bad_url",
    /// The host name has no address.
    Dns = "dns",
    /// Nothing listens there.
    Refused = "refused",
    /// No websocket in time.
    ConnectTimeout = "connect_timeout",
    /// This machine is out of file descriptors, ports or memory.
    LocalResources = "local_resources",
    /// Any other failure of TCP.
    Unreachable = "unreachable",
    /// The HTTP proxy on the way can't be reached, or does not connect us.
    Proxy = "proxy",
    /// The TLS handshake failed.
    Tls = "tls",
    /// The answer is no websocket handshake.
    WebsocketProtocol = "websocket_protocol",
    /// We left.
    Left = "left",
    /// The server asked for a new websocket, to take the session up again.
    ServerAskedResume = "server_asked_resume",
    /// The server asked for a new session.
    ServerAskedReconnect = "server_asked_reconnect",
    /// The server sent us elsewhere.
    ServerRedirected = "server_redirected",
    /// No `join` in time.
    JoinTimeout = "join_timeout",
    /// `add_track` was not answered in time.
    PublishTimeout = "publish_timeout",
    /// Every track was refused.
    PublishRefused = "publish_refused",
    /// No pong in time.
    PingTimeout = "ping_timeout",
    /// The websocket broke.
    SignalLost = "signal_lost",
    /// The server stopped reading.
    SignalStalled = "signal_stalled",
    /// The engine could not use the SDP.
    NegotiationFailed = "negotiation_failed",
    /// ICE or DTLS failed.
    MediaLost = "media_lost",
    /// RoomService refused the API key or secret.
    Unauthorized = "unauthorized",
    /// There is no such room.
    RoomNotFound = "room_not_found",
    /// RoomService did not answer in time.
    Timeout = "timeout",
    /// The answer is not RoomService's.
    NotLiveKit = "not_livekit",
    /// The API key or secret can't be used.
    BadCredentials = "bad_credentials",
    /// The HTTP client could not be made.
    Client = "client",
}

/// A websocket's close code: by itself where it has a meaning, else by its range, for a server
/// could send any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// One with a meaning (RFC 6455 §7.4.1); 1005 stands for a close frame without one, 1006 for
    /// no close frame.
    Known(u16),
    /// 3000 to 3999.
    Registered,
    /// 4000 to 4999.
    Private,
    /// Any other.
    Other,
}

impl From<u16> for CloseCode {
    fn from(code: u16) -> Self {
        match code {
            3000..=3999 => Self::Registered,
            4000..=4999 => Self::Private,
            _ if CLOSED.iter().any(|(known, _)| *known == code) => Self::Known(code),
            _ => Self::Other,
        }
    }
}

/// No close frame came: the server, or anything on the way, is gone.
const CLOSED_WITHOUT_FRAME: CloseCode = CloseCode::Known(1006);

/// What a server sent too much of; see [`Flood`](crate::session::Flood).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flooded {
    /// Messages.
    Messages,
    /// Bytes of messages.
    Bytes,
    /// Changes of tracks.
    Events,
    /// Offers.
    Offers,
    /// Candidates.
    Candidates,
    /// One SDP that is too long.
    Sdp,
    /// One message that is too long.
    MessageSize,
    /// One message that holds too much of something.
    Entries,
}

impl ErrorKind {
    /// Of an HTTP status.
    #[must_use]
    pub fn http(status: u16) -> Self {
        Self::Http(HTTP.iter().any(|(known, _)| *known == status).then_some(status))
    }

    /// Of a session that the server ended.
    #[must_use]
    pub fn server_left(reason: DisconnectReason) -> Self {
        let known = SERVER_LEFT.iter().any(|(known, _)| *known == reason);
        Self::ServerLeft(if known { reason } else { DisconnectReason::UnknownReason })
    }

    /// Its stable snake_case name, as reports have it in `join.errors{KIND: n}`.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Http(None) => HTTP_OTHER,
            Self::Http(Some(status)) => key_in(&HTTP, status).unwrap_or(HTTP_OTHER),
            Self::ServerLeft(reason) => key_in(&SERVER_LEFT, reason).unwrap_or(SERVER_LEFT_UNKNOWN),
            Self::Closed(CloseCode::Known(code)) => key_in(&CLOSED, code).unwrap_or(CLOSED_OTHER),
            Self::Closed(range) => key_in(&CLOSED_RANGES, range).unwrap_or(CLOSED_OTHER),
            Self::ServerFlooded(flooded) => key_in(&FLOODED, flooded).unwrap_or_default(),
            plain => key_in(PLAIN, plain).unwrap_or_default(),
        }
    }

    /// True if it is the server's own answer: it refused, ended or closed, in words or with a
    /// status. A websocket that went without a close frame is nobody's answer.
    #[must_use]
    pub fn is_refusal(self) -> bool {
        self.is_ended_by_server() || matches!(self, Self::Http(_) | Self::PublishRefused)
    }

    /// True if the server ended or closed a session that stood.
    #[must_use]
    pub fn is_ended_by_server(self) -> bool {
        match self {
            Self::Closed(code) => code != CLOSED_WITHOUT_FRAME,
            Self::ServerLeft(_)
            | Self::ServerAskedResume
            | Self::ServerAskedReconnect
            | Self::ServerRedirected
            | Self::ServerFlooded(_) => true,
            _ => false,
        }
    }

    /// True if the websocket of a session that stood was lost, by whatever side.
    #[must_use]
    pub fn is_signalling_lost(self) -> bool {
        matches!(self, Self::Closed(_) | Self::SignalLost | Self::SignalStalled | Self::PingTimeout)
    }

    /// True if the server sent more than anybody can use.
    #[must_use]
    pub fn is_flood(self) -> bool {
        matches!(self, Self::ServerFlooded(_))
    }

    /// True if this machine is to blame.
    #[must_use]
    pub fn is_shortage(self) -> bool {
        self == Self::LocalResources
    }
}

fn key_in<T: Copy + PartialEq>(table: &[(T, &'static str)], value: T) -> Option<&'static str> {
    table.iter().find(|(known, _)| *known == value).map(|(_, key)| *key)
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn all() -> Vec<ErrorKind> {
        let mut all: Vec<ErrorKind> = PLAIN.iter().map(|(kind, _)| *kind).collect();
        all.extend((0..=599).map(ErrorKind::http));
        all.extend((0..=5000).map(|code: u16| ErrorKind::Closed(code.into())));
        all.extend((0..=99).flat_map(DisconnectReason::try_from).map(ErrorKind::server_left));
        all.extend(FLOODED.iter().map(|(flooded, _)| ErrorKind::ServerFlooded(*flooded)));
        all
    }

    #[test]
    fn every_kind_has_a_key_of_its_own() {
        let kinds: HashSet<ErrorKind> = all().into_iter().collect();
        let keys: HashSet<String> = kinds.iter().map(ToString::to_string).collect();
        assert_eq!(keys.len(), kinds.len());
        assert!(!keys.contains(""));
    }

    #[test]
    fn a_server_can_make_no_more_kinds_than_there_are_keys() {
        assert_eq!(ErrorKind::http(418).key(), "http_other");
        for (code, key) in [
            (1005, "signal_closed_1005"),
            (1004, "signal_closed_other"),
            (3007, "signal_closed_3xxx"),
            (4999, "signal_closed_4xxx"),
            (0, "signal_closed_other"),
        ] {
            assert_eq!(ErrorKind::Closed(CloseCode::from(code)).key(), key);
        }
        let newer = ErrorKind::server_left(DisconnectReason::UserRejected);
        assert_eq!(newer.key(), "server_left_unknown");
    }

    /// The rules that verdicts have always gone by, as they were written over the keys.
    #[test]
    fn kinds_are_judged_as_their_keys_were() {
        const NOBODY: &str = "signal_closed_1006";
        for kind in all() {
            let key = kind.key();
            let begins = |words: &[&str]| words.iter().any(|word| key.starts_with(word));
            let refusal = begins(&["http_", "server_", "publish_refused", "signal_closed_"]);
            assert_eq!(kind.is_refusal(), refusal && key != NOBODY, "{key}");
            let ended = begins(&["server_", "signal_closed"]) && key != NOBODY;
            assert_eq!(kind.is_ended_by_server(), ended, "{key}");
            let lost = begins(&["signal_"]) || key == "ping_timeout";
            assert_eq!(kind.is_signalling_lost(), lost, "{key}");
            assert_eq!(kind.is_flood(), begins(&["server_flooded"]), "{key}");
            assert_eq!(kind.is_shortage(), key == "local_resources", "{key}");
        }
    }
}
