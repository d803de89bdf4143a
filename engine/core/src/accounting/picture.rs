//! How large the pictures of a stream are, and how often that changed: its layer switches.

use stampede_media::{Codec, vp8};

/// Size of a stream's pictures. An SFU hides a switch of simulcast layers in all numbers it
/// rewrites (RTP timestamp, sequence number, picture id); only the size of the keyframe it has to
/// switch at gives it away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PictureSize {
    size: Option<(u16, u16)>,
    switches: u64,
}

impl PictureSize {
    /// Looks at a packet with payload, in order; true if a layer switch begins with it. Sizes of
    /// codecs other than VP8 are not read yet.
    pub fn observe(&mut self, codec: Codec, payload: &[u8]) -> bool {
        let size = match codec {
            Codec::Vp8 => vp8_size(payload),
            _ => None,
        };
        let Some(size) = size else { return false };
        let switched = self.size.replace(size).is_some_and(|before| before != size);
        self.switches += u64::from(switched);
        switched
    }

    /// Height of the pictures in pixels, once known.
    pub fn height(&self) -> Option<u16> {
        self.size.map(|(_, height)| height)
    }

    /// Switches so far.
    pub fn switches(&self) -> u64 {
        self.switches
    }

    /// Counts from here on only.
    pub fn restart_counting(&mut self) {
        self.switches = 0;
    }
}

fn vp8_size(payload: &[u8]) -> Option<(u16, u16)> {
    let descriptor = vp8::Descriptor::parse(payload).ok().filter(vp8::Descriptor::starts_frame)?;
    vp8::keyframe_size(payload.get(descriptor.len..)?)
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
        assert_eq!((picture.height(), picture.switches()), (Some(36), 2));
    }
}
