//! One row a second out of the workers' snapshots.

use std::time::Duration;

use hdrhistogram::Histogram;
use stampede_core::PeerCounters;
use stampede_engine::{Second, WorkerReport, WorkerSnapshot};

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
    pub(crate) fn of<'a>(workers: impl Iterator<Item = &'a PeerCounters>) -> Self {
        let mut sum = PeerCounters::default();
        workers.for_each(|counters| sum.merge(counters));
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

impl Totals {
    /// With no counter lower than here.
    fn at_least(self, least: &Self) -> Self {
        Self {
            expected: self.expected.max(least.expected),
            missing: self.missing.max(least.missing),
            repaired: self.repaired.max(least.repaired),
            late: self.late.max(least.late),
            unrecovered: self.unrecovered.max(least.unrecovered),
            freezes: self.freezes.max(least.freezes),
            frozen: self.frozen.max(least.frozen),
        }
    }
}

/// Growth of a counter that begins anew when the measured window begins.
fn growth(now: u64, before: u64) -> u64 {
    if now >= before { now - before } else { now }
}

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
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
        let now = Totals::of(snapshots.clone().map(|(snapshot, _)| &snapshot.totals));
        let mut row =
            SeriesRow { joined: joined as u64, server, length_s: 1.0, ..self.grown(t_s, now) };
        for (snapshot, _) in snapshots.clone() {
            row.subscribers += snapshot.peers_receiving as u64;
        }
        let fresh = snapshots.filter(|(_, fresh)| *fresh).map(|(snapshot, _)| snapshot);
        let parts = fresh.map(|one| (&one.second, one.video_latency_second_us.as_ref()));
        self.keep(parts, &mut row);
        (row, now)
    }

    /// Adds what was left of a second when the workers ended, at `t_s`: the rest of every sum, all
    /// accounts being settled by then. Nobody is there any more.
    pub(crate) fn last(&mut self, t_s: f64, workers: &[WorkerReport]) {
        let mut now = Totals::of(workers.iter().map(|worker| &worker.totals));
        let is_new = |worker: &WorkerReport| worker.health.window <= worker.last.second.length;
        if workers.iter().all(is_new) {
            // The measured window began after the last row.
            self.last = Totals::default();
        } else {
            // What the end cut off is taken back: no new beginning.
            now = now.at_least(&self.last);
        }
        let mut row = self.grown(t_s, now);
        let parts =
            workers.iter().map(|one| (&one.last.second, one.last.video_latency_us.as_ref()));
        self.keep(parts, &mut row);
    }

    /// A row of what the sums have grown by.
    fn grown(&mut self, t_s: f64, now: Totals) -> SeriesRow {
        let last = std::mem::replace(&mut self.last, now);
        SeriesRow {
            t_s: rounded(t_s),
            expected: growth(now.expected, last.expected),
            missing: growth(now.missing, last.missing),
            repaired: growth(now.repaired, last.repaired),
            late: growth(now.late, last.late),
            unrecovered: growth(now.unrecovered, last.unrecovered),
            freezes: growth(now.freezes, last.freezes),
            ..SeriesRow::default()
        }
    }

    /// Adds what the workers did in it, with the latencies of its video, and keeps it.
    fn keep<'a>(
        &mut self,
        parts: impl Iterator<Item = (&'a Second, Option<&'a Histogram<u64>>)>,
        row: &mut SeriesRow,
    ) {
        let mut latency_us: Option<Histogram<u64>> = None;
        let mut longest_s: f64 = 0.0;
        for (second, of_worker) in parts {
            let length_s = second.length.as_secs_f64();
            longest_s = longest_s.max(length_s);
            row.packets_in += second.datagrams_in;
            row.packets_out += second.datagrams_out;
            if length_s > 0.0 {
                row.bitrate_bps += second.bytes_in as f64 * 8.0 / length_s;
            }
            row.cpu_cores += second.busy_ratio;
            row.busy_ratio_max = row.busy_ratio_max.max(second.busy_ratio);
            let late_ms = second.lateness_max.as_secs_f64() * 1_000.0;
            row.lateness_ms_max = row.lateness_ms_max.max(late_ms);
            if let Some(of_worker) = of_worker {
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
        // Where no worker says, it is as long as it was to be.
        if longest_s > 0.0 {
            row.length_s = longest_s;
        }
        row.bitrate_bps = row.bitrate_bps.round();
        let SeriesRow { length_s, cpu_cores, busy_ratio_max, lateness_ms_max, .. } = row;
        for value in [length_s, cpu_cores, busy_ratio_max, lateness_ms_max] {
            *value = rounded(*value);
        }
        if self.rows.len() < ROWS_MAX {
            self.rows.push(row.clone());
        }
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
    fn what_the_end_takes_back_is_no_new_beginning() {
        let last = Totals { expected: 100, missing: 4, ..Totals::default() };
        let now = Totals { expected: 98, missing: 2, unrecovered: 1, ..Totals::default() };
        let mut series = Series { last, ..Series::default() };
        let row = series.grown(1.0, now.at_least(&last));
        assert_eq!((row.expected, row.missing, row.unrecovered), (0, 0, 1));
    }

    #[test]
    fn what_is_left_of_a_second_has_its_own_length_and_the_rates_of_it() {
        let last = Totals { expected: 100, missing: 4, unrecovered: 1, ..Totals::default() };
        let mut series = Series { last, ..Series::default() };
        let now = Totals { expected: 150, missing: 5, unrecovered: 3, ..Totals::default() };
        let mut row = series.grown(7.25, now);
        let second = Second {
            length: Duration::from_millis(250),
            datagrams_in: 50,
            bytes_in: 10_000,
            busy_ratio: 0.5,
            ..Second::default()
        };
        // The other worker had just ended a second.
        let parts = [(&second, None), (&Second::default(), None)];
        series.keep(parts.into_iter(), &mut row);
        assert_eq!((row.t_s, row.length_s, row.packets_in), (7.25, 0.25, 50));
        assert_eq!((row.bitrate_bps, row.cpu_cores), (320_000.0, 0.5));
        assert_eq!((row.expected, row.missing, row.unrecovered), (50, 1, 2));
        assert_eq!(series.into_rows(), [row]);
    }

    #[test]
    fn without_workers_a_row_is_empty_but_there() {
        let mut series = Series::default();
        let (row, _) = series.second(1.0004, 3, None, std::iter::empty());
        assert_eq!((row.t_s, row.length_s, row.joined, row.packets_in), (1.0, 1.0, 3, 0));
        assert_eq!(series.into_rows().len(), 1);
    }
}
