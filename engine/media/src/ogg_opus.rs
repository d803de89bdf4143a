//! Ogg files with one Opus stream (RFC 3533, RFC 7845).
//!
//! The `ogg` crate checks and takes apart the pages; the walk over them is done here, because its
//! own reader skips what it does not like and has no byte offsets to report.

use std::sync::Arc;

use ogg::reading::{BasePacketReader, OggReadError, PageParser};

use crate::clip::{ClipFrame, ClipProblem, Codec, FRAME_GAP_MAX_SECONDS, MediaClip, ProblemAt};
use crate::opus::{self, OpusHead};

/// The first four bytes of every Ogg page.
pub const MAGIC: &[u8; 4] = b"OggS";
/// Longest Opus packet taken: one packet is one RTP payload and one datagram, which has to fit
/// the usual path MTU with its headers.
pub const PACKET_BYTES_MAX: usize = 1_300;
const PAGE_HEADER_BYTES: usize = 27;
/// Granule position of a page on which no packet ends (RFC 3533 §6).
const NO_GRANULE: u64 = u64::MAX;

/// What one page says, besides its packets.
struct Page {
    offset: u64,
    serial: u32,
    sequence: u32,
    granule: u64,
    begins_stream: bool,
    ends_stream: bool,
}

/// Everything gathered while walking over the pages.
#[derive(Default)]
struct Stream {
    head: Option<OpusHead>,
    tags_seen: bool,
    frames: Vec<ClipFrame>,
    /// An empty packet came: some writers end a stream with one, and nothing may follow it.
    emptied: bool,
    /// End of the last packet, in samples since the first one's start.
    end_ticks: u64,
    /// Granule position and end in samples at the last page that had one.
    last_granule: Option<(u64, u64)>,
}

/// Reads a whole Ogg file with one Opus stream.
pub(crate) fn read(name: &str, bytes: &[u8]) -> Result<MediaClip, ProblemAt> {
    let mut reader = BasePacketReader::new();
    let mut stream = Stream::default();
    let mut serial = None;
    let mut next_sequence = None;
    let mut ended = false;
    let mut at = 0;
    let mut index = 0;
    while at < bytes.len() {
        let (page, parsed, len) = parse_page(bytes, at)?;
        if serial.is_none() && !page.begins_stream {
            let reason = "the file does not start with a stream's first page".to_owned();
            return Err((page.offset, ClipProblem::OggPage { reason }));
        }
        if ended || serial.is_some_and(|serial| serial != page.serial || page.begins_stream) {
            return Err((page.offset, ClipProblem::OggSeveralStreams));
        }
        serial = Some(page.serial);
        if next_sequence.is_some_and(|next| next != page.sequence) {
            let reason = format!("page {} comes out of order or after a lost one", page.sequence);
            return Err((page.offset, ClipProblem::OggPage { reason }));
        }
        next_sequence = Some(page.sequence.wrapping_add(1));
        ended = page.ends_stream;
        reader.push_page(parsed).map_err(|error| (page.offset, page_problem(&error)))?;
        let first_of_page = stream.frames.len();
        while let Some(packet) = reader.read_packet() {
            stream.packet(packet.data).map_err(|problem| (page.offset, problem))?;
        }
        stream.granule(&page, index, first_of_page)?;
        at += len;
        index += 1;
    }
    stream.into_clip(name, bytes.len() as u64)
}

/// Takes one page apart. Returns it and its length in bytes.
fn parse_page(bytes: &[u8], at: usize) -> Result<(Page, ogg::reading::OggPage, usize), ProblemAt> {
    let offset = at as u64;
    let rest = &bytes[at..];
    let cut = |what, expected: usize| {
        let (expected_bytes, found_bytes) = (expected as u64, rest.len() as u64);
        (offset, ClipProblem::Truncated { what, expected_bytes, found_bytes })
    };
    let header: [u8; PAGE_HEADER_BYTES] = rest
        .get(..PAGE_HEADER_BYTES)
        .and_then(|header| header.try_into().ok())
        .ok_or_else(|| cut("the Ogg page header", PAGE_HEADER_BYTES))?;
    if !header.starts_with(MAGIC) {
        let reason = "it does not begin with \"OggS\"".to_owned();
        return Err((offset, ClipProblem::OggPage { reason }));
    }
    let fail = |error: OggReadError| (offset, page_problem(&error));
    let long = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| header[at + byte]));
    let (mut parser, segments) = PageParser::new(header).map_err(fail)?;
    let body_at = PAGE_HEADER_BYTES + segments;
    let lacing = rest
        .get(PAGE_HEADER_BYTES..body_at)
        .ok_or_else(|| cut("the Ogg page's segment table", body_at))?;
    let body_len = parser.parse_segments(lacing.to_vec());
    let body = rest
        .get(body_at..body_at + body_len)
        .ok_or_else(|| cut("the Ogg page", body_at + body_len))?;
    let parsed = parser.parse_packet_data(body.to_vec()).map_err(fail)?;
    let page = Page {
        offset,
        serial: long(14),
        sequence: long(18),
        granule: u64::from(long(6)) | u64::from(long(10)) << 32,
        begins_stream: header[5] & 2 != 0,
        ends_stream: header[5] & 4 != 0,
    };
    Ok((page, parsed, body_at + body_len))
}

fn page_problem(error: &OggReadError) -> ClipProblem {
    let reason = match error {
        OggReadError::HashMismatch(..) => "its checksum does not match its bytes".to_owned(),
        OggReadError::InvalidStreamStructVer(version) => format!("its version is {version}"),
        OggReadError::InvalidData => "a packet is continued that never began".to_owned(),
        other => other.to_string(),
    };
    ClipProblem::OggPage { reason }
}

impl Stream {
    fn packet(&mut self, data: Vec<u8>) -> Result<(), ClipProblem> {
        if self.head.is_none() {
            return self.head_packet(&data);
        }
        if !self.tags_seen {
            self.tags_seen = data.starts_with(b"OpusTags");
            let value = "missing after the first header".to_owned();
            let field = "Opus comment header";
            return if self.tags_seen {
                Ok(())
            } else {
                Err(ClipProblem::BadField { field, value })
            };
        }
        let index = self.frames.len() as u64;
        if data.is_empty() && index > 0 {
            self.emptied = true;
            return Ok(());
        }
        let ticks = match self.emptied {
            true => Err("it is empty, and others follow (R1)"),
            false => opus::packet_ticks(&data),
        };
        let ticks = ticks.map_err(|reason| ClipProblem::OpusPacket { index, reason })?;
        if data.len() > PACKET_BYTES_MAX {
            let reason = "longer than the 1,300 bytes that fit a datagram";
            return Err(ClipProblem::OpusPacket { index, reason });
        }
        self.frames.push(ClipFrame {
            timestamp_ticks: self.end_ticks,
            keyframe: true,
            frame_bytes: data.len(),
            packets: vec![Arc::from(data)],
        });
        self.end_ticks += u64::from(ticks);
        Ok(())
    }

    fn head_packet(&mut self, data: &[u8]) -> Result<(), ClipProblem> {
        if !data.starts_with(b"OpusHead") {
            let found = if data.get(1..7) == Some(b"vorbis") {
                "Ogg Vorbis".to_owned()
            } else {
                format!("Ogg \"{}\"", data[..data.len().min(8)].escape_ascii())
            };
            return Err(ClipProblem::UnknownCodec { found });
        }
        let head = OpusHead::parse(data)
            .map_err(|(field, value)| ClipProblem::BadField { field, value })?;
        self.head = Some(head);
        Ok(())
    }

    /// Checks the page's granule position (the end of its last packet, RFC 7845 §4) against what
    /// the packets add up to. A hole (a recording that lost packets) moves the page's packets
    /// later; a shorter last page is end trimming and changes nothing on the wire.
    fn granule(&mut self, page: &Page, index: u64, first_of_page: usize) -> Result<(), ProblemAt> {
        if page.granule == NO_GRANULE || first_of_page == self.frames.len() {
            return Ok(());
        }
        let offset = page.offset + 6;
        if let Some((previous, end_then)) = self.last_granule {
            let timestamp = page.granule;
            let Some(advance) = timestamp.checked_sub(previous) else {
                return Err((offset, ClipProblem::TimestampOrder { index, timestamp, previous }));
            };
            let hole = advance.saturating_sub(self.end_ticks - end_then);
            let gap_seconds = hole / u64::from(opus::CLOCK_RATE);
            if gap_seconds > FRAME_GAP_MAX_SECONDS {
                return Err((offset, ClipProblem::TimestampGap { index, gap_seconds }));
            }
            for frame in &mut self.frames[first_of_page..] {
                frame.timestamp_ticks += hole;
            }
            self.end_ticks += hole;
        }
        self.last_granule = Some((page.granule, self.end_ticks));
        Ok(())
    }

    fn into_clip(self, name: &str, file_bytes: u64) -> Result<MediaClip, ProblemAt> {
        let Some(head) = self.head.filter(|_| !self.frames.is_empty()) else {
            return Err((file_bytes, ClipProblem::NoFrames));
        };
        let clock_rate = opus::CLOCK_RATE;
        let frame_rate = self.frames.len() as f64 * f64::from(clock_rate) / self.end_ticks as f64;
        Ok(MediaClip {
            name: name.to_owned(),
            codec: Codec::Opus,
            clock_rate,
            width: 0,
            height: 0,
            channels: head.channels,
            frames: self.frames,
            duration_ticks: self.end_ticks,
            frame_rate,
            scalability: None,
        })
    }
}
