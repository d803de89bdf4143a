//! What a peer is made with.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::peer::RouteLookup;
use crate::transport::Transport;
use str0m::config::{CryptoProvider, DtlsCert};

/// A moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Monotonic time; what deadlines run on.
    pub instant: Instant,
    /// Nanoseconds since the Unix epoch; the kernel's receive stamp where there is one.
    pub unix_ns: u64,
}

/// One DTLS certificate (ECDSA P-256, self-signed) and crypto provider for all peers of a process.
///
/// Making a certificate costs more than the rest of a peer; a real client makes its own, but no
/// server tells peers apart by it.
#[derive(Clone)]
pub struct DtlsIdentity {
    pub(crate) certificate: DtlsCert,
    pub(crate) crypto: Arc<CryptoProvider>,
}

impl DtlsIdentity {
    /// Makes a key pair and certificate.
    pub fn generate() -> Result<Self, IdentityError> {
        let crypto = Arc::new(crate::crypto::provider());
        let certificate =
            crypto.dtls_provider.generate_certificate().ok_or(IdentityError::NoCertificate)?;
        Ok(Self { certificate, crypto })
    }
}

impl fmt::Debug for DtlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DtlsIdentity")
    }
}

/// Why there is no [`DtlsIdentity`].
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The crypto library made none.
    #[error("the crypto library could not make a P-256 certificate; is its random source usable?")]
    NoCertificate,
}

/// What a receiving peer tells the server of the congestion on the way to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CongestionFeedback {
    /// Receiver reports and NACKs only: nothing that the server would lower its rate by.
    None,
    /// What Chrome does: REMB with libwebrtc's receive-side estimate, or the arrival times of all
    /// packets where the server negotiated transport-wide congestion control.
    #[default]
    Chrome,
}

/// It names no feedback.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("use chrome (REMB, or transport-wide feedback where the server wants it) or none")]
pub struct FeedbackError;

impl FromStr for CongestionFeedback {
    type Err = FeedbackError;

    fn from_str(text: &str) -> Result<Self, FeedbackError> {
        match text.trim() {
            "none" => Ok(Self::None),
            "chrome" => Ok(Self::Chrome),
            _ => Err(FeedbackError),
        }
    }
}

impl fmt::Display for CongestionFeedback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Chrome => "chrome",
        })
    }
}

/// Options that all peers of a process share.
#[derive(Debug, Clone)]
pub struct PeerOptions {
    /// How long after a gap was seen a repair still counts (docs/measurement.md, "Packets"); 500 ms
    /// by default.
    pub playout_deadline: Duration,
    /// Most packets a publisher keeps for retransmission, per layer. Older ones can't be resent.
    pub retransmit_cache_packets_max: usize,
    /// From which local addresses the server's candidates are reached. `None`: from any of their
    /// family that the peer has, and it asks for no others.
    pub route: Option<RouteLookup>,
    /// By which ways it may be connected; UDP, and TCP where that does not work, by default.
    pub transport: Transport,
    /// What a receiving peer tells the server of congestion; as Chrome by default.
    pub feedback: CongestionFeedback,
    /// A publisher leaves out the layers that the server's feedback has no room for, and paces what it
    /// sends; not by default.
    pub adapt: bool,
    /// Certificate and crypto.
    pub identity: DtlsIdentity,
}

impl PeerOptions {
    /// The defaults with this identity.
    pub fn new(identity: DtlsIdentity) -> Self {
        Self {
            playout_deadline: Duration::from_millis(500),
            retransmit_cache_packets_max: 512,
            route: None,
            transport: Transport::default(),
            feedback: CongestionFeedback::default(),
            adapt: false,
            identity,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feedback_is_written_as_read() {
        for text in ["none", "chrome"] {
            assert_eq!(text.parse::<CongestionFeedback>().unwrap().to_string(), text);
        }
        assert_eq!("firefox".parse::<CongestionFeedback>(), Err(FeedbackError));
        assert_eq!(CongestionFeedback::default().to_string(), "chrome");
    }
}
