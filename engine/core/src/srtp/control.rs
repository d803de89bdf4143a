//! SRTCP: compound packets, the index in clear behind them (RFC 3711 §3.4, RFC 7714 §9).

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;

use super::media::{ctr_iv, same, xor_low};
use super::{
    GCM_TAG_BYTES, HMAC_TAG_BYTES, KeyError, LABEL_AUTHENTICATION, LABEL_KEY, LABEL_SALT,
    LABEL_SRTCP, Master, Suite,
};

/// What stays in clear at the beginning: the first packet's header and its sender's SSRC.
const CLEAR_BYTES: usize = 8;
const INDEX_BYTES: usize = 4;
/// The E flag: the packet is encrypted.
const ENCRYPTED: u32 = 1 << 31;
/// An index has 31 bits; after this one the keys are used up (RFC 3711 §9.2).
const INDEX_MAX: u32 = ENCRYPTED - 1;

enum Cipher {
    Gcm { key: LessSafeKey, salt: [u8; 12] },
    CtrHmac(Box<CtrHmac>),
}

struct CtrHmac {
    cipher: EncryptingKey,
    salt: [u8; 14],
    authentication: hmac::Key,
}

impl Cipher {
    fn new(master: &Master<'_>) -> Result<Self, KeyError> {
        let mut key = [0; 32];
        let key = &mut key[..master.suite.key_bytes()];
        master.derive(LABEL_SRTCP + LABEL_KEY, key)?;
        if master.suite != Suite::CtrHmac {
            let algorithm = if key.len() == 32 { &AES_256_GCM } else { &AES_128_GCM };
            let key = LessSafeKey::new(UnboundKey::new(algorithm, key)?);
            return Ok(Self::Gcm { key, salt: master.derive_salt(LABEL_SRTCP + LABEL_SALT)? });
        }
        let mut authentication = [0; 20];
        master.derive(LABEL_SRTCP + LABEL_AUTHENTICATION, &mut authentication)?;
        Ok(Self::CtrHmac(Box::new(CtrHmac {
            cipher: EncryptingKey::ctr(UnboundCipherKey::new(&AES_128, key)?)?,
            salt: master.derive_salt(LABEL_SRTCP + LABEL_SALT)?,
            authentication: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &authentication),
        })))
    }

    /// Seals a compound packet of at least [`CLEAR_BYTES`] under an index that nothing else has.
    fn seal(&self, compound: &[u8], ssrc: u32, index: u32) -> Option<Vec<u8>> {
        let trailer = (ENCRYPTED | index).to_be_bytes();
        let mut out = Vec::with_capacity(compound.len() + GCM_TAG_BYTES + INDEX_BYTES);
        out.extend_from_slice(compound);
        let body = &mut out[CLEAR_BYTES..];
        match self {
            Self::Gcm { key, salt } => {
                let mut aad = [0; CLEAR_BYTES + INDEX_BYTES];
                aad[..CLEAR_BYTES].copy_from_slice(&compound[..CLEAR_BYTES]);
                aad[CLEAR_BYTES..].copy_from_slice(&trailer);
                let nonce = gcm_nonce(*salt, ssrc, index);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), body).ok()?;
                out.extend_from_slice(tag.as_ref());
                out.extend_from_slice(&trailer);
            }
            Self::CtrHmac(keys) => {
                let CtrHmac { cipher, salt, authentication } = &**keys;
                let iv = FixedLength::from(ctr_iv(*salt, ssrc, u64::from(index)));
                cipher.less_safe_encrypt(body, EncryptionContext::Iv128(iv)).ok()?;
                out.extend_from_slice(&trailer);
                let tag = hmac::sign(authentication, &out);
                out.extend_from_slice(&tag.as_ref()[..HMAC_TAG_BYTES]);
            }
        }
        Some(out)
    }

    /// The compound packet in clear with its index; `None` if it is not authentic.
    fn open(&self, datagram: &[u8]) -> Option<(Vec<u8>, u32)> {
        let ssrc = sender(datagram)?;
        match self {
            Self::Gcm { key, salt } => {
                let (rest, trailer) = datagram.split_last_chunk::<INDEX_BYTES>()?;
                let (encrypted, index) = split_trailer(*trailer);
                let nonce = gcm_nonce(*salt, ssrc, index);
                let bytes = rest.len().checked_sub(CLEAR_BYTES + GCM_TAG_BYTES)?;
                let (clear, sealed) = rest.split_at(CLEAR_BYTES);
                let (sealed, tag) = sealed.split_at(bytes);
                let mut out = Vec::with_capacity(CLEAR_BYTES + bytes);
                out.extend_from_slice(clear);
                if !encrypted {
                    out.extend_from_slice(sealed);
                    let aad = Aad::from([out.as_slice(), trailer].concat());
                    key.open_separate_gather(nonce, aad, &[], tag, &mut []).ok()?;
                    return Some((out, index));
                }
                let mut aad = [0; CLEAR_BYTES + INDEX_BYTES];
                aad[..CLEAR_BYTES].copy_from_slice(clear);
                aad[CLEAR_BYTES..].copy_from_slice(trailer);
                let aad = Aad::from(aad);
                out.resize(CLEAR_BYTES + bytes, 0);
                let body = &mut out[CLEAR_BYTES..];
                key.open_separate_gather(nonce, aad, sealed, tag, body).ok()?;
                Some((out, index))
            }
            Self::CtrHmac(keys) => {
                let CtrHmac { cipher, salt, authentication } = &**keys;
                let (authentic, tag) = datagram.split_last_chunk::<HMAC_TAG_BYTES>()?;
                let computed = hmac::sign(authentication, authentic);
                same(&computed.as_ref()[..HMAC_TAG_BYTES], tag).then_some(())?;
                let (compound, trailer) = authentic.split_last_chunk::<INDEX_BYTES>()?;
                let (encrypted, index) = split_trailer(*trailer);
                let mut out = compound.to_vec();
                if encrypted {
                    let iv = FixedLength::from(ctr_iv(*salt, ssrc, u64::from(index)));
                    let body = out.get_mut(CLEAR_BYTES..)?;
                    cipher.less_safe_encrypt(body, EncryptionContext::Iv128(iv)).ok()?;
                }
                Some((out, index))
            }
        }
    }
}

/// RFC 7714 §9.1.
fn gcm_nonce(salt: [u8; 12], ssrc: u32, index: u32) -> Nonce {
    let value = u128::from(ssrc) << 48 | u128::from(index);
    Nonce::assume_unique_for_key(xor_low(salt, value))
}

fn sender(packet: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*packet.get(4..)?.first_chunk()?))
}

/// Seals the RTCP that we send of an SSRC. It is the only thing that sends of that SSRC under its key:
/// a second one would use an index, and with it an AES-GCM nonce (RFC 7714 §9.1), twice. str0m's is of
/// other SSRCs: of its own media where we send none, else of none that is media's.
pub struct SrtcpSealer {
    cipher: Cipher,
    next_index: u32,
}

impl SrtcpSealer {
    pub(super) fn new(master: &Master<'_>) -> Result<Self, KeyError> {
        Ok(Self { cipher: Cipher::new(master)?, next_index: 0 })
    }

    /// Seals a compound packet; `None` if it is shorter than a header and an SSRC, or if all
    /// indices are used up.
    #[must_use]
    pub fn seal(&mut self, compound: &[u8]) -> Option<Vec<u8>> {
        let ssrc = sender(compound)?;
        let index = self.next_index;
        if index > INDEX_MAX {
            return None;
        }
        self.next_index += 1;
        self.cipher.seal(compound, ssrc, index)
    }
}

/// Changes the RTCP that str0m seals, under the index that str0m gave it. Only one of the two
/// packets may leave: what comes in is not to be sent when something else came out.
pub(crate) struct SrtcpEditor {
    cipher: Cipher,
}

impl SrtcpEditor {
    pub(super) fn new(master: &Master<'_>) -> Result<Self, KeyError> {
        Ok(Self { cipher: Cipher::new(master)? })
    }

    /// Lets `edit` change the compound packet in `datagram`, in clear and without its SRTCP
    /// trailer; it says whether it did. Returns what to send; `None` if the datagram is not sealed
    /// with these keys or too short.
    pub(crate) fn edit(
        &self,
        datagram: Vec<u8>,
        edit: impl FnOnce(&mut [u8]) -> bool,
    ) -> Option<Vec<u8>> {
        let (mut compound, index) = self.cipher.open(&datagram)?;
        if !edit(&mut compound) {
            return Some(datagram);
        }
        self.cipher.seal(&compound, sender(&compound)?, index)
    }
}

/// Opens the RTCP of one sender.
pub struct SrtcpOpener {
    cipher: Cipher,
}

impl SrtcpOpener {
    pub(super) fn new(master: &Master<'_>) -> Result<Self, KeyError> {
        Ok(Self { cipher: Cipher::new(master)? })
    }

    /// The compound packet in clear with its index, by which replays are told; `None` if it is not
    /// authentic.
    #[must_use]
    pub fn open(&self, datagram: &[u8]) -> Option<(Vec<u8>, u32)> {
        self.cipher.open(datagram)
    }
}

fn split_trailer(trailer: [u8; INDEX_BYTES]) -> (bool, u32) {
    let value = u32::from_be_bytes(trailer);
    (value & ENCRYPTED != 0, value & INDEX_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::tests::hex;
    use super::super::{Keying, SrtpProfile};
    use super::*;

    const CLEAR: &str = "81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61\
                         deadbeefdeadbeefdeadbeefdeadbeefdeadbeef";
    const SEALED: &str = "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32d\
                          c676a5f1730d6fda4ce09b4686303ded0bb9275bc84aa45896cf4d2fc5abf872\
                          45d9eade800005d4";
    const TAGGED: &str = "841dd9683dd78ec92ae58790125f62b3000005d4";

    fn rfc_7714() -> Cipher {
        let key = UnboundKey::new(&AES_128_GCM, &hex("000102030405060708090a0b0c0d0e0f")).unwrap();
        let salt = hex("517569642070726f2071756f").try_into().unwrap();
        Cipher::Gcm { key: LessSafeKey::new(key), salt }
    }

    #[test]
    fn rfc_7714_17_srtcp() {
        let mut sealer = SrtcpSealer { cipher: rfc_7714(), next_index: 0x5d4 };
        assert_eq!(sealer.seal(&hex(CLEAR)).unwrap(), hex(SEALED));
        let opener = SrtcpOpener { cipher: rfc_7714() };
        assert_eq!(opener.open(&hex(SEALED)), Some((hex(CLEAR), 0x5d4)));
        let tagged = [hex(CLEAR), hex(TAGGED)].concat();
        assert_eq!(opener.open(&tagged), Some((hex(CLEAR), 0x5d4)), "17.3: not encrypted");
    }

    #[test]
    fn all_profiles_open_what_was_sealed_and_nothing_else() {
        use SrtpProfile as P;
        for profile in [P::AEAD_AES_128_GCM, P::AEAD_AES_256_GCM, P::AES128_CM_SHA1_80] {
            let material: Vec<u8> = (0..88).collect();
            let client = Keying { profile, material: material.clone(), is_client: true };
            let server = Keying { profile, material, is_client: false };
            let mut sealer = client.srtcp_sealer().unwrap();
            let opener = server.srtcp_opener().unwrap();
            for index in 0..3 {
                let sealed = sealer.seal(&hex(CLEAR)).unwrap();
                assert_eq!(opener.open(&sealed), Some((hex(CLEAR), index)));
                for at in [0, 4, 8, 30, sealed.len() - 1] {
                    let mut bad = sealed.clone();
                    bad[at] ^= 4;
                    assert_eq!(opener.open(&bad), None, "{profile:?} {at}");
                }
                for bytes in 0..28 {
                    assert_eq!(opener.open(&sealed[..bytes]), None);
                }
            }
            assert_eq!(
                client.srtcp_opener().unwrap().open(&sealer.seal(&hex(CLEAR)).unwrap()),
                None
            );
        }
    }

    #[test]
    fn a_packet_is_changed_under_its_own_index() {
        use SrtpProfile as P;
        for profile in [P::AEAD_AES_128_GCM, P::AEAD_AES_256_GCM, P::AES128_CM_SHA1_80] {
            let material: Vec<u8> = (0..88).collect();
            let client = Keying { profile, material: material.clone(), is_client: true };
            let server = Keying { profile, material, is_client: false };
            let (mut sealer, editor) = (client.srtcp_sealer().unwrap(), client.srtcp_editor());
            let (editor, opener) = (editor.unwrap(), server.srtcp_opener().unwrap());
            sealer.next_index = 5;
            let sealed = sealer.seal(&hex(CLEAR)).unwrap();
            let untouched = editor.edit(sealed.clone(), |compound| {
                assert_eq!(compound, hex(CLEAR));
                false
            });
            assert_eq!(untouched.as_ref(), Some(&sealed), "{profile:?}");
            let changed = editor.edit(sealed.clone(), |compound| {
                compound[20] ^= 99;
                true
            });
            let mut expected = hex(CLEAR);
            expected[20] ^= 99;
            assert_eq!(opener.open(&changed.unwrap()), Some((expected, 5)), "{profile:?}");
            let mut bad = sealed.clone();
            bad[12] ^= 1;
            assert_eq!(editor.edit(bad, |_| unreachable!()), None, "{profile:?}");
            assert_eq!(editor.edit(sealed[..11].to_vec(), |_| unreachable!()), None);
        }
    }

    #[test]
    fn no_index_is_used_twice() {
        let mut sealer = SrtcpSealer { cipher: rfc_7714(), next_index: INDEX_MAX };
        assert!(sealer.seal(&hex(CLEAR)).is_some());
        assert_eq!(sealer.seal(&hex(CLEAR)), None);
        assert_eq!(sealer.seal(&[0; 7]), None);
    }
}
