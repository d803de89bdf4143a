//! One WebRTC peer connection without sockets, threads or clocks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_media::Codec;

use crate::{Arrival, MediaKind, PeerCounters, PeerOptions, PeerReport, PublishTrack};

/// How often str0m's statistics are read; the NACK counts come from them.
pub const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// Most reports kept of streams that a later offer closed. Further ones are counted in the sums
/// and in [`PeerReport::streams_left_out`].
pub const CLOSED_STREAMS_MAX: usize = 256;

/// Takes what a peer puts out.
pub trait PeerSink {
    /// A datagram to send from the peer's socket.
    fn transmit(&mut self, destination: SocketAddr, payload: &[u8]);
    /// Something happened.
    fn event(&mut self, event: PeerEvent);
    /// A complete frame of a recording subscriber, in order within its stream.
    fn recorded(&mut self, stream: &RecordedStream, frame: RecordedFrame);
}

/// What happened to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerEvent {
    /// A candidate pair works.
    IceConnected,
    /// DTLS is up: media can flow.
    Connected,
    /// The first RTP packet with payload of this kind arrived.
    FirstPacket {
        /// Audio or video.
        kind: MediaKind,
        /// When the kernel had it.
        at: Arrival,
    },
    /// The peer's first complete video keyframe arrived.
    FirstKeyframe {
        /// When the kernel had its last packet.
        at: Arrival,
    },
    /// The server asked for a keyframe and gets one.
    KeyframeRequested {
        /// Client track id.
        cid: Arc<str>,
        /// Simulcast layer.
        rid: Option<&'static str>,
    },
    /// The connection broke; the peer stays as it is until closed.
    Disconnected {
        /// Why, as far as known.
        reason: String,
    },
}

/// Which stream a recorded frame belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedStream {
    /// Counts streams of this peer, from 0; never reused.
    pub id: u32,
    /// Primary SSRC.
    pub ssrc: u32,
    /// Audio or video.
    pub kind: MediaKind,
    /// Codec.
    pub codec: Codec,
    /// LiveKit track id.
    pub track_id: Option<Arc<str>>,
}

/// A complete frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedFrame {
    /// The encoded frame.
    pub data: Vec<u8>,
    /// RTP timestamp, extended over wrap-around.
    pub timestamp_ticks: u64,
    /// Decoding can begin here.
    pub keyframe: bool,
    /// When its last packet arrived.
    pub completed: Arrival,
}

/// Why a peer can't be made.
#[derive(Debug, thiserror::Error)]
pub enum CreatePeerError {
    /// The local address can't be a host candidate.
    #[error("local address {address} can't be an ICE candidate: {reason}; bind a concrete address")]
    LocalAddress {
        /// The address.
        address: SocketAddr,
        /// What str0m says.
        reason: String,
    },
    /// A track that can't be published.
    #[error("track {cid:?}: {reason}")]
    Track {
        /// Client track id.
        cid: String,
        /// What is wrong and what to do.
        reason: String,
    },
}

/// Why a negotiation step failed. The peer stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum NegotiateError {
    /// The text is not SDP that str0m can read.
    #[error("the server's {what} can't be read: {reason}")]
    Parse {
        /// `offer`, `answer` or `candidate`.
        what: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// It was read, but can't be applied.
    #[error("the server's {what} can't be applied: {reason}")]
    Apply {
        /// `offer`, `answer`.
        what: &'static str,
        /// What str0m says.
        reason: String,
    },
    /// A publisher was given an offer, a subscriber an answer, and the like.
    #[error("{0}")]
    WrongRole(&'static str),
    /// There is no offer of ours to which this could be the answer.
    #[error("an answer came, but no offer of ours is open")]
    NoOffer,
}

/// One peer connection.
#[derive(Debug)]
pub struct Peer;

#[allow(unused_variables, missing_docs)]
impl Peer {
    pub fn subscriber(
        now: Instant,
        local: SocketAddr,
        options: &PeerOptions,
        recording: bool,
    ) -> Result<Self, CreatePeerError> {
        Ok(Self)
    }
    pub fn publisher(
        now: Instant,
        local: SocketAddr,
        options: &PeerOptions,
        tracks: Vec<PublishTrack>,
    ) -> Result<Self, CreatePeerError> {
        Ok(Self)
    }
    pub fn accept_offer(
        &mut self,
        now: Instant,
        sdp: &str,
        mid_to_track_id: &[(String, String)],
    ) -> Result<String, NegotiateError> {
        Err(NegotiateError::WrongRole("not written yet"))
    }
    pub fn create_offer(&mut self, now: Instant) -> Result<String, NegotiateError> {
        Err(NegotiateError::WrongRole("not written yet"))
    }
    pub fn accept_answer(&mut self, now: Instant, sdp: &str) -> Result<(), NegotiateError> {
        Err(NegotiateError::WrongRole("not written yet"))
    }
    pub fn add_remote_candidate(
        &mut self,
        now: Instant,
        candidate_line: &str,
    ) -> Result<(), NegotiateError> {
        Err(NegotiateError::WrongRole("not written yet"))
    }
    pub fn handle_datagram(&mut self, at: Arrival, source: SocketAddr, payload: &[u8]) {}
    pub fn handle_timeout(&mut self, now: Instant) {}
    pub fn drain(&mut self, now: Instant, sink: &mut dyn PeerSink) -> Instant {
        now + Duration::from_secs(1)
    }
    pub fn close(&mut self, now: Instant, sink: &mut dyn PeerSink) {}
    pub fn is_alive(&self) -> bool {
        true
    }
    pub fn counters(&self) -> PeerCounters {
        PeerCounters::default()
    }
    pub fn final_report(&mut self, now: Instant) -> PeerReport {
        PeerReport::default()
    }
    pub fn begin_measuring(&mut self, now: Instant) {}
}
