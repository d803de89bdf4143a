//! One run on many hosts: a coordinator and its workers as processes, against the embedded SFU.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "tests may panic"
)]

mod common;

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use common::hosts::{Hosts, SIX, TOKEN, coordinator, free_address, worker};
use common::{Ended, Running, Sfu, alone, stampede};
use rustix::process::Signal;
use serde_json::Value;

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// What `stampede report` makes of files.
fn merged(dir: &Path, files: &[PathBuf]) -> (Output, Value) {
    let out = dir.join("merged.json");
    let mut command = stampede();
    command.arg("report").args(files).arg("--out").arg(format!("json={}", out.display()));
    (command.output().unwrap(), read(&out))
}

fn number(report: &Value, pointer: &str) -> f64 {
    let value = report.pointer(pointer).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("no {pointer} in {report:#}"))
}

fn host<'a>(ended: &'a Ended, name: &str) -> &'a Value {
    let hosts = ended.report()["run"]["hosts"].as_array().unwrap();
    hosts.iter().find(|host| host["host"] == name).unwrap()
}

/// Which of two is called a is decided by who came first.
fn offset_ms(ended: &Ended, name: &str) -> (f64, f64) {
    let clock = &host(ended, name)["clock"];
    (clock["offset_ms"].as_f64().unwrap(), clock["bound_ms"].as_f64().unwrap())
}

/// As many as the coordinator lets try at a time.
const GREETINGS_MAX: usize = 64;

#[test]
fn who_says_nothing_keeps_workers_waiting_for_a_while_only() {
    let _alone = alone();
    let (sfu, address) = (Sfu::start(&[]), free_address());
    let dir = tempfile::tempdir().unwrap();
    let coordinator = coordinator(&sfu, &address, &SIX, &["--duration=1s"]);
    let dial = |_| loop {
        match TcpStream::connect(&address) {
            Ok(stream) => break stream,
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let mut silent: Vec<TcpStream> = (0..GREETINGS_MAX).map(dial).collect();
    let workers = ["a", "b"].map(|name| worker(&address, name, dir.path(), &[]));
    coordinator.end().assert_code(0);
    workers.into_iter().for_each(|worker| worker.end().assert_code(0));
    for stream in &mut silent {
        // It was left, and not asked again.
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    }
}

#[test]
fn two_hosts_make_one_run_whose_report_is_the_sum_of_theirs() {
    let _alone = alone();
    let hosts = Hosts::start(&["--duration=4s"], &["--clock-ahead-ms=3000"]);
    let (a, b, dir) = (hosts.json("a"), hosts.json("b"), hosts.dir.path().to_owned());
    let ended = hosts.coordinator.end();
    for worker in hosts.workers {
        worker.end().assert_code(0);
    }
    ended.assert_code(0);
    assert_eq!(ended.number("/join/joined"), 7.0);
    assert_eq!(ended.number("/video/tracks_expected"), 6.0);
    assert_eq!(ended.number("/video/tracks_received"), 6.0);
    // Whose clock is three seconds ahead is known, and what it stamped is right all the same.
    let (offset, bound) = offset_ms(&ended, "a");
    assert!(offset.abs() <= bound && bound < 5.0, "{offset} ± {bound}");
    let (offset, bound) = offset_ms(&ended, "b");
    assert!((offset + 3_000.0).abs() <= bound && bound < 5.0, "{offset} ± {bound}");
    let [own_a, own_b] = [read(&a), read(&b)];
    for own in [&own_a, &own_b] {
        assert!(number(own, "/video/latency_ms/count") > 100.0, "{own:#}");
        assert!(number(own, "/video/latency_ms/p50") < 100.0, "{own:#}");
        assert_eq!(number(own, "/video/latency_source/other_clock"), 0.0);
        // They began together, by one clock.
        let began = |report: &Value| {
            let text = report["run"]["started_at"].as_str().unwrap();
            humantime_ms(text)
        };
        assert!(began(&own_a).abs_diff(began(own)) < 500, "{own:#}");
    }
    let joined = [number(&own_a, "/join/joined"), number(&own_b, "/join/joined")];
    assert!(joined == [4.0, 3.0] || joined == [3.0, 4.0], "{joined:?}");
    // The sums of both, histogram for histogram.
    let order = match ended.report()["run"]["hosts"][0]["host"].as_str() {
        Some("a") => [a, b],
        _ => [b, a],
    };
    let (output, sums) = merged(&dir, &order);
    assert_eq!(output.status.code(), Some(0));
    let comparable = |report: &Value| {
        let mut report = report.clone();
        report["run"]["id"] = Value::Null;
        for host in report["run"]["hosts"].as_array_mut().unwrap() {
            host["clock"] = Value::Null;
        }
        report
    };
    assert_eq!(comparable(ended.report()), comparable(&sums));
    assert_percentiles_of_seconds(ended.report(), [&own_a, &own_b]);
}

/// Seconds of the whole have the percentiles of all hosts' frames.
fn assert_percentiles_of_seconds(whole: &Value, own: [&Value; 2]) {
    let rows = |report: &Value| report["series"].as_array().unwrap().clone();
    let known = |row: &&Value| row["latency_ms_p99"].is_number();
    let of_whole = rows(whole).iter().filter(known).count();
    let own = own.map(|report| rows(report).iter().filter(known).count());
    // What was left of the last second may be in the row of the one before.
    assert!(of_whole >= 4 && of_whole + 1 >= own[0].max(own[1]), "{of_whole} of {own:?}");
    let worst = |rows: Vec<Value>| {
        rows.iter().filter_map(|row| row["latency_ms_p50"].as_f64()).fold(0.0, f64::max)
    };
    assert!(worst(rows(whole)) < 100.0);
}

#[test]
fn stages_are_of_all_hosts() {
    let _alone = alone();
    let load = ["--video-publishers=1", "--stage=2s:4", "--stage=2s:6", "--stage=1s:3"];
    let hosts = Hosts::with(&load, &["--duration=1s"], &[]);
    let files = [hosts.json("a"), hosts.json("b")];
    let ended = hosts.coordinator.end();
    hosts.workers.into_iter().for_each(|worker| worker.end().assert_code(0));
    ended.assert_code(0);
    let stages = |report: &Value| report["run"]["stages"].as_array().unwrap().clone();
    let column = |rows: &[Value], key: &str| -> Vec<u64> {
        rows.iter().map(|row| row[key].as_u64().unwrap()).collect()
    };
    let rows = stages(ended.report());
    for key in ["subscribers", "subscribers_connected"] {
        assert_eq!(column(&rows, key), [4, 6, 3], "{key}: {rows:#?}");
    }
    assert_eq!((column(&rows, "joined"), column(&rows, "left")), (vec![4, 2, 0], vec![0, 0, 3]));
    let own: Vec<_> = files.iter().map(|file| stages(&read(file))).collect();
    for key in ["subscribers", "joined", "packets_expected"] {
        let sums: Vec<u64> = column(&own[0], key)
            .iter()
            .zip(column(&own[1], key))
            .map(|(one, other)| one + other)
            .collect();
        assert_eq!(column(&rows, key), sums, "{key}");
    }
    assert!(rows.iter().all(|row| row["packets_expected"].as_u64() > Some(100)), "{rows:#?}");
}

/// Milliseconds of a time of the day.
fn humantime_ms(text: &str) -> u64 {
    let (_, time) = text.trim_end_matches('Z').split_once('T').unwrap();
    let parts: Vec<f64> = time.split(':').map(|part| part.parse().unwrap()).collect();
    ((parts[0] * 60.0 + parts[1]) * 60_000.0 + parts[2] * 1_000.0) as u64
}

#[test]
fn a_host_that_is_killed_makes_the_run_invalid_and_its_last_figures_count() {
    let _alone = alone();
    let mut hosts = Hosts::start(&["--duration=8s"], &[]);
    hosts.coordinator.wait_for("hold");
    std::thread::sleep(Duration::from_secs(2));
    hosts.workers[1].signal(Signal::KILL);
    // Who comes back within the run is told that it can't.
    let back = worker(&hosts.address, "b", hosts.dir.path(), &[]).end();
    back.assert_code(1);
    assert!(back.stderr.contains("has begun"), "{}", back.stderr);
    let a = hosts.json("a");
    let ended = hosts.coordinator.end();
    let [first, _] = hosts.workers;
    first.end().assert_code(0);
    ended.assert_code(98);
    assert_eq!(ended.report()["verdict"]["result"], "invalid");
    assert!(ended.reasons().contains("b: the host was lost with its"), "{}", ended.reasons());
    assert!(ended.reasons().contains("its last snapshot"), "{}", ended.reasons());
    assert!(host(&ended, "b")["lost"].is_string() && host(&ended, "a")["lost"].is_null());
    let own = read(&a);
    assert_eq!(ended.number("/join/requested"), 7.0);
    let expected = |report: &Value| number(report, "/video/packets/expected");
    assert!(expected(ended.report()) > expected(&own), "what b had counted");
    assert!(number(&own, "/run/measured_s") > 7.0, "a held to the end");
    // With what it had measured.
    for hist in [
        "/video/latency_ms",
        "/video/latency_layers_ms/720p",
        "/audio/latency_ms",
        "/join/phases_ms/dtls",
        "/join/phases_ms/first_keyframe",
    ] {
        let count = |report: &Value| number(report, &format!("{hist}/count"));
        assert!(count(ended.report()) > count(&own), "{hist}: nothing of b");
    }
    assert_eq!(ended.number("/join/phases_ms/dtls/count"), 7.0);
    // What it had counted of frames is what it had measured, and no more than a second of it is lost.
    let measured = |report: &Value| {
        let source = report.pointer("/video/latency_source").unwrap().as_object().unwrap();
        ["abs_capture_time", "interpolated", "packet_trailer"]
            .iter()
            .map(|key| source.get(*key).and_then(Value::as_f64).unwrap_or(0.0))
            .sum::<f64>()
    };
    let of_b = |figure: f64, own: f64| figure - own;
    let told =
        of_b(ended.number("/video/latency_ms/count"), number(&own, "/video/latency_ms/count"));
    let counted = of_b(measured(ended.report()), measured(&own));
    assert!(told > 0.0 && (told - counted).abs() <= 0.05 * counted, "{told} of {counted}");
    drop(hosts.sfu);
}

#[test]
fn a_host_that_hangs_is_lost_and_holds_nobody_up() {
    let _alone = alone();
    let mut hosts = Hosts::start(&["--duration=9s", "--on-lost-host=continue"], &[]);
    hosts.coordinator.wait_for("hold");
    hosts.workers[1].signal(Signal::STOP);
    let ended = hosts.coordinator.end();
    hosts.workers[1].signal(Signal::CONT);
    let [first, second] = hosts.workers;
    first.end().assert_code(0);
    assert!(ended.reasons().contains("nothing was heard of it for 5s"), "{}", ended.reasons());
    assert!(host(&ended, "b")["lost"].is_string());
    // It finds out, and ends.
    let second = second.end();
    second.assert_code(1);
    assert!(second.stderr.contains("the coordinator was lost"), "{}", second.stderr);
}

#[test]
fn without_a_coordinator_the_load_ends_and_the_reports_are_there() {
    let _alone = alone();
    let mut hosts = Hosts::start(&["--duration=60s"], &[]);
    hosts.coordinator.wait_for("hold");
    std::thread::sleep(Duration::from_secs(1));
    hosts.coordinator.signal(Signal::KILL);
    let killed = Instant::now();
    let files = [hosts.json("a"), hosts.json("b")];
    for worker in hosts.workers {
        let ended = worker.end();
        ended.assert_code(1);
        assert!(ended.stderr.contains("the coordinator was lost"), "{}", ended.stderr);
    }
    assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
    let (output, sums) = merged(hosts.dir.path(), &files);
    assert_eq!(output.status.code(), Some(105), "it did not end as it should");
    assert_eq!(number(&sums, "/join/joined"), 7.0);
    let reasons = sums["verdict"]["reasons"].to_string();
    assert!(reasons.contains("the coordinator was lost"), "{reasons}");
}

#[test]
fn a_coordinator_that_is_interrupted_ends_all_in_order() {
    let _alone = alone();
    let mut hosts = Hosts::start(&["--duration=60s"], &[]);
    hosts.coordinator.wait_for("hold");
    hosts.coordinator.signal(Signal::INT);
    let ended = hosts.coordinator.end();
    ended.assert_code(105);
    assert_eq!(ended.number("/join/joined"), 7.0);
    for worker in hosts.workers {
        worker.end().assert_code(0);
    }
}

#[test]
fn a_threshold_on_the_whole_ends_the_run() {
    let _alone = alone();
    // Neither host has more than four.
    let hosts = Hosts::start(&["--duration=60s", "--threshold=join.joined<7 abort"], &[]);
    let ended = hosts.coordinator.end();
    for worker in hosts.workers {
        worker.end().assert_code(0);
    }
    ended.assert_code(99);
    let row = &ended.report()["thresholds"][0];
    assert_eq!((&row["ok"], &row["aborted"]), (&false.into(), &true.into()), "{row}");
    assert!(ended.number("/run/duration_s") < 40.0);
}

#[test]
fn a_search_is_of_all_hosts_together() {
    let _alone = alone();
    let load = ["--video-publishers=1", "--find=subscribers", "--until=join.joined<=4"];
    let bounds = ["--find-min=2", "--find-max=4", "--find-hold=1s", "--find-precision=0%"];
    let hosts = Hosts::with(&load, &bounds, &[]);
    let own = [hosts.json("a"), hosts.json("b")];
    let ended = hosts.coordinator.end();
    // They take part in each step, and hear of the end.
    hosts.workers.into_iter().for_each(|worker| worker.end().assert_code(0));
    ended.assert_code(0);
    let find = &ended.report()["find"];
    let steps = find["steps"].as_array().unwrap();
    let tried: Vec<_> = steps.iter().map(|step| (&step["subscribers"], &step["ok"])).collect();
    let (yes, no) = (&Value::from(true), &Value::from(false));
    // With the publisher there are five of four subscribers: no host has so many.
    assert_eq!(tried, [(&2.into(), yes), (&4.into(), no), (&3.into(), yes)], "{find:#}");
    assert_eq!((&find["highest_ok"], &find["first_broken"]), (&3.into(), &4.into()));
    assert_eq!(find["complete"], true);
    assert_eq!((ended.number("/join/joined"), ended.number("/join/requested")), (4.0, 4.0));
    assert_eq!(ended.report()["run"]["hosts"].as_array().unwrap().len(), 2);
    // Each host's own is of the last step.
    let joined: f64 = own.iter().map(|own| number(&read(own), "/join/joined")).sum();
    assert_eq!(joined, 4.0);
}

#[test]
fn a_search_ends_with_a_lost_host() {
    let _alone = alone();
    let load = ["--video-publishers=1", "--find=subscribers", "--until=video.loss_rate<1%"];
    let mut hosts = Hosts::with(&load, &["--find-min=4", "--find-hold=8s"], &[]);
    hosts.coordinator.wait_for("hold");
    hosts.workers[1].signal(Signal::KILL);
    let ended = hosts.coordinator.end();
    let [first, _] = hosts.workers;
    first.end().assert_code(0);
    ended.assert_code(98);
    assert!(ended.reasons().contains("a host was lost, b at 4 subscribers"), "{}", ended.reasons());
    let find = &ended.report()["find"];
    assert_eq!((&find["complete"], &find["highest_ok"]), (&false.into(), &Value::Null), "{find}");
}

#[test]
fn who_does_not_know_the_token_takes_no_part() {
    let refused = |token: Option<&str>, args: &[&str]| {
        let mut command = stampede();
        command.args(args).env_remove("STAMPEDE_TOKEN");
        if let Some(token) = token {
            command.env("STAMPEDE_TOKEN", token);
        }
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let address = free_address();
    let server = ["--url=ws://127.0.0.1:9", "--api-key=k", "--subscribers=4"];
    let listen = format!("--listen={address}");
    let run = [&["run", "--hosts=2", &listen, "--api-secret=hunter2"][..], &server].concat();
    let work = ["work", "--join", &address];
    for args in [&run[..], &work] {
        let (code, why) = refused(None, args);
        assert_eq!(code, Some(104), "{why}");
        assert!(why.contains("STAMPEDE_TOKEN is not set"), "{why}");
        let (code, why) = refused(Some("hunter2"), args);
        assert_eq!(code, Some(104), "{why}");
        assert!(why.contains("7 characters") && !why.contains("hunter2"), "{why}");
    }
    let mut coordinator =
        Running::start_with(&[&run[..], &["--hosts-wait=6s", "--no-tui"]].concat(), |command| {
            command.env("STAMPEDE_TOKEN", TOKEN);
        });
    coordinator.wait_for("waiting for 2 hosts");
    let other = TOKEN.replace('0', "x");
    let (code, why) = refused(Some(&other), &work);
    assert_eq!(code, Some(104), "{why}");
    assert!(why.contains("could not prove") && !why.contains(&other), "{why}");
    let ended = coordinator.end();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("0 hosts came in time"), "{}", ended.stderr);
    assert!(!ended.stderr.contains(TOKEN) && !ended.stderr.contains("hunter2"));
}

#[test]
fn a_file_that_a_host_lacks_is_named_before_anybody_joins() {
    let missing = "/nonexistent/clip.ivf";
    let hosts = Hosts::start(&["--video", missing], &[]);
    let ended = hosts.coordinator.end();
    ended_names(&ended.stderr, missing);
    assert_eq!(ended.code, Some(104), "{}", ended.stderr);
    for worker in hosts.workers {
        let ended = worker.end();
        assert!(matches!(ended.code, Some(1 | 104)), "{}", ended.stderr);
    }
}

fn ended_names(stderr: &str, file: &str) {
    assert!(stderr.contains(file), "{stderr}");
}
