//! Everything that there is in a run, and its time.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, Instant, UNIX_EPOCH};

use livekit_protocol as proto;
use prost::bytes::Bytes;
use stampede_core::{Arrival, PeerReport};
use stampede_media::disk::DiskReport;
use stampede_media::disk::virtual_disk::{VirtualDisk, VirtualFiles};
use stampede_sfu::virtual_sfu::{Census, Said, SignalId, VirtualJoin, VirtualSfu};
use stampede_sfu::{Ledger, SfuOptions};

use crate::accounts::Accounts;
use crate::client::Client;
use crate::link::{Class, Link, inner};
use crate::news::{News, Signalling};
use crate::plan::{Fault, Plan, Planned};
use crate::spec::relay_of;
use crate::turn_server::TurnAt;
use crate::wire::Wire;

const ROOM: &str = "room";
/// Where the SFU is.
const SFU: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 7_882);
/// What wall clocks say at the start.
const WALL_S: u64 = 1_700_000_000;
/// Ports that a NAT has for a socket, one after the other.
const PORTS_A_SOCKET: u16 = 50;
/// How long a datagram takes between a TURN server and the SFU.
const BEHIND_RELAYS: Duration = Duration::from_millis(2);
/// Datagrams that an SFU takes at once.
const BATCH_MAX: usize = 16;
/// Steps of a run at most; more mean that time stands still.
const STEPS_MAX: u64 = 2_000_000;
/// Who else does something, in the trace.
const NOBODY: u8 = u8::MAX;

/// One thing that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Happened {
    /// When, since the start.
    pub at: Duration,
    /// To which participant; the SFU is 255.
    pub peer: u8,
    /// What.
    pub kind: &'static str,
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, peer, kind } = self;
        write!(f, "{:>12.6} {peer:>3} {kind}", at.as_secs_f64())
    }
}

/// Both directions between a participant and the SFU.
pub struct Way {
    /// From the participant.
    pub up: Link,
    /// To it.
    pub down: Link,
    /// What its NAT has forgotten so far.
    rebinds: u16,
    /// Its wall clock is ahead by so much.
    clock_ahead_ns: i64,
    /// No signalling passes before.
    dark_until: Option<Instant>,
    /// Its websocket.
    signal: Option<usize>,
    /// What was seen of media to it.
    pub wire: Wire,
    /// Its TURN server, whether it uses one or not.
    relay: TurnAt,
}

/// A websocket.
struct Connection {
    client: usize,
    /// At the SFU, once it is open there.
    sfu: Option<SignalId>,
    /// Its first offer went along.
    first_offer: Option<String>,
    open: bool,
    /// It was reset before it was open at the SFU.
    cut: bool,
    /// Nothing overtakes, in either direction.
    up_at: Instant,
    down_at: Instant,
}

enum Event {
    /// From whose way, if it came by one.
    ToSfu {
        client: Option<usize>,
        source: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    /// To somebody's TURN server from the SFU, or from the participant itself by its way.
    ToRelay {
        client: usize,
        source: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    ToClient {
        client: usize,
        source: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    Dial {
        signal: usize,
        single: Option<Option<proto::SessionDescription>>,
        resume: bool,
    },
    Opened {
        signal: usize,
    },
    Refused {
        signal: usize,
    },
    Up {
        signal: usize,
        frame: Vec<u8>,
    },
    HungUp {
        signal: usize,
    },
    Down {
        signal: usize,
        frame: Bytes,
    },
    Gone {
        signal: usize,
        in_order: bool,
    },
    Begins(Planned),
    Ends(Planned),
}

/// A run.
pub struct World {
    /// What it is.
    pub plan: Plan,
    /// When it began.
    pub start: Instant,
    /// What time it is.
    pub now: Instant,
    sfu: Option<VirtualSfu>,
    options: SfuOptions,
    /// Who is there.
    pub clients: Vec<Client>,
    /// How each is reached.
    pub ways: Vec<Way>,
    signals: Vec<Connection>,
    queue: BTreeMap<(Instant, u64), Event>,
    serial: u64,
    /// Watch time.
    pub accounts: Accounts,
    /// What the SFUs counted that are dead.
    pub ledgers: Vec<Ledger>,
    /// What closed peers counted, and whose they were.
    pub reports: Vec<(usize, PeerReport)>,
    /// What happened, in order.
    pub trace: Vec<Happened>,
    /// Who gave up, and why.
    pub gave_up: Vec<(usize, String)>,
    /// RTP of the SFU that was for nobody's address.
    pub nowhere: u64,
    /// What waits in the SFU's receive buffers.
    waiting: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// Datagrams that found them full.
    pub receive_drops: u64,
    /// What the SFU's cores are busy with, while they are full.
    load: Load,
    /// Where recordings are written, if any are.
    disk: Option<VirtualDisk>,
    /// What is on it.
    pub files: Rc<RefCell<VirtualFiles>>,
}

/// Of an SFU that takes its time.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    /// For each datagram, in or out.
    each: Duration,
    /// Datagrams that may wait for it.
    room: usize,
    /// With the latest of them, it is busy until then.
    until: Option<Instant>,
    /// All of it, to the end of the latest.
    begun: Duration,
}

impl Load {
    /// What its thread has used by now, which is told no sooner than it passes: a look at it comes at any
    /// moment.
    fn spent(&self, now: Instant) -> Duration {
        let left = self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        self.begun.saturating_sub(left)
    }
}

/// Virtual time begins at the same moment in all runs of a process.
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

impl World {
    /// A run that has not begun.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let start = start();
        let mut options =
            SfuOptions { seed: plan.seed, workers: plan.workers, ..Default::default() };
        for planned in &plan.faults {
            if let Fault::ServerLoss(share) = planned.fault {
                options.impair.push(format!("loss={}%", share * 100.0).parse().unwrap());
            }
        }
        let specs = plan.clients.iter().cloned().enumerate();
        let mut clients: Vec<Client> =
            specs.map(|(index, spec)| Client::new(index, spec, start, plan.seed)).collect();
        let files = Rc::new(RefCell::new(VirtualFiles::default()));
        let disk = plan.records.map(|queue| {
            let (disk, handle) = VirtualDisk::new(start, queue, Rc::clone(&files));
            let record = clients.iter_mut().filter(|client| client.spec.subscribes);
            record.for_each(|client| client.record(handle.clone()));
            disk
        });
        let way = |index: usize| {
            let seed = plan.seed.wrapping_mul(64).wrapping_add(index as u64 * 2);
            Way {
                up: Link::new(seed, plan.clean(index)),
                down: Link::new(seed + 1, plan.clean(index)),
                rebinds: 0,
                clock_ahead_ns: 0,
                dark_until: None,
                signal: None,
                wire: Wire::default(),
                relay: TurnAt::new(relay_of(index)),
            }
        };
        let scheduled: Vec<Instant> = clients.iter().map(Client::scheduled).collect();
        let mut world = Self {
            start,
            now: start,
            sfu: None,
            options,
            ways: (0..clients.len()).map(way).collect(),
            clients,
            signals: Vec::new(),
            queue: BTreeMap::new(),
            serial: 0,
            accounts: Accounts::new(start, &scheduled),
            ledgers: Vec::new(),
            reports: Vec::new(),
            trace: Vec::new(),
            gave_up: Vec::new(),
            nowhere: 0,
            waiting: VecDeque::new(),
            receive_drops: 0,
            load: Load::default(),
            disk,
            files,
            plan,
        };
        world.start_sfu();
        for planned in world.plan.faults.clone() {
            world.push(start + planned.from, Event::Begins(planned));
            if !planned.lasts.is_zero() {
                world.push(start + planned.until(), Event::Ends(planned));
            }
        }
        world
    }

    fn start_sfu(&mut self) {
        let wall = UNIX_EPOCH + Duration::from_secs(WALL_S) + (self.now - self.start);
        // Another one has other ids.
        let options = SfuOptions {
            seed: self.options.seed.wrapping_add(self.ledgers.len() as u64),
            ..self.options.clone()
        };
        self.sfu = Some(VirtualSfu::new(&options, SFU, self.now, wall));
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.serial += 1;
        self.queue.insert((at, self.serial), event);
    }

    fn happened(&mut self, peer: usize, kind: &'static str) {
        let peer = u8::try_from(peer).unwrap_or(NOBODY);
        self.trace.push(Happened { at: self.now - self.start, peer, kind });
    }

    /// How the datagrams of a participant's socket look to the other side.
    fn mapped(&self, client: usize, socket: u16) -> SocketAddr {
        let port = 20_000 + socket * PORTS_A_SOCKET + self.ways[client].rebinds;
        SocketAddr::new([100, 64, 0, 1 + client as u8].into(), port)
    }

    fn arrival(&self, client: usize) -> Arrival {
        let since = (self.now - self.start).as_nanos() as u64;
        let unix_ns = WALL_S * 1_000_000_000 + since;
        let unix_ns = unix_ns.saturating_add_signed(self.ways[client].clock_ahead_ns);
        Arrival { instant: self.now, unix_ns }
    }

    /// Goes on until then.
    ///
    /// # Panics
    /// If time stands still.
    pub fn run_until(&mut self, end: Instant) {
        for _ in 0..STEPS_MAX {
            let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
            let clients = self.clients.iter().filter_map(Client::next);
            let sfu = self.sfu_next();
            let disk = self.disk.as_ref().map(VirtualDisk::next);
            let next =
                clients.chain(queued).chain(sfu).chain(disk).min().unwrap_or(end).max(self.now);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            self.step();
        }
        panic!("time stands still at {:?}", self.now - self.start);
    }

    /// Everything that is due at this moment.
    fn step(&mut self) {
        let now = self.now;
        if let Some(sfu) = &mut self.sfu {
            sfu.spent(self.load.spent(now));
            sfu.begin_turn(now);
        }
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= now) {
            let event = entry.remove();
            self.carry_out(event);
        }
        for client in &mut self.clients {
            if client.next().is_some_and(|at| at <= now) {
                client.advance(now);
            }
        }
        (0..self.clients.len()).for_each(|client| self.take(client));
        if let Some(disk) = &mut self.disk {
            disk.turn(now);
        }
        if self.load.until.is_none_or(|until| until <= now) {
            self.sfu_works();
        }
    }

    /// When the SFU has something to do, and the time for it.
    fn sfu_next(&self) -> Option<Instant> {
        let next = match self.waiting.is_empty() {
            true => self.sfu.as_ref()?.next(),
            false => self.now,
        };
        Some(self.load.until.map_or(next, |until| next.max(until)))
    }

    /// The SFU takes what came, and does what is due.
    fn sfu_works(&mut self) {
        let Some(sfu) = &mut self.sfu else { return };
        let batch = if self.load.each.is_zero() { usize::MAX } else { BATCH_MAX };
        let taken = self.waiting.len().min(batch);
        for (source, to, bytes) in self.waiting.drain(..taken) {
            sfu.receive(source, to, &bytes);
        }
        sfu.turn();
        let sent = self.take_sfu();
        let took = self.load.each * (taken + sent) as u32;
        self.load.begun += took;
        self.load.until = (!took.is_zero()).then_some(self.now + took);
    }

    /// Takes what the SFU has to send and to say; how many datagrams.
    fn take_sfu(&mut self) -> usize {
        let Some(sfu) = &mut self.sfu else { return 0 };
        let (sent, said) = (sfu.sent(), sfu.said());
        let count = sent.len();
        for (source, to, bytes) in sent {
            let is_its = |client: &usize| {
                let own = IpAddr::from([100, 64, 0, 1 + *client as u8]);
                to.ip() == own || to.ip() == relay_of(*client).ip()
            };
            let Some(client) = (0..self.clients.len()).find(is_its) else {
                self.nowhere += u64::from(Class::of(&bytes) == Class::Rtp);
                continue;
            };
            if to.ip() == relay_of(client).ip() {
                self.push(self.now + BEHIND_RELAYS, Event::ToRelay { client, source, to, bytes });
            } else {
                self.send_down(client, source, to, &bytes);
            }
        }
        for (id, said) in said {
            let Some(signal) = self.signals.iter().rposition(|it| it.sfu == Some(id)) else {
                continue;
            };
            let at = self.signal_at(signal, false);
            match said {
                Said::Frame(frame) => {
                    self.push(at, Event::Down { signal, frame: frame.into() });
                }
                Said::Close => {
                    self.signals[signal].sfu = None;
                    self.push(at, Event::Gone { signal, in_order: true });
                }
            }
        }
        count
    }

    /// Puts a datagram on the way to a participant.
    fn send_down(&mut self, client: usize, source: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let way = &mut self.ways[client];
        if Class::of(bytes) == Class::Rtp {
            way.wire.sent(inner(bytes));
        }
        let [first, copy] = way.down.send(self.now, bytes);
        for at in [first, copy].into_iter().flatten() {
            let bytes = bytes.to_vec();
            self.push(at, Event::ToClient { client, source, to, bytes });
        }
    }

    /// A TURN server takes a datagram, and does with it what it does.
    fn relay(&mut self, client: usize, source: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let relayed = self.ways[client].relay.take(self.now, source, to, bytes);
        if relayed.is_empty() && to != relay_of(client) {
            // Nothing is allocated there, or the SFU may not send to it.
            self.nowhere += u64::from(Class::of(bytes) == Class::Rtp);
        }
        for (from, to, bytes) in relayed {
            match to.ip() == SFU.ip() {
                true => {
                    let at = self.now + BEHIND_RELAYS;
                    self.push(at, Event::ToSfu { client: None, source: from, to, bytes });
                }
                false => self.send_down(client, from, to, &bytes),
            }
        }
    }

    /// When what is said on a websocket now is heard.
    fn signal_at(&mut self, signal: usize, up: bool) -> Instant {
        let client = self.signals[signal].client;
        let from = self.ways[client].dark_until.map_or(self.now, |until| until.max(self.now));
        let at = from + self.plan.delays[client];
        let connection = &mut self.signals[signal];
        let latest = if up { &mut connection.up_at } else { &mut connection.down_at };
        *latest = at.max(*latest);
        *latest
    }

    /// Takes what a participant has to send and to say.
    fn take(&mut self, client: usize) {
        let out = std::mem::take(&mut self.clients[client].out);
        for kind in out.trace {
            self.happened(client, kind);
        }
        for news in out.news {
            match &news {
                News::Closed(report) => self.reports.push((client, PeerReport::clone(report))),
                News::GaveUp(why) => self.gave_up.push((client, why.kind.clone())),
                _ => {}
            }
            let clients = &self.clients;
            let of = |identity: &str| clients.iter().position(|it| it.identity == identity);
            self.accounts.take(self.now, client, news, of);
        }
        for (socket, to, bytes) in out.datagrams {
            let source = self.mapped(client, socket);
            let [first, copy] = self.ways[client].up.send(self.now, &bytes);
            for at in [first, copy].into_iter().flatten() {
                let bytes = bytes.clone();
                let event = match to == relay_of(client) {
                    true => Event::ToRelay { client, source, to, bytes },
                    false => Event::ToSfu { client: Some(client), source, to, bytes },
                };
                self.push(at, event);
            }
        }
        for signalling in out.signalling {
            match signalling {
                Signalling::Join(single) => self.dial(client, single, false),
                Signalling::Resume => self.dial(client, None, true),
                Signalling::Say(frame) => {
                    if let Some(signal) = self.ways[client].signal {
                        let at = self.signal_at(signal, true);
                        self.push(at, Event::Up { signal, frame });
                    }
                }
                Signalling::HangUp => {
                    if let Some(signal) = self.ways[client].signal.take() {
                        self.signals[signal].open = false;
                        let at = self.signal_at(signal, true);
                        self.push(at, Event::HungUp { signal });
                    }
                }
            }
        }
    }

    /// A connection is made: SYN and back, then the request.
    fn dial(
        &mut self,
        client: usize,
        single: Option<Option<proto::SessionDescription>>,
        resume: bool,
    ) {
        let first_offer = single.iter().flatten().map(|offer| offer.sdp.clone()).next();
        let (up_at, down_at) = (self.now, self.now);
        self.signals.push(Connection {
            client,
            sfu: None,
            first_offer,
            open: true,
            cut: false,
            up_at,
            down_at,
        });
        let signal = self.signals.len() - 1;
        self.ways[client].signal = Some(signal);
        let at = self.signal_at(signal, true) + self.plan.delays[client] * 2;
        self.signals[signal].up_at = at;
        self.push(at, Event::Dial { signal, single, resume });
    }

    /// The websocket is its participant's, still.
    fn is_current(&self, signal: usize) -> bool {
        let Connection { client, open, .. } = self.signals[signal];
        open && self.ways[client].signal == Some(signal)
    }

    fn carry_out(&mut self, event: Event) {
        match event {
            Event::ToSfu { client, source, to, bytes } => {
                let there = self.sfu.is_some();
                if let Some(client) = client {
                    let book = self.ways[client].up.book_mut(Class::of(&bytes));
                    *(if there { &mut book.delivered } else { &mut book.stray }) += 1;
                }
                self.receive(source, to, bytes);
            }
            Event::ToRelay { client, source, to, bytes } => {
                if to == relay_of(client) {
                    self.ways[client].up.book_mut(Class::of(&bytes)).delivered += 1;
                }
                self.relay(client, source, to, &bytes);
            }
            Event::ToClient { client, source, to, bytes } => {
                self.deliver(client, source, to, &bytes)
            }
            Event::Dial { signal, single, resume } => {
                if !self.signals[signal].cut {
                    self.admit(signal, single, resume);
                }
            }
            Event::Opened { signal } => {
                if self.is_current(signal) {
                    let offer = self.signals[signal].first_offer.take();
                    let client = self.signals[signal].client;
                    self.clients[client].opened(self.now, offer);
                }
            }
            Event::Refused { signal } => {
                if self.is_current(signal) {
                    self.signals[signal].open = false;
                    let client = self.signals[signal].client;
                    self.ways[client].signal = None;
                    self.clients[client].refused(self.now);
                }
            }
            Event::Up { signal, frame } => {
                if let (Some(id), Some(sfu)) = (self.signals[signal].sfu, &mut self.sfu) {
                    sfu.hear(id, &frame);
                }
            }
            Event::HungUp { signal } => {
                if let (Some(id), Some(sfu)) = (self.signals[signal].sfu.take(), &mut self.sfu) {
                    sfu.lose(id);
                }
            }
            Event::Down { signal, frame } => {
                if self.is_current(signal) {
                    let client = self.signals[signal].client;
                    self.clients[client].message(self.now, &frame);
                }
            }
            Event::Gone { signal, in_order } => {
                if self.is_current(signal) {
                    self.signals[signal].open = false;
                    let client = self.signals[signal].client;
                    self.ways[client].signal = None;
                    self.clients[client].signal_ended(self.now, in_order);
                }
            }
            Event::Begins(planned) => self.change(planned, true),
            Event::Ends(planned) => self.change(planned, false),
        }
    }

    /// Into the SFU's receive buffers. Without time left it drops what finds no room.
    fn receive(&mut self, source: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let full = !self.load.each.is_zero() && self.waiting.len() >= self.load.room;
        match &mut self.sfu {
            Some(sfu) if full => {
                self.receive_drops += 1;
                sfu.drop_received(to);
            }
            Some(_) => self.waiting.push_back((source, to, bytes)),
            None => {}
        }
    }

    fn deliver(&mut self, client: usize, source: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let class = Class::of(bytes);
        let socket = (to.port() - 20_000) / PORTS_A_SOCKET;
        let there = to == self.mapped(client, socket) && self.clients[client].has_socket(socket);
        let at = self.arrival(client);
        let way = &mut self.ways[client];
        if !there {
            way.down.book_mut(class).stray += 1;
            return;
        }
        way.down.book_mut(class).delivered += 1;
        if class == Class::Rtp {
            way.wire.delivered(self.now, inner(bytes));
            self.happened(client, "rtp");
        }
        self.clients[client].datagram(at, socket, source, bytes);
    }

    /// The SFU lets somebody in, or not.
    fn admit(
        &mut self,
        signal: usize,
        single: Option<Option<proto::SessionDescription>>,
        resume: bool,
    ) {
        let client = self.signals[signal].client;
        let Client { identity, spec, .. } = &self.clients[client];
        let (publishes, subscribes) = (spec.publishes(), spec.subscribes);
        let join = VirtualJoin { room: ROOM, identity, publishes, subscribes, single };
        let admitted = match (&mut self.sfu, resume) {
            (None, _) => Err(None),
            (Some(sfu), true) => sfu.resume(&join),
            (Some(sfu), false) => sfu.join(&join),
        };
        let at = self.signal_at(signal, false);
        match admitted {
            Ok(id) => {
                self.signals[signal].sfu = Some(id);
                self.push(at, Event::Opened { signal });
            }
            Err(Some(goodbye)) => {
                self.push(at, Event::Opened { signal });
                self.push(at, Event::Down { signal, frame: goodbye.into() });
                self.push(at, Event::Gone { signal, in_order: true });
            }
            Err(None) => self.push(at, Event::Refused { signal }),
        }
    }

    /// A fault begins, or ends.
    fn change(&mut self, planned: Planned, begins: bool) {
        let Planned { fault, client, .. } = planned;
        self.happened(client.unwrap_or(usize::from(NOBODY)), fault.name());
        let until = self.start + planned.until();
        if let Some(client) = client {
            let clean = self.plan.clean(client);
            let Way { up, down, .. } = &mut self.ways[client];
            let back = |link: &mut Link| link.conditions = clean;
            match (fault, begins) {
                (Fault::Loss(loss, burst), true) => {
                    (down.conditions.loss, down.conditions.burst) = (loss, burst);
                }
                (Fault::LossUp(loss, burst), true) => {
                    (up.conditions.loss, up.conditions.burst) = (loss, burst);
                }
                (Fault::Delay(by), true) => {
                    for link in [up, down] {
                        link.conditions.delay += by;
                        link.conditions.jitter = by;
                    }
                }
                (Fault::Reorder(share), true) => down.conditions.reorder = share,
                (Fault::Duplicate(share), true) => down.conditions.duplicate = share,
                (Fault::Rate(rate_bps), true) => down.conditions.rate_bps = rate_bps,
                (Fault::Mtu(mtu), true) => down.conditions.mtu = mtu,
                (Fault::Partition, true) => {
                    (up.conditions.cut, down.conditions.cut) = (true, true);
                    self.ways[client].dark_until = Some(until);
                }
                (Fault::Rebind, _) => self.ways[client].rebinds += 1,
                (Fault::RelayDeath, begins) => {
                    let relay = &mut self.ways[client].relay;
                    relay.forget();
                    relay.new_nonce();
                    relay.is_silent = begins;
                }
                (Fault::ClockStep(ms), _) => self.ways[client].clock_ahead_ns += ms * 1_000_000,
                (Fault::SignalReset, _) => self.reset(client),
                (_, false) => {
                    back(up);
                    back(down);
                }
                (_, true) => {}
            }
            return;
        }
        match (fault, begins) {
            (Fault::Death, true) => self.die(),
            (Fault::Death, false) => self.start_sfu(),
            (Fault::Full(each, room), true) => (self.load.each, self.load.room) = (each, room),
            (Fault::Full(..), false) => self.load.each = Duration::ZERO,
            (Fault::SlowDisk(each), true) => self.files.borrow_mut().each = each,
            (Fault::StalledDisk, true) => self.files.borrow_mut().stalled_until = Some(until),
            (Fault::FullDisk(room), true) => self.files.borrow_mut().fills_up(room),
            (Fault::SlowDisk(_) | Fault::StalledDisk | Fault::FullDisk(_), false) => {
                self.files.borrow_mut().recovers();
            }
            _ => {}
        }
    }

    /// A participant's websocket is reset: both ends see it.
    fn reset(&mut self, client: usize) {
        let Some(signal) = self.ways[client].signal else { return };
        self.signals[signal].cut = true;
        if let (Some(id), Some(sfu)) = (self.signals[signal].sfu.take(), &mut self.sfu) {
            sfu.lose(id);
        }
        let at = self.signal_at(signal, false);
        self.push(at, Event::Gone { signal, in_order: false });
    }

    /// The SFU is killed; its kernel resets the connections.
    fn die(&mut self) {
        let last = self.ledger();
        self.ledgers.extend(last);
        // What it sent last is on its way.
        self.take_sfu();
        self.sfu = None;
        self.waiting.clear();
        for signal in 0..self.signals.len() {
            if self.signals[signal].sfu.take().is_some() {
                let at = self.signal_at(signal, false);
                self.push(at, Event::Gone { signal, in_order: false });
            }
        }
    }

    /// Everybody who subscribes leaves, or everybody.
    pub fn leave(&mut self, subscribers: bool) {
        for client in 0..self.clients.len() {
            if !subscribers || self.clients[client].spec.subscribes {
                self.clients[client].leave(self.now);
                self.take(client);
            }
        }
    }

    /// Writes what waits for the disk, and says what became of the recordings.
    pub fn recordings(&mut self) -> Option<DiskReport> {
        self.disk.take().map(VirtualDisk::finish)
    }

    /// What the living SFU counted.
    pub fn ledger(&mut self) -> Option<Ledger> {
        self.sfu.as_mut().map(|sfu| {
            sfu.begin_turn(self.now);
            sfu.ledger()
        })
    }

    /// What is left in the living SFU.
    #[must_use]
    pub fn census(&self) -> Option<Census> {
        self.sfu.as_ref().map(VirtualSfu::census)
    }
}
