//! Times in which people could not watch, each provoked with the real binary: how long they were, for
//! whom, and whose fault.
//!
//! `STAMPEDE_SERIES=20` makes twenty blackouts of random time, length and share, and twenty healthy
//! runs, and says how often they were told apart.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime};

use common::observer::Observer;
use common::{Ended, Running, Sfu, alone, children, run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A run that is little work for the machine.
const SMALL: [&str; 6] = [
    "run",
    "--subscribers=6",
    "--num-per-second=50",
    "--video-resolution=low",
    "--seed=7",
    "--no-tui",
];

/// How far what is reported may be off what an observer saw.
const OFF_S_MAX: f64 = 0.1;

/// Most of these tests may run beside each other; one that measures may not.
static MACHINE: RwLock<()> = RwLock::new(());

fn together() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

fn undisturbed() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// The small run with these flags, which may repeat one of its own; stages say themselves how many
/// subscribers there are.
fn small<'a>(args: &[&'a str]) -> Vec<&'a str> {
    let name = |arg: &str| arg.split('=').next().unwrap().to_owned();
    let mut own: BTreeSet<String> = args.iter().map(|arg| name(arg)).collect();
    if own.contains("--stage") {
        own.insert("--subscribers".to_owned());
    }
    let kept = SMALL.into_iter().filter(|arg| !own.contains(&name(arg)));
    kept.chain(args.iter().copied()).collect()
}

/// An interruption of one track of one subscriber.
#[derive(Debug, Clone)]
struct Interruption {
    subscriber: String,
    kind: String,
    from_s: f64,
    to_s: f64,
    cause: String,
}

impl Interruption {
    fn length_s(&self) -> f64 {
        self.to_s - self.from_s
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// All interruptions of the worst subscribers, who are all there are in runs so small.
fn interruptions(ended: &Ended) -> Vec<Interruption> {
    let mut all = Vec::new();
    for worst in list(&ended.report()["watch"]["worst"]) {
        for track in list(&worst["tracks"]) {
            for one in list(&track["interruptions"]) {
                all.push(Interruption {
                    subscriber: text(&worst["subscriber"]),
                    kind: text(&track["kind"]),
                    from_s: number(&one["from_s"]),
                    to_s: number(&one["to_s"]),
                    cause: text(&one["cause"]),
                });
            }
        }
    }
    all
}

/// Seconds since the run began.
fn since_start(ended: &Ended, at: SystemTime) -> f64 {
    let started = ended.report()["run"]["started_at"].as_str().unwrap();
    let started = humantime::parse_rfc3339(started).unwrap();
    at.duration_since(started).unwrap().as_secs_f64()
}

/// Participants add up, and so does time, in all and in each cohort.
#[track_caller]
fn assert_books_balance(ended: &Ended) {
    let join = |name: &str| ended.number(&format!("/join/{name}"));
    let parts = ["joined", "failed", "pending", "not_started"].map(join);
    assert_eq!(join("requested"), parts.iter().sum::<f64>(), "{}", ended.report()["join"]);
    let report = ended.report();
    for section in std::iter::once(report).chain(list(&report["cohorts"])) {
        for kind in ["video", "audio"] {
            if section[kind].is_object() {
                assert_time_adds_up(&section[kind]);
            }
        }
    }
}

#[track_caller]
fn assert_time_adds_up(media: &Value) {
    if media["expected_s"].is_null() {
        // Nothing of it was to be watched, as when a layout shows nobody who speaks.
        assert!(media["played_s"].is_null() && media["watch_ratio"].is_null(), "{media:#}");
        assert_eq!(media["interruptions"]["count"], 0, "{media:#}");
        return;
    }
    let (expected, played) = (number(&media["expected_s"]), number(&media["played_s"]));
    let (short, broken) = (number(&media["short_gaps_s"]), &media["interruptions"]);
    let total = number(&broken["total_s"]);
    // Each is rounded to a millisecond.
    assert!((expected - played - short - total).abs() < 0.01, "{media:#}");
    assert!([expected, played, short, total].iter().all(|part| *part >= 0.0), "{media:#}");
    let ratio = media["watch_ratio"].as_f64();
    assert_eq!(ratio.is_some(), expected > 0.0, "{media:#}");
    assert!(ratio.is_none_or(|ratio| (ratio - played / expected).abs() < 0.001), "{media:#}");
    let causes: Vec<&Value> = broken["causes"].as_object().unwrap().values().collect();
    let sum = |name: &str| causes.iter().map(|cause| number(&cause[name])).sum::<f64>();
    assert_eq!(sum("count"), number(&broken["count"]), "{media:#}");
    assert!((sum("total_s") - total).abs() < 0.01, "{media:#}");
    let counted = broken["length_s"]["count"].as_f64().unwrap_or_default();
    assert_eq!(counted, number(&broken["count"]), "{media:#}");
}

#[track_caller]
fn assert_failed(ended: &Ended, fault: &str, words: &[&str]) {
    let verdict = ended.verdict().unwrap();
    assert_eq!(verdict["result"], "fail", "{verdict:#}\n{}", ended.stdout);
    assert_eq!(verdict["fault"], fault, "{verdict:#}\n{}", ended.stdout);
    let reasons = ended.reasons();
    for word in words {
        assert!(reasons.contains(word), "'{word}' is not in: {reasons}");
    }
    assert!(ended.stdout.trim_start().starts_with("FAIL"), "{}", ended.stdout);
    assert_books_balance(ended);
}

#[track_caller]
fn assert_passed(ended: &Ended) {
    ended.assert_code(0);
    let verdict = ended.verdict().unwrap();
    assert_eq!(verdict["result"], "pass", "{verdict:#}");
    assert_eq!(verdict["fault"], "none", "{verdict:#}");
    assert_books_balance(ended);
    assert_eq!(interruptions(ended).len(), 0, "{:?}", interruptions(ended));
    assert!(ended.number("/video/watch_ratio") > 0.99, "{:#}", ended.report()["video"]);
    for kind in ["video", "audio"] {
        let media = &ended.report()[kind];
        assert_eq!(media["interruptions"]["count"], 0, "{media:#}");
        let ratio = media["watch_ratio"].as_f64();
        assert!(ratio.is_none_or(|ratio| ratio > 0.99), "{media:#}");
    }
}

/// Each of these subscribers was interrupted once in each of its tracks, for one of these causes;
/// gives back the interruptions.
#[track_caller]
fn assert_each_once(ended: &Ended, subscribers: usize, causes: &[&str]) -> Vec<Interruption> {
    let all = interruptions(ended);
    for kind in ["video", "audio"] {
        if !ended.report()[kind].is_object() {
            continue;
        }
        let of_kind = || all.iter().filter(|one| one.kind == kind);
        let who: BTreeSet<&str> = of_kind().map(|one| one.subscriber.as_str()).collect();
        assert_eq!((who.len(), of_kind().count()), (subscribers, subscribers), "{kind}: {all:#?}");
        let figure = |name: &str| ended.number(&format!("/{kind}/interruptions/{name}"));
        assert_eq!(figure("count"), subscribers as f64, "{kind}");
        assert_eq!(figure("subscribers"), subscribers as f64, "{kind}");
        let total: f64 = of_kind().map(Interruption::length_s).sum();
        assert!((figure("total_s") - total).abs() < 0.01 * subscribers as f64, "{kind}: {all:#?}");
    }
    for one in &all {
        assert!(causes.contains(&one.cause.as_str()), "not {causes:?}: {one:?}");
        assert!(one.length_s() >= 1.0, "{one:?}");
    }
    all
}

/// All begin where the last frame before this moment ends, which is taken to last for 150 ms and the
/// time between two frames at most.
#[track_caller]
fn assert_begin_at(all: &[Interruption], moment_s: f64) {
    for one in all {
        let after_s = one.from_s - moment_s;
        assert!((0.0..0.35).contains(&after_s), "{after_s:.3} s after {moment_s:.3}: {one:?}");
    }
}

/// How long nothing arrived up to this moment, by the rows of the seconds: at least and at most.
/// Later rows are of good-byes, which take as long as the machine is busy.
fn silent_until_s(ended: &Ended, end_s: f64) -> (f64, f64) {
    let rows = list(&ended.report()["series"]).iter().rev();
    let silent: f64 = rows
        // Some datagrams of a good-bye may come in the last one.
        .take_while(|row| number(&row["expected"]) == 0.0)
        .map(|row| (number(&row["t_s"]), number(&row["length_s"])))
        .map(|(t_s, length_s)| (t_s.min(end_s) - (t_s - length_s)).max(0.0))
        .sum();
    (silent, silent + 1.3)
}

/// Identities of the subscribers from whom the embedded SFU kept packets, by its own ledger.
fn cut_off_by_the_ledger(ended: &Ended) -> BTreeSet<String> {
    let rooms = list(&ended.report()["server"]["embedded"]["rooms"]);
    let subscribers = rooms.iter().flat_map(|room| list(&room["subscribers"]));
    let is_cut = |who: &&Value| list(&who["tracks"]).iter().any(|t| number(&t["dropped"]) > 0.0);
    subscribers.filter(is_cut).map(|who| text(&who["identity"])).collect()
}

fn interrupted_subscribers(ended: &Ended) -> BTreeSet<String> {
    interruptions(ended).into_iter().map(|one| one.subscriber).collect()
}

#[test]
fn nothing_until_the_end_of_the_run_is_no_pass() {
    let _together = together();
    let ended = run(&small(&[
        "--subscribers=3",
        "--audio-publishers=0",
        "--duration=8s",
        "--embedded-impair=outage=60s@3s",
        "--threshold=video.fps>=24",
        "--threshold=video.watch_ratio>99%",
        "--threshold=video.interruptions.subscribers==3",
    ]));
    ended.assert_code(99);
    assert_failed(&ended, "server", &["3 of 3 subscribers"]);
    let kept: Vec<bool> =
        list(&ended.report()["thresholds"]).iter().map(|row| row["ok"] == true).collect();
    assert_eq!(kept, [false, false, true], "{:#}", ended.report()["thresholds"]);
    let all = assert_each_once(&ended, 3, &["silent", "loss"]);
    let end_s = all.iter().map(|one| one.to_s).fold(0.0, f64::max);
    let (least, most) = silent_until_s(&ended, end_s);
    assert!(least >= 4.0, "{least}");
    for one in &all {
        assert!((least - 0.4..most).contains(&one.length_s()), "{least} to {most}: {one:?}");
    }
    // All seconds of it have all three.
    let rows = list(&ended.report()["series"]);
    let whole = rows.iter().rev().skip(1).take(3).map(|row| number(&row["interrupted"]));
    assert_eq!(whole.collect::<Vec<_>>(), [3.0; 3], "{rows:#?}");
}

#[test]
fn an_outage_that_ends_before_the_run_does_is_as_long_as_it_was() {
    let _together = together();
    let ended = run(&small(&[
        "--subscribers=3",
        "--duration=7s",
        "--embedded-impair=outage=3s@3s",
        "--threshold=video.loss_rate<=100%",
    ]));
    assert_failed(&ended, "server", &["3 of 3 subscribers"]);
    for one in assert_each_once(&ended, 3, &["silent", "loss"]) {
        // Video waits for a keyframe.
        let beyond = if one.kind == "audio" { 0.0 } else { 1.0 };
        assert!((2.7..3.0 + beyond).contains(&one.length_s()), "{one:?}");
    }
}

#[test]
fn half_of_the_subscribers_with_a_black_picture_are_named() {
    let _together = together();
    let ended = run(&small(&[
        "--subscribers=10",
        "--duration=9s",
        "--embedded-impair=cohort=50%,outage=60s@4s",
        "--threshold=video.loss_rate<0.1% && join.failed==0 && video.freezes.count<=10",
    ]));
    let cut_off = cut_off_by_the_ledger(&ended);
    assert!((4..=6).contains(&cut_off.len()), "{cut_off:?}");
    let named = format!("{} of 10 subscribers", cut_off.len());
    assert_failed(&ended, "server", &[&named]);
    assert_each_once(&ended, cut_off.len(), &["silent", "loss"]);
    assert_eq!(interrupted_subscribers(&ended), cut_off);
}

#[test]
fn joins_that_never_end_are_counted_and_fail_the_run() {
    let _together = together();
    let ended = run(&small(&[
        "--subscribers=10",
        "--duration=3s",
        "--join-grace=1s",
        "--embedded-impair=cohort=50%,outage=60s@0s",
        "--threshold=join.failed==0",
    ]));
    ended.assert_code(1);
    // Its ledger is of media: what became of connectivity checks nobody can prove.
    assert_failed(&ended, "unknown", &["still joining"]);
    let join = |name: &str| ended.number(&format!("/join/{name}"));
    assert_eq!((join("requested"), join("failed"), join("not_started")), (11.0, 0.0, 0.0));
    let pending = join("pending");
    assert!((4.0..=6.0).contains(&pending), "{}", ended.report()["join"]);
    assert_eq!(join("joined"), 11.0 - pending);
    // They should have been watching for some time by the end.
    let all = assert_each_once(&ended, pending as usize, &["not_joined"]);
    assert_eq!(ended.number("/video/interruptions/causes/not_joined/count"), pending);
    assert!(all.iter().all(|one| one.length_s() < 3.5), "{all:?}");
}

/// A server of its own and a run against it with a publisher, in its hold.
fn held(args: &[&str]) -> (Sfu, Running) {
    let sfu = Sfu::start(&[]);
    let publishers = ["--video-publishers=1", "--audio-publishers=1"];
    let args = small(&[&publishers[..], args].concat());
    let mut running = sfu.run(&args[1..]);
    running.wait_for(" hold ");
    (sfu, running)
}

#[test]
fn a_server_that_is_killed_is_named_with_the_time_that_nobody_could_watch() {
    let _together = together();
    let (mut sfu, running) = held(&["--duration=6s"]);
    std::thread::sleep(Duration::from_secs(2));
    sfu.kill();
    let killed = SystemTime::now();
    let ended = running.end();
    ended.assert_code(1);
    assert_failed(&ended, "server", &["6 of 6 subscribers"]);
    let all = assert_each_once(&ended, 6, &["disconnected"]);
    assert_begin_at(&all, since_start(&ended, killed));
    assert!(all.iter().all(|one| (3.0..4.1).contains(&one.length_s())), "{all:#?}");
}

#[test]
fn a_server_that_is_back_after_four_seconds_was_away_for_as_long() {
    let _together = together();
    let (mut sfu, running) = held(&["--duration=18s"]);
    std::thread::sleep(Duration::from_secs(2));
    sfu.kill();
    let killed = SystemTime::now();
    std::thread::sleep(Duration::from_secs(4));
    let back = SystemTime::now();
    sfu.start_again();
    let ended = running.end();
    ended.assert_code(1);
    assert_failed(&ended, "server", &["6 of 6 subscribers", "back after"]);
    // One stretch each, over the reconnect; the publisher is the same one too.
    let all = assert_each_once(&ended, 6, &["disconnected"]);
    assert_begin_at(&all, since_start(&ended, killed));
    // The fourth try finds a server that knows nobody, 4.2 to 6.2 s after the kill, and the fifth
    // joins anew, after 4.8 to 5.8 s more.
    let back_s = since_start(&ended, back);
    assert!(all.iter().all(|one| (back_s..back_s + 9.0).contains(&one.to_s)), "{all:#?}");
    for kind in ["video", "audio"] {
        assert_eq!(ended.number(&format!("/{kind}/tracks_expected")), 6.0, "{kind}");
    }
}

/// Nobody could watch from 2 s after the hold of 7 s began until its end.
#[track_caller]
fn assert_frozen(ended: &Ended, fault: &str, stopped: SystemTime) {
    ended.assert_code(1);
    assert_failed(ended, fault, &["6 of 6 subscribers"]);
    let all = assert_each_once(ended, 6, &["silent", "disconnected"]);
    assert_begin_at(&all, since_start(ended, stopped));
    assert!(all.iter().all(|one| (4.0..5.1).contains(&one.length_s())), "{all:#?}");
}

#[test]
fn a_server_that_freezes_until_the_end_is_named() {
    let _together = together();
    let mut running = Running::start(&small(&["--duration=7s"]));
    running.wait_for(" hold ");
    std::thread::sleep(Duration::from_secs(2));
    let [sfu] = children(running.pid())[..] else { panic!("no embedded SFU") };
    let sfu = Pid::from_raw(sfu as i32).unwrap();
    kill_process(sfu, Signal::STOP).unwrap();
    let stopped = SystemTime::now();
    assert_frozen(&running.end(), "server", stopped);
}

#[test]
fn a_server_without_a_ledger_that_freezes_is_no_pass() {
    let _together = together();
    let (sfu, running) = held(&["--duration=7s"]);
    std::thread::sleep(Duration::from_secs(2));
    sfu.signal(Signal::STOP);
    let stopped = SystemTime::now();
    // Nothing came, and nothing says whether it was sent.
    assert_frozen(&running.end(), "unknown", stopped);
}

/// A run that publishes and one that watches, on one server, both in their hold.
fn apart(publisher: &[&str], subscribers: &[&str]) -> (Sfu, Running, Running) {
    let sfu = Sfu::start(&[]);
    let fixed = ["--subscribers=0", "--video-publishers=1", "--audio-publishers=1", "--room=stage"];
    let mut publishing = sfu.run(&small(&[&fixed[..], publisher].concat())[1..]);
    publishing.wait_for(" hold ");
    let fixed = ["--video-publishers=0", "--audio-publishers=0", "--room=stage"];
    let mut watching = sfu.run(&small(&[&fixed[..], subscribers].concat())[1..]);
    watching.wait_for(" hold ");
    (sfu, publishing, watching)
}

#[test]
fn a_publisher_that_is_killed_is_gone_and_missed() {
    let _together = together();
    // A server keeps who says nothing until its ICE is dead, 15 s, and 5 s for a resume.
    let (_sfu, publishing, watching) = apart(&["--duration=60s"], &["--duration=25s"]);
    std::thread::sleep(Duration::from_secs(2));
    publishing.signal(Signal::KILL);
    let killed = SystemTime::now();
    let ended = watching.end();
    ended.assert_code(1);
    assert_failed(&ended, "publisher", &["6 of 6 subscribers"]);
    let all = assert_each_once(&ended, 6, &["publisher_gone"]);
    assert_begin_at(&all, since_start(&ended, killed));
    assert!(all.iter().all(|one| (22.0..23.1).contains(&one.length_s())), "{all:#?}");
}

#[test]
fn a_publisher_that_leaves_in_order_is_not_missed() {
    let _together = together();
    leaves_in_order();
}

fn leaves_in_order() {
    let (_sfu, publishing, watching) = apart(&["--duration=4s"], &["--duration=6s"]);
    publishing.end().assert_code(0);
    let ended = watching.end();
    assert_passed(&ended);
    // They watched for as long as it was there, and the rest is nobody's.
    let (expected, window) = (ended.number("/video/expected_s"), ended.number("/run/measured_s"));
    assert!((6.0..6.0 * (window - 1.0)).contains(&expected), "{expected} s of {window}");
}

#[test]
fn watch_time_is_what_an_observer_saw() {
    let (_alone, _undisturbed) = (alone(), undisturbed());
    let observer = Observer::start();
    let node_ip = format!("--embedded-flag=--node-ip={}", observer.address.ip());
    let rtc_port = format!("--embedded-flag=--rtc-port={}", observer.address.port());
    let mut running = Running::start(&small(&[&node_ip, &rtc_port, "--duration=9s"]));
    running.wait_for(" hold ");
    std::thread::sleep(Duration::from_millis(2_500));
    let cut_at = SystemTime::now();
    observer.cut(true);
    std::thread::sleep(Duration::from_secs(3));
    observer.cut(false);
    let ended = running.end();
    ended.assert_code(1);
    assert_failed(&ended, "network", &["6 of 6 subscribers"]);
    let all = assert_each_once(&ended, 6, &["loss"]);
    let streams = list(&ended.report()["streams"]);
    for kind in ["video", "audio"] {
        let mut missed_s = 0.0;
        let of_kind = streams.iter().filter(|row| row["kind"] == kind);
        for row in of_kind.clone() {
            let ssrc = u32::try_from(row["ssrc"].as_u64().unwrap()).unwrap();
            let gap = observer.gap(ssrc, cut_at).unwrap_or_else(|| panic!("{row:#}"));
            let (from_s, to_s) = (since_start(&ended, gap.from), since_start(&ended, gap.to));
            missed_s += to_s - from_s;
            let mut own = all.iter().filter(|one| row["identity"] == one.subscriber.as_str());
            let one = own.find(|one| one.kind == kind).unwrap();
            let off = [one.from_s - from_s, one.to_s - to_s, one.length_s() - (to_s - from_s)];
            assert!(off.iter().all(|off| off.abs() < OFF_S_MAX), "{off:.3?}: {one:?}");
        }
        assert_eq!(of_kind.count(), 6, "{kind}: {streams:#?}");
        let figure = |name: &str| ended.number(&format!("/{kind}/{name}"));
        let off_s = figure("expected_s") - figure("played_s") - missed_s;
        assert!(off_s.abs() < 6.0 * OFF_S_MAX, "{kind}: {off_s:.3}");
    }
}

/// A number from 0 to 1 that seed and name fix (splitmix64).
fn chance(seed: u64, name: u64) -> f64 {
    let mut mixed = (seed << 8 | name).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[test]
fn blackouts_of_any_time_length_and_share_are_named() {
    let _together = together();
    common::series(|round| {
        let between = |name, low: f64, high: f64| low + (high - low) * chance(round, name);
        let (at_ms, length_ms) = (between(1, 2_500.0, 4_000.0), between(2, 1_500.0, 3_000.0));
        let share = between(3, 30.0, 100.0);
        let (seed, impair) = (
            format!("--seed={round}"),
            format!("--embedded-impair=cohort={share:.0}%,outage={length_ms:.0}ms@{at_ms:.0}ms"),
        );
        let ended = run(&small(&[&seed, &impair, "--subscribers=8", "--duration=7s"]));
        let cut_off = cut_off_by_the_ledger(&ended);
        let named = format!("{} of 8 subscribers", cut_off.len());
        assert_failed(&ended, "server", &[&named]);
        assert_eq!(interrupted_subscribers(&ended), cut_off);
        let length_s = length_ms / 1_000.0;
        for one in assert_each_once(&ended, cut_off.len(), &["silent", "loss"]) {
            let beyond = if one.kind == "audio" { 0.0 } else { 1.0 };
            let right = length_s - 0.3..length_s + beyond;
            assert!(right.contains(&one.length_s()), "{length_s:.3} s: {one:?}");
        }
    });
}

#[test]
fn healthy_runs_accuse_nobody() {
    let _together = together();
    /// What goes on in them.
    const KINDS: [&[&str]; 5] = [
        &["--duration=4s"],
        &["--duration=4s", "--dynacast", "--video-resolution=medium"],
        &["--duration=4s", "--video-publishers=3", "--audio-publishers=3", "--simulate-speakers"],
        &["--duration=4s", "--video-publishers=8", "--layout=speaker"],
        // Some are told to leave.
        &["--stage=1s:6", "--stage=2s:6", "--stage=2s:2"],
    ];
    common::series(|round| match KINDS.get(round as usize % (KINDS.len() + 1)) {
        Some(kind) => {
            let seed = format!("--seed={}", 100 + round);
            assert_passed(&run(&small(&[&[seed.as_str()], *kind].concat())));
        }
        None => leaves_in_order(),
    });
}
