//! Session descriptions (SDP, RFC 8866) as WebRTC writes them, parsed once into borrowed fields.
//!
//! It holds what the peer, the embedded SFU and signalling read of a description and nothing else.
//! Attributes that it does not know are passed over; [`Description::rewrite`] keeps them. A
//! description comes from the network, so everything that is searched has a named maximum, and
//! whatever is linear is bounded by [`DESCRIPTION_BYTES_MAX`].
//!
//! `webrtc-sdp` 0.3.17 (Mozilla's, alive, 5,600 lines) is not used: its licence, MPL-2.0, is none
//! that `deny.toml` allows, and it copies each attribute of each line, which a join would pay for.
//!
//! ```
//! let text = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=sendonly\r\n\
//!             a=rtpmap:111 opus/48000/2\r\na=ssrc:7 cname:x\r\n";
//! let description = stampede_sdp::Description::parse(text)?;
//! let audio = &description.media[0];
//! assert_eq!((audio.mid, audio.direction.sends()), ("0", true));
//! assert!(audio.payload_types[0].is("OPUS"));
//! assert_eq!(audio.ssrcs[0].ssrc, 7);
//! # Ok::<(), stampede_sdp::ParseError>(())
//! ```

#![forbid(unsafe_code)]

mod candidate;
mod media;

use std::borrow::Cow;
use std::collections::HashSet;

pub use candidate::Candidate;
pub use media::{
    Direction, Extension, Media, MediaKind, MediaType, PayloadType, RtpMap, Slots, StreamSsrc,
};

/// Longest description that is parsed: about a thousand tracks.
pub const DESCRIPTION_BYTES_MAX: usize = 2 << 20;
/// Most m-lines of a description: the tracks that a session follows (`REMOTE_TRACKS_MAX` of the
/// signalling), and data.
pub const MEDIA_MAX: usize = 4_097;
/// Most m-lines that a client offers to receive by over LiveKit's single connection: some 2 kB each,
/// so that a description of all of them is half as long as the longest that is parsed.
pub const SLOTS_MAX: u32 = 512;
/// Most payload types of an m-line: the field has seven bits (RFC 3550 §5.1).
pub const PAYLOAD_TYPES_MAX: usize = 128;
/// Most header extensions of an m-line: ids have eight bits (RFC 8285 §4.3).
pub const EXTENSIONS_MAX: usize = 255;
/// Most SSRCs of an m-line; simulcast of three layers with RTX has six.
pub const SSRCS_MAX: usize = 64;
/// Most characters of the description that an error repeats.
const EXCERPT_CHARS_MAX: usize = 80;

/// A session description that was parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description<'a> {
    text: &'a str,
    /// `a=ice-lite` (RFC 8839 §5.3).
    pub ice_lite: bool,
    /// Mids in `a=group:BUNDLE` (RFC 9143).
    pub bundled: Vec<&'a str>,
    /// What the whole session says of the transport; see [`Self::transport`].
    pub session_transport: Transport<'a>,
    /// The m-lines, in order; at least one and at most [`MEDIA_MAX`], each with a mid of its own.
    pub media: Vec<Media<'a>>,
}

/// What a description says of its ICE and DTLS transport (RFC 8839, RFC 8842): values as written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transport<'a> {
    /// `a=ice-ufrag`.
    pub ice_ufrag: Option<&'a str>,
    /// `a=ice-pwd`.
    pub ice_pwd: Option<&'a str>,
    /// `a=ice-options`.
    pub ice_options: Option<&'a str>,
    /// The first `a=fingerprint`: hash function and digest.
    pub fingerprint: Option<&'a str>,
    /// `a=setup`.
    pub setup: Option<&'a str>,
}

/// Why a text is no description that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It is longer than [`DESCRIPTION_BYTES_MAX`].
    #[error("it has {bytes} bytes (the most taken is {DESCRIPTION_BYTES_MAX})")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Its first line is not `v=0`.
    #[error("it does not begin with v=0")]
    NoVersion,
    /// A line has no `=` at its second place.
    #[error("{line:?} is no line of SDP")]
    Line {
        /// The line's beginning.
        line: String,
    },
    /// An m-line lacks its port, its protocol or a format.
    #[error("{line:?} is cut short")]
    MediaLine {
        /// The line's beginning.
        line: String,
    },
    /// It has no m-line.
    #[error("it has no m-line")]
    NoMedia,
    /// An m-line has no `a=mid`, or one of another m-line.
    #[error("m-line {index} has no mid of its own")]
    Mid {
        /// The m-line, from 0.
        index: usize,
    },
    /// There is more of something than is taken.
    #[error("it has more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The most that is taken.
        max: usize,
    },
}

impl<'a> Description<'a> {
    /// Parses a description. Lines may end with or without a carriage return.
    ///
    /// # Errors
    /// [`ParseError`] says what is wrong with the text.
    pub fn parse(text: &'a str) -> Result<Self, ParseError> {
        if text.len() > DESCRIPTION_BYTES_MAX {
            return Err(ParseError::TooLong { bytes: text.len() });
        }
        let mut lines = lines(text);
        if lines.next() != Some("v=0") {
            return Err(ParseError::NoVersion);
        }
        let mut description = Self {
            text,
            ice_lite: false,
            bundled: Vec::new(),
            session_transport: Transport::default(),
            media: Vec::new(),
        };
        let mut direction = Direction::default();
        for line in lines {
            if line.as_bytes().get(1) != Some(&b'=') {
                return Err(ParseError::Line { line: excerpt(line) });
            }
            if line.starts_with("m=") {
                if description.media.len() >= MEDIA_MAX {
                    return Err(ParseError::TooMany { what: "m-lines", max: MEDIA_MAX });
                }
                description.media.push(Media::begin(line, direction)?);
                continue;
            }
            let Some(attribute) = line.strip_prefix("a=") else { continue };
            let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
            match description.media.last_mut() {
                Some(media) => media.take_attribute(name, value)?,
                None => {
                    direction = Direction::parse(name).unwrap_or(direction);
                    description.take_attribute(name, value);
                }
            }
        }
        description.media.iter_mut().for_each(Media::pair_ssrcs);
        description.check_mids()?;
        Ok(description)
    }

    fn take_attribute(&mut self, name: &str, value: &'a str) {
        match name {
            "ice-lite" => self.ice_lite = true,
            "group" => {
                let mut words = value.split_ascii_whitespace();
                if words.next() == Some("BUNDLE") {
                    let room = MEDIA_MAX.saturating_sub(self.bundled.len());
                    self.bundled.extend(words.take(room));
                }
            }
            _ => self.session_transport.take_attribute(name, value),
        }
    }

    fn check_mids(&self) -> Result<(), ParseError> {
        if self.media.is_empty() {
            return Err(ParseError::NoMedia);
        }
        let mut mids = HashSet::with_capacity(self.media.len());
        for (index, media) in self.media.iter().enumerate() {
            if media.mid.is_empty() || !mids.insert(media.mid) {
                return Err(ParseError::Mid { index });
            }
        }
        Ok(())
    }

    /// The transport of the bundle: each value that of the session, or else of the first m-line that
    /// has it. The m-lines of a bundle share it (RFC 9143 §7.2).
    #[must_use]
    pub fn transport(&self) -> Transport<'a> {
        let of_media = self.media.iter().map(|media| media.transport);
        of_media.fold(self.session_transport, Transport::or)
    }

    /// Port 0 outside of the bundle: the m-line is not in use (RFC 9143 §7.3.3).
    #[must_use]
    pub fn is_rejected(&self, media: &Media<'_>) -> bool {
        media.port == "0" && !self.bundled.contains(&media.mid)
    }

    /// The candidates of all m-lines.
    pub fn candidates(&self) -> impl Iterator<Item = &Candidate<'a>> {
        self.media.iter().flat_map(|media| &media.candidates)
    }

    /// The text with other lines: `line` is asked for each, with the m-line that it belongs to, and
    /// returns what stands there instead, without its end; with `None` it is left out.
    pub fn rewrite(
        &self,
        mut line: impl FnMut(Option<&Media<'a>>, &'a str) -> Option<Cow<'a, str>>,
    ) -> String {
        let mut text = String::with_capacity(self.text.len() + 64);
        let mut rest = self.media.iter();
        let mut media = None;
        for old in lines(self.text) {
            if old.starts_with("m=") {
                media = rest.next();
            }
            if let Some(new) = line(media, old) {
                text.push_str(&new);
                text.push_str("\r\n");
            }
        }
        text
    }
}

impl<'a> Transport<'a> {
    fn take_attribute(&mut self, name: &str, value: &'a str) {
        let known = match name {
            "ice-ufrag" => &mut self.ice_ufrag,
            "ice-pwd" => &mut self.ice_pwd,
            "ice-options" => &mut self.ice_options,
            "fingerprint" => &mut self.fingerprint,
            "setup" => &mut self.setup,
            _ => return,
        };
        known.get_or_insert(value);
    }

    fn or(self, other: Self) -> Self {
        Self {
            ice_ufrag: self.ice_ufrag.or(other.ice_ufrag),
            ice_pwd: self.ice_pwd.or(other.ice_pwd),
            ice_options: self.ice_options.or(other.ice_options),
            fingerprint: self.fingerprint.or(other.fingerprint),
            setup: self.setup.or(other.setup),
        }
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim_end).filter(|line| !line.is_empty())
}

fn excerpt(line: &str) -> String {
    line.chars().take(EXCERPT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
