//! Both sides' candidates: from which local addresses a peer is to try, and what is known of them
//! when no pair works.
//!
//! A peer has a socket on each local address from which one of the server's candidates is reached,
//! not on those of signalling: that may come over another family, or through a tunnel that begins
//! on this host. The routes are looked up ([`RouteLookup`]), and whoever has the sockets is asked for
//! them ([`AddressRequest`]); which pair is used is ICE's to say.

mod relayed;

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rustc_hash::FxHasher;
use stampede_sdp::{Candidate, Description};
use str0m::error::IceError;
use str0m::net::{Protocol, TcpType};

use super::failure::{Heard, NoCandidatePair, RemoteCandidate};
use crate::{PathKind, Transport};
pub(super) use relayed::GivenUp;

/// Most local addresses of a peer at a time, each with a socket. Candidates of the server that need
/// a further one are not tried from there.
pub const LOCAL_ADDRESSES_MAX: usize = 4;
/// Most ways by TURN servers of a peer at a time, beside its local addresses.
pub const RELAYS_MAX: usize = 3;
/// Numbers of [`LocalId`] that there are.
pub const WAYS_MAX: usize = LOCAL_ADDRESSES_MAX + RELAYS_MAX;
/// Most candidates of the server that are used and remembered between two restarts of ICE. Further
/// ones are passed over and counted ([`NoCandidatePair::left_out`]).
pub const REMOTE_CANDIDATES_MAX: usize = 32;
/// While one of the server's candidates can be tried, those that need a further socket wait so
/// long: mostly the first one works, and there is no need of them.
pub const OTHER_ROUTE_AFTER: Duration = Duration::from_millis(250);
/// Where UDP can be tried, TCP is not before ICE has tried so long: a machine that is slow is no
/// firewall, and the server's TCP costs it more.
pub const TCP_AFTER: Duration = Duration::from_secs(2);
/// A local address that carried nothing is given up this long after DTLS came up over another.
pub const UNUSED_LOCAL_AFTER: Duration = Duration::from_secs(5);
/// Where another way can be tried, TURN servers are not asked before ICE has tried that so long.
pub const TURN_AFTER: Duration = Duration::from_secs(4);
/// Where no pair is left to try, how long after the server's latest candidate ICE has failed: the
/// next one may still be on its way (gathering by STUN takes a server five seconds).
pub const NO_PAIR_AFTER: Duration = Duration::from_secs(10);

/// Most changes of one peer's network: ICE remembers the addresses that are gone, and gives those
/// that follow a lower priority each. One more is refused
/// ([`ChangeNetworkError::TooMany`](crate::ChangeNetworkError::TooMany)).
pub const NETWORK_CHANGES_MAX: u32 = 4_096;

/// Most ways over which STUN came that are remembered: what leads on over further ones has to agree
/// with the routes.
const HEARD_MAX: usize = 16;

/// One of a peer's local addresses, and its socket: a number below [`WAYS_MAX`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalId(u8);

impl LocalId {
    /// The number.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The local address from which this machine sends to another one; `None` if it has no route. It
/// must not block.
pub type RouteLookup = fn(SocketAddr) -> Option<IpAddr>;

/// What a peer wants of whoever has its sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressRequest {
    /// A socket on this address; [`Peer::add_local`](crate::Peer::add_local) or
    /// [`Peer::local_refused`](crate::Peer::local_refused) answer it.
    Open {
        /// The local address.
        local: IpAddr,
    },
    /// A TCP connection to this candidate of the server, in ICE's framing (RFC 6544);
    /// [`Peer::stream_connected`](crate::Peer::stream_connected) or
    /// [`Peer::stream_closed`](crate::Peer::stream_closed) answer it.
    Connect {
        /// What it will be.
        via: LocalId,
        /// The server's candidate.
        remote: SocketAddr,
    },
    /// A way to a TURN server: a UDP socket of its own, or a connection, in TURN's framing;
    /// [`Peer::stream_connected`](crate::Peer::stream_connected) or
    /// [`Peer::stream_closed`](crate::Peer::stream_closed) answer it.
    Relay {
        /// What it will be.
        via: LocalId,
        /// The TURN server.
        server: SocketAddr,
        /// One of [`PathKind::RELAYED`].
        by: PathKind,
        /// Whose certificate a server has that is reached over TLS.
        host: Box<str>,
    },
    /// This socket is not needed any more; the peer has forgotten it.
    Close {
        /// Which.
        via: LocalId,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Local {
    Free,
    Opening(IpAddr),
    /// A TCP connection to there is being made.
    Dialing(SocketAddr),
    /// A TURN server is asked to relay.
    Allocating,
    Open {
        address: SocketAddr,
        way: Way,
        carries: bool,
    },
}

impl Local {
    fn is_relay(self) -> bool {
        matches!(self, Self::Allocating | Self::Open { way: Way::Relay { .. }, .. })
    }
}

/// What a local address is the end of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Udp,
    /// A TCP connection.
    Tcp {
        /// To this candidate.
        to: SocketAddr,
        /// Of [`Candidates::restarts`] when it was made: servers know a connection by the credentials
        /// that were used first on it, so those that follow need another one, as with browsers.
        restarts: u8,
    },
    /// A TURN server, which relays UDP.
    Relay {
        by: PathKind,
        /// Our end of the way to it.
        socket: SocketAddr,
    },
}

impl Way {
    pub(super) fn protocol(self) -> Protocol {
        match self {
            Self::Udp | Self::Relay { .. } => Protocol::Udp,
            Self::Tcp { .. } => Protocol::Tcp,
        }
    }

    pub(super) fn path(self) -> PathKind {
        match self {
            Self::Udp => PathKind::Udp,
            Self::Tcp { .. } => PathKind::Tcp,
            Self::Relay { by, .. } => by,
        }
    }

    /// The candidate of ours for an address that is one end of this. Who connects has no port to
    /// connect to, and servers pass such candidates over (RFC 6544 §4.5).
    pub(super) fn candidate(self, address: SocketAddr) -> Result<str0m::Candidate, IceError> {
        match self {
            Self::Udp => str0m::Candidate::host(address, Protocol::Udp),
            Self::Tcp { .. } => {
                str0m::Candidate::builder().tcp().host(address).tcptype(TcpType::Active).build()
            }
            Self::Relay { socket, .. } => str0m::Candidate::relayed(address, socket, Protocol::Udp),
        }
    }
}

/// How a candidate of the server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// Not by a transport that we use.
    Unusable,
    /// Not known: from any address of the family.
    Any,
    From(IpAddr),
    /// This machine has none.
    None,
    /// There is one, but no socket could be had for it.
    NoSocket,
    /// The TCP connection to it could not be made, or ended.
    NoConnection,
}

#[derive(Debug)]
struct Remote {
    candidate: RemoteCandidate,
    route: Route,
    at: Instant,
}

/// The candidates of one peer.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Index: [`LocalId`].
    locals: Vec<Local>,
    remotes: Vec<Remote>,
    left_out: u32,
    /// Hash of the server's `ice-ufrag`, which changes when ICE restarts.
    ufrag: u64,
    /// How often it did.
    restarts: u8,
    refused: Option<Box<(IpAddr, String)>>,
    /// The first TCP connection that was not to be had, or ended.
    undialled: Option<Box<(SocketAddr, String)>>,
    transport: Transport,
    /// The server wants relays alone.
    relays_only: bool,
    route: Option<RouteLookup>,
    /// Between which addresses STUN has come, so that there is a way, whatever the routes say.
    heard: Vec<(LocalId, SocketAddr)>,
    /// Addresses beside its candidates from which the server has sent authentic checks.
    answered: Vec<SocketAddr>,
    checks_heard: bool,
    answers_heard: bool,
    /// ICE is looking for a pair.
    pub(super) checking: bool,
    connected: bool,
    /// How often the network was changed.
    pub(super) network_changes: u32,
    /// When unused addresses are given up.
    tidy_at: Option<Instant>,
}

impl Candidates {
    pub(super) fn new(
        local: Option<SocketAddr>,
        route: Option<RouteLookup>,
        transport: Transport,
    ) -> Self {
        let open = |address| Local::Open { address, way: Way::Udp, carries: false };
        let locals = local.map(open).into_iter().collect();
        Self { locals, route, transport, checking: true, ..Self::default() }
    }

    /// Takes note of the candidates in a description of the server; true if it begins ICE, or
    /// restarts it.
    pub(super) fn described(&mut self, now: Instant, description: &Description<'_>) -> bool {
        let ufrag = description.transport().ice_ufrag.map(hash);
        let begins = ufrag.filter(|ufrag| *ufrag != self.ufrag);
        if let Some(ufrag) = begins {
            self.ufrag = ufrag;
            self.restarts = self.restarts.wrapping_add(1);
            self.remotes.clear();
            self.heard.clear();
            self.answered.clear();
            self.left_out = 0;
            (self.checks_heard, self.answers_heard) = (false, false);
            self.undialled = None;
            self.checking = true;
        }
        for candidate in description.candidates() {
            self.remote(now, candidate);
        }
        begins.is_some()
    }

    /// Takes note of a candidate of the server; false if there are too many.
    pub(super) fn remote(&mut self, now: Instant, candidate: &Candidate<'_>) -> bool {
        let Some(candidate) = RemoteCandidate::of(candidate) else { return true };
        if self.remotes.iter().any(|remote| remote.candidate == candidate) {
            return true;
        }
        if self.remotes.len() >= REMOTE_CANDIDATES_MAX {
            self.left_out = self.left_out.saturating_add(1);
            return false;
        }
        let is_tried = match candidate {
            RemoteCandidate::Udp(_) => self.transport.tries(PathKind::Udp),
            RemoteCandidate::Tcp(_) => self.transport.tries(PathKind::Tcp),
            RemoteCandidate::Other(_) => false,
        };
        let route = match (&candidate, self.route) {
            _ if !is_tried => Route::Unusable,
            (RemoteCandidate::Udp(remote), Some(route)) => {
                let refused = self.refused.as_deref().map(|(ip, _)| *ip);
                match route(*remote) {
                    Some(ip) if refused == Some(ip) => Route::NoSocket,
                    from => from.map_or(Route::None, Route::From),
                }
            }
            _ => Route::Any,
        };
        // Mostly there are two, UDP and TCP.
        self.remotes.reserve_exact(1);
        self.remotes.push(Remote { candidate, route, at: now });
        true
    }

    /// A socket is there; `None` if there are too many.
    pub(super) fn add_local(&mut self, now: Instant, address: SocketAddr) -> Option<LocalId> {
        if self.relays_only {
            return None;
        }
        let ip = address.ip();
        let place = |wanted: Local| move |local: &Local| *local == wanted;
        let mut locals = self.locals.iter();
        let opening = locals.position(place(Local::Opening(ip)));
        let open = Local::Open { address, way: Way::Udp, carries: false };
        let via = match opening {
            Some(index) => {
                self.locals[index] = open;
                LocalId(index as u8)
            }
            None => self.open(open)?,
        };
        if self.connected {
            // It came too late to be of use, perhaps.
            self.tidy_at = Some(now + UNUSED_LOCAL_AFTER);
        }
        Some(via)
    }

    /// The TCP connection is there; its candidate.
    pub(super) fn stream_connected(
        &mut self,
        now: Instant,
        via: LocalId,
        address: SocketAddr,
    ) -> Option<Way> {
        let local = self.locals.get_mut(via.index())?;
        let Local::Dialing(remote) = *local else { return None };
        let way = Way::Tcp { to: remote, restarts: self.restarts };
        *local = Local::Open { address, way, carries: false };
        if self.connected {
            self.tidy_at = Some(now + UNUSED_LOCAL_AFTER);
        }
        Some(way)
    }

    /// A TCP connection was not to be had, or ended; what it was, if it was there.
    pub(super) fn stream_closed(&mut self, via: LocalId, why: String) -> Option<(SocketAddr, Way)> {
        let local = self.locals.get_mut(via.index())?;
        let (to, closed) = match *local {
            Local::Dialing(remote) => (remote, None),
            Local::Open { address, way: way @ Way::Tcp { to, restarts }, .. } => {
                if restarts != self.restarts {
                    *local = Local::Free;
                    return Some((address, way));
                }
                (to, Some((address, way)))
            }
            Local::Free
            | Local::Opening(_)
            | Local::Allocating
            | Local::Open { way: Way::Udp | Way::Relay { .. }, .. } => return None,
        };
        *local = Local::Free;
        let wanted = RemoteCandidate::Tcp(to);
        for remote in self.remotes.iter_mut().filter(|remote| remote.candidate == wanted) {
            remote.route = Route::NoConnection;
        }
        self.undialled.get_or_insert_with(|| Box::new((to, why)));
        closed
    }

    /// All local addresses are gone; gives them back. The ways from the next one count from now.
    pub(super) fn leave_network(&mut self, now: Instant) -> Vec<(SocketAddr, Way)> {
        let refused = self.refused.take().map(|refused| refused.0);
        for remote in &mut self.remotes {
            remote.at = now;
            if let (Route::NoSocket, Some(ip)) = (remote.route, refused) {
                remote.route = Route::From(ip);
            }
            if remote.route == Route::NoConnection {
                remote.route = Route::Any;
            }
        }
        self.undialled = None;
        self.heard.clear();
        (self.checks_heard, self.answers_heard) = (false, false);
        (self.checking, self.tidy_at) = (true, None);
        let open = self.locals.drain(..).filter_map(|local| match local {
            Local::Open { address, way, .. } => Some((address, way)),
            Local::Free | Local::Opening(_) | Local::Dialing(_) | Local::Allocating => None,
        });
        open.collect()
    }

    /// There is no socket to be had on this address.
    pub(super) fn local_refused(&mut self, ip: IpAddr, why: String) {
        for local in &mut self.locals {
            if *local == Local::Opening(ip) {
                *local = Local::Free;
            }
        }
        for remote in &mut self.remotes {
            if remote.route == Route::From(ip) {
                remote.route = Route::NoSocket;
            }
        }
        self.refused.get_or_insert_with(|| Box::new((ip, why)));
    }

    /// Asks for the sockets that are due, while ICE has found nothing; when to ask again.
    pub(super) fn poll(
        &mut self,
        now: Instant,
        request: &mut impl FnMut(AddressRequest),
    ) -> Option<Instant> {
        if self.relays_only {
            return None;
        }
        let can_be_tried = self.remotes.iter().any(|remote| match remote.route {
            Route::Any => matches!(remote.candidate, RemoteCandidate::Udp(_)),
            Route::From(ip) => self.has(ip),
            Route::Unusable | Route::None | Route::NoSocket | Route::NoConnection => false,
        });
        let mut next: Option<Instant> = None;
        let ways = self.remotes.iter().filter_map(|remote| match remote.route {
            Route::From(ip) => Some((ip, remote.at)),
            _ => None,
        });
        for (ip, since) in ways.collect::<Vec<_>>() {
            if self.has(ip) || self.locals.contains(&Local::Opening(ip)) {
                continue;
            }
            let due = if can_be_tried { since + OTHER_ROUTE_AFTER } else { now };
            if due > now {
                next = Some(next.map_or(due, |next| next.min(due)));
            } else if self.open(Local::Opening(ip)).is_some() {
                request(AddressRequest::Open { local: ip });
            }
        }
        self.dial(now, can_be_tried, &mut next, request);
        next
    }

    /// Asks for the TCP connections that are due.
    fn dial(
        &mut self,
        now: Instant,
        udp_is_tried: bool,
        next: &mut Option<Instant>,
        request: &mut impl FnMut(AddressRequest),
    ) {
        let is_udp = |remote: &&Remote| matches!(remote.candidate, RemoteCandidate::Udp(_));
        let began = self.remotes.iter().filter(is_udp).map(|remote| remote.at).min();
        let ways = self.remotes.iter().filter_map(|remote| match remote.candidate {
            RemoteCandidate::Tcp(to) if remote.route == Route::Any => Some((to, remote.at)),
            _ => None,
        });
        for (to, since) in ways.collect::<Vec<_>>() {
            let is_it = |local: &Local| match *local {
                Local::Dialing(remote) => remote == to,
                Local::Open { way: Way::Tcp { to: remote, restarts }, .. } => {
                    remote == to && restarts == self.restarts
                }
                _ => false,
            };
            if self.locals.iter().any(is_it) {
                continue;
            }
            let due = match self.transport {
                Transport::Only(_) => now,
                Transport::Auto if udp_is_tried => began.unwrap_or(since) + TCP_AFTER,
                // The server's UDP may still be on its way.
                Transport::Auto => since + OTHER_ROUTE_AFTER,
            };
            if due > now {
                *next = Some(next.map_or(due, |next| next.min(due)));
            } else if let Some(via) = self.open(Local::Dialing(to)) {
                request(AddressRequest::Connect { via, remote: to });
            }
        }
    }

    fn has(&self, ip: IpAddr) -> bool {
        let is_on = |local: &Local| matches!(local, Local::Open { address, way: Way::Udp, .. } if address.ip() == ip);
        self.locals.iter().any(is_on)
    }

    /// Keeps a place for a socket that is there or will be asked for.
    fn open(&mut self, opening: Local) -> Option<LocalId> {
        let max = if opening.is_relay() { RELAYS_MAX } else { LOCAL_ADDRESSES_MAX };
        let is_such =
            |local: &&Local| **local != Local::Free && local.is_relay() == opening.is_relay();
        if self.locals.iter().filter(is_such).count() >= max {
            return None;
        }
        let free = self.locals.iter().position(|local| *local == Local::Free);
        let index = free.unwrap_or(self.locals.len());
        match self.locals.get_mut(index) {
            Some(free) => *free = opening,
            None => self.locals.push(opening),
        }
        Some(LocalId(index as u8))
    }

    /// DTLS is up, over this one: what carries nothing is given up after a while.
    pub(super) fn connected(&mut self, now: Instant, via: LocalId) {
        self.connected = true;
        self.carries(via);
        // Those that are still asked for too.
        let is_other =
            |(index, local): (usize, &Local)| index != via.index() && *local != Local::Free;
        if self.locals.iter().enumerate().any(is_other) {
            self.tidy_at = Some(now + UNUSED_LOCAL_AFTER);
        }
    }

    /// When [`Self::tidy`] is due.
    pub(super) fn tidy_at(&self) -> Option<Instant> {
        self.tidy_at
    }

    /// Gives up the addresses that carried nothing, if another one did.
    pub(super) fn tidy(&mut self) -> Vec<GivenUp> {
        self.tidy_at = None;
        let carries = |local: &Local| matches!(local, Local::Open { carries: true, .. });
        if !self.locals.iter().any(carries) {
            return Vec::new();
        }
        self.give_up(|local| {
            matches!(local, Local::Open { carries: false, .. } | Local::Allocating)
        })
    }

    /// Something other than a check went over this one.
    pub(super) fn carries(&mut self, via: LocalId) {
        if let Some(Local::Open { carries, .. }) = self.locals.get_mut(via.index()) {
            *carries = true;
        }
    }

    /// The only local address, if there is but one.
    pub(super) fn sole(&self) -> Option<LocalId> {
        let is_open = |local: &Local| matches!(local, Local::Open { .. });
        let mut open = (0..).zip(&self.locals).filter(|(_, local)| is_open(local));
        let sole = open.next().map(|(index, _)| LocalId(index));
        sole.filter(|_| open.next().is_none())
    }

    pub(super) fn local(&self, via: LocalId) -> Option<SocketAddr> {
        self.open_local(via).map(|(address, _)| address)
    }

    pub(super) fn open_local(&self, via: LocalId) -> Option<(SocketAddr, Way)> {
        match self.locals.get(via.index()) {
            Some(Local::Open { address, way, .. }) => Some((*address, *way)),
            _ => None,
        }
    }

    /// UDP and TCP may have the same port.
    pub(super) fn via(&self, protocol: Protocol, address: SocketAddr) -> Option<LocalId> {
        let is_it = |via: &LocalId| {
            self.open_local(*via)
                .is_some_and(|(own, way)| own == address && way.protocol() == protocol)
        };
        (0..WAYS_MAX as u8).map(LocalId).find(is_it)
    }

    /// Whether a check may leave from here to there: ICE pairs all addresses of a family, but the
    /// kernel refuses, and counts, what can't go that way (from loopback to another host).
    /// A TCP connection leads to one candidate.
    pub(super) fn is_on_route(&self, protocol: Protocol, from: SocketAddr, to: SocketAddr) -> bool {
        if protocol == Protocol::Tcp {
            let open = |local: &Local| {
                matches!(*local, Local::Open { address, way: Way::Tcp { to: remote, restarts }, .. }
                    if address == from && remote == to && restarts == self.restarts)
            };
            return self.locals.iter().any(open);
        }
        let is_relay = |local: &Local| matches!(*local, Local::Open { address, way: Way::Relay { .. }, .. } if address == from);
        if self.locals.iter().any(is_relay) {
            return true;
        }
        let wanted = RemoteCandidate::Udp(to);
        let route = self.remotes.iter().find(|remote| remote.candidate == wanted);
        let Some(remote) = route else { return true };
        match remote.route {
            Route::From(ip) if ip == from.ip() => true,
            Route::Any | Route::Unusable => true,
            Route::From(_) | Route::None | Route::NoSocket | Route::NoConnection => {
                let is_it = |heard: &(LocalId, SocketAddr)| {
                    heard.1 == to && self.local(heard.0) == Some(from)
                };
                self.heard.iter().any(is_it)
            }
        }
    }

    /// A STUN message came.
    pub(super) fn heard(&mut self, via: LocalId, from: SocketAddr, stun: &[u8]) {
        match is_check(stun) {
            true => self.checks_heard = true,
            false => self.answers_heard = true,
        }
        let way = (via, from);
        if self.heard.len() < HEARD_MAX && !self.heard.contains(&way) {
            self.heard.reserve_exact(1);
            self.heard.push(way);
        }
    }

    /// str0m has answered a check from there: it was authentic.
    pub(super) fn answered(&mut self, from: SocketAddr) {
        if self.answered.len() < HEARD_MAX && !self.is_servers(from) {
            self.answered.reserve_exact(1);
            self.answered.push(from);
        }
    }

    /// Whether the server is known to be there: it has said so, or has sent an authentic check from there.
    pub(super) fn is_servers(&self, address: SocketAddr) -> bool {
        let is_it = |remote: &Remote| match remote.candidate {
            RemoteCandidate::Udp(to) | RemoteCandidate::Tcp(to) => to == address,
            RemoteCandidate::Other(_) => false,
        };
        self.remotes.iter().any(is_it) || self.answered.contains(&address)
    }

    /// Until when a further candidate of the server may make up for those that failed.
    pub(super) fn hopeful_until(&self) -> Option<Instant> {
        self.remotes.last().map(|remote| remote.at + NO_PAIR_AFTER)
    }

    pub(super) fn no_pair(&self) -> NoCandidatePair {
        let locals = self.locals.iter().filter_map(|local| match local {
            Local::Open { address, .. } => Some(*address),
            Local::Free | Local::Opening(_) | Local::Dialing(_) | Local::Allocating => None,
        });
        let unreachable = self.remotes.iter().filter_map(|remote| match remote.candidate {
            RemoteCandidate::Udp(address) if remote.route == Route::None => Some(address),
            _ => None,
        });
        NoCandidatePair {
            locals: locals.collect(),
            remotes: self.remotes.iter().map(|remote| remote.candidate.clone()).collect(),
            left_out: self.left_out,
            unreachable: unreachable.collect(),
            refused_local: self.refused.as_deref().cloned(),
            undialled: self.undialled.as_deref().cloned(),
            transport: self.transport,
            relays: Vec::new(),
            relays_named: false,
            relays_only: self.relays_only,
            heard: match (self.checks_heard, self.answers_heard) {
                (_, true) => Heard::Answers,
                (true, false) => Heard::Checks,
                (false, false) => Heard::Nothing,
            },
        }
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = FxHasher::default();
    text.hash(&mut hasher);
    hasher.finish()
}

/// STUN, of whatever class (RFC 7983 §7).
pub(super) fn is_stun(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| *first < 4)
}

/// A binding success response (RFC 8489 §5).
pub(super) fn is_answer(datagram: &[u8]) -> bool {
    datagram.starts_with(&[1, 1])
}

/// A binding request (RFC 8489 §5).
pub(super) fn is_check(datagram: &[u8]) -> bool {
    datagram.starts_with(&[0, 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There are tens of thousands of peers, and mostly one socket is enough.
    #[test]
    fn a_peer_with_one_socket_keeps_half_a_kilobyte() {
        let local: SocketAddr = "127.0.0.1:40001".parse().unwrap();
        let route: RouteLookup = |_| Some(IpAddr::from([127, 0, 0, 1]));
        let mut candidates = Candidates::new(Some(local), Some(route), Transport::default());
        let now = Instant::now();
        candidates.heard(LocalId(0), "127.0.0.1:7882".parse().unwrap(), &[0, 1]);
        let offer = "v=0\r\nm=audio 9 X 0\r\na=mid:0\r\na=ice-ufrag:abcd\r\n\
                     a=candidate:1 1 udp 5 127.0.0.1 7882 typ host\r\n\
                     a=candidate:1 2 udp 5 127.0.0.1 7882 typ host\r\n\
                     a=candidate:2 1 tcp 4 127.0.0.1 7881 typ host\r\n";
        let offer = Description::parse(offer).unwrap();
        for _ in 0..2 {
            candidates.described(now, &offer);
        }
        let asked = &mut |request| panic!("{request:?}");
        // TCP is the next thing to try.
        assert_eq!(candidates.poll(now, asked), Some(now + TCP_AFTER));
        assert_eq!(candidates.remotes.len(), 2);
        let bytes = size_of::<Candidates>()
            + candidates.locals.capacity() * size_of::<Local>()
            + candidates.remotes.capacity() * size_of::<Remote>()
            + candidates.heard.capacity() * size_of::<(LocalId, SocketAddr)>();
        assert!(bytes <= 512, "{bytes}");
    }
}
