//! What both backends keep for each socket.

use std::os::fd::RawFd;

use crate::sys;

/// The drops at one socket's receive buffer, told by a cumulative 32-bit counter that wraps.
///
/// The kernel tells it in two ways: with the next datagram (`SO_RXQ_OVFL`, as it was when that
/// datagram was queued) and on request (`SO_MEMINFO`, as it is now). So a datagram read after a
/// request may carry an older value, which is ignored.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DropCounter {
    seen: u32,
    total: u64,
}

impl DropCounter {
    /// Takes a new value of the kernel's counter; returns how many drops are new.
    pub(crate) fn update(&mut self, counter: u32) -> u64 {
        let new = self.new_drops(counter);
        if new > 0 {
            self.seen = counter;
            self.total += new;
        }
        new
    }

    /// Asks the kernel for its counter now; returns how many drops are new.
    pub(crate) fn refresh(&mut self, fd: RawFd) -> u64 {
        sys::socket_drops(fd).map_or(0, |counter| self.update(counter))
    }

    /// All drops that are known.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Half of the number range counts as "older": a socket would have to drop two thousand
    /// million datagrams between two looks to be misread.
    fn new_drops(&self, counter: u32) -> u64 {
        let ahead = counter.wrapping_sub(self.seen) as i32;
        u64::try_from(ahead).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_grow_and_older_values_are_ignored() {
        let mut drops = DropCounter::default();
        assert_eq!(drops.update(5), 5);
        assert_eq!(drops.update(3), 0);
        assert_eq!(drops.update(5), 0);
        assert_eq!(drops.update(9), 4);
        assert_eq!(drops.total, 9);
    }

    #[test]
    fn the_counter_wraps() {
        let mut drops = DropCounter { seen: u32::MAX - 1, total: 7 };
        assert_eq!(drops.update(2), 4);
        assert_eq!(drops.total, 11);
    }
}
