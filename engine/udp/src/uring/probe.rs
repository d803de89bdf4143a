//! Finding out whether io_uring does here what the backend needs, by doing it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::Uring;
use crate::{Backend, BackendLimits, SocketBuffers, Wait, bind};

/// How long the datagrams of the probe may take over loopback.
const PROBE_MAX: Duration = Duration::from_millis(500);
/// Single datagrams and those of one GSO run.
const DATAGRAMS: usize = 4;

/// Sends and receives a few datagrams over loopback with a small ring. Its error is one line.
pub(crate) fn probe() -> Result<(), String> {
    let limits =
        BackendLimits { sockets_max: 2, receive_buffers_max: 16, send_slots_max: 8, batch_max: 8 };
    let mut backend = Uring::new(&limits).map_err(|error| refusal(&error))?;
    let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let buffers = SocketBuffers { receive_bytes: 65_536, send_bytes: 65_536 };
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let source = bind(local, buffers).map_err(failed("binding a socket"))?;
    let target = bind(local, buffers).map_err(failed("binding a socket"))?;
    let address = target.local_addr().map_err(failed("asking for an address"))?;
    let source = backend.add_socket(source).map_err(failed("registering a socket"))?;
    backend.add_socket(target).map_err(failed("registering a socket"))?;
    for payload in [&b"single"[..], b"longer run", b"longer run", b"rest"] {
        backend.send(source, address, payload);
    }
    let deadline = Instant::now() + PROBE_MAX;
    let mut received = 0;
    while received < DATAGRAMS && Instant::now() < deadline {
        let wait = Wait {
            timeout: Duration::from_millis(50),
            gather: Duration::ZERO,
            datagrams_max: usize::MAX,
        };
        received += backend.poll(wait).map_err(failed("waiting for datagrams"))?;
    }
    let stats = backend.stats();
    if received == DATAGRAMS && stats.send_errors == 0 {
        return Ok(());
    }
    Err(format!(
        "probe failed: of {DATAGRAMS} loopback datagrams {} were sent and {received} received \
         (needs Linux 6.1 or newer)",
        stats.datagrams_out
    ))
}

/// What a refused set-up means.
fn refusal(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "io_uring refused by the kernel (EPERM: kernel.io_uring_disabled or a seccomp filter)"
                .to_owned()
        }
        Some(libc::ENOSYS) => {
            "no io_uring in this kernel, or hidden by a seccomp filter (ENOSYS)".to_owned()
        }
        Some(libc::EINVAL) => {
            "this kernel's io_uring is too old (needs Linux 6.1 or newer)".to_owned()
        }
        Some(libc::ENOMEM) => "no memory for an io_uring (ENOMEM: raise ulimit -l)".to_owned(),
        _ => format!("setting up an io_uring: {error}"),
    }
}
