//! When each peer wants to be woken. Pure.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::message::PeerKey;

/// Deadlines of many peers, of which a peer's later one never needs to be taken out: a peer that
/// is woken too early just asks again. So media that moves a peer's deadline on with every packet
/// costs nothing here.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, usize, PeerKey)>>,
}

impl Timers {
    /// Wakes the peer at `index` at `at`, if it is this one then: indices are reused, keys are not.
    pub(crate) fn add(&mut self, at: Instant, index: usize, key: PeerKey) {
        self.heap.push(Reverse((at, index, key)));
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// Takes the next deadline that has passed: the peer's index and key.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(usize, PeerKey)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, index, key))| (index, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn due_ones_come_in_order() {
        let now = Instant::now();
        let mut timers = Timers::default();
        timers.add(now + Duration::from_millis(20), 2, PeerKey(2));
        timers.add(now + Duration::from_millis(10), 1, PeerKey(1));
        timers.add(now + Duration::from_millis(30), 3, PeerKey(3));
        assert_eq!(timers.pop_due(now), None);
        let later = now + Duration::from_millis(20);
        assert_eq!(timers.pop_due(later), Some((1, PeerKey(1))));
        assert_eq!(timers.pop_due(later), Some((2, PeerKey(2))));
        assert_eq!(timers.pop_due(later), None);
        assert_eq!(timers.next(), Some(now + Duration::from_millis(30)));
    }
}
