//! AV1 temporal units to payloads ("RTP Payload Format For AV1" §4.4, §5).

use std::sync::Arc;

use super::PAYLOAD_BYTES_MAX;
use crate::av1::{HAS_SIZE, leb128_bytes, obu, obus, push_leb128};

/// Cuts one temporal unit in low-overhead form into payloads, all but the last as long as each
/// other or a byte shorter. Temporal delimiters, tile lists and padding are left out and OBUs lose
/// their size fields (§5). `new_sequence` is N: a coded video sequence begins.
///
/// Bytes behind the last whole OBU are left out too; files are checked before.
pub fn av1(unit: &[u8], new_sequence: bool) -> Vec<Arc<[u8]>> {
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
    let total: usize = elements.iter().map(|element| element.len() + 3).sum();
    let room = super::even_chunk_bytes(total, PAYLOAD_BYTES_MAX - 1);
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

/// Fills one payload after the other. Every element gets a length (W = 0), but for a payload with
/// a single one (W = 1): the inner payloads of a long OBU.
struct Packer<'a> {
    /// Bytes for elements in each payload.
    room: usize,
    payloads: Vec<Vec<u8>>,
    parts: Vec<&'a [u8]>,
    filled: usize,
}

impl<'a> Packer<'a> {
    fn element(&mut self, mut element: &'a [u8], last: bool) {
        loop {
            let left = self.room - self.filled;
            // As the only one, and reaching the end of payload or unit, it needs no length.
            if self.parts.is_empty() && (element.len() > left || element.len() == left || last) {
                let (part, rest) = element.split_at(element.len().min(left));
                self.parts.push(part);
                self.filled += part.len();
                if rest.is_empty() && last {
                    return;
                }
                self.close(!rest.is_empty());
                if rest.is_empty() {
                    return;
                }
                element = rest;
                continue;
            }
            if leb128_bytes(element.len()) + element.len() <= left {
                self.parts.push(element);
                self.filled += leb128_bytes(element.len()) + element.len();
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
        let single = self.parts.len() == 1;
        let header = u8::from(continues) << 7 | u8::from(continued) << 6 | u8::from(single) << 4;
        let mut payload = vec![header];
        for part in self.parts.drain(..) {
            if !single {
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
        println!("{lengths:?}");
        assert_eq!(payloads.len(), 4);
        assert!(lengths[..3].iter().all(|&len| lengths[0] - len <= 1) && lengths[3] <= lengths[0]);
        assert_eq!(payloads[0][..3], [0x48, 12, 0x08]);
        assert!(payloads[1..3].iter().all(|payload| payload[0] == 0xd0));
        assert_eq!(payloads[3][0], 0x90);
        assert_eq!(assemble(payloads.iter().map(|payload| &payload[..])).unwrap(), whole);
        let small = av1(&unit(&[(6, vec![3; 9])]), false);
        assert_eq!(small[0][..2], [0x10, 0x30]);
    }

    proptest! {
        #[test]
        fn what_is_cut_comes_back(
            obus in vec((prop_oneof![Just(1_u8), 3..8_u8], vec(any::<u8>(), 0..3_000)), 1..7),
            new_sequence: bool,
        ) {
            let whole = unit(&obus);
            let payloads = av1(&whole, new_sequence);
            for (index, payload) in payloads.iter().enumerate() {
                prop_assert!(payload.len() <= PAYLOAD_BYTES_MAX);
                let parsed = Payload::parse(payload).unwrap();
                prop_assert_eq!(parsed.new_sequence, new_sequence && index == 0);
            }
            let joined = assemble(payloads.iter().map(|payload| &payload[..]));
            prop_assert_eq!(joined, Some(whole));
        }
    }
}
