//! What the benches of datagrams in the kernel share: bursts over many sockets, and the thread's CPU
//! time as the clock, so that criterion's time is CPU time a datagram whatever else runs on the
//! machine.

use std::time::Duration;

use criterion::Criterion;
use rustix::time::{ClockId, clock_gettime};

/// Datagrams of one burst, spread over the sockets.
pub(crate) const BURST: usize = 2_000;
pub(crate) const PAYLOAD_BYTES: [usize; 2] = [200, 1_100];
/// The first byte of RTP (RFC 7983), which a packet ring takes.
pub(crate) const MEDIA: u8 = 0x80;

/// Samples as of all of these benches.
pub(crate) fn settings() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

/// CPU time of this thread so far, the kernel's work for it included.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Runs `burst`, which returns the time of [`BURST`] datagrams, for at least `iterations` of them.
pub(crate) fn each_datagram(iterations: u64, mut burst: impl FnMut() -> Duration) -> Duration {
    let bursts = iterations.div_ceil(BURST as u64);
    let total: Duration = (0..bursts).map(|_| burst()).sum();
    total.mul_f64(iterations as f64 / (bursts * BURST as u64) as f64)
}
