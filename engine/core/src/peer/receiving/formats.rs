//! What the payload types of a subscriber's m-lines mean.

use stampede_media::Codec;

/// One payload type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    /// As in the packet.
    pub(crate) wire: u8,
    /// The same without RTX, or without RED.
    pub(crate) media: u8,
    /// Payloads of it have earlier ones in front (RED, RFC 2198).
    pub(crate) red: bool,
    pub(crate) codec: Codec,
    /// In hertz.
    pub(crate) clock_rate: u32,
}

impl Format {
    /// It is that of retransmissions.
    pub(crate) fn is_rtx(self) -> bool {
        self.wire != self.media && !self.red
    }
}

/// All payload types that were agreed on; the same for all m-lines of a bundle (RFC 9143 §9.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Formats(Vec<Format>);

impl Formats {
    pub(crate) fn add(&mut self, format: Format) {
        if !self.0.contains(&format) {
            self.0.push(format);
        }
    }

    pub(crate) fn get(&self, wire: u8) -> Option<Format> {
        self.0.iter().find(|format| format.wire == wire).copied()
    }
}
