//! What is known at the end of a run.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use stampede_engine::{BackendReport, EngineReport};
use stampede_report::facts::Early;
use stampede_report::threshold::Crossed;
use stampede_report::types::{SeriesRow, ServerMetrics, StageRow};
use stampede_scenario::{Clips, Scenario};
use stampede_sfu::Ledger;

use crate::audience::{Audience, Pauses};
use crate::clock::{RunClock, now};
use crate::joins::Joins;
use crate::machine;
use crate::preflight::cores::CoreSplit;
use crate::prepare::Prepared;
use crate::recoveries::Recoveries;
use crate::signalled::Signalled;

/// All that is known at the end of a run; what the report is made of.
pub struct RunData {
    /// What was to be run.
    pub(crate) scenario: Scenario,
    /// What was published.
    pub(crate) clips: Clips,
    /// Name of the run.
    pub(crate) id: String,
    /// Base of the room names.
    pub(crate) room: String,
    /// Seed in force.
    pub(crate) seed: u64,
    /// Both clocks.
    pub(crate) clock: RunClock,
    /// Where it joined; `None` if it did not come to that.
    pub(crate) url: Option<String>,
    /// It was reached over this machine's own loopback: there was no network in between.
    pub(crate) local: bool,
    /// From the first join to the last leave.
    pub(crate) duration: Duration,
    /// What was measured.
    pub(crate) measured: Measured,
    /// Ended by a signal.
    pub interrupted: bool,
    /// Why it ended early, if not by a signal.
    pub(crate) ended_early: Option<Early>,
    /// Why the server is taken to have been gone at the end.
    pub(crate) server_gone: Option<Early>,
    /// The threshold that ended it, if one did.
    pub(crate) crossed: Option<Crossed>,
    /// Joins.
    pub(crate) joins: Joins,
    /// Who came back, and how.
    pub(crate) recoveries: Recoveries,
    /// What participants told and heard of each other.
    pub(crate) signalled: Signalled,
    /// Who should see what, and who did.
    pub(crate) audience: Audience,
    /// Media.
    pub(crate) engine: Option<EngineReport>,
    /// UDP backend.
    pub(crate) backend: Option<BackendReport>,
    /// Core division.
    pub(crate) cores: CoreSplit,
    /// Cores allowed.
    pub(crate) cpus: usize,
    /// The embedded SFU's ledger at the end.
    pub(crate) ledger: Option<Ledger>,
    /// Why there is no ledger although the embedded SFU ran.
    pub(crate) ledger_missing: Option<String>,
    /// The same when the measured window began.
    pub(crate) ledger_begin: Option<Ledger>,
    /// The server's own figures.
    pub(crate) server_metrics: Option<ServerMetrics>,
    /// Files of the flight recorder.
    pub(crate) captured: Vec<PathBuf>,
    /// Why some of those that were asked for could not be written.
    pub(crate) capture_errors: Vec<String>,
    /// Seconds.
    pub(crate) series: Vec<SeriesRow>,
}

impl RunData {
    /// Of a run in which nothing has happened yet.
    pub(crate) fn new(prepared: &Prepared) -> Self {
        Self {
            id: prepared.run_id.clone(),
            room: prepared.participants.room_base.clone(),
            seed: prepared.seed,
            clock: RunClock::start_ahead(prepared.clock_offset_ns()),
            url: None,
            local: false,
            duration: Duration::ZERO,
            measured: Measured::default(),
            interrupted: false,
            ended_early: None,
            server_gone: None,
            crossed: None,
            joins: Joins::default(),
            recoveries: Recoveries::default(),
            signalled: Signalled::default(),
            audience: Audience::new(prepared.scenario.watch_rules, Pauses::default(), now()),
            engine: None,
            backend: None,
            cores: prepared.cores.clone(),
            cpus: prepared.cpus,
            ledger: None,
            ledger_missing: None,
            ledger_begin: None,
            server_metrics: None,
            captured: Vec::new(),
            capture_errors: Vec::new(),
            series: Vec::new(),
            scenario: prepared.scenario.clone(),
            clips: prepared.clips.clone(),
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
    pub(crate) fn now() -> Self {
        Self { at: now(), cpu: machine::cpu_time(), rss_bytes: machine::rss_bytes() }
    }
}

/// A run of this scenario in which nothing has happened.
#[cfg(any(test, feature = "testing"))]
pub fn nothing_happened(scenario: Scenario) -> RunData {
    RunData::new(&Prepared::for_tests(scenario))
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
    pub leaving: Option<Instant>,
    /// Participants connected at its end.
    pub connected: usize,
    /// One row for each stage that has ended; `None` without stages.
    pub stages: Option<Vec<StageRow>>,
}
