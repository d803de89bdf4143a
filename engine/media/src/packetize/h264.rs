//! H.264 access units to payloads of packetization mode 1 (RFC 6184 §5).

use std::sync::Arc;

use super::nal_units::Headers;
use crate::h264::{nal, nal_type};

const HEADERS: Headers<1> = Headers {
    aggregate: |units| {
        // §5.7.1: the largest NRI of all.
        let importance = units.iter().filter_map(|unit| unit.first()).map(|header| header & 0x60);
        [importance.max().unwrap_or(0) | nal::STAP_A]
    },
    fragment: |[header]| ([header & 0xe0 | nal::FU_A], nal_type(header)),
};

/// Cuts one access unit, given as its NAL units, into payloads: small units that follow each other
/// share a STAP-A, a unit too long for one payload becomes even FU-As.
pub fn h264(units: &[&[u8]]) -> Vec<Arc<[u8]>> {
    HEADERS.pack(units.iter().copied().filter(|unit| !unit.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h264::{Head, Summary, append_annex_b};
    use crate::packetize::tests::assert_even;
    use crate::packetize::{Ends, LAST_PACKET_EXTRA_BYTES, PAYLOAD_BYTES_MAX};
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn parameter_sets_travel_together_and_slices_in_even_parts() {
        let slice = [&[0x65, 0x88][..], &[7; 3_000]].concat();
        let payloads = h264(&[&[0x67, 0x42, 0xe0, 0x1f], &[0x68, 1, 2], &slice]);
        assert_eq!(payloads.len(), 4);
        assert_eq!(payloads[0][..], [0x78, 0, 4, 0x67, 0x42, 0xe0, 0x1f, 0, 3, 0x68, 1, 2]);
        assert_eq!(Summary::of(&payloads[0]).unwrap().head, Some(Head::SequenceParameters));
        let lengths: Vec<_> = payloads[1..].iter().map(|payload| payload.len()).collect();
        assert_eq!(lengths, [1_008, 1_008, 991]);
        assert_eq!((payloads[1][..2].to_vec(), payloads[3][1]), (vec![0x7c, 0x85], 0x45));
    }

    proptest! {
        #[test]
        fn a_slice_is_even(len in 3..60_000_usize) {
            let slice = vec![0x41; len];
            assert_even(&h264(&[&slice]), Ends::BOTH);
            // Behind parameter sets it has the end alone.
            let sets = vec![0x42; 1_150];
            let payloads = h264(&[&sets, &slice]);
            assert_even(&payloads[2..], Ends { first: false, last: true });
        }

        #[test]
        fn what_is_cut_comes_back(units in vec((1..24_u8, vec(any::<u8>(), 0..4_000)), 1..8)) {
            let units: Vec<Vec<u8>> =
                units.into_iter().map(|(kind, data)| [vec![0x60 | kind], data].concat()).collect();
            let slices: Vec<&[u8]> = units.iter().map(Vec::as_slice).collect();
            let mut joined = Vec::new();
            let payloads = h264(&slices);
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
