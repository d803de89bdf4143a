//! Which layers there is room for on the way to the server (`--adapt`). The estimate is str0m's, made
//! of the server's transport-wide feedback, as libwebrtc makes its own; a REMB bounds it. A clip can't
//! be encoded anew, so a layer needs its whole bitrate where libwebrtc needs the least that its
//! encoder can do: layers go a little earlier here, and never get worse.

use str0m::Rtc;
use str0m::bwe::{Bitrate, BweKind};

use super::Publishing;
use super::track::TxTrack;
use crate::publish::LAYERS_MAX;

/// What is assumed of the way before anything is known (libwebrtc's `kDefaultBitrateBps`,
/// `call/bitrate_allocator.cc`).
pub(in crate::peer) const START_BITRATE_BPS: u64 = 300_000;
/// What a layer that is held back needs, in percent of its bitrate, to be sent again (libwebrtc's
/// `StableTargetRateExperiment`, 1.2 for video).
const RETURN_PERCENT: u64 = 120;

/// What is known of the way to the server.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Uplink {
    twcc_bps: Option<u64>,
    remb_bps: Option<u64>,
    /// Bits a second that str0m was told of: to be kept up with padding, and to be looked for.
    told: Option<(u64, u64)>,
}

impl Uplink {
    fn learn(&mut self, estimate: BweKind) {
        match estimate {
            BweKind::Twcc { estimate, can_probe } => {
                self.twcc_bps = can_probe.then(|| estimate.as_u64());
            }
            BweKind::Remb { estimate, .. } => self.remb_bps = Some(estimate.as_u64()),
            // The kinds that there are.
            _ => {}
        }
    }

    /// `None` as long as the server says nothing: everything is sent then.
    fn estimate_bps(&self) -> Option<u64> {
        self.twcc_bps.into_iter().chain(self.remb_bps).min()
    }
}

impl Publishing {
    /// The server's feedback gave a new estimate. Returns the one that now counts, in bits a second.
    pub(in crate::peer) fn estimated(&mut self, estimate: BweKind, rtc: &mut Rtc) -> Option<u64> {
        let uplink = self.uplink.as_mut()?;
        uplink.learn(estimate);
        let estimate_bps = uplink.estimate_bps();
        self.adapt(rtc);
        estimate_bps
    }

    /// Lets those layers through that there is room for: sound first, then the lowest layer of each
    /// track, whether there is room or not, then the next higher of each (libwebrtc
    /// `modules/video_coding/utility/simulcast_rate_allocator.cc`). What nobody wants takes none.
    pub(in crate::peer) fn adapt(&mut self, rtc: &mut Rtc) {
        let Some(uplink) = &mut self.uplink else { return };
        let Some(mut left_bps) = uplink.estimate_bps() else { return };
        // What is sent, and what more the next layer needs; everything that is wanted.
        let (mut sent_bps, mut next_bps, mut wanted_bps) = (0, None, 0);
        for layer in self.tracks.iter().filter(|track| !track.is_video()).flat_map(|t| &t.layers) {
            sent_bps += layer.bitrate_bps;
            wanted_bps += layer.bitrate_bps;
            left_bps = left_bps.saturating_sub(layer.bitrate_bps);
        }
        for index in 0..LAYERS_MAX {
            for track in self.tracks.iter_mut().filter(|track| track.is_video()) {
                let Some(needed) = track.room_needed(index) else { continue };
                let bitrate_bps = track.layers[index].bitrate_bps;
                wanted_bps += bitrate_bps;
                let has_room = needed.is_none_or(|bps| left_bps >= bps) && !track.is_full(index);
                if has_room {
                    left_bps = left_bps.saturating_sub(bitrate_bps);
                    sent_bps += bitrate_bps;
                } else if !track.is_full(index) {
                    next_bps = next_bps.or(needed);
                }
                track.set_room(index, has_room);
            }
        }
        // As much padding as shows that the next layer would fit (libwebrtc pads for it too).
        let kept_bps = next_bps.map_or(0, |next| sent_bps + next);
        let told = (kept_bps, wanted_bps * RETURN_PERCENT / 100);
        if uplink.told.replace(told) != Some(told) {
            rtc.bwe().set_bitrate(Bitrate::from(told.0), Bitrate::from(told.1));
        }
    }
}

impl TxTrack {
    /// Bits a second that must be free for a layer that could be sent: `Some(None)` if it is sent
    /// without, being the lowest, and `None` if there is no such layer, or nobody wants it.
    fn room_needed(&self, index: usize) -> Option<Option<u64>> {
        let could = |index: usize| {
            let layer = self.layers.get(index)?;
            (layer.ssrc.is_some() && layer.gate.is_wanted()).then_some(layer)
        };
        let layer = could(index)?;
        if !(0..index).any(|lower| could(lower).is_some()) {
            return Some(None);
        }
        let percent = if layer.gate.has_room() { 100 } else { RETURN_PERCENT };
        Some(Some(layer.bitrate_bps * percent / 100))
    }

    /// A lower layer than this one is held back: then none above it is sent.
    fn is_full(&self, index: usize) -> bool {
        self.layers[..index].iter().any(|layer| layer.gate.is_wanted() && !layer.gate.has_room())
    }

    fn set_room(&mut self, index: usize, has_room: bool) {
        let layer = &mut self.layers[index];
        layer.counted.layer_drops += u64::from(layer.gate.has_room() && !has_room);
        let resumes = layer.gate.change(|gate| gate.set_room(has_room));
        self.resume(index, resumes);
    }
}
