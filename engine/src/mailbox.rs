//! The two bounded channels between the planes.

use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use rustix::event::{EventfdFlags, eventfd};
use stampede_mailbox::{Outbox, Wake};

use crate::{CoverNews, EngineEvent, PeerCommand, PeerId, PeerRole};

/// What a worker is to do.
pub(crate) enum WorkerCommand {
    /// Take over a peer, with its bound socket if it has one yet.
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
    pub(crate) cohort: u16,
    pub(crate) socket: Option<UdpSocket>,
    pub(crate) beside: Option<PeerId>,
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
}

impl Wake for EventSignal {
    fn wake(&self) {
        // It can only fail with EAGAIN when the counter is near 2^64, and then it is readable.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

/// With this many events waiting a worker's snapshots are dropped and counted. The others are few,
/// a handful a peer's life, and none of them is.
pub(crate) const WAITING_BEFORE_SNAPSHOTS_MAX: usize = 4_096;

/// A worker's end of the event channel. What does not fit waits here, in order, and is offered
/// again each turn, so that neither a worker nor what happened to a peer is ever lost to a slow
/// signalling plane.
pub(crate) struct EventSink(Outbox<EngineEvent, Sender<EngineEvent>, EventSignal>);

impl EventSink {
    pub(crate) fn new(sender: Sender<EngineEvent>, signal: EventSignal) -> Self {
        Self(Outbox::new(sender, signal, WAITING_BEFORE_SNAPSHOTS_MAX))
    }

    /// Another end of the same channel.
    pub(crate) fn sibling(&self) -> Self {
        Self(self.0.sibling())
    }

    pub(crate) fn push(&mut self, event: EngineEvent) {
        if matches!(event, EngineEvent::Snapshot(_)) {
            self.0.offer(event);
        } else {
            self.0.push(event);
        }
    }

    /// So much waits that a snapshot would be dropped.
    pub(crate) fn is_crowded(&self) -> bool {
        self.0.is_crowded()
    }

    /// Takes out the times that streams cover which have found no place in the channel.
    pub(crate) fn take_covers(&mut self) -> Vec<CoverNews> {
        self.0.take_waiting(|event| match event {
            EngineEvent::Cover(news) => Ok(*news),
            other => Err(other),
        })
    }

    /// The measured window begins.
    pub(crate) fn begin_measuring(&mut self) {
        self.0.forget_dropped();
    }

    /// Snapshots that found too much waiting since the measured window began.
    pub(crate) fn snapshots_dropped(&self) -> u64 {
        self.0.dropped()
    }

    /// The last event of a thread that ends: waits for room up to `patience`.
    pub(crate) fn last_words(self, event: EngineEvent, patience: Duration) {
        self.0.last_words(event, patience);
    }

    /// Moves what fits into the channel and signals once.
    pub(crate) fn flush(&mut self) {
        self.0.flush();
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
    use std::time::Instant;

    use stampede_counters::RunCounters;

    use super::*;
    use crate::health::{Health, Second};
    use crate::snapshot::WorkerSnapshot;

    fn failed(worker: usize) -> EngineEvent {
        EngineEvent::WorkerFailed { worker, reason: String::new() }
    }

    #[test]
    fn only_snapshots_are_dropped_and_counted() {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let mut sink = EventSink::new(sender, EventSignal::new().unwrap());
        let snapshot = || {
            let health = Health::new(Instant::now());
            EngineEvent::Snapshot(Box::new(WorkerSnapshot {
                worker: 0,
                core: None,
                at_unix_ns: 0,
                peers: 0,
                peers_receiving: 0,
                counted: RunCounters::default(),
                second: Second::default(),
                health: health.measured(Instant::now()),
                video_latency_second_us: None,
                distributions: None,
                worst: Vec::new(),
            }))
        };
        for turn in 0..WAITING_BEFORE_SNAPSHOTS_MAX + 10 {
            sink.push(snapshot());
            sink.flush();
            assert!(sink.0.waiting() <= WAITING_BEFORE_SNAPSHOTS_MAX, "{turn}");
        }
        assert_eq!(sink.snapshots_dropped(), 9);
        sink.push(failed(1));
        let mut last = None;
        while sink.0.waiting() > 0 {
            last = receiver.try_iter().last().or(last);
            sink.flush();
        }
        last = receiver.try_iter().last().or(last);
        assert!(matches!(last, Some(EngineEvent::WorkerFailed { worker: 1, .. })));
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
