//! Join statistics: who joined, when and why not.
//!
//! Pure: it is told moments and keeps counts. One for the whole run, on the signalling thread;
//! every entry costs O(1).

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant};

use stampede_counters::{JoinCounters, JoinPaths};
use stampede_engine::PathKind;
use stampede_signaling::session::SessionCounters;

use crate::distributions::{LiveDistributions, PHASE_NAMES};
use crate::join_error::JoinError;
use crate::reconnect::STANDS_WITHIN;

use stampede_output::one_line;
use stampede_report::errors::{ErrorClass, ErrorFact};
use stampede_report::hist::Samples;
use stampede_report::joins::{BoundJoins, LostJoins};
use stampede_report::running::LiveJoins;
use stampede_report::types::{JoinSection, PendingAt, Phases};

/// Steps of a join, each measured from its scheduled start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinPhase {
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

const PHASES: usize = PHASE_NAMES.len();
/// The first phase that the way makes a difference to; see [`Joins::by_path`].
const FIRST_BY_PATH: JoinPhase = JoinPhase::Ice;
/// Who was thrown out on purpose so shortly before the end is not held against anybody: that long
/// a way back may take.
const ABSENT_GRACE: Duration = STANDS_WITHIN;
/// Most kinds of errors of which it is kept what was said, and how much of it.
const ERROR_TEXTS_MAX: usize = 64;
const ERROR_TEXT_CHARS_MAX: usize = 400;

/// A participant of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ParticipantId(pub usize);

#[derive(Debug, Clone, Default)]
struct Entry {
    only_sends: bool,
    /// When its join was scheduled, once it has begun.
    started: Option<Instant>,
    /// One bit a phase that has been reached, in whichever try.
    reached: u8,
    /// By what its media came up, or is coming up.
    path: PathKind,
    /// It is among the participants by their ways.
    path_counted: bool,
    /// When ICE was connected, from the schedule, until it is known by what.
    ice: Option<Duration>,
    /// What the try under way waits for, or the last one waited for when it broke.
    step: Step,
    /// Its last try broke, and no other has begun.
    broken: bool,
    connected: bool,
    /// While it is on its way back.
    absent: Option<Absent>,
    /// It is planned to be there.
    planned: bool,
    /// It left as planned and will join again.
    away: bool,
    /// No try is under way or will come.
    over: bool,
    /// It gave up without ever being connected.
    failed: bool,
    /// Still joining when the run ended, and not for want of time.
    overdue: bool,
    /// It was connected in the measured window.
    measured: bool,
    /// It was connected and did not stay so, before it was told to leave.
    dropped_out: bool,
    /// It was on its way back when the run ended.
    left_absent: bool,
    room: Option<Rc<str>>,
    /// Its part of the subscribers.
    cohort: u16,
    /// Tracks it should receive, video and audio.
    tracks: [Option<u32>; 2],
    /// Tracks it publishes, video and audio.
    publishes: [u32; 2],
}

/// Somebody who was connected and is on the way back.
#[derive(Debug, Clone)]
struct Absent {
    why: JoinError,
    since: Instant,
    /// By a fault of this run's.
    on_purpose: bool,
    /// It is among the drops.
    counted: bool,
}

/// What a join waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    #[default]
    Websocket,
    Signal,
    Ice,
    Dtls,
}

impl Step {
    /// What comes after a phase.
    fn after(phase: JoinPhase) -> Self {
        match phase {
            JoinPhase::Websocket => Self::Signal,
            JoinPhase::Signal => Self::Ice,
            JoinPhase::Ice
            | JoinPhase::Dtls
            | JoinPhase::FirstPacket
            | JoinPhase::FirstKeyframe => Self::Dtls,
        }
    }
}

/// Where a participant stands; each stands at exactly one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    NotStarted,
    Pending(Step),
    Failed,
    Joined,
}

impl Entry {
    fn receives(&self) -> bool {
        !self.only_sends
    }

    fn sends(&self) -> bool {
        self.publishes != [0; 2]
    }

    fn has(&self, phase: JoinPhase) -> bool {
        self.reached & (1 << phase as u8) != 0
    }

    fn standing(&self) -> Standing {
        match self {
            _ if self.has(JoinPhase::Dtls) => Standing::Joined,
            _ if self.failed => Standing::Failed,
            _ if self.started.is_none() => Standing::NotStarted,
            // Between two tries it waits for the next.
            _ if self.broken => Standing::Pending(Step::Websocket),
            _ => Standing::Pending(self.step),
        }
    }

    /// True if it never joined for no other reason than that nothing came through to it.
    fn cut_off(&self) -> bool {
        self.step >= Step::Ice && (self.failed || self.overdue)
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

/// An identity without the suffix of a further try.
pub(crate) fn of_first_try(identity: &str) -> &str {
    match identity.rsplit_once(TRY_SUFFIX) {
        Some((own, tries)) if tries.bytes().all(|byte| byte.is_ascii_digit()) => own,
        _ => identity,
    }
}

/// Tracks that these should have received, video and audio; `None` if one of them is not known.
fn tracks<'a>(entries: impl Iterator<Item = &'a Entry> + Clone) -> [Option<u64>; 2] {
    [0, 1].map(|kind| entries.clone().map(|entry| entry.tracks[kind].map(u64::from)).sum())
}

/// Join statistics of all participants.
#[derive(Debug, Default)]
pub(crate) struct Joins {
    entries: Vec<Entry>,
    phases: [Samples; PHASES],
    paths: JoinPaths,
    /// Those of phases from [`FIRST_BY_PATH`] on, by what each participant's media came up by.
    by_path: BTreeMap<PathKind, [Samples; PHASES]>,
    started: [usize; 2],
    /// Of those who receive.
    receivers_joined: usize,
    connected: [usize; 2],
    peak: usize,
    over: [usize; 2],
    /// Planned to be there.
    planned: usize,
    /// Left as planned, and will join again.
    away: usize,
    /// The run has ended: what comes now changes nothing about who joined and who stayed.
    closed: bool,
    /// Of tries: where participants stand is in their entries.
    tries: JoinCounters,
    join_response_wait_max: Duration,
    signalling: SessionCounters,
    errors: BTreeMap<String, u64>,
    error_texts: BTreeMap<String, String>,
    /// What each kind means that was counted, said, or given as a reason.
    classes: BTreeMap<String, ErrorClass>,
    server_version: Option<String>,
    members: HashMap<String, Member>,
}

impl Joins {
    /// Adds a participant that will be started.
    pub(crate) fn register(&mut self, only_sends: bool) -> ParticipantId {
        self.entries.push(Entry { only_sends, ..Entry::default() });
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

    /// How many tracks this one is to publish, video and audio.
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
        let is = |entry: &Entry| entry.receives() && entry.room.is_some() && entry.cohort == cohort;
        self.entries.iter().any(is)
    }

    /// Subscribers that were there in the measured window.
    fn measured(&self) -> impl Iterator<Item = &Entry> + Clone {
        self.entries.iter().filter(|entry| entry.measured && entry.receives())
    }

    /// Of the expected tracks those that may be missing because one of us was not there: the
    /// subscriber dropped out, or a publisher of its room never joined or dropped out.
    pub(crate) fn tracks_discounted(&self) -> [u64; 2] {
        let mut absent: HashMap<&Rc<str>, [u32; 2]> = HashMap::new();
        let gone = |entry: &Entry| !entry.has(JoinPhase::Dtls) || entry.dropped_out;
        for entry in self.entries.iter().filter(|entry| gone(entry)) {
            let Some(room) = &entry.room else { continue };
            let sum = absent.entry(room).or_default();
            *sum = [sum[0] + entry.publishes[0], sum[1] + entry.publishes[1]];
        }
        let mut discounted = [0; 2];
        for entry in self.entries.iter().filter(|entry| entry.measured && entry.receives()) {
            let absent = entry.room.as_ref().and_then(|room| absent.get(room));
            for (kind, sum) in discounted.iter_mut().enumerate() {
                let expected = entry.tracks[kind].unwrap_or(0);
                // Its own are not among those that it should have received.
                let own = if gone(entry) { entry.publishes[kind] } else { 0 };
                let lacking = absent.map_or(0, |absent| absent[kind] - own);
                let lacking = if entry.dropped_out { expected } else { lacking.min(expected) };
                *sum += u64::from(lacking);
            }
        }
        discounted
    }

    /// Keeps who somebody is, under its identity.
    pub(crate) fn introduce(&mut self, identity: &str, member: Member) {
        self.members.insert(identity.to_owned(), member);
    }

    /// Who has this identity, of a first or a further try.
    pub(crate) fn member(&self, identity: &str) -> Option<&Member> {
        self.members.get(identity).or_else(|| self.members.get(of_first_try(identity)))
    }

    /// Its first try begins; it was to begin at `scheduled`.
    pub(crate) fn started(&mut self, id: ParticipantId, scheduled: Instant) {
        let entry = &mut self.entries[id.0];
        if entry.started.is_none() {
            entry.started = Some(scheduled);
            self.started[usize::from(entry.only_sends)] += 1;
        }
        self.planned += usize::from(!std::mem::replace(&mut entry.planned, true));
    }

    /// By plan it is there no longer, whatever it does.
    pub(crate) fn planned_to_leave(&mut self, id: ParticipantId) {
        let entry = &mut self.entries[id.0];
        self.planned -= usize::from(std::mem::replace(&mut entry.planned, false));
    }

    /// A stay has ended as planned; `returns` if it will join again.
    pub(crate) fn leaves(&mut self, id: ParticipantId, returns: bool) {
        self.planned_to_leave(id);
        if !self.closed {
            self.tries.leaves += 1;
        }
        self.away +=
            usize::from(returns && !std::mem::replace(&mut self.entries[id.0].away, returns));
    }

    /// It joins again, at `scheduled`: a join like any other.
    pub(crate) fn rejoins(&mut self, id: ParticipantId, scheduled: Instant) {
        let entry = &mut self.entries[id.0];
        self.away -= usize::from(std::mem::replace(&mut entry.away, false));
        if self.closed {
            return;
        }
        self.tries.rejoins += 1;
        self.planned += usize::from(!std::mem::replace(&mut entry.planned, true));
        if entry.has(JoinPhase::Dtls) {
            self.receivers_joined -= usize::from(entry.receives());
        }
        entry.started = Some(scheduled);
        (entry.reached, entry.step, entry.broken) = (0, Step::default(), false);
        entry.path = PathKind::default();
    }

    /// A phase was reached `since` its scheduled start. Only the first time counts.
    pub(crate) fn reached(&mut self, id: ParticipantId, phase: JoinPhase, since: Duration) {
        if self.closed {
            return;
        }
        let entry = &mut self.entries[id.0];
        let side = usize::from(entry.only_sends);
        entry.step = entry.step.max(Step::after(phase));
        if phase == JoinPhase::Dtls && !entry.connected {
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
        self.reached_by_path(id, phase, since);
        if phase == JoinPhase::Dtls {
            let entry = &self.entries[id.0];
            self.receivers_joined += usize::from(entry.receives());
        }
    }

    /// The media of a participant comes up by this.
    pub(crate) fn path(&mut self, id: ParticipantId, path: PathKind) {
        let entry = &mut self.entries[id.0];
        if !self.closed && !entry.has(JoinPhase::Dtls) {
            entry.path = path;
        }
    }

    /// Before DTLS is up nobody knows by what it will be.
    fn reached_by_path(&mut self, id: ParticipantId, phase: JoinPhase, since: Duration) {
        let entry = &mut self.entries[id.0];
        if phase == JoinPhase::Ice {
            entry.ice = Some(since);
        }
        if phase as usize <= FIRST_BY_PATH as usize {
            return;
        }
        let phases = self.by_path.entry(entry.path).or_default();
        phases[phase as usize].record(since);
        if phase == JoinPhase::Dtls {
            if let Some(ice) = entry.ice.take() {
                phases[JoinPhase::Ice as usize].record(ice);
            }
            let count = match entry.path {
                PathKind::Udp => &mut self.paths.udp,
                PathKind::Tcp => &mut self.paths.tcp,
                PathKind::TurnUdp => &mut self.paths.turn_udp,
                PathKind::TurnTcp => &mut self.paths.turn_tcp,
                PathKind::TurnTls => &mut self.paths.turn_tls,
            };
            // Together they are `joined`: who joins again counts once.
            *count += u64::from(!std::mem::replace(&mut entry.path_counted, true));
        }
    }

    /// A join response came this long after TCP was connected.
    pub(crate) fn join_response(&mut self, waited: Duration) {
        self.join_response_wait_max = self.join_response_wait_max.max(waited);
    }

    /// The longest of [`Joins::join_response`].
    pub(crate) fn join_response_wait_max(&self) -> Duration {
        self.join_response_wait_max
    }

    /// A session ended: what it had made of the server's messages.
    pub(crate) fn session_ended(&mut self, counted: SessionCounters) {
        self.signalling.merge(&counted);
    }

    /// What was said of an error: the first of each kind is kept, of [`ERROR_TEXTS_MAX`] kinds.
    pub(crate) fn said(&mut self, error: &JoinError, detail: &str) {
        let kind = self.know(error);
        if self.error_texts.len() < ERROR_TEXTS_MAX && !self.error_texts.contains_key(&kind) {
            let text = one_line(detail).chars().take(ERROR_TEXT_CHARS_MAX).collect();
            self.error_texts.insert(kind, text);
        }
    }

    /// Its key, and from now on what it means.
    fn know(&mut self, error: &JoinError) -> String {
        let key = error.key().into_owned();
        self.classes.entry(key.clone()).or_insert_with(|| error.class());
        key
    }

    /// A try ended before it was told to; why goes into `join.errors`.
    pub(crate) fn broke(&mut self, id: ParticipantId, why: &JoinError) {
        let kind = self.know(why);
        if !self.closed {
            *self.errors.entry(kind).or_default() += 1;
            let entry = &mut self.entries[id.0];
            entry.broken = true;
            let absent = entry.absent.take();
            if absent.is_some() || entry.connected {
                entry.dropped_out = true;
                self.tries.drops += u64::from(!absent.is_some_and(|absent| absent.counted));
            } else {
                self.tries.tries_failed += 1;
            }
        }
        self.disconnected(id);
    }

    /// Its path is broken since then, and it is on its way back; nothing more if it was before.
    pub(crate) fn absent(
        &mut self,
        id: ParticipantId,
        why: &JoinError,
        since: Instant,
        on_purpose: bool,
    ) {
        self.know(why);
        let absent = Absent { why: why.clone(), since, on_purpose, counted: false };
        self.entries[id.0].absent.get_or_insert(absent);
    }

    /// Its session ended unasked and is not resumed; a new one will follow.
    pub(crate) fn fell_out(
        &mut self,
        id: ParticipantId,
        why: &JoinError,
        since: Instant,
        on_purpose: bool,
    ) {
        self.absent(id, why, since, on_purpose);
        if let Some(absent) = self.entries[id.0].absent.as_mut().filter(|_| !self.closed)
            && !on_purpose
        {
            *self.errors.entry(why.key().into_owned()).or_default() += 1;
            self.tries.drops += u64::from(!std::mem::replace(&mut absent.counted, true));
        }
        self.disconnected(id);
    }

    /// Session and media connection stand, or it is told to leave: it is not on its way back.
    pub(crate) fn stands(&mut self, id: ParticipantId) {
        self.entries[id.0].absent = None;
    }

    /// Its media connection stands again.
    pub(crate) fn connected_again(&mut self, id: ParticipantId) {
        let entry = &mut self.entries[id.0];
        if !self.closed && !std::mem::replace(&mut entry.connected, true) {
            self.connected[usize::from(entry.only_sends)] += 1;
        }
    }

    /// The run ends at `now`, before anybody is told to leave: who is on the way back has dropped
    /// out, unless it was thrown out on purpose just now, and participants between two tries have none
    /// before them. A join that is younger than `join_grace` had no time: it is pending, and not one
    /// that never ends.
    pub(crate) fn close(&mut self, now: Instant, join_grace: Duration) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        for entry in &mut self.entries {
            if let Some(absent) = entry.absent.take().filter(|_| !entry.over)
                && !(absent.on_purpose
                    && now.saturating_duration_since(absent.since) < ABSENT_GRACE)
            {
                entry.left_absent = true;
                if !absent.counted {
                    *self.errors.entry(absent.why.key().into_owned()).or_default() += 1;
                    self.tries.drops += 1;
                }
            }
            if let (Standing::Pending(_), Some(scheduled)) = (entry.standing(), entry.started) {
                // Who left as planned while it joined had no time either.
                let left = entry.over || entry.away;
                entry.failed |= entry.broken && !left;
                entry.overdue = !entry.broken
                    && !left
                    && now.saturating_duration_since(scheduled) >= join_grace;
            }
        }
    }

    /// It is not connected any more.
    pub(crate) fn disconnected(&mut self, id: ParticipantId) {
        let entry = &mut self.entries[id.0];
        if entry.connected {
            entry.connected = false;
            self.connected[usize::from(entry.only_sends)] -= 1;
        }
    }

    /// Another try of it begins.
    pub(crate) fn retried(&mut self, id: ParticipantId) {
        self.tries.retries += 1;
        let entry = &mut self.entries[id.0];
        (entry.broken, entry.step) = (false, Step::default());
        if !entry.has(JoinPhase::Dtls) {
            entry.path = PathKind::default();
        }
    }

    /// A session went on over a new websocket.
    pub(crate) fn resumed(&mut self) {
        self.tries.resumed += 1;
    }

    /// No try will follow. `gave_up` if the last one broke, rather than being told to leave.
    pub(crate) fn over(&mut self, id: ParticipantId, gave_up: bool) {
        let entry = &mut self.entries[id.0];
        if !entry.over {
            entry.over = true;
            self.over[usize::from(entry.only_sends)] += 1;
            self.away -= usize::from(std::mem::replace(&mut entry.away, false));
            if !self.closed {
                entry.failed = gave_up && !entry.has(JoinPhase::Dtls);
            }
        }
    }

    /// An error that belongs to no participant.
    pub(crate) fn error(&mut self, error: &JoinError) {
        let kind = self.know(error);
        *self.errors.entry(kind).or_default() += 1;
    }

    /// The server's version, as the first join response has it.
    pub(crate) fn server_version(&mut self, version: &str) {
        if self.server_version.is_none() && !version.is_empty() {
            self.server_version = Some(version.to_owned());
        }
    }

    /// What [`Joins::server_version`] was told.
    pub(crate) fn known_server_version(&self) -> Option<String> {
        self.server_version.clone()
    }

    /// Participants connected now.
    pub(crate) fn connected(&self) -> usize {
        self.connected[0] + self.connected[1]
    }

    /// Of those who only receive, how many are connected now.
    pub(crate) fn subscribers_connected(&self) -> usize {
        let sends_too = |entry: &&Entry| entry.receives() && entry.sends() && entry.connected;
        self.connected[0] - self.entries.iter().filter(sends_too).count()
    }

    /// Of those who send, how many joined at least once.
    pub(crate) fn senders_joined(&self) -> usize {
        let joined = |entry: &&Entry| entry.sends() && entry.has(JoinPhase::Dtls);
        self.entries.iter().filter(joined).count()
    }

    /// Of those who receive, how many joined at least once.
    pub(crate) fn receivers_joined(&self) -> usize {
        self.receivers_joined
    }

    /// True while somebody connected has not seen video yet that another one of us, who is connected,
    /// sends in the same room.
    pub(crate) fn waits_for_keyframes(&self) -> bool {
        let sends = |entry: &&Entry| entry.publishes[0] > 0 && entry.connected;
        let mut senders: HashMap<&Rc<str>, usize> = HashMap::new();
        for room in self.entries.iter().filter(sends).filter_map(|entry| entry.room.as_ref()) {
            *senders.entry(room).or_default() += 1;
        }
        self.entries.iter().any(|entry| {
            let there = entry.room.as_ref().and_then(|room| senders.get(room)).copied();
            let others = there.unwrap_or(0) - usize::from(sends(&entry));
            let waits = entry.receives() && entry.connected && entry.tracks[0] != Some(0);
            waits && others > 0 && !entry.has(JoinPhase::FirstKeyframe)
        })
    }

    /// True once every publisher is connected or has given up.
    pub(crate) fn publishers_settled(&self, publishers: usize) -> bool {
        self.connected[1] + self.over[1] >= publishers
    }

    /// True once every started participant is connected, away as planned, or has given up.
    pub(crate) fn settled(&self) -> bool {
        self.connected() + self.away + self.over[0] + self.over[1] >= self.started_total()
    }

    /// Participants that by plan are there now.
    pub(crate) fn planned(&self) -> usize {
        self.planned
    }

    /// True once nobody is left, or will come back, and not because all have left as planned.
    pub(crate) fn all_lost(&self) -> bool {
        let lost = |entry: &Entry| entry.failed || entry.dropped_out;
        self.all_over() && self.entries.iter().any(lost)
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

    /// All of it so far.
    pub(crate) fn live(&self) -> LiveJoins {
        let mut sum = JoinCounters {
            requested: self.entries.len() as u64,
            started: self.started_total() as u64,
            ..self.tries
        };
        let mut pending_at = PendingAt::default();
        for entry in &self.entries {
            sum.dropped += u64::from(entry.dropped_out || entry.left_absent);
            let place = match entry.standing() {
                Standing::Joined => &mut sum.joined,
                Standing::Failed => &mut sum.failed,
                Standing::NotStarted => &mut sum.not_started,
                Standing::Pending(Step::Websocket) => &mut pending_at.websocket,
                Standing::Pending(Step::Signal) => &mut pending_at.signal,
                Standing::Pending(Step::Ice) => &mut pending_at.ice,
                Standing::Pending(Step::Dtls) => &mut pending_at.dtls,
            };
            *place += 1;
        }
        sum.pending = pending_at.total();
        LiveJoins { counted: sum, pending_at, errors: self.errors.clone(), peak: self.peak as u64 }
    }

    /// Participants that were on their way back when the run ended.
    pub(crate) fn left_absent(&self) -> u64 {
        self.entries.iter().filter(|entry| entry.left_absent).count() as u64
    }

    /// Joins that failed or never ended, to which the bound applies as `bound` says. `cut_off`
    /// tells of each part of the subscribers whether something was done on purpose that keeps
    /// everything from them for a while.
    pub(crate) fn lost_joins(&self, bound: BoundJoins, cut_off: &[bool]) -> LostJoins {
        let mut lost = LostJoins::default();
        for entry in self.entries.iter().filter(|entry| entry.failed || entry.overdue) {
            let part = cut_off.get(usize::from(entry.cohort)).copied().unwrap_or(false);
            let on_purpose = part && entry.receives() && entry.cut_off();
            let bounded = if entry.failed { bound.failed } else { bound.pending };
            lost.all += 1;
            lost.on_purpose += u64::from(on_purpose);
            lost.bounded += u64::from(bounded && !on_purpose);
        }
        lost
    }

    /// The errors for the verdict: those that happened, commonest first, then others that were said
    /// or given as reasons.
    pub(crate) fn error_facts(&self) -> Vec<ErrorFact> {
        let counted = self.errors();
        let others = self.classes.keys().filter(|kind| !self.errors.contains_key(*kind));
        let all = counted.into_iter().chain(others.map(|kind| (kind.clone(), 0)));
        let fact = |(kind, count): (String, u64)| ErrorFact {
            class: self.classes.get(&kind).copied().unwrap_or_default(),
            said: self.error_texts.get(&kind).cloned(),
            kind,
            count,
        };
        all.map(fact).collect()
    }

    /// Error kinds with their counts, commonest first.
    pub(crate) fn errors(&self) -> Vec<(String, u64)> {
        let mut errors: Vec<_> =
            self.errors.iter().map(|(kind, count)| (kind.clone(), *count)).collect();
        errors.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        errors
    }

    /// Adds how long phases took.
    pub(crate) fn put(&self, to: &mut LiveDistributions) {
        let by_path = self.told_by_path().map(|(path, own)| (format!("join/{}", path.name()), own));
        for (of, phases) in [("join".to_owned(), &self.phases)].into_iter().chain(by_path) {
            for (name, samples) in PHASE_NAMES.iter().zip(phases) {
                to.put(format!("{of}/{name}"), samples.histogram());
            }
        }
    }

    /// Where all came by UDP it would say everything twice.
    fn told_by_path(&self) -> impl Iterator<Item = (PathKind, &[Samples; PHASES])> {
        let is_told = self.by_path.keys().any(|path| *path != PathKind::Udp);
        self.by_path.iter().filter(move |_| is_told).map(|(path, phases)| (*path, phases))
    }

    /// The report's section.
    pub(crate) fn section(&self) -> JoinSection {
        let LiveJoins { counted, pending_at, errors, peak } = self.live();
        JoinSection {
            counted,
            pending_at: Some(pending_at),
            errors,
            error_texts: self.error_texts.clone(),
            signalling: self.signalling,
            peak: Some(peak),
            paths: Some(self.paths),
            phases_ms: phases_ms(&self.phases),
            phases_ms_by_path: self
                .told_by_path()
                .map(|(path, phases)| (path.name().to_owned(), phases_ms(phases)))
                .collect(),
        }
    }
}

fn phases_ms(phases: &[Samples; PHASES]) -> Phases {
    let phase = |phase: JoinPhase| phases[phase as usize].as_ms();
    Phases {
        websocket: phase(JoinPhase::Websocket),
        signal: phase(JoinPhase::Signal),
        ice: phase(JoinPhase::Ice),
        dtls: phase(JoinPhase::Dtls),
        first_packet: phase(JoinPhase::FirstPacket),
        first_keyframe: phase(JoinPhase::FirstKeyframe),
    }
}

#[cfg(test)]
mod tests {
    use stampede_signaling::ErrorKind;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const GRACE: Duration = Duration::from_secs(5);

    #[test]
    fn so_many_error_texts_are_kept_each_of_so_many_characters() {
        let mut joins = Joins::default();
        let kind = |number: usize| format!("kind-{number}");
        joins.error_texts = (1..ERROR_TEXTS_MAX).map(|n| (kind(n), String::new())).collect();
        joins.said(&ErrorKind::MediaLost.into(), &"x".repeat(ERROR_TEXT_CHARS_MAX + 1));
        joins.said(&ErrorKind::Dns.into(), "one too many");
        joins.said(&ErrorKind::MediaLost.into(), "another of the same kind");
        assert_eq!(joins.error_texts.len(), ERROR_TEXTS_MAX);
        assert_eq!(joins.error_texts["media_lost"], "x".repeat(ERROR_TEXT_CHARS_MAX));
    }

    #[test]
    fn a_join_counts_once_and_its_first_times_only() {
        let mut joins = Joins::default();
        let id = joins.register(false);
        joins.started(id, Instant::now());
        joins.reached(id, JoinPhase::Websocket, MS);
        joins.reached(id, JoinPhase::Dtls, 2 * MS);
        joins.reached(id, JoinPhase::Dtls, 900 * MS);
        assert_eq!((joins.receivers_joined(), joins.connected(), joins.peak), (1, 1, 1));
        joins.broke(id, &ErrorKind::MediaLost.into());
        joins.retried(id);
        joins.started(id, Instant::now());
        joins.reached(id, JoinPhase::Dtls, 5_000 * MS);
        let section = joins.section();
        let joined = JoinCounters { requested: 1, started: 1, joined: 1, ..Default::default() };
        let expected = JoinCounters { dropped: 1, drops: 1, retries: 1, ..joined };
        assert_eq!(section.counted, expected);
        assert_eq!(section.errors["media_lost"], 1);
        let dtls = section.phases_ms.dtls.unwrap();
        assert_eq!((dtls.count, dtls.max), (1, 2.0));
        assert!(section.phases_ms.first_packet.is_none());
    }

    #[test]
    fn giving_up_before_joining_is_a_failure_and_settles() {
        let mut joins = Joins::default();
        let publisher = joins.register(true);
        let subscriber = joins.register(false);
        joins.started(publisher, Instant::now());
        joins.started(subscriber, Instant::now());
        assert!(!joins.publishers_settled(1) && !joins.settled());
        joins.broke(publisher, &ErrorKind::http(401).into());
        joins.over(publisher, true);
        joins.over(publisher, true);
        assert!(joins.publishers_settled(1) && !joins.settled() && !joins.all_over());
        joins.reached(subscriber, JoinPhase::Dtls, MS);
        assert!(joins.settled());
        joins.disconnected(subscriber);
        joins.over(subscriber, false);
        assert!(joins.all_over());
        let counted = joins.live().counted;
        assert_eq!((counted.failed, counted.dropped, counted.joined), (1, 0, 1));
        assert_eq!((joins.senders_joined(), joins.receivers_joined()), (0, 1));
    }

    /// A joins in which these steps were reached, each by one subscriber started at `begun`.
    fn book_of(begun: Instant, steps: &[Option<JoinPhase>]) -> (Joins, Vec<ParticipantId>) {
        let mut joins = Joins::default();
        let ids: Vec<_> = steps.iter().map(|_| joins.register(false)).collect();
        for (id, last) in ids.iter().zip(steps) {
            joins.started(*id, begun);
            for phase in [JoinPhase::Websocket, JoinPhase::Signal, JoinPhase::Ice, JoinPhase::Dtls]
            {
                if last.is_some_and(|last| phase as u8 <= last as u8) {
                    joins.reached(*id, phase, MS);
                }
            }
        }
        (joins, ids)
    }

    #[track_caller]
    fn assert_balanced(joins: &Joins) -> LiveJoins {
        let join = joins.live();
        let JoinCounters { requested, joined, failed, pending, not_started, .. } = join.counted;
        assert_eq!(requested, joined + failed + pending + not_started, "{join:?}");
        assert_eq!(join.pending_at.total(), pending, "{join:?}");
        join
    }

    #[test]
    fn whoever_is_still_joining_at_the_end_is_counted_with_its_step() {
        let begun = Instant::now();
        let steps = [
            None,
            Some(JoinPhase::Websocket),
            Some(JoinPhase::Signal),
            Some(JoinPhase::Ice),
            Some(JoinPhase::Dtls),
        ];
        let (mut joins, ids) = book_of(begun, &steps);
        joins.register(false);
        let join = assert_balanced(&joins);
        let at = PendingAt { websocket: 1, signal: 1, ice: 1, dtls: 1 };
        let counted = join.counted;
        assert_eq!((join.pending_at, counted.joined, counted.not_started), (at, 1, 1));
        joins.close(begun + GRACE, GRACE);
        let bound = BoundJoins { failed: true, pending: true };
        let lost = LostJoins { all: 4, on_purpose: 0, bounded: 4 };
        assert_eq!(joins.lost_joins(bound, &[]), lost);
        // An outage of ours explains those that waited for what it kept away.
        let lost = joins.lost_joins(BoundJoins { pending: false, ..bound }, &[true]);
        assert_eq!(lost, LostJoins { all: 4, on_purpose: 2, bounded: 0 });
        // Told to leave, or connected after all: the books stay as they were.
        joins.reached(ids[3], JoinPhase::Dtls, MS);
        for id in ids {
            joins.over(id, true);
        }
        assert_eq!(assert_balanced(&joins).pending_at, at);
    }

    #[test]
    fn a_join_that_had_no_time_is_pending_and_held_against_nobody() {
        let begun = Instant::now();
        let (mut joins, _) = book_of(begun, &[Some(JoinPhase::Signal); 3]);
        joins.close(begun + GRACE - MS, GRACE);
        assert_eq!(assert_balanced(&joins).counted.pending, 3);
        let bound = BoundJoins { failed: true, pending: true };
        assert_eq!(joins.lost_joins(bound, &[]), LostJoins::default());
    }

    #[test]
    fn participants_are_counted_and_their_tries_apart() {
        let begun = Instant::now();
        let (mut joins, ids) =
            book_of(begun, &[None, Some(JoinPhase::Dtls), Some(JoinPhase::Dtls)]);
        for _ in 0..3 {
            joins.broke(ids[0], &ErrorKind::http(503).into());
            joins.retried(ids[0]);
            joins.reached(ids[1], JoinPhase::Dtls, MS);
            joins.broke(ids[1], &ErrorKind::MediaLost.into());
            joins.retried(ids[1]);
        }
        joins.reached(ids[0], JoinPhase::Websocket, MS);
        assert_eq!(assert_balanced(&joins).pending_at.signal, 1);
        joins.broke(ids[0], &ErrorKind::http(503).into());
        // A pause between two tries is the end of the last one, if the run ends in it.
        assert_eq!(assert_balanced(&joins).pending_at.websocket, 1);
        // One is on its way back, and one that was is back.
        joins.absent(ids[2], &ErrorKind::SignalLost.into(), begun, false);
        joins.close(begun + MS, GRACE);
        let join = assert_balanced(&joins);
        let counted = join.counted;
        assert_eq!((counted.joined, counted.failed, counted.pending), (2, 1, 0));
        assert_eq!((counted.dropped, counted.drops, counted.tries_failed), (2, 4, 4));
        assert_eq!(join.errors["signal_lost"], 1);
        assert_eq!(joins.left_absent(), 1);
        let (mut joins, ids) = book_of(begun, &[Some(JoinPhase::Dtls)]);
        joins.absent(ids[0], &ErrorKind::SignalLost.into(), begun, false);
        joins.resumed();
        joins.stands(ids[0]);
        joins.close(begun + MS, GRACE);
        assert_eq!((joins.live().counted.dropped, joins.live().counted.resumed), (0, 1));
    }

    #[test]
    fn what_a_full_reconnect_makes_up_for_is_a_drop_and_nobody_dropped() {
        let begun = Instant::now();
        let (mut joins, ids) = book_of(begun, &[Some(JoinPhase::Dtls); 3]);
        let lost = ErrorKind::MediaLost.into();
        joins.fell_out(ids[0], &lost, begun, false);
        joins.fell_out(ids[1], &lost, begun, true);
        assert_eq!((joins.connected(), joins.errors()), (1, vec![("media_lost".to_owned(), 1)]));
        joins.reached(ids[0], JoinPhase::Dtls, MS);
        joins.stands(ids[0]);
        // One that was thrown out on purpose, just now and then for long, and gives up.
        let mut later = Joins { entries: joins.entries.clone(), ..Joins::default() };
        later.close(begun + ABSENT_GRACE, GRACE);
        assert_eq!((later.left_absent(), later.live().counted.dropped), (1, 1));
        joins.broke(ids[2], &lost);
        joins.close(begun + MS, GRACE);
        let counted = assert_balanced(&joins).counted;
        assert_eq!((counted.dropped, counted.drops, joins.left_absent()), (1, 2, 0));
        assert_eq!((counted.joined, joins.connected()), (3, 1));
    }

    #[test]
    fn who_comes_and_goes_as_planned_is_never_lost() {
        let begun = Instant::now();
        let (mut joins, ids) = book_of(begun, &[Some(JoinPhase::Dtls); 2]);
        assert_eq!(joins.planned(), 2);
        joins.disconnected(ids[0]);
        joins.leaves(ids[0], true);
        assert!(joins.settled() && !joins.all_over());
        assert_eq!((joins.planned(), joins.connected()), (1, 1));
        joins.rejoins(ids[0], begun);
        assert!(!joins.settled());
        assert_eq!((joins.planned(), assert_balanced(&joins).counted.pending), (2, 1));
        joins.reached(ids[0], JoinPhase::Dtls, MS);
        joins.disconnected(ids[1]);
        joins.leaves(ids[1], false);
        joins.over(ids[1], false);
        joins.close(begun + MS, GRACE);
        let counted = assert_balanced(&joins).counted;
        assert_eq!((counted.leaves, counted.rejoins, counted.joined), (2, 1, 2));
        assert_eq!((counted.dropped, joins.planned()), (0, 1));
        // Each visit is a join of its own.
        assert_eq!(joins.section().phases_ms.dtls.unwrap().count, 3);
    }

    #[test]
    fn tracks_are_expected_of_those_in_the_measured_window() {
        let mut joins = Joins::default();
        let ids: Vec<_> = (0..4).map(|number| joins.register(number == 0)).collect();
        let room: Rc<str> = "room".into();
        for id in &ids[1..] {
            joins.expect(*id, &room, 0, [Some(2), Some(1)]);
        }
        for id in &ids[..3] {
            joins.started(*id, Instant::now());
            joins.reached(*id, JoinPhase::Dtls, MS);
        }
        assert_eq!(joins.tracks_expected(), [Some(4), Some(2)]);
        joins.disconnected(ids[1]);
        joins.over(ids[1], false);
        joins.window_begins();
        assert_eq!(joins.tracks_expected(), [Some(2), Some(1)]);
        joins.reached(ids[3], JoinPhase::Dtls, MS);
        assert_eq!(joins.tracks_expected(), [Some(4), Some(2)]);
        joins.expect(ids[3], &room, 1, [None, Some(1)]);
        assert_eq!(joins.tracks_expected(), [None, Some(2)]);
    }

    #[test]
    fn who_sends_and_receives_misses_the_others_and_not_itself() {
        let mut joins = Joins::default();
        let room: Rc<str> = "room".into();
        let all: Vec<_> = (0..3).map(|_| joins.register(false)).collect();
        for id in &all {
            joins.expect(*id, &room, 0, [Some(2), Some(2)]);
            joins.publishes(*id, &room, [1, 1]);
            joins.started(*id, Instant::now());
        }
        joins.reached(all[0], JoinPhase::Dtls, MS);
        assert!(!joins.waits_for_keyframes(), "nobody sends but itself");
        joins.reached(all[1], JoinPhase::Dtls, MS);
        assert!(joins.waits_for_keyframes());
        // Two are there, and each misses the third.
        assert_eq!(joins.tracks_discounted(), [2, 2]);
        joins.reached(all[2], JoinPhase::Dtls, MS);
        assert_eq!(joins.tracks_discounted(), [0, 0]);
        for id in &all {
            joins.reached(*id, JoinPhase::FirstKeyframe, MS);
        }
        assert!(!joins.waits_for_keyframes());
        // One drops out: it gets nothing, and the two others lack it.
        joins.broke(all[2], &ErrorKind::MediaLost.into());
        assert_eq!(joins.tracks_discounted(), [4, 4]);
    }

    #[test]
    fn tracks_of_those_who_were_not_there_are_excused() {
        let mut joins = Joins::default();
        let [room, other]: [Rc<str>; 2] = ["room".into(), "other".into()];
        let publishers: Vec<_> = (0..3).map(|_| joins.register(true)).collect();
        for (number, id) in publishers.iter().enumerate() {
            joins.publishes(*id, if number < 2 { &room } else { &other }, [1, 1]);
            joins.started(*id, Instant::now());
        }
        joins.reached(publishers[0], JoinPhase::Dtls, MS);
        let viewers: Vec<_> = (0..3).map(|_| joins.register(false)).collect();
        for (number, id) in viewers.iter().enumerate() {
            joins.expect(*id, if number < 2 { &room } else { &other }, 0, [Some(2), Some(2)]);
            joins.started(*id, Instant::now());
            joins.reached(*id, JoinPhase::Dtls, MS);
        }
        // Two miss the second publisher, one the third; then one of the two drops out.
        assert_eq!(joins.tracks_discounted(), [3, 3]);
        joins.broke(viewers[0], &ErrorKind::MediaLost.into());
        assert_eq!(joins.tracks_discounted(), [4, 4]);
        joins.reached(publishers[1], JoinPhase::Dtls, MS);
        assert_eq!(joins.tracks_discounted(), [3, 3]);
        joins.broke(publishers[0], &ErrorKind::MediaLost.into());
        assert_eq!(joins.tracks_discounted(), [4, 4]);
    }

    #[test]
    fn errors_come_commonest_first() {
        let mut joins = Joins::default();
        for kind in ["a", "b", "b", "c", "c", "c"] {
            joins.error(&JoinError::Subscription(kind.to_owned()));
        }
        let errors: Vec<_> = joins.errors();
        assert_eq!(errors[0], ("subscription_c".to_owned(), 3));
        assert_eq!(errors[2], ("subscription_a".to_owned(), 1));
    }

    #[test]
    fn identities_of_further_tries_belong_to_the_first() {
        for (identity, first) in
            [("sub-1-try2", "sub-1"), ("sub-1", "sub-1"), ("a-tryout", "a-tryout"), ("-try3", "")]
        {
            assert_eq!(of_first_try(identity), first);
        }
    }
}
