//! Packets held back on purpose.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Packets one worker holds at most; one more is lost and counted. 2,000 subscribers of 190
/// packets/s delayed by 250 ms are 95,000 packets.
pub const HELD_PACKETS_MAX: usize = 131_072;

/// Packets by the time they are due; those of the same time leave in the order they came.
#[derive(Debug)]
pub struct Held<T> {
    heap: BinaryHeap<Entry<T>>,
    serial: u64,
    packets_max: usize,
    full: u64,
}

#[derive(Debug)]
struct Entry<T> {
    due: Instant,
    serial: u64,
    packet: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    /// The heap gives its greatest first, which is to be the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.serial).cmp(&(self.due, self.serial))
    }
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self::new(HELD_PACKETS_MAX)
    }
}

impl<T> Held<T> {
    /// Holds at most `packets_max`.
    #[must_use]
    pub fn new(packets_max: usize) -> Self {
        Self { heap: BinaryHeap::new(), serial: 0, packets_max, full: 0 }
    }

    /// Holds a packet until `due`; false, and the packet is lost and counted, when it is full.
    pub fn push(&mut self, due: Instant, packet: T) -> bool {
        if self.heap.len() >= self.packets_max {
            self.full += 1;
            return false;
        }
        self.serial += 1;
        self.heap.push(Entry { due, serial: self.serial, packet });
        true
    }

    /// Takes the earliest packet if it is due, with the time it was due at.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, T)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|entry| (entry.due, entry.packet))
    }

    /// When the earliest packet is due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|entry| entry.due)
    }

    /// Packets held now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Packets lost because it was full.
    #[must_use]
    pub fn full(&self) -> u64 {
        self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_worker_holds_so_many_and_counts_what_finds_no_room() {
        let (now, mut held) = (Instant::now(), Held::default());
        assert!((0..HELD_PACKETS_MAX).all(|packet| held.push(now, packet)));
        assert!(!held.push(now, HELD_PACKETS_MAX));
        assert_eq!((held.len(), held.full()), (HELD_PACKETS_MAX, 1));
        assert_eq!(held.pop_due(now), Some((now, 0)));
        assert!(held.push(now, 0));
    }

    #[test]
    fn packets_leave_when_due_and_in_the_order_they_came() {
        let now = Instant::now();
        let ms = |ms| now + Duration::from_millis(ms);
        let mut held = Held::new(4);
        for (due, packet) in [(ms(50), 'b'), (ms(10), 'a'), (ms(50), 'c'), (ms(90), 'd')] {
            assert!(held.push(due, packet));
        }
        assert!(!held.push(ms(1), 'x'));
        assert_eq!((held.len(), held.full(), held.next()), (4, 1, Some(ms(10))));
        assert_eq!(held.pop_due(ms(9)), None);
        let left: Vec<_> = std::iter::from_fn(|| held.pop_due(ms(60))).collect();
        assert_eq!(left, [(ms(10), 'a'), (ms(50), 'b'), (ms(50), 'c')]);
        assert_eq!(held.next(), Some(ms(90)));
    }
}
