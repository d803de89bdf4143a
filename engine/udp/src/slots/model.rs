//! All sequences of what backends do with ids, against what must hold of them.

use std::collections::{BTreeMap, BTreeSet};

use super::Slots;
use crate::SocketId;
use crate::depth::depth;

const IDS_MAX: usize = 3;
const OPERATIONS: u32 = 6;

/// Sockets are told apart by numbers that are never used again.
#[derive(Default)]
struct Model {
    next: u32,
    /// Of each id in use, its socket.
    live: BTreeMap<u32, u32>,
    /// Ids whose sockets are gone and that the batch may still name; with the socket if it is kept
    /// until then.
    leaving: BTreeMap<u32, Option<u32>>,
    given: BTreeSet<u32>,
}

impl Model {
    fn apply(&mut self, operation: u32, slots: &mut Slots<u32>) {
        match operation {
            0 => self.add(slots),
            1 => self.add_in_vain(slots),
            // Mmsg takes the socket out at once, io_uring with the batch.
            2 => self.remove(slots, false, true),
            3 => self.remove(slots, true, true),
            4 => self.remove(slots, false, false),
            _ => self.end_batch(slots),
        }
        self.check(slots);
    }

    /// An id that nobody has, neither a socket nor the batch.
    fn reserve(&mut self, slots: &mut Slots<u32>) -> Option<u32> {
        let in_use = self.live.len() + self.leaving.len();
        let Ok(id) = slots.reserve() else {
            assert_eq!(in_use, IDS_MAX, "an id is lost");
            return None;
        };
        assert!(in_use < IDS_MAX && (id as usize) < IDS_MAX);
        assert!(!self.live.contains_key(&id), "id {id} is given twice");
        assert!(!self.leaving.contains_key(&id), "the batch may still name id {id}");
        self.given.insert(id);
        Some(id)
    }

    fn add(&mut self, slots: &mut Slots<u32>) {
        let Some(id) = self.reserve(slots) else { return };
        let socket = self.next;
        self.next += 1;
        assert_eq!(slots.fill(id, socket), SocketId(id));
        self.live.insert(id, socket);
    }

    fn add_in_vain(&mut self, slots: &mut Slots<u32>) {
        if let Some(id) = self.reserve(slots) {
            slots.give_back(id);
        }
    }

    /// The one that is there for the longest, or for the shortest.
    fn remove(&mut self, slots: &mut Slots<u32>, newest: bool, at_once: bool) {
        let by_age = self.live.iter().map(|(id, socket)| (*socket, *id));
        let Some((socket, id)) = (if newest { by_age.max() } else { by_age.min() }) else { return };
        self.live.remove(&id);
        if at_once {
            assert_eq!(slots.take(id), Some(socket));
        }
        slots.leave(id);
        self.leaving.insert(id, (!at_once).then_some(socket));
    }

    fn end_batch(&mut self, slots: &mut Slots<u32>) {
        let mut freed = BTreeSet::new();
        slots.free_left(|id| assert!(freed.insert(id), "id {id} is freed twice"));
        assert_eq!(freed, std::mem::take(&mut self.leaving).into_keys().collect());
    }

    fn check(&self, slots: &mut Slots<u32>) {
        for id in 0..=IDS_MAX as u32 {
            let kept = self.leaving.get(&id).copied().flatten();
            let expected = self.live.get(&id).copied().or(kept);
            assert_eq!(slots.get(id).copied(), expected, "behind id {id}");
            assert_eq!(slots.get_mut(id).copied(), expected);
        }
        let kept = self.leaving.values().flatten().count();
        assert_eq!(slots.iter_mut().count(), self.live.len() + kept);
    }
}

#[test]
fn an_id_is_one_sockets_until_the_batch_is_gone() {
    let depth = depth(7);
    for sequence in 0..OPERATIONS.pow(depth) {
        let (mut slots, mut model) = (Slots::new(IDS_MAX), Model::default());
        for at in 0..depth {
            model.apply(sequence / OPERATIONS.pow(at) % OPERATIONS, &mut slots);
        }
        // None is lost: all can be had again.
        model.end_batch(&mut slots);
        while model.live.len() < IDS_MAX {
            model.add(&mut slots);
        }
        assert!(slots.reserve().is_err());
        assert_eq!(model.given.len(), IDS_MAX);
    }
}
