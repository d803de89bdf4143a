//! What the SFU did, counted: the reference that a client's own figures are checked against.
//!
//! The JSON form is what `GET /debug/ledger` answers and what `server.embedded` of a report holds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub use stampede_counters::{ForwardCounters, LedgerTotals};

/// Everything counted since the SFU started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Ledger {
    /// Which backend moves the datagrams and why it was chosen.
    pub backend: String,
    /// Participants that joined.
    pub joins: u64,
    /// Participants that left or were removed.
    pub leaves: u64,
    /// WebSocket upgrades refused, any reason.
    pub joins_refused: u64,
    /// Signalling connections closed because the client read too slowly (queue of 200 full).
    pub signalling_overflows: u64,
    /// One row a media worker.
    pub workers: Vec<WorkerLedger>,
    /// One row a room that exists or existed (the last 1,000 closed rooms are kept).
    pub rooms: Vec<RoomLedger>,
    /// Sums over all rooms.
    pub totals: LedgerTotals,
}

/// One media worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WorkerLedger {
    /// Its number from 0.
    pub worker: usize,
    /// Peer connections it holds now.
    pub peers: usize,
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Datagrams the kernel took for sending.
    pub datagrams_out: u64,
    /// Received datagrams that belong to no peer.
    pub datagrams_unknown: u64,
    /// Datagrams the kernel refused.
    pub send_errors: u64,
    /// Datagrams that left and were undeliverable: always 0 now, as the kernel keeps to itself that
    /// a receiver was gone (its report would hold up what goes to others).
    #[serde(default)]
    pub undeliverable: u64,
    /// Datagrams not sent because the send queue was full.
    pub send_queue_full: u64,
    /// Datagrams the kernel dropped on the worker's receive socket.
    pub kernel_drops: u64,
    /// Media packets from other workers lost because this worker's mailbox was full.
    pub mailbox_full: u64,
    /// Messages of clients' data channels dropped because too many waited for the signalling
    /// thread.
    pub messages_dropped: u64,
    /// Packets not sent because the queue of packets held back was full; among the tracks'
    /// `dropped`.
    pub delay_queue_full: u64,
    /// Publishers' packets dropped on purpose before they were counted as received.
    pub upstream_dropped: u64,
    /// CPU time of the worker thread in seconds.
    pub cpu_s: f64,
}

/// One room.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RoomLedger {
    /// Its name.
    pub room: String,
    /// Whether it still exists.
    pub open: bool,
    /// Participants in it now.
    pub participants: u64,
    /// Participants that joined it.
    pub joins: u64,
    /// Participants that left it.
    pub leaves: u64,
    /// What publishers sent to the SFU.
    pub published: Vec<PublishedTrackLedger>,
    /// What the SFU sent to subscribers.
    pub subscribers: Vec<SubscriberLedger>,
}

/// One published track.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PublishedTrackLedger {
    /// Identity of the publisher.
    pub identity: String,
    /// Its `TR_` id.
    pub track_sid: String,
    /// `audio` or `video`.
    pub kind: String,
    /// Packets received, all layers, retransmitted ones included, duplicates not.
    pub packets_received: u64,
    /// Their payload bytes.
    pub bytes_received: u64,
    /// Sequence numbers that never arrived, over all layers.
    pub packets_lost: u64,
    /// Packets without payload, which are not forwarded.
    pub padding_only: u64,
    /// Keyframes seen, all layers.
    pub keyframes: u64,
    /// PLIs sent to the publisher for this track.
    pub plis_sent: u64,
}

/// One subscriber.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SubscriberLedger {
    /// Its identity.
    pub identity: String,
    /// One row a subscribed track.
    pub tracks: Vec<SubscriberTrackLedger>,
}

/// One track to one subscriber.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SubscriberTrackLedger {
    /// The `TR_` id.
    pub track_sid: String,
    /// What was sent and asked for.
    #[serde(flatten)]
    pub counts: ForwardCounters,
    /// Layer forwarded now (0 low), if any.
    pub layer: Option<u8>,
}
