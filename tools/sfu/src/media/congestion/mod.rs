//! How much of the video fits the way to a subscriber, by what the subscriber says of it: its own
//! estimates (REMB, draft-alvestrand-rmcat-remb-03) and its NACKs, or when each packet arrived
//! (transport-wide feedback). As livekit-server does it (LiveKit `pkg/sfu/bwe` and
//! `pkg/sfu/streamallocator`, whose numbers these are): estimates that fall, packets asked for again and
//! again, or packets that queue on the way are congestion, and layers are given up; then probes of
//! padding find out whether there is room again. Pure: with estimates nothing is done for a packet of
//! media, only for one of RTCP, and every 20 to 100 ms where somebody lacks a layer; with arrivals each
//! packet is noted in a [`SendLog`](send_side::log::SendLog).

pub(crate) mod allocate;
pub(crate) mod nacks;
mod probe;
pub(crate) mod remote;
pub(crate) mod send_side;
mod trend;

use std::time::{Duration, Instant};

use probe::{Probe, Regulator};
use remote::{Estimate, Remote};
use send_side::log::Told;
use send_side::{Probed, SendSide};

use crate::ledger::CongestionLedger;

/// The way is taken to carry this until it shows that it does not.
const CAPACITY_MAX_BPS: u64 = 100_000_000;
/// How much more than the next layer a probe is to find room for, and how much at least.
const PROBE_SHARE: f64 = 1.2;
const PROBE_BPS_MIN: u64 = 200_000;
/// How often it is looked whether a probe is due.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A layer that was given to try was too much if the way is congested within this time.
const TRIAL: Duration = Duration::from_secs(10);
/// Who tells nothing for so long, because it gets nothing, is tried again.
const SILENT_MAX: Duration = Duration::from_secs(5);

/// What a subscriber has told of the way to it, and what follows from that.
#[derive(Debug)]
pub(crate) struct Congestion {
    /// What the way carries, as far as it is known.
    capacity_bps: u64,
    observer: Observer,
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

/// By what it is known what the way carries.
#[derive(Debug)]
enum Observer {
    /// The subscriber's estimates.
    Remote(Remote),
    /// When packets arrived.
    SendSide(Box<SendSide>),
}

impl Observer {
    /// Of what was heard before nothing counts any more.
    fn begin_anew(&mut self) {
        *self = match self {
            Self::Remote(_) => Self::Remote(Remote::steady()),
            Self::SendSide(side) => Self::SendSide(Box::new(SendSide::new(side.began()))),
        };
    }

    /// Whether there is no sign of congestion.
    fn is_free(&self) -> bool {
        match self {
            Self::Remote(remote) => !remote.is_congested(),
            Self::SendSide(side) => side.is_free(),
        }
    }

    fn begin_probe(&mut self, from: Instant, until: Instant) {
        match self {
            Self::Remote(remote) => *remote = Remote::probing(),
            Self::SendSide(side) => side.begin_probe(from, until),
        }
    }

    /// Whether a probe need not go on: so much is carried. By arrivals that is known only behind its end
    /// (LiveKit's `ProbeClusterIsGoalReached` waits for what is set there).
    fn reaches(&self, goal_bps: u64) -> bool {
        match self {
            Self::Remote(remote) => {
                !remote.is_congested() && remote.highest_bps().is_some_and(|bps| bps > goal_bps)
            }
            Self::SendSide(_) => false,
        }
    }

    fn end_probe(&mut self) -> Probed {
        match self {
            Self::Remote(remote) => match std::mem::replace(remote, Remote::steady()) {
                ended if ended.is_congested() => Probed::Congested,
                ended => ended.highest_bps().map_or(Probed::Unclear, Probed::Carried),
            },
            Self::SendSide(side) => side.end_probe(),
        }
    }
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
    /// By the subscriber's own estimates.
    pub(crate) fn by_estimates(now: Instant) -> Self {
        Self::new(Observer::Remote(Remote::steady()), now)
    }

    /// By when packets arrived, whose times count from `began` on.
    pub(crate) fn by_arrivals(began: Instant, now: Instant) -> Self {
        Self::new(Observer::SendSide(Box::new(SendSide::new(began))), now)
    }

    fn new(observer: Observer, now: Instant) -> Self {
        Self {
            capacity_bps: CAPACITY_MAX_BPS,
            observer,
            deficient: false,
            probe: None,
            regulator: Regulator::new(now),
            tried: None,
            heard_at: now,
            look_at: now,
            counted: CongestionLedger::default(),
        }
    }

    /// Takes an estimate of the subscriber's.
    pub(crate) fn estimate(&mut self, now: Instant, estimate: Estimate) -> Option<Act> {
        let Observer::Remote(remote) = &mut self.observer else { return None };
        self.heard_at = now;
        self.counted.counted.estimates += 1;
        let was_congested = remote.is_congested();
        let carried_bps = remote.estimate(now, estimate, self.capacity_bps);
        self.note_estimate(estimate.bps);
        self.follow(now, was_congested, carried_bps)
    }

    /// Takes a report of when packets arrived.
    pub(crate) fn report(
        &mut self,
        now: Instant,
        packets: impl Iterator<Item = Told>,
    ) -> Option<Act> {
        let Observer::SendSide(side) = &mut self.observer else { return None };
        self.heard_at = now;
        self.counted.counted.arrival_reports += 1;
        let was_congested = side.is_congested();
        let carried_bps = side.report(now, packets);
        // During a probe it is what was carried before it.
        if let Some(bps) = carried_bps.filter(|_| self.probe.is_none()) {
            self.note_estimate(bps);
        }
        self.follow(now, was_congested, carried_bps)
    }

    fn note_estimate(&mut self, bps: u64) {
        self.counted.estimate_bps = Some(bps);
        let min_bps = &mut self.counted.estimate_bps_min;
        *min_bps = Some(min_bps.map_or(bps, |min| min.min(bps)));
    }

    /// What follows where the way was found to carry no more than this.
    fn follow(
        &mut self,
        now: Instant,
        was_congested: bool,
        carried_bps: Option<u64>,
    ) -> Option<Act> {
        if let Some(probe) = &mut self.probe {
            if !self.observer.is_free() {
                probe.stop(now);
            }
            return None;
        }
        let capacity_bps = carried_bps?;
        self.counted.counted.congestions += u64::from(!was_congested);
        self.capacity_bps = capacity_bps;
        match self.tried.take() {
            Some(tried) if now < tried + TRIAL => self.regulator.probed(true, now),
            _ => self.regulator.wait(now),
        }
        Some(Act::Allocate { capacity_bps })
    }

    /// The way is another, so that what the old one delayed and lost says nothing. What it is taken to
    /// carry stays until it shows otherwise.
    pub(crate) fn begin_anew(&mut self) {
        self.observer.begin_anew();
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
            self.observer.begin_anew();
            self.capacity_bps = CAPACITY_MAX_BPS;
            self.probe = None;
            (self.heard_at, self.look_at) = (now, now);
            if self.tried.is_none() {
                self.regulator = Regulator::new(now);
            }
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
        if !self.observer.is_free() && self.probe.is_none() && now >= self.heard_at + SILENT_MAX {
            self.observer.begin_anew();
        }
        if let Some(mut probe) = self.probe.take() {
            if self.observer.reaches(probe.goal_bps()) {
                probe.stop(now);
            }
            if !probe.is_over(now) {
                return self.go_on(now, probe, usage.sent_bytes);
            }
            return self.finish(&probe);
        }
        let next_bps = usage.next_bps?;
        if !self.observer.is_free() || !self.regulator.is_open(now) {
            return None;
        }
        self.counted.counted.probes += 1;
        if !pads {
            self.observer.begin_anew();
            self.capacity_bps = usage.bps + next_bps;
            self.regulator.wait(now);
            self.tried = Some(now);
            return Some(Act::Boost { capacity_bps: self.capacity_bps });
        }
        let more_bps = ((next_bps as f64 * PROBE_SHARE) as u64).max(PROBE_BPS_MIN);
        let goal_bps = usage.bps + more_bps;
        let duration = self.regulator.duration();
        self.observer.begin_probe(now, now + duration);
        let probe = Probe::new(now, goal_bps, duration, usage.sent_bytes);
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
        let probed = self.observer.end_probe();
        self.regulator.probed(probed == Probed::Congested, probe.began());
        match probed {
            Probed::Congested => {
                self.counted.counted.probes_congested += 1;
                return None;
            }
            Probed::Carried(bps) => self.capacity_bps = self.capacity_bps.max(bps),
            Probed::Unclear => {}
        }
        Some(Act::Boost { capacity_bps: self.capacity_bps })
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
mod arrival_tests;
#[cfg(test)]
mod tests;
