//! References of made-up streams against references that know the whole story.

use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use stampede_media::dependency_descriptor::{
    Dependencies, Descriptor, Mandatory, Structure, Template,
};
use stampede_media::{Codec, ScalabilityMode, builtin, packetize};

use super::{Cadence, Gap, Window};
use crate::accounting::{MediaPacket, StreamLedger, Via};
use crate::{Arrival, FrameCounters};

/// A packet of a made-up stream.
#[derive(Debug, Clone)]
struct Sent {
    frame: usize,
    marker: bool,
    payload: Vec<u8>,
    descriptor: Option<Vec<u8>>,
}

/// What a frame is, for the reference.
#[derive(Debug, Clone, Default)]
struct Story {
    keyframe: bool,
    /// Frames it refers to, by index.
    refers_to: Vec<usize>,
}

/// Frame interval in ticks; constant, so that missing frames of H.264 and AV1 can be counted.
const STEP: u32 = 3_600;

/// Runs the packets that `lost` leaves and returns the counts. What comes first and last arrives.
fn run(codec: Codec, sent: &[Sent], lost: &[bool]) -> FrameCounters {
    let start = Instant::now();
    let mut ledger = StreamLedger::new(Duration::from_millis(500));
    ledger.set_codec(codec);
    for (index, packet) in sent.iter().enumerate().filter(|(index, _)| !lost[*index]) {
        let instant = start + Duration::from_millis(index as u64 * 5);
        ledger.expire_gaps(instant);
        ledger.media(MediaPacket {
            sequence: (index as u16).wrapping_add(65_000),
            timestamp: (packet.frame as u32 * STEP).wrapping_sub(90_000),
            marker: packet.marker,
            payload: Some(&packet.payload),
            dependency_descriptor: packet.descriptor.as_deref(),
            payload_bytes: packet.payload.len(),
            at: Arrival { instant, unix_ns: index as u64 },
            via: Via::Primary,
        });
    }
    // Long after: nothing is cut off.
    let end = start + Duration::from_secs(3_600);
    ledger.finish(end, end);
    ledger.frames()
}

/// The same counts from the story.
fn reference(stories: &[Story], sent: &[Sent], lost: &[bool]) -> FrameCounters {
    let mut counted = FrameCounters { decodable: Some(0), dropped: Some(0), ..Default::default() };
    let mut decodable = vec![false; stories.len()];
    for (frame, story) in stories.iter().enumerate() {
        let own = |(packet, _): &(&Sent, &bool)| packet.frame == frame;
        let mut packets = sent.iter().zip(lost).filter(own);
        let any = packets.clone().any(|(_, &lost)| !lost);
        let complete = packets.all(|(_, &lost)| !lost);
        decodable[frame] =
            complete && (story.keyframe || story.refers_to.iter().all(|&other| decodable[other]));
        counted.received += u64::from(any);
        counted.complete += u64::from(complete);
        counted.keyframes += u64::from(complete && story.keyframe);
        let sum = if decodable[frame] { &mut counted.decodable } else { &mut counted.dropped };
        *sum.get_or_insert(0) += 1;
    }
    counted
}

/// Which packets are lost: none of the first `whole` frames, none of the last.
fn losses(sent: &[Sent], frames: usize, whole: usize, fates: &[u32], per_mille: u32) -> Vec<bool> {
    let lost = |(index, packet): (usize, &Sent)| {
        let fixed = packet.frame < whole || packet.frame + 1 == frames;
        !fixed && fates[index % fates.len()] < per_mille
    };
    sent.iter().enumerate().map(lost).collect()
}

fn packets(frame: usize, payloads: Vec<std::sync::Arc<[u8]>>) -> impl Iterator<Item = Sent> {
    let count = payloads.len();
    payloads.into_iter().enumerate().map(move |(index, payload)| {
        let marker = index + 1 == count;
        Sent { frame, marker, payload: payload.to_vec(), descriptor: None }
    })
}

/// IDR pictures every 12, with parameter sets in a packet of their own; some pictures that nothing
/// refers to.
fn h264(shape: &[(usize, bool)]) -> (Vec<Story>, Vec<Sent>) {
    let (mut stories, mut sent) = (Vec::new(), Vec::new());
    let mut last = 0;
    for (frame, &(size, reference)) in shape.iter().enumerate() {
        let keyframe = frame % 12 == 0;
        let reference = reference || keyframe;
        let header = if keyframe { 0x65 } else { 0x01 | u8::from(reference) << 6 };
        let slice = [vec![header, 0x88], vec![7; size * 1_000]].concat();
        if keyframe {
            let sets = packetize::h264(&[&[0x67, 0x42, 0xe0, 0x1f], &[0x68, 1]]);
            sent.extend(packets(frame, sets).map(|packet| Sent { marker: false, ..packet }));
        }
        sent.extend(packets(frame, packetize::h264(&[&slice])));
        stories.push(Story { keyframe, refers_to: vec![last] });
        if reference {
            last = frame;
        }
    }
    (stories, sent)
}

/// Temporal layers 0, 2, 1, 2, the upper ones of switching pictures; IDR pictures every 12, with
/// parameter sets in a packet of their own. The uppermost are no reference pictures.
fn h265(shape: &[(usize, bool)]) -> (Vec<Story>, Vec<Sent>) {
    let (mut stories, mut sent) = (Vec::new(), Vec::new());
    let (mut base, mut middle) = (0, None);
    for (frame, &(size, _)) in shape.iter().enumerate() {
        let keyframe = frame % 12 == 0;
        let (kind, temporal_id) = match frame % 4 {
            0 if keyframe => (19, 0),
            0 => (1, 0),
            2 => (3, 1),
            _ => (2, 2),
        };
        let refers_to = match temporal_id {
            2 => [Some(base), middle].into_iter().flatten().collect(),
            _ => vec![base],
        };
        stories.push(Story { keyframe, refers_to });
        if keyframe {
            let sets = packetize::h265(&[&[0x40, 1, 1], &[0x42, 1, 1], &[0x44, 1, 1]]);
            sent.extend(packets(frame, sets).map(|packet| Sent { marker: false, ..packet }));
            middle = None;
        }
        let slice = [vec![kind << 1, temporal_id + 1, 0x80], vec![7; size * 1_000]].concat();
        sent.extend(packets(frame, packetize::h265(&[&slice])));
        match temporal_id {
            0 => base = frame,
            1 => middle = Some(frame),
            _ => {}
        }
    }
    (stories, sent)
}

/// VP9 with temporal layers 0 2 1 2, its references named by each picture (flexible), by the
/// picture group of a scalability structure, or by nothing but TL0PICIDX and one layer.
fn vp9(shape: &[(usize, bool)], mode: u8, first_id: u16) -> (Vec<Story>, Vec<Sent>) {
    const TEMPORAL: [u8; 4] = [0, 2, 1, 2];
    const BACK: [u8; 4] = [4, 1, 2, 1];
    let (mut stories, mut sent) = (Vec::new(), Vec::new());
    let mut tl0 = 250_u8;
    for (frame, &(size, _)) in shape.iter().enumerate() {
        let keyframe = frame % 12 == 0;
        let (tid, back) = if mode == 2 { (0, 1) } else { (TEMPORAL[frame % 4], BACK[frame % 4]) };
        tl0 = tl0.wrapping_add(u8::from(tid == 0));
        let id = first_id.wrapping_add(frame as u16) & 0x7fff;
        for index in 0..size {
            let bit = |on: bool, mask: u8| if on { mask } else { 0 };
            let structure = mode == 1 && keyframe && index == 0;
            let flags = 0xa0
                | bit(!keyframe, 0x40)
                | bit(mode == 0, 0x10)
                | bit(index == 0, 0x08)
                | bit(index + 1 == size, 0x04)
                | bit(structure, 0x02);
            let mut payload = vec![flags, 0x80 | (id >> 8) as u8, id as u8, tid << 5 | 0x10];
            match mode {
                0 if !keyframe => payload.push(back << 1),
                0 => {}
                _ => payload.push(tl0),
            }
            if structure {
                let group = TEMPORAL.iter().zip(BACK);
                let group = group.flat_map(|(tid, back)| [tid << 5 | 0x14, back]);
                payload.extend([0x08, 4]);
                payload.extend(group);
            }
            payload.extend([1, 2, 3]);
            let marker = index + 1 == size;
            sent.push(Sent { frame, marker, payload, descriptor: None });
        }
        let refers_to = vec![frame.saturating_sub(usize::from(back))];
        stories.push(Story { keyframe, refers_to });
    }
    (stories, sent)
}

/// AV1 with a dependency descriptor of two spatial and two temporal layers, or of one, or none.
fn av1(shape: &[(usize, bool)], layers: Option<bool>) -> (Vec<Story>, Vec<Sent>) {
    let structure = match layers {
        Some(true) => two_by_two(),
        _ => Structure::single_layer(),
    };
    let (mut stories, mut sent) = (Vec::new(), Vec::new());
    let mut number = 65_530_u16;
    for (frame, &(size, _)) in shape.iter().enumerate() {
        let keyframe = frame % 12 == 0;
        let upper = layers == Some(true) && frame % 2 == 1;
        let spatial = if layers == Some(true) { 2 } else { 1 };
        for layer in 0..spatial {
            for index in 0..size {
                let first = index == 0 && layer == 0;
                let header = match (first && keyframe, index == 0) {
                    (true, _) => 0x18,
                    (_, true) => 0x10,
                    _ => 0x90,
                } | if index + 1 < size { 0x40 } else { 0 };
                // An OBU with extension: spatial id.
                let payload = vec![header, 0x34, layer << 3, 1, 2, 3];
                let template = match (layers, keyframe, upper) {
                    (Some(true), true, _) => layer * 3,
                    (Some(true), _, upper) => layer * 3 + 1 + u8::from(upper),
                    (_, keyframe, _) => u8::from(!keyframe),
                };
                let mandatory = Mandatory {
                    start_of_frame: index == 0,
                    end_of_frame: index + 1 == size,
                    template_id: template,
                    frame_number: number,
                };
                let with = (first && keyframe).then_some(&structure);
                let descriptor = layers.map(|_| Descriptor::write(mandatory, with));
                let marker = layer + 1 == spatial && index + 1 == size;
                sent.push(Sent { frame, marker, payload, descriptor });
            }
            number = number.wrapping_add(1);
        }
        // Odd units refer to the even one before; even ones to the even one before.
        let back = if layers == Some(true) && frame % 2 == 0 { 2 } else { 1 };
        stories.push(Story { keyframe, refers_to: vec![frame.saturating_sub(back)] });
    }
    (stories, sent)
}

/// Templates 0 to 2 of the lower spatial layer (key, T0, T1), 3 to 5 of the upper one. Frame
/// numbers rise by two a unit.
fn two_by_two() -> Structure {
    let template = |spatial_id, temporal_id, diffs: &[u16]| {
        let mut dependencies = Dependencies::default();
        diffs.iter().for_each(|&diff| dependencies.push(diff).unwrap());
        let indications = vec![2; 4];
        Template { spatial_id, temporal_id, indications, dependencies, chain_diffs: Vec::new() }
    };
    Structure {
        decode_targets: 4,
        templates: vec![
            template(0, 0, &[]),
            template(0, 0, &[4]),
            template(0, 1, &[2]),
            template(1, 0, &[1]),
            template(1, 0, &[4, 1]),
            template(1, 1, &[2, 1]),
        ],
        ..Structure::default()
    }
}

/// The built-in clip of three spatial layers as a server forwards it to who wants `spatial` and
/// `temporal`: of pictures that are no key pictures only that spatial layer, for it depends on none
/// below (livekit pkg/sfu/videolayerselector/dependencydescriptor.go).
fn forwarded(codec: Codec, spatial: u8, temporal: u8) -> (Vec<Story>, Vec<Sent>) {
    let clip = builtin::scalable_video(codec, ScalabilityMode::L3T3Key).unwrap().unwrap();
    let layers = clip.scalability.as_ref().unwrap();
    let structure = layers.mode.structure(clip.width, clip.height);
    let (mut stories, mut sent) = (Vec::new(), Vec::<Sent>::new());
    let (mut key, mut frames) = (0, Vec::new());
    for (picture, frame) in clip.frames.iter().enumerate() {
        if frame.keyframe {
            key = picture;
        }
        if layers.mode.temporal_id(picture - key) > temporal {
            continue;
        }
        let number = (picture * 3) as u16;
        for (packet, payload) in frame.packets.iter().enumerate() {
            let value = layers.descriptor(picture, packet, number).unwrap();
            let read = Descriptor::parse(&value, Some(&structure)).unwrap();
            let layer = read.frame.spatial_id;
            if layer == spatial || frame.keyframe && layer < spatial {
                let marker = layer == spatial && read.mandatory.end_of_frame;
                let (payload, descriptor) = (payload.to_vec(), Some(value));
                sent.push(Sent { frame: frames.len(), marker, payload, descriptor });
            }
        }
        let back = [4, 1, 2, 1][(picture - key) % 4];
        let refers_to = frames.iter().position(|&other| other + back == picture);
        let refers_to = refers_to.filter(|_| !frame.keyframe);
        stories.push(Story { keyframe: frame.keyframe, refers_to: Vec::from_iter(refers_to) });
        frames.push(picture);
    }
    (stories, sent)
}

fn shape() -> impl Strategy<Value = Vec<(usize, bool)>> {
    vec((1..5_usize, prop::bool::weighted(0.7)), 40..90)
}

proptest! {
    #[test]
    fn h264_equals_the_reference(
        shape in shape(), fates in vec(0..1_000_u32, 400), loss in 0..60_u32,
    ) {
        let (mut stories, sent) = h264(&shape);
        let lost = losses(&sent, shape.len(), 13, &fates, loss);
        // A picture that is missing whole may have been referred to: nothing says that it was not.
        let mut last = 0;
        for (frame, story) in stories.iter_mut().enumerate() {
            let mut own = sent.iter().zip(&lost).filter(|(packet, _)| packet.frame == frame);
            story.refers_to = vec![last];
            if story.keyframe || shape[frame].1 || own.all(|(_, lost)| *lost) {
                last = frame;
            }
        }
        let counted = run(Codec::H264, &sent, &lost);
        let expected = reference(&stories, &sent, &lost);
        prop_assert_eq!(counted, expected);
    }

    #[test]
    fn h265_equals_the_reference(
        shape in shape(), fates in vec(0..1_000_u32, 400), loss in 0..60_u32,
    ) {
        let (mut stories, sent) = h265(&shape);
        let lost = losses(&sent, shape.len(), 13, &fates, loss);
        // A picture that is missing whole may have been of the lowest layer: nothing says that it was
        // not.
        let mut missing = None;
        for (frame, story) in stories.iter_mut().enumerate() {
            let mut own = sent.iter().zip(&lost).filter(|(packet, _)| packet.frame == frame);
            if own.all(|(_, lost)| *lost) {
                missing = Some(frame);
            } else if story.keyframe {
                missing = None;
            }
            story.refers_to.extend(missing);
        }
        let counted = run(Codec::H265, &sent, &lost);
        prop_assert_eq!(counted, reference(&stories, &sent, &lost));
    }

    #[test]
    fn spatial_layers_equal_the_reference(
        codec in prop_oneof![Just(Codec::Vp9), Just(Codec::Av1)],
        spatial in 0..3_u8, fates in vec(0..1_000_u32, 400), loss in 0..60_u32,
    ) {
        let (stories, sent) = forwarded(codec, spatial, 2);
        let lost = losses(&sent, stories.len(), 13, &fates, loss);
        let counted = run(codec, &sent, &lost);
        prop_assert_eq!(counted, reference(&stories, &sent, &lost));
    }

    #[test]
    fn vp9_equals_the_reference(
        shape in shape(),
        mode in 0..3_u8,
        fates in vec(0..1_000_u32, 400),
        loss in 0..60_u32,
        first_id in 0..0x8000_u16,
    ) {
        let (stories, sent) = vp9(&shape, mode, first_id);
        let lost = losses(&sent, shape.len(), 1, &fates, loss);
        prop_assert_eq!(run(Codec::Vp9, &sent, &lost), reference(&stories, &sent, &lost));
    }

    #[test]
    fn av1_equals_the_reference(
        shape in shape(),
        layers in prop_oneof![Just(None), Just(Some(false)), Just(Some(true))],
        fates in vec(0..1_000_u32, 700),
        loss in 0..60_u32,
    ) {
        let (stories, sent) = av1(&shape, layers);
        let lost = losses(&sent, shape.len(), 13, &fates, loss);
        let counted = run(Codec::Av1, &sent, &lost);
        let expected = reference(&stories, &sent, &lost);
        prop_assert_eq!(counted, expected);
    }
}

#[test]
fn a_keyframe_is_wanted_from_the_loss_to_the_next_one() {
    let shape = vec![(3, true); 30];
    let streams = [
        (Codec::H264, h264(&shape).1, 14),
        // One of the lowest temporal layer: without it there is nothing to show.
        (Codec::H265, h265(&shape).1, 16),
        (Codec::Vp9, vp9(&shape, 2, 7).1, 14),
        (Codec::Av1, av1(&shape, None).1, 14),
    ];
    for (codec, sent, lost) in streams {
        let mut ledger = StreamLedger::new(Duration::from_millis(10));
        ledger.set_codec(codec);
        let start = Instant::now();
        let mut wanted = Vec::new();
        for (index, packet) in sent.iter().enumerate() {
            let instant = start + Duration::from_millis(index as u64 * 5);
            ledger.expire_gaps(instant);
            if packet.marker {
                wanted.push(ledger.keyframe_wanted());
            }
            if packet.frame == lost && !packet.marker {
                continue;
            }
            ledger.media(MediaPacket {
                sequence: index as u16,
                timestamp: packet.frame as u32 * STEP,
                marker: packet.marker,
                payload: Some(&packet.payload),
                dependency_descriptor: None,
                payload_bytes: packet.payload.len(),
                at: Arrival { instant, unix_ns: 0 },
                via: Via::Primary,
            });
        }
        assert!(wanted[..14].iter().all(|wanted| !wanted), "{codec}");
        assert!(wanted[lost + 3..24].iter().all(|wanted| *wanted), "{codec}: {wanted:?}");
        assert!(wanted[26..].iter().all(|wanted| !wanted), "{codec}: {wanted:?}");
        assert!(ledger.first_keyframe().is_some());
    }
}

/// Nobody can decode a keyframe whose parameter sets went before the first packet that came.
#[test]
fn a_stream_that_begins_without_parameter_sets_waits_for_a_keyframe_that_has_them() {
    let shape = vec![(2, true); 24];
    for (codec, sent) in [(Codec::H264, h264(&shape).1), (Codec::H265, h265(&shape).1)] {
        let mut ledger = StreamLedger::new(Duration::from_millis(10));
        ledger.set_codec(codec);
        let start = Instant::now();
        let mut wanted = Vec::new();
        for (index, packet) in sent.iter().enumerate().skip(1) {
            let instant = start + Duration::from_millis(index as u64 * 5);
            ledger.expire_gaps(instant);
            ledger.media(MediaPacket {
                sequence: index as u16,
                timestamp: packet.frame as u32 * STEP,
                marker: packet.marker,
                payload: Some(&packet.payload),
                dependency_descriptor: None,
                payload_bytes: packet.payload.len(),
                at: Arrival { instant, unix_ns: 0 },
                via: Via::Primary,
            });
            if packet.marker {
                wanted.push(ledger.keyframe_wanted());
                let whole = wanted.len() > 12;
                assert_eq!(ledger.first_keyframe().is_some(), whole, "{codec}: {wanted:?}");
            }
        }
        assert!(wanted[1..12].iter().all(|wanted| *wanted), "{codec}: {wanted:?}");
        assert!(wanted[12..].iter().all(|wanted| !wanted), "{codec}: {wanted:?}");
        let counted = ledger.frames();
        assert_eq!((counted.keyframes, counted.decodable), (1, Some(12)), "{codec}");
    }
}

#[test]
fn a_server_that_drops_temporal_layers_loses_nothing() {
    let shape = vec![(2, true); 48];
    for mode in [0, 1] {
        let (_, sent) = vp9(&shape, mode, 0x7ff0);
        let base: Vec<_> = sent.into_iter().filter(|packet| packet.frame % 4 == 0).collect();
        let counted = run(Codec::Vp9, &base, &vec![false; base.len()]);
        assert_eq!((counted.decodable, counted.dropped), (Some(12), Some(0)), "mode {mode}");
    }
    let (_, sent) = av1(&shape, Some(true));
    let base: Vec<_> = sent.into_iter().filter(|packet| packet.frame % 2 == 0).collect();
    let counted = run(Codec::Av1, &base, &vec![false; base.len()]);
    assert_eq!((counted.decodable, counted.dropped), (Some(24), Some(0)));
}

#[test]
fn a_server_that_leaves_out_layers_of_a_picture_loses_nothing() {
    for codec in [Codec::Vp9, Codec::Av1] {
        for (spatial, temporal) in (0..3).flat_map(|spatial| (0..3).map(move |t| (spatial, t))) {
            let (stories, sent) = forwarded(codec, spatial, temporal);
            let counted = run(codec, &sent, &vec![false; sent.len()]);
            let pictures = stories.len() as u64;
            assert_eq!(counted.received, pictures, "{codec} {spatial} {temporal}");
            assert_eq!((counted.decodable, counted.dropped), (Some(pictures), Some(0)));
            assert_eq!(counted.keyframes, 2);
        }
    }
}

#[test]
fn pictures_that_nothing_refers_to_may_be_missing() {
    // One picture of two packets that nothing refers to loses its second packet's first half.
    let shape: Vec<_> = (0..24).map(|frame| (2, frame != 13)).collect();
    let (_, sent) = h264(&shape);
    let lost: Vec<_> = sent.iter().map(|packet| packet.frame == 13 && !packet.marker).collect();
    let counted = run(Codec::H264, &sent, &lost);
    assert_eq!((counted.complete, counted.decodable, counted.dropped), (23, Some(23), Some(1)));
    // Of H.265 a picture of the middle temporal layer takes those above it along, up to the next of
    // its own.
    for (frame, dropped) in [(13, 1), (14, 3), (16, 8)] {
        let (_, sent) = h265(&vec![(2, true); 24]);
        let mut lost: Vec<_> = sent.iter().map(|_| false).collect();
        let first = sent.iter().position(|packet| packet.frame == frame).unwrap();
        lost[first] = true;
        let counted = run(Codec::H265, &sent, &lost);
        assert_eq!((counted.complete, counted.dropped), (23, Some(dropped)), "{frame}");
    }
}

#[test]
fn windows_extend_numbers_and_forget() {
    let mut window = Window::default();
    let first = window.extend(65_534, 16);
    window.set(first, true);
    let next = window.extend(1, 16);
    assert_eq!(next, first + 3);
    window.set(next, true);
    assert!(window.is_decodable(first) && window.is_decodable(next));
    assert!(!window.is_decodable(first + 1) && !window.is_decodable(next + 1));
    assert_eq!(window.extend(65_535, 16), first + 1, "behind");
    window.set(next + 255, false);
    assert!(window.is_decodable(next) && !window.is_decodable(first));
    window.set(first, true);
    assert!(!window.is_decodable(first), "too far back");
}

#[test]
fn a_cadence_counts_only_where_it_is_one() {
    let mut cadence = Cadence::default();
    for frame in 0..9_u32 {
        assert_eq!(cadence.lost_before(frame * 3_003), None, "{frame}");
        cadence.judge((frame * 3_003).wrapping_add(frame % 2), Gap::None);
    }
    assert_eq!(cadence.lost_before(9 * 3_003), Some(0));
    assert_eq!(cadence.lost_before(14 * 3_003), Some(5));
    assert_eq!(cadence.lost_before(10 * 3_003 + 1_500), None, "between two");
    // Over a pause nothing is known to be missing, and right behind it the rate is known again.
    cadence.interrupt();
    assert_eq!(cadence.lost_before(200 * 3_003), None);
    cadence.judge(200 * 3_003, Gap::None);
    assert_eq!(cadence.lost_before(205 * 3_003), Some(4));
    cadence.judge(8 * 3_003, Gap::Frames);
    cadence.judge(8 * 3_003 + 9_000, Gap::None);
    assert_eq!(cadence.lost_before(20 * 3_003), None, "no longer constant");
}
