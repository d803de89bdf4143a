//! Whatever the way datagrams come, the packet ring hands out what sockets hand out, and nothing
//! else: each way is taken once with plain sockets (`mmsg`) and once with a ring, over a cable
//! between two network namespaces. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{
    CapabilitySet, CapabilitySets, LinkNameSpaceType, move_into_link_name_space, set_capabilities,
};
use stampede_testing::skip;
use stampede_udp::{
    Backend, BackendChoice, BackendLimits, OpenError, PacketRingRefusal, SocketBuffers, SocketId,
    UdpStats, Wait, bind, open,
};

/// What RTP begins with (RFC 7983).
const MEDIA: u8 = 0x80;
const BUFFERS: SocketBuffers = SocketBuffers { receive_bytes: 1 << 20, send_bytes: 1 << 20 };
/// Nothing takes this long; it only ends a test that would hang.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where Stampede is, and where its server is.
const NEAR: [&str; 2] = ["10.77.0.1", "fd77::1"];
const FAR: [&str; 2] = ["10.77.0.2", "fd77::2"];

/// A network namespace; gone with the last socket in it.
struct Namespace(File);

impl Namespace {
    fn new() -> Result<Self, String> {
        let inside = || {
            // SAFETY: no pointers; only this thread is moved, which ends with this closure.
            match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
                0 => File::open("/proc/thread-self/ns/net"),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        let file = std::thread::scope(|scope| scope.spawn(inside).join().unwrap());
        let namespace = Self(file.map_err(|error| format!("a network namespace: {error}"))?);
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Does something in here, on another thread; its sockets stay in here.
    fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(self.0.as_fd(), kind).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join().unwrap())
    }

    fn ip(&self, arguments: &str) -> Result<(), String> {
        let output = self.enter(|| Command::new("ip").args(arguments.split(' ')).output());
        let output = output.map_err(|error| format!("ip: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        output.status.success().then_some(()).ok_or(format!("ip {arguments}: {said}"))
    }

    fn socket(&self, ip: &str) -> UdpSocket {
        self.enter(|| UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap())
    }
}

/// Two namespaces and the cable between them: `near0` and `far0`.
struct Cable {
    near: Namespace,
    far: Namespace,
}

impl Cable {
    /// `None`, and a skip, where this machine has none, or no packet ring.
    fn new() -> Option<Self> {
        match open(BackendChoice::PacketRing, BackendLimits::default()) {
            Err(refused @ OpenError::PacketRing { reason: PacketRingRefusal::NotPermitted }) => {
                skip(refused);
                return None;
            }
            opened => drop(opened.unwrap()),
        }
        let made = || {
            let cable = Self { near: Namespace::new()?, far: Namespace::new()? };
            let far = format!("/proc/{}/fd/{}", std::process::id(), cable.far.0.as_raw_fd());
            cable.near.ip(&format!("link add near0 type veth peer name far0 netns {far}"))?;
            let ends = [(&cable.near, "near0", NEAR), (&cable.far, "far0", FAR)];
            for (number, (namespace, device, [v4, v6])) in ends.into_iter().enumerate() {
                namespace.ip(&format!("link set {device} address 02:00:00:00:00:0{number}"))?;
                namespace.ip(&format!("address add {v4}/24 dev {device}"))?;
                namespace.ip(&format!("address add {v6}/64 dev {device} nodad"))?;
                namespace.ip(&format!("link set {device} up"))?;
            }
            Ok(cable)
        };
        made().inspect_err(|why: &String| skip(format!("needs namespaces and veth: {why}"))).ok()
    }

    /// What each backend hands out of the same traffic to `socket` of [`NEAR`]: as many datagrams as
    /// `count`, and whatever comes within a moment more. Asserts that both hand out the same, and
    /// returns it with what the ring counted.
    fn alike(
        &self,
        family: usize,
        count: usize,
        send: impl Fn(SocketAddr) + Sync,
    ) -> (Vec<Vec<u8>>, UdpStats) {
        let [plain, ring] = [BackendChoice::Mmsg, BackendChoice::PacketRing].map(|choice| {
            self.near.enter(|| {
                let (mut backend, _) = open(choice, BackendLimits::default()).unwrap();
                let (_, address) = add(&mut *backend, NEAR[family], 0);
                send(address);
                let mut payloads: Vec<_> =
                    collect(&mut *backend, count).into_iter().map(|seen| seen.1).collect();
                payloads.sort();
                backend.refresh_drops();
                (payloads, backend.stats())
            })
        });
        assert!(ring.0 == plain.0, "{} and {} datagrams", ring.0.len(), plain.0.len());
        assert_eq!((plain.1.kernel_drops, ring.1.kernel_drops), (0, 0));
        assert_eq!(ring.1.ring_spills, 0);
        ring
    }
}

fn add(backend: &mut dyn Backend, ip: &str, port: u16) -> (SocketId, SocketAddr) {
    let socket = bind(SocketAddr::new(ip.parse().unwrap(), port), BUFFERS).unwrap();
    let address = socket.local_addr().unwrap();
    (backend.add_socket(socket).unwrap(), address)
}

/// Polls until so many have come, and a little longer.
fn collect(backend: &mut dyn Backend, count: usize) -> Vec<(SocketId, Vec<u8>)> {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    let mut poll = |milliseconds| {
        let timeout = Duration::from_millis(milliseconds);
        let wait = Wait { timeout, gather: Duration::ZERO, datagrams_max: usize::MAX };
        backend.poll(wait).unwrap();
        let batch = backend.batch().iter();
        seen.extend(batch.map(|one| (one.socket, backend.payload(one).to_vec())));
        seen.len()
    };
    while poll(100) < count && Instant::now() < deadline {}
    poll(20);
    seen
}

fn set_option(fd: &impl AsRawFd, level: i32, name: i32, value: i32) {
    let (pointer, len) = ((&raw const value).cast(), size_of::<i32>() as libc::socklen_t);
    // SAFETY: the pointer and length describe `value`, which outlives the call.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, pointer, len) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// linux/ethtool.h: whether a device merges what it receives, and whether it takes TCP's segment
/// runs whole. One end of a cable merges only what the other end has no such offer for.
const ETHTOOL_SGRO: u32 = 0x2c;
const ETHTOOL_STSO: u32 = 0x1f;

fn set_offload(namespace: &Namespace, device: &str, command: u32, on: bool) {
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        value: *mut Value,
        room: [u64; 2],
    }
    let device = device.to_owned();
    namespace.enter(move || {
        let mut value = Value { command, data: on.into() };
        let mut request = Request { name: [0; 16], value: &raw mut value, room: [0; 2] };
        request.name[..device.len()].copy_from_slice(device.as_bytes());
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // SAFETY: `request` is as large as a `struct ifreq` and points to a `struct ethtool_value`;
        // both outlive the call.
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), 0x8946, &raw mut request) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    });
}

/// No datagram comes back where loopback is down; that is a reason to pass over a backend that may
/// not work, and none not to run.
#[test]
fn auto_runs_where_loopback_is_down() {
    let namespace = match Namespace::new() {
        Ok(namespace) => namespace,
        Err(why) => return skip(why),
    };
    namespace.ip("link set lo down").unwrap();
    for choice in [BackendChoice::Auto, BackendChoice::Mmsg] {
        let (name, report) = namespace.enter(|| {
            let (backend, report) = open(choice, BackendLimits::default()).unwrap();
            (backend.name(), report)
        });
        assert_eq!(name, "mmsg");
        let said = "mmsg: epoll, recvmmsg and sendmmsg may be called, but ";
        assert!(report.reason.starts_with(said), "{}", report.reason);
        let passed_over = report.reason.contains("no packet_ring: ");
        assert_eq!(passed_over, choice == BackendChoice::Auto, "{}", report.reason);
    }
}

/// The right that the documentation names is enough.
#[test]
fn cap_bpf_alone_is_enough() {
    if Cable::new().is_none() {
        return;
    }
    let opened = |rights| {
        std::thread::scope(|scope| {
            let inside = || {
                let none = CapabilitySet::empty();
                // Of this thread only.
                let sets =
                    CapabilitySets { effective: rights, permitted: rights, inheritable: none };
                set_capabilities(None, sets).unwrap();
                open(BackendChoice::PacketRing, BackendLimits::default()).map(|opened| opened.1)
            };
            scope.spawn(inside).join().unwrap()
        })
    };
    assert_eq!(opened(CapabilitySet::BPF).unwrap().name, "packet_ring");
    let refused = opened(CapabilitySet::empty());
    assert!(matches!(
        refused,
        Err(OpenError::PacketRing { reason: PacketRingRefusal::NotPermitted })
    ));
}

/// Datagrams alone and in runs, STUN between them: whole, cut apart on the way, and put together
/// again on arrival.
#[test]
fn alone_and_in_runs_with_and_without_gro() {
    const SEGMENT: usize = 1_100;
    let Some(cable) = Cable::new() else { return };
    for way in ["whole", "cut", "merged"] {
        match way {
            "cut" => cable.far.ip("link set far0 gso_max_segs 1").unwrap(),
            "merged" => {
                set_offload(&cable.far, "far0", ETHTOOL_STSO, false);
                set_offload(&cable.near, "near0", ETHTOOL_SGRO, true);
            }
            _ => {}
        }
        for family in [0, 1] {
            let from = cable.far.socket(FAR[family]);
            let send = |to| {
                for round in 0..5u8 {
                    set_option(&from, libc::SOL_UDP, libc::UDP_SEGMENT, 0);
                    from.send_to(&[MEDIA | round; 200], to).unwrap();
                    from.send_to(&[1, round, 3], to).unwrap();
                    set_option(&from, libc::SOL_UDP, libc::UDP_SEGMENT, SEGMENT as i32);
                    let run = (0..10 * SEGMENT - 7).map(|at| MEDIA | round | (at / SEGMENT) as u8);
                    from.send_to(&run.collect::<Vec<_>>(), to).unwrap();
                }
            };
            let (seen, stats) = cable.alike(family, 60, send);
            assert_eq!(seen.len(), 60, "{way}");
            assert_eq!(stats.segment_runs_in - stats.ring_runs_in, 5, "STUN: {way}, {stats:?}");
            match way {
                "whole" => assert_eq!(stats.ring_runs_in, 10),
                "cut" => assert_eq!(stats.ring_runs_in, 55),
                _ => assert!(stats.ring_runs_in < 55, "nothing was merged: {stats:?}"),
            }
        }
    }
}

/// Datagrams longer than the cable takes at once, which the kernel puts together again.
#[test]
fn fragments() {
    let Some(cable) = Cable::new() else { return };
    for family in [0, 1] {
        let from = cable.far.socket(FAR[family]);
        let (seen, stats) = cable.alike(family, 10, |to| {
            for number in 0..10 {
                from.send_to(&[MEDIA | number; 2_000], to).unwrap();
            }
        });
        assert_eq!((seen.len(), stats.ring_runs_in), (10, 10));
    }
}

/// Frames with a tag of 802.1Q: of priority alone, which needs no VLAN device, and of VLAN 7 where
/// the kernel has those.
#[test]
fn tagged_frames() {
    let Some(cable) = Cable::new() else { return };
    let socket = || {
        // SAFETY: no pointers.
        unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) }
    };
    let raw = cable.far.enter(socket);
    let index = cable.far.enter(|| {
        // SAFETY: a string with its zero.
        unsafe { libc::if_nametoindex(c"far0".as_ptr()) }
    });
    assert!(raw >= 0 && index > 0);
    let has_vlans = cable.near.ip("link add link near0 name near0.7 type vlan id 7").is_ok();
    if has_vlans {
        cable.near.ip("link set near0.7 up").unwrap();
    }
    let mut vlans = vec![0u16];
    vlans.extend(has_vlans.then_some(7));
    let (seen, stats) = cable.alike(0, vlans.len(), |to| {
        for vlan in &vlans {
            let mut frame = vec![2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0x81, 0];
            frame.extend((0x6000 | vlan).to_be_bytes());
            let mut ip = vec![0x45, 0, 0, 68, 0, 1, 0, 0, 64, 17, 0, 0, 10, 77, 0, 2, 10, 77, 0, 1];
            let words = ip.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
            let sum: u32 = words.sum();
            let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend([8, 0]);
            frame.extend(ip);
            frame.extend([5_000, to.port(), 48, 0].map(u16::to_be_bytes).concat());
            frame.extend([MEDIA | *vlan as u8; 40]);
            // SAFETY: a sockaddr_ll is plain old data, for which zeroes are valid.
            let mut device: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            (device.sll_family, device.sll_ifindex) = (libc::AF_PACKET as u16, index as i32);
            // SAFETY: the pointers and lengths describe `frame` and `device`, which outlive it.
            let sent = unsafe {
                libc::sendto(
                    raw,
                    frame.as_ptr().cast(),
                    frame.len(),
                    0,
                    (&raw const device).cast(),
                    size_of_val(&device) as libc::socklen_t,
                )
            };
            assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
        }
    });
    assert_eq!((seen.len(), stats.ring_runs_in), (vlans.len(), vlans.len() as u64));
}

/// What the host drops on its way to a socket, the ring does not have. A packet socket has it: this
/// one is the proof that it arrived.
#[test]
fn what_the_host_drops_is_not_in_the_ring() {
    let Some(cable) = Cable::new() else { return };
    let [refused, welcome] = [(); 2].map(|()| cable.far.socket(FAR[0]));
    let port = refused.local_addr().unwrap().port();
    // Of the host's own addresses only after what is refused.
    cable.near.ip("rule add pref 10 lookup local").unwrap();
    cable.near.ip("rule del pref 0").unwrap();
    cable.near.ip(&format!("rule add pref 5 ipproto udp sport {port} blackhole")).unwrap();
    let overheard = cable.near.enter(|| {
        let all = i32::from((libc::ETH_P_IP as u16).to_be());
        // SAFETY: no pointers.
        unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, all) }
    });
    let (seen, stats) = cable.alike(0, 10, |to| {
        for number in 0..10 {
            refused.send_to(&[MEDIA | 0x20 | number; 50], to).unwrap();
            welcome.send_to(&[MEDIA | number; 50], to).unwrap();
        }
    });
    assert_eq!((seen.len(), stats.ring_runs_in), (10, 10));
    assert!(seen.iter().all(|payload| payload[0] & 0x20 == 0));
    let mut packet = [0u8; 100];
    let mut arrived = 0;
    // SAFETY: the pointer and length describe `packet`.
    while unsafe {
        libc::recv(overheard, packet.as_mut_ptr().cast(), packet.len(), libc::MSG_DONTWAIT)
    } > 0
    {
        arrived += usize::from(packet[20..22] == port.to_be_bytes() && packet[9] == 17);
    }
    assert_eq!(arrived, 20, "ten for each backend");
}

/// A peer with a socket on each of its host's addresses, all of one port: the ring has one of them,
/// and the others have what is theirs by themselves.
#[test]
fn a_peer_with_several_sockets() {
    let Some(cable) = Cable::new() else { return };
    cable.near.ip("address add 10.77.0.3/24 dev near0").unwrap();
    let from = [0, 1].map(|family| cable.far.socket(FAR[family]));
    cable.near.enter(|| {
        let (mut backend, _) = open(BackendChoice::PacketRing, BackendLimits::default()).unwrap();
        let (first, address) = add(&mut *backend, NEAR[0], 0);
        let mut sockets = vec![(first, address, 0)];
        for (ip, family) in [("10.77.0.3", 0), (NEAR[1], 1)] {
            let (id, address) = add(&mut *backend, ip, address.port());
            sockets.push((id, address, family));
        }
        for number in 0..20u8 {
            for (id, address, family) in &sockets {
                from[*family].send_to(&[MEDIA | number, id.0 as u8], address).unwrap();
            }
        }
        let seen = collect(&mut *backend, 60);
        assert_eq!(seen.len(), 60);
        assert!(seen.iter().all(|(id, payload)| payload[1] == id.0 as u8));
        backend.refresh_drops();
        let stats = backend.stats();
        assert_eq!((stats.ring_runs_in, stats.kernel_drops), (20, 0));
    });
}

/// In its environment the child of the test below has where to listen.
const CHILD: &str = "STAMPEDE_TEST_WAYS_CHILD";

/// Not a test by itself: another process with a ring.
#[test]
fn child() {
    let Ok(address) = std::env::var(CHILD) else { return };
    let address: SocketAddr = address.parse().unwrap();
    let (mut backend, _) = open(BackendChoice::PacketRing, BackendLimits::default()).unwrap();
    add(&mut *backend, &address.ip().to_string(), address.port());
    println!("\nlistening");
    std::io::stdout().flush().unwrap();
    let seen = collect(&mut *backend, 50);
    assert!(seen.iter().all(|(_, payload)| payload[1] == 9));
    println!("\nreceived {} by ring {}", seen.len(), backend.stats().ring_runs_in);
}

/// Two workers and another process, each with its own ring, two of them with the same port: each
/// has its own, once.
#[test]
fn several_workers_and_processes() {
    if Cable::new().is_none() {
        return;
    }
    let mut workers = [(); 2].map(|()| {
        let (mut backend, _) = open(BackendChoice::PacketRing, BackendLimits::default()).unwrap();
        let (_, address) = add(&mut *backend, "127.0.0.1", 0);
        (backend, address)
    });
    let theirs = SocketAddr::from(([127, 0, 0, 2], workers[0].1.port()));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, theirs.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    assert!(said.any(|line| line == "listening"));
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for _ in 0..50 {
        for (who, address) in [(0, workers[0].1), (1, workers[1].1), (9, theirs)] {
            client.send_to(&[MEDIA, who], address).unwrap();
        }
    }
    for (number, (backend, _)) in workers.iter_mut().enumerate() {
        let seen = collect(&mut **backend, 50);
        assert_eq!((seen.len(), backend.stats().ring_runs_in), (50, 50));
        assert!(seen.iter().all(|(_, payload)| usize::from(payload[1]) == number));
    }
    assert!(said.any(|line| line == "received 50 by ring 50"));
    assert!(child.wait().unwrap().success());
}
