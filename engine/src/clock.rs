//! One reading of both clocks a turn.

use std::time::{Duration, Instant};

use stampede_core::Arrival;

/// The same moment on the monotonic and on the wall clock, so that kernel receive stamps (wall
/// clock) can be given to code that runs on `Instant`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) now: Instant,
    pub(crate) unix_ns: u64,
}

impl Clock {
    pub(crate) fn read() -> Self {
        Self { now: Instant::now(), unix_ns: stampede_udp::unix_now_ns() }
    }

    /// Where a kernel stamp lies on the monotonic clock; a stamp from the future (the wall clock
    /// was stepped) is now.
    pub(crate) fn arrival(&self, received_at_unix_ns: u64) -> Arrival {
        let age = self.age(received_at_unix_ns);
        let instant = self.now.checked_sub(age).unwrap_or(self.now);
        Arrival { instant, unix_ns: received_at_unix_ns }
    }

    /// How long ago a kernel stamp was.
    pub(crate) fn age(&self, received_at_unix_ns: u64) -> Duration {
        Duration::from_nanos(self.unix_ns.saturating_sub(received_at_unix_ns))
    }

    /// This moment as an arrival.
    pub(crate) fn here(&self) -> Arrival {
        Arrival { instant: self.now, unix_ns: self.unix_ns }
    }
}
