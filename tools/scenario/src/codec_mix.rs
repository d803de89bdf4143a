//! Codecs of published video, in shares: `vp8:70,h264:30`.

use std::fmt;
use std::str::FromStr;

use stampede_media::Codec;

use crate::values;

/// Largest weight of a codec.
const WEIGHT_MAX: u32 = 1_000_000;

/// Which codecs publishers send, each one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecMix {
    /// In the order in which they were given, none twice, with weights above 0.
    parts: Vec<(Codec, u32)>,
}

/// It is no mix of codecs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecMixError {
    /// A codec that can't be published.
    #[error("{0}")]
    Codec(String),
    /// It is no whole number, or 0, or absurdly large.
    #[error("'{0}' is no weight; write shares like vp8:70,h264:30")]
    Weight(String),
    /// One codec twice.
    #[error("{0} is there twice")]
    Twice(Codec),
}

impl CodecMix {
    /// The codecs, the first one first.
    pub fn codecs(&self) -> impl Iterator<Item = Codec> + '_ {
        self.parts.iter().map(|(codec, _)| *codec)
    }

    /// The only codec, if there is but one.
    pub fn single(&self) -> Option<Codec> {
        let [(codec, _)] = self.parts[..] else { return None };
        Some(codec)
    }

    /// Share of each codec.
    pub fn shares(&self) -> impl Iterator<Item = (Codec, f64)> + '_ {
        let all: u32 = self.parts.iter().map(|(_, weight)| weight).sum();
        self.parts.iter().map(move |(codec, weight)| (*codec, f64::from(*weight) / f64::from(all)))
    }
}

impl From<Codec> for CodecMix {
    fn from(codec: Codec) -> Self {
        Self { parts: vec![(codec, 1)] }
    }
}

impl FromStr for CodecMix {
    type Err = CodecMixError;

    fn from_str(text: &str) -> Result<Self, CodecMixError> {
        let mut parts: Vec<(Codec, u32)> = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once(':').unwrap_or((part, "1"));
            let codec = values::video_codec(name.trim()).map_err(CodecMixError::Codec)?;
            let weight: u32 = weight
                .trim()
                .parse()
                .ok()
                .filter(|weight| (1..=WEIGHT_MAX).contains(weight))
                .ok_or_else(|| CodecMixError::Weight(weight.trim().to_owned()))?;
            if parts.iter().any(|(known, _)| *known == codec) {
                return Err(CodecMixError::Twice(codec));
            }
            parts.push((codec, weight));
        }
        // Of one codec any weight is all of it: so it is written, and equal to the codec alone.
        if let [(_, weight)] = &mut parts[..] {
            *weight = 1;
        }
        Ok(Self { parts })
    }
}

impl fmt::Display for CodecMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (codec, weight)) in self.parts.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let name = values::codec_name(*codec);
            match self.parts.len() {
                1 => write!(f, "{name}")?,
                _ => write!(f, "{comma}{name}:{weight}")?,
            }
        }
        Ok(())
    }
}

/// Who sends which: each gets the codec that is furthest behind its share, so that any first part of
/// those that have one mix holds its codecs in their shares, to one.
#[derive(Debug, Default)]
pub(crate) struct CodecTurns<'a> {
    mixes: Vec<(&'a CodecMix, Vec<u32>)>,
}

impl<'a> CodecTurns<'a> {
    /// The next one's of this mix.
    pub(crate) fn next(&mut self, mix: &'a CodecMix) -> Option<Codec> {
        let known = self.mixes.iter().position(|(other, _)| *other == mix);
        let index = known.unwrap_or_else(|| {
            self.mixes.push((mix, vec![0; mix.parts.len()]));
            self.mixes.len() - 1
        });
        let (_, given) = self.mixes.get_mut(index)?;
        let number = given.iter().sum::<u32>() + 1;
        let behind = mix.shares().zip(given.iter_mut()).map(|((codec, share), given)| {
            (share * f64::from(number) - f64::from(*given), codec, given)
        });
        // The first of several that are as far behind.
        let (_, codec, given) = behind.reduce(|a, b| if b.0 > a.0 + 1e-9 { b } else { a })?;
        *given += 1;
        Some(codec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_read() {
        for text in ["vp8", "vp8:70,h264:30", "av1:1,vp9:2,vp8:3"] {
            assert_eq!(text.parse::<CodecMix>().unwrap().to_string(), text);
        }
        assert_eq!("vp8:7".parse::<CodecMix>(), Ok(CodecMix::from(Codec::Vp8)));
        assert_eq!("VP9, h264".parse::<CodecMix>().unwrap().to_string(), "vp9:1,h264:1");
        for (text, why) in [
            ("", "unknown codec"),
            ("mpeg2:3", "unknown codec"),
            ("vp8:0", "'0' is no weight"),
            ("vp8:70%,h264:30%", "'70%' is no weight"),
            ("vp8:1,vp8:2", "twice"),
            ("vp8:99999999", "is no weight"),
        ] {
            let error = text.parse::<CodecMix>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn shares_are_kept_at_any_time() {
        let mix: CodecMix = "vp8:70,h264:20,vp9:10".parse().unwrap();
        let other: CodecMix = "av1".parse().unwrap();
        let mut turns = CodecTurns::default();
        let mut sent: Vec<Codec> = Vec::new();
        for number in 1..=100_usize {
            sent.push(turns.next(&mix).unwrap());
            assert_eq!(turns.next(&other), Some(Codec::Av1), "a mix has turns of its own");
            for (codec, share) in mix.shares() {
                let has = sent.iter().filter(|one| **one == codec).count() as f64;
                assert!((has - share * number as f64).abs() <= 1.0 + 1e-6, "{codec}: {sent:?}");
            }
        }
        let count = |codec| sent.iter().filter(|one| **one == codec).count();
        assert_eq!([Codec::Vp8, Codec::H264, Codec::Vp9].map(count), [70, 20, 10]);
        assert_eq!(sent[0], Codec::Vp8);
    }
}
