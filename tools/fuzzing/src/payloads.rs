//! What RTP packets hold: each codec's payloads, descriptors and redundancy, and what makes frames of
//! them.

use std::time::{Duration, Instant};

use stampede_core::accounting::{MediaPacket, StreamLedger, Via};
use stampede_core::{Arrival, Codec};
use stampede_media::dependency_descriptor::{Descriptor, Mandatory};
use stampede_media::{
    AssemblerPacket, FrameAssembler, PacketTrailer, Red, av1, h264, h265, opus, vp8, vp9,
};

use crate::bytes::{Bytes, pieces};
use crate::peer::balance;

const CODECS: [Codec; 6] =
    [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::H265, Codec::Av1, Codec::Opus];

/// Packets of a stream, each with how far it is from the one before; the first byte names the codec.
pub(crate) fn run(input: &[u8]) {
    let mut input = Bytes::of(input);
    let codec = CODECS[usize::from(input.below(6))];
    let mut assembler = FrameAssembler::new(codec).ok();
    let mut ledger = StreamLedger::new(Duration::from_millis(500));
    ledger.set_codec(codec);
    ledger.keep_frames();
    let start = Instant::now();
    let (mut now, mut sequence, mut timestamp) = (start, 70_000_u64, 0_u32);
    let (mut bytes, mut assembled, mut packets) = (0, 0, 0_u64);
    let mut structure = None;
    while !input.is_empty() {
        let how = input.u8();
        sequence = match how & 3 {
            0 | 1 => sequence + 1,
            2 => sequence + u64::from(input.u8()),
            _ => sequence.saturating_sub(input.u8().into()).max(1),
        };
        if how & 4 == 4 {
            timestamp = timestamp.wrapping_add(3_000);
        }
        now += Duration::from_millis(u64::from(how >> 5) * 9);
        let payload = input.piece();
        look(payload, &mut structure);
        bytes += payload.len();
        if let Some(assembler) = &mut assembler {
            let marker = how & 8 == 8;
            assembler.push(AssemblerPacket { sequence, timestamp, marker, payload });
            while let Some(frame) = assembler.poll() {
                assembled += frame.data.len();
                assert!(frame.first_sequence <= frame.last_sequence);
                assert!(u64::from(frame.packets) <= frame.last_sequence - frame.first_sequence + 1);
            }
        }
        let unix_ns = 1 + (now - start).as_nanos() as u64;
        packets += 1;
        let at = Arrival { instant: now, unix_ns };
        if payload.is_empty() {
            ledger.padding(sequence as u16, at);
        } else {
            ledger.media(MediaPacket {
                sequence: sequence as u16,
                timestamp,
                marker: how & 8 == 8,
                payload: Some(payload),
                dependency_descriptor: (how & 16 == 16).then_some(payload),
                payload_bytes: payload.len(),
                at,
                via: Via::Primary,
            });
        }
        while ledger.next_kept().is_some() {}
        ledger.drain_samples().for_each(drop);
    }
    // An Annex B start code has four bytes where a length had two, or a packet alone nothing.
    assert!(
        assembled <= 3 * bytes + 4 * packets as usize,
        "{assembled} bytes of frames of {bytes} received"
    );
    now += Duration::from_secs(2);
    ledger.expire_gaps(now);
    ledger.finish(now, now);
    let counted = ledger.packets();
    balance(&counted);
    let all = counted.received + counted.duplicate + counted.stale + counted.padding_only;
    assert!(all <= packets, "{counted:?} of {packets}");
    let frames = ledger.frames();
    assert!(
        frames.complete <= frames.received && frames.keyframes <= frames.complete,
        "{frames:?}"
    );
}

/// All that reads a payload, whatever it is said to be. What was parsed and can be written is the same
/// when it is read again.
fn look(payload: &[u8], structure: &mut Option<stampede_media::dependency_descriptor::Structure>) {
    if let Ok(descriptor) = vp8::Descriptor::parse(payload) {
        let mut renumbered = payload.to_vec();
        if vp8::renumber(&mut renumbered, 0x1234, 0x56) {
            let again = vp8::Descriptor::parse(&renumbered).unwrap();
            assert_eq!(again.partition_start, descriptor.partition_start, "{payload:x?}");
        }
    }
    vp8::is_keyframe_packet(payload);
    if vp9::Descriptor::parse(payload).is_ok() {
        let mut renumbered = payload.to_vec();
        vp9::renumber(&mut renumbered, 0x1234, 0x56);
        vp9::Descriptor::parse(&renumbered).unwrap();
        vp9::set_spatial_id(&mut renumbered, 2);
    }
    let _ = vp9::Structure::parse(payload);
    let _ = vp9::frame_header(payload);
    if let Some(frames) = vp9::layer_frames(payload) {
        assert!(frames.iter().map(|frame| frame.len()).sum::<usize>() <= payload.len());
    }
    let mut annex_b = Vec::new();
    if h264::append_annex_b(payload, &mut annex_b).is_ok() {
        assert!(annex_b.len() <= 3 * payload.len() + 8);
    }
    let _ = h264::Summary::of(payload);
    h264::sequence_parameters(payload)
        .map(|sps| (h264::profile_level_id(sps), h264::picture_size(sps)));
    h264::picture_size(payload);
    h264::is_bidirectional_slice(payload);
    annex_b.clear();
    if h265::append_annex_b(payload, &mut annex_b).is_ok() {
        assert!(annex_b.len() <= 3 * payload.len() + 8);
    }
    let _ = h265::Summary::of(payload);
    h265::sequence_parameters(payload);
    if let Ok(parsed) = av1::Payload::parse(payload) {
        let elements: usize = parsed.elements().map(|element| element.len()).sum();
        assert!(elements <= payload.len());
        parsed.first_obu();
    }
    let _ = av1::temporal_unit(payload);
    let _ = av1::layer_frames(payload, 0);
    av1::sequence_size(payload);
    if let Some(unit) = av1::assemble([payload, payload]) {
        assert!(unit.len() <= 8 * payload.len() + 16, "{} of {}", unit.len(), payload.len());
    }
    if let Ok(red) = Red::parse(payload) {
        let redundant: usize = red.redundant().map(|block| block.payload.len()).sum();
        assert!(redundant + red.primary.len() <= payload.len());
    }
    let _ = opus::packet_ticks(payload);
    let _ = opus::OpusHead::parse(payload);
    PacketTrailer::find(payload);
    if let Ok(mandatory) = Mandatory::parse(payload) {
        let written = Descriptor::write(mandatory, None);
        assert_eq!(Mandatory::parse(&written).unwrap(), mandatory);
    }
    if let Ok(mut descriptor) = Descriptor::parse(payload, structure.as_ref())
        && let Some(new) = descriptor.structure.take()
    {
        *structure = Some(*new);
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let of = |codec: usize, payloads: &[&[u8]]| {
        let mut seed = vec![codec as u8];
        for (number, payload) in payloads.iter().cycle().take(3 * payloads.len()).enumerate() {
            let marker = if (number + 1) % payloads.len() == 0 { 8 } else { 0 };
            let begins = if number % payloads.len() == 0 { 4 } else { 0 };
            seed.push(marker | begins | if number % 5 == 4 { 0x20 } else { 0 });
            seed.extend(pieces([*payload]));
        }
        // A gap, and what comes late.
        seed.extend([2 | 4, 9]);
        seed.extend(pieces([payloads[0]]));
        seed.extend([3, 4]);
        seed.extend(pieces([payloads[payloads.len() - 1]]));
        seed
    };
    vec![
        of(
            0,
            &[
                &[0x90, 0xe0, 0x80, 1, 1, 0x20, 0x10, 0, 0, 0x9d, 1, 0x2a, 64, 0, 64, 0],
                &[0x80, 0xe0, 0x80, 1, 1, 0x20, 7],
            ],
        ),
        of(
            1,
            &[
                &[0x8a, 1, 0x20, 0x08, 0, 64, 0, 64, 1, 0x0c, 0x82, 0x49, 0x83, 0x42],
                &[0x86, 1, 0x20, 7, 7],
            ],
        ),
        of(1, &[&[0xbb, 0x81, 2, 0x11, 5, 0x38, 0, 64, 0, 64, 0, 32, 0, 32, 1, 0x0c, 1, 7]]),
        of(
            2,
            &[
                &[0x78, 0, 5, 0x67, 0x42, 0xc0, 0x1f, 0xd9, 0, 2, 0x68, 0xce],
                &[0x7c, 0x85, 0x88, 1, 2],
                &[0x7c, 0x45, 3, 4],
            ],
        ),
        of(2, &[&[0x65, 0x88, 0x84, 0], &[0x41, 0x9a, 2]]),
        of(
            3,
            &[
                &[0x60, 1, 0, 3, 0x40, 1, 7, 0, 3, 0x42, 1, 7],
                &[0x62, 1, 0x93, 0xaf, 1],
                &[0x62, 1, 0x53, 2],
            ],
        ),
        of(
            4,
            &[
                &[
                    0x18, 0x0a, 0x0b, 0, 0, 0, 4, 0x45, 0x7e, 0x3e, 0xff, 0xfc, 0xc0, 0x20, 0x32,
                    3, 1, 2,
                ],
                &[0x80, 9, 9],
            ],
        ),
        of(5, &[&[0xfc, 1, 2, 3], &[]]),
        // Redundant audio, and descriptors of layers as a payload.
        of(5, &[&[0xef, 0x0f, 0x00, 3, 0x6f, 1, 2, 3, 4, 5]]),
        of(
            0,
            &[&[
                0x80, 0, 1, 0x80, 0x01, 0x1e, 0xa8, 0x51, 0x41, 0x01, 0x0c, 0x13, 0xfc, 0x0b, 0x3c,
            ]],
        ),
    ]
}
