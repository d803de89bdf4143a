//! Clips that come with the program, for runs without files. `clips/generate.sh` makes them.
//!
//! The three VP8 layers show the same 150 frames at 25 frames/s, with keyframes at the same
//! moments, every 2 s, and are 6 s long, as is the audio. The three layers of VP9, H.264 and H.265 are
//! the same at a lower rate, 4 s long; of AV1 there is one. All have a picture in 1080p, 2 s long, and
//! a shared screen.

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
const VP9_1080P: &[u8] = include_bytes!("../clips/video-1080p.vp9.ivf");
const H265_1080P: &[u8] = include_bytes!("../clips/video-1080p.h265");
const AV1_1080P: &[u8] = include_bytes!("../clips/video-1080p.av1.ivf");
const SCREEN_540P: &[u8] = include_bytes!("../clips/screen-540p.ivf");
const SCREEN_1080P: &[u8] = include_bytes!("../clips/screen-1080p.ivf");
const SCREEN_H264_540P: &[u8] = include_bytes!("../clips/screen-540p.h264");
const SCREEN_H264_1080P: &[u8] = include_bytes!("../clips/screen-1080p.h264");
const SCREEN_H265_540P: &[u8] = include_bytes!("../clips/screen-540p.h265");
const SCREEN_H265_1080P: &[u8] = include_bytes!("../clips/screen-1080p.h265");
const SCREEN_VP9_1080P: &[u8] = include_bytes!("../clips/screen-1080p.vp9.ivf");
const SCREEN_AV1_1080P: &[u8] = include_bytes!("../clips/screen-1080p.av1.ivf");
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
    clips(layers, codec, "video")
}

/// Clips of one codec by their heights.
fn clips(layers: &[(u16, &[u8])], codec: Codec, what: &str) -> Result<Vec<MediaClip>, ClipError> {
    let clip = |(height, bytes): &(u16, &[u8])| {
        MediaClip::from_bytes(&format!("built-in {height}p {codec} {what}"), bytes)
    };
    layers.iter().map(clip).collect()
}

/// The layers of a 360p camera as livekit-client publishes it: 320×180 and 640×360 (client-sdk-js
/// src/room/participant/publishUtils.ts), those of [`video`]; 640×360 alone of AV1, none of Opus.
pub fn small_video(codec: Codec) -> Result<Vec<MediaClip>, ClipError> {
    let mut layers = video(codec)?;
    layers.retain(|clip| clip.height <= 360);
    Ok(layers)
}

/// Frames of the clips in 1080p.
const FULL_HD_FRAMES: usize = 50;

/// The layers of a 1080p camera as livekit-client publishes it: 320×180, 640×360 and 1920×1080
/// (client-sdk-js src/room/participant/publishUtils.ts), 2 s long; AV1 has one of 1920×1080, for it has
/// no others of the same pictures. None of Opus.
pub fn full_hd_video(codec: Codec) -> Result<Vec<MediaClip>, ClipError> {
    let bytes = match codec {
        Codec::Vp8 => VIDEO_1080P,
        Codec::Vp9 => VP9_1080P,
        Codec::H264 => H264_1080P,
        Codec::H265 => H265_1080P,
        Codec::Av1 => return clips(&[(1_080, AV1_1080P)], codec, "video"),
        Codec::Opus => return Ok(Vec::new()),
    };
    let mut layers = small_video(codec)?;
    for layer in &mut layers {
        layer.keep_first(FULL_HD_FRAMES);
    }
    layers.extend(clips(&[(1_080, bytes)], codec, "video")?);
    Ok(layers)
}

/// A shared screen at 5 frames/s, 10 s long and mostly still; low to high: 960×540, 1920×1080 as
/// livekit-client publishes one (client-sdk-js src/room/participant/publishUtils.ts,
/// `computeDefaultScreenShareSimulcastPresets`), of VP9 and AV1 1920×1080 alone, for it has those in one
/// stream. None of Opus.
pub fn screen_share(codec: Codec) -> Result<Vec<MediaClip>, ClipError> {
    let layers: &[(u16, &[u8])] = match codec {
        Codec::Vp8 => &[(540, SCREEN_540P), (1_080, SCREEN_1080P)],
        Codec::Vp9 => &[(1_080, SCREEN_VP9_1080P)],
        Codec::H264 => &[(540, SCREEN_H264_540P), (1_080, SCREEN_H264_1080P)],
        Codec::H265 => &[(540, SCREEN_H265_540P), (1_080, SCREEN_H265_1080P)],
        Codec::Av1 => &[(1_080, SCREEN_AV1_1080P)],
        Codec::Opus => &[],
    };
    clips(layers, codec, "screen")
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
    fn a_small_camera_has_no_layer_above_360p() {
        for codec in [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::H265, Codec::Av1] {
            let heights: Vec<_> = small_video(codec).unwrap().iter().map(|it| it.height).collect();
            let expected = if codec == Codec::Av1 { &[360][..] } else { &[180, 360] };
            assert_eq!(heights, expected, "{codec}");
        }
    }

    #[test]
    fn full_hd_has_the_lower_layers_of_the_same_pictures() {
        let all = &[(320, 180), (640, 360), (1_920, 1_080)][..];
        for (codec, expected, rates) in [
            (Codec::Vp8, all, 1.8e6..2.6e6),
            (Codec::Vp9, all, 1.2e6..1.9e6),
            (Codec::H264, all, 1.8e6..2.6e6),
            (Codec::H265, all, 0.9e6..1.4e6),
            (Codec::Av1, &all[2..], 0.9e6..1.4e6),
        ] {
            let layers = full_hd_video(codec).unwrap();
            let sizes: Vec<_> = layers.iter().map(|clip| (clip.width, clip.height)).collect();
            assert_eq!(sizes, expected, "{codec}");
            for clip in &layers {
                assert_eq!((clip.codec, clip.duration_ticks), (codec, 180_000));
                assert_eq!((clip.frames.len(), clip.frame_rate), (50, 25.0));
                let keyframes = clip.frames.iter().filter(|frame| frame.keyframe).count();
                assert!(keyframes == 1 && clip.frames[0].keyframe, "{codec}");
            }
            let rate = layers.last().unwrap().bitrate_bps();
            println!("{codec}: {rate:.0} bps");
            assert!(rates.contains(&rate), "{codec}: {rate}");
        }
    }

    #[test]
    fn a_shared_screen_is_mostly_still() {
        let both = &[(960, 540), (1_920, 1_080)][..];
        for (codec, sizes) in [
            (Codec::Vp8, both),
            (Codec::Vp9, &both[1..]),
            (Codec::H264, both),
            (Codec::H265, both),
            (Codec::Av1, &both[1..]),
        ] {
            let clips = screen_share(codec).unwrap();
            assert_eq!(clips.len(), sizes.len(), "{codec}");
            for (clip, size) in clips.iter().zip(sizes) {
                assert_eq!((clip.codec, clip.width, clip.height), (codec, size.0, size.1));
                assert_eq!((clip.frames.len(), clip.frame_rate), (50, 5.0));
                assert_eq!(clip.duration_ticks, 900_000);
                let still = clip.frames.iter().filter(|frame| frame.packets.len() <= 2).count();
                println!("{}: {:.0} bps, {still} of 50", clip.name, clip.bitrate_bps());
                assert!(still > 30, "{}: {still}", clip.name);
                assert!((20e3..150e3).contains(&clip.bitrate_bps()), "{}", clip.bitrate_bps());
            }
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
