//! What a subscriber gets whose bandwidth is limited on purpose. Pure.
//!
//! It is no congestion control: nothing is measured. LiveKit's allocator
//! (`pkg/sfu/streamallocator/streamallocator.go`) measures the layers; here they have the bitrates
//! that their publisher announced.

use livekit_protocol as proto;

use crate::media::layers::LAYERS_MAX;

/// Bitrate of a layer whose publisher did not say it, by its height: the presets of LiveKit's
/// clients (livekit-client `src/room/track/options.ts`, `VideoPresets`).
const PRESETS: [(u32, u64); 4] =
    [(180, 160_000), (360, 450_000), (720, 1_700_000), (u32::MAX, 3_000_000)];

/// How much of a video track a subscriber may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Allotment {
    /// All.
    #[default]
    All,
    /// No layer above this one.
    Upto(u8),
    /// Nothing, for even its lowest layer does not fit.
    Paused,
}

/// A video track that a subscriber wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Layers with their bitrates in bit/s, lowest first.
    pub(super) layers: Vec<(u8, u64)>,
    /// Highest layer wanted.
    pub(super) limit: u8,
}

/// The layers of a track with their bitrates in bit/s, lowest first.
#[allow(deprecated)] // `layers`: what every client fills; codecs[].layers may be empty
pub(super) fn layers(info: &proto::TrackInfo) -> Vec<(u8, u64)> {
    let preset = |height: u32| {
        PRESETS.iter().find(|(max, _)| height <= *max).map_or(0, |(_, bitrate_bps)| *bitrate_bps)
    };
    let mut layers: Vec<(u8, u64)> = info
        .layers
        .iter()
        .filter_map(|layer| {
            let quality = u8::try_from(layer.quality).ok()?;
            let said = (layer.bitrate > 0).then_some(u64::from(layer.bitrate));
            Some((quality, said.unwrap_or_else(|| preset(layer.height))))
        })
        .filter(|(quality, _)| usize::from(*quality) < LAYERS_MAX)
        .collect();
    if layers.is_empty() {
        layers.push((0, preset(info.height)));
    }
    layers.sort_unstable();
    layers
}

/// Shares `capacity_bps` out: each track in turn gets the highest wanted layer that fits into what
/// those before it have left.
pub(super) fn allot(wanted: &[Wanted], capacity_bps: u64) -> Vec<Allotment> {
    let mut left = capacity_bps;
    wanted
        .iter()
        .map(|track| {
            // One that is wanted below its lowest layer still gets that one.
            let lowest = track.layers.first().map(|(layer, _)| *layer).unwrap_or_default();
            let limit = track.limit.max(lowest);
            let within = track.layers.iter().rev().filter(|(layer, _)| *layer <= limit);
            let fits = within.copied().find(|(_, bitrate_bps)| *bitrate_bps <= left);
            let Some((layer, bitrate_bps)) = fits else { return Allotment::Paused };
            left -= bitrate_bps;
            Allotment::Upto(layer)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted(limit: u8) -> Wanted {
        Wanted { layers: vec![(0, 160_000), (1, 450_000), (2, 1_700_000)], limit }
    }

    #[test]
    fn the_first_come_gets_the_highest_layer_that_fits() {
        let tracks = [wanted(2), wanted(2), wanted(2)];
        let allot = |capacity| allot(&tracks, capacity);
        use Allotment::{Paused, Upto};
        assert_eq!(allot(700_000), [Upto(1), Upto(0), Paused]);
        assert_eq!(allot(50_000), [Paused; 3]);
        assert_eq!(allot(10_000_000), [Upto(2); 3]);
        assert_eq!(allot(1_860_000), [Upto(2), Upto(0), Paused]);
    }

    #[test]
    fn nobody_gets_more_than_it_wants() {
        assert_eq!(
            allot(&[wanted(0), wanted(2)], 610_000),
            [Allotment::Upto(0), Allotment::Upto(1)]
        );
        let high_only = Wanted { layers: vec![(2, 100)], limit: 0 };
        assert_eq!(allot(&[high_only], 100), [Allotment::Upto(2)]);
    }

    #[allow(deprecated)]
    #[test]
    fn bitrates_are_those_announced_or_presets() {
        let layer = |quality, height, bitrate| proto::VideoLayer {
            quality,
            height,
            bitrate,
            ..proto::VideoLayer::default()
        };
        let info = proto::TrackInfo {
            layers: vec![layer(2, 720, 0), layer(0, 180, 99), layer(1, 360, 0), layer(7, 1, 1)],
            ..proto::TrackInfo::default()
        };
        assert_eq!(layers(&info), [(0, 99), (1, 450_000), (2, 1_700_000)]);
        let single = proto::TrackInfo { height: 1_080, ..proto::TrackInfo::default() };
        assert_eq!(layers(&single), [(0, 3_000_000)]);
    }

    proptest! {
        #[test]
        fn what_is_given_out_fits(limits in proptest::collection::vec(0u8..3, 0..20), capacity in 0u64..9_000_000) {
            let tracks: Vec<Wanted> = limits.iter().map(|limit| wanted(*limit)).collect();
            let given: u64 = allot(&tracks, capacity)
                .iter()
                .zip(&tracks)
                .map(|(allotment, track)| match allotment {
                    Allotment::Upto(layer) => track.layers[usize::from(*layer)].1,
                    Allotment::Paused | Allotment::All => 0,
                })
                .sum();
            prop_assert!(given <= capacity);
        }
    }
}
