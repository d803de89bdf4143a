//! Over real connections, in virtual time.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::*;

/// How long the kernel may take.
const KERNEL: Duration = Duration::from_secs(10);

struct Rig {
    clients: TcpClients,
    address: SocketAddr,
    now: Instant,
    /// What came, and from where.
    heard: Vec<(SocketAddr, Vec<u8>)>,
}

impl Rig {
    /// With so many in the place of [`CONNECTIONS_MAX`](super::CONNECTIONS_MAX).
    fn new(connections_max: usize, source_connections_max: usize) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let limits = Limits { connections_max, source_connections_max };
        let clients = TcpClients::with_limits(address, limits).unwrap();
        Self { clients, address, now: Instant::now(), heard: Vec::new() }
    }

    fn poll(&mut self) {
        self.clients.poll(self.now).unwrap();
        for received in self.clients.batch() {
            self.heard.push((received.source, self.clients.payload(received).to_vec()));
        }
    }

    fn poll_until(&mut self, what: &str, until: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + KERNEL;
        while !until(self) {
            assert!(Instant::now() < deadline, "{what}");
            self.poll();
        }
    }

    /// A further connection, once it is taken.
    fn connect(&mut self) -> TcpStream {
        let client = self.connecting();
        let source = client.local_addr().unwrap();
        self.poll_until("taken", |rig| rig.clients.clients.contains_key(&source));
        client
    }

    fn connecting(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(KERNEL)).unwrap();
        client
    }

    fn pass(&mut self, time: Duration, is_peers: impl Fn(SocketAddr) -> bool) {
        self.now += time;
        self.clients.tidy(self.now, is_peers);
    }
}

/// Whether the other end has closed it, with something unread or not.
fn is_over(mut client: &TcpStream) -> bool {
    match client.read(&mut [0; 1]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

fn is_open(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let open = (&mut &*client)
        .read(&mut [0; 1])
        .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
    client.set_nonblocking(false).unwrap();
    open
}

#[test]
fn what_was_for_a_client_that_is_gone_found_no_full_queue() {
    let mut rig = Rig::new(10, 10);
    let client = rig.connect();
    let source = client.local_addr().unwrap();
    rig.clients.send(source, &[1; 100]);
    rig.clients.flush();
    assert_eq!((rig.clients.unsent(), rig.clients.undeliverable()), (0, 0));
    drop(client);
    rig.poll_until("closed", |rig| rig.clients.clients.is_empty());
    assert_eq!(rig.clients.closed(), [source]);
    assert!(rig.clients.addresses.is_empty() && rig.clients.sources.is_empty());
    rig.clients.send(source, &[1; 100]);
    assert_eq!((rig.clients.unsent(), rig.clients.undeliverable()), (0, 1));
}

#[test]
fn a_connection_by_which_no_peer_comes_is_closed() {
    let mut rig = Rig::new(10, 10);
    let idle = rig.connect();
    let mut slow = rig.connect();
    let peers = rig.connect();
    let of_peer = peers.local_addr().unwrap();
    rig.clients.claim(of_peer);
    // Half a frame, byte by byte, is nobody's check.
    for byte in [0, 200, 0, 1, 0] {
        slow.write_all(&[byte]).unwrap();
        rig.pass(UNCLAIMED_MAX / 6, |address| address == of_peer);
        rig.poll();
    }
    assert_eq!(rig.clients.clients.len(), 3);
    rig.pass(UNCLAIMED_MAX / 5, |address| address == of_peer);
    assert!(is_over(&idle) && is_over(&slow) && is_open(&peers));
    assert_eq!(rig.clients.closed_unclaimed(), [2, 0]);
    assert_eq!(rig.clients.closed().len(), 2);
    // Its peer is gone, and another may come by it.
    rig.pass(10 * UNCLAIMED_MAX, |address| address == of_peer);
    assert!(is_open(&peers));
    rig.pass(TIDY_INTERVAL, |_| false);
    rig.pass(UNCLAIMED_MAX / 2, |_| false);
    rig.clients.claim(of_peer);
    rig.pass(UNCLAIMED_MAX, |_| true);
    assert!(is_open(&peers));
    rig.pass(TIDY_INTERVAL, |_| false);
    rig.pass(UNCLAIMED_MAX, |_| false);
    assert!(is_over(&peers) && rig.clients.tidy_at().is_none());
    assert_eq!(rig.clients.closed_unclaimed(), [3, 0]);
}

#[test]
fn where_there_are_too_many_who_waits_for_longest_makes_room() {
    let mut rig = Rig::new(4, 3);
    let peers = rig.connect();
    rig.clients.claim(peers.local_addr().unwrap());
    let first = rig.connect();
    let second = rig.connect();
    // All of them have just come.
    let newcomer = rig.connecting();
    rig.poll_until("refused", |rig| rig.clients.closed_unclaimed() == [0, 1]);
    assert!(is_over(&newcomer) && is_open(&first) && is_open(&second));
    rig.now += GRACE;
    let third = rig.connect();
    assert!(is_over(&first) && is_open(&second) && is_open(&third) && is_open(&peers));
    assert_eq!((rig.clients.closed_unclaimed(), rig.clients.clients.len()), ([0, 2], 3));
    // Of peers' none is closed.
    for client in [&second, &third] {
        rig.clients.claim(client.local_addr().unwrap());
    }
    rig.now += GRACE;
    assert!(is_over(&{
        let newcomer = rig.connecting();
        rig.poll_until("refused", |rig| rig.clients.closed_unclaimed() == [0, 3]);
        newcomer
    }));
    // In all, which is another limit.
    let mut rig = Rig::new(2, 3);
    let (first, _second) = (rig.connect(), rig.connect());
    rig.now += GRACE;
    let _third = rig.connect();
    assert!(is_over(&first));
}

#[test]
fn whatever_is_framed_is_heard_or_passed_over() {
    let mut rig = Rig::new(10, 10);
    let mut client = rig.connect();
    let source = client.local_addr().unwrap();
    let mut stream = vec![0; 60_000];
    // Null packets, one that is as long as can be said, the longest that is taken, and one too long by one.
    stream.extend([0xff, 0xff]);
    stream.extend([7; 65_535]);
    stream.extend([8, 0]);
    stream.extend([8; 2_048]);
    stream.extend([8, 1]);
    stream.extend([9; 2_049]);
    stream.extend([0, 3, 1, 2, 3]);
    std::thread::spawn(move || {
        for piece in stream.chunks(7_777) {
            client.write_all(piece).unwrap();
        }
        client
    });
    rig.poll_until("heard", |rig| rig.heard.iter().any(|(_, bytes)| bytes == &[1, 2, 3]));
    assert_eq!(rig.heard, [(source, vec![8; 2_048]), (source, vec![1, 2, 3])]);
}

#[test]
fn who_does_not_read_has_so_much_waiting_and_the_rest_is_counted() {
    let mut rig = Rig::new(10, 10);
    let deaf = rig.connect();
    let source = deaf.local_addr().unwrap();
    let mut sent = 0;
    // What the kernel takes is bounded, too.
    while rig.clients.unsent() < 1_000 {
        rig.clients.send(source, &[1; 1_200]);
        sent += 1;
        rig.clients.flush();
        rig.poll();
        assert!(sent < 100_000, "it takes all");
    }
    assert_eq!(rig.clients.undeliverable(), 0);
    drop(deaf);
    rig.poll_until("closed", |rig| rig.clients.clients.is_empty());
    let waited = rig.clients.undeliverable() as usize * 1_202;
    assert!(waited > 0 && waited <= stampede_udp::WRITE_QUEUE_BYTES_MAX, "{waited}");
}
