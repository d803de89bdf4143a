//! The clocks of a run. Nothing else in this crate reads one, so that tests play runs in virtual
//! time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, by the clock that sleeps go by: tokio's, which tests move.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Both clocks at the start of the run: engine events carry wall time, schedules monotonic time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunClock {
    /// Monotonic.
    pub started: Instant,
    /// Wall.
    pub started_at: SystemTime,
    started_unix_ns: u64,
}

impl RunClock {
    /// The run starts now, by this host's own clock.
    pub(crate) fn start() -> Self {
        Self::start_ahead(0)
    }

    /// The run starts now, by a clock that is ahead of this host's by so much: of a run on several
    /// hosts all wall times are by the coordinator's.
    pub(crate) fn start_ahead(offset_ns: i64) -> Self {
        let (own, offset) = (SystemTime::now(), Duration::from_nanos(offset_ns.unsigned_abs()));
        let shifted = if offset_ns < 0 { own.checked_sub(offset) } else { own.checked_add(offset) };
        let started_at = shifted.unwrap_or(own);
        let since_epoch = started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_unix_ns = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
        Self { started: now(), started_at, started_unix_ns }
    }

    /// How long the run has been going on.
    pub(crate) fn since_start(&self) -> Duration {
        self.until(now())
    }

    /// How long the run had been going on at a monotonic moment; zero if that lies before.
    pub(crate) fn until(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.started)
    }

    /// The wall clock stamp of a monotonic moment of this run.
    pub(crate) fn unix_ns(&self, at: Instant) -> u64 {
        let since_ns = self.until(at).as_nanos();
        self.started_unix_ns.saturating_add(u64::try_from(since_ns).unwrap_or(u64::MAX))
    }

    /// The monotonic moment of a wall clock stamp; the start of the run if that lies before.
    pub(crate) fn moment(&self, unix_ns: u64) -> Instant {
        self.started + self.since(self.started, unix_ns)
    }

    /// From a monotonic moment of this run to a wall clock stamp; zero if that lies before.
    pub(crate) fn since(&self, from: Instant, unix_ns: u64) -> Duration {
        Duration::from_nanos(unix_ns.saturating_sub(self.unix_ns(from)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_times_are_by_the_clock_of_the_run() {
        let own = SystemTime::now();
        let ahead = RunClock::start_ahead(3_600_000_000_000);
        let ahead_by = ahead.started_at.duration_since(own).unwrap();
        assert!((3_600..3_700).contains(&ahead_by.as_secs()), "{ahead_by:?}");
        let behind = RunClock::start_ahead(-3_600_000_000_000);
        assert!(behind.started_at < own);
        let since_epoch = behind.started_at.duration_since(UNIX_EPOCH).unwrap().as_nanos();
        assert_eq!(u128::from(behind.unix_ns(behind.started)), since_epoch);
    }

    #[test]
    fn wall_stamps_are_set_against_the_monotonic_schedule() {
        let clock = RunClock::start();
        let scheduled = clock.started + Duration::from_millis(250);
        let stamp = clock.started_unix_ns + 300_000_000;
        assert_eq!(clock.since(scheduled, stamp), Duration::from_millis(50));
        assert_eq!(clock.since(scheduled, 0), Duration::ZERO);
        assert_eq!(clock.moment(stamp), scheduled + Duration::from_millis(50));
        assert_eq!(clock.moment(0), clock.started);
    }
}
