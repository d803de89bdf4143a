//! What a worker has to say to the signalling thread, and has not said yet.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::message::{Event, PeerKey};

/// Events waiting for the signalling thread at most. When it is full a worker keeps its events
/// until there is room.
pub(crate) const EVENTS_MAX: usize = 65_536;

/// Events that a worker may have kept before clients' data messages are dropped, and counted. A
/// peer's other events are a handful that it can't repeat.
const BACKLOG_EVENTS_MAX: usize = 10_000;

/// Events on their way. The backlog is bounded by what peers can say unasked: a handful of events
/// each, and data messages up to [`BACKLOG_EVENTS_MAX`].
pub(crate) struct EventQueue {
    sender: mpsc::Sender<Event>,
    /// Events that found the channel full.
    backlog: VecDeque<Event>,
    messages_dropped: u64,
}

impl EventQueue {
    pub(crate) fn new(sender: mpsc::Sender<Event>) -> Self {
        Self { sender, backlog: VecDeque::new(), messages_dropped: 0 }
    }

    /// Says something.
    pub(crate) fn emit(&mut self, event: Event) {
        self.backlog.push_back(event);
        self.flush();
    }

    /// Passes on a message of a client's data channel, unless too much waits already.
    pub(crate) fn emit_data(&mut self, peer: PeerKey, channel: &str, payload: Vec<u8>) {
        if self.backlog.len() >= BACKLOG_EVENTS_MAX {
            self.messages_dropped += 1;
            return;
        }
        self.emit(Event::Data { peer, channel: channel.to_owned(), payload });
    }

    /// Sends what waits, as far as there is room.
    pub(crate) fn flush(&mut self) {
        while let Some(event) = self.backlog.pop_front() {
            match self.sender.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.backlog.push_front(event);
                    return;
                }
                Err(TrySendError::Closed(_)) => return,
            }
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Whether the signalling thread has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Messages of data channels that were not passed on.
    pub(crate) fn messages_dropped(&self) -> u64 {
        self.messages_dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_found_no_room_is_said_later_and_only_data_is_dropped() {
        let (sender, mut receiver) = mpsc::channel(EVENTS_MAX);
        let mut events = EventQueue::new(sender);
        let data = |n: usize| (n as u32).to_be_bytes().to_vec();
        let all = EVENTS_MAX + BACKLOG_EVENTS_MAX;
        for n in 0..all {
            events.emit_data(PeerKey(1), "_lossy", data(n));
        }
        assert_eq!(events.messages_dropped(), 0, "most are in the channel");
        events.emit_data(PeerKey(1), "_lossy", data(0));
        assert_eq!(events.messages_dropped(), 1);
        events.emit(Event::Closed { peer: PeerKey(1) });
        for n in 0..all {
            let Ok(Event::Data { payload, .. }) = receiver.try_recv() else { panic!("{n}") };
            assert_eq!(payload, data(n));
            events.flush();
        }
        assert!(matches!(receiver.try_recv(), Ok(Event::Closed { .. })));
        assert!(events.is_empty() && !events.is_closed());
    }
}
