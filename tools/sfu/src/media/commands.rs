//! What the signalling thread asks of a worker.

use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use stampede_impair::{Loss, seeded, stable_name};
use str0m::media::Mid;

use super::negotiate::NEGOTIATION_DEBOUNCE;
use super::peer::{Peer, Subscription};
use super::track::{Source, Track};
use super::worker::{ENDED_ROWS_MAX, Worker};
use super::{
    Command, Event, Kind, PeerKey, PeerLabel, PublishedTrack, Role, TrackKey, TrackOffer,
    WorkerReport, codec,
};
use crate::ledger::{PublishedTrackLedger, SubscriberTrackLedger, WorkerLedger};
use crate::{SendPath, sdp};

impl Worker {
    pub(crate) fn carry_out(&mut self, command: Command) {
        match command {
            Command::AddPeer { peer, role, label, tracks } => {
                self.add_peer(peer, role, label, tracks);
            }
            Command::RemovePeer(peer) => {
                if let Some(&index) = self.peer_index.get(&peer) {
                    self.remove_peer(index);
                }
            }
            Command::Offer { peer, id, sdp, tracks } => self.answer(peer, id, &sdp, tracks),
            Command::Answer { peer, id, sdp } => self.accept_answer(peer, id, &sdp),
            Command::BindTrack { peer, track } => self.bind(peer, &track),
            Command::UnpublishTrack(track) => self.unpublish(track),
            Command::Subscribe { peer, track } => self.subscribe(peer, track),
            Command::Unsubscribe { peer, track } => self.unsubscribe(peer, track),
            Command::Setting { peer, track, limit, paused } => {
                self.set(peer, track, limit, paused);
            }
            Command::Interest { track, worker, wanted } => self.interest(track, worker, wanted),
            Command::Keyframe { track, layer } => self.keyframe(track, layer),
            Command::Data { targets, channel, payload } => {
                self.deliver(&targets, &channel, &payload);
            }
            Command::Stop => {}
        }
    }

    fn add_peer(&mut self, key: PeerKey, role: Role, label: PeerLabel, tracks: Vec<TrackOffer>) {
        self.generation += 1;
        let now = self.out.now;
        let peer = Peer::new(key, self.generation, role, label, &self.config, self.address, now);
        let mut peer = match peer {
            Ok(peer) => peer,
            Err(reason) => {
                self.emit(Event::Failed { peer: key, reason });
                return;
            }
        };
        let identity = &*peer.label.identity;
        match role {
            Role::Subscriber => {
                peer.impair = self.cohorts.of(identity).map(|(_, model)| Box::new(model));
            }
            Role::Publisher => {
                let rng = seeded(self.seed, &format!("{}/up", stable_name(identity)));
                peer.upstream_loss = Loss::new(self.faults.drop_upstream, 1, rng);
            }
        }
        (self.joining, self.last_join) = (self.joining + 1, Some(now));
        let ufrag = peer.ufrag.clone();
        let index = self.peers.insert(Box::new(peer));
        self.peer_index.insert(key, index);
        self.by_ufrag.insert(ufrag, index);
        for track in tracks {
            self.add_subscription(index, track);
        }
        if role == Role::Subscriber {
            self.peers[index].negotiation.want(now, Duration::ZERO);
            self.negotiate(index);
        }
        self.advance(index);
    }

    /// Closes and forgets a peer with everything that hangs on it.
    pub(crate) fn remove_peer(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        // A failing close only means that there is nobody to say goodbye to.
        if peer.rtc.close().is_ok() && !peer.ended {
            peer.ended = true;
            self.advance(index);
        }
        let published: Vec<usize> = self
            .tracks
            .iter()
            .filter(|(_, track)| track.source.as_ref().is_some_and(|s| s.peer == index))
            .map(|(track, _)| track)
            .collect();
        for track in published {
            self.end_source(track);
        }
        let mut peer = self.peers.remove(index);
        self.joining -= usize::from(peer.joining);
        self.peer_index.remove(&peer.key);
        self.by_ufrag.remove(&peer.ufrag);
        for address in peer.addresses.iter() {
            self.forget_address(index, address);
        }
        for subscription in peer.subscriptions.drain() {
            self.keep_row(&peer.label, subscription.row());
            // One that was unsubscribed has left already, and the index may be another track's.
            if !subscription.removed {
                self.leave_track(subscription.track, index);
            }
        }
    }

    fn leave_track(&mut self, track_index: usize, peer: usize) {
        if let Some(track) = self.tracks.get_mut(track_index) {
            track.subscribers.retain(|&subscriber| subscriber != peer);
        }
        self.forget_unused_track(track_index);
    }

    fn forget_unused_track(&mut self, index: usize) {
        let unused = self
            .tracks
            .get(index)
            .is_some_and(|track| track.source.is_none() && track.subscribers.is_empty());
        if unused {
            let track = self.tracks.remove(index);
            self.track_index.remove(&track.key);
            self.burst_tracks.retain(|&burst| burst != index);
        }
    }

    pub(crate) fn keep_row(&mut self, label: &PeerLabel, row: SubscriberTrackLedger) {
        if self.ended_subscribed.len() >= ENDED_ROWS_MAX {
            self.ended_subscribed.pop_front();
        }
        self.ended_subscribed.push_back((label.room.clone(), label.identity.clone(), row));
    }

    fn track_at(&mut self, key: TrackKey, kind: Kind, home: usize) -> usize {
        if let Some(&index) = self.track_index.get(&key) {
            return index;
        }
        let packets_max = match (kind, self.config.send_path) {
            (Kind::Video, SendPath::Direct) => self.config.retransmit_cache_packets_max,
            _ => 0,
        };
        let index = self.tracks.insert(Track::new(key, kind, home, packets_max));
        self.track_index.insert(key, index);
        index
    }

    fn add_subscription(&mut self, index: usize, offer: TrackOffer) {
        let track_index = self.track_at(offer.track, offer.kind, offer.home);
        let Some(peer) = self.peers.get_mut(index) else { return };
        if peer.by_track.contains_key(&track_index) {
            return;
        }
        // Numbers start at random (RFC 3550 §5.1) but repeatably, and far from the wrap.
        let name = format!("{}/{}", peer.label.identity, offer.sid);
        let mut rng = seeded(self.seed, &name);
        let mut first_seq = || rng.u16(1..0x4000);
        let subscription = Subscription::new(track_index, offer, first_seq(), first_seq());
        let subscription = peer.subscriptions.insert(subscription);
        peer.by_track.insert(track_index, subscription);
        self.tracks[track_index].subscribers.push(index);
    }

    fn subscribe(&mut self, key: PeerKey, offer: TrackOffer) {
        let Some(&index) = self.peer_index.get(&key) else { return };
        self.add_subscription(index, offer);
        self.want_negotiation(index);
    }

    fn want_negotiation(&mut self, index: usize) {
        let at = self.peers[index].negotiation.want(self.out.now, NEGOTIATION_DEBOUNCE);
        self.schedule(index, at);
    }

    fn unsubscribe(&mut self, key: PeerKey, track: TrackKey) {
        let Some(&index) = self.peer_index.get(&key) else { return };
        let Some(&track_index) = self.track_index.get(&track) else { return };
        let peer = &mut self.peers[index];
        let Some(subscription) = peer.by_track.remove(&track_index) else { return };
        if let Some(subscription) = peer.subscriptions.get_mut(subscription) {
            subscription.removed = true;
        }
        self.leave_track(track_index, index);
        self.want_negotiation(index);
    }

    fn set(&mut self, key: PeerKey, track: TrackKey, limit: u8, paused: bool) {
        let Some(&index) = self.peer_index.get(&key) else { return };
        let Some(&track_index) = self.track_index.get(&track) else { return };
        let peer = &mut self.peers[index];
        let Some(&subscription) = peer.by_track.get(&track_index) else { return };
        let subscription = &mut peer.subscriptions[subscription];
        subscription.offer.limit = limit;
        if paused && !subscription.offer.paused {
            // Resuming needs a keyframe, and numbers that go on where they ended.
            subscription.rewriter.stop();
            subscription.layer = None;
        }
        subscription.offer.paused = paused;
    }

    fn answer(&mut self, key: PeerKey, id: u32, sdp: &str, tracks: Vec<PublishedTrack>) {
        let Some(&index) = self.peer_index.get(&key) else { return };
        match self.peers[index].answer(sdp) {
            Ok(answer) => {
                let pausing = tracks.iter().filter(|track| track.dtx);
                let pausing: Vec<&str> = pausing.map(|track| track.mid.as_str()).collect();
                let answer = sdp::with_dtx(&answer, &pausing);
                for track in &tracks {
                    self.bind(key, track);
                }
                let codecs = tracks
                    .iter()
                    .map(|track| (track.track, self.negotiated_codec(index, &track.mid)))
                    .collect();
                self.emit(Event::Answer { peer: key, id, sdp: answer, codecs });
                self.advance(index);
            }
            Err(reason) => self.emit(Event::NegotiationFailed { peer: key, reason }),
        }
    }

    fn accept_answer(&mut self, key: PeerKey, id: u32, sdp: &str) {
        let Some(&index) = self.peer_index.get(&key) else { return };
        let cache_packets_max = self.config.retransmit_cache_packets_max;
        if let Err(reason) = self.peers[index].accept_answer(id, sdp, cache_packets_max) {
            self.emit(Event::NegotiationFailed { peer: key, reason });
            return;
        }
        self.negotiate(index);
        self.advance(index);
    }

    fn negotiated_codec(&self, index: usize, mid: &str) -> &'static str {
        let rtc = &self.peers[index].rtc;
        rtc.media(Mid::from(mid))
            .and_then(|media| media.remote_pts().first().copied())
            .and_then(|pt| rtc.codec_config().params().iter().find(|p| p.pt() == pt))
            .map_or("", |params| codec::mime_type(params.spec().codec))
    }

    fn bind(&mut self, key: PeerKey, track: &PublishedTrack) {
        let Some(&index) = self.peer_index.get(&key) else { return };
        let track_index = self.track_at(track.track, track.kind, self.index);
        let mid = Mid::from(track.mid.as_str());
        let label = &self.peers[index].label;
        if self.tracks[track_index].source.is_none() {
            self.tracks[track_index].source = Some(Source {
                peer: index,
                room: label.room.clone(),
                interested: Vec::new(),
                streams: Vec::new(),
                ledger: PublishedTrackLedger {
                    identity: label.identity.to_string(),
                    track_sid: track.sid.to_string(),
                    kind: match track.kind {
                        Kind::Audio => "audio".to_owned(),
                        Kind::Video => "video".to_owned(),
                    },
                    ..PublishedTrackLedger::default()
                },
            });
        }
        let peer = &mut self.peers[index];
        peer.mids.retain(|(known, _)| *known != mid);
        peer.mids.push((mid, track_index));
    }

    fn unpublish(&mut self, track: TrackKey) {
        if let Some(&index) = self.track_index.get(&track) {
            self.end_source(index);
        }
    }

    fn end_source(&mut self, index: usize) {
        let Some(source) = self.tracks.get_mut(index).and_then(|track| track.source.take()) else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(source.peer) {
            peer.mids.retain(|(_, track)| *track != index);
            peer.streams.retain(|_, known| known.is_some_and(|(track, _)| track != index));
        }
        if self.ended_published.len() >= ENDED_ROWS_MAX {
            self.ended_published.pop_front();
        }
        self.ended_published.push_back((source.room.clone(), source.row()));
        self.forget_unused_track(index);
    }

    fn interest(&mut self, track: TrackKey, worker: usize, wanted: bool) {
        let Some(&index) = self.track_index.get(&track) else { return };
        let Some(source) = &mut self.tracks[index].source else { return };
        source.interested.retain(|&known| known != worker);
        if wanted {
            source.interested.push(worker);
        }
    }

    fn keyframe(&mut self, track: TrackKey, layer: u8) {
        let Some(&index) = self.track_index.get(&track) else { return };
        if let Some(gate) = self.tracks[index].keyframes.get_mut(usize::from(layer)) {
            gate.want();
        }
        self.relay_keyframe_requests(index);
    }

    fn deliver(&mut self, targets: &Arc<[PeerKey]>, channel: &str, payload: &[u8]) {
        for key in targets.iter() {
            let Some(&index) = self.peer_index.get(key) else { continue };
            let peer = &mut self.peers[index];
            let id = peer.channels.iter().find(|(_, label)| label == channel).map(|(id, _)| *id);
            let Some(mut channel) = id.and_then(|id| peer.rtc.channel(id)) else { continue };
            match channel.write(true, payload) {
                Ok(true) => {}
                Ok(false) => tracing::debug!(peer = key.0, "data channel full, message dropped"),
                Err(error) => tracing::debug!(peer = key.0, %error, "data channel"),
            }
            self.advance(index);
        }
    }

    /// Answers who asked for the ledger.
    pub(crate) fn answer_reports(&mut self) {
        while let Ok(reply) = self.reports.try_recv() {
            // The one who asked may have given up.
            let _ = reply.try_send(self.report());
        }
    }

    fn report(&mut self) -> WorkerReport {
        self.out.backend.refresh_drops();
        let stats = self.out.backend.stats();
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        let mut report = WorkerReport {
            worker: WorkerLedger {
                worker: self.index,
                peers: self.peers.len(),
                datagrams_in: stats.datagrams_in,
                datagrams_out: stats.datagrams_out,
                datagrams_unknown: self.datagrams_unknown,
                send_errors: stats.send_errors,
                undeliverable: stats.undeliverable,
                send_queue_full: stats.send_queue_full,
                kernel_drops: stats.kernel_drops,
                mailbox_full: self.mailbox_full,
                messages_dropped: self.messages_dropped,
                delay_queue_full: self.out.held.full(),
                upstream_dropped: self.upstream_dropped,
                cpu_s: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            },
            published: self.ended_published.iter().cloned().collect(),
            subscribed: self.ended_subscribed.iter().cloned().collect(),
        };
        for (_, track) in &self.tracks {
            if let Some(source) = &track.source {
                report.published.push((source.room.clone(), source.row()));
            }
        }
        for (_, peer) in &self.peers {
            for (_, subscription) in &peer.subscriptions {
                let label = &peer.label;
                let row = subscription.row();
                report.subscribed.push((label.room.clone(), label.identity.clone(), row));
            }
        }
        report
    }
}

impl Source {
    /// Its row of the ledger now.
    fn row(&self) -> PublishedTrackLedger {
        PublishedTrackLedger {
            packets_lost: self.streams.iter().map(|stream| stream.lost()).sum(),
            ..self.ledger.clone()
        }
    }
}
