//! Why a backend can't be used here.

use std::io;

/// Why io_uring can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IoUringRefusal {
    /// It is switched off, or a seccomp filter forbids it (EPERM, EACCES).
    #[error("io_uring refused by the kernel (EPERM: kernel.io_uring_disabled or a seccomp filter)")]
    NotPermitted,
    /// The kernel was built without it, or a seccomp filter hides it (ENOSYS).
    #[error("no io_uring in this kernel, or hidden by a seccomp filter (ENOSYS)")]
    Missing,
    /// It lacks what the backend needs (EINVAL).
    #[error("this kernel's io_uring is too old (needs Linux 6.1 or newer)")]
    TooOld,
    /// The limit of locked memory is too low (ENOMEM).
    #[error("no memory for an io_uring (ENOMEM: raise ulimit -l)")]
    NoMemory,
    /// The kernel said something else.
    #[error("setting up an io_uring: {0}")]
    SetUp(#[source] io::Error),
    /// It could be set up, and moved no datagrams.
    #[error(transparent)]
    Probe(#[from] ProbeError),
}

impl From<io::Error> for IoUringRefusal {
    /// What a refused set-up means.
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted,
            Some(libc::ENOSYS) => Self::Missing,
            Some(libc::EINVAL) => Self::TooOld,
            Some(libc::ENOMEM) => Self::NoMemory,
            _ => Self::SetUp(error),
        }
    }
}

/// Why `mmsg` can't be used.
#[derive(Debug, thiserror::Error)]
pub enum MmsgRefusal {
    /// A seccomp filter forbids a call (EPERM, EACCES).
    #[error("refused by the kernel (EPERM: a seccomp filter without recvmmsg, sendmmsg or epoll)")]
    NotPermitted,
    /// The kernel has no such call, or a seccomp filter hides it (ENOSYS).
    #[error("this kernel has no recvmmsg or sendmmsg, or a seccomp filter hides them (ENOSYS)")]
    Missing,
    /// The kernel said something else.
    #[error("setting it up: {0}")]
    SetUp(#[source] io::Error),
}

impl From<io::Error> for MmsgRefusal {
    /// What a refused set-up means.
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted,
            Some(libc::ENOSYS) => Self::Missing,
            _ => Self::SetUp(error),
        }
    }
}

/// Why a packet ring can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PacketRingRefusal {
    /// The process lacks the capability, or a seccomp filter forbids bpf(2) (EPERM, EACCES).
    #[error("refused by the kernel (EPERM: {})", what_is_lacking(rustix::process::geteuid().is_root()))]
    NotPermitted,
    /// The kernel does not find our program safe (EACCES).
    #[error("the kernel's verifier refused our program: {0}")]
    Verifier(String),
    /// The kernel was built without bpf(2), or a seccomp filter hides it (ENOSYS).
    #[error("this kernel has no bpf, or a seccomp filter hides it (ENOSYS)")]
    Missing,
    /// The kernel is too old for the map or the program (EINVAL).
    #[error("this kernel's bpf is too old (needs Linux 5.11 or newer)")]
    TooOld,
    /// There is no memory of the size asked for (ENOMEM).
    #[error("no memory for it (ENOMEM: a smaller --packet-ring)")]
    NoMemory,
    /// The kernel said something else.
    #[error("setting it up: {0}")]
    SetUp(#[source] io::Error),
    /// Its sockets can't be read or written to.
    #[error("its sockets take what mmsg takes: {0}")]
    Mmsg(#[from] MmsgRefusal),
    /// It could be set up, and no datagrams came through it.
    #[error(transparent)]
    Probe(#[from] ProbeError),
}

impl From<io::Error> for PacketRingRefusal {
    /// What a refused set-up means.
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted,
            Some(libc::ENOSYS) => Self::Missing,
            Some(libc::EINVAL) => Self::TooOld,
            Some(libc::ENOMEM) => Self::NoMemory,
            _ => Self::SetUp(error),
        }
    }
}

fn what_is_lacking(is_root: bool) -> &'static str {
    if is_root {
        "root lacks CAP_BPF here, or a seccomp filter forbids bpf: docker run --cap-add BPF"
    } else {
        "run as root, or with CAP_BPF"
    }
}

/// Why a backend that could be set up failed its probe.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A call failed.
    #[error("{step}: {error}")]
    Call {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        #[source]
        error: io::Error,
    },
    /// Datagrams were lost or came otherwise than they should.
    #[error(
        "probe failed: of {datagrams} loopback datagrams {sent} were sent and {received} received \
         (needs {needs})"
    )]
    Lost {
        /// How many there were.
        datagrams: usize,
        /// How many the kernel took.
        sent: u64,
        /// How many came back as they should.
        received: usize,
        /// What kernel the backend needs.
        needs: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_not_told_to_become_root() {
        assert!(what_is_lacking(false).contains("as root"));
        assert!(what_is_lacking(true).contains("lacks CAP_BPF"));
    }
}
