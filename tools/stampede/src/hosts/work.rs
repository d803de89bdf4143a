//! `stampede work --join HOST:PORT`: this host's part of a run that another one coordinates.

use std::pin::Pin;
use std::sync::{Arc, mpsc as blocking};
use std::time::Duration;

use stampede_hosts::clock::Estimate;
use stampede_hosts::messages::Share;
use stampede_report::out::{Of, Output, OutputKind, write_all};
use stampede_report::threshold::Threshold;
use stampede_report::types::{DataSection, Report};
use stampede_report::{Exit, Failure};
use stampede_run::{
    Controls, Prepared, Progress, Together, View, machine, meeting, play, prepare_part, report_of,
};
use stampede_scenario::Scenario;
use stampede_scenario::values::Resolution;
use tokio::sync::mpsc;

use super::token;
use super::worker_link::{ForRun, FromRun, Shared, Way, start};
use crate::flags::{RunFlags, WorkFlags, outputs, parse_run};
use crate::live::{Live, Mode};
use crate::view::RunView;
use crate::{calibration, signals};

/// How long a report may take to be taken, once it was sent; then it is written here.
const TAKEN_MAX: Duration = Duration::from_secs(180);

/// The `work` command.
///
/// # Errors
/// What ended it before there was anything to report, or the coordinator is gone.
pub(crate) fn work(flags: WorkFlags) -> Result<Exit, Failure> {
    let token = token()?;
    let out = outputs(flags.out.clone(), &[])?;
    let own_name = machine::describe(0).hostname.unwrap_or_else(|| "host".to_owned());
    let name = flags.name.clone().unwrap_or(own_name);
    let mut took_part = false;
    loop {
        let way = Way {
            address: flags.join.clone(),
            name: name.clone(),
            capacity: capacity(&flags),
            wait: flags.wait,
            token: token.clone(),
        };
        match take_part(&flags, &out, way)? {
            // A search has no next step.
            Ended::Done if took_part => return Ok(Exit::Pass),
            Ended::Done => return Err(Failure::other("the search was over already")),
            Ended::Handed { again: false } => return Ok(Exit::Pass),
            Ended::Handed { again: true } => took_part = true,
        }
    }
}

/// How a connection ended.
enum Ended {
    /// The coordinator has the report of this host's part.
    Handed {
        /// Another run may follow.
        again: bool,
    },
    /// There was no run any more.
    Done,
}

/// One run.
fn take_part(flags: &WorkFlags, out: &[Output], way: Way) -> Result<Ended, Failure> {
    let name = way.name.clone();
    let shared = Arc::new(Shared::new(flags.clock_ahead_ns()));
    let (for_run, told) = blocking::channel();
    let (say, from_run) = mpsc::unbounded_channel();
    start(way, Arc::clone(&shared), for_run, from_run)
        .map_err(|error| Failure::other(format!("no thread for the connection: {error}")))?;
    let (share, clock) = match told.recv() {
        Ok(ForRun::Share(share, clock)) => (share, clock),
        Ok(ForRun::Dismissed { why, bad_configuration: true }) => return Err(Failure::config(why)),
        Ok(ForRun::Dismissed { why, .. } | ForRun::Lost(why)) => return Err(Failure::other(why)),
        Ok(ForRun::Done) => return Ok(Ended::Done),
        Ok(ForRun::Taken { .. }) | Err(_) => return Err(Failure::other("the connection ended")),
    };
    let out = out.to_vec();
    let part = Part { flags: flags.clone(), name, share, clock, out, shared, say, told };
    Ok(Ended::Handed { again: part.run()? })
}

/// Packets a second that this machine carries, where it was calibrated.
fn capacity(flags: &WorkFlags) -> Option<u64> {
    let per_core = calibration::load()?.packets_per_s_per_core(Resolution::High)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = flags.workers.map_or(cores, |workers| workers as usize);
    Some((per_core * workers as f64) as u64)
}

/// What this host is to do.
struct Part {
    flags: WorkFlags,
    name: String,
    share: Box<Share>,
    clock: Estimate,
    out: Vec<Output>,
    shared: Arc<Shared>,
    say: mpsc::UnboundedSender<FromRun>,
    told: blocking::Receiver<ForRun>,
}

impl Part {
    /// Plays it and hands its report in; true if another run may follow.
    fn run(self) -> Result<bool, Failure> {
        let controls = Arc::new(Controls::default());
        let stopping = Arc::clone(&controls);
        let _armed = signals::arm(move || stopping.stop());
        let mut promise = Vec::new();
        let report = self.prepared(&controls).and_then(|(prepared, until)| {
            promise = until;
            let view = self.view(&controls);
            play(prepared, controls, Box::new(view))
        });
        if let Ok(data) = &report {
            // Its sums are those of the report, which the coordinator gets after it.
            self.shared.tell(&Progress::at_the_end(data));
        }
        self.shared.over();
        let data = match report {
            Ok(data) => data,
            Err(failure) => {
                let _ = self.say.send(FromRun::Refused(failure.to_string()));
                // It is told once the coordinator knows, or will never know.
                let _ = self.told.recv_timeout(Duration::from_secs(5));
                return Err(failure);
            }
        };
        if let Ok(ForRun::Dismissed { why, .. }) = self.told.try_recv() {
            return Err(Failure::other(format!("the run was called off: {why}")));
        }
        let mut report = report_of(data, &promise);
        report.run.id = format!("{}-{}", self.share.run_id, self.share.number + 1);
        if let Some(machine) = &mut report.run.machine {
            machine.hostname = Some(self.name.clone());
        }
        let clock = self.shared.drifted(self.clock);
        if !clock.is_sure()
            && let Some(data) = &mut report.data
        {
            // Whose clock sent what is not known of messages.
            *data = DataSection::of(&data.counters(), [None, None, None]);
        }
        if self.clock.is_sure() && !clock.is_sure() {
            forget_latency(&mut report);
        }
        self.hand_in(report, clock)
    }

    /// This part of the run, checked here, and what a search promises of it.
    fn prepared(&self, controls: &Arc<Controls>) -> Result<(Prepared, Vec<Threshold>), Failure> {
        let flags = parse_run(&self.share.words, self.share.scenario.as_deref())?;
        let mut flags = RunFlags { out: Vec::new(), prometheus: None, otlp: None, ..flags };
        flags.workers = self.flags.workers.or(flags.workers);
        flags.cores = self.flags.cores.clone().or(flags.cores);
        if self.share.number != 0 {
            // One of the hosts asks the server.
            flags.server_metrics.clear();
        }
        let promise = flags.shape.find.until.clone().map_or_else(Vec::new, |until| until.0);
        let mut scenario = Scenario::new(flags.draft()?)?;
        // A threshold on the whole says nothing of a part: the coordinator looks.
        scenario.thresholds.iter_mut().for_each(|test| test.abort_after = None);
        let (meeting, others) = meeting();
        let together = Together {
            run_id: self.share.run_id.clone(),
            number: self.share.number,
            weights: self.share.weights.clone(),
            // Of a clock that is taken to be ahead, what is left of it to the real one.
            clock: Estimate {
                offset_ns: self.clock.offset_ns.saturating_add(self.flags.clock_ahead_ns()),
                ..self.clock
            },
            meeting,
        };
        let prepared = prepare_part(scenario, together).map_err(|refused| {
            self.tell(&refused.notices);
            refused.failure
        })?;
        self.tell(&prepared.notices);
        self.tell(&[format!(
            "host {} of {}: {} participants; the coordinator's clock is {:+.3} ms off, ±{:.3} ms",
            self.share.number + 1,
            self.share.weights.len(),
            prepared.participants_here(),
            self.clock.offset_ns as f64 / 1e6,
            self.clock.bound_ns as f64 / 1e6
        )]);
        let _ = self.say.send(FromRun::Ready(others, Arc::clone(controls), self.clock));
        match self.shared.lost() {
            Some(why) => Err(Failure::other(why)),
            None => Ok((prepared, promise)),
        }
    }

    fn tell(&self, lines: &[String]) {
        if !self.flags.quiet {
            lines.iter().for_each(|line| stampede_output::say(line));
        }
    }

    fn view(&self, controls: &Arc<Controls>) -> WorkView {
        let mode = if self.flags.quiet { Mode::Quiet } else { Mode::Lines };
        let shown = RunView {
            live: Live::start(mode, Arc::clone(controls)),
            exposed: None,
            listener: None,
            pusher: None,
            controls: Arc::clone(controls),
            captures: false,
        };
        WorkView { shown, shared: Arc::clone(&self.shared), told_s: 0.0 }
    }

    /// Gives the report to the coordinator, or writes it here if there is none any more.
    /// True if another run may follow.
    fn hand_in(mut self, mut report: Report, clock: Estimate) -> Result<bool, Failure> {
        let mut again = false;
        let mut lost = self.shared.lost();
        if lost.is_none() {
            let json = serde_json::to_vec(&report).map_err(Failure::other)?;
            let _ = self.say.send(FromRun::Report(json, clock));
            lost = match self.told.recv_timeout(TAKEN_MAX) {
                Ok(ForRun::Taken { again: more }) => {
                    again = more;
                    None
                }
                Ok(ForRun::Lost(why) | ForRun::Dismissed { why, .. }) => Some(why),
                Ok(ForRun::Share(..) | ForRun::Done) | Err(_) => {
                    Some("it did not take the report".to_owned())
                }
            };
        }
        if let Some(why) = &lost {
            report.verdict.reasons.insert(0, format!("the coordinator was lost: {why}"));
            if !self.out.iter().any(|out| out.kind == OutputKind::Json) {
                let path = format!("stampede-{}.json", report.run.id).into();
                self.out.push(Output { kind: OutputKind::Json, path });
            }
        }
        let errors = write_all(&mut report, &self.out, Of::ThisRun);
        if let Some(why) = lost {
            let files: Vec<String> = self.out.iter().map(ToString::to_string).collect();
            return Err(Failure::other(format!(
                "the coordinator was lost: {why}; the report of this host's part is in {} \
                 (`stampede report` merges those of all hosts)",
                files.join(", ")
            )));
        }
        match errors.first() {
            Some(error) => Err(Failure::other(error)),
            None => Ok(again),
        }
    }
}

/// Latencies from here and from other hosts are in the same figures: without a clock none is known.
fn forget_latency(report: &mut Report) {
    const WHY: &str = "the clocks of the hosts drifted more than 5 ms apart, or one was set";
    let of_cohorts = report.cohorts.iter_mut().flat_map(|row| [&mut row.video, &mut row.audio]);
    for section in [&mut report.video, &mut report.audio].into_iter().chain(of_cohorts).flatten() {
        section.latency_ms = None;
        section.latency_layers_ms.clear();
        section.latency_source.unknown_because = Some(WHY.to_owned());
    }
    for row in &mut report.series {
        row.set_latency(None);
    }
}

/// Shows this host's part here, and tells the coordinator of it once a second.
struct WorkView {
    shown: RunView,
    shared: Arc<Shared>,
    /// The second that was told last.
    told_s: f64,
}

impl View for WorkView {
    fn show(&mut self, progress: &Progress) {
        self.shared.shown();
        if progress.second.t_s > self.told_s {
            self.told_s = progress.second.t_s;
            self.shared.tell(progress);
        }
        self.shown.show(progress);
    }

    fn say(&self, text: &str) {
        self.shown.say(text);
    }

    fn beside(&mut self) -> Pin<Box<dyn Future<Output = ()>>> {
        self.shown.beside()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_by_a_clock_that_is_not_known_is_none() {
        let mut report = stampede_report::testing::report();
        let packets = report.video.as_ref().unwrap().packets;
        report.video.as_mut().unwrap().latency_ms =
            report.video.as_ref().unwrap().jitter_ms.clone();
        report.series[0].latency_ms_p50 = Some(3.0);
        forget_latency(&mut report);
        let video = report.video.as_ref().unwrap();
        assert!(video.latency_ms.is_none() && video.latency_layers_ms.is_empty());
        assert!(video.latency_source.unknown_because.as_ref().unwrap().contains("drifted"));
        assert_eq!((video.packets, report.series[0].latency_ms_p50), (packets, None));
    }
}
