//! What sending costs a publisher: ns a packet from the timer to the datagram, without sockets, by
//! number of publishers. A frame is seven packets, as 720p has; publishers are due in turn, so that
//! with many nothing of one is in the near caches when its frame is due.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench may panic, and documents nothing")]

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod publishing;

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use publishing::{Publisher, RUN, Sink, clip, options, sink};

struct Crowd {
    publishers: Vec<Publisher>,
    sink: Sink,
}

impl Crowd {
    fn new(publishers: u32) -> Self {
        let (options, clip, start) = (options(), clip(), Instant::now());
        let connect = |index| {
            let offset = Duration::from_millis(33) * index / publishers;
            Publisher::connect(start, &options, clip.clone(), offset)
        };
        let mut crowd = Self { publishers: (0..publishers).map(connect).collect(), sink: sink() };
        // A second, so that first packets and first reports are over.
        crowd.send(u64::from(publishers) * 30 * RUN);
        crowd
    }

    /// How long `packets` packets take at least; scaled to `packets`.
    fn send(&mut self, packets: u64) -> Duration {
        let before = self.sink.packets;
        let begun = Instant::now();
        while self.sink.packets - before < packets {
            // Not in order of their frames, but each has one at a time.
            for publisher in &mut self.publishers {
                publisher.fire(&mut self.sink);
            }
        }
        begun.elapsed().mul_f64(packets as f64 / (self.sink.packets - before) as f64)
    }

    /// Everything left: the bench measures what it says.
    fn check(&self) {
        let frames: u64 = self.publishers.iter().map(Publisher::frames_sent).sum();
        assert!(self.sink.packets <= frames * RUN);
        assert!(self.sink.packets + self.publishers.len() as u64 * RUN >= frames * RUN);
    }
}

fn peer_publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("peer_publish");
    group.sample_size(10).warm_up_time(Duration::from_millis(300));
    group.measurement_time(Duration::from_secs(1)).throughput(Throughput::Elements(1));
    for publishers in [1, 100, 1_000] {
        let mut crowd = Crowd::new(publishers);
        group.bench_function(publishers.to_string(), |bench| {
            bench.iter_custom(|packets| crowd.send(packets));
        });
        crowd.check();
    }
    group.finish();
}

criterion_group!(benches, peer_publish);
criterion_main!(benches);
