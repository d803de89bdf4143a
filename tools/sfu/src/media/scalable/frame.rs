//! What layer frame a publisher's packet belongs to.

use std::sync::Arc;

use stampede_media::dependency_descriptor::{Descriptor, Structure, URI};
use str0m::rtp::{Extension, ExtensionSerializer, ExtensionValues};

use crate::media::layers::Layer;

/// How far back a frame that another depends on can be to be looked for: more than any structure of
/// WebRTC's has (three spatial layers of three temporal ones: 12).
pub(super) const REACH: u16 = 64;

/// What a packet's descriptor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerFrame {
    /// Counts layer frames, wrapping.
    pub(super) number: u16,
    pub(crate) layer: Layer,
    /// It is the first packet of its frame.
    pub(crate) starts: bool,
    /// It is the last packet of its frame.
    pub(super) ends: bool,
    /// It begins a picture that depends on none.
    pub(super) key: bool,
    /// Decode targets that the frame belongs to, a bit each.
    pub(crate) present: u32,
    /// Decode targets that can begin here, if the frame can be decoded.
    pub(super) switch: u32,
    /// Frames that it depends on: bit `n` is the one `n + 1` before it. `None` if one is too far back.
    pub(super) needs: Option<u64>,
    /// The layer of each decode target.
    pub(crate) targets: Arc<[Layer]>,
    /// The extension's value.
    pub(crate) descriptor: Box<[u8]>,
}

impl LayerFrame {
    /// Of these decode targets, in one packet.
    #[cfg(test)]
    pub(crate) fn of(layer: Layer, present: u32, targets: Arc<[Layer]>) -> Self {
        Self {
            number: 0,
            layer,
            starts: true,
            ends: true,
            key: false,
            present,
            switch: 0,
            needs: Some(0),
            targets,
            descriptor: Box::default(),
        }
    }

    /// Whether its picture depends on none, and this packet is the first of it.
    pub(crate) fn begins_keyframe(&self) -> bool {
        self.key && self.starts
    }
}

/// The structure that a publisher's descriptors are read by.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    structure: Option<(Box<Structure>, Arc<[Layer]>)>,
}

impl Descriptors {
    /// Reads a packet's descriptor; `None` if it can't be read, or its structure has not come.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Option<Arc<LayerFrame>> {
        let known = self.structure.as_ref().map(|(structure, _)| &**structure);
        let read = Descriptor::parse(bytes, known).ok()?;
        let key = read.structure.is_some();
        if let Some(structure) = read.structure {
            let layers = structure.target_layers().into_iter();
            let layers = layers.map(|(spatial, temporal)| Layer { spatial, temporal });
            self.structure = Some((structure, layers.collect()));
        }
        let (_, targets) = self.structure.as_ref()?;
        let frame = read.frame;
        let needs = frame.dependencies.as_slice().iter().try_fold(0, |needs, &diff| {
            (1..=REACH).contains(&diff).then(|| needs | 1u64 << (diff - 1))
        });
        Some(Arc::new(LayerFrame {
            number: read.mandatory.frame_number,
            layer: Layer { spatial: frame.spatial_id, temporal: frame.temporal_id },
            starts: read.mandatory.start_of_frame,
            ends: read.mandatory.end_of_frame,
            key,
            present: frame.indications.present,
            switch: frame.indications.switch,
            needs,
            targets: targets.clone(),
            descriptor: bytes.into(),
        }))
    }
}

/// The value of a packet's descriptor, as str0m has read it.
#[derive(Debug)]
pub(crate) struct DescriptorValue(pub(crate) Box<[u8]>);

#[derive(Debug)]
struct Serializer;

/// For [`str0m::rtp::ExtensionMap`].
pub(crate) fn extension() -> Extension {
    Extension::with_serializer(URI, Serializer)
}

impl ExtensionSerializer for Serializer {
    /// What is sent does not go through str0m.
    fn write_to(&self, _: &mut [u8], _: &ExtensionValues) -> usize {
        0
    }

    fn parse_value(&self, bytes: &[u8], values: &mut ExtensionValues) -> bool {
        values.user_values.set(DescriptorValue(bytes.into()));
        true
    }

    fn is_video(&self) -> bool {
        true
    }

    fn is_audio(&self) -> bool {
        false
    }
}
