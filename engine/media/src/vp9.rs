//! VP9 as RTP carries it: the payload descriptor (RFC 9628 §4.2) and as much of the frame header
//! (VP9 bitstream specification §6.2, "uncompressed header") as tells keyframes and their size.
//!
//! By hand for the reasons given in [`crate::vp8`]; the `rtp` crate's `Vp9Packet` also collects the
//! scalability structure into vectors on every packet.

use crate::bits::BitReader;

/// Most references of one picture that a descriptor can name (RFC 9628 §4.2.1, P_DIFF).
pub const REFERENCES_MAX: usize = 3;

/// How far back the pictures are that a picture refers to, in picture ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct References {
    diffs: [u8; REFERENCES_MAX],
    count: u8,
}

impl References {
    /// The distances.
    pub fn as_slice(&self) -> &[u8] {
        self.diffs.get(..usize::from(self.count)).unwrap_or_default()
    }

    /// Adds one; false if there is no room.
    pub fn push(&mut self, diff: u8) -> bool {
        let Some(place) = self.diffs.get_mut(usize::from(self.count)) else { return false };
        *place = diff;
        self.count += 1;
        true
    }
}

/// VP9 payload descriptor of one RTP packet (RFC 9628 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Descriptor {
    /// P: the layer frame refers to earlier pictures.
    pub inter_predicted: bool,
    /// F: references are named in each packet, not by a scalability structure.
    pub flexible: bool,
    /// B: first packet of a layer frame.
    pub frame_start: bool,
    /// E: last packet of a layer frame.
    pub frame_end: bool,
    /// Z: higher spatial layers do not refer to this one.
    pub not_for_upper_layers: bool,
    /// Picture id, 7 or 15 bits (I).
    pub picture_id: Option<u16>,
    /// True where the picture id has 15 bits (M).
    pub picture_id_wide: bool,
    /// TID: temporal layer, 0 to 7 (L).
    pub temporal_id: Option<u8>,
    /// U: pictures of higher temporal layers that follow refer to none of theirs before this one.
    pub switching_up: bool,
    /// SID: spatial layer, 0 to 7 (L).
    pub spatial_id: Option<u8>,
    /// D: refers to the spatial layer below of the same picture.
    pub inter_layer: bool,
    /// TL0PICIDX (L without F).
    pub tl0_pic_idx: Option<u8>,
    /// P_DIFFs (F with P).
    pub references: References,
    /// Where in the payload a scalability structure begins (V); see [`Structure::parse`].
    pub structure_at: Option<usize>,
    /// Length of the descriptor in bytes; the VP9 data follows.
    pub len: usize,
}

/// Why a payload has no usable descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// The payload ends inside the descriptor, or right after it.
    #[error("VP9 payload of {len} bytes ends before its data; ignore the packet")]
    Short {
        /// Length of the payload.
        len: usize,
    },
    /// A fourth reference: N is set on the third.
    #[error("VP9 payload descriptor names more than {REFERENCES_MAX} references")]
    References,
}

impl Descriptor {
    /// Reads the descriptor at the start of an RTP payload.
    pub fn parse(payload: &[u8]) -> Result<Descriptor, DescriptorError> {
        let short = DescriptorError::Short { len: payload.len() };
        let mut at = 0;
        let mut next = || {
            let byte = payload.get(at).copied();
            at += 1;
            byte.ok_or(short)
        };
        let first = next()?;
        let bit = |mask: u8| first & mask != 0;
        let mut descriptor = Descriptor {
            inter_predicted: bit(0x40),
            flexible: bit(0x10),
            frame_start: bit(0x08),
            frame_end: bit(0x04),
            not_for_upper_layers: bit(0x01),
            ..Descriptor::default()
        };
        if bit(0x80) {
            let high = next()?;
            descriptor.picture_id_wide = high & 0x80 != 0;
            descriptor.picture_id = Some(match descriptor.picture_id_wide {
                true => u16::from(high & 0x7f) << 8 | u16::from(next()?),
                false => u16::from(high),
            });
        }
        if bit(0x20) {
            let layers = next()?;
            descriptor.temporal_id = Some(layers >> 5);
            descriptor.switching_up = layers & 0x10 != 0;
            descriptor.spatial_id = Some(layers >> 1 & 7);
            descriptor.inter_layer = layers & 1 != 0;
            if !descriptor.flexible {
                descriptor.tl0_pic_idx = Some(next()?);
            }
        }
        while descriptor.flexible && descriptor.inter_predicted {
            let reference = next()?;
            if !descriptor.references.push(reference >> 1) {
                return Err(DescriptorError::References);
            }
            if reference & 1 == 0 {
                break;
            }
        }
        if bit(0x02) {
            let bytes = payload.get(at..).unwrap_or_default();
            descriptor.structure_at = Some(at);
            at += Structure::length(bytes).ok_or(short)?;
        }
        // A descriptor with nothing behind it carries no part of a frame.
        if at >= payload.len() {
            return Err(short);
        }
        descriptor.len = at;
        Ok(descriptor)
    }

    /// True on the first packet of a picture: the first one of its lowest spatial layer.
    pub fn starts_picture(&self) -> bool {
        self.frame_start && self.spatial_id.unwrap_or(0) == 0
    }

    /// True on the first packet of a frame that needs no other one, neither of another picture nor of a
    /// spatial layer below it.
    pub fn starts_keyframe(&self) -> bool {
        self.frame_start && !self.inter_predicted && !self.inter_layer
    }
}

/// Writes a spatial layer in the place of the lowest into a payload that [`renumber`] can change.
///
/// What is one of several streams of a track has to say which one it is: livekit-server 1.13.5 takes
/// a packet of VP9 for one of the layer that its SID names, whatever stream it came in, and so would
/// take all streams of a simulcast track for the lowest and mix them up (pkg/sfu/receiver_base.go,
/// `forwardRTP`; pkg/sfu/buffer/buffer_base.go, `processVideoPacket`).
pub fn set_spatial_id(payload: &mut [u8], spatial_id: u8) -> bool {
    let Ok(descriptor) = Descriptor::parse(payload) else { return false };
    if !descriptor.picture_id_wide || descriptor.spatial_id.is_none() {
        return false;
    }
    let [_, _, _, indices, ..] = payload else { return false };
    *indices = *indices & !0x0e | (spatial_id & 7) << 1;
    true
}

/// Writes other numbers into a payload that has a 15-bit picture id and a TL0PICIDX; false, and
/// nothing changed, if it has not.
pub fn renumber(payload: &mut [u8], picture_id: u16, tl0_pic_idx: u8) -> bool {
    let Ok(descriptor) = Descriptor::parse(payload) else { return false };
    if !descriptor.picture_id_wide || descriptor.tl0_pic_idx.is_none() {
        return false;
    }
    // The first octet, two of the picture id, the layer indices, TL0PICIDX (§4.2, figure 2).
    let [_, high, low, _, tl0, ..] = payload else { return false };
    (*high, *low) = (0x80 | (picture_id >> 8) as u8, picture_id as u8);
    *tl0 = tl0_pic_idx;
    true
}

/// One picture of a picture group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupPicture {
    /// Temporal layer.
    pub temporal_id: u8,
    /// U, as in [`Descriptor::switching_up`].
    pub switching_up: bool,
    /// What it refers to.
    pub references: References,
}

/// Scalability structure (RFC 9628 §4.2.1): what repeats itself in non-flexible mode.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Structure {
    /// N_S + 1.
    pub spatial_layers: u8,
    /// Width and height of each spatial layer, where given (Y).
    pub sizes: Vec<(u16, u16)>,
    /// The picture group (G); the picture that carries the structure is its first.
    pub group: Vec<GroupPicture>,
}

impl Structure {
    /// Length in bytes of the structure that begins here; `None` if it is cut short.
    fn length(bytes: &[u8]) -> Option<usize> {
        let first = *bytes.first()?;
        let mut at = 1;
        if first & 0x10 != 0 {
            at += (usize::from(first >> 5) + 1) * 4;
        }
        if first & 0x08 != 0 {
            let pictures = *bytes.get(at)?;
            at += 1;
            for _ in 0..pictures {
                at += 1 + usize::from(bytes.get(at)? >> 2 & 3);
            }
        }
        (at <= bytes.len()).then_some(at)
    }

    /// Reads the structure that begins here; `None` if it is cut short.
    pub fn parse(bytes: &[u8]) -> Option<Structure> {
        let bytes = bytes.get(..Self::length(bytes)?)?;
        let (first, mut rest) = bytes.split_first()?;
        let mut structure = Structure { spatial_layers: (first >> 5) + 1, ..Structure::default() };
        if first & 0x10 != 0 {
            for _ in 0..structure.spatial_layers {
                let ([w0, w1, h0, h1], behind) = rest.split_first_chunk()?;
                let size = (u16::from_be_bytes([*w0, *w1]), u16::from_be_bytes([*h0, *h1]));
                structure.sizes.push(size);
                rest = behind;
            }
        }
        if first & 0x08 != 0 {
            let (pictures, mut behind) = rest.split_first()?;
            for _ in 0..*pictures {
                let (octet, more) = behind.split_first()?;
                let (diffs, more) = more.split_at_checked(usize::from(octet >> 2 & 3))?;
                let mut picture = GroupPicture {
                    temporal_id: octet >> 5,
                    switching_up: octet & 0x10 != 0,
                    references: References::default(),
                };
                for &diff in diffs {
                    picture.references.push(diff);
                }
                structure.group.push(picture);
                behind = more;
            }
        }
        Some(structure)
    }
}

/// What the start of an encoded frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Needs no other frame.
    pub keyframe: bool,
    /// `show_frame`, or an earlier frame is shown (`show_existing_frame`).
    pub shown: bool,
    /// 0 is 4:2:0 with 8 bits, 1 another chroma format, 2 and 3 the same with 10 or 12 bits.
    pub profile: u8,
    /// Width and height in pixels, of keyframes.
    pub size: Option<(u16, u16)>,
}

/// Reads the start of an encoded frame (no descriptor). The error says what is wrong with it.
pub fn frame_header(frame: &[u8]) -> Result<FrameHeader, &'static str> {
    const SHORT: &str = "it ends inside its header";
    let mut bits = BitReader::new(frame);
    if bits.take(2).ok_or(SHORT)? != 2 {
        return Err("it has no VP9 frame marker");
    }
    let profile = (bits.take(1).ok_or(SHORT)? | bits.take(1).ok_or(SHORT)? << 1) as u8;
    if profile == 3 && bits.flag().ok_or(SHORT)? {
        return Err("it has a reserved profile");
    }
    if bits.flag().ok_or(SHORT)? {
        return Ok(FrameHeader { keyframe: false, shown: true, profile, size: None });
    }
    let keyframe = !bits.flag().ok_or(SHORT)?;
    let shown = bits.flag().ok_or(SHORT)?;
    bits.flag().ok_or(SHORT)?;
    if !keyframe {
        return Ok(FrameHeader { keyframe, shown, profile, size: None });
    }
    if bits.take(24).ok_or(SHORT)? != 0x49_8342 {
        return Err("it is a keyframe without a VP9 sync code");
    }
    skip_color_config(&mut bits, profile).ok_or(SHORT)?;
    let width = bits.take(16).ok_or(SHORT)? + 1;
    let height = bits.take(16).ok_or(SHORT)? + 1;
    let size = u16::try_from(width).ok().zip(u16::try_from(height).ok());
    match size {
        None => Err("it is a keyframe of 65,536 pixels a side"),
        size => Ok(FrameHeader { keyframe, shown, profile, size }),
    }
}

/// `color_config()` (§6.2.2).
fn skip_color_config(bits: &mut BitReader<'_>, profile: u8) -> Option<()> {
    const RGB: u32 = 7;
    if profile >= 2 {
        bits.skip(1)?;
    }
    let with_subsampling = profile == 1 || profile == 3;
    if bits.take(3)? != RGB {
        bits.skip(if with_subsampling { 4 } else { 1 })
    } else {
        bits.skip(if with_subsampling { 1 } else { 0 })
    }
}

/// The frames of a superframe, without its index (VP9 bitstream specification, Annex B); the frame
/// itself if it is none. `None` if the index is broken.
pub fn layer_frames(data: &[u8]) -> Option<Vec<&[u8]>> {
    let &marker = data.last()?;
    if marker & 0xe0 != 0xc0 {
        return Some(vec![data]);
    }
    let (count, size_bytes) = (usize::from(marker & 7) + 1, usize::from(marker >> 3 & 3) + 1);
    let (frames, index) = data.split_at_checked(data.len().checked_sub(2 + count * size_bytes)?)?;
    let (&first, index) = index.split_first()?;
    if first != marker {
        return Some(vec![data]);
    }
    let mut rest = frames;
    let mut found = Vec::with_capacity(count);
    for size in index.chunks_exact(size_bytes) {
        let size = size.iter().rev().fold(0, |size, &byte| size << 8 | usize::from(byte));
        let (frame, behind) = rest.split_at_checked(size)?;
        if frame.is_empty() {
            return None;
        }
        found.push(frame);
        rest = behind;
    }
    Some(found)
}

/// True if one of the frames of a superframe is shown, or the frame itself if it is none. libvpx puts
/// a frame that is not shown in front of one that is.
pub fn is_shown(data: &[u8]) -> bool {
    let shown = |frame: &[u8]| frame_header(frame).is_ok_and(|header| header.shown);
    layer_frames(data).map_or_else(|| shown(data), |frames| frames.into_iter().any(shown))
}

/// True if an encoded frame is a keyframe. False for anything unreadable.
pub fn is_keyframe(frame: &[u8]) -> bool {
    frame_header(frame).is_ok_and(|header| header.keyframe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_field_of_the_descriptor_is_read() {
        // RFC 9628 figure 2: non-flexible, with 15-bit picture id and layer indices.
        let fixed = Descriptor::parse(&[0xec, 0x92, 0x34, 0x53, 0x77, 0]).unwrap();
        let expected = Descriptor {
            inter_predicted: true,
            frame_start: true,
            frame_end: true,
            picture_id: Some(0x1234),
            picture_id_wide: true,
            temporal_id: Some(2),
            switching_up: true,
            spatial_id: Some(1),
            inter_layer: true,
            tl0_pic_idx: Some(0x77),
            len: 5,
            ..Descriptor::default()
        };
        assert_eq!(fixed, expected);
        // Figure 3: flexible, 7-bit picture id, two references.
        let flexible = Descriptor::parse(&[0xf9, 0x42, 0x20, 0x03, 0x0a, 0]).unwrap();
        assert_eq!((flexible.picture_id, flexible.picture_id_wide), (Some(0x42), false));
        assert_eq!((flexible.temporal_id, flexible.tl0_pic_idx), (Some(1), None));
        assert_eq!((flexible.references.as_slice(), flexible.len), (&[1, 5][..], 5));
        assert!(flexible.flexible && flexible.frame_start && flexible.not_for_upper_layers);
        let bare = Descriptor::parse(&[0x08, 1]).unwrap();
        assert!(bare.starts_keyframe() && bare.len == 1);
        let four = [0xd0, 1, 3, 5, 7, 9, 0];
        assert_eq!(Descriptor::parse(&four), Err(DescriptorError::References));
    }

    #[test]
    fn the_scalability_structure_is_read() {
        // Two spatial layers with sizes, a group of 0 2 1 2 as libwebrtc's.
        let group = [4, 0x14, 4, 0x54, 1, 0x34, 2, 0x54, 1];
        let sizes = [0x38, 1, 64, 0, 180, 2, 128, 1, 104];
        let payload = [&[0x0a][..], &sizes, &group, &[0x82]].concat();
        let descriptor = Descriptor::parse(&payload).unwrap();
        assert_eq!((descriptor.structure_at, descriptor.len), (Some(1), payload.len() - 1));
        let structure = Structure::parse(&payload[1..]).unwrap();
        assert_eq!(structure.spatial_layers, 2);
        assert_eq!(structure.sizes, [(320, 180), (640, 360)]);
        let ids: Vec<_> = structure.group.iter().map(|picture| picture.temporal_id).collect();
        assert_eq!(ids, [0, 2, 1, 2]);
        assert_eq!(structure.group[2].references.as_slice(), [2]);
        for len in 1..payload.len() - 1 {
            Descriptor::parse(&payload[..len]).unwrap_err();
        }
    }

    #[test]
    fn frame_headers_are_read() {
        // libvpx, profile 0, 640×360: 4 bytes, colour space 2, then the size.
        let key = [0x82, 0x49, 0x83, 0x42, 0x20, 0x27, 0xf0, 0x16, 0x70];
        let header = frame_header(&key).unwrap();
        let expected =
            FrameHeader { keyframe: true, shown: true, profile: 0, size: Some((640, 360)) };
        assert_eq!(header, expected);
        assert!(!frame_header(&[0x86]).unwrap().keyframe);
        let existing = FrameHeader { keyframe: false, shown: true, profile: 0, size: None };
        assert_eq!(frame_header(&[0x88]), Ok(existing));
        assert!(!frame_header(&[0x84, 0]).unwrap().shown);
        // Two bits, the low one first; that of 3 is followed by a reserved one.
        let profile = |first: u8| frame_header(&[first, 0]).unwrap().profile;
        assert_eq!([0x84, 0xa4, 0x94, 0xb2].map(profile), [0, 1, 2, 3]);
        for bad in [&[][..], &[0x00], &[0xc2, 1], &[0x82, 0x9d, 0x01, 0x2a, 0, 0, 0], &key[..8]] {
            frame_header(bad).unwrap_err();
        }
    }

    #[test]
    fn superframes_are_divided() {
        let whole = [0x86, 1, 2, 0x84, 3, 0xc9, 3, 0, 2, 0, 0xc9];
        assert_eq!(layer_frames(&whole), Some(vec![&[0x86, 1, 2][..], &[0x84, 3]]));
        assert_eq!(layer_frames(&[0x86, 1, 2]), Some(vec![&[0x86, 1, 2][..]]));
        let long = [0x86, 1, 0xc9, 3, 0, 2, 0, 0xc9];
        assert_eq!(layer_frames(&long), None, "longer than there is");
        assert_eq!(layer_frames(&[]), None);
        assert_eq!(layer_frames(&[0xc9]), None);
        // The first of the two is not shown.
        assert!(is_shown(&[0x84, 1, 2, 0x86, 3, 0xc9, 3, 0, 2, 0, 0xc9]));
        assert!(!is_shown(&[0x84, 1, 2, 0x84, 3, 0xc9, 3, 0, 2, 0, 0xc9]));
        assert!(is_shown(&[0x86, 1]) && !is_shown(&[0x84, 1]) && !is_shown(&[]));
    }

    #[test]
    fn numbers_are_rewritten_in_place() {
        let mut payload = [0xec, 0x92, 0x34, 0x53, 0x77, 9];
        assert!(renumber(&mut payload, 0x7ffe, 3));
        let descriptor = Descriptor::parse(&payload).unwrap();
        assert_eq!((descriptor.picture_id, descriptor.tl0_pic_idx), (Some(0x7ffe), Some(3)));
        assert_eq!((payload[3], payload[5]), (0x53, 9));
        assert!(!renumber(&mut [0x8c, 0x12, 9, 9, 9, 9], 1, 1), "a 7-bit id has no room");
    }

    proptest! {
        #[test]
        fn any_payload_is_read_or_refused(payload: Vec<u8>) {
            if let Ok(descriptor) = Descriptor::parse(&payload) {
                prop_assert!(descriptor.len < payload.len());
                if let Some(at) = descriptor.structure_at {
                    prop_assert!(Structure::parse(&payload[at..descriptor.len]).is_some());
                }
            }
            let _ = (frame_header(&payload), Structure::parse(&payload));
        }
    }
}
