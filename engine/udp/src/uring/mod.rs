//! The io_uring backend: one ring a worker, multishot receives of all sockets into one ring of
//! buffers, batched sends that never wait.

mod buffers;
mod kernel;
mod probe;
mod ring;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::segment_run::SegmentRun;
use crate::send::{self, SendQueue, Sender, count_sent};
use crate::slots::{DropCounter, Slots, drain_errors};
use crate::{Backend, BackendLimits, Received, SocketId, UdpStats, Wait, Waker, sys};
use kernel::{Completion, Kernel};
use ring::Ring;

pub(crate) use probe::probe;

/// What a completion is about: the upper half of its `user_data`; the lower is an index.
const RECEIVE: u64 = 1 << 32;
const SEND: u64 = 2 << 32;
const WAKE: u64 = 3 << 32;
const CANCEL: u64 = 4 << 32;
const WATCHED: u64 = 5 << 32;
const KIND: u64 = !0 << 32;

/// Sockets one call to the kernel reads from, when nothing has to be waited for. Each may bring a
/// segment run, so that a call with no such bound would use up all buffers.
const SOCKETS_PER_CALL_MAX: usize = 256;
/// Calls that collect what is ready for one batch.
const CALLS_PER_BATCH_MAX: usize = 8;
/// Buffers that have to be free for each receive started again. Without it, sockets that paused
/// for want of buffers would start all together and most of them would pause again at once.
const BUFFERS_PER_RESTART: usize = 4;

/// A socket and what the kernel said about it.
struct Slot {
    socket: UdpSocket,
    drops: DropCounter,
    /// Whether its multishot receive is in flight.
    armed: bool,
    /// Removed by the caller; it goes when its receive has ended and all of it is handed out.
    removed: bool,
}

/// What was received and has not been handed out yet, or the end of a removed socket.
#[derive(Debug, Clone, Copy)]
enum Pending {
    SegmentRun { index: u32, run: SegmentRun },
    Closed { index: u32 },
}

/// See the module.
pub(crate) struct Uring<K = Ring> {
    ring: K,
    buffers: usize,
    batch_max: usize,
    /// Of the batch that is being collected.
    wanted: usize,
    /// On average, the last time the kernel was asked.
    datagrams_per_socket: usize,
    waker: Arc<File>,
    /// Whether the read of the waker is in flight.
    wake_armed: bool,
    /// A wake-up that no poll has answered yet.
    woken: bool,
    watched: Option<OwnedFd>,
    /// Whether the poll of what is watched is in flight.
    watch_armed: bool,
    /// What is watched has become ready.
    noticed: bool,
    slots: Slots<Slot>,
    /// Sockets whose receive has ended and starts again, the longest waiting first; at most one
    /// entry a socket and ending.
    rearm: VecDeque<u32>,
    /// The same for sockets that fail in a way we don't know: they wait for the next poll, so
    /// that a lasting error can't make us spin.
    rearm_later: Vec<u32>,
    /// At most one entry for each receive buffer and each removed socket.
    pending: VecDeque<Pending>,
    /// Datagrams in `pending`.
    waiting: usize,
    /// Buffers of `pending` and of the batch.
    held: usize,
    batch: Vec<Received>,
    /// Buffers of the batch.
    batch_buffers: Vec<u16>,
    epoch: u16,
    queue: SendQueue,
    /// Sends of the running flush that failed: index and errno.
    failed: Vec<(usize, i32)>,
    completions: Vec<Completion>,
    stats: UdpStats,
    /// What made the ring unusable; the next poll returns it.
    broken: Option<io::Error>,
}

impl Uring {
    pub(crate) fn new(limits: &BackendLimits) -> io::Result<Self> {
        let buffers = limits.receive_buffers_max.max(limits.batch_max).max(16);
        let buffers = buffers.next_power_of_two().min(32_768);
        // The kernel refuses a file table beyond the limit of open files, which the sockets
        // themselves can't exceed either.
        let sockets_max = limits.sockets_max.min(sys::open_files_max());
        let ring = Ring::new(buffers, sockets_max, limits.send_slots_max)?;
        Self::with(ring, buffers, &BackendLimits { sockets_max, ..*limits })
    }
}

impl<K: Kernel> Uring<K> {
    /// With a ring that has so many buffers.
    fn with(ring: K, buffers: usize, limits: &BackendLimits) -> io::Result<Self> {
        Ok(Self {
            ring,
            buffers,
            batch_max: limits.batch_max,
            wanted: limits.batch_max,
            datagrams_per_socket: 1,
            waker: Arc::new(sys::eventfd()?),
            wake_armed: false,
            woken: false,
            watched: None,
            watch_armed: false,
            noticed: false,
            slots: Slots::new(limits.sockets_max),
            rearm: VecDeque::new(),
            rearm_later: Vec::new(),
            pending: VecDeque::with_capacity(buffers),
            waiting: 0,
            held: 0,
            batch: Vec::with_capacity(limits.batch_max),
            batch_buffers: Vec::with_capacity(limits.batch_max),
            epoch: 0,
            queue: SendQueue::new(limits.send_slots_max)?,
            failed: Vec::new(),
            completions: Vec::with_capacity(buffers),
            stats: UdpStats::default(),
            broken: None,
        })
    }

    fn slot(&self, socket: SocketId) -> Option<&Slot> {
        self.slots.get(socket.0).filter(|slot| !slot.removed)
    }

    /// Takes in everything that has completed.
    fn reap(&mut self) -> io::Result<()> {
        self.ring.complete(&mut self.completions)?;
        let mut completions = std::mem::take(&mut self.completions);
        let (mut sockets, mut last, before) = (0, None, self.waiting);
        for completion in completions.drain(..) {
            let index = completion.user_data as u32;
            match completion.user_data & KIND {
                RECEIVE => {
                    sockets += usize::from(last.replace(index) != Some(index));
                    self.received(index, completion);
                }
                SEND => self.failed.push((index as usize, -completion.result)),
                WAKE => {
                    self.wake_armed = false;
                    self.woken |= completion.result > 0;
                }
                WATCHED => {
                    self.watch_armed = false;
                    self.noticed |= completion.result > 0;
                }
                _ => {}
            }
        }
        self.completions = completions;
        if let Some(datagrams) = (self.waiting - before).checked_div(sockets) {
            self.datagrams_per_socket = datagrams.max(1);
        }
        Ok(())
    }

    /// Sockets to be read for what is still wanted of a batch: the kernel counts those, and each
    /// may bring a segment run. Some buffers stay free, or receives would end for want of them.
    fn sockets_wanted(&self) -> usize {
        let more = (self.wanted - self.waiting).div_ceil(self.datagrams_per_socket);
        more.min((self.buffers - self.held) / 2).max(1)
    }

    fn received(&mut self, index: u32, completion: Completion) {
        if let Some(buffer) = completion.buffer {
            match self.read(index, buffer, completion.result.max(0) as u32) {
                None => {
                    self.ring.recycle(buffer);
                    self.ring.publish();
                }
                Some(run) => {
                    self.held += 1;
                    self.waiting += run.datagrams();
                    self.pending.push_back(Pending::SegmentRun { index, run });
                }
            }
        }
        if !completion.more {
            self.receive_ended(index, completion.result);
        }
    }

    /// A multishot receive is over: start it again, or finish the removal of its socket.
    fn receive_ended(&mut self, index: u32, result: i32) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.armed = false;
        if slot.removed {
            self.pending.push_back(Pending::Closed { index });
            return;
        }
        match -result {
            ..=0 => self.rearm.push_back(index),
            libc::ENOBUFS => {
                self.stats.uncategorised.receive_pauses += 1;
                self.rearm.push_back(index);
            }
            errno => {
                // Usually an ICMP report. Its entry has to go before the receive starts again, or
                // the socket would count as readable for ever.
                let drained = drain_errors(slot.socket.as_raw_fd(), &mut self.stats);
                if drained.entries() > 0 {
                    self.rearm.push_back(index);
                } else {
                    tracing::debug!(socket = index, errno, "receive ended");
                    self.rearm_later.push(index);
                }
            }
        }
    }

    /// Starts receives that have ended, as far as there are buffers for them.
    fn start_receives(&mut self) -> io::Result<()> {
        if !self.wake_armed {
            self.ring.read_wake(&self.waker, WAKE)?;
            self.wake_armed = true;
        }
        if let Some(watched) = &self.watched
            && !self.watch_armed
            && !self.noticed
        {
            // Once, and again with the next poll: it is level-triggered by that.
            self.ring.poll_readable(watched, WATCHED)?;
            self.watch_armed = true;
        }
        let free = self.buffers - self.held;
        let restarts_max = free / BUFFERS_PER_RESTART;
        for _ in 0..restarts_max.min(self.rearm.len()) {
            let Some(index) = self.rearm.pop_front() else { break };
            let Some(slot) = self.slots.get_mut(index) else { continue };
            if slot.armed || slot.removed {
                continue;
            }
            slot.armed = true;
            self.ring.receive(index, RECEIVE | u64::from(index))?;
        }
        Ok(())
    }

    /// Gives the buffers of the last batch back and frees sockets that are gone.
    fn recycle(&mut self) {
        self.batch.clear();
        self.held -= self.batch_buffers.len();
        for buffer in self.batch_buffers.drain(..) {
            self.ring.recycle(buffer);
        }
        self.ring.publish();
        self.slots.free_left(|index| {
            if let Err(error) = self.ring.set_file(index, -1) {
                tracing::warn!(socket = index, %error, "clearing a place of the file table");
            }
        });
        self.rearm.extend(self.rearm_later.drain(..));
    }

    /// Reads what a receive wrote into a buffer; `None` if it is not to be handed out.
    fn read(&mut self, index: u32, buffer: u16, result: u32) -> Option<SegmentRun> {
        let Some(message) = self.ring.message(buffer, result) else {
            self.stats.uncategorised.truncated += 1;
            return None;
        };
        let drops = self.slots.get_mut(index).map(|slot| &mut slot.drops);
        SegmentRun::read(buffer, &message, drops, &mut self.stats)
    }

    /// Moves as many datagrams as are wanted out of `pending`.
    fn fill(&mut self) {
        while self.batch.len() < self.wanted {
            match self.pending.pop_front() {
                None => return,
                Some(Pending::Closed { index }) => self.slots.leave(index),
                Some(Pending::SegmentRun { index, run }) => {
                    self.waiting -= run.datagrams();
                    self.batch_buffers.push(run.buffer);
                    run.hand_out(SocketId(index), self.epoch, &mut self.batch, &mut self.stats);
                }
            }
        }
    }

    /// Waits for the first datagram or wake-up, at most `timeout` after `started`.
    fn wait_first(&mut self, started: Option<Instant>, timeout: Duration) -> io::Result<()> {
        let mut late_calls = 0;
        let came = |uring: &Self| uring.waiting > 0 || uring.woken || uring.noticed;
        while !came(self) && late_calls < CALLS_PER_BATCH_MAX {
            let left =
                started.map_or(Duration::ZERO, |started| timeout.saturating_sub(started.elapsed()));
            // Sockets that are not receiving yet come first.
            let block = if self.rearm.is_empty() { left } else { Duration::ZERO };
            // A poll that may not wait needs no system call where the kernel has nothing for us.
            if !block.is_zero() || self.ring.has_submissions() || self.ring.has_work() {
                self.ring.wait(1, block)?;
            }
            self.reap()?;
            let restarted = !self.rearm.is_empty();
            self.start_receives()?;
            if left.is_zero() && !restarted {
                break;
            }
            // A flood that is not handed out could go on for ever.
            late_calls += usize::from(left.is_zero());
        }
        if self.ring.has_submissions() { self.ring.submit() } else { Ok(()) }
    }

    /// Collects what else arrives within `gather`, or is ready now, up to a batch.
    fn wait_more(&mut self, gather: Duration) -> io::Result<()> {
        if !gather.is_zero() && self.waiting < self.wanted {
            self.ring.wait(self.sockets_wanted(), gather)?;
            self.reap()?;
        }
        for _ in 0..CALLS_PER_BATCH_MAX {
            if self.waiting >= self.wanted || !self.ring.has_work() {
                break;
            }
            let want = self.sockets_wanted().min(SOCKETS_PER_CALL_MAX);
            self.ring.wait(want, Duration::ZERO)?;
            self.reap()?;
        }
        Ok(())
    }

    fn poll_ring(&mut self, wait: Wait) -> io::Result<usize> {
        self.recycle();
        self.wanted = wait.datagrams_max.clamp(1, self.batch_max);
        self.epoch = self.epoch.wrapping_add(1);
        self.flush();
        self.queue.begin_poll();
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        let started = if wait.timeout.is_zero() { None } else { Some(Instant::now()) };
        loop {
            self.start_receives()?;
            let backlog = self.waiting > 0 || !self.rearm.is_empty();
            self.wait_first(started, wait.timeout)?;
            let left = started
                .map_or(Duration::ZERO, |started| wait.timeout.saturating_sub(started.elapsed()));
            let came = self.waiting > 0 || self.noticed;
            let gather = if !backlog && !self.woken && came {
                wait.gather.min(left)
            } else {
                Duration::ZERO
            };
            self.wait_more(gather)?;
            self.fill();
            let woken = std::mem::take(&mut self.woken);
            let noticed = std::mem::take(&mut self.noticed);
            if woken || noticed || !self.batch.is_empty() || left.is_zero() {
                return Ok(self.batch.len());
            }
            // Only what is not handed out; on we wait.
        }
    }
}

impl<K: Kernel> Sender for Uring<K> {
    fn sending_fd(&self, socket: SocketId) -> Option<RawFd> {
        self.slot(socket).map(|slot| slot.socket.as_raw_fd())
    }

    fn queue(&mut self) -> (&mut SendQueue, &mut UdpStats) {
        (&mut self.queue, &mut self.stats)
    }
}

impl<K: Kernel> Backend for Uring<K> {
    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn add_socket(&mut self, socket: UdpSocket) -> io::Result<SocketId> {
        crate::configure(&socket)?;
        let index = self.slots.reserve()?;
        if let Err(error) = self.ring.set_file(index, socket.as_raw_fd()) {
            self.slots.give_back(index);
            return Err(error);
        }
        self.rearm.push_back(index);
        let drops = DropCounter::default();
        Ok(self.slots.fill(index, Slot { socket, drops, armed: false, removed: false }))
    }

    fn ignore_reports(&mut self, socket: SocketId) -> io::Result<()> {
        let slot = self.slot(socket).ok_or_else(crate::no_such_socket)?;
        crate::queue_error_reports(&slot.socket, false)
    }

    fn remove_socket(&mut self, socket: SocketId) {
        if self.slot(socket).is_none() {
            return;
        }
        self.flush();
        let Some(slot) = self.slots.get_mut(socket.0) else { return };
        slot.removed = true;
        let fd = slot.socket.as_raw_fd();
        drain_errors(fd, &mut self.stats);
        slot.drops.refresh(fd, &mut self.stats);
        let target = RECEIVE | u64::from(socket.0);
        if !slot.armed {
            self.pending.push_back(Pending::Closed { index: socket.0 });
        } else if let Err(error) =
            self.ring.cancel(target, CANCEL).and_then(|()| self.ring.submit())
        {
            self.broken = Some(error);
        }
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
        if self.queue.is_empty() {
            return;
        }
        if let Err(error) = self.flush_ring() {
            // Which sends were taken is unknown now: count all as failed, and end with this.
            let lost: u64 = self.queue.entries().iter().map(|e| u64::from(e.count)).sum();
            self.stats.send_errors += lost;
            self.queue.clear();
            self.broken = Some(error);
        }
    }

    fn poll(&mut self, wait: Wait) -> io::Result<usize> {
        self.poll_ring(wait)
    }

    fn watch(&mut self, readiness: OwnedFd) -> io::Result<()> {
        if self.watch_armed {
            self.ring.cancel(WATCHED, CANCEL)?;
        }
        self.watched = Some(readiness);
        Ok(())
    }

    fn batch(&self) -> &[Received] {
        &self.batch
    }

    fn payload(&self, received: &Received) -> &[u8] {
        if received.buffer >> 16 != u32::from(self.epoch) {
            return &[];
        }
        self.ring.payload(received.buffer as u16, received.offset as usize, received.len.into())
    }

    fn waker(&self) -> Waker {
        Waker { eventfd: Arc::clone(&self.waker) }
    }

    fn stats(&self) -> UdpStats {
        UdpStats { syscalls: self.stats.syscalls + self.ring.syscalls(), ..self.stats }
    }

    fn socket_drops(&mut self, socket: SocketId) -> u64 {
        let slot = self.slots.get_mut(socket.0).filter(|slot| !slot.removed);
        let Some(slot) = slot else { return 0 };
        slot.drops.refresh(slot.socket.as_raw_fd(), &mut self.stats);
        slot.drops.total()
    }

    fn refresh_drops(&mut self) {
        for (_, slot) in self.slots.iter_mut().filter(|(_, slot)| !slot.removed) {
            slot.drops.refresh(slot.socket.as_raw_fd(), &mut self.stats);
        }
    }
}

impl<K: Kernel> Uring<K> {
    /// Submits the queue. Sends complete only when they fail, and do so before the submitting
    /// call returns; so whatever has not failed by then is sent.
    fn flush_ring(&mut self) -> io::Result<()> {
        for at in 0..self.queue.entries().len() {
            let socket = self.queue.entries()[at].socket;
            self.ring.send(socket, &self.queue.raw(at), SEND | at as u64)?;
        }
        self.ring.submit()?;
        self.reap()?;
        let mut failed = std::mem::take(&mut self.failed);
        failed.sort_unstable();
        let mut failures = failed.drain(..).peekable();
        for at in 0..self.queue.entries().len() {
            if let Some((_, errno)) = failures.next_if(|(index, _)| *index == at) {
                let error = io::Error::from_raw_os_error(errno);
                self.queue.recover(at, &error, &mut self.stats);
            } else {
                let entry = &self.queue.entries()[at];
                count_sent(&mut self.stats, u64::from(entry.count), entry.len as u64);
            }
        }
        drop(failures);
        self.failed = failed;
        self.queue.clear();
        Ok(())
    }
}
