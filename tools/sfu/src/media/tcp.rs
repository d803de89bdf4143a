//! Clients that come over TCP (RFC 6544): the worker listens, they connect.
//!
//! A connection costs a descriptor before anybody is known to be behind it. So a peer has to come by each
//! within [`UNCLAIMED_MAX`], by a valid connectivity check; and where there are too many, in all or of one
//! source, the one that has waited for a peer for longest makes room, if it has for [`GRACE`], and else the
//! newcomer. What a client does not read waits in bounded room ([`stampede_udp::WRITE_QUEUE_BYTES_MAX`]), and
//! what finds none is dropped and counted.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use rustix::process::{Resource, getrlimit};
use stampede_http::source;
use stampede_udp::{StreamEvent, StreamId, StreamReceived, Streams};

/// Connections of one worker at a time, or half as many as this process may have files open.
const CONNECTIONS_MAX: usize = 20_000;
/// Those of one source, of as many in all: a machine that runs thousands of clients is one.
const SOURCE_CONNECTIONS_MAX: usize = 15_000;
/// Connections that may be taken before it is looked how many there are.
const TAKEN_AT_ONCE: usize = 256;
/// Datagrams of one poll, where a read brings no more at once.
const BATCH_MAX: usize = 1_024;

/// How long no peer may come by a connection. ICE checks a pair within a second of its being there.
pub(crate) const UNCLAIMED_MAX: Duration = Duration::from_secs(10);
/// How long nobody is displaced for.
const GRACE: Duration = Duration::from_secs(1);
/// How often it is looked for connections whose peers are gone.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
struct Limits {
    connections_max: usize,
    source_connections_max: usize,
}

/// The connections of one worker.
pub(crate) struct TcpClients {
    streams: Streams,
    limits: Limits,
    clients: FxHashMap<SocketAddr, TcpClient>,
    addresses: FxHashMap<StreamId, SocketAddr>,
    /// Of each source that has any.
    sources: FxHashMap<IpAddr, Source>,
    /// Of connections that were closed in the last poll, or since.
    closed: Vec<SocketAddr>,
    /// Datagrams to connections that were closed.
    gone: u64,
    timed_out: u64,
    displaced: u64,
    tidy_at: Option<Instant>,
}

/// One connection.
struct TcpClient {
    stream: StreamId,
    /// Since when no peer comes by it, if none does.
    unclaimed_since: Option<Instant>,
}

/// The connections of one source.
#[derive(Default)]
struct Source {
    connections: usize,
    /// Since when by which no peer comes, the oldest first; some have one by now, or are gone.
    unclaimed: VecDeque<(Instant, SocketAddr)>,
}

impl TcpClients {
    /// Listens at this address.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn listen(address: SocketAddr) -> io::Result<Self> {
        let files = getrlimit(Resource::Nofile).current;
        let files = files.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        let connections_max = CONNECTIONS_MAX.min(files / 2);
        let share = connections_max * SOURCE_CONNECTIONS_MAX / CONNECTIONS_MAX;
        let source_connections_max = share.max(1);
        Self::with_limits(address, Limits { connections_max, source_connections_max })
    }

    fn with_limits(address: SocketAddr, limits: Limits) -> io::Result<Self> {
        let mut streams = Streams::new(limits.connections_max + TAKEN_AT_ONCE, BATCH_MAX)?;
        streams.listen(address)?;
        let (clients, addresses, sources) = Default::default();
        Ok(Self {
            streams,
            limits,
            clients,
            addresses,
            sources,
            closed: Vec::new(),
            gone: 0,
            timed_out: 0,
            displaced: 0,
            tidy_at: None,
        })
    }

    /// What gets readable when there is something.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub(crate) fn readiness(&self) -> io::Result<OwnedFd> {
        self.streams.readiness()
    }

    /// Queues a datagram to the client that is connected from there; if none is, it only counts.
    pub(crate) fn send(&mut self, address: SocketAddr, datagram: &[u8]) {
        match self.clients.get(&address) {
            Some(client) => self.streams.send(client.stream, datagram),
            None => self.gone += 1,
        }
    }

    pub(crate) fn flush(&mut self) {
        self.streams.flush();
    }

    /// The next poll must not wait.
    pub(crate) fn has_more(&self) -> bool {
        self.streams.has_more()
    }

    /// Takes what has come, without waiting.
    ///
    /// # Errors
    /// No connection can be used any more.
    pub(crate) fn poll(&mut self, now: Instant) -> io::Result<()> {
        self.closed.clear();
        self.streams.poll()?;
        for event in self.streams.happened() {
            match event {
                StreamEvent::Accepted { stream } => self.enter(stream, now),
                StreamEvent::Closed { stream, .. } => self.leave(stream),
                StreamEvent::Connected { .. } => {}
            }
        }
        Ok(())
    }

    fn enter(&mut self, stream: StreamId, now: Instant) {
        let Some(address) = self.streams.remote(stream) else { return };
        if !self.make_room(source(address.ip()), now) {
            self.displaced += 1;
            self.streams.close(stream);
            return;
        }
        // The one before from there is over, or it could not be there again.
        if let Some(before) = self.clients.get(&address) {
            let stream = before.stream;
            self.streams.close(stream);
            self.leave(stream);
        }
        let of_source = self.sources.entry(source(address.ip())).or_default();
        of_source.connections += 1;
        of_source.unclaimed.push_back((now, address));
        self.clients.insert(address, TcpClient { stream, unclaimed_since: Some(now) });
        self.addresses.insert(stream, address);
        self.tidy_at.get_or_insert(now + TIDY_INTERVAL);
    }

    /// Whether there is room for a connection from this source, or another one could be displaced for it.
    fn make_room(&mut self, newcomer: IpAddr, now: Instant) -> bool {
        let Limits { connections_max, source_connections_max } = self.limits;
        let of_source = self.sources.get(&newcomer).map_or(0, |own| own.connections);
        if of_source < source_connections_max && self.clients.len() < connections_max {
            return true;
        }
        let most = self.sources.iter().max_by_key(|(_, source)| source.connections);
        let from = match most {
            Some((most, _)) if of_source < source_connections_max => *most,
            _ => newcomer,
        };
        let oldest = self.oldest_unclaimed(from).filter(|(since, _)| *since + GRACE <= now);
        let Some((_, address)) = oldest else { return false };
        self.displaced += 1;
        self.close(address);
        true
    }

    /// The connection of a source by which no peer comes for longest.
    fn oldest_unclaimed(&mut self, of: IpAddr) -> Option<(Instant, SocketAddr)> {
        let Self { sources, clients, .. } = self;
        let unclaimed = &mut sources.get_mut(&of)?.unclaimed;
        while let Some(&(since, address)) = unclaimed.front() {
            let client = clients.get(&address);
            if client.is_some_and(|client| client.unclaimed_since == Some(since)) {
                return Some((since, address));
            }
            unclaimed.pop_front();
        }
        None
    }

    fn close(&mut self, address: SocketAddr) {
        if let Some(client) = self.clients.get(&address) {
            let stream = client.stream;
            self.streams.close(stream);
            self.leave(stream);
        }
    }

    /// A connection is over.
    fn leave(&mut self, stream: StreamId) {
        let Some(address) = self.addresses.remove(&stream) else { return };
        self.clients.remove(&address);
        self.closed.push(address);
        let source = source(address.ip());
        if let Some(of_source) = self.sources.get_mut(&source) {
            of_source.connections -= 1;
            if of_source.connections == 0 {
                self.sources.remove(&source);
            }
        }
    }

    /// A peer comes by the connection from there.
    pub(crate) fn claim(&mut self, address: SocketAddr) {
        if let Some(client) = self.clients.get_mut(&address) {
            client.unclaimed_since = None;
        }
    }

    /// Ends connections by which no peer has come for too long, where it is time to look. `is_peers` says
    /// of those that had one whether they still do.
    pub(crate) fn tidy(&mut self, now: Instant, is_peers: impl Fn(SocketAddr) -> bool) {
        if self.tidy_at.is_none_or(|at| now < at) {
            return;
        }
        for (&address, client) in &mut self.clients {
            if client.unclaimed_since.is_none() && !is_peers(address) {
                client.unclaimed_since = Some(now);
                if let Some(of_source) = self.sources.get_mut(&source(address.ip())) {
                    of_source.unclaimed.push_back((now, address));
                }
            }
        }
        let sources: Vec<IpAddr> = self.sources.keys().copied().collect();
        for source in sources {
            while let Some((since, address)) = self.oldest_unclaimed(source)
                && since + UNCLAIMED_MAX <= now
            {
                self.timed_out += 1;
                self.close(address);
            }
        }
        self.tidy_at = (!self.clients.is_empty()).then_some(now + TIDY_INTERVAL);
    }

    /// When [`tidy`](Self::tidy) has something to do next.
    pub(crate) fn tidy_at(&self) -> Option<Instant> {
        self.tidy_at
    }

    /// Connections that were closed because no peer came by them, and those for want of room.
    pub(crate) fn closed_unclaimed(&self) -> [u64; 2] {
        [self.timed_out, self.displaced]
    }

    /// From where those came whose connections were closed in the last poll, or since.
    pub(crate) fn closed(&self) -> &[SocketAddr] {
        &self.closed
    }

    pub(crate) fn batch(&self) -> &[StreamReceived] {
        self.streams.batch()
    }

    pub(crate) fn payload(&self, received: &StreamReceived) -> &[u8] {
        self.streams.payload(received)
    }

    /// Datagrams that a connection took no more of.
    pub(crate) fn unsent(&self) -> u64 {
        self.streams.stats().write_queue_full
    }

    /// Datagrams to a connection that was closed, or that still waited when it was.
    pub(crate) fn undeliverable(&self) -> u64 {
        self.streams.stats().ended_unsent + self.gone
    }
}

#[cfg(test)]
mod tests;
