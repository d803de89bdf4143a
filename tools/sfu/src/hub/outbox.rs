//! The way to a client's websocket.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

/// Signalling messages waiting for one client at most (LiveKit `routing/messagechannel.go`).
/// A client that reads so slowly that it is full loses its signalling connection, which is counted.
pub(crate) const OUTBOX_MESSAGES_MAX: usize = 200;

/// A websocket; never reused while the process lives. A participant that resumes has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SignalKey(pub(super) u64);

/// What a WebSocket task is told to do.
#[derive(Debug)]
pub(crate) enum OutboxItem {
    /// Send this binary frame.
    Frame(Bytes),
    /// Make the client a fresh token and send it: what it may do, or what is known of it, has changed.
    FreshToken,
    /// Close the connection.
    Close(Hangup),
}

/// Why the rooms close a websocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hangup {
    /// Everything was said.
    Over,
    /// The server ends.
    ServerEnds,
}

/// The way to one client's WebSocket task.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    pub(crate) queue: mpsc::Sender<OutboxItem>,
    /// Told when the queue was full: the task then closes the connection.
    pub(crate) overflow: Arc<Notify>,
}

impl Outbox {
    pub(super) fn push(&self, item: OutboxItem) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(item) {
            self.overflow.notify_one();
        }
    }
}
