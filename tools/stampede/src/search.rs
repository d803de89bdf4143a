//! The highest number that holds: doubling, then halving the distance. Pure.

use std::time::Duration;

use stampede_report::Failure;
use stampede_scenario::Scenario;

use crate::flags::RunFlags;

/// One run of a search.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// Per room.
    pub subscribers: u32,
    /// How long they hold.
    pub hold: Duration,
}

impl Step {
    /// The run.
    ///
    /// # Errors
    /// A contradiction, exit code 104.
    pub(crate) fn scenario(self, flags: RunFlags) -> Result<Scenario, Failure> {
        let mut draft = flags.draft()?;
        draft.subscribers = Some(self.subscribers);
        draft.duration = Some(self.hold);
        Scenario::new(draft)
    }

    /// Words of `run` that say it, behind all others.
    pub(crate) fn words(self) -> [String; 2] {
        let Self { subscribers, hold } = self;
        [format!("--subscribers={subscribers}"), format!("--duration={}ms", hold.as_millis())]
    }
}

/// A search under way.
#[derive(Debug, Clone)]
pub(crate) struct Search {
    min: u32,
    max: u32,
    precision: f64,
    held: Option<u32>,
    broken: Option<u32>,
}

impl Search {
    /// Between `min` and `max`, to within `precision` (a share) of what held.
    pub(crate) fn new(min: u32, max: u32, precision: f64) -> Self {
        Self { min, max: max.max(min), precision, held: None, broken: None }
    }

    /// The number to try next; `None` when it is known well enough.
    pub(crate) fn next(&self) -> Option<u32> {
        match (self.held, self.broken) {
            (None, None) => Some(self.min),
            (None, Some(_)) => None,
            (Some(held), None) => (held < self.max).then(|| held.saturating_mul(2).min(self.max)),
            (Some(held), Some(broken)) => {
                let near = (f64::from(held) * self.precision).max(1.0);
                let gap = broken.saturating_sub(held);
                (f64::from(gap) > near).then_some(held + gap / 2)
            }
        }
    }

    /// What came of a number.
    pub(crate) fn tried(&mut self, number: u32, held: bool) {
        if held {
            self.held = self.held.max(Some(number));
        } else {
            self.broken = Some(self.broken.map_or(number, |broken| broken.min(number)));
        }
    }

    /// The highest number that held.
    pub(crate) fn held(&self) -> Option<u32> {
        self.held
    }

    /// The lowest number that did not.
    pub(crate) fn broken(&self) -> Option<u32> {
        self.broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(min: u32, max: u32, precision: f64, capacity: u32) -> (Search, Vec<u32>) {
        let mut search = Search::new(min, max, precision);
        let mut tries = Vec::new();
        while let Some(number) = search.next() {
            tries.push(number);
            search.tried(number, number <= capacity);
            assert!(tries.len() < 64, "{tries:?}");
        }
        (search, tries)
    }

    #[test]
    fn it_doubles_then_halves() {
        let (search, tries) = search(10, 10_000, 0.05, 137);
        assert_eq!(tries, [10, 20, 40, 80, 160, 120, 140, 130, 135]);
        assert_eq!((search.held(), search.broken()), (Some(135), Some(140)));
    }

    #[test]
    fn every_capacity_is_found_exactly_without_tolerance() {
        for capacity in 1..200 {
            let (search, _) = search(1, 1_000, 0.0, capacity);
            assert_eq!((search.held(), search.broken()), (Some(capacity), Some(capacity + 1)));
        }
    }

    #[test]
    fn bounds_end_it() {
        let (none, tries) = search(10, 100, 0.05, 5);
        assert_eq!((none.held(), none.broken(), tries), (None, Some(10), vec![10]));
        let (all, tries) = search(10, 100, 0.05, 500);
        assert_eq!((all.held(), all.broken()), (Some(100), None));
        assert_eq!(tries, [10, 20, 40, 80, 100]);
        assert_eq!(search(7, 7, 0.05, 7).1, [7]);
    }
}
