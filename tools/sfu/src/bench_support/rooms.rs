//! The rooms without websockets and workers.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use livekit_token::{AccessToken, Claims, VideoGrants};
use stampede_udp::{BackendChoice, BackendLimits, Waker};
use tokio::sync::{Notify, mpsc};

use crate::faults::Refusals;
use crate::hub::outbox::{OUTBOX_MESSAGES_MAX, Outbox, OutboxItem, SignalKey};
use crate::hub::{Client, Connections, Hub, JoinRequest};
use crate::media::handle::{Inbox, WorkerHandle};
use crate::media::message::{Command, Event, PeerKey};

const ROOM: &str = "room";
const DEPARTURE_TIME: Duration = Duration::from_secs(5);

thread_local! {
    /// Nothing but a backend can make one, which takes megabytes.
    static WAKER: Waker = stampede_udp::open(BackendChoice::Mmsg, BackendLimits::default())
        .unwrap()
        .0
        .waker();
}

/// Somebody's websocket.
struct Socket {
    identity: &'static str,
    key: SignalKey,
    queue: mpsc::Receiver<OutboxItem>,
}

/// Rooms with two participants, of whom one speaks v0 and one v1, and a worker that does nothing.
pub struct Rooms {
    hub: Hub,
    inbox: Inbox,
    now: Instant,
    sockets: Vec<Socket>,
    peers: Vec<PeerKey>,
    /// Bytes that participants were told so far.
    pub told_bytes: usize,
}

/// What a token of this participant says.
pub(crate) fn claims(identity: &str) -> Claims {
    let video = VideoGrants { room_join: true, room: ROOM.into(), ..VideoGrants::default() };
    let token = AccessToken::with_api_key("key", "a-secret-of-32-characters-at-least")
        .with_identity(identity)
        .with_grants(video)
        .to_jwt();
    Claims::from_unverified(&token.unwrap()).unwrap()
}

/// A websocket's two ends.
pub(crate) fn outbox() -> (Outbox, mpsc::Receiver<OutboxItem>) {
    let (queue, received) = mpsc::channel(OUTBOX_MESSAGES_MAX);
    (Outbox { queue, overflow: Arc::new(Notify::new()) }, received)
}

impl Default for Rooms {
    fn default() -> Self {
        let waker = WAKER.with(Waker::clone);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let (worker, inbox) = WorkerHandle::new(waker, address);
        let now = Instant::now();
        let hub = Hub::new(vec![worker], Refusals::new(0.0), DEPARTURE_TIME, 1, now);
        let (sockets, peers) = (Vec::new(), Vec::new());
        let mut rooms = Self { hub, inbox, now, sockets, peers, told_bytes: 0 };
        rooms.joins("alice", Connections::Dual { protocol: 17 });
        rooms.joins("bob", Connections::Single { offer: None, tracks: Vec::new() });
        rooms
    }
}

impl Rooms {
    fn joins(&mut self, identity: &'static str, connections: Connections) {
        let (outbox, queue) = outbox();
        let request = JoinRequest {
            claims: claims(identity),
            connections,
            auto_subscribe: true,
            auto_subscribe_data_track: true,
            client: Client::default(),
            adaptive_stream: false,
            allow_pause: false,
            sdk: String::new(),
        };
        let key = self.hub.join(request, outbox).unwrap();
        self.sockets.push(Socket { identity, key, queue });
        self.settle();
    }

    /// What the worker is told is done, as far as the rooms can know, and websockets are read.
    fn settle(&mut self) {
        while let Some(command) = self.inbox.pressing().or_else(|| self.inbox.command().ok()) {
            if let Command::AddPeer { peer, .. } = command {
                self.peers.push(peer);
                self.hub.event(Event::Connected { peer });
            }
        }
        for socket in &mut self.sockets {
            while let Ok(item) = socket.queue.try_recv() {
                if let OutboxItem::Frame(frame) = item {
                    self.told_bytes += frame.len();
                }
            }
        }
    }

    /// The first or the second participant says this over its websocket, as if it had never left.
    pub fn hears(&mut self, participant: usize, frame: &[u8]) {
        let socket = &self.sockets[participant % self.sockets.len()];
        match crate::bounded::request(frame) {
            Ok(Some(message)) => drop(self.hub.request(socket.key, message)),
            Ok(None) => {}
            Err(error) => self.hub.refuse_request(socket.key, &error),
        }
        self.settle();
    }

    /// A message of a data channel comes from one of the connections that there were.
    pub fn hears_data(&mut self, peer: usize, reliable: bool, payload: &[u8]) {
        let peer = self.peers[peer % self.peers.len()];
        let channel = if reliable { "_reliable" } else { "_data_track" }.to_owned();
        self.hub.event(Event::Data { peer, channel, payload: payload.to_vec() });
        self.settle();
    }

    /// The participant loses its websocket and comes back, as whom it was if that still is there.
    pub fn comes_back(&mut self, participant: usize) {
        let participant = participant % self.sockets.len();
        let Socket { identity, key, .. } = self.sockets[participant];
        self.hub.signal_lost(key);
        let (outbox, queue) = outbox();
        if let Ok(key) = self.hub.resume(&claims(identity), outbox) {
            self.sockets[participant] = Socket { identity, key, queue };
        }
        self.settle();
    }

    /// So much time passes.
    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        self.hub.begin_turn(self.now);
        self.hub.tick();
        self.settle();
    }

    /// Everybody goes, and nothing is left of them.
    ///
    /// # Panics
    /// If something is.
    pub fn close(mut self) {
        self.hub.shut_down();
        self.settle();
        let ledger = self.hub.ledger();
        let attendance = ledger.signalling.attendance;
        assert_eq!(attendance.joins, attendance.leaves, "who joined has left");
        let [_, _, known_peers, signals, load] = self.hub.census();
        assert_eq!(
            [known_peers, signals, load],
            [0; 3],
            "nobody's connection or websocket is left"
        );
    }
}
