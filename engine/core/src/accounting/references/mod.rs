//! Which frames depend on which, codec by codec, behind one shape.
//!
//! The frame ledger puts packets together into frames and judges them in order. What a payload
//! says about its frame, whether the frames it depends on are there, and how many frames are
//! missing before it, is asked here:
//!
//! - [`FrameInfo::read`] takes in what a packet says, in any order of packets;
//! - [`References::start`] names the frame's first packet, where that can be told;
//! - [`References::judge`] follows the references, in the order of frames.

mod av1;
mod h264;
mod h265;
mod heads;
#[cfg(test)]
mod tests;
mod vp8;
mod vp9;

use stampede_media::Codec;

use super::FramePacket;

/// Frames whose fate is remembered for those that refer to them.
const WINDOW_FRAMES: u64 = 256;
/// Equal steps of the timestamp before they are taken for the stream's frame interval.
const CADENCE_STEPS_MIN: u8 = 8;
/// More frames than this are never taken to be missing between two.
const LOST_FRAMES_MAX: u64 = 1_024;

/// What is missing in front of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gap {
    /// Nothing.
    None,
    /// Packets that may all belong to the frame before or to this one.
    Within,
    /// At least one frame: the one before has its end, and this one its beginning.
    Frames,
}

impl Gap {
    /// Frames that are missing for certain.
    const fn least(self) -> u64 {
        match self {
            Self::Frames => 1,
            Self::None | Self::Within => 0,
        }
    }
}

/// A frame in its turn.
#[derive(Debug)]
pub(super) struct JudgedFrame<'a> {
    pub(super) info: &'a mut FrameInfo,
    pub(super) timestamp: u32,
    pub(super) complete: bool,
    pub(super) gap: Gap,
}

/// Spatial layers of a stream whose heights are told apart.
const SPATIAL_MAX: usize = 4;

/// Height of the pictures of each spatial layer in pixels; 0 where it is not known.
pub(super) type Heights = [u16; SPATIAL_MAX];

/// Which layer of a track a frame is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Layer {
    /// The highest spatial layer that came with it.
    spatial: u8,
    /// Temporal layer; `None` where the stream does not say.
    pub(super) temporal: Option<u8>,
}

impl Layer {
    /// Height of its picture.
    pub(super) fn height(self, heights: &Heights) -> Option<u16> {
        heights.get(usize::from(self.spatial)).copied().filter(|height| *height > 0)
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Followed {
    /// Frames missing whole before it; where nothing numbers them, as many as are certain.
    pub(super) lost: u64,
    /// Complete, and so is everything it depends on.
    pub(super) decodable: bool,
}

/// What a frame's packets have said so far.
#[derive(Debug)]
pub(super) enum FrameInfo {
    Vp8(vp8::FrameInfo),
    Vp9(Box<vp9::FrameInfo>),
    H264(h264::FrameInfo),
    H265(h265::FrameInfo),
    Av1(Box<av1::FrameInfo>),
}

impl FrameInfo {
    /// Decoding can begin with it.
    pub(super) fn keyframe(&self) -> bool {
        match self {
            Self::Vp8(info) => info.keyframe,
            Self::Vp9(info) => info.keyframe,
            Self::H264(info) => info.idr,
            Self::H265(info) => info.irap(),
            Self::Av1(info) => info.keyframe,
        }
    }

    /// How large pictures are from this one on, if it says so; asked before it is judged.
    pub(super) fn heights(&self) -> Option<Heights> {
        match self {
            Self::Vp8(info) => info.height.map(|height| [height; SPATIAL_MAX]),
            Self::Vp9(info) => info.heights(),
            Self::H264(info) => info.height.map(|height| [height; SPATIAL_MAX]),
            Self::H265(info) => info.height.map(|height| [height; SPATIAL_MAX]),
            Self::Av1(info) => info.heights(),
        }
    }
}

/// What is known of the decoder's references.
#[derive(Debug)]
pub(super) enum References {
    Vp8(vp8::References),
    Vp9(Box<vp9::References>),
    H264(h264::References),
    H265(h265::References),
    Av1(Box<av1::References>),
}

impl References {
    /// For a codec; `None` for those without frames.
    pub(super) fn new(codec: Codec) -> Option<Self> {
        match codec {
            Codec::Vp8 => Some(Self::Vp8(vp8::References::default())),
            Codec::Vp9 => Some(Self::Vp9(Box::default())),
            Codec::H264 => Some(Self::H264(h264::References::default())),
            Codec::H265 => Some(Self::H265(h265::References::default())),
            Codec::Av1 => Some(Self::Av1(Box::default())),
            Codec::Opus => None,
        }
    }

    /// What is known of a frame of which nothing was read.
    pub(super) fn info(&self) -> FrameInfo {
        match self {
            Self::Vp8(_) => FrameInfo::Vp8(vp8::FrameInfo::default()),
            Self::Vp9(_) => FrameInfo::Vp9(Box::default()),
            Self::H264(_) => FrameInfo::H264(h264::FrameInfo::default()),
            Self::H265(_) => FrameInfo::H265(h265::FrameInfo::default()),
            Self::Av1(_) => FrameInfo::Av1(Box::default()),
        }
    }

    /// The first packet's sequence number, where a packet says that it is the first.
    pub(super) fn start(&self, info: &FrameInfo) -> Option<u64> {
        match (self, info) {
            (_, FrameInfo::Vp8(info)) => info.start,
            (_, FrameInfo::Vp9(info)) => info.start,
            (Self::H264(references), FrameInfo::H264(info)) => references.start(info),
            (Self::H265(references), FrameInfo::H265(info)) => references.start(info),
            (Self::Av1(references), FrameInfo::Av1(info)) => references.start(info),
            _ => None,
        }
    }

    /// Follows a frame's references. Frames come in order, each once.
    pub(super) fn judge(&mut self, frame: &mut JudgedFrame<'_>) -> Followed {
        let JudgedFrame { info, timestamp, complete, gap } = frame;
        let (timestamp, complete, gap) = (*timestamp, *complete, *gap);
        match (self, &mut **info) {
            (Self::Vp8(references), FrameInfo::Vp8(info)) => references.judge(info, complete, gap),
            (Self::Vp9(references), FrameInfo::Vp9(info)) => references.judge(info, complete, gap),
            (Self::H264(references), FrameInfo::H264(info)) => {
                references.judge(info, timestamp, complete, gap)
            }
            (Self::H265(references), FrameInfo::H265(info)) => {
                references.judge(info, timestamp, complete, gap)
            }
            (Self::Av1(references), FrameInfo::Av1(info)) => {
                references.judge(info, timestamp, complete, gap)
            }
            _ => Followed { lost: 0, decodable: false },
        }
    }

    /// Which layer a frame is of that has been judged.
    pub(super) fn layer(&self, info: &FrameInfo) -> Layer {
        match (self, info) {
            (_, FrameInfo::Vp8(info)) => Layer { spatial: 0, temporal: info.temporal_id() },
            (_, FrameInfo::Vp9(info)) => info.layer(),
            (_, FrameInfo::H265(info)) => Layer { spatial: 0, temporal: info.temporal_id() },
            (Self::Av1(references), FrameInfo::Av1(info)) => references.layer(info),
            _ => Layer::default(),
        }
    }

    /// Takes in a frame that began before the first packet we got: nothing is known from it.
    pub(super) fn pass_over(&mut self, info: &FrameInfo) {
        match (self, info) {
            (Self::Vp8(references), FrameInfo::Vp8(info)) => references.remember(info),
            (Self::Vp9(references), FrameInfo::Vp9(info)) => references.remember(info),
            _ => {}
        }
    }

    /// The track stood still before the next frame: what was not sent is not missing.
    pub(super) fn interrupt(&mut self) {
        match self {
            Self::Vp8(_) | Self::Vp9(_) => {}
            Self::H264(references) => references.cadence.interrupt(),
            Self::H265(references) => references.cadence.interrupt(),
            Self::Av1(references) => references.cadence.interrupt(),
        }
    }

    /// Nothing can be shown before the next keyframe.
    pub(super) fn needs_keyframe(&self) -> bool {
        match self {
            Self::Vp8(references) => !references.base,
            Self::Vp9(references) => !references.base,
            Self::H264(references) => !references.chain,
            Self::H265(references) => references.whole == 0,
            Self::Av1(references) => !references.base,
        }
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Vp8(_) | Self::H264(_) | Self::H265(_) => 0,
            Self::Vp9(references) => size_of_val(&**references) + references.heap_bytes(),
            Self::Av1(references) => size_of_val(&**references) + references.heap_bytes(),
        }
    }
}

impl FrameInfo {
    /// It is never shown: others refer to it. Where that is not known, it is.
    pub(super) fn hidden(&self) -> bool {
        match self {
            Self::Vp8(info) => info.hidden,
            Self::Vp9(info) => info.hidden(),
            // An access unit is a picture, a temporal unit has one that is shown (AV1 §7.5).
            Self::H264(_) | Self::H265(_) | Self::Av1(_) => false,
        }
    }

    /// Takes in what a packet says.
    pub(super) fn read(&mut self, packet: &FramePacket<'_>) {
        match self {
            Self::Vp8(info) => info.read(packet),
            Self::Vp9(info) => info.read(packet),
            Self::H264(info) => info.read(packet),
            Self::H265(info) => info.read(packet),
            Self::Av1(info) => info.read(packet),
        }
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Vp8(_) | Self::H264(_) | Self::H265(_) => 0,
            Self::Vp9(info) => size_of_val(&**info),
            Self::Av1(info) => size_of_val(&**info),
        }
    }
}

/// Which of the last [`WINDOW_FRAMES`] numbered frames could be decoded.
#[derive(Debug, Default)]
struct Window {
    highest: Option<u64>,
    decodable: [u64; (WINDOW_FRAMES / 64) as usize],
}

impl Window {
    /// The number nearest to those before whose low `bits` are `number`.
    fn extend(&self, number: u16, bits: u32) -> u64 {
        let modulus = 1_u64 << bits;
        let Some(highest) = self.highest else { return modulus << 16 | u64::from(number) };
        let ahead = u64::from(number).wrapping_sub(highest) & (modulus - 1);
        if ahead <= modulus / 2 { highest + ahead } else { highest + ahead - modulus }
    }

    fn set(&mut self, number: u64, decodable: bool) {
        let from = self.highest.map_or(number, |highest| highest + 1);
        for skipped in from.max(number.saturating_sub(WINDOW_FRAMES))..=number {
            self.write(skipped, false);
        }
        self.highest = Some(self.highest.map_or(number, |highest| highest.max(number)));
        if self.covers(number) {
            self.write(number, decodable);
        }
    }

    /// False too for frames that are too far back, or that never came.
    fn is_decodable(&self, number: u64) -> bool {
        let (word, bit) = Self::place(number);
        self.covers(number) && self.decodable.get(word).is_some_and(|word| word >> bit & 1 == 1)
    }

    /// A keyframe: nothing before it is referred to any more, however the numbers go on.
    fn clear(&mut self) {
        *self = Self::default();
    }

    fn covers(&self, number: u64) -> bool {
        let Some(highest) = self.highest else { return false };
        number <= highest && highest - number < WINDOW_FRAMES
    }

    fn write(&mut self, number: u64, decodable: bool) {
        let (word, bit) = Self::place(number);
        if let Some(word) = self.decodable.get_mut(word) {
            *word = *word & !(1 << bit) | u64::from(decodable) << bit;
        }
    }

    const fn place(number: u64) -> (usize, u64) {
        ((number % WINDOW_FRAMES / 64) as usize, number % 64)
    }
}

/// How far apart the frames of a stream are, for codecs that do not number them.
///
/// Where the last frames came at a constant rate, the step of the RTP timestamp over a gap says how
/// many are missing. Otherwise nothing does.
#[derive(Debug, Default)]
struct Cadence {
    last: Option<u32>,
    step: u32,
    steps: u8,
}

impl Cadence {
    /// A pause is no frame interval, and does not change it.
    fn interrupt(&mut self) {
        self.last = None;
    }

    /// Frames missing between the last one and this one.
    fn lost_before(&self, timestamp: u32) -> Option<u64> {
        if self.steps < CADENCE_STEPS_MIN {
            return None;
        }
        let since = timestamp.wrapping_sub(self.last?);
        let steps = (u64::from(since) + u64::from(self.step / 2)) / u64::from(self.step);
        let off = (u64::from(since)).abs_diff(steps * u64::from(self.step));
        let fits = off <= u64::from(self.step / 4) && (1..=LOST_FRAMES_MAX).contains(&steps);
        fits.then(|| steps - 1)
    }

    /// Takes in the next frame.
    fn judge(&mut self, timestamp: u32, gap: Gap) {
        let Some(last) = self.last.replace(timestamp) else { return };
        if gap != Gap::None {
            return;
        }
        let step = timestamp.wrapping_sub(last);
        if step == 0 || step > 90_000 {
            self.steps = 0;
        } else if self.steps > 0 && step.abs_diff(self.step) <= self.step / 8 {
            self.steps = self.steps.saturating_add(1);
        } else {
            (self.step, self.steps) = (step, 1);
        }
    }
}
