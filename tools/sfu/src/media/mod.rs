//! The media plane: pinned worker threads, each with one UDP socket and the peer connections
//! sharded to it, and what passes between them and the signalling thread.

pub(crate) mod addresses;
pub(crate) mod codec;
pub(crate) mod commands;
pub(crate) mod egress;
pub(crate) mod forward;
pub(crate) mod ingest;
pub(crate) mod layers;
pub(crate) mod negotiate;
pub(crate) mod peer;
pub(crate) mod rewrite;
pub(crate) mod timers;
pub(crate) mod track;
pub(crate) mod worker;

use std::net::SocketAddr;
use std::sync::Arc;

use stampede_core::MediaKind;
use stampede_udp::Waker;

use crate::ledger::{PublishedTrackLedger, SubscriberTrackLedger, WorkerLedger};
use track::MediaBatch;

/// Commands waiting for one worker at most. The signalling thread waits when it is full; a worker
/// empties it every few milliseconds and never waits for signalling, so this can't deadlock.
pub(crate) const COMMANDS_MAX: usize = 65_536;

/// Media batches from other workers waiting for one worker at most; more are dropped and counted
/// in [`WorkerLedger::mailbox_full`].
pub(crate) const MEDIA_BATCHES_MAX: usize = 8_192;

/// Requests for the ledger waiting for one worker at most; whoever asks next waits for room.
pub(crate) const REPORTS_MAX: usize = 16;

/// Events waiting for the signalling thread at most. When it is full a worker keeps its events
/// until there is room.
pub(crate) const EVENTS_MAX: usize = 65_536;

/// A peer connection; never reused while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PeerKey(pub(crate) u64);

/// A published track; never reused while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TrackKey(pub(crate) u64);

/// Which of a participant's two peer connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The client offers and sends.
    Publisher,
    /// The SFU offers and sends.
    Subscriber,
}

/// What identifies a peer connection in the ledger.
#[derive(Debug, Clone)]
pub(crate) struct PeerLabel {
    pub(crate) room: Arc<str>,
    pub(crate) identity: Arc<str>,
}

/// What a worker has to know to offer a track to a subscriber.
#[derive(Debug, Clone)]
pub(crate) struct TrackOffer {
    pub(crate) track: TrackKey,
    /// `TR_…`
    pub(crate) sid: Arc<str>,
    /// `PA_…` of the publisher.
    pub(crate) publisher_sid: Arc<str>,
    pub(crate) kind: MediaKind,
    /// The worker that holds the publisher.
    pub(crate) home: usize,
    /// Highest layer wanted.
    pub(crate) limit: u8,
    /// Forward nothing for now.
    pub(crate) paused: bool,
}

/// From the signalling thread (or another worker) to a worker.
pub(crate) enum Command {
    AddPeer {
        peer: PeerKey,
        role: Role,
        label: PeerLabel,
        /// Tracks to offer at once (subscribers only).
        tracks: Vec<TrackOffer>,
    },
    RemovePeer(PeerKey),
    /// The publisher's offer; `tracks` are those whose mid is known.
    Offer {
        peer: PeerKey,
        id: u32,
        sdp: String,
        tracks: Vec<PublishedTrack>,
    },
    /// The subscriber's answer.
    Answer {
        peer: PeerKey,
        id: u32,
        sdp: String,
    },
    /// Binds a track to a mid that an earlier offer already brought.
    BindTrack {
        peer: PeerKey,
        track: PublishedTrack,
    },
    UnpublishTrack(TrackKey),
    Subscribe {
        peer: PeerKey,
        track: TrackOffer,
    },
    Unsubscribe {
        peer: PeerKey,
        track: TrackKey,
    },
    /// `track_setting`.
    Setting {
        peer: PeerKey,
        track: TrackKey,
        limit: u8,
        paused: bool,
    },
    /// Sends a track's packets to another worker too, or no longer.
    Interest {
        track: TrackKey,
        worker: usize,
        wanted: bool,
    },
    /// A worker asks the publisher's worker for a keyframe.
    Keyframe {
        track: TrackKey,
        layer: u8,
    },
    /// A data packet for subscribers of this worker.
    Data {
        targets: Arc<[PeerKey]>,
        channel: Arc<str>,
        payload: Arc<[u8]>,
    },
    Stop,
}

/// A published track bound to its m-line.
#[derive(Debug, Clone)]
pub(crate) struct PublishedTrack {
    pub(crate) track: TrackKey,
    pub(crate) sid: Arc<str>,
    pub(crate) mid: String,
    pub(crate) kind: MediaKind,
    /// Its publisher may leave out silence.
    pub(crate) dtx: bool,
}

/// From a worker to the signalling thread.
#[derive(Debug)]
pub(crate) enum Event {
    /// An offer for a subscriber.
    Offer { peer: PeerKey, id: u32, sdp: String, mid_to_track_id: Vec<(String, String)> },
    /// The answer to a publisher's offer, with the codec negotiated for each bound track.
    Answer { peer: PeerKey, id: u32, sdp: String, codecs: Vec<(TrackKey, &'static str)> },
    /// An SDP of the client could not be used.
    NegotiationFailed { peer: PeerKey, reason: String },
    /// ICE and DTLS are up.
    Connected { peer: PeerKey },
    /// The client closed DTLS.
    Closed { peer: PeerKey },
    /// ICE timed out, or the connection failed.
    Failed { peer: PeerKey, reason: String },
    /// A data channel message of a publisher.
    Data { peer: PeerKey, channel: String, payload: Vec<u8> },
}

/// One worker's part of the ledger.
#[derive(Debug, Default)]
pub(crate) struct WorkerReport {
    pub(crate) worker: WorkerLedger,
    pub(crate) published: Vec<(Arc<str>, PublishedTrackLedger)>,
    /// (room, identity, track).
    pub(crate) subscribed: Vec<(Arc<str>, Arc<str>, SubscriberTrackLedger)>,
}

/// How to reach a worker.
#[derive(Clone)]
pub(crate) struct WorkerHandle {
    pub(crate) commands: crossbeam_channel::Sender<Command>,
    pub(crate) media: crossbeam_channel::Sender<MediaBatch>,
    /// Asks for its part of the ledger; apart from the commands, so that it never waits for them.
    pub(crate) reports: crossbeam_channel::Sender<crossbeam_channel::Sender<WorkerReport>>,
    pub(crate) waker: Waker,
    /// Its media socket, which is its ICE candidate.
    pub(crate) address: SocketAddr,
}

impl WorkerHandle {
    /// Asks for the worker's part of the ledger; it comes on the channel that is returned, unless
    /// the worker has ended.
    pub(crate) fn ask(&self) -> crossbeam_channel::Receiver<WorkerReport> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        if self.reports.send(reply).is_ok() {
            self.waker.wake();
        }
        answer
    }

    /// Queues a command and wakes the worker. Waits while its mailbox is full; does nothing when
    /// the worker has ended.
    pub(crate) fn command(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.waker.wake();
        }
    }
}
