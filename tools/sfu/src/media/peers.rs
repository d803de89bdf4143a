//! The peers of one worker, and whose a datagram is.

use std::collections::VecDeque;
use std::time::Instant;

use rustc_hash::FxHashMap;
use slab::Slab;
use str0m::net::Protocol;

use super::challenge::{ChallengeId, Challenges};
use super::endpoint::Endpoint;
use super::message::PeerKey;
use super::peer::Peer;
use super::stun;

/// Peers by index, key and address.
#[derive(Default)]
pub(crate) struct PeerTable {
    /// Boxed: a peer is many kilobytes, and a growing slab would copy them all.
    peers: Slab<Box<Peer>>,
    by_key: FxHashMap<PeerKey, usize>,
    by_ufrag: FxHashMap<String, usize>,
    by_address: FxHashMap<Endpoint, usize>,
    challenges: Challenges,
}

/// What becomes of an address from which a peer has checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Learnt {
    /// The peer is reached there, and heard.
    Its,
    /// Nobody is known to be reached there. The check is to be answered, and the peer to be asked before
    /// that, perhaps, by this name.
    Free(Option<ChallengeId>),
    /// The same, and the check is to be answered once the peer is known to be reached: it nominates the
    /// address, or another is reached there. It is asked there already, or is to be.
    Held {
        /// By which name the peer is to be asked, perhaps.
        ask: Option<ChallengeId>,
        /// Another is reached there.
        taken: bool,
    },
}

impl PeerTable {
    /// Adds a peer; its index.
    pub(crate) fn insert(&mut self, mut peer: Peer) -> usize {
        let (key, ufrag) = (peer.key(), peer.local_ufrag());
        let index = self.peers.insert(Box::new(peer));
        self.by_key.insert(key, index);
        self.add_ufrag(index, ufrag);
        index
    }

    /// A peer answers to this user name fragment too, in place of the one before its last.
    pub(crate) fn add_ufrag(&mut self, index: usize, ufrag: String) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let forgotten = peer.ufrags().add(ufrag.clone());
        self.by_ufrag.insert(ufrag, index);
        if let Some(forgotten) = forgotten {
            self.by_ufrag.remove(&forgotten);
        }
    }

    /// Takes a peer out. It is heard no more.
    pub(crate) fn remove(&mut self, index: usize) -> Option<Box<Peer>> {
        let mut peer = self.peers.try_remove(index)?;
        self.by_key.remove(&peer.key());
        for ufrag in peer.ufrags().iter() {
            self.by_ufrag.remove(ufrag);
        }
        for address in peer.addresses().iter() {
            forget_address(&mut self.by_address, index, address);
        }
        for challenge in peer.addresses().questions().ids() {
            self.challenges.forget(challenge);
        }
        Some(peer)
    }

    pub(crate) fn index_of(&self, key: PeerKey) -> Option<usize> {
        self.by_key.get(&key).copied()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Peer> {
        self.peers.get(index).map(|peer| &**peer)
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut Peer> {
        self.peers.get_mut(index).map(|peer| &mut **peer)
    }

    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().map(|(_, peer)| &**peer)
    }

    pub(crate) fn indices(&self) -> Vec<usize> {
        self.peers.iter().map(|(index, _)| index).collect()
    }

    /// Whose datagram this is: a connectivity check says so itself, and so does the answer to one of ours;
    /// anything else by its source, where it may be of whom is asked there if nobody is known to be reached.
    pub(crate) fn of_datagram(&self, source: Endpoint, datagram: &[u8]) -> Option<usize> {
        if !self.challenges.is_empty()
            && let Some(peer) = stun::answered(datagram).and_then(|id| self.challenges.peer(id))
        {
            return Some(peer);
        }
        stun::with_receiver(datagram, |ufrag| self.by_ufrag.get(ufrag).copied()).unwrap_or_else(
            || {
                let reached = self.by_address.get(&source).copied();
                reached.or_else(|| self.challenges.asked_at(source))
            },
        )
    }

    /// A peer has sent an authentic check from this address, perhaps one that nominates it. That makes it
    /// nobody's but who is known to be reached there: others would be cut off by a check from their address.
    pub(crate) fn learn_address(
        &mut self,
        index: usize,
        address: Endpoint,
        nominates: bool,
        now: Instant,
    ) -> Learnt {
        let Self { peers, by_address, challenges, .. } = self;
        let Some(peer) = peers.get_mut(index) else { return Learnt::Free(None) };
        let owner = by_address.get(&address).copied();
        let (had, before) = way(peer);
        if owner == Some(index) && peer.addresses().checked(address, nominates, now) {
            if had && before != peer.addresses().destination() {
                peer.begin_way_anew();
            }
            return Learnt::Its;
        }
        // Nobody writes another's address into a connection of TCP.
        if address.protocol == Protocol::Tcp {
            self.settle(index, address, nominates, now);
            return Learnt::Its;
        }
        let key = peer.key().0;
        peer.addresses().checked(address, false, now);
        let ask = peer.addresses().questions().ask(address, nominates, now, (challenges, index));
        let owner = owner.filter(|owner| *owner != index);
        let owner = owner.and_then(|owner| self.peers.get_mut(owner));
        let alive = |owner: &mut Box<Peer>| {
            !owner.has_ended() && owner.addresses().is_alive_at(address, now)
        };
        let taken = owner.is_some_and(alive);
        if taken {
            let from = address.address;
            tracing::debug!(peer = key, %from, "a check from where another peer is reached");
        }
        if taken || nominates { Learnt::Held { ask, taken } } else { Learnt::Free(ask) }
    }

    /// A datagram has come from this address for the peer. If it is what the peer was asked there, by which
    /// it is known to be reached there, the address is its own from now on, and what has waited for that goes
    /// there.
    pub(crate) fn hear_answer(
        &mut self,
        index: usize,
        address: Endpoint,
        datagram: &[u8],
        now: Instant,
    ) -> Option<VecDeque<Vec<u8>>> {
        if self.challenges.is_empty() {
            return None;
        }
        let id = stun::answered(datagram)?;
        if self.challenges.peer(id) != Some(index) {
            return None;
        }
        let peer = self.peers.get_mut(index).filter(|peer| peer.knows(datagram))?;
        let key = peer.key().0;
        let challenge = peer.addresses().questions().answered(id, address, now)?;
        self.challenges.forget(id);
        // It was there before the other came, and keeps nobody from it by having waited with its answer.
        let owner = self.by_address.get(&address).and_then(|owner| self.peers.get_mut(*owner));
        let since = owner.and_then(|owner| owner.addresses().reached_at(address));
        if since.is_some_and(|since| since > challenge.began) {
            return None;
        }
        tracing::debug!(peer = key, address = %address.address, "a peer is reached there");
        self.settle(index, address, challenge.nominates, now);
        Some(challenge.held)
    }

    /// A peer is reached at this address, so nobody else is.
    fn settle(&mut self, index: usize, address: Endpoint, nominates: bool, now: Instant) {
        let owner = self.by_address.insert(address, index).filter(|&owner| owner != index);
        if let Some(owner) = owner.and_then(|owner| self.peers.get_mut(owner)) {
            owner.addresses().evict(address);
        }
        let Some(peer) = self.peers.get_mut(index) else { return };
        let (had, before) = way(peer);
        let forgotten = peer.addresses().reached(address, now);
        peer.addresses().checked(address, nominates, now);
        if had && before != peer.addresses().destination() {
            peer.begin_way_anew();
        }
        if let Some(forgotten) = forgotten {
            forget_address(&mut self.by_address, index, forgotten);
        }
    }

    /// Whether a peer is heard at this address.
    pub(crate) fn is_at(&self, address: Endpoint) -> bool {
        self.by_address.contains_key(&address)
    }

    /// Nobody is at this address any more.
    pub(crate) fn vacate(&mut self, address: Endpoint) {
        let Some(index) = self.by_address.remove(&address) else { return };
        if let Some(peer) = self.peers.get_mut(index) {
            peer.addresses().forget(address);
        }
    }
}

/// Whether a peer has or had a destination, and the one it has.
fn way(peer: &mut Peer) -> (bool, Option<Endpoint>) {
    (peer.addresses().had_destination(), peer.addresses().destination())
}

/// A peer is no longer heard at an address, if it was.
fn forget_address(known: &mut FxHashMap<Endpoint, usize>, index: usize, address: Endpoint) {
    if known.get(&address) == Some(&index) {
        known.remove(&address);
    }
}
