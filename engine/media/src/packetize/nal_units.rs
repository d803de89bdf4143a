//! Access units of H.264 and H.265 to payloads: what both do alike.

use std::sync::Arc;

use super::{Ends, PAYLOAD_BYTES_MAX, Room};

/// The headers of one codec, `HEADER_BYTES` long.
pub(super) struct Headers<const HEADER_BYTES: usize> {
    /// The one of an aggregate of these NAL units.
    pub(super) aggregate: fn(&[&[u8]]) -> [u8; HEADER_BYTES],
    /// The one of fragments of a NAL unit that has this one, and its type, which goes into the
    /// fragments' own header.
    pub(super) fragment: fn([u8; HEADER_BYTES]) -> ([u8; HEADER_BYTES], u8),
}

impl<const HEADER_BYTES: usize> Headers<HEADER_BYTES> {
    /// Cuts one access unit, given as its NAL units, into payloads: small units that follow each
    /// other share an aggregate, a unit too long for one payload becomes even fragments. What the
    /// first and the last packet have besides is left room for as in libwebrtc
    /// (`modules/rtp_rtcp/source/rtp_packetizer_h264.cc`).
    pub(super) fn pack<'a>(&self, units: impl Iterator<Item = &'a [u8]>) -> Vec<Arc<[u8]>> {
        let units: Vec<_> = units.collect();
        let mut payloads = Vec::new();
        let mut at = 0;
        while let Some(unit) = units.get(at) {
            // Of a payload of the units from here on to this one.
            let room = |end: usize| {
                Room::of(PAYLOAD_BYTES_MAX, Ends { first: at == 0, last: end == units.len() })
            };
            if unit.len() > room(at + 1).of_single() {
                self.fragment(
                    unit,
                    Ends { first: at == 0, last: at + 1 == units.len() },
                    &mut payloads,
                );
                at += 1;
                continue;
            }
            let (mut end, mut taken) = (at + 1, HEADER_BYTES + 2 + unit.len());
            while let Some(next) = units.get(end)
                && taken + 2 + next.len() <= room(end + 1).of_single()
            {
                taken += 2 + next.len();
                end += 1;
            }
            payloads.push(self.aggregate(&units[at..end]));
            at = end;
        }
        payloads
    }

    fn aggregate(&self, units: &[&[u8]]) -> Arc<[u8]> {
        if let [only] = units {
            return Arc::from(*only);
        }
        let mut payload = (self.aggregate)(units).to_vec();
        for unit in units {
            payload.extend_from_slice(&(unit.len() as u16).to_be_bytes());
            payload.extend_from_slice(unit);
        }
        Arc::from(payload)
    }

    fn fragment(&self, unit: &[u8], ends: Ends, payloads: &mut Vec<Arc<[u8]>>) {
        let Some((&header, data)) = unit.split_first_chunk() else { return };
        let (header, kind) = (self.fragment)(header);
        let parts = Room::of(PAYLOAD_BYTES_MAX - HEADER_BYTES - 1, ends).cut(data);
        let count = parts.len();
        for (index, chunk) in parts.enumerate() {
            let start = u8::from(index == 0) << 7;
            let end = u8::from(index + 1 == count) << 6;
            let mut payload = Vec::with_capacity(HEADER_BYTES + 1 + chunk.len());
            payload.extend_from_slice(&header);
            payload.push(start | end | kind);
            payload.extend_from_slice(chunk);
            payloads.push(Arc::from(payload));
        }
    }
}
