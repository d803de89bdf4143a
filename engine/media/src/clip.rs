//! A media file as it is published, and what can be wrong with one.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::scalability::{Scalability, ScalabilityMode};

/// Largest file [`MediaClip::open`] reads; a longer one is refused, because a clip is kept in
/// memory whole and loops anyway.
pub const CLIP_BYTES_MAX: u64 = 1 << 30;
/// Largest encoded frame. A larger one is refused: it would be thousands of packets in one burst.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// Longest pause between two frames of a file. A longer one is taken for a broken timestamp.
pub const FRAME_GAP_MAX_SECONDS: u64 = 60;
/// Highest frame rate of a file. A higher one is taken for a broken timebase: no camera or screen
/// that is sent live has more, and frame numbers that were written as milliseconds make 1,000.
pub const FRAME_RATE_MAX: f64 = 300.0;
/// Lowest frame rate of a file: a frame every five seconds. A lower one is taken for a broken
/// timebase; one below [`FRAME_RATE_SLOW`] is told.
pub const FRAME_RATE_MIN: f64 = 0.2;
/// A file of fewer frames a second plays as it says, and that is told.
pub const FRAME_RATE_SLOW: f64 = 1.0;

/// What the packets of a stream carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// VP8 (RFC 6386, RFC 7741).
    Vp8,
    /// VP9 (RFC 9628).
    Vp9,
    /// H.264 (RFC 6184).
    H264,
    /// H.265 (RFC 7798).
    H265,
    /// AV1 (RTP Payload Format For AV1, v1.0.0).
    Av1,
    /// Opus (RFC 6716, RFC 7587).
    Opus,
}

/// Streams of this codec can be put together again and recorded.
pub fn is_recordable(codec: Codec) -> bool {
    !matches!(codec, Codec::Vp9 | Codec::Av1)
}

impl Codec {
    /// RTP clock rate in Hz: 90,000 for video, 48,000 for Opus whatever its bandwidth (RFC 7587).
    pub const fn clock_rate(self) -> u32 {
        match self {
            Codec::Vp8 | Codec::Vp9 | Codec::H264 | Codec::H265 | Codec::Av1 => 90_000,
            Codec::Opus => 48_000,
        }
    }

    /// True for video.
    pub const fn is_video(self) -> bool {
        !matches!(self, Codec::Opus)
    }

    /// The MIME type LiveKit uses for it (`livekit_models.proto`, `mime_type`).
    pub const fn mime_type(self) -> &'static str {
        match self {
            Codec::Vp8 => "video/VP8",
            Codec::Vp9 => "video/VP9",
            Codec::H264 => "video/H264",
            Codec::H265 => "video/H265",
            Codec::Av1 => "video/AV1",
            Codec::Opus => "audio/opus",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Codec::Vp8 => "VP8",
            Codec::Vp9 => "VP9",
            Codec::H264 => "H.264",
            Codec::H265 => "H.265",
            Codec::Av1 => "AV1",
            Codec::Opus => "Opus",
        })
    }
}

/// One encoded frame (video) or packet (Opus) of a clip, as RTP payloads.
#[derive(Debug, Clone)]
pub struct ClipFrame {
    /// When it is due, in ticks of the clip's clock; 0 for the first frame. Never decreases.
    pub timestamp_ticks: u64,
    /// True where decoding can begin. Always true for Opus.
    pub keyframe: bool,
    /// RTP payloads in order; the last one carries the marker (video). All but the last have the
    /// same length, so that they can leave as one GSO datagram train.
    ///
    /// VP8 payloads start with a six-byte descriptor (RFC 7741 §4.2) with a 15-bit PictureID and
    /// a TL0PICIDX, both numbered from 0 within the clip, TID 0: a publisher rewrites the two in
    /// place (str0m's `Vp8Patch`). VP9's have the same two numbers in five bytes (RFC 9628 §4.2;
    /// [`renumber`](crate::vp9::renumber)).
    pub packets: Vec<Arc<[u8]>>,
    /// Length of the encoded frame without payload descriptors.
    pub frame_bytes: usize,
}

/// How files are read.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ClipOptions {
    /// Frames a second of files without timestamps (H.264 and H.265 in Annex B), from
    /// [`FRAME_RATE_MIN`] to [`FRAME_RATE_MAX`]. `None`: what the stream's own timing says, else
    /// [`FRAME_RATE_ASSUMED`].
    pub frame_rate: Option<f64>,
    /// How a file of VP9 or AV1 is divided into layers. Each of its frames is then one picture: a
    /// superframe, or a temporal unit, with a layer frame of every spatial layer. `None`: not at
    /// all, or not to be told.
    pub scalability: Option<ScalabilityMode>,
}

/// Frame rate of an H.264 or H.265 file that has no timing of its own, where none is given.
pub const FRAME_RATE_ASSUMED: f64 = 30.0;

/// A file that was read, and what has to be said about it.
#[derive(Debug, Clone)]
pub struct OpenedClip {
    /// The clip.
    pub clip: MediaClip,
    /// How its timing was understood.
    pub timing: Timing,
}

/// How the timing of a file was understood.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Timing {
    /// As it says, and nothing is odd about it.
    AsSaid,
    /// Nothing says how fast it plays: it was taken for [`FRAME_RATE_ASSUMED`].
    Assumed,
    /// As it says, at fewer than [`FRAME_RATE_SLOW`] frames a second.
    Slow {
        /// Usual length of a frame in seconds.
        frame_s: f64,
    },
    /// It can't be as it says, and one mistake alone explains it.
    Corrected {
        /// Usual length of a frame by what it says, in seconds.
        said_s: f64,
        /// What explains it.
        mistake: TimingMistake,
    },
}

/// What is often wrong with timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimingMistake {
    /// Rate and scale stand in each other's place.
    SwappedTimebase,
    /// They count 90,000 a second, as in RTP, whatever the timebase says.
    RtpTicks,
    /// They count milliseconds, whatever the timebase says.
    Milliseconds,
    /// They count frames, and the timebase says something finer.
    FrameNumbers,
}

impl fmt::Display for TimingMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SwappedTimebase => "the two numbers of its timebase are swapped",
            Self::RtpTicks => "its timestamps are RTP's, 90,000 a second",
            Self::Milliseconds => "its timestamps are milliseconds",
            Self::FrameNumbers => "its timestamps are frame numbers",
        })
    }
}

/// A whole file, ready to be published in a loop by any number of publishers at once.
#[derive(Debug, Clone)]
pub struct MediaClip {
    /// Where it came from (a path, or a built-in name), for messages.
    pub name: String,
    /// What the payloads are.
    pub codec: Codec,
    /// Ticks a second of every `*_ticks` here: 90,000 (video) or 48,000 (Opus).
    pub clock_rate: u32,
    /// Picture width in pixels, from the first keyframe; 0 for audio.
    pub width: u16,
    /// Picture height in pixels, from the first keyframe; 0 for audio.
    pub height: u16,
    /// Channels (1 or 2) for audio; 0 for video.
    pub channels: u8,
    /// At least one; the first is a keyframe.
    pub frames: Vec<ClipFrame>,
    /// Length of one pass: timestamp of the last frame plus its inferred duration. Looping adds
    /// this to every timestamp.
    pub duration_ticks: u64,
    /// Mean frames a second over the clip. Those that are never shown (alternate reference frames)
    /// are none.
    pub frame_rate: f64,
    /// How its pictures are divided into layer frames, where they are.
    pub scalability: Option<Scalability>,
}

impl MediaClip {
    /// Sum of the RTP payload lengths of one pass, descriptors included.
    pub fn payload_bytes(&self) -> u64 {
        self.packets().map(|packet| packet.len() as u64).sum()
    }

    /// RTP packets of one pass.
    pub fn packet_count(&self) -> u64 {
        self.frames.iter().map(|frame| frame.packets.len() as u64).sum()
    }

    /// Mean RTP packets a second.
    pub fn packet_rate(&self) -> f64 {
        self.packet_count() as f64 / self.duration_seconds()
    }

    /// Mean bits a second of RTP payload.
    pub fn bitrate_bps(&self) -> f64 {
        self.payload_bytes() as f64 * 8.0 / self.duration_seconds()
    }

    /// Mean bits a second of RTP payload of each spatial layer with those below it, low to high; the
    /// whole clip's where it is not divided into any.
    pub fn spatial_layer_rates_bps(&self) -> Vec<f64> {
        let Some(scalability) = &self.scalability else { return vec![self.bitrate_bps()] };
        let mut bytes = vec![0; scalability.sizes.len()];
        for (index, frame) in self.frames.iter().enumerate() {
            for (sum, end) in bytes.iter_mut().zip(scalability.ends(index)) {
                let packets = frame.packets.iter().take(*end);
                *sum += packets.map(|packet| packet.len()).sum::<usize>();
            }
        }
        bytes.into_iter().map(|sum| sum as f64 * 8.0 / self.duration_seconds()).collect()
    }

    /// Leaves the rest behind so many frames out, at least one of which stays.
    pub(crate) fn keep_first(&mut self, frames: usize) {
        if let Some(next) = self.frames.get(frames.max(1)) {
            self.duration_ticks = next.timestamp_ticks;
            self.frames.truncate(frames.max(1));
        }
    }

    /// Length of one pass in seconds; above 0.
    pub fn duration_seconds(&self) -> f64 {
        self.duration_ticks as f64 / f64::from(self.clock_rate)
    }

    /// The longest time from one frame to the next, of a clip whose frames do not come at a steady
    /// rate: by libwebrtc's rule for freezes, three times the mean and 150 ms more than that. Zero of
    /// all others.
    pub fn pause_max(&self) -> Duration {
        let begins = self.frames.iter().map(|frame| frame.timestamp_ticks);
        let ends = begins.clone().skip(1).chain([self.duration_ticks]);
        let longest = begins.zip(ends).map(|(begin, end)| end.saturating_sub(begin)).max();
        let seconds = |ticks: u64| ticks as f64 / f64::from(self.clock_rate.max(1));
        let longest = seconds(longest.unwrap_or(0));
        let mean = seconds(self.duration_ticks) / self.frames.len().max(1) as f64;
        if longest < (3.0 * mean).max(mean + 0.15) {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(longest).unwrap_or_default()
    }

    fn packets(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.frames.iter().flat_map(|frame| frame.packets.iter())
    }
}

/// Why a file can't be published.
#[derive(Debug, thiserror::Error)]
pub enum ClipError {
    /// The file could not be read at all.
    #[error("{file}: cannot be read: {source}")]
    Read {
        /// The path as given.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file was read and is not usable.
    #[error("{file}: byte {offset}: {problem}; {advice}")]
    Refused {
        /// The path as given.
        file: String,
        /// Offset of the first byte that is wrong.
        offset: u64,
        /// What is wrong with it.
        problem: ClipProblem,
        /// What to do about it, as a clause.
        advice: &'static str,
    },
}

/// Offset of the first byte that is wrong, and what is wrong with it.
pub(crate) type ProblemAt = (u64, ClipProblem);

/// What is wrong with a file, without its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClipProblem {
    /// The first bytes are neither IVF's nor Ogg's, nor a start code of Annex B.
    #[error("not an IVF, Annex B or Ogg file: it starts with {found}")]
    UnknownKind {
        /// The first bytes, printable.
        found: String,
    },
    /// Nothing in it.
    #[error("the file is empty")]
    Empty,
    /// Longer than [`CLIP_BYTES_MAX`].
    #[error("the file has {len_bytes} bytes, more than the {CLIP_BYTES_MAX} kept in memory")]
    TooLong {
        /// Length of the file.
        len_bytes: u64,
    },
    /// Ends inside a header.
    #[error("{what} is cut short: {found_bytes} of {expected_bytes} bytes are there")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// How much there should be.
        expected_bytes: u64,
        /// How much there is.
        found_bytes: u64,
    },
    /// A header field with a value no usable file has.
    #[error("{field} is {value}")]
    BadField {
        /// Which field.
        field: &'static str,
        /// Its value, and what it may be.
        value: String,
    },
    /// H.264 in a container that does not say how it is framed.
    #[error("H.264 in IVF can't be published, only in Annex B form (.h264)")]
    H264InIvf,
    /// A VP9 frame or AV1 temporal unit that can't be one.
    #[error("frame {index} is no {codec}: {reason}")]
    BadFrame {
        /// Which frame, from 0.
        index: u64,
        /// What it should be.
        codec: Codec,
        /// What is wrong.
        reason: &'static str,
    },
    /// A codec that has no layers here, or a picture too large for them.
    #[error("{codec} of this size can't be published as {mode}; VP9 and AV1 can")]
    NoScalability {
        /// The file's.
        codec: Codec,
        /// What was asked for.
        mode: ScalabilityMode,
    },
    /// A picture that is not divided as was said.
    #[error("frame {index} is no picture of {mode}: {reason}")]
    NotScalable {
        /// Which frame, from 0.
        index: u64,
        /// How it should be divided.
        mode: ScalabilityMode,
        /// What does not fit, as a clause.
        reason: &'static str,
    },
    /// A NAL unit that can't be in a file, or that WebRTC can't carry.
    #[error("NAL unit {index} {reason}")]
    NalUnit {
        /// Which NAL unit, from 0.
        index: u64,
        /// What is wrong with it, as the rest of a sentence.
        reason: String,
    },
    /// Keyframes without parameter sets, before which more would have to be put than the file is long.
    #[error(
        "its parameter sets, put before each keyframe that comes without, take {len_bytes} bytes or \
         more, which is more than the whole file has: it needs fewer or shorter ones"
    )]
    ParameterSets {
        /// Of those that were put before keyframes until it was given up.
        len_bytes: u64,
    },
    /// A codec nothing here knows.
    #[error("unknown codec {found}")]
    UnknownCodec {
        /// The fourcc or the codec's magic, printable.
        found: String,
    },
    /// A good header and nothing behind it.
    #[error("there are no frames in it")]
    NoFrames,
    /// A frame of length 0 or above [`FRAME_BYTES_MAX`].
    #[error("frame {index} has {len_bytes} bytes; 1 to {FRAME_BYTES_MAX} are usable")]
    FrameSize {
        /// Which frame, from 0.
        index: u64,
        /// Its length according to the file.
        len_bytes: u64,
    },
    /// The first frame can't be decoded on its own.
    #[error("the first frame is not a keyframe")]
    FirstNotKeyframe,
    /// A keyframe without a usable frame header.
    #[error("frame {index} is a keyframe without a valid VP8 start code and size")]
    BadKeyframe {
        /// Which frame, from 0.
        index: u64,
    },
    /// Time stands still or runs backwards.
    #[error("timestamp of frame {index} is {timestamp} after {previous}")]
    TimestampOrder {
        /// Which frame or page, from 0.
        index: u64,
        /// Its timestamp in the file's units.
        timestamp: u64,
        /// The one before.
        previous: u64,
    },
    /// Longer than [`FRAME_GAP_MAX_SECONDS`] without a frame.
    #[error("a pause of {gap_seconds} s before frame {index}; {FRAME_GAP_MAX_SECONDS} s at most")]
    TimestampGap {
        /// Which frame or page, from 0.
        index: u64,
        /// Length of the pause.
        gap_seconds: u64,
    },
    /// Timing at which nothing is sent live.
    #[error("{figure}; {cause}")]
    Timing {
        /// How fast it would play, and what says so.
        figure: String,
        /// What is probably wrong, as a clause.
        cause: String,
    },
    /// A profile, level, chroma format or bit depth that nothing agrees on.
    #[error("{codec} of {found} can't be published: servers and browsers agree on {takes}")]
    Profile {
        /// The file's.
        codec: Codec,
        /// Profile and what it means, or level.
        found: String,
        /// What there may be instead.
        takes: &'static str,
    },
    /// Not a well-formed Ogg page.
    #[error("bad Ogg page: {reason}")]
    OggPage {
        /// What the Ogg layer said.
        reason: String,
    },
    /// More than one stream, one after the other or side by side.
    #[error("more than one stream in the Ogg file")]
    OggSeveralStreams,
    /// An Opus packet RFC 6716 §3.4 forbids.
    #[error("packet {index} is not a valid Opus packet: {reason}")]
    OpusPacket {
        /// Which packet after the two headers, from 0.
        index: u64,
        /// Which rule it breaks.
        reason: &'static str,
    },
}
