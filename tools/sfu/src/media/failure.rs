//! Why a peer connection ends, and why an SDP of a client can't be used.

use std::io;
use std::sync::Arc;

use stampede_core::srtp::KeyError;
use stampede_sdp::ParseError;
use str0m::RtcError;
use str0m::error::{IceError, SdpError};

/// Why a peer connection ended that its client did not close.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerFailure {
    /// The worker's address is none that ICE could use.
    #[error("the media address can't be a candidate: {0}")]
    Candidate(#[from] IceError),
    /// ICE, DTLS or SCTP gave up.
    #[error(transparent)]
    Connection(#[from] RtcError),
    /// The keys that DTLS agreed on can't encrypt media.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// DTLS has connected without any for a subscriber.
    #[error("DTLS handed out no SRTP keys")]
    NoKeys,
    /// The client went away without a word.
    #[error("no connectivity checks for 15 s")]
    Silent,
    /// The client has not checked anything since ICE was restarted.
    #[error("ICE was restarted, and no pair worked for 15 s")]
    NotRestarted,
    /// The client has not answered an offer.
    #[error("the offer was not answered for 15 s")]
    OfferUnanswered,
    /// The worker's socket, which all its peers share, is unusable.
    #[error("the media socket failed: {0}")]
    Socket(Arc<io::Error>),
}

/// Why an offer or answer of a client can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NegotiationError {
    /// It is no SDP.
    #[error(transparent)]
    Syntax(#[from] ParseError),
    /// str0m can't read it.
    #[error(transparent)]
    Unreadable(#[from] SdpError),
    /// It has more m-lines than are answered.
    #[error("the offer has {m_lines} m-lines, and at most {max} are answered")]
    TooManyMedia {
        /// How many.
        m_lines: usize,
        /// How many there may be.
        max: usize,
    },
    /// It does not fit what was negotiated before.
    #[error(transparent)]
    Refused(#[from] RtcError),
}
