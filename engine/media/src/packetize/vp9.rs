//! VP9 frames to payloads, non-flexible mode with one layer (RFC 9628 §4).

use std::sync::Arc;

use super::PAYLOAD_BYTES_MAX;
use crate::vp9::is_keyframe;

/// Length of the payload descriptor every packet of a clip starts with.
pub const VP9_DESCRIPTOR_BYTES: usize = 5;

/// Cuts one VP9 frame (or superframe) into even payloads: 15-bit picture id, TID and SID 0,
/// TL0PICIDX.
///
/// P is clear on keyframes only. An intra-only frame is not predicted either, but receivers take a
/// clear P for a place where decoding can begin.
pub fn vp9(frame: &[u8], picture_id: u16, tl0_pic_idx: u8) -> Vec<Arc<[u8]>> {
    let chunk_bytes =
        super::even_chunk_bytes(frame.len(), PAYLOAD_BYTES_MAX - VP9_DESCRIPTOR_BYTES);
    let count = frame.len().div_ceil(chunk_bytes);
    let predicted = if is_keyframe(frame) { 0 } else { 0x40 };
    frame
        .chunks(chunk_bytes)
        .enumerate()
        .map(|(index, chunk)| {
            let begin = u8::from(index == 0) << 3;
            let end = u8::from(index + 1 == count) << 2;
            let mut payload = Vec::with_capacity(VP9_DESCRIPTOR_BYTES + chunk.len());
            // I and L, P, B, E, and Z: there is no higher spatial layer.
            payload.extend_from_slice(&[
                0xa1 | predicted | begin | end,
                0x80 | (picture_id >> 8) as u8,
                picture_id as u8,
                0,
                tl0_pic_idx,
            ]);
            payload.extend_from_slice(chunk);
            Arc::from(payload)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vp9::Descriptor;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_cut_comes_back(
            frame in proptest::collection::vec(any::<u8>(), 1..9_000),
            picture_id in 0..0x8000_u16,
            tl0: u8,
        ) {
            let payloads = vp9(&frame, picture_id, tl0);
            let mut joined = Vec::new();
            for (index, payload) in payloads.iter().enumerate() {
                let descriptor = Descriptor::parse(payload).unwrap();
                prop_assert_eq!(descriptor.len, VP9_DESCRIPTOR_BYTES);
                prop_assert_eq!(descriptor.starts_picture(), index == 0);
                prop_assert_eq!(descriptor.frame_end, index + 1 == payloads.len());
                prop_assert_eq!(descriptor.inter_predicted, !is_keyframe(&frame));
                prop_assert_eq!(descriptor.picture_id, Some(picture_id));
                prop_assert_eq!(descriptor.tl0_pic_idx, Some(tl0));
                prop_assert!(payload.len() <= PAYLOAD_BYTES_MAX);
                prop_assert!(payload.len() <= payloads[0].len());
                joined.extend_from_slice(&payload[descriptor.len..]);
            }
            prop_assert_eq!(joined, frame);
        }
    }
}
