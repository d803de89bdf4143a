//! One row a second out of the workers' snapshots.

use std::time::Duration;

use hdrhistogram::Histogram;
use stampede_core::PeerCounters;
use stampede_engine::WorkerSnapshot;

use crate::report::hist::Hist;
use crate::report::types::{SeriesRow, ServerSecond};

/// Most rows kept: a day of seconds. After that no more are added, and the report says so by its
/// last row's time.
const ROWS_MAX: usize = 86_400;

/// Rows being collected.
#[derive(Default)]
pub(crate) struct Series {
    rows: Vec<SeriesRow>,
    last: Totals,
}

/// What is differenced between rows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    /// Packets that should have come.
    pub expected: u64,
    /// Packets not there when passed over.
    pub missing: u64,
    /// Missing packets that came in time.
    pub repaired: u64,
    /// Missing packets that came too late.
    pub late: u64,
    /// Packets given up.
    pub unrecovered: u64,
    /// Freezes.
    pub freezes: u64,
    /// Length of the freezes together.
    pub frozen: Duration,
}

impl Totals {
    /// Sums over workers.
    pub(crate) fn of<'a>(snapshots: impl Iterator<Item = &'a WorkerSnapshot>) -> Self {
        let mut sum = PeerCounters::default();
        for snapshot in snapshots {
            sum.merge(&snapshot.totals);
        }
        let mut packets = sum.video.packets;
        packets.merge(&sum.audio.packets);
        Self {
            expected: packets.expected,
            missing: packets.missing,
            repaired: packets.repaired,
            late: packets.late,
            unrecovered: packets.unrecovered,
            freezes: sum.video.freezes.count,
            frozen: sum.video.freezes.total,
        }
    }
}

/// Growth of a counter that begins anew when the measured window begins.
fn growth(now: u64, before: u64) -> u64 {
    if now >= before { now - before } else { now }
}

impl Series {
    /// Adds the second that ends at `t_s` and gives it back. Of a worker that did not come to make
    /// a snapshot in it (`false`) nothing is known but its counts.
    pub(crate) fn second<'a>(
        &mut self,
        t_s: f64,
        joined: usize,
        server: Option<ServerSecond>,
        snapshots: impl Iterator<Item = (&'a WorkerSnapshot, bool)> + Clone,
    ) -> (SeriesRow, Totals) {
        let now = Totals::of(snapshots.clone().map(|(snapshot, _)| snapshot));
        let mut row = SeriesRow {
            t_s: (t_s * 1_000.0).round() / 1_000.0,
            joined: joined as u64,
            server,
            expected: growth(now.expected, self.last.expected),
            missing: growth(now.missing, self.last.missing),
            repaired: growth(now.repaired, self.last.repaired),
            late: growth(now.late, self.last.late),
            unrecovered: growth(now.unrecovered, self.last.unrecovered),
            freezes: growth(now.freezes, self.last.freezes),
            ..SeriesRow::default()
        };
        let mut latency_us: Option<Histogram<u64>> = None;
        for (snapshot, fresh) in snapshots {
            let second = &snapshot.second;
            row.subscribers += snapshot.peers_receiving as u64;
            if !fresh {
                continue;
            }
            row.packets_in += second.datagrams_in;
            row.packets_out += second.datagrams_out;
            row.bitrate_bps += second.bytes_in as f64 * 8.0;
            row.cpu_cores += second.busy_ratio;
            row.busy_ratio_max = row.busy_ratio_max.max(second.busy_ratio);
            let late_ms = second.lateness_max.as_secs_f64() * 1_000.0;
            row.lateness_ms_max = row.lateness_ms_max.max(late_ms);
            if let Some(of_worker) = &snapshot.video_latency_second_us {
                match &mut latency_us {
                    // Fails only for values past the maximum; all histograms have the same.
                    Some(sum) => {
                        let _ = sum.add(of_worker);
                    }
                    None => latency_us = Some(of_worker.clone()),
                }
            }
        }
        let latency = latency_us.as_ref().and_then(Hist::of_micros_as_ms);
        row.latency_ms_p50 = latency.as_ref().map(|latency| latency.p50);
        row.latency_ms_p95 = latency.as_ref().map(|latency| latency.p95);
        row.latency_ms_p99 = latency.map(|latency| latency.p99);
        for value in [&mut row.cpu_cores, &mut row.busy_ratio_max, &mut row.lateness_ms_max] {
            *value = (*value * 1_000.0).round() / 1_000.0;
        }
        self.last = now;
        if self.rows.len() < ROWS_MAX {
            self.rows.push(row.clone());
        }
        (row, now)
    }

    /// All rows.
    pub(crate) fn into_rows(self) -> Vec<SeriesRow> {
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_begin_anew_do_not_run_backwards() {
        assert_eq!(growth(10, 4), 6);
        assert_eq!(growth(3, 400), 3);
    }

    #[test]
    fn without_workers_a_row_is_empty_but_there() {
        let mut series = Series::default();
        let (row, _) = series.second(1.0004, 3, None, std::iter::empty());
        assert_eq!((row.t_s, row.joined, row.packets_in), (1.0, 3, 0));
        assert_eq!(series.into_rows().len(), 1);
    }
}
