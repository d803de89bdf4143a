//! Every fault provoked on purpose with the real binary, and named right: whose it is, and why, in
//! numbers.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Ended, Running, alone, run};
use rustix::process::Signal;
use serde_json::Value;

/// A short run that is no work for the machine.
const SMALL: [&str; 7] = [
    "run",
    "--subscribers=6",
    "--duration=4s",
    "--num-per-second=50",
    "--video-resolution=low",
    "--no-tui",
    "--seed=7",
];

fn small<'a>(args: &[&'a str]) -> Vec<&'a str> {
    SMALL.iter().chain(args).copied().collect()
}

fn reasons(ended: &Ended) -> String {
    let reasons = ended.report()["verdict"]["reasons"].as_array().unwrap();
    reasons.iter().map(|reason| reason.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn assert_fault(ended: &Ended, fault: &str, words: &[&str]) {
    assert_eq!(
        ended.report()["verdict"]["fault"],
        fault,
        "{:#?}\n{}",
        ended.verdict(),
        ended.stdout
    );
    let reasons = reasons(ended);
    for word in words {
        assert!(reasons.contains(word), "'{word}' is not in: {reasons}");
    }
}

fn sum(ended: &Ended, name: &str) -> f64 {
    let of = |kind| ended.number(&format!("/{kind}/packets/{name}"));
    of("video") + of("audio")
}

#[test]
fn a_generator_that_stood_still_makes_the_run_invalid() {
    let _alone = alone();
    let mut running = Running::start(&small(&[]));
    running.wait_for(" hold ");
    running.signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(1_600));
    running.signal(Signal::CONT);
    let ended = running.end();
    ended.assert_code(98);
    assert_fault(&ended, "generator", &["stood still for 1."]);
    assert_eq!(ended.report()["verdict"]["result"], "invalid");
}

#[test]
fn refused_joins_are_the_servers() {
    let _alone = alone();
    // Of ten joins, the publisher's first, every fifth is refused.
    let ended = run(&small(&["--subscribers=9", "--embedded-flag=--refuse-joins=20%"]));
    ended.assert_code(0);
    assert_fault(&ended, "server", &["8 of 10 participants joined", "2 x http_503"]);
    assert_eq!(ended.number("/join/failed"), 2.0);
    assert_eq!(ended.number("/server/embedded/joins_refused"), 2.0);
}

#[test]
fn packets_the_server_dropped_are_the_servers() {
    let _alone = alone();
    let ended = run(&small(&["--embedded-impair=loss=4%,burst=2"]));
    assert_fault(&ended, "server", &["the embedded SFU dropped", "on purpose"]);
    assert!(ended.number("/server/embedded/measured/dropped") > 20.0);
    assert!(ended.report()["impairment"].is_null());
}

#[test]
fn signalling_that_stalls_is_the_servers() {
    let _alone = alone();
    let ended = run(&small(&[
        "--subscribers=10",
        "--num-per-second=2",
        "--duration=1s",
        "--embedded-flag=--stall-signalling=6s@1s",
    ]));
    assert_fault(&ended, "server", &["signalling stalled", "after TCP was connected"]);
    assert_eq!(ended.number("/join/joined"), 11.0, "late, but they joined");
}

#[test]
fn keyframes_that_are_withheld_are_the_servers() {
    let _alone = alone();
    let ended =
        run(&small(&["--subscribers=3", "--duration=2s", "--embedded-flag=--withhold-keyframes"]));
    ended.assert_code(1);
    assert_fault(&ended, "server", &["of 3 of 6 subscribed tracks nothing came", "on 3 tracks"]);
    assert_eq!(ended.number("/video/tracks_received"), 0.0);
    assert_eq!(ended.number("/audio/tracks_received"), 3.0);
    assert_eq!(ended.number("/server/embedded/totals/plis_relayed"), 0.0);
}

#[test]
fn packets_lost_on_the_way_up_are_the_publishers() {
    let _alone = alone();
    let ended = run(&small(&["--duration=6s", "--embedded-flag=--drop-upstream=6%"]));
    assert_fault(
        &ended,
        "publisher",
        &["receiver reports say that", "never reached the embedded SFU"],
    );
    assert!(ended.number("/publish/upstream_loss_rate") > 0.005);
    let workers = ended.report()["server"]["embedded"]["workers"].as_array().unwrap();
    assert!(workers[0]["upstream_dropped"].as_u64().unwrap() > 20);
    // The publisher repaired its video when it was asked to; Opus is not repaired.
    assert!(ended.number("/publish/retransmitted") > 0.0);
    assert!(ended.number("/audio/packets/unrecovered") > 0.0);
}

#[test]
fn packets_that_vanish_between_server_and_us_are_the_networks() {
    let _alone = alone();
    let relay = Relay::start(20);
    let node_ip = format!("--embedded-flag=--node-ip={}", relay.address.ip());
    let rtc_port = format!("--embedded-flag=--rtc-port={}", relay.address.port());
    let ended = run(&small(&[&node_ip, &rtc_port]));
    assert_fault(&ended, "network", &["the embedded SFU handed", "our kernel dropped none"]);
    let (dropped, missing) = (relay.dropped.load(Ordering::Relaxed) as f64, sum(&ended, "missing"));
    // The relay counts the ramp too, and what it dropped of retransmissions.
    assert!(missing > 20.0 && dropped >= missing, "{missing} missing, {dropped} dropped");
    assert_eq!(ended.number("/server/embedded/measured/dropped"), 0.0);
    assert_eq!(ended.number("/generator/udp_dropped"), 0.0);
}

#[test]
fn what_we_drop_on_purpose_is_nobodys_fault() {
    let _alone = alone();
    let ended = run(&small(&["--impair=cohort=50%,loss=8%,burst=3", "--impair=duplicate=5%"]));
    ended.assert_code(0);
    assert_fault(&ended, "none", &["packets were dropped on purpose by --impair"]);
    let (dropped, missing) = (ended.number("/impairment/dropped"), sum(&ended, "missing"));
    // Retransmissions are dropped too.
    assert!(missing > 20.0, "{missing}");
    assert!(dropped >= missing - 10.0 && dropped <= 1.3 * missing + 10.0, "{dropped}, {missing}");
    assert_eq!(ended.number("/server/embedded/measured/dropped"), 0.0);
    let cohorts = ended.report()["impairment"]["cohorts"].as_array().unwrap();
    let of = |index: usize, name: &str| cohorts[index][name].as_u64().unwrap();
    assert_eq!(of(0, "subscribers") + of(1, "subscribers"), 6, "{cohorts:?}");
    assert!((2..=4).contains(&of(0, "subscribers")), "{cohorts:?}");
    assert_eq!((of(0, "duplicated"), of(1, "dropped")), (0, 0), "{cohorts:?}");
    let (twice, seen) = (of(1, "duplicated") as f64, sum(&ended, "duplicate"));
    assert!(twice > 10.0 && (twice - seen).abs() <= 0.1 * twice + 3.0, "{twice}, {seen} seen");
}

#[test]
fn a_delay_of_ours_is_on_the_account_and_loses_nothing() {
    let _alone = alone();
    let ended = run(&small(&["--impair=delay=120ms,jitter=30ms,reorder=2%"]));
    ended.assert_code(0);
    assert_fault(&ended, "none", &[]);
    assert_eq!(sum(&ended, "unrecovered"), 0.0);
    assert!(ended.number("/impairment/delayed") >= sum(&ended, "received") - 100.0);
    assert!(ended.number("/impairment/reordered") > 0.0);
    assert!(sum(&ended, "reordered") > 0.0);
    assert_eq!(ended.number("/impairment/dropped"), 0.0);
    assert!(ended.number("/join/phases_ms/first_packet/p50") >= 90.0);
    let jitter = ended.number("/audio/jitter_ms/p50");
    assert!((2.0..40.0).contains(&jitter), "{jitter}");
}

#[test]
fn an_outage_takes_everything_for_its_time_and_nobody_drops_out() {
    let _alone = alone();
    // The ramp takes about two seconds, so the outage lies in the measured window.
    let ended = run(&small(&["--duration=8s", "--impair=outage=1s@6s"]));
    ended.assert_code(0);
    assert_fault(&ended, "none", &["dropped on purpose by --impair"]);
    assert_eq!(ended.number("/join/dropped"), 0.0);
    assert!(ended.number("/impairment/dropped") > 200.0);
    assert!(ended.number("/video/freezes/count") >= 1.0);
}

#[test]
fn broken_datagrams_harm_nobody() {
    let _alone = alone();
    let ended = run(&small(&["--embedded-flag=--malformed=10%"]));
    ended.assert_code(0);
    assert_fault(&ended, "none", &["broken or failed authentication"]);
    assert!(ended.number("/server/embedded/measured/malformed") > 50.0);
    assert_eq!(ended.number("/join/dropped"), 0.0);
    assert_eq!(sum(&ended, "missing"), 0.0);
    assert_eq!(sum(&ended, "received"), sum(&ended, "expected"));
}

#[test]
fn a_healthy_run_accuses_nobody() {
    let _alone = alone();
    let ended = run(&small(&[]));
    ended.assert_code(0);
    assert_fault(&ended, "none", &[]);
    assert!(ended.report()["impairment"].is_null());
}

/// Packets that the embedded SFU dropped between two it sent, by media kind.
fn ledger_gaps(ended: &Ended) -> HashMap<String, u64> {
    let mut gaps = HashMap::new();
    let list = |value: &Value| value.as_array().unwrap().clone();
    for room in list(&ended.report()["server"]["embedded"]["rooms"]) {
        let kinds: HashMap<Value, String> = list(&room["published"])
            .iter()
            .map(|track| (track["track_sid"].clone(), track["kind"].as_str().unwrap().to_owned()))
            .collect();
        for track in list(&room["subscribers"]).iter().flat_map(|who| list(&who["tracks"])) {
            let kind = kinds[&track["track_sid"]].clone();
            *gaps.entry(kind).or_default() += track["dropped_between"].as_u64().unwrap();
        }
    }
    gaps
}

#[test]
fn what_is_missing_is_what_was_dropped_packet_for_packet() {
    let _alone = alone();
    // A run that ends in its ramp is accounted from its first packet to its last, as the ledger is.
    let mut running = Running::start(&small(&[
        "--subscribers=500",
        "--num-per-second=4",
        "--embedded-impair=loss=5%,burst=3",
    ]));
    running.wait_for(" ramp ");
    std::thread::sleep(Duration::from_secs(6));
    running.signal(Signal::INT);
    let ended = running.end();
    ended.assert_code(105);
    let gaps = ledger_gaps(&ended);
    for kind in ["video", "audio"] {
        let packets = |name: &str| ended.number(&format!("/{kind}/packets/{name}"));
        assert!(gaps[kind] > 30, "{gaps:?}");
        assert_eq!(packets("missing"), gaps[kind] as f64, "{kind}: {gaps:?}");
        assert_eq!(packets("repaired") + packets("unrecovered"), packets("missing"), "{kind}");
    }
    // Video has RTX, Opus has none.
    let (missing, repaired) =
        (ended.number("/video/packets/missing"), ended.number("/video/packets/repaired"));
    assert!(repaired >= 0.8 * missing, "{repaired} of {missing}");
    assert_eq!(ended.number("/audio/packets/repaired"), 0.0);
    assert_eq!(ended.number("/audio/packets/unrecovered"), gaps["audio"] as f64);
}

/// A network between the embedded SFU and its clients that loses one RTP packet in so many on the
/// way down. It stands at the address the SFU tells its clients, with the SFU's port.
struct Relay {
    address: SocketAddr,
    dropped: Arc<AtomicU64>,
}

impl Relay {
    fn start(one_in: u64) -> Self {
        // A port that is free at both addresses; the SFU takes its own once it starts.
        let (socket, address) = (0..50)
            .find_map(|_| {
                let port = UdpSocket::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
                let address = SocketAddr::from(([127, 0, 0, 3], port));
                Some((UdpSocket::bind(address).ok()?, address))
            })
            .expect("a free port");
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        let sfu = SocketAddr::from(([127, 0, 0, 1], address.port()));
        std::thread::spawn(move || {
            let mut ways: HashMap<SocketAddr, UdpSocket> = HashMap::new();
            let mut buffer = [0; 2_048];
            // Ends with the test's process.
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                let way = ways.entry(client).or_insert_with(|| {
                    let up = UdpSocket::bind("127.0.0.1:0").unwrap();
                    let down = (up.try_clone().unwrap(), socket.try_clone().unwrap());
                    let counter = Arc::clone(&counter);
                    std::thread::spawn(move || {
                        relay_down(&down.0, &down.1, client, one_in, &counter)
                    });
                    up
                });
                // A client that outlives the SFU may still talk.
                let _ = way.send_to(&buffer[..length], sfu);
            }
        });
        Self { address, dropped }
    }
}

fn relay_down(
    from: &UdpSocket,
    to: &UdpSocket,
    client: SocketAddr,
    one_in: u64,
    dropped: &AtomicU64,
) {
    let (mut buffer, mut packets) = ([0; 2_048], 0);
    loop {
        // An error is a port that is closed by now.
        let Ok((length, _)) = from.recv_from(&mut buffer) else { continue };
        let rtp =
            matches!(buffer[..length], [128..=191, second, ..] if !(192..=223).contains(&second));
        packets += u64::from(rtp);
        if rtp && packets % one_in == 0 {
            dropped.fetch_add(1, Ordering::Relaxed);
        } else {
            let _ = to.send_to(&buffer[..length], client);
        }
    }
}
