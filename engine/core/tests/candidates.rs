//! Local addresses for the candidates that are there, over a network in virtual time with as many
//! addresses on either side as a test wants.

#![allow(clippy::unwrap_used)]

mod common;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use common::{UNIX_BASE_NS, ms, options};
use stampede_core::peer::{
    LOCAL_ADDRESSES_MAX, NO_PAIR_AFTER, OTHER_ROUTE_AFTER, REMOTE_CANDIDATES_MAX, TCP_AFTER,
    UNUSED_LOCAL_AFTER,
};
use stampede_core::{
    AddressRequest, Arrival, Heard, LocalId, MediaFailure, NoCandidatePair, PathKind, Peer,
    PeerEvent, PeerOptions, PeerSink, RecordedFrame, RecordedStream, Scratch, Transport,
};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol, Receive, TcpType};
use str0m::{Candidate, Input, Output, Rtc};

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

/// By which protocol, from and to where, and what.
type Datagram = (Protocol, SocketAddr, SocketAddr, Vec<u8>);
type Blocked = Box<dyn Fn(SocketAddr, SocketAddr) -> bool>;

/// A peer, a server, and this machine's routes.
struct Net {
    start: Instant,
    now: Instant,
    peer: Peer,
    server: Rtc,
    pending: Option<SdpPendingOffer>,
    sink: Sink,
    /// Where the peer's sockets are.
    sockets: HashMap<LocalId, SocketAddr>,
    next_port: u16,
    /// Of these the TCP connections, and when they were asked for.
    dialled: Vec<(LocalId, SocketAddr, Instant)>,
    /// Nobody listens on TCP.
    refuses_tcp: bool,
    /// No socket is to be had here.
    refused: Option<IpAddr>,
    blocked: Blocked,
    queue: BTreeMap<(Instant, u64), Datagram>,
    serial: u64,
    server_wake: Instant,
    peer_wake: Instant,
    /// All that were opened, and closed.
    opened: Vec<IpAddr>,
    closed: Vec<SocketAddr>,
}

thread_local! {
    /// From where a remote address is reached; else from the loopback of its family.
    static ROUTES: RefCell<HashMap<IpAddr, Option<IpAddr>>> = RefCell::default();
}

fn set_route(remote: IpAddr, from: Option<IpAddr>) {
    ROUTES.with_borrow_mut(|routes| routes.insert(remote, from));
}

fn route(remote: SocketAddr) -> Option<IpAddr> {
    let loopback = if remote.is_ipv4() { "127.0.0.1" } else { "::1" };
    let known = ROUTES.with_borrow(|routes| routes.get(&remote.ip()).copied());
    known.unwrap_or_else(|| loopback.parse().ok())
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn line(transport: &str, address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!("candidate:1 1 {transport} 2130706431 {ip} {port} typ host")
}

impl Net {
    /// A subscriber that has answered an offer without candidates.
    fn new(local: Option<&str>) -> Self {
        Self::by(Transport::Auto, local)
    }

    /// The same, by this transport.
    fn by(transport: Transport, local: Option<&str>) -> Self {
        let start = Instant::now();
        let local = local.map(address);
        ROUTES.with_borrow_mut(HashMap::clear);
        let options = PeerOptions { route: Some(route), transport, ..options() };
        let peer = Peer::subscriber(start, local, &options, false).unwrap();
        let server = Rtc::builder().set_rtp_mode(true).build(start);
        let mut net = Self {
            start,
            now: start,
            peer,
            server,
            pending: None,
            sink: Sink::default(),
            sockets: local.map(|local| (LocalId::default(), local)).into_iter().collect(),
            next_port: 41_000,
            dialled: Vec::new(),
            refuses_tcp: false,
            refused: None,
            blocked: Box::new(|_, _| false),
            queue: BTreeMap::new(),
            serial: 0,
            server_wake: start,
            peer_wake: start,
            opened: Vec::new(),
            closed: Vec::new(),
        };
        let mut changes = net.server.sdp_api();
        changes.add_media(MediaKind::Video, Direction::SendOnly, None, None, None);
        let (offer, pending) = changes.apply().unwrap();
        net.pending = Some(pending);
        net.answer(&offer);
        net
    }

    fn answer(&mut self, offer: &SdpOffer) {
        let answer = self.peer.accept_offer(self.now, &offer.to_sdp_string(), &[]).unwrap();
        let candidates = answer.lines().filter(|line| line.starts_with("a=candidate:")).count();
        assert_eq!(candidates, self.sockets.len(), "{answer}");
        let answer = SdpAnswer::from_sdp_string(&answer).unwrap();
        self.server.sdp_api().accept_answer(self.pending.take().unwrap(), answer).unwrap();
    }

    /// The server listens here, and says so.
    fn trickle(&mut self, at: &str) {
        let at = address(at);
        self.server.add_local_candidate(Candidate::host(at, "udp").unwrap()).unwrap();
        self.server.handle_input(Input::Timeout(self.now)).unwrap();
        self.claim("udp", at);
    }

    /// The same on TCP.
    fn trickle_tcp(&mut self, at: &str) {
        let at = address(at);
        let tcp = Candidate::builder().tcp().host(at).tcptype(TcpType::Passive).build().unwrap();
        self.server.add_local_candidate(tcp).unwrap();
        self.server.handle_input(Input::Timeout(self.now)).unwrap();
        self.claim("tcp", at);
    }

    /// The server says that it listens here.
    fn claim(&mut self, transport: &str, at: SocketAddr) {
        self.peer.add_remote_candidate(self.now, &line(transport, at)).unwrap();
        self.exchange();
    }

    /// What is blocked is blocked for UDP.
    fn send(&mut self, protocol: Protocol, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        if protocol == Protocol::Tcp || !(self.blocked)(from, to) {
            self.serial += 1;
            self.queue.insert((self.now + ms(10), self.serial), (protocol, from, to, bytes));
        }
    }

    fn exchange(&mut self) {
        loop {
            match self.server.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.server_wake = at;
                    break;
                }
                Ok(Output::Transmit(sent)) => {
                    let bytes = sent.contents.to_vec();
                    self.send(sent.proto, sent.source, sent.destination, bytes);
                }
                Ok(Output::Event(_)) => {}
                // It gives up its handshake.
                Err(_) => {
                    self.server_wake = self.now + Duration::from_secs(3_600);
                    break;
                }
            }
        }
        loop {
            self.peer_wake = self.peer.drain(self.now, &mut self.sink);
            for (via, to, bytes) in std::mem::take(&mut self.sink.datagrams) {
                let from = self.sockets[&via];
                assert_eq!(from.is_ipv4(), to.is_ipv4());
                let stream = self.dialled.iter().find(|dialled| dialled.0 == via);
                let protocol = match stream {
                    Some((_, remote, _)) => {
                        assert_eq!(*remote, to, "a connection leads to one place");
                        Protocol::Tcp
                    }
                    None => Protocol::Udp,
                };
                self.send(protocol, from, to, bytes);
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
            AddressRequest::Open { local } if self.refused == Some(local) => {
                self.opened.push(local);
                self.peer.local_refused(self.now, local, "no more of these".to_owned());
            }
            AddressRequest::Open { local } => {
                self.opened.push(local);
                self.next_port += 1;
                let local = SocketAddr::new(local, self.next_port);
                let via = self.peer.add_local(self.now, local).unwrap();
                assert!(via.index() < LOCAL_ADDRESSES_MAX);
                assert_eq!(self.sockets.insert(via, local), None);
            }
            AddressRequest::Connect { via, remote } => {
                self.dialled.push((via, remote, self.now));
                if self.refuses_tcp {
                    return self.peer.stream_closed(self.now, via, "refused".to_owned());
                }
                self.next_port += 1;
                let local = SocketAddr::new(route(remote).unwrap(), self.next_port);
                assert_eq!(self.sockets.insert(via, local), None);
                assert!(self.peer.stream_connected(self.now, via, local));
            }
            AddressRequest::Relay { .. } => unreachable!("no TURN server was named"),
            AddressRequest::Close { via } => self.closed.push(self.sockets.remove(&via).unwrap()),
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
            let (protocol, from, to, bytes) = entry.remove();
            let via = self.sockets.iter().find(|(_, local)| **local == to);
            if let Some((&via, _)) = via {
                let unix_ns = UNIX_BASE_NS + (self.now - self.start).as_nanos() as u64;
                self.peer.received_on(via);
                let at = Arrival { instant: self.now, unix_ns };
                self.peer.handle_datagram(at, from, &bytes, &mut Scratch::default());
            } else if let Ok(receive) = Receive::new(protocol, from, to, &bytes) {
                self.server.handle_input(Input::Receive(self.now, receive)).unwrap();
            }
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

    fn is_connected(&self) -> bool {
        self.sink.events.contains(&PeerEvent::Connected)
    }

    fn failures(&self) -> Vec<&MediaFailure> {
        let failures = self.sink.events.iter().filter_map(|event| match event {
            PeerEvent::Disconnected { failure } => Some(&**failure),
            _ => None,
        });
        failures.collect()
    }

    /// The only failure, which is that there is no pair.
    fn no_pair(&self) -> &NoCandidatePair {
        let [MediaFailure::NoCandidatePair(pair)] = self.failures()[..] else {
            panic!("{:?}", self.sink.events);
        };
        pair
    }
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn media_goes_where_the_candidate_is_not_where_signalling_went() {
    let mut net = Net::new(Some("[::1]:40001"));
    net.run(ms(50));
    net.trickle("127.0.0.1:7882");
    assert_eq!(net.opened, ips(&["127.0.0.1"]), "at once: nothing else can be tried");
    let ours = net.sockets.values().find(|local| local.is_ipv4()).copied().unwrap();
    let trickled = net.sink.events.iter().find_map(|event| match event {
        PeerEvent::LocalCandidate { candidate } => Some(candidate.clone()),
        _ => None,
    });
    let trickled = Candidate::from_sdp_string(&trickled.unwrap()).unwrap();
    assert_eq!(trickled.addr(), ours);
    net.run(ms(1_000));
    assert!(net.is_connected() && net.failures().is_empty(), "{:?}", net.sink.events);
    assert_eq!((net.peer.local(), net.closed.len()), (ours, 0));
    net.run(UNUSED_LOCAL_AFTER);
    assert_eq!(net.closed, [address("[::1]:40001")], "it carried nothing");
    net.run(Duration::from_secs(30));
    assert!(net.peer.is_connected() && net.failures().is_empty());
    assert_eq!((net.opened.len(), net.closed.len()), (1, 1));
}

#[test]
fn where_the_first_address_will_do_there_is_no_other() {
    let mut net = Net::new(Some("127.0.0.1:40001"));
    net.trickle("127.0.0.1:7882");
    net.trickle("[::1]:7882");
    net.run(Duration::from_secs(30));
    assert!(net.is_connected() && net.failures().is_empty(), "{:?}", net.sink.events);
    assert_eq!((net.opened.len(), net.closed.len(), net.sockets.len()), (0, 0, 1));
    let trickled = |event: &PeerEvent| matches!(event, PeerEvent::LocalCandidate { .. });
    assert!(!net.sink.events.iter().any(trickled));
}

#[test]
fn a_peer_without_an_address_gets_the_one_that_is_needed() {
    let mut net = Net::new(None);
    net.run(ms(100));
    net.trickle("[::1]:7882");
    net.run(Duration::from_secs(30));
    assert!(net.is_connected() && net.failures().is_empty(), "{:?}", net.sink.events);
    assert_eq!((net.opened.clone(), net.closed.len()), (ips(&["::1"]), 0));
}

#[test]
fn checks_choose_between_two_ways() {
    let mut net = Net::new(Some("127.0.0.1:40001"));
    net.blocked = Box::new(|from, _| from.is_ipv4());
    net.trickle("127.0.0.1:7882");
    net.trickle("[::1]:7882");
    net.run(OTHER_ROUTE_AFTER - ms(1));
    assert_eq!(net.opened.len(), 0);
    net.run(ms(1_000));
    assert_eq!(net.opened, ips(&["::1"]));
    assert!(net.is_connected() && net.failures().is_empty(), "{:?}", net.sink.events);
    net.run(UNUSED_LOCAL_AFTER + ms(1_000));
    assert_eq!(net.closed, [address("127.0.0.1:40001")]);
    net.run(Duration::from_secs(40));
    assert!(net.peer.is_connected() && net.failures().is_empty(), "{:?}", net.sink.events);
}

/// A tunnel to a server elsewhere begins on this host: loopback is not where media comes from.
#[test]
fn nothing_leaves_by_a_way_that_the_kernel_does_not_have() {
    let mut net = Net::new(Some("127.0.0.1:40001"));
    let far: IpAddr = "10.0.0.5".parse().unwrap();
    set_route(far, Some("10.0.0.9".parse().unwrap()));
    net.blocked = Box::new(|from, to| {
        let crosses = from.ip().is_loopback() != to.ip().is_loopback();
        assert!(!crosses || !from.ip().is_loopback(), "EINVAL: {from} to {to}");
        crosses
    });
    net.trickle("10.0.0.5:7882");
    net.run(Duration::from_secs(10));
    assert_eq!(net.opened, ips(&["10.0.0.9"]));
    assert!(net.is_connected() && net.failures().is_empty(), "{:?}", net.sink.events);
    assert_eq!(net.closed, [address("127.0.0.1:40001")]);
}

#[test]
fn without_a_pair_that_is_what_is_said() {
    let mut net = Net::new(Some("127.0.0.1:40001"));
    net.blocked = Box::new(|_, _| true);
    net.refuses_tcp = true;
    net.trickle("127.0.0.1:7882");
    net.claim("tcp", address("127.0.0.1:7881"));
    net.run(NO_PAIR_AFTER);
    assert!(net.failures().is_empty(), "checks go on for longer");
    net.run(Duration::from_secs(15));
    assert_eq!(
        net.no_pair().to_string(),
        "no candidate pair worked: our candidates 127.0.0.1:40001, the server's udp 127.0.0.1:7882 \
         and tcp 127.0.0.1:7881; nothing came back on UDP port 7882; TCP to 127.0.0.1:7881: refused"
    );
}

const TCP: Transport = Transport::Only(PathKind::Tcp);
const BY_TCP: PeerEvent = PeerEvent::Path { path: PathKind::Tcp };

#[test]
fn tcp_alone_is_dialled_at_once_and_nothing_else_is_tried() {
    let mut net = Net::by(TCP, None);
    net.trickle("127.0.0.1:7882");
    net.run(ms(100));
    net.trickle_tcp("127.0.0.1:7881");
    net.run(ms(500));
    assert!(net.is_connected() && net.failures().is_empty(), "{:?}", net.sink.events);
    let connected = net.sink.events.iter().position(|event| *event == PeerEvent::Connected);
    assert_eq!(net.sink.events[connected.unwrap() - 1], BY_TCP);
    assert_eq!((net.opened.len(), net.dialled.len(), net.sockets.len()), (0, 1, 1));
    assert_eq!(net.dialled[0].2, net.start + ms(100));
    // What is needed of ours to be reached by is nothing: who connects is not connected to.
    let trickled = |event: &PeerEvent| matches!(event, PeerEvent::LocalCandidate { .. });
    assert!(!net.sink.events.iter().any(trickled));
    net.run(Duration::from_secs(30));
    assert!(net.peer.is_connected() && net.failures().is_empty() && net.closed.is_empty());
    assert_eq!(net.peer.path(), PathKind::Tcp);
}

#[test]
fn tcp_is_not_dialled_where_udp_works_or_alone_is_asked_for() {
    for transport in [Transport::Auto, Transport::Only(PathKind::Udp)] {
        let mut net = Net::by(transport, Some("127.0.0.1:40001"));
        net.trickle_tcp("127.0.0.1:7881");
        net.trickle("127.0.0.1:7882");
        net.run(Duration::from_secs(30));
        assert!(net.is_connected() && net.failures().is_empty(), "{:?}", net.sink.events);
        assert_eq!((net.dialled.len(), net.peer.path()), (0, PathKind::Udp));
        assert!(!net.sink.events.contains(&BY_TCP));
    }
    let mut net = Net::by(Transport::Only(PathKind::Udp), Some("127.0.0.1:40001"));
    net.blocked = Box::new(|_, _| true);
    net.trickle_tcp("127.0.0.1:7881");
    net.trickle("127.0.0.1:7882");
    net.run(Duration::from_secs(40));
    assert_eq!(net.dialled.len(), 0);
    let said = net.no_pair().to_string();
    assert!(said.ends_with("UDP port 7882; with --transport udp nothing else is tried"), "{said}");
}

#[test]
fn where_udp_does_not_get_through_tcp_does_and_its_socket_is_given_up() {
    let mut net = Net::new(Some("127.0.0.1:40001"));
    net.blocked = Box::new(|_, _| true);
    net.trickle("127.0.0.1:7882");
    net.trickle_tcp("127.0.0.1:7881");
    net.run(TCP_AFTER - ms(1));
    assert_eq!(net.dialled.len(), 0);
    net.run(ms(1_000));
    assert!(net.is_connected() && net.failures().is_empty(), "{:?}", net.sink.events);
    assert!(net.sink.events.contains(&BY_TCP));
    assert_eq!(net.dialled[0].2, net.start + TCP_AFTER);
    net.run(UNUSED_LOCAL_AFTER);
    assert_eq!(net.closed, [address("127.0.0.1:40001")]);
    net.run(Duration::from_secs(30));
    assert!(net.peer.is_connected() && net.failures().is_empty());
}

#[test]
fn a_server_with_tcp_alone_is_not_waited_for_long() {
    let mut net = Net::new(Some("127.0.0.1:40001"));
    net.trickle_tcp("127.0.0.1:7881");
    net.run(ms(500));
    assert!(net.is_connected() && net.failures().is_empty(), "{:?}", net.sink.events);
    assert_eq!(net.dialled[0].2, net.start + OTHER_ROUTE_AFTER);
}

/// Servers know a connection by the credentials that came first.
#[test]
fn a_restart_of_ice_dials_anew_and_what_was_there_goes_on() {
    let mut net = Net::by(TCP, None);
    net.trickle_tcp("127.0.0.1:7881");
    net.run(ms(500));
    assert!(net.is_connected() && net.dialled.len() == 1);
    let mut changes = net.server.sdp_api();
    changes.ice_restart(true);
    let (offer, pending) = changes.apply().unwrap();
    net.pending = Some(pending);
    net.sink.events.clear();
    let answer = net.peer.accept_offer(net.now, &offer.to_sdp_string(), &[]).unwrap();
    // str0m would check the end that connected, which servers don't (RFC 6544 §4.5).
    let passed = answer.split_inclusive("\r\n").filter(|line| !line.contains("tcptype active"));
    let answer = SdpAnswer::from_sdp_string(&passed.collect::<String>()).unwrap();
    net.server.sdp_api().accept_answer(net.pending.take().unwrap(), answer).unwrap();
    net.claim("tcp", address("127.0.0.1:7881"));
    net.run(ms(1_000));
    assert_eq!((net.dialled.len(), net.sockets.len()), (2, 2));
    assert!(net.sink.events.contains(&PeerEvent::IceConnected), "{:?}", net.sink.events);
    assert!(net.peer.is_connected() && net.failures().is_empty());
    // The server ends the old one.
    let (old, ..) = net.dialled[0];
    net.sockets.remove(&old);
    net.peer.stream_closed(net.now, old, "closed".to_owned());
    net.exchange();
    net.run(Duration::from_secs(20));
    assert!(net.peer.is_connected() && net.failures().is_empty(), "{:?}", net.sink.events);
    assert_eq!(net.dialled.len(), 2);
}

/// The server drops the connection: it is lost, at once, and a change of network gets another.
#[test]
fn a_connection_that_ends_is_a_loss_and_another_network_has_another() {
    let mut net = Net::by(TCP, None);
    net.trickle_tcp("127.0.0.1:7881");
    net.run(ms(500));
    assert!(net.is_connected());
    let (via, ..) = net.dialled[0];
    net.sockets.remove(&via);
    net.peer.stream_closed(net.now, via, "reset".to_owned());
    net.exchange();
    assert_eq!(net.failures().len(), 1, "{:?}", net.sink.events);
    assert!(!net.peer.is_connected());
    net.run(ms(1_000));
    assert_eq!(net.dialled.len(), 1, "it is signalling that brings it back");

    let mut net = Net::by(TCP, None);
    net.trickle_tcp("127.0.0.1:7881");
    net.run(ms(500));
    net.sockets.clear();
    net.sink.events.clear();
    net.peer.change_connections(net.now).unwrap();
    net.exchange();
    assert_eq!(net.dialled.len(), 2, "at once");
    // Without a restart the server goes on with the pair that it had for as long as it may.
    net.run(Duration::from_secs(60));
    assert_eq!(net.sink.events, [PeerEvent::IceConnected]);
    assert!(net.peer.is_connected());
}

#[test]
fn one_way_only_is_told_from_silence() {
    let mut net = Net::new(Some("127.0.0.1:40001"));
    net.blocked = Box::new(|from, _| from == address("127.0.0.1:40001"));
    net.trickle("127.0.0.1:7882");
    net.run(Duration::from_secs(25));
    net.peer.give_up();
    net.exchange();
    assert_eq!(net.no_pair().heard, Heard::Checks);
}

#[test]
fn a_candidate_that_comes_late_still_helps() {
    let mut net = Net::new(Some("127.0.0.1:40001"));
    // No route, and a family of which we have no address.
    set_route("2001:db8::1".parse().unwrap(), None);
    net.claim("udp", address("[2001:db8::1]:7882"));
    net.run(NO_PAIR_AFTER - ms(100));
    net.trickle("127.0.0.1:7882");
    net.run(ms(2_000));
    assert!(net.is_connected() && net.failures().is_empty(), "{:?}", net.sink.events);

    let mut net = Net::new(Some("127.0.0.1:40001"));
    set_route("2001:db8::1".parse().unwrap(), None);
    net.claim("udp", address("[2001:db8::1]:7882"));
    net.run(NO_PAIR_AFTER - ms(1));
    assert!(net.failures().is_empty());
    net.run(ms(2));
    assert_eq!(net.no_pair().unreachable, [address("[2001:db8::1]:7882")]);
}

#[test]
fn who_gives_up_is_told_why() {
    let start = Instant::now();
    let mut sink = Sink::default();
    let local = address("127.0.0.1:40001");
    let mut peer = Peer::subscriber(start, local, &options(), false).unwrap();
    peer.give_up();
    peer.give_up();
    peer.drain(start, &mut sink);
    let failure = Box::new(MediaFailure::NotNegotiated { what: "offer" });
    assert_eq!(sink.events, [PeerEvent::Disconnected { failure }], "and once");

    let mut net = Net::new(Some("127.0.0.1:40001"));
    net.run(Duration::from_secs(30));
    assert!(net.failures().is_empty());
    net.peer.give_up();
    net.exchange();
    assert!(net.no_pair().remotes.is_empty());

    let mut net = Net::new(Some("127.0.0.1:40001"));
    net.refuses_tcp = true;
    net.claim("tcp", address("127.0.0.1:7881"));
    net.run(Duration::from_secs(30));
    net.peer.give_up();
    net.exchange();
    let said = net.no_pair().to_string();
    assert!(said.ends_with("the server's tcp 127.0.0.1:7881; TCP to 127.0.0.1:7881: refused"));
    assert_eq!(net.dialled.len(), 1, "once");

    // A pair works, but whatever is no check is lost.
    let mut net = Net::new(Some("127.0.0.1:40001"));
    net.trickle("127.0.0.1:7882");
    while net.sink.events.is_empty() {
        net.run(ms(1));
    }
    net.blocked = Box::new(|_, _| true);
    net.run(ms(100));
    net.peer.give_up();
    net.exchange();
    let [MediaFailure::Dtls { remote, .. }] = net.failures()[..] else {
        panic!("{:?}", net.sink.events);
    };
    assert_eq!(*remote, address("127.0.0.1:7882"));

    let mut net = Net::new(Some("127.0.0.1:40001"));
    net.trickle("127.0.0.1:7882");
    net.run(ms(2_000));
    net.peer.give_up();
    net.exchange();
    assert!(net.is_connected() && net.failures().is_empty(), "it is up: nothing to say");
}

#[test]
fn a_socket_that_is_not_to_be_had_is_asked_for_once_and_named() {
    let mut net = Net::new(Some("127.0.0.1:40001"));
    net.refused = Some("::1".parse().unwrap());
    net.claim("udp", address("[::1]:7882"));
    net.claim("udp", address("[::1]:7883"));
    net.run(Duration::from_secs(25));
    assert_eq!(net.opened.len(), 1);
    let pair = net.no_pair();
    assert_eq!(pair.refused_local.as_ref().unwrap().1, "no more of these");
    assert_eq!(net.failures()[0].kind(), "local_resources");
}

#[test]
fn a_flood_of_candidates_opens_and_remembers_so_many() {
    let mut net = Net::new(Some("127.0.0.1:40001"));
    net.blocked = Box::new(|_, _| true);
    for number in 0..REMOTE_CANDIDATES_MAX as u8 + 8 {
        let (remote, local) = ([10, 0, 1, number], [10, 0, 2, number]);
        set_route(remote.into(), Some(local.into()));
        for _ in 0..2 {
            net.claim("udp", SocketAddr::from((remote, 7882)));
        }
        net.run(ms(10));
    }
    net.run(Duration::from_secs(1));
    assert_eq!((net.opened.len(), net.sockets.len()), (LOCAL_ADDRESSES_MAX - 1, 4));
    net.peer.give_up();
    net.exchange();
    let pair = net.no_pair();
    assert_eq!((pair.remotes.len(), pair.left_out), (REMOTE_CANDIDATES_MAX, 16));
    assert_eq!(pair.locals.len(), LOCAL_ADDRESSES_MAX);
}

#[test]
fn candidates_in_the_offer_and_after_a_restart_of_ice() {
    let mut net = Net::new(Some("127.0.0.1:40001"));
    net.trickle("127.0.0.1:7882");
    net.run(ms(2_000));
    assert!(net.is_connected());
    // The same candidate again changes nothing; then the server moves to another family.
    let mut changes = net.server.sdp_api();
    changes.ice_restart(false);
    let (offer, pending) = changes.apply().unwrap();
    net.pending = Some(pending);
    net.answer(&offer);
    net.blocked = Box::new(|from, _| from.is_ipv4());
    net.trickle("[::1]:7882");
    assert_eq!(net.opened, ips(&["::1"]));
    net.run(ms(3_000));
    assert!(net.peer.local().is_ipv6(), "{:?}", net.sink.events);
    assert!(net.failures().is_empty(), "{:?}", net.sink.events);
}
