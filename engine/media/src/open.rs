//! Opening a media file: its first bytes say what it is, and which module reads it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::clip::{
    CLIP_BYTES_MAX, ClipError, ClipOptions, ClipProblem, MediaClip, OpenedClip, Timing,
};
use crate::{annex_b, ivf, ogg_opus};

impl MediaClip {
    /// Reads, checks and packetises a file: IVF with VP8, VP9 or AV1, H.264 or H.265 in Annex B
    /// form, or Ogg with Opus. Which one it is its first bytes say, not its name.
    pub fn open(path: impl AsRef<Path>) -> Result<MediaClip, ClipError> {
        MediaClip::open_with(path, ClipOptions::default()).map(|opened| opened.clip)
    }

    /// The same with options.
    pub fn open_with(
        path: impl AsRef<Path>,
        options: ClipOptions,
    ) -> Result<OpenedClip, ClipError> {
        MediaClip::open_up_to(CLIP_BYTES_MAX, path.as_ref(), options)
    }

    /// The same of a file of so many bytes at most.
    fn open_up_to(
        bytes_max: u64,
        path: &Path,
        options: ClipOptions,
    ) -> Result<OpenedClip, ClipError> {
        let name = path.display().to_string();
        let read = || -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            // One byte more than allowed, so that a pipe or a growing file can't fill the memory.
            File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => MediaClip::from_bytes_up_to(bytes_max, &name, &bytes, options),
            Err(source) => Err(ClipError::Read { file: name, source }),
        }
    }

    /// The same for bytes in memory; `name` is for messages.
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<MediaClip, ClipError> {
        MediaClip::from_bytes_with(name, bytes, ClipOptions::default()).map(|opened| opened.clip)
    }

    /// The same with options.
    pub fn from_bytes_with(
        name: &str,
        bytes: &[u8],
        options: ClipOptions,
    ) -> Result<OpenedClip, ClipError> {
        MediaClip::from_bytes_up_to(CLIP_BYTES_MAX, name, bytes, options)
    }

    fn from_bytes_up_to(
        bytes_max: u64,
        name: &str,
        bytes: &[u8],
        options: ClipOptions,
    ) -> Result<OpenedClip, ClipError> {
        let len_bytes = bytes.len() as u64;
        let (clip, advice) = if bytes.is_empty() {
            (Err((0, ClipProblem::Empty)), KIND_ADVICE)
        } else if len_bytes > bytes_max {
            (Err((0, ClipProblem::TooLong { len_bytes })), LENGTH_ADVICE)
        } else if bytes.starts_with(ivf::MAGIC) {
            (ivf::read(name, bytes, options.scalability), video_advice(bytes))
        } else if bytes.starts_with(ogg_opus::MAGIC) {
            let as_said = |clip| OpenedClip { clip, timing: Timing::AsSaid };
            (ogg_opus::read(name, bytes).map(as_said), AUDIO_ADVICE)
        } else if annex_b::is_h265(bytes) {
            (annex_b::read_h265(name, bytes, options), H265_ADVICE)
        } else if annex_b::begins(bytes) {
            (annex_b::read(name, bytes, options), H264_ADVICE)
        } else {
            let found = format!("\"{}\"", bytes[..bytes.len().min(8)].escape_ascii());
            (Err((0, ClipProblem::UnknownKind { found })), KIND_ADVICE)
        };
        clip.map_err(|(offset, problem)| {
            // Pictures need no encoding to be timed.
            let advice = match (&problem, bytes.starts_with(ivf::MAGIC)) {
                (ClipProblem::Timing { .. }, true) => IVF_TIMING_ADVICE,
                (ClipProblem::Timing { .. }, false) => ANNEX_B_TIMING_ADVICE,
                _ => advice,
            };
            ClipError::Refused { file: name.to_owned(), offset, problem, advice }
        })
    }
}

/// What to do about an IVF file, by the codec it says it has.
fn video_advice(bytes: &[u8]) -> &'static str {
    match bytes.get(8..12) {
        Some(b"VP90") => VP9_ADVICE,
        Some(b"AV01") => AV1_ADVICE,
        Some(b"H264" | b"AVC1") => H264_ADVICE,
        _ => VP8_ADVICE,
    }
}

const VP8_ADVICE: &str = "make a usable one with: ffmpeg -i INPUT -an -c:v libvpx -b:v 1500k \
    -g 60 -auto-alt-ref 0 -deadline realtime out.ivf";
const VP9_ADVICE: &str = "make a usable one with: ffmpeg -i INPUT -an -c:v libvpx-vp9 \
    -pix_fmt yuv420p -b:v 1000k -g 60 -lag-in-frames 0 -deadline realtime -cpu-used 8 out.ivf";
const AV1_ADVICE: &str = "make a usable one with: ffmpeg -i INPUT -an -c:v libaom-av1 \
    -pix_fmt yuv420p -b:v 800k -g 60 -lag-in-frames 0 -usage realtime -cpu-used 8 out.ivf";
const H264_ADVICE: &str = "make a usable one with: ffmpeg -i INPUT -an -c:v libx264 \
    -pix_fmt yuv420p -profile:v baseline -b:v 1500k -g 60 -tune zerolatency out.h264";
const H265_ADVICE: &str = "make a usable one with: ffmpeg -i INPUT -an -c:v libx265 \
    -pix_fmt yuv420p -b:v 1000k -g 60 -tune zerolatency \
    -x265-params bframes=0:open-gop=0:repeat-headers=1 out.h265";
const AUDIO_ADVICE: &str = "make a usable one with: ffmpeg -i INPUT -vn -map 0:a:0 -c:a libopus \
    -ac 2 -b:a 48k -frame_duration 20 out.ogg";
const KIND_ADVICE: &str = "give VP8, VP9 or AV1 in IVF (ffmpeg -i INPUT -an -c:v libvpx \
    -b:v 1500k -g 60 out.ivf), H.264 or H.265 in Annex B (… -c:v libx264 -profile:v baseline \
    out.h264) or Opus in Ogg (ffmpeg -i INPUT -vn -c:a libopus -b:a 48k out.ogg)";
const IVF_TIMING_ADVICE: &str = "give it its frame rate anew (25 here) with: ffmpeg -i INPUT \
    -c copy -bsf:v setts=ts=N:duration=1:time_base=1/25 out.ivf";
const ANNEX_B_TIMING_ADVICE: &str = "say its frame rate with --video-frame-rate, or give it its own \
    (25 here) with: ffmpeg -i INPUT -c copy -bsf:v h264_metadata=tick_rate=50 out.h264 \
    (hevc_metadata=tick_rate=25 for H.265)";
const LENGTH_ADVICE: &str = "cut it (ffmpeg -i INPUT -t 60 -c copy OUTPUT); it is looped anyway";

#[cfg(test)]
mod tests;
