//! What one receive brings: a datagram, or a segment run that the kernel kept together
//! (UDP GRO).

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use crate::slots::DropCounter;
use crate::wire;
use crate::{Received, SocketId, UdpStats};

/// Datagrams longer than this are not handed out. WebRTC stays below 1,500 bytes.
const HANDED_OUT_BYTES_MAX: usize = 2_048;
/// Source of what has none, and is not handed out.
const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

/// What a receive wrote into its buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) control: &'a [u8],
    pub(crate) len: usize,
    /// Some of it did not fit.
    pub(crate) cut: bool,
}

/// Datagrams of one sender that lie one after another in a receive buffer, all of `segment_bytes`
/// but the last, which may be shorter. They share the kernel's time stamp.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentRun {
    pub(crate) source: SocketAddr,
    pub(crate) received_at_unix_ns: u64,
    pub(crate) buffer: u16,
    /// Where in the buffer they start.
    pub(crate) start: u32,
    pub(crate) len: usize,
    /// At least one.
    pub(crate) segment_bytes: usize,
}

impl SegmentRun {
    /// Reads what a receive wrote into `buffer`, and what it says of the drops at its socket.
    /// `None`, and counted, where it is not to be handed out.
    pub(crate) fn read(
        buffer: u16,
        message: &Message<'_>,
        drops: Option<&mut DropCounter>,
        stats: &mut UdpStats,
    ) -> Option<Self> {
        let control = wire::parse_control(message.control);
        let run = Self::of(buffer, message, &control, stats);
        if let Some(drops) = drops {
            drops.received(run.map_or(1, |run| run.datagrams()));
            if let Some(counter) = control.drops {
                drops.update(counter, stats);
            }
        }
        run
    }

    fn of(
        buffer: u16,
        message: &Message<'_>,
        control: &wire::Control,
        stats: &mut UdpStats,
    ) -> Option<Self> {
        let &Message { name, len, cut, .. } = message;
        let source = wire::parse_name(name);
        let run = Self {
            source: source.unwrap_or(NOWHERE),
            received_at_unix_ns: control.unix_ns.unwrap_or_else(crate::unix_now_ns),
            buffer,
            start: 0,
            len,
            segment_bytes: control.segment_bytes.map_or(len, usize::from).max(1),
        };
        run.unless(cut || source.is_none(), stats)
    }

    /// Itself, or `None` and counted, where it is `bad` or of datagrams that are too long.
    pub(crate) fn unless(self, bad: bool, stats: &mut UdpStats) -> Option<Self> {
        if bad || self.segment_bytes > HANDED_OUT_BYTES_MAX {
            stats.uncategorised.truncated += self.datagrams() as u64;
            return None;
        }
        Some(self)
    }

    /// How many datagrams it is. At least one, for a datagram may be empty.
    pub(crate) fn datagrams(&self) -> usize {
        self.len.div_ceil(self.segment_bytes).max(1)
    }

    /// Puts its datagrams into the batch of `epoch`.
    pub(crate) fn hand_out(
        &self,
        socket: SocketId,
        epoch: u16,
        batch: &mut Vec<Received>,
        stats: &mut UdpStats,
    ) {
        stats.segment_runs_in += 1;
        stats.datagrams_in += self.datagrams() as u64;
        stats.bytes_in += self.len as u64;
        let datagrams = (0..self.len.max(1)).step_by(self.segment_bytes);
        batch.extend(datagrams.map(|offset| Received {
            socket,
            source: self.source,
            received_at_unix_ns: self.received_at_unix_ns,
            buffer: u32::from(epoch) << 16 | u32::from(self.buffer),
            offset: self.start + offset as u32,
            len: self.segment_bytes.min(self.len - offset) as u16,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UdpUncategorisedCounters;

    fn read(len: usize, segment_bytes: Option<u16>, stats: &mut UdpStats) -> Option<SegmentRun> {
        let name = wire::encode_name(&SocketAddr::from(([127, 0, 0, 1], 9)));
        let control = wire::Control { unix_ns: Some(5), segment_bytes, ..wire::Control::default() };
        let message = Message { name: &name.bytes, control: &[], len, cut: false };
        SegmentRun::of(3, &message, &control, stats)
    }

    fn pieces(len: usize, segment_bytes: Option<u16>) -> Vec<(u32, u16)> {
        let mut stats = UdpStats::default();
        let run = read(len, segment_bytes, &mut stats).unwrap();
        let mut batch = Vec::new();
        run.hand_out(SocketId(1), 7, &mut batch, &mut stats);
        assert_eq!(stats.datagrams_in, run.datagrams() as u64);
        assert_eq!((stats.segment_runs_in, stats.bytes_in), (1, len as u64));
        assert!(batch.iter().all(|r| r.buffer == 7 << 16 | 3 && r.received_at_unix_ns == 5));
        batch.iter().map(|r| (r.offset, r.len)).collect()
    }

    #[test]
    fn a_segment_run_is_cut_at_its_segments() {
        assert_eq!(pieces(250, Some(100)), [(0, 100), (100, 100), (200, 50)]);
        assert_eq!(pieces(200, Some(100)), [(0, 100), (100, 100)]);
        assert_eq!(pieces(90, Some(100)), [(0, 90)]);
    }

    #[test]
    fn a_datagram_alone_is_a_segment_run_of_one() {
        assert_eq!(pieces(90, None), [(0, 90)]);
        assert_eq!(pieces(0, None), [(0, 0)], "an empty datagram is one");
        assert_eq!(pieces(3, Some(0)), [(0, 1), (1, 1), (2, 1)], "no kernel says so; no panic");
    }

    #[test]
    fn what_is_too_long_is_counted_with_all_its_datagrams() {
        let mut stats = UdpStats::default();
        assert!(read(2_049, None, &mut stats).is_none());
        assert!(read(6_001, Some(3_000), &mut stats).is_none());
        assert_eq!(
            stats,
            UdpStats {
                uncategorised: UdpUncategorisedCounters { truncated: 4, ..Default::default() },
                ..UdpStats::default()
            }
        );
    }

    #[test]
    fn what_is_cut_or_from_nowhere_is_counted() {
        let mut stats = UdpStats::default();
        let control = wire::Control { segment_bytes: Some(100), ..wire::Control::default() };
        let name = wire::encode_name(&SocketAddr::from(([127, 0, 0, 1], 9)));
        let cut = Message { name: &name.bytes, control: &[], len: 300, cut: true };
        assert!(SegmentRun::of(0, &cut, &control, &mut stats).is_none());
        let from_nowhere = Message { name: &[], control: &[], len: 200, cut: false };
        assert!(SegmentRun::of(0, &from_nowhere, &control, &mut stats).is_none());
        assert_eq!(
            stats,
            UdpStats {
                uncategorised: UdpUncategorisedCounters { truncated: 5, ..Default::default() },
                ..UdpStats::default()
            }
        );
    }
}
