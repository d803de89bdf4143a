//! What crosses between the signalling plane and the media plane.

use std::net::IpAddr;

use stampede_core::{MediaFailure, MediaKind, PeerCounters, PeerUpdate, PublishTrack};

use crate::{CapturedPeer, CoverNews, PeerId, WorkerSnapshot};

/// What a new peer connection is for.
#[derive(Debug)]
pub struct PeerSpec {
    /// The participant's identity; names recordings and rows of the report.
    pub label: String,
    /// Subscriber or publisher.
    pub role: PeerRole,
    /// The local address of its first socket, the best guess before any candidate of the server is
    /// known: where it is right the peer has no other. Others follow where those candidates are
    /// reached from elsewhere; then the engine makes the address that worked the first guess for
    /// further peers. `None`: the first socket is made for the first candidate.
    pub local_ip: Option<IpAddr>,
    /// Which of [`EngineOptions::cohorts`](crate::EngineOptions::cohorts) it is in. One past their
    /// end is in the first; publishers are in one for form's sake.
    pub cohort: u16,
}

/// The part a peer plays.
#[derive(Debug)]
pub enum PeerRole {
    /// Receives what the server offers.
    Subscriber {
        /// Write what arrives into the recording folder.
        record: bool,
    },
    /// Sends these tracks.
    Publisher {
        /// One entry for each track.
        tracks: Vec<PublishTrack>,
    },
}

/// What the signalling plane tells a peer.
#[derive(Debug)]
pub enum PeerCommand {
    /// The server's offer (subscriber); answered by [`PeerNotice::Answer`].
    Offer {
        /// The offer's id, echoed in the answer.
        id: u32,
        /// SDP text.
        sdp: String,
        /// LiveKit's `mid_to_track_id` of the same message.
        mid_to_track_id: Vec<(String, String)>,
    },
    /// Make an offer (publisher); it comes as [`PeerNotice::Offer`].
    CreateOffer,
    /// Make an offer that restarts ICE (publisher); it comes as [`PeerNotice::Offer`].
    RestartIce,
    /// The server's answer to our offer (publisher).
    Answer {
        /// SDP text.
        sdp: String,
    },
    /// A remote candidate line, `candidate:…`.
    Candidate(String),
    /// What signalling knows and media does not tell.
    Update(PeerUpdate),
    /// Nobody waits for the connection any more: if it is not up, [`PeerNotice::Disconnected`] says
    /// why. For a peer that is gone nothing does.
    GiveUp,
    /// Say good-bye, close the accounts and the sockets; ends with [`PeerNotice::Closed`].
    Close,
}

/// What a peer tells the signalling plane.
#[derive(Debug)]
pub enum PeerNotice {
    /// Our answer to a server's offer.
    Answer {
        /// Id of the offer it answers.
        offer_id: u32,
        /// SDP text.
        sdp: String,
    },
    /// Our offer.
    Offer {
        /// SDP text.
        sdp: String,
    },
    /// A candidate of ours that was not in our description.
    LocalCandidate {
        /// `candidate:…`.
        candidate: String,
    },
    /// A command could not be carried out; the peer stays as it was.
    NegotiationFailed {
        /// What was wrong, in plain words.
        reason: String,
    },
    /// A candidate pair works.
    IceConnected,
    /// DTLS is up: media can flow.
    Connected,
    /// The first RTP packet of this kind arrived.
    FirstPacket {
        /// Audio or video.
        kind: MediaKind,
    },
    /// The first complete keyframe arrived.
    FirstKeyframe,
    /// The connection broke, or never was.
    Disconnected {
        /// Why, as far as known.
        failure: Box<MediaFailure>,
    },
    /// The peer is gone after [`PeerCommand::Close`], or there was none.
    Closed,
}

/// What an engine reports.
#[derive(Debug)]
pub enum EngineEvent {
    /// Something happened to a peer.
    Peer {
        /// Which.
        peer: PeerId,
        /// When, in nanoseconds since the Unix epoch; for packets the kernel's receive time.
        at_unix_ns: u64,
        /// What.
        notice: PeerNotice,
    },
    /// A worker's counters, once a second.
    Snapshot(Box<WorkerSnapshot>),
    /// What is new of the time that streams could be watched: of all peers of a worker once a
    /// second, and of each peer when it is closed.
    Cover(Box<CoverNews>),
    /// What the flight recorder holds of a worker's worst peers, after
    /// [`Engine::capture`](crate::Engine::capture).
    Captured(Vec<CapturedPeer>),
    /// A worker's answer to [`Engine::read_totals`](crate::Engine::read_totals).
    Totals {
        /// Which.
        worker: usize,
        /// As asked.
        tag: u64,
        /// Sums over all its peers since the measured window began, closed peers included.
        totals: Box<PeerCounters>,
    },
    /// A worker ended on its own: its UDP backend became unusable, or it panicked.
    WorkerFailed {
        /// Which.
        worker: usize,
        /// Why.
        reason: String,
    },
}
