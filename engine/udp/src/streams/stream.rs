//! One stream.

use std::io::{self, Read as _, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

use rustls::ClientConnection;
use stampede_counters::StreamStats;

use super::framing::{Framing, STREAM_DATAGRAM_BYTES_MAX};
use crate::sys;

/// Bytes that a stream keeps for a kernel that takes no more. A datagram that finds more waiting is
/// dropped and counted.
pub const WRITE_QUEUE_BYTES_MAX: usize = 256 << 10;

/// What one read of a stream has brought.
#[derive(Debug, Clone, Copy)]
pub(super) struct Read {
    /// Bytes of datagrams.
    pub(super) bytes: usize,
    /// Bytes that came.
    pub(super) wire_bytes: usize,
    /// As much as there was room for: there may be more.
    pub(super) is_full: bool,
    /// Over TLS the other end has said that nothing more comes (RFC 8446 §6.1).
    pub(super) is_over: bool,
    /// The kernel's stamp of the last of it.
    pub(super) stamp: Option<u64>,
}

/// See the module above.
pub(super) struct Stream {
    pub(super) socket: TcpStream,
    pub(super) remote: SocketAddr,
    pub(super) framing: Framing,
    /// It takes datagrams: over TLS once its handshake is over.
    pub(super) connected: bool,
    /// TCP is connected.
    pub(super) dialled: bool,
    tls: Option<Box<ClientConnection>>,
    /// Over TLS what is to be encrypted.
    plain: Vec<u8>,
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
        tls: Option<Box<ClientConnection>>,
    ) -> Self {
        Self {
            socket,
            remote,
            framing,
            connected,
            dialled: connected,
            tls,
            plain: Vec::new(),
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
        let waiting = self.queue.len() - self.written + self.plain.len();
        if datagram.len() > STREAM_DATAGRAM_BYTES_MAX || waiting + bytes > WRITE_QUEUE_BYTES_MAX {
            return false;
        }
        let out = if self.tls.is_some() { &mut self.plain } else { &mut self.queue };
        self.framing.put(datagram, out);
        self.queued += 1;
        true
    }

    /// Datagrams that have not left, or not wholly.
    pub(super) fn unsent_datagrams(&self) -> u64 {
        self.queued
    }

    /// Whether TCP's being there is not enough.
    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Encrypts what is to be written.
    fn seal(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        let mut sealed = 0;
        loop {
            while tls.wants_write() {
                tls.write_tls(&mut self.queue)?;
            }
            if sealed == self.plain.len() {
                break;
            }
            sealed += tls.writer().write(&self.plain[sealed..])?;
        }
        self.plain.clear();
        Ok(())
    }

    /// Says that nothing more comes, and writes as much as the kernel takes at once.
    pub(super) fn finish(&mut self, stats: &mut StreamStats) -> io::Result<()> {
        if self.connected {
            // First, for behind its close_notify, and past its buffer's end, rustls takes nothing.
            self.seal()?;
            if let Some(tls) = &mut self.tls {
                tls.send_close_notify();
            }
        }
        self.write(stats)
    }

    /// Writes as much as the kernel takes.
    pub(super) fn write(&mut self, stats: &mut StreamStats) -> io::Result<()> {
        if !self.dialled {
            return Ok(());
        }
        self.seal()?;
        while self.written < self.queue.len() {
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
        stats.datagrams_out += std::mem::take(&mut self.queued);
        self.queue.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads once. Nothing at all is the end, or [`io::ErrorKind::WouldBlock`]; of what came over TLS
    /// nothing may be left for datagrams.
    pub(super) fn read(&mut self, into: &mut [u8], sealed: &mut [u8]) -> io::Result<Read> {
        let fd = self.socket.as_raw_fd();
        let Some(tls) = &mut self.tls else {
            let room = into.len();
            let (bytes, stamp) = sys::receive_stamped(fd, into)?;
            let is_full = bytes == room;
            return Ok(Read { bytes, wire_bytes: bytes, is_full, is_over: false, stamp });
        };
        let (count, stamp) = sys::receive_stamped(fd, sealed)?;
        let (mut came, mut bytes, mut is_over) = (&sealed[..count], 0, false);
        while !came.is_empty() && !is_over {
            if tls.read_tls(&mut came)? == 0 {
                return Err(io::Error::other("TLS takes nothing more"));
            }
            let state = match tls.process_new_packets() {
                Ok(state) => state,
                Err(error) => {
                    // The other end is told, if it can be.
                    let mut alert = Vec::new();
                    let _ = tls.write_tls(&mut alert).and_then(|_| self.socket.write(&alert));
                    return Err(io::Error::other(error));
                }
            };
            let end = bytes + state.plaintext_bytes_to_read();
            let room = into.get_mut(bytes..end).ok_or(io::ErrorKind::OutOfMemory)?;
            tls.reader().read_exact(room)?;
            bytes = end;
            // What follows is nothing of TLS's any more: rustls would not take it.
            is_over = state.peer_has_closed();
        }
        Ok(Read { bytes, wire_bytes: count, is_full: count == sealed.len(), is_over, stamp })
    }
}
