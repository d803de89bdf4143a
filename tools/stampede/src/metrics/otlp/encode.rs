//! Families as OTLP's metrics (<https://opentelemetry.io/docs/specs/otel/metrics/data-model/>): gauges,
//! and sums that grow from a start on.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use stampede_run::Progress;

use super::super::families::{Family, Kind, Labels, Point, Since, families};

/// Makes requests of the states of one run.
pub(super) struct Encoder {
    resource: Resource,
    /// What was told of each counter last.
    told: HashMap<(String, Labels), Told>,
    /// When that was.
    told_unix_ns: u64,
}

/// What was told of a counter.
#[derive(Debug, Clone, Copy)]
struct Told {
    value: f64,
    start_unix_ns: u64,
}

impl Encoder {
    /// For a run, with the attributes of who tells. Of those with the same name the last one counts.
    pub(super) fn new(attributes: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut all: Vec<KeyValue> = Vec::new();
        for (name, value) in attributes {
            all.retain(|one| one.key != name);
            all.push(attribute(&name, value));
        }
        let resource = Resource { attributes: all, ..Resource::default() };
        Self { resource, told: HashMap::new(), told_unix_ns: 0 }
    }

    /// The state of the run as a request; `None` before the run has started.
    pub(super) fn request(&mut self, progress: &Progress) -> Option<ExportMetricsServiceRequest> {
        let started = progress.started_at?;
        let at_unix_ns = unix_ns(started + progress.elapsed);
        let starts = [unix_ns(started), unix_ns(started + progress.counted_since)];
        let mut told = HashMap::new();
        let mut point = |name: &str, kind: Kind, Point { labels, value }: Point| {
            let mut start_unix_ns = 0;
            if let Kind::Counter(since) = kind {
                let key = (name.to_owned(), labels.clone());
                start_unix_ns =
                    self.start(&key, value, starts[usize::from(since == Since::Window)]);
                told.insert(key, Told { value, start_unix_ns });
            }
            NumberDataPoint {
                attributes: labels.into_iter().map(|(name, text)| attribute(name, text)).collect(),
                start_time_unix_nano: start_unix_ns,
                time_unix_nano: at_unix_ns,
                value: Some(Number::AsDouble(value)),
                ..NumberDataPoint::default()
            }
        };
        let metric = |Family { name, help, kind, points }: Family| {
            let data_points = points.into_iter().map(|one| point(&name, kind, one)).collect();
            let data = match kind {
                Kind::Gauge => Data::Gauge(Gauge { data_points }),
                Kind::Counter(_) => Data::Sum(Sum {
                    data_points,
                    aggregation_temporality: AggregationTemporality::Cumulative.into(),
                    is_monotonic: true,
                }),
            };
            let (description, data) = (help.to_owned(), Some(data));
            // No unit: Prometheus would put it behind a name that has it already.
            Metric { name, description, data, ..Metric::default() }
        };
        let metrics = families(progress).into_iter().map(metric).collect();
        (self.told, self.told_unix_ns) = (told, at_unix_ns);
        let scope = InstrumentationScope {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let scope_metrics = ScopeMetrics { scope: Some(scope), metrics, ..ScopeMetrics::default() };
        let resource_metrics = ResourceMetrics {
            resource: Some(self.resource.clone()),
            scope_metrics: vec![scope_metrics],
            ..ResourceMetrics::default()
        };
        Some(ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] })
    }

    /// When a counter began: with those of its kind, or, if it has fallen since by itself, when it was
    /// told before.
    fn start(&self, key: &(String, Labels), value: f64, start_unix_ns: u64) -> u64 {
        match self.told.get(key) {
            Some(told) if told.start_unix_ns < start_unix_ns => start_unix_ns,
            Some(told) if value < told.value => self.told_unix_ns,
            Some(told) => told.start_unix_ns,
            None => start_unix_ns,
        }
    }
}

fn attribute(name: &str, text: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(text)) });
    KeyValue { key: name.to_owned(), value, ..KeyValue::default() }
}

fn unix_ns(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use prost::Message;
    use stampede_counters::{Counters, Figure, ReportCounters, RunCounters, Value as Counted};
    use stampede_report::running;
    use stampede_run::WorkerProgress;

    use super::*;

    const STARTED_S: u64 = 1_700_000_000;

    /// A run that has gone on for so long, counting since a later moment.
    fn run(elapsed_s: u64, counted_since_s: u64, counters: RunCounters) -> Progress {
        Progress {
            started_at: Some(UNIX_EPOCH + Duration::from_secs(STARTED_S)),
            elapsed: Duration::from_secs(elapsed_s),
            counted_since: Duration::from_secs(counted_since_s),
            counters,
            workers: vec![WorkerProgress::default()],
            ..Progress::default()
        }
    }

    fn received(packets: u64) -> RunCounters {
        let mut counters = RunCounters::default();
        counters.video.packets.received = packets;
        counters
    }

    /// As a receiver decodes it.
    fn metrics(encoder: &mut Encoder, progress: &Progress) -> BTreeMap<String, Metric> {
        let bytes = encoder.request(progress).unwrap().encode_to_vec();
        let request = ExportMetricsServiceRequest::decode(&*bytes).unwrap();
        let [resource_metrics] = &request.resource_metrics[..] else { panic!("{request:?}") };
        let [scope_metrics] = &resource_metrics.scope_metrics[..] else { panic!("{request:?}") };
        let metrics = &scope_metrics.metrics;
        let named = metrics.iter().map(|metric| (metric.name.clone(), metric.clone()));
        let by_name: BTreeMap<_, _> = named.collect();
        assert_eq!(by_name.len(), metrics.len(), "a name is told twice");
        by_name
    }

    fn points(metric: &Metric) -> &[NumberDataPoint] {
        match metric.data.as_ref().unwrap() {
            Data::Gauge(gauge) => &gauge.data_points,
            Data::Sum(sum) => {
                assert!(sum.is_monotonic, "{metric:?}");
                let temporality = sum.aggregation_temporality();
                assert_eq!(temporality, AggregationTemporality::Cumulative, "{metric:?}");
                &sum.data_points
            }
            other => panic!("{other:?}"),
        }
    }

    /// Value and start of a counter: how many seconds after that of the run.
    fn counter(metrics: &BTreeMap<String, Metric>, name: &str, label: Option<&str>) -> (f64, f64) {
        let wanted = label.map(|text| Value::StringValue(text.to_owned()));
        let of = |point: &&NumberDataPoint| {
            let label = point.attributes.first().and_then(|label| label.value.clone());
            label.and_then(|label| label.value) == wanted
        };
        let point = points(&metrics[name]).iter().find(of).unwrap();
        let Some(Number::AsDouble(value)) = point.value else { panic!("{point:?}") };
        let start_s = point.start_time_unix_nano as f64 / 1e9 - STARTED_S as f64;
        assert!(point.start_time_unix_nano <= point.time_unix_nano, "{point:?}");
        (value, start_s)
    }

    #[test]
    fn every_counter_that_is_known_while_a_run_goes_on_is_told_as_what_it_is() {
        let mut all = run(10, 4, RunCounters::default());
        let mut known = || Some(Counted::Count(1));
        all.counters.set(&mut known);
        let metrics = metrics(&mut Encoder::new([]), &all);
        let table = ReportCounters::table().iter();
        let mut told = 0;
        for one in table.filter(|one| running::at_the_end(&one.key).is_none()) {
            let name = format!("stampede_{}", one.metric);
            let metric = metrics.get(&name).unwrap_or_else(|| panic!("{name} is not told"));
            let gauge = matches!(metric.data, Some(Data::Gauge(_)));
            assert_eq!(gauge, one.falls, "{name}");
            assert!(!metric.description.is_empty() && metric.unit.is_empty(), "{metric:?}");
            assert!(!points(metric).is_empty(), "{name}");
            told += 1;
        }
        assert!(told > 100, "only {told} are told");
        for name in metrics.keys() {
            assert!(name.starts_with("stampede_") && !name.ends_with("_total"), "{name}");
        }
        let at_unix_ns = (STARTED_S + 10) * 1_000_000_000;
        for point in metrics.values().flat_map(points) {
            assert_eq!(point.time_unix_nano, at_unix_ns, "{point:?}");
        }
    }

    #[test]
    fn counters_have_the_labels_and_the_starts_of_their_kind() {
        let mut progress = run(10, 4, received(200));
        progress.joins.counted.joined = 7;
        progress.errors = vec![("http_503".to_owned(), 3)];
        let metrics = metrics(&mut Encoder::new([]), &progress);
        let of = |name, label| counter(&metrics, name, label);
        assert_eq!(of("stampede_packets_received", Some("video")), (200.0, 4.0));
        assert_eq!(of("stampede_packets_received", Some("audio")), (0.0, 4.0));
        assert_eq!(of("stampede_worker_cpu_seconds", Some("0")), (0.0, 4.0));
        assert_eq!(of("stampede_participants_joined", None), (7.0, 0.0));
        assert_eq!(of("stampede_join_errors", Some("http_503")), (3.0, 0.0));
        let point = &points(&metrics["stampede_packets_received"])[0];
        assert_eq!(point.attributes[0].key, "kind");
        let gauge = &points(&metrics["stampede_participants_connected"])[0];
        assert_eq!((gauge.start_time_unix_nano, gauge.attributes.len()), (0, 0));
    }

    #[test]
    fn what_begins_anew_gets_a_new_start_and_keeps_it() {
        let mut encoder = Encoder::new([]);
        let mut told = |elapsed_s, counted_since_s, packets| {
            let progress = run(elapsed_s, counted_since_s, received(packets));
            let metrics = metrics(&mut encoder, &progress);
            counter(&metrics, "stampede_packets_received", Some("video"))
        };
        assert_eq!(told(5, 0, 1_000), (1_000.0, 0.0));
        assert_eq!(told(10, 0, 2_000), (2_000.0, 0.0));
        // More than before, but counted anew.
        assert_eq!(told(15, 11, 3_000), (3_000.0, 11.0));
        assert_eq!(told(20, 11, 4_000), (4_000.0, 11.0));
        // It fell by itself after it was told at 20 s.
        assert_eq!(told(25, 11, 3_999), (3_999.0, 20.0));
        assert_eq!(told(30, 11, 4_500), (4_500.0, 20.0));
        assert_eq!(told(35, 31, 1), (1.0, 31.0));
    }

    #[test]
    fn nothing_is_told_of_a_run_that_has_not_started() {
        assert!(Encoder::new([]).request(&Progress::default()).is_none());
    }

    #[test]
    fn of_two_attributes_with_one_name_the_last_one_counts() {
        let attributes = [("service.name", "stampede"), ("host.name", "a"), ("service.name", "b")];
        let attributes = attributes.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let resource = Encoder::new(attributes).resource;
        let expected = [("host.name", "a"), ("service.name", "b")];
        let expected = expected.map(|(name, text)| attribute(name, text.to_owned()));
        assert_eq!(resource.attributes, expected);
    }
}
