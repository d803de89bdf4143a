//! A packet ring that was filled without a kernel: what draining one takes can be counted, and what
//! comes of its records tried, without rights.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use super::filter::{
    LEN_AT, PORTS_AT, PROTOCOL_AT, PortTable, RECORD_HEADER_BYTES, SEGMENT_AT, SOURCE_AT, TIME_AT,
};
use super::{PacketRing, Port, ring_bytes};
use crate::memory::{PageMemory, ReadOnlyMemory};
use crate::sys::bpf::RINGBUF_HEADER_BYTES;

/// The port of socket 0; the others' follow.
const FIRST_PORT: u16 = 10_000;

/// A record as the filter writes it: from port 9 of a sender to `port`.
pub(super) fn record(
    protocol: u16,
    source: &[u8],
    port: u16,
    segment: u32,
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![0; RECORD_HEADER_BYTES];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(TIME_AT, &7u64.to_ne_bytes());
    put(SEGMENT_AT, &segment.to_ne_bytes());
    put(LEN_AT, &(payload.len() as u32).to_ne_bytes());
    put(PORTS_AT, &[9u16.to_be_bytes(), port.to_be_bytes()].concat());
    put(PROTOCOL_AT, &protocol.to_be_bytes());
    put(SOURCE_AT, source);
    bytes.extend(payload);
    bytes
}

impl PacketRing {
    /// One with segment runs for `sockets` sockets in turn, `runs` in all, each of so many datagrams
    /// of so many bytes, all for the next turn.
    pub(crate) fn filled(
        sockets: u16,
        runs: u32,
        datagrams: usize,
        bytes: usize,
    ) -> io::Result<Self> {
        let payload = vec![0x80; datagrams * bytes];
        let protocol = libc::ETH_P_IP as u16;
        let mut written = Vec::new();
        for run in 0..runs {
            let port = FIRST_PORT + (run % u32::from(sockets)) as u16;
            let source = Ipv4Addr::LOCALHOST.octets();
            let record = record(protocol, &source, port, bytes as u32, &payload);
            let mut header = [0; RINGBUF_HEADER_BYTES];
            header[..4].copy_from_slice(&(record.len() as u32).to_ne_bytes());
            written.extend(header);
            written.extend(record);
            written.resize(written.len().next_multiple_of(8), 0);
        }
        // A power of two, and all of it at once.
        let ring_bytes = ring_bytes(2 * written.len());
        let page_bytes = rustix::param::page_size();
        let mut memory = PageMemory::new(page_bytes + ring_bytes)?;
        memory.write(0, &(written.len() as u64).to_ne_bytes());
        memory.write(page_bytes, &written);
        let mut new = Self::without_kernel(memory, ring_bytes)?;
        for index in 0..sockets {
            new.own(index.into(), FIRST_PORT + index);
            new.port_of_socket[usize::from(index)] =
                Some(Port { number: FIRST_PORT + index, since: 0 });
        }
        new.begin_turn();
        Ok(new)
    }

    /// One over this memory: a page that says how far was written, and the ring.
    pub(super) fn without_kernel(memory: PageMemory, ring_bytes: usize) -> io::Result<Self> {
        // Never asked for anything.
        let nothing = || Ok::<OwnedFd, io::Error>(File::open("/dev/null")?.into());
        let in_kernel = (nothing()?, nothing()?, PortTable::of(nothing()?)?);
        let consumer = PageMemory::new(rustix::param::page_size())?;
        Ok(Self::of(in_kernel, (consumer, ReadOnlyMemory::of(memory)), ring_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Received, UdpStats};

    /// How many datagrams each socket got, how many runs, and whether the turn was over.
    fn drained(ring: &mut PacketRing, wanted: usize) -> (Vec<usize>, usize, bool) {
        let (mut batch, mut stats) = (Vec::new(), UdpStats::default());
        let mut sockets = vec![0; ring.port_of_socket.len()];
        let mut runs = 0;
        let over = ring.drain(wanted, 0, &mut batch, &mut stats, |socket, datagrams| {
            sockets[socket as usize] += datagrams;
            runs += 1;
        });
        assert_eq!(stats.datagrams_in, batch.len() as u64);
        let whole = |r: &Received| ring.payload(r.offset as usize, r.len.into()) == [0x80; 100];
        assert!(batch.iter().all(whole));
        (sockets, runs, over)
    }

    #[test]
    fn a_turn_ends_with_what_was_there_when_it_began() {
        let mut ring = PacketRing::filled(3, 7, 2, 100).unwrap();
        assert_eq!(drained(&mut ring, 5), (vec![2, 2, 2], 3, false), "whole runs");
        ring.give_back();
        assert_eq!(drained(&mut ring, 100), (vec![4, 2, 2], 4, true));
        ring.give_back();
        assert!(!ring.is_ready());
        assert_eq!(drained(&mut ring, 100), (vec![0; 3], 0, true));
    }

    #[test]
    fn what_was_given_back_is_nobodys() {
        let mut ring = PacketRing::filled(1, 2, 1, 100).unwrap();
        let (mut batch, mut stats) = (Vec::new(), UdpStats::default());
        ring.drain(1, 0, &mut batch, &mut stats, |_, _| {});
        let at = batch[0].offset as usize;
        assert_eq!(ring.payload(at, 100), [0x80; 100]);
        assert_eq!(ring.payload(at, 105), [0u8; 0], "the next record is not read yet");
        ring.give_back();
        assert_eq!(ring.payload(at, 100), [0u8; 0]);
    }

    #[test]
    fn what_was_for_a_socket_that_left_is_counted() {
        let mut ring = PacketRing::filled(2, 4, 3, 100).unwrap();
        ring.remove(1);
        let (mut batch, mut stats) = (Vec::new(), UdpStats::default());
        assert!(ring.drain(100, 0, &mut batch, &mut stats, |_, _| {}));
        assert_eq!((batch.len(), stats.uncategorised.for_closed_sockets), (6, 6));
    }
}
