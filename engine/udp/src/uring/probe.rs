//! Finding out whether io_uring does here what the backend needs, by doing it.

use std::io;

use super::Uring;
use crate::probe::{LIMITS, exchange};

/// Sends and receives a few datagrams over loopback with a small ring. Its error is one line.
pub(crate) fn probe() -> Result<(), String> {
    let mut backend = Uring::new(&LIMITS).map_err(|error| refusal(&error))?;
    exchange(&mut backend, "Linux 6.1 or newer", |_| true)
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
