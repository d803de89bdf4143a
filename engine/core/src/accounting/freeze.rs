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
    /// The stream is muted.
    muted: bool,
    /// It was, at some moment since the last shown frame.
    paused: bool,
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
            muted: false,
            paused: false,
            counted: FreezeCounters::default(),
        }
    }
}

impl FreezeDetector {
    /// The publisher muted or unmuted the track. While it stands still on purpose nothing freezes,
    /// and the time from the last frame before to the first one after is no interval (libwebrtc
    /// counts it as a pause). Signalling may come before or after the media.
    pub fn set_muted(&mut self, muted: bool) {
        self.muted = muted;
        self.paused = true;
    }

    /// A decodable frame could be shown at this moment; true if a freeze ended with it. `lossy` says
    /// that a frame since the last shown one was lost or could not be decoded: the freeze is then
    /// counted as one of loss, otherwise as one of late delivery.
    pub fn shown(&mut self, at: Instant, lossy: bool) -> bool {
        let paused = std::mem::replace(&mut self.paused, self.muted);
        let Some(last) = self.last.replace(at).filter(|_| !paused) else { return false };
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
    fn a_mute_is_no_freeze_whenever_signalling_says_so() {
        // (frame at ms, or mute/unmute before it): signalling early, late, and in between.
        for (mute_ms, unmute_ms) in [(400, 2_300), (1_000, 2_700), (350, 2_900)] {
            let mut detector = FreezeDetector::default();
            let start = Instant::now();
            let frames = (0..=10).chain(63..=100).map(|frame| frame * 40);
            let mut signals = vec![(unmute_ms, false), (mute_ms, true)];
            for ms in frames {
                while let Some(&(_, muted)) = signals.last().filter(|&&(due, _)| due <= ms) {
                    detector.set_muted(muted);
                    signals.pop();
                }
                detector.shown(start + Duration::from_millis(ms), false);
            }
            assert_eq!(detector.counters().count, 0, "{mute_ms} {unmute_ms}");
            let last = start + Duration::from_millis(4_000);
            assert!(detector.shown(last + Duration::from_secs(1), true), "it freezes again");
            let counted = detector.counters();
            assert_eq!((counted.count, counted.lossy), (1, 1));
        }
    }

    #[test]
    fn steady_frames_never_freeze() {
        assert_eq!(run(&[66; 500]).count, 0);
    }
}
