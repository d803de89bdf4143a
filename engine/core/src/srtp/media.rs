//! SRTP: one RTP packet at a time.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;

use super::{
    GCM_TAG_BYTES, HMAC_TAG_BYTES, KeyError, LABEL_AUTHENTICATION, LABEL_KEY, LABEL_SALT, Master,
    Suite,
};

/// Session keys of one sender's RTP.
enum Cipher {
    /// RFC 7714.
    Gcm { key: LessSafeKey, salt: [u8; 12] },
    /// RFC 3711.
    CtrHmac(Box<CtrHmac>),
}

/// AES in counter mode with HMAC-SHA1-80.
struct CtrHmac {
    cipher: EncryptingKey,
    salt: [u8; 14],
    authentication: hmac::Key,
}

impl Cipher {
    fn new(master: &Master<'_>) -> Result<Self, KeyError> {
        let mut key = [0; 32];
        let key = &mut key[..master.suite.key_bytes()];
        master.derive(LABEL_KEY, key)?;
        if master.suite == Suite::CtrHmac {
            return Self::ctr_hmac(master, key);
        }
        Self::gcm(key, master.derive_salt(LABEL_SALT)?)
    }

    fn gcm(key: &[u8], salt: [u8; 12]) -> Result<Self, KeyError> {
        let algorithm = if key.len() == 32 { &AES_256_GCM } else { &AES_128_GCM };
        Ok(Self::Gcm { key: LessSafeKey::new(UnboundKey::new(algorithm, key)?), salt })
    }

    fn ctr_hmac(master: &Master<'_>, key: &[u8]) -> Result<Self, KeyError> {
        let mut authentication = [0; 20];
        master.derive(LABEL_AUTHENTICATION, &mut authentication)?;
        Ok(Self::CtrHmac(Box::new(CtrHmac {
            cipher: EncryptingKey::ctr(UnboundCipherKey::new(&AES_128, key)?)?,
            salt: master.derive_salt(LABEL_SALT)?,
            authentication: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &authentication),
        })))
    }

    /// See [`RtpOpener::open`].
    fn open<'a>(
        &self,
        datagram: &[u8],
        header_bytes: usize,
        ssrc: u32,
        index: u64,
        out: &'a mut Vec<u8>,
    ) -> Option<&'a [u8]> {
        let (header, sealed) = datagram.split_at_checked(header_bytes)?;
        match self {
            Self::Gcm { key, salt } => {
                let bytes = sealed.len().checked_sub(GCM_TAG_BYTES)?;
                let (sealed, tag) = sealed.split_at(bytes);
                let out = room(out, bytes);
                let nonce = Nonce::assume_unique_for_key(gcm_iv(*salt, ssrc, index));
                key.open_separate_gather(nonce, Aad::from(header), sealed, tag, out).ok()?;
                Some(out)
            }
            Self::CtrHmac(keys) => {
                let CtrHmac { cipher, salt, authentication } = &**keys;
                let bytes = sealed.len().checked_sub(HMAC_TAG_BYTES)?;
                let (authentic, tag) = datagram.split_at(header_bytes + bytes);
                let mut context = hmac::Context::with_key(authentication);
                context.update(authentic);
                context.update(&((index >> 16) as u32).to_be_bytes());
                same(&context.sign().as_ref()[..HMAC_TAG_BYTES], tag).then_some(())?;
                let out = room(out, bytes);
                out.copy_from_slice(&sealed[..bytes]);
                let iv = FixedLength::from(ctr_iv(*salt, ssrc, index));
                cipher.less_safe_encrypt(out, EncryptionContext::Iv128(iv)).ok()?;
                Some(out)
            }
        }
    }

    /// See [`RtpSealer::seal`].
    fn seal(&self, packet: &mut [u8], header_bytes: usize, ssrc: u32, index: u64) -> Option<()> {
        let (header, rest) = packet.split_at_mut_checked(header_bytes)?;
        match self {
            Self::Gcm { key, salt } => {
                let (payload, tag) = rest.split_last_chunk_mut::<GCM_TAG_BYTES>()?;
                let nonce = Nonce::assume_unique_for_key(gcm_iv(*salt, ssrc, index));
                let sealed = key.seal_in_place_separate_tag(nonce, Aad::from(header), payload);
                tag.copy_from_slice(sealed.ok()?.as_ref());
            }
            Self::CtrHmac(keys) => {
                let CtrHmac { cipher, salt, authentication } = &**keys;
                let (payload, tag) = rest.split_last_chunk_mut::<HMAC_TAG_BYTES>()?;
                let iv = FixedLength::from(ctr_iv(*salt, ssrc, index));
                cipher.less_safe_encrypt(payload, EncryptionContext::Iv128(iv)).ok()?;
                let mut context = hmac::Context::with_key(authentication);
                context.update(header);
                context.update(payload);
                context.update(&((index >> 16) as u32).to_be_bytes());
                tag.copy_from_slice(&context.sign().as_ref()[..HMAC_TAG_BYTES]);
            }
        }
        Some(())
    }
}

/// Opens the RTP packets of one sender.
pub struct RtpOpener {
    cipher: Cipher,
}

impl RtpOpener {
    pub(super) fn new(master: &Master<'_>) -> Result<Self, KeyError> {
        Ok(Self { cipher: Cipher::new(master)? })
    }

    /// Checks and decrypts a datagram into the beginning of `out`, which grows if it must. Its header is
    /// `header_bytes` long, and `index` its extended sequence number. Returns the payload, padding
    /// included; `None` if it is too short or not authentic.
    pub fn open<'a>(
        &self,
        datagram: &[u8],
        header_bytes: usize,
        ssrc: u32,
        index: u64,
        out: &'a mut Vec<u8>,
    ) -> Option<&'a [u8]> {
        self.cipher.open(datagram, header_bytes, ssrc, index, out)
    }
}

/// Seals the RTP packets that we send; the only thing that does under its keys and SSRCs.
pub struct RtpSealer {
    cipher: Cipher,
}

impl RtpSealer {
    pub(super) fn new(master: &Master<'_>) -> Result<Self, KeyError> {
        Ok(Self { cipher: Cipher::new(master)? })
    }

    /// Bytes a sealed packet is longer than it was in clear.
    #[must_use]
    pub fn tag_bytes(&self) -> usize {
        match self.cipher {
            Cipher::Gcm { .. } => GCM_TAG_BYTES,
            Cipher::CtrHmac(_) => HMAC_TAG_BYTES,
        }
    }

    /// Seals a packet in place. It ends with [`tag_bytes`](Self::tag_bytes) free bytes, its header
    /// (extensions included) is `header_bytes` long, and `index` is its extended sequence number:
    /// no two different packets of an SSRC may have the same. `None` if it is too short.
    #[must_use]
    pub fn seal(
        &self,
        packet: &mut [u8],
        header_bytes: usize,
        ssrc: u32,
        index: u64,
    ) -> Option<()> {
        self.cipher.seal(packet, header_bytes, ssrc, index)
    }

    /// The same of a packet whose payload lies elsewhere, in a buffer that many share: the header is
    /// written, and between it and the free bytes there is room for the payload.
    #[must_use]
    pub fn seal_from(
        &self,
        packet: &mut [u8],
        header_bytes: usize,
        payload: &[u8],
        ssrc: u32,
        index: u64,
    ) -> Option<()> {
        let (header, rest) = packet.split_at_mut_checked(header_bytes)?;
        (rest.len() == payload.len() + self.tag_bytes()).then_some(())?;
        let Cipher::Gcm { key, salt } = &self.cipher else {
            rest[..payload.len()].copy_from_slice(payload);
            return self.seal(packet, header_bytes, ssrc, index);
        };
        let (sealed, tag) = rest.split_last_chunk_mut::<GCM_TAG_BYTES>()?;
        let nonce = Nonce::assume_unique_for_key(gcm_iv(*salt, ssrc, index));
        key.seal_out_of_place_scatter(nonce, Aad::from(header), payload, sealed, &[], tag).ok()
    }
}

/// The first `bytes` of a buffer that only ever grows.
fn room(buffer: &mut Vec<u8>, bytes: usize) -> &mut [u8] {
    if buffer.len() < bytes {
        buffer.resize(bytes, 0);
    }
    &mut buffer[..bytes]
}

/// Compares tags in constant time.
pub(super) fn same(computed: &[u8], tag: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(computed, tag).is_ok()
}

/// RFC 7714 §8.1.
fn gcm_iv(salt: [u8; 12], ssrc: u32, index: u64) -> [u8; 12] {
    let value = u128::from(ssrc) << 48 | u128::from(index);
    xor_low(salt, value)
}

/// RFC 3711 §4.1.1; the low 16 bits count blocks.
pub(super) fn ctr_iv(salt: [u8; 14], ssrc: u32, index: u64) -> [u8; 16] {
    let salted = xor_low(salt, u128::from(ssrc) << 48 | u128::from(index));
    let mut iv = [0; 16];
    iv[..14].copy_from_slice(&salted);
    iv
}

/// `bytes` XOR the big-endian `value`, right-aligned.
pub(super) fn xor_low<const N: usize>(mut bytes: [u8; N], value: u128) -> [u8; N] {
    let value = value.to_be_bytes();
    for (byte, other) in bytes.iter_mut().zip(&value[16 - N..]) {
        *byte ^= other;
    }
    bytes
}

/// The SRTP index of a sequence number, guessed from the highest authentic one (RFC 3711 §3.3.1).
/// A sender begins with a rollover counter of 0.
pub(crate) fn extend_index(sequence: u16, highest: Option<u64>) -> u64 {
    let Some(highest) = highest else { return u64::from(sequence) };
    let ahead = u64::from(sequence.wrapping_sub(highest as u16));
    if ahead < 0x8000 || highest + ahead < 0x1_0000 {
        highest + ahead
    } else {
        highest + ahead - 0x1_0000
    }
}

/// Seals a clear RTP packet as the other side would; for tests.
#[cfg(test)]
pub(crate) fn seal_rtp(
    keying: &super::Keying,
    clear: &[u8],
    header_bytes: usize,
    index: u64,
) -> Vec<u8> {
    let other = super::Keying {
        profile: keying.profile,
        material: keying.material.clone(),
        is_client: !keying.is_client,
    };
    let sealer = other.rtp_sealer().unwrap();
    let ssrc = u32::from_be_bytes(clear[8..12].try_into().unwrap());
    let mut out = clear.to_vec();
    out.resize(clear.len() + sealer.tag_bytes(), 0);
    sealer.seal(&mut out, header_bytes, ssrc, index).unwrap();
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::hex;
    use super::super::{Keying, SrtpProfile};
    use super::*;
    use str0m::crypto::{AeadAes128Gcm, Aes128CmSha1_80};

    #[test]
    fn rfc_7714_16_1_srtp() {
        let key = hex("000102030405060708090a0b0c0d0e0f");
        let salt: [u8; 12] = hex("517569642070726f2071756f").try_into().unwrap();
        let header = hex("8040f17b8041f8d35501a0b2");
        let body = "f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833\
                    899d7f27beb16a9152cf765ee4390cce";
        let mut datagram = [header, hex(body)].concat();
        let (ssrc, index) = (0x5501_a0b2, 0xf17b);
        assert_eq!(gcm_iv(salt, ssrc, index)[..], hex("51753c6580c2726f20718414"));
        let sealer = RtpSealer { cipher: Cipher::gcm(&key, salt).unwrap() };
        let mut sealed = datagram[..12].to_vec();
        sealed.extend(b"Gallia est omnis divisa in partes tres");
        sealed.extend([0; GCM_TAG_BYTES]);
        sealer.seal(&mut sealed, 12, ssrc, index).unwrap();
        assert_eq!(sealed, datagram);
        let opener = RtpOpener { cipher: Cipher::gcm(&key, salt).unwrap() };
        let mut out = Vec::new();
        let opened = opener.open(&datagram, 12, ssrc, index, &mut out).unwrap();
        assert_eq!(opened, b"Gallia est omnis divisa in partes tres");
        assert_eq!(opener.open(&datagram, 12, ssrc, index + 0x1_0000, &mut out), None);
        datagram[1] ^= 0x80;
        assert_eq!(
            opener.open(&datagram, 12, ssrc, index, &mut out),
            None,
            "the marker is covered"
        );
    }

    #[test]
    fn rfc_3711_b2_key_stream() {
        let cipher = UnboundCipherKey::new(&AES_128, &hex("2B7E151628AED2A6ABF7158809CF4F3C"));
        let cipher = EncryptingKey::ctr(cipher.unwrap()).unwrap();
        let salt: [u8; 14] = hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD").try_into().unwrap();
        let mut stream = [0; 48];
        let iv = FixedLength::from(ctr_iv(salt, 0, 0));
        cipher.less_safe_encrypt(&mut stream, EncryptionContext::Iv128(iv)).unwrap();
        let expected = "E03EAD0935C95E80E166B16DD92B4EB4D23513162B02D0F72A43A2FE4A5F97AB\
                        41E95B3BB0A2E8DD477901E4FCA894C0";
        assert_eq!(stream[..], hex(expected));
    }

    #[test]
    fn all_profiles_open_what_was_sealed_and_nothing_else() {
        use SrtpProfile as P;
        for profile in [P::AEAD_AES_128_GCM, P::AEAD_AES_256_GCM, P::AES128_CM_SHA1_80] {
            let material: Vec<u8> = (0..88).collect();
            let keying = Keying { profile, material, is_client: true };
            let opener = keying.rtp_opener().unwrap();
            let clear: Vec<u8> = (0x80..).take(12).chain(0..=255).collect();
            let index = 3 << 16 | 0x8283;
            let sealed = seal_rtp(&keying, &clear, 12, index);
            let ssrc = u32::from_be_bytes(clear[8..12].try_into().unwrap());
            let mut out = vec![9; 1_500];
            assert_eq!(opener.open(&sealed, 12, ssrc, index, &mut out), Some(&clear[12..]));
            assert_eq!(opener.open(&sealed, 12, ssrc, index ^ 1 << 16, &mut out), None);
            for at in [0, 5, 12, 100, sealed.len() - 1] {
                let mut bad = sealed.clone();
                bad[at] ^= 4;
                assert_eq!(opener.open(&bad, 12, ssrc, index, &mut out), None, "{profile:?} {at}");
            }
            for bytes in 0..30 {
                assert_eq!(opener.open(&sealed[..bytes], 12, ssrc, index, &mut out), None);
            }
        }
    }

    /// Against str0m's own ciphers and their initialisation vectors.
    #[test]
    fn packets_are_sealed_as_str0m_does() {
        let crypto = str0m::crypto::from_feature_flags();
        let provider = crypto.srtp_provider;
        let (ssrc, index, header) = (0x8123_4567, 0x3_fffe_u64, [0x90; 12]);
        let payload: Vec<u8> = (0..=200).collect();
        use SrtpProfile as P;
        for profile in [P::AEAD_AES_128_GCM, P::AEAD_AES_256_GCM, P::AES128_CM_SHA1_80] {
            let material = (0..88).map(|i| i * 2 + 1).collect();
            let keying = Keying { profile, material, is_client: true };
            let master = keying.master(true).unwrap();
            let sealer = keying.rtp_sealer().unwrap();
            let mut packet = [&header[..], &payload, &vec![0; sealer.tag_bytes()]].concat();
            sealer.seal(&mut packet, header.len(), ssrc, index).unwrap();
            let mut apart = vec![9; packet.len()];
            apart[..header.len()].copy_from_slice(&header);
            sealer.seal_from(&mut apart, header.len(), &payload, ssrc, index).unwrap();
            assert_eq!(apart, packet, "{profile:?}");
            let short = &mut apart[..header.len() + payload.len()];
            assert_eq!(sealer.seal_from(short, header.len(), &payload, ssrc, index), None);
            let mut expected = [&header[..], &payload, &[0; 32]].concat();
            let mut key = [0; 32];
            master.derive(LABEL_KEY, &mut key[..master.suite.key_bytes()]).unwrap();
            if profile == P::AES128_CM_SHA1_80 {
                let salt = master.derive_salt(LABEL_SALT).unwrap();
                let auth: [u8; 20] = master.derive_salt(LABEL_AUTHENTICATION).unwrap();
                let iv = Aes128CmSha1_80::rtp_iv(salt, ssrc, index);
                let key = *key.first_chunk().unwrap();
                let mut cipher = provider.aes_128_cm_sha1_80().create_cipher(key, true);
                cipher.encrypt(&iv, &payload, &mut expected[header.len()..]).unwrap();
                let sha1 =
                    |key: &[u8], parts: &[&[u8]]| crypto.sha1_hmac_provider.sha1_hmac(key, parts);
                let end = header.len() + payload.len();
                Aes128CmSha1_80::rtp_hmac(sha1, &auth, &mut expected, index, end);
            } else {
                let salt = master.derive_salt(LABEL_SALT).unwrap();
                let iv = AeadAes128Gcm::rtp_iv(salt, ssrc, (index >> 16) as u32, index as u16);
                let out = &mut expected[header.len()..];
                if profile == P::AEAD_AES_256_GCM {
                    let mut cipher = provider.aead_aes_256_gcm().create_cipher(key, true);
                    cipher.encrypt(&iv, &header, &payload, out).unwrap();
                } else {
                    let key = *key.first_chunk().unwrap();
                    let mut cipher = provider.aead_aes_128_gcm().create_cipher(key, true);
                    cipher.encrypt(&iv, &header, &payload, out).unwrap();
                }
            }
            assert_eq!(packet[..], expected[..packet.len()], "{profile:?}");
        }
    }

    #[test]
    fn indices_follow_the_roll_over_counter() {
        assert_eq!(extend_index(65_535, None), 65_535);
        assert_eq!(extend_index(0, Some(65_535)), 65_536);
        assert_eq!(extend_index(65_535, Some(65_536)), 65_535);
        assert_eq!(extend_index(65_535, Some(3)), 65_535, "there is no counter below 0");
        assert_eq!(extend_index(7, Some(5 << 16 | 2)), 5 << 16 | 7);
        assert_eq!(extend_index(0x8001, Some(5 << 16 | 2)), 5 << 16 | 0x8001);
        assert_eq!(extend_index(0x8002, Some(5 << 16 | 2)), 4 << 16 | 0x8002);
    }
}
