//! A worker's socket, and what is injected on the way out.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use stampede_impair::{Class, Fate, Held, Impairment};
use stampede_udp::{Backend, Received, SocketId, UdpStats, Wait};
use str0m::net::Protocol;

use super::endpoint::Endpoint;
use super::tcp::TcpClients;
use crate::faults::Malformer;

/// The one socket of a worker, with the packets that are held back on purpose.
pub(crate) struct MediaSocket {
    backend: Box<dyn Backend>,
    socket: SocketId,
    held: Held<(Endpoint, Box<[u8]>)>,
    malformer: Option<Malformer>,
    tcp: Option<TcpClients>,
    /// What is written for a client over TCP.
    buffer: Vec<u8>,
    /// What time it is.
    clock: fn() -> Instant,
}

/// A datagram to a peer that is still to be written.
pub(crate) struct Datagram<'a> {
    pub(crate) destination: Endpoint,
    pub(crate) class: Class,
    /// Bytes of it.
    pub(crate) len: usize,
    /// Fills them in; false when it can't. The same each time it is called.
    pub(crate) write: &'a mut dyn FnMut(&mut [u8]) -> bool,
}

impl MediaSocket {
    /// Of a backend that has this socket and no other; `malformer` breaks datagrams of media.
    pub(crate) fn new(
        backend: Box<dyn Backend>,
        socket: SocketId,
        malformer: Option<Malformer>,
    ) -> Self {
        let (held, tcp, buffer) = (Held::default(), None, Vec::new());
        Self { backend, socket, held, malformer, tcp, buffer, clock: Instant::now }
    }

    /// Goes by its worker's clock.
    pub(crate) fn with_clock(self, clock: fn() -> Instant) -> Self {
        Self { clock, ..self }
    }

    /// Takes clients over TCP too.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn with_tcp(mut self, tcp: TcpClients) -> io::Result<Self> {
        self.backend.watch(tcp.readiness()?)?;
        self.tcp = Some(tcp);
        Ok(self)
    }

    /// Waits for datagrams; see [`Backend::poll`].
    pub(crate) fn poll(&mut self, mut wait: Wait) -> io::Result<()> {
        if let Some(tcp) = &mut self.tcp {
            tcp.flush();
            if tcp.has_more() {
                wait.timeout = Duration::ZERO;
            }
        }
        self.backend.poll(wait)?;
        match &mut self.tcp {
            Some(tcp) => tcp.poll((self.clock)()),
            None => Ok(()),
        }
    }

    /// Of what the last poll has brought over TCP: from where, its bytes, and when, in nanoseconds
    /// since the Unix epoch.
    pub(crate) fn over_tcp(&self, index: usize) -> Option<(Endpoint, &[u8], u64)> {
        let tcp = self.tcp.as_ref()?;
        let received = tcp.batch().get(index)?;
        let source = Endpoint::tcp(received.source);
        Some((source, tcp.payload(received), received.received_at_unix_ns))
    }

    /// A peer comes by the TCP connection from there.
    pub(crate) fn claim_tcp(&mut self, address: SocketAddr) {
        if let Some(tcp) = &mut self.tcp {
            tcp.claim(address);
        }
    }

    /// Ends TCP connections by which no peer has come for too long; `is_peers` says whether one still does.
    pub(crate) fn tidy_tcp(&mut self, now: Instant, is_peers: impl Fn(SocketAddr) -> bool) {
        if let Some(tcp) = &mut self.tcp {
            tcp.tidy(now, is_peers);
        }
    }

    /// TCP connections that were closed because no peer came by them, and those for want of room.
    pub(crate) fn tcp_closed_unclaimed(&self) -> [u64; 2] {
        self.tcp.as_ref().map_or([0; 2], TcpClients::closed_unclaimed)
    }

    /// When there is something to be done about TCP connections.
    pub(crate) fn tcp_tidy_at(&self) -> Option<Instant> {
        self.tcp.as_ref().and_then(TcpClients::tidy_at)
    }

    /// From where a client came over TCP whose connection was closed in the last poll, or since.
    pub(crate) fn closed_tcp(&self, index: usize) -> Option<Endpoint> {
        self.tcp.as_ref()?.closed().get(index).copied().map(Endpoint::tcp)
    }

    /// What the last poll has brought over UDP.
    pub(crate) fn batch(&self) -> &[Received] {
        self.backend.batch()
    }

    /// The bytes of a datagram of the batch.
    pub(crate) fn payload(&self, received: &Received) -> &[u8] {
        self.backend.payload(received)
    }

    /// Hands everything to the kernel that is not held back.
    pub(crate) fn flush(&mut self) {
        self.backend.flush();
        if let Some(tcp) = &mut self.tcp {
            tcp.flush();
        }
    }

    /// The backend's counters, with what the kernel dropped.
    pub(crate) fn refreshed_stats(&mut self) -> UdpStats {
        self.backend.refresh_drops();
        self.backend.stats()
    }

    /// Datagrams that clients over TCP took no more of.
    pub(crate) fn tcp_unsent(&self) -> u64 {
        self.tcp.as_ref().map_or(0, TcpClients::unsent)
    }

    /// Datagrams for clients over TCP that were gone.
    pub(crate) fn tcp_undeliverable(&self) -> u64 {
        self.tcp.as_ref().map_or(0, TcpClients::undeliverable)
    }

    /// Datagrams that were to be held back when too many were already.
    pub(crate) fn held_full(&self) -> u64 {
        self.held.full()
    }

    /// When the next datagram is due that is held back.
    pub(crate) fn next_release(&self) -> Option<Instant> {
        self.held.next()
    }

    /// Sends what has been held back long enough.
    pub(crate) fn release(&mut self, now: Instant) {
        while let Some((_, (destination, payload))) = self.held.pop_due(now) {
            self.send(destination, &payload);
        }
    }

    /// Sends a packet of media like [`put`](Self::put), and before it a broken one if that is asked
    /// for. What became of it, and whether there was a broken one; `None` if it can't be written.
    pub(crate) fn put_media(
        &mut self,
        now: Instant,
        impair: Option<&mut Impairment>,
        mut datagram: Datagram<'_>,
    ) -> Option<(Fate, bool)> {
        if self.malformer.is_none() {
            return Some((self.put(now, impair, datagram), false));
        }
        let bytes = self.written(&mut datagram)?;
        let malformed = self.spoil(datagram.destination, &bytes);
        let mut copy = |buffer: &mut [u8]| {
            buffer.copy_from_slice(&bytes);
            true
        };
        Some((self.put(now, impair, Datagram { write: &mut copy, ..datagram }), malformed))
    }

    /// Sends a datagram, or drops it or holds it back as asked: the one place where that is
    /// decided. What can't be written is not sent and counts as a send error.
    pub(crate) fn put(
        &mut self,
        now: Instant,
        impair: Option<&mut Impairment>,
        mut datagram: Datagram<'_>,
    ) -> Fate {
        let Some(impair) = impair else {
            self.put_now(&mut datagram);
            return Fate::untouched(now);
        };
        let class = datagram.class;
        // Writing a burst to many subscribers takes a while, so a delay counts from when this one's
        // turn has come, not from the start of the turn.
        let now = if impair.holds_packets() { (self.clock)() } else { now };
        let fate = impair.decide(now, class, datagram.len);
        let Fate::Deliver { at, twice, .. } = fate else { return fate };
        let copies = 1 + u8::from(twice);
        if class == Class::Other || !impair.holds_packets() {
            for _ in 0..copies {
                self.put_now(&mut datagram);
            }
            return fate;
        }
        let Some(bytes) = self.written(&mut datagram) else { return fate };
        for copy in 0..copies {
            if !self.held.push(at, (datagram.destination, bytes.clone())) {
                return impair.overflowed(class, now, fate, copy > 0);
            }
        }
        fate
    }

    fn put_now(&mut self, datagram: &mut Datagram<'_>) {
        let Datagram { destination, len, .. } = *datagram;
        if destination.protocol == Protocol::Udp {
            self.backend.send_with(self.socket, destination.address, len, datagram.write);
            return;
        }
        self.buffer.resize(len, 0);
        if let Some(tcp) = &mut self.tcp
            && (datagram.write)(&mut self.buffer)
        {
            tcp.send(destination.address, &self.buffer);
        }
    }

    fn send(&mut self, destination: Endpoint, payload: &[u8]) {
        if destination.protocol == Protocol::Udp {
            self.backend.send(self.socket, destination.address, payload);
        } else if let Some(tcp) = &mut self.tcp {
            tcp.send(destination.address, payload);
        }
    }

    /// The bytes of a datagram that isn't written where it will be sent from.
    fn written(&mut self, datagram: &mut Datagram<'_>) -> Option<Box<[u8]>> {
        let mut bytes = vec![0; datagram.len].into_boxed_slice();
        if (datagram.write)(&mut bytes) {
            return Some(bytes);
        }
        // Nothing is sent; it only counts.
        self.backend.send_with(self.socket, datagram.destination.address, 0, &mut |_| false);
        None
    }

    /// Sends a broken copy of a packet if it is its turn.
    fn spoil(&mut self, destination: Endpoint, packet: &[u8]) -> bool {
        let broken = self.malformer.as_mut().and_then(|malformer| malformer.spoil(packet));
        let Some(broken) = broken else { return false };
        match (destination.protocol, &mut self.tcp) {
            (Protocol::Udp, _) => self.backend.send(self.socket, destination.address, broken),
            (_, Some(tcp)) => tcp.send(destination.address, broken),
            (_, None) => {}
        }
        true
    }
}
