//! Who is reached at an address that two peers check from.
//!
//! A check says who sent it, and not that its sender is where it came from: whoever can write another's
//! address into a datagram sends authentic checks of its own from there. So neither to have checked from
//! an address first nor to have done so last makes it anybody's. Where a peer checks from an address at
//! which another lives it is asked there, by a check of the SFU's own that nobody can answer but who
//! receives it, and knows the peer's password (as QUIC validates a path, RFC 9000 §8.2). Who answers
//! is reached there, so that nobody else can be, and has the address at once; who does not never gets it:
//!
//! - Who lives somewhere is not displaced: what is asked there for another reaches it, and it does not
//!   know the other's name.
//! - Nobody holds an address by checking from it: who is reached there takes it with its first check.
//!
//! An agent that is ICE-lite sends no checks otherwise (RFC 8445 §2.5), and this one none where an address
//! is nobody's or its owner has left it. Clients are full agents, and answer checks. What is sent is no
//! longer than the check that asked for it, and at most five a second for a peer.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::endpoint::Endpoint;

/// How long an answer is waited for; until then the peer is asked nowhere else.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);
/// How soon it is asked again by the same name, if it checks again.
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What only who is asked can know (RFC 8489 §5, the transaction id).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ChallengeId(pub(crate) [u8; 12]);

/// What one peer is asked.
#[derive(Debug)]
pub(crate) struct Challenge {
    id: ChallengeId,
    address: Endpoint,
    /// A check that nominates the address has come from there.
    nominates: bool,
    began: Instant,
    asked: Instant,
}

impl Challenge {
    /// Of a peer that checks from an address where another lives.
    pub(crate) fn new(id: ChallengeId, address: Endpoint, nominates: bool, now: Instant) -> Self {
        Self { id, address, nominates, began: now, asked: now }
    }

    pub(crate) fn id(&self) -> ChallengeId {
        self.id
    }

    /// Whether it is still to be answered.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        now < self.began + ANSWERED_WITHIN
    }

    /// The peer has checked again, from this address. Whether it is to be asked again.
    pub(crate) fn checked(&mut self, address: Endpoint, nominates: bool, now: Instant) -> bool {
        if address != self.address {
            return false;
        }
        self.nominates |= nominates;
        let again = now >= self.asked + ASKED_AGAIN_AFTER;
        if again {
            self.asked = now;
        }
        again
    }

    /// It is answered, from this address: whether that is where it was asked, and the peer nominates it.
    pub(crate) fn answered(&self, address: Endpoint, now: Instant) -> Option<bool> {
        (address == self.address && self.is_open(now)).then_some(self.nominates)
    }
}

/// Whom the open challenges are for: one a peer at most.
#[derive(Default)]
pub(crate) struct Challenges {
    /// Keyed by the system, so that who has seen some can't tell others.
    ids: RandomState,
    made: u64,
    peers: FxHashMap<ChallengeId, usize>,
}

impl Challenges {
    /// A new one for the peer at this index.
    pub(crate) fn make(&mut self, index: usize) -> ChallengeId {
        self.made += 1;
        let mut id = [0; 12];
        let halves = [self.ids.hash_one((self.made, 0)), self.ids.hash_one((self.made, 1))];
        id[..8].copy_from_slice(&halves[0].to_be_bytes());
        id[8..].copy_from_slice(&halves[1].to_be_bytes()[..4]);
        let id = ChallengeId(id);
        self.peers.insert(id, index);
        id
    }

    /// Whom one is for.
    pub(crate) fn peer(&self, id: ChallengeId) -> Option<usize> {
        self.peers.get(&id).copied()
    }

    /// It is answered, or no longer waited for.
    pub(crate) fn forget(&mut self, id: ChallengeId) {
        self.peers.remove(&id);
    }

    /// There are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn address(port: u16) -> Endpoint {
        Endpoint::udp(SocketAddr::from(([10, 0, 0, 1], port)))
    }

    #[test]
    fn one_is_asked_again_at_intervals_and_answered_from_where_it_was_asked() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut challenges = Challenges::default();
        let id = challenges.make(7);
        assert_eq!(challenges.peer(id), Some(7));
        assert_ne!(challenges.make(7), id);
        let mut challenge = Challenge::new(id, address(1), false, start);
        assert!(!challenge.checked(address(1), false, ms(199)));
        assert!(challenge.checked(address(1), false, ms(200)));
        assert!(!challenge.checked(address(1), false, ms(399)));
        assert!(!challenge.checked(address(2), true, ms(900)), "one at a time");
        assert_eq!(challenge.answered(address(1), ms(900)), Some(false));
        challenge.checked(address(1), true, ms(950));
        assert_eq!(challenge.answered(address(2), ms(1_000)), None);
        assert_eq!(challenge.answered(address(1), ms(1_000)), Some(true));
        assert!(challenge.is_open(ms(1_999)) && !challenge.is_open(ms(2_000)));
        assert_eq!(challenge.answered(address(1), ms(2_000)), None, "late");
        challenges.forget(id);
        assert_eq!(challenges.peer(id), None);
        assert!(!challenges.is_empty());
    }
}
