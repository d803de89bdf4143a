//! How many parts of the subscribers are told apart.

use super::*;
use crate::{CohortSize, Draft, Scenario};

#[test]
fn subscribers_have_so_many_parts_and_no_more() {
    let with = |cohorts: usize| {
        let cohort = |number| CohortSpec::new(format!("part-{number}"), CohortSize::Count(1));
        let cohorts = (0..cohorts).map(cohort).collect();
        Scenario::new(Draft { subscribers: Some(500), cohorts, ..Draft::default() })
    };
    // Those that are in none are one.
    assert!(with(COHORTS_MAX - 1).is_ok());
    let error = with(COHORTS_MAX).unwrap_err().to_string();
    assert!(error.contains("101 parts") && error.contains("100 is the most"), "{error}");
}
