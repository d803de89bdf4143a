//! Which video codecs somebody can receive.

use stampede_media::Codec;

/// A set of video codecs; by default all that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VideoCodecs(u8);

impl Default for VideoCodecs {
    fn default() -> Self {
        Self(u8::MAX)
    }
}

impl VideoCodecs {
    /// These alone.
    pub fn of(codecs: impl IntoIterator<Item = Codec>) -> Self {
        Self(codecs.into_iter().fold(0, |set, codec| set | Self::bit(codec)))
    }

    /// This one is among them. Audio is no question of them.
    pub const fn has(self, codec: Codec) -> bool {
        !codec.is_video() || self.0 & Self::bit(codec) != 0
    }

    const fn bit(codec: Codec) -> u8 {
        1 << codec as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_it_was_made_of() {
        let some = VideoCodecs::of([Codec::Vp8, Codec::H265]);
        assert!(some.has(Codec::Vp8) && some.has(Codec::H265) && some.has(Codec::Opus));
        assert!(!some.has(Codec::Vp9) && !some.has(Codec::H264) && !some.has(Codec::Av1));
        assert!(VideoCodecs::default().has(Codec::Av1));
    }
}
