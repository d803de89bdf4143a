//! Whether packets queue behind each other on the way, or are lost: what groups of them tell (LiveKit
//! `pkg/sfu/bwe/sendsidebwe/congestion_detector.go`, whose numbers these are, after the JitterPath
//! paper that `send_side_bwe.go` names). Pure.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use super::group::Group;
use super::traffic::Traffic;

/// From here on packets queue behind each other; below the other they don't.
pub(super) const QUEUED_US_MIN: i64 = 50_000;
pub(super) const FREE_US_MAX: i64 = 20_000;
/// The same of the share that is lost.
pub(super) const LOST_MIN: f64 = 0.25;
pub(super) const LOSSLESS_MAX: f64 = 0.1;
/// How surely a queue has to grow (Kendall's tau).
const GROWTH_MIN: f64 = 0.8;
/// Groups that are looked at; what is older says nothing. More than any [`Evidence`] needs, and few enough
/// to compare each with each for every report.
const GROUPS_MAX: usize = 128;

/// How many groups in a row say something, and in how much time they were sent.
#[derive(Debug, Clone, Copy)]
struct Needs {
    groups: u32,
    us: u64,
}

impl Needs {
    const fn groups(groups: u32) -> Self {
        Self { groups, us: groups as u64 * 100_000 }
    }

    fn are_met(self, groups: u32, us: u64) -> bool {
        groups >= self.groups && us >= self.us
    }
}

/// What it takes to say that a way is congested, and that it is free.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evidence {
    queues: Needs,
    flows: Needs,
    loses: Needs,
    keeps: Needs,
}

/// For a warning.
pub(super) const EARLY: Evidence = Evidence {
    queues: Needs::groups(2),
    flows: Needs::groups(3),
    loses: Needs::groups(3),
    keeps: Needs::groups(4),
};
/// For taking layers away.
pub(super) const FIRM: Evidence = Evidence {
    queues: Needs::groups(4),
    flows: Needs::groups(5),
    loses: Needs::groups(6),
    keeps: Needs::groups(6),
};

/// What the latest groups tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Region {
    /// Packets queue or are lost, as these groups show.
    Congested(RangeInclusive<usize>),
    Unclear,
    Free,
}

/// What the latest groups tell, oldest first, where so much is asked of them.
pub(super) fn region(groups: &VecDeque<Group>, evidence: &Evidence) -> Region {
    match (by_delay(groups, evidence), by_loss(groups, evidence)) {
        (Region::Congested(which), _) | (_, Region::Congested(which)) => Region::Congested(which),
        (Region::Free, Region::Free) => Region::Free,
        _ => Region::Unclear,
    }
}

/// Those that are full, from the newest back, with their places; of more than are looked at the newest.
fn newest_first(groups: &VecDeque<Group>) -> impl Iterator<Item = (usize, &Group)> {
    groups.iter().enumerate().rev().filter(|(_, group)| group.is_full()).take(GROUPS_MAX)
}

fn by_delay(groups: &VecDeque<Group>, evidence: &Evidence) -> Region {
    let (mut queued, mut free) = (0, 0);
    let (mut seen, mut newest, mut growth) = (Traffic::default(), None, Growth::default());
    for (at, group) in newest_first(groups) {
        let newest = *newest.get_or_insert(at);
        let delay_us = group.queued_us();
        growth.add(delay_us);
        seen.merge(group.traffic());
        let sent_in_us = seen.sent_in_us();
        if delay_us < FREE_US_MAX && queued == 0 {
            free += 1;
            if evidence.flows.are_met(free, sent_in_us) {
                return Region::Free;
            }
        } else if delay_us > QUEUED_US_MIN && free == 0 {
            queued += 1;
            let enough = evidence.queues.are_met(queued, sent_in_us);
            if enough && growth.share() > GROWTH_MIN {
                return Region::Congested(at..=newest);
            }
        } else if queued + free > 0 {
            break;
        }
    }
    Region::Unclear
}

/// How much pairs of delays agree that they grow, each counted once, when the older of the two comes.
#[derive(Debug, Default)]
struct Growth {
    newer_us: Vec<i64>,
    grow: u32,
    shrink: u32,
}

impl Growth {
    /// Takes a delay that is older than those before it.
    fn add(&mut self, older_us: i64) {
        for newer_us in &self.newer_us {
            self.grow += u32::from(*newer_us > older_us);
            self.shrink += u32::from(*newer_us < older_us);
        }
        self.newer_us.push(older_us);
    }

    /// 1 if all agree that they grow, -1 if none does.
    fn share(&self) -> f64 {
        match self.grow + self.shrink {
            0 => 0.0,
            pairs => (f64::from(self.grow) - f64::from(self.shrink)) / f64::from(pairs),
        }
    }
}

fn by_loss(groups: &VecDeque<Group>, evidence: &Evidence) -> Region {
    let (mut seen, mut count, mut newest) = (Traffic::default(), 0, None);
    // Each is looked at once, when there is enough for it.
    let (mut may_lose, mut may_keep) = (true, true);
    for (at, group) in newest_first(groups) {
        let newest = *newest.get_or_insert(at);
        count += 1;
        seen.merge(group.traffic());
        let sent_in_us = seen.sent_in_us();
        if may_lose && evidence.loses.are_met(count, sent_in_us) {
            may_lose = false;
            if seen.weighted_loss() > LOST_MIN {
                return Region::Congested(at..=newest);
            }
        }
        if may_keep && evidence.keeps.are_met(count, sent_in_us) {
            may_keep = false;
            if seen.weighted_loss() < LOSSLESS_MAX {
                return Region::Free;
            }
        }
        if !may_lose && !may_keep {
            break;
        }
    }
    Region::Unclear
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::congestion::send_side::group::Full;
    use crate::media::congestion::send_side::log::{Fate, Told};

    const PACKETS: u32 = 10;

    /// Full groups of ten packets, 12 ms apart, that queue for so long each, and lose so many.
    fn groups(queued_ms: &[i64], lost: u32) -> VecDeque<Group> {
        let mut before_us = 0;
        let (mut number, mut sent_us) = (1, 0);
        let group = |&queued_ms: &i64| {
            let mut group = Group::new(Full { packets: PACKETS, us: 1_000_000 }, before_us);
            let more_us = queued_ms * 1_000 - before_us;
            before_us = queued_ms * 1_000;
            for packet in 0..PACKETS + lost {
                sent_us += 12_000;
                let recv_delta_us = 12_000 + if packet == 0 { more_us } else { 0 };
                let fate = match packet {
                    packet if (1..=lost).contains(&packet) => Fate::Lost,
                    _ => Fate::Arrived { send_delta_us: 12_000, recv_delta_us, was_lost: false },
                };
                group.add(&Told { number, sent_us, bytes: 1_000, fate });
                number += 1;
            }
            assert!(group.is_full() && group.queued_us() == before_us);
            group
        };
        queued_ms.iter().map(group).collect()
    }

    #[test]
    fn a_queue_that_grows_is_congestion_and_one_that_stays_is_unclear() {
        let growing = groups(&[0, 30, 60, 90, 120, 150], 0);
        assert_eq!(region(&growing, &EARLY), Region::Congested(4..=5));
        assert_eq!(region(&growing, &FIRM), Region::Congested(2..=5));
        assert_eq!(region(&groups(&[0, 0, 0, 0, 0, 60, 90, 120], 0), &FIRM), Region::Unclear);
        assert_eq!(region(&groups(&[90; 8], 0), &FIRM), Region::Unclear);
        assert_eq!(region(&groups(&[30; 8], 0), &EARLY), Region::Unclear, "between the bounds");
    }

    #[test]
    fn what_is_older_than_the_groups_looked_at_says_nothing() {
        let of = |groups_behind: usize| {
            let mut queued_ms = vec![60, 70, 80];
            queued_ms.extend(vec![90; groups_behind]);
            region(&groups(&queued_ms, 0), &FIRM)
        };
        assert_eq!(of(GROUPS_MAX - 1), Region::Congested(2..=GROUPS_MAX + 1));
        assert_eq!(of(GROUPS_MAX), Region::Unclear);
    }

    proptest! {
        #[test]
        fn growth_is_what_all_pairs_say(delays_us in proptest::collection::vec(0i64..6, 0..12)) {
            let mut growth = Growth::default();
            delays_us.iter().for_each(|delay_us| growth.add(*delay_us));
            let pairs = delays_us.iter().enumerate().flat_map(|(at, newer)| {
                delays_us[at + 1..].iter().map(move |older| newer.cmp(older))
            });
            let pairs: Vec<_> = pairs.filter(|order| order.is_ne()).collect();
            let grow = pairs.iter().filter(|order| order.is_gt()).count() as f64;
            let tau = if pairs.is_empty() { 0.0 } else { 2.0 * grow / pairs.len() as f64 - 1.0 };
            prop_assert!((growth.share() - tau).abs() < 1e-9);
        }
    }

    #[test]
    fn a_way_is_free_where_nothing_queues_and_nothing_is_lost() {
        assert_eq!(region(&groups(&[0; 6], 0), &FIRM), Region::Free);
        assert_eq!(region(&groups(&[0; 5], 0), &FIRM), Region::Unclear, "too few for the losses");
        assert_eq!(region(&groups(&[60, 0, 0, 0, 0], 0), &EARLY), Region::Free);
        assert_eq!(region(&groups(&[0, 0, 0, 60, 0, 0], 0), &EARLY), Region::Unclear);
    }

    #[test]
    fn losses_are_congestion_where_nothing_queues() {
        let groups = groups(&[0; 6], 4);
        assert_eq!(region(&groups, &EARLY), Region::Congested(3..=5));
        assert_eq!(region(&groups, &FIRM), Region::Congested(0..=5));
    }
}
