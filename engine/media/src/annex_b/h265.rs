//! H.265 in Annex B form.

use super::{Stream, Syntax, Unfit, Unit, units};
use crate::clip::{ClipOptions, Codec, OpenedClip, ProblemAt};
use crate::h265::{self, Parameters, nal};
use crate::packetize;

/// Profiles (H.265 annex A) that browsers and servers know of, Main and Main 10, and levels (table A.8)
/// that can be told in an offer.
const PROFILES: std::ops::RangeInclusive<u8> = 1..=2;
const LEVELS: [u8; 13] = [30, 60, 63, 90, 93, 120, 123, 150, 153, 156, 180, 183, 186];

/// True if the first NAL unit is one that H.265 begins with, and H.264 does not: a delimiter, a
/// parameter set or supplements of the base layer. H.264 reads the same bytes as a partition, a
/// supplement with `nal_ref_idc` or nothing at all.
pub(crate) fn is_h265(bytes: &[u8]) -> bool {
    let is_kind =
        |kind| matches!(kind, nal::DELIMITER | nal::VPS | nal::SPS | nal::PPS | nal::PREFIX_SEI);
    super::begins(bytes)
        && units(bytes).next().is_some_and(|unit| {
            matches!(unit.data, [first, 1, ..] if is_kind(h265::nal_type(*first)) && first & 0x81 == 0)
        })
}

/// Reads a whole file and packetises it.
pub(crate) fn read(
    name: &str,
    bytes: &[u8],
    options: ClipOptions,
) -> Result<OpenedClip, ProblemAt> {
    let syntax = Syntax { codec: Codec::H265, check, add, packetize: packetize::h265 };
    super::read_by(&syntax, name, bytes, options)
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

/// Puts a NAL unit into the access unit it belongs to (§7.4.2.4.4).
fn add<'a>(stream: &mut Stream<'a>, unit: &Unit<'a>) -> Result<(), Unfit> {
    let kind = h265::nal_type(unit.data.first().copied().unwrap_or(0));
    let begins = matches!(kind, nal::VPS..=nal::DELIMITER | nal::PREFIX_SEI)
        || h265::is_first_slice(unit.data);
    if begins && stream.open.has_picture {
        stream.end_picture();
    }
    if stream.open.units.is_empty() {
        stream.open.offset = unit.offset;
    }
    match kind {
        nal::VPS | nal::SPS | nal::PPS => {
            if kind == nal::SPS {
                read_parameters(stream, unit.data)?;
                stream.open.has_parameters = true;
            }
            keep(stream, kind, unit.data)?;
        }
        // They carry nothing that RTP does not say already.
        nal::DELIMITER | nal::END_OF_SEQUENCE | nal::END_OF_STREAM | nal::FILLER => {
            return Ok(());
        }
        _ => {}
    }
    stream.open.has_picture |= h265::is_picture(kind);
    stream.open.keyframe |= h265::is_irap(kind);
    stream.open.units.push(unit.data);
    Ok(())
}

/// Keeps a parameter set; with another video parameter set, everything begins anew.
fn keep<'a>(stream: &mut Stream<'a>, kind: u8, data: &'a [u8]) -> Result<(), String> {
    if kind == nal::VPS && !stream.parameters.contains(&data) {
        stream.parameters.clear();
    }
    if kind == nal::PPS {
        stream.replace(data, 2);
    }
    stream.keep(data)
}

fn read_parameters(stream: &mut Stream<'_>, unit: &[u8]) -> Result<(), Unfit> {
    let bad = |reason: String| format!("is no usable sequence parameter set: {reason}");
    let parameters = Parameters::parse(unit).ok_or_else(|| bad("it can't be read".to_owned()))?;
    if parameters.interlaced {
        return Err(bad("interlaced pictures can't be sent".to_owned()).into());
    }
    if parameters.reorder > 0 {
        return Err(bad("its pictures are reordered (encode with bframes=0)".to_owned()).into());
    }
    let needs = parameters.profile_tier_level;
    let profile = needs.profile_id;
    if needs.profile_space != 0 || !PROFILES.contains(&profile) {
        let name = match profile {
            3 => " (Main Still Picture)",
            4 => " (range extensions: 4:0:0, 4:2:2, 4:4:4 or 12 bits)",
            9 | 11 => " (screen content coding)",
            _ => "",
        };
        let found = format!("profile {profile}{name}");
        return Err(Unfit::Profile { found, takes: "Main or Main 10 (4:2:0)" });
    }
    if !LEVELS.contains(&needs.level_id) {
        let level = needs.level_id;
        return Err(bad(format!("no offer can tell of level {level}/30")).into());
    }
    stream.set_profile(profile)?;
    let (width, height) = (parameters.width, parameters.height);
    let size = parameters.size();
    let size = size.ok_or_else(|| bad(format!("a picture of {width}x{height} pixels")))?;
    stream.size.get_or_insert(size);
    stream.frame_rate = stream.frame_rate.or(parameters.frame_rate);
    Ok(())
}
