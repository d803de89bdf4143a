//! Numbers of a stream of which packets are left out, without gaps.

/// How far back a packet is remembered: those that come late are numbered right, and those that are
/// asked for again are found. As many as are kept for retransmission.
const MEMORY: usize = 256;

/// What became of a publisher's packet.
#[derive(Debug, Clone, Copy)]
struct Passed {
    seq: u64,
    /// Packets left out so far, this one included.
    left_out: u64,
    sent: bool,
    marker: bool,
}

/// Numbers what passes. What never came from the publisher keeps its number, so that its loss is seen.
#[derive(Debug)]
pub(super) struct Thinner {
    /// From here on.
    first: u64,
    highest: Option<u64>,
    left_out: u64,
    memory: Box<[Option<Passed>; MEMORY]>,
}

impl Thinner {
    /// Of packets from this one on.
    pub(super) fn new(first: u64) -> Self {
        Self { first, highest: None, left_out: 0, memory: Box::new([None; MEMORY]) }
    }

    /// A packet passes, with this marker, or is left out. Its number if it passes; `None` too if it is
    /// too old to be numbered, or came before.
    pub(super) fn take(&mut self, seq: u64, goes: Option<bool>) -> Option<u64> {
        let in_order = self.is_newest(seq);
        let left_out = if in_order {
            self.highest = Some(seq);
            self.left_out += u64::from(goes.is_none());
            self.left_out
        } else {
            self.left_out_before(seq)?
        };
        // The numbers behind one that comes late are given: if it is left out, it stays a hole.
        let marker = goes.unwrap_or_default();
        let passed = Passed { seq, left_out, sent: goes.is_some(), marker };
        self.memory[slot(seq)] = Some(passed);
        goes.map(|_| seq - left_out)
    }

    /// Whether no packet behind this one came yet.
    pub(super) fn is_newest(&self, seq: u64) -> bool {
        self.highest.is_none_or(|highest| seq > highest)
    }

    /// The publisher's number of a packet that passed as this one, and its marker.
    pub(super) fn origin(&self, number: u64) -> Option<(u64, bool)> {
        let passed = self.memory.iter().flatten();
        let mut found =
            passed.filter(|passed| passed.sent && passed.seq - passed.left_out == number);
        found.next().map(|passed| (passed.seq, passed.marker))
    }

    /// Packets left out before this one, which comes late and for the first time.
    fn left_out_before(&self, seq: u64) -> Option<u64> {
        let oldest = self.highest?.saturating_sub(MEMORY as u64 - 1).max(self.first);
        if seq < oldest || self.remembered(seq).is_some() {
            return None;
        }
        let before = (oldest..seq).rev().find_map(|seq| self.remembered(seq));
        match before {
            Some(passed) => Some(passed.left_out),
            None => (oldest == self.first).then_some(0),
        }
    }

    fn remembered(&self, seq: u64) -> Option<Passed> {
        self.memory[slot(seq)].filter(|passed| passed.seq == seq)
    }
}

fn slot(seq: u64) -> usize {
    (seq % MEMORY as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_never_came_stays_a_hole_and_what_comes_late_fills_it() {
        let mut thinner = Thinner::new(10);
        assert_eq!(thinner.take(10, Some(false)), Some(10));
        assert_eq!(thinner.take(11, None), None);
        assert_eq!(thinner.take(13, Some(true)), Some(12));
        assert_eq!(thinner.take(12, Some(false)), Some(11));
        assert_eq!(thinner.take(12, Some(false)), None, "twice");
        assert_eq!(thinner.take(9, Some(false)), None, "from before");
        assert_eq!(thinner.origin(12), Some((13, true)));
        assert_eq!(thinner.origin(11), Some((12, false)));
        assert_eq!(thinner.origin(13), None);
        assert_eq!(thinner.take(13 + MEMORY as u64, Some(false)), Some(12 + MEMORY as u64));
        assert_eq!(thinner.take(13, Some(false)), None, "too old");
    }

    proptest! {
        /// In order there are no gaps; in any order no number is given twice, and each leads back.
        #[test]
        fn numbers_are_dense_and_unique(
            goes in proptest::collection::vec(any::<bool>(), 1..200),
            swaps in proptest::collection::vec((0usize..200, 0usize..6), 0..30),
        ) {
            let mut packets: Vec<_> = (500..).zip(goes.iter().copied()).collect();
            let mut thinner = Thinner::new(500);
            let sent = packets.iter().filter(|(_, goes)| *goes);
            let expected: Vec<u64> = sent.zip(500..).map(|(_, number)| number).collect();
            let numbers: Vec<u64> = packets
                .iter()
                .filter_map(|&(seq, goes)| thinner.take(seq, goes.then_some(false)))
                .collect();
            prop_assert_eq!(numbers, expected);

            let len = packets.len();
            for (at, distance) in swaps {
                packets.swap(at % len, (at + distance) % len);
            }
            let mut thinner = Thinner::new(500);
            let mut given = BTreeMap::new();
            for (seq, goes) in packets {
                if let Some(number) = thinner.take(seq, goes.then_some(false)) {
                    prop_assert!(given.insert(number, seq).is_none(), "{} twice", number);
                }
            }
            for (number, seq) in given {
                prop_assert_eq!(thinner.origin(number), Some((seq, false)));
            }
        }
    }
}
