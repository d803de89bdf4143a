//! The seeded loss model. Pure.

use crate::SfuImpairments;

/// A small fast generator (SplitMix64, Steele et al. 2014); the same seed gives the same drops on
/// every machine.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// Starts at a seed; seeds that differ in one bit give unrelated sequences.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Self(seed);
        random.next();
        random
    }

    /// Mixes a name into a seed (FNV-1a), so that each subscriber has its own sequence.
    pub(crate) fn named(seed: u64, name: &str) -> Self {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self::new(seed ^ hash)
    }

    /// The next 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in 0.0 to below 1.0.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Decides packet by packet what is dropped: uniform, or Gilbert-Elliott in its simple form (all
/// is lost in the bad state, nothing in the good one).
#[derive(Debug, Clone)]
pub(crate) struct DropModel {
    random: Random,
    enter: f64,
    leave: f64,
    uniform: Option<f64>,
    bad: bool,
}

impl DropModel {
    /// The model of one subscriber; `None` when nothing is to be dropped.
    pub(crate) fn new(impair: &SfuImpairments, seed: u64, name: &str) -> Option<Self> {
        if impair.drop <= 0.0 {
            return None;
        }
        let burst = f64::from(impair.drop_burst.max(1));
        let leave = 1.0 / burst;
        // In the long run the share of bad is enter / (enter + leave).
        let enter = leave * impair.drop / (1.0 - impair.drop);
        let uniform = (impair.drop_burst <= 1).then_some(impair.drop);
        Some(Self { random: Random::named(seed, name), enter, leave, uniform, bad: false })
    }

    /// Whether the next packet is dropped.
    pub(crate) fn drops(&mut self) -> bool {
        let draw = self.random.unit();
        if let Some(share) = self.uniform {
            return draw < share;
        }
        self.bad = if self.bad { draw >= self.leave } else { draw < self.enter };
        self.bad
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn model(drop: f64, drop_burst: u32, seed: u64) -> DropModel {
        let impair = SfuImpairments { drop, drop_burst, ..SfuImpairments::default() };
        DropModel::new(&impair, seed, "alice").unwrap()
    }

    #[test]
    fn nothing_to_drop_is_no_model() {
        assert!(DropModel::new(&SfuImpairments::default(), 1, "alice").is_none());
    }

    #[test]
    fn a_seed_and_a_name_fix_the_sequence() {
        let draw = |seed, name: &str| {
            let impair = SfuImpairments { drop: 0.5, ..SfuImpairments::default() };
            let mut model = DropModel::new(&impair, seed, name).unwrap();
            (0..64).map(|_| model.drops()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7, "alice"), draw(7, "alice"));
        assert_ne!(draw(7, "alice"), draw(8, "alice"));
        assert_ne!(draw(7, "alice"), draw(7, "bob"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn share_and_burst_length_are_as_asked(
            drop in 0.005f64..0.3, burst in 1u32..8, seed: u64,
        ) {
            let mut model = model(drop, burst, seed);
            let (mut dropped, mut runs, mut last) = (0u32, 0u32, false);
            let total = 400_000;
            for _ in 0..total {
                let now = model.drops();
                dropped += u32::from(now);
                runs += u32::from(now && !last);
                last = now;
            }
            let share = f64::from(dropped) / f64::from(total);
            prop_assert!((share - drop).abs() < 0.1 * drop + 0.002, "share {share} for {drop}");
            let length = f64::from(dropped) / f64::from(runs);
            // Independent drops form runs of 1 / (1 - p).
            let expected = if burst == 1 { 1.0 / (1.0 - drop) } else { f64::from(burst) };
            prop_assert!((length - expected).abs() < 0.15 * expected, "{length} for {expected}");
        }
    }
}
