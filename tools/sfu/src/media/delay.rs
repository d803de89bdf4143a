//! Packets held back on purpose. Pure.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Packets held at most by one worker; more are dropped and counted in
/// [`crate::WorkerLedger::delay_queue_full`]. 2,000 subscribers of 190 packets/s delayed by
/// 250 ms are 95,000 packets.
pub(crate) const DELAYED_PACKETS_MAX: usize = 131_072;

/// A first-in first-out queue: the delay is the same for all.
#[derive(Debug)]
pub(crate) struct DelayQueue {
    delay: Duration,
    queue: VecDeque<(Instant, SocketAddr, Box<[u8]>)>,
    full: u64,
}

impl DelayQueue {
    /// Holds every packet for `delay`.
    pub(crate) fn new(delay: Duration) -> Self {
        Self { delay, queue: VecDeque::new(), full: 0 }
    }

    /// Takes a packet. A packet that finds the queue full is counted and lost.
    pub(crate) fn push(&mut self, now: Instant, destination: SocketAddr, payload: &[u8]) {
        if self.queue.len() >= DELAYED_PACKETS_MAX {
            self.full += 1;
            return;
        }
        self.queue.push_back((now + self.delay, destination, payload.into()));
    }

    /// The next packet whose time has come.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(SocketAddr, Box<[u8]>)> {
        if self.queue.front().is_none_or(|(due, ..)| *due > now) {
            return None;
        }
        self.queue.pop_front().map(|(_, destination, payload)| (destination, payload))
    }

    /// When the next packet is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.front().map(|(due, ..)| *due)
    }

    /// Packets lost because the queue was full.
    pub(crate) fn full(&self) -> u64 {
        self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_leave_after_the_delay_in_order() {
        let now = Instant::now();
        let to = SocketAddr::from(([127, 0, 0, 1], 9));
        let mut queue = DelayQueue::new(Duration::from_millis(50));
        queue.push(now, to, b"a");
        queue.push(now + Duration::from_millis(1), to, b"b");
        assert_eq!(queue.pop_due(now + Duration::from_millis(49)), None);
        let due = now + Duration::from_millis(50);
        assert_eq!(queue.pop_due(due), Some((to, b"a".as_slice().into())));
        assert_eq!(queue.pop_due(due), None);
        assert_eq!(queue.next(), Some(due + Duration::from_millis(1)));
        for _ in 0..DELAYED_PACKETS_MAX + 3 {
            queue.push(now, to, b"c");
        }
        assert_eq!(queue.full(), 4);
    }
}
