//! How much of the video fits the way to a subscriber, by what the subscriber says of it: its own
//! estimates (REMB, draft-alvestrand-rmcat-remb-03) and its NACKs. As livekit-server does it (LiveKit
//! `pkg/sfu/bwe/remotebwe` and `pkg/sfu/streamallocator`, whose numbers these are): estimates that
//! fall, or packets asked for again and again, are congestion, and layers are given up; then probes
//! of padding find out whether there is room again. Pure: nothing here is done for a packet of media,
//! only for one of RTCP, and every 20 to 100 ms where somebody lacks a layer.

pub(crate) mod allocate;
pub(crate) mod nacks;
mod probe;
mod trend;

use std::time::{Duration, Instant};

use nacks::NackShare;
use probe::{Probe, Regulator};
use trend::Trend;

use crate::ledger::CongestionLedger;

/// The way is taken to carry this until it shows that it does not.
const CAPACITY_MAX_BPS: u64 = 100_000_000;
/// Congestion counts only where the estimate is below this share of what is sent.
const USED_SHARE: f64 = 0.95;
/// How much a share of packets asked for again takes from what is sent.
const NACK_WEIGHT: f64 = 0.4;
/// How much more than the next layer a probe is to find room for, and how much at least.
const PROBE_SHARE: f64 = 1.2;
const PROBE_BPS_MIN: u64 = 200_000;
/// How often it is looked whether a probe is due.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A layer that was given to try was too much if the way is congested within this time.
const TRIAL: Duration = Duration::from_secs(10);
/// Who sends no estimate for so long, because it gets nothing, is tried again.
const SILENT_MAX: Duration = Duration::from_secs(5);

/// What a subscriber has told of the way to it, and what follows from that.
#[derive(Debug)]
pub(crate) struct Congestion {
    /// What the way carries, as far as it is known.
    capacity_bps: u64,
    trend: Trend,
    nacks: NackShare,
    congested: bool,
    /// Some track gets less than is wanted of it.
    deficient: bool,
    probe: Option<Probe>,
    regulator: Regulator,
    /// When a layer was given to try.
    tried: Option<Instant>,
    heard_at: Instant,
    look_at: Instant,
    counted: CongestionLedger,
}

/// What a subscriber was sent and takes now.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// What the layers take that it gets, in bit/s.
    pub(crate) bps: u64,
    /// How much more the next layer takes, if one is lacking.
    pub(crate) next_bps: Option<u64>,
    /// Bytes of video sent to it so far.
    pub(crate) sent_bytes: u64,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Share out so much anew.
    Allocate { capacity_bps: u64 },
    /// There may be room: give more where so much suffices, and take nothing away.
    Boost { capacity_bps: u64 },
    /// Send so many bytes of padding.
    Pad { bytes: u64 },
}

impl Congestion {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            capacity_bps: CAPACITY_MAX_BPS,
            trend: Trend::new(trend::STEADY),
            nacks: NackShare::new(nacks::STEADY),
            congested: false,
            deficient: false,
            probe: None,
            regulator: Regulator::new(now),
            tried: None,
            heard_at: now,
            look_at: now,
            counted: CongestionLedger::default(),
        }
    }

    /// Takes an estimate in bit/s, with what is sent at this time, and how many packets of video were
    /// sent and asked for again since the last one.
    pub(crate) fn estimate(
        &mut self,
        now: Instant,
        estimate_bps: u64,
        usage_bps: u64,
        (packets, repeated): (u32, u32),
    ) -> Option<Act> {
        self.heard_at = now;
        self.counted.counted.estimates += 1;
        self.counted.estimate_bps = Some(estimate_bps);
        self.counted.estimate_bps_min =
            Some(self.counted.estimate_bps_min.map_or(estimate_bps, |min| min.min(estimate_bps)));
        // A probe that has congested the way is over, whatever comes behind it.
        if self.congested && self.probe.is_some() {
            return None;
        }
        self.trend.add(now, estimate_bps);
        self.nacks.add(now, packets, repeated);
        let excess = self.nacks.excess(now);
        if !self.trend.falls() && excess.is_none() {
            self.congested = false;
            return None;
        }
        if let Some(probe) = &mut self.probe {
            self.congested = true;
            probe.stop(now);
            return None;
        }
        let carried_bps = match excess.filter(|_| !self.trend.falls()) {
            Some(share) => (usage_bps as f64 * (1.0 - NACK_WEIGHT * share)) as u64,
            None => estimate_bps,
        };
        let carried_bps = carried_bps.min(estimate_bps);
        let is_news =
            carried_bps as f64 <= USED_SHARE * usage_bps as f64 && carried_bps != self.capacity_bps;
        if !is_news {
            return None;
        }
        self.counted.counted.congestions += u64::from(!self.congested);
        self.congested = true;
        self.capacity_bps = carried_bps;
        match self.tried.take() {
            Some(tried) if now < tried + TRIAL => self.regulator.probed(true, now),
            _ => self.regulator.wait(now),
        }
        Some(Act::Allocate { capacity_bps: carried_bps })
    }

    /// A receiver report came.
    pub(crate) fn count_report(&mut self) {
        self.counted.counted.reports += 1;
    }

    /// What it carries was shared out, or somebody wants more or less; whether some track lacks a
    /// layer now.
    pub(crate) fn allocated(&mut self, now: Instant, deficient: bool) {
        if std::mem::replace(&mut self.deficient, deficient) == deficient {
            return;
        }
        if deficient {
            self.look_at = now + LOOK_INTERVAL;
        } else {
            // It all fits: what was learnt is of a way that was too narrow, but for what is tried.
            let new = Self::new(now);
            let regulator = std::mem::replace(&mut self.regulator, Regulator::new(now));
            *self = Self {
                counted: std::mem::take(&mut self.counted),
                tried: self.tried,
                regulator: if self.tried.is_some() { regulator } else { new.regulator },
                ..new
            };
        }
    }

    /// When to call [`tick`](Self::tick) next; never while all get what they want.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.deficient.then_some(self.look_at)
    }

    /// Whether anybody may get less than it wants.
    pub(crate) fn is_deficient(&self) -> bool {
        self.deficient
    }

    /// What it carries as far as is known.
    pub(crate) fn capacity_bps(&self) -> u64 {
        self.capacity_bps
    }

    /// Looks what is due: a probe that begins, goes on or ends. `pads` says whether padding can be
    /// sent; without it a layer more is the probe.
    pub(crate) fn tick(&mut self, now: Instant, usage: Usage, pads: bool) -> Option<Act> {
        if !self.deficient || now < self.look_at {
            return None;
        }
        self.look_at = now + LOOK_INTERVAL;
        if self.congested && self.probe.is_none() && now >= self.heard_at + SILENT_MAX {
            self.observe_anew(false);
        }
        if let Some(mut probe) = self.probe.take() {
            let reached =
                !self.congested && self.trend.highest().is_some_and(|bps| bps > probe.goal_bps());
            if reached {
                probe.stop(now);
            }
            if !probe.is_over(now) {
                return self.go_on(now, probe, usage.sent_bytes);
            }
            return self.finish(&probe);
        }
        let next_bps = usage.next_bps?;
        if self.congested || !self.regulator.is_open(now) {
            return None;
        }
        self.counted.counted.probes += 1;
        if !pads {
            self.observe_anew(false);
            self.capacity_bps = usage.bps + next_bps;
            self.regulator.wait(now);
            self.tried = Some(now);
            return Some(Act::Boost { capacity_bps: self.capacity_bps });
        }
        let more_bps = ((next_bps as f64 * PROBE_SHARE) as u64).max(PROBE_BPS_MIN);
        let goal_bps = usage.bps + more_bps;
        self.observe_anew(true);
        let probe = Probe::new(now, goal_bps, self.regulator.duration(), usage.sent_bytes);
        self.go_on(now, probe, usage.sent_bytes)
    }

    /// A probe goes on: what padding is due.
    fn go_on(&mut self, now: Instant, mut probe: Probe, sent_bytes: u64) -> Option<Act> {
        let bytes = probe.padding(now, sent_bytes);
        if let Some(at) = probe.next_at(now) {
            self.look_at = self.look_at.min(at);
        }
        self.probe = Some(probe);
        (bytes > 0).then_some(Act::Pad { bytes })
    }

    /// So many packets of padding were sent, of so many bytes in all.
    pub(crate) fn padded(&mut self, packets: u64, bytes: u64) {
        if let Some(probe) = &mut self.probe {
            probe.padded(bytes);
        }
        self.counted.counted.padding_packets += packets;
    }

    fn finish(&mut self, probe: &Probe) -> Option<Act> {
        let failed = self.congested;
        let highest = self.trend.highest();
        self.congested = false;
        self.observe_anew(false);
        self.regulator.probed(failed, probe.began());
        if failed {
            self.counted.counted.probes_congested += 1;
            return None;
        }
        self.capacity_bps = self.capacity_bps.max(highest.unwrap_or(0));
        Some(Act::Boost { capacity_bps: self.capacity_bps })
    }

    fn observe_anew(&mut self, probing: bool) {
        self.congested = false;
        let (trend, nacks) = match probing {
            true => (trend::PROBING, nacks::PROBING),
            false => (trend::STEADY, nacks::STEADY),
        };
        (self.trend, self.nacks) = (Trend::new(trend), NackShare::new(nacks));
    }

    /// What of it stands in the ledger.
    pub(crate) fn row(&self) -> CongestionLedger {
        CongestionLedger {
            capacity_bps: (self.capacity_bps < CAPACITY_MAX_BPS).then_some(self.capacity_bps),
            ..self.counted.clone()
        }
    }
}

#[cfg(test)]
mod tests;
