//! At a livekit-server nobody has a ledger: its RTCP sender reports tell what it never sent from what
//! the network lost. `STAMPEDE_LIVEKIT_SERVER` names its binary; skipped, and said so, without it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::namespace::Namespace;
use common::{Ended, KEY, Running, SECRET, alone};
use stampede_testing::skip_without_server;

const PORT: u16 = 7_880;
const RTC_PORT: u16 = 7_882;

/// A livekit-server in a namespace of its own, so that its ports are free and its network ours.
struct LivekitServer {
    child: Child,
    namespace: Namespace,
    _dir: tempfile::TempDir,
}

impl LivekitServer {
    fn start() -> Option<Self> {
        let Some(binary) = std::env::var_os("STAMPEDE_LIVEKIT_SERVER") else {
            skip_without_server("STAMPEDE_LIVEKIT_SERVER is not set");
            return None;
        };
        let namespace = Namespace::new()?;
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("livekit.yaml");
        let text = format!(
            "port: {PORT}\nbind_addresses: [\"127.0.0.1\"]\nkeys: {{{KEY}: \"{SECRET}\"}}\n\
             logging: {{level: error}}\nrtc: {{udp_port: {RTC_PORT}, node_ip: 127.0.0.1, \
             enable_loopback_candidate: true, interfaces: {{includes: [lo]}}, \
             allow_tcp_fallback: false}}\n"
        );
        std::fs::write(&config, text).unwrap();
        let [ip, args @ ..] = namespace.wrapper();
        let child = Command::new(ip)
            .args(args)
            .arg(binary)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, namespace, _dir: dir };
        let began = Instant::now();
        while !server.listens() {
            assert!(began.elapsed() < Duration::from_secs(20), "livekit-server does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(server)
    }

    fn listens(&self) -> bool {
        let [ip, args @ ..] = self.namespace.wrapper();
        let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{PORT}");
        let mut command = Command::new(ip);
        command.args(args).args(["bash", "-c", &connect]).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    fn run(&self, args: &[&str]) -> Ended {
        let url = format!("ws://127.0.0.1:{PORT}");
        let fixed = ["run", "--no-tui", "--url", &url, "--api-key", KEY, "--video-publishers=1"];
        let all = [&fixed[..], &["--audio-publishers=1", "--subscribers=4"], args].concat();
        let prepare = |command: &mut Command| {
            command.env("LIVEKIT_API_SECRET", SECRET);
        };
        Running::start_under(&self.namespace.wrapper(), &all, prepare).end()
    }
}

impl Drop for LivekitServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_the_wire_lost_behind_a_livekit_server_is_the_networks() {
    let _alone = alone();
    let Some(server) = LivekitServer::start() else { return };
    let healthy = server.run(&["--duration=6s"]);
    healthy.assert_code(0);
    assert_eq!(healthy.report()["verdict"]["fault"], "none", "{:#?}", healthy.verdict());
    // A real server may once be late with a packet of the first seconds.
    assert_eq!(healthy.number("/video/packets/unrecovered"), 0.0);

    server.namespace.lose_from(RTC_PORT, 25);
    let ended = server.run(&["--duration=20s"]);
    let verdict = ended.verdict().unwrap();
    assert_eq!(verdict["fault"], "network", "{verdict:#?}");
    let reasons = verdict["reasons"].to_string();
    assert!(
        reasons.contains("sender reports") && reasons.contains("it sent at least"),
        "{reasons}"
    );
}
