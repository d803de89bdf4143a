//! The two bounded channels between the planes.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use rustix::event::{EventfdFlags, eventfd};

use crate::{EngineEvent, PeerCommand, PeerId, PeerRole};

/// What a worker is told.
pub(crate) enum Mail {
    /// Take over a peer with its bound socket.
    Add(Box<NewPeer>),
    /// For one peer.
    Command(PeerId, PeerCommand),
    /// The measured window starts.
    BeginMeasuring,
    /// Hand out what the flight recorder holds of the worst peers.
    Capture,
    /// Say what was counted so far, with this tag.
    ReadTotals(u64),
    /// Close every peer and end.
    Stop,
}

/// A peer on its way to its worker.
pub(crate) struct NewPeer {
    pub(crate) id: PeerId,
    pub(crate) label: String,
    pub(crate) role: PeerRole,
    pub(crate) socket: UdpSocket,
}

/// A file descriptor that is readable while events wait; for `epoll` or tokio's `AsyncFd`.
#[derive(Debug, Clone)]
pub(crate) struct EventSignal(Arc<OwnedFd>);

impl EventSignal {
    pub(crate) fn new() -> std::io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self(Arc::new(fd)))
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn raise(&self) {
        // It can only fail with EAGAIN when the counter is near 2^64, and then it is readable.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

/// A worker's end of the event channel. What does not fit waits here, in order, and is offered
/// again each turn: events are few (a handful a peer's life), so this stays small, and neither a
/// worker nor an event is ever lost to a slow signalling plane.
pub(crate) struct EventSink {
    sender: Sender<EngineEvent>,
    signal: EventSignal,
    waiting: VecDeque<EngineEvent>,
    unsignalled: bool,
}

impl EventSink {
    pub(crate) fn new(sender: Sender<EngineEvent>, signal: EventSignal) -> Self {
        Self { sender, signal, waiting: VecDeque::new(), unsignalled: false }
    }

    pub(crate) fn push(&mut self, event: EngineEvent) {
        self.waiting.push_back(event);
    }

    /// Moves what fits into the channel and signals once.
    pub(crate) fn flush(&mut self) {
        while let Some(event) = self.waiting.pop_front() {
            match self.sender.try_send(event) {
                Ok(()) => self.unsignalled = true,
                Err(TrySendError::Full(event)) => {
                    self.waiting.push_front(event);
                    break;
                }
                // Nobody listens any more: the engine is being dropped.
                Err(TrySendError::Disconnected(_)) => self.waiting.clear(),
            }
        }
        if self.unsignalled {
            self.unsignalled = false;
            self.signal.raise();
        }
    }
}

/// The signalling plane's end of the event channel.
#[derive(Debug)]
pub(crate) struct EventSource {
    pub(crate) receiver: Receiver<EngineEvent>,
    pub(crate) signal: EventSignal,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(worker: usize) -> EngineEvent {
        EngineEvent::WorkerFailed { worker, reason: String::new() }
    }

    #[test]
    fn a_full_channel_keeps_events_in_order_and_loses_none() {
        let (sender, receiver) = crossbeam_channel::bounded(2);
        let signal = EventSignal::new().unwrap();
        let mut sink = EventSink::new(sender, signal.clone());
        for worker in 0..5 {
            sink.push(failed(worker));
        }
        let mut seen = Vec::new();
        while seen.len() < 5 {
            sink.flush();
            for event in receiver.try_iter() {
                let EngineEvent::WorkerFailed { worker, .. } = event else { panic!("{event:?}") };
                seen.push(worker);
            }
        }
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        let mut count = [0; 8];
        rustix::io::read(signal.as_fd(), &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 3, "one signal a flush that moved something");
    }
}
