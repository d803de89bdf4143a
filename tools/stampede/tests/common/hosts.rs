//! A coordinator and its workers, against the embedded SFU.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use super::{KEY, Running, SECRET, Sfu};

pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef";

pub(crate) fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// A coordinator and two workers, called a and b.
pub(crate) struct Hosts {
    pub(crate) sfu: Sfu,
    pub(crate) coordinator: Running,
    pub(crate) workers: [Running; 2],
    pub(crate) address: String,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) fn worker(address: &str, name: &str, dir: &Path, more: &[&str]) -> Running {
    let out = format!("json={}", dir.join(format!("{name}.json")).display());
    let args = ["work", "--join", address, "--name", name, "--out", &out];
    Running::start_with(&[&args[..], more].concat(), |command| {
        command.env("STAMPEDE_TOKEN", TOKEN).current_dir(dir);
    })
}

/// Who takes part: a publisher, and six subscribers.
pub(crate) const SIX: [&str; 3] =
    ["--video-publishers=1", "--audio-publishers=1", "--subscribers=6"];

/// Of these, and what else is asked for.
pub(crate) fn coordinator(sfu: &Sfu, address: &str, load: &[&str], more: &[&str]) -> Running {
    let run = ["run", "--hosts=2", "--listen", address, "--url", &sfu.url, "--no-tui"];
    let args = [&run[..], load, more].concat();
    Running::start_with(&args, |command| {
        command.env("STAMPEDE_TOKEN", TOKEN);
        command.env("LIVEKIT_API_KEY", KEY).env("LIVEKIT_API_SECRET", SECRET);
    })
}

impl Hosts {
    /// With [`SIX`].
    pub(crate) fn start(more: &[&str], worker_b: &[&str]) -> Self {
        Self::with(&SIX, more, worker_b)
    }

    pub(crate) fn with(load: &[&str], more: &[&str], worker_b: &[&str]) -> Self {
        let (sfu, address) = (Sfu::start(&[]), free_address());
        let dir = tempfile::tempdir().unwrap();
        let coordinator = coordinator(&sfu, &address, load, more);
        let a = worker(&address, "a", dir.path(), &[]);
        let b = worker(&address, "b", dir.path(), worker_b);
        Self { sfu, coordinator, workers: [a, b], address, dir }
    }

    pub(crate) fn json(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.json"))
    }
}
