//! The sections of the report, each a plain type.

mod cohorts;
mod generator;
mod join;
mod media;
mod recording;
mod run;
mod series;
mod server;
mod streams;
mod verdict;

pub use cohorts::CohortFigures;
pub use generator::{GeneratorSection, OddSection, WorkerSection};
pub use join::{JoinSection, PendingAt, Phases, SignallingSection};
pub use media::{
    CohortSection, Frames, FreezeCause, FreezeCauses, Freezes, ImpairmentSection, Injected,
    MediaSection, Packets, PublishSection,
};
pub use recording::{AssemblySection, RecordingSection};
pub use run::{
    EmbeddedOptions, FindSection, FindStep, HostSection, Machine, Options, RunSection, StageRow,
    TargetSection,
};
pub use series::SeriesRow;
pub use server::{
    EmbeddedSection, Reconciliation, ServerMetrics, ServerSecond, ServerSection, ServerTarget,
};
pub use streams::{STREAMS_WORST_MAX, StreamRow, worst};
pub use verdict::{Fault, Outcome, ThresholdRow, Verdict};
