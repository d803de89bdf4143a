//! One ring of received packets for all sockets of a worker (`AF_PACKET`, `TPACKET_V3`).
//!
//! The kernel copies each RTP or RTCP packet into memory that we share as it comes in, so that
//! reading it takes no system call and visits no socket; the sockets keep ICE and DTLS. A packet is
//! seen before the firewall, before its UDP checksum is verified, and only over IPv4 and whole:
//! everything else stays with its socket. The firewall or a bad checksum may therefore stop at the
//! socket what the ring has handed out. Each ring's filter runs for each IPv4 packet that comes in.

mod filter;
mod probe;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::memory::PageMemory;
use crate::segment_run::SegmentRun;
use crate::slots::DropCounter;
use crate::sys::{bpf, packet};
use crate::wire::{array_at, u32_at};
use crate::{Received, SocketId, UdpStats};
use filter::PortTable;

pub(crate) use probe::probe;

/// Room of a block: for the longest segment run there is and its headers, and for a hundred
/// packets.
const BLOCK_BYTES: usize = 128 * 1024;
/// A block with anything in it is handed over after so long (rounded up to the kernel's ticks,
/// before Linux 6.18). It is what this adds to the delay of a packet, and with the number of blocks
/// the time we may be late without losing any.
const RETIRE_MS: u32 = 4;

/// `struct tpacket_block_desc` (linux/if_packet.h).
const BLOCK_STATUS_AT: usize = 8;
const BLOCK_PACKETS_AT: usize = 12;
const BLOCK_FIRST_AT: usize = 16;
const BLOCK_HEADER_BYTES: usize = 48;
/// `struct tpacket3_hdr`, before each packet.
const NEXT_AT: usize = 0;
const SECONDS_AT: usize = 4;
const NANOS_AT: usize = 8;
const CAPTURED_AT: usize = 12;
const MAC_AT: usize = 24;
const NET_AT: usize = 26;
const PACKET_HEADER_BYTES: usize = 48;
/// `struct virtio_net_hdr`, before each packet's link layer header.
const OFFLOAD_BYTES: usize = 10;
const OFFLOAD_TYPE_AT: usize = 1;
const OFFLOAD_SEGMENT_AT: usize = 4;
/// linux/virtio_net.h, and `VIRTIO_NET_HDR_GSO_NONE`.
const GSO_UDP_L4: u8 = 5;
const GSO_NONE: u8 = 0;
/// IPv4 header, without options, and UDP header.
const HEADERS_BYTES: usize = 20 + 8;
const UDP_HEADER_BYTES: usize = 8;

/// Tells a block from a receive buffer of a socket in [`Received::buffer`].
pub(crate) const BLOCK: u16 = 1 << 15;
/// No socket has this port.
const NOBODY: u32 = u32::MAX;

/// What a socket has in the ring.
#[derive(Debug, Clone, Copy)]
struct Entry {
    address: SocketAddrV4,
    segment_runs_taken: u32,
    missed: Missed,
}

/// What a socket refused and the ring never took.
///
/// The two filters see a packet one after the other, in an order that is the kernel's (sockets
/// first since the lists of packet sockets are those of a network namespace). A look may fall
/// between them, so only what several looks have seen is believed.
#[derive(Debug, Clone, Copy, Default)]
struct Missed {
    confirmed: u32,
    /// The last looks, and when the last one was.
    seen: [u32; 2],
    looked: Option<Instant>,
}

impl Missed {
    /// Between two looks that count.
    const APART: Duration = Duration::from_millis(10);

    /// Looks at how many are missed at this moment. Whether there is anything new.
    fn look(&mut self, missed: u32, now: Instant) -> bool {
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < Self::APART) {
            return false;
        }
        self.looked = Some(now);
        let [older, old] = self.seen;
        self.seen = [old, missed];
        let believed = missed.min(old).min(older);
        let new = believed > self.confirmed;
        self.confirmed = self.confirmed.max(believed);
        new
    }
}

/// See the module.
pub(crate) struct PacketRing {
    memory: PageMemory,
    table: PortTable,
    socket_program: OwnedFd,
    /// Index: port.
    socket_of_port: Vec<u32>,
    /// Index: socket.
    entries: Vec<Option<Entry>>,
    blocks: usize,
    reading: Reading,
    /// Blocks before the one that is being read that the batch refers to.
    held: usize,
    /// The ring's, all sockets together.
    drops: DropCounter,
    dropped: u32,
    /// Segment runs that wait in it; below zero where some were read that the kernel has not told
    /// of yet.
    waiting: i64,
    /// It has been logged that some media does not come this way.
    warned: bool,
    socket: OwnedFd,
}

/// Where in the ring we are.
#[derive(Debug, Clone, Copy, Default)]
struct Reading {
    block: usize,
    /// Whether `next` and `left` are of this block already.
    begun: bool,
    /// Offset of the next packet in the block, and how many there are.
    next: usize,
    left: u32,
}

impl PacketRing {
    pub(crate) fn new(ring_bytes_max: usize) -> io::Result<Self> {
        let blocks = (ring_bytes_max / BLOCK_BYTES).clamp(2, usize::from(BLOCK) - 1);
        let socket = packet::socket()?;
        let table = PortTable::new()?;
        bpf::attach(&table.ring_program()?, socket.as_raw_fd())?;
        packet::make_ring(&socket, blocks as u32, BLOCK_BYTES as u32, RETIRE_MS)?;
        let memory = PageMemory::shared(&socket, blocks * BLOCK_BYTES)?;
        let socket_program = table.socket_program()?;
        packet::listen(&socket)?;
        Ok(Self {
            memory,
            table,
            socket_program,
            socket_of_port: vec![NOBODY; 1 << 16],
            entries: Vec::new(),
            blocks,
            reading: Reading::default(),
            held: 0,
            drops: DropCounter::default(),
            dropped: 0,
            waiting: 0,
            warned: false,
            socket,
        })
    }

    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Takes RTP and RTCP for a socket from now on. One of IPv6, or with the port of another one,
    /// receives it itself, as without a ring.
    pub(crate) fn add(&mut self, index: u32, socket: RawFd, address: SocketAddr) -> io::Result<()> {
        let SocketAddr::V4(address) = address else { return Ok(()) };
        let owner = &mut self.socket_of_port[usize::from(address.port())];
        if *owner != NOBODY {
            return Ok(());
        }
        bpf::attach(&self.socket_program, socket)?;
        *owner = index;
        if self.entries.len() <= index as usize {
            self.entries.resize(index as usize + 1, None);
        }
        self.entries[index as usize] =
            Some(Entry { address, segment_runs_taken: 0, missed: Missed::default() });
        self.table.want(address);
        Ok(())
    }

    /// Forgets a socket. What the ring still has of it is not handed out, or to the next socket
    /// with this port, which can't decrypt it.
    pub(crate) fn remove(&mut self, index: u32) {
        let entry = self.entries.get_mut(index as usize).and_then(Option::take);
        let Some(Entry { address, .. }) = entry else { return };
        self.table.release(address.port());
        self.socket_of_port[usize::from(address.port())] = NOBODY;
    }

    /// How much of what a socket counts as dropped is in the ring instead.
    pub(crate) fn moved(&self, index: u32) -> u32 {
        let Some(Some(entry)) = self.entries.get(index as usize) else { return 0 };
        let refused = self.table.counters(entry.address.port()).refused;
        refused.wrapping_sub(entry.missed.confirmed)
    }

    /// Datagrams of a socket that found the ring full, at least. The kernel counts them for the
    /// whole ring only, and what a socket misses may still be waiting in there, whoever else's that
    /// may be.
    ///
    /// A socket whose media does not come this way, though its filter thinks so, has it by itself
    /// from now on: its address is changed, or it is put together, behind the place where packets
    /// are taken.
    pub(crate) fn socket_drops(&mut self, index: u32, now: Instant, stats: &mut UdpStats) -> u64 {
        let Some(Some(entry)) = self.entries.get_mut(index as usize) else { return 0 };
        let counters = self.table.counters(entry.address.port());
        let confirmed = entry.missed.look(counters.missed(), now);
        let (address, missing) =
            (entry.address, counters.taken.wrapping_sub(entry.segment_runs_taken));
        if confirmed {
            self.table.release(address.port());
            if !std::mem::replace(&mut self.warned, true) {
                tracing::warn!(
                    %address,
                    "media that the packet ring can't see (NAT, IPsec or fragments on this host?): \
                     lost so far, from now on received by the socket"
                );
            }
        }
        // Later than the socket's counters: what has come in between counts as waiting.
        self.refresh_drops(stats);
        let missing = i64::from(missing.cast_signed()) - self.waiting.max(0);
        let dropped = missing.clamp(0, self.dropped.into());
        (dropped as f64 * self.drops.datagrams_per_segment_run()).round() as u64
    }

    /// Asks the kernel how much it has dropped.
    pub(crate) fn refresh_drops(&mut self, stats: &mut UdpStats) {
        stats.syscalls += 1;
        match packet::take_statistics(&self.socket) {
            Ok(packet::Statistics { received, dropped }) => {
                self.waiting += i64::from(received);
                self.dropped = self.dropped.wrapping_add(dropped);
                let before = stats.kernel_drops;
                self.drops.update(self.dropped, stats);
                stats.ring_drops += stats.kernel_drops - before;
            }
            Err(error) => tracing::error!(%error, "drops of the packet ring can't be read"),
        }
    }

    fn status(&self, block: usize) -> &AtomicU32 {
        self.memory.atomic(block * BLOCK_BYTES + BLOCK_STATUS_AT)
    }

    /// Whether there is anything to hand out.
    pub(crate) fn is_ready(&self) -> bool {
        let Reading { block, begun, .. } = self.reading;
        begun || self.status(block).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// Gives blocks back to the kernel that have been handed out whole; the batch must be gone.
    pub(crate) fn give_back(&mut self) {
        for back in 1..=self.held {
            let block = (self.reading.block + self.blocks - back) % self.blocks;
            self.status(block).store(libc::TP_STATUS_KERNEL, Ordering::Release);
        }
        self.held = 0;
    }

    /// Hands out packets until the batch has as many as `wanted`, or nothing is left.
    pub(crate) fn drain(
        &mut self,
        wanted: usize,
        epoch: u16,
        batch: &mut Vec<Received>,
        stats: &mut UdpStats,
    ) {
        if batch.len() < wanted && self.is_ready() {
            self.refresh_drops(stats);
        }
        // All but one may be held: the one that is read has to differ from the oldest.
        while batch.len() < wanted && self.held + 1 < self.blocks && self.is_ready() {
            if !self.reading.begun {
                self.begin_block();
            }
            while batch.len() < wanted && self.reading.left > 0 {
                self.take_packet(epoch, batch, stats);
            }
            if self.reading.left == 0 {
                let block = (self.reading.block + 1) % self.blocks;
                self.reading = Reading { block, ..Reading::default() };
                self.held += 1;
            }
        }
    }

    fn begin_block(&mut self) {
        let block = self.block(self.reading.block);
        let left = u32_at(block, BLOCK_PACKETS_AT).unwrap_or(0);
        let next = u32_at(block, BLOCK_FIRST_AT).unwrap_or(0) as usize;
        self.reading = Reading { begun: true, next, left, ..self.reading };
    }

    /// A block that is ours at the moment.
    fn block(&self, block: usize) -> &[u8] {
        self.memory.slice(block * BLOCK_BYTES, BLOCK_BYTES)
    }

    /// Moves the next packet of the block into the batch.
    fn take_packet(&mut self, epoch: u16, batch: &mut Vec<Received>, stats: &mut UdpStats) {
        let Reading { block, next, .. } = self.reading;
        self.reading.left -= 1;
        let Some(packet) = Packet::parse(self.block(block), next) else {
            // Not a ring as this kernel promised it: the rest of the block can't be found.
            stats.uncategorised.truncated += u64::from(self.reading.left) + 1;
            self.reading.left = 0;
            return;
        };
        self.reading.next = next + packet.next;
        self.waiting -= 1;
        // `NOBODY`: removed meanwhile.
        let index = self.socket_of_port[usize::from(packet.destination.port())];
        let entry = self.entries.get_mut(index as usize).and_then(Option::as_mut);
        let Some(entry) = entry else { return };
        entry.segment_runs_taken = entry.segment_runs_taken.wrapping_add(1);
        match packet.segment_run(BLOCK | block as u16, stats) {
            Some(run) => {
                self.drops.received(run.datagrams());
                run.hand_out(SocketId(index), epoch, batch, stats);
            }
            None => self.drops.received(1),
        }
    }

    /// Bytes of a packet of the batch; `buffer` is what [`Received::buffer`] says.
    pub(crate) fn payload(&self, buffer: u16, offset: usize, len: usize) -> &[u8] {
        let block = usize::from(buffer & !BLOCK);
        let back = (self.reading.block + self.blocks - block) % self.blocks;
        let held = match back {
            0 => self.reading.begun,
            _ => back <= self.held && block < self.blocks,
        };
        let bytes = if held { self.block(block) } else { &[] };
        bytes.get(offset..offset + len).unwrap_or(&[])
    }
}

/// A packet in a block, as far as it could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packet {
    /// From this packet to the next.
    next: usize,
    unix_ns: u64,
    source: SocketAddrV4,
    destination: SocketAddrV4,
    /// Where its payload is in the block.
    start: usize,
    len: usize,
    /// Of the datagrams of a segment run; `None` for what can't be told apart.
    segment_bytes: Option<usize>,
}

impl Packet {
    /// `None` where the block is not as the kernel lays it out; what a sender wrote may be
    /// anything. Pure: safe on any bytes.
    fn parse(block: &[u8], at: usize) -> Option<Self> {
        if at < BLOCK_HEADER_BYTES {
            return None;
        }
        let header = block.get(at..at.checked_add(PACKET_HEADER_BYTES)?)?;
        let next = u32_at(header, NEXT_AT)? as usize;
        let seconds = u64::from(u32_at(header, SECONDS_AT)?);
        let unix_ns = seconds * 1_000_000_000 + u64::from(u32_at(header, NANOS_AT)?);
        let captured = u32_at(header, CAPTURED_AT)? as usize;
        let mac = at + usize::from(u16::from_ne_bytes(array_at(header, MAC_AT)?));
        let net = at + usize::from(u16::from_ne_bytes(array_at(header, NET_AT)?));
        let offload = block.get(mac.checked_sub(OFFLOAD_BYTES)?..mac)?;
        let packet = block.get(net..mac.checked_add(captured)?)?;
        let address = |at, port_at| {
            let ip = Ipv4Addr::from(array_at::<4>(packet, at)?);
            Some(SocketAddrV4::new(ip, u16::from_be_bytes(array_at(packet, port_at)?)))
        };
        let (source, destination) = (address(12, 20)?, address(16, 22)?);
        let len = usize::from(u16::from_be_bytes(array_at(packet, 24)?));
        // The kernel has not looked at this length yet.
        let whole =
            len >= UDP_HEADER_BYTES && packet.len() >= HEADERS_BYTES - UDP_HEADER_BYTES + len;
        let len = len.saturating_sub(UDP_HEADER_BYTES);
        let segment = u16::from_ne_bytes(array_at(offload, OFFLOAD_SEGMENT_AT)?).into();
        let segment_bytes = match offload[OFFLOAD_TYPE_AT] {
            GSO_NONE if whole => Some(len),
            GSO_UDP_L4 if whole && segment > 0 => Some(segment),
            _ => None,
        };
        let start = net + HEADERS_BYTES;
        Some(Self { next, unix_ns, source, destination, start, len, segment_bytes })
    }

    /// What it holds; `None`, and counted, where it is not to be handed out.
    fn segment_run(&self, buffer: u16, stats: &mut UdpStats) -> Option<SegmentRun> {
        let run = SegmentRun {
            source: SocketAddr::V4(self.source),
            received_at_unix_ns: self.unix_ns,
            buffer,
            start: self.start as u32,
            len: self.len,
            segment_bytes: self.segment_bytes.unwrap_or(self.len).max(1),
        };
        run.unless(self.segment_bytes.is_none(), stats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UdpUncategorisedCounters;
    use proptest::prelude::*;

    const MAC: usize = 66;

    /// A block with one packet at its first place: `payload` and what the offload header says.
    fn block(payload: &[u8], gso_type: u8, segment: u16) -> Vec<u8> {
        let at = BLOCK_HEADER_BYTES;
        let len = 14 + HEADERS_BYTES + payload.len();
        let mut block = vec![0; at + MAC + len];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(at + NEXT_AT, &96u32.to_ne_bytes());
        put(at + SECONDS_AT, &3u32.to_ne_bytes());
        put(at + NANOS_AT, &7u32.to_ne_bytes());
        put(at + CAPTURED_AT, &(len as u32).to_ne_bytes());
        put(at + MAC_AT, &(MAC as u16).to_ne_bytes());
        put(at + NET_AT, &(MAC as u16 + 14).to_ne_bytes());
        let offload = at + MAC - OFFLOAD_BYTES;
        put(offload + OFFLOAD_TYPE_AT, &[gso_type]);
        put(offload + OFFLOAD_SEGMENT_AT, &segment.to_ne_bytes());
        let ip = at + MAC + 14;
        put(ip + 12, &[127, 0, 0, 1, 127, 0, 0, 2]);
        put(ip + 20, &9u16.to_be_bytes());
        put(ip + 22, &10u16.to_be_bytes());
        put(ip + 24, &(UDP_HEADER_BYTES as u16 + payload.len() as u16).to_be_bytes());
        put(ip + HEADERS_BYTES, payload);
        block
    }

    fn packet(block: &[u8]) -> Packet {
        Packet::parse(block, BLOCK_HEADER_BYTES).unwrap()
    }

    #[test]
    fn a_packet_and_a_segment_run_are_read() {
        let block = block(&[5; 30], GSO_NONE, 0);
        let single = packet(&block);
        assert_eq!((single.next, single.unix_ns), (96, 3_000_000_007));
        assert_eq!(single.source.to_string(), "127.0.0.1:9");
        assert_eq!(single.destination.to_string(), "127.0.0.2:10");
        assert_eq!(block[single.start..][..single.len], [5; 30]);
        assert_eq!(single.segment_bytes, Some(30));
        assert_eq!(packet(&self::block(&[5; 30], GSO_UDP_L4, 12)).segment_bytes, Some(12));
    }

    /// The length is the sender's, and no reason to doubt the packets behind it.
    #[test]
    fn a_wrong_length_costs_that_packet_only() {
        let length_at = BLOCK_HEADER_BYTES + MAC + 14 + 24;
        for length in [0u16, 7, 39, u16::MAX] {
            let mut block = block(&[5; 30], GSO_NONE, 0);
            block[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
            let read = packet(&block);
            assert_eq!((read.next, read.segment_bytes), (96, None), "{length}");
            assert!(read.segment_run(0, &mut UdpStats::default()).is_none());
        }
    }

    #[test]
    fn only_what_is_missed_at_three_looks_is_believed() {
        let start = Instant::now();
        let mut missed = Missed::default();
        let mut look = |after_ms, count| {
            let new = missed.look(count, start + Duration::from_millis(after_ms));
            (missed.confirmed, new)
        };
        // Once between the two filters, twice in a row, and never a third time.
        assert_eq!(
            [look(0, 1), look(10, 0), look(20, 1), look(30, 1), look(40, 0)],
            [(0, false); 5]
        );
        assert_eq!([look(50, 3), look(51, 3), look(52, 3), look(60, 4)], [(0, false); 4]);
        assert_eq!([look(70, 3), look(80, 3), look(90, 3)], [(3, true), (3, false), (3, false)]);
    }

    #[test]
    fn what_cannot_be_told_apart_is_counted() {
        let mut stats = UdpStats::default();
        for (gso_type, segment) in [(GSO_UDP_L4, 0), (3, 12)] {
            assert!(
                packet(&block(&[5; 30], gso_type, segment)).segment_run(0, &mut stats).is_none()
            );
        }
        let mut cut = block(&[5; 30], GSO_NONE, 0);
        cut[BLOCK_HEADER_BYTES + CAPTURED_AT] -= 1;
        assert!(packet(&cut).segment_run(0, &mut stats).is_none());
        assert_eq!(
            stats,
            UdpStats {
                uncategorised: UdpUncategorisedCounters { truncated: 3, ..Default::default() },
                ..UdpStats::default()
            }
        );
    }

    proptest! {
        #[test]
        fn arbitrary_blocks_never_panic(
            mut block in prop::collection::vec(any::<u8>(), 0..400),
            at in 0..500_usize,
            mac in 0..300_u16,
        ) {
            for (field, value) in [(MAC_AT, mac), (NET_AT, mac + 14)] {
                if let Some(bytes) = block.get_mut(at + field..at + field + 2) {
                    bytes.copy_from_slice(&value.to_ne_bytes());
                }
            }
            if let Some(packet) = Packet::parse(&block, at)
                && packet.segment_bytes.is_some()
            {
                prop_assert!(packet.start + packet.len <= block.len());
            }
        }
    }
}
