//! What the network saw of media: RTP headers are not encrypted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// The packets of one SSRC on the way to one client.
#[derive(Debug, Clone, Default)]
pub struct Packets {
    /// Put on the link, each once: extended sequence numbers.
    pub sent: BTreeSet<u64>,
    /// Came out of it, each once.
    pub delivered: BTreeSet<u64>,
    /// When something came out of it, repeats too.
    pub deliveries: Vec<Instant>,
}

/// All SSRCs on the way to one client.
#[derive(Debug, Clone, Default)]
pub struct Wire(BTreeMap<u32, Packets>);

fn header(datagram: &[u8]) -> Option<(u32, u16)> {
    let head: &[u8; 12] = datagram.first_chunk()?;
    let ssrc = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
    Some((ssrc, u16::from_be_bytes([head[2], head[3]])))
}

/// The number next to `near` that ends so.
fn extended(near: u64, sequence: u16) -> u64 {
    let ahead = sequence.wrapping_sub(near as u16).cast_signed();
    near.saturating_add_signed(ahead.into())
}

impl Wire {
    /// A packet goes on the link.
    pub fn sent(&mut self, datagram: &[u8]) {
        let Some((ssrc, sequence)) = header(datagram) else { return };
        let packets = self.0.entry(ssrc).or_default();
        let near = packets.sent.last().copied().unwrap_or(1 << 20 | u64::from(sequence));
        packets.sent.insert(extended(near, sequence));
    }

    /// A packet comes out of it.
    pub fn delivered(&mut self, now: Instant, datagram: &[u8]) {
        let Some((ssrc, sequence)) = header(datagram) else { return };
        let Some(packets) = self.0.get_mut(&ssrc) else { return };
        let near = packets.sent.last().copied().unwrap_or_default();
        let number = extended(near, sequence);
        packets.deliveries.push(now);
        packets.delivered.insert(number);
    }

    /// Of one SSRC.
    #[must_use]
    pub fn of(&self, ssrc: u32) -> Option<&Packets> {
        self.0.get(&ssrc)
    }
}

impl Packets {
    /// Numbers from the lowest that came to the highest that came, and how many of them did not.
    #[must_use]
    pub fn passed_over(&self) -> (u64, u64) {
        let mut delivered = self.delivered.iter();
        let (Some(first), count) = (delivered.next(), self.delivered.len()) else { return (0, 0) };
        let span = delivered.next_back().unwrap_or(first) - first + 1;
        (span, span - count as u64)
    }
}
