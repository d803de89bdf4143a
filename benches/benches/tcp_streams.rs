//! What does a datagram over TCP cost, beside one over UDP (`udp_backends`)?
//!
//! Over loopback, one thread: receiving is timed alone (the datagrams already wait in the sockets);
//! sending includes the kernel's way into the receiving socket. Each iteration is one datagram and the
//! clock is the thread's CPU time.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};
use stampede_testing::skip;
use stampede_udp::{Framing, StreamEvent, StreamId, Streams};

/// Datagrams of one burst, spread over the connections.
const BURST: usize = 2_000;
const PAYLOAD_BYTES: [usize; 2] = [200, 1_100];
const BATCH_MAX: usize = 1_024;

/// CPU time of this thread so far, the kernel's work for it included.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Both ends of so many connections; the first one's are listed.
fn connected(count: usize) -> std::io::Result<(Streams, Streams, Vec<StreamId>)> {
    let mut servers = Streams::new(count, BATCH_MAX)?;
    let mut clients = Streams::new(count, BATCH_MAX)?;
    let address = servers.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let mut accepted = Vec::new();
    let mut connected = 0;
    for _ in 0..count {
        clients.connect(address, Framing::Ice)?;
        // Neither the backlog nor the ports are what is asked about.
        for _ in 0..1_000 {
            clients.poll()?;
            servers.poll()?;
            connected += clients.happened().len();
            accepted.extend(servers.happened().into_iter().filter_map(|event| match event {
                StreamEvent::Accepted { stream } => Some(stream),
                _ => None,
            }));
            if connected == accepted.len() && connected > 0 {
                break;
            }
        }
    }
    Ok((servers, clients, accepted))
}

/// Receives until `count` datagrams have come.
fn drain(streams: &mut Streams, count: usize) {
    let mut received = 0;
    while received < count {
        received += streams.poll().unwrap_or(0);
        for datagram in streams.batch() {
            black_box(streams.payload(datagram).first());
        }
    }
}

/// `run` equal datagrams in a row on one connection after the other.
fn case(c: &mut Criterion, name: &str, run: usize, sending: bool) {
    let mut group = c.benchmark_group(name);
    for count in [100, 2_000] {
        for bytes in PAYLOAD_BYTES {
            let made = connected(count).inspect_err(|error| skip(format!("{error} (ulimit -n)")));
            let Ok((mut sender, mut receiver, streams)) = made else { continue };
            let payload = vec![0x80; bytes];
            let mut next = streams.iter().copied().cycle();
            group.bench_function(BenchmarkId::from_parameter(format!("{count}x{bytes}B")), |b| {
                b.iter_custom(|iterations| {
                    let bursts = iterations.div_ceil(BURST as u64);
                    let burst = |_| {
                        let started = cpu_time();
                        for stream in next.by_ref().take(BURST / run) {
                            (0..run).for_each(|_| sender.send(stream, &payload));
                        }
                        sender.flush();
                        let sent = cpu_time();
                        drain(&mut receiver, BURST);
                        match sending {
                            true => sent.saturating_sub(started),
                            false => cpu_time().saturating_sub(sent),
                        }
                    };
                    let total: Duration = (0..bursts).map(burst).sum();
                    total.mul_f64(iterations as f64 / (bursts * BURST as u64) as f64)
                });
            });
        }
    }
    group.finish();
}

fn receive(c: &mut Criterion) {
    case(c, "tcp_receive", 1, false);
    case(c, "tcp_receive_runs_of_8", 8, false);
}

fn send(c: &mut Criterion) {
    case(c, "tcp_send", 1, true);
    case(c, "tcp_send_runs_of_4", 4, true);
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = receive, send
}
criterion_main!(benches);
