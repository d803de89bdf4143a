//! The ring of receive buffers, from which the kernel takes one for each receive: memory and
//! bookkeeping, without a system call.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::memory::PageMemory;
use crate::segment_run::Message;
use crate::wire::{self, CONTROL_BYTES, NAME_BYTES, SEGMENT_RUN_BYTES_MAX};

/// `struct io_uring_recvmsg_out`: lengths of name, control and payload, then flags.
const HEADER_BYTES: usize = 16;
const NAME_AT: usize = HEADER_BYTES;
const CONTROL_AT: usize = NAME_AT + NAME_BYTES;
const PAYLOAD_AT: usize = CONTROL_AT + CONTROL_BYTES;
/// Bytes of one receive buffer as the kernel knows it.
const BUFFER_BYTES: usize = PAYLOAD_AT + SEGMENT_RUN_BYTES_MAX;
/// Distance of two buffers: an odd number of cache lines, so that they spread over all cache sets.
const BUFFER_STRIDE: usize = BUFFER_BYTES.next_multiple_of(128) + 64;

/// Buffers, and the ring by which the kernel is given them. The kernel takes them in the order of
/// the ring, and each is its own until a completion names it.
pub(super) struct BufferRing {
    buffers: PageMemory,
    /// The ring of `io_uring_buf` entries; the tail lies in the first one's unused field.
    entries: PageMemory,
    /// A power of two.
    count: u16,
    tail: u16,
}

impl BufferRing {
    /// `count` is a power of two up to 32,768. None is the kernel's yet.
    pub(super) fn new(count: usize) -> io::Result<Self> {
        Ok(Self {
            buffers: PageMemory::new_sparse(count * BUFFER_STRIDE)?,
            entries: PageMemory::new(count * size_of::<BufRingEntry>())?,
            count: count as u16,
            tail: 0,
        })
    }

    /// How many there are.
    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// Where the ring is, for the kernel: as long as this lives.
    pub(super) fn address(&self) -> u64 {
        self.entries.at(0) as u64
    }

    /// Gives a buffer back; the kernel sees it with the next [`publish`](Self::publish).
    pub(super) fn recycle(&mut self, buffer: u16) {
        let address = self.buffers.at(usize::from(buffer) * BUFFER_STRIDE) as u64;
        let place = usize::from(self.tail & (self.count - 1)) * size_of::<BufRingEntry>();
        let entry = self.entries.at(place).cast::<BufRingEntry>();
        // SAFETY: inside the mapping, aligned, zeroed at first, so a valid entry. The kernel reads
        // entries before the published tail only, and this one lies behind it: at most `count`
        // are ever given back. The setters leave the tail field alone.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel the recycled buffers.
    pub(super) fn publish(&mut self) {
        let base = self.entries.at(0).cast::<BufRingEntry>();
        // SAFETY: `base` is the first entry of the registered ring, whose tail field is an aligned
        // u16 shared with the kernel; atomic access is how both sides use it.
        let tail = unsafe { &*BufRingEntry::tail(base).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }

    /// What a receive wrote into `buffer`; `result` is its completion's.
    pub(super) fn message(&self, buffer: u16, result: u32) -> Option<Message<'_>> {
        let base = usize::from(buffer) * BUFFER_STRIDE;
        let written = (result as usize).min(BUFFER_BYTES);
        let header = self.buffers.slice(base, HEADER_BYTES);
        let word = |at| wire::u32_at(header, at);
        let name_len = (word(0)? as usize).min(NAME_BYTES);
        let control_len = (word(4)? as usize).min(CONTROL_BYTES);
        let payload_len = word(8)? as usize;
        let room = written.checked_sub(PAYLOAD_AT)?;
        Some(Message {
            name: self.buffers.slice(base + NAME_AT, name_len),
            control: self.buffers.slice(base + CONTROL_AT, control_len),
            len: payload_len.min(room),
            cut: wire::is_cut(word(12)?.cast_signed()) || payload_len > room,
        })
    }

    /// A part of the payload in a buffer that has not been recycled.
    pub(super) fn payload(&self, buffer: u16, offset: usize, len: usize) -> &[u8] {
        let at = usize::from(buffer) * BUFFER_STRIDE + PAYLOAD_AT;
        let offset = offset.min(SEGMENT_RUN_BYTES_MAX);
        self.buffers.slice(at + offset, len.min(SEGMENT_RUN_BYTES_MAX - offset))
    }
}

#[cfg(test)]
mod tests;
