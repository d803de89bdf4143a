//! Encoded frames to RTP payloads, done once per clip.
//!
//! By hand rather than with the `rtp` crate's payloaders (and str0m's, which are theirs): they
//! write no TL0PICIDX and no TID, a PictureID of changing width or a random one, no N for AV1, and
//! one short last packet instead of even ones.

mod av1;
mod h264;
mod h265;
mod nal_units;
mod vp9;

use std::sync::Arc;

pub use av1::{av1, av1_layer};
pub use h264::h264;
pub use h265::h265;
pub use vp9::{VP9_DESCRIPTOR_BYTES, Vp9Layer, vp9, vp9_layer};

/// Longest RTP payload made. Around it come 12 bytes of RTP header, up to 20 of header extensions,
/// 16 of SRTP tag and 2 of RTX, so that datagrams stay below 1,200 bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1_140;
/// Length of the VP8 payload descriptor every packet of a clip starts with.
pub const VP8_DESCRIPTOR_BYTES: usize = 6;

/// Cuts one VP8 frame into payloads (RFC 7741 §4.2, §4.4): X with I (15 bits), L and T, TID 0.
///
/// All payloads but the last have the same length and the last is hardly shorter: equal lengths
/// let a frame leave as one GSO train, and spread a keyframe's bytes over no more packets than
/// needed.
pub fn vp8(frame: &[u8], picture_id: u16, tl0_pic_idx: u8) -> Vec<Arc<[u8]>> {
    let chunk_bytes = even_chunk_bytes(frame.len(), PAYLOAD_BYTES_MAX - VP8_DESCRIPTOR_BYTES);
    frame
        .chunks(chunk_bytes)
        .enumerate()
        .map(|(index, chunk)| {
            // X, and S on the first packet; PID stays 0, as libwebrtc sends it.
            let first = if index == 0 { 0x90 } else { 0x80 };
            let mut payload = Vec::with_capacity(VP8_DESCRIPTOR_BYTES + chunk.len());
            payload.extend_from_slice(&[
                first,
                0xe0,
                0x80 | (picture_id >> 8) as u8,
                picture_id as u8,
                tl0_pic_idx,
                // TID 0, Y: every frame depends on base-layer frames only.
                0x20,
            ]);
            payload.extend_from_slice(chunk);
            Arc::from(payload)
        })
        .collect()
}

/// Length of each part when `len` bytes go into as few parts as `room` allows, the last one hardly
/// shorter; at least 1.
fn even_chunk_bytes(len: usize, room: usize) -> usize {
    let count = len.div_ceil(room).max(1);
    len.div_ceil(count).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vp8::Descriptor;

    #[test]
    fn payloads_are_even_and_short_enough() {
        for len in [1usize, 2, 1_133, 1_134, 1_135, 2_268, 2_269, 8_750, 50_599, 300_001] {
            let frame: Vec<u8> = (0..len).map(|byte| byte as u8).collect();
            let payloads = vp8(&frame, 0x1234, 7);
            let first = payloads[0].len();
            assert_eq!(payloads.len(), len.div_ceil(PAYLOAD_BYTES_MAX - VP8_DESCRIPTOR_BYTES));
            assert!(payloads.iter().all(|payload| payload.len() <= PAYLOAD_BYTES_MAX));
            let (last, rest) = payloads.split_last().unwrap();
            assert!(rest.iter().all(|payload| payload.len() == first) && last.len() <= first);
            let joined: Vec<u8> = payloads.iter().flat_map(|p| p[6..].to_vec()).collect();
            assert_eq!(joined, frame);
        }
    }

    #[test]
    fn descriptor_has_what_publishers_rewrite() {
        let payloads = vp8(&[9; 3_000], 0x7fff, 200);
        for (index, payload) in payloads.iter().enumerate() {
            let descriptor = Descriptor::parse(payload).unwrap();
            assert_eq!(descriptor.len, VP8_DESCRIPTOR_BYTES);
            assert_eq!(descriptor.starts_frame(), index == 0);
            assert_eq!((descriptor.picture_id, descriptor.picture_id_wide), (Some(0x7fff), true));
            assert_eq!((descriptor.tl0_pic_idx, descriptor.temporal_id), (Some(200), Some(0)));
            assert_eq!((descriptor.layer_sync, descriptor.key_idx), (true, None));
        }
    }
}
