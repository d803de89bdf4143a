//! What one receiver knows of the messages of one kind of one sender.
//!
//! What was sent is known from the room's board, not from what came: so nothing that came is needed
//! to know that something is missing. A message is overdue once it was on the board for
//! [`OVERDUE_AFTER`] and a moment more, which the datagram that had it in time may have waited in a
//! socket.

use std::time::Duration;

use stampede_counters::MessageCounters;

/// How often the board is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// Looks between which a message becomes overdue: one more than in [`OVERDUE_AFTER`].
const TICKS: usize = 5;
/// A message that took longer is late. One is overdue up to half a second later.
pub const OVERDUE_AFTER: Duration = Duration::from_secs(1);
/// Numbers remembered. Those that are missing longer are lost; what comes of them then is stale.
pub const MESSAGE_WINDOW: u64 = 2_048;
const WORDS: usize = (MESSAGE_WINDOW / 64) as usize;

/// What became of a message that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Got {
    /// It counts.
    Counted,
    /// Nobody expected it, or it came before.
    Left,
}

/// A sender's messages of one kind, at one receiver.
#[derive(Debug)]
pub(crate) struct MessageLedger {
    /// Nothing before is expected.
    base: u64,
    /// Everything before is accounted for: it came, or is overdue.
    checked: u64,
    /// One past the highest number that came.
    next: u64,
    /// What the board said at the last looks; the oldest is at `tick % TICKS`.
    marks: [u64; TICKS],
    tick: usize,
    /// Numbers that came, of the last [`MESSAGE_WINDOW`] before `end`.
    came: Box<[u64; WORDS]>,
    /// One past the highest number that the window has.
    end: u64,
}

impl MessageLedger {
    /// Nothing that was sent so far is expected.
    pub(crate) fn new(sent: u64) -> Self {
        Self {
            base: sent,
            checked: sent,
            next: sent,
            marks: [sent; TICKS],
            tick: 0,
            came: Box::new([0; WORDS]),
            end: sent,
        }
    }

    fn has(&self, sequence: u64) -> bool {
        let at = sequence % MESSAGE_WINDOW;
        self.came[(at / 64) as usize] & (1 << (at % 64)) != 0
    }

    fn set(&mut self, sequence: u64, came: bool) {
        let at = sequence % MESSAGE_WINDOW;
        let (word, bit) = (&mut self.came[(at / 64) as usize], 1 << (at % 64));
        if came { *word |= bit } else { *word &= !bit }
    }

    /// Moves the window so that it has what is before `end`. What falls out of it and was not
    /// accounted for is lost now.
    fn reach(&mut self, end: u64, counted: &mut MessageCounters) {
        if end <= self.end {
            return;
        }
        self.settle(end.saturating_sub(MESSAGE_WINDOW), counted);
        for sequence in self.end.max(end.saturating_sub(MESSAGE_WINDOW))..end {
            self.set(sequence, false);
        }
        self.end = end;
    }

    /// What is before `until` and did not come is overdue.
    fn settle(&mut self, until: u64, counted: &mut MessageCounters) {
        if until <= self.checked {
            return;
        }
        // Behind the end of the window nothing came.
        let inside = until.min(self.end);
        let came = (self.checked..inside).filter(|&sequence| self.has(sequence)).count() as u64;
        let missing = until - self.checked - came;
        counted.expected += missing;
        counted.lost += missing;
        counted.decided += until - self.checked;
        self.checked = until;
    }

    /// A message came, this long after it was sent. `sent` is what the board says: a number that was
    /// not sent is none of ours.
    pub(crate) fn came(
        &mut self,
        sequence: u64,
        sent: u64,
        took: Duration,
        counted: &mut MessageCounters,
    ) -> Got {
        if sequence >= sent || sequence < self.base {
            counted.unexpected += 1;
            return Got::Left;
        }
        if sequence.saturating_add(MESSAGE_WINDOW) < self.end {
            counted.stale += 1;
            return Got::Left;
        }
        self.reach(sequence + 1, counted);
        if self.has(sequence) {
            counted.duplicate += 1;
            return Got::Left;
        }
        self.set(sequence, true);
        counted.received += 1;
        if sequence < self.checked {
            // It was expected already.
            counted.lost = counted.lost.saturating_sub(1);
        } else {
            counted.expected += 1;
        }
        counted.late += u64::from(took > OVERDUE_AFTER);
        if sequence < self.next {
            counted.reordered += 1;
        } else {
            self.next = sequence + 1;
        }
        Got::Counted
    }

    /// The board says that so many were sent; once a [`TICK`].
    pub(crate) fn look(&mut self, sent: u64, counted: &mut MessageCounters) {
        let place = self.tick % TICKS;
        let due = std::mem::replace(&mut self.marks[place], sent);
        self.tick += 1;
        self.settle(due, counted);
    }

    /// Nothing is expected from here on of what was sent so far, `sent` by the board: who received
    /// has left, or its connection was lost. What was not there yet and not overdue is cut off.
    pub(crate) fn cut(&mut self, sent: u64, counted: &mut MessageCounters) {
        let from = self.checked.max(self.base);
        let open = (from..sent)
            .filter(|&sequence| sequence >= self.end || !self.has(sequence))
            .count() as u64;
        counted.cut_off += open;
        *self = Self::new(sent);
    }

    /// Counting begins anew: nothing that was sent so far counts.
    pub(crate) fn begin_measuring(&mut self, sent: u64) {
        *self = Self::new(sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(20);

    /// A ledger that looks at the board.
    struct Rig {
        ledger: MessageLedger,
        sent: u64,
        counted: MessageCounters,
    }

    impl Rig {
        fn new(sent: u64) -> Self {
            let counted = MessageCounters::default();
            Self { ledger: MessageLedger::new(sent), sent, counted }
        }

        fn send(&mut self, count: u64) {
            self.sent += count;
        }

        fn came(&mut self, sequence: u64, took: Duration) -> Got {
            self.ledger.came(sequence, self.sent, took, &mut self.counted)
        }

        fn look(&mut self, times: usize) {
            for _ in 0..times {
                self.ledger.look(self.sent, &mut self.counted);
            }
        }
    }

    #[test]
    fn what_came_and_what_did_not_is_told_apart_exactly() {
        let mut rig = Rig::new(0);
        rig.send(10);
        for sequence in [0, 1, 3, 2, 3, 5, 6, 7, 8, 9] {
            rig.came(sequence, FAST);
        }
        rig.look(TICKS);
        assert_eq!(rig.counted.lost, 0, "it is not overdue yet");
        rig.look(1);
        let expected = MessageCounters {
            expected: 10,
            received: 9,
            lost: 1,
            decided: 10,
            duplicate: 1,
            reordered: 1,
            ..MessageCounters::default()
        };
        assert_eq!(rig.counted, expected);
        // The lost one comes after all.
        rig.came(4, Duration::from_secs(3));
        let expected = MessageCounters { received: 10, lost: 0, late: 1, reordered: 2, ..expected };
        assert_eq!(rig.counted, expected);
        rig.came(4, Duration::from_secs(3));
        assert_eq!(rig.counted, MessageCounters { duplicate: 2, ..expected });
    }

    #[test]
    fn who_gets_nothing_at_all_has_lost_everything() {
        let mut rig = Rig::new(100);
        rig.send(50);
        rig.look(1);
        rig.send(7);
        rig.look(TICKS);
        assert_eq!((rig.counted.expected, rig.counted.lost), (50, 50));
        rig.look(1);
        assert_eq!((rig.counted.expected, rig.counted.lost), (57, 57));
        assert_eq!(rig.counted.received, 0);
    }

    #[test]
    fn what_was_sent_before_is_nobodys_and_so_is_what_was_never_sent() {
        let mut rig = Rig::new(5);
        rig.send(2);
        assert_eq!(rig.came(4, FAST), Got::Left);
        assert_eq!(rig.came(7, FAST), Got::Left);
        assert_eq!(rig.came(u64::MAX, FAST), Got::Left);
        assert_eq!(rig.came(6, FAST), Got::Counted);
        let expected =
            MessageCounters { expected: 1, received: 1, unexpected: 3, ..Default::default() };
        assert_eq!(rig.counted, expected);
    }

    #[test]
    fn who_leaves_has_lost_only_what_was_overdue() {
        let mut rig = Rig::new(0);
        rig.send(3);
        rig.came(0, FAST);
        rig.look(TICKS + 1);
        rig.send(4);
        rig.came(4, FAST);
        rig.ledger.cut(rig.sent, &mut rig.counted);
        let expected = MessageCounters {
            expected: 4,
            received: 2,
            lost: 2,
            decided: 3,
            cut_off: 3,
            ..MessageCounters::default()
        };
        assert_eq!(rig.counted, expected);
        // The one that came at once says nothing of what is lost.
        assert_eq!(rig.counted.loss_rate(), Some(2.0 / 3.0));
        // What comes of it later is in no account.
        rig.came(3, FAST);
        assert_eq!(rig.counted, MessageCounters { unexpected: 1, ..expected });
    }

    #[test]
    fn a_window_that_is_passed_loses_what_is_behind_it() {
        let mut rig = Rig::new(0);
        let all = 3 * MESSAGE_WINDOW + 10;
        rig.send(all);
        rig.came(0, FAST);
        rig.came(all - 1, FAST);
        assert_eq!(rig.counted.lost, 2 * MESSAGE_WINDOW + 9);
        assert_eq!(rig.came(1, FAST), Got::Left);
        assert_eq!(rig.counted.stale, 1);
        // The oldest that it has.
        assert_eq!(rig.came(all - MESSAGE_WINDOW, FAST), Got::Counted);
        rig.look(TICKS + 1);
        let MessageCounters { expected, received, lost, .. } = rig.counted;
        assert_eq!((expected, received, lost), (all, 3, all - 3));
        // Bits of numbers from a window ago are none of the new ones.
        rig.send(1);
        assert_eq!(rig.came(all, FAST), Got::Counted);
    }

    /// Random drops, duplicates and reordering against plain lists.
    #[test]
    fn any_order_of_messages_is_accounted_for_as_a_list_would() {
        for seed in 0..50 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut rig = Rig::new(rng.u64(..1_000_000));
            let (first, mut dropped, mut twice, mut after) = (rig.sent, 0, 0, 0);
            let (mut held, mut highest) = (Vec::new(), 0);
            let deliver = |rig: &mut Rig, sequence: u64, highest: &mut u64, after: &mut u64| {
                assert_eq!(rig.came(sequence, FAST), Got::Counted);
                *after += u64::from(sequence < *highest);
                *highest = sequence.max(*highest);
            };
            for _ in 0..rng.u64(1..5_000) {
                let sequence = rig.sent;
                rig.send(1);
                match rng.u32(..10) {
                    0 => dropped += 1,
                    1 => held.push(sequence),
                    two => {
                        deliver(&mut rig, sequence, &mut highest, &mut after);
                        if two == 2 {
                            assert_eq!(rig.came(sequence, FAST), Got::Left);
                            twice += 1;
                        }
                    }
                }
                if rng.u32(..8) == 0 {
                    for sequence in held.drain(..) {
                        deliver(&mut rig, sequence, &mut highest, &mut after);
                    }
                }
                if rng.u32(..300) == 0 {
                    rig.look(1);
                }
            }
            for sequence in held.drain(..) {
                deliver(&mut rig, sequence, &mut highest, &mut after);
            }
            rig.look(TICKS + 1);
            let all = rig.sent - first;
            let expected = MessageCounters {
                expected: all,
                received: all - dropped,
                lost: dropped,
                decided: all,
                duplicate: twice,
                reordered: after,
                ..MessageCounters::default()
            };
            assert_eq!(rig.counted, expected, "seed {seed}");
        }
    }
}
