//! AV1: by the dependency descriptor where the stream has one; else every temporal unit depends on
//! the one before, and a new coded video sequence (N) on none.

use stampede_media::av1::{self, Payload, obu};
use stampede_media::dependency_descriptor::{
    Descriptor, FrameDefinition, Mandatory, Structure, has_structure,
};

use super::{Cadence, Followed, Gap, Heights, LOST_FRAMES_MAX, Layer, SPATIAL_MAX, Window};
use crate::accounting::FramePacket;

/// Layer frames of a temporal unit: AV1 has at most four spatial layers.
const LAYER_FRAMES_MAX: usize = 4;
/// Longest descriptor kept until its structure is known. Those that name nothing but a template
/// have three bytes; one that is longer and brings no structure counts as unreadable.
const DESCRIPTOR_BYTES_MAX: usize = 24;

/// What a temporal unit's packets say.
#[derive(Debug, Default)]
pub(in crate::accounting) struct FrameInfo {
    /// The foremost packet that a temporal unit can begin with.
    start: Option<u64>,
    pub(super) keyframe: bool,
    frames: [Option<LayerFrame>; LAYER_FRAMES_MAX],
    structure: Option<Box<Structure>>,
    /// By the sequence header.
    height: Option<u16>,
}

/// A layer frame, by its descriptor.
#[derive(Debug, Clone, Copy)]
struct LayerFrame {
    number: u16,
    definition: Definition,
}

#[derive(Debug, Clone, Copy)]
enum Definition {
    Known(FrameDefinition),
    /// To be read in its turn, when the structure is known that came before.
    Pending([u8; DESCRIPTOR_BYTES_MAX], u8),
    Unreadable,
}

impl FrameInfo {
    pub(super) fn read(&mut self, packet: &FramePacket<'_>) {
        let mut starts = false;
        if let Some(Ok(payload)) = packet.payload.map(Payload::parse) {
            if payload.new_sequence {
                self.keyframe = true;
                let size = payload.elements().next().and_then(av1::sequence_size);
                self.height = size.map(|(_, height)| height);
            }
            starts = payload.new_sequence || payload.first_obu().is_some_and(can_start);
        }
        if let Some(bytes) = packet.dependency_descriptor {
            starts |= self.read_descriptor(bytes);
        }
        if starts && self.start.is_none_or(|start| packet.sequence < start) {
            self.start = Some(packet.sequence);
        }
    }

    /// True if a layer frame starts here.
    fn read_descriptor(&mut self, bytes: &[u8]) -> bool {
        let Ok(mandatory) = Mandatory::parse(bytes) else { return false };
        let number = mandatory.frame_number;
        let known =
            |frame: &&mut Option<LayerFrame>| frame.is_none_or(|frame| frame.number == number);
        let Some(frame) = self.frames.iter_mut().find(known) else { return false };
        let with_structure = has_structure(bytes);
        // What a frame's other packets say, its first one says too, and perhaps more.
        if frame.is_some() && !mandatory.start_of_frame && !with_structure {
            return false;
        }
        let definition = if with_structure {
            match Descriptor::parse(bytes, None) {
                Ok(descriptor) => {
                    self.structure = descriptor.structure;
                    self.keyframe |= descriptor.frame.dependencies.as_slice().is_empty()
                        && descriptor.frame.spatial_id == 0;
                    Definition::Known(descriptor.frame)
                }
                Err(_) => Definition::Unreadable,
            }
        } else {
            pending(bytes)
        };
        let better = |old: &LayerFrame| matches!(old.definition, Definition::Known(_));
        if !frame.as_ref().is_some_and(better) {
            *frame = Some(LayerFrame { number, definition });
        }
        mandatory.start_of_frame
    }

    /// The structure knows of each spatial layer, the sequence header of the largest.
    pub(super) fn heights(&self) -> Option<Heights> {
        let mut heights = [self.height.unwrap_or(0); SPATIAL_MAX];
        if let Some(structure) = &self.structure {
            for (place, (_, height)) in heights.iter_mut().zip(&structure.resolutions) {
                *place = u16::try_from(*height).unwrap_or(0);
            }
        }
        (heights[0] > 0).then_some(heights)
    }

    fn described(&self) -> impl Iterator<Item = &LayerFrame> {
        self.frames.iter().flatten()
    }
}

fn pending(bytes: &[u8]) -> Definition {
    let mut kept = [0; DESCRIPTOR_BYTES_MAX];
    match kept.get_mut(..bytes.len()) {
        Some(place) => {
            place.copy_from_slice(bytes);
            Definition::Pending(kept, bytes.len() as u8)
        }
        None => Definition::Unreadable,
    }
}

/// A temporal unit begins with one of these, in its lowest spatial layer; temporal delimiters are
/// not sent.
fn can_start((kind, extension): (u8, Option<u8>)) -> bool {
    let spatial_id = extension.map_or(0, |extension| extension >> 3 & 3);
    let first =
        matches!(kind, obu::SEQUENCE_HEADER | obu::FRAME_HEADER | obu::FRAME | obu::METADATA);
    first && spatial_id == 0
}

/// What is known of the decoder's references.
#[derive(Debug, Default)]
pub(in crate::accounting) struct References {
    structure: Option<Box<Structure>>,
    frames: Window,
    /// Extended number of the last layer frame judged.
    last_number: Option<u64>,
    /// The newest unit of the lowest temporal layer is decodable; without descriptors: the newest.
    pub(super) base: bool,
    pub(super) cadence: Cadence,
}

impl References {
    /// A unit does not start with a layer frame that depends on one below it. Where they depend on
    /// each other in key pictures only (K-SVC), a server sends of other units nothing below what is
    /// wanted.
    pub(super) fn start(&self, info: &FrameInfo) -> Option<u64> {
        let start = info.start?;
        let structure = info.structure.as_deref().or(self.structure.as_deref());
        // Without upper layers there is nothing to look up.
        if structure.is_none_or(|s| s.templates.iter().all(|template| template.spatial_id == 0)) {
            return Some(start);
        }
        let layers = info.described().filter_map(|frame| definition(frame, structure));
        let lowest = layers.min_by_key(|definition| definition.spatial_id);
        // The frames of a unit are numbered one after the other.
        let is_first = |definition: FrameDefinition| {
            let below = u16::from(definition.spatial_id);
            definition.dependencies.as_slice().iter().all(|&diff| diff > below)
        };
        lowest.is_none_or(is_first).then_some(start)
    }

    pub(super) fn judge(
        &mut self,
        info: &mut FrameInfo,
        timestamp: u32,
        complete: bool,
        gap: Gap,
    ) -> Followed {
        let described = info.described().next().is_some();
        if let Some(structure) = info.structure.take() {
            self.structure = Some(structure);
        }
        let lost = match gap {
            Gap::None => Some(0),
            _ => self.lost_before(info).or_else(|| self.cadence.lost_before(timestamp)),
        };
        let decodable = if described {
            self.judge_described(info, complete)
        } else {
            let decodable = complete && (info.keyframe || (self.base && lost == Some(0)));
            self.base = decodable;
            decodable
        };
        self.cadence.judge(timestamp, gap);
        Followed { lost: lost.unwrap_or(gap.least()), decodable }
    }

    /// Of a unit that has been judged; temporal layers are not known without descriptors.
    pub(super) fn layer(&self, info: &FrameInfo) -> Layer {
        let structure = self.structure.as_deref();
        let known = info.described().filter_map(|frame| definition(frame, structure));
        known.fold(Layer::default(), |layer, known| Layer {
            spatial: layer.spatial.max(known.spatial_id),
            temporal: layer.temporal.max(Some(known.temporal_id)),
        })
    }

    /// Layer frames missing before this unit. Where a server may leave layers out, their numbers
    /// say nothing.
    fn lost_before(&self, info: &FrameInfo) -> Option<u64> {
        let single = self.structure.as_ref()?.decode_targets == 1;
        let number = info.described().next().filter(|_| single)?.number;
        let step = self.frames.extend(number, 16).checked_sub(self.last_number?)?;
        (1..=LOST_FRAMES_MAX).contains(&step).then(|| step - 1)
    }

    fn judge_described(&mut self, info: &FrameInfo, complete: bool) -> bool {
        if info.keyframe && complete {
            self.frames.clear();
        }
        let mut layers = [None; LAYER_FRAMES_MAX];
        for (place, frame) in layers.iter_mut().zip(info.described()) {
            let number = self.frames.extend(frame.number, 16);
            *place = Some((number, definition(frame, self.structure.as_deref())));
        }
        // Upper layers refer to lower ones of the same unit.
        layers.sort_unstable_by_key(|layer| layer.map_or(u64::MAX, |(number, _)| number));
        let (mut all, mut temporal_id) = (true, 0);
        for (number, definition) in layers.into_iter().flatten() {
            let there = |diff: &u16| {
                let referred = number.checked_sub(u64::from(*diff));
                referred.is_some_and(|referred| self.frames.is_decodable(referred))
            };
            let references = definition
                .is_some_and(|definition| definition.dependencies.as_slice().iter().all(there));
            let decodable = complete && references;
            self.frames.set(number, decodable);
            self.last_number = Some(number);
            all &= decodable;
            temporal_id = temporal_id.max(definition.map_or(0, |known| known.temporal_id));
        }
        if temporal_id == 0 {
            self.base = all;
        }
        all
    }

    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        let Some(structure) = &self.structure else { return 0 };
        size_of::<Structure>() + size_of_val(&structure.templates[..])
    }
}

fn definition(frame: &LayerFrame, structure: Option<&Structure>) -> Option<FrameDefinition> {
    match &frame.definition {
        Definition::Known(definition) => Some(*definition),
        Definition::Pending(bytes, len) => {
            let bytes = bytes.get(..usize::from(*len))?;
            Descriptor::parse(bytes, structure).ok().map(|descriptor| descriptor.frame)
        }
        Definition::Unreadable => None,
    }
}
