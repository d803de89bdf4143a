//! By what media goes: `--transport` against the embedded SFU, through a network that takes no UDP,
//! and against a real livekit-server where one is named.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use common::namespace::Namespace;
use common::{Ended, Running, beside, run};
use stampede_testing::skip_without_server;

const SMALL: [&str; 6] = [
    "run",
    "--video-publishers=1",
    "--audio-publishers=1",
    "--subscribers=3",
    "--duration=2s",
    "--no-tui",
];

/// Everybody came by TCP, and got everything.
#[track_caller]
fn assert_by_tcp(ended: &Ended, participants: f64, tracks: f64) {
    ended.assert_code(0);
    assert_eq!(ended.number("/join/joined"), participants);
    let paths = ["udp", "tcp"].map(|path| ended.number(&format!("/join/paths/{path}")));
    assert_eq!(paths, [0.0, participants], "{:#}", ended.report()["join"]["paths"]);
    let phase = |phase: &str| ended.number(&format!("/join/phases_ms_by_path/tcp/{phase}/count"));
    assert_eq!((phase("ice"), phase("dtls")), (participants, participants));
    for kind in ["video", "audio"] {
        assert_eq!(ended.number(&format!("/{kind}/tracks_received")), tracks, "{kind}");
        assert_eq!(ended.number(&format!("/{kind}/packets/unrecovered")), 0.0, "{kind}");
    }
    assert!(ended.number("/video/frames/decodable") > 0.0);
    assert!(ended.number("/generator/tcp_packets_in") > 100.0);
    assert!(ended.number("/generator/tcp_packets_out") > 0.0);
    assert_eq!(ended.number("/generator/tcp_unsent"), 0.0);
    assert!(ended.stdout.contains(" by TCP"), "{}", ended.stdout);
}

#[test]
fn media_goes_over_tcp_alone() {
    let _beside = beside();
    for backend in ["mmsg", "auto"] {
        let backend = format!("--backend={backend}");
        let ended = run(&[&SMALL[..], &["--transport=tcp", &backend]].concat());
        assert_by_tcp(&ended, 4.0, 3.0);
        // No UDP socket of ours ever was.
        assert_eq!(ended.number("/generator/packets_out"), 0.0);
        assert_eq!(ended.report()["run"]["options"]["transport"], "tcp");
    }
}

#[test]
fn participants_of_a_meeting_send_and_receive_over_one_tcp_connection() {
    let _beside = beside();
    let meeting = ["run", "--participants=3", "--duration=2s", "--no-tui", "--transport=tcp"];
    assert_by_tcp(&run(&meeting), 3.0, 6.0);
}

/// A firewall that lets no UDP in.
#[test]
fn where_no_udp_comes_through_auto_goes_over_tcp() {
    let _beside = beside();
    let Some(namespace) = Namespace::new() else { return };
    namespace.lose_from(7_882, 1);
    let args = [&SMALL[..], &["--embedded-flag=--rtc-port=7882"]].concat();
    let ended = Running::start_under(&namespace.wrapper(), &args, |_| {}).end();
    assert_by_tcp(&ended, 4.0, 3.0);
    let ice = ended.number("/join/phases_ms_by_path/tcp/ice/min");
    assert!(ice >= 2_000.0, "UDP was tried for two seconds first: {ice}");
}

#[test]
fn a_real_server_is_reached_over_tcp_by_either_protocol() {
    let _beside = beside();
    let Ok(url) = std::env::var("LIVEKIT_URL") else {
        return skip_without_server("LIVEKIT_URL is not set");
    };
    let secret = std::env::var("LIVEKIT_API_SECRET").unwrap_or_default();
    let key = std::env::var("LIVEKIT_API_KEY").unwrap_or_default();
    let server = ["--url", &url, "--api-key", &key, "--transport=tcp"];
    let real = |args: &[&str]| {
        Running::start_with(&[args, &server].concat(), |command| {
            command.env("LIVEKIT_API_SECRET", &secret);
        })
        .end()
    };
    for signal in ["v0", "v1"] {
        let signal = format!("--signal={signal}");
        assert_by_tcp(&real(&[&SMALL[..], &[&signal]].concat()), 4.0, 3.0);
    }
    let meeting = ["run", "--participants=3", "--duration=2s", "--no-tui"];
    assert_by_tcp(&real(&meeting), 3.0, 6.0);
}
