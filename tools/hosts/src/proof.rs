//! Both sides prove to each other that they know the token, and that nobody sits between them.
//!
//! Each proof is an HMAC-SHA-256 (RFC 2104) under the token, over both sides' nonces and the
//! SHA-256 of the certificate that the TLS connection was made with (as `tls-server-end-point` of
//! RFC 5929): the coordinator's certificate is its own, made for the run, and what vouches for it
//! is the proof. Who answers in the middle has another certificate, and can make no proof that
//! covers it.

use std::fmt;

use aws_lc_rs::{constant_time, digest, hmac};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Fewest characters of a token: whoever answers a worker in the middle gets a proof by which it
/// may try tokens at leisure.
pub const TOKEN_CHARS_MIN: usize = 20;
/// Most characters of a token.
pub const TOKEN_CHARS_MAX: usize = 1_024;
/// What the two proofs begin with, so that neither can be taken for the other.
const LABELS: [&[u8; 24]; 2] = [b"stampede hosts 1 coordin", b"stampede hosts 1 worker."];

/// 32 bytes as hexadecimal text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hex32(pub [u8; 32]);

/// Random, never used twice.
pub type Nonce = Hex32;
/// What [`prove`] makes.
pub type Proof = Hex32;

impl Serialize for Hex32 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Hex32 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(D::Error::custom("not 64 hexadecimal digits"));
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16)
                .map_err(|_| D::Error::custom("not 64 hexadecimal digits"))?;
        }
        Ok(Self(bytes))
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    /// It is not set.
    #[error(
        "STAMPEDE_TOKEN is not set: coordinator and workers know each other by it; set it to the same \
         random text on all hosts, such as `openssl rand -hex 32` makes"
    )]
    Missing,
    /// Too short to be random.
    #[error(
        "STAMPEDE_TOKEN has {0} characters, and {TOKEN_CHARS_MIN} are the fewest: take what `openssl \
         rand -hex 32` makes"
    )]
    Short(usize),
    /// Longer than any token.
    #[error("STAMPEDE_TOKEN has {0} characters, and {TOKEN_CHARS_MAX} are the most")]
    Long(usize),
}

/// The token that all hosts of a run share.
#[derive(Clone)]
pub struct Token(hmac::Key);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Of this text, without the white space around it.
    ///
    /// # Errors
    /// It is not there, too short or too long; never with the text itself.
    pub fn new(text: Option<&str>) -> Result<Self, TokenError> {
        let text = text.unwrap_or_default().trim();
        match text.chars().count() {
            0 => Err(TokenError::Missing),
            chars if chars < TOKEN_CHARS_MIN => Err(TokenError::Short(chars)),
            chars if chars > TOKEN_CHARS_MAX => Err(TokenError::Long(chars)),
            _ => Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()))),
        }
    }
}

/// Whose proof it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Whoever listens.
    Coordinator,
    /// Whoever dials.
    Worker,
}

/// What both sides know of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The worker's nonce.
    pub worker: Nonce,
    /// The coordinator's nonce.
    pub coordinator: Nonce,
    /// SHA-256 of the certificate, DER.
    pub certificate: [u8; 32],
}

/// SHA-256 of a certificate.
pub fn fingerprint(certificate_der: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, certificate_der).as_ref());
    bytes
}

/// Proves that `side` knows the token, on this connection.
pub fn prove(token: &Token, side: Side, binding: &Binding) -> Proof {
    let mut context = hmac::Context::with_key(&token.0);
    context.update(LABELS[usize::from(side == Side::Worker)]);
    for part in [&binding.worker.0, &binding.coordinator.0, &binding.certificate] {
        context.update(part);
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.sign().as_ref());
    Hex32(bytes)
}

/// True if the proof is `side`'s, on this connection. It takes the same time whatever is wrong.
pub fn is_proven(token: &Token, side: Side, binding: &Binding, proof: &Proof) -> bool {
    let own = prove(token, side, binding);
    constant_time::verify_slices_are_equal(&own.0, &proof.0).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "0123456789abcdef0123456789abcdef";

    fn binding() -> Binding {
        Binding {
            worker: Hex32([1; 32]),
            coordinator: Hex32([2; 32]),
            certificate: fingerprint(b"certificate"),
        }
    }

    #[test]
    fn only_who_knows_the_token_proves_it_on_this_connection_for_this_side() {
        let token = Token::new(Some(TEXT)).unwrap();
        let proof = prove(&token, Side::Worker, &binding());
        assert!(is_proven(&token, Side::Worker, &binding(), &proof));
        assert!(!is_proven(&token, Side::Coordinator, &binding(), &proof), "sent back");
        let other = Token::new(Some(&TEXT.replace('0', "1"))).unwrap();
        assert!(!is_proven(&other, Side::Worker, &binding(), &proof));
        let elsewhere = [
            Binding { worker: Hex32([3; 32]), ..binding() },
            Binding { coordinator: Hex32([3; 32]), ..binding() },
            // Somebody in the middle has a certificate of its own.
            Binding { certificate: fingerprint(b"another"), ..binding() },
            Binding { worker: binding().coordinator, coordinator: binding().worker, ..binding() },
        ];
        for elsewhere in elsewhere {
            assert!(!is_proven(&token, Side::Worker, &elsewhere, &proof), "{elsewhere:?}");
        }
    }

    #[test]
    fn a_token_that_is_none_is_refused_without_being_told() {
        assert_eq!(Token::new(None).unwrap_err(), TokenError::Missing);
        assert_eq!(Token::new(Some("  \n")).unwrap_err(), TokenError::Missing);
        let error = Token::new(Some("hunter2")).unwrap_err();
        assert_eq!(error, TokenError::Short(7));
        assert!(!error.to_string().contains("hunter2"));
        assert!(matches!(Token::new(Some(&"x".repeat(2_000))), Err(TokenError::Long(2_000))));
        let token = Token::new(Some(TEXT)).unwrap();
        assert_eq!(format!("{token:?}"), "Token");
        // White space around it, as of a file's last line, is not of it.
        let same = Token::new(Some(&format!("{TEXT}\n"))).unwrap();
        let proof = prove(&token, Side::Worker, &binding());
        assert!(is_proven(&same, Side::Worker, &binding(), &proof));
    }

    #[test]
    fn nonces_are_hexadecimal_text() {
        let text = serde_json::to_string(&Hex32([0xa5; 32])).unwrap();
        assert_eq!(text, format!("\"{}\"", "a5".repeat(32)));
        assert_eq!(serde_json::from_str::<Hex32>(&text).unwrap(), Hex32([0xa5; 32]));
        for wrong in ["\"a5\"".to_owned(), format!("\"{}\"", "é".repeat(32)), "1".to_owned()] {
            assert!(serde_json::from_str::<Hex32>(&wrong).is_err(), "{wrong}");
        }
    }
}
