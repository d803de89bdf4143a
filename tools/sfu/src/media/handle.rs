//! How to reach a media worker, and the worker's end of it.

use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use stampede_mailbox::Mailbox;
use stampede_udp::Waker;

use super::message::Command;
use super::packet::MediaBatch;
use crate::ledger::{CongestionLedger, PublishedTrackLedger, SubscriberTrackLedger, WorkerLedger};

/// Commands waiting for one worker at most, and as many of those that overtake them. The signalling
/// thread waits when it is full; a worker always goes on with them, though media comes first, and
/// never waits for signalling, so this can't deadlock.
const COMMANDS_MAX: usize = 65_536;

/// Media batches from other workers waiting for one worker at most; more are dropped and counted
/// in [`SfuWorkerCounters::mailbox_full`](stampede_counters::SfuWorkerCounters::mailbox_full).
pub(crate) const MEDIA_BATCHES_MAX: usize = 8_192;

/// Requests for the ledger waiting for one worker at most; whoever asks next waits for room.
const REPORTS_MAX: usize = 16;

/// One worker's part of the ledger.
#[derive(Debug, Default)]
pub(crate) struct WorkerReport {
    pub(crate) worker: WorkerLedger,
    /// Of what is over.
    pub(crate) ended: Rows,
    /// Of what is there.
    pub(crate) live: Rows,
}

/// Rows of the ledger.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// (room, track).
    pub(crate) published: Vec<(Arc<str>, PublishedTrackLedger)>,
    /// (room, identity, track).
    pub(crate) subscribed: Vec<(Arc<str>, Arc<str>, SubscriberTrackLedger)>,
    /// (room, identity, the way to it).
    pub(crate) congestion: Vec<(Arc<str>, Arc<str>, CongestionLedger)>,
}

/// How to reach a worker.
#[derive(Clone)]
pub(crate) struct WorkerHandle {
    /// In the order in which they are to be carried out.
    commands: Mailbox<Sender<Command>, Waker>,
    /// Those that may overtake.
    urgent: Mailbox<Sender<Command>, Waker>,
    media: Mailbox<Sender<MediaBatch>, Waker>,
    /// Apart from the commands, so that a request for the ledger never waits for them.
    reports: Mailbox<Sender<Sender<WorkerReport>>, Waker>,
    address: SocketAddr,
}

/// Where a worker finds what was sent to its handle.
pub(crate) struct Inbox {
    /// The first of the commands, if it was looked at.
    first: Option<Command>,
    commands: Receiver<Command>,
    urgent: Receiver<Command>,
    media: Receiver<MediaBatch>,
    reports: Receiver<Sender<WorkerReport>>,
}

/// Why a worker gets no further command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoCommand {
    /// None waits.
    Empty,
    /// All handles are gone, so that none will come.
    Orphaned,
}

impl WorkerHandle {
    /// A handle of the worker that `waker` wakes, and the worker's end of it.
    pub(crate) fn new(waker: Waker, address: SocketAddr) -> (Self, Inbox) {
        let (commands, commands_in) = crossbeam_channel::bounded(COMMANDS_MAX);
        let (urgent, urgent_in) = crossbeam_channel::bounded(COMMANDS_MAX);
        let (media, media_in) = crossbeam_channel::bounded(MEDIA_BATCHES_MAX);
        let (reports, reports_in) = crossbeam_channel::bounded(REPORTS_MAX);
        let inbox = Inbox {
            first: None,
            commands: commands_in,
            urgent: urgent_in,
            media: media_in,
            reports: reports_in,
        };
        let handle = Self {
            commands: Mailbox::new(commands, waker.clone()),
            urgent: Mailbox::new(urgent, waker.clone()),
            media: Mailbox::new(media, waker.clone()),
            reports: Mailbox::new(reports, waker),
            address,
        };
        (handle, inbox)
    }

    /// The worker's media socket as clients reach it, which is its ICE candidate.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks for the worker's part of the ledger; it comes on the channel that is returned, unless
    /// the worker has ended.
    pub(crate) fn ask(&self) -> Receiver<WorkerReport> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        // A worker that has ended drops the request, and who asked sees that.
        let _ = self.reports.post_waiting(reply);
        answer
    }

    /// Queues a command and wakes the worker. Waits while its queue is full; does nothing when
    /// the worker has ended.
    pub(crate) fn command(&self, command: Command) {
        let _ = self.mailbox_of(&command).post_waiting(command);
    }

    /// Queues a command unless the queue is full; for workers, which must not wait for each other.
    pub(crate) fn try_command(&self, command: Command) {
        let _ = self.mailbox_of(&command).post(command);
    }

    fn mailbox_of(&self, command: &Command) -> &Mailbox<Sender<Command>, Waker> {
        if command.may_overtake() { &self.urgent } else { &self.commands }
    }

    /// Queues media and wakes the worker; false when its queue is full.
    pub(crate) fn try_media(&self, batch: MediaBatch) -> bool {
        self.media.post(batch).is_ok()
    }
}

impl Inbox {
    /// Whether neither commands nor media wait.
    pub(crate) fn is_empty(&self) -> bool {
        !self.has_commands() && self.urgent.is_empty() && self.media.is_empty()
    }

    /// Whether commands wait, beside those that may overtake.
    pub(crate) fn has_commands(&self) -> bool {
        self.first.is_some() || !self.commands.is_empty()
    }

    /// The next command that is not to wait for anything: one that may overtake, or the first of the
    /// others if it is not of a join.
    pub(crate) fn pressing(&mut self) -> Option<Command> {
        if let Ok(command) = self.urgent.try_recv() {
            return Some(command);
        }
        if self.first.is_none() {
            self.first = self.commands.try_recv().ok();
        }
        self.first.take_if(|first| !first.can_wait())
    }

    /// The next of the commands that are carried out in order.
    pub(crate) fn command(&mut self) -> Result<Command, NoCommand> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        self.commands.try_recv().map_err(|error| match error {
            TryRecvError::Empty => NoCommand::Empty,
            TryRecvError::Disconnected => NoCommand::Orphaned,
        })
    }

    /// The next batch of another worker's media.
    pub(crate) fn media(&self) -> Option<MediaBatch> {
        self.media.try_recv().ok()
    }

    /// Who waits for the ledger next.
    pub(crate) fn report_request(&self) -> Option<Sender<WorkerReport>> {
        self.reports.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]

    use stampede_udp::{BackendChoice, BackendLimits};

    use super::*;
    use crate::media::message::{PeerKey, TrackKey};

    fn rig() -> (WorkerHandle, Inbox) {
        let backend = stampede_udp::open(BackendChoice::Mmsg, BackendLimits::default());
        let waker = backend.unwrap().0.waker();
        WorkerHandle::new(waker, ([127, 0, 0, 1], 1).into())
    }

    /// Who waits for room gets it with the first that is taken out, and nothing is lost or overtaken.
    fn who_finds_no_room_waits(
        most: usize,
        fill: impl Fn(u64) + Sync,
        mut take: impl FnMut() -> u64,
    ) {
        (0..most as u64).for_each(&fill);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| fill(most as u64));
            for number in 0..most as u64 {
                assert_eq!(take(), number);
            }
            waiting.join().unwrap();
        });
        assert_eq!(take(), most as u64);
    }

    #[test]
    fn commands_that_find_no_room_wait() {
        let (handle, mut inbox) = rig();
        let leave = |peer| handle.command(Command::RemovePeer(PeerKey(peer)));
        who_finds_no_room_waits(COMMANDS_MAX, leave, || match inbox.command() {
            Ok(Command::RemovePeer(PeerKey(peer))) => peer,
            _ => panic!("none"),
        });
        let keyframe = |track| Command::Keyframe { track: TrackKey(track), layer: 0 };
        let urgent = |track| handle.command(keyframe(track));
        who_finds_no_room_waits(COMMANDS_MAX, urgent, || match inbox.pressing() {
            Some(Command::Keyframe { track: TrackKey(track), .. }) => track,
            _ => panic!("none"),
        });
        // Workers do not wait for each other: a keyframe is asked for again.
        (0..COMMANDS_MAX as u64 + 1).for_each(|track| handle.try_command(keyframe(track)));
        assert_eq!(std::iter::from_fn(|| inbox.pressing()).count(), COMMANDS_MAX);
    }

    #[test]
    fn who_asks_for_the_ledger_while_many_do_waits() {
        let (handle, inbox) = rig();
        let asked = std::sync::Mutex::new(std::collections::VecDeque::new());
        let ask = |number| {
            let answer = handle.ask();
            asked.lock().unwrap().push_back((number, answer));
        };
        who_finds_no_room_waits(REPORTS_MAX, ask, || {
            let reply = inbox.report_request().unwrap();
            reply.send(WorkerReport::default()).unwrap();
            let (number, answer) = asked.lock().unwrap().pop_front().unwrap();
            answer.try_recv().unwrap();
            number
        });
    }

    #[test]
    fn what_is_not_of_a_join_waits_for_no_more_than_its_order_asks_for() {
        let (handle, mut inbox) = rig();
        let answer = |peer| Command::Answer { peer: PeerKey(peer), id: 1, sdp: String::new() };
        let leave = |peer| Command::RemovePeer(PeerKey(peer));
        for command in [leave(1), answer(2), leave(2), answer(3)] {
            handle.command(command);
        }
        handle.try_command(Command::Keyframe { track: TrackKey(1), layer: 0 });
        handle.command(Command::Stop);
        assert!(matches!(inbox.pressing(), Some(Command::Keyframe { .. })));
        assert!(matches!(inbox.pressing(), Some(Command::Stop)));
        assert!(matches!(inbox.pressing(), Some(Command::RemovePeer(PeerKey(1)))));
        assert!(inbox.pressing().is_none() && inbox.has_commands());
        assert!(matches!(inbox.command(), Ok(Command::Answer { peer: PeerKey(2), .. })));
        assert!(matches!(inbox.pressing(), Some(Command::RemovePeer(PeerKey(2)))));
        assert!(inbox.pressing().is_none() && !inbox.is_empty());
        assert!(matches!(inbox.command(), Ok(Command::Answer { peer: PeerKey(3), .. })));
        assert!(inbox.pressing().is_none() && inbox.is_empty());
        assert!(matches!(inbox.command(), Err(NoCommand::Empty)));
        drop(handle);
        assert!(matches!(inbox.command(), Err(NoCommand::Orphaned)));
    }
}
