//! H.265 access units to payloads without decoding order numbers (RFC 7798 §4.4).

use std::sync::Arc;

use super::PAYLOAD_BYTES_MAX;
use crate::h265::{self, HEADER_BYTES, nal};

/// Payload header and header of a fragmentation unit.
const FRAGMENT_HEADER_BYTES: usize = HEADER_BYTES + 1;

/// Cuts one access unit, given as its NAL units, into payloads: small units that follow each other
/// share an aggregation packet, a unit too long for one payload becomes even fragmentation units.
/// Parameter sets come together, in one packet: LiveKit takes that for the keyframe's first
/// (mediatransportutil pkg/codec/keyframe.go, `IsH265KeyFrame`), and a video parameter set alone it
/// would not.
pub fn h265(units: &[&[u8]]) -> Vec<Arc<[u8]>> {
    let mut payloads = Vec::new();
    let mut units = units.iter().copied().filter(|unit| unit.len() > HEADER_BYTES).peekable();
    let mut together: Vec<&[u8]> = Vec::new();
    while let Some(unit) = units.next() {
        if unit.len() > PAYLOAD_BYTES_MAX {
            fragment(unit, &mut payloads);
            continue;
        }
        together.push(unit);
        let taken = HEADER_BYTES + together.iter().map(|unit| 2 + unit.len()).sum::<usize>();
        let fits = |next: &&[u8]| taken + 2 + next.len() <= PAYLOAD_BYTES_MAX;
        if !units.peek().is_some_and(fits) {
            payloads.push(aggregate(&together));
            together.clear();
        }
    }
    payloads
}

fn aggregate(units: &[&[u8]]) -> Arc<[u8]> {
    if let [only] = units {
        return Arc::from(*only);
    }
    // §4.4.2: the lowest layer and the lowest temporal layer of all.
    let headers = || units.iter().filter_map(|unit| unit.first_chunk::<HEADER_BYTES>());
    let layer = headers().map(|header| h265::layer_id(*header)).min().unwrap_or(0);
    let temporal = headers().map(|header| header[1] & 7).min().unwrap_or(1);
    let mut payload = vec![nal::AGGREGATE << 1 | layer >> 5, layer << 3 | temporal];
    for unit in units {
        payload.extend_from_slice(&(unit.len() as u16).to_be_bytes());
        payload.extend_from_slice(unit);
    }
    Arc::from(payload)
}

fn fragment(unit: &[u8], payloads: &mut Vec<Arc<[u8]>>) {
    let Some((&[first, second], data)) = unit.split_first_chunk() else { return };
    let chunk_bytes =
        super::even_chunk_bytes(data.len(), PAYLOAD_BYTES_MAX - FRAGMENT_HEADER_BYTES);
    let count = data.len().div_ceil(chunk_bytes);
    for (index, chunk) in data.chunks(chunk_bytes).enumerate() {
        let start = u8::from(index == 0) << 7;
        let end = u8::from(index + 1 == count) << 6;
        let mut payload = Vec::with_capacity(FRAGMENT_HEADER_BYTES + chunk.len());
        let header = [first & 0x81 | nal::FRAGMENT << 1, second];
        payload.extend_from_slice(&header);
        payload.push(start | end | h265::nal_type(first));
        payload.extend_from_slice(chunk);
        payloads.push(Arc::from(payload));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h265::{Head, Summary, append_annex_b};
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
        assert_eq!(lengths, [1_004, 1_004, 1_002]);
        assert_eq!(payloads[1][..4], [0x62, 1, 0x93, 0xaf]);
        assert_eq!(payloads[3][..3], [0x62, 1, 0x53]);
    }

    proptest! {
        #[test]
        fn what_is_cut_comes_back(
            units in vec((0..48_u8, 1..7_u8, vec(any::<u8>(), 1..4_000)), 1..8),
        ) {
            let units = units.into_iter();
            let units: Vec<Vec<u8>> =
                units.map(|(kind, tid, data)| [vec![kind << 1, tid], data].concat()).collect();
            let slices: Vec<&[u8]> = units.iter().map(Vec::as_slice).collect();
            let mut joined = Vec::new();
            for payload in h265(&slices) {
                prop_assert!(payload.len() <= PAYLOAD_BYTES_MAX);
                append_annex_b(&payload, &mut joined).unwrap();
            }
            let expected: Vec<u8> =
                units.iter().flat_map(|unit| [&[0, 0, 0, 1], &unit[..]].concat()).collect();
            prop_assert_eq!(joined, expected);
        }
    }
}
