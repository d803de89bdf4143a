//! The clips of a scenario, opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stampede_media::{ClipOptions, Codec, MediaClip, Timing, builtin, h265};
use stampede_output::one_line;
use stampede_report::Failure;
use stampede_scenario::values::PublishResolution;
use stampede_scenario::{Clips, CodecMix, Scenario, ScreenSpec, Target, VideoSpec};

/// Opens what a scenario publishes. What has to be said of the files goes to `notices`.
///
/// # Errors
/// Exit code 104: the first file that can't be used.
pub(crate) fn open(scenario: &Scenario, notices: &mut Vec<String>) -> Result<Clips, Failure> {
    let (video, more_video) = match &scenario.video {
        Some(spec) => {
            let first = spec.codec.as_ref().and_then(|mix| mix.codecs().next());
            let video = video_layers(spec, first, notices)?;
            let mut more: Vec<Vec<Arc<MediaClip>>> = Vec::new();
            for codec in spec.codec.iter().chain(&spec.of_rooms).flat_map(CodecMix::codecs) {
                let known = |layers: &Vec<Arc<MediaClip>>| {
                    layers.first().is_some_and(|clip| clip.codec == codec)
                };
                if !known(&video) && !more.iter().any(known) {
                    more.push(video_layers(spec, Some(codec), notices)?);
                }
            }
            (video, more)
        }
        None => Default::default(),
    };
    let screen = match &scenario.screen {
        Some(spec) => screen_layers(spec, notices)?,
        None => Vec::new(),
    };
    let mut clips = video.iter().chain(more_video.iter().flatten()).chain(&screen);
    let recordable = |clip: &Arc<MediaClip>| stampede_media::is_recordable(clip.codec);
    let unrecordable = clips.find(|clip| !recordable(clip)).map(|clip| clip.codec);
    if let Some(codec) = unrecordable
        && scenario.record.is_some()
    {
        return Err(Failure::config(format!(
            "--record: {codec} can't be recorded yet, only VP8, H.264, H.265 and Opus: publish \
             one of those, or leave --record out"
        )));
    }
    if matches!(scenario.target, Target::Embedded(_)) {
        check_profile("--video", &video)?;
        check_profile("--screen-share", &screen)?;
    }
    let audio = scenario.audio.as_ref().map(|file| audio_clip(file.as_deref())).transpose()?;
    let backup = scenario.video.as_ref().and_then(|spec| {
        let mut codecs = video.iter().chain(more_video.iter().flatten()).map(|clip| clip.codec);
        Some((spec, codecs.find_map(|codec| spec.backup.of(codec))?))
    });
    let backup = match backup {
        Some((spec, codec)) => {
            let mut layers = built_in(spec.resolution, codec)?;
            if spec.single_layer || is_never_asked_for(&layers) {
                layers.drain(..layers.len() - 1);
            }
            layers
        }
        None => Vec::new(),
    };
    let of_screen = scenario.screen.as_ref().zip(screen.first());
    let screen_backup = match of_screen.and_then(|(spec, clip)| spec.backup.of(clip.codec)) {
        Some(codec) => builtin::screen_share(codec).map_err(Failure::other)?,
        None => Vec::new(),
    };
    // It has two.
    let screen_backup = screen_backup.into_iter().next_back().map(Arc::new);
    let sound = scenario.screen.is_some() && scenario.shape.screen_share_audio;
    let screen_audio = sound.then(|| audio_clip(None)).transpose()?;
    Ok(Clips { video, more_video, audio, backup, screen, screen_backup, screen_audio })
}

/// Of a backup of two layers livekit-server 1.13.5 asks for none: it looks for the third
/// (pkg/sfu/buffer/videolayerutils.go, `GetVideoQualityForSpatialLayer`).
fn is_never_asked_for(backup: &[Arc<MediaClip>]) -> bool {
    backup.len() == 2
}

/// Refuses files of H.265 in a profile that the embedded SFU does not have.
fn check_profile(flag: &str, clips: &[Arc<MediaClip>]) -> Result<(), Failure> {
    let of_file = clips.iter().find_map(|clip| Some((clip, h265_profile(clip)?)));
    match of_file.filter(|(_, profile)| *profile != H265_MAIN) {
        Some((clip, profile)) => Err(Failure::config(format!(
            "{flag}: {}: it is of H.265 profile {profile}, and the embedded SFU forwards Main \
             (profile {H265_MAIN}) only: encode it with 8 bits a sample, or add --url \
             ws://HOST:7880",
            one_line(&clip.name)
        ))),
        None => Ok(()),
    }
}

/// Profile of H.265 (annex A) that browsers and the embedded SFU have.
const H265_MAIN: u8 = 1;

/// The profile of an H.265 clip, by its first picture.
fn h265_profile(clip: &MediaClip) -> Option<u8> {
    let packets = &clip.frames.first().filter(|_| clip.codec == Codec::H265)?.packets;
    let sets = packets.iter().find_map(|payload| h265::sequence_parameters(payload))?;
    Some(h265::Parameters::parse(sets)?.profile_tier_level.profile_id)
}

/// The layers of a codec; without one those of the files, or of VP8.
fn video_layers(
    spec: &VideoSpec,
    codec: Option<Codec>,
    notices: &mut Vec<String>,
) -> Result<Vec<Arc<MediaClip>>, Failure> {
    let mut layers = if let Some(clip) = scalable_clip(spec, codec)? {
        vec![Arc::new(clip)]
    } else if spec.files.is_empty() {
        built_in(spec.resolution, codec.unwrap_or(Codec::Vp8))?
    } else {
        let scalability = spec.scalability(codec);
        let options = ClipOptions { frame_rate: spec.frame_rate, scalability };
        Files { flag: "--video", paths: &spec.files, codec, options }.open(notices)?
    };
    if spec.single_layer {
        layers.drain(..layers.len() - 1);
    }
    check_order("--video", &layers)?;
    Ok(layers)
}

/// The built-in layers of a size and a codec, each a stream.
fn built_in(resolution: PublishResolution, codec: Codec) -> Result<Vec<Arc<MediaClip>>, Failure> {
    let layers = match resolution {
        PublishResolution::P360 => builtin::small_video(codec),
        PublishResolution::P720 => builtin::video(codec),
        PublishResolution::P1080 => builtin::full_hd_video(codec),
    };
    Ok(layers.map_err(Failure::other)?.into_iter().map(Arc::new).collect())
}

/// The layers of a shared screen.
fn screen_layers(
    spec: &ScreenSpec,
    notices: &mut Vec<String>,
) -> Result<Vec<Arc<MediaClip>>, Failure> {
    let ScreenSpec { files: paths, codec, .. } = spec;
    if paths.is_empty() {
        let clips = builtin::screen_share(codec.unwrap_or(Codec::Vp8));
        return Ok(clips.map_err(Failure::other)?.into_iter().map(Arc::new).collect());
    }
    let options = ClipOptions::default();
    let layers = Files { flag: "--screen-share", paths, codec: *codec, options }.open(notices)?;
    check_order("--screen-share", &layers)?;
    Ok(layers)
}

/// Layers are given lowest first.
fn check_order(flag: &str, layers: &[Arc<MediaClip>]) -> Result<(), Failure> {
    for pair in layers.windows(2) {
        let [low, high] = pair else { continue };
        let pixels = |clip: &MediaClip| u32::from(clip.width) * u32::from(clip.height);
        if pixels(low) >= pixels(high) {
            return Err(Failure::config(format!(
                "{flag}: '{}' ({}x{}) comes before '{}' ({}x{}): give the lowest layer first, \
                 each larger than the one before",
                one_line(&low.name),
                low.width,
                low.height,
                one_line(&high.name),
                high.width,
                high.height
            )));
        }
    }
    Ok(())
}

/// The built-in clip of several layers in one stream, if it is to be published.
fn scalable_clip(spec: &VideoSpec, codec: Option<Codec>) -> Result<Option<MediaClip>, Failure> {
    let built_in = codec.filter(|_| spec.files.is_empty());
    let Some((codec, mode)) = built_in.zip(spec.scalability(codec)) else { return Ok(None) };
    builtin::scalable_video(codec, mode).map_err(Failure::other)
}

fn audio_clip(file: Option<&Path>) -> Result<Arc<MediaClip>, Failure> {
    let Some(file) = file else {
        return builtin::audio().map(Arc::new).map_err(Failure::other);
    };
    let clip =
        MediaClip::open(file).map_err(|error| Failure::config(format!("--audio: {error}")))?;
    if clip.codec != Codec::Opus {
        return Err(Failure::config(format!(
            "--audio: {}: byte 0: it holds {}, but --audio takes an Ogg file with Opus",
            file.display(),
            clip.codec
        )));
    }
    Ok(Arc::new(clip))
}

/// What has to be said of how a file's timing was understood.
fn timing_notice(flag: &str, clip: &MediaClip, timing: Timing) -> Option<String> {
    let text = match timing {
        Timing::AsSaid => return None,
        Timing::Assumed => {
            let otherwise = match flag {
                "--video" => "say otherwise with --video-frame-rate",
                _ => "encode it with its timing, or as IVF",
            };
            format!(
                "does not say how fast it plays; it is taken for {} frames/s ({otherwise})",
                clip.frame_rate
            )
        }
        Timing::Slow { frame_s } => format!(
            "has a frame every {frame_s:.1} s by its timestamps; if that is not meant, its timebase \
             is wrong"
        ),
        Timing::Corrected { said_s, mistake } => format!(
            "would have {said_s:.4} s a frame by its timebase; {mistake}, and it is read so, as \
             {:.2} frames/s",
            clip.frame_rate
        ),
    };
    Some(format!("{flag}: {} {text}", one_line(&clip.name)))
}

/// Video files that a flag names, lowest layer first.
struct Files<'a> {
    flag: &'static str,
    paths: &'a [PathBuf],
    /// What they are to hold; without it what the first one holds.
    codec: Option<Codec>,
    options: ClipOptions,
}

impl Files<'_> {
    /// Opens them: all of one codec.
    fn open(&self, notices: &mut Vec<String>) -> Result<Vec<Arc<MediaClip>>, Failure> {
        let Self { flag, options, .. } = self;
        let mut layers: Vec<Arc<MediaClip>> = Vec::new();
        for file in self.paths {
            let opened = MediaClip::open_with(file, *options)
                .map_err(|error| Failure::config(format!("{flag}: {error}")))?;
            let clip = opened.clip;
            let first = layers.first().map(|first| first.codec);
            let wanted = self.codec.or(first).unwrap_or(clip.codec);
            let name = one_line(&clip.name);
            if !clip.codec.is_video() || clip.codec != wanted {
                let takes = match wanted.is_video() {
                    true => wanted.to_string(),
                    false => "video".to_owned(),
                };
                return Err(Failure::config(format!(
                    "{flag}: {name}: byte 0: it holds {}, but {takes} is published; give files of \
                     one codec, and {flag}-codec to match",
                    clip.codec
                )));
            }
            if options.frame_rate.is_some() && !matches!(clip.codec, Codec::H264 | Codec::H265) {
                return Err(Failure::config(format!(
                    "{flag}-frame-rate: {name} has timestamps of its own; leave the flag out"
                )));
            }
            notices.extend(timing_notice(flag, &clip, opened.timing));
            layers.push(Arc::new(clip));
        }
        Ok(layers)
    }
}
