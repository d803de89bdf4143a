//! What a worker counts for the signalling plane: the measured window, snapshots, the end.

use std::time::Instant;

use stampede_core::PeerCounters;
use stampede_counters::{RunCounters, WorkerUncategorisedCounters};

use super::{GATHER_FROM_DATAGRAMS_PER_S, SNAPSHOT_EVERY, Slot, Worker};
use crate::EngineEvent;
use crate::capture::{CapturedPeer, badness};
use crate::clock::Clock;
use crate::cohort::Closed;
use crate::cover::{CoverNews, PeerCover};
use crate::distributions::Distributions;
use crate::health::Io;
use crate::snapshot::{LastPart, WorkerReport, WorkerSnapshot};
use crate::worst::{PeerFigures, PeerLine, Worst};

impl Worker {
    pub(super) fn begin_measuring(&mut self, clock: Clock) {
        self.before_window.merge(&self.retired);
        self.retired = PeerCounters::default();
        self.closed.fill(Closed::default());
        self.rows.begin_measuring();
        self.captures.clear();
        for key in 0..self.slots.capacity() {
            self.send_if_due();
            let Some(slot) = self.slots.get_mut(key) else { continue };
            // For the backend's sum, which is where the window's begins.
            for socket in slot.sockets.udp() {
                self.backend.socket_drops(socket);
            }
            self.before_window.merge(&slot.counters());
            slot.peer.begin_measuring(clock.now);
            if let Some(impaired) = &mut slot.impaired {
                impaired.begin_measuring();
            }
        }
        self.measured.begin_measuring();
        self.health.begin_measuring(clock.now, self.io());
        self.setup.events.begin_measuring();
    }

    /// What it counted since the measured window began, `peers` being the sums of its peers: the
    /// only place that snapshots and the report have it from.
    fn counted(&self, peers: &PeerCounters) -> RunCounters {
        let own = WorkerUncategorisedCounters {
            orphans: self.health.orphan_datagrams(),
            snapshots_dropped: self.setup.events.snapshots_dropped(),
        };
        let Io { udp, streams } = self.health.io(self.io());
        RunCounters::new(peers, udp, streams, own)
    }

    /// What its sockets did so far.
    fn io(&self) -> Io {
        let streams = self.streams.as_ref().map(|streams| streams.stats());
        Io { udp: self.backend.stats(), streams: streams.unwrap_or_default() }
    }

    /// Of the peers that are there: their worst, with the packets so far.
    pub(super) fn hand_out_captures(&mut self) {
        let Some(options) = self.setup.capture else { return };
        let mut tapped: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.peer.capture().is_some())
            .map(|(key, slot)| (badness(&PeerFigures::of(&slot.counters())), key))
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

    pub(super) fn read_totals(&mut self, tag: u64) {
        let mut totals = Box::new(self.retired);
        for (_, slot) in &self.slots {
            totals.merge(&slot.counters());
        }
        let worker = self.setup.index;
        self.setup.events.push(EngineEvent::Totals { worker, tag, totals });
    }

    pub(super) fn snapshot(&mut self, clock: Clock) {
        self.next_snapshot = snapshot_after(self.next_snapshot, clock.now);
        let mut totals = self.retired;
        let mut peers_receiving = 0;
        let mut worst = Worst::default();
        for key in 0..self.slots.capacity() {
            // Thousands of peers take longer than a packet may be late.
            self.send_if_due();
            let Some(slot) = self.slots.get(key) else { continue };
            // For the backend's sum: it learns of a drop with the socket's next datagram else.
            for socket in slot.sockets.udp() {
                self.backend.socket_drops(socket);
            }
            let counters = slot.counters();
            let received = counters.video.streams.received + counters.audio.streams.received;
            peers_receiving += usize::from(received > 0);
            totals.merge(&counters);
            worst.offer(key, PeerFigures::of(&counters));
        }
        self.send_covers(clock);
        let second = self.health.close_second(clock.now, self.io());
        self.gathering = second.datagrams_in >= GATHER_FROM_DATAGRAMS_PER_S;
        let worst = worst.into_slots().into_iter().filter_map(|(key, figures)| {
            let slot = self.slots.get(key)?;
            Some(PeerLine { id: slot.id, label: slot.label.clone(), figures })
        });
        // A snapshot that would be dropped must not take them with it.
        let distributions = match self.setup.events.is_crowded() {
            true => None,
            false => self.measured.take_untold(),
        };
        let snapshot = WorkerSnapshot {
            worker: self.setup.index,
            core: self.setup.core,
            at_unix_ns: clock.unix_ns(),
            peers: self.slots.len(),
            peers_receiving,
            counted: self.counted(&totals),
            second,
            health: self.health.measured(clock.now),
            video_latency_second_us: self.measured.close_second(),
            distributions,
            worst: worst.collect(),
        };
        self.setup.events.push(EngineEvent::Snapshot(Box::new(snapshot)));
    }

    /// What is new of the time that streams cover. If events wait, it waits in the streams.
    fn send_covers(&mut self, clock: Clock) {
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

    pub(super) fn finish(mut self, failed: Option<String>) -> WorkerReport {
        let clock = self.clocks.read();
        let keys: Vec<usize> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.remove(clock, key);
        }
        self.backend.flush();
        if let Some(streams) = &mut self.streams {
            streams.flush();
        }
        self.backend.refresh_drops();
        self.setup.events.flush();
        let covers = self.setup.events.take_covers();
        let ended = self.clocks.read().now;
        let last = LastPart {
            ended,
            second: self.health.close_second(ended, self.io()),
            video_latency_us: self.measured.close_second(),
        };
        let counted = self.counted(&self.retired);
        let windows = self.measured.into_windows();
        let cohorts: Vec<_> =
            self.closed.into_iter().zip(windows).map(|(closed, own)| closed.report(own)).collect();
        let mut distributions = Distributions::default();
        let measured = cohorts.iter().filter_map(|cohort| cohort.distributions.as_deref());
        measured.for_each(|own| distributions.merge(own));
        let (peers, left_out) = self.rows.finish();
        WorkerReport {
            worker: self.setup.index,
            core: self.setup.core,
            health: self.health.measured(ended),
            counted,
            distributions,
            rtp_arrived: self.before_window.rtp_arrived() + self.retired.rtp_arrived(),
            peers,
            left_out,
            assembled: self.assembled,
            last,
            captures: self.captures,
            cohorts,
            covers,
            failed,
        }
    }
}

pub(super) fn take_covers(slot: &mut Slot, news: &mut CoverNews) {
    let peer = slot.id;
    slot.peer.covers(&mut |cover| news.covers.push(PeerCover { peer, cover }));
    if let Some(cut_off) = slot.impaired.as_mut().and_then(|impaired| impaired.take_cut_off()) {
        news.cut_off.push((peer, cut_off));
    }
}

/// When the next snapshot is due after the one that was due at `due` and is made `now`. A worker
/// that is behind begins a whole second anew: a snapshot over next to nothing would hide what the
/// late one shows.
pub(super) fn snapshot_after(due: Instant, now: Instant) -> Instant {
    let next = due + SNAPSHOT_EVERY;
    if next > now { next } else { now + SNAPSHOT_EVERY }
}
