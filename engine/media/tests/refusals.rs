//! Every file that can't be published is refused with its name, the offset and the reason.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests may panic and print")]

use ogg::writing::{PacketWriteEndInfo, PacketWriter};
use stampede_media::clip::FRAME_BYTES_MAX;
use stampede_media::opus::OpusHead;
use stampede_media::{
    ClipError, ClipOptions, ClipProblem, Codec, MediaClip, Timing, TimingMistake, builtin, h264,
    h265,
};

const KEYFRAME: [u8; 12] = [0x10, 0, 0, 0x9d, 0x01, 0x2a, 64, 0, 48, 0, 7, 7];
const DELTA: [u8; 3] = [0x11, 2, 3];

fn header() -> Vec<u8> {
    let mut header = b"DKIF\0\0\x20\0VP80\x40\0\x30\0".to_vec();
    header.extend_from_slice(&30u32.to_le_bytes());
    header.extend_from_slice(&1u32.to_le_bytes());
    header.extend_from_slice(&[0; 8]);
    header
}

fn ivf(frames: &[(u64, &[u8])]) -> Vec<u8> {
    let mut file = header();
    for (timestamp, data) in frames {
        file.extend_from_slice(&(data.len() as u32).to_le_bytes());
        file.extend_from_slice(&timestamp.to_le_bytes());
        file.extend_from_slice(data);
    }
    file
}

fn with(mut file: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

/// Ogg pages, one packet each.
fn ogg(packets: &[(&[u8], u64)]) -> Vec<u8> {
    let mut writer = PacketWriter::new(Vec::new());
    for (index, (packet, granule)) in packets.iter().enumerate() {
        let end = match index + 1 == packets.len() {
            true => PacketWriteEndInfo::EndStream,
            false => PacketWriteEndInfo::EndPage,
        };
        writer.write_packet(packet.to_vec(), 9, end, *granule).unwrap();
    }
    writer.into_inner()
}

/// An Ogg file whose last page, of one empty packet, has no packet at all.
fn without_last_packet(file: &[u8]) -> Vec<u8> {
    let mut file = file[..file.len() - 1].to_vec();
    let page = file.len() - 27;
    assert_eq!(&file[page..page + 4], b"OggS");
    file[page + 26] = 0;
    file[page + 22..page + 26].fill(0);
    // RFC 3533 §6: CRC-32 with 0x04c11db7, from 0, not reflected.
    let crc = file[page..].iter().fold(0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 }
        })
    });
    file[page + 22..page + 26].copy_from_slice(&crc.to_le_bytes());
    file
}

fn head(channels: u8) -> [u8; 19] {
    OpusHead { channels, pre_skip: 312, input_sample_rate: 48_000, output_gain: 0 }.to_bytes()
}

const TAGS: &[u8] = b"OpusTags\0\0\0\0\0\0\0\0";
const OPUS: &[u8] = &[0xf8, 1, 2, 3];

#[track_caller]
fn refused(file: &[u8]) -> (u64, ClipProblem) {
    let error = MediaClip::from_bytes("some/file.bin", file).unwrap_err();
    let text = error.to_string();
    println!("{text}");
    assert!(text.starts_with("some/file.bin: byte "), "{text}");
    assert!(text.contains("ffmpeg"), "says what to do: {text}");
    assert!(!text.contains('\n'), "one line: {text}");
    match error {
        ClipError::Refused { offset, problem, .. } => (offset, problem),
        other => panic!("{other}"),
    }
}

#[test]
fn good_files_are_taken() {
    let clip = MediaClip::from_bytes("x", &ivf(&[(5, &KEYFRAME), (6, &DELTA)])).unwrap();
    assert_eq!((clip.width, clip.height, clip.duration_ticks), (64, 48, 6_000));
    assert_eq!(clip.frames[1].timestamp_ticks, 3_000);
    assert!(clip.frames[0].keyframe && !clip.frames[1].keyframe);
    let file = ogg(&[(&head(2), 0), (TAGS, 0), (OPUS, 960), (OPUS, 1_920)]);
    let clip = MediaClip::from_bytes("x", &file).unwrap();
    assert_eq!((clip.codec, clip.channels, clip.duration_ticks), (Codec::Opus, 2, 1_920));
}

#[test]
fn files_of_other_kinds() {
    assert_eq!(refused(b""), (0, ClipProblem::Empty));
    for other in [&b"\0\0\0\x20ftypisom"[..], b"\x1a\x45\xdf\xa3", b"DKI", b"#!/bin/sh\n"] {
        assert!(matches!(refused(other), (0, ClipProblem::UnknownKind { .. })));
    }
}

#[test]
fn missing_files_and_folders() {
    for path in ["/nonexistent/video.ivf", "/tmp"] {
        let error = MediaClip::open(path).unwrap_err();
        assert!(matches!(error, ClipError::Read { .. }));
        assert!(error.to_string().starts_with(path), "{error}");
    }
}

#[test]
fn the_kind_is_the_magic_not_the_extension() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("video.mp4");
    std::fs::write(&path, ivf(&[(0, &KEYFRAME)])).unwrap();
    assert_eq!(MediaClip::open(&path).unwrap().codec, Codec::Vp8);
}

#[test]
fn ivf_headers() {
    let good = ivf(&[(0, &KEYFRAME)]);
    for len in [4, 20, 31] {
        let (offset, problem) = refused(&good[..len]);
        assert_eq!(offset, len as u64);
        assert!(matches!(problem, ClipProblem::Truncated { expected_bytes: 32, .. }));
    }
    assert_eq!(refused(&good[..32]), (32, ClipProblem::NoFrames));
    let codec = |fourcc: &[u8; 4]| refused(&with(good.clone(), 8, fourcc));
    assert_eq!(codec(b"H264"), (8, ClipProblem::H264InIvf));
    assert!(matches!(codec(b"\0XYZ"), (8, ClipProblem::UnknownCodec { .. })));
    let fields: [(usize, &[u8]); 7] = [
        (4, &[1, 0]),
        (6, &[0, 0]),
        (12, &[0, 0]),
        (12, &[0xff, 0xff]),
        (14, &[0, 0]),
        (16, &[0; 4]),
        (20, &[0; 4]),
    ];
    for (at, bytes) in fields {
        let (offset, problem) = refused(&with(good.clone(), at, bytes));
        assert!(matches!(problem, ClipProblem::BadField { .. }) && offset == at as u64);
    }
}

#[test]
fn ivf_frames() {
    let two = ivf(&[(0, &KEYFRAME), (1, &DELTA)]);
    let second = 32 + 12 + KEYFRAME.len();
    let (offset, problem) = refused(&two[..two.len() - 1]);
    assert_eq!(offset, second as u64);
    assert!(matches!(problem, ClipProblem::Truncated { expected_bytes: 3, found_bytes: 2, .. }));
    let (offset, problem) = refused(&two[..second + 5]);
    assert_eq!(offset, second as u64);
    assert!(matches!(problem, ClipProblem::Truncated { expected_bytes: 12, found_bytes: 5, .. }));
    for len_bytes in [0, FRAME_BYTES_MAX as u32 + 1, u32::MAX] {
        let (offset, problem) = refused(&with(two.clone(), second, &len_bytes.to_le_bytes()));
        assert_eq!(offset, second as u64);
        assert_eq!(problem, ClipProblem::FrameSize { index: 1, len_bytes: len_bytes.into() });
    }
    assert_eq!(refused(&ivf(&[(0, &DELTA), (1, &KEYFRAME)])), (44, ClipProblem::FirstNotKeyframe));
    let bad_start_code = with(two, 47, &[0]);
    assert_eq!(refused(&bad_start_code), (44, ClipProblem::BadKeyframe { index: 0 }));
}

#[test]
fn ivf_timestamps() {
    let at = (32 + 12 + KEYFRAME.len() + 4) as u64;
    for second in [7, 8] {
        let (offset, problem) = refused(&ivf(&[(8, &KEYFRAME), (second, &DELTA)]));
        let expected = ClipProblem::TimestampOrder { index: 1, timestamp: second, previous: 8 };
        assert_eq!((offset, problem), (at, expected));
    }
    let (offset, problem) = refused(&ivf(&[(0, &KEYFRAME), (30 * 61, &DELTA)]));
    assert_eq!((offset, problem), (at, ClipProblem::TimestampGap { index: 1, gap_seconds: 61 }));
    let hurried = with(ivf(&[(0, &KEYFRAME), (1, &DELTA)]), 16, &1_000_000u32.to_le_bytes());
    assert!(matches!(refused(&hurried), (16, ClipProblem::Timing { .. })));
    refused(&ivf(&[(0, &KEYFRAME), (u64::MAX, &DELTA)]));
    // A frame that is never shown may share its moment with its neighbour.
    let hidden = [0x01, 2, 3];
    let file = ivf(&[(0, &KEYFRAME), (1, &hidden), (1, &DELTA), (2, &DELTA)]);
    let clip = MediaClip::from_bytes("x", &file).unwrap();
    let ticks: Vec<_> = clip.frames.iter().map(|frame| frame.timestamp_ticks).collect();
    assert_eq!(ticks, [0, 3_000, 3_001, 6_000]);
    // Nobody sees it: of three pictures in a tenth of a second it makes no four.
    assert_eq!((clip.frame_rate, clip.duration_ticks), (30.0, 9_000));
    // The same of VP9, whose hidden frames share a superframe with one that is shown.
    let superframe = [0x84, 1, 2, 0x86, 3, 0xc9, 3, 0, 2, 0, 0xc9];
    let vp9 = [(0, VP9[0]), (1, &superframe), (2, &[0x84, 9]), (2, VP9[1])];
    let clip = MediaClip::from_bytes("x", &with(ivf(&vp9), 8, b"VP90")).unwrap();
    assert_eq!((clip.frames.len(), clip.frame_rate, clip.duration_ticks), (4, 30.0, 9_000));
    let unseen = [0, 0, 0, 0x9d, 0x01, 0x2a, 64, 0, 48, 0, 7, 7];
    assert_eq!(refused(&ivf(&[(0, &unseen)])), (32, ClipProblem::NoFrames));
}

/// A file of ten frames by its timebase and the steps of its timestamps.
fn timed(rate: u32, scale: u32, step: u64) -> Vec<u8> {
    let frame = |index| (index * step, if index == 0 { &KEYFRAME[..] } else { &DELTA[..] });
    let frames: Vec<_> = (0..10).map(frame).collect();
    with(with(ivf(&frames), 16, &rate.to_le_bytes()), 20, &scale.to_le_bytes())
}

#[test]
fn timing_that_cannot_be_meant_is_read_as_it_is_meant() {
    let opened = |file: &[u8]| MediaClip::from_bytes_with("x", file, ClipOptions::default());
    for (rate, scale, step, said_s, mistake, meant) in [
        // In slow-ivf.py's words: RTP timestamps under 1/30.
        (30, 1, 3_600, 120.0, TimingMistake::RtpTicks, 25.0),
        (1, 1_000, 40, 40_000.0, TimingMistake::SwappedTimebase, 25.0),
        (1, 90_000, 3_000, 2.7e8, TimingMistake::SwappedTimebase, 30.0),
        (1, 1, 100, 100.0, TimingMistake::Milliseconds, 10.0),
        (90_000, 1, 20, 1.0 / 4_500.0, TimingMistake::Milliseconds, 50.0),
    ] {
        let opened = opened(&timed(rate, scale, step)).unwrap();
        let clip = opened.clip;
        assert_eq!(
            (clip.frame_rate, clip.frames[9].timestamp_ticks as f64),
            (meant, 810_000.0 / meant)
        );
        let Timing::Corrected { said_s: said, mistake: found } = opened.timing else {
            panic!("{:?}", opened.timing)
        };
        assert_eq!(found, mistake);
        assert!((said / said_s - 1.0).abs() < 1e-9, "{said} {said_s}");
    }
    // What is unusual but can be meant is played as it is.
    for (rate, scale, step, timing) in [
        (5, 1, 1, Timing::AsSaid),
        (300, 1, 1, Timing::AsSaid),
        (1_000, 1, 1_001, Timing::Slow { frame_s: 1.001 }),
        (1, 4, 1, Timing::Slow { frame_s: 4.0 }),
    ] {
        let opened = opened(&timed(rate, scale, step)).unwrap();
        let frame_s = step as f64 * f64::from(scale) / f64::from(rate);
        assert_eq!(opened.timing, timing);
        assert!((opened.clip.frame_rate * frame_s - 1.0).abs() < 1e-9);
    }
    // One long pause among short ones is a pause.
    let mut paused = timed(25, 1, 1);
    let last = paused.len() - DELTA.len() - 8;
    paused.splice(last..last + 8, 900_u64.to_le_bytes());
    let opened = opened(&paused).unwrap();
    assert_eq!(opened.timing, Timing::AsSaid);
    let pause_s = opened.clip.pause_max().as_secs_f64();
    assert!(pause_s > 35.0 && pause_s < 105.0, "{pause_s}");
    assert!(MediaClip::from_bytes("x", &timed(25, 1, 1)).unwrap().pause_max().is_zero());
}

#[test]
fn timing_that_may_be_meant_is_refused_with_figure_and_likely_cause() {
    for (rate, scale, step, words) in [
        (1, 25, 1, &["25 s a frame", "25/1 s each", "swapped", "25 frames/s"][..]),
        (1_001, 30_000, 1, &["30 s a frame", "30000/1001", "swapped", "29.97 frames/s"]),
        (60, 1, 1_800, &["30 s a frame", "RTP", "50 frames/s"]),
        (1_000, 1, 1, &["1000 frames a second", "1/1000 s each", "frame numbers"]),
        (90_000, 1, 1, &["90000 frames a second", "frame numbers"]),
        (1_000_000, 1, 2, &["500000 frames a second", "wrong"]),
        (1, 7, 1, &["7 s a frame", "swapped", "7 frames/s"]),
        (1, 60, 600, &["36000 s a frame", "wrong"]),
    ] {
        let (offset, problem) = refused(&timed(rate, scale, step));
        assert!(offset == 16 && matches!(problem, ClipProblem::Timing { .. }), "{problem}");
        for word in words {
            assert!(problem.to_string().contains(word), "{word}: {problem}");
        }
    }
}

#[test]
fn ogg_streams() {
    let good = ogg(&[(&head(2), 0), (TAGS, 0), (OPUS, 960), (OPUS, 1_920)]);
    // Each page: 27 bytes, one lacing byte, the packet.
    let (second, third) = (28 + 19, 28 + 19 + 28 + TAGS.len());
    let vorbis = ogg(&[(b"\x01vorbis\0\0\0\0", 0)]);
    assert!(refused(&vorbis) == (0, ClipProblem::UnknownCodec { found: "Ogg Vorbis".to_owned() }));
    assert!(matches!(refused(&ogg(&[(b"\x7fFLAC", 0)])), (0, ClipProblem::UnknownCodec { .. })));
    for channels in [0, 3] {
        let (_, problem) = refused(&ogg(&[(&head(channels), 0), (TAGS, 0), (OPUS, 960)]));
        assert!(matches!(problem, ClipProblem::BadField { field: "Opus channel count", .. }));
    }
    assert_eq!(refused(&ogg(&[(&head(2), 0), (TAGS, 0)])).1, ClipProblem::NoFrames);
    let (offset, problem) = refused(&ogg(&[(&head(2), 0), (OPUS, 960)]));
    assert!(matches!(problem, ClipProblem::BadField { .. }) && offset == second as u64);
    for len in [5, 27, third + 3, good.len() - 1] {
        assert!(matches!(refused(&good[..len]).1, ClipProblem::Truncated { .. }), "{len}");
    }
    let flipped = with(good.clone(), second + 30, &[0xff]);
    assert!(matches!(refused(&flipped), (at, ClipProblem::OggPage { .. }) if at == second as u64));
    let holed = [&good[..second], &good[third..]].concat();
    assert!(matches!(refused(&holed), (at, ClipProblem::OggPage { .. }) if at == second as u64));
    assert!(matches!(refused(&good[second..]), (0, ClipProblem::OggPage { .. })));
    let twice = [&good[..], &good[..]].concat();
    assert_eq!(refused(&twice), (good.len() as u64, ClipProblem::OggSeveralStreams));
    let trailing = [&good[..], b"garbage"].concat();
    assert_eq!(refused(&trailing).0, good.len() as u64);
}

#[test]
fn opus_packets_and_granules() {
    let packet = |packet: &[u8]| refused(&ogg(&[(&head(2), 0), (TAGS, 0), (packet, 960)])).1;
    for bad in [&[][..], &[0xf9, 1], &[0xfb], &[0xfb, 0], &[0xff; 1_400]] {
        assert!(matches!(packet(bad), ClipProblem::OpusPacket { index: 0, .. }));
    }
    let granules = |second| ogg(&[(&head(1), 0), (TAGS, 0), (OPUS, 4_960), (OPUS, second)]);
    assert!(matches!(refused(&granules(4_000)).1, ClipProblem::TimestampOrder { .. }));
    let far = refused(&granules(5_920 + 61 * 48_000)).1;
    assert_eq!(far, ClipProblem::TimestampGap { index: 3, gap_seconds: 61 });
    // Writers end streams with an empty packet, or a page without any; elsewhere there is none.
    let sound = [(&head(2)[..], 0), (TAGS, 0), (OPUS, 960), (OPUS, 1_920), (&[], 1_920)];
    let clip = MediaClip::from_bytes("x", &ogg(&sound)).unwrap();
    assert_eq!((clip.frames.len(), clip.duration_ticks), (2, 1_920));
    let clip = MediaClip::from_bytes("x", &without_last_packet(&ogg(&sound))).unwrap();
    assert_eq!((clip.frames.len(), clip.duration_ticks), (2, 1_920));
    let between = [(&head(2)[..], 0), (TAGS, 0), (OPUS, 960), (&[], 960), (OPUS, 1_920)];
    assert!(matches!(refused(&ogg(&between)).1, ClipProblem::OpusPacket { index: 1, .. }));
    // A hole is kept as a pause, trimming at the end is not.
    let clip = MediaClip::from_bytes("x", &granules(5_920 + 480)).unwrap();
    assert_eq!((clip.frames[1].timestamp_ticks, clip.duration_ticks), (1_440, 2_400));
    let clip = MediaClip::from_bytes("x", &granules(5_000)).unwrap();
    assert_eq!((clip.frames[1].timestamp_ticks, clip.duration_ticks), (960, 1_920));
}

#[test]
fn timestamps_do_not_drift() {
    // 29.97 frames/s: an hour of them is within a tick of where it should be.
    let frames: Vec<(u64, &[u8])> = std::iter::once((0, &KEYFRAME[..]))
        .chain((1..107_892).map(|index| (index, &DELTA[..])))
        .collect();
    let file = with(ivf(&frames), 16, &30_000u32.to_le_bytes());
    let file = with(file, 20, &1_001u32.to_le_bytes());
    let clip = MediaClip::from_bytes("x", &file).unwrap();
    assert_eq!(clip.frames[107_891].timestamp_ticks, 107_891 * 3_003);
    assert_eq!(clip.duration_ticks, 107_892 * 3_003);
}

#[test]
fn single_frame_lasts_one_unit_or_a_thirtieth() {
    let clip = MediaClip::from_bytes("x", &ivf(&[(77, &KEYFRAME)])).unwrap();
    assert_eq!((clip.frames[0].timestamp_ticks, clip.duration_ticks), (0, 3_000));
    let file = with(ivf(&[(77, &KEYFRAME)]), 16, &90_000u32.to_le_bytes());
    assert_eq!(MediaClip::from_bytes("x", &file).unwrap().duration_ticks, 3_000);
}

/// libvpx's and libaom's own headers of a 640×360 keyframe, and a frame after it.
const VP9: [&[u8]; 2] =
    [&[0x83, 0x49, 0x83, 0x42, 0, 0x27, 0xf0, 0x16, 0x70, 0xe0], &[0x87, 0x01, 0x40]];
const AV1: [&[u8]; 2] = [
    &[
        0x12, 0, 0x0a, 12, 0, 0, 0, 0x0c, 0xc4, 0xff, 0x67, 0xe0, 0x6d, 0x7c, 0x80, 0x20, 0x32, 1,
        16,
    ],
    &[0x12, 0, 0x32, 2, 0x30, 0x01],
];

#[test]
fn vp9_and_av1_frames() {
    for (fourcc, codec, [key, delta]) in [(b"VP90", Codec::Vp9, VP9), (b"AV01", Codec::Av1, AV1)] {
        let file = |frames: &[(u64, &[u8])]| with(ivf(frames), 8, fourcc);
        let clip = MediaClip::from_bytes("x", &file(&[(0, key), (1, delta)])).unwrap();
        assert_eq!((clip.codec, clip.width, clip.height), (codec, 640, 360));
        assert!(clip.frames[0].keyframe && !clip.frames[1].keyframe);
        let first = refused(&file(&[(0, delta), (1, key)]));
        assert_eq!(first, (44, ClipProblem::FirstNotKeyframe));
        let second = (32 + 12 + key.len() + 12) as u64;
        for bad in [&[0x00, 1, 2][..], &[0x81], &key[..8]] {
            let (offset, problem) = refused(&file(&[(0, key), (1, bad)]));
            assert_eq!(offset, second);
            let named =
                matches!(problem, ClipProblem::BadFrame { index: 1, codec: c, .. } if c == codec);
            assert!(named, "{problem:?}");
        }
        let wide = with(file(&[(0, key)]), 12, &[0, 0]);
        assert!(matches!(refused(&wide), (12, ClipProblem::BadField { .. })));
    }
}

/// x264's parameter sets of a 640×360 file at 25 frames/s, read from the built-in clip.
fn parameter_sets() -> (Vec<u8>, Vec<u8>) {
    let clip = &builtin::video(Codec::H264).unwrap()[0];
    let mut joined = Vec::new();
    h264::append_annex_b(&clip.frames[0].packets[0], &mut joined).unwrap();
    let mut units = joined[4..].to_vec();
    let at = units.windows(4).position(|window| window == [0, 0, 0, 1]).unwrap();
    let rest = units.split_off(at)[4..].to_vec();
    let end = rest.windows(4).position(|window| window == [0, 0, 0, 1]).unwrap_or(rest.len());
    (units, rest[..end].to_vec())
}

fn annex_b(units: &[&[u8]]) -> Vec<u8> {
    units.iter().flat_map(|unit| [&[0, 0, 0, 1], *unit].concat()).collect()
}

const IDR: &[u8] = &[0x65, 0x88, 0x84, 1];
const P_SLICE: &[u8] = &[0x41, 0x9a, 0x21, 1];

#[test]
fn h264_files() {
    let (sps, pps) = parameter_sets();
    let good = [&sps[..], &pps, IDR, P_SLICE, &[0x01, 0x9a, 1], &[9, 0x10], IDR];
    let opened = MediaClip::from_bytes_with("x", &annex_b(&good), ClipOptions::default()).unwrap();
    let clip = opened.clip;
    assert_eq!((clip.codec, clip.width, clip.height), (Codec::H264, 320, 180));
    assert_eq!((clip.frames.len(), clip.frame_rate, clip.duration_ticks), (4, 25.0, 14_400));
    assert_eq!(opened.timing, Timing::AsSaid);
    let keys: Vec<_> = clip.frames.iter().map(|frame| frame.keyframe).collect();
    assert_eq!(keys, [true, false, false, true]);
    // The second IDR picture came without parameter sets; whoever joins there needs them.
    assert!(h264::sequence_parameters(&clip.frames[3].packets[0]).is_some());
    let faster = ClipOptions { frame_rate: Some(50.0), ..ClipOptions::default() };
    let clip = MediaClip::from_bytes_with("x", &annex_b(&good), faster).unwrap().clip;
    assert_eq!((clip.frames[1].timestamp_ticks, clip.duration_ticks), (1_800, 7_200));
    let impossible = ClipOptions { frame_rate: Some(5_000.0), ..ClipOptions::default() };
    MediaClip::from_bytes_with("x", &annex_b(&good), impossible).unwrap_err();
    // Of the timing, one bit away from what x264 writes.
    let mut odd = (0..sps.len() * 8).filter_map(|bit| {
        let mut changed = sps.clone();
        changed[bit / 8] ^= 0x80 >> (bit % 8);
        let file = annex_b(&[&changed, &pps, IDR]);
        match MediaClip::from_bytes("x", &file).err()? {
            ClipError::Refused {
                offset: 4, problem: ClipProblem::Timing { figure, .. }, ..
            } => Some((file, figure)),
            _ => None,
        }
    });
    let (file, figure) = odd.next().unwrap();
    assert!(figure.ends_with(" frames a second by its sequence parameter set"), "{figure}");
    let told = MediaClip::from_bytes_with("x", &file, faster).unwrap();
    assert_eq!((told.timing, told.clip.frame_rate), (Timing::AsSaid, 50.0));
}

/// Zeros in front of the first start code are legal (Annex B, B.1.1).
#[test]
fn zeros_before_the_first_start_code_are_nothing() {
    let (sps, pps) = parameter_sets();
    let h264 = annex_b(&[&sps, &pps, IDR, P_SLICE]);
    let sets = h265_parameter_sets();
    let h265 = annex_b(&[&sets[0], &sets[1], &sets[2], H265_IDR, TRAILING]);
    for (file, codec) in [(h264, Codec::H264), (h265, Codec::H265)] {
        let plain = MediaClip::from_bytes("x", &file).unwrap();
        for zeros in [1, 2, 5, 1_000] {
            let clip = MediaClip::from_bytes("x", &[&vec![0; zeros], &file[..]].concat()).unwrap();
            assert_eq!((clip.codec, clip.frames.len()), (codec, 2), "{zeros}");
            assert_eq!(clip.frames[0].packets, plain.frames[0].packets);
        }
    }
    assert!(matches!(refused(&[0; 50]).1, ClipProblem::UnknownKind { .. }));
}

/// x264's and x265's sequence parameter sets of other chroma formats and depths, 320×180.
const HIGH_444: &[u8] = &[
    0x67, 0xf4, 0x00, 0x0c, 0x91, 0x96, 0x40, 0x50, 0x67, 0xe3, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00,
    0x01, 0x00, 0x00, 0x03, 0x00, 0x32, 0x0f, 0x14, 0x2a, 0x48,
];
const HIGH_10: &[u8] = &[
    0x67, 0x6e, 0x00, 0x0c, 0xa6, 0xcb, 0x20, 0x28, 0x33, 0xf3, 0xe0, 0x22, 0x00, 0x00, 0x03, 0x00,
    0x02, 0x00, 0x00, 0x03, 0x00, 0x64, 0x1e, 0x28, 0x54, 0x90,
];
const HIGH_422: &[u8] = &[
    0x67, 0x7a, 0x00, 0x0c, 0xbc, 0xb2, 0x02, 0x83, 0x3f, 0x1b, 0x80, 0x88, 0x00, 0x00, 0x03, 0x00,
    0x08, 0x00, 0x00, 0x03, 0x01, 0x90, 0x78, 0xa1, 0x52, 0x40,
];
const HIGH: &[u8] = &[
    0x67, 0x64, 0x00, 0x0c, 0xac, 0xb2, 0x02, 0x83, 0x3f, 0x3e, 0x02, 0x20, 0x00, 0x00, 0x03, 0x00,
    0x20, 0x00, 0x00, 0x06, 0x41, 0xe2, 0x85, 0x49,
];
const H265_444: &[u8] = &[
    0x42, 0x01, 0x01, 0x04, 0x08, 0x00, 0x00, 0x03, 0x00, 0x9e, 0x08, 0x00, 0x00, 0x03, 0x00, 0x00,
    0x3c, 0x90, 0x01, 0x41, 0x01, 0x73, 0xe5, 0xcb, 0x25, 0x49, 0x26, 0x57, 0x80, 0xb4, 0x04, 0x00,
    0x00, 0x03, 0x00, 0x04, 0x00, 0x00, 0x03, 0x00, 0x64, 0x20,
];
const H265_MAIN_10: &[u8] = &[
    0x42, 0x01, 0x01, 0x02, 0x20, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03,
    0x00, 0x3c, 0xa0, 0x0a, 0x08, 0x0b, 0x9f, 0x6d, 0x96, 0x4a, 0x92, 0x4c, 0xaf, 0x01, 0x68, 0x08,
    0x00, 0x00, 0x03, 0x00, 0x08, 0x00, 0x00, 0x03, 0x00, 0xc8, 0x40,
];

/// What is refused here nothing would negotiate, and its publishers would never join.
#[test]
fn profiles_that_nothing_agrees_on() {
    let (sps, pps) = parameter_sets();
    let wanted = |file: &[u8], words: &[&str]| {
        let error = MediaClip::from_bytes("x", file).unwrap_err().to_string();
        assert!(error.contains("can't be published: servers and browsers agree on"), "{error}");
        for word in words.iter().chain(&["ffmpeg", "yuv420p"]) {
            assert!(error.contains(word), "{word}: {error}");
        }
    };
    let h264 = |sps: &[u8]| annex_b(&[sps, &pps, IDR]);
    wanted(&h264(HIGH_444), &["H.264", "High 4:4:4 Predictive (profile 244, 4:4:4, 8 bits)"]);
    wanted(&h264(HIGH_10), &["High 10 (profile 110, 4:2:0, 10 bits)", "Baseline, Main or High"]);
    wanted(&h264(HIGH_422), &["High 4:2:2 (profile 122, 4:2:2, 8 bits)"]);
    wanted(&h264(&with(HIGH.to_vec(), 3, &[62])), &["level 6.2", "levels up to 5.2"]);
    wanted(&h264(&with(sps.clone(), 1, &[88])), &["Extended (profile 88"]);
    let clip = |file: &[u8]| MediaClip::from_bytes("x", file).unwrap();
    assert_eq!(clip(&h264(HIGH)).height, 180);
    assert_eq!(clip(&h264(&with(HIGH.to_vec(), 3, &[52]))).height, 180);
    let (_, problem) = refused(&annex_b(&[&sps, &pps, IDR, HIGH, &pps, IDR]));
    assert!(problem.to_string().contains("is of profile 100, and those before of 66"), "{problem}");
    let sets = h265_parameter_sets();
    let h265 = |sps: &[u8]| annex_b(&[&sets[0], sps, &sets[2], H265_IDR]);
    wanted(&h265(H265_444), &["H.265", "profile 4 (range extensions", "Main or Main 10"]);
    assert_eq!(clip(&h265(H265_MAIN_10)).height, 180);
    // libvpx and libaom: 4:4:4, 10 bits, both; 4:4:4, 10 bits, 4:2:2.
    let vp9 = |key: &[u8]| with(ivf(&[(0, key)]), 8, b"VP90");
    wanted(
        &vp9(&[0xa2, 0x49, 0x83, 0x42, 0, 2, 0x7e, 1, 0x66, 0xc0]),
        &["VP9", "profile 1 (4:4:4"],
    );
    wanted(&vp9(&[0x92, 0x49, 0x83, 0x42, 0, 9, 0xf8, 5, 0x9b, 3]), &["profile 2 (10 or 12 bits)"]);
    let both = [0xb1, 0x24, 0xc1, 0xa1, 0, 0, 0x9f, 0x80, 0x59, 0xb0];
    wanted(&vp9(&both), &["profile 3", "profile 0 (4:2:0, 8 bits)"]);
    let av1 = |header: &[u8]| {
        let unit = [&[0x12, 0, 0x0a, header.len() as u8], header, &[0x32, 1, 16]].concat();
        with(ivf(&[(0, &unit)]), 8, b"AV01")
    };
    wanted(&av1(&[0x20, 0, 0, 4, 0x3c, 0xfe, 0xcc, 0xda, 0xf9, 2]), &["AV1", "profile 1 (High"]);
    wanted(&av1(&[0x40, 0, 0, 4, 0x3c, 0xfe, 0xcc, 0xda, 0xf9, 1]), &["profile 2 (Professional"]);
    assert_eq!(clip(&av1(&[0, 0, 0, 4, 0x3c, 0xfe, 0xcc, 0xda, 0xf9, 0x40, 0x40])).height, 180);
}

#[test]
fn h264_that_cannot_be_sent() {
    let (sps, pps) = parameter_sets();
    let at = |units: &[&[u8]], index: usize| (annex_b(&units[..index]).len() + 4) as u64;
    let refused_at = |units: &[&[u8]], index: usize, word: &str| {
        let (offset, problem) = refused(&annex_b(units));
        assert_eq!(offset, at(units, index), "{problem}");
        assert!(problem.to_string().contains(word), "{problem}");
    };
    refused_at(&[&sps, &pps, IDR, &[0x01, 0b1001_1100, 1]], 3, "B slice");
    refused_at(&[&sps, &pps, IDR, &[0xc1, 0x9a]], 3, "forbidden bit");
    refused_at(&[&sps, &pps, IDR, &[0x40, 1, 0x0c]], 3, "H.265");
    refused_at(&[&sps, &pps, IDR, &[0x74, 1]], 3, "scalable");
    refused_at(&[&[0x67, 0x42]], 0, "sequence parameter set");
    refused_at(&[IDR, P_SLICE], 0, "without sequence parameter set");
    let (offset, problem) = refused(&annex_b(&[&sps, &pps, P_SLICE, IDR]));
    assert_eq!((offset, problem), (4, ClipProblem::FirstNotKeyframe));
    assert_eq!(refused(&annex_b(&[&sps, &pps])), (0, ClipProblem::NoFrames));
    let giant = [IDR, &vec![1; FRAME_BYTES_MAX]].concat();
    let (_, problem) = refused(&annex_b(&[&sps, &pps, IDR, &giant]));
    assert!(matches!(problem, ClipProblem::FrameSize { index: 1, .. }), "{problem}");
    // Without timing in the stream the rate is assumed, and said so.
    let timeless: &[u8] = &[0x67, 0x42, 0xc0, 0x1e, 0xda, 0x02, 0x80, 0xbf, 0xe5, 0x40];
    let file = annex_b(&[timeless, &pps, IDR]);
    let opened = MediaClip::from_bytes_with("x", &file, ClipOptions::default());
    println!("{opened:?}");
    let opened = opened.unwrap();
    assert_eq!((opened.timing, opened.clip.frame_rate), (Timing::Assumed, 30.0));
}

/// x265's parameter sets of a 320×180 file at 25 frames/s, read from the built-in clip.
fn h265_parameter_sets() -> Vec<Vec<u8>> {
    let clip = &builtin::video(Codec::H265).unwrap()[0];
    let sets = h265::Payload::parse(&clip.frames[0].packets[0]).unwrap();
    sets.units().take(3).map(<[u8]>::to_vec).collect()
}

const H265_IDR: &[u8] = &[0x26, 1, 0xaf, 1];
const TRAILING: &[u8] = &[0x02, 1, 0xd0, 1];

#[test]
fn h265_files() {
    let sets = h265_parameter_sets();
    let [vps, sps, pps] = &sets[..] else { panic!("{sets:?}") };
    let later_slice: &[u8] = &[0x02, 1, 0x50, 1];
    let delimiter: &[u8] = &[0x46, 1, 0x50];
    // Headers alone.
    let (end_of_sequence, end_of_stream): (&[u8], &[u8]) = (&[0x48, 1], &[0x4a, 1]);
    let good = [
        vps,
        sps,
        pps,
        H265_IDR,
        TRAILING,
        later_slice,
        end_of_sequence,
        delimiter,
        H265_IDR,
        later_slice,
        end_of_stream,
    ];
    let opened = MediaClip::from_bytes_with("x", &annex_b(&good), ClipOptions::default()).unwrap();
    let clip = opened.clip;
    assert_eq!((clip.codec, clip.width, clip.height), (Codec::H265, 320, 180));
    assert_eq!((clip.frames.len(), clip.frame_rate, clip.duration_ticks), (3, 25.0, 10_800));
    assert_eq!(opened.timing, Timing::AsSaid);
    let keys: Vec<_> = clip.frames.iter().map(|frame| frame.keyframe).collect();
    assert_eq!(keys, [true, false, true]);
    // The second IDR picture came without parameter sets; whoever joins there needs them.
    assert!(h265::sequence_parameters(&clip.frames[2].packets[0]).is_some());
}

#[test]
fn h265_that_cannot_be_sent() {
    let sets = h265_parameter_sets();
    let [vps, sps, pps] = &sets[..] else { panic!("{sets:?}") };
    let refused_at = |units: &[&[u8]], index: usize, word: &str| {
        let (offset, problem) = refused(&annex_b(units));
        assert_eq!(offset, (annex_b(&units[..index]).len() + 4) as u64, "{problem}");
        assert!(problem.to_string().contains(word), "{problem}");
    };
    refused_at(&[vps, sps, pps, H265_IDR, &[0x10, 1, 0x80]], 4, "reordering");
    refused_at(&[vps, sps, pps, H265_IDR, &[0x82, 1, 0x80]], 4, "impossible header bits");
    refused_at(&[vps, sps, pps, H265_IDR, &[0x02, 0, 0x80]], 4, "impossible header bits");
    refused_at(&[vps, sps, pps, H265_IDR, &[0x03, 1, 0x80]], 4, "second layer");
    refused_at(&[vps, sps, pps, H265_IDR, &[0x60, 1, 0x80]], 4, "not specified");
    refused_at(&[vps, sps, pps, H265_IDR, &[0x02]], 4, "cut short");
    refused_at(&[vps, sps, pps, H265_IDR, &[0x02, 1]], 4, "cut short");
    refused_at(&[vps, &sps[..8], pps, H265_IDR], 1, "sequence parameter set");
    refused_at(&[vps, pps, H265_IDR], 0, "without sequence parameter set");
    // As many parameter sets as are kept, and one more.
    const PARAMETER_SETS_MAX: usize = 64;
    // Their numbers are Exp-Golomb codes.
    let numbered = |number: u16| {
        let code = (number + 1) << (16 - (2 * (u16::BITS - (number + 1).leading_zeros()) - 1));
        [&pps[..2], &code.to_be_bytes(), &[1]].concat()
    };
    let many: Vec<_> = (0..PARAMETER_SETS_MAX as u16).map(numbered).collect();
    let mut units: Vec<&[u8]> = vec![vps, sps];
    units.extend(many[..PARAMETER_SETS_MAX - 2].iter().map(Vec::as_slice));
    assert!(MediaClip::from_bytes("x", &annex_b(&[&units[..], &[H265_IDR]].concat())).is_ok());
    units.push(&many[PARAMETER_SETS_MAX - 1]);
    refused_at(&units, PARAMETER_SETS_MAX, "one parameter set more than the 64 kept");
    // As many keyframes as make the file twice as long, and more.
    let keyframes = |count: usize, kept: &[u8]| {
        let units = [&[vps.as_slice(), sps, kept][..], &vec![H265_IDR; count]].concat();
        MediaClip::from_bytes("x", &annex_b(&units))
    };
    assert!(keyframes(2, pps).is_ok());
    let long = [&pps[..], &[1; 1_000]].concat();
    assert!(keyframes(2, &long).is_ok());
    assert!(keyframes(3, &long).unwrap_err().to_string().contains("parameter sets"));
    // A level that there is not.
    let mut unknown = sps.clone();
    let level = unknown.iter().position(|byte| *byte == 60).unwrap();
    unknown[level] = 61;
    refused_at(&[vps, &unknown, pps, H265_IDR], 1, "no offer can tell");
    // One bit away from what x265 writes.
    let usual = h265::Parameters::parse(sps).unwrap();
    let flipped = |wanted: fn(&h265::Parameters) -> bool| {
        let mut all = (0..sps.len() * 8).map(|bit| {
            let mut changed = sps.clone();
            changed[bit / 8] ^= 0x80 >> (bit % 8);
            changed
        });
        all.find(|changed| {
            h265::Parameters::parse(changed).is_some_and(|changed| {
                let (needs, own) = (changed.profile_tier_level, usual.profile_tier_level);
                needs == own && changed.size() == usual.size() && wanted(&changed)
            })
        })
        .unwrap()
    };
    let reordered = flipped(|it| it.reorder > 0 && !it.interlaced);
    refused_at(&[vps, &reordered, pps, H265_IDR], 1, "reordered");
    let interlaced = flipped(|it| it.reorder == 0 && it.interlaced);
    refused_at(&[vps, &interlaced, pps, H265_IDR], 1, "interlaced");
    let (offset, problem) = refused(&annex_b(&[vps, sps, pps, TRAILING]));
    assert_eq!((offset, problem), (4, ClipProblem::FirstNotKeyframe));
    assert_eq!(refused(&annex_b(&[vps, sps, pps])), (0, ClipProblem::NoFrames));
}

#[test]
fn built_in_clips_are_good() {
    assert_eq!(builtin::video_layers().unwrap().len(), 3);
    builtin::audio().unwrap();
}
