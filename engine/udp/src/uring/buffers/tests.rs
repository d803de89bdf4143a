//! The kernel's side of the ring, against memory as the kernel sees it. It runs under Miri, too.

use std::collections::VecDeque;

use io_uring::types::BufRingEntry;

use super::*;
use crate::depth::depth;

/// How many buffers: few, so that the ring wraps often.
const COUNT: u16 = 4;

/// What the kernel keeps of a ring: where it takes the next buffer from.
struct Model {
    ring: BufferRing,
    head: u16,
    /// Buffers that are ours, in the order in which they were taken.
    ours: VecDeque<u16>,
    /// Buffers given back so far that the kernel does not see yet.
    hidden: u16,
}

impl Model {
    /// With all buffers given back, the tail being `tail` then.
    fn new(tail: u16) -> Self {
        let mut ring = BufferRing::new(COUNT.into()).unwrap();
        ring.tail = tail.wrapping_sub(COUNT);
        let head = ring.tail;
        (0..COUNT).for_each(|buffer| ring.recycle(buffer));
        ring.publish();
        Self { ring, head, ours: VecDeque::new(), hidden: 0 }
    }

    /// As io_uring reads it (`io_ring_buffer_select`, io_uring/kbuf.c).
    fn take(&mut self) -> Option<u16> {
        let base = self.ring.address() as *const BufRingEntry;
        // SAFETY: the first entry of the ring, whose tail is an aligned u16.
        let tail = unsafe { &*BufRingEntry::tail(base).cast::<AtomicU16>() };
        if tail.load(Ordering::Acquire) == self.head {
            return None;
        }
        let place = usize::from(self.head % COUNT);
        // SAFETY: one of the ring's entries, which nobody refers to now.
        let entry = unsafe { &*base.add(place) };
        assert_eq!(entry.len() as usize, BUFFER_BYTES);
        let buffer = entry.bid();
        let address = self.ring.buffers.at(usize::from(buffer) * BUFFER_STRIDE) as u64;
        assert_eq!(entry.addr(), address, "of buffer {buffer}");
        self.head = self.head.wrapping_add(1);
        self.ours.push_back(buffer);
        Some(buffer)
    }

    fn give_back(&mut self) {
        if let Some(buffer) = self.ours.pop_front() {
            self.ring.recycle(buffer);
            self.hidden += 1;
        }
    }

    fn publish(&mut self) {
        self.ring.publish();
        self.hidden = 0;
    }

    /// What is neither ours nor hidden can be taken, each buffer once.
    fn drain(&mut self) {
        let mut free = Vec::new();
        while let Some(buffer) = self.take() {
            free.push(buffer);
        }
        let expected = usize::from(COUNT - self.hidden);
        let mut all: Vec<u16> = self.ours.iter().copied().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!((all.len(), self.ours.len()), (expected, expected), "{free:?}");
    }
}

const OPERATIONS: [fn(&mut Model); 3] = [
    |model| {
        model.take();
    },
    Model::give_back,
    Model::publish,
];

#[test]
fn each_buffer_is_given_back_once_wherever_the_tail_wraps() {
    let depth = depth(7);
    let near_the_end = [COUNT, u16::MAX - 3, u16::MAX, 0, 2];
    for tail in near_the_end {
        for sequence in 0..3u32.pow(depth) {
            let mut model = Model::new(tail);
            for at in 0..depth {
                OPERATIONS[(sequence / 3u32.pow(at) % 3) as usize](&mut model);
            }
            model.drain();
        }
    }
}

/// Writes what a receive writes (`io_recvmsg_multishot`, io_uring/net.c).
fn write(ring: &mut BufferRing, buffer: u16, words: [u32; 4], payload: &[u8]) {
    let base = usize::from(buffer) * BUFFER_STRIDE;
    let header: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    assert!(ring.buffers.write(base, &header));
    assert!(ring.buffers.write(base + NAME_AT, &[1; NAME_BYTES]));
    assert!(ring.buffers.write(base + CONTROL_AT, &[2; CONTROL_BYTES]));
    assert!(ring.buffers.write(base + PAYLOAD_AT, payload));
}

#[test]
fn what_the_kernel_says_stays_inside_of_the_buffer() {
    let mut ring = BufferRing::new(2).unwrap();
    let written = |len: usize| (PAYLOAD_AT + len) as u32;
    write(&mut ring, 1, [16, 32, 5, 0], b"hello");
    let message = ring.message(1, written(5)).unwrap();
    assert_eq!((message.name, message.control), ([1; 16].as_slice(), [2; 32].as_slice()));
    assert_eq!((message.len, message.cut), (5, false));
    assert_eq!(ring.payload(1, 0, 5), b"hello");
    assert_eq!(ring.payload(1, 2, 3), b"llo");
    // More than was written, or than there is.
    write(&mut ring, 1, [u32::MAX; 4], b"");
    let message = ring.message(1, written(3)).unwrap();
    assert_eq!((message.name.len(), message.control.len()), (NAME_BYTES, CONTROL_BYTES));
    assert_eq!((message.len, message.cut), (3, true));
    assert!(ring.message(1, u32::MAX).unwrap().len <= SEGMENT_RUN_BYTES_MAX);
    assert!(ring.message(1, written(0) - 1).is_none(), "not even a header");
    assert_eq!(ring.payload(1, SEGMENT_RUN_BYTES_MAX - 1, 9).len(), 1);
    assert_eq!(ring.payload(1, usize::MAX, 9).len(), 0);
    assert!(ring.message(2, written(0)).is_none(), "there are two");
}
