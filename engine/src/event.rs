//! What crosses between the signalling plane and the media plane.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use stampede_core::{
    MediaFailure, MediaKind, PathKind, PeerCounters, PeerRole, PeerUpdate, Slots, TurnServer,
};

use crate::{CapturedPeer, CoverNews, PeerId, WorkerSnapshot};

/// What a new peer connection is for.
#[derive(Debug)]
pub struct PeerSpec {
    /// The participant's identity; names recordings and rows of the report.
    pub label: String,
    /// Whether it receives, sends, or both. What it records is written into the recording folder.
    pub role: PeerRole,
    /// The local address of its first socket, the best guess before any candidate of the server is
    /// known: where it is right the peer has no other. Others follow where those candidates are
    /// reached from elsewhere; then the engine makes the address that worked the first guess for
    /// further peers. `None`: the first socket is made for the first candidate.
    pub local_ip: Option<IpAddr>,
    /// Which of [`EngineOptions::cohorts`](crate::EngineOptions::cohorts) it is in. One past their
    /// end is in the first; publishers are in one for form's sake.
    pub cohort: u16,
    /// Another connection of the same participant, by which it receives: this one goes to the same
    /// worker, and what comes there of calls is handed to it
    /// ([`PeerRole::calls_elsewhere`](stampede_core::PeerRole::calls_elsewhere)).
    pub beside: Option<PeerId>,
}

/// Longest [`PeerCommand::CutOff`]; a longer one ends then.
pub const CUT_OFF_MAX: Duration = Duration::from_secs(24 * 3_600);

/// What the signalling plane tells a peer.
#[derive(Debug, Clone)]
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
    /// Make an offer (of who sends, or receives over a single connection); it comes as
    /// [`PeerNotice::Offer`].
    CreateOffer {
        /// Comes back with the offer.
        id: u32,
        /// M-lines to receive by that it has more than the one before.
        added: Slots,
        /// From this offer on it has what the peer sends.
        publish: bool,
    },
    /// Make an offer that restarts ICE, if we offer; it comes as [`PeerNotice::Offer`].
    RestartIce {
        /// Comes back with the offer.
        id: u32,
    },
    /// The server's answer to our offer.
    Answer {
        /// SDP text.
        sdp: String,
        /// LiveKit's `mid_to_track_id` of the same message.
        mid_to_track_id: Vec<(String, String)>,
    },
    /// A remote candidate line, `candidate:…`.
    Candidate(String),
    /// The TURN servers that the server named: they take the place of those before. With `only` it
    /// wants no other ways.
    TurnServers {
        /// In the server's order.
        servers: Vec<TurnServer>,
        /// `force_relay` of the client configuration.
        only: bool,
    },
    /// What signalling knows and media does not tell.
    Update(PeerUpdate),
    /// Go on from a new UDP port of the same local address, as a phone that changes its network: all
    /// sockets are closed, and a new one takes their place. What was counted stays, and so do DTLS,
    /// the keys and the streams. [`PeerNotice::LocalCandidate`] has the new address, and
    /// [`PeerNotice::IceConnected`] comes when a pair works from there; ICE may be restarted meanwhile
    /// ([`Self::Offer`] with new credentials, [`Self::RestartIce`]). If there is no socket to be had,
    /// [`PeerNotice::Disconnected`] says why. A peer without a socket has nothing to change.
    ChangeNetwork,
    /// For so long nothing comes in or goes out: what comes is dropped before anything counts it,
    /// what was to leave is not sent, and both are counted as done on purpose. It begins now, ends by
    /// itself, and takes the place of the one before; [`CUT_OFF_MAX`] at most.
    CutOff {
        /// How long.
        lasts: Duration,
    },
    /// Say when the last frame came or left: [`PeerNotice::LastFrame`].
    LastFrame,
    /// Say when the next frame comes or leaves: [`PeerNotice::NextFrame`], once. It takes the place
    /// of one that is not answered yet.
    NextFrame,
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
    /// Our offer. Of several only the latest can be answered.
    Offer {
        /// As asked.
        id: u32,
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
    /// A candidate pair works: once when the connection comes up, and once after each restart of
    /// ICE, each [`PeerCommand::ChangeNetwork`] and each loss.
    IceConnected,
    /// DTLS comes up by something other than UDP; [`Self::Connected`] follows.
    Path {
        /// By what.
        path: PathKind,
    },
    /// DTLS is up: media can flow.
    Connected,
    /// The first RTP packet of this kind arrived.
    FirstPacket {
        /// Audio or video.
        kind: MediaKind,
    },
    /// The first complete keyframe arrived.
    FirstKeyframe,
    /// The answer to [`PeerCommand::LastFrame`].
    LastFrame {
        /// In nanoseconds since the Unix epoch. Of a subscriber the kernel's stamp of the last
        /// playable frame, of whatever stream, or, if there was none, of the last media packet. Of a
        /// publisher when the last frame was sent while ICE was connected and nothing cut it off.
        /// `None` if there was nothing yet.
        at_unix_ns: Option<u64>,
    },
    /// The first playable frame after [`PeerCommand::NextFrame`] has come (subscriber), or the first
    /// one was sent while ICE was connected and nothing cut it off (publisher). The event's
    /// `at_unix_ns` is the frame's.
    NextFrame,
    /// A publisher that takes turns in being loud has sent its first loud audio packet, or its first
    /// silent one. The event's `at_unix_ns` is the packet's.
    Speaks {
        /// True if loud.
        loud: bool,
    },
    /// The server's answer has no place for a track in its backup codec: the track goes on without it.
    BackupRefused {
        /// Client id of the backup.
        cid: Arc<str>,
        /// What is wrong with its m-line.
        reason: &'static str,
    },
    /// The connection broke, or never was. It may come back ([`Self::IceConnected`]), by itself or by
    /// a restart of ICE, without another [`Self::Connected`].
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
