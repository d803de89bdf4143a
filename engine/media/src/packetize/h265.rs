//! H.265 access units to payloads without decoding order numbers (RFC 7798 §4.4).

use std::sync::Arc;

use super::nal_units::Headers;
use crate::h265::{HEADER_BYTES, layer_id, nal, nal_type};

const HEADERS: Headers<HEADER_BYTES> = Headers {
    aggregate: |units| {
        // §4.4.2: the lowest layer and the lowest temporal layer of all.
        let headers = || units.iter().filter_map(|unit| unit.first_chunk());
        let layer = headers().map(|header| layer_id(*header)).min().unwrap_or(0);
        let temporal = headers().map(|header: &[u8; 2]| header[1] & 7).min().unwrap_or(1);
        [nal::AGGREGATE << 1 | layer >> 5, layer << 3 | temporal]
    },
    fragment: |[first, second]| ([first & 0x81 | nal::FRAGMENT << 1, second], nal_type(first)),
};

/// Cuts one access unit, given as its NAL units, into payloads: small units that follow each other
/// share an aggregation packet, a unit too long for one payload becomes even fragmentation units.
/// Parameter sets come together, in one packet: LiveKit takes that for the keyframe's first
/// (mediatransportutil pkg/codec/keyframe.go, `IsH265KeyFrame`), and a video parameter set alone it
/// would not.
pub fn h265(units: &[&[u8]]) -> Vec<Arc<[u8]>> {
    HEADERS.pack(units.iter().copied().filter(|unit| unit.len() > HEADER_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h265::{Head, Summary, append_annex_b};
    use crate::packetize::tests::assert_even;
    use crate::packetize::{Ends, LAST_PACKET_EXTRA_BYTES, PAYLOAD_BYTES_MAX};
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn parameter_sets_travel_together_and_slices_in_even_parts() {
        let slice = [&[0x26, 1, 0xaf][..], &[7; 3_000]].concat();
        let payloads = h265(&[&[0x40, 1, 0x0c], &[0x42, 1, 1], &[0x44, 1, 0xc1], &slice]);
        assert_eq!(payloads.len(), 4);
        let sets = [0x60, 1, 0, 3, 0x40, 1, 0x0c, 0, 3, 0x42, 1, 1, 0, 3, 0x44, 1, 0xc1];
        assert_eq!(payloads[0][..], sets);
        assert_eq!(Summary::of(&payloads[0]).unwrap().head, Some(Head::VideoParameters));
        let lengths: Vec<_> = payloads[1..].iter().map(|payload| payload.len()).collect();
        assert_eq!(lengths, [1_009, 1_009, 992]);
        assert_eq!(payloads[1][..4], [0x62, 1, 0x93, 0xaf]);
        assert_eq!(payloads[3][..3], [0x62, 1, 0x53]);
    }

    proptest! {
        #[test]
        fn a_slice_is_even(len in 3..60_000_usize) {
            let slice = vec![0x02; len];
            assert_even(&h265(&[&slice]), Ends::BOTH);
            // Behind parameter sets it has the end alone.
            let sets = vec![0x42; 1_150];
            let payloads = h265(&[&sets, &slice]);
            assert_even(&payloads[2..], Ends { first: false, last: true });
        }

        #[test]
        fn what_is_cut_comes_back(
            units in vec((0..48_u8, 1..7_u8, vec(any::<u8>(), 1..4_000)), 1..8),
        ) {
            let units = units.into_iter();
            let units: Vec<Vec<u8>> =
                units.map(|(kind, tid, data)| [vec![kind << 1, tid], data].concat()).collect();
            let slices: Vec<&[u8]> = units.iter().map(Vec::as_slice).collect();
            let mut joined = Vec::new();
            let payloads = h265(&slices);
            let last = payloads.last().map_or(0, |payload| payload.len());
            prop_assert!(last + LAST_PACKET_EXTRA_BYTES <= PAYLOAD_BYTES_MAX);
            for payload in payloads {
                prop_assert!(payload.len() <= PAYLOAD_BYTES_MAX);
                append_annex_b(&payload, &mut joined).unwrap();
            }
            let expected: Vec<u8> =
                units.iter().flat_map(|unit| [&[0, 0, 0, 1], &unit[..]].concat()).collect();
            prop_assert_eq!(joined, expected);
        }
    }
}
