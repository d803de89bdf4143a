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

/// A sliding window of a second over arrived bytes. Without packets nothing of it means anything.
#[derive(Debug)]
pub(super) struct RateWindow {
    packets: u64,
    bytes: u64,
    /// Since when it has been fed without a pause of a whole window.
    first_ms: i64,
    /// Of the oldest bucket.
    oldest_ms: i64,
    newest: Bucket,
    /// Those before: most packets touch none of them.
    older: VecDeque<Bucket>,
}

impl Default for RateWindow {
    fn default() -> Self {
        let newest = Bucket { at_ms: 0, bytes: 0, packets: 0 };
        let older = VecDeque::new();
        Self { packets: 0, bytes: 0, first_ms: 0, oldest_ms: 0, newest, older }
    }
}

impl RateWindow {
    /// Adds a packet. One from before the newest bucket counts as of that bucket's time.
    #[inline]
    pub(super) fn add(&mut self, at_ms: i64, bytes: u32) {
        self.forget_old(at_ms);
        if self.packets > 0 && at_ms <= self.newest.at_ms {
            self.newest.bytes = self.newest.bytes.saturating_add(bytes);
            self.newest.packets += 1;
        } else {
            self.open_bucket(Bucket { at_ms, bytes, packets: 1 });
        }
        self.bytes += u64::from(bytes);
        self.packets += 1;
    }

    #[inline(never)]
    fn open_bucket(&mut self, new: Bucket) {
        let before = std::mem::replace(&mut self.newest, new);
        if self.packets == 0 {
            (self.first_ms, self.oldest_ms) = (new.at_ms, new.at_ms);
        } else {
            self.older.push_back(before);
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
        let active_ms = (at_ms - self.first_ms + 1).min(WINDOW_MS);
        let too_few =
            self.packets == 0 || active_ms <= 1 || (self.packets == 1 && active_ms < WINDOW_MS);
        (!too_few).then_some(active_ms)
    }

    /// Forgets everything.
    pub(super) fn reset(&mut self) {
        self.older.clear();
        (self.bytes, self.packets) = (0, 0);
    }

    #[inline]
    fn forget_old(&mut self, at_ms: i64) {
        if self.oldest_ms <= at_ms - WINDOW_MS {
            self.forget_oldest(at_ms);
        }
    }

    #[inline(never)]
    fn forget_oldest(&mut self, at_ms: i64) {
        while self.packets > 0 && self.oldest_ms <= at_ms - WINDOW_MS {
            let oldest = self.older.pop_front().unwrap_or(self.newest);
            self.bytes -= u64::from(oldest.bytes);
            self.packets -= u64::from(oldest.packets);
            self.oldest_ms = self.older.front().unwrap_or(&self.newest).at_ms;
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
        assert_eq!(window.older.len() + 1, WINDOW_MS as usize);
        assert_eq!(window.bitrate_bps(9_999), Some(2_000_000.0));
        window.reset();
        assert_eq!(window.bitrate_bps(9_999), None);
    }
}
