//! Who takes which participants of a run: every host works it out by itself, and all come to the
//! same.
//!
//! How many a host takes follows its weight, by largest remainder. Rooms stay whole where they fit.
//! A room that fits nowhere is divided as evenly as what the hosts have left allows, each part of
//! it (its publishers, each cohort) by itself, so that no host gets all of a cohort; and within a
//! part in turn, so that all hosts' ramps are as long as the run's.

use std::collections::BTreeMap;

/// A participant, in the order in which they join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its room.
    pub room: u32,
    /// Those of one part are divided evenly.
    pub part: u32,
}

/// So many for each weight, which is all of them together: what is due rounded down, and one more
/// for those of whom most was cut off. Equal ones follow their order. Without any weight all are
/// alike.
pub fn quotas(total: usize, weights: &[u64]) -> Vec<usize> {
    let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    let alike = vec![1; weights.len()];
    let (weights, sum) = match sum {
        0 => (&alike[..], alike.len() as u128),
        sum => (weights, sum),
    };
    let due = |weight: u64| total as u128 * u128::from(weight);
    let mut all: Vec<usize> =
        weights.iter().map(|weight| (due(*weight) / sum.max(1)) as usize).collect();
    let left = total - all.iter().sum::<usize>().min(total);
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|host| (std::cmp::Reverse(due(weights[*host]) % sum.max(1)), *host));
    for host in order.into_iter().take(left) {
        all[host] += 1;
    }
    all
}

/// The host of each member.
pub fn split(members: &[Member], weights: &[u64]) -> Vec<u32> {
    let mut left = quotas(members.len(), weights);
    let mut rooms: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (at, member) in members.iter().enumerate() {
        rooms.entry(member.room).or_default().push(at);
    }
    let mut rooms: Vec<Vec<usize>> = rooms.into_values().collect();
    // Stable: rooms of one size keep their order.
    rooms.sort_by_key(|room| std::cmp::Reverse(room.len()));
    let mut hosts = vec![0; members.len()];
    let mut divided = Vec::new();
    for room in rooms {
        let fits = (0..left.len()).filter(|host| left[*host] >= room.len());
        // The tightest fit leaves the most room for others.
        match fits.min_by_key(|host| left[*host]) {
            Some(host) => {
                left[host] -= room.len();
                room.into_iter().for_each(|at| hosts[at] = host as u32);
            }
            None => divided.push(room),
        }
    }
    for room in divided {
        let mut parts: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for at in room {
            parts.entry(members[at].part).or_default().push(at);
        }
        for part in parts.into_values() {
            divide(&part, &mut left, &mut hosts);
        }
    }
    hosts
}

/// Divides these by what each host has left.
fn divide(part: &[usize], left: &mut [usize], hosts: &mut [u32]) {
    let weights: Vec<u64> = left.iter().map(|left| *left as u64).collect();
    let own = quotas(part.len(), &weights);
    let mut given = vec![0_usize; own.len()];
    for (number, at) in part.iter().enumerate() {
        // Whoever is furthest behind what it should have by now; of equals the first.
        let behind = |host: &usize| {
            let (own, given) = (own[*host] as i128, given[*host] as i128);
            own * (number as i128 + 1) - given * part.len() as i128
        };
        let open = (0..own.len()).filter(|host| given[*host] < own[*host]);
        let next = open.max_by_key(|host| (behind(host), std::cmp::Reverse(*host)));
        let Some(host) = next else { continue };
        given[host] += 1;
        left[host] = left[host].saturating_sub(1);
        hosts[*at] = host as u32;
    }
}

/// A host's seed for what it draws by itself: another for each, the run's own for the first.
pub fn seed_of(seed: u64, host: u32) -> u64 {
    // Odd, so that different hosts have different seeds (the constant is splitmix64's).
    seed.wrapping_add(u64::from(host).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rooms(sizes: &[usize]) -> Vec<Member> {
        let of = |(room, size): (usize, &usize)| vec![Member { room: room as u32, part: 0 }; *size];
        sizes.iter().enumerate().flat_map(of).collect()
    }

    fn counts(hosts: &[u32], of: usize) -> Vec<usize> {
        (0..of).map(|host| hosts.iter().filter(|one| **one == host as u32).count()).collect()
    }

    #[test]
    fn remainders_go_to_those_of_whom_most_was_cut_off() {
        assert_eq!(quotas(1_001, &[1; 4]), [251, 250, 250, 250]);
        assert_eq!(quotas(10, &[50, 30, 20]), [5, 3, 2]);
        assert_eq!(quotas(10, &[6, 6, 1]), [5, 4, 1], "of 4.62, 4.62 and 0.77");
        assert_eq!(quotas(3, &[0, 0]), [2, 1], "nobody knows what it carries");
        assert_eq!(quotas(0, &[1, 1]), [0, 0]);
        assert_eq!(quotas(7, &[u64::MAX, u64::MAX]), [4, 3]);
    }

    #[test]
    fn rooms_stay_whole_where_they_fit() {
        let members = rooms(&[5, 5, 5, 5]);
        let hosts = split(&members, &[1, 1]);
        assert_eq!(counts(&hosts, 2), [10, 10]);
        for room in 0..4 {
            let own = &hosts[room * 5..][..5];
            assert!(own.iter().all(|host| host == &own[0]), "{hosts:?}");
        }
        // Three rooms on two hosts: one of them has to be divided.
        let hosts = split(&rooms(&[4, 4, 4]), &[1, 1]);
        assert_eq!(counts(&hosts, 2), [6, 6]);
        let whole = |room: usize| hosts[room * 4..][..4].windows(2).all(|two| two[0] == two[1]);
        assert_eq!((0..3).filter(|room| whole(*room)).count(), 2);
    }

    #[test]
    fn one_large_room_is_divided_with_each_of_its_cohorts() {
        // A publisher, then subscribers of two cohorts in turn, as `assign` hands them out.
        let mut members = vec![Member { room: 0, part: 0 }];
        members.extend((0..1_000).map(|number| Member { room: 0, part: 1 + number % 2 }));
        let hosts = split(&members, &[1, 1]);
        assert_eq!(counts(&hosts, 2), [501, 500]);
        for cohort in 1..=2 {
            let own = members.iter().zip(&hosts).filter(|(member, _)| member.part == cohort);
            let first = own.filter(|(_, host)| **host == 0).count();
            assert!((249..=251).contains(&first), "{first}");
        }
        // In turn: nobody's ramp ends long before the run's.
        let early = counts(&hosts[..101], 2);
        assert!(early.iter().all(|count| (49..=52).contains(count)), "{early:?}");
    }

    #[test]
    fn who_carries_more_takes_more() {
        let hosts = split(&rooms(&[400]), &[3, 1]);
        assert_eq!(counts(&hosts, 2), [300, 100]);
    }

    #[test]
    fn every_host_draws_by_another_seed() {
        let seeds: std::collections::BTreeSet<u64> =
            (0..1_000).map(|host| seed_of(u64::MAX, host)).collect();
        assert_eq!(seeds.len(), 1_000);
        assert_eq!(seed_of(7, 0), 7);
    }

    proptest! {
        /// Everybody is taken by exactly one host, each host takes its quota, each part of a
        /// divided room is divided evenly, and it comes out the same again.
        #[test]
        fn the_shares_are_the_whole(
            sizes in proptest::collection::vec(1_usize..40, 1..30),
            weights in proptest::collection::vec(0_u64..9, 1..12),
            parts in 1_u32..4,
        ) {
            let mut members = rooms(&sizes);
            for (at, member) in members.iter_mut().enumerate() {
                member.part = at as u32 % parts;
            }
            let hosts = split(&members, &weights);
            prop_assert_eq!(hosts.len(), members.len());
            prop_assert!(hosts.iter().all(|host| (*host as usize) < weights.len()));
            prop_assert_eq!(counts(&hosts, weights.len()), quotas(members.len(), &weights));
            prop_assert_eq!(&split(&members, &weights), &hosts);
            // One room alone, on hosts that are alike: no two of them differ by more than rounding.
            let alone = rooms(&[members.len()]);
            let hosts = split(&alone, &vec![1; weights.len()]);
            let each = counts(&hosts, weights.len());
            prop_assert!(each.iter().max().unwrap() - each.iter().min().unwrap() <= 1);
        }
    }
}
