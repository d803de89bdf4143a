//! Finding out whether io_uring does here what the backend needs, by doing it.

use std::net::Ipv4Addr;

use super::Uring;
use crate::IoUringRefusal;
use crate::probe::{LIMITS, exchange};

/// Sends and receives a few datagrams over loopback with a small ring.
pub(crate) fn probe() -> Result<(), IoUringRefusal> {
    let mut backend = Uring::new(&LIMITS)?;
    Ok(exchange(&mut backend, Ipv4Addr::LOCALHOST.into(), "Linux 6.1 or newer", |_| true)?)
}
