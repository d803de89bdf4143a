//! The worker's connection, on a thread of its own.
//!
//! What the run has to say goes into it without ever waiting: a snapshot that could not be sent in
//! time is replaced by the next one. What the coordinator says is turned into what the run
//! understands.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc as blocking};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use stampede_hosts::clock::{Estimate, Exchange, OffsetMeter};
use stampede_hosts::messages::{FromWorker, REPORT_PART_BYTES, Share, ToWorker, encode};
use stampede_hosts::proof::Token;
use stampede_hosts::worker::{ASK_EVERY, ASK_EVERY_AT_FIRST, Action, EXCHANGES_MIN, Worker};
use stampede_report::threshold::Crossed;
use stampede_run::{Controls, LiveDistributions, Others, Progress};
use tokio::sync::{mpsc, watch};

use super::link::{
    Came, LinkError, Sink, Socket, Stream, introduce, receive, send, send_part, send_text,
};
use super::{Since, runtime, tls, unix_ns};

/// Pause between two tries to reach a coordinator that does not listen yet.
const DIAL_EVERY: Duration = Duration::from_millis(500);
/// Pause between looks at the time.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A run that shows nothing for so long stands still: then the worker does not say that it lives.
const STALL_MAX: Duration = Duration::from_secs(5);
/// Messages that wait to be sent; at the most the connection is given up, for nothing was sent for
/// many seconds then. Snapshots and questions of the time are left out before.
const OUTGOING_MAX: usize = 64;

/// What the run hears.
#[derive(Debug)]
pub(super) enum ForRun {
    /// Its part, and whose clock is how far off.
    Share(Box<Share>, Estimate),
    /// There is nothing to run.
    Dismissed {
        /// Why.
        why: String,
        /// It can be put right here, or at the coordinator.
        bad_configuration: bool,
    },
    /// The report was taken.
    Taken {
        /// Another run may follow.
        again: bool,
    },
    /// No other run follows.
    Done,
    /// The coordinator is gone, and the report with it.
    Lost(String),
}

/// What the run says.
pub(super) enum FromRun {
    /// It could start; the other end of where it waits for the others.
    Ready(Others, Arc<Controls>, Estimate),
    /// It can't.
    Refused(String),
    /// Its report, as JSON, and how far its clock was off.
    Report(Vec<u8>, Estimate),
}

/// What the run's thread and the connection's share.
#[derive(Debug)]
pub(super) struct Shared {
    since: Since,
    /// When the run showed its state last, in milliseconds; 0 before it did.
    shown_ms: AtomicU64,
    /// The run is over: its thread has other things to do.
    over: AtomicBool,
    /// The latest state.
    latest: watch::Sender<Latest>,
    /// Why the coordinator is gone, once it is.
    lost: Mutex<Option<String>>,
    /// The coordinator's clock against this host's, as it is known now.
    clock: Mutex<Option<Estimate>>,
    /// By so much this host's clock is taken to be ahead, in tests.
    ahead_ns: i64,
}

/// A state on its way to the coordinator.
#[derive(Debug, Clone, Default)]
struct Latest {
    /// But for its distributions, as JSON.
    progress: String,
    /// Those so far: what they have grown by is made of them when there is room to send it.
    distributions: Arc<LiveDistributions>,
}

impl Shared {
    pub(super) fn new(ahead_ns: i64) -> Self {
        Self {
            since: Since::now(),
            shown_ms: AtomicU64::new(0),
            over: AtomicBool::new(false),
            latest: watch::Sender::new(Latest::default()),
            lost: Mutex::new(None),
            clock: Mutex::new(None),
            ahead_ns,
        }
    }

    /// What this host takes for the time.
    fn unix_ns(&self) -> u64 {
        unix_ns().saturating_add_signed(self.ahead_ns)
    }

    /// The run goes on.
    pub(super) fn shown(&self) {
        let now_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.shown_ms.store(now_ms.max(1), Ordering::Relaxed);
    }

    /// Tells the coordinator of a state, in place of one that it has not been told yet.
    pub(super) fn tell(&self, progress: &Progress) {
        match serde_json::to_string(progress) {
            Ok(text) => {
                let distributions = Arc::clone(&progress.distributions);
                self.latest.send_replace(Latest { progress: text, distributions });
            }
            Err(error) => tracing::warn!("the coordinator is not told: {error}"),
        }
    }

    /// The run has ended.
    pub(super) fn over(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Why the coordinator is gone, if it is.
    pub(super) fn lost(&self) -> Option<String> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How far this host's clock was off, if `corrected` was taken for it all the time: what the
    /// two have drifted apart since is not known to be any less.
    pub(super) fn drifted(&self, corrected: Estimate) -> Estimate {
        let now = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(now) = now else { return corrected };
        let apart = now.offset_ns.abs_diff(corrected.offset_ns);
        let bound_ns = corrected.bound_ns.max(now.bound_ns.saturating_add(apart));
        Estimate { bound_ns, ..corrected }
    }

    /// Takes out what the report of this host won't have either, should it be lost: latencies by
    /// clocks that are not known any more.
    fn forget_latency(&self, corrected: Estimate, distributions: &mut Arc<LiveDistributions>) {
        if !self.drifted(corrected).is_sure() {
            // Media stamped elsewhere was left out from the start where the clock was never sure.
            Arc::make_mut(distributions).forget_latency(corrected.is_sure());
        }
    }

    /// False if the run has begun and stands still.
    fn goes_on(&self) -> bool {
        let shown = Duration::from_millis(self.shown_ms.load(Ordering::Relaxed));
        shown.is_zero()
            || self.over.load(Ordering::Relaxed)
            || self.since.elapsed().saturating_sub(shown) < STALL_MAX
    }
}

/// Where to go, and as whom.
pub(super) struct Way {
    pub address: String,
    pub name: String,
    pub capacity: Option<u64>,
    pub wait: Duration,
    pub token: Token,
}

/// Starts the thread. It ends when the run's end of `from_run` is dropped and there is nothing more
/// to send, or when the connection ends.
pub(super) fn start(
    way: Way,
    shared: Arc<Shared>,
    for_run: blocking::Sender<ForRun>,
    from_run: mpsc::UnboundedReceiver<FromRun>,
) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name("hosts".to_owned());
    thread.spawn(move || {
        let dismissed = |why: String, bad_configuration| {
            let _ = for_run.send(ForRun::Dismissed { why, bad_configuration });
        };
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(failure) => return dismissed(failure.to_string(), false),
        };
        let connected = runtime.block_on(connect(&way));
        match connected {
            Ok(socket) => {
                // Within the runtime, which is to have its task that writes.
                runtime.block_on(async {
                    Link::new(socket, shared, for_run).run(from_run).await;
                });
                // What was written may not have left yet; nothing waits for it any more.
                runtime.shutdown_background();
            }
            Err(error) => {
                let why = format!("--join {}: {error}", way.address);
                dismissed(why, matches!(error, LinkError::NotProven | LinkError::Version { .. }));
            }
        }
    })?;
    Ok(())
}

/// Dials until somebody listens, or the wait is over.
async fn connect(way: &Way) -> Result<Socket, LinkError> {
    let connector = tls::connector().map_err(|failure| LinkError::Refused(failure.to_string()))?;
    let until = Instant::now() + way.wait;
    loop {
        let (name, capacity) = (&way.name, way.capacity);
        match introduce(&way.address, &connector, &way.token, name, capacity).await {
            Err(error) if error.is_absence() && Instant::now() < until => {
                tokio::time::sleep(DIAL_EVERY).await;
            }
            ended => return ended,
        }
    }
}

/// What is to be sent.
enum Outgoing {
    Message(FromWorker),
    /// A state, encoded when it was known to be short enough.
    Snapshot(String),
    /// A question of the time, which is stamped when it leaves.
    Ask,
    Report(Vec<u8>, Estimate),
}

/// The connection.
struct Link {
    stream: Stream,
    outgoing: mpsc::Sender<Outgoing>,
    /// Ends with the reason when nothing can be sent any more.
    written: tokio::task::JoinHandle<LinkError>,
    shared: Arc<Shared>,
    for_run: blocking::Sender<ForRun>,
    worker: Worker,
    meter: OffsetMeter,
    /// Distributions as the coordinator knows them.
    told: LiveDistributions,
    /// Until the clock is known well enough.
    share: Option<Box<Share>>,
    others: Option<Others>,
    controls: Option<Arc<Controls>>,
    /// What the run takes for the clock all the time, once it is ready.
    corrected: Option<Estimate>,
    over: bool,
}

impl Link {
    fn new(socket: Socket, shared: Arc<Shared>, for_run: blocking::Sender<ForRun>) -> Self {
        let (sink, stream) = socket.split();
        let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
        let worker = Worker::new(shared.since.elapsed());
        Self {
            stream,
            outgoing,
            written: tokio::spawn(write(sink, queue, Arc::clone(&shared))),
            shared,
            for_run,
            worker,
            meter: OffsetMeter::default(),
            told: LiveDistributions::default(),
            share: None,
            others: None,
            controls: None,
            corrected: None,
            over: false,
        }
    }

    async fn run(mut self, mut from_run: mpsc::UnboundedReceiver<FromRun>) {
        let mut latest = self.shared.latest.subscribe();
        let (mut looks, mut asks) = (every(LOOK_EVERY), every(ASK_EVERY_AT_FIRST));
        let mut often = true;
        while !self.over {
            let action = tokio::select! {
                came = receive::<ToWorker>(&mut self.stream) => match came {
                    Ok(Came::Message(message)) => self.came(message),
                    Ok(Came::Part(_)) => self.worker.cut_off(&LinkError::Protocol.to_string()),
                    Err(error) => self.worker.cut_off(&error.to_string()),
                },
                ended = &mut self.written => {
                    let why = ended.map_or_else(|error| error.to_string(), |why| why.to_string());
                    self.worker.cut_off(&why)
                }
                said = from_run.recv() => match said {
                    Some(said) => self.said(said),
                    // The run is over, and wants nothing more.
                    None => return,
                },
                point = arrived(&mut self.others) => self.queue(Outgoing::Message(
                    FromWorker::Arrived { point },
                )),
                Ok(()) = latest.changed() => {
                    let latest = latest.borrow_and_update().clone();
                    self.tell(latest);
                    None
                }
                _ = asks.tick() => {
                    if self.shared.goes_on() {
                        let _ = self.outgoing.try_send(Outgoing::Ask);
                    }
                    None
                }
                _ = looks.tick() => self.worker.tick(self.shared.since.elapsed()),
            };
            if often && self.meter.exchanges() >= EXCHANGES_MIN {
                often = false;
                asks = every(ASK_EVERY);
            }
            if let Some(action) = action {
                self.carry_out(action);
            }
            self.hand_over();
        }
    }

    fn came(&mut self, message: ToWorker) -> Option<Action> {
        if let ToWorker::Clock { sent_ns, received_ns, answered_ns } = message {
            let back_ns = self.shared.unix_ns();
            self.meter.add(Exchange { sent_ns, received_ns, answered_ns, back_ns });
            let known = self.meter.estimate(back_ns);
            *self.shared.clock.lock().unwrap_or_else(PoisonError::into_inner) = known;
        }
        self.worker.message(self.shared.since.elapsed(), message)
    }

    /// Sends a state. One that finds no room, or is too long, is replaced by the next, which then
    /// has what both have grown by.
    fn tell(&mut self, latest: Latest) {
        let Ok(room) = self.outgoing.try_reserve() else { return };
        let Latest { progress, mut distributions } = latest;
        if let Some(corrected) = self.corrected {
            self.shared.forget_latency(corrected, &mut distributions);
        }
        let (grown, told) = distributions.news(&self.told);
        match encode(&FromWorker::Snapshot { progress, grown }) {
            Ok(text) => {
                self.told = told;
                room.send(Outgoing::Snapshot(text));
            }
            Err(error) => tracing::warn!("the coordinator is not told: {error}"),
        }
    }

    /// What must be sent, or there is no sense in going on.
    fn queue(&mut self, outgoing: Outgoing) -> Option<Action> {
        match self.outgoing.try_send(outgoing) {
            Ok(()) => None,
            Err(_) => self.worker.cut_off("it takes nothing any more"),
        }
    }

    fn said(&mut self, said: FromRun) -> Option<Action> {
        match said {
            FromRun::Ready(others, controls, clock) => {
                (self.others, self.controls) = (Some(others), Some(controls));
                self.corrected = Some(clock);
                self.queue(Outgoing::Message(FromWorker::Ready { clock }))
            }
            FromRun::Refused(why) => self.queue(Outgoing::Message(FromWorker::Refused { why })),
            FromRun::Report(report, clock) => self.queue(Outgoing::Report(report, clock)),
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Prepare(share) => self.share = Some(share),
            Action::Go { point, at_ns } => {
                let own_ns = self.shared.unix_ns();
                let clock = self.meter.estimate(own_ns).unwrap_or_default();
                let wait_ns = clock.ours(at_ns).saturating_sub(own_ns);
                let moment = Instant::now() + Duration::from_nanos(wait_ns);
                if let Some(others) = &self.others {
                    others.go.send_replace(Some((point, moment)));
                }
            }
            Action::Pause(paused) => {
                if let Some(controls) = &self.controls {
                    controls.pause(paused);
                }
            }
            Action::Stop { why, crossed } => {
                tracing::info!("the coordinator ends the run: {why}");
                let Some(controls) = &self.controls else { return };
                match crossed {
                    Some((expr, value)) => controls.cross(Crossed { expr, value }),
                    None => {
                        controls.stop();
                    }
                }
            }
            Action::Lost { why } => {
                *self.shared.lost.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(why.clone());
                if let Some(controls) = &self.controls {
                    controls.stop();
                }
                let _ = self.for_run.send(ForRun::Lost(why));
                // With it the others, for whom nobody waits any more.
                self.over = true;
            }
            Action::Dismissed { why } => {
                let _ = self.for_run.send(ForRun::Dismissed { why, bad_configuration: false });
                self.over = true;
            }
            Action::Taken { again } => {
                let _ = self.for_run.send(ForRun::Taken { again });
                self.over = true;
            }
            Action::Done => {
                let _ = self.for_run.send(ForRun::Done);
                self.over = true;
            }
        }
    }

    /// Hands the share over once the clock is known well enough.
    fn hand_over(&mut self) {
        if self.meter.exchanges() < EXCHANGES_MIN {
            return;
        }
        let Some(clock) = self.meter.estimate(self.shared.unix_ns()) else { return };
        if let Some(share) = self.share.take() {
            let _ = self.for_run.send(ForRun::Share(share, clock));
        }
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    interval
}

/// To which point this host has come next.
async fn arrived(others: &mut Option<Others>) -> stampede_hosts::messages::Point {
    if let Some(others) = others
        && let Some(point) = others.arrived.recv().await
    {
        return point;
    }
    std::future::pending().await
}

/// Sends what is queued, in order; between the parts of a report whatever else there is.
async fn write(
    mut sink: Sink,
    mut queue: mpsc::Receiver<Outgoing>,
    shared: Arc<Shared>,
) -> LinkError {
    while let Some(outgoing) = queue.recv().await {
        let written = match outgoing {
            Outgoing::Report(report, clock) => {
                write_report(&mut sink, &mut queue, &shared, &report, clock).await
            }
            other => write_one(&mut sink, &shared, other).await,
        };
        if let Err(error) = written {
            return error;
        }
    }
    LinkError::Closed
}

async fn write_one(sink: &mut Sink, shared: &Shared, outgoing: Outgoing) -> Result<(), LinkError> {
    match outgoing {
        Outgoing::Snapshot(text) => send_text(sink, text).await,
        Outgoing::Message(message) => match send(sink, &message).await {
            // The connection is as good as before.
            Err(LinkError::Message(error)) => {
                tracing::warn!("not told to the coordinator: {error}");
                Ok(())
            }
            sent => sent,
        },
        Outgoing::Ask => send(sink, &FromWorker::Clock { sent_ns: shared.unix_ns() }).await,
        // There is one report, and it is being written.
        Outgoing::Report(..) => Ok(()),
    }
}

async fn write_report(
    sink: &mut Sink,
    queue: &mut mpsc::Receiver<Outgoing>,
    shared: &Shared,
    report: &[u8],
    clock: Estimate,
) -> Result<(), LinkError> {
    send(sink, &FromWorker::Report { bytes: report.len() as u64, clock }).await?;
    for part in report.chunks(REPORT_PART_BYTES) {
        while let Ok(other) = queue.try_recv() {
            write_one(sink, shared, other).await?;
        }
        send_part(sink, part).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clocks_drifted_apart_is_in_the_bound() {
        let shared = Shared::new(0);
        let ms = |offset: i64, bound: u64| Estimate {
            offset_ns: offset * 1_000_000,
            bound_ns: bound * 1_000_000,
        };
        assert_eq!(shared.drifted(ms(3, 1)), ms(3, 1), "nothing newer is known");
        *shared.clock.lock().unwrap() = Some(ms(7, 2));
        assert_eq!(shared.drifted(ms(3, 1)), ms(3, 6));
        assert!(!shared.drifted(ms(3, 1)).is_sure());
        *shared.clock.lock().unwrap() = Some(ms(3, 0));
        assert_eq!(shared.drifted(ms(3, 1)), ms(3, 1));
    }
}
