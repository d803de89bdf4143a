//! What a peer is made with.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::peer::RouteLookup;
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
            identity,
        }
    }
}
