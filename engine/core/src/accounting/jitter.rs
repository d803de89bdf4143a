//! Interarrival jitter (RFC 3550 A.8).

use std::time::Duration;

/// Jitter of one stream, on kernel receive stamps.
///
/// Only the first packet of each timestamp counts, and only in order: the packets of one frame
/// share a timestamp but leave one after the other, which is not jitter of the network (libwebrtc
/// and the RFC's own FAQ do the same).
#[derive(Debug, Clone, Copy, Default)]
pub struct JitterMeter {
    /// When the last timestamp came first.
    last_unix_ns: u64,
    last: Option<u32>,
    measured: bool,
    jitter_ns: f64,
}

impl JitterMeter {
    /// An in-order packet of the first transmission arrived.
    pub fn record(&mut self, arrival_unix_ns: u64, timestamp: u32, clock_rate: u32) {
        let Some(last_timestamp) = self.last else {
            (self.last_unix_ns, self.last) = (arrival_unix_ns, Some(timestamp));
            return;
        };
        if timestamp == last_timestamp || clock_rate == 0 {
            return;
        }
        let ticks = timestamp.wrapping_sub(last_timestamp) as i32;
        let media_ns = f64::from(ticks) * 1e9 / f64::from(clock_rate);
        let arrival_ns = arrival_unix_ns as f64 - self.last_unix_ns as f64;
        self.jitter_ns += ((arrival_ns - media_ns).abs() - self.jitter_ns) / 16.0;
        self.measured = true;
        (self.last_unix_ns, self.last) = (arrival_unix_ns, Some(timestamp));
    }

    /// What comes next is not to be compared with what came before: a mute, a layer switch.
    pub fn interrupt(&mut self) {
        self.last = None;
    }

    /// The estimate; `None` before the second timestamp.
    pub fn jitter(&self) -> Option<Duration> {
        self.measured.then(|| Duration::from_nanos(self.jitter_ns as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_arrivals_have_none_and_a_constant_swing_converges_on_itself() {
        let mut even = JitterMeter::default();
        let mut swing = JitterMeter::default();
        assert_eq!(even.jitter(), None);
        for frame in 0..1_000_u32 {
            let due = u64::from(frame) * 20_000_000;
            even.record(due, frame.wrapping_mul(960).wrapping_sub(48_000), 48_000);
            even.record(due + 1_000_000, frame.wrapping_mul(960).wrapping_sub(48_000), 48_000);
            let off = if frame % 2 == 0 { 4_000_000 } else { 0 };
            swing.record(due + off, frame * 960, 48_000);
        }
        assert_eq!(even.jitter(), Some(Duration::ZERO));
        let swing = swing.jitter().unwrap().as_micros();
        assert!((3_990..=4_000).contains(&swing), "{swing}");
    }
}
