//! The way to a server: private CAs, proxies, servers that refuse, fail, close and flood.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use common::fake::{self, Flood, Join};
use common::{Ended, KEY, Running, SECRET, Sfu, alone};

const SMALL: [&str; 4] = ["--subscribers=3", "--duration=1s", "--num-per-second=50", "--no-tui"];
/// Somebody to hear, where the server is a good one.
const HEARD: &str = "--audio-publishers=1";

/// A run against this server.
/// By v0, which is what these servers speak: a try of v1 would be one more connection.
fn run_with(url: &str, args: &[&str], prepare: impl FnOnce(&mut Command)) -> Ended {
    let all = [&["run", "--signal=v0", "--url", url, "--api-key", KEY], &SMALL[..], args].concat();
    Running::start_with(&all, |command| {
        command.env("LIVEKIT_API_SECRET", SECRET);
        prepare(command);
    })
    .end()
}

fn run(url: &str, args: &[&str]) -> Ended {
    run_with(url, args, |_| {})
}

fn address(sfu: &Sfu) -> SocketAddr {
    sfu.url.trim_start_matches("ws://").parse().unwrap()
}

/// The verdict, and one of its reasons that holds all of `words`.
#[track_caller]
fn assert_verdict(ended: &Ended, result: &str, fault: &str, words: &[&str]) {
    let verdict = ended.verdict().unwrap_or_else(|| panic!("no report: {ended:#?}"));
    assert_eq!(
        (&verdict["result"], &verdict["fault"]),
        (&result.into(), &fault.into()),
        "{verdict:#}"
    );
    let reasons = verdict["reasons"].as_array().unwrap();
    let holds = |reason: &str| words.iter().all(|word| reason.contains(word));
    assert!(reasons.iter().any(|reason| holds(reason.as_str().unwrap())), "{words:?}: {verdict:#}");
}

#[test]
fn a_private_ca_is_trusted_by_flag_and_by_environment_and_not_without() {
    let _alone = alone();
    let sfu = Sfu::start(&[]);
    let (address, pem) = fake::tls(address(&sfu));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    fs::write(&file, pem).unwrap();
    let url = format!("wss://{address}");
    // The metrics of a server without any, by way of the same certificate.
    let metrics = format!("--server-metrics=https://{address}/metrics");
    let scraped = |ended: &Ended| {
        let target = &ended.report()["server"]["metrics"]["targets"][0];
        target["error"].as_str().unwrap_or_default().to_owned()
    };

    let ended = run_with(&url, &[HEARD, &metrics], |command| {
        command.env("SSL_CERT_FILE", &file);
    });
    ended.assert_code(0);
    assert_eq!(ended.number("/join/joined"), 4.0);
    assert_eq!(scraped(&ended), "HTTP status 404 Not Found");

    let ended = run(&url, &[HEARD, "--ca", file.to_str().unwrap(), &metrics]);
    ended.assert_code(0);
    assert_eq!(ended.number("/join/joined"), 4.0);
    assert_eq!(scraped(&ended), "HTTP status 404 Not Found");

    let ended = run(&url, &[]);
    ended.assert_code(1);
    assert_verdict(&ended, "fail", "unknown", &["0 of 3", "UnknownIssuer"]);
}

#[test]
fn a_bad_ca_is_a_bad_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.pem");
    fs::write(&empty, "no certificate").unwrap();
    let missing = dir.path().join("missing.pem");
    for (file, why) in [(&empty, "no BEGIN CERTIFICATE"), (&missing, "No such file")] {
        let ended = run("wss://127.0.0.1:1", &["--ca", file.to_str().unwrap()]);
        ended.assert_code(104);
        for word in ["--ca", file.to_str().unwrap(), why] {
            assert!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
        }
        // Nor is a store that somebody names passed over for another one.
        let ended = run_with("wss://127.0.0.1:1", &[], |command| {
            command.env("SSL_CERT_FILE", file);
        });
        ended.assert_code(104);
        assert!(
            ended.stderr.contains("SSL_CERT_FILE") && ended.stderr.contains(why),
            "{}",
            ended.stderr
        );
    }
    let ended = Running::start(&["run", "--ca", "/dev/null"]).end();
    ended.assert_code(104);
    assert!(ended.stderr.contains("--ca is given without --url"), "{}", ended.stderr);
}

#[test]
fn signalling_goes_through_the_proxy_of_the_environment() {
    let _alone = alone();
    let sfu = Sfu::start(&[]);
    let (proxy, asked) = fake::proxy(address(&sfu));
    // Only the proxy knows the name.
    let ended = run_with("ws://livekit.invalid:7880", &[HEARD], |command| {
        command.env("http_proxy", format!("http://user:pass@{proxy}"));
    });
    ended.assert_code(0);
    assert_eq!(ended.number("/join/joined"), 4.0);
    assert!(ended.stderr.contains(&format!("through the proxy {proxy} (http_proxy)")));
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    let created = "POST http://livekit.invalid:7880/twirp/livekit.RoomService/CreateRoom HTTP/1.1";
    assert_eq!(asked[0].0, created);
    assert_eq!(asked.len(), 6, "{asked:?}");
    assert!(asked[1..5].iter().all(|(line, _)| line == "CONNECT livekit.invalid:7880 HTTP/1.1"));
    // Whether the server is still there at the end.
    assert_eq!(asked[5].0, "GET http://livekit.invalid:7880/rtc/validate HTTP/1.1");
    // base64 of `user:pass`.
    let known = Some("Basic dXNlcjpwYXNz");
    assert!(asked.iter().all(|(_, authorization)| authorization.as_deref() == known), "{asked:?}");
    for text in [&ended.stdout, &ended.stderr, &ended.report().to_string()] {
        assert!(!text.contains("pass@") && !text.contains("dXNlcjpwYXNz"), "{text}");
    }
}

#[test]
fn loopback_goes_through_a_proxy_only_if_one_is_asked_for() {
    let _alone = alone();
    let sfu = Sfu::start(&[]);
    let (proxy, asked) = fake::proxy(address(&sfu));
    let dead = |command: &mut Command| {
        command.env("ALL_PROXY", "http://127.0.0.1:1");
    };
    let ended = run_with(&sfu.url, &[HEARD], dead);
    ended.assert_code(0);
    assert_eq!(ended.number("/join/joined"), 4.0);
    let ended = run_with(&sfu.url, &[HEARD, "--proxy", &proxy.to_string()], dead);
    ended.assert_code(0);
    assert_eq!(asked.lock().unwrap().len(), 6);
    let (tls, pem) = fake::tls(address(&sfu));
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, pem).unwrap();
    let (proxy, asked) = fake::proxy(tls);
    let args = [HEARD, "--proxy", &format!("http://{proxy}"), "--ca", ca.to_str().unwrap()];
    // TLS in the tunnel, for RoomService too.
    let ended = run(&format!("wss://{tls}"), &args);
    ended.assert_code(0);
    let asked = asked.lock().unwrap();
    assert!(asked.len() == 6 && asked.iter().all(|(line, _)| line.starts_with("CONNECT ")));

    let ended = run_with("ws://livekit.invalid", &[], |command| {
        command.env("HTTP_PROXY", "socks5://127.0.0.1:1");
    });
    ended.assert_code(104);
    assert!(ended.stderr.contains("HTTP_PROXY: a proxy of kind socks5://"), "{}", ended.stderr);
}

#[test]
fn a_server_that_fails_to_make_the_room_is_at_fault_and_there_is_a_report() {
    let never = Join::Refuse(500, "");
    let twirp = r#"{"code":"unavailable","msg":"no node for room"}"#;
    for (status, body, kind, said) in [
        (503, twirp, "http_503", "the server failed: unavailable: no node for room (HTTP 503)"),
        (502, "<html>Bad Gateway", "http_502", "<html>Bad Gateway"),
        (400, r#"{"code":"invalid_argument","msg":"name too long"}"#, "http_400", "name too long"),
        (429, r#"{"code":"resource_exhausted","msg":"limit"}"#, "http_429", "resource_exhausted"),
    ] {
        let ended = run(&format!("ws://{}", fake::server((status, body), never.clone())), &[]);
        ended.assert_code(1);
        assert_eq!(ended.number(&format!("/join/errors/{kind}")), 1.0);
        assert_eq!(ended.number("/join/failed"), 3.0);
        assert_verdict(&ended, "fail", "server", &["0 of 3", "could not be made", said]);
    }
    for (status, body) in [(401, "who?"), (403, r#"{"code":"permission_denied","msg":"no"}"#)] {
        let ended = run(&format!("ws://{}", fake::server((status, body), never.clone())), &[]);
        ended.assert_code(104);
        assert!(ended.stderr.contains("LIVEKIT_API_SECRET"), "{}", ended.stderr);
    }
}

#[test]
fn what_the_server_says_of_a_join_stands_in_the_report() {
    for (join, kind, said) in [
        (Join::Refuse(403, "no grant for this room"), "http_403", "no grant for this room"),
        (Join::Refuse(400, "room name exceeds limits"), "http_400", "room name exceeds limits"),
        (Join::Close(1011, "node is draining"), "signal_closed_1011", "node is draining"),
        (Join::Close(4003, "not today"), "signal_closed_4xxx", "code 4003"),
    ] {
        let ended = run(&format!("ws://{}", fake::server((200, ""), join)), &[]);
        ended.assert_code(1);
        assert_eq!(ended.number(&format!("/join/errors/{kind}")), 3.0);
        let text = ended.report()["join"]["error_texts"][kind].as_str().unwrap();
        assert!(text.contains(said), "{text}");
        assert_verdict(&ended, "fail", "server", &["0 of 3", &format!("3 x {kind}"), said]);
    }
}

#[test]
fn a_server_that_floods_is_at_fault_and_the_generator_is_not() {
    let _alone = alone();
    for (flood, kind, said) in [
        (Flood::Offers, "server_flooded_offers", "more offers than"),
        (Flood::Candidates, "server_flooded_candidates", "more candidates than"),
        (Flood::LongSdp, "server_flooded_sdp", "an SDP of 26"),
        (Flood::LongMessage, "server_flooded_message_size", "--message-size-max is 16777216"),
    ] {
        let url = format!("ws://{}", fake::server((200, ""), Join::Flood(flood)));
        // An SDP that is too long comes in a message that is not.
        let ended = run(&url, &["--message-size-max=16MiB"]);
        ended.assert_code(1);
        assert_eq!(ended.number(&format!("/join/errors/{kind}")), 3.0);
        assert_verdict(&ended, "fail", "server", &["0 of 3", kind, said]);
    }
}
