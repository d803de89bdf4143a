//! Sending as all backends share it: datagrams written into one arena, segment runs to the same
//! destination merged for UDP GSO, and what to do when the kernel refuses one.

use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use crate::memory::PageMemory;
use crate::slots::drain_errors;
use crate::sys;
use crate::wire::{self, NAME_BYTES, SEGMENT_CONTROL_BYTES};
use crate::{Backend, SocketId, UdpStats};

/// Segments of one GSO send; the kernel's `UDP_MAX_SEGMENTS` was 64 until Linux 6.9.
const SEGMENTS_MAX: u16 = 64;
/// Bytes of one GSO send. The kernel's bound is a 65,535-byte IP packet, headers included; but a
/// receiver keeps as much memory for each receive as the longest segment run took, and eight
/// packets are nearly as cheap as fifty.
const SENT_SEGMENT_RUN_BYTES_MAX: usize = 10_000;
/// The largest UDP payload over IPv4; anything longer is refused by the kernel anyway.
const DATAGRAM_BYTES_MAX: usize = 65_507;
/// Room in the arena for each send slot: a datagram of an Ethernet MTU.
const ARENA_BYTES_PER_SLOT: usize = 1_500;
/// Every path carries datagrams of this size, so a refusal at or below it is not about the size.
const SEGMENT_BYTES_SAFE: usize = 1_200;
/// How long the flushes between two polls wait in all for a kernel that has no room. What finds none
/// after that is lost and counted as a send error: nothing is received meanwhile, so waiting longer
/// would only move the loss to the receive side.
const BUSY_WAIT_MAX: Duration = Duration::from_millis(50);
/// How long one wait for room in a socket's send buffer takes at most.
const BUSY_WAIT_ONCE_MS_MAX: i32 = 2;
/// Reports about other datagrams that one send may meet before it counts as refused.
const REPORTS_PASSED_MAX: usize = 8;
/// How long to wait for a full queue behind the socket, which nobody announces to have room.
const QUEUE_WAIT: Duration = Duration::from_micros(100);

/// One send: a datagram, or a segment run to one destination that the kernel cuts apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) socket: u32,
    pub(crate) fd: RawFd,
    offset: usize,
    /// All bytes of the segment run.
    pub(crate) len: usize,
    /// Bytes of each datagram of the segment run but the last, which may be shorter.
    segment: usize,
    /// Datagrams in the segment run.
    pub(crate) count: u16,
    name_len: u32,
    /// Whether another datagram may still join the segment run.
    open: bool,
}

/// Datagrams waiting for the next flush; at most `slots` sends and one arena of bytes. When either
/// is full, [`push`](Self::push) says so and the backend flushes first.
pub(crate) struct SendQueue {
    arena: PageMemory,
    arena_used: usize,
    entries: Vec<Entry>,
    slots: usize,
    last_destination: Option<SocketAddr>,
    headers: Headers,
    /// Datagrams longer than this aren't merged: 0 once the kernel has refused GSO altogether.
    segment_bytes_max: usize,
    /// How long has been waited for room since the last poll.
    waited: Duration,
}

/// Addresses of a send's parts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RawSend {
    /// One datagram.
    One { data: *const u8, len: u32, name: *const u8, name_len: u32 },
    /// A segment run for GSO, or a send that needs its message header.
    SegmentRun { header: *const libc::msghdr },
}

/// Why a datagram was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PushError {
    /// No room: flush, then try again.
    Full,
    /// Longer than any UDP datagram; it can never be sent.
    TooLong,
    /// The one who was to write it did not.
    NotWritten,
}

/// A backend that sends through a [`SendQueue`].
pub(crate) trait Sender: Backend {
    /// The descriptor of a socket that can send.
    fn sending_fd(&self, socket: SocketId) -> Option<RawFd>;
    /// The queue, and the counters of what becomes of it.
    fn queue(&mut self) -> (&mut SendQueue, &mut UdpStats);
}

/// [`Backend::send_with`] of every backend: into the queue, which is flushed first where it is
/// full. What can't be queued is counted.
pub(crate) fn send_with(
    backend: &mut impl Sender,
    socket: SocketId,
    destination: SocketAddr,
    len: usize,
    write: &mut dyn FnMut(&mut [u8]) -> bool,
) {
    let Some(fd) = backend.sending_fd(socket) else {
        backend.queue().1.send_errors += 1;
        return;
    };
    let mut pushed = backend.queue().0.push_with(socket.0, fd, destination, len, write);
    if pushed == Err(PushError::Full) {
        backend.flush();
        pushed = backend.queue().0.push_with(socket.0, fd, destination, len, write);
    }
    match pushed {
        Ok(()) => {}
        Err(PushError::Full) => backend.queue().1.send_queue_full += 1,
        Err(PushError::TooLong | PushError::NotWritten) => backend.queue().1.send_errors += 1,
    }
}

impl SendQueue {
    pub(crate) fn new(slots: usize) -> io::Result<Self> {
        let arena_bytes = (slots * ARENA_BYTES_PER_SLOT).max(2 * DATAGRAM_BYTES_MAX);
        Ok(Self {
            arena: PageMemory::new(arena_bytes)?,
            arena_used: 0,
            entries: Vec::with_capacity(slots),
            slots,
            last_destination: None,
            headers: Headers::new(slots)?,
            segment_bytes_max: usize::from(u16::MAX),
            waited: Duration::ZERO,
        })
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Copies one datagram into the queue, into the segment run before it where GSO allows that.
    #[cfg(test)]
    fn push(
        &mut self,
        socket: u32,
        fd: RawFd,
        destination: SocketAddr,
        payload: &[u8],
    ) -> Result<(), PushError> {
        let mut copy = |out: &mut [u8]| {
            out.copy_from_slice(payload);
            true
        };
        self.push_with(socket, fd, destination, payload.len(), &mut copy)
    }

    /// Lets `write` fill in a datagram of `len` bytes where it will be sent from, in the segment
    /// run before it where GSO allows that. `write` is called once, unless there is no room.
    pub(crate) fn push_with(
        &mut self,
        socket: u32,
        fd: RawFd,
        destination: SocketAddr,
        len: usize,
        write: &mut dyn FnMut(&mut [u8]) -> bool,
    ) -> Result<(), PushError> {
        if len > DATAGRAM_BYTES_MAX {
            return Err(PushError::TooLong);
        }
        if self.arena_used + len > self.arena.len() {
            return Err(PushError::Full);
        }
        let joins = self.joins_segment_run(socket, destination, len);
        if !joins && self.entries.len() == self.slots {
            return Err(PushError::Full);
        }
        let offset = self.arena_used;
        if !write(self.arena.slice_mut(offset, len)) {
            return Err(PushError::NotWritten);
        }
        self.arena_used += len;
        if joins {
            self.join_segment_run(len);
            return Ok(());
        }
        let index = self.entries.len();
        let open = len > 0 && len <= self.segment_bytes_max;
        let name = wire::encode_name(&destination);
        let name_len = name.len;
        let entry = Entry { socket, fd, offset, len, segment: len, count: 1, name_len, open };
        self.entries.push(entry);
        self.headers.set_name(index, &name);
        self.headers.set_data(index, &self.arena, offset, len);
        self.headers.set_segment(index, None);
        self.last_destination = Some(destination);
        Ok(())
    }

    /// Whether a datagram can join the newest send: it goes to the same place and the sizes fit.
    fn joins_segment_run(&self, socket: u32, destination: SocketAddr, len: usize) -> bool {
        self.entries.last().is_some_and(|last| {
            last.open
                && last.socket == socket
                && (1..=last.segment).contains(&len)
                && last.count < SEGMENTS_MAX
                && last.len + len <= SENT_SEGMENT_RUN_BYTES_MAX
                && self.last_destination == Some(destination)
        })
    }

    /// Adds the datagram that was just written to the newest send.
    fn join_segment_run(&mut self, added: usize) {
        let Some(last) = self.entries.last_mut() else { return };
        last.len += added;
        last.count += 1;
        last.open = added == last.segment;
        let (offset, len, segment, count) = (last.offset, last.len, last.segment, last.count);
        let index = self.entries.len() - 1;
        self.headers.set_data(index, &self.arena, offset, len);
        if count == 2 {
            self.headers.set_segment(index, Some(segment as u16));
        }
    }

    /// Forgets everything queued; the backend calls it when the kernel has taken or refused all.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.arena_used = 0;
        self.last_destination = None;
    }

    /// The backend polls: it may be waited for room again.
    pub(crate) fn begin_poll(&mut self) {
        self.waited = Duration::ZERO;
    }

    /// Hands sends `start..end`, which are of one socket, to `sendmmsg`. Returns how many of them
    /// the kernel took; an error is about the first one.
    pub(crate) fn send_many(&mut self, start: usize, end: usize) -> io::Result<usize> {
        self.headers.send_many(self.entries[start].fd, start, end)
    }

    /// Where one send lies, for io_uring. It stays there until [`clear`](Self::clear).
    pub(crate) fn raw(&self, index: usize) -> RawSend {
        let entry = &self.entries[index];
        if entry.count > 1 {
            return RawSend::SegmentRun { header: self.headers.header(index) };
        }
        let name = self.headers.memory.at(self.headers.name_at(index));
        RawSend::One {
            data: self.arena.at(entry.offset.min(self.arena.len() - 1)),
            len: entry.len as u32,
            name,
            name_len: entry.name_len,
        }
    }

    /// The kernel refused send `index` with `error`: tries what can still be tried, and counts it
    /// as sent or as failed.
    pub(crate) fn recover(&mut self, index: usize, error: &io::Error, stats: &mut UdpStats) {
        let entry = self.entries[index];
        // An earlier ICMP report may sit on the socket and make the next, innocent send fail.
        drain_errors(entry.fd, stats);
        let error = match error.raw_os_error() {
            Some(errno @ (libc::EAGAIN | libc::ENOBUFS)) => {
                self.send_when_there_is_room(index, errno, stats)
            }
            _ => self.send_past_reports(index, stats),
        };
        match error {
            None => count_sent(stats, u64::from(entry.count), entry.len as u64),
            Some(error) if entry.count > 1 && is_segmentation_refusal(&error) => {
                self.send_apart(index, stats);
            }
            Some(_) => stats.send_errors += u64::from(entry.count),
        }
    }

    /// Waits until the kernel takes a send that it had no room for, as long as may be waited.
    fn send_when_there_is_room(
        &mut self,
        index: usize,
        errno: i32,
        stats: &mut UdpStats,
    ) -> Option<io::Error> {
        let mut error = io::Error::from_raw_os_error(errno);
        while self.waited < BUSY_WAIT_MAX {
            let started = Instant::now();
            match error.raw_os_error() {
                Some(libc::EAGAIN) => {
                    stats.syscalls += 1;
                    sys::wait_writable(self.entries[index].fd, BUSY_WAIT_ONCE_MS_MAX);
                }
                // The queue has dropped it whole, so it may go again.
                Some(libc::ENOBUFS) => std::thread::sleep(QUEUE_WAIT),
                _ => return Some(error),
            }
            // At least a little each time, so that a clock that stands still can't hold us.
            self.waited += started.elapsed().max(Duration::from_micros(1));
            error = self.send_again(index, stats)?;
        }
        Some(error)
    }

    /// Sends again after a report about another datagram was in the way. While many peers go, the
    /// next report may arrive in between.
    fn send_past_reports(&mut self, index: usize, stats: &mut UdpStats) -> Option<io::Error> {
        for _ in 0..REPORTS_PASSED_MAX {
            let error = self.send_again(index, stats)?;
            if drain_errors(self.entries[index].fd, stats).network == 0 {
                return Some(error);
            }
        }
        self.send_again(index, stats)
    }

    fn send_again(&mut self, index: usize, stats: &mut UdpStats) -> Option<io::Error> {
        stats.syscalls += 1;
        self.send_many(index, index + 1).err()
    }

    /// Sends a segment run without GSO, and remembers not to try such a segment run again if that
    /// worked.
    fn send_apart(&mut self, index: usize, stats: &mut UdpStats) {
        let entry = self.entries[index];
        let mut sent = 0u64;
        let mut offset = entry.offset;
        let end = entry.offset + entry.len;
        self.headers.set_segment(index, None);
        while offset < end {
            let len = entry.segment.min(end - offset);
            self.headers.set_data(index, &self.arena, offset, len);
            match self.send_again(index, stats) {
                None => {
                    sent += 1;
                    count_sent(stats, 1, len as u64);
                }
                Some(_) => stats.send_errors += 1,
            }
            offset += len;
        }
        if sent > 0 && self.segment_bytes_max > 0 {
            self.segment_bytes_max =
                if entry.segment <= SEGMENT_BYTES_SAFE { 0 } else { entry.segment - 1 };
            tracing::info!(
                segment_bytes = entry.segment,
                allowed_bytes = self.segment_bytes_max,
                "the kernel refused UDP segmentation offload; larger runs are sent one by one"
            );
        }
    }
}

/// Counts datagrams the kernel took.
pub(crate) fn count_sent(stats: &mut UdpStats, datagrams: u64, bytes: u64) {
    stats.datagrams_out += datagrams;
    stats.bytes_out += bytes;
}

/// EIO: the device can't checksum. EINVAL, EMSGSIZE: a segment is longer than the path's MTU
/// (which of the two depends on the kernel's age), or the socket sends without checksums.
fn is_segmentation_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE))
}

/// Message headers with the addresses and control messages they point to, made once.
struct Headers {
    /// `mmsghdr` × slots, `iovec` × slots, names × slots, control messages × slots.
    memory: PageMemory,
    slots: usize,
}

impl Headers {
    fn new(slots: usize) -> io::Result<Self> {
        let memory = PageMemory::new(slots * Self::SLOT_BYTES)?;
        let mut headers = Self { memory, slots };
        for index in 0..slots {
            let name = headers.memory.at(headers.name_at(index));
            let iovec = headers.memory.at(headers.iovec_at(index)).cast::<libc::iovec>();
            let header = headers.header_mut(index);
            header.msg_name = name.cast();
            header.msg_iov = iovec;
            header.msg_iovlen = 1;
        }
        Ok(headers)
    }

    const SLOT_BYTES: usize =
        size_of::<libc::mmsghdr>() + size_of::<libc::iovec>() + NAME_BYTES + SEGMENT_CONTROL_BYTES;

    fn header_at(&self, index: usize) -> usize {
        index * size_of::<libc::mmsghdr>()
    }

    fn iovec_at(&self, index: usize) -> usize {
        self.slots * size_of::<libc::mmsghdr>() + index * size_of::<libc::iovec>()
    }

    fn name_at(&self, index: usize) -> usize {
        self.slots * (size_of::<libc::mmsghdr>() + size_of::<libc::iovec>()) + index * NAME_BYTES
    }

    fn control_at(&self, index: usize) -> usize {
        self.slots * (Self::SLOT_BYTES - SEGMENT_CONTROL_BYTES) + index * SEGMENT_CONTROL_BYTES
    }

    fn header(&self, index: usize) -> *const libc::msghdr {
        assert!(index < self.slots, "send slot {index} of {}", self.slots);
        // `mmsghdr` starts with its `msghdr`.
        self.memory.at(self.header_at(index)).cast::<libc::msghdr>()
    }

    fn header_mut(&mut self, index: usize) -> &mut libc::msghdr {
        let header = self.header(index).cast_mut();
        // SAFETY: inside the mapping, aligned (slots start at a page and `mmsghdr` is a multiple of
        // its alignment), zeroes are a valid msghdr, and `&mut self` makes this the only reference;
        // the kernel reads headers only during the calls that send them.
        unsafe { &mut *header }
    }

    fn set_name(&mut self, index: usize, name: &wire::Name) {
        let at = self.name_at(index);
        self.memory.write(at, &name.bytes);
        self.header_mut(index).msg_namelen = name.len;
    }

    /// Points a header at bytes of the arena, which the caller has checked to be in use.
    fn set_data(&mut self, index: usize, arena: &PageMemory, offset: usize, len: usize) {
        let base = arena.at(offset.min(arena.len() - 1));
        let at = self.iovec_at(index);
        let iovec = self.memory.at(at).cast::<libc::iovec>();
        // SAFETY: `iovec` is inside the mapping and aligned like the headers; no reference to it
        // exists. What it points to is `offset..offset + len` of the arena, which outlives the
        // queue's use of it.
        unsafe { iovec.write(libc::iovec { iov_base: base.cast(), iov_len: len }) }
    }

    /// Sets or removes the control message that asks for GSO.
    fn set_segment(&mut self, index: usize, segment: Option<u16>) {
        let Some(segment) = segment else {
            let header = self.header_mut(index);
            header.msg_control = std::ptr::null_mut();
            header.msg_controllen = 0;
            return;
        };
        let at = self.control_at(index);
        self.memory.write(at, &wire::encode_segment(segment));
        let control = self.memory.at(at);
        let header = self.header_mut(index);
        header.msg_control = control.cast();
        header.msg_controllen = SEGMENT_CONTROL_BYTES as _;
    }

    fn send_many(&mut self, fd: RawFd, start: usize, end: usize) -> io::Result<usize> {
        assert!(start < end && end <= self.slots, "send slots {start}..{end} of {}", self.slots);
        let first = self.memory.at(self.header_at(start)).cast::<libc::mmsghdr>();
        // SAFETY: `end - start` headers lie one after another inside the mapping; their names,
        // iovecs and control messages point into memory that lives as long as the queue.
        let sent = unsafe {
            libc::sendmmsg(fd, first, (end - start) as libc::c_uint, libc::MSG_DONTWAIT as _)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    fn destination(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn runs(queue: &SendQueue) -> Vec<(u16, usize)> {
        queue.entries().iter().map(|entry| (entry.count, entry.len)).collect()
    }

    #[test]
    fn equal_datagrams_to_one_place_are_one_segment_run_that_a_shorter_one_ends() {
        let mut queue = SendQueue::new(8).unwrap();
        for len in [100, 100, 40, 100] {
            queue.push(0, 3, destination(1), &vec![0; len]).unwrap();
        }
        assert_eq!(runs(&queue), [(3, 240), (1, 100)]);
    }

    #[test]
    fn another_destination_socket_or_longer_datagram_starts_a_run() {
        let mut queue = SendQueue::new(8).unwrap();
        queue.push(0, 3, destination(1), &[0; 100]).unwrap();
        queue.push(0, 3, destination(2), &[0; 100]).unwrap();
        queue.push(1, 4, destination(2), &[0; 100]).unwrap();
        queue.push(1, 4, destination(2), &[0; 101]).unwrap();
        queue.push(1, 4, destination(2), &[]).unwrap();
        assert_eq!(runs(&queue), [(1, 100), (1, 100), (1, 100), (1, 101), (1, 0)]);
    }

    #[test]
    fn a_datagram_that_is_not_written_leaves_no_trace() {
        let mut queue = SendQueue::new(8).unwrap();
        queue.push(0, 3, destination(1), &[1; 100]).unwrap();
        let refused = queue.push_with(0, 3, destination(1), 100, &mut |out| {
            out.fill(7);
            false
        });
        assert_eq!(refused, Err(PushError::NotWritten));
        queue.push(0, 3, destination(1), &[2; 100]).unwrap();
        assert_eq!(runs(&queue), [(2, 200)]);
        assert_eq!(queue.arena.slice(0, 200), [[1; 100], [2; 100]].concat());
    }

    #[test]
    fn a_segment_run_ends_at_the_kernels_segment_and_byte_limits() {
        let mut queue = SendQueue::new(8).unwrap();
        for _ in 0..=SEGMENTS_MAX {
            queue.push(0, 3, destination(1), &[0; 10]).unwrap();
        }
        assert_eq!(runs(&queue), [(64, 640), (1, 10)]);
        for (len, joins) in [
            (SENT_SEGMENT_RUN_BYTES_MAX / 2, [(2, SENT_SEGMENT_RUN_BYTES_MAX), (1, 5_000)]),
            (4_000, [(2, 8_000), (1, 4_000)]),
        ] {
            queue.clear();
            for _ in 0..3 {
                queue.push(0, 3, destination(1), &vec![0; len]).unwrap();
            }
            assert_eq!(runs(&queue), joins);
        }
    }

    #[test]
    fn a_kernel_without_room_is_waited_for_so_long_between_two_polls_and_no_longer() {
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut queue = SendQueue::new(8).unwrap();
        let mut stats = UdpStats::default();
        let full = io::Error::from_raw_os_error(libc::EAGAIN);
        let mut refused = |queue: &mut SendQueue| {
            queue.push(0, sender.as_raw_fd(), receiver.local_addr().unwrap(), &[0; 100]).unwrap();
            queue.recover(0, &full, &mut stats);
            queue.clear();
            (stats.datagrams_out, stats.send_errors)
        };
        assert_eq!(refused(&mut queue), (1, 0));
        assert!(queue.waited > Duration::ZERO, "of one flush and the next");
        queue.waited = BUSY_WAIT_MAX;
        assert_eq!(refused(&mut queue), (1, 1));
        queue.begin_poll();
        assert_eq!(refused(&mut queue), (2, 1));
    }

    #[test]
    fn a_full_queue_and_an_impossible_datagram_are_refused() {
        let mut queue = SendQueue::new(2).unwrap();
        queue.push(0, 3, destination(1), &[0; 1]).unwrap();
        queue.push(0, 3, destination(2), &[0; 1]).unwrap();
        assert_eq!(queue.push(0, 3, destination(3), &[0; 1]), Err(PushError::Full));
        assert_eq!(queue.push(0, 3, destination(3), &[0; 65_508]), Err(PushError::TooLong));
        queue.clear();
        queue.push(0, 3, destination(1), &[0; 65_507]).unwrap();
        queue.push(0, 3, destination(2), &[0; 65_507]).unwrap();
    }
}
