//! Joins that came to nothing, and what is wrong when they are too many.

use super::threshold::Threshold;

/// Share of the started joins that may fail, or never end, in a run that passes.
pub const JOIN_FAILURE_RATE_MAX: f64 = 0.01;

/// What the fixed bound on joins is about; a threshold of the user's own takes the place of each
/// half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundJoins {
    /// Joins that failed.
    pub failed: bool,
    /// Joins that never ended.
    pub pending: bool,
}

impl BoundJoins {
    /// Where these thresholds are set.
    pub fn under<'a>(thresholds: impl Iterator<Item = &'a Threshold> + Clone) -> Self {
        let own = |key: &str| thresholds.clone().any(|threshold| threshold.key == key);
        Self { failed: !own("join.failed"), pending: !own("join.pending") }
    }
}

/// Of the joins that came to nothing, what the verdict goes by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LostJoins {
    /// Failed, or never ended.
    pub all: u64,
    /// Of them those that `--impair`, or a cohort's impair, explains: it kept everything from them.
    pub on_purpose: u64,
    /// Of all those to which the fixed bound applies, less those on purpose.
    pub bounded: u64,
}

impl LostJoins {
    /// True if they are too many for a run that passes.
    pub(super) fn too_many(&self, started: u64) -> bool {
        self.bounded as f64 > JOIN_FAILURE_RATE_MAX * started as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threshold::Thresholds;

    #[test]
    fn a_threshold_of_ones_own_takes_the_place_of_its_half_of_the_bound() {
        for (text, failed, pending) in [
            ("join.joined>3", true, true),
            ("join.failed<4", false, true),
            ("join.pending<=4 && video.loss_rate<1%", true, false),
            ("join.pending_at.ice<4", true, true),
        ] {
            let own: Thresholds = text.parse().unwrap();
            assert_eq!(BoundJoins::under(own.0.iter()), BoundJoins { failed, pending }, "{text}");
        }
        let lost = LostJoins { all: 2, on_purpose: 1, bounded: 1 };
        assert!(lost.too_many(99) && !lost.too_many(100) && lost.too_many(0));
    }
}
