//! How participants come back, with the real binary: against the embedded SFU, and against a real
//! livekit-server where `LIVEKIT_URL` names one.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::{Ended, Running, Sfu, beside, run};
use serde_json::Value;
use stampede_testing::skip_without_server;

/// A run of 8 subscribers that is no work for the machine.
const SMALL: [&str; 7] = [
    "run",
    "--video-publishers=1",
    "--audio-publishers=1",
    "--subscribers=8",
    "--num-per-second=50",
    "--video-resolution=low",
    "--no-tui",
];

/// Where the participants join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    /// The embedded SFU, which `--signal auto` joins by v1.
    Embedded,
    /// The same by v0.
    EmbeddedV0,
    Real,
}

impl Server {
    fn is_embedded(self) -> bool {
        self != Self::Real
    }
}

/// Runs with these flags; `None` where there is no such server.
fn faulty(server: Server, args: &[&str]) -> Option<Ended> {
    let all = [&SMALL[..], args].concat();
    if server.is_embedded() {
        let signal = if server == Server::EmbeddedV0 { "--signal=v0" } else { "--signal=auto" };
        let ended = run(&[&all[..], &[signal]].concat());
        let joined = ["v0", "v1"]
            .map(|version| ended.number(&format!("/join/signalling/joined_{version}")) > 0.0);
        assert_eq!(joined, [server == Server::EmbeddedV0, server == Server::Embedded]);
        return Some(ended);
    }
    let Ok(url) = std::env::var("LIVEKIT_URL") else {
        skip_without_server("LIVEKIT_URL is not set");
        return None;
    };
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let (key, secret) = (variable("LIVEKIT_API_KEY"), variable("LIVEKIT_API_SECRET"));
    let all = [&all[..], &["--url", &url, "--api-key", &key]].concat();
    let running = Running::start_with(&all, |command| {
        command.env("LIVEKIT_API_SECRET", &secret);
    });
    Some(running.end())
}

/// What became of one way back: tries, recovered, failed.
fn way(ended: &Ended, name: &str) -> [f64; 3] {
    ["tries", "recovered", "failed"].map(|key| ended.number(&format!("/recoveries/{name}/{key}")))
}

/// The rows of the faults.
fn faults(ended: &Ended) -> Vec<Value> {
    ended.report()["faults"].as_array().unwrap().clone()
}

#[track_caller]
fn assert_row(row: &Value, wanted: &[(&str, u64)]) {
    for key in ["hit", "missed", "recovered", "failed", "unfinished", "sent_away"] {
        let value = wanted.iter().find(|(name, _)| *name == key).map_or(0, |(_, value)| *value);
        assert_eq!(row[key], value, "{key} of {row:#}");
    }
}

/// Nobody is lost and nobody is blamed.
#[track_caller]
fn assert_all_back(ended: &Ended) {
    ended.assert_code(0);
    assert_eq!(ended.number("/join/joined"), 9.0, "{:#}", ended.report()["join"]);
    for key in ["dropped", "drops", "failed", "pending"] {
        assert_eq!(ended.number(&format!("/join/{key}")), 0.0, "{:#}", ended.report()["join"]);
    }
    assert_eq!(ended.report()["join"]["errors"], serde_json::json!({}));
    for kind in ["video", "audio"] {
        let causes = &ended.report()[kind]["interruptions"]["causes"];
        for (cause, of) in causes.as_object().unwrap() {
            assert!(cause == "on_purpose" || of["count"] == 0, "{kind} {cause}: {of}");
        }
    }
    for one in ["resume", "ice_restart", "full_reconnect", "moved"] {
        let unfinished = ended.number(&format!("/recoveries/{one}/unfinished"));
        let [tries, recovered, failed] = way(ended, one);
        assert_eq!(tries, recovered + failed + unfinished, "{one}");
        if recovered > 0.0 {
            // It may break again before a frame has come.
            let times = ended.number(&format!("/recoveries/{one}/ms/count"));
            assert!((1.0..=recovered).contains(&times), "{one}: {times} of {recovered}");
        }
    }
}

/// What we were not there for is not lost, and nothing else is.
#[track_caller]
fn assert_nothing_lost(ended: &Ended) {
    for kind in ["video", "audio"] {
        let lost = ended.number(&format!("/{kind}/packets/unrecovered"));
        assert_eq!(lost, 0.0, "{kind}: {:#?}", ended.verdict());
    }
}

fn broken_in_all_ways(server: Server) {
    let _beside = beside();
    let Some(ended) = faulty(
        server,
        &[
            "--duration=13s",
            "--fault=signal_drop,at=1s,share=50%",
            "--fault=network_change,at=4s,share=25%",
            "--fault=simulate=node_failure,at=7s,share=25%",
            "--fault=leave_rejoin,at=10s,share=25%",
        ],
    ) else {
        return;
    };
    assert_all_back(&ended);
    match server {
        Server::Embedded | Server::EmbeddedV0 => assert_nothing_lost(&ended),
        // pion has no pair for a moment in each restart of ICE, and sends nothing then; what is
        // audio is not repaired.
        Server::Real => {
            let lost = ended.number("/audio/packets/unrecovered");
            assert!(lost <= 3.0 * 8.0, "{lost} in 8 restarts: {:#?}", ended.verdict());
            assert_eq!(ended.number("/video/packets/unrecovered"), 0.0);
        }
    }
    let [signal, network, node, leave] = &faults(&ended)[..] else { panic!("{ended:?}") };
    assert_row(signal, &[("hit", 4), ("recovered", 4)]);
    assert_row(network, &[("hit", 2), ("recovered", 2)]);
    assert_row(node, &[("hit", 2), ("recovered", 2)]);
    assert_row(leave, &[("hit", 2)]);
    // A resume finds nobody where the node is gone, and is followed by a new session.
    for (one, count) in [("resume", 4.0), ("ice_restart", 2.0), ("full_reconnect", 2.0)] {
        assert_eq!(way(&ended, one)[1], count, "{one}");
        let times = ended.number(&format!("/recoveries/{one}/ms/count"));
        assert_eq!(times, count, "a frame came after each {one}");
    }
    assert_eq!(ended.number("/join/leaves"), 2.0);
    assert_eq!(ended.number("/join/rejoins"), 2.0);
}

#[test]
fn whoever_is_broken_comes_back_as_livekit_client_does() {
    broken_in_all_ways(Server::Embedded);
}

#[test]
fn whoever_is_broken_comes_back_by_v0() {
    broken_in_all_ways(Server::EmbeddedV0);
}

#[test]
fn whoever_is_broken_comes_back_to_a_real_server() {
    broken_in_all_ways(Server::Real);
}

/// A publisher's websocket, its network, its node: its subscribers are not told it is anybody's
/// fault.
fn broken_publisher(server: Server) {
    let _beside = beside();
    let Some(ended) = faulty(
        server,
        &[
            "--duration=12s",
            "--fault=signal_drop,who=publishers,at=1s",
            "--fault=network_change,who=publishers,at=4s",
            "--fault=simulate=node_failure,who=publishers,at=8s",
        ],
    ) else {
        return;
    };
    ended.assert_code(0);
    assert_eq!(ended.number("/join/dropped"), 0.0, "{:#}", ended.report()["join"]);
    for row in faults(&ended) {
        assert_row(&row, &[("hit", 1), ("recovered", 1)]);
    }
    assert_eq!(way(&ended, "ice_restart")[1], 1.0);
    assert_eq!(way(&ended, "full_reconnect")[1], 1.0);
    for kind in ["video", "audio"] {
        let causes = &ended.report()[kind]["interruptions"]["causes"];
        for (cause, of) in causes.as_object().unwrap() {
            assert!(cause == "on_purpose" || of["count"] == 0, "{kind} {cause}: {of}");
        }
    }
}

#[test]
fn a_publisher_comes_back_too() {
    broken_publisher(Server::Embedded);
}

#[test]
fn a_publisher_comes_back_by_v0() {
    broken_publisher(Server::EmbeddedV0);
}

#[test]
fn a_publisher_comes_back_to_a_real_server() {
    broken_publisher(Server::Real);
}

/// Each of LiveKit's own scenarios, with what has to come of it.
fn simulated(server: Server) {
    let _beside = beside();
    let scenario = |name: &str, more: &[&str]| {
        let fault = format!("--fault=simulate={name},at=1s,share=50%");
        faulty(server, &[&["--duration=8s", &fault][..], more].concat())
    };
    // Nothing breaks.
    for name in ["speaker_update:2s", "subscriber_bandwidth:10Mbps"] {
        let Some(ended) = scenario(name, &[]) else { return };
        assert_all_back(&ended);
        assert_nothing_lost(&ended);
        assert_row(&faults(&ended)[0], &[("hit", 4)]);
        assert_eq!(way(&ended, "resume")[0] + way(&ended, "full_reconnect")[0], 0.0, "{name}");
    }
    // The node is gone, or another one is to take over.
    for name in ["node_failure", "migration"] {
        let Some(ended) = scenario(name, &[]) else { return };
        assert_all_back(&ended);
        assert_row(&faults(&ended)[0], &[("hit", 4), ("recovered", 4)]);
        // Nobody is known to a resume. Whether the media connection is found dead before that, which
        // makes it an ICE restart, is the server's.
        let [resumes, restarts] = ["resume", "ice_restart"].map(|one| way(&ended, one));
        assert_eq!((resumes[1] + restarts[1], resumes[2] + restarts[2]), (0.0, 4.0), "{name}");
        assert_eq!(way(&ended, "full_reconnect"), [4.0, 4.0, 0.0], "{name}");
    }
    // Sent away for good, as it was asked to.
    let Some(ended) = scenario("server_leave", &[]) else { return };
    ended.assert_code(0);
    assert_row(&faults(&ended)[0], &[("hit", 4), ("sent_away", 4)]);
    assert_eq!(ended.number("/join/dropped"), 0.0, "{:#}", ended.report()["join"]);
    assert_eq!(way(&ended, "resume")[0], 0.0);
    // A resume is broken once after its first words, or three times before any.
    let drop = ["--fault=signal_drop,at=2s,share=100%", "--duration=14s"];
    for name in ["disconnect_signal_on_resume", "disconnect_signal_on_resume_no_messages"] {
        let Some(ended) = scenario(name, &drop) else { return };
        assert_all_back(&ended);
        let [simulated, dropped] = &faults(&ended)[..] else { panic!("{ended:?}") };
        assert_eq!((&simulated["hit"], &dropped["hit"]), (&4.into(), &8.into()), "{name}");
        assert_eq!((&simulated["failed"], &simulated["missed"]), (&0.into(), &0.into()), "{name}");
        assert_eq!((&dropped["failed"], &dropped["unfinished"]), (&0.into(), &0.into()), "{name}");
        // Those to whom nothing was done needed one try each, the others more.
        let tries: f64 =
            ["resume", "ice_restart", "full_reconnect"].map(|one| way(&ended, one)[0]).iter().sum();
        assert!(tries >= 12.0, "{name}: {tries}");
    }
    // 1.13.5 ignores it; the embedded SFU does what it says.
    let Some(ended) = scenario("leave_request_full_reconnect", &[]) else { return };
    assert_all_back(&ended);
    let back = if server.is_embedded() { 4.0 } else { 0.0 };
    assert_eq!(way(&ended, "full_reconnect"), [back, back, 0.0]);
}

#[test]
fn what_a_server_is_asked_to_simulate_ends_as_it_should() {
    simulated(Server::Embedded);
}

#[test]
fn what_a_server_is_asked_to_simulate_by_v0_ends_as_it_should() {
    simulated(Server::EmbeddedV0);
}

#[test]
fn what_a_real_server_is_asked_to_simulate_ends_as_it_should() {
    simulated(Server::Real);
}

/// Frames of a data track, to which everybody subscribes by itself, and calls: whoever sends and
/// whoever receives is broken, first so that it resumes, then so that it joins anew.
fn data_is_taken_up_again(server: Server) {
    let _beside = beside();
    let Some(ended) = faulty(
        server,
        &[
            "--duration=12s",
            "--data-publishers=1",
            "--data-kind=track",
            "--data-rate=20",
            "--data-track-subscribe=manual",
            "--rpc-callers=2",
            "--rpc-rate=5",
            "--rpc-timeout=2s",
            "--fault=signal_drop,who=all,at=2s",
            "--fault=simulate=node_failure,who=all,at=5s",
        ],
    ) else {
        return;
    };
    assert_all_back(&ended);
    assert_eq!(way(&ended, "resume")[1], 9.0, "{:#}", ended.report()["recoveries"]);
    assert_eq!(way(&ended, "full_reconnect")[1], 9.0, "{:#}", ended.report()["recoveries"]);
    // Twenty a second to each of eight. Those of four seconds at least come after all were broken.
    let of = |name: &str| ended.number(&format!("/data/track/{name}"));
    assert!(of("expected") > 8.0 * 20.0 * 7.0, "{:#}", ended.report()["data"]);
    assert!(of("received") > 0.95 * of("expected"), "{:#}", ended.report()["data"]);
    // Of two, five times a second; after who joins anew stands from about four seconds on.
    let of = |name: &str| ended.number(&format!("/rpc/{name}"));
    assert!(of("answered") > 2.0 * 5.0 * 4.0, "{:#}", ended.report()["rpc"]);
    let failed = of("called") - of("answered") - of("cut_off");
    assert!(failed <= 0.1 * of("called"), "{:#}", ended.report()["rpc"]);
}

#[test]
fn data_goes_on_after_resumes_and_full_reconnects() {
    data_is_taken_up_again(Server::Embedded);
}

#[test]
fn data_goes_on_by_v0_after_resumes_and_full_reconnects() {
    data_is_taken_up_again(Server::EmbeddedV0);
}

#[test]
fn data_goes_on_at_a_real_server_after_resumes_and_full_reconnects() {
    data_is_taken_up_again(Server::Real);
}

#[test]
fn whom_the_server_moves_watches_the_other_room() {
    let _beside = beside();
    // The second time from where the first has left them.
    let faults_asked = ["--fault=move,at=3s,share=50%", "--fault=move,at=6s"];
    let args = [&["--rooms=2", "--subscribers=4", "--duration=10s"], &faults_asked[..]].concat();
    let ended = run(&[&SMALL[..3], &SMALL[4..], &args].concat());
    ended.assert_code(0);
    assert_row(&faults(&ended)[0], &[("hit", 4), ("recovered", 4)]);
    assert_row(&faults(&ended)[1], &[("hit", 8), ("recovered", 8)]);
    assert_eq!(way(&ended, "moved"), [12.0, 12.0, 0.0]);
    assert_eq!(ended.number("/server/embedded/moves"), 12.0);
    assert_eq!(ended.number("/join/dropped"), 0.0);
    for kind in ["video", "audio"] {
        // They are expected to watch on, and do.
        assert!(ended.number(&format!("/{kind}/watch_ratio")) > 0.95, "{:#}", ended.report()[kind]);
        let causes = &ended.report()[kind]["interruptions"]["causes"];
        for (cause, of) in causes.as_object().unwrap() {
            assert!(cause == "on_purpose" || of["count"] == 0, "{kind} {cause}: {of}");
        }
    }
}

#[test]
fn a_server_that_is_back_gets_everybody_back_under_the_same_names() {
    let _beside = beside();
    let mut sfu = Sfu::start(&[]);
    let mut running = sfu.run(&[&SMALL[1..], &["--duration=12s"]].concat());
    running.wait_for(" hold ");
    sfu.kill();
    std::thread::sleep(Duration::from_secs(1));
    sfu.start_again();
    let ended = running.end();
    assert_eq!(ended.number("/join/joined"), 9.0);
    assert_eq!(ended.number("/join/dropped"), 0.0, "{:#}", ended.report()["join"]);
    assert_eq!(ended.number("/join/drops"), 9.0, "what was made up for was a drop all the same");
    assert_eq!(way(&ended, "full_reconnect")[1], 9.0);
    // Nobody is listed twice.
    let streams = ended.report()["streams"].as_array().unwrap();
    assert!(streams.iter().all(|row| !row["identity"].as_str().unwrap().contains("-try")));
}

#[test]
fn an_outage_that_is_asked_for_is_nobodys_fault() {
    let _beside = beside();
    for who in ["subscribers", "publishers"] {
        let outage = format!("--fault=outage,for=2s,at=1s,who={who}");
        let ended = run(&[&SMALL[..], &["--duration=6s", &outage]].concat());
        ended.assert_code(0);
        let verdict = &ended.report()["verdict"];
        assert_eq!(verdict["fault"], "none", "{who}: {verdict:#}");
        let dropped = ended.number("/impairment/dropped") + ended.number("/impairment/unsent");
        assert!(dropped > 100.0, "{who}: {:#}", ended.report()["impairment"]);
    }
}

#[test]
fn a_fault_that_hits_nobody_is_said() {
    let _beside = beside();
    let ended = run(&[&SMALL[..], &["--duration=2s", "--fault=signal_drop,share=1%"]].concat());
    ended.assert_code(0);
    let reasons = &ended.report()["verdict"]["reasons"];
    let said =
        "--fault signal_drop,share=1% hit nobody: its share of those that it may hit is none";
    assert!(reasons.as_array().unwrap().iter().any(|reason| reason == said), "{reasons:#}");
}

#[test]
fn whoever_is_moved_away_and_back_is_missed_all_the_same() {
    let _beside = beside();
    let args = [
        "--rooms=2",
        "--subscribers=2",
        "--duration=12s",
        "--fault=move,at=2s,who=publishers",
        "--fault=move,at=4s,who=publishers",
        "--embedded-impair=outage=30s@8s",
    ];
    let ended = run(&[&SMALL[..3], &SMALL[4..], &args].concat());
    ended.assert_code(1);
    let expected_s = ended.number("/video/expected_s");
    assert!((40.0..50.0).contains(&expected_s), "4 of 12 s: {expected_s}");
}

#[test]
fn none_come_back_where_none_are_to() {
    let _beside = beside();
    let args = ["--reconnect=none", "--duration=4s", "--fault=signal_drop,at=1s,share=25%"];
    let ended = run(&[&SMALL[..], &args].concat());
    // Nobody was asked to take them back: it is as if they had been told to leave.
    ended.assert_code(0);
    assert_eq!(ended.report()["verdict"]["fault"], "none", "{:#?}", ended.verdict());
    assert_row(&faults(&ended)[0], &[("hit", 2), ("failed", 2)]);
    assert_eq!(ended.number("/join/dropped"), 0.0);
    assert_eq!(way(&ended, "resume")[0], 0.0);
}

#[test]
fn an_audience_comes_and_goes_as_planned() {
    let _beside = beside();
    let args = [
        "--stay=2s",
        "--rejoin=100%",
        "--away=500ms",
        "--arrival=poisson",
        "--duration=10s",
        "--subscribers=20",
        "--seed=3",
    ];
    let ended = run(&[&SMALL[..3], &SMALL[4..], &args].concat());
    ended.assert_code(0);
    let (leaves, rejoins) = (ended.number("/join/leaves"), ended.number("/join/rejoins"));
    // 20 that come again each 2.5 s in the mean, over ten seconds and the ramp.
    assert!((50.0..130.0).contains(&leaves), "{leaves}");
    assert!((0.0..=20.0).contains(&(leaves - rejoins)), "{leaves} {rejoins}");
    assert_eq!(ended.number("/join/dropped"), 0.0);
    assert_eq!(ended.report()["join"]["errors"], serde_json::json!({}));
    for kind in ["video", "audio"] {
        let causes = &ended.report()[kind]["interruptions"]["causes"];
        assert!(causes.as_object().unwrap().values().all(|of| of["count"] == 0), "{causes:#}");
    }
    let series = ended.report()["series"].as_array().unwrap();
    let sum = |key: &str| series.iter().map(|row| row[key].as_u64().unwrap()).sum::<u64>();
    let (planned, joined) = (sum("planned"), sum("joined"));
    assert!(planned.abs_diff(joined) <= planned / 10, "planned {planned}, joined {joined}");
    assert!(series.iter().any(|row| row["planned"].as_u64().unwrap() < 20), "nobody was away");
}
