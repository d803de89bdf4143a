//! What one receive brings: a datagram, or a run of them that the kernel kept together (UDP GRO).

use std::net::SocketAddr;

use crate::wire::{self, RUN_BYTES_MAX};
use crate::{Received, SocketId, UdpStats};

/// Datagrams longer than this are not handed out. WebRTC stays below 1,500 bytes.
const DATAGRAM_BYTES_MAX: usize = 2_048;

/// Datagrams of one sender that lie one after another in a receive buffer, all of `segment` bytes
/// but the last, which may be shorter. They share the kernel's time stamp.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    source: SocketAddr,
    received_at_unix_ns: u64,
    pub(crate) buffer: u16,
    len: usize,
    segment: usize,
}

impl Run {
    /// Reads what a receive wrote into `buffer`. `None`, and counted, where it is not to be handed
    /// out.
    pub(crate) fn read(
        buffer: u16,
        name: &[u8],
        control: &wire::Control,
        len: usize,
        truncated: bool,
        stats: &mut UdpStats,
    ) -> Option<Self> {
        let segment = control.segment.map_or(len, usize::from).max(1);
        let received_at_unix_ns = control.unix_ns.unwrap_or_else(crate::unix_now_ns);
        let source = wire::parse_name(name)?;
        let run = Self { source, received_at_unix_ns, buffer, len, segment };
        if truncated || segment > DATAGRAM_BYTES_MAX {
            stats.truncated += run.datagrams() as u64;
            return None;
        }
        Some(run)
    }

    /// How many datagrams it is. At least one, for a datagram may be empty.
    pub(crate) fn datagrams(&self) -> usize {
        self.len.div_ceil(self.segment).max(1)
    }

    /// Puts its datagrams into the batch of `epoch`.
    pub(crate) fn hand_out(
        &self,
        socket: SocketId,
        epoch: u16,
        batch: &mut Vec<Received>,
        stats: &mut UdpStats,
    ) {
        stats.runs_in += 1;
        stats.datagrams_in += self.datagrams() as u64;
        stats.bytes_in += self.len as u64;
        let datagrams = (0..self.len.max(1)).step_by(self.segment);
        batch.extend(datagrams.map(|offset| Received {
            socket,
            source: self.source,
            received_at_unix_ns: self.received_at_unix_ns,
            buffer: u32::from(epoch) << 16 | u32::from(self.buffer),
            offset: offset as u16,
            len: self.segment.min(self.len - offset) as u16,
        }));
    }
}

/// Offsets and lengths are kept in 16 bits.
const _: () = assert!(RUN_BYTES_MAX <= 1 << 16);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(len: usize, segment: Option<u16>, stats: &mut UdpStats) -> Option<Run> {
        let name = wire::encode_name(&SocketAddr::from(([127, 0, 0, 1], 9)));
        let control = wire::Control { unix_ns: Some(5), segment, ..wire::Control::default() };
        Run::read(3, &name.bytes, &control, len, false, stats)
    }

    fn pieces(len: usize, segment: Option<u16>) -> Vec<(u16, u16)> {
        let mut stats = UdpStats::default();
        let run = read(len, segment, &mut stats).unwrap();
        let mut batch = Vec::new();
        run.hand_out(SocketId(1), 7, &mut batch, &mut stats);
        assert_eq!(stats.datagrams_in, run.datagrams() as u64);
        assert_eq!((stats.runs_in, stats.bytes_in), (1, len as u64));
        assert!(batch.iter().all(|r| r.buffer == 7 << 16 | 3 && r.received_at_unix_ns == 5));
        batch.iter().map(|r| (r.offset, r.len)).collect()
    }

    #[test]
    fn a_run_is_cut_at_its_segments() {
        assert_eq!(pieces(250, Some(100)), [(0, 100), (100, 100), (200, 50)]);
        assert_eq!(pieces(200, Some(100)), [(0, 100), (100, 100)]);
        assert_eq!(pieces(90, Some(100)), [(0, 90)]);
    }

    #[test]
    fn a_datagram_alone_is_a_run_of_one() {
        assert_eq!(pieces(90, None), [(0, 90)]);
        assert_eq!(pieces(0, None), [(0, 0)], "an empty datagram is one");
        assert_eq!(pieces(3, Some(0)), [(0, 1), (1, 1), (2, 1)], "no kernel says so; no panic");
    }

    #[test]
    fn what_is_too_long_is_counted_with_all_its_datagrams() {
        let mut stats = UdpStats::default();
        assert!(read(2_049, None, &mut stats).is_none());
        assert!(read(6_001, Some(3_000), &mut stats).is_none());
        assert_eq!(stats, UdpStats { truncated: 4, ..UdpStats::default() });
    }
}
