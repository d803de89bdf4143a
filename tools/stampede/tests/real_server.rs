//! Whole runs against a real livekit-server: `LIVEKIT_URL`, `LIVEKIT_API_KEY` and
//! `LIVEKIT_API_SECRET` say which. Skipped, and said so, without them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Ended, Running, alone, files};
use stampede_media::MediaClip;

/// Runs against the server of the environment; `None` if there is none.
fn real(args: &[&str]) -> Option<Ended> {
    let Ok(url) = std::env::var("LIVEKIT_URL") else {
        println!("skipped: LIVEKIT_URL not set");
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

#[test]
fn the_low_layer_is_the_low_layer() {
    let _alone = alone();
    let Some(ended) = real(&[&SMALL[..], &["--video-resolution=low"]].concat()) else { return };
    ended.assert_code(0);
    let bps = ended.number("/video/bitrate_bps") / 10.0;
    assert!((100e3..400e3).contains(&bps), "{bps}");
}

#[test]
fn every_codec_goes_through() {
    let _alone = alone();
    for codec in ["vp9", "h264", "av1"] {
        let Some(ended) = real(&[&SMALL[..], &["--video-codec", codec]].concat()) else { return };
        ended.assert_code(0);
        assert_eq!(ended.number("/video/tracks_received"), 10.0, "{codec}");
        assert_eq!(ended.number("/video/packets/unrecovered"), 0.0, "{codec}");
        let frames = |name: &str| ended.number(&format!("/video/frames/{name}"));
        assert!(frames("received") > 1_000.0, "{codec}");
        assert_eq!(frames("decodable"), frames("received"), "{codec}");
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
        return println!("skipped: LIVEKIT_URL not set");
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
