//! VP8 as RTP carries it: the payload descriptor (RFC 7741 §4.2) and as much of the frame header
//! (RFC 6386 §9.1) as tells keyframes and their size.
//!
//! The `rtp` crate's `Vp8Packet` was looked at first: it does not give the descriptor's length,
//! wants `Bytes`, refuses one-byte payload tails, and pulls webrtc-util into the packet path.

/// VP8 payload descriptor of one RTP packet (RFC 7741 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Descriptor {
    /// N: nothing refers to this frame.
    pub non_reference: bool,
    /// S: this packet begins a partition.
    pub partition_start: bool,
    /// PID: partition index, 0 to 7.
    pub partition_id: u8,
    /// PictureID, 7 or 15 bits.
    pub picture_id: Option<u16>,
    /// True where the PictureID has 15 bits (M).
    pub picture_id_wide: bool,
    /// TL0PICIDX.
    pub tl0_pic_idx: Option<u8>,
    /// TID: temporal layer, 0 to 3.
    pub temporal_id: Option<u8>,
    /// Y: depends only on the base layer. False without TID.
    pub layer_sync: bool,
    /// KEYIDX, 5 bits.
    pub key_idx: Option<u8>,
    /// Length of the descriptor in bytes; the VP8 data follows.
    pub len: usize,
}

/// Why a payload has no usable descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// The payload ends inside the descriptor, or right after it.
    #[error("VP8 payload of {len} bytes ends before its data; ignore the packet")]
    Short {
        /// Length of the payload.
        len: usize,
    },
}

impl Descriptor {
    /// Reads the descriptor at the start of an RTP payload.
    pub fn parse(payload: &[u8]) -> Result<Descriptor, DescriptorError> {
        let mut at = 0;
        let mut next = || {
            let byte = payload.get(at).copied();
            at += 1;
            byte.ok_or(DescriptorError::Short { len: payload.len() })
        };
        let first = next()?;
        let mut descriptor = Descriptor {
            non_reference: first & 0x20 != 0,
            partition_start: first & 0x10 != 0,
            partition_id: first & 0x07,
            ..Descriptor::default()
        };
        if first & 0x80 != 0 {
            let extension = next()?;
            if extension & 0x80 != 0 {
                let high = next()?;
                descriptor.picture_id_wide = high & 0x80 != 0;
                descriptor.picture_id = Some(if descriptor.picture_id_wide {
                    u16::from(high & 0x7f) << 8 | u16::from(next()?)
                } else {
                    u16::from(high)
                });
            }
            if extension & 0x40 != 0 {
                descriptor.tl0_pic_idx = Some(next()?);
            }
            if extension & 0x30 != 0 {
                let byte = next()?;
                if extension & 0x20 != 0 {
                    descriptor.temporal_id = Some(byte >> 6);
                    descriptor.layer_sync = byte & 0x20 != 0;
                }
                if extension & 0x10 != 0 {
                    descriptor.key_idx = Some(byte & 0x1f);
                }
            }
        }
        // A descriptor with nothing behind it carries no part of a frame.
        if at >= payload.len() {
            return Err(DescriptorError::Short { len: payload.len() });
        }
        descriptor.len = at;
        Ok(descriptor)
    }

    /// True on the first packet of a frame: S set and partition 0 (RFC 7741 §4.2).
    pub const fn starts_frame(&self) -> bool {
        self.partition_start && self.partition_id == 0
    }
}

/// Writes other numbers into a payload that has a 15-bit picture id and a TL0PICIDX; false, and
/// nothing changed, if it has not.
pub fn renumber(payload: &mut [u8], picture_id: u16, tl0_pic_idx: u8) -> bool {
    // X; I and L; M (RFC 7741 §4.2).
    let [0x80..=0xff, flags, high, low, tl0, ..] = payload else { return false };
    if *flags & 0xc0 != 0xc0 || *high & 0x80 == 0 {
        return false;
    }
    (*high, *low) = (0x80 | (picture_id >> 8) as u8, picture_id as u8);
    *tl0 = tl0_pic_idx;
    true
}

/// True if this RTP payload is the first packet of a keyframe. False for anything unreadable.
pub fn is_keyframe_packet(payload: &[u8]) -> bool {
    Descriptor::parse(payload).is_ok_and(|descriptor| {
        descriptor.starts_frame() && payload.get(descriptor.len).is_some_and(|tag| tag & 1 == 0)
    })
}

/// True if an encoded frame (no descriptor) is a keyframe: the P bit of the frame tag is 0
/// (RFC 6386 §9.1). False for an empty one.
pub fn is_keyframe(frame: &[u8]) -> bool {
    frame.first().is_some_and(|tag| tag & 1 == 0)
}

/// True if an encoded frame (no descriptor) is meant to be shown (`show_frame`, RFC 6386 §9.1).
pub fn is_shown(frame: &[u8]) -> bool {
    frame.first().is_some_and(|tag| tag & 0x10 != 0)
}

/// Picture size of an encoded keyframe (no descriptor), in pixels, without the scaling bits.
/// `None` if it isn't a keyframe, is cut short, lacks the start code, or says 0.
pub fn keyframe_size(frame: &[u8]) -> Option<(u16, u16)> {
    let header = frame.get(..10)?;
    if !is_keyframe(frame) || header[3..6] != [0x9d, 0x01, 0x2a] {
        return None;
    }
    let width = u16::from_le_bytes([header[6], header[7]]) & 0x3fff;
    let height = u16::from_le_bytes([header[8], header[9]]) & 0x3fff;
    (width > 0 && height > 0).then_some((width, height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_the_descriptor_is_read() {
        let full = Descriptor::parse(&[0xb3, 0xf0, 0x92, 0x34, 0x55, 0xa7, 0]).unwrap();
        let expected = Descriptor {
            non_reference: true,
            partition_start: true,
            partition_id: 3,
            picture_id: Some(0x1234),
            picture_id_wide: true,
            tl0_pic_idx: Some(0x55),
            temporal_id: Some(2),
            layer_sync: true,
            key_idx: Some(7),
            len: 6,
        };
        assert_eq!(full, expected);
        let short = Descriptor::parse(&[0x90, 0x80, 0x42, 0]).unwrap();
        assert_eq!((short.picture_id, short.picture_id_wide, short.len), (Some(0x42), false, 3));
        // K without T: the byte is there, its TID means nothing.
        let key_only = Descriptor::parse(&[0x80, 0x10, 0xff, 0]).unwrap();
        assert_eq!((key_only.temporal_id, key_only.layer_sync), (None, false));
        assert_eq!(key_only.key_idx, Some(31));
        let bare = Descriptor::parse(&[0x10, 1]).unwrap();
        assert_eq!(bare, Descriptor { partition_start: true, len: 1, ..Descriptor::default() });
    }

    #[test]
    fn numbers_are_written_where_they_stand() {
        let mut payload = [0x90, 0xe0, 0x92, 0x34, 0x55, 0x20, 7];
        assert!(renumber(&mut payload, 0x7fff, 9));
        assert_eq!(payload, [0x90, 0xe0, 0xff, 0xff, 9, 0x20, 7]);
        // No X, no picture id, no TL0PICIDX, one of seven bits, cut short.
        for other in [
            &[0x10, 0xe0, 0x92, 0x34, 0x55, 0][..],
            &[0x90, 0x60, 0x92, 0x34, 0x55, 0],
            &[0x90, 0xa0, 0x92, 0x34, 0x55, 0],
            &[0x90, 0xe0, 0x12, 0x34, 0x55, 0],
            &[0x90, 0xe0, 0x92, 0x34],
            &[],
        ] {
            let mut payload = other.to_vec();
            assert!(!renumber(&mut payload, 1, 1));
            assert_eq!(payload, other);
        }
    }

    #[test]
    fn short_payloads_are_errors() {
        let full = [0x90, 0xf0, 0x92, 0x34, 0x55, 0xa7];
        for len in 0..=full.len() {
            assert_eq!(Descriptor::parse(&full[..len]), Err(DescriptorError::Short { len }));
        }
    }

    #[test]
    fn keyframes_are_seen_on_their_first_packet_only() {
        assert!(is_keyframe_packet(&[0x10, 0]));
        assert!(is_keyframe_packet(&[0x90, 0xe0, 0x80, 0x42, 1, 0, 0]));
        // P set; S not set; a later partition; nothing behind the descriptor.
        for other in [&[0x10, 1][..], &[0, 0], &[0x11, 0], &[0x90, 0x80, 0x42], &[]] {
            assert!(!is_keyframe_packet(other));
        }
    }

    #[test]
    fn keyframe_size_leaves_out_the_scaling_bits() {
        let mut frame = [0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x00, 0x45, 0xd0, 0x82];
        assert_eq!(keyframe_size(&frame), Some((1_280, 720)));
        assert_eq!(keyframe_size(&frame[..9]), None);
        frame[3] = 0;
        assert_eq!(keyframe_size(&frame), None);
        assert_eq!(keyframe_size(&[0x11, 0, 0, 0x9d, 0x01, 0x2a, 1, 0, 1, 0]), None);
        assert_eq!(keyframe_size(&[0x10, 0, 0, 0x9d, 0x01, 0x2a, 0, 0x40, 1, 0]), None);
        assert!(is_shown(&[0x10]) && !is_shown(&[0x00]) && !is_shown(&[]));
    }
}
