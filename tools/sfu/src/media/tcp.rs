//! Clients that come over TCP (RFC 6544): the worker listens, they connect.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use stampede_udp::{StreamEvent, StreamId, StreamReceived, Streams};

/// Connections of one worker at a time; further ones are refused.
pub(crate) const CONNECTIONS_MAX: usize = 20_000;
/// One in so many stays free for who connects next, which is more than connect in one poll: of the
/// connections by which no peer is heard the oldest makes room.
const FREE_ONE_IN: usize = 64;
/// A connection by which no peer is heard for so long is closed. That is as long as a participant may
/// take to connect; a client's first check comes at once, but may wait behind others who join.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(60);
/// Connections that are looked at in one turn at most.
const LOOKED_AT_MAX: usize = 512;
/// Datagrams of one poll, where a read brings no more at once.
const BATCH_MAX: usize = 1_024;

/// The connections of one worker.
pub(crate) struct TcpClients {
    streams: Streams,
    by_address: FxHashMap<SocketAddr, StreamId>,
    addresses: FxHashMap<StreamId, SocketAddr>,
    /// All of them, by when they were accepted or looked at last.
    looked_at: VecDeque<(Instant, StreamId, SocketAddr)>,
    connections_max: usize,
    /// Connections that were closed because no peer was heard by them.
    dismissed: u64,
    /// Of connections that were closed in the last poll.
    closed: Vec<SocketAddr>,
    /// Datagrams to connections that were closed.
    gone: u64,
}

impl TcpClients {
    /// Listens at this address, for so many connections at a time.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn listen(address: SocketAddr, connections_max: usize) -> io::Result<Self> {
        let mut streams = Streams::new(connections_max, BATCH_MAX)?;
        streams.listen(address)?;
        let (by_address, addresses, looked_at, closed) = Default::default();
        let (dismissed, gone) = (0, 0);
        Ok(Self {
            streams,
            by_address,
            addresses,
            looked_at,
            connections_max,
            dismissed,
            closed,
            gone,
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
        match self.by_address.get(&address) {
            Some(&stream) => {
                self.streams.send(stream, datagram);
            }
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

    /// Takes what has come by `now`, without waiting.
    ///
    /// # Errors
    /// No connection can be used any more.
    pub(crate) fn poll(&mut self, now: Instant) -> io::Result<()> {
        self.streams.poll()?;
        self.closed.clear();
        for event in self.streams.happened() {
            match event {
                StreamEvent::Accepted { stream } => {
                    if let Some(address) = self.streams.remote(stream) {
                        self.by_address.insert(address, stream);
                        self.addresses.insert(stream, address);
                        self.looked_at.push_back((now, stream, address));
                    }
                }
                StreamEvent::Closed { stream, .. } => {
                    if let Some(address) = self.addresses.remove(&stream)
                        && self.by_address.get(&address) == Some(&stream)
                    {
                        self.by_address.remove(&address);
                        self.closed.push(address);
                    }
                }
                StreamEvent::Connected { .. } => {}
            }
        }
        Ok(())
    }

    /// Closes connections by which no peer is heard: those that have been so for long, and the oldest
    /// where there is little room for others. So who holds connections open for nothing loses them to
    /// whoever needs them.
    pub(crate) fn dismiss_strangers(
        &mut self,
        now: Instant,
        is_heard: impl Fn(SocketAddr) -> bool,
    ) {
        for _ in 0..self.looked_at.len().min(LOOKED_AT_MAX) {
            let free = self.connections_max.saturating_sub(self.streams.len());
            // Of those that are closed already not all have been looked at again.
            let has_room = free >= self.connections_max / FREE_ONE_IN
                && self.looked_at.len() <= 2 * self.connections_max;
            let Some(&(at, stream, address)) = self.looked_at.front() else { return };
            if has_room && now < at + STRANGER_TIMEOUT {
                return;
            }
            self.looked_at.pop_front();
            if self.addresses.get(&stream) != Some(&address) {
                // It is closed already.
            } else if is_heard(address) {
                self.looked_at.push_back((now, stream, address));
            } else {
                self.streams.close(stream);
                self.addresses.remove(&stream);
                if self.by_address.get(&address) == Some(&stream) {
                    self.by_address.remove(&address);
                }
                self.dismissed += 1;
            }
        }
    }

    /// Connections that were refused, or closed because no peer was heard by them.
    pub(crate) fn refused(&self) -> u64 {
        self.streams.stats().connects_failed + self.dismissed
    }

    /// From where those came whose connections were closed in the last poll.
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
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]

    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn listening(connections_max: usize) -> (TcpClients, SocketAddr) {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        (TcpClients::listen(address, connections_max).unwrap(), address)
    }

    /// Somebody who has connected.
    fn connected((clients, address): &mut (TcpClients, SocketAddr), now: Instant) -> TcpStream {
        let client = TcpStream::connect(*address).unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        let source = client.local_addr().unwrap();
        let end = Instant::now() + SOON;
        while !clients.by_address.contains_key(&source) {
            assert!(Instant::now() < end, "{:?}", clients.streams.stats());
            clients.poll(now).unwrap();
        }
        client
    }

    fn is_closed(client: &mut TcpStream) -> bool {
        matches!(client.read(&mut [0]), Ok(0))
    }

    /// Of fewer than [`CONNECTIONS_MAX`], for which there are not descriptors everywhere.
    #[test]
    fn who_holds_connections_open_for_nothing_makes_room_for_whoever_needs_one() {
        let most = 2 * FREE_ONE_IN;
        let (mut rig, start) = (listening(most), Instant::now());
        let mut own = connected(&mut rig, start);
        let peer = own.local_addr().unwrap();
        let is_heard = |address: SocketAddr| address == peer;
        let mut idle = Vec::new();
        for number in 0..3 * most as u32 {
            let now = start + Duration::from_millis(1) * number;
            idle.push(connected(&mut rig, now));
            rig.0.dismiss_strangers(now, is_heard);
            assert!(rig.0.streams.len() <= most - 2, "{number}");
        }
        let clients = &mut rig.0;
        // Nobody was refused: the oldest strangers went.
        let gone = 3 * most + 1 - (most - 2);
        assert_eq!((clients.refused(), clients.streams.stats().connects_failed), (gone as u64, 0));
        assert!(is_closed(&mut idle[0]) && is_closed(&mut idle[gone - 1]));
        assert!(clients.by_address.contains_key(&idle[gone].local_addr().unwrap()));
        clients.send(peer, &[1; 100]);
        clients.flush();
        own.read_exact(&mut [0; 102]).unwrap();
    }

    #[test]
    fn a_connection_by_which_no_peer_is_heard_is_closed_in_time() {
        let (mut rig, start) = (listening(2 * FREE_ONE_IN), Instant::now());
        let own = connected(&mut rig, start);
        let mut idle = connected(&mut rig, start);
        let (mut clients, peer) = (rig.0, own.local_addr().unwrap());
        let nearly = STRANGER_TIMEOUT - Duration::from_millis(1);
        for (after, left) in [(nearly, 2), (STRANGER_TIMEOUT, 1)] {
            clients.dismiss_strangers(start + after, |address| address == peer);
            assert_eq!(clients.streams.len(), left);
        }
        assert!(is_closed(&mut idle));
        // Its peer is gone, and so it goes too, as long after.
        clients.dismiss_strangers(start + 2 * STRANGER_TIMEOUT, |_| false);
        assert_eq!((clients.streams.len(), clients.refused()), (0, 2));
        assert!(clients.looked_at.is_empty() && clients.addresses.is_empty());
    }

    #[test]
    fn what_was_for_a_client_that_is_gone_found_no_full_queue() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut clients = TcpClients::listen(address, 64).unwrap();
        let deadline = Instant::now() + SOON;
        let poll_until = |clients: &mut TcpClients, connected: usize| {
            while clients.by_address.len() != connected {
                assert!(Instant::now() < deadline);
                clients.poll(Instant::now()).unwrap();
            }
        };
        let client = TcpStream::connect(address).unwrap();
        let source = client.local_addr().unwrap();
        poll_until(&mut clients, 1);
        clients.send(source, &[1; 100]);
        clients.flush();
        assert_eq!((clients.unsent(), clients.undeliverable()), (0, 0));
        drop(client);
        poll_until(&mut clients, 0);
        assert_eq!(clients.closed(), [source]);
        assert!(clients.addresses.is_empty());
        clients.send(source, &[1; 100]);
        assert_eq!((clients.unsent(), clients.undeliverable()), (0, 1));
    }
}
