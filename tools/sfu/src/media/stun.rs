//! The little that is read of connectivity checks before str0m does. Pure.

use str0m::ice::StunMessage;

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
