//! `stampede run --hosts N`: waits for workers, hands out shares, keeps them together, shows the
//! whole, and makes one report.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use stampede_hosts::coordinator::{Coordinator, Host, HostState, Options, Outcome, Output, Plan};
use stampede_hosts::messages::{FromWorker, Parts, Share, ToWorker};
use stampede_hosts::proof::Token;
use stampede_report::running;
use stampede_report::threshold::{self, Crossed};
use stampede_report::types::Report;
use stampede_report::{Exit, Failure};
use stampede_run::{Controls, Network, Progress, View};
use stampede_scenario::{Scenario, Target};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use super::link::{Came, Greeted, LinkError, Sink, Stream, greet, receive, send};
use super::merged::{Common, Told, report};
use super::{Since, runtime, tls, token, unix_ns};
use crate::flags::{RunFlags, run_outputs, words_of_run};
use crate::live::{Live, Mode};
use crate::metrics::{self, Exposed, Pusher};
use crate::play::{Show, finish};
use crate::search::Step;
use crate::signals;
use crate::view::RunView;

/// Connections that have not proven themselves yet; further ones wait in the kernel.
const GREETINGS_MAX: usize = 64;
/// Events that wait for the coordinator; at the most their connections are not read.
const EVENTS_MAX: usize = 1_024;
/// Messages that wait for one worker; at the most it is lost, for it has read nothing for long.
const OUTGOING_MAX: usize = 64;
/// Pause between two looks at the time.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Looks until the whole is shown again.
const LOOKS_A_SECOND: u32 = 20;
/// Refused connections that are told of; further ones are somebody else's noise.
const STRANGERS_SAID_MAX: u32 = 20;
/// How long hosts have to come back to hear that a search is over.
const DISMISS_MAX: Duration = Duration::from_secs(10);
/// How long the last messages have to leave.
const GOODBYE_MAX: Duration = Duration::from_secs(2);

/// What happened on a connection.
enum Event {
    /// Somebody has proven to be a worker.
    Proven(Box<Greeted>),
    /// Somebody has not.
    Stranger(SocketAddr, LinkError),
    /// A worker said something.
    Said(usize, FromWorker),
    /// A part of its report came.
    Part(usize),
    /// All of it.
    Report(usize, Vec<u8>),
    /// The connection has ended.
    Gone(usize, String),
}

/// Who else is told of the run.
struct Listeners {
    /// What they are told.
    exposed: Arc<Exposed>,
    /// What tells it to who does not ask.
    pusher: Option<Pusher>,
}

/// `run --hosts`.
///
/// # Errors
/// What ended it before there was anything to report.
pub(crate) fn coordinate(flags: RunFlags, hosts: u32) -> Result<Exit, Failure> {
    let (quiet, mut runs) = (flags.quiet, Coordination::new(flags, hosts)?);
    match runs.run(None)? {
        Some(report) => Ok(finish(report, &runs.out, quiet)),
        None => Ok(Exit::Interrupted),
    }
}

/// What several hosts do together: one run, or the steps of a search.
pub(crate) struct Coordination {
    flags: RunFlags,
    token: Token,
    hosts: u32,
    hosts_min: u32,
    show: Show,
    /// Where reports go.
    pub out: Vec<stampede_report::out::Output>,
    runtime: Runtime,
    /// From the first run on.
    listener: Option<Rc<TcpListener>>,
    /// How many hosts are to come back since the latest step.
    coming_back: usize,
}

impl Coordination {
    /// Checks what can be checked before anybody is waited for, but for the runs themselves.
    ///
    /// # Errors
    /// What is wrong, exit code 104.
    pub(crate) fn new(flags: RunFlags, hosts: u32) -> Result<Self, Failure> {
        let token = token()?;
        if flags.url.is_none() {
            return Err(Failure::config(
                "--hosts needs a server that all hosts reach: add --url wss://HOST (the embedded \
                 SFU serves the host that it runs on)",
            ));
        }
        let hosts_min = flags.together.hosts_min.unwrap_or(hosts);
        if hosts_min > hosts {
            return Err(Failure::config(format!(
                "--hosts-min {hosts_min} is more than --hosts {hosts}: lower it, or leave it out"
            )));
        }
        let (out, show) = (run_outputs(&flags)?, Show::of(&flags));
        let (runtime, listener) = (runtime()?, None);
        Ok(Self { flags, token, hosts, hosts_min, show, out, runtime, listener, coming_back: 0 })
    }

    /// One run, or this step of a search, after which the hosts are to come back; `None` if it was
    /// stopped before it began.
    ///
    /// # Errors
    /// What ended it before there was anything to report.
    pub(crate) fn run(&mut self, step: Option<Step>) -> Result<Option<Report>, Failure> {
        let (share, scenario) = whole(&self.flags, step)?;
        let url = match &scenario.target {
            Target::Server(server) => Some(server.url.to_string()),
            Target::Embedded(_) => None,
        };
        let options = Options {
            hosts: self.hosts as usize,
            hosts_min: self.hosts_min as usize,
            gather: self.flags.together.hosts_wait,
            participants: scenario.participants_total(),
        };
        let common = Common {
            run_id: share.run_id.clone(),
            started_at: SystemTime::now(),
            url,
            participants: options.participants,
            staged: !scenario.shape.stages.is_empty(),
            thresholds: scenario.thresholds,
            crossed: None,
            on_lost: self.flags.together.on_lost_host,
            again: step.is_some(),
        };
        let exposed: Arc<Exposed> = Arc::default();
        let pushed = scenario.otlp.as_ref().map(|url| {
            let network = Network::open(&scenario.network, None, &[url.url()], scenario.transport)?;
            let variable = |name: &str| std::env::var_os(name);
            metrics::pusher(url, &common.run_id, &network, Arc::clone(&exposed), variable)
        });
        let (pusher, pushes) = pushed.transpose()?.unzip();
        let listeners = Listeners { exposed, pusher };
        let listener = self.listener()?;
        let run =
            run(options, Plan { share }, common, &self.token, listener, &self.show, listeners);
        let ended = LocalSet::new().block_on(&self.runtime, run);
        if let Some(pushes) = pushes {
            pushes.wait();
        }
        // Nobody comes back from a run that failed.
        self.coming_back = 0;
        let ended = ended?;
        let there = |report: &Report| {
            report.run.hosts.iter().flatten().filter(|host| host.lost.is_none()).count()
        };
        self.coming_back = ended.as_ref().filter(|_| step.is_some()).map_or(0, there);
        Ok(ended)
    }

    fn listener(&mut self) -> Result<Rc<TcpListener>, Failure> {
        let listener = match self.listener.take() {
            Some(listener) => listener,
            None => {
                let listen = self.flags.together.listen;
                let bound = self.runtime.block_on(TcpListener::bind(listen));
                let failed = |error| Failure::config(format!("--listen {listen}: {error}"));
                Rc::new(bound.map_err(failed)?)
            }
        };
        self.listener = Some(Rc::clone(&listener));
        Ok(listener)
    }

    /// Tells the hosts, which come back for another step, that there is none.
    pub(crate) fn dismiss(self) {
        let Self { listener: Some(listener), token, runtime, coming_back, .. } = self else {
            return;
        };
        let dismissing = async {
            let (events, mut came) = mpsc::channel(EVENTS_MAX);
            let listening = spawn_local(welcome(listener, token, events));
            for _ in 0..coming_back {
                let mut socket = loop {
                    match came.recv().await {
                        Some(Event::Proven(greeted)) => break greeted.socket,
                        Some(_) => {}
                        None => return,
                    }
                };
                for message in [ToWorker::Admitted, ToWorker::Done] {
                    let _ = send(&mut socket, &message).await;
                }
                let _ = socket.close(None).await;
            }
            listening.abort();
        };
        let dismissed = LocalSet::new()
            .block_on(&runtime, async { tokio::time::timeout(DISMISS_MAX, dismissing).await });
        if dismissed.is_err() {
            tracing::warn!("not all hosts came back within {DISMISS_MAX:?} to hear of the end");
        }
        runtime.shutdown_background();
    }
}

/// What all shares have in common, and the whole run, checked before anybody is waited for.
fn whole(flags: &RunFlags, step: Option<Step>) -> Result<(Share, Scenario), Failure> {
    let mut words = words_of_run(std::env::args_os())?;
    let scenario = match &flags.shape.scenario {
        Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
            Failure::config(format!("--scenario {}: can't be read: {error}", path.display()))
        })?),
        None => None,
    };
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Failure::other("no random numbers"))?;
    let seed = flags.seed.unwrap_or_else(|| {
        u64::from(u32::from_le_bytes([random[0], random[1], random[2], random[3]]))
    });
    // Whatever came from this host's environment: of two the last counts.
    let secret = flags.api_secret.as_ref().map_or("", |secret| secret.expose());
    words.extend([
        format!("--url={}", flags.url.as_deref().unwrap_or_default()),
        format!("--api-key={}", flags.api_key.as_deref().unwrap_or_default()),
        format!("--api-secret={secret}"),
        format!("--seed={seed}"),
    ]);
    words.extend(step.into_iter().flat_map(Step::words));
    let mut run_id = [0; 4];
    aws_lc_rs::rand::fill(&mut run_id).map_err(|_| Failure::other("no random numbers"))?;
    let run_id = run_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let flags = RunFlags { seed: Some(seed), ..flags.clone() };
    let share = Share { words, scenario, run_id, number: 0, weights: Vec::new() };
    let scenario = match step {
        Some(step) => step.scenario(flags)?,
        None => Scenario::new(flags.draft()?)?,
    };
    Ok((share, scenario))
}

async fn run(
    options: Options,
    plan: Plan,
    common: Common,
    token: &Token,
    listener: Rc<TcpListener>,
    show: &Show,
    listeners: Listeners,
) -> Result<Option<Report>, Failure> {
    let address = listener.local_addr().map_err(Failure::other)?;
    let prometheus = show.prometheus.map(metrics::bind).transpose()?;
    let controls = Arc::new(Controls::default());
    let stopping = Arc::clone(&controls);
    let quiet = show.mode == Mode::Quiet;
    let _armed = signals::arm(move || {
        let first = stopping.stop();
        if first && !quiet {
            signals::say_aside("stopping: all hosts end their parts, then comes the summary");
        }
        first
    });
    let Listeners { exposed, pusher } = listeners;
    let told = prometheus.is_some() || pusher.is_some();
    let live = Live::start(show.mode, Arc::clone(&controls));
    let mut view = RunView {
        live,
        exposed: told.then(|| Arc::clone(&exposed)),
        listener: prometheus,
        pusher,
        controls: Arc::clone(&controls),
        captures: false,
    };
    view.say(&format!(
        "waiting for {} hosts at {address}: `stampede work --join HOST:{}` with the same \
         STAMPEDE_TOKEN",
        options.hosts,
        address.port()
    ));
    let beside = spawn_local(view.beside());
    let (events, mut came) = mpsc::channel(EVENTS_MAX);
    let listening = spawn_local(welcome(listener, token.clone(), events.clone()));
    let since = Since::now();
    let mut desk = Desk {
        coordinator: Coordinator::new(options, plan, since.elapsed()),
        since,
        told: Vec::new(),
        lines: Vec::new(),
        strangers: 0,
        events,
        common,
        view,
        controls,
    };
    let outcome = desk.sit(&mut came).await;
    listening.abort();
    if let Some(whole) = desk.whole() {
        exposed.end(&whole);
    }
    let ended = desk.end(outcome).await;
    beside.abort();
    ended
}

/// Takes connections, and lets those in that prove themselves.
async fn welcome(listener: Rc<TcpListener>, token: Token, events: mpsc::Sender<Event>) {
    let (acceptor, certificate) = match tls::acceptor() {
        Ok(own) => own,
        Err(failure) => return tracing::error!("{failure}"),
    };
    let greetings = Arc::new(Semaphore::new(GREETINGS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&greetings).acquire_owned().await else { return };
        let (tcp, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("a connection could not be taken: {error}");
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
        };
        let (acceptor, token, events) = (acceptor.clone(), token.clone(), events.clone());
        spawn_local(async move {
            let _permit = permit;
            let event = match greet(tcp, &acceptor, certificate, &token).await {
                Ok(greeted) => Event::Proven(Box::new(greeted)),
                Err(error) => Event::Stranger(from, error),
            };
            let _ = events.send(event).await;
        });
    }
}

/// The way to a worker.
struct Line {
    queue: mpsc::Sender<ToWorker>,
    /// Reads and writes; without them the connection is gone.
    tasks: [JoinHandle<()>; 2],
}

/// Everything of a run that goes on.
struct Desk {
    coordinator: Coordinator,
    since: Since,
    /// Of each host, by its index.
    told: Vec<Told>,
    /// The way to each; `None` once it is closed.
    lines: Vec<Option<Line>>,
    /// Connections that were refused.
    strangers: u32,
    events: mpsc::Sender<Event>,
    common: Common,
    view: RunView,
    controls: Arc<Controls>,
}

impl Desk {
    /// Until it is over.
    async fn sit(&mut self, came: &mut mpsc::Receiver<Event>) -> Outcome {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut look = 0;
        loop {
            tokio::select! {
                event = came.recv() => {
                    if let Some(event) = event {
                        self.take(event);
                    }
                }
                _ = looks.tick() => {
                    look += 1;
                    if look % LOOKS_A_SECOND == 0 {
                        self.second();
                    }
                }
            }
            self.coordinator.pause(self.controls.paused());
            if self.controls.is_stopping() {
                self.coordinator.stop("it was stopped at the coordinator", None);
            }
            let outputs = self.coordinator.advance(self.since.elapsed(), unix_ns());
            for output in outputs {
                if let Some(outcome) = self.carry_out(output) {
                    return outcome;
                }
            }
        }
    }

    fn take(&mut self, event: Event) {
        let now = self.since.elapsed();
        match event {
            Event::Proven(greeted) => self.admit(*greeted),
            Event::Stranger(from, error) => {
                self.strangers += 1;
                if self.strangers <= STRANGERS_SAID_MAX {
                    self.view.say(&format!("a connection from {from} was refused: {error}"));
                }
            }
            // What was on its way from a host that was given up.
            Event::Said(host, _) | Event::Part(host) | Event::Report(host, _)
                if self.is_gone(host) => {}
            Event::Said(host, message) => {
                self.coordinator.heard(host, now);
                self.said(host, message);
            }
            Event::Part(host) => self.coordinator.heard(host, now),
            Event::Report(host, json) => {
                self.coordinator.heard(host, now);
                self.reported(host, &json);
            }
            Event::Gone(host, why) => self.give_up(host, &why),
        }
    }

    fn is_gone(&self, host: usize) -> bool {
        self.coordinator.hosts().get(host).is_none_or(Host::is_gone)
    }

    fn give_up(&mut self, host: usize, why: &str) {
        self.coordinator.gone(host, why);
        self.close(host);
    }

    fn admit(&mut self, greeted: Greeted) {
        let Greeted { mut socket, name, capacity } = greeted;
        let host = match self.coordinator.admit(self.since.elapsed(), &name, capacity) {
            Ok(host) => host,
            Err(refusal) => {
                let why = refusal.to_string();
                self.view.say(&format!("a host was refused: {why}"));
                spawn_local(async move {
                    let _ = send(&mut socket, &ToWorker::Refused { why }).await;
                    let _ = socket.close(None).await;
                });
                return;
            }
        };
        let (sink, stream) = socket.split();
        let (line, queue) = mpsc::channel(OUTGOING_MAX);
        let _ = line.try_send(ToWorker::Admitted);
        let tasks = [
            spawn_local(write(sink, queue, host, self.events.clone())),
            spawn_local(read(stream, host, line.clone(), self.events.clone())),
        ];
        self.lines.push(Some(Line { queue: line, tasks }));
        self.told.push(Told::default());
        let name = &self.coordinator.hosts()[host].name;
        self.view.say(&format!("{name} is here"));
    }

    fn said(&mut self, host: usize, message: FromWorker) {
        match message {
            FromWorker::Ready { clock } => self.coordinator.ready(host, clock),
            FromWorker::Refused { why } => self.coordinator.refused(host, &why),
            FromWorker::Arrived { point } => self.coordinator.arrived(host, point),
            FromWorker::Snapshot { progress, grown } => {
                let told = self.told.get_mut(host);
                if let Some(Err(error)) = told.map(|told| told.take(&progress, &grown)) {
                    self.give_up(host, &format!("a bad snapshot: {error}"));
                }
            }
            FromWorker::Report { clock, .. } => {
                self.coordinator.reporting(host, self.since.elapsed(), clock);
            }
            // Answered where it came in; or out of turn.
            FromWorker::Clock { .. } | FromWorker::Hello { .. } | FromWorker::Proof { .. } => {}
        }
    }

    fn reported(&mut self, host: usize, json: &[u8]) {
        match stampede_report::from_json(json) {
            Ok(report) => {
                if self.coordinator.reported(host)
                    && let Some(told) = self.told.get_mut(host)
                {
                    told.report(report);
                    // Of a search all come back together: before, there is nothing to come to.
                    if !self.common.again {
                        self.send(host, ToWorker::Taken { again: false });
                    }
                }
            }
            Err(why) => self.give_up(host, &format!("a bad report: {why}")),
        }
    }

    fn send(&mut self, host: usize, message: ToWorker) {
        let Some(Some(line)) = self.lines.get(host) else { return };
        if line.queue.try_send(message).is_err() {
            self.give_up(host, "it reads nothing any more");
        }
    }

    fn close(&mut self, host: usize) {
        // Whoever is given up is to hear of it: it ends its part then.
        if let Some(line) = self.lines.get_mut(host).and_then(Option::take) {
            line.tasks.iter().for_each(JoinHandle::abort);
        }
    }

    fn carry_out(&mut self, output: Output) -> Option<Outcome> {
        match output {
            Output::Send(host, message) => {
                if let ToWorker::Go { at_ns, .. } = message
                    && self.told.iter().all(|told| told.progress.is_none())
                {
                    self.common.started_at = SystemTime::UNIX_EPOCH + Duration::from_nanos(at_ns);
                }
                self.send(host, message);
            }
            Output::Close(host) => self.close(host),
            Output::Say(text) => self.view.say(&text),
            Output::Finished(outcome) => return Some(outcome),
        }
        None
    }

    /// The state of the whole; `None` before any host has told its own.
    fn whole(&self) -> Option<Progress> {
        let hosts: Vec<Progress> =
            self.told.iter().filter_map(|told| told.progress.clone()).collect();
        (!hosts.is_empty()).then(|| Progress::of_hosts(&hosts))
    }

    /// A second is over: shows the whole, and looks at what it has to keep.
    fn second(&mut self) {
        let Some(whole) = self.whole() else { return };
        self.view.show(&whole);
        let armed = self.common.thresholds.iter().any(|test| test.abort_after.is_some());
        if !armed || self.common.crossed.is_some() {
            return;
        }
        let figures =
            running::figures(&whole.joins, &whole.recoveries, &whole.watch, &whole.counters);
        let found = threshold::crossed(&self.common.thresholds, &figures, whole.elapsed);
        if let Some((test, value)) = found {
            let expr = test.expr.clone();
            self.coordinator.stop(&format!("{expr} was crossed"), Some((expr.clone(), value)));
            self.common.crossed = Some(Crossed { expr, value });
        }
    }

    /// Lets the last messages leave, and makes the report; `None` if there was no run.
    async fn end(mut self, outcome: Outcome) -> Result<Option<Report>, Failure> {
        if self.common.again {
            let reported = |host: &Host| host.state == HostState::Reported;
            let hosts = self.coordinator.hosts().iter().enumerate();
            let hosts: Vec<usize> =
                hosts.filter(|(_, host)| reported(host)).map(|(index, _)| index).collect();
            hosts.into_iter().for_each(|host| self.send(host, ToWorker::Taken { again: true }));
        }
        // The writers end when their queues are empty and nobody holds them any more.
        let lines: Vec<_> = self.lines.drain(..).flatten().collect();
        let gone = async {
            for line in &lines {
                // All places are free again once all was sent.
                while line.queue.capacity() < line.queue.max_capacity() {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        };
        let _ = tokio::time::timeout(GOODBYE_MAX, gone).await;
        tokio::time::sleep(LOOK_EVERY).await;
        match outcome {
            Outcome::Over => report(&self.coordinator, self.told, &self.common).map(Some),
            Outcome::Stopped => Ok(None),
            Outcome::TooFew { came } => Err(Failure::other(format!(
                "{came} hosts came in time, which is too few: start more of them, wait longer \
                 (--hosts-wait), or take fewer (--hosts, --hosts-min)"
            ))),
            Outcome::NotStarted { why, bad_configuration: true } => Err(Failure::config(why)),
            Outcome::NotStarted { why, bad_configuration: false } => Err(Failure::other(why)),
        }
    }
}

/// Sends what is queued for a worker, in order.
async fn write(
    mut sink: Sink,
    mut queue: mpsc::Receiver<ToWorker>,
    host: usize,
    events: mpsc::Sender<Event>,
) {
    while let Some(mut message) = queue.recv().await {
        if let ToWorker::Clock { answered_ns, .. } = &mut message {
            *answered_ns = unix_ns();
        }
        if let Err(error) = send(&mut sink, &message).await {
            let _ = events.send(Event::Gone(host, error.to_string())).await;
            return;
        }
    }
}

/// Reads what a worker says; questions of the time are answered at once.
async fn read(
    mut stream: Stream,
    host: usize,
    line: mpsc::Sender<ToWorker>,
    events: mpsc::Sender<Event>,
) {
    let mut parts: Option<Parts> = None;
    let why = loop {
        let event = match receive::<FromWorker>(&mut stream).await {
            Ok(Came::Message(message)) => {
                let received_ns = unix_ns();
                match &message {
                    FromWorker::Clock { sent_ns } => {
                        // Without room the question is not answered: the next one will be.
                        let (sent_ns, answered_ns) = (*sent_ns, received_ns);
                        let answer = ToWorker::Clock { sent_ns, received_ns, answered_ns };
                        let _ = line.try_send(answer);
                    }
                    FromWorker::Report { bytes, .. } => match Parts::announced(*bytes) {
                        Ok(announced) => parts = Some(announced),
                        Err(error) => break error.to_string(),
                    },
                    _ => {}
                }
                Event::Said(host, message)
            }
            Ok(Came::Part(part)) => match parts.as_mut().map(|parts| parts.take(&part)) {
                Some(Ok(Some(json))) => Event::Report(host, json),
                Some(Ok(None)) => Event::Part(host),
                Some(Err(error)) => break error.to_string(),
                None => break LinkError::Protocol.to_string(),
            },
            Err(error) => break error.to_string(),
        };
        if events.send(event).await.is_err() {
            return;
        }
    };
    let _ = events.send(Event::Gone(host, why)).await;
}
