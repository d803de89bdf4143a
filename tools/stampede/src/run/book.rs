//! Who joined, when and why not: the books of all participants of a run.
//!
//! Pure: it is told moments and keeps counts. One book for the whole run, on the signalling
//! thread; every entry costs O(1).

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use stampede_core::NoCandidatePair;
use stampede_signaling::session::SessionCounters;

use crate::report::hist::Samples;
use crate::report::judge::NoPairFacts;
use crate::report::types::{JoinSection, Phases, SignallingSection};

/// Steps of a join, each measured from its scheduled start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Websocket open.
    Websocket,
    /// Join response here.
    Signal,
    /// ICE connected.
    Ice,
    /// DTLS connected: the participant has joined.
    Dtls,
    /// First RTP packet.
    FirstPacket,
    /// First keyframe complete.
    FirstKeyframe,
}

const PHASES: usize = 6;

/// A participant in the book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ParticipantId(pub usize);

#[derive(Debug, Clone, Default)]
struct Entry {
    publisher: bool,
    started: bool,
    /// One bit a phase that has been reached.
    reached: u8,
    connected: bool,
    /// No try is under way or will come.
    over: bool,
    /// It was connected in the measured window.
    measured: bool,
    /// It was connected and did not stay so.
    dropped_out: bool,
    room: Option<Rc<str>>,
    /// Its part of the subscribers.
    cohort: u16,
    /// Tracks it should receive, video and audio.
    tracks: [Option<u32>; 2],
    /// Tracks it publishes, video and audio.
    publishes: [u32; 2],
}

impl Entry {
    fn has(&self, phase: Phase) -> bool {
        self.reached & (1 << phase as u8) != 0
    }
}

/// What is known of a participant besides its joins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    /// Its room.
    pub room: String,
    /// Its cohort, if the scenario has any.
    pub cohort: Option<String>,
}

/// What parts the identity of a further try from the participant's own.
pub(crate) const TRY_SUFFIX: &str = "-try";

/// Tracks that these should have received, video and audio; `None` if one of them is not known.
fn tracks<'a>(entries: impl Iterator<Item = &'a Entry> + Clone) -> [Option<u64>; 2] {
    [0, 1].map(|kind| entries.clone().map(|entry| entry.tracks[kind].map(u64::from)).sum())
}

/// The books.
#[derive(Debug, Default)]
pub(crate) struct Book {
    entries: Vec<Entry>,
    phases: [Samples; PHASES],
    started: [usize; 2],
    joined: [usize; 2],
    connected: [usize; 2],
    peak: usize,
    over: [usize; 2],
    failed: usize,
    dropped: u64,
    retries: u64,
    resumed: u64,
    first_keyframes: usize,
    join_response_wait_max: Duration,
    signalling: SignallingSection,
    errors: BTreeMap<String, u64>,
    no_pairs: NoPairFacts,
    server_version: Option<String>,
    members: HashMap<String, Member>,
}

impl Book {
    /// Adds a participant that will be started.
    pub(crate) fn register(&mut self, publisher: bool) -> ParticipantId {
        self.entries.push(Entry { publisher, ..Entry::default() });
        ParticipantId(self.entries.len() - 1)
    }

    /// What this subscriber should receive, video and audio; `None` is not known.
    pub(crate) fn expect(
        &mut self,
        id: ParticipantId,
        room: &Rc<str>,
        cohort: u16,
        tracks: [Option<u32>; 2],
    ) {
        let entry = &mut self.entries[id.0];
        (entry.room, entry.cohort, entry.tracks) = (Some(Rc::clone(room)), cohort, tracks);
    }

    /// How many tracks this publisher is to publish, video and audio.
    pub(crate) fn publishes(&mut self, id: ParticipantId, room: &Rc<str>, tracks: [u32; 2]) {
        let entry = &mut self.entries[id.0];
        (entry.room, entry.publishes) = (Some(Rc::clone(room)), tracks);
    }

    /// The measured window begins: who left before it does not count for its tracks.
    pub(crate) fn window_begins(&mut self) {
        for entry in &mut self.entries {
            entry.measured = entry.connected;
        }
    }

    /// Tracks that the subscribers of the measured window should have received, video and audio;
    /// `None` if that is not known of one of them.
    pub(crate) fn tracks_expected(&self) -> [Option<u64>; 2] {
        tracks(self.measured())
    }

    /// Of one part of the subscribers: how many were there in the measured window, and the tracks
    /// they should have received, as in [`Self::tracks_expected`].
    pub(crate) fn cohort(&self, cohort: u16) -> (u64, [Option<u64>; 2]) {
        let own = self.measured().filter(|entry| entry.cohort == cohort);
        (own.clone().count() as u64, tracks(own))
    }

    /// True if a subscriber is to be in this part.
    pub(crate) fn is_in(&self, cohort: u16) -> bool {
        let is = |entry: &Entry| !entry.publisher && entry.room.is_some() && entry.cohort == cohort;
        self.entries.iter().any(is)
    }

    /// Subscribers that were there in the measured window.
    fn measured(&self) -> impl Iterator<Item = &Entry> + Clone {
        self.entries.iter().filter(|entry| entry.measured && !entry.publisher)
    }

    /// Of the expected tracks those that may be missing because one of us was not there: the
    /// subscriber dropped out, or a publisher of its room never joined or dropped out.
    pub(crate) fn tracks_excused(&self) -> [u64; 2] {
        let mut absent: HashMap<&Rc<str>, [u32; 2]> = HashMap::new();
        let gone = |entry: &&Entry| !entry.has(Phase::Dtls) || entry.dropped_out;
        for entry in self.entries.iter().filter(|entry| entry.publisher).filter(gone) {
            let Some(room) = &entry.room else { continue };
            let sum = absent.entry(room).or_default();
            *sum = [sum[0] + entry.publishes[0], sum[1] + entry.publishes[1]];
        }
        let mut excused = [0; 2];
        for entry in self.entries.iter().filter(|entry| entry.measured && !entry.publisher) {
            let absent = entry.room.as_ref().and_then(|room| absent.get(room));
            for (kind, sum) in excused.iter_mut().enumerate() {
                let expected = entry.tracks[kind].unwrap_or(0);
                let lacking = absent.map_or(0, |absent| absent[kind]);
                let lacking = if entry.dropped_out { expected } else { lacking.min(expected) };
                *sum += u64::from(lacking);
            }
        }
        excused
    }

    /// Notes who somebody is, under its identity.
    pub(crate) fn introduce(&mut self, identity: &str, member: Member) {
        self.members.insert(identity.to_owned(), member);
    }

    /// Who has this identity, of a first or a further try.
    pub(crate) fn member(&self, identity: &str) -> Option<&Member> {
        let own = identity.rsplit_once(TRY_SUFFIX).map_or(identity, |(own, _)| own);
        self.members.get(identity).or_else(|| self.members.get(own))
    }

    /// Its first try begins.
    pub(crate) fn started(&mut self, id: ParticipantId) {
        let entry = &mut self.entries[id.0];
        if !entry.started {
            entry.started = true;
            self.started[usize::from(entry.publisher)] += 1;
        }
    }

    /// A phase was reached `since` its scheduled start. Only the first time counts.
    pub(crate) fn reached(&mut self, id: ParticipantId, phase: Phase, since: Duration) {
        let entry = &mut self.entries[id.0];
        let side = usize::from(entry.publisher);
        if phase == Phase::Dtls && !entry.connected {
            entry.connected = true;
            entry.measured = true;
            self.connected[side] += 1;
            self.peak = self.peak.max(self.connected[0] + self.connected[1]);
        }
        if entry.has(phase) {
            return;
        }
        entry.reached |= 1 << phase as u8;
        self.phases[phase as usize].record(since);
        match phase {
            Phase::Dtls => self.joined[side] += 1,
            Phase::FirstKeyframe => self.first_keyframes += 1,
            Phase::Websocket | Phase::Signal | Phase::Ice | Phase::FirstPacket => {}
        }
    }

    /// A join response came this long after TCP was connected.
    pub(crate) fn join_response(&mut self, waited: Duration) {
        self.join_response_wait_max = self.join_response_wait_max.max(waited);
    }

    /// The longest of [`Book::join_response`].
    pub(crate) fn join_response_wait_max(&self) -> Duration {
        self.join_response_wait_max
    }

    /// A session ended: what it had made of the server's messages.
    pub(crate) fn session_ended(&mut self, counted: SessionCounters) {
        self.signalling.merge(&SignallingSection {
            messages: counted.messages,
            malformed: counted.malformed,
            offers_ignored: counted.offers_ignored,
            answers_ignored: counted.answers_ignored,
            candidates_dropped: counted.candidates_dropped,
            tracks_ignored: counted.tracks_ignored,
        });
    }

    /// A try ended before it was told to; `kind` goes into `join.errors`.
    pub(crate) fn broke(&mut self, id: ParticipantId, kind: &str) {
        *self.errors.entry(kind.to_owned()).or_default() += 1;
        let entry = &mut self.entries[id.0];
        if entry.connected {
            entry.dropped_out = true;
            self.dropped += 1;
        }
        self.disconnected(id);
    }

    /// A try found no candidate pair that works; it is [`Self::broke`]n besides.
    pub(crate) fn no_pair(&mut self, pair: &NoCandidatePair) {
        let pairs = &mut self.no_pairs;
        let is_first_other = pairs.tries == pairs.server_named_none && !pair.server_named_none();
        if pairs.tries == 0 || is_first_other {
            pairs.example = pair.to_string();
        }
        pairs.tries += 1;
        pairs.server_named_none += u64::from(pair.server_named_none());
    }

    /// What [`Self::no_pair`] was told.
    pub(crate) fn no_pairs(&self) -> &NoPairFacts {
        &self.no_pairs
    }

    /// It is not connected any more.
    pub(crate) fn disconnected(&mut self, id: ParticipantId) {
        let entry = &mut self.entries[id.0];
        if entry.connected {
            entry.connected = false;
            self.connected[usize::from(entry.publisher)] -= 1;
        }
    }

    /// Another try begins.
    pub(crate) fn retried(&mut self) {
        self.retries += 1;
    }

    /// A session went on over a new websocket.
    pub(crate) fn resumed(&mut self) {
        self.resumed += 1;
    }

    /// No try will follow. `gave_up` if the last one broke, rather than being told to leave.
    pub(crate) fn over(&mut self, id: ParticipantId, gave_up: bool) {
        let entry = &mut self.entries[id.0];
        if !entry.over {
            entry.over = true;
            self.over[usize::from(entry.publisher)] += 1;
            if gave_up && !entry.has(Phase::Dtls) {
                self.failed += 1;
            }
        }
    }

    /// An error that belongs to no participant.
    pub(crate) fn error(&mut self, kind: &str) {
        *self.errors.entry(kind.to_owned()).or_default() += 1;
    }

    /// The server's version, as the first join response has it.
    pub(crate) fn server_version(&mut self, version: &str) {
        if self.server_version.is_none() && !version.is_empty() {
            self.server_version = Some(version.to_owned());
        }
    }

    /// What [`Book::server_version`] was told.
    pub(crate) fn known_server_version(&self) -> Option<String> {
        self.server_version.clone()
    }

    /// Participants registered.
    pub(crate) fn requested(&self) -> usize {
        self.entries.len()
    }

    /// Participants connected now.
    pub(crate) fn connected(&self) -> usize {
        self.connected[0] + self.connected[1]
    }

    /// Subscribers connected now.
    pub(crate) fn subscribers_connected(&self) -> usize {
        self.connected[0]
    }

    /// Participants that joined at least once.
    pub(crate) fn joined(&self) -> usize {
        self.joined[0] + self.joined[1]
    }

    /// Publishers that joined at least once.
    pub(crate) fn publishers_joined(&self) -> usize {
        self.joined[1]
    }

    /// Subscribers that joined at least once.
    pub(crate) fn subscribers_joined(&self) -> usize {
        self.joined[0]
    }

    /// Subscribers that got a first keyframe.
    pub(crate) fn first_keyframes(&self) -> usize {
        self.first_keyframes
    }

    /// True once every publisher is connected or has given up.
    pub(crate) fn publishers_settled(&self, publishers: usize) -> bool {
        self.connected[1] + self.over[1] >= publishers
    }

    /// True once every started participant is connected or has given up.
    pub(crate) fn settled(&self) -> bool {
        self.connected() + self.over[0] + self.over[1] >= self.started_total()
    }

    /// True once nobody is left, or will come back.
    pub(crate) fn all_over(&self) -> bool {
        self.over[0] + self.over[1] >= self.entries.len()
    }

    /// True once no started subscriber is left.
    pub(crate) fn subscribers_over(&self) -> bool {
        self.over[0] >= self.started[0]
    }

    /// True once no started participant is left.
    pub(crate) fn started_over(&self) -> bool {
        self.over[0] + self.over[1] >= self.started_total()
    }

    /// Participants started.
    pub(crate) fn started_total(&self) -> usize {
        self.started[0] + self.started[1]
    }

    /// Participants that gave up before they ever joined.
    pub(crate) fn failed(&self) -> usize {
        self.failed
    }

    /// Error kinds with their counts, commonest first.
    pub(crate) fn errors(&self) -> Vec<(String, u64)> {
        let mut errors: Vec<_> =
            self.errors.iter().map(|(kind, count)| (kind.clone(), *count)).collect();
        errors.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        errors
    }

    /// Further tries made.
    pub(crate) fn retries(&self) -> u64 {
        self.retries
    }

    /// The report's section.
    pub(crate) fn section(&self) -> JoinSection {
        let phase = |phase: Phase| self.phases[phase as usize].as_ms();
        JoinSection {
            requested: self.requested() as u64,
            started: self.started_total() as u64,
            joined: self.joined() as u64,
            failed: self.failed as u64,
            dropped: self.dropped,
            retries: self.retries,
            resumed: self.resumed,
            errors: self.errors.clone(),
            signalling: self.signalling,
            peak: Some(self.peak as u64),
            phases_ms: Phases {
                websocket: phase(Phase::Websocket),
                signal: phase(Phase::Signal),
                ice: phase(Phase::Ice),
                dtls: phase(Phase::Dtls),
                first_packet: phase(Phase::FirstPacket),
                first_keyframe: phase(Phase::FirstKeyframe),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use stampede_core::{Heard, RemoteCandidate};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_join_counts_once_and_its_first_times_only() {
        let mut book = Book::default();
        let id = book.register(false);
        book.started(id);
        book.reached(id, Phase::Websocket, MS);
        book.reached(id, Phase::Dtls, 2 * MS);
        book.reached(id, Phase::Dtls, 900 * MS);
        assert_eq!((book.joined(), book.connected(), book.peak), (1, 1, 1));
        book.broke(id, "media_lost");
        book.retried();
        book.started(id);
        book.reached(id, Phase::Dtls, 5_000 * MS);
        let section = book.section();
        assert_eq!((section.requested, section.started, section.joined), (1, 1, 1));
        assert_eq!((section.dropped, section.retries, section.failed), (1, 1, 0));
        assert_eq!(section.errors["media_lost"], 1);
        let dtls = section.phases_ms.dtls.unwrap();
        assert_eq!((dtls.count, dtls.max), (1, 2.0));
        assert!(section.phases_ms.first_packet.is_none());
    }

    #[test]
    fn giving_up_before_joining_is_a_failure_and_settles() {
        let mut book = Book::default();
        let publisher = book.register(true);
        let subscriber = book.register(false);
        book.started(publisher);
        book.started(subscriber);
        assert!(!book.publishers_settled(1) && !book.settled());
        book.broke(publisher, "http_401");
        book.over(publisher, true);
        book.over(publisher, true);
        assert!(book.publishers_settled(1) && !book.settled() && !book.all_over());
        book.reached(subscriber, Phase::Dtls, MS);
        assert!(book.settled());
        book.disconnected(subscriber);
        book.over(subscriber, false);
        assert!(book.all_over());
        let section = book.section();
        assert_eq!((section.failed, section.dropped, section.joined), (1, 0, 1));
        assert_eq!((book.publishers_joined(), book.subscribers_joined()), (0, 1));
    }

    #[test]
    fn tracks_are_expected_of_those_in_the_measured_window() {
        let mut book = Book::default();
        let ids: Vec<_> = (0..4).map(|number| book.register(number == 0)).collect();
        let room: Rc<str> = "room".into();
        for id in &ids[1..] {
            book.expect(*id, &room, 0, [Some(2), Some(1)]);
        }
        for id in &ids[..3] {
            book.started(*id);
            book.reached(*id, Phase::Dtls, MS);
        }
        assert_eq!(book.tracks_expected(), [Some(4), Some(2)]);
        book.disconnected(ids[1]);
        book.over(ids[1], false);
        book.window_begins();
        assert_eq!(book.tracks_expected(), [Some(2), Some(1)]);
        book.reached(ids[3], Phase::Dtls, MS);
        assert_eq!(book.tracks_expected(), [Some(4), Some(2)]);
        book.expect(ids[3], &room, 1, [None, Some(1)]);
        assert_eq!(book.tracks_expected(), [None, Some(2)]);
    }

    #[test]
    fn tracks_of_those_who_were_not_there_are_excused() {
        let mut book = Book::default();
        let [room, other]: [Rc<str>; 2] = ["room".into(), "other".into()];
        let publishers: Vec<_> = (0..3).map(|_| book.register(true)).collect();
        for (number, id) in publishers.iter().enumerate() {
            book.publishes(*id, if number < 2 { &room } else { &other }, [1, 1]);
            book.started(*id);
        }
        book.reached(publishers[0], Phase::Dtls, MS);
        let viewers: Vec<_> = (0..3).map(|_| book.register(false)).collect();
        for (number, id) in viewers.iter().enumerate() {
            book.expect(*id, if number < 2 { &room } else { &other }, 0, [Some(2), Some(2)]);
            book.started(*id);
            book.reached(*id, Phase::Dtls, MS);
        }
        // Two miss the second publisher, one the third; then one of the two drops out.
        assert_eq!(book.tracks_excused(), [3, 3]);
        book.broke(viewers[0], "media_lost");
        assert_eq!(book.tracks_excused(), [4, 4]);
        book.reached(publishers[1], Phase::Dtls, MS);
        assert_eq!(book.tracks_excused(), [3, 3]);
        book.broke(publishers[0], "media_lost");
        assert_eq!(book.tracks_excused(), [4, 4]);
    }

    #[test]
    fn the_example_of_a_missing_pair_is_one_that_has_candidates() {
        let none = NoCandidatePair {
            locals: vec!["127.0.0.1:40001".parse().unwrap()],
            remotes: vec![],
            left_out: 0,
            unreachable: vec![],
            refused_local: None,
            heard: Heard::Nothing,
        };
        let of = |address: &str| NoCandidatePair {
            remotes: vec![RemoteCandidate::Udp(address.parse().unwrap())],
            ..none.clone()
        };
        let mut book = Book::default();
        book.no_pair(&none);
        assert!(book.no_pairs().example.ends_with("the server named none"));
        for address in ["10.0.0.1:7882", "10.0.0.2:7882"] {
            book.no_pair(&of(address));
        }
        book.no_pair(&none);
        let pairs = book.no_pairs();
        assert_eq!((pairs.tries, pairs.server_named_none), (4, 2));
        assert!(pairs.example.contains("10.0.0.1:7882"), "{}", pairs.example);
    }

    #[test]
    fn errors_come_commonest_first() {
        let mut book = Book::default();
        for kind in ["a", "b", "b", "c", "c", "c"] {
            book.error(kind);
        }
        let errors: Vec<_> = book.errors();
        assert_eq!(errors[0], ("c".to_owned(), 3));
        assert_eq!(errors[2], ("a".to_owned(), 1));
    }
}
