//! The checks, each a small function of the needs and of `/proc`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::SockRef;
use stampede_udp::{BackendChoice, BackendLimits, OpenError, SocketBuffers};

use super::{Check, Needs, State};
use stampede_scenario::values::Backend;

/// File descriptors for everything else: rings, eventfds, runtime, recordings, files, the child.
const FDS_SLACK: u64 = 256;
/// Ephemeral ports left to the rest of the machine.
const PORTS_SLACK: u64 = 256;
/// Memory of one peer: str0m, websocket, TLS, socket state. Above what was measured, so that a
/// warning comes early.
const PEER_BYTES: u64 = 256 << 10;
/// Memory of one peer inside the embedded SFU, retransmission caches included.
const SFU_PEER_BYTES: u64 = 512 << 10;

fn check(name: &'static str, state: State, detail: String, remedy: Option<String>) -> Check {
    Check { name, state, detail, remedy }
}

/// What the limit must become, and whether that may be done: pure, so that it can be tested.
#[derive(Debug, PartialEq, Eq)]
enum Limit {
    Enough,
    RaiseTo { current: u64, maximum: Option<u64> },
}

fn wanted_limit(now: &Rlimit, needed: u64) -> Limit {
    // `None` is unlimited.
    match (now.current, now.maximum) {
        (None, _) => Limit::Enough,
        (Some(current), _) if current >= needed => Limit::Enough,
        (_, Some(maximum)) if maximum < needed => {
            Limit::RaiseTo { current: needed, maximum: Some(needed) }
        }
        (_, maximum) => Limit::RaiseTo { current: needed, maximum },
    }
}

pub(super) fn file_descriptors(needs: &Needs) -> Check {
    let name = "file descriptors";
    let needed = needs.participants as u64 + needs.connections as u64 + FDS_SLACK;
    let now = getrlimit(Resource::Nofile);
    let show = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |n| n.to_string());
    match wanted_limit(&now, needed) {
        Limit::Enough => {
            let detail = format!("{needed} needed, limit {}", show(now.current));
            check(name, State::Ok, detail, None)
        }
        Limit::RaiseTo { current, maximum } => {
            match setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum }) {
                Ok(()) => {
                    let detail = format!(
                        "{needed} needed, limit raised from {} to {current}",
                        show(now.current)
                    );
                    check(name, State::Raised, detail, None)
                }
                Err(error) => {
                    let detail = format!(
                        "{needed} needed, but the limit is {} (hard limit {}) and could not be \
                         raised: {error}",
                        show(now.current),
                        show(now.maximum)
                    );
                    let remedy = format!(
                        "run `ulimit -n {needed}` as root first, or in a container add \
                         `--ulimit nofile={needed}` (fs.nr_open must allow it)"
                    );
                    check(name, State::Failed, detail, Some(remedy))
                }
            }
        }
    }
}

pub(super) fn socket_buffers(needs: &Needs) -> Check {
    let name = "socket buffers";
    let wanted = needs.receive_buffer_bytes;
    let buffers = SocketBuffers { receive_bytes: wanted, send_bytes: wanted };
    let granted = stampede_udp::bind(SocketAddr::new(needs.local_ip, 0), buffers)
        .and_then(|socket| SockRef::from(&socket).recv_buffer_size());
    match granted {
        // The kernel doubles what is asked for, for its own bookkeeping.
        Ok(granted) if granted / 2 >= wanted => {
            check(name, State::Ok, format!("{} KiB a socket granted", granted / 2 / 1024), None)
        }
        Ok(granted) => {
            let detail = format!(
                "{} KiB a socket wanted, {} KiB granted (net.core.rmem_max)",
                wanted / 1024,
                granted / 2 / 1024
            );
            let remedy =
                format!("run `sysctl -w net.core.rmem_max={wanted} net.core.wmem_max={wanted}`");
            check(name, State::Warning, detail, Some(remedy))
        }
        Err(error) => {
            let detail = format!("no UDP socket could be bound on {}: {error}", needs.local_ip);
            check(name, State::Failed, detail, None)
        }
    }
}

/// First and last port of `net.ipv4.ip_local_port_range`.
fn parse_port_range(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.split_whitespace().map(|word| word.parse().ok());
    let range = (numbers.next()??, numbers.next()??);
    (range.0 <= range.1).then_some(range)
}

pub(super) fn ports(needs: &Needs) -> Check {
    let name = "ports";
    let needed = needs.connections as u64 + PORTS_SLACK;
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| parse_port_range(&text));
    let Some((first, last)) = range else {
        let detail = "net.ipv4.ip_local_port_range can't be read".to_owned();
        return check(name, State::Warning, detail, None);
    };
    let available = last - first + 1;
    let detail = format!("{needed} needed, {available} in the ephemeral range {first}-{last}");
    if available >= needed {
        return check(name, State::Ok, detail, None);
    }
    let remedy = if needed < 64_000 {
        "run `sysctl -w net.ipv4.ip_local_port_range='1024 65535'`".to_owned()
    } else {
        "one address has at most 64,511 of them: use several hosts".to_owned()
    };
    check(name, State::Failed, detail, Some(remedy))
}

/// What the engine calls a backend.
pub(crate) fn backend_choice(backend: Backend) -> BackendChoice {
    match backend {
        Backend::Auto => BackendChoice::Auto,
        Backend::IoUring => BackendChoice::IoUring,
        Backend::Mmsg => BackendChoice::Mmsg,
        Backend::PacketRing => BackendChoice::PacketRing,
    }
}

/// Opens it, with the memory that a worker's has. Also which one it is.
pub(super) fn backend(needs: &Needs) -> (Check, Option<&'static str>) {
    let name = "UDP backend";
    let limits = BackendLimits {
        packet_ring_bytes_max: needs.packet_ring_bytes,
        ..BackendLimits::default()
    };
    match stampede_udp::open(backend_choice(needs.backend), limits) {
        Ok((_, report)) => (check(name, State::Ok, report.reason, None), Some(report.name)),
        Err(error) => {
            let remedy = match error {
                OpenError::IoUring { .. } => Some(
                    "use --backend auto (or mmsg); in a container allow io_uring with \
                     `--security-opt seccomp=unconfined`, and see `sysctl \
                     kernel.io_uring_disabled`",
                ),
                OpenError::Mmsg { .. } => {
                    Some("in a container allow these calls in its seccomp profile")
                }
                // It says what is missing, and what to use instead.
                OpenError::PacketRing { .. } | OpenError::Limit { .. } => None,
            };
            (check(name, State::Failed, error.to_string(), remedy.map(str::to_owned)), None)
        }
    }
}

/// A `kB` line of `/proc/meminfo` in bytes.
fn meminfo_bytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// `backend` is the one that was opened.
pub(super) fn memory(needs: &Needs, backend: Option<&str>) -> Check {
    let name = "memory";
    let each = PEER_BYTES + if needs.embedded { SFU_PEER_BYTES } else { 0 };
    let has_rings = backend == Some(Backend::PacketRing.name());
    let rings = if has_rings { needs.workers * needs.packet_ring_bytes } else { 0 };
    let needed = needs.connections as u64 * each + rings as u64;
    let machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| meminfo_bytes(&text, "MemAvailable"));
    let container = fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    let Some(available) = machine.into_iter().chain(container).min() else {
        let detail = "MemAvailable can't be read from /proc/meminfo".to_owned();
        return check(name, State::Warning, detail, None);
    };
    let detail = format!("about {} MiB needed, {} MiB free", needed >> 20, available >> 20);
    if available >= needed {
        check(name, State::Ok, detail, None)
    } else {
        let remedy = "use fewer participants or several hosts".to_owned();
        check(name, State::Warning, detail, Some(remedy))
    }
}

pub(super) fn loopback() -> Check {
    let name = "loopback";
    let trip = || {
        let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        receiver.set_read_timeout(Some(Duration::from_secs(1)))?;
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        sender.send_to(b"stampede", receiver.local_addr()?)?;
        receiver.recv(&mut [0; 16])
    };
    match trip() {
        Ok(_) => check(name, State::Ok, "127.0.0.1 carries UDP".to_owned(), None),
        Err(error) => {
            let detail = format!("127.0.0.1 does not carry UDP: {error}");
            check(name, State::Failed, detail, Some("run `ip link set lo up`".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn needs(peers: usize) -> Needs {
        Needs {
            participants: peers,
            connections: peers,
            embedded: true,
            backend: Backend::Mmsg,
            local_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            receive_buffer_bytes: 64 << 10,
            packet_ring_bytes: 1 << 20,
            workers: 1,
        }
    }

    #[test]
    fn limits_are_raised_only_as_far_as_needed() {
        let limit = |current, maximum| Rlimit { current, maximum };
        assert_eq!(wanted_limit(&limit(Some(1024), Some(4096)), 1000), Limit::Enough);
        assert_eq!(wanted_limit(&limit(None, None), 1 << 40), Limit::Enough);
        assert_eq!(
            wanted_limit(&limit(Some(1024), Some(4096)), 2000),
            Limit::RaiseTo { current: 2000, maximum: Some(4096) }
        );
        assert_eq!(
            wanted_limit(&limit(Some(1024), Some(4096)), 5000),
            Limit::RaiseTo { current: 5000, maximum: Some(5000) }
        );
        assert_eq!(
            wanted_limit(&limit(Some(1024), None), 5000),
            Limit::RaiseTo { current: 5000, maximum: None }
        );
    }

    #[test]
    fn too_many_descriptors_are_one_error_with_number_and_command() {
        // More than fs.nr_open can ever allow, so that root is refused too.
        let line = file_descriptors(&needs(1 << 40)).line();
        let needed = (1u64 << 41) + FDS_SLACK;
        assert!(line.contains(&format!("ulimit -n {needed}")), "{line}");
        assert_eq!(file_descriptors(&needs(1)).state, State::Ok);
    }

    #[test]
    fn ports_name_the_sysctl() {
        assert_eq!(parse_port_range("32768\t60999\n"), Some((32768, 60999)));
        assert_eq!(parse_port_range("60999 32768"), None);
        assert_eq!(parse_port_range("x"), None);
        let check = ports(&needs(100_000));
        assert_eq!(check.state, State::Failed);
        assert!(check.line().contains("several hosts"));
    }

    #[test]
    fn meminfo_is_read_by_whole_key() {
        let text = "MemTotal:  100 kB\nMemAvailable:   2048 kB\n";
        assert_eq!(meminfo_bytes(text, "MemAvailable"), Some(2 << 20));
        assert_eq!(meminfo_bytes(text, "Mem"), None);
        assert_eq!(meminfo_bytes(text, "SwapFree"), None);
    }

    #[test]
    fn loopback_works_here() {
        assert_eq!(loopback().state, State::Ok);
    }
}
