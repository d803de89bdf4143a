//! RTP payloads of NAL units, as H.264 (RFC 6184 §5) and H.265 (RFC 7798 §4.4) share them: one unit,
//! several with their sizes in front, or a part of one.
//!
//! What headers say differs: [`h264`](crate::h264) and [`h265`](crate::h265) read them.

/// An RTP payload; a NAL unit's header is `HEADER_BYTES` long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a, const HEADER_BYTES: usize> {
    /// One NAL unit.
    Single(&'a [u8]),
    /// Several, each behind its size.
    Aggregate(&'a [u8]),
    /// A part of one.
    Fragment {
        /// S: the NAL unit begins here.
        start: bool,
        /// E: it ends here.
        end: bool,
        /// The NAL unit's header, put together again.
        header: [u8; HEADER_BYTES],
        /// The part, without header.
        data: &'a [u8],
    },
}

impl<'a, const HEADER_BYTES: usize> Payload<'a, HEADER_BYTES> {
    /// The NAL units that it holds whole; of several, up to the first one that is cut short.
    pub fn units(self) -> impl Iterator<Item = &'a [u8]> {
        let (single, mut rest): (Option<&[u8]>, &[u8]) = match self {
            Self::Single(unit) => (Some(unit), &[]),
            Self::Aggregate(rest) => (None, rest),
            Self::Fragment { .. } => (None, &[]),
        };
        let aggregated = std::iter::from_fn(move || {
            let (size, behind) = rest.split_first_chunk()?;
            let (unit, behind) = behind.split_at_checked(u16::from_be_bytes(*size).into())?;
            rest = behind;
            (unit.len() >= HEADER_BYTES).then_some(unit)
        });
        single.into_iter().chain(aggregated)
    }

    /// Appends it to an access unit in Annex B form: a start code before each NAL unit that begins
    /// in it.
    pub fn append_annex_b(self, out: &mut Vec<u8>) {
        const START_CODE: [u8; 4] = [0, 0, 0, 1];
        for unit in self.units() {
            out.extend_from_slice(&START_CODE);
            out.extend_from_slice(unit);
        }
        if let Self::Fragment { start, header, data, .. } = self {
            if start {
                out.extend_from_slice(&START_CODE);
                out.extend_from_slice(&header);
            }
            out.extend_from_slice(data);
        }
    }
}

/// What an access unit can begin with, in the order of rank: the higher, the further in front
/// (H.264 §7.4.1.2.3, H.265 §7.4.2.4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Head {
    /// The first slice (segment) of the picture.
    Slice,
    /// Supplemental enhancement information.
    Supplement,
    /// A picture parameter set.
    PictureParameters,
    /// A sequence parameter set.
    SequenceParameters,
    /// A video parameter set, which H.264 has not.
    VideoParameters,
    /// An access unit delimiter.
    Delimiter,
}
