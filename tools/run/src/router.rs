//! Engine events to the tasks they are for.
//!
//! One task reads the engine's channel whenever its eventfd is readable. What only needs counting
//! (phases) goes to the join statistics at once; only what a participant must act on wakes its task.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use stampede_core::PeerCounters;
use stampede_engine::{CapturedPeer, EngineEvent, PeerId, PeerNotice, WorkerSnapshot};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::context::Context;
use crate::joins::{JoinPhase, ParticipantId};
use crate::series::Part;

/// Most notices waiting for one participant's task. A task that is that far behind is broken: its
/// sender is dropped, and the task ends with the reason `signalling_overloaded`.
pub(crate) const NOTICES_MAX: usize = 64;
/// A worker's second that is older than this is not the current one: a second, and half of one
/// because neither clock waits for the other.
const SECOND_AGE_MAX: Duration = Duration::from_millis(1_500);
/// Events handled before other tasks get a turn.
const EVENTS_A_TURN: usize = 1_024;

/// Where the notices of a peer go.
pub(crate) struct Route {
    /// Whose peer it is.
    pub participant: ParticipantId,
    /// When its join was scheduled.
    pub scheduled: Instant,
    /// Its task.
    pub notices: mpsc::Sender<PeerNotice>,
}

/// Peers with a task.
#[derive(Default)]
pub(crate) struct Routes(HashMap<PeerId, Route>);

impl Routes {
    /// Adds a peer.
    pub(crate) fn insert(&mut self, peer: PeerId, route: Route) {
        self.0.insert(peer, route);
    }

    /// Forgets a peer: what still comes is not for anybody.
    pub(crate) fn remove(&mut self, peer: PeerId) {
        self.0.remove(&peer);
    }
}

/// Latest state of the workers, for the live view and the series.
#[derive(Default)]
pub(crate) struct Workers {
    /// Latest snapshot of each worker by its number, and when it came.
    latest: Vec<Option<(Instant, WorkerSnapshot)>>,
    /// By worker, what came after the last row of the series was made.
    pub unread: Vec<Part>,
    /// What workers' flight recorders handed out and nobody has written yet.
    pub captured: Vec<CapturedPeer>,
    /// Workers that ended on their own.
    pub failed: Vec<String>,
    /// By tag: how many workers have answered, and their sums.
    pub readings: HashMap<u64, (usize, PeerCounters)>,
}

impl Workers {
    /// The next snapshot of a worker.
    pub(crate) fn keep(&mut self, snapshot: WorkerSnapshot) {
        let index = snapshot.worker;
        if self.unread.len() <= index {
            self.unread.resize_with(index + 1, Part::default);
        }
        self.unread[index].extend(&snapshot.second, snapshot.video_latency_second_us.as_ref());
        if self.latest.len() <= index {
            self.latest.resize_with(index + 1, || None);
        }
        self.latest[index] = Some((Instant::now(), snapshot));
    }

    /// Latest snapshot of each worker.
    pub(crate) fn snapshots(&self) -> impl Iterator<Item = &WorkerSnapshot> + Clone {
        self.latest.iter().flatten().map(|(_, snapshot)| snapshot)
    }

    /// The same, and whether its second is the one that `now` ends: a worker that stands still
    /// makes no snapshots, and what it did before is not what it does now.
    pub(crate) fn seconds(
        &self,
        now: Instant,
    ) -> impl Iterator<Item = (&WorkerSnapshot, bool)> + Clone {
        let fresh = move |at: &Instant| now.saturating_duration_since(*at) <= SECOND_AGE_MAX;
        self.latest.iter().flatten().map(move |(at, snapshot)| (snapshot, fresh(at)))
    }
}

/// Routes events until the engine is gone. Ends only with an error of the eventfd.
pub(crate) async fn route(context: Rc<Context>, workers: Rc<RefCell<Workers>>) -> io::Result<()> {
    let fd: OwnedFd = match context.engine() {
        Some(engine) => engine.event_fd().try_clone_to_owned()?,
        None => return Ok(()),
    };
    // Deprecated because a type may give out another descriptor later; an `OwnedFd` never does,
    // and the successor is `unsafe`, which this crate forbids.
    #[allow(deprecated)]
    let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
    loop {
        let mut ready = fd.readable().await?;
        let mut count = [0; 8];
        match rustix::io::read(fd.get_ref(), &mut count) {
            Ok(_) => {}
            Err(error) if error == rustix::io::Errno::AGAIN => ready.clear_ready(),
            Err(error) => return Err(error.into()),
        }
        loop {
            let events: Vec<EngineEvent> = match context.engine() {
                Some(engine) => engine.events().try_iter().take(EVENTS_A_TURN).collect(),
                None => return Ok(()),
            };
            let more = events.len() == EVENTS_A_TURN;
            for event in events {
                handle(&context, &workers, event);
            }
            if !more {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
}

fn handle(context: &Context, workers: &RefCell<Workers>, event: EngineEvent) {
    match event {
        EngineEvent::Peer { peer, at_unix_ns, notice } => {
            peer_notice(context, peer, at_unix_ns, notice);
        }
        EngineEvent::Cover(news) => context.audience.borrow_mut().covers(*news),
        EngineEvent::Snapshot(snapshot) => workers.borrow_mut().keep(*snapshot),
        EngineEvent::Captured(peers) => workers.borrow_mut().captured.extend(peers),
        EngineEvent::Totals { tag, totals, .. } => {
            let mut workers = workers.borrow_mut();
            let (answers, sum) = workers.readings.entry(tag).or_default();
            *answers += 1;
            sum.merge(&totals);
            context.changed.notify_waiters();
        }
        EngineEvent::WorkerFailed { worker, reason } => {
            tracing::error!("worker {worker} ended: {reason}");
            workers.borrow_mut().failed.push(format!("worker {worker} ended: {reason}"));
            context.changed.notify_waiters();
        }
    }
}

fn peer_notice(context: &Context, peer: PeerId, at_unix_ns: u64, notice: PeerNotice) {
    let mut routes = context.routes.borrow_mut();
    let Some(route) = routes.0.get(&peer) else { return };
    let reached = |phase| {
        let since = context.clock.since(route.scheduled, at_unix_ns);
        context.joins.borrow_mut().reached(route.participant, phase, since);
    };
    match &notice {
        PeerNotice::IceConnected => return reached(JoinPhase::Ice),
        PeerNotice::FirstPacket { .. } => {
            reached(JoinPhase::FirstPacket);
            return context.changed.notify_waiters();
        }
        PeerNotice::FirstKeyframe => {
            reached(JoinPhase::FirstKeyframe);
            return context.changed.notify_waiters();
        }
        PeerNotice::Connected => {
            reached(JoinPhase::Dtls);
            context.changed.notify_waiters();
        }
        PeerNotice::Answer { .. }
        | PeerNotice::Offer { .. }
        | PeerNotice::NegotiationFailed { .. }
        | PeerNotice::LocalCandidate { .. }
        | PeerNotice::Disconnected { .. } => {}
        PeerNotice::Closed => {
            routes.0.remove(&peer);
            return;
        }
    }
    if route.notices.try_send(notice).is_err() {
        routes.0.remove(&peer);
    }
}
