//! Rooms and participants: what signalling knows. Lives behind one mutex on the signalling
//! thread; nothing here waits, and what time it is is told ([`Hub::begin_turn`]).

mod backups;
mod bandwidth;
mod codecs;
mod data_tracks;
mod events;
pub(crate) mod messages;
mod moves;
pub(crate) mod outbox;
mod requests;
mod resume;
mod room;
mod service;
mod session;
mod simulate;
mod subscriptions;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use livekit_token::Claims;
use proto::signal_response::Message;
use rustc_hash::FxHashMap;
use stampede_counters::{AttendanceCounters, SfuSignallingCounters};
use stampede_impair::{Rng, seeded};

use self::data_tracks::DataTracks;
use self::messages::Relaying;
pub(crate) use self::moves::MoveError;
use self::outbox::{Hangup, Outbox, SignalKey};
pub(crate) use self::resume::UnknownParticipant;
use self::room::{Participant, Room, RoomTrack, Setting, Signal};
use self::session::{Overdue, Session};
use crate::faults::Refusals;
use crate::ledger::{Ledger, RoomLedger};
use crate::limits;
use crate::media::handle::WorkerHandle;
use crate::media::message::{Command, PeerKey, Role, TrackKey};

/// Participants without tracks that a room announces to the others. LiveKit announces all, which
/// is O(N²) messages; beyond this number only the count grows. A publisher is always announced.
const ANNOUNCED_SUBSCRIBERS_MAX: usize = 200;

/// Names of closed rooms whose counts are remembered; the oldest is forgotten.
const CLOSED_ROOMS_MAX: usize = 1_000;

/// Offers of a participant that a media worker has not answered, beyond which nothing more is read of it. A
/// client has one out, or a few if it does not wait.
const OFFERS_OUT_MAX: u32 = 4;

/// All rooms.
pub(crate) struct Hub {
    /// The time of this turn.
    now: Instant,
    departure_time: Duration,
    rooms: HashMap<String, Room>,
    /// Whose peer connection a key is: room, participant sid, role.
    peers: FxHashMap<PeerKey, (String, Arc<str>, Role)>,
    /// Whose websocket a key is. One that is not in it has been taken from its participant.
    signals: FxHashMap<SignalKey, Place>,
    workers: Vec<WorkerHandle>,
    /// Participants a worker carries.
    load: Vec<usize>,
    /// Of each room, kept after it closed.
    counts: HashMap<String, AttendanceCounters>,
    closed: VecDeque<String>,
    counted: SfuSignallingCounters,
    /// What workers were asked to do.
    commands: Cell<u64>,
    refusals: Refusals,
    next_key: u64,
    rng: Rng,
    /// What clients are told of how else they may be reached.
    pub(crate) relaying: Relaying,
}

/// What requests cost beside reading them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Caused {
    /// Bytes that everybody in a room was sent, once for each of them.
    pub(crate) told_bytes: u64,
    /// What media workers were asked to do.
    pub(crate) commands: u64,
}

impl Caused {
    /// What is new of it.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            told_bytes: self.told_bytes.saturating_sub(earlier.told_bytes),
            commands: self.commands.saturating_sub(earlier.commands),
        }
    }
}

/// What a client asks for when it connects.
#[derive(Debug, Clone)]
pub(crate) struct JoinRequest {
    pub(crate) claims: Claims,
    pub(crate) connections: Connections,
    pub(crate) auto_subscribe: bool,
    pub(crate) auto_subscribe_data_track: bool,
    /// What it says of itself.
    pub(crate) client: Client,
    pub(crate) adaptive_stream: bool,
    /// Video that does not fit the way to it may be paused.
    pub(crate) allow_pause: bool,
    pub(crate) sdk: String,
}

/// What others are told of a client's abilities.
#[derive(Debug, Clone, Default)]
pub(crate) struct Client {
    /// Which protocol between clients it speaks.
    pub(crate) protocol: i32,
    pub(crate) capabilities: Vec<i32>,
}

/// Which peer connections a client has.
#[derive(Debug, Clone)]
pub(crate) enum Connections {
    /// One for each direction (v0); the client speaks this protocol.
    Dual { protocol: i32 },
    /// One for both (v1), perhaps with a first offer and tracks that it will publish.
    Single { offer: Option<proto::SessionDescription>, tracks: Vec<proto::AddTrackRequest> },
}

/// Where a participant is to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    room: String,
    sid: Arc<str>,
}

/// What was a participant's in a room that it leaves.
struct Left {
    participant: Participant,
    tracks: Vec<(TrackKey, RoomTrack)>,
}

impl Hub {
    /// Without rooms; `seed` is of the ids, which are to differ from those of other runs. Whose media
    /// is lost may resume for `departure_time`.
    pub(crate) fn new(
        workers: Vec<WorkerHandle>,
        refusals: Refusals,
        departure_time: Duration,
        seed: u64,
        now: Instant,
    ) -> Self {
        Self {
            now,
            departure_time,
            signals: FxHashMap::default(),
            rooms: HashMap::new(),
            peers: FxHashMap::default(),
            load: vec![0; workers.len()],
            workers,
            counts: HashMap::new(),
            closed: VecDeque::new(),
            counted: SfuSignallingCounters::default(),
            commands: Cell::new(0),
            refusals,
            next_key: 0,
            rng: seeded(seed, "sid"),
            relaying: Relaying::default(),
        }
    }

    /// It is so late now.
    pub(crate) fn begin_turn(&mut self, now: Instant) {
        self.now = now;
    }

    /// Whether the next join is refused on purpose.
    pub(crate) fn refuses(&mut self) -> bool {
        let refused = self.refusals.next();
        self.counted.joins_refused += u64::from(refused);
        refused
    }

    /// A join was refused for its token.
    pub(crate) fn count_refused_join(&mut self) {
        self.counted.joins_refused += 1;
    }

    /// A client's signalling connection was closed because it read too slowly.
    pub(crate) fn count_signalling_overflow(&mut self) {
        self.counted.signalling_overflows += 1;
    }

    /// A client's signalling connection was closed because it answered no pings.
    pub(crate) fn count_signalling_timeout(&mut self) {
        self.counted.signalling_timeouts += 1;
    }

    /// A participant asks for so much that it is read later.
    pub(crate) fn count_delayed_requests(&mut self) {
        self.counted.requests_delayed += 1;
    }

    /// Whether as many offers of this websocket's participant wait for a media worker as may: each of them may
    /// be large, and a worker takes a while for it that media then waits.
    pub(crate) fn offers_wait(&self, signal: SignalKey) -> bool {
        let Some(Place { room, sid }) = self.signals.get(&signal) else { return false };
        let participant = self.rooms.get(room).and_then(|room| room.participants.get(sid));
        participant.is_some_and(|participant| participant.offers_out >= OFFERS_OUT_MAX)
    }

    /// What was done so far for everybody, as far as it may be this websocket's participant's doing.
    pub(crate) fn caused(&self, signal: SignalKey) -> Caused {
        let room = self.signals.get(&signal).and_then(|place| self.rooms.get(&place.room));
        let told_bytes = room.map_or(0, |room| room.told_bytes.get());
        Caused { told_bytes, commands: self.commands.get() }
    }

    /// A connection was closed before it joined, because something took too long.
    pub(crate) fn count_connection_timeout(&mut self) {
        self.counted.connections_timed_out += 1;
    }

    /// A connection was closed before it joined, because another one needed its place.
    pub(crate) fn count_displaced_connection(&mut self) {
        self.counted.connections_displaced += 1;
    }

    /// What signalling knows of the ledger: everything but the tracks and workers.
    pub(crate) fn ledger(&self) -> Ledger {
        let rooms = self.counts.iter().map(|(name, counts)| {
            let open = self.rooms.get(name);
            RoomLedger {
                room: name.clone(),
                open: open.is_some(),
                participants: open.map_or(0, |room| room.participants.len() as u64),
                attendance: *counts,
                ..RoomLedger::default()
            }
        });
        let mut rooms: Vec<RoomLedger> = rooms.collect();
        rooms.sort_by(|a, b| a.room.cmp(&b.room));
        Ledger { signalling: self.counted, rooms, ..Ledger::default() }
    }

    /// How many there are: participants, rooms, known peers and websockets, and whom workers carry.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn census(&self) -> [usize; 5] {
        let participants = self.rooms.values().map(|room| room.participants.len()).sum();
        let load = self.load.iter().sum();
        [participants, self.rooms.len(), self.peers.len(), self.signals.len(), load]
    }

    fn next_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    /// An id like LiveKit's: a prefix and 12 letters and digits (`protocol/utils/id.go`).
    fn id(&mut self, prefix: &str) -> String {
        const LETTERS: &[u8] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
        let mut id = prefix.to_owned();
        for _ in 0..12 {
            let letter = self.rng.usize(..LETTERS.len());
            id.push(char::from(LETTERS[letter]));
        }
        id
    }

    /// Finds or makes a room.
    fn room(&mut self, name: &str) -> &mut Room {
        let now = self.now;
        if !self.rooms.contains_key(name) {
            let sid = self.id("RM_");
            self.counts.entry(name.to_owned()).or_default();
            self.rooms.insert(name.to_owned(), Room::new(sid, name, now));
        }
        // Inserted above if it was not there.
        self.rooms.entry(name.to_owned()).or_insert_with(|| Room::new(String::new(), name, now))
    }

    /// Adds a participant, evicting one of the same identity, and makes the peer that sends to it.
    pub(crate) fn join(
        &mut self,
        request: JoinRequest,
        outbox: Outbox,
    ) -> Result<SignalKey, proto::DisconnectReason> {
        let name = request.claims.video.room.clone();
        let identity: Arc<str> = request.claims.sub.as_str().into();
        let duplicate = self.rooms.get(&name).and_then(|room| room.identities.get(&identity));
        if let Some(sid) = duplicate.cloned() {
            self.remove(&name, &sid, proto::DisconnectReason::DuplicateIdentity, true);
        }
        if self.is_full() || !self.has_room_for(&name, 1) {
            self.counted.joins_refused += 1;
            return Err(proto::DisconnectReason::JoinFailure);
        }
        let sid: Arc<str> = self.id("PA_").into();
        let worker = self.least_loaded();
        self.load[worker] += 1;
        self.counted.attendance.joins += 1;
        self.counts.entry(name.clone()).or_default().joins += 1;
        let can_subscribe = request.claims.video.can_subscribe.unwrap_or(true);
        let subscriber_primary = match &request.connections {
            Connections::Dual { protocol } => *protocol >= 3 && can_subscribe,
            Connections::Single { .. } => false,
        };
        let key = SignalKey(self.next_key());
        self.signals.insert(key, Place { room: name.clone(), sid: sid.clone() });
        let participant = Participant {
            info: proto::ParticipantInfo {
                client_protocol: request.client.protocol,
                capabilities: messages::known_capabilities(request.client.capabilities),
                ..messages::participant_info(&request.claims, &sid)
            },
            claims: request.claims,
            signal: Some(Signal { key, outbox }),
            session: Session::new(self.now),
            worker,
            publisher: None,
            subscriber: None,
            single: matches!(request.connections, Connections::Single { .. }),
            subscriber_primary,
            auto_subscribe: request.auto_subscribe,
            allow_pause: request.allow_pause,
            data_tracks: DataTracks::new(request.auto_subscribe_data_track),
            announced: false,
            tracks: Vec::new(),
            pending: Vec::new(),
            mids: HashMap::new(),
            subscriptions: HashMap::new(),
            trickled: [false; 2],
            offers_out: 0,
            bandwidth_bps: None,
        };
        let told = messages::join_response(&self.relaying);
        let room = self.room(&name);
        room.empty_since = None;
        room.had_participants = true;
        participant.send(Message::Join(proto::JoinResponse {
            room: Some(room.current()),
            participant: Some(participant.info.clone()),
            other_participants: room.visible().cloned().collect(),
            subscriber_primary: participant.subscriber_primary,
            fast_publish: participant.grants().can_publish.unwrap_or(true),
            ..told
        }));
        room.identities.insert(identity.clone(), sid.clone());
        room.participants.insert(sid.clone(), participant);
        tracing::info!(room = name, %identity, sdk = request.sdk, worker, "joined");
        let limit = if request.adaptive_stream { 0 } else { 2 };
        match request.connections {
            Connections::Dual { .. } => {
                if can_subscribe {
                    self.add_sender(&name, &sid, Role::Subscriber, limit);
                }
                self.announce(&name, &sid);
            }
            Connections::Single { offer, tracks } => {
                self.counted.joins_v1 += 1;
                // What is done to what is sent to others is not done to who gets nothing.
                let role = if can_subscribe { Role::Single } else { Role::Publisher };
                self.add_sender(&name, &sid, role, limit);
                self.announce(&name, &sid);
                let who = Place { room: name, sid };
                for track in &tracks {
                    self.add_track(&who, track);
                }
                if let Some(offer) = offer {
                    self.offer(&who, offer);
                }
            }
        }
        Ok(key)
    }

    /// Whether there are as many participants as there may be.
    fn is_full(&self) -> bool {
        self.load.iter().sum::<usize>() >= limits::PARTICIPANTS_MAX
    }

    /// Whether so many more may be in the room of this name, which may have to be made.
    fn has_room_for(&self, name: &str, more: usize) -> bool {
        let Some(room) = self.rooms.get(name) else { return self.rooms.len() < limits::ROOMS_MAX };
        let max = room.info.max_participants as usize;
        max == 0 || room.participants.len() + more <= max
    }

    fn least_loaded(&self) -> usize {
        let load = self.load.iter().enumerate().min_by_key(|(_, load)| **load);
        load.map_or(0, |(worker, _)| worker)
    }

    /// Makes the peer that sends to a participant, at first the tracks that are there.
    fn add_sender(&mut self, name: &str, sid: &Arc<str>, role: Role, limit: u8) {
        let peer = PeerKey(self.next_key());
        let Some(room) = self.rooms.get_mut(name) else { return };
        let published: Vec<TrackKey> = room.published().collect();
        let Some(participant) = room.participants.get_mut(sid) else { return };
        if role.receives() {
            participant.publisher = Some(peer);
        }
        if participant.grants().can_subscribe.unwrap_or(true) {
            participant.subscriber = Some(peer);
        }
        let worker = participant.worker;
        let label = participant.label();
        let allow_pause = participant.allow_pause;
        let mut tracks = Vec::new();
        if participant.auto_subscribe && participant.subscriber.is_some() {
            let setting = Setting::upto(limit);
            for key in published {
                let Some(track) = room.tracks.get_mut(&key) else { continue };
                participant.subscriptions.insert(key, setting);
                tracks.push(track.offer(key, setting));
                track.add_subscriber(key, worker, &self.workers);
            }
        }
        self.peers.insert(peer, (name.to_owned(), sid.clone(), role));
        self.command(worker, Command::AddPeer { peer, role, label, tracks, allow_pause });
    }

    fn command(&self, worker: usize, command: Command) {
        self.commands.set(self.commands.get() + 1);
        if let Some(worker) = self.workers.get(worker) {
            worker.command(command);
        }
    }

    /// Removes a participant with everything of it. `tell` sends it a leave message.
    pub(crate) fn remove(
        &mut self,
        name: &str,
        sid: &str,
        reason: proto::DisconnectReason,
        tell: bool,
    ) {
        let Some(Left { mut participant, .. }) = self.detach(name, sid, reason) else { return };
        if tell {
            participant.send(Message::Leave(messages::leave(reason)));
        }
        let why = match reason {
            proto::DisconnectReason::ServerShutdown => Hangup::ServerEnds,
            _ => Hangup::Over,
        };
        if let Some(key) = participant.hang_up(why) {
            self.signals.remove(&key);
        }
        for (peer, _) in participant.peers() {
            self.peers.remove(&peer);
            self.command(participant.worker, Command::RemovePeer(peer));
        }
        self.load[participant.worker] = self.load[participant.worker].saturating_sub(1);
    }

    /// Takes a participant out of a room with everything that is of both, and tells the others.
    fn detach(&mut self, name: &str, sid: &str, reason: proto::DisconnectReason) -> Option<Left> {
        let room = self.rooms.get_mut(name)?;
        let mut participant = room.participants.remove(sid)?;
        let identity = participant.info.identity.as_str();
        if room.identities.get(identity).is_some_and(|known| **known == *sid) {
            room.identities.remove(identity);
        }
        let mut own: Vec<TrackKey> = Vec::new();
        for key in participant.subscriptions.keys() {
            own.push(room.own(*key));
            if let Some(track) = room.tracks.get_mut(key) {
                track.remove_subscriber(*key, participant.worker, &self.workers);
            }
        }
        for key in own {
            self.follow_codecs(name, key);
        }
        self.leave_data_tracks(name, &mut participant);
        // Backups stand behind what they are backups of, which would take them along.
        let keys = std::mem::take(&mut participant.tracks).into_iter().rev();
        let tracks = keys.filter_map(|key| Some((key, self.unpublish(name, key)?))).collect();
        self.counted.attendance.leaves += 1;
        self.counts.entry(name.to_owned()).or_default().leaves += 1;
        tracing::info!(room = name, identity = participant.info.identity, ?reason, "left");
        if participant.announced {
            self.announce_removed(
                name,
                proto::ParticipantInfo {
                    state: proto::participant_info::State::Disconnected as i32,
                    disconnect_reason: reason as i32,
                    tracks: Vec::new(),
                    version: participant.info.version + 1,
                    ..participant.info.clone()
                },
            );
        }
        if let Some(room) = self.rooms.get_mut(name)
            && room.participants.is_empty()
        {
            room.empty_since = Some(self.now);
        }
        Some(Left { participant, tracks })
    }

    /// Tells the others that a participant they knew of is gone.
    fn announce_removed(&mut self, name: &str, info: proto::ParticipantInfo) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        room.note_departed(info.clone(), self.now);
        if info.is_publisher {
            room.broadcast(&Message::Update(messages::update(vec![info])), None);
        } else {
            room.announced_subscribers = room.announced_subscribers.saturating_sub(1);
            room.wait_update(info, self.now);
        }
    }

    /// Tells the others about a participant: publishers at once, others soon and together.
    fn announce(&mut self, name: &str, sid: &str) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let Some(participant) = room.participants.get_mut(sid) else { return };
        if participant.grants().hidden {
            return;
        }
        participant.info.version += 1;
        let info = participant.info.clone();
        if info.is_publisher {
            participant.announced = true;
            // What waits of it is older.
            room.waiting_updates.retain(|waiting| waiting.sid != info.sid);
            room.broadcast(&Message::Update(messages::update(vec![info])), Some(sid));
            return;
        }
        if !participant.announced {
            if room.announced_subscribers >= ANNOUNCED_SUBSCRIBERS_MAX {
                return;
            }
            room.announced_subscribers += 1;
            participant.announced = true;
        }
        room.wait_update(info, self.now);
    }

    /// Tells everybody at once what a participant that they know of has changed of itself (LiveKit
    /// `pkg/rtc/room.go`, `onParticipantUpdate`).
    fn announce_update(&mut self, name: &str, sid: &str) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let Some(participant) = room.participants.get_mut(sid) else { return };
        if !participant.announced {
            return self.announce(name, sid);
        }
        participant.info.version += 1;
        let info = participant.info.clone();
        // What waits of it is older.
        room.waiting_updates.retain(|waiting| waiting.sid != info.sid);
        room.broadcast(&Message::Update(messages::update(vec![info])), None);
    }

    /// What is due by time: participants whose time is up, joined updates, room counts, empty rooms.
    pub(crate) fn tick(&mut self) {
        let now = self.now;
        self.end_overdue();
        for room in self.rooms.values_mut() {
            room.flush_updates(now);
            room.send_counts(now);
        }
        let ended: Vec<String> = self
            .rooms
            .iter()
            .filter(|(_, room)| room.is_over(now))
            .map(|(name, _)| name.clone())
            .collect();
        for name in ended {
            self.close_room(&name);
        }
    }

    /// Ends who is overdue, and the simulated speech of who has spoken long enough.
    fn end_overdue(&mut self) {
        let mut overdue = Vec::new();
        let mut silent = Vec::new();
        for (name, room) in &mut self.rooms {
            for (sid, participant) in &mut room.participants {
                if let Some(why) = participant.session.overdue(self.now) {
                    overdue.push((name.clone(), sid.clone(), why));
                } else if participant.session.take_silence(self.now) {
                    silent.push((name.clone(), sid.clone()));
                }
            }
        }
        for (name, sid) in silent {
            self.tell_speaker(&name, &sid, 0.0);
        }
        for (name, sid, why) in overdue {
            let reason = match why {
                Overdue::NeverConnected => {
                    self.counted.joins_timed_out += 1;
                    proto::DisconnectReason::JoinFailure
                }
                Overdue::Departed => {
                    self.counted.departures += 1;
                    proto::DisconnectReason::ConnectionTimeout
                }
            };
            self.remove(&name, &sid, reason, true);
        }
    }

    /// Forgets an empty room but its counts.
    fn close_room(&mut self, name: &str) {
        if self.rooms.remove(name).is_none() {
            return;
        }
        tracing::info!(room = name, "closed");
        self.closed.retain(|closed| closed != name);
        self.closed.push_back(name.to_owned());
        if self.closed.len() > CLOSED_ROOMS_MAX
            && let Some(oldest) = self.closed.pop_front()
            && !self.rooms.contains_key(&oldest)
        {
            self.counts.remove(&oldest);
        }
    }
}
