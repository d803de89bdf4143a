//! The sequence ledger against the plainest one there is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::sequence::{SequenceLedger, Via};
use crate::PacketCounters;

const DEADLINE: Duration = Duration::from_millis(500);

/// One arrival: extended sequence number from 0, milliseconds, way, padding.
#[derive(Debug, Clone, Copy)]
struct Arrived {
    sequence: u64,
    at_ms: u64,
    via: Via,
    padding: bool,
}

/// Keeps everything, forgets nothing.
#[derive(Default)]
struct Naive {
    first: Option<u64>,
    highest: u64,
    /// When it was passed over, and when it arrived.
    passed: BTreeMap<u64, u64>,
    arrived: BTreeMap<u64, u64>,
    counted: PacketCounters,
}

impl Naive {
    fn arrive(&mut self, packet: Arrived) {
        let Arrived { sequence, at_ms, via, padding } = packet;
        let deadline_ms = DEADLINE.as_millis() as u64;
        if self.arrived.contains_key(&sequence) {
            match via {
                Via::Primary => self.counted.duplicate += 1,
                Via::Rtx => self.counted.rtx_redundant += 1,
            }
            return;
        }
        self.arrived.insert(sequence, at_ms);
        if padding {
            self.counted.padding_only += 1;
        } else {
            self.counted.received += 1;
        }
        if self.first.is_none() {
            self.first = Some(sequence);
            self.highest = sequence;
            return;
        }
        let passed_ms = self.passed.get(&sequence).copied();
        if sequence > self.highest {
            for skipped in self.highest + 1..sequence {
                self.passed.insert(skipped, at_ms);
            }
            self.counted.missing += sequence - self.highest - 1;
            self.highest = sequence;
            if via == Via::Rtx {
                self.counted.missing += 1;
                self.counted.repaired += 1;
                self.counted.rtx_repairs += 1;
            }
        } else if let Some(passed_ms) = passed_ms {
            if padding {
                self.counted.missing -= 1;
                return;
            }
            let in_time = at_ms <= passed_ms + deadline_ms;
            self.counted.repaired += u64::from(in_time);
            self.counted.late += u64::from(!in_time);
            self.counted.reordered += u64::from(via == Via::Primary);
            self.counted.rtx_repairs += u64::from(via == Via::Rtx);
        }
    }

    fn counters(&self) -> PacketCounters {
        let span = self.first.map_or(0, |first| self.highest + 1 - first);
        PacketCounters {
            expected: span - self.counted.padding_only,
            unrecovered: self.counted.missing - self.counted.repaired,
            ..self.counted
        }
    }
}

fn arrivals() -> impl Strategy<Value = Vec<Arrived>> {
    // Each packet: lost?, delay, duplicate after, RTX after, padding.
    let packet = (0..100_u32, 0..900_u64, 0..100_u32, 0..700_u64, 0..100_u32);
    prop::collection::vec(packet, 1..400).prop_map(|packets| {
        let mut arrivals = Vec::new();
        for (index, (fate, delay, extra, extra_delay, kind)) in packets.into_iter().enumerate() {
            let (sequence, sent_ms) = (index as u64, index as u64 * 4);
            let padding = kind < 5;
            let mut arrive = |after, via, padding| {
                arrivals.push(Arrived { sequence, at_ms: sent_ms + after, via, padding });
            };
            // The first one always comes first: what comes before it has a test of its own.
            let lost = fate < 15 && index > 0;
            if !lost {
                arrive(if fate > 80 && index > 0 { delay } else { 0 }, Via::Primary, padding);
            }
            if lost && extra < 60 && !padding {
                arrive(extra_delay, Via::Rtx, false);
            }
            if !lost && extra < 8 {
                arrive(extra_delay, Via::Primary, padding);
            }
            if !lost && extra > 95 && !padding {
                arrive(extra_delay, Via::Rtx, false);
            }
        }
        arrivals.sort_by_key(|arrival| arrival.at_ms);
        arrivals
    })
}

fn feed(ledger: &mut SequenceLedger, start: Instant, first: u16, packet: Arrived) {
    let wire = first.wrapping_add(packet.sequence as u16);
    let at = start + Duration::from_millis(packet.at_ms);
    if packet.padding {
        ledger.padding(wire, at);
    } else {
        ledger.media(wire, at, 0, packet.via);
    }
}

proptest! {
    #[test]
    fn equals_the_naive_ledger(
        arrivals in arrivals(),
        first in prop_oneof![any::<u16>(), 65_300..=65_535_u16],
        expire_lag_ms in 0..200_u64,
    ) {
        let start = Instant::now();
        let mut ledger = SequenceLedger::new(DEADLINE);
        let mut naive = Naive::default();
        for &packet in &arrivals {
            feed(&mut ledger, start, first, packet);
            naive.arrive(packet);
            // Settling early changes no count, whenever it happens.
            let now = Duration::from_millis(packet.at_ms.saturating_sub(expire_lag_ms));
            ledger.expire_gaps(start + now);
            let c = ledger.counters();
            prop_assert_eq!(c.missing, c.repaired + c.unrecovered + c.pending);
            prop_assert_eq!(c.expected, c.received + c.missing - c.repaired - c.late);
            prop_assert!(c.late <= c.unrecovered);
        }
        ledger.expire_gaps(start + Duration::from_secs(3_600));
        prop_assert_eq!(ledger.counters(), naive.counters());
        prop_assert_eq!(ledger.next_deadline(), None);
    }

    #[test]
    fn order_matters_only_for_what_order_means(
        sequences in prop::collection::vec(1..300_u64, 1..300),
        rotate in 0..300_usize,
    ) {
        // All at the same moment: whatever the order, the same packets are expected, received and
        // unrecovered.
        let start = Instant::now();
        let run = |order: &[u64]| {
            let mut ledger = SequenceLedger::new(DEADLINE);
            let all = [&[0], order, &[300]].concat();
            for sequence in all {
                ledger.media(sequence as u16, start, 7, Via::Primary);
            }
            ledger.expire_gaps(start + Duration::from_secs(3_600));
            let c = ledger.counters();
            (c.expected, c.received, c.duplicate, c.unrecovered, c.bytes)
        };
        let mut turned = sequences.clone();
        turned.rotate_left(rotate % sequences.len());
        let mut sorted = sequences.clone();
        sorted.sort_unstable();
        prop_assert_eq!(run(&sequences), run(&turned));
        prop_assert_eq!(run(&sequences), run(&sorted));
    }

    #[test]
    fn any_input_keeps_the_sums(
        input in prop::collection::vec((any::<u16>(), 0..3_u8, 0..5_000_u64), 0..500),
    ) {
        let start = Instant::now();
        let mut ledger = SequenceLedger::new(DEADLINE);
        for (sequence, kind, at_ms) in input {
            let at = start + Duration::from_millis(at_ms);
            match kind {
                0 => ledger.media(sequence, at, 1, Via::Primary),
                1 => ledger.media(sequence, at, 1, Via::Rtx),
                _ => ledger.padding(sequence, at),
            };
            ledger.expire_gaps(at);
            let c = ledger.counters();
            prop_assert_eq!(c.missing, c.repaired + c.unrecovered + c.pending);
            prop_assert_eq!(c.expected, c.received + c.missing - c.repaired - c.late);
            prop_assert!(ledger.heap_bytes() < 64 << 10);
        }
    }
}

#[test]
fn wraps_and_long_gaps() {
    let start = Instant::now();
    let mut ledger = SequenceLedger::new(DEADLINE);
    for lap in 0..200_000_u32 {
        ledger.media(lap as u16, start, 1, Via::Primary);
    }
    let counted = ledger.counters();
    assert_eq!((counted.expected, counted.received, counted.missing), (200_000, 200_000, 0));
    // An outage of 10,000 packets: longer than the window.
    let last = 200_000_u32 as u16;
    ledger.media(last.wrapping_add(10_000), start, 1, Via::Primary);
    let counted = ledger.counters();
    assert_eq!((counted.missing, counted.expected), (10_000, 210_001));
    assert_eq!(counted.pending, 2_047, "the rest can't be told any more");
}

#[test]
fn a_reordered_beginning_belongs_to_the_stream() {
    let start = Instant::now();
    let mut ledger = SequenceLedger::new(DEADLINE);
    for sequence in [3_u16, 1, 65_535, 4] {
        ledger.media(sequence, start, 1, Via::Primary);
    }
    let counted = ledger.counters();
    assert_eq!((counted.expected, counted.received, counted.missing), (6, 4, 4));
    assert_eq!((counted.repaired, counted.pending), (2, 2));
    assert_eq!(ledger.open_floor(), Some(1 << 16));
}

#[test]
fn counting_restarts_and_what_was_before_stays_out() {
    let start = Instant::now();
    let mut ledger = SequenceLedger::new(DEADLINE);
    for sequence in [10_u16, 11, 15] {
        ledger.media(sequence, start, 1, Via::Primary);
    }
    ledger.restart_counting();
    assert_eq!(ledger.counters(), PacketCounters::default());
    let open = ledger.highest().unwrap() - 3;
    assert!(ledger.is_open(open), "still asked for");
    assert!(ledger.media(12, start + DEADLINE, 1, Via::Rtx).usable, "for its frame");
    assert!(!ledger.is_open(open));
    ledger.media(17, start, 1, Via::Primary);
    assert!(ledger.padding(13, start).usable);
    let counted = ledger.counters();
    assert_eq!((counted.expected, counted.received, counted.missing), (2, 1, 1));
    assert_eq!((counted.bytes, counted.rtx_repairs, counted.repaired), (1, 0, 0));
    assert_eq!((counted.stale, counted.pending), (2, 1));
    // After its deadline it is of no use any more, expired or not.
    assert!(!ledger.media(14, start + DEADLINE * 2, 1, Via::Rtx).usable);
    ledger.expire_gaps(start + DEADLINE * 3);
    let counted = ledger.counters();
    assert_eq!((counted.stale, counted.pending, counted.unrecovered), (3, 0, 1));
}

#[test]
fn gaps_of_before_the_window_leave_it_without_a_count() {
    let start = Instant::now();
    let mut ledger = SequenceLedger::new(DEADLINE);
    for sequence in [1_u16, 100] {
        ledger.media(sequence, start, 1, Via::Primary);
    }
    ledger.restart_counting();
    // Two windows on: by parts, then by runs.
    for sequence in (101..6_000_u16).filter(|sequence| sequence % 5 > 0) {
        ledger.media(sequence, start, 1, Via::Primary);
        let counted = ledger.counters();
        assert_eq!(counted.missing, counted.pending + counted.unrecovered);
        assert_eq!(counted.expected, counted.received + counted.missing);
    }
    assert_eq!(ledger.counters().missing, 1_179);
}

#[test]
fn what_might_still_have_come_is_cut_off_not_lost() {
    let start = Instant::now();
    let mut ledger = SequenceLedger::new(DEADLINE);
    ledger.media(1, start, 1, Via::Primary);
    ledger.media(4, start, 1, Via::Primary);
    let later = start + DEADLINE / 2;
    ledger.media(8, later, 1, Via::Primary);
    ledger.media(6, later, 1, Via::Rtx);
    ledger.finish(start + DEADLINE + Duration::from_millis(1));
    let counted = ledger.counters();
    assert_eq!((counted.missing, counted.repaired, counted.unrecovered), (3, 1, 2));
    assert_eq!((counted.expected, counted.received, counted.pending), (6, 4, 0));
    assert_eq!(counted.loss_rate(), Some(2.0 / 6.0));
}

#[test]
fn what_we_were_not_there_for_is_cut_off_unless_it_is_repaired() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut ledger = SequenceLedger::new(Duration::from_millis(500));
    let media = |ledger: &mut SequenceLedger, sequence, ms| {
        ledger.media(sequence, at(ms), 100, Via::Primary);
    };
    media(&mut ledger, 1, 0);
    ledger.away();
    // Five were sent elsewhere; one is repaired in time, one comes late. Later ones are lost.
    media(&mut ledger, 7, 300);
    media(&mut ledger, 3, 400);
    media(&mut ledger, 10, 450);
    ledger.expire_gaps(at(801));
    media(&mut ledger, 4, 810);
    ledger.expire_gaps(at(1_500));
    let counted = ledger.counters();
    assert_eq!((counted.cut_off, counted.missing, counted.repaired), (3, 4, 1));
    assert_eq!((counted.late, counted.unrecovered, counted.pending), (1, 3, 0));
    let PacketCounters { expected, received, missing, repaired, late, .. } = counted;
    assert_eq!((expected, received), (7, 5));
    assert_eq!(expected, received + missing - repaired - late);
    // Late, and not given up yet: it was missing all along.
    ledger.away();
    media(&mut ledger, 14, 1_600);
    media(&mut ledger, 12, 2_110);
    assert_eq!((ledger.counters().cut_off, ledger.counters().late), (3, 2));
    ledger.expire_gaps(at(2_200));
    assert_eq!((ledger.counters().cut_off, ledger.counters().missing), (5, 5));
    // What comes of it then without payload was none of it.
    ledger.padding(13, at(2_300));
    let counted = ledger.counters();
    assert_eq!((counted.cut_off, counted.missing, counted.padding_only), (4, 5, 1));
    let PacketCounters { expected, received, missing, repaired, late, .. } = counted;
    assert_eq!(expected, received + missing - repaired - late);
    // Where nothing was passed over, nothing is put down to it later.
    ledger.away();
    media(&mut ledger, 15, 3_000);
    media(&mut ledger, 17, 3_010);
    ledger.expire_gaps(at(4_000));
    assert_eq!((ledger.counters().cut_off, ledger.counters().missing), (4, 6));
}
