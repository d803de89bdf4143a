//! The rate of what arrived in the last second (libwebrtc `rtc_base/rate_statistics.cc`).

use std::collections::VecDeque;

/// Length of the window (libwebrtc `kBitrateWindow`). There is at most one bucket a millisecond, so
/// this is the most buckets too.
const WINDOW_MS: i64 = 1_000;

/// What arrived in one millisecond.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    at_ms: i64,
    bytes: u32,
    packets: u32,
}

/// A sliding window of a second over arrived bytes.
#[derive(Debug, Default)]
pub(super) struct RateWindow {
    buckets: VecDeque<Bucket>,
    bytes: u64,
    packets: u64,
    /// Since when it has been fed without a pause of a whole window.
    first_ms: Option<i64>,
}

impl RateWindow {
    /// Adds a packet. One from before the newest bucket counts as of that bucket's time.
    pub(super) fn add(&mut self, at_ms: i64, bytes: u32) {
        self.forget_old(at_ms);
        if self.packets == 0 {
            self.first_ms = Some(at_ms);
        }
        self.bytes += u64::from(bytes);
        self.packets += 1;
        match self.buckets.back_mut() {
            Some(last) if at_ms <= last.at_ms => {
                last.bytes = last.bytes.saturating_add(bytes);
                last.packets += 1;
            }
            _ => self.buckets.push_back(Bucket { at_ms, bytes, packets: 1 }),
        }
    }

    /// Bits a second; `None` without two packets, or with too little time between them.
    pub(super) fn bitrate_bps(&mut self, at_ms: i64) -> Option<f64> {
        let active_ms = self.active_ms(at_ms)?;
        Some((self.bytes * 8_000) as f64 / active_ms as f64)
    }

    /// How much of the window is in use, if there is enough for a rate.
    pub(super) fn active_ms(&mut self, at_ms: i64) -> Option<i64> {
        self.forget_old(at_ms);
        let active_ms = (at_ms - self.first_ms? + 1).min(WINDOW_MS);
        let too_few =
            self.packets == 0 || active_ms <= 1 || (self.packets == 1 && active_ms < WINDOW_MS);
        (!too_few).then_some(active_ms)
    }

    /// Forgets everything.
    pub(super) fn reset(&mut self) {
        self.buckets.clear();
        (self.bytes, self.packets, self.first_ms) = (0, 0, None);
    }

    fn forget_old(&mut self, at_ms: i64) {
        while let Some(oldest) = self.buckets.front()
            && oldest.at_ms <= at_ms - WINDOW_MS
        {
            self.bytes -= u64::from(oldest.bytes);
            self.packets -= u64::from(oldest.packets);
            self.buckets.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_second_or_of_less_in_the_beginning() {
        let mut window = RateWindow::default();
        assert_eq!(window.bitrate_bps(0), None);
        window.add(0, 1_000);
        assert_eq!(window.bitrate_bps(0), None, "one packet, one millisecond");
        assert_eq!(window.bitrate_bps(99), None, "one packet");
        window.add(99, 1_000);
        assert_eq!(window.bitrate_bps(99), Some(160_000.0));
        assert_eq!(window.bitrate_bps(999), Some(16_000.0));
        assert_eq!(window.bitrate_bps(1_000), Some(8_000.0), "the first is forgotten");
        assert_eq!(window.bitrate_bps(1_099), None);
    }

    #[test]
    fn buckets_are_bounded_by_the_window_and_time_does_not_run_back() {
        let mut window = RateWindow::default();
        for at_ms in 0..10_000 {
            window.add(at_ms, 125);
            window.add(at_ms - 5, 125);
        }
        assert_eq!(window.buckets.len(), WINDOW_MS as usize);
        assert_eq!(window.bitrate_bps(9_999), Some(2_000_000.0));
        window.reset();
        assert_eq!(window.bitrate_bps(9_999), None);
    }
}
