//! AV1 temporal units to payloads ("RTP Payload Format For AV1" §4.4, §5).

use std::sync::Arc;

use super::{Ends, PAYLOAD_BYTES_MAX, Room};
use crate::av1::{HAS_SIZE, leb128_bytes, obu, obus, push_leb128};

/// Cuts one temporal unit in low-overhead form into payloads, such that its datagrams are all of one
/// length but the last, or a byte shorter. Temporal delimiters, tile lists and padding are left out and OBUs lose
/// their size fields (§5). `new_sequence` is N: a coded video sequence begins.
///
/// Bytes behind the last whole OBU are left out too; files are checked before.
pub fn av1(unit: &[u8], new_sequence: bool) -> Vec<Arc<[u8]>> {
    av1_layer(unit, new_sequence, Ends::BOTH, 0)
}

/// The same for the OBUs of one layer frame, which has these ends of its picture. Payloads are
/// `reserved_bytes` shorter than they could be.
pub fn av1_layer(
    unit: &[u8],
    new_sequence: bool,
    ends: Ends,
    reserved_bytes: usize,
) -> Vec<Arc<[u8]>> {
    let elements: Vec<Vec<u8>> = obus(unit)
        .map_while(Result::ok)
        .filter(|obu| {
            !matches!(obu.kind(), obu::TEMPORAL_DELIMITER | obu::TILE_LIST | obu::PADDING)
        })
        .map(|obu| {
            let mut element = vec![obu.header & !HAS_SIZE];
            element.extend(obu.extension);
            element.extend_from_slice(obu.data);
            element
        })
        .collect();
    // Each has a length but the last; of more than W counts, parts of one may have a length each.
    let lengths: usize = match elements.len() > COUNTED_MAX {
        true => 3 * elements.len(),
        false => elements.iter().rev().skip(1).map(|it| leb128_bytes(it.len())).sum(),
    };
    let total = elements.iter().map(Vec::len).sum::<usize>() + lengths;
    let room = Room::of(PAYLOAD_BYTES_MAX - 1 - reserved_bytes, ends).even(total);
    let mut packer = Packer { room, payloads: Vec::new(), parts: Vec::new(), filled: 0 };
    for (index, element) in elements.iter().enumerate() {
        packer.element(element, index + 1 == elements.len());
    }
    packer.close(false);
    let mut payloads = packer.payloads;
    if let Some(first) = payloads.first_mut().and_then(|first| first.first_mut()) {
        *first |= u8::from(new_sequence) << 3;
    }
    payloads.into_iter().map(Arc::from).collect()
}

/// Most elements of a payload that W counts; the last of them has no length (§4.4).
const COUNTED_MAX: usize = 3;

/// Fills one payload after the other. W counts the elements of each, as in libwebrtc
/// (rtp_packetizer_av1.cc); with more than [`COUNTED_MAX`] it is 0, and all have a length.
/// livekit-server 1.13.5 takes a payload with W = 0 for no keyframe, and forwards nothing before one
/// (mediatransportutil pkg/codec/keyframe.go).
struct Packer<'a> {
    /// For elements in each payload.
    room: Room,
    payloads: Vec<Vec<u8>>,
    parts: Vec<&'a [u8]>,
    filled: usize,
}

impl<'a> Packer<'a> {
    fn element(&mut self, mut element: &'a [u8], last: bool) {
        loop {
            let left = self.room.of_packet(self.payloads.is_empty()) - self.filled;
            let with_length = leb128_bytes(element.len()) + element.len();
            // As the one that reaches the end of payload or unit it needs no length.
            if self.parts.len() < COUNTED_MAX && (with_length > left || last) {
                let (part, rest) = element.split_at(element.len().min(left));
                if !part.is_empty() {
                    self.parts.push(part);
                    self.filled += part.len();
                }
                if rest.is_empty() && last {
                    return;
                }
                self.close(!part.is_empty() && !rest.is_empty());
                if rest.is_empty() {
                    return;
                }
                element = rest;
                continue;
            }
            if with_length <= left {
                self.parts.push(element);
                self.filled += with_length;
                return;
            }
            // A length of two bytes may leave one byte unused.
            let part_bytes = left.saturating_sub(leb128_bytes(left));
            if part_bytes == 0 {
                self.close(false);
                continue;
            }
            let (part, rest) = element.split_at(part_bytes);
            self.parts.push(part);
            self.close(true);
            element = rest;
        }
    }

    fn close(&mut self, continued: bool) {
        if self.parts.is_empty() {
            return;
        }
        let continues = self.payloads.last().is_some_and(|last| last[0] & 0x40 != 0);
        let count = self.parts.len();
        let counted = if count <= COUNTED_MAX { count as u8 } else { 0 };
        let header = u8::from(continues) << 7 | u8::from(continued) << 6 | counted << 4;
        let mut payload = vec![header];
        for (index, part) in self.parts.drain(..).enumerate() {
            if counted == 0 || index + 1 < count {
                push_leb128(part.len(), &mut payload);
            }
            payload.extend_from_slice(part);
        }
        self.payloads.push(payload);
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::av1::{Payload, assemble};
    use crate::packetize::LAST_PACKET_EXTRA_BYTES;
    use crate::packetize::tests::assert_even;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn unit(obus: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut unit = vec![0x12, 0];
        for (kind, data) in obus {
            unit.push(kind << 3 | HAS_SIZE);
            push_leb128(data.len(), &mut unit);
            unit.extend_from_slice(data);
        }
        unit
    }

    #[test]
    fn a_keyframe_is_even_payloads_that_begin_a_sequence() {
        let whole = unit(&[(1, vec![1; 11]), (6, vec![2; 4_000])]);
        let payloads = av1(&whole, true);
        let lengths: Vec<_> = payloads.iter().map(|payload| payload.len()).collect();
        // The first and the last have 8 and 15 bytes besides.
        assert_eq!(lengths, [1_003, 1_011, 1_011, 993]);
        // Y, W = 2, N; the sequence header with its length, then the frame without.
        assert_eq!(payloads[0][..3], [0x68, 12, 0x08]);
        assert_eq!(payloads[0][14], 0x30);
        assert!(payloads[1..3].iter().all(|payload| payload[0] == 0xd0));
        assert_eq!(payloads[3][0], 0x90);
        assert_eq!(assemble(payloads.iter().map(|payload| &payload[..])).unwrap(), whole);
        // A keyframe of one payload, and one with more elements than W counts.
        let [small] = &av1(&unit(&[(1, vec![1; 11]), (6, vec![2; 40])]), true)[..] else {
            panic!()
        };
        assert_eq!(small[..3], [0x28, 12, 0x08]);
        let many = unit(&[(1, vec![1; 11]), (5, vec![2; 4]), (5, vec![2; 4]), (6, vec![3; 40])]);
        let [many] = &av1(&many, true)[..] else { panic!() };
        assert_eq!(many[0], 0x08);
        let small = av1(&unit(&[(6, vec![3; 9])]), false);
        assert_eq!(small[0][..2], [0x10, 0x30]);
    }

    proptest! {
        #[test]
        fn a_frame_is_even(header in 0..20_usize, len in 1..60_000_usize) {
            let frame = (6, vec![2; len]);
            let whole = match header {
                0 => unit(&[frame]),
                _ => unit(&[(1, vec![1; header]), frame]),
            };
            assert_even(&av1(&whole, header > 0), Ends::BOTH);
        }

        #[test]
        fn what_is_cut_comes_back(
            obus in vec((prop_oneof![Just(1_u8), 3..8_u8], vec(any::<u8>(), 0..3_000)), 1..7),
            new_sequence: bool,
        ) {
            let whole = unit(&obus);
            let payloads = av1(&whole, new_sequence);
            for (index, payload) in payloads.iter().enumerate() {
                let behind = if index + 1 == payloads.len() { LAST_PACKET_EXTRA_BYTES } else { 0 };
                prop_assert!(payload.len() + behind <= PAYLOAD_BYTES_MAX);
                let parsed = Payload::parse(payload).unwrap();
                prop_assert_eq!(parsed.new_sequence, new_sequence && index == 0);
            }
            let joined = assemble(payloads.iter().map(|payload| &payload[..]));
            prop_assert_eq!(joined, Some(whole));
        }
    }
}
