//! Driving the peers' connections: what goes into str0m, what comes out of it, and when.

#[cfg(any(test, feature = "bench"))]
use std::net::SocketAddr;
use std::time::Instant;

use stampede_core::dtls::has_plain_data;
use str0m::net::{Protocol, Transmit};
use str0m::rtp::RawPacket;
use str0m::rtp::rtcp::Rtcp;
use str0m::{Event as RtcEvent, IceConnectionState, Output};

use super::Worker;
use crate::media::challenge::ChallengeId;
use crate::media::endpoint::Endpoint;
use crate::media::failure::PeerFailure;
use crate::media::ingest::{News, ingest};
use crate::media::message::Event;
use crate::media::offers::Offer;
use crate::media::peer::{Peer, Wish};
use crate::media::peers::Learnt;
use crate::media::stun;
use crate::media::told::{Missing, Told, told};
use crate::options::Congestion;

impl Worker {
    /// Takes one datagram as if it had just arrived.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn take_datagram(&mut self, source: SocketAddr, datagram: &[u8]) {
        let source = Endpoint::udp(source);
        let Some(peer) = self.peers.of_datagram(source, datagram) else {
            self.received.unknown += 1;
            return;
        };
        self.received.datagram.clear();
        self.received.datagram.extend_from_slice(datagram);
        self.take(peer, source, self.now);
    }

    /// How many there are: peers, and tracks that anybody sends or gets.
    #[cfg(feature = "bench")]
    pub(crate) fn census(&self) -> [usize; 2] {
        [self.peers.len(), self.tracks.iter().count()]
    }

    /// What the wall clock says now.
    #[cfg(feature = "bench")]
    pub(crate) fn set_wall(&mut self, wall: std::time::SystemTime) {
        self.wall = (self.now, wall);
    }

    /// Whose word counts for what its thread has used of its core.
    #[cfg(feature = "bench")]
    pub(crate) fn set_cpu(&mut self, cpu: fn() -> std::time::Duration) {
        self.cpu = cpu;
    }

    /// Gives the peer the datagram that was received at this time.
    pub(super) fn receive_datagram(&mut self, index: usize, source: Endpoint, at: Instant) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let datagram = &self.received.datagram;
        if peer.loses(datagram) {
            self.received.dropped += 1;
            return;
        }
        if !peer.admits(source, datagram) {
            self.received.refused += 1;
            return;
        }
        if has_plain_data(datagram) {
            self.received.malformed += 1;
            return;
        }
        let nominating = stun::nominates(datagram).then_some(source);
        if let Some(compound) = peer.open_rtcp(datagram)
            && !self.hear(index, &compound)
        {
            return;
        }
        let (Some(peer), datagram) = (self.peers.get_mut(index), &self.received.datagram) else {
            return;
        };
        match peer.receive(source, self.factory.address(), datagram, at) {
            Ok(true) => self.drain(index, nominating),
            Ok(false) => self.received.unknown += 1,
            // As long as DTLS has agreed on no keys anybody can write what it can't read.
            Err(failure) if peer.is_joining() => {
                tracing::debug!(peer = peer.key().0, %failure, "a datagram that can't be read");
                self.received.malformed += 1;
                self.drain(index, None);
            }
            Err(failure) => self.fail(index, failure),
        }
    }

    /// Lets str0m see the time, and drains it.
    pub(super) fn advance(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        match peer.advance(self.now) {
            Ok(()) => self.drain(index, None),
            Err(failure) => self.fail(index, failure),
        }
    }

    /// Takes everything a peer has to send or say. `nominating` is where what it was given last came
    /// from, if that was a check that nominates.
    fn drain(&mut self, index: usize, nominating: Option<Endpoint>) {
        loop {
            let Some(peer) = self.peers.get_mut(index) else { return };
            match peer.poll() {
                Ok(Output::Transmit(transmit)) => self.transmit(index, transmit, nominating),
                Ok(Output::Timeout(at)) => {
                    self.schedule(index, at);
                    return;
                }
                Ok(Output::Event(event)) => self.on_event(index, event),
                Err(failure) => {
                    self.fail(index, failure);
                    return;
                }
            }
        }
    }

    /// Sends what str0m has to send where its client is known to be reached; until then that waits.
    fn transmit(&mut self, index: usize, transmit: Transmit, nominating: Option<Endpoint>) {
        let to = Endpoint { protocol: transmit.proto, address: transmit.destination };
        // str0m answers nothing but authentic checks.
        let goes =
            !stun::is_check(&transmit.contents) || self.learn(index, to, nominating == Some(to));
        let Some(peer) = self.peers.get_mut(index) else { return };
        if goes && peer.transmit(&mut self.socket, &transmit, self.now) {
            return;
        }
        let waits = peer.addresses().questions().hold(to, transmit.contents.into());
        self.received.refused += u64::from(!waits);
    }

    /// An authentic check has come from this address. Whether it is to be answered already.
    fn learn(&mut self, index: usize, address: Endpoint, nominates: bool) -> bool {
        match self.peers.learn_address(index, address, nominates, self.now) {
            Learnt::Its => {
                if address.protocol == Protocol::Tcp {
                    self.socket.claim_tcp(address.address);
                }
                true
            }
            // Before the answer, so that the client's comes before what it does next.
            Learnt::Free(ask) => {
                self.ask(index, address, ask);
                true
            }
            Learnt::Held { ask, taken } => {
                self.received.refused += u64::from(taken);
                self.ask(index, address, ask);
                false
            }
        }
    }

    /// Asks a peer by this name, if any, whether it is reached at this address.
    fn ask(&mut self, index: usize, address: Endpoint, challenge: Option<ChallengeId>) {
        let (Some(challenge), Some(peer)) = (challenge, self.peers.get_mut(index)) else { return };
        if let Some(check) = peer.challenge(challenge) {
            peer.put(&mut self.socket, address, &check, self.now);
        }
    }

    fn on_event(&mut self, index: usize, event: RtcEvent) {
        match event {
            RtcEvent::RtpPacket(packet) => {
                if let Some(peer) = self.peers.get_mut(index)
                    && let Some(news) =
                        ingest(peer, &mut self.tracks, packet, self.withhold_keyframes)
                {
                    let peer = peer.key();
                    self.events.emit(match news {
                        News::Began(track, codec) => Event::Began { peer, track, codec },
                        News::Speaks(level) => Event::Speaks { peer, level },
                    });
                }
            }
            RtcEvent::Connected => {
                let Some(peer) = self.peers.get_mut(index) else { return };
                peer.set_connected(self.now);
                if peer.lacks_keys() {
                    self.fail(index, PeerFailure::NoKeys);
                } else {
                    self.events.emit(Event::Connected { peer: peer.key() });
                }
            }
            RtcEvent::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                self.lose(index, PeerFailure::Silent);
            }
            RtcEvent::IceConnectionStateChange(
                IceConnectionState::Connected | IceConnectionState::Completed,
            ) => {
                if let Some(peer) = self.peers.get_mut(index)
                    && peer.way().recover()
                {
                    self.events.emit(Event::Recovered { peer: peer.key() });
                }
            }
            RtcEvent::Closed => {
                if let Some(peer) = self.peers.get_mut(index)
                    && peer.end()
                {
                    self.events.emit(Event::Closed { peer: peer.key() });
                }
            }
            // Enabled where arrivals say what a way carries.
            RtcEvent::RawPacket(packet) => {
                if let RawPacket::RtcpRx(Rtcp::Twcc(report)) = *packet {
                    self.take_arrivals(index, report);
                }
            }
            RtcEvent::ChannelOpen(id, label) => {
                if let Some(peer) = self.peers.get_mut(index) {
                    peer.open_channel(id, label);
                }
            }
            RtcEvent::ChannelData(data) => {
                let Some(peer) = self.peers.get(index) else { return };
                match peer.channel_label(data.id) {
                    Some(label) => {
                        self.messages.received += 1;
                        self.events.emit_data(peer.key(), label, data.data);
                    }
                    None => self.messages.ignored += 1,
                }
            }
            _ => {}
        }
    }

    /// Takes what a subscriber tells of what it gets. Whether str0m is to have it too: there is
    /// something in it of what the client sends itself, or when packets arrived.
    fn hear(&mut self, index: usize, compound: &[u8]) -> bool {
        let mut for_str0m = false;
        let (began, wall) = self.wall;
        let wall = wall + self.now.saturating_duration_since(began);
        for told in told(compound) {
            match told {
                Told::Report(blocks) => {
                    let Some(peer) = self.peers.get_mut(index) else { return false };
                    peer.learn_round_trip(blocks, wall);
                    if let Some(congestion) = peer.congestion_mut() {
                        congestion.count_report();
                    }
                }
                Told::SenderReport(blocks) => {
                    for_str0m = true;
                    if let Some(peer) = self.peers.get_mut(index) {
                        peer.learn_round_trip(blocks, wall);
                    }
                }
                Told::Malformed => {
                    self.received.malformed += 1;
                    return false;
                }
                Told::Estimate(bitrate_bps) => {
                    if self.factory.congestion() == Congestion::Remb {
                        self.take_estimate(index, bitrate_bps);
                    }
                }
                Told::Missing(ssrc, missing) => self.answer_nack(index, ssrc, missing),
                Told::Keyframe(ssrc) => self.answer_keyframe_request(index, ssrc),
                Told::ForStr0m => for_str0m = true,
            }
        }
        for_str0m
    }

    /// A subscriber can't decode what it gets.
    fn answer_keyframe_request(&mut self, index: usize, ssrc: u32) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let Some(subscription) = peer.subscriptions_mut().of_ssrc(ssrc.into()) else { return };
        subscription.count_keyframe_request();
        let track = subscription.track();
        let layer = subscription.layer().unwrap_or(0);
        self.want_keyframe(track, layer);
    }

    /// Somebody needs a keyframe of a track's layer.
    pub(super) fn want_keyframe(&mut self, track: usize, layer: u8) {
        if let Some(known) = self.tracks.get_mut(track) {
            known.want_keyframe(layer);
            self.relay_keyframe_requests(track);
        }
    }

    /// A subscriber misses packets: sends again what is still kept of them.
    fn answer_nack(&mut self, index: usize, ssrc: u32, missing: Missing<'_>) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let Some(subscription) = peer.subscriptions_mut().of_ssrc(ssrc.into()) else { return };
        subscription.count_nack(missing.sequences());
        let track = subscription.track();
        let Some(known) = self.tracks.get(track) else { return };
        let repeats_after = peer.repeats_after();
        let sending = peer.sending(&mut self.socket, self.now, (self.clock)());
        let Some((subscriptions, mut egress, _)) = sending else { return };
        if let Some(subscription) = subscriptions.of_track(track) {
            subscription.resend(&mut egress, known, missing.sequences(), repeats_after);
        }
    }

    /// Tells the signalling thread that ICE has lost its way to a client. The peer stays: ICE can
    /// be restarted, and the client may check again.
    fn lose(&mut self, index: usize, failure: PeerFailure) {
        if let Some(peer) = self.peers.get_mut(index)
            && !peer.has_ended()
            && peer.way().lose()
        {
            self.events.emit(Event::Lost { peer: peer.key(), failure });
        }
    }

    /// ICE has new credentials: the client's checks are known by them.
    pub(super) fn ice_restarted(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        peer.way().restart(self.now);
        peer.addresses().restarted();
        peer.begin_way_anew();
        let (key, ufrag) = (peer.key(), peer.local_ufrag());
        self.peers.add_ufrag(index, ufrag);
        self.events.emit(Event::IceRestarted { peer: key });
    }

    /// Tells the signalling thread, once, that a peer is over; it is removed by command.
    pub(super) fn fail(&mut self, index: usize, failure: PeerFailure) {
        if let Some(peer) = self.peers.get_mut(index)
            && peer.end()
        {
            self.events.emit(Event::Failed { peer: peer.key(), failure });
        }
    }

    /// Wakes the peer at this time, or earlier when something of it is due.
    pub(super) fn schedule(&mut self, index: usize, at: Instant) {
        if let Some(peer) = self.peers.get_mut(index)
            && let Some(at) = peer.schedule(at, self.now)
        {
            self.timers.add(at, index, peer.key());
        }
    }

    pub(crate) fn wake_due_peers(&mut self) {
        while let Some((index, key)) = self.timers.pop_due(self.now) {
            let Some(peer) = self.peers.get_mut(index) else { continue };
            if peer.key() != key || !peer.take_due(self.now) {
                continue;
            }
            let joins = peer.is_joining();
            if (joins || peer.has_to_negotiate(self.now)) && peer.begin_waiting() {
                self.joins.wake(index, key);
            }
            if !joins {
                self.tend(index);
            }
        }
    }

    /// Does what is due of a peer, and negotiates.
    pub(super) fn wake(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        if peer.negotiation_timed_out(self.now) {
            if !self.inbox.has_commands() {
                self.fail(index, PeerFailure::OfferUnanswered);
                return;
            }
            peer.wait_on_for_answer(self.now);
        }
        self.negotiate(index);
        self.tend(index);
    }

    /// Does what is due of a peer, but for what is to be negotiated.
    fn tend(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        if peer.restart_timed_out(self.now) {
            self.lose(index, PeerFailure::NotRestarted);
        }
        self.send_reports(index);
        self.follow_congestion(index);
        self.advance(index);
    }

    /// Tells a peer what was sent to it, if that is due.
    fn send_reports(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let (now, (began, wall)) = (self.now, self.wall);
        peer.report(&mut self.socket, now, wall + now.saturating_duration_since(began));
    }

    /// A peer gets a stream that it has not been told of.
    pub(super) fn report_soon(&mut self, index: usize) {
        if let Some(at) = self.peers.get_mut(index).and_then(|peer| peer.report_soon(self.now)) {
            self.schedule(index, at);
        }
    }

    /// Says what is due to be agreed on, if anything is.
    pub(super) fn negotiate(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let (wish, ended) = peer.negotiate(self.now);
        let key = peer.key();
        for (room, row) in ended {
            self.ended.keep_subscribed(room, peer.label().identity.clone(), row);
        }
        match wish {
            Some(Wish::Offer(offer)) => self.send_offer(index, offer),
            Some(Wish::Slots(missing)) => {
                self.events.emit(Event::SlotsWanted { peer: key, missing });
            }
            None => {}
        }
    }

    /// Says an offer, and hears checks by the name that it has.
    pub(super) fn send_offer(&mut self, index: usize, offer: Offer) {
        let Some(peer) = self.peers.get(index).map(Peer::key) else { return };
        let Offer { id, sdp, mid_to_track_id, new_ufrag } = offer;
        self.events.emit(Event::Offer { peer, id, sdp, mid_to_track_id });
        if let Some(ufrag) = new_ufrag {
            self.peers.add_ufrag(index, ufrag);
        }
    }
}
