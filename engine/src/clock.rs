//! One reading of both clocks a turn.

use std::time::{Duration, Instant};

use stampede_core::Arrival;

/// The wall clock was set (NTP, an operator, a suspended machine) if it moved this much more or
/// less than the monotonic clock between two readings. Slewing stays far below: 0.5 ms a second.
const STEP_MIN: Duration = Duration::from_millis(20);
/// A reading of both clocks is one moment if it took no longer.
const READING_MAX: Duration = Duration::from_millis(1);
/// Readings tried; under a load that interrupts each of them the last one is taken as it is.
const READINGS_MAX: usize = 4;

/// The same moment on the monotonic and on the wall clock, so that kernel receive stamps (wall
/// clock) can be given to code that runs on `Instant`. Stamps that are given out are by the run's
/// clock, which is this host's own where nobody else takes part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) now: Instant,
    /// By this host's own clock, as the kernel's stamps are.
    own_unix_ns: u64,
    /// The run's clock less this host's.
    offset_ns: i64,
    step: Option<Step>,
}

/// The wall clock was set.
#[derive(Debug, Clone, Copy)]
struct Step {
    by_ns: i64,
    /// After a step ahead: stamps before this one are the old clock's.
    first_unix_ns: u64,
}

/// Reads both clocks, and remembers when the wall clock was last set: datagrams stamped before
/// that may still wait in their sockets.
#[derive(Debug, Default)]
pub(crate) struct ClockReader {
    last: Option<Clock>,
    offset_ns: i64,
}

impl ClockReader {
    /// Of a run whose clock is ahead of this host's by so much.
    pub(crate) fn ahead(offset_ns: i64) -> Self {
        Self { last: None, offset_ns }
    }

    pub(crate) fn read(&mut self) -> Clock {
        for _ in 1..READINGS_MAX {
            let before = Instant::now();
            let unix_ns = stampede_udp::unix_now_ns();
            let now = Instant::now();
            if now - before <= READING_MAX {
                return self.take(now, unix_ns);
            }
        }
        self.take(Instant::now(), stampede_udp::unix_now_ns())
    }

    fn take(&mut self, now: Instant, unix_ns: u64) -> Clock {
        let step = self.last.and_then(|last| {
            let went = now.saturating_duration_since(last.now).as_nanos() as i64;
            let by_ns = unix_ns.cast_signed() - last.own_unix_ns.cast_signed() - went;
            let first_unix_ns = last.own_unix_ns.saturating_add_signed(by_ns);
            let set = by_ns.unsigned_abs() >= STEP_MIN.as_nanos() as u64;
            if set { Some(Step { by_ns, first_unix_ns }) } else { last.step }
        });
        let clock = Clock { now, own_unix_ns: unix_ns, offset_ns: self.offset_ns, step };
        self.last = Some(clock);
        clock
    }
}

impl Clock {
    /// Where a kernel stamp lies on the monotonic clock; a stamp from the future is now.
    pub(crate) fn arrival(&self, received_at_unix_ns: u64) -> Arrival {
        let age = self.age(received_at_unix_ns);
        let instant = self.now.checked_sub(age).unwrap_or(self.now);
        Arrival { instant, unix_ns: received_at_unix_ns.saturating_add_signed(self.offset_ns) }
    }

    /// How long ago a kernel stamp was, also if the wall clock was set since.
    pub(crate) fn age(&self, received_at_unix_ns: u64) -> Duration {
        let of_old_clock = |step: &Step| match step.by_ns > 0 {
            true => received_at_unix_ns < step.first_unix_ns,
            false => received_at_unix_ns > self.own_unix_ns,
        };
        let by_ns = self.step.filter(of_old_clock).map_or(0, |step| step.by_ns);
        let stamp = received_at_unix_ns.saturating_add_signed(by_ns);
        Duration::from_nanos(self.own_unix_ns.saturating_sub(stamp))
    }

    /// This moment as an arrival.
    pub(crate) fn here(&self) -> Arrival {
        Arrival { instant: self.now, unix_ns: self.unix_ns() }
    }

    /// This moment by the run's clock.
    pub(crate) fn unix_ns(&self) -> u64 {
        self.own_unix_ns.saturating_add_signed(self.offset_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE_NS: u64 = 1_700_000_000_000_000_000;
    const MS_NS: u64 = 1_000_000;

    #[test]
    fn a_clock_that_is_set_makes_no_datagram_old() {
        for step_ms in [1_200_i64, -1_200] {
            let start = Instant::now();
            let mut reader = ClockReader::default();
            let wall = |ms: u64| BASE_NS + ms * MS_NS;
            let set = |ms: u64| wall(ms).saturating_add_signed(step_ms * MS_NS as i64);
            reader.take(start, wall(0));
            // Set in between; one datagram was stamped before that, one after it.
            let clock = reader.take(start + Duration::from_millis(10), set(10));
            assert_eq!(clock.age(wall(4)), Duration::from_millis(6), "{step_ms}");
            assert_eq!(clock.age(set(7)), Duration::from_millis(3), "{step_ms}");
            let arrival = clock.arrival(wall(4));
            assert_eq!(arrival.instant, start + Duration::from_millis(4));
            // Read a little later: they waited.
            let clock = reader.take(start + Duration::from_millis(50), set(50));
            assert_eq!(clock.age(wall(4)), Duration::from_millis(46), "{step_ms}");
            assert_eq!(clock.age(set(20)), Duration::from_millis(30), "{step_ms}");
        }
    }

    #[test]
    fn stamps_are_by_the_clock_of_the_run_and_ages_by_the_kernels() {
        let start = Instant::now();
        for offset_ms in [3_000_i64, -3_000] {
            let mut reader = ClockReader::ahead(offset_ms * MS_NS as i64);
            let clock = reader.take(start, BASE_NS);
            let run = |own_ns: u64| own_ns.saturating_add_signed(offset_ms * MS_NS as i64);
            assert_eq!((clock.unix_ns(), clock.here().unix_ns), (run(BASE_NS), run(BASE_NS)));
            let arrival = clock.arrival(BASE_NS - 4 * MS_NS);
            assert_eq!(arrival.unix_ns, run(BASE_NS - 4 * MS_NS));
            assert_eq!(clock.now - arrival.instant, Duration::from_millis(4));
        }
    }

    #[test]
    fn a_true_age_stays_one() {
        let start = Instant::now();
        let mut reader = ClockReader::default();
        reader.take(start, BASE_NS);
        // Five seconds without a turn, the wall clock slewed by half a millisecond a second.
        let clock = reader.take(start + Duration::from_secs(5), BASE_NS + 5_002 * MS_NS);
        assert_eq!(clock.age(BASE_NS), Duration::from_millis(5_002));
        assert_eq!(clock.age(BASE_NS + 6_000 * MS_NS), Duration::ZERO);
    }
}
