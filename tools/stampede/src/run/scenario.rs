//! What happens in which order: publishers, ramp, measured window, leave.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_core::MediaKind;
use stampede_sfu::Ledger;
use stampede_signaling::presence::{self, Absence};
use stampede_signaling::session::Role;
use tokio::sync::watch;

use super::audience::Viewer;
use super::book::{Book, Member, ParticipantId};
use super::cast::{self, CastMember};
use super::cohorts::Cohorts;
use super::context::{Context, Stage};
use super::participant::{self, Media, Participant};
use super::router::Workers;
use super::{Mark, RunData, Tasks, signalled};
use crate::embedded::Embedded;
use crate::flags::Plan;
use crate::live::Controls;
use crate::report::judge::Early;
use crate::report::threshold::Crossed;
use crate::report::types::{Fault, StageRow};

/// How long the ramp of subscribers waits for the publishers.
const PUBLISHERS_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the measured window waits for the last subscribers to join and see a keyframe.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the server may take to answer at the end; a busy livekit-server does within a second.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long leaving may take, for subscribers and for publishers.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between looks at things that have no event of their own.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What the run is doing now, for the view.
pub(crate) struct State {
    /// In a word.
    pub phase: Cell<&'static str>,
    /// When the measured window ends, once it has begun.
    pub ends: Cell<Option<Instant>>,
    /// The view may end.
    pub done: Cell<bool>,
    /// A threshold that ends the run.
    pub crossed: RefCell<Option<Crossed>>,
}

/// The measured window: `begin` to `end` if there was one, else from the start of the engine.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// Before the first join.
    pub start: Option<Mark>,
    /// Start of the window; `None` if the ramp did not end.
    pub begin: Option<Mark>,
    /// End of it.
    pub end: Option<Mark>,
    /// When everybody was told to leave; counters go on until then.
    pub told: Option<Instant>,
    /// Participants connected at its end.
    pub connected: usize,
    /// One row for each stage that has ended; `None` without stages.
    pub stages: Option<Vec<StageRow>>,
}

/// How a scenario ended.
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

/// A scenario being played.
pub(crate) struct Scenario<'a> {
    /// Shared with the tasks.
    pub context: Rc<Context>,
    /// Latest state of the workers.
    pub workers: Rc<RefCell<Workers>>,
    /// Shown to the user.
    pub state: Rc<State>,
    /// What to play.
    pub plan: &'a Plan,
    /// The embedded SFU, if any.
    pub embedded: &'a mut Option<Embedded>,
    /// Becomes true with the first signal.
    pub interrupted: watch::Receiver<bool>,
    /// What the user has asked for with keys.
    pub controls: Arc<Controls>,
    /// The embedded SFU's ledger when the measured window began.
    pub ledger_before: Option<Ledger>,
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

impl Scenario<'_> {
    /// Plays it to its end.
    pub(crate) async fn play(&mut self, run_id: &str, seed: u64) -> Ending {
        let rooms = cast::rooms(self.plan, run_id);
        let publishers = cast::publishers(self.plan, run_id, &rooms, seed);
        let subscribers =
            cast::subscribers(self.plan, run_id, &rooms, &Cohorts::of(self.plan, seed));
        let mut measured = Measured { start: Some(Mark::now()), ..Measured::default() };
        let mut tasks = Vec::with_capacity(publishers.len() + subscribers.len());
        let stop = self.up(publishers, subscribers, &mut measured, &mut tasks).await.err();
        measured.end = Some(Mark::now());
        measured.connected = self.context.book.borrow().connected();
        self.state.ends.set(None);
        let server_gone = self.look_after_server(stop.as_ref()).await;
        let join_grace = self.plan.watch_rules.join_grace;
        self.context.book.borrow_mut().close(Instant::now(), join_grace);
        measured.told = Some(Instant::now());
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

    /// Everything until it is time to leave.
    async fn up(
        &mut self,
        publishers: Vec<CastMember>,
        subscribers: Vec<CastMember>,
        measured: &mut Measured,
        tasks: &mut Tasks,
    ) -> Result<(), Stop> {
        let count = publishers.len();
        let publishers = self.register(publishers);
        let subscribers = self.register(subscribers);
        self.state.phase.set("publish");
        self.ramp(publishers, tasks).await?;
        self.until(PUBLISHERS_TIMEOUT, |book| book.publishers_settled(count)).await?;
        if !self.plan.shape.stages.is_empty() {
            return self.stages(subscribers, measured, tasks).await;
        }
        self.state.phase.set("ramp");
        self.ramp(subscribers, tasks).await?;
        let own_video = !self.plan.video_layers.is_empty();
        self.until(SETTLE_TIMEOUT, |book| {
            let waiting_for_media = own_video
                && book.publishers_joined() > 0
                && book.first_keyframes() < book.subscribers_connected();
            book.settled() && !waiting_for_media
        })
        .await?;
        if self.context.book.borrow().all_over() {
            return Err(Stop::early(Fault::Unknown, "nobody is left in the room"));
        }
        self.begin_measuring().await?;
        measured.begin = Some(Mark::now());
        self.hold().await
    }

    /// Holds for `--duration`.
    pub(super) async fn hold(&mut self) -> Result<(), Stop> {
        self.state.phase.set("hold");
        self.state.ends.set(Some(Instant::now() + self.plan.duration));
        if self.until(self.plan.duration, Book::all_over).await? {
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
        if let Some(why) = self.embedded.as_mut().and_then(Embedded::died) {
            return Some(Early { fault: Fault::Server, why });
        }
        let (url, network) = (&self.context.url, &self.context.network);
        let absence = tokio::select! {
            answer = presence::ask(url, &network.tls, &network.proxies, ANSWER_TIMEOUT) => answer.err()?,
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

    fn register(&self, cast: Vec<CastMember>) -> Vec<Participant> {
        let mut book = self.context.book.borrow_mut();
        let mut audience = self.context.audience.borrow_mut();
        cast.into_iter()
            .map(|member| {
                let (cohort, name) = member.cohort;
                let known = Member { room: member.room.to_string(), cohort: name };
                book.introduce(&member.identity, known);
                let id = book.register(matches!(member.media, Media::Publisher { .. }));
                match &member.media {
                    Media::Subscriber { .. } => {
                        book.expect(id, &member.room, cohort, member.tracks);
                        if let Role::Subscriber { subscription, .. } = member.role {
                            let identity = member.identity.clone();
                            let room = Rc::clone(&member.room);
                            let viewer = Viewer { identity, room, cohort, subscription };
                            audience.seat(id, viewer);
                        }
                    }
                    Media::Publisher { tracks } => {
                        let of = |kind| tracks.iter().filter(|track| track.kind == kind).count();
                        let tracks = [MediaKind::Video, MediaKind::Audio].map(|k| of(k) as u32);
                        book.publishes(id, &member.room, tracks);
                    }
                }
                Participant {
                    id,
                    name: member.identity,
                    room: member.room,
                    scheduled: self.context.clock.started,
                    role: member.role,
                    media: member.media,
                    tries: Cell::new(0),
                    hidden: member.hidden,
                    cohort,
                    leave: Rc::default(),
                }
            })
            .collect()
    }

    /// Starts participants on an open-loop schedule: a late start does not move the later ones.
    async fn ramp(
        &mut self,
        participants: Vec<Participant>,
        tasks: &mut Tasks,
    ) -> Result<(), Stop> {
        let mut begin = Instant::now();
        for (number, mut participant) in participants.into_iter().enumerate() {
            let after_s = number as f64 / self.plan.joins_per_second;
            begin += self.paused().await?;
            participant.scheduled = begin + Duration::from_secs_f64(after_s);
            self.watch_until(participant.scheduled).await?;
            self.start(participant, tasks);
        }
        Ok(())
    }

    /// Waits while the user has paused the ramp, and tells how long: the schedule moves by that,
    /// since nobody was kept waiting by the server.
    async fn paused(&mut self) -> Result<Duration, Stop> {
        let since = Instant::now();
        let mut waited = Duration::ZERO;
        while self.controls.paused() {
            self.watch_until(Instant::now() + LOOK_EVERY).await?;
            waited = since.elapsed();
        }
        Ok(waited)
    }

    pub(super) fn start(&self, participant: Participant, tasks: &mut Tasks) {
        let context = Rc::clone(&self.context);
        tasks.push(tokio::task::spawn_local(participant::run(context, participant)));
    }

    /// Pauses, and looks after workers and server meanwhile.
    pub(super) async fn watch_until(&mut self, moment: Instant) -> Result<(), Stop> {
        loop {
            self.check_health()?;
            let now = Instant::now();
            if now < moment {
                self.pause_until(moment.min(now + LOOK_EVERY)).await?;
            }
            if *self.interrupted.borrow() {
                return Err(Stop::Signal);
            }
            if Instant::now() >= moment {
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

    /// Waits until the book says so, at most this long; true if it did.
    pub(super) async fn until(
        &mut self,
        at_most: Duration,
        mut enough: impl FnMut(&Book) -> bool,
    ) -> Result<bool, Stop> {
        let deadline = Instant::now() + at_most;
        loop {
            if enough(&self.context.book.borrow()) {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            self.check_health()?;
            // Changes are looked at a few times a second, not one by one: thousands come at once.
            self.pause_until(deadline.min(Instant::now() + LOOK_EVERY)).await?;
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
        match self.embedded.as_mut().and_then(Embedded::died) {
            Some(why) => Err(Stop::early(Fault::Server, &why)),
            None => Ok(()),
        }
    }

    pub(super) async fn begin_measuring(&mut self) -> Result<(), Stop> {
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
                Some(Err(_)) => self.pause_until(Instant::now() + LOOK_EVERY).await?,
                _ => {
                    self.context.book.borrow_mut().window_begins();
                    self.context.audience.borrow_mut().window_begins(Instant::now());
                    return Ok(());
                }
            }
        }
        Err(Stop::early(Fault::Generator, "the workers take no commands"))
    }

    /// Subscribers first, so that what a server sends when publishers go is not measured.
    async fn leave(&mut self) {
        self.state.phase.set("leave");
        for (stage, word) in
            [(Stage::SubscribersLeave, "subscribers"), (Stage::EverybodyLeaves, "participants")]
        {
            self.context.stage.send_replace(stage);
            let deadline = Instant::now() + LEAVE_TIMEOUT;
            while self.still_there(stage) {
                if Instant::now() >= deadline {
                    tracing::warn!("some {word} did not leave within {LEAVE_TIMEOUT:?}");
                    break;
                }
                tokio::time::sleep(LOOK_EVERY / 4).await;
            }
        }
    }

    fn still_there(&self, stage: Stage) -> bool {
        let book = self.context.book.borrow();
        match stage {
            Stage::Running => true,
            Stage::SubscribersLeave => !book.subscribers_over(),
            Stage::EverybodyLeaves => !book.started_over(),
        }
    }
}

/// Fills the book of a run that ended before anybody was started.
pub(crate) fn nobody_starts(data: &mut RunData) -> Vec<ParticipantId> {
    let publishers = data.plan.shape.publishers();
    let all = 0..data.plan.participants();
    all.map(|number| data.book.register(number < publishers)).collect()
}

/// Fills the book of a run whose server can't be reached.
pub(crate) fn nobody_joins(data: &mut RunData, kind: &str) {
    let now = data.clock.started;
    for id in nobody_starts(data) {
        data.book.started(id, now);
        data.book.over(id, true);
    }
    data.book.error(kind);
}
