//! Making peers and subscriptions with what is random about them.

use std::net::SocketAddr;
use std::time::Instant;

use stampede_impair::{Cohorts, Loss, seeded, stable_name};

use super::connection::ConnectionConfig;
use super::failure::PeerFailure;
use super::message::{PeerKey, PeerLabel, Role, TrackOffer};
use super::peer::{Peer, PeerSpec};
use super::subscription::Subscription;
use crate::options::Congestion;

/// What all peers of a worker have in common.
pub(crate) struct PeerFactory {
    config: ConnectionConfig,
    /// What is done to the packets of which subscribers.
    cohorts: Cohorts,
    /// Share of publishers' packets that are dropped on arrival.
    drop_upstream: f64,
    seed: u64,
    /// Where clients reach the worker.
    address: SocketAddr,
    /// There they may come over TCP too.
    tcp: bool,
}

impl PeerFactory {
    /// `seed` is of everything that is random and not secret.
    pub(crate) fn new(
        config: ConnectionConfig,
        cohorts: Cohorts,
        drop_upstream: f64,
        seed: u64,
        address: SocketAddr,
    ) -> Self {
        Self { config, cohorts, drop_upstream, seed, address, tcp: false }
    }

    /// Clients may come over TCP too.
    pub(crate) fn with_tcp(self) -> Self {
        Self { tcp: true, ..self }
    }

    /// By what is learnt how much fits the way to a subscriber.
    pub(crate) fn congestion(&self) -> Congestion {
        self.config.congestion()
    }

    /// Where clients reach the worker.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes a peer.
    ///
    /// # Errors
    /// The worker's address can't be a candidate.
    pub(crate) fn peer(
        &self,
        key: PeerKey,
        role: Role,
        label: PeerLabel,
        allow_pause: bool,
        now: Instant,
    ) -> Result<Peer, PeerFailure> {
        let identity = &*label.identity;
        let impair = match role.sends() {
            true => self.cohorts.of(identity).map(|(_, model)| Box::new(model)),
            false => None,
        };
        let upstream_loss = match role.receives() {
            true => {
                let name = format!("{}/up", stable_name(identity));
                Loss::new(self.drop_upstream, 1, seeded(self.seed, &name))
            }
            false => None,
        };
        let spec = PeerSpec { key, role, label, impair, upstream_loss, tcp: self.tcp, allow_pause };
        Peer::new(spec, &self.config, self.address, now)
    }

    /// Makes a subscription to the track at this index. Its numbers start at random (RFC 3550
    /// §5.1) but repeatably, and far from the wrap.
    pub(crate) fn subscription(
        &self,
        label: &PeerLabel,
        track: usize,
        offer: TrackOffer,
    ) -> Subscription {
        let mut rng = seeded(self.seed, &format!("{}/{}", label.identity, offer.sid));
        let mut first_seq = || rng.u16(1..0x4000);
        let (first_seq, first_rtx) = (first_seq(), first_seq());
        Subscription::new(track, label.room.clone(), offer, first_seq, first_rtx)
    }
}
