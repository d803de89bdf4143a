//! Runs the real binary and looks at what comes out.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

pub(crate) mod fake;
pub(crate) mod foreign;
pub(crate) mod hosts;
pub(crate) mod namespace;
pub(crate) mod observer;
pub(crate) mod relay;
pub(crate) mod small;
pub(crate) mod turn;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Longest that any one run of these tests may take.
const RUN_TIMEOUT: Duration = Duration::from_secs(130);

/// Lanes of media tests: more runs at once would starve each other on a small machine, and a starved
/// generator rightly calls its run invalid.
static LANES: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];

fn lane(number: usize) -> MutexGuard<'static, ()> {
    LANES[number].lock().unwrap_or_else(PoisonError::into_inner)
}

/// For a test whose load or timing bears no other run beside it: it takes every lane.
pub(crate) fn alone() -> [MutexGuard<'static, ()>; 2] {
    [lane(0), lane(1)]
}

/// For a test of a few participants that mostly waits: one other of its kind may run beside it.
pub(crate) fn beside() -> MutexGuard<'static, ()> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    lane(NEXT.fetch_add(1, Ordering::Relaxed) % LANES.len())
}

/// Rounds of a series, if one is asked for.
pub(crate) fn asked() -> Option<u64> {
    let asked = std::env::var("STAMPEDE_SERIES").ok()?;
    Some(asked.parse().expect("STAMPEDE_SERIES is a number"))
}

/// Tries something as often as `STAMPEDE_SERIES` says, each time with the number of the round, and
/// says how often it was right; once without it.
pub(crate) fn series(provoke: impl Fn(u64)) {
    let Some(rounds) = asked() else { return provoke(0) };
    // What went wrong was printed by the panic.
    let is_wrong = |round: &u64| catch_unwind(AssertUnwindSafe(|| provoke(*round))).is_err();
    let wrong: Vec<u64> = (0..rounds).filter(is_wrong).collect();
    let thread = std::thread::current();
    let (name, right) = (thread.name().unwrap_or_default(), rounds - wrong.len() as u64);
    // The test harness would swallow `println!` of a test that passes.
    let _ = writeln!(std::io::stderr(), "{name}: right in {right} of {rounds}");
    assert!(wrong.is_empty(), "wrong in rounds {wrong:?}");
}

/// The binary without anything of the developer's own environment.
pub(crate) fn stampede() -> Command {
    stampede_under(&[])
}

/// The same, run by a command that becomes it, such as `taskset`.
pub(crate) fn stampede_under(wrapper: &[&str]) -> Command {
    // It heeds hangups even where the tests run under `nohup`.
    let mut command = Command::new("env");
    command.arg("--default-signal=HUP").args(wrapper).arg(env!("CARGO_BIN_EXE_stampede"));
    for name in ["LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "RUST_LOG", "NO_COLOR"] {
        command.env_remove(name);
    }
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_ascii_uppercase());
    }
    command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
    command.env_remove("OTEL_EXPORTER_OTLP_HEADERS").env_remove("OTEL_RESOURCE_ATTRIBUTES");
    command
}

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub report: Option<Value>,
}

impl Ended {
    /// The report; panics with everything known if there is none.
    pub(crate) fn report(&self) -> &Value {
        self.report.as_ref().unwrap_or_else(|| panic!("no report: {self:#?}"))
    }

    /// A number of the report.
    pub(crate) fn number(&self, pointer: &str) -> f64 {
        let value = self.report().pointer(pointer);
        value.and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer} is {value:?}: {self:#?}"))
    }

    pub(crate) fn assert_code(&self, code: i32) {
        assert_eq!(
            self.code,
            Some(code),
            "{}\n{}\n{:#?}",
            self.stderr,
            self.stdout,
            self.verdict()
        );
    }

    /// The verdict's reasons, a line each.
    pub(crate) fn reasons(&self) -> String {
        let reasons = self.report()["verdict"]["reasons"].as_array().unwrap();
        reasons.iter().map(|reason| reason.as_str().unwrap()).collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn verdict(&self) -> Option<&Value> {
        self.report.as_ref().map(|report| &report["verdict"])
    }
}

/// A run under way.
pub(crate) struct Running {
    child: Child,
    dir: TempDir,
    began: Instant,
}

impl Running {
    /// Starts `stampede` with these arguments; `{out}` in them is a report file.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_with(args, |_| {})
    }

    pub(crate) fn start_with(args: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        Self::start_under(&[], args, prepare)
    }

    /// Under a command that becomes it, such as `ip netns exec NAME`.
    pub(crate) fn start_under(
        wrapper: &[&str],
        args: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let out = format!("json={}", dir.path().join("report.json").display());
        let mut command = stampede_under(wrapper);
        command.args(args);
        if args.first() == Some(&"run") {
            command.args(["--out", &out]);
        }
        command.stdin(Stdio::null());
        command.stdout(File::create(dir.path().join("stdout")).unwrap());
        command.stderr(File::create(dir.path().join("stderr")).unwrap());
        prepare(&mut command);
        let child = command.spawn().unwrap();
        Self { child, dir, began: Instant::now() }
    }

    fn text(&self, name: &str) -> String {
        let bytes = fs::read(self.dir.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until stderr holds `text`.
    pub(crate) fn wait_for(&mut self, text: &str) {
        while !self.text("stderr").contains(text) {
            let gone = self.child.try_wait().unwrap();
            assert!(gone.is_none(), "ended before {text:?}: {}", self.text("stderr"));
            assert!(self.began.elapsed() < RUN_TIMEOUT, "no {text:?}: {}", self.text("stderr"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id() as i32).unwrap(), signal).unwrap();
    }

    pub(crate) fn stderr(&self) -> String {
        self.text("stderr")
    }

    /// Waits for its end without looking at what it wrote.
    pub(crate) fn wait_for_end_within(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "still running: {}", self.text("stderr"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for its end, or kills it and fails.
    pub(crate) fn end(mut self) -> Ended {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if self.began.elapsed() > RUN_TIMEOUT {
                let _ = self.child.kill();
                panic!("still running after {RUN_TIMEOUT:?}: {}", self.text("stderr"));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        Ended {
            code: status.code(),
            stdout: self.text("stdout"),
            stderr: self.text("stderr"),
            report: serde_json::from_str(&self.text("report.json")).ok(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `stampede` to its end.
pub(crate) fn run(args: &[&str]) -> Ended {
    Running::start(args).end()
}

/// `stampede sfu` on free ports.
pub(crate) struct Sfu {
    child: Child,
    stdout: BufReader<ChildStdout>,
    pub url: String,
}

pub(crate) const KEY: &str = "testkey";
pub(crate) const SECRET: &str = "test-secret-0123456789-0123456789-abc";

impl Sfu {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_at(&[], "0", args)
    }

    /// Under a command that becomes it.
    pub(crate) fn start_under(wrapper: &[&str], args: &[&str]) -> Self {
        Self::start_at(wrapper, "0", args)
    }

    /// Another one at the same URL, once this one is killed.
    pub(crate) fn start_again(&mut self) {
        let (_, port) = self.url.rsplit_once(':').unwrap();
        *self = Self::start_at(&[], port, &[]);
    }

    fn start_at(wrapper: &[&str], port: &str, args: &[&str]) -> Self {
        let mut command = stampede_under(wrapper);
        command.args(["sfu", "--port", port, "--rtc-port", "0", "--api-key", KEY]).args(args);
        command.env("LIVEKIT_API_SECRET", SECRET);
        command.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"));
        Self { child, stdout, url: ready["url"].as_str().unwrap().to_owned() }
    }

    /// Ends it; the ledger that it says last.
    pub(crate) fn end(mut self) -> Value {
        self.signal(Signal::INT);
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        let last = rest.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|_| panic!("no ledger: {rest:?}"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // It may be gone already, but is not waited for, so that its number is its own still.
        let _ = kill_process(Pid::from_raw(self.child.id() as i32).unwrap(), signal);
    }

    /// Ends it without a good-bye.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts a run against it.
    pub(crate) fn run(&self, args: &[&str]) -> Running {
        self.run_under(&[], args)
    }

    /// Starts a run against it under a command that becomes it.
    pub(crate) fn run_under(&self, wrapper: &[&str], args: &[&str]) -> Running {
        let all = [&["run", "--url", &self.url, "--api-key", KEY], args].concat();
        Running::start_under(wrapper, &all, |command| {
            command.env("LIVEKIT_API_SECRET", SECRET);
        })
    }
}

impl Drop for Sfu {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Files of a folder with this extension.
pub(crate) fn files(dir: &std::path::Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    files
}

/// Processes whose parent is `pid`.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|word| word.parse().unwrap()).collect()
}
