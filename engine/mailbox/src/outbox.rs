//! What a thread that may not wait has to say.

use std::collections::VecDeque;
use std::time::Duration;

use crossbeam_channel::TrySendError;

use crate::{Sending, Wake};

/// The sending end of a bounded queue for a thread that may not wait. What does not fit waits here,
/// in order, until it is offered again. From `waiting_max` on what may be dropped is, and counted;
/// the rest must be few by its nature.
#[derive(Debug)]
pub struct Outbox<T, S, W> {
    queue: S,
    waker: W,
    waiting: VecDeque<T>,
    waiting_max: usize,
    unsignalled: bool,
    dropped: u64,
}

impl<T, S: Sending<T>, W: Wake> Outbox<T, S, W> {
    /// Into this queue, whose reader is woken by that.
    pub fn new(queue: S, waker: W, waiting_max: usize) -> Self {
        let waiting = VecDeque::new();
        Self { queue, waker, waiting, waiting_max, unsignalled: false, dropped: 0 }
    }

    /// Another one into the same queue, with nothing waiting.
    #[must_use]
    pub fn sibling(&self) -> Self
    where
        S: Clone,
        W: Clone,
    {
        Self::new(self.queue.clone(), self.waker.clone(), self.waiting_max)
    }

    /// Says something that must not be lost, with the next [`flush`](Self::flush).
    pub fn push(&mut self, item: T) {
        self.waiting.push_back(item);
    }

    /// The same, unless so much waits that it is dropped, and counted.
    pub fn offer(&mut self, item: T) {
        if self.is_crowded() {
            self.dropped += 1;
        } else {
            self.waiting.push_back(item);
        }
    }

    /// So much waits that what may be dropped would be.
    pub fn is_crowded(&self) -> bool {
        self.waiting.len() >= self.waiting_max
    }

    /// How much waits.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How much was dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Counts what is dropped anew.
    pub fn forget_dropped(&mut self) {
        self.dropped = 0;
    }

    /// Takes out of what waits whatever `take` makes something of; the rest stays, in order.
    pub fn take_waiting<U>(&mut self, mut take: impl FnMut(T) -> Result<U, T>) -> Vec<U> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut taken = Vec::new();
        for item in waiting {
            match take(item) {
                Ok(out) => taken.push(out),
                Err(item) => self.waiting.push_back(item),
            }
        }
        taken
    }

    /// Moves what fits into the queue, and wakes the reader once.
    pub fn flush(&mut self) {
        while let Some(item) = self.waiting.pop_front() {
            match self.queue.try_send(item) {
                Ok(()) => self.unsignalled = true,
                Err(TrySendError::Full(item)) => {
                    self.waiting.push_front(item);
                    break;
                }
                // Nobody listens any more.
                Err(TrySendError::Disconnected(_)) => self.waiting.clear(),
            }
        }
        if std::mem::take(&mut self.unsignalled) {
            self.waker.wake();
        }
    }

    /// The last words of a thread that ends, past what waits: waits for room up to `patience`.
    pub fn last_words(self, item: T, patience: Duration) {
        if self.queue.send_within(item, patience) {
            self.waker.wake();
        }
    }
}
