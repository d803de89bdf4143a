//! Finding out whether a packet ring can be had and works here, by using one.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::IN_RING;
use crate::PacketRingRefusal;
use crate::mmsg::Mmsg;
use crate::probe::{LIMITS, exchange};

/// Receives a few datagrams through a small ring, of IPv6 where this host has it. ICE and DTLS come by
/// the sockets beside it, so what those take is tried too: it would be missed in the middle of a join.
pub(crate) fn probe() -> Result<(), PacketRingRefusal> {
    let through_ring = |ip| {
        let mut backend = Mmsg::with_packet_ring(&LIMITS)?;
        let in_ring = |datagram: &crate::Received| datagram.buffer as u16 & IN_RING != 0;
        Ok::<_, PacketRingRefusal>(exchange(&mut backend, ip, "Linux 5.11 or newer", in_ring)?)
    };
    Mmsg::with_packet_ring(&LIMITS)?.try_calls()?;
    through_ring(Ipv4Addr::LOCALHOST.into())?;
    match std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) {
        Ok(_) => through_ring(Ipv6Addr::LOCALHOST.into()),
        Err(_) => Ok(()),
    }
}
