//! A run from the start of its server to the end of its engine.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use stampede_core::peer::GAP_GRACE;
use stampede_counters::RunCounters;
use stampede_engine::{CapturedPeer, Engine};
use stampede_hosts::messages::Point;
use stampede_report::Failure;
use stampede_report::facts::Early;
use stampede_report::running;
use stampede_report::threshold::{self, Crossed, Threshold};
use stampede_report::types::Fault;
use stampede_scenario::{CaptureSpec, Participants, Server, Target};
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::audience::{Audience, Pauses};
use crate::clock::{RunClock, now};
use crate::conductor::{self, Conductor};
use crate::context::{Context, Settings, signalled};
use crate::data::RunData;
use crate::embedded::EmbeddedSfu;
use crate::prepare::{self, PrepareError, Prepared};
use crate::progress::{self, Controls, Progress, View, WorkerProgress};
use crate::router;
use crate::routes::Workers;
use crate::series::Series;
use crate::server_metrics::Scraper;
use crate::viewers::Viewers;
use crate::{capture, preflight};

/// Pause between two looks at the state of things; a second is a whole number of them.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const LOOKS_A_SECOND: u32 = 4;

/// Most errors of captures that are kept for the report, of those made at the end and before it.
/// Further ones are logged only, or of the same folder.
const CAPTURE_ERRORS_MAX: usize = 8;
/// How long the workers have to hand out what their flight recorders hold.
const CAPTURE_TIMEOUT: Duration = Duration::from_millis(500);

/// Plays a prepared run to the last leave, on this thread.
///
/// # Errors
/// What ended it before there was anything to report.
pub fn play(
    prepared: Prepared,
    controls: Arc<Controls>,
    view: Box<dyn View>,
) -> Result<RunData, Failure> {
    let allowed = preflight::allowed_cores()?;
    // Before the child and the workers: both inherit it, and the workers then pin themselves.
    preflight::stay_on(&prepared.cores.other_cores);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("no runtime: {error}")))?;
    let data = LocalSet::new().block_on(&runtime, run(prepared, controls, view));
    // A blocking DNS lookup or file operation must not hold the process.
    runtime.shutdown_background();
    // The next one divides the machine anew.
    preflight::stay_on(&allowed);
    data
}

async fn run(
    prepared: Prepared,
    controls: Arc<Controls>,
    mut view: Box<dyn View>,
) -> Result<RunData, Failure> {
    let beside = tokio::task::spawn_local(view.beside());
    let interrupted = controls.interrupted();
    let result = parts(prepared, controls, view, interrupted).await;
    beside.abort();
    result
}

async fn parts(
    prepared: Prepared,
    controls: Arc<Controls>,
    view: Box<dyn View>,
    mut interrupted: watch::Receiver<bool>,
) -> Result<RunData, Failure> {
    let mut data = RunData::new(&prepared);
    let started = tokio::select! {
        started = server(&prepared) => Some(started?),
        () = signalled(&mut interrupted) => None,
    };
    let Some((mut embedded, server)) = started else {
        return Ok(stopped_early(data, &prepared.participants));
    };
    data.url = Some(server.url.to_string());
    let network = prepared.network.clone();
    let scraper = Scraper::new(&data.scenario.server_metrics, &network).map_err(Failure::other)?;
    let rooms = prepared.participants.rooms_joined();
    let made = tokio::select! {
        made = prepare::rooms(&server, &network, &rooms) => made,
        () = signalled(&mut interrupted) => return Ok(stopped_early(data, &prepared.participants)),
    };
    match made {
        Ok(()) => {}
        Err(PrepareError::Refused(failure)) => return Err(failure),
        Err(PrepareError::NoRoom { why, detail }) => {
            // Nobody can join: counted, reported, not waited for.
            conductor::nobody_joins(&mut data, &prepared.participants, &why);
            data.ended_early = Some(Early { fault: Fault::Unknown, why: detail });
            return Ok(data);
        }
    }
    let engine = prepare::engine(&prepared)?;
    data.backend = Some(engine.backend_report().clone());
    view.say(&format!("UDP backend {}", engine.backend_report().reason));
    if !others_are_there(&prepared, &mut interrupted).await {
        return Ok(stopped_early(data, &prepared.participants));
    }
    let settings = Settings {
        clock: RunClock::start_ahead(prepared.clock_offset_ns()),
        addresses: match &prepared.addresses {
            Some(addresses) => Arc::clone(addresses),
            // The embedded SFU's is an address already: nothing is looked up.
            None => prepare::resolve("--url", &server.url.authority())?,
        },
        credentials: server.credentials,
        url: server.url,
        network,
        local_ip: prepared.local_ip,
        transport: data.scenario.transport,
        retry: data.scenario.retry,
        retry_sleep: data.scenario.retry_sleep,
        reconnect_tries: data.scenario.reconnect.tries(),
        signal: data.scenario.signal,
        faults: data.scenario.faults.clone(),
        visits: data.scenario.audience,
        seed: prepared.seed,
        own: Arc::clone(&prepared.participants.own),
        stamps: prepared.comparable(),
        meeting: prepared.together.as_ref().map(|together| together.meeting.clone()),
        obey_dynacast: data.scenario.dynacast,
        message_bytes_max: data.scenario.message_bytes_max(),
        timelines: data.scenario.capture.is_some(),
        watch_rules: data.scenario.watch_rules,
        pauses: Pauses::of(&data.clips),
        updates: data.scenario.has_updates(),
    };
    data.local = settings.network.proxy.is_none()
        && settings.addresses.iter().all(|address| address.ip().is_loopback());
    if let Some(capture) = &data.scenario.capture {
        let subscribers = data.scenario.shape.receivers_peak();
        view.say(&capture::describe(capture, subscribers));
    }
    let scraper = Rc::new(scraper);
    let signal = interrupted.clone();
    let watcher = Watcher { view: Rc::new(RefCell::new(view)), controls, scraper };
    let participants = prepared.participants;
    with_engine(&mut data, engine, settings, watcher, participants, &mut embedded, interrupted)
        .await;
    if let Some(embedded) = embedded {
        embedded.stop().await;
    }
    // A signal while everybody leaves, or later, ends the run as well: it was not left alone.
    data.interrupted |= *signal.borrow();
    Ok(data)
}

/// Waits for the other hosts, if there are any; false if the run is not to start.
async fn others_are_there(prepared: &Prepared, interrupted: &mut watch::Receiver<bool>) -> bool {
    let Some(together) = &prepared.together else { return true };
    tokio::select! {
        met = together.meeting.clone().at(Point::Start) => met,
        () = signalled(interrupted) => false,
    }
}

/// The server to join; the embedded one is started.
async fn server(prepared: &Prepared) -> Result<(Option<EmbeddedSfu>, Server), Failure> {
    match &prepared.scenario.target {
        Target::Server(server) => Ok((None, server.clone())),
        Target::Embedded(embedded) => {
            let (cores, seed) = (&prepared.cores.sfu_cores, prepared.seed);
            let started = EmbeddedSfu::start(&embedded.options, cores, seed).await?;
            let (url, credentials) = (started.url.clone(), Some(started.credentials.clone()));
            let server = Server { url, credentials, token_file: None };
            Ok((Some(started), server))
        }
    }
}

/// A run that a signal ended before anybody was started.
fn stopped_early(mut data: RunData, participants: &Participants) -> RunData {
    data.interrupted = true;
    conductor::nobody_starts(&mut data, participants);
    data
}

async fn with_engine(
    data: &mut RunData,
    engine: Engine,
    settings: Settings,
    watcher: Watcher,
    participants: Participants,
    embedded: &mut Option<EmbeddedSfu>,
    interrupted: watch::Receiver<bool>,
) {
    data.clock = settings.clock;
    let (fd, events) = (engine.event_fd().try_clone_to_owned(), engine.events().clone());
    let context = Rc::new(Context::new(Box::new(engine), settings));
    let workers = Rc::new(RefCell::new(Workers::default()));
    let state = Rc::new(conductor::State::default());
    let (controls, scraper) = (Arc::clone(&watcher.controls), Rc::clone(&watcher.scraper));
    let settles_after = data.scenario.playout_deadline + GAP_GRACE;
    scraper.begin().await;
    let scraping = tokio::task::spawn_local(Rc::clone(&scraper).run());
    let recorder = data.scenario.capture.clone().map(|capture| {
        let (context, workers) = (Rc::clone(&context), Rc::clone(&workers));
        let view = Rc::clone(&watcher.view);
        let recording =
            record_on_demand(context, workers, Arc::clone(&controls), view, capture, settles_after);
        tokio::task::spawn_local(recording)
    });
    let (routed, failures) = (Rc::clone(&context), Rc::clone(&workers));
    let router = tokio::task::spawn_local(async move {
        let next = || events.try_recv().ok();
        let routing =
            async { router::route(Rc::clone(&routed), Rc::clone(&failures), fd?, next).await };
        if let Err(error) = routing.await {
            let why = format!("the engine's events can't be read: {error}");
            failures.borrow_mut().failed.push(why);
            routed.changed.notify_waiters();
        }
    });
    let watching = tokio::task::spawn_local(watcher.watch(
        Rc::clone(&context),
        Rc::clone(&workers),
        Rc::clone(&state),
        data.scenario.shape.receivers_peak(),
        data.scenario.thresholds.clone(),
        settles_after,
    ));
    let mut conductor = Conductor {
        context: Rc::clone(&context),
        workers: Rc::clone(&workers),
        state: Rc::clone(&state),
        scenario: &data.scenario,
        own_video: data.clips.has_video(),
        embedded,
        interrupted,
        controls,
        ledger_before: None,
        faults: None,
        fault_task: None,
    };
    let ending = conductor.play(participants).await;
    data.ledger_begin = conductor.ledger_before.take();
    data.measured = ending.measured;
    data.interrupted = ending.interrupted;
    data.ended_early = ending.ended_early;
    data.server_gone = ending.server_gone;
    data.crossed = state.crossed.take();
    data.duration = data.clock.since_start();
    state.done.set(true);
    let series = watching.await.unwrap_or_default();
    if let Some(recorder) = recorder {
        recorder.abort();
    }
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
    data.joins = context.joins.take();
    data.recoveries = context.recoveries.take();
    data.signalled = context.signalled.take();
    end_audience(data, &context);
    write_captures(data, &context);
    take_ledger(data, embedded).await;
}

/// Takes the accounts, with what the workers had not told yet.
fn end_audience(data: &mut RunData, context: &Context) {
    let nobody = Audience::new(data.scenario.watch_rules, Pauses::default(), data.clock.started);
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
        let t_s = elapsed.unwrap_or_else(|| data.clock.since_start()).as_secs_f64();
        series.last(t_s, std::mem::take(&mut workers.unread), &engine.workers);
    }
    data.series = series.into_rows();
}

/// Writes what the flight recorder held when the peers were closed.
fn write_captures(data: &mut RunData, context: &Context) {
    let (Some(plan), Some(engine)) = (&data.scenario.capture, &mut data.engine) else { return };
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
    plan: &CaptureSpec,
    captures: Vec<CapturedPeer>,
    settles_after: Duration,
) -> Vec<(CapturedPeer, String)> {
    let (timelines, audience) = (context.timelines.borrow(), context.audience.borrow());
    let until =
        audience.known_until(context.workers(), settles_after).unwrap_or(context.clock.started);
    let viewers = Viewers::until(&audience, context.clock.started, until);
    capture::worst(plan, captures, &timelines, &|identity| viewers.timeline(identity))
}

/// Writes the flight recorder whenever it is asked for.
async fn record_on_demand(
    context: Rc<Context>,
    workers: Rc<RefCell<Workers>>,
    controls: Arc<Controls>,
    view: SharedView,
    plan: CaptureSpec,
    settles_after: Duration,
) {
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
            let suffix = format!("-{:.0}s", context.clock.since_start().as_secs_f64());
            let worst = worst_so_far(&context, &plan, captures, settles_after);
            let of = plan.clone();
            let write = move || capture::write(&of, &worst, &suffix);
            let Ok((files, lost)) = tokio::task::spawn_blocking(write).await else { continue };
            errors.extend(lost);
            let (count, dir) = (files.len(), plan.dir.display());
            let text = format!("flight recorder: {count} subscribers written to {dir}");
            view.borrow().say(&text);
        }
        let mut kept = context.capture_errors.borrow_mut();
        for error in errors {
            tracing::error!("--capture: {error}");
            if kept.len() < CAPTURE_ERRORS_MAX {
                kept.push(error);
            }
        }
    }
}

async fn take_ledger(data: &mut RunData, embedded: &mut Option<EmbeddedSfu>) {
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

/// The view, for whoever has something to say.
type SharedView = Rc<RefCell<Box<dyn View>>>;

/// Looks at the run while it goes on, and shows it.
struct Watcher {
    view: SharedView,
    controls: Arc<Controls>,
    scraper: Rc<Scraper>,
}

impl Watcher {
    /// Keeps the series and the view until the run is done.
    async fn watch(
        self,
        context: Rc<Context>,
        workers: Rc<RefCell<Workers>>,
        state: Rc<conductor::State>,
        subscribers: usize,
        thresholds: Vec<Threshold>,
        settles_after: Duration,
    ) -> Series {
        let armed = thresholds.iter().any(|threshold| threshold.abort_after.is_some());
        let mut series = Series::default();
        let started_at = Some(context.clock.started_at);
        let mut shown = Progress { subscribers, started_at, ..Progress::default() };
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut look = 0;
        while !state.done.get() {
            tokio::select! {
                _ = looks.tick() => look += 1,
                // A key was pressed: shown at once.
                () = self.controls.changed.notified() => {}
            }
            shown.elapsed = context.clock.since_start();
            shown.joins = context.joins.borrow().live();
            shown.recoveries = context.recoveries.borrow().counted();
            if look == LOOKS_A_SECOND {
                look = 0;
                let mut workers = workers.borrow_mut();
                let known = (&*state, settles_after);
                self.second(&context, &mut workers, &mut series, known, &mut shown);
                // Not before all workers have told what they count since then.
                if let Some(begun) = state.begun.get()
                    && workers.snapshots().all(|worker| worker.health.windows > 0)
                {
                    shown.counted_since = context.clock.until(begun);
                }
                if armed && state.crossed.borrow().is_none() {
                    let figures = running::figures(
                        &shown.joins,
                        &shown.recoveries,
                        &shown.watch,
                        &shown.counters,
                    );
                    let found = threshold::crossed(&thresholds, &figures, shown.elapsed);
                    *state.crossed.borrow_mut() =
                        found.map(|(test, value)| Crossed { expr: test.expr.clone(), value });
                }
            }
            // Whoever sees more than this host.
            if let Some(crossed) = self.controls.take_crossed() {
                state.crossed.borrow_mut().get_or_insert(crossed);
            }
            let joins = context.joins.borrow();
            shown.phase = state.phase.get();
            shown.paused = self.controls.paused() && shown.phase.can_pause();
            shown.left = state.ends.get().map(|ends| ends.saturating_duration_since(now()));
            shown.connected = joins.connected();
            shown.errors = joins.errors();
            self.view.borrow_mut().show(&shown);
        }
        series
    }

    /// A second is over.
    fn second(
        &self,
        context: &Context,
        workers: &mut Workers,
        series: &mut Series,
        (state, settles_after): (&conductor::State, Duration),
        shown: &mut Progress,
    ) {
        workers.unread.clear();
        let joins = context.joins.borrow();
        let (planned, connected) = (joins.planned(), joins.connected());
        drop(joins);
        let t_s = shown.elapsed.as_secs_f64();
        shown.second =
            series.second(t_s, [planned, connected], self.scraper.second(), workers.seconds(now()));
        let audience = context.audience.borrow();
        if let Some(until) = audience.known_until(context.workers(), settles_after) {
            shown.watch = Viewers::until(&audience, context.clock.started, until).live();
        }
        shown.counters = RunCounters::default();
        workers.snapshots().for_each(|worker| shown.counters.merge(&worker.counted));
        shown.workers = workers.snapshots().map(WorkerProgress::of).collect();
        shown.stages.clone_from(&state.stages.borrow());
        if context.meeting.is_some() {
            shown.distributions = progress::distributions(
                &workers.measured,
                &context.joins.borrow(),
                &context.recoveries.borrow(),
                &context.signalled.borrow(),
            );
        }
        shown.worst = workers.snapshots().flat_map(|one| one.worst.clone()).collect();
    }
}
