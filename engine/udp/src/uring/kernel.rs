//! What the backend asks of the kernel, so that a model can stand in for it in tests.

use std::fs::File;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

use crate::segment_run::Message;
use crate::send::RawSend;

/// A completion.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Completion {
    pub(crate) user_data: u64,
    pub(crate) result: i32,
    /// The receive buffer it used.
    pub(crate) buffer: Option<u16>,
    /// Whether its multishot request goes on.
    pub(crate) more: bool,
}

/// A ring of requests, with a table of files and a ring of receive buffers, all of which the kernel
/// has at first.
pub(crate) trait Kernel {
    /// Puts `fd` into the file table, or clears a place (-1).
    fn set_file(&mut self, index: u32, fd: RawFd) -> io::Result<()>;

    /// Gives a buffer back; the kernel sees it with the next [`publish`](Self::publish).
    fn recycle(&mut self, buffer: u16);

    /// Shows the kernel the recycled buffers.
    fn publish(&mut self);

    /// Starts a multishot receive on the socket at `index` of the file table.
    fn receive(&mut self, index: u32, user_data: u64) -> io::Result<()>;

    /// Cancels the request of that `user_data`; the request itself completes, the cancelling only
    /// if it finds nothing.
    fn cancel(&mut self, target: u64, user_data: u64) -> io::Result<()>;

    /// Reads the eventfd once.
    fn read_wake(&mut self, eventfd: &File, user_data: u64) -> io::Result<()>;

    /// Completes once when this is readable, at once if it is.
    fn poll_readable(&mut self, fd: &OwnedFd, user_data: u64) -> io::Result<()>;

    /// Queues one send that never waits; it completes only if it fails.
    ///
    /// The memory behind `send` has to stay as it is until [`submit`](Self::submit) has returned:
    /// a send that may not wait is over by then.
    fn send(&mut self, index: u32, send: &RawSend, user_data: u64) -> io::Result<()>;

    /// Whether submissions wait.
    fn has_submissions(&mut self) -> bool;

    /// Submits everything queued, without running the receives that wait for us.
    fn submit(&mut self) -> io::Result<()>;

    /// Whether work waits that only an enter with `GETEVENTS` runs.
    fn has_work(&mut self) -> bool;

    /// Submits, runs the waiting receives and waits for `want` completions, at most `timeout`.
    fn wait(&mut self, want: usize, timeout: Duration) -> io::Result<()>;

    /// Moves all completions into `out`. An error if the kernel lost one, which it does only when
    /// it has no memory to keep it.
    fn complete(&mut self, out: &mut Vec<Completion>) -> io::Result<()>;

    /// What a receive wrote into `buffer`; `result` is its completion's.
    fn message(&self, buffer: u16, result: u32) -> Option<Message<'_>>;

    /// A part of the payload in a buffer that has not been recycled.
    fn payload(&self, buffer: u16, offset: usize, len: usize) -> &[u8];

    /// System calls made so far.
    fn syscalls(&self) -> u64;
}
