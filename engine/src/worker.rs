//! One pinned thread: its sockets, its peers, its timers.

mod sink;
mod sockets;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use rustc_hash::FxHashMap;
use slab::Slab;
use stampede_core::{AddressWish, LocalId, Peer, PeerCounters, PeerOptions};
use stampede_media::AssemblerCounters;
use stampede_media::disk::DiskHandle;
use stampede_udp::{Backend, SocketBuffers, SocketId, Wait};

use crate::capture::{CaptureOptions, CapturedPeer, badness, keep_worst};
use crate::clock::{Clock, ClockReader};
use crate::cohort::Closed;
use crate::cover::{CoverNews, PeerCover};
use crate::distributions::{Distributions, Measured};
use crate::health::Health;
use crate::impair::{ImpairPlan, Impairments, PeerImpairment};
use crate::mailbox::{EventSink, Mail, NewPeer};
use crate::recorder::PeerRecorder;
use crate::snapshot::{LastPart, PeerRow, WorkerReport, WorkerSnapshot};
use crate::timer::{TimerState, TimerWheel};
use crate::worst::{PeerFigures, PeerLine, Worst};
use crate::{EngineEvent, PeerCommand, PeerId, PeerNotice, PeerRole};
use sink::Sink;
pub(crate) use sockets::LearnedIp;
use sockets::{Owners, Sockets};

/// Longest sleep without any timer, so that the mailbox and the snapshot are looked at even if a
/// wake-up were lost.
const IDLE_WAIT_MAX: Duration = Duration::from_millis(100);
/// Most mails handled in one turn: a burst of joins must not starve running peers.
const MAILS_PER_TURN_MAX: usize = 32;
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
/// How often counters are handed out.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(1);

/// What a worker starts with.
pub(crate) struct WorkerSetup {
    pub(crate) index: usize,
    pub(crate) core: Option<usize>,
    pub(crate) inbox: Receiver<Mail>,
    pub(crate) events: EventSink,
    pub(crate) peers: Arc<AtomicUsize>,
    pub(crate) disk: Option<DiskHandle>,
    pub(crate) gather: Duration,
    pub(crate) capture: Option<CaptureOptions>,
    pub(crate) impair: ImpairPlan,
    pub(crate) buffers: SocketBuffers,
    pub(crate) learned: LearnedIp,
    pub(crate) peer_options: PeerOptions,
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
    /// What is done to what it receives, if anything.
    impaired: Option<Box<PeerImpairment>>,
    cohort: u16,
    /// DTLS is up, or the connection broke before: no handshake waits for this worker.
    settled: bool,
}

pub(crate) struct Worker {
    setup: WorkerSetup,
    backend: Box<dyn Backend>,
    clocks: ClockReader,
    slots: Slab<Slot>,
    slot_of_peer: FxHashMap<PeerId, usize>,
    owners: Owners,
    /// What a peer asked for in the drain under way.
    wishes: Vec<AddressWish>,
    /// Timers of subscribers, and of publishers.
    receiving: TimerWheel,
    sending: TimerWheel,
    /// No publisher has anything to send before.
    sends_at: Instant,
    fired: Vec<(u32, u64)>,
    /// `socket << 32 | index in batch`, sorted: the batch grouped by peer, in order of arrival.
    order: Vec<u64>,
    health: Health,
    measured: Measured,
    impairments: Impairments,
    /// Accounts of peers that are gone: of all, and of each cohort.
    retired: PeerCounters,
    closed: Vec<Closed>,
    /// All accounts up to the start of the measured window.
    before_window: PeerCounters,
    rows: Vec<PeerRow>,
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

impl Worker {
    pub(crate) fn new(setup: WorkerSetup, backend: Box<dyn Backend>) -> Self {
        let now = Instant::now();
        let cohorts = setup.impair.cohorts.len();
        let impairments = Impairments::new(setup.impair.clone());
        Self {
            setup,
            backend,
            clocks: ClockReader::default(),
            slots: Slab::new(),
            slot_of_peer: FxHashMap::default(),
            owners: Owners::default(),
            wishes: Vec::new(),
            receiving: TimerWheel::new(now, RECEIVING_TICK),
            sending: TimerWheel::new(now, SENDING_TICK),
            sends_at: now,
            fired: Vec::new(),
            order: Vec::new(),
            health: Health::new(now),
            measured: Measured::new(cohorts),
            impairments,
            retired: PeerCounters::default(),
            closed: vec![Closed::default(); cohorts],
            before_window: PeerCounters::default(),
            rows: Vec::new(),
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
        loop {
            let clock = self.clocks.read();
            if !self.read_mail(clock) {
                break;
            }
            // Mail takes its time, and how long to wait counts from here.
            let clock = self.clocks.read();
            // What happened in the last turn and with the mail is told before it sleeps: an idle
            // worker sleeps for long.
            self.setup.events.flush();
            if let Err(error) = self.turn(clock) {
                let reason = format!("{} backend: {error}", self.backend.name());
                let worker = self.setup.index;
                let event = EngineEvent::WorkerFailed { worker, reason: reason.clone() };
                self.setup.events.push(event);
                return self.finish(Some(reason));
            }
        }
        self.finish(None)
    }

    /// Handles waiting mail; `false` when it is time to end.
    fn read_mail(&mut self, clock: Clock) -> bool {
        for _ in 0..MAILS_PER_TURN_MAX {
            match self.setup.inbox.try_recv() {
                Ok(Mail::Add(peer)) => self.add(clock, *peer),
                Ok(Mail::Command(id, command)) => self.command(clock, id, command),
                Ok(Mail::BeginMeasuring) => self.begin_measuring(clock),
                Ok(Mail::Capture) => self.hand_out_captures(),
                Ok(Mail::ReadTotals(tag)) => self.read_totals(tag),
                Ok(Mail::Stop) => return false,
                Err(crossbeam_channel::TryRecvError::Empty) => break,
                Err(crossbeam_channel::TryRecvError::Disconnected) => return false,
            }
            self.send_if_due();
        }
        true
    }

    /// Waits for datagrams and timers, and handles what came.
    fn turn(&mut self, before: Clock) -> io::Result<()> {
        let mut next = self.next_snapshot;
        if let Some(due) = self.impairments.next() {
            next = next.min(due);
        }
        let limit = next.saturating_duration_since(before.now).min(IDLE_WAIT_MAX);
        let timeout = if self.setup.inbox.is_empty() {
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
        let received = self.backend.poll(wait)?;
        let clock = self.clocks.read();
        self.send_if_due();
        if received > 0 {
            self.receive(clock);
        }
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
    /// its packets (design.md §2, "Batch by peer").
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
            let owner = self.owners.get(SocketId((run[0] >> 32) as u32));
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
                match &mut slot.impaired {
                    None => slot.peer.handle_datagram(at, received.source, payload),
                    Some(impaired) => {
                        let peer = (slot.id, &mut slot.peer);
                        let way = (via, received.source);
                        self.impairments.datagram(impaired, peer, at, way, payload);
                    }
                }
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
            slot.peer.received_on(datagram.via);
            slot.peer.handle_datagram(datagram.at, datagram.source, &datagram.payload);
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

    /// Sends what publishers have due. A batch, a burst of mail or a handshake takes longer than a
    /// packet may be late, so this is asked between any two peers.
    fn send_if_due(&mut self) {
        if self.sending.is_empty() || Instant::now() < self.sends_at {
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
        }
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
            events: &mut self.setup.events,
            measured: &mut self.measured,
            recorder: slot.recorder.as_mut(),
            sockets: &slot.sockets,
            wishes: &mut self.wishes,
            id: slot.id,
            cohort: slot.cohort,
            clock,
            settled: slot.settled,
        };
        let deadline = slot.peer.drain(clock.now, &mut sink);
        if sink.settled && !slot.settled {
            slot.settled = true;
            self.connecting -= 1;
            slot.learn(&self.setup.learned);
        }
        self.set_timer(key, deadline);
        if !self.wishes.is_empty() {
            self.grant_wishes(clock, key);
        }
    }

    fn add(&mut self, clock: Clock, new: NewPeer) {
        let NewPeer { id, label, role, cohort, socket } = new;
        let add = || -> Result<usize, String> {
            let local = socket.as_ref().map(UdpSocket::local_addr).transpose();
            let local = local.map_err(|error| error.to_string())?;
            let subscriber = matches!(role, PeerRole::Subscriber { .. });
            let impaired = if subscriber { self.impairments.of(cohort, &label) } else { None };
            let (mut peer, record) = self.make_peer(clock.now, local, role)?;
            let socket = socket.map(|socket| self.backend.add_socket(socket)).transpose();
            let socket = socket.map_err(|error| error.to_string())?;
            if let Some(options) = self.setup.capture
                && self.tapped < options.tapped_per_worker_max
                && peer.is_subscriber()
            {
                self.tapped += 1;
                peer.start_capture(options.limits);
            }
            let recorder = match (&self.setup.disk, record) {
                (Some(disk), true) => Some(PeerRecorder::new(disk.clone(), label.clone())),
                _ => None,
            };
            let slot = Slot {
                id,
                label,
                sockets: Sockets::default(),
                drops_closed: 0,
                timer: TimerState::new(clock.now),
                publishes: !subscriber,
                peer,
                recorder,
                impaired,
                cohort,
                settled: false,
            };
            self.connecting += 1;
            let key = self.slots.insert(slot);
            if let Some(socket) = socket {
                self.slots[key].sockets.set(LocalId::default(), socket);
                self.owners.set(socket, key, LocalId::default());
            }
            self.slot_of_peer.insert(id, key);
            Ok(key)
        };
        match add() {
            Ok(key) => self.drain(clock, key),
            Err(reason) => {
                self.setup.peers.fetch_sub(1, Ordering::Relaxed);
                self.notify(clock, id, PeerNotice::NegotiationFailed { reason });
            }
        }
    }

    fn make_peer(
        &self,
        now: Instant,
        local: Option<SocketAddr>,
        role: PeerRole,
    ) -> Result<(Peer, bool), String> {
        let options = &self.setup.peer_options;
        match role {
            PeerRole::Subscriber { record } => {
                Peer::subscriber(now, local, options, record).map(|peer| (peer, record))
            }
            PeerRole::Publisher { tracks } => {
                Peer::publisher(now, local, options, tracks).map(|peer| (peer, false))
            }
        }
        .map_err(|error| error.to_string())
    }

    fn command(&mut self, clock: Clock, id: PeerId, command: PeerCommand) {
        let Some(&key) = self.slot_of_peer.get(&id) else {
            if matches!(command, PeerCommand::Close) {
                self.notify(clock, id, PeerNotice::Closed);
            }
            return;
        };
        let Some(slot) = self.slots.get_mut(key) else { return };
        let now = clock.now;
        let outcome = match command {
            PeerCommand::Offer { id, sdp, mid_to_track_id } => slot
                .peer
                .accept_offer(now, &sdp, &mid_to_track_id)
                .map(|sdp| Some(PeerNotice::Answer { offer_id: id, sdp })),
            PeerCommand::CreateOffer => {
                slot.peer.create_offer(now).map(|sdp| Some(PeerNotice::Offer { sdp }))
            }
            PeerCommand::RestartIce => {
                slot.peer.restart_ice(now).map(|sdp| Some(PeerNotice::Offer { sdp }))
            }
            PeerCommand::Answer { sdp } => slot.peer.accept_answer(now, &sdp).map(|()| None),
            PeerCommand::Candidate(line) => {
                slot.peer.add_remote_candidate(now, &line).map(|()| None)
            }
            PeerCommand::Note(note) => {
                slot.peer.note(note);
                Ok(None)
            }
            PeerCommand::GiveUp => {
                slot.peer.give_up();
                Ok(None)
            }
            PeerCommand::Close => {
                self.remove(clock, key);
                self.notify(clock, id, PeerNotice::Closed);
                return;
            }
        };
        let notice = outcome.unwrap_or_else(|error| {
            Some(PeerNotice::NegotiationFailed { reason: error.to_string() })
        });
        if let Some(notice) = notice {
            self.notify(clock, id, notice);
        }
        self.drain(clock, key);
    }

    fn notify(&mut self, clock: Clock, peer: PeerId, notice: PeerNotice) {
        let at_unix_ns = clock.unix_ns;
        self.setup.events.push(EngineEvent::Peer { peer, at_unix_ns, notice });
    }

    /// Closes a peer, settles its account and gives its sockets back.
    fn remove(&mut self, clock: Clock, key: usize) {
        let Some(mut slot) = self.slots.try_remove(key) else { return };
        let mut sink = Sink {
            backend: &mut *self.backend,
            events: &mut self.setup.events,
            measured: &mut self.measured,
            recorder: slot.recorder.as_mut(),
            sockets: &slot.sockets,
            wishes: &mut self.wishes,
            id: slot.id,
            cohort: slot.cohort,
            clock,
            settled: true,
        };
        slot.peer.close(clock.now, &mut sink);
        let mut news = CoverNews::new(self.setup.index, clock.now, false);
        take_covers(&mut slot, &mut news);
        self.setup.events.push(EngineEvent::Cover(Box::new(news)));
        self.connecting -= usize::from(!slot.settled);
        self.wishes.clear();
        let mut kernel_drops = slot.drops_closed;
        for socket in slot.sockets.iter() {
            kernel_drops += self.backend.socket_drops(socket);
            self.backend.remove_socket(socket);
            self.owners.clear(socket);
        }
        if let Some(recorder) = slot.recorder {
            self.assembled.merge(&recorder.finish());
        }
        let report = slot.peer.final_report(clock.now);
        if let Some(options) = self.setup.capture
            && let Some(captured) = CapturedPeer::of(slot.id, &slot.label, &slot.peer)
        {
            self.tapped -= 1;
            self.captures.push(captured);
            keep_worst(&mut self.captures, options.worst);
        }
        let counters = slot.peer.counters();
        self.retired.merge(&counters);
        if let Some(closed) = self.closed.get_mut(usize::from(slot.cohort)) {
            let impaired = slot.impaired.map(|impaired| impaired.counts());
            closed.add(&counters, impaired.unwrap_or_default());
        }
        let (label, cohort) = (slot.label, slot.cohort);
        let (id, remote) = (slot.id, slot.peer.remote());
        self.rows.push(PeerRow { id, label, cohort, kernel_drops, remote, report });
        self.slot_of_peer.remove(&slot.id);
        self.setup.peers.fetch_sub(1, Ordering::Relaxed);
    }

    fn begin_measuring(&mut self, clock: Clock) {
        self.before_window.merge(&self.retired);
        self.retired = PeerCounters::default();
        self.closed.fill(Closed::default());
        self.rows.clear();
        self.captures.clear();
        for key in 0..self.slots.capacity() {
            self.send_if_due();
            let Some(slot) = self.slots.get_mut(key) else { continue };
            // For the backend's sum, which is where the window's begins.
            for socket in slot.sockets.iter() {
                self.backend.socket_drops(socket);
            }
            self.before_window.merge(&slot.peer.counters());
            slot.peer.begin_measuring(clock.now);
            if let Some(impaired) = &mut slot.impaired {
                impaired.begin_measuring();
            }
        }
        self.measured.begin_measuring();
        self.health.begin_measuring(clock.now, self.backend.stats());
    }

    /// Of the peers that are there: their worst, with the packets so far.
    fn hand_out_captures(&mut self) {
        let Some(options) = self.setup.capture else { return };
        let mut tapped: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.peer.capture().is_some())
            .map(|(key, slot)| (badness(&PeerFigures::of(&slot.peer.counters())), key))
            .collect();
        tapped.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let worst = tapped.into_iter().take(options.worst);
        let captured = worst.filter_map(|(_, key)| {
            let slot = self.slots.get(key)?;
            CapturedPeer::of(slot.id, &slot.label, &slot.peer)
        });
        let captured = captured.collect();
        self.setup.events.push(EngineEvent::Captured(captured));
    }

    fn read_totals(&mut self, tag: u64) {
        let mut totals = Box::new(self.retired);
        for (_, slot) in &self.slots {
            totals.merge(&slot.peer.counters());
        }
        let worker = self.setup.index;
        self.setup.events.push(EngineEvent::Totals { worker, tag, totals });
    }

    fn snapshot(&mut self, clock: Clock) {
        self.next_snapshot = snapshot_after(self.next_snapshot, clock.now);
        let mut totals = self.retired;
        let mut peers_receiving = 0;
        let mut worst = Worst::default();
        for key in 0..self.slots.capacity() {
            // Thousands of peers take longer than a packet may be late.
            self.send_if_due();
            let Some(slot) = self.slots.get(key) else { continue };
            // For the backend's sum: it learns of a drop with the socket's next datagram else.
            for socket in slot.sockets.iter() {
                self.backend.socket_drops(socket);
            }
            let counters = slot.peer.counters();
            let received = counters.video.streams.received + counters.audio.streams.received;
            peers_receiving += usize::from(received > 0);
            totals.merge(&counters);
            worst.offer(key, PeerFigures::of(&counters));
        }
        self.tell_covers(clock);
        let second = self.health.close_second(clock.now, self.backend.stats());
        self.gathering = second.datagrams_in >= GATHER_FROM_DATAGRAMS_PER_S;
        let worst = worst.into_slots().into_iter().filter_map(|(key, figures)| {
            let slot = self.slots.get(key)?;
            Some(PeerLine { id: slot.id, label: slot.label.clone(), figures })
        });
        let snapshot = WorkerSnapshot {
            worker: self.setup.index,
            core: self.setup.core,
            at_unix_ns: clock.unix_ns,
            peers: self.slots.len(),
            peers_receiving,
            totals,
            second,
            health: self.health.measured(clock.now, self.backend.stats()),
            video_latency_second_us: self.measured.close_second(),
            worst: worst.collect(),
        };
        self.setup.events.push(EngineEvent::Snapshot(Box::new(snapshot)));
    }

    /// What is new of the time that streams cover. If events wait, it waits in the streams.
    fn tell_covers(&mut self, clock: Clock) {
        if self.setup.events.is_crowded() {
            return;
        }
        let mut news = CoverNews::new(self.setup.index, clock.now, true);
        for key in 0..self.slots.capacity() {
            self.send_if_due();
            if let Some(slot) = self.slots.get_mut(key) {
                take_covers(slot, &mut news);
            }
        }
        self.setup.events.push(EngineEvent::Cover(Box::new(news)));
    }

    fn finish(mut self, failed: Option<String>) -> WorkerReport {
        let clock = self.clocks.read();
        let keys: Vec<usize> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.remove(clock, key);
        }
        self.backend.flush();
        self.backend.refresh_drops();
        self.setup.events.flush();
        let covers = self.setup.events.take_covers();
        let ended = self.clocks.read().now;
        let last = LastPart {
            ended,
            second: self.health.close_second(ended, self.backend.stats()),
            video_latency_us: self.measured.close_second(),
        };
        let windows = self.measured.into_windows();
        let cohorts: Vec<_> =
            self.closed.into_iter().zip(windows).map(|(closed, own)| closed.report(own)).collect();
        let mut distributions = Distributions::default();
        let measured = cohorts.iter().filter_map(|cohort| cohort.distributions.as_deref());
        measured.for_each(|own| distributions.merge(own));
        WorkerReport {
            worker: self.setup.index,
            core: self.setup.core,
            health: self.health.measured(ended, self.backend.stats()),
            totals: self.retired,
            distributions,
            before_window: self.before_window,
            peers: self.rows,
            assembled: self.assembled,
            last,
            captures: self.captures,
            cohorts,
            snapshots_dropped: self.setup.events.snapshots_dropped(),
            covers,
            failed,
        }
    }
}

fn take_covers(slot: &mut Slot, news: &mut CoverNews) {
    let peer = slot.id;
    slot.peer.covers(&mut |cover| news.covers.push(PeerCover { peer, cover }));
    if let Some(cut_off) = slot.impaired.as_mut().and_then(|impaired| impaired.take_cut_off()) {
        news.cut_off.push((peer, cut_off));
    }
}

/// When the next snapshot is due after the one that was due at `due` and is made `now`. A worker
/// that is behind begins a whole second anew: a snapshot over next to nothing would hide what the
/// late one shows.
fn snapshot_after(due: Instant, now: Instant) -> Instant {
    let next = due + SNAPSHOT_EVERY;
    if next > now { next } else { now + SNAPSHOT_EVERY }
}

#[cfg(test)]
mod tests {
    use stampede_core::{CaptureLimits, DtlsIdentity};
    use stampede_udp::{BackendChoice, BackendLimits};

    use super::*;
    use crate::mailbox::EventSignal;

    fn worker(capture: Option<CaptureOptions>) -> (Worker, Receiver<EngineEvent>) {
        let limits = BackendLimits::default();
        let (backend, _) = stampede_udp::open(BackendChoice::Mmsg, limits).unwrap();
        let (sender, events) = crossbeam_channel::bounded(64);
        let (_, inbox) = crossbeam_channel::bounded(1);
        let setup = WorkerSetup {
            index: 0,
            core: None,
            inbox,
            events: EventSink::new(sender, EventSignal::new().unwrap()),
            peers: Arc::new(AtomicUsize::new(8)),
            disk: None,
            gather: Duration::ZERO,
            capture,
            impair: ImpairPlan { cohorts: [None].into(), seed: 1, start: Instant::now() },
            buffers: SocketBuffers { receive_bytes: 1 << 16, send_bytes: 1 << 16 },
            learned: LearnedIp::default(),
            peer_options: PeerOptions::new(DtlsIdentity::generate().unwrap()),
        };
        (Worker::new(setup, backend), events)
    }

    fn id(serial: u32) -> PeerId {
        PeerId { worker: 0, serial }
    }

    fn subscriber(serial: u32) -> NewPeer {
        NewPeer {
            id: id(serial),
            label: format!("sub-{serial}"),
            role: PeerRole::Subscriber { record: false },
            cohort: 0,
            socket: Some(UdpSocket::bind("127.0.0.1:0").unwrap()),
        }
    }

    #[test]
    fn a_close_is_always_answered() {
        let (mut worker, events) = worker(None);
        let clock = worker.clocks.read();
        worker.command(clock, id(7), PeerCommand::Candidate(String::new()));
        worker.command(clock, id(7), PeerCommand::Close);
        worker.setup.events.flush();
        let events: Vec<_> = events.try_iter().collect();
        assert!(
            matches!(events[..], [EngineEvent::Peer { peer, notice: PeerNotice::Closed, .. }]
                if peer == id(7)),
            "{events:?}"
        );
    }

    #[test]
    fn the_flight_recorder_is_of_the_window_and_taps_whoever_is_there() {
        let limits =
            CaptureLimits { span: Duration::from_secs(1), bytes_max: 1 << 16, payload: false };
        let options = CaptureOptions { limits, tapped_per_worker_max: 1, worst: 5 };
        let (mut worker, _events) = worker(Some(options));
        let clock = worker.clocks.read();
        let is_tapped = |worker: &Worker, serial| {
            let key = worker.slot_of_peer[&id(serial)];
            worker.slots[key].peer.capture().is_some()
        };
        worker.add(clock, subscriber(1));
        worker.add(clock, subscriber(2));
        assert!(is_tapped(&worker, 1) && !is_tapped(&worker, 2));
        worker.command(clock, id(1), PeerCommand::Close);
        assert_eq!((worker.captures.len(), worker.rows.len()), (1, 1));
        worker.add(clock, subscriber(3));
        assert!(is_tapped(&worker, 3), "its place is free again");
        worker.begin_measuring(clock);
        assert_eq!((worker.captures.len(), worker.rows.len()), (0, 0));
    }

    #[test]
    fn a_stalled_worker_takes_one_snapshot_not_two() {
        let due = Instant::now();
        let ms = Duration::from_millis;
        assert_eq!(snapshot_after(due, due + ms(3)), due + ms(1_000), "on the grid");
        assert_eq!(snapshot_after(due, due + ms(999)), due + ms(1_000));
        assert_eq!(snapshot_after(due, due + ms(1_000)), due + ms(2_000));
        assert_eq!(snapshot_after(due, due + ms(5_200)), due + ms(6_200));
    }
}
