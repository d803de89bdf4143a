//! The ways by TURN servers among a peer's local addresses.

use std::net::SocketAddr;
use std::time::Instant;

use super::{
    Candidates, Local, LocalId, OTHER_ROUTE_AFTER, Remote, Route, TURN_AFTER, UNUSED_LOCAL_AFTER,
    Way,
};
use crate::Transport;

/// A local address that is given up, and what it was if it was there.
pub(in crate::peer) type GivenUp = (LocalId, Option<(SocketAddr, Way)>);

impl Candidates {
    /// Keeps a place for a way by a TURN server.
    pub(in crate::peer) fn allocate(&mut self) -> Option<LocalId> {
        self.open(Local::Allocating)
    }

    /// A TURN server relays what comes to this address.
    pub(in crate::peer) fn allocated(
        &mut self,
        now: Instant,
        via: LocalId,
        address: SocketAddr,
        way: Way,
    ) {
        if let Some(local) = self.locals.get_mut(via.index()) {
            *local = Local::Open { address, way, carries: false };
        }
        if self.connected {
            self.tidy_at = Some(now + UNUSED_LOCAL_AFTER);
        }
    }

    /// A way by a TURN server is gone, or never was; what it was, if it was there.
    pub(in crate::peer) fn give_up_relay(&mut self, via: LocalId) -> Option<(SocketAddr, Way)> {
        let local = self.locals.get_mut(via.index()).filter(|local| local.is_relay())?;
        match std::mem::replace(local, Local::Free) {
            Local::Open { address, way, .. } => Some((address, way)),
            _ => None,
        }
    }

    /// The server wants relays alone, or does not. What is there stays.
    pub(in crate::peer) fn want_relays(&mut self, only: bool) {
        self.relays_only = only;
    }

    pub(in crate::peer) fn wants_relays(&self) -> bool {
        self.relays_only
    }

    /// Relays alone are wanted, and something else is still there till there is one.
    pub(in crate::peer) fn lacks_relay(&self) -> bool {
        let is_other = |local: &Local| matches!(local, Local::Open { .. }) && !local.is_relay();
        self.relays_only && self.locals.iter().any(is_other)
    }

    /// As [`Self::want_relays`], and sockets of others are given up.
    pub(in crate::peer) fn relay_only(&mut self, only: bool) -> Vec<GivenUp> {
        self.relays_only = only;
        if !only {
            return Vec::new();
        }
        for local in &mut self.locals {
            if matches!(local, Local::Opening(_)) {
                *local = Local::Free;
            }
        }
        self.give_up(|local| !local.is_relay())
    }

    /// When TURN servers are asked: at once where nothing else may be tried, else when that has had
    /// its time. `None` if that is not known yet.
    pub(in crate::peer) fn relays_from(&self, now: Instant) -> Option<Instant> {
        if self.relays_only || self.transport.is_relayed() {
            return Some(now);
        }
        let at = self.remotes.iter().map(|remote| remote.at);
        let can_work = |remote: &Remote| match remote.route {
            Route::Any | Route::From(_) => true,
            Route::Unusable | Route::None | Route::NoSocket | Route::NoConnection => false,
        };
        match self.transport {
            Transport::Only(_) => None,
            Transport::Auto if self.remotes.iter().any(can_work) => {
                at.min().map(|at| at + TURN_AFTER)
            }
            // Others of the server may still be on their way.
            Transport::Auto => at.max().map(|at| at + OTHER_ROUTE_AFTER),
        }
    }

    pub(super) fn give_up(&mut self, is_such: impl Fn(&Local) -> bool) -> Vec<GivenUp> {
        let mut given_up = Vec::new();
        for (index, local) in self.locals.iter_mut().enumerate() {
            let open = match *local {
                // Whoever is asked for one is told when it is there.
                Local::Free | Local::Opening(_) => continue,
                Local::Dialing(_) | Local::Allocating => None,
                Local::Open { address, way, .. } => Some((address, way)),
            };
            if is_such(local) {
                *local = Local::Free;
                given_up.push((LocalId(index as u8), open));
            }
        }
        given_up
    }
}
