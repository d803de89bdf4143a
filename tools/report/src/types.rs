//! The JSON report (docs/reports.md). Units are in the key's last word; unknown is `null`, never 0.
//!
//! Reports are read back too. Within a section, a key that is not there is one that a later version
//! added: it reads as its type's default, so that stored reports stay readable.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stampede_counters::{Figure, PacketCounters};

pub use crate::sections::*;
pub use crate::watch::{WatchFigures, WatchSection};

/// Name and version of this format.
pub const SCHEMA: &str = "stampede.report.v1";

/// A whole report.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// What was run.
    pub run: RunSection,
    /// What it means.
    pub verdict: Verdict,
    /// Joins.
    pub join: JoinSection,
    /// How participants that had been connected came back.
    #[serde(default)]
    pub recoveries: RecoveriesSection,
    /// What was done to participants on purpose, a row for each `--fault`.
    #[serde(default)]
    pub faults: Vec<FaultRow>,
    /// What participants told and heard of each other over signalling.
    #[serde(default)]
    pub signalling: SignallingSection,
    /// Received video; `null` if nobody was to receive any.
    pub video: Option<MediaSection>,
    /// Received audio; `null` if nobody was to receive any.
    pub audio: Option<MediaSection>,
    /// The parts of the subscribers, each with figures of its own; empty without `[[cohort]]` and
    /// `--impair`.
    #[serde(default)]
    pub cohorts: Vec<CohortFigures>,
    /// Published media; `null` without publishers.
    pub publish: Option<PublishSection>,
    /// Data messages; `null` without `--data-publishers`.
    #[serde(default)]
    pub data: Option<DataSection>,
    /// Calls between participants; `null` without `--rpc-callers`.
    #[serde(default)]
    pub rpc: Option<RpcSection>,
    /// What was dropped or held back on purpose in this process (`--impair`, outages by `--fault`);
    /// `null` if nothing was to be, nor was.
    pub impairment: Option<ImpairmentSection>,
    /// Recordings; `null` without `--record`.
    pub recordings: Option<RecordingSection>,
    /// Files of the flight recorder, worst subscriber first; empty without `--capture`.
    #[serde(default)]
    pub captures: Vec<String>,
    /// The capacity search; `null` without `--find`. The other sections are of the highest step that
    /// held, or of the lowest one if none did.
    #[serde(default)]
    pub find: Option<FindSection>,
    /// The subscribers that could watch least; `null` if nobody was expected to watch anything.
    #[serde(default)]
    pub watch: Option<WatchSection>,
    /// The load box itself.
    pub generator: GeneratorSection,
    /// The server's own figures.
    pub server: ServerSection,
    /// One row a second, ramp included.
    pub series: Vec<SeriesRow>,
    /// What `--threshold` asked for, with what came out.
    #[serde(default)]
    pub thresholds: Vec<ThresholdRow>,
    /// The worst streams, at most [`crate::sections::STREAMS_WORST_MAX`], worst first.
    #[serde(default)]
    pub streams: Vec<StreamRow>,
    /// All streams there were; `streams` has the worst of them.
    #[serde(default)]
    pub streams_total: u64,
    /// All streams, for the CSV; not in the JSON.
    #[serde(skip)]
    pub all_streams: Vec<StreamRow>,
    /// Keys of counters that the file it was read from does not have, being of an earlier version:
    /// here they are 0.
    #[serde(skip)]
    pub lacks: Vec<&'static str>,
}

impl Report {
    /// Received packets of both kinds of media; `None` if nobody was to receive any.
    pub fn packets(&self) -> Option<PacketCounters> {
        let sections = self.video.iter().chain(&self.audio);
        PacketCounters::sum_of(sections.map(|section| section.packets))
    }
}
