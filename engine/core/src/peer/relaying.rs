//! A peer's part of [`Relays`](super::relays::Relays): which TURN servers it may use, and what is
//! relayed of what it receives and sends.

use std::net::SocketAddr;
use std::time::Instant;

use str0m::{Candidate, Input};

use super::addresses::soonest;
use super::candidates::{AddressRequest, LocalId, NO_PAIR_AFTER, Way, is_stun};
use super::event::PeerSink;
use super::failure::NoCandidatePair;
use super::relays::{RelayEvent, RelaySink, Relays};
use super::{Peer, PeerEvent};
use crate::Arrival;
use crate::turn::{FromServer, TurnServer};

impl Peer {
    /// Takes the TURN servers that signalling named, in the place of those before, and whether the
    /// server wants no other ways (`force_relay`). Of a connection that stands the latter is obeyed
    /// when its ICE restarts. At most [`TURN_SERVERS_MAX`](super::TURN_SERVERS_MAX) are kept, of those
    /// that may be tried and whose credentials can be used.
    pub fn set_turn_servers(&mut self, now: Instant, servers: Vec<TurnServer>, only: bool) {
        if self.closed {
            return;
        }
        let transport = self.transport_asked;
        let relays = self.relays.get_or_insert_default();
        relays.name(servers, only, transport);
        if !self.connected {
            self.obey_relays_only();
        }
        self.advance(now);
    }

    /// It may have sockets of its own for UDP: neither `--transport` nor the server forbids it.
    #[must_use]
    pub fn uses_udp(&self) -> bool {
        let only = self.relays.as_ref().is_some_and(|relays| relays.only());
        self.transport_asked.tries(crate::PathKind::Udp) && !only
    }

    fn obey_relays_only(&mut self) {
        let only = self.relays.as_ref().is_some_and(|relays| relays.only());
        let given_up = self.candidates.relay_only(only);
        self.give_up_ways(given_up);
    }

    /// What a datagram that came by this way is to the peer: itself, or of what a TURN server relays
    /// what is in it, and who sent that. `None` for what passes between us and a TURN server.
    #[inline]
    pub fn relayed<'a>(
        &mut self,
        at: Arrival,
        via: LocalId,
        source: SocketAddr,
        datagram: &'a [u8],
    ) -> Option<(SocketAddr, &'a [u8])> {
        match self.is_relay(via) {
            false => Some((source, datagram)),
            true => self.unwrap_relayed(at, via, source, datagram),
        }
    }

    fn unwrap_relayed<'a>(
        &mut self,
        at: Arrival,
        via: LocalId,
        source: SocketAddr,
        message: &'a [u8],
    ) -> Option<(SocketAddr, &'a [u8])> {
        let now = self.now.max(at.instant);
        let relays = self.relays.as_mut().filter(|_| !self.closed)?;
        match relays.receive(now, via, source, message) {
            FromServer::Relayed(from, range) => return Some((from, message.get(range)?)),
            FromServer::Control => {
                self.transport.datagrams.received += 1;
                self.advance(now);
            }
            FromServer::Nothing => self.transport.datagrams.received += 1,
            FromServer::Malformed => {
                self.transport.datagrams.received += 1;
                self.transport.malformed += 1;
            }
        }
        None
    }

    #[inline]
    pub(super) fn is_relay(&self, via: LocalId) -> bool {
        self.relay_bits >> via.index() & 1 != 0
    }

    pub(super) fn relay_connected(
        &mut self,
        now: Instant,
        via: LocalId,
        address: SocketAddr,
    ) -> bool {
        let at = self.now.max(now);
        let connected =
            self.relays.as_mut().is_some_and(|relays| relays.connected(at, via, address));
        self.advance(now);
        connected
    }

    pub(super) fn relay_closed(&mut self, now: Instant, via: LocalId, why: &str) {
        if let Some(relays) = &mut self.relays {
            relays.closed(via, why);
        }
        self.forget_relay(via);
        self.advance(now);
    }

    fn forget_relay(&mut self, via: LocalId) {
        self.relay_bits &= !(1 << via.index());
        if let Some((address, way)) = self.candidates.give_up_relay(via) {
            self.invalidate(address, way);
        }
        self.sole = self.candidates.sole();
        if let Some(sole) = self.sole {
            self.received_on(sole);
        }
    }

    /// Gives back what a TURN server has allocated by this way, if it leads to one.
    pub(super) fn end_relay(&mut self, via: LocalId) {
        if self.is_relay(via)
            && let Some(relays) = &mut self.relays
        {
            relays.end(self.now, Some(via), &mut self.outbox);
            self.relay_bits &= !(1 << via.index());
        }
    }

    pub(super) fn end_relays(&mut self) {
        if let Some(relays) = &mut self.relays {
            relays.end(self.now, None, &mut self.outbox);
        }
    }

    /// The sockets are gone, and with them what was allocated.
    pub(super) fn leave_relays(&mut self) {
        self.relay_bits = 0;
        if let Some(relays) = &mut self.relays {
            relays.leave();
        }
    }

    /// ICE begins again: what did not work, or works no more, is tried again too. What carries media
    /// goes on until there is a relay.
    pub(super) fn restart_relays(&mut self) {
        let silent = self.relays.as_ref().map(|relays| relays.silent(self.now));
        let given_up = silent.into_iter().flatten();
        let given_up = given_up.map(|via| (via, self.candidates.give_up_relay(via))).collect();
        self.give_up_ways(given_up);
        if let Some(relays) = &mut self.relays {
            relays.begin();
            let only = relays.only();
            match self.connected {
                true => self.candidates.want_relays(only),
                false => self.obey_relays_only(),
            }
        }
    }

    /// Asks for ways to TURN servers that are due, and takes what has become of those that are there.
    pub(super) fn mind_relays(&mut self) {
        let Some(relays) = &mut self.relays else { return };
        let now = self.now;
        let mut happened = Vec::new();
        let next = relays.poll(now, &mut self.outbox, &mut happened);
        for event in happened {
            self.relay_event(event);
        }
        if let Some(at) = next {
            soonest(&mut self.candidates_at, at);
        }
        let looks = self.candidates.checking || self.candidates.lacks_relay();
        let from = self.candidates.relays_from(now).filter(|_| looks);
        if let (Some(relays), Some(from)) = (&mut self.relays, from) {
            let due = relays.dial(now, from, &mut self.candidates, &mut self.outbox);
            self.relay_bits = relays.bits();
            if let Some(at) = due {
                soonest(&mut self.candidates_at, at);
            }
        }
    }

    fn relay_event(&mut self, event: RelayEvent) {
        match event {
            RelayEvent::Allocated { via, by, socket, relayed } => {
                let way = Way::Relay { by, socket };
                self.candidates.allocated(self.now, via, relayed, way);
                if self.candidates.wants_relays() {
                    self.obey_relays_only();
                }
                let line = way.candidate(relayed).ok().and_then(|candidate| {
                    self.rtc.add_local_candidate(candidate).map(Candidate::to_sdp_string)
                });
                self.sole = self.candidates.sole();
                if self.sole == Some(via) {
                    self.sole_is(via, relayed, way);
                }
                if let Some(candidate) = line.filter(|_| self.described) {
                    self.outbox.event(PeerEvent::LocalCandidate { candidate });
                }
            }
            RelayEvent::Over { via } => {
                self.forget_relay(via);
                self.outbox.request_address(AddressRequest::Close { via });
            }
        }
        if let Err(error) = self.rtc.handle_input(Input::Timeout(self.now)) {
            self.failed(&error);
        }
        self.poll();
    }

    /// Until when the TURN server that was asked last may make up for pairs that failed.
    pub(super) fn relays_hopeful_until(&self) -> Option<Instant> {
        let tried_at = self.relays.as_ref()?.tried_at()?;
        Some(tried_at + NO_PAIR_AFTER)
    }

    /// Whether a datagram has to wait for its channel, as ICE's may; then it is kept.
    pub(super) fn waits_for_channel(
        &mut self,
        via: LocalId,
        to: SocketAddr,
        datagram: &[u8],
    ) -> bool {
        let Some(relays) = self.relays.as_mut().filter(|_| is_stun(datagram)) else {
            return false;
        };
        let waits = relays.hold(self.now, via, to, datagram);
        if waits {
            soonest(&mut self.candidates_at, self.now);
        }
        waits
    }

    pub(super) fn no_pair(&self) -> NoCandidatePair {
        let relays = self.relays.as_deref();
        NoCandidatePair {
            relays: relays.map(Relays::said).unwrap_or_default(),
            relays_named: relays.is_some_and(Relays::are_named),
            ..self.candidates.no_pair()
        }
    }

    /// Hands out what waits, by way of the relays where it leaves by them.
    pub(super) fn flush(&mut self, now: Instant, sink: &mut dyn PeerSink) {
        match self.relays.as_deref_mut().filter(|relays| !relays.is_empty()) {
            None => self.outbox.flush(now, sink),
            Some(relays) => {
                let mut sink = RelaySink { relays, sink, unsent: 0 };
                self.outbox.flush(now, &mut sink);
                let unsent = sink.unsent;
                relays.sweep();
                self.outbox.sent -= unsent;
                self.outbox.dropped += unsent;
            }
        }
    }
}
