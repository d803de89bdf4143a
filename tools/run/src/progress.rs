//! What a run tells whoever looks at it, and what they can ask of it.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use stampede_counters::{GeneratorCounters, RecoveryGroups, RunCounters};
use stampede_engine::{PeerLine, WorkerReport, WorkerSnapshot};
use stampede_report::running::{LiveJoins, LiveWatch};
use stampede_report::types::SeriesRow;
use tokio::sync::{Notify, watch};

use crate::data::RunData;
use crate::viewers::Viewers;

/// What a run is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nobody has been started.
    #[default]
    Starting,
    /// Publishers join.
    Publish,
    /// Subscribers join.
    Ramp,
    /// Subscribers come and go in stages.
    Stages,
    /// Everybody stays.
    Hold,
    /// Everybody leaves.
    Leave,
}

impl Phase {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Publish => "publish",
            Self::Ramp => "ramp",
            Self::Stages => "stages",
            Self::Hold => "hold",
            Self::Leave => "leave",
        }
    }

    /// True if it can be paused: stages keep their schedule, and a ramp that is over can't wait.
    pub fn can_pause(self) -> bool {
        matches!(self, Self::Publish | Self::Ramp)
    }
}

/// The state of a run.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// The ramp is paused by the user.
    pub paused: bool,
    /// When the run started, by the wall clock; `None` before.
    pub started_at: Option<SystemTime>,
    /// Since the start of the run.
    pub elapsed: Duration,
    /// Left of the measured window, if it has begun.
    pub left: Option<Duration>,
    /// Participants connected now.
    pub connected: usize,
    /// Where the participants stand, and what became of their tries.
    pub joins: LiveJoins,
    /// Tries to come back so far.
    pub recoveries: RecoveryGroups,
    /// Errors of joins by kind, commonest first.
    pub errors: Vec<(String, u64)>,
    /// Watch time so far.
    pub watch: LiveWatch,
    /// Subscribers asked for at one time.
    pub subscribers: usize,
    /// The latest second.
    pub second: SeriesRow,
    /// When what the workers count began, since the start of the run: with it, and anew with the
    /// measured window.
    pub counted_since: Duration,
    /// Everything the workers counted since the measured window began.
    pub counters: RunCounters,
    /// The workers.
    pub workers: Vec<WorkerProgress>,
    /// The workers' worst peers.
    pub worst: Vec<PeerLine>,
}

impl Progress {
    /// The state of a run that is over: what its report says.
    pub fn at_the_end(data: &RunData) -> Self {
        let workers = data.engine.as_ref().map_or(&[][..], |engine| &engine.workers);
        let mut counters = RunCounters::default();
        workers.iter().for_each(|worker| counters.merge(&worker.counted));
        Self {
            phase: Phase::Leave,
            started_at: Some(data.clock.started_at),
            elapsed: data.duration,
            connected: data.joins.connected(),
            joins: data.joins.live(),
            recoveries: data.recoveries.counted(),
            errors: data.joins.errors(),
            watch: Viewers::of(data).live(),
            subscribers: data.scenario.shape.receivers_peak(),
            second: data.series.last().cloned().unwrap_or_default(),
            counted_since: data
                .measured
                .begin
                .map_or(Duration::ZERO, |mark| data.clock.until(mark.at)),
            counters,
            workers: workers.iter().map(WorkerProgress::at_the_end).collect(),
            ..Self::default()
        }
    }
}

/// A worker: its last second, and its counts since the measured window began.
#[derive(Debug, Clone, Default)]
pub struct WorkerProgress {
    /// Which.
    pub worker: usize,
    /// Its core, if it is pinned.
    pub core: Option<usize>,
    /// Peers it holds.
    pub peers: usize,
    /// CPU time over wall time in the second.
    pub busy_ratio: f64,
    /// Worst lateness of a timer in the second.
    pub lateness_max: Duration,
    /// Datagrams received in the second.
    pub packets_in: u64,
    /// Datagrams sent in the second.
    pub packets_out: u64,
    /// CPU time since the window began.
    pub cpu: Duration,
    /// What it counted of itself since the window began.
    pub counted: GeneratorCounters,
}

impl WorkerProgress {
    /// Of a worker's latest snapshot.
    pub fn of(snapshot: &WorkerSnapshot) -> Self {
        let second = &snapshot.second;
        Self {
            worker: snapshot.worker,
            core: snapshot.core,
            peers: snapshot.peers,
            busy_ratio: second.busy_ratio,
            lateness_max: second.lateness_max,
            packets_in: second.datagrams_in,
            packets_out: second.datagrams_out,
            cpu: snapshot.health.cpu,
            counted: snapshot.counted.generator,
        }
    }

    /// Of a worker that has ended.
    fn at_the_end(report: &WorkerReport) -> Self {
        let second = &report.last.second;
        Self {
            worker: report.worker,
            core: report.core,
            peers: 0,
            busy_ratio: second.busy_ratio,
            lateness_max: second.lateness_max,
            packets_in: second.datagrams_in,
            packets_out: second.datagrams_out,
            cpu: report.health.cpu,
            counted: report.counted.generator,
        }
    }
}

/// Where the state of a run is shown.
pub trait View {
    /// Shows it; called a few times a second. `progress.second` changes once a second.
    fn show(&mut self, progress: &Progress);

    /// Says one thing to the user, unless nothing is to be said.
    fn say(&self, text: &str);

    /// What has to go on beside the run, on its thread, until it ends: an endpoint, signals.
    fn beside(&mut self) -> Pin<Box<dyn Future<Output = ()>>>;
}

/// What the user asks of a run that goes on.
#[derive(Debug)]
pub struct Controls {
    interrupt: watch::Sender<bool>,
    paused: AtomicBool,
    capture: AtomicBool,
    /// Woken by whatever is to be shown at once.
    pub changed: Notify,
}

impl Default for Controls {
    fn default() -> Self {
        Self {
            interrupt: watch::Sender::new(false),
            paused: AtomicBool::new(false),
            capture: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }
}

impl Controls {
    /// Ends the run gracefully; false if that was asked for before.
    pub fn stop(&self) -> bool {
        // A stopping run starts nobody; a pause must not hold it.
        !self.interrupt.send_replace(true)
    }

    /// Becomes true when the run is to end.
    pub(crate) fn interrupted(&self) -> watch::Receiver<bool> {
        self.interrupt.subscribe()
    }

    /// True if the run is to end.
    pub fn is_stopping(&self) -> bool {
        *self.interrupt.borrow()
    }

    /// True while the ramp shall start nobody.
    pub fn paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Pauses the ramp, or goes on with it.
    pub fn toggle_pause(&self) {
        self.paused.fetch_xor(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Asks the flight recorder for what it has.
    pub fn want_capture(&self) {
        self.capture.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// True if it was asked for since the last call.
    pub fn take_capture(&self) -> bool {
        self.capture.swap(false, Ordering::Relaxed)
    }
}
