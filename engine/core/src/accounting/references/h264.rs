//! H.264: every picture depends on all reference pictures since the last IDR picture
//! (`nal_ref_idc`; ITU-T H.264 §7.4.1). Nothing in a payload numbers pictures without its parameter
//! sets, so what is missing over a gap is told by a constant frame rate, or not at all.

use stampede_media::h264::{self, Summary};

use super::heads::{Front, Heads};
use super::{Cadence, Followed, Gap};
use crate::accounting::FramePacket;

/// What an access unit's packets say.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::accounting) struct FrameInfo {
    front: Front,
    pub(super) idr: bool,
    /// By a sequence parameter set.
    pub(super) height: Option<u16>,
    /// It has a sequence parameter set.
    parameters: bool,
    reference: Option<bool>,
}

impl FrameInfo {
    pub(super) fn read(&mut self, packet: &FramePacket<'_>) {
        let Some(Ok(summary)) = packet.payload.map(Summary::of) else { return };
        self.idr |= summary.idr;
        if let Some(reference) = summary.reference {
            self.reference = Some(self.reference.unwrap_or(false) | reference);
        }
        self.parameters |= summary.parameters;
        if summary.parameters && self.height.is_none() {
            let parameters = packet.payload.and_then(h264::sequence_parameters);
            self.height = parameters.and_then(h264::picture_size).map(|(_, height)| height);
        }
        self.front.read(packet.sequence, summary.head);
    }
}

/// What is known of the decoder's references.
#[derive(Debug, Default)]
pub(in crate::accounting) struct References {
    /// Every reference picture since the last IDR picture is there.
    pub(super) chain: bool,
    heads: Heads,
    pub(super) cadence: Cadence,
}

impl References {
    pub(super) fn start(&self, info: &FrameInfo) -> Option<u64> {
        self.heads.start(info.front, info.idr, info.parameters)
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
        // A missing picture may have been one that nothing refers to; there is no knowing.
        self.chain &= lost == Some(0);
        let decodable = complete && (info.idr || self.chain);
        if decodable && info.idr {
            self.chain = true;
        } else if !decodable && info.reference != Some(false) {
            self.chain = false;
        }
        if complete && gap == Gap::None {
            self.heads.learn(info.front, info.idr);
        }
        self.cadence.judge(timestamp, gap);
        Followed { lost: lost.unwrap_or(gap.least()), decodable }
    }
}
