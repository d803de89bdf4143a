//! Clients that Stampede did not write, on both ends: Chromium with livekit-client, and LiveKit's
//! Python client (native libwebrtc). `tools/foreign` holds the scripts that drive them.
//!
//! Each scenario runs against the embedded SFU, and against the server of `LIVEKIT_URL` where that
//! is set. A client that isn't installed skips its tests and says so, unless
//! `STAMPEDE_FOREIGN=required` is set (as `.ci/run` does): then it fails them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::{Ended, KEY, Running, SECRET, Sfu, alone};
use rustix::process::Signal;
use serde_json::Value;

/// Longest that a foreign client may take over all it does.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(100);
/// How long a foreign subscriber watches.
const WATCH_SECONDS: &str = "8";
/// How long a foreign publisher sends; longer than any subscriber needs, ended early by the test.
const PUBLISH_SECONDS: &str = "60";
/// Frames a foreign subscriber must decode in `WATCH_SECONDS` of a 20 to 30 fps picture.
const FRAMES_DECODED_MIN: f64 = 50.0;
/// What a foreign subscriber may lose: its own socket may overflow where it shares two cores with
/// an encoder. What Stampede receives must be whole.
const LOSS_RATE_MAX: f64 = 0.01;

/// A foreign client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Chromium,
    Python,
}

fn foreign_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../foreign")
}

/// Says so on the terminal: the test harness would swallow `println!` of a test that passes.
fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
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

    /// The command, or `None` (and word of it) if the client isn't there and need not be.
    fn available(self) -> Option<Command> {
        match self.command() {
            Ok(command) => Some(command),
            Err(why) => {
                let required = std::env::var("STAMPEDE_FOREIGN").is_ok_and(|it| it == "required");
                assert!(!required, "STAMPEDE_FOREIGN=required, but {why}");
                skip(&why);
                None
            }
        }
    }
}

/// A server to meet at.
struct Server {
    url: String,
    key: String,
    secret: String,
    /// Ends with this value.
    _sfu: Option<Sfu>,
}

impl Server {
    fn embedded(args: &[&str]) -> Self {
        let sfu = Sfu::start(args);
        let (key, secret) = (KEY.to_owned(), SECRET.to_owned());
        Self { url: sfu.url.clone(), key, secret, _sfu: Some(sfu) }
    }

    /// The server of the environment.
    fn real() -> Option<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(url) = variable("LIVEKIT_URL") else {
            skip("LIVEKIT_URL not set");
            return None;
        };
        let secret = |name: &str| variable(name).unwrap_or_else(|| panic!("{name} is not set"));
        let (key, secret) = (secret("LIVEKIT_API_KEY"), secret("LIVEKIT_API_SECRET"));
        Some(Self { url, key, secret, _sfu: None })
    }

    /// A room that nothing else of this process is in.
    fn room(&self) -> String {
        static ROOMS: AtomicU32 = AtomicU32::new(0);
        let number = ROOMS.fetch_add(1, Ordering::Relaxed);
        format!("foreign-{}-{number}", std::process::id())
    }

    /// Starts `stampede run` here.
    fn stampede(&self, room: &str, args: &[&str]) -> Running {
        let fixed = ["run", "--no-tui", "--url", &self.url, "--api-key", &self.key, "--room", room];
        Running::start_with(&[&fixed[..], args].concat(), |command| {
            command.env("LIVEKIT_API_SECRET", &self.secret);
        })
    }

    /// Starts a foreign client here.
    fn client(&self, mut command: Command, room: &str, args: &[&str]) -> Foreign {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| std::fs::File::create(dir.path().join(name)).unwrap();
        command.args(args).args(["--room", room, "--expect", "video,audio"]);
        command.env("LIVEKIT_URL", &self.url);
        command.env("LIVEKIT_API_KEY", &self.key).env("LIVEKIT_API_SECRET", &self.secret);
        command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        let child = command.spawn().unwrap();
        Foreign { child, dir, began: Instant::now() }
    }
}

/// A foreign client under way.
struct Foreign {
    child: Child,
    dir: tempfile::TempDir,
    began: Instant,
}

impl Foreign {
    fn text(&self, name: &str) -> String {
        let bytes = std::fs::read(self.dir.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until it has published its tracks.
    fn wait_for_published(&mut self) {
        while !self.text("stderr").contains("published\n") {
            let gone = self.child.try_wait().unwrap();
            assert!(gone.is_none(), "ended before it published: {}", self.text("stderr"));
            assert!(self.began.elapsed() < CLIENT_TIMEOUT, "{}", self.text("stderr"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for its end and its line of figures; fails if the client says that it failed.
    fn end(mut self) -> Figures {
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

    /// Asks a publisher to end now rather than after `PUBLISH_SECONDS`, and reads its figures.
    fn finish(self) -> Figures {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, Signal::INT).unwrap();
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
struct Figures(Value);

impl Figures {
    fn number(&self, pointer: &str) -> f64 {
        let value = self.0.pointer(pointer).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("no number at {pointer}: {:#}", self.0))
    }

    /// A subscriber saw a moving picture and heard sound.
    fn assert_watched(&self) {
        let decoded = self.number("/video/framesDecoded");
        let half = self.number("/video/framesDecodedHalf");
        assert!(decoded > FRAMES_DECODED_MIN, "{decoded} frames: {:#}", self.0);
        assert!(0.0 < half && half < decoded, "the picture stands: {:#}", self.0);
        assert!(self.number("/audio/packetsReceived") > 100.0, "{:#}", self.0);
        assert!(self.number("/audio/totalSamplesReceived") > 0.0, "{:#}", self.0);
    }

    /// A subscriber lost next to nothing.
    fn assert_whole(&self) {
        for kind in ["video", "audio"] {
            let lost = self.number(&format!("/{kind}/packetsLost"));
            let received = self.number(&format!("/{kind}/packetsReceived"));
            assert!(lost <= LOSS_RATE_MAX * received, "{lost} {kind} packets lost: {:#}", self.0);
        }
    }

    fn assert_size(&self, width: f64, height: f64) {
        let found = (self.number("/video/width"), self.number("/video/height"));
        assert_eq!(found, (width, height), "{:#}", self.0);
    }

    /// A publisher sent layers and sound. An encoder short of CPU leaves the top layer out.
    fn assert_published(&self) {
        assert!(self.number("/video/layersActive") >= 2.0, "{:#}", self.0);
        assert!(self.number("/video/framesSent") > FRAMES_DECODED_MIN, "{:#}", self.0);
        assert!(self.number("/audio/packetsSent") > 100.0, "{:#}", self.0);
    }
}

/// Stampede publishes its built-in clips, simulcast; a foreign client watches a layer.
fn stampede_to(client: Client, layer: &str, server: &Server) {
    let Some(command) = client.available() else { return };
    let room = server.room();
    let publisher = server.stampede(
        &room,
        &["--video-publishers=1", "--audio-publishers=1", "--subscribers=0", "--duration=2m"],
    );
    let mut args = vec!["subscribe", "--seconds", WATCH_SECONDS];
    if layer != "high" {
        args.extend(["--quality", layer]);
    }
    let figures = server.client(command, &room, &args).end();
    publisher.signal(Signal::INT);
    let ended = publisher.end();

    figures.assert_watched();
    figures.assert_whole();
    match layer {
        "high" => figures.assert_size(1280.0, 720.0),
        "medium" => figures.assert_size(640.0, 360.0),
        _ => figures.assert_size(320.0, 180.0),
    }
    // 105: a signal ended it, with a full report all the same.
    ended.assert_code(105);
    assert_eq!(ended.number("/join/joined"), 1.0);
    assert!(ended.number("/publish/frames_sent") > FRAMES_DECODED_MIN);
    assert!(ended.number("/publish/keyframes_sent") >= 1.0);
}

/// A foreign client publishes its own encoder's pictures, simulcast; Stampede watches.
fn stampede_from(client: Client, server: &Server) {
    let Some(command) = client.available() else { return };
    let room = server.room();
    let args = ["publish", "--seconds", PUBLISH_SECONDS];
    let mut publisher = server.client(command, &room, &args);
    publisher.wait_for_published();
    let ended = server.stampede(&room, &["--subscribers=2", "--duration=6s"]).end();
    let figures = publisher.finish();

    figures.assert_published();
    assert_received(&ended, 2.0);
}

/// Every subscriber got both tracks, all of them, and could show what it got.
fn assert_received(ended: &Ended, subscribers: f64) {
    ended.assert_code(0);
    assert_eq!(ended.number("/join/joined"), subscribers);
    for kind in ["video", "audio"] {
        assert_eq!(ended.number(&format!("/{kind}/tracks_received")), subscribers, "{kind}");
        assert_eq!(ended.number(&format!("/{kind}/packets/unrecovered")), 0.0, "{kind}");
        assert!(ended.number(&format!("/{kind}/packets/received")) > 100.0, "{kind}");
    }
    let decodable = ended.number("/video/frames/decodable");
    assert!(decodable > FRAMES_DECODED_MIN * subscribers, "{decodable} frames");
}

/// Two foreign clients meet; Stampede is at most the server.
fn between(publisher: Client, subscriber: Client, server: &Server) {
    let Some(publish) = publisher.available() else { return };
    let Some(subscribe) = subscriber.available() else { return };
    let room = server.room();
    let args = ["publish", "--seconds", PUBLISH_SECONDS];
    let mut publisher = server.client(publish, &room, &args);
    publisher.wait_for_published();
    let args = ["subscribe", "--seconds", WATCH_SECONDS];
    let watched = server.client(subscribe, &room, &args).end();
    let published = publisher.finish();

    published.assert_published();
    watched.assert_watched();
    watched.assert_whole();
}

/// Makes each scenario a test against the embedded SFU and one against the real server.
macro_rules! scenarios {
    ($($name:ident: $scenario:expr;)*) => {
        mod embedded {
            use super::*;
            $(#[test]
            fn $name() {
                let _alone = alone();
                $scenario(&Server::embedded(&[]));
            })*
        }

        mod real {
            use super::*;
            $(#[test]
            fn $name() {
                let _alone = alone();
                if let Some(server) = Server::real() {
                    $scenario(&server);
                }
            })*
        }
    };
}

scenarios! {
    chromium_watches_stampede: |server| stampede_to(Client::Chromium, "high", server);
    chromium_watches_the_low_layer: |server| stampede_to(Client::Chromium, "low", server);
    python_watches_stampede: |server| stampede_to(Client::Python, "high", server);
    stampede_watches_chromium: |server| stampede_from(Client::Chromium, server);
    stampede_watches_python: |server| stampede_from(Client::Python, server);
    chromium_watches_python: |server| between(Client::Python, Client::Chromium, server);
    python_watches_chromium: |server| between(Client::Chromium, Client::Python, server);
}

/// Chromium asks again for what the embedded SFU drops, and gets it: the picture goes on without
/// a new keyframe. (RTX as a foreign client does it, from Stampede's packets.)
#[test]
fn chromium_repairs_what_the_embedded_sfu_drops() {
    let _alone = alone();
    let Some(command) = Client::Chromium.available() else { return };
    let server = Server::embedded(&["--drop", "2%", "--seed", "3"]);
    let room = server.room();
    let args = ["--video-publishers=1", "--audio-publishers=1", "--subscribers=0", "--duration=2m"];
    let publisher = server.stampede(&room, &args);
    let args = ["subscribe", "--seconds", WATCH_SECONDS];
    let figures = server.client(command, &room, &args).end();
    drop(publisher);

    figures.assert_watched();
    assert!(figures.number("/video/packetsLost") > 0.0, "{:#}", figures.0);
    assert!(figures.number("/video/nackCount") > 0.0, "{:#}", figures.0);
    // One packet in fifty is lost: without repair hardly any second would be free of a PLI.
    assert!(figures.number("/video/pliCount") <= 2.0, "{:#}", figures.0);
}
