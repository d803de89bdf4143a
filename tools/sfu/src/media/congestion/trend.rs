//! Whether values fall, such as a subscriber's estimates (LiveKit `pkg/sfu/ccutils/trenddetector.go`). Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Older samples say nothing.
const VALID: Duration = Duration::from_secs(10);

/// How many values tell a trend.
#[derive(Debug, Clone, Copy)]
pub(super) struct TrendConfig {
    /// Samples kept, and needed for a trend.
    pub(super) samples: usize,
    /// Samples without which there is none at all.
    pub(super) samples_min: usize,
    /// Kendall's tau below which it is a fall.
    pub(super) falls_below: f64,
    /// With fewer samples than needed, a fall that has gone on for longer counts too.
    pub(super) falling_for: Duration,
    /// A value that is repeated within this time is one sample.
    pub(super) collapse: Duration,
}

/// Between probes: slow, for each change of layers is a keyframe.
pub(super) const STEADY: TrendConfig = TrendConfig {
    samples: 12,
    samples_min: 8,
    falls_below: -0.6,
    falling_for: Duration::from_secs(5),
    collapse: Duration::from_millis(500),
};
/// In a probe.
pub(super) const PROBING: TrendConfig = TrendConfig {
    samples: 3,
    samples_min: 3,
    falls_below: 0.0,
    falling_for: Duration::from_secs(5),
    collapse: Duration::ZERO,
};

/// The latest estimates.
#[derive(Debug)]
pub(super) struct Trend {
    config: TrendConfig,
    samples: VecDeque<(u64, Instant)>,
    heard: usize,
    highest: u64,
    falls: bool,
}

impl Trend {
    pub(super) fn new(config: TrendConfig) -> Self {
        Self { config, samples: VecDeque::new(), heard: 0, highest: 0, falls: false }
    }

    /// Takes an estimate.
    pub(super) fn add(&mut self, now: Instant, value: u64) {
        self.heard += 1;
        self.highest = self.highest.max(value);
        let repeated = self.samples.back().is_some_and(|&(last, at)| {
            last == value && now.saturating_duration_since(at) < self.config.collapse
        });
        if repeated {
            return;
        }
        self.samples.push_back((value, now));
        self.prune(now);
        self.falls = self.is_falling();
    }

    /// Whether they fall.
    pub(super) fn falls(&self) -> bool {
        self.falls
    }

    /// The highest of all, once there were enough to be believed.
    pub(super) fn highest(&self) -> Option<u64> {
        (self.heard >= self.config.samples).then_some(self.highest)
    }

    fn prune(&mut self, now: Instant) {
        while self.samples.len() > self.config.samples
            || self.samples.front().is_some_and(|(_, at)| now.duration_since(*at) >= VALID)
        {
            self.samples.pop_front();
        }
        // Of equal ones at the front the last alone.
        while self.samples.len() > 1 && self.samples[0].0 == self.samples[1].0 {
            self.samples.pop_front();
        }
    }

    fn is_falling(&self) -> bool {
        let (Some((_, first)), Some((_, last))) = (self.samples.front(), self.samples.back())
        else {
            return false;
        };
        let enough = self.samples.len() >= self.config.samples
            || last.duration_since(*first) > self.config.falling_for;
        self.samples.len() >= self.config.samples_min
            && enough
            && self.kendalls_tau() < self.config.falls_below
    }

    /// How much pairs of samples agree: 1 if all rise, -1 if all fall.
    fn kendalls_tau(&self) -> f64 {
        let (mut rises, mut falls) = (0u32, 0u32);
        for (i, (before, _)) in self.samples.iter().enumerate() {
            for (after, _) in self.samples.iter().skip(i + 1) {
                rises += u32::from(after > before);
                falls += u32::from(after < before);
            }
        }
        match rises + falls {
            0 => 0.0,
            pairs => (f64::from(rises) - f64::from(falls)) / f64::from(pairs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn falls(config: TrendConfig, every_ms: u64, values: &[u64]) -> Option<usize> {
        let (mut trend, start) = (Trend::new(config), Instant::now());
        values.iter().enumerate().position(|(i, &value)| {
            trend.add(start + Duration::from_millis(every_ms) * i as u32, value);
            trend.falls()
        })
    }

    #[test]
    fn twelve_that_fall_are_a_fall_and_eight_over_a_long_time() {
        let falling: Vec<u64> = (0..20).map(|i| 2_000 - 50 * i).collect();
        assert_eq!(falls(STEADY, 200, &falling), Some(11));
        assert_eq!(falls(STEADY, 900, &falling), Some(7));
        assert_eq!(falls(PROBING, 200, &falling), Some(2));
    }

    #[test]
    fn what_stays_or_rises_is_none() {
        assert_eq!(falls(STEADY, 200, &[1_000; 40]), None);
        let rising: Vec<u64> = (0..40).map(|i| 1_000 + 20 * i).collect();
        assert_eq!(falls(STEADY, 200, &rising), None);
        // One step down that is repeated: told late, once the repetitions are samples.
        let step: Vec<u64> = [1_000].into_iter().chain(std::iter::repeat_n(600, 60)).collect();
        assert!(falls(STEADY, 200, &step).is_some_and(|at| at > 12));
    }

    #[test]
    fn the_highest_is_believed_after_enough() {
        let (mut trend, now) = (Trend::new(PROBING), Instant::now());
        trend.add(now, 7);
        trend.add(now, 9);
        assert_eq!(trend.highest(), None);
        trend.add(now, 8);
        assert_eq!(trend.highest(), Some(9));
    }
}
