//! H.265: every picture depends on all earlier ones of its temporal layer and lower ones, back to the
//! last random access point (IRAP), but on no sub-layer non-reference picture of its own layer; a TSA
//! or STSA picture depends on none of its own layer (ITU-T H.265 §7.4.2.2, table 7-1).
//!
//! That is the most that NAL unit types allow: the reference picture sets in slice headers, which can't
//! be read without parameter sets, may name fewer pictures. Pictures in front of an IRAP in output
//! order (RASL) are taken for trailing ones: WebRTC has no reordering. Nothing in a payload numbers
//! pictures, so what is missing over a gap is told by a constant frame rate, or not at all.

use stampede_media::h265::{self, Access, Picture, Summary};

use super::heads::{Front, Heads};
use super::{Cadence, Followed, Gap};
use crate::accounting::FramePacket;

/// Temporal layers that a stream can have.
const TEMPORAL_LAYERS: u8 = 7;

/// What an access unit's packets say.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::accounting) struct FrameInfo {
    front: Front,
    /// By a sequence parameter set.
    pub(super) height: Option<u16>,
    /// It has a sequence parameter set.
    parameters: bool,
    /// It has a video parameter set.
    video_parameters: bool,
    picture: Option<Picture>,
}

impl FrameInfo {
    pub(super) fn read(&mut self, packet: &FramePacket<'_>) {
        let Some(Ok(summary)) = packet.payload.map(Summary::of) else { return };
        self.picture = self.picture.or(summary.picture);
        self.parameters |= summary.parameters;
        self.video_parameters |= summary.video_parameters;
        if summary.parameters && self.height.is_none() {
            let parameters = packet.payload.and_then(h265::sequence_parameters);
            let parameters = parameters.and_then(h265::Parameters::parse);
            let size = parameters.and_then(|parameters| parameters.size());
            self.height = size.map(|(_, height)| height);
        }
        self.front.read(packet.sequence, summary.head);
    }

    pub(super) fn irap(&self) -> bool {
        self.picture.is_some_and(|picture| picture.access == Access::Random)
    }

    pub(super) fn temporal_id(&self) -> Option<u8> {
        self.picture.map(|picture| picture.temporal_id)
    }
}

/// What is known of the decoder's references.
#[derive(Debug, Default)]
pub(in crate::accounting) struct References {
    /// So many temporal layers, from the lowest on, have every reference picture there.
    pub(super) whole: u8,
    heads: Heads,
    pub(super) cadence: Cadence,
}

impl References {
    pub(super) fn start(&self, info: &FrameInfo) -> Option<u64> {
        self.heads.start(info.front, info.irap(), info.parameters && info.video_parameters)
    }

    pub(super) fn judge(
        &mut self,
        info: &FrameInfo,
        timestamp: u32,
        complete: bool,
        gap: Gap,
    ) -> Followed {
        let lost = match gap {
            Gap::None => Some(0),
            _ => self.cadence.lost_before(timestamp),
        };
        if lost != Some(0) {
            // A missing picture may have been of the lowest layer.
            self.whole = 0;
        }
        let decodable = complete && info.picture.is_some_and(|picture| self.shows(picture));
        match info.picture {
            Some(picture) if decodable => self.follow(picture),
            Some(Picture { temporal_id, reference, .. }) => {
                self.whole = self.whole.min(temporal_id + u8::from(!reference));
            }
            None => self.whole = 0,
        }
        if complete && gap == Gap::None {
            self.heads.learn(info.front, info.irap());
        }
        self.cadence.judge(timestamp, gap);
        Followed { lost: lost.unwrap_or(gap.least()), decodable }
    }

    /// What a picture refers to is there.
    fn shows(&self, picture: Picture) -> bool {
        match picture.access {
            Access::Random => true,
            Access::TemporalSwitch | Access::StepwiseSwitch if picture.temporal_id > 0 => {
                self.whole >= picture.temporal_id
            }
            _ => self.whole > picture.temporal_id,
        }
    }

    /// Behind a picture that could be decoded.
    fn follow(&mut self, picture: Picture) {
        match picture.access {
            Access::Random | Access::TemporalSwitch => self.whole = TEMPORAL_LAYERS,
            Access::StepwiseSwitch => self.whole = self.whole.max(picture.temporal_id + 1),
            Access::Trailing => {}
        }
    }
}
