//! Encoded frames to RTP payloads, done once per clip.
//!
//! By hand rather than with the `rtp` crate's payloaders (and str0m's, which are theirs): they
//! write no TL0PICIDX and no TID, a PictureID of changing width or a random one, no N for AV1, and
//! one short last packet instead of even ones.

mod av1;
mod even;
mod h264;
mod h265;
mod nal_units;
mod vp9;

use std::sync::Arc;

use even::Room;

pub use av1::{av1, av1_layer};
pub use even::{Ends, FIRST_PACKET_EXTRA_BYTES, LAST_PACKET_EXTRA_BYTES};
pub use h264::h264;
pub use h265::h265;
pub use vp9::{VP9_DESCRIPTOR_BYTES, Vp9Layer, vp9, vp9_layer};

/// Longest RTP payload sent: of a picture's first packet with what its header is longer by than
/// the others' ([`FIRST_PACKET_EXTRA_BYTES`]), of its last one with the trailer behind it
/// ([`LAST_PACKET_EXTRA_BYTES`]). Around it come 12 bytes of RTP header, up to 20 of header
/// extensions, 16 of SRTP tag and 2 of RTX, so that datagrams stay below 1,200 bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1_140;
/// Length of the VP8 payload descriptor every packet of a clip starts with.
pub const VP8_DESCRIPTOR_BYTES: usize = 6;

/// Cuts one VP8 frame into payloads (RFC 7741 §4.2, §4.4): X with I (15 bits), L and T, TID 0.
///
/// Lengths are such that all datagrams of the frame are of one length, and the last one is hardly
/// shorter: then they leave as one segment run (UDP GSO), and a keyframe's bytes are spread over
/// no more packets than needed.
pub fn vp8(frame: &[u8], picture_id: u16, tl0_pic_idx: u8) -> Vec<Arc<[u8]>> {
    let room = Room::of(PAYLOAD_BYTES_MAX - VP8_DESCRIPTOR_BYTES, Ends::BOTH);
    room.cut(frame)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vp8::Descriptor;

    /// With what the ends of a picture have besides, all payloads are of one length but the last, which
    /// may be shorter.
    pub(super) fn assert_even(payloads: &[Arc<[u8]>], ends: Ends) {
        let mut lengths: Vec<_> = payloads.iter().map(|payload| payload.len()).collect();
        lengths[0] += if ends.first { FIRST_PACKET_EXTRA_BYTES } else { 0 };
        *lengths.last_mut().unwrap() += if ends.last { LAST_PACKET_EXTRA_BYTES } else { 0 };
        let (end, whole) = lengths.split_last().unwrap();
        let longest = whole.first().unwrap_or(end);
        assert!(whole.iter().all(|length| length == longest), "{lengths:?}");
        assert!(end <= longest && *longest <= PAYLOAD_BYTES_MAX, "{lengths:?}");
    }

    #[test]
    fn a_frame_of_720p_is_seven_even_packets() {
        let lengths: Vec<_> = vp8(&[9; 7_000], 1, 1).iter().map(|payload| payload.len()).collect();
        // 7,023 bytes with what the first and the last packet have besides.
        assert_eq!(lengths, [1_002, 1_010, 1_010, 1_010, 1_010, 1_010, 990]);
        assert_even(&vp8(&[9; 7_000], 1, 1), Ends::BOTH);
        assert_eq!(vp8(&[9; 1_111], 1, 1).len(), 1);
        assert_eq!(vp8(&[9; 1_112], 1, 1).len(), 2);
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
