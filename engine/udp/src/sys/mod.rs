//! Thin wrappers over the system calls that std, socket2 and rustix don't have.
//!
//! Each takes borrowed memory and returns `io::Result`, so that nothing above has to be `unsafe`.
//!
//! Hand-written because rustix has nothing for it: `recvmmsg`, `sendmmsg` with control messages of
//! our own (`UDP_SEGMENT`), the error queue (`IP_RECVERR`), `SO_MEMINFO` and bpf.
//! [`Epoll::wait`] is hand-written because rustix rounds waits up to milliseconds, unless it is
//! built to fail before Linux 5.11; a worker's timers are finer than that.

pub(crate) mod bpf;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, epoll};
use rustix::process::Resource;

use crate::wire;

/// Index of `SK_MEMINFO_DROPS` in the array that `SO_MEMINFO` returns (linux/sock_diag.h).
const SK_MEMINFO_DROPS: usize = 8;
/// Length of that array.
const SK_MEMINFO_VARS: usize = 9;
/// At most so many errors of one socket are read in a row; the rest waits for the next time.
const ERRORS_DRAINED_MAX: usize = 4096;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Sets an integer socket option.
pub(crate) fn set_option(fd: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which outlives the call.
    check(unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// The socket's cumulative drop counter (`SO_MEMINFO`), wrapping at 2^32.
pub(crate) fn socket_drops(fd: RawFd) -> io::Result<u32> {
    let mut info = [0u32; SK_MEMINFO_VARS];
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the pointer and `len` describe `info`; the kernel writes at most `len` bytes.
    check(unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    })?;
    Ok(info[SK_MEMINFO_DROPS])
}

/// A new eventfd. It stays in blocking mode: io_uring ends a read of a non-blocking one at once,
/// and epoll tells us when a read won't block.
pub(crate) fn eventfd() -> io::Result<File> {
    Ok(rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?.into())
}

/// What draining a socket's error queue found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DrainedErrors {
    /// Reports from the network (ICMP): one of our datagrams was not delivered.
    pub(crate) network: u64,
    /// Reports of this host. The send call returned the same error, which was counted there.
    pub(crate) local: u64,
    /// System calls made.
    pub(crate) syscalls: u64,
}

impl DrainedErrors {
    /// All of them.
    pub(crate) fn entries(self) -> u64 {
        self.network + self.local
    }
}

/// Reads and drops all entries of a socket's error queue (`IP_RECVERR`, ip(7)).
pub(crate) fn drain_error_queue(fd: RawFd) -> DrainedErrors {
    let mut drained = DrainedErrors::default();
    let mut control = [0u64; 64];
    for _ in 0..ERRORS_DRAINED_MAX {
        // SAFETY: a msghdr is plain old data, for which zeroes are valid ("nothing here").
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control) as _;
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        drained.syscalls += 1;
        // SAFETY: `header` points to `control`, which is as long as it says; it has no iovec and
        // no name; both outlive the call.
        if unsafe { libc::recvmsg(fd, &raw mut header, flags) } < 0 {
            break;
        }
        let len = (header.msg_controllen as usize).min(size_of_val(&control));
        // SAFETY: `control` is initialised and at least `len` bytes long; any byte is a valid u8.
        let bytes = unsafe { std::slice::from_raw_parts(control.as_ptr().cast::<u8>(), len) };
        match wire::parse_extended_error(bytes) {
            Some((libc::SO_EE_ORIGIN_LOCAL, _)) => drained.local += 1,
            _ => drained.network += 1,
        }
    }
    drained
}

/// Reads once from a stream, without waiting; how much, and when the kernel got the last of it
/// (`SO_TIMESTAMPNS`).
pub(crate) fn receive_stamped(fd: RawFd, into: &mut [u8]) -> io::Result<(usize, Option<u64>)> {
    let mut control = [0u64; wire::CONTROL_BYTES / 8];
    let mut part = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: a msghdr is plain old data, for which zeroes are valid ("nothing here").
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    (header.msg_iov, header.msg_iovlen) = (&raw mut part, 1);
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: `header` points to one iovec, which describes `into`, and to `control`, which is as
    // long as it says; all outlive the call.
    let result = unsafe { libc::recvmsg(fd, &raw mut header, libc::MSG_DONTWAIT) };
    let count = usize::try_from(result).map_err(|_| io::Error::last_os_error())?;
    let len = (header.msg_controllen as usize).min(size_of_val(&control));
    // SAFETY: `control` is initialised and at least `len` bytes long; any byte is a valid u8.
    let bytes = unsafe { std::slice::from_raw_parts(control.as_ptr().cast::<u8>(), len) };
    Ok((count.min(into.len()), wire::parse_control(bytes).unix_ns))
}

/// `sendmmsg` with nothing to send.
pub(crate) fn send_nothing(fd: RawFd) -> io::Result<()> {
    // SAFETY: no messages, so none is read.
    check(unsafe { libc::sendmmsg(fd, std::ptr::null_mut(), 0, 0) }).map(drop)
}

/// Waits until the socket takes a datagram again, at most so long.
pub(crate) fn wait_writable(fd: RawFd, milliseconds_max: i32) {
    let mut poll = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one pollfd, as the count says, which outlives the call. The result does not matter:
    // the caller tries to send again in any case.
    unsafe {
        libc::poll(&raw mut poll, 1, milliseconds_max);
    }
}

/// The soft limit of open files, which also bounds io_uring's file table.
pub(crate) fn open_files_max() -> usize {
    let limit = rustix::process::getrlimit(Resource::Nofile).current;
    limit.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX)
}

/// Room for what one [`Epoll::wait`] returns.
pub(crate) type EpollEvent = libc::epoll_event;

/// An epoll instance. Sockets are watched edge-triggered.
#[derive(Debug)]
pub(crate) struct Epoll {
    fd: OwnedFd,
    has_pwait2: bool,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { fd: epoll::create(epoll::CreateFlags::CLOEXEC)?, has_pwait2: true })
    }

    /// Watches `fd` for input and errors, edge-triggered; events carry `token`.
    pub(crate) fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        let events = epoll::EventFlags::IN | epoll::EventFlags::ERR | epoll::EventFlags::ET;
        Ok(epoll::add(&self.fd, fd, epoll::EventData::new_u64(token), events)?)
    }

    /// The same, for output as well.
    pub(crate) fn add_both(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        let events = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        Ok(epoll::add(&self.fd, fd, epoll::EventData::new_u64(token), events)?)
    }

    /// Does not watch it any more.
    pub(crate) fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.fd, fd)?)
    }

    /// Readable while there are events.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Waits at most `timeout` and returns the number of `events` filled.
    pub(crate) fn wait(
        &mut self,
        events: &mut [EpollEvent],
        timeout: Duration,
    ) -> io::Result<usize> {
        let max = i32::try_from(events.len()).unwrap_or(i32::MAX);
        if self.has_pwait2 {
            let time = libc::timespec {
                tv_sec: timeout.as_secs().min(i32::MAX as u64) as libc::time_t,
                tv_nsec: timeout.subsec_nanos() as libc::c_long,
            };
            // SAFETY: `events` holds `max` entries and `time` outlives the call; no signal mask.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_epoll_pwait2,
                    self.fd.as_raw_fd(),
                    events.as_mut_ptr(),
                    max,
                    &raw const time,
                    std::ptr::null::<libc::sigset_t>(),
                    0usize,
                )
            };
            if result >= 0 {
                return Ok(result as usize);
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::ENOSYS) {
                return Err(error);
            }
            // Linux before 5.11: whole milliseconds, rounded up so that we never spin.
            self.has_pwait2 = false;
        }
        let milliseconds = timeout.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32;
        // SAFETY: `events` holds `max` entries and outlives the call.
        check(unsafe {
            libc::epoll_wait(self.fd.as_raw_fd(), events.as_mut_ptr(), max, milliseconds)
        })
        .map(|n| n as usize)
    }
}
