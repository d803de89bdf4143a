//! Probes: padding beside the media for a short while, to find out whether the way carries more
//! (LiveKit `pkg/sfu/bwe/remotebwe/probe_controller.go`, `pkg/sfu/ccutils/probe_regulator.go` and
//! `prober.go`). Pure.

use std::time::{Duration, Instant};

/// Between two probes, at first and after one that congested nothing.
const INTERVAL: Duration = Duration::from_secs(3);
/// Each that did lengthens it by half, up to this.
const INTERVAL_MAX: Duration = Duration::from_secs(120);
/// How long a probe lasts at first.
const DURATION: Duration = Duration::from_millis(200);
/// Each that congested nothing is followed by one longer by half, up to this.
const DURATION_MAX: Duration = Duration::from_secs(20);
/// After a probe its estimates are waited for: five round trips of 70 ms, LiveKit's where it has
/// measured none.
const SETTLE: Duration = Duration::from_millis(350);
/// Between two times that padding is sent.
const PAD_INTERVAL: Duration = Duration::from_millis(20);
/// Most padding sent at a time: a probe that was late to look does not make up for it in one burst.
const PAD_BYTES_MAX: u64 = 12_000;

/// When probes may begin, and how long they are.
#[derive(Debug)]
pub(super) struct Regulator {
    interval: Duration,
    duration: Duration,
    open_at: Instant,
}

impl Regulator {
    pub(super) fn new(now: Instant) -> Self {
        Self { interval: INTERVAL, duration: DURATION, open_at: now }
    }

    /// Whether a probe may begin.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        now > self.open_at
    }

    /// How long the next one lasts.
    pub(super) fn duration(&self) -> Duration {
        self.duration
    }

    /// None begins before an interval is over.
    pub(super) fn wait(&mut self, now: Instant) {
        self.open_at = now + self.interval;
    }

    /// A probe that began then has ended; `congested` if it was too much.
    pub(super) fn probed(&mut self, congested: bool, began: Instant) {
        if congested {
            self.interval = (self.interval * 3 / 2).min(INTERVAL_MAX);
            self.duration = DURATION;
        } else {
            self.interval = INTERVAL;
            self.duration = (self.duration * 3 / 2).min(DURATION_MAX);
        }
        self.open_at = began + self.interval;
    }
}

/// A probe under way.
#[derive(Debug)]
pub(super) struct Probe {
    began: Instant,
    ends: Instant,
    goal_bps: u64,
    /// Bytes of media that were sent before.
    sent_before: u64,
    padded: u64,
    pad_at: Instant,
}

impl Probe {
    /// Up to this rate, media included.
    pub(super) fn new(now: Instant, goal_bps: u64, duration: Duration, sent_before: u64) -> Self {
        Self { began: now, ends: now + duration, goal_bps, sent_before, padded: 0, pad_at: now }
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// What an estimate is to pass.
    pub(super) fn goal_bps(&self) -> u64 {
        self.goal_bps
    }

    /// It sends nothing more.
    pub(super) fn stop(&mut self, now: Instant) {
        self.ends = self.ends.min(now);
    }

    /// Whether its estimates are in.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.ends + SETTLE
    }

    /// Bytes of padding that are due, where so many bytes of media were sent so far.
    pub(super) fn padding(&mut self, now: Instant, sent_bytes: u64) -> u64 {
        if now < self.pad_at || now >= self.ends {
            return 0;
        }
        self.pad_at = now + PAD_INTERVAL;
        let since = now.duration_since(self.began) + PAD_INTERVAL;
        let due = (self.goal_bps as f64 / 8.0 * since.as_secs_f64()) as u64;
        let sent = sent_bytes.saturating_sub(self.sent_before) + self.padded;
        due.saturating_sub(sent).min(PAD_BYTES_MAX)
    }

    /// So many bytes of padding were sent.
    pub(super) fn padded(&mut self, bytes: u64) {
        self.padded += bytes;
    }

    /// When padding may be due again, if it still sends; later than now.
    pub(super) fn next_at(&self, now: Instant) -> Option<Instant> {
        (now < self.pad_at && self.pad_at < self.ends).then_some(self.pad_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_get_longer_while_they_succeed_and_rarer_while_they_fail() {
        let start = Instant::now();
        let mut regulator = Regulator::new(start);
        assert!(regulator.is_open(start + PAD_INTERVAL));
        regulator.probed(false, start);
        assert_eq!(regulator.duration(), Duration::from_millis(300));
        assert!(!regulator.is_open(start + INTERVAL));
        regulator.probed(true, start);
        assert_eq!(regulator.duration(), DURATION);
        assert!(!regulator.is_open(start + Duration::from_millis(4_500)));
        assert!(regulator.is_open(start + Duration::from_millis(4_501)));
        (0..20).for_each(|_| regulator.probed(true, start));
        assert!(!regulator.is_open(start + INTERVAL_MAX));
    }

    #[test]
    fn padding_fills_up_to_the_goal_and_ends() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        // 800 kbit/s are 2,000 bytes in 20 ms.
        let mut probe = Probe::new(start, 800_000, DURATION, 5_000);
        assert_eq!(probe.padding(at(0), 5_000), 2_000);
        probe.padded(2_000);
        assert_eq!(probe.padding(at(10), 5_000), 0, "too early");
        assert_eq!(probe.padding(at(20), 6_500), 500, "media counts");
        probe.padded(500);
        assert_eq!(probe.padding(at(199), 6_500), PAD_BYTES_MAX, "it was late");
        assert_eq!(probe.next_at(at(199)), None, "it would be over");
        assert_eq!(probe.padding(at(220), 6_500), 0, "over");
        assert_eq!(probe.next_at(at(220)), None);
        assert!(!probe.is_over(at(549)) && probe.is_over(at(550)));
    }
}
