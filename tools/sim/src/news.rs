//! What comes out of a participant.

use std::net::SocketAddr;

use livekit_protocol as proto;
use stampede_core::watch::StreamCover;
use stampede_core::{MediaKind, PeerReport};
use stampede_report::errors::ErrorClass;
use stampede_signaling::ErrorKind;

/// What a participant wants of whoever has its websocket.
#[derive(Debug, Clone)]
pub enum Signalling {
    /// One that joins, over a single connection with this first offer if it has one.
    Join(Option<Option<proto::SessionDescription>>),
    /// One that takes its session up again.
    Resume,
    /// Say this on the one it has.
    Say(Vec<u8>),
    /// Close it.
    HangUp,
}

/// Why a connection ended, or there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// Its kind, by name.
    pub kind: String,
    /// What it means to the verdict.
    pub class: ErrorClass,
}

impl Why {
    /// That tells nobody anything.
    #[must_use]
    pub fn other(kind: &str) -> Self {
        Self { kind: kind.to_owned(), class: ErrorClass::Other }
    }
}

/// As `tools/run/src/join_error.rs` has it.
impl From<ErrorKind> for Why {
    fn from(kind: ErrorKind) -> Self {
        let class = match kind {
            _ if kind.is_flood() => ErrorClass::Flooded,
            ErrorKind::ServerAskedResume => ErrorClass::MediaLost,
            _ if kind.is_ended_by_server() => ErrorClass::EndedByServer,
            _ if kind.is_refusal() => ErrorClass::Refused,
            ErrorKind::PingTimeout => ErrorClass::Unanswered,
            ErrorKind::Refused => ErrorClass::NobodyListens,
            _ if kind.is_signalling_lost() => ErrorClass::SignallingLost,
            _ => ErrorClass::Other,
        };
        Self { kind: kind.to_string(), class }
    }
}

/// What happened to a participant, for the accounts.
#[derive(Debug, Clone)]
pub enum News {
    /// It stands: for the first time, or again.
    Stands,
    /// It broke, or a try to come back did.
    Broke(Why),
    /// It leaves in order.
    Left,
    /// It is over, and did not leave in order.
    GaveUp(Why),
    /// A track of its own was accepted.
    Published(MediaKind),
    /// A track of somebody else is there: sid and identity of its publisher.
    Available(String, String, MediaKind),
    /// A track is wanted, or paused.
    Wanted(String, bool),
    /// What its streams covered; the number tells them apart over all peers.
    Cover(u64, StreamCover),
    /// A whole frame came.
    Frame(Option<String>, MediaKind, Vec<u8>),
    /// A peer is closed.
    Closed(Box<PeerReport>),
}

/// What comes out of a participant at one moment.
#[derive(Debug, Default)]
pub struct Out {
    /// Datagrams: by which of its sockets, and to where.
    pub datagrams: Vec<(u16, SocketAddr, Vec<u8>)>,
    /// Signalling, in order.
    pub signalling: Vec<Signalling>,
    /// For the accounts, in order.
    pub news: Vec<News>,
    /// For the trace, in order.
    pub trace: Vec<&'static str>,
}
