//! A media worker: one pinned thread, one UDP socket, the peers sharded to it.

mod busy;
mod commands;
mod congestion;
mod connections;
mod data;
mod joining;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use stampede_counters::SfuWorkerCounters;
use stampede_udp::{Wait, unix_now_ns};

use super::ended::EndedRows;
use super::endpoint::Endpoint;
use super::events::EventQueue;
use super::factory::PeerFactory;
use super::failure::PeerFailure;
use super::forward::Forwarder;
use super::handle::{Inbox, Rows, WorkerReport};
use super::joins::Joins;
use super::layers::LAYERS_MAX;
use super::peers::PeerTable;
use super::siblings::Siblings;
use super::socket::MediaSocket;
use super::timers::Timers;
use super::tracks::TrackTable;
use crate::ledger::WorkerLedger;
use busy::Busy;
use data::Messages;

/// How long a poll gathers after its first datagram, so that the packets of a frame go to each
/// subscriber together. It adds to the latency of what the SFU forwards.
const GATHER: Duration = Duration::from_millis(1);

/// Longest sleep; nothing depends on it but the promptness of stopping.
const SLEEP_MAX: Duration = Duration::from_millis(200);

/// Longest sleep while events wait for room: the thread that makes it gives way to this one, so must be
/// left some time.
const EVENTS_INTERVAL: Duration = Duration::from_millis(1);

/// How often a worker whose socket failed looks whether its last events can be said.
const LAST_EVENTS_INTERVAL: Duration = Duration::from_millis(10);

/// What a worker is made of.
pub(crate) struct WorkerParts {
    /// Its number from 0.
    pub(crate) index: usize,
    pub(crate) socket: MediaSocket,
    pub(crate) inbox: Inbox,
    pub(crate) events: EventQueue,
    pub(crate) siblings: Siblings,
    pub(crate) factory: PeerFactory,
    /// No keyframe is asked for, and none is taken for one.
    pub(crate) withhold_keyframes: bool,
    /// Share of data messages dropped on purpose, and a seed.
    pub(crate) drop_data: (f64, u64),
}

/// A media worker. Lives on its thread.
pub(crate) struct Worker {
    index: usize,
    /// What time it is; tests have another.
    clock: fn() -> Instant,
    /// What its thread has used of its core.
    cpu: fn() -> Duration,
    busy: Busy,
    /// The time of this turn.
    now: Instant,
    /// A moment, and what the wall clock said then: sender reports count from it, so that they don't
    /// follow when that is set.
    wall: (Instant, SystemTime),
    socket: MediaSocket,
    inbox: Inbox,
    events: EventQueue,
    siblings: Siblings,
    factory: PeerFactory,
    withhold_keyframes: bool,
    peers: PeerTable,
    tracks: TrackTable,
    timers: Timers,
    forwarder: Forwarder,
    joins: Joins,
    ended: EndedRows,
    received: Received,
    messages: Messages,
}

/// What this thread has used of its core.
fn thread_cpu() -> Duration {
    let cpu = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(cpu.tv_sec.try_into().unwrap_or(0), cpu.tv_nsec.try_into().unwrap_or(0))
}

/// Datagrams of this turn, and what became of those that went nowhere.
#[derive(Debug, Default)]
struct Received {
    /// Peer and place in the batch.
    order: Vec<(usize, usize)>,
    datagram: Vec<u8>,
    unknown: u64,
    dropped: u64,
    refused: u64,
    malformed: u64,
}

impl Worker {
    pub(crate) fn new(parts: WorkerParts, clock: fn() -> Instant) -> Self {
        Self {
            index: parts.index,
            clock,
            cpu: thread_cpu,
            // Its thread begins with it.
            busy: Busy::new(clock(), Duration::ZERO),
            now: clock(),
            wall: (Instant::now(), SystemTime::now()),
            socket: parts.socket.with_clock(clock),
            inbox: parts.inbox,
            events: parts.events,
            siblings: parts.siblings,
            factory: parts.factory,
            withhold_keyframes: parts.withhold_keyframes,
            peers: PeerTable::default(),
            tracks: TrackTable::default(),
            timers: Timers::default(),
            forwarder: Forwarder::default(),
            joins: Joins::default(),
            ended: EndedRows::default(),
            received: Received::default(),
            messages: Messages::new(parts.drop_data),
        }
    }

    /// Runs until told to stop or until the backend fails.
    pub(crate) fn run(mut self) {
        loop {
            let wait = Wait { timeout: self.sleep(), gather: GATHER, datagrams_max: usize::MAX };
            if let Err(error) = self.socket.poll(wait) {
                self.give_up(error);
                return;
            }
            self.begin_turn((self.clock)());
            self.receive();
            if self.turn() {
                break;
            }
        }
        for index in self.peers.indices() {
            self.remove_peer(index);
        }
        self.socket.flush();
    }

    /// What is done once the datagrams that have come were handed out: media first, and those who join
    /// last. Whether to stop.
    pub(crate) fn turn(&mut self) -> bool {
        self.answer_reports();
        let media_waits = self.forward();
        // A slice takes a while, and what is due is due by now.
        self.begin_turn((self.clock)());
        self.wake_due_peers();
        if self.hurry() {
            return true;
        }
        self.socket.release(self.now);
        // What is written already is not to wait for those who join.
        self.socket.flush();
        let stop = self.join(media_waits);
        self.events.flush();
        stop
    }

    /// The backend is unusable: everybody on this worker is told to come back.
    fn give_up(&mut self, error: io::Error) {
        tracing::error!(worker = self.index, %error, "the media socket failed; its peers end");
        let error = Arc::new(error);
        for index in self.peers.indices() {
            self.fail(index, PeerFailure::Socket(Arc::clone(&error)));
        }
        while !self.events.is_empty() && !self.events.is_closed() {
            std::thread::sleep(LAST_EVENTS_INTERVAL);
            self.events.flush();
        }
    }

    /// How long nothing is to be done unless something comes.
    pub(crate) fn sleep(&self) -> Duration {
        if !self.inbox.is_empty() || !self.joins.is_empty() || self.has_media() {
            return Duration::ZERO;
        }
        let longest = if self.events.is_empty() { SLEEP_MAX } else { EVENTS_INTERVAL };
        let due = [self.timers.next(), self.socket.next_release(), self.socket.tcp_tidy_at()];
        let next = due.into_iter().flatten().min();
        let now = (self.clock)();
        next.map_or(longest, |at| at.saturating_duration_since(now).min(longest))
    }

    /// It is so late now.
    pub(crate) fn begin_turn(&mut self, now: Instant) {
        self.now = now;
        self.busy.look(now, self.cpu);
    }

    /// Feeds the batch to the peers, grouped by peer.
    fn receive(&mut self) {
        let mut order = std::mem::take(&mut self.received.order);
        order.clear();
        for (i, received) in self.socket.batch().iter().enumerate() {
            let payload = self.socket.payload(received);
            match self.peers.of_datagram(Endpoint::udp(received.source), payload) {
                Some(peer) => order.push((peer, i)),
                None => self.received.unknown += 1,
            }
        }
        order.sort_unstable();
        let unix_now_ns = unix_now_ns();
        for &(peer, i) in &order {
            let received = self.socket.batch()[i];
            self.received.datagram.clear();
            self.received.datagram.extend_from_slice(self.socket.payload(&received));
            let at = self.arrival(unix_now_ns, received.received_at_unix_ns);
            self.take(peer, Endpoint::udp(received.source), at);
        }
        self.received.order = order;
        self.receive_tcp(unix_now_ns);
    }

    /// When a datagram came that the kernel stamped so.
    fn arrival(&self, unix_now_ns: u64, stamp_unix_ns: u64) -> Instant {
        let age = Duration::from_nanos(unix_now_ns.saturating_sub(stamp_unix_ns));
        self.now.checked_sub(age.min(Duration::from_secs(1))).unwrap_or(self.now)
    }

    /// Feeds what came over TCP to the peers, connection by connection.
    fn receive_tcp(&mut self, unix_now_ns: u64) {
        for i in 0.. {
            let Some((source, payload, stamp)) = self.socket.over_tcp(i) else { break };
            let Some(peer) = self.peers.of_datagram(source, payload) else {
                self.received.unknown += 1;
                continue;
            };
            self.received.datagram.clear();
            self.received.datagram.extend_from_slice(payload);
            let at = self.arrival(unix_now_ns, stamp);
            self.take(peer, source, at);
        }
        let Self { socket, peers, now, .. } = self;
        socket.tidy_tcp(*now, |address| peers.is_at(Endpoint::tcp(address)));
        for i in 0.. {
            let Some(closed) = self.socket.closed_tcp(i) else { return };
            self.peers.vacate(closed);
        }
    }

    /// Whether there are packets to forward.
    pub(crate) fn has_media(&self) -> bool {
        self.forwarder.is_under_way() || self.tracks.has_bursts()
    }

    /// Sends a slice of what publishers of this worker and of others have sent to everybody. Whether more
    /// is to be sent.
    pub(crate) fn forward(&mut self) -> bool {
        while let Some(batch) = self.inbox.media() {
            self.tracks.extend(batch);
        }
        let Self { forwarder, tracks, peers, socket, siblings, clock, .. } = self;
        forwarder.begin_round(tracks);
        let round = forwarder.tracks().to_vec();
        for &index in &round {
            if let Some(track) = tracks.get_mut(index) {
                siblings.share(track);
            }
        }
        forwarder.forward(tracks, peers, socket, *clock);
        for index in self.forwarder.take_begun() {
            self.report_soon(index);
        }
        for index in round {
            self.relay_keyframe_requests(index);
        }
        self.has_media()
    }

    /// Asks the publisher for the keyframes that are wanted and due.
    fn relay_keyframe_requests(&mut self, index: usize) {
        for layer in 0..LAYERS_MAX as u8 {
            let Some(track) = self.tracks.get_mut(index) else { return };
            if !track.keyframe_due(layer, self.now) {
                continue;
            }
            let Some(source) = track.source_mut() else {
                self.siblings.ask_keyframe(track, layer);
                continue;
            };
            if self.withhold_keyframes {
                continue;
            }
            let publisher = source.peer();
            if let Some(ssrc) = source.keyframe_ssrc(layer)
                && let Some(peer) = self.peers.get_mut(publisher)
            {
                peer.request_keyframe(ssrc);
                self.advance(publisher);
            }
        }
    }

    /// Answers who asked for the ledger.
    fn answer_reports(&mut self) {
        while let Some(reply) = self.inbox.report_request() {
            // The one who asked may have given up.
            let _ = reply.try_send(self.report());
        }
    }

    /// Its part of the ledger.
    fn report(&mut self) -> WorkerReport {
        let stats = self.socket.refreshed_stats();
        let [tcp_timed_out, tcp_displaced] = self.socket.tcp_closed_unclaimed();
        let counted = SfuWorkerCounters {
            tcp_timed_out,
            tcp_displaced,
            datagrams_in: stats.datagrams_in,
            datagrams_out: stats.datagrams_out,
            datagrams_unknown: self.received.unknown,
            addresses_refused: self.received.refused,
            datagrams_malformed: self.received.malformed,
            send_errors: stats.send_errors,
            undeliverable: stats.undeliverable + self.socket.tcp_undeliverable(),
            send_queue_full: stats.send_queue_full + self.socket.tcp_unsent(),
            kernel_drops: stats.kernel_drops,
            mailbox_full: self.siblings.packets_dropped(),
            backlog_full: self.tracks.packets_dropped(),
            messages_received: self.messages.received,
            messages_sent: self.messages.sent,
            messages_unsent: self.messages.unsent,
            messages_unsent_reliable: self.messages.unsent_reliable,
            messages_ignored: self.messages.ignored,
            messages_withheld: self.messages.withheld,
            messages_dropped: self.events.messages_dropped(),
            joins_dropped: self.joins.dropped(),
            media_ignored: self.tracks.packets_ignored(),
            delay_queue_full: self.socket.held_full(),
            upstream_dropped: self.received.dropped,
        };
        let worker = WorkerLedger {
            worker: self.index,
            peers: self.peers.len(),
            counted,
            cpu_s: (self.cpu)().as_secs_f64(),
            full_s: self.busy.full().as_secs_f64(),
        };
        WorkerReport { worker, ended: self.ended.rows(), live: self.rows() }
    }

    /// What is published and subscribed to.
    pub(crate) fn rows(&self) -> Rows {
        let mut rows = Rows::default();
        for source in self.tracks.iter().filter_map(|track| track.source()) {
            rows.published.push((source.room().clone(), source.row()));
        }
        for peer in self.peers.iter() {
            let label = peer.label();
            if let Some(congestion) = peer.congestion() {
                let (room, identity) = (label.room.clone(), label.identity.clone());
                rows.congestion.push((room, identity, congestion.row()));
            }
            rows.subscribed.extend(peer.subscriptions().iter().map(|subscription| {
                (subscription.room().clone(), label.identity.clone(), subscription.row())
            }));
        }
        rows
    }
}
