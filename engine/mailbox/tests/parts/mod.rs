//! A channel and an eventfd as a model checker knows them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{SendError, TryRecvError, TrySendError};
use loom::sync::{Condvar, Mutex, MutexGuard};
use stampede_mailbox::{Receiving, Sending, Wake};

struct State<T> {
    items: VecDeque<T>,
    senders: usize,
    receiver: bool,
}

struct Channel<T> {
    state: Mutex<State<T>>,
    room: Condvar,
    max: usize,
}

impl<T> Channel<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap()
    }
}

/// The sending end of a channel that is as crossbeam's.
pub(crate) struct ModelSender<T>(Arc<Channel<T>>);

/// The receiving end.
pub(crate) struct ModelReceiver<T>(Arc<Channel<T>>);

/// A channel for so many items.
pub(crate) fn channel<T>(max: usize) -> (ModelSender<T>, ModelReceiver<T>) {
    let state = Mutex::new(State { items: VecDeque::new(), senders: 1, receiver: true });
    let channel = Arc::new(Channel { state, room: Condvar::new(), max });
    (ModelSender(Arc::clone(&channel)), ModelReceiver(channel))
}

impl<T> Clone for ModelSender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for ModelSender<T> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.lock().senders -= 1;
        }
    }
}

impl<T> Drop for ModelReceiver<T> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.lock().receiver = false;
            self.0.room.notify_all();
        }
    }
}

impl<T> Sending<T> for ModelSender<T> {
    fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        let mut state = self.0.lock();
        if !state.receiver {
            return Err(TrySendError::Disconnected(item));
        }
        if state.items.len() == self.0.max {
            return Err(TrySendError::Full(item));
        }
        state.items.push_back(item);
        Ok(())
    }

    fn send(&self, item: T) -> Result<(), SendError<T>> {
        let mut state = self.0.lock();
        while state.receiver && state.items.len() == self.0.max {
            state = self.0.room.wait(state).unwrap();
        }
        if !state.receiver {
            return Err(SendError(item));
        }
        state.items.push_back(item);
        Ok(())
    }

    /// Patience has ended by then.
    fn send_within(&self, item: T, _: Duration) -> bool {
        self.try_send(item).is_ok()
    }
}

impl<T> Receiving<T> for ModelReceiver<T> {
    fn try_receive(&self) -> Result<T, TryRecvError> {
        let mut state = self.0.lock();
        let item = state.items.pop_front();
        self.0.room.notify_one();
        item.ok_or(if state.senders == 0 {
            TryRecvError::Disconnected
        } else {
            TryRecvError::Empty
        })
    }

    fn is_empty(&self) -> bool {
        self.0.lock().items.is_empty()
    }
}

/// How a backend waits for its eventfd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Poll {
    /// A read that is in flight takes the count away as it completes (io_uring).
    Read,
    /// An edge of epoll, and then a read (mmsg, packet_ring).
    Edge,
}

#[derive(Default)]
struct Count {
    count: u64,
    /// Written to since epoll said so.
    edge: bool,
}

/// An eventfd.
#[derive(Clone)]
pub(crate) struct Eventfd(Arc<(Mutex<Count>, Condvar)>);

impl Eventfd {
    pub(crate) fn new() -> Self {
        Self(Arc::new((Mutex::new(Count::default()), Condvar::new())))
    }

    fn lock(&self) -> MutexGuard<'_, Count> {
        self.0.0.lock().unwrap()
    }

    /// What a backend's poll makes of it: ends with the next wake-up, at once if it may not sleep,
    /// and takes what there was away. There is no timeout: a wake-up that is lost is a deadlock,
    /// which the checker finds.
    pub(crate) fn poll(&self, poll: Poll, may_sleep: bool) {
        match poll {
            Poll::Read => self.wait(may_sleep, |count| count.count > 0).count = 0,
            Poll::Edge => {
                let mut count = self.wait(may_sleep, |count| count.edge && count.count > 0);
                let woken = std::mem::take(&mut count.edge) && count.count > 0;
                drop(count);
                if woken {
                    self.clear();
                }
            }
        }
    }

    fn wait(&self, may_sleep: bool, ready: impl Fn(&Count) -> bool) -> MutexGuard<'_, Count> {
        let mut count = self.lock();
        while may_sleep && !ready(&count) {
            count = self.0.1.wait(count).unwrap();
        }
        count
    }

    /// Sleeps until it is readable, and leaves it so: tokio's `AsyncFd`.
    pub(crate) fn readable(&self) {
        drop(self.wait(true, |count| count.count > 0));
    }

    /// Reads it.
    pub(crate) fn clear(&self) {
        self.lock().count = 0;
    }
}

impl Wake for Eventfd {
    fn wake(&self) {
        if std::thread::panicking() {
            return;
        }
        let mut count = self.lock();
        count.count += 1;
        count.edge = true;
        self.0.1.notify_all();
    }
}
