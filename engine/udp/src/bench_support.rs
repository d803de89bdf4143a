//! What a bench counts of the packet path without a kernel.

use std::io;

use crate::packet_ring::PacketRing;
use crate::{Received, UdpStats};

/// A packet ring that was filled beforehand, and what is drained from it.
#[allow(missing_debug_implementations, reason = "the ring has none")]
pub struct FilledRing {
    ring: PacketRing,
    batch: Vec<Received>,
    stats: UdpStats,
}

impl FilledRing {
    /// With segment runs for `sockets` sockets in turn, `runs` in all, each of so many datagrams of
    /// so many bytes. Fails where no memory can be had.
    pub fn new(sockets: u16, runs: u32, datagrams: usize, bytes: usize) -> io::Result<Self> {
        let ring = PacketRing::filled(sockets, runs, datagrams, bytes)?;
        Ok(Self { ring, batch: Vec::new(), stats: UdpStats::default() })
    }

    /// Hands out all of it, about `wanted` datagrams at a time, and gives the room back. How many
    /// bytes that were, each datagram's first being its version of RTP.
    pub fn drain(&mut self, wanted: usize) -> usize {
        let Self { ring, batch, stats } = self;
        let mut bytes = 0;
        loop {
            let over = ring.drain(wanted, 0, batch, stats, |_, _| {});
            for datagram in &*batch {
                let payload = ring.payload(datagram.offset as usize, datagram.len.into());
                bytes += payload.first().map_or(0, |first| usize::from(first >> 7)) * payload.len();
            }
            batch.clear();
            ring.give_back();
            if over {
                return bytes;
            }
        }
    }

    /// Datagrams handed out so far.
    pub fn datagrams(&self) -> u64 {
        self.stats.datagrams_in
    }
}
