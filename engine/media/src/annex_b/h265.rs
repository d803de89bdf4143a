//! H.265 in Annex B form.

use super::{Unit, units};
use crate::clip::{
    ClipFrame, ClipOptions, ClipProblem, Codec, FRAME_BYTES_MAX, FRAME_RATE_ASSUMED,
    FRAME_RATE_MAX, MediaClip, OpenedClip, ProblemAt,
};
use crate::h265::{self, Parameters, nal};
use crate::packetize;

/// Profiles (H.265 annex A and later ones) and levels (table A.8) that can be told in an offer.
const PROFILES: std::ops::RangeInclusive<u8> = 1..=11;
const LEVELS: [u8; 13] = [30, 60, 63, 90, 93, 120, 123, 150, 153, 156, 180, 183, 186];
/// Different parameter sets that are kept for keyframes without any.
const PARAMETER_SETS_MAX: usize = 64;

/// True if the first NAL unit is one that H.265 begins with, and H.264 does not: a delimiter, a
/// parameter set or supplements of the base layer. H.264 reads the same bytes as a partition, a
/// supplement with `nal_ref_idc` or nothing at all.
pub(crate) fn is_h265(bytes: &[u8]) -> bool {
    let is_kind =
        |kind| matches!(kind, nal::DELIMITER | nal::VPS | nal::SPS | nal::PPS | nal::PREFIX_SEI);
    super::MAGICS.iter().any(|magic| bytes.starts_with(magic))
        && units(bytes).next().is_some_and(|unit| {
            matches!(unit.data, [first, 1, ..] if is_kind(h265::nal_type(*first)) && first & 0x81 == 0)
        })
}

/// The NAL units of one picture.
#[derive(Debug, Default)]
struct AccessUnit<'a> {
    offset: u64,
    units: Vec<&'a [u8]>,
    irap: bool,
    has_parameters: bool,
    has_picture: bool,
}

/// What is known of the whole stream.
#[derive(Debug, Default)]
struct Stream<'a> {
    size: Option<(u16, u16)>,
    frame_rate: Option<f64>,
    /// The latest parameter sets, for IRAP pictures that come without.
    parameters: Vec<&'a [u8]>,
    done: Vec<AccessUnit<'a>>,
    open: AccessUnit<'a>,
}

/// Reads a whole file and packetises it.
pub(crate) fn read(
    name: &str,
    bytes: &[u8],
    options: ClipOptions,
) -> Result<OpenedClip, ProblemAt> {
    let mut stream = Stream::default();
    for unit in units(bytes) {
        let problem = |reason| (unit.offset, ClipProblem::NalUnit { index: unit.index, reason });
        check(&unit).map_err(problem)?;
        stream.add(&unit).map_err(problem)?;
    }
    stream.end_picture();
    let too_long = |unit: &AccessUnit<'_>| unit.bytes() > FRAME_BYTES_MAX;
    if let Some((index, unit)) = stream.done.iter().enumerate().find(|(_, unit)| too_long(unit)) {
        let (index, len_bytes) = (index as u64, unit.bytes() as u64);
        return Err((unit.offset, ClipProblem::FrameSize { index, len_bytes }));
    }
    let Some(first) = stream.done.first() else { return Err((0, ClipProblem::NoFrames)) };
    if !first.irap {
        return Err((first.offset, ClipProblem::FirstNotKeyframe));
    }
    let Some((width, height)) = stream.size.filter(|_| first.has_parameters) else {
        let reason = "is a keyframe without sequence parameter set before it".to_owned();
        return Err((first.offset, ClipProblem::NalUnit { index: 0, reason }));
    };
    let known = options.frame_rate.or(stream.frame_rate);
    let frame_rate = known.unwrap_or(FRAME_RATE_ASSUMED);
    if !(frame_rate > 0.0 && frame_rate <= FRAME_RATE_MAX) {
        let problem = ClipProblem::FrameRate { frames_per_second: frame_rate as u64 };
        return Err((first.offset, problem));
    }
    let ticks = |index: usize| (index as f64 * 90_000.0 / frame_rate).round() as u64;
    let frames = stream.done.iter().enumerate().map(|(index, unit)| ClipFrame {
        timestamp_ticks: ticks(index),
        keyframe: unit.irap,
        packets: packetize::h265(&unit.units),
        frame_bytes: unit.bytes(),
    });
    let clip = MediaClip {
        name: name.to_owned(),
        codec: Codec::H265,
        clock_rate: Codec::H265.clock_rate(),
        width,
        height,
        channels: 0,
        frames: frames.collect(),
        duration_ticks: ticks(stream.done.len()).max(1),
        frame_rate,
        scalability: None,
    };
    Ok(OpenedClip { clip, frame_rate_assumed: known.is_none() })
}

/// Why a NAL unit can't be in such a file, or not be sent.
fn check(unit: &Unit<'_>) -> Result<(), String> {
    let cut_short = || Err("is cut short: nothing is behind its header".to_owned());
    let &[first, second, ref rest @ ..] = unit.data else { return cut_short() };
    let kind = h265::nal_type(first);
    // These two are nothing else (§7.3.2.6, §7.3.2.7).
    if rest.is_empty() && !matches!(kind, nal::END_OF_SEQUENCE | nal::END_OF_STREAM) {
        return cut_short();
    }
    if first & 0x80 != 0 || second & 7 == 0 {
        return Err("has impossible header bits: this is no H.265 in Annex B form".to_owned());
    }
    if h265::layer_id([first, second]) != 0 {
        return Err("is of a second layer: scalable and multiview H.265 can't be sent".to_owned());
    }
    match kind {
        6..=9 => Err(format!(
            "has type {kind}, a leading picture: WebRTC has no reordering (encode with \
             bframes=0:open-gop=0)"
        )),
        10..=15 | 22..=31 | 41.. => {
            Err(format!("has type {kind}, which is reserved or not specified"))
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
    /// Puts a NAL unit into the access unit it belongs to (§7.4.2.4.4).
    fn add(&mut self, unit: &Unit<'a>) -> Result<(), String> {
        let kind = h265::nal_type(unit.data.first().copied().unwrap_or(0));
        let begins = matches!(kind, nal::VPS..=nal::DELIMITER | nal::PREFIX_SEI)
            || h265::is_first_slice(unit.data);
        if begins && self.open.has_picture {
            self.end_picture();
        }
        if self.open.units.is_empty() {
            self.open.offset = unit.offset;
        }
        match kind {
            nal::VPS | nal::SPS | nal::PPS => {
                if kind == nal::SPS {
                    self.read_parameters(unit.data)?;
                    self.open.has_parameters = true;
                }
                self.keep(kind, unit.data)?;
            }
            // They carry nothing that RTP does not say already.
            nal::DELIMITER | nal::END_OF_SEQUENCE | nal::END_OF_STREAM | nal::FILLER => {
                return Ok(());
            }
            _ => {}
        }
        self.open.has_picture |= h265::is_picture(kind);
        self.open.irap |= h265::is_irap(kind);
        self.open.units.push(unit.data);
        Ok(())
    }

    /// Keeps a parameter set; with another video parameter set, everything begins anew.
    fn keep(&mut self, kind: u8, data: &'a [u8]) -> Result<(), String> {
        // Some encoders repeat them.
        if self.parameters.contains(&data) {
            return Ok(());
        }
        if kind == nal::VPS {
            self.parameters.clear();
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
        if picture.irap && !picture.has_parameters && !self.parameters.is_empty() {
            // Who joins at this picture needs them.
            let is_own = |unit: &&&[u8]| !self.parameters.contains(*unit);
            let own: Vec<_> = picture.units.iter().filter(is_own).copied().collect();
            picture.units = self.parameters.iter().copied().chain(own).collect();
            picture.has_parameters = true;
        }
        self.done.push(picture);
    }

    fn read_parameters(&mut self, unit: &[u8]) -> Result<(), String> {
        let bad = |reason: String| format!("is no usable sequence parameter set: {reason}");
        let parameters =
            Parameters::parse(unit).ok_or_else(|| bad("it can't be read".to_owned()))?;
        if parameters.interlaced {
            return Err(bad("interlaced pictures can't be sent".to_owned()));
        }
        if parameters.reorder > 0 {
            return Err(bad("its pictures are reordered (encode with bframes=0)".to_owned()));
        }
        let needs = parameters.profile_tier_level;
        if needs.profile_space != 0
            || !PROFILES.contains(&needs.profile_id)
            || !LEVELS.contains(&needs.level_id)
        {
            let (profile, level) = (needs.profile_id, needs.level_id);
            return Err(bad(format!("no offer can tell of profile {profile}, level {level}/30")));
        }
        let (width, height) = (parameters.width, parameters.height);
        let size = parameters.size();
        let size = size.ok_or_else(|| bad(format!("a picture of {width}x{height} pixels")))?;
        self.size.get_or_insert(size);
        self.frame_rate = self.frame_rate.or(parameters.frame_rate);
        Ok(())
    }
}
