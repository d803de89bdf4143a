//! Which layer a subscriber gets, and what layers take. Pure.

use std::time::{Duration, Instant};

/// Simulcast layers of a track at most (LiveKit's q, h, f).
pub(crate) const LAYERS_MAX: usize = 3;

/// A layer that sent nothing for this long while another one did is taken as switched off; a
/// publisher turns layers off when its uplink is too small.
pub(crate) const LAYER_SILENT_MAX: Duration = Duration::from_secs(1);

/// A place in a picture's layers: first by size, then by rate. Simulcast layers are spatial ones, with
/// all the temporal layers they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Layer {
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
}

impl Layer {
    /// All of this spatial layer.
    pub(crate) const fn spatial(spatial: u8) -> Self {
        Self { spatial, temporal: u8::MAX }
    }
}

/// A layer that is there, and what it takes with all that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) layer: Layer,
    pub(crate) bitrate_bps: u64,
}

/// How much of a track fits the way to a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Cap {
    /// All that it wants.
    #[default]
    Open,
    /// Nothing above this layer.
    Upto(Layer),
    /// Not even the lowest layer.
    Paused,
}

/// The layer of an RTP stream id: `q`, `h`, `f` or `2`, `1`, `0`, low to high (LiveKit
/// `pkg/sfu/buffer/videolayerutils.go`); no rid is the only layer.
pub(crate) fn layer_of_rid(rid: Option<&str>) -> Option<u8> {
    match rid {
        None | Some("q" | "2") => Some(0),
        Some("h" | "1") => Some(1),
        Some("f" | "0") => Some(2),
        Some(_) => None,
    }
}

/// When each layer last sent something.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LayerActivity {
    last_at: [Option<Instant>; LAYERS_MAX],
}

impl LayerActivity {
    /// Notes a packet.
    pub(crate) fn heard(&mut self, layer: u8, at: Instant) {
        if let Some(last) = self.last_at.get_mut(usize::from(layer)) {
            *last = Some(last.map_or(at, |last| last.max(at)));
        }
    }

    /// For each limit (0 low to 2 high) the layer to forward: the highest live one within the
    /// limit, else the lowest live one above it, else none.
    pub(crate) fn choices(&self) -> [Option<u8>; LAYERS_MAX] {
        let Some(newest) = self.last_at.iter().flatten().max() else {
            return [None; LAYERS_MAX];
        };
        let live = |layer: usize| {
            self.last_at[layer]
                .is_some_and(|at| newest.saturating_duration_since(at) < LAYER_SILENT_MAX)
        };
        std::array::from_fn(|limit| {
            let within = (0..=limit).rev().find(|&layer| live(layer));
            let above = || (limit + 1..LAYERS_MAX).find(|&layer| live(layer));
            within.or_else(above).map(|layer| layer as u8)
        })
    }
}

/// The limit for a picture of `width` × `height`: the lowest layer that is at least as large, or
/// the highest. `layers` are (layer, width, height).
pub(crate) fn limit_for_size(layers: &[(u8, u32, u32)], width: u32, height: u32) -> u8 {
    let fits = |&&(_, w, h): &&(u8, u32, u32)| w >= width && h >= height;
    layers.iter().filter(fits).map(|&(layer, ..)| layer).min().unwrap_or(LAYERS_MAX as u8 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_best_live_layer_within_the_limit_is_chosen() {
        let now = Instant::now();
        let mut activity = LayerActivity::default();
        assert_eq!(activity.choices(), [None; 3]);
        activity.heard(0, now);
        assert_eq!(activity.choices(), [Some(0); 3]);
        activity.heard(2, now);
        assert_eq!(activity.choices(), [Some(0), Some(0), Some(2)]);
        activity.heard(1, now + LAYER_SILENT_MAX);
        assert_eq!(activity.choices(), [Some(1); 3], "the others fell silent");
    }

    #[test]
    fn a_requested_size_picks_the_smallest_layer_that_covers_it() {
        let layers = [(0, 320, 180), (1, 640, 360), (2, 1280, 720)];
        assert_eq!(limit_for_size(&layers, 320, 180), 0);
        assert_eq!(limit_for_size(&layers, 321, 180), 1);
        assert_eq!(limit_for_size(&layers, 640, 480), 2);
        assert_eq!(limit_for_size(&layers, 4_000, 4_000), 2);
    }

    #[test]
    fn rids_are_ordered_low_to_high() {
        assert_eq!(layer_of_rid(None), Some(0));
        assert_eq!(["q", "h", "f"].map(|rid| layer_of_rid(Some(rid))), [Some(0), Some(1), Some(2)]);
        assert_eq!(["2", "1", "0"].map(|rid| layer_of_rid(Some(rid))), [Some(0), Some(1), Some(2)]);
        assert_eq!(layer_of_rid(Some("x")), None);
    }

    proptest! {
        #[test]
        fn a_chosen_layer_is_live(heard in proptest::collection::vec((0u8..3, 0u64..5_000), 1..30)) {
            let start = Instant::now();
            let mut activity = LayerActivity::default();
            let mut last = [None; 3];
            for (layer, ms) in heard {
                activity.heard(layer, start + Duration::from_millis(ms));
                let slot = &mut last[usize::from(layer)];
                *slot = Some(slot.map_or(ms, |old: u64| old.max(ms)));
            }
            let newest = last.iter().flatten().max().copied().unwrap();
            for (limit, choice) in activity.choices().into_iter().enumerate() {
                let layer = usize::from(choice.unwrap());
                prop_assert!(newest - last[layer].unwrap() < 1_000);
                if layer > limit {
                    for lower in &last[..=limit] {
                        prop_assert!(lower.is_none_or(|ms| newest - ms >= 1_000));
                    }
                }
            }
        }
    }
}
