//! What does a worker's timer wheel cost a peer? ns an operation, by number of peers.
//!
//! - `schedule`: a new peer's first deadline.
//! - `reschedule`: what each batch of packets does: the peer still wants to be woken for its next
//!   receiver report, within a second; one time in a hundred a gap has opened and the NACK is due
//!   earlier.
//! - `expire`: a due report: the wheel turned on by a millisecond at a time, the fired entry
//!   taken, and the next deadline, a second on, set. Empty ticks are in it.
//!
//! The timers lie as far apart as in a worker's slab of peers, and are visited in no order.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench may panic, and documents nothing")]

/// The worker's own, which is private to its crate and needs nothing of it.
#[path = "../../engine/src/timer.rs"]
#[allow(dead_code, unreachable_pub, reason = "not all of it is measured")]
mod timer;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use timer::{TimerState, TimerWheel};

const PEERS: [usize; 2] = [2_000, 10_000];
/// As `REPORT_INTERVAL_VIDEO` of `stampede_core`.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// As its `NACK_INTERVAL`.
const NACK_INTERVAL: Duration = Duration::from_millis(100);
/// Of so many batches one opens a gap.
const BATCHES_PER_GAP: u64 = 100;
/// As the worker's for subscribers.
const TICK: Duration = Duration::from_millis(4);
/// About what lies between two peers' timers.
const PEER_BYTES: usize = 4_096;

struct Owner {
    timer: TimerState,
    /// When its next report is due.
    report_at: Instant,
    _peer: [u8; PEER_BYTES],
}

struct Worker {
    start: Instant,
    now: Instant,
    wheel: TimerWheel,
    owners: Vec<Owner>,
    fired: Vec<(u32, u64)>,
    random: u64,
}

impl Worker {
    fn new(peers: usize) -> Self {
        let start = Instant::now();
        let owner =
            |_| Owner { timer: TimerState::new(start), report_at: start, _peer: [1; PEER_BYTES] };
        let mut new = Self {
            start,
            now: start,
            wheel: TimerWheel::new(start, TICK),
            owners: (0..peers).map(owner).collect(),
            fired: Vec::new(),
            random: 0x9e37_79b9_7f4a_7c15,
        };
        new.reset();
        new
    }

    /// An empty wheel, and reports that are due at any time within the next interval.
    fn reset(&mut self) {
        self.now = self.start;
        self.wheel = TimerWheel::new(self.start, TICK);
        for i in 0..self.owners.len() {
            let within = self.draw() % REPORT_INTERVAL.as_nanos() as u64;
            let owner = &mut self.owners[i];
            owner.timer = TimerState::new(self.start);
            owner.report_at = self.start + Duration::from_nanos(within);
        }
    }

    /// Xorshift.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn order(&mut self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.owners.len() as u32).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, (self.draw() % (i as u64 + 1)) as usize);
        }
        order
    }

    fn schedule(&mut self, order: &[u32]) {
        for &key in order {
            let Owner { timer, report_at, .. } = &mut self.owners[key as usize];
            self.wheel.set(key, timer, *report_at);
        }
    }

    fn reschedule(&mut self, order: &[u32], gaps: &[bool]) {
        for (&key, &gap) in order.iter().zip(gaps) {
            let Owner { timer, report_at, .. } = &mut self.owners[key as usize];
            let nack_at = self.now + NACK_INTERVAL;
            let deadline = if gap { nack_at.min(*report_at) } else { *report_at };
            self.wheel.set(key, timer, deadline);
        }
    }

    /// As a worker's `fire_timers`; how many were due.
    fn expire(&mut self) -> u64 {
        self.now += TICK;
        let mut fired = std::mem::take(&mut self.fired);
        self.wheel.advance(self.now, &mut fired);
        let mut due = 0;
        for (key, tick) in fired.drain(..) {
            let Owner { timer, report_at, .. } = &mut self.owners[key as usize];
            if !TimerWheel::take(timer, tick) {
                continue;
            }
            if timer.deadline > self.now {
                let deadline = timer.deadline;
                self.wheel.set(key, timer, deadline);
                continue;
            }
            due += 1;
            *report_at = self.now + REPORT_INTERVAL;
            self.wheel.set(key, timer, *report_at);
        }
        self.fired = fired;
        due
    }
}

/// The time of `operations`, from whole rounds of them: `round` says how many it did, and how long
/// they took.
fn each(operations: u64, mut round: impl FnMut() -> (u64, Duration)) -> Duration {
    let (mut done, mut taken) = (0, Duration::ZERO);
    while done < operations {
        let (more, time) = round();
        done += more;
        taken += time;
    }
    taken.mul_f64(operations as f64 / done as f64)
}

fn timer_wheel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timer_wheel");
    group.sample_size(20).warm_up_time(Duration::from_millis(300));
    group.measurement_time(Duration::from_secs(1));
    for peers in PEERS {
        let mut worker = Worker::new(peers);
        let order = worker.order();
        group.bench_function(BenchmarkId::new("schedule", peers), |bench| {
            bench.iter_custom(|operations| {
                each(operations, || {
                    worker.reset();
                    let begun = Instant::now();
                    worker.schedule(&order);
                    (peers as u64, begun.elapsed())
                })
            });
        });
        group.bench_function(BenchmarkId::new("reschedule", peers), |bench| {
            bench.iter_custom(|operations| {
                worker.reset();
                worker.schedule(&order);
                each(operations, || {
                    let gap = |_| worker.draw().is_multiple_of(BATCHES_PER_GAP);
                    let gaps: Vec<bool> = (0..peers).map(gap).collect();
                    let begun = Instant::now();
                    worker.reschedule(&order, &gaps);
                    let taken = begun.elapsed();
                    // Time goes on, or the deadlines would pass.
                    worker.expire();
                    (peers as u64, taken)
                })
            });
        });
        group.bench_function(BenchmarkId::new("expire", peers), |bench| {
            bench.iter_custom(|operations| {
                worker.reset();
                worker.schedule(&order);
                each(operations, || {
                    let begun = Instant::now();
                    let due = (0..100).map(|_| worker.expire()).sum();
                    (black_box(due), begun.elapsed())
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, timer_wheel);
criterion_main!(benches);
