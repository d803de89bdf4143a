//! What does the whole thing carry on this machine? The binary against its embedded SFU, several
//! runs of each load on each backend; medians, and the spread in brackets, as a Markdown table.
//!
//! ```sh
//! cargo build --release --package stampede
//! cargo bench --package stampede-benches --bench end_to_end -- \
//!     [--runs N] [--seconds N] [--keep DIR] [--curve FILE.svg] [WORD…]
//! ```
//!
//! `WORD`s choose the rows that contain one of them (`2000`, `low`, `mmsg`). `--curve` takes other
//! loads, 100 to 5,000 peers, and draws what a datagram costs over them. `--keep` leaves the reports
//! in a folder and takes those that are there already, so that a long series can be made in parts.
//! Needs two cores that do nothing else: the engine's worker has one, the SFU the other.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench may panic")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it found")]

mod plot;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Subscribers, simulcast layer, joins a second.
type Load = (u32, &'static str, u32);

const LOADS: [Load; 5] = [
    (100, "high", 100),
    (1_000, "high", 200),
    (2_000, "low", 200),
    (2_000, "medium", 200),
    (2_000, "high", 200),
];
/// Subscribers of the curve, on io_uring.
const CURVE_SUBSCRIBERS: [u32; 6] = [100, 500, 1_000, 2_000, 3_000, 5_000];
const CURVE_LAYERS: [&str; 2] = ["low", "medium"];
const CURVE_JOINS: u32 = 200;
const BACKENDS: [&str; 3] = ["io_uring", "mmsg", "packet_ring"];

/// What a run measured at least of the time that was asked for, unless it was interrupted.
const MEASURED_MIN: f64 = 0.9;

struct Arguments {
    runs: usize,
    seconds: u32,
    keep: Option<PathBuf>,
    curve: Option<PathBuf>,
    words: Vec<String>,
}

impl Arguments {
    fn of_args() -> Self {
        let mut arguments =
            Self { runs: 5, seconds: 15, keep: None, curve: None, words: Vec::new() };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().expect("a value after it");
            match arg.as_str() {
                "--runs" => arguments.runs = value().parse().expect("a number"),
                "--seconds" => arguments.seconds = value().parse().expect("a number"),
                "--keep" => arguments.keep = Some(value().into()),
                "--curve" => arguments.curve = Some(value().into()),
                // Cargo's own.
                "--bench" => {}
                _ => arguments.words.push(arg),
            }
        }
        arguments
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

/// A run's report, made now unless there is one in `kept` already.
fn run(binary: &Path, load: Load, backend: &str, seconds: u32, kept: Option<PathBuf>) -> Figures {
    let temporary =
        || std::env::temp_dir().join(format!("stampede-bench-{}.json", std::process::id()));
    let file = kept.clone().unwrap_or_else(temporary);
    let mut said = String::new();
    if !file.is_file() {
        let (subscribers, layer, joins) = load;
        let output = Command::new(binary)
            .args(["run", "--quiet", "--audio-publishers", "0", "--seed", "1"])
            .args(["--subscribers", &subscribers.to_string(), "--video-resolution", layer])
            .args(["--num-per-second", &joins.to_string(), "--backend", backend])
            .args(["--duration", &format!("{seconds}s")])
            .arg("--out")
            .arg(format!("json={}", file.display()))
            .output()
            .unwrap();
        said = String::from_utf8_lossy(&output.stderr).into_owned();
    }
    let text = std::fs::read_to_string(&file);
    if kept.is_none() {
        let _ = std::fs::remove_file(&file);
    }
    let text = text.unwrap_or_else(|error| panic!("no report ({error}): {said}"));
    let figures = Figures(serde_json::from_str(&text).unwrap());
    let measured_s = figures.number("/run/measured_s");
    let whole = measured_s >= f64::from(seconds) * MEASURED_MIN;
    assert!(whole, "{}: interrupted after {measured_s} s; delete it if it is kept", file.display());
    figures
}

/// A column: its title, its value of a run, and its digits after the point.
type Column = (&'static str, fn(&Figures) -> f64, usize);

const COLUMNS: [Column; 11] = [
    ("joined", |run| run.number("/join/joined"), 0),
    (
        "datagrams/s in",
        |run| run.number("/generator/packets_in") / run.number("/run/measured_s"),
        0,
    ),
    (
        "datagrams a run",
        |run| run.number("/generator/packets_in") / run.number("/generator/udp_runs_in"),
        1,
    ),
    ("worker busy %", |run| run.sum("/generator/workers", "busy_ratio") * 100.0, 0),
    ("worker ns/datagram", worker_ns_per_datagram, 0),
    ("process ns/datagram", |run| run.number("/generator/cpu_s") * 1e9 / datagrams(run), 0),
    ("lost for good", |run| run.number("/video/packets/unrecovered"), 0),
    ("kernel drops", |run| run.number("/generator/udp_dropped"), 0),
    ("kB a peer", |run| run.number("/generator/rss_bytes_per_peer") / 1e3, 0),
    ("SFU ns/datagram out", sfu_ns_per_datagram, 0),
    ("ms late, p50", |run| run.number("/video/latency_ms/p50"), 0),
];

fn datagrams(run: &Figures) -> f64 {
    run.number("/generator/packets_in") + run.number("/generator/packets_out")
}

fn worker_ns_per_datagram(run: &Figures) -> f64 {
    run.sum("/generator/workers", "cpu_s") * 1e9 / datagrams(run)
}

/// Over its whole life, joins included.
fn sfu_ns_per_datagram(run: &Figures) -> f64 {
    let workers = "/server/embedded/workers";
    run.sum(workers, "cpu_s") * 1e9 / run.sum(workers, "datagrams_out")
}

/// Sorts the values of several runs and gives the middle one.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// `median [least, most]`.
fn cell(mut values: Vec<f64>, digits: usize) -> String {
    let median = median(&mut values);
    match (values.first(), values.last()) {
        (Some(least), Some(most)) if least < most => {
            format!("{median:.digits$} [{least:.digits$}, {most:.digits$}]")
        }
        _ => format!("{median:.digits$}"),
    }
}

/// Makes the runs of one row and prints it.
fn row(binary: &Path, load: Load, backend: &str, arguments: &Arguments) -> Vec<Figures> {
    let (subscribers, layer, _) = load;
    let runs: Vec<Figures> = (0..arguments.runs.max(1))
        .map(|number| {
            let name = format!("{subscribers}-{layer}-{backend}-{number}.json");
            let kept = arguments.keep.as_ref().map(|dir| dir.join(name));
            run(binary, load, backend, arguments.seconds, kept)
        })
        .collect();
    let cells = COLUMNS.map(|(_, value, digits)| cell(runs.iter().map(value).collect(), digits));
    println!("| {subscribers} x {layer}, {backend} | {} |", cells.join(" | "));
    runs
}

/// The loads of the curve, and the curve.
fn curve(binary: &Path, file: &Path, arguments: &Arguments) {
    let backend = BACKENDS[0];
    let mut lines = Vec::new();
    for layer in CURVE_LAYERS {
        let (mut engine, mut sfu) = (Vec::new(), Vec::new());
        for subscribers in CURVE_SUBSCRIBERS {
            if !arguments.has(&format!("{subscribers} x {layer}, {backend}")) {
                continue;
            }
            let runs = row(binary, (subscribers, layer, CURVE_JOINS), backend, arguments);
            let of = |figure: fn(&Figures) -> f64| {
                (f64::from(subscribers), median(&mut runs.iter().map(figure).collect::<Vec<_>>()))
            };
            engine.push(of(worker_ns_per_datagram));
            sfu.push(of(sfu_ns_per_datagram));
        }
        lines.push(plot::Line { name: format!("engine, {layer}"), points: engine });
        lines.push(plot::Line { name: format!("SFU, {layer}"), points: sfu });
    }
    lines.retain(|line| !line.points.is_empty());
    let drawn = plot::svg("subscribers", "CPU ns a datagram", &lines);
    std::fs::write(file, drawn).unwrap();
}

fn main() {
    let arguments = Arguments::of_args();
    let binary = binary();
    if let Some(dir) = &arguments.keep {
        std::fs::create_dir_all(dir).unwrap();
    }
    let titles: Vec<_> = COLUMNS.iter().map(|(title, ..)| *title).collect();
    println!("| load | {} |\n|---|{}", titles.join(" | "), "---|".repeat(titles.len()));
    if let Some(file) = &arguments.curve {
        curve(&binary, file, &arguments);
        return;
    }
    for load in LOADS {
        for backend in BACKENDS {
            let (subscribers, layer, _) = load;
            if arguments.has(&format!("{subscribers} x {layer}, {backend}")) {
                row(&binary, load, backend, &arguments);
            }
        }
    }
}
