//! The peers of one worker, and whose a datagram is.

use std::time::Instant;

use rustc_hash::FxHashMap;
use slab::Slab;

use super::challenge::{Challenge, ChallengeId, Challenges};
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
    /// The peer is heard there from now on.
    Its,
    /// Another lives there. The peer is to be asked there, perhaps, by this name.
    Refused(Option<ChallengeId>),
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
        if let Some(challenge) = peer.addresses().challenge() {
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
    /// anything else by its source.
    pub(crate) fn of_datagram(&self, source: Endpoint, datagram: &[u8]) -> Option<usize> {
        if !self.challenges.is_empty()
            && let Some(peer) = stun::answered(datagram).and_then(|id| self.challenges.peer(id))
        {
            return Some(peer);
        }
        stun::with_receiver(datagram, |ufrag| self.by_ufrag.get(ufrag).copied())
            .unwrap_or_else(|| self.by_address.get(&source).copied())
    }

    /// A peer has sent an authentic check from this address, perhaps one that nominates it. It is
    /// heard there from now on, unless another lives there, who must not be cut off by a check from
    /// its address.
    pub(crate) fn learn_address(
        &mut self,
        index: usize,
        address: Endpoint,
        nominates: bool,
        now: Instant,
    ) -> Learnt {
        let owner = self.by_address.get(&address).copied().filter(|&owner| owner != index);
        let owner = owner.and_then(|owner| self.peers.get_mut(owner));
        let taken = owner
            .is_some_and(|owner| !owner.has_ended() && owner.addresses().lives_at(address, now));
        if taken {
            return Learnt::Refused(self.refuse(index, address, nominates, now));
        }
        self.settle(index, address, nominates, now);
        Learnt::Its
    }

    /// Another lives where a peer has checked from. By which name that is to be asked there, if it is.
    fn refuse(
        &mut self,
        index: usize,
        address: Endpoint,
        nominates: bool,
        now: Instant,
    ) -> Option<ChallengeId> {
        let peer = self.peers.get_mut(index)?;
        peer.addresses().refused(address, nominates, now);
        let Endpoint { protocol, address: from } = address;
        tracing::debug!(peer = peer.key().0, %protocol, %from, "a check from where another peer lives");
        if let Some(known) = peer.addresses().asks_again(address, nominates, now)? {
            return Some(known);
        }
        let id = self.challenges.make(index);
        let before = peer.addresses().ask(Challenge::new(id, address, nominates, now));
        if let Some(before) = before {
            self.challenges.forget(before);
        }
        Some(id)
    }

    /// A datagram has come from this address for the peer. Whether it was what the peer was asked there,
    /// by which it is known to be reached there: the address is its own from now on.
    pub(crate) fn hear_answer(
        &mut self,
        index: usize,
        address: Endpoint,
        datagram: &[u8],
        now: Instant,
    ) -> bool {
        if self.challenges.is_empty() {
            return false;
        }
        let Some(id) = stun::answered(datagram) else { return false };
        if self.challenges.peer(id) != Some(index) {
            return false;
        }
        let Some(peer) = self.peers.get_mut(index).filter(|peer| peer.knows(datagram)) else {
            return false;
        };
        let Some(nominates) = peer.addresses().answered(id, address, now) else { return false };
        self.challenges.forget(id);
        tracing::debug!(peer = peer.key().0, address = %address.address, "a peer is reached there");
        self.settle(index, address, nominates, now);
        true
    }

    /// A peer is heard at this address from now on, and nobody else.
    fn settle(&mut self, index: usize, address: Endpoint, nominates: bool, now: Instant) {
        let owner = self.by_address.get(&address).copied().filter(|&owner| owner != index);
        if let Some(owner) = owner.and_then(|owner| self.peers.get_mut(owner)) {
            owner.addresses().evict(address);
        }
        let Some(peer) = self.peers.get_mut(index) else { return };
        let before = peer.addresses().destination();
        let forgotten = peer.addresses().checked(address, nominates, now);
        if before.is_some() && before != peer.addresses().destination() {
            peer.begin_way_anew();
        }
        self.by_address.insert(address, index);
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

/// A peer is no longer heard at an address, if it was.
fn forget_address(known: &mut FxHashMap<Endpoint, usize>, index: usize, address: Endpoint) {
    if known.get(&address) == Some(&index) {
        known.remove(&address);
    }
}
