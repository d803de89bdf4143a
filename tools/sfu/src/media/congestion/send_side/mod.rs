//! What the way to a subscriber carries, by when each packet arrived, as livekit-server finds it out with
//! `congestion_control.use_send_side_bwe` (LiveKit `pkg/sfu/bwe/sendsidebwe/congestion_detector.go`,
//! whose numbers these are).
//!
//! Left out are what depends on the round-trip time, which is taken for LiveKit's where it has measured
//! none, and the early warning's say in what a track gets that is new. Arrivals that are told again
//! count once, where LiveKit counts them twice.

mod group;
pub(crate) mod log;
mod queuing;
mod traffic;

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::trend::{Trend, TrendConfig};
use group::{Full, Group, Membership};
use log::{Told, micros};
use queuing::{EARLY, FIRM, FREE_US_MAX, LOSSLESS_MAX, LOST_MIN, QUEUED_US_MIN, Region, region};
use traffic::Traffic;

/// Groups that the state of the way is judged by.
const GROUP: Full = Full { packets: 30, us: 500_000 };
/// How long they are remembered, and how many of them at most; of more the oldest is forgotten.
const GROUPS_US: u64 = 10_000_000;
const SENT_GROUPS_MAX: usize = 1_024;
/// Groups in which it is watched whether what was given up was enough.
const RELIEF_GROUP: Full = Full { packets: 20, us: 150_000 };
/// What share of the packets is carried is told apart in such steps.
const RELIEF_STEP: f64 = 0.05;
const RELIEF: TrendConfig = TrendConfig {
    samples: 4,
    samples_min: 2,
    falls_below: -0.5,
    falling_for: Duration::from_secs(2),
    collapse: Duration::from_millis(500),
};
/// A probe is one group, whatever is sent.
const PROBE_GROUP: Full = Full { packets: 16_384, us: 60_000_000 };
/// What is carried by a way that is free is measured over so long.
const FREE_US: u64 = 1_000_000;

/// What the arrivals tell of the way.
#[derive(Debug)]
pub(super) struct SendSide {
    /// Times of packets count from it.
    began: Instant,
    groups: VecDeque<Group>,
    state: State,
    /// What was carried when the state changed last.
    carried_bps: Option<u64>,
    relief: Option<Relief>,
    probe: Option<Probe>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Warned,
    Congested,
}

/// A probe's packets: those sent in its time.
#[derive(Debug)]
struct Probe {
    sent_us: RangeInclusive<u64>,
    group: Group,
}

/// What a probe has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probed {
    /// It was too much.
    Congested,
    /// The way carried so much.
    Carried(u64),
    Unclear,
}

impl SendSide {
    /// By packets whose times count from then on.
    pub(super) fn new(began: Instant) -> Self {
        Self {
            began,
            groups: VecDeque::new(),
            state: State::Free,
            carried_bps: None,
            relief: None,
            probe: None,
        }
    }

    /// Since when times of packets are counted.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Whether nothing was found to queue or to be lost.
    pub(super) fn is_free(&self) -> bool {
        self.state == State::Free
    }

    /// Whether it carries less than is sent.
    pub(super) fn is_congested(&self) -> bool {
        self.state == State::Congested
    }

    /// Takes a report. What the way carries, in bit/s, if by it the way is congested, or carries even
    /// less than was thought. One that tells nothing new costs nothing: a datagram has room for fifty.
    pub(super) fn report(
        &mut self,
        now: Instant,
        packets: impl Iterator<Item = Told>,
    ) -> Option<u64> {
        let mut is_news = false;
        for packet in packets {
            self.take(now, &packet);
            is_news = true;
        }
        if !is_news {
            return None;
        }
        let oldest_us = micros(self.began, now).saturating_sub(GROUPS_US);
        let is_new =
            |group: &Group| group.traffic().span_us.is_some_and(|(from_us, _)| from_us > oldest_us);
        let old = self.groups.iter().position(is_new).unwrap_or(self.groups.len());
        let old = old.max(self.groups.len().saturating_sub(SENT_GROUPS_MAX));
        self.groups.drain(..old);
        let changed = self.judge();
        let worse = self.find_no_relief();
        self.carried_bps.filter(|_| (changed || worse) && self.is_congested())
    }

    fn take(&mut self, now: Instant, packet: &Told) {
        if let Some(relief) = &mut self.relief {
            relief.take(now, packet);
        }
        if let Some(probe) = &mut self.probe
            && probe.sent_us.contains(&packet.sent_us)
        {
            probe.group.add(packet);
        }
        let mut before_us = 0;
        if let Some(last) = self.groups.back_mut() {
            match last.add(packet) {
                Membership::Within => return,
                Membership::Behind => before_us = last.queued_us(),
                Membership::Before => {
                    let mut earlier = self.groups.iter_mut().rev().skip(1);
                    let _ = earlier.any(|group| group.add(packet) == Membership::Within);
                    return;
                }
            }
        }
        let mut group = Group::new(GROUP, before_us);
        group.add(packet);
        self.groups.push_back(group);
    }

    /// Whether the state has changed by what the groups tell.
    fn judge(&mut self) -> bool {
        let (state, shown_by) = match (self.state, region(&self.groups, &FIRM)) {
            (State::Warned, Region::Congested(which)) => (State::Congested, Some(which)),
            (State::Congested, Region::Free) => (State::Free, None),
            (State::Congested, _) => return false,
            (state, _) => match (state, region(&self.groups, &EARLY)) {
                (State::Free, Region::Congested(which)) => (State::Warned, Some(which)),
                (State::Warned, Region::Free) => (State::Free, None),
                _ => return false,
            },
        };
        self.state = state;
        self.measure(shown_by);
        self.relief = self.is_congested().then(Relief::new);
        true
    }

    /// What the way carried, as these groups show, or the newest ones.
    fn measure(&mut self, shown_by: Option<RangeInclusive<usize>>) {
        if self.probe.is_some() {
            return;
        }
        let mut seen = Traffic::default();
        let (which, enough_us) = match shown_by {
            Some(which) => (which, None),
            None => (0..=self.groups.len().saturating_sub(1), Some(FREE_US)),
        };
        let is_enough = |seen: &Traffic| enough_us.is_none_or(|us| seen.sent_in_us() > us);
        let asked = self.groups.range((*which.start()).min(self.groups.len())..);
        let asked = asked.take(which.count()).rev().filter(|group| group.is_full());
        for group in asked {
            seen.merge(group.traffic());
            if enough_us.is_some() && is_enough(&seen) {
                break;
            }
        }
        if is_enough(&seen) {
            self.carried_bps = Some(seen.carried_bps());
        }
    }

    /// Whether ever less is carried of what is sent, though the way was found to be congested, so that it
    /// carries even less than was thought.
    fn find_no_relief(&mut self) -> bool {
        let Some(relief) = self.relief.as_mut().filter(|relief| relief.trend.falls()) else {
            return false;
        };
        let carried_bps = relief.seen.carried_bps();
        (relief.seen, relief.trend) = (Traffic::default(), Trend::new(RELIEF));
        let is_less = self.carried_bps.is_none_or(|known_bps| carried_bps < known_bps);
        if is_less {
            self.carried_bps = Some(carried_bps);
        }
        is_less
    }

    /// What is sent in this time is a probe.
    pub(super) fn begin_probe(&mut self, from: Instant, until: Instant) {
        let sent_us = micros(self.began, from)..=micros(self.began, until);
        self.probe = Some(Probe { sent_us, group: Group::new(PROBE_GROUP, 0) });
    }

    /// What the probe has shown.
    pub(super) fn end_probe(&mut self) -> Probed {
        let Some(probe) = self.probe.take() else { return Probed::Unclear };
        let (queued_us, traffic) = (probe.group.queued_us(), probe.group.traffic());
        let loss = traffic.weighted_loss();
        if !self.is_free() || queued_us > QUEUED_US_MIN || loss > LOST_MIN {
            Probed::Congested
        } else if queued_us < FREE_US_MAX && loss < LOSSLESS_MAX {
            let bps = traffic.carried_bps();
            self.carried_bps = self.carried_bps.max(Some(bps));
            Probed::Carried(bps)
        } else {
            Probed::Unclear
        }
    }
}

/// Whether a congested way carries what it is still given.
#[derive(Debug)]
struct Relief {
    trend: Trend,
    seen: Traffic,
    group: Group,
}

impl Relief {
    fn new() -> Self {
        Self {
            trend: Trend::new(RELIEF),
            seen: Traffic::default(),
            group: Group::new(RELIEF_GROUP, 0),
        }
    }

    fn take(&mut self, now: Instant, packet: &Told) {
        if self.group.add(packet) != Membership::Behind {
            return;
        }
        let traffic = self.group.traffic();
        self.seen.merge(traffic);
        self.trend.add(now, (traffic.carried_share() / RELIEF_STEP).round() as u64);
        self.group = Group::new(RELIEF_GROUP, self.group.queued_us());
    }
}

#[cfg(test)]
mod tests {
    use super::log::SendLog;
    use super::*;

    /// Packets so far apart that each fills a group, sent and told faster than any client could.
    #[test]
    fn of_more_groups_than_are_remembered_the_oldest_is_forgotten() {
        let start = Instant::now();
        let mut side = SendSide::new(start);
        let groups = SENT_GROUPS_MAX as u32 + 5;
        let told = (0..2 * groups * GROUP.packets).map(|number| Told {
            number,
            sent_us: 20 + u64::from(number),
            bytes: 100,
            fate: log::Fate::Arrived { send_delta_us: 1, recv_delta_us: 1, was_lost: false },
        });
        side.report(start + Duration::from_millis(100), told);
        assert_eq!(side.groups.len(), SENT_GROUPS_MAX);
        assert!(side.groups[0].traffic().span_us.is_some_and(|(from_us, _)| from_us > 20));
    }

    #[test]
    fn what_a_probe_was_carried_of_is_known_to_be_carried() {
        let start = Instant::now();
        let (mut side, mut log) = (SendSide::new(start), SendLog::new(start));
        side.carried_bps = Some(100_000);
        let end = start + Duration::from_secs(1);
        side.begin_probe(start, end);
        let told = (0..90).filter_map(|packet| {
            log.set_now(start + Duration::from_millis(10) * packet);
            let number = log.add(1_000);
            log.tell(number.into(), Some(10_000 * u64::from(packet)))
        });
        assert_eq!(side.report(end, told), None);
        let Probed::Carried(bps) = side.end_probe() else { panic!("nothing queued, all arrived") };
        assert!((700_000..900_000).contains(&bps), "{bps}");
        assert_eq!(side.carried_bps, Some(bps));
    }
}
