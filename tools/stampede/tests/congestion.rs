//! What subscribers tell of the way to them, and what they get for it, with the real binary and the
//! embedded SFU.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{beside, run};
use serde_json::Value;

/// A server takes lower layers for who is behind a narrow way, and higher ones when the way is wide
/// again; nobody lost anything that was not dropped on purpose, and the others see nothing of it.
fn follows_a_narrow_way(codec: &str, congestion: &str, wide_s_min: f64) {
    let _beside = beside();
    let narrow = "--impair=cohort=50%,rate=1Mbps,rate_span=15s@0s";
    let codec = format!("--video-codec={codec}");
    let congestion_flag = format!("--embedded-flag=--congestion={congestion}");
    let args = [
        "run",
        "--no-tui",
        "--video-publishers=1",
        "--audio-publishers=1",
        "--subscribers=4",
        "--num-per-second=50",
        "--duration=70s",
        "--seed=3",
        narrow,
        &codec,
        &congestion_flag,
    ];
    let ended = run(&args);
    ended.assert_code(0);
    let cohorts = ended.report()["cohorts"].as_array().unwrap();
    let of = |name: &str| cohorts.iter().find(|row| row["name"] == name).unwrap();
    let heights = |name: &str| {
        let rows = of(name)["video"]["layers"]["heights"].as_array().unwrap().iter();
        let shown = rows.map(|row| (row["name"].clone(), row["shown_s"].as_f64().unwrap()));
        shown.filter(|(_, shown_s)| *shown_s > 2.0).collect::<Vec<_>>()
    };
    let shown = |name: &str, height: &str| {
        heights(name).iter().find(|(known, _)| known == height).map_or(0.0, |(_, s)| *s)
    };
    assert_eq!(heights("rest").len(), 1, "{:#}", of("rest")["video"]["layers"]);
    let wide_s = shown("impair-1", "720p");
    // Two of them, of 15 s each, less what it takes to notice. Within one stream the rate of pictures
    // goes down before their height.
    let layers = &of("impair-1")["video"]["layers"];
    let top = layers["heights"].as_array().unwrap().iter().find(|row| row["name"] == "720p");
    let fastest = |row: &Value| row["temporal"].as_array()?.last()?["shown_s"].as_f64();
    let whole_s = top.and_then(fastest).unwrap_or(wide_s);
    let narrow_s = layers["asked_s"].as_f64().unwrap() - whole_s;
    assert!(narrow_s > 15.0, "{layers:#}");
    assert!(wide_s > wide_s_min, "{:#}", of("impair-1")["video"]["layers"]);
    for name in ["rest", "impair-1"] {
        assert_eq!(of(name)["feedback"], "chrome");
        let sent = |what: &str| of(name)["video"][what].as_f64().unwrap();
        let (told, not) = match congestion {
            "twcc" => (sent("twcc_sent"), sent("remb_sent")),
            _ => (sent("remb_sent"), sent("twcc_sent")),
        };
        assert!(told > 100.0 && not == 0.0, "{name}: {told} {not}");
    }
    assert_eq!(of("rest")["video"]["packets"]["unrecovered"], 0);
    let verdict = ended.verdict().unwrap();
    assert_eq!(verdict["fault"], "none", "{verdict:#}");
    let embedded = |name: &str| ended.number(&format!("/server/embedded/measured/{name}"));
    assert!(embedded("congestions") >= 1.0 && embedded("probes") >= 2.0);
    assert!(embedded("padding_packets") > 0.0);
    let (heard, not) = match congestion {
        "twcc" => (embedded("arrival_reports"), embedded("estimates")),
        _ => (embedded("estimates"), embedded("arrival_reports")),
    };
    assert!(heard > 500.0 && not == 0.0, "{heard} {not}");
    // A receiver report a second of each, which goes to str0m too where arrivals are told.
    assert!(embedded("reports") > 0.0);
}

#[test]
fn lower_layers_are_taken_for_who_is_behind_a_narrow_way() {
    // From 360p on, probes have to show that there is room for four times as much.
    follows_a_narrow_way("vp8", "twcc", 3.0);
}

#[test]
fn lower_layers_within_one_stream_are_too() {
    follows_a_narrow_way("vp9", "remb", 15.0);
}

/// Who tells nothing is never given less, and says so in its cohort's row.
#[test]
fn a_cohort_may_tell_nothing_of_congestion() {
    let _beside = beside();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cohorts.toml");
    let text = "[[cohort]]\nname = \"silent\"\nshare = \"50%\"\nfeedback = \"none\"\n";
    std::fs::write(&file, text).unwrap();
    let scenario = format!("--scenario={}", file.display());
    let args = ["run", "--no-tui", "--video-publishers=1", "--num-per-second=50", "--seed=3"];
    let more = ["--subscribers=4", "--duration=8s", &scenario];
    let ended = run(&[&args[..], &more].concat());
    let cohorts = ended.report()["cohorts"].as_array().unwrap();
    let of = |name: &str| cohorts.iter().find(|row| row["name"] == name).unwrap();
    for (name, feedback) in [("silent", "none"), ("rest", "chrome")] {
        assert_eq!(of(name)["feedback"], feedback);
        let sent = of(name)["video"]["remb_sent"].as_f64().unwrap();
        assert_eq!(sent > 0.0, feedback == "chrome", "{name}: {sent}");
    }
}
