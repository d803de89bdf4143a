//! An m-line and what belongs to it.

use std::fmt;

use crate::{
    Candidate, EXTENSIONS_MAX, PAYLOAD_TYPES_MAX, ParseError, SSRCS_MAX, Transport, excerpt,
};

/// The media type of an m-line (RFC 8866 §5.14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// `audio`.
    Audio,
    /// `video`.
    Video,
    /// `application`: data channels.
    Application,
    /// Another one.
    Other,
}

impl MediaType {
    /// Which kind of media it carries, if it carries any.
    pub fn kind(self) -> Option<MediaKind> {
        match self {
            Self::Audio => Some(MediaKind::Audio),
            Self::Video => Some(MediaKind::Video),
            Self::Application | Self::Other => None,
        }
    }
}

/// Audio or video: of an m-line, a track, a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// Sound.
    Audio,
    /// Picture.
    Video,
}

impl fmt::Display for MediaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Audio => "audio",
            Self::Video => "video",
        })
    }
}

/// How many m-lines of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slots {
    /// For sound.
    pub audio: u32,
    /// For pictures.
    pub video: u32,
}

/// In which directions media flow, seen from whoever wrote the description (RFC 8866 §6.7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Direction {
    /// Both; also where nothing is written.
    #[default]
    SendRecv,
    /// From the writer.
    SendOnly,
    /// To the writer.
    RecvOnly,
    /// None.
    Inactive,
}

impl Direction {
    pub(crate) fn parse(attribute: &str) -> Option<Self> {
        match attribute {
            "sendrecv" => Some(Self::SendRecv),
            "sendonly" => Some(Self::SendOnly),
            "recvonly" => Some(Self::RecvOnly),
            "inactive" => Some(Self::Inactive),
            _ => None,
        }
    }

    /// Whoever wrote it sends.
    #[must_use]
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }
}

/// One m-line and its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media<'a> {
    /// The media type.
    pub media_type: MediaType,
    /// The media type as written.
    pub media_word: &'a str,
    /// The port as written; 9 mostly, 0 if rejected or only bundled.
    pub port: &'a str,
    /// `UDP/TLS/RTP/SAVPF` or `UDP/DTLS/SCTP`.
    pub protocol: &'a str,
    /// The first format: a payload type, or `webrtc-datachannel`.
    pub first_format: &'a str,
    /// `a=mid`.
    pub mid: &'a str,
    /// The direction, or the session's where it has none of its own.
    pub direction: Direction,
    /// The track's id: second word of `a=msid` (RFC 8830).
    pub track_id: Option<&'a str>,
    /// The payload types, in order of preference; at most [`PAYLOAD_TYPES_MAX`].
    pub payload_types: Vec<PayloadType<'a>>,
    /// The header extensions; at most [`EXTENSIONS_MAX`].
    pub extensions: Vec<Extension<'a>>,
    /// The streams that are announced by SSRC; at most [`SSRCS_MAX`].
    pub ssrcs: Vec<StreamSsrc>,
    /// Candidates that can be read.
    pub candidates: Vec<Candidate<'a>>,
    /// What it says of the transport; see [`Description::transport`](crate::Description::transport).
    pub transport: Transport<'a>,
    /// `a=rtcp-rsize` (RFC 5506).
    pub rtcp_rsize: bool,
    /// `a=sctp-port`.
    pub sctp_port: Option<&'a str>,
    /// `a=max-message-size`, in bytes.
    pub max_message_size: Option<&'a str>,
    /// `a=ssrc-group:FID`: SSRC and its RTX SSRC.
    repairs: Vec<(u32, u32)>,
}

/// A stream's SSRC and that of its retransmissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamSsrc {
    /// The primary SSRC.
    pub ssrc: u32,
    /// Its RTX SSRC (`a=ssrc-group:FID`, RFC 5576 §4.2).
    pub rtx: Option<u32>,
}

/// A header extension (`a=extmap`, RFC 8285 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension<'a> {
    /// The id in packets.
    pub id: u8,
    /// What it is.
    pub uri: &'a str,
}

/// A payload type and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadType<'a> {
    /// The number in packets.
    pub number: u8,
    /// `a=rtpmap`; static payload types may have none.
    pub rtpmap: Option<RtpMap<'a>>,
    /// `a=fmtp`: parameters, as written.
    pub fmtp: Option<&'a str>,
    /// Values of `a=rtcp-fb`.
    pub feedback: Vec<&'a str>,
}

/// A codec and its clock (RFC 8866 §6.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpMap<'a> {
    /// All of it, as written: `opus/48000/2`.
    pub value: &'a str,
    /// The codec's name, in whatever case.
    pub encoding: &'a str,
    /// In hertz.
    pub clock_rate: u32,
}

impl<'a> Media<'a> {
    pub(crate) fn begin(line: &'a str, direction: Direction) -> Result<Self, ParseError> {
        let mut words = line.get(2..).unwrap_or_default().split_ascii_whitespace();
        let cut_short = || ParseError::MediaLine { line: excerpt(line) };
        let mut word = || words.next().ok_or_else(cut_short);
        let (media_word, port, protocol, first_format) = (word()?, word()?, word()?, word()?);
        let media_type = match media_word {
            "audio" => MediaType::Audio,
            "video" => MediaType::Video,
            "application" => MediaType::Application,
            _ => MediaType::Other,
        };
        let mut payload_types = Vec::new();
        for format in std::iter::once(first_format).chain(words) {
            // What is no number is the format of another protocol than RTP.
            let Ok(number) = format.parse() else { continue };
            if payload_types.len() >= PAYLOAD_TYPES_MAX {
                return Err(too_many("payload types", PAYLOAD_TYPES_MAX));
            }
            payload_types.push(PayloadType {
                number,
                rtpmap: None,
                fmtp: None,
                feedback: Vec::new(),
            });
        }
        Ok(Self {
            media_type,
            media_word,
            port,
            protocol,
            first_format,
            mid: "",
            direction,
            track_id: None,
            payload_types,
            extensions: Vec::new(),
            ssrcs: Vec::new(),
            candidates: Vec::new(),
            transport: Transport::default(),
            rtcp_rsize: false,
            sctp_port: None,
            max_message_size: None,
            repairs: Vec::new(),
        })
    }

    pub(crate) fn take_attribute(&mut self, name: &str, value: &'a str) -> Result<(), ParseError> {
        match name {
            "mid" if self.mid.is_empty() => self.mid = value,
            "msid" => self.track_id = value.split_ascii_whitespace().nth(1),
            "rtpmap" | "fmtp" | "rtcp-fb" => self.take_of_payload_type(name, value),
            "extmap" => return self.take_extension(value),
            "ssrc" => return self.take_ssrc(value),
            "ssrc-group" => return self.take_group(value),
            "candidate" => self.candidates.extend(Candidate::parse_value(value)),
            "rtcp-rsize" => self.rtcp_rsize = true,
            "sctp-port" => self.sctp_port = Some(value),
            "max-message-size" => self.max_message_size = Some(value),
            _ => match Direction::parse(name) {
                Some(direction) => self.direction = direction,
                None => self.transport.take_attribute(name, value),
            },
        }
        Ok(())
    }

    /// `number value`. What is of no payload type of this m-line is passed over.
    fn take_of_payload_type(&mut self, name: &str, value: &'a str) {
        let Some((number, value)) = value.split_once(' ') else { return };
        let Ok(number) = number.parse::<u8>() else { return };
        let mut payload_types = self.payload_types.iter_mut();
        let Some(payload_type) = payload_types.find(|known| known.number == number) else { return };
        match name {
            "rtpmap" if payload_type.rtpmap.is_none() => payload_type.rtpmap = RtpMap::parse(value),
            "fmtp" if payload_type.fmtp.is_none() => payload_type.fmtp = Some(value),
            "rtcp-fb" => payload_type.feedback.push(value),
            _ => {}
        }
    }

    fn take_extension(&mut self, value: &'a str) -> Result<(), ParseError> {
        let read = || {
            let (id, uri) = value.split_once(' ')?;
            // The id may have a direction, the URI attributes.
            let id = id.split('/').next()?.parse().ok()?;
            Some(Extension { id, uri: uri.split(' ').next()? })
        };
        if let Some(extension) = read() {
            if self.extensions.len() >= EXTENSIONS_MAX {
                return Err(too_many("header extensions on an m-line", EXTENSIONS_MAX));
            }
            self.extensions.push(extension);
        }
        Ok(())
    }

    fn take_ssrc(&mut self, value: &str) -> Result<(), ParseError> {
        let ssrc = value.split(' ').next().and_then(|ssrc| ssrc.parse().ok());
        let Some(ssrc) = ssrc else { return Ok(()) };
        // All lines of an SSRC stand together.
        if self.ssrcs.iter().rev().any(|known| known.ssrc == ssrc) {
            return Ok(());
        }
        if self.ssrcs.len() >= SSRCS_MAX {
            return Err(too_many("SSRCs on an m-line", SSRCS_MAX));
        }
        self.ssrcs.push(StreamSsrc { ssrc, rtx: None });
        Ok(())
    }

    fn take_group(&mut self, value: &str) -> Result<(), ParseError> {
        let mut words = value.split(' ');
        let is_repair = words.next() == Some("FID");
        let mut ssrc = || words.next().and_then(|word| word.parse().ok());
        if is_repair && let (Some(main), Some(repair)) = (ssrc(), ssrc()) {
            if self.repairs.len() >= SSRCS_MAX {
                return Err(too_many("SSRC groups on an m-line", SSRCS_MAX));
            }
            self.repairs.push((main, repair));
        }
        Ok(())
    }

    /// Takes the RTX SSRCs from among the others: a group may stand before or behind them.
    pub(crate) fn pair_ssrcs(&mut self) {
        let repairs = &self.repairs;
        self.ssrcs.retain(|stream| !repairs.iter().any(|&(_, repair)| repair == stream.ssrc));
        for stream in &mut self.ssrcs {
            let group = repairs.iter().find(|&&(main, _)| main == stream.ssrc);
            stream.rtx = group.map(|&(_, repair)| repair);
        }
    }
}

impl<'a> PayloadType<'a> {
    /// Its codec has this name; names are compared without case (RFC 8866 §6.6).
    #[must_use]
    pub fn is(&self, encoding: &str) -> bool {
        self.rtpmap.is_some_and(|rtpmap| rtpmap.encoding.eq_ignore_ascii_case(encoding))
    }

    /// The value of this parameter in `a=fmtp`.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        let mut parameters = self.fmtp?.split(';').filter_map(|word| word.trim().split_once('='));
        parameters.find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

impl PayloadType<'_> {
    /// The one payload type that redundant audio of this payload type consists of: its `a=fmtp` names
    /// that for each level of redundancy (RFC 2198 §5).
    #[must_use]
    pub fn redundant(&self) -> Option<u8> {
        let mut levels = self.fmtp?.trim().split('/').map(|level| level.parse().ok());
        let first = levels.next()??;
        levels.all(|level| level == Some(first)).then_some(first)
    }
}

impl<'a> RtpMap<'a> {
    fn parse(value: &'a str) -> Option<Self> {
        let mut parts = value.split('/');
        let (encoding, clock_rate) = (parts.next()?, parts.next()?.trim().parse().ok()?);
        Some(Self { value, encoding, clock_rate })
    }
}

fn too_many(what: &'static str, max: usize) -> ParseError {
    ParseError::TooMany { what, max }
}
