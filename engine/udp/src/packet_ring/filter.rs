//! Which datagrams go through the packet ring: a small BPF program on each socket, and the table
//! that it shares with us.
//!
//! The program is a socket filter, so it runs for what the socket is about to have: behind the
//! host's firewall, its address translation, IPsec and reassembly, and with the UDP checksum
//! verified (`udp_queue_rcv_one_skb`, net/ipv4/udp.c). It copies RTP and RTCP (RFC 7983: first byte
//! 128 to 191) into the ring and keeps it from the socket. Everything else it leaves to the socket,
//! and media as well that the ring has no room for.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::PacketRingRefusal;
use crate::memory::PageMemory;
use crate::sys::bpf::{self, Instruction};

/// One entry a port. That of port 0, which no socket has, counts for all.
const PORTS: usize = 1 << 16;
/// Of an entry: `wanted`, `read`, `taken`, `spilled`, each 32 bits.
const ENTRY_BYTES: usize = 16;
const WANTED_AT: i16 = 0;
/// As many of the segment runs that were left to the socket have been read from it. While those are
/// fewer than all, the socket has media that is newer than all of its in the ring, and it has what
/// follows, too: so a sender's datagrams stay in order.
const READ_AT: i16 = 4;
/// Segment runs that went into the ring and not to the socket; wraps.
const TAKEN_AT: i16 = 8;
/// Segment runs that were left to the socket because of a full ring; wraps.
const SPILLED_AT: i16 = 12;
/// Of the entry that counts for all, instead of `taken`: times that a socket which had nothing of
/// this began to; wraps.
const TURNED_AT: i16 = TAKEN_AT;

/// A record of the ring: what the program says about a segment run, and then its payload.
pub(super) const TIME_AT: usize = 0;
pub(super) const SEGMENT_AT: usize = 8;
pub(super) const LEN_AT: usize = 12;
/// Source and destination, in network order.
pub(super) const PORTS_AT: usize = 16;
/// As in a link layer's header, in network order.
pub(super) const PROTOCOL_AT: usize = 20;
pub(super) const SOURCE_AT: usize = 24;
pub(super) const RECORD_HEADER_BYTES: usize = 40;
/// Room for the payload of a record, from which the smallest is taken that is enough: the kernel
/// has to know how much is written when it checks the program.
const ROOMS: [i32; 9] = [128, 320, 640, 1_280, 2_560, 5_120, 10_240, 24_576, 65_536];
/// The longest record, for which a ring must have room.
pub(super) const RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES + (1 << 16);

const UDP_HEADER_BYTES: i32 = 8;
/// Where the source's address is in an IPv4 and in an IPv6 header.
const IPV4_SOURCE_AT: i32 = 12;
const IPV6_SOURCE_AT: i32 = 8;

/// The table, shared with the kernel.
#[derive(Debug)]
pub(super) struct PortTable {
    fd: OwnedFd,
    memory: PageMemory,
}

impl PortTable {
    pub(super) fn new() -> io::Result<Self> {
        let fd = bpf::array(ENTRY_BYTES as u32, PORTS as u32)?;
        let memory = PageMemory::shared(&fd, PORTS * ENTRY_BYTES)?;
        Ok(Self { fd, memory })
    }

    /// One that no kernel knows.
    #[cfg(any(test, feature = "bench"))]
    pub(super) fn of(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { fd, memory: PageMemory::new(PORTS * ENTRY_BYTES)? })
    }

    fn field(&self, port: u16, at: i16) -> &AtomicU32 {
        self.memory.atomic(usize::from(port) * ENTRY_BYTES + at as usize)
    }

    /// Takes what comes for the socket with this port from now on. Its counters start again.
    pub(super) fn want(&self, port: u16) {
        for at in [READ_AT, TAKEN_AT, SPILLED_AT] {
            self.field(port, at).store(0, Ordering::Relaxed);
        }
        self.field(port, WANTED_AT).store(1, Ordering::Release);
    }

    /// Leaves it to its socket again.
    pub(super) fn release(&self, port: u16) {
        self.field(port, WANTED_AT).store(0, Ordering::Relaxed);
    }

    /// Segment runs that were left to the socket with this port. To be asked before it is read, for
    /// [`read_dry`](Self::read_dry). Wraps.
    pub(super) fn spilled(&self, port: u16) -> u32 {
        self.field(port, SPILLED_AT).load(Ordering::Acquire)
    }

    /// The socket has been read to its end, and so has the first `spilled` of what was left to it:
    /// where that is all by now, what follows may go through the ring again. (What the filter has
    /// counted on another core, and the kernel has not queued yet, may be overtaken by that.)
    pub(super) fn read_dry(&self, port: u16, spilled: u32) {
        let read = self.field(port, READ_AT);
        if read.load(Ordering::Relaxed) != spilled {
            read.store(spilled, Ordering::Release);
        }
    }

    /// Segment runs of this port that went into the ring, which its socket counts as dropped.
    /// Wraps.
    pub(super) fn taken(&self, port: u16) -> u32 {
        self.field(port, TAKEN_AT).load(Ordering::Acquire)
    }

    /// Segment runs of all sockets for which there was no room. Wraps.
    pub(super) fn spilled_in_all(&self) -> u32 {
        self.field(0, SPILLED_AT).load(Ordering::Relaxed)
    }

    /// Times that a socket which had read all of this, or had none, found no room. Wraps.
    pub(super) fn turned_in_all(&self) -> u32 {
        self.field(0, TURNED_AT).load(Ordering::Acquire)
    }

    /// The program for sockets whose ports are in the table.
    pub(super) fn program(&self, ring: &OwnedFd) -> Result<OwnedFd, PacketRingRefusal> {
        load(&program(self.fd.as_raw_fd(), ring.as_raw_fd()))
    }
}

fn load(code: &[Instruction]) -> Result<OwnedFd, PacketRingRefusal> {
    bpf::socket_filter(code).map_err(|error| match error.raw_os_error() {
        Some(libc::EACCES) => PacketRingRefusal::Verifier(bpf::verifier_says(code)),
        _ => error.into(),
    })
}

/// Where on the stack things are: the header of the record, the first bytes of the packet, the key
/// of the table.
const RECORD_AT: i16 = -48;
const PACKET_AT: i16 = -64;
const KEY_AT: i16 = -72;
/// Results of a filter: all bytes, and none.
const ALL: i32 = -1;
const NONE: i32 = 0;

/// Places that are jumped to, all of them further on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    /// The packet stays with the socket.
    Leave,
    /// The same, because there is no room, which is counted.
    Turn,
    /// The same, because the socket has what came before.
    Spill,
    /// The same; the record that was begun is thrown away.
    Discard,
    /// The record has its payload.
    Submit,
    /// IPv4 is dealt with, or IPv6.
    SourceRead,
    /// Where the next [`ROOMS`] is tried, or the source of IPv6.
    Next,
}

/// The packet's data begins with its UDP header. `R6` is the packet, `R7` the record, `R8` the
/// payload's length, `R9` the entry of the table.
fn program(table: RawFd, ring: RawFd) -> Vec<Instruction> {
    use bpf::*;
    let mut code = Assembler::default();
    code.push(mov(R6, R1));
    code.push(load32(R8, R6, SKB_LEN_AT));
    code.push(mov_immediate(R2, 0));
    code.load_bytes(SKB_LOAD_BYTES, PACKET_AT, UDP_HEADER_BYTES + 1);
    // RTP and RTCP only.
    code.push(load8(R0, R10, PACKET_AT + UDP_HEADER_BYTES as i16));
    code.push(and_immediate(R0, 0xc0));
    code.to(Label::Leave, jump_if_not_equal(R0, 0x80, 0));
    code.push(load16(R0, R10, PACKET_AT + 2));
    code.push(from_big_endian16(R0));
    code.entry(table);
    code.push(mov(R9, R0));
    code.push(load32(R0, R9, WANTED_AT));
    code.to(Label::Leave, jump_if_equal(R0, 0, 0));
    code.push(load32(R0, R9, SPILLED_AT));
    code.push(load32(R1, R9, READ_AT));
    code.to(Label::Spill, jump_if_other(R0, R1, 0));

    code.push(call(KTIME_GET_NS));
    code.push(store64(R10, RECORD_AT + TIME_AT as i16, R0));
    code.push(load32(R0, R10, PACKET_AT));
    code.push(store32(R10, RECORD_AT + PORTS_AT as i16, R0));
    // A length of segments that nobody has counted is not one of UDP's (the old UFO, by way of a
    // virtual network card): the kernel tells the socket so, and not us.
    code.push(load32(R1, R6, SKB_GSO_SIZE_AT));
    code.push(store32(R10, RECORD_AT + SEGMENT_AT as i16, R1));
    code.push(jump_if_equal(R1, 0, 2));
    code.push(load32(R1, R6, SKB_GSO_SEGS_AT));
    code.to(Label::Leave, jump_if_equal(R1, 0, 0));
    code.source();
    // Behind the UDP header, with at least the byte that was looked at.
    code.push(add_immediate(R8, -UDP_HEADER_BYTES));
    code.push(store32(R10, RECORD_AT + LEN_AT as i16, R8));
    // Not `jump_if_equal(R8, 0)`, from which the kernel before Linux 6.8 does not learn that what
    // goes on is above zero; it has to know that of a length (`reg_set_min_max`,
    // kernel/bpf/verifier.c).
    code.to(Label::Leave, jump_if_below(R8, 1, 0));

    for room in ROOMS {
        code.to(Label::Next, jump_if_above(R8, room, 0));
        code.extend(load_map(R1, ring));
        code.push(mov_immediate(R2, RECORD_HEADER_BYTES as i32 + room));
        code.push(mov_immediate(R3, 0));
        code.push(call(RINGBUF_RESERVE));
        code.to(Label::Turn, jump_if_equal(R0, 0, 0));
        code.push(mov(R7, R0));
        code.push(mov(R1, R6));
        code.push(mov_immediate(R2, UDP_HEADER_BYTES));
        code.push(mov(R3, R7));
        code.push(add_immediate(R3, RECORD_HEADER_BYTES as i32));
        code.push(mov(R4, R8));
        code.push(call(SKB_LOAD_BYTES));
        code.to(Label::Discard, jump_if_not_equal(R0, 0, 0));
        code.to(Label::Submit, jump(0));
        code.here(Label::Next);
    }
    // Longer than any datagram.
    code.to(Label::Leave, jump(0));

    code.here(Label::Submit);
    for at in (0..RECORD_HEADER_BYTES as i16).step_by(8) {
        code.push(load64(R1, R10, RECORD_AT + at));
        code.push(store64(R7, at, R1));
    }
    code.push(mov(R1, R7));
    // Wakes the reader if it had read everything.
    code.push(mov_immediate(R2, 0));
    code.push(call(RINGBUF_SUBMIT));
    code.count(R9, TAKEN_AT);
    code.end(NONE);

    code.here(Label::Discard);
    code.push(mov(R1, R7));
    code.push(mov_immediate(R2, 0));
    code.push(call(RINGBUF_DISCARD));
    code.end(ALL);

    code.here(Label::Turn);
    code.push(mov_immediate(R0, 0));
    code.entry(table);
    code.count(R0, TURNED_AT);
    code.here(Label::Spill);
    code.count(R9, SPILLED_AT);
    code.push(mov_immediate(R0, 0));
    code.entry(table);
    code.count(R0, SPILLED_AT);
    code.here(Label::Leave);
    code.end(ALL);
    code.code
}

/// Puts a program together, front to back.
#[derive(Default)]
struct Assembler {
    code: Vec<Instruction>,
    /// Jumps whose label has not come yet.
    open: Vec<(Label, usize)>,
}

impl Assembler {
    fn push(&mut self, instruction: Instruction) {
        self.code.push(instruction);
    }

    fn extend(&mut self, instructions: [Instruction; 2]) {
        self.code.extend(instructions);
    }

    /// A jump to where the label will be.
    fn to(&mut self, label: Label, jump: Instruction) {
        self.open.push((label, self.code.len()));
        self.push(jump);
    }

    /// All jumps to this label so far end here.
    fn here(&mut self, label: Label) {
        let end = self.code.len();
        for (_, at) in self.open.extract_if(.., |(open, _)| *open == label) {
            self.code[at].offset = (end - at - 1) as i16;
        }
    }

    /// Copies `len` bytes from the offset in `R2` to the stack, by one of the two helpers that do.
    fn load_bytes(&mut self, helper: i32, to: i16, len: i32) {
        use bpf::*;
        self.push(mov(R1, R6));
        self.stack_address(R3, to);
        self.push(mov_immediate(R4, len));
        self.push(call(helper));
        self.to(Label::Leave, jump_if_not_equal(R0, 0, 0));
    }

    fn stack_address(&mut self, register: u8, at: i16) {
        self.push(bpf::mov(register, bpf::R10));
        self.push(bpf::add_immediate(register, at.into()));
    }

    /// Writes the source's address into the header of the record, and of what protocol it is.
    fn source(&mut self) {
        use bpf::*;
        const SOURCE: i16 = RECORD_AT + SOURCE_AT as i16;
        self.push(mov_immediate(R1, 0));
        self.push(store64(R10, SOURCE, R1));
        self.push(store64(R10, SOURCE + 8, R1));
        self.push(load32(R7, R6, SKB_PROTOCOL_AT));
        self.push(store32(R10, RECORD_AT + PROTOCOL_AT as i16, R7));
        self.push(mov_immediate(R5, HEADER_START_NETWORK));
        self.to(Label::Next, jump_if_not_equal(R7, i32::from((libc::ETH_P_IP as u16).to_be()), 0));
        self.push(mov_immediate(R2, IPV4_SOURCE_AT));
        self.load_bytes(SKB_LOAD_BYTES_RELATIVE, SOURCE, 4);
        self.to(Label::SourceRead, jump(0));
        self.here(Label::Next);
        let ipv6 = i32::from((libc::ETH_P_IPV6 as u16).to_be());
        self.to(Label::Leave, jump_if_not_equal(R7, ipv6, 0));
        self.push(mov_immediate(R2, IPV6_SOURCE_AT));
        self.load_bytes(SKB_LOAD_BYTES_RELATIVE, SOURCE, 16);
        // A link-local address (fe80::/10) means nothing without its link, which the socket tells.
        self.push(load16(R0, R10, SOURCE));
        self.push(from_big_endian16(R0));
        self.push(and_immediate(R0, 0xffc0));
        self.to(Label::Leave, jump_if_equal(R0, 0xfe80, 0));
        self.here(Label::SourceRead);
    }

    /// Goes on with the entry of the port in `R0`, in `R0`.
    fn entry(&mut self, table: RawFd) {
        use bpf::*;
        self.push(store32(R10, KEY_AT, R0));
        self.extend(load_map(R1, table));
        self.stack_address(R2, KEY_AT);
        self.push(call(MAP_LOOKUP_ELEMENT));
        self.to(Label::Leave, jump_if_equal(R0, 0, 0));
    }

    /// Adds one to a counter of the entry in `entry`.
    fn count(&mut self, entry: u8, counter: i16) {
        self.push(bpf::mov_immediate(bpf::R1, 1));
        self.push(bpf::atomic_add32(entry, counter, bpf::R1));
    }

    fn end(&mut self, result: i32) {
        self.push(bpf::mov_immediate(bpf::R0, result));
        self.push(bpf::EXIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_every_length() {
        assert!(ROOMS.is_sorted() && ROOMS.iter().all(|room| room % 8 == 0));
        assert_eq!(RECORD_BYTES_MAX, RECORD_HEADER_BYTES + ROOMS[ROOMS.len() - 1] as usize);
    }

    /// A refusal says why, and is not taken for a lack of rights.
    #[test]
    fn what_the_verifier_refuses_is_told_in_its_words() {
        // Nobody has written to that register.
        match load(&[bpf::mov(bpf::R0, bpf::R5), bpf::EXIT]) {
            Err(PacketRingRefusal::Verifier(why)) => assert_eq!(why, "R5 !read_ok"),
            Err(refused @ PacketRingRefusal::NotPermitted) => stampede_testing::skip(refused),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_jump_has_its_label() {
        let mut code = Assembler::default();
        code.to(Label::Leave, bpf::jump(0));
        code.to(Label::Next, bpf::jump(0));
        code.here(Label::Next);
        code.push(bpf::EXIT);
        code.here(Label::Leave);
        assert_eq!((code.code[0].offset, code.code[1].offset), (2, 0));
        assert!(code.open.is_empty());
    }
}
