//! Where engine events go, and the latest that the workers told.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use stampede_core::PeerCounters;
use stampede_engine::{CapturedPeer, Distributions, PeerId, PeerNotice, WorkerSnapshot};
use stampede_signaling::session::Target;
use tokio::sync::Notify;

use crate::clock::now;
use crate::joins::{JoinPhase, ParticipantId};
use crate::series::Part;

/// Most notices waiting for one participant's task. A task that is that far behind is broken: it is
/// told no more, and ends with the reason `signalling_overloaded`.
pub(crate) const NOTICES_MAX: usize = 64;
/// A worker's second that is older than this is not the current one: a second, and half of one
/// because neither clock waits for the other.
const SECOND_AGE_MAX: Duration = Duration::from_millis(1_500);

/// Where the notices of a peer go.
pub(crate) struct Route {
    /// Whose peer it is.
    pub participant: ParticipantId,
    /// When its join was scheduled.
    pub scheduled: Instant,
    /// Which of its session's connections it is.
    pub target: Target,
    /// Where the notices of its session's peers go.
    pub inbox: Rc<Inbox>,
}

/// A notice, and of which of a session's connections.
pub(crate) type Notice = (Target, PeerNotice);

/// Where the notices of a session's peers go: of one, or of two.
pub(crate) struct Inbox {
    /// What its task has not read: at most [`NOTICES_MAX`]. A task has few to read after its join, so
    /// that nothing is kept here for more.
    waiting: RefCell<VecDeque<Notice>>,
    /// The task waits for nothing more.
    closed: Cell<bool>,
    news: Notify,
    /// The connections that it has.
    peers: u8,
    /// By phase, which of them have reached it.
    reached: Cell<[u8; 2]>,
}

impl Inbox {
    /// For a session with so many peers, and what its task hears.
    pub(crate) fn new(peers: u8) -> (Rc<Self>, Notices) {
        let inbox = Rc::new(Self {
            waiting: RefCell::default(),
            closed: Cell::new(false),
            news: Notify::new(),
            peers,
            reached: Cell::default(),
        });
        (Rc::clone(&inbox), Notices(inbox))
    }

    /// One of the connections has come to this; true if all of them have. Of two the later one
    /// counts: before that the participant can't do what it is there for.
    pub(crate) fn all_reached(&self, target: Target, phase: JoinPhase) -> bool {
        let mut reached = self.reached.get();
        let peers = &mut reached[usize::from(phase == JoinPhase::Dtls)];
        *peers |= 1 << target as u8;
        let all = peers.count_ones() >= u32::from(self.peers);
        self.reached.set(reached);
        all
    }

    /// Brings a notice to the task, if that waits for any. A task that has too many to read hears no
    /// more.
    pub(crate) fn tell(&self, notice: Notice) {
        if self.closed.get() {
            return;
        }
        let mut waiting = self.waiting.borrow_mut();
        match waiting.len() < NOTICES_MAX {
            true => waiting.push_back(notice),
            false => self.closed.set(true),
        }
        self.news.notify_one();
    }

    /// What still comes is of no use to the task, only to the books.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.news.notify_one();
    }
}

/// What the task of a session hears of its peers.
pub(crate) struct Notices(Rc<Inbox>);

impl Notices {
    /// The next one; `None` once the inbox is closed and all are read. Cancel-safe.
    pub(crate) async fn recv(&mut self) -> Option<Notice> {
        let Self(inbox) = self;
        loop {
            {
                let mut waiting = inbox.waiting.borrow_mut();
                let next = waiting.pop_front();
                if waiting.is_empty() {
                    *waiting = VecDeque::new();
                }
                if next.is_some() || inbox.closed.get() {
                    return next;
                }
            }
            inbox.news.notified().await;
        }
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.0.close();
        self.0.waiting.take();
    }
}

/// Peers with a task.
#[derive(Default)]
pub(crate) struct Routes(HashMap<PeerId, Route>);

impl Routes {
    /// Adds a peer.
    pub(crate) fn insert(&mut self, peer: PeerId, route: Route) {
        self.0.insert(peer, route);
    }

    /// Where the notices of a peer go; `None` once nobody waits for them.
    pub(crate) fn of(&self, peer: PeerId) -> Option<&Route> {
        self.0.get(&peer)
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
    /// What peers measured in the latest window of a worker, as far as snapshots told it.
    pub measured: Distributions,
    /// The number of that window.
    window: u32,
    /// What workers' flight recorders handed out and nobody has written yet.
    pub captured: Vec<CapturedPeer>,
    /// Workers that ended on their own.
    pub failed: Vec<String>,
    /// By tag: how many workers have answered, and their sums.
    pub readings: HashMap<u64, (usize, PeerCounters)>,
}

impl Workers {
    /// The next snapshot of a worker.
    pub(crate) fn keep(&mut self, mut snapshot: WorkerSnapshot) {
        let index = snapshot.worker;
        self.measure(snapshot.health.windows, snapshot.distributions.take());
        if self.unread.len() <= index {
            self.unread.resize_with(index + 1, Part::default);
        }
        self.unread[index].extend(&snapshot.second, snapshot.video_latency_second_us.as_ref());
        if self.latest.len() <= index {
            self.latest.resize_with(index + 1, || None);
        }
        self.latest[index] = Some((now(), snapshot));
    }

    /// Adds what a worker's peers measured in this window of its.
    fn measure(&mut self, window: u32, measured: Option<Box<Distributions>>) {
        if window > self.window {
            (self.window, self.measured) = (window, Distributions::default());
        }
        // The window of one that is behind is over.
        if window == self.window
            && let Some(own) = measured
        {
            self.measured.merge(&own);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_of_the_latest_window_of_any_worker() {
        let mut workers = Workers::default();
        let mut told = |window, count| {
            let mut own = Distributions::default();
            own.video_latency_us.record_n(9, count).unwrap();
            workers.measure(window, Some(Box::new(own)));
            workers.measured.video_latency_us.len()
        };
        // Of two workers the second is behind, and then in the window as well.
        let told = [(0, 1), (0, 2), (1, 4), (0, 8), (1, 16)].map(|(window, n)| told(window, n));
        assert_eq!(told, [1, 3, 4, 4, 20]);
        workers.measure(2, None);
        assert!(workers.measured.video_latency_us.is_empty());
    }

    #[tokio::test]
    async fn a_task_that_reads_nothing_hears_no_more_than_the_maximum() {
        let (inbox, mut notices) = Inbox::new(1);
        for _ in 0..NOTICES_MAX + 5 {
            inbox.tell((Target::Subscriber, PeerNotice::NextFrame));
        }
        for _ in 0..NOTICES_MAX {
            assert!(notices.recv().await.is_some());
        }
        assert!(notices.recv().await.is_none(), "it was too far behind");
    }

    #[tokio::test]
    async fn what_was_told_before_the_end_is_heard_and_what_comes_later_wakes() {
        let (inbox, mut notices) = Inbox::new(1);
        inbox.tell((Target::Subscriber, PeerNotice::Connected));
        assert!(matches!(notices.recv().await, Some((_, PeerNotice::Connected))));
        let (later, ()) = tokio::join!(notices.recv(), async {
            tokio::task::yield_now().await;
            inbox.tell((Target::Subscriber, PeerNotice::IceConnected));
            inbox.close();
            inbox.tell((Target::Subscriber, PeerNotice::Connected));
        });
        assert!(matches!(later, Some((_, PeerNotice::IceConnected))));
        assert!(notices.recv().await.is_none());
    }
}
