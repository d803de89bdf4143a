//! VP9 frames, of one layer or of several, to payloads of non-flexible mode (RFC 9628 §4).

use std::sync::Arc;

use super::{Ends, PAYLOAD_BYTES_MAX, Room};
use crate::vp9::is_keyframe;

/// Length of the payload descriptor every packet of a clip starts with.
pub const VP9_DESCRIPTOR_BYTES: usize = 5;

/// Which layer frame of a scalable stream is packetised (RFC 9628 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vp9Layer<'a> {
    /// TID.
    pub temporal_id: u8,
    /// SID.
    pub spatial_id: u8,
    /// It needs nothing, or only the layer below in the same picture (no P, and D but for the lowest
    /// layer).
    pub key_picture: bool,
    /// The layer above refers to it (no Z).
    pub for_upper_layer: bool,
    /// The scalability structure, which its first packet carries.
    pub structure: &'a [u8],
}

/// Cuts one VP9 frame (or superframe) into even payloads: 15-bit picture id, TID and SID 0,
/// TL0PICIDX.
///
/// P is clear on keyframes only. An intra-only frame is not predicted either, but receivers take a
/// clear P for a place where decoding can begin.
pub fn vp9(frame: &[u8], picture_id: u16, tl0_pic_idx: u8) -> Vec<Arc<[u8]>> {
    let predicted = if is_keyframe(frame) { 0 } else { 0x40 };
    // Z: there is no higher spatial layer.
    let room = room(Ends::BOTH, 0);
    cut(frame, [0x01 | predicted, 0], (picture_id, tl0_pic_idx), &[], room)
}

/// The same for a layer frame, which has these ends of its picture. Payloads are `reserved_bytes`
/// shorter than they could be.
pub fn vp9_layer(
    frame: &[u8],
    layer: Vp9Layer<'_>,
    picture_id: u16,
    tl0_pic_idx: u8,
    ends: Ends,
    reserved_bytes: usize,
) -> Vec<Arc<[u8]>> {
    let predicted = if layer.key_picture { 0 } else { 0x40 };
    let inter_layer = u8::from(layer.key_picture && layer.spatial_id > 0);
    // U: pictures of these modes refer to none of an upper temporal layer before the last base
    // layer's.
    let indices = layer.temporal_id << 5 | 0x10 | layer.spatial_id << 1 | inter_layer;
    let flags = predicted | u8::from(!layer.for_upper_layer);
    let room = room(ends, reserved_bytes).less_in_first(layer.structure.len());
    cut(frame, [flags, indices], (picture_id, tl0_pic_idx), layer.structure, room)
}

fn room(ends: Ends, reserved_bytes: usize) -> Room {
    Room::of(PAYLOAD_BYTES_MAX - VP9_DESCRIPTOR_BYTES - reserved_bytes, ends)
}

/// `flags`: P and Z; `indices`: the layer indices.
fn cut(
    frame: &[u8],
    [flags, indices]: [u8; 2],
    (picture_id, tl0_pic_idx): (u16, u8),
    structure: &[u8],
    room: Room,
) -> Vec<Arc<[u8]>> {
    let parts = room.cut(frame);
    let count = parts.len();
    parts
        .enumerate()
        .map(|(index, chunk)| {
            let begin = u8::from(index == 0) << 3;
            let end = u8::from(index + 1 == count) << 2;
            let structure = if index == 0 { structure } else { &[] };
            let with_structure = u8::from(!structure.is_empty()) << 1;
            let length = VP9_DESCRIPTOR_BYTES + structure.len() + chunk.len();
            let mut payload = Vec::with_capacity(length);
            // I and L, B, E, V.
            payload.extend_from_slice(&[
                0xa0 | flags | begin | end | with_structure,
                0x80 | (picture_id >> 8) as u8,
                picture_id as u8,
                indices,
                tl0_pic_idx,
            ]);
            payload.extend_from_slice(structure);
            payload.extend_from_slice(chunk);
            Arc::from(payload)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packetize::tests::assert_even;
    use crate::vp9::Descriptor;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn layer_frames_are_even(
            len in 1..30_000_usize,
            first: bool,
            last: bool,
            structure in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let structure = if first { &structure[..] } else { &[] };
            let layer = Vp9Layer {
                temporal_id: 0,
                spatial_id: 0,
                key_picture: first,
                for_upper_layer: !last,
                structure,
            };
            let ends = Ends { first, last };
            assert_even(&vp9_layer(&vec![7; len], layer, 1, 1, ends, 16), ends);
        }

        #[test]
        fn what_is_cut_comes_back(
            frame in proptest::collection::vec(any::<u8>(), 1..9_000),
            picture_id in 0..0x8000_u16,
            tl0: u8,
        ) {
            let payloads = vp9(&frame, picture_id, tl0);
            assert_even(&payloads, Ends::BOTH);
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
                joined.extend_from_slice(&payload[descriptor.len..]);
            }
            prop_assert_eq!(joined, frame);
        }
    }
}
