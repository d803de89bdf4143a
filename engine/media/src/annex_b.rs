//! H.264 and H.265 files in Annex B form: NAL units behind start codes, without timestamps (ITU-T
//! H.264 Annex B, and the same of H.265). H.265 is read by the `h265` module here.
//!
//! H.264's sequence parameter sets are read by the `h264-reader` crate. The walk over the file is done
//! here: that crate's reader has no offsets to report.

mod h265;

use std::sync::Arc;

use h264_reader::nal::sps::{ChromaFormat, FrameMbsFlags, SeqParameterSet};
use h264_reader::rbsp::{self, BitReader};

use crate::bits;
use crate::clip::{
    ClipFrame, ClipOptions, ClipProblem, Codec, FRAME_BYTES_MAX, FRAME_RATE_ASSUMED,
    FRAME_RATE_MAX, FRAME_RATE_MIN, MediaClip, OpenedClip, ProblemAt, Timing,
};
use crate::h264::{self, nal};
use crate::packetize;

pub(crate) use h265::{is_h265, read as read_h265};

/// Such a file begins with a start code, behind any number of further zeros (Annex B, B.1.1,
/// `leading_zero_8bits`).
pub(crate) fn begins(bytes: &[u8]) -> bool {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    zeros >= 2 && bytes.get(zeros) == Some(&1)
}

/// A sequence parameter set is in it, as in what decoding can begin with.
pub(crate) fn has_parameters(codec: Codec, bytes: &[u8]) -> bool {
    units(bytes).any(|unit| {
        let header = unit.data.first().copied().unwrap_or(0);
        match codec {
            Codec::H265 => crate::h265::nal_type(header) == crate::h265::nal::SPS,
            _ => h264::nal_type(header) == nal::SPS,
        }
    })
}

/// Ten times the levels of H.264 that an offer can tell (H.264 §A.3 as RFC 6184 knows it, and str0m); 9 is
/// 1b. Later ones are of pictures that nobody sends live.
const LEVELS: [u8; 17] = [9, 10, 11, 12, 13, 20, 21, 22, 30, 31, 32, 40, 41, 42, 50, 51, 52];

/// Different parameter sets that are kept for keyframes without any.
const PARAMETER_SETS_MAX: usize = 64;

/// One NAL unit as the file has it.
#[derive(Debug, Clone, Copy)]
struct Unit<'a> {
    /// Of its header byte.
    offset: u64,
    index: u64,
    data: &'a [u8],
}

/// The NAL units of one picture.
#[derive(Debug, Default)]
struct AccessUnit<'a> {
    offset: u64,
    units: Vec<&'a [u8]>,
    /// Decoding can begin here, given parameter sets.
    keyframe: bool,
    has_parameters: bool,
    has_picture: bool,
}

/// What is known of the whole stream.
#[derive(Debug, Default)]
struct Stream<'a> {
    size: Option<(u16, u16)>,
    frame_rate: Option<f64>,
    /// `profile_idc` or `general_profile_idc`: one alone can be told in an offer.
    profile: Option<u8>,
    /// The latest parameter sets, for keyframes that come without.
    parameters: Vec<&'a [u8]>,
    /// Bytes of those that were put before keyframes.
    repeated_bytes: usize,
    /// More of them are refused.
    repeated_bytes_max: usize,
    done: Vec<AccessUnit<'a>>,
    open: AccessUnit<'a>,
}

/// Why a NAL unit is of no use.
#[derive(Debug)]
enum Unfit {
    /// The rest of a sentence that begins with its number.
    Unit(String),
    /// It is a good parameter set of what can't be sent.
    Profile { found: String, takes: &'static str },
}

impl From<String> for Unfit {
    fn from(reason: String) -> Self {
        Self::Unit(reason)
    }
}

/// The RTP payloads of an access unit.
type Payloads = Vec<Arc<[u8]>>;

/// What the two codecs don't share.
struct Syntax {
    codec: Codec,
    /// Why a NAL unit can't be in such a file, or not be sent.
    check: fn(&Unit<'_>) -> Result<(), String>,
    /// Puts a NAL unit into the access unit it belongs to.
    add: for<'a> fn(&mut Stream<'a>, &Unit<'a>) -> Result<(), Unfit>,
    packetize: fn(&[&[u8]]) -> Payloads,
}

/// Reads a whole file of H.264 and packetises it.
pub(crate) fn read(
    name: &str,
    bytes: &[u8],
    options: ClipOptions,
) -> Result<OpenedClip, ProblemAt> {
    let syntax = Syntax {
        codec: Codec::H264,
        check,
        add: |stream, unit| stream.add(unit),
        packetize: packetize::h264,
    };
    read_by(&syntax, name, bytes, options)
}

fn read_by(
    syntax: &Syntax,
    name: &str,
    bytes: &[u8],
    options: ClipOptions,
) -> Result<OpenedClip, ProblemAt> {
    // What is sent is at most twice what the file has.
    let mut stream = Stream { repeated_bytes_max: bytes.len(), ..Stream::default() };
    for unit in units(bytes) {
        let problem = |unfit| {
            let problem = match unfit {
                Unfit::Unit(reason) => ClipProblem::NalUnit { index: unit.index, reason },
                Unfit::Profile { found, takes } => {
                    ClipProblem::Profile { codec: syntax.codec, found, takes }
                }
            };
            (unit.offset, problem)
        };
        (syntax.check)(&unit).map_err(|reason| problem(reason.into()))?;
        (syntax.add)(&mut stream, &unit).map_err(problem)?;
    }
    stream.end_picture();
    if stream.repeated_bytes > stream.repeated_bytes_max {
        return Err((0, ClipProblem::ParameterSets { len_bytes: stream.repeated_bytes as u64 }));
    }
    let too_long = |unit: &AccessUnit<'_>| unit.bytes() > FRAME_BYTES_MAX;
    if let Some((index, unit)) = stream.done.iter().enumerate().find(|(_, unit)| too_long(unit)) {
        let (index, len_bytes) = (index as u64, unit.bytes() as u64);
        return Err((unit.offset, ClipProblem::FrameSize { index, len_bytes }));
    }
    let Some(first) = stream.done.first() else { return Err((0, ClipProblem::NoFrames)) };
    if !first.keyframe {
        return Err((first.offset, ClipProblem::FirstNotKeyframe));
    }
    let Some((width, height)) = stream.size.filter(|_| first.has_parameters) else {
        let reason = "is a keyframe without sequence parameter set before it".to_owned();
        return Err((first.offset, ClipProblem::NalUnit { index: 0, reason }));
    };
    let known = options.frame_rate.or(stream.frame_rate);
    let frame_rate = known.unwrap_or(FRAME_RATE_ASSUMED);
    if !(FRAME_RATE_MIN..=FRAME_RATE_MAX).contains(&frame_rate) {
        let figure = format!("{frame_rate} frames a second by its sequence parameter set");
        let cause = format!(
            "{FRAME_RATE_MIN} to {FRAME_RATE_MAX} can be sent, and the two numbers of its timing \
             are probably swapped, or those of another clock"
        );
        return Err((first.offset, ClipProblem::Timing { figure, cause }));
    }
    let ticks = |index: usize| (index as f64 * 90_000.0 / frame_rate).round() as u64;
    let frames = stream.done.iter().enumerate().map(|(index, unit)| ClipFrame {
        timestamp_ticks: ticks(index),
        keyframe: unit.keyframe,
        packets: (syntax.packetize)(&unit.units),
        frame_bytes: unit.bytes(),
    });
    let clip = MediaClip {
        name: name.to_owned(),
        codec: syntax.codec,
        clock_rate: syntax.codec.clock_rate(),
        width,
        height,
        channels: 0,
        frames: frames.collect(),
        duration_ticks: ticks(stream.done.len()).max(1),
        frame_rate,
        scalability: None,
    };
    let timing = if known.is_none() { Timing::Assumed } else { Timing::AsSaid };
    Ok(OpenedClip { clip, timing })
}

/// The NAL units between start codes, without the zeros behind them (Annex B, B.1.1).
fn units(bytes: &[u8]) -> impl Iterator<Item = Unit<'_>> {
    let mut at = next_start(bytes, 0);
    let mut index = 0;
    std::iter::from_fn(move || {
        loop {
            let begin = at?;
            at = next_start(bytes, begin);
            let end = at.map_or(bytes.len(), |next| next - 3);
            let data = bytes.get(begin..end)?;
            let zeros = data.iter().rev().take_while(|&&byte| byte == 0).count();
            let data = data.get(..data.len() - zeros)?;
            if !data.is_empty() {
                index += 1;
                return Some(Unit { offset: begin as u64, index: index - 1, data });
            }
        }
    })
}

/// Where the data behind the next start code begins.
fn next_start(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match bytes.get(at..at + 3)? {
            [0, 0, 1] => return Some(at + 3),
            [_, _, 0] => at += 1,
            [_, _, _] => at += if bytes[at + 2] > 1 { 3 } else { 1 },
            _ => return None,
        }
    }
}

/// Why a NAL unit can't be in such a file, or not be sent.
fn check(unit: &Unit<'_>) -> Result<(), String> {
    let header = unit.data.first().copied().unwrap_or(0);
    if header & 0x80 != 0 {
        return Err("has its forbidden bit set: this is no H.264 in Annex B form".to_owned());
    }
    let kind = h264::nal_type(header);
    match kind {
        0 | 24..=31 => Err(format!("has type {kind}, which no H.264 file has; is it H.265?")),
        14 | 15 | 20 | 21 => Err(format!("has type {kind}: scalable and 3D H.264 can't be sent")),
        nal::SLICE | nal::PARTITION_A if h264::is_bidirectional_slice(unit.data) != Some(false) => {
            Err("is a B slice, or cut short: WebRTC has no reordering (encode with -bf 0)"
                .to_owned())
        }
        _ => Ok(()),
    }
}

impl AccessUnit<'_> {
    fn bytes(&self) -> usize {
        self.units.iter().map(|unit| unit.len()).sum()
    }
}

impl<'a> Stream<'a> {
    /// Puts a NAL unit into the access unit it belongs to (§7.4.1.2.3).
    fn add(&mut self, unit: &Unit<'a>) -> Result<(), Unfit> {
        let header = unit.data.first().copied().unwrap_or(0);
        let kind = h264::nal_type(header);
        let begins =
            matches!(kind, nal::SEI..=nal::DELIMITER | 13..=18) || h264::is_first_slice(unit.data);
        if begins && self.open.has_picture {
            self.end_picture();
        }
        if self.open.units.is_empty() {
            self.open.offset = unit.offset;
        }
        match kind {
            nal::SPS => {
                self.read_parameters(unit.data)?;
                self.open.has_parameters = true;
                self.parameters = vec![unit.data];
            }
            nal::PPS => {
                self.replace(unit.data, 1);
                self.keep(unit.data)?;
            }
            // They carry nothing that RTP does not say already.
            nal::DELIMITER | nal::END_OF_SEQUENCE | nal::END_OF_STREAM | nal::FILLER => {
                return Ok(());
            }
            _ => {}
        }
        self.open.has_picture |= h264::is_picture(header);
        self.open.keyframe |= kind == nal::IDR;
        self.open.units.push(unit.data);
        Ok(())
    }

    /// A picture parameter set, behind a header of so many bytes, takes the place of the one with its number
    /// (`pps_pic_parameter_set_id`, of H.264 and of H.265 the first thing in it).
    fn replace(&mut self, data: &[u8], header_bytes: usize) {
        let number = |set: &[u8]| bits::BitReader::new(set.get(header_bytes..)?).exp_golomb();
        let Some(its) = number(data) else { return };
        let same = |set: &[u8]| set.first() == data.first() && number(set) == Some(its);
        self.parameters.retain(|set| *set == data || !same(set));
    }

    /// Keeps a parameter set for keyframes that come without.
    fn keep(&mut self, data: &'a [u8]) -> Result<(), String> {
        // Some encoders repeat it before each picture.
        if self.parameters.contains(&data) {
            return Ok(());
        }
        if self.parameters.len() >= PARAMETER_SETS_MAX {
            return Err(format!("is one parameter set more than the {PARAMETER_SETS_MAX} kept"));
        }
        self.parameters.push(data);
        Ok(())
    }

    fn end_picture(&mut self) {
        let mut picture = std::mem::take(&mut self.open);
        if !picture.has_picture {
            return;
        }
        if picture.keyframe && !picture.has_parameters && !self.parameters.is_empty() {
            self.repeated_bytes += self.parameters.iter().map(|set| set.len()).sum::<usize>();
            if self.repeated_bytes > self.repeated_bytes_max {
                return;
            }
            // Who joins at this picture needs them.
            let is_own = |unit: &&&[u8]| !self.parameters.contains(*unit);
            let own: Vec<_> = picture.units.iter().filter(is_own).copied().collect();
            picture.units = self.parameters.iter().copied().chain(own).collect();
            picture.has_parameters = true;
        }
        self.done.push(picture);
    }

    /// A profile that is not the file's first is refused: an offer tells of one.
    fn set_profile(&mut self, profile: u8) -> Result<(), Unfit> {
        match *self.profile.get_or_insert(profile) {
            first if first == profile => Ok(()),
            first => Err(format!("is of profile {profile}, and those before of {first}").into()),
        }
    }

    fn read_parameters(&mut self, unit: &[u8]) -> Result<(), Unfit> {
        let bad = |reason: String| format!("is no usable sequence parameter set: {reason}");
        let data = rbsp::decode_nal(unit).map_err(|error| bad(error.to_string()))?;
        let parameters = SeqParameterSet::from_bits(BitReader::new(&data[..]))
            .map_err(|error| bad(format!("{error:?}")))?;
        if !matches!(parameters.frame_mbs_flags, FrameMbsFlags::Frames) {
            return Err(bad("interlaced pictures can't be sent".to_owned()).into());
        }
        if let Some(found) = unsent(&parameters) {
            return Err(Unfit::Profile { found, takes: "Baseline, Main or High, 4:2:0, 8 bits" });
        }
        if !LEVELS.contains(&parameters.level_idc) {
            let found = format!("level {:.1}", f32::from(parameters.level_idc) / 10.0);
            return Err(Unfit::Profile { found, takes: "levels up to 5.2" });
        }
        self.set_profile(parameters.profile_idc.into())?;
        let (width, height) =
            parameters.pixel_dimensions().map_err(|error| bad(format!("{error:?}")))?;
        let side = |pixels| u16::try_from(pixels).ok().filter(|&pixels| pixels > 0);
        let size = side(width).zip(side(height));
        let size = size.ok_or_else(|| bad(format!("a picture of {width}x{height} pixels")))?;
        self.size.get_or_insert(size);
        let frame_rate = parameters.fps().filter(|rate| rate.is_finite() && *rate > 0.0);
        self.frame_rate = self.frame_rate.or(frame_rate);
        Ok(())
    }
}

/// Profile, chroma format and bit depth of what no server and no browser agrees on, if it is such.
fn unsent(parameters: &SeqParameterSet) -> Option<String> {
    let chroma = &parameters.chroma_info;
    let format = match chroma.chroma_format {
        ChromaFormat::Monochrome => "gray",
        ChromaFormat::YUV420 => "4:2:0",
        ChromaFormat::YUV422 => "4:2:2",
        ChromaFormat::YUV444 => "4:4:4",
        ChromaFormat::Invalid(_) => "unknown chroma format",
    };
    let deeper = chroma.bit_depth_luma_minus8.max(chroma.bit_depth_chroma_minus8);
    let bits = deeper.saturating_add(8);
    let profile = u8::from(parameters.profile_idc);
    let name = match profile {
        66 | 77 | 100 if bits == 8 && matches!(format, "gray" | "4:2:0") => return None,
        66 => "Baseline",
        77 => "Main",
        88 => "Extended",
        100 => "High",
        110 => "High 10",
        122 => "High 4:2:2",
        244 => "High 4:4:4 Predictive",
        44 => "CAVLC 4:4:4 Intra",
        _ => "an unknown profile",
    };
    Some(format!("{name} (profile {profile}, {format}, {bits} bits)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_lie_between_start_codes() {
        let file = [0, 0, 0, 1, 9, 0x10, 0, 0, 1, 0x67, 1, 0, 0, 0, 0, 1, 0, 0, 1, 0x65, 0, 2];
        let found: Vec<_> = units(&file).map(|unit| (unit.offset, unit.data.to_vec())).collect();
        assert_eq!(found, [(4, vec![9, 0x10]), (9, vec![0x67, 1]), (19, vec![0x65, 0, 2])]);
        assert_eq!(units(&[0, 0, 0, 0]).count(), 0);
        assert_eq!(next_start(&[5, 0, 0, 0, 1, 7], 0), Some(5));
        for good in [&[0, 0, 1][..], &[0, 0, 0, 1, 9], &[0, 0, 0, 0, 0, 0, 1]] {
            assert!(begins(good));
        }
        for bad in [&[][..], &[0, 0, 0], &[0, 1], &[0, 0, 2, 0, 0, 1], &[1, 0, 0, 1]] {
            assert!(!begins(bad));
        }
    }

    #[test]
    fn a_parameter_set_that_comes_again_is_kept_once() {
        let mut stream = Stream::default();
        for data in [&[0x68_u8, 1][..], &[0x65, 0x88], &[0x68, 1], &[0x68, 2], &[0x41, 0x9a]] {
            stream.add(&Unit { offset: 0, index: 0, data }).unwrap();
        }
        assert_eq!(stream.parameters, [&[0x68, 1], &[0x68, 2]]);
        // The second has the number of the first, 0.
        for data in [&[0x68_u8, 0x81][..], &[0x68, 0x82], &[0x68, 0x41]] {
            stream.add(&Unit { offset: 0, index: 0, data }).unwrap();
        }
        assert_eq!(stream.parameters[2..], [&[0x68, 0x82], &[0x68, 0x41]]);
    }

    proptest! {
        #[test]
        fn units_come_back(
            parts in proptest::collection::vec(proptest::collection::vec(1..=255_u8, 1..40), 1..20),
            long in any::<u32>(),
        ) {
            let mut file = Vec::new();
            for (index, part) in parts.iter().enumerate() {
                let zeros = 2 + (long >> (index % 32) & 3) as usize;
                file.resize(file.len() + zeros, 0);
                file.push(1);
                file.extend_from_slice(part);
            }
            let found: Vec<_> = units(&file).map(|unit| unit.data.to_vec()).collect();
            prop_assert_eq!(found, parts);
            prop_assert!(begins(&file));
        }

        #[test]
        fn any_file_is_read_or_refused(bytes: Vec<u8>) {
            let file = [&[0, 0, 1][..], &bytes].concat();
            let _ = read("x", &file, ClipOptions::default());
        }
    }
}
