//! From overuse and the received rate to an estimate: additive and multiplicative increase,
//! multiplicative decrease (libwebrtc `modules/remote_bitrate_estimator/aimd_rate_control.cc` and
//! `modules/congestion_controller/goog_cc/link_capacity_estimator.cc`).

use super::overuse::Usage;

/// A receiver learns no round-trip time from RTCP: libwebrtc's while it knows none (`kDefaultRtt`).
const RTT_MS: i64 = 200;
/// The rate after overuse, of what was received (libwebrtc `kDefaultBackoffFactor`).
const BACKOFF: f64 = 0.85;
/// From the first received rate to the first estimate (libwebrtc `kInitializationTime`).
const SILENT_MS: i64 = 5_000;
/// The least estimate (libwebrtc `kCongestionControllerMinBitrate`).
const BITRATE_BPS_MIN: f64 = 5_000.0;
/// Growth in a second while no capacity is known.
const GROWTH: f64 = 1.08;
/// What feedback may take of the rate, and how long a report is (libwebrtc `GetFeedbackInterval`).
const FEEDBACK_SHARE: f64 = 0.05;
const REPORT_BITS: f64 = 80.0 * 8.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Hold,
    Increase,
}

/// The estimate and what it follows from.
#[derive(Debug)]
pub(super) struct RateControl {
    bitrate_bps: f64,
    received_bps: f64,
    capacity: LinkCapacity,
    state: State,
    changed_ms: Option<i64>,
    first_received_ms: Option<i64>,
    is_valid: bool,
}

impl Default for RateControl {
    fn default() -> Self {
        let start_bps = 30e6;
        Self {
            bitrate_bps: start_bps,
            received_bps: start_bps,
            capacity: LinkCapacity::default(),
            state: State::Hold,
            changed_ms: None,
            first_received_ms: None,
            is_valid: false,
        }
    }
}

impl RateControl {
    /// The estimate, once there is one.
    pub(super) fn estimate_bps(&self) -> Option<f64> {
        self.is_valid.then_some(self.bitrate_bps)
    }

    /// How long after an update the next one is due.
    pub(super) fn interval_ms(&self) -> i64 {
        let interval_s = REPORT_BITS / (self.bitrate_bps * FEEDBACK_SHARE);
        ((interval_s * 1_000.0) as i64).clamp(200, 1_000)
    }

    /// Overuse goes on: the rate was last changed a round trip ago, or half of it arrives.
    pub(super) fn reduces_further(&self, now_ms: i64, received_bps: f64) -> bool {
        self.changed_ms.is_none_or(|changed_ms| now_ms - changed_ms >= RTT_MS)
            || self.estimate_bps().is_some_and(|estimate_bps| received_bps < 0.5 * estimate_bps)
    }

    /// It is this, by a probe.
    pub(super) fn set_estimate(&mut self, bitrate_bps: f64, now_ms: i64) {
        self.bitrate_bps = bitrate_bps.max(BITRATE_BPS_MIN);
        (self.is_valid, self.changed_ms) = (true, Some(now_ms));
    }

    /// Brings the estimate up to date.
    pub(super) fn update(&mut self, usage: Usage, received_bps: Option<f64>, now_ms: i64) {
        if !self.is_valid
            && let Some(received_bps) = received_bps
        {
            let first_ms = *self.first_received_ms.get_or_insert(now_ms);
            if now_ms - first_ms > SILENT_MS {
                (self.bitrate_bps, self.is_valid) = (received_bps, true);
            }
        }
        self.received_bps = received_bps.unwrap_or(self.received_bps);
        // Overuse is acted on at once, also while there is no estimate.
        if !self.is_valid && usage != Usage::Over {
            return;
        }
        match usage {
            Usage::Over => self.decrease(now_ms),
            Usage::Under => self.state = State::Hold,
            Usage::Normal => {
                if self.state == State::Hold {
                    self.changed_ms = Some(now_ms);
                    self.state = State::Increase;
                }
                self.increase(now_ms);
            }
        }
        self.bitrate_bps = self.bitrate_bps.max(BITRATE_BPS_MIN);
    }

    fn increase(&mut self, now_ms: i64) {
        if self.received_bps > self.capacity.upper_bps() {
            self.capacity.reset();
        }
        let limit_bps = 1.5 * self.received_bps + 10_000.0;
        let elapsed_s =
            self.changed_ms.map_or(1.0, |changed_ms| (now_ms - changed_ms) as f64 / 1e3);
        if self.bitrate_bps < limit_bps {
            let more_bps = match self.capacity.estimate_bps() {
                Some(_) => self.additive_bps_per_s() * elapsed_s,
                None => (self.bitrate_bps * (GROWTH.powf(elapsed_s.min(1.0)) - 1.0)).max(1_000.0),
            };
            self.bitrate_bps = (self.bitrate_bps + more_bps).min(limit_bps);
        }
        self.changed_ms = Some(now_ms);
    }

    /// Near the capacity: about a packet in the time in which the filter answers.
    fn additive_bps_per_s(&self) -> f64 {
        let frame_bits = self.bitrate_bps / 30.0;
        let packets = (frame_bits / (1_200.0 * 8.0)).ceil().max(1.0);
        let response_s = 2.0 * (RTT_MS + 100) as f64 / 1_000.0;
        (frame_bits / packets / response_s).max(4_000.0)
    }

    fn decrease(&mut self, now_ms: i64) {
        let received_bps = self.received_bps;
        let mut decreased_bps = received_bps * BACKOFF;
        if decreased_bps > 5_000.0 {
            decreased_bps -= 5_000.0;
        }
        if decreased_bps > self.bitrate_bps
            && let Some(capacity_bps) = self.capacity.estimate_bps()
        {
            decreased_bps = BACKOFF * capacity_bps;
        }
        self.bitrate_bps = self.bitrate_bps.min(decreased_bps);
        if received_bps < self.capacity.lower_bps() {
            self.capacity.reset();
        }
        self.is_valid = true;
        self.capacity.overused(received_bps);
        // Until the queue is empty.
        self.state = State::Hold;
        self.changed_ms = Some(now_ms);
    }
}

/// What the way carried when it was overused: a smoothed mean and how far off it is.
#[derive(Debug)]
struct LinkCapacity {
    estimate_kbps: Option<f64>,
    deviation: f64,
}

impl Default for LinkCapacity {
    fn default() -> Self {
        Self { estimate_kbps: None, deviation: 0.4 }
    }
}

impl LinkCapacity {
    fn estimate_bps(&self) -> Option<f64> {
        self.estimate_kbps.map(|kbps| kbps * 1e3)
    }

    fn upper_bps(&self) -> f64 {
        self.estimate_kbps.map_or(f64::INFINITY, |kbps| (kbps + self.three_sigma(kbps)) * 1e3)
    }

    fn lower_bps(&self) -> f64 {
        self.estimate_kbps.map_or(0.0, |kbps| (kbps - self.three_sigma(kbps)).max(0.0) * 1e3)
    }

    fn three_sigma(&self, kbps: f64) -> f64 {
        3.0 * (self.deviation * kbps).sqrt()
    }

    fn reset(&mut self) {
        self.estimate_kbps = None;
    }

    fn overused(&mut self, received_bps: f64) {
        const ALPHA: f64 = 0.05;
        let sample = received_bps / 1e3;
        let estimate =
            self.estimate_kbps.map_or(sample, |kbps| (1.0 - ALPHA) * kbps + ALPHA * sample);
        self.estimate_kbps = Some(estimate);
        let error = estimate - sample;
        self.deviation = (1.0 - ALPHA) * self.deviation + ALPHA * error * error / estimate.max(1.0);
        // About 14 and 35 kbit/s at 500 kbit/s.
        self.deviation = self.deviation.clamp(0.4, 2.5);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_at_the_received_rate_after_five_seconds_and_grows_by_eight_percent() {
        let mut control = RateControl::default();
        for now_ms in (0..=5_000).step_by(200) {
            control.update(Usage::Normal, Some(1e6), now_ms);
            assert_eq!(control.estimate_bps(), None);
        }
        control.update(Usage::Normal, Some(1e6), 5_200);
        let first_bps = control.estimate_bps().unwrap();
        assert!((1e6..1.002e6).contains(&first_bps), "{first_bps}");
        for now_ms in (5_400..=6_200).step_by(200) {
            control.update(Usage::Normal, Some(1e6), now_ms);
        }
        let grown = control.estimate_bps().unwrap() / first_bps;
        assert!((grown - 1.08).abs() < 0.001, "{grown}");
        for now_ms in (6_400..=30_000).step_by(200) {
            control.update(Usage::Normal, Some(1e6), now_ms);
        }
        assert_eq!(control.estimate_bps(), Some(1.51e6));
        assert_eq!(control.interval_ms(), 200);
    }

    #[test]
    fn overuse_takes_it_below_what_is_received_also_at_once() {
        let mut control = RateControl::default();
        control.update(Usage::Over, Some(1e6), 0);
        assert_eq!(control.estimate_bps(), Some(845_000.0));
        assert!(!control.reduces_further(100, 8e5) && control.reduces_further(200, 8e5));
        assert!(control.reduces_further(100, 4e5));
        control.update(Usage::Under, Some(8e5), 400);
        assert_eq!(control.estimate_bps(), Some(845_000.0), "held");
        // Near the capacity it grows by little.
        control.update(Usage::Normal, Some(1e6), 600);
        control.update(Usage::Normal, Some(1e6), 1_600);
        let grown_bps = control.estimate_bps().unwrap() - 845_000.0;
        assert!((4_000.0..20_000.0).contains(&grown_bps), "{grown_bps}");
    }

    #[test]
    fn little_gets_a_report_a_second_and_there_is_a_least() {
        let mut control = RateControl::default();
        control.update(Usage::Over, Some(100.0), 0);
        assert_eq!((control.estimate_bps(), control.interval_ms()), (Some(5_000.0), 1_000));
        let slow = RateControl { bitrate_bps: 40_000.0, ..RateControl::default() };
        assert_eq!(slow.interval_ms(), 320);
    }
}
