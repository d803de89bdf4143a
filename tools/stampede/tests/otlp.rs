//! `--otlp`: what a receiver is told is what the report says, and one that fails is no matter for the run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "tests may panic"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::future::ready;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::IntoResponse;
use common::fake;
use common::hosts::Hosts;
use common::{Ended, Running, alone, beside, run};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Text;
use opentelemetry_proto::tonic::metrics::v1::NumberDataPoint;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use prost::Message;
use serde_json::Value;
use stampede_counters::{Counters, ReportCounters};
use stampede_report::running;

/// A run that pushes once while it goes on, and once at its end.
const PUSHES_TWICE: [&str; 4] = ["run", "--subscribers=3", "--duration=7s", "--no-tui"];
/// One that is over before the first of them.
const PUSHES_ONCE: [&str; 4] = ["run", "--subscribers=2", "--duration=1s", "--no-tui"];
/// Longer than such a run takes where it waits for a receiver, and much shorter than for ever.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// What a receiver was told.
#[derive(Debug, Clone)]
struct Push {
    path: String,
    headers: HeaderMap,
    request: ExportMetricsServiceRequest,
}

/// A receiver that keeps what it is told, and answers with this.
fn receiver(status: StatusCode, answer: Vec<u8>) -> (SocketAddr, Arc<Mutex<Vec<Push>>>) {
    let pushes: Arc<Mutex<Vec<Push>>> = Arc::default();
    let kept = Arc::clone(&pushes);
    let take = move |uri: Uri, headers: HeaderMap, body: Bytes| {
        let request = ExportMetricsServiceRequest::decode(body).unwrap();
        kept.lock().unwrap().push(Push { path: uri.to_string(), headers, request });
        let content_type = [(header::CONTENT_TYPE, "application/x-protobuf")];
        ready((status, content_type, answer.clone()).into_response())
    };
    let app = Router::new().fallback(take);
    let address = fake::start(async move |listener| axum::serve(listener, app).await.unwrap());
    (address, pushes)
}

fn good() -> Vec<u8> {
    ExportMetricsServiceResponse::default().encode_to_vec()
}

/// Value and start of each point of the sums of a push, by name and labels; and of the gauges.
fn points(push: &Push, sums: bool) -> Vec<(String, BTreeMap<String, String>, f64, u64)> {
    let scopes = push.request.resource_metrics.iter().flat_map(|one| &one.scope_metrics);
    let mut all = Vec::new();
    for metric in scopes.flat_map(|scope| &scope.metrics) {
        let points: &[NumberDataPoint] = match metric.data.as_ref().unwrap() {
            Data::Sum(sum) if sums => &sum.data_points,
            Data::Gauge(gauge) if !sums => &gauge.data_points,
            _ => continue,
        };
        for point in points {
            let Some(Number::AsDouble(value)) = point.value else { panic!("{point:?}") };
            let labels = texts(&point.attributes);
            all.push((metric.name.clone(), labels, value, point.start_time_unix_nano));
        }
    }
    all
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |one: &KeyValue| match one.value.clone().and_then(|value| value.value) {
        Some(Text::StringValue(text)) => (one.key.clone(), text),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(text).collect()
}

/// What a push says of a counter of the report: the sum over the workers of what has its kind.
fn told(push: &Push, key: &str, metric: &str) -> Option<f64> {
    let kinds: Vec<&str> = key.split('.').collect();
    let of_kind = |labels: &BTreeMap<String, String>| {
        labels.get("kind").is_none_or(|kind| kinds.contains(&kind.as_str()))
    };
    let name = format!("stampede_{metric}");
    let points = points(push, true).into_iter();
    let values = points.filter(|(told, labels, ..)| *told == name && of_kind(labels));
    values.map(|(_, _, value, _)| value).reduce(|sum, value| sum + value)
}

/// Each counter that is a sum is told as the report has it; how many.
fn assert_sums(push: &Push, report: &Value) -> usize {
    let mut compared = 0;
    let table = ReportCounters::table().iter();
    for one in table.filter(|one| !one.falls && running::at_the_end(&one.key).is_none()) {
        let reported = report.pointer(&format!("/{}", one.key.replace('.', "/")));
        // What the report leaves out is nothing.
        let reported = reported.and_then(Value::as_f64).unwrap_or(0.0);
        let told = told(push, &one.key, &one.metric).unwrap_or(0.0);
        assert!((told - reported).abs() < 2e-3, "{}: {told}, reported {reported}", one.key);
        compared += usize::from(reported > 0.0);
    }
    compared
}

#[test]
fn the_last_push_tells_the_sums_of_the_report() {
    let _alone = alone();
    let (address, pushes) = receiver(StatusCode::OK, good());
    let (address, pem) = fake::tls(address);
    let dir = tempfile::tempdir().unwrap();
    let (ca, scenario) = (dir.path().join("ca.pem"), dir.path().join("s.toml"));
    fs::write(&ca, pem).unwrap();
    let url = format!("https://user:hunter2%21@{address}/base?token=hunter2");
    fs::write(&scenario, format!("otlp = \"{url}\"\nca = \"{}\"\n", ca.display())).unwrap();
    let args = [&PUSHES_TWICE[..], &["--embedded-drop=2%", "--scenario"]].concat();
    let args = [&args[..], &[scenario.to_str().unwrap()]].concat();
    let running = Running::start_with(&args, |command| {
        command.env("OTEL_EXPORTER_OTLP_HEADERS", "x-scope-orgid=one%20hunter2");
        command.env("OTEL_RESOURCE_ATTRIBUTES", "team=media,host.name=box%2C1");
    });
    let ended = running.end();
    ended.assert_code(0);
    let pushes = pushes.lock().unwrap().clone();
    let [.., before, last] = &pushes[..] else { panic!("{pushes:?}") };

    let compared = assert_sums(last, ended.report());
    assert!(compared > 30, "only {compared} sums were of more than nothing");
    assert!(told(last, "video.packets.unrecovered", "packets_unrecovered").is_some());
    let watched = told(last, "video", "played_seconds").unwrap();
    assert!((watched - ended.number("/video/played_s")).abs() < 2e-3, "{watched}");
    let joined = told(last, "join.joined", "participants_joined").unwrap();
    assert_eq!(joined, ended.number("/join/joined"));

    assert_eq!(last.path, "/base/v1/metrics?token=hunter2");
    assert_eq!(last.headers["x-scope-orgid"], "one hunter2");
    assert_eq!(last.headers[header::AUTHORIZATION], "Basic dXNlcjpodW50ZXIyIQ==");
    assert_eq!(last.headers[header::CONTENT_TYPE], "application/x-protobuf");
    let resource = last.request.resource_metrics[0].resource.as_ref().unwrap();
    let attributes = texts(&resource.attributes);
    assert_eq!(attributes["service.name"], "stampede");
    assert_eq!(attributes["service.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(ended.report()["run"]["id"], attributes["service.instance.id"]);
    assert_eq!((&*attributes["host.name"], &*attributes["team"]), ("box,1", "media"));

    assert_starts(before, last);
    assert_untold(&ended, "hunter2");
    assert!(!ended.stderr.contains("--otlp"), "nothing failed: {}", ended.stderr);
}

#[test]
fn of_many_hosts_the_coordinator_alone_pushes_and_what_it_pushes_is_the_whole() {
    let _alone = alone();
    let (address, pushes) = receiver(StatusCode::OK, good());
    let url = format!("http://{address}");
    let hosts = Hosts::start(&["--duration=7s", "--otlp", &url], &[]);
    let ended = hosts.coordinator.end();
    for worker in hosts.workers {
        let worker = worker.end();
        worker.assert_code(0);
        assert!(!worker.stderr.contains("otlp"), "{}", worker.stderr);
    }
    ended.assert_code(0);
    let pushes = pushes.lock().unwrap().clone();
    let [.., before, last] = &pushes[..] else { panic!("{pushes:?}") };
    // One every five seconds, and one at the end: nobody else pushes.
    let most = ended.number("/run/duration_s") / 5.0 + 2.0;
    assert!((pushes.len() as f64) <= most, "{} in {most}", pushes.len());
    for push in &pushes {
        let resource = push.request.resource_metrics[0].resource.as_ref().unwrap();
        let instance = &texts(&resource.attributes)["service.instance.id"];
        assert_eq!(ended.report()["run"]["id"], **instance, "that of the run, and of no part");
    }
    let compared = assert_sums(last, ended.report());
    assert!(compared > 30, "only {compared} sums were of more than nothing");
    let joined = told(last, "join.joined", "participants_joined").unwrap();
    assert_eq!(joined, 7.0, "those of both");
    let expected = |push: &Push| told(push, "video.packets.expected", "packets_expected").unwrap();
    assert!(expected(before) < expected(last));
}

/// Counters of joins start with the run, those of media with the measured window, in every push.
fn assert_starts(before: &Push, last: &Push) {
    let start = |push: &Push, name: &str| {
        let of = |point: &(String, _, _, u64)| (point.0 == name).then_some(point.3);
        points(push, true).iter().find_map(of).unwrap()
    };
    let (joined, received) = ("stampede_participants_joined", "stampede_packets_received");
    assert!(start(last, joined) < start(last, received));
    for name in [joined, received, "stampede_worker_datagrams_received"] {
        assert_eq!(start(before, name), start(last, name), "{name} began anew");
    }
    let gauges = points(last, false);
    assert!(gauges.iter().any(|(name, ..)| name == "stampede_worker_busy_ratio"), "{gauges:?}");
}

#[track_caller]
fn assert_untold(ended: &Ended, secret: &str) {
    let report = ended.report().to_string();
    for text in [&ended.stdout, &ended.stderr, &report] {
        assert!(!text.contains(secret), "{text}");
    }
}

/// A run that pushes to a receiver that fails: its own verdict, in time, with one line while it goes on
/// and one at its end, that all pushes failed; how many they were.
#[track_caller]
fn assert_no_matter(args: &[&str], address: SocketAddr, why: &str) -> usize {
    let url = format!("http://{address}");
    let mut running = Running::start(&[args, &["--otlp", &url]].concat());
    running.wait_for_end_within(END_TIMEOUT);
    let ended = running.end();
    ended.assert_code(0);
    assert_eq!(ended.report()["verdict"]["result"], "pass", "{:#?}", ended.verdict());
    let lines = ended.stderr.lines().filter(|line| line.contains("--otlp"));
    let lines: Vec<&str> = lines.collect();
    let [said, end] = &lines[..] else { panic!("{lines:?}") };
    assert!(said.contains("a push failed") && said.contains(why), "{said}");
    let (_, counted) = end.split_once("/v1/metrics: ").unwrap();
    let words: Vec<&str> = counted.split(' ').collect();
    let [failed, "of", pushes, "pushes", "failed;", ..] = words[..] else { panic!("{end}") };
    assert!(failed == pushes && counted.contains("the last one too"), "{end}");
    pushes.parse().unwrap()
}

#[test]
fn one_that_is_busy_is_said_once_and_counted() {
    let _beside = beside();
    let answer = b"ingestion is full".to_vec();
    let (address, pushes) = receiver(StatusCode::SERVICE_UNAVAILABLE, answer);
    let why = "HTTP status 503 Service Unavailable: ingestion is full; look at";
    let counted = assert_no_matter(&PUSHES_TWICE, address, why);
    // One that was under way at the end is not counted: the last one told the same.
    assert!(counted > 1 && counted <= pushes.lock().unwrap().len(), "{counted}");
}

#[test]
fn values_that_are_rejected_are_a_failure() {
    let _beside = beside();
    let partial_success = ExportMetricsPartialSuccess {
        rejected_data_points: 3,
        error_message: "out of order".to_owned(),
    };
    let answer = ExportMetricsServiceResponse { partial_success: Some(partial_success) };
    let (address, _) = receiver(StatusCode::OK, answer.encode_to_vec());
    let why = "it did not take 3 values: out of order";
    assert_no_matter(&PUSHES_ONCE, address, why);
}

/// A receiver that reads what it is told and then does this, on a thread for each connection.
fn bad_receiver(answer: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 64 << 10]);
                answer(stream);
            });
        }
    });
    address
}

#[test]
fn one_that_never_answers_is_not_waited_for() {
    let _beside = beside();
    let address = bad_receiver(|stream| {
        thread::sleep(END_TIMEOUT);
        drop(stream);
    });
    let why = "there was no answer within 5s";
    assert_no_matter(&PUSHES_ONCE, address, why);
}

const ENDLESS: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nConnection: close\r\n\r\n";

/// It answers slowly, and then more than `ANSWER_BYTES_MAX`.
#[test]
fn one_that_answers_for_ever_is_not_heard_to_the_end() {
    let _beside = beside();
    let address = bad_receiver(|mut stream| {
        let _ = stream.write_all(ENDLESS);
        let until = Instant::now() + END_TIMEOUT;
        while Instant::now() < until && stream.write_all(&[0]).is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    let why = "there was no answer within 5s";
    assert_no_matter(&PUSHES_ONCE, address, why);
    let address = bad_receiver(|mut stream| {
        let _ = stream.write_all(ENDLESS);
        let until = Instant::now() + END_TIMEOUT;
        while Instant::now() < until && stream.write_all(&[0; 4_096]).is_ok() {}
    });
    let why = "its answer is longer than 65536 bytes";
    assert_no_matter(&PUSHES_ONCE, address, why);
}

#[test]
fn what_can_t_be_pushed_to_is_refused_before_anybody_joins() {
    for (url, why) in [
        ("127.0.0.1:4318", "--otlp: it is no URL"),
        ("grpc://127.0.0.1:4317", "--otlp: it does not begin with http://"),
        ("http://user:hunter2@127.0.0.1:99999", "--otlp: it is no URL (invalid port number)"),
    ] {
        let ended = run(&["run", "--otlp", url]);
        assert_eq!(ended.code, Some(104), "{ended:?}");
        assert!(ended.stderr.contains(why) && ended.stderr.contains("4318"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    }
    let (name, text) = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization hunter2");
    let refused = Running::start_with(&["run", "--otlp", "http://127.0.0.1:1"], |command| {
        command.env(name, text);
    });
    let ended = refused.end();
    assert_eq!(ended.code, Some(104), "{ended:?}");
    assert!(ended.stderr.contains(&format!("{name}: entry 1 has no name")), "{}", ended.stderr);
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
}
