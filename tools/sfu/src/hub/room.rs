//! What a room, a track and a participant are made of.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use livekit_protocol as proto;
use livekit_token::{Claims, VideoGrants};
use proto::signal_response::Message;
use stampede_core::MediaKind;

use super::bandwidth::Allotment;
use super::codecs::{Backup, Takes};
use super::data_tracks::DataTracks;
use super::messages;
use super::outbox::{Hangup, Outbox, OutboxItem, SignalKey};
use super::session::Session;
use crate::media::handle::WorkerHandle;
use crate::media::message::{Command, PeerKey, PeerLabel, Role, TrackKey, TrackOffer, Wanted};

/// Joins and leaves of participants without tracks are announced this much later, together
/// (LiveKit `pkg/rtc/room.go`, `subscriberUpdateInterval`).
const UPDATE_INTERVAL: Duration = Duration::from_secs(3);

/// A room's counts are sent at most this often, when they changed (LiveKit `pkg/rtc/room.go`).
const COUNTS_INTERVAL: Duration = Duration::from_secs(5);

/// Participants that left a room and are remembered for those who resume; the one that left first
/// is forgotten (LiveKit remembers as many a participant, `pkg/rtc/participant.go`, `updateCache`).
pub(super) const DEPARTED_MAX: usize = 128;

/// One room.
pub(super) struct Room {
    pub(super) info: proto::Room,
    pub(super) participants: BTreeMap<Arc<str>, Participant>,
    /// Identity to sid.
    pub(super) identities: HashMap<Arc<str>, Arc<str>>,
    pub(super) tracks: RoomTracks,
    /// Updates of participants without tracks that wait.
    pub(super) waiting_updates: Vec<proto::ParticipantInfo>,
    pub(super) updates_due: Option<Instant>,
    pub(super) announced_subscribers: usize,
    pub(super) empty_since: Option<Instant>,
    pub(super) had_participants: bool,
    pub(super) counts_sent: (u32, u32),
    pub(super) counts_due: Instant,
    /// Who left last, for those who resume and may not know.
    pub(super) departed: VecDeque<(Instant, proto::ParticipantInfo)>,
    /// Bytes that everybody was sent alike, once for each of them.
    pub(super) told_bytes: Cell<u64>,
}

/// The tracks of a room by key, in the order in which they were published, and by sid.
#[derive(Default)]
pub(super) struct RoomTracks {
    by_key: BTreeMap<TrackKey, RoomTrack>,
    /// Each in its own codec.
    by_sid: HashMap<Arc<str>, TrackKey>,
}

/// A published track.
pub(super) struct RoomTrack {
    pub(super) sid: Arc<str>,
    pub(super) publisher: Arc<str>,
    pub(super) kind: MediaKind,
    pub(super) home: usize,
    pub(super) info: proto::TrackInfo,
    /// Subscribers on each worker.
    pub(super) subscribers: Vec<usize>,
    /// What it may be published in besides its own codec.
    pub(super) backup: Option<Backup>,
    /// It is another one in its second codec.
    pub(super) backup_of: Option<TrackKey>,
}

/// A participant.
pub(super) struct Participant {
    pub(super) info: proto::ParticipantInfo,
    /// What its token said.
    pub(super) claims: Claims,
    /// Its websocket, unless it has lost it. What is said to it meanwhile is dropped: who resumes
    /// is told everything anew.
    pub(super) signal: Option<Signal>,
    pub(super) session: Session,
    pub(super) worker: usize,
    /// Where it sends.
    pub(super) publisher: Option<PeerKey>,
    /// Where it receives.
    pub(super) subscriber: Option<PeerKey>,
    /// That is one peer connection: it has joined by v1.
    pub(super) single: bool,
    pub(super) subscriber_primary: bool,
    pub(super) auto_subscribe: bool,
    pub(super) allow_pause: bool,
    pub(super) data_tracks: DataTracks,
    pub(super) announced: bool,
    pub(super) tracks: Vec<TrackKey>,
    /// Announced by add_track, not yet found in an offer.
    pub(super) pending: Vec<PendingTrack>,
    /// m-lines of its offers that send: mid to what was found of it.
    pub(super) mids: HashMap<String, BoundMid>,
    pub(super) subscriptions: HashMap<TrackKey, Setting>,
    pub(super) trickled: [bool; 2],
    /// Its offers that a media worker has not answered.
    pub(super) offers_out: u32,
    /// What its media may take, if that is limited on purpose.
    pub(super) bandwidth_bps: Option<u64>,
}

/// A participant's websocket.
pub(super) struct Signal {
    pub(super) key: SignalKey,
    pub(super) outbox: Outbox,
}

/// A track announced by add_track.
#[derive(Debug, Clone)]
pub(super) struct PendingTrack {
    pub(super) cid: String,
    pub(super) kind: MediaKind,
    pub(super) info: proto::TrackInfo,
    /// The track that it is in its second codec.
    pub(super) backup_of: Option<TrackKey>,
}

/// An m-line of a publisher.
#[derive(Debug, Clone)]
pub(super) struct BoundMid {
    pub(super) kind: MediaKind,
    pub(super) track_id: Option<String>,
    pub(super) track: Option<TrackKey>,
}

/// What a subscriber wants of a track, and what it may have of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) wanted: Wanted,
    pub(super) allotment: Allotment,
    /// In which codec it can have it.
    pub(super) takes: Takes,
}

impl Setting {
    /// Up to this layer.
    pub(super) fn upto(limit: u8) -> Self {
        let wanted = Wanted { limit, pictures_per_s: 0, paused: false };
        Self { wanted, allotment: Allotment::All, takes: Takes::BOTH }
    }

    /// What it gets of what is wanted.
    pub(super) fn effective(self) -> Wanted {
        let wanted = self.wanted;
        match self.allotment {
            Allotment::All => wanted,
            Allotment::Upto(layer) => Wanted { limit: wanted.limit.min(layer), ..wanted },
            Allotment::Paused => Wanted { paused: true, ..wanted },
        }
    }
}

impl Room {
    pub(super) fn new(sid: String, name: &str, now: Instant) -> Self {
        Self {
            info: messages::room_info(sid, name),
            participants: BTreeMap::new(),
            identities: HashMap::new(),
            tracks: RoomTracks::default(),
            waiting_updates: Vec::new(),
            updates_due: None,
            announced_subscribers: 0,
            empty_since: Some(now),
            had_participants: false,
            counts_sent: (0, 0),
            counts_due: now,
            departed: VecDeque::new(),
            told_bytes: Cell::new(0),
        }
    }

    /// The room as clients see it, with its counts of now.
    pub(super) fn current(&self) -> proto::Room {
        let visible = self.participants.values().filter(|p| !p.grants().hidden);
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

    /// Each track once, by the key of [`sent`](Self::sent).
    pub(super) fn published(&self) -> impl Iterator<Item = TrackKey> {
        let own = self.tracks.iter().filter(|(_, track)| track.backup_of.is_none());
        own.map(|(key, _)| self.sent(*key))
    }

    /// Who is subscribed by this key.
    pub(super) fn holders(&self, key: TrackKey) -> Vec<Arc<str>> {
        let holds = |participant: &Participant| participant.subscriptions.contains_key(&key);
        let holders = self.participants.iter().filter(|(_, participant)| holds(participant));
        holders.map(|(sid, _)| sid.clone()).collect()
    }

    /// The key by which a track is sent to who has not said which codecs it takes.
    pub(super) fn sent(&self, own: TrackKey) -> TrackKey {
        let backup = self.tracks.get(&own).and_then(|track| track.backup.as_ref());
        backup.map_or(own, |backup| backup.sent(own, Takes::BOTH))
    }

    /// The key of a track in its own codec.
    pub(super) fn own(&self, key: TrackKey) -> TrackKey {
        self.tracks.get(&key).and_then(|track| track.backup_of).unwrap_or(key)
    }

    /// The key by which a participant gets a track, in whichever codec.
    pub(super) fn subscribed(&self, sid: &str, own: TrackKey) -> Option<TrackKey> {
        let subscriptions = &self.participants.get(sid)?.subscriptions;
        let backup = || self.tracks.get(&own)?.backup.as_ref()?.track();
        if subscriptions.contains_key(&own) {
            return Some(own);
        }
        backup().filter(|backup| subscriptions.contains_key(backup))
    }

    /// Sends one message, encoded once, to all but one.
    pub(super) fn broadcast(&self, message: &Message, except: Option<&str>) {
        let frame = messages::frame(message.clone());
        let told = frame.len() as u64 * self.participants.len() as u64;
        self.told_bytes.set(self.told_bytes.get() + told);
        for (sid, participant) in &self.participants {
            if except.is_none_or(|except| **sid != *except) {
                participant.send_frame(frame.clone());
            }
        }
    }

    /// Everybody that others may see, but for participants without tracks that are not announced.
    pub(super) fn visible(&self) -> impl Iterator<Item = &proto::ParticipantInfo> {
        let visible = self.participants.values().filter(|p| !p.grants().hidden);
        visible.filter(|p| p.info.is_publisher || p.announced).map(|p| &p.info)
    }

    /// Remembers who has left.
    pub(super) fn note_departed(&mut self, info: proto::ParticipantInfo, now: Instant) {
        if self.departed.len() >= DEPARTED_MAX {
            self.departed.pop_front();
        }
        self.departed.push_back((now, info));
    }

    /// Who has left since then.
    pub(super) fn departed_since(&self, since: Instant) -> Vec<proto::ParticipantInfo> {
        let later = self.departed.iter().filter(|(at, _)| *at >= since);
        later.map(|(_, info)| info.clone()).collect()
    }

    pub(super) fn wait_update(&mut self, info: proto::ParticipantInfo, now: Instant) {
        self.waiting_updates.retain(|waiting| waiting.sid != info.sid);
        self.waiting_updates.push(info);
        self.updates_due.get_or_insert(now + UPDATE_INTERVAL);
    }

    pub(super) fn flush_updates(&mut self, now: Instant) {
        if self.updates_due.is_none_or(|due| due > now) {
            return;
        }
        self.updates_due = None;
        let infos = std::mem::take(&mut self.waiting_updates);
        self.broadcast(&Message::Update(messages::update(infos)), None);
    }

    pub(super) fn send_counts(&mut self, now: Instant) {
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

    pub(super) fn is_over(&self, now: Instant) -> bool {
        let timeout = if self.had_participants {
            self.info.departure_timeout
        } else {
            self.info.empty_timeout
        };
        let timeout = Duration::from_secs(u64::from(timeout));
        self.empty_since.is_some_and(|since| now.saturating_duration_since(since) >= timeout)
    }
}

impl RoomTracks {
    pub(super) fn insert(&mut self, key: TrackKey, track: RoomTrack) {
        if track.backup_of.is_none() {
            self.by_sid.insert(track.sid.clone(), key);
        }
        self.by_key.insert(key, track);
    }

    pub(super) fn remove(&mut self, key: TrackKey) -> Option<RoomTrack> {
        let track = self.by_key.remove(&key)?;
        if self.by_sid.get(&track.sid) == Some(&key) {
            self.by_sid.remove(&track.sid);
        }
        Some(track)
    }

    pub(super) fn get(&self, key: &TrackKey) -> Option<&RoomTrack> {
        self.by_key.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &TrackKey) -> Option<&mut RoomTrack> {
        self.by_key.get_mut(key)
    }

    pub(super) fn contains_key(&self, key: &TrackKey) -> bool {
        self.by_key.contains_key(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&TrackKey, &RoomTrack)> {
        self.by_key.iter()
    }

    /// The key of a track in its own codec.
    pub(super) fn of_sid(&self, sid: &str) -> Option<TrackKey> {
        self.by_sid.get(sid).copied()
    }
}

impl RoomTrack {
    pub(super) fn offer(&self, key: TrackKey, setting: Setting) -> TrackOffer {
        TrackOffer {
            track: key,
            sid: self.sid.clone(),
            publisher_sid: self.publisher.clone(),
            kind: self.kind,
            home: self.home,
            wanted: setting.effective(),
            choice: self.backup.is_some() || self.backup_of.is_some(),
        }
    }

    pub(super) fn add_subscriber(
        &mut self,
        track: TrackKey,
        worker: usize,
        workers: &[WorkerHandle],
    ) {
        self.subscribers[worker] += 1;
        if self.subscribers[worker] == 1 && worker != self.home {
            workers[self.home].command(Command::Interest { track, worker, wanted: true });
        }
    }

    pub(super) fn remove_subscriber(
        &mut self,
        track: TrackKey,
        worker: usize,
        workers: &[WorkerHandle],
    ) {
        self.subscribers[worker] = self.subscribers[worker].saturating_sub(1);
        if self.subscribers[worker] == 0 && worker != self.home {
            workers[self.home].command(Command::Interest { track, worker, wanted: false });
        }
    }
}

impl Participant {
    pub(super) fn send(&self, message: Message) {
        self.send_frame(messages::frame(message));
    }

    /// Queues a frame; a full queue ends the signalling connection.
    pub(super) fn send_frame(&self, frame: Bytes) {
        if let Some(signal) = &self.signal {
            signal.outbox.push(OutboxItem::Frame(frame));
        }
    }

    /// Has a fresh token sent to it.
    pub(super) fn refresh_token(&self) {
        if let Some(signal) = &self.signal {
            signal.outbox.push(OutboxItem::FreshToken);
        }
    }

    /// Takes its websocket from it, which is closed once what was said has left.
    pub(super) fn hang_up(&mut self, why: Hangup) -> Option<SignalKey> {
        let signal = self.signal.take()?;
        signal.outbox.push(OutboxItem::Close(why));
        Some(signal.key)
    }

    /// Its peer connections.
    pub(super) fn peers(&self) -> impl Iterator<Item = (PeerKey, Role)> + use<> {
        let (first, second) = match self.single {
            true => {
                let role = self.subscriber.map_or(Role::Publisher, |_| Role::Single);
                (self.publisher.map(|peer| (peer, role)), None)
            }
            false => (
                self.publisher.map(|peer| (peer, Role::Publisher)),
                self.subscriber.map(|peer| (peer, Role::Subscriber)),
            ),
        };
        first.into_iter().chain(second)
    }

    /// What it may do.
    pub(super) fn grants(&self) -> &VideoGrants {
        &self.claims.video
    }

    /// What names it in the ledger.
    pub(super) fn label(&self) -> PeerLabel {
        PeerLabel {
            room: self.claims.video.room.as_str().into(),
            identity: self.info.identity.as_str().into(),
        }
    }
}
