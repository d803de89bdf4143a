//! What a worker may hear that no client of ours would say.

use std::net::SocketAddr;
use std::time::Duration;

use stampede_core::srtp::{RtpSealer, SrtcpSealer};

use super::{FanOut, key, worker_carries_out, worker_takes};
use crate::media::message::{Command, PeerLabel, Role};

/// Where nobody is.
const STRANGER: u16 = 9;

impl FanOut {
    /// The worker takes a datagram from this client's address, or from a stranger's if there is no such
    /// client.
    pub fn hears(&mut self, client: usize, datagram: &[u8]) {
        let stranger = SocketAddr::from(([127, 0, 0, 1], STRANGER));
        let source = self.clients.get(client).map_or(stranger, |client| client.address);
        worker_takes(&mut self.worker, source, datagram);
    }

    /// A datagram that this client sent, the latest first.
    pub fn said(&self, client: usize, back: usize) -> Option<Vec<u8>> {
        self.clients.get(client)?.said.get(back).cloned()
    }

    /// What seals media and RTCP as this client does.
    pub fn sealers(&self, client: usize) -> Option<(RtpSealer, SrtcpSealer)> {
        let keys = self.clients.get(client)?.keys.get()?;
        Some((keys.rtp_sealer().ok()?, keys.srtcp_sealer().ok()?))
    }

    /// By which SSRC this client gets the track.
    pub fn ssrc(&self, client: usize) -> Option<u32> {
        self.clients.get(client).map(|client| *client.ssrc)
    }

    /// The description that this client was offered.
    pub fn offer(&self, client: usize) -> Option<&str> {
        self.clients.get(client).map(|client| client.offer.as_str())
    }

    /// So much time passes, in which everybody hears everybody.
    pub fn runs(&mut self, time: Duration) {
        self.pass(time);
        self.exchange();
        self.drain();
    }

    /// This client answers whatever offer has this id.
    pub fn answers(&mut self, client: u16, id: u32, sdp: String) {
        worker_carries_out(&mut self.worker, Command::Answer { peer: key(client), id, sdp });
        self.drain();
    }

    /// Somebody comes who offers this, publishes by it, and by v1 gets the track as well, and goes.
    pub fn is_offered(&mut self, sdp: &str, single: bool) {
        let peer = key(u16::MAX);
        let role = if single { Role::Single } else { Role::Publisher };
        let label = PeerLabel { room: "room".into(), identity: "hostile".into() };
        let add = Command::AddPeer { peer, role, label, tracks: Vec::new(), allow_pause: false };
        let offer = |id| Command::Offer { peer, id, sdp: sdp.to_owned(), tracks: Vec::new() };
        for command in [add, offer(1), offer(2), Command::RemovePeer(peer)] {
            worker_carries_out(&mut self.worker, command);
            self.drain();
        }
    }

    fn drain(&mut self) {
        while self.events.try_recv().is_ok() {}
    }

    /// A frame is published, and this client gets all of it: whatever was said by others, it is served.
    ///
    /// # Panics
    /// If it does not.
    pub fn serves(&mut self, client: usize) {
        let before = self.clients[client].packets;
        let payload: std::sync::Arc<[u8]> =
            [&[0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2a][..], &[0; 99]].concat().into();
        for frame in 0..3 {
            self.publish(std::slice::from_ref(&payload), frame, Duration::from_millis(40));
            self.forward();
            self.exchange();
            self.drain();
        }
        let client = &self.clients[client];
        assert_eq!(client.packets, before + 3, "{} got so many of 3 packets", client.address);
    }
}
