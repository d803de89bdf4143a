//! What the signalling thread asks of a worker.

use str0m::media::Mid;

use super::Worker;
use crate::media::answers::Answer;
use crate::media::codec;
use crate::media::message::{
    Command, Event, PeerKey, PeerLabel, PublishedTrack, Role, TrackKey, TrackOffer, Wanted,
};
use crate::media::source::Source;

impl Worker {
    pub(crate) fn carry_out(&mut self, command: Command) {
        match command {
            Command::AddPeer { peer, role, label, tracks, allow_pause } => {
                self.add_peer(peer, (role, allow_pause), label, tracks);
            }
            Command::RemovePeer(peer) => {
                if let Some(index) = self.peers.index_of(peer) {
                    self.remove_peer(index);
                }
            }
            Command::Suspend(peer) => {
                if let Some(index) = self.peers.index_of(peer)
                    && let Some(peer) = self.peers.get_mut(index)
                {
                    peer.suspend_negotiation();
                }
            }
            Command::RestartIce(peer) => self.restart_ice(peer),
            Command::Relabel { peer, label } => {
                if let Some(index) = self.peers.index_of(peer)
                    && let Some(peer) = self.peers.get_mut(index)
                {
                    peer.relabel(label);
                }
            }
            Command::Offer { peer, id, sdp, tracks } => self.answer(peer, id, &sdp, &tracks),
            Command::Answer { peer, id, sdp } => self.accept_answer(peer, id, &sdp),
            Command::BindTrack { peer, track } => self.bind(peer, &track),
            Command::UnpublishTrack(track) => {
                if let Some(index) = self.tracks.index_of(track) {
                    self.end_source(index);
                }
            }
            Command::Subscribe { peer, track } => self.subscribe(peer, track),
            Command::Unsubscribe { peer, track } => self.unsubscribe(peer, track),
            Command::Setting { peer, track, wanted } => self.set(peer, track, wanted),
            Command::Switch { peer, from, to } => self.switch(peer, from, to),
            Command::Interest { track, worker, wanted } => self.interest(track, worker, wanted),
            Command::Keyframe { track, layer } => {
                if let Some(index) = self.tracks.index_of(track) {
                    self.want_keyframe(index, layer);
                }
            }
            Command::Data { targets, channel, payload } => {
                self.deliver(&targets, &channel, &payload);
            }
            Command::DataTrack { targets, payload } => self.deliver_packet(&targets, &payload),
            Command::Stop => {}
        }
    }

    fn add_peer(
        &mut self,
        key: PeerKey,
        (role, allow_pause): (Role, bool),
        label: PeerLabel,
        tracks: Vec<TrackOffer>,
    ) {
        let mut peer = match self.factory.peer(key, role, label, allow_pause, self.now) {
            Ok(peer) => peer,
            Err(failure) => {
                self.events.emit(Event::Failed { peer: key, failure });
                return;
            }
        };
        // By an answer it gets what it can without being asked for an offer.
        if !role.receives() || !tracks.is_empty() {
            peer.want_negotiation(self.now);
        }
        let index = self.peers.insert(peer);
        for track in tracks {
            self.add_subscription(index, track);
        }
        self.negotiate(index);
        self.advance(index);
    }

    /// Closes and forgets a peer with everything that hangs on it.
    pub(super) fn remove_peer(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        if peer.close() && peer.end() {
            self.advance(index);
        }
        for track in self.tracks.published_by(index) {
            self.end_source(track);
        }
        let Some(peer) = self.peers.remove(index) else { return };
        if let Some(congestion) = peer.congestion() {
            let label = peer.label();
            let (room, identity) = (label.room.clone(), label.identity.clone());
            self.ended.keep_congestion(room, identity, congestion.row());
        }
        for subscription in peer.subscriptions().iter() {
            let identity = peer.label().identity.clone();
            self.ended.keep_subscribed(subscription.room().clone(), identity, subscription.row());
            // One that was unsubscribed has left already, and the index may be another track's.
            if !subscription.is_removed() {
                self.tracks.leave(subscription.track(), index);
            }
        }
    }

    fn add_subscription(&mut self, index: usize, offer: TrackOffer) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let track = self.tracks.find_or_insert(offer.track, offer.kind, offer.home);
        if peer.subscriptions().has(track) {
            return;
        }
        let subscription = self.factory.subscription(peer.label(), track, offer);
        peer.subscriptions_mut().add(subscription);
        if let Some(track) = self.tracks.get_mut(track) {
            track.add_subscriber(index);
        }
    }

    fn subscribe(&mut self, key: PeerKey, offer: TrackOffer) {
        let Some(index) = self.peers.index_of(key) else { return };
        self.add_subscription(index, offer);
        self.want_negotiation(index);
    }

    fn restart_ice(&mut self, key: PeerKey) {
        let Some(index) = self.peers.index_of(key) else { return };
        let Some(peer) = self.peers.get_mut(index) else { return };
        if let Some(offer) = peer.restart_ice(self.now) {
            self.send_offer(index, offer);
        }
        self.negotiate(index);
        self.advance(index);
    }

    fn want_negotiation(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let at = peer.want_negotiation(self.now);
        self.schedule(index, at);
    }

    fn unsubscribe(&mut self, key: PeerKey, track: TrackKey) {
        let Some(index) = self.peers.index_of(key) else { return };
        let Some(track) = self.tracks.index_of(track) else { return };
        let peer = self.peers.get_mut(index);
        if peer.is_some_and(|peer| peer.subscriptions_mut().remove(track)) {
            self.tracks.leave(track, index);
            self.want_negotiation(index);
            self.negotiate(index);
            self.share_out_anew(index);
            self.advance(index);
        }
    }

    fn switch(&mut self, key: PeerKey, from: TrackKey, to: TrackKey) {
        let Some(index) = self.peers.index_of(key) else { return };
        let Some(from) = self.tracks.index_of(from) else { return };
        let Some((kind, home)) = self.tracks.get(from).map(|it| (it.kind(), it.home())) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(index) else { return };
        if !peer.subscriptions().has(from) {
            return;
        }
        let track = self.tracks.find_or_insert(to, kind, home);
        if peer.subscriptions_mut().switch(from, track, to) {
            if let Some(track) = self.tracks.get_mut(track) {
                track.add_subscriber(index);
            }
            self.tracks.leave(from, index);
            self.share_out_anew(index);
        }
    }

    /// Tells which codecs a client takes tracks in that have several.
    fn tell_codecs(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let key = peer.key();
        for (track, codecs) in peer.take_codecs() {
            self.events.emit(Event::Takes { peer: key, track, codecs });
        }
    }

    fn set(&mut self, key: PeerKey, track: TrackKey, wanted: Wanted) {
        let Some(index) = self.peers.index_of(key) else { return };
        let Some(track) = self.tracks.index_of(track) else { return };
        let Some(peer) = self.peers.get_mut(index) else { return };
        if let Some(subscription) = peer.subscriptions_mut().of_track(track) {
            subscription.set(wanted);
            self.share_out_anew(index);
        }
    }

    fn answer(&mut self, key: PeerKey, id: u32, sdp: &str, tracks: &[PublishedTrack]) {
        let Some(index) = self.peers.index_of(key) else { return };
        let Some(peer) = self.peers.get_mut(index) else { return };
        let former = peer.local_ufrag();
        let answer = match peer.answer(sdp, tracks) {
            Ok(Some(answer)) => answer,
            Ok(None) => return,
            Err(error) => {
                self.events.emit(Event::NegotiationFailed { peer: key, error });
                return;
            }
        };
        let codec = |track: &PublishedTrack| {
            let red = answer.red_mids.contains(&track.mid).then_some(codec::AUDIO_RED);
            (track.track, red.or_else(|| peer.negotiated_codec(track)))
        };
        let codecs = tracks.iter().map(codec).collect();
        if peer.local_ufrag() != former {
            self.ice_restarted(index);
        }
        for track in tracks {
            self.bind(key, track);
        }
        let Answer { sdp, mid_to_track_id, missing, .. } = answer;
        self.events.emit(Event::Answer { peer: key, id, sdp, codecs, mid_to_track_id });
        if let Some(missing) = missing {
            self.events.emit(Event::SlotsWanted { peer: key, missing });
        }
        self.tell_codecs(index);
        self.share_out_anew(index);
        self.advance(index);
    }

    fn accept_answer(&mut self, key: PeerKey, id: u32, sdp: &str) {
        let Some(index) = self.peers.index_of(key) else { return };
        let Some(peer) = self.peers.get_mut(index) else { return };
        let former = peer.local_ufrag();
        if let Err(error) = peer.accept_answer(id, sdp) {
            self.events.emit(Event::NegotiationFailed { peer: key, error });
            return;
        }
        if peer.local_ufrag() != former {
            self.ice_restarted(index);
        }
        self.negotiate(index);
        self.tell_codecs(index);
        self.share_out_anew(index);
        self.advance(index);
    }

    fn bind(&mut self, key: PeerKey, track: &PublishedTrack) {
        let Some(index) = self.peers.index_of(key) else { return };
        let Some(peer) = self.peers.get_mut(index) else { return };
        let track_index = self.tracks.find_or_insert(track.track, track.kind, self.index);
        if let Some(known) = self.tracks.get_mut(track_index) {
            known.set_source(|| Source::new(index, peer.label(), track));
        }
        peer.incoming().bind(Mid::from(track.mid.as_str()), track_index);
    }

    fn end_source(&mut self, index: usize) {
        let Some(source) = self.tracks.end_source(index) else { return };
        if let Some(peer) = self.peers.get_mut(source.peer()) {
            peer.incoming().unbind(index);
        }
        self.ended.keep_published(source.room().clone(), source.row());
    }

    fn interest(&mut self, track: TrackKey, worker: usize, wanted: bool) {
        let index = self.tracks.index_of(track);
        let track = index.and_then(|index| self.tracks.get_mut(index));
        if let Some(source) = track.and_then(|track| track.source_mut()) {
            source.set_interest(worker, wanted);
        }
    }
}
