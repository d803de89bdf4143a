//! Finding out whether a packet ring can be had and works here, by using one.

use super::BLOCK;
use crate::PacketRingRefusal;
use crate::mmsg::Mmsg;
use crate::probe::{LIMITS, exchange};

/// Receives a few datagrams through a small ring.
pub(crate) fn probe() -> Result<(), PacketRingRefusal> {
    let mut backend = Mmsg::with_packet_ring(&LIMITS)?;
    // Before 6.2 a packet socket drops segment runs (UDP GSO).
    let in_ring = |datagram: &crate::Received| datagram.buffer as u16 & BLOCK != 0;
    Ok(exchange(&mut backend, "Linux 6.2 or newer", in_ring)?)
}
