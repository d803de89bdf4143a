//! The coordinator: who is there, who is where, who is lost, and what is to be said to whom.
//!
//! Events change what is known; [`Coordinator::advance`] says what follows. Times are since any
//! moment of the coordinator's choice, and only ever compared with each other. Nobody is waited for
//! without an end: each state has one.

use std::time::Duration;

use crate::clock::Estimate;
use crate::messages::{HOSTS_MAX, Point, Share, ToWorker, shown};

/// A worker that says nothing for so long is lost. It asks for the time twice a second.
pub const LOST_AFTER: Duration = Duration::from_secs(5);
/// How long workers may take to open files and look at their machines.
pub const PREPARE_MAX: Duration = Duration::from_secs(120);
/// How long the others may take to hand in their reports, once a first one ends or is told to.
pub const ENDING_MAX: Duration = Duration::from_secs(120);
/// The run starts so long after everybody is ready.
const START_AHEAD: Duration = Duration::from_secs(1);
/// And goes on so long after everybody has come to a point: longer than any message is on its way.
const GO_AHEAD: Duration = Duration::from_millis(300);

/// Points in their order.
const POINTS: [Point; 5] =
    [Point::Start, Point::Published, Point::Ramp, Point::Measure, Point::SubscribersLeft];

/// How many are waited for, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// So many hosts.
    pub hosts: usize,
    /// With fewer, but no fewer than this, the run begins when the time is over.
    pub hosts_min: usize,
    /// How long it waits for them.
    pub gather: Duration,
    /// Participants of the run: no host is to be without one.
    pub participants: usize,
}

/// What all shares have in common.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its `number` and `weights` are filled in.
    pub share: Share,
}

/// Where a host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostState {
    /// Admitted, and without a share yet.
    Waiting,
    /// It opens what its share needs.
    Preparing,
    /// It could start.
    Ready,
    /// It runs.
    Running,
    /// Its report is on its way.
    Reporting,
    /// Its report is there.
    Reported,
    /// It is no more, for this reason.
    Gone(String),
}

/// A host that was admitted.
#[derive(Debug, Clone)]
pub struct Host {
    /// As it calls itself.
    pub name: String,
    /// Where it is.
    pub state: HostState,
    /// What it carries, if it knows.
    capacity: Option<u64>,
    /// Its number among the shares.
    pub number: Option<u32>,
    /// The coordinator's clock against its own.
    pub clock: Option<Estimate>,
    /// When it was heard of last.
    heard: Duration,
    /// Where it waits.
    at: Option<Point>,
}

impl Host {
    /// It is gone, or was given up.
    pub fn is_gone(&self) -> bool {
        matches!(self.state, HostState::Gone(_))
    }

    /// Why it was lost within the run, if it was.
    pub fn lost(&self) -> Option<&str> {
        match &self.state {
            HostState::Gone(why) if self.number.is_some() => Some(why),
            _ => None,
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// To this host.
    Send(usize, ToWorker),
    /// This host is done with.
    Close(usize),
    /// To the user.
    Say(String),
    /// It is over.
    Finished(Outcome),
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Not enough hosts came.
    TooFew {
        /// So many.
        came: usize,
    },
    /// A host could not start.
    NotStarted {
        /// Which, and why.
        why: String,
        /// What was asked for can't be had there.
        bad_configuration: bool,
    },
    /// It was stopped before it had started.
    Stopped,
    /// Everybody has reported, or is lost.
    Over,
}

/// Why a worker is not admitted.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// All are there.
    #[error("the run has its {0} hosts already")]
    Full(usize),
    /// It is under way.
    #[error("the run has begun, with {0} hosts; who was lost, or is late, can't join it any more")]
    Begun(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Gathering,
    Preparing { until: Duration },
    Running,
    Over,
}

/// See the module.
#[derive(Debug)]
pub struct Coordinator {
    options: Options,
    plan: Plan,
    stage: Stage,
    hosts: Vec<Host>,
    gather_until: Duration,
    /// How many points everybody has come to.
    released: usize,
    /// The ramp is to wait, and whether everybody was told so.
    paused: (bool, bool),
    /// Why everybody is to stop, once they are.
    stop: Option<ToWorker>,
    /// Everybody was told to.
    stopped: bool,
    /// Until when the last report may come.
    ending_until: Option<Duration>,
    /// A host that can't start.
    refused: Option<String>,
}

impl Coordinator {
    /// One that waits for hosts from `now` on.
    pub fn new(options: Options, plan: Plan, now: Duration) -> Self {
        Self {
            options,
            plan,
            stage: Stage::Gathering,
            hosts: Vec::new(),
            gather_until: now.saturating_add(options.gather),
            released: 0,
            paused: (false, false),
            stop: None,
            stopped: false,
            ending_until: None,
            refused: None,
        }
    }

    /// All that were ever admitted, by their index.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Those with a share, in the order of their numbers.
    pub fn sharing(&self) -> impl Iterator<Item = (usize, &Host)> {
        self.hosts.iter().enumerate().filter(|(_, host)| host.number.is_some())
    }

    /// How much each host with a share takes.
    pub fn weights(&self) -> &[u64] {
        &self.plan.share.weights
    }

    /// True once shares were handed out.
    pub fn has_begun(&self) -> bool {
        self.stage != Stage::Gathering
    }

    /// Takes in a worker that has proven itself.
    ///
    /// # Errors
    /// There is no place for it any more.
    pub fn admit(
        &mut self,
        now: Duration,
        name: &str,
        capacity: Option<u64>,
    ) -> Result<usize, Refusal> {
        if self.stage != Stage::Gathering {
            return Err(Refusal::Begun(self.plan.share.weights.len()));
        }
        if self.waiting() >= self.options.hosts || self.hosts.len() >= 2 * HOSTS_MAX {
            return Err(Refusal::Full(self.options.hosts));
        }
        let name = match shown(name) {
            name if name.is_empty() => "host".to_owned(),
            name => name,
        };
        self.hosts.push(Host {
            name,
            state: HostState::Waiting,
            capacity: capacity.filter(|capacity| *capacity > 0),
            number: None,
            clock: None,
            heard: now,
            at: None,
        });
        Ok(self.hosts.len() - 1)
    }

    /// Something came from it.
    pub fn heard(&mut self, host: usize, now: Duration) {
        if let Some(host) = self.hosts.get_mut(host) {
            host.heard = host.heard.max(now);
        }
    }

    /// It is ready.
    pub fn ready(&mut self, host: usize, clock: Estimate) {
        let Some(host) = self.hosts.get_mut(host) else { return };
        if host.state == HostState::Preparing {
            (host.state, host.clock) = (HostState::Ready, Some(clock));
        }
    }

    /// It can't start.
    pub fn refused(&mut self, host: usize, why: &str) {
        if self.stage == Stage::Running {
            return self.gone(host, why);
        }
        let Some(host) = self.hosts.get(host).filter(|host| !host.is_gone()) else { return };
        self.refused.get_or_insert_with(|| format!("{}: {}", host.name, shown(why)));
    }

    /// It waits for the others.
    pub fn arrived(&mut self, host: usize, point: Point) {
        let Some(host) = self.hosts.get_mut(host) else { return };
        if matches!(host.state, HostState::Ready | HostState::Running) {
            host.at = host.at.max(Some(point));
        }
    }

    /// Its report is on its way.
    pub fn reporting(&mut self, host: usize, now: Duration, clock: Estimate) {
        let Some(host) = self.hosts.get_mut(host) else { return };
        if matches!(host.state, HostState::Ready | HostState::Running) {
            (host.state, host.clock) = (HostState::Reporting, Some(clock));
            let until = now.saturating_add(ENDING_MAX);
            self.ending_until.get_or_insert(until);
        }
    }

    /// Its report is there. False if none was expected of it.
    pub fn reported(&mut self, host: usize) -> bool {
        let Some(host) = self.hosts.get_mut(host) else { return false };
        let expected = host.state == HostState::Reporting;
        if expected {
            host.state = HostState::Reported;
        }
        expected
    }

    /// It is gone, or sends what can't be used.
    pub fn gone(&mut self, host: usize, why: &str) {
        let Some(host) = self.hosts.get_mut(host) else { return };
        if !host.is_gone() && host.state != HostState::Reported {
            host.state = HostState::Gone(shown(why));
        }
    }

    /// Everybody is to stop. The first reason counts.
    pub fn stop(&mut self, why: &str, crossed: Option<(String, f64)>) {
        self.stop.get_or_insert_with(|| ToWorker::Stop { why: why.to_owned(), crossed });
    }

    /// The ramp is to wait, or to go on.
    pub fn pause(&mut self, paused: bool) {
        self.paused.0 = paused;
    }

    fn waiting(&self) -> usize {
        self.hosts.iter().filter(|host| !host.is_gone()).count()
    }

    /// What follows when it is `now`, and `unix_ns` by the coordinator's wall clock.
    pub fn advance(&mut self, now: Duration, unix_ns: u64) -> Vec<Output> {
        let mut out = Vec::new();
        self.look_for_lost(now, &mut out);
        match self.stage {
            Stage::Gathering => self.gather(now, &mut out),
            Stage::Preparing { until } => self.prepare(until, now, unix_ns, &mut out),
            Stage::Running => self.run(now, unix_ns, &mut out),
            Stage::Over => {}
        }
        out
    }

    fn look_for_lost(&mut self, now: Duration, out: &mut Vec<Output>) {
        let late = self.ending_until.is_some_and(|until| now >= until);
        for (index, host) in self.hosts.iter_mut().enumerate() {
            if host.is_gone() || host.state == HostState::Reported {
                continue;
            }
            let silent = now.saturating_sub(host.heard);
            let why = match late {
                true => Some(format!("its report did not come within {ENDING_MAX:?}")),
                false => (silent >= LOST_AFTER)
                    .then(|| format!("nothing was heard of it for {LOST_AFTER:?}")),
            };
            if let Some(why) = why {
                host.state = HostState::Gone(why);
                out.push(Output::Close(index));
            }
        }
    }

    fn finish(&mut self, outcome: Outcome, out: &mut Vec<Output>) {
        self.stage = Stage::Over;
        out.push(Output::Finished(outcome));
    }

    /// Tells everybody that there will be no run.
    fn call_off(&mut self, why: &str, outcome: Outcome, out: &mut Vec<Output>) {
        let there = self.hosts.iter().enumerate().filter(|(_, host)| !host.is_gone());
        let refusal = ToWorker::Refused { why: why.to_owned() };
        out.extend(there.map(|(index, _)| Output::Send(index, refusal.clone())));
        self.finish(outcome, out);
    }

    fn gather(&mut self, now: Duration, out: &mut Vec<Output>) {
        let came = self.waiting();
        if self.stop.is_some() {
            self.call_off("the coordinator was stopped", Outcome::Stopped, out);
        } else if came == self.options.hosts {
            self.hand_out(now, out);
        } else if now >= self.gather_until {
            if came < self.options.hosts_min.max(1) {
                let why = format!("too few hosts came: {came} of {}", self.options.hosts);
                return self.call_off(&why, Outcome::TooFew { came }, out);
            }
            out.push(Output::Say(format!(
                "{came} of {} hosts came in time: they take it all (--hosts-min {})",
                self.options.hosts, self.options.hosts_min
            )));
            self.hand_out(now, out);
        }
    }

    fn hand_out(&mut self, now: Duration, out: &mut Vec<Output>) {
        let there: Vec<usize> =
            (0..self.hosts.len()).filter(|i| !self.hosts[*i].is_gone()).collect();
        let capacities: Option<Vec<u64>> =
            there.iter().map(|index| self.hosts[*index].capacity).collect();
        // By what they carry only where all of them know it.
        let weights = capacities.unwrap_or_else(|| vec![1; there.len()]);
        if self.options.participants < there.len() {
            let participants = self.options.participants;
            let why = format!(
                "{participants} participants can't be divided among {} hosts: lower --hosts",
                there.len()
            );
            let outcome = Outcome::NotStarted { why: why.clone(), bad_configuration: true };
            return self.call_off(&why, outcome, out);
        }
        self.plan.share.weights.clone_from(&weights);
        for (number, index) in (0..).zip(there) {
            let host = &mut self.hosts[index];
            (host.number, host.state) = (Some(number), HostState::Preparing);
            let share = Share { number, ..self.plan.share.clone() };
            out.push(Output::Send(index, ToWorker::Share(share)));
        }
        self.stage = Stage::Preparing { until: now.saturating_add(PREPARE_MAX) };
    }

    fn prepare(&mut self, until: Duration, now: Duration, unix_ns: u64, out: &mut Vec<Output>) {
        if self.stop.is_some() {
            return self.call_off("the coordinator was stopped", Outcome::Stopped, out);
        }
        let lost = self.sharing().find_map(|(_, host)| Some((host, host.lost()?)));
        let (why, bad_configuration) = if let Some(why) = &self.refused {
            (why.clone(), true)
        } else if let Some((host, why)) = lost {
            (format!("{} was lost before the run began: {why}", host.name), false)
        } else if let Some((_, host)) = self
            .sharing()
            .find(|(_, host)| host.state == HostState::Preparing)
            .filter(|_| now >= until)
        {
            (format!("{} was not ready within {PREPARE_MAX:?}", host.name), false)
        } else if self.sharing().all(|(_, host)| host.state == HostState::Ready) {
            self.stage = Stage::Running;
            let sharing = self.hosts.iter_mut().filter(|host| host.number.is_some());
            sharing.for_each(|host| host.state = HostState::Running);
            return self.run(now, unix_ns, out);
        } else {
            return;
        };
        let outcome = Outcome::NotStarted { why: why.clone(), bad_configuration };
        self.call_off(&why, outcome, out);
    }

    fn run(&mut self, now: Duration, unix_ns: u64, out: &mut Vec<Output>) {
        let running = |host: &Host| host.number.is_some() && host.state == HostState::Running;
        if let Some(stop) = self.stop.clone().filter(|_| !self.stopped) {
            self.stopped = true;
            self.ending_until.get_or_insert(now.saturating_add(ENDING_MAX));
            let there = self.hosts.iter().enumerate().filter(|(_, host)| running(host));
            out.extend(there.map(|(index, _)| Output::Send(index, stop.clone())));
        }
        let (paused, told) = self.paused;
        if paused != told {
            self.paused.1 = paused;
            let there = self.hosts.iter().enumerate().filter(|(_, host)| running(host));
            out.extend(there.map(|(index, _)| Output::Send(index, ToWorker::Pause { paused })));
        }
        while let Some(point) = POINTS.get(self.released) {
            let mut there = self.hosts.iter().filter(|host| running(host)).peekable();
            if there.peek().is_none() || !there.all(|host| host.at >= Some(*point)) {
                break;
            }
            let ahead = if *point == Point::Start { START_AHEAD } else { GO_AHEAD };
            let go = ToWorker::Go {
                point: *point,
                at_ns: unix_ns.saturating_add(ahead.as_nanos() as u64),
            };
            let there = self.hosts.iter().enumerate().filter(|(_, host)| running(host));
            out.extend(there.map(|(index, _)| Output::Send(index, go.clone())));
            self.released += 1;
        }
        let over = |host: &Host| host.is_gone() || host.state == HostState::Reported;
        if self.sharing().all(|(_, host)| over(host)) {
            self.finish(Outcome::Over, out);
        }
    }
}

#[cfg(test)]
mod tests;
