//! The counter table. Each counter is declared once, with [`counters!`]: name, meaning, unit, which
//! way is better, and whether it is a stream's, a peer's or a worker's. From that follow the
//! struct, its sums and differences, its JSON and schema, and by [`Counters::table`] the columns of
//! the CSV, the counts of each second, the metrics for Prometheus, the keys of thresholds and the
//! table in docs/reports.md.
//!
//! All structs are plain and flat: counting is an addition to a field.
//!
//! ```
//! use stampede_counters::{Counters, PacketCounters};
//!
//! let mut sum = PacketCounters { expected: 10, ..PacketCounters::default() };
//! let earlier = sum;
//! sum.merge(&PacketCounters { expected: 5, ..PacketCounters::default() });
//! assert_eq!(sum.since(&earlier).expected, 5);
//! assert_eq!(PacketCounters::table()[0].key, "expected");
//! ```

#![forbid(unsafe_code)]

mod columns;
mod data;
mod declare;
mod figure;
mod grown;
mod impair;
mod joins;
mod ledger;
mod media;
mod network;
mod publish;
mod recording;
mod recoveries;
mod row;
mod run;
mod signalling;
mod table;
#[cfg(test)]
mod tests;

pub use columns::Columns;
pub use data::{DataCounters, MessageCounters, OtherDataCounters, RpcCounters, RpcErrorCounters};
pub use figure::{Figure, Longest, Seconds, Value};
pub use grown::Grown;
pub use impair::ImpairCounters;
pub use joins::{JoinCounters, JoinGroups, JoinPaths, PendingAt, SessionCounters};
pub use ledger::{
    AttendanceCounters, CongestionCounters, ForwardCounters, LedgerTotals, PublishedCounters,
    SfuSignallingCounters, SfuWorkerCounters, UpstreamCounters,
};
pub use media::{
    FeedbackCounters, FrameCounters, FreezeCause, FreezeCauses, FreezeCounters, LatencyCounters,
    MediaCounters, PacketCounters, StreamsCounters,
};
pub use network::{
    GeneratorCounters, PeerDatagrams, StreamStats, TransportCounters, UdpStats,
    UdpUncategorisedCounters, UncategorisedCounters, WorkerUncategorisedCounters,
};
pub use publish::PublishCounters;
pub use recording::{AssemblerCounters, FileTiming, RecordingCounters};
pub use recoveries::{RecoveryCounters, RecoveryGroups};
pub use row::{Better, Counter, Field, Place, Scope, Unit};
pub use run::{
    EmbeddedGroups, PeerCounters, ReportCounters, RunCounters, SecondCounters, ServerGroups,
};
pub use signalling::{MetadataCounters, SignallingGroups, SpeakerCounters};
pub use table::{Counters, markdown};

/// `serde` and `schemars`, for what [`counters!`] makes.
#[doc(hidden)]
pub mod export {
    pub use {schemars, serde};
}
