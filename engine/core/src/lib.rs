//! The sans-IO peer of Stampede: one WebRTC peer connection over str0m, what it received and what
//! it sends.
//!
//! - [`Peer`]: it receives, it sends, or both. No sockets, no threads, no clock: time and datagrams come
//!   in as arguments, datagrams and events go out through a [`PeerSink`].
//! - [`accounting`]: sequence and frame ledgers after docs/measurement.md, pure and usable on their
//!   own.
//! - [`data`]: data messages, and what of them came; pure.
//! - [`crypto`]: str0m's crypto, set up once instead of once a peer; the embedded SFU uses it too.
//! - [`srtp`]: SRTP for packet paths beside str0m's; the embedded SFU sends with it.
//! - `feedback`: what is told to the server of congestion, as Chrome tells it; pure.
//! - [`watch`]: how long a track could be watched, over streams and reconnects, and why not.
//! - [`rtcp`] and [`wire_time`]: what RTCP packets and times are made of; the embedded SFU reads and writes
//!   them too.
//! - [`publish`]: when which packet of a shared [`stampede_media::MediaClip`] is due.
//!
//! The order of calls a worker keeps: any number of `handle_*`/negotiation calls, then
//! [`Peer::drain`], then sleep until the instant it returned.
//!
//! ```
//! use std::time::{Duration, Instant};
//!
//! use stampede_core::accounting::{SequenceLedger, Via};
//!
//! let mut ledger = SequenceLedger::new(Duration::from_millis(500));
//! let at = Instant::now();
//! for sequence in [1, 2, 4] {
//!     ledger.media(sequence, at, 1_000, Via::Primary);
//! }
//! ledger.media(3, at + Duration::from_millis(40), 1_000, Via::Rtx);
//! let packets = ledger.counters();
//! assert_eq!((packets.expected, packets.missing, packets.repaired), (4, 1, 1));
//! ```

#![forbid(unsafe_code)]

pub mod accounting;
mod capture;
mod counters;
pub mod crypto;
pub mod data;
pub mod dtls;
mod feedback;
mod options;
pub mod peer;
pub mod publish;
pub mod rtcp;
pub mod srtp;
mod transport;
mod turn;
mod video_codecs;
pub mod watch;
pub mod wire_time;

// The tests' deterministic network names this crate as its users do.
#[cfg(test)]
extern crate self as stampede_core;

pub use capture::{Capture, CaptureLimits, CapturedPacket};
pub use counters::{PeerReport, PublishReport, Sample, SenderWindow, StreamReport};
pub use options::{
    Arrival, CongestionFeedback, DtlsIdentity, FeedbackError, IdentityError, PeerOptions,
};
pub use peer::{
    AddressRequest, BackupTrack, Callee, ChangeNetworkError, CreatePeerError, Heard, LocalId,
    MediaFailure, NegotiateError, NoCandidatePair, Peer, PeerEvent, PeerRole, PeerSink, PeerUpdate,
    Receives, RecordedFrame, RecordedStream, RemoteCandidate, RtpHeader, Scratch,
};
pub use publish::{AudioOptions, PublishLayer, PublishTrack, SpeakingTurns, TrackError};
pub use stampede_counters::{
    FeedbackCounters, FrameCounters, FreezeCounters, MediaCounters, PacketCounters, PeerCounters,
    PeerDatagrams, PublishCounters, StreamsCounters, TransportCounters,
};
pub use stampede_media::Codec;
pub use stampede_sdp::{MediaKind, Slots};
pub use transport::{PathKind, Transport, TransportError};
pub use turn::{TURN_CREDENTIAL_BYTES_MAX, TurnServer};
pub use video_codecs::VideoCodecs;
