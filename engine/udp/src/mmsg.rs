//! The backend for kernels and containers without io_uring: epoll with `recvmmsg` and `sendmmsg`.
//! With a [`PacketRing`] beside the sockets, it is the one called `packet_ring`.

use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::memory::PageMemory;
use crate::packet_ring::{IN_RING, PacketRing};
use crate::ready::Ready;
use crate::segment_run::{Message, SegmentRun};
use crate::send::{self, SendQueue, Sender, count_sent};
use crate::slots::{DropCounter, Slots, drain_errors};
use crate::sys::{self, Epoll, EpollEvent};
use crate::wire::{self, CONTROL_BYTES, NAME_BYTES, SEGMENT_RUN_BYTES_MAX};
use crate::{
    Backend, BackendLimits, MmsgRefusal, PacketRingRefusal, ProbeError, Received, SocketId,
    UdpStats, Wait, Waker, probe,
};

/// Messages (a datagram or a segment run) one `recvmmsg` call takes from a socket before
/// the next socket gets its turn.
const MESSAGES_PER_CALL_MAX: usize = 64;
/// Messages one `sendmmsg` call takes (the kernel's `UIO_MAXIOV`).
const MESSAGES_PER_SEND_MAX: usize = 1024;
/// Events one `epoll_wait` returns; more wait for the next call, nothing is lost.
const EVENTS_MAX: usize = 1024;
/// The epoll token of the waker's eventfd; sockets use their index.
const WAKER_TOKEN: u64 = u64::MAX;
/// The epoll token of what is watched besides.
const WATCHED_TOKEN: u64 = u64::MAX - 2;
/// The epoll token of the packet ring.
const RING_TOKEN: u64 = u64::MAX - 1;

/// A socket and what the kernel said about its drops.
struct Slot {
    socket: UdpSocket,
    drops: DropCounter,
}

/// Edge-triggered epoll, `recvmmsg` into one batch of buffers, `sendmmsg` with GSO.
pub(crate) struct Mmsg {
    epoll: Epoll,
    events: Vec<EpollEvent>,
    waker: Arc<File>,
    watched: Option<OwnedFd>,
    /// What is watched has become ready.
    noticed: bool,
    slots: Slots<Slot>,
    /// Sockets that may have datagrams waiting.
    ready: Ready,
    ring: Option<PacketRing>,
    /// Ready sockets that are to be read before it is the ring's turn.
    turn: usize,
    receive: ReceiveSlots,
    batch: Vec<Received>,
    /// Datagrams wanted of this batch.
    wanted: usize,
    /// Receive slots filled in this batch (truncated datagrams hold one, too).
    filled: usize,
    /// Tells the slots of this batch from those of an earlier one.
    epoch: u16,
    queue: SendQueue,
    stats: UdpStats,
}

impl Mmsg {
    pub(crate) fn new(limits: &BackendLimits) -> io::Result<Self> {
        Self::open(limits, None)
    }

    pub(crate) fn with_packet_ring(limits: &BackendLimits) -> Result<Self, PacketRingRefusal> {
        Ok(Self::open(limits, Some(PacketRing::new(limits.packet_ring_bytes_max)?))?)
    }

    fn open(limits: &BackendLimits, ring: Option<PacketRing>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let waker = sys::eventfd()?;
        epoll.add(&waker, WAKER_TOKEN)?;
        if let Some(ring) = &ring {
            epoll.add(ring.fd(), RING_TOKEN)?;
        }
        Ok(Self {
            epoll,
            events: vec![EpollEvent { events: 0, u64: 0 }; EVENTS_MAX],
            waker: Arc::new(waker),
            watched: None,
            noticed: false,
            slots: Slots::new(limits.sockets_max),
            ready: Ready::default(),
            ring,
            turn: 0,
            receive: ReceiveSlots::new(limits.batch_max)?,
            batch: Vec::with_capacity(limits.batch_max),
            wanted: limits.batch_max,
            filled: 0,
            epoch: 0,
            queue: SendQueue::new(limits.send_slots_max)?,
            stats: UdpStats::default(),
        })
    }

    /// Makes the calls that it is named after, to no effect.
    pub(crate) fn try_calls(&mut self) -> Result<(), MmsgRefusal> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let fd = socket.as_raw_fd();
        sys::send_nothing(fd)?;
        match self.receive.receive(fd, 0, 1) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Whether there is, or may be, something to receive without waiting.
    fn has_more(&self) -> bool {
        !self.ready.is_empty() || self.ring.as_ref().is_some_and(PacketRing::is_ready)
    }

    /// Waits for events and queues the sockets they name. True after a wake-up.
    fn wait(&mut self, timeout: Duration) -> io::Result<bool> {
        self.stats.syscalls += 1;
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut woken = false;
        for at in 0..count {
            let EpollEvent { events, u64: token } = self.events[at];
            if token == WAKER_TOKEN {
                self.stats.syscalls += 1;
                // The counter is not zero, so this returns at once; it resets the counter.
                let _ = (&*self.waker).read(&mut [0; 8]);
                woken = true;
                continue;
            }
            self.noticed |= token == WATCHED_TOKEN;
            // The ring itself says whether it has anything; its event ends the wait.
            let Ok(index) = u32::try_from(token) else { continue };
            let Some(slot) = self.slots.get_mut(index) else { continue };
            if events & libc::EPOLLERR as u32 != 0 {
                drain_errors(slot.socket.as_raw_fd(), &mut self.stats);
            }
            self.ready.push(index);
        }
        Ok(woken)
    }

    /// Fills the batch. Beside a ring the sockets come first, for they have ICE and DTLS, each that
    /// is ready once; then the ring, with what is in it by then. So both are read however much the
    /// other one has. What has spilled into sockets is newer than what the ring has, and waits for
    /// that. (What spills while we read may still overtake a little, as in any network.)
    fn drain(&mut self) {
        let Some(ring) = &mut self.ring else { return self.drain_sockets() };
        ring.count_spilled(&mut self.stats);
        if ring.has_turned() {
            ring.begin_turn();
        }
        if !self.drain_ring() {
            return;
        }
        if self.turn == 0 {
            self.turn = self.ready.len();
        }
        self.drain_sockets();
        if self.turn == 0
            && let Some(ring) = &mut self.ring
        {
            ring.begin_turn();
            self.drain_ring();
        }
    }

    /// Hands out what is left of the ring's turn, if there is a ring. Whether the turn is over.
    fn drain_ring(&mut self) -> bool {
        let Some(ring) = &mut self.ring else { return true };
        let slots = &mut self.slots;
        ring.drain(self.wanted, self.epoch, &mut self.batch, &mut self.stats, |index, datagrams| {
            if let Some(slot) = slots.get_mut(index) {
                slot.drops.received(datagrams);
            }
        })
    }

    /// Receives from ready sockets, each in turn, until the batch is full or all are empty; beside a
    /// ring, until it is the ring's turn.
    fn drain_sockets(&mut self) {
        while self.batch.len() < self.wanted && self.filled < self.receive.slots {
            if let Some(ring) = &self.ring {
                let Some(left) = self.turn.checked_sub(1) else { return };
                if ring.has_turned() {
                    return;
                }
                self.turn = left;
            }
            let Some(index) = self.ready.pop() else { return };
            let Some(slot) = self.slots.get_mut(index) else { continue };
            let more =
                (self.wanted - self.batch.len()) as f64 / slot.drops.datagrams_per_segment_run();
            let room = (more.ceil() as usize).min(MESSAGES_PER_CALL_MAX);
            let room = room.min(self.receive.slots - self.filled);
            let fd = slot.socket.as_raw_fd();
            let spilled = self.ring.as_ref().map_or(0, |ring| ring.spilled(index));
            self.stats.syscalls += 1;
            let more = match self.receive.receive(fd, self.filled, room) {
                Ok(count) => {
                    self.take(index, count);
                    // Fewer than asked for: it is empty, and the next datagram is a new edge.
                    count == room
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => false,
                    Some(libc::EINTR) => true,
                    // An ICMP report waiting on the socket; reading it clears it.
                    _ => {
                        let reports = drain_errors(fd, &mut self.stats);
                        tracing::debug!(socket = index, %error, "receive");
                        reports.entries() > 0
                    }
                },
            };
            if !more {
                self.ring.as_ref().inspect(|ring| ring.read_dry(index, spilled));
            } else {
                self.ready.push(index);
            }
        }
    }

    /// Moves what is in `count` receive slots at `filled` into the batch.
    fn take(&mut self, index: u32, count: usize) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        // Read after the counters that came with the datagrams.
        slot.drops.discount(moved(&self.ring, index));
        for at in self.filled..self.filled + count {
            let message = self.receive.take(at);
            let drops = Some(&mut slot.drops);
            if let Some(run) = SegmentRun::read(at as u16, &message, drops, &mut self.stats) {
                run.hand_out(SocketId(index), self.epoch, &mut self.batch, &mut self.stats);
            }
        }
        self.filled += count;
    }
}

/// Finding out whether the kernel, or a seccomp filter, lets us have it, by using it. Also what the
/// matter was if no datagrams came back over loopback: that may be down, or behind a firewall, and
/// says nothing against this backend.
pub(crate) fn probe() -> Result<Option<ProbeError>, MmsgRefusal> {
    let mut backend = Mmsg::new(&probe::LIMITS)?;
    backend.try_calls()?;
    let ip = Ipv4Addr::LOCALHOST.into();
    Ok(probe::exchange(&mut backend, ip, "loopback that is up", |_| true).err())
}

/// Of a socket's counter of drops what the packet ring has instead.
fn moved(ring: &Option<PacketRing>, index: u32) -> u32 {
    ring.as_ref().map_or(0, |ring| ring.moved(index))
}

impl Sender for Mmsg {
    fn sending_fd(&self, socket: SocketId) -> Option<RawFd> {
        self.slots.get(socket.0).map(|slot| slot.socket.as_raw_fd())
    }

    fn queue(&mut self) -> (&mut SendQueue, &mut UdpStats) {
        (&mut self.queue, &mut self.stats)
    }
}

impl Backend for Mmsg {
    fn name(&self) -> &'static str {
        if self.ring.is_some() { "packet_ring" } else { "mmsg" }
    }

    fn add_socket(&mut self, socket: UdpSocket) -> io::Result<SocketId> {
        crate::configure(&socket)?;
        let index = self.slots.reserve()?;
        let fd = socket.as_raw_fd();
        let mut added = self.epoll.add(&socket, u64::from(index));
        if let (Ok(()), Some(ring)) = (&added, &mut self.ring) {
            added = socket.local_addr().and_then(|address| ring.add(index, fd, address));
        }
        if let Err(error) = added {
            self.slots.give_back(index);
            return Err(error);
        }
        Ok(self.slots.fill(index, Slot { socket, drops: DropCounter::default() }))
    }

    fn ignore_reports(&mut self, socket: SocketId) -> io::Result<()> {
        let slot = self.slots.get(socket.0).ok_or_else(crate::no_such_socket)?;
        crate::queue_error_reports(&slot.socket, false)
    }

    fn remove_socket(&mut self, socket: SocketId) {
        if self.slots.get(socket.0).is_none() {
            return;
        }
        self.flush();
        let Some(mut slot) = self.slots.take(socket.0) else { return };
        let fd = slot.socket.as_raw_fd();
        drain_errors(fd, &mut self.stats);
        slot.drops.refresh_discounting(fd, || moved(&self.ring, socket.0), &mut self.stats);
        if let Some(ring) = &mut self.ring {
            ring.remove(socket.0);
        }
        // Closing takes it out of epoll. In the ready queue its id stays, for nobody or for whoever
        // has it next.
        drop(slot);
        self.slots.leave(socket.0);
    }

    fn send_with(
        &mut self,
        socket: SocketId,
        destination: SocketAddr,
        len: usize,
        write: &mut dyn FnMut(&mut [u8]) -> bool,
    ) {
        send::send_with(self, socket, destination, len, write);
    }

    fn flush(&mut self) {
        let count = self.queue.entries().len();
        let mut at = 0;
        while at < count {
            let fd = self.queue.entries()[at].fd;
            let messages = self.queue.entries()[at..]
                .iter()
                .take(MESSAGES_PER_SEND_MAX)
                .take_while(|entry| entry.fd == fd)
                .count();
            self.stats.syscalls += 1;
            match self.queue.send_many(at, at + messages) {
                Ok(taken) => {
                    for entry in &self.queue.entries()[at..at + taken] {
                        count_sent(&mut self.stats, u64::from(entry.count), entry.len as u64);
                    }
                    at += taken;
                }
                Err(error) => {
                    self.queue.recover(at, &error, &mut self.stats);
                    at += 1;
                }
            }
        }
        self.queue.clear();
    }

    fn poll(&mut self, wait: Wait) -> io::Result<usize> {
        self.batch.clear();
        self.wanted = wait.datagrams_max.clamp(1, self.receive.slots);
        self.epoch = self.epoch.wrapping_add(1);
        self.slots.free_left(|_| {});
        self.flush();
        self.queue.begin_poll();
        self.noticed = false;
        let started = if wait.timeout.is_zero() { None } else { Some(Instant::now()) };
        let remaining = |wanted: Duration| match started {
            Some(started) => wanted.min(wait.timeout.saturating_sub(started.elapsed())),
            None => Duration::ZERO,
        };
        loop {
            // The batch is empty, so nothing that it was in is needed any more.
            self.filled = 0;
            if let Some(ring) = &mut self.ring {
                ring.give_back();
            }
            // Left over from a full batch: no waiting, but see who else is ready.
            let backlog = self.has_more();
            let timeout = if backlog { Duration::ZERO } else { remaining(wait.timeout) };
            let mut woken = self.wait(timeout)?;
            let gather = remaining(wait.gather);
            let came = self.has_more() || self.noticed;
            if !woken && !backlog && came && !gather.is_zero() {
                std::thread::sleep(gather);
                woken = self.wait(Duration::ZERO)?;
            }
            self.drain();
            if woken || self.noticed || !self.batch.is_empty() {
                return Ok(self.batch.len());
            }
            // Only error reports or truncated datagrams: keep waiting, with an empty batch.
            if remaining(wait.timeout).is_zero() {
                return Ok(0);
            }
        }
    }

    fn watch(&mut self, readiness: OwnedFd) -> io::Result<()> {
        if let Some(before) = self.watched.take() {
            self.epoll.remove(before)?;
        }
        self.epoll.add(&readiness, WATCHED_TOKEN)?;
        self.watched = Some(readiness);
        Ok(())
    }

    fn batch(&self) -> &[Received] {
        &self.batch
    }

    fn payload(&self, received: &Received) -> &[u8] {
        let (buffer, offset) = (received.buffer as u16, received.offset as usize);
        let slot = usize::from(buffer);
        match &self.ring {
            _ if received.buffer >> 16 != u32::from(self.epoch) => &[],
            Some(ring) if buffer & IN_RING != 0 => ring.payload(offset, received.len.into()),
            _ if slot < self.filled => self.receive.payload(slot, offset, received.len.into()),
            _ => &[],
        }
    }

    fn waker(&self) -> Waker {
        Waker { eventfd: Arc::clone(&self.waker) }
    }

    fn stats(&self) -> UdpStats {
        self.stats
    }

    fn socket_drops(&mut self, socket: SocketId) -> u64 {
        let Some(slot) = self.slots.get_mut(socket.0) else { return 0 };
        let fd = slot.socket.as_raw_fd();
        slot.drops.refresh_discounting(fd, || moved(&self.ring, socket.0), &mut self.stats);
        slot.drops.total()
    }

    fn refresh_drops(&mut self) {
        for (index, slot) in self.slots.iter_mut() {
            let moved = || moved(&self.ring, index);
            slot.drops.refresh_discounting(slot.socket.as_raw_fd(), moved, &mut self.stats);
        }
        if let Some(ring) = &mut self.ring {
            ring.count_spilled(&mut self.stats);
        }
    }
}

/// Buffers for one batch with the message headers that point to them, made once.
struct ReceiveSlots {
    /// `mmsghdr` × slots, `iovec` × slots.
    headers: PageMemory,
    /// For each slot: name, control messages, payload, and padding that spreads slots over the
    /// cache's sets.
    buffers: PageMemory,
    slots: usize,
}

/// Bytes of one receive slot.
const SLOT_BYTES: usize =
    (NAME_BYTES + CONTROL_BYTES + SEGMENT_RUN_BYTES_MAX).next_multiple_of(128) + 64;

impl ReceiveSlots {
    fn new(slots: usize) -> io::Result<Self> {
        let header_bytes = size_of::<libc::mmsghdr>() + size_of::<libc::iovec>();
        let receive = Self {
            headers: PageMemory::new(slots * header_bytes)?,
            buffers: PageMemory::new_sparse(slots * SLOT_BYTES)?,
            slots,
        };
        for index in 0..slots {
            let base = index * SLOT_BYTES;
            let iovec_at = slots * size_of::<libc::mmsghdr>() + index * size_of::<libc::iovec>();
            let iovec = receive.headers.at(iovec_at).cast::<libc::iovec>();
            let payload = receive.buffers.at(base + NAME_BYTES + CONTROL_BYTES);
            let header = receive.header(index);
            // SAFETY: both point into the header mapping, aligned, and nothing else refers to them
            // yet; zeroed memory is a valid mmsghdr.
            unsafe {
                iovec.write(libc::iovec {
                    iov_base: payload.cast(),
                    iov_len: SEGMENT_RUN_BYTES_MAX,
                });
                (*header).msg_hdr.msg_name = receive.buffers.at(base).cast();
                (*header).msg_hdr.msg_namelen = NAME_BYTES as u32;
                (*header).msg_hdr.msg_control = receive.buffers.at(base + NAME_BYTES).cast();
                (*header).msg_hdr.msg_controllen = CONTROL_BYTES as _;
                (*header).msg_hdr.msg_iov = iovec;
                (*header).msg_hdr.msg_iovlen = 1;
            }
        }
        Ok(receive)
    }

    fn header(&self, index: usize) -> *mut libc::mmsghdr {
        assert!(index < self.slots, "receive slot {index} of {}", self.slots);
        self.headers.at(index * size_of::<libc::mmsghdr>()).cast()
    }

    /// Receives up to `room` messages into the slots from `start` on, without blocking.
    fn receive(&mut self, fd: RawFd, start: usize, room: usize) -> io::Result<usize> {
        assert!(room > 0 && start + room <= self.slots, "receive slots {start}+{room}");
        let first = self.header(start);
        // SAFETY: `room` headers lie one after another in the mapping; each points to its own name,
        // control and payload room in `buffers`, whose sizes they state, and which nobody borrows:
        // slices of them come from `&self` and this is `&mut self`. No timeout.
        let count = unsafe {
            let flags = libc::MSG_DONTWAIT;
            libc::recvmmsg(fd, first, room as libc::c_uint, flags as _, std::ptr::null_mut())
        };
        if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count as usize) }
    }

    /// Reads what the kernel wrote into a slot, and makes its header fit for the next use.
    fn take(&mut self, index: usize) -> Message<'_> {
        let header = self.header(index);
        // SAFETY: inside the mapping and aligned; the kernel is done with it since `receive`
        // returned, and `&mut self` makes this the only reference.
        let message = unsafe { &mut *header };
        let name_len = (message.msg_hdr.msg_namelen as usize).min(NAME_BYTES);
        let control_len = message.msg_hdr.msg_controllen.min(CONTROL_BYTES);
        let cut = wire::is_cut(message.msg_hdr.msg_flags);
        let len = (message.msg_len as usize).min(SEGMENT_RUN_BYTES_MAX);
        message.msg_hdr.msg_namelen = NAME_BYTES as u32;
        message.msg_hdr.msg_controllen = CONTROL_BYTES as _;
        let base = index * SLOT_BYTES;
        Message {
            name: self.buffers.slice(base, name_len),
            control: self.buffers.slice(base + NAME_BYTES, control_len),
            len,
            cut,
        }
    }

    fn payload(&self, index: usize, offset: usize, len: usize) -> &[u8] {
        let at = index * SLOT_BYTES + NAME_BYTES + CONTROL_BYTES;
        let offset = offset.min(SEGMENT_RUN_BYTES_MAX);
        self.buffers.slice(at + offset, len.min(SEGMENT_RUN_BYTES_MAX - offset))
    }
}

#[cfg(test)]
mod tests;
