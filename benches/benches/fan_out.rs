//! What does one packet to one subscriber cost the embedded SFU?
//!
//! A real SFU with real peer connections over loopback; the subscribers throw the media away. Each
//! iteration is one packet sent, frames come in runs of seven packets as 720p does, and the clock
//! is the CPU time of the SFU's media thread: reading the publisher, writing, encrypting and the
//! kernel's sending, which includes delivery into the subscriber's socket.

#![allow(clippy::unwrap_used)]

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[path = "../../tools/sfu/tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::{Client, drive, grants, options, vp8};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use livekit_token::VideoGrants;
use stampede_sfu::{Ledger, Sfu};
use str0m::media::{MediaKind, Mid};
use tokio::runtime::{Builder, Runtime};

const SUBSCRIBERS: [usize; 2] = [100, 1_000];
const PACKETS_PER_FRAME: u64 = 7;
const PAYLOAD_BYTES: usize = 1_000;
/// Clients that join at once.
const JOINING_MAX: usize = 25;
/// Frames between two looks at the subscribers' control traffic.
const FRAMES_PER_LOOK: u64 = 4;
/// How long the subscribers may take for a frame. What a full socket drops was sent all the same.
const FRAME_TIME_MAX: Duration = Duration::from_millis(200);

struct Room {
    sfu: Sfu,
    publisher: Client,
    mid: Mid,
    subscribers: Vec<Client>,
    frames: u64,
}

impl Room {
    async fn open(subscribers: usize) -> Self {
        let sfu = Sfu::start(options()).unwrap();
        let no_subscribe = VideoGrants { can_subscribe: Some(false), ..grants("room") };
        let mut publisher = Client::connect(&sfu, "publisher", no_subscribe).await;
        let mid = publisher.publish("camera", MediaKind::Video, &[]).await;
        drive(&mut [&mut publisher], |c| c[0].publisher.connected).await;
        let mut room = Self { sfu, publisher, mid, subscribers: Vec::new(), frames: 0 };
        while room.subscribers.len() < subscribers {
            room.join((subscribers - room.subscribers.len()).min(JOINING_MAX)).await;
        }
        room
    }

    async fn join(&mut self, count: usize) {
        let mut group = Vec::new();
        for _ in 0..count {
            let identity = format!("viewer-{}", self.subscribers.len() + group.len());
            let viewer = VideoGrants { can_publish: Some(false), ..grants("room") };
            group.push(Client::connect(&self.sfu, &identity, viewer).await);
        }
        let mut refs: Vec<&mut Client> = group.iter_mut().collect();
        drive(&mut refs, |c| c.iter().all(|client| client.subscriber.connected)).await;
        for client in &mut group {
            client.subscriber.sink = true;
        }
        self.subscribers.append(&mut group);
        self.look().await;
    }

    /// Lets everybody answer what is not media.
    async fn look(&mut self) {
        for client in self.subscribers.iter_mut().chain([&mut self.publisher]) {
            drive(&mut [client], |_| true).await;
        }
    }

    async fn frame(&mut self) {
        for i in 0..PACKETS_PER_FRAME {
            let mut payload = vp8(self.frames as u16, true, 0, PAYLOAD_BYTES);
            if i > 0 {
                payload[0] &= !0x10;
            }
            let seq = self.frames * PACKETS_PER_FRAME + i;
            let time = 3_000 * self.frames as u32;
            self.publisher.write(self.mid, None, seq, time, payload);
        }
        self.frames += 1;
        drive(&mut [&mut self.publisher], |_| true).await;
        let wanted = self.frames * PACKETS_PER_FRAME * self.subscribers.len() as u64;
        let started = Instant::now();
        let mut sunk = 0;
        while sunk < wanted && started.elapsed() < FRAME_TIME_MAX {
            sunk = self.subscribers.iter_mut().map(|client| client.subscriber.drain_sink()).sum();
        }
        if self.frames.is_multiple_of(FRAMES_PER_LOOK) {
            self.look().await;
        }
    }
}

fn since(now: &Ledger, before: &Ledger) -> (f64, u64) {
    let cpu_s = now.workers[0].cpu_s - before.workers[0].cpu_s;
    (cpu_s, now.totals.forward.packets_sent - before.totals.forward.packets_sent)
}

/// CPU time of so many packets, from at least as many.
fn measure(runtime: &Runtime, room: &mut Room, packets: u64) -> Duration {
    let a_frame = PACKETS_PER_FRAME * room.subscribers.len() as u64;
    let before = room.sfu.ledger().unwrap();
    runtime.block_on(async {
        for _ in 0..packets.div_ceil(a_frame) {
            room.frame().await;
        }
    });
    let (cpu_s, sent) = since(&room.sfu.ledger().unwrap(), &before);
    assert!(sent > 0, "nothing was sent");
    Duration::from_secs_f64(cpu_s / sent as f64 * packets as f64)
}

fn fan_out(c: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut group = c.benchmark_group("fan_out");
    for subscribers in SUBSCRIBERS {
        let mut room = runtime.block_on(Room::open(subscribers));
        group.bench_function(BenchmarkId::from_parameter(subscribers), |b| {
            b.iter_custom(|packets| measure(&runtime, &mut room, packets));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = fan_out
}
criterion_main!(benches);
