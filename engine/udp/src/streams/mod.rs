//! Datagrams over TCP: ICE's (RFC 6544), and those to a TURN server.
//!
//! [`Streams`] stands beside a [`Backend`](crate::Backend) and is looked at after each of its polls,
//! which end when a stream has something ([`Backend::watch`](crate::Backend::watch)). Readiness, then
//! plain reads and writes: a read brings what has come of a stream, many datagrams at once, and what
//! was sent since the last flush leaves with one write.

mod framing;
mod stream;

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::{Domain, Protocol, Socket, Type};
use stampede_counters::StreamStats;

use crate::slots::Slots;
use crate::sys::{self, Epoll, EpollEvent};
pub use framing::Framing;
use framing::{Front, OVERHEAD_BYTES_MAX, STREAM_DATAGRAM_BYTES_MAX};
pub use stream::WRITE_QUEUE_BYTES_MAX;
use stream::{Read, Stream};

/// Bytes one read takes from a stream before the next one gets its turn.
const READ_BYTES_MAX: usize = 64 << 10;
/// The same over TLS: with the record whose beginning came before, 16 KiB at most, this is what a read
/// has room for.
const SEALED_BYTES_MAX: usize = 32 << 10;
/// What is kept of a datagram of which only the beginning has come, at most.
const PART_BYTES_MAX: usize = STREAM_DATAGRAM_BYTES_MAX + OVERHEAD_BYTES_MAX;
/// Bytes of a batch; streams that find no room in it wait for the next.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Events one `epoll_wait` returns; more wait for the next call.
const EVENTS_MAX: usize = 1_024;
/// Connections taken from a listener in one poll; more wait for the next.
const ACCEPTS_MAX: usize = 256;
/// The kernel's queue of connections that wait to be accepted.
const BACKLOG: i32 = 1_024;
/// The epoll token of the listener; streams use their index.
const LISTENER_TOKEN: u64 = u64::MAX;

/// A stream inside one [`Streams`]. Given again only when nothing of the old one is in a batch any
/// more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u32);

/// A datagram of the current batch.
#[derive(Debug, Clone, Copy)]
pub struct StreamReceived {
    /// The stream it came on.
    pub stream: StreamId,
    /// Its other end.
    pub source: SocketAddr,
    /// When the kernel got the last of what was read with it, in nanoseconds since the Unix epoch
    /// (`SO_TIMESTAMPNS`); later than its own arrival by no more than the stream had waited.
    pub received_at_unix_ns: u64,
    at: u32,
    len: u16,
}

/// What happened to a stream.
#[derive(Debug)]
pub enum StreamEvent {
    /// It is there, and takes datagrams.
    Connected {
        /// Which.
        stream: StreamId,
        /// Its own end.
        local: SocketAddr,
    },
    /// Somebody connected to the listener.
    Accepted {
        /// The new stream.
        stream: StreamId,
    },
    /// It ended, or never was, and is forgotten.
    Closed {
        /// Which.
        stream: StreamId,
        /// Why, in words.
        why: String,
    },
}

/// The streams of one worker thread.
pub struct Streams {
    epoll: Epoll,
    events: Vec<EpollEvent>,
    slots: Slots<Stream>,
    listener: Option<TcpListener>,
    /// Connections may wait at the listener.
    accepting: bool,
    /// Streams that may have something to read, each at most once.
    ready: VecDeque<u32>,
    /// Streams with something to write, each at most once.
    unsent: Vec<u32>,
    happened: Vec<StreamEvent>,
    /// All that was read of this batch; `used` of it.
    bytes: Vec<u8>,
    used: usize,
    /// Where what came over TLS is read into; since there was any.
    sealed: Vec<u8>,
    batch: Vec<StreamReceived>,
    batch_max: usize,
    stats: StreamStats,
    open: usize,
}

impl Streams {
    /// At most so many streams at a time, and datagrams in a batch where streams bring no more at
    /// once.
    ///
    /// # Errors
    /// What the kernel said to another epoll.
    pub fn new(streams_max: usize, batch_max: usize) -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new()?,
            events: vec![EpollEvent { events: 0, u64: 0 }; EVENTS_MAX],
            slots: Slots::new(streams_max),
            listener: None,
            accepting: false,
            ready: VecDeque::new(),
            unsent: Vec::new(),
            happened: Vec::new(),
            bytes: vec![0; BATCH_BYTES_MAX],
            used: 0,
            sealed: Vec::new(),
            batch: Vec::new(),
            batch_max,
            stats: StreamStats::default(),
            open: 0,
        })
    }

    /// What gets readable when a stream is ready, for [`Backend::watch`](crate::Backend::watch).
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn readiness(&self) -> io::Result<OwnedFd> {
        self.epoll.as_fd().try_clone_to_owned()
    }

    /// Begins to connect; [`StreamEvent::Connected`] or [`StreamEvent::Closed`] follows.
    ///
    /// # Errors
    /// What the kernel said at once, or that there are too many.
    pub fn connect(&mut self, remote: SocketAddr, framing: Framing) -> io::Result<StreamId> {
        self.dial(remote, framing, None)
    }

    /// The same over TLS, to whoever has a certificate of this name or address.
    ///
    /// # Errors
    /// As of [`Self::connect`], or that this is no name.
    pub fn connect_tls(
        &mut self,
        remote: SocketAddr,
        framing: Framing,
        tls: &Arc<ClientConfig>,
        host: &str,
    ) -> io::Result<StreamId> {
        let host = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let tls = ClientConnection::new(Arc::clone(tls), host).map_err(io::Error::other)?;
        self.sealed.resize(SEALED_BYTES_MAX, 0);
        self.dial(remote, framing, Some(Box::new(tls)))
    }

    fn dial(
        &mut self,
        remote: SocketAddr,
        framing: Framing,
        tls: Option<Box<ClientConnection>>,
    ) -> io::Result<StreamId> {
        let socket = Socket::new(Domain::for_address(remote), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        match socket.connect(&remote.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => {
                self.stats.connects_failed += 1;
                return Err(error);
            }
        }
        let stream = Stream::new(socket.into(), remote, framing, false, tls);
        self.add(stream)
    }

    /// Takes connections at this address from now on, in ICE's framing; there is one listener. The
    /// address is given back with its port.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn listen(&mut self, address: SocketAddr) -> io::Result<SocketAddr> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        self.epoll.add(&socket, LISTENER_TOKEN)?;
        let listener = TcpListener::from(socket);
        let address = listener.local_addr()?;
        self.listener = Some(listener);
        Ok(address)
    }

    fn add(&mut self, stream: Stream) -> io::Result<StreamId> {
        let socket = &stream.socket;
        socket.set_nodelay(true)?;
        // Without it the time of reading is taken.
        let _ = sys::set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1);
        let index = self.slots.reserve()?;
        if let Err(error) = self.epoll.add_both(socket, u64::from(index)) {
            self.slots.give_back(index);
            return Err(error);
        }
        self.open += 1;
        Ok(StreamId(self.slots.fill(index, stream).0))
    }

    /// Closes a stream, after what the kernel takes at once of what it has to send. Nothing is said
    /// of it any more.
    pub fn close(&mut self, stream: StreamId) {
        if let Some(slot) = self.slots.get_mut(stream.0) {
            let _ = slot.finish(&mut self.stats);
            self.drop_stream(stream.0);
        }
    }

    fn drop_stream(&mut self, index: u32) {
        // A stale entry of the queues is skipped, and what is left to write counted.
        if let Some(stream) = self.slots.take(index) {
            self.stats.ended_unsent += stream.unsent_datagrams();
            self.slots.leave(index);
            self.open -= 1;
            // Who was left waiting for want of a descriptor may find one now.
            self.accepting |= self.listener.is_some();
        }
    }

    /// Its other end.
    #[must_use]
    pub fn remote(&self, stream: StreamId) -> Option<SocketAddr> {
        self.slots.get(stream.0).map(|stream| stream.remote)
    }

    /// Its own end.
    ///
    /// # Errors
    /// What the kernel said, or that there is no such stream.
    pub fn local(&self, stream: StreamId) -> io::Result<SocketAddr> {
        let slot = self.slots.get(stream.0).ok_or_else(crate::no_such_socket)?;
        slot.socket.local_addr()
    }

    /// Streams that are there, connecting ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Queues a datagram; it leaves with the next [`flush`](Self::flush). One that finds more than
    /// [`WRITE_QUEUE_BYTES_MAX`] waiting is dropped and counted, as browsers do, and so is one for a
    /// stream that is not connected or gone.
    pub fn send(&mut self, stream: StreamId, datagram: &[u8]) {
        let index = stream.0;
        let Some(slot) = self.slots.get_mut(index).filter(|slot| slot.connected) else {
            self.stats.ended_unsent += 1;
            return;
        };
        if !slot.queue(datagram) {
            self.stats.write_queue_full += 1;
            return;
        }
        if !std::mem::replace(&mut slot.listed, true) {
            self.unsent.push(index);
        }
    }

    /// Hands what is queued to the kernel, as far as it takes it; the rest follows when it does.
    pub fn flush(&mut self) {
        let mut unsent = std::mem::take(&mut self.unsent);
        for index in unsent.drain(..) {
            self.write(index);
        }
        self.unsent = unsent;
    }

    fn write(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.listed = false;
        if let Err(error) = slot.write(&mut self.stats) {
            self.end(index, error.to_string());
        }
    }

    fn end(&mut self, index: u32, why: String) {
        let connected = self.slots.get(index).is_some_and(|stream| stream.connected);
        if !connected {
            self.stats.connects_failed += 1;
        }
        self.drop_stream(index);
        self.happened.push(StreamEvent::Closed { stream: StreamId(index), why });
    }

    /// Streams are ready that found no room in the last batch: the next poll must not wait.
    #[must_use]
    pub fn has_more(&self) -> bool {
        !self.ready.is_empty() || self.accepting || !self.happened.is_empty()
    }

    /// Replaces the batch with what has come, without waiting; its length. What happened to streams
    /// is in [`Self::happened`].
    ///
    /// # Errors
    /// Only what makes all streams unusable; the error of one ends it.
    pub fn poll(&mut self) -> io::Result<usize> {
        self.batch.clear();
        self.used = 0;
        // What ended since the last poll has not been told yet: till then its id is nobody else's.
        if self.happened.is_empty() {
            self.slots.free_left(|_| {});
        }
        self.look()?;
        self.accept();
        while self.batch.len() < self.batch_max
            && self.used + PART_BYTES_MAX + READ_BYTES_MAX <= self.bytes.len()
        {
            let Some(index) = self.ready.pop_front() else { break };
            self.read(index);
        }
        Ok(self.batch.len())
    }

    fn look(&mut self) -> io::Result<()> {
        self.stats.syscalls += 1;
        let count = match self.epoll.wait(&mut self.events, Duration::ZERO) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        for at in 0..count {
            let EpollEvent { events, u64: token } = self.events[at];
            let Ok(index) = u32::try_from(token) else {
                self.accepting = true;
                continue;
            };
            if events & (libc::EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP) as u32 != 0
                && !self.writable(index)
            {
                continue;
            }
            let Some(slot) = self.slots.get_mut(index) else { continue };
            slot.ending |=
                events & (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0;
            if events & !(libc::EPOLLOUT as u32) != 0 && !std::mem::replace(&mut slot.ready, true) {
                self.ready.push_back(index);
            }
        }
        Ok(())
    }

    /// It has connected, or takes more; false if it has ended.
    fn writable(&mut self, index: u32) -> bool {
        let Some(slot) = self.slots.get_mut(index) else { return false };
        if !slot.dialled {
            match slot.socket.take_error() {
                Ok(None) => {}
                Ok(Some(error)) | Err(error) => {
                    self.end(index, error.to_string());
                    return false;
                }
            }
            // An error or a hang-up may come before it is writable.
            if slot.socket.peer_addr().is_err() {
                return true;
            }
            slot.dialled = true;
            self.connected(index);
        }
        self.write(index);
        self.slots.get(index).is_some()
    }

    /// Tells that it takes datagrams, if it does and that was not told.
    fn connected(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        if slot.connected || slot.is_handshaking() {
            return;
        }
        let Ok(local) = slot.socket.local_addr() else { return };
        slot.connected = true;
        self.stats.connected += 1;
        self.happened.push(StreamEvent::Connected { stream: StreamId(index), local });
    }

    fn accept(&mut self) {
        if !self.accepting {
            return;
        }
        let Some(listener) = self.listener.take() else { return };
        for _ in 0..ACCEPTS_MAX {
            match listener.accept() {
                Ok((socket, remote)) => {
                    let added = socket
                        .set_nonblocking(true)
                        .map(|()| Stream::new(socket, remote, Framing::Ice, true, None))
                        .and_then(|stream| self.add(stream));
                    match added {
                        Ok(stream) => {
                            self.stats.connected += 1;
                            self.happened.push(StreamEvent::Accepted { stream });
                        }
                        Err(_) => self.stats.connects_failed += 1,
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.accepting = false;
                    break;
                }
                // Of a connection that is gone already.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
                    self.stats.connects_failed += 1;
                }
                // No descriptors: what waits is looked at again when somebody else comes.
                Err(error) => {
                    tracing::warn!(%error, "a TCP connection could not be taken");
                    self.stats.connects_failed += 1;
                    self.accepting = false;
                    break;
                }
            }
        }
        self.listener = Some(listener);
    }

    /// Reads once from a stream, and hands out the datagrams that are whole.
    fn read(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.ready = false;
        let start = self.used;
        let carried = slot.part.len();
        self.bytes[start..start + carried].copy_from_slice(&slot.part);
        slot.part.clear();
        let into = start + carried;
        self.stats.syscalls += 1;
        let room = &mut self.bytes[into..into + READ_BYTES_MAX];
        let nothing = Read { bytes: 0, wire_bytes: 0, is_full: false, is_over: false, stamp: None };
        let read = match slot.read(room, &mut self.sealed) {
            Ok(Read { wire_bytes: 0, .. }) => {
                return self.end(index, "the other end closed the connection".to_owned());
            }
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => nothing,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                slot.ready = true;
                self.ready.push_back(index);
                nothing
            }
            Err(error) => return self.end(index, error.to_string()),
        };
        // Fewer than asked for: it is empty, and what comes next is a new edge; but an end is told once.
        if read.is_full || (slot.ending && read.wire_bytes > 0) {
            slot.ready = true;
            self.ready.push_back(index);
        }
        self.stats.bytes_in += read.wire_bytes as u64;
        let received_at_unix_ns = read.stamp.unwrap_or_else(crate::unix_now_ns);
        let (mut at, end) = (start, into + read.bytes);
        loop {
            let skipped = slot.skip.min(end - at);
            (at, slot.skip) = (at + skipped, slot.skip - skipped);
            match slot.framing.front(&self.bytes[at..end]) {
                Front::Part => break,
                Front::TooLong { whole } => {
                    slot.skip = whole;
                    self.stats.too_long += 1;
                }
                // Null packets keep a NAT awake, and say nothing (RFC 4571 §2).
                Front::Datagram { len: 0, whole, .. } => at += whole,
                Front::Datagram { at: inner, len, whole } => {
                    self.batch.push(StreamReceived {
                        stream: StreamId(index),
                        source: slot.remote,
                        received_at_unix_ns,
                        at: (at + inner) as u32,
                        len: len as u16,
                    });
                    self.stats.datagrams_in += 1;
                    at += whole;
                }
                Front::Broken => {
                    self.used = end;
                    return self.end(index, "what came is no STUN and no ChannelData".to_owned());
                }
            }
        }
        slot.part.extend_from_slice(&self.bytes[at..end]);
        self.used = end;
        if read.is_over {
            return self.end(index, "the other end closed the connection".to_owned());
        }
        if !slot.connected {
            // Of a handshake, which may go on or be over.
            self.connected(index);
            self.write(index);
        }
    }

    /// The current batch, in the order of each stream.
    #[must_use]
    pub fn batch(&self) -> &[StreamReceived] {
        &self.batch
    }

    /// The bytes of a datagram of the current batch.
    #[must_use]
    pub fn payload(&self, received: &StreamReceived) -> &[u8] {
        let at = received.at as usize;
        self.bytes.get(at..at + usize::from(received.len)).unwrap_or_default()
    }

    /// What happened since it was asked last.
    pub fn happened(&mut self) -> Vec<StreamEvent> {
        std::mem::take(&mut self.happened)
    }

    /// Counters of all streams together, closed ones included.
    #[must_use]
    pub fn stats(&self) -> StreamStats {
        self.stats
    }
}
