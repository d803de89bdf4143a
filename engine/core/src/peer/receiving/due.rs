//! When which of many has something to do, so that nobody has to look at all of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Entries that are out of date, beyond one for each that is not, before they are thrown away.
const STALE_MAX: usize = 64;

/// One moment for each of some indices, the soonest first.
///
/// A moment that is replaced leaves its old entry behind, which is thrown away once it is in front.
/// One that is added beyond [`STALE_MAX`] and twice as many entries as there are moments has all of
/// them thrown away.
#[derive(Debug, Default)]
pub(super) struct DueQueue {
    heap: BinaryHeap<Reverse<(Instant, u32)>>,
    /// The valid moment of each index.
    due: Vec<Option<Instant>>,
    /// How many there are.
    len: usize,
}

impl DueQueue {
    /// This one is due then, whenever it was due before.
    pub(super) fn set(&mut self, index: usize, at: Instant) {
        if index >= self.due.len() {
            make_room(&mut self.due, index + 1);
            self.due.resize(index + 1, None);
        }
        let Some(due) = self.due.get_mut(index) else { return };
        match due.replace(at) {
            Some(before) if before == at => return,
            Some(_) => {}
            None => self.len += 1,
        }
        self.heap.push(Reverse((at, index as u32)));
        if self.heap.len() > 2 * self.len + STALE_MAX {
            let mut entries = std::mem::take(&mut self.heap).into_vec();
            let is_valid = |at, index: u32| self.due.get(index as usize) == Some(&Some(at));
            entries.retain(|&Reverse((at, index))| is_valid(at, index));
            // A moment that came back has two.
            entries.sort_unstable();
            entries.dedup();
            self.heap = entries.into();
        }
    }

    /// This one is due then, or before if it was.
    pub(super) fn set_by(&mut self, index: usize, at: Instant) {
        let before = self.at(index);
        self.set(index, before.map_or(at, |before| before.min(at)));
    }

    /// This one has nothing to do.
    pub(super) fn unset(&mut self, index: usize) {
        if self.due.get_mut(index).and_then(Option::take).is_some() {
            self.len -= 1;
        }
    }

    /// When this one is due.
    pub(super) fn at(&self, index: usize) -> Option<Instant> {
        self.due.get(index).copied().flatten()
    }

    /// When the first one is due.
    pub(super) fn next(&mut self) -> Option<Instant> {
        while let Some(&Reverse((at, index))) = self.heap.peek() {
            if self.due.get(index as usize) == Some(&Some(at)) {
                return Some(at);
            }
            self.heap.pop();
        }
        None
    }

    /// Takes those out that are due before `now` or at it, into `taken` in the order of their indices.
    pub(super) fn take_due(&mut self, now: Instant, taken: &mut Vec<u32>) {
        taken.clear();
        while self.next().is_some_and(|at| at <= now)
            && let Some(Reverse((_, index))) = self.heap.pop()
        {
            self.unset(index as usize);
            taken.push(index);
        }
        taken.sort_unstable();
    }

    /// Nothing has anything to do.
    pub(super) fn clear(&mut self) {
        self.heap.clear();
        self.due.clear();
        self.len = 0;
    }
}

/// Makes room for so many entries in all, and a quarter more: twice as many would be a waste where each
/// peer has a few of such vectors.
pub(super) fn make_room<T>(entries: &mut Vec<T>, wanted: usize) {
    if wanted > entries.capacity() {
        entries.reserve_exact(wanted + wanted / 4 - entries.len());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// What is done to a queue, on an index and at a moment in milliseconds.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Set(usize, u64),
        SetBy(usize, u64),
        Unset(usize),
        Take(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let (index, ms) = (0_usize..20, 0_u64..50);
        prop_oneof![
            4 => (index.clone(), ms.clone()).prop_map(|(index, ms)| Step::Set(index, ms)),
            2 => (index.clone(), ms.clone()).prop_map(|(index, ms)| Step::SetBy(index, ms)),
            1 => index.prop_map(Step::Unset),
            2 => ms.prop_map(Step::Take),
        ]
    }

    proptest! {
        /// As if all were looked at each time.
        #[test]
        fn the_first_is_always_found(steps in prop::collection::vec(step(), 0..400)) {
            let start = Instant::now();
            let at = |ms| start + Duration::from_millis(ms);
            let (mut queue, mut scanned) = (DueQueue::default(), [None; 20]);
            for step in steps {
                match step {
                    Step::Set(index, ms) => {
                        queue.set(index, at(ms));
                        scanned[index] = Some(at(ms));
                    }
                    Step::SetBy(index, ms) => {
                        queue.set_by(index, at(ms));
                        let before = scanned[index];
                        scanned[index] = before.into_iter().chain([at(ms)]).min();
                    }
                    Step::Unset(index) => {
                        queue.unset(index);
                        scanned[index] = None;
                    }
                    Step::Take(ms) => {
                        let mut taken = Vec::new();
                        queue.take_due(at(ms), &mut taken);
                        let due = (0..20).filter(|&i| scanned[i].is_some_and(|due| due <= at(ms)));
                        let due: Vec<usize> = due.collect();
                        let taken: Vec<usize> = taken.iter().map(|&index| index as usize).collect();
                        prop_assert_eq!(&taken, &due);
                        due.iter().for_each(|&index| scanned[index] = None);
                    }
                }
                prop_assert_eq!(queue.next(), scanned.iter().flatten().min().copied());
                prop_assert_eq!(queue.len, scanned.iter().flatten().count());
                prop_assert!(queue.heap.len() <= 2 * 20 + STALE_MAX);
            }
        }
    }

    #[test]
    fn what_is_out_of_date_does_not_pile_up() {
        let (mut queue, start) = (DueQueue::default(), Instant::now());
        queue.set(0, start);
        for us in 1..10_000 {
            queue.set(1, start + Duration::from_micros(us));
        }
        assert!(queue.heap.len() <= 2 * 2 + STALE_MAX, "{}", queue.heap.len());
        assert_eq!(queue.next(), Some(start));
    }
}
