//! Where a peer's datagrams come from and where what it gets is sent.
//!
//! Anything but a connectivity check is somebody's by its source address alone, so who has an
//! address decides who is heard. Only an authentic check claims one, and anybody can send an
//! authentic check of its own from an address that isn't its own. So an address stays with a peer
//! that lives there, and is free for the next one that checks from it once that peer has moved,
//! fallen silent or ended: NATs give ports to others. One that lives there is not displaced by checks,
//! but by who proves to be reached there ([`super::challenge`]).

use std::time::{Duration, Instant};

use rustc_hash::FxHashSet;

use super::challenge::{Challenge, ChallengeId};
use super::endpoint::Endpoint;

/// Addresses that one peer may have; beyond that the one heard from longest ago is forgotten.
pub(crate) const PEER_ADDRESSES_MAX: usize = 8;

/// Addresses that one peer may check from between two restarts of ICE: str0m keeps a candidate of each, and
/// goes through them for each check. Checks from further ones are refused.
const CHECKED_ADDRESSES_MAX: usize = 256;

/// How long after its last check from an address a peer still lives there: as long as str0m keeps
/// the pair of an ICE-lite agent.
const ALIVE: Duration = Duration::from_secs(15);

/// Whoever has not checked the address it nominated for so long has left it: consent is to be
/// asked for every 5 s, give or take a fifth (RFC 7675 §5.1).
const CONSENT: Duration = Duration::from_secs(6);

/// The addresses of one peer.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    /// Where authentic checks came from that were not refused, and when the last one did.
    known: Vec<(Endpoint, Instant)>,
    destination: Option<Endpoint>,
    /// It has left its destination, and where it is another lives.
    moved: bool,
    /// Where authentic checks came from since ICE began, refused or not.
    checked: FxHashSet<Endpoint>,
    /// What it is asked where another lives.
    challenge: Option<Challenge>,
}

impl Addresses {
    /// Where everything goes but the answers to checks; none until something was nominated.
    pub(crate) fn destination(&self) -> Option<Endpoint> {
        self.destination
    }

    /// The destination, or this one from now on if there is none yet and it was not refused: str0m knows
    /// nothing of that, and would send a peer's media to whoever lives there.
    pub(crate) fn destination_or(&mut self, nominated: Endpoint) -> Option<Endpoint> {
        if self.destination.is_none() && self.heard(nominated).is_some() {
            self.destination = Some(nominated);
        }
        self.destination
    }

    /// Whether a check from this address is to be looked at.
    pub(crate) fn admits(&self, address: Endpoint) -> bool {
        self.checked.len() < CHECKED_ADDRESSES_MAX || self.checked.contains(&address)
    }

    /// ICE was restarted: what str0m kept of addresses is forgotten.
    pub(crate) fn restarted(&mut self) {
        self.checked = self.known.iter().map(|(address, _)| *address).collect();
    }

    /// Whether the peer lives at this address, so that no other may have it: what it nominated,
    /// or, before it has, wherever it checks from.
    pub(crate) fn lives_at(&self, address: Endpoint, now: Instant) -> bool {
        !self.moved
            && self.destination.is_none_or(|destination| destination == address)
            && self.heard(address).is_some_and(|at| now < at + ALIVE)
    }

    /// An authentic check came from here. The last address nominated is the destination, as with
    /// pion's lite agents: str0m goes by priority, and would send to a port that a NAT has given
    /// away until the pair dies, 15 s later. Clients that nominate only once are followed when they
    /// no longer check where they were.
    ///
    /// Gives back the address that had to be forgotten for it, if any.
    pub(crate) fn checked(
        &mut self,
        address: Endpoint,
        nominates: bool,
        now: Instant,
    ) -> Option<Endpoint> {
        if nominates || self.has_left(now) {
            self.destination = Some(address);
        }
        self.moved &= self.destination != Some(address);
        self.checked.insert(address);
        if let Some((_, at)) = self.known.iter_mut().find(|(known, _)| *known == address) {
            *at = now;
            return None;
        }
        self.known.push((address, now));
        if self.known.len() <= PEER_ADDRESSES_MAX {
            return None;
        }
        let others = self
            .known
            .iter()
            .enumerate()
            .filter(|(_, (known, _))| *known != address && self.destination != Some(*known));
        let (oldest, _) = others.min_by_key(|(_, (_, at))| *at)?;
        Some(self.known.remove(oldest).0)
    }

    /// An authentic check came from an address where another lives. That the other stays is no
    /// reason for this one to keep what it has left: two clients may have got each other's port.
    pub(crate) fn refused(&mut self, address: Endpoint, nominates: bool, now: Instant) {
        self.checked.insert(address);
        self.moved |= nominates || self.has_left(now);
    }

    /// It has checked from where another lives. Whether it is to be asked there, and by which name, if it
    /// has one already.
    pub(crate) fn asks_again(
        &mut self,
        address: Endpoint,
        nominates: bool,
        now: Instant,
    ) -> Option<Option<ChallengeId>> {
        match self.challenge.as_mut().filter(|challenge| challenge.is_open(now)) {
            Some(open) => open.checked(address, nominates, now).then(|| Some(open.id())),
            None => Some(None),
        }
    }

    /// It is asked this; what it was asked before, if anything.
    pub(crate) fn ask(&mut self, challenge: Challenge) -> Option<ChallengeId> {
        self.challenge.replace(challenge).map(|before| before.id())
    }

    /// What it is asked, or was.
    pub(crate) fn challenge(&self) -> Option<ChallengeId> {
        self.challenge.as_ref().map(Challenge::id)
    }

    /// It has answered, from this address; whether it nominates that. `None` if it was not asked there.
    pub(crate) fn answered(
        &mut self,
        id: ChallengeId,
        address: Endpoint,
        now: Instant,
    ) -> Option<bool> {
        let challenge = self.challenge.as_ref().filter(|challenge| challenge.id() == id)?;
        let nominates = challenge.answered(address, now)?;
        self.challenge = None;
        Some(nominates)
    }

    /// Another is reached there: this one is not, and what is for it must not go there.
    pub(crate) fn evict(&mut self, address: Endpoint) {
        self.forget(address);
        self.destination.take_if(|destination| *destination == address);
    }

    /// Another has it now.
    pub(crate) fn forget(&mut self, address: Endpoint) {
        self.known.retain(|(known, _)| *known != address);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Endpoint> {
        self.known.iter().map(|(address, _)| *address)
    }

    /// Whether it no longer checks the address it nominated.
    fn has_left(&self, now: Instant) -> bool {
        let silent = |destination| self.heard(destination).is_none_or(|at| now >= at + CONSENT);
        self.destination.is_some_and(silent)
    }

    fn heard(&self, address: Endpoint) -> Option<Instant> {
        self.known.iter().find(|(known, _)| *known == address).map(|(_, at)| *at)
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
    fn a_peer_lives_where_it_nominated_until_it_moves_or_falls_silent() {
        let start = Instant::now();
        let mut peer = Addresses::default();
        assert!(!peer.lives_at(address(1), start));
        peer.checked(address(1), false, start);
        peer.checked(address(2), false, start);
        assert_eq!(peer.destination(), None);
        assert!(peer.lives_at(address(1), start) && peer.lives_at(address(2), start));
        peer.checked(address(2), true, start);
        assert_eq!(peer.destination(), Some(address(2)));
        assert!(!peer.lives_at(address(1), start), "not what it nominated");
        assert!(peer.lives_at(address(2), start + ALIVE - Duration::from_millis(1)));
        assert!(!peer.lives_at(address(2), start + ALIVE), "silent");
        peer.checked(address(3), true, start);
        assert!(!peer.lives_at(address(2), start), "it moved");
        peer.forget(address(3));
        assert!(!peer.lives_at(address(3), start), "another has it");
    }

    #[test]
    fn one_address_is_two_places_by_two_protocols() {
        let start = Instant::now();
        let (udp, tcp) = (address(1), Endpoint::tcp(address(1).address));
        let mut peer = Addresses::default();
        peer.checked(udp, true, start);
        assert!(peer.lives_at(udp, start) && !peer.lives_at(tcp, start));
        peer.checked(tcp, true, start);
        assert_eq!(peer.destination(), Some(tcp));
        assert_eq!(peer.iter().count(), 2);
        peer.forget(udp);
        assert!(peer.lives_at(tcp, start));
    }

    #[test]
    fn a_client_that_nominated_once_is_followed_when_it_checks_only_elsewhere() {
        let start = Instant::now();
        let mut peer = Addresses::default();
        peer.checked(address(1), true, start);
        peer.checked(address(2), false, start + CONSENT / 2);
        assert_eq!(peer.destination(), Some(address(1)), "another pair of the same client");
        peer.checked(address(1), false, start + CONSENT / 2);
        peer.checked(address(2), false, start + CONSENT);
        assert_eq!(peer.destination(), Some(address(1)), "it still checks where it was");
        peer.checked(address(2), false, start + CONSENT / 2 + CONSENT);
        assert_eq!(peer.destination(), Some(address(2)));
    }

    #[test]
    fn what_str0m_nominated_stands_until_the_client_nominates() {
        let start = Instant::now();
        let mut peer = Addresses::default();
        peer.checked(address(1), false, start);
        assert_eq!(peer.destination_or(address(1)), Some(address(1)));
        assert_eq!(peer.destination_or(address(2)), Some(address(1)));
        peer.checked(address(2), true, start);
        assert_eq!(peer.destination_or(address(1)), Some(address(2)));
    }

    #[test]
    fn nothing_is_sent_where_a_check_was_refused() {
        let start = Instant::now();
        let mut peer = Addresses::default();
        peer.refused(address(1), true, start);
        assert_eq!(peer.destination_or(address(1)), None);
        peer.checked(address(2), true, start);
        peer.refused(address(1), true, start);
        assert_eq!(peer.destination_or(address(1)), Some(address(2)));
    }

    #[test]
    fn a_peer_checks_from_so_many_addresses_until_ice_is_restarted() {
        let start = Instant::now();
        let mut peer = Addresses::default();
        for port in 0..CHECKED_ADDRESSES_MAX as u16 {
            assert!(peer.admits(address(port)));
            if port % 2 == 0 {
                peer.checked(address(port), true, start);
            } else {
                peer.refused(address(port), false, start);
            }
        }
        let further = CHECKED_ADDRESSES_MAX as u16;
        assert!(
            peer.admits(address(0)) && peer.admits(address(1)) && !peer.admits(address(further))
        );
        peer.restarted();
        assert!(peer.admits(address(further)));
    }

    #[test]
    fn who_is_refused_where_it_moved_to_does_not_keep_what_it_left() {
        let start = Instant::now();
        let mut peer = Addresses::default();
        peer.checked(address(1), true, start);
        peer.refused(address(2), false, start);
        assert!(peer.lives_at(address(1), start), "another pair of the same client");
        peer.refused(address(2), true, start);
        assert!(!peer.lives_at(address(1), start));
        peer.checked(address(1), true, start);
        assert!(peer.lives_at(address(1), start), "back");
        peer.refused(address(2), false, start + CONSENT);
        assert!(!peer.lives_at(address(1), start + CONSENT));
        peer.checked(address(2), true, start + CONSENT);
        assert!(peer.lives_at(address(2), start + CONSENT));
    }

    #[test]
    fn the_address_that_is_forgotten_is_the_stalest_and_never_the_destination() {
        let start = Instant::now();
        let mut peer = Addresses::default();
        peer.checked(address(1), true, start);
        let last = PEER_ADDRESSES_MAX as u16 + 1;
        for port in 2..last {
            let at = start + Duration::from_millis(port.into());
            assert_eq!(peer.checked(address(port), false, at), None);
        }
        let at = start + Duration::from_secs(1);
        assert_eq!(peer.checked(address(2), false, at), None, "known");
        assert_eq!(peer.checked(address(last), false, at), Some(address(3)));
        assert_eq!(peer.iter().count(), PEER_ADDRESSES_MAX);
    }
}
