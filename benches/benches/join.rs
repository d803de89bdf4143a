//! What does a join cost a peer? CPU from the server's offer to connected DTLS, without sockets or
//! signalling: SDP, ICE, the DTLS handshake and the keys. The other side, a plain str0m, does its
//! part untimed.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench may panic, and documents nothing")]

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod receiving;

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use receiving::{Stamps, connect};
use stampede_core::{DtlsIdentity, PeerOptions};

fn join(criterion: &mut Criterion) {
    let identity = DtlsIdentity::generate().unwrap();
    let options = PeerOptions::new(identity);
    let mut group = criterion.benchmark_group("join");
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    group.bench_function("subscriber", |bench| {
        bench.iter_custom(|joins| {
            (0..joins).map(|_| connect(Instant::now(), &options, Stamps::SendTimes).peer_time).sum()
        });
    });
    group.finish();
}

criterion_group!(benches, join);
criterion_main!(benches);
