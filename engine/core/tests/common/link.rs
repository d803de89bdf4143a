//! A peer and the plain str0m server that its data channels end at.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use stampede_core::{Peer, PeerEvent, PeerRole, Slots};
use str0m::change::{SdpAnswer, SdpOffer};
use str0m::channel::ChannelId;
use str0m::{Event, Rtc};

use super::*;

/// A peer and its server.
pub struct Link {
    pub sim: Sim,
    channels: HashMap<ChannelId, String>,
}

impl Link {
    pub fn new(start: Instant, role: PeerRole) -> Self {
        let peer = Peer::with_role(start, peer_addr(), &options(), role).unwrap();
        let mut sim = Sim::new(start, peer, Server::new(start, Rtc::builder()));
        let offer = sim.peer.create_offer(start, Slots::default(), true).unwrap();
        let offer = SdpOffer::from_sdp_string(&offer).unwrap();
        let answer = sim.server.rtc.sdp_api().accept_offer(offer).unwrap().to_sdp_string();
        sim.peer.accept_answer(start, &answer, &[]).unwrap();
        sim.exchange();
        sim.run_until_event(Duration::from_secs(5), |event| *event == PeerEvent::Connected);
        Self { sim, channels: HashMap::new() }
    }

    /// One that the server offers, with the channels of LiveKit's v0 subscribers.
    pub fn offered(start: Instant, role: PeerRole) -> Self {
        let peer = Peer::with_role(start, peer_addr(), &options(), role).unwrap();
        let mut sim = Sim::new(start, peer, Server::new(start, Rtc::builder()));
        let mut offer = sim.server.rtc.sdp_api();
        for label in ["_reliable", "_lossy", "_data_track"] {
            offer.add_channel(label.to_owned());
        }
        let (offer, pending) = offer.apply().unwrap();
        let answer = sim.peer.accept_offer(start, &offer.to_sdp_string(), &[]).unwrap();
        let answer = SdpAnswer::from_sdp_string(&answer).unwrap();
        sim.server.rtc.sdp_api().accept_answer(pending, answer).unwrap();
        sim.exchange();
        sim.run_until_event(Duration::from_secs(5), |event| *event == PeerEvent::Connected);
        Self { sim, channels: HashMap::new() }
    }

    /// What the peer has sent.
    pub fn sent(&mut self) -> Vec<(String, Vec<u8>)> {
        let mut sent = Vec::new();
        for event in self.sim.server.events.drain(..) {
            match event {
                Event::ChannelOpen(id, label) => _ = self.channels.insert(id, label),
                Event::ChannelData(data) => sent.push((self.channels[&data.id].clone(), data.data)),
                _ => {}
            }
        }
        sent
    }

    /// The server sends this; what finds no room is the test's mistake.
    pub fn send(&mut self, label: &str, message: &[u8]) {
        let (&id, _) = self.channels.iter().find(|(_, known)| *known == label).unwrap();
        self.sim.server_writes(|rtc| {
            assert!(rtc.channel(id).unwrap().write(true, message).unwrap());
        });
    }

    /// Learns which channels the peer has opened, and leaves what it has sent.
    pub fn look(&mut self) {
        for event in &self.sim.server.events {
            if let Event::ChannelOpen(id, label) = event {
                self.channels.insert(*id, label.clone());
            }
        }
    }
}
