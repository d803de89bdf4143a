//! Freezes by libwebrtc's rule, from the times frames could have been shown.

use std::time::{Duration, Instant};

use crate::FreezeCounters;
use crate::watch::{FrameTime, Intervals};

/// Why the picture stood still.
#[derive(Debug, Clone, Copy)]
enum Cause {
    /// A frame was lost or could not be decoded.
    Loss,
    /// The next frame had been due before.
    Late,
    /// None was due, or none came any more.
    Silent,
}

/// Counts freezes of one stream (libwebrtc `video_quality_observer2.cc`): an interval between two
/// shown frames of at least max(3 × avg, avg + 150 ms). As there, the interval itself is in the
/// average of the last 30, and everything is in whole milliseconds.
#[derive(Debug, Clone, Default)]
pub struct FreezeDetector {
    /// When the last frame could be shown, and its RTP timestamp.
    last: Option<(Instant, u32)>,
    intervals: Intervals,
    /// Freezes count from here on.
    window_start: Option<Instant>,
    /// `None` before the first: most streams never freeze.
    counted: Option<Box<FreezeCounters>>,
}

impl FreezeDetector {
    /// The stream stood still on purpose since the last shown frame.
    pub fn pause(&mut self) {
        self.last = None;
    }

    /// The intervals between the frames shown so far.
    pub fn intervals(&self) -> &Intervals {
        &self.intervals
    }

    /// A decodable frame could be shown at this moment. `lossy` says that a frame since the last
    /// shown one was lost or could not be decoded: a freeze that ends here is then counted as one
    /// of loss, otherwise as one of late delivery, or as silence if the publisher's clock went on as
    /// long.
    pub fn shown(&mut self, at: Instant, frame: FrameTime, lossy: bool) {
        let Some((last, timestamp)) = self.last.replace((at, frame.timestamp)) else { return };
        let interval = at.saturating_duration_since(last);
        self.intervals.push(interval);
        let cause = match lossy {
            true => Cause::Loss,
            false if frame.kept_pace(timestamp, interval) => Cause::Silent,
            false => Cause::Late,
        };
        self.count_if_frozen(self.intervals.freeze_bound(), last, at, cause);
    }

    /// The stream ends, and its last frame stood until now: a freeze that is still open is one too, of
    /// silence unless something was lost.
    pub fn end(&mut self, now: Instant, lossy: bool) {
        if let Some((last, _)) = self.last.take() {
            // It is no interval between two frames: what the last one covers stays as it was.
            let mut intervals = self.intervals.clone();
            intervals.push(now.saturating_duration_since(last));
            let cause = if lossy { Cause::Loss } else { Cause::Silent };
            self.count_if_frozen(intervals.freeze_bound(), last, now, cause);
        }
    }

    fn count_if_frozen(
        &mut self,
        bound: Option<Duration>,
        last: Instant,
        at: Instant,
        cause: Cause,
    ) {
        let Some(bound) = bound else { return };
        let interval_ms = at.saturating_duration_since(last).as_millis();
        // Of a freeze that began before the measured window, the part inside it.
        let from = self.window_start.map_or(last, |start| start.max(last));
        let frozen = at.saturating_duration_since(from);
        if interval_ms < bound.as_millis() || frozen.is_zero() {
            return;
        }
        let counted = self.counted.get_or_insert_default();
        counted.count += 1;
        counted.total_s.0 += frozen;
        counted.streams = 1;
        let causes = &mut counted.causes;
        let cause = match cause {
            Cause::Loss => &mut causes.loss,
            Cause::Late => &mut causes.late,
            Cause::Silent => &mut causes.silent,
        };
        cause.count += 1;
        cause.total_s.0 += frozen;
    }

    /// The counts so far.
    pub fn counters(&self) -> FreezeCounters {
        self.counted.as_deref().copied().unwrap_or_default()
    }

    /// Counts from `now` on only; the average goes on.
    pub fn restart_counting(&mut self, now: Instant) {
        self.window_start = Some(now);
        self.forget();
    }

    /// What was counted so far was not of the measured window.
    pub fn forget(&mut self) {
        self.counted = None;
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub fn heap_bytes(&self) -> usize {
        self.counted.as_deref().map_or(0, size_of_val)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame that was sent so long after the first one.
    fn sent(ms: u64) -> FrameTime {
        FrameTime { timestamp: (ms as u32 * 90).wrapping_sub(1_000), clock_rate: 90_000 }
    }

    fn run(intervals_ms: &[u64]) -> FreezeCounters {
        let mut detector = FreezeDetector::default();
        let start = Instant::now();
        let mut ms = 0;
        for &interval in [0].iter().chain(intervals_ms) {
            ms += interval;
            detector.shown(start + Duration::from_millis(ms), sent(ms), false);
        }
        detector.counters()
    }

    #[test]
    fn what_came_late_is_told_from_what_was_not_sent() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        // Frames every 40 ms; then one that came after a second and was sent after so much of it.
        let causes = |sent_ms: u64, lossy| {
            let mut detector = FreezeDetector::default();
            (0..=30).for_each(|frame| detector.shown(at(frame * 40), sent(frame * 40), false));
            detector.shown(at(2_200), sent(1_200 + sent_ms), lossy);
            let causes = detector.counters().causes;
            [causes.loss.count, causes.late.count, causes.silent.count]
        };
        assert_eq!(causes(1_000, false), [0, 0, 1], "a file of variable rate");
        assert_eq!(causes(800, false), [0, 0, 1], "and a little late");
        assert_eq!(causes(40, false), [0, 1, 0], "the server kept it back");
        assert_eq!(causes(700, false), [0, 1, 0]);
        assert_eq!(causes(1_000, true), [1, 0, 0]);
        let mut detector = FreezeDetector::default();
        (0..=30).for_each(|frame| detector.shown(at(frame * 40), sent(frame * 40), false));
        detector.end(at(9_000), false);
        let silent = detector.counters().causes.silent;
        assert_eq!((silent.count, silent.total_s.0), (1, Duration::from_millis(7_800)));
    }

    #[test]
    fn libwebrtcs_own_test_vector() {
        // receive_statistics_proxy_unittest.cc, ReportsFreezeMetrics: five frames 30 ms apart,
        // then one after a second.
        let freezes = run(&[30, 30, 30, 30, 1_000]);
        assert_eq!((freezes.count, freezes.total_s.0), (1, Duration::from_secs(1)));
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
        (0..=10).for_each(|frame| detector.shown(at(frame * 40), sent(frame * 40), false));
        detector.pause();
        detector.shown(at(2_500), sent(2_500), false);
        detector.shown(at(2_540), sent(2_540), false);
        assert_eq!(detector.counters().count, 0);
        detector.shown(at(3_540), sent(3_540), true);
        assert_eq!((detector.counters().count, detector.counters().causes.loss.count), (1, 1));
    }

    #[test]
    fn of_a_freeze_begun_before_the_window_the_part_inside_counts() {
        let mut detector = FreezeDetector::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        (0..20).for_each(|frame| detector.shown(at(frame * 40), sent(frame * 40), false));
        detector.restart_counting(at(8_000));
        detector.shown(at(8_300), sent(8_300), false);
        let counted = detector.counters();
        assert_eq!((counted.count, counted.total_s.0), (1, Duration::from_millis(300)));
        // Judged late: it had ended before the window began.
        let mut detector = FreezeDetector::default();
        (0..20).for_each(|frame| detector.shown(at(frame * 40), sent(frame * 40), false));
        detector.restart_counting(at(8_000));
        detector.shown(at(7_990), sent(7_990), false);
        assert_eq!(detector.counters(), FreezeCounters::default());
    }

    #[test]
    fn a_freeze_that_never_ends_is_one() {
        let mut detector = FreezeDetector::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        (0..=10).for_each(|frame| detector.shown(at(frame * 40), sent(frame * 40), false));
        detector.end(at(6_400), false);
        let counted = detector.counters();
        assert_eq!((counted.count, counted.total_s.0), (1, Duration::from_secs(6)));
        // A stream that is taken away at once froze nobody.
        let mut detector = FreezeDetector::default();
        (0..=10).for_each(|frame| detector.shown(at(frame * 40), sent(frame * 40), false));
        detector.end(at(500), false);
        assert_eq!(detector.counters().count, 0);
    }

    #[test]
    fn steady_frames_never_freeze() {
        assert_eq!(run(&[66; 500]).count, 0);
    }
}
