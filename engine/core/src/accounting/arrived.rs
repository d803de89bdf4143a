//! Which sequence numbers behind the highest arrived.

/// Sequence numbers behind the highest one of which it is remembered whether they arrived. What
/// arrives from further behind can't be told from a duplicate and counts in
/// [`PacketCounters::stale`](crate::PacketCounters::stale) only. At 1,000 packets a second this is two seconds.
pub const WINDOW_PACKETS: u64 = 2_048;

const WORDS: usize = (WINDOW_PACKETS / 64) as usize;

/// What arrived in the window behind the highest number. Nothing is missing from most streams, and
/// these keep no table.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    /// From here up to the highest all arrived.
    whole_from: u64,
    /// Bit `s % WINDOW_PACKETS`: `s`, which is before `whole_from`, arrived. `None` if none of those
    /// in the window did that are before it, or none are.
    before: Option<Box<[u64; WORDS]>>,
}

impl Arrived {
    /// The first of all arrived.
    pub(super) fn begin(&mut self, first: u64) {
        (self.whole_from, self.before) = (first, None);
    }

    /// Of a number in the window.
    #[inline]
    pub(super) fn has(&self, sequence: u64) -> bool {
        let (word, bit) = place(sequence);
        let in_table = |table: &[u64; WORDS]| table[word] >> bit & 1 == 1;
        sequence >= self.whole_from || self.before.as_deref().is_some_and(in_table)
    }

    /// A number higher than `highest` arrived; those between did not.
    #[inline]
    pub(super) fn advance(&mut self, highest: u64, to: u64) {
        if to > highest + 1 {
            self.pass_over(highest, to);
        } else if self.before.is_some() && to - self.whole_from >= WINDOW_PACKETS {
            self.before = None;
        }
    }

    #[cold]
    fn pass_over(&mut self, highest: u64, to: u64) {
        let bottom = (to + 1).saturating_sub(WINDOW_PACKETS);
        let known_from = self.whole_from.max(bottom);
        if highest < bottom {
            self.before = None;
        } else {
            let table = self.before.get_or_insert_default();
            set(table, known_from, highest + 1, true);
            set(table, highest + 1, to, false);
        }
        self.whole_from = to;
    }

    /// A number that is not higher than the highest arrived.
    pub(super) fn mark(&mut self, sequence: u64) {
        if sequence < self.whole_from {
            set(self.before.get_or_insert_default(), sequence, sequence + 1, true);
        }
    }

    /// The numbers of this range, which is before the first so far, belong to the window now, and did
    /// not arrive.
    pub(super) fn lower(&mut self, from: u64, to: u64) {
        if let Some(table) = &mut self.before {
            set(table, from, to, false);
        }
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.before.as_deref().map_or(0, size_of_val)
    }
}

const fn place(sequence: u64) -> (usize, u64) {
    ((sequence % WINDOW_PACKETS / 64) as usize, sequence % 64)
}

/// Writes the bits of a range no longer than the window.
fn set(table: &mut [u64; WORDS], mut from: u64, to: u64, arrived: bool) {
    while from < to {
        let (word, bit) = place(from);
        let count = (to - from).min(64 - bit);
        let bits = (u64::MAX >> (64 - count)) << bit;
        table[word] = table[word] & !bits | if arrived { bits } else { 0 };
        from += count;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// As a set of all that came.
        #[test]
        fn equals_a_set(
            first in prop_oneof![Just(1_u64 << 16), 70_000..200_000_u64],
            steps in prop::collection::vec((0..4_u8, 1..300_u64), 1..600),
        ) {
            let (mut arrived, mut set) = (Arrived::default(), BTreeSet::from([first]));
            arrived.begin(first);
            let mut highest = first;
            for (kind, step) in steps {
                match kind {
                    // In order, by some packets; with a gap; with one longer than the window.
                    0 => (0..step).for_each(|_| {
                        arrived.advance(highest, highest + 1);
                        highest += 1;
                        set.insert(highest);
                    }),
                    1 | 2 => {
                        let to = highest + if step > 290 { WINDOW_PACKETS + step } else { step };
                        arrived.advance(highest, to);
                        highest = to;
                        set.insert(highest);
                    }
                    _ => {
                        let late = highest.saturating_sub(step * 7 % WINDOW_PACKETS);
                        arrived.mark(late);
                        set.insert(late);
                    }
                }
                let window = highest + 1 - WINDOW_PACKETS..=highest;
                for sequence in window {
                    prop_assert_eq!(arrived.has(sequence), set.contains(&sequence), "{}", sequence);
                }
            }
        }
    }

    #[test]
    fn the_table_goes_once_all_of_the_window_arrived() {
        let mut arrived = Arrived::default();
        arrived.begin(100_000);
        let mut highest = 100_000;
        let mut to = |arrived: &mut Arrived, number| {
            arrived.advance(highest, number);
            highest = number;
        };
        (100_001..103_000).for_each(|number| to(&mut arrived, number));
        assert_eq!(arrived.heap_bytes(), 0, "nothing is missing");
        to(&mut arrived, 103_001);
        assert_eq!(arrived.heap_bytes(), 256);
        assert!(arrived.has(102_999) && !arrived.has(103_000) && arrived.has(103_001));
        (103_002..103_001 + WINDOW_PACKETS).for_each(|number| to(&mut arrived, number));
        assert_eq!((arrived.heap_bytes(), arrived.has(103_001)), (256, true));
        to(&mut arrived, 103_001 + WINDOW_PACKETS);
        assert_eq!((arrived.heap_bytes(), arrived.has(103_002)), (0, true));
    }
}
