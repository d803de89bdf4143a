//! The sections of the report, each a plain type.

mod cohorts;
mod data;
mod generator;
mod join;
mod media;
mod recording;
mod recoveries;
mod rpc;
mod run;
mod series;
mod server;
mod signalling;
mod streams;
mod verdict;

pub use cohorts::CohortFigures;
pub use data::{DataSection, MessageSection};
pub use generator::{GeneratorSection, WorkerSection};
pub use join::{JOINS_IMPLIED, JoinPaths, JoinSection, PendingAt, Phases, said};
pub use media::{CohortSection, ImpairmentSection, MediaSection, PublishSection};
pub use recording::RecordingSection;
pub use recoveries::{FaultRow, RecoveriesSection, RecoverySection};
pub use rpc::RpcSection;
pub use run::{
    ClockSection, EmbeddedOptions, FindSection, FindStep, HostSection, Machine, Options,
    RunSection, StageRow, TargetSection,
};
pub(crate) use series::Latencies;
pub use series::SeriesRow;
pub use server::{
    EmbeddedSection, Reconciliation, ServerMetrics, ServerSecond, ServerSection, ServerTarget,
};
pub use signalling::{MetadataSection, SignallingSection, SpeakersSection};
pub use streams::{STREAMS_WORST_MAX, StreamRow, worst};
pub use verdict::{Fault, Outcome, ThresholdRow, Verdict};
