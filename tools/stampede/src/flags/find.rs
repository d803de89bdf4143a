//! Flags of the capacity search.

use std::time::Duration;

use clap::Args;

use stampede_report::threshold::Thresholds;
use stampede_scenario::values;

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
