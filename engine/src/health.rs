//! How the worker itself is doing: every figure it reports needs this alibi.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use stampede_udp::{StreamStats, UdpStats};

/// Highest lateness the histograms tell apart; longer ones count as this.
const LATENESS_US_MAX: u64 = 60_000_000;

/// A worker's health over some window.
#[derive(Debug, Clone)]
pub struct HealthReport {
    /// Length of the window.
    pub window: Duration,
    /// How many measured windows have begun so far: counters begin anew with each.
    pub windows: u32,
    /// CPU time the worker thread used in it.
    pub cpu: Duration,
    /// How late due timers ran, in microseconds.
    pub lateness_us: Histogram<u64>,
    /// Age of the oldest datagram of each batch when it was processed, in microseconds; includes
    /// the time spent gathering on purpose.
    pub batch_age_us: Histogram<u64>,
}

impl HealthReport {
    /// CPU time over wall time, 0 to 1.
    pub fn busy_ratio(&self) -> f64 {
        let wall = self.window.as_secs_f64();
        if wall > 0.0 { self.cpu.as_secs_f64() / wall } else { 0.0 }
    }
}

/// The last second of a worker.
#[derive(Debug, Clone, Copy, Default)]
pub struct Second {
    /// How long it was: about a second, or what was left of one at the end.
    pub length: Duration,
    /// CPU time over wall time, 0 to 1.
    pub busy_ratio: f64,
    /// Datagrams received.
    pub datagrams_in: u64,
    /// UDP payload bytes received.
    pub bytes_in: u64,
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// UDP payload bytes sent.
    pub bytes_out: u64,
    /// Worst lateness of a timer.
    pub lateness_max: Duration,
}

/// Books of a running worker.
pub(crate) struct Health {
    lateness_us: Histogram<u64>,
    batch_age_us: Histogram<u64>,
    orphan_datagrams: u64,
    window: Mark,
    windows: u32,
    second: Mark,
    second_lateness_max: Duration,
}

/// What the sockets of a worker did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Io {
    pub(crate) udp: UdpStats,
    pub(crate) streams: StreamStats,
}

impl Io {
    fn since(&self, before: &Self) -> Self {
        let streams = self.streams.since(&before.streams);
        Self { udp: self.udp.since(&before.udp), streams }
    }
}

/// Where a window began.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    cpu: Duration,
    io: Io,
}

impl Health {
    pub(crate) fn new(now: Instant) -> Self {
        let mark = Mark { at: now, cpu: thread_cpu(), io: Io::default() };
        Self {
            lateness_us: histogram(),
            batch_age_us: histogram(),
            orphan_datagrams: 0,
            window: mark,
            windows: 0,
            second: mark,
            second_lateness_max: Duration::ZERO,
        }
    }

    pub(crate) fn lateness(&mut self, late: Duration) {
        self.lateness_us.saturating_record(micros(late));
        self.second_lateness_max = self.second_lateness_max.max(late);
    }

    pub(crate) fn batch_age(&mut self, age: Duration) {
        self.batch_age_us.saturating_record(micros(age));
    }

    /// There were datagrams for a peer that had just been closed: on its socket, or held back on
    /// purpose.
    pub(crate) fn orphans(&mut self, datagrams: usize) {
        self.orphan_datagrams += datagrams as u64;
    }

    /// Those in the measured window so far.
    pub(crate) fn orphan_datagrams(&self) -> u64 {
        self.orphan_datagrams
    }

    /// What the sockets, whose counts are these now, did in the measured window so far.
    pub(crate) fn io(&self, now: Io) -> Io {
        now.since(&self.window.io)
    }

    /// Starts the measured window anew.
    pub(crate) fn begin_measuring(&mut self, now: Instant, io: Io) {
        self.lateness_us.reset();
        self.batch_age_us.reset();
        self.orphan_datagrams = 0;
        self.window = Mark { at: now, cpu: thread_cpu(), io };
        self.windows += 1;
    }

    /// Ends the running second.
    pub(crate) fn close_second(&mut self, now: Instant, io: Io) -> Second {
        let mark = Mark { at: now, cpu: thread_cpu(), io };
        let length = now.saturating_duration_since(self.second.at);
        let wall = length.as_secs_f64();
        let cpu = mark.cpu.saturating_sub(self.second.cpu).as_secs_f64();
        let Io { udp, streams } = io.since(&self.second.io);
        self.second = mark;
        Second {
            length,
            busy_ratio: if wall > 0.0 { cpu / wall } else { 0.0 },
            datagrams_in: udp.datagrams_in + streams.datagrams_in,
            bytes_in: udp.bytes_in + streams.bytes_in,
            datagrams_out: udp.datagrams_out + streams.datagrams_out,
            bytes_out: udp.bytes_out + streams.bytes_out,
            lateness_max: std::mem::take(&mut self.second_lateness_max),
        }
    }

    /// The measured window so far.
    pub(crate) fn measured(&self, now: Instant) -> HealthReport {
        HealthReport {
            window: now.saturating_duration_since(self.window.at),
            windows: self.windows,
            cpu: thread_cpu().saturating_sub(self.window.cpu),
            lateness_us: self.lateness_us.clone(),
            batch_age_us: self.batch_age_us.clone(),
        }
    }
}

/// CPU time of the calling thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Two significant digits from a microsecond up to [`LATENESS_US_MAX`].
fn histogram() -> Histogram<u64> {
    // Both arguments are constants inside the constructor's documented bounds.
    #[allow(clippy::expect_used)]
    Histogram::new_with_max(LATENESS_US_MAX, 2).expect("constant bounds are valid")
}
