//! One ring of received packets for all sockets of a worker (a BPF ring buffer).
//!
//! A filter on each socket copies RTP and RTCP into memory that we share as they come in, so that
//! reading them takes no system call and visits no socket; the sockets keep ICE and DTLS. What a
//! filter sees is what its socket would have had (see [`filter`]), whatever the way it came. Where
//! the ring has no room, the socket has it after all, in its own buffer.

#[cfg(any(test, feature = "bench"))]
mod filled;
mod filter;
#[cfg(test)]
mod model;
mod probe;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::{Ordering, fence};

use rustix::time::{ClockId, clock_gettime};

use crate::memory::{PageMemory, ReadOnlyMemory};
use crate::segment_run::SegmentRun;
use crate::sys::bpf::{
    self, RINGBUF_BUSY, RINGBUF_DISCARDED, RINGBUF_HEADER_BYTES, RINGBUF_PRODUCER_PAGE,
};
use crate::wire::{array_at, u32_at};
use crate::{PacketRingRefusal, Received, SocketId, UdpStats};
use filter::{
    LEN_AT, PORTS_AT, PROTOCOL_AT, PortTable, RECORD_BYTES_MAX, RECORD_HEADER_BYTES, SEGMENT_AT,
    SOURCE_AT, TIME_AT,
};

pub(crate) use probe::probe;

/// Tells the ring from a receive buffer of a socket in [`Received::buffer`].
pub(crate) const IN_RING: u16 = 1 << 15;
/// No socket has this port.
const NOBODY: u32 = u32::MAX;

/// The least memory there is: for the longest record.
const RING_BYTES_MIN: usize = (RECORD_BYTES_MAX + RINGBUF_HEADER_BYTES).next_power_of_two();

/// How much a ring takes that may have so much: a power of two, as the kernel wants it.
pub(crate) fn ring_bytes(ring_bytes_max: usize) -> usize {
    1 << ring_bytes_max.max(RING_BYTES_MIN).ilog2()
}

/// See the module.
pub(crate) struct PacketRing {
    /// A page: how far we have read, for the kernel.
    consumer: PageMemory,
    /// A page: how far the kernel has written; and the ring, twice. Read only.
    ring: ReadOnlyMemory,
    page_bytes: usize,
    ring_bytes: usize,
    table: PortTable,
    program: OwnedFd,
    /// Index: port.
    socket_of_port: Vec<u32>,
    /// Index: socket.
    port_of_socket: Vec<Option<Port>>,
    /// Where the next record begins, counted since the ring was made.
    read: u64,
    /// As far the kernel may write again; the batch refers to what is between the two.
    given_back: u64,
    /// What was in the ring when this turn began ends here.
    turn_ends: u64,
    /// As many spills are counted.
    counted: u32,
    /// What there was in the ring before so many sockets found it full is in this turn.
    turned: u32,
    map: OwnedFd,
}

/// The port of a socket.
#[derive(Debug, Clone, Copy)]
struct Port {
    number: u16,
    /// What was in the ring before is not its own.
    since: u64,
}

impl PacketRing {
    pub(crate) fn new(ring_bytes_max: usize) -> Result<Self, PacketRingRefusal> {
        let ring_bytes = ring_bytes(ring_bytes_max);
        let page_bytes = rustix::param::page_size();
        let map = bpf::ring_buffer(ring_bytes as u32)?;
        let consumer = PageMemory::shared(&map, page_bytes)?;
        let ring_at = RINGBUF_PRODUCER_PAGE * page_bytes as u64;
        let ring = ReadOnlyMemory::shared(&map, ring_at, page_bytes + 2 * ring_bytes)?;
        let table = PortTable::new()?;
        let program = table.program(&map)?;
        Ok(Self::of((map, program, table), (consumer, ring), ring_bytes))
    }

    /// Of a map, a program and a table in the kernel, and of the map's memory.
    fn of(
        (map, program, table): (OwnedFd, OwnedFd, PortTable),
        (consumer, ring): (PageMemory, ReadOnlyMemory),
        ring_bytes: usize,
    ) -> Self {
        Self {
            consumer,
            ring,
            page_bytes: rustix::param::page_size(),
            ring_bytes,
            table,
            program,
            socket_of_port: vec![NOBODY; 1 << 16],
            port_of_socket: Vec::new(),
            read: 0,
            given_back: 0,
            turn_ends: 0,
            counted: 0,
            turned: 0,
            map,
        }
    }

    /// Readable when there is something in it.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.map
    }

    /// Takes RTP and RTCP for a socket from now on. One with the port of another one, at another
    /// address, receives it itself, as without a ring.
    pub(crate) fn add(&mut self, index: u32, socket: RawFd, address: SocketAddr) -> io::Result<()> {
        if self.socket_of_port[usize::from(address.port())] != NOBODY {
            return Ok(());
        }
        bpf::attach(&self.program, socket)?;
        self.own(index, address.port());
        Ok(())
    }

    /// From now on a socket has this port, which nobody has.
    fn own(&mut self, index: u32, number: u16) {
        self.socket_of_port[usize::from(number)] = index;
        if self.port_of_socket.len() <= index as usize {
            self.port_of_socket.resize(index as usize + 1, None);
        }
        self.port_of_socket[index as usize] = Some(Port { number, since: self.written() });
        self.table.want(number);
    }

    /// Forgets a socket. What the ring still has of it is counted, and not handed out.
    pub(crate) fn remove(&mut self, index: u32) {
        let port = self.port_of_socket.get_mut(index as usize).and_then(Option::take);
        let Some(port) = port else { return };
        self.table.release(port.number);
        self.socket_of_port[usize::from(port.number)] = NOBODY;
    }

    fn port(&self, index: u32) -> Option<u16> {
        Some((*self.port_of_socket.get(index as usize)?)?.number)
    }

    /// How much of what a socket counts as dropped is in the ring instead.
    pub(crate) fn moved(&self, index: u32) -> u32 {
        self.port(index).map_or(0, |port| self.table.taken(port))
    }

    /// Segment runs that were left to a socket so far for want of room; to be asked before it is
    /// read.
    pub(crate) fn spilled(&self, index: u32) -> u32 {
        self.port(index).map_or(0, |port| self.table.spilled(port))
    }

    /// A socket has been read to its end, when so many had been left to it.
    pub(crate) fn read_dry(&self, index: u32, spilled: u32) {
        if let Some(port) = self.port(index) {
            self.table.read_dry(port, spilled);
        }
    }

    /// Where a record is in the mapping.
    fn at(&self, position: u64) -> usize {
        self.page_bytes + (position as usize & (self.ring_bytes - 1))
    }

    /// How far the kernel has written, or is writing.
    fn written(&self) -> u64 {
        self.ring.load64(0)
    }

    /// The length of the next record, with its flags, if it is whole.
    fn next_record(&self) -> Option<u32> {
        if self.written() == self.read {
            return None;
        }
        let len = self.ring.load(self.at(self.read));
        (len & RINGBUF_BUSY == 0).then_some(len)
    }

    /// Whether there is anything to hand out.
    pub(crate) fn is_ready(&self) -> bool {
        self.next_record().is_some()
    }

    /// Gives room back to the kernel that has been handed out; the batch must be gone.
    pub(crate) fn give_back(&mut self) {
        if self.given_back != self.read {
            self.given_back = self.read;
            self.consumer.atomic64(0).store(self.read, Ordering::Release);
            // The kernel wakes us for the next record if it finds that we have read all before it;
            // so we look for that record only after it can find that.
            fence(Ordering::SeqCst);
        }
    }

    /// From now on [`drain`](Self::drain) hands out what is in the ring at this moment: all that is
    /// older than what the sockets have for want of room.
    pub(crate) fn begin_turn(&mut self) {
        self.turned = self.table.turned_in_all();
        self.turn_ends = self.written();
    }

    /// Hands out packets of this turn until the batch has as many as `wanted`, and tells `received`
    /// of each socket's segment runs how many datagrams they are. Whether the turn is over.
    pub(crate) fn drain(
        &mut self,
        wanted: usize,
        epoch: u16,
        batch: &mut Vec<Received>,
        stats: &mut UdpStats,
        mut received: impl FnMut(u32, usize),
    ) -> bool {
        if self.read >= self.turn_ends {
            return true;
        }
        let boot_unix_ns = boot_unix_ns();
        while batch.len() < wanted && self.read < self.turn_ends {
            // Somebody is still writing it, and wakes us afterwards: the turn ends here, and what has
            // spilled may overtake this one.
            let Some(len) = self.next_record() else {
                self.turn_ends = self.read;
                break;
            };
            let start = self.at(self.read) + RINGBUF_HEADER_BYTES;
            let bytes = (len & !RINGBUF_DISCARDED) as usize;
            if len & RINGBUF_DISCARDED == 0
                && let Some((index, run)) = self.run(start, bytes, boot_unix_ns, stats)
            {
                received(index, run.datagrams());
                stats.ring_runs_in += 1;
                run.hand_out(SocketId(index), epoch, batch, stats);
            }
            self.read += (RINGBUF_HEADER_BYTES + bytes).next_multiple_of(8) as u64;
        }
        self.read >= self.turn_ends
    }

    /// Reads the next record, and whose it is. `None`, and counted, where it is not to be handed out.
    fn run(
        &self,
        start: usize,
        bytes: usize,
        boot_unix_ns: u64,
        stats: &mut UdpStats,
    ) -> Option<(u32, SegmentRun)> {
        let Some(record) = Record::parse(self.ring.slice(start, bytes)) else {
            // Not as our own program writes it.
            stats.uncategorised.truncated += 1;
            return None;
        };
        let run = SegmentRun {
            source: record.source,
            received_at_unix_ns: boot_unix_ns.saturating_add(record.monotonic_ns),
            buffer: IN_RING,
            start: (start + RECORD_HEADER_BYTES) as u32,
            len: record.len,
            segment_bytes: record.segment_bytes.max(1),
        };
        let index = self.socket_of_port[usize::from(record.port)];
        // `NOBODY` is no socket's index.
        let port = self.port_of_socket.get(index as usize).copied().flatten();
        if port.is_none_or(|port| self.read < port.since) {
            stats.uncategorised.for_closed_sockets += run.datagrams() as u64;
            return None;
        }
        Some((index, run.unless(false, stats)?))
    }

    /// Whether a socket has found no room since this turn began and had none of that before: it may
    /// have what is newer than what is in the ring.
    pub(crate) fn has_turned(&self) -> bool {
        self.table.turned_in_all() != self.turned
    }

    /// Counts what has found no room.
    pub(crate) fn count_spilled(&mut self, stats: &mut UdpStats) {
        let spilled = self.table.spilled_in_all();
        stats.ring_spills += u64::from(spilled.wrapping_sub(self.counted));
        self.counted = spilled;
    }

    /// Bytes of a packet of the batch, at `offset` as [`Received::offset`] says.
    pub(crate) fn payload(&self, offset: usize, len: usize) -> &[u8] {
        // In the batch: between what was given back and what was read.
        let held = (self.read - self.given_back) as usize;
        let from = self.at(self.given_back);
        let back = offset.wrapping_sub(from) & (self.ring_bytes - 1);
        if back.saturating_add(len) > held {
            return &[];
        }
        self.ring.slice(offset, len)
    }
}

/// When the monotonic clock was zero, by the system's clock as it is now.
fn boot_unix_ns() -> u64 {
    let ns = |clock| {
        let time = clock_gettime(clock);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    };
    ns(ClockId::Realtime).saturating_sub(ns(ClockId::Monotonic))
}

/// A segment run in the ring, without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    monotonic_ns: u64,
    source: SocketAddr,
    /// Of our socket.
    port: u16,
    len: usize,
    segment_bytes: usize,
}

impl Record {
    /// `None` where it is not as the filter writes it. Pure: safe on any bytes.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let len = u32_at(bytes, LEN_AT)? as usize;
        if bytes.len() < RECORD_HEADER_BYTES.checked_add(len)? {
            return None;
        }
        let segment_bytes = match u32_at(bytes, SEGMENT_AT)? as usize {
            0 => len,
            segment_bytes => segment_bytes,
        };
        let source_port = u16::from_be_bytes(array_at(bytes, PORTS_AT)?);
        let protocol = u16::from_be_bytes(array_at(bytes, PROTOCOL_AT)?);
        let source = match i32::from(protocol) {
            libc::ETH_P_IP => {
                SocketAddr::from((Ipv4Addr::from(array_at::<4>(bytes, SOURCE_AT)?), source_port))
            }
            libc::ETH_P_IPV6 => {
                SocketAddr::from((Ipv6Addr::from(array_at::<16>(bytes, SOURCE_AT)?), source_port))
            }
            _ => return None,
        };
        Some(Self {
            monotonic_ns: u64::from_ne_bytes(array_at(bytes, TIME_AT)?),
            source,
            port: u16::from_be_bytes(array_at(bytes, PORTS_AT + 2)?),
            len,
            segment_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::filled::record;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_packet_and_a_segment_run_are_read() {
        let read = |bytes: &[u8]| Record::parse(bytes).unwrap();
        let single = read(&record(0x0800, &[127, 0, 0, 1], 10, 0, &[5; 30]));
        assert_eq!(
            single,
            Record {
                monotonic_ns: 7,
                source: "127.0.0.1:9".parse().unwrap(),
                port: 10,
                len: 30,
                segment_bytes: 30
            }
        );
        let run = read(&record(0x86dd, &Ipv6Addr::LOCALHOST.octets(), 10, 12, &[5; 30]));
        assert_eq!((run.source.to_string(), run.segment_bytes), ("[::1]:9".to_owned(), 12));
    }

    #[test]
    fn what_no_filter_writes_is_refused() {
        let good = record(0x0800, &[127, 0, 0, 1], 10, 0, &[5; 30]);
        assert_eq!(Record::parse(&good[..good.len() - 1]), None, "shorter than it says");
        assert_eq!(Record::parse(&record(0x0806, &[127, 0, 0, 1], 10, 0, &[5; 30])), None);
    }

    proptest! {
        #[test]
        fn arbitrary_records_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Some(record) = Record::parse(&bytes) {
                prop_assert!(RECORD_HEADER_BYTES + record.len <= bytes.len());
            }
        }
    }
}
