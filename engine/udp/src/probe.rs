//! Finding out whether a backend works here, by sending and receiving with it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::{Backend, BackendLimits, ProbeError, Received, SocketBuffers, Wait, bind};

/// How long the datagrams of the probe may take over loopback.
const PROBE_MAX: Duration = Duration::from_millis(500);
/// One alone, and a segment run of which the last is shorter. They begin as RTP does.
const DATAGRAMS: [&[u8]; 4] = [b"\x80single", b"\x80longer run", b"\x80longer run", b"\x80rest"];

/// What a backend to probe is made with.
pub(crate) const LIMITS: BackendLimits = BackendLimits {
    sockets_max: 2,
    receive_buffers_max: 16,
    send_slots_max: 8,
    batch_max: 8,
    packet_ring_bytes_max: 1,
};

/// Sends a few datagrams over loopback, from and to `ip`, and receives them, all `as_wanted`. `needs` says which
/// kernel does that.
pub(crate) fn exchange(
    backend: &mut dyn Backend,
    ip: IpAddr,
    needs: &'static str,
    as_wanted: impl Fn(&Received) -> bool,
) -> Result<(), ProbeError> {
    let failed = |step: &'static str| move |error: io::Error| ProbeError::Call { step, error };
    let buffers = SocketBuffers { receive_bytes: 65_536, send_bytes: 65_536 };
    let local = SocketAddr::new(ip, 0);
    let source = bind(local, buffers).map_err(failed("binding a socket"))?;
    let target = bind(local, buffers).map_err(failed("binding a socket"))?;
    let address = target.local_addr().map_err(failed("asking for an address"))?;
    let source = backend.add_socket(source).map_err(failed("registering a socket"))?;
    backend.add_socket(target).map_err(failed("registering a socket"))?;
    for payload in DATAGRAMS {
        backend.send(source, address, payload);
    }
    let deadline = Instant::now() + PROBE_MAX;
    let mut received = Vec::new();
    while received.len() < DATAGRAMS.len() && Instant::now() < deadline {
        let wait = Wait {
            timeout: Duration::from_millis(50),
            gather: Duration::ZERO,
            datagrams_max: usize::MAX,
        };
        backend.poll(wait).map_err(failed("waiting for datagrams"))?;
        let wanted = backend.batch().iter().filter(|datagram| as_wanted(datagram));
        received.extend(wanted.map(|datagram| backend.payload(datagram).to_vec()));
    }
    let stats = backend.stats();
    if received == DATAGRAMS && stats.send_errors == 0 && stats.undeliverable == 0 {
        return Ok(());
    }
    Err(ProbeError::Lost {
        datagrams: DATAGRAMS.len(),
        sent: stats.datagrams_out,
        received: received.len(),
        needs,
    })
}
