//! A peer's TURN servers: which is asked when, and what came of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use stampede_media::AssemblerCounters;

use super::candidates::{AddressRequest, Candidates, LocalId};
use super::event::{PeerEvent, PeerSink, RecordedFrame, RecordedStream};
use super::outbox::Outbox;
use crate::turn::{Allocation, AllocationEvent, FromServer, TurnServer};
use crate::{PathKind, Sample, Transport};

/// Most TURN servers that a peer keeps and tries between two restarts of ICE.
pub const TURN_SERVERS_MAX: usize = 8;
/// While one TURN server is asked, the next one waits so long: that it does not answer is not known
/// earlier.
pub const NEXT_TURN_AFTER: Duration = Duration::from_secs(1);
/// One that has not answered for so long makes room for another one; one that relayed, and by which
/// nothing came for so long, is asked for anew when ICE begins again.
const SILENT_AFTER: Duration = Duration::from_secs(5);
/// Most that is remembered of what servers have refused.
const SAID_MAX: usize = 8;

/// Before a socket is there.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What an allocation is the way to, and what has become of it.
struct Relay {
    via: LocalId,
    server: TurnServer,
    address: SocketAddr,
    /// Our end of the way to it.
    socket: SocketAddr,
    /// Since the socket or the stream is there.
    allocation: Option<Allocation>,
    relayed: Option<SocketAddr>,
    asked_at: Instant,
    /// When something came by it last.
    heard_at: Instant,
    /// It is over, and only what waits to be sent goes by it.
    ended: bool,
}

impl Relay {
    /// What there is to say while it has not been allocated.
    fn unanswered(&self) -> String {
        match &self.allocation {
            Some(_) => format!("{} did not answer", self.server),
            None => format!("{} could not be reached: no connection yet", self.server),
        }
    }
}

/// What happened to a relay.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RelayEvent {
    /// It relays what comes to this address.
    Allocated { via: LocalId, by: PathKind, socket: SocketAddr, relayed: SocketAddr },
    /// It is over.
    Over { via: LocalId },
}

/// The relays of one peer.
#[derive(Default)]
pub(super) struct Relays {
    servers: Vec<TurnServer>,
    /// The server wants no other ways.
    only: bool,
    /// Of `servers` the one that is tried next.
    next: usize,
    /// When, if not at once.
    next_at: Option<Instant>,
    /// When the latest was tried.
    tried_at: Option<Instant>,
    relays: Vec<Relay>,
    said: Vec<String>,
    wrapped: Vec<u8>,
}

impl Relays {
    /// Takes the servers that may be tried, in their order, in the place of those before. What
    /// stands by one of those goes on.
    pub(super) fn name(&mut self, servers: Vec<TurnServer>, only: bool, transport: Transport) {
        let is_tried = |server: &TurnServer| server.is_usable() && transport.tries(server.by);
        let mut servers: Vec<_> = servers.into_iter().filter(is_tried).collect();
        servers.sort_by_key(|server| server.by);
        servers.truncate(TURN_SERVERS_MAX);
        (self.servers, self.only) = (servers, only);
        self.begin();
    }

    /// All that is not there is tried again.
    pub(super) fn begin(&mut self) {
        (self.next, self.next_at) = (0, None);
        self.said.clear();
    }

    /// All that there was is gone with its network.
    pub(super) fn leave(&mut self) {
        self.relays.clear();
        self.begin();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.relays.is_empty()
    }

    /// Those that relayed, and by which nothing came for a while: a server that was started anew, or to
    /// which we come from another port now, knows nothing of an allocation, and tells that only to who
    /// asks for more time, minutes later.
    pub(super) fn silent(&self, now: Instant) -> Vec<LocalId> {
        let is_silent = |relay: &&Relay| {
            !relay.ended && relay.relayed.is_some() && relay.heard_at + SILENT_AFTER <= now
        };
        self.relays.iter().filter(is_silent).map(|relay| relay.via).collect()
    }

    /// The server wants no other ways.
    pub(super) fn only(&self) -> bool {
        self.only
    }

    /// Some were named that may be tried.
    pub(super) fn are_named(&self) -> bool {
        !self.servers.is_empty()
    }

    /// When the latest was tried.
    pub(super) fn tried_at(&self) -> Option<Instant> {
        self.tried_at
    }

    /// A bit for each of their ways.
    pub(super) fn bits(&self) -> u8 {
        let there = self.relays.iter().filter(|relay| !relay.ended);
        there.fold(0, |bits, relay| bits | 1 << relay.via.index())
    }

    /// Forgets those that are over, once nothing waits to be sent any more.
    pub(super) fn sweep(&mut self) {
        self.relays.retain(|relay| !relay.ended);
    }

    fn get(&mut self, via: LocalId) -> Option<&mut Relay> {
        self.relays.iter_mut().find(|relay| relay.via == via && !relay.ended)
    }

    fn note(&mut self, said: String) {
        if self.said.len() < SAID_MAX && !self.said.contains(&said) {
            self.said.push(said);
        }
    }

    /// Asks for the sockets and streams that are due; `from` is when the first one is. When to ask
    /// again.
    pub(super) fn dial(
        &mut self,
        now: Instant,
        from: Instant,
        candidates: &mut Candidates,
        outbox: &mut Outbox,
    ) -> Option<Instant> {
        while let Some(server) = self.servers.get(self.next) {
            let due = self.next_at.map_or(from, |at| at.max(from));
            if due > now {
                return Some(due);
            }
            let Some(address) = server.address else {
                let said = format!("{server} could not be asked: its name has no address");
                self.next += 1;
                self.note(said);
                continue;
            };
            // Credentials that are too old are none for what has still to be allocated.
            let same = |relay: &Relay| {
                !relay.ended
                    && (relay.server.by, relay.address) == (server.by, address)
                    && (relay.relayed.is_some() || relay.server == *server)
            };
            if self.relays.iter().any(same) {
                self.next += 1;
                continue;
            }
            let via = match candidates.allocate() {
                Some(via) => via,
                None => match self.give_up_silent(now) {
                    Ok(silent) => {
                        candidates.give_up_relay(silent);
                        outbox.request_address(AddressRequest::Close { via: silent });
                        continue;
                    }
                    Err(due) => return due,
                },
            };
            let (by, host) = (server.by, server.host.clone());
            let server = server.clone();
            outbox.request_address(AddressRequest::Relay { via, server: address, by, host });
            self.relays.push(Relay {
                via,
                server,
                address,
                socket: NOWHERE,
                allocation: None,
                relayed: None,
                asked_at: now,
                heard_at: now,
                ended: false,
            });
            self.next += 1;
            (self.tried_at, self.next_at) = (Some(now), Some(now + NEXT_TURN_AFTER));
        }
        None
    }

    /// Gives up the server that was asked first of those that have not answered in a while, for another
    /// one's sake; else when there may be one.
    fn give_up_silent(&mut self, now: Instant) -> Result<LocalId, Option<Instant>> {
        let silent = |relay: &&mut Relay| !relay.ended && relay.relayed.is_none();
        let oldest = self.relays.iter_mut().filter(silent).min_by_key(|relay| relay.asked_at);
        let Some(relay) = oldest else { return Err(None) };
        let due = relay.asked_at + SILENT_AFTER;
        if due > now {
            return Err(Some(due));
        }
        relay.ended = true;
        let (via, said) = (relay.via, relay.unanswered());
        self.note(said);
        Ok(via)
    }

    /// The socket or stream of a relay is there; false if that one is not wanted any more.
    pub(super) fn connected(&mut self, now: Instant, via: LocalId, local: SocketAddr) -> bool {
        let Some(relay) = self.get(via) else { return false };
        relay.socket = local;
        relay.allocation = Some(Allocation::new(now, local, relay.address, &relay.server));
        true
    }

    /// There is no socket or stream, or none any more.
    pub(super) fn closed(&mut self, via: LocalId, why: &str) {
        let gone: Vec<_> = self.relays.extract_if(.., |relay| relay.via == via).collect();
        for relay in gone {
            let what = match relay.relayed {
                Some(_) => "could be reached no more",
                None => "could not be reached",
            };
            self.note(format!("{} {what}: {why}", relay.server));
            self.next_at = None;
        }
    }

    /// What a message from a relay's socket or stream is.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        via: LocalId,
        source: SocketAddr,
        message: &[u8],
    ) -> FromServer {
        let relay = self.get(via).filter(|relay| relay.address == source);
        let Some(relay) = relay else { return FromServer::Nothing };
        relay.heard_at = now;
        let allocation = relay.allocation.as_mut();
        allocation.map_or(FromServer::Nothing, |allocation| allocation.receive(now, message))
    }

    /// Whether a datagram of ICE's has to wait for its channel; then it does.
    pub(super) fn hold(
        &mut self,
        now: Instant,
        via: LocalId,
        to: SocketAddr,
        datagram: &[u8],
    ) -> bool {
        let allocation = self.get(via).and_then(|relay| relay.allocation.as_mut());
        let Some(allocation) = allocation.filter(|allocation| !allocation.reaches(to)) else {
            return false;
        };
        // One for which there is no room is repeated, and may find some.
        allocation.hold(now, to, datagram.to_vec());
        true
    }

    /// Sends a datagram by way of a relay, or to its server itself. False if no channel leads there,
    /// `None` if this is no relay's.
    fn transmit(
        &mut self,
        via: LocalId,
        to: SocketAddr,
        datagram: &[u8],
        sink: &mut dyn PeerSink,
    ) -> Option<bool> {
        // Its number may be another one's by now.
        let relay = self.relays.iter().rev().find(|relay| relay.via == via)?;
        if to == relay.address {
            sink.transmit(via, to, datagram);
            return Some(true);
        }
        let wrapped = &mut self.wrapped;
        let is_wrapped =
            relay.allocation.as_ref().is_some_and(|own| own.wrap(to, datagram, wrapped));
        if is_wrapped {
            sink.transmit(via, relay.address, wrapped);
        }
        Some(is_wrapped)
    }

    /// What the allocations have to send, and what has become of them; when to ask again.
    pub(super) fn poll(
        &mut self,
        now: Instant,
        outbox: &mut Outbox,
        happened: &mut Vec<RelayEvent>,
    ) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut said = Vec::new();
        for relay in self.relays.iter_mut().filter(|relay| !relay.ended) {
            let Some(allocation) = &mut relay.allocation else { continue };
            let (via, address, by) = (relay.via, relay.address, relay.server.by);
            let mut send = |message: Vec<u8>| outbox.datagram(via, address, message.into());
            let due = allocation.poll(now, &mut send, &mut |event| match event {
                AllocationEvent::Allocated(relayed) => {
                    relay.relayed = Some(relayed);
                    let socket = relay.socket;
                    happened.push(RelayEvent::Allocated { via, by, socket, relayed });
                }
                AllocationEvent::NoChannel(_, why) => said.push(format!("{} {why}", relay.server)),
                AllocationEvent::Over(why) => {
                    said.push(format!("{} {why}", relay.server));
                    relay.ended = true;
                    happened.push(RelayEvent::Over { via });
                }
            });
            next = due.map_or(next, |due| Some(next.map_or(due, |next| next.min(due))));
        }
        if happened.iter().any(|event| matches!(event, RelayEvent::Over { .. })) {
            // The next one need not wait.
            self.next_at = None;
        }
        said.into_iter().for_each(|said| self.note(said));
        next
    }

    /// Gives back what was allocated by this one, or by all.
    pub(super) fn end(&mut self, now: Instant, which: Option<LocalId>, outbox: &mut Outbox) {
        let is_it = |relay: &&mut Relay| !relay.ended && which.is_none_or(|via| relay.via == via);
        for relay in self.relays.iter_mut().filter(is_it) {
            relay.ended = true;
            let (via, address) = (relay.via, relay.address);
            if let Some(allocation) = &mut relay.allocation {
                allocation.end(now, &mut |message: Vec<u8>| {
                    outbox.datagram(via, address, message.into());
                });
            }
        }
    }

    /// What there is to say of why it is not connected by them.
    pub(super) fn said(&self) -> Vec<String> {
        let mut said = self.said.clone();
        let there = self.relays.iter().filter(|relay| !relay.ended);
        said.extend(there.map(|relay| match relay.relayed {
            Some(relayed) => format!("{} relays at {relayed}, but no pair worked", relay.server),
            None => relay.unanswered(),
        }));
        said
    }
}

/// Sends by way of relays what leaves by them.
pub(super) struct RelaySink<'a> {
    pub(super) relays: &'a mut Relays,
    pub(super) sink: &'a mut dyn PeerSink,
    /// Datagrams to where no channel leads.
    pub(super) unsent: u64,
}

impl PeerSink for RelaySink<'_> {
    fn transmit(&mut self, via: LocalId, destination: SocketAddr, payload: &[u8]) {
        match self.relays.transmit(via, destination, payload, self.sink) {
            Some(true) => {}
            Some(false) => self.unsent += 1,
            None => self.sink.transmit(via, destination, payload),
        }
    }

    fn event(&mut self, event: PeerEvent) {
        self.sink.event(event);
    }

    fn address(&mut self, request: AddressRequest) {
        self.sink.address(request);
    }

    fn recorded(&mut self, stream: &RecordedStream, frame: RecordedFrame) {
        self.sink.recorded(stream, frame);
    }

    fn recording_ended(&mut self, stream: &RecordedStream, counted: &AssemblerCounters) {
        self.sink.recording_ended(stream, counted);
    }

    fn sample(&mut self, sample: Sample) {
        self.sink.sample(sample);
    }
}
