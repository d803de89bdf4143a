//! Every fault provoked on purpose with the real binary, and named right: whose it is, and why, in
//! numbers.
//!
//! `STAMPEDE_SERIES=20` provokes each of them twenty times over, each time with another seed, and
//! says how often it was named right.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::HashMap;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::namespace::Namespace;
use common::relay::{Relay, rtp_payload_type};
use common::{Ended, Running, Sfu, asked, beside, run};
use rustix::process::Signal;
use serde_json::Value;

/// A short run that is no work for the machine.
const SMALL: [&str; 5] =
    ["run", "--subscribers=6", "--num-per-second=50", "--video-resolution=low", "--no-tui"];

/// Round under way of the series under way.
static ROUND: AtomicU64 = AtomicU64::new(0);

/// The small run with these flags, and with a seed and a length of its own in a series.
fn small(args: &[&str]) -> Vec<&'static str> {
    let leak = |arg: &str| &*Box::leak(arg.to_owned().into_boxed_str());
    let seed = leak(&format!("--seed={}", 7 + ROUND.load(Ordering::Relaxed)));
    let length = if asked().is_some() { "--duration=2s" } else { "--duration=4s" };
    // So that of what is lost something is lost for good.
    let unrepaired = "--no-audio-red";
    let own = args.iter().map(|arg| leak(arg));
    SMALL.iter().copied().chain([seed, length, unrepaired]).chain(own).collect()
}

/// Provokes a fault as often as `STAMPEDE_SERIES` says, once without it.
fn series(provoke: impl Fn()) {
    let _beside = beside();
    common::series(|round| {
        ROUND.store(round, Ordering::Relaxed);
        provoke();
    });
    ROUND.store(0, Ordering::Relaxed);
}

#[track_caller]
fn assert_fault(ended: &Ended, fault: &str, words: &[&str]) {
    assert_eq!(
        ended.report()["verdict"]["fault"],
        fault,
        "{:#?}\n{}",
        ended.verdict(),
        ended.stdout
    );
    let reasons = ended.reasons();
    for word in words {
        assert!(reasons.contains(word), "'{word}' is not in: {reasons}");
    }
}

fn sum(ended: &Ended, name: &str) -> f64 {
    let of = |kind| ended.number(&format!("/{kind}/packets/{name}"));
    of("video") + of("audio")
}

#[test]
fn a_generator_that_stood_still_makes_the_run_invalid() {
    series(|| {
        let mut running = Running::start(&small(&[]));
        running.wait_for(" hold ");
        running.signal(Signal::STOP);
        std::thread::sleep(Duration::from_millis(1_600));
        running.signal(Signal::CONT);
        let ended = running.end();
        ended.assert_code(98);
        assert_fault(&ended, "generator", &["stood still for "]);
        assert_eq!(ended.report()["verdict"]["result"], "invalid");
    });
}

#[test]
fn refused_joins_are_the_servers() {
    series(|| {
        // Of ten joins, the publisher's first, every fifth is refused.
        let ended = run(&small(&["--subscribers=9", "--embedded-flag=--refuse-joins=20%"]));
        ended.assert_code(1);
        assert_fault(&ended, "server", &["8 of 10 joined, 2 failed (2 x http_503: HTTP 503"]);
        assert_eq!(ended.number("/join/failed"), 2.0);
        assert_eq!(ended.number("/server/embedded/joins_refused"), 2.0);
    });
}

#[test]
fn packets_the_server_dropped_are_the_servers() {
    series(|| {
        let ended = run(&small(&["--embedded-impair=loss=4%,burst=2"]));
        assert_fault(&ended, "server", &["the embedded SFU dropped", "on purpose"]);
        assert!(ended.number("/server/embedded/measured/dropped") > 10.0);
        assert!(ended.report()["impairment"].is_null());
    });
}

#[test]
fn signalling_that_stalls_is_the_servers() {
    series(|| {
        let ended = run(&small(&[
            "--subscribers=10",
            "--num-per-second=2",
            "--duration=1s",
            "--embedded-flag=--stall-signalling=6s@1s",
        ]));
        assert_fault(&ended, "server", &["signalling stalled", "after TCP was connected"]);
        assert_eq!(ended.number("/join/joined"), 11.0, "late, but they joined");
    });
}

#[test]
fn keyframes_that_are_withheld_are_the_servers() {
    series(|| {
        let ended = run(&small(&[
            "--subscribers=3",
            "--duration=2s",
            "--embedded-flag=--withhold-keyframes",
        ]));
        ended.assert_code(1);
        assert_fault(
            &ended,
            "server",
            &["of 3 of 6 subscribed tracks nothing came", "on 3 tracks"],
        );
        assert_eq!(ended.number("/video/tracks_received"), 0.0);
        assert_eq!(ended.number("/audio/tracks_received"), 3.0);
        assert_eq!(ended.number("/server/embedded/totals/plis_relayed"), 0.0);
    });
}

#[test]
fn packets_lost_on_the_way_up_are_the_publishers() {
    series(|| {
        let ended = run(&small(&["--duration=6s", "--embedded-flag=--drop-upstream=6%"]));
        assert_fault(
            &ended,
            "publisher",
            &["receiver reports say that", "never reached the embedded SFU"],
        );
        // What was repaired before the report is not in it.
        assert!(ended.number("/publish/upstream_loss_rate") > 0.0);
        let workers = ended.report()["server"]["embedded"]["workers"].as_array().unwrap();
        assert!(workers[0]["upstream_dropped"].as_u64().unwrap() > 20);
        // The publisher repaired its video when it was asked to; Opus is not repaired.
        assert!(ended.number("/publish/retransmitted") > 0.0);
        assert!(ended.number("/audio/packets/unrecovered") > 0.0);
    });
}

#[test]
fn packets_that_vanish_between_server_and_us_are_the_networks() {
    series(|| {
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        // One in twenty.
        let relay = Relay::start(move || {
            let (counter, mut packets) = (Arc::clone(&counter), 0);
            Box::new(move |datagram| {
                let rtp = rtp_payload_type(datagram).is_some();
                packets += u64::from(rtp);
                let lost = rtp && packets % 20 == 0;
                counter.fetch_add(u64::from(lost), Ordering::Relaxed);
                !lost
            })
        });
        let node_ip = format!("--embedded-flag=--node-ip={}", relay.address.ip());
        let rtc_port = format!("--embedded-flag=--rtc-port={}", relay.address.port());
        let ended = run(&small(&[&node_ip, &rtc_port]));
        assert_fault(&ended, "network", &["the embedded SFU handed", "our kernel dropped none"]);
        let (dropped, missing) = (dropped.load(Ordering::Relaxed) as f64, sum(&ended, "missing"));
        // The relay counts the ramp too, and what it dropped of retransmissions.
        assert!(missing > 20.0 && dropped >= missing, "{missing} missing, {dropped} dropped");
        assert_eq!(ended.number("/server/embedded/measured/dropped"), 0.0);
        assert_eq!(ended.number("/generator/udp_dropped"), 0.0);
    });
}

/// Leaves a process only the CPU that nobody else wants, whatever the niceness of these tests.
fn run_last(pid: u32) {
    let pid = pid.to_string();
    let status = Command::new("chrt").args(["--all-tasks", "--idle", "--pid", "0", &pid]).status();
    assert!(status.unwrap().success());
}

/// Processes that want all of a core.
struct Hogs(Vec<Child>);

impl Hogs {
    fn on_core(core: &str, count: usize) -> Self {
        let hog = || {
            let mut command = Command::new("taskset");
            command.args(["-c", core, "sh", "-c", "while :; do :; done"]);
            command.stdin(Stdio::null()).spawn().unwrap()
        };
        Self((0..count).map(|_| hog()).collect())
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            let _ = hog.kill();
            let _ = hog.wait();
        }
    }
}

/// The first core this process may use.
fn first_core() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let list = list.expect("the cores allowed").trim();
    list.split([',', '-']).next().unwrap().to_owned()
}

#[test]
fn a_generator_that_gets_no_cpu_makes_the_run_invalid() {
    series(|| {
        let core = first_core();
        let cores = format!("--cores={core}");
        // The SFU keeps its share: it is the generator that starves.
        let sfu = Sfu::start(&[]);
        let there = ["taskset", "-c", &core];
        let args = [&small(&["--duration=4s", &cores])[1..], &["--video-publishers=1"]].concat();
        let mut running = sfu.run_under(&there, &args);
        running.wait_for(" hold ");
        run_last(running.pid());
        let hogs = Hogs::on_core(&core, 8);
        std::thread::sleep(Duration::from_millis(3_500));
        drop(hogs);
        let ended = running.end();
        ended.assert_code(98);
        assert_fault(&ended, "generator", &["generator: worker 0"]);
        assert_eq!(ended.report()["verdict"]["result"], "invalid");
    });
}

#[test]
fn receive_buffers_that_are_too_small_make_the_run_invalid() {
    series(|| {
        // A 720p frame is several packets that come at once, in one run or two; there is room for
        // one.
        let tiny = ["--receive-buffer=4KiB", "--video-resolution=high", "--backend=mmsg"];
        let ended = run(&small(&tiny));
        ended.assert_code(98);
        assert_fault(&ended, "generator", &["our kernel dropped", "--receive-buffer"]);
        assert_eq!(ended.report()["verdict"]["result"], "invalid");
        assert!(ended.number("/generator/udp_dropped") > 100.0);
        assert_eq!(ended.number("/server/embedded/measured/dropped"), 0.0);
        assert_eq!(ended.number("/run/options/receive_buffer_bytes"), 4_096.0);
    });
}

#[test]
fn datagrams_that_the_wire_lost_are_the_networks() {
    series(|| {
        let Some(namespace) = Namespace::new() else { return };
        namespace.lose_from(7_882, 25);
        let args = small(&["--embedded-flag=--rtc-port=7882"]);
        let ended = Running::start_under(&namespace.wrapper(), &args, |_| {}).end();
        assert_fault(&ended, "network", &["the embedded SFU handed", "our kernel dropped none"]);
        let (missing, expected) = (sum(&ended, "missing"), sum(&ended, "expected"));
        let rate = missing / expected;
        assert!((0.015..0.08).contains(&rate), "{missing} of {expected} missing");
        assert_eq!(ended.number("/server/embedded/measured/dropped"), 0.0);
        assert_eq!(ended.number("/generator/udp_dropped"), 0.0);
    });
}

#[test]
fn what_we_drop_on_purpose_is_nobodys_fault() {
    series(|| {
        let ended = run(&small(&["--impair=cohort=50%,loss=8%,burst=3", "--impair=duplicate=5%"]));
        ended.assert_code(0);
        assert_fault(&ended, "none", &["packets were dropped on purpose (--impair"]);
        let (dropped, missing) = (ended.number("/impairment/dropped"), sum(&ended, "missing"));
        // Retransmissions are dropped too.
        assert!(missing > 20.0, "{missing}");
        assert!(
            dropped >= missing - 10.0 && dropped <= 1.3 * missing + 10.0,
            "{dropped}, {missing}"
        );
        assert_eq!(ended.number("/server/embedded/measured/dropped"), 0.0);
        let cohorts = ended.report()["impairment"]["cohorts"].as_array().unwrap();
        let of = |index: usize, name: &str| cohorts[index][name].as_u64().unwrap();
        assert_eq!(of(0, "peers") + of(1, "peers"), 6, "{cohorts:?}");
        assert!((2..=4).contains(&of(0, "peers")), "{cohorts:?}");
        assert_eq!((of(0, "duplicated"), of(1, "dropped")), (0, 0), "{cohorts:?}");
        // Each is a cohort of the report, and nobody is left over.
        let parts = ended.report()["cohorts"].as_array().unwrap();
        let names: Vec<_> = parts.iter().map(|part| part["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["impair-1", "impair-2"]);
        let missing = |part: &Value| part["video"]["packets"]["missing"].as_u64().unwrap();
        assert!(missing(&parts[0]) > 10 && missing(&parts[1]) == 0, "{parts:?}");
        let (twice, seen) = (of(1, "duplicated") as f64, sum(&ended, "duplicate"));
        assert!(twice > 10.0 && (twice - seen).abs() <= 0.1 * twice + 3.0, "{twice}, {seen} seen");
    });
}

#[test]
fn a_delay_of_ours_is_on_the_account_and_loses_nothing() {
    let _beside = beside();
    let ended = run(&small(&["--impair=delay=120ms,jitter=30ms,reorder=2%"]));
    ended.assert_code(0);
    assert_fault(&ended, "none", &[]);
    assert_eq!(sum(&ended, "unrecovered"), 0.0);
    assert!(ended.number("/impairment/delayed") >= sum(&ended, "received") - 100.0);
    assert!(ended.number("/impairment/reordered") > 0.0);
    assert!(sum(&ended, "reordered") > 0.0);
    assert_eq!(ended.number("/impairment/dropped"), 0.0);
    assert!(ended.number("/join/phases_ms/first_packet/p50") >= 90.0);
    let jitter = ended.number("/audio/jitter_ms/p50");
    assert!((2.0..40.0).contains(&jitter), "{jitter}");
}

#[test]
fn an_outage_takes_everything_for_its_time_and_nobody_drops_out() {
    let _beside = beside();
    // The ramp takes about two seconds, so the outage lies in the measured window.
    let ended = run(&small(&["--duration=8s", "--impair=outage=1s@6s"]));
    ended.assert_code(0);
    assert_fault(&ended, "none", &["dropped on purpose (--impair"]);
    assert_eq!(ended.number("/join/dropped"), 0.0);
    assert!(ended.number("/impairment/dropped") > 200.0);
    assert!(ended.number("/video/freezes/count") >= 1.0);
}

#[test]
fn broken_datagrams_harm_nobody() {
    let _beside = beside();
    let ended = run(&small(&["--embedded-flag=--malformed=10%"]));
    ended.assert_code(0);
    assert_fault(&ended, "none", &["broken or failed authentication"]);
    assert!(ended.number("/server/embedded/measured/malformed") > 50.0);
    assert_eq!(ended.number("/join/dropped"), 0.0);
    assert_eq!(sum(&ended, "missing"), 0.0);
    assert_eq!(sum(&ended, "received"), sum(&ended, "expected"));
}

#[test]
fn a_healthy_run_accuses_nobody() {
    series(|| {
        let ended = run(&small(&[]));
        ended.assert_code(0);
        assert_fault(&ended, "none", &[]);
        assert!(ended.report()["impairment"].is_null());
    });
}

/// Packets that the embedded SFU dropped between two it sent, by media kind.
fn ledger_gaps(ended: &Ended) -> HashMap<String, u64> {
    let mut gaps = HashMap::new();
    let list = |value: &Value| value.as_array().unwrap().clone();
    for room in list(&ended.report()["server"]["embedded"]["rooms"]) {
        let kinds: HashMap<Value, String> = list(&room["published"])
            .iter()
            .map(|track| (track["track_sid"].clone(), track["kind"].as_str().unwrap().to_owned()))
            .collect();
        for track in list(&room["subscribers"]).iter().flat_map(|who| list(&who["tracks"])) {
            let kind = kinds[&track["track_sid"]].clone();
            *gaps.entry(kind).or_default() += track["dropped_between"].as_u64().unwrap();
        }
    }
    gaps
}

/// Counts and length of the last row are of the same time, and no datagram is in none or two.
fn the_last_row_is_of_one_time(ended: &Ended) {
    let rows = ended.report()["series"].as_array().unwrap();
    let of = |row: &Value, figure: &str| row[figure].as_f64().unwrap();
    let all = |rows: &[Value], figure: &str| rows.iter().map(|row| of(row, figure)).sum::<f64>();
    let (last, before) = rows.split_last().unwrap();
    let neighbours = &before[before.len() - 3..];
    // A row whose snapshot came too late leaves its second to the next one.
    let rate = |row: &Value| of(row, "expected") / of(row, "length_s");
    let highest = neighbours.iter().map(rate).fold(0.0, f64::max);
    assert!(highest > 500.0, "{neighbours:?}");
    // Four join a second, and nobody is there any more from the signal on.
    assert!(rate(last) < 1.4 * highest, "{last}\n{neighbours:?}");
    let (expected, arrived) = (of(last, "expected"), of(last, "packets_in"));
    let share = all(neighbours, "packets_in") / all(neighbours, "expected");
    assert!((arrived - share * expected).abs() < 0.25 * expected + 150.0, "{share}: {last}");
    let most = rows.iter().map(|row| of(row, "packets_in")).fold(0.0, f64::max);
    let (counted, known) = (all(rows, "packets_in"), ended.number("/generator/packets_in"));
    assert!((counted - known).abs() <= most, "{counted} of {known}");
    let (length_s, end_s) = (all(rows, "length_s"), of(last, "t_s"));
    assert!((length_s - end_s).abs() < 1.2, "{length_s} of {end_s}");
}

#[test]
fn what_is_missing_is_what_was_dropped_packet_for_packet() {
    let _beside = beside();
    // A run that ends in its ramp is accounted from its first packet to its last, as the ledger is.
    let mut args =
        small(&["--subscribers=500", "--num-per-second=4", "--embedded-impair=loss=5%,burst=3"]);
    args.retain(|arg| *arg != "--no-audio-red");
    let mut running = Running::start(&args);
    running.wait_for(" ramp ");
    std::thread::sleep(Duration::from_secs(6));
    running.signal(Signal::INT);
    let ended = running.end();
    ended.assert_code(105);
    let gaps = ledger_gaps(&ended);
    for kind in ["video", "audio"] {
        let packets = |name: &str| ended.number(&format!("/{kind}/packets/{name}"));
        assert!(gaps[kind] > 30, "{gaps:?}");
        let passed_over = packets("missing") + packets("cut_off");
        assert_eq!(passed_over, gaps[kind] as f64, "{kind}: {gaps:?}");
        let repaired = packets("repaired") + packets("repaired_by_red");
        assert_eq!(repaired + packets("unrecovered"), packets("missing"), "{kind}");
    }
    // The seconds have it all, the last part of one included; the end takes back what it cut off.
    let rows = ended.report()["series"].as_array().unwrap();
    for figure in ["expected", "missing", "repaired", "repaired_by_red", "unrecovered"] {
        let all: f64 = rows.iter().map(|row| row[figure].as_f64().unwrap()).sum();
        let (known, cut_off) = (sum(&ended, figure), sum(&ended, "cut_off"));
        assert!((known..=known + cut_off).contains(&all), "{figure}: {all}, {known}, {cut_off}");
    }
    the_last_row_is_of_one_time(&ended);
    // Video has RTX. Opus has none, but each packet brings the one before.
    let (missing, repaired) =
        (ended.number("/video/packets/missing"), ended.number("/video/packets/repaired"));
    assert!(repaired >= 0.8 * missing, "{repaired} of {missing}");
    assert_eq!(ended.number("/audio/packets/repaired"), 0.0);
    assert_eq!(ended.number("/video/packets/repaired_by_red"), 0.0);
    // Of a burst the last one is repaired: of three one, on average.
    let share = ended.number("/audio/packets/repaired_by_red") / gaps["audio"] as f64;
    assert!((0.15..0.6).contains(&share), "{share}: {:#}", ended.report()["audio"]["packets"]);
}
