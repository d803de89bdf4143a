//! A peer's part of [`Candidates`](super::candidates::Candidates): what it asks of whoever has its
//! sockets, and by which of them it sends.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use stampede_sdp::Description;
use str0m::Candidate;
use str0m::net::Transmit;

use super::Peer;
use super::candidates::{
    AddressRequest, GivenUp, LocalId, NETWORK_CHANGES_MAX, Way, is_check, is_stun,
};
use super::event::ChangeNetworkError;
use super::failure::MediaFailure;
use super::wire::RtpHeader;
use crate::{PathKind, PeerEvent};

impl Peer {
    /// A socket is bound to this local address, for [`AddressRequest::Open`]. `None`, and the socket
    /// is of no use, if the peer has [`LOCAL_ADDRESSES_MAX`](super::LOCAL_ADDRESSES_MAX) already.
    pub fn add_local(&mut self, now: Instant, address: SocketAddr) -> Option<LocalId> {
        let candidate = Way::Udp.candidate(address).ok()?;
        let via = self.candidates.add_local(self.now.max(now), address)?;
        let line = self.rtc.add_local_candidate(candidate).map(Candidate::to_sdp_string);
        self.sole = self.candidates.sole();
        if self.sole == Some(via) {
            self.sole_is(via, address, Way::Udp);
        }
        if let Some(candidate) = line.filter(|_| self.described) {
            self.outbox.event(PeerEvent::LocalCandidate { candidate });
        }
        self.advance(now);
        Some(via)
    }

    pub(super) fn sole_is(&mut self, via: LocalId, address: SocketAddr, way: Way) {
        (self.local, self.protocol, self.outbox.via) = (address, way.protocol(), via);
    }

    /// The TCP connection of [`AddressRequest::Connect`], or the way of [`AddressRequest::Relay`], is
    /// there; `address` is our end. False, and it is of no use, if the peer does not want it any more.
    pub fn stream_connected(&mut self, now: Instant, via: LocalId, address: SocketAddr) -> bool {
        if self.is_relay(via) {
            return self.relay_connected(now, via, address);
        }
        let way = self.candidates.stream_connected(self.now.max(now), via, address);
        let Some((way, candidate)) = way.and_then(|way| Some((way, way.candidate(address).ok()?)))
        else {
            return false;
        };
        self.rtc.add_local_candidate(candidate);
        self.sole = self.candidates.sole();
        if self.sole == Some(via) {
            self.sole_is(via, address, way);
        }
        self.advance(now);
        true
    }

    /// The TCP connection of [`AddressRequest::Connect`], or the way of [`AddressRequest::Relay`],
    /// could not be made, or it ended. The peer has forgotten it.
    pub fn stream_closed(&mut self, now: Instant, via: LocalId, why: String) {
        if self.is_relay(via) {
            return self.relay_closed(now, via, &why);
        }
        if let Some((address, way)) = self.candidates.stream_closed(via, why) {
            self.invalidate(address, way);
        }
        self.sole = self.candidates.sole();
        if let Some(sole) = self.sole {
            self.received_on(sole);
        }
        self.advance(now);
    }

    pub(super) fn invalidate(&mut self, address: SocketAddr, way: Way) {
        if let Ok(candidate) = way.candidate(address) {
            self.rtc.direct_api().invalidate_candidate(&candidate);
        }
    }

    /// By what its latest datagram came.
    #[must_use]
    pub fn path(&self) -> PathKind {
        self.candidates.open_local(self.outbox.via).map_or(PathKind::Udp, |(_, way)| way.path())
    }

    /// The address of this machine at which its latest datagram came in: of one that was relayed that
    /// of the way to the TURN server.
    #[must_use]
    pub fn local_ip(&self) -> IpAddr {
        match self.candidates.open_local(self.outbox.via) {
            Some((_, Way::Relay { socket, .. })) => socket.ip(),
            _ => self.local.ip(),
        }
    }

    /// Begins again with TCP or relays alone, as a phone does that changes its network: its connections are
    /// gone, whoever has them closes them, and others are asked for. See [`Self::change_network`],
    /// which is for who has UDP.
    ///
    /// # Errors
    /// The peer is as it was.
    pub fn change_connections(&mut self, now: Instant) -> Result<(), ChangeNetworkError> {
        if self.candidates.network_changes >= NETWORK_CHANGES_MAX {
            return Err(ChangeNetworkError::TooMany { max: NETWORK_CHANGES_MAX });
        }
        self.candidates.network_changes += 1;
        self.leave_network(now);
        self.sole = None;
        self.advance(now);
        Ok(())
    }

    /// No socket could be had for [`AddressRequest::Open`].
    pub fn local_refused(&mut self, now: Instant, local: IpAddr, why: String) {
        self.candidates.local_refused(local, why);
        self.advance(now);
    }

    /// Goes on from another socket, bound to `address`, as a phone does that changes its network:
    /// all others are gone, and whoever has them closes them. What was received stays, and so do
    /// DTLS, the keys and the streams. ICE is not connected until a pair works from there
    /// ([`PeerEvent::IceConnected`]), and the server is told of it
    /// ([`PeerEvent::LocalCandidate`]); a restart by description may follow. Until then media of
    /// ours has no way, and is not sent.
    ///
    /// # Errors
    /// The peer is as it was, and the socket of no use.
    pub fn change_network(
        &mut self,
        now: Instant,
        address: SocketAddr,
    ) -> Result<LocalId, ChangeNetworkError> {
        let refused = |reason: String| ChangeNetworkError::LocalAddress { address, reason };
        let candidate = Way::Udp.candidate(address).map_err(|e| refused(e.to_string()))?;
        if self.candidates.network_changes >= NETWORK_CHANGES_MAX {
            return Err(ChangeNetworkError::TooMany { max: NETWORK_CHANGES_MAX });
        }
        let Some(line) = self.rtc.add_local_candidate(candidate).map(Candidate::to_sdp_string)
        else {
            return Err(refused("it has that one".to_owned()));
        };
        self.candidates.network_changes += 1;
        self.leave_network(now);
        let via = self.candidates.add_local(self.now.max(now), address).unwrap_or_default();
        self.sole = Some(via);
        self.sole_is(via, address, Way::Udp);
        if self.described {
            self.outbox.event(PeerEvent::LocalCandidate { candidate: line });
        }
        self.advance(now);
        Ok(via)
    }

    /// Its network is gone and there is no other: it has no socket any more, and says why.
    pub fn lose_network(&mut self, now: Instant, why: String) {
        let ip = self.local_ip();
        self.leave_network(now);
        self.sole = None;
        let reason = format!("no socket could be had on {ip} after a change of network: {why}");
        self.candidates.local_refused(ip, why);
        self.disconnect(self.failure(reason));
        self.advance(now);
    }

    /// All its sockets are gone.
    fn leave_network(&mut self, now: Instant) {
        for (address, way) in self.candidates.leave_network(self.now.max(now)) {
            self.invalidate(address, way);
        }
        self.leave_relays();
        (self.ice_connected, self.ice_failed) = (false, false);
        if let Some(receiving) = &mut self.receiving {
            receiving.switched();
            receiving.streams.away();
        }
    }

    /// Nobody waits for the connection any more: if it is not up, [`PeerEvent::Disconnected`] says
    /// what is known of why.
    pub fn give_up(&mut self) {
        if self.connected {
            return;
        }
        let reason = "the handshake did not end in time".to_owned();
        let failure = match self.negotiated {
            true => self.failure(reason),
            false => MediaFailure::NotNegotiated {
                what: match self.receiving.is_some() && self.offering.is_none() {
                    true => "offer",
                    false => "answer",
                },
            },
        };
        self.disconnect(failure);
    }

    /// What it is called that the connection is not there, or not any more.
    pub(super) fn failure(&self, reason: String) -> MediaFailure {
        match self.remote {
            _ if self.connected => MediaFailure::Broke { reason },
            Some(remote) if self.ice_worked => MediaFailure::Dtls { remote, reason },
            _ => MediaFailure::NoCandidatePair(Box::new(self.no_pair())),
        }
    }

    /// The datagrams that follow came on this one's socket.
    #[inline]
    pub fn received_on(&mut self, via: LocalId) {
        if self.outbox.via != via {
            self.switch(via);
        }
    }

    #[cold]
    fn switch(&mut self, via: LocalId) {
        let Some((local, way)) = self.candidates.open_local(via) else { return };
        self.sole_is(via, local, way);
        if let Some(receiving) = &mut self.receiving {
            receiving.switched();
        }
    }

    /// The candidates in a description of the server.
    pub(super) fn remote_described(&mut self, now: Instant, description: &Description<'_>) {
        if self.candidates.described(self.now.max(now), description) {
            // Media goes on meanwhile, but whether the new pair works is to be told.
            self.ice_connected = false;
            self.restart_relays();
        }
        self.advance(now);
    }

    /// Asks for local addresses that are needed, gives up those that are not, and ends what has no
    /// way left to try.
    pub(super) fn mind_candidates(&mut self) {
        let now = self.now;
        self.candidates_at = None;
        if self.candidates.checking {
            let outbox = &mut self.outbox;
            self.candidates_at =
                self.candidates.poll(now, &mut |request| outbox.request_address(request));
        }
        self.mind_relays();
        if self.ice_failed {
            let hopeful = self.candidates.hopeful_until().max(self.relays_hopeful_until());
            match hopeful.filter(|until| *until > now) {
                Some(until) => soonest(&mut self.candidates_at, until),
                None => self.ice_lost(),
            }
        }
        match self.candidates.tidy_at() {
            Some(at) if at <= now => self.tidy(),
            Some(at) => soonest(&mut self.candidates_at, at),
            None => {}
        }
        self.wake = self.candidates_at.map_or(self.wake, |at| at.min(self.wake));
    }

    /// No pair works, or none any more.
    pub(super) fn ice_lost(&mut self) {
        (self.ice_connected, self.ice_failed) = (false, false);
        self.candidates.checking = true;
        let reason = "ICE: no answer from the server's candidate".to_owned();
        self.disconnect(self.failure(reason));
    }

    /// Gives up the sockets that carry nothing.
    fn tidy(&mut self) {
        if let Some(via) = self.receiving.as_ref().and_then(|receiving| receiving.via()) {
            self.candidates.carries(via);
        }
        let unused = self.candidates.tidy();
        self.give_up_ways(unused);
    }

    /// Gives these ways up, and their sockets back.
    pub(super) fn give_up_ways(&mut self, ways: Vec<GivenUp>) {
        for (via, way) in ways {
            self.end_relay(via);
            if let Some((address, way)) = way {
                self.invalidate(address, way);
            }
            self.outbox.request_address(AddressRequest::Close { via });
        }
        self.sole = self.candidates.sole();
        if let Some(sole) = self.sole {
            self.received_on(sole);
        }
    }

    /// Sends what str0m has to send.
    pub(super) fn transmit(&mut self, transmit: Transmit) {
        let Transmit { proto, source, destination, contents } = transmit;
        if is_check(&contents) && !self.candidates.is_on_route(proto, source, destination) {
            return;
        }
        let sole = self.sole.filter(|_| self.local == source && self.protocol == proto);
        let Some(via) = sole.or_else(|| self.candidates.via(proto, source)) else {
            // It would leave by the network before this one.
            self.outbox.withheld += 1;
            return;
        };
        if self.sole.is_none() && !is_stun(&contents) {
            self.candidates.carries(via);
        }
        if self.is_relay(via) && self.waits_for_channel(via, destination, &contents) {
            return;
        }
        if let Some(publishing) = &mut self.publishing
            && let Some(header) = RtpHeader::parse(&contents)
        {
            publishing.sent(header.ssrc);
        }
        self.outbox.datagram(via, destination, contents);
    }
}

/// Makes a deadline no later than `at`.
pub(super) fn soonest(deadline: &mut Option<Instant>, at: Instant) {
    *deadline = Some(deadline.map_or(at, |deadline| deadline.min(at)));
}
