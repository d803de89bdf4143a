//! The frame ledger against a reference that knows the whole story.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use stampede_media::Codec;

use super::{MediaPacket, StreamLedger, Via};
use crate::{Arrival, FrameCounters};

const DEADLINE: Duration = Duration::from_millis(500);

/// One packet of a made-up VP8 stream.
#[derive(Debug, Clone)]
struct Sent {
    frame: usize,
    marker: bool,
    padding: bool,
    payload: Vec<u8>,
}

/// Packets of frames: `shape` gives for each frame its packets and whether padding follows;
/// every tenth is a keyframe. With `layers`, temporal layers 0 2 1 2 as libwebrtc makes them.
fn stream(shape: &[(usize, bool)], layers: bool, picture_id: u16) -> Vec<Sent> {
    let mut sent = Vec::new();
    let mut tl0 = 250_u8;
    for (frame, &(packets, padding)) in shape.iter().enumerate() {
        let keyframe = is_keyframe(frame);
        let (tid, sync) = layer_of(frame, layers);
        tl0 = tl0.wrapping_add(u8::from(tid == 0));
        let id = picture_id.wrapping_add(frame as u16) & 0x7fff;
        for index in 0..packets {
            let start = if index == 0 { 0x90 } else { 0x80 };
            let extension = if layers { 0xe0 } else { 0x80 };
            let mut payload = vec![start, extension, 0x80 | (id >> 8) as u8, id as u8];
            if layers {
                payload.extend([tl0, tid << 6 | u8::from(sync) << 5]);
            }
            payload.extend([if keyframe { 0x10 } else { 0x11 }, 1, 2, 3]);
            sent.push(Sent { frame, marker: index + 1 == packets, padding: false, payload });
        }
        if padding {
            sent.push(Sent { frame, marker: false, padding: true, payload: Vec::new() });
        }
    }
    sent
}

fn is_keyframe(frame: usize) -> bool {
    frame.is_multiple_of(12)
}

/// Temporal layer and whether the frame refers to the base layer only.
fn layer_of(frame: usize, layers: bool) -> (u8, bool) {
    match frame % 4 {
        _ if !layers => (0, false),
        0 => (0, false),
        1 => (2, true),
        2 => (1, true),
        _ => (2, false),
    }
}

/// What the frames are worth, from which packets arrived in time.
fn reference(
    shape: &[(usize, bool)],
    sent: &[Sent],
    in_time: &[bool],
    layers: bool,
) -> FrameCounters {
    let last = (0..sent.len()).rev().find(|&i| in_time[i]).map_or(0, |i| sent[i].frame);
    let mut counted = FrameCounters { decodable: Some(0), dropped: Some(0), ..Default::default() };
    let (mut base, mut upper) = (false, false);
    for frame in 0..=last.min(shape.len() - 1) {
        let mut all = sent.iter().zip(in_time).filter(|(p, _)| p.frame == frame && !p.padding);
        let any = all.clone().any(|(_, &ok)| ok);
        let complete = all.all(|(_, &ok)| ok);
        let (tid, sync) = layer_of(frame, layers);
        let references = match (is_keyframe(frame), tid, sync) {
            (true, ..) => true,
            (_, 0, _) | (_, _, true) => base,
            _ => base && upper,
        };
        let decodable = complete && references;
        counted.received += u64::from(any);
        counted.complete += u64::from(complete);
        counted.keyframes += u64::from(complete && is_keyframe(frame));
        *counted.decodable.get_or_insert(0) += u64::from(decodable);
        *counted.dropped.get_or_insert(0) += u64::from(!decodable);
        match tid {
            0 => {
                base = decodable;
                upper |= decodable && is_keyframe(frame);
                if !layers {
                    upper = decodable;
                }
            }
            _ => upper = decodable && (sync || upper),
        }
    }
    counted
}

/// Feeds packets with the given fates (`None`: lost; otherwise the delay in ms).
fn run(sent: &[Sent], fates: &[Option<u64>], first: u16) -> (StreamLedger, Vec<bool>) {
    let start = Instant::now();
    let mut order: Vec<_> = (0..sent.len())
        .filter_map(|index| Some((index as u64 * 5 + fates[index]?, index)))
        .collect();
    order.sort_unstable();
    let mut ledger = StreamLedger::new(DEADLINE);
    ledger.set_codec(Codec::Vp8);
    let mut in_time = vec![false; sent.len()];
    for (at_ms, index) in order {
        let packet = &sent[index];
        let at =
            Arrival { instant: start + Duration::from_millis(at_ms), unix_ns: at_ms * 1_000_000 };
        ledger.expire_gaps(at.instant);
        let sequence = first.wrapping_add(index as u16);
        if packet.padding {
            ledger.padding(sequence, at);
            continue;
        }
        let receipt = ledger.media(MediaPacket {
            sequence,
            timestamp: (packet.frame as u32 * 3_000).wrapping_sub(30_000),
            marker: packet.marker,
            payload: Some(&packet.payload),
            dependency_descriptor: None,
            payload_bytes: packet.payload.len(),
            at,
            via: Via::Primary,
        });
        in_time[index] = receipt.usable;
    }
    // Long after: nothing is cut off.
    ledger.finish(start + Duration::from_secs(3_600), start + Duration::from_secs(3_600));
    (ledger, in_time)
}

proptest! {
    #[test]
    fn equals_the_reference(
        shape in prop::collection::vec((1..6_usize, prop::bool::weighted(0.1)), 20..80),
        fates in prop::collection::vec((0..1_000_u32, 0..900_u64), 500),
        loss in 0..100_u32,
        layers in any::<bool>(),
        picture_id in any::<u16>(),
        first in any::<u16>(),
    ) {
        let mut shape = shape;
        // What follows the last frame is unknown: a frame that surely arrives ends the story.
        shape.push((1, false));
        let sent = stream(&shape, layers, picture_id);
        let edge = shape[0].0;
        let fates: Vec<_> = (0..sent.len())
            .map(|index| {
                let (fate, delay) = fates[index % fates.len()];
                // The first frame comes in order, the last one comes.
                let fixed = index <= edge || sent[index].frame + 1 == shape.len();
                match fate {
                    _ if fixed => Some(0),
                    fate if fate < loss && !sent[index].padding => None,
                    fate if fate > 950 => Some(delay),
                    _ => Some(0),
                }
            })
            .collect();
        let (ledger, in_time) = run(&sent, &fates, first);
        prop_assert_eq!(ledger.frames(), reference(&shape, &sent, &in_time, layers));
    }

    #[test]
    fn nonsense_never_panics_and_stays_small(
        packets in prop::collection::vec(
            (0..4_000_u16, 0..50_u32, any::<bool>(), prop::collection::vec(any::<u8>(), 0..12)),
            0..2_000,
        ),
        codec in prop_oneof![
            Just(Codec::Vp8),
            Just(Codec::Vp9),
            Just(Codec::H264),
            Just(Codec::Av1),
            Just(Codec::Opus),
        ],
    ) {
        let start = Instant::now();
        let mut ledger = StreamLedger::new(DEADLINE);
        ledger.set_codec(codec);
        for (index, (sequence, frame, marker, payload)) in packets.iter().enumerate() {
            let at = Arrival {
                instant: start + Duration::from_millis(index as u64),
                unix_ns: index as u64,
            };
            ledger.media(MediaPacket {
                sequence: *sequence,
                timestamp: *frame,
                marker: *marker,
                payload: Some(payload),
                dependency_descriptor: Some(payload),
                payload_bytes: payload.len(),
                at,
                via: Via::Primary,
            });
            ledger.expire_gaps(at.instant);
        }
        ledger.finish(start, start);
        let frames = ledger.frames();
        prop_assert!(frames.complete <= frames.received);
        prop_assert!(frames.decodable.is_none_or(|decodable| decodable <= frames.complete));
        prop_assert!(ledger.bytes() < 64 << 10);
    }
}

#[test]
fn a_healthy_stream_is_small() {
    let shape = vec![(5, false); 3_000];
    let sent = stream(&shape, false, 0);
    let fates = vec![Some(0); sent.len()];
    let (ledger, _) = run(&sent, &fates, 0);
    assert_eq!(ledger.frames().decodable, Some(3_000));
    assert!(ledger.bytes() < 2_560, "{} bytes", ledger.bytes());
}

/// An alternate reference frame is there for others, and nobody sees it: it is none of the frames a second
/// and ends no freeze. Others depend on it all the same.
#[test]
fn hidden_frames_are_followed_and_not_counted() {
    // Frames of two packets: a keyframe, hidden, shown, hidden, shown, hidden, shown, shown.
    let hidden = [1, 3, 5];
    let mut sent = stream(&[(2, false); 8], false, 0x7ffc);
    for packet in sent.iter_mut().filter(|packet| hidden.contains(&packet.frame)) {
        packet.payload[4] &= !0x10;
    }
    let counted = |lost: &[usize]| {
        let fate = |index: usize| (!lost.contains(&index)).then_some(0);
        let fates: Vec<_> = (0..sent.len()).map(fate).collect();
        run(&sent, &fates, 65_530).0.frames()
    };
    let counters = |received, complete, decodable, dropped| FrameCounters {
        received,
        complete,
        decodable: Some(decodable),
        dropped: Some(dropped),
        keyframes: 1,
    };
    assert_eq!(counted(&[]), counters(5, 5, 5, 0));
    // Half of the second hidden one is lost, and with it what refers to it.
    assert_eq!(counted(&[7]), counters(5, 5, 2, 3));
    // Of one that is lost whole nobody knows what it was.
    assert_eq!(counted(&[6, 7]), counters(5, 5, 2, 4));
}

/// VP9's are in superframes with one that is shown, which count.
#[test]
fn of_vp9_superframes_count_and_what_is_hidden_alone_does_not() {
    let start = Instant::now();
    let mut ledger = StreamLedger::new(DEADLINE);
    ledger.set_codec(Codec::Vp9);
    let shown = [0x86, 0, 1, 2];
    let superframe = [0x84, 1, 2, 0x86, 3, 0xc9, 3, 0, 2, 0, 0xc9];
    let frames: [&[u8]; 5] = [&[0x82, 0, 0, 0], &superframe, &[0x84, 9, 9, 9], &shown, &shown];
    for (index, frame) in frames.into_iter().enumerate() {
        let at = start + Duration::from_millis(index as u64 * 40);
        let at = Arrival { instant: at, unix_ns: index as u64 * 40_000_000 };
        let predicted = if index == 0 { 0 } else { 0x40 };
        let half = frame.len() / 2;
        for (part, data) in [&frame[..half], &frame[half..]].into_iter().enumerate() {
            let ends = if part == 0 { 0x08 } else { 0x04 };
            let head = [0xa1 | predicted | ends, 0x80, index as u8, 0, index as u8];
            let payload = [&head[..], data].concat();
            ledger.media(MediaPacket {
                sequence: (index * 2 + part) as u16,
                timestamp: index as u32 * 3_600,
                marker: part == 1,
                payload: Some(&payload),
                dependency_descriptor: None,
                payload_bytes: payload.len(),
                at,
                via: Via::Primary,
            });
        }
    }
    let frames = ledger.frames();
    assert_eq!((frames.received, frames.decodable, frames.dropped), (4, Some(4), Some(0)));
}
