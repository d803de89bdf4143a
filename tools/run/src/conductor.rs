//! What happens in which order: publishers, ramp, measured window, leave.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_core::MediaKind;
use stampede_hosts::messages::Point;
use stampede_report::facts::Early;
use stampede_report::threshold::Crossed;
use stampede_report::types::{Fault, StageRow};
use stampede_scenario::{
    Audience as AudiencePlan, Part, ParticipantSpec, Participants, Places, Scenario,
};
use stampede_sfu::Ledger;
use stampede_signaling::presence::Absence;
use stampede_signaling::session::VideoSize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::audience::Viewer;
use crate::clock::now;
use crate::context::{Context, Leaving, Tasks, signalled};
use crate::data::{Mark, Measured, RunData};
use crate::embedded::EmbeddedSfu;
use crate::faults::Faults;
use crate::join_error::JoinError;
use crate::joins::{Joins, Member, ParticipantId};
use crate::participant::{self, Participant};
use crate::progress::{Controls, Phase};
use crate::reconnect::STANDS_WITHIN;
use crate::routes::Workers;
use crate::target::Target;

/// How long the ramp of subscribers waits for the publishers.
const PUBLISHERS_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the measured window waits for the last subscribers to join and see a keyframe.
const JOINS_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the server may take to answer at the end; a busy livekit-server does within a second.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long leaving may take, for subscribers and for publishers.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between looks at things that have no event of their own.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What the run is doing now, for the view.
#[derive(Default)]
pub(crate) struct State {
    /// In a word.
    pub phase: Cell<Phase>,
    /// The stages that have ended.
    pub stages: RefCell<Vec<StageRow>>,
    /// When the measured window began, once it has.
    pub begun: Cell<Option<Instant>>,
    /// When the measured window ends, once it has begun.
    pub ends: Cell<Option<Instant>>,
    /// The view may end.
    pub done: Cell<bool>,
    /// A threshold that ends the run.
    pub crossed: RefCell<Option<Crossed>>,
}

/// How a run ended.
pub(crate) struct Ending {
    /// What was measured.
    pub measured: Measured,
    /// By a signal.
    pub interrupted: bool,
    /// Why before its time, if not by a signal.
    pub ended_early: Option<Early>,
    /// Why the server is taken to have been gone at the end.
    pub server_gone: Option<Early>,
}

/// Plays a scenario.
pub(crate) struct Conductor<'a> {
    /// Shared with the tasks.
    pub context: Rc<Context>,
    /// Latest state of the workers.
    pub workers: Rc<RefCell<Workers>>,
    /// Shown to the user.
    pub state: Rc<State>,
    /// What to play.
    pub scenario: &'a Scenario,
    /// Video is published by this run.
    pub own_video: bool,
    /// The embedded SFU, if any.
    pub embedded: &'a mut Option<EmbeddedSfu>,
    /// Becomes true with the first signal.
    pub interrupted: watch::Receiver<bool>,
    /// What the user has asked for with keys.
    pub controls: Arc<Controls>,
    /// The embedded SFU's ledger when the measured window began.
    pub ledger_before: Option<Ledger>,
    /// What is done on purpose, until the window begins; then its task.
    pub faults: Option<Faults>,
    /// The same while it is played.
    pub fault_task: Option<JoinHandle<()>>,
}

/// Why the scenario goes no further.
pub(super) enum Stop {
    Signal,
    Threshold,
    Early(Early),
}

impl Stop {
    pub(super) fn early(fault: Fault, why: &str) -> Self {
        Self::Early(Early { fault, why: why.to_owned() })
    }
}

impl Conductor<'_> {
    /// Plays it to its end.
    pub(crate) async fn play(&mut self, participants: Participants) -> Ending {
        let Participants { publishers, participants, subscribers, rooms, part, .. } = participants;
        let faults = self.scenario.faults.clone();
        let (cohorts, seed) = (self.scenario.cohorts.clone(), self.context.visits.1);
        self.faults = (!faults.is_empty()).then(|| Faults::new(faults, cohorts, seed, rooms));
        let mut measured = Measured { start: Some(Mark::now()), ..Measured::default() };
        let all = publishers.len() + participants.len() + subscribers.len();
        let mut tasks = Vec::with_capacity(all);
        let kinds = [publishers, participants, subscribers];
        let part = part.unwrap_or_else(|| Part {
            places: kinds.each_ref().map(|specs| Places::all(specs.len())),
        });
        let stop = self.up(kinds, part, &mut measured, &mut tasks).await.err();
        measured.end = Some(Mark::now());
        measured.connected = self.context.joins.borrow().connected();
        self.state.ends.set(None);
        let server_gone = self.look_after_server(stop.as_ref()).await;
        self.context.signalled.borrow_mut().close(now());
        let join_grace = self.scenario.watch_rules.join_grace;
        self.context.joins.borrow_mut().close(now(), join_grace);
        let closed = self.context.recoveries.borrow_mut().close();
        for (id, since) in closed {
            let until = now().min(since + STANDS_WITHIN);
            self.context.audience.borrow_mut().excuse(id, since, until);
        }
        if let Some(faults) = self.fault_task.take() {
            faults.abort();
        }
        measured.leaving = Some(now());
        self.leave().await;
        for task in tasks {
            task.abort();
        }
        let (interrupted, ended_early) = match stop {
            None | Some(Stop::Threshold) => (false, None),
            Some(Stop::Signal) => (true, None),
            Some(Stop::Early(early)) => (false, Some(early)),
        };
        Ending { measured, interrupted, ended_early, server_gone }
    }

    /// Everything until it is time to leave. First come who only send, then who do both, then who
    /// only receive.
    async fn up(
        &mut self,
        kinds: [Vec<ParticipantSpec>; 3],
        part: Part,
        measured: &mut Measured,
        tasks: &mut Tasks,
    ) -> Result<(), Stop> {
        let count = kinds[0].len();
        let [publishers, participants, subscribers] = kinds.map(|specs| self.register(specs));
        let [publishing, both, subscribing] = part.places;
        self.state.phase.set(Phase::Publish);
        self.ramp(publishers, &publishing, &AudiencePlan::default(), tasks).await?;
        self.until(PUBLISHERS_TIMEOUT, |joins| joins.publishers_settled(count)).await?;
        self.meet(Point::Published).await?;
        if !participants.is_empty() {
            self.state.phase.set(Phase::Ramp);
            let plan = self.context.visits.0;
            self.ramp(participants, &both, &plan, tasks).await?;
        }
        self.meet(Point::Ramp).await?;
        if !self.scenario.shape.stages.is_empty() {
            return self.stages(subscribers, &subscribing, measured, tasks).await;
        }
        self.state.phase.set(Phase::Ramp);
        let plan = self.context.visits.0;
        self.ramp(subscribers, &subscribing, &plan, tasks).await?;
        let own_video = self.own_video;
        self.until(JOINS_TIMEOUT, |joins| {
            joins.settled() && !(own_video && joins.waits_for_keyframes())
        })
        .await?;
        if self.context.joins.borrow().all_over() {
            return Err(Stop::early(Fault::Unknown, "nobody is left in the room"));
        }
        self.meet(Point::Measure).await?;
        self.begin_measuring(measured).await?;
        self.hold().await
    }

    /// Waits for the other hosts, if there are any.
    async fn meet(&mut self, point: Point) -> Result<(), Stop> {
        let Some(meeting) = self.context.meeting.clone() else { return Ok(()) };
        let mut met = pin!(meeting.at(point));
        loop {
            self.check_health()?;
            tokio::select! {
                _ = &mut met => return Ok(()),
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = signalled(&mut self.interrupted) => return Err(Stop::Signal),
            }
        }
    }

    /// Holds for `--duration`.
    pub(super) async fn hold(&mut self) -> Result<(), Stop> {
        self.state.phase.set(Phase::Hold);
        self.state.ends.set(Some(now() + self.scenario.duration));
        if self.until(self.scenario.duration, Joins::all_lost).await? {
            return Err(Stop::early(Fault::Unknown, "everybody dropped out before the end"));
        }
        Ok(())
    }

    /// Before anybody leaves: why the server is taken to be gone, if it is. Not asked where that is
    /// known already, or where nobody would wait for it.
    async fn look_after_server(&mut self, stop: Option<&Stop>) -> Option<Early> {
        match stop {
            Some(Stop::Signal) => return None,
            Some(Stop::Early(early)) if early.fault != Fault::Unknown => return None,
            _ => {}
        }
        if let Some(why) = self.embedded.as_mut().and_then(EmbeddedSfu::died) {
            return Some(Early { fault: Fault::Server, why });
        }
        let (url, network) = (&self.context.url, &self.context.network);
        let absence = tokio::select! {
            answer = network.ask(url, ANSWER_TIMEOUT) => answer.err()?,
            () = signalled(&mut self.interrupted) => return None,
        };
        // A refusal comes from the server's own host: what listened there does so no more. Anything
        // else may be on the way, a proxy for example.
        let fault = match absence {
            Absence::Refused if network.proxy.is_none() => Fault::Server,
            _ => Fault::Unknown,
        };
        let address = url.authority();
        let why = format!("the server at {address} did not answer any more at the end: {absence}");
        Some(Early { fault, why })
    }

    fn register(&self, specs: Vec<ParticipantSpec>) -> Vec<Participant> {
        let mut joins = self.context.joins.borrow_mut();
        let mut audience = self.context.audience.borrow_mut();
        let mut signalled = self.context.signalled.borrow_mut();
        specs
            .into_iter()
            .map(|spec| {
                let known =
                    Member { room: spec.room.to_string(), cohort: spec.cohort_name.clone() };
                joins.introduce(&spec.identity, known);
                let id = joins.register(!spec.receives());
                if self.context.updates {
                    signalled.introduce(&spec.identity, id);
                }
                if let Some(receives) = spec.role.receives {
                    joins.expect(id, &spec.room, spec.cohort, spec.tracks);
                    let (identity, room) = (spec.identity.clone(), Rc::clone(&spec.room));
                    let (cohort, subscription) = (spec.cohort, receives.subscription);
                    let asked = VideoSize { quality: receives.quality, ..VideoSize::default() };
                    audience.seat(id, Viewer { identity, room, cohort, subscription, asked });
                }
                if spec.publishes() {
                    let tracks = &spec.media.tracks;
                    let of = |kind| tracks.iter().filter(|track| track.kind == kind).count();
                    let tracks = [MediaKind::Video, MediaKind::Audio].map(|k| of(k) as u32);
                    joins.publishes(id, &spec.room, tracks);
                }
                Participant {
                    id,
                    spec,
                    scheduled: self.context.clock.started,
                    tries: Cell::new(0),
                    updates: Cell::new(0),
                    orders: Rc::default(),
                }
            })
            .collect()
    }

    /// Starts participants on an open-loop schedule: a late start does not move the later ones.
    async fn ramp(
        &mut self,
        participants: Vec<Participant>,
        places: &Places,
        plan: &AudiencePlan,
        tasks: &mut Tasks,
    ) -> Result<(), Stop> {
        let mut begin = now();
        let (rate, seed) = (self.scenario.joins_per_second, self.context.visits.1);
        // The schedule is of the whole run, whoever takes which part of it.
        let arrivals = plan.arrivals(places.of, rate, seed);
        for (mut participant, place) in participants.into_iter().zip(&places.at) {
            let arrival = arrivals.get(*place).copied().unwrap_or_default();
            loop {
                // Whatever is asked for while it waits: of several hosts each has few to start, and
                // all are to pause at the same time.
                begin += self.paused().await?;
                participant.scheduled = begin + arrival;
                let at = now();
                self.watch_until(participant.scheduled.min(at + LOOK_EVERY)).await?;
                if at >= participant.scheduled {
                    break;
                }
            }
            self.start(participant, tasks);
        }
        Ok(())
    }

    /// Waits while the user has paused the ramp, and tells how long: the schedule moves by that,
    /// since nobody was kept waiting by the server.
    async fn paused(&mut self) -> Result<Duration, Stop> {
        let since = now();
        let mut waited = Duration::ZERO;
        while self.controls.paused() {
            self.watch_until(now() + LOOK_EVERY).await?;
            waited = now().saturating_duration_since(since);
        }
        Ok(waited)
    }

    pub(super) fn start(&self, participant: Participant, tasks: &mut Tasks) {
        let context = Rc::clone(&self.context);
        // Before its task gets a turn: who waits for all that have started waits for it too.
        let (id, scheduled) = (participant.id, participant.scheduled);
        context.joins.borrow_mut().started(id, scheduled);
        context.audience.borrow_mut().scheduled(id, scheduled);
        let spec = &participant.spec;
        context.targets.borrow_mut().push(Target {
            orders: Rc::clone(&participant.orders),
            receives: spec.receives(),
            publishes: spec.publishes(),
            cohort: spec.cohort,
        });
        tasks.push(tokio::task::spawn_local(participant::run(context, participant)));
    }

    /// Pauses, and looks after workers and server meanwhile.
    pub(super) async fn watch_until(&mut self, moment: Instant) -> Result<(), Stop> {
        loop {
            self.check_health()?;
            let at = now();
            if at < moment {
                self.pause_until(moment.min(at + LOOK_EVERY)).await?;
            }
            if *self.interrupted.borrow() {
                return Err(Stop::Signal);
            }
            if now() >= moment {
                return Ok(());
            }
        }
    }

    pub(super) async fn pause_until(&mut self, moment: Instant) -> Result<(), Stop> {
        tokio::select! {
            () = tokio::time::sleep_until(moment.into()) => Ok(()),
            () = signalled(&mut self.interrupted) => Err(Stop::Signal),
        }
    }

    /// Waits until the join statistics say so, at most this long; true if it did.
    pub(super) async fn until(
        &mut self,
        at_most: Duration,
        mut enough: impl FnMut(&Joins) -> bool,
    ) -> Result<bool, Stop> {
        let deadline = now() + at_most;
        loop {
            if enough(&self.context.joins.borrow()) {
                return Ok(true);
            }
            if now() >= deadline {
                return Ok(false);
            }
            self.check_health()?;
            // Changes are looked at a few times a second, not one by one: thousands come at once.
            self.pause_until(deadline.min(now() + LOOK_EVERY)).await?;
        }
    }

    fn check_thresholds(&self) -> Result<(), Stop> {
        if self.state.crossed.borrow().is_some() { Err(Stop::Threshold) } else { Ok(()) }
    }

    pub(super) fn check_health(&mut self) -> Result<(), Stop> {
        self.check_thresholds()?;
        if let Some(why) = self.workers.borrow().failed.first() {
            return Err(Stop::early(Fault::Generator, why));
        }
        match self.embedded.as_mut().and_then(EmbeddedSfu::died) {
            Some(why) => Err(Stop::early(Fault::Server, &why)),
            None => Ok(()),
        }
    }

    pub(super) async fn begin_measuring(&mut self, measured: &mut Measured) -> Result<(), Stop> {
        if let Some(embedded) = self.embedded.as_mut() {
            let ledger = tokio::select! {
                ledger = embedded.ledger() => ledger,
                () = signalled(&mut self.interrupted) => return Err(Stop::Signal),
            };
            match ledger {
                Ok(ledger) => self.ledger_before = Some(ledger),
                Err(error) => tracing::warn!("the embedded SFU's ledger is missing: {error}"),
            }
        }
        for _ in 0..20 {
            match self.context.engine().map(|engine| engine.begin_measuring()) {
                Some(Err(_)) => self.pause_until(now() + LOOK_EVERY).await?,
                _ => {
                    let begin = now();
                    self.context.joins.borrow_mut().window_begins();
                    self.context.audience.borrow_mut().window_begins(begin);
                    self.context.signalled.borrow_mut().window_begins();
                    if let Some(faults) = self.faults.take() {
                        let window = self.scenario.window();
                        let played = faults.play(Rc::clone(&self.context), begin, window);
                        self.fault_task = Some(tokio::task::spawn_local(played));
                    }
                    let mark = Mark::now();
                    self.state.begun.set(Some(mark.at));
                    measured.begin = Some(mark);
                    return Ok(());
                }
            }
        }
        Err(Stop::early(Fault::Generator, "the workers take no commands"))
    }

    /// Subscribers first, so that what a server sends when publishers go is not measured.
    async fn leave(&mut self) {
        self.state.phase.set(Phase::Leave);
        for (leaving, word) in
            [(Leaving::Subscribers, "subscribers"), (Leaving::Everybody, "participants")]
        {
            self.context.leaving.send_replace(leaving);
            let deadline = now() + LEAVE_TIMEOUT;
            while self.still_there(leaving) {
                if now() >= deadline {
                    tracing::warn!("some {word} did not leave within {LEAVE_TIMEOUT:?}");
                    break;
                }
                tokio::time::sleep(LOOK_EVERY / 4).await;
            }
            if leaving == Leaving::Subscribers
                && let Some(meeting) = self.context.meeting.clone()
            {
                let met = meeting.at(Point::SubscribersLeft);
                let _ = tokio::time::timeout(LEAVE_TIMEOUT, met).await;
            }
        }
    }

    fn still_there(&self, leaving: Leaving) -> bool {
        let joins = self.context.joins.borrow();
        match leaving {
            Leaving::Nobody => true,
            Leaving::Subscribers => !joins.subscribers_over(),
            Leaving::Everybody => !joins.started_over(),
        }
    }
}

/// Fills the statistics of a run that ended before anybody was started.
pub(crate) fn nobody_starts(data: &mut RunData, all: &Participants) -> Vec<ParticipantId> {
    let everybody = [&all.publishers, &all.participants, &all.subscribers].into_iter().flatten();
    everybody.map(|spec| data.joins.register(!spec.receives())).collect()
}

/// Fills the statistics of a run whose server can't be reached.
pub(crate) fn nobody_joins(data: &mut RunData, all: &Participants, why: &JoinError) {
    let now = data.clock.started;
    for id in nobody_starts(data, all) {
        data.joins.started(id, now);
        data.joins.over(id, true);
    }
    data.joins.error(why);
}

#[cfg(test)]
mod tests;
