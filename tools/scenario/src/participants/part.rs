//! A part of a run's participants: of one run on several hosts each has one.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::Participants;
use crate::OwnIdentities;

/// Which of a run's participants of one kind these are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// How many the whole run has.
    pub of: usize,
    /// The place of each among those, in the order in which they join.
    pub at: Vec<usize>,
}

impl Places {
    /// All of so many.
    pub fn all(of: usize) -> Self {
        Self { of, at: (0..of).collect() }
    }
}

/// Which of a run's participants these are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// Publishers, those who do both, subscribers.
    pub places: [Places; 3],
}

impl Participants {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.publishers.len() + self.participants.len() + self.subscribers.len()
    }

    /// Room and part of each, in the order in which they join: in a room publishers are one part,
    /// and so is each cohort of those who do both and of subscribers.
    pub fn rooms_and_parts(&self) -> Vec<(u32, u32)> {
        let mut rooms: HashMap<&str, u32> = HashMap::new();
        for (number, room) in (0..).zip(&self.rooms) {
            rooms.entry(&**room).or_insert(number);
        }
        let kinds = [&self.publishers, &self.participants, &self.subscribers];
        let of_kind = |(kind, specs): (u32, &Vec<_>)| {
            let one = |spec: &super::ParticipantSpec| {
                let room = rooms.get(&*spec.room).copied().unwrap_or(0);
                (room, u32::from(spec.cohort) * 3 + kind)
            };
            specs.iter().map(one).collect::<Vec<_>>()
        };
        (0..).zip(kinds).flat_map(of_kind).collect()
    }

    /// Keeps those for which `keeps` says so, in the order in which they join, and remembers which
    /// they were.
    pub fn keep(&mut self, keeps: &[bool]) {
        let mut part = Part::default();
        let mut keeps = keeps.iter().copied();
        let kinds = [&mut self.publishers, &mut self.participants, &mut self.subscribers];
        for (places, specs) in part.places.iter_mut().zip(kinds) {
            places.of = specs.len();
            let mut place = 0;
            specs.retain(|_| {
                let kept = keeps.next().unwrap_or(false);
                places.at.extend(kept.then_some(place));
                place += 1;
                kept
            });
        }
        self.part = Some(part);
    }

    /// Rooms that are these participants' to make: all, or of a part those that somebody of it
    /// joins.
    pub fn rooms_joined(&self) -> Vec<Rc<str>> {
        if self.part.is_none() {
            return self.rooms.clone();
        }
        let kinds = [&self.publishers, &self.participants, &self.subscribers];
        let joined: HashSet<&str> = kinds.into_iter().flatten().map(|spec| &*spec.room).collect();
        self.rooms.iter().filter(|room| joined.contains(&***room)).cloned().collect()
    }

    /// The identities of these alone, before any further try.
    pub fn identities(&self) -> OwnIdentities {
        let kinds = [&self.publishers, &self.participants, &self.subscribers];
        let identities = kinds.into_iter().flatten().map(|spec| spec.identity.clone());
        OwnIdentities::named(identities.collect())
    }
}
