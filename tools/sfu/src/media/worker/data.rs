//! Data messages on their way to clients.

use stampede_impair::{Rng, seeded};

use super::Worker;
use crate::media::message::{DATA_TRACK_CHANNEL, DATA_TRACK_HANDLE, PeerKey, RELIABLE_CHANNEL};

/// What became of data messages, and which are dropped on purpose.
#[derive(Debug)]
pub(super) struct Messages {
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) unsent: u64,
    pub(super) unsent_reliable: u64,
    pub(super) ignored: u64,
    pub(super) withheld: u64,
    share: f64,
    rng: Rng,
}

impl Messages {
    /// `drop` is the share that is dropped on purpose, and a seed.
    pub(super) fn new((share, seed): (f64, u64)) -> Self {
        let rng = seeded(seed, "data");
        let (received, sent, unsent, unsent_reliable, ignored, withheld) = Default::default();
        Self { received, sent, unsent, unsent_reliable, ignored, withheld, share, rng }
    }

    /// Whether the next one is dropped on purpose.
    fn is_withheld(&mut self) -> bool {
        let withheld = self.share > 0.0 && self.rng.f64() < self.share;
        self.withheld += u64::from(withheld);
        withheld
    }
}

impl Worker {
    /// Gives a message to these clients. Nothing waits for one whose channel is full.
    pub(super) fn deliver(&mut self, targets: &[PeerKey], channel: &str, payload: &[u8]) {
        for &key in targets {
            self.deliver_one(key, channel, payload);
        }
    }

    /// Gives a data track's packet to these clients, to each under its own handle.
    pub(super) fn deliver_packet(&mut self, targets: &[(PeerKey, u16)], packet: &[u8]) {
        let mut packet = packet.to_vec();
        for &(key, handle) in targets {
            if let Some(place) = packet.get_mut(DATA_TRACK_HANDLE) {
                place.copy_from_slice(&handle.to_be_bytes());
                self.deliver_one(key, DATA_TRACK_CHANNEL, &packet);
            }
        }
    }

    fn deliver_one(&mut self, key: PeerKey, channel: &str, payload: &[u8]) {
        if self.messages.is_withheld() {
            return;
        }
        let index = self.peers.index_of(key);
        let peer = index.and_then(|index| self.peers.get_mut(index));
        match (index, peer.is_some_and(|peer| peer.write_data(channel, payload))) {
            (Some(index), true) => {
                self.messages.sent += 1;
                self.advance(index);
            }
            _ => {
                self.messages.unsent += 1;
                self.messages.unsent_reliable += u64::from(channel == RELIABLE_CHANNEL);
            }
        }
    }
}
