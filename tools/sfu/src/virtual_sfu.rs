//! A whole SFU in virtual time: rooms and media workers without sockets, threads and clocks, for the
//! simulator. Whoever has one moves its time, and carries its datagrams and messages. No part of the
//! crate's interface.

#![allow(clippy::unwrap_used, reason = "for tests, which may panic")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use livekit_protocol as proto;
use livekit_token::{AccessToken, Claims, VideoGrants};
use prost::Message as _;
use proto::signal_response::Message;
use stampede_core::crypto::provider;
use stampede_impair::Cohorts;
use stampede_udp::{BackendChoice, BackendLimits, SocketId, Waker};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{Notify, mpsc};

use crate::bench_support::{Memory, Wire};
use crate::faults::{Malformer, Refusals};
use crate::hub::outbox::{OUTBOX_MESSAGES_MAX, Outbox, OutboxItem, SignalKey};
use crate::hub::{Client, Connections, Hub, JoinRequest, UnknownParticipant, messages};
use crate::media::connection::ConnectionConfig;
use crate::media::events::{EVENTS_MAX, EventQueue};
use crate::media::factory::PeerFactory;
use crate::media::handle::WorkerHandle;
use crate::media::message::Event;
use crate::media::siblings::Siblings;
use crate::media::socket::MediaSocket;
use crate::media::worker::{Worker, WorkerParts};
use crate::report::merge;
use crate::{Ledger, SfuOptions};

/// As the real one looks at its rooms (`server.rs`).
const TICK: Duration = Duration::from_millis(500);
/// Turns at one moment. Work that makes itself new work without end is a bug.
const TURNS_MAX: usize = 10_000;

thread_local! {
    /// The time by the workers' clock.
    static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
    /// What the workers' threads have used of their cores, each the same.
    static CPU: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// The certificate is the dear part of an SFU, and nobody tells them apart by it.
    static CONFIG: RefCell<Option<ConnectionConfig>> = const { RefCell::new(None) };
}

/// The workers' clock.
fn now() -> Instant {
    NOW.get().unwrap_or_else(Instant::now)
}

fn cpu() -> Duration {
    CPU.get()
}

/// Nobody sleeps who could be woken, but nothing else makes one.
fn waker() -> Waker {
    static WAKER: OnceLock<Waker> = OnceLock::new();
    let open = || stampede_udp::open(BackendChoice::Mmsg, BackendLimits::default());
    WAKER.get_or_init(|| open().unwrap().0.waker()).clone()
}

/// A client's websocket at the SFU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SignalId(u64);

/// What comes out of a websocket.
#[derive(Debug, Clone)]
pub enum Said {
    /// A binary frame.
    Frame(Vec<u8>),
    /// The SFU closed it: nothing follows.
    Close,
}

/// Who joins.
#[derive(Debug, Clone)]
pub struct VirtualJoin<'a> {
    /// The room.
    pub room: &'a str,
    /// Its identity.
    pub identity: &'a str,
    /// It may publish.
    pub publishes: bool,
    /// It may subscribe, and is subscribed to everything.
    pub subscribes: bool,
    /// Over a single connection (v1), with this first offer, if it has one; else by v0.
    pub single: Option<Option<proto::SessionDescription>>,
}

/// What is left in an SFU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Participants of all rooms.
    pub participants: usize,
    /// Rooms.
    pub rooms: usize,
    /// Peer connections that the rooms know.
    pub known_peers: usize,
    /// Websockets that the rooms know.
    pub signals: usize,
    /// Participants by which workers are chosen.
    pub load: usize,
    /// Peer connections of workers.
    pub peers: usize,
    /// Tracks of workers.
    pub tracks: usize,
}

struct Socket {
    key: SignalKey,
    queue: mpsc::Receiver<OutboxItem>,
    overflow: Arc<Notify>,
}

struct Part {
    worker: Worker,
    handle: WorkerHandle,
    wire: Rc<RefCell<Wire>>,
}

/// An SFU in virtual time.
pub struct VirtualSfu {
    now: Instant,
    parts: Vec<Part>,
    hub: Hub,
    events: mpsc::Receiver<Event>,
    sockets: BTreeMap<SignalId, Socket>,
    sockets_made: u64,
    next_tick: Instant,
}

impl VirtualSfu {
    /// Starts one at this moment by both clocks, its first worker at `address` and the others at the
    /// ports after it.
    pub fn new(options: &SfuOptions, address: SocketAddr, at: Instant, wall: SystemTime) -> Self {
        NOW.set(Some(at));
        CPU.set(Duration::ZERO);
        let (events_out, events) = mpsc::channel(EVENTS_MAX);
        let config = CONFIG.with_borrow_mut(|known| {
            let new = || ConnectionConfig::generate(provider()).unwrap();
            known.get_or_insert_with(new).clone().with_congestion(options.congestion)
        });
        let cohorts = Cohorts::new(options.impair.clone(), options.seed, at);
        let all = Arc::new(OnceLock::new());
        let mut parts = Vec::new();
        for index in 0..options.workers {
            let address = SocketAddr::new(address.ip(), address.port() + index as u16);
            let (handle, inbox) = WorkerHandle::new(waker(), address);
            let wire = Rc::new(RefCell::new(Wire::listened_to()));
            let memory = Memory { wire: wire.clone(), waker: waker() };
            let faults = &options.faults;
            let malformer = Malformer::new(faults.malformed, options.seed ^ index as u64);
            let parts_of = WorkerParts {
                index,
                socket: MediaSocket::new(Box::new(memory), SocketId(0), malformer),
                inbox,
                events: EventQueue::new(events_out.clone()),
                siblings: Siblings::new(Arc::clone(&all)),
                factory: PeerFactory::new(
                    config.clone(),
                    cohorts.clone(),
                    faults.drop_upstream,
                    options.seed,
                    address,
                ),
                withhold_keyframes: faults.withhold_keyframes,
                drop_data: (faults.drop_data, options.seed.wrapping_add(index as u64)),
            };
            let mut worker = Worker::new(parts_of, now);
            worker.set_wall(wall);
            worker.set_cpu(cpu);
            parts.push(Part { worker, handle, wire });
        }
        let handles: Vec<_> = parts.iter().map(|part| part.handle.clone()).collect();
        let _ = all.set(handles.clone());
        let refusals = Refusals::new(options.faults.refuse_joins);
        let hub = Hub::new(handles, refusals, options.departure_time, options.seed, at);
        Self {
            now: at,
            parts,
            hub,
            events,
            sockets: BTreeMap::new(),
            sockets_made: 0,
            next_tick: at + TICK,
        }
    }

    /// It is so late now; to be called before anything is given to it.
    pub fn begin_turn(&mut self, at: Instant) {
        self.now = at;
        NOW.set(Some(at));
        self.hub.begin_turn(at);
        self.parts.iter_mut().for_each(|part| part.worker.begin_turn(at));
    }

    /// Lets a client in, whose token nobody asks for; else its goodbye.
    ///
    /// # Errors
    /// The frame that it is told before its websocket closes, or nothing if joins are refused.
    pub fn join(&mut self, join: &VirtualJoin<'_>) -> Result<SignalId, Option<Vec<u8>>> {
        if self.hub.refuses() {
            return Err(None);
        }
        let connections = match &join.single {
            Some(offer) => Connections::Single { offer: offer.clone(), tracks: Vec::new() },
            None => Connections::Dual { protocol: 17 },
        };
        let request = JoinRequest {
            claims: claims(join),
            connections,
            auto_subscribe: true,
            auto_subscribe_data_track: false,
            client: Client::default(),
            adaptive_stream: false,
            allow_pause: false,
            sdk: "simulator".to_owned(),
        };
        let (outbox, open) = self.socket();
        let key = self.hub.join(request, outbox).map_err(|reason| Some(goodbye(reason)))?;
        Ok(self.opened(key, open))
    }

    /// Lets a client take up its session.
    ///
    /// # Errors
    /// The frame that it is told before its websocket closes.
    pub fn resume(&mut self, join: &VirtualJoin<'_>) -> Result<SignalId, Option<Vec<u8>>> {
        let (outbox, open) = self.socket();
        let key = self
            .hub
            .resume(&claims(join), outbox)
            .map_err(|UnknownParticipant| Some(goodbye(proto::DisconnectReason::StateMismatch)))?;
        Ok(self.opened(key, open))
    }

    fn socket(&self) -> (Outbox, (mpsc::Receiver<OutboxItem>, Arc<Notify>)) {
        let (queue, outgoing) = mpsc::channel(OUTBOX_MESSAGES_MAX);
        let overflow = Arc::new(Notify::new());
        (Outbox { queue, overflow: overflow.clone() }, (outgoing, overflow))
    }

    fn opened(
        &mut self,
        key: SignalKey,
        (queue, overflow): (mpsc::Receiver<OutboxItem>, Arc<Notify>),
    ) -> SignalId {
        self.sockets_made += 1;
        let id = SignalId(self.sockets_made);
        self.sockets.insert(id, Socket { key, queue, overflow });
        id
    }

    /// A client says something on its websocket.
    pub fn hear(&mut self, signal: SignalId, frame: &[u8]) {
        let Some(key) = self.sockets.get(&signal).map(|socket| socket.key) else { return };
        if let Ok(proto::SignalRequest { message: Some(message) }) =
            proto::SignalRequest::decode(frame)
        {
            self.hub.request(key, message);
        }
    }

    /// A client's websocket is gone without a word.
    pub fn lose(&mut self, signal: SignalId) {
        if let Some(socket) = self.sockets.remove(&signal) {
            self.hub.signal_lost(socket.key);
        }
    }

    /// What is to leave by websockets, in order.
    pub fn said(&mut self) -> Vec<(SignalId, Said)> {
        let mut said = Vec::new();
        let mut closed = Vec::new();
        let mut lost = Vec::new();
        for (&id, socket) in &mut self.sockets {
            let mut context = Context::from_waker(std::task::Waker::noop());
            if let Poll::Ready(()) = pin!(socket.overflow.notified()).poll(&mut context) {
                self.hub.count_signalling_overflow();
                lost.push(id);
            }
            loop {
                match socket.queue.try_recv() {
                    Ok(OutboxItem::Frame(frame)) => said.push((id, Said::Frame(frame.to_vec()))),
                    // Of no use to anybody here.
                    Ok(OutboxItem::FreshToken) => {}
                    Ok(OutboxItem::Close(_)) | Err(TryRecvError::Disconnected) => {
                        said.push((id, Said::Close));
                        closed.push(id);
                        break;
                    }
                    Err(TryRecvError::Empty) => break,
                }
            }
        }
        for id in closed {
            self.sockets.remove(&id);
        }
        for id in lost {
            if self.sockets.contains_key(&id) {
                said.push((id, Said::Close));
                self.lose(id);
            }
        }
        said
    }

    /// A datagram comes from there to the worker at `destination`.
    pub fn receive(&mut self, source: SocketAddr, destination: SocketAddr, datagram: &[u8]) {
        let of = |part: &&mut Part| part.handle.address() == destination;
        if let Some(part) = self.parts.iter_mut().find(of) {
            part.worker.take_datagram(source, datagram);
        }
    }

    /// A datagram comes to the worker at `destination` whose receive buffer is full.
    pub fn drop_received(&mut self, destination: SocketAddr) {
        let of = |part: &&Part| part.handle.address() == destination;
        if let Some(part) = self.parts.iter().find(of) {
            part.wire.borrow_mut().dropped();
        }
    }

    /// Each worker's thread has used its core for so long in all.
    pub fn spent(&mut self, cpu: Duration) {
        CPU.set(cpu);
    }

    /// Does everything that is to be done at this moment.
    ///
    /// # Panics
    /// If it never ends.
    pub fn turn(&mut self) {
        if self.now >= self.next_tick {
            self.hub.tick();
            self.next_tick = self.now + TICK;
        }
        for _ in 0..TURNS_MAX {
            for part in &mut self.parts {
                part.worker.begin_turn(self.now);
                part.worker.turn();
            }
            let mut told = false;
            while let Ok(event) = self.events.try_recv() {
                told = true;
                self.hub.event(event);
            }
            let busy = |part: &Part| part.worker.sleep().is_zero();
            if !told && !self.parts.iter().any(busy) {
                return;
            }
        }
        panic!("an SFU has work without end at one moment");
    }

    /// What it sent since it was asked last: from which of its addresses, to where, and the bytes.
    pub fn sent(&mut self) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
        let mut all = Vec::new();
        for part in &mut self.parts {
            let source = part.handle.address();
            let kept = std::mem::take(&mut part.wire.borrow_mut().kept);
            all.extend(kept.into_iter().map(|(to, bytes)| (source, to, bytes)));
        }
        all
    }

    /// When there is something to do, if nothing comes before.
    pub fn next(&self) -> Instant {
        let sleeps = self.parts.iter().map(|part| self.now + part.worker.sleep());
        sleeps.fold(self.next_tick, Instant::min)
    }

    /// What it counted.
    pub fn ledger(&mut self) -> Ledger {
        let answers: Vec<_> = self.parts.iter().map(|part| part.handle.ask()).collect();
        self.turn();
        let reports = answers.into_iter().map(|answer| answer.try_recv().unwrap()).collect();
        let mut ledger = self.hub.ledger();
        merge(&mut ledger, reports);
        ledger
    }

    /// What is left in it.
    pub fn census(&self) -> Census {
        let [participants, rooms, known_peers, signals, load] = self.hub.census();
        let mut census =
            Census { participants, rooms, known_peers, signals, load, ..Census::default() };
        for part in &self.parts {
            let [peers, tracks] = part.worker.census();
            census.peers += peers;
            census.tracks += tracks;
        }
        census
    }
}

fn claims(join: &VirtualJoin<'_>) -> Claims {
    let video = VideoGrants {
        room_join: true,
        room: join.room.to_owned(),
        can_publish: Some(join.publishes),
        can_subscribe: Some(join.subscribes),
        ..VideoGrants::default()
    };
    let token = AccessToken::with_api_key("key", "a-secret-of-32-characters-at-least");
    let token = token.with_identity(join.identity).with_grants(video).to_jwt();
    Claims::from_unverified(&token.unwrap()).unwrap()
}

fn goodbye(reason: proto::DisconnectReason) -> Vec<u8> {
    messages::frame(Message::Leave(messages::leave(reason))).to_vec()
}
