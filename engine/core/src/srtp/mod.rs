//! SRTP and SRTCP of one peer connection (RFC 3711, RFC 7714), for packet paths beside str0m's: the
//! subscriber's receiver and the publisher's sender here, and the embedded SFU's way out.
//!
//! str0m keeps its own contexts from the same keys; here each packet is opened into a buffer of
//! the caller's, or sealed where it lies, without allocating, and keys are expanded once. The
//! primitives are aws-lc's.
//!
//! What keeps an initialisation vector from ever being used for two packets:
//! - An SSRC has one sender: whoever seals RTP here lets str0m send none, and what is sent again
//!   has the SSRC and the numbers of RTX.
//! - So has SRTCP, whose vectors are of the sender's SSRC too: what str0m sends of a connection whose
//!   RTCP we send as well ([`SrtcpSealer`]) is of SSRCs that are not ours. A packet of str0m's that is to
//!   say something else goes out under its index *instead* of str0m's ciphertext, which never leaves
//!   (`SrtcpEditor`).

mod control;
mod media;

use std::fmt;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use str0m::crypto::dtls::SrtpProfile;

pub(crate) use control::SrtcpEditor;
pub use control::{SrtcpOpener, SrtcpSealer};
pub(crate) use media::extend_index;
#[cfg(test)]
pub(crate) use media::seal_rtp;
pub use media::{RtpOpener, RtpSealer};

/// Length of AES-GCM's tag (RFC 7714 §13).
const GCM_TAG_BYTES: usize = 16;
/// Length of the HMAC-SHA1-80 tag (RFC 3711 §5.2).
const HMAC_TAG_BYTES: usize = 10;

/// Labels of RFC 3711 §4.3.1; those of SRTCP are three higher.
const LABEL_KEY: u8 = 0;
const LABEL_AUTHENTICATION: u8 = 1;
const LABEL_SALT: u8 = 2;
const LABEL_SRTCP: u8 = 3;

/// What DTLS exported for SRTP (RFC 5764 §4.2).
pub struct Keying {
    pub(crate) profile: SrtpProfile,
    /// Client key, server key, client salt, server salt.
    pub(crate) material: Vec<u8>,
    /// We are the DTLS client.
    pub(crate) is_client: bool,
}

impl fmt::Debug for Keying {
    /// Never shows the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keying")
            .field("profile", &self.profile)
            .field("is_client", &self.is_client)
            .finish_non_exhaustive()
    }
}

/// Where a peer's DTLS instance leaves the keys for its peer.
pub type KeySlot = Arc<OnceLock<Keying>>;

/// Why keys can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// None of the three profiles that WebRTC clients agree on.
    #[error("SRTP profile {0:?} is known to str0m only")]
    Profile(SrtpProfile),
    /// DTLS exported less than two keys and two salts.
    #[error("{bytes} bytes of SRTP keying material are too few for {profile:?}")]
    Material {
        /// What was agreed on.
        profile: SrtpProfile,
        /// Length of what was exported.
        bytes: usize,
    },
    /// With keys of the right length it never does.
    #[error("the crypto library refused the SRTP keys")]
    Refused,
}

impl From<aws_lc_rs::error::Unspecified> for KeyError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self::Refused
    }
}

/// A cipher with its key lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suite {
    Gcm128,
    Gcm256,
    CtrHmac,
}

impl Suite {
    fn of(profile: SrtpProfile) -> Result<Self, KeyError> {
        match profile {
            SrtpProfile::AEAD_AES_128_GCM => Ok(Self::Gcm128),
            SrtpProfile::AEAD_AES_256_GCM => Ok(Self::Gcm256),
            SrtpProfile::AES128_CM_SHA1_80 => Ok(Self::CtrHmac),
            other => Err(KeyError::Profile(other)),
        }
    }

    fn key_bytes(self) -> usize {
        if self == Self::Gcm256 { 32 } else { 16 }
    }

    fn salt_bytes(self) -> usize {
        if self == Self::CtrHmac { 14 } else { 12 }
    }
}

/// A master key and salt; session keys are derived from it.
struct Master<'a> {
    suite: Suite,
    key: &'a [u8],
    salt: &'a [u8],
}

impl Keying {
    /// What another DTLS than [`crypto::provider`](crate::crypto::provider)'s has exported: the
    /// client's key, the server's key, and their salts in the same order. `is_client` says whose
    /// side of it is ours.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn new(profile: SrtpProfile, material: Vec<u8>, is_client: bool) -> Self {
        Self { profile, material, is_client }
    }

    /// Master of what the client sends, or of what the server sends.
    fn master(&self, of_client: bool) -> Result<Master<'_>, KeyError> {
        let suite = Suite::of(self.profile)?;
        let (key, salt) = (suite.key_bytes(), suite.salt_bytes());
        let (profile, bytes) = (self.profile, self.material.len());
        if bytes < 2 * (key + salt) {
            return Err(KeyError::Material { profile, bytes });
        }
        let side = usize::from(!of_client);
        Ok(Master {
            suite,
            key: &self.material[side * key..][..key],
            salt: &self.material[2 * key + side * salt..][..salt],
        })
    }

    /// For the RTP that the other side sends.
    ///
    /// # Errors
    /// The profile is not known here, or the keys are of no use.
    pub fn rtp_opener(&self) -> Result<RtpOpener, KeyError> {
        RtpOpener::new(&self.master(!self.is_client)?)
    }

    /// For the RTCP that the other side sends.
    ///
    /// # Errors
    /// The profile is not known here, or the keys are of no use.
    pub fn srtcp_opener(&self) -> Result<SrtcpOpener, KeyError> {
        SrtcpOpener::new(&self.master(!self.is_client)?)
    }

    /// For the RTP that we send.
    ///
    /// # Errors
    /// The profile is not known here, or the keys are of no use.
    pub fn rtp_sealer(&self) -> Result<RtpSealer, KeyError> {
        RtpSealer::new(&self.master(self.is_client)?)
    }

    /// For changing the RTCP that str0m sends.
    ///
    /// # Errors
    /// As of [`rtp_sealer`](Self::rtp_sealer).
    pub(crate) fn srtcp_editor(&self) -> Result<SrtcpEditor, KeyError> {
        SrtcpEditor::new(&self.master(self.is_client)?)
    }

    /// For the RTCP that we send.
    ///
    /// # Errors
    /// As of [`rtp_sealer`](Self::rtp_sealer).
    pub fn srtcp_sealer(&self) -> Result<SrtcpSealer, KeyError> {
        SrtcpSealer::new(&self.master(self.is_client)?)
    }
}

impl Master<'_> {
    /// RFC 3711 §4.3.3 with a key derivation rate of 0; a 96-bit salt stands left in its 112 bits
    /// (RFC 7714 §11).
    fn derive(&self, label: u8, out: &mut [u8]) -> Result<(), KeyError> {
        let mut iv = [0; 16];
        iv[..self.salt.len()].copy_from_slice(self.salt);
        iv[7] ^= label;
        out.fill(0);
        let algorithm = if self.key.len() == 32 { &AES_256 } else { &AES_128 };
        let cipher = EncryptingKey::ctr(UnboundCipherKey::new(algorithm, self.key)?)?;
        cipher.less_safe_encrypt(out, EncryptionContext::Iv128(FixedLength::from(iv)))?;
        Ok(())
    }

    fn derive_salt<const N: usize>(&self, label: u8) -> Result<[u8; N], KeyError> {
        let mut salt = [0; N];
        self.derive(label, &mut salt)?;
        Ok(salt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> =
            text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    #[test]
    fn rfc_3711_b3_key_derivation() {
        let (key, salt) =
            (hex("E1F97A0D3E018BE0D64FA32C06DE4139"), hex("0EC675AD498AFEEBB6960B3AABE6"));
        let master = Master { suite: Suite::CtrHmac, key: &key, salt: &salt };
        let mut out = [1; 16];
        master.derive(LABEL_KEY, &mut out).unwrap();
        assert_eq!(out[..], hex("C61E7A93744F39EE10734AFE3FF7A087"));
        let salt: [u8; 14] = master.derive_salt(LABEL_SALT).unwrap();
        assert_eq!(salt[..], hex("30CBBC08863D8C85D49DB34A9AE1"));
        let mut out = [1; 20];
        master.derive(LABEL_AUTHENTICATION, &mut out).unwrap();
        assert_eq!(out[..], hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
    }

    #[test]
    fn each_side_takes_the_others_half() {
        let material: Vec<u8> = (0..56).collect();
        let profile = SrtpProfile::AEAD_AES_128_GCM;
        let keying = Keying { profile, material, is_client: true };
        let server = keying.master(false).unwrap();
        assert_eq!((server.key[0], server.salt[0]), (16, 44));
        let client = keying.master(true).unwrap();
        assert_eq!((client.key[0], client.salt[0]), (0, 32));
        assert!(!format!("{keying:?}").contains("44"), "keys are never shown");
        let short = Keying { material: vec![0; 55], ..keying };
        assert!(matches!(short.rtp_opener(), Err(KeyError::Material { bytes: 55, .. })));
    }
}
