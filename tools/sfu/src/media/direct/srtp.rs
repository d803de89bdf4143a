//! SRTP of the sending side (RFC 3711, RFC 7714), in place: the packet is encrypted where it lies
//! in the send queue.
//!
//! Rules that keep an initialisation vector from ever being used for two packets:
//! - An RTP packet is encrypted once. What is sent again goes through RTX, with an SSRC and
//!   numbers of its own.
//! - SRTCP stays str0m's, index and all. A report that has to say something else is decrypted,
//!   changed and encrypted again under the same index *instead* of str0m's ciphertext, which
//!   never leaves.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    AES_128, AES_256, Algorithm, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use stampede_core::keying::{MasterKey, SrtpKeys};
use str0m::crypto::dtls::SrtpProfile;

const GCM_TAG_BYTES: usize = 16;
const GCM_SALT_BYTES: usize = 12;
const CM_TAG_BYTES: usize = 10;
const CM_SALT_BYTES: usize = 14;
const CM_HMAC_KEY_BYTES: usize = 20;
/// E flag and index behind an SRTCP packet.
const SRTCP_INDEX_BYTES: usize = 4;
/// First header and SSRC of an RTCP packet, which are not encrypted.
const RTCP_CLEAR_BYTES: usize = 8;

/// The crypto library refused; with keys and buffers of the right lengths it never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the crypto library could not encrypt a packet")]
pub(crate) struct ProtectError;

impl From<aws_lc_rs::error::Unspecified> for ProtectError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self
    }
}

/// The sending keys of one DTLS association.
pub(crate) struct Srtp {
    rtp: Cipher,
    rtcp: Cipher,
}

/// Session keys of one label set (RFC 3711 §4.3).
enum Cipher {
    Gcm { key: LessSafeKey, salt: [u8; GCM_SALT_BYTES] },
    Cm { key: EncryptingKey, hmac: hmac::Key, salt: [u8; CM_SALT_BYTES] },
}

/// Key derivation labels (RFC 3711 §4.3.2): encryption, authentication, salt.
#[derive(Debug, Clone, Copy)]
struct Labels(u8, u8, u8);

const RTP: Labels = Labels(0, 1, 2);
const RTCP: Labels = Labels(3, 4, 5);

impl Srtp {
    /// The cipher of what our end sends; `None` for a profile this path does not know.
    pub(crate) fn new(keys: &SrtpKeys) -> Option<Self> {
        let master = keys.master(true)?;
        Some(Self {
            rtp: Cipher::new(keys.profile, master, RTP)?,
            rtcp: Cipher::new(keys.profile, master, RTCP)?,
        })
    }

    /// Bytes a protected RTP packet is longer than its plain one.
    pub(crate) fn tag_bytes(&self) -> usize {
        match self.rtp {
            Cipher::Gcm { .. } => GCM_TAG_BYTES,
            Cipher::Cm { .. } => CM_TAG_BYTES,
        }
    }

    /// Encrypts an RTP packet in place. `packet` ends with [`tag_bytes`](Self::tag_bytes) free
    /// bytes; `index` is the extended sequence number.
    pub(crate) fn protect_rtp(
        &self,
        packet: &mut [u8],
        header_bytes: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<(), ProtectError> {
        let (header, rest) = packet.split_at_mut_checked(header_bytes).ok_or(ProtectError)?;
        match &self.rtp {
            Cipher::Gcm { key, salt } => {
                let (payload, tag) = split_tag(rest, GCM_TAG_BYTES)?;
                // The 48-bit index is ROC and SEQ as RFC 7714 §8.1 puts them.
                let iv = gcm_iv(*salt, ssrc, index);
                seal(key, iv, header, payload, tag)
            }
            Cipher::Cm { key, hmac, salt } => {
                let (payload, tag) = split_tag(rest, CM_TAG_BYTES)?;
                keystream(key, cm_iv(*salt, ssrc, index), payload)?;
                let roc = ((index >> 16) as u32).to_be_bytes();
                authenticate(hmac, &[header, payload, &roc], tag);
                Ok(())
            }
        }
    }

    /// Changes an SRTCP packet that these keys encrypted: `edit` gets the plain compound packet
    /// and says whether it changed anything; nothing may change its length.
    pub(crate) fn edit_rtcp(
        &self,
        packet: &mut [u8],
        edit: impl FnOnce(&mut [u8]) -> bool,
    ) -> Result<(), ProtectError> {
        match &self.rtcp {
            Cipher::Gcm { key, salt } => edit_gcm(key, *salt, packet, edit),
            Cipher::Cm { key, hmac, salt } => edit_cm(key, hmac, *salt, packet, edit),
        }
    }
}

impl Cipher {
    fn new(profile: SrtpProfile, master: MasterKey<'_>, labels: Labels) -> Option<Self> {
        let Labels(encryption, authentication, salting) = labels;
        let mut key = [0; 32];
        let key = key.get_mut(..master.key.len())?;
        derive(master, encryption, key)?;
        if profile == SrtpProfile::AES128_CM_SHA1_80 {
            let (mut hmac_key, mut salt) = ([0; CM_HMAC_KEY_BYTES], [0; CM_SALT_BYTES]);
            derive(master, authentication, &mut hmac_key)?;
            derive(master, salting, &mut salt)?;
            let hmac = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &hmac_key);
            return Some(Self::Cm { key: counter_key(&AES_128, key)?, hmac, salt });
        }
        let mut salt = [0; GCM_SALT_BYTES];
        derive(master, salting, &mut salt)?;
        let algorithm = match profile {
            SrtpProfile::AEAD_AES_128_GCM => &AES_128_GCM,
            SrtpProfile::AEAD_AES_256_GCM => &AES_256_GCM,
            _ => return None,
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?);
        Some(Self::Gcm { key, salt })
    }
}

/// RFC 3711 §4.3.3: the key stream of AES in counter mode, from the salt with the label in it.
fn derive(master: MasterKey<'_>, label: u8, out: &mut [u8]) -> Option<()> {
    let algorithm = if master.key.len() == 32 { &AES_256 } else { &AES_128 };
    let key = counter_key(algorithm, master.key)?;
    let mut iv = [0; 16];
    iv.get_mut(..master.salt.len())?.copy_from_slice(master.salt);
    iv[7] ^= label;
    out.fill(0);
    keystream(&key, iv, out).ok()
}

fn counter_key(algorithm: &'static Algorithm, key: &[u8]) -> Option<EncryptingKey> {
    EncryptingKey::ctr(UnboundCipherKey::new(algorithm, key).ok()?).ok()
}

/// Encrypts or decrypts in counter mode, which is the same.
fn keystream(key: &EncryptingKey, iv: [u8; 16], data: &mut [u8]) -> Result<(), ProtectError> {
    key.less_safe_encrypt(data, EncryptionContext::Iv128(FixedLength::from(iv)))?;
    Ok(())
}

fn split_tag(data: &mut [u8], tag: usize) -> Result<(&mut [u8], &mut [u8]), ProtectError> {
    let at = data.len().checked_sub(tag).ok_or(ProtectError)?;
    Ok(data.split_at_mut(at))
}

/// RFC 7714 §8.1 for RTP (48-bit index) and §9.1 for RTCP (31-bit index): both are the SSRC and
/// the index, right-aligned.
fn gcm_iv(salt: [u8; GCM_SALT_BYTES], ssrc: u32, index: u64) -> [u8; GCM_SALT_BYTES] {
    let mut iv = salt;
    let ssrc = ssrc.to_be_bytes();
    let index = index.to_be_bytes();
    for (byte, ssrc) in iv[2..6].iter_mut().zip(ssrc) {
        *byte ^= ssrc;
    }
    for (byte, index) in iv[6..].iter_mut().zip(&index[2..]) {
        *byte ^= index;
    }
    iv
}

/// RFC 3711 §4.1.1: salt, SSRC and index, each shifted to its place.
fn cm_iv(salt: [u8; CM_SALT_BYTES], ssrc: u32, index: u64) -> [u8; 16] {
    let mut iv = [0; 16];
    iv[..CM_SALT_BYTES].copy_from_slice(&salt);
    for (byte, ssrc) in iv[4..8].iter_mut().zip(ssrc.to_be_bytes()) {
        *byte ^= ssrc;
    }
    for (byte, index) in iv[8..14].iter_mut().zip(&index.to_be_bytes()[2..]) {
        *byte ^= index;
    }
    iv
}

fn seal(
    key: &LessSafeKey,
    iv: [u8; GCM_SALT_BYTES],
    aad: &[u8],
    data: &mut [u8],
    tag: &mut [u8],
) -> Result<(), ProtectError> {
    let nonce = Nonce::assume_unique_for_key(iv);
    let sealed = key.seal_in_place_separate_tag(nonce, Aad::from(aad), data)?;
    tag.copy_from_slice(sealed.as_ref());
    Ok(())
}

fn authenticate(key: &hmac::Key, parts: &[&[u8]], tag: &mut [u8]) {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    let len = tag.len();
    tag.copy_from_slice(&context.sign().as_ref()[..len]);
}

fn sender_ssrc(packet: &[u8]) -> Result<u32, ProtectError> {
    let bytes = packet.get(4..RTCP_CLEAR_BYTES).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u32::from_be_bytes).ok_or(ProtectError)
}

fn read_index(bytes: &[u8]) -> Result<u64, ProtectError> {
    let word = bytes.try_into().map(u32::from_be_bytes).map_err(|_| ProtectError)?;
    Ok(u64::from(word & 0x7fff_ffff))
}

/// Layout: clear bytes, ciphertext, tag, index (RFC 7714 §9.1).
fn edit_gcm(
    key: &LessSafeKey,
    salt: [u8; GCM_SALT_BYTES],
    packet: &mut [u8],
    edit: impl FnOnce(&mut [u8]) -> bool,
) -> Result<(), ProtectError> {
    let ssrc = sender_ssrc(packet)?;
    let (body, trailer) = split_tag(packet, SRTCP_INDEX_BYTES)?;
    let iv = gcm_iv(salt, ssrc, read_index(trailer)?);
    let mut aad = [0; RTCP_CLEAR_BYTES + SRTCP_INDEX_BYTES];
    aad[..RTCP_CLEAR_BYTES].copy_from_slice(body.get(..RTCP_CLEAR_BYTES).ok_or(ProtectError)?);
    aad[RTCP_CLEAR_BYTES..].copy_from_slice(trailer);
    let original = body.to_vec();
    let nonce = Nonce::assume_unique_for_key(iv);
    key.open_in_place(nonce, Aad::from(aad), &mut body[RTCP_CLEAR_BYTES..])?;
    let (plain, tag) = split_tag(body, GCM_TAG_BYTES)?;
    if !edit(plain) {
        body.copy_from_slice(&original);
        return Ok(());
    }
    aad[..RTCP_CLEAR_BYTES].copy_from_slice(&plain[..RTCP_CLEAR_BYTES]);
    seal(key, iv, &aad, &mut plain[RTCP_CLEAR_BYTES..], tag)
}

/// Layout: clear bytes, ciphertext, index, tag (RFC 3711 §3.4).
fn edit_cm(
    key: &EncryptingKey,
    hmac: &hmac::Key,
    salt: [u8; CM_SALT_BYTES],
    packet: &mut [u8],
    edit: impl FnOnce(&mut [u8]) -> bool,
) -> Result<(), ProtectError> {
    let ssrc = sender_ssrc(packet)?;
    let (signed, tag) = split_tag(packet, CM_TAG_BYTES)?;
    let (plain, trailer) = split_tag(signed, SRTCP_INDEX_BYTES)?;
    let iv = cm_iv(salt, ssrc, read_index(trailer)?);
    keystream(key, iv, plain.get_mut(RTCP_CLEAR_BYTES..).ok_or(ProtectError)?)?;
    edit(plain);
    keystream(key, iv, &mut plain[RTCP_CLEAR_BYTES..])?;
    authenticate(hmac, &[signed], tag);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use str0m::crypto::{AeadAes128Gcm, Aes128CmSha1_80};

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> =
            text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    #[test]
    fn keys_are_derived_as_rfc_3711_b_3_does() {
        let key = hex("E1F97A0D3E018BE0D64FA32C06DE4139");
        let salt = hex("0EC675AD498AFEEBB6960B3AABE6");
        let master = MasterKey { key: &key, salt: &salt };
        let (mut cipher, mut salting, mut auth) = ([0; 16], [0; 14], [0; 20]);
        derive(master, 0, &mut cipher).unwrap();
        derive(master, 2, &mut salting).unwrap();
        derive(master, 1, &mut auth).unwrap();
        assert_eq!(cipher.to_vec(), hex("C61E7A93744F39EE10734AFE3FF7A087"));
        assert_eq!(salting.to_vec(), hex("30CBBC08863D8C85D49DB34A9AE1"));
        assert_eq!(auth.to_vec(), hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
    }

    /// RFC 7714 §16.1.1.
    #[test]
    fn an_rtp_packet_is_sealed_as_rfc_7714_does() {
        let salt: [u8; 12] = hex("517569642070726f2071756f").try_into().unwrap();
        let cipher = || Cipher::Gcm {
            key: LessSafeKey::new(
                UnboundKey::new(&AES_128_GCM, &hex("000102030405060708090a0b0c0d0e0f")).unwrap(),
            ),
            salt,
        };
        let srtp = Srtp { rtp: cipher(), rtcp: cipher() };
        let mut packet = hex("8040f17b 8041f8d3 5501a0b2");
        packet.extend(b"Gallia est omnis divisa in partes tres");
        packet.extend([0; GCM_TAG_BYTES]);
        srtp.protect_rtp(&mut packet, 12, 0x5501_a0b2, 0xf17b).unwrap();
        let sealed = hex(
            "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f \
             42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce",
        );
        assert_eq!(packet, sealed);
    }

    /// Against str0m's own ciphers and their initialisation vectors.
    #[test]
    fn packets_are_encrypted_as_str0m_does() {
        let crypto = str0m::crypto::from_feature_flags();
        let (ssrc, index, header) = (0x8123_4567, 0x3_fffe_u64, [0x90; 12]);
        let payload: Vec<u8> = (0..=200).collect();
        for (profile, bytes) in PROFILES {
            let srtp = srtp(profile, bytes);
            let mut packet = [&header[..], &payload, &vec![0; srtp.tag_bytes()]].concat();
            srtp.protect_rtp(&mut packet, header.len(), ssrc, index).unwrap();
            let mut expected = [&header[..], &payload, &[0; 32]].concat();
            let end = header.len() + payload.len();
            let (roc, seq) = ((index >> 16) as u32, index as u16);
            let material: Vec<u8> = material(bytes);
            let key_bytes = if profile == SrtpProfile::AEAD_AES_256_GCM { 32 } else { 16 };
            let salt_bytes = bytes / 2 - key_bytes;
            let salt = &material[2 * key_bytes..][..salt_bytes];
            let master = MasterKey { key: &material[..key_bytes], salt };
            let mut key = vec![0; key_bytes];
            derive(master, 0, &mut key).unwrap();
            let provider = crypto.srtp_provider;
            if profile == SrtpProfile::AES128_CM_SHA1_80 {
                let (mut salt, mut auth) = ([0; 14], [0; 20]);
                derive(master, 2, &mut salt).unwrap();
                derive(master, 1, &mut auth).unwrap();
                let iv = Aes128CmSha1_80::rtp_iv(salt, ssrc, index);
                let key = key.try_into().unwrap();
                let mut cipher = provider.aes_128_cm_sha1_80().create_cipher(key, true);
                cipher.encrypt(&iv, &payload, &mut expected[header.len()..]).unwrap();
                let sha1 =
                    |key: &[u8], parts: &[&[u8]]| crypto.sha1_hmac_provider.sha1_hmac(key, parts);
                Aes128CmSha1_80::rtp_hmac(sha1, &auth, &mut expected, index, end);
            } else {
                let mut salt = [0; 12];
                derive(master, 2, &mut salt).unwrap();
                let iv = AeadAes128Gcm::rtp_iv(salt, ssrc, roc, seq);
                let out = &mut expected[header.len()..];
                if key_bytes == 32 {
                    let key = key.try_into().unwrap();
                    let mut cipher = provider.aead_aes_256_gcm().create_cipher(key, true);
                    cipher.encrypt(&iv, &header, &payload, out).unwrap();
                } else {
                    let key = key.try_into().unwrap();
                    let mut cipher = provider.aead_aes_128_gcm().create_cipher(key, true);
                    cipher.encrypt(&iv, &header, &payload, out).unwrap();
                }
            }
            assert_eq!(packet[..], expected[..packet.len()], "{profile:?}");
        }
    }

    const PROFILES: [(SrtpProfile, usize); 3] = [
        (SrtpProfile::AES128_CM_SHA1_80, 60),
        (SrtpProfile::AEAD_AES_128_GCM, 56),
        (SrtpProfile::AEAD_AES_256_GCM, 88),
    ];

    fn material(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|i| (i * 3 + 1) as u8).collect()
    }

    fn srtp(profile: SrtpProfile, bytes: usize) -> Srtp {
        let material = material(bytes);
        Srtp::new(&SrtpKeys { profile, material, is_client: true }).unwrap()
    }

    #[test]
    fn a_report_is_changed_under_its_own_index() {
        for (profile, bytes) in PROFILES {
            let srtp = srtp(profile, bytes);
            let plain: Vec<u8> = (0..28).collect();
            let mut packet = protect_rtcp(&srtp, &plain, 5);
            let untouched = packet.clone();
            srtp.edit_rtcp(&mut packet, |compound| {
                assert_eq!(compound, plain);
                false
            })
            .unwrap();
            assert_eq!(packet, untouched, "{profile:?}");
            srtp.edit_rtcp(&mut packet, |compound| {
                compound[20] = 99;
                true
            })
            .unwrap();
            let mut changed = plain.clone();
            changed[20] = 99;
            assert_eq!(packet, protect_rtcp(&srtp, &changed, 5), "{profile:?}");
        }
    }

    fn protect_rtcp(srtp: &Srtp, plain: &[u8], index: u32) -> Vec<u8> {
        let trailer = (0x8000_0000 | index).to_be_bytes();
        let ssrc = sender_ssrc(plain).unwrap();
        let mut packet = plain.to_vec();
        match &srtp.rtcp {
            Cipher::Gcm { key, salt } => {
                let aad = [&plain[..8], &trailer].concat();
                let mut tag = [0; GCM_TAG_BYTES];
                let iv = gcm_iv(*salt, ssrc, u64::from(index));
                seal(key, iv, &aad, &mut packet[8..], &mut tag).unwrap();
                packet.extend(tag);
                packet.extend(trailer);
            }
            Cipher::Cm { key, hmac, salt } => {
                keystream(key, cm_iv(*salt, ssrc, u64::from(index)), &mut packet[8..]).unwrap();
                packet.extend(trailer);
                let mut tag = [0; CM_TAG_BYTES];
                authenticate(hmac, &[&packet], &mut tag);
                packet.extend(tag);
            }
        }
        packet
    }
}
