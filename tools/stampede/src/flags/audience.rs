//! Flags of how subscribers come and go.

use std::time::Duration;

use clap::Args;

use stampede_scenario::{Arrival, AudienceDraft, RoomSizes, values};

/// Flags of the audience.
#[derive(Debug, Clone, Args)]
pub(crate) struct AudienceFlags {
    /// How subscribers arrive: constant is evenly at --num-per-second, poisson at random and as many
    /// in the mean, flash all at once. Publishers come before them, evenly.
    #[arg(
        long,
        value_enum,
        default_value = "constant",
        value_name = "HOW",
        help_heading = "Audience"
    )]
    pub arrival: Arrival,
    /// Mean time that a subscriber stays before it leaves, exponentially distributed; 100ms or more.
    /// Without it everybody stays to the end.
    #[arg(
        long,
        value_name = "MEAN",
        value_parser = values::mean_duration,
        help_heading = "Audience"
    )]
    pub stay: Option<Duration>,
    /// Share of those who left (--stay) that come back.
    #[arg(
        long,
        value_name = "PERCENT",
        value_parser = values::percent_above_zero,
        help_heading = "Audience"
    )]
    pub rejoin: Option<f64>,
    /// Mean time before they come back, exponentially distributed; 100ms or more [default: 2s].
    #[arg(
        long,
        value_name = "MEAN",
        value_parser = values::mean_duration,
        help_heading = "Audience"
    )]
    pub away: Option<Duration>,
    /// Draw how many subscribers each room has, instead of --subscribers: uniform:MIN-MAX,
    /// exponential:MEAN (1 at least), or SIZE:WEIGHT,SIZE:WEIGHT and so on. The same --seed draws
    /// the same.
    #[arg(long, value_name = "DIST", help_heading = "Audience")]
    pub room_sizes: Option<RoomSizes>,
}

impl AudienceFlags {
    /// What they ask for, but for the rooms.
    pub(super) fn draft(&self) -> AudienceDraft {
        let Self { arrival, stay, rejoin, away, .. } = *self;
        AudienceDraft { stay, rejoin, away, arrival }
    }
}
