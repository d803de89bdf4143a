//! Who an impairment happens to.

use std::sync::Arc;
use std::time::Instant;

use crate::{Impairment, Spec, seeded};

/// The golden ratio's fraction: multiples of it spread over 0 to 1 more evenly than chance, so
/// that a share of few subscribers is met too.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// What is to happen to which subscribers of a run.
///
/// Shares are of all subscribers and do not overlap: of several specs the first takes its share,
/// the next one its share of those that are left over, and one without `cohort` all that are left.
#[derive(Debug, Clone)]
pub struct Cohorts {
    specs: Arc<[Spec]>,
    seed: u64,
    start: Instant,
}

impl Cohorts {
    /// `start` is what outages count from.
    #[must_use]
    pub fn new(specs: impl Into<Arc<[Spec]>>, seed: u64, start: Instant) -> Self {
        Self { specs: specs.into(), seed, start }
    }

    /// What was asked for.
    #[must_use]
    pub fn specs(&self) -> &[Spec] {
        &self.specs
    }

    /// Which spec is for this participant, if any.
    #[must_use]
    pub fn index_of(&self, identity: &str) -> Option<usize> {
        choose(&self.specs, self.seed, identity)
    }

    /// The spec that is for this participant, and its model.
    #[must_use]
    pub fn of(&self, identity: &str) -> Option<(usize, Impairment)> {
        let index = self.index_of(identity)?;
        let spec = self.specs.get(index)?;
        Some((index, Impairment::new(spec, self.seed, stable_name(identity), self.start)))
    }
}

/// Which of these specs is for this participant, if any; see [`Cohorts`].
#[must_use]
pub fn choose(specs: &[Spec], seed: u64, identity: &str) -> Option<usize> {
    if specs.is_empty() {
        return None;
    }
    let place = place(seed, stable_name(identity));
    let mut end = 0.0;
    specs.iter().position(|spec| {
        end += spec.cohort;
        // Sums of decimal shares miss 1 by a hair.
        place < end || end > 1.0 - 1e-9
    })
}

/// An identity without what differs from run to run and from try to try, so that the same seed
/// means the same for the same participant: `stampede-1a2b3c4d-sub-1-7-try2` is `sub-1-7`.
#[must_use]
pub fn stable_name(identity: &str) -> &str {
    let mut name = identity;
    if let Some(rest) = identity.strip_prefix("stampede-")
        && let Some((run, rest)) = rest.split_once('-')
        && run.len() == 8
        && run.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        name = rest;
    }
    match name.rsplit_once("-try") {
        Some((first, tries)) if tries.parse::<u32>().is_ok() => first,
        _ => name,
    }
}

/// Where a participant stands between 0 and 1. Those of one name but for a number at its end are
/// spread evenly, others by chance.
fn place(seed: u64, name: &str) -> f64 {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    match name[stem.len()..].parse::<u32>() {
        Ok(number) => (seeded(seed, stem).f64() + f64::from(number) * GOLDEN).fract(),
        Err(_) => seeded(seed, name).f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cohorts(specs: &[&str], seed: u64) -> Cohorts {
        let specs: Vec<Spec> = specs.iter().map(|spec| spec.parse().unwrap()).collect();
        Cohorts::new(specs, seed, Instant::now())
    }

    fn members(cohorts: &Cohorts, run: &str, count: usize) -> Vec<Option<usize>> {
        let names = (0..count).map(|number| format!("stampede-{run}-sub-1-{number}"));
        names.map(|name| cohorts.index_of(&name)).collect()
    }

    #[test]
    fn names_lose_what_changes_from_run_to_run() {
        for (identity, name) in [
            ("stampede-1a2b3c4d-sub-1-7", "sub-1-7"),
            ("stampede-1a2b3c4d-sub-1-7-try12", "sub-1-7"),
            ("stampede-festival-sub-1-7", "stampede-festival-sub-1-7"),
            ("alice", "alice"),
            ("alice-try", "alice-try"),
            ("", ""),
        ] {
            assert_eq!(stable_name(identity), name);
        }
    }

    #[test]
    fn shares_are_met_also_by_few_and_repeat_with_the_seed() {
        for (share, count) in [("10%", 20), ("25%", 40), ("50%", 6), ("1%", 400)] {
            for seed in 0..50 {
                let cohorts = cohorts(&[&format!("cohort={share},loss=1%")], seed);
                let picked = members(&cohorts, "00000000", count);
                assert_eq!(picked, members(&cohorts, "ffffffff", count));
                let wanted = share.trim_end_matches('%').parse::<f64>().unwrap() / 100.0;
                let wanted = wanted * count as f64;
                let got = picked.iter().flatten().count() as f64;
                assert!((got - wanted).abs() <= 2.0, "{share} of {count}: {got}");
            }
        }
        let (one, two) = (cohorts(&["cohort=30%,loss=1%"], 1), cohorts(&["cohort=30%,loss=1%"], 2));
        assert_ne!(members(&one, "00000000", 50), members(&two, "00000000", 50));
    }

    #[test]
    fn cohorts_do_not_overlap_and_the_last_takes_the_rest() {
        let cohorts = cohorts(&["cohort=30%,loss=1%", "cohort=30%,loss=2%", "delay=1ms"], 7);
        let picked = members(&cohorts, "00000000", 1_000);
        for (index, wanted) in [(0, 300), (1, 300), (2, 400)] {
            let got = picked.iter().filter(|place| **place == Some(index)).count();
            assert!(got.abs_diff(wanted) <= 5, "{index}: {got}");
        }
        assert!(self::cohorts(&[], 7).index_of("x").is_none());
    }

    #[test]
    fn names_without_a_number_are_picked_by_chance() {
        let cohorts = cohorts(&["cohort=20%,loss=1%"], 3);
        let names = (0..2_000).map(|number| format!("{number}-guest"));
        let got = names.filter(|name| cohorts.of(name).is_some()).count();
        assert!((320..480).contains(&got), "{got}");
    }
}
