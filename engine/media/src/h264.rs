//! H.264 as RTP carries it (RFC 6184) and as much of its syntax (ITU-T H.264 §7.3) as tells where
//! access units begin and which of them need no other one.

use h264_reader::nal::sps::SeqParameterSet;
use h264_reader::rbsp;

use crate::bits::BitReader;
use crate::nal_units;
pub use crate::nal_units::Head;

/// NAL unit types (H.264 table 7-1, RFC 6184 table 1).
pub mod nal {
    /// Slice of a picture that is no IDR picture.
    pub const SLICE: u8 = 1;
    /// Slice data partition A; B and C follow it.
    pub const PARTITION_A: u8 = 2;
    /// Slice of an IDR picture: decoding can begin here.
    pub const IDR: u8 = 5;
    /// Supplemental enhancement information.
    pub const SEI: u8 = 6;
    /// Sequence parameter set.
    pub const SPS: u8 = 7;
    /// Picture parameter set.
    pub const PPS: u8 = 8;
    /// Access unit delimiter.
    pub const DELIMITER: u8 = 9;
    /// End of sequence.
    pub const END_OF_SEQUENCE: u8 = 10;
    /// End of stream.
    pub const END_OF_STREAM: u8 = 11;
    /// Filler data.
    pub const FILLER: u8 = 12;
    /// Several NAL units in one payload (RFC 6184 §5.7.1).
    pub const STAP_A: u8 = 24;
    /// A part of a NAL unit (RFC 6184 §5.8).
    pub const FU_A: u8 = 28;
}

/// The type in a NAL unit's first byte.
pub const fn nal_type(header: u8) -> u8 {
    header & 0x1f
}

/// `nal_ref_idc` is not 0: other pictures may refer to this one.
pub const fn is_reference(header: u8) -> bool {
    header & 0x60 != 0
}

/// True for slices and slice data partitions: the types that make a picture.
pub const fn is_picture(header: u8) -> bool {
    matches!(nal_type(header), 1..=5)
}

/// `first_mb_in_slice` is 0: the picture's first slice (without arbitrary slice order, which
/// nothing that speaks WebRTC sends). `nal` begins with its header byte.
pub fn is_first_slice(nal: &[u8]) -> bool {
    matches!(nal, [header, first, ..]
        if matches!(nal_type(*header), nal::SLICE | nal::PARTITION_A | nal::IDR)
            && first & 0x80 != 0)
}

/// True for a slice of type B or, of more than one picture's references, anything that needs
/// pictures to be reordered. `None` if it can't be read.
pub fn is_bidirectional_slice(nal: &[u8]) -> Option<bool> {
    let mut bits = BitReader::new(nal.get(1..)?);
    bits.exp_golomb()?;
    // H.264 table 7-6: 1 and 6 are B.
    Some(matches!(bits.exp_golomb()?, 1 | 6))
}

/// An RTP payload of packetization mode 0 or 1 (RFC 6184 §5.4): a NAL unit, a STAP-A or an FU-A.
pub type Payload<'a> = nal_units::Payload<'a, 1>;

/// Why a payload can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// It ends inside a header.
    #[error("H.264 payload of {len} bytes is too short; ignore the packet")]
    Short {
        /// Length of the payload.
        len: usize,
    },
    /// A type of the interleaved mode, or a reserved one.
    #[error(
        "H.264 payload of NAL unit type {nal_unit_type}, which packetization mode 1 does not have"
    )]
    NalUnitType {
        /// The type.
        nal_unit_type: u8,
    },
    /// A fragment of something that can't be fragmented, or is start and end at once.
    #[error("H.264 fragment unit with impossible header bits")]
    Fragment,
}

impl<'a> Payload<'a> {
    /// Reads an RTP payload.
    pub fn parse(payload: &'a [u8]) -> Result<Payload<'a>, PayloadError> {
        let short = PayloadError::Short { len: payload.len() };
        let (&indicator, rest) = payload.split_first().ok_or(short)?;
        match nal_type(indicator) {
            1..=23 => Ok(Payload::Single(payload)),
            nal::STAP_A => {
                let aggregate = Payload::Aggregate(rest);
                aggregate.units().next().map(|_| aggregate).ok_or(short)
            }
            nal::FU_A => {
                let (&unit, data) = rest.split_first().ok_or(short)?;
                let (start, end) = (unit & 0x80 != 0, unit & 0x40 != 0);
                if (start && end) || !(1..=23).contains(&nal_type(unit)) {
                    return Err(PayloadError::Fragment);
                }
                if data.is_empty() {
                    return Err(short);
                }
                let header = [indicator & 0xe0 | nal_type(unit)];
                Ok(Payload::Fragment { start, end, header, data })
            }
            nal_unit_type => Err(PayloadError::NalUnitType { nal_unit_type }),
        }
    }
}

/// What one RTP payload says about its access unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// What the payload begins with, if an access unit can begin with it.
    pub head: Option<Head>,
    /// It holds an IDR slice, or a part of one.
    pub idr: bool,
    /// Whether other pictures may refer to this one; known from slices only.
    pub reference: Option<bool>,
    /// It holds a whole sequence parameter set.
    pub parameters: bool,
}

impl Summary {
    /// Reads an RTP payload.
    pub fn of(payload: &[u8]) -> Result<Summary, PayloadError> {
        let payload = Payload::parse(payload)?;
        let mut summary = Summary::default();
        for (index, unit) in payload.units().enumerate() {
            summary.add(unit, index == 0);
        }
        if let Payload::Fragment { start, header: [header], data, .. } = payload {
            let first = data.first().copied().unwrap_or(0);
            summary.add(&[header, first], start);
            summary.parameters = false;
        }
        Ok(summary)
    }

    fn add(&mut self, unit: &[u8], first: bool) {
        let Some(&header) = unit.first() else { return };
        if is_picture(header) {
            self.idr |= nal_type(header) == nal::IDR;
            self.reference = Some(self.reference.unwrap_or(false) | is_reference(header));
        }
        self.parameters |= nal_type(header) == nal::SPS;
        if first {
            self.head = match nal_type(header) {
                nal::DELIMITER => Some(Head::Delimiter),
                nal::SPS => Some(Head::SequenceParameters),
                nal::PPS => Some(Head::PictureParameters),
                nal::SEI => Some(Head::Supplement),
                _ => is_first_slice(unit).then_some(Head::Slice),
            };
        }
    }
}

/// Appends what a payload carries to an access unit in Annex B form: a start code before each NAL
/// unit that begins in it.
pub fn append_annex_b(payload: &[u8], out: &mut Vec<u8>) -> Result<(), PayloadError> {
    Payload::parse(payload)?.append_annex_b(out);
    Ok(())
}

/// The profile-level-id of SDP (RFC 6184 §8.1) of a NAL unit that is a sequence parameter set.
pub fn profile_level_id(sps: &[u8]) -> Option<u32> {
    match sps {
        [header, profile, flags, level, ..] if nal_type(*header) == nal::SPS => {
            Some(u32::from_be_bytes([0, *profile, *flags, *level]))
        }
        _ => None,
    }
}

/// Width and height in pixels by a NAL unit that is a sequence parameter set; `None` if it can't be
/// read, or says more than 65,535 pixels a side.
pub fn picture_size(sps: &[u8]) -> Option<(u16, u16)> {
    // The reader takes the length less two without looking.
    sps.first()?;
    let data = rbsp::decode_nal(sps).ok()?;
    let parameters = SeqParameterSet::from_bits(rbsp::BitReader::new(&data[..])).ok()?;
    let (width, height) = parameters.pixel_dimensions().ok()?;
    let side = |pixels| u16::try_from(pixels).ok().filter(|&pixels| pixels > 0);
    side(width).zip(side(height))
}

/// The first sequence parameter set that a payload holds whole.
pub fn sequence_parameters(payload: &[u8]) -> Option<&[u8]> {
    let is_sps = |unit: &&[u8]| unit.first().is_some_and(|&header| nal_type(header) == nal::SPS);
    Payload::parse(payload).ok()?.units().find(is_sps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn single_aggregate_and_fragment_are_told_apart() {
        assert_eq!(Payload::parse(&[0x65, 0x88]), Ok(Payload::Single(&[0x65, 0x88])));
        // RFC 6184 figure 7: two units.
        let stap = [0x78, 0, 2, 0x67, 0x42, 0, 1, 0x68];
        let stap = Payload::parse(&stap).unwrap();
        assert_eq!(stap.units().collect::<Vec<_>>(), [&[0x67, 0x42][..], &[0x68]]);
        // §5.8: the NAL unit type moves into the FU header.
        let fragment = Payload::parse(&[0x7c, 0x85, 9, 8]).unwrap();
        let expected = Payload::Fragment { start: true, end: false, header: [0x65], data: &[9, 8] };
        assert_eq!(fragment, expected);
        for bad in [&[][..], &[0x78], &[0x78, 0, 5, 1], &[0x7c, 0x85], &[0x7c, 0xc5, 1], &[0x7d]] {
            Payload::parse(bad).unwrap_err();
        }
        assert_eq!(
            Payload::parse(&[0x79, 1, 2]),
            Err(PayloadError::NalUnitType { nal_unit_type: 25 })
        );
    }

    #[test]
    fn summaries_say_what_a_unit_begins_with() {
        let summary = |payload: &[u8]| Summary::of(payload).unwrap();
        let key = summary(&[0x78, 0, 2, 0x67, 0x42, 0, 1, 0x68, 0, 2, 0x65, 0x88]);
        assert_eq!(key.head, Some(Head::SequenceParameters));
        assert!(key.idr && key.reference == Some(true));
        let delta = summary(&[0x41, 0x9a, 1]);
        assert_eq!((delta.head, delta.idr), (Some(Head::Slice), false));
        let second_slice = summary(&[0x01, 0x4a, 1]);
        assert_eq!((second_slice.head, second_slice.reference), (None, Some(false)));
        let begun = summary(&[0x7c, 0x85, 0x88]);
        assert_eq!((begun.head, begun.idr), (Some(Head::Slice), true));
        let middle = summary(&[0x7c, 0x05, 0x88]);
        assert_eq!((middle.head, middle.idr, middle.reference), (None, true, Some(true)));
        assert_eq!(summary(&[0x09, 0x10]).head, Some(Head::Delimiter));
        assert_eq!(summary(&[0x06, 1]).reference, None);
        assert!(Head::Delimiter > Head::SequenceParameters && Head::Supplement > Head::Slice);
    }

    #[test]
    fn slice_types_are_read() {
        // first_mb_in_slice 0 ("1"), slice_type 5 ("00110"): P; 6 ("00111"): B.
        assert_eq!(is_bidirectional_slice(&[0x41, 0b1001_1000]), Some(false));
        assert_eq!(is_bidirectional_slice(&[0x01, 0b1001_1100]), Some(true));
        assert_eq!(is_bidirectional_slice(&[0x01]), None);
        assert_eq!(profile_level_id(&[0x67, 0x42, 0xe0, 0x1f, 1]), Some(0x42_e01f));
        assert_eq!(profile_level_id(&[0x68, 0x42, 0xe0, 0x1f]), None);
    }

    proptest! {
        #[test]
        fn any_payload_is_read_or_refused(payload: Vec<u8>) {
            let mut out = Vec::new();
            let summary = Summary::of(&payload);
            prop_assert_eq!(append_annex_b(&payload, &mut out).is_ok(), summary.is_ok());
            let _ = (is_bidirectional_slice(&payload), sequence_parameters(&payload));
            let _ = picture_size(&payload);
        }
    }
}
