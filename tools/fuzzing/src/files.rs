//! Media files.

use stampede_media::clip::ClipOptions;
use stampede_media::{Codec, MediaClip, ScalabilityMode, packetize, vp8};

/// IVF, Annex B or Ogg, whichever the bytes say it is. A clip that was made of it can be sent, and holds
/// no more than the file does.
pub(crate) fn run(input: &[u8]) {
    for scalability in [None, Some(ScalabilityMode::L1T3), Some(ScalabilityMode::L3T3Key)] {
        let options = ClipOptions { scalability, ..ClipOptions::default() };
        let Ok(opened) = MediaClip::from_bytes_with("fuzzed", input, options) else { continue };
        let clip = opened.clip;
        assert!(!clip.frames.is_empty(), "a clip without frames can't be looped");
        assert!(clip.clock_rate > 0 && clip.duration_ticks > 0);
        assert!(clip.frame_rate.is_finite() && clip.frame_rate > 0.0, "{}", clip.frame_rate);
        assert!(clip.duration_seconds() > 0.0 && clip.bitrate_bps().is_finite());
        let mut before = None;
        for frame in &clip.frames {
            assert!(!frame.packets.is_empty(), "a frame that can't be sent");
            assert!(before.is_none_or(|before| before <= frame.timestamp_ticks), "time goes back");
            assert!(frame.timestamp_ticks < clip.duration_ticks, "it is sent in the next round");
            before = Some(frame.timestamp_ticks);
        }
        // Descriptors are a few bytes a packet.
        let most = 2 * input.len() as u64 + 64 * clip.packet_count();
        assert!(clip.payload_bytes() <= most, "{} bytes", clip.payload_bytes());
        assert!(clip.packet_count() <= input.len() as u64, "{} packets", clip.packet_count());
    }
}

/// The beginnings of real ones, as short as they are whole.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let frame = |keyframe: bool| {
        let mut frame = vec![u8::from(!keyframe) | 0x10, 0, 0, 0x9d, 0x01, 0x2a, 64, 0, 48, 0];
        frame.resize(60, 7);
        frame
    };
    assert!(vp8::is_keyframe(&frame(true)) && !packetize::vp8(&frame(true), 0, 0).is_empty());
    let ivf = |fourcc: &[u8; 4], frames: &[Vec<u8>]| {
        let mut file = b"DKIF\0\0\x20\0".to_vec();
        file.extend(fourcc);
        file.extend([64, 0, 48, 0, 30, 0, 0, 0, 1, 0, 0, 0]);
        file.extend((frames.len() as u64).to_le_bytes());
        for (number, frame) in frames.iter().enumerate() {
            file.extend((frame.len() as u32).to_le_bytes());
            file.extend((number as u64).to_le_bytes());
            file.extend(frame);
        }
        file
    };
    let mut seeds = vec![
        ivf(b"VP80", &[frame(true), frame(false), frame(false)]),
        ivf(b"VP90", &[vec![0x82, 0x49, 0x83, 0x42, 0, 3, 0xf0, 2, 0xf6, 0], vec![0x86, 0, 1]]),
        ivf(b"AV01", &[vec![0x12, 0, 0x0a, 4, 0, 0, 0, 0, 0x32, 2, 0x10, 0], vec![0x12, 0]]),
    ];
    seeds.extend([Codec::H264, Codec::H265, Codec::Opus, Codec::Vp9, Codec::Av1].map(builtin_part));
    seeds
}

/// The first kilobytes of a clip of the repository.
fn builtin_part(codec: Codec) -> Vec<u8> {
    let clips = concat!(env!("CARGO_MANIFEST_DIR"), "/../../engine/media/clips/");
    let (name, bytes) = match codec {
        Codec::H264 => ("video-180p.h264", 6_000),
        Codec::H265 => ("video-180p.h265", 6_000),
        Codec::Vp9 => ("video-180p.vp9.ivf", 8_000),
        Codec::Av1 => ("video-360p.l1t3.av1.ivf", 12_000),
        _ => ("audio.ogg", 5_000),
    };
    let mut file = std::fs::read(format!("{clips}{name}")).unwrap();
    file.truncate(bytes);
    file
}
