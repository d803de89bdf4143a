//! SRTP keys as they pass from DTLS to str0m, for a packet path of our own beside str0m's.
//!
//! str0m has no call that exports them, but its DTLS provider is ours (see [`crate::crypto`]) and
//! DTLS hands the keys out once, inside of a call into the peer's `Rtc`. They are left in a slot of
//! the calling thread: whoever drives the peer takes them when that call returns.

use std::cell::RefCell;
use std::fmt;

use str0m::crypto::dtls::SrtpProfile;

/// The keying material of one DTLS association (RFC 5764 §4.2). `Debug` never shows the keys.
#[derive(Clone, PartialEq, Eq)]
pub struct SrtpKeys {
    /// What to encrypt with.
    pub profile: SrtpProfile,
    /// Client key, server key, client salt, server salt, as long as the profile says.
    pub material: Vec<u8>,
    /// Whether our end is the DTLS client.
    pub is_client: bool,
}

impl fmt::Debug for SrtpKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SrtpKeys")
            .field("profile", &self.profile)
            .field("is_client", &self.is_client)
            .finish_non_exhaustive()
    }
}

/// Master key and salt of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MasterKey<'a> {
    /// 16 bytes, or 32 with AES-256.
    pub key: &'a [u8],
    /// 14 bytes with AES-CM, 12 with GCM.
    pub salt: &'a [u8],
}

impl SrtpKeys {
    /// The keys of what we send, or of what the other end sends; `None` for a profile that is not
    /// known here, or material of another length than its profile's.
    pub fn master(&self, sending: bool) -> Option<MasterKey<'_>> {
        let (key, salt) = match self.profile {
            SrtpProfile::AES128_CM_SHA1_80 => (16, 14),
            SrtpProfile::AEAD_AES_128_GCM => (16, 12),
            SrtpProfile::AEAD_AES_256_GCM => (32, 12),
            _ => return None,
        };
        if self.material.len() != 2 * (key + salt) {
            return None;
        }
        let (keys, salts) = self.material.split_at(2 * key);
        let (key_at, salt_at) = if self.is_client == sending { (0, 0) } else { (key, salt) };
        Some(MasterKey { key: &keys[key_at..key_at + key], salt: &salts[salt_at..salt_at + salt] })
    }
}

thread_local! {
    static EXPORTED: RefCell<Option<SrtpKeys>> = const { RefCell::new(None) };
}

/// Leaves keys for [`take_exported`]; they replace any that nobody took.
pub(crate) fn export(keys: SrtpKeys) {
    EXPORTED.with_borrow_mut(|slot| *slot = Some(keys));
}

/// The keys that the peer driven last on this thread has agreed on in that call, if it has. Only
/// peers with [`crate::crypto::exporting_provider`] leave any.
pub fn take_exported() -> Option<SrtpKeys> {
    EXPORTED.with_borrow_mut(Option::take)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_sends_with_its_own_half() {
        let material: Vec<u8> = (0..56).collect();
        let mut keys =
            SrtpKeys { profile: SrtpProfile::AEAD_AES_128_GCM, material, is_client: true };
        let client = (0..16).collect::<Vec<u8>>();
        let server_salt = (44..56).collect::<Vec<u8>>();
        assert_eq!(keys.master(true).unwrap().key, client);
        assert_eq!(keys.master(false).unwrap().salt, server_salt);
        keys.is_client = false;
        assert_eq!(keys.master(false).unwrap().key, client);
        keys.material.pop();
        assert_eq!(keys.master(true), None, "a byte is missing");
    }

    #[test]
    fn keys_are_taken_once_and_never_shown() {
        let keys = SrtpKeys {
            profile: SrtpProfile::AES128_CM_SHA1_80,
            material: vec![77; 60],
            is_client: false,
        };
        assert!(!format!("{keys:?}").contains("77"));
        export(keys.clone());
        assert_eq!(take_exported(), Some(keys));
        assert_eq!(take_exported(), None);
    }
}
