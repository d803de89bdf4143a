//! str0m's crypto with one DTLS configuration for all peers of a process.
//!
//! str0m's own provider builds a `dimpl::Config` for each peer connection, and building one
//! proves the whole crypto library anew (a key exchange in every group, P-384 too): about 1 ms of
//! CPU a peer, more than the handshake itself. But for that, and for when ciphers are made, it is
//! str0m's.

mod late_gcm;

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use dimpl::crypto::NamedGroup;
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion,
};
use str0m::crypto::{CryptoError, CryptoProvider};

use crate::dtls::front::Front;
use crate::srtp::{KeySlot, Keying};

/// Key exchange groups: every WebRTC client knows both, and P-384 costs ten times as much.
const GROUPS: [NamedGroup; 2] = [NamedGroup::X25519, NamedGroup::Secp256r1];

/// str0m's crypto with the shared DTLS configuration.
pub fn provider() -> CryptoProvider {
    static DTLS: SharedDtls = SharedDtls { config: OnceLock::new() };
    CryptoProvider {
        dtls_provider: &DTLS,
        srtp_provider: &late_gcm::LateSrtp,
        ..str0m::crypto::from_feature_flags()
    }
}

thread_local! {
    /// The slot for the DTLS instance that is being made on this thread. It is the one hidden
    /// parameter of the core, and str0m leaves no other way: its providers are `&'static dyn`, what
    /// they are called with names no peer, and the keys that DTLS exports come out nowhere else.
    /// It is set and taken within [`with_key_slot`].
    static SLOT: RefCell<Option<Slot>> = const { RefCell::new(None) };
}

/// Where the keys of a DTLS instance go.
struct Slot {
    keys: KeySlot,
    /// Nobody else wants them.
    alone: bool,
}

/// Makes a peer connection with [`provider`]; the slot will hold its SRTP keys once DTLS has them,
/// for a packet path beside str0m's.
pub fn with_key_slot<T>(make: impl FnOnce() -> T) -> (T, KeySlot) {
    with_slot(false, make)
}

/// [`with_key_slot`] where str0m is to have no SRTP of its own: it sends and receives none, and would
/// derive and keep four kilobytes of keys and buffers for it.
pub(crate) fn with_own_srtp<T>(make: impl FnOnce() -> T) -> (T, KeySlot) {
    with_slot(true, make)
}

fn with_slot<T>(alone: bool, make: impl FnOnce() -> T) -> (T, KeySlot) {
    let keys = KeySlot::default();
    SLOT.set(Some(Slot { keys: keys.clone(), alone }));
    let made = make();
    SLOT.set(None);
    (made, keys)
}

/// The slot that a DTLS instance being made on this thread is to fill. There is one inside
/// [`with_key_slot`], for the first who asks. Tests have DTLS providers beside this one.
#[cfg(feature = "testing")]
pub fn take_key_slot() -> Option<KeySlot> {
    SLOT.take().map(|slot| slot.keys)
}

#[derive(Debug)]
struct SharedDtls {
    /// By the MTU it was built for, of which there is one: str0m's default.
    config: OnceLock<(Option<usize>, Arc<dimpl::Config>)>,
}

impl SharedDtls {
    fn config(&self, mtu: Option<usize>) -> Result<Arc<dimpl::Config>, CryptoError> {
        if let Some((known, config)) = self.config.get()
            && *known == mtu
        {
            return Ok(config.clone());
        }
        // ICE has proven the client's address before DTLS, so no cookie is needed.
        let mut builder = dimpl::Config::builder().use_server_cookie(false).kx_groups(&GROUPS);
        if let Some(mtu) = mtu {
            builder = builder.mtu(mtu);
        }
        let config = builder.build().map_err(|error| CryptoError::Other(error.to_string()))?;
        let config = Arc::new(config);
        // Of two threads that are first, one's is kept.
        let _ = self.config.set((mtu, config.clone()));
        Ok(config)
    }
}

impl DtlsProvider for SharedDtls {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        str0m::crypto::from_feature_flags().dtls_provider.generate_certificate()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let config = self.config(mtu)?;
        let cert = cert.clone();
        let dtls = match version {
            DtlsVersion::Dtls12 => dimpl::Dtls::new_12(config, cert, now),
            DtlsVersion::Dtls13 => dimpl::Dtls::new_13(config, cert, now),
            DtlsVersion::Auto => dimpl::Dtls::new_auto(config, cert, now),
            other => return Err(CryptoError::Other(format!("{other} is not supported"))),
        };
        // Of 1.3 dimpl reads other messages, and str0m asks for 1.2.
        let front = (version == DtlsVersion::Dtls12).then(Box::default);
        Ok(Box::new(Instance { dtls, front, slot: SLOT.take() }))
    }
}

struct Instance {
    dtls: dimpl::Dtls,
    /// What it hears the handshake through, until that is over.
    front: Option<Box<Front>>,
    slot: Option<Slot>,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Instance")
    }
}

impl DtlsInstance for Instance {
    fn set_active(&mut self, active: bool) {
        self.dtls.set_active(active);
        if let Some(front) = &mut self.front {
            front.set_client(active);
        }
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        let Self { dtls, front, .. } = self;
        match front {
            Some(front) => front.take(packet, &mut |record| dtls.handle_packet(record)),
            None => dtls.handle_packet(packet),
        }
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        let output = self.dtls.poll_output(buf);
        if matches!(output, DtlsOutput::Connected) {
            self.front = None;
        }
        if let (DtlsOutput::KeyingMaterial(material, profile), Some(slot)) = (&output, &self.slot) {
            let (profile, material) = (*profile, material.to_vec());
            // A second handshake on the same connection would not change the keys.
            let _ = slot.keys.set(Keying { profile, material, is_client: self.dtls.is_active() });
            if slot.alone {
                // There are keys once it is connected, which it may be told twice.
                return DtlsOutput::Connected;
            }
        }
        output
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.dtls.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.dtls.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.dtls.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.dtls.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.dtls.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.dtls.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.dtls.close()
    }
}
