//! A ring that a model of the kernel writes: all short sequences of what can happen, and many long
//! ones, against what must hold. It begins where the positions pass 2^32, and wraps all the time.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::filled::record;
use super::*;
use crate::UdpStats;
use crate::depth::depth;

/// Room for a few records.
const RING_BYTES: usize = 4_096;
const PORTS: u16 = 2;
const FIRST_PORT: u16 = 10_000;
/// Payloads, of which the larger cross the end of the ring at another place each time.
const SIZES: [usize; 2] = [40, 1_100];
const STARTS_AT: u64 = (1 << 32) - 2_048;

/// A record, as its writer knows it.
#[derive(Debug, Clone, Copy)]
struct Written {
    /// The socket it is for, if there was one.
    owner: Option<u32>,
    len: usize,
    /// What its payload consists of.
    fill: u8,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Busy,
    Submitted,
    Discarded,
}

/// What can happen.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A packet comes for one of the ports; its writer may take its time.
    Packet { port: u16, size: usize, busy: bool },
    /// The writer that takes the longest is done, or thinks better of it.
    Done { discards: bool },
    /// A batch of about so many.
    Poll { wanted: usize },
    /// A port's socket goes, or a new one has the port.
    Switch { port: u16 },
}

const STEPS: [Step; 9] = [
    Step::Packet { port: 0, size: SIZES[1], busy: false },
    Step::Poll { wanted: 9 },
    Step::Packet { port: 1, size: SIZES[0], busy: false },
    Step::Poll { wanted: 1 },
    Step::Switch { port: 0 },
    Step::Packet { port: 0, size: SIZES[1], busy: true },
    Step::Done { discards: false },
    Step::Switch { port: 1 },
    Step::Done { discards: true },
];

struct World {
    ring: PacketRing,
    /// Where the kernel writes next.
    producer: u64,
    /// What was not drained yet.
    written: VecDeque<Written>,
    fill: u8,
    /// Of each port, its socket.
    owners: [Option<u32>; PORTS as usize],
    sockets: u32,
    batch: Vec<Received>,
    /// What is expected of the batch.
    expected: Vec<(u32, u8, usize)>,
    stats: UdpStats,
    for_nobody: u64,
}

impl World {
    fn new() -> Self {
        let page = rustix::param::page_size();
        let memory = PageMemory::new(page + 2 * RING_BYTES).unwrap();
        let ring = PacketRing::without_kernel(memory, RING_BYTES).unwrap();
        let mut new = Self {
            ring,
            producer: 0,
            written: VecDeque::new(),
            fill: 0,
            owners: [None; PORTS as usize],
            sockets: 0,
            batch: Vec::new(),
            expected: Vec::new(),
            stats: UdpStats::default(),
            for_nobody: 0,
        };
        new.begin();
        new
    }

    /// As if it were new, which costs less than a new one.
    fn begin(&mut self) {
        for (port, owner) in self.owners.iter_mut().enumerate() {
            if let Some(owner) = owner.take() {
                self.ring.remove(owner);
            }
            assert_eq!(self.ring.socket_of_port[usize::from(FIRST_PORT) + port], NOBODY);
        }
        self.sockets = 0;
        self.written.clear();
        self.batch.clear();
        self.expected.clear();
        self.stats = UdpStats::default();
        self.for_nobody = 0;
        self.producer = STARTS_AT;
        self.tell_producer();
        (self.ring.read, self.ring.given_back) = (STARTS_AT, STARTS_AT);
        self.ring.consumer.atomic64(0).store(STARTS_AT, Ordering::Relaxed);
        self.ring.turn_ends = STARTS_AT;
        (0..PORTS).for_each(|port| self.switch(port));
    }

    fn tell_producer(&mut self) {
        self.ring.ring.written_by_kernel(0, &self.producer.to_ne_bytes());
    }

    /// Writes at a position of the ring, which the kernel has mapped twice.
    fn write(&mut self, position: u64, bytes: &[u8]) {
        let page = self.ring.page_bytes;
        for (at, byte) in (position..).zip(bytes) {
            let at = at as usize % RING_BYTES;
            self.ring.ring.written_by_kernel(page + at, &[*byte]);
            self.ring.ring.written_by_kernel(page + RING_BYTES + at, &[*byte]);
        }
    }

    fn header(&mut self, position: u64, len: usize, state: State) {
        let flags = match state {
            State::Busy => RINGBUF_BUSY,
            State::Submitted => 0,
            State::Discarded => RINGBUF_DISCARDED,
        };
        self.write(position, &(len as u32 | flags).to_ne_bytes());
    }

    /// Reserves room and writes, as the filter does (kernel/bpf/ringbuf.c).
    fn packet(&mut self, port: u16, size: usize, busy: bool) {
        self.fill = self.fill.wrapping_add(1);
        let payload = vec![self.fill; size];
        let number = FIRST_PORT + port;
        let bytes = record(libc::ETH_P_IP as u16, &[127, 0, 0, 1], number, 0, &payload);
        let end = self.producer + (RINGBUF_HEADER_BYTES + bytes.len()).next_multiple_of(8) as u64;
        let consumer = self.ring.consumer.atomic64(0).load(Ordering::Acquire);
        assert_eq!(consumer, self.ring.given_back);
        // Nobody asks the filter for what nobody has.
        let owner = self.owners[usize::from(port)];
        if end - consumer > RING_BYTES as u64 - 1 || owner.is_none() {
            return;
        }
        let state = if busy { State::Busy } else { State::Submitted };
        self.header(self.producer, bytes.len(), state);
        self.write(self.producer + RINGBUF_HEADER_BYTES as u64, &bytes);
        self.written.push_back(Written { owner, len: bytes.len(), fill: self.fill, state });
        self.producer = end;
        self.tell_producer();
    }

    fn done(&mut self, discards: bool) {
        let mut position = self.ring.read;
        let state = if discards { State::Discarded } else { State::Submitted };
        for at in 0..self.written.len() {
            let written = &mut self.written[at];
            let len = written.len;
            if written.state == State::Busy {
                written.state = state;
                return self.header(position, len, state);
            }
            position += (RINGBUF_HEADER_BYTES + len).next_multiple_of(8) as u64;
        }
    }

    fn switch(&mut self, port: u16) {
        match self.owners[usize::from(port)].take() {
            Some(socket) => self.ring.remove(socket),
            None => {
                // An id may be the one of a socket that has gone.
                let socket = self.sockets % 3;
                let in_use = self.owners.contains(&Some(socket));
                let socket = if in_use { (socket + 1) % 3 } else { socket };
                self.sockets += 1;
                self.ring.own(socket, FIRST_PORT + port);
                self.owners[usize::from(port)] = Some(socket);
                // What is in the ring was for others.
                for written in &mut self.written {
                    written.owner = written.owner.filter(|owner| *owner != socket);
                }
            }
        }
        // And what is for one that has gone, for nobody.
        for written in &mut self.written {
            written.owner = written.owner.filter(|owner| self.owners.contains(&Some(*owner)));
        }
    }

    fn poll(&mut self, wanted: usize) {
        self.batch.clear();
        self.expected.clear();
        self.ring.give_back();
        let whole = self.ring.drain(wanted, 0, &mut self.batch, &mut self.stats, |_, _| {});
        if whole && self.batch.len() < wanted {
            self.ring.begin_turn();
            self.ring.drain(wanted, 0, &mut self.batch, &mut self.stats, |_, _| {});
        }
        // All that is whole up to the first that is not, as far as it was wanted; what was
        // discarded or is nobody's besides.
        while self.expected.len() < wanted
            && let Some(written) = self.written.front().copied()
            && written.state != State::Busy
        {
            self.written.pop_front();
            match written.owner {
                _ if written.state == State::Discarded => {}
                None => self.for_nobody += 1,
                Some(owner) => {
                    let len = written.len - RECORD_HEADER_BYTES;
                    self.expected.push((owner, written.fill, len));
                }
            }
            if self.expected.len() == wanted {
                break;
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Packet { port, size, busy } => self.packet(port, size, busy),
            Step::Done { discards } => self.done(discards),
            Step::Poll { wanted } => self.poll(wanted),
            Step::Switch { port } => self.switch(port),
        }
        self.check();
    }

    /// What is in the batch stays as it is until the next poll, whatever the kernel writes.
    fn check(&self) {
        assert_eq!(self.batch.len(), self.expected.len());
        for (received, &(socket, fill, len)) in self.batch.iter().zip(&self.expected) {
            assert_eq!((received.socket, usize::from(received.len)), (SocketId(socket), len));
            let payload = self.ring.payload(received.offset as usize, len);
            assert!(payload.len() == len && payload.iter().all(|byte| *byte == fill));
        }
        assert_eq!(self.stats.uncategorised.for_closed_sockets, self.for_nobody);
        assert_eq!(self.stats.uncategorised.truncated, 0);
        assert!(self.ring.given_back <= self.ring.read && self.ring.read <= self.producer);
    }

    /// Once all writers are done, everything is read, and all room can be had again.
    fn end(&mut self) {
        (0..RING_BYTES / SIZES[0]).for_each(|_| self.done(false));
        for _ in 0..2 + self.written.len() {
            self.step(Step::Poll { wanted: 1 });
        }
        assert!(self.written.is_empty() && !self.ring.is_ready());
        self.step(Step::Poll { wanted: 1 });
        assert_eq!(self.ring.given_back, self.producer);
    }
}

#[test]
fn after_any_few_steps_each_record_is_handed_out_once_to_whom_it_is_for() {
    let mut world = World::new();
    let (steps, depth) = (STEPS.len() as u32, depth(5));
    for sequence in 0..steps.pow(depth) {
        world.begin();
        for at in 0..depth {
            world.step(STEPS[(sequence / steps.pow(at) % steps) as usize]);
        }
        world.end();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
    #[test]
    fn after_any_many_steps_too(steps in prop::collection::vec(0..STEPS.len(), 1..100)) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.step(STEPS[step]));
        world.end();
    }
}
