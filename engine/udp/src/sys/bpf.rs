//! As much of bpf(2) as a socket filter with a table needs: no loader, for there is nothing to
//! relocate.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Commands, types and flags of linux/bpf.h.
const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_RINGBUF: u32 = 27;
const BPF_F_MMAPABLE: u32 = 1 << 10;
const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
const BPF_PSEUDO_MAP_FD: u8 = 1;
/// asm-generic/socket.h; libc has it for some targets only.
const SO_ATTACH_BPF: i32 = 50;
/// The helpers called need no GPL.
const LICENSE: &CStr = c"MIT OR Apache-2.0";

/// Helpers of linux/bpf.h.
pub(crate) const MAP_LOOKUP_ELEMENT: i32 = 1;
pub(crate) const KTIME_GET_NS: i32 = 5;
pub(crate) const SKB_LOAD_BYTES: i32 = 26;
pub(crate) const SKB_LOAD_BYTES_RELATIVE: i32 = 68;
pub(crate) const RINGBUF_RESERVE: i32 = 131;
pub(crate) const RINGBUF_SUBMIT: i32 = 132;
pub(crate) const RINGBUF_DISCARD: i32 = 133;
/// `BPF_HDR_START_NET`.
pub(crate) const HEADER_START_NETWORK: i32 = 1;
/// Offsets in `struct __sk_buff`.
pub(crate) const SKB_LEN_AT: i16 = 0;
pub(crate) const SKB_PROTOCOL_AT: i16 = 16;
pub(crate) const SKB_GSO_SEGS_AT: i16 = 164;
pub(crate) const SKB_GSO_SIZE_AT: i16 = 176;

/// A ring buffer's mapping begins with a page that says where its reader is, which the reader
/// writes. From here on it is read only: a page that says where its writers are, and the ring, twice,
/// so that nothing in it is ever cut in two (kernel/bpf/ringbuf.c).
pub(crate) const RINGBUF_PRODUCER_PAGE: u64 = 1;
/// Before each record: its length in 32 bits, with two flags, and 32 bits of the kernel's own.
pub(crate) const RINGBUF_HEADER_BYTES: usize = 8;
/// Somebody is still writing it.
pub(crate) const RINGBUF_BUSY: u32 = 1 << 31;
/// Its writer thought better of it.
pub(crate) const RINGBUF_DISCARDED: u32 = 1 << 30;

pub(crate) const R0: u8 = 0;
pub(crate) const R1: u8 = 1;
pub(crate) const R2: u8 = 2;
pub(crate) const R3: u8 = 3;
pub(crate) const R4: u8 = 4;
pub(crate) const R5: u8 = 5;
pub(crate) const R6: u8 = 6;
pub(crate) const R7: u8 = 7;
pub(crate) const R8: u8 = 8;
pub(crate) const R9: u8 = 9;
/// The frame pointer.
pub(crate) const R10: u8 = 10;

/// `struct bpf_insn` (RFC 9669 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    opcode: u8,
    /// Source register in the upper half, destination in the lower.
    registers: u8,
    pub(crate) offset: i16,
    immediate: i32,
}

const fn of(opcode: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { opcode, registers: src << 4 | dst, offset, immediate }
}

/// `dst = src`
pub(crate) const fn mov(dst: u8, src: u8) -> Instruction {
    of(0xbf, dst, src, 0, 0)
}

/// `dst = immediate`, sign-extended
pub(crate) const fn mov_immediate(dst: u8, immediate: i32) -> Instruction {
    of(0xb7, dst, 0, 0, immediate)
}

/// `dst += immediate`
pub(crate) const fn add_immediate(dst: u8, immediate: i32) -> Instruction {
    of(0x07, dst, 0, 0, immediate)
}

/// `dst &= immediate`
pub(crate) const fn and_immediate(dst: u8, immediate: i32) -> Instruction {
    of(0x57, dst, 0, 0, immediate)
}

/// `dst = be16toh(dst)`
pub(crate) const fn from_big_endian16(dst: u8) -> Instruction {
    of(0xdc, dst, 0, 0, 16)
}

/// `dst = *(u8 *)(src + offset)`
pub(crate) const fn load8(dst: u8, src: u8, offset: i16) -> Instruction {
    of(0x71, dst, src, offset, 0)
}

/// `dst = *(u16 *)(src + offset)`
pub(crate) const fn load16(dst: u8, src: u8, offset: i16) -> Instruction {
    of(0x69, dst, src, offset, 0)
}

/// `dst = *(u32 *)(src + offset)`
pub(crate) const fn load32(dst: u8, src: u8, offset: i16) -> Instruction {
    of(0x61, dst, src, offset, 0)
}

/// `*(u32 *)(dst + offset) = src`
pub(crate) const fn store32(dst: u8, offset: i16, src: u8) -> Instruction {
    of(0x63, dst, src, offset, 0)
}

/// `*(u32 *)(dst + offset) += src`, atomically
pub(crate) const fn atomic_add32(dst: u8, offset: i16, src: u8) -> Instruction {
    of(0xc3, dst, src, offset, 0)
}

/// `dst = *(u64 *)(src + offset)`
pub(crate) const fn load64(dst: u8, src: u8, offset: i16) -> Instruction {
    of(0x79, dst, src, offset, 0)
}

/// `*(u64 *)(dst + offset) = src`
pub(crate) const fn store64(dst: u8, offset: i16, src: u8) -> Instruction {
    of(0x7b, dst, src, offset, 0)
}

/// Skips `offset` instructions.
pub(crate) const fn jump(offset: i16) -> Instruction {
    of(0x05, 0, 0, offset, 0)
}

/// Skips `offset` instructions where `dst > immediate`, unsigned.
pub(crate) const fn jump_if_above(dst: u8, immediate: i32, offset: i16) -> Instruction {
    of(0x25, dst, 0, offset, immediate)
}

/// Skips `offset` instructions where `dst == immediate`.
pub(crate) const fn jump_if_equal(dst: u8, immediate: i32, offset: i16) -> Instruction {
    of(0x15, dst, 0, offset, immediate)
}

/// Skips `offset` instructions where `dst != immediate`.
pub(crate) const fn jump_if_not_equal(dst: u8, immediate: i32, offset: i16) -> Instruction {
    of(0x55, dst, 0, offset, immediate)
}

/// Skips `offset` instructions where `dst < immediate`, unsigned.
pub(crate) const fn jump_if_below(dst: u8, immediate: i32, offset: i16) -> Instruction {
    of(0xa5, dst, 0, offset, immediate)
}

/// Skips `offset` instructions where `dst != src`.
pub(crate) const fn jump_if_other(dst: u8, src: u8, offset: i16) -> Instruction {
    of(0x5d, dst, src, offset, 0)
}

/// Calls a helper.
pub(crate) const fn call(helper: i32) -> Instruction {
    of(0x85, 0, 0, 0, helper)
}

/// Returns `R0`.
pub(crate) const EXIT: Instruction = of(0x95, 0, 0, 0, 0);

/// `dst` = the map behind a descriptor; two instructions.
pub(crate) const fn load_map(dst: u8, map: RawFd) -> [Instruction; 2] {
    [of(0x18, dst, BPF_PSEUDO_MAP_FD, 0, map), of(0, 0, 0, 0, 0)]
}

/// `union bpf_attr` of the commands used; what is left out counts as zero.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    /// From `inner_map_fd` to `map_ifindex`, as in [`ProgLoad`].
    further: [u32; 7],
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    /// From `kern_version` to `expected_attach_type`: nothing is set there, and valgrind (3.19) reads it
    /// whatever length it is told.
    further: [u32; 8],
}

/// An array of `entries` values of `value_bytes` (a multiple of 8) that can be mapped.
pub(crate) fn array(value_bytes: u32, entries: u32) -> io::Result<OwnedFd> {
    let attributes = MapCreate {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: value_bytes,
        max_entries: entries,
        map_flags: BPF_F_MMAPABLE,
        further: [0; 7],
    };
    bpf(BPF_MAP_CREATE, &attributes)
}

/// A ring of `bytes` (a power of two, and whole pages) that programs write to and we read.
pub(crate) fn ring_buffer(bytes: u32) -> io::Result<OwnedFd> {
    let attributes = MapCreate {
        map_type: BPF_MAP_TYPE_RINGBUF,
        key_size: 0,
        value_size: 0,
        max_entries: bytes,
        map_flags: 0,
        further: [0; 7],
    };
    bpf(BPF_MAP_CREATE, &attributes)
}

/// Loads a program of type socket filter. The kernel checks it, and keeps it as long as something
/// it is attached to is open.
pub(crate) fn socket_filter(code: &[Instruction]) -> io::Result<OwnedFd> {
    load(code, &mut [])
}

/// What the kernel has against a program that it has refused, in one line.
pub(crate) fn verifier_says(code: &[Instruction]) -> String {
    let mut log = vec![0; LOG_BYTES_MAX];
    let _ = load(code, &mut log);
    let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
    let log = String::from_utf8_lossy(&log[..end]);
    // It ends with how much work that was.
    let mut lines = log.lines().rev().map(str::trim);
    lines.find(|line| !line.is_empty() && !line.starts_with("processed ")).unwrap_or("-").to_owned()
}

/// The kernel tells of all the ways through a program that it has tried, the refused one last.
const LOG_BYTES_MAX: usize = 8 << 20;

fn load(code: &[Instruction], log: &mut [u8]) -> io::Result<OwnedFd> {
    let attributes = ProgLoad {
        prog_type: BPF_PROG_TYPE_SOCKET_FILTER,
        insn_cnt: code.len() as u32,
        insns: code.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log_buf: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        further: [0; 8],
    };
    bpf(BPF_PROG_LOAD, &attributes)
}

/// Attaches a program to a socket.
pub(crate) fn attach(program: &OwnedFd, socket: RawFd) -> io::Result<()> {
    super::set_option(socket, libc::SOL_SOCKET, SO_ATTACH_BPF, program.as_raw_fd())
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the pointer and size describe `attributes`, whose pointers are to memory that the
    // callers borrow for longer than the call, with the lengths they state.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both commands return a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
