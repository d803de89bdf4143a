//! What workers counted, under the keys of the report.

use stampede_counters::{GeneratorCounters, RunCounters, WorkerUncategorisedCounters};
use stampede_engine::{WorkerReport, WorkerSnapshot};

/// So far, in the measured window.
pub(crate) fn of_snapshot(snapshot: &WorkerSnapshot) -> RunCounters {
    let health = &snapshot.health;
    let uncategorised =
        WorkerUncategorisedCounters { orphans: health.orphan_datagrams, ..Default::default() };
    let generator = GeneratorCounters::new(health.udp, snapshot.totals.transport, uncategorised);
    RunCounters::new(&snapshot.totals, generator)
}

/// In all of it.
pub(crate) fn of_report(worker: &WorkerReport) -> RunCounters {
    let uncategorised = WorkerUncategorisedCounters {
        orphans: worker.health.orphan_datagrams,
        snapshots_dropped: worker.snapshots_dropped,
        streams_left_out: worker.peers.iter().map(|peer| peer.report.streams_left_out).sum(),
    };
    let generator =
        GeneratorCounters::new(worker.health.udp, worker.totals.transport, uncategorised);
    RunCounters::new(&worker.totals, generator)
}

/// Sums over workers.
pub(crate) fn sum(workers: impl Iterator<Item = RunCounters>) -> RunCounters {
    workers.fold(RunCounters::default(), |mut sum, worker| {
        sum.merge(&worker);
        sum
    })
}
