//! What is run: scenario files, stages, layouts and the capacity search, with the real binary.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;

use common::{Ended, beside, run, stampede};
use serde_json::Value;

fn stages(ended: &Ended) -> Vec<Value> {
    ended.report()["run"]["stages"].as_array().unwrap().clone()
}

fn numbers(rows: &[Value], key: &str) -> Vec<u64> {
    rows.iter().map(|row| row[key].as_u64().unwrap_or_else(|| panic!("{key}: {row}"))).collect()
}

#[test]
fn subscribers_come_and_go_in_stages() {
    let _beside = beside();
    let args = ["run", "--stage=2s:6", "--stage=2s:6", "--stage=2s:2", "--no-tui", "--seed=7"];
    let ended = run(&args);
    ended.assert_code(0);
    let rows = stages(&ended);
    assert_eq!(numbers(&rows, "subscribers"), [6, 6, 2]);
    assert_eq!(numbers(&rows, "joined"), [6, 0, 0]);
    assert_eq!(numbers(&rows, "left"), [0, 0, 4]);
    let connected = numbers(&rows, "subscribers_connected");
    assert_eq!((connected[1], connected[2]), (6, 2), "{connected:?}");
    assert!(numbers(&rows, "packets_expected").iter().all(|packets| *packets > 0));
    assert!(rows.iter().all(|row| row["loss_rate"] == 0.0), "{rows:?}");
    // Measured from the end of the first stage to the end of the last one.
    let measured = ended.number("/run/measured_s");
    assert!((3.9..5.0).contains(&measured), "{measured}");
    assert_eq!(ended.number("/join/joined"), 7.0);
    assert_eq!((ended.number("/join/failed"), ended.number("/join/dropped")), (0.0, 0.0));
    assert_eq!(ended.number("/video/tracks_received"), 6.0);
    assert_eq!(ended.number("/video/tracks_expected"), 6.0);
    assert_eq!(ended.number("/video/packets/unrecovered"), 0.0);
    assert!(ended.stdout.contains("stages"), "{}", ended.stdout);
}

#[test]
fn the_file_that_init_writes_runs_and_flags_override_it() {
    let _beside = beside();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("talk.toml");
    let path = path.to_str().unwrap();
    let init = stampede().args(["init", path]).output().unwrap();
    assert!(init.status.success(), "{init:?}");
    assert_eq!(stampede().args(["init", path]).output().unwrap().status.code(), Some(104));
    let ended = run(&["run", "--scenario", path, "--stage=1s:4", "--stage=2s:4", "--no-tui"]);
    ended.assert_code(0);
    assert_eq!(numbers(&stages(&ended), "subscribers"), [4, 4], "the file's stages are replaced");
    assert_eq!(ended.number("/join/joined"), 5.0);
    assert_eq!(ended.report()["run"]["options"]["cohorts"], serde_json::json!(["mobile"]));
    assert_eq!(ended.number("/video/packets/unrecovered"), 0.0);
}

#[test]
fn what_is_done_to_a_cohort_is_done_to_it_alone_and_its_figures_are_its_own() {
    let _beside = beside();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cohorts.toml");
    let text = "subscribers = 10\nduration = \"4s\"\nseed = 7\nnum_per_second = 50\n\
                video_resolution = \"low\"\nthreshold = [\"cohorts.rest.video.loss_rate==0\"]\n\
                [[cohort]]\nname = \"far\"\ncount = 4\nimpair = \"delay=120ms,loss=8%\"\n";
    fs::write(&path, text).unwrap();
    let ended = run(&["run", "--scenario", path.to_str().unwrap(), "--no-tui"]);
    let report = ended.report();
    let rows = report["cohorts"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| (&row["name"], &row["subscribers"])).collect();
    assert_eq!(serde_json::json!(names), serde_json::json!([["rest", 6], ["far", 4]]));
    let [rest, far] = &rows[..] else { panic!("{rows:?}") };
    let of = |row: &Value, key: &str| row.pointer(key).and_then(Value::as_f64).expect(key);
    for kind in ["video", "audio"] {
        for figure in ["expected", "received", "missing", "repaired", "unrecovered"] {
            let key = format!("/{kind}/packets/{figure}");
            assert_eq!(of(rest, &key) + of(far, &key), ended.number(&key), "{key}");
        }
        let key = format!("/{kind}/latency_ms/count");
        assert_eq!(of(rest, &key) + of(far, &key), ended.number(&key), "{key}");
        assert_eq!(of(rest, &format!("/{kind}/packets/missing")), 0.0, "{rest}");
        assert!(of(far, &format!("/{kind}/packets/missing")) > 20.0, "{far}");
        let p50 = |row| of(row, &format!("/{kind}/latency_ms/p50"));
        assert!((110.0..150.0).contains(&(p50(far) - p50(rest))), "{} {}", p50(far), p50(rest));
    }
    assert_eq!((of(rest, "/video/tracks_expected"), of(far, "/video/tracks_expected")), (6.0, 4.0));
    let done = &report["impairment"]["cohorts"];
    assert_eq!((&done[0]["name"], &done[0]["peers"]), (&"far".into(), &4.into()));
    assert_eq!(done[0]["dropped"], report["impairment"]["dropped"]);
    assert_eq!(report["thresholds"][0]["ok"], true);
    assert!(ended.stdout.contains("4 far"), "{}", ended.stdout);
}

#[test]
fn what_is_wrong_in_a_file_is_named_before_anything_joins() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.toml");
    for (text, words) in [
        ("rooms = 1\nsubscriber = 5\n", &["bad.toml:2:1:", "did you mean 'subscribers'?"][..]),
        ("duration = 90\n", &["bad.toml:1:12:", "without a unit"]),
        ("rooms = \n", &["bad.toml:1:9:"]),
        ("[[cohort]]\nname = \"a\"\nshare = \"110%\"\n", &["bad.toml:3:9:", "between"]),
        ("[[cohort]]\nname = \"a\"\ncount = 500\n", &["the cohorts want 500"]),
        ("subscribers = 5\nstage = \"1s:5\"\n", &["--stage", "--subscribers"]),
    ] {
        fs::write(&path, text).unwrap();
        let ended = run(&["run", "--scenario", path.to_str().unwrap()]);
        assert_eq!(ended.code, Some(104), "{ended:#?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        for word in words {
            assert!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
        }
        assert!(ended.report.is_none() && ended.stdout.is_empty());
    }
}

fn tracks(ended: &Ended, kind: &str) -> (f64, f64) {
    ended.assert_code(0);
    assert_eq!(ended.number(&format!("/{kind}/packets/unrecovered")), 0.0);
    let number = |name: &str| ended.number(&format!("/{kind}/{name}"));
    (number("tracks_received"), number("tracks_expected"))
}

#[test]
fn a_layout_of_three_publishers_shows_all_of_them_at_its_sizes() {
    let _beside = beside();
    let common = ["run", "--subscribers=2", "--video-publishers=3", "--audio-publishers=3"];
    let with = |args: &[&str]| {
        run(&[&common[..], &["--duration=4s", "--num-per-second=50", "--no-tui"], args].concat())
    };
    let grid = with(&["--layout=3x3"]);
    assert_eq!((tracks(&grid, "video"), tracks(&grid, "audio")), ((6.0, 6.0), (6.0, 6.0)));
    let each = |ended: &Ended| ended.number("/video/bitrate_bps") / 6.0;
    let middle = each(&grid);
    assert!((400e3..900e3).contains(&middle), "nine at 640x360: {middle}");
    let speaker = with(&["--layout=speaker", "--subscribe-mode=auto"]);
    assert_eq!(tracks(&speaker, "video"), (6.0, 6.0));
    // One at 1.7 Mbps and two at 0.16 Mbps each.
    let mean = each(&speaker);
    assert!((500e3..900e3).contains(&mean), "{mean}");
    let small = each(&with(&["--layout=5x5"]));
    assert!((100e3..300e3).contains(&small), "all small: {small}");
}

#[test]
fn a_layout_leaves_out_whom_it_has_no_place_for() {
    let _beside = beside();
    let common = ["run", "--subscribers=2", "--video-publishers=8", "--audio-publishers=8"];
    let with = |args: &[&str]| {
        run(&[&common[..], &["--duration=3s", "--num-per-second=50", "--no-tui"], args].concat())
    };
    let manual = with(&["--layout=speaker"]);
    assert_eq!((tracks(&manual, "video"), tracks(&manual, "audio")), ((12.0, 12.0), (12.0, 12.0)));
    let auto = with(&["--layout=speaker", "--subscribe-mode=auto", "--simulate-speakers"]);
    assert_eq!((tracks(&auto, "video"), tracks(&auto, "audio")), ((12.0, 12.0), (16.0, 16.0)));
}

#[test]
fn hidden_and_manual_subscribers_receive_everything() {
    let _beside = beside();
    let args = ["run", "--subscribers=3", "--duration=2s", "--hidden", "--no-tui"];
    let ended = run(&[&args[..], &["--subscribe-mode=manual", "--num-per-second=50"]].concat());
    assert_eq!((tracks(&ended, "video"), tracks(&ended, "audio")), ((3.0, 3.0), (3.0, 3.0)));
    assert_eq!(ended.report()["run"]["options"]["hidden"], true);
}

#[test]
fn the_search_finds_the_highest_number_that_holds() {
    let _beside = beside();
    // One publisher and four subscribers are five; the bound is known, so the answer is too.
    let args = ["run", "--find=subscribers", "--until=join.joined<6", "--find-min=2"];
    let more = ["--find-max=8", "--find-hold=1s", "--num-per-second=50", "--no-tui"];
    let ended = run(&[&args[..], &more].concat());
    let find = &ended.report()["find"];
    let steps = find["steps"].as_array().unwrap();
    let tried: Vec<_> =
        steps.iter().map(|step| (step["subscribers"].as_u64().unwrap(), &step["ok"])).collect();
    assert_eq!(
        tried,
        [
            (2, &true.into()),
            (4, &true.into()),
            (8, &false.into()),
            (6, &false.into()),
            (5, &false.into())
        ]
    );
    assert_eq!((find["highest_ok"].as_u64(), find["first_broken"].as_u64()), (Some(4), Some(5)));
    assert_eq!(find["complete"], true);
    assert_eq!(steps[4]["figures"]["join.joined"], 6.0);
    assert_eq!(ended.number("/join/joined"), 5.0, "the report is that of the step that held");
    assert!(ended.stdout.contains("held with 4 subscribers"), "{}", ended.stdout);
    // Nothing here was near a limit of this machine.
    assert_eq!(find["limit"], "unknown", "{steps:#?}");
    ended.assert_code(0);
}
