//! The sockets of a worker's peers: whose each is, and those that peers ask for.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use stampede_core::peer::LOCAL_ADDRESSES_MAX;
use stampede_core::{AddressRequest, LocalId};
use stampede_udp::SocketId;

use super::{Slot, Worker};
use crate::clock::Clock;

/// None.
const NO_SOCKET: SocketId = SocketId(u32::MAX);

/// A peer's sockets, one for each of its local addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sockets([SocketId; LOCAL_ADDRESSES_MAX]);

impl Default for Sockets {
    fn default() -> Self {
        Self([NO_SOCKET; LOCAL_ADDRESSES_MAX])
    }
}

impl Sockets {
    #[inline]
    pub(crate) fn get(&self, via: LocalId) -> Option<SocketId> {
        self.0.get(via.index()).copied().filter(|socket| *socket != NO_SOCKET)
    }

    pub(crate) fn set(&mut self, via: LocalId, socket: SocketId) {
        if let Some(place) = self.0.get_mut(via.index()) {
            *place = socket;
        }
    }

    pub(crate) fn take(&mut self, via: LocalId) -> Option<SocketId> {
        let socket = self.get(via);
        self.set(via, NO_SOCKET);
        socket
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = SocketId> + use<> {
        self.0.into_iter().filter(|socket| *socket != NO_SOCKET)
    }
}

/// The peer, by its slot, and the local address that a socket belongs to. Index: [`SocketId`].
#[derive(Debug, Default)]
pub(crate) struct Owners(Vec<Option<(u32, LocalId)>>);

impl Owners {
    #[inline]
    pub(crate) fn get(&self, socket: SocketId) -> Option<(usize, LocalId)> {
        let owner = self.0.get(socket.0 as usize).copied().flatten();
        owner.map(|(key, via)| (key as usize, via))
    }

    pub(crate) fn set(&mut self, socket: SocketId, key: usize, via: LocalId) {
        let index = socket.0 as usize;
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        self.0[index] = Some((key as u32, via));
    }

    pub(crate) fn clear(&mut self, socket: SocketId) {
        if let Some(owner) = self.0.get_mut(socket.0 as usize) {
            *owner = None;
        }
    }
}

/// The local address over which a peer was connected last that had been given another one first.
#[derive(Debug, Clone, Default)]
pub(crate) struct LearnedIp(Arc<Mutex<Option<IpAddr>>>);

impl LearnedIp {
    pub(crate) fn get(&self) -> Option<IpAddr> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, ip: IpAddr) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(ip);
    }
}

impl Slot {
    /// Where its media came over another address than its first one, further peers are to begin
    /// with that.
    pub(super) fn learn(&self, learned: &LearnedIp) {
        let local = self.peer.local();
        if self.peer.is_connected() && self.peer.first_local() != Some(local) {
            learned.set(local.ip());
        }
    }
}

impl Worker {
    /// Opens and closes the sockets that a peer asked for while it was drained. It asks for each once,
    /// so this ends.
    #[cold]
    pub(super) fn carry_out_requests(&mut self, clock: Clock, key: usize) {
        let now = clock.now;
        for request in std::mem::take(&mut self.address_requests) {
            let Some(slot) = self.slots.get_mut(key) else { return };
            match request {
                AddressRequest::Open { local } => {
                    let bound = stampede_udp::bind((local, 0).into(), self.setup.buffers);
                    if let Err(error) = bound.and_then(|socket| self.open(now, key, socket))
                        && let Some(slot) = self.slots.get_mut(key)
                    {
                        slot.peer.local_refused(now, local, error.to_string());
                    }
                }
                AddressRequest::Close { via } => {
                    if let Some(socket) = slot.sockets.take(via) {
                        self.close(key, socket);
                    }
                }
            }
        }
        self.drain(clock, key);
    }

    /// Closes a socket that its peer has no more.
    fn close(&mut self, key: usize, socket: SocketId) {
        let drops = self.backend.socket_drops(socket);
        self.backend.remove_socket(socket);
        self.owners.clear(socket);
        if let Some(slot) = self.slots.get_mut(key) {
            slot.drops_closed += drops;
        }
    }

    /// Carries out [`PeerCommand::ChangeNetwork`](crate::PeerCommand::ChangeNetwork). The new socket
    /// is bound before the old ones are closed, so that the kernel gives it another port.
    pub(super) fn change_network(&mut self, clock: Clock, key: usize) {
        let now = clock.now;
        let Some(slot) = self.slots.get_mut(key) else { return };
        let ip = slot.peer.local().ip();
        if ip.is_unspecified() {
            return;
        }
        let bound = self.bind(ip);
        let Some(slot) = self.slots.get_mut(key) else { return };
        let left = std::mem::take(&mut slot.sockets);
        let changed = bound.map_err(|error| error.to_string()).and_then(|(socket, address)| {
            let changed = slot.peer.change_network(now, address);
            changed.map(|via| (socket, via)).map_err(|error| {
                self.backend.remove_socket(socket);
                error.to_string()
            })
        });
        match changed {
            Ok((socket, via)) => {
                slot.sockets.set(via, socket);
                self.owners.set(socket, key, via);
            }
            Err(why) => slot.peer.lose_network(now, why),
        }
        left.iter().for_each(|socket| self.close(key, socket));
    }

    fn bind(&mut self, ip: IpAddr) -> io::Result<(SocketId, SocketAddr)> {
        let socket = stampede_udp::bind((ip, 0).into(), self.setup.buffers)?;
        let address = socket.local_addr()?;
        Ok((self.backend.add_socket(socket)?, address))
    }

    /// Gives a peer one more socket.
    fn open(&mut self, now: Instant, key: usize, socket: UdpSocket) -> io::Result<()> {
        let address = socket.local_addr()?;
        let socket = self.backend.add_socket(socket)?;
        let slot = self.slots.get_mut(key);
        let added = slot.and_then(|slot| Some((slot.peer.add_local(now, address)?, slot)));
        match added {
            Some((via, slot)) => {
                slot.sockets.set(via, socket);
                self.owners.set(socket, key, via);
            }
            None => self.backend.remove_socket(socket),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_socket_of_a_peer_is_anothers() {
        let (via, mut sockets, mut owners) =
            (LocalId::default(), Sockets::default(), Owners::default());
        assert_eq!((sockets.get(via), owners.get(SocketId(3))), (None, None));
        sockets.set(via, SocketId(3));
        owners.set(SocketId(3), 7, via);
        assert_eq!(owners.get(SocketId(3)), Some((7, via)));
        assert_eq!(owners.get(SocketId(2)), None);
        assert_eq!(sockets.iter().collect::<Vec<_>>(), [SocketId(3)]);
        assert_eq!(sockets.take(via), Some(SocketId(3)));
        assert_eq!((sockets.take(via), sockets.iter().count()), (None, 0));
        owners.clear(SocketId(3));
        owners.clear(SocketId(9));
        assert_eq!(owners.get(SocketId(3)), None);
    }
}
