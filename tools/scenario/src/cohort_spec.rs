//! Cohorts: shares of the subscribers that differ from the rest, and rooms that differ from others.
//! Both come from the scenario file only.

use stampede_core::CongestionFeedback;
use stampede_impair::Spec as ImpairSpec;
use stampede_report::Failure;
use stampede_signaling::{Grant, Profile};

use crate::codec_list::CodecList;
use crate::codec_mix::CodecMix;
use crate::data_draft::DataDraft;
use crate::rpc_draft::RpcDraft;
use crate::values::Resolution;

/// How many subscribers a cohort takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CohortSize {
    /// A share of all, 0 to 1.
    Share(f64),
    /// So many, over all rooms.
    Count(u32),
}

/// A part of the subscribers.
#[derive(Debug, Clone, PartialEq)]
pub struct CohortSpec {
    /// Names it in the report; part of its subscribers' identities.
    pub name: String,
    /// How many.
    pub size: CohortSize,
    /// Layer asked for, if not the run's.
    pub resolution: Option<Resolution>,
    /// What it can receive, if not what the run says.
    pub subscribe_codecs: Option<CodecList>,
    /// Whether its subscribers record.
    pub record: bool,
    /// What is done on purpose to what its subscribers receive; `--impair` then leaves them alone.
    pub impair: Option<ImpairSpec>,
    /// What its subscribers tell the server of congestion, if not what the run's do.
    pub feedback: Option<CongestionFeedback>,
    /// What its join tokens say more than the run's, or otherwise.
    pub profile: CohortProfile,
    /// Those of its subscribers who send data, over all rooms, and what; how they all get data tracks.
    pub data: DataDraft,
    /// Those of its subscribers who call others, over all rooms, how often and with how much.
    pub rpc: RpcDraft,
    /// Updates that each of its subscribers makes of itself, per second, if not the run's.
    pub metadata_updates_per_second: Option<f64>,
}

impl CohortSpec {
    /// One that differs in nothing.
    pub fn new(name: String, size: CohortSize) -> Self {
        Self {
            name,
            size,
            resolution: None,
            subscribe_codecs: None,
            record: false,
            impair: None,
            feedback: None,
            profile: CohortProfile::default(),
            data: DataDraft::default(),
            rpc: RpcDraft::default(),
            metadata_updates_per_second: None,
        }
    }

    /// Its tokens hide those who join with them: nobody is told of them.
    pub(crate) fn hides(&self) -> bool {
        self.profile.grants.iter().any(is_hidden)
    }
}

/// This grant hides who has it.
pub(crate) fn is_hidden(grant: &Grant) -> bool {
    grant.to_string() == "hidden=true"
}

/// Checks that of cohorts no more are counted on than there are, given how many receive.
///
/// # Errors
/// The first that is too small, exit code 104.
pub(crate) fn check_counts_of(
    cohorts: &[CohortSpec],
    receivers: usize,
    count: impl Fn(&CohortSpec) -> (&'static str, Option<u32>),
) -> Result<(), Failure> {
    if cohorts.iter().all(|cohort| count(cohort).1.is_none()) {
        return Ok(());
    }
    let assigned = assign(cohorts, receivers);
    for (index, cohort) in cohorts.iter().enumerate() {
        let has = assigned.iter().filter(|one| **one == Some(index)).count();
        let (key, wanted) = count(cohort);
        if let Some(wanted) = wanted.filter(|wanted| *wanted as usize > has) {
            return Err(Failure::config(format!(
                "cohort '{}' has but {has} subscribers, over all rooms, who are too few for {key} = \
                 {wanted}",
                cohort.name
            )));
        }
    }
    Ok(())
}

/// Counts off those of cohorts of which the first so many do something.
pub(crate) struct Counted(Vec<u32>);

impl Counted {
    pub(crate) fn new(cohorts: &[CohortSpec], count: impl Fn(&CohortSpec) -> Option<u32>) -> Self {
        Self(cohorts.iter().map(|cohort| count(cohort).unwrap_or(0)).collect())
    }

    /// Whether the next one of this cohort is among them.
    pub(crate) fn takes(&mut self, cohort: usize) -> bool {
        let left = self.0.get_mut(cohort).filter(|left| **left > 0);
        left.is_some_and(|left| {
            *left -= 1;
            true
        })
    }
}

/// What join tokens of a cohort say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CohortProfile {
    /// In the place of the run's of the same name, and beside its others.
    pub grants: Vec<Grant>,
    /// In the place of the run's.
    pub metadata: Option<String>,
    /// In the place of the run's of the same name, and beside its others.
    pub attributes: Vec<(String, String)>,
}

impl CohortProfile {
    /// What its tokens say in a run whose tokens say this; `None` where that is the same.
    pub(crate) fn over(&self, run: &Profile) -> Option<Profile> {
        (*self != Self::default()).then(|| {
            let mut profile = run.clone();
            profile.grants.retain(|old| self.grants.iter().all(|new| new.name() != old.name()));
            profile.grants.extend(self.grants.iter().cloned());
            profile.attributes.retain(|(old, _)| self.attributes.iter().all(|(new, _)| new != old));
            profile.attributes.extend(self.attributes.iter().cloned());
            profile.metadata = self.metadata.clone().unwrap_or(profile.metadata);
            profile
        })
    }
}

/// What is different in one room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomDraft {
    /// Its name.
    pub name: Option<String>,
    /// See [`Draft`](crate::Draft).
    pub video_publishers: Option<u32>,
    /// The same.
    pub audio_publishers: Option<u32>,
    /// The same.
    pub screen_share_publishers: Option<u32>,
    /// The same.
    pub data_publishers: Option<u32>,
    /// The same.
    pub subscribers: Option<u32>,
    /// The same.
    pub participants: Option<u32>,
    /// The same.
    pub video_resolution: Option<Resolution>,
    /// The same.
    pub video_codec: Option<CodecMix>,
}

/// Which cohort each of `total` subscribers is in, in order of joining; `None` is in no cohort.
/// Spread evenly, so that any first part of them holds the cohorts in their shares.
pub(crate) fn assign(cohorts: &[CohortSpec], total: usize) -> Vec<Option<usize>> {
    let wanted = |cohort: &CohortSpec| match cohort.size {
        CohortSize::Share(share) => (share * total as f64).round() as usize,
        CohortSize::Count(count) => count as usize,
    };
    let wanted: Vec<usize> = cohorts.iter().map(wanted).collect();
    let mut given = vec![0usize; cohorts.len()];
    (0..total)
        .map(|number| {
            // How far behind its share each cohort is once this one has joined.
            let behind = |index: usize| {
                wanted[index] as f64 * (number + 1) as f64 / total as f64 - given[index] as f64
            };
            let open = (0..cohorts.len()).filter(|index| given[*index] < wanted[*index]);
            let most = open.max_by(|a, b| behind(*a).total_cmp(&behind(*b)))?;
            // Who is not a whole one behind can wait, unless all that remain are needed.
            let needed: usize = wanted.iter().zip(&given).map(|(all, has)| all - has).sum();
            (behind(most) >= 1.0 - 1e-9 || needed >= total - number).then(|| {
                given[most] += 1;
                most
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cohort(size: CohortSize) -> CohortSpec {
        CohortSpec::new("c".to_owned(), size)
    }

    #[test]
    fn a_cohorts_tokens_say_what_the_runs_do_unless_it_says_otherwise() {
        let grants = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let attribute = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let run = Profile {
            grants: grants(&["canPublish=true", "canUpdateOwnMetadata=true"]),
            metadata: "all".to_owned(),
            attributes: vec![attribute("lang", "en"), attribute("room", "1")],
        };
        assert_eq!(CohortProfile::default().over(&run), None);
        let own = CohortProfile {
            grants: grants(&["canPublish=false"]),
            metadata: None,
            attributes: vec![attribute("lang", "fr")],
        };
        let profile = own.over(&run).unwrap();
        let said: Vec<_> = profile.grants.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["canUpdateOwnMetadata=true", "canPublish=false"]);
        assert_eq!(profile.metadata, "all");
        assert_eq!(profile.attributes, [attribute("room", "1"), attribute("lang", "fr")]);
        let own = CohortProfile { metadata: Some(String::new()), ..own };
        assert_eq!(own.over(&run).unwrap().metadata, "", "none is something of its own");
    }

    #[test]
    fn shares_are_kept_at_any_time_and_exact_at_the_end() {
        let cohorts = [cohort(CohortSize::Share(0.1)), cohort(CohortSize::Count(25))];
        let assigned = assign(&cohorts, 100);
        let of =
            |part: &[Option<usize>], which| part.iter().filter(|one| **one == Some(which)).count();
        assert_eq!((of(&assigned, 0), of(&assigned, 1)), (10, 25));
        assert_eq!(assigned.iter().filter(|one| one.is_none()).count(), 65);
        for first in [20, 40, 60, 80] {
            let (tenth, quarter) = (of(&assigned[..first], 0), of(&assigned[..first], 1));
            assert!(tenth.abs_diff(first / 10) <= 1 && quarter.abs_diff(first / 4) <= 1);
        }
    }

    #[test]
    fn everybody_may_be_in_a_cohort() {
        let halves = [cohort(CohortSize::Share(0.5)), cohort(CohortSize::Share(0.5))];
        let assigned = assign(&halves, 7);
        // 3.5 rounds up for both: one of them gets the odd one.
        assert!(assigned.iter().all(Option::is_some), "{assigned:?}");
        assert_eq!(assign(&halves, 0), []);
        assert_eq!(assign(&[], 3), [None, None, None]);
        let one = assign(&[cohort(CohortSize::Count(1))], 5);
        assert_eq!(one.iter().filter(|one| one.is_some()).count(), 1);
    }
}
