//! What faults need of the run they are for.

use std::time::Duration;

use stampede_report::Failure;
use stampede_units::show::ExactDuration;

use super::{FAULTS_MAX, FaultKind, FaultSpec, Who};
use crate::{Cohorts, Shape};

/// Checks the faults of a run of this shape, whose measured window is so long.
///
/// # Errors
/// The first that could never happen or hit anybody, exit code 104.
pub(crate) fn check(
    faults: &[FaultSpec],
    shape: &Shape,
    cohorts: &Cohorts,
    window: Duration,
) -> Result<(), Failure> {
    if faults.len() > FAULTS_MAX {
        return Err(Failure::config(format!(
            "--fault is given {} times, and {FAULTS_MAX} is the most: leave some out",
            faults.len()
        )));
    }
    let refused = |fault: &FaultSpec| reason(fault, shape, cohorts, window);
    match faults.iter().find_map(|fault| refused(fault).map(|why| (fault, why))) {
        Some((fault, why)) => Err(Failure::config(format!("--fault {fault}: {why}"))),
        None => Ok(()),
    }
}

/// Why a fault makes no sense in this run, if it does not.
fn reason(fault: &FaultSpec, shape: &Shape, cohorts: &Cohorts, window: Duration) -> Option<String> {
    if fault.kind == FaultKind::Move && shape.rooms.len() < 2 {
        return Some("there is no other room to move to: add --rooms 2".to_owned());
    }
    let (publishers, subscribers) = (shape.senders(), shape.receivers());
    match fault.who {
        Who::Subscribers if subscribers == 0 => {
            return Some(
                "this run has no subscribers: add --subscribers or --participants, or \
                 who=publishers"
                    .into(),
            );
        }
        Who::Publishers if publishers == 0 => {
            return Some(
                "this run has no publishers: add --video-publishers or --participants, or leave \
                 it out"
                    .into(),
            );
        }
        Who::Subscribers | Who::Publishers | Who::All => {}
    }
    if let Some(name) = &fault.cohort
        && !cohorts.all().iter().enumerate().any(|(index, _)| cohorts.holds(name, index as u16))
    {
        let names: Vec<_> = cohorts.all().iter().map(|cohort| &*cohort.name).collect();
        return Some(format!("there is no cohort '{name}' among '{}'", names.join("', '")));
    }
    let first = fault.schedule.first();
    (first >= window).then(|| {
        format!(
            "it would never happen: its first time is {} after the start of what is measured, \
             which is {} long; make it earlier, or --duration longer",
            ExactDuration(first),
            ExactDuration(window)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CohortSize, CohortSpec, Draft, Scenario};

    fn mobile() -> CohortSpec {
        CohortSpec::new("mobile".to_owned(), CohortSize::Share(0.5))
    }

    fn with(faults: &[&str], draft: Draft) -> Result<Scenario, String> {
        let faults = faults.iter().map(|text| text.parse().unwrap()).collect();
        Scenario::new(Draft { faults, ..draft }).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_fault_has_to_happen_to_somebody_of_the_run() {
        let plain = Draft::default;
        let only_publishers = || Draft { subscribers: Some(0), ..plain() };
        let only_subscribers =
            || Draft { video_publishers: Some(0), audio_publishers: Some(0), ..plain() };
        for (text, draft, why) in [
            ("move", plain(), "add --rooms 2"),
            ("outage,at=20s", plain(), "first time is 20s after"),
            ("outage,every=30s", plain(), "first time is 30s after"),
            ("outage,cohort=mobile", plain(), "no cohort 'mobile' among 'rest'"),
            ("outage,cohort=m", Draft { cohorts: vec![mobile()], ..plain() }, "'rest', 'mobile'"),
            ("outage", only_publishers(), "no subscribers"),
            ("outage,who=publishers", only_subscribers(), "no publishers"),
        ] {
            let error = with(&[text], draft).expect_err(text);
            let flag = format!("--fault {text}: ");
            assert!(error.contains(&flag) && error.contains(why), "{error}");
        }
        for (text, draft) in [
            ("move", Draft { rooms: 2, ..plain() }),
            ("outage,at=19s", plain()),
            ("outage,cohort=mobile", Draft { cohorts: vec![mobile()], ..plain() }),
            ("outage,who=all", only_publishers()),
            ("outage,who=publishers", only_publishers()),
        ] {
            assert_eq!(with(&[text], draft).expect(text).faults, [text.parse().unwrap()]);
        }
    }

    #[test]
    fn what_is_measured_of_stages_begins_after_the_first() {
        let stages = ["10s:5", "10s:5", "5s:0"].map(|stage| stage.parse().unwrap()).to_vec();
        let staged = || Draft { stages: stages.clone(), ..Draft::default() };
        assert_eq!(with(&[], staged()).unwrap().window(), Duration::from_secs(15));
        assert!(with(&["outage,at=14s"], staged()).is_ok());
        assert!(with(&["outage,at=15s"], staged()).unwrap_err().contains("15s long"));
        let plain = with(&[], Draft::default()).unwrap();
        assert_eq!(plain.window(), plain.duration);
    }

    #[test]
    fn there_are_so_many_at_most() {
        assert!(with(&["outage"; FAULTS_MAX], Draft::default()).is_ok());
        let error = with(&["outage"; FAULTS_MAX + 1], Draft::default()).unwrap_err();
        assert!(error.contains("33 times, and 32"), "{error}");
    }
}
