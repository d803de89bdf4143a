//! What the payload types of a subscriber's m-lines mean.

use stampede_media::Codec;
use str0m::Rtc;

/// One payload type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    /// As in the packet.
    pub(crate) wire: u8,
    /// The same without RTX.
    pub(crate) media: u8,
    pub(crate) codec: Codec,
    /// In hertz.
    pub(crate) clock_rate: u32,
}

/// All payload types that were agreed on; the same for all m-lines of a bundle (RFC 9143 §9.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Formats(Vec<Format>);

impl Formats {
    /// What str0m negotiated.
    pub(super) fn of(rtc: &Rtc) -> Self {
        let mut formats = Self::default();
        for params in rtc.codec_config().params() {
            let codec = match params.spec().codec {
                str0m::format::Codec::Vp8 => Codec::Vp8,
                str0m::format::Codec::Vp9 => Codec::Vp9,
                str0m::format::Codec::H264 => Codec::H264,
                str0m::format::Codec::Av1 => Codec::Av1,
                str0m::format::Codec::Opus => Codec::Opus,
                _ => continue,
            };
            let (media, clock_rate) = (*params.pt(), params.spec().clock_rate.get());
            for wire in [Some(media), params.resend().map(|rtx| *rtx)].into_iter().flatten() {
                formats.add(Format { wire, media, codec, clock_rate });
            }
        }
        formats
    }

    pub(crate) fn add(&mut self, format: Format) {
        if !self.0.contains(&format) {
            self.0.push(format);
        }
    }

    pub(crate) fn get(&self, wire: u8) -> Option<Format> {
        self.0.iter().find(|format| format.wire == wire).copied()
    }
}
