//! VP9 (RFC 9628): by the references that each picture names (flexible mode), or that the
//! scalability structure names for it; else by TL0PICIDX and temporal layers; else every picture
//! depends on the one before.

use stampede_media::vp9::{Descriptor, GroupPicture, Structure, frame_header};

use super::{Followed, Gap, Heights, LOST_FRAMES_MAX, Layer, Window};
use crate::accounting::FramePacket;

/// Pictures that one picture names at most, all its spatial layers together; more are not kept.
const NAMED_MAX: usize = 9;
/// A step of the picture id of up to this many is taken for layers that a server left out.
const LEFT_OUT_MAX: u64 = 16;

/// What a picture's packets say. A picture is everything of one timestamp: its spatial layers.
#[derive(Debug, Default)]
pub(in crate::accounting) struct FrameInfo {
    pub(super) start: Option<u64>,
    pub(super) keyframe: bool,
    /// Whether one of its frames is shown, as far as their beginnings say so; `None` before one came.
    shown: Option<bool>,
    /// It ends as a superframe does, in which one that is shown may follow one that is not.
    superframe: bool,
    descriptor: Option<Descriptor>,
    named: [u8; NAMED_MAX],
    named_count: usize,
    structure: Option<Structure>,
    /// The highest spatial layer of which something came.
    top: u8,
    /// By the header of the frame that needs no other one, and of which spatial layer that is: the
    /// lowest, but in one of several streams of a track (`vp9::set_spatial_id`).
    height: Option<(u8, u16)>,
}

impl FrameInfo {
    pub(super) fn read(&mut self, packet: &FramePacket<'_>) {
        let Some(payload) = packet.payload else { return };
        let Ok(descriptor) = Descriptor::parse(payload) else { return };
        // Where spatial layers depend on each other in key pictures only (K-SVC), a server sends of
        // the others nothing below what is wanted.
        if descriptor.frame_start && !descriptor.inter_layer {
            let known = self.start.unwrap_or(packet.sequence);
            self.start = Some(known.min(packet.sequence));
        }
        let header = payload.get(descriptor.len..).filter(|_| descriptor.frame_start);
        let header = header.and_then(|data| frame_header(data).ok());
        if let Some(header) = header {
            self.shown = Some(header.shown || self.shown.unwrap_or(false));
        }
        // Annex B of the bitstream specification.
        self.superframe |=
            descriptor.frame_end && payload.last().is_some_and(|marker| marker & 0xe0 == 0xc0);
        if descriptor.starts_keyframe() {
            self.keyframe = true;
            let spatial_id = descriptor.spatial_id.unwrap_or(0);
            self.height =
                header.and_then(|header| header.size).map(|(_, height)| (spatial_id, height));
        }
        self.top = self.top.max(descriptor.spatial_id.unwrap_or(0));
        for &diff in descriptor.references.as_slice() {
            if self.named_count < NAMED_MAX && !self.named().contains(&diff) {
                self.named[self.named_count] = diff;
                self.named_count += 1;
            }
        }
        if let Some(at) = descriptor.structure_at {
            self.structure = payload.get(at..).and_then(Structure::parse);
        }
        // The lowest spatial layer speaks for the picture.
        let lower = |known: Descriptor| known.spatial_id > descriptor.spatial_id;
        if self.descriptor.is_none_or(lower) {
            self.descriptor = Some(descriptor);
        }
    }

    /// The scalability structure knows of all spatial layers, the header of the lowest alone.
    pub(super) fn heights(&self) -> Option<Heights> {
        let mut heights = Heights::default();
        if let Some((spatial_id, height)) = self.height
            && let Some(place) = heights.get_mut(usize::from(spatial_id))
        {
            *place = height;
        }
        if let Some(structure) = &self.structure {
            for (place, (_, height)) in heights.iter_mut().zip(&structure.sizes) {
                *place = *height;
            }
        }
        heights.iter().any(|height| *height > 0).then_some(heights)
    }

    pub(super) fn hidden(&self) -> bool {
        self.shown == Some(false) && !self.superframe
    }

    pub(super) fn layer(&self) -> Layer {
        let temporal = self.descriptor.and_then(|descriptor| descriptor.temporal_id);
        Layer { spatial: self.top, temporal }
    }

    fn named(&self) -> &[u8] {
        &self.named[..self.named_count]
    }
}

/// What is known of the decoder's references.
#[derive(Debug, Default)]
pub(in crate::accounting) struct References {
    pictures: Window,
    /// Of the last picture judged, extended.
    last_id: Option<u64>,
    /// Picture group of the latest scalability structure, and the picture it began with.
    group: Vec<GroupPicture>,
    group_at: u64,
    /// The newest picture of the lowest temporal layer is decodable.
    pub(super) base: bool,
    /// So are all of higher ones since the last switching point.
    upper: bool,
    base_index: Option<u8>,
    /// Numbers are left out without loss: a server drops temporal layers.
    sparse: bool,
}

impl References {
    pub(super) fn judge(&mut self, info: &mut FrameInfo, complete: bool, gap: Gap) -> Followed {
        let descriptor = info.descriptor.unwrap_or_default();
        let bits = if descriptor.picture_id_wide { 15 } else { 7 };
        let mut id = descriptor.picture_id.map(|id| self.pictures.extend(id, bits));
        let lost = self.lost_before(id, gap);
        if lost != Some(0) {
            self.lose(&descriptor);
        }
        self.check_group(info, &descriptor, id, complete);
        let decodable = complete
            && (info.keyframe || self.is_decodable(info, &descriptor, id, lost == Some(0)));
        if info.keyframe && decodable {
            self.pictures.clear();
            id = descriptor.picture_id.map(|id| self.pictures.extend(id, bits));
        }
        if let (Some(structure), Some(id)) = (info.structure.take(), id) {
            (self.group, self.group_at) = (structure.group, id);
        }
        if let Some(id) = id {
            self.pictures.set(id, decodable);
            self.last_id = Some(id);
        }
        self.update(info.keyframe, &descriptor, decodable);
        Followed { lost: lost.unwrap_or(gap.least()), decodable }
    }

    /// The number of a picture of which nothing else is known.
    pub(super) fn remember(&mut self, info: &FrameInfo) {
        let descriptor = info.descriptor.unwrap_or_default();
        let bits = if descriptor.picture_id_wide { 15 } else { 7 };
        self.last_id = descriptor.picture_id.map(|id| self.pictures.extend(id, bits));
        if let Some(id) = self.last_id {
            self.pictures.set(id, false);
        }
    }

    /// Pictures missing before this one; `None` if it can't be known.
    fn lost_before(&mut self, id: Option<u64>, gap: Gap) -> Option<u64> {
        let step = id.zip(self.last_id).and_then(|(id, last)| id.checked_sub(last));
        if gap == Gap::None {
            self.sparse |= step.is_some_and(|step| (2..=LEFT_OUT_MAX).contains(&step));
            return Some(0);
        }
        match step? {
            0 => None,
            step if step == 1 || (!self.sparse && step <= LOST_FRAMES_MAX) => Some(step - 1),
            _ => None,
        }
    }

    /// As VP8's: the lowest layer too, unless TL0PICIDX denies it.
    fn lose(&mut self, descriptor: &Descriptor) {
        self.upper = false;
        let index = descriptor.tl0_pic_idx;
        let expected = match descriptor.temporal_id {
            Some(0) => index.map(|index| index.wrapping_sub(1)),
            _ => index,
        };
        if expected.is_some() {
            self.base &= self.base_index == expected;
        }
    }

    fn is_decodable(
        &self,
        info: &FrameInfo,
        descriptor: &Descriptor,
        id: Option<u64>,
        nothing_lost: bool,
    ) -> bool {
        let all = |id: u64, diffs: &[u8]| {
            let mut referred = diffs.iter().map(|&diff| id.checked_sub(diff.into()));
            referred.all(|id| id.is_some_and(|id| self.pictures.is_decodable(id)))
        };
        if let Some(id) = id.filter(|_| descriptor.flexible && info.named_count > 0) {
            return all(id, info.named());
        }
        if let Some((id, picture)) = id.zip(self.of_group(id))
            && !descriptor.flexible
            && !picture.references.as_slice().is_empty()
        {
            return all(id, picture.references.as_slice());
        }
        match (descriptor.temporal_id, descriptor.tl0_pic_idx) {
            (Some(0), Some(index)) => {
                self.base && (nothing_lost || self.base_index == Some(index.wrapping_sub(1)))
            }
            (Some(_), Some(index)) => {
                let base_known = nothing_lost || self.base_index == Some(index);
                self.base && base_known && self.upper && nothing_lost
            }
            _ => self.base && self.upper && nothing_lost,
        }
    }

    /// Forgets the picture group where its beginning is not known any more: a new one may have begun
    /// with a key picture of which a packet is missing, or with a picture that was lost, which shows
    /// by temporal layers that are not in their places.
    fn check_group(
        &mut self,
        info: &FrameInfo,
        descriptor: &Descriptor,
        id: Option<u64>,
        complete: bool,
    ) {
        let misplaced = self.of_group(id).is_some_and(|picture| {
            descriptor.temporal_id.is_some_and(|temporal_id| temporal_id != picture.temporal_id)
        });
        let key_picture = !descriptor.inter_predicted && info.structure.is_none();
        if (misplaced && info.structure.is_none()) || (key_picture && !complete) {
            self.group.clear();
        }
    }

    /// The picture's place in the picture group.
    fn of_group(&self, id: Option<u64>) -> Option<&GroupPicture> {
        let since = id?.checked_sub(self.group_at)?;
        let length = u64::try_from(self.group.len()).ok().filter(|&length| length > 0)?;
        self.group.get((since % length) as usize)
    }

    fn update(&mut self, keyframe: bool, descriptor: &Descriptor, decodable: bool) {
        let upper_layer = descriptor.temporal_id.unwrap_or(0) > 0;
        if !decodable {
            let part = if upper_layer { &mut self.upper } else { &mut self.base };
            *part = false;
            return;
        }
        if !upper_layer {
            self.base = true;
            self.base_index = descriptor.tl0_pic_idx;
        }
        // U: what follows in higher layers refers to none of theirs before this one.
        let fresh = keyframe || (descriptor.switching_up && !upper_layer);
        self.upper |= fresh || descriptor.temporal_id.is_none();
    }

    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.group.capacity() * size_of::<GroupPicture>()
    }
}
