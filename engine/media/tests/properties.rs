//! Properties: nothing a file or the network brings panics, and what goes in comes out.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use ogg::writing::{PacketWriteEndInfo, PacketWriter};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use stampede_media::assembler::WINDOW_PACKETS_MAX;
use stampede_media::record::{IvfWriter, OggOpusWriter};
use stampede_media::{
    AssembledFrame, AssemblerPacket, Codec, FrameAssembler, MediaClip, builtin, opus, packetize,
    vp8,
};

/// Encoded frames that look like VP8: the first one and some others keyframes.
fn vp8_frames(count: usize) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let frame = (any::<bool>(), vec(any::<u8>(), 1..6_000), 1u16..0x3fff, 1u16..0x3fff);
    vec(frame, 1..count).prop_map(|frames| {
        let make =
            |(index, (keyframe, mut data, width, height)): (usize, (_, Vec<u8>, u16, u16))| {
                if index == 0 || keyframe {
                    let mut header = vec![data[0] & 0xfe | 0x10, 0, 0, 0x9d, 0x01, 0x2a];
                    header.extend_from_slice(&width.to_le_bytes());
                    header.extend_from_slice(&height.to_le_bytes());
                    header.append(&mut data);
                    header
                } else {
                    data[0] |= 0x11;
                    data
                }
            };
        frames.into_iter().enumerate().map(make).collect()
    })
}

struct Sent {
    sequence: u64,
    timestamp: u32,
    marker: bool,
    /// Empty for a padding-only packet.
    payload: Vec<u8>,
}

fn send(
    frames: &[Vec<u8>],
    first_sequence: u64,
    first_timestamp: u32,
    padding: &[bool],
) -> Vec<Sent> {
    let mut sent = Vec::new();
    for (index, frame) in frames.iter().enumerate() {
        let timestamp = first_timestamp.wrapping_add(index as u32 * 3_000);
        let packets = packetize::vp8(frame, index as u16, index as u8);
        let count = packets.len();
        for (at, payload) in packets.into_iter().enumerate() {
            let sequence = first_sequence + sent.len() as u64;
            let (marker, payload) = (at + 1 == count, payload.to_vec());
            sent.push(Sent { sequence, timestamp, marker, payload });
        }
        if padding.get(index).copied().unwrap_or(false) {
            let sequence = first_sequence + sent.len() as u64;
            sent.push(Sent { sequence, timestamp, marker: false, payload: Vec::new() });
        }
    }
    sent
}

fn push(assembler: &mut FrameAssembler, packet: &Sent) {
    assembler.push(AssemblerPacket {
        sequence: packet.sequence,
        timestamp: packet.timestamp,
        marker: packet.marker,
        payload: &packet.payload,
    });
}

fn poll_all(assembler: &mut FrameAssembler) -> Vec<AssembledFrame> {
    std::iter::from_fn(|| assembler.poll()).collect()
}

proptest! {
    #[test]
    fn any_order_within_the_window_gives_the_original_frames(
        frames in vp8_frames(40),
        first_sequence in 0u64..200_000,
        first_timestamp: u32,
        padding in vec(any::<bool>(), 40),
        swaps in vec((any::<Index>(), any::<Index>()), 0..200),
        duplicates in vec((any::<Index>(), any::<Index>()), 0..20),
        known_start: bool,
    ) {
        let sent = send(&frames, first_sequence, first_timestamp, &padding);
        prop_assert!(sent.len() < WINDOW_PACKETS_MAX);
        let mut order: Vec<usize> = (0..sent.len()).collect();
        let mut assembler = FrameAssembler::new(Codec::Vp8).unwrap();
        // Without knowing where the stream starts, its first packet has to come first.
        let fixed = if known_start {
            assembler.start_at(first_sequence);
            0
        } else {
            1
        };
        for (a, b) in swaps {
            if order.len() > fixed {
                let (a, b) = (a.index(order.len() - fixed), b.index(order.len() - fixed));
                order.swap(a + fixed, b + fixed);
            }
        }
        let twice = duplicates.len() as u64;
        for (what, place) in duplicates {
            let packet = order[what.index(order.len())];
            order.insert(fixed + place.index(order.len() + 1 - fixed), packet);
        }
        let mut out = Vec::new();
        for index in order {
            push(&mut assembler, &sent[index]);
            out.append(&mut poll_all(&mut assembler));
        }
        let data: Vec<_> = out.iter().map(|frame| frame.data.to_vec()).collect();
        prop_assert!(data == frames);
        for (index, frame) in out.iter().enumerate() {
            let timestamp = (1u64 << 32) + u64::from(first_timestamp) + index as u64 * 3_000;
            prop_assert_eq!(frame.timestamp, timestamp);
            prop_assert_eq!(frame.keyframe, frames[index][0] & 1 == 0);
            prop_assert_eq!(frame.picture_id, Some(index as u16));
            prop_assert_eq!(frame.tl0_pic_idx, Some(index as u8));
            prop_assert!(!frame.after_gap);
        }
        let counters = assembler.counters();
        prop_assert_eq!(counters.packets_duplicate + counters.packets_late, twice);
        prop_assert_eq!(counters.packets_abandoned + counters.frames_incomplete, 0);
        prop_assert_eq!(counters.packets_malformed + counters.frames_cut_at_start, 0);
        prop_assert_eq!(assembler.packets_waiting(), 0);
    }

    #[test]
    fn lost_packets_cost_exactly_their_frames(
        frames in vp8_frames(30),
        lost in vec(any::<Index>(), 0..10),
        reverse: bool,
    ) {
        let sent = send(&frames, 1_000, 0, &[]);
        let end = 1_000 + sent.len() as u64;
        let lost: Vec<usize> = lost.iter().map(|index| index.index(sent.len())).collect();
        let mut assembler = FrameAssembler::new(Codec::Vp8).unwrap();
        assembler.start_at(1_000);
        let mut arrived: Vec<usize> = (0..sent.len()).filter(|at| !lost.contains(at)).collect();
        if reverse {
            arrived.reverse();
        }
        arrived.iter().for_each(|at| push(&mut assembler, &sent[*at]));
        assembler.abandon_before(end);
        let out = poll_all(&mut assembler);
        let hit = |frame: usize| lost.iter().any(|at| sent[*at].timestamp == frame as u32 * 3_000);
        let expected: Vec<_> = (0..frames.len()).filter(|frame| !hit(*frame)).collect();
        let ids: Vec<_> = out.iter().map(|frame| frame.picture_id.unwrap() as usize).collect();
        prop_assert_eq!(&ids, &expected);
        let mut pairs = out.iter().zip(&ids);
        prop_assert!(pairs.all(|(frame, id)| frame.data == frames[*id]));
        // A gap is marked on the first frame after each run of lost ones, and nowhere else.
        for (at, frame) in out.iter().enumerate() {
            let before = if at == 0 { 0 } else { ids[at - 1] + 1 };
            prop_assert_eq!(frame.after_gap, ids[at] != before);
        }
        let mut distinct = lost.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let counters = assembler.counters();
        prop_assert_eq!(counters.packets_abandoned, distinct.len() as u64);
        let partly = (0..frames.len()).filter(|frame| hit(*frame)).filter(|frame| {
            let of_frame = |at: &usize| sent[*at].timestamp == *frame as u32 * 3_000;
            (0..sent.len()).filter(of_frame).any(|at| !lost.contains(&at))
        });
        prop_assert_eq!(counters.frames_incomplete, partly.count() as u64);
        prop_assert_eq!(assembler.next_sequence(), Some(end));
    }

    #[test]
    fn any_packets_at_all_keep_the_assembler_bounded(
        codec in prop_oneof![Just(Codec::Opus), Just(Codec::Vp8), Just(Codec::H265)],
        inputs in vec(
            (0u8..8, 0u64..6_000, any::<u32>(), any::<bool>(), vec(any::<u8>(), 0..12)),
            0..400,
        ),
    ) {
        let mut assembler = FrameAssembler::new(codec).unwrap();
        let mut last = None;
        let mut complete = 0;
        for (what, sequence, timestamp, marker, payload) in &inputs {
            match what {
                0 => assembler.skip(*sequence),
                1 => assembler.abandon_before(*sequence),
                2 => assembler.push(AssemblerPacket {
                    sequence: sequence * 1_000,
                    timestamp: *timestamp,
                    marker: *marker,
                    payload,
                }),
                _ => assembler.push(AssemblerPacket {
                    sequence: *sequence,
                    timestamp: timestamp % 4,
                    marker: *marker,
                    payload,
                }),
            }
            for frame in poll_all(&mut assembler) {
                prop_assert!(last < Some(frame.first_sequence));
                prop_assert!(frame.first_sequence <= frame.last_sequence);
                last = Some(frame.last_sequence);
                complete += 1;
            }
            prop_assert!(assembler.packets_waiting() <= WINDOW_PACKETS_MAX);
        }
        assembler.finish();
        complete += poll_all(&mut assembler).len() as u64;
        prop_assert_eq!(assembler.counters().frames_complete, complete);
        prop_assert_eq!(assembler.packets_waiting(), 0);
    }

    #[test]
    fn any_bytes_are_a_descriptor_or_an_error(payload: Vec<u8>) {
        if let Ok(descriptor) = vp8::Descriptor::parse(&payload) {
            prop_assert!(descriptor.len < payload.len());
        }
        let _ = vp8::is_keyframe_packet(&payload);
        let _ = vp8::keyframe_size(&payload);
    }

    #[test]
    fn any_bytes_are_a_clip_or_an_error(magic in 0usize..3, mut bytes: Vec<u8>) {
        let magic: &[u8] = [&b"DKIF\0\0\x20\0VP80"[..], b"OggS\0", b""][magic];
        bytes.splice(..0, magic.iter().copied());
        let _ = MediaClip::from_bytes("any", &bytes);
    }

    #[test]
    fn mutated_ivf_never_panics(
        frames in vp8_frames(6),
        at in vec((any::<Index>(), any::<u8>()), 1..8),
        cut: Index,
    ) {
        let mut file = Vec::new();
        let mut writer = IvfWriter::begin(0, &frames[0], &mut file).unwrap();
        for (index, frame) in frames.iter().enumerate() {
            writer.frame(index as u64 * 3_000, frame, &mut file);
        }
        for (index, byte) in at {
            // Headers matter most: aim there half of the time.
            let end = if byte & 1 == 0 { 60 } else { file.len() };
            let place = index.index(end.min(file.len()));
            file[place] = byte;
        }
        check_clip(MediaClip::from_bytes("mutated", &file));
        file.truncate(cut.index(file.len() + 1));
        check_clip(MediaClip::from_bytes("mutated", &file));
    }

    #[test]
    fn any_packets_in_ogg_never_panic(
        packets in vec((vec(any::<u8>(), 0..700), 0u64..20_000, any::<bool>()), 0..20),
        good_headers: bool,
        at in vec((any::<Index>(), any::<u8>()), 0..2),
    ) {
        let mut pages = PacketWriter::new(Vec::new());
        if good_headers {
            let head = opus::OpusHead {
                channels: 2,
                pre_skip: 0,
                input_sample_rate: 48_000,
                output_gain: 0,
            };
            let end = PacketWriteEndInfo::EndPage;
            pages.write_packet(head.to_bytes().to_vec(), 1, end, 0).unwrap();
            pages.write_packet(b"OpusTags".to_vec(), 1, end, 0).unwrap();
        }
        for (packet, granule, end_page) in packets {
            let end = match end_page {
                true => PacketWriteEndInfo::EndPage,
                false => PacketWriteEndInfo::NormalPacket,
            };
            pages.write_packet(packet, 1, end, granule).unwrap();
        }
        let mut file = pages.into_inner();
        check_clip(MediaClip::from_bytes("ogg", &file));
        for (index, byte) in at {
            if !file.is_empty() {
                let place = index.index(file.len());
                file[place] = byte;
            }
        }
        check_clip(MediaClip::from_bytes("ogg", &file));
    }

    /// Pages with a right checksum and everything else arbitrary: what gets past the `ogg` crate's
    /// first check.
    #[test]
    fn any_checked_pages_never_panic(
        good_headers: bool,
        pages in vec(
            (0u8..8, 0u64..4_000, 1u32..3, 0u32..2, vec(prop_oneof![Just(255u8), 0u8..4], 0..6)),
            0..8,
        ),
    ) {
        let mut file = Vec::new();
        let mut sequence = 0;
        if good_headers {
            let head = b"OpusHead\x01\x02\0\0\0\0\0\0\0\0\0";
            file.extend_from_slice(&page(2, 0, 1, 0, &[19], head));
            file.extend_from_slice(&page(0, 0, 1, 1, &[8], b"OpusTags"));
            sequence = 2;
        }
        for (flags, granule, serial, skip, lacing) in pages {
            let body = vec![0xf8; lacing.iter().map(|len| usize::from(*len)).sum()];
            let serial = serial.min(1 + skip);
            file.extend_from_slice(&page(flags, granule, serial, sequence, &lacing, &body));
            sequence += 1;
        }
        check_clip(MediaClip::from_bytes("pages", &file));
    }

    #[test]
    fn ivf_written_is_ivf_read(frames in vp8_frames(12), steps in vec(1u64..200_000, 12)) {
        let mut file = Vec::new();
        let mut writer = IvfWriter::begin(1 << 32, &frames[0], &mut file).unwrap();
        let mut ticks = Vec::new();
        for (frame, step) in frames.iter().zip(&steps) {
            let last = ticks.last().copied().unwrap_or(0);
            ticks.push(if ticks.is_empty() { 0 } else { last + 300 + step });
            writer.frame((1 << 32) + ticks[ticks.len() - 1], frame, &mut file);
        }
        let patch = writer.finish();
        let at = patch.offset as usize;
        file[at..at + patch.bytes.len()].copy_from_slice(&patch.bytes);
        let clip = MediaClip::from_bytes("written", &file).unwrap();
        prop_assert_eq!(clip.frames.len(), frames.len());
        for ((ours, theirs), ticks) in clip.frames.iter().zip(&frames).zip(ticks) {
            prop_assert_eq!(ours.timestamp_ticks, ticks);
            let data: Vec<u8> = ours.packets.iter().flat_map(|p| p[6..].to_vec()).collect();
            prop_assert!(&data == theirs);
        }
    }

    #[test]
    fn ogg_written_is_ogg_read(
        sizes in vec(2usize..1_200, 1..130),
        holes in vec(prop_oneof![9 => Just(0u64), 1 => 1u64..40], 130),
    ) {
        let mut file = Vec::new();
        let packets: Vec<Vec<u8>> = sizes.iter().map(|size| {
            let mut packet = vec![*size as u8; *size];
            packet[0] = 0xfc;
            packet
        }).collect();
        let mut writer = OggOpusWriter::begin(3, &packets[0], &mut file).unwrap();
        let mut timestamp = 1 << 32;
        let mut due = Vec::new();
        for (index, packet) in packets.iter().enumerate() {
            if index > 0 {
                timestamp += 960 + holes[index] * 960;
            }
            due.push(timestamp - (1 << 32));
            writer.frame(timestamp, packet, &mut file).unwrap();
        }
        writer.finish(&mut file).unwrap();
        let clip = MediaClip::from_bytes("written", &file).unwrap();
        let read: Vec<_> = clip.frames.iter().filter(|frame| frame.frame_bytes > 1).collect();
        prop_assert_eq!(read.len(), packets.len());
        for ((ours, theirs), due) in read.into_iter().zip(&packets).zip(due) {
            prop_assert!(ours.packets[0][..] == theirs[..] && ours.timestamp_ticks == due);
        }
        prop_assert_eq!(writer.concealed(), clip.frames.len() as u64 - packets.len() as u64);
    }
}

/// One Ogg page (RFC 3533 §6) with its checksum.
fn page(
    flags: u8,
    granule: u64,
    serial: u32,
    sequence: u32,
    lacing: &[u8],
    body: &[u8],
) -> Vec<u8> {
    let mut page = b"OggS\0".to_vec();
    page.push(flags);
    page.extend_from_slice(&granule.to_le_bytes());
    page.extend_from_slice(&serial.to_le_bytes());
    page.extend_from_slice(&sequence.to_le_bytes());
    page.extend_from_slice(&[0; 4]);
    page.push(lacing.len() as u8);
    page.extend_from_slice(lacing);
    page.extend_from_slice(body);
    let crc = page.iter().fold(0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 }
        })
    });
    page[22..26].copy_from_slice(&crc.to_le_bytes());
    page
}

#[test]
fn the_test_makes_pages_the_reader_takes() {
    let head = b"OpusHead\x01\x02\0\0\0\0\0\0\0\0\0";
    let pages = [
        page(2, 0, 1, 0, &[19], head),
        page(0, 0, 1, 1, &[8], b"OpusTags"),
        page(0, u64::MAX, 1, 2, &[255], &[0xf8; 255]),
        page(5, 960, 1, 3, &[5], &[0xf8; 5]),
    ];
    let clip = MediaClip::from_bytes("pages", &pages.concat()).unwrap();
    assert_eq!((clip.frames.len(), clip.frames[0].frame_bytes), (1, 260));
}

/// Whatever was taken is fit to be published.
fn check_clip(clip: Result<MediaClip, stampede_media::ClipError>) {
    let Ok(clip) = clip else { return };
    assert!(clip.frames[0].keyframe && clip.frames[0].timestamp_ticks == 0);
    assert!(clip.frames.windows(2).all(|two| two[0].timestamp_ticks < two[1].timestamp_ticks));
    assert!(clip.frames.last().unwrap().timestamp_ticks < clip.duration_ticks);
    assert!(clip.frame_rate > 0.0 && clip.frame_rate <= 1_000.0);
    for frame in &clip.frames {
        assert!(!frame.packets.is_empty());
        assert!(frame.packets.iter().all(|packet| (1..=1_300).contains(&packet.len())));
    }
}

#[test]
fn built_in_clips_survive_the_wire_bit_for_bit() {
    for clip in builtin::video_layers().unwrap() {
        let mut assembler = FrameAssembler::new(Codec::Vp8).unwrap();
        let mut sequence = 0;
        for frame in &clip.frames {
            for (index, payload) in frame.packets.iter().enumerate() {
                assembler.push(AssemblerPacket {
                    sequence,
                    timestamp: frame.timestamp_ticks as u32,
                    marker: index + 1 == frame.packets.len(),
                    payload,
                });
                sequence += 1;
            }
            let [out] = &poll_all(&mut assembler)[..] else { panic!("one frame") };
            let original: Vec<u8> = frame.packets.iter().flat_map(|p| p[6..].to_vec()).collect();
            assert!(out.data == original && out.keyframe == frame.keyframe);
            assert_eq!(out.data.len(), frame.frame_bytes);
        }
    }
}
