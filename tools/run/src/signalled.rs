//! What participants told and heard of each other over signalling: updates that they made of
//! themselves, who speaks, and how long pings took.
//!
//! Pure: it is told moments and keeps counts. Everything is of the measured window.

mod speakers;
mod updates;

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use stampede_report::hist::Samples;
use stampede_report::types::SignallingSection;

use crate::distributions::LiveDistributions;
use crate::joins::{ParticipantId, of_first_try};
use speakers::Speakers;
use updates::Updates;

/// Somebody who is in its room, session and media connection.
#[derive(Debug, Clone)]
struct Present {
    room: Rc<str>,
    since: Instant,
    /// It subscribes to all audio, so that it is to be told who speaks.
    hears_all: bool,
}

/// The book.
#[derive(Debug, Default)]
pub(crate) struct Signalled {
    ids: HashMap<String, ParticipantId>,
    /// Whose a participant sid is, and which everybody has.
    sids: HashMap<String, ParticipantId>,
    sid_of: HashMap<ParticipantId, String>,
    present: HashMap<ParticipantId, Present>,
    rooms: HashMap<Rc<str>, HashSet<ParticipantId>>,
    ping_rtt: Samples,
    updates: Updates,
    speakers: Speakers,
    measuring: bool,
}

impl Signalled {
    /// Somebody will join under this identity, and make updates of itself.
    pub(crate) fn introduce(&mut self, identity: &str, id: ParticipantId) {
        self.ids.insert(identity.to_owned(), id);
    }

    /// The server calls it so.
    pub(crate) fn known_as(&mut self, id: ParticipantId, sid: &str) {
        if let Some(former) = self.sid_of.insert(id, sid.to_owned()) {
            self.sids.remove(&former);
        }
        self.sids.insert(sid.to_owned(), id);
    }

    /// It stands in this room.
    pub(crate) fn present(
        &mut self,
        id: ParticipantId,
        room: &Rc<str>,
        at: Instant,
        hears_all: bool,
    ) {
        self.absent(id);
        self.rooms.entry(Rc::clone(room)).or_default().insert(id);
        self.present.insert(id, Present { room: Rc::clone(room), since: at, hears_all });
    }

    /// It stands no longer: it is told nothing, and nothing of it is expected to be told.
    pub(crate) fn absent(&mut self, id: ParticipantId) {
        let Some(Present { room, since, .. }) = self.present.remove(&id) else { return };
        self.speakers.gone(id);
        let Some(members) = self.rooms.get_mut(&room) else { return };
        members.remove(&id);
        self.updates.observer_gone(id, since, members.iter().copied());
        if members.is_empty() {
            self.rooms.remove(&room);
        }
    }

    /// The measured window begins.
    pub(crate) fn window_begins(&mut self) {
        self.measuring = true;
        self.ping_rtt = Samples::new();
        self.updates.restart();
        self.speakers.restart();
    }

    /// The window ends at `now`, before anybody is told to leave.
    pub(crate) fn close(&mut self, now: Instant) {
        if std::mem::take(&mut self.measuring) {
            self.updates.close(now);
            self.speakers.close(now);
        }
    }

    /// Adds how long pings took.
    pub(crate) fn put(&self, to: &mut LiveDistributions) {
        to.put("ping_rtt".to_owned(), self.ping_rtt.histogram());
    }

    /// A ping took so long to come back.
    pub(crate) fn pong(&mut self, rtt: Duration) {
        if self.measuring {
            self.ping_rtt.record(rtt);
        }
    }

    /// It sends its update of this number.
    pub(crate) fn updates(&mut self, id: ParticipantId, number: u32, at: Instant) {
        let Some(present) = self.present.get(&id).filter(|_| self.measuring) else { return };
        let others = self.rooms.get(&present.room).map_or(0, HashSet::len).saturating_sub(1);
        self.updates.sent(id, number, at, others as u32);
    }

    /// The server refused an update.
    pub(crate) fn update_refused(&mut self) {
        if self.measuring {
            self.updates.refused();
        }
    }

    /// A participant was told that others are at these updates.
    pub(crate) fn told_updates(
        &mut self,
        observer: ParticipantId,
        updates: &[(String, u32)],
        at: Instant,
    ) {
        let there = self.present.get(&observer);
        for (identity, number) in updates {
            let Some(of) = self.ids.get(of_first_try(identity)) else { continue };
            // Of those of another room, from which one of both was moved, nothing is expected.
            let other_room = |there: &&Present| {
                self.present.get(of).is_some_and(|sender| sender.room != there.room)
            };
            let since = there.filter(|there| !other_room(there)).map(|there| there.since);
            self.updates.told(observer, *of, *number, since, at);
        }
    }

    /// It sends its first loud packet after silent ones, or its first silent one.
    pub(crate) fn speaks(&mut self, id: ParticipantId, loud: bool, at: Instant) {
        if !loud {
            return self.speakers.silent(id);
        }
        let Some(present) = self.present.get(&id).filter(|_| self.measuring) else { return };
        let members = self.rooms.get(&present.room).into_iter().flatten().copied();
        let hears = |other: &ParticipantId| self.present.get(other).is_some_and(|p| p.hears_all);
        self.speakers.speaks(id, at, members.filter(|other| *other != id).filter(hears));
    }

    /// A subscriber was told of these speakers, by sid, whether they are active.
    pub(crate) fn told_speakers(
        &mut self,
        observer: ParticipantId,
        speakers: &[(String, bool)],
        at: Instant,
    ) {
        for (sid, active) in speakers {
            if let Some(of) = self.sids.get(sid).filter(|of| **of != observer) {
                self.speakers.told(observer, *of, *active, at);
            }
        }
    }

    /// All of it so far.
    pub(crate) fn section(&self) -> SignallingSection {
        SignallingSection {
            ping_rtt_ms: self.ping_rtt.as_ms(),
            metadata: self.updates.section(),
            speakers: self.speakers.section(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_counters::{MetadataCounters, SpeakerCounters};

    const S: Duration = Duration::from_secs(1);

    /// Four of a room, and one of another.
    struct Rig {
        book: Signalled,
        begun: Instant,
        room: Rc<str>,
    }

    const A: ParticipantId = ParticipantId(0);
    const B: ParticipantId = ParticipantId(1);
    const C: ParticipantId = ParticipantId(2);
    const D: ParticipantId = ParticipantId(3);
    const ALONE: ParticipantId = ParticipantId(4);

    fn rig() -> Rig {
        let (mut book, begun) = (Signalled::default(), Instant::now());
        let [room, other]: [Rc<str>; 2] = ["room".into(), "other".into()];
        for (id, name) in [(A, "a"), (B, "b"), (C, "c"), (D, "d"), (ALONE, "e")] {
            book.introduce(name, id);
            book.known_as(id, &format!("PA_{name}"));
            book.present(id, if id == ALONE { &other } else { &room }, begun, true);
        }
        book.window_begins();
        Rig { book, begun, room }
    }

    impl Rig {
        fn at(&self, seconds: f64) -> Instant {
            self.begun + Duration::from_secs_f64(seconds)
        }

        fn sends(&mut self, of: ParticipantId, number: u32, seconds: f64) {
            self.book.updates(of, number, self.at(seconds));
        }

        fn hears(&mut self, observer: ParticipantId, of: &str, number: u32, seconds: f64) {
            self.book.told_updates(observer, &[(of.to_owned(), number)], self.at(seconds));
        }

        fn told(&mut self, observer: ParticipantId, of: &str, active: bool, seconds: f64) {
            self.book.told_speakers(observer, &[(format!("PA_{of}"), active)], self.at(seconds));
        }

        fn metadata(&self) -> MetadataCounters {
            let counted = self.book.section().metadata.counted;
            assert_eq!(counted.expected, counted.seen + counted.superseded + counted.missing);
            counted
        }

        fn speakers(&self) -> SpeakerCounters {
            let counted = self.book.section().speakers.counted;
            assert_eq!(counted.expected, counted.named + counted.missed);
            counted
        }
    }

    #[test]
    fn an_update_is_seen_superseded_or_missing_by_each_of_the_others() {
        let mut rig = rig();
        rig.sends(A, 1, 1.0);
        rig.sends(A, 2, 1.5);
        rig.hears(B, "a", 1, 1.1);
        rig.hears(B, "a", 2, 1.7);
        rig.hears(B, "a", 2, 1.8);
        // Gathered by the server, and of a further try.
        rig.hears(C, "a-try2", 2, 3.0);
        rig.hears(ALONE, "a", 1, 3.0);
        rig.sends(ALONE, 1, 4.0);
        rig.book.close(rig.at(12.0));
        let counted = rig.metadata();
        assert_eq!((counted.sent, counted.expected), (3, 6));
        assert_eq!((counted.seen, counted.superseded, counted.missing), (3, 1, 2));
        let latency = rig.book.section().metadata.latency_ms.unwrap();
        assert!(latency.count == 4 && (latency.max - 2_000.0).abs() < 5.0, "{latency:?}");
    }

    #[test]
    fn nothing_is_missed_by_who_came_later_left_or_had_no_time() {
        let mut rig = rig();
        rig.sends(A, 1, 1.0);
        rig.book.absent(B);
        rig.book.present(B, &rig.room.clone(), rig.at(1.2), true);
        // It knows the first by its join response, and is to see the next.
        rig.hears(B, "a", 1, 1.2);
        rig.hears(C, "a", 1, 1.3);
        rig.book.absent(D);
        rig.sends(A, 2, 2.0);
        rig.hears(B, "a", 2, 2.5);
        rig.book.close(rig.at(3.0));
        let counted = rig.metadata();
        assert_eq!((counted.expected, counted.seen, counted.missing), (2, 2, 0));
        // What comes after the end changes nothing.
        rig.hears(C, "a", 2, 3.1);
        rig.sends(A, 3, 3.2);
        assert_eq!(rig.metadata(), counted);
    }

    #[test]
    fn an_update_that_nobody_hears_of_within_ten_seconds_is_missing_while_the_run_goes_on() {
        let mut rig = rig();
        rig.book.absent(D);
        rig.sends(A, 1, 0.0);
        rig.sends(A, 2, 10.5);
        assert_eq!(rig.book.section().metadata.counted.missing, 2);
        rig.hears(B, "a", 2, 11.0);
        rig.book.update_refused();
        rig.book.close(rig.at(11.5));
        let counted = rig.metadata();
        assert_eq!((counted.sent, counted.seen, counted.missing, counted.refused), (2, 1, 2, 1));
    }

    #[test]
    fn a_turn_is_named_missed_and_flaps_for_each_subscriber() {
        let mut rig = rig();
        rig.book.speaks(A, true, rig.at(1.0));
        rig.told(B, "a", true, 1.4);
        rig.told(A, "a", true, 1.4);
        rig.told(B, "a", false, 2.0);
        rig.told(B, "a", true, 2.4);
        rig.told(C, "a", true, 3.0);
        rig.book.speaks(A, false, rig.at(6.0));
        // By then it has fallen silent.
        rig.told(B, "a", false, 6.4);
        rig.told(D, "a", true, 6.5);
        let counted = rig.speakers();
        assert_eq!((counted.turns, counted.expected, counted.named), (1, 3, 2));
        assert_eq!((counted.missed, counted.flaps), (1, 1));
        let latency = rig.book.section().speakers.latency_ms.unwrap();
        assert!(latency.count == 2 && (latency.max - 2_000.0).abs() < 5.0, "{latency:?}");
    }

    #[test]
    fn of_a_turn_nothing_is_expected_of_who_leaves_or_still_thinks_the_last_one_goes_on() {
        let mut rig = rig();
        rig.told(B, "a", true, 0.5);
        rig.book.speaks(A, true, rig.at(1.0));
        rig.book.absent(C);
        rig.book.close(rig.at(2.0));
        assert_eq!(rig.speakers().expected, 0, "B thinks so, C left, D had no time");
        let mut rig = self::rig();
        rig.book.speaks(A, true, rig.at(1.0));
        rig.book.close(rig.at(5.0));
        assert_eq!(rig.speakers().missed, 3);
        let mut rig = self::rig();
        rig.book.speaks(A, true, rig.at(1.0));
        rig.told(B, "a", true, 1.5);
        rig.book.absent(A);
        let counted = rig.speakers();
        assert_eq!((counted.named, counted.missed), (1, 0), "the speaker itself was gone");
    }

    #[test]
    fn pings_count_in_the_window_alone() {
        let mut book = Signalled::default();
        book.pong(S);
        assert_eq!(book.section().ping_rtt_ms, None);
        book.window_begins();
        book.pong(S / 10);
        book.close(Instant::now());
        book.pong(S);
        let rtt = book.section().ping_rtt_ms.unwrap();
        assert!(rtt.count == 1 && (rtt.max - 100.0).abs() < 1.0, "{rtt:?}");
    }
}
