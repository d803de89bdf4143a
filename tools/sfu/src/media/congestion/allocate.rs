//! Sharing out what the way to a subscriber carries among its video tracks (LiveKit
//! `pkg/sfu/streamallocator/streamallocator.go`, `allocateAllTracks`). Pure.

use std::borrow::Cow;

use super::super::layers::{Cap, Layer, Step};

/// What a subscriber may get of a track, and what it gets.
#[derive(Debug, Clone)]
pub(crate) struct Demand<'a> {
    /// Layers that are there and of use to it, lowest first; none while nothing was measured.
    pub(crate) steps: Cow<'a, [Step]>,
    /// Highest layer wanted.
    pub(crate) limit: Layer,
    /// What it is held to.
    pub(crate) cap: Cap,
}

impl Demand<'_> {
    /// The highest layer within this one, or the lowest there is.
    fn within(&self, layer: Layer) -> Option<usize> {
        let fits = self.steps.iter().rposition(|step| step.layer <= layer);
        fits.or_else(|| (!self.steps.is_empty()).then_some(0))
    }

    /// The layer it gets: which of the steps.
    fn current(&self) -> Option<usize> {
        match self.cap {
            Cap::Open => self.within(self.limit),
            Cap::Upto(layer) => self.within(layer.min(self.limit)),
            Cap::Paused => None,
        }
    }

    /// What it takes.
    pub(crate) fn usage_bps(&self) -> u64 {
        self.current().map_or(0, |at| self.steps[at].bitrate_bps)
    }

    /// Whether it gets less than it wants.
    pub(crate) fn is_deficient(&self) -> bool {
        !self.steps.is_empty() && self.current() < self.within(self.limit)
    }

    /// How many layers it lacks.
    fn lacks(&self) -> usize {
        let place = |at: Option<usize>| at.map_or(0, |at| at + 1);
        place(self.within(self.limit)) - place(self.current()).min(place(self.within(self.limit)))
    }

    /// How much more the next layer takes that takes more, if it lacks one.
    fn next_bps(&self) -> Option<u64> {
        let next = self.current().map_or(0, |at| at + 1);
        let top = self.within(self.limit)?;
        let above = self.steps.get(next..=top)?;
        above.iter().find_map(|step| step.bitrate_bps.checked_sub(self.usage_bps()))
    }
}

/// What all of them take.
pub(crate) fn usage_bps(demands: &[Demand<'_>]) -> u64 {
    demands.iter().map(Demand::usage_bps).sum()
}

/// How much more the next layer of the track takes that lacks most.
pub(crate) fn next_bps(demands: &[Demand<'_>]) -> Option<u64> {
    let lacking = demands.iter().filter(|demand| demand.is_deficient());
    let lacking = lacking.filter_map(|demand| Some((demand.lacks(), demand.next_bps()?)));
    lacking.max_by_key(|(lacks, _)| *lacks).map(|(_, bps)| bps)
}

/// What each is to be held to, so that all fit: the lowest layer of each in turn, then the next one.
/// Where nobody may be paused the lowest is given whether it fits or not. With `upwards` each keeps what
/// it has, and only what is left beside that is given.
pub(crate) fn allocate(
    demands: &[Demand<'_>],
    capacity_bps: u64,
    allow_pause: bool,
    upwards: bool,
) -> Vec<Cap> {
    let kept = |demand: &Demand<'_>| demand.current().filter(|_| upwards);
    let mut given: Vec<Option<usize>> = demands.iter().map(kept).collect();
    let kept_bps = if upwards { usage_bps(demands) } else { 0 };
    let mut left = capacity_bps.saturating_sub(kept_bps);
    let highest = demands.iter().map(|demand| demand.steps.len()).max().unwrap_or(0);
    for at in 0..highest {
        for (demand, given) in demands.iter().zip(&mut given) {
            if demand.within(demand.limit).is_none_or(|top| at > top) || *given >= Some(at) {
                continue;
            }
            let has_bps = given.map_or(0, |given| demand.steps[given].bitrate_bps);
            let wants_bps = demand.steps[at].bitrate_bps;
            if wants_bps <= left + has_bps || (given.is_none() && !allow_pause) {
                left = (left + has_bps).saturating_sub(wants_bps);
                *given = Some(at);
            }
        }
    }
    let caps = demands.iter().zip(given).map(|(demand, given)| match given {
        // Nothing is known of it, or it gets all.
        _ if demand.steps.is_empty() => demand.cap,
        given if given == demand.within(demand.limit) => Cap::Open,
        Some(at) => Cap::Upto(demand.steps[at].layer),
        None => Cap::Paused,
    });
    caps.collect()
}

#[cfg(test)]
mod tests {
    use std::slice;

    use proptest::prelude::*;

    use super::*;

    fn layer(spatial: u8, temporal: u8) -> Layer {
        Layer { spatial, temporal }
    }

    fn simulcast() -> Vec<Step> {
        let step = |spatial, bitrate_bps| Step { layer: Layer::spatial(spatial), bitrate_bps };
        vec![step(0, 160_000), step(1, 450_000), step(2, 1_700_000)]
    }

    fn demand(steps: &[Step], limit: u8) -> Demand<'_> {
        Demand { steps: steps.into(), limit: Layer::spatial(limit), cap: Cap::Open }
    }

    #[test]
    fn everybody_gets_something_before_anybody_gets_more() {
        let steps = simulcast();
        let tracks = [demand(&steps, 2), demand(&steps, 2)];
        let upto = |spatial| Cap::Upto(Layer::spatial(spatial));
        assert_eq!(allocate(&tracks, 700_000, false, false), [upto(1), upto(0)]);
        assert_eq!(allocate(&tracks, 50_000, false, false), [upto(0), upto(0)]);
        assert_eq!(allocate(&tracks, 200_000, true, false), [upto(0), Cap::Paused]);
        assert_eq!(allocate(&tracks, 50_000, true, false), [Cap::Paused, Cap::Paused]);
        assert_eq!(allocate(&tracks, 9_000_000, true, false), [Cap::Open, Cap::Open]);
        let low = [demand(&steps, 0)];
        assert_eq!(allocate(&low, 200_000, false, false), [Cap::Open], "it wants no more");
        assert_eq!(allocate(&[demand(&[], 2)], 0, true, false), [Cap::Open], "nothing is known");
    }

    #[test]
    fn what_others_keep_is_not_given_away() {
        let steps = simulcast();
        let upto = |spatial| Cap::Upto(Layer::spatial(spatial));
        let held = |spatial| Demand { cap: upto(spatial), ..demand(&steps, 2) };
        // 1.7 Mbit/s and 160 kbit/s: anew it would be 450 kbit/s for each.
        let tracks = [demand(&steps, 2), held(0)];
        assert_eq!(allocate(&tracks, 2_000_000, false, false), [upto(1), upto(1)]);
        assert_eq!(allocate(&tracks, 2_000_000, false, true), [Cap::Open, upto(0)]);
        assert_eq!(allocate(&tracks, 2_150_000, false, true), [Cap::Open, upto(1)]);
        assert_eq!(allocate(&tracks, 1_000, false, true), [Cap::Open, upto(0)]);
        let paused = [held(1), Demand { cap: Cap::Paused, ..demand(&steps, 2) }];
        assert_eq!(allocate(&paused, 600_000, true, true), [upto(1), Cap::Paused]);
        assert_eq!(allocate(&paused, 610_000, true, true), [upto(1), upto(0)]);
    }

    #[test]
    fn temporal_layers_are_taken_and_given_one_by_one() {
        let step = |spatial, temporal, kbps: u64| Step {
            layer: layer(spatial, temporal),
            bitrate_bps: kbps * 1_000,
        };
        let steps = [step(0, 0, 80), step(0, 1, 110), step(0, 2, 150), step(1, 0, 250)];
        let mut track = demand(&steps, 2);
        let given = allocate(slice::from_ref(&track), 120_000, false, false);
        assert_eq!(given, [Cap::Upto(layer(0, 1))]);
        track.cap = Cap::Upto(layer(0, 1));
        assert_eq!((track.usage_bps(), track.lacks()), (110_000, 2));
        assert_eq!(next_bps(slice::from_ref(&track)), Some(40_000));
        track.cap = Cap::Paused;
        assert_eq!((track.usage_bps(), next_bps(slice::from_ref(&track))), (0, Some(80_000)));
        track.cap = Cap::Open;
        assert!(!track.is_deficient() && next_bps(slice::from_ref(&track)).is_none());
    }

    #[test]
    fn the_lowest_there_is_is_given_even_if_less_was_wanted() {
        let steps = &simulcast()[2..];
        assert_eq!(demand(steps, 0).usage_bps(), 1_700_000);
        assert!(!demand(steps, 0).is_deficient());
    }

    proptest! {
        #[test]
        fn what_is_given_fits_or_nothing_could(
            limits in proptest::collection::vec(0u8..3, 0..10),
            capacity in 0u64..9_000_000,
            allow_pause: bool,
        ) {
            let steps = simulcast();
            let tracks: Vec<_> = limits.iter().map(|limit| demand(&steps, *limit)).collect();
            let caps = allocate(&tracks, capacity, allow_pause, false);
            let held: Vec<_> =
                tracks.iter().zip(caps).map(|(track, cap)| Demand { cap, ..track.clone() }).collect();
            let usage = usage_bps(&held);
            let lowest = 160_000 * limits.len() as u64;
            prop_assert!(usage <= capacity || (!allow_pause && usage <= lowest.max(capacity)));
            let lacks = held.iter().any(Demand::is_deficient);
            prop_assert_eq!(lacks, next_bps(&held).is_some());
        }

        #[test]
        fn upwards_nobody_gets_less_and_all_fits(
            tracks in proptest::collection::vec((0u8..3, 0u8..5), 0..6),
            capacity in 0u64..9_000_000,
            allow_pause: bool,
        ) {
            let steps = simulcast();
            let tracks: Vec<_> = tracks.iter().map(|&(limit, cap)| {
                let cap = match cap {
                    3 => Cap::Open,
                    4 if allow_pause => Cap::Paused,
                    spatial => Cap::Upto(Layer::spatial(spatial.min(2))),
                };
                Demand { cap, ..demand(&steps, limit) }
            }).collect();
            let caps = allocate(&tracks, capacity, allow_pause, true);
            let held: Vec<_> =
                tracks.iter().zip(caps).map(|(track, cap)| Demand { cap, ..track.clone() }).collect();
            prop_assert!(usage_bps(&held) <= capacity.max(usage_bps(&tracks)));
            for (before, after) in tracks.iter().zip(&held) {
                prop_assert!(after.usage_bps() >= before.usage_bps());
            }
        }
    }
}
