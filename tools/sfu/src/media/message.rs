//! What the signalling thread and the media workers say to each other.

use std::sync::Arc;

use stampede_core::MediaKind;
use stampede_sdp::Slots;

use super::failure::{NegotiationError, PeerFailure};

/// A peer connection; never reused while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PeerKey(pub(crate) u64);

/// A published track; never reused while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TrackKey(pub(crate) u64);

/// What a peer connection is for. By v0 a participant has one for each direction, by v1 a single one
/// for both (LiveKit `pkg/rtc/transportmanager.go`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The client offers and sends.
    Publisher,
    /// The SFU offers and sends.
    Subscriber,
    /// The client offers, and both send.
    Single,
}

impl Role {
    /// How many there are.
    pub(crate) const COUNT: usize = 3;

    /// Whether it has a receiving half: the client offers, and sends on it.
    pub(crate) fn receives(self) -> bool {
        self != Self::Subscriber
    }

    /// Whether it has a sending half: the SFU sends on it.
    pub(crate) fn sends(self) -> bool {
        self != Self::Publisher
    }
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
    /// How much of it is wanted.
    pub(crate) wanted: Wanted,
    /// It has several codecs: which of them the client takes is to be told.
    pub(crate) choice: bool,
}

/// How much of a track a subscriber wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Highest layer.
    pub(crate) limit: u8,
    /// No more pictures a second are needed; 0 is as many as there are.
    pub(crate) pictures_per_s: u32,
    /// Nothing for now.
    pub(crate) paused: bool,
}

/// From the signalling thread (or another worker) to a worker.
pub(crate) enum Command {
    AddPeer {
        peer: PeerKey,
        role: Role,
        label: PeerLabel,
        /// Tracks to send as soon as they are negotiated, where it has a sending half.
        tracks: Vec<TrackOffer>,
        /// Video that does not fit the way to it may be paused.
        allow_pause: bool,
    },
    RemovePeer(PeerKey),
    /// The subscriber's client can't be reached: changes of what it gets wait, and so does the
    /// answer to an offer that is out.
    Suspend(PeerKey),
    /// The subscriber's client can be reached, and is to find a new way for its media. Where the
    /// client offers, it does that by itself, and is only told anew which m-lines it lacks.
    RestartIce(PeerKey),
    /// The peer belongs to another room from now on.
    Relabel {
        peer: PeerKey,
        label: PeerLabel,
    },
    /// A client's offer as the SFU takes it; `tracks` are those it publishes whose mid is known.
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
    /// A subscription goes on with another track's packets, which is the same in another codec.
    Switch {
        peer: PeerKey,
        from: TrackKey,
        to: TrackKey,
    },
    /// `track_setting`.
    Setting {
        peer: PeerKey,
        track: TrackKey,
        wanted: Wanted,
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
    /// A data track's packet for subscribers of this worker, each with its handle.
    DataTrack {
        targets: Arc<[(PeerKey, u16)]>,
        payload: Arc<[u8]>,
    },
    Stop,
}

impl Command {
    /// Whether it is about no peer's state, so that it may overtake what came before.
    pub(crate) fn may_overtake(&self) -> bool {
        matches!(
            self,
            Self::Keyframe { .. } | Self::Data { .. } | Self::DataTrack { .. } | Self::Stop
        )
    }

    /// Whether it is of a join, so that media goes before it.
    pub(crate) fn can_wait(&self) -> bool {
        matches!(
            self,
            Self::AddPeer { .. } | Self::RestartIce(_) | Self::Offer { .. } | Self::Answer { .. }
        )
    }
}

/// The channel whose messages come, however often they have to be sent.
pub(crate) const RELIABLE_CHANNEL: &str = "_reliable";
/// The channel of data tracks' packets.
pub(crate) const DATA_TRACK_CHANNEL: &str = "_data_track";
/// Where a packet has its handle (LiveKit `pkg/rtc/datatrack/packet.go`).
pub(crate) const DATA_TRACK_HANDLE: std::ops::Range<usize> = 2..4;

/// A published track bound to its m-line.
#[derive(Debug, Clone)]
pub(crate) struct PublishedTrack {
    pub(crate) track: TrackKey,
    pub(crate) sid: Arc<str>,
    pub(crate) mid: String,
    pub(crate) kind: MediaKind,
    /// The codec that it was announced in, by LiveKit's name; empty if none was named.
    pub(crate) mime_type: String,
    /// Its publisher may leave out silence.
    pub(crate) dtx: bool,
    /// Its publisher may send redundant audio.
    pub(crate) red: bool,
    /// It comes of a microphone: whoever publishes it speaks by it.
    pub(crate) microphone: bool,
}

/// From a worker to the signalling thread.
#[derive(Debug)]
pub(crate) enum Event {
    /// An offer for a subscriber.
    Offer { peer: PeerKey, id: u32, sdp: String, mid_to_track_id: Vec<(String, String)> },
    /// The answer to a client's offer, with the codec negotiated for each bound track, and what is
    /// sent by which m-line.
    Answer {
        peer: PeerKey,
        id: u32,
        sdp: String,
        codecs: Vec<(TrackKey, Option<&'static str>)>,
        mid_to_track_id: Vec<(String, String)>,
    },
    /// The client is to offer, with so many m-lines to receive by more, or none.
    SlotsWanted { peer: PeerKey, missing: Slots },
    /// An SDP of the client could not be used.
    NegotiationFailed { peer: PeerKey, error: NegotiationError },
    /// ICE and DTLS are up.
    Connected { peer: PeerKey },
    /// The client closed DTLS.
    Closed { peer: PeerKey },
    /// ICE no longer has a way to the client. An ICE restart can find one.
    Lost { peer: PeerKey, failure: PeerFailure },
    /// The client has begun to speak, or has stopped: level 0.
    Speaks { peer: PeerKey, level: f32 },
    /// ICE has a way to the client again, after it was lost or restarted.
    Recovered { peer: PeerKey },
    /// ICE has new local credentials (RFC 8445 §9).
    IceRestarted { peer: PeerKey },
    /// The connection is over, and the client did not close it.
    Failed { peer: PeerKey, failure: PeerFailure },
    /// By LiveKit's names the codecs that the client takes a track in which has several.
    Takes { peer: PeerKey, track: TrackKey, codecs: Vec<&'static str> },
    /// The first packet of a published track has come.
    Began { track: TrackKey, peer: PeerKey, codec: Option<&'static str> },
    /// A track no longer fits the way to the client, or fits again.
    Fits { peer: PeerKey, track: TrackKey, fits: bool },
    /// A data channel message of a publisher.
    Data { peer: PeerKey, channel: String, payload: Vec<u8> },
}
