//! The books balance: everybody that was to join is in the report once, in every form of it, and
//! nothing that was asked for and not done makes a run that passes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::namespace::Namespace;
use common::{Ended, Running, Sfu, beside, files, run, stampede};
use rustix::process::Signal;
use serde_json::Value;

const SMALL: [&str; 5] =
    ["run", "--subscribers=6", "--num-per-second=50", "--video-resolution=low", "--no-tui"];

fn small(args: &[&'static str]) -> Vec<&'static str> {
    SMALL.iter().chain(args).copied().collect()
}

fn reasons(ended: &Ended) -> String {
    let reasons = ended.report()["verdict"]["reasons"].as_array().unwrap();
    reasons.iter().map(|reason| reason.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn assert_verdict(ended: &Ended, result: &str, fault: &str, words: &[&str]) {
    let verdict = &ended.report()["verdict"];
    assert_eq!(
        (&verdict["result"], &verdict["fault"]),
        (&result.into(), &fault.into()),
        "{verdict:#}"
    );
    let reasons = reasons(ended);
    for word in words {
        assert!(reasons.contains(word), "'{word}' is not in: {reasons}");
    }
}

/// Requested = joined + failed + still joining + not started, in a report.
#[track_caller]
fn assert_balanced(report: &Value) {
    let join = &report["join"];
    let of = |key: &str| join[key].as_u64().unwrap_or_else(|| panic!("{key}: {join:#}"));
    assert_eq!(of("requested"), of("joined") + of("failed") + of("pending") + of("not_started"));
    assert_eq!(of("started"), of("requested") - of("not_started"));
    let steps = join["pending_at"].as_object().unwrap();
    assert_eq!(steps.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), of("pending"));
}

/// A report in another form, and the exit code of `stampede report`.
fn rendered(ended: &Ended, form: &str, dir: &Path) -> (String, Option<i32>) {
    let (json, out) = (dir.join("r.json"), dir.join("out"));
    fs::write(&json, ended.report().to_string()).unwrap();
    let mut command = stampede();
    command.arg("report").arg(&json);
    let plain = form == "text";
    if !plain {
        command.arg(format!("--out={form}={}", out.display()));
    }
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    let text = match plain {
        true => String::from_utf8(output.stdout).unwrap(),
        false => fs::read_to_string(&out).unwrap(),
    };
    (text, output.status.code())
}

const FORMS: [&str; 5] = ["text", "json", "html", "markdown", "junit"];

#[test]
fn joins_that_never_end_are_in_the_books_and_no_pass() {
    let _beside = beside();
    // Nothing reaches half of them from the beginning, so they wait for ICE until the run ends.
    let args = ["--duration=1s", "--embedded-impair=cohort=50%,outage=90s@0s"];
    let ended = run(&small(&args));
    ended.assert_code(1);
    assert_balanced(ended.report());
    let pending = ended.number("/join/pending");
    assert!((1.0..=6.0).contains(&pending), "{pending}");
    assert_eq!(ended.number("/join/pending_at/ice"), pending);
    assert_eq!(ended.number("/join/failed"), 0.0);
    let said = format!("{pending} still joining ({pending} at ICE)");
    assert_verdict(&ended, "fail", "unknown", &[&said, "bound 1 %"]);
    let dir = tempfile::tempdir().unwrap();
    for form in FORMS {
        let (text, code) = rendered(&ended, form, dir.path());
        assert_eq!(code, Some(1), "{form}");
        assert!(text.contains("still joining"), "{form}: {text}");
    }
}

#[test]
fn a_threshold_of_ones_own_takes_the_place_of_the_bound_on_joins() {
    let _beside = beside();
    let args = [
        "--duration=1s",
        "--audio-publishers=0",
        "--embedded-impair=cohort=50%,outage=90s@0s",
        "--threshold=join.pending<=6",
    ];
    let ended = run(&small(&args));
    let reasons = reasons(&ended);
    assert!(ended.number("/join/pending") >= 1.0 && !reasons.contains("bound 1 %"), "{reasons}");
    let refused = ["--duration=1s", "--embedded-flag=--refuse-joins=40%"];
    let ended = run(&small(&refused));
    ended.assert_code(1);
    assert_verdict(&ended, "fail", "server", &["failed (", "x http_503", "bound 1 %"]);
    let own = [&refused[..], &["--threshold=join.failed<=4"]].concat();
    assert!(!self::reasons(&run(&small(&own))).contains("bound 1 %"));
}

#[test]
fn an_outage_of_ours_explains_joins_that_never_end() {
    let _beside = beside();
    let ended = run(&small(&["--duration=1s", "--impair=cohort=50%,outage=90s@0s"]));
    assert!(ended.number("/join/pending_at/ice") >= 1.0);
    let reasons = reasons(&ended);
    assert!(reasons.contains("still joining") && reasons.contains("on purpose"), "{reasons}");
    assert!(!reasons.contains("bound 1 %"), "{reasons}");
}

#[test]
fn tries_are_not_participants() {
    let _beside = beside();
    let args =
        ["--duration=1s", "--retry=3", "--retry-sleep=100ms", "--embedded-flag=--refuse-joins=40%"];
    let ended = run(&small(&args));
    assert_balanced(ended.report());
    let (tries, failed) = (ended.number("/join/tries_failed"), ended.number("/join/failed"));
    assert_eq!(ended.number("/join/errors/http_503"), tries);
    assert!(failed < tries, "{failed} participants, {tries} tries");
    assert_eq!(ended.number("/join/joined") + failed, ended.number("/join/requested"));
}

/// An interrupted run says so wherever it is shown, and again when it is rendered.
fn assert_interrupted(ended: &Ended) {
    ended.assert_code(105);
    assert_balanced(ended.report());
    assert_eq!(ended.report()["run"]["interrupted"], true);
    assert_eq!(ended.report()["verdict"]["result"], "interrupted");
    assert!(reasons(ended).starts_with("interrupted by a signal: "), "{}", reasons(ended));
    assert!(ended.stdout.contains("INTERRUPTED"), "{}", ended.stdout);
    let dir = tempfile::tempdir().unwrap();
    for form in FORMS {
        let (text, code) = rendered(ended, form, dir.path());
        assert_eq!(code, Some(105), "{form}");
        let word = if form == "json" { "\"interrupted\"" } else { "INTERRUPTED" };
        assert!(text.contains(word) && !text.contains("PASS"), "{form}: {text}");
        if form == "junit" {
            assert!(text.contains("errors=\"1\"") && text.contains("<error "), "{text}");
            assert!(!text.contains("classname=\"stampede.threshold\"/>"), "{text}");
        }
    }
    // Two hosts, one of which ran to its end.
    let mut other = ended.report().clone();
    other["run"]["id"] = "other".into();
    other["run"]["interrupted"] = false.into();
    other["verdict"]["result"] = "pass".into();
    let path = dir.path().join("other.json");
    fs::write(&path, other.to_string()).unwrap();
    let merged = stampede().arg("report").arg(dir.path().join("r.json")).arg(&path).output();
    let merged = merged.unwrap();
    assert_eq!(merged.status.code(), Some(105));
    assert!(String::from_utf8_lossy(&merged.stdout).contains("INTERRUPTED"));
}

#[test]
fn a_run_interrupted_in_its_ramp_is_never_green() {
    let _beside = beside();
    let args = ["--subscribers=50", "--num-per-second=2", "--threshold=join.failed==0"];
    let mut running = Running::start(&small(&args));
    running.wait_for(" ramp ");
    running.signal(Signal::TERM);
    let ended = running.end();
    assert_interrupted(&ended);
    assert!(ended.number("/join/not_started") > 40.0);
}

#[test]
fn a_run_interrupted_while_everybody_leaves_is_never_green() {
    let _beside = beside();
    // A server that stands still makes leaving take a second: the signal comes in it.
    let sfu = Sfu::start(&[]);
    let mut running = sfu.run(&["--subscribers=3", "--duration=1s", "--no-tui"]);
    running.wait_for(" hold ");
    sfu.signal(Signal::STOP);
    running.wait_for(" leave ");
    running.signal(Signal::INT);
    let ended = running.end();
    sfu.signal(Signal::CONT);
    assert_interrupted(&ended);
}

#[test]
fn a_server_that_dies_just_before_the_end_is_named() {
    let _beside = beside();
    for (signal, fault, word) in [
        (Signal::KILL, "server", "connection refused"),
        (Signal::STOP, "unknown", "no answer within 2s"),
    ] {
        let sfu = Sfu::start(&[]);
        let mut running = sfu.run(&["--subscribers=3", "--duration=3s", "--no-tui"]);
        running.wait_for(" hold ");
        std::thread::sleep(Duration::from_millis(2_200));
        sfu.signal(signal);
        let ended = running.end();
        sfu.signal(Signal::CONT);
        ended.assert_code(1);
        assert_balanced(ended.report());
        let address = sfu.url.trim_start_matches("ws://");
        let said = format!("the server at {address} did not answer any more at the end: {word}");
        assert_verdict(&ended, "fail", fault, &[&said]);
        if signal == Signal::KILL {
            assert_verdict(&ended, "fail", fault, &["had lost their connection"]);
            assert_eq!(ended.number("/join/dropped"), ended.number("/join/joined"));
        }
    }
}

#[test]
fn a_recording_that_is_not_whole_is_no_pass() {
    let _beside = beside();
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("rec");
    let flag = format!("--record={}", record.display());
    let args = [&small(&["--subscribers=1", "--duration=4s"])[..], &[&flag]].concat();
    for harm in ["none", "remove", "replace"] {
        let _ = fs::remove_dir_all(&record);
        let mut running = Running::start(&args);
        running.wait_for(" hold ");
        std::thread::sleep(Duration::from_millis(2_500));
        let first = files(&record, "ivf").pop().expect("a recording");
        match harm {
            "remove" => fs::remove_dir_all(&record).unwrap(),
            "replace" => {
                fs::copy(&first, dir.path().join("copy")).unwrap();
                fs::remove_file(&first).unwrap();
                fs::copy(dir.path().join("copy"), &first).unwrap();
            }
            _ => {}
        }
        let ended = running.end();
        let path = first.display().to_string();
        match harm {
            "none" => ended.assert_code(0),
            "remove" => {
                ended.assert_code(1);
                assert_verdict(&ended, "fail", "generator", &[&path, "is not there any more"]);
            }
            _ => {
                ended.assert_code(1);
                assert_verdict(&ended, "fail", "generator", &[&path, "another file is in its"]);
            }
        }
    }
}

#[test]
fn a_recording_onto_a_full_disk_is_no_pass() {
    let _beside = beside();
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("t");
    fs::create_dir(&at).unwrap();
    // Needs root, as namespaces do.
    let Some(_) = Namespace::new() else { return };
    let mount = format!("mount -t tmpfs -o size=300k none {} && exec \"$0\" \"$@\"", at.display());
    let wrapper = ["unshare", "-m", "sh", "-c", &mount];
    let flag = format!("--record={}", at.display());
    let args =
        [&small(&["--subscribers=1", "--duration=4s", "--video-resolution=high"])[..], &[&flag]]
            .concat();
    let ended = Running::start_under(&wrapper, &args, |_| {}).end();
    ended.assert_code(1);
    let path = format!("recording: {}", at.display());
    assert_verdict(&ended, "fail", "generator", &[&path, "No space left on device"]);
    assert!(ended.number("/recordings/frames_dropped") > 0.0);
}

#[test]
fn a_capture_that_can_t_be_written_is_no_pass() {
    let _beside = beside();
    let dir = tempfile::tempdir().unwrap();
    let captures = dir.path().join("cap");
    fs::create_dir(&captures).unwrap();
    let flag = format!("--capture={}", captures.display());
    let args = [&small(&["--subscribers=2", "--duration=3s"])[..], &[&flag]].concat();
    let mut running = Running::start(&args);
    running.wait_for(" hold ");
    fs::remove_dir(&captures).unwrap();
    let ended = running.end();
    ended.assert_code(1);
    let said = format!("capture: {}", captures.display());
    assert_verdict(&ended, "fail", "generator", &[&said, "cannot be written"]);
}

#[test]
fn the_summary_and_the_verdict_name_the_same_lateness() {
    let _beside = beside();
    let mut running = Running::start(&small(&["--duration=3s"]));
    running.wait_for(" hold ");
    for _ in 0..3 {
        running.signal(Signal::STOP);
        std::thread::sleep(Duration::from_millis(600));
        running.signal(Signal::CONT);
        std::thread::sleep(Duration::from_millis(100));
    }
    let ended = running.end();
    let worker = |key: &str| ended.number(&format!("/generator/workers/0/{key}/p99"));
    let (timers, datagrams) = (worker("lateness_ms"), worker("batch_age_ms"));
    let said = format!("p99: timers {timers:.1} ms late, datagrams {datagrams:.1} ms old");
    assert!(ended.stdout.contains(&said), "{said}: {}", ended.stdout);
    let reasons = reasons(&ended);
    for (late_ms, what) in [(timers, "its timers ran"), (datagrams, "its datagrams were")] {
        assert_eq!(late_ms > 200.0, reasons.contains(what), "{late_ms}: {reasons}");
    }
}

#[test]
fn unlike_runs_are_compared_by_rates() {
    let _beside = beside();
    let dir = tempfile::tempdir().unwrap();
    let report = |name: &str, args: &[&'static str]| {
        let ended = run(&small(args));
        let path = dir.path().join(name);
        fs::write(&path, ended.report().to_string()).unwrap();
        path
    };
    let base = report("base", &["--subscribers=4", "--duration=2s"]);
    let new = report("new", &["--subscribers=8", "--duration=4s"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_stampede"));
    command.arg("compare").arg(&base).arg(&new);
    // Four times as many packets, and the same rate.
    command
        .args(["--fail-if=video.packets.expected>+20%", "--fail-if=video.packets.expected<-20%"]);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("  the options differ"), "{text}");
    assert!(text.contains("2.0 -> 4.0") && text.contains("4 -> 8"), "{text}");
    assert_eq!(text.matches("kept").count(), 2, "{text}");
    assert_eq!(output.status.code(), Some(0), "{text}");
}
