//! Clips that come with the program, for runs without files. `clips/generate.sh` makes them.
//!
//! The three video layers show the same 150 frames at 25 frames/s, with keyframes at the same
//! moments, every 2 s; all clips are 6 s long.

use crate::clip::{ClipError, MediaClip};

const VIDEO_180P: &[u8] = include_bytes!("../clips/video-180p.ivf");
const VIDEO_360P: &[u8] = include_bytes!("../clips/video-360p.ivf");
const VIDEO_720P: &[u8] = include_bytes!("../clips/video-720p.ivf");
const AUDIO: &[u8] = include_bytes!("../clips/audio.ogg");

/// A VP8 simulcast set, low to high: 320×180, 640×360, 1280×720.
///
/// An error would be a damaged build; it is returned rather than turned into a panic.
pub fn video_layers() -> Result<[MediaClip; 3], ClipError> {
    Ok([
        MediaClip::from_bytes("built-in 180p video", VIDEO_180P)?,
        MediaClip::from_bytes("built-in 360p video", VIDEO_360P)?,
        MediaClip::from_bytes("built-in 720p video", VIDEO_720P)?,
    ])
}

/// Stereo Opus, 20 ms packets.
pub fn audio() -> Result<MediaClip, ClipError> {
    MediaClip::from_bytes("built-in audio", AUDIO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clip::Codec;

    #[test]
    fn layers_are_a_simulcast_set_with_real_rates() {
        let layers = video_layers().unwrap();
        let least = [(320, 180, 150e3, 25.0), (640, 360, 600e3, 60.0), (1280, 720, 1_500e3, 187.0)];
        for (clip, (width, height, bitrate, packets)) in layers.iter().zip(least) {
            println!(
                "{}: {} B, {:.0} kbps, {:.1} packets/s, largest frame {} B",
                clip.name,
                clip.payload_bytes(),
                clip.bitrate_bps() / 1e3,
                clip.packet_rate(),
                clip.frames.iter().map(|frame| frame.frame_bytes).max().unwrap(),
            );
            assert_eq!((clip.codec, clip.width, clip.height), (Codec::Vp8, width, height));
            assert_eq!((clip.duration_ticks, clip.frame_rate), (540_000, 25.0));
            assert!(clip.bitrate_bps() >= bitrate && clip.packet_rate() >= packets);
            let keyframes = clip.frames.iter().enumerate().filter(|(_, frame)| frame.keyframe);
            assert_eq!(keyframes.map(|(index, _)| index).collect::<Vec<_>>(), [0, 50, 100]);
            let ticks = clip.frames.iter().map(|frame| frame.timestamp_ticks);
            assert!(ticks.eq((0..150).map(|index| index * 3_600)));
        }
        assert!(layers[2].packet_rate() <= 240.0);
    }

    #[test]
    fn audio_is_20_ms_packets() {
        let clip = audio().unwrap();
        println!(
            "{}: {:.0} kbps, {} packets",
            clip.name,
            clip.bitrate_bps() / 1e3,
            clip.frames.len()
        );
        assert_eq!((clip.codec, clip.clock_rate, clip.channels), (Codec::Opus, 48_000, 2));
        let ticks = clip.frames.iter().map(|frame| frame.timestamp_ticks);
        assert!(ticks.eq((0..clip.frames.len() as u64).map(|index| index * 960)));
        assert_eq!(clip.duration_ticks, clip.frames.len() as u64 * 960);
        assert!((40e3..60e3).contains(&clip.bitrate_bps()));
        assert!(clip.packet_count() == clip.frames.len() as u64 && clip.frames.len() >= 300);
    }
}
