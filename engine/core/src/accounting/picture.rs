//! Whether the pictures of a stream change their size: a switch of layers.

use stampede_media::{Codec, av1, h264, h265, vp8, vp9};

/// Size of a stream's pictures. An SFU hides a switch of simulcast layers in all numbers it
/// rewrites (RTP timestamp, sequence number, picture id); only the size of the keyframe it has to
/// switch at gives it away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PictureSize {
    size: Option<(u16, u16)>,
}

impl PictureSize {
    /// Looks at a packet with payload, in order; true if a switch begins with it. Between spatial
    /// layers of one stream, where no time stamp is at odds, nothing begins.
    pub fn observe(&mut self, codec: Codec, payload: &[u8]) -> bool {
        let Some(size) = size(codec, payload) else { return false };
        self.size.replace(size).is_some_and(|before| before != size)
    }
}

/// What the first packet of a keyframe says. This is asked for each packet, so its first byte sends
/// most of them away.
fn size(codec: Codec, payload: &[u8]) -> Option<(u16, u16)> {
    let first = *payload.first()?;
    match codec {
        // S, and partition 0 (RFC 7741 §4.2).
        Codec::Vp8 if first & 0x17 == 0x10 => {
            let descriptor = vp8::Descriptor::parse(payload).ok()?;
            vp8::keyframe_size(payload.get(descriptor.len..)?)
        }
        // B without P (RFC 9628 §4.2).
        Codec::Vp9 if first & 0x48 == 0x08 => {
            let descriptor = vp9::Descriptor::parse(payload).ok()?;
            let frame = payload.get(descriptor.len..).filter(|_| descriptor.starts_keyframe())?;
            vp9::frame_header(frame).ok()?.size
        }
        // A parameter set or an aggregate, which may hold one.
        Codec::H264 if matches!(first & 0x1f, h264::nal::SPS | h264::nal::STAP_A) => {
            h264::picture_size(h264::sequence_parameters(payload)?)
        }
        // The same of H.265.
        Codec::H265 if matches!(h265::nal_type(first), h265::nal::SPS | h265::nal::AGGREGATE) => {
            h265::Parameters::parse(h265::sequence_parameters(payload)?)?.size()
        }
        // N (AV1 RTP §4.4).
        Codec::Av1 if first & 0x08 != 0 => {
            av1::sequence_size(av1::Payload::parse(payload).ok()?.elements().next()?)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_size_is_a_switch() {
        let packet = |tag: u8, height: u8| {
            vec![0x90, 0x80, 1, tag, 0, 0, 0x9d, 1, 0x2a, 64, 0, height, 0, 0]
        };
        let mut picture = PictureSize::default();
        for (tag, height, switched) in
            [(0x11, 9, false), (0x10, 36, false), (0x10, 36, false), (0x11, 72, false)]
        {
            assert_eq!(picture.observe(Codec::Vp8, &packet(tag, height)), switched);
        }
        assert!(picture.observe(Codec::Vp8, &packet(0x10, 72)));
        assert!(picture.observe(Codec::Vp8, &packet(0x10, 36)));
        assert!(!picture.observe(Codec::Vp8, &[]));
        assert_eq!(picture.size, Some((64, 36)));
    }
}
