//! One pinned thread: its sockets, its peers, its timers.

mod peers;
mod reports;
mod sink;
mod sockets;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use rustc_hash::FxHashMap;
use rustls::ClientConfig;
use slab::Slab;
use stampede_core::{
    AddressRequest, Arrival, CongestionFeedback, LocalId, Peer, PeerCounters, PeerOptions, Scratch,
};
use stampede_mailbox::Sleeper;
use stampede_media::AssemblerCounters;
use stampede_media::disk::DiskHandle;
use stampede_udp::{Backend, SocketBuffers, Streams, Wait};

use crate::capture::{CaptureOptions, CapturedPeer};
use crate::clock::{Clock, ClockReader};
use crate::cohort::Closed;
use crate::distributions::Measured;
use crate::health::Health;
use crate::impair::{ImpairPlan, Impairments, PeerImpairment};
use crate::mailbox::{EventSink, WorkerCommand};
use crate::recorder::PeerRecorder;
use crate::rows::ClosedRows;
use crate::snapshot::WorkerReport;
use crate::timer::{TimerState, TimerWheel};
use crate::{CUT_OFF_MAX, EngineEvent, PeerId};
use sink::Sink;
pub(crate) use sockets::LearnedIp;
use sockets::{Owners, Sockets};

/// Longest sleep without any timer, so that the mailbox and the snapshot are looked at even if the
/// kernel lost a wake-up.
const IDLE_WAIT_MAX: Duration = Duration::from_millis(100);
/// Most commands handled in one turn: a burst of joins must not starve running peers.
const COMMANDS_PER_TURN_MAX: usize = 32;
/// Below this many datagrams a second gathering only adds delay.
const GATHER_FROM_DATAGRAMS_PER_S: u64 = 5_000;
/// Longest gathering while a peer is connecting.
const GATHER_CONNECTING_MAX: Duration = Duration::from_millis(2);
/// Resolution of subscribers' timers: reports and repeated NACKs may wait a little, and a worker
/// that wakes for each of them has less to gather.
const RECEIVING_TICK: Duration = Duration::from_millis(4);
/// Resolution of publishers' timers. A packet that leaves late is lateness that every subscriber
/// sees.
const SENDING_TICK: Duration = Duration::from_micros(100);
/// Datagrams received at a time at least, however soon a publisher has something to send: fewer
/// would cost more in system calls than they are late.
const RECEIVED_BEFORE_SENDING_MIN: usize = 128;
/// After sending, a worker does other things for at least this part of the time that it took, even if
/// more is due: where sending alone is more than a core can do, joins and snapshots go on, and the
/// lateness tells.
const REST_AFTER_SENDING: u32 = 4;
/// How often counters are handed out.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(1);

/// What a worker starts with.
pub(crate) struct WorkerSetup {
    pub(crate) index: usize,
    pub(crate) core: Option<usize>,
    pub(crate) inbox: Receiver<WorkerCommand>,
    pub(crate) events: EventSink,
    pub(crate) peers: Arc<AtomicUsize>,
    pub(crate) disk: Option<DiskHandle>,
    pub(crate) gather: Duration,
    pub(crate) capture: Option<CaptureOptions>,
    pub(crate) impair: ImpairPlan,
    pub(crate) buffers: SocketBuffers,
    pub(crate) learned: LearnedIp,
    pub(crate) peer_options: PeerOptions,
    /// What subscribers of each cohort tell of congestion, where that is not what `peer_options` say.
    pub(crate) feedback_of_cohorts: Vec<Option<CongestionFeedback>>,
    /// Whom TLS trusts, for TURN servers.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// See [`EngineOptions::clock_offset_ns`](crate::EngineOptions::clock_offset_ns).
    pub(crate) clock_offset_ns: i64,
    /// See [`EngineOptions::tells_distributions`](crate::EngineOptions::tells_distributions).
    pub(crate) tells_distributions: bool,
}

/// A peer and what its worker keeps about it.
struct Slot {
    id: PeerId,
    label: String,
    sockets: Sockets,
    /// Datagrams dropped at those that are closed.
    drops_closed: u64,
    peer: Peer,
    timer: TimerState,
    /// It has its timer in `sending`.
    publishes: bool,
    recorder: Option<PeerRecorder>,
    /// What is done to what it receives, if anything is or was.
    impaired: Option<Box<PeerImpairment>>,
    cohort: u16,
    /// DTLS is up, or the connection broke before: no handshake waits for this worker.
    handshake_over: bool,
    /// The peer by which the same participant sends, if that is another one: it hears what comes here
    /// of calls.
    sends_by: Option<PeerId>,
}

impl Slot {
    /// What was counted of the peer, with what was done to what it receives.
    fn counters(&self) -> PeerCounters {
        let mut counters = self.peer.counters();
        if let Some(impaired) = &self.impaired {
            counters.impairment.merge(&impaired.counts());
        }
        counters
    }

    /// Takes a datagram, or what an impairment leaves of it.
    #[inline]
    fn receive(
        &mut self,
        at: Arrival,
        way: (LocalId, SocketAddr),
        payload: &[u8],
        impairments: &mut Impairments,
        scratch: &mut Scratch,
    ) {
        let (via, source) = way;
        let Some((source, payload)) = self.peer.relayed(at, via, source, payload) else { return };
        match &mut self.impaired {
            None => self.peer.handle_datagram(at, source, payload, scratch),
            Some(impaired) => {
                let (peer, way) = ((self.id, &mut self.peer), (via, source));
                impairments.datagram(impaired, peer, at, way, payload, scratch);
            }
        }
    }

    /// Nothing comes in or goes out for so long.
    fn cut_off(&mut self, now: Instant, lasts: Duration) {
        let until = now + lasts.min(CUT_OFF_MAX);
        let impaired = self.impaired.get_or_insert_with(|| Box::new(PeerImpairment::none(now)));
        impaired.cut_off(now, until);
        self.peer.cut_off_until(until);
    }
}

pub(crate) struct Worker {
    setup: WorkerSetup,
    backend: Box<dyn Backend>,
    clocks: ClockReader,
    slots: Slab<Slot>,
    slot_of_peer: FxHashMap<PeerId, usize>,
    owners: Owners,
    /// Since a peer asked for a TCP connection.
    streams: Option<Box<Streams>>,
    stream_owners: Owners,
    /// What a peer asked for in the drain under way.
    address_requests: Vec<AddressRequest>,
    /// Timers of subscribers, and of publishers.
    receiving: TimerWheel,
    sending: TimerWheel,
    /// No publisher has anything to send before.
    sends_at: Instant,
    /// Nor does any before, whatever is due ([`REST_AFTER_SENDING`]).
    rests_until: Instant,
    fired: Vec<(u32, u64)>,
    /// `socket << 32 | index in batch`, sorted: the batch grouped by peer, in order of arrival.
    order: Vec<u64>,
    /// Where the peers open packets.
    scratch: Scratch,
    health: Health,
    measured: Measured,
    impairments: Impairments,
    /// Accounts of peers that are gone: of all, and of each cohort.
    retired: PeerCounters,
    closed: Vec<Closed>,
    /// All accounts up to the start of the measured window.
    before_window: PeerCounters,
    rows: ClosedRows,
    /// Of the recordings that have ended.
    assembled: AssemblerCounters,
    next_snapshot: Instant,
    /// Peers with a flight recorder, and what those had that are closed.
    tapped: usize,
    captures: Vec<CapturedPeer>,
    gathering: bool,
    /// Peers that were added and have no DTLS yet; see [`Self::gather`].
    connecting: usize,
}

impl Sleeper for Worker {
    type Item = WorkerCommand;
    type Inbox = Receiver<WorkerCommand>;
    type Error = io::Error;

    fn inbox(&self) -> &Receiver<WorkerCommand> {
        &self.setup.inbox
    }

    fn handle(&mut self, command: WorkerCommand) -> ControlFlow<()> {
        let clock = self.clocks.read();
        match command {
            WorkerCommand::Add(peer) => self.add(clock, *peer),
            WorkerCommand::Command(id, command) => self.command(clock, id, command),
            WorkerCommand::BeginMeasuring => self.begin_measuring(clock),
            WorkerCommand::Capture => self.hand_out_captures(),
            WorkerCommand::ReadTotals(tag) => self.read_totals(tag),
            WorkerCommand::Stop => return ControlFlow::Break(()),
        }
        self.send_if_due();
        ControlFlow::Continue(())
    }

    fn work(&mut self, may_sleep: bool) -> io::Result<()> {
        // Commands take their time, and how long to wait counts from here.
        let clock = self.clocks.read();
        // What happened in the last turn and with the commands is handed out before it sleeps: an
        // idle worker sleeps for long.
        self.setup.events.flush();
        self.turn(clock, may_sleep)
    }
}

impl Worker {
    pub(crate) fn new(setup: WorkerSetup, backend: Box<dyn Backend>) -> Self {
        let now = Instant::now();
        let (cohorts, tells) = (setup.impair.cohorts.len(), setup.tells_distributions);
        let impairments = Impairments::new(setup.impair.clone());
        let clocks = ClockReader::ahead(setup.clock_offset_ns);
        Self {
            setup,
            backend,
            clocks,
            slots: Slab::new(),
            slot_of_peer: FxHashMap::default(),
            owners: Owners::default(),
            streams: None,
            stream_owners: Owners::default(),
            address_requests: Vec::new(),
            receiving: TimerWheel::new(now, RECEIVING_TICK),
            sending: TimerWheel::new(now, SENDING_TICK),
            sends_at: now,
            rests_until: now,
            fired: Vec::new(),
            order: Vec::new(),
            scratch: Scratch::default(),
            health: Health::new(now),
            measured: Measured::new(cohorts, tells),
            impairments,
            retired: PeerCounters::default(),
            closed: vec![Closed::default(); cohorts],
            before_window: PeerCounters::default(),
            rows: ClosedRows::default(),
            assembled: AssemblerCounters::default(),
            next_snapshot: now + SNAPSHOT_EVERY,
            tapped: 0,
            captures: Vec::new(),
            gathering: false,
            connecting: 0,
        }
    }

    /// Runs until it is told to stop, its engine is dropped, or its backend breaks.
    pub(crate) fn run(mut self) -> WorkerReport {
        let ended = stampede_mailbox::run(&mut self, COMMANDS_PER_TURN_MAX);
        let failed = ended.err().map(|error| format!("{} backend: {error}", self.backend.name()));
        if let Some(reason) = failed.clone() {
            let worker = self.setup.index;
            self.setup.events.push(EngineEvent::WorkerFailed { worker, reason });
        }
        self.finish(failed)
    }

    /// Waits for datagrams and timers, and handles what came.
    fn turn(&mut self, before: Clock, may_sleep: bool) -> io::Result<()> {
        let mut next = self.next_snapshot;
        if let Some(due) = self.impairments.next() {
            next = next.min(due);
        }
        let limit = next.saturating_duration_since(before.now).min(IDLE_WAIT_MAX);
        let timeout = if may_sleep {
            let limit = self.receiving.wait(before.now, limit);
            self.sending.wait(before.now, limit)
        } else {
            Duration::ZERO
        };
        let mut wait = Wait { timeout, gather: self.gather(), datagrams_max: usize::MAX };
        if !self.sending.is_empty() {
            // Half of the time until something is to be sent is left for receiving.
            let left = self.sends_at.saturating_duration_since(before.now);
            wait.gather = wait.gather.min(left / 2);
            wait.datagrams_max = (left.as_micros() as usize).max(RECEIVED_BEFORE_SENDING_MIN);
        }
        if let Some(streams) = &mut self.streams {
            streams.flush();
            if streams.has_more() {
                wait.timeout = Duration::ZERO;
            }
        }
        let received = self.backend.poll(wait)?;
        let clock = self.clocks.read();
        self.send_if_due();
        if received > 0 {
            self.receive(clock);
        }
        self.receive_streams(clock)?;
        self.release_held(clock);
        self.fire_receiving(clock);
        self.send_if_due();
        if clock.now >= self.next_snapshot {
            self.snapshot(clock);
        }
        Ok(())
    }

    /// How long to gather. Gathering saves cache misses and wake-ups, and what is measured stays
    /// true, since packets carry the kernel's stamp; but NACKs and answers to checks leave later by
    /// it. It would slow down handshakes, whose figures are the join phases, so it is kept short
    /// while any peer connects.
    fn gather(&self) -> Duration {
        match (self.gathering, self.connecting) {
            (false, _) => Duration::ZERO,
            (true, 0) => self.setup.gather,
            (true, _) => self.setup.gather.min(GATHER_CONNECTING_MAX),
        }
    }

    /// Processes the batch grouped by peer: a peer's state is brought into the cache once for all
    /// its packets (docs/architecture.md, "Life of a packet").
    fn receive(&mut self, clock: Clock) {
        let batch = self.backend.batch();
        // The backends' order is not that of the stamps.
        if let Some(age) = batch.iter().map(|r| clock.age(r.received_at_unix_ns)).max() {
            self.health.batch_age(age);
        }
        self.order.clear();
        let keys = batch.iter().enumerate();
        self.order.extend(keys.map(|(i, r)| u64::from(r.socket.0) << 32 | i as u64));
        self.order.sort_unstable();

        let order = std::mem::take(&mut self.order);
        for run in order.chunk_by(|a, b| a >> 32 == b >> 32) {
            let owner = self.owners.get((run[0] >> 32) as u32);
            let Some((key, via, slot)) =
                owner.and_then(|(key, via)| Some((key, via, self.slots.get_mut(key)?)))
            else {
                // The peer has just been closed; its socket may still have had datagrams.
                self.health.orphans(run.len());
                continue;
            };
            slot.peer.received_on(via);
            for &entry in run {
                let received = self.backend.batch()[entry as u32 as usize];
                let at = clock.arrival(received.received_at_unix_ns);
                let payload = self.backend.payload(&received);
                let (impairments, scratch) = (&mut self.impairments, &mut self.scratch);
                slot.receive(at, (via, received.source), payload, impairments, scratch);
            }
            self.drain(clock, key);
            self.send_if_due();
        }
        self.order = order;
    }

    /// Gives datagrams that were held back on purpose to their peers.
    fn release_held(&mut self, clock: Clock) {
        while let Some(datagram) = self.impairments.pop_due(clock.now) {
            let key = self.slot_of_peer.get(&datagram.peer).copied();
            let Some((key, slot)) = key.and_then(|key| Some((key, self.slots.get_mut(key)?)))
            else {
                self.health.orphans(1);
                continue;
            };
            let (at, source, payload) = (datagram.at, datagram.source, &datagram.payload);
            if let Some(impaired) = &mut slot.impaired
                && !impaired.arrives(at.instant, &mut slot.peer, payload)
            {
                continue;
            }
            slot.peer.received_on(datagram.via);
            slot.peer.handle_datagram(at, source, payload, &mut self.scratch);
            self.drain(clock, key);
            self.send_if_due();
        }
    }

    fn fire_receiving(&mut self, clock: Clock) {
        let mut fired = std::mem::take(&mut self.fired);
        self.receiving.advance(clock.now, &mut fired);
        for (key, tick) in fired.drain(..) {
            self.fire(clock, key, tick);
            self.send_if_due();
        }
        self.fired = fired;
    }

    /// Sends what publishers have due. A batch, a burst of commands or a handshake takes longer than a
    /// packet may be late, so this is asked between any two peers.
    fn send_if_due(&mut self) {
        if self.sending.is_empty() || Instant::now() < self.sends_at.max(self.rests_until) {
            return;
        }
        let clock = self.clocks.read();
        let mut fired = Vec::new();
        self.sending.advance(clock.now, &mut fired);
        for &(key, tick) in &fired {
            self.fire(clock, key, tick);
        }
        self.sends_at = clock.now + self.sending.wait(clock.now, IDLE_WAIT_MAX);
        if !fired.is_empty() {
            self.backend.flush();
            if let Some(streams) = &mut self.streams {
                streams.flush();
            }
        }
        let ended = Instant::now();
        self.rests_until = ended + (ended - clock.now) / REST_AFTER_SENDING;
    }

    /// Wakes the peer of an entry that a wheel gave out, if it is due.
    fn fire(&mut self, clock: Clock, key: u32, tick: u64) {
        let Some(slot) = self.slots.get_mut(key as usize) else { return };
        if !TimerWheel::take(&mut slot.timer, tick) {
            return;
        }
        let deadline = slot.timer.deadline;
        if deadline > clock.now {
            self.set_timer(key as usize, deadline);
            return;
        }
        self.health.lateness(clock.now - deadline);
        slot.peer.handle_timeout(clock.now);
        self.drain(clock, key as usize);
    }

    fn set_timer(&mut self, key: usize, deadline: Instant) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if slot.publishes {
            self.sends_at = self.sends_at.min(deadline);
            self.sending.set(key as u32, &mut slot.timer, deadline);
        } else {
            self.receiving.set(key as u32, &mut slot.timer, deadline);
        }
    }

    /// Moves out what the peer has to send and say, and sets its timer.
    fn drain(&mut self, clock: Clock, key: usize) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let mut sink = Sink {
            backend: &mut *self.backend,
            streams: self.streams.as_deref_mut(),
            events: &mut self.setup.events,
            measured: &mut self.measured,
            recorder: slot.recorder.as_mut(),
            sockets: &slot.sockets,
            address_requests: &mut self.address_requests,
            id: slot.id,
            cohort: slot.cohort,
            clock,
            handshake_over: slot.handshake_over,
        };
        let deadline = slot.peer.drain(clock.now, &mut sink);
        if sink.handshake_over && !slot.handshake_over {
            slot.handshake_over = true;
            self.connecting -= 1;
            slot.learn(&self.setup.learned);
        }
        let sends_by = slot.sends_by;
        self.set_timer(key, deadline);
        if !self.address_requests.is_empty() {
            self.carry_out_requests(clock, key);
        }
        if let Some(other) = sends_by {
            self.hand_calls_over(clock, key, other);
        }
    }
}
