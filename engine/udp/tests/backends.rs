//! Every backend against the kernel's loopback: one suite, run for each. Payloads that begin with
//! [`MEDIA`] go through the packet ring, where there is one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;
use stampede_testing::skip;
use stampede_udp::{
    Backend, BackendChoice, BackendLimits, IoUringRefusal, MmsgRefusal, OpenError,
    PacketRingRefusal, SocketBuffers, SocketId, Wait, Wake, bind, open, unix_now_ns,
};

const BUFFERS: SocketBuffers = SocketBuffers { receive_bytes: 1 << 20, send_bytes: 1 << 20 };
const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
/// What RTP begins with (RFC 7983).
const MEDIA: u8 = 0x80;
/// Nothing takes this long; it only ends a test that would hang.
const PATIENCE: Duration = Duration::from_secs(10);

fn limits() -> BackendLimits {
    BackendLimits { sockets_max: 128, ..BackendLimits::default() }
}

/// Opens a backend, or skips and returns `None`: only the kernel may refuse io_uring or a packet
/// ring.
fn backend(choice: BackendChoice, limits: BackendLimits) -> Option<Box<dyn Backend>> {
    stay_on_this_core();
    match open(choice, limits) {
        Ok((backend, report)) => {
            assert_eq!(backend.name(), report.name);
            Some(backend)
        }
        // A refusal by permission or build is not ours; any other reason is a bug.
        Err(
            refused @ (OpenError::IoUring {
                reason: IoUringRefusal::NotPermitted | IoUringRefusal::Missing,
            }
            | OpenError::PacketRing { reason: PacketRingRefusal::NotPermitted }),
        ) => {
            skip(refused);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Loopback delivers through a queue of the sending core, so a sender that is moved to another one
/// can overtake itself. The tests ask for the order within a socket; so the sender stays put.
fn stay_on_this_core() {
    // SAFETY: no pointers.
    let core = unsafe { libc::sched_getcpu() };
    assert!(core >= 0);
    run_on(core as usize..=core as usize);
}

/// For a thread that was started by one that stays put.
fn anywhere() {
    run_on(0..=libc::CPU_SETSIZE as usize - 1);
}

fn run_on(cores: RangeInclusive<usize>) {
    // SAFETY: a cpu_set_t is plain bits, for which zeroes are valid ("no core").
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is a local of the size given, and CPU_SET checks the index against it.
    let result = unsafe {
        cores.clone().for_each(|core| libc::CPU_SET(core, &mut set));
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    assert_eq!(result, 0, "to run on cores {cores:?}");
}

fn bound(ip: IpAddr) -> (UdpSocket, SocketAddr) {
    let socket = bind(SocketAddr::new(ip, 0), BUFFERS).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn add(backend: &mut dyn Backend, ip: IpAddr) -> (SocketId, SocketAddr) {
    let (socket, address) = bound(ip);
    (backend.add_socket(socket).unwrap(), address)
}

/// A plain socket outside of the backend.
fn peer(ip: IpAddr) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(SocketAddr::new(ip, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn wait(milliseconds: u64) -> Wait {
    Wait {
        timeout: Duration::from_millis(milliseconds),
        gather: Duration::ZERO,
        datagrams_max: usize::MAX,
    }
}

/// One datagram as a test sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    socket: SocketId,
    source: SocketAddr,
    unix_ns: u64,
    payload: Vec<u8>,
}

/// Polls until `count` datagrams have come (or the patience ends), then looks for extra ones.
fn collect(backend: &mut dyn Backend, count: usize) -> Vec<Seen> {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    while seen.len() < count && Instant::now() < deadline {
        poll_into(backend, wait(100), &mut seen);
    }
    poll_into(backend, wait(0), &mut seen);
    seen
}

fn poll_into(backend: &mut dyn Backend, wait: Wait, seen: &mut Vec<Seen>) -> usize {
    let count = backend.poll(wait).unwrap();
    assert_eq!(backend.batch().len(), count);
    for received in backend.batch() {
        seen.push(Seen {
            socket: received.socket,
            source: received.source,
            unix_ns: received.received_at_unix_ns,
            payload: backend.payload(received).to_vec(),
        });
    }
    count
}

fn echo(choice: BackendChoice) {
    for ip in [V4, V6] {
        let Some(mut backend) = backend(choice, limits()) else { return };
        let backend = &mut *backend;
        let sockets: Vec<_> = (0..50).map(|_| add(backend, ip)).collect();
        let clients: Vec<_> = (0..50).map(|_| peer(ip)).collect();
        let started = unix_now_ns();
        for round in 0..20u8 {
            for ((_, address), (client, _)) in sockets.iter().zip(&clients) {
                client.send_to(&[MEDIA | round; 200], address).unwrap();
            }
        }
        let seen = collect(backend, 1_000);
        let ended = unix_now_ns();
        assert_eq!(seen.len(), 1_000);
        let mut latest: HashMap<SocketId, (u8, u64)> = HashMap::new();
        for datagram in &seen {
            let at = sockets.iter().position(|(id, _)| *id == datagram.socket).unwrap();
            assert_eq!(datagram.source, clients[at].1);
            assert_eq!(datagram.payload.len(), 200);
            assert!(datagram.unix_ns + 1_000_000_000 >= started);
            assert!(datagram.unix_ns <= ended + 1_000_000_000);
            let round = datagram.payload[0] & !MEDIA;
            let before = latest.insert(datagram.socket, (round, datagram.unix_ns));
            let (expected, earlier) = before.map_or((0, 0), |(round, at)| (round + 1, at));
            assert_eq!(round, expected, "order within a socket");
            // The wall clock may be set back a little meanwhile.
            assert!(datagram.unix_ns + 50_000_000 >= earlier, "timestamps within a socket");
            backend.send(datagram.socket, datagram.source, &datagram.payload);
        }
        backend.flush();
        let mut echoed = [0; 2_000];
        for ((client, _), (_, address)) in clients.iter().zip(&sockets) {
            for round in 0..20u8 {
                let (len, source) = client.recv_from(&mut echoed).unwrap();
                assert_eq!((len, source, echoed[0]), (200, *address, MEDIA | round));
            }
        }
        let stats = backend.stats();
        assert_eq!((stats.datagrams_in, stats.bytes_in), (1_000, 200_000));
        assert_eq!((stats.datagrams_out, stats.bytes_out), (1_000, 200_000));
        assert_eq!((stats.kernel_drops, stats.send_errors, stats.send_queue_full), (0, 0, 0));
    }
}

fn drops_are_counted_exactly(choice: BackendChoice) {
    let Some(mut backend) = backend(choice, limits()) else { return };
    let backend = &mut *backend;
    let tiny = SocketBuffers { receive_bytes: 8_192, send_bytes: 65_536 };
    let socket = bind(SocketAddr::new(V4, 0), tiny).unwrap();
    let address = socket.local_addr().unwrap();
    let (client, _) = peer(V4);
    // Before it is added nothing reads, so the buffer overflows; afterwards it is added and read.
    for _ in 0..200 {
        client.send_to(&[1; 1_000], address).unwrap();
    }
    let id = backend.add_socket(socket).unwrap();
    let seen = collect(backend, 1);
    assert!((1..200).contains(&seen.len()), "{} received", seen.len());
    let lost = 200 - seen.len() as u64;
    assert_eq!(backend.socket_drops(id), lost);
    backend.refresh_drops();
    assert_eq!(backend.stats().kernel_drops, lost);
    // The next datagram tells the same number again, by its control message.
    client.send_to(&[2; 10], address).unwrap();
    assert_eq!(collect(backend, 1).len(), 1);
    assert_eq!(backend.stats().kernel_drops, lost);
    backend.remove_socket(id);
    backend.poll(wait(0)).unwrap();
    assert_eq!(backend.stats().kernel_drops, lost);
    assert_eq!(backend.socket_drops(id), 0);
}

/// The control message alone tells drops, with the next datagram.
fn drops_come_with_the_next_datagram(choice: BackendChoice) {
    let Some(mut backend) = backend(choice, limits()) else { return };
    let backend = &mut *backend;
    let tiny = SocketBuffers { receive_bytes: 8_192, send_bytes: 65_536 };
    let socket = bind(SocketAddr::new(V4, 0), tiny).unwrap();
    let address = socket.local_addr().unwrap();
    let (client, _) = peer(V4);
    for _ in 0..100 {
        client.send_to(&[1; 1_000], address).unwrap();
    }
    backend.add_socket(socket).unwrap();
    let lost = 100 - collect(backend, 1).len() as u64;
    assert!(lost > 0);
    client.send_to(&[2; 10], address).unwrap();
    assert_eq!(collect(backend, 1).len(), 1);
    assert_eq!(backend.stats().kernel_drops, lost);
}

/// A socket that has lost some of a hundred datagrams.
fn add_overflowed(backend: &mut dyn Backend) -> SocketId {
    let tiny = SocketBuffers { receive_bytes: 4_096, send_bytes: 65_536 };
    let socket = bind(SocketAddr::new(V4, 0), tiny).unwrap();
    let address = socket.local_addr().unwrap();
    let (client, _) = peer(V4);
    for _ in 0..100 {
        client.send_to(&[1; 1_000], address).unwrap();
    }
    backend.add_socket(socket).unwrap()
}

fn drops_count_at_removal(choice: BackendChoice) {
    let Some(mut backend) = backend(choice, limits()) else { return };
    let id = add_overflowed(&mut *backend);
    assert_eq!(backend.stats().kernel_drops, 0, "nobody has asked");
    backend.remove_socket(id);
    assert!(backend.stats().kernel_drops > 0);
}

fn drops_count_once_whoever_asks(choice: BackendChoice) {
    let Some(mut backend) = backend(choice, limits()) else { return };
    let id = add_overflowed(&mut *backend);
    let lost = backend.socket_drops(id);
    assert!(lost > 0);
    assert_eq!((backend.socket_drops(id), backend.stats().kernel_drops), (lost, lost));
    backend.refresh_drops();
    backend.remove_socket(id);
    assert_eq!(backend.stats().kernel_drops, lost);
}

fn truncated_datagrams_are_counted_and_kept_back(choice: BackendChoice) {
    let Some(mut backend) = backend(choice, limits()) else { return };
    let backend = &mut *backend;
    let (_, address) = add(backend, V4);
    let (client, _) = peer(V4);
    /// As in the sources.
    const HANDED_OUT_BYTES_MAX: usize = 2_048;
    for len in [100, HANDED_OUT_BYTES_MAX + 1, HANDED_OUT_BYTES_MAX, 60_000, 0, 7] {
        client.send_to(&vec![len as u8; len], address).unwrap();
    }
    let seen = collect(backend, 4);
    let lens: Vec<_> = seen.iter().map(|datagram| datagram.payload.len()).collect();
    assert_eq!(lens, [100, 2_048, 0, 7]);
    assert_eq!(backend.stats().uncategorised.truncated, 2);
}

/// More of them than fit a batch or the receive buffers, and then a good one.
fn a_flood_of_truncated_datagrams_ends_no_poll(choice: BackendChoice) {
    let few = BackendLimits { receive_buffers_max: 16, batch_max: 4, ..limits() };
    let Some(mut backend) = backend(choice, few) else { return };
    let backend = &mut *backend;
    let (_, address) = add(backend, V4);
    let (client, _) = peer(V4);
    for _ in 0..50 {
        client.send_to(&[1; 3_000], address).unwrap();
    }
    client.send_to(&[2; 5], address).unwrap();
    let patient = Wait { timeout: PATIENCE, gather: Duration::ZERO, datagrams_max: usize::MAX };
    let mut seen = Vec::new();
    assert_eq!(poll_into(backend, patient, &mut seen), 1);
    assert_eq!(seen[0].payload, [2; 5]);
    assert_eq!(backend.stats().uncategorised.truncated, 50);
}

fn a_dead_port_is_counted_and_hurts_nobody(choice: BackendChoice) {
    for ip in [V4, V6] {
        let Some(mut backend) = backend(choice, limits()) else { return };
        let backend = &mut *backend;
        let (id, address) = add(backend, ip);
        let (client, client_address) = peer(ip);
        let (closed, dead) = peer(ip);
        drop(closed);
        backend.poll(wait(0)).unwrap();
        for round in 0..20u8 {
            backend.send(id, dead, &[9; 50]);
            backend.flush();
            // The report for the dead port must not cost the next, innocent datagram.
            backend.send(id, client_address, &[round; 20]);
            backend.flush();
            let mut echoed = [0; 100];
            assert_eq!(client.recv_from(&mut echoed).unwrap(), (20, address));
            assert_eq!(echoed[0], round);
            client.send_to(&[round; 30], address).unwrap();
            let seen = collect(backend, 1);
            assert_eq!(seen.len(), 1);
            assert_eq!(seen[0].payload, [round; 30]);
        }
        let stats = backend.stats();
        assert_eq!((stats.send_errors, stats.undeliverable), (0, 20));
        assert_eq!(stats.datagrams_out, 40);
    }
}

/// A socket that many peers share, some of them gone: what it sends to the others in the same flush
/// comes in order, as nothing is held up by a report about somebody else.
fn dead_ports_leave_the_others_in_order(choice: BackendChoice) {
    for ip in [V4, V6] {
        let Some(mut backend) = backend(choice, limits()) else { return };
        let backend = &mut *backend;
        let (id, _) = add(backend, ip);
        backend.ignore_reports(id).unwrap();
        let (client, client_address) = peer(ip);
        let (closed, dead) = peer(ip);
        drop(closed);
        backend.poll(wait(0)).unwrap();
        for round in 0..100u8 {
            backend.send(id, dead, &[9; 50]);
            backend.send(id, client_address, &[round; 20]);
        }
        backend.flush();
        let mut datagram = [0; 100];
        for round in 0..100u8 {
            assert_eq!(client.recv_from(&mut datagram).unwrap().0, 20);
            assert_eq!(datagram[0], round);
        }
        backend.poll(wait(0)).unwrap();
        let stats = backend.stats();
        assert_eq!((stats.datagrams_out, stats.send_errors, stats.undeliverable), (200, 0, 0));
    }
    let Some(mut backend) = backend(choice, limits()) else { return };
    assert!(backend.ignore_reports(SocketId(0)).is_err(), "there is no socket");
}

/// Reports of dead ports that arrive while a poll waits neither end it nor make it spin.
fn reports_alone_do_not_make_a_poll_spin(choice: BackendChoice) {
    let Some(mut backend) = backend(choice, limits()) else { return };
    let backend = &mut *backend;
    let (id, _) = add(backend, V4);
    let (closed, dead) = peer(V4);
    drop(closed);
    backend.poll(wait(0)).unwrap();
    for _ in 0..10 {
        backend.send(id, dead, &[9; 50]);
        backend.flush();
    }
    let before = backend.stats().syscalls;
    assert_eq!(backend.poll(wait(50)).unwrap(), 0);
    assert_eq!(backend.stats().undeliverable, 10);
    let calls = backend.stats().syscalls - before;
    assert!(calls < 100, "{calls} system calls");
}

fn a_waker_ends_a_poll(choice: BackendChoice) {
    let Some(mut backend) = backend(choice, limits()) else { return };
    add(&mut *backend, V4);
    let forever = Wait {
        timeout: Duration::from_secs(60),
        gather: Duration::ZERO,
        datagrams_max: usize::MAX,
    };
    for _ in 0..3 {
        let waker = backend.waker();
        let thread = std::thread::spawn(move || {
            waker.wake();
            waker.clone().wake();
        });
        let started = Instant::now();
        assert_eq!(backend.poll(forever).unwrap(), 0);
        assert!(started.elapsed() < Duration::from_secs(30));
        thread.join().unwrap();
        // The second wake may have come after the first poll; it ends at most one more.
        backend.poll(wait(0)).unwrap();
    }
    backend.waker().wake();
    assert_eq!(backend.poll(forever).unwrap(), 0, "a wake before the poll ends it, too");
    assert_eq!(backend.poll(wait(5)).unwrap(), 0);
}

fn sockets_can_go_while_datagrams_are_in_flight(choice: BackendChoice) {
    let few = BackendLimits { receive_buffers_max: 16, batch_max: 8, ..limits() };
    let Some(mut backend) = backend(choice, few) else { return };
    let backend = &mut *backend;
    let (client, _) = peer(V4);
    let (stays, stays_at) = add(backend, V4);
    // Addresses no other test binds: their ports must be free again afterwards.
    let last = match choice {
        BackendChoice::Mmsg => 1,
        BackendChoice::PacketRing => 2,
        _ => 3,
    };
    let own_ip = IpAddr::V4(Ipv4Addr::new(127, 77, 0, last));
    let mut received_by_stays = 0;
    for round in 0..30u8 {
        let (goes, goes_at) = add(backend, own_ip);
        for _ in 0..20 {
            client.send_to(&[round; 100], goes_at).unwrap();
            client.send_to(&[200; 100], stays_at).unwrap();
        }
        let mut seen = Vec::new();
        if round % 3 > 0 {
            poll_into(backend, wait(100), &mut seen);
        }
        backend.remove_socket(goes);
        backend.remove_socket(goes);
        backend.send(goes, stays_at, &[0; 10]);
        while received_by_stays < 20 * (usize::from(round) + 1) {
            for datagram in seen.drain(..) {
                if datagram.socket == stays {
                    assert_eq!(datagram.payload, [200; 100]);
                    received_by_stays += 1;
                } else {
                    assert_eq!(datagram.payload, [round; 100]);
                }
            }
            if received_by_stays < 20 * (usize::from(round) + 1) {
                poll_into(backend, wait(100), &mut seen);
            }
        }
        if round % 5 == 0 {
            // Closed for good: the address is free again.
            for _ in 0..4 {
                backend.poll(wait(1)).unwrap();
            }
            UdpSocket::bind(goes_at).unwrap();
        }
    }
    assert_eq!(backend.stats().send_errors, 30, "sends on a removed socket are counted");
    let (client, _) = peer(V4);
    let (again, again_at) = add(backend, V4);
    client.send_to(&[7; 7], again_at).unwrap();
    let seen = collect(backend, 1);
    assert_eq!((seen[0].socket, &seen[0].payload[..]), (again, &[7; 7][..]));
}

fn a_batch_is_bounded_and_the_rest_waits(choice: BackendChoice) {
    let few = BackendLimits { batch_max: 10, ..limits() };
    let Some(mut backend) = backend(choice, few) else { return };
    let backend = &mut *backend;
    let (_, address) = add(backend, V4);
    let (client, _) = peer(V4);
    for number in 0..95u8 {
        client.send_to(&[number], address).unwrap();
    }
    let mut seen = Vec::new();
    let mut stale = None;
    while seen.len() < 95 {
        // The caller may want fewer.
        let datagrams_max = if seen.len() < 40 { usize::MAX } else { 3 };
        let gathering = Wait { timeout: PATIENCE, gather: Duration::from_millis(1), datagrams_max };
        let count = poll_into(backend, gathering, &mut seen);
        assert!((1..=datagrams_max.min(10)).contains(&count));
        if let Some(stale) = stale.replace(backend.batch()[0]) {
            assert!(backend.payload(&stale).is_empty(), "a datagram of an earlier batch");
        }
    }
    let numbers: Vec<_> = seen.iter().map(|datagram| datagram.payload[0]).collect();
    assert_eq!(numbers, (0..95).collect::<Vec<u8>>());
}

/// What leaves as one segment run arrives as one, cut apart again; a batch takes its last segment
/// run whole.
fn a_segment_run_arrives_as_one(choice: BackendChoice) {
    for ip in [V4, V6] {
        let Some(mut backend) = backend(choice, limits()) else { return };
        let backend = &mut *backend;
        let (from, source) = add(backend, ip);
        let (_, target) = add(backend, ip);
        backend.poll(wait(0)).unwrap();
        for number in 0..9u8 {
            backend.send(from, target, &[MEDIA | number; 900]);
        }
        backend.send(from, target, &[MEDIA | 9; 7]);
        backend.send(from, target, &[MEDIA | 10; 900]);
        let few = Wait { datagrams_max: 1, ..wait(1_000) };
        let mut seen = Vec::new();
        assert_eq!(poll_into(backend, few, &mut seen), 10);
        seen.extend(collect(backend, 1));
        let expected: Vec<_> = (0..11u8)
            .map(|number| vec![MEDIA | number; if number == 9 { 7 } else { 900 }])
            .collect();
        let payloads: Vec<_> = seen.iter().map(|datagram| datagram.payload.clone()).collect();
        assert_eq!(payloads, expected);
        assert!(seen.iter().all(|datagram| datagram.source == source));
        let stamps: Vec<_> = seen[..10].iter().map(|datagram| datagram.unix_ns).collect();
        assert!(stamps.iter().all(|&stamp| stamp == stamps[0]), "{stamps:?}");
        let stats = backend.stats();
        assert_eq!((stats.datagrams_in, stats.segment_runs_in, stats.bytes_in), (11, 2, 9_007));
    }
}

/// The longest segment run there is, longer than any that we send.
fn a_segment_run_of_64_kib_arrives_whole(choice: BackendChoice) {
    const SEGMENT_BYTES: usize = 1_200;
    let Some(mut backend) = backend(choice, limits()) else { return };
    let backend = &mut *backend;
    let (_, target) = add(backend, V4);
    let (client, _) = peer(V4);
    set_option(&client, libc::SOL_UDP, libc::UDP_SEGMENT, SEGMENT_BYTES as i32);
    backend.poll(wait(0)).unwrap();
    let run: Vec<u8> =
        (0..54 * SEGMENT_BYTES + 5).map(|at| MEDIA | (at / SEGMENT_BYTES) as u8).collect();
    client.send_to(&run, target).unwrap();
    let seen = collect(backend, 55);
    let payloads: Vec<_> = seen.iter().map(|datagram| &datagram.payload[..]).collect();
    assert_eq!(payloads, run.chunks(SEGMENT_BYTES).collect::<Vec<_>>());
    assert_eq!(backend.stats().segment_runs_in, 1);
    // Longer datagrams than are handed out.
    set_option(&client, libc::SOL_UDP, libc::UDP_SEGMENT, 3_000);
    client.send_to(&[MEDIA; 9_001], target).unwrap();
    assert_eq!(poll_into(backend, wait(20), &mut Vec::new()), 0);
    assert_eq!(backend.stats().uncategorised.truncated, 4);
}

/// The kernel counts a segment run that finds no room as one drop; the estimate has all its
/// datagrams.
fn dropped_runs_are_estimated_by_their_length(choice: BackendChoice) {
    let Some(mut backend) = backend(choice, limits()) else { return };
    let Some(mut sender) = crate::backend(BackendChoice::Mmsg, limits()) else { return };
    let backend = &mut *backend;
    let small = SocketBuffers { receive_bytes: 64 * 1024, send_bytes: 64 * 1024 };
    let socket = bind(SocketAddr::new(V4, 0), small).unwrap();
    let target = socket.local_addr().unwrap();
    backend.add_socket(socket).unwrap();
    let (from, _) = add(&mut *sender, V4);
    backend.poll(wait(0)).unwrap();
    for _ in 0..40 {
        for _ in 0..10 {
            sender.send(from, target, &[1; 1_000]);
        }
        sender.flush();
    }
    let mut seen = Vec::new();
    while poll_into(backend, wait(50), &mut seen) > 0 {}
    backend.refresh_drops();
    let stats = backend.stats();
    assert!(stats.segment_runs_dropped > 0, "{stats:?}");
    assert_eq!(stats.segment_runs_in + stats.segment_runs_dropped, 40, "{stats:?}");
    assert_eq!(stats.datagrams_in + stats.kernel_drops, 400, "{stats:?}");
}

fn nothing_is_lost_when_receive_buffers_run_out(choice: BackendChoice) {
    let few = BackendLimits { receive_buffers_max: 16, batch_max: 4, ..limits() };
    let Some(mut backend) = backend(choice, few) else { return };
    let backend = &mut *backend;
    let sockets: Vec<_> = (0..40).map(|_| add(backend, V4)).collect();
    let (client, _) = peer(V4);
    for number in 0..50u8 {
        for (_, address) in &sockets {
            client.send_to(&[MEDIA | number; 300], address).unwrap();
        }
    }
    let seen = collect(backend, 2_000);
    assert_eq!(seen.len(), 2_000);
    let mut next: HashMap<SocketId, u8> = HashMap::new();
    for datagram in &seen {
        let next = next.entry(datagram.socket).or_default();
        assert_eq!(datagram.payload, [MEDIA | *next; 300]);
        *next += 1;
    }
    let stats = backend.stats();
    assert_eq!((stats.datagrams_in, stats.kernel_drops), (2_000, 0));
    if choice == BackendChoice::IoUring {
        assert!(stats.uncategorised.receive_pauses > 0);
    }
}

fn a_segment_run_arrives_as_separate_datagrams(choice: BackendChoice) {
    for ip in [V4, V6] {
        let Some(mut backend) = backend(choice, limits()) else { return };
        let (id, address) = add(&mut *backend, ip);
        let (client, client_address) = peer(ip);
        let before = backend.stats().syscalls;
        let lens = [900, 900, 900, 900, 900, 333, 900, 1_000, 1_000];
        for (number, len) in lens.into_iter().enumerate() {
            backend.send(id, client_address, &vec![number as u8; len]);
        }
        backend.flush();
        assert!(backend.stats().syscalls - before <= 2);
        let mut buffer = [0; 70_000];
        for (number, len) in lens.into_iter().enumerate() {
            assert_eq!(client.recv_from(&mut buffer).unwrap(), (len, address));
            assert!(buffer[..len].iter().all(|byte| usize::from(*byte) == number));
        }
        let stats = backend.stats();
        assert_eq!((stats.datagrams_out, stats.bytes_out), (9, 7_733));
        assert_eq!(stats.send_errors, 0);
    }
}

/// The kernel refuses GSO on a socket that sends without checksums; the datagrams go one by one.
fn a_refused_segment_run_is_sent_one_by_one(choice: BackendChoice) {
    let Some(mut backend) = backend(choice, limits()) else { return };
    let (socket, address) = bound(V4);
    set_option(&socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1);
    let id = backend.add_socket(socket).unwrap();
    let (client, client_address) = peer(V4);
    let mut buffer = [0; 2_000];
    let mut calls = Vec::new();
    for _ in 0..2 {
        let before = backend.stats().syscalls;
        for number in 0..10u8 {
            backend.send(id, client_address, &[number; 500]);
        }
        backend.flush();
        calls.push(backend.stats().syscalls - before);
        for number in 0..10u8 {
            assert_eq!(client.recv_from(&mut buffer).unwrap(), (500, address));
            assert_eq!(buffer[0], number);
        }
    }
    let stats = backend.stats();
    assert_eq!((stats.datagrams_out, stats.bytes_out, stats.send_errors), (20, 10_000, 0));
    assert!(calls[0] > 10 && calls[1] < 3, "remembered: {calls:?}");
}

fn set_option(socket: &UdpSocket, level: i32, name: i32, value: i32) {
    use std::os::fd::AsRawFd;
    // SAFETY: the pointer and length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn every_send_is_sent_or_counted(choice: BackendChoice) {
    let few = BackendLimits { send_slots_max: 8, ..limits() };
    let Some(mut backend) = backend(choice, few) else { return };
    let backend = &mut *backend;
    let (id, _) = add(backend, V4);
    let (other, _) = add(backend, V4);
    let clients: Vec<_> = (0..10).map(|_| peer(V4)).collect();
    let unroutable = SocketAddr::new(V6, 9);
    let mut queued = 0u64;
    for round in 0..30u8 {
        for (_, address) in &clients {
            backend.send(id, *address, &[round; 100]);
            queued += 1;
        }
        // Neither an impossible address nor an impossible length may touch the others.
        backend.send(other, unroutable, &[round; 100]);
        backend.send(other, clients[0].1, &vec![round; 70_000]);
        queued += 2;
    }
    backend.flush();
    let stats = backend.stats();
    assert_eq!(stats.datagrams_out + stats.send_errors + stats.send_queue_full, queued);
    assert_eq!((stats.datagrams_out, stats.send_errors), (300, 60));
    for (client, _) in &clients {
        let mut buffer = [0; 200];
        for round in 0..30u8 {
            assert_eq!(client.recv_from(&mut buffer).unwrap().0, 100);
            assert_eq!(buffer[0], round);
        }
    }
}

fn thousands_of_destinations_from_one_socket(choice: BackendChoice) {
    let Some(mut backend) = backend(choice, BackendLimits::default()) else { return };
    let backend = &mut *backend;
    let (sender, sender_address) = add(backend, V4);
    let receivers: Vec<_> = (0..1_000).map(|_| add(backend, V4)).collect();
    backend.poll(wait(0)).unwrap();
    for round in 0..3u8 {
        for (_, address) in &receivers {
            for _ in 0..2 {
                backend.send(sender, *address, &[MEDIA | round; 1_000]);
            }
        }
    }
    backend.flush();
    let seen = collect(backend, 6_000);
    assert_eq!(seen.len(), 6_000);
    assert!(seen.iter().all(|datagram| datagram.source == sender_address));
    let stats = backend.stats();
    assert_eq!((stats.datagrams_out, stats.send_errors, stats.kernel_drops), (6_000, 0, 0));
}

fn the_number_of_sockets_is_bounded(choice: BackendChoice) {
    let few = BackendLimits { sockets_max: 3, ..limits() };
    let Some(mut backend) = backend(choice, few) else { return };
    let ids: Vec<_> = (0..3).map(|_| add(&mut *backend, V4).0).collect();
    let refused = backend.add_socket(bound(V4).0).unwrap_err();
    assert!(refused.to_string().contains("sockets_max"), "{refused}");
    backend.remove_socket(ids[1]);
    for _ in 0..4 {
        backend.poll(wait(1)).unwrap();
    }
    add(&mut *backend, V4);
}

macro_rules! suite {
    ($($test:ident)*) => {
        mod mmsg {
            $(#[test] fn $test() { super::$test(super::BackendChoice::Mmsg); })*
        }
        mod io_uring {
            $(#[test] fn $test() { super::$test(super::BackendChoice::IoUring); })*
        }
        mod packet_ring {
            $(#[test] fn $test() { super::$test(super::BackendChoice::PacketRing); })*
        }
    };
}

suite! {
    echo
    drops_are_counted_exactly
    drops_come_with_the_next_datagram
    drops_count_at_removal
    drops_count_once_whoever_asks
    a_segment_run_arrives_as_one
    a_segment_run_of_64_kib_arrives_whole
    dropped_runs_are_estimated_by_their_length
    truncated_datagrams_are_counted_and_kept_back
    a_flood_of_truncated_datagrams_ends_no_poll
    a_dead_port_is_counted_and_hurts_nobody
    dead_ports_leave_the_others_in_order
    reports_alone_do_not_make_a_poll_spin
    a_waker_ends_a_poll
    sockets_can_go_while_datagrams_are_in_flight
    a_batch_is_bounded_and_the_rest_waits
    nothing_is_lost_when_receive_buffers_run_out
    a_segment_run_arrives_as_separate_datagrams
    a_refused_segment_run_is_sent_one_by_one
    every_send_is_sent_or_counted
    thousands_of_destinations_from_one_socket
    the_number_of_sockets_is_bounded
}

/// Does something on a thread for which these system calls fail, as under a seccomp profile.
fn refusing<T: Send>(refusals: &[(i64, i32)], work: impl FnOnce() -> T + Send) -> T {
    let instruction = |code: u32, jf, k| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    // The number of the call; and for each that fails, in linux/seccomp.h's words, what it returns.
    let mut program = vec![instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for &(call, errno) in refusals {
        program.push(instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, call as u32));
        program.push(instruction(libc::BPF_RET, 0, libc::SECCOMP_RET_ERRNO | errno as u32));
    }
    program.push(instruction(libc::BPF_RET, 0, libc::SECCOMP_RET_ALLOW));
    let inside = move || {
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: the pointer is to a filter whose program is as long as it says; both outlive the
        // calls. They change this thread only.
        let result = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                + libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter)
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        work()
    };
    std::thread::scope(|scope| scope.spawn(inside).join().unwrap())
}

/// What is refused is passed over, and the reason says so.
#[test]
fn auto_takes_what_there_is_and_says_why() {
    const NO_BPF: (i64, i32) = (libc::SYS_bpf, libc::EPERM);
    const NO_URING: (i64, i32) = (libc::SYS_io_uring_setup, libc::ENOSYS);
    let opened = |refusals: &[(i64, i32)], limits| {
        refusing(refusals, || {
            open(BackendChoice::Auto, limits).map(|(backend, report)| {
                assert_eq!(backend.name(), report.name);
                assert!(report.reason.starts_with(report.name), "{}", report.reason);
                report
            })
        })
    };
    let best = opened(&[], limits()).unwrap();
    let mut has_ring = true;
    let mut has_uring = true;
    if best.name != "packet_ring" {
        has_ring = false;
        skip(&best.reason);
    }
    let without_ring = opened(&[NO_BPF], limits()).unwrap();
    let refused = &without_ring.reason;
    assert!(refused.contains("no packet_ring: refused by the kernel (EPERM: "), "{refused}");
    if without_ring.name != "io_uring" {
        has_uring = false;
        skip(&without_ring.reason);
    }
    // For one socket it is not worth it.
    let single = opened(&[], BackendLimits { sockets_max: 1, ..limits() }).unwrap();
    assert_eq!(single.name, if has_uring { "io_uring" } else { "mmsg" });
    if has_ring {
        assert!(!best.reason.contains("no "), "{}", best.reason);
    }
    let plain = opened(&[NO_BPF, NO_URING], limits()).unwrap();
    assert_eq!(plain.name, "mmsg");
    for refusal in ["no packet_ring: refused", "no io_uring: no io_uring in this kernel"] {
        assert!(plain.reason.contains(refusal), "{}", plain.reason);
    }
    for call in [libc::SYS_recvmmsg, libc::SYS_sendmmsg] {
        let nothing = opened(&[NO_BPF, NO_URING, (call, libc::ENOSYS)], limits());
        assert!(matches!(nothing, Err(OpenError::Mmsg { reason: MmsgRefusal::Missing })));
    }
}

/// RTP comes through a ring without any of these calls, ICE and DTLS don't.
#[test]
fn a_packet_ring_is_refused_without_the_calls_of_its_sockets() {
    if let Err(error) = open(BackendChoice::PacketRing, limits()) {
        return skip(error);
    }
    for (call, errno, words) in [
        (libc::SYS_recvmmsg, libc::ENOSYS, "(ENOSYS)"),
        (libc::SYS_recvmmsg, libc::EPERM, "(EPERM"),
        (libc::SYS_sendmmsg, libc::ENOSYS, "(ENOSYS)"),
    ] {
        let ring = refusing(&[(call, errno)], || {
            open(BackendChoice::PacketRing, limits()).err().unwrap().to_string()
        });
        let begins = "a packet ring can't be used: its sockets take what mmsg takes: ";
        assert!(ring.starts_with(begins) && ring.contains(words), "{ring}");
        // io_uring needs none of them; without it there is nothing left, and that is said.
        let rest = refusing(&[(call, errno), (libc::SYS_io_uring_setup, libc::ENOSYS)], || {
            open(BackendChoice::Auto, limits()).err().unwrap().to_string()
        });
        assert!(rest.starts_with("mmsg can't be used: ") && rest.contains(words), "{rest}");
    }
}

/// What was asked for is had or refused, at once and with the reason.
#[test]
fn mmsg_without_its_calls_is_refused() {
    let refused = refusing(&[(libc::SYS_recvmmsg, libc::EPERM)], || {
        open(BackendChoice::Mmsg, limits()).err().unwrap().to_string()
    });
    assert!(refused.starts_with("mmsg can't be used: refused by the kernel (EPERM"), "{refused}");
}

#[test]
fn a_limit_out_of_range_is_named() {
    let wrong = BackendLimits { batch_max: 0, ..limits() };
    let error = open(BackendChoice::Mmsg, wrong).err().unwrap();
    assert_eq!(error.to_string(), "batch_max is 0; use 1 to 16384");
}

#[test]
fn a_socket_gets_the_buffers_asked_for() {
    let wanted = SocketBuffers { receive_bytes: 100_000, send_bytes: 50_000 };
    let socket = bind(SocketAddr::new(V4, 0), wanted).unwrap();
    let socket = SockRef::from(&socket);
    // The kernel doubles the number and reports the double.
    assert_eq!(socket.recv_buffer_size().unwrap(), 2 * wanted.receive_bytes);
    assert_eq!(socket.send_buffer_size().unwrap(), 2 * wanted.send_bytes);
}

/// What only a packet ring can get wrong.
mod packet_ring_alone {
    use super::*;
    use socket2::{Domain, Protocol, Socket, Type};

    fn ring() -> Option<Box<dyn Backend>> {
        backend(BackendChoice::PacketRing, limits())
    }

    fn numbers(seen: &[Seen]) -> Vec<u8> {
        seen.iter().map(|datagram| datagram.payload[0] & !MEDIA).collect()
    }

    fn sequence(number: u16) -> Vec<u8> {
        let mut payload = vec![MEDIA; 1_000];
        payload[1..3].copy_from_slice(&number.to_be_bytes());
        payload
    }

    /// What finds no room is read from its socket, in order with what the ring has of it, also of
    /// what comes when there is room again; and in the end everything comes through the ring.
    #[test]
    fn a_full_ring_spills_into_the_sockets_and_nothing_is_lost() {
        let tiny = BackendLimits { packet_ring_bytes_max: 1, batch_max: 50, ..limits() };
        let Some(mut backend) = backend(BackendChoice::PacketRing, tiny) else { return };
        let backend = &mut *backend;
        let sockets = [V4, V6].map(|ip| (add(backend, ip), peer(ip).0));
        let mut sent = 0;
        let mut send = |count| {
            for _ in 0..count {
                for ((_, address), client) in &sockets {
                    client.send_to(&sequence(sent), address).unwrap();
                }
                sent += 1;
            }
            2 * usize::from(sent)
        };
        let mut seen = Vec::new();
        send(300);
        // There is room for some of these.
        for _ in 0..10 {
            poll_into(backend, wait(0), &mut seen);
            send(10);
        }
        let expected = send(0);
        while seen.len() < expected && poll_into(backend, wait(100), &mut seen) > 0 {}
        // It takes another look to find a socket empty.
        poll_into(backend, wait(0), &mut seen);
        let (stats, before) = (backend.stats(), seen.len());
        assert!(stats.ring_spills > 100 && stats.ring_runs_in > 90, "{stats:?}");
        assert_eq!(stats.ring_spills + stats.ring_runs_in, before as u64);
        let expected = send(20);
        seen.extend(collect(backend, expected - before));
        assert_eq!(backend.stats().ring_spills, stats.ring_spills);
        assert_eq!(backend.stats().ring_runs_in, stats.ring_runs_in + 40);
        for ((socket, _), _) in &sockets {
            let of = seen.iter().filter(|datagram| datagram.socket == *socket);
            let numbers =
                of.map(|datagram| u16::from_be_bytes([datagram.payload[1], datagram.payload[2]]));
            assert_eq!(numbers.collect::<Vec<_>>(), (0..420).collect::<Vec<_>>());
            assert_eq!(backend.socket_drops(*socket), 0);
        }
    }

    /// Somebody who asks for the drops meanwhile changes nothing of that.
    #[test]
    fn asking_for_drops_leaves_the_order() {
        let tiny = BackendLimits { packet_ring_bytes_max: 1, ..limits() };
        let Some(mut backend) = backend(BackendChoice::PacketRing, tiny) else { return };
        let backend = &mut *backend;
        let (_, address) = add(backend, V4);
        let (client, _) = peer(V4);
        for number in 0..300 {
            client.send_to(&sequence(number), address).unwrap();
        }
        backend.refresh_drops();
        assert!(backend.stats().ring_spills > 100);
        let seen = collect(backend, 300);
        let numbers = seen.iter().map(|one| u16::from_be_bytes([one.payload[1], one.payload[2]]));
        assert_eq!(numbers.collect::<Vec<_>>(), (0..300).collect::<Vec<_>>());
    }

    /// While more and more spills, the sockets that have it are read all the same, a batch a poll.
    #[test]
    fn sockets_are_read_while_others_go_on_to_send() {
        const POLLS: usize = 5;
        let tiny = BackendLimits { packet_ring_bytes_max: 1, ..limits() };
        let Some(mut backend) = backend(BackendChoice::PacketRing, tiny) else { return };
        let backend = &mut *backend;
        let addresses: Vec<_> = (0..100).map(|_| add(backend, V4).1).collect();
        let (client, _) = peer(V4);
        for address in &addresses {
            for _ in 0..100 {
                client.send_to(&[MEDIA; 1_000], address).unwrap();
            }
        }
        backend.refresh_drops();
        let before = backend.stats().ring_spills;
        let enough = AtomicBool::new(false);
        let seen = std::thread::scope(|scope| {
            scope.spawn(|| {
                anywhere();
                for _ in 0..1_000_000 {
                    client.send_to(&[MEDIA; 1_000], addresses[0]).unwrap();
                    if enough.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            while backend.stats().ring_spills == before {
                std::thread::yield_now();
                backend.refresh_drops();
            }
            let mut seen = Vec::new();
            for _ in 0..POLLS {
                poll_into(backend, wait(0), &mut seen);
            }
            enough.store(true, Ordering::Relaxed);
            seen
        });
        assert!(seen.len() > (POLLS - 1) * 1_000, "{}: {:?}", seen.len(), backend.stats());
    }

    /// Also where all that has come so far came through the ring.
    #[test]
    fn dropped_runs_are_as_long_as_those_of_the_ring() {
        let tiny = BackendLimits { packet_ring_bytes_max: 1, ..limits() };
        let Some(mut backend) = backend(BackendChoice::PacketRing, tiny) else { return };
        let Some(mut sender) = super::backend(BackendChoice::Mmsg, limits()) else { return };
        let backend = &mut *backend;
        let small = SocketBuffers { receive_bytes: 64 * 1024, send_bytes: 64 * 1024 };
        let socket = bind(SocketAddr::new(V4, 0), small).unwrap();
        let target = socket.local_addr().unwrap();
        let id = backend.add_socket(socket).unwrap();
        let (from, _) = add(&mut *sender, V4);
        let mut send = |runs| {
            for _ in 0..runs {
                for _ in 0..10 {
                    sender.send(from, target, &[MEDIA; 1_000]);
                }
                sender.flush();
            }
        };
        send(5);
        assert_eq!(collect(backend, 50).len(), 50);
        send(60);
        let (lost, stats) = (backend.socket_drops(id), backend.stats());
        assert!(stats.segment_runs_dropped > 10, "{stats:?}");
        assert_eq!((lost, stats.kernel_drops), (10 * stats.segment_runs_dropped, lost));
        while poll_into(backend, wait(20), &mut Vec::new()) > 0 {}
        let stats = backend.stats();
        assert_eq!(stats.datagrams_in + stats.kernel_drops, 650, "{stats:?}");
    }

    /// What the ring still has of a closed socket is counted, and not taken for that of the next
    /// one with its port.
    #[test]
    fn what_comes_for_a_closed_socket_is_counted() {
        let Some(mut backend) = ring() else { return };
        let backend = &mut *backend;
        let (id, address) = add(backend, V4);
        let (client, _) = peer(V4);
        for _ in 0..3 {
            client.send_to(&[MEDIA; 100], address).unwrap();
        }
        backend.remove_socket(id);
        backend.add_socket(bind(address, BUFFERS).unwrap()).unwrap();
        client.send_to(&[MEDIA | 1; 100], address).unwrap();
        assert_eq!(numbers(&collect(backend, 1)), [1]);
        let stats = backend.stats();
        assert_eq!((stats.uncategorised.for_closed_sockets, stats.datagrams_in), (3, 1));
    }

    /// With both full the kernel drops, and it counts at the socket.
    #[test]
    fn what_neither_has_room_for_is_dropped_and_counted() {
        let tiny = BackendLimits { packet_ring_bytes_max: 1, ..limits() };
        let Some(mut backend) = backend(BackendChoice::PacketRing, tiny) else { return };
        let backend = &mut *backend;
        let small = SocketBuffers { receive_bytes: 16_384, send_bytes: 65_536 };
        let socket = bind(SocketAddr::new(V4, 0), small).unwrap();
        let address = socket.local_addr().unwrap();
        let id = backend.add_socket(socket).unwrap();
        let (client, _) = peer(V4);
        for number in 0..500 {
            client.send_to(&sequence(number), address).unwrap();
        }
        let mut seen = Vec::new();
        while poll_into(backend, wait(20), &mut seen) > 0 {}
        let lost = 500 - seen.len() as u64;
        assert!((100..450).contains(&lost), "{lost}");
        assert_eq!(backend.socket_drops(id), lost);
        backend.remove_socket(id);
        assert_eq!(backend.stats().kernel_drops, lost, "nothing is counted twice");
    }

    /// However full the ring always is, whoever waits in a socket is read.
    #[test]
    fn a_flood_through_the_ring_starves_no_socket() {
        let few = BackendLimits { batch_max: 16, ..limits() };
        let Some(mut backend) = backend(BackendChoice::PacketRing, few) else { return };
        let backend = &mut *backend;
        let (_, flooded) = add(backend, V4);
        let (quiet, address) = add(backend, V4);
        let (client, _) = peer(V4);
        client.send_to(&[1; 20], address).unwrap();
        let mut seen = Vec::new();
        for _ in 0..40 {
            for _ in 0..32 {
                client.send_to(&[MEDIA; 100], flooded).unwrap();
            }
            poll_into(backend, wait(0), &mut seen);
        }
        assert!(seen.iter().any(|datagram| datagram.socket == quiet));
        assert!(backend.stats().ring_runs_in >= 500);
    }

    /// What comes alone and what comes in segment runs take the same way.
    #[test]
    fn singles_and_runs_stay_in_order() {
        let (Some(mut backend), Some(mut sender)) =
            (ring(), backend(BackendChoice::Mmsg, limits()))
        else {
            return;
        };
        let backend = &mut *backend;
        let (_, target) = add(backend, V4);
        let (from, _) = add(&mut *sender, V4);
        for (number, len) in [900, 500, 500, 500, 20, 500, 700, 700, 90, 90].into_iter().enumerate()
        {
            sender.send(from, target, &vec![MEDIA | number as u8; len]);
            if number % 3 == 0 {
                sender.flush();
            }
        }
        sender.flush();
        let seen = collect(backend, 10);
        assert_eq!(numbers(&seen), (0..10).collect::<Vec<u8>>());
        let stats = backend.stats();
        assert!(stats.segment_runs_in < 10, "{stats:?}");
        assert_eq!((stats.kernel_drops, stats.uncategorised.truncated), (0, 0));
    }

    /// A socket counts what its filter refuses as dropped; nothing of that is a drop.
    #[test]
    fn what_the_sockets_refuse_is_no_drop() {
        let Some(mut backend) = ring() else { return };
        let backend = &mut *backend;
        let (id, address) = add(backend, V4);
        let (client, _) = peer(V4);
        for number in 0..200u8 {
            // STUN, DTLS and media in turn.
            client.send_to(&[[1, 22, MEDIA][usize::from(number) % 3]; 300], address).unwrap();
        }
        let seen = collect(backend, 200);
        assert_eq!(seen.len(), 200);
        assert_eq!(backend.stats().ring_runs_in, 66);
        assert_eq!(backend.socket_drops(id), 0);
        backend.refresh_drops();
        backend.remove_socket(id);
        assert_eq!(backend.stats().kernel_drops, 0);
    }

    #[test]
    fn the_same_port_at_another_address_is_somebody_elses() {
        let Some(mut backend) = ring() else { return };
        let backend = &mut *backend;
        let (ours, address) = add(backend, V4);
        let other = SocketAddr::from(([127, 0, 0, 2], address.port()));
        let theirs = UdpSocket::bind(other).unwrap();
        theirs.set_read_timeout(Some(PATIENCE)).unwrap();
        let (client, _) = peer(V4);
        client.send_to(&[MEDIA; 100], other).unwrap();
        client.send_to(&[MEDIA | 1; 100], address).unwrap();
        let seen = collect(backend, 1);
        assert_eq!((seen.len(), seen[0].socket), (1, ours));
        assert_eq!(numbers(&seen), [1]);
        assert_eq!(theirs.recv(&mut [0; 200]).unwrap(), 100);
        drop(theirs);
        // And with one that is ours, too: it receives by itself.
        let socket = bind(other, BUFFERS).unwrap();
        let third = backend.add_socket(socket).unwrap();
        client.send_to(&[MEDIA | 2; 100], other).unwrap();
        client.send_to(&[MEDIA | 3; 100], address).unwrap();
        let mut seen = collect(backend, 2);
        seen.sort_by_key(|datagram| datagram.payload[0]);
        assert_eq!(numbers(&seen), [2, 3]);
        assert_eq!((seen[0].socket, seen[1].socket), (third, ours));
        assert_eq!(backend.stats().kernel_drops, 0);
    }

    #[test]
    fn a_port_is_free_for_the_next_socket() {
        let Some(mut backend) = ring() else { return };
        let backend = &mut *backend;
        let (id, address) = add(backend, V4);
        let (client, _) = peer(V4);
        client.send_to(&[MEDIA; 100], address).unwrap();
        assert_eq!(collect(backend, 1).len(), 1);
        backend.remove_socket(id);
        backend.poll(wait(0)).unwrap();
        let again = backend.add_socket(bind(address, BUFFERS).unwrap()).unwrap();
        client.send_to(&[MEDIA | 1; 100], address).unwrap();
        assert_eq!(numbers(&collect(backend, 1)), [1]);
        assert_eq!(backend.socket_drops(again), 0);
    }

    #[test]
    fn any_address_has_its_media() {
        let Some(mut backend) = ring() else { return };
        let backend = &mut *backend;
        let (_, address) = add(backend, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let (client, _) = peer(V4);
        client.send_to(&[MEDIA; 100], SocketAddr::new(V4, address.port())).unwrap();
        assert_eq!(collect(backend, 1).len(), 1);
        assert_eq!(backend.stats().kernel_drops, 0);
    }

    /// The filter sees what the socket would have had: put together, with its options, and with its
    /// checksum verified.
    #[test]
    fn fragments_come_whole_and_a_wrong_checksum_does_not_come() {
        let Some(mut backend) = ring() else { return };
        let backend = &mut *backend;
        let (_, address) = add(backend, V4);
        let (client, _) = peer(V4);
        // Four times "no operation" (RFC 791).
        set_option(&client, libc::SOL_IP, libc::IP_OPTIONS, 0x0101_0101);
        client.send_to(&[MEDIA | 1; 100], address).unwrap();
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)));
        let raw = match raw {
            Ok(raw) => raw,
            Err(error) => return skip(format!("a raw socket: {error}")),
        };
        let mut identification = 0u16;
        let mut send = |udp: &[u8], cuts: &[(usize, usize, u16)]| {
            identification += 1;
            for &(from, to, more) in cuts {
                let mut packet = vec![0x45, 0];
                packet.extend((20 + (to - from) as u16).to_be_bytes());
                packet.extend(identification.to_be_bytes());
                packet.extend((more | (from as u16 / 8)).to_be_bytes());
                packet.extend([64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
                packet.extend(&udp[from..to]);
                raw.send_to(&packet, &address.into()).unwrap();
            }
        };
        let datagram = |first_byte: u8, checksum: u16| {
            let mut udp = [5_000, address.port(), 8 + 40, checksum].map(u16::to_be_bytes).concat();
            udp.extend([first_byte; 40]);
            udp
        };
        send(&datagram(MEDIA | 2, 0), &[(0, 24, 0x2000), (24, 48, 0)]);
        send(&datagram(MEDIA | 3, 0xdead), &[(0, 48, 0)]);
        send(&datagram(MEDIA | 4, 0), &[(0, 48, 0)]);
        assert_eq!(numbers(&collect(backend, 3)), [1, 2, 4]);
        assert_eq!((backend.stats().ring_runs_in, backend.stats().ring_spills), (3, 0));
    }
}
