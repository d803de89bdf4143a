//! What a queue between threads has to do. Each sender's items come in their order.

use std::time::Duration;

use crossbeam_channel::{Receiver, SendError, Sender, TryRecvError, TrySendError};

/// The end of a bounded queue that items are put into.
pub trait Sending<T> {
    /// Puts an item into the queue.
    ///
    /// # Errors
    /// With the item, that the queue is full, or that nobody reads it any more.
    fn try_send(&self, item: T) -> Result<(), TrySendError<T>>;

    /// The same, but waits while the queue is full.
    ///
    /// # Errors
    /// With the item, that nobody reads the queue any more.
    fn send(&self, item: T) -> Result<(), SendError<T>>;

    /// The same, but waits so long at most. Whether the item is in the queue; it is gone if not.
    fn send_within(&self, item: T, patience: Duration) -> bool;
}

/// The end that items are taken out of.
pub trait Receiving<T> {
    /// The next item.
    ///
    /// # Errors
    /// That there is none, and whether there may be another one.
    fn try_receive(&self) -> Result<T, TryRecvError>;

    /// Whether there is none.
    fn is_empty(&self) -> bool;
}

impl<T> Sending<T> for Sender<T> {
    fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        Self::try_send(self, item)
    }

    fn send(&self, item: T) -> Result<(), SendError<T>> {
        Self::send(self, item)
    }

    fn send_within(&self, item: T, patience: Duration) -> bool {
        self.send_timeout(item, patience).is_ok()
    }
}

impl<T> Receiving<T> for Receiver<T> {
    fn try_receive(&self) -> Result<T, TryRecvError> {
        self.try_recv()
    }

    fn is_empty(&self) -> bool {
        Self::is_empty(self)
    }
}
