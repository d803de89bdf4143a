//! IVF files of VP8, VP9 and AV1: a 32-byte header, then frames of a 12-byte header and data, all
//! little-endian (libvpx `ivfdec.c`). The format has no RFC; what libvpx and ffmpeg write is read.
//!
//! By hand rather than with the `ivf` crate: its reader has no offsets to report and its writer
//! panics when a write fails.

use std::sync::Arc;

use crate::clip::{
    ClipFrame, ClipProblem, Codec, FRAME_BYTES_MAX, FRAME_GAP_MAX_SECONDS, FRAME_RATE_MAX,
    FRAME_RATE_MIN, FRAME_RATE_SLOW, MediaClip, OpenedClip, ProblemAt, Timing, TimingMistake,
};
use crate::layered::Cutter;
use crate::scalability::{Scalability, ScalabilityMode};
use crate::{av1, packetize, vp8, vp9};

/// The first four bytes of every IVF file.
pub const MAGIC: &[u8; 4] = b"DKIF";
/// Length of the file header.
pub const HEADER_BYTES: usize = 32;
/// Where the header has the timebase.
const TIMEBASE_OFFSET: u64 = 16;
/// Length of each frame's header.
pub const FRAME_HEADER_BYTES: usize = 12;
/// Largest side of a VP8 picture: 14 bits (RFC 6386 §9.1).
pub const SIDE_PIXELS_MAX: u16 = 0x3fff;

/// Steps from frame to frame that say how fast a file plays; fewer may be anything.
const STEPS_MIN: usize = 4;
/// Frames a second that a mistake in the timing must leave to be taken for one.
const LIKELY_RATES: std::ops::RangeInclusive<f64> = 5.0..=120.0;

/// One frame as the file has it.
#[derive(Debug, Clone, Copy)]
struct RawFrame<'a> {
    offset: u64,
    timestamp: u64,
    data: &'a [u8],
}

/// What a frame says about itself.
#[derive(Debug, Clone, Copy)]
struct Picture {
    keyframe: bool,
    shown: bool,
    size: Option<(u16, u16)>,
}

/// The two numbers a timestamp is multiplied with: `timestamp × scale / rate` seconds.
#[derive(Debug, Clone, Copy)]
struct Timebase {
    rate: u64,
    scale: u64,
}

impl Timebase {
    /// Seconds of so many units.
    fn seconds(self, timestamp: u64) -> f64 {
        timestamp as f64 * self.scale as f64 / self.rate as f64
    }

    /// So many seconds from frame to frame can't be meant.
    fn problem(self, step_s: f64, cause: &str) -> ClipProblem {
        let figure = match step_s < 1.0 {
            true => format!("{:.0} frames a second", 1.0 / step_s),
            false => format!("{step_s:.0} s a frame"),
        };
        let Self { rate, scale } = self;
        let figure = format!("{figure} by its timestamps, which are {scale}/{rate} s each");
        ClipProblem::Timing { figure, cause: cause.to_owned() }
    }

    /// To the 90 kHz clock, from the start each time so that rounding never adds up.
    fn ticks(self, timestamp: u128) -> u64 {
        let ticks = timestamp * 90_000 * u128::from(self.scale) / u128::from(self.rate);
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

/// Reads a whole IVF file with VP8, VP9 or AV1 in it and packetises it; `mode` is how its pictures
/// are divided into layers.
pub(crate) fn read(
    name: &str,
    bytes: &[u8],
    mode: Option<ScalabilityMode>,
) -> Result<OpenedClip, ProblemAt> {
    let (codec, timebase) = read_header(bytes)?;
    let raw = read_frames(bytes)?;
    let pictures = check_pictures(codec, &raw)?;
    let size = pictures.iter().find_map(|picture| picture.size);
    let (width, height) = size.ok_or((HEADER_BYTES as u64, ClipProblem::NoFrames))?;
    let shown: Vec<u64> = raw
        .iter()
        .zip(&pictures)
        .filter(|(_, picture)| picture.shown)
        .map(|(frame, _)| frame.timestamp)
        .collect();
    if shown.is_empty() {
        return Err((HEADER_BYTES as u64, ClipProblem::NoFrames));
    }
    let (timebase, timing) =
        understand(&shown, timebase).map_err(|problem| (TIMEBASE_OFFSET, problem))?;
    let ticks = check_timestamps(&raw, &pictures, timebase)?;
    let duration_ticks = duration(&shown, &ticks, timebase);
    let frame_rate = shown.len() as f64 * 90_000.0 / duration_ticks as f64;
    if frame_rate > FRAME_RATE_MAX {
        let step_s = 1.0 / frame_rate;
        return Err((TIMEBASE_OFFSET, timebase.problem(step_s, "its timebase is probably wrong")));
    }
    let mut cutter = match mode {
        Some(mode) => Some(
            Cutter::new(codec, mode, (width, height))
                .ok_or((8, ClipProblem::NoScalability { codec, mode }))?,
        ),
        None => None,
    };
    let mut layered = Vec::new();
    let mut frames = Vec::with_capacity(raw.len());
    for (index, ((frame, picture), timestamp_ticks)) in
        raw.iter().zip(&pictures).zip(ticks).enumerate()
    {
        let packets = match &mut cutter {
            None => packets(codec, frame.data, picture.keyframe, index),
            Some(cutter) => {
                let cut = cutter.cut(frame.data, picture.keyframe);
                let (packets, layers) = cut.map_err(|problem| (frame.offset, problem))?;
                layered.push(layers);
                packets
            }
        };
        frames.push(ClipFrame {
            timestamp_ticks,
            keyframe: picture.keyframe,
            packets,
            frame_bytes: frame.data.len(),
        });
    }
    let (width, height) = cutter.as_ref().map_or((width, height), Cutter::size);
    let scalability = mode.map(|mode| Scalability::new(mode, (width, height), layered));
    let clip = MediaClip {
        name: name.to_owned(),
        codec,
        clock_rate: codec.clock_rate(),
        width,
        height,
        channels: 0,
        frames,
        duration_ticks,
        frame_rate,
        scalability,
    };
    Ok(OpenedClip { clip, timing })
}

fn packets(codec: Codec, data: &[u8], keyframe: bool, index: usize) -> Vec<Arc<[u8]>> {
    let (picture_id, tl0_pic_idx) = ((index & 0x7fff) as u16, index as u8);
    match codec {
        Codec::Vp9 => packetize::vp9(data, picture_id, tl0_pic_idx),
        Codec::Av1 => packetize::av1(data, keyframe),
        _ => packetize::vp8(data, picture_id, tl0_pic_idx),
    }
}

fn read_header(bytes: &[u8]) -> Result<(Codec, Timebase), ProblemAt> {
    let Some(header) = bytes.get(..HEADER_BYTES) else {
        return Err((bytes.len() as u64, truncated("the IVF header", HEADER_BYTES, bytes.len())));
    };
    let short = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let long = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| header[at + byte]));
    let bad = |at: u64, field, value| Err((at, ClipProblem::BadField { field, value }));
    if short(4) != 0 {
        return bad(4, "the IVF version", format!("{}; only 0 exists", short(4)));
    }
    if usize::from(short(6)) != HEADER_BYTES {
        return bad(6, "the IVF header length", format!("{}, not 32", short(6)));
    }
    let codec = match &header[8..12] {
        b"VP80" => Codec::Vp8,
        b"VP90" => Codec::Vp9,
        b"AV01" => Codec::Av1,
        b"H264" | b"AVC1" => return Err((8, ClipProblem::H264InIvf)),
        other => {
            let found = format!("\"{}\"", other.escape_ascii());
            return Err((8, ClipProblem::UnknownCodec { found }));
        }
    };
    let side_pixels_max = if codec == Codec::Vp8 { SIDE_PIXELS_MAX } else { u16::MAX };
    for (at, field) in [(12, "the width"), (14, "the height")] {
        if !(1..=side_pixels_max).contains(&short(at)) {
            let value = format!("{}; {codec} has 1 to {side_pixels_max} pixels", short(at));
            return bad(at as u64, field, value);
        }
    }
    for (at, field) in [(16, "the timebase denominator"), (20, "the timebase numerator")] {
        if long(at) == 0 {
            return bad(at as u64, field, "0".to_owned());
        }
    }
    Ok((codec, Timebase { rate: u64::from(long(16)), scale: u64::from(long(20)) }))
}

/// The header's frame count (byte 24) is not looked at: libvpx writes frames there, ffmpeg the
/// duration, and an interrupted recording nothing.
fn read_frames(bytes: &[u8]) -> Result<Vec<RawFrame<'_>>, ProblemAt> {
    let mut frames = Vec::new();
    let mut at = HEADER_BYTES;
    while at < bytes.len() {
        let (offset, index) = (at as u64, frames.len() as u64);
        let rest = &bytes[at..];
        let Some((header, rest)) = rest.split_first_chunk::<FRAME_HEADER_BYTES>() else {
            return Err((offset, truncated("the IVF frame header", 12, rest.len())));
        };
        let [l0, l1, l2, l3, timestamp @ ..] = *header;
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if len == 0 || len > FRAME_BYTES_MAX {
            return Err((offset, ClipProblem::FrameSize { index, len_bytes: len as u64 }));
        }
        let Some(data) = rest.get(..len) else {
            return Err((offset, truncated("the last IVF frame", len, rest.len())));
        };
        frames.push(RawFrame { offset, timestamp: u64::from_le_bytes(timestamp), data });
        at += FRAME_HEADER_BYTES + len;
    }
    if frames.is_empty() {
        return Err((HEADER_BYTES as u64, ClipProblem::NoFrames));
    }
    Ok(frames)
}

/// Looks at every frame. The file header's size is not trusted: recorders write it before they
/// know.
fn check_pictures(codec: Codec, frames: &[RawFrame<'_>]) -> Result<Vec<Picture>, ProblemAt> {
    let mut pictures = Vec::with_capacity(frames.len());
    for (index, frame) in frames.iter().enumerate() {
        let data_offset = frame.offset + FRAME_HEADER_BYTES as u64;
        let picture = picture(codec, frame.data, index as u64);
        let picture = picture.map_err(|problem| (data_offset, problem))?;
        if pictures.is_empty() && !picture.keyframe {
            return Err((data_offset, ClipProblem::FirstNotKeyframe));
        }
        pictures.push(picture);
    }
    Ok(pictures)
}

fn picture(codec: Codec, data: &[u8], index: u64) -> Result<Picture, ClipProblem> {
    let bad = |reason| ClipProblem::BadFrame { index, codec, reason };
    match codec {
        Codec::Vp9 => {
            let vp9::FrameHeader { keyframe, profile, size, .. } =
                vp9::frame_header(data).map_err(bad)?;
            if let Some(found) = VP9_PROFILES.get(usize::from(profile)).copied().flatten() {
                let takes = "profile 0 (4:2:0, 8 bits)";
                return Err(ClipProblem::Profile { codec, found: found.to_owned(), takes });
            }
            Ok(Picture { keyframe, shown: vp9::is_shown(data), size })
        }
        Codec::Av1 => {
            let av1::UnitSummary { keyframe, shown, size, profile } =
                av1::temporal_unit(data).map_err(bad)?;
            if let Some(profile @ 1..) = profile {
                let name = match profile {
                    1 => " (High: 4:4:4)",
                    2 => " (Professional: 4:2:2 or 12 bits)",
                    _ => "",
                };
                let takes = "profile 0 (Main: 4:2:0, 8 or 10 bits)";
                let found = format!("profile {profile}{name}");
                return Err(ClipProblem::Profile { codec, found, takes });
            }
            Ok(Picture { keyframe, shown, size })
        }
        _ => {
            let (keyframe, size) = (vp8::is_keyframe(data), vp8::keyframe_size(data));
            if keyframe && size.is_none() {
                return Err(ClipProblem::BadKeyframe { index });
            }
            Ok(Picture { keyframe, shown: vp8::is_shown(data), size })
        }
    }
}

/// What is refused of VP9, by profile (VP9 bitstream specification, §7.2).
const VP9_PROFILES: [Option<&str>; 4] = [
    None,
    Some("profile 1 (4:4:4, 4:2:2 or 4:4:0)"),
    Some("profile 2 (10 or 12 bits)"),
    Some("profile 3 (10 or 12 bits, 4:4:4, 4:2:2 or 4:4:0)"),
];

/// What timestamps count, and what has to be said of it, by the timestamps of the frames that are
/// shown. Where it can't be as the file says and one mistake alone explains it, it is read so.
fn understand(shown: &[u64], said: Timebase) -> Result<(Timebase, Timing), ClipProblem> {
    let pairs = shown.iter().zip(shown.iter().skip(1));
    let mut steps: Vec<u64> = pairs.map(|(a, b)| b.saturating_sub(*a)).collect();
    steps.retain(|step| *step > 0);
    if steps.len() < STEPS_MIN {
        return Ok((said, Timing::AsSaid));
    }
    steps.sort_unstable();
    let step = steps[steps.len() / 2];
    let said_s = said.seconds(step);
    if (1.0 / FRAME_RATE_MAX..=1.0 / FRAME_RATE_SLOW).contains(&said_s) {
        return Ok((said, Timing::AsSaid));
    }
    if said_s > 1.0 && said_s <= 1.0 / FRAME_RATE_MIN {
        return Ok((said, Timing::Slow { frame_s: said_s }));
    }
    let readings = [
        (Timebase { rate: said.scale, scale: said.rate }, TimingMistake::SwappedTimebase),
        (Timebase { rate: 90_000, scale: 1 }, TimingMistake::RtpTicks),
        (Timebase { rate: 1_000, scale: 1 }, TimingMistake::Milliseconds),
    ];
    let rate = |timebase: Timebase| 1.0 / timebase.seconds(step);
    let mut likely = readings.into_iter().filter(|(it, _)| LIKELY_RATES.contains(&rate(*it)));
    let first = likely.next();
    // Swapped, 1/1000 is milliseconds: the same.
    let same = |one: Timebase, other: Timebase| (rate(one) / rate(other) - 1.0).abs() < 0.01;
    let only = first.filter(|(first, _)| likely.all(|(other, _)| same(*first, other)));
    let possible = said_s > 1.0 && said_s <= FRAME_GAP_MAX_SECONDS as f64;
    match only {
        Some((timebase, mistake)) if !possible => {
            Ok((timebase, Timing::Corrected { said_s, mistake }))
        }
        Some((timebase, mistake)) => {
            let rate = (rate(timebase) * 1_000.0).round() / 1_000.0;
            Err(said.problem(said_s, &format!("probably {mistake}, and {rate} frames/s are meant")))
        }
        None if step == 1 && said_s < 1.0 => {
            Err(said.problem(said_s, &format!("probably {}", TimingMistake::FrameNumbers)))
        }
        None => Err(said.problem(said_s, "its timebase or its timestamps are wrong")),
    }
}

/// 90 kHz timestamps, the first one 0.
fn check_timestamps(
    frames: &[RawFrame<'_>],
    pictures: &[Picture],
    timebase: Timebase,
) -> Result<Vec<u64>, ProblemAt> {
    let first = frames.first().map_or(0, |frame| frame.timestamp);
    let mut previous: Option<(u64, u64, bool)> = None;
    let mut all = Vec::with_capacity(frames.len());
    for (index, (frame, picture)) in frames.iter().zip(pictures).enumerate() {
        let (index, offset, shown) = (index as u64, frame.offset + 4, picture.shown);
        let timestamp = frame.timestamp;
        let mut ticks = timebase.ticks(u128::from(timestamp.saturating_sub(first)));
        if let Some((last_timestamp, last_ticks, last_shown)) = previous {
            // An alternate reference frame, which is never shown, may share its moment with the
            // frame next to it; on the wire it still is a frame of its own.
            let may_be_equal = !(shown && last_shown);
            if timestamp < last_timestamp || timestamp == last_timestamp && !may_be_equal {
                let previous = last_timestamp;
                return Err((offset, ClipProblem::TimestampOrder { index, timestamp, previous }));
            }
            ticks = ticks.max(last_ticks + 1);
            let gap_seconds = (ticks - last_ticks) / 90_000;
            if gap_seconds > FRAME_GAP_MAX_SECONDS {
                return Err((offset, ClipProblem::TimestampGap { index, gap_seconds }));
            }
        }
        previous = Some((timestamp, ticks, shown));
        all.push(ticks);
    }
    Ok(all)
}

/// Length of one pass, by the timestamps of the frames that are shown. The file does not say how long
/// its last one lasts: as long as the mean of the others; one timebase unit for a single frame, if
/// that is a sensible time, or 1/30 s.
fn duration(shown: &[u64], ticks: &[u64], timebase: Timebase) -> u64 {
    let (Some(first), Some(last)) = (shown.first(), shown.last()) else { return 1 };
    let last_ticks = ticks.last().copied().unwrap_or(0);
    let intervals = shown.len() as u128 - 1;
    let span = u128::from(last.saturating_sub(*first));
    if intervals == 0 || span == 0 {
        let unit = timebase.ticks(1);
        return last_ticks + if (90..=90_000).contains(&unit) { unit } else { 3_000 };
    }
    // In one division, so that a loop does not drift against the file's own rate.
    let numerator = span * (intervals + 1) * 90_000 * u128::from(timebase.scale);
    let denominator = intervals * u128::from(timebase.rate);
    let rounded = (numerator + denominator / 2) / denominator;
    u64::try_from(rounded).unwrap_or(u64::MAX).max(last_ticks + 1)
}

fn truncated(what: &'static str, expected: usize, found: usize) -> ClipProblem {
    ClipProblem::Truncated { what, expected_bytes: expected as u64, found_bytes: found as u64 }
}
