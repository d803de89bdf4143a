//! What is told of a run while it goes on: families of metrics, in base units and with bounded labels.
//! Whoever tells them writes them in a form of its own.

use stampede_counters::{Counters, Place};
use stampede_report::running::LiveWatch;
use stampede_report::types::WatchFigures;
use stampede_run::{Progress, WorkerProgress};

/// Most error kinds with a label of their own; the rest is added up as `other`.
const REASONS_MAX: usize = 32;

/// A metric, and its values by their labels.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Family {
    /// Its name, without the `_total` that a counter has on the wire.
    pub name: String,
    /// What it is, in the beginning of a sentence.
    pub help: &'static str,
    /// Whether it may fall.
    pub kind: Kind,
    /// What is known of it: one without labels, or one for each set of them.
    pub points: Vec<Point>,
}

/// Whether a metric may fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It may.
    Gauge,
    /// It only grows, from when it begins on.
    Counter(Since),
}

/// When a counter begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Since {
    /// With the run.
    Run,
    /// With the run, and anew with the measured window.
    Window,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Point {
    /// Names and values of its labels.
    pub labels: Labels,
    /// In the unit that the name of its family says, if any.
    pub value: f64,
}

/// Names and values of labels.
pub(super) type Labels = Vec<(&'static str, String)>;

/// All that is told of the state of a run.
pub(super) fn families(progress: &Progress) -> Vec<Family> {
    let mut all = Families::default();
    let counters = &progress.counters;
    joins(&mut all, progress);
    let kinds = [("video", counters.video), ("audio", counters.audio)];
    counted(&mut all, Since::Window, "", Some("kind"), &kinds);
    let rates = kinds
        .into_iter()
        .filter_map(|(kind, media)| media.packets.loss_rate().map(|rate| (kind, rate)));
    let help = "Share of expected packets lost for good since the measured window began";
    all.gauges("stampede_loss_ratio", help, "kind", rates);
    watched(&mut all, &progress.watch);
    counted(&mut all, Since::Window, "published_", None, &[("", counters.publish)]);
    let kinds = counters.data.named().map(|(name, counted)| (name, *counted));
    counted(&mut all, Since::Window, "data_", Some("kind"), &kinds);
    counted(&mut all, Since::Window, "data_", None, &[("", counters.data.other)]);
    counted(&mut all, Since::Window, "rpc_", None, &[("", counters.rpc)]);
    counted(&mut all, Since::Window, "impairment_", None, &[("", counters.impairment)]);
    workers(&mut all, &progress.workers);
    all.0
}

/// Families, one after the other.
#[derive(Default)]
struct Families(Vec<Family>);

impl Families {
    fn add(&mut self, name: &str, help: &'static str, kind: Kind, points: Vec<Point>) {
        self.0.push(Family { name: name.to_owned(), help, kind, points });
    }

    fn gauge(&mut self, name: &str, help: &'static str, value: f64) {
        self.add(name, help, Kind::Gauge, vec![Point { labels: Vec::new(), value }]);
    }

    fn gauges<'a>(
        &mut self,
        name: &str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) {
        self.add(name, help, Kind::Gauge, labelled(label, values));
    }

    fn counters<'a>(
        &mut self,
        since: Since,
        name: &str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) {
        self.add(name, help, Kind::Counter(since), labelled(label, values));
    }
}

/// Points told apart by one label.
fn labelled<'a>(
    label: &'static str,
    values: impl IntoIterator<Item = (&'a str, f64)>,
) -> Vec<Point> {
    let point =
        |(text, value): (&str, f64)| Point { labels: vec![(label, text.to_owned())], value };
    values.into_iter().map(point).collect()
}

/// Bounds the kinds of errors, commonest first.
fn reasons(mut errors: Vec<(String, u64)>) -> Vec<(String, u64)> {
    if errors.len() > REASONS_MAX {
        let rest = errors.split_off(REASONS_MAX - 1);
        errors.push(("other".to_owned(), rest.iter().map(|(_, count)| count).sum()));
    }
    errors
}

fn joins(all: &mut Families, progress: &Progress) {
    let help = "Participants connected now";
    all.gauge("stampede_participants_connected", help, progress.connected as f64);
    let help = "Subscribers of which a media packet arrived";
    all.gauge("stampede_subscribers_receiving", help, progress.second.subscribers as f64);
    counted(all, Since::Run, "join_", None, &[("", progress.joins.counted)]);
    counted(all, Since::Run, "recoveries_", None, &[("", progress.recoveries)]);
    let steps = progress.joins.pending_at.named().map(|(step, _, count)| (step, count as f64));
    let help = "Participants that are joining, by what they wait for";
    all.gauges("stampede_participants_joining", help, "step", steps);
    let errors = reasons(progress.errors.clone());
    let errors = errors.iter().map(|(reason, count)| (reason.as_str(), *count as f64));
    let help = "Failed and dropped tries";
    all.counters(Since::Run, "stampede_join_errors", help, "reason", errors);
}

/// The families of one table of counters, for a test of it.
#[cfg(test)]
pub(super) fn of_table<T: Counters>(prefix: &str, rows: &[(&str, T)]) -> Vec<Family> {
    let mut all = Families::default();
    counted(&mut all, Since::Window, prefix, Some("kind"), rows);
    all.0
}

/// Counters as they are declared. Names that are not declared begin with `prefix`. `rows` are told
/// apart by `label`, and without one there is one row. What is unknown is left out.
fn counted<T: Counters>(
    all: &mut Families,
    since: Since,
    prefix: &str,
    label: Option<&'static str>,
    rows: &[(&str, T)],
) {
    let mut table = Vec::new();
    T::describe_fields(&Place { metric: prefix.to_owned(), ..Place::default() }, &mut table);
    let rows: Vec<_> = rows.iter().map(|(name, row)| (*name, row.list())).collect();
    for (at, counter) in table.iter().enumerate() {
        let values = rows.iter().filter_map(|(name, row)| Some((*name, row[at].number()?)));
        let points: Vec<Point> = match label {
            Some(label) => labelled(label, values),
            None => values.map(|(_, value)| Point { labels: Vec::new(), value }).collect(),
        };
        if label.is_none() && points.is_empty() {
            continue;
        }
        let kind = if counter.falls { Kind::Gauge } else { Kind::Counter(since) };
        all.add(&format!("stampede_{}", counter.metric), counter.short_help(), kind, points);
    }
}

/// Watch time since the measured window began.
fn watched(all: &mut Families, watch: &LiveWatch) {
    let kinds = [("video", &watch.video), ("audio", &watch.audio)];
    let known = |of: fn(&WatchFigures) -> Option<f64>| {
        kinds.into_iter().filter_map(move |(kind, figures)| Some((kind, of(figures)?)))
    };
    let mut counters = |name: &str, help: &'static str, of: fn(&WatchFigures) -> Option<f64>| {
        all.counters(Since::Window, name, help, "kind", known(of));
    };
    let help = "Time in which tracks should have played";
    counters("stampede_expected_seconds", help, |one| one.expected_s);
    let help = "Time covered by frames that could be shown";
    counters("stampede_played_seconds", help, |one| one.played_s);
    let help = "Stretches without a playable frame";
    counters("stampede_interruptions", help, |one| Some(one.interruptions.count as f64));
    let help = "Length of all interruptions together";
    counters("stampede_interruption_seconds", help, |one| Some(one.interruptions.total_s));
    let help = "Played over expected time";
    all.gauges("stampede_watch_ratio", help, "kind", known(|one| one.watch_ratio));
    let help = "Subscribers with a track that is interrupted now";
    all.gauge("stampede_subscribers_interrupted", help, watch.interrupted as f64);
    let help = "Length of interruptions by their cause, as far as it is known now";
    let causes = kinds.into_iter().flat_map(|(kind, figures)| {
        let found = figures.interruptions.causes.named().filter(|(_, of)| of.count > 0);
        found.map(move |(cause, of)| Point {
            labels: vec![("kind", kind.to_owned()), ("cause", cause.to_owned())],
            value: of.total_s,
        })
    });
    let causes = causes.collect();
    all.add("stampede_interruption_cause_seconds", help, Kind::Gauge, causes);
}

type WorkerMetric = (&'static str, &'static str, fn(&WorkerProgress) -> f64);

const WORKER_GAUGES: [WorkerMetric; 3] = [
    ("stampede_worker_peers", "Peers of the worker", |worker| worker.peers as f64),
    ("stampede_worker_busy_ratio", "CPU time over wall time in the last second", |worker| {
        worker.busy_ratio
    }),
    ("stampede_worker_lateness_max_seconds", "Latest timer of the last second", |worker| {
        worker.lateness_max.as_secs_f64()
    }),
];

fn workers(all: &mut Families, workers: &[WorkerProgress]) {
    let named: Vec<_> = workers.iter().map(|one| (one.worker.to_string(), one)).collect();
    let values = |value: fn(&WorkerProgress) -> f64| {
        named.iter().map(move |(name, worker)| (name.as_str(), value(worker)))
    };
    for (name, help, value) in WORKER_GAUGES {
        all.gauges(name, help, "worker", values(value));
    }
    let (name, help) = ("stampede_worker_cpu_seconds", "CPU time of the worker");
    all.counters(Since::Window, name, help, "worker", values(|worker| worker.cpu.as_secs_f64()));
    let rows: Vec<_> = named.iter().map(|(name, one)| (name.as_str(), one.counted)).collect();
    counted(all, Since::Window, "worker_", Some("worker"), &rows);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_bounded() {
        let errors = (0..100).map(|number| (format!("kind-{number}"), 1)).collect();
        let bounded = reasons(errors);
        assert_eq!(bounded.len(), REASONS_MAX);
        assert_eq!(bounded.last(), Some(&("other".to_owned(), 100 - REASONS_MAX as u64 + 1)));
    }
}
