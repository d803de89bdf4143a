//! One row a second out of the workers' snapshots.

use hdrhistogram::Histogram;
use stampede_counters::{Figure, Grown, RunCounters, SecondCounters};
use stampede_engine::{Second, WorkerReport, WorkerSnapshot};

use stampede_report::types::{SeriesRow, ServerSecond};

/// Most rows kept: a day of seconds. After that no more are added, and the report says so by its
/// last row's time.
const ROWS_MAX: usize = 86_400;

/// Rows being collected.
#[derive(Default)]
pub(crate) struct Series {
    rows: Vec<SeriesRow>,
    /// Of each worker what the last row had of it.
    last: Vec<Known>,
}

/// What is known of a worker's sums.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// How many measured windows it had begun: sums begin anew with each.
    windows: u32,
    counted: RunCounters,
}

/// What a worker did in one or more seconds on end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Part {
    second: Second,
    video_latency_us: Option<Histogram<u64>>,
}

impl Part {
    /// Adds what the worker did next.
    pub(crate) fn extend(&mut self, next: &Second, video_latency_us: Option<&Histogram<u64>>) {
        let sum = &mut self.second;
        let length = sum.length + next.length;
        let busy_s = |second: &Second| second.busy_ratio * second.length.as_secs_f64();
        *sum = Second {
            length,
            busy_ratio: match length.is_zero() {
                true => 0.0,
                false => (busy_s(sum) + busy_s(next)) / length.as_secs_f64(),
            },
            datagrams_in: sum.datagrams_in + next.datagrams_in,
            bytes_in: sum.bytes_in + next.bytes_in,
            datagrams_out: sum.datagrams_out + next.datagrams_out,
            bytes_out: sum.bytes_out + next.bytes_out,
            lateness_max: sum.lateness_max.max(next.lateness_max),
        };
        add(&mut self.video_latency_us, video_latency_us);
    }
}

/// Adds latencies to those there are.
fn add(sum: &mut Option<Histogram<u64>>, other: Option<&Histogram<u64>>) {
    match (sum.as_mut(), other) {
        // Fails only for values past the maximum; all histograms have the same.
        (Some(sum), Some(other)) => {
            let _ = sum.add(other);
        }
        (None, Some(other)) => *sum = Some(other.clone()),
        (_, None) => {}
    }
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
        [planned, joined]: [usize; 2],
        server: Option<ServerSecond>,
        snapshots: impl Iterator<Item = (&'a WorkerSnapshot, bool)> + Clone,
    ) -> SeriesRow {
        let mut row = SeriesRow {
            t_s: rounded(t_s),
            length_s: 1.0,
            planned: planned as u64,
            joined: joined as u64,
            server,
            ..SeriesRow::default()
        };
        for (snapshot, _) in snapshots.clone() {
            let known = Known { windows: snapshot.health.windows, counted: snapshot.counted };
            self.grow(&mut row, snapshot.worker, known);
            row.subscribers += snapshot.peers_receiving as u64;
        }
        let fresh = snapshots.filter(|(_, fresh)| *fresh).map(|(snapshot, _)| snapshot);
        let parts = fresh.map(|one| (&one.second, one.video_latency_second_us.as_ref()));
        self.keep(parts, &mut row);
        row
    }

    /// Adds what came after the last row, up to the workers' end at `t_s`: the rest of every sum,
    /// all accounts being closed by then. `unread` is, by worker, what the snapshots tell that came
    /// after those of the last row. Nobody is there any more.
    pub(crate) fn last(&mut self, t_s: f64, mut unread: Vec<Part>, workers: &[WorkerReport]) {
        let mut row = SeriesRow { t_s: rounded(t_s), ..SeriesRow::default() };
        for worker in workers {
            let index = worker.worker;
            let known = Known { windows: worker.health.windows, counted: worker.counted };
            self.grow(&mut row, index, known);
            if unread.len() <= index {
                unread.resize_with(index + 1, Part::default);
            }
            unread[index].extend(&worker.last.second, worker.last.video_latency_us.as_ref());
        }
        let parts = unread.iter().map(|part| (&part.second, part.video_latency_us.as_ref()));
        self.keep(parts, &mut row);
    }

    /// Adds to a row what the sums of a worker have grown by.
    fn grow(&mut self, row: &mut SeriesRow, worker: usize, now: Known) {
        if self.last.len() <= worker {
            self.last.resize_with(worker + 1, Known::default);
        }
        let known = &mut self.last[worker];
        let last = match known.windows == now.windows {
            true => known.counted,
            false => RunCounters::default(),
        };
        // What the end of a stream cut off is taken back: the sum may shrink, what is in rows stays.
        let counted = now.counted.at_least(&last);
        let grown = counted.since(&last);
        row.media.merge(&SecondCounters::of(&grown));
        row.counters.merge(&Grown::of(&grown));
        *known = Known { counted, ..now };
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
            add(&mut latency_us, of_worker);
        }
        row.set_latency(latency_us.as_ref());
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
    use std::time::Duration;

    use super::*;

    fn totals(expected: u64, missing: u64, unrecovered: u64) -> RunCounters {
        let mut counted = RunCounters::default();
        let packets = &mut counted.audio.packets;
        (packets.expected, packets.missing, packets.unrecovered) = (expected, missing, unrecovered);
        counted
    }

    /// What a row has of a worker whose sums are these.
    fn grown(series: &mut Series, worker: usize, windows: u32, counted: RunCounters) -> [u64; 3] {
        let mut row = SeriesRow::default();
        series.grow(&mut row, worker, Known { windows, counted });
        let SecondCounters { expected, missing, unrecovered, .. } = row.media;
        assert_eq!(row.counters.get("audio.packets.missing"), missing as f64);
        [expected, missing, unrecovered]
    }

    #[test]
    fn counters_begin_anew_with_a_measured_window_and_with_nothing_else() {
        let mut series = Series::default();
        assert_eq!(grown(&mut series, 1, 0, totals(100, 4, 0)), [100, 4, 0]);
        assert_eq!(grown(&mut series, 1, 0, totals(150, 4, 1)), [50, 0, 1]);
        // Higher than before, and yet all of it is new.
        assert_eq!(grown(&mut series, 1, 1, totals(160, 2, 0)), [160, 2, 0]);
        assert_eq!(grown(&mut series, 0, 0, totals(7, 0, 0)), [7, 0, 0]);
        assert_eq!(grown(&mut series, 1, 1, totals(200, 2, 0)), [40, 0, 0]);
    }

    #[test]
    fn what_the_end_takes_back_is_no_new_beginning() {
        let mut series = Series::default();
        grown(&mut series, 0, 1, totals(100, 4, 0));
        assert_eq!(grown(&mut series, 0, 1, totals(98, 2, 1)), [0, 0, 1]);
        assert_eq!(grown(&mut series, 0, 1, totals(103, 4, 1)), [3, 0, 0]);
    }

    #[test]
    fn a_day_of_rows_is_kept_and_no_more() {
        let mut series =
            Series { rows: vec![SeriesRow::default(); ROWS_MAX - 1], ..Series::default() };
        for t_s in [1.0, 2.0] {
            let mut row = SeriesRow { t_s, ..SeriesRow::default() };
            series.keep(std::iter::empty(), &mut row);
        }
        let rows = series.into_rows();
        assert_eq!((rows.len(), rows[ROWS_MAX - 1].t_s), (ROWS_MAX, 1.0));
    }

    fn second(length_ms: u64, datagrams_in: u64, busy_ratio: f64) -> Second {
        Second {
            length: Duration::from_millis(length_ms),
            datagrams_in,
            bytes_in: datagrams_in * 200,
            busy_ratio,
            ..Second::default()
        }
    }

    #[test]
    fn what_is_left_of_a_second_has_its_own_length_and_the_rates_of_it() {
        let mut series = Series::default();
        let mut row = SeriesRow { t_s: 7.25, ..SeriesRow::default() };
        let second = second(250, 50, 0.5);
        // The other worker had just ended a second.
        let parts = [(&second, None), (&Second::default(), None)];
        series.keep(parts.into_iter(), &mut row);
        assert_eq!((row.t_s, row.length_s, row.packets_in), (7.25, 0.25, 50));
        assert_eq!((row.bitrate_bps, row.cpu_cores), (320_000.0, 0.5));
        assert_eq!(series.into_rows(), [row]);
    }

    #[test]
    fn a_snapshot_after_the_last_row_is_part_of_what_is_left() {
        let latencies = |values: &[u64]| {
            let mut all = Histogram::new_with_max(600_000_000, 2).unwrap();
            values.iter().for_each(|value| all.record(*value).unwrap());
            all
        };
        let mut part = Part::default();
        part.extend(&second(1_000, 200, 0.4), Some(&latencies(&[10_000, 12_000])));
        part.extend(&second(250, 50, 0.9), None);
        let mut row = SeriesRow::default();
        let parts = [(&part.second, part.video_latency_us.as_ref())];
        Series::default().keep(parts.into_iter(), &mut row);
        // As many a second in both, so as many together; busy for 0.625 s of 1.25.
        assert_eq!((row.length_s, row.packets_in, row.bitrate_bps), (1.25, 250, 320_000.0));
        assert_eq!(row.cpu_cores, 0.5);
        assert!((9.9..12.2).contains(&row.latency_ms_p50.unwrap()), "{row:?}");
        part.extend(&Second::default(), Some(&latencies(&[90_000; 7])));
        assert_eq!(part.video_latency_us.map(|all| all.len()), Some(9));
    }

    #[test]
    fn without_workers_a_row_is_empty_but_there() {
        let mut series = Series::default();
        let row = series.second(1.0004, [4, 3], None, std::iter::empty());
        assert_eq!((row.t_s, row.length_s, row.joined, row.packets_in), (1.0, 1.0, 3, 0));
        assert_eq!(series.into_rows().len(), 1);
    }
}
