//! Lengths of the parts of a picture, such that its datagrams are all of one length.
//!
//! A picture's first packet has a longer header, for the capture time, and its last one has a trailer
//! behind its payload. Both payloads are cut shorter by as much, as libwebrtc does
//! (`modules/rtp_rtcp/source/rtp_format.cc`, `SplitAboutEqually`). But for UDP GSO, which
//! wants datagrams of one length of which the last may be shorter, the last part takes what is left,
//! where libwebrtc makes the last ones a byte longer.

use crate::packet_trailer::TIMESTAMP_TRAILER_BYTES;

/// Bytes that the header of a picture's first packet is longer by than that of its others: an
/// abs-capture-time takes 9, and of those one fills up the last word of the others, unless that is full
/// (then it is 12, and the picture no single run; livekit-server 1.13.5 takes a header that is filled up
/// further for shorter than it is).
pub const FIRST_PACKET_EXTRA_BYTES: usize = 8;
/// Bytes behind the payload of a picture's last packet: LiveKit's trailer.
pub const LAST_PACKET_EXTRA_BYTES: usize = TIMESTAMP_TRAILER_BYTES;

/// Which packets of a picture are among those that are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Its first.
    pub first: bool,
    /// Its last.
    pub last: bool,
}

impl Ends {
    /// Those of a whole picture.
    pub const BOTH: Ends = Ends { first: true, last: true };
}

/// How much fits into each payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Bytes, of any packet but the first and the last.
    bytes: usize,
    /// So much less fits into the first.
    first: usize,
    /// So much less fits into the last.
    last: usize,
}

impl Room {
    /// `bytes` in each, but for the ends of a picture.
    pub(super) fn of(bytes: usize, ends: Ends) -> Self {
        Self {
            bytes,
            first: if ends.first { FIRST_PACKET_EXTRA_BYTES } else { 0 },
            last: if ends.last { LAST_PACKET_EXTRA_BYTES } else { 0 },
        }
    }

    /// The first packet has so much less room still.
    pub(super) fn less_in_first(self, bytes: usize) -> Self {
        Self { first: self.first + bytes, ..self }
    }

    /// What fits into a packet that is the first and the last one.
    pub(super) fn of_single(self) -> usize {
        self.bytes - self.first - self.last
    }

    /// The same with no more room than it takes for `len` bytes in as few packets as possible.
    pub(super) fn even(self, len: usize) -> Self {
        let len = len + self.first + self.last;
        let count = len.div_ceil(self.bytes).max(1);
        Self { bytes: len.div_ceil(count), ..self }
    }

    /// What fits into a packet, whatever becomes of those behind it.
    pub(super) fn of_packet(self, is_first: bool) -> usize {
        self.bytes - if is_first { self.first } else { 0 }
    }

    /// The parts of `data`, at least one of which it has; none is empty.
    pub(super) fn cut(self, data: &[u8]) -> impl ExactSizeIterator<Item = &[u8]> {
        let room = self.even(data.len());
        let mut parts = Vec::new();
        let mut rest = data;
        while !rest.is_empty() {
            let fits = room.of_packet(parts.is_empty());
            // What is not the last part leaves it a byte. Of some hundred parts the last one is
            // so much shorter that no more is left for it.
            let bytes = match rest.len() + room.last <= fits {
                true => rest.len(),
                false => fits.min(rest.len() - 1).max(1),
            };
            let (part, behind) = rest.split_at(bytes);
            parts.push(part);
            rest = behind;
        }
        parts.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What leaves is of one length, the last one no longer, and no more packets than needed.
        #[test]
        fn datagrams_are_even(
            len in prop_oneof![1..20_000_usize, 1..600_000_usize],
            bytes in 1_000..1_200_usize,
            first: bool,
            last: bool,
            structure in 0..60_usize,
        ) {
            let data = vec![7; len];
            let room = Room::of(bytes, Ends { first, last }).less_in_first(structure);
            let mut sent: Vec<_> = room.cut(&data).map(<[u8]>::len).collect();
            prop_assert!(sent.iter().all(|&part| part > 0));
            prop_assert_eq!(sent.iter().sum::<usize>(), len);
            sent[0] += room.first;
            *sent.last_mut().unwrap() += room.last;
            let (end, whole) = sent.split_last().unwrap();
            let longest = whole.first().unwrap_or(end);
            prop_assert!(whole.iter().all(|part| part == longest), "{:?}", sent);
            prop_assert!(end <= longest && *longest <= bytes, "{:?}", sent);
            prop_assert_eq!(sent.len(), (len + room.first + room.last).div_ceil(bytes));
        }

        /// However long, everything is there, and nothing is too long.
        #[test]
        fn nothing_is_too_long(len in 1..4_000_000_usize) {
            let data = vec![7; len];
            let room = Room::of(1_100, Ends::BOTH);
            let parts: Vec<_> = room.cut(&data).map(<[u8]>::len).collect();
            prop_assert_eq!(parts.iter().sum::<usize>(), len);
            prop_assert!(parts[0] + FIRST_PACKET_EXTRA_BYTES <= 1_100);
            prop_assert!(parts.last().unwrap() + LAST_PACKET_EXTRA_BYTES <= 1_100);
            prop_assert!(parts.iter().all(|&part| part > 0 && part <= 1_100));
        }
    }
}
