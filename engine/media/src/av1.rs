//! AV1 as RTP carries it ("RTP Payload Format For AV1", v1.0.0 of the Alliance for Open Media) and
//! as much of its syntax (AV1 bitstream specification §5) as tells keyframes and their size.
//!
//! By hand: the `rtp` crate reads packets into vectors of `Bytes` and writes no even lengths.

use crate::bits::BitReader;

/// OBU types (AV1 §6.2.2).
pub mod obu {
    /// Sequence header.
    pub const SEQUENCE_HEADER: u8 = 1;
    /// Temporal delimiter: a temporal unit begins. Not sent in RTP.
    pub const TEMPORAL_DELIMITER: u8 = 2;
    /// Frame header without tiles.
    pub const FRAME_HEADER: u8 = 3;
    /// Metadata.
    pub const METADATA: u8 = 5;
    /// Frame header and tiles.
    pub const FRAME: u8 = 6;
    /// Tile list: large scale tile decoding, never in RTP.
    pub const TILE_LIST: u8 = 8;
    /// Padding.
    pub const PADDING: u8 = 15;
}

/// `has_size_field` of an OBU header.
pub const HAS_SIZE: u8 = 0x02;

/// The type in an OBU's first byte.
pub const fn obu_type(header: u8) -> u8 {
    header >> 3 & 0x0f
}

/// Reads `leb128()` (AV1 §4.10.5): the value and its length in bytes.
pub fn leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0_u64;
    for (index, &byte) in bytes.iter().take(8).enumerate() {
        value |= u64::from(byte & 0x7f) << (index * 7);
        if byte & 0x80 == 0 {
            // Larger values are not allowed.
            return Some((usize::try_from(u32::try_from(value).ok()?).ok()?, index + 1));
        }
    }
    None
}

/// Bytes that [`push_leb128`] takes.
pub const fn leb128_bytes(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// Appends `leb128()`.
pub fn push_leb128(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(0x80 | value as u8);
        value >>= 7;
    }
    out.push(value as u8);
}

/// One OBU of a low-overhead bitstream (AV1 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Obu<'a> {
    /// Its first byte.
    pub header: u8,
    /// The extension byte: temporal id, spatial id.
    pub extension: Option<u8>,
    /// What is behind header and size.
    pub data: &'a [u8],
    /// Length with header and size.
    pub len: usize,
}

impl<'a> Obu<'a> {
    /// Reads the OBU at the beginning of `bytes`. The error says what is wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Obu<'a>, &'static str> {
        const SHORT: &str = "it ends inside an OBU";
        let (&header, mut rest) = bytes.split_first().ok_or(SHORT)?;
        if header & 0x81 != 0 {
            return Err("an OBU header has reserved bits set");
        }
        let mut extension = None;
        if header & 0x04 != 0 {
            let (&byte, behind) = rest.split_first().ok_or(SHORT)?;
            (extension, rest) = (Some(byte), behind);
        }
        if header & HAS_SIZE == 0 {
            return Err("an OBU has no size");
        }
        let (size, length) = leb128(rest).ok_or("an OBU has an impossible size")?;
        let data = rest.get(length..).and_then(|rest| rest.get(..size)).ok_or(SHORT)?;
        let len = bytes.len() - rest.len() + length + size;
        Ok(Obu { header, extension, data, len })
    }

    /// Its type.
    pub fn kind(&self) -> u8 {
        obu_type(self.header)
    }
}

/// The OBUs of a temporal unit; ends after the first error.
pub fn obus(mut bytes: &[u8]) -> impl Iterator<Item = Result<Obu<'_>, &'static str>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let obu = Obu::parse(bytes);
        bytes = obu.as_ref().ok().and_then(|obu| bytes.get(obu.len..)).unwrap_or_default();
        Some(obu)
    })
}

/// What a temporal unit says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnitSummary {
    /// Decoding can begin here: a sequence header and a shown keyframe.
    pub keyframe: bool,
    /// Width and height in pixels, where there is a sequence header.
    pub size: Option<(u16, u16)>,
    /// One of its frames is shown.
    pub shown: bool,
    /// `seq_profile`, where there is a sequence header: 0 is Main (4:2:0 or gray, 8 or 10 bits).
    pub profile: Option<u8>,
}

/// Reads a temporal unit in low-overhead form. The error says what is wrong with it.
pub fn temporal_unit(bytes: &[u8]) -> Result<UnitSummary, &'static str> {
    let mut summary = UnitSummary::default();
    let mut sequence = None;
    let (mut frames, mut keyframe) = (0, false);
    for obu in obus(bytes) {
        let obu = obu?;
        match obu.kind() {
            obu::SEQUENCE_HEADER => {
                let header = SequenceHeader::parse(obu.data)?;
                (summary.size, summary.profile) = (Some(header.size), Some(header.profile));
                sequence = Some(header);
            }
            obu::FRAME | obu::FRAME_HEADER => {
                let still = sequence.is_some_and(|sequence| sequence.reduced_still_picture);
                let (key, shown) = frame_kind(obu.data, still).ok_or("a frame header is short")?;
                keyframe |= frames == 0 && key && shown;
                summary.shown |= shown;
                frames += 1;
            }
            obu::TILE_LIST => return Err("it has a tile list, which real-time video has not"),
            _ => {}
        }
    }
    if frames == 0 {
        return Err("there is no frame in it");
    }
    summary.keyframe = keyframe && sequence.is_some();
    Ok(summary)
}

/// The OBUs of each spatial layer of a temporal unit, low to high. The error says what is wrong: with
/// them, or with their temporal layer, which is to be `temporal_id`. An OBU without extension is of
/// the lowest layers.
pub fn layer_frames(unit: &[u8], temporal_id: u8) -> Result<Vec<&[u8]>, &'static str> {
    let mut frames = Vec::new();
    let (mut begin, mut at, mut spatial_id) = (0, 0, 0);
    for obu in obus(unit) {
        let obu = obu?;
        let extension = obu.extension.unwrap_or(0);
        if matches!(obu.kind(), obu::FRAME | obu::FRAME_HEADER) && extension >> 5 != temporal_id {
            return Err("its temporal layer is another one (0, 2, 1, 2 is the order)");
        }
        let layer = extension >> 3 & 3;
        if obu.extension.is_some() && layer != spatial_id {
            if layer != spatial_id + 1 {
                return Err("its spatial layers are not in order");
            }
            frames.push(unit.get(begin..at).unwrap_or_default());
            (begin, spatial_id) = (at, layer);
        }
        at += obu.len;
    }
    frames.push(unit.get(begin..at).unwrap_or_default());
    Ok(frames)
}

/// Whether it is a keyframe and is shown (AV1 §5.9.2).
fn frame_kind(data: &[u8], reduced_still_picture: bool) -> Option<(bool, bool)> {
    if reduced_still_picture {
        return Some((true, true));
    }
    let mut bits = BitReader::new(data);
    if bits.flag()? {
        // show_existing_frame.
        return Some((false, true));
    }
    let kind = bits.take(2)?;
    Some((kind == 0, bits.flag()?))
}

/// Width and height in pixels by an OBU without size field that is a sequence header; `None` if it is
/// another one or can't be read.
pub fn sequence_size(obu: &[u8]) -> Option<(u16, u16)> {
    let header = *obu.first()?;
    let behind = 1 + usize::from(header & 0x04 != 0);
    let data = obu.get(behind..).filter(|_| obu_type(header) == obu::SEQUENCE_HEADER)?;
    SequenceHeader::parse(data).ok().map(|header| header.size)
}

/// As much of a sequence header as is needed (AV1 §5.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SequenceHeader {
    profile: u8,
    reduced_still_picture: bool,
    size: (u16, u16),
}

impl SequenceHeader {
    fn parse(data: &[u8]) -> Result<SequenceHeader, &'static str> {
        let mut bits = BitReader::new(data);
        Self::read(&mut bits).ok_or("a sequence header is cut short or impossible")
    }

    fn read(bits: &mut BitReader<'_>) -> Option<SequenceHeader> {
        let profile = bits.take(3)? as u8;
        bits.skip(1)?;
        let reduced_still_picture = bits.flag()?;
        if reduced_still_picture {
            bits.skip(5)?;
        } else {
            Self::skip_operating_points(bits)?;
        }
        let width_bits = bits.take(4)? + 1;
        let height_bits = bits.take(4)? + 1;
        let width = bits.take(width_bits)? + 1;
        let height = bits.take(height_bits)? + 1;
        let size = (u16::try_from(width).ok()?, u16::try_from(height).ok()?);
        Some(SequenceHeader { profile, reduced_still_picture, size })
    }

    fn skip_operating_points(bits: &mut BitReader<'_>) -> Option<()> {
        let mut delay_bits = None;
        if bits.flag()? {
            // timing_info()
            bits.skip(64)?;
            if bits.flag()? {
                bits.exp_golomb()?;
            }
            if bits.flag()? {
                // decoder_model_info()
                delay_bits = Some(bits.take(5)? + 1);
                bits.skip(32 + 5 + 5)?;
            }
        }
        let display_delay = bits.flag()?;
        let points = bits.take(5)? + 1;
        for _ in 0..points {
            bits.skip(12)?;
            if bits.take(5)? > 7 {
                bits.skip(1)?;
            }
            if let Some(delay_bits) = delay_bits
                && bits.flag()?
            {
                bits.skip(2 * delay_bits + 1)?;
            }
            if display_delay && bits.flag()? {
                bits.skip(4)?;
            }
        }
        Some(())
    }
}

/// An RTP payload (§4.4 of the payload format): an aggregation header and OBU elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    /// Z: the first element continues the last one of the packet before.
    pub continues: bool,
    /// Y: the last element goes on in the next packet.
    pub continued: bool,
    /// N: first packet of a coded video sequence.
    pub new_sequence: bool,
    /// W: number of elements, of which the last has no length; 0: each has one.
    count: u8,
    rest: &'a [u8],
}

/// Why a payload can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Nothing behind the aggregation header, or an element is longer than the payload.
    #[error("AV1 payload of {len} bytes ends inside an element; ignore the packet")]
    Short {
        /// Length of the payload.
        len: usize,
    },
    /// N and Z exclude each other.
    #[error("AV1 payload begins a video sequence in the middle of an OBU")]
    NewSequence,
}

impl<'a> Payload<'a> {
    /// Reads an RTP payload; afterwards every element is there.
    pub fn parse(payload: &'a [u8]) -> Result<Payload<'a>, PayloadError> {
        let short = PayloadError::Short { len: payload.len() };
        let (&header, rest) = payload.split_first().ok_or(short)?;
        let parsed = Payload {
            continues: header & 0x80 != 0,
            continued: header & 0x40 != 0,
            new_sequence: header & 0x08 != 0,
            count: header >> 4 & 3,
            rest,
        };
        if parsed.new_sequence && parsed.continues {
            return Err(PayloadError::NewSequence);
        }
        let mut elements = parsed.elements();
        let count = elements.by_ref().count();
        let as_said = parsed.count == 0 || count == usize::from(parsed.count);
        if count == 0 || !elements.rest.is_empty() || !as_said {
            return Err(short);
        }
        Ok(parsed)
    }

    /// The elements in order: OBUs without size field, or parts of them.
    pub fn elements(&self) -> Elements<'a> {
        Elements { rest: self.rest, left: self.count, with_lengths: self.count == 0 }
    }

    /// What the first OBU that begins at the payload's front is; `None` if none does.
    pub fn first_obu(&self) -> Option<(u8, Option<u8>)> {
        if self.continues {
            return None;
        }
        let element = self.elements().next()?;
        let header = *element.first()?;
        let extension = (header & 0x04 != 0).then(|| element.get(1).copied()).flatten();
        Some((obu_type(header), extension))
    }
}

/// Iterator over a payload's elements; see [`Payload::elements`].
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    rest: &'a [u8],
    left: u8,
    with_lengths: bool,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() || !self.with_lengths && self.left == 0 {
            return None;
        }
        if !self.with_lengths {
            self.left -= 1;
            if self.left == 0 {
                return Some(std::mem::take(&mut self.rest));
            }
        }
        let (size, length) = leb128(self.rest)?;
        let element = self.rest.get(length..)?.get(..size)?;
        self.rest = self.rest.get(length + size..)?;
        Some(element)
    }
}

/// Puts the payloads of one temporal unit together again: low-overhead form, with a temporal
/// delimiter in front and a size in every OBU. `None` if they don't fit together.
pub fn assemble<'a>(payloads: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut out = vec![obu::TEMPORAL_DELIMITER << 3 | HAS_SIZE, 0];
    let mut open: Vec<u8> = Vec::new();
    for payload in payloads {
        let payload = Payload::parse(payload).ok()?;
        if payload.continues == open.is_empty() {
            return None;
        }
        let mut elements = payload.elements().peekable();
        while let Some(element) = elements.next() {
            open.extend_from_slice(element);
            if elements.peek().is_some() || !payload.continued {
                close(&open, &mut out)?;
                open.clear();
            }
        }
    }
    open.is_empty().then_some(out)
}

/// Appends an OBU from RTP with a size field.
fn close(obu: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (&header, rest) = obu.split_first()?;
    let extension = usize::from(header & 0x04 != 0);
    let (extension, mut data) = rest.split_at_checked(extension)?;
    if header & HAS_SIZE != 0 {
        // Allowed, though senders should leave it out.
        let (size, length) = leb128(data)?;
        data = data.get(length..)?.get(..size)?;
    }
    out.push(header | HAS_SIZE);
    out.extend_from_slice(extension);
    push_leb128(data.len(), out);
    out.extend_from_slice(data);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn leb128_is_the_specifications() {
        assert_eq!(leb128(&[0xe5, 0x8e, 0x26, 9]), Some((624_485, 3)));
        assert_eq!(leb128(&[0xff; 8]), None);
        assert_eq!(leb128(&[0xff, 0xff, 0xff, 0xff, 0x7f]), None, "above 2^32 - 1");
        for value in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, 0xffff_ffff] {
            let mut bytes = Vec::new();
            push_leb128(value, &mut bytes);
            assert_eq!(
                (leb128(&bytes), leb128_bytes(value)),
                (Some((value, bytes.len())), bytes.len())
            );
        }
    }

    #[test]
    fn aggregation_headers_are_read() {
        // W=2: the first element has a length, the last one not; N.
        let payload = [0x28, 2, 0x08, 1, 0x30, 9, 9];
        let read = Payload::parse(&payload).unwrap();
        assert!(read.new_sequence && !read.continues && !read.continued);
        assert_eq!(read.elements().collect::<Vec<_>>(), [&[0x08, 1][..], &[0x30, 9, 9]]);
        assert_eq!(read.first_obu(), Some((obu::SEQUENCE_HEADER, None)));
        // W=0: all have one. Z and Y.
        let read = Payload::parse(&[0xc0, 1, 7, 2, 8, 9]).unwrap();
        assert!(read.continues && read.continued && read.first_obu().is_none());
        assert_eq!(read.elements().count(), 2);
        for bad in [&[][..], &[0x10], &[0x00, 3, 1], &[0x20, 1, 1], &[0x20, 9, 1], &[0x98, 1]] {
            Payload::parse(bad).unwrap_err();
        }
    }

    #[test]
    fn temporal_units_are_divided_by_layer() {
        let lowest = [0x12, 0, 0x32, 2, 0x30, 1];
        let upper = |temporal: u8, spatial: u8| [0x36, temporal << 5 | spatial << 3, 1, 9];
        let unit = [&lowest[..], &upper(0, 1), &upper(0, 2)].concat();
        let frames = layer_frames(&unit, 0).unwrap();
        assert_eq!(frames, [&lowest[..], &upper(0, 1), &upper(0, 2)]);
        assert_eq!(layer_frames(&upper(2, 0), 2).unwrap().len(), 1);
        layer_frames(&unit, 1).unwrap_err();
        layer_frames(&[&lowest[..], &upper(0, 2)].concat(), 0).unwrap_err();
        layer_frames(&unit[..5], 0).unwrap_err();
    }

    #[test]
    fn temporal_units_are_put_together() {
        let payloads = [&[0x68, 2, 0x08, 1, 0x30, 0x10, 5][..], &[0x90, 6, 7]];
        let unit = assemble(payloads).unwrap();
        assert_eq!(unit, [0x12, 0, 0x0a, 1, 1, 0x32, 4, 0x10, 5, 6, 7]);
        assert_eq!(assemble([payloads[1]]), None, "without its beginning");
        assert_eq!(assemble([payloads[0]]), None, "without its end");
    }

    #[test]
    fn keyframes_and_sizes_are_read() {
        // What libaom wrote at the beginning of a 640×360 file.
        let header = [0x0a, 12, 0, 0, 0, 0x0c, 0xc4, 0xff, 0x67, 0xe0, 0x6d, 0x7c, 0x80, 0x20];
        let unit = [&[0x12, 0][..], &header, &[0x32, 1, 0x10]].concat();
        let summary = temporal_unit(&unit).unwrap();
        let size = Some((640, 360));
        let expected = UnitSummary { keyframe: true, size, shown: true, profile: Some(0) };
        assert_eq!(summary, expected);
        let delta = temporal_unit(&[0x12, 0, 0x32, 1, 0x30]).unwrap();
        assert!(!delta.keyframe && delta.shown && delta.size.is_none());
        assert!(!temporal_unit(&[0x32, 1, 0x10]).unwrap().keyframe, "no sequence header");
        for bad in [&[][..], &[0x12, 0], &[0x32, 5, 0], &[0x80, 0], &[0x30, 1], &[0x42, 0]] {
            temporal_unit(bad).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(payload: Vec<u8>) {
            if let Ok(parsed) = Payload::parse(&payload) {
                prop_assert!(parsed.elements().count() > 0);
                let _ = parsed.first_obu();
            }
            let _ = (temporal_unit(&payload), assemble([&payload[..]]), leb128(&payload));
        }
    }
}
