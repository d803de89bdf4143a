//! Whether more is sent than the way carries: a Kalman filter over how much further apart groups
//! arrive than they were sent, and an adaptive threshold (libwebrtc
//! `modules/remote_bitrate_estimator/overuse_estimator.cc` and `overuse_detector.cc`; the rules
//! are in draft-ietf-rmcat-gcc-02 §5.3 and §5.4).

use super::inter_arrival::Deltas;

/// Groups whose shortest distance scales the noise filter (libwebrtc
/// `kMinFramePeriodHistoryLength`).
const PERIODS: usize = 60;
/// Deltas are counted up to here (libwebrtc `kDeltaCounterMax`).
const DELTAS_MAX: u32 = 1_000;
/// The filter's offset counts at most this often (libwebrtc `kMaxNumDeltas`).
const OFFSET_FACTOR_MAX: u32 = 60;
/// How much a group's size and the offset wander between two groups.
const PROCESS_NOISE: [f64; 2] = [1e-13, 1e-3];
/// More than this above the threshold does not move it: a spike (libwebrtc `kMaxAdaptOffsetMs`).
const ADAPT_OFFSET_MS_MAX: f64 = 15.0;
/// So long above the threshold is overuse (libwebrtc `kOverUsingTimeThreshold`).
const OVERUSE_MS_MIN: f64 = 10.0;
/// How fast the threshold rises and falls, a millisecond (libwebrtc `kUp`, `kDown`).
const THRESHOLD_GAINS: (f64, f64) = (0.0087, 0.039);
/// Bounds of the threshold.
const THRESHOLD_MS: (f64, f64) = (6.0, 600.0);
/// Most time for which one group moves the threshold.
const THRESHOLD_STEP_MS_MAX: i64 = 100;

/// What the way to us does with what is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Usage {
    /// Packets arrive as far apart as they were sent.
    #[default]
    Normal,
    /// A queue grows.
    Over,
    /// A queue empties.
    Under,
}

/// The filter: how much a byte more delays a group, and by how much the queue grows from group
/// to group.
#[derive(Debug)]
#[repr(C)]
pub(super) struct OveruseEstimator {
    deltas: u32,
    slope: f64,
    offset_ms: f64,
    previous_offset_ms: f64,
    covariance: [[f64; 2]; 2],
    noise_mean: f64,
    noise_variance: f64,
    next_period: usize,
    shortest_period: f64,
    /// Long, and of it one is looked at.
    periods: [f64; PERIODS],
}

impl Default for OveruseEstimator {
    fn default() -> Self {
        Self {
            deltas: 0,
            slope: 8.0 / 512.0,
            offset_ms: 0.0,
            previous_offset_ms: 0.0,
            covariance: [[100.0, 0.0], [0.0, 1e-1]],
            noise_mean: 0.0,
            noise_variance: 50.0,
            periods: [f64::INFINITY; PERIODS],
            next_period: 0,
            shortest_period: f64::INFINITY,
        }
    }
}

impl OveruseEstimator {
    /// Takes the deltas of a group. `usage` is what was detected of those before.
    pub(super) fn update(&mut self, deltas: Deltas, usage: Usage) {
        let shortest_period = self.period(deltas.sent_ms);
        self.deltas = (self.deltas + 1).min(DELTAS_MAX);
        let e = &mut self.covariance;
        e[0][0] += PROCESS_NOISE[0];
        e[1][1] += PROCESS_NOISE[1];
        let turns = (usage == Usage::Over && self.offset_ms < self.previous_offset_ms)
            || (usage == Usage::Under && self.offset_ms > self.previous_offset_ms);
        if turns {
            e[1][1] += 10.0 * PROCESS_NOISE[1];
        }
        let size = deltas.bytes;
        let eh = [e[0][0] * size + e[0][1], e[1][0] * size + e[1][1]];
        let residual = deltas.arrived_ms - deltas.sent_ms - self.slope * size - self.offset_ms;
        // Very late groups, keyframes for one, are no Gaussian noise.
        let residual_max = 3.0 * self.noise_variance.sqrt();
        if usage == Usage::Normal {
            self.update_noise(residual.clamp(-residual_max, residual_max), shortest_period);
        }
        let e = &mut self.covariance;
        let denominator = self.noise_variance + size * eh[0] + eh[1];
        let gain = [eh[0] / denominator, eh[1] / denominator];
        let ikh = [[1.0 - gain[0] * size, -gain[0]], [-gain[1] * size, 1.0 - gain[1]]];
        let (e00, e01) = (e[0][0], e[0][1]);
        e[0][0] = e00 * ikh[0][0] + e[1][0] * ikh[0][1];
        e[0][1] = e01 * ikh[0][0] + e[1][1] * ikh[0][1];
        e[1][0] = e00 * ikh[1][0] + e[1][0] * ikh[1][1];
        e[1][1] = e01 * ikh[1][0] + e[1][1] * ikh[1][1];
        self.slope += gain[0] * residual;
        self.previous_offset_ms = self.offset_ms;
        self.offset_ms += gain[1] * residual;
    }

    /// The shortest of the last distances and this one. The history is searched only when the
    /// shortest leaves it.
    fn period(&mut self, sent_ms: f64) -> f64 {
        let before = self.shortest_period;
        let leaving = std::mem::replace(&mut self.periods[self.next_period], sent_ms);
        self.next_period = (self.next_period + 1) % PERIODS;
        if sent_ms <= before {
            self.shortest_period = sent_ms;
        } else if leaving <= before {
            let shorter = |one, other| if other < one { other } else { one };
            self.shortest_period = self.periods.iter().copied().fold(f64::INFINITY, shorter);
        }
        self.shortest_period
    }

    fn update_noise(&mut self, residual: f64, period_ms: f64) {
        // Faster in the beginning. Tuned for 30 groups a second, scaled for others.
        let alpha: f64 = if self.deltas > 10 * 30 { 0.002 } else { 0.01 };
        let beta = (1.0 - alpha).powf(period_ms * 30.0 / 1_000.0);
        self.noise_mean = beta * self.noise_mean + (1.0 - beta) * residual;
        let deviation = self.noise_mean - residual;
        self.noise_variance =
            (beta * self.noise_variance + (1.0 - beta) * deviation * deviation).max(1.0);
    }
}

/// The threshold, and how long the filter's offset has been above it.
#[derive(Debug)]
pub(super) struct OveruseDetector {
    usage: Usage,
    threshold_ms: f64,
    updated_ms: Option<i64>,
    previous_offset_ms: f64,
    over_ms: Option<f64>,
    over_count: u32,
}

impl Default for OveruseDetector {
    fn default() -> Self {
        Self {
            usage: Usage::Normal,
            threshold_ms: 12.5,
            updated_ms: None,
            previous_offset_ms: 0.0,
            over_ms: None,
            over_count: 0,
        }
    }
}

impl OveruseDetector {
    /// What was detected last.
    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// Looks at the filter after a group that was sent `sent_ms` after the one before.
    pub(super) fn detect(&mut self, filter: &OveruseEstimator, sent_ms: f64, now_ms: i64) {
        if filter.deltas < 2 {
            return;
        }
        let offset_ms = filter.offset_ms;
        let weighted = f64::from(filter.deltas.min(OFFSET_FACTOR_MAX)) * offset_ms;
        if weighted > self.threshold_ms {
            // It is taken to have been over for half of the time since the group before.
            let over_ms = self.over_ms.map_or(sent_ms / 2.0, |over_ms| over_ms + sent_ms);
            self.over_ms = Some(over_ms);
            self.over_count += 1;
            if over_ms > OVERUSE_MS_MIN
                && self.over_count > 1
                && offset_ms >= self.previous_offset_ms
            {
                (self.over_ms, self.over_count) = (Some(0.0), 0);
                self.usage = Usage::Over;
            }
        } else {
            (self.over_ms, self.over_count) = (None, 0);
            let is_under = weighted < -self.threshold_ms;
            self.usage = if is_under { Usage::Under } else { Usage::Normal };
        }
        self.previous_offset_ms = offset_ms;
        self.adapt(weighted.abs(), now_ms);
    }

    fn adapt(&mut self, weighted_ms: f64, now_ms: i64) {
        let updated_ms = self.updated_ms.replace(now_ms).unwrap_or(now_ms);
        if weighted_ms > self.threshold_ms + ADAPT_OFFSET_MS_MAX {
            return;
        }
        let (up, down) = THRESHOLD_GAINS;
        let gain = if weighted_ms < self.threshold_ms { down } else { up };
        let elapsed_ms = (now_ms - updated_ms).min(THRESHOLD_STEP_MS_MAX) as f64;
        self.threshold_ms += gain * (weighted_ms - self.threshold_ms) * elapsed_ms;
        self.threshold_ms = self.threshold_ms.clamp(THRESHOLD_MS.0, THRESHOLD_MS.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds groups `sent_ms` apart that arrive `arrived_ms` apart; the usages seen.
    fn run(groups: u32, sent_ms: f64, arrived_ms: f64) -> Vec<Usage> {
        let (mut filter, mut detector) = (OveruseEstimator::default(), OveruseDetector::default());
        let mut seen = Vec::new();
        for at in 0..groups {
            filter.update(Deltas { sent_ms, arrived_ms, bytes: 0.0 }, detector.usage());
            let now_ms = (f64::from(at) * arrived_ms) as i64;
            detector.detect(&filter, sent_ms, now_ms);
            seen.push(detector.usage());
        }
        seen
    }

    #[test]
    fn a_queue_that_grows_is_overuse_and_one_that_empties_underuse() {
        assert!(run(300, 33.0, 33.0).iter().all(|&usage| usage == Usage::Normal));
        let grows = run(60, 33.0, 43.0);
        let first = grows.iter().position(|&usage| usage == Usage::Over).unwrap();
        assert!(first < 30, "{first}");
        assert!(run(60, 33.0, 23.0).contains(&Usage::Under));
    }

    #[test]
    fn the_shortest_period_is_that_of_the_last_sixty() {
        let mut filter = OveruseEstimator::default();
        assert_eq!(filter.period(5.0), 5.0);
        for _ in 0..59 {
            assert_eq!(filter.period(9.0), 5.0);
        }
        assert_eq!(filter.period(8.0), 8.0);
        assert_eq!(filter.period(7.0), 7.0);
    }
}
