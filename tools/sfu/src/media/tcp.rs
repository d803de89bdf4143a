//! Clients that come over TCP (RFC 6544): the worker listens, they connect.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustc_hash::FxHashMap;
use stampede_udp::{StreamEvent, StreamId, StreamReceived, Streams};

/// Connections of one worker at a time; further ones are refused.
const CONNECTIONS_MAX: usize = 20_000;
/// Datagrams of one poll, where a read brings no more at once.
const BATCH_MAX: usize = 1_024;

/// The connections of one worker.
pub(crate) struct TcpClients {
    streams: Streams,
    by_address: FxHashMap<SocketAddr, StreamId>,
    addresses: FxHashMap<StreamId, SocketAddr>,
    /// Of connections that were closed in the last poll.
    closed: Vec<SocketAddr>,
    /// Datagrams to connections that were closed.
    gone: u64,
}

impl TcpClients {
    /// Listens at this address.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn listen(address: SocketAddr) -> io::Result<Self> {
        let mut streams = Streams::new(CONNECTIONS_MAX, BATCH_MAX)?;
        streams.listen(address)?;
        let (by_address, addresses) = Default::default();
        Ok(Self { streams, by_address, addresses, closed: Vec::new(), gone: 0 })
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

    /// Takes what has come, without waiting.
    ///
    /// # Errors
    /// No connection can be used any more.
    pub(crate) fn poll(&mut self) -> io::Result<()> {
        self.streams.poll()?;
        self.closed.clear();
        for event in self.streams.happened() {
            match event {
                StreamEvent::Accepted { stream } => {
                    if let Some(address) = self.streams.remote(stream) {
                        self.by_address.insert(address, stream);
                        self.addresses.insert(stream, address);
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

    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_was_for_a_client_that_is_gone_found_no_full_queue() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut clients = TcpClients::listen(address).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let poll_until = |clients: &mut TcpClients, connected: usize| {
            while clients.by_address.len() != connected {
                assert!(Instant::now() < deadline);
                clients.poll().unwrap();
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
