//! The little that is read of connectivity checks before str0m does. Pure.

use str0m::crypto::from_feature_flags;
use str0m::ice::{StunMessage, TransId};

use super::challenge::ChallengeId;
use super::ice::Credentials;

/// Begin of every message: binding, and its class (RFC 8489 §5).
const INDICATION: [u8; 2] = [0x00, 0x11];
const SUCCESS: [u8; 2] = [0x01, 0x01];
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// Bytes of a message before its attributes.
const HEAD_BYTES: usize = 20;
/// Longest challenge: two user name fragments of at most 256 characters (RFC 8839 §5.4).
const CHALLENGE_BYTES_MAX: usize = 700;
/// Of the only candidate there is (RFC 8445 §5.1.2.1).
const PRIORITY: u32 = 0x7eff_ffff;

/// Whether this is a connectivity check or its answer (RFC 7983 §7).
pub(crate) fn is_check(datagram: &[u8]) -> bool {
    matches!(datagram, [0..=3, ..])
}

/// Whether this is a connectivity check that nominates the pair it is sent on.
pub(crate) fn nominates(datagram: &[u8]) -> bool {
    is_check(datagram) && StunMessage::parse(datagram).is_ok_and(|check| check.use_candidate())
}

/// Passes the user name fragment that a connectivity check says its receiver has.
pub(crate) fn with_receiver<T>(datagram: &[u8], find: impl FnOnce(&str) -> T) -> Option<T> {
    if !is_check(datagram) {
        return None;
    }
    let message = StunMessage::parse(datagram).ok()?;
    message.split_username().map(|(ufrag, _)| find(ufrag))
}

/// A check of this name that asks who has these credentials, from who has this user name fragment; `None`
/// if theirs are too long.
pub(crate) fn challenge(id: ChallengeId, own: &str, of: &Credentials) -> Option<Vec<u8>> {
    let username = format!("{}:{own}", of.ufrag);
    // The client is the one that nominates.
    let check =
        StunMessage::binding_request(&username, transaction(id)?, false, 0, PRIORITY, false);
    let mut bytes = vec![0; CHALLENGE_BYTES_MAX];
    if username.len() > bytes.len() / 2 {
        return None;
    }
    let len = check.to_bytes(Some(of.password.as_bytes()), &mut bytes, sha1_hmac).ok()?;
    bytes.truncate(len);
    Some(bytes)
}

/// str0m makes no transaction of bytes but by reading one.
fn transaction(id: ChallengeId) -> Option<TransId> {
    let mut head = [0; HEAD_BYTES];
    head[..2].copy_from_slice(&INDICATION);
    head[4..8].copy_from_slice(&MAGIC_COOKIE);
    head[8..].copy_from_slice(&id.0);
    StunMessage::parse(&head).ok().map(|message| message.trans_id())
}

/// Which challenge this answers, if it is one of ours.
pub(crate) fn answered(datagram: &[u8]) -> Option<ChallengeId> {
    let head = datagram.first_chunk::<HEAD_BYTES>().filter(|head| head.starts_with(&SUCCESS))?;
    head.last_chunk().copied().map(ChallengeId)
}

/// Whether an answer is of who has these credentials.
pub(crate) fn is_of(datagram: &[u8], of: &Credentials) -> bool {
    let answer = StunMessage::parse(datagram);
    answer.is_ok_and(|answer| answer.verify(of.password.as_bytes(), sha1_hmac))
}

fn sha1_hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    from_feature_flags().sha1_hmac_provider.sha1_hmac(key, parts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]

    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn only_who_has_the_password_answers_a_challenge() {
        let of = |password: &str| Credentials { ufrag: "client".into(), password: password.into() };
        let id = ChallengeId(*b"twelve bytes");
        let own = of("the password of the client");
        let asked = challenge(id, "server", &own).unwrap();
        let read = StunMessage::parse(&asked).unwrap();
        assert!(read.is_binding_request() && !read.use_candidate());
        assert_eq!(read.split_username(), Some(("client", "server")));
        assert!(read.verify(own.password.as_bytes(), sha1_hmac));
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        let answer = |password: &str| {
            let mut bytes = [0; 200];
            let reply = StunMessage::binding_reply(read.trans_id(), address);
            let len = reply.to_bytes(Some(password.as_bytes()), &mut bytes, sha1_hmac).unwrap();
            bytes[..len].to_vec()
        };
        assert_eq!(answered(&answer("x")), Some(id));
        assert!(is_of(&answer(&own.password), &own) && !is_of(&answer("x"), &own));
        assert_eq!(answered(&asked), None);
        assert!(challenge(id, &"x".repeat(400), &own).is_none());
    }
}
