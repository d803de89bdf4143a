//! What does the whole thing carry on this machine? The binary against its embedded SFU, several
//! runs of each load on each backend; medians, and the spread in brackets, as a Markdown table.
//!
//! ```sh
//! cargo build --release --package stampede
//! cargo bench --package stampede-benches --bench end_to_end -- [--runs N] [--seconds N] [WORD…]
//! ```
//!
//! `WORD`s choose the rows that contain one of them (`2000`, `low`, `mmsg`). Needs two cores that do
//! nothing else: the engine's worker has one, the SFU the other.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench may panic")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Subscribers, simulcast layer, joins a second.
const LOADS: [(u32, &str, u32); 5] = [
    (100, "high", 100),
    (1_000, "high", 200),
    (2_000, "low", 200),
    (2_000, "medium", 200),
    (2_000, "high", 200),
];
const BACKENDS: [&str; 2] = ["io_uring", "mmsg"];

struct Wish {
    runs: usize,
    seconds: u32,
    words: Vec<String>,
}

impl Wish {
    fn of_args() -> Self {
        let mut wish = Self { runs: 5, seconds: 15, words: Vec::new() };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut number =
                || args.next().and_then(|n| n.parse().ok()).expect("a number after it");
            match arg.as_str() {
                "--runs" => wish.runs = number() as usize,
                "--seconds" => wish.seconds = number(),
                // Cargo's own.
                "--bench" => {}
                _ => wish.words.push(arg),
            }
        }
        wish
    }

    fn has(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| name.contains(word.as_str()))
    }
}

/// Beside this bench, where cargo puts both.
fn binary() -> PathBuf {
    let bench = std::env::current_exe().unwrap();
    let path = bench.ancestors().nth(2).unwrap().join("stampede");
    assert!(path.is_file(), "{} is missing: cargo build --release -p stampede", path.display());
    path
}

/// One run's figures.
struct Figures(Value);

impl Figures {
    fn number(&self, pointer: &str) -> f64 {
        self.0.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN)
    }

    fn sum(&self, list: &str, key: &str) -> f64 {
        let rows = self.0.pointer(list).and_then(Value::as_array);
        rows.into_iter().flatten().filter_map(|row| row[key].as_f64()).sum()
    }
}

fn run(binary: &Path, load: (u32, &str, u32), backend: &str, seconds: u32) -> Figures {
    let (subscribers, layer, joins) = load;
    let file = std::env::temp_dir().join(format!("stampede-bench-{}.json", std::process::id()));
    let output = Command::new(binary)
        .args(["run", "--quiet", "--audio-publishers", "0", "--seed", "1"])
        .args(["--subscribers", &subscribers.to_string(), "--video-resolution", layer])
        .args(["--num-per-second", &joins.to_string(), "--backend", backend])
        .args(["--duration", &format!("{seconds}s")])
        .arg("--out")
        .arg(format!("json={}", file.display()))
        .output()
        .unwrap();
    let text = std::fs::read_to_string(&file);
    let _ = std::fs::remove_file(&file);
    let text = text.unwrap_or_else(|error| {
        panic!("no report ({error}): {}", String::from_utf8_lossy(&output.stderr))
    });
    Figures(serde_json::from_str(&text).unwrap())
}

/// A column: its title, its value of a run, and its digits after the point.
type Column = (&'static str, fn(&Figures) -> f64, usize);

const COLUMNS: [Column; 9] = [
    ("joined", |run| run.number("/join/joined"), 0),
    (
        "datagrams/s in",
        |run| run.number("/generator/packets_in") / run.number("/run/measured_s"),
        0,
    ),
    ("worker busy %", |run| run.sum("/generator/workers", "busy_ratio") * 100.0, 0),
    ("worker ns/datagram", |run| run.sum("/generator/workers", "cpu_s") * 1e9 / datagrams(run), 0),
    ("process ns/datagram", |run| run.number("/generator/cpu_s") * 1e9 / datagrams(run), 0),
    ("lost for good", |run| run.number("/video/packets/unrecovered"), 0),
    ("kernel drops", |run| run.number("/generator/udp_dropped"), 0),
    ("kB a peer", |run| run.number("/generator/rss_bytes_per_peer") / 1e3, 0),
    ("SFU ns/datagram out", sfu_ns_per_datagram, 0),
];

fn datagrams(run: &Figures) -> f64 {
    run.number("/generator/packets_in") + run.number("/generator/packets_out")
}

/// Over its whole life, joins included.
fn sfu_ns_per_datagram(run: &Figures) -> f64 {
    let workers = "/server/embedded/workers";
    run.sum(workers, "cpu_s") * 1e9 / run.sum(workers, "datagrams_out")
}

/// `median [least, most]`.
fn cell(mut values: Vec<f64>, digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let median = values[values.len() / 2];
    match (values.first(), values.last()) {
        (Some(least), Some(most)) if least < most => {
            format!("{median:.digits$} [{least:.digits$}, {most:.digits$}]")
        }
        _ => format!("{median:.digits$}"),
    }
}

fn main() {
    let wish = Wish::of_args();
    let binary = binary();
    let titles: Vec<_> = COLUMNS.iter().map(|(title, ..)| *title).collect();
    println!("| load | {} |\n|---|{}", titles.join(" | "), "---|".repeat(titles.len()));
    for load in LOADS {
        for backend in BACKENDS {
            let (subscribers, layer, _) = load;
            let name = format!("{subscribers} x {layer}, {backend}");
            if !wish.has(&name) {
                continue;
            }
            let one = |_| run(&binary, load, backend, wish.seconds);
            let runs: Vec<Figures> = (0..wish.runs.max(1)).map(one).collect();
            let cells =
                COLUMNS.map(|(_, value, digits)| cell(runs.iter().map(value).collect(), digits));
            println!("| {name} | {} |", cells.join(" | "));
        }
    }
}
