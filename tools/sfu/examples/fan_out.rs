//! What does one packet to one subscriber cost the SFU? CPU time of the media worker over packets
//! sent, with real peer connections that throw the media away.
//!
//! `cargo run --release -p stampede-sfu --example fan_out -- [SUBSCRIBERS] [FRAMES_PER_S]
//! [PACKETS_PER_FRAME] [SECONDS] [PAYLOAD_BYTES]`; `FAN_OUT_BACKEND=mmsg` chooses the backend.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Client, drive, grants, vp8};
use livekit_token::VideoGrants;
use stampede_sfu::{Ledger, Sfu, SfuOptions};
use stampede_udp::BackendChoice;
use str0m::media::MediaKind;

fn argument(index: usize, default: u64) -> u64 {
    std::env::args().nth(index).and_then(|arg| arg.parse().ok()).unwrap_or(default)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (subscribers, fps, per_frame) = (argument(1, 500), argument(2, 20), argument(3, 4));
    let (seconds, bytes) = (argument(4, 10), argument(5, 1_000) as usize);
    let backend = match std::env::var("FAN_OUT_BACKEND").as_deref() {
        Ok("mmsg") => BackendChoice::Mmsg,
        Ok("io_uring") => BackendChoice::IoUring,
        _ => BackendChoice::Auto,
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let options = SfuOptions { backend, ..common::options() };
    let sfu = Arc::new(Sfu::start(options).unwrap());
    if std::env::var_os("FAN_OUT_WATCH").is_some() {
        let sfu = sfu.clone();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_secs(3));
                eprintln!("{:?}", sfu.ledger().unwrap().workers);
            }
        });
    }
    let no_subscribe = VideoGrants { can_subscribe: Some(false), ..grants("room") };
    let mut publisher = Client::connect(&sfu, "publisher", no_subscribe).await;
    let mid = publisher.publish("camera", MediaKind::Video, &[]).await;
    drive(&mut [&mut publisher], |c| c[0].publisher.connected).await;
    let before = sfu.ledger().unwrap();
    let ramp = Instant::now();
    let mut pool = Vec::new();
    while (pool.len() as u64) < subscribers {
        let mut group = Vec::new();
        for _ in 0..(subscribers - pool.len() as u64).min(25) {
            let identity = format!("viewer-{}", pool.len() + group.len());
            let viewer = VideoGrants { can_publish: Some(false), ..grants("room") };
            group.push(Client::connect(&sfu, &identity, viewer).await);
        }
        let mut refs: Vec<&mut Client> = group.iter_mut().collect();
        drive(&mut refs, |c| c.iter().all(|client| client.subscriber.connected)).await;
        for client in &mut group {
            client.subscriber.sink = true;
        }
        pool.extend(group);
        keep_alive(&mut pool, &mut publisher).await;
    }
    let joined = sfu.ledger().unwrap();
    println!(
        "{subscribers} joined in {:.1} s, {:.0} us of worker CPU each, {}",
        ramp.elapsed().as_secs_f64(),
        (cpu(&joined) - cpu(&before)) * 1e6 / subscribers as f64,
        sfu.backend_report().name,
    );
    let (start, mut frame, mut next) = (Instant::now(), 0u64, 0usize);
    while start.elapsed() < Duration::from_secs(seconds) {
        let due = start + Duration::from_micros(1_000_000 * frame / fps);
        if Instant::now() >= due {
            for i in 0..per_frame {
                let payload = vp8(frame as u16, frame.is_multiple_of(fps), 0, bytes);
                publisher.write(mid, None, frame * per_frame + i, 3_000 * frame as u32, payload);
            }
            frame += 1;
            drive(&mut [&mut publisher], |_| true).await;
        }
        for _ in 0..20 {
            next = (next + 1) % pool.len();
            drive(&mut [&mut pool[next]], |_| true).await;
        }
    }
    report(&joined, &sfu.ledger().unwrap(), seconds as f64, frame * per_frame);
}

async fn keep_alive(pool: &mut [Client], publisher: &mut Client) {
    for client in pool {
        drive(&mut [client], |_| true).await;
    }
    drive(&mut [publisher], |_| true).await;
}

fn cpu(ledger: &Ledger) -> f64 {
    ledger.workers[0].cpu_s
}

fn report(before: &Ledger, after: &Ledger, seconds: f64, published: u64) {
    let cpu = cpu(after) - cpu(before);
    let sent = after.totals.packets_sent - before.totals.packets_sent;
    println!(
        "{sent} packets of {published} published, {:.0}/s, worker busy {:.2}, {:.2} us a packet; {:?}",
        sent as f64 / seconds,
        cpu / seconds,
        cpu * 1e6 / sent as f64,
        after.workers[0],
    );
}
