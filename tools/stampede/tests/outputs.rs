//! Outputs that survive: full disks, pipes without readers, names of one file, signals, terminals
//! and readers that go away.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Running, beside, files, stampede, stampede_under};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use stampede_testing::skip;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../report/tests/fixtures/report.json");

/// The shortest run that there is.
const SHORT: [&str; 6] = [
    "run",
    "--subscribers=1",
    "--audio-publishers=0",
    "--num-per-second=50",
    "--duration=1s",
    "--quiet",
];

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

fn arg(kind: &str, path: &Path) -> String {
    format!("--out={kind}={}", path.display())
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), signal).unwrap();
}

/// A child that does not outlive its test.
struct Guarded(Child);

impl std::ops::Deref for Guarded {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl std::ops::DerefMut for Guarded {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Its exit code; the test fails if it takes longer.
fn code_within(child: &mut Child, limit: Duration) -> Option<i32> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() > deadline {
            panic!("still running after {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until a file holds `needle`.
fn wait_for(path: &Path, needle: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !text(&fs::read(path).unwrap_or_default()).contains(needle) {
        assert!(Instant::now() < deadline, "no {needle:?} in {:?}", fs::read_to_string(path));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_man_page_and_completions_go_to_stdout() {
    for (args, has) in [(&["man"][..], ".TH stampede 1"), (&["completions", "bash"], "complete -F")]
    {
        let output = stampede().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains(has), "{args:?}: {}", text(&output.stdout));
        assert_eq!(text(&output.stderr), "");
    }
    let output = stampede().args(["completions", "cmd"]).output().unwrap();
    assert_eq!(output.status.code(), Some(104));
    assert!(text(&output.stderr).contains("bash, elvish, fish, powershell, zsh"));
}

#[test]
fn a_report_goes_into_a_fifo() {
    let _beside = beside();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    fifo(&path);
    let to_read = path.clone();
    // As `cat` does: to the first end of what is written.
    let reader = std::thread::spawn(move || fs::read(to_read).unwrap());
    let ended = stampede().args(SHORT).arg(arg("json", &path)).output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    let got: Value = serde_json::from_slice(&reader.join().unwrap()).unwrap();
    assert_eq!(got["verdict"]["result"], "pass");
}

#[test]
fn a_signal_gives_up_a_fifo_that_nobody_reads_and_the_other_reports_say_so() {
    let _beside = beside();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fifo(&path("fifo"));
    let child = stampede()
        .args(SHORT)
        .args([arg("markdown", &path("fifo")), arg("json", &path("r.json"))])
        .args([arg("junit", &path("j.xml"))])
        .stdout(File::create(path("stdout")).unwrap())
        .stderr(File::create(path("stderr")).unwrap())
        .spawn();
    let mut child = Guarded(child.unwrap());
    wait_for(&path("stderr"), "is a pipe: waiting for a reader");
    assert_eq!(json(&path("r.json"))["verdict"]["result"], "pass", "files come first");
    signal(&child, Signal::TERM);
    assert_eq!(code_within(&mut child, Duration::from_secs(5)), Some(105));
    let verdict = &json(&path("r.json"))["verdict"];
    let reason = verdict["reasons"][0].as_str().unwrap();
    assert_eq!((&verdict["result"], &verdict["fault"]), (&"fail".into(), &"none".into()));
    assert!(reason.contains("could not be written to") && reason.contains("fifo"), "{reason}");
    assert!(fs::read_to_string(path("j.xml")).unwrap().contains("could not be written"));
    assert!(fs::read_to_string(path("stderr")).unwrap().contains("error: the report could not"));
    let summary = fs::read_to_string(path("stdout")).unwrap();
    assert!(summary.contains("FAIL") && summary.contains("could not be written"), "{summary}");
}

#[test]
fn a_second_signal_does_not_wait_for_a_fifo() {
    let _beside = beside();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fifo(&path("fifo"));
    let child = stampede()
        .args(["run", "--subscribers=1", "--duration=5m", "--no-tui"])
        .args([arg("csv", &path("fifo")), arg("json", &path("r.json"))])
        .stdout(Stdio::null())
        .stderr(File::create(path("stderr")).unwrap())
        .spawn();
    let mut child = Guarded(child.unwrap());
    wait_for(&path("stderr"), " hold ");
    signal(&child, Signal::INT);
    wait_for(&path("stderr"), "is a pipe: waiting for a reader");
    signal(&child, Signal::INT);
    assert_eq!(code_within(&mut child, Duration::from_secs(2)), Some(105));
    assert_eq!(json(&path("r.json"))["run"]["interrupted"], true);
}

#[test]
fn a_signal_ends_the_writing_of_stored_reports() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fifo(&path("fifo"));
    let child = stampede()
        .args(["report", FIXTURE])
        .args([arg("json", &path("fifo")), arg("json", &path("r.json"))])
        .stderr(File::create(path("stderr")).unwrap())
        .spawn();
    let mut child = Guarded(child.unwrap());
    wait_for(&path("stderr"), "waiting for a reader");
    signal(&child, Signal::HUP);
    assert_eq!(code_within(&mut child, Duration::from_secs(5)), Some(105));
    assert_eq!(json(&path("r.json"))["verdict"], json(FIXTURE.as_ref())["verdict"]);
}

#[test]
fn stdout_is_for_the_report_alone() {
    let _beside = beside();
    let ended = stampede().args(SHORT).arg("--out=json=-").output().unwrap();
    assert_eq!((ended.status.code(), text(&ended.stderr).as_str()), (Some(0), ""));
    let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(report["verdict"]["result"], "pass");
    // Without --quiet the summary goes to stderr.
    let args = SHORT.iter().filter(|arg| **arg != "--quiet");
    let ended =
        stampede().args(args).args(["--no-tui", "--out=json=/dev/stdout"]).output().unwrap();
    assert!(serde_json::from_slice::<Value>(&ended.stdout).is_ok(), "{}", text(&ended.stdout));
    assert!(text(&ended.stderr).contains("PASS  2 of 2 joined"), "{}", text(&ended.stderr));
}

#[test]
fn stdout_takes_reports_whatever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("all");
    // An open file keeps its place: what was there before stays.
    let mut file = File::create(&path).unwrap();
    file.write_all(b"before\n").unwrap();
    let ended = stampede().args(["report", FIXTURE, "--out=json=-"]).stdout(file).output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    let whole = fs::read_to_string(&path).unwrap();
    assert!(serde_json::from_str::<Value>(whole.strip_prefix("before\n").unwrap()).is_ok());
    // A reader that has seen enough is no error, a full disk is.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = stampede().args(["report", FIXTURE, "--out=json=-"]).stdout(writer).output();
    assert_eq!(ended.unwrap().status.code(), Some(0));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let ended = stampede().args(["report", FIXTURE, "--out=json=-"]).stdout(full).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(text(&ended.stderr).contains("could not be written to -: No space left"));
}

#[test]
fn outputs_that_are_one_file_are_refused_before_anything_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let refuse = |args: &[&str], why: &str| {
        let mut command = stampede();
        command.current_dir(dir.path()).args(args).stdin(Stdio::null());
        let ended = command.output().unwrap();
        assert_eq!(ended.status.code(), Some(104), "{args:?}: {}", text(&ended.stdout));
        assert!(text(&ended.stderr).contains(why), "{args:?}: {}", text(&ended.stderr));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    };
    refuse(&["run", "--out=json=x", "--out=csv=x"], "given twice");
    refuse(&["run", "--out=json=x", "--out=csv=./x"], "by another name");
    refuse(&["report", FIXTURE, "--out=json=-", "--out=csv=/dev/fd/1"], "by another name");
    refuse(&["report", FIXTURE, "--out", &format!("html={FIXTURE}")], "would be lost");
    refuse(&["run", "--find=subscribers", "--until=join.failed==0", "--out=json=."], "folder");
    // The shell's `> x` and the report's.
    let path = dir.path().join("x");
    let ended = stampede()
        .current_dir(dir.path())
        .args(["report", FIXTURE, "--out=json=x"])
        .stdout(File::create(&path).unwrap())
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(104));
    assert!(text(&ended.stderr).contains("stdout goes to this file already"));
}

/// Runs a script in a mount namespace with a small disk at `t`; `None`, and a skip, where that takes
/// more than we are.
fn with_small_disk(size: &str, script: &str) -> Option<(tempfile::TempDir, Output)> {
    let dir = tempfile::tempdir().unwrap();
    let mount = format!("mkdir t && mount -t tmpfs -o size={size} none t || exit 77; {script}");
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &mount])
        .env("S", env!("CARGO_BIN_EXE_stampede"))
        .env("FIXTURE", FIXTURE)
        .current_dir(dir.path())
        .output();
    match output {
        Ok(output)
            if !text(&output.stderr).contains("unshare failed")
                && output.status.code() != Some(77) =>
        {
            Some((dir, output))
        }
        refused => {
            skip(format!("needs root to mount a disk: {refused:?}"));
            None
        }
    }
}

#[test]
fn a_full_disk_leaves_the_old_report_and_fails_the_run() {
    let _beside = beside();
    let script = "echo '{\"old\":1}' > t/r.json; chmod 640 t/r.json
        \"$S\" run --subscribers 1 --audio-publishers 0 --duration 1s --quiet \\
            --out json=t/r.json --out json=good.json --out markdown=good.md --out junit=good.xml > o.txt 2> e.txt
        echo $? > code; cat t/r.json > kept; ls -A t > names; stat -c %a t/r.json > mode";
    let Some((dir, output)) = with_small_disk("8k", script) else { return };
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    assert_eq!(read("kept"), "{\"old\":1}\n", "{output:?}");
    assert_eq!((read("names").as_str(), read("mode").as_str()), ("r.json\n", "640\n"));
    assert_eq!(read("code"), "1\n", "{}", read("e.txt"));
    let why = "the report could not be written to t/r.json: No space left on device";
    let verdict = &json(&dir.path().join("good.json"))["verdict"];
    assert_eq!(verdict["result"], "fail");
    assert!(verdict["reasons"][0].as_str().unwrap().starts_with(why), "{verdict}");
    for form in ["good.md", "good.xml", "o.txt", "e.txt"] {
        assert!(read(form).contains(why), "{form}: {}", read(form));
    }
    assert!(read("o.txt").contains("FAIL"));
}

#[test]
fn a_file_that_can_only_be_overwritten_is_overwritten_whole_or_not_at_all() {
    let script = "echo old > given; touch r.json; mount --bind given r.json || exit 77
        \"$S\" report \"$FIXTURE\" --out json=r.json; echo $? > code; umount r.json
        mkdir ro; touch ro/r.json other; mount --bind ro ro; mount --bind other ro/r.json
        mount -o remount,bind,ro ro || exit 77
        \"$S\" report \"$FIXTURE\" --out json=ro/r.json; echo $? >> code
        echo old > t/one; ln t/one t/two
        \"$S\" report \"$FIXTURE\" --out json=t/two; echo $? >> code; cat t/one > kept";
    let Some((dir, output)) = with_small_disk("8k", script) else { return };
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    assert_eq!(read("code"), "0\n0\n1\n", "{output:?}");
    for name in ["given", "other"] {
        assert_eq!(json(&dir.path().join(name))["schema"], "stampede.report.v1");
    }
    assert_eq!(read("kept"), "old\n");
}

/// A run under way with a recording, a report and everything it says in files of a folder.
fn recording(dir: &Path, wrapper: &[&str]) -> Guarded {
    let mut command = stampede_under(wrapper);
    command.args(["run", "--subscribers=2", "--num-per-second=50", "--duration=5m", "--no-tui"]);
    command.args(["--record=rec", "--out=json=r.json"]).current_dir(dir);
    command.stdout(File::create(dir.join("stdout")).unwrap());
    command.stderr(File::create(dir.join("stderr")).unwrap());
    let child = Guarded(command.spawn().unwrap());
    wait_for(&dir.join("stderr"), " hold ");
    child
}

#[test]
fn a_terminal_that_goes_away_ends_a_run_with_its_report() {
    let _beside = beside();
    for end in [Signal::HUP, Signal::QUIT] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = recording(dir.path(), &[]);
        signal(&child, end);
        assert_eq!(code_within(&mut child, Duration::from_secs(30)), Some(105), "{end:?}");
        assert_eq!(json(&dir.path().join("r.json"))["run"]["interrupted"], true);
        assert_eq!(files(&dir.path().join("rec"), "ivf").len(), 1);
    }
}

#[test]
fn nohup_is_respected() {
    let _beside = beside();
    let dir = tempfile::tempdir().unwrap();
    let mut child = recording(dir.path(), &["env", "--ignore-signal=HUP"]);
    signal(&child, Signal::HUP);
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(child.try_wait().unwrap().is_none(), "SIGHUP ended it");
    signal(&child, Signal::TERM);
    assert_eq!(code_within(&mut child, Duration::from_secs(30)), Some(105));
}

#[test]
fn a_hangup_between_two_steps_of_a_search_ends_it_with_its_report() {
    let _beside = beside();
    let mut running = Running::start(&[
        "run",
        "--find=subscribers",
        "--until=join.failed==0",
        "--find-min=2",
        "--find-hold=1s",
        "--no-tui",
    ]);
    running.wait_for("find: 2 subscribers");
    running.signal(Signal::HUP);
    let ended = running.end();
    ended.assert_code(105);
    assert_eq!(ended.report()["find"]["complete"], false);
}

#[test]
fn the_sfu_ends_in_order_at_a_hangup() {
    let child = stampede()
        .args(["sfu", "--port=0", "--rtc-port=0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = Guarded(child.unwrap());
    let mut stdout = child.stdout.take().unwrap();
    let mut ready = [0; 1];
    stdout.read_exact(&mut ready).unwrap();
    signal(&child, Signal::HUP);
    assert_eq!(code_within(&mut child, Duration::from_secs(10)), Some(0));
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let ledger: Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    assert!(ledger.is_object(), "{rest}");
}

/// A pipe that nobody reads any more.
fn gone() -> OwnedFd {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn readers_of_stderr_and_stdout_that_go_away_cost_nothing() {
    let _beside = beside();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let ended = stampede()
        .args(["run", "--find=subscribers", "--until=video.loss_rate<0.5", "--find-min=2"])
        .args(["--find-max=4", "--find-hold=1s", "--no-tui", "--num-per-second=50"])
        .arg(arg("json", &path("find.json")))
        .env("RUST_LOG", "debug")
        .stdout(gone())
        .stderr(gone())
        .status()
        .unwrap();
    assert_eq!(ended.code(), Some(0));
    assert_eq!(json(&path("find.json"))["find"]["highest_ok"], 4);
}

#[test]
fn what_only_prints_ends_well_without_a_reader() {
    for args in [
        &["--help"][..],
        &["run", "--help"],
        &["--version"],
        &["report", FIXTURE],
        &["report", FIXTURE, "--out=json=-"],
        &["compare", FIXTURE, FIXTURE],
        &["doctor", "--participants=1"],
    ] {
        let ended = stampede().args(args).stdout(gone()).stderr(gone()).status().unwrap();
        assert_eq!(ended.code(), Some(0), "{args:?}");
    }
    let ended = stampede().args(["run", "--rooms=0"]).stdout(gone()).stderr(gone()).status();
    assert_eq!(ended.unwrap().code(), Some(104));
}

#[test]
fn the_sfu_serves_on_without_anybody_who_reads_what_it_says() {
    let _beside = beside();
    let dir = tempfile::tempdir().unwrap();
    let child = stampede()
        .args(["sfu", "--port=0", "--rtc-port=0"])
        .env("RUST_LOG", "debug")
        .stdout(Stdio::piped())
        .stderr(gone())
        .spawn();
    let mut child = Guarded(child.unwrap());
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    drop(stdout);
    let ready: Value = serde_json::from_str(&line).unwrap();
    let ended = stampede()
        .args(SHORT)
        .args(["--video-publishers=1", "--api-key=devkey", "--url", ready["url"].as_str().unwrap()])
        .arg(arg("json", &dir.path().join("r.json")))
        .env("LIVEKIT_API_SECRET", "secret")
        .output()
        .unwrap();
    signal(&child, Signal::INT);
    let code = code_within(&mut child, Duration::from_secs(10));
    assert_eq!(ended.status.code(), Some(0), "{}{}", text(&ended.stdout), text(&ended.stderr));
    assert_eq!(code, Some(0));
}

#[test]
fn the_full_screen_s_terminal_goes_away() {
    let _beside = beside();
    let dir = tempfile::tempdir().unwrap();
    // It becomes the first process of the terminal's session, which is told when that is gone.
    let inside = format!(
        "stty rows 40 cols 120; exec env --default-signal=HUP {} run --subscribers=1 \
         --duration=5m --out=json=r.json",
        env!("CARGO_BIN_EXE_stampede")
    );
    let mut command = Command::new("script");
    command.args(["--quiet", "--flush", "--command", &inside, "typescript"]);
    command.current_dir(dir.path()).env("TERM", "xterm").env("SHELL", "/bin/sh");
    command.env_remove("NO_COLOR").env_remove("LIVEKIT_URL");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut terminal = match command.spawn() {
        Ok(terminal) => Guarded(terminal),
        Err(error) => return skip(format!("script (util-linux) can't be run: {error}")),
    };
    wait_for(&dir.path().join("typescript"), "hold");
    assert!(text(&fs::read(dir.path().join("typescript")).unwrap()).contains("\u{1b}[?1049h"));
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    wait_for(&dir.path().join("r.json"), "\"streams_total\"");
    assert_eq!(json(&dir.path().join("r.json"))["run"]["interrupted"], true);
}

#[test]
fn the_embedded_sfu_leaves_a_session_s_signals_to_its_parent() {
    // The embedded one is told by nobody but its parent: a hangup for all of a session's processes
    // ends the run, not the server under it.
    let _beside = beside();
    let mut running = Running::start(&["run", "--subscribers=1", "--duration=5m", "--no-tui"]);
    running.wait_for(" hold ");
    let [child] = common::children(running.pid())[..] else { panic!("one child") };
    for end in [Signal::HUP, Signal::INT, Signal::QUIT] {
        kill_process(Pid::from_raw(child as i32).unwrap(), end).unwrap();
    }
    running.signal(Signal::HUP);
    let ended = running.end();
    ended.assert_code(105);
    assert!(ended.report()["server"]["embedded"].is_object(), "{:?}", ended.report()["server"]);
}
