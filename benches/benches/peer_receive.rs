//! What receiving costs a subscriber: ns a packet of opening, accounting and feedback, without
//! sockets. By number of peers and by order of arrival, without congestion feedback and with
//! estimates of the peers' own.
//!
//! - `cold`: one packet a peer in turn, drained after each: nothing of a peer is in the near
//!   caches when its packet comes.
//! - `runs`: seven packets a peer at a time, drained after them, as a worker does that gathers a
//!   few milliseconds.
//! - `meeting`: of each of the other participants a video and a voice, a packet of both at a time; by
//!   number of streams.
//!
//! Each packet can be received once, so the packets of a sample are sealed before it, untimed, by
//! plain str0m senders. They are read from memory that no cache holds, which real ones are not:
//! the kernel has just written them.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench may panic, and documents nothing")]

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod receiving;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use receiving::{Meeting, Pair, RUN, Sink, Stamps, arrival, connect, payloads, sender_addr};
use stampede_core::{Arrival, DtlsIdentity, PeerOptions, Scratch};

/// Most packets sealed at a time.
const CHUNK_MAX: usize = 28_000;

struct Crowd {
    start: Instant,
    frame: u64,
    pairs: Vec<Pair>,
    sink: Sink,
    scratch: Scratch,
}

impl Crowd {
    fn new(peers: usize, options: &PeerOptions, stamps: Stamps) -> Self {
        let start = Instant::now();
        let pairs = (0..peers).map(|_| connect(start, options, stamps)).collect();
        let (sink, scratch) = (Sink::default(), Scratch::default());
        Self { start: start + Duration::from_secs(11), frame: 0, pairs, sink, scratch }
    }

    /// How long at least `packets` packets take; scaled to `packets`.
    fn receive(&mut self, packets: u64, in_runs: bool) -> Duration {
        let (mut taken, mut received) = (Duration::ZERO, 0_u64);
        while received < packets {
            let frames = CHUNK_MAX.div_ceil(self.pairs.len() * RUN).max(1);
            for _ in 0..frames {
                self.frame += 1;
                let now = self.start + Duration::from_millis(37) * self.frame as u32;
                let (frame, payloads) = (self.frame, payloads(self.frame));
                let senders = self.pairs.iter_mut().map(|pair| &mut pair.sender);
                let sealed: Vec<_> =
                    senders.map(|sender| sender.seal(now, frame, &payloads)).collect();
                let at = arrival(now, self.start);
                let begun = Instant::now();
                self.receive_frame(at, &sealed, in_runs);
                taken += begun.elapsed();
                received += (self.pairs.len() * RUN) as u64;
                self.sink.datagrams.clear();
            }
        }
        taken.mul_f64(packets as f64 / received as f64)
    }

    fn receive_frame(&mut self, at: Arrival, sealed: &[Vec<Vec<u8>>], in_runs: bool) {
        if in_runs {
            for (Pair { peer, .. }, datagrams) in self.pairs.iter_mut().zip(sealed) {
                for datagram in datagrams {
                    peer.handle_datagram(at, sender_addr(), datagram, &mut self.scratch);
                }
                peer.drain(at.instant, &mut self.sink);
            }
            return;
        }
        for part in 0..RUN {
            for (Pair { peer, .. }, datagrams) in self.pairs.iter_mut().zip(sealed) {
                peer.handle_datagram(at, sender_addr(), &datagrams[part], &mut self.scratch);
                peer.drain(at.instant, &mut self.sink);
            }
        }
    }

    /// Nothing was refused: the bench measures what it says.
    fn check(&self) {
        for Pair { peer, sender, .. } in &self.pairs {
            let counters = peer.counters();
            assert_eq!(counters.video.packets.received, sender.sequence - 1);
            assert_eq!(counters.video.frames.complete, counters.video.frames.received);
            assert_eq!(counters.transport.rejected, 0);
        }
    }
}

/// Peers in a meeting.
const IN_MEETING: usize = 20;
/// Packets of each stream sealed at a time.
const TICKS: u64 = 10;

/// How long at least `packets` packets take these, in turn; scaled to `packets`.
fn meet(meetings: &mut [Meeting], packets: u64) -> Duration {
    let (mut taken, mut received) = (Duration::ZERO, 0_u64);
    while received < packets {
        let sealed: Vec<_> = meetings.iter_mut().map(|meeting| meeting.seal(TICKS)).collect();
        let begun = Instant::now();
        for visit in 0..sealed[0].len() {
            for (meeting, visits) in meetings.iter_mut().zip(&sealed) {
                meeting.receive(&visits[visit]);
            }
        }
        taken += begun.elapsed();
        received += 2 * (meetings.len() * sealed[0].len()) as u64;
    }
    taken.mul_f64(packets as f64 / received as f64)
}

fn peer_receive(criterion: &mut Criterion) {
    let identity = DtlsIdentity::generate().unwrap();
    let mut group = criterion.benchmark_group("peer_receive");
    group.sample_size(10).warm_up_time(Duration::from_millis(300));
    group.measurement_time(Duration::from_secs(1)).throughput(Throughput::Elements(1));
    let options = PeerOptions::new(identity);
    let cases = [100, 1_000, 2_000].map(|peers| (peers, Stamps::None));
    for (peers, stamps) in cases.into_iter().chain([(2_000, Stamps::SendTimes)]) {
        let mut crowd = Crowd::new(peers, &options, stamps);
        for (order, in_runs) in [("cold", false), ("runs", true)] {
            let id = BenchmarkId::new(order, format!("{peers}-{stamps:?}"));
            group.bench_function(id, |bench| {
                bench.iter_custom(|packets| crowd.receive(packets, in_runs));
            });
        }
        crowd.check();
    }
    for streams in [2, 30, 120] {
        let mut meetings: Vec<_> =
            (0..IN_MEETING).map(|_| Meeting::new(streams, &options)).collect();
        group.bench_function(BenchmarkId::new("meeting", streams), |bench| {
            bench.iter_custom(|packets| meet(&mut meetings, packets));
        });
        meetings.iter().for_each(Meeting::check);
    }
    group.finish();
}

criterion_group!(benches, peer_receive);
criterion_main!(benches);
