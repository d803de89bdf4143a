//! Access units of H.264 and H.265 to payloads: what both do alike.

use std::sync::Arc;

use super::PAYLOAD_BYTES_MAX;

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
    /// other share an aggregate, a unit too long for one payload becomes even fragments.
    pub(super) fn pack<'a>(&self, units: impl Iterator<Item = &'a [u8]>) -> Vec<Arc<[u8]>> {
        let mut payloads = Vec::new();
        let mut units = units.peekable();
        let mut together: Vec<&[u8]> = Vec::new();
        while let Some(unit) = units.next() {
            if unit.len() > PAYLOAD_BYTES_MAX {
                self.fragment(unit, &mut payloads);
                continue;
            }
            together.push(unit);
            let taken = HEADER_BYTES + together.iter().map(|unit| 2 + unit.len()).sum::<usize>();
            let fits = |next: &&[u8]| taken + 2 + next.len() <= PAYLOAD_BYTES_MAX;
            if !units.peek().is_some_and(fits) {
                payloads.push(self.aggregate(&together));
                together.clear();
            }
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

    fn fragment(&self, unit: &[u8], payloads: &mut Vec<Arc<[u8]>>) {
        let Some((&header, data)) = unit.split_first_chunk() else { return };
        let (header, kind) = (self.fragment)(header);
        let chunk_bytes = super::even_chunk_bytes(data.len(), PAYLOAD_BYTES_MAX - HEADER_BYTES - 1);
        let count = data.len().div_ceil(chunk_bytes);
        for (index, chunk) in data.chunks(chunk_bytes).enumerate() {
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
