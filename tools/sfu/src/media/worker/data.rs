//! Data messages on their way to clients.

use stampede_impair::{Rng, seeded};

use super::Worker;
use crate::media::message::PeerKey;

/// What became of data messages, and which are dropped on purpose.
#[derive(Debug)]
pub(super) struct Messages {
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) unsent: u64,
    pub(super) withheld: u64,
    share: f64,
    rng: Rng,
}

impl Messages {
    /// `drop` is the share that is dropped on purpose, and a seed.
    pub(super) fn new((share, seed): (f64, u64)) -> Self {
        let rng = seeded(seed, "data");
        Self { received: 0, sent: 0, unsent: 0, withheld: 0, share, rng }
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
            let Some(index) = self.peers.index_of(key) else { continue };
            if self.messages.is_withheld() {
                continue;
            }
            let peer = self.peers.get_mut(index);
            if peer.is_some_and(|peer| peer.write_data(channel, payload)) {
                self.messages.sent += 1;
                self.advance(index);
            } else {
                self.messages.unsent += 1;
            }
        }
    }
}
