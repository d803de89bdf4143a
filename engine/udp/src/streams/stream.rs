//! One stream.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

use stampede_counters::StreamStats;

use super::framing::{Framing, STREAM_DATAGRAM_BYTES_MAX};
use crate::sys;

/// Bytes that a stream keeps for a kernel that takes no more. A datagram that finds more waiting is
/// dropped and counted.
pub const WRITE_QUEUE_BYTES_MAX: usize = 256 << 10;

/// See the module above.
pub(super) struct Stream {
    pub(super) socket: TcpStream,
    pub(super) remote: SocketAddr,
    pub(super) framing: Framing,
    pub(super) connected: bool,
    /// The other end says no more, or it broke: behind what is to be read is an end.
    pub(super) ending: bool,
    /// It is in the queue of those to read from.
    pub(super) ready: bool,
    /// It is in the list of those to write to.
    pub(super) listed: bool,
    /// The beginning of a datagram.
    pub(super) part: Vec<u8>,
    /// Bytes that follow and are of no use.
    pub(super) skip: usize,
    /// What is to be written, from `written` on.
    queue: Vec<u8>,
    written: usize,
    /// Datagrams in the queue, the one that is half written among them.
    queued: u64,
}

impl Stream {
    pub(super) fn new(
        socket: TcpStream,
        remote: SocketAddr,
        framing: Framing,
        connected: bool,
    ) -> Self {
        Self {
            socket,
            remote,
            framing,
            connected,
            ending: false,
            ready: false,
            listed: false,
            part: Vec::new(),
            skip: 0,
            queue: Vec::new(),
            written: 0,
            queued: 0,
        }
    }

    /// Takes a datagram, if there is room.
    pub(super) fn queue(&mut self, datagram: &[u8]) -> bool {
        let bytes = self.framing.framed_bytes(datagram.len());
        let waiting = self.queue.len() - self.written;
        if datagram.len() > STREAM_DATAGRAM_BYTES_MAX || waiting + bytes > WRITE_QUEUE_BYTES_MAX {
            return false;
        }
        self.framing.put(datagram, &mut self.queue);
        self.queued += 1;
        true
    }

    /// Datagrams that have not left, or not wholly.
    pub(super) fn unsent_datagrams(&self) -> u64 {
        self.queued
    }

    /// Writes as much as the kernel takes.
    pub(super) fn write(&mut self, stats: &mut StreamStats) -> io::Result<()> {
        while self.connected && self.written < self.queue.len() {
            stats.syscalls += 1;
            match self.socket.write(&self.queue[self.written..]) {
                Ok(count) => {
                    self.written += count;
                    stats.bytes_out += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // What has left gives its room back.
                    self.queue.drain(..self.written);
                    self.written = 0;
                    stats.write_waits += 1;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        if self.written == self.queue.len() {
            stats.datagrams_out += std::mem::take(&mut self.queued);
            self.queue.clear();
            self.written = 0;
        }
        Ok(())
    }

    /// Reads once; how much, and the kernel's stamp of the last of it.
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<(usize, Option<u64>)> {
        sys::receive_stamped(self.socket.as_raw_fd(), into)
    }
}
