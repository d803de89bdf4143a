//! Data messages: what is sent over a connection's data channels, and what of it came.
//!
//! Pure, as everything here. Each message of ours has a header in its payload (`header`): whose it
//! is, its number and when it was sent. What was sent is on a board that all peers of a room share
//! ([`DataRoom`]), so that who receives nothing at all still knows what it missed (`ledger`).
//!
//! LiveKit's envelope (`DataPacket`, livekit_models.proto) is read and written here field by field,
//! in place: a worker copies no message to look at it, and what a foreign client may put in there
//! needs no bound but the message's own.

mod board;
mod header;
mod ledger;
mod packet;
mod rpc;
mod rpc_packet;
mod track;

pub use board::{DataRoom, DataRoomError, SENDERS_MAX};
pub(crate) use header::{HEADER_BYTES, Header};
pub(crate) use ledger::{Got, MessageLedger, TICK};
pub use ledger::{MESSAGE_WINDOW, OVERDUE_AFTER};
pub(crate) use packet::{Packet, Read};
pub(crate) use rpc::{REQUEST_TIMEOUT_MIN, RPC_V1_BYTES_MAX, RpcErrorCode};
pub use rpc::{
    RPC_ACK_WITHIN, RPC_BYTES_MAX, RPC_CALLEES_MAX, RPC_CALLS_PER_S_MAX, RpcCalls, RpcRole,
};
pub(crate) use rpc_packet::{
    RpcRead, RpcReceived, Stream, put_ack, put_error, put_request, put_response, put_stream,
};
pub(crate) use track::{Cutter, Frame, Frames, TrackHeader};

use std::sync::Arc;
use std::time::Duration;

/// Least bytes of a message: those of its header.
pub const MESSAGE_BYTES_MIN: usize = HEADER_BYTES;
/// Most bytes of a message. LiveKit's SDKs send 64,000 bytes with the envelope at most, and the
/// server announces 65,535 (livekit pkg/rtc/transport.go).
pub const MESSAGE_BYTES_MAX: usize = 60_000;
/// Most messages of one kind that a peer sends in a second: those of [`OVERDUE_AFTER`] have to fit
/// into [`MESSAGE_WINDOW`].
pub const MESSAGES_PER_S_MAX: f64 = 1_000.0;

/// How a message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataKind {
    /// In order, and sent again until it is there.
    Reliable,
    /// Sent once.
    Lossy,
    /// As frames of a data track, which clients subscribe to; sent once.
    Track,
}

impl DataKind {
    /// How many there are.
    pub const COUNT: usize = 3;
    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [Self::Reliable, Self::Lossy, Self::Track];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reliable => "reliable",
            Self::Lossy => "lossy",
            Self::Track => "track",
        }
    }

    /// What LiveKit calls the channel (livekit pkg/rtc/transport.go).
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Reliable => "_reliable",
            Self::Lossy => "_lossy",
            Self::Track => "_data_track",
        }
    }

    /// That of the channel with this label.
    pub(crate) fn of_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.label() == label)
    }
}

/// What a peer has to do with data.
#[derive(Debug, Clone)]
pub struct DataRole {
    /// Its room.
    pub room: Arc<DataRoom>,
    /// Which of the room's senders its participant is, if it is one, by this or by another connection.
    pub sender: Option<usize>,
    /// What it sends over this one, as that sender.
    pub sends: Option<DataSends>,
    /// Whether what the others send of each of [`DataKind::ALL`] is expected of it.
    pub expects: [bool; DataKind::COUNT],
}

/// What a peer sends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DataSends {
    /// Whether it sends each of [`DataKind::ALL`]; only of those that are sent in its room.
    pub kinds: [bool; DataKind::COUNT],
    /// From one message to the next, of each kind; at least that of [`MESSAGES_PER_S_MAX`].
    pub every: Duration,
    /// Of each message, from [`MESSAGE_BYTES_MIN`] to [`MESSAGE_BYTES_MAX`].
    pub bytes: usize,
    /// How long after its channels are open the first one is due, so that not everybody sends at
    /// once; at most `every`.
    pub offset: Duration,
}
