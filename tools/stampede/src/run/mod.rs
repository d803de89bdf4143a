//! `stampede run`: from checked flags to a report.
//!
//! Everything here runs on one thread, on a tokio current-thread runtime: one task for each
//! participant, one that routes engine events, one that keeps the view. Media is the engine's.

pub(crate) mod audience;
mod book;
mod cast;
mod cohorts;
mod context;
mod find;
pub(crate) mod load;
mod notes;
mod participant;
mod prepare;
mod router;
mod scenario;
mod search;
mod series;
mod stages;

use std::cell::{Cell, RefCell};
use std::net::TcpListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_core::peer::GAP_GRACE;
use stampede_engine::{BackendReport, CapturedPeer, Engine, EngineReport, WorkerSnapshot};
use stampede_sfu::Ledger;
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet};

use crate::capture::{self, CapturePlan};
use crate::embedded::Embedded;
use crate::exit::{Exit, Failure};
use crate::flags::values::Output;
use crate::flags::{FindPlan, Plan, RunFlags, Server, Target};
use crate::live::{self, Controls, Live, Mode, Progress, WorkerLine};
use crate::metrics::{self, Exposed};
use crate::preflight::cores::CoreSplit;
use crate::report::judge::Early;
use crate::report::out::{Of, OutputError};
use crate::report::running::LiveWatch;
use crate::report::threshold::{self, Crossed, Threshold};
use crate::report::types::{Fault, Report, SeriesRow, ServerMetrics};
use crate::report::viewers::Viewers;
use crate::server_metrics::Scraper;
use crate::{files, machine, preflight, report, signals, summary};
use audience::Audience;
#[cfg(test)]
pub(crate) use book::ParticipantId;
pub(crate) use book::{Book, Standings, of_first_try};
pub(crate) use cohorts::{Cohort, Cohorts, REST};
use context::{Context, RunClock, Settings};
use prepare::{Grounds, PrepareError};
use router::Workers;
use scenario::Measured;
use series::Series;
pub(crate) use series::Totals;

/// Pause between two looks at the state of things; a second is a whole number of them.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const LOOKS_A_SECOND: u32 = 4;

/// Most errors of captures that are kept for the report, of those made at the end and before it.
/// Further ones are logged only, or of the same folder.
const CAPTURE_ERRORS_MAX: usize = 8;
/// How long the workers have to hand out what their flight recorders hold.
const CAPTURE_TIMEOUT: Duration = Duration::from_millis(500);

/// All that is known at the end of a run; what the report is made of.
pub(crate) struct RunData {
    /// The plan.
    pub plan: Plan,
    /// Name of the run.
    pub id: String,
    /// Base of the room names.
    pub room: String,
    /// Seed in force.
    pub seed: u64,
    /// Both clocks.
    pub clock: RunClock,
    /// Where it joined; `None` if it did not come to that.
    pub url: Option<String>,
    /// It was reached over this machine's own loopback: there was no network in between.
    pub local: bool,
    /// From the first join to the last leave.
    pub duration: Duration,
    /// What was measured.
    pub measured: Measured,
    /// Ended by a signal.
    pub interrupted: bool,
    /// Why it ended early, if not by a signal.
    pub ended_early: Option<Early>,
    /// Why the server is taken to have been gone at the end.
    pub server_gone: Option<Early>,
    /// The threshold that ended it, if one did.
    pub crossed: Option<Crossed>,
    /// Joins.
    pub book: Book,
    /// Who should see what, and who did.
    pub audience: Audience,
    /// Media.
    pub engine: Option<EngineReport>,
    /// UDP backend.
    pub backend: Option<BackendReport>,
    /// Core division.
    pub cores: CoreSplit,
    /// Cores allowed.
    pub cpus: usize,
    /// The embedded SFU's ledger at the end.
    pub ledger: Option<Ledger>,
    /// Why there is no ledger although the embedded SFU ran.
    pub ledger_missing: Option<String>,
    /// The same when the measured window began.
    pub ledger_begin: Option<Ledger>,
    /// The server's own figures.
    pub server_metrics: Option<ServerMetrics>,
    /// Files of the flight recorder.
    pub captured: Vec<PathBuf>,
    /// Why some of those that were asked for could not be written.
    pub capture_errors: Vec<String>,
    /// Seconds.
    pub series: Vec<SeriesRow>,
}

impl RunData {
    /// Of a run in which nothing has happened yet.
    fn new(plan: Plan, grounds: &Grounds) -> Self {
        Self {
            id: grounds.run_id.clone(),
            room: cast::room_base(&plan, &grounds.run_id),
            seed: plan.seed.unwrap_or(grounds.random_seed),
            clock: RunClock::start(),
            url: None,
            local: false,
            duration: Duration::ZERO,
            measured: Measured::default(),
            interrupted: false,
            ended_early: None,
            server_gone: None,
            crossed: None,
            book: Book::default(),
            audience: Audience::new(plan.watch_rules, Instant::now()),
            engine: None,
            backend: None,
            cores: grounds.cores.clone(),
            cpus: grounds.cpus,
            ledger: None,
            ledger_missing: None,
            ledger_begin: None,
            server_metrics: None,
            captured: Vec::new(),
            capture_errors: Vec::new(),
            series: Vec::new(),
            plan,
        }
    }
}

/// The `run` command.
///
/// # Errors
/// What ended it before there was anything to report.
pub(crate) fn command(flags: RunFlags) -> Result<Exit, Failure> {
    if let Some(search) = FindPlan::new(&flags)? {
        return find::command(flags, &search);
    }
    let plan = Plan::new(flags)?;
    let mode = Mode::choose(plan.quiet, plan.no_tui);
    let (out, quiet) = (plan.out.clone(), plan.quiet);
    let data = once(plan, mode, mode)?;
    Ok(finish(report::build(data, &[]), &out, quiet))
}

/// Plays one plan from the look at the machine to the last leave. `checks` is how the checks of the
/// machine are shown.
///
/// # Errors
/// What ended it before there was anything to report.
pub(crate) fn once(plan: Plan, mode: Mode, checks: Mode) -> Result<RunData, Failure> {
    let allowed = preflight::allowed_cores()?;
    let listener = plan.prometheus.map(metrics::bind).transpose()?;
    let grounds = prepare::machine(&plan, checks)?;
    if checks != Mode::Quiet
        && let Some(warning) = load::warning(&plan, grounds.cores.workers)
    {
        live::say(&warning);
    }
    // Before the child and the workers: both inherit it, and the workers then pin themselves.
    preflight::stay_on(&grounds.cores.other_cores);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("no runtime: {error}")))?;
    let data = LocalSet::new().block_on(&runtime, run(plan, grounds, mode, listener));
    // A blocking DNS lookup or file operation must not hold the process.
    runtime.shutdown_background();
    // The next one divides the machine anew.
    preflight::stay_on(&allowed);
    data
}

/// Writes and shows a judged report. The summary stays away from a stdout that a report goes to.
fn finish(mut report: Report, out: &[Output], quiet: bool) -> Exit {
    let interrupted = report.run.interrupted;
    // Of a run that a signal ended the next one is the second.
    let _armed = signals::arm(move || !interrupted && files::give_up());
    let errors = report::out::write_all(&mut report, out, Of::ThisRun);
    let shown = match report::out::take_stdout(out) {
        false => summary::print(&report),
        true if quiet => Ok(()),
        true => summary::print_to_stderr(&report),
    };
    // The user must not take a signal for unheard.
    let signalled = shown.is_err_and(|error| error.is_signal());
    match signalled || errors.iter().any(OutputError::is_signal) {
        true => Exit::Interrupted,
        false => Exit::of(&report),
    }
}

async fn run(
    plan: Plan,
    grounds: Grounds,
    mode: Mode,
    listener: Option<TcpListener>,
) -> Result<RunData, Failure> {
    let interrupt = watch::Sender::new(false);
    let interrupted = interrupt.subscribe();
    let quiet = mode == Mode::Quiet;
    let controls = Arc::new(Controls::new(interrupt));
    let stopping = Arc::clone(&controls);
    let _armed = signals::arm(move || {
        let first = stopping.stop();
        if first && !quiet {
            signals::say_aside(
                "stopping: everybody leaves, then comes the summary (again to exit at once)",
            );
        }
        first
    });
    let exposed = Arc::new(Exposed::default());
    let endpoint = listener
        .map(|listener| tokio::task::spawn_local(metrics::serve(listener, Arc::clone(&exposed))));
    let live = Live::start(mode, Arc::clone(&controls));
    let view = View { live, controls, exposed };
    let result = stages(plan, grounds, view, interrupted).await;
    if let Some(endpoint) = endpoint {
        endpoint.abort();
    }
    result
}

/// Waits for the first signal.
async fn signalled(interrupted: &mut watch::Receiver<bool>) {
    if interrupted.wait_for(|signalled| *signalled).await.is_err() {
        // No handler could be installed: there will be none.
        std::future::pending::<()>().await;
    }
}

async fn stages(
    plan: Plan,
    grounds: Grounds,
    view: View,
    mut interrupted: watch::Receiver<bool>,
) -> Result<RunData, Failure> {
    let mut data = RunData::new(plan, &grounds);
    let started = tokio::select! {
        started = server(&data, &grounds) => Some(started?),
        () = signalled(&mut interrupted) => None,
    };
    let Some((mut embedded, server)) = started else { return Ok(stopped_early(data)) };
    data.url = Some(server.url.to_string());
    let network = data.plan.network.clone();
    let scraper = Scraper::new(&data.plan.server_metrics, &network).map_err(Failure::other)?;
    let rooms = cast::rooms(&data.plan, &grounds.run_id);
    let made = tokio::select! {
        made = prepare::rooms(&server, &network, &rooms) => made,
        () = signalled(&mut interrupted) => return Ok(stopped_early(data)),
    };
    match made {
        Ok(()) => {}
        Err(PrepareError::Refused(failure)) => return Err(failure),
        Err(PrepareError::NoRoom { kind, detail }) => {
            // Nobody can join: counted, reported, not waited for.
            scenario::nobody_joins(&mut data, &kind);
            data.ended_early = Some(Early { fault: Fault::Unknown, why: detail });
            return Ok(data);
        }
    }
    let engine = prepare::engine(&data.plan, &grounds, &Cohorts::of(&data.plan, data.seed))?;
    data.backend = Some(engine.backend_report().clone());
    view.live.say(&format!("UDP backend {}", engine.backend_report().reason));
    let settings = Settings {
        clock: RunClock::start(),
        addresses: match &grounds.addresses {
            Some(addresses) => Arc::clone(addresses),
            // The embedded SFU's is an address already: nothing is looked up.
            None => prepare::resolve("--url", &server.url.authority())?,
        },
        credentials: server.credentials,
        url: server.url,
        network,
        local_ip: grounds.local_ip,
        retry: data.plan.retry,
        retry_sleep: data.plan.retry_sleep,
        own_publishers: cast::own_publishers(&grounds.run_id),
        obey_dynacast: data.plan.dynacast,
        timelines: data.plan.capture.is_some(),
        watch_rules: data.plan.watch_rules,
    };
    data.local = settings.network.proxy.is_none()
        && settings.addresses.iter().all(|address| address.ip().is_loopback());
    if let Some(capture) = &data.plan.capture {
        view.live.say(&capture.describe(data.plan.shape.subscribers_peak()));
    }
    let scraper = Rc::new(scraper);
    let signal = interrupted.clone();
    with_engine(&mut data, engine, settings, (view, scraper), &mut embedded, interrupted).await;
    if let Some(embedded) = embedded {
        embedded.stop().await;
    }
    // A signal while everybody leaves, or later, ends the run as well: it was not left alone.
    data.interrupted |= *signal.borrow();
    Ok(data)
}

/// The server to join; the embedded one is started.
async fn server(data: &RunData, grounds: &Grounds) -> Result<(Option<Embedded>, Server), Failure> {
    match &data.plan.target {
        Target::Server(server) => Ok((None, server.clone())),
        Target::Embedded(plan) => {
            let started = Embedded::start(plan, &grounds.cores.sfu_cores, data.seed).await?;
            let server =
                Server { url: started.url.clone(), credentials: started.credentials.clone() };
            Ok((Some(started), server))
        }
    }
}

/// A run that a signal ended before anybody was started.
fn stopped_early(mut data: RunData) -> RunData {
    data.interrupted = true;
    scenario::nobody_starts(&mut data);
    data
}

async fn with_engine(
    data: &mut RunData,
    engine: Engine,
    settings: Settings,
    (view, scraper): (View, Rc<Scraper>),
    embedded: &mut Option<Embedded>,
    interrupted: watch::Receiver<bool>,
) {
    data.clock = settings.clock;
    let context = Rc::new(Context::new(engine, settings));
    let workers = Rc::new(RefCell::new(Workers::default()));
    let state = Rc::new(scenario::State::default());
    let controls = Arc::clone(&view.controls);
    let quiet = data.plan.quiet;
    let settles_after = data.plan.playout_deadline + GAP_GRACE;
    scraper.begin().await;
    let scraping = tokio::task::spawn_local(Rc::clone(&scraper).run());
    let recorder = match data.plan.capture.clone() {
        Some(plan) => tokio::task::spawn_local(record_on_demand(
            Rc::clone(&context),
            Rc::clone(&workers),
            Arc::clone(&controls),
            plan,
            settles_after,
            quiet,
        )),
        // Unhandled it would end the process.
        None => tokio::task::spawn_local(signals::on_user1(move || {
            if !quiet {
                live::say("SIGUSR1: there is no flight recorder to write, see --capture");
            }
        })),
    };
    let (routed, failures) = (Rc::clone(&context), Rc::clone(&workers));
    let router = tokio::task::spawn_local(async move {
        if let Err(error) = router::route(Rc::clone(&routed), Rc::clone(&failures)).await {
            let why = format!("the engine's events can't be read: {error}");
            failures.borrow_mut().failed.push(why);
            routed.changed.notify_waiters();
        }
    });
    let watcher = tokio::task::spawn_local(watch_progress(
        Rc::clone(&context),
        Rc::clone(&workers),
        Rc::clone(&state),
        (view, Rc::clone(&scraper)),
        data.plan.shape.subscribers_peak(),
        data.plan.thresholds.clone(),
        settles_after,
    ));
    let mut scenario = scenario::Scenario {
        context: Rc::clone(&context),
        workers: Rc::clone(&workers),
        state: Rc::clone(&state),
        plan: &data.plan,
        embedded,
        interrupted,
        controls,
        ledger_before: None,
    };
    let ending = scenario.play(&data.id, data.seed).await;
    data.ledger_begin = scenario.ledger_before.take();
    data.measured = ending.measured;
    data.interrupted = ending.interrupted;
    data.ended_early = ending.ended_early;
    data.server_gone = ending.server_gone;
    data.crossed = state.crossed.take();
    data.duration = data.clock.started.elapsed();
    state.done.set(true);
    let series = watcher.await.unwrap_or_default();
    recorder.abort();
    let failed = std::mem::take(&mut workers.borrow_mut().failed);
    if data.ended_early.is_none() {
        let early = |why| Early { fault: Fault::Generator, why };
        data.ended_early = failed.into_iter().next().map(early);
    }
    if let Some(engine) = context.take_engine() {
        // Off this thread, so that a second signal still ends the process at once.
        data.engine = tokio::task::spawn_blocking(move || engine.stop()).await.ok();
    }
    // Not before: until then it takes snapshots.
    router.abort();
    end_series(data, series, &mut workers.borrow_mut());
    scraping.abort();
    if !scraper.is_empty() {
        data.server_metrics = Some(scraper.finish().await);
    }
    data.book = context.book.take();
    end_audience(data, &context);
    write_captures(data, &context);
    take_ledger(data, embedded).await;
}

/// Takes the accounts, with what the workers had not told yet.
fn end_audience(data: &mut RunData, context: &Context) {
    let nobody = Audience::new(data.plan.watch_rules, data.clock.started);
    data.audience = context.audience.replace(nobody);
    let Some(engine) = &mut data.engine else { return };
    let unread = engine.covers_unread.drain(..);
    let last = engine.workers.iter_mut().flat_map(|worker| worker.covers.drain(..));
    unread.chain(last).for_each(|news| data.audience.covers(news));
}

/// Adds the last row: from the snapshots of the row before it to the workers' end.
fn end_series(data: &mut RunData, mut series: Series, workers: &mut Workers) {
    if let Some(engine) = &mut data.engine {
        engine.snapshots_unread.drain(..).for_each(|snapshot| workers.keep(snapshot));
        let ended = engine.workers.iter().map(|worker| worker.last.ended).max();
        let elapsed = ended.map(|ended| ended.saturating_duration_since(data.clock.started));
        let t_s = elapsed.unwrap_or_else(|| data.clock.started.elapsed()).as_secs_f64();
        series.last(t_s, std::mem::take(&mut workers.unread), &engine.workers);
    }
    data.series = series.into_rows();
}

/// Writes what the flight recorder held when the peers were closed.
fn write_captures(data: &mut RunData, context: &Context) {
    let (Some(plan), Some(engine)) = (&data.plan.capture, &mut data.engine) else { return };
    let workers = engine.workers.iter_mut();
    let captures = workers.flat_map(|worker| std::mem::take(&mut worker.captures)).collect();
    let viewers = Viewers::of(data);
    let (timelines, watched) =
        (context.timelines.borrow(), |identity: &str| viewers.timeline(identity));
    let worst = capture::worst(plan, captures, &timelines, &watched);
    let unwatched = viewers.worst_identities(plan.worst);
    let unwatched = capture::unwatched(&unwatched, &worst, &timelines, &watched);
    let (files, mut lost) = capture::write(plan, &worst, "");
    lost.extend(capture::write_timelines(plan, unwatched));
    data.captured = files;
    data.capture_errors = context.capture_errors.take();
    data.capture_errors.extend(lost.into_iter().take(CAPTURE_ERRORS_MAX));
}

/// The worst of the captures of a run that goes on.
fn worst_so_far(
    context: &Context,
    plan: &CapturePlan,
    captures: Vec<CapturedPeer>,
    settles_after: Duration,
) -> Vec<(CapturedPeer, String)> {
    let (timelines, audience) = (context.timelines.borrow(), context.audience.borrow());
    let until =
        audience.known_until(context.workers(), settles_after).unwrap_or(context.clock.started);
    let viewers = Viewers::until(&audience, context.clock.started, until);
    capture::worst(plan, captures, &timelines, &|identity| viewers.timeline(identity))
}

/// Writes the flight recorder whenever a key or SIGUSR1 asks for it.
async fn record_on_demand(
    context: Rc<Context>,
    workers: Rc<RefCell<Workers>>,
    controls: Arc<Controls>,
    plan: CapturePlan,
    settles_after: Duration,
    quiet: bool,
) {
    let for_signal = Arc::clone(&controls);
    let signal = signals::on_user1(move || for_signal.want_capture());
    let write = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if !controls.take_capture() {
                continue;
            }
            let mut errors = Vec::new();
            if let Some(Err(error)) = context.engine().map(|engine| engine.capture()) {
                errors.push(format!("one that was asked for was not made: {error}"));
            } else {
                tokio::time::sleep(CAPTURE_TIMEOUT).await;
                let captures = std::mem::take(&mut workers.borrow_mut().captured);
                let suffix = format!("-{:.0}s", context.clock.started.elapsed().as_secs_f64());
                let worst = worst_so_far(&context, &plan, captures, settles_after);
                let of = plan.clone();
                let write = move || capture::write(&of, &worst, &suffix);
                let Ok((files, lost)) = tokio::task::spawn_blocking(write).await else { continue };
                errors.extend(lost);
                if !quiet {
                    let (count, dir) = (files.len(), plan.dir.display());
                    live::say(&format!("flight recorder: {count} subscribers written to {dir}"));
                }
            }
            let mut kept = context.capture_errors.borrow_mut();
            for error in errors {
                tracing::error!("--capture: {error}");
                if kept.len() < CAPTURE_ERRORS_MAX {
                    kept.push(error);
                }
            }
        }
    };
    tokio::join!(signal, write);
}

async fn take_ledger(data: &mut RunData, embedded: &mut Option<Embedded>) {
    let Some(embedded) = embedded else { return };
    match embedded.ledger().await {
        Ok(ledger) => data.ledger = Some(ledger),
        Err(error) => {
            tracing::warn!("the embedded SFU's ledger is missing: {error}");
            data.ledger_missing = Some(error);
        }
    }
    if data.ended_early.is_none() {
        data.ended_early = embedded.died().map(|why| Early { fault: Fault::Server, why });
    }
}

/// Where the state of the run is shown.
struct View {
    live: Live,
    controls: Arc<Controls>,
    exposed: Arc<Exposed>,
}

/// Keeps the series and the view until the run is done.
async fn watch_progress(
    context: Rc<Context>,
    workers: Rc<RefCell<Workers>>,
    state: Rc<scenario::State>,
    (view, scraper): (View, Rc<Scraper>),
    subscribers: usize,
    thresholds: Vec<Threshold>,
    settles_after: Duration,
) -> Series {
    let View { mut live, controls, exposed } = view;
    let armed = thresholds.iter().any(|threshold| threshold.abort_after.is_some());
    let mut series = Series::default();
    let mut watch = LiveWatch::default();
    let mut shown = Progress { subscribers, ..Progress::default() };
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut look = 0;
    while !state.done.get() {
        tokio::select! {
            _ = looks.tick() => look += 1,
            // A key was pressed: shown at once.
            () = controls.changed.notified() => {}
        }
        let elapsed = context.clock.started.elapsed();
        if look == LOOKS_A_SECOND {
            look = 0;
            let mut workers = workers.borrow_mut();
            workers.unread.clear();
            let snapshots = workers.snapshots();
            let joined = context.book.borrow().connected();
            let t_s = elapsed.as_secs_f64();
            (shown.second, shown.totals) =
                series.second(t_s, joined, scraper.second(), workers.seconds(Instant::now()));
            let known = context.audience.borrow().known_until(context.workers(), settles_after);
            if let Some(until) = known {
                let audience = context.audience.borrow();
                watch = LiveWatch::of(&Viewers::until(&audience, context.clock.started, until));
            }
            shown.interrupted = watch.interrupted;
            shown.watch_ratio = watch.video.watch_ratio;
            exposed.update(&context.book.borrow(), &watch, snapshots.clone());
            shown.workers = snapshots.clone().map(worker_line).collect();
            shown.worst = snapshots.clone().flat_map(|one| one.worst.clone()).collect();
            if armed && state.crossed.borrow().is_none() {
                let figures = report::running::figures(&context.book.borrow(), &watch, snapshots);
                let found = threshold::crossed(&thresholds, &figures, elapsed);
                *state.crossed.borrow_mut() =
                    found.map(|(test, value)| Crossed { expr: test.expr.clone(), value });
            }
        }
        let book = context.book.borrow();
        shown.phase = state.phase.get();
        // Stages keep their schedule, and a ramp that is over can't be paused.
        shown.paused = controls.paused() && matches!(shown.phase, "publish" | "ramp");
        shown.elapsed = elapsed;
        shown.left = state.ends.get().map(|ends| ends.saturating_duration_since(Instant::now()));
        (shown.joined, shown.requested) = (book.connected(), book.requested());
        shown.standings = book.standings();
        shown.errors = book.errors();
        live.show(&shown);
    }
    series
}

fn worker_line(snapshot: &WorkerSnapshot) -> WorkerLine {
    let (second, udp) = (&snapshot.second, &snapshot.health.udp);
    WorkerLine {
        worker: snapshot.worker,
        core: snapshot.core,
        peers: snapshot.peers,
        busy_ratio: second.busy_ratio,
        lateness_ms_max: second.lateness_max.as_secs_f64() * 1_000.0,
        packets_in: second.datagrams_in,
        packets_out: second.datagrams_out,
        kernel_drops: udp.kernel_drops,
        unsent: udp.lost_sends() + udp.send_queue_full,
    }
}

impl Default for scenario::State {
    fn default() -> Self {
        Self {
            phase: Cell::new("starting"),
            ends: Cell::new(None),
            done: Cell::new(false),
            crossed: RefCell::new(None),
        }
    }
}

/// CPU and memory at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    /// When.
    pub at: Instant,
    /// CPU time of this process.
    pub cpu: Duration,
    /// Memory of this process.
    pub rss_bytes: Option<u64>,
}

impl Mark {
    fn now() -> Self {
        Self { at: Instant::now(), cpu: machine::cpu_time(), rss_bytes: machine::rss_bytes() }
    }
}

/// All tasks of participants, kept to the end of the run.
type Tasks = Vec<JoinHandle<()>>;

/// A run of this plan in which nothing has happened yet.
#[cfg(test)]
pub(crate) fn test_data(plan: Plan) -> RunData {
    let cores = CoreSplit {
        worker_cores: vec![0],
        workers: 1,
        sfu_cores: Vec::new(),
        other_cores: Vec::new(),
    };
    let grounds = Grounds {
        cores,
        cpus: 1,
        addresses: None,
        local_ip: std::net::Ipv4Addr::LOCALHOST.into(),
        run_id: "test".to_owned(),
        random_seed: 1,
    };
    RunData::new(plan, &grounds)
}
