//! Bounded queues between threads, and who is woken when.
//!
//! A thread that also waits for sockets can't block on a channel: it sleeps until an eventfd is
//! readable, and then looks into its queue. Whether nothing is lost between the two depends on the
//! order of a few steps, which are here and nowhere else:
//!
//! - [`Mailbox`]: who sends puts the item into the queue first, and wakes then.
//! - [`run`]: who receives lets the sleep take the wake-up away first, and reads the queue then.
//! - [`Outbox`]: a thread that may not wait keeps what finds no room, in order, and wakes once for
//!   all that it has put into the queue.
//!
//! Channels and wake-ups are traits, so that a model checker (`tests/model.rs`) goes through the
//! orders in which the steps of two or three threads can happen, of this very code.

#![forbid(unsafe_code)]

mod outbox;
mod queue;

use std::ops::ControlFlow;

use crossbeam_channel::{SendError, TryRecvError, TrySendError};

pub use outbox::Outbox;
pub use queue::{Receiving, Sending};

/// Ends the sleep of a thread.
pub trait Wake {
    /// Ends the sleep of the thread, or the next one if it does not sleep. Several before it sleeps
    /// are one. What happened before this call, the thread sees after that sleep.
    fn wake(&self);
}

/// The sending end of a thread's queue. The thread is woken when one is dropped, so that it sees the
/// end when it was the last.
#[derive(Debug, Clone)]
pub struct Mailbox<S, W: Wake> {
    // Fields are dropped in this order: the queue is closed before the thread is woken for it.
    queue: S,
    waker: WakeAtEnd<W>,
}

/// Wakes when it is dropped.
#[derive(Debug, Clone)]
struct WakeAtEnd<W: Wake>(W);

impl<W: Wake> Drop for WakeAtEnd<W> {
    fn drop(&mut self) {
        self.0.wake();
    }
}

impl<S, W: Wake> Mailbox<S, W> {
    /// Of the thread that reads this queue and is woken by that.
    pub fn new(queue: S, waker: W) -> Self {
        Self { queue, waker: WakeAtEnd(waker) }
    }

    /// The queue.
    pub fn queue(&self) -> &S {
        &self.queue
    }

    /// Queues an item and wakes the thread.
    ///
    /// # Errors
    /// With the item, that the queue is full, or that the thread has ended. It is not woken then:
    /// whoever filled the queue has done that.
    pub fn post<T>(&self, item: T) -> Result<(), TrySendError<T>>
    where
        S: Sending<T>,
    {
        self.queue.try_send(item)?;
        self.waker.0.wake();
        Ok(())
    }

    /// The same, but waits while the queue is full.
    ///
    /// # Errors
    /// With the item, that the thread has ended.
    pub fn post_waiting<T>(&self, item: T) -> Result<(), SendError<T>>
    where
        S: Sending<T>,
    {
        self.queue.send(item)?;
        self.waker.0.wake();
        Ok(())
    }
}

/// A thread that sleeps until something is in its queue, or until it has something else to do.
pub trait Sleeper {
    /// What is in its queue.
    type Item;
    /// Where it is received.
    type Inbox: Receiving<Self::Item>;
    /// Why it can't go on.
    type Error;

    /// Its queue.
    fn inbox(&self) -> &Self::Inbox;

    /// Deals with an item. Breaks where the thread is to end with it.
    fn handle(&mut self, item: Self::Item) -> ControlFlow<()>;

    /// Does everything else, and sleeps in it if it `may_sleep`. A wake-up that comes before or
    /// while it sleeps ends the sleep; whether it slept or not, it may take one away.
    ///
    /// # Errors
    /// Why the thread can't go on.
    fn work(&mut self, may_sleep: bool) -> Result<(), Self::Error>;
}

/// The life of such a thread: it handles what is in its queue, at most so many items in a row, then
/// works. Ends when it is told to, or when nobody is left to send.
///
/// # Errors
/// That of [`Sleeper::work`].
pub fn run<S: Sleeper>(sleeper: &mut S, items_a_turn_max: usize) -> Result<(), S::Error> {
    loop {
        for _ in 0..items_a_turn_max {
            match sleeper.inbox().try_receive() {
                Ok(item) => {
                    if sleeper.handle(item).is_break() {
                        return Ok(());
                    }
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
        // The wake-ups of what is left over may have been taken already. Those of what comes after
        // this look have not.
        let may_sleep = sleeper.inbox().is_empty();
        sleeper.work(may_sleep)?;
    }
}
