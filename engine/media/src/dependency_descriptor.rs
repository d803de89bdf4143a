//! The dependency descriptor RTP header extension (Appendix A of "RTP Payload Format For AV1",
//! v1.0.0): which layer frame a packet belongs to, and which frames that one depends on.
//!
//! Written from the specification, because no kept crate reads it: the `rtp` crate and str0m leave
//! the extension alone.

use crate::bits::{BitReader, BitWriter};

/// URI of the extension in SDP.
pub const URI: &str =
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";
/// Most templates of a structure: their ids have six bits.
pub const TEMPLATES_MAX: usize = 64;
/// Most frames that one frame depends on. More than the specification's own structures have; a
/// descriptor with more is refused.
pub const DEPENDENCIES_MAX: usize = 8;
/// Length of the fields that every descriptor has.
pub const MANDATORY_BYTES: usize = 3;

/// How far back the frames are that a frame depends on, in frame numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dependencies {
    diffs: [u16; DEPENDENCIES_MAX],
    count: u8,
}

impl Dependencies {
    /// The distances, each 1 to 4,096.
    pub fn as_slice(&self) -> &[u16] {
        self.diffs.get(..usize::from(self.count)).unwrap_or_default()
    }

    /// Adds one; `None` if there is no room.
    pub fn push(&mut self, diff: u16) -> Option<()> {
        *self.diffs.get_mut(usize::from(self.count))? = diff;
        self.count += 1;
        Some(())
    }
}

/// What frames of one kind have in common.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template {
    /// Spatial layer.
    pub spatial_id: u8,
    /// Temporal layer.
    pub temporal_id: u8,
    /// Decode target indications: for each decode target 0 not present, 1 discardable, 2 switch,
    /// 3 required.
    pub indications: Vec<u8>,
    /// What the frame depends on.
    pub dependencies: Dependencies,
    /// For each chain, how far back its previous frame is.
    pub chain_diffs: Vec<u8>,
}

/// The template dependency structure; comes with keyframes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Structure {
    /// Template id of the first template.
    pub template_id_offset: u8,
    /// Decode targets, 1 to 32.
    pub decode_targets: u8,
    /// 1 to [`TEMPLATES_MAX`], ordered by layer: temporal layers within each spatial layer.
    pub templates: Vec<Template>,
    /// For each decode target the chain that protects it; empty without chains.
    pub protected_by: Vec<u8>,
    /// Chains.
    pub chains: u8,
    /// Width and height of each spatial layer, where given: at most 65,536 each.
    pub resolutions: Vec<(u32, u32)>,
}

/// The fields that every descriptor begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mandatory {
    /// First packet of the layer frame.
    pub start_of_frame: bool,
    /// Last packet of the layer frame.
    pub end_of_frame: bool,
    /// Which template.
    pub template_id: u8,
    /// Counts layer frames, modulo 2^16.
    pub frame_number: u16,
}

/// What the layer frame of a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameDefinition {
    /// Spatial layer.
    pub spatial_id: u8,
    /// Temporal layer.
    pub temporal_id: u8,
    /// What it depends on.
    pub dependencies: Dependencies,
    /// Decode target indications: see [`Indications`].
    pub indications: Indications,
}

/// What a frame is to each of up to 32 decode targets, a bit each, the lowest of target 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Indications {
    /// It is part of the target: its indication is not 0.
    pub present: u32,
    /// Whoever can decode the frame can decode all that follow of the target: its indication is 2.
    pub switch: u32,
}

impl Indications {
    /// Of the indications of targets in order, as [`Template::indications`].
    fn of(values: impl IntoIterator<Item = u8>) -> Self {
        let mut all = Self::default();
        for (target, value) in (0..32).zip(values) {
            all.present |= u32::from(value != 0) << target;
            all.switch |= u32::from(value == 2) << target;
        }
        all
    }
}

/// A whole descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The first fields.
    pub mandatory: Mandatory,
    /// The structure, where it comes with this packet.
    pub structure: Option<Box<Structure>>,
    /// The frame's layer and dependencies.
    pub frame: FrameDefinition,
}

/// Why a descriptor can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// It ends too early.
    #[error("dependency descriptor of {len} bytes is cut short; ignore it")]
    Short {
        /// Its length.
        len: usize,
    },
    /// No structure came before, so its templates are unknown.
    #[error("dependency descriptor of a structure that has not arrived")]
    NoStructure,
    /// A template that the structure does not have.
    #[error("dependency descriptor of template {id}, which its structure does not have")]
    Template {
        /// The template's id.
        id: u8,
    },
    /// More templates or dependencies than there can be.
    #[error(
        "dependency descriptor with more than {TEMPLATES_MAX} templates or {DEPENDENCIES_MAX} \
         dependencies of a frame"
    )]
    TooMany,
}

impl Mandatory {
    /// Reads the first three bytes.
    pub fn parse(bytes: &[u8]) -> Result<Mandatory, DescriptorError> {
        let Some(&[first, high, low]) = bytes.first_chunk() else {
            return Err(DescriptorError::Short { len: bytes.len() });
        };
        Ok(Mandatory {
            start_of_frame: first & 0x80 != 0,
            end_of_frame: first & 0x40 != 0,
            template_id: first & 0x3f,
            frame_number: u16::from_be_bytes([high, low]),
        })
    }

    fn to_bytes(self) -> [u8; MANDATORY_BYTES] {
        let [high, low] = self.frame_number.to_be_bytes();
        let flags = u8::from(self.start_of_frame) << 7 | u8::from(self.end_of_frame) << 6;
        [flags | self.template_id & 0x3f, high, low]
    }
}

/// True if the descriptor brings a structure.
pub fn has_structure(bytes: &[u8]) -> bool {
    bytes.get(MANDATORY_BYTES).is_some_and(|flags| flags & 0x80 != 0)
}

impl Descriptor {
    /// Reads an extension's value. `known` is the latest structure that came before, in the order
    /// of frames; it is not needed where the descriptor brings one.
    pub fn parse(bytes: &[u8], known: Option<&Structure>) -> Result<Descriptor, DescriptorError> {
        let short = DescriptorError::Short { len: bytes.len() };
        let mandatory = Mandatory::parse(bytes)?;
        let mut bits = BitReader::new(bytes.get(MANDATORY_BYTES..).unwrap_or_default());
        let mut flags = [false; 5];
        if bytes.len() > MANDATORY_BYTES {
            for flag in &mut flags {
                *flag = bits.flag().ok_or(short)?;
            }
        }
        let [with_structure, with_active, custom_indications, custom_dependencies, custom_chains] =
            flags;
        let own = match with_structure {
            true => Some(Box::new(Structure::read(&mut bits, short)?)),
            false => None,
        };
        let structure = own.as_deref().or(known).ok_or(DescriptorError::NoStructure)?;
        if with_active {
            bits.skip(structure.decode_targets.into()).ok_or(short)?;
        }
        let template = structure.template(mandatory.template_id)?;
        let indications = match custom_indications {
            true => {
                let mut values = [0; 32];
                for value in values.iter_mut().take(structure.decode_targets.into()) {
                    *value = bits.take(2).ok_or(short)? as u8;
                }
                Indications::of(values)
            }
            false => Indications::of(template.indications.iter().copied()),
        };
        let dependencies = match custom_dependencies {
            true => read_frame_dependencies(&mut bits, short)?,
            false => template.dependencies,
        };
        if custom_chains {
            bits.skip(8 * u32::from(structure.chains)).ok_or(short)?;
        }
        let frame = FrameDefinition {
            spatial_id: template.spatial_id,
            temporal_id: template.temporal_id,
            dependencies,
            indications,
        };
        Ok(Descriptor { mandatory, structure: own, frame })
    }

    /// The extension's value of a descriptor that names nothing but its template, and brings
    /// `structure` if there is one.
    pub fn write(mandatory: Mandatory, structure: Option<&Structure>) -> Vec<u8> {
        let mut bytes = mandatory.to_bytes().to_vec();
        if let Some(structure) = structure {
            let mut bits = BitWriter::default();
            bits.put(0b1_0000, 5);
            structure.write(&mut bits);
            bytes.append(&mut bits.into_bytes());
        }
        bytes
    }
}

/// `frame_fdiffs()`.
fn read_frame_dependencies(
    bits: &mut BitReader<'_>,
    short: DescriptorError,
) -> Result<Dependencies, DescriptorError> {
    let mut dependencies = Dependencies::default();
    loop {
        let size = bits.take(2).ok_or(short)?;
        if size == 0 {
            return Ok(dependencies);
        }
        let diff = bits.take(4 * size).ok_or(short)? + 1;
        dependencies.push(diff as u16).ok_or(DescriptorError::TooMany)?;
    }
}

impl Structure {
    /// One layer: a keyframe template and one of a frame that depends on the frame before.
    pub fn single_layer() -> Structure {
        let template = |diff: Option<u16>| {
            let mut template =
                Template { indications: vec![2], chain_diffs: vec![0], ..Template::default() };
            if let Some(diff) = diff {
                template.dependencies.push(diff);
                template.chain_diffs = vec![diff as u8];
            }
            template
        };
        Structure {
            decode_targets: 1,
            templates: vec![template(None), template(Some(1))],
            protected_by: vec![0],
            chains: 1,
            ..Structure::default()
        }
    }

    /// The highest spatial and temporal layer of each decode target.
    pub fn target_layers(&self) -> Vec<(u8, u8)> {
        let of = |target: usize| {
            let has =
                |template: &&Template| template.indications.get(target).is_some_and(|i| *i > 0);
            let layers = self.templates.iter().filter(has);
            layers.map(|template| (template.spatial_id, template.temporal_id)).max()
        };
        (0..self.decode_targets.into()).map(|target| of(target).unwrap_or_default()).collect()
    }

    fn template(&self, id: u8) -> Result<&Template, DescriptorError> {
        let index = (id + 64 - self.template_id_offset) % 64;
        self.templates.get(usize::from(index)).ok_or(DescriptorError::Template { id })
    }

    /// `template_dependency_structure()`.
    fn read(bits: &mut BitReader<'_>, short: DescriptorError) -> Result<Self, DescriptorError> {
        let mut structure = Structure {
            template_id_offset: bits.take(6).ok_or(short)? as u8,
            decode_targets: bits.take(5).ok_or(short)? as u8 + 1,
            ..Structure::default()
        };
        structure.read_layers(bits, short)?;
        for template in &mut structure.templates {
            for _ in 0..structure.decode_targets {
                template.indications.push(bits.take(2).ok_or(short)? as u8);
            }
        }
        for template in &mut structure.templates {
            while bits.flag().ok_or(short)? {
                let diff = bits.take(4).ok_or(short)? as u16 + 1;
                template.dependencies.push(diff).ok_or(DescriptorError::TooMany)?;
            }
        }
        let targets = u32::from(structure.decode_targets);
        let chains = bits.non_symmetric(targets + 1).ok_or(short)?;
        structure.chains = chains as u8;
        if chains > 0 {
            for _ in 0..targets {
                structure.protected_by.push(bits.non_symmetric(chains).ok_or(short)? as u8);
            }
            for template in &mut structure.templates {
                for _ in 0..chains {
                    template.chain_diffs.push(bits.take(4).ok_or(short)? as u8);
                }
            }
        }
        if bits.flag().ok_or(short)? {
            let top = structure.templates.iter().map(|template| template.spatial_id).max();
            for _ in 0..=top.unwrap_or(0) {
                let width = bits.take(16).ok_or(short)? + 1;
                structure.resolutions.push((width, bits.take(16).ok_or(short)? + 1));
            }
        }
        Ok(structure)
    }

    /// `template_layers()`.
    fn read_layers(
        &mut self,
        bits: &mut BitReader<'_>,
        short: DescriptorError,
    ) -> Result<(), DescriptorError> {
        let (mut spatial_id, mut temporal_id) = (0, 0);
        loop {
            if self.templates.len() >= TEMPLATES_MAX {
                return Err(DescriptorError::TooMany);
            }
            self.templates.push(Template { spatial_id, temporal_id, ..Template::default() });
            match bits.take(2).ok_or(short)? {
                0 => {}
                1 => temporal_id += 1,
                2 => (spatial_id, temporal_id) = (spatial_id + 1, 0),
                _ => return Ok(()),
            }
        }
    }

    fn write(&self, bits: &mut BitWriter) {
        bits.put(self.template_id_offset.into(), 6);
        bits.put(u32::from(self.decode_targets) - 1, 5);
        for (index, template) in self.templates.iter().enumerate() {
            bits.put(
                match self.templates.get(index + 1) {
                    None => 3,
                    Some(next) if next.spatial_id > template.spatial_id => 2,
                    Some(next) if next.temporal_id > template.temporal_id => 1,
                    Some(_) => 0,
                },
                2,
            );
        }
        let indications = self.templates.iter().flat_map(|template| &template.indications);
        indications.for_each(|&indication| bits.put(indication.into(), 2));
        for template in &self.templates {
            for &diff in template.dependencies.as_slice() {
                bits.flag(true);
                bits.put(u32::from(diff) - 1, 4);
            }
            bits.flag(false);
        }
        bits.non_symmetric(self.chains.into(), u32::from(self.decode_targets) + 1);
        for &chain in &self.protected_by {
            bits.non_symmetric(chain.into(), self.chains.into());
        }
        let chain_diffs = self.templates.iter().flat_map(|template| &template.chain_diffs);
        chain_diffs.for_each(|&diff| bits.put(diff.into(), 4));
        bits.flag(!self.resolutions.is_empty());
        for &(width, height) in &self.resolutions {
            bits.put(width - 1, 16);
            bits.put(height - 1, 16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn a_browsers_keyframe_is_read() {
        // Chromium, L1T1: template ids from 0, one decode target, two templates, one chain.
        let key = Mandatory {
            start_of_frame: true,
            end_of_frame: false,
            template_id: 0,
            frame_number: 0x1234,
        };
        let structure = Structure::single_layer();
        let bytes = Descriptor::write(key, Some(&structure));
        // Behind the first three bytes: 10000 | 000000 00000 | 00 11 | 10 10 | 0 1 0000 0 |
        // ns(2) of 1: 1, ns(1) of 0: nothing | 0000 0001 | 0.
        assert_eq!(bytes, [0x80, 0x12, 0x34, 0x80, 0x00, 0x3a, 0x41, 0x01, 0x00]);
        let read = Descriptor::parse(&bytes, None).unwrap();
        assert_eq!((read.mandatory, read.structure.as_deref()), (key, Some(&structure)));
        assert!(read.frame.dependencies.as_slice().is_empty() && has_structure(&bytes));
        let delta = [0xc1, 0x12, 0x35];
        let read = Descriptor::parse(&delta, Some(&structure)).unwrap();
        assert_eq!(read.frame.dependencies.as_slice(), [1]);
        assert_eq!((read.mandatory.frame_number, read.mandatory.end_of_frame), (0x1235, true));
        assert_eq!(Descriptor::parse(&delta, None), Err(DescriptorError::NoStructure));
        let other = Descriptor::parse(&[0x05, 0, 0], Some(&structure));
        assert_eq!(other, Err(DescriptorError::Template { id: 5 }));
    }

    #[test]
    fn custom_dependencies_replace_the_templates() {
        // Flags 00010; next_fdiff_size 1, 4 bits: 2 (so 3); size 2, 8 bits: 19 (so 20); end.
        let bits = [0b0001_0010, 0b0101_0000, 0b1001_1000];
        let bytes = [&[0xc1, 0, 9][..], &bits].concat();
        let read = Descriptor::parse(&bytes, Some(&Structure::single_layer())).unwrap();
        assert_eq!(read.frame.dependencies.as_slice(), [3, 20]);
        assert_eq!(read.frame.indications, Indications { present: 1, switch: 1 });
        assert!(!has_structure(&bytes));
        // Flags 00100; one target: 1, discardable.
        let bytes = [0xc1, 0, 9, 0b0010_0010];
        let read = Descriptor::parse(&bytes, Some(&Structure::single_layer())).unwrap();
        assert_eq!(read.frame.indications, Indications { present: 1, switch: 0 });
    }

    fn structures() -> impl Strategy<Value = Structure> {
        let counts = (1..33_u8, 0..33_u8, 0..64_u8, vec((0..3_u8, vec(1..17_u16, 0..9)), 1..40));
        (counts, any::<bool>(), any::<u64>()).prop_map(
            |((targets, chains, offset, kinds), sizes, seed)| {
                let mut rng = fastrand::Rng::with_seed(seed);
                let mut below = |n: u8| rng.u8(..n);
                let chains = chains.min(targets);
                let (mut spatial_id, mut temporal_id) = (0, 0);
                let mut templates = Vec::new();
                for (step, diffs) in kinds {
                    if !templates.is_empty() {
                        match step {
                            1 => temporal_id += 1,
                            2 => (spatial_id, temporal_id) = (spatial_id + 1, 0),
                            _ => {}
                        }
                    }
                    let mut dependencies = Dependencies::default();
                    for diff in diffs {
                        let _ = dependencies.push(diff);
                    }
                    templates.push(Template {
                        spatial_id,
                        temporal_id,
                        indications: (0..targets).map(|_| below(4)).collect(),
                        dependencies,
                        chain_diffs: (0..chains).map(|_| below(16)).collect(),
                    });
                }
                Structure {
                    template_id_offset: offset,
                    decode_targets: targets,
                    templates,
                    protected_by: (0..targets)
                        .filter(|_| chains > 0)
                        .map(|_| below(chains))
                        .collect(),
                    chains,
                    resolutions: (0..=spatial_id)
                        .filter(|_| sizes)
                        .map(|_| (u32::from(below(255)) + 1, 65_536))
                        .collect(),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn structures_survive_the_round_trip(
            structure in structures(),
            (start_of_frame, end_of_frame, frame_number) in any::<(bool, bool, u16)>(),
            template: u8,
        ) {
            let index = template % structure.templates.len() as u8;
            let template_id = (structure.template_id_offset + index) % 64;
            let mandatory = Mandatory { start_of_frame, end_of_frame, template_id, frame_number };
            let bytes = Descriptor::write(mandatory, Some(&structure));
            let read = Descriptor::parse(&bytes, None).unwrap();
            prop_assert_eq!(read.structure.as_deref(), Some(&structure));
            let template = &structure.templates[usize::from(index)];
            prop_assert_eq!(read.frame.dependencies, template.dependencies);
            prop_assert_eq!(read.mandatory, mandatory);
        }

        #[test]
        fn anything_is_read_or_refused(bytes: Vec<u8>, structure in structures()) {
            let _ = Descriptor::parse(&bytes, None);
            let _ = Descriptor::parse(&bytes, Some(&structure));
        }
    }
}
