//! The backend over a kernel that is a model: all short sequences of what can happen, and many long
//! ones, against what must hold. The sockets are real, but nothing is received on them.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::depth::depth;
use crate::segment_run::Message;
use crate::send::RawSend;
use crate::wire::{self, Name};

/// So few that they run out.
const BUFFERS: usize = 4;
const SOCKETS_MAX: usize = 2;
const LIMITS: BackendLimits = BackendLimits {
    sockets_max: SOCKETS_MAX,
    receive_buffers_max: BUFFERS,
    send_slots_max: 1,
    batch_max: 3,
    packet_ring_bytes_max: 1,
};

/// A datagram: of which socket, counted since the start, and which of that one's.
type Datagram = [u8; 2];

/// A socket in the file table.
#[derive(Debug)]
struct File {
    label: u8,
    armed: bool,
    queue: VecDeque<Datagram>,
    /// An error waits.
    error: bool,
}

enum Request {
    Receive { index: u32, user_data: u64 },
    Cancel { target: u64, user_data: u64 },
    ReadWake { user_data: u64 },
}

/// Whose a buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Kernel,
    Us,
    /// Given back, but not shown to the kernel yet.
    Recycled,
}

struct Model {
    files: Vec<Option<File>>,
    labels: u8,
    requests: Vec<Request>,
    completions: VecDeque<Completion>,
    owners: [Owner; BUFFERS],
    /// What the kernel takes from, in order.
    free: VecDeque<u16>,
    recycled: Vec<u16>,
    contents: [Datagram; BUFFERS],
    /// Where datagrams come from.
    name: Name,
    wakes: u64,
    wake_armed: Option<u64>,
}

impl Model {
    fn new() -> Self {
        Self {
            files: (0..SOCKETS_MAX).map(|_| None).collect(),
            labels: 0,
            requests: Vec::new(),
            completions: VecDeque::new(),
            owners: [Owner::Kernel; BUFFERS],
            free: (0..BUFFERS as u16).collect(),
            recycled: Vec::new(),
            contents: [[0; 2]; BUFFERS],
            name: wire::encode_name(&SocketAddr::from(([127, 0, 0, 1], 9))),
            wakes: 0,
            wake_armed: None,
        }
    }

    fn file(&mut self, index: u32) -> &mut File {
        self.files[index as usize].as_mut().expect("a request for a socket that is there")
    }

    fn complete_one(&mut self, user_data: u64, result: i32, buffer: Option<u16>, more: bool) {
        self.completions.push_back(Completion { user_data, result, buffer, more });
    }

    /// Does what was asked for.
    fn take_requests(&mut self) {
        for request in std::mem::take(&mut self.requests) {
            match request {
                Request::Receive { index, user_data } => {
                    assert_eq!(user_data, RECEIVE | u64::from(index));
                    let file = self.file(index);
                    assert!(!file.armed, "two receives of one socket");
                    file.armed = true;
                }
                Request::Cancel { target, user_data } => {
                    let index = target as u32;
                    assert_eq!(target, RECEIVE | u64::from(index));
                    if std::mem::take(&mut self.file(index).armed) {
                        self.complete_one(target, -libc::ECANCELED, None, false);
                    } else {
                        self.complete_one(user_data, -libc::ENOENT, None, false);
                    }
                }
                Request::ReadWake { user_data } => {
                    assert_eq!(self.wake_armed.replace(user_data), None, "two reads of the waker");
                }
            }
        }
    }

    /// Receives what waits in the sockets, as far as there are buffers.
    fn run(&mut self) {
        if self.wakes > 0
            && let Some(user_data) = self.wake_armed.take()
        {
            self.wakes = 0;
            self.complete_one(user_data, 8, None, false);
        }
        for index in 0..SOCKETS_MAX {
            let user_data = RECEIVE | index as u64;
            while let Some(file) = self.files[index].as_mut()
                && file.armed
            {
                if std::mem::take(&mut file.error) {
                    file.armed = false;
                    self.complete_one(user_data, -libc::ECONNREFUSED, None, false);
                    break;
                }
                let Some(&datagram) = file.queue.front() else { break };
                let Some(buffer) = self.free.pop_front() else {
                    file.armed = false;
                    self.complete_one(user_data, -libc::ENOBUFS, None, false);
                    break;
                };
                file.queue.pop_front();
                assert_eq!(self.owners[usize::from(buffer)], Owner::Kernel);
                self.owners[usize::from(buffer)] = Owner::Us;
                self.contents[usize::from(buffer)] = datagram;
                self.complete_one(user_data, 1, Some(buffer), true);
            }
        }
    }
}

impl Kernel for Model {
    fn set_file(&mut self, index: u32, fd: RawFd) -> io::Result<()> {
        let file = &mut self.files[index as usize];
        if fd < 0 {
            let gone = file.take().expect("a socket to clear");
            assert!(!gone.armed, "a receive is still in flight");
            let told = |c: &Completion| c.user_data == RECEIVE | u64::from(index);
            assert!(!self.completions.iter().any(told), "what it received is still to be told");
        } else {
            assert!(file.is_none(), "the place of another socket");
            let label = self.labels;
            self.labels += 1;
            *file = Some(File { label, armed: false, queue: VecDeque::new(), error: false });
        }
        Ok(())
    }

    fn recycle(&mut self, buffer: u16) {
        let owner = &mut self.owners[usize::from(buffer)];
        assert_eq!(*owner, Owner::Us, "buffer {buffer} is given back twice");
        *owner = Owner::Recycled;
        self.recycled.push(buffer);
    }

    fn publish(&mut self) {
        for buffer in self.recycled.drain(..) {
            self.owners[usize::from(buffer)] = Owner::Kernel;
            self.free.push_back(buffer);
        }
    }

    fn receive(&mut self, index: u32, user_data: u64) -> io::Result<()> {
        self.requests.push(Request::Receive { index, user_data });
        Ok(())
    }

    fn cancel(&mut self, target: u64, user_data: u64) -> io::Result<()> {
        self.requests.push(Request::Cancel { target, user_data });
        Ok(())
    }

    fn read_wake(&mut self, _: &std::fs::File, user_data: u64) -> io::Result<()> {
        self.requests.push(Request::ReadWake { user_data });
        Ok(())
    }

    fn poll_readable(&mut self, _: &OwnedFd, _: u64) -> io::Result<()> {
        panic!("nothing is watched");
    }

    /// No send fails, so none completes.
    fn send(&mut self, index: u32, _: &RawSend, _: u64) -> io::Result<()> {
        self.file(index);
        Ok(())
    }

    fn has_submissions(&mut self) -> bool {
        !self.requests.is_empty()
    }

    fn submit(&mut self) -> io::Result<()> {
        self.take_requests();
        Ok(())
    }

    fn has_work(&mut self) -> bool {
        let wakes = self.wakes > 0 && self.wake_armed.is_some();
        let ready = |file: &File| file.armed && (file.error || !file.queue.is_empty());
        wakes || self.files.iter().flatten().any(ready)
    }

    fn wait(&mut self, _: usize, timeout: Duration) -> io::Result<()> {
        assert!(timeout.is_zero(), "no poll of a model waits");
        self.take_requests();
        self.run();
        Ok(())
    }

    fn complete(&mut self, out: &mut Vec<Completion>) -> io::Result<()> {
        out.extend(self.completions.drain(..));
        Ok(())
    }

    fn message(&self, buffer: u16, _: u32) -> Option<Message<'_>> {
        assert_eq!(self.owners[usize::from(buffer)], Owner::Us, "it is the kernel's");
        let name = &self.name.bytes[..self.name.len as usize];
        Some(Message { name, control: &[], len: 2, cut: false })
    }

    fn payload(&self, buffer: u16, offset: usize, len: usize) -> &[u8] {
        assert_eq!(self.owners[usize::from(buffer)], Owner::Us, "it is the kernel's");
        &self.contents[usize::from(buffer)][offset..offset + len]
    }

    fn syscalls(&self) -> u64 {
        0
    }
}

/// What can happen.
#[derive(Debug, Clone, Copy)]
enum Step {
    Add,
    /// The socket that is there for the longest, or the shortest.
    Remove {
        newest: bool,
    },
    /// Three datagrams come, for the one or the other.
    Datagrams {
        newest: bool,
    },
    /// A report from the network comes for the oldest.
    Error,
    Wake,
    /// The newest sends, with the next poll; completions are looked at then.
    Send,
    Poll {
        wanted: usize,
    },
}

const STEPS: [Step; 10] = [
    Step::Poll { wanted: 1 },
    Step::Datagrams { newest: false },
    Step::Datagrams { newest: true },
    Step::Add,
    Step::Remove { newest: false },
    Step::Remove { newest: true },
    Step::Poll { wanted: 9 },
    Step::Send,
    Step::Error,
    Step::Wake,
];

/// The backend, and what is known of its sockets.
struct World {
    uring: Uring<Model>,
    /// Of each label that is there, its id; the order is that of age.
    live: BTreeMap<u8, SocketId>,
    /// Who had each id last.
    label_of: BTreeMap<SocketId, u8>,
    /// Of each label, how many datagrams came and how many were handed out.
    came: BTreeMap<u8, u8>,
    handed_out: BTreeMap<u8, u8>,
}

thread_local! {
    static SOCKET: UdpSocket = UdpSocket::bind("127.0.0.1:0").unwrap();
}

impl World {
    fn new() -> Self {
        Self {
            uring: Uring::with(Model::new(), BUFFERS, &LIMITS).unwrap(),
            live: BTreeMap::new(),
            label_of: BTreeMap::new(),
            came: BTreeMap::new(),
            handed_out: BTreeMap::new(),
        }
    }

    fn chosen(&self, newest: bool) -> Option<(u8, SocketId)> {
        let mut live = self.live.iter().map(|(label, id)| (*label, *id));
        if newest { live.next_back() } else { live.next() }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Add => self.add(),
            Step::Remove { newest } => {
                if let Some((label, id)) = self.chosen(newest) {
                    self.live.remove(&label);
                    self.uring.remove_socket(id);
                }
            }
            Step::Datagrams { newest } => {
                let Some((label, id)) = self.chosen(newest) else { return };
                let came = self.came.entry(label).or_default();
                let file = self.uring.ring.file(id.0);
                assert_eq!(file.label, label);
                for _ in 0..3 {
                    file.queue.push_back([label, *came]);
                    *came += 1;
                }
            }
            Step::Error => {
                if let Some((_, id)) = self.chosen(false) {
                    self.uring.ring.file(id.0).error = true;
                }
            }
            Step::Wake => self.uring.ring.wakes += 1,
            Step::Send => {
                if let Some((_, id)) = self.chosen(true) {
                    self.uring.send(id, ([127, 0, 0, 1], 9).into(), &[0]);
                }
            }
            Step::Poll { wanted } => self.poll(wanted),
        }
        self.check();
    }

    fn add(&mut self) {
        let socket = SOCKET.with(|socket| socket.try_clone().unwrap());
        let label = self.uring.ring.labels;
        let Ok(id) = self.uring.add_socket(socket) else {
            let gone = SOCKETS_MAX - self.live.len();
            assert!(
                gone == 0 || self.uring.slots.iter_mut().count() == SOCKETS_MAX,
                "an id is lost"
            );
            return;
        };
        let named = |received: &Received| received.socket == id;
        assert!(!self.uring.batch().iter().any(named), "the batch names this id for another");
        self.live.insert(label, id);
        self.label_of.insert(id, label);
    }

    fn poll(&mut self, wanted: usize) {
        let wait = Wait { timeout: Duration::ZERO, gather: Duration::ZERO, datagrams_max: wanted };
        let count = self.uring.poll(wait).unwrap();
        assert!(count <= wanted.min(LIMITS.batch_max));
        for received in self.uring.batch() {
            let &[label, number] = self.uring.payload(received) else { panic!("{received:?}") };
            assert_eq!(self.label_of[&received.socket], label, "another socket's");
            let expected = self.handed_out.entry(label).or_default();
            assert_eq!(number, *expected, "each once, in order");
            *expected += 1;
        }
    }

    /// Whose each buffer is, said by both sides.
    fn check(&mut self) {
        let uring = &self.uring;
        let mut ours: Vec<u16> = uring.batch_buffers.clone();
        ours.extend(uring.pending.iter().filter_map(|pending| match pending {
            Pending::SegmentRun { run, .. } => Some(run.buffer),
            Pending::Closed { .. } => None,
        }));
        assert_eq!(uring.held, ours.len());
        ours.extend(uring.ring.completions.iter().filter_map(|completion| completion.buffer));
        ours.sort_unstable();
        let owners = (0..).zip(&uring.ring.owners);
        let expected: Vec<u16> =
            owners.filter(|(_, owner)| **owner == Owner::Us).map(|(buffer, _)| buffer).collect();
        assert_eq!(ours, expected, "each buffer is in one place");
        assert!(uring.pending.len() <= BUFFERS + SOCKETS_MAX);
    }

    /// Whatever came to a socket that stays is handed out; then all go, and nothing is left of them.
    fn end(mut self) {
        let polls = |world: &mut Self| {
            for _ in 0..16 {
                world.step(Step::Poll { wanted: 9 });
            }
        };
        polls(&mut self);
        for label in self.live.keys() {
            assert_eq!(self.handed_out.get(label), self.came.get(label), "socket {label} starves");
        }
        assert_eq!(self.uring.ring.wakes, 0, "it was woken, and did not see it");
        for newest in [false, true] {
            self.step(Step::Remove { newest });
        }
        polls(&mut self);
        let uring = &mut self.uring;
        assert_eq!((uring.held, uring.waiting, uring.pending.len()), (0, 0, 0));
        assert_eq!(uring.ring.owners, [Owner::Kernel; BUFFERS]);
        assert!(uring.ring.files.iter().all(Option::is_none));
        assert_eq!(uring.slots.iter_mut().count(), 0);
        for _ in 0..SOCKETS_MAX {
            self.add();
        }
        assert_eq!(self.live.len(), SOCKETS_MAX, "all ids can be had again");
    }
}

/// All sequences of so many of these steps, behind the first ones.
fn go_through(first: &[Step], steps: &[Step], depth: u32) {
    let count = steps.len() as u32;
    for sequence in 0..count.pow(depth) {
        let mut world = World::new();
        first.iter().for_each(|step| world.step(*step));
        for at in 0..depth {
            world.step(steps[(sequence / count.pow(at) % count) as usize]);
        }
        world.end();
    }
}

#[test]
fn after_any_few_steps_nothing_is_lost_or_in_two_places() {
    let first = [Step::Add, Step::Poll { wanted: 1 }, Step::Datagrams { newest: false }];
    go_through(&first, &STEPS, depth(5) - 1);
    // Two sockets, and buffers that are ours: but for errors and wake-ups, which change nothing of
    // that, it goes deeper.
    let more = [&first[..], &[Step::Poll { wanted: 1 }, Step::Add]].concat();
    go_through(&more, &STEPS[..8], depth(5));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn after_any_many_steps_neither(steps in prop::collection::vec(0..STEPS.len(), 1..60)) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.step(STEPS[step]));
        world.end();
    }
}
