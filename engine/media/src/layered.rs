//! Pictures of several layers, as files have them: cut into layer frames, and those into payloads.
//!
//! A frame of an IVF file is one picture: a VP9 superframe (VP9 bitstream specification, Annex B),
//! or an AV1 temporal unit whose OBUs name their layers (AV1 §5.3.3).

use std::sync::Arc;

use crate::clip::{ClipProblem, Codec};
use crate::packetize::{self, Ends, Vp9Layer};
use crate::scalability::{Picture, ScalabilityMode, structure_bytes};
use crate::{av1, vp9};

/// Of one picture, in the order in which they are sent.
type Payloads = Vec<Arc<[u8]>>;

/// Room left in the payloads of a key picture for what its descriptor takes besides the structure,
/// and for the longer form of header extensions (RFC 8285 §4.3) that it makes necessary.
const KEY_PICTURE_RESERVE_BYTES: usize = 16;

/// Cuts the pictures of a file one after the other.
#[derive(Debug)]
pub(crate) struct Cutter {
    codec: Codec,
    mode: ScalabilityMode,
    /// Width and height of the highest layer.
    size: (u16, u16),
    /// Pictures so far, and those since the last key picture.
    pictures: usize,
    since_key: usize,
    /// TL0PICIDX of the next picture of the lowest temporal layer.
    tl0_pic_idx: u8,
}

impl Cutter {
    /// `size` as the first keyframe says it: that of the highest layer (AV1) or of the lowest (VP9).
    pub(crate) fn new(codec: Codec, mode: ScalabilityMode, size: (u16, u16)) -> Option<Cutter> {
        let size = match codec {
            Codec::Av1 => size,
            Codec::Vp9 => {
                let times = 1 << (mode.spatial_layers() - 1);
                (size.0.checked_mul(times)?, size.1.checked_mul(times)?)
            }
            _ => return None,
        };
        Some(Cutter { codec, mode, size, pictures: 0, since_key: 0, tl0_pic_idx: 0 })
    }

    /// Width and height of the highest layer.
    pub(crate) fn size(&self) -> (u16, u16) {
        self.size
    }

    /// The payloads of the next picture, and which of them belong to which layer frame.
    pub(crate) fn cut(
        &mut self,
        data: &[u8],
        keyframe: bool,
    ) -> Result<(Payloads, Picture), ClipProblem> {
        let (index, mode) = (self.pictures as u64, self.mode);
        let bad = |reason| ClipProblem::NotScalable { index, mode, reason };
        self.since_key = if keyframe { 0 } else { self.since_key + 1 };
        let temporal_id = mode.temporal_id(self.since_key);
        let frames = match self.codec {
            Codec::Vp9 => vp9::layer_frames(data).ok_or("its superframe index is broken"),
            _ => av1::layer_frames(data, temporal_id),
        };
        let frames = frames.map_err(bad)?;
        if frames.len() != mode.spatial_layers() {
            return Err(bad("it has not a frame of each spatial layer"));
        }
        let numbers = ((self.pictures & 0x7fff) as u16, self.base_index(temporal_id));
        self.pictures += 1;
        let mut packets = Vec::new();
        let mut ends = Vec::new();
        for (spatial_id, frame) in frames.iter().enumerate() {
            packets.extend(self.payloads(frame, spatial_id, temporal_id, numbers));
            ends.push(packets.len());
        }
        Ok((packets, Picture { since_key: self.since_key, ends }))
    }

    fn base_index(&mut self, temporal_id: u8) -> u8 {
        if temporal_id > 0 {
            return self.tl0_pic_idx.wrapping_sub(1);
        }
        self.tl0_pic_idx = self.tl0_pic_idx.wrapping_add(1);
        self.tl0_pic_idx.wrapping_sub(1)
    }

    fn payloads(
        &self,
        frame: &[u8],
        spatial_id: usize,
        temporal_id: u8,
        (picture_id, tl0_pic_idx): (u16, u8),
    ) -> Vec<Arc<[u8]>> {
        let key_picture = self.since_key == 0;
        let first = key_picture && spatial_id == 0;
        let (width, height) = self.size;
        let reserved_bytes = match (key_picture, first) {
            (false, _) => 0,
            (true, false) => KEY_PICTURE_RESERVE_BYTES,
            (true, true) => {
                structure_bytes(self.mode, width, height).len() + KEY_PICTURE_RESERVE_BYTES
            }
        };
        let is_last = spatial_id + 1 == self.mode.spatial_layers();
        let ends = Ends { first: spatial_id == 0, last: is_last };
        if self.codec == Codec::Av1 {
            return packetize::av1_layer(frame, first, ends, reserved_bytes);
        }
        let structure = if first { self.vp9_structure() } else { Vec::new() };
        let layer = Vp9Layer {
            temporal_id,
            spatial_id: spatial_id as u8,
            key_picture,
            for_upper_layer: key_picture && !is_last,
            structure: &structure,
        };
        packetize::vp9_layer(frame, layer, picture_id, tl0_pic_idx, ends, reserved_bytes)
    }

    /// The scalability structure (RFC 9628 §4.2.1): sizes, and a group of four pictures.
    fn vp9_structure(&self) -> Vec<u8> {
        let sizes = self.mode.sizes(self.size.0, self.size.1);
        // N_S, Y, G.
        let mut bytes = vec![((sizes.len() - 1) as u8) << 5 | 0x18];
        for (width, height) in sizes {
            bytes.extend(width.to_be_bytes());
            bytes.extend(height.to_be_bytes());
        }
        // Temporal id, U, one reference each, so many pictures back.
        bytes.extend([4, 0x14, 4, 0x54, 1, 0x34, 2, 0x54, 1]);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dependency_descriptor::Descriptor;
    use crate::{MediaClip, builtin};

    /// Every packet says the same of itself in its payload and in its dependency descriptor.
    fn assert_told(clip: &MediaClip) {
        let layers = clip.scalability.as_ref().unwrap();
        let structure = layers.mode.structure(clip.width, clip.height);
        let mut base = 0;
        for (picture, frame) in clip.frames.iter().enumerate() {
            let mut longest = 0;
            for (packet, payload) in frame.packets.iter().enumerate() {
                let value = layers.descriptor(picture, packet, 7).unwrap();
                longest = longest.max(value.len() + payload.len());
                let descriptor = Descriptor::parse(&value, Some(&structure)).unwrap();
                let told = descriptor.frame;
                let temporal = u8::from(layers.is_base(picture));
                assert_eq!(temporal == 1, told.temporal_id == 0);
                let starts = descriptor.mandatory.start_of_frame;
                assert_eq!(descriptor.structure.is_some(), frame.keyframe && packet == 0);
                match clip.codec {
                    Codec::Vp9 => {
                        let read = vp9::Descriptor::parse(payload).unwrap();
                        assert_eq!(read.spatial_id, Some(told.spatial_id));
                        assert_eq!(read.temporal_id, Some(told.temporal_id));
                        assert_eq!(read.frame_start, starts);
                        assert_eq!(read.frame_end, descriptor.mandatory.end_of_frame);
                        assert_eq!(read.starts_keyframe(), frame.keyframe && packet == 0);
                        assert_eq!(read.picture_id, Some(picture as u16));
                        base += u8::from(read.starts_picture() && told.temporal_id == 0);
                        assert_eq!(read.tl0_pic_idx, Some(base - 1));
                    }
                    _ => {
                        let read = av1::Payload::parse(payload).unwrap();
                        assert_eq!(read.continues, !starts);
                        assert_eq!(read.new_sequence, frame.keyframe && packet == 0);
                        let extension = read.first_obu().and_then(|(_, extension)| extension);
                        if let Some(extension) = extension {
                            assert_eq!(extension >> 5, told.temporal_id);
                            assert_eq!(extension >> 3 & 3, told.spatial_id);
                        }
                    }
                }
            }
            assert!(longest <= packetize::PAYLOAD_BYTES_MAX + 3, "{longest}");
        }
    }

    #[test]
    fn built_in_clips_say_what_they_are() {
        for codec in [Codec::Vp9, Codec::Av1] {
            for mode in [ScalabilityMode::L1T3, ScalabilityMode::L3T3Key] {
                let clip = builtin::scalable_video(codec, mode).unwrap().unwrap();
                assert_eq!(clip.scalability.as_ref().map(|layers| layers.mode), Some(mode));
                let size = match mode {
                    ScalabilityMode::L1T3 => (640, 360),
                    ScalabilityMode::L3T3Key => (1280, 720),
                };
                assert_eq!((clip.codec, clip.width, clip.height), (codec, size.0, size.1));
                assert_eq!((clip.frames.len(), clip.frame_rate), (100, 25.0));
                assert_told(&clip);
            }
        }
        assert!(builtin::scalable_video(Codec::Vp8, ScalabilityMode::L1T3).unwrap().is_none());
    }

    #[test]
    fn what_is_not_divided_so_is_refused() {
        let mut cutter = Cutter::new(Codec::Vp9, ScalabilityMode::L3T3Key, (320, 180)).unwrap();
        assert_eq!(cutter.size(), (1280, 720));
        assert!(matches!(
            cutter.cut(&[0x82, 0x49, 0x83, 0x42], true),
            Err(ClipProblem::NotScalable { index: 0, .. })
        ));
        assert!(Cutter::new(Codec::Vp9, ScalabilityMode::L3T3Key, (40_000, 1)).is_none());
        assert!(Cutter::new(Codec::Vp8, ScalabilityMode::L1T3, (640, 360)).is_none());
    }
}
