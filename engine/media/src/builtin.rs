//! Clips that come with the program, for runs without files. `clips/generate.sh` makes them.
//!
//! The three VP8 layers show the same 150 frames at 25 frames/s, with keyframes at the same
//! moments, every 2 s, and are 6 s long, as is the audio. The three layers of VP9, H.264 and H.265 are
//! the same at a lower rate, 4 s long; of AV1 there is one.

use crate::clip::{ClipError, ClipOptions, Codec, MediaClip};
use crate::scalability::ScalabilityMode;

const VIDEO_180P: &[u8] = include_bytes!("../clips/video-180p.ivf");
const VIDEO_360P: &[u8] = include_bytes!("../clips/video-360p.ivf");
const VIDEO_720P: &[u8] = include_bytes!("../clips/video-720p.ivf");
const VP9_180P: &[u8] = include_bytes!("../clips/video-180p.vp9.ivf");
const VP9_720P: &[u8] = include_bytes!("../clips/video-720p.vp9.ivf");
const VP9_360P: &[u8] = include_bytes!("../clips/video-360p.vp9.ivf");
const H264_180P: &[u8] = include_bytes!("../clips/video-180p.h264");
const H264_360P: &[u8] = include_bytes!("../clips/video-360p.h264");
const H264_720P: &[u8] = include_bytes!("../clips/video-720p.h264");
const VIDEO_1080P: &[u8] = include_bytes!("../clips/video-1080p.ivf");
const H264_1080P: &[u8] = include_bytes!("../clips/video-1080p.h264");
const SCREEN_540P: &[u8] = include_bytes!("../clips/screen-540p.ivf");
const SCREEN_1080P: &[u8] = include_bytes!("../clips/screen-1080p.ivf");
const H265_180P: &[u8] = include_bytes!("../clips/video-180p.h265");
const H265_360P: &[u8] = include_bytes!("../clips/video-360p.h265");
const H265_720P: &[u8] = include_bytes!("../clips/video-720p.h265");
const VIDEO_AV1: &[u8] = include_bytes!("../clips/video-360p.av1.ivf");
const VIDEO_VP9_L1T3: &[u8] = include_bytes!("../clips/video-360p.l1t3.vp9.ivf");
const VIDEO_VP9_L3T3_KEY: &[u8] = include_bytes!("../clips/video-720p.l3t3_key.vp9.ivf");
const VIDEO_AV1_L1T3: &[u8] = include_bytes!("../clips/video-360p.l1t3.av1.ivf");
const VIDEO_AV1_L3T3_KEY: &[u8] = include_bytes!("../clips/video-720p.l3t3_key.av1.ivf");
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

/// The layers there are of a video codec, low to high: three of VP8, VP9, H.264 and H.265
/// (320×180, 640×360, 1280×720), one 640×360 of AV1, none of Opus.
pub fn video(codec: Codec) -> Result<Vec<MediaClip>, ClipError> {
    let layers: &[(u16, &[u8])] = match codec {
        Codec::Vp8 => return video_layers().map(Vec::from),
        Codec::Vp9 => &[(180, VP9_180P), (360, VP9_360P), (720, VP9_720P)],
        Codec::H264 => &[(180, H264_180P), (360, H264_360P), (720, H264_720P)],
        Codec::H265 => &[(180, H265_180P), (360, H265_360P), (720, H265_720P)],
        Codec::Av1 => &[(360, VIDEO_AV1)],
        Codec::Opus => &[],
    };
    let clip = |(height, bytes): &(u16, &[u8])| {
        MediaClip::from_bytes(&format!("built-in {height}p {codec} video"), bytes)
    };
    layers.iter().map(clip).collect()
}

/// Frames of the clips in 1080p.
const FULL_HD_FRAMES: usize = 50;

/// The layers of a 1080p camera as livekit-client publishes it: 320×180, 640×360 and 1920×1080
/// (client-sdk-js src/room/participant/publishUtils.ts), 2 s long. `None` of codecs that have none.
pub fn full_hd_video(codec: Codec) -> Result<Option<Vec<MediaClip>>, ClipError> {
    let bytes = match codec {
        Codec::Vp8 => VIDEO_1080P,
        Codec::H264 => H264_1080P,
        _ => return Ok(None),
    };
    let mut layers = video(codec)?;
    layers.truncate(2);
    for layer in &mut layers {
        layer.keep_first(FULL_HD_FRAMES);
    }
    layers.push(MediaClip::from_bytes(&format!("built-in 1080p {codec} video"), bytes)?);
    Ok(Some(layers))
}

/// A shared screen, VP8 at 5 frames/s, 10 s long and mostly still; low to high: 960×540, 1920×1080, as
/// livekit-client publishes one (client-sdk-js src/room/participant/publishUtils.ts,
/// `computeDefaultScreenShareSimulcastPresets`).
pub fn screen_share() -> Result<[MediaClip; 2], ClipError> {
    Ok([
        MediaClip::from_bytes("built-in 540p screen", SCREEN_540P)?,
        MediaClip::from_bytes("built-in 1080p screen", SCREEN_1080P)?,
    ])
}

/// One clip of several layers: 640×360 of one spatial layer, 1280×720 of three, each 4 s. `None` of
/// codecs that are not published so.
pub fn scalable_video(codec: Codec, mode: ScalabilityMode) -> Result<Option<MediaClip>, ClipError> {
    use ScalabilityMode::{L1T3, L3T3Key};
    let bytes = match (codec, mode) {
        (Codec::Vp9, L1T3) => VIDEO_VP9_L1T3,
        (Codec::Vp9, L3T3Key) => VIDEO_VP9_L3T3_KEY,
        (Codec::Av1, L1T3) => VIDEO_AV1_L1T3,
        (Codec::Av1, L3T3Key) => VIDEO_AV1_L3T3_KEY,
        _ => return Ok(None),
    };
    let name = format!("built-in {codec} video of {mode}");
    let options = ClipOptions { scalability: Some(mode), ..ClipOptions::default() };
    MediaClip::from_bytes_with(&name, bytes, options).map(|opened| Some(opened.clip))
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
    fn every_video_codec_has_a_clip() {
        let layers = [(320, 180, 100e3), (640, 360, 250e3), (1_280, 720, 700e3)];
        let less = [(320, 180, 70e3), (640, 360, 180e3), (1_280, 720, 450e3)];
        for (codec, layers) in [
            (Codec::Vp9, &layers[..]),
            (Codec::H264, &layers[..]),
            (Codec::H265, &less[..]),
            (Codec::Av1, &layers[1..2]),
        ] {
            let clips = video(codec).unwrap();
            assert_eq!(clips.len(), layers.len());
            for (clip, (width, height, bitrate)) in clips.iter().zip(layers) {
                println!(
                    "{}: {:.0} kbps, {:.1} packets/s, {} bytes",
                    clip.name,
                    clip.bitrate_bps() / 1e3,
                    clip.packet_rate(),
                    clip.payload_bytes(),
                );
                assert_eq!((clip.codec, clip.width, clip.height), (codec, *width, *height));
                assert_eq!((clip.duration_ticks, clip.frame_rate), (360_000, 25.0));
                let keyframes = clip.frames.iter().enumerate().filter(|(_, frame)| frame.keyframe);
                assert_eq!(keyframes.map(|(index, _)| index).collect::<Vec<_>>(), [0, 50]);
                let ticks = clip.frames.iter().map(|frame| frame.timestamp_ticks);
                assert!(ticks.eq((0..100).map(|index| index * 3_600)));
                assert!((*bitrate..1.8 * bitrate).contains(&clip.bitrate_bps()));
            }
        }
        assert_eq!(video(Codec::Vp8).unwrap().len(), 3);
    }

    #[test]
    fn full_hd_has_the_lower_layers_of_the_same_pictures() {
        for codec in [Codec::Vp8, Codec::H264] {
            let layers = full_hd_video(codec).unwrap().unwrap();
            let sizes: Vec<_> = layers.iter().map(|clip| (clip.width, clip.height)).collect();
            assert_eq!(sizes, [(320, 180), (640, 360), (1_920, 1_080)], "{codec}");
            for clip in &layers {
                assert_eq!((clip.codec, clip.duration_ticks), (codec, 180_000));
                assert_eq!((clip.frames.len(), clip.frame_rate), (50, 25.0));
                let keyframes = clip.frames.iter().filter(|frame| frame.keyframe).count();
                assert!(keyframes == 1 && clip.frames[0].keyframe, "{codec}");
            }
            let rate = layers[2].bitrate_bps();
            println!("{codec}: {rate:.0} bps");
            assert!((1.8e6..2.6e6).contains(&rate), "{codec}: {rate}");
        }
        assert!(full_hd_video(Codec::Av1).unwrap().is_none());
    }

    #[test]
    fn a_shared_screen_is_mostly_still() {
        for (clip, size) in screen_share().unwrap().iter().zip([(960, 540), (1_920, 1_080)]) {
            assert_eq!((clip.codec, clip.width, clip.height), (Codec::Vp8, size.0, size.1));
            assert_eq!((clip.frames.len(), clip.frame_rate), (50, 5.0));
            assert_eq!(clip.duration_ticks, 900_000);
            let still = clip.frames.iter().filter(|frame| frame.packets.len() <= 2).count();
            assert!(still > 30, "{}: {still}", clip.name);
            assert!((30e3..150e3).contains(&clip.bitrate_bps()), "{}", clip.bitrate_bps());
        }
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
