//! Drives the clients of `tools/foreign`, which Stampede did not write.

use std::io::Write;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use stampede_testing::{skip, skip_without_server};

use super::fake::Line;
use super::{KEY, Running, SECRET, Sfu};

/// Longest that a foreign client may take over all it does.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(150);
/// A foreign client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    Chromium,
    Python,
}

fn foreign_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../foreign")
}

/// Whether a command runs to a good end.
fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

impl Client {
    /// The command that runs its script, or what is missing for that.
    fn command(self) -> Result<Command, String> {
        match self {
            Client::Chromium => {
                let script = foreign_dir().join("chromium.mjs");
                if !succeeds(Command::new("node").arg("--version")) {
                    return Err("node is not installed".to_owned());
                }
                if !foreign_dir().join("node_modules/livekit-client").exists() {
                    return Err("livekit-client is missing: cd tools/foreign && npm ci".to_owned());
                }
                // The script itself knows where browsers are.
                if !succeeds(Command::new("node").arg(&script).arg("check")) {
                    return Err("Chromium is not installed: apt-get install chromium".to_owned());
                }
                let mut command = Command::new("node");
                command.arg(script);
                Ok(command)
            }
            Client::Python => {
                let packages = "import livekit.rtc, livekit.api, numpy";
                let own = foreign_dir().join(".venv/bin/python3");
                let known = [own, PathBuf::from("python3")];
                let found = known
                    .into_iter()
                    .find(|python| succeeds(Command::new(python).args(["-c", packages])));
                let python = found.ok_or(
                    "livekit for Python is missing: python3 -m venv tools/foreign/.venv && \
                     tools/foreign/.venv/bin/pip install -r tools/foreign/requirements.txt",
                )?;
                let mut command = Command::new(python);
                command.arg(foreign_dir().join("python_client.py"));
                Ok(command)
            }
        }
    }

    /// The command; `None`, and a skip, where the client isn't installed.
    pub(crate) fn available(self) -> Option<Command> {
        self.command().inspect_err(|error| skip(error)).ok()
    }
}

/// A server to meet at.
pub(crate) struct Server {
    url: String,
    key: String,
    secret: String,
    /// Ends with this value.
    sfu: Option<Sfu>,
    /// Resumes that a test brought about.
    resumes: AtomicU32,
}

impl Server {
    pub(crate) fn embedded(args: &[&str]) -> Self {
        let sfu = Sfu::start(args);
        let (key, secret) = (KEY.to_owned(), SECRET.to_owned());
        let resumes = AtomicU32::new(0);
        Self { url: sfu.url.clone(), key, secret, sfu: Some(sfu), resumes }
    }

    /// The server of the environment.
    pub(crate) fn real() -> Option<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(url) = variable("LIVEKIT_URL") else {
            skip_without_server("LIVEKIT_URL is not set");
            return None;
        };
        let secret = |name: &str| variable(name).unwrap_or_else(|| panic!("{name} is not set"));
        let (key, secret) = (secret("LIVEKIT_API_KEY"), secret("LIVEKIT_API_SECRET"));
        Some(Self { url, key, secret, sfu: None, resumes: AtomicU32::new(0) })
    }

    /// It is Stampede's own.
    pub(crate) fn is_embedded(&self) -> bool {
        self.sfu.is_some()
    }

    /// Ends it. All have joined by v1, if it was Stampede's own: nobody fell back to v0. Its ledger, if
    /// it was.
    pub(crate) fn end(self) -> Value {
        let Some(sfu) = self.sfu else { return Value::Null };
        let ledger = sfu.end();
        assert_eq!(ledger["joins_v1"], ledger["joins"], "{ledger:#}");
        let resumes = self.resumes.into_inner();
        assert_eq!((&ledger["joins_refused"], &ledger["resumes"]), (&0.into(), &resumes.into()));
        ledger
    }

    /// A room that nothing else of this process is in.
    pub(crate) fn room(&self) -> String {
        static ROOMS: AtomicU32 = AtomicU32::new(0);
        let number = ROOMS.fetch_add(1, Ordering::Relaxed);
        format!("foreign-{}-{number}", std::process::id())
    }

    /// Starts `stampede run` here.
    pub(crate) fn stampede(&self, room: &str, args: &[&str]) -> Running {
        let fixed = ["run", "--no-tui", "--url", &self.url, "--api-key", &self.key, "--room", room];
        Running::start_with(&[&fixed[..], args].concat(), |command| {
            command.env("LIVEKIT_API_SECRET", &self.secret);
        })
    }

    /// A way to its signalling that can be cut once.
    pub(crate) fn line(&self) -> Line {
        let host = self.url.strip_prefix("ws://").expect("TLS can't be carried under another name");
        let address = host.trim_end_matches('/').to_socket_addrs().unwrap().next().unwrap();
        self.resumes.fetch_add(1, Ordering::Relaxed);
        Line::to(address)
    }

    /// Starts a foreign client here.
    pub(crate) fn client(&self, command: Command, room: &str, args: &[&str]) -> Foreign {
        self.client_by(&self.url, command, room, args)
    }

    /// The same by this URL.
    pub(crate) fn client_by(
        &self,
        url: &str,
        mut command: Command,
        room: &str,
        args: &[&str],
    ) -> Foreign {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| std::fs::File::create(dir.path().join(name)).unwrap();
        command.args(args).args(["--room", room, "--expect", "video,audio"]);
        command.env("LIVEKIT_URL", url);
        command.env("LIVEKIT_API_KEY", &self.key).env("LIVEKIT_API_SECRET", &self.secret);
        command.stdin(Stdio::piped()).stdout(file("stdout")).stderr(file("stderr"));
        let child = command.spawn().unwrap();
        Foreign { child, dir, began: Instant::now() }
    }
}

/// A foreign client under way.
pub(crate) struct Foreign {
    child: Child,
    dir: tempfile::TempDir,
    began: Instant,
}

impl Foreign {
    fn text(&self, name: &str) -> String {
        let bytes = std::fs::read(self.dir.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Has a publisher do something, and waits until it says that it is done: `mute` and `muted`.
    pub(crate) fn tell(&mut self, command: &str, done: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{command}").unwrap();
        self.wait_for(done);
    }

    /// Waits until it has said this word on stderr: `published` or `watching`.
    pub(crate) fn wait_for(&mut self, word: &str) {
        while !self.text("stderr").lines().any(|line| line == word) {
            let gone = self.child.try_wait().unwrap();
            assert!(gone.is_none(), "ended before it {word}: {}", self.text("stderr"));
            assert!(self.began.elapsed() < CLIENT_TIMEOUT, "{}", self.text("stderr"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for its end and its line of figures; fails if the client says that it failed.
    pub(crate) fn end(mut self) -> Figures {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(self.began.elapsed() < CLIENT_TIMEOUT, "hangs: {}", self.text("stderr"));
            std::thread::sleep(Duration::from_millis(50));
        };
        let (stdout, stderr) = (self.text("stdout"), self.text("stderr"));
        assert!(status.success(), "{status}: {stderr}\n{stdout}");
        let line = stdout.lines().last().unwrap_or_default();
        Figures(serde_json::from_str(line).unwrap_or_else(|_| panic!("{stdout:?}: {stderr}")))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Asks it to end now rather than after its seconds, and reads its figures.
    pub(crate) fn finish(self) -> Figures {
        self.signal(Signal::INT);
        self.end()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The line of JSON a foreign client ends with.
pub(crate) struct Figures(pub(crate) Value);

impl Figures {
    pub(crate) fn number(&self, pointer: &str) -> f64 {
        let value = self.0.pointer(pointer).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("no number at {pointer}: {:#}", self.0))
    }
}
