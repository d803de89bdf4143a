//! Who should see and hear what, and who did: the watch accounts of all subscribers.
//!
//! Pure: it is told moments and keeps accounts. What signalling says (published, muted, shown,
//! connected) comes from the participants' tasks, the time that frames cover from the media
//! workers, up to a second later. A publication is known to a whole room as soon as anybody in it
//! hears of it, so that who never joined, or was never told, is expected to see it too.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_core::MediaKind;
use stampede_core::watch::{
    Connection, Facts, Publishing, Rules, SPANS_MAX, Seat, Stay, StreamCover, Tally, Timeline,
    TrackWatch,
};
use stampede_engine::{CoverNews, PeerId};
use stampede_media::MediaClip;
use stampede_scenario::{Clips, OwnIdentities};
use stampede_signaling::session::{
    Departure, RemoteTrack, SessionEvent, Subscription, TrackSource, VideoSize, height_due,
};

use stampede_report::layers::LayerSums;

use crate::joins::{ParticipantId, of_first_try};

/// Most streams of one subscriber whose track nobody has named yet. News of further ones is
/// dropped; a LiveKit server names every track in the offer that brings its stream. Of each the newest
/// [`SPANS_MAX`] spans are kept.
const NAMELESS_MAX: usize = 64;
/// Most rows of layers kept of such a stream; further ones are left out.
const NAMELESS_LAYERS_MAX: usize = 256;
/// Most publications kept of a room; what is published beyond is not expected of anybody.
const PUBLICATIONS_MAX: usize = 4_096;
/// Most track sids kept of a room; what comes under further ones is not told from a track that nobody
/// named.
const SIDS_MAX: usize = 16 * PUBLICATIONS_MAX;
/// Most stays of a subscriber that are kept one by one. At the maximum the older half is put into
/// sums, so that who comes and goes for days costs no more.
const STAYS_MAX: usize = 16;
/// Most times in which something was done to a subscriber on purpose; the oldest is forgotten, and
/// what is missed in it then is put down to what it looks like.
const EXCUSES_MAX: usize = 512;
/// Most rooms in which a subscriber was before; the oldest is forgotten, with what was watched there.
const FORMER_ROOMS_MAX: usize = 16;
/// How long after a connection was lost what its owner then hears may still be about that: LiveKit
/// holds a session for longer that lost its websocket.
const EXPLAINED_WITHIN: Duration = Duration::from_secs(5);
/// How a connection ended of who left as it was told to.
const LEFT: &str = "left";
/// Datagrams of a connection come seconds apart: it counts as cut off so long after the last one
/// that was dropped on purpose.
const CUT_OFF_FOR: Duration = Duration::from_secs(2);
/// Of a track of which nothing came.
static NO_LAYERS: LayerSums = LayerSums::NONE;

/// A subscriber, before anything is known of it.
pub(crate) struct Viewer {
    /// Its identity, without the suffix of a further try.
    pub identity: String,
    /// Its room.
    pub room: Rc<str>,
    /// Its part of the subscribers.
    pub cohort: u16,
    /// How it gets its tracks.
    pub subscription: Subscription,
    /// What it asks for of a video of which its session said nothing else.
    pub asked: VideoSize,
}

/// One track of a room: a publisher's camera, say, whatever sids it had.
#[derive(Debug)]
pub(crate) struct Publication {
    /// The publisher's identity, without the suffix of a further try.
    pub publisher: String,
    /// What it shows.
    pub source: TrackSource,
    /// Audio or video.
    pub kind: MediaKind,
    /// Tells tracks of one source of one publisher apart that are there together.
    ordinal: u16,
    /// The latest participant sid of its publisher.
    publisher_sid: String,
    /// The latest track sid: what is heard of a former one is not of this track any more.
    sid: String,
    /// Its layers, as its publisher offers them; empty for audio and where nobody said.
    offered: Vec<VideoSize>,
    timeline: Timeline<Publishing>,
    /// When its publisher was broken on purpose.
    excused: Vec<[Instant; 2]>,
    /// It is one of this run's: its own publisher says what becomes of it.
    own: bool,
}

#[derive(Default)]
struct Room {
    publications: Vec<Publication>,
    by_sid: HashMap<String, usize>,
    seats: Vec<usize>,
}

/// A subscriber with its account of each publication of its room.
struct Taken {
    viewer: Viewer,
    seat: Seat,
    /// The room that it joins.
    home: Rc<str>,
    tracks: Vec<Option<Track>>,
    /// Rooms in which it was before the server moved it, with its accounts there.
    former: Vec<(Rc<str>, Vec<Option<Track>>)>,
    /// News of streams whose track nobody has named yet.
    nameless: Vec<(Instant, u64, StreamCover)>,
    /// Peers it has had.
    peers: u32,
}

#[derive(Default)]
struct Track {
    watch: TrackWatch,
    /// What was on the screen since the window began.
    layers: LayerSums,
    shown: Option<bool>,
    /// What was asked for, if the session said so.
    asked: Option<VideoSize>,
    paused: bool,
    wanted: Timeline<bool>,
}

impl Track {
    fn set_wanted(&mut self, at: Instant) {
        self.wanted.set(at, self.shown.unwrap_or(true) && !self.paused);
    }
}

/// A track of a subscriber and what it came to.
pub(crate) struct Watched<'a> {
    /// The subscriber.
    pub viewer: &'a Viewer,
    /// The publication.
    pub publication: &'a Publication,
    /// Its number in its room, as [`Audience::publication_of`] gives it.
    pub index: usize,
    /// What it came to.
    pub tally: Tally,
    /// What was on the screen.
    pub layers: &'a LayerSums,
    /// A packet of it has come.
    pub received: bool,
}

/// The accounts.
pub(crate) struct Audience {
    bounds: Bounds,
    rooms: HashMap<Rc<str>, Room>,
    /// By participant; `None` for who only sends.
    seats: Vec<Option<Taken>>,
    /// By peer that is open: whose it is, and a number of its own among those of its subscriber. As
    /// many as the engine has.
    peers: HashMap<PeerId, (usize, u32)>,
    /// By worker: arrivals up to then are known.
    known_to: Vec<Option<Instant>>,
    /// When the measured window began; before that, when the run did.
    begin: Instant,
}

impl Audience {
    /// Of a run that begins `now`.
    pub(crate) fn new(rules: Rules, pauses: Pauses, now: Instant) -> Self {
        Self {
            bounds: Bounds { rules, pauses },
            rooms: HashMap::new(),
            seats: Vec::new(),
            peers: HashMap::new(),
            known_to: Vec::new(),
            begin: now,
        }
    }

    /// A subscriber that will be started.
    pub(crate) fn seat(&mut self, id: ParticipantId, viewer: Viewer) {
        if self.seats.len() <= id.0 {
            self.seats.resize_with(id.0 + 1, || None);
        }
        self.rooms.entry(Rc::clone(&viewer.room)).or_default().seats.push(id.0);
        let seat = Seat::default();
        let (tracks, former, nameless) = (Vec::new(), Vec::new(), Vec::new());
        let home = Rc::clone(&viewer.room);
        let taken = Taken { viewer, seat, home, tracks, former, nameless, peers: 0 };
        self.seats[id.0] = Some(taken);
    }

    /// It was to join at this moment.
    pub(crate) fn scheduled(&mut self, id: ParticipantId, at: Instant) {
        // Who was moved to another room joins its own again.
        let home = self.taken(id).map(|taken| Rc::clone(&taken.home));
        if let Some(home) = home {
            self.moved(id, at, &home);
        }
        let (bounds, begin) = (self.bounds, self.begin);
        let Some(taken) = self.seats.get_mut(id.0).and_then(Option::as_mut) else { return };
        if taken.seat.stays.len() >= STAYS_MAX
            && let Some(room) = self.rooms.get(&taken.viewer.room)
        {
            taken.fold(room, bounds, begin);
        }
        taken.seat.stays.push(Stay { from: at, until: None });
    }

    /// It was told to leave.
    pub(crate) fn left(&mut self, id: ParticipantId, at: Instant) {
        if let Some(taken) = self.taken(id) {
            let Some(stay) = taken.seat.stays.last_mut().filter(|stay| stay.until.is_none()) else {
                return;
            };
            stay.until = Some(at.max(stay.from));
            // It has to join again, if it comes again.
            if taken.seat.connection.current() == Some(&Connection::Up) {
                taken.seat.connection.set(at, Connection::Down { reason: LEFT.into() });
            }
        }
    }

    /// What it missed in this time was done to it on purpose.
    pub(crate) fn excuse(&mut self, id: ParticipantId, from: Instant, until: Instant) {
        if let Some(taken) = self.taken(id) {
            merge(&mut taken.seat.excused, from, until);
        }
    }

    /// What is missed of one of this run's publishers in this time was done to that on purpose.
    pub(crate) fn excuse_publisher(
        &mut self,
        room: &Rc<str>,
        identity: &str,
        from: Instant,
        until: Instant,
    ) {
        let Some(room) = self.rooms.get_mut(room) else { return };
        for one in room.publications.iter_mut().filter(|one| one.publisher == identity) {
            merge(&mut one.excused, from, until);
        }
    }

    /// One of this run's publishers is back, over the same session, or nothing had happened to it.
    pub(crate) fn publisher_back(&mut self, room: &Rc<str>, identity: &str, at: Instant) {
        let Some(room) = self.rooms.get_mut(room) else { return };
        for one in room.publications.iter_mut().filter(|one| one.publisher == identity) {
            if let Some(Publishing::Vanished { muted, .. }) = one.timeline.current() {
                let muted = *muted;
                one.timeline.set(at, Publishing::There { muted });
            }
        }
    }

    /// It has this peer now.
    pub(crate) fn peer(&mut self, id: ParticipantId, peer: PeerId) {
        if let Some(taken) = self.taken(id) {
            taken.peers += 1;
            let number = taken.peers;
            self.peers.insert(peer, (id.0, number));
        }
    }

    /// A peer is closed: no more news of it comes.
    pub(crate) fn peer_closed(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
    }

    /// Its media connection stands.
    pub(crate) fn connected(&mut self, id: ParticipantId, at: Instant) {
        if let Some(taken) = self.taken(id) {
            taken.seat.connection.set(at, Connection::Up);
        }
    }

    /// It lost its connection. Nothing if it had none: it is then still joining.
    pub(crate) fn disconnected(&mut self, id: ParticipantId, at: Instant, reason: &str) {
        if let Some(taken) = self.taken(id)
            && taken.seat.connection.current() == Some(&Connection::Up)
        {
            taken.seat.connection.set(at, Connection::Down { reason: reason.into() });
            // What the server paused is not paused by it any more.
            for track in taken.tracks.iter_mut().flatten().filter(|track| track.paused) {
                track.paused = false;
                track.set_wanted(at);
            }
        }
    }

    /// Somebody on its way back was told why it lost its connection, which until then accused nobody:
    /// that is the reason from the beginning. Nothing if it comes too late for that.
    pub(crate) fn explained(
        &mut self,
        id: ParticipantId,
        (room, identity): (&Rc<str>, &str),
        at: Instant,
        reason: &str,
    ) {
        if let Some(taken) = self.taken(id)
            && let Some(Connection::Down { .. }) = taken.seat.connection.current()
        {
            let down = Connection::Down { reason: reason.into() };
            explain(&mut taken.seat.connection, at, down);
        }
        let Some(room) = self.rooms.get_mut(room) else { return };
        for one in room.publications.iter_mut().filter(|one| one.publisher == identity) {
            if let Some(Publishing::Vanished { muted, .. }) = one.timeline.current() {
                let vanished = Publishing::Vanished { muted: *muted, reason: reason.into() };
                explain(&mut one.timeline, at, vanished);
            }
        }
    }

    /// What a subscriber's session said; `own` are the identities of this run's participants.
    pub(crate) fn heard(
        &mut self,
        id: ParticipantId,
        at: Instant,
        event: &SessionEvent,
        own: &OwnIdentities,
    ) {
        match event {
            SessionEvent::TrackAvailable(track) => self.available(id, at, track, own),
            SessionEvent::TrackMuted { sid, muted } => {
                self.change(id, sid, |publication| {
                    if !publication.own {
                        publication.timeline.set(at, Publishing::There { muted: *muted });
                    }
                });
            }
            SessionEvent::TrackGone { sid, departure } => {
                self.change(id, sid, |publication| publication.gone(at, *departure));
            }
            SessionEvent::TrackWanted { sid, wanted, size } => {
                if let Some(track) = self.track(id, sid) {
                    track.shown = Some(*wanted);
                    track.asked = size.or(track.asked);
                    track.set_wanted(at);
                }
            }
            SessionEvent::Moved { room, .. } => self.moved(id, at, room),
            SessionEvent::StreamState { sid, paused } => {
                if let Some(track) = self.track(id, sid) {
                    track.paused = *paused;
                    track.set_wanted(at);
                }
            }
            _ => {}
        }
    }

    /// The server has moved it to another room: of the former one nothing is expected any more, of
    /// the new one everything from now on.
    fn moved(&mut self, id: ParticipantId, at: Instant, room: &str) {
        let Some(taken) = self.seats.get_mut(id.0).and_then(Option::as_mut) else { return };
        if *taken.viewer.room == *room {
            return;
        }
        let from = Rc::clone(&taken.viewer.room);
        if let Some(left) = self.rooms.get_mut(&from) {
            left.seats.retain(|seat| *seat != id.0);
            for index in taken.would_watch(left) {
                taken.track(index).wanted.set(at, false);
            }
        }
        let known = taken.former.iter().position(|(former, _)| **former == *room);
        let tracks = known.map_or_else(Vec::new, |known| taken.former.remove(known).1);
        let tracks = std::mem::replace(&mut taken.tracks, tracks);
        taken.former.push((from, tracks));
        if taken.former.len() > FORMER_ROOMS_MAX {
            taken.former.remove(0);
        }
        let to: Rc<str> = room.into();
        let new = self.rooms.entry(Rc::clone(&to)).or_default();
        new.seats.push(id.0);
        taken.viewer.room = to;
        let began = taken.seat.stays.first().map_or(at, |stay| stay.from);
        for index in taken.would_watch(new) {
            let track = taken.track(index);
            if track.wanted.current().is_none() {
                track.wanted.set(began, false);
            }
            track.set_wanted(at);
        }
    }

    fn available(
        &mut self,
        id: ParticipantId,
        at: Instant,
        found: &RemoteTrack,
        own: &OwnIdentities,
    ) {
        let Some(room) = self.taken(id).map(|taken| Rc::clone(&taken.viewer.room)) else { return };
        let Some(room) = self.rooms.get_mut(&room) else { return };
        let Some(index) = room.published(at, found, Teller::Subscriber { own }) else {
            return;
        };
        let Some(taken) = self.taken(id) else { return };
        let track = taken.track(index);
        // What was said of a former stream of this track is not of this one.
        (track.shown, track.paused) = (None, false);
        if track.wanted.current() == Some(&false) {
            track.set_wanted(at);
        }
        self.name(id);
    }

    /// One of this run's publishers has published this track.
    pub(crate) fn published(&mut self, room: &Rc<str>, at: Instant, track: &RemoteTrack) {
        let Some(room) = self.rooms.get_mut(room) else { return };
        room.published(at, track, Teller::Itself);
        let seats = room.seats.clone();
        for seat in seats {
            self.name(ParticipantId(seat));
        }
    }

    /// The server muted one of this run's tracks, or its publisher did.
    pub(crate) fn publication_muted(
        &mut self,
        room: &Rc<str>,
        sid: &str,
        at: Instant,
        muted: bool,
    ) {
        self.publication(room, sid, |one| one.timeline.set(at, Publishing::There { muted }));
    }

    /// The server took one of this run's tracks out of its room.
    pub(crate) fn publication_over(&mut self, room: &Rc<str>, sid: &str, at: Instant) {
        self.publication(room, sid, |one| one.timeline.set(at, Publishing::Over));
    }

    /// The server has moved one of this run's publishers to another room, with its tracks.
    pub(crate) fn publisher_moved(
        &mut self,
        from: &Rc<str>,
        to: &Rc<str>,
        identity: &str,
        at: Instant,
    ) {
        let Some(room) = self.rooms.get(from) else { return };
        let own = room.publications.iter().filter(|one| one.publisher == identity);
        let there = own.filter_map(|one| {
            let (muted, lost) = match one.timeline.current()? {
                Publishing::There { muted } => (*muted, None),
                // On its way back: what it was is expected of it there.
                Publishing::Vanished { muted, reason } => (*muted, Some(Arc::clone(reason))),
                Publishing::Over => return None,
            };
            let track = RemoteTrack {
                sid: one.sid.clone(),
                kind: one.kind,
                source: one.source,
                publisher_sid: one.publisher_sid.clone(),
                publisher_identity: one.publisher.clone(),
                width: 0,
                height: 0,
                mime_type: String::new(),
                muted,
                layers: one.offered.clone(),
            };
            Some((track, lost))
        });
        let tracks: Vec<(RemoteTrack, Option<Arc<str>>)> = there.collect();
        self.publisher_gone(from, identity, at, None);
        self.rooms.entry(Rc::clone(to)).or_default();
        for (track, lost) in &tracks {
            self.published(to, at, track);
            if let Some(reason) = lost {
                self.publication(to, &track.sid, |one| one.vanished(at, reason));
            }
        }
    }

    /// One of this run's publishers is gone; `broke` has the reason if nobody told it to leave.
    pub(crate) fn publisher_gone(
        &mut self,
        room: &Rc<str>,
        identity: &str,
        at: Instant,
        broke: Option<&str>,
    ) {
        let Some(room) = self.rooms.get_mut(room) else { return };
        for one in room.publications.iter_mut().filter(|one| one.publisher == identity) {
            match broke {
                Some(reason) => one.vanished(at, reason),
                None => one.timeline.set(at, Publishing::Over),
            }
        }
    }

    /// News of the workers.
    pub(crate) fn covers(&mut self, news: CoverNews) {
        if news.whole {
            if self.known_to.len() <= news.worker {
                self.known_to.resize(news.worker + 1, None);
            }
            self.known_to[news.worker] = Some(news.made_at);
        }
        for (peer, [first, last]) in news.cut_off {
            let Some((seat, _)) = self.peers.get(&peer).copied() else { continue };
            let Some(taken) = self.seats[seat].as_mut() else { continue };
            merge(&mut taken.seat.cut_off, first, last + CUT_OFF_FOR);
        }
        for one in news.covers {
            let Some((seat, number)) = self.peers.get(&one.peer).copied() else { continue };
            let stream = u64::from(number) << 32 | u64::from(one.cover.stream);
            self.cover(seat, news.made_at, stream, one.cover);
        }
    }

    fn cover(&mut self, seat: usize, made_at: Instant, stream: u64, mut cover: StreamCover) {
        let Some(taken) = self.seats[seat].as_mut() else { return };
        // Who has left watches nothing, however long its last frame would have stood.
        for span in cover.ended.iter_mut().chain(&mut cover.open) {
            let begun = taken.seat.stays.partition_point(|stay| stay.from <= span.from);
            let stay = begun.checked_sub(1).and_then(|index| taken.seat.stays.get(index));
            if let Some(left) = stay.and_then(|stay| stay.until) {
                span.until = span.until.min(left.max(span.from));
            }
        }
        let Some(room) = self.rooms.get(&taken.viewer.room) else { return };
        let sid = cover.track_id.as_deref();
        let Some(index) = sid.and_then(|sid| room.by_sid.get(sid).copied()) else {
            // The last news of a room that it has left may come later.
            for (former, tracks) in &mut taken.former {
                let index = self
                    .rooms
                    .get(former)
                    .zip(sid)
                    .and_then(|(room, sid)| room.by_sid.get(sid).copied());
                if let Some(Some(track)) = index.and_then(|index| tracks.get_mut(index)) {
                    return track.watch.cover(made_at, stream, cover);
                }
            }
            return taken.keep_nameless(made_at, stream, cover);
        };
        let waiting = taken.nameless.iter().position(|(_, waiting, _)| *waiting == stream);
        let (begin, asked) = (self.begin, taken.viewer.asked);
        let offered = &room.publications[index].offered;
        let waited = waiting.map(|at| taken.nameless.swap_remove(at));
        let waited = waited.map(|(made_at, _, cover)| (made_at, cover));
        for (made_at, cover) in waited.into_iter().chain([(made_at, cover)]) {
            let track = taken.track(index);
            // News from before the window tell of what was before it.
            if made_at >= begin && !cover.layers.is_empty() {
                let due = height_due(offered, track.asked.unwrap_or(asked));
                track.layers.add(&cover.layers, due);
            }
            track.watch.cover(made_at, stream, cover);
        }
        let Some(track) = taken.tracks.get_mut(index).and_then(Option::as_mut) else { return };
        if track.watch.wants_folding() {
            let publication = &room.publications[index];
            let facts = facts(self.bounds, &taken.seat, publication, &track.wanted);
            track.watch.fold(&facts, self.begin);
        }
    }

    /// Looks again at news of streams whose track nobody had named.
    fn name(&mut self, id: ParticipantId) {
        let Some(taken) = self.taken(id) else { return };
        for (made_at, stream, cover) in std::mem::take(&mut taken.nameless) {
            self.cover(id.0, made_at, stream, cover);
        }
    }

    /// What is measured begins: accounts are read from here on.
    pub(crate) fn window_begins(&mut self, at: Instant) {
        self.begin = at;
        for taken in self.seats.iter_mut().flatten() {
            for track in taken.tracks.iter_mut().flatten() {
                track.watch.forget_folded();
                track.layers = LayerSums::default();
            }
        }
    }

    /// Up to when the accounts are known: all workers have told, and what may still be repaired is
    /// settled by then. `settles_after` is the playout deadline; `None` before all of the workers
    /// have told something.
    pub(crate) fn known_until(&self, workers: usize, settles_after: Duration) -> Option<Instant> {
        if self.known_to.len() < workers {
            return None;
        }
        let known = self.known_to.iter().copied().collect::<Option<Vec<_>>>()?;
        known.into_iter().min()?.checked_sub(settles_after)
    }

    /// Every track of every subscriber that was expected by `until`, with what it came to since the
    /// window began.
    pub(crate) fn watched(&self, until: Instant) -> impl Iterator<Item = Watched<'_>> {
        self.seats.iter().flatten().flat_map(move |taken| self.watched_by(taken, until))
    }

    /// Tracks of which nothing has come, and of which so little was expected that watch time does not
    /// miss them: by `until` they were due for `due_min`, and expected for less than `expected_max`.
    /// What was broken on purpose is none of them.
    pub(crate) fn never_came(
        &self,
        until: Instant,
        due_min: Duration,
        expected_max: Duration,
    ) -> u64 {
        let seats = self.seats.iter().flatten();
        let whole = seats.filter(|one| one.seat.excused.is_empty() && one.seat.cut_off.is_empty());
        let tracks = whole.flat_map(|taken| {
            self.expected_by(taken).map(move |(_, publication, track)| (taken, publication, track))
        });
        let never = tracks.filter(|(taken, publication, track)| {
            let (never, always) = (TrackWatch::default(), Timeline::default());
            let (watch, wanted) =
                track.map_or((&never, &always), |track| (&track.watch, &track.wanted));
            let facts = facts(self.bounds, &taken.seat, publication, wanted);
            !watch.received()
                && publication.excused.is_empty()
                && TrackWatch::due(&facts, self.begin, until) >= due_min
                && watch.tally(&facts, self.begin, until).expected < expected_max
        });
        never.count() as u64
    }

    /// The publications that a subscriber is to get, with their numbers and what is known of each.
    fn expected_by<'a>(
        &'a self,
        taken: &'a Taken,
    ) -> impl Iterator<Item = (usize, &'a Publication, Option<&'a Track>)> {
        // Of who was not started yet nothing is expected.
        let started = !taken.seat.stays.is_empty();
        let now = [(&taken.viewer.room, &taken.tracks, true)];
        let former = taken.former.iter().map(|(room, tracks)| (room, tracks, false));
        let rooms = now.into_iter().chain(former).filter(move |_| started);
        let rooms =
            rooms.filter_map(|(name, tracks, now)| Some((self.rooms.get(name)?, tracks, now)));
        let publications = rooms.flat_map(|(room, tracks, now)| {
            let publications = room.publications.iter().enumerate();
            publications.map(move |(index, publication)| (room, tracks, now, index, publication))
        });
        publications.filter_map(move |(room, tracks, now, index, publication)| {
            // Nobody gets its own.
            if publication.publisher == taken.viewer.identity {
                return None;
            }
            let track = tracks.get(index).and_then(Option::as_ref);
            let told = track.is_some_and(|track| track.shown.is_some() || !now);
            let expected = told || (now && taken.would_get(publication, room));
            expected.then_some((index, publication, track))
        })
    }

    fn watched_by<'a>(
        &'a self,
        taken: &'a Taken,
        until: Instant,
    ) -> impl Iterator<Item = Watched<'a>> {
        self.expected_by(taken).filter_map(move |(index, publication, track)| {
            let (never, always) = (TrackWatch::default(), Timeline::default());
            let (watch, wanted) =
                track.map_or((&never, &always), |track| (&track.watch, &track.wanted));
            let layers = track.map_or(&NO_LAYERS, |track| &track.layers);
            let facts = facts(self.bounds, &taken.seat, publication, wanted);
            let tally = watch.tally(&facts, self.begin, until);
            (!tally.expected.is_zero()).then_some(Watched {
                viewer: &taken.viewer,
                publication,
                index,
                tally,
                layers,
                received: watch.received(),
            })
        })
    }

    /// Which publication of its subscriber's room a stream of this sid belonged to.
    pub(crate) fn publication_of(&self, room: &str, sid: &str) -> Option<usize> {
        self.rooms.get(room)?.by_sid.get(sid).copied()
    }

    fn taken(&mut self, id: ParticipantId) -> Option<&mut Taken> {
        self.seats.get_mut(id.0)?.as_mut()
    }

    fn track(&mut self, id: ParticipantId, sid: &str) -> Option<&mut Track> {
        let taken = self.seats.get_mut(id.0)?.as_mut()?;
        let index = *self.rooms.get(&taken.viewer.room)?.by_sid.get(sid)?;
        Some(taken.track(index))
    }

    fn change(&mut self, id: ParticipantId, sid: &str, with: impl FnOnce(&mut Publication)) {
        let Some(room) = self.taken(id).map(|taken| Rc::clone(&taken.viewer.room)) else { return };
        self.publication(&room, sid, with);
    }

    fn publication(&mut self, room: &str, sid: &str, with: impl FnOnce(&mut Publication)) {
        let Some(room) = self.rooms.get_mut(room) else { return };
        if let Some(index) = room.by_sid.get(sid)
            && room.publications[*index].sid == sid
        {
            with(&mut room.publications[*index]);
        }
    }
}

/// Who says that a track is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Teller<'a> {
    /// Its publisher, which is one of this run's.
    Itself,
    /// A subscriber that heard of it.
    Subscriber {
        /// What the identities of this run's publishers begin with.
        own: &'a OwnIdentities,
    },
}

impl Room {
    /// A track is there under this sid; `None` past [`PUBLICATIONS_MAX`].
    fn published(&mut self, at: Instant, found: &RemoteTrack, teller: Teller<'_>) -> Option<usize> {
        if let Some(&index) = self.by_sid.get(&found.sid) {
            let known = &mut self.publications[index];
            known.offers(found);
            let gone = !matches!(known.timeline.current(), Some(Publishing::There { .. }));
            // Of this run's own its publisher knows better.
            let knows = teller == Teller::Itself || !known.own;
            if gone && knows && known.sid == found.sid {
                known.timeline.set(at, Publishing::There { muted: found.muted });
            }
            return Some(index);
        }
        if self.by_sid.len() >= SIDS_MAX {
            return None;
        }
        let publisher = of_first_try(&found.publisher_identity);
        let same = |one: &&Publication| {
            one.publisher == publisher && one.source == found.source && one.kind == found.kind
        };
        // Whatever an earlier session of its publisher had is what this one has.
        let free = |one: &Publication| {
            one.publisher_sid != found.publisher_sid
                || one.timeline.current() == Some(&Publishing::Over)
        };
        let taken: Vec<u16> = self
            .publications
            .iter()
            .filter(same)
            .filter(|one| !free(one))
            .map(|one| one.ordinal)
            .collect();
        let ordinal = (0..).find(|ordinal| !taken.contains(ordinal)).unwrap_or(0);
        let known = self.publications.iter().position(|one| same(&one) && one.ordinal == ordinal);
        let index = match known {
            Some(index) => index,
            None if self.publications.len() >= PUBLICATIONS_MAX => return None,
            None => {
                self.publications.push(Publication {
                    publisher: publisher.to_owned(),
                    source: found.source,
                    kind: found.kind,
                    ordinal,
                    publisher_sid: String::new(),
                    sid: String::new(),
                    offered: Vec::new(),
                    timeline: Timeline::default(),
                    excused: Vec::new(),
                    own: match teller {
                        Teller::Itself => true,
                        Teller::Subscriber { own } => own.has(&found.publisher_identity),
                    },
                });
                self.publications.len() - 1
            }
        };
        let publication = &mut self.publications[index];
        publication.publisher_sid.clone_from(&found.publisher_sid);
        publication.sid.clone_from(&found.sid);
        publication.offers(found);
        publication.timeline.set(at, Publishing::There { muted: found.muted });
        self.by_sid.insert(found.sid.clone(), index);
        Some(index)
    }
}

impl Publication {
    /// Not everybody who tells of a track tells of its layers.
    fn offers(&mut self, found: &RemoteTrack) {
        if !found.layers.is_empty() {
            self.offered.clone_from(&found.layers);
        }
    }

    /// What others hear of how it ended. Of this run's own its publisher knows better: one that
    /// loses its media leaves in order, as far as the server can tell.
    fn gone(&mut self, at: Instant, departure: Departure) {
        match departure {
            _ if self.own => {}
            _ if departure.is_orderly() => self.timeline.set(at, Publishing::Over),
            Departure::Left { reason } => self.vanished(at, reason.as_str_name()),
            Departure::Unpublished | Departure::Moved => {}
        }
    }

    fn vanished(&mut self, at: Instant, reason: &str) {
        if let Some(Publishing::There { muted }) = self.timeline.current() {
            let (muted, reason) = (*muted, Arc::from(reason));
            self.timeline.set(at, Publishing::Vanished { muted, reason });
        }
    }
}

/// Puts what is known by now in the place of what holds since a moment ago.
fn explain<T: PartialEq>(timeline: &mut Timeline<T>, at: Instant, value: T) {
    let since = timeline.moments().last();
    if let Some(since) =
        since.filter(|since| at.saturating_duration_since(*since) <= EXPLAINED_WITHIN)
    {
        timeline.set(since, value);
    }
}

impl Taken {
    /// Puts the older half of its stays into sums.
    fn fold(&mut self, room: &Room, bounds: Bounds, begin: Instant) {
        let half = self.seat.stays.len() / 2;
        let Some(cut) = self.seat.stays.get(half).map(|stay| stay.from) else { return };
        for index in self.would_watch(room) {
            let publication = &room.publications[index];
            let Track { watch, wanted, .. } = self.track(index);
            let (mut watch, wanted) = (std::mem::take(watch), std::mem::take(wanted));
            watch.fold_until(&facts(bounds, &self.seat, publication, &wanted), begin, cut);
            let track = self.track(index);
            (track.watch, track.wanted) = (watch, wanted);
            track.wanted.forget_before(cut);
        }
        self.seat.stays.drain(..half);
        self.seat.connection.forget_before(cut);
        self.seat.cut_off.retain(|[_, until]| *until > cut);
        self.seat.excused.retain(|[_, until]| *until > cut);
    }

    /// Which publications of a room it gets, as far as is known.
    fn would_watch(&self, room: &Room) -> Vec<usize> {
        let publications = room.publications.iter().enumerate();
        let watched = publications.filter(|(index, publication)| {
            self.tracks.get(*index).is_some_and(Option::is_some)
                || self.would_get(publication, room)
        });
        watched.map(|(index, _)| index).collect()
    }

    /// Keeps news of a stream until its track is named; later news of the same stream joins it.
    fn keep_nameless(&mut self, made_at: Instant, stream: u64, cover: StreamCover) {
        let known = self.nameless.iter_mut().find(|(_, waiting, _)| *waiting == stream);
        if let Some((at, _, waiting)) = known {
            let mut ended = std::mem::take(&mut waiting.ended);
            ended.extend(cover.ended.iter().copied());
            // Of what has ended long ago the time reads as a gap.
            ended.drain(..ended.len().saturating_sub(SPANS_MAX));
            let mut layers = std::mem::take(&mut waiting.layers);
            layers.extend(cover.layers.iter().copied());
            layers.truncate(NAMELESS_LAYERS_MAX);
            *at = made_at;
            *waiting = StreamCover { ended, layers, ..cover };
        } else if self.nameless.len() < NAMELESS_MAX {
            self.nameless.push((made_at, stream, cover));
        }
    }

    fn track(&mut self, index: usize) -> &mut Track {
        if self.tracks.len() <= index {
            if index >= self.tracks.capacity() {
                // By an eighth: in a room of many everybody has one for each.
                self.tracks.reserve_exact(index + 1 + index / 8 - self.tracks.len());
            }
            self.tracks.resize_with(index + 1, || None);
        }
        self.tracks[index].get_or_insert_default()
    }

    /// Whether it gets a publication of which its session has said nothing.
    fn would_get(&self, publication: &Publication, room: &Room) -> bool {
        if publication.publisher == self.viewer.identity {
            return false;
        }
        let audio = publication.kind == MediaKind::Audio;
        match self.viewer.subscription {
            Subscription::Auto => true,
            Subscription::Manual { audio: hears, video: sees } => {
                if audio {
                    hears
                } else {
                    sees
                }
            }
            Subscription::Layout { auto: true, .. } if audio => true,
            // First come, first shown; and of who is shown each video takes a place.
            Subscription::Layout { layout, .. } => {
                let places = layout.participants_max();
                let publications = room.publications.iter();
                let others = publications.filter(|one| one.publisher != self.viewer.identity);
                let mut shown: Vec<&str> = Vec::new();
                for one in others.clone() {
                    if shown.len() < places && !shown.contains(&one.publisher.as_str()) {
                        shown.push(&one.publisher);
                    }
                }
                let is_shown = |one: &Publication| shown.contains(&one.publisher.as_str());
                let before = others.take_while(|one| !std::ptr::eq(*one, publication));
                let before = before.filter(|one| one.kind == MediaKind::Video && is_shown(one));
                is_shown(publication) && (audio || before.count() < places)
            }
        }
    }
}

/// Adds a span to spans that are in order of time and do not touch; at most [`EXCUSES_MAX`] are kept.
fn merge(spans: &mut Vec<[Instant; 2]>, from: Instant, until: Instant) {
    let first = spans.partition_point(|[_, end]| *end < from);
    let end = first + spans[first..].partition_point(|[begin, _]| *begin <= until);
    let touched = spans[first..end].iter();
    let span = touched
        .fold([from, until], |[from, until], [begin, end]| [from.min(*begin), until.max(*end)]);
    spans.splice(first..end, [span]);
    if spans.len() > EXCUSES_MAX {
        spans.remove(0);
    }
}

/// How accounts are read.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    rules: Rules,
    pauses: Pauses,
}

/// The longest pauses of what this run publishes, by its files ([`MediaClip::pause_max`]).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pauses {
    camera: Duration,
    microphone: Duration,
    screen: Duration,
}

impl Pauses {
    /// Of all that is published.
    pub(crate) fn of(clips: &Clips) -> Self {
        let longest = |clips: &mut dyn Iterator<Item = &Arc<MediaClip>>| {
            clips.map(|clip| clip.pause_max()).max().unwrap_or_default()
        };
        let more = clips.more_video.iter().flatten();
        Self {
            camera: longest(&mut clips.video.iter().chain(more).chain(&clips.backup)),
            microphone: longest(&mut clips.audio.iter()),
            screen: longest(&mut clips.screen.iter().chain(&clips.screen_backup)),
        }
    }

    /// How long a publication may stand still.
    fn still_max(self, publication: &Publication) -> Duration {
        match (publication.own, publication.source) {
            (false, TrackSource::ScreenShare) => Duration::MAX,
            (true, TrackSource::ScreenShare) => self.screen,
            (true, TrackSource::Camera) => self.camera,
            (true, TrackSource::Microphone) => self.microphone,
            _ => Duration::ZERO,
        }
    }
}

fn facts<'a>(
    bounds: Bounds,
    seat: &'a Seat,
    publication: &'a Publication,
    wanted: &'a Timeline<bool>,
) -> Facts<'a> {
    Facts {
        seat,
        publishing: &publication.timeline,
        wanted,
        excused: &publication.excused,
        still_max: bounds.pauses.still_max(publication),
        rules: bounds.rules,
    }
}

#[cfg(test)]
mod tests;
