//! `--subscribe-codecs` and `--backup-codec`: what subscribers can receive, and what is published for
//! those who can't receive a track's own codec.

use std::fmt;
use std::str::FromStr;

use stampede_core::VideoCodecs;
use stampede_media::Codec;

use crate::values::{codec_name, video_codec};

/// Video codecs, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecList(Vec<Codec>);

impl CodecList {
    /// As a set.
    #[must_use]
    pub fn set(&self) -> VideoCodecs {
        VideoCodecs::of(self.0.iter().copied())
    }
}

impl FromStr for CodecList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(|codec| video_codec(codec.trim())).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for CodecList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|codec| codec_name(*codec)).collect();
        f.write_str(&names.join(","))
    }
}

/// What a track is published in besides its own codec; VP8 by default, as livekit-client has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum BackupCodec {
    /// VP8.
    #[default]
    Vp8,
    /// H.264.
    H264,
    /// Nothing.
    None,
}

impl BackupCodec {
    /// Of a track in this codec: VP8 and H.264 need none (client-sdk-js src/room/track/options.ts,
    /// `backupCodecs`).
    #[must_use]
    pub fn of(self, codec: Codec) -> Option<Codec> {
        let backup = match self {
            Self::Vp8 => Codec::Vp8,
            Self::H264 => Codec::H264,
            Self::None => return None,
        };
        matches!(codec, Codec::Vp9 | Codec::Av1 | Codec::H265).then_some(backup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_read() {
        let list: CodecList = "VP8, h265".parse().unwrap();
        assert_eq!(list.to_string(), "vp8,h265");
        assert!(list.set().has(Codec::H265) && !list.set().has(Codec::Vp9));
        assert!("".parse::<CodecList>().is_err() && "vp8,theora".parse::<CodecList>().is_err());
    }

    #[test]
    fn what_everybody_can_receive_needs_no_backup() {
        assert_eq!(BackupCodec::default().of(Codec::Vp9), Some(Codec::Vp8));
        assert_eq!(BackupCodec::H264.of(Codec::H265), Some(Codec::H264));
        assert_eq!(BackupCodec::Vp8.of(Codec::H264), None);
        assert_eq!(BackupCodec::None.of(Codec::Av1), None);
    }
}
