//! When each peer wants to be woken. Pure.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Deadlines of many peers, of which a peer's later one never needs to be taken out: a peer that
/// is woken too early just asks again. So media that moves a peer's deadline on with every packet
/// costs nothing here.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, usize, u64)>>,
}

impl Timers {
    /// Wakes peer `index` (of generation `generation`, indices are reused) at `at`.
    pub(crate) fn add(&mut self, at: Instant, index: usize, generation: u64) {
        self.heap.push(Reverse((at, index, generation)));
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// Takes the next deadline that has passed: the peer's index and generation.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(usize, u64)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, index, generation))| (index, generation))
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
        timers.add(now + Duration::from_millis(20), 2, 0);
        timers.add(now + Duration::from_millis(10), 1, 0);
        timers.add(now + Duration::from_millis(30), 3, 0);
        assert_eq!(timers.pop_due(now), None);
        let later = now + Duration::from_millis(20);
        assert_eq!(timers.pop_due(later), Some((1, 0)));
        assert_eq!(timers.pop_due(later), Some((2, 0)));
        assert_eq!(timers.pop_due(later), None);
        assert_eq!(timers.next(), Some(now + Duration::from_millis(30)));
    }
}
