//! What the frame assembler does at each of its edges.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use stampede_media::assembler::{PAYLOAD_BYTES_MAX, READY_FRAMES_MAX, WINDOW_PACKETS_MAX};
use stampede_media::{
    AssembledFrame, AssemblerCounters, AssemblerPacket, Codec, FrameAssembler, UnsupportedCodec,
};

const START: &[u8] = &[0x10, 0x01, 0xaa];
const KEY: &[u8] = &[0x10, 0x00, 0xaa];
const MORE: &[u8] = &[0x00, 0xbb];

fn vp8() -> FrameAssembler {
    FrameAssembler::new(Codec::Vp8).unwrap()
}

fn push(
    assembler: &mut FrameAssembler,
    sequence: u64,
    timestamp: u32,
    marker: bool,
    payload: &[u8],
) -> Vec<AssembledFrame> {
    assembler.push(AssemblerPacket { sequence, timestamp, marker, payload });
    poll(assembler)
}

fn poll(assembler: &mut FrameAssembler) -> Vec<AssembledFrame> {
    std::iter::from_fn(|| assembler.poll()).collect()
}

fn sequences(frames: &[AssembledFrame]) -> Vec<(u64, u64)> {
    frames.iter().map(|frame| (frame.first_sequence, frame.last_sequence)).collect()
}

#[test]
fn codecs_without_assembly_are_refused() {
    for codec in [Codec::Vp9, Codec::Av1] {
        assert_eq!(FrameAssembler::new(codec).unwrap_err(), UnsupportedCodec(codec));
    }
}

/// Parameter sets and slices of a picture both look like a beginning, and only the timestamp tells.
#[test]
fn pictures_of_nal_units_are_put_together() {
    const SETS: &[u8] = &[0x60, 1, 0, 3, 0x40, 1, 9, 0, 3, 0x42, 1, 9, 0, 3, 0x44, 1, 9];
    const BEGUN: &[u8] = &[0x62, 1, 0x93, 0x80];
    const ENDED: &[u8] = &[0x62, 1, 0x53, 0x81];
    let mut assembler = FrameAssembler::new(Codec::H265).unwrap();
    assert!(push(&mut assembler, 1, 0, false, SETS).is_empty());
    assert!(push(&mut assembler, 3, 0, true, ENDED).is_empty());
    let frames = push(&mut assembler, 2, 0, false, BEGUN);
    assert_eq!(sequences(&frames), [(1, 3)]);
    assert!(frames[0].keyframe && !frames[0].after_gap);
    let sets = [0, 0, 0, 1, 0x40, 1, 9, 0, 0, 0, 1, 0x42, 1, 9, 0, 0, 0, 1, 0x44, 1, 9];
    let slice = [0, 0, 0, 1, 0x26, 1, 0x80, 0x81];
    assert_eq!(frames[0].data[..], [&sets[..], &slice].concat());
    let frames = push(&mut assembler, 4, 1, true, &[0x02, 1, 0x80]);
    assert!(!frames[0].keyframe && frames[0].data[..] == [0, 0, 0, 1, 0x02, 1, 0x80]);
    // Its parameter sets are lost: who begins there has nothing.
    push(&mut assembler, 6, 2, false, BEGUN);
    push(&mut assembler, 7, 2, true, ENDED);
    assembler.abandon_before(6);
    assert!(poll(&mut assembler).is_empty());
    let frames = push(&mut assembler, 8, 3, true, &[0x02, 1, 0x80]);
    assert!(frames[0].after_gap);
    let counted = assembler.counters();
    assert_eq!((counted.frames_complete, counted.frames_incomplete), (3, 1));
    // Of sets in packets of their own the first is lost.
    for (sequence, set) in [(10, [0x42, 1, 9]), (11, [0x44, 1, 9])] {
        push(&mut assembler, sequence, 4, false, &set);
    }
    push(&mut assembler, 12, 4, false, BEGUN);
    push(&mut assembler, 13, 4, true, ENDED);
    assembler.abandon_before(10);
    assert!(poll(&mut assembler).is_empty());
    assert_eq!(assembler.counters().frames_incomplete, 2);
    push(&mut assembler, 14, 5, true, &[0x60, 1, 0, 9, 1]);
    assert_eq!(assembler.counters().packets_malformed, 1);
}

#[test]
fn frames_end_with_the_marker() {
    let mut assembler = vp8();
    assert!(push(&mut assembler, 10, 0, false, KEY).is_empty());
    assert_eq!(assembler.packets_waiting(), 1);
    let frames = push(&mut assembler, 11, 0, true, MORE);
    assert_eq!(sequences(&frames), [(10, 11)]);
    assert_eq!(&frames[0].data[..], [0x00, 0xaa, 0xbb]);
    assert!(frames[0].keyframe && frames[0].packets == 2 && !frames[0].after_gap);
    assert_eq!(assembler.next_sequence(), Some(12));
}

#[test]
fn a_frame_without_marker_ends_where_the_next_begins() {
    let mut assembler = vp8();
    push(&mut assembler, 0, 0, false, START);
    push(&mut assembler, 1, 0, false, MORE);
    assert!(push(&mut assembler, 3, 3_000, false, MORE).is_empty());
    assert_eq!(sequences(&push(&mut assembler, 2, 3_000, false, START)), [(0, 1)]);
    assert_eq!(sequences(&push(&mut assembler, 4, 6_000, true, START)), [(2, 3), (4, 4)]);
}

#[test]
fn joining_in_the_middle_of_a_frame_is_not_a_loss() {
    let mut assembler = vp8();
    assert!(push(&mut assembler, 5, 0, false, MORE).is_empty());
    assert!(push(&mut assembler, 6, 0, true, MORE).is_empty());
    assert_eq!(sequences(&push(&mut assembler, 7, 3_000, true, KEY)), [(7, 7)]);
    let expected = AssemblerCounters {
        frames_complete: 1,
        frames_cut_at_start: 1,
        packets: 3,
        ..AssemblerCounters::default()
    };
    assert_eq!(*assembler.counters(), expected);
}

#[test]
fn the_deadline_may_come_before_the_first_whole_frame() {
    let mut assembler = vp8();
    push(&mut assembler, 5, 0, false, MORE);
    assembler.abandon_before(6);
    assert_eq!(assembler.counters().frames_cut_at_start, 1);
    assert_eq!(assembler.counters().frames_incomplete, 0);
}

#[test]
fn the_first_packet_may_be_overtaken() {
    let mut assembler = vp8();
    assert!(push(&mut assembler, 11, 0, true, MORE).is_empty());
    assert_eq!(sequences(&push(&mut assembler, 10, 0, false, KEY)), [(10, 11)]);
    assert!(push(&mut assembler, 9, 0, true, KEY).is_empty());
    assert_eq!(assembler.counters().packets_late, 1);
}

#[test]
fn a_frame_put_before_an_open_one_is_looked_at_from_its_start() {
    let mut assembler = vp8();
    push(&mut assembler, 10, 3_000, false, START);
    push(&mut assembler, 11, 3_000, false, MORE);
    // 9 is still missing: nothing may come out, whatever was known about 10 and 11.
    assert!(push(&mut assembler, 8, 0, false, KEY).is_empty());
    assert_eq!(sequences(&push(&mut assembler, 9, 0, true, MORE)), [(8, 9)]);
    assert_eq!(sequences(&push(&mut assembler, 12, 3_000, true, MORE)), [(10, 12)]);
}

#[test]
fn what_it_waits_for_lies_before_what_is_behind_it() {
    let mut assembler = vp8();
    assert!(!assembler.waits_before(9));
    push(&mut assembler, 1, 0, false, START);
    push(&mut assembler, 2, 0, false, MORE);
    assert!(!assembler.waits_before(9), "an open frame is no gap");
    push(&mut assembler, 4, 0, true, MORE);
    assert_eq!([3, 4, 9].map(|floor| assembler.waits_before(floor)), [false, true, true]);
    assembler.abandon_before(5);
    assert!(!assembler.waits_before(9));
}

#[test]
fn padding_is_neither_waited_for_nor_lost() {
    let mut assembler = vp8();
    push(&mut assembler, 0, 0, false, KEY);
    // In the middle of a frame, and between frames; an empty payload is the same.
    assembler.skip(1);
    assert_eq!(sequences(&push(&mut assembler, 2, 0, true, MORE)), [(0, 2)]);
    assembler.skip(3);
    push(&mut assembler, 4, 0, false, &[]);
    let frames = push(&mut assembler, 5, 3_000, true, START);
    assert!(sequences(&frames) == [(5, 5)] && !frames[0].after_gap);
    assert_eq!(assembler.counters().packets_skipped, 3);
}

#[test]
fn padding_before_the_first_packet_is_fine() {
    let mut assembler = vp8();
    assembler.skip(9);
    assert_eq!(sequences(&push(&mut assembler, 8, 0, true, KEY)), [(8, 8)]);
    assert_eq!(sequences(&push(&mut assembler, 10, 3_000, true, START)), [(10, 10)]);
}

#[test]
fn an_abandoned_packet_costs_its_frame_and_marks_the_next() {
    let mut assembler = vp8();
    push(&mut assembler, 0, 0, true, KEY);
    push(&mut assembler, 1, 3_000, false, START);
    // 2 is lost.
    push(&mut assembler, 3, 3_000, true, MORE);
    assert!(push(&mut assembler, 4, 6_000, true, START).is_empty());
    assembler.abandon_before(2);
    assert!(poll(&mut assembler).is_empty());
    assembler.abandon_before(3);
    let frames = poll(&mut assembler);
    assert!(sequences(&frames) == [(4, 4)] && frames[0].after_gap);
    assert!(push(&mut assembler, 2, 3_000, false, MORE).is_empty());
    let expected = AssemblerCounters {
        frames_complete: 2,
        frames_incomplete: 1,
        packets: 4,
        packets_abandoned: 1,
        packets_late: 1,
        ..AssemblerCounters::default()
    };
    assert_eq!(*assembler.counters(), expected);
}

#[test]
fn frames_lost_whole_are_abandoned_packets_only() {
    let mut assembler = vp8();
    push(&mut assembler, 0, 0, true, KEY);
    push(&mut assembler, 8, 9_000, true, START);
    assembler.abandon_before(8);
    assert_eq!(sequences(&poll(&mut assembler)), [(8, 8)]);
    assert_eq!(assembler.counters().packets_abandoned, 7);
    assert_eq!(assembler.counters().frames_incomplete, 0);
}

#[test]
fn abandoning_past_the_newest_packet_moves_on() {
    let mut assembler = vp8();
    push(&mut assembler, 0, 0, false, KEY);
    assembler.abandon_before(1_000_000);
    assert_eq!(assembler.next_sequence(), Some(1_000_000));
    assert_eq!(assembler.counters().packets_abandoned, 999_999);
    assert_eq!(assembler.counters().frames_incomplete, 1);
    assert_eq!(sequences(&push(&mut assembler, 1_000_000, 9, true, KEY)), [(1_000_000, 1_000_000)]);
    assembler.abandon_before(5);
    assert_eq!(assembler.next_sequence(), Some(1_000_001));
}

#[test]
fn the_window_abandons_the_oldest_gap() {
    let mut assembler = vp8();
    push(&mut assembler, 0, 0, true, KEY);
    // 1 never comes; everything behind it waits, up to the window.
    let window = WINDOW_PACKETS_MAX as u64;
    for sequence in 2..=window {
        let frames = push(&mut assembler, sequence, sequence as u32, true, START);
        assert!(frames.is_empty());
    }
    let frames = push(&mut assembler, window + 1, 5_000, true, START);
    assert_eq!(frames.len() as u64, window);
    assert_eq!(assembler.counters().packets_abandoned, 1);
    // And a jump far ahead gives up on everything in between.
    let far = 1 << 40;
    assert_eq!(sequences(&push(&mut assembler, far, 0, true, START)), []);
    assembler.abandon_before(far);
    assert_eq!(sequences(&poll(&mut assembler)), [(far, far)]);
}

#[test]
fn a_frame_without_end_does_not_fill_the_memory() {
    let mut assembler = vp8();
    push(&mut assembler, 0, 7, false, START);
    for sequence in 1..3 * WINDOW_PACKETS_MAX as u64 {
        assert!(push(&mut assembler, sequence, 7, false, MORE).is_empty());
        assert!(assembler.packets_waiting() <= WINDOW_PACKETS_MAX);
    }
    assert_eq!(assembler.counters().frames_incomplete, 1);
    let end = 3 * WINDOW_PACKETS_MAX as u64;
    assert_eq!(sequences(&push(&mut assembler, end, 8, true, START)), [(end, end)]);
}

#[test]
fn unreadable_payloads_are_lost_packets() {
    let mut assembler = vp8();
    assembler.start_at(0);
    push(&mut assembler, 0, 0, true, &[0x90]);
    push(&mut assembler, 1, 0, true, &vec![0x10; PAYLOAD_BYTES_MAX + 1]);
    let frames = push(&mut assembler, 2, 0, true, KEY);
    assert!(frames.len() == 1 && frames[0].after_gap);
    assert_eq!(assembler.counters().packets_malformed, 2);
}

#[test]
fn timestamps_are_extended_both_ways() {
    let mut assembler = vp8();
    let stamps = [u32::MAX - 10, 20, 5, 0x8000_0000, 0x7fff_ffff, 3];
    let extended: Vec<u64> = stamps
        .iter()
        .enumerate()
        .flat_map(|(at, stamp)| push(&mut assembler, at as u64, *stamp, true, KEY))
        .map(|frame| frame.timestamp)
        .collect();
    let wrap = 1u64 << 32;
    let high = 2 * wrap + 0x8000_0000;
    assert_eq!(
        extended,
        [2 * wrap - 11, 2 * wrap + 20, 2 * wrap + 5, high, high - 1, 2 * wrap + 3]
    );
    assert!(extended.iter().zip(stamps).all(|(long, short)| *long as u32 == short));
}

#[test]
fn opus_packets_are_frames() {
    let mut assembler = FrameAssembler::new(Codec::Opus).unwrap();
    assert_eq!(push(&mut assembler, 0, 0, true, &[1]).len(), 1);
    assert!(push(&mut assembler, 2, 1_920, false, &[3]).is_empty());
    let frames = push(&mut assembler, 1, 960, false, &[2]);
    assert_eq!(sequences(&frames), [(1, 1), (2, 2)]);
    assert!(frames.iter().all(|frame| frame.keyframe && frame.picture_id.is_none()));
    push(&mut assembler, 9, 960, false, &[2]);
    assembler.finish();
    assert_eq!(sequences(&poll(&mut assembler)), [(9, 9)]);
    assert_eq!(assembler.counters().packets_abandoned, 6);
}

#[test]
fn frames_nobody_polls_are_bounded_and_counted() {
    let mut assembler = FrameAssembler::new(Codec::Opus).unwrap();
    for sequence in 0..READY_FRAMES_MAX as u64 + 5 {
        assembler.push(AssemblerPacket { sequence, timestamp: 0, marker: false, payload: &[1] });
    }
    let frames = poll(&mut assembler);
    assert_eq!((frames.len(), frames[0].first_sequence), (READY_FRAMES_MAX, 5));
    assert_eq!(assembler.counters().frames_not_polled, 5);
}

#[test]
fn the_end_closes_an_open_frame() {
    let mut assembler = vp8();
    push(&mut assembler, 0, 0, false, KEY);
    assembler.finish();
    assert!(poll(&mut assembler).is_empty());
    assert_eq!(assembler.counters().frames_incomplete, 1);
    assert_eq!(assembler.packets_waiting(), 0);
    vp8().finish();
}
