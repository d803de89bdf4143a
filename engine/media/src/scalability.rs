//! Scalable video coding: which layer frames a picture consists of, what each of them depends on, and
//! how a publisher tells it by dependency descriptors.
//!
//! Modes have their names from W3C's "Scalable Video Coding (SVC) Extension for WebRTC" §6; template
//! structures are libwebrtc's (modules/video_coding/svc/scalability_structure_key_svc.cc and
//! scalability_structure_full_svc.cc), so that a server gets what browsers send it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::dependency_descriptor::{Descriptor, Mandatory, Structure, Template};

/// Temporal layers of every mode here: pictures are of layers 0, 2, 1, 2, and so on.
const TEMPORAL_LAYERS: usize = 3;
/// Templates of a spatial layer: a keyframe's, and those of the pictures of a period. They are
/// ordered by temporal layer.
const TEMPLATES_A_LAYER: usize = 5;
/// Pictures of a period: after so many the temporal layers repeat themselves.
const PERIOD: usize = 4;
/// Decode target indications.
const NOT_PRESENT: u8 = 0;
const DISCARDABLE: u8 = 1;
const SWITCH: u8 = 2;

/// How a stream is divided into layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScalabilityMode {
    /// One spatial layer of three temporal ones.
    L1T3,
    /// Three spatial layers, each half as wide and high as the next, of three temporal ones. A
    /// spatial layer depends on the one below in key pictures only. livekit-client publishes VP9 and
    /// AV1 so unless it is told otherwise.
    L3T3Key,
}

/// A text names no mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("use L1T3 or L3T3_KEY")]
pub struct ScalabilityModeError;

impl fmt::Display for ScalabilityMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::L1T3 => "L1T3",
            Self::L3T3Key => "L3T3_KEY",
        })
    }
}

impl FromStr for ScalabilityMode {
    type Err = ScalabilityModeError;

    fn from_str(text: &str) -> Result<Self, ScalabilityModeError> {
        let modes = [Self::L1T3, Self::L3T3Key];
        let named = |mode: &Self| mode.to_string().eq_ignore_ascii_case(text.trim());
        modes.into_iter().find(named).ok_or(ScalabilityModeError)
    }
}

impl ScalabilityMode {
    /// Spatial layers.
    pub const fn spatial_layers(self) -> usize {
        match self {
            Self::L1T3 => 1,
            Self::L3T3Key => 3,
        }
    }

    /// The temporal layer of a picture, by how many lie between it and the key picture before it.
    pub const fn temporal_id(self, since_key: usize) -> u8 {
        [0, 2, 1, 2][since_key % PERIOD]
    }

    /// Sizes of the spatial layers, low to high, of a picture of this size.
    pub fn sizes(self, width: u16, height: u16) -> Vec<(u16, u16)> {
        let layers = self.spatial_layers();
        (0..layers).rev().map(|below| (width >> below, height >> below)).collect()
    }

    /// The template structure, for pictures of this size.
    pub fn structure(self, width: u16, height: u16) -> Structure {
        let layers = self.spatial_layers();
        let targets = layers * TEMPORAL_LAYERS;
        let places = (0..layers).flat_map(|spatial| {
            [Place::Key, Place::In(0), Place::In(2), Place::In(1), Place::In(3)]
                .map(|place| (spatial, place))
        });
        let sizes = self.sizes(width, height).into_iter();
        Structure {
            template_id_offset: 0,
            decode_targets: targets as u8,
            templates: places.map(|(spatial, place)| self.template(spatial, place)).collect(),
            protected_by: (0..targets).map(|target| (target / TEMPORAL_LAYERS) as u8).collect(),
            chains: layers as u8,
            resolutions: sizes.map(|(width, height)| (width.into(), height.into())).collect(),
        }
    }

    fn template(self, spatial: usize, place: Place) -> Template {
        let layers = self.spatial_layers();
        let at = match place {
            Place::Key => 0,
            Place::In(at) => at,
        };
        let temporal_id = self.temporal_id(at);
        let mut template = Template {
            spatial_id: spatial as u8,
            temporal_id,
            indications: (0..layers * TEMPORAL_LAYERS)
                .map(|target| indication(spatial, place, temporal_id, target))
                .collect(),
            ..Template::default()
        };
        let pictures_back = match place {
            Place::Key => None,
            Place::In(0) => Some(PERIOD),
            Place::In(2) => Some(2),
            Place::In(_) => Some(1),
        };
        let diff = match pictures_back {
            Some(pictures) => Some(pictures * layers),
            // In a key picture the layer below.
            None => (spatial > 0).then_some(1),
        };
        if let Some(diff) = diff {
            // One fits in.
            let _ = template.dependencies.push(diff as u16);
        }
        template.chain_diffs = (0..layers)
            .map(|chain| match place {
                Place::Key if spatial == 0 => 0,
                Place::Key => spatial - chain.min(spatial - 1),
                Place::In(0) if chain >= spatial => PERIOD * layers + spatial - chain,
                Place::In(at) => at * layers + spatial - chain,
            })
            .map(|diff| diff as u8)
            .collect();
        template
    }
}

/// Where in a period a picture is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Key,
    In(usize),
}

/// Decode targets are ordered as layers are: temporal ones within each spatial one.
fn indication(spatial: usize, place: Place, temporal_id: u8, target: usize) -> u8 {
    let (wants_spatial, wants_temporal) = (target / TEMPORAL_LAYERS, target % TEMPORAL_LAYERS);
    let needed = match place {
        Place::Key => wants_spatial >= spatial,
        Place::In(_) => wants_spatial == spatial,
    };
    match usize::from(temporal_id) {
        temporal_id if !needed || wants_temporal < temporal_id => NOT_PRESENT,
        0 => SWITCH,
        temporal_id if wants_temporal == temporal_id => DISCARDABLE,
        _ => SWITCH,
    }
}

/// How the pictures of a clip are divided into layer frames.
#[derive(Debug, Clone)]
pub struct Scalability {
    /// The mode.
    pub mode: ScalabilityMode,
    /// Sizes of the spatial layers, low to high.
    pub sizes: Vec<(u16, u16)>,
    /// Of each picture, in the clip's order.
    pictures: Vec<Picture>,
    /// What a key picture's first descriptor has behind its first fields.
    structure: Arc<[u8]>,
}

/// How a picture is divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    /// Pictures since the last key picture.
    pub(crate) since_key: usize,
    /// For each layer frame, how many of the picture's packets it and those before it have.
    pub(crate) ends: Vec<usize>,
}

impl Scalability {
    pub(crate) fn new(
        mode: ScalabilityMode,
        (width, height): (u16, u16),
        pictures: Vec<Picture>,
    ) -> Scalability {
        Scalability {
            mode,
            sizes: mode.sizes(width, height),
            pictures,
            structure: structure_bytes(mode, width, height).into(),
        }
    }

    /// True if a picture is of the lowest temporal layer.
    pub fn is_base(&self, picture: usize) -> bool {
        self.pictures.get(picture).is_some_and(|it| self.mode.temporal_id(it.since_key) == 0)
    }

    /// For each layer frame of a picture, how many of its packets it and those before it have.
    pub(crate) fn ends(&self, picture: usize) -> &[usize] {
        self.pictures.get(picture).map_or(&[], |picture| &picture.ends)
    }

    /// Layer frames of a picture: so many frame numbers it takes.
    pub fn layer_frames(&self) -> u16 {
        self.mode.spatial_layers() as u16
    }

    /// The value of the dependency descriptor of a picture's packet. `number` is the frame number of
    /// the picture's first layer frame. `None` if there is no such packet.
    pub fn descriptor(&self, picture: usize, packet: usize, number: u16) -> Option<Vec<u8>> {
        let Picture { since_key, ends } = self.pictures.get(picture)?;
        let spatial = ends.iter().position(|&end| packet < end)?;
        let start = spatial.checked_sub(1).and_then(|below| ends.get(below)).copied();
        let template = match since_key {
            0 => 0,
            since => [1, 3, 2, 4][since % PERIOD],
        };
        let mandatory = Mandatory {
            start_of_frame: packet == start.unwrap_or(0),
            end_of_frame: Some(&(packet + 1)) == ends.get(spatial),
            template_id: (spatial * TEMPLATES_A_LAYER) as u8 + template,
            frame_number: number.wrapping_add(spatial as u16),
        };
        let mut bytes = Descriptor::write(mandatory, None);
        if *since_key == 0 && packet == 0 {
            bytes.extend_from_slice(&self.structure);
        }
        Some(bytes)
    }
}

/// What a key picture's first descriptor has behind its first fields.
pub(crate) fn structure_bytes(mode: ScalabilityMode, width: u16, height: u16) -> Vec<u8> {
    let any =
        Mandatory { start_of_frame: true, end_of_frame: true, template_id: 0, frame_number: 0 };
    let mut bytes = Descriptor::write(any, Some(&mode.structure(width, height)));
    bytes.drain(..crate::dependency_descriptor::MANDATORY_BYTES);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Dtis("SS-")` as libwebrtc writes it.
    fn indications(text: &str) -> Vec<u8> {
        let number = |c| "-DSR".find(c).unwrap() as u8;
        text.chars().map(number).collect()
    }

    #[test]
    fn structures_are_libwebrtcs() {
        let structure = ScalabilityMode::L3T3Key.structure(1280, 720);
        // scalability_structure_key_svc.cc, `ScalabilityStructureL3T3Key::DependencyStructure`.
        type Row = (u8, u8, &'static str, [u8; 3], Option<u16>);
        let expected: [Row; 15] = [
            (0, 0, "SSSSSSSSS", [0, 0, 0], None),
            (0, 0, "SSS------", [12, 11, 10], Some(12)),
            (0, 1, "-DS------", [6, 5, 4], Some(6)),
            (0, 2, "--D------", [3, 2, 1], Some(3)),
            (0, 2, "--D------", [9, 8, 7], Some(3)),
            (1, 0, "---SSSSSS", [1, 1, 1], Some(1)),
            (1, 0, "---SSS---", [1, 12, 11], Some(12)),
            (1, 1, "----DS---", [7, 6, 5], Some(6)),
            (1, 2, "-----D---", [4, 3, 2], Some(3)),
            (1, 2, "-----D---", [10, 9, 8], Some(3)),
            (2, 0, "------SSS", [2, 1, 1], Some(1)),
            (2, 0, "------SSS", [2, 1, 12], Some(12)),
            (2, 1, "-------DS", [8, 7, 6], Some(6)),
            (2, 2, "--------D", [5, 4, 3], Some(3)),
            (2, 2, "--------D", [11, 10, 9], Some(3)),
        ];
        for (template, (spatial, temporal, dtis, chains, diff)) in
            structure.templates.iter().zip(expected)
        {
            assert_eq!((template.spatial_id, template.temporal_id), (spatial, temporal));
            assert_eq!(template.indications, indications(dtis));
            assert_eq!(template.chain_diffs, chains);
            assert_eq!(template.dependencies.as_slice(), diff.as_slice());
        }
        assert_eq!(structure.templates.len(), 15);
        assert_eq!(structure.protected_by, [0, 0, 0, 1, 1, 1, 2, 2, 2]);
        assert_eq!(structure.resolutions, [(320, 180), (640, 360), (1280, 720)]);
        // scalability_structure_full_svc.cc, `ScalabilityStructureL1T3::DependencyStructure`.
        let structure = ScalabilityMode::L1T3.structure(640, 360);
        let chains: Vec<_> =
            structure.templates.iter().flat_map(|t| t.chain_diffs.clone()).collect();
        assert_eq!(chains, [0, 4, 2, 1, 3]);
        let dtis = ["SSS", "SSS", "-DS", "--D", "--D"].map(indications);
        assert!(structure.templates.iter().map(|t| &t.indications).eq(&dtis));
        let diffs: Vec<_> =
            structure.templates.iter().flat_map(|t| t.dependencies.as_slice().to_vec()).collect();
        assert_eq!(diffs, [4, 2, 1, 1]);
    }

    /// The first packet of a key picture of Chromium 156, as livekit-client 2.23 publishes VP9 and a
    /// 720p camera, and the picture that follows.
    #[test]
    fn chromium_tells_the_same() {
        const KEY: &str = "80000f80081485214eaaaaa8000600004000100002aa80a8000600004000100002a000a80006\
            0000400016d549241b5524906d54923157e001974ca864330e222396eca8655304224390eca87753013f00b3\
            027f016704ff02cf";
        let digits: Vec<u8> = KEY.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
        let key: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        let picture = |since_key, ends: [usize; 3]| Picture { since_key, ends: ends.to_vec() };
        let pictures = vec![picture(0, [2, 6, 12]), picture(1, [1, 2, 4])];
        let own = Scalability::new(ScalabilityMode::L3T3Key, (1280, 720), pictures);
        assert_eq!(own.descriptor(0, 0, 0x0f), Some(key));
        let next: Vec<_> = (0..4).map(|packet| own.descriptor(1, packet, 0x12).unwrap()).collect();
        assert_eq!(next, [[0xc3, 0, 0x12], [0xc8, 0, 0x13], [0x8d, 0, 0x14], [0x4d, 0, 0x14]]);
    }

    #[test]
    fn descriptors_tell_what_each_packet_is_part_of() {
        let picture = |since_key, ends: [usize; 3]| Picture { since_key, ends: ends.to_vec() };
        let pictures = vec![picture(0, [1, 3, 4]), picture(1, [1, 2, 3]), picture(6, [2, 3, 4])];
        let clip = Scalability::new(ScalabilityMode::L3T3Key, (1280, 720), pictures);
        let read = |picture, packet, known: Option<&Structure>| {
            let bytes = clip.descriptor(picture, packet, 0xffff).unwrap();
            Descriptor::parse(&bytes, known).unwrap()
        };
        let key = read(0, 0, None);
        let structure = *key.structure.unwrap();
        assert_eq!(structure, ScalabilityMode::L3T3Key.structure(1280, 720));
        let whole = |d: &Descriptor| (d.mandatory.start_of_frame, d.mandatory.end_of_frame);
        let known = Some(&structure);
        let ends: Vec<_> = (0..4).map(|packet| whole(&read(0, packet, known))).collect();
        assert_eq!(ends, [(true, true), (true, false), (false, true), (true, true)]);
        let upper = read(0, 2, known);
        assert_eq!((upper.mandatory.frame_number, upper.frame.spatial_id), (0, 1));
        assert_eq!(upper.frame.dependencies.as_slice(), [1]);
        assert!(upper.structure.is_none());
        let discardable = read(1, 2, known);
        assert_eq!((discardable.frame.spatial_id, discardable.frame.temporal_id), (2, 2));
        let middle = read(2, 1, known);
        assert_eq!((middle.frame.temporal_id, middle.mandatory.frame_number), (1, 0xffff));
        assert_eq!(middle.frame.dependencies.as_slice(), [6]);
        assert!(clip.descriptor(2, 4, 0).is_none() && clip.descriptor(3, 0, 0).is_none());
        assert!(clip.is_base(0) && !clip.is_base(1) && !clip.is_base(2));
    }

    #[test]
    fn modes_have_names() {
        for mode in [ScalabilityMode::L1T3, ScalabilityMode::L3T3Key] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert_eq!("l3t3_key".parse(), Ok(ScalabilityMode::L3T3Key));
        assert_eq!("L2T2".parse::<ScalabilityMode>(), Err(ScalabilityModeError));
    }
}
