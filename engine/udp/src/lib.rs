//! Batched UDP: every system call of the packet path, and nothing else.
//!
//! A [`Backend`] owns many sockets and moves datagrams in batches. Two implementations exist:
//! `io_uring` (multishot receive into a buffer ring, batched sends) and `mmsg` (epoll with
//! `recvmmsg`/`sendmmsg` and UDP GSO). Both stamp each datagram with the kernel's receive time and
//! keep the kernel's own drop counters, because a load generator has to know what it lost itself.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

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
    /// When the kernel got it: nanoseconds since the Unix epoch (`SO_TIMESTAMPNS`).
    pub received_at_unix_ns: u64,
    /// Where its bytes are; private to the backend.
    pub(crate) buffer: u32,
    /// Length in bytes.
    pub(crate) len: u32,
}

/// How long [`Backend::poll`] may wait.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    /// At most this long for the first datagram or wake-up. Zero does not block.
    pub timeout: Duration,
    /// After the first datagram, gather more for this long (or until the batch is full) so that
    /// the caller can process them grouped by peer. Zero returns at once. Never past `timeout`.
    pub gather: Duration,
}

/// Counters of a backend since it was made; all only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UdpStats {
    /// Datagrams handed out by [`Backend::poll`].
    pub datagrams_in: u64,
    /// Their bytes (UDP payload).
    pub bytes_in: u64,
    /// Datagrams the kernel took for sending.
    pub datagrams_out: u64,
    /// Their bytes (UDP payload).
    pub bytes_out: u64,
    /// Datagrams the kernel dropped because a socket's receive buffer was full.
    pub kernel_drops: u64,
    /// Datagrams the kernel refused to send, or reported as undeliverable on the error queue.
    pub send_errors: u64,
    /// Datagrams not sent because the send queue (`send_slots_max`) was full.
    pub send_queue_full: u64,
    /// Datagrams longer than a receive buffer, cut by the kernel and so not handed out.
    pub truncated: u64,
    /// System calls made.
    pub syscalls: u64,
}

/// Wakes a worker blocked in [`Backend::poll`] from another thread. Cheap to clone; many wakes
/// before the worker runs are one.
#[derive(Debug, Clone)]
pub struct Waker {
    _private: (),
}

/// Sockets and batches of one worker thread. Not shared: it lives where it was made.
pub trait Backend {
    /// What it is called in reports: `io_uring` or `mmsg`.
    fn name(&self) -> &'static str;

    /// Takes over a bound socket and starts to receive on it.
    ///
    /// # Errors
    /// What the kernel said when the socket was configured or registered.
    fn add_socket(&mut self, socket: UdpSocket) -> io::Result<SocketId>;

    /// Stops receiving and closes the socket. Queued sends are flushed first.
    fn remove_socket(&mut self, socket: SocketId);

    /// Queues one datagram for sending; it leaves with the next [`flush`](Self::flush) or
    /// [`poll`](Self::poll), or earlier when the queue is full. The bytes are copied.
    /// Never blocks; what can't be sent is counted in [`UdpStats`].
    fn send(&mut self, socket: SocketId, destination: SocketAddr, payload: &[u8]);

    /// Hands all queued datagrams to the kernel.
    fn flush(&mut self);

    /// Waits as `wait` says and replaces the current batch with what arrived. Returns the number
    /// of datagrams in it (0 after a timeout or a wake-up). Flushes queued sends first.
    ///
    /// # Errors
    /// Only what makes the whole backend unusable; errors of one socket are counted, never returned.
    fn poll(&mut self, wait: Wait) -> io::Result<usize>;

    /// The current batch in order of arrival at the backend.
    fn batch(&self) -> &[Received];

    /// The bytes of a datagram of the current batch; empty for one that is not of this batch.
    fn payload(&self, received: &Received) -> &[u8];

    /// A handle that ends a blocking [`poll`](Self::poll) from another thread.
    fn waker(&self) -> Waker;

    /// Counters of all sockets together, closed ones included.
    fn stats(&self) -> UdpStats;

    /// Datagrams the kernel dropped at this socket's receive buffer so far.
    fn socket_drops(&self, socket: SocketId) -> u64;
}
