//! The time that the playable frames of one stream cover.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::layers::LayerTime;
use crate::MediaKind;

/// Intervals in the average (libwebrtc `kAvgInterframeDelaysWindowSizeFrames`).
const WINDOW: usize = 30;
/// Intervals before the average says anything (libwebrtc `kMinFrameSamplesToDetectFreeze`).
const SAMPLES_MIN: usize = 5;
/// Least increase over the average (libwebrtc `kMinIncreaseForFreezeMs`).
const INCREASE_MIN_MS: u32 = 150;
/// An interval counts as no longer than this in what frames cover: the seconds of a blackout would
/// else be added to what each frame after it covers, and hide the next one.
const COVERED_INTERVAL_MAX_MS: u32 = 1_000;
/// How long a frame covers at most while the stream has fewer than five intervals.
pub const FALLBACK_COVER: Duration = Duration::from_millis(500);
/// The longest silence in which an audio stream that numbers on without a gap, and whose RTP clock
/// went on with the time, is taken for the publisher's own pause (DTX). Opus refreshes its comfort
/// noise every 400 ms (RFC 7587 §3.1.3, libopus `MAX_CONSECUTIVE_DTX`), so nothing longer is one.
pub const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a packet covers that begins or goes on with such a pause: up to the next refresh, and
/// what it may come late.
pub const PAUSE_COVER: Duration = Duration::from_millis(550);
/// How far the RTP clock may lag behind arrivals over a gap that is still the publisher's own.
const OWN_GAP_SLACK: Duration = Duration::from_millis(250);

/// The last intervals between playable frames, in whole milliseconds, as libwebrtc keeps them
/// (`video_quality_observer2.cc`).
#[derive(Debug, Clone, Default)]
pub struct Intervals {
    intervals_ms: [u32; WINDOW],
    /// Valid entries of `intervals_ms`.
    len: u8,
    next: u8,
    sum_ms: u64,
    /// The same with each interval no longer than [`COVERED_INTERVAL_MAX_MS`].
    covered_sum_ms: u64,
}

impl Intervals {
    /// Adds one.
    pub fn push(&mut self, interval: Duration) {
        let interval_ms = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
        let next = usize::from(self.next);
        self.sum_ms += u64::from(interval_ms);
        self.sum_ms -= u64::from(self.intervals_ms[next]);
        let covered = |interval_ms: u32| u64::from(interval_ms.min(COVERED_INTERVAL_MAX_MS));
        self.covered_sum_ms += covered(interval_ms);
        self.covered_sum_ms -= covered(self.intervals_ms[next]);
        self.intervals_ms[next] = interval_ms;
        self.next = ((next + 1) % WINDOW) as u8;
        self.len = (self.len + 1).min(WINDOW as u8);
    }

    /// From what length on an interval is a freeze: max(3 × avg, avg + 150 ms); `None` with fewer
    /// than five.
    pub fn freeze_bound(&self) -> Option<Duration> {
        self.bound(self.sum_ms)
    }

    fn bound(&self, sum_ms: u64) -> Option<Duration> {
        if usize::from(self.len) < SAMPLES_MIN {
            return None;
        }
        let average_ms = (sum_ms / u64::from(self.len)) as u32;
        let bound_ms = average_ms.saturating_mul(3).max(average_ms + INCREASE_MIN_MS);
        Some(Duration::from_millis(bound_ms.into()))
    }

    /// How long a frame covers at most: the freeze bound of intervals of at most a second, or
    /// [`FALLBACK_COVER`].
    pub fn cover(&self) -> Duration {
        self.bound(self.covered_sum_ms).unwrap_or(FALLBACK_COVER)
    }
}

/// What a stream saw beside playable frames over some stretch: why there may be a gap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Sequence numbers were lost for good, or are missing.
    pub lost: bool,
    /// Frames came whole and could not be decoded.
    pub undecodable: bool,
    /// What came next had been due before.
    pub late: bool,
    /// Packets of the stream were dropped on purpose.
    pub on_purpose: bool,
}

impl Trouble {
    /// Both together.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            lost: self.lost || other.lost,
            undecodable: self.undecodable || other.undecodable,
            late: self.late || other.late,
            on_purpose: self.on_purpose || other.on_purpose,
        }
    }
}

/// A stretch in which something played without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first frame could be shown.
    pub from: Instant,
    /// The nominal end of the last one.
    pub until: Instant,
    /// What was seen between the end of the span before and its first frame.
    pub before: Trouble,
}

/// What is new of one stream; see [`Cover::take`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamCover {
    /// LiveKit's track id; `None` while no offer has named it.
    pub track_id: Option<Arc<str>>,
    /// Tells the streams of a peer apart.
    pub stream: u32,
    /// Audio or video.
    pub kind: MediaKind,
    /// A media packet has come.
    pub received: bool,
    /// Spans that have ended, in order, each handed out once.
    pub ended: Vec<Span>,
    /// The span that goes on, as far as it is known.
    pub open: Option<Span>,
    /// What was seen since the last frame that could be shown.
    pub trouble: Trouble,
    /// How long which layer was shown, each stretch handed out once; empty for audio.
    pub layers: Vec<LayerTime>,
    /// No more comes of this stream.
    pub last: bool,
}

/// Turns the moments of a stream's playable frames into spans. A frame covers the time up to the
/// next one, but no longer than libwebrtc's freeze bound from the intervals before it.
#[derive(Debug, Clone, Default)]
pub struct Cover {
    /// The first frame of the open span, and the last one with its RTP timestamp.
    open: Option<(Instant, Instant, u32)>,
    /// Of the open span.
    before: Trouble,
    /// Since the last frame.
    trouble: Trouble,
    ended: Vec<Span>,
}

impl Cover {
    /// Something happened that may explain a gap after the last frame.
    pub fn trouble(&mut self, trouble: Trouble) {
        self.trouble = self.trouble.or(trouble);
    }

    /// A frame could be shown at this moment. `cover` is what the intervals before it say
    /// ([`Intervals::cover`]), `pauses` that a gap of the publisher's own making is play; true
    /// if this gap was one.
    pub fn shown(&mut self, at: Instant, frame: FrameTime, cover: Duration, pauses: bool) -> bool {
        let trouble = std::mem::take(&mut self.trouble);
        let Some((from, last, timestamp)) = self.open else {
            self.open = Some((at, at, frame.timestamp));
            self.before = trouble;
            return false;
        };
        let gap = at.saturating_duration_since(last);
        let at = at.max(last);
        if gap <= cover {
            // A repaired one is older than the last.
            let newest = if frame.is_after(timestamp) { frame.timestamp } else { timestamp };
            self.open = Some((from, at, newest));
            return false;
        }
        let own = frame.kept_pace(timestamp, gap);
        if pauses && own && !trouble.lost && !trouble.on_purpose && gap <= PAUSE_MAX {
            self.open = Some((from, at, frame.timestamp));
            return true;
        }
        self.ended.push(Span { from, until: last + cover, before: self.before });
        self.before = Trouble { late: !own, ..trouble };
        self.open = Some((at, at, frame.timestamp));
        false
    }

    /// What is new since the last call: the spans that have ended, the open one, and what was seen
    /// since its last frame.
    pub fn take(&mut self, cover: Duration) -> (Vec<Span>, Option<Span>, Trouble) {
        let open = self.open.map(|(from, last, _)| Span {
            from,
            until: last + cover,
            before: self.before,
        });
        (std::mem::take(&mut self.ended), open, self.trouble)
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub fn heap_bytes(&self) -> usize {
        self.ended.capacity() * size_of::<Span>()
    }
}

/// A frame by its publisher's clock.
#[derive(Debug, Clone, Copy)]
pub struct FrameTime {
    /// RTP timestamp.
    pub timestamp: u32,
    /// Ticks a second.
    pub clock_rate: u32,
}

impl FrameTime {
    fn is_after(self, other: u32) -> bool {
        self.timestamp.wrapping_sub(other).cast_signed() > 0
    }

    /// It came so long after an earlier frame because none was due in between: the publisher's clock
    /// went on as long.
    pub(crate) fn kept_pace(self, earlier: u32, gap: Duration) -> bool {
        gap.saturating_sub(self.since(earlier)) <= OWN_GAP_SLACK.min(gap / 2)
    }

    /// From an earlier frame to this one; zero if it is not earlier.
    fn since(self, earlier: u32) -> Duration {
        if !self.is_after(earlier) || self.clock_rate == 0 {
            return Duration::ZERO;
        }
        let ticks = self.timestamp.wrapping_sub(earlier);
        Duration::from_secs_f64(f64::from(ticks) / f64::from(self.clock_rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rig {
        start: Instant,
        cover: Cover,
        intervals: Intervals,
        last: Option<Instant>,
        pauses: bool,
    }

    impl Rig {
        fn new(pauses: bool) -> Self {
            let (cover, intervals) = (Cover::default(), Intervals::default());
            Self { start: Instant::now(), cover, intervals, last: None, pauses }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        /// A frame at this moment that its publisher sent at another.
        fn frame(&mut self, ms: u64, sent_ms: u64) {
            let at = self.at(ms);
            let frame = FrameTime { timestamp: (sent_ms * 48) as u32, clock_rate: 48_000 };
            let paused = self.cover.shown(at, frame, self.intervals.cover(), self.pauses);
            if let Some(last) = self.last.replace(at).filter(|_| !paused) {
                self.intervals.push(at - last);
            }
        }

        fn spans(&mut self) -> Vec<(u64, u64)> {
            let (mut spans, open, _) = self.cover.take(self.intervals.cover());
            spans.extend(open);
            let ms = |at: Instant| (at - self.start).as_millis() as u64;
            spans.iter().map(|span| (ms(span.from), ms(span.until))).collect()
        }
    }

    #[test]
    fn a_frame_covers_up_to_the_next_at_most_the_freeze_bound() {
        let mut rig = Rig::new(false);
        (0..=10).for_each(|frame| rig.frame(frame * 40, frame * 40));
        rig.frame(580, 580);
        // 40 ms on average: 190 ms after the frame at 400.
        assert_eq!(rig.spans(), [(0, 580 + 52 + 150)], "180 ms are no gap");
        rig.frame(2_000, 2_000);
        let spans = rig.spans();
        assert_eq!(spans[0], (0, 580 + 52 + 150));
        assert_eq!(spans[1].0, 2_000);
        assert!(rig.spans().len() == 1, "an ended span is handed out once");
    }

    #[test]
    fn a_blackout_does_not_hide_the_next_one() {
        let mut rig = Rig::new(false);
        (0..=30).for_each(|frame| rig.frame(frame * 40, frame * 40));
        rig.frame(61_200, 61_200);
        let (_, open, _) = rig.cover.take(rig.intervals.cover());
        assert_eq!(open.unwrap().until - rig.at(61_200), Duration::from_millis(72 + 150));
    }

    #[test]
    fn few_frames_cover_the_fallback() {
        let mut rig = Rig::new(false);
        rig.frame(0, 0);
        assert_eq!(rig.spans(), [(0, 500)]);
        rig.frame(2_000, 2_000);
        assert_eq!(rig.spans(), [(0, 500), (2_000, 2_500)]);
    }

    #[test]
    fn a_pause_of_the_publisher_is_play_and_what_came_late_is_not() {
        let mut rig = Rig::new(true);
        (0..50).for_each(|packet| rig.frame(packet * 20, packet * 20));
        (0..10).for_each(|packet| rig.frame(1_380 + packet * 400, 1_380 + packet * 400));
        let end = 1_380 + 9 * 400;
        assert_eq!(rig.spans(), [(0, end + 170)], "DTX");
        // Held back for 800 ms, then all at once.
        rig.frame(end + 800, end + 20);
        let (ended, open, _) = rig.cover.take(rig.intervals.cover());
        assert_eq!(ended.len(), 1);
        assert!(open.unwrap().before.late);
    }

    #[test]
    fn what_was_lost_is_no_pause() {
        let mut rig = Rig::new(true);
        (0..50).for_each(|packet| rig.frame(packet * 20, packet * 20));
        rig.cover.trouble(Trouble { lost: true, ..Trouble::default() });
        rig.frame(1_400, 1_400);
        let (ended, open, trouble) = rig.cover.take(rig.intervals.cover());
        assert_eq!(ended.len(), 1);
        assert!(open.unwrap().before.lost && !open.unwrap().before.late);
        assert_eq!(trouble, Trouble::default(), "a frame ends what came before it");
    }
}
