//! `--prometheus ADDR`: the run's figures for Prometheus, in base units and with bounded labels
//! (worker, kind, reason; never a peer).
//!
//! What is shown is copied once a second from what the view shows; a scrape only formats it, on a thread
//! of its own, so it reaches neither the workers nor the tasks of the run.

mod serve;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use stampede_counters::{Counters, DataCounters, Place, RunCounters};

use stampede_report::running::LiveWatch;
use stampede_report::types::WatchFigures;
use stampede_run::{Progress, WorkerProgress};

pub(crate) use serve::{bind, serve};

/// Most error kinds with a label of their own; the rest is added up as `other`.
const REASONS_MAX: usize = 32;

/// What a scrape shows: the state of the run, as it was last told.
#[derive(Debug, Default)]
pub(crate) struct Exposed(Mutex<Progress>);

impl Exposed {
    /// Copies the state of the run, if a second is over since the last time.
    pub(crate) fn update(&self, progress: &Progress) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The first look is before the first second.
        if shown.elapsed.is_zero() || shown.second.t_s != progress.second.t_s {
            *shown = progress.clone();
        }
    }

    /// How long the run had gone on when it was last told.
    fn elapsed(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed
    }
}

/// Bounds the kinds of errors, commonest first.
fn reasons(mut errors: Vec<(String, u64)>) -> Vec<(String, u64)> {
    if errors.len() > REASONS_MAX {
        let rest = errors.split_off(REASONS_MAX - 1);
        errors.push(("other".to_owned(), rest.iter().map(|(_, count)| count).sum()));
    }
    errors
}

/// The text of a scrape (OpenMetrics).
fn exposition(exposed: &Arc<Exposed>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Arc::clone(exposed)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

/// A label set with one label.
type Label<'a> = [(&'static str, &'a str); 1];

/// Writes metrics one after the other.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        encoder.encode_counter::<Label<'_>, _, u64>(&value, None)
    }

    fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (text, value) in values {
            encoder.encode_family(&[(label, text)])?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (text, value) in values {
            let labels = [(label, text)];
            let mut encoder = encoder.encode_family(&labels)?;
            encoder.encode_counter::<Label<'_>, _, u64>(&value, None)?;
        }
        Ok(())
    }
}

impl Collector for Exposed {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let progress = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut writer = Writer(encoder);
        joins(&mut writer, &progress)?;
        received(&mut writer, &progress.counters)?;
        watched(&mut writer, &progress.watch)?;
        counted(&mut writer, "published_", None, &[("", progress.counters.publish)])?;
        data(&mut writer, &progress.counters.data)?;
        counted(&mut writer, "rpc_", None, &[("", progress.counters.rpc)])?;
        counted(&mut writer, "impairment_", None, &[("", progress.counters.impairment)])?;
        workers(&mut writer, &progress.workers)
    }
}

fn joins(writer: &mut Writer<'_>, progress: &Progress) -> fmt::Result {
    let gauges = [
        (
            "stampede_participants_connected",
            "Participants connected now",
            progress.connected as u64,
        ),
        (
            "stampede_subscribers_receiving",
            "Subscribers of which a media packet arrived",
            progress.second.subscribers,
        ),
    ];
    for (name, help, value) in gauges {
        writer.gauge(name, help, value as f64)?;
    }
    counted(writer, "join_", None, &[("", progress.joins.counted)])?;
    counted(writer, "recoveries_", None, &[("", progress.recoveries)])?;
    let steps = progress.joins.pending_at.named().map(|(step, _, count)| (step, count as f64));
    let help = "Participants that are joining, by what they wait for";
    writer.gauges("stampede_participants_joining", help, "step", steps)?;
    let errors = reasons(progress.errors.clone());
    let errors = errors.iter().map(|(reason, count)| (reason.as_str(), *count as f64));
    writer.counters("stampede_join_errors", "Failed and dropped tries", "reason", errors)
}

/// Counters as they are declared; they begin anew with the measured window. Names that are not
/// declared begin with `prefix`. `rows` are told apart by `label`, and without one there is one row.
/// What is unknown is left out.
fn counted<T: Counters>(
    writer: &mut Writer<'_>,
    prefix: &str,
    label: Option<&'static str>,
    rows: &[(&str, T)],
) -> fmt::Result {
    let mut table = Vec::new();
    T::describe_fields(&Place { metric: prefix.to_owned(), ..Place::default() }, &mut table);
    let rows: Vec<_> = rows.iter().map(|(name, row)| (*name, row.list())).collect();
    for (at, counter) in table.iter().enumerate() {
        let name = format!("stampede_{}", counter.metric);
        let values = rows.iter().filter_map(|(name, row)| Some((*name, row[at].number()?)));
        let help = counter.short_help();
        match (label, counter.falls) {
            (Some(label), false) => writer.counters(&name, help, label, values)?,
            (Some(label), true) => writer.gauges(&name, help, label, values)?,
            (None, falls) => {
                for (_, value) in values {
                    match falls {
                        false => writer.counter(&name, help, value)?,
                        true => writer.gauge(&name, help, value)?,
                    }
                }
            }
        }
    }
    Ok(())
}

fn received(writer: &mut Writer<'_>, counters: &RunCounters) -> fmt::Result {
    let kinds = [("video", counters.video), ("audio", counters.audio)];
    counted(writer, "", Some("kind"), &kinds)?;
    let rates = kinds
        .into_iter()
        .filter_map(|(kind, media)| media.packets.loss_rate().map(|rate| (kind, rate)));
    let help = "Share of expected packets lost for good since the measured window began";
    writer.gauges("stampede_loss_ratio", help, "kind", rates)
}

fn data(writer: &mut Writer<'_>, counters: &DataCounters) -> fmt::Result {
    let kinds = counters.named().map(|(name, counted)| (name, *counted));
    counted(writer, "data_", Some("kind"), &kinds)?;
    counted(writer, "data_", None, &[("", counters.other)])
}

/// Watch time since the measured window began.
fn watched(writer: &mut Writer<'_>, watch: &LiveWatch) -> fmt::Result {
    let kinds = [("video", &watch.video), ("audio", &watch.audio)];
    let known = |of: fn(&WatchFigures) -> Option<f64>| {
        kinds.into_iter().filter_map(move |(kind, figures)| Some((kind, of(figures)?)))
    };
    let help = "Time in which tracks should have played";
    writer.counters("stampede_expected_seconds", help, "kind", known(|one| one.expected_s))?;
    let help = "Time covered by frames that could be shown";
    writer.counters("stampede_played_seconds", help, "kind", known(|one| one.played_s))?;
    let help = "Played over expected time";
    writer.gauges("stampede_watch_ratio", help, "kind", known(|one| one.watch_ratio))?;
    let help = "Stretches without a playable frame";
    let counts = kinds.map(|(kind, figures)| (kind, figures.interruptions.count as f64));
    writer.counters("stampede_interruptions", help, "kind", counts)?;
    let help = "Length of all interruptions together";
    let lengths = kinds.map(|(kind, figures)| (kind, figures.interruptions.total_s));
    writer.counters("stampede_interruption_seconds", help, "kind", lengths)?;
    let help = "Subscribers with a track that is interrupted now";
    writer.gauge("stampede_subscribers_interrupted", help, watch.interrupted as f64)?;
    let help = "Length of interruptions by their cause, as far as it is known now";
    let name = "stampede_interruption_cause_seconds";
    let mut encoder = writer.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (kind, figures) in kinds {
        for (cause, of) in figures.interruptions.causes.named().filter(|(_, of)| of.count > 0) {
            let labels = [("kind", kind), ("cause", cause)];
            encoder.encode_family(&labels)?.encode_gauge(&of.total_s)?;
        }
    }
    Ok(())
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

fn workers(writer: &mut Writer<'_>, workers: &[WorkerProgress]) -> fmt::Result {
    let named: Vec<_> = workers.iter().map(|one| (one.worker.to_string(), one)).collect();
    let values = |value: fn(&WorkerProgress) -> f64| {
        named.iter().map(move |(name, worker)| (name.as_str(), value(worker)))
    };
    for (name, help, value) in WORKER_GAUGES {
        writer.gauges(name, help, "worker", values(value))?;
    }
    let cpu = values(|worker| worker.cpu.as_secs_f64());
    writer.counters("stampede_worker_cpu_seconds", "CPU time of the worker", "worker", cpu)?;
    let rows: Vec<_> = named.iter().map(|(name, one)| (name.as_str(), one.counted)).collect();
    counted(writer, "worker_", Some("worker"), &rows)
}

#[cfg(test)]
mod table_tests;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use stampede_counters::{Figure, ReportCounters, Value};
    use stampede_report::running;

    use super::*;

    /// Figures in which every metric has a value.
    fn exposed() -> Arc<Exposed> {
        let worker = WorkerProgress { busy_ratio: 0.25, ..WorkerProgress::default() };
        let worker = WorkerProgress { lateness_max: Duration::from_millis(4), ..worker };
        let mut progress = Progress {
            errors: vec![("http_\"503\"\n".to_owned(), 3)],
            workers: vec![worker],
            ..Progress::default()
        };
        progress.joins.counted.requested = 7;
        progress.counters.video.packets.expected = 200;
        progress.counters.video.packets.unrecovered = 1;
        progress.counters.video.frames.decodable = Some(9);
        progress.counters.audio.packets.expected = 100;
        progress.watch.video = stampede_report::testing::watched(&[(10, 4), (10, 0)]);
        progress.watch.interrupted = 1;
        Arc::new(Exposed(Mutex::new(progress)))
    }

    #[test]
    fn what_is_shown_is_copied_once_a_second() {
        let exposed = Exposed::default();
        let shown = |t_s, connected| {
            let elapsed = Duration::from_secs_f64(t_s + 0.25);
            let mut progress = Progress { connected, elapsed, ..Progress::default() };
            progress.second.t_s = t_s;
            exposed.update(&progress);
            exposed.0.lock().unwrap().connected
        };
        let looks = [(0.0, 2), (1.0, 3), (1.0, 4), (2.0, 5)];
        assert_eq!(looks.map(|(t_s, now)| shown(t_s, now)), [2, 3, 3, 5]);
    }

    fn names(text: &str) -> BTreeSet<&str> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| line.split(['{', ' ']).next()).collect()
    }

    #[test]
    fn values_have_help_type_and_labels() {
        let text = exposition(&exposed()).unwrap();
        for line in [
            "# TYPE stampede_packets_expected counter",
            "# HELP stampede_packets_expected Packets that should have arrived",
            "stampede_packets_expected_total{kind=\"video\"} 200.0",
            "stampede_packets_expected_total{kind=\"audio\"} 100.0",
            "stampede_loss_ratio{kind=\"video\"} 0.005",
            "stampede_watch_ratio{kind=\"video\"} 0.8",
            "stampede_played_seconds_total{kind=\"video\"} 16.0",
            "stampede_interruptions_total{kind=\"video\"} 1.0",
            "stampede_interruptions_total{kind=\"audio\"} 0.0",
            "stampede_interruption_cause_seconds{kind=\"video\",cause=\"silent\"} 4.0",
            "stampede_subscribers_interrupted 1.0",
            "stampede_participants_requested 7.0",
            "stampede_join_errors_total{reason=\"http_\\\"503\\\"\\n\"} 3.0",
            "stampede_worker_busy_ratio{worker=\"0\"} 0.25",
            "stampede_worker_lateness_max_seconds{worker=\"0\"} 0.004",
            "# EOF",
        ] {
            let there = text.lines().any(|found| found.starts_with(line));
            assert!(there, "{line} is not in\n{text}");
        }
        for name in names(&text) {
            assert!(name.starts_with("stampede_"), "{name}");
            let base = name.strip_suffix("_total").unwrap_or(name);
            assert!(text.contains(&format!("# HELP {base} ")), "{name} has no help");
            assert!(text.contains(&format!("# TYPE {base} ")), "{name} has no type");
        }
    }

    #[test]
    fn every_counter_that_is_known_while_a_run_goes_on_is_told() {
        let mut all = Progress { workers: vec![WorkerProgress::default()], ..Progress::default() };
        let mut known = || Some(Value::Count(1));
        all.counters.set(&mut known);
        let text = exposition(&Arc::new(Exposed(Mutex::new(all)))).unwrap();
        let names = names(&text);
        let table = ReportCounters::table().iter();
        for counter in table.filter(|one| running::at_the_end(&one.key).is_none()) {
            let total = if counter.falls { "" } else { "_total" };
            let name = format!("stampede_{}{total}", counter.metric);
            assert!(names.contains(&*name), "{name}, of {}, is not told", counter.key);
        }
    }

    #[test]
    fn what_is_unknown_is_left_out() {
        let text = exposition(&Arc::default()).unwrap();
        for name in [
            "stampede_loss_ratio{",
            "stampede_watch_ratio{",
            "stampede_frames_decodable_total",
            "{worker=",
        ] {
            assert!(!text.contains(name), "{name} in\n{text}");
        }
        assert!(text.contains("stampede_participants_joined_total 0"), "{text}");
    }

    #[test]
    fn reasons_are_bounded() {
        let errors = (0..100).map(|number| (format!("kind-{number}"), 1)).collect();
        let bounded = reasons(errors);
        assert_eq!(bounded.len(), REASONS_MAX);
        assert_eq!(bounded.last(), Some(&("other".to_owned(), 100 - REASONS_MAX as u64 + 1)));
    }

    #[test]
    fn the_dashboard_asks_only_for_metrics_that_exist() {
        let dashboard = include_str!("../../../grafana/stampede.json");
        let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
        let text = exposition(&exposed()).unwrap();
        let known = names(&text);
        let panels = dashboard["panels"].as_array().unwrap();
        let mut asked = 0;
        for target in panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten() {
            let query = target["expr"].as_str().unwrap();
            let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            for name in words.filter(|word| word.starts_with("stampede_")) {
                assert!(known.contains(name), "{name} of {query} is not exposed");
                asked += 1;
            }
        }
        assert!(asked > 10, "only {asked} metrics are asked for");
    }
}
