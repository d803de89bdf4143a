//! What a receiver says it can take: libwebrtc's receive-side estimate by abs-send-time
//! (`modules/remote_bitrate_estimator/remote_bitrate_estimator_abs_send_time.cc`), which is what
//! Chrome sends as REMB.
//!
//! Groups of packets (`inter_arrival`) that arrive further and further apart than they were sent
//! are overuse (`overuse`); from that and the received rate (`rate_window`) follows the estimate
//! (`rate_control`). libwebrtc's probes, by which the first evenly spaced packets give an estimate
//! before the five seconds are over, are left out: Chrome was not seen to use them, and a low layer
//! in the beginning would hold the estimate down for long. Everything runs on arrival times: a
//! receiver that is late to look sees what it would have seen in time.

mod inter_arrival;
mod overuse;
mod rate_control;
mod rate_window;

use std::time::Instant;

use inter_arrival::InterArrival;
use overuse::{OveruseDetector, OveruseEstimator, Usage};
use rate_control::RateControl;
use rate_window::RateWindow;

use super::STREAM_TIMEOUT;

/// The estimate of one peer connection: of all its video.
#[derive(Debug)]
pub(super) struct Estimator {
    /// The first packet; times are counted from it.
    base: Instant,
    latest_ms: i64,
    updated_ms: Option<i64>,
    /// The window had a rate.
    had_rate: bool,
    groups: InterArrival,
    detector: OveruseDetector,
    received: RateWindow,
    control: RateControl,
    filter: OveruseEstimator,
}

impl Estimator {
    /// Begins with a packet that arrived now.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            base: now,
            latest_ms: 0,
            updated_ms: None,
            had_rate: false,
            groups: InterArrival::default(),
            detector: OveruseDetector::default(),
            received: RateWindow::default(),
            control: RateControl::default(),
            filter: OveruseEstimator::default(),
        }
    }

    /// Takes a packet that arrived now: `sent` is its abs-send-time (24 bits, 2⁻¹⁸ s), `bytes` its
    /// payload, padding included. Gives the estimate in bits a second when it is due: every 200 to
    /// 1,000 ms by the rate, and at once on overuse.
    pub(super) fn packet(&mut self, now: Instant, sent: u32, bytes: u32) -> Option<f64> {
        let since = now.saturating_duration_since(self.base);
        let now_ms = since.as_secs() as i64 * 1_000 + i64::from(since.subsec_millis());
        if self.received.active_ms(now_ms).is_some() {
            self.had_rate = true;
        } else if std::mem::take(&mut self.had_rate) {
            self.received.reset();
        }
        self.received.add(now_ms, bytes);
        if now_ms - self.latest_ms > STREAM_TIMEOUT.as_millis() as i64 {
            self.groups = InterArrival::default();
            self.filter = OveruseEstimator::default();
        }
        self.latest_ms = self.latest_ms.max(now_ms);
        if let Some(deltas) = self.groups.packet(sent, now_ms, bytes) {
            self.filter.update(deltas, self.detector.usage());
            self.detector.detect(&self.filter, deltas.sent_ms, now_ms);
        }
        let usage = self.detector.usage();
        let mut is_due = self
            .updated_ms
            .is_none_or(|updated_ms| now_ms - updated_ms > self.control.interval_ms());
        if !is_due && usage == Usage::Over {
            let received_bps = self.received.bitrate_bps(now_ms);
            is_due = received_bps.is_some_and(|bps| self.control.reduces_further(now_ms, bps));
        }
        if !is_due {
            return None;
        }
        self.control.update(usage, self.received.bitrate_bps(now_ms), now_ms);
        let estimate_bps = self.control.estimate_bps()?;
        self.updated_ms = Some(now_ms);
        Some(estimate_bps)
    }
}

#[cfg(test)]
mod tests;
