//! How long a worker had no time left.

use std::time::{Duration, Instant};

/// It is looked at over stretches of this length.
const STRETCH: Duration = Duration::from_secs(1);

/// A worker that was busier than this over a stretch had no time left: the rest is what it gathers
/// datagrams for on purpose.
const FULL_RATIO: f64 = 0.9;

/// Keeps the time in which a worker was full.
#[derive(Debug, Clone, Copy)]
pub(super) struct Busy {
    /// When the stretch began, and what the worker's thread had used of its core by then.
    since: (Instant, Duration),
    full: Duration,
}

impl Busy {
    /// From this moment on, at which the thread had used so much.
    pub(super) fn new(at: Instant, cpu: Duration) -> Self {
        Self { since: (at, cpu), full: Duration::ZERO }
    }

    /// To be called often; `cpu` is asked once a stretch.
    pub(super) fn look(&mut self, at: Instant, cpu: fn() -> Duration) {
        let length = at.saturating_duration_since(self.since.0);
        if length < STRETCH {
            return;
        }
        let used = cpu();
        if used.saturating_sub(self.since.1) >= length.mul_f64(FULL_RATIO) {
            self.full += length;
        }
        self.since = (at, used);
    }

    /// How long it was full so far, in stretches that are over.
    pub(super) fn full(&self) -> Duration {
        self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_stretches_without_time_left_count() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut busy = Busy::new(start, Duration::from_millis(500));
        busy.look(at(999), || unreachable!("asked within a stretch"));
        busy.look(at(1_000), || Duration::from_millis(1_399));
        assert_eq!(busy.full(), Duration::ZERO, "899 of 1,000 ms");
        busy.look(at(2_100), || Duration::from_millis(2_400));
        assert_eq!(busy.full(), Duration::from_millis(1_100), "1,001 of 1,100 ms");
        // A slice that takes for ever is one stretch.
        busy.look(at(12_100), || Duration::from_millis(12_400));
        assert_eq!(busy.full(), Duration::from_millis(11_100));
    }
}
