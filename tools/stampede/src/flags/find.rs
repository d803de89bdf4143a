//! Flags of the capacity search.

use std::time::Duration;

use clap::Args;

use stampede_report::Failure;
use stampede_report::threshold::{Threshold, Thresholds};
use stampede_scenario::values;

use super::RunFlags;

/// Fewest subscribers tried unless told otherwise.
const FIND_MIN: u32 = 10;
/// Most subscribers tried unless told otherwise.
const FIND_MAX: u32 = 10_000;

/// What can be searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FindWhat {
    /// The highest number of subscribers per room.
    Subscribers,
}

/// Flags of `run --find`.
#[derive(Debug, Clone, Args)]
pub(crate) struct FindFlags {
    /// Search for the highest number that keeps the promise of --until: double it until the promise
    /// breaks, then halve the distance. Each step is a run of its own.
    #[arg(long, value_enum, value_name = "WHAT", help_heading = "Capacity search")]
    pub find: Option<FindWhat>,
    /// The promise, an expression over the report as --threshold takes it, like
    /// 'video.loss_rate<0.001'.
    #[arg(long, value_name = "EXPR", help_heading = "Capacity search")]
    pub until: Option<Thresholds>,
    /// Fewest subscribers per room that are tried [default: 10].
    #[arg(long, value_name = "N", help_heading = "Capacity search")]
    pub find_min: Option<u32>,
    /// Most subscribers per room that are tried [default: 10000].
    #[arg(long, value_name = "N", help_heading = "Capacity search")]
    pub find_max: Option<u32>,
    /// How long each step holds [default: 10s].
    #[arg(
        long,
        value_name = "DUR",
        value_parser = values::duration_above_zero,
        help_heading = "Capacity search"
    )]
    pub find_hold: Option<Duration>,
    /// How close the search comes, as a share of the number that held [default: 5%].
    #[arg(
        long,
        value_name = "PERCENT",
        value_parser = values::percent,
        help_heading = "Capacity search"
    )]
    pub find_precision: Option<f64>,
}

/// A search that can start.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FindPlan {
    /// What is promised: all of it.
    pub until: Vec<Threshold>,
    /// Fewest, per room.
    pub min: u32,
    /// Most, per room.
    pub max: u32,
    /// How long each step holds.
    pub hold: Duration,
    /// Share of the number that held.
    pub precision: f64,
}

impl FindPlan {
    /// The promise as one line.
    pub(crate) fn promise(&self) -> String {
        let exprs: Vec<&str> = self.until.iter().map(|test| test.expr.as_str()).collect();
        exprs.join(" && ")
    }

    /// The search that is asked for, if any.
    ///
    /// # Errors
    /// A contradiction, exit code 104.
    pub(crate) fn new(flags: &RunFlags) -> Result<Option<Self>, Failure> {
        let find = &flags.shape.find;
        if find.find.is_none() {
            for (given, flag) in [
                (find.until.is_some(), "--until"),
                (find.find_min.is_some(), "--find-min"),
                (find.find_max.is_some(), "--find-max"),
                (find.find_hold.is_some(), "--find-hold"),
                (find.find_precision.is_some(), "--find-precision"),
            ] {
                if given {
                    return Err(Failure::config(format!(
                        "{flag} belongs to a search: add --find subscribers"
                    )));
                }
            }
            return Ok(None);
        }
        let until = find.until.clone().ok_or_else(|| {
            Failure::config(
                "--find needs the promise that must hold: add --until 'video.loss_rate<0.001'",
            )
        })?;
        if until.0.iter().any(|test| test.abort_after.is_some()) {
            return Err(Failure::config("--until takes no 'abort': each step is held to its end"));
        }
        for (given, what) in [
            (flags.subscribers.is_some(), "--subscribers (use --find-min and --find-max)"),
            (flags.duration.is_some(), "--duration (use --find-hold)"),
            (
                flags.shape.room_drafts.iter().any(|room| room.subscribers.is_some()),
                "a [[room]]'s subscribers",
            ),
            (flags.record.is_some(), "--record"),
            (!flags.shape.stage.is_empty(), "--stage"),
        ] {
            if given {
                return Err(Failure::config(format!("--find can't be combined with {what}")));
            }
        }
        let (min, max) = (find.find_min.unwrap_or(FIND_MIN), find.find_max.unwrap_or(FIND_MAX));
        if min == 0 || min > max {
            return Err(Failure::config(format!(
                "--find-min {min} and --find-max {max}: give 1 or more, the smaller one first"
            )));
        }
        Ok(Some(Self {
            until: until.0,
            min,
            max,
            hold: find.find_hold.unwrap_or(Duration::from_secs(10)),
            precision: find.find_precision.unwrap_or(0.05),
        }))
    }
}
