//! By which pair of addresses media leaves that does not go through str0m.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::net::{Protocol, Transmit};
use str0m::rtp::Ssrc;

use super::Peer;
use super::candidates::{LocalId, is_stun};
use super::event::PeerSink;
use super::publishing::Way;
use super::receiving::is_rtcp;
use super::relays::RelaySink;

/// How often str0m is asked by which pair ICE sends, where nothing points to a change.
const ASKED_EVERY: Duration = Duration::from_secs(1);

/// The pair that ICE has nominated.
///
/// str0m tells it with what it sends, and with nothing else. So where media leaves beside it, it is asked
/// to send: feedback that is looked at and thrown away.
#[derive(Debug)]
pub(super) struct Nominated {
    /// By which protocol, from where, to where.
    pair: Option<(Protocol, SocketAddr, SocketAddr)>,
    /// When it is to be asked for.
    ask_at: Instant,
    /// What str0m sends next answers that.
    asking: bool,
}

impl Nominated {
    pub(super) fn new(now: Instant) -> Self {
        Self { pair: None, ask_at: now, asking: false }
    }

    /// Something has happened to ICE: another pair may have been nominated.
    pub(super) fn may_change(&mut self, now: Instant) {
        self.ask_at = now;
    }
}

impl Peer {
    /// True once what it sends does not go through str0m.
    fn sends_directly(&self) -> bool {
        self.publishing.as_ref().is_some_and(|publishing| publishing.is_direct())
    }

    /// Whether str0m has to be told of the time. Of a connection that stands it says in `wake` when, for
    /// ICE, DTLS and SCTP; what is received, and what is sent beside it, is done by the drain that
    /// follows.
    pub(super) fn wants_timeout(&self, now: Instant) -> bool {
        let stands = self.is_connected() && self.ice_connected && self.relays.is_none();
        let due = self.candidates_at.map_or(self.wake, |at| at.min(self.wake));
        due <= now || !stands || self.publishing.is_some() && !self.sends_directly()
    }

    /// Sends what publishers have due.
    pub(super) fn send_media(&mut self, now: Instant, sink: &mut dyn PeerSink) {
        let Some(publishing) = &self.publishing else { return };
        if publishing.is_direct() {
            if publishing.is_due(now) {
                self.send_directly(now, sink);
            }
            return;
        }
        let has_way = self.ice_connected && !self.outbox.is_cut_off(now);
        if let Some(publishing) = &mut self.publishing {
            let by = (&mut *self.rtc, &mut self.outbox);
            if publishing.pace_due(now, self.clock, has_way, by) {
                self.advance(now);
            }
        }
    }

    fn send_directly(&mut self, now: Instant, sink: &mut dyn PeerSink) {
        // The end of our handshake may still wait there, without which nobody can read what follows.
        self.flush(now, sink);
        if now >= self.nominated.ask_at && self.connected {
            self.ask_pair(now);
        }
        let is_cut_off = self.outbox.is_cut_off(now);
        let to = self.way_out().filter(|_| !is_cut_off);
        let has_way = self.ice_connected && to.is_some();
        let (clock, outbox) = (self.clock, &mut self.outbox);
        let Some(publishing) = &mut self.publishing else { return };
        match self.relays.as_deref_mut().filter(|relays| !relays.is_empty()) {
            None => publishing.send_due(now, clock, has_way, Way { to, sink, outbox }),
            Some(relays) => {
                let mut sink = RelaySink { relays, sink, unsent: 0 };
                publishing.send_due(now, clock, has_way, Way { to, sink: &mut sink, outbox });
                let unsent = sink.unsent;
                self.outbox.sent -= unsent;
                self.outbox.dropped += unsent;
            }
        }
        // str0m may have something due by now.
        if self.wants_timeout(now) {
            self.advance(now);
        }
    }

    /// By which socket and to where media leaves.
    fn way_out(&mut self) -> Option<(LocalId, SocketAddr)> {
        let (protocol, source, destination) = self.nominated.pair?;
        let sole = self.sole.filter(|_| self.local == source && self.protocol == protocol);
        let via = sole.or_else(|| self.candidates.via(protocol, source))?;
        if self.sole.is_none() {
            self.candidates.carries(via);
        }
        Some((via, destination))
    }

    /// Asks str0m for the pair that ICE has nominated.
    fn ask_pair(&mut self, now: Instant) {
        self.nominated.ask_at = now + ASKED_EVERY;
        self.nominated.asking = true;
        // It never leaves, so it may be of any SSRC.
        self.rtc.direct_api().send_pli_feedback(Ssrc::from(1), Ssrc::from(1));
        self.poll();
        self.nominated.asking = false;
    }

    /// Takes what str0m sends: what answers [`Self::ask_pair`] goes no further, and sender reports say
    /// what was sent beside it.
    pub(super) fn transmit_beside(&mut self, mut transmit: Transmit) {
        if !self.sends_directly() || is_stun(&transmit.contents) {
            return self.transmit(transmit);
        }
        let Transmit { proto, source, destination, .. } = transmit;
        self.nominated.pair = Some((proto, source, destination));
        if is_rtcp(&transmit.contents) {
            if std::mem::take(&mut self.nominated.asking) {
                return;
            }
            let datagram = transmit.contents.to_vec();
            let Some(publishing) = &self.publishing else { return };
            let Some(filled_in) = publishing.fill_in(datagram, self.now) else {
                self.transport.errors += 1;
                return;
            };
            transmit.contents = filled_in.into();
        }
        self.transmit(transmit);
    }
}
