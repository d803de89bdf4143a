//! VP8: by TL0PICIDX, TID and Y where present, else by picture id, else by sequence numbers
//! (RFC 7741).

use stampede_media::vp8;

use super::{Followed, Gap, LOST_FRAMES_MAX};
use crate::accounting::FramePacket;

/// What a frame's packets say.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::accounting) struct FrameInfo {
    pub(super) start: Option<u64>,
    pub(super) keyframe: bool,
    /// It is never shown (`show_frame`, RFC 6386 §9.1).
    pub(super) hidden: bool,
    pub(super) height: Option<u16>,
    descriptor: Option<vp8::Descriptor>,
}

impl FrameInfo {
    pub(super) fn read(&mut self, packet: &FramePacket<'_>) {
        let Some(payload) = packet.payload else { return };
        let Ok(descriptor) = vp8::Descriptor::parse(payload) else { return };
        if descriptor.starts_frame() {
            self.start = Some(packet.sequence);
            let frame = payload.get(descriptor.len..).unwrap_or_default();
            self.hidden = !vp8::is_shown(frame);
            if vp8::is_keyframe(frame) {
                self.keyframe = true;
                self.height = vp8::keyframe_size(frame).map(|(_, height)| height);
            }
        }
        self.descriptor = Some(descriptor);
    }

    pub(super) fn temporal_id(&self) -> Option<u8> {
        self.descriptor?.temporal_id
    }
}

/// What is known of the decoder's references.
#[derive(Debug, Default)]
pub(in crate::accounting) struct References {
    /// The newest base-layer frame is decodable.
    pub(super) base: bool,
    /// So are all frames of higher temporal layers since the last sync.
    upper: bool,
    base_index: Option<u8>,
    /// Of the last frame judged, whatever became of it.
    picture_id: Option<u16>,
}

impl References {
    pub(super) fn judge(&mut self, info: &FrameInfo, complete: bool, gap: Gap) -> Followed {
        let lost = if gap == Gap::None { Some(0) } else { self.frames_between(info) };
        if lost != Some(0) {
            self.lose(info);
        }
        let decodable = complete && self.is_decodable(info, lost == Some(0));
        self.update(info, decodable);
        self.remember(info);
        Followed { lost: lost.unwrap_or(gap.least()), decodable }
    }

    pub(super) fn remember(&mut self, info: &FrameInfo) {
        if let Some(descriptor) = info.descriptor {
            self.picture_id = descriptor.picture_id;
        }
    }

    /// How many frames were lost whole before this one; `None` if it can't be known.
    fn frames_between(&self, info: &FrameInfo) -> Option<u64> {
        let descriptor = info.descriptor?;
        let (before, now) = (self.picture_id?, descriptor.picture_id?);
        let mask = if descriptor.picture_id_wide { 0x7fff } else { 0x7f };
        let step = u64::from(now.wrapping_sub(before) & mask);
        (1..=LOST_FRAMES_MAX).contains(&step).then(|| step - 1)
    }

    /// Frames were lost whole before this one: of the base layer too, unless TL0PICIDX denies it.
    fn lose(&mut self, info: &FrameInfo) {
        self.upper = false;
        let Some(descriptor) = info.descriptor else { return };
        if let (Some(tid), Some(index)) = (descriptor.temporal_id, descriptor.tl0_pic_idx) {
            let expected = if tid == 0 { index.wrapping_sub(1) } else { index };
            self.base &= self.base_index == Some(expected);
        }
    }

    fn is_decodable(&self, info: &FrameInfo, nothing_lost: bool) -> bool {
        if info.keyframe {
            return true;
        }
        let layers = info.descriptor.and_then(|descriptor| {
            Some((descriptor.temporal_id?, descriptor.tl0_pic_idx?, descriptor.layer_sync))
        });
        match layers {
            None => self.base && self.upper && nothing_lost,
            Some((0, index, _)) => {
                self.base && (nothing_lost || self.base_index == Some(index.wrapping_sub(1)))
            }
            Some((_, index, sync)) => {
                let base_known = nothing_lost || self.base_index == Some(index);
                self.base && base_known && (sync || (self.upper && nothing_lost))
            }
        }
    }

    fn update(&mut self, info: &FrameInfo, decodable: bool) {
        let descriptor = info.descriptor.unwrap_or_default();
        let upper_layer = descriptor.temporal_id.unwrap_or(0) > 0;
        if decodable {
            if info.keyframe || (upper_layer && descriptor.layer_sync) {
                self.upper = true;
            }
            if !upper_layer {
                self.base = true;
                self.base_index = descriptor.tl0_pic_idx;
            }
        } else if upper_layer {
            self.upper = false;
        } else if !(descriptor.non_reference && info.descriptor.is_some()) {
            self.base = false;
        }
    }
}
