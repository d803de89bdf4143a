//! Whole runs of the real binary against the embedded SFU.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::small::{assert_flawless, longer, small};
use common::{KEY, Running, SECRET, Sfu, beside, children, files, run};
use rustix::process::Signal;
use stampede_media::{ClipFrame, Codec, MediaClip, builtin};
use stampede_testing::skip;

#[test]
fn a_small_run_is_flawless_and_reported() {
    let _beside = beside();
    let ended = run(&small(&[]));
    assert_flawless(&ended, 6, 5.0);
    let report = ended.report();
    assert_eq!(report["schema"], "stampede.report.v1");
    assert_eq!(report["run"]["target"]["embedded"], true);
    assert_eq!(report["run"]["seed"], 7);
    let measured = ended.number("/run/measured_s");
    assert!((3.0..4.0).contains(&measured), "{measured}");
    // 25 pictures a second for three seconds, on five screens.
    let frames = ended.number("/video/frames/decodable");
    assert!((300.0..=450.0).contains(&frames), "{frames}");
    assert!((24.0..26.0).contains(&ended.number("/video/fps")));
    // 720p by default: above 1.5 Mbps a subscriber.
    assert!(ended.number("/video/bitrate_bps") > 5.0 * 1.5e6);
    assert_eq!(ended.number("/join/phases_ms/first_keyframe/count"), 5.0);
    assert!(report["series"].as_array().unwrap().len() >= 3);
    // By abs-capture-time: the embedded SFU strips no trailers, so none are sent to it.
    assert_eq!(ended.number("/video/latency_ms/count"), ended.number("/video/frames/complete"));
    assert_eq!(ended.number("/video/latency_source/packet_trailer"), 0.0);
    assert!((0.0..500.0).contains(&ended.number("/video/latency_ms/p50")));
    assert!(ended.number("/server/embedded/measured/packets_sent") > 0.0);
    assert!(ended.stdout.contains("PASS  6 of 6 joined, 0 of"), "{}", ended.stdout);
    assert!(ended.stderr.contains("joined 6/6"), "{}", ended.stderr);
    assert!(!ended.stderr.contains('\u{1b}') && !ended.stdout.contains('\u{1b}'));
}

/// Two send data, one of them audio too and one nothing else; then the SFU drops some on purpose.
#[test]
fn data_messages_come_and_what_the_sfu_drops_is_known() {
    let _beside = beside();
    let args = ["--video-publishers=0", "--data-publishers=2", "--data-rate=20"];
    let ended = run(&small(&args));
    ended.assert_code(0);
    assert_eq!(ended.number("/join/joined"), 7.0);
    for kind in ["reliable", "lossy"] {
        let number = |name: &str| ended.number(&format!("/data/{kind}/{name}"));
        assert!((100.0..=160.0).contains(&number("sent")), "{kind}: {}", number("sent"));
        assert!(number("expected") > 5.0 * 60.0, "{kind}: {}", number("expected"));
        assert_eq!(number("received"), number("expected"), "{kind}");
        assert_eq!(number("bytes_received"), 256.0 * number("received"), "{kind}");
        for none in ["lost", "duplicate", "reordered", "not_sent", "stale"] {
            assert_eq!(number(none), 0.0, "{kind} {none}");
        }
        assert_eq!(number("latency_ms/count"), number("received"), "{kind}");
    }
    assert!(ended.stdout.contains("reliable"), "{}", ended.stdout);
    let dropping = [&args[..], &["--embedded-flag=--drop-data=20%"]].concat();
    let ended = run(&small(&dropping));
    ended.assert_code(1);
    let lost = ended.number("/data/reliable/lost") + ended.number("/data/lossy/lost");
    let expected = ended.number("/data/reliable/expected") + ended.number("/data/lossy/expected");
    assert!((0.04..0.25).contains(&(lost / expected)), "{lost} of {expected}");
    // What came of the last second counts above, what is missing of it does not; here neither does.
    for kind in ["reliable", "lossy"] {
        let rate = ended.number(&format!("/data/{kind}/loss_rate"));
        assert!((0.1..0.3).contains(&rate), "{kind}: {rate}");
    }
    let withheld = ended.number("/server/embedded/workers/0/messages_withheld");
    assert!(withheld >= lost, "{withheld} withheld, {lost} lost");
    assert_eq!(ended.report()["verdict"]["fault"], "server");
    assert!(ended.reasons().contains("dropped on purpose"), "{}", ended.reasons());
}

/// Frames of three packets each; then the SFU drops some of the packets on purpose.
#[test]
fn frames_of_data_tracks_come_whole_and_what_the_sfu_drops_is_known() {
    let _beside = beside();
    let args = ["--video-publishers=0", "--data-publishers=2", "--data-kind=track"];
    let args = [&args[..], &["--data-rate=10", "--data-size=40000"]].concat();
    let ended = run(&small(&args));
    ended.assert_code(0);
    let number = |name: &str| ended.number(&format!("/data/track/{name}"));
    assert!((40.0..=90.0).contains(&number("sent")), "{}", number("sent"));
    assert!(number("expected") > 5.0 * 30.0, "{}", number("expected"));
    assert_eq!(number("received"), number("expected"));
    assert_eq!(number("bytes_received"), 40_000.0 * number("received"));
    for none in ["lost", "duplicate", "not_sent", "stale", "late"] {
        assert_eq!(number(none), 0.0, "{none}");
    }
    assert_eq!(number("latency_ms/count"), number("received"));
    assert_eq!(ended.number("/data/reliable/sent") + ended.number("/data/foreign"), 0.0);
    assert!(ended.stdout.contains("track"), "{}", ended.stdout);
    let dropping = [&args[..], &["--embedded-flag=--drop-data=10%"]].concat();
    let ended = run(&small(&dropping));
    // One packet in ten is more than one frame in four; what data tracks lose is told, and no failure.
    ended.assert_code(0);
    let rate = ended.number("/data/track/loss_rate");
    assert!((0.15..0.42).contains(&rate), "{rate}");
    assert!(ended.reasons().contains("dropped on purpose"), "{}", ended.reasons());
}

/// A publisher and two of the subscribers call everybody, by this protocol.
fn assert_answered(args: &[&str], signal: &str) {
    let calls = ["--rpc-callers=3", "--rpc-rate=10", "--rpc-size=20kB", "--rpc-timeout=2s", signal];
    let ended = run(&[args, &calls].concat());
    ended.assert_code(0);
    let number = |name: &str| ended.number(&format!("/rpc/{name}"));
    assert!((60.0..=220.0).contains(&number("called")), "{}", number("called"));
    assert_eq!(number("answered") + number("cut_off"), number("called"));
    assert!(number("cut_off") <= 3.0, "{}", number("cut_off"));
    assert_eq!(number("failure_rate"), 0.0);
    assert!(number("responses") >= number("answered"));
    assert_eq!(number("bytes_received"), 20_000.0 * number("answered"));
    assert_eq!(number("round_trip_ms/count"), number("answered"));
    assert!((0.0..500.0).contains(&number("round_trip_ms/p50")));
    // Of the publisher, while the SFU has told it of nobody: it gathers who comes without a track.
    assert!(number("not_called") <= 30.0, "{}", number("not_called"));
    for none in ["late", "unanswered", "errors/unsupported_method"] {
        assert_eq!(number(none), 0.0, "{none}");
    }
    assert!(ended.stdout.contains(" called, "), "{}", ended.stdout);
}

#[test]
fn calls_are_answered_and_those_without_an_answer_are_no_pass() {
    let _beside = beside();
    assert_answered(&longer(&[]), "--signal=v1");
    // By two connections of everybody who receives.
    assert_answered(&longer(&[]), "--signal=v0");
    let silent = ["--rpc-callers=1", "--rpc-rate=10", "--rpc-timeout=1s"];
    let dropping = [&silent[..], &["--embedded-flag=--drop-data=20%"]].concat();
    let ended = run(&longer(&dropping));
    ended.assert_code(1);
    assert!(ended.number("/rpc/response_timeouts") > 0.0, "{:#}", ended.report()["rpc"]);
    assert_eq!(ended.report()["verdict"]["fault"], "server");
    assert!(ended.reasons().contains("calls failed"), "{}", ended.reasons());
}

#[test]
fn every_backend_carries_it_and_is_named() {
    let _beside = beside();
    for backend in ["mmsg", "io_uring", "auto"] {
        let ended = run(&small(&["--backend", backend]));
        if ended.code == Some(104) && ended.stderr.contains("io_uring can't be used") {
            skip(format!("this kernel refuses {backend}: {}", ended.stderr.trim()));
            continue;
        }
        assert_flawless(&ended, 6, 5.0);
        let generator = &ended.report()["generator"];
        if backend != "auto" {
            assert_eq!(generator["backend"], backend);
            continue;
        }
        // As root the best there is, and media comes that way.
        if generator["backend"] != "packet_ring" {
            skip(&generator["backend_reason"]);
            continue;
        }
        let (ring, all) = ("/generator/ring_runs_in", "/generator/udp_runs_in");
        assert!(ended.number(ring) > 0.5 * ended.number(all), "{generator:#}");
        assert_eq!(ended.number("/generator/ring_spills"), 0.0);
        assert!(ended.report()["run"]["options"]["packet_ring_bytes"].as_u64() > Some(0));
    }
}

#[test]
fn rooms_multiply_everything() {
    let _beside = beside();
    let ended = run(&small(&["--rooms", "2", "--subscribers=3", "--video-publishers=2"]));
    ended.assert_code(0);
    // Two rooms of two publishers and three subscribers.
    assert_eq!(ended.number("/join/joined"), 10.0);
    assert_eq!(ended.number("/video/tracks_received"), 12.0);
    assert_eq!(ended.number("/audio/tracks_received"), 6.0);
    assert_eq!(ended.number("/video/packets/unrecovered"), 0.0);
    let rooms = ended.report()["server"]["embedded"]["rooms"].as_array().unwrap();
    assert_eq!(rooms.len(), 2, "{rooms:?}");
}

/// In a meeting everybody publishes and receives over one connection, and gets what the others publish.
#[test]
fn a_meeting_is_one_connection_a_person() {
    let _beside = beside();
    let meeting = ["run", "--participants=4", "--rooms=2", "--video-resolution=low", "--seed=7"];
    let ended =
        run(&[&meeting[..], &["--duration=3s", "--num-per-second=50", "--no-tui"]].concat());
    assert_flawless(&ended, 8, 24.0);
    assert_eq!(ended.number("/join/signalling/joined_v1"), 8.0);
    assert_eq!(ended.number("/publish/tracks"), 16.0);
    assert_eq!(ended.number("/server/embedded/joins_v1"), 8.0);
    let rooms = ended.report()["server"]["embedded"]["rooms"].as_array().unwrap();
    assert_eq!(rooms.len(), 2, "{rooms:?}");
}

/// By v0 one connection to send and one to receive, and still one participant.
#[test]
fn a_meeting_by_v0_is_two_connections_a_person() {
    let _beside = beside();
    let meeting = ["run", "--participants=4", "--signal=v0", "--video-resolution=low"];
    let ended =
        run(&[&meeting[..], &["--duration=3s", "--num-per-second=50", "--no-tui"]].concat());
    assert_flawless(&ended, 4, 12.0);
    assert_eq!(ended.number("/join/signalling/joined_v0"), 4.0);
    assert_eq!(ended.number("/join/phases_ms/dtls/count"), 4.0);
    assert_eq!(ended.number("/publish/tracks"), 8.0);
    let connections: f64 = (ended.report()["generator"]["workers"].as_array().unwrap().iter())
        .map(|worker| worker["peers"].as_f64().unwrap())
        .sum();
    assert_eq!(connections, 8.0);
}

/// Beside publishers and subscribers, and after each of its connections was broken.
fn survives(signal: &str) {
    let _beside = beside();
    let meeting = ["run", "--participants=3", "--video-publishers=1", "--audio-publishers=0"];
    let few = ["--subscribers=2", "--video-resolution=low", "--num-per-second=50", "--no-tui"];
    let faults = [
        "--duration=13s",
        "--fault=signal_drop,at=1s,share=100%,who=publishers",
        "--fault=network_change,at=4s,share=34%,who=publishers",
        "--fault=leave_rejoin,at=8s,share=34%,who=subscribers",
    ];
    let ended = run(&[&meeting[..], &few, &faults, &[signal]].concat());
    ended.assert_code(0);
    assert_eq!(ended.number("/join/joined"), 6.0);
    assert_eq!(ended.number("/join/dropped"), 0.0, "{:#}", ended.report()["join"]);
    let [signal, network, leave] = &ended.report()["faults"].as_array().unwrap()[..] else {
        panic!("{:#}", ended.report()["faults"])
    };
    assert_eq!((&signal["hit"], &signal["recovered"]), (&4.into(), &4.into()), "{signal:#}");
    assert_eq!((&network["hit"], &network["recovered"]), (&1.into(), &1.into()), "{network:#}");
    assert_eq!(leave["hit"], 2, "{leave:#}");
    for kind in ["video", "audio"] {
        let causes = &ended.report()[kind]["interruptions"]["causes"];
        for (cause, of) in causes.as_object().unwrap() {
            assert!(cause == "on_purpose" || of["count"] == 0, "{kind} {cause}: {of}");
        }
    }
}

#[test]
fn a_meeting_survives_what_life_does_to_it() {
    survives("--signal=v1");
}

#[test]
fn a_meeting_by_v0_survives_it_too() {
    survives("--signal=v0");
}

#[test]
fn quiet_says_nothing_but_the_summary() {
    let _beside = beside();
    let ended = run(&small(&["--quiet", "--duration=1s"]));
    ended.assert_code(0);
    assert_eq!(ended.stderr, "");
    assert!(ended.stdout.contains("PASS"));
}

#[test]
fn the_first_signal_ends_a_ramp_with_its_report() {
    let _beside = beside();
    let mut running = Running::start(&small(&["--subscribers=500", "--num-per-second=4"]));
    running.wait_for(" ramp ");
    // Two, or twenty and some: on a busy machine no line may say just two.
    running.wait_for("joined 2");
    running.signal(Signal::INT);
    // The ramp alone would take longer than any run here may.
    let ended = running.end();
    ended.assert_code(105);
    assert_eq!(ended.report()["run"]["interrupted"], true);
    assert!(ended.report()["run"]["measured_s"].is_null());
    assert_eq!(ended.number("/join/requested"), 501.0);
    assert!(ended.number("/join/joined") >= 2.0);
    assert!(ended.number("/join/started") < 500.0);
    assert_eq!(ended.number("/join/failed"), 0.0);
    assert!(ended.stdout.contains("interrupted by a signal"), "{}", ended.stdout);
}

#[test]
fn the_first_signal_ends_a_hold_with_its_report() {
    let _beside = beside();
    let mut running = Running::start(&small(&["--duration=5m"]));
    running.wait_for(" hold ");
    running.signal(Signal::TERM);
    let ended = running.end();
    ended.assert_code(105);
    assert_eq!(ended.number("/join/joined"), 6.0);
    assert!(ended.number("/run/measured_s") < 60.0);
    assert!(ended.stdout.contains("INTERRUPTED"), "{}", ended.stdout);
}

#[test]
fn the_second_signal_exits_at_once() {
    let _beside = beside();
    let mut running = Running::start(&small(&["--duration=5m"]));
    running.wait_for(" hold ");
    let child = children(running.pid());
    running.signal(Signal::INT);
    running.signal(Signal::INT);
    running.wait_for_end_within(Duration::from_secs(10));
    assert_eq!(child.len(), 1);
    assert_gone(child[0]);
}

fn assert_gone(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Path::new(&format!("/proc/{pid}/exe")).exists() {
        assert!(Instant::now() < deadline, "process {pid} is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_embedded_sfu_dies_with_its_parent_and_its_keys_stay_secret() {
    let _beside = beside();
    let mut running = Running::start_with(&small(&["--duration=5m"]), |command| {
        command.env("RUST_LOG", "trace");
    });
    running.wait_for(" hold ");
    let [child] = children(running.pid())[..] else { panic!("one child") };
    // The keys travel on its stdin: nobody else sees them.
    let words = |file: &str| {
        let bytes = std::fs::read(format!("/proc/{child}/{file}")).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        text.split('\0').map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(words("environ").iter().all(|entry| !entry.starts_with("LIVEKIT_")));
    assert_eq!(words("cmdline")[1..], ["sfu", "--embedded-child", ""]);
    let stderr = running.stderr();
    assert_no_secret(&stderr, SECRET);
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let longest = stderr.split(|c| !hex(c)).map(str::len).max();
    assert!(longest < Some(64), "a secret has 64 digits, and as many stand in the log");
    running.signal(Signal::KILL);
    assert_gone(child);
}

/// Neither the secret nor any signed token.
fn assert_no_secret(text: &str, secret: &str) {
    assert!(!text.contains(secret), "the secret is in the text");
    // `{"alg"`, `{"typ"` and `{"kid"`: how a token's header may begin. `{"` alone is three letters, which
    // a logged ICE credential has now and then.
    let header = ["eyJhbGci", "eyJ0eXAi", "eyJraWQi"].into_iter().find_map(|head| text.find(head));
    let token = header.map(|at| &text[at..(at + 40).min(text.len())]);
    assert_eq!(token, None, "a token is in the text");
}

#[test]
fn a_server_s_secret_is_in_no_output() {
    let _beside = beside();
    let sfu = Sfu::start(&[]);
    let all = ["run", "--url", &sfu.url, "--api-key", KEY, "--subscribers=2", "--duration=1s"];
    let all = [&all[..], &["--video-publishers=1", "--no-tui"]].concat();
    let ended = Running::start_with(&all, |command| {
        command.env("LIVEKIT_API_SECRET", SECRET).env("RUST_LOG", "trace");
    })
    .end();
    ended.assert_code(0);
    assert_no_secret(&ended.stderr, SECRET);
    assert_no_secret(&ended.stdout, SECRET);
    assert_no_secret(&ended.report().to_string(), SECRET);
}

#[test]
fn publishers_and_subscribers_can_be_two_processes() {
    let _beside = beside();
    let sfu = Sfu::start(&[]);
    let publish = ["--video-publishers=1", "--audio-publishers=1", "--duration=5m"];
    let mut publisher = sfu.run(&[&publish[..], &["--room=stage", "--no-tui"]].concat());
    publisher.wait_for(" hold ");
    let subscribe = ["--subscribers=4", "--duration=3s", "--room=stage", "--no-tui"];
    let ended = sfu.run(&subscribe).end();
    ended.assert_code(0);
    assert_eq!(ended.number("/join/joined"), 4.0);
    assert_eq!(ended.number("/video/tracks_received"), 4.0);
    assert_eq!(ended.number("/audio/tracks_received"), 4.0);
    assert_eq!(ended.number("/video/packets/unrecovered"), 0.0);
    assert!(ended.report()["publish"].is_null());
    assert!(ended.report()["video"]["tracks_expected"].is_null(), "not ours to know");
    publisher.signal(Signal::INT);
    let ended = publisher.end();
    ended.assert_code(105);
    assert!(ended.report()["video"].is_null());
    assert_eq!(ended.number("/publish/tracks"), 2.0);
    assert!(ended.number("/publish/packets_sent") > 500.0);
}

#[test]
fn injected_loss_is_found_repaired_and_blamed() {
    let _beside = beside();
    let ended = run(&small(&["--embedded-drop", "1%", "--no-audio-red", "--duration=6s"]));
    ended.assert_code(0);
    let sum = |name: &str| {
        ended.number(&format!("/video/packets/{name}"))
            + ended.number(&format!("/audio/packets/{name}"))
    };
    let injected = ended.number("/server/embedded/measured/dropped");
    let (missing, expected) = (sum("missing") - sum("reordered"), sum("expected"));
    assert!((0.004..0.02).contains(&(injected / expected)), "{injected} of {expected}");
    // The two windows begin and end within a few packets of each other.
    assert!((missing - injected).abs() <= 5.0, "missing {missing}, injected {injected}");
    let video_missing = ended.number("/video/packets/missing");
    let video_repaired = ended.number("/video/packets/repaired");
    assert!(video_repaired >= 0.9 * video_missing, "{video_repaired} of {video_missing}");
    assert!(ended.number("/server/embedded/measured/retransmitted") > 0.0);
    assert!(ended.number("/video/nack_sent") > 0.0);
    // Opus has no retransmission: its losses stay, and the SFU is to blame.
    assert_eq!(ended.report()["verdict"]["fault"], "server");
}

/// The same of redundant audio: of single losses nothing is heard. The SFU's ledger knows each of them.
#[test]
fn redundant_audio_repairs_what_is_dropped() {
    let _beside = beside();
    let args = ["--video-publishers=0", "--subscribers=6", "--embedded-drop=2%", "--duration=5s"];
    let ended = run(&small(&args));
    let audio = |name: &str| ended.number(&format!("/audio/packets/{name}"));
    let (missing, by_red) = (audio("missing"), audio("repaired_by_red"));
    assert!(missing > 10.0, "{:#}", ended.report()["audio"]);
    assert!(by_red >= 0.8 * missing, "{by_red} of {missing}");
    assert_eq!((audio("repaired"), audio("red_malformed")), (0.0, 0.0));
    assert_eq!(by_red + audio("unrecovered"), missing);
    let injected = ended.number("/server/embedded/measured/dropped");
    assert!((missing - injected).abs() <= 5.0, "missing {missing}, dropped {injected}");
    let ratio = ended.number("/audio/watch_ratio");
    assert!(ratio > 0.999, "{ratio}");
    assert_eq!(ended.report()["run"]["options"]["audio_red"], true);
}

/// Who does not speak sends silence, which is left out, and is play.
#[test]
fn silence_that_is_left_out_is_heard_as_silence() {
    let _beside = beside();
    let args = ["--video-publishers=0", "--audio-publishers=3", "--simulate-speakers"];
    let ended = run(&small(&[&args[..], &["--subscribers=4", "--duration=7s"]].concat()));
    ended.assert_code(0);
    let left_out = ended.number("/publish/frames_silent");
    let sent = ended.number("/publish/frames_sent");
    assert!(left_out > sent, "{left_out} were left out, {sent} sent");
    assert_eq!(ended.number("/audio/packets/missing"), 0.0);
    assert_eq!(ended.report()["audio"]["interruptions"]["count"], 0);
    let ratio = ended.number("/audio/watch_ratio");
    assert!(ratio > 0.995, "{ratio}: {:#}", ended.report()["audio"]);
}

#[test]
fn a_dead_server_is_counted_and_tried_again_as_asked() {
    let _beside = beside();
    let mut sfu = Sfu::start(&[]);
    let args = ["--video-publishers=1", "--subscribers=2", "--duration=5m", "--reconnect=2"];
    let mut running = sfu.run(&[&args[..], &["--retry=5", "--no-tui"]].concat());
    running.wait_for(" hold ");
    sfu.kill();
    let ended = running.end();
    ended.assert_code(1);
    assert_eq!(ended.number("/join/joined"), 3.0);
    assert_eq!(ended.number("/join/dropped"), 3.0);
    // Nobody joined a second time: who was connected is the reconnects'.
    assert_eq!(ended.number("/join/retries"), 0.0);
    assert_eq!(ended.number("/join/errors/signal_closed_1006"), 3.0);
    assert_eq!(ended.number("/recoveries/resume/tries"), 6.0);
    assert_eq!(ended.number("/recoveries/resume/failed"), 6.0);
    assert!(ended.stdout.contains("everybody dropped out"), "{}", ended.stdout);
    assert_eq!(ended.report()["verdict"]["fault"], "server");
    assert!(ended.stdout.contains("at the end: connection refused"), "{}", ended.stdout);
}

/// A frame's bytes without the payload descriptors of its packets.
fn frame_bytes(clip: &MediaClip, frame: &ClipFrame) -> Vec<u8> {
    let descriptor = if clip.codec == Codec::Vp8 { 6 } else { 0 };
    frame.packets.iter().flat_map(|packet| packet[descriptor..].to_vec()).collect()
}

/// Every recorded frame is the published clip's, in its order; a publisher may jump only to a
/// keyframe. Returns the number of jumps.
fn assert_same_frames(recorded: &MediaClip, published: &MediaClip) -> usize {
    let source: Vec<_> =
        published.frames.iter().map(|frame| frame_bytes(published, frame)).collect();
    let first = frame_bytes(recorded, &recorded.frames[0]);
    let mut next = source.iter().position(|frame| *frame == first).expect("the first frame");
    assert!(published.frames[next].keyframe);
    let mut jumps = 0;
    for (number, frame) in recorded.frames.iter().enumerate() {
        let bytes = frame_bytes(recorded, frame);
        if source[next] != bytes {
            next = source.iter().position(|frame| *frame == bytes).unwrap_or_else(|| {
                panic!("frame {number} of {} is not the publisher's", recorded.name)
            });
            assert!(published.frames[next].keyframe, "frame {number} follows nothing");
            jumps += 1;
        }
        next = (next + 1) % source.len();
    }
    jumps
}

#[test]
fn recordings_are_the_published_frames_bit_for_bit() {
    let _beside = beside();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    let ended = run(&small(&["--record", &path, "--record-subscribers", "2"]));
    assert_flawless(&ended, 6, 5.0);
    let videos = files(dir.path(), "ivf");
    let audios = files(dir.path(), "ogg");
    assert_eq!((videos.len(), audios.len()), (2, 2), "{ended:#?}");
    let published = &builtin::video_layers().unwrap()[2];
    for video in &videos {
        let recorded = MediaClip::open(video).unwrap();
        assert!(recorded.frames.len() >= 60, "{} frames", recorded.frames.len());
        // Late joiners' keyframe requests make the publisher jump; nothing else may.
        let plis = ended.number("/publish/pli_received") as usize + 5;
        assert!(assert_same_frames(&recorded, published) <= plis);
        assert_probes(video);
    }
    let published = builtin::audio().unwrap();
    for audio in &audios {
        let recorded = MediaClip::open(audio).unwrap();
        assert!(recorded.frames.len() >= 100, "{} frames", recorded.frames.len());
        assert_same_frames(&recorded, &published);
        assert_probes(audio);
    }
    assert_eq!(ended.number("/recordings/frames_dropped"), 0.0);
    let assembled = |name: &str| ended.number(&format!("/recordings/assembly/{name}"));
    assert!(assembled("frames_complete") >= ended.number("/recordings/frames_written"));
    assert!(assembled("packets") > assembled("frames_complete"), "pictures of several packets");
    assert_eq!((assembled("frames_incomplete"), assembled("packets_malformed")), (0.0, 0.0));
}

/// The same of codecs whose files are NAL units behind start codes, and a decoder takes every frame.
#[test]
fn recordings_of_nal_units_are_the_published_ones_and_decode() {
    let _beside = beside();
    for (name, codec) in [("h264", Codec::H264), ("h265", Codec::H265)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display().to_string();
        let ended = run(&small(&["--record", &path, "--video-codec", name]));
        assert_flawless(&ended, 6, 5.0);
        let [video] = &files(dir.path(), name)[..] else { panic!("{ended:#?}") };
        let recorded = MediaClip::open(video).unwrap();
        assert_eq!((recorded.codec, recorded.height), (codec, 720));
        assert!(recorded.frames.len() >= 60, "{name}: {} frames", recorded.frames.len());
        let plis = ended.number("/publish/pli_received") as usize + 5;
        let published = &builtin::video(codec).unwrap()[2];
        assert!(assert_same_frames(&recorded, published) <= plis, "{name}");
        assert_eq!(ended.number("/recordings/assembly/frames_incomplete"), 0.0, "{name}");
        assert_decodes(video, recorded.frames.len());
    }
}

/// ffmpeg's decoder shows so many pictures of a file and finds nothing wrong with it.
fn assert_decodes(path: &Path, pictures: usize) {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-i", &path.display().to_string()])
        .args(["-fps_mode", "passthrough", "-f", "framehash", "-"])
        .output();
    let Ok(output) = output else { return skip("ffmpeg can't be run") };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{}: {errors}", path.display());
    let hashes = String::from_utf8_lossy(&output.stdout);
    let shown = hashes.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(shown, pictures, "{}", path.display());
}

#[test]
fn recordings_play_after_a_signal() {
    let _beside = beside();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    let mut running = Running::start(&small(&["--record", &path, "--duration=5m"]));
    running.wait_for(" hold ");
    running.signal(Signal::INT);
    running.end().assert_code(105);
    let [video] = &files(dir.path(), "ivf")[..] else { panic!("one recording") };
    assert!(!MediaClip::open(video).unwrap().frames.is_empty());
    assert_probes(video);
}

/// ffprobe counts frames and complains about nothing.
fn assert_probes(file: &Path) {
    let probe = Command::new("ffprobe")
        .args(["-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames"])
        .args(["-of", "csv=p=0"])
        .arg(file)
        .output();
    let probe = match probe {
        Ok(probe) => probe,
        Err(error) => return skip(format!("ffprobe can't be run: {error}")),
    };
    assert!(probe.status.success());
    assert_eq!(String::from_utf8_lossy(&probe.stderr), "", "{}", file.display());
    let frames: u64 = String::from_utf8_lossy(&probe.stdout).trim().parse().unwrap();
    assert!(frames > 0);
}
