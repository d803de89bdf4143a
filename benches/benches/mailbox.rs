//! What do the two channels between the planes cost? From a command to its event, by backend: the
//! mailbox, the worker's wake-up, its turn, the event channel and the eventfd that says so.
//!
//! - `round_trip`: one command, and waiting for its event: mostly two threads that wake each other.
//! - `burst`: 500 commands at once, until the last event is read; time of one of them.
//!
//! The command is to close a peer that is gone: all that the worker does about it is to answer. The
//! worker has core 0, this thread core 1.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench may panic, and documents nothing")]
#![allow(clippy::print_stderr, reason = "a bench prints what it found")]

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::{CpuSet, sched_setaffinity};
use stampede_engine::{
    BackendChoice, Engine, EngineEvent, EngineOptions, PeerCommand, PeerId, PeerNotice,
};
use stampede_testing::skip;

const WORKER_CORE: usize = 0;
const HERE: usize = 1;
const BURST: usize = 500;
const BACKENDS: [(BackendChoice, &str); 2] =
    [(BackendChoice::IoUring, "io_uring"), (BackendChoice::Mmsg, "mmsg")];

/// Sends `commands` and reads as many answers.
fn exchange(engine: &Engine, commands: usize) {
    for _ in 0..commands {
        engine.command(PeerId::default(), PeerCommand::Close).unwrap();
    }
    let mut answers = 0;
    while answers < commands {
        poll(&mut [PollFd::new(&engine.event_fd(), PollFlags::IN)], None).unwrap();
        rustix::io::read(engine.event_fd(), &mut [0; 8]).unwrap();
        for event in engine.events().try_iter() {
            match event {
                EngineEvent::Peer { notice: PeerNotice::Closed, .. } => answers += 1,
                EngineEvent::Snapshot(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn mailbox(criterion: &mut Criterion) {
    let mut core = CpuSet::new();
    core.set(HERE);
    // On a machine with one core they share it.
    let _ = sched_setaffinity(None, &core);
    let mut group = criterion.benchmark_group("mailbox");
    group.sample_size(20).warm_up_time(Duration::from_millis(300));
    group.measurement_time(Duration::from_secs(2));
    for (backend, name) in BACKENDS {
        let options = EngineOptions { cores: vec![WORKER_CORE], backend, ..Default::default() };
        let engine = match Engine::start(options) {
            Ok(engine) => engine,
            Err(error) => {
                skip(error);
                continue;
            }
        };
        group.bench_function(BenchmarkId::new("round_trip", name), |bench| {
            bench.iter(|| exchange(&engine, 1));
        });
        group.bench_function(BenchmarkId::new("burst", name), |bench| {
            bench.iter_custom(|commands| {
                let bursts = commands.div_ceil(BURST as u64);
                let begun = Instant::now();
                (0..bursts).for_each(|_| exchange(&engine, BURST));
                begun.elapsed().mul_f64(commands as f64 / (bursts * BURST as u64) as f64)
            });
        });
        engine.stop();
    }
    group.finish();
}

criterion_group!(benches, mailbox);
criterion_main!(benches);
