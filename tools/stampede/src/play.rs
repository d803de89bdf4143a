//! One run from its preparation to a report that is written and shown.

use std::net::SocketAddr;
use std::sync::Arc;

use stampede_output::files;
use stampede_report::out::{Of, Output, OutputError, take_stdout, write_all};
use stampede_report::types::Report;
use stampede_report::{Exit, Failure};
use stampede_run::{Controls, Prepared, Progress, RunData, prepare};
use stampede_scenario::{Scenario, load};

use crate::flags::RunFlags;
use crate::live::{Live, Mode};
use crate::metrics::{self, Exposed};
use crate::view::RunView;
use crate::{calibration, signals, summary};

/// How a run is shown while it goes on.
pub(crate) struct Show {
    /// On a screen, in lines, or not.
    pub mode: Mode,
    /// Where metrics are served.
    pub prometheus: Option<SocketAddr>,
}

impl Show {
    /// As the flags ask.
    pub(crate) fn of(flags: &RunFlags) -> Self {
        Self { mode: Mode::choose(flags.quiet, flags.no_tui), prometheus: flags.prometheus }
    }

    /// Nothing is shown.
    pub(crate) fn nothing() -> Self {
        Self { mode: Mode::Quiet, prometheus: None }
    }
}

/// Prepares a run. If it is refused, what was found of the machine until then is shown before.
///
/// # Errors
/// Exit code 104: what can't be used.
pub(crate) fn ready(scenario: Scenario, notices: Mode) -> Result<Prepared, Failure> {
    prepare(scenario).map_err(|refused| {
        tell(&refused.notices, notices);
        refused.failure
    })
}

fn tell(notices: &[String], mode: Mode) {
    if mode != Mode::Quiet {
        notices.iter().for_each(|notice| stampede_output::say(notice));
    }
}

/// Plays a prepared run. `notices` is how what was found of the machine is shown.
///
/// # Errors
/// What ended it before there was anything to report.
pub(crate) fn once(prepared: Prepared, show: &Show, notices: Mode) -> Result<RunData, Failure> {
    let listener = show.prometheus.map(metrics::bind).transpose()?;
    let exposed: Arc<Exposed> = Arc::default();
    let pushed = prepared.scenario.otlp.as_ref().map(|url| {
        let (id, network) = (&prepared.run_id, &prepared.network);
        metrics::pusher(url, id, network, Arc::clone(&exposed), |name| std::env::var_os(name))
    });
    let (pusher, pushes) = pushed.transpose()?.unzip();
    let told = listener.is_some() || pusher.is_some();
    tell(&prepared.notices, notices);
    if notices != Mode::Quiet
        && let Some(warning) = load_warning(&prepared)
    {
        stampede_output::say(&warning);
    }
    let controls = Arc::new(Controls::default());
    let (stopping, quiet) = (Arc::clone(&controls), show.mode == Mode::Quiet);
    let _armed = signals::arm(move || {
        let first = stopping.stop();
        if first && !quiet {
            signals::say_aside(
                "stopping: everybody leaves, then comes the summary (again to exit at once)",
            );
        }
        first
    });
    let captures = prepared.scenario.capture.is_some();
    let view = RunView {
        live: Live::start(show.mode, Arc::clone(&controls)),
        exposed: told.then(|| Arc::clone(&exposed)),
        listener,
        pusher,
        controls: Arc::clone(&controls),
        captures,
    };
    let played = stampede_run::play(prepared, controls, Box::new(view));
    if let Some(pushes) = pushes {
        if let Ok(data) = &played {
            exposed.end(&Progress::at_the_end(data));
        }
        pushes.wait();
    }
    played
}

/// A line for a run that asks for more than this machine can carry by its calibration.
fn load_warning(prepared: &Prepared) -> Option<String> {
    let calibration = calibration::load()?;
    let expected = load::expected(&prepared.scenario, &prepared.clips, &prepared.participants)?;
    let workers = prepared.cores.workers;
    calibration.warning(expected, prepared.scenario.resolution, workers, prepared.backend)
}

/// Writes and shows a judged report. The summary stays away from a stdout that a report goes to.
pub(crate) fn finish(mut report: Report, out: &[Output], quiet: bool) -> Exit {
    let interrupted = report.run.interrupted;
    // Of a run that a signal ended the next one is the second.
    let _armed = signals::arm(move || !interrupted && files::give_up());
    let errors = write_all(&mut report, out, Of::ThisRun);
    let shown = match take_stdout(out) {
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
