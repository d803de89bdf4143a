//! What does a datagram cost each backend, in system calls and accounting together?
//!
//! Over loopback, one thread: receiving is timed alone (the datagrams already wait in the sockets);
//! sending includes the kernel's delivery into the receiving socket, the same for both backends.
//! Each iteration is one datagram.

#![allow(clippy::print_stderr, reason = "a bench prints what it found")]

mod datagrams;

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use datagrams::{BURST, MEDIA, PAYLOAD_BYTES, cpu_time, each_datagram, settings};
use stampede_testing::skip;
use stampede_udp::{
    Backend, BackendChoice, BackendLimits, SocketBuffers, SocketId, Wait, bind, open,
};

const CHOICES: [BackendChoice; 3] =
    [BackendChoice::IoUring, BackendChoice::Mmsg, BackendChoice::PacketRing];

type Sockets = Vec<(SocketId, SocketAddr)>;

/// A backend with bound sockets, or `None` where the kernel refuses it.
fn backend(choice: BackendChoice, sockets: usize) -> Option<(Box<dyn Backend>, Sockets)> {
    let (mut backend, _) =
        open(choice, BackendLimits::default()).inspect_err(|error| skip(error)).ok()?;
    let buffers = SocketBuffers { receive_bytes: 512 * 1024, send_bytes: 512 * 1024 };
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let sockets = (0..sockets)
        .map(|_| {
            let socket = bind(local, buffers)?;
            let address = socket.local_addr()?;
            Ok((backend.add_socket(socket)?, address))
        })
        .collect::<std::io::Result<Sockets>>()
        .inspect_err(|error| skip(format!("{error} (raise ulimit -n)")))
        .ok()?;
    // Receives start with the first poll.
    drain(&mut *backend, 0);
    Some((backend, sockets))
}

/// Receives until `count` datagrams have come; returns how many did.
fn drain(backend: &mut dyn Backend, count: usize) -> usize {
    let mut received = 0;
    let timeout = Duration::from_millis(if count > 0 { 50 } else { 0 });
    loop {
        let wait = Wait { timeout, gather: Duration::ZERO, datagrams_max: usize::MAX };
        let batch = backend.poll(wait).unwrap_or(0);
        for datagram in backend.batch() {
            black_box(backend.payload(datagram).first());
        }
        received += batch;
        if received >= count || batch == 0 {
            return received;
        }
    }
}

/// `run` equal datagrams in a row to one socket after the other, so that sockets are cold.
fn receive_case(c: &mut Criterion, name: &str, run: usize) {
    let mut group = c.benchmark_group(name);
    for sockets in [100, 2_000] {
        for bytes in PAYLOAD_BYTES {
            for choice in CHOICES {
                let Some((mut receiver, targets)) = backend(choice, sockets) else { continue };
                let Some((mut sender, from)) = backend(BackendChoice::Mmsg, 1) else { continue };
                let payload = vec![MEDIA; bytes];
                let id = BenchmarkId::new(receiver.name(), format!("{sockets}x{bytes}B"));
                let mut next = (0..sockets).cycle();
                group.bench_function(id, |b| {
                    b.iter_custom(|iterations| {
                        each_datagram(iterations, || {
                            for target in next.by_ref().take(BURST / run) {
                                for _ in 0..run {
                                    sender.send(from[0].0, targets[target].1, &payload);
                                }
                            }
                            sender.flush();
                            let started = cpu_time();
                            let received = drain(&mut *receiver, BURST);
                            let elapsed = cpu_time().saturating_sub(started);
                            assert_eq!(received, BURST, "datagrams were lost");
                            elapsed
                        })
                    });
                });
            }
        }
    }
    group.finish();
}

fn receive(c: &mut Criterion) {
    receive_case(c, "udp_receive", 1);
    receive_case(c, "udp_receive_runs_of_8", 8);
}

/// `sockets` send to 2,000 destinations, `run` equal datagrams to each in a row.
fn send_case(c: &mut Criterion, name: &str, sockets: usize, run: usize) {
    let mut group = c.benchmark_group(name);
    for bytes in PAYLOAD_BYTES {
        for choice in CHOICES {
            let Some((mut sender, from)) = backend(choice, sockets) else { continue };
            let Some((mut receiver, targets)) = backend(BackendChoice::Mmsg, BURST) else {
                continue;
            };
            let payload = vec![MEDIA; bytes];
            let id = BenchmarkId::new(sender.name(), format!("{sockets}x{bytes}B"));
            group.bench_function(id, |b| {
                b.iter_custom(|iterations| {
                    each_datagram(iterations, || {
                        let started = cpu_time();
                        for at in 0..BURST {
                            let target = at / run;
                            let socket = from[target % sockets].0;
                            sender.send(socket, targets[target].1, &payload);
                        }
                        sender.flush();
                        let elapsed = cpu_time().saturating_sub(started);
                        let received = drain(&mut *receiver, BURST);
                        assert_eq!(received, BURST, "datagrams were lost");
                        elapsed
                    })
                });
            });
        }
    }
    group.finish();
}

fn send(c: &mut Criterion) {
    send_case(c, "udp_send", 100, 1);
    send_case(c, "udp_send", 2_000, 1);
    send_case(c, "udp_fan_out", 1, 1);
    send_case(c, "udp_fan_out_runs_of_4", 1, 4);
}

criterion_group! {
    name = benches;
    config = settings();
    targets = receive, send
}
criterion_main!(benches);
