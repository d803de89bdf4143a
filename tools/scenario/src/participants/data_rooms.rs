//! Who sends data in which room, by the run's flags or as one of a cohort.

use std::sync::Arc;

use stampede_core::data::{DataKind, DataRoom};
use stampede_impair::seeded;

use super::{ParticipantSpec, Receiver};
use crate::Scenario;
use crate::cohort_spec::Counted;
use crate::shape::{Place, Shape};

/// The boards of all rooms; none without data.
pub(super) struct DataRooms<'a> {
    rooms: Vec<Arc<DataRoom>>,
    scenario: &'a Scenario,
    seed: u64,
}

impl<'a> DataRooms<'a> {
    /// Those of a run in which these receive; and which of its room's senders each of them is, if it
    /// is one. The first are those that the run has, then those of cohorts.
    pub(super) fn new(
        scenario: &'a Scenario,
        receivers: &[Receiver],
        run_id: &str,
        seed: u64,
    ) -> (Self, Vec<Option<u32>>) {
        let Shape { rooms, cohorts, .. } = &scenario.shape;
        let mut senders: Vec<u32> = rooms.iter().map(|room| room.data_publishers).collect();
        let mut of_cohorts = Counted::new(cohorts, |cohort| cohort.data.publishers);
        let sender = |one: &Receiver| {
            let Place { room, number } = one.place;
            let own = &rooms[room];
            let number = own.media_publishers().saturating_add(number);
            if one.publishes && number < own.data_publishers {
                return Some(number);
            }
            // Who sends anyway is none of those that a cohort has besides.
            let taken = one.cohort.is_some_and(|cohort| of_cohorts.takes(cohort));
            taken.then(|| {
                let next = senders[room];
                senders[room] += 1;
                next
            })
        };
        let numbers = receivers.iter().map(sender).collect();
        let rooms = scenario.data.map(|data| data.rooms(&senders, &scenario.shape, run_id));
        (Self { rooms: rooms.unwrap_or_default(), scenario, seed }, numbers)
    }

    /// Adds what somebody in this room has to do with data, who may be this one of its senders.
    pub(super) fn joins(
        &self,
        spec: &mut ParticipantSpec,
        room: usize,
        cohort: Option<usize>,
        sender: Option<u32>,
    ) {
        let Some((run, room)) = self.scenario.data.zip(self.rooms.get(room)) else { return };
        let cohort = cohort.map(|index| run.of_cohort(&self.scenario.shape.cohorts[index]));
        let data = cohort.unwrap_or(run);
        let phase = seeded(self.seed, &format!("data {}", spec.identity)).f64();
        let role = data.role(room, sender, phase, spec.receives());
        let track = DataKind::Track as usize;
        spec.role.data = sender.is_some();
        spec.role.data_track = spec.role.data && data.kinds.has(DataKind::Track);
        if role.as_ref().is_some_and(|role| role.expects[track]) {
            spec.role.data_tracks_of_others = data.subscribe.wants();
        }
        spec.media.data = role;
    }
}
