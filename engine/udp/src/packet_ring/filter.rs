//! Which datagrams go through the packet ring: two small BPF programs and the table they share.
//!
//! The ring's program takes RTP and RTCP (RFC 7983: first byte 128 to 191) for the ports in the
//! table; the one on each socket refuses what the ring has taken, so that everything comes once.
//! STUN and DTLS stay with the sockets. Both count what they decided, by port, which tells later
//! what was lost between them.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::memory::PageMemory;
use crate::sys::bpf::{self, Instruction};

/// One entry a port.
const PORTS: usize = 1 << 16;
/// Of an entry: `wanted`, `taken`, `refused`, `address`, each 32 bits.
const ENTRY_BYTES: usize = 16;
const WANTED_AT: i16 = 0;
const TAKEN_AT: i16 = 4;
const REFUSED_AT: i16 = 8;
/// As in a packet; zero for any.
const ADDRESS_AT: i16 = 12;

/// IPv4 and UDP header, and the first byte of the payload.
const HEADERS_BYTES: i32 = 20 + 8 + 1;
/// Length of an Ethernet header. Loopback has one, too.
const ETHERNET_BYTES: i32 = 14;
/// First byte of an IPv4 header without options.
const IPV4_NO_OPTIONS: i32 = 0x45;

/// What was counted for a port, both wrapping at 2^32: segment runs, as the kernel keeps
/// them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PortCounters {
    /// Taken by the ring's program: in the ring, or dropped because it was full.
    pub(super) taken: u32,
    /// Refused by the socket's program, as the ring should have them.
    pub(super) refused: u32,
}

impl PortCounters {
    /// Refused and not taken, at this moment: fragments put together again after the ring has seen
    /// them, or datagrams whose address was changed on the way; or one that only one of the two has
    /// seen yet.
    pub(super) fn missed(self) -> u32 {
        u32::try_from(self.refused.wrapping_sub(self.taken).cast_signed()).unwrap_or(0)
    }
}

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

    fn field(&self, port: u16, at: i16) -> &AtomicU32 {
        self.memory.atomic(usize::from(port) * ENTRY_BYTES + at as usize)
    }

    /// Takes what comes for this address from now on; one that has no IP takes all of the port. Its
    /// counters start again. A packet that has passed the ring and not its socket at this moment is
    /// lost, and counted.
    pub(super) fn want(&self, address: SocketAddrV4) {
        let port = address.port();
        let ip = u32::from_ne_bytes(address.ip().octets());
        self.field(port, ADDRESS_AT).store(ip, Ordering::Relaxed);
        self.field(port, TAKEN_AT).store(0, Ordering::Relaxed);
        self.field(port, REFUSED_AT).store(0, Ordering::Relaxed);
        self.field(port, WANTED_AT).store(1, Ordering::Relaxed);
    }

    /// Leaves it to its socket again.
    pub(super) fn release(&self, port: u16) {
        self.field(port, WANTED_AT).store(0, Ordering::Relaxed);
    }

    /// As they are now.
    pub(super) fn counters(&self, port: u16) -> PortCounters {
        let refused = self.field(port, REFUSED_AT).load(Ordering::Acquire);
        PortCounters { taken: self.field(port, TAKEN_AT).load(Ordering::Acquire), refused }
    }

    /// The program for the packet socket (`SOCK_RAW`): what the ring takes.
    pub(super) fn ring_program(&self) -> io::Result<OwnedFd> {
        bpf::socket_filter(&ring_program(self.fd.as_raw_fd()))
    }

    /// The program for UDP sockets whose ports are in the table: what they leave to the ring.
    pub(super) fn socket_program(&self) -> io::Result<OwnedFd> {
        bpf::socket_filter(&socket_program(self.fd.as_raw_fd()))
    }
}

/// Where on the stack the headers are copied to, and the key of the table.
const HEADERS_AT: i16 = -32;
const KEY_AT: i16 = -36;
/// Longest result a filter can have: all bytes.
const ALL: i32 = -1;

/// For the packet socket, whose data begins with the link layer's header, if the device has one.
fn ring_program(table: RawFd) -> Vec<Instruction> {
    use bpf::*;
    let mut code = Assembler::default();
    code.push(mov(R6, R1));
    // For this host (`PACKET_HOST`), not overheard.
    code.push(load32(R0, R6, SKB_PACKET_TYPE_AT));
    code.refuse_unless_equal(R0, 0);
    // A link layer's header begins with the destination's address, and the first byte of an IPv4
    // header would be that of a multicast address there.
    code.push(mov_immediate(R9, 0));
    code.copy_data(R9, 1);
    code.push(load8(R0, R10, HEADERS_AT));
    code.push(jump_if_equal(R0, IPV4_NO_OPTIONS, 1));
    code.push(mov_immediate(R9, ETHERNET_BYTES));
    code.copy_data(R9, HEADERS_BYTES);
    code.push(load8(R0, R10, HEADERS_AT));
    code.refuse_unless_equal(R0, IPV4_NO_OPTIONS);
    code.push(load8(R0, R10, HEADERS_AT + 9));
    code.refuse_unless_equal(R0, libc::IPPROTO_UDP);
    // Whole: neither "more fragments" nor an offset.
    code.push(load16(R0, R10, HEADERS_AT + 6));
    code.push(from_big_endian16(R0));
    code.push(and_immediate(R0, 0x3fff));
    code.refuse_unless_equal(R0, 0);
    code.refuse_unless_media(HEADERS_AT + 28);
    code.entry_if_wanted(table, HEADERS_AT + 22);
    // Of this address, or bound to any.
    code.push(load32(R1, R0, ADDRESS_AT));
    code.push(jump_if_equal(R1, 0, 2));
    code.push(load32(R2, R10, HEADERS_AT + 16));
    code.refuse_unless_same(R1, R2);
    code.count(TAKEN_AT);
    code.push(mov_immediate(R0, ALL));
    code.push(EXIT);
    code.finish(0)
}

/// For a UDP socket, whose data begins with the UDP header.
fn socket_program(table: RawFd) -> Vec<Instruction> {
    use bpf::*;
    let mut code = Assembler::default();
    code.push(mov(R6, R1));
    // Options are the ring's reason to leave a datagram, too.
    code.copy_network_header(1);
    code.push(load8(R0, R10, HEADERS_AT));
    code.refuse_unless_equal(R0, IPV4_NO_OPTIONS);
    code.push(mov_immediate(R9, 0));
    code.copy_data(R9, 9);
    code.refuse_unless_media(HEADERS_AT + 8);
    code.entry_if_wanted(table, HEADERS_AT + 2);
    code.count(REFUSED_AT);
    code.push(mov_immediate(R0, 0));
    code.push(EXIT);
    code.finish(ALL)
}

/// Puts a program together. "Refuse" is to leave for its last two instructions, whatever they
/// return.
#[derive(Default)]
struct Assembler {
    code: Vec<Instruction>,
    /// Jumps to the end.
    refusals: Vec<usize>,
}

impl Assembler {
    fn push(&mut self, instruction: Instruction) {
        self.code.push(instruction);
    }

    fn refuse_unless_equal(&mut self, register: u8, value: i32) {
        self.refusals.push(self.code.len());
        self.push(bpf::jump_if_not_equal(register, value, 0));
    }

    fn refuse_if_equal(&mut self, register: u8, value: i32) {
        self.refusals.push(self.code.len());
        self.push(bpf::jump_if_equal(register, value, 0));
    }

    fn refuse_unless_same(&mut self, one: u8, other: u8) {
        self.refusals.push(self.code.len());
        self.push(bpf::jump_unless_same(one, other, 0));
    }

    /// Copies `len` bytes of the packet's data from `offset` (a register) to the stack.
    fn copy_data(&mut self, offset: u8, len: i32) {
        use bpf::*;
        self.push(mov(R1, R6));
        self.push(mov(R2, offset));
        self.stack_address(R3, HEADERS_AT);
        self.push(mov_immediate(R4, len));
        self.push(call(SKB_LOAD_BYTES));
        self.refuse_unless_equal(R0, 0);
    }

    /// Copies `len` bytes of the network header to the stack.
    fn copy_network_header(&mut self, len: i32) {
        use bpf::*;
        self.push(mov(R1, R6));
        self.push(mov_immediate(R2, 0));
        self.stack_address(R3, HEADERS_AT);
        self.push(mov_immediate(R4, len));
        self.push(mov_immediate(R5, HEADER_START_NETWORK));
        self.push(call(SKB_LOAD_BYTES_RELATIVE));
        self.refuse_unless_equal(R0, 0);
    }

    fn stack_address(&mut self, register: u8, at: i16) {
        self.push(bpf::mov(register, bpf::R10));
        self.push(bpf::add_immediate(register, at.into()));
    }

    /// Goes on with RTP and RTCP only.
    fn refuse_unless_media(&mut self, first_byte_at: i16) {
        use bpf::*;
        self.push(load8(R0, R10, first_byte_at));
        self.push(and_immediate(R0, 0xc0));
        self.refuse_unless_equal(R0, 0x80);
    }

    /// Goes on, with its entry in `R0`, where the table wants the port.
    fn entry_if_wanted(&mut self, table: RawFd, port_at: i16) {
        use bpf::*;
        self.push(load16(R0, R10, port_at));
        self.push(from_big_endian16(R0));
        self.push(store32(R10, KEY_AT, R0));
        self.code.extend(load_map(R1, table));
        self.stack_address(R2, KEY_AT);
        self.push(call(MAP_LOOKUP_ELEMENT));
        self.refuse_if_equal(R0, 0);
        self.push(load32(R1, R0, WANTED_AT));
        self.refuse_if_equal(R1, 0);
    }

    /// Adds one to a counter of the entry in `R0`.
    fn count(&mut self, counter: i16) {
        self.push(bpf::mov_immediate(bpf::R1, 1));
        self.push(bpf::atomic_add32(bpf::R0, counter, bpf::R1));
    }

    /// Ends with what refusals return.
    fn finish(mut self, refused: i32) -> Vec<Instruction> {
        let end = self.code.len();
        for at in self.refusals {
            self.code[at].offset = (end - at - 1) as i16;
        }
        self.code.push(bpf::mov_immediate(bpf::R0, refused));
        self.code.push(bpf::EXIT);
        self.code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_is_refused_and_not_taken() {
        let missed = |taken, refused| PortCounters { taken, refused }.missed();
        assert_eq!(missed(5, 5), 0);
        assert_eq!(missed(6, 5), 0, "taken and then stopped by a firewall, or on its way");
        assert_eq!(missed(5, 7), 2);
        assert_eq!(missed(2, u32::MAX), 0, "taken has wrapped already");
    }
}
