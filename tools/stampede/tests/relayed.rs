//! `--transport turn-udp`, `turn-tcp` and `turn-tls` by way of coturn, which the embedded SFU names,
//! and by way of a real livekit-server's own TURN where one is named.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use common::turn::{Coturn, PASSWORD, USER};
use common::{Ended, Running, alone, beside, run};
use stampede_testing::skip_without_server;

const SMALL: [&str; 6] = [
    "run",
    "--video-publishers=1",
    "--audio-publishers=1",
    "--subscribers=3",
    "--duration=3s",
    "--no-tui",
];
const MEETING: [&str; 4] = ["run", "--participants=3", "--duration=3s", "--no-tui"];
const PATHS: [&str; 5] = ["udp", "tcp", "turn_udp", "turn_tcp", "turn_tls"];

/// Everybody came this way, and got everything.
#[track_caller]
fn assert_by(way: &str, ended: &Ended, participants: f64, tracks: f64) {
    ended.assert_code(0);
    assert_eq!(ended.number("/join/joined"), participants);
    for path in PATHS {
        let wanted = if path == way { participants } else { 0.0 };
        assert_eq!(ended.number(&format!("/join/paths/{path}")), wanted, "{path}");
    }
    let phase = |phase: &str| ended.number(&format!("/join/phases_ms_by_path/{way}/{phase}/count"));
    assert_eq!((phase("ice"), phase("dtls")), (participants, participants));
    for kind in ["video", "audio"] {
        assert_eq!(ended.number(&format!("/{kind}/tracks_received")), tracks, "{kind}");
        // What a busy relay drops is sent again.
        let packets = &ended.report()[kind]["packets"];
        assert_eq!(packets["unrecovered"], 0, "{kind} {packets:#}");
    }
    assert!(ended.number("/video/frames/decodable") > 0.0);
    assert_eq!(ended.number("/generator/uncategorised/malformed"), 0.0);
    let by = format!(" by {}", way.replace("turn_", "TURN over ").replace("over u", "over U"));
    let said = ended.stdout.to_ascii_lowercase();
    assert!(said.contains(&by.to_ascii_lowercase()), "{}", ended.stdout);
    for text in [&ended.stdout, &ended.stderr, &ended.report().to_string()] {
        assert!(!text.contains(PASSWORD) && !text.contains(USER), "credentials are told");
    }
}

#[test]
fn media_goes_by_way_of_a_turn_server_over_udp_alone() {
    let _beside = beside();
    let Some(coturn) = Coturn::start() else { return };
    let server = coturn.named(&["turns", "turn-tcp", "turn"], PASSWORD);
    for backend in ["mmsg", "auto"] {
        let backend = format!("--backend={backend}");
        let args = ["--transport=turn-udp", &server, &backend];
        let ended = run(&[&SMALL[..], &args].concat());
        assert_by("turn_udp", &ended, 4.0, 3.0);
        assert_eq!(ended.number("/generator/tcp_packets_in"), 0.0);
        assert_eq!(ended.report()["run"]["options"]["transport"], "turn-udp");
    }
    let ended = run(&[&SMALL[..], &["--transport=turn-udp", "--signal=v0", &server]].concat());
    assert_by("turn_udp", &ended, 4.0, 3.0);
    let ended = run(&[&MEETING[..], &["--transport=turn-udp", &server]].concat());
    assert_by("turn_udp", &ended, 3.0, 6.0);
    // What was allocated was given back.
    let given_back = coturn.given_back(15);
    assert_eq!(given_back, 15);
}

#[test]
fn media_goes_by_way_of_a_turn_server_over_tcp_and_tls() {
    let _beside = beside();
    let Some(coturn) = Coturn::start() else { return };
    let server = coturn.named(&["turn", "turn-tcp", "turns"], PASSWORD);
    let ca = format!("--ca={}", coturn.ca().display());
    let over_tcp = ["--transport=turn-tcp", &server];
    let over_tls = ["--transport=turn-tls", &server, &ca];
    for (way, args) in [("turn_tcp", &over_tcp[..]), ("turn_tls", &over_tls[..])] {
        let ended = run(&[&SMALL[..], args].concat());
        assert_by(way, &ended, 4.0, 3.0);
        assert!(ended.number("/generator/tcp_packets_in") > 100.0);
        assert_eq!(ended.number("/generator/tcp_unsent"), 0.0);
        // No UDP socket of ours ever was.
        assert_eq!(ended.number("/generator/packets_out"), 0.0);
        assert_by(way, &run(&[&MEETING[..], args].concat()), 3.0, 6.0);
    }
}

#[test]
fn a_server_that_wants_relays_alone_is_obeyed() {
    let _beside = beside();
    let Some(coturn) = Coturn::start() else { return };
    let server = coturn.named(&["turn"], PASSWORD);
    for signal in ["--signal=v0", "--signal=v1"] {
        let args = [signal, &server, "--embedded-flag=--force-relay"];
        let ended = run(&[&SMALL[..], &args].concat());
        assert_by("turn_udp", &ended, 4.0, 3.0);
    }
}

#[test]
fn a_way_by_turn_that_breaks_is_taken_up_again() {
    let _beside = beside();
    let Some(coturn) = Coturn::start() else { return };
    let server = coturn.named(&["turn", "turn-tcp"], PASSWORD);
    for way in ["turn-udp", "turn-tcp"] {
        for fault in ["network_change,at=2s", "signal_drop,at=2s"] {
            let (transport, fault) = (format!("--transport={way}"), format!("--fault={fault}"));
            let args = ["run", "--video-publishers=1", "--subscribers=2", "--duration=8s"];
            let args = [&args[..], &["--no-tui", &transport, &fault, &server]].concat();
            let ended = run(&args);
            ended.assert_code(0);
            let path = format!("/join/paths/{}", way.replace('-', "_"));
            assert_eq!(ended.number(&path), 3.0);
            let recovered = &ended.report()["recoveries"];
            assert!(ended.number("/join/resumed") >= 1.0, "{recovered:#}");
            assert_eq!(ended.number("/join/dropped"), 0.0, "{recovered:#}");
        }
    }
}

#[test]
fn a_turn_server_that_refuses_is_named_in_why_nobody_joined() {
    let _beside = beside();
    let Some(coturn) = Coturn::start() else { return };
    let args = ["run", "--video-publishers=1", "--subscribers=1", "--duration=1s", "--no-tui"];
    let wrong = coturn.named(&["turn"], "wrong");
    let ended = run(&[&args[..], &["--transport=turn-udp", &wrong]].concat());
    assert_ne!(ended.code, Some(0));
    let texts = ended.report()["join"]["error_texts"].to_string();
    assert!(texts.contains("refused the allocation: 401 Unauthorized"), "{texts}");
    // A certificate of somebody whom nobody trusts.
    let unknown = coturn.named(&["turns"], PASSWORD);
    let ended = run(&[&args[..], &["--transport=turn-tls", &unknown]].concat());
    let texts = ended.report()["join"]["error_texts"].to_string();
    assert!(texts.contains("(TLS) could not be reached: invalid peer certificate"), "{texts}");
}

/// Of a livekit-server that relays itself: `STAMPEDE_TURN` names the ways that it has.
#[test]
fn a_real_server_relays_by_either_protocol() {
    let _alone = alone();
    let (Ok(url), Ok(ways)) = (std::env::var("LIVEKIT_URL"), std::env::var("STAMPEDE_TURN")) else {
        return skip_without_server("LIVEKIT_URL or STAMPEDE_TURN is not set");
    };
    let secret = std::env::var("LIVEKIT_API_SECRET").unwrap_or_default();
    let key = std::env::var("LIVEKIT_API_KEY").unwrap_or_default();
    for way in ways.split(',') {
        let transport = format!("--transport={way}");
        let server = ["--url", &url, "--api-key", &key, &transport];
        let real = |args: &[&str]| {
            Running::start_with(&[args, &server].concat(), |command| {
                command.env("LIVEKIT_API_SECRET", &secret);
            })
            .end()
        };
        let path = way.replace('-', "_");
        for signal in ["--signal=v0", "--signal=v1"] {
            assert_by(&path, &real(&[&SMALL[..], &[signal]].concat()), 4.0, 3.0);
        }
        assert_by(&path, &real(&MEETING), 3.0, 6.0);
    }
}
