//! `run --find`: one run after another, until it is known how many subscribers keep the promise.
//!
//! Each step joins afresh and is judged by its own full report, so that a promise can be about any
//! figure of it, and what one step leaves behind on a server does not count for the next.

use stampede_report::bounds::LATENESS_MS_P99_MAX;
use stampede_report::keys;
use stampede_report::layers::LayersSection;
use stampede_report::threshold::Threshold;
use stampede_report::types::{Fault, FindSection, FindStep, Outcome, Report};
use std::time::Duration;

use stampede_report::{Exit, Failure};
use stampede_run::report_of;
use stampede_scenario::Scenario;

use crate::flags::{RunFlags, run_outputs};
use crate::hosts::Coordination;
use crate::live::Mode;
use crate::play::{Show, finish, once, ready};
use crate::search::{Search, Step};

/// A search that can start.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FindPlan {
    /// What is promised: all of it.
    pub until: Vec<Threshold>,
    /// Fewest, per room.
    pub min: u32,
    /// Most, per room.
    pub max: u32,
    /// How long each step holds.
    pub hold: Duration,
    /// Share of the number that held.
    pub precision: f64,
}

impl FindPlan {
    /// The promise as one line.
    pub(crate) fn promise(&self) -> String {
        let exprs: Vec<&str> = self.until.iter().map(|test| test.expr.as_str()).collect();
        exprs.join(" && ")
    }

    /// The search that is asked for, if any.
    ///
    /// # Errors
    /// A contradiction, exit code 104.
    pub(crate) fn new(flags: &RunFlags) -> Result<Option<Self>, Failure> {
        let find = &flags.shape.find;
        if find.find.is_none() {
            for (given, flag) in [
                (find.until.is_some(), "--until"),
                (find.find_min.is_some(), "--find-min"),
                (find.find_max.is_some(), "--find-max"),
                (find.find_hold.is_some(), "--find-hold"),
                (find.find_precision.is_some(), "--find-precision"),
            ] {
                if given {
                    return Err(Failure::config(format!(
                        "{flag} belongs to a search: add --find subscribers"
                    )));
                }
            }
            return Ok(None);
        }
        let until = find.until.clone().ok_or_else(|| {
            Failure::config(
                "--find needs the promise that must hold: add --until 'video.loss_rate<0.001'",
            )
        })?;
        if until.0.iter().any(|test| test.abort_after.is_some()) {
            return Err(Failure::config("--until takes no 'abort': each step is held to its end"));
        }
        for (given, what) in [
            (flags.subscribers.is_some(), "--subscribers (use --find-min and --find-max)"),
            (flags.duration.is_some(), "--duration (use --find-hold)"),
            (
                flags.shape.room_drafts.iter().any(|room| room.subscribers.is_some()),
                "a [[room]]'s subscribers",
            ),
            (flags.shape.audience.room_sizes.is_some(), "--room-sizes"),
            (flags.record.is_some(), "--record"),
            (!flags.shape.stage.is_empty(), "--stage"),
        ] {
            if given {
                return Err(Failure::config(format!("--find can't be combined with {what}")));
            }
        }
        let (min, max) = (find.find_min.unwrap_or(FIND_MIN), find.find_max.unwrap_or(FIND_MAX));
        if min == 0 || min > max {
            return Err(Failure::config(format!(
                "--find-min {min} and --find-max {max}: give 1 or more, the smaller one first"
            )));
        }
        Ok(Some(Self {
            until: until.0,
            min,
            max,
            hold: find.find_hold.unwrap_or(Duration::from_secs(10)),
            precision: find.find_precision.unwrap_or(0.05),
        }))
    }
}

/// Fewest subscribers tried unless told otherwise.
const FIND_MIN: u32 = 10;
/// Most subscribers tried unless told otherwise.
const FIND_MAX: u32 = 10_000;

/// A worker busier than this when the promise breaks may have broken it: a statement about a server
/// needs some headroom at the generator.
const SUSPECT_BUSY_RATIO: f64 = 0.85;
/// The same for the lateness of its timers and datagrams.
const SUSPECT_LATENESS_MS_P99: f64 = LATENESS_MS_P99_MAX / 2.0;

/// Searches, writes and shows.
///
/// # Errors
/// What ended a step before there was anything to report.
pub(crate) fn command(flags: RunFlags, search_plan: &FindPlan) -> Result<Exit, Failure> {
    let mut search = Search::new(search_plan.min, search_plan.max, search_plan.precision);
    let mut section = FindSection {
        what: "subscribers".to_owned(),
        until: search_plan.promise(),
        hold_s: search_plan.hold.as_secs_f64(),
        steps: Vec::new(),
        highest_ok: None,
        first_broken: None,
        limit: None,
        complete: false,
    };
    let (mut held, mut broken): (Option<Report>, Option<Report>) = (None, None);
    let mode = Show::of(&flags).mode;
    let out = flags.out.clone();
    let mut cut_short = None;
    let mut by = By::new(&flags, search_plan)?;
    while let Some(subscribers) = search.next() {
        let first = section.steps.is_empty();
        let report = match by.play(&flags, search_plan, subscribers, first) {
            Ok(Some(report)) => report,
            Ok(None) => {
                cut_short = Some(CutShort::Interrupted);
                break;
            }
            // Hours may have gone into the steps before it.
            Err(failure) if by.is_of_hosts() && !first => {
                cut_short = Some(CutShort::NotPlayed { subscribers, why: failure.to_string() });
                break;
            }
            Err(failure) => return Err(failure),
        };
        cut_short = CutShort::of(&report, subscribers);
        if cut_short.is_some() {
            // Of a step that was not held nothing is concluded.
            broken = broken.or(Some(report));
            break;
        }
        let step = judge(&report, &search_plan.until, subscribers)?;
        if mode != Mode::Quiet {
            stampede_output::say(&line(&step));
        }
        search.tried(subscribers, step.ok);
        if step.ok {
            held = Some(report);
        } else if search.broken() == Some(subscribers) {
            section.limit = Some(step.fault);
            broken = Some(report);
        }
        section.steps.push(step);
    }
    section.highest_ok = search.held().map(u64::from);
    section.first_broken = search.broken().map(u64::from);
    section.complete = cut_short.is_none();
    let Some(mut report) = held.or(broken) else {
        // Stopped before anybody joined.
        by.end();
        return Ok(Exit::Interrupted);
    };
    report.run.interrupted = matches!(cut_short, Some(CutShort::Interrupted));
    let mut report = concluded(report, section);
    if let Some(cut_short) = cut_short {
        cut_short.conclude(&mut report);
    }
    // Hosts are waited for only once it is written.
    let exit = finish(report, &out, flags.quiet);
    by.end();
    Ok(exit)
}

/// Why a search did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
enum CutShort {
    /// By a signal.
    Interrupted,
    /// A host was lost, in words: what the others show without it is another load.
    HostLost(String),
    /// Hosts did not make a step, as where one was lost before it began.
    NotPlayed {
        /// It would have been of so many, per room.
        subscribers: u32,
        /// In words.
        why: String,
    },
}

impl CutShort {
    fn of(report: &Report, subscribers: u32) -> Option<Self> {
        if report.run.interrupted {
            return Some(Self::Interrupted);
        }
        let lost = report.run.hosts.iter().flatten().find(|host| host.lost.is_some())?;
        Some(Self::HostLost(format!("{} at {subscribers} subscribers a room", lost.host)))
    }

    fn conclude(self, report: &mut Report) {
        let reason = match self {
            Self::Interrupted => {
                stampede_report::judge::interrupt(&mut report.verdict);
                "interrupted by a signal: the search did not end".to_owned()
            }
            Self::HostLost(which) => invalid(report, &format!("a host was lost, {which}")),
            Self::NotPlayed { subscribers, why } => {
                let step = format!("the hosts did not play {subscribers} subscribers a room");
                invalid(report, &format!("{step}: {why}"))
            }
        };
        report.verdict.reasons.insert(0, reason);
    }
}

/// The generator did not get through; returns how that is told.
fn invalid(report: &mut Report, why: &str) -> String {
    (report.verdict.result, report.verdict.fault) = (Outcome::Invalid, Fault::Generator);
    format!("generator: the search did not end: {why}")
}

/// Who makes the steps.
enum By {
    /// This host alone.
    Here(Show),
    /// Several hosts together.
    Hosts(Box<Coordination>),
}

impl By {
    /// Checked before anybody is waited for.
    fn new(flags: &RunFlags, search: &FindPlan) -> Result<Self, Failure> {
        let Some(hosts) = flags.together.hosts else { return Ok(Self::Here(Show::of(flags))) };
        let fewest = step(flags, search, search.min)?.participants_total();
        if fewest < hosts as usize {
            return Err(Failure::config(format!(
                "--find-min {}: {fewest} participants can't be divided among {hosts} hosts: raise \
                 it, or lower --hosts",
                search.min
            )));
        }
        Ok(Self::Hosts(Box::new(Coordination::new(flags.clone(), hosts)?)))
    }

    fn is_of_hosts(&self) -> bool {
        matches!(self, Self::Hosts(_))
    }

    /// The report of a step; `None` if it was stopped before anybody joined.
    fn play(
        &mut self,
        flags: &RunFlags,
        search: &FindPlan,
        subscribers: u32,
        first: bool,
    ) -> Result<Option<Report>, Failure> {
        match self {
            Self::Here(show) => {
                let notices = if first { show.mode } else { Mode::Quiet };
                let prepared = ready(step(flags, search, subscribers)?, notices)?;
                if first {
                    // Checked once: the later steps write nothing there.
                    run_outputs(flags)?;
                }
                let data = once(prepared, show, notices)?;
                Ok(Some(report_of(data, &search.until)))
            }
            Self::Hosts(hosts) => hosts.run(Some(Step { subscribers, hold: search.hold })),
        }
    }

    /// There is no other step.
    fn end(self) {
        if let Self::Hosts(hosts) = self {
            hosts.dismiss();
        }
    }
}

/// The run of one step.
fn step(flags: &RunFlags, search: &FindPlan, subscribers: u32) -> Result<Scenario, Failure> {
    let scenario = Step { subscribers, hold: search.hold }.scenario(flags.clone())?;
    scenario.check_cohorts_of("--until", &search.until)?;
    Ok(scenario)
}

fn judge(report: &Report, promise: &[Threshold], subscribers: u32) -> Result<FindStep, Failure> {
    let report_figures = serde_json::to_value(report).map_err(Failure::other)?;
    let figure = |test: &Threshold| keys::value(&report_figures, &test.key);
    // A figure without a value keeps nothing.
    let keeps = |test: &Threshold| figure(test).is_some_and(|v| test.op.holds(v, test.limit));
    let kept = promise.iter().all(keeps);
    let figures = promise.iter().map(|test| (test.key.clone(), figure(test)));
    let all = report.join.counted.joined == report.join.counted.requested;
    let valid = report.verdict.result != Outcome::Invalid;
    // What nobody could watch is not held, whatever was promised of what did come.
    let sections = || report.video.iter().chain(&report.audio);
    let watched = sections().all(|section| !section.watch.missed().is_too_much());
    // Nor is it what subscribers asked for if most of it was smaller, unless the promise says how much
    // may be.
    let own = promise.iter().any(|test| test.bounds_layers());
    let mut layers = sections().filter_map(|section| section.layers.as_ref());
    let as_asked = own || !layers.any(LayersSection::is_mostly_lower);
    let ok = kept && all && valid && watched && as_asked;
    let mut reasons = report.verdict.reasons.clone();
    if !all {
        reasons.insert(0, report.join.balance());
    }
    Ok(FindStep {
        subscribers: u64::from(subscribers),
        ok,
        joined: report.join.counted.joined,
        figures: figures.collect(),
        busy_ratio_max: busy_ratio_max(report),
        fault: if ok { Fault::None } else { limit(report) },
        reasons,
    })
}

fn busy_ratio_max(report: &Report) -> f64 {
    report.generator.workers.iter().map(|worker| worker.busy_ratio).fold(0.0, f64::max)
}

/// What broke the promise. The generator is suspected first, and earlier than in a plain run.
fn limit(report: &Report) -> Fault {
    let late = report.generator.workers.iter().any(|worker| {
        let p99 = |hist: &Option<stampede_report::hist::Hist>| hist.as_ref().map_or(0.0, |h| h.p99);
        p99(&worker.lateness_ms).max(p99(&worker.batch_age_ms)) > SUSPECT_LATENESS_MS_P99
    });
    let busy = busy_ratio_max(report) > SUSPECT_BUSY_RATIO;
    match report.verdict.fault {
        _ if late || busy || report.verdict.result == Outcome::Invalid => Fault::Generator,
        Fault::None => Fault::Unknown,
        fault => fault,
    }
}

fn line(step: &FindStep) -> String {
    let word = if step.ok { "held" } else { "broke" };
    let why = match step.reasons.first() {
        Some(reason) if !step.ok => format!(": {reason}"),
        _ => String::new(),
    };
    format!("find: {} subscribers: the promise {word}{why}", step.subscribers)
}

/// The report with the outcome of the search as its verdict.
fn concluded(mut report: Report, section: FindSection) -> Report {
    let verdict = &mut report.verdict;
    match (section.highest_ok, section.first_broken, section.limit) {
        (held, Some(broken), Some(Fault::Generator)) => {
            verdict.result = Outcome::Invalid;
            verdict.fault = Fault::Generator;
            let held = held.map_or("no number".to_owned(), |held| held.to_string());
            let who = if report.run.hosts.is_some() { "a load host" } else { "this machine" };
            verdict.reasons.insert(
                0,
                format!(
                    "generator: {who} gave out at {broken} subscribers a room; the promise held \
                     with {held}, and how many more the server holds is not known"
                ),
            );
        }
        (Some(held), Some(broken), _) => verdict.reasons.insert(
            0,
            format!("the promise held with {held} subscribers a room and broke with {broken}"),
        ),
        (None, Some(broken), limit) => {
            verdict.result = Outcome::Fail;
            verdict.fault = limit.unwrap_or(Fault::Unknown);
            let reason = format!("the promise broke with {broken} subscribers a room, the fewest");
            verdict.reasons.insert(0, reason);
        }
        (Some(held), None, _) => {
            let word = if section.complete { ", the most allowed (--find-max)" } else { "" };
            let reason = format!("the promise held with {held} subscribers a room{word}");
            verdict.reasons.insert(0, reason);
        }
        (None, None, _) => {}
    }
    report.find = Some(section);
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_report::threshold::Thresholds;
    use stampede_report::types::Verdict;

    fn section(held: Option<u64>, broken: Option<u64>, limit: Option<Fault>) -> FindSection {
        FindSection {
            what: "subscribers".to_owned(),
            until: "video.loss_rate<0.001".to_owned(),
            hold_s: 1.0,
            steps: Vec::new(),
            highest_ok: held,
            first_broken: broken,
            limit,
            complete: true,
        }
    }

    fn report() -> Report {
        let scenario = Scenario::new(stampede_scenario::Draft::default()).unwrap();
        let mut report = report_of(stampede_run::nothing_happened(scenario), &[]);
        report.verdict = Verdict { result: Outcome::Pass, fault: Fault::None, reasons: Vec::new() };
        report
    }

    #[test]
    fn a_tired_generator_makes_the_search_invalid() {
        let tired = concluded(report(), section(Some(40), Some(50), Some(Fault::Generator)));
        assert_eq!(tired.verdict.result, Outcome::Invalid);
        assert!(tired.verdict.reasons[0].contains("gave out at 50"), "{:?}", tired.verdict);
        let server = concluded(report(), section(Some(40), Some(50), Some(Fault::Server)));
        assert_eq!(server.verdict.result, Outcome::Pass);
        let none = concluded(report(), section(None, Some(10), Some(Fault::Server)));
        assert_eq!((none.verdict.result, none.verdict.fault), (Outcome::Fail, Fault::Server));
        let all = concluded(report(), section(Some(100), None, None));
        assert!(all.verdict.reasons[0].contains("--find-max"), "{:?}", all.verdict);
    }

    #[test]
    fn a_search_whose_hosts_went_keeps_its_steps() {
        let mut found = concluded(report(), section(Some(40), None, None));
        let why = "1 hosts came in time, which is too few".to_owned();
        CutShort::NotPlayed { subscribers: 80, why }.conclude(&mut found);
        let Verdict { result, fault, reasons } = &found.verdict;
        assert_eq!((*result, *fault), (Outcome::Invalid, Fault::Generator));
        assert!(reasons[0].contains("80 subscribers a room: 1 hosts came"), "{reasons:?}");
        assert!(reasons[1].contains("held with 40"), "{reasons:?}");
        assert_eq!(found.find.unwrap().highest_ok, Some(40));
    }

    #[test]
    fn who_is_suspected_at_the_limit() {
        let mut broken = report();
        assert_eq!(limit(&broken), Fault::Unknown);
        broken.verdict.fault = Fault::Network;
        assert_eq!(limit(&broken), Fault::Network);
        broken.verdict.result = Outcome::Invalid;
        assert_eq!(limit(&broken), Fault::Generator);
    }

    #[test]
    fn a_step_holds_only_if_it_could_be_watched() {
        let watched = stampede_report::testing::watched;
        let lossless = "video.loss_rate<0.1%".parse::<Thresholds>().unwrap().0;
        let watchable = "video.watch_ratio>=99.5%".parse::<Thresholds>().unwrap().0;
        let mut run = report();
        let mut judged = |subscribers: &[(u64, u64)], promise: &[Threshold]| {
            let video = run.video.as_mut().unwrap();
            (video.loss_rate, video.watch) = (Some(0.0), watched(subscribers));
            judge(&run, promise, 10).unwrap()
        };
        assert!(judged(&[(1_000, 0)], &lossless).ok && judged(&[(1_000, 0)], &watchable).ok);
        // Half of them silent: nothing was lost, and nothing was seen.
        assert!(!judged(&[(1_000, 0), (1_000, 900)], &lossless).ok);
        assert!(judged(&[(1_000, 8)], &lossless).ok);
        let step = judged(&[(1_000, 8)], &watchable);
        assert!(!step.ok && step.figures["video.watch_ratio"] == Some(0.992), "{step:?}");
    }

    #[test]
    fn a_step_does_not_hold_by_smaller_pictures_than_asked_for() {
        let lossless = "video.loss_rate<0.1%".parse::<Thresholds>().unwrap().0;
        let own = "video.layers.lower_ratio<80%".parse::<Thresholds>().unwrap().0;
        let mut run = report();
        let mut judged = |lower_ratio, excused: Option<&str>, promise: &[Threshold]| {
            let video = run.video.as_mut().unwrap();
            (video.loss_rate, video.watch) =
                (Some(0.0), stampede_report::testing::watched(&[(1_000, 0)]));
            let layers = LayersSection {
                lower_ratio: Some(lower_ratio),
                excused: excused.map(str::to_owned),
                ..LayersSection::default()
            };
            video.layers = Some(layers);
            judge(&run, promise, 10).unwrap().ok
        };
        assert!(judged(0.3, None, &lossless) && !judged(0.7, None, &lossless));
        assert!(judged(0.7, Some("limited"), &lossless));
        assert!(judged(0.7, None, &own) && !judged(0.9, None, &own));
    }

    #[test]
    fn a_step_holds_only_if_everybody_joined() {
        let promise = "join.failed==0".parse::<Thresholds>().unwrap().0;
        let mut run = report();
        run.join.counted.requested = 11;
        run.join.counted.joined = 11;
        assert!(judge(&run, &promise, 10).unwrap().ok);
        run.join.counted.joined = 10;
        let step = judge(&run, &promise, 10).unwrap();
        assert!(!step.ok && step.reasons[0].contains("10 of 11"), "{step:?}");
    }
}
