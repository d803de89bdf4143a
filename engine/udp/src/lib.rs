//! Batched UDP, and datagrams over TCP: every system call of the packet path, and nothing else.
//!
//! A [`Backend`] owns many sockets and moves datagrams in batches. Three implementations exist:
//! `io_uring` (multishot receive into a buffer ring, batched sends), `mmsg` (epoll with
//! `recvmmsg`/`sendmmsg`), and `packet_ring` (`mmsg`, with one ring of memory into which a filter on
//! each socket puts its RTP and RTCP). All stamp each datagram with the kernel's receive time
//! and keep the kernel's own drop counters, because a load generator has to know what it lost
//! itself.
//!
//! All send and receive *segment runs* as one: datagrams between the same two addresses, of one
//! length but the last, which may be shorter. The kernel cuts one that is sent (UDP GSO) and keeps
//! one together that has come (UDP GRO).
//!
//! ```
//! use std::net::{Ipv4Addr, SocketAddr};
//! use std::time::Duration;
//!
//! use stampede_udp::{BackendChoice, BackendLimits, SocketBuffers, Wait, bind, open};
//!
//! let limits = BackendLimits { sockets_max: 16, ..BackendLimits::default() };
//! let (mut backend, _why) = open(BackendChoice::Mmsg, limits)?;
//! let buffers = SocketBuffers { receive_bytes: 1 << 20, send_bytes: 1 << 18 };
//! let socket = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), buffers)?;
//! let own = socket.local_addr()?;
//! let id = backend.add_socket(socket)?;
//! backend.send(id, own, b"hello");
//! let wait = Wait { timeout: Duration::from_secs(1), gather: Duration::ZERO, datagrams_max: 1 };
//! assert_eq!(backend.poll(wait)?, 1);
//! assert_eq!(backend.payload(&backend.batch()[0]), b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(unsafe_op_in_unsafe_fn)]

#[cfg(any(test, feature = "bench"))]
#[doc(hidden)]
pub mod bench_support;
#[cfg(test)]
mod depth;
mod memory;
mod mmsg;
mod packet_ring;
mod probe;
mod ready;
mod refusal;
mod segment_run;
mod send;
mod slots;
mod socket;
mod streams;
mod sys;
mod uring;
mod wire;

use std::fs::File;
use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use stampede_counters::{StreamStats, UdpStats, UdpUncategorisedCounters};
pub use stampede_mailbox::Wake;

pub use refusal::{IoUringRefusal, MmsgRefusal, PacketRingRefusal, ProbeError};
pub use socket::{SocketBuffers, bind, local_ip_towards};
use socket::{configure, no_such_socket, queue_error_reports, too_many_sockets};
pub use streams::{Framing, StreamEvent, StreamId, StreamReceived, Streams, WRITE_QUEUE_BYTES_MAX};

/// A socket inside one [`Backend`]. Dense and small; reused only after [`Backend::remove_socket`]
/// and after everything received on the old socket has been handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u32);

/// One received datagram of the current batch. Its bytes are behind [`Backend::payload`].
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// The socket it arrived on.
    pub socket: SocketId,
    /// Who sent it.
    pub source: SocketAddr,
    /// When the kernel got it, or the segment run it came in: nanoseconds since the Unix epoch
    /// (`SO_TIMESTAMPNS`). Of what came by a packet ring: when it came to its socket, which is later
    /// by as long as it waited for the kernel's receive softirq and went through the stack.
    pub received_at_unix_ns: u64,
    /// Where its bytes are; private to the backend.
    pub(crate) buffer: u32,
    /// Where in the buffer it starts, after other datagrams of its segment run.
    pub(crate) offset: u32,
    /// Length in bytes.
    pub(crate) len: u16,
}

/// How long [`Backend::poll`] may wait.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    /// At most this long for the first datagram or wake-up. Zero does not block.
    pub timeout: Duration,
    /// After the first datagram, gather more for this long (or until the batch is full) so that
    /// the caller can process them grouped by peer. Zero returns at once. Never past `timeout`; a
    /// wake-up meanwhile does not end it.
    pub gather: Duration,
    /// Hand out at most so many datagrams, where that is less than `batch_max`: receiving takes
    /// about a microsecond each, for a caller that has something to do soon. At least one. Segment
    /// runs are handed out whole, and `mmsg` has to ask for them before it knows how long they are,
    /// so there may be some more: as many as the segment runs of a socket are longer than they
    /// were.
    pub datagrams_max: usize,
}

/// Wakes a worker blocked in [`Backend::poll`] from another thread. Cheap to clone; many wakes
/// before the worker runs are one.
#[derive(Debug, Clone)]
pub struct Waker {
    eventfd: Arc<File>,
}

impl Wake for Waker {
    /// Ends the worker's running or next [`Backend::poll`], after it has gathered. Never blocks in
    /// practice: the counter behind it holds 2^64 - 2 wake-ups.
    fn wake(&self) {
        if let Err(error) = (&*self.eventfd).write_all(&1u64.to_ne_bytes()) {
            tracing::error!(%error, "a worker could not be woken");
        }
    }
}

/// Which implementation to open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// The first whose probe passes: a packet ring (but not for a single socket, from which
    /// `mmsg` takes many datagrams at a time, too), io_uring, `mmsg`.
    #[default]
    Auto,
    /// io_uring or an error.
    IoUring,
    /// epoll with `recvmmsg`/`sendmmsg`.
    Mmsg,
    /// The same, with RTP and RTCP from a ring that the kernel fills: several times cheaper where
    /// datagrams come one by one. Needs `CAP_BPF`.
    PacketRing,
}

/// The named maxima of a backend. What happens at each is said there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendLimits {
    /// Sockets at a time; [`Backend::add_socket`] refuses one more. 1 to 65,536. io_uring lowers it
    /// to the limit of open files as it is when the backend is opened, so raise that one first.
    pub sockets_max: usize,
    /// Receive buffers (io_uring), each for a datagram or a segment run: 64 KiB, of which
    /// memory is taken only for the pages that were ever written to. When all are in use, further
    /// datagrams wait in their sockets and `receive_pauses` of [`UdpStats`] grows. Rounded up to a
    /// power of two, 16 to 32,768, and at least `batch_max`.
    pub receive_buffers_max: usize,
    /// Sends queued between two flushes (a segment run is one). One more flushes at once. 1 to
    /// 16,384.
    pub send_slots_max: usize,
    /// Datagrams of one [`Backend::poll`], where [`Wait::datagrams_max`] allows as many; further
    /// ones wait for the next. 1 to 16,384.
    pub batch_max: usize,
    /// Memory of the packet ring, where there is one; taken at once. What finds it full goes to its
    /// socket's receive buffer, and `ring_spills` of [`UdpStats`] grows. Rounded down to a power of
    /// two, and at least 128 KiB. 1 to 2^30.
    pub packet_ring_bytes_max: usize,
}

impl Default for BackendLimits {
    fn default() -> Self {
        Self {
            sockets_max: 20_000,
            receive_buffers_max: 1_024,
            send_slots_max: 512,
            batch_max: 1_024,
            packet_ring_bytes_max: 32 << 20,
        }
    }
}

impl BackendLimits {
    fn check(&self) -> Result<(), OpenError> {
        let check = |name, value, max| match value {
            1.. if value <= max => Ok(()),
            _ => Err(OpenError::Limit { name, value, max }),
        };
        check("sockets_max", self.sockets_max, 65_536)?;
        check("receive_buffers_max", self.receive_buffers_max, 32_768)?;
        check("send_slots_max", self.send_slots_max, 16_384)?;
        check("batch_max", self.batch_max, 16_384)?;
        check("packet_ring_bytes_max", self.packet_ring_bytes_max, 1 << 30)
    }
}

/// Which implementation was opened, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendReport {
    /// As [`Backend::name`] says it.
    pub name: &'static str,
    /// One line for the user.
    pub reason: String,
}

impl BackendReport {
    /// Adds to the reason what worker `index` has, if that is something else.
    pub fn note_other(&mut self, index: usize, other: &Self) {
        if other.name != self.name {
            self.reason.push_str(&format!("; but worker {index} has {}", other.reason));
        }
    }
}

/// Why a backend could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A limit is outside of its range.
    #[error("{name} is {value}; use 1 to {max}")]
    Limit {
        /// The field of [`BackendLimits`].
        name: &'static str,
        /// What it was.
        value: usize,
        /// The highest value allowed.
        max: usize,
    },
    /// io_uring was asked for and can't be used.
    #[error("io_uring can't be used: {reason}; use --backend auto or mmsg")]
    IoUring {
        /// What the probe found.
        reason: IoUringRefusal,
    },
    /// A packet ring was asked for and can't be used.
    #[error("a packet ring can't be used: {reason}; use --backend auto")]
    PacketRing {
        /// What the probe found.
        reason: PacketRingRefusal,
    },
    /// `mmsg` can't be used, asked for or not: there is nothing else.
    #[error("mmsg can't be used: {reason}")]
    Mmsg {
        /// What the probe found.
        reason: MmsgRefusal,
    },
}

/// Opens a backend for the calling thread, which is then the only one that may use it.
///
/// # Errors
/// A limit out of range, or what the kernel refused.
pub fn open(
    choice: BackendChoice,
    limits: BackendLimits,
) -> Result<(Box<dyn Backend>, BackendReport), OpenError> {
    limits.check()?;
    match choice {
        BackendChoice::Auto => open_best(&limits),
        BackendChoice::IoUring => {
            open_uring(&limits).map_err(|reason| OpenError::IoUring { reason })
        }
        BackendChoice::Mmsg => open_mmsg(&limits).map_err(|reason| OpenError::Mmsg { reason }),
        BackendChoice::PacketRing => {
            open_packet_ring(&limits).map_err(|reason| OpenError::PacketRing { reason })
        }
    }
}

type Opened = (Box<dyn Backend>, BackendReport);

/// The first whose probe passes; its reason tells why those before it did not.
fn open_best(limits: &BackendLimits) -> Result<Opened, OpenError> {
    let mut refusals = String::new();
    let explained = |(backend, report): Opened, refusals: &str| {
        let reason = format!("{}{refusals}", report.reason);
        (backend, BackendReport { reason, ..report })
    };
    if limits.sockets_max > 1 {
        match open_packet_ring(limits) {
            Ok(opened) => return Ok(opened),
            Err(refusal) => refusals.push_str(&format!("; no packet_ring: {refusal}")),
        }
    }
    match open_uring(limits) {
        Ok(opened) => return Ok(explained(opened, &refusals)),
        Err(refusal) => refusals.push_str(&format!("; no io_uring: {refusal}")),
    }
    match open_mmsg(limits) {
        Ok(opened) => Ok(explained(opened, &refusals)),
        Err(reason) => Err(OpenError::Mmsg { reason }),
    }
}

fn open_mmsg(limits: &BackendLimits) -> Result<Opened, MmsgRefusal> {
    let lost = mmsg::probe()?;
    let backend = mmsg::Mmsg::new(limits)?;
    let reason = match lost {
        None => "mmsg: probe passed (epoll, recvmmsg, sendmmsg)".to_owned(),
        Some(why) => format!("mmsg: epoll, recvmmsg and sendmmsg may be called, but {why}"),
    };
    Ok((Box::new(backend), BackendReport { name: "mmsg", reason }))
}

fn open_uring(limits: &BackendLimits) -> Result<Opened, IoUringRefusal> {
    uring::probe()?;
    let backend = uring::Uring::new(limits)?;
    let reason =
        "io_uring: probe passed (multishot recvmsg, buffer ring, DEFER_TASKRUN)".to_owned();
    Ok((Box::new(backend), BackendReport { name: "io_uring", reason }))
}

fn open_packet_ring(limits: &BackendLimits) -> Result<Opened, PacketRingRefusal> {
    packet_ring::probe()?;
    let backend = mmsg::Mmsg::with_packet_ring(limits)?;
    let kib = packet_ring::ring_bytes(limits.packet_ring_bytes_max) >> 10;
    let reason = format!("packet_ring: probe passed (a filter on each socket, {kib} KiB of ring)");
    Ok((Box::new(backend), BackendReport { name: "packet_ring", reason }))
}

/// Nanoseconds since the Unix epoch by the system's clock, the one receive timestamps are on.
pub fn unix_now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Sockets and batches of one worker thread. Not shared: it lives where it was made.
pub trait Backend {
    /// What it is called in reports: `io_uring`, `mmsg` or `packet_ring`.
    fn name(&self) -> &'static str;

    /// Takes over a bound socket and starts to receive on it.
    ///
    /// # Errors
    /// What the kernel said when the socket was configured or registered.
    fn add_socket(&mut self, socket: UdpSocket) -> io::Result<SocketId>;

    /// Stops receiving and closes the socket, at the latest with the next [`poll`](Self::poll)s.
    /// Queued sends are flushed first. Datagrams of it that are already with the backend are still
    /// handed out; those in a packet ring are not.
    fn remove_socket(&mut self, socket: SocketId);

    /// Makes the kernel keep reports about undeliverable datagrams (ICMP) of this socket to itself:
    /// for one that many peers share. A report fails whatever the socket sends next, to whomever;
    /// that is sent again, but may by then have been overtaken by later datagrams to the same
    /// peer. [`UdpStats::undeliverable`] stays 0, and a full queue of a network device loses
    /// datagrams that only the system's `SndbufErrors` counts.
    ///
    /// # Errors
    /// What the kernel said, or that there is no such socket.
    fn ignore_reports(&mut self, socket: SocketId) -> io::Result<()>;

    /// Queues one datagram for sending; it leaves with the next [`flush`](Self::flush) or
    /// [`poll`](Self::poll), or earlier when the queue is full. The bytes are copied.
    /// Never blocks; what can't be sent is counted in [`UdpStats`].
    fn send(&mut self, socket: SocketId, destination: SocketAddr, payload: &[u8]) {
        self.send_with(socket, destination, payload.len(), &mut |out| {
            out.copy_from_slice(payload);
            true
        });
    }

    /// Like [`send`](Self::send), but `write` fills in the `len` bytes where they will be sent
    /// from, which spares a copy. It is called at most once; when it returns false nothing is
    /// sent, and that counts as a send error.
    fn send_with(
        &mut self,
        socket: SocketId,
        destination: SocketAddr,
        len: usize,
        write: &mut dyn FnMut(&mut [u8]) -> bool,
    );

    /// Hands all queued datagrams to the kernel.
    fn flush(&mut self);

    /// Waits as `wait` says and replaces the current batch with what arrived. Returns the number
    /// of datagrams in it (0 after a timeout or a wake-up). Flushes queued sends first.
    ///
    /// # Errors
    /// Only what makes the whole backend unusable; errors of one socket are counted, never
    /// returned.
    fn poll(&mut self, wait: Wait) -> io::Result<usize>;

    /// Ends a [`poll`](Self::poll) that waits for its first datagram when this gets readable, as a
    /// datagram would: what else comes is gathered first. For [`Streams::readiness`]; the one
    /// before, if any, is not watched any more.
    ///
    /// # Errors
    /// What the kernel said.
    fn watch(&mut self, readiness: OwnedFd) -> io::Result<()>;

    /// The current batch in order of arrival at the backend.
    fn batch(&self) -> &[Received];

    /// The bytes of a datagram of the current batch; empty for one that is not of this batch.
    fn payload(&self, received: &Received) -> &[u8];

    /// A handle that ends a blocking [`poll`](Self::poll) from another thread.
    fn waker(&self) -> Waker;

    /// Counters of all sockets together, closed ones included.
    fn stats(&self) -> UdpStats;

    /// Datagrams the kernel dropped at this socket's receive buffer so far, counted as
    /// [`UdpStats::kernel_drops`]; 0 for a removed one. Asks the kernel (a system call) and adds
    /// what is new to [`UdpStats::kernel_drops`], which otherwise learns of a drop with the socket's next datagram
    /// or its removal.
    fn socket_drops(&mut self, socket: SocketId) -> u64;

    /// Does that for every socket: milliseconds for thousands.
    fn refresh_drops(&mut self);
}
