//! What participants say of themselves, and runs that are about signalling alone.

use stampede_report::Failure;
use stampede_signaling::{Grant, Profile};

use crate::cohort_spec::{assign, is_hidden};
use crate::shape::{RoomSpec, Shape};
use crate::{CohortSpec, Draft};

/// Updates that everybody in a room together makes, per second: each session takes no more events of
/// its server for long (`signaling`, session/flood.rs).
const UPDATES_A_ROOM_PER_SECOND_MAX: f64 = 500.0;
/// Pairs of participants, of whom one is to be told of the other's updates; each is remembered.
const UPDATE_PAIRS_MAX: u64 = 4_000_000;

/// What a join token says, with what updates need unless it is given otherwise.
pub(crate) fn profile(mut profile: Profile, updates: Option<f64>) -> Profile {
    const NEEDED: &str = "canUpdateOwnMetadata";
    if updates.is_some() && !profile.grants.iter().any(|grant| grant.name() == NEEDED) {
        profile.grants.extend(format!("{NEEDED}=true").parse::<Grant>());
    }
    profile
}

/// Checks what participants are to say, and what a run without media can't have.
pub(crate) fn check(draft: &Draft, shape: &Shape) -> Result<(), Failure> {
    check_no_media(draft, shape)?;
    check_updates(draft, shape)
}

fn check_no_media(draft: &Draft, shape: &Shape) -> Result<(), Failure> {
    if !draft.no_media {
        return Ok(());
    }
    let of_cohorts = shape.cohorts.iter().any(|cohort| cohort.data.publishers.is_some());
    for (given, what) in [
        (shape.publishers() > 0, "publishers"),
        (shape.participants() > 0, "--participants"),
        (draft.layout.is_some(), "--layout"),
        (draft.subscribe_mode.is_some(), "--subscribe-mode"),
        (draft.record.is_some(), "--record"),
        (draft.simulate_speakers, "--simulate-speakers"),
        (of_cohorts, "a [[cohort]]'s data_publishers"),
    ] {
        if given {
            return Err(Failure::config(format!(
                "--no-media is of subscribers that subscribe to nothing, in rooms where nobody of \
                 this run publishes: leave {what} out"
            )));
        }
    }
    Ok(())
}

/// Updates that those of a cohort, or of none, make of themselves per second, where the run says this.
pub(crate) fn updates_of(cohort: Option<&CohortSpec>, run: Option<f64>) -> Option<f64> {
    cohort.and_then(|cohort| cohort.metadata_updates_per_second).or(run)
}

/// What the join tokens of a cohort say in a run whose tokens say this; `None` where that is the same.
pub(crate) fn profile_of(cohort: &CohortSpec, run: &Profile) -> Option<Profile> {
    let own = cohort.profile.over(run);
    match cohort.metadata_updates_per_second {
        None => own,
        updates => Some(profile(own.unwrap_or_else(|| run.clone()), updates)),
    }
}

fn check_updates(draft: &Draft, shape: &Shape) -> Result<(), Failure> {
    const FLAG: &str = "--metadata-updates-per-second";
    let (run, cohorts) = (draft.metadata_updates_per_second, &shape.cohorts);
    if cohorts.iter().map(Some).chain([None]).all(|cohort| updates_of(cohort, run).is_none()) {
        return Ok(());
    }
    let hidden = draft.hidden || draft.profile.grants.iter().any(is_hidden);
    let hidden_cohort =
        |cohort: &CohortSpec| updates_of(Some(cohort), run).is_some() && cohort.hides();
    if hidden || cohorts.iter().any(hidden_cohort) {
        return Err(Failure::config(format!(
            "{FLAG}: nobody is told of participants that are --hidden (or have the grant \
             hidden=true); leave one of them out"
        )));
    }
    // Of each room who is in it, who of them makes updates, and how many.
    let with = |rate: Option<f64>| (u64::from(rate.is_some()), rate.unwrap_or(0.0));
    let publishers = |room: &RoomSpec| {
        let (all, (updates, rate)) = (u64::from(room.publishers()), with(run));
        (all, all * updates, all as f64 * rate)
    };
    let mut rooms: Vec<_> = shape.rooms.iter().map(publishers).collect();
    let assigned = assign(cohorts, shape.receivers());
    for (place, cohort) in shape.places().iter().zip(assigned) {
        let (updates, rate) = with(updates_of(cohort.map(|index| &cohorts[index]), run));
        let (all, updating, per_second) = &mut rooms[place.room];
        *all += 1;
        *updating += updates;
        *per_second += rate;
    }
    let most = rooms.iter().max_by(|a, b| a.2.total_cmp(&b.2));
    if let Some((all, updating, per_second)) = most
        && *per_second > UPDATES_A_ROOM_PER_SECOND_MAX
    {
        return Err(Failure::config(format!(
            "{FLAG}: {updating} of the {all} participants of a room would make {per_second:.0} \
             updates a second, and {UPDATES_A_ROOM_PER_SECOND_MAX} is what each of them is ready \
             to hear; lower the rate, or take more and smaller rooms"
        )));
    }
    let pairs: u64 = rooms.iter().map(|(all, updating, _)| all.saturating_mul(*updating)).sum();
    if pairs > UPDATE_PAIRS_MAX {
        return Err(Failure::config(format!(
            "{FLAG}: who is to hear of whom are {pairs} pairs, and {UPDATE_PAIRS_MAX} is the most \
             that are followed; take smaller rooms"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CohortSize, Scenario};

    fn refused(draft: Draft) -> String {
        Scenario::new(draft).unwrap_err().to_string()
    }

    #[test]
    fn a_run_without_media_has_nobody_who_sends() {
        let scenario = Scenario::new(Draft { no_media: true, ..Draft::default() }).unwrap();
        assert_eq!((scenario.shape.senders(), scenario.shape.receivers()), (0, 200));
        let error =
            refused(Draft { no_media: true, audio_publishers: Some(1), ..Draft::default() });
        assert!(error.contains("leave publishers out"), "{error}");
        let error = refused(Draft { no_media: true, participants: Some(2), ..Draft::default() });
        assert!(error.contains("leave --participants out"), "{error}");
    }

    #[test]
    fn updates_bring_their_grant_unless_it_is_given() {
        let draft = |grants: &[&str]| Draft {
            subscribers: Some(5),
            metadata_updates_per_second: Some(2.0),
            profile: Profile {
                grants: grants.iter().map(|text| text.parse().unwrap()).collect(),
                ..Profile::default()
            },
            ..Draft::default()
        };
        let grants = |draft| {
            let profile = Scenario::new(draft).unwrap().profile;
            profile.grants.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(grants(draft(&[])), ["canUpdateOwnMetadata=true"]);
        assert_eq!(grants(draft(&["canUpdateOwnMetadata=false"])), ["canUpdateOwnMetadata=false"]);
        let error = refused(Draft { hidden: true, ..draft(&[]) });
        assert!(error.contains("--hidden"), "{error}");
        let error = refused(Draft { subscribers: Some(500), ..draft(&[]) });
        assert!(error.contains("1002 updates a second"), "{error}");
        assert!(error.contains(&format!("and {UPDATES_A_ROOM_PER_SECOND_MAX} is")), "{error}");
        let few = Some(0.01);
        let error = refused(Draft {
            subscribers: Some(3_000),
            metadata_updates_per_second: few,
            ..draft(&[])
        });
        assert!(error.contains("9006001 pairs"), "{error}");
        assert!(error.contains(&format!("{UPDATE_PAIRS_MAX} is the most")), "{error}");
    }

    #[test]
    fn updates_of_a_cohort_are_its_own() {
        let draft = |rate, grants: &[&str]| {
            let mut few = CohortSpec::new("few".to_owned(), CohortSize::Count(4));
            few.metadata_updates_per_second = Some(rate);
            few.profile.grants = grants.iter().map(|text| text.parse().unwrap()).collect();
            Draft { subscribers: Some(3_000), cohorts: vec![few], ..Draft::default() }
        };
        // Too many if all made them.
        assert!(Scenario::new(draft(100.0, &[])).is_ok());
        let error = refused(draft(126.0, &[]));
        assert!(error.contains("4 of the 3001 participants of a room would make 504"), "{error}");
        assert!(refused(draft(1.0, &["hidden=true"])).contains("hidden=true"));
    }
}
