//! H.265 as RTP carries it (RFC 7798) and as much of its syntax (ITU-T H.265 §7.3) as tells where
//! access units begin and which of them need no other one.
//!
//! Payloads have no decoding order numbers (`sprop-max-don-diff` is 0, the default; §7.1), as WebRTC
//! sends them.

mod parameters;

use crate::nal_units;

pub use crate::nal_units::Head;
pub use parameters::{Parameters, ProfileTierLevel};

/// NAL unit types (H.265 table 7-1, RFC 7798 §1.1.4 and §4.4).
pub mod nal {
    /// Pictures of a random access point are from this one on: decoding can begin there.
    pub const IRAP_FIRST: u8 = 16;
    /// The last of them that is in use.
    pub const CRA: u8 = 21;
    /// Video parameter set.
    pub const VPS: u8 = 32;
    /// Sequence parameter set.
    pub const SPS: u8 = 33;
    /// Picture parameter set.
    pub const PPS: u8 = 34;
    /// Access unit delimiter.
    pub const DELIMITER: u8 = 35;
    /// End of sequence.
    pub const END_OF_SEQUENCE: u8 = 36;
    /// End of bitstream.
    pub const END_OF_STREAM: u8 = 37;
    /// Filler data.
    pub const FILLER: u8 = 38;
    /// Supplemental enhancement information in front of its picture.
    pub const PREFIX_SEI: u8 = 39;
    /// The same behind it.
    pub const SUFFIX_SEI: u8 = 40;
    /// Several NAL units in one payload (RFC 7798 §4.4.2).
    pub const AGGREGATE: u8 = 48;
    /// A part of a NAL unit (RFC 7798 §4.4.3).
    pub const FRAGMENT: u8 = 49;
}

/// Length of a NAL unit's header.
pub const HEADER_BYTES: usize = 2;

/// The type in a NAL unit's first byte.
pub const fn nal_type(header: u8) -> u8 {
    header >> 1 & 0x3f
}

/// `nuh_layer_id` of a NAL unit's header: 0 but for scalable and multiview streams.
pub const fn layer_id(header: [u8; 2]) -> u8 {
    (header[0] & 1) << 5 | header[1] >> 3
}

/// True for slice segments: the types that make a picture.
pub const fn is_picture(nal_type: u8) -> bool {
    nal_type < nal::VPS
}

/// True for the slices of a random access point (IRAP): a picture that needs no other one.
pub const fn is_irap(nal_type: u8) -> bool {
    matches!(nal_type, nal::IRAP_FIRST..=nal::CRA)
}

/// `first_slice_segment_in_pic_flag`: the picture's first. `unit` begins with its header.
pub fn is_first_slice(unit: &[u8]) -> bool {
    matches!(unit, [header, _, first, ..] if is_picture(nal_type(*header)) && first & 0x80 != 0)
}

/// What the type of a slice says of the pictures that its own refers to (H.265 §7.4.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// IRAP: to none.
    Random,
    /// TSA: to none of its temporal layer or a higher one, and so it is with those behind it.
    TemporalSwitch,
    /// STSA: the same of its own temporal layer only.
    StepwiseSwitch,
    /// To any of its temporal layer and of lower ones.
    Trailing,
}

/// What a slice says of its picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picture {
    /// What it may refer to.
    pub access: Access,
    /// From 0 to 6.
    pub temporal_id: u8,
    /// Pictures of its temporal layer may refer to it (no sub-layer non-reference picture).
    pub reference: bool,
}

impl Picture {
    /// By the header of a NAL unit; `None` if that is no slice.
    pub const fn of(header: [u8; 2]) -> Option<Picture> {
        let kind = nal_type(header[0]);
        if !is_picture(kind) {
            return None;
        }
        let access = match kind {
            nal::IRAP_FIRST..=nal::CRA => Access::Random,
            2 | 3 => Access::TemporalSwitch,
            4 | 5 => Access::StepwiseSwitch,
            _ => Access::Trailing,
        };
        // Up to here even types are those that nothing of their sub-layer refers to.
        let reference = kind >= nal::IRAP_FIRST || kind & 1 == 1;
        let temporal_id = (header[1] & 7).saturating_sub(1);
        Some(Picture { access, temporal_id, reference })
    }
}

/// An RTP payload without decoding order numbers (RFC 7798 §4.4): a NAL unit, an aggregation packet
/// or a fragmentation unit.
pub type Payload<'a> = nal_units::Payload<'a, HEADER_BYTES>;

/// Why a payload can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// It ends inside a header.
    #[error("H.265 payload of {len} bytes is too short; ignore the packet")]
    Short {
        /// Length of the payload.
        len: usize,
    },
    /// PACI, which nothing in WebRTC sends, or a type that is not defined.
    #[error("H.265 payload of NAL unit type {nal_unit_type}, which is not used; ignore the packet")]
    NalUnitType {
        /// The type.
        nal_unit_type: u8,
    },
    /// A fragment of something that can't be fragmented, or is start and end at once.
    #[error("H.265 fragmentation unit with impossible header bits; ignore the packet")]
    Fragment,
}

impl<'a> Payload<'a> {
    /// Reads an RTP payload.
    pub fn parse(payload: &'a [u8]) -> Result<Payload<'a>, PayloadError> {
        let short = PayloadError::Short { len: payload.len() };
        let (&[first, second], rest) = payload.split_first_chunk().ok_or(short)?;
        match nal_type(first) {
            nal::AGGREGATE => {
                let aggregate = Payload::Aggregate(rest);
                aggregate.units().next().map(|_| aggregate).ok_or(short)
            }
            nal::FRAGMENT => {
                let (&unit, data) = rest.split_first().ok_or(short)?;
                let (start, end, kind) = (unit & 0x80 != 0, unit & 0x40 != 0, unit & 0x3f);
                if (start && end) || kind >= nal::AGGREGATE {
                    return Err(PayloadError::Fragment);
                }
                if data.is_empty() {
                    return Err(short);
                }
                let header = [first & 0x81 | kind << 1, second];
                Ok(Payload::Fragment { start, end, header, data })
            }
            nal_unit_type if nal_unit_type > nal::FRAGMENT => {
                Err(PayloadError::NalUnitType { nal_unit_type })
            }
            _ => Ok(Payload::Single(payload)),
        }
    }
}

/// What one RTP payload says about its access unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// What the payload begins with, if an access unit can begin with it.
    pub head: Option<Head>,
    /// By a slice that it holds, or a part of one.
    pub picture: Option<Picture>,
    /// It holds a whole sequence parameter set.
    pub parameters: bool,
    /// It holds a whole video parameter set.
    pub video_parameters: bool,
}

impl Summary {
    /// Reads an RTP payload.
    pub fn of(payload: &[u8]) -> Result<Summary, PayloadError> {
        let payload = Payload::parse(payload)?;
        let mut summary = Summary::default();
        for (index, unit) in payload.units().enumerate() {
            summary.add(unit, index == 0);
        }
        if let Payload::Fragment { start, header: [first, second], data, .. } = payload {
            let byte = data.first().copied().unwrap_or(0);
            summary.add(&[first, second, byte], start);
            (summary.parameters, summary.video_parameters) = (false, false);
        }
        Ok(summary)
    }

    /// It holds a slice of an IRAP picture, or a part of one.
    pub fn irap(&self) -> bool {
        self.picture.is_some_and(|picture| picture.access == Access::Random)
    }

    fn add(&mut self, unit: &[u8], first: bool) {
        let Some(&header) = unit.first_chunk() else { return };
        let kind = nal_type(header[0]);
        self.picture = self.picture.or(Picture::of(header));
        self.parameters |= kind == nal::SPS;
        self.video_parameters |= kind == nal::VPS;
        if first {
            self.head = match kind {
                nal::DELIMITER => Some(Head::Delimiter),
                nal::VPS => Some(Head::VideoParameters),
                nal::SPS => Some(Head::SequenceParameters),
                nal::PPS => Some(Head::PictureParameters),
                nal::PREFIX_SEI => Some(Head::Supplement),
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
        let trailing = [0x02, 1, 0x80];
        assert_eq!(Payload::parse(&trailing), Ok(Payload::Single(&trailing)));
        // RFC 7798 figure 7: two units.
        let packet = [0x60, 1, 0, 3, 0x40, 1, 0x0c, 0, 2, 0x42, 1];
        let packet = Payload::parse(&packet).unwrap();
        assert_eq!(packet.units().collect::<Vec<_>>(), [&[0x40, 1, 0x0c][..], &[0x42, 1]]);
        // §4.4.3: the NAL unit type moves into the FU header.
        let fragment = Payload::parse(&[0x62, 2, 0x93, 9, 8]).unwrap();
        let header = [0x26, 2];
        let expected = Payload::Fragment { start: true, end: false, header, data: &[9, 8] };
        assert_eq!(fragment, expected);
        let bad = [&[][..], &[0x60], &[0x60, 1, 0, 5, 1], &[0x62, 1, 0x93], &[0x62, 1, 0xd3, 1]];
        for bad in bad.into_iter().chain([&[0x62, 1, 0xb0, 1][..]]) {
            Payload::parse(bad).unwrap_err();
        }
        let paci = Err(PayloadError::NalUnitType { nal_unit_type: 50 });
        assert_eq!(Payload::parse(&[0x64, 1, 2]), paci);
    }

    #[test]
    fn summaries_say_what_a_unit_begins_with() {
        let summary = |payload: &[u8]| Summary::of(payload).unwrap();
        let sets = summary(&[0x60, 1, 0, 2, 0x40, 1, 0, 2, 0x42, 1, 0, 2, 0x44, 1]);
        assert_eq!(sets.head, Some(Head::VideoParameters));
        assert!(sets.parameters && sets.video_parameters);
        assert!(!sets.irap() && sets.picture.is_none());
        let sps = summary(&[0x42, 1, 9]);
        assert!(sps.parameters && !sps.video_parameters);
        assert!(!summary(&[0x62, 1, 0xa0, 9]).video_parameters, "a part of one");
        let begun = summary(&[0x62, 1, 0x93, 0x80]);
        assert_eq!((begun.head, begun.irap()), (Some(Head::Slice), true));
        let middle = summary(&[0x62, 1, 0x13, 0x80]);
        assert_eq!((middle.head, middle.irap()), (None, true));
        let delta = summary(&[0x02, 1, 0x80]);
        assert_eq!((delta.head, delta.irap()), (Some(Head::Slice), false));
        assert_eq!(summary(&[0x02, 1, 0]).head, None, "a later slice");
        assert_eq!(summary(&[0x46, 1, 0x50]).head, Some(Head::Delimiter));
        assert!(Head::Delimiter > Head::VideoParameters && Head::Supplement > Head::Slice);
    }

    #[test]
    fn types_say_what_pictures_refer_to() {
        let picture = |kind: u8, temporal_id: u8| Picture::of([kind << 1, temporal_id + 1]);
        let of = |access, temporal_id, reference| Some(Picture { access, temporal_id, reference });
        assert_eq!(picture(1, 0), of(Access::Trailing, 0, true));
        assert_eq!(picture(0, 2), of(Access::Trailing, 2, false));
        assert_eq!(picture(2, 1), of(Access::TemporalSwitch, 1, false));
        assert_eq!(picture(5, 1), of(Access::StepwiseSwitch, 1, true));
        for irap in 16..=21 {
            assert_eq!(picture(irap, 0), of(Access::Random, 0, true));
        }
        assert_eq!(picture(nal::SPS, 0), None);
        assert_eq!((layer_id([0x02, 1]), layer_id([0x03, 9])), (0, 33));
    }

    proptest! {
        #[test]
        fn any_payload_is_read_or_refused(payload: Vec<u8>) {
            let mut out = Vec::new();
            let summary = Summary::of(&payload);
            prop_assert_eq!(append_annex_b(&payload, &mut out).is_ok(), summary.is_ok());
            let _ = sequence_parameters(&payload).map(Parameters::parse);
        }

        /// Unlike random bytes these get past the first fields.
        #[test]
        fn any_parameter_set_is_read_or_refused(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            bytes in any::<prop::sample::Index>(),
        ) {
            let clip = &crate::builtin::video(crate::Codec::H265).unwrap()[0];
            let set = sequence_parameters(&clip.frames[0].packets[0]).unwrap();
            prop_assert!(Parameters::parse(set).is_some());
            let mut changed = set[..=bytes.index(set.len())].to_vec();
            for (at, byte) in &changes {
                let at = at.index(changed.len());
                changed[at] = *byte;
            }
            if let Some((width, height)) = Parameters::parse(&changed).and_then(|it| it.size()) {
                prop_assert!(width > 0 && height > 0);
            }
        }
    }
}
