//! What can be seen of a run from outside while it goes on: metrics, the server's metrics, the
//! flight recorder.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::{Running, alone, files, run};
use rustix::process::Signal;
use stampede_testing::skip;

/// A port that was free a moment ago.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A server's metrics endpoint that says it sent 1,000 packets more at each scrape, and fails
/// every third time.
fn fake_server_metrics() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request);
            let packets = number * 1_000;
            let body = format!(
                "# TYPE livekit_packet_total counter\n\
                 livekit_packet_total{{direction=\"outgoing\",transmission=\"initial\"}} {packets}\n\
                 livekit_participant_total 6\nprocess_cpu_seconds_total {number}\n"
            );
            let status = if number % 3 == 2 { "503 Busy" } else { "200 OK" };
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
    format!("http://{address}/metrics")
}

#[test]
fn a_run_shows_metrics_reads_the_server_s_and_records_the_worst() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (address, server) = (free_address(), fake_server_metrics());
    let captures = dir.path().join("captures");
    let mut running = Running::start(&[
        "run",
        "--subscribers=4",
        "--duration=5s",
        "--embedded-drop=1%",
        "--no-tui",
        "--capture",
        captures.to_str().unwrap(),
        "--capture-peers=2",
        "--capture-seconds=2",
        "--prometheus",
        &address,
        "--server-metrics",
        &server,
    ]);
    running.wait_for("flight recorder: the worst 2 of all 4 subscribers");
    running.wait_for(" hold ");
    thread::sleep(Duration::from_secs(3));
    let text = get(&address, "/metrics");
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("# EOF\n"), "{text}");
    assert!(text.contains("stampede_participants_connected 5"), "{text}");
    assert!(text.contains("stampede_packets_received_total{kind=\"video\"} "), "{text}");
    assert!(get(&address, "/").starts_with("HTTP/1.1 404"));
    running.signal(Signal::USR1);
    running.wait_for("2 subscribers written to");

    let ended = running.end();
    assert!(ended.code.is_some_and(|code| code != 105), "SIGUSR1 ended it: {ended:?}");
    let metrics = &ended.report()["server"]["metrics"];
    assert!(metrics["targets"][0]["failed"].as_u64().unwrap() > 0, "{metrics}");
    assert!(metrics["packets_out"].is_null() || metrics["packets_out"].as_u64().unwrap() >= 3_000);
    assert_eq!(metrics["participants_max"], 6);
    let series = ended.report()["series"].as_array().unwrap();
    assert!(series.iter().any(|row| row["server"]["participants"] == 6), "{series:?}");
    assert!(series.iter().any(|row| row["server"].is_null()), "a failed scrape is null");
    assert!(ended.stdout.contains("failed: HTTP status 503"), "{}", ended.stdout);

    let written = files(&captures, "pcapng");
    assert_eq!(written.len(), 4, "two on demand, two at the end: {written:?}");
    assert_eq!(ended.report()["captures"].as_array().unwrap().len(), 2);
    let worst = ended.report()["captures"][0].as_str().unwrap();
    let timeline = fs::read_to_string(worst.replace(".pcapng", ".timeline.txt")).unwrap();
    let answer = "answer of the server";
    for step in ["join of room", "our offer", "join response", answer, "DTLS connected", "leave"] {
        assert!(timeline.contains(step), "{step:?} is not in\n{timeline}");
    }
    assert_decodes(worst);
}

/// Wireshark finds RTP of two streams (video and audio) and about two seconds of it.
fn assert_decodes(file: &str) {
    let decode = ["--enable-heuristic", "rtp_udp", "-T", "fields", "-E", "separator=;"];
    let fields = ["-e", "rtp.ssrc", "-e", "rtp.p_type", "-e", "frame.time_relative"];
    let output = Command::new("tshark").args(["-r", file]).args(decode).args(fields).output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return skip(format!("tshark can't be run: {error}")),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(';').collect()).collect();
    let ssrcs: std::collections::BTreeSet<_> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(ssrcs.len(), 2, "{text}");
    assert!(!ssrcs.contains(""), "not all of it is RTP: {text}");
    let last: f64 = rows.last().unwrap()[2].parse().unwrap();
    assert!((1.5..2.5).contains(&last), "{last} s");
    assert!(rows.len() > 100, "{}", rows.len());
}

#[test]
fn an_address_that_is_taken_is_refused_before_anybody_joins() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = run(&["run", "--prometheus", &address]);
    assert_eq!(ended.code, Some(104), "{ended:?}");
    assert!(ended.stderr.contains("--prometheus") && ended.stderr.contains(&address));
    for (args, why) in [
        (["--prometheus", "here"], "--prometheus"),
        (["--server-metrics", "ftp://host/metrics"], "http://"),
        (["--server-metrics", "host:6789"], "http://"),
        (["--capture", "/proc/nowhere"], "/proc/nowhere"),
        (["--capture-seconds", "0"], "--capture-seconds"),
    ] {
        let ended = run(&[&["run"][..], &args[..]].concat());
        assert_eq!(ended.code, Some(104), "{args:?}: {ended:?}");
        assert!(ended.stderr.contains(why), "{}", ended.stderr);
    }
}
