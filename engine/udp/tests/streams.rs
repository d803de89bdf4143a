//! Datagrams over TCP on loopback: both ends, and what wakes a backend.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use stampede_testing::skip;
use stampede_udp::{
    Backend, BackendChoice, BackendLimits, Framing, StreamEvent, StreamId, Streams,
    WRITE_QUEUE_BYTES_MAX, Wait, open, unix_now_ns,
};

const SOON: Duration = Duration::from_secs(5);

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn streams() -> Streams {
    Streams::new(16, 64).unwrap()
}

fn limits() -> BackendLimits {
    BackendLimits { sockets_max: 4, ..BackendLimits::default() }
}

/// Polls until something happens to a stream.
fn event(streams: &mut Streams) -> StreamEvent {
    let end = Instant::now() + SOON;
    loop {
        streams.poll().unwrap();
        let mut happened = streams.happened();
        assert!(happened.len() <= 1, "{happened:?}");
        if let Some(event) = happened.pop() {
            return event;
        }
        assert!(Instant::now() < end, "nothing happened");
    }
}

fn connected(streams: &mut Streams, to: SocketAddr, framing: Framing) -> StreamId {
    let stream = streams.connect(to, framing).unwrap();
    let StreamEvent::Connected { stream: which, local } = event(streams) else { panic!() };
    assert_eq!((which, streams.local(stream).unwrap()), (stream, local));
    stream
}

/// Polls until so many datagrams have come.
fn received(streams: &mut Streams, count: usize) -> Vec<(StreamId, u64, Vec<u8>)> {
    let end = Instant::now() + SOON;
    let mut all = Vec::new();
    while all.len() < count {
        streams.poll().unwrap();
        let own = |received: &stampede_udp::StreamReceived| {
            let payload = streams.payload(received).to_vec();
            (received.stream, received.received_at_unix_ns, payload)
        };
        all.extend(streams.batch().iter().map(own));
        assert!(Instant::now() < end, "{} of {count}", all.len());
    }
    all
}

#[test]
fn datagrams_keep_their_bounds_and_their_time() {
    let (mut server, mut client) = (streams(), streams());
    let address = server.listen(loopback()).unwrap();
    let stream = connected(&mut client, address, Framing::Ice);
    let StreamEvent::Accepted { stream: accepted } = event(&mut server) else { panic!() };
    assert_eq!(server.remote(accepted).unwrap(), client.local(stream).unwrap());
    let sent: Vec<Vec<u8>> = (1..=200u8).map(|n| vec![n; usize::from(n) * 7]).collect();
    let before = unix_now_ns();
    sent.iter().for_each(|datagram| client.send(stream, datagram));
    client.flush();
    let came = received(&mut server, sent.len());
    assert!(came.iter().all(|(which, at, _)| {
        // The kernel's clock is not finer than its ticks.
        *which == accepted && *at + 20_000_000 > before && *at <= unix_now_ns()
    }));
    assert_eq!(came.into_iter().map(|(_, _, payload)| payload).collect::<Vec<_>>(), sent);
    server.send(accepted, b"back");
    server.flush();
    assert_eq!(received(&mut client, 1)[0].2, b"back");
    assert_eq!((client.stats().datagrams_out, client.stats().datagrams_in), (200, 1));
    assert_eq!((server.stats().connected, client.stats().connected), (1, 1));

    client.close(stream);
    let StreamEvent::Closed { stream: which, why } = event(&mut server) else { panic!() };
    assert_eq!((which, server.len()), (accepted, 0));
    assert!(why.contains("closed"), "{why}");
    server.send(accepted, b"gone");
    assert_eq!((server.stats().ended_unsent, server.stats().write_queue_full), (1, 0));
}

/// What came last, and the end, are told by one event.
#[test]
fn what_was_said_before_an_end_is_heard_and_the_end_too() {
    let mut server = streams();
    let address = server.listen(loopback()).unwrap();
    for _ in 0..2 {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(&[0, 1, 9]).unwrap();
        drop(client);
        let StreamEvent::Accepted { .. } = event(&mut server) else { panic!() };
        // Both have arrived when it is looked at.
        std::thread::yield_now();
        let end = Instant::now() + SOON;
        let (mut datagrams, mut ended) = (0, false);
        while !ended {
            datagrams += server.poll().unwrap();
            ended = matches!(server.happened()[..], [StreamEvent::Closed { .. }]);
            assert!(Instant::now() < end, "{datagrams} came");
        }
        assert_eq!((datagrams, server.len()), (1, 0));
    }
}

#[test]
fn a_port_without_a_listener_refuses() {
    let address = TcpListener::bind(loopback()).unwrap().local_addr().unwrap();
    let mut client = streams();
    // Loopback may say so at once.
    if client.connect(address, Framing::Ice).is_ok() {
        let StreamEvent::Closed { why, .. } = event(&mut client) else { panic!() };
        assert!(why.contains("refused"), "{why}");
    }
    assert_eq!((client.len(), client.stats().connects_failed), (0, 1));
}

#[test]
fn who_reads_nothing_has_a_bounded_queue_and_what_is_dropped_is_counted() {
    let listener = TcpListener::bind(loopback()).unwrap();
    let mut client = streams();
    let stream = connected(&mut client, listener.local_addr().unwrap(), Framing::Ice);
    let (mut server, _) = listener.accept().unwrap();
    let datagram = [7; 1_200];
    let mut sent = 0u64;
    while client.stats().write_queue_full == 0 {
        client.send(stream, &datagram);
        client.flush();
        sent += 1;
        assert!(sent < 100_000, "nothing bounds it");
    }
    let stats = client.stats();
    assert!(stats.write_waits > 0);
    let waiting = sent - 1;
    assert!(stats.bytes_out + WRITE_QUEUE_BYTES_MAX as u64 >= waiting * 1_202);
    // It goes on where it stopped, with whole datagrams.
    server.set_read_timeout(Some(SOON)).unwrap();
    let mut whole = vec![0; waiting as usize * 1_202];
    let reader = std::thread::spawn(move || {
        server.read_exact(&mut whole).unwrap();
        whole.chunks(1_202).all(|framed| framed[..2] == [4, 176] && framed[2..] == [7; 1_200])
    });
    let end = Instant::now() + SOON;
    while !reader.is_finished() {
        client.poll().unwrap();
        assert!(Instant::now() < end);
    }
    assert!(reader.join().unwrap());
    assert_eq!(client.stats().datagrams_out, waiting);
}

#[test]
fn what_is_no_turn_ends_the_connection_and_what_is_too_long_is_skipped() {
    let listener = TcpListener::bind(loopback()).unwrap();
    let to = listener.local_addr().unwrap();
    let mut client = streams();
    let turn = connected(&mut client, to, Framing::Turn);
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(&[0x40, 0, 0, 2, 8, 9, 0, 0, 22, 3, 1]).unwrap();
    assert_eq!(received(&mut client, 1)[0].2, [0x40, 0, 0, 2, 8, 9]);
    let mut happened = client.happened();
    while happened.is_empty() {
        client.poll().unwrap();
        happened = client.happened();
    }
    assert!(matches!(happened[..], [StreamEvent::Closed { stream, .. }] if stream == turn));

    connected(&mut client, to, Framing::Ice);
    let (mut server, _) = listener.accept().unwrap();
    let long = [vec![0x20, 0], vec![1; 0x2000], vec![0, 3, 1, 2, 3]].concat();
    server.write_all(&long).unwrap();
    assert_eq!(received(&mut client, 1)[0].2, [1, 2, 3]);
    assert_eq!(client.stats().too_long, 1);
}

#[test]
fn connections_beyond_the_maximum_are_refused_and_counted() {
    let (mut server, mut client) = (Streams::new(3, 64).unwrap(), Streams::new(2, 64).unwrap());
    let address = server.listen(loopback()).unwrap();
    let mut others: Vec<_> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut taken = Vec::new();
    let end = Instant::now() + SOON;
    while server.stats().connected + server.stats().connects_failed < 4 {
        server.poll().unwrap();
        taken.extend(server.happened());
        assert!(Instant::now() < end, "{:?}", server.stats());
    }
    assert!(taken.iter().all(|event| matches!(event, StreamEvent::Accepted { .. })), "{taken:?}");
    assert_eq!((server.len(), server.stats().connects_failed), (3, 1));
    others[3].set_read_timeout(Some(SOON)).unwrap();
    assert!(matches!(others[3].read(&mut [0]), Ok(0) | Err(_)), "the fourth is closed at once");
    // One that goes makes room.
    drop(others.remove(0));
    assert!(matches!(event(&mut server), StreamEvent::Closed { .. }));
    connected(&mut client, address, Framing::Ice);
    assert!(matches!(event(&mut server), StreamEvent::Accepted { .. }));
    // Who connects is refused before anything is sent.
    let listener = TcpListener::bind(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    connected(&mut client, address, Framing::Ice);
    client.connect(address, Framing::Ice).unwrap_err();
    assert_eq!(client.len(), 2);
}

#[test]
fn of_connections_that_wait_so_many_are_taken_in_a_poll() {
    /// As in the sources.
    const ACCEPTS_MAX: usize = 256;
    let mut server = Streams::new(1_024, 64).unwrap();
    let address = server.listen(loopback()).unwrap();
    let others = ACCEPTS_MAX + 9;
    let _others: Vec<_> = (0..others).map(|_| TcpStream::connect(address).unwrap()).collect();
    server.poll().unwrap();
    assert_eq!((server.happened().len(), server.has_more()), (ACCEPTS_MAX, true));
    server.poll().unwrap();
    assert_eq!((server.happened().len(), server.has_more()), (9, false));
}

#[test]
fn a_batch_has_so_many_bytes_and_the_rest_waits() {
    /// As in the sources.
    const READ_BYTES_MAX: usize = 64 << 10;
    const BATCH_BYTES_MAX: usize = 1 << 20;
    let (streams_max, datagrams) = (24, 100);
    let mut server = Streams::new(streams_max, usize::MAX).unwrap();
    let address = server.listen(loopback()).unwrap();
    let framed = [&1_200_u16.to_be_bytes()[..], &[7; 1_200]].concat().repeat(datagrams);
    let others = (0..streams_max).map(|_| {
        let mut other = TcpStream::connect(address).unwrap();
        other.write_all(&framed).unwrap();
        other
    });
    let others: Vec<_> = others.collect();
    let (mut came, mut largest) = (0, 0);
    let end = Instant::now() + SOON;
    while came < streams_max * datagrams {
        let batch = server.poll().unwrap();
        came += batch;
        largest = largest.max(batch);
        assert!(batch * 1_202 <= BATCH_BYTES_MAX, "{batch}");
        assert!(Instant::now() < end, "{came}");
    }
    assert!(largest * 1_202 > BATCH_BYTES_MAX / 2 && framed.len() > READ_BYTES_MAX, "{largest}");
    assert_eq!((came, others.len()), (streams_max * datagrams, server.len()));
}

/// A backend that waits long is woken by a stream, and waits again once that is read.
fn wakes(mut backend: Box<dyn Backend>) {
    let mut server = streams();
    let address = server.listen(loopback()).unwrap();
    backend.watch(server.readiness().unwrap()).unwrap();
    let wait = |timeout| Wait { timeout, gather: Duration::ZERO, datagrams_max: 64 };
    let mut client = TcpStream::connect(address).unwrap();
    let quiet = |server: &mut Streams, backend: &mut dyn Backend| {
        let started = Instant::now();
        assert_eq!(backend.poll(wait(SOON)).unwrap(), 0);
        assert!(started.elapsed() < SOON / 2, "{:?}", started.elapsed());
        server.poll().unwrap()
    };
    while server.is_empty() {
        quiet(&mut server, &mut *backend);
    }
    for round in 0..3u8 {
        client.write_all(&[0, 1, round]).unwrap();
        while quiet(&mut server, &mut *backend) == 0 {}
        assert_eq!(server.payload(&server.batch()[0]), [round]);
    }
    let started = Instant::now();
    let short = Duration::from_millis(50);
    let mut polls = 0;
    while started.elapsed() < short {
        backend.poll(wait(short)).unwrap();
        assert_eq!(server.poll().unwrap(), 0);
        polls += 1;
    }
    assert!(polls < 10, "{polls} wake-ups of nothing");
}

#[test]
fn a_stream_wakes_mmsg() {
    wakes(open(BackendChoice::Mmsg, limits()).unwrap().0);
}

#[test]
fn a_stream_wakes_io_uring() {
    match open(BackendChoice::IoUring, limits()) {
        Ok((backend, _)) => wakes(backend),
        Err(error) => skip(error),
    }
}
