//! End-to-end latency of frames: from the publisher's stamp to the kernel's, for the frame's last
//! packet (docs/measurement.md, "Latency").
//!
//! A frame is stamped by LiveKit's packet trailer ([`stampede_media::packet_trailer`]) or, else, by
//! the header extension abs-capture-time (webrtc.googlesource.com,
//! docs/native-code/rtp-hdrext/abs-capture-time), whose senders may leave it out of most packets:
//! the frames between are then reckoned from the last stamp by RTP timestamps, as that text allows
//! and libwebrtc's `AbsoluteCaptureTimeInterpolator` does. Stamps mean something only if this
//! host's clock made them; those of others are counted and not used.

use std::collections::VecDeque;
use std::time::Duration;

pub use stampede_counters::LatencyCounters;

use crate::Arrival;

/// Most stamps kept for frames that are not complete yet. At the maximum the oldest is forgotten,
/// and its frame counts as unstamped.
pub const STAMPS_MAX: usize = 128;
/// A stamp is carried over to other frames no further than this, in media time (libwebrtc
/// `AbsoluteCaptureTimeInterpolator::kInterpolationMaxInterval`).
pub const INTERPOLATE_MAX: Duration = Duration::from_secs(5);
/// More than this is a clock that was set, not a latency.
pub const LATENCY_MAX: Duration = Duration::from_secs(600);

/// How a frame was stamped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StampSource {
    /// Reckoned from another frame's stamp.
    Interpolated,
    /// The header extension.
    AbsCaptureTime,
    /// The trailer behind the payload.
    PacketTrailer,
}

/// When the publisher says it sent a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// How it came.
    pub source: StampSource,
    /// Nanoseconds since the Unix epoch, on the publisher's clock.
    pub unix_ns: u64,
}

/// The latency of one stream's frames.
#[derive(Debug, Default)]
pub struct LatencyMeter {
    same_clock: bool,
    /// Stamps of frames not complete yet, by RTP timestamp.
    open: VecDeque<(u32, Stamp)>,
    /// The last stamp that came, for frames without one.
    anchor: Option<(u32, u64)>,
    counted: LatencyCounters,
}

impl LatencyMeter {
    /// Whether the stream's publisher stamps by this host's clock. False until told.
    pub fn set_same_clock(&mut self, same_clock: bool) {
        self.same_clock = same_clock;
    }

    /// A packet of the frame with this RTP timestamp carried a stamp. A trailer outdoes the header
    /// extension.
    pub fn stamp(&mut self, timestamp: u32, stamp: Stamp) {
        if !self.same_clock {
            return;
        }
        self.anchor = Some((timestamp, stamp.unix_ns));
        if let Some((_, known)) = self.open.iter_mut().rev().find(|(at, _)| *at == timestamp) {
            if known.source < stamp.source {
                *known = stamp;
            }
            return;
        }
        if self.open.len() >= STAMPS_MAX {
            self.open.pop_front();
        } else if self.open.capacity() == 0 {
            // Mostly a frame is complete before the next one is stamped.
            self.open.reserve_exact(1);
        }
        self.open.push_back((timestamp, stamp));
    }

    /// The frame with this RTP timestamp was complete at `at`; returns its latency if it is known.
    pub fn complete(&mut self, timestamp: u32, clock_rate: u32, at: Arrival) -> Option<Duration> {
        if !self.same_clock {
            self.counted.other_clock += 1;
            return None;
        }
        let found = self.open.iter().find(|(open, _)| *open == timestamp).map(|(_, stamp)| *stamp);
        // Frames are judged in order: nothing older will be asked for.
        self.open.retain(|(open, _)| open.wrapping_sub(timestamp).cast_signed() > 0);
        let Some(stamp) = found.or_else(|| self.interpolate(timestamp, clock_rate)) else {
            self.counted.unstamped += 1;
            return None;
        };
        let latency = at.unix_ns.checked_sub(stamp.unix_ns).map(Duration::from_nanos);
        let Some(latency) = latency.filter(|latency| *latency <= LATENCY_MAX) else {
            self.counted.implausible += 1;
            return None;
        };
        match stamp.source {
            StampSource::PacketTrailer => self.counted.packet_trailer += 1,
            StampSource::AbsCaptureTime => self.counted.abs_capture_time += 1,
            StampSource::Interpolated => self.counted.interpolated += 1,
        }
        self.counted.max_s.record(latency);
        Some(latency)
    }

    fn interpolate(&self, timestamp: u32, clock_rate: u32) -> Option<Stamp> {
        let (anchor, unix_ns) = self.anchor?;
        let ticks = i64::from(timestamp.wrapping_sub(anchor).cast_signed());
        let ns = ticks * 1_000_000_000 / i64::from(clock_rate.max(1));
        if Duration::from_nanos(ns.unsigned_abs()) > INTERPOLATE_MAX {
            return None;
        }
        let unix_ns = unix_ns.checked_add_signed(ns)?;
        Some(Stamp { source: StampSource::Interpolated, unix_ns })
    }

    /// RTP timestamps before and after this moment are not of one timeline: a layer switch, a mute.
    pub fn interrupt(&mut self) {
        self.anchor = None;
    }

    /// The counts so far.
    pub fn counters(&self) -> LatencyCounters {
        self.counted
    }

    /// Counts from here on only.
    pub fn restart_counting(&mut self) {
        self.counted = LatencyCounters::default();
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub fn heap_bytes(&self) -> usize {
        self.open.capacity() * size_of::<(u32, Stamp)>()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const BASE_NS: u64 = 1_700_000_000_000_000_000;
    const MS: u64 = 1_000_000;

    fn stamp(source: StampSource, ms: u64) -> Stamp {
        Stamp { source, unix_ns: BASE_NS + ms * MS }
    }

    fn meter() -> LatencyMeter {
        LatencyMeter { same_clock: true, ..LatencyMeter::default() }
    }

    fn at(ms: u64) -> Arrival {
        Arrival { instant: Instant::now(), unix_ns: BASE_NS + ms * MS }
    }

    #[test]
    fn the_trailer_outdoes_the_extension_in_any_order() {
        let mut meter = meter();
        meter.stamp(1_000, stamp(StampSource::AbsCaptureTime, 10));
        meter.stamp(1_000, stamp(StampSource::PacketTrailer, 12));
        meter.stamp(4_000, stamp(StampSource::PacketTrailer, 45));
        meter.stamp(4_000, stamp(StampSource::AbsCaptureTime, 43));
        assert_eq!(meter.complete(1_000, 90_000, at(32)), Some(Duration::from_millis(20)));
        assert_eq!(meter.complete(4_000, 90_000, at(95)), Some(Duration::from_millis(50)));
        let counted = meter.counters();
        assert_eq!((counted.packet_trailer, counted.measured()), (2, 2));
        assert_eq!(counted.max_s.0, Duration::from_millis(50));
    }

    #[test]
    fn frames_between_stamps_are_reckoned_by_their_timestamps() {
        let mut meter = meter();
        assert_eq!(meter.complete(0, 90_000, at(5)), None);
        meter.stamp(u32::MAX - 899, stamp(StampSource::AbsCaptureTime, 100));
        assert_eq!(meter.complete(u32::MAX - 899, 90_000, at(107)), Some(Duration::from_millis(7)));
        // 1,800 ticks later, over the wrap: 20 ms.
        assert_eq!(meter.complete(900, 90_000, at(130)), Some(Duration::from_millis(10)));
        assert_eq!(meter.complete(900 + 6 * 90_000, 90_000, at(6_130)), None, "too far");
        meter.interrupt();
        assert_eq!(meter.complete(1_800, 90_000, at(140)), None, "another timeline");
        let counted = meter.counters();
        assert_eq!((counted.abs_capture_time, counted.interpolated, counted.unstamped), (1, 1, 3));
    }

    #[test]
    fn a_foreign_clock_is_never_used() {
        let mut meter = LatencyMeter::default();
        meter.stamp(1_000, stamp(StampSource::PacketTrailer, 10));
        assert_eq!(meter.complete(1_000, 90_000, at(30)), None);
        assert_eq!(meter.counters().other_clock, 1);
        meter.set_same_clock(true);
        assert_eq!(meter.complete(1_000, 90_000, at(30)), None, "its stamp was not kept");
    }

    #[test]
    fn clocks_that_were_set_make_no_latency() {
        let mut meter = meter();
        meter.stamp(1, stamp(StampSource::PacketTrailer, 10));
        assert_eq!(meter.complete(1, 90_000, at(9)), None);
        meter.stamp(2, stamp(StampSource::PacketTrailer, 10));
        assert_eq!(meter.complete(2, 90_000, at(700_000)), None);
        assert_eq!((meter.counters().implausible, meter.counters().measured()), (2, 0));
    }

    #[test]
    fn stamps_of_frames_that_never_complete_are_dropped() {
        let mut meter = meter();
        for frame in 0..1_000_u32 {
            meter.stamp(frame * 3_000, stamp(StampSource::PacketTrailer, u64::from(frame)));
            assert!(meter.open.len() <= STAMPS_MAX);
        }
        // A newer frame's stamp that came first survives an older frame.
        assert!(meter.complete(998 * 3_000, 90_000, at(2_000)).is_some());
        assert_eq!(meter.open.len(), 1);
        assert!(meter.complete(999 * 3_000, 90_000, at(2_000)).is_some());
        assert!(meter.open.is_empty());
    }
}
