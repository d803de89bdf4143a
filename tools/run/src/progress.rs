//! What a run tells whoever looks at it, and what they can ask of it.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use stampede_counters::{GeneratorCounters, RecoveryGroups, RunCounters};
use stampede_engine::{Distributions, PeerLine, WorkerReport, WorkerSnapshot};
use stampede_report::merge;
use stampede_report::running::{LiveJoins, LiveWatch};
use stampede_report::threshold::Crossed;
use stampede_report::types::{SeriesRow, StageRow};
use tokio::sync::{Notify, watch};

use crate::data::RunData;
use crate::distributions::LiveDistributions;
use crate::joins::Joins;
use crate::recoveries::Recoveries;
use crate::signalled::Signalled;
use crate::viewers::Viewers;

/// What a run is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

/// The state of a run, or of a host's part of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
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
    /// The stages that have ended.
    pub stages: Vec<StageRow>,
    /// What was measured so far, of a host of several; what it has grown by is sent beside this.
    #[serde(skip)]
    pub distributions: Arc<LiveDistributions>,
    /// The workers' worst peers; no other host is told of them.
    #[serde(skip)]
    pub worst: Vec<PeerLine>,
}

impl Progress {
    /// The state of a run that several hosts make: that of the slowest of them, and the sums.
    pub fn of_hosts(hosts: &[Self]) -> Self {
        let mut whole = Self {
            phase: hosts.iter().map(|host| host.phase).min().unwrap_or_default(),
            started_at: hosts.iter().filter_map(|host| host.started_at).min(),
            counted_since: hosts.iter().map(|host| host.counted_since).max().unwrap_or_default(),
            left: hosts.iter().filter_map(|host| host.left).max(),
            watch: LiveWatch::merged(hosts.iter().map(|host| &host.watch)),
            second: merge::second(hosts.iter().map(|host| &host.second)),
            ..Self::default()
        };
        for host in hosts {
            whole.paused |= host.paused;
            whole.elapsed = whole.elapsed.max(host.elapsed);
            whole.connected += host.connected;
            whole.joins.merge(&host.joins);
            whole.recoveries.merge(&host.recoveries);
            whole.subscribers += host.subscribers;
            whole.counters.merge(&host.counters);
            // Each with a number of its own.
            let number = whole.workers.len();
            let workers = host.workers.iter().enumerate();
            whole.workers.extend(
                workers
                    .map(|(own, worker)| WorkerProgress { worker: number + own, ..worker.clone() }),
            );
            for (kind, count) in &host.errors {
                match whole.errors.iter_mut().find(|(known, _)| known == kind) {
                    Some((_, sum)) => *sum = sum.saturating_add(*count),
                    None => whole.errors.push((kind.clone(), *count)),
                }
            }
        }
        whole.errors.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        whole
    }

    /// The state of a run that is over: what its report says.
    pub fn at_the_end(data: &RunData) -> Self {
        let workers = data.engine.as_ref().map_or(&[][..], |engine| &engine.workers);
        let mut counters = RunCounters::default();
        let mut measured = Distributions::default();
        for worker in workers {
            counters.merge(&worker.counted);
            measured.merge(&worker.distributions);
        }
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
            stages: data.measured.stages.clone().unwrap_or_default(),
            distributions: distributions(&measured, &data.joins, &data.recoveries, &data.signalled),
            ..Self::default()
        }
    }
}

/// What was measured so far, under the names by which [`report_so_far`](crate::report_so_far) looks
/// for it. Not how late workers were: two histograms for each of them would be most of what a
/// coordinator had to read.
pub(crate) fn distributions(
    measured: &Distributions,
    joins: &Joins,
    recoveries: &Recoveries,
    signalled: &Signalled,
) -> Arc<LiveDistributions> {
    let mut all = LiveDistributions::default();
    all.put_measured(measured);
    joins.put(&mut all);
    recoveries.put(&mut all);
    signalled.put(&mut all);
    Arc::new(all)
}

/// A worker: its last second, and its counts since the measured window began.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
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
    crossed: Mutex<Option<Crossed>>,
    /// Woken by whatever is to be shown at once.
    pub changed: Notify,
}

impl Default for Controls {
    fn default() -> Self {
        Self {
            interrupt: watch::Sender::new(false),
            paused: AtomicBool::new(false),
            capture: AtomicBool::new(false),
            crossed: Mutex::new(None),
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

    /// Pauses the ramp, or goes on with it, as another host says.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Ends the run because a threshold on more than this host was crossed.
    pub fn cross(&self, crossed: Crossed) {
        *self.crossed.lock().unwrap_or_else(PoisonError::into_inner) = Some(crossed);
        self.changed.notify_one();
    }

    /// What was crossed since the last call.
    pub(crate) fn take_crossed(&self) -> Option<Crossed> {
        self.crossed.lock().unwrap_or_else(PoisonError::into_inner).take()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_hosts_are_as_far_as_the_slowest_and_as_many_as_all() {
        let host = |phase, joined, refused| Progress {
            phase,
            elapsed: Duration::from_secs(joined),
            connected: joined as usize,
            joins: LiveJoins { peak: joined, ..LiveJoins::default() },
            errors: vec![("dns".to_owned(), 1), ("http_503".to_owned(), refused)],
            second: SeriesRow { t_s: 3.0, packets_in: 10 * joined, ..SeriesRow::default() },
            workers: vec![WorkerProgress { worker: 0, peers: 7, ..WorkerProgress::default() }],
            ..Progress::default()
        };
        let hosts = [host(Phase::Hold, 4, 5), host(Phase::Ramp, 3, 0)];
        // As it crosses the network.
        let sent = serde_json::to_string(&hosts[0]).unwrap();
        let come: Progress = serde_json::from_str(&sent).unwrap();
        let whole = Progress::of_hosts(&[come, hosts[1].clone()]);
        assert_eq!((whole.phase, whole.connected, whole.joins.peak), (Phase::Ramp, 7, 7));
        assert_eq!((whole.elapsed.as_secs(), whole.second.packets_in), (4, 70));
        assert_eq!(whole.errors, [("http_503".to_owned(), 5), ("dns".to_owned(), 2)]);
        let workers: Vec<_> = whole.workers.iter().map(|one| (one.worker, one.peers)).collect();
        assert_eq!(workers, [(0, 7), (1, 7)]);
        assert_eq!(Progress::of_hosts(&[]).phase, Phase::Starting);
    }
}
