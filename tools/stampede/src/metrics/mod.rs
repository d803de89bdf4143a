//! The run's figures for others, in base units and with bounded labels (worker, kind, reason; never a
//! peer): `--prometheus ADDR` serves them, `--otlp URL` pushes them.
//!
//! What is told is copied once a second from what the view shows. Whoever tells it does so on a thread
//! of its own, so that it reaches neither the workers nor the tasks of the run.

mod families;
mod otlp;
mod serve;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use stampede_run::Progress;

use families::{Family, Kind, Point, families};
pub(crate) use otlp::{Pusher, pusher};
pub(crate) use serve::{bind, serve};

/// What is told: the state of the run, as it was last told.
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

    /// Copies the state of a run that is over.
    pub(crate) fn end(&self, progress: &Progress) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = progress.clone();
    }

    /// The state of the run, as it was last told.
    fn progress(&self) -> Progress {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long the run had gone on when it was last told.
    fn elapsed(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed
    }
}

/// The text of a scrape (OpenMetrics).
fn exposition(exposed: &Arc<Exposed>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Arc::clone(exposed)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

/// No label set: of exemplars, which nothing here has.
type NoLabels = [(&'static str, &'static str); 0];

impl Collector for Exposed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        families(&self.progress()).iter().try_for_each(|family| encode(&mut encoder, family))
    }
}

/// Writes a family as OpenMetrics.
fn encode(encoder: &mut DescriptorEncoder<'_>, family: &Family) -> fmt::Result {
    let metric_type = match family.kind {
        Kind::Gauge => MetricType::Gauge,
        Kind::Counter(_) => MetricType::Counter,
    };
    let mut encoder = encoder.encode_descriptor(&family.name, family.help, None, metric_type)?;
    for Point { labels, value } in &family.points {
        if labels.is_empty() {
            sample(&mut encoder, family.kind, *value)?;
        } else {
            sample(&mut encoder.encode_family(labels)?, family.kind, *value)?;
        }
    }
    Ok(())
}

fn sample(encoder: &mut MetricEncoder<'_>, kind: Kind, value: f64) -> fmt::Result {
    match kind {
        Kind::Gauge => encoder.encode_gauge(&value),
        Kind::Counter(_) => encoder.encode_counter::<NoLabels, _, u64>(&value, None),
    }
}

#[cfg(test)]
mod table_tests;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use stampede_counters::{Counters, Figure, ReportCounters, Value};
    use stampede_report::running;
    use stampede_run::WorkerProgress;

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
