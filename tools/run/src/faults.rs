//! Plays `--fault`: what happens when to whom, on purpose. Whom and when is the scenario's plan; what
//! is to be done each participant's own task does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use stampede_scenario::{Cohorts, FaultKind, FaultSpec};
use stampede_signaling::rooms::RoomClient;

use crate::context::Context;
use crate::join_error::JoinError;
use crate::participant::{Order, Place, What};
use crate::recoveries::FaultId;
use crate::target::Target;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// Somebody is hit: a fault, and a target by its place.
    Hit(usize, usize),
    /// A fault fires, for which time.
    Fire(usize, u64),
}

/// All faults of a run.
pub(crate) struct Faults {
    specs: Vec<FaultSpec>,
    cohorts: Cohorts,
    seed: u64,
    /// Names of the rooms.
    rooms: Vec<Rc<str>>,
}

impl Faults {
    /// Those of a scenario.
    pub(crate) fn new(
        specs: Vec<FaultSpec>,
        cohorts: Cohorts,
        seed: u64,
        rooms: Vec<Rc<str>>,
    ) -> Self {
        Self { specs, cohorts, seed, rooms }
    }

    /// Plays them in a measured window that began at `begin` and lasts so long.
    pub(crate) async fn play(self, context: Rc<Context>, begin: Instant, window: Duration) {
        // At most one entry for each target and fault.
        let mut due = BinaryHeap::new();
        for (number, spec) in self.specs.iter().enumerate() {
            if let Some(first) = spec.firings(window).next() {
                due.push(Reverse((begin + first, Due::Fire(number, 0))));
            }
        }
        while let Some(Reverse((at, what))) = due.pop() {
            tokio::time::sleep_until(at.into()).await;
            match what {
                Due::Fire(number, firing) => {
                    let spec = &self.specs[number];
                    context.recoveries.borrow_mut().fired(FaultId(number));
                    let chosen = self.chosen(&context, number, firing);
                    for (place, target) in chosen.iter().enumerate() {
                        let at = at + spec.offset(place, chosen.len());
                        due.push(Reverse((at, Due::Hit(number, *target))));
                    }
                    if let Some(next) = spec.firings(window).nth(firing as usize + 1) {
                        due.push(Reverse((begin + next, Due::Fire(number, firing + 1))));
                    }
                }
                Due::Hit(number, target) => self.hit(&context, number, target),
            }
        }
    }

    /// Whom of those that stand a firing hits.
    fn chosen(&self, context: &Context, number: usize, firing: u64) -> Vec<usize> {
        let spec = &self.specs[number];
        let targets = context.targets.borrow();
        let stand = targets.iter().enumerate().filter(|(_, target)| {
            let Target { orders, receives, publishes, cohort } = target;
            orders.can_be_hit() && spec.may_hit(*receives, *publishes, *cohort, &self.cohorts)
        });
        let present: Vec<usize> = stand.map(|(place, _)| place).collect();
        spec.choose(self.seed, number, firing, &present)
    }

    fn hit(&self, context: &Rc<Context>, number: usize, target: usize) {
        let fault = FaultId(number);
        let what = what(self.specs[number].kind);
        let targets = context.targets.borrow();
        let Some(target) = targets.get(target) else { return };
        if !target.orders.give(Order { fault, what }) {
            return context.recoveries.borrow_mut().missed(fault);
        }
        if what == What::Moving {
            let place = target.orders.place();
            let to = self.room_after(&place.room);
            tokio::task::spawn_local(move_to(Rc::clone(context), fault, place, to));
        }
    }

    /// The room after this one.
    fn room_after(&self, room: &Rc<str>) -> Rc<str> {
        let number = self.rooms.iter().position(|name| name == room).unwrap_or(0);
        let next = self.rooms.get((number + 1) % self.rooms.len().max(1));
        Rc::clone(next.unwrap_or(room))
    }
}

fn what(kind: FaultKind) -> What {
    match kind {
        FaultKind::SignalDrop => What::SignalDrop,
        FaultKind::SignalStall { length } => What::SignalStall(length),
        FaultKind::NetworkChange => What::NetworkChange,
        FaultKind::Outage { length } => What::Outage(length),
        FaultKind::LeaveRejoin { pause } => What::LeaveRejoin(pause),
        FaultKind::Move => What::Moving,
        FaultKind::Simulate(simulation) => What::Simulate(simulation),
    }
}

/// Asks the server to move somebody.
async fn move_to(context: Rc<Context>, fault: FaultId, place: Place, to: Rc<str>) {
    let Place { identity, room } = place;
    let Some(credentials) = context.credentials.clone() else {
        // The scenario is refused before.
        return context.recoveries.borrow_mut().missed(fault);
    };
    let url = context.url.clone();
    let network = &context.network;
    let moved = match RoomClient::new(url, credentials, &network.tls, &network.proxies) {
        Ok(client) => client.move_participant(&room, &identity, &to).await,
        Err(error) => Err(error),
    };
    match moved {
        Ok(()) => context.recoveries.borrow_mut().hit(fault),
        Err(error) => {
            tracing::warn!("{identity} was not moved to {to}: {error}");
            let kind = JoinError::Signalling(error.kind());
            let mut joins = context.joins.borrow_mut();
            joins.error(&kind);
            joins.said(&kind, &error.to_string());
            context.recoveries.borrow_mut().missed(fault);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_followed_by_the_next_and_the_last_by_the_first() {
        let rooms: Vec<Rc<str>> = ["a", "b", "c"].map(Rc::from).to_vec();
        let faults = Faults::new(Vec::new(), Cohorts::new(&[], &[]), 1, rooms.clone());
        let to = |room: &Rc<str>| faults.room_after(room);
        assert_eq!((&*to(&rooms[0]), &*to(&rooms[2])), ("b", "a"));
    }
}
