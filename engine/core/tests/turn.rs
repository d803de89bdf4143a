//! Ways by TURN servers, over a network in virtual time: a peer, a media server, and TURN servers
//! that do what a test wants.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "turn/server.rs"]
mod server;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use common::{UNIX_BASE_NS, ms, options};
use proptest::prelude::*;
use server::{PASSWORD, TurnAt, USER};
use stampede_core::peer::{
    NEXT_TURN_AFTER, RELAYS_MAX, TURN_AFTER, TURN_SERVERS_MAX, UNUSED_LOCAL_AFTER,
};
use stampede_core::{
    AddressRequest, Arrival, LocalId, MediaFailure, PathKind, Peer, PeerEvent, PeerOptions,
    PeerSink, RecordedFrame, RecordedStream, Scratch, Transport, TurnServer,
};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Input, Output, Rtc};

const SERVER: &str = "10.0.0.5:7882";
const HOST: &str = "192.168.0.1:40001";
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Sink {
    datagrams: Vec<(LocalId, SocketAddr, Vec<u8>)>,
    events: Vec<PeerEvent>,
    address_requests: Vec<AddressRequest>,
}

impl PeerSink for Sink {
    fn transmit(&mut self, via: LocalId, destination: SocketAddr, payload: &[u8]) {
        self.datagrams.push((via, destination, payload.to_vec()));
    }

    fn event(&mut self, event: PeerEvent) {
        self.events.push(event);
    }

    fn address(&mut self, request: AddressRequest) {
        self.address_requests.push(request);
    }

    fn recorded(&mut self, _: &RecordedStream, _: RecordedFrame) {}
}

/// From and to where, and what.
type Datagram = (SocketAddr, SocketAddr, Vec<u8>);

struct Net {
    start: Instant,
    now: Instant,
    peer: Peer,
    server: Rtc,
    sink: Sink,
    sockets: HashMap<LocalId, SocketAddr>,
    next_port: u16,
    turns: Vec<TurnAt>,
    /// Ways to TURN servers that were asked for, and when.
    asked: Vec<(LocalId, PathKind, Instant)>,
    /// No stream is to be had.
    refuses_streams: bool,
    /// Between the peer's own sockets and the media server nothing comes through.
    is_blocked: bool,
    queue: BTreeMap<(Instant, u64), Datagram>,
    serial: u64,
    server_wake: Instant,
    peer_wake: Instant,
    closed: Vec<SocketAddr>,
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn turn_server(by: PathKind, address: SocketAddr) -> TurnServer {
    TurnServer {
        by,
        host: address.ip().to_string().into(),
        address: Some(address),
        username: USER.into(),
        credential: PASSWORD.into(),
    }
}

impl Net {
    /// A subscriber that has answered an offer without candidates.
    fn new(transport: Transport, local: Option<&str>) -> Self {
        let start = Instant::now();
        let local = local.map(address);
        let route = |_| Some(IpAddr::from([192, 168, 0, 1]));
        let options = PeerOptions { route: Some(route), transport, ..options() };
        let peer = Peer::subscriber(start, local, &options, false).unwrap();
        let mut net = Self {
            start,
            now: start,
            peer,
            server: Rtc::builder().set_rtp_mode(true).build(start),
            sink: Sink::default(),
            sockets: local.map(|local| (LocalId::default(), local)).into_iter().collect(),
            next_port: 41_000,
            turns: Vec::new(),
            asked: Vec::new(),
            refuses_streams: false,
            is_blocked: false,
            queue: BTreeMap::new(),
            serial: 0,
            server_wake: start,
            peer_wake: start,
            closed: Vec::new(),
        };
        let mut changes = net.server.sdp_api();
        changes.add_media(MediaKind::Video, Direction::SendOnly, None, None, None);
        let (offer, pending) = changes.apply().unwrap();
        net.answer(&offer, pending);
        let server = Candidate::host(address(SERVER), "udp").unwrap();
        net.server.add_local_candidate(server).unwrap();
        net
    }

    fn answer(&mut self, offer: &SdpOffer, pending: SdpPendingOffer) {
        let answer = self.peer.accept_offer(self.now, &offer.to_sdp_string(), &[]).unwrap();
        let answer = SdpAnswer::from_sdp_string(&answer).unwrap();
        self.server.sdp_api().accept_answer(pending, answer).unwrap();
    }

    /// There are TURN servers, each reached in another way, and the peer knows them.
    fn name(&mut self, by: &[PathKind], only: bool) {
        let first = self.turns.len();
        for (index, _) in by.iter().enumerate() {
            let number = (first + index + 1) as u8;
            self.turns.push(TurnAt::new(SocketAddr::from(([10, 9, 9, number], 3_478))));
        }
        let servers = by.iter().zip(&self.turns[first..]);
        let servers = servers.map(|(by, turn)| turn_server(*by, turn.address)).collect();
        self.peer.set_turn_servers(self.now, servers, only);
        self.exchange();
    }

    /// The server restarts ICE, and both have two seconds for it.
    fn restart_ice(&mut self) {
        let mut changes = self.server.sdp_api();
        changes.ice_restart(true);
        let (offer, pending) = changes.apply().unwrap();
        self.sink.events.clear();
        self.answer(&offer, pending);
        self.trickle();
        self.run(Duration::from_secs(2));
    }

    /// The server says where it is.
    fn trickle(&mut self) {
        let SocketAddr::V4(at) = address(SERVER) else { panic!() };
        let line = format!("candidate:1 1 udp 2130706431 {} {} typ host", at.ip(), at.port());
        self.peer.add_remote_candidate(self.now, &line).unwrap();
        self.exchange();
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let is_own = |address| self.sockets.values().any(|local| *local == address);
        let server = address(SERVER);
        if self.is_blocked && ((is_own(from) && to == server) || (is_own(to) && from == server)) {
            return;
        }
        self.serial += 1;
        self.queue.insert((self.now + ms(10), self.serial), (from, to, bytes));
    }

    fn exchange(&mut self) {
        loop {
            match self.server.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.server_wake = at;
                    break;
                }
                Ok(Output::Transmit(sent)) => {
                    self.send(sent.source, sent.destination, sent.contents.to_vec());
                }
                Ok(Output::Event(_)) => {}
                Err(_) => {
                    self.server_wake = self.now + Duration::from_secs(36_000);
                    break;
                }
            }
        }
        loop {
            self.peer_wake = self.peer.drain(self.now, &mut self.sink);
            for (via, to, bytes) in std::mem::take(&mut self.sink.datagrams) {
                let Some(from) = self.sockets.get(&via).copied() else { continue };
                self.send(from, to, bytes);
            }
            // The server hears of every candidate.
            for event in &mut self.sink.events {
                if let PeerEvent::LocalCandidate { candidate } = event
                    && let Ok(candidate) = Candidate::from_sdp_string(candidate)
                {
                    self.server.add_remote_candidate(candidate);
                }
            }
            let address_requests = std::mem::take(&mut self.sink.address_requests);
            if address_requests.is_empty() {
                return;
            }
            address_requests.into_iter().for_each(|request| self.grant(request));
        }
    }

    fn grant(&mut self, request: AddressRequest) {
        match request {
            AddressRequest::Relay { via, by, .. } => {
                self.asked.push((via, by, self.now));
                if self.refuses_streams && by != PathKind::TurnUdp {
                    return self.peer.stream_closed(self.now, via, "refused".to_owned());
                }
                self.next_port += 1;
                let local = SocketAddr::from(([192, 168, 0, 1], self.next_port));
                assert_eq!(self.sockets.insert(via, local), None);
                assert!(self.peer.stream_connected(self.now, via, local));
            }
            AddressRequest::Close { via } => self.closed.push(self.sockets.remove(&via).unwrap()),
            AddressRequest::Open { .. } | AddressRequest::Connect { .. } => panic!("{request:?}"),
        }
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.exchange();
        loop {
            let queued = self.queue.first_key_value().map(|(&(at, _), _)| at);
            let next = self.peer_wake.min(self.server_wake);
            let next = queued.map_or(next, |at| at.min(next)).max(self.now);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            self.step();
        }
    }

    fn step(&mut self) {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (from, to, bytes) = entry.remove();
            self.deliver(from, to, bytes);
            self.exchange();
        }
        if self.server_wake <= self.now {
            self.server.handle_input(Input::Timeout(self.now)).unwrap();
        }
        if self.peer_wake <= self.now {
            self.peer.handle_timeout(self.now);
        }
        self.exchange();
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        for turn in &mut self.turns {
            for (from, to, bytes) in turn.take(self.now, from, to, &bytes) {
                self.serial += 1;
                self.queue.insert((self.now + ms(10), self.serial), (from, to, bytes));
            }
        }
        let via = self.sockets.iter().find(|(_, local)| **local == to);
        if let Some((&via, _)) = via {
            self.arrive(via, from, &bytes);
        } else if to == address(SERVER)
            && let Ok(receive) = Receive::new(Protocol::Udp, from, to, &bytes)
        {
            self.server.handle_input(Input::Receive(self.now, receive)).unwrap();
        }
    }

    fn arrive(&mut self, via: LocalId, from: SocketAddr, bytes: &[u8]) {
        let unix_ns = UNIX_BASE_NS + (self.now - self.start).as_nanos() as u64;
        let at = Arrival { instant: self.now, unix_ns };
        self.peer.received_on(via);
        if let Some((from, bytes)) = self.peer.relayed(at, via, from, bytes) {
            self.peer.handle_datagram(at, from, bytes, &mut Scratch::default());
        }
    }

    fn is_connected(&self) -> bool {
        self.sink.events.contains(&PeerEvent::Connected) && self.peer.is_connected()
    }

    fn failures(&self) -> Vec<String> {
        let failures = self.sink.events.iter().filter_map(|event| match event {
            PeerEvent::Disconnected { failure } => Some(failure.to_string()),
            _ => None,
        });
        failures.collect()
    }

    /// Why there is no pair.
    fn no_pair(&mut self) -> String {
        self.peer.give_up();
        self.exchange();
        let failure = self.sink.events.iter().find_map(|event| match event {
            PeerEvent::Disconnected { failure } => match &**failure {
                MediaFailure::NoCandidatePair(pair) => Some(pair.to_string()),
                _ => None,
            },
            _ => None,
        });
        failure.unwrap()
    }

    fn close(&mut self) {
        self.peer.close(self.now, &mut self.sink);
        for (via, to, bytes) in std::mem::take(&mut self.sink.datagrams) {
            let from = self.sockets[&via];
            self.deliver(from, to, bytes);
        }
    }
}

fn only(path: PathKind) -> Transport {
    Transport::Only(path)
}

#[test]
fn media_goes_through_a_channel_for_as_long_as_it_lasts() {
    for by in PathKind::RELAYED {
        let mut net = Net::new(only(by), None);
        net.name(&[by], false);
        net.run(ms(500));
        assert!(net.turns[0].is_allocated(), "nothing of the server's has to be known for it");
        net.trickle();
        net.run(ms(1_500));
        assert!(net.is_connected() && net.failures().is_empty(), "{:?}", net.sink.events);
        assert!(net.sink.events.contains(&PeerEvent::Path { path: by }));
        assert_eq!(net.peer.path(), by);
        assert_eq!((net.asked.len(), net.sockets.len()), (1, 1));
        // Longer than what is allocated, allowed and bound lasts; and the nonce grows old meanwhile.
        for _ in 0..5 {
            net.turns[0].new_nonce();
            net.run(7 * MINUTE);
        }
        assert!(net.is_connected() && net.failures().is_empty(), "{:?}", net.sink.events);
        let turn = &net.turns[0];
        assert!(turn.is_allocated() && turn.relayed_out > 100 && turn.relayed_in > 100);
        assert_eq!((turn.send_indications, turn.unallowed), (0, 0));
        assert!(turn.refreshes >= 3 && turn.stale >= 4, "{} {}", turn.refreshes, turn.stale);
        net.close();
        assert!(!net.turns[0].is_allocated(), "it was given back");
    }
}

#[test]
fn what_a_turn_server_refuses_is_in_the_failure() {
    let said = |change: &dyn Fn(&mut TurnAt)| {
        let mut net = Net::new(only(PathKind::TurnUdp), None);
        net.name(&[PathKind::TurnUdp], false);
        change(&mut net.turns[0]);
        net.trickle();
        net.run(Duration::from_secs(5));
        assert!(!net.is_connected());
        net.no_pair()
    };
    let begins = "no candidate pair worked: no candidate of ours, the server's udp 10.0.0.5:7882; \
                  the TURN server at 10.9.9.1:3478 (UDP) ";
    let ends = "; with --transport turn-udp nothing else is tried";
    let refused = said(&|turn| turn.refuses_allocations = Some((403, "Forbidden\n", true)));
    assert_eq!(refused, format!("{begins}refused the allocation: 403 Forbidden{ends}"));
    // As pion has it.
    let full = said(&|turn| turn.refuses_allocations = Some((486, "Quota", false)));
    assert_eq!(full, format!("{begins}refused the allocation: 486 Quota{ends}"));
    let unknown = said(&|turn| turn.password = "another");
    assert_eq!(unknown, format!("{begins}refused the allocation: 401 Unauthorized{ends}"));
    let silent = said(&|turn| turn.is_silent = true);
    assert_eq!(silent, format!("{begins}did not answer{ends}"));
    let denied = said(&|turn| turn.refuses_peers = true);
    let why = "refused to relay to 10.0.0.5:7882: 403 Forbidden";
    assert!(denied.contains(&format!("the TURN server at 10.9.9.1:3478 (UDP) {why}")), "{denied}");
    let unsigned = said(&|turn| turn.refuses_peers_unsigned = true);
    let why = "refused to relay to 10.0.0.5:7882: 401 Unauthorized";
    assert!(unsigned.contains(&format!("the TURN server at 10.9.9.1:3478 (UDP) {why}")));
    for said in [refused, full, unknown, silent, denied, unsigned] {
        assert!(!said.contains(USER) && !said.contains(PASSWORD));
    }
}

#[test]
fn a_refusal_that_is_not_signed_is_no_broken_message_and_is_told_once() {
    let mut net = Net::new(only(PathKind::TurnUdp), None);
    net.name(&[PathKind::TurnUdp], false);
    net.turns[0].refuses_peers_unsigned = true;
    net.trickle();
    // The client repeats what it asks for.
    net.run(Duration::from_secs(45));
    let said = net.no_pair();
    assert_eq!(said.matches("refused to relay to").count(), 1, "{said}");
    assert!(!said.contains("a request to relay"), "{said}");
    assert_eq!(net.peer.counters().transport.malformed, 0);
}

#[test]
fn channels_stand_in_whatever_order_their_answers_come() {
    let mut net = Net::new(only(PathKind::TurnUdp), None);
    net.name(&[PathKind::TurnUdp], false);
    net.turns[0].turns_round = 2;
    for port in [7_001, 7_882] {
        let line = format!("candidate:1 1 udp 2130706431 10.0.0.5 {port} typ host");
        net.peer.add_remote_candidate(net.now, &line).unwrap();
    }
    net.exchange();
    net.run(Duration::from_secs(2));
    assert!(net.is_connected() && net.failures().is_empty(), "{:?}", net.sink.events);
    assert_eq!((net.turns[0].send_indications, net.turns[0].unallowed), (0, 0));
}

#[test]
fn new_credentials_are_used_while_the_old_ones_are_not_refused_yet() {
    let mut net = Net::new(only(PathKind::TurnUdp), None);
    net.name(&[PathKind::TurnUdp], false);
    net.turns[0].password = "another";
    let new = TurnServer {
        credential: "another".into(),
        ..turn_server(PathKind::TurnUdp, net.turns[0].address)
    };
    net.peer.set_turn_servers(net.now, vec![new], false);
    net.trickle();
    net.run(Duration::from_secs(2));
    assert!(net.is_connected() && net.failures().is_empty(), "{:?}", net.sink.events);
    assert_eq!(net.asked.len(), 2);
}

#[test]
fn a_fourth_server_is_asked_where_three_are_silent() {
    let mut net = Net::new(only(PathKind::TurnUdp), None);
    net.name(&[PathKind::TurnUdp; 4], false);
    net.turns[..3].iter_mut().for_each(|turn| turn.is_silent = true);
    net.trickle();
    net.run(Duration::from_secs(7));
    assert!(net.is_connected() && net.failures().is_empty(), "{:?}", net.sink.events);
    let at: Vec<_> = net.asked.iter().map(|(.., at)| *at - net.start).collect();
    // In the place of the first, five seconds after that was asked.
    assert_eq!(at, [0, 1, 2, 5].map(Duration::from_secs));
    assert_eq!(net.closed.len(), 1);
    // And the others are not kept beside it.
    net.run(UNUSED_LOCAL_AFTER);
    assert_eq!((net.sockets.len(), net.closed.len()), (1, 3));
    assert!(net.is_connected());
}

#[test]
fn so_many_servers_are_kept_and_so_many_are_asked_at_a_time() {
    let mut net = Net::new(only(PathKind::TurnUdp), None);
    net.name(&[PathKind::TurnUdp; TURN_SERVERS_MAX + 1], false);
    net.turns.iter_mut().for_each(|turn| turn.is_silent = true);
    net.trickle();
    let mut at_a_time = 0;
    for _ in 0..100 {
        net.run(Duration::from_secs(1));
        at_a_time = at_a_time.max(net.sockets.len());
    }
    assert_eq!((net.asked.len(), at_a_time), (TURN_SERVERS_MAX, RELAYS_MAX));
}

#[test]
fn relays_alone_take_over_from_what_carries_media_when_ice_restarts() {
    let mut net = Net::new(Transport::Auto, Some(HOST));
    net.trickle();
    net.run(Duration::from_secs(1));
    assert!(net.is_connected() && net.peer.path() == PathKind::Udp);
    net.name(&[PathKind::TurnUdp, PathKind::TurnUdp], true);
    net.turns[0].is_silent = true;
    let mut changes = net.server.sdp_api();
    changes.ice_restart(true);
    let (offer, pending) = changes.apply().unwrap();
    net.sink.events.clear();
    net.answer(&offer, pending);
    net.trickle();
    net.run(ms(900));
    assert!(net.closed.is_empty(), "no relay is there yet");
    assert!(net.peer.is_connected());
    net.run(Duration::from_secs(4));
    assert_eq!(net.closed, [address(HOST)]);
    assert_eq!(net.peer.path(), PathKind::TurnUdp);
    assert!(net.peer.is_connected() && net.failures().is_empty(), "{:?}", net.sink.events);
}

#[test]
fn without_a_server_that_may_be_asked_the_failure_says_so() {
    let mut net = Net::new(only(PathKind::TurnTls), None);
    net.name(&[PathKind::TurnUdp], false);
    net.trickle();
    net.run(Duration::from_secs(5));
    let said = net.no_pair();
    assert!(said.ends_with("and the server named no TURN server of that kind"), "{said}");
    let mut net = Net::new(only(PathKind::TurnTls), None);
    let unresolved = TurnServer {
        address: None,
        host: "turn.example".into(),
        ..turn_server(PathKind::TurnTls, address("10.9.9.1:443"))
    };
    assert_eq!(format!("{unresolved:?}"), "TurnServer(turn.example (TLS))");
    net.peer.set_turn_servers(net.now, vec![unresolved], false);
    net.trickle();
    net.run(Duration::from_secs(5));
    let why = "turn.example (TLS) could not be asked: its name has no address";
    assert!(net.no_pair().contains(why));
}

#[test]
fn auto_asks_when_nothing_else_worked_and_gives_up_what_it_does_not_use() {
    let mut net = Net::new(Transport::Auto, Some(HOST));
    net.is_blocked = true;
    net.name(&[PathKind::TurnTls, PathKind::TurnUdp, PathKind::TurnTcp], false);
    net.turns[1].is_silent = true;
    net.refuses_streams = true;
    net.trickle();
    net.run(TURN_AFTER - ms(1));
    assert!(net.asked.is_empty());
    net.run(NEXT_TURN_AFTER + ms(10));
    let asked: Vec<_> = net.asked.iter().map(|(_, by, at)| (*by, *at - net.start)).collect();
    let next = TURN_AFTER + NEXT_TURN_AFTER;
    let wanted = [
        (PathKind::TurnUdp, TURN_AFTER),
        (PathKind::TurnTcp, next),
        // At once after a refusal.
        (PathKind::TurnTls, next),
    ];
    assert_eq!(asked, wanted);

    let mut net = Net::new(Transport::Auto, Some(HOST));
    net.is_blocked = true;
    net.name(&[PathKind::TurnUdp, PathKind::TurnTcp], false);
    net.turns[0].is_silent = true;
    net.trickle();
    net.run(Duration::from_secs(8));
    assert!(net.is_connected() && net.failures().is_empty(), "{:?}", net.sink.events);
    assert_eq!((net.peer.path(), net.sockets.len()), (PathKind::TurnTcp, 3));
    net.run(UNUSED_LOCAL_AFTER);
    assert_eq!((net.sockets.len(), net.closed.len()), (1, 2));
    net.run(MINUTE);
    assert!(net.is_connected() && net.failures().is_empty());
}

#[test]
fn where_udp_works_no_turn_server_is_asked() {
    let mut net = Net::new(Transport::Auto, Some(HOST));
    net.name(&PathKind::RELAYED, false);
    net.trickle();
    net.run(MINUTE);
    assert!(net.is_connected() && net.asked.is_empty());
    assert_eq!((net.peer.path(), net.sockets.len()), (PathKind::Udp, 1));
}

#[test]
fn who_is_to_use_relays_alone_has_no_other_socket() {
    let mut net = Net::new(Transport::Auto, Some(HOST));
    net.trickle();
    net.name(&[PathKind::TurnUdp], true);
    assert_eq!(net.closed, [address(HOST)]);
    net.run(ms(1_500));
    assert!(net.is_connected() && net.failures().is_empty(), "{:?}", net.sink.events);
    assert_eq!((net.peer.path(), net.sockets.len()), (PathKind::TurnUdp, 1));
    assert!(!net.peer.uses_udp());
    // It may not, by either's word.
    let mut net = Net::new(only(PathKind::Udp), Some(HOST));
    net.name(&[PathKind::TurnUdp], true);
    net.trickle();
    net.run(Duration::from_secs(12));
    let said = net.no_pair();
    let why = "the server wants relays alone (force_relay), and --transport udp has none";
    assert!(said.ends_with(why), "{said}");
}

#[test]
fn a_relay_that_ends_is_a_loss_and_a_restart_has_another() {
    let mut net = Net::new(only(PathKind::TurnTcp), None);
    net.name(&[PathKind::TurnTcp], false);
    net.trickle();
    net.run(ms(1_500));
    assert!(net.is_connected());
    let (via, ..) = net.asked[0];
    net.sockets.remove(&via);
    net.turns[0].forget();
    net.peer.stream_closed(net.now, via, "reset".to_owned());
    net.exchange();
    assert_eq!(net.failures().len(), 1, "{:?}", net.sink.events);
    net.restart_ice();
    assert!(net.sink.events.contains(&PeerEvent::IceConnected), "{:?}", net.sink.events);
    assert!(net.peer.is_connected() && net.asked.len() == 2);

    // A phone that changes its network.
    net.sink.events.clear();
    net.sockets.clear();
    net.turns[0].forget();
    net.peer.change_connections(net.now).unwrap();
    net.exchange();
    net.run(Duration::from_secs(3));
    assert_eq!(net.asked.len(), 3);
    assert!(net.turns[0].is_allocated());
    assert!(net.peer.is_connected(), "{:?}", net.sink.events);
}

/// A TURN server that is started anew knows no allocation, and says nothing of it.
#[test]
fn a_relay_by_which_nothing_comes_any_more_is_asked_for_anew_when_ice_restarts() {
    let allocations = |silent_for: Duration| {
        let mut net = Net::new(only(PathKind::TurnUdp), None);
        net.name(&[PathKind::TurnUdp], false);
        net.trickle();
        net.run(ms(1_500));
        assert!(net.is_connected());
        net.turns[0].forget();
        net.turns[0].new_nonce();
        net.run(silent_for);
        net.restart_ice();
        let works = net.sink.events.contains(&PeerEvent::IceConnected);
        assert_eq!(works, net.turns[0].is_allocated(), "{:?}", net.sink.events);
        assert_eq!(net.closed.len(), net.asked.len() - 1);
        net.asked.len()
    };
    assert_eq!(allocations(Duration::from_secs(6)), 2);
    // What was heard of a moment ago may well be there.
    assert_eq!(allocations(Duration::from_secs(1)), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// At whatever state the client is.
    #[test]
    fn any_bytes_of_a_turn_server_are_taken(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 1..8),
        first in prop::sample::select(vec![0_u8, 1, 64, 79, 128]),
        after_ms in 0..1_500_u64,
    ) {
        let mut net = Net::new(only(PathKind::TurnUdp), None);
        net.name(&[PathKind::TurnUdp], false);
        net.trickle();
        net.run(ms(after_ms));
        let (via, turn) = (net.asked[0].0, net.turns[0].address);
        for message in messages {
            let with_first = [&[first][..], &message].concat();
            net.arrive(via, turn, &message);
            net.arrive(via, turn, &with_first);
            net.arrive(via, address(SERVER), &with_first);
        }
        net.run(Duration::from_secs(2));
    }
}
