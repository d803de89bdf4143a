//! Whole runs against a real livekit-server: `LIVEKIT_URL`, `LIVEKIT_API_KEY` and
//! `LIVEKIT_API_SECRET` say which. Skipped, and said so, without them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Ended, Running, alone, files};
use stampede_media::MediaClip;
use stampede_testing::skip_without_server;

/// Runs against the server of the environment; `None` if there is none.
fn real(args: &[&str]) -> Option<Ended> {
    let Ok(url) = std::env::var("LIVEKIT_URL") else {
        skip_without_server("LIVEKIT_URL is not set");
        return None;
    };
    let secret = std::env::var("LIVEKIT_API_SECRET").unwrap_or_default();
    let key = std::env::var("LIVEKIT_API_KEY").unwrap_or_default();
    let all = [&["run", "--url", &url, "--api-key", &key, "--no-tui"], args].concat();
    let ended = Running::start_with(&all, |command| {
        command.env("LIVEKIT_API_SECRET", &secret);
    })
    .end();
    assert!(!ended.stderr.contains(&secret) && !ended.stdout.contains(&secret));
    Some(ended)
}

const SMALL: [&str; 5] = [
    "--video-publishers=1",
    "--audio-publishers=1",
    "--subscribers=10",
    "--duration=5s",
    "--num-per-second=20",
];

#[test]
fn ten_subscribers_receive_everything() {
    let _alone = alone();
    let Some(ended) = real(&SMALL) else { return };
    ended.assert_code(0);
    assert_eq!(ended.number("/join/joined"), 11.0);
    assert_eq!(ended.number("/video/tracks_received"), 10.0);
    assert_eq!(ended.number("/audio/tracks_received"), 10.0);
    assert_eq!(ended.number("/video/packets/unrecovered"), 0.0);
    assert!(ended.number("/video/frames/decodable") > 1_000.0);
    assert!(ended.report()["run"]["target"]["server_version"].is_string());
}

/// A publisher of media that sends data too, and one that sends nothing else.
#[test]
fn data_messages_reach_everybody_by_either_protocol() {
    let _alone = alone();
    for signal in ["--signal=v0", "--signal=v1"] {
        let args = ["--video-publishers=0", "--audio-publishers=1", "--subscribers=5"];
        let more = ["--data-publishers=2", "--data-rate=20", "--duration=4s", signal];
        let Some(ended) = real(&[&args[..], &more].concat()) else { return };
        ended.assert_code(0);
        for kind in ["reliable", "lossy"] {
            let number = |name: &str| ended.number(&format!("/data/{kind}/{name}"));
            assert!(number("sent") > 2.0 * 20.0 * 3.0, "{signal} {kind}");
            assert!(number("expected") > 5.0 * 2.0 * 20.0 * 2.0, "{signal} {kind}");
            assert_eq!(number("received"), number("expected"), "{signal} {kind}");
            assert_eq!((number("lost"), number("duplicate")), (0.0, 0.0), "{signal} {kind}");
            assert_eq!(number("latency_ms/count"), number("received"), "{signal} {kind}");
        }
        assert_eq!(ended.number("/data/malformed"), 0.0, "{signal}");
    }
}

#[test]
fn frames_of_data_tracks_reach_everybody_by_either_protocol() {
    let _alone = alone();
    for signal in ["--signal=v0", "--signal=v1"] {
        let args = ["--video-publishers=0", "--audio-publishers=1", "--subscribers=5"];
        let more = ["--data-publishers=2", "--data-rate=10", "--data-size=40000", "--duration=5s"];
        let kind = ["--data-kind=track", signal];
        let Some(ended) = real(&[&args[..], &more, &kind].concat()) else { return };
        ended.assert_code(0);
        let number = |name: &str| ended.number(&format!("/data/track/{name}"));
        assert!(number("sent") > 2.0 * 10.0 * 3.0, "{signal}");
        assert!(number("expected") > 5.0 * 2.0 * 10.0 * 2.0, "{signal}");
        // Nothing sends again what is lost.
        assert!(number("received") >= 0.99 * number("expected"), "{signal}");
        assert_eq!(number("latency_ms/count"), number("received"), "{signal}");
    }
}

#[test]
fn calls_between_participants_are_answered_by_either_protocol() {
    let _alone = alone();
    let args = ["--video-publishers=0", "--audio-publishers=1", "--subscribers=5"];
    let signals = ["--signal=v0", "--signal=v1"];
    let sizes = ["--rpc-size=256", "--rpc-size=40kB"];
    for (bytes, signal) in sizes.into_iter().flat_map(|bytes| signals.map(|it| (bytes, it))) {
        let more = ["--rpc-callers=3", "--rpc-rate=5", "--duration=5s", "--rpc-timeout=3s"];
        let Some(ended) = real(&[&args[..], &more, &[bytes, signal]].concat()) else { return };
        ended.assert_code(0);
        let number = |name: &str| ended.number(&format!("/rpc/{name}"));
        assert!(number("answered") > 3.0 * 5.0 * 1.6, "{:#}", ended.report()["rpc"]);
        assert_eq!(number("failure_rate"), 0.0, "{:#}", ended.report()["rpc"]);
    }
}

#[test]
fn the_low_layer_is_the_low_layer() {
    let _alone = alone();
    let Some(ended) = real(&[&SMALL[..], &["--video-resolution=low"]].concat()) else { return };
    ended.assert_code(0);
    let bps = ended.number("/video/bitrate_bps") / 10.0;
    assert!((100e3..400e3).contains(&bps), "{bps}");
}

/// Nobody wants the upper layers. The server says so 5 s later (`dynacast_pause_delay`), the
/// publisher stops them, and nobody is the worse for it.
#[test]
fn layers_that_nobody_wants_are_paused_and_nobody_misses_them() {
    let _alone = alone();
    let args = ["--video-resolution=low", "--dynacast", "--duration=12s"];
    let small = SMALL.iter().filter(|arg| !arg.starts_with("--duration")).copied();
    let Some(ended) = real(&small.chain(args).collect::<Vec<_>>()) else { return };
    ended.assert_code(0);
    assert!(ended.number("/publish/layer_pauses") >= 1.0, "{:#}", ended.report()["publish"]);
    // Two of three layers for the second half of the window at least.
    let (sent, withheld) =
        (ended.number("/publish/frames_sent"), ended.number("/publish/frames_withheld"));
    assert!(withheld > 2.0 * 4.0 * 25.0, "{withheld} frames withheld, {sent} sent");
    assert_eq!(ended.number("/video/tracks_received"), 10.0);
    for kind in ["video", "audio"] {
        assert_eq!(ended.number(&format!("/{kind}/packets/unrecovered")), 0.0, "{kind}");
    }
    assert_eq!(ended.number("/video/freezes/causes/loss/count"), 0.0);
    let frames = |name: &str| ended.number(&format!("/video/frames/{name}"));
    assert_eq!(frames("decodable"), frames("received"));
    // 25 frames/s went on all the time.
    assert!(frames("decodable") > 10.0 * 11.0 * 25.0, "{}", frames("decodable"));
}

#[test]
fn vp9_h264_h265_and_av1_go_through() {
    let _alone = alone();
    for (codec, resolution, height) in [
        ("vp9", "low", 180),
        ("h264", "high", 720),
        ("h264", "low", 180),
        ("h265", "high", 720),
        ("h265", "low", 180),
        ("av1", "high", 720),
    ] {
        let args = ["--video-codec", codec, "--video-resolution", resolution];
        let Some(ended) = real(&[&SMALL[..], &args].concat()) else { return };
        ended.assert_code(0);
        let layers = &ended.report()["video"]["layers"];
        assert_eq!(layers["height_px"]["p50"], height, "{codec}: {layers:#}");
        assert!(layers["lower_ratio"].as_f64() < Some(0.3), "{codec}: {layers:#}");
        assert_eq!(ended.number("/video/tracks_received"), 10.0, "{codec}");
        assert_eq!(ended.number("/video/packets/unrecovered"), 0.0, "{codec}");
        let frames = |name: &str| ended.number(&format!("/video/frames/{name}"));
        assert!(frames("received") > 1_000.0, "{codec}");
        assert_eq!(frames("decodable"), frames("received"), "{codec}");
    }
}

/// VP9 in three streams: the server takes each packet for one of the layer that its SID names.
#[test]
fn vp9_simulcast_goes_through() {
    let _alone = alone();
    for (resolution, height) in [("low", 180), ("medium", 360), ("high", 720)] {
        let args =
            ["--video-codec=vp9", "--scalability-mode=none", "--video-resolution", resolution];
        let Some(ended) = real(&[&SMALL[..], &args].concat()) else { return };
        ended.assert_code(0);
        let layers = &ended.report()["video"]["layers"];
        assert_eq!(layers["height_px"]["p50"], height, "{layers:#}");
        assert_eq!(ended.number("/video/packets/unrecovered"), 0.0, "{resolution}");
        let frames = |name: &str| ended.number(&format!("/video/frames/{name}"));
        assert!(frames("received") > 1_000.0, "{resolution}");
        assert_eq!(frames("decodable"), frames("received"), "{resolution}");
    }
}

/// A screen beside a camera, of another codec than that.
#[test]
fn shared_screens_are_tracks_of_their_own() {
    let _alone = alone();
    for codec in ["vp8", "h265"] {
        let args = ["--screen-share-publishers=1", "--screen-share-audio", "--video-codec", codec];
        let Some(ended) = real(&[&SMALL[..], &args].concat()) else { return };
        ended.assert_code(0);
        assert_eq!(ended.number("/publish/tracks"), 4.0);
        for kind in ["video", "audio"] {
            assert_eq!(ended.number(&format!("/{kind}/tracks_received")), 20.0, "{codec} {kind}");
            assert_eq!(
                ended.number(&format!("/{kind}/packets/unrecovered")),
                0.0,
                "{codec} {kind}"
            );
        }
        assert_eq!(ended.number("/video/freezes/causes/loss/count"), 0.0, "{codec}");
    }
}

/// Who can't receive VP9 gets the VP8 that is published once the server asks for it.
#[test]
fn who_lacks_a_codec_gets_the_backup() {
    let _alone = alone();
    for (signal, size) in
        [("--signal=v0", "720p"), ("--signal=v1", "720p"), ("--signal=v1", "360p")]
    {
        let args = ["--video-publishers=1", "--audio-publishers=0", "--subscribers=5", signal];
        let size = format!("--publish-resolution={size}");
        let more = ["--video-codec=vp9", "--subscribe-codecs=vp8,h264", "--duration=8s", &size];
        let Some(ended) = real(&[&args[..], &more].concat()) else { return };
        assert_eq!(ended.number("/join/joined"), 6.0, "{signal}");
        assert_eq!(ended.number("/publish/tracks"), 2.0, "{signal}: the track and its backup");
        assert_eq!(ended.number("/video/tracks_received"), 5.0, "{signal}");
        let rows = ended.report()["streams"].as_array().unwrap();
        assert!(rows.iter().all(|row| row["codec"] == "vp8"), "{signal}: {rows:#?}");
        let frames = |name: &str| ended.number(&format!("/video/frames/{name}"));
        assert!(frames("received") > 5.0 * 100.0, "{signal}: {}", frames("received"));
        assert_eq!(frames("decodable"), frames("received"), "{signal}");
    }
}

/// The server takes spatial layers out of one stream, by dependency descriptors: who asks for less gets
/// less, at the same number of pictures, and misses nothing.
#[test]
fn spatial_layers_are_forwarded_as_asked_for() {
    let _alone = alone();
    for codec in ["vp9", "av1"] {
        let mut rates = Vec::new();
        for layer in ["low", "medium", "high"] {
            let args = ["--video-codec", codec, "--video-resolution", layer];
            let Some(ended) = real(&[&SMALL[..], &args].concat()) else { return };
            ended.assert_code(0);
            assert_eq!(ended.number("/video/packets/unrecovered"), 0.0, "{codec} {layer}");
            let frames = |name: &str| ended.number(&format!("/video/frames/{name}"));
            assert!(frames("received") > 1_000.0, "{codec} {layer}");
            assert_eq!(frames("decodable"), frames("received"), "{codec} {layer}");
            rates.push(ended.number("/video/bitrate_bps"));
        }
        let [low, medium, high] = rates[..] else { panic!() };
        assert!(low < 0.5 * medium && medium < 0.6 * high, "{codec}: {rates:?}");
    }
}

#[test]
fn a_recording_plays() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    let Some(ended) = real(&[&SMALL[..], &["--record", &path]].concat()) else { return };
    ended.assert_code(0);
    let [video] = &files(dir.path(), "ivf")[..] else { panic!("one recording") };
    assert!(MediaClip::open(video).unwrap().frames.len() > 100);
}

#[test]
fn a_wrong_secret_is_refused() {
    let Ok(url) = std::env::var("LIVEKIT_URL") else {
        return skip_without_server("LIVEKIT_URL is not set");
    };
    let key = std::env::var("LIVEKIT_API_KEY").unwrap_or_default();
    let args = ["run", "--url", &url, "--api-key", &key, "--subscribers=1"];
    let ended = Running::start_with(&args, |command| {
        command.env("LIVEKIT_API_SECRET", "wrong-secret-0123456789-0123456789-0123");
    })
    .end();
    ended.assert_code(104);
    assert!(ended.stderr.contains("refused the API key or secret"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("wrong-secret") && !ended.stderr.contains("eyJ"));
}

/// A TCP relay to the server whose connections can all be cut at once.
struct Relay {
    url: String,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    fn to(server: &str) -> Self {
        let authority = server.split('/').nth(2).unwrap();
        let port = if authority.contains(':') { "" } else { ":80" };
        let target = format!("{authority}{port}");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let streams = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&streams);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(&target).unwrap();
                kept.lock().unwrap().extend([&client, &server].map(|s| s.try_clone().unwrap()));
                for (mut from, mut to) in
                    [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
                {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
            }
        });
        Self { url: format!("ws://127.0.0.1:{port}"), streams }
    }

    /// Cuts every connection; how many there have been.
    fn cut(&self) -> usize {
        let streams = std::mem::take(&mut *self.streams.lock().unwrap());
        for stream in &streams {
            // The other end may have gone just now, as its pair was cut.
            let _ = stream.shutdown(Shutdown::Both);
        }
        streams.len() / 2
    }
}

/// All websockets break in the measured window: every session goes on. The publisher restarts its
/// ICE, as LiveKit's clients do, which costs what it sends between the old path and the new one.
#[test]
fn lost_websockets_are_resumed() {
    let _alone = alone();
    let Ok(url) = std::env::var("LIVEKIT_URL") else {
        return skip_without_server("LIVEKIT_URL is not set");
    };
    if !url.starts_with("ws://") && !url.starts_with("http://") {
        return skip_without_server("the relay of this test speaks no TLS");
    }
    let relay = Relay::to(&url);
    let key = std::env::var("LIVEKIT_API_KEY").unwrap_or_default();
    let secret = std::env::var("LIVEKIT_API_SECRET").unwrap_or_default();
    let mut args = vec!["run", "--url", &relay.url, "--api-key", &key, "--no-tui"];
    args.extend(SMALL.iter().filter(|arg| !arg.starts_with("--duration")));
    args.push("--duration=12s");
    let run = Running::start_with(&args, |command| {
        command.env("LIVEKIT_API_SECRET", &secret);
    });
    std::thread::sleep(Duration::from_secs(6));
    assert!(relay.cut() >= 11);
    let ended = run.end();
    ended.assert_code(0);
    assert_eq!(ended.number("/join/joined"), 11.0);
    assert_eq!(ended.number("/join/resumed"), 11.0, "{:?}", ended.report()["join"]);
    assert_eq!(ended.number("/join/dropped"), 0.0);
    for kind in ["video", "audio"] {
        let tracks = ended.number(&format!("/{kind}/tracks_received"));
        assert_eq!(tracks, 10.0, "{kind}");
        let lost = ended.number(&format!("/{kind}/loss_rate"));
        assert!(lost < 0.01, "{kind}: {:?}", ended.verdict());
    }
    // The publisher went on too: 10 subscribers x 25 frames/s for most of the window.
    assert!(ended.number("/video/frames/decodable") > 2_500.0);
}

/// Everybody publishes and receives, and gets what the others publish.
fn meets(signal: &str) {
    let _alone = alone();
    let args = ["--participants=4", "--rooms=2", "--duration=5s", "--video-resolution=low"];
    let protocol = format!("--signal={signal}");
    let Some(ended) = real(&[&args[..], &[&protocol]].concat()) else { return };
    ended.assert_code(0);
    assert_eq!(ended.number("/join/joined"), 8.0);
    assert_eq!(ended.number(&format!("/join/signalling/joined_{signal}")), 8.0);
    for kind in ["video", "audio"] {
        assert_eq!(ended.number(&format!("/{kind}/tracks_expected")), 24.0);
        assert_eq!(ended.number(&format!("/{kind}/tracks_received")), 24.0);
        assert_eq!(ended.number(&format!("/{kind}/packets/unrecovered")), 0.0);
        assert!(ended.number(&format!("/{kind}/watch_ratio")) > 0.99, "{:?}", ended.verdict());
    }
    assert_eq!(ended.number("/publish/tracks"), 16.0);
}

#[test]
fn meetings_are_everybodys_one_connection() {
    meets("v1");
}

#[test]
fn meetings_by_v0_are_everybodys_two_connections() {
    meets("v0");
}
