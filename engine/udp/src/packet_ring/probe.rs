//! Finding out whether a packet ring can be had and works here, by using one.

use std::io;

use super::BLOCK;
use crate::mmsg::Mmsg;
use crate::probe::{LIMITS, exchange};

/// Receives a few datagrams through a small ring. Its error is one line.
pub(crate) fn probe() -> Result<(), String> {
    let mut backend = Mmsg::with_packet_ring(&LIMITS).map_err(|error| refusal(&error))?;
    // Before 6.2 a packet socket drops segment runs (UDP GSO).
    exchange(&mut backend, "Linux 6.2 or newer", |datagram| datagram.buffer as u16 & BLOCK != 0)
}

/// What a refused set-up means.
pub(crate) fn refusal(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "refused by the kernel (EPERM: run as root, or with CAP_NET_RAW and CAP_BPF)".to_owned()
        }
        Some(libc::ENOMEM) => "no memory for it (ENOMEM: a smaller --packet-ring)".to_owned(),
        _ => format!("setting it up: {error}"),
    }
}
