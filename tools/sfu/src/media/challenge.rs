//! Who is reached at an address.
//!
//! A check says who sent it, and not that its sender is where it came from: whoever can write another's
//! address into a datagram sends authentic checks of its own from there. So neither to have checked from
//! an address first nor to have done so last makes it anybody's. Who checks from an address that is not its
//! own is asked there, by a check of the SFU's that nobody can answer but who receives it, and knows
//! the peer's password (as QUIC validates a path, RFC 9000 §8.2). Who answers is reached there, so that
//! nobody else can be, and has the address at once; who does not never gets it:
//!
//! - Who lives somewhere is not displaced: what is asked there for another reaches it, and it does not
//!   know the other's name.
//! - Nobody holds an address by checking from it: who is reached there takes it with its first check.
//! - Nobody has its handshake or its media sent to another, who would take the handshake for its own.
//!
//! A peer's check is answered meanwhile if it is from nobody's address and nominates nothing, so a client
//! that is where it says waits for nothing: the question goes before the answer, and comes back before the
//! client goes on. Whatever else is for the peer there waits until it has answered; each of its checks
//! asks it again.
//!
//! An agent that is ICE-lite sends no checks otherwise (RFC 8445 §2.5). Clients are full agents, and answer
//! them. What is sent is no longer than the check that asked for it, and at most twenty a second for
//! a peer at an address.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::endpoint::Endpoint;

/// How long an answer is waited for: clients that join by the thousand may be as slow. What is asked after
/// that has another name.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// How soon a peer is asked again by the same name, if it checks again.
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Addresses that a peer is asked at; at a further one it is asked in place of the one of longest ago, rather
/// than of one that it nominates.
const ASKED_MAX: usize = 8;
/// Datagrams that wait for a peer to answer at an address; the oldest is dropped for a further one. They are
/// answers to checks, and the first flight of a handshake.
const HELD_MAX: usize = 4;

/// What only who is asked can know (RFC 8489 §5, the transaction id).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ChallengeId(pub(crate) [u8; 12]);

/// What one peer is asked at one address.
#[derive(Debug)]
pub(crate) struct Challenge {
    id: ChallengeId,
    address: Endpoint,
    /// A check that nominates the address has come from there.
    pub(crate) nominates: bool,
    /// When it was asked first.
    pub(crate) began: Instant,
    asked_at: Instant,
    /// What goes there once it has answered this, at most [`HELD_MAX`].
    pub(crate) held: VecDeque<Vec<u8>>,
}

impl Challenge {
    fn new(id: ChallengeId, address: Endpoint, nominates: bool, now: Instant) -> Self {
        Self { id, address, nominates, began: now, asked_at: now, held: VecDeque::new() }
    }

    /// Whether it is still to be answered.
    fn is_open(&self, now: Instant) -> bool {
        now < self.began + ANSWERED_WITHIN
    }

    /// The peer has checked again. Whether it is to be asked again.
    fn checked(&mut self, nominates: bool, now: Instant) -> bool {
        // What nominates follows at once, and everything waits for it.
        let first = nominates && !self.nominates;
        self.nominates |= nominates;
        let again = first || now >= self.asked_at + ASKED_AGAIN_AFTER;
        if again {
            self.asked_at = now;
        }
        again
    }
}

/// What one peer is asked, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Questions(Vec<Challenge>);

impl Questions {
    /// It has checked from an address where it is not known to be reached. By which name it is to be
    /// asked there now, if it is.
    pub(crate) fn ask(
        &mut self,
        address: Endpoint,
        nominates: bool,
        now: Instant,
        (challenges, index): (&mut Challenges, usize),
    ) -> Option<ChallengeId> {
        for over in self.0.extract_if(.., |asked| !asked.is_open(now)) {
            challenges.forget(over.id);
        }
        if let Some(asked) = self.0.iter_mut().find(|asked| asked.address == address) {
            return asked.checked(nominates, now).then_some(asked.id);
        }
        if self.0.len() >= ASKED_MAX {
            let oldest = self.0.iter().position(|asked| !asked.nominates).unwrap_or(0);
            challenges.forget(self.0.remove(oldest).id);
        }
        let id = challenges.make(index, address);
        self.0.push(Challenge::new(id, address, nominates, now));
        Some(id)
    }

    /// This is to go there once it has answered what it is asked there. False if it is asked nothing.
    pub(crate) fn hold(&mut self, address: Endpoint, datagram: Vec<u8>) -> bool {
        let Some(asked) = self.0.iter_mut().find(|asked| asked.address == address) else {
            return false;
        };
        if asked.held.len() >= HELD_MAX {
            asked.held.pop_front();
        }
        asked.held.push_back(datagram);
        true
    }

    /// It has answered, from this address. What it was asked there, if it was.
    pub(crate) fn answered(
        &mut self,
        id: ChallengeId,
        address: Endpoint,
        now: Instant,
    ) -> Option<Challenge> {
        let answered =
            |asked: &Challenge| asked.id == id && asked.address == address && asked.is_open(now);
        let at = self.0.iter().position(answered)?;
        Some(self.0.remove(at))
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = ChallengeId> {
        self.0.iter().map(|asked| asked.id)
    }
}

/// Whom the open challenges are for.
#[derive(Default)]
pub(crate) struct Challenges {
    /// Keyed by the system, so that who has seen some can't tell others.
    ids: RandomState,
    made: u64,
    open: FxHashMap<ChallengeId, (usize, Endpoint)>,
    /// The last that was made for each address.
    last: FxHashMap<Endpoint, ChallengeId>,
}

impl Challenges {
    /// A new one for the peer at this index, of this address.
    pub(crate) fn make(&mut self, index: usize, address: Endpoint) -> ChallengeId {
        self.made += 1;
        let mut id = [0; 12];
        let halves = [self.ids.hash_one((self.made, 0)), self.ids.hash_one((self.made, 1))];
        id[..8].copy_from_slice(&halves[0].to_be_bytes());
        id[8..].copy_from_slice(&halves[1].to_be_bytes()[..4]);
        let id = ChallengeId(id);
        self.open.insert(id, (index, address));
        self.last.insert(address, id);
        id
    }

    /// Whom one is for.
    pub(crate) fn peer(&self, id: ChallengeId) -> Option<usize> {
        self.open.get(&id).map(|(index, _)| *index)
    }

    /// Whose what comes from there may be: its answer may still be under way, or wait with others' joins.
    pub(crate) fn asked_at(&self, address: Endpoint) -> Option<usize> {
        self.last.get(&address).and_then(|id| self.peer(*id))
    }

    /// It is answered, or no longer waited for.
    pub(crate) fn forget(&mut self, id: ChallengeId) {
        let Some((_, address)) = self.open.remove(&id) else { return };
        if self.last.get(&address) == Some(&id) {
            self.last.remove(&address);
        }
    }

    /// There are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]

    use std::net::SocketAddr;

    use super::*;

    fn address(port: u16) -> Endpoint {
        Endpoint::udp(SocketAddr::from(([10, 0, 0, 1], port)))
    }

    #[test]
    fn one_is_asked_again_at_intervals_and_answered_from_where_it_was_asked() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let (mut challenges, mut asked) = (Challenges::default(), Questions::default());
        let mut check =
            |port, nominates, at| asked.ask(address(port), nominates, ms(at), (&mut challenges, 7));
        let first = check(1, false, 0).unwrap();
        assert_eq!(check(1, false, 49), None);
        assert_eq!(check(1, false, 50), Some(first));
        assert_eq!(check(1, true, 51), Some(first), "it nominates now");
        assert_eq!(check(1, true, 100), None);
        let other = check(2, false, 99).unwrap();
        assert_ne!(first, other);
        assert_eq!([first, other].map(|id| challenges.peer(id)), [Some(7); 2]);
        let another = challenges.make(8, address(1));
        assert_eq!(
            [1, 2, 3].map(|port| challenges.asked_at(address(port))),
            [Some(8), Some(7), None]
        );
        challenges.forget(first);
        assert_eq!(challenges.asked_at(address(1)), Some(8));
        challenges.forget(another);
        assert_eq!(challenges.asked_at(address(1)), None);
        for n in 0..=HELD_MAX as u8 {
            assert!(asked.hold(address(2), vec![n]));
        }
        assert!(!asked.hold(address(3), vec![0]), "it is asked nothing there");
        assert!(asked.answered(first, address(2), ms(100)).is_none(), "asked elsewhere");
        let answered = asked.answered(first, address(1), ms(100)).unwrap();
        assert!(answered.nominates && answered.held.is_empty() && answered.began == start);
        assert!(asked.answered(first, address(1), ms(100)).is_none(), "once");
        let answered = asked.answered(other, address(2), ms(100)).unwrap();
        assert!(!answered.nominates);
        assert_eq!(answered.held, [[1], [2], [3], [4]], "the last of them");
    }

    #[test]
    fn an_answer_that_is_late_is_none_and_the_next_question_another() {
        let start = Instant::now();
        let (mut challenges, mut asked) = (Challenges::default(), Questions::default());
        let late = start + ANSWERED_WITHIN;
        let id = asked.ask(address(1), true, start, (&mut challenges, 7)).unwrap();
        assert!(asked.answered(id, address(1), late).is_none());
        let next = asked.ask(address(1), false, late, (&mut challenges, 7)).unwrap();
        assert_ne!(id, next);
        assert_eq!((challenges.peer(id), challenges.peer(next)), (None, Some(7)));
        assert!(!asked.answered(next, address(1), late).unwrap().nominates);
    }

    #[test]
    fn a_peer_is_asked_at_so_many_addresses() {
        let start = Instant::now();
        let (mut challenges, mut asked) = (Challenges::default(), Questions::default());
        let ids: Vec<ChallengeId> = (0..=ASKED_MAX as u16)
            .map(|port| asked.ask(address(port), true, start, (&mut challenges, 7)).unwrap())
            .collect();
        assert_eq!(asked.ids().collect::<Vec<_>>(), ids[1..]);
        assert_eq!(challenges.peer(ids[0]), None);
        ids.iter().for_each(|id| challenges.forget(*id));
        assert!(challenges.is_empty());
    }
}
