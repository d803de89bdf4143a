//! What participants say of themselves, and runs that are about signalling alone.

use stampede_report::Failure;
use stampede_signaling::{Grant, Profile};

use crate::Draft;
use crate::shape::{RoomSpec, Shape};

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
    for (given, what) in [
        (shape.publishers() > 0, "publishers"),
        (shape.participants() > 0, "--participants"),
        (draft.layout.is_some(), "--layout"),
        (draft.subscribe_mode.is_some(), "--subscribe-mode"),
        (draft.record.is_some(), "--record"),
        (draft.simulate_speakers, "--simulate-speakers"),
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

fn check_updates(draft: &Draft, shape: &Shape) -> Result<(), Failure> {
    let Some(rate) = draft.metadata_updates_per_second else { return Ok(()) };
    let hides = |grant: &Grant| grant.to_string() == "hidden=true";
    if draft.hidden || draft.profile.grants.iter().any(hides) {
        return Err(Failure::config(
            "--metadata-updates-per-second: nobody is told of participants that are --hidden; \
             leave one of them out",
        ));
    }
    let all = |room: &RoomSpec| u64::from(room.publishers()) + u64::from(room.receivers());
    let most = shape.rooms.iter().map(all).max().unwrap_or(0);
    if most as f64 * rate > UPDATES_A_ROOM_PER_SECOND_MAX {
        return Err(Failure::config(format!(
            "--metadata-updates-per-second {rate}: {most} participants of a room would make {:.0} \
             updates a second, and {UPDATES_A_ROOM_PER_SECOND_MAX} is what each of them is ready \
             to hear; lower the rate, or take more and smaller rooms",
            most as f64 * rate
        )));
    }
    let pairs: u64 = shape.rooms.iter().map(|room| all(room).saturating_mul(all(room))).sum();
    if pairs > UPDATE_PAIRS_MAX {
        return Err(Failure::config(format!(
            "--metadata-updates-per-second: who is to hear of whom are {pairs} pairs, and \
             {UPDATE_PAIRS_MAX} is the most that are followed; take smaller rooms"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scenario;

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
        let few = Some(0.01);
        let error = refused(Draft {
            subscribers: Some(3_000),
            metadata_updates_per_second: few,
            ..draft(&[])
        });
        assert!(error.contains("9006001 pairs"), "{error}");
    }
}
