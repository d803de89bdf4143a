//! What does a datagram over TCP cost, beside one over UDP (`udp_backends`)? By framing: ICE's, and
//! that of a TURN server (ChannelData).
//!
//! Over loopback, one thread: receiving is timed alone (the datagrams already wait in the sockets);
//! sending includes the kernel's way into the receiving socket. The other end is of plain sockets,
//! untimed. What a relayed peer does beside, a few dozen instructions to find what is in a
//! ChannelData, is not in it.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench may panic, and documents nothing")]

mod datagrams;

use std::hint::black_box;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use datagrams::{BURST, MEDIA, PAYLOAD_BYTES, cpu_time, each_datagram, settings};
use stampede_testing::skip;
use stampede_udp::{Framing, StreamEvent, StreamId, Streams};

const BATCH_MAX: usize = 1_024;
/// Polls until a connection over loopback is there; it takes a few.
const POLLS_MAX: usize = 10_000;
/// The first channel of a TURN client (RFC 8656 §12).
const CHANNEL: u16 = 0x4000;

/// Bytes read at once at the other end.
const READ_BYTES: usize = 1 << 16;

/// Our ends of so many connections, and the plain ones, in the same order.
struct Connections {
    streams: Streams,
    ids: Vec<StreamId>,
    others: Vec<TcpStream>,
    /// Where the next datagrams go: each connection has its turn, so that it is cold.
    next: usize,
    read: Vec<u8>,
}

fn connect(count: usize, framing: Framing) -> std::io::Result<Connections> {
    let mut streams = Streams::new(count, BATCH_MAX)?;
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr()?;
    let (mut ids, mut others) = (Vec::new(), Vec::new());
    for _ in 0..count {
        ids.push(streams.connect(address, framing)?);
        let (other, _) = listener.accept()?;
        other.set_nodelay(true)?;
        other.set_nonblocking(true)?;
        others.push(other);
        let is_connected = |event: &StreamEvent| matches!(event, StreamEvent::Connected { .. });
        let connected = (0..POLLS_MAX).any(|_| {
            streams.poll().unwrap();
            streams.happened().iter().any(is_connected)
        });
        assert!(connected);
    }
    Ok(Connections { streams, ids, others, next: 0, read: vec![0; READ_BYTES] })
}

impl Connections {
    /// The connection whose turn it is.
    fn next(&mut self) -> usize {
        self.next = (self.next + 1) % self.ids.len();
        self.next
    }

    /// Receives until a burst has come.
    fn receive(&mut self) {
        let mut received = 0;
        while received < BURST {
            received += self.streams.poll().unwrap();
            for datagram in self.streams.batch() {
                black_box(self.streams.payload(datagram).first());
            }
        }
    }

    /// Takes what has come out of the plain sockets; how many bytes.
    fn take_sent(&mut self) -> usize {
        let mut taken = 0;
        for other in &mut self.others {
            match other.read(&mut self.read) {
                Ok(bytes) => taken += bytes,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        taken
    }
}

/// A datagram to be received and sent.
struct Case {
    /// As it is handed over.
    datagram: Vec<u8>,
    /// In its framing.
    wire: Vec<u8>,
}

impl Case {
    fn new(framing: Framing, bytes: usize) -> Self {
        let payload = vec![MEDIA; bytes];
        let length = (bytes as u16).to_be_bytes();
        match framing {
            Framing::Ice => Self { wire: [&length[..], &payload].concat(), datagram: payload },
            // Whoever is relayed writes the channel and the length himself.
            Framing::Turn => {
                let wire = [&CHANNEL.to_be_bytes()[..], &length, &payload].concat();
                Self { datagram: wire.clone(), wire }
            }
        }
    }
}

/// A benchmark of each framing, number of connections and size, in which `measure` times a burst of a
/// datagram.
fn cases(c: &mut Criterion, name: &str, measure: impl Fn(&mut Connections, &Case) -> Duration) {
    let mut group = c.benchmark_group(name);
    for (framing, called) in [(Framing::Ice, "ice"), (Framing::Turn, "turn")] {
        for count in [100, 2_000] {
            let made = connect(count, framing);
            let made = made.inspect_err(|error| skip(format!("{error} (raise ulimit -n)")));
            let Ok(mut connections) = made else { continue };
            for bytes in PAYLOAD_BYTES {
                let case = Case::new(framing, bytes);
                group.bench_function(BenchmarkId::new(called, format!("{count}x{bytes}B")), |b| {
                    b.iter_custom(|iterations| {
                        each_datagram(iterations, || measure(&mut connections, &case))
                    });
                });
            }
        }
    }
    group.finish();
}

/// Equal datagrams come on one connection after the other, `run` of them in a row.
fn receive_case(c: &mut Criterion, name: &str, run: usize) {
    cases(c, name, |connections, case| {
        let wire = case.wire.repeat(run);
        for _ in 0..BURST / run {
            let at = connections.next();
            connections.others[at].write_all(&wire).unwrap();
        }
        let started = cpu_time();
        connections.receive();
        cpu_time().saturating_sub(started)
    });
}

fn receive(c: &mut Criterion) {
    receive_case(c, "tcp_receive", 1);
    receive_case(c, "tcp_receive_runs_of_8", 8);
}

/// Equal datagrams leave on one connection after the other, `run` of them in a row.
fn send_case(c: &mut Criterion, name: &str, run: usize) {
    cases(c, name, |connections, case| {
        let started = cpu_time();
        for _ in 0..BURST / run {
            let at = connections.next();
            let id = connections.ids[at];
            (0..run).for_each(|_| connections.streams.send(id, &case.datagram));
        }
        connections.streams.flush();
        let elapsed = cpu_time().saturating_sub(started);
        let mut left = BURST * case.wire.len();
        while left > 0 {
            left -= connections.take_sent();
        }
        elapsed
    });
}

fn send(c: &mut Criterion) {
    send_case(c, "tcp_send", 1);
    send_case(c, "tcp_send_runs_of_4", 4);
}

criterion_group! {
    name = benches;
    config = settings();
    targets = receive, send
}
criterion_main!(benches);
