//! The sockets of a worker's peers: whose each is, and those that peers ask for.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use stampede_core::peer::WAYS_MAX;
use stampede_core::{AddressRequest, LocalId, PathKind};
use stampede_udp::{Framing, SocketId, StreamEvent, StreamId, Streams};

use super::{Slot, Worker};
use crate::clock::Clock;

/// Datagrams of a batch of streams, where a read brings no more at once.
const STREAM_BATCH_MAX: usize = 1_024;
/// Most TCP connections of a worker.
const STREAMS_MAX: usize = 65_536;

/// One end of a way to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Socket {
    Udp(SocketId),
    Stream(StreamId),
}

/// A peer's sockets, one for each of its local addresses.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sockets([Option<Socket>; WAYS_MAX]);

impl Sockets {
    #[inline]
    pub(crate) fn get(&self, via: LocalId) -> Option<Socket> {
        self.0.get(via.index()).copied().flatten()
    }

    pub(crate) fn set(&mut self, via: LocalId, socket: Socket) {
        if let Some(place) = self.0.get_mut(via.index()) {
            *place = Some(socket);
        }
    }

    pub(crate) fn take(&mut self, via: LocalId) -> Option<Socket> {
        self.0.get_mut(via.index()).and_then(Option::take)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Socket> + use<> {
        self.0.into_iter().flatten()
    }

    /// Those of UDP.
    pub(crate) fn udp(&self) -> impl Iterator<Item = SocketId> + use<> {
        self.iter().filter_map(|socket| match socket {
            Socket::Udp(socket) => Some(socket),
            Socket::Stream(_) => None,
        })
    }
}

/// The peer, by its slot, and the local address that a socket belongs to. Index: that of a
/// [`SocketId`], or of a [`StreamId`].
#[derive(Debug, Default)]
pub(crate) struct Owners(Vec<Option<(u32, LocalId)>>);

impl Owners {
    #[inline]
    pub(crate) fn get(&self, index: u32) -> Option<(usize, LocalId)> {
        let owner = self.0.get(index as usize).copied().flatten();
        owner.map(|(key, via)| (key as usize, via))
    }

    pub(crate) fn set(&mut self, index: u32, key: usize, via: LocalId) {
        let index = index as usize;
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        self.0[index] = Some((key as u32, via));
    }

    pub(crate) fn clear(&mut self, index: u32) {
        if let Some(owner) = self.0.get_mut(index as usize) {
            *owner = None;
        }
    }
}

/// The local address over which a peer was connected last that had been given another one first.
#[derive(Debug, Clone, Default)]
pub(crate) struct LearnedIp(Arc<Mutex<Option<IpAddr>>>);

impl LearnedIp {
    pub(crate) fn get(&self) -> Option<IpAddr> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, ip: IpAddr) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(ip);
    }
}

impl Slot {
    /// Where its media came over another address than its first one, further peers are to begin
    /// with that.
    pub(super) fn learn(&self, learned: &LearnedIp) {
        let local = self.peer.local();
        let is_udp = self.peer.path() == PathKind::Udp;
        if is_udp && self.peer.is_connected() && self.peer.first_local() != Some(local) {
            learned.set(local.ip());
        }
    }
}

impl Worker {
    /// Opens and closes the sockets that a peer asked for while it was drained. It asks for each once,
    /// so this ends.
    #[cold]
    pub(super) fn carry_out_requests(&mut self, clock: Clock, key: usize) {
        let now = clock.now;
        for request in std::mem::take(&mut self.address_requests) {
            let Some(slot) = self.slots.get_mut(key) else { return };
            match request {
                AddressRequest::Open { local } => {
                    let bound = stampede_udp::bind((local, 0).into(), self.setup.buffers);
                    if let Err(error) = bound.and_then(|socket| self.open(now, key, socket))
                        && let Some(slot) = self.slots.get_mut(key)
                    {
                        slot.peer.local_refused(now, local, error.to_string());
                    }
                }
                AddressRequest::Connect { via, remote } => {
                    let stream = self.streams().and_then(|own| own.connect(remote, Framing::Ice));
                    self.dialled(now, key, via, stream);
                }
                AddressRequest::Relay { via, server, by: PathKind::TurnUdp, .. } => {
                    if let Err(error) = self.open_relay(now, key, via, server)
                        && let Some(slot) = self.slots.get_mut(key)
                    {
                        slot.peer.stream_closed(now, via, error.to_string());
                    }
                }
                AddressRequest::Relay { via, server, by, host } => {
                    let stream = self.dial_relay(server, by, &host);
                    self.dialled(now, key, via, stream);
                }
                AddressRequest::Close { via } => {
                    if let Some(socket) = slot.sockets.take(via) {
                        self.close(key, socket);
                    }
                }
            }
        }
        self.drain(clock, key);
    }

    fn streams(&mut self) -> io::Result<&mut Streams> {
        Ok(match &mut self.streams {
            Some(streams) => streams,
            none => {
                let streams = Streams::new(STREAMS_MAX, STREAM_BATCH_MAX)?;
                self.backend.watch(streams.readiness()?)?;
                none.insert(Box::new(streams))
            }
        })
    }

    /// Begins to connect to a TURN server.
    fn dial_relay(&mut self, server: SocketAddr, by: PathKind, host: &str) -> io::Result<StreamId> {
        if by != PathKind::TurnTls {
            return self.streams()?.connect(server, Framing::Turn);
        }
        let tls = self.setup.tls.clone();
        let tls = tls.ok_or_else(|| io::Error::other("TLS was not set up"))?;
        self.streams()?.connect_tls(server, Framing::Turn, &tls, host)
    }

    /// A connection has begun, or can't.
    fn dialled(&mut self, now: Instant, key: usize, via: LocalId, stream: io::Result<StreamId>) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        match stream {
            Ok(stream) => {
                slot.sockets.set(via, Socket::Stream(stream));
                self.stream_owners.set(stream.0, key, via);
            }
            Err(error) => slot.peer.stream_closed(now, via, error.to_string()),
        }
    }

    /// Gives a peer a socket towards a TURN server.
    fn open_relay(
        &mut self,
        now: Instant,
        key: usize,
        via: LocalId,
        server: SocketAddr,
    ) -> io::Result<()> {
        let (socket, address) = self.bind(stampede_udp::local_ip_towards(server)?)?;
        let slot = self.slots.get_mut(key);
        let is_wanted = slot.is_some_and(|slot| {
            slot.sockets.set(via, Socket::Udp(socket));
            slot.peer.stream_connected(now, via, address)
        });
        match is_wanted {
            true => self.owners.set(socket.0, key, via),
            false => self.backend.remove_socket(socket),
        }
        Ok(())
    }

    /// Gives what came over TCP to its peers, and tells them what became of their connections.
    pub(super) fn receive_streams(&mut self, clock: Clock) -> io::Result<()> {
        let Some(streams) = &mut self.streams else { return Ok(()) };
        let received = streams.poll()?;
        let happened = streams.happened();
        if let Some(first) = streams.batch().first() {
            // Of each stream the last stamp is known, and the first stream has waited longest.
            self.health.batch_age(clock.age(first.received_at_unix_ns));
        }
        let mut at = 0;
        while at < received {
            let Some(streams) = &self.streams else { break };
            let batch = &streams.batch()[at..];
            let stream = batch[0].stream;
            let run = batch.iter().take_while(|received| received.stream == stream).count();
            let owner = self.stream_owners.get(stream.0);
            let Some((key, via, slot)) =
                owner.and_then(|(key, via)| Some((key, via, self.slots.get_mut(key)?)))
            else {
                self.health.orphans(run);
                at += run;
                continue;
            };
            slot.peer.received_on(via);
            for received in &batch[..run] {
                let at = clock.arrival(received.received_at_unix_ns);
                let payload = streams.payload(received);
                let (impairments, scratch) = (&mut self.impairments, &mut self.scratch);
                slot.receive(at, (via, received.source), payload, impairments, scratch);
            }
            at += run;
            self.drain(clock, key);
            self.send_if_due();
        }
        for event in happened {
            self.stream_event(clock, event);
            self.send_if_due();
        }
        Ok(())
    }

    #[cold]
    fn stream_event(&mut self, clock: Clock, event: StreamEvent) {
        let (StreamEvent::Connected { stream, .. }
        | StreamEvent::Accepted { stream }
        | StreamEvent::Closed { stream, .. }) = event;
        let owner = self.stream_owners.get(stream.0);
        let Some((key, via, slot)) =
            owner.and_then(|(key, via)| Some((key, via, self.slots.get_mut(key)?)))
        else {
            return;
        };
        match event {
            StreamEvent::Connected { local, .. } => {
                if !slot.peer.stream_connected(clock.now, via, local)
                    && let Some(socket) = slot.sockets.take(via)
                {
                    self.close(key, socket);
                }
            }
            StreamEvent::Closed { why, .. } => {
                slot.sockets.take(via);
                self.stream_owners.clear(stream.0);
                slot.peer.stream_closed(clock.now, via, why);
            }
            // There is no listener here.
            StreamEvent::Accepted { .. } => {}
        }
        self.drain(clock, key);
    }

    /// Closes a socket that its peer has no more; the datagrams dropped at it.
    pub(super) fn forget(&mut self, socket: Socket) -> u64 {
        match socket {
            Socket::Udp(socket) => {
                let drops = self.backend.socket_drops(socket);
                self.backend.remove_socket(socket);
                self.owners.clear(socket.0);
                drops
            }
            Socket::Stream(stream) => {
                if let Some(streams) = &mut self.streams {
                    streams.close(stream);
                }
                self.stream_owners.clear(stream.0);
                0
            }
        }
    }

    fn close(&mut self, key: usize, socket: Socket) {
        let drops = self.forget(socket);
        if let Some(slot) = self.slots.get_mut(key) {
            slot.drops_closed += drops;
        }
    }

    /// Carries out [`PeerCommand::ChangeNetwork`](crate::PeerCommand::ChangeNetwork). The new socket
    /// is bound before the old ones are closed, so that the kernel gives it another port.
    pub(super) fn change_network(&mut self, clock: Clock, key: usize) {
        let now = clock.now;
        let Some(slot) = self.slots.get_mut(key) else { return };
        let ip = slot.peer.local_ip();
        if ip.is_unspecified() {
            return;
        }
        if !slot.peer.uses_udp() {
            let left = std::mem::take(&mut slot.sockets);
            if let Err(error) = slot.peer.change_connections(now) {
                slot.peer.lose_network(now, error.to_string());
            }
            return left.iter().for_each(|socket| self.close(key, socket));
        }
        let bound = self.bind(ip);
        let Some(slot) = self.slots.get_mut(key) else { return };
        let left = std::mem::take(&mut slot.sockets);
        let changed = bound.map_err(|error| error.to_string()).and_then(|(socket, address)| {
            let changed = slot.peer.change_network(now, address);
            changed.map(|via| (socket, via)).map_err(|error| {
                self.backend.remove_socket(socket);
                error.to_string()
            })
        });
        match changed {
            Ok((socket, via)) => {
                slot.sockets.set(via, Socket::Udp(socket));
                self.owners.set(socket.0, key, via);
            }
            Err(why) => slot.peer.lose_network(now, why),
        }
        left.iter().for_each(|socket| self.close(key, socket));
    }

    fn bind(&mut self, ip: IpAddr) -> io::Result<(SocketId, SocketAddr)> {
        let socket = stampede_udp::bind((ip, 0).into(), self.setup.buffers)?;
        let address = socket.local_addr()?;
        Ok((self.backend.add_socket(socket)?, address))
    }

    /// Gives a peer one more socket.
    fn open(&mut self, now: Instant, key: usize, socket: UdpSocket) -> io::Result<()> {
        let address = socket.local_addr()?;
        let socket = self.backend.add_socket(socket)?;
        let slot = self.slots.get_mut(key);
        let added = slot.and_then(|slot| Some((slot.peer.add_local(now, address)?, slot)));
        match added {
            Some((via, slot)) => {
                slot.sockets.set(via, Socket::Udp(socket));
                self.owners.set(socket.0, key, via);
            }
            None => self.backend.remove_socket(socket),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_socket_of_a_peer_is_anothers() {
        let (via, mut sockets, mut owners) =
            (LocalId::default(), Sockets::default(), Owners::default());
        assert_eq!((sockets.get(via), owners.get(3)), (None, None));
        sockets.set(via, Socket::Udp(SocketId(3)));
        owners.set(3, 7, via);
        assert_eq!(owners.get(3), Some((7, via)));
        assert_eq!(owners.get(2), None);
        assert_eq!(sockets.udp().collect::<Vec<_>>(), [SocketId(3)]);
        assert_eq!(sockets.take(via), Some(Socket::Udp(SocketId(3))));
        assert_eq!((sockets.take(via), sockets.iter().count()), (None, 0));
        sockets.set(via, Socket::Stream(StreamId(3)));
        assert_eq!((sockets.udp().count(), sockets.iter().count()), (0, 1));
        owners.clear(3);
        owners.clear(9);
        assert_eq!(owners.get(3), None);
    }
}
