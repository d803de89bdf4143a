//! What goes out of a peer, and why a step can fail.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use stampede_media::{AssemblerCounters, Codec};

use super::candidates::{AddressRequest, LocalId};
use super::failure::MediaFailure;
use crate::data::{DataRole, RpcRole};
use crate::publish::TrackError;
use crate::{Arrival, MediaKind, PathKind, PublishTrack, Sample, VideoCodecs};

/// What a peer is for: it receives, it sends, or both over one connection.
#[derive(Debug, Clone, Default)]
pub struct PeerRole {
    /// It receives what the server sends.
    pub receives: Option<Receives>,
    /// What it sends, from when it is connected.
    pub tracks: Vec<PublishTrack>,
    /// The same in other codecs, each sent from when it is asked for ([`PeerUpdate::BackupWanted`]).
    pub backups: Vec<BackupTrack>,
    /// What it has to do with data messages, if anything.
    pub data: Option<DataRole>,
    /// What it has to do with calls between participants, if anything.
    pub rpc: Option<RpcRole>,
    /// What comes of calls is for the connection by which the same participant sends
    /// ([`Peer::hand_calls_to`](super::Peer::hand_calls_to)): by LiveKit's v0 one hears by the one and
    /// speaks by the other.
    pub calls_elsewhere: bool,
}

/// A track in another codec, for those who can't receive its own (LiveKit's backup codec).
#[derive(Debug, Clone)]
pub struct BackupTrack {
    /// Client track id of the track.
    pub of: String,
    /// What is sent then, with an id of its own.
    pub track: PublishTrack,
}

/// How a peer receives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receives {
    /// It puts complete frames of its streams together for [`PeerSink::recorded`].
    pub record: bool,
    /// What it takes.
    pub codecs: VideoCodecs,
}

impl PeerRole {
    /// One that only receives.
    #[must_use]
    pub fn subscriber(record: bool) -> Self {
        let receives = Receives { record, ..Receives::default() };
        Self { receives: Some(receives), ..Self::default() }
    }

    /// One that only sends.
    #[must_use]
    pub fn publisher(tracks: Vec<PublishTrack>) -> Self {
        Self { tracks, ..Self::default() }
    }
}

/// Takes what a peer puts out.
pub trait PeerSink {
    /// A datagram to send from this one of the peer's sockets.
    fn transmit(&mut self, via: LocalId, destination: SocketAddr, payload: &[u8]);
    /// The same for one of so many bytes that `write` fills in, where it can be written to the place
    /// from which it is sent; when that returns false nothing is to be sent. Copied unless implemented.
    fn transmit_with(
        &mut self,
        via: LocalId,
        destination: SocketAddr,
        bytes: usize,
        write: &mut dyn FnMut(&mut [u8]) -> bool,
    ) {
        self.transmit_copied(via, destination, bytes, write);
    }
    /// What [`Self::transmit_with`] does where there is no such place.
    fn transmit_copied(
        &mut self,
        via: LocalId,
        destination: SocketAddr,
        bytes: usize,
        write: &mut dyn FnMut(&mut [u8]) -> bool,
    ) {
        let mut datagram = vec![0; bytes];
        if write(&mut datagram) {
            self.transmit(via, destination, &datagram);
        }
    }
    /// Something happened.
    fn event(&mut self, event: PeerEvent);
    /// The peer needs, or no longer needs, a local address. Ignored unless implemented: it then
    /// makes do with what it has.
    fn address(&mut self, _request: AddressRequest) {}
    /// A complete frame of a recording subscriber, in order within its stream.
    fn recorded(&mut self, stream: &RecordedStream, frame: RecordedFrame);
    /// No more frames of this codec come from a recorded stream: it was closed, or it changed its
    /// codec; then others follow, a recording of their own. `counted` is what became of its packets
    /// on their way into frames. Ignored unless implemented.
    fn recording_ended(&mut self, _stream: &RecordedStream, _counted: &AssemblerCounters) {}
    /// A value of a distribution. Ignored unless implemented.
    fn sample(&mut self, _sample: Sample) {}
}

/// What signalling knows and media does not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerUpdate {
    /// A track of somebody else (subscriber); may come before the offer that names it, and again.
    Track {
        /// LiveKit track id.
        track_id: String,
        /// Its publisher stamps frames by this host's clock, so their latency can be measured.
        same_clock: bool,
        /// Muted by its publisher.
        muted: bool,
    },
    /// A track of somebody else was muted or unmuted (subscriber).
    Muted {
        /// LiveKit track id.
        track_id: String,
        /// True if muted.
        muted: bool,
    },
    /// The server paused or resumed a track of somebody else, or was asked to (subscriber): the
    /// stream stands still on purpose.
    Paused {
        /// LiveKit track id.
        track_id: String,
        /// True if paused.
        paused: bool,
    },
    /// We leave: that frames stop from here on is no freeze, data messages are neither sent nor
    /// expected any more, and nobody is called or answered.
    Leaving,
    /// The server has moved us to another room: data messages are neither sent nor expected any more.
    /// Calls go on; who is there and who no longer is [`Self::Met`] and [`Self::Parted`] say.
    Moved,
    /// Others are connected, and may be called a moment later.
    Met {
        /// Who.
        others: Vec<Callee>,
    },
    /// Some are gone who were met.
    Parted {
        /// Their participant sids.
        sids: Vec<String>,
    },
    /// The server took our data track: its frames are sent under this handle from a moment later on.
    DataTrackPublished {
        /// What names it between us and the server.
        handle: u16,
    },
    /// A track of somebody else is gone (subscriber).
    TrackGone {
        /// LiveKit track id.
        track_id: String,
        /// It was unpublished, or its publisher left by itself: that its frames end is no freeze.
        orderly: bool,
    },
    /// The server knows LiveKit's packet trailer: stamp video frames with it (publisher).
    PacketTrailer,
    /// Which layers of a track anybody subscribes to (publisher; LiveKit's dynacast).
    LayersWanted {
        /// Client track id.
        cid: String,
        /// Low, medium, high.
        wanted: [bool; 3],
        /// The same of what is sent in its backup codec.
        backup: [bool; 3],
        /// Stop sending those that nobody wants, as a browser does, rather than only count.
        obey: bool,
    },
    /// The server has taken the announcement of a track in its backup codec (publisher): it is in the
    /// next offer with tracks.
    BackupWanted {
        /// Client track id of what is sent then.
        cid: String,
    },
    /// The server muted or unmuted a track of ours (publisher): it stops, or goes on with a
    /// keyframe.
    PublishMuted {
        /// Client track id.
        cid: String,
        /// True if muted.
        muted: bool,
    },
}

/// Somebody who can be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callee {
    /// Its participant sid.
    pub sid: String,
    /// Its identity.
    pub identity: String,
    /// Which protocol between clients it speaks.
    pub client_protocol: i32,
}

/// What happened to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerEvent {
    /// A candidate pair works: once when the connection comes up, and once after each restart of
    /// ICE, each change of the network and each loss.
    IceConnected,
    /// DTLS comes up by something other than UDP; [`Self::Connected`] follows.
    Path {
        /// By what.
        path: PathKind,
    },
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
    /// The frame that [`Peer::await_frame`](crate::Peer::await_frame) waited for.
    NextFrame {
        /// When the kernel had its last packet; of a publisher when it was sent.
        at: Arrival,
    },
    /// An audio track that takes turns in being loud has become so, or is so no longer: told when its
    /// first such frame is due and everything can leave.
    Speaks {
        /// True if loud.
        loud: bool,
        /// When the frame was written.
        at: Arrival,
    },
    /// The server's answer has no place for a track's backup ([`BackupTrack`](crate::BackupTrack)): the
    /// track goes on without it.
    BackupRefused {
        /// Client id of the backup.
        cid: Arc<str>,
        /// What is wrong with its m-line.
        reason: &'static str,
    },
    /// A local candidate that no description of ours had: the server is to be told.
    LocalCandidate {
        /// `candidate:…`.
        candidate: String,
    },
    /// The connection broke, or never was; the peer stays as it is until closed. ICE may still come
    /// back, with another [`PeerEvent::IceConnected`]: by itself, or restarted by a description.
    /// Then DTLS, keys and streams are those from before, and a further loss is told again. A
    /// restart that finds no way either is not.
    Disconnected {
        /// Why, as far as known.
        failure: Box<MediaFailure>,
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
    pub data: Bytes,
    /// RTP timestamp, extended over wrap-around.
    pub timestamp_ticks: u64,
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
    /// Neither receives nor has anything to send.
    #[error("a peer that does not receive needs at least one track, or data to send")]
    NoTracks,
    /// A track that can't be published.
    #[error("track {cid:?} can't be published: {source}")]
    Track {
        /// Client track id.
        cid: String,
        /// What is wrong.
        source: TrackError,
    },
}

/// Why a peer can't go on from another socket.
#[derive(Debug, thiserror::Error)]
pub enum ChangeNetworkError {
    /// The local address can't be a host candidate.
    #[error("local address {address} can't be an ICE candidate: {reason}")]
    LocalAddress {
        /// The address.
        address: SocketAddr,
        /// What str0m says.
        reason: String,
    },
    /// It changed its network too often.
    #[error("it has changed its network {max} times, and remembers no more addresses")]
    TooMany {
        /// [`NETWORK_CHANGES_MAX`](crate::peer::NETWORK_CHANGES_MAX).
        max: u32,
    },
}

/// Why a negotiation step failed. The peer stays usable.
#[derive(Debug, thiserror::Error)]
pub enum NegotiateError {
    /// The text is not SDP, or no candidate, that can be read.
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
        /// `offer` or `answer`.
        what: &'static str,
        /// What str0m says.
        reason: String,
    },
    /// The server's answer leaves out a track or its codec.
    #[error("the server's answer refuses track {cid:?}: {reason}")]
    TrackRefused {
        /// Client track id.
        cid: String,
        /// In which way.
        reason: &'static str,
    },
    /// A publisher was given an offer, a subscriber an answer, and the like.
    #[error("{0}")]
    WrongRole(&'static str),
    /// There is no offer of ours to which this could be the answer.
    #[error("an answer came, but no offer of ours is open")]
    NoOffer,
    /// Everything is negotiated already.
    #[error("there is nothing to offer: all tracks are negotiated")]
    NothingToOffer,
}

impl NegotiateError {
    /// A text of the server's, or of str0m's, that can't be read.
    pub(super) fn unreadable(what: &'static str, error: &dyn std::error::Error) -> Self {
        Self::Parse { what, reason: error.to_string() }
    }
}
