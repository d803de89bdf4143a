//! What a report means to a script.

use crate::Exit;
use crate::types::{Outcome, Report};

impl Exit {
    /// What a report means to a script. Above all an interrupted run is one, and then an invalid
    /// one: its figures, and so its thresholds, say nothing.
    pub fn of(report: &Report) -> Self {
        match report.verdict.result {
            Outcome::Interrupted => Self::Interrupted,
            Outcome::Invalid => Self::Invalid,
            _ if report.thresholds.iter().any(|row| !row.ok) => Self::Threshold,
            Outcome::Pass => Self::Pass,
            Outcome::Fail => Self::Failure,
        }
    }
}
