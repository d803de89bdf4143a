//! Stages: how many subscribers there are when.

use std::str::FromStr;
use std::time::Duration;

use crate::values;

/// Most subscribers of a stage; more is a typing error.
const SUBSCRIBERS_MAX: u32 = 1_000_000;

/// Within `duration` go in a straight line to `subscribers`, counted over all rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// How long it takes.
    pub duration: Duration,
    /// How many there are at its end.
    pub subscribers: u32,
}

impl FromStr for Stage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const HINT: &str = "write it like 30s:200";
        let (duration, subscribers) =
            text.split_once(':').ok_or_else(|| format!("the ':' is missing; {HINT}"))?;
        let duration = values::duration(duration)?;
        match subscribers.trim().parse() {
            Ok(subscribers @ 0..=SUBSCRIBERS_MAX) => Ok(Self { duration, subscribers }),
            _ => Err(format!(
                "'{subscribers}' is not a number of subscribers up to {SUBSCRIBERS_MAX}; {HINT}"
            )),
        }
    }
}

/// One subscriber more or less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Since the first stage began.
    pub at: Duration,
    /// Joins; else the one that joined last leaves.
    pub join: bool,
}

/// One stage with its changes in order of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageRun {
    /// Since the first stage began.
    pub begin: Duration,
    /// The same.
    pub end: Duration,
    /// How many there are at its end.
    pub subscribers: u32,
    /// What happens in it.
    pub changes: Vec<Change>,
}

/// Lays stages out on one time axis, from nobody on. Of n changes of a stage the first is due when
/// it begins and the others follow evenly, so that the last one has time to take effect in it.
pub fn timeline(stages: &[Stage]) -> Vec<StageRun> {
    let (mut begin, mut from) = (Duration::ZERO, 0u32);
    let mut runs = Vec::with_capacity(stages.len());
    for stage in stages {
        let join = stage.subscribers > from;
        let count = stage.subscribers.abs_diff(from);
        let at = |number: u32| begin + stage.duration.mul_f64(f64::from(number) / f64::from(count));
        let changes = (0..count).map(|number| Change { at: at(number), join }).collect();
        let end = begin + stage.duration;
        runs.push(StageRun { begin, end, subscribers: stage.subscribers, changes });
        (begin, from) = (end, stage.subscribers);
    }
    runs
}

/// Subscribers that join over all stages; one that comes back is another one.
pub(crate) fn joins(stages: &[Stage]) -> u32 {
    let mut from = 0;
    let mut joins = 0u32;
    for stage in stages {
        joins = joins.saturating_add(stage.subscribers.saturating_sub(from));
        from = stage.subscribers;
    }
    joins
}

/// Most subscribers at one time.
pub(crate) fn peak(stages: &[Stage]) -> u32 {
    stages.iter().map(|stage| stage.subscribers).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages(texts: &[&str]) -> Vec<Stage> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn stages_are_a_duration_and_a_number() {
        let stage = Stage { duration: Duration::from_secs(90), subscribers: 200 };
        assert_eq!("1m30s:200".parse(), Ok(stage));
        for (text, why) in [
            ("30s", "':' is missing"),
            ("30:100", "without a unit"),
            ("30s:", "not a number"),
            ("30s:-1", "not a number"),
            ("30s:1e9", "not a number"),
            ("30s:9999999", "not a number"),
        ] {
            let error = text.parse::<Stage>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn numbers_rise_and_fall_in_a_straight_line() {
        let runs = timeline(&stages(&["10s:5", "20s:5", "4s:1", "0s:3"]));
        let spans: Vec<_> =
            runs.iter().map(|run| (run.begin.as_secs(), run.end.as_secs())).collect();
        assert_eq!(spans, [(0, 10), (10, 30), (30, 34), (34, 34)]);
        let at = |run: &StageRun| -> Vec<(u128, bool)> {
            run.changes.iter().map(|change| (change.at.as_millis(), change.join)).collect()
        };
        assert_eq!(
            at(&runs[0]),
            [(0, true), (2_000, true), (4_000, true), (6_000, true), (8_000, true)]
        );
        assert!(runs[1].changes.is_empty(), "a stage of the same number holds");
        assert_eq!(
            at(&runs[2]),
            [(30_000, false), (31_000, false), (32_000, false), (33_000, false)]
        );
        assert_eq!(at(&runs[3]), [(34_000, true), (34_000, true)], "at once");
    }

    #[test]
    fn the_number_at_any_time_follows_the_line() {
        let stages = stages(&["7s:700", "3s:100", "5s:350"]);
        let changes: Vec<Change> =
            timeline(&stages).into_iter().flat_map(|run| run.changes).collect();
        let count = |at_ms: u64| {
            let until = Duration::from_millis(at_ms);
            let sign = |change: &Change| if change.join { 1i64 } else { -1 };
            changes.iter().filter(|change| change.at <= until).map(sign).sum::<i64>()
        };
        for (at_ms, wanted) in [(0, 1), (3_500, 351), (6_999, 700), (8_500, 399), (15_000, 350)] {
            assert_eq!(count(at_ms), wanted, "at {at_ms} ms");
        }
        assert!(changes.is_sorted_by_key(|change| change.at));
    }

    #[test]
    fn who_comes_back_is_another_one() {
        let stages = stages(&["1s:100", "1s:20", "1s:50", "1s:0"]);
        assert_eq!((joins(&stages), peak(&stages)), (130, 100));
        assert_eq!((joins(&[]), peak(&[])), (0, 0));
    }
}
