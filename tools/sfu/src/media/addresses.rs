//! Where a peer's datagrams come from and where what it gets is sent.
//!
//! Anything but a connectivity check is somebody's by its source address alone, so who has an
//! address decides who is heard. Only an authentic check claims one, and anybody can send an
//! authentic check of its own from an address that isn't its own. So an address is of who proved last to
//! be reached there ([`super::challenge`]), and of nobody before anybody has: NATs give ports to others. Who
//! has made a TCP connection is at its end.

use std::time::{Duration, Instant};

use rustc_hash::FxHashSet;

use super::challenge::Questions;
use super::endpoint::Endpoint;

/// Addresses that one peer may have; beyond that the one heard from longest ago is forgotten.
pub(crate) const PEER_ADDRESSES_MAX: usize = 8;

/// Addresses that one peer may check from between two restarts of ICE: str0m keeps a candidate of each, and
/// goes through them for each check. Checks from further ones are refused.
const CHECKED_ADDRESSES_MAX: usize = 256;

/// Whoever has not checked the address it nominated for so long has left it: consent is to be
/// asked for every 5 s, give or take a fifth (RFC 7675 §5.1).
const CONSENT: Duration = Duration::from_secs(6);

/// Whoever has not been heard where it nominated for so long is sent nothing there any more, and keeps nobody
/// else from there: as long as str0m keeps the pair of an ICE-lite agent.
const ALIVE: Duration = Duration::from_secs(15);

/// An address at which a peer is reached.
#[derive(Debug)]
struct Known {
    address: Endpoint,
    /// When the last authentic check came from there.
    heard: Instant,
    /// When it was proved last.
    reached: Instant,
}

/// The addresses of one peer.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    /// Where it is reached.
    known: Vec<Known>,
    destination: Option<Endpoint>,
    /// It had a destination, which is another's now, or which it has left: str0m still names that, and it is
    /// followed to wherever it checks from next.
    displaced: bool,
    /// Where authentic checks came from since ICE began, whoever is reached there.
    checked_from: FxHashSet<Endpoint>,
    /// What it is asked where it is not known to be reached.
    questions: Questions,
}

impl Addresses {
    /// Where everything goes but the answers to checks; none until something was nominated.
    pub(crate) fn destination(&self) -> Option<Endpoint> {
        self.destination
    }

    /// The destination, or this one from now on if there is none yet and the peer is reached there: str0m
    /// knows nothing of that, and would send a peer's handshake and media to whoever lives there.
    pub(crate) fn destination_or(&mut self, nominated: Endpoint) -> Option<Endpoint> {
        if self.destination.is_none() && !self.displaced && self.known(nominated).is_some() {
            self.destination = Some(nominated);
        }
        self.destination
    }

    /// Whether it has, or had, a destination.
    pub(crate) fn had_destination(&self) -> bool {
        self.destination.is_some() || self.displaced
    }

    /// Whether a check from this address is to be looked at.
    pub(crate) fn admits(&self, address: Endpoint) -> bool {
        self.checked_from.len() < CHECKED_ADDRESSES_MAX || self.checked_from.contains(&address)
    }

    /// ICE was restarted: what str0m kept of addresses is forgotten.
    pub(crate) fn restarted(&mut self) {
        self.checked_from = self.iter().collect();
    }

    /// An authentic check came from here. The last address nominated is the destination, as with
    /// pion's lite agents: str0m goes by priority, and would send to a port that a NAT has given
    /// away until the pair dies, 15 s later. Clients that nominate only once are followed when they
    /// no longer check where they were.
    ///
    /// Whether the peer is known to be reached there. If it is not, and has long left its destination, it has
    /// none.
    pub(crate) fn checked(&mut self, address: Endpoint, nominates: bool, now: Instant) -> bool {
        self.checked_from.insert(address);
        let Some(known) = self.known.iter_mut().find(|known| known.address == address) else {
            if self.destination.is_some_and(|destination| !self.is_alive_at(destination, now)) {
                self.displace();
            }
            return false;
        };
        known.heard = now;
        if nominates || self.has_left(now) {
            self.destination = Some(address);
            self.displaced = false;
        }
        true
    }

    /// The peer has proved to be reached here. Gives back the address that had to be forgotten for it,
    /// if any.
    pub(crate) fn reached(&mut self, address: Endpoint, now: Instant) -> Option<Endpoint> {
        if let Some(known) = self.known.iter_mut().find(|known| known.address == address) {
            known.reached = now;
            return None;
        }
        self.known.push(Known { address, heard: now, reached: now });
        if self.known.len() <= PEER_ADDRESSES_MAX {
            return None;
        }
        let others = self.known.iter().enumerate().filter(|(_, known)| {
            known.address != address && self.destination != Some(known.address)
        });
        let (oldest, _) = others.min_by_key(|(_, known)| known.heard)?;
        Some(self.known.remove(oldest).address)
    }

    /// When the peer proved last that it is reached here, if it has.
    pub(crate) fn reached_at(&self, address: Endpoint) -> Option<Instant> {
        self.known(address).map(|known| known.reached)
    }

    /// What it is asked where it is not known to be reached.
    pub(crate) fn questions(&mut self) -> &mut Questions {
        &mut self.questions
    }

    /// Another is reached there: this one is not, and what is for it must not go there.
    pub(crate) fn evict(&mut self, address: Endpoint) {
        self.forget(address);
        if self.destination == Some(address) {
            self.displace();
        }
    }

    fn displace(&mut self) {
        self.destination = None;
        self.displaced = true;
    }

    /// Whether it has been heard at this address, where it is reached, not long ago.
    pub(crate) fn is_alive_at(&self, address: Endpoint, now: Instant) -> bool {
        self.known(address).is_some_and(|known| now < known.heard + ALIVE)
    }

    /// Nobody is there any more.
    pub(crate) fn forget(&mut self, address: Endpoint) {
        self.known.retain(|known| known.address != address);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Endpoint> {
        self.known.iter().map(|known| known.address)
    }

    /// Whether it no longer checks the address it nominated, or can't be there.
    fn has_left(&self, now: Instant) -> bool {
        let silent =
            |destination| self.known(destination).is_none_or(|known| now >= known.heard + CONSENT);
        self.destination.map_or(self.displaced, silent)
    }

    fn known(&self, address: Endpoint) -> Option<&Known> {
        self.known.iter().find(|known| known.address == address)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn address(port: u16) -> Endpoint {
        Endpoint::udp(SocketAddr::from(([10, 0, 0, 1], port)))
    }

    /// Who is reached at all of these.
    fn reached(ports: std::ops::RangeInclusive<u16>, now: Instant) -> Addresses {
        let mut peer = Addresses::default();
        for port in ports {
            peer.reached(address(port), now);
        }
        peer
    }

    #[test]
    fn a_peer_is_where_it_nominated_last_of_where_it_is_reached() {
        let start = Instant::now();
        let mut peer = Addresses::default();
        assert!(!peer.checked(address(1), true, start));
        assert_eq!((peer.destination(), peer.reached_at(address(1))), (None, None));
        peer.reached(address(1), start);
        assert!(peer.checked(address(1), false, start));
        assert_eq!((peer.destination(), peer.reached_at(address(1))), (None, Some(start)));
        peer.checked(address(1), true, start);
        assert_eq!(peer.destination(), Some(address(1)));
        assert!(!peer.checked(address(2), true, start));
        assert_eq!(peer.destination(), Some(address(1)), "it is not known to be reached there");
        let later = start + Duration::from_secs(1);
        assert_eq!(peer.reached(address(2), later), None);
        peer.checked(address(2), true, later);
        assert_eq!(
            (peer.destination(), peer.reached_at(address(2))),
            (Some(address(2)), Some(later))
        );
    }

    #[test]
    fn what_is_for_a_peer_no_longer_goes_where_another_is_reached() {
        let start = Instant::now();
        let mut peer = reached(1..=2, start);
        peer.checked(address(1), true, start);
        peer.evict(address(2));
        assert_eq!(peer.destination(), Some(address(1)));
        peer.evict(address(1));
        assert_eq!((peer.destination(), peer.iter().count()), (None, 0));
        assert!(!peer.checked(address(1), true, start));
    }

    #[test]
    fn who_was_displaced_is_followed_though_it_nominates_only_once() {
        let start = Instant::now();
        let mut peer = reached(1..=2, start);
        peer.checked(address(1), true, start);
        peer.evict(address(1));
        peer.reached(address(1), start);
        assert_eq!(peer.destination_or(address(1)), None, "str0m names what it had");
        assert!(peer.checked(address(2), false, start));
        assert_eq!(peer.destination(), Some(address(2)));
    }

    #[test]
    fn nothing_goes_to_an_address_that_was_left_for_one_where_nobody_answers() {
        let start = Instant::now();
        let mut peer = reached(1..=1, start);
        peer.checked(address(1), true, start);
        peer.checked(address(2), true, start + ALIVE - Duration::from_millis(1));
        assert_eq!(peer.destination(), Some(address(1)));
        peer.checked(address(2), true, start + ALIVE);
        assert_eq!((peer.destination(), peer.had_destination()), (None, true));
        peer.reached(address(2), start + ALIVE);
        peer.checked(address(2), false, start + ALIVE);
        assert_eq!(peer.destination(), Some(address(2)));
    }

    #[test]
    fn one_address_is_two_places_by_two_protocols() {
        let start = Instant::now();
        let (udp, tcp) = (address(1), Endpoint::tcp(address(1).address));
        let mut peer = reached(1..=1, start);
        assert!(peer.checked(udp, true, start) && !peer.checked(tcp, true, start));
        peer.reached(tcp, start);
        peer.checked(tcp, true, start);
        assert_eq!(peer.destination(), Some(tcp));
        assert_eq!(peer.iter().count(), 2);
        peer.forget(udp);
        assert_eq!(peer.iter().collect::<Vec<_>>(), [tcp]);
    }

    #[test]
    fn a_client_that_nominated_once_is_followed_when_it_checks_only_elsewhere() {
        let start = Instant::now();
        let mut peer = reached(1..=2, start);
        peer.checked(address(1), true, start);
        peer.checked(address(2), false, start + CONSENT / 2);
        assert_eq!(peer.destination(), Some(address(1)), "another pair of the same client");
        peer.checked(address(1), false, start + CONSENT / 2);
        peer.checked(address(2), false, start + CONSENT);
        assert_eq!(peer.destination(), Some(address(1)), "it still checks where it was");
        let silent = start + CONSENT / 2 + CONSENT;
        peer.checked(address(3), false, silent);
        assert_eq!(peer.destination(), Some(address(1)), "it is not known to be reached there");
        peer.checked(address(2), false, silent);
        assert_eq!(peer.destination(), Some(address(2)));
    }

    #[test]
    fn what_str0m_nominated_stands_until_the_client_nominates() {
        let start = Instant::now();
        let mut peer = reached(1..=2, start);
        assert_eq!(peer.destination_or(address(3)), None, "nothing goes where it is not reached");
        assert_eq!(peer.destination_or(address(1)), Some(address(1)));
        assert_eq!(peer.destination_or(address(2)), Some(address(1)));
        peer.checked(address(2), true, start);
        assert_eq!(peer.destination_or(address(1)), Some(address(2)));
    }

    #[test]
    fn a_peer_checks_from_so_many_addresses_until_ice_is_restarted() {
        let start = Instant::now();
        let mut peer = reached(0..=0, start);
        for port in 0..CHECKED_ADDRESSES_MAX as u16 {
            assert!(peer.admits(address(port)));
            peer.checked(address(port), true, start);
        }
        let further = CHECKED_ADDRESSES_MAX as u16;
        assert!(
            peer.admits(address(0)) && peer.admits(address(1)) && !peer.admits(address(further))
        );
        peer.restarted();
        assert!(peer.admits(address(further)));
    }

    #[test]
    fn the_address_that_is_forgotten_is_the_stalest_and_never_the_destination() {
        let start = Instant::now();
        let mut peer = reached(1..=1, start);
        peer.checked(address(1), true, start);
        let last = PEER_ADDRESSES_MAX as u16 + 1;
        for port in 2..last {
            let at = start + Duration::from_millis(port.into());
            assert_eq!(peer.reached(address(port), at), None);
        }
        let at = start + Duration::from_secs(1);
        peer.checked(address(2), false, at);
        assert_eq!(peer.reached(address(2), at), None, "known");
        assert_eq!(peer.reached(address(last), at), Some(address(3)));
        assert_eq!(peer.iter().count(), PEER_ADDRESSES_MAX);
    }
}
