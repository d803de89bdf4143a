//! Rooms and participants: what signalling knows. Lives behind one mutex on the signalling
//! thread; nothing here waits.

mod events;
pub(crate) mod messages;
mod requests;
mod service;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use livekit_protocol as proto;
use livekit_token::{Claims, VideoGrants};
use proto::signal_response::Message;
use rustc_hash::FxHashMap;
use stampede_core::MediaKind;
use stampede_counters::{AttendanceCounters, SfuSignallingCounters};
use stampede_impair::{Rng, seeded};
use tokio::sync::{Notify, mpsc};

use crate::faults::Refusals;
use crate::ledger::{Ledger, RoomLedger};
use crate::media::handle::WorkerHandle;
use crate::media::message::{Command, PeerKey, PeerLabel, Role, TrackKey, TrackOffer};

/// Signalling messages waiting for one client at most (LiveKit `routing/messagechannel.go`).
/// A client that reads so slowly that it is full loses its signalling connection.
pub(crate) const OUTBOX_MESSAGES_MAX: usize = 200;

/// Participants without tracks that a room announces to the others. LiveKit announces all, which
/// is O(N²) messages; beyond this number only the count grows. A publisher is always announced.
const ANNOUNCED_SUBSCRIBERS_MAX: usize = 200;

/// Joins and leaves of participants without tracks are announced this much later, together
/// (LiveKit `pkg/rtc/room.go`, `subscriberUpdateInterval`).
const UPDATE_INTERVAL: Duration = Duration::from_secs(3);

/// A room's counts are sent at most this often, when they changed (LiveKit `pkg/rtc/room.go`).
const COUNTS_INTERVAL: Duration = Duration::from_secs(5);

/// Names of closed rooms whose counts are remembered; the oldest is forgotten.
const CLOSED_ROOMS_MAX: usize = 1_000;

/// What a WebSocket task is told to do.
#[derive(Debug)]
pub(crate) enum OutboxItem {
    /// Send this binary frame.
    Frame(Bytes),
    /// Close the connection.
    Close,
}

/// The way to one client's WebSocket task.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    pub(crate) queue: mpsc::Sender<OutboxItem>,
    /// Told when the queue was full: the task then closes the connection.
    pub(crate) overflow: Arc<Notify>,
}

impl Outbox {
    fn push(&self, item: OutboxItem) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(item) {
            self.overflow.notify_one();
        }
    }
}

/// All rooms.
pub(crate) struct Hub {
    rooms: HashMap<String, Room>,
    /// Whose peer connection a key is: room, participant sid, role.
    peers: FxHashMap<PeerKey, (String, Arc<str>, Role)>,
    workers: Vec<WorkerHandle>,
    /// Participants a worker carries.
    load: Vec<usize>,
    /// Of each room, kept after it closed.
    counts: HashMap<String, AttendanceCounters>,
    closed: VecDeque<String>,
    counted: SfuSignallingCounters,
    refusals: Refusals,
    next_key: u64,
    rng: Rng,
}

/// One room.
struct Room {
    info: proto::Room,
    participants: BTreeMap<Arc<str>, Participant>,
    /// Identity to sid.
    identities: HashMap<Arc<str>, Arc<str>>,
    tracks: BTreeMap<TrackKey, RoomTrack>,
    /// Updates of participants without tracks that wait.
    waiting_updates: Vec<proto::ParticipantInfo>,
    updates_due: Option<Instant>,
    announced_subscribers: usize,
    empty_since: Option<Instant>,
    had_participants: bool,
    counts_sent: (u32, u32),
    counts_due: Instant,
}

/// A published track.
struct RoomTrack {
    sid: Arc<str>,
    publisher: Arc<str>,
    kind: MediaKind,
    home: usize,
    info: proto::TrackInfo,
    /// Subscribers on each worker.
    subscribers: Vec<usize>,
}

/// A participant.
struct Participant {
    info: proto::ParticipantInfo,
    grants: VideoGrants,
    outbox: Outbox,
    worker: usize,
    publisher: Option<PeerKey>,
    subscriber: Option<PeerKey>,
    subscriber_primary: bool,
    auto_subscribe: bool,
    announced: bool,
    tracks: Vec<TrackKey>,
    /// Announced by add_track, not yet found in an offer.
    pending: Vec<PendingTrack>,
    /// m-lines of the publisher's offers that send: mid to what was found of it.
    mids: HashMap<String, BoundMid>,
    subscriptions: HashMap<TrackKey, Setting>,
    trickled: [bool; 2],
}

/// A track announced by add_track.
#[derive(Debug, Clone)]
struct PendingTrack {
    cid: String,
    kind: MediaKind,
    info: proto::TrackInfo,
}

/// An m-line of a publisher.
#[derive(Debug, Clone)]
struct BoundMid {
    kind: MediaKind,
    track_id: Option<String>,
    track: Option<TrackKey>,
}

/// What a subscriber wants of a track.
#[derive(Debug, Clone, Copy)]
struct Setting {
    limit: u8,
    paused: bool,
}

/// What a client asks for when it connects.
#[derive(Debug, Clone)]
pub(crate) struct JoinRequest {
    pub(crate) claims: Claims,
    pub(crate) protocol: i32,
    pub(crate) auto_subscribe: bool,
    pub(crate) adaptive_stream: bool,
    pub(crate) sdk: String,
}

/// Handle of a joined participant for its WebSocket task.
#[derive(Debug, Clone)]
pub(crate) struct Joined {
    pub(crate) room: String,
    pub(crate) sid: Arc<str>,
}

impl Hub {
    /// Without rooms; `seed` is of the ids, which are to differ from those of other runs.
    pub(crate) fn new(workers: Vec<WorkerHandle>, refusals: Refusals, seed: u64) -> Self {
        Self {
            rooms: HashMap::new(),
            peers: FxHashMap::default(),
            load: vec![0; workers.len()],
            workers,
            counts: HashMap::new(),
            closed: VecDeque::new(),
            counted: SfuSignallingCounters::default(),
            refusals,
            next_key: 0,
            rng: seeded(seed, "sid"),
        }
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
        if !self.rooms.contains_key(name) {
            let sid = self.id("RM_");
            self.counts.entry(name.to_owned()).or_default();
            self.rooms.insert(name.to_owned(), Room::new(sid, name));
        }
        // Inserted above if it was not there.
        self.rooms.entry(name.to_owned()).or_insert_with(|| Room::new(String::new(), name))
    }

    /// Adds a participant, evicting one of the same identity, and makes its subscriber peer.
    pub(crate) fn join(
        &mut self,
        request: JoinRequest,
        outbox: Outbox,
    ) -> Result<Joined, proto::DisconnectReason> {
        let name = request.claims.video.room.clone();
        let identity: Arc<str> = request.claims.sub.as_str().into();
        let duplicate = self.rooms.get(&name).and_then(|room| room.identities.get(&identity));
        if let Some(sid) = duplicate.cloned() {
            self.remove(&name, &sid, proto::DisconnectReason::DuplicateIdentity, true);
        }
        let room = self.room(&name);
        let max = room.info.max_participants as usize;
        if max > 0 && room.participants.len() >= max {
            self.counted.joins_refused += 1;
            return Err(proto::DisconnectReason::JoinFailure);
        }
        let sid: Arc<str> = self.id("PA_").into();
        let worker = self.least_loaded();
        self.load[worker] += 1;
        self.counted.attendance.joins += 1;
        self.counts.entry(name.clone()).or_default().joins += 1;
        let grants = request.claims.video.clone();
        let can_subscribe = grants.can_subscribe.unwrap_or(true);
        let subscriber_primary = request.protocol >= 3 && can_subscribe;
        let participant = Participant {
            info: messages::participant_info(&request, &sid),
            grants,
            outbox,
            worker,
            publisher: None,
            subscriber: None,
            subscriber_primary,
            auto_subscribe: request.auto_subscribe,
            announced: false,
            tracks: Vec::new(),
            pending: Vec::new(),
            mids: HashMap::new(),
            subscriptions: HashMap::new(),
            trickled: [false; 2],
        };
        let room = self.room(&name);
        room.empty_since = None;
        room.had_participants = true;
        let join = messages::join_response(room, &participant);
        participant.send(Message::Join(join));
        room.identities.insert(identity.clone(), sid.clone());
        room.participants.insert(sid.clone(), participant);
        tracing::info!(room = name, %identity, sdk = request.sdk, worker, "joined");
        if can_subscribe {
            let limit = if request.adaptive_stream { 0 } else { 2 };
            self.add_subscriber(&name, &sid, limit);
        }
        self.announce(&name, &sid);
        Ok(Joined { room: name, sid })
    }

    fn least_loaded(&self) -> usize {
        let load = self.load.iter().enumerate().min_by_key(|(_, load)| **load);
        load.map_or(0, |(worker, _)| worker)
    }

    /// Makes the subscriber's peer, with the room's tracks in its first offer.
    fn add_subscriber(&mut self, name: &str, sid: &Arc<str>, limit: u8) {
        let peer = PeerKey(self.next_key());
        let Some(room) = self.rooms.get_mut(name) else { return };
        let Some(participant) = room.participants.get_mut(sid) else { return };
        participant.subscriber = Some(peer);
        let worker = participant.worker;
        let label =
            PeerLabel { room: name.into(), identity: participant.info.identity.as_str().into() };
        let mut tracks = Vec::new();
        if participant.auto_subscribe {
            let setting = Setting { limit, paused: false };
            for (&key, track) in &mut room.tracks {
                participant.subscriptions.insert(key, setting);
                tracks.push(track.offer(key, setting));
                track.add_subscriber(key, worker, &self.workers);
            }
        }
        self.peers.insert(peer, (name.to_owned(), sid.clone(), Role::Subscriber));
        self.command(worker, Command::AddPeer { peer, role: Role::Subscriber, label, tracks });
    }

    fn command(&self, worker: usize, command: Command) {
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
        let Some(room) = self.rooms.get_mut(name) else { return };
        let Some(mut participant) = room.participants.remove(sid) else { return };
        if room.identities.get(participant.info.identity.as_str()).is_some_and(|s| **s == *sid) {
            room.identities.remove(participant.info.identity.as_str());
        }
        if tell {
            participant.send(Message::Leave(messages::leave(reason)));
        }
        participant.outbox.push(OutboxItem::Close);
        for key in std::mem::take(&mut participant.tracks) {
            self.unpublish(name, key);
        }
        let subscriptions: Vec<TrackKey> = participant.subscriptions.keys().copied().collect();
        if let Some(room) = self.rooms.get_mut(name) {
            for key in subscriptions {
                if let Some(track) = room.tracks.get_mut(&key) {
                    track.remove_subscriber(key, participant.worker, &self.workers);
                }
            }
        }
        for peer in [participant.publisher, participant.subscriber].into_iter().flatten() {
            self.peers.remove(&peer);
            self.command(participant.worker, Command::RemovePeer(peer));
        }
        self.load[participant.worker] = self.load[participant.worker].saturating_sub(1);
        self.counted.attendance.leaves += 1;
        self.counts.entry(name.to_owned()).or_default().leaves += 1;
        tracing::info!(room = name, identity = participant.info.identity, ?reason, "left");
        participant.info.state = proto::participant_info::State::Disconnected as i32;
        participant.info.disconnect_reason = reason as i32;
        participant.info.tracks.clear();
        participant.info.version += 1;
        self.announce_removed(name, participant);
        if let Some(room) = self.rooms.get_mut(name)
            && room.participants.is_empty()
        {
            room.empty_since = Some(Instant::now());
        }
    }

    fn announce_removed(&mut self, name: &str, participant: Participant) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        if !participant.announced {
            return;
        }
        if participant.info.is_publisher {
            let info = participant.info;
            room.broadcast(&Message::Update(messages::update(vec![info])), None);
        } else {
            room.announced_subscribers = room.announced_subscribers.saturating_sub(1);
            room.wait_update(participant.info);
        }
    }

    /// Tells the others about a participant: publishers at once, others soon and together.
    fn announce(&mut self, name: &str, sid: &str) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let Some(participant) = room.participants.get_mut(sid) else { return };
        if participant.grants.hidden {
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
        room.wait_update(info);
    }

    /// Subscribes a participant to a track.
    fn subscribe(&mut self, name: &str, sid: &str, key: TrackKey) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let Some(track) = room.tracks.get_mut(&key) else { return };
        let Some(participant) = room.participants.get_mut(sid) else { return };
        let Some(peer) = participant.subscriber else { return };
        if *track.publisher == *sid || participant.subscriptions.contains_key(&key) {
            return;
        }
        let setting = Setting { limit: 2, paused: false };
        participant.subscriptions.insert(key, setting);
        let worker = participant.worker;
        let offer = track.offer(key, setting);
        track.add_subscriber(key, worker, &self.workers);
        self.command(worker, Command::Subscribe { peer, track: offer });
    }

    /// Ends a subscription.
    fn unsubscribe(&mut self, name: &str, sid: &str, key: TrackKey) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let Some(participant) = room.participants.get_mut(sid) else { return };
        let Some(peer) = participant.subscriber else { return };
        if participant.subscriptions.remove(&key).is_none() {
            return;
        }
        let worker = participant.worker;
        if let Some(track) = room.tracks.get_mut(&key) {
            track.remove_subscriber(key, worker, &self.workers);
        }
        self.command(worker, Command::Unsubscribe { peer, track: key });
    }

    /// Ends a track: its subscriptions and its source.
    fn unpublish(&mut self, name: &str, key: TrackKey) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let Some(track) = room.tracks.remove(&key) else { return };
        let mut subscribers = Vec::new();
        for participant in room.participants.values_mut() {
            participant.tracks.retain(|&known| known != key);
            if participant.subscriptions.remove(&key).is_some()
                && let Some(peer) = participant.subscriber
            {
                subscribers.push((participant.worker, peer));
            }
        }
        for (worker, peer) in subscribers {
            self.command(worker, Command::Unsubscribe { peer, track: key });
        }
        self.command(track.home, Command::UnpublishTrack(key));
    }

    /// What is due by time: joined updates, room counts, empty rooms.
    pub(crate) fn tick(&mut self, now: Instant) {
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

impl Room {
    fn new(sid: String, name: &str) -> Self {
        Self {
            info: messages::room_info(sid, name),
            participants: BTreeMap::new(),
            identities: HashMap::new(),
            tracks: BTreeMap::new(),
            waiting_updates: Vec::new(),
            updates_due: None,
            announced_subscribers: 0,
            empty_since: Some(Instant::now()),
            had_participants: false,
            counts_sent: (0, 0),
            counts_due: Instant::now(),
        }
    }

    /// The room as clients see it, with its counts of now.
    fn current(&self) -> proto::Room {
        let visible = self.participants.values().filter(|p| !p.grants.hidden);
        let (mut participants, mut publishers) = (0, 0);
        for participant in visible {
            participants += 1;
            publishers += u32::from(participant.info.is_publisher);
        }
        proto::Room {
            num_participants: participants,
            num_publishers: publishers,
            ..self.info.clone()
        }
    }

    /// Sends one message, encoded once, to all but one.
    fn broadcast(&self, message: &Message, except: Option<&str>) {
        let frame = messages::frame(message.clone());
        for (sid, participant) in &self.participants {
            if except.is_none_or(|except| **sid != *except) {
                participant.send_frame(frame.clone());
            }
        }
    }

    fn wait_update(&mut self, info: proto::ParticipantInfo) {
        self.waiting_updates.retain(|waiting| waiting.sid != info.sid);
        self.waiting_updates.push(info);
        self.updates_due.get_or_insert(Instant::now() + UPDATE_INTERVAL);
    }

    fn flush_updates(&mut self, now: Instant) {
        if self.updates_due.is_none_or(|due| due > now) {
            return;
        }
        self.updates_due = None;
        let infos = std::mem::take(&mut self.waiting_updates);
        self.broadcast(&Message::Update(messages::update(infos)), None);
    }

    fn send_counts(&mut self, now: Instant) {
        if now < self.counts_due {
            return;
        }
        self.counts_due = now + COUNTS_INTERVAL;
        let room = self.current();
        let counts = (room.num_participants, room.num_publishers);
        if counts != self.counts_sent {
            self.counts_sent = counts;
            self.broadcast(&Message::RoomUpdate(proto::RoomUpdate { room: Some(room) }), None);
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        let timeout = if self.had_participants {
            self.info.departure_timeout
        } else {
            self.info.empty_timeout
        };
        let timeout = Duration::from_secs(u64::from(timeout));
        self.empty_since.is_some_and(|since| now.saturating_duration_since(since) >= timeout)
    }
}

impl RoomTrack {
    fn offer(&self, key: TrackKey, setting: Setting) -> TrackOffer {
        TrackOffer {
            track: key,
            sid: self.sid.clone(),
            publisher_sid: self.publisher.clone(),
            kind: self.kind,
            home: self.home,
            limit: setting.limit,
            paused: setting.paused,
        }
    }

    fn add_subscriber(&mut self, track: TrackKey, worker: usize, workers: &[WorkerHandle]) {
        self.subscribers[worker] += 1;
        if self.subscribers[worker] == 1 && worker != self.home {
            workers[self.home].command(Command::Interest { track, worker, wanted: true });
        }
    }

    fn remove_subscriber(&mut self, track: TrackKey, worker: usize, workers: &[WorkerHandle]) {
        self.subscribers[worker] = self.subscribers[worker].saturating_sub(1);
        if self.subscribers[worker] == 0 && worker != self.home {
            workers[self.home].command(Command::Interest { track, worker, wanted: false });
        }
    }
}

impl Participant {
    fn send(&self, message: Message) {
        self.send_frame(messages::frame(message));
    }

    /// Queues a frame; a full queue ends the signalling connection.
    fn send_frame(&self, frame: Bytes) {
        self.outbox.push(OutboxItem::Frame(frame));
    }
}
