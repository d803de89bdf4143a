//! The peers of a worker: how they come, what they are to do, and how they go.

use std::borrow::Cow;
use std::net::UdpSocket;
use std::sync::atomic::Ordering;

use stampede_core::{LocalId, Peer, PeerRole};

use super::reports::take_covers;
use super::sink::Sink;
use super::sockets::{Socket, Sockets};
use super::{Slot, Worker};
use crate::capture::{CapturedPeer, keep_worst};
use crate::clock::Clock;
use crate::cover::CoverNews;
use crate::mailbox::NewPeer;
use crate::recorder::PeerRecorder;
use crate::timer::TimerState;
use crate::{EngineEvent, PeerCommand, PeerId, PeerNotice, PeerRow};

/// Room that is made for peers at a time, at least.
const SLOTS_MIN: usize = 16;

impl Worker {
    pub(super) fn add(&mut self, clock: Clock, new: NewPeer) {
        let NewPeer { id, label, role, cohort, socket, beside } = new;
        let add = || -> Result<usize, String> {
            let local = socket.as_ref().map(UdpSocket::local_addr).transpose();
            let local = local.map_err(|error| error.to_string())?;
            let PeerRole { receives, tracks, .. } = &role;
            let (receives, publishes) = (*receives, !tracks.is_empty());
            let impaired = receives.and_then(|_| self.impairments.of(cohort, &label));
            let mut options = Cow::Borrowed(&self.setup.peer_options);
            let own = self.setup.feedback_of_cohorts.get(usize::from(cohort));
            if let Some(&Some(feedback)) = own {
                options.to_mut().feedback = feedback;
            }
            let peer = Peer::with_role(clock.now, local, &options, role);
            let mut peer = peer.map_err(|error| error.to_string())?;
            let socket = socket.map(|socket| self.backend.add_socket(socket)).transpose();
            let socket = socket.map_err(|error| error.to_string())?;
            if let Some(options) = self.setup.capture
                && self.tapped < options.tapped_per_worker_max
                && receives.is_some()
            {
                self.tapped += 1;
                peer.start_capture(options.limits);
            }
            let records = receives.is_some_and(|receives| receives.record);
            let disk = self.setup.disk.as_ref().filter(|_| records);
            let recorder = disk.map(|disk| PeerRecorder::new(disk.clone(), label.clone()));
            let slot = Slot {
                id,
                label,
                sockets: Sockets::default(),
                drops_closed: 0,
                timer: TimerState::new(clock.now),
                publishes,
                peer,
                recorder,
                impaired,
                cohort,
                handshake_over: false,
                sends_by: None,
            };
            self.connecting += 1;
            let peers = self.slots.len();
            if peers == self.slots.capacity() {
                // By a quarter: a slot has a kilobyte.
                self.slots.reserve_exact((peers / 4).max(SLOTS_MIN));
            }
            let key = self.slots.insert(slot);
            self.rows.there_are(self.slots.len());
            if let Some(socket) = socket {
                self.slots[key].sockets.set(LocalId::default(), Socket::Udp(socket));
                self.owners.set(socket.0, key, LocalId::default());
            }
            self.slot_of_peer.insert(id, key);
            let other = beside.and_then(|peer| self.slot_of_peer.get(&peer));
            if let Some(other) = other.and_then(|&key| self.slots.get_mut(key)) {
                other.sends_by = Some(id);
            }
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

    pub(super) fn command(&mut self, clock: Clock, id: PeerId, command: PeerCommand) {
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
            PeerCommand::CreateOffer { id, added, publish } => {
                let offer = slot.peer.create_offer(now, added, publish);
                offer.map(|sdp| Some(PeerNotice::Offer { id, sdp }))
            }
            PeerCommand::RestartIce { id } => {
                slot.peer.restart_ice(now).map(|sdp| Some(PeerNotice::Offer { id, sdp }))
            }
            PeerCommand::Answer { sdp, mid_to_track_id } => {
                slot.peer.accept_answer(now, &sdp, &mid_to_track_id).map(|()| None)
            }
            PeerCommand::Candidate(line) => {
                slot.peer.add_remote_candidate(now, &line).map(|()| None)
            }
            PeerCommand::TurnServers { servers, only } => {
                slot.peer.set_turn_servers(now, servers, only);
                Ok(None)
            }
            PeerCommand::Update(update) => {
                slot.peer.update(update);
                Ok(None)
            }
            PeerCommand::ChangeNetwork => {
                self.change_network(clock, key);
                Ok(None)
            }
            PeerCommand::CutOff { lasts } => {
                slot.cut_off(now, lasts);
                Ok(None)
            }
            PeerCommand::LastFrame => {
                let at_unix_ns = slot.peer.last_frame_unix_ns(clock.here());
                Ok(Some(PeerNotice::LastFrame { at_unix_ns }))
            }
            PeerCommand::NextFrame => {
                slot.peer.await_frame(clock.here());
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

    /// Gives what came of calls to the peer by which the same participant sends.
    pub(super) fn hand_calls_over(&mut self, clock: Clock, key: usize, other: PeerId) {
        let Some(&other) = self.slot_of_peer.get(&other) else { return };
        let Some((slot, sending)) = self.slots.get2_mut(key, other) else { return };
        if slot.peer.hand_calls_to(clock.now, &mut sending.peer) {
            self.drain(clock, other);
        }
    }

    fn notify(&mut self, clock: Clock, peer: PeerId, notice: PeerNotice) {
        let at_unix_ns = clock.unix_ns();
        self.setup.events.push(EngineEvent::Peer { peer, at_unix_ns, notice });
    }

    /// Closes a peer with its account and gives its sockets back.
    pub(super) fn remove(&mut self, clock: Clock, key: usize) {
        let Some(mut slot) = self.slots.try_remove(key) else { return };
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
            handshake_over: true,
        };
        slot.peer.close(clock.now, &mut sink);
        let mut news = CoverNews::new(self.setup.index, clock.now, false);
        take_covers(&mut slot, &mut news);
        self.setup.events.push(EngineEvent::Cover(Box::new(news)));
        self.connecting -= usize::from(!slot.handshake_over);
        self.address_requests.clear();
        let mut kernel_drops = slot.drops_closed;
        for socket in slot.sockets.iter() {
            kernel_drops += self.forget(socket);
        }
        if let Some(recorder) = slot.recorder.take() {
            self.assembled.merge(&recorder.finish());
        }
        let report = slot.peer.final_report(clock.now);
        self.measured.closed(slot.cohort, &report.streams);
        if let Some(options) = self.setup.capture
            && let Some(captured) = CapturedPeer::of(slot.id, &slot.label, &slot.peer)
        {
            self.tapped -= 1;
            self.captures.push(captured);
            keep_worst(&mut self.captures, options.worst);
        }
        let counters = slot.counters();
        self.retired.merge(&counters);
        if let Some(closed) = self.closed.get_mut(usize::from(slot.cohort)) {
            closed.add(&counters);
        }
        let (label, cohort) = (slot.label, slot.cohort);
        let (id, remote) = (slot.id, slot.peer.remote());
        self.rows.push(PeerRow { id, label, cohort, kernel_drops, remote, report });
        self.slot_of_peer.remove(&slot.id);
        self.setup.peers.fetch_sub(1, Ordering::Relaxed);
    }
}
