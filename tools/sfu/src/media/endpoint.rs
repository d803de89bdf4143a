//! Where a peer is reached: an address, and by which protocol. The same address may be one peer's by
//! UDP and another's by TCP.

use std::net::SocketAddr;

use str0m::net::Protocol;

/// Where a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Endpoint {
    pub(crate) protocol: Protocol,
    pub(crate) address: SocketAddr,
}

impl Endpoint {
    pub(crate) fn udp(address: SocketAddr) -> Self {
        Self { protocol: Protocol::Udp, address }
    }

    pub(crate) fn tcp(address: SocketAddr) -> Self {
        Self { protocol: Protocol::Tcp, address }
    }
}
