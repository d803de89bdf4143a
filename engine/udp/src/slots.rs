//! What every backend keeps of its sockets.

use std::io;
use std::os::fd::RawFd;

use crate::{SocketId, UdpStats, sys};

/// The sockets of a backend by their ids. An id is given again only when nothing that was received
/// on its old socket is in a batch any more.
#[derive(Debug)]
pub(crate) struct Slots<S> {
    slots: Vec<Option<S>>,
    sockets_max: usize,
    free: Vec<u32>,
    /// Ids of closed sockets that the current batch may still name.
    leaving: Vec<u32>,
}

impl<S> Slots<S> {
    pub(crate) fn new(sockets_max: usize) -> Self {
        Self { slots: Vec::new(), sockets_max, free: Vec::new(), leaving: Vec::new() }
    }

    /// An id for a new socket; [`fill`](Self::fill) or [`give_back`](Self::give_back) comes next.
    ///
    /// # Errors
    /// That all are in use.
    pub(crate) fn reserve(&mut self) -> io::Result<u32> {
        if let Some(index) = self.free.pop() {
            return Ok(index);
        }
        if self.slots.len() >= self.sockets_max {
            return Err(crate::too_many_sockets(self.sockets_max));
        }
        self.slots.push(None);
        Ok(self.slots.len() as u32 - 1)
    }

    /// Puts the socket behind the id that was reserved for it.
    pub(crate) fn fill(&mut self, index: u32, slot: S) -> SocketId {
        self.slots[index as usize] = Some(slot);
        SocketId(index)
    }

    /// The socket for which this id was reserved could not be taken over.
    pub(crate) fn give_back(&mut self, index: u32) {
        self.free.push(index);
    }

    pub(crate) fn get(&self, index: u32) -> Option<&S> {
        self.slots.get(index as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut S> {
        self.slots.get_mut(index as usize)?.as_mut()
    }

    pub(crate) fn take(&mut self, index: u32) -> Option<S> {
        self.slots.get_mut(index as usize)?.take()
    }

    /// This socket is gone; its id is free once the batch is.
    pub(crate) fn leave(&mut self, index: u32) {
        self.leaving.push(index);
    }

    /// The batch is gone: frees the ids of sockets that have left, each after `freed`.
    pub(crate) fn free_left(&mut self, mut freed: impl FnMut(u32)) {
        for index in self.leaving.drain(..) {
            freed(index);
            self.slots[index as usize] = None;
            self.free.push(index);
        }
    }

    /// All sockets with their ids.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut S)> {
        let slots = (0..).zip(&mut self.slots);
        slots.filter_map(|(index, slot)| Some((index, slot.as_mut()?)))
    }
}

/// Empties a socket's error queue and counts it; returns what was in it.
pub(crate) fn drain_errors(fd: RawFd, stats: &mut UdpStats) -> sys::DrainedErrors {
    let drained = sys::drain_error_queue(fd);
    stats.undeliverable += drained.network;
    stats.syscalls += drained.syscalls;
    drained
}

/// The drops at one socket's receive buffer, told by a cumulative 32-bit counter that wraps.
///
/// The kernel tells it in two ways: with the next receive (`SO_RXQ_OVFL`, as it was when that one
/// was queued) and on request (`SO_MEMINFO`, as it is now). So what is read after a request may
/// carry an older value, which is ignored.
///
/// It counts a segment run as one (`udp_queue_rcv_one_skb`, net/ipv4/udp.c). How long the segment
/// runs were is not told; they are taken to be as long as those that this socket has had.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DropCounter {
    seen: u32,
    /// How much of the kernel's counter is no drop: see [`Self::discount`].
    discounted: u32,
    /// Datagrams dropped, by that estimate.
    datagrams_dropped: u64,
    segment_runs_in: u64,
    datagrams_in: u64,
}

impl DropCounter {
    /// Counts a segment run that came.
    pub(crate) fn received(&mut self, datagrams: usize) {
        self.segment_runs_in += 1;
        self.datagrams_in += datagrams as u64;
    }

    /// Datagrams of a segment run, on average; at least one.
    pub(crate) fn datagrams_per_segment_run(&self) -> f64 {
        (self.datagrams_in as f64 / self.segment_runs_in.max(1) as f64).max(1.0)
    }

    /// Of what the kernel counts so much is no drop: a socket's filter refused it, and it came in
    /// another way. To be read after the kernel's counter that is handed in next: a discount too
    /// many hides a drop until the next time, one too few would make one up.
    pub(crate) fn discount(&mut self, discounted: u32) {
        self.discounted = discounted;
    }

    /// Takes a new value of the kernel's counter and adds what is new of it.
    pub(crate) fn update(&mut self, counter: u32, stats: &mut UdpStats) {
        let counter = counter.wrapping_sub(self.discounted);
        let runs = self.new_drops(counter);
        if runs == 0 {
            return;
        }
        self.seen = counter;
        let datagrams = (runs as f64 * self.datagrams_per_segment_run()).round() as u64;
        self.datagrams_dropped += datagrams;
        stats.kernel_drops += datagrams;
        stats.segment_runs_dropped += runs;
    }

    /// Asks the kernel for its counter now and adds what is new of it.
    pub(crate) fn refresh(&mut self, fd: RawFd, stats: &mut UdpStats) {
        self.refresh_discounting(fd, || 0, stats);
    }

    /// The same, where some of it is no drop; see [`Self::discount`].
    pub(crate) fn refresh_discounting(
        &mut self,
        fd: RawFd,
        discounted: impl FnOnce() -> u32,
        stats: &mut UdpStats,
    ) {
        stats.syscalls += 1;
        if let Ok(counter) = sys::socket_drops(fd) {
            self.discount(discounted());
            self.update(counter, stats);
        }
    }

    /// Datagrams dropped that are known.
    pub(crate) fn total(&self) -> u64 {
        self.datagrams_dropped
    }

    /// Half of the number range counts as "older": a socket would have to drop two thousand
    /// million datagrams between two looks to be misread.
    fn new_drops(&self, counter: u32) -> u64 {
        let ahead = counter.wrapping_sub(self.seen) as i32;
        u64::try_from(ahead).unwrap_or(0)
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_grow_and_older_values_are_ignored() {
        let (mut drops, mut stats) = (DropCounter::default(), UdpStats::default());
        for (counter, total) in [(5, 5), (3, 5), (5, 5), (9, 9)] {
            drops.update(counter, &mut stats);
            assert_eq!(
                (drops.total(), stats.kernel_drops, stats.segment_runs_dropped),
                (total, total, total)
            );
        }
    }

    #[test]
    fn what_is_discounted_is_no_drop() {
        let (mut drops, mut stats) = (DropCounter::default(), UdpStats::default());
        for (discounted, counter, total) in
            [(4, 4, 0), (9, 6, 0), (9, 10, 1), (9, 9, 1), (12, 13, 1)]
        {
            drops.discount(discounted);
            drops.update(counter, &mut stats);
            assert_eq!((drops.total(), stats.kernel_drops), (total, total));
        }
    }

    #[test]
    fn the_counter_wraps() {
        let mut drops = DropCounter { seen: u32::MAX - 1, ..DropCounter::default() };
        drops.update(2, &mut UdpStats::default());
        assert_eq!(drops.total(), 4);
    }

    #[test]
    fn a_dropped_segment_run_is_as_long_as_those_that_came() {
        let (mut drops, mut stats) = (DropCounter::default(), UdpStats::default());
        for datagrams in [10, 1, 10, 1] {
            drops.received(datagrams);
        }
        drops.update(4, &mut stats);
        assert_eq!((stats.kernel_drops, stats.segment_runs_dropped, drops.total()), (22, 4, 22));
    }
}
