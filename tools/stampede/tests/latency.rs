//! The latency figure against a truth: a relay outside the tool carries every packet of a run up and
//! down, holds what goes to half of the subscribers for 100 ms, and says by its own clock how long
//! each picture really took. Both halves see the same pictures; what they differ by is compared.
//!
//! `STAMPEDE_LATENCY_SUBSCRIBERS=500` makes it larger, `STAMPEDE_SERIES=5` measures five times and
//! prints a table.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::time::Duration;

use common::relay::{Holds, Relay};
use common::{Running, alone};

/// How long the relay holds.
const DELAY: Duration = Duration::from_millis(100);
/// How far the figure may be off the truth, at the median and at the 99th percentile.
const OFF_MS_MAX: [f64; 2] = [1.0, 2.0];
/// A small machine that does something else in between is no fault of the figure's.
const TRIES: u32 = 3;

fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

/// What one run came to: of the median and the 99th percentile each the truth and the figure, in
/// milliseconds; `None` if clients did not appear in the order in which they were to join.
fn measure(subscribers: u32) -> Option<[(f64, f64); 2]> {
    let (relay, holds) = Relay::holding(DELAY);
    let dir = tempfile::tempdir().unwrap();
    let scenario = dir.path().join("scenario.toml");
    fs::write(&scenario, "[[cohort]]\nname = \"held\"\nshare = 0.5\n").unwrap();
    let csv = dir.path().join("streams.csv");
    let args = [
        "run".to_owned(),
        format!("--subscribers={subscribers}"),
        format!("--scenario={}", scenario.display()),
        format!("--out=csv={}", csv.display()),
        format!("--embedded-flag=--node-ip={}", relay.address.ip()),
        format!("--embedded-flag=--rtc-port={}", relay.address.port()),
    ];
    // Of many the 99th percentile is that of few frames: it takes more of them.
    let pace = match subscribers {
        ..=100 => ["--num-per-second=30", "--duration=10s"],
        _ => ["--num-per-second=50", "--duration=20s"],
    };
    let rest = ["--audio-publishers=0", "--video-resolution=low", "--seed=7", "--no-tui"];
    let args: Vec<&str> = args.iter().map(String::as_str).chain(pace).chain(rest).collect();
    let mut running = Running::start(&args);
    running.wait_for(" hold ");
    holds.lock().unwrap().begin();
    let ended = running.end();
    ended.assert_code(0);
    let holds = holds.lock().unwrap();
    if !sides_agree(&fs::read_to_string(&csv).unwrap(), &holds) {
        return None;
    }
    let cohort = |name: &str, quantile: &str| {
        let rows = ended.report()["cohorts"].as_array().unwrap();
        let row = rows.iter().find(|row| row["name"] == name).unwrap();
        assert!(row["video"]["latency_ms"]["count"].as_u64() > Some(1_000), "{row}");
        row["video"]["latency_ms"][quantile].as_f64().unwrap()
    };
    let took_ms = holds.took_ms();
    Some([("p50", 0.5), ("p99", 0.99)].map(|(name, quantile)| {
        let of = |side: usize| {
            let all = &took_ms[side];
            assert!(all.len() > 1_000, "the relay saw {} pictures", all.len());
            all[((all.len() - 1) as f64 * quantile).round() as usize]
        };
        (of(1) - of(0), cohort("held", name) - cohort("rest", name))
    }))
}

/// Whether the relay held the streams of the cohort, and no others.
fn sides_agree(csv: &str, holds: &Holds) -> bool {
    let mut lines = csv.lines();
    let head: Vec<&str> = lines.next().unwrap().split(',').collect();
    let column = |name: &str| head.iter().position(|column| *column == name).unwrap();
    let (cohort, ssrc) = (column("cohort"), column("ssrc"));
    let mut sides = [HashSet::new(), HashSet::new()];
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let side = usize::from(cells[cohort] == "held");
        sides[side].insert(cells[ssrc].parse::<u32>().unwrap());
    }
    assert!(sides.iter().all(|side| !side.is_empty()), "{csv}");
    (0..2).all(|side| sides[side].is_subset(&holds.ssrcs[side]))
        && (0..2).all(|side| sides[side].is_disjoint(&holds.ssrcs[1 - side]))
}

#[test]
fn a_delay_on_the_wire_is_what_the_latency_says_it_is() {
    let _alone = alone();
    let subscribers = number("STAMPEDE_LATENCY_SUBSCRIBERS", 60);
    let rounds = number("STAMPEDE_SERIES", 1);
    say(
        "| subscribers | round | p50 true ms | p50 reported | off | p99 true ms | p99 reported | off |",
    );
    let mut right = 0;
    for round in 0..rounds {
        for _ in 0..TRIES {
            let Some(figures) = measure(subscribers) else {
                say(&format!("| {subscribers} | {round} | they did not appear in order |"));
                continue;
            };
            let off = figures.map(|(truth, figure)| figure - truth);
            let [(truth_50, figure_50), (truth_99, figure_99)] = figures;
            say(&format!(
                "| {subscribers} | {round} | {truth_50:.2} | {figure_50:.2} | {:+.2} | \
                 {truth_99:.2} | {figure_99:.2} | {:+.2} |",
                off[0], off[1]
            ));
            if off.iter().zip(OFF_MS_MAX).all(|(off, most)| off.abs() <= most) {
                right += 1;
                break;
            }
        }
    }
    assert_eq!(right, rounds, "see the table");
}

/// At once: the test harness would swallow `println!` of a test that passes.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
