//! What a receiver says it can take: libwebrtc's receive-side estimate by abs-send-time
//! (`modules/remote_bitrate_estimator/remote_bitrate_estimator_abs_send_time.cc`), which is what
//! Chrome sends as REMB.
//!
//! Groups of packets (`inter_arrival`) that arrive further and further apart than they were sent
//! are overuse (`overuse`); from that and the received rate (`rate_window`) follows the estimate
//! (`rate_control`). The first packets give an estimate before the five seconds of that are over if
//! they are evenly apart (`probes`). Everything runs on arrival times: a receiver that is late to look
//! sees what it would have seen in time.

mod inter_arrival;
mod overuse;
mod probes;
mod rate_control;
mod rate_window;

use std::time::Instant;

use inter_arrival::{Deltas, InterArrival};
use overuse::{OveruseDetector, OveruseEstimator, Usage};
use probes::Probes;
use rate_control::RateControl;
use rate_window::RateWindow;

use super::STREAM_TIMEOUT;

/// The estimate of one peer connection: of all its video.
///
/// As in `StreamLedger`, fields are laid out in the order in which packets need them, what only groups
/// of packets and estimates need behind.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Estimator {
    /// When the packet before came, and the same as milliseconds: packets that came as one segment have
    /// one time.
    at: Instant,
    at_ms: i64,
    /// The first packet; times are counted from it.
    base: Instant,
    latest_ms: i64,
    /// An estimate may be due later than this.
    look_after_ms: i64,
    received: RateWindow,
    groups: InterArrival,
    /// The window had a rate.
    had_rate: bool,
    detector: OveruseDetector,
    control: RateControl,
    filter: OveruseEstimator,
    /// An estimate is due later than this.
    due_after_ms: i64,
    /// In the beginning; every packet is looked at then.
    probes: Option<Box<Probes>>,
}

impl Estimator {
    /// Begins with a packet that arrived now.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            at: now,
            at_ms: 0,
            base: now,
            latest_ms: 0,
            look_after_ms: i64::MIN,
            received: RateWindow::default(),
            groups: InterArrival::default(),
            had_rate: false,
            detector: OveruseDetector::default(),
            control: RateControl::default(),
            filter: OveruseEstimator::default(),
            due_after_ms: i64::MIN,
            probes: Some(Box::default()),
        }
    }

    /// Takes a packet that arrived now: `sent` is its abs-send-time (24 bits, 2⁻¹⁸ s), `bytes` its
    /// payload, padding included. Gives the estimate in bits a second when it is due: every 200 to
    /// 1,000 ms by the rate, and at once on overuse and by a probe.
    ///
    /// What most packets do not need is in functions of its own.
    #[inline]
    pub(super) fn packet(&mut self, now: Instant, sent: u32, bytes: u32) -> Option<f64> {
        if now != self.at {
            self.advance(now);
        }
        self.received.add(self.at_ms, bytes);
        if let Some(deltas) = self.groups.packet(sent, self.at_ms, bytes) {
            self.compare(deltas);
        }
        if self.at_ms > self.look_after_ms || self.detector.usage() == Usage::Over {
            self.update(sent, bytes)
        } else {
            None
        }
    }

    /// Time has passed since the packet before.
    #[inline(never)]
    fn advance(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.base);
        let now_ms = since.as_secs() as i64 * 1_000 + i64::from(since.subsec_millis());
        (self.at, self.at_ms) = (now, now_ms);
        if self.received.active_ms(now_ms).is_some() {
            self.had_rate = true;
        } else if std::mem::take(&mut self.had_rate) {
            self.received.reset();
        }
        if now_ms - self.latest_ms > STREAM_TIMEOUT.as_millis() as i64 {
            self.groups = InterArrival::default();
            self.filter = OveruseEstimator::default();
        }
        self.latest_ms = self.latest_ms.max(now_ms);
    }

    /// A group has ended.
    #[inline(never)]
    fn compare(&mut self, deltas: Deltas) {
        self.filter.update(deltas, self.detector.usage());
        self.detector.detect(&self.filter, deltas.sent_ms, self.at_ms);
    }

    /// The estimate, if it is due, or another one at once.
    #[inline(never)]
    fn update(&mut self, sent: u32, bytes: u32) -> Option<f64> {
        let (usage, now_ms) = (self.detector.usage(), self.at_ms);
        let has_probed = self.probes.is_some() && self.probe(sent, bytes);
        let is_due = has_probed || now_ms > self.due_after_ms;
        let received_bps = self.received.bitrate_bps(now_ms);
        let reduces = |bps| usage == Usage::Over && self.control.reduces_further(now_ms, bps);
        if !is_due && !received_bps.is_some_and(reduces) {
            return None;
        }
        self.control.update(usage, received_bps, now_ms);
        let estimate_bps = self.control.estimate_bps()?;
        self.due_after_ms = now_ms + self.control.interval_ms();
        if self.probes.is_none() {
            self.look_after_ms = self.due_after_ms;
        }
        Some(estimate_bps)
    }

    /// Takes a packet as a probe. True if it has raised the estimate, or given the first.
    fn probe(&mut self, sent: u32, bytes: u32) -> bool {
        let estimate_bps = self.control.estimate_bps();
        if estimate_bps.is_some() && self.at_ms >= probes::LENGTH_MS {
            self.probes = None;
        }
        let Some(probes) = self.probes.as_mut().filter(|_| bytes > probes::BYTES_MIN) else {
            return false;
        };
        let arrived_us = self.at.saturating_duration_since(self.base).as_micros() as i64;
        let probed_bps = probes.packet(sent, arrived_us, bytes, estimate_bps);
        if let Some(bitrate_bps) = probed_bps {
            self.control.set_estimate(bitrate_bps, self.at_ms);
        }
        probed_bps.is_some()
    }
}

#[cfg(test)]
mod tests;
