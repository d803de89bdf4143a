//! Sequence parameter sets (ITU-T H.265 §7.3.2.2), as far as to how fast pictures follow each other.

use crate::bits::BitReader;

/// Most bytes of a parameter set that are looked at: far more than encoders write.
const BYTES_MAX: usize = 4_096;

/// What a stream asks of its decoder, as SDP says it (RFC 7798 §7.1; H.265 §7.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfileTierLevel {
    /// `profile-space`: 0 but in profiles that are not defined yet.
    pub profile_space: u8,
    /// `profile-id`: 1 is Main.
    pub profile_id: u8,
    /// `tier-flag`: High rather than Main.
    pub high_tier: bool,
    /// `level-id`: thirty times the level.
    pub level_id: u8,
}

/// What a sequence parameter set says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameters {
    /// What decoding takes.
    pub profile_tier_level: ProfileTierLevel,
    /// Width of a picture in pixels.
    pub width: u32,
    /// Its height.
    pub height: u32,
    /// Pictures that may come before another one in decoding order and behind it in output order;
    /// WebRTC has no place for any.
    pub reorder: u32,
    /// Each picture is a field.
    pub interlaced: bool,
    /// Pictures a second by its timing, if it has any.
    pub frame_rate: Option<f64>,
}

impl Parameters {
    /// Reads a NAL unit that is a sequence parameter set, header included; `None` if it can't be read.
    pub fn parse(sps: &[u8]) -> Option<Parameters> {
        let data = sps.get(super::HEADER_BYTES..)?;
        let data = unescape(data.get(..BYTES_MAX).unwrap_or(data));
        parse(&mut BitReader::new(&data))
    }

    /// Width and height; `None` if a side has more than 65,535 pixels.
    pub fn size(&self) -> Option<(u16, u16)> {
        let side = |pixels| u16::try_from(pixels).ok().filter(|&pixels| pixels > 0);
        side(self.width).zip(side(self.height))
    }
}

/// Without the bytes that keep start codes out of it (§7.3.1.1).
fn unescape(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    let mut zeros = 0;
    for &byte in data {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

fn parse(bits: &mut BitReader<'_>) -> Option<Parameters> {
    bits.skip(4)?;
    let sub_layers = bits.take(3)?;
    bits.skip(1)?;
    let profile_tier_level = profile_tier_level(bits, sub_layers)?;
    bits.exp_golomb()?;
    let chroma_format = bits.exp_golomb()?;
    if chroma_format == 3 {
        bits.skip(1)?;
    }
    let (mut width, mut height) = (bits.exp_golomb()?, bits.exp_golomb()?);
    if bits.flag()? {
        let [left, right, top, bottom] = exp_golombs(bits)?;
        // Table 6-1.
        let (across, down) = match chroma_format {
            1 => (2, 2),
            2 => (2, 1),
            _ => (1, 1),
        };
        width = width.checked_sub(left.checked_add(right)?.checked_mul(across)?)?;
        height = height.checked_sub(top.checked_add(bottom)?.checked_mul(down)?)?;
    }
    let _depths: [u32; 2] = exp_golombs(bits)?;
    let order_bits = bits.exp_golomb()?.checked_add(4).filter(|bits| *bits <= 16)?;
    let all = bits.flag()?;
    let mut reorder = 0;
    for _ in if all { 0 } else { sub_layers }..=sub_layers {
        let [_, pictures, _] = exp_golombs(bits)?;
        reorder = reorder.max(pictures);
    }
    let known = Parameters {
        profile_tier_level,
        width,
        height,
        reorder,
        interlaced: false,
        frame_rate: None,
    };
    // What follows is long, and all that is wanted of it is the timing.
    let (interlaced, frame_rate) = timing(bits, order_bits).unwrap_or_default();
    Some(Parameters { interlaced, frame_rate, ..known })
}

/// §7.3.3, of the whole stream.
fn profile_tier_level(bits: &mut BitReader<'_>, sub_layers: u32) -> Option<ProfileTierLevel> {
    let profile_space = bits.take(2)? as u8;
    let high_tier = bits.flag()?;
    let profile_id = bits.take(5)? as u8;
    bits.skip(32 + 4 + 43 + 1)?;
    let level_id = bits.take(8)? as u8;
    let mut skipped = 0;
    for _ in 0..sub_layers {
        skipped += if bits.flag()? { 88 } else { 0 };
        skipped += if bits.flag()? { 8 } else { 0 };
    }
    if sub_layers > 0 {
        bits.skip(2 * (8 - sub_layers))?;
    }
    bits.skip(skipped)?;
    Some(ProfileTierLevel { profile_space, profile_id, high_tier, level_id })
}

/// From the sizes of coding blocks to the timing: whether pictures are fields, and how many there are
/// in a second.
fn timing(bits: &mut BitReader<'_>, order_bits: u32) -> Option<(bool, Option<f64>)> {
    let _blocks: [u32; 6] = exp_golombs(bits)?;
    if bits.flag()? && bits.flag()? {
        skip_scaling_lists(bits)?;
    }
    bits.skip(2)?;
    if bits.flag()? {
        bits.skip(8)?;
        let _sizes: [u32; 2] = exp_golombs(bits)?;
        bits.skip(1)?;
    }
    skip_reference_sets(bits)?;
    if bits.flag()? {
        let count = bits.exp_golomb()?;
        if count > 32 {
            return None;
        }
        bits.skip(count * (order_bits + 1))?;
    }
    bits.skip(2)?;
    if !bits.flag()? {
        return Some((false, None));
    }
    // E.2.1.
    if bits.flag()? && bits.take(8)? == 255 {
        bits.skip(32)?;
    }
    if bits.flag()? {
        bits.skip(1)?;
    }
    if bits.flag()? {
        bits.skip(4)?;
        if bits.flag()? {
            bits.skip(24)?;
        }
    }
    if bits.flag()? {
        let _places: [u32; 2] = exp_golombs(bits)?;
    }
    bits.skip(1)?;
    let interlaced = bits.flag()?;
    bits.skip(1)?;
    if bits.flag()? {
        let _window: [u32; 4] = exp_golombs(bits)?;
    }
    if !bits.flag()? {
        return Some((interlaced, None));
    }
    let (units, scale) = (bits.take(32)?, bits.take(32)?);
    let frame_rate = (units > 0 && scale > 0).then(|| f64::from(scale) / f64::from(units));
    Some((interlaced, frame_rate))
}

/// §7.3.4.
fn skip_scaling_lists(bits: &mut BitReader<'_>) -> Option<()> {
    for size in 0..4 {
        for _ in (0..6).step_by(if size == 3 { 3 } else { 1 }) {
            if !bits.flag()? {
                bits.exp_golomb()?;
                continue;
            }
            let coefficients = 64.min(1 << (4 + (size << 1)));
            for _ in 0..coefficients + u32::from(size > 1) {
                bits.exp_golomb()?;
            }
        }
    }
    Some(())
}

/// §7.3.7, of all sets that a sequence parameter set has.
fn skip_reference_sets(bits: &mut BitReader<'_>) -> Option<()> {
    let count = bits.exp_golomb()?;
    if count > 64 {
        return None;
    }
    let mut pictures: u32 = 0;
    for index in 0..count {
        if index > 0 && bits.flag()? {
            bits.skip(1)?;
            bits.exp_golomb()?;
            let mut kept = 0;
            for _ in 0..=pictures {
                let used = bits.flag()?;
                kept += u32::from(used || bits.flag()?);
            }
            pictures = kept;
        } else {
            let [before, behind] = exp_golombs(bits)?;
            if before > 16 || behind > 16 {
                return None;
            }
            pictures = before + behind;
            for _ in 0..pictures {
                bits.exp_golomb()?;
                bits.skip(1)?;
            }
        }
    }
    Some(())
}

fn exp_golombs<const N: usize>(bits: &mut BitReader<'_>) -> Option<[u32; N]> {
    let mut values = [0; N];
    for value in &mut values {
        *value = bits.exp_golomb()?;
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_clips_say_what_they_take() {
        let levels = [("180p", 60), ("360p", 63), ("720p", 93)];
        for (clip, (name, level_id)) in
            crate::builtin::video(crate::Codec::H265).unwrap().iter().zip(levels)
        {
            let sps = super::super::sequence_parameters(&clip.frames[0].packets[0]).unwrap();
            let parameters = Parameters::parse(sps).unwrap();
            let needs =
                ProfileTierLevel { profile_space: 0, profile_id: 1, high_tier: false, level_id };
            assert_eq!(parameters.profile_tier_level, needs, "{name}");
            assert_eq!((parameters.reorder, parameters.frame_rate), (0, Some(25.0)), "{name}");
            assert_eq!(parameters.size(), Some((clip.width, clip.height)), "{name}");
            for len in 0..sps.len() {
                let _ = Parameters::parse(&sps[..len]);
            }
        }
    }

    #[test]
    fn bytes_that_keep_start_codes_out_are_no_data() {
        assert_eq!(unescape(&[0, 0, 3, 1, 0, 0, 3, 0, 3]), [0, 0, 1, 0, 0, 0, 3]);
        assert_eq!(unescape(&[3, 0, 3]), [3, 0, 3]);
    }
}
