//! Signalling by one way, media by another: the real binary against the embedded SFU behind a
//! tunnel, as `ssh -L`, `kubectl port-forward` and a name with addresses of both families make one.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::copy;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use common::namespace::Namespace;
use common::{Ended, KEY, Running, SECRET, Sfu, alone};
use stampede_testing::skip;

/// Carries TCP connections from one address to another.
struct Tunnel {
    entrance: SocketAddr,
}

impl Tunnel {
    /// `None`, and a skip, where this machine has no such address.
    fn start(entrance: &str, exit: SocketAddr) -> Option<Self> {
        let listener = TcpListener::bind(entrance);
        let skipped = |why: &_| skip(format!("nothing can listen on {entrance}: {why}"));
        let listener = listener.inspect_err(skipped).ok()?;
        let entrance = listener.local_addr().unwrap();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(exit) else { continue };
                carry(&client, &server);
                carry(&server, &client);
            }
        });
        Some(Self { entrance })
    }

    fn url(&self) -> String {
        format!("ws://{}", self.entrance)
    }
}

fn carry(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}

/// Where the SFU takes signalling.
fn signalling(sfu: &Sfu) -> SocketAddr {
    sfu.url.strip_prefix("ws://").unwrap().parse().unwrap()
}

fn run_under(wrapper: &[&str], url: &str, args: &[&str]) -> Ended {
    let head = ["run", "--url", url, "--api-key", KEY, "--video-publishers", "1", "--no-tui"];
    let with_secret = |command: &mut std::process::Command| {
        command.env("LIVEKIT_API_SECRET", SECRET);
    };
    Running::start_under(wrapper, &[&head[..], args].concat(), with_secret).end()
}

/// Everybody joined, got everything, and sent nothing that the kernel refused.
fn assert_flawless(ended: &Ended, participants: f64) {
    ended.assert_code(0);
    assert_eq!(ended.number("/join/joined"), participants, "{ended:#?}");
    assert_eq!(ended.report()["join"]["errors"], serde_json::json!({}));
    assert_eq!(ended.number("/video/packets/unrecovered"), 0.0, "{:?}", ended.verdict());
    assert!(ended.number("/video/frames/decodable") > 0.0);
    assert_eq!(ended.number("/generator/send_errors"), 0.0, "{:?}", ended.report()["generator"]);
    assert_eq!(ended.report()["verdict"]["result"], "pass");
}

#[test]
fn signalling_by_ipv6_and_media_by_ipv4() {
    let _alone = alone();
    let sfu = Sfu::start(&["--node-ip", "127.0.0.1"]);
    let Some(tunnel) = Tunnel::start("[::1]:0", signalling(&sfu)) else { return };
    // Sockets that carry nothing are closed after five seconds.
    for (backend, duration) in [("mmsg", "8s"), ("io_uring", "8s"), ("packet_ring", "3s")] {
        let args = ["--subscribers", "5", "--duration", duration, "--backend", backend];
        let ended = run_under(&[], &tunnel.url(), &args);
        if ended.code == Some(104) && backend != "mmsg" {
            skip(ended.stderr.trim());
            continue;
        }
        assert_flawless(&ended, 6.0);
        // The way to the media is looked for once, and not waited for.
        let slowest = ended.number("/join/phases_ms/dtls/max");
        assert!(slowest < 2_000.0, "{slowest} ms");
    }
}

#[test]
fn signalling_by_ipv4_and_media_by_ipv6() {
    let _alone = alone();
    if Tunnel::start("[::1]:0", ([127, 0, 0, 1], 1).into()).is_none() {
        return;
    }
    let sfu = Sfu::start(&["--bind", "::1"]);
    let tunnel = Tunnel::start("127.0.0.1:0", signalling(&sfu)).unwrap();
    let ended = run_under(&[], &tunnel.url(), &["--subscribers", "5", "--duration", "8s"]);
    assert_flawless(&ended, 6.0);
}

/// A tunnel on this host to a server on another one: media can't leave from loopback.
#[test]
fn a_tunnel_to_a_server_elsewhere() {
    let _alone = alone();
    let (Some(here), Some(there)) = (Namespace::new(), Namespace::new()) else { return };
    if !here.connect(&there, ["10.98.0.1/24", "10.98.0.2/24"]) {
        return;
    }
    let sfu = Sfu::start_under(&there.wrapper(), &["--bind", "10.98.0.2"]);
    let tunnel = here.enter(|| Tunnel::start("127.0.0.1:0", signalling(&sfu)));
    let url = tunnel.expect("loopback").url();
    let args = ["--subscribers", "5", "--duration", "8s"];
    let ended = run_under(&here.wrapper(), &url, &args);
    assert_flawless(&ended, 6.0);
}

#[test]
fn without_a_candidate_pair_that_is_said_and_nobody_is_blamed() {
    let _alone = alone();
    // Nothing listens there, and a firewall would be no different.
    let sfu = Sfu::start(&["--node-ip", "127.0.0.9"]);
    let run = |duration| {
        let ended = sfu.run(&["--subscribers", "2", "--duration", duration, "--no-tui"]).end();
        let report = ended.report();
        assert_eq!(report["verdict"]["result"], "fail");
        assert_eq!(report["verdict"]["fault"], "unknown");
        (report["join"]["errors"].clone(), report["verdict"]["reasons"].to_string())
    };
    // Told to leave before ICE has failed, and after.
    let (errors, reason) = run("1s");
    assert_eq!(errors, serde_json::json!({}));
    assert!(reason.contains("still joining: no candidate pair worked: our candidates"), "{reason}");
    let (errors, reason) = run("12s");
    assert_eq!(errors, serde_json::json!({"no_candidate_pair": 2}));
    let port = reason.split("the server's udp 127.0.0.9:").nth(1).unwrap();
    let port: String = port.chars().take_while(char::is_ascii_digit).collect();
    for part in [
        "2 x no_candidate_pair: no candidate pair worked: our candidates 127.0.0.1:",
        &format!("nothing came back on UDP port {port}"),
    ] {
        assert!(reason.contains(part), "{part:?}: {reason}");
    }
}
