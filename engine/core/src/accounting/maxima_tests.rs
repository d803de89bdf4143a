//! What the ledgers of a stream do at their maxima.

use std::time::{Duration, Instant};

use stampede_media::Codec;

use super::sequence::{OURS_MAX, RED_REPAIRS_MAX};
use super::stream::KEPT_FRAMES_MAX;
use super::*;
use crate::{Arrival, PacketCounters};

const DEADLINE: Duration = Duration::from_millis(500);

/// A packet of a frame of VP8 without layers.
fn payload(frame: u32, starts: bool) -> [u8; 8] {
    let [first, keyframe] =
        [if starts { 0x90 } else { 0x80 }, if frame == 0 { 0x10 } else { 0x11 }];
    [first, 0x80, 0x80 | (frame >> 8) as u8 & 0x7f, frame as u8, keyframe, 1, 2, 3]
}

fn arrival() -> Arrival {
    Arrival { instant: Instant::now(), unix_ns: 0 }
}

/// The frames of a stream of which packet 1, all of frame 1, is missing.
struct Frames {
    ledger: FrameLedger,
    at: Arrival,
}

impl Frames {
    fn new() -> Self {
        let mut frames = Self { ledger: FrameLedger::new(Codec::Vp8), at: arrival() };
        frames.push(0, 0, true, true);
        frames
    }

    fn push(&mut self, sequence: u64, frame: u32, starts: bool, marker: bool) {
        self.ledger.push(FramePacket {
            sequence,
            timestamp: 3_000 * frame,
            marker,
            payload: Some(&payload(frame, starts)),
            dependency_descriptor: None,
            at: self.at,
        });
        self.judge(1);
    }

    fn judge(&mut self, floor: u64) {
        while self.ledger.judge(floor).is_some() {}
    }

    fn received(&self) -> u64 {
        self.ledger.counters().received
    }
}

#[test]
fn frames_behind_a_gap_are_judged_when_too_many_are_open() {
    let mut frames = Frames::new();
    for frame in 2..OPEN_FRAMES_MAX as u32 + 1 {
        frames.push(frame.into(), frame, true, true);
        assert_eq!(frames.received(), 1, "frame {frame} waits for the gap");
    }
    for frame in OPEN_FRAMES_MAX as u32 + 1..2 * OPEN_FRAMES_MAX as u32 {
        frames.push(frame.into(), frame, true, true);
        assert_eq!(frames.received(), u64::from(frame) + 1 - OPEN_FRAMES_MAX as u64);
    }
    assert_eq!(frames.ledger.counters().complete, frames.received());
}

#[test]
fn padding_beyond_what_is_remembered_makes_a_frame_incomplete() {
    let complete = |padding: usize| {
        let (mut frames, last) = (Frames::new(), 3 + padding as u64);
        frames.push(2, 2, true, false);
        (3..last).for_each(|sequence| frames.ledger.skip(sequence));
        frames.push(last, 2, false, true);
        frames.judge(u64::MAX);
        assert_eq!(frames.received(), 2);
        frames.ledger.counters().complete
    };
    assert_eq!((complete(SKIPS_MAX), complete(SKIPS_MAX + 1)), (2, 1));
}

#[test]
fn frames_that_nobody_asks_for_are_kept_so_many() {
    let (mut ledger, at) = (StreamLedger::new(DEADLINE), arrival());
    ledger.set_codec(Codec::Vp8);
    ledger.keep_frames();
    for frame in 0..KEPT_FRAMES_MAX as u32 + 3 {
        ledger.media(MediaPacket {
            sequence: frame as u16,
            timestamp: 3_000 * frame,
            marker: true,
            payload: Some(&payload(frame, true)),
            dependency_descriptor: None,
            payload_bytes: 8,
            at,
            via: Via::Primary,
        });
    }
    let kept: Vec<_> = std::iter::from_fn(|| ledger.next_kept()).collect();
    assert_eq!((kept.len(), kept[0].timestamp), (KEPT_FRAMES_MAX, 3 * 3_000));
    assert_eq!(ledger.frames().received, KEPT_FRAMES_MAX as u64 + 3, "all are counted");
}

#[test]
fn beyond_the_gaps_that_are_waited_for_the_oldest_is_given_up() {
    let (mut ledger, at) = (SequenceLedger::new(DEADLINE), Instant::now());
    let media = |ledger: &mut SequenceLedger, sequence: usize| {
        ledger.media(sequence as u16, at, 10, Via::Primary)
    };
    for even in 0..=GAPS_MAX {
        media(&mut ledger, 2 * even);
    }
    let PacketCounters { pending, unrecovered, .. } = ledger.counters();
    assert_eq!((pending, unrecovered), (GAPS_MAX as u64, 0));
    media(&mut ledger, 2 * GAPS_MAX + 2);
    let PacketCounters { pending, unrecovered, .. } = ledger.counters();
    assert_eq!((pending, unrecovered), (GAPS_MAX as u64, 1));
    assert!(!media(&mut ledger, 1).usable && media(&mut ledger, 3).usable);
    let PacketCounters { late, repaired, .. } = ledger.counters();
    assert_eq!((late, repaired), (1, 1));
}

#[test]
fn what_is_behind_the_window_is_stale() {
    let (mut ledger, at) = (SequenceLedger::new(DEADLINE), Instant::now());
    let window = WINDOW_PACKETS as u16;
    for sequence in [0, 2, window] {
        ledger.media(sequence, at, 10, Via::Primary);
    }
    assert_eq!(ledger.placement(1), Placement::Missing);
    ledger.media(window + 1, at, 10, Via::Primary);
    assert!(!ledger.media(1, at, 10, Via::Primary).usable);
    let PacketCounters { stale, unrecovered, pending, missing, .. } = ledger.counters();
    assert_eq!((stale, unrecovered), (1, 1));
    assert_eq!(pending + unrecovered, missing);
}

#[test]
fn repairs_by_redundancy_are_remembered_so_many() {
    let (mut ledger, at) = (SequenceLedger::new(DEADLINE), Instant::now());
    ledger.media(0, at, 10, Via::Primary);
    let repaired = RED_REPAIRS_MAX as u16 + 1;
    for sequence in 1..=repaired {
        assert!(ledger.redundant(sequence, at).is_some());
    }
    let counted = |ledger: &SequenceLedger| {
        let PacketCounters { repaired_by_red, repaired, duplicate, .. } = ledger.counters();
        [repaired_by_red, repaired, duplicate]
    };
    assert_eq!(counted(&ledger), [repaired.into(), 0, 0]);
    ledger.media(1, at, 10, Via::Primary);
    assert_eq!(counted(&ledger), [repaired.into(), 0, 1], "the oldest is forgotten");
    ledger.media(2, at, 10, Via::Primary);
    assert_eq!(counted(&ledger), [u64::from(repaired) - 1, 1, 1]);
}

#[test]
fn gaps_of_our_own_are_remembered_so_many() {
    let (mut ledger, at) = (SequenceLedger::new(DEADLINE), Instant::now());
    ledger.media(0, at, 10, Via::Primary);
    let gaps = OURS_MAX as u16 + 1;
    for gap in 1..=gaps {
        ledger.away();
        ledger.media(2 * gap, at, 10, Via::Primary);
    }
    let later = at + 2 * DEADLINE;
    ledger.expire_gaps(later);
    let counted = |ledger: &SequenceLedger| {
        let PacketCounters { cut_off, missing, late, .. } = ledger.counters();
        [cut_off, missing, late]
    };
    assert_eq!(counted(&ledger), [gaps.into(), 0, 0]);
    ledger.media(1, later, 10, Via::Primary);
    assert_eq!(counted(&ledger), [gaps.into(), 0, 1], "the oldest is forgotten");
    ledger.media(3, later, 10, Via::Primary);
    assert_eq!(counted(&ledger), [u64::from(gaps) - 1, 1, 2]);
}
