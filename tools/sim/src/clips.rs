//! What publishers send: small frames that say which they are.

use std::cell::OnceCell;
use std::sync::Arc;

use stampede_media::{ClipFrame, Codec, MediaClip};

/// Frames of the video a second.
pub const VIDEO_FPS: u64 = 20;
/// Frames of the video; it is sent in a loop.
pub const VIDEO_FRAMES: usize = 60;
/// From keyframe to keyframe.
pub const KEYFRAME_EVERY: usize = 20;
/// Payload of a packet beside its descriptor.
const CHUNK_BYTES: usize = 160;
/// Where a frame has its number, big-endian.
const NUMBER: std::ops::Range<usize> = 10..14;

thread_local! {
    static VIDEO: OnceCell<Arc<MediaClip>> = const { OnceCell::new() };
    static AUDIO: OnceCell<Arc<MediaClip>> = const { OnceCell::new() };
}

/// The video.
#[must_use]
pub fn video() -> Arc<MediaClip> {
    VIDEO.with(|clip| clip.get_or_init(|| Arc::new(make_video())).clone())
}

/// The audio: Opus of 20 ms.
#[must_use]
pub fn audio() -> Arc<MediaClip> {
    AUDIO.with(|clip| clip.get_or_init(|| Arc::new(make_audio())).clone())
}

/// Which frame of the video this is, and whether it is a keyframe.
#[must_use]
pub fn video_frame(data: &[u8]) -> Option<(u32, bool)> {
    let number = data.get(NUMBER)?.try_into().ok()?;
    Some((u32::from_be_bytes(number), data[0] & 1 == 0))
}

fn make_video() -> MediaClip {
    let step = 90_000 / VIDEO_FPS;
    let frames: Vec<ClipFrame> = (0..VIDEO_FRAMES)
        .map(|frame| {
            let keyframe = frame % KEYFRAME_EVERY == 0;
            let data = frame_data(frame, keyframe);
            let packets = data.chunks(CHUNK_BYTES).enumerate().map(|(index, chunk)| {
                // With a picture id of 15 bits and TL0PICIDX (RFC 7741 §4.2).
                let start = if index == 0 { 0x90 } else { 0x80 };
                let (id, tl0) = (frame as u16, frame as u8);
                let mut packet = vec![start, 0xe0, 0x80 | (id >> 8) as u8, id as u8, tl0, 0];
                packet.extend_from_slice(chunk);
                Arc::from(packet)
            });
            ClipFrame {
                timestamp_ticks: frame as u64 * step,
                keyframe,
                packets: packets.collect(),
                frame_bytes: data.len(),
            }
        })
        .collect();
    MediaClip {
        name: "simulated video".to_owned(),
        codec: Codec::Vp8,
        clock_rate: 90_000,
        width: 64,
        height: 64,
        channels: 0,
        duration_ticks: frames.len() as u64 * step,
        frame_rate: VIDEO_FPS as f64,
        scalability: None,
        frames,
    }
}

fn frame_data(frame: usize, keyframe: bool) -> Vec<u8> {
    let packets = if keyframe { 4 } else { 1 + frame % 3 };
    let head = if keyframe { 0x10 } else { 0x11 };
    let mut data = vec![head, 0, 0, 0x9d, 0x01, 0x2a, 64, 0, 64, 0];
    data.extend((frame as u32).to_be_bytes());
    let mut rng = fastrand::Rng::with_seed(frame as u64);
    data.resize_with(packets * CHUNK_BYTES, || rng.u8(..));
    data
}

fn make_audio() -> MediaClip {
    let frames: Vec<ClipFrame> = (0..100_usize)
        .map(|index| ClipFrame {
            timestamp_ticks: index as u64 * 960,
            keyframe: true,
            packets: vec![Arc::from([0xfc, index as u8, 0, 1, 2, 3].as_slice())],
            frame_bytes: 6,
        })
        .collect();
    MediaClip {
        name: "simulated audio".to_owned(),
        codec: Codec::Opus,
        clock_rate: 48_000,
        width: 0,
        height: 0,
        channels: 1,
        duration_ticks: frames.len() as u64 * 960,
        frame_rate: 50.0,
        scalability: None,
        frames,
    }
}
