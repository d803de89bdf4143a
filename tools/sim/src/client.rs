//! A participant: a real session and a real peer, and what `stampede run` does with both: it joins,
//! comes back on livekit-client's schedule, and leaves.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use prost::Message as _;
use prost::bytes::Bytes;
use stampede_core::{
    AddressRequest, Arrival, DtlsIdentity, LocalId, MediaFailure, MediaKind, PathKind, Peer,
    PeerEvent, PeerOptions, PeerRole, PeerSink, PeerUpdate, Receives, RecordedFrame,
    RecordedStream, Scratch, Transport, TurnServer,
};
use stampede_media::AssemblerCounters;
use stampede_media::disk::DiskHandle;
use stampede_signaling::ErrorKind;
use stampede_signaling::session::{
    EndReason, FIRST_OFFER_ID, FIRST_SLOTS, MediaCommand, MediaInput, Output, Session,
    SessionEvent, SessionOptions, SignalVersion, Target, WayBack,
};

use crate::news::{News, Out, Signalling, Why};
use crate::recorder::Recorder;
use crate::spec::{ClientSpec, relay_of};
use crate::turn_server::{PASSWORD, USER};

/// Pauses before tries to come back, of livekit-client (`tools/run/src/reconnect.rs`).
const PAUSES_MS: [u64; 10] = [0, 300, 1_200, 2_700, 4_800, 7_000, 7_000, 7_000, 7_000, 7_000];
/// From this try on up to a second is added.
const JITTER_FROM: usize = 2;
/// How long a session may take to stand again.
const STANDS_WITHIN: Duration = Duration::from_secs(15);
/// How long a join may take.
const JOINS_WITHIN: Duration = Duration::from_secs(30);
/// Pause before a join that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a server that closed the media has to say why.
const WORD_WITHIN: Duration = Duration::from_millis(500);
/// From the word to leave to the end of the media: nothing that was sent goes uncounted.
const CLOSES_AFTER: Duration = Duration::from_millis(600);
/// Longer than any run.
const NEVER: Duration = Duration::from_secs(86_400);
/// Work at one moment that never ends is a bug.
const ROUNDS_MAX: usize = 1_000;

#[derive(Default)]
struct Sink {
    datagrams: Vec<(LocalId, SocketAddr, Vec<u8>)>,
    requests: Vec<AddressRequest>,
    events: Vec<PeerEvent>,
    frames: Vec<(Option<String>, MediaKind, Vec<u8>)>,
    recorder: Option<Recorder>,
}

impl PeerSink for Sink {
    fn transmit(&mut self, via: LocalId, destination: SocketAddr, payload: &[u8]) {
        self.datagrams.push((via, destination, payload.to_vec()));
    }

    fn address(&mut self, request: AddressRequest) {
        self.requests.push(request);
    }

    fn event(&mut self, event: PeerEvent) {
        self.events.push(event);
    }

    fn recorded(&mut self, stream: &RecordedStream, frame: RecordedFrame) {
        if let Some(recorder) = &mut self.recorder {
            recorder.frame(stream, &frame);
        }
        let track = stream.track_id.as_ref().map(ToString::to_string);
        self.frames.push((track, stream.kind, frame.data.to_vec()));
    }

    fn recording_ended(&mut self, stream: &RecordedStream, counted: &AssemblerCounters) {
        if let Some(recorder) = &mut self.recorder {
            recorder.end(stream.id, counted);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It will join.
    Waiting,
    /// It is there, or on its way.
    Here,
    /// It said that it leaves.
    Leaving(Instant),
    /// It is over.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dial {
    Anew,
    Resume,
}

/// A participant.
pub struct Client {
    /// What it is.
    pub spec: ClientSpec,
    /// Its name.
    pub identity: String,
    /// Its address behind its NAT, but for the port.
    local_ip: std::net::IpAddr,
    options: PeerOptions,
    /// Its TURN server.
    relay: SocketAddr,
    stage: Stage,
    scheduled: Instant,
    session: Option<Session>,
    /// Its websocket is open, or being opened.
    signal: bool,
    peer: Option<Box<Peer>>,
    /// How many it had.
    peers: u64,
    /// Its sockets by what the peer calls them; their numbers are never used again.
    sockets: BTreeMap<LocalId, u16>,
    sockets_made: u16,
    peer_wake: Instant,
    connected: bool,
    stands: bool,
    joined: bool,
    session_missing: bool,
    missing_until: Option<Instant>,
    closed_until: Option<Instant>,
    tried: usize,
    dial: Option<(Instant, Dial)>,
    /// What its media worker is about to say to the session, and when.
    late: VecDeque<(Instant, MediaInput)>,
    covers_at: Instant,
    rng: fastrand::Rng,
    scratch: Scratch,
    sink: Sink,
    /// What waits to be taken.
    pub out: Out,
}

/// One certificate for all: making one is dear.
fn identity() -> DtlsIdentity {
    static IDENTITY: OnceLock<DtlsIdentity> = OnceLock::new();
    IDENTITY.get_or_init(|| DtlsIdentity::generate().unwrap()).clone()
}

impl Client {
    /// One that joins so long after this moment.
    #[must_use]
    pub fn new(index: usize, spec: ClientSpec, start: Instant, seed: u64) -> Self {
        let role = match (spec.publishes(), spec.subscribes) {
            (true, true) => "both",
            (true, false) => "pub",
            _ => "sub",
        };
        let scheduled = start + spec.joins_at;
        Self {
            identity: format!("{role}-{index}"),
            local_ip: [10, 0, 0, 1 + index as u8].into(),
            relay: relay_of(index),
            options: PeerOptions {
                transport: Transport::Only(spec.way),
                ..PeerOptions::new(identity())
            },
            spec,
            stage: Stage::Waiting,
            scheduled,
            session: None,
            signal: false,
            peer: None,
            peers: 0,
            sockets: BTreeMap::new(),
            sockets_made: 0,
            peer_wake: scheduled,
            connected: false,
            stands: false,
            joined: false,
            session_missing: true,
            missing_until: None,
            closed_until: None,
            tried: 0,
            dial: None,
            late: VecDeque::new(),
            covers_at: scheduled,
            rng: fastrand::Rng::with_seed(seed ^ (index as u64 + 1).wrapping_mul(0x9e37_79b9)),
            scratch: Scratch::default(),
            sink: Sink::default(),
            out: Out::default(),
        }
    }

    /// Records what it receives.
    pub fn record(&mut self, disk: DiskHandle) {
        self.sink.recorder = Some(Recorder::new(disk, self.identity.clone()));
    }

    /// What became of its recordings, if it has any.
    #[must_use]
    pub fn recorder(&self) -> Option<&Recorder> {
        self.sink.recorder.as_ref()
    }

    /// When it joins.
    #[must_use]
    pub fn scheduled(&self) -> Instant {
        self.scheduled
    }

    /// It stands: session and media.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.stage == Stage::Here && self.joined && self.missing_until.is_none()
    }

    /// It is there, or on its way back.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.stage == Stage::Here
    }

    /// Nothing is left of it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over && self.peer.is_none()
    }

    /// It has a peer.
    #[must_use]
    pub fn has_peer(&self) -> bool {
        self.peer.is_some()
    }

    /// It was up once.
    #[must_use]
    pub fn has_joined(&self) -> bool {
        self.joined
    }

    /// How many peers it had; the address behind its NAT changes with each.
    #[must_use]
    pub fn peers(&self) -> u64 {
        self.peers
    }

    /// When it has something to do.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        let session = self.session.as_ref().and_then(Session::next_timeout);
        let peer = self.peer.as_ref().map(|_| self.peer_wake);
        match self.stage {
            Stage::Waiting => Some(self.scheduled),
            Stage::Over => None,
            Stage::Leaving(until) => peer.into_iter().chain([until]).min(),
            Stage::Here => {
                let dial = self.dial.map(|(at, _)| at);
                let late = self.late.front().map(|(at, _)| *at);
                let all = [session, peer, dial, late, self.missing_until, self.closed_until];
                all.into_iter().flatten().min()
            }
        }
    }

    /// Does what is due.
    pub fn advance(&mut self, now: Instant) {
        match self.stage {
            Stage::Waiting if now >= self.scheduled => {
                self.stage = Stage::Here;
                self.start(now);
            }
            Stage::Leaving(until) if now >= until => {
                self.hang_up();
                self.close(now);
                self.stage = Stage::Over;
                return;
            }
            Stage::Waiting | Stage::Over => return,
            Stage::Leaving(_) | Stage::Here => {}
        }
        if self.stage == Stage::Here {
            if let Some((at, dial)) = self.dial
                && now >= at
            {
                self.dial = None;
                match dial {
                    Dial::Anew => self.start(now),
                    Dial::Resume => self.dial_again(),
                }
            }
            while let Some((_, input)) = self.late.pop_front_if(|(at, _)| now >= *at) {
                self.tell_session(input);
            }
            if self.closed_until.is_some_and(|at| now >= at) {
                self.closed_until = None;
                let reason = MediaFailure::Closed.to_string();
                self.tell_session(MediaInput::Disconnected { reason });
            }
            if self.missing_until.is_some_and(|at| now >= at) {
                self.fall(now, &Why::other("media_timeout"), WayBack::Reconnect, false);
            }
            if let Some(session) = &mut self.session
                && session.next_timeout().is_some_and(|at| now >= at)
            {
                session.handle_timeout(now);
            }
        }
        if let Some(peer) = &mut self.peer
            && now >= self.peer_wake
        {
            peer.handle_timeout(now);
        }
        self.settle(now);
    }

    /// A datagram came.
    pub fn datagram(&mut self, at: Arrival, socket: u16, source: SocketAddr, payload: &[u8]) {
        let via = self.sockets.iter().find(|(_, number)| **number == socket).map(|(via, _)| *via);
        if let (Some(peer), Some(via)) = (&mut self.peer, via) {
            peer.received_on(via);
            if let Some((source, payload)) = peer.relayed(at, via, source, payload) {
                peer.handle_datagram(at, source, payload, &mut self.scratch);
            }
            self.peer_wake = at.instant;
        }
    }

    /// The websocket is open.
    pub fn opened(&mut self, now: Instant, first_offer: Option<String>) {
        if self.stage != Stage::Here {
            return self.hang_up();
        }
        self.out.trace.push("websocket");
        match &mut self.session {
            Some(session) => {
                session.resume(now);
                self.missing_until = Some(now + STANDS_WITHIN);
            }
            None => {
                let options = SessionOptions {
                    version: self.spec.version,
                    first_offer,
                    ..SessionOptions::new(self.spec.role())
                };
                self.session = Some(Session::new(options, now));
            }
        }
        self.settle(now);
    }

    /// Nobody listens, or the join was refused.
    pub fn refused(&mut self, now: Instant) {
        self.out.trace.push("refused");
        self.signal = false;
        let why = Why::from(ErrorKind::Refused);
        match &self.session {
            Some(_) => {
                self.out.news.push(News::Broke(why.clone()));
                self.later(now, Dial::Resume, false, &why);
            }
            None => self.fall(now, &why, WayBack::Reconnect, false),
        }
    }

    /// A message of the server's.
    pub fn message(&mut self, now: Instant, message: &Bytes) {
        if let Some(session) = &mut self.session {
            session.handle_message(now, message);
            self.settle(now);
        }
    }

    /// The websocket is gone: closed in order, or not.
    pub fn signal_ended(&mut self, now: Instant, in_order: bool) {
        self.signal = false;
        let reason = match in_order {
            true => EndReason::Closed { code: 1000, text: String::new() },
            false => EndReason::ConnectionLost { detail: "reset".to_owned() },
        };
        match &mut self.session {
            Some(session) => {
                session.handle_transport_end(reason);
                self.settle(now);
            }
            // It was not open yet.
            None => self.fall(now, &Why::from(ErrorKind::Unreachable), WayBack::Reconnect, false),
        }
    }

    /// It leaves.
    pub fn leave(&mut self, now: Instant) {
        if self.stage != Stage::Here {
            return;
        }
        self.out.trace.push("leaves");
        self.out.news.push(News::Left);
        if let Some(peer) = &mut self.peer {
            peer.update(PeerUpdate::Leaving);
        }
        self.stage = Stage::Leaving(now + CLOSES_AFTER);
        (self.dial, self.missing_until, self.closed_until) = (None, None, None);
        match &mut self.session {
            Some(session) => session.leave(),
            // It was on its way.
            None => self.hang_up(),
        }
        self.settle(now);
    }

    /// Begins a session: a peer, and a websocket.
    fn start(&mut self, now: Instant) {
        self.out.trace.push("starts");
        self.peers += 1;
        let role = PeerRole {
            receives: self
                .spec
                .subscribes
                .then(|| Receives { record: true, ..Receives::default() }),
            tracks: self.spec.tracks().map(|(_, track)| track).collect(),
            ..PeerRole::default()
        };
        self.sockets.clear();
        let own = (self.spec.way == PathKind::Udp).then(|| self.socket(LocalId::default()));
        let peer = Peer::with_role(now, own, &self.options, role).unwrap();
        let mut peer = Box::new(peer);
        if self.spec.way.is_relayed() {
            let server = TurnServer {
                by: self.spec.way,
                host: self.relay.ip().to_string().into(),
                address: Some(self.relay),
                username: USER.into(),
                credential: PASSWORD.into(),
            };
            peer.set_turn_servers(now, vec![server], false);
        }
        let single = (self.spec.version == SignalVersion::V1).then(|| {
            self.spec.subscribes.then(|| proto::SessionDescription {
                r#type: "offer".to_owned(),
                sdp: peer.create_offer(now, FIRST_SLOTS, false).unwrap(),
                id: FIRST_OFFER_ID,
                ..proto::SessionDescription::default()
            })
        });
        self.peer = Some(peer);
        self.peer_wake = now;
        (self.connected, self.stands, self.session_missing) = (false, false, true);
        self.missing_until = Some(now + if self.joined { STANDS_WITHIN } else { JOINS_WITHIN });
        self.signal = true;
        self.out.signalling.push(Signalling::Join(single));
    }

    /// Another socket, and where it is behind its NAT.
    fn socket(&mut self, via: LocalId) -> SocketAddr {
        self.sockets_made += 1;
        self.sockets.insert(via, self.sockets_made);
        SocketAddr::new(self.local_ip, 40_000 + self.sockets_made)
    }

    /// It has this socket.
    #[must_use]
    pub fn has_socket(&self, number: u16) -> bool {
        self.peer.is_some() && self.sockets.values().any(|own| *own == number)
    }

    /// Does what the peer asks for beside its datagrams.
    fn addresses(&mut self, now: Instant) {
        for request in std::mem::take(&mut self.sink.requests) {
            match request {
                AddressRequest::Relay { via, .. } => {
                    let local = self.socket(via);
                    if let Some(peer) = &mut self.peer {
                        peer.stream_connected(now, via, local);
                    }
                }
                AddressRequest::Close { via } => {
                    // What it has sent last is on its way.
                    self.take_sink();
                    self.sockets.remove(&via);
                }
                AddressRequest::Open { .. } | AddressRequest::Connect { .. } => {
                    panic!("{}: {request:?}", self.identity)
                }
            }
        }
    }

    fn dial_again(&mut self) {
        self.out.trace.push("resumes");
        self.signal = true;
        self.out.signalling.push(Signalling::Resume);
    }

    /// Dials after the pause that is due, or gives up.
    fn later(&mut self, now: Instant, dial: Dial, asked_for: bool, why: &Why) {
        let Some(&pause_ms) = PAUSES_MS.get(self.tried) else {
            return self.give_up(now, why);
        };
        let jitter = if self.tried >= JITTER_FROM { self.rng.u64(..1_000) } else { 0 };
        self.tried += 1;
        let pause = if asked_for { 0 } else { pause_ms + jitter };
        self.dial = Some((now + Duration::from_millis(pause), dial));
    }

    fn give_up(&mut self, now: Instant, why: &Why) {
        self.out.trace.push("gives up");
        self.out.news.push(News::GaveUp(why.clone()));
        self.hang_up();
        self.close(now);
        self.session = None;
        self.dial = None;
        self.stage = Stage::Over;
    }

    fn hang_up(&mut self) {
        if std::mem::take(&mut self.signal) {
            self.out.signalling.push(Signalling::HangUp);
        }
    }

    /// The session is over; another follows, if one can.
    fn fall(&mut self, now: Instant, why: &Why, back: WayBack, asked_for: bool) {
        if self.stage != Stage::Here {
            return;
        }
        self.out.trace.push("falls");
        self.out.news.push(News::Broke(why.clone()));
        if let Some(mut session) = self.session.take() {
            session.leave();
            while let Some(output) = session.poll_output() {
                if let (Output::Send(request), true) = (output, self.signal) {
                    self.out.signalling.push(Signalling::Say(request.encode_to_vec()));
                }
            }
        }
        self.hang_up();
        self.close(now);
        (self.missing_until, self.closed_until) = (None, None);
        match (back, self.joined) {
            (WayBack::None, _) => self.give_up(now, why),
            (_, true) => self.later(now, Dial::Anew, asked_for, why),
            (_, false) if self.tried < PAUSES_MS.len() => {
                self.tried += 1;
                self.dial = Some((now + RETRY_AFTER, Dial::Anew));
            }
            (_, false) => self.give_up(now, why),
        }
    }

    /// The session ended by itself, or because its media did.
    fn ended(&mut self, now: Instant, why: &EndReason) {
        if self.stage != Stage::Here {
            return;
        }
        self.out.trace.push("ended");
        let told = Why::from(why.kind());
        let can_resume = self.session.as_ref().is_some_and(Session::can_resume);
        let asked_for = why.is_asked_for() && !self.session_missing;
        if why.way_back() == WayBack::Resume && can_resume && self.connected && self.joined {
            self.out.news.push(News::Broke(told.clone()));
            self.session_missing = true;
            self.closed_until = None;
            // Counted from the new websocket.
            self.missing_until = Some(now + NEVER);
            self.hang_up();
            return self.later(now, Dial::Resume, asked_for, &told);
        }
        let back = match why.way_back() {
            WayBack::None => WayBack::None,
            WayBack::Resume | WayBack::Reconnect => WayBack::Reconnect,
        };
        self.fall(now, &told, back, asked_for);
    }

    fn close(&mut self, now: Instant) {
        self.late.clear();
        let Some(mut peer) = self.peer.take() else { return };
        peer.close(now, &mut self.sink);
        if let Some(recorder) = &mut self.sink.recorder {
            recorder.finish();
        }
        self.sink.events.clear();
        self.take_sink();
        let peers = self.peers;
        let news = &mut self.out.news;
        peer.covers(&mut |cover| {
            news.push(News::Cover(peers << 32 | u64::from(cover.stream), cover));
        });
        news.push(News::Closed(Box::new(peer.final_report(now))));
    }

    fn take_sink(&mut self) {
        for (via, to, bytes) in self.sink.datagrams.drain(..) {
            if let Some(socket) = self.sockets.get(&via) {
                self.out.datagrams.push((*socket, to, bytes));
            }
        }
        for (track, kind, data) in self.sink.frames.drain(..) {
            self.out.news.push(News::Frame(track, kind, data));
        }
    }

    fn tell_session(&mut self, input: MediaInput) {
        if let Some(session) = &mut self.session {
            session.handle_media(input);
        }
    }

    /// Session and peer tell each other what they have to say, until nothing is left.
    fn settle(&mut self, now: Instant) {
        for _ in 0..ROUNDS_MAX {
            self.outputs(now);
            let Some(peer) = &mut self.peer else { return self.look() };
            self.peer_wake = peer.drain(now, &mut self.sink);
            if now >= self.covers_at {
                self.covers_at = now + Duration::from_secs(1);
                let (peers, news) = (self.peers, &mut self.out.news);
                peer.covers(&mut |cover| {
                    news.push(News::Cover(peers << 32 | u64::from(cover.stream), cover));
                });
            }
            let events = std::mem::take(&mut self.sink.events);
            self.take_sink();
            let asks = !self.sink.requests.is_empty();
            self.addresses(now);
            let quiet = events.is_empty() && !asks && self.peer_wake > now;
            events.into_iter().for_each(|event| self.heard(now, event));
            if quiet {
                return self.look();
            }
            if self.peer_wake <= now
                && let Some(peer) = &mut self.peer
            {
                peer.handle_timeout(now);
            }
        }
        panic!("{} has work without end at one moment", self.identity);
    }

    fn look(&mut self) {
        let settled = self.session.as_ref().is_some_and(Session::can_resume);
        if self.stage == Stage::Here
            && self.missing_until.is_some()
            && !self.session_missing
            && self.stands
            && settled
        {
            self.missing_until = None;
            self.joined = true;
            self.tried = 0;
            self.out.trace.push("stands");
            self.out.news.push(News::Stands);
        }
    }

    fn heard(&mut self, now: Instant, event: PeerEvent) {
        let target = match (self.spec.version, self.spec.publishes()) {
            (SignalVersion::V0, false) => Target::Subscriber,
            _ => Target::Publisher,
        };
        match event {
            PeerEvent::IceConnected => {
                self.out.trace.push("ice");
                self.stands = self.connected;
            }
            PeerEvent::Connected => {
                self.out.trace.push("dtls");
                (self.connected, self.stands) = (true, true);
            }
            PeerEvent::FirstPacket { .. } => self.out.trace.push("first packet"),
            PeerEvent::FirstKeyframe { .. } => self.out.trace.push("first keyframe"),
            PeerEvent::LocalCandidate { candidate } => {
                self.tell_session(MediaInput::LocalCandidate { target, candidate });
            }
            PeerEvent::Disconnected { failure } => {
                self.out.trace.push("disconnected");
                self.stands = false;
                if !self.connected {
                    self.fall(now, &Why::other(failure.kind()), WayBack::Reconnect, false);
                } else if self.missing_until.is_some() {
                    // On the way back ICE is restarted anyhow.
                } else if *failure == MediaFailure::Closed {
                    self.closed_until = Some(now + WORD_WITHIN);
                } else {
                    let reason = failure.to_string();
                    self.tell_session(MediaInput::Disconnected { reason });
                }
            }
            PeerEvent::NextFrame { .. }
            | PeerEvent::Path { .. }
            | PeerEvent::Speaks { .. }
            | PeerEvent::BackupRefused { .. } => {}
        }
    }

    /// Does what the session asks for.
    fn outputs(&mut self, now: Instant) {
        while let Some(output) = self.session.as_mut().and_then(Session::poll_output) {
            match output {
                Output::Send(request) => {
                    if self.signal {
                        self.out.signalling.push(Signalling::Say(request.encode_to_vec()));
                    }
                }
                Output::Media(command) => self.command(now, command),
                Output::Event(SessionEvent::Ended(why)) => self.ended(now, &why),
                Output::Event(event) => self.event(event),
            }
        }
    }

    fn command(&mut self, now: Instant, command: MediaCommand) {
        let Some(peer) = &mut self.peer else { return };
        self.peer_wake = now;
        let answer = match command {
            MediaCommand::RemoteOffer { id, sdp, mid_to_track_id } => peer
                .accept_offer(now, &sdp, &mid_to_track_id)
                .map(|sdp| Some(MediaInput::LocalAnswer { offer_id: id, sdp })),
            MediaCommand::CreateOffer { id, added, publish } => {
                let offer = peer.create_offer(now, added, publish);
                offer.map(|sdp| Some(MediaInput::LocalOffer { id, sdp }))
            }
            MediaCommand::RestartIce { id } => {
                peer.restart_ice(now).map(|sdp| Some(MediaInput::LocalOffer { id, sdp }))
            }
            MediaCommand::RemoteAnswer { sdp, mid_to_track_id } => {
                peer.accept_answer(now, &sdp, &mid_to_track_id).map(|()| None)
            }
            MediaCommand::RemoteCandidate { candidate, .. } => {
                peer.add_remote_candidate(now, &candidate).map(|()| None)
            }
            MediaCommand::TurnServers { .. } => Ok(None),
        };
        match answer {
            Ok(Some(input)) => self.late.push_back((now + self.spec.answers_after, input)),
            Ok(None) => {}
            Err(error) => {
                self.out.trace.push("negotiation failed");
                self.tell_session(MediaInput::NegotiationFailed { reason: error.to_string() });
            }
        }
    }

    fn event(&mut self, event: SessionEvent) {
        let mut update = None;
        match event {
            SessionEvent::Joined(_) => {
                self.out.trace.push("joined");
                self.session_missing = false;
            }
            SessionEvent::Resumed => {
                self.out.trace.push("resumed");
                self.session_missing = false;
                if self.spec.publishes() {
                    self.stands = false;
                }
            }
            SessionEvent::TrackPublished { cid, .. } => {
                self.out.trace.push("published");
                let kind = if cid == "cam" { MediaKind::Video } else { MediaKind::Audio };
                self.out.news.push(News::Published(kind));
            }
            SessionEvent::TrackAvailable(track) => {
                let news = News::Available(track.sid.clone(), track.publisher_identity, track.kind);
                self.out.news.push(news);
                let muted = track.muted;
                update = Some(PeerUpdate::Track { track_id: track.sid, same_clock: true, muted });
            }
            SessionEvent::TrackSubscribed { .. } => self.out.trace.push("subscribed"),
            SessionEvent::TrackUnsubscribed { .. } => self.out.trace.push("unsubscribed"),
            SessionEvent::TrackGone { sid, departure } => {
                self.out.trace.push("track gone");
                let orderly = departure.is_orderly();
                update = Some(PeerUpdate::TrackGone { track_id: sid, orderly });
            }
            SessionEvent::StreamState { sid, paused } => {
                self.out.trace.push(if paused { "paused" } else { "goes on" });
                self.out.news.push(News::Wanted(sid.clone(), !paused));
                update = Some(PeerUpdate::Paused { track_id: sid, paused });
            }
            SessionEvent::TrackWanted { sid, wanted, .. } => {
                update = Some(PeerUpdate::Paused { track_id: sid, paused: !wanted });
            }
            SessionEvent::PublishRefused { .. } => self.out.trace.push("publish refused"),
            SessionEvent::SubscriptionFailed { .. } => self.out.trace.push("subscription failed"),
            _ => {}
        }
        if let (Some(update), Some(peer)) = (update, &mut self.peer) {
            peer.update(update);
        }
    }
}
