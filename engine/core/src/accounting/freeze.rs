//! Freezes by libwebrtc's rule, from the times frames could have been shown.

use std::time::Instant;

use crate::FreezeCounters;

/// Intervals in the average (libwebrtc `kAvgInterframeDelaysWindowSizeFrames`).
const WINDOW: usize = 30;
/// Intervals before a freeze is looked for (libwebrtc `kMinFrameSamplesToDetectFreeze`).
const SAMPLES_MIN: usize = 5;
/// Least increase over the average (libwebrtc `kMinIncreaseForFreezeMs`).
const INCREASE_MIN_MS: u32 = 150;

/// Counts freezes of one stream (libwebrtc `video_quality_observer2.cc`): an interval between two
/// shown frames of at least max(3 × avg, avg + 150 ms). As there, the interval itself is in the
/// average of the last 30, and everything is in whole milliseconds.
#[derive(Debug, Clone)]
pub struct FreezeDetector {
    last: Option<Instant>,
    intervals_ms: [u32; WINDOW],
    /// Valid entries of `intervals_ms`.
    len: usize,
    next: usize,
    sum_ms: u64,
    counted: FreezeCounters,
}

impl Default for FreezeDetector {
    fn default() -> Self {
        Self {
            last: None,
            intervals_ms: [0; WINDOW],
            len: 0,
            next: 0,
            sum_ms: 0,
            counted: FreezeCounters::default(),
        }
    }
}

impl FreezeDetector {
    /// The stream stood still on purpose since the last shown frame.
    pub fn pause(&mut self) {
        self.last = None;
    }

    /// A decodable frame could be shown at this moment; true if a freeze ended with it. `lossy` says
    /// that a frame since the last shown one was lost or could not be decoded: the freeze is then
    /// counted as one of loss, otherwise as one of late delivery.
    pub fn shown(&mut self, at: Instant, lossy: bool) -> bool {
        let Some(last) = self.last.replace(at) else { return false };
        let interval = at.saturating_duration_since(last);
        let interval_ms = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
        self.sum_ms += u64::from(interval_ms);
        self.sum_ms -= u64::from(self.intervals_ms[self.next]);
        self.intervals_ms[self.next] = interval_ms;
        self.next = (self.next + 1) % WINDOW;
        self.len = (self.len + 1).min(WINDOW);
        if self.len < SAMPLES_MIN {
            return false;
        }
        let average_ms = (self.sum_ms / self.len as u64) as u32;
        let bound_ms = average_ms.saturating_mul(3).max(average_ms + INCREASE_MIN_MS);
        if interval_ms < bound_ms {
            return false;
        }
        self.counted.count += 1;
        self.counted.total += interval;
        self.counted.streams = 1;
        if lossy {
            self.counted.lossy += 1;
            self.counted.lossy_total += interval;
        }
        true
    }

    /// The counts so far.
    pub fn counters(&self) -> FreezeCounters {
        self.counted
    }

    /// Counts from here on only; the average goes on.
    pub fn restart_counting(&mut self) {
        self.counted = FreezeCounters::default();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn run(intervals_ms: &[u64]) -> FreezeCounters {
        let mut detector = FreezeDetector::default();
        let mut at = Instant::now();
        detector.shown(at, false);
        for &interval in intervals_ms {
            at += Duration::from_millis(interval);
            detector.shown(at, false);
        }
        detector.counters()
    }

    #[test]
    fn libwebrtcs_own_test_vector() {
        // receive_statistics_proxy_unittest.cc, ReportsFreezeMetrics: five frames 30 ms apart,
        // then one after a second.
        let freezes = run(&[30, 30, 30, 30, 1_000]);
        assert_eq!((freezes.count, freezes.total), (1, Duration::from_secs(1)));
        assert_eq!(run(&[30, 30, 30, 1_000]).count, 0, "too few samples");
    }

    #[test]
    fn the_bound_includes_the_interval_itself() {
        // avg (4·33 + x)/5; at 15 fps and up avg + 150 ms decides.
        let steady = [33; 29];
        let with = |last| run(&[&steady[..], &[last]].concat()).count;
        // avg(x) = (957 + x) / 30 rounded down; bound avg + 150: x = 188 → 38 + 150.
        assert_eq!(with(187), 0);
        assert_eq!(with(188), 1);
    }

    #[test]
    fn a_pause_is_no_interval() {
        let mut detector = FreezeDetector::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        (0..=10).for_each(|frame| assert!(!detector.shown(at(frame * 40), false)));
        detector.pause();
        assert!(!detector.shown(at(2_500), false));
        assert!(!detector.shown(at(2_540), false));
        assert!(detector.shown(at(3_540), true), "it freezes again");
        assert_eq!((detector.counters().count, detector.counters().lossy), (1, 1));
    }

    #[test]
    fn steady_frames_never_freeze() {
        assert_eq!(run(&[66; 500]).count, 0);
    }
}
