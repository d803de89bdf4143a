//! Calls between participants: who calls, how often, and with how much.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use stampede_core::data::{RpcCalls, RpcRole};
use stampede_impair::seeded;
use stampede_report::Failure;

use crate::CohortSpec;
use crate::cohort_spec::{Counted, assign, check_counts_of};
use crate::rpc_draft::RpcDraft;
use crate::shape::{Place, Shape};

/// Calls that a caller makes in a second.
const RATE: f64 = 1.0;
/// Their payload.
const BYTES: usize = 256;
/// As LiveKit's SDKs have it (client-sdk-js src/room/rpc/client/RpcClientManager.ts).
const TIMEOUT: Duration = Duration::from_secs(15);
/// What is called and answered.
const METHOD: &str = "stampede.echo";

/// Calls that are made.
#[derive(Debug, Clone, PartialEq)]
pub struct RpcSpec {
    /// Who calls, per room: the first of those who join, publishers before participants before
    /// subscribers.
    pub callers: u32,
    /// Calls that one of them makes in a second.
    pub rate: f64,
    /// Bytes of a payload.
    pub bytes: usize,
    /// How long an answer may take.
    pub timeout: Duration,
    /// What is called, and answered by everybody.
    pub method: Arc<str>,
    /// Who is called, if not everybody of this run in turn.
    pub to: Option<Arc<str>>,
}

impl RpcSpec {
    /// Checks what was asked for; `None` where nobody calls, neither of the run nor of its cohorts.
    ///
    /// # Errors
    /// The first contradiction, exit code 104.
    pub(crate) fn new(draft: &RpcDraft, shape: &Shape) -> Result<Option<Self>, Failure> {
        let cohorts = &shape.cohorts;
        check_counts_of(cohorts, shape.receivers(), |cohort| ("rpc_callers", cohort.rpc.callers))?;
        let idle = cohorts.iter().find(|one| !one.rpc.calls() && one.rpc.how().is_some());
        if let Some((cohort, flag)) = idle.and_then(|cohort| Some((cohort, cohort.rpc.how()?))) {
            return Err(Failure::config(format!(
                "cohort '{}' says {} but nobody of it calls: add rpc_callers = 1",
                cohort.name,
                flag.replace('-', "_")
            )));
        }
        if !draft.calls() && !cohorts.iter().any(|cohort| cohort.rpc.calls()) {
            return match draft.how() {
                Some(flag) => Err(Failure::config(format!(
                    "--{flag} is given but nobody calls: add --rpc-callers 1"
                ))),
                None => Ok(None),
            };
        }
        let RpcDraft { callers, rate, bytes, timeout, method, to } = draft;
        Ok(Some(Self {
            callers: callers.unwrap_or(0),
            rate: rate.unwrap_or(RATE),
            bytes: bytes.unwrap_or(BYTES),
            timeout: timeout.unwrap_or(TIMEOUT),
            method: method.as_deref().unwrap_or(METHOD).into(),
            to: to.as_deref().map(Into::into),
        }))
    }

    /// How often and with how much callers of a cohort call: what it does not say is as the run has
    /// it.
    pub(crate) fn of_cohort(&self, cohort: &CohortSpec) -> (f64, usize) {
        (cohort.rpc.rate.unwrap_or(self.rate), cohort.rpc.bytes.unwrap_or(self.bytes))
    }

    /// The same of who calls by the flags of the run.
    pub(crate) fn of_run(&self) -> (f64, usize) {
        (self.rate, self.bytes)
    }

    /// Checks that every room has them, and that there is somebody for all to call, of whom they are
    /// told.
    ///
    /// # Errors
    /// The first that has not, exit code 104.
    pub(crate) fn check(&self, shape: &Shape, some_hide: bool) -> Result<(), Failure> {
        if some_hide && self.to.is_none() {
            return Err(Failure::config(
                "--rpc-callers: nobody is told of participants that are hidden (--hidden, or the \
                 grant hidden=true), so nobody calls them: add --rpc-to, or leave one of them out",
            ));
        }
        let all: Vec<_> = shape
            .rooms
            .iter()
            .map(|room| room.publishers().saturating_add(room.receivers()))
            .collect();
        let (callers, others) = (self.callers, u32::from(self.to.is_none()));
        let least = all.iter().copied().min().unwrap_or(0);
        if callers > 0 && least < callers.max(1 + others) {
            return Err(Failure::config(format!(
                "--rpc-callers {callers}: a room has but {least} participants, who are too few to \
                 call {}: add --subscribers or --participants",
                if others > 0 { "each other" } else { "so many times" }
            )));
        }
        match self.lonely_cohort(shape, &all).filter(|_| others > 0) {
            Some(cohort) => Err(Failure::config(format!(
                "cohort '{}' has one of its rpc_callers alone in a room, with nobody to call: make \
                 the room larger, lower rpc_callers, or add --rpc-to",
                cohort.name
            ))),
            None => Ok(()),
        }
    }

    /// One of which a caller is alone in a room, where so many are in each.
    fn lonely_cohort<'a>(&self, shape: &'a Shape, all: &[u32]) -> Option<&'a CohortSpec> {
        let cohorts = &shape.cohorts;
        if !cohorts.iter().any(|cohort| cohort.rpc.calls()) {
            return None;
        }
        let mut callers = Counted::new(cohorts, |cohort| cohort.rpc.callers);
        let mut numbers: Vec<_> = shape.rooms.iter().map(|room| room.publishers()).collect();
        let assigned = assign(cohorts, shape.receivers());
        // As they are placed, in the order in which they join.
        let caller = |(place, cohort): (Place, Option<usize>)| {
            let number = &mut numbers[place.room];
            *number += 1;
            let of_run = *number <= self.callers;
            let cohort = cohort.filter(|cohort| !of_run && callers.takes(*cohort))?;
            (all[place.room] < 2).then(|| &cohorts[cohort])
        };
        shape.places().into_iter().zip(assigned).find_map(caller)
    }

    /// The part of somebody, who calls so often and with so much, if it does.
    pub(crate) fn role(
        &self,
        identity: &str,
        calls: Option<(f64, usize)>,
        run_id: &str,
        seed: u64,
    ) -> RpcRole {
        let mut tag = DefaultHasher::new();
        (run_id, identity).hash(&mut tag);
        let phase = seeded(seed, &format!("rpc {identity}")).f64();
        let calls = calls.map(|(rate, bytes)| {
            let every = Duration::from_secs_f64(1.0 / rate);
            RpcCalls { every, bytes, timeout: self.timeout, offset: every.mul_f64(phase) }
        });
        RpcRole {
            tag: tag.finish(),
            method: Arc::clone(&self.method),
            callee: self.to.clone(),
            calls,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CohortSize, Draft, RoomDraft, Scenario};

    fn spec(draft: Draft) -> Result<Option<RpcSpec>, String> {
        Scenario::new(draft).map(|scenario| scenario.rpc).map_err(|error| error.to_string())
    }

    #[test]
    fn how_is_nothing_without_who() {
        assert_eq!(spec(Draft::default()), Ok(None));
        let how = RpcDraft { rate: Some(5.0), ..RpcDraft::default() };
        let of = |rpc| Draft { rpc, ..Draft::default() };
        let failure = spec(of(how.clone())).unwrap_err();
        assert!(failure.contains("--rpc-rate") && failure.contains("--rpc-callers"));
        let all = spec(of(RpcDraft { callers: Some(3), ..how.clone() })).unwrap().unwrap();
        assert_eq!((all.callers, all.rate, &*all.method), (3, 5.0, METHOD));
        let cohort = |rpc| {
            let size = CohortSize::Count(2);
            let cohorts = vec![CohortSpec { rpc, ..CohortSpec::new("few".to_owned(), size) }];
            spec(Draft { subscribers: Some(10), cohorts, ..Draft::default() })
        };
        assert!(cohort(how.clone()).unwrap_err().contains("rpc_callers = 1"));
        let few = cohort(RpcDraft { callers: Some(2), ..how.clone() }).unwrap().unwrap();
        assert_eq!((few.callers, few.rate), (0, RATE));
        let error = cohort(RpcDraft { callers: Some(3), ..how }).unwrap_err();
        assert!(error.contains("too few for rpc_callers = 3"), "{error}");
    }
    #[test]
    fn callers_of_a_cohort_have_somebody_in_their_room() {
        let room = |subscribers| RoomDraft {
            subscribers: Some(subscribers),
            video_publishers: Some(0),
            audio_publishers: Some(0),
            ..RoomDraft::default()
        };
        let draft = |callers, to: Option<&str>| {
            let rpc = RpcDraft { callers: Some(callers), ..RpcDraft::default() };
            let size = CohortSize::Share(1.0);
            Draft {
                rooms: 2,
                room_drafts: vec![room(5), room(1)],
                cohorts: vec![CohortSpec { rpc, ..CohortSpec::new("all".to_owned(), size) }],
                rpc: RpcDraft { to: to.map(str::to_owned), ..RpcDraft::default() },
                ..Draft::default()
            }
        };
        // The first is of the first room, the second of the other.
        assert!(spec(draft(1, None)).is_ok());
        let error = spec(draft(2, None)).unwrap_err();
        assert!(error.contains("cohort 'all' has one of its rpc_callers alone"), "{error}");
        assert!(spec(draft(2, Some("bot"))).is_ok());
    }
}
