//! What the SFU did, counted: the reference that a client's own figures are checked against.
//!
//! The JSON form is what `GET /debug/ledger` answers and what `server.embedded` of a report holds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stampede_counters::{
    AttendanceCounters, PublishedCounters, SfuSignallingCounters, SfuWorkerCounters,
};
pub use stampede_counters::{CongestionCounters, ForwardCounters, LedgerTotals};

/// Everything counted since the SFU started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Ledger {
    /// Which backend moves the datagrams and why it was chosen.
    pub backend: String,
    /// What signalling counted.
    #[serde(flatten)]
    pub signalling: SfuSignallingCounters,
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
    /// What it counted.
    #[serde(flatten)]
    pub counted: SfuWorkerCounters,
    /// CPU time of the worker thread in seconds.
    pub cpu_s: f64,
    /// How long it had no time left, in seconds: stretches of a second or more in which its thread used
    /// 90 % of a core.
    pub full_s: f64,
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
    /// Who came and went.
    #[serde(flatten)]
    pub attendance: AttendanceCounters,
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
    /// The codec that came last (`video/VP8`), once one has. A track that is published in its backup
    /// codec too has a row for each.
    pub codec: Option<String>,
    /// What was received of it.
    #[serde(flatten)]
    pub counted: PublishedCounters,
}

/// One subscriber.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SubscriberLedger {
    /// Its identity.
    pub identity: String,
    /// What it told of the way to it, if it did.
    pub congestion: Option<CongestionLedger>,
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
    /// Of several layers in one stream the temporal one (0 slowest).
    pub temporal_layer: Option<u8>,
}

/// The way to one subscriber.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CongestionLedger {
    /// Its last estimate in bit/s, or the SFU's by its reports of when packets arrived.
    pub estimate_bps: Option<u64>,
    /// The lowest.
    pub estimate_bps_min: Option<u64>,
    /// What its video is shared out by now, in bit/s; none where all fits.
    pub capacity_bps: Option<u64>,
    /// Counts.
    #[serde(flatten)]
    pub counted: CongestionCounters,
}
