//! Whole runs of the real binary: video of every codec, layered, mixed, shared and backed up.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::process::Command;

use common::small::{assert_flawless, assert_layer, longer, small};
use common::{Ended, beside, run};
use serde_json::Value;
use stampede_testing::skip;

#[test]
fn layers_are_chosen_by_resolution() {
    let _beside = beside();
    let low = run(&small(&["--video-resolution", "low"]));
    assert_flawless(&low, 6, 5.0);
    let bps = low.number("/video/bitrate_bps") / 5.0;
    assert!((100e3..400e3).contains(&bps), "{bps}");
    assert_layer(&low, 180);
    let single = run(&small(&["--no-simulcast"]));
    assert_flawless(&single, 6, 5.0);
    assert_eq!(single.report()["run"]["options"]["video"].as_array().unwrap().len(), 1);
}

/// 25 pictures a second of every codec: all complete, all decodable, told without decoding.
#[test]
fn every_codec_is_published_forwarded_and_followed() {
    let _beside = beside();
    for (codec, layers, resolution, height) in [
        ("vp9", 1, "high", 720),
        ("h264", 3, "medium", 360),
        ("h265", 3, "high", 720),
        ("h265", 3, "low", 180),
        ("av1", 1, "low", 180),
        ("vp9", 1, "medium", 360),
        ("vp8", 3, "high", 720),
    ] {
        let args = ["--video-codec", codec, "--video-resolution", resolution];
        let ended = run(&small(&args));
        assert_layer(&ended, height);
        assert_flawless(&ended, 6, 5.0);
        let frames = |name: &str| ended.number(&format!("/video/frames/{name}"));
        let received = frames("received");
        assert!((300.0..=450.0).contains(&received), "{codec}: {received} frames");
        assert_eq!(frames("complete"), received, "{codec}");
        assert_eq!(frames("decodable"), received, "{codec}");
        assert!(ended.number("/publish/keyframes_sent") > 0.0, "{codec}");
        assert_eq!(ended.number("/join/phases_ms/first_keyframe/count"), 5.0, "{codec}");
        let sent = ended.report()["run"]["options"]["video"].as_array().unwrap();
        assert_eq!(sent.len(), layers, "{codec}");
    }
}

/// A screen beside a camera, of the same publisher and of another codec: a track of its own to everybody,
/// which stands still most of the time and is no freeze, nor a gap in what could be watched.
#[test]
fn shared_screens_are_tracks_of_their_own_and_stand_still() {
    let _beside = beside();
    let args = ["--screen-share-publishers=1", "--screen-share-audio", "--duration=7s"];
    for (codec, of_screen) in [("vp8", "av1"), ("h265", "vp9"), ("vp9", "h265")] {
        let codecs = ["--video-codec", codec, "--screen-share-codec", of_screen];
        let ended = run(&small(&[&args[..], &codecs].concat()));
        assert_flawless(&ended, 6, 10.0);
        assert_eq!(ended.number("/publish/tracks"), 4.0, "{codec}");
        assert_eq!(ended.number("/video/freezes/count"), 0.0, "{codec}");
        for kind in ["video", "audio"] {
            assert_eq!(ended.number(&format!("/{kind}/interruptions/count")), 0.0, "{codec}");
            assert!(ended.number(&format!("/{kind}/watch_ratio")) > 0.99, "{codec} {kind}");
        }
        let heights = &ended.report()["video"]["layers"]["heights"];
        let row = |name: &str| heights.as_array().unwrap().iter().find(|row| row["name"] == name);
        let screen = row("1080p").unwrap_or_else(|| panic!("{heights:#}"));
        assert!((4.5..5.5).contains(&screen["fps"].as_f64().unwrap()), "{codec}: {screen:#}");
        let camera = row("720p").unwrap_or_else(|| panic!("{heights:#}"));
        assert!((22.0..28.0).contains(&camera["fps"].as_f64().unwrap()), "{codec}: {camera:#}");
    }
    // In a meeting everybody but who shares gets it: a file of its own, at its own pace.
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../engine/media/clips/screen-540p.h264");
    let file = &format!("--screen-share={file}");
    let meeting = ["run", "--participants=3", "--screen-share-publishers=1", "--seed=7", file];
    let ended =
        run(&[&meeting[..], &["--duration=3s", "--num-per-second=50", "--no-tui"]].concat());
    ended.assert_code(0);
    for (kind, tracks) in [("video", 8.0), ("audio", 6.0)] {
        assert_eq!(ended.number(&format!("/{kind}/tracks_expected")), tracks, "{kind}");
        assert_eq!(ended.number(&format!("/{kind}/tracks_received")), tracks, "{kind}");
    }
}

/// Three streams of a track, each of which says in its layer indices which one it is.
#[test]
fn vp9_is_simulcast_too() {
    let _beside = beside();
    for (resolution, height) in [("low", 180), ("high", 720)] {
        let args = ["--video-codec=vp9", "--scalability-mode=none"];
        let ended = run(&small(&[&args[..], &["--video-resolution", resolution]].concat()));
        assert_flawless(&ended, 6, 5.0);
        assert_layer(&ended, height);
        assert_eq!(ended.number("/join/phases_ms/first_keyframe/count"), 5.0);
        let frames = |name: &str| ended.number(&format!("/video/frames/{name}"));
        assert_eq!(frames("decodable"), frames("received"), "{resolution}");
    }
}

#[test]
fn cameras_of_1080p_are_simulcast() {
    let _beside = beside();
    for (codec, resolution, height) in [
        ("vp9", "high", 1_080),
        ("h264", "medium", 360),
        ("av1", "low", 1_080),
        ("h265", "high", 1_080),
    ] {
        let args = ["--publish-resolution=1080p", "--video-codec", codec];
        let ended = run(&small(&[&args[..], &["--video-resolution", resolution]].concat()));
        assert_flawless(&ended, 6, 5.0);
        assert_layer(&ended, height);
    }
}

/// Two publishers, each with a codec of its own, and every subscriber gets both.
#[test]
fn publishers_send_several_codecs() {
    let _beside = beside();
    let two = ["--video-publishers=2", "--audio-publishers=2", "--video-resolution=low"];
    let ended = run(&small(&[&two[..], &["--video-codec=vp8:50,h265:50"]].concat()));
    assert_flawless(&ended, 7, 10.0);
    assert_layer(&ended, 180);
    let rows = ended.report()["streams"].as_array().unwrap();
    for codec in ["vp8", "h265"] {
        let of = rows.iter().filter(|row| row["codec"] == codec).count();
        assert_eq!(of, 5, "{codec}");
    }
    assert_eq!(ended.report()["run"]["options"]["video_codec"], "vp8:50,h265:50");
}

/// Pictures are counted, not their layer frames, and who wants one layer gets one.
#[test]
fn scalable_video_is_counted_by_pictures() {
    let _beside = beside();
    let args = ["--video-codec=av1", "--scalability-mode=L1T3"];
    let ended = run(&small(&args));
    assert_flawless(&ended, 6, 5.0);
    let frames = |name: &str| ended.number(&format!("/video/frames/{name}"));
    assert!((300.0..=450.0).contains(&frames("received")), "{}", frames("received"));
    assert_eq!(frames("decodable"), frames("received"));
}

/// What the embedded SFU drops breaks chains of every codec, and a keyframe mends them.
#[test]
fn lost_frames_of_every_codec_are_seen() {
    let _beside = beside();
    for codec in ["vp9", "h264", "h265", "av1"] {
        let loss = ["--video-codec", codec, "--embedded-drop=3%", "--embedded-drop-burst=4"];
        let ended = run(&small(&[&loss[..], &["--playout-deadline=1ms"]].concat()));
        let frames = |name: &str| ended.number(&format!("/video/frames/{name}"));
        assert!(ended.number("/video/packets/unrecovered") > 0.0, "{codec}");
        assert!(frames("complete") < frames("received"), "{codec}");
        assert!(frames("decodable") < frames("complete"), "{codec}");
        assert!(frames("decodable") > 0.0 && frames("dropped") > 0.0, "{codec}");
        assert!(ended.number("/video/pli_sent") > 0.0, "{codec}");
    }
}

/// Of different profiles too: one is offered that decodes all three.
#[test]
fn h264_files_are_simulcast_too() {
    let _beside = beside();
    let clips = concat!(env!("CARGO_MANIFEST_DIR"), "/../../engine/media/clips");
    let file = format!("--video={clips}/video-360p.h264");
    let dir = tempfile::tempdir().unwrap();
    let mut args = Vec::new();
    for (name, size, profile) in [("low", "160:90", "baseline"), ("middle", "320:180", "main")] {
        let path = dir.path().join(name).display().to_string();
        let made = Command::new("ffmpeg")
            .args(["-v", "error", "-i", &file[8..], "-vf", &format!("scale={size}")])
            .args(["-c:v", "libx264", "-profile:v", profile, "-tune", "zerolatency"])
            .args(["-g", "50", "-sc_threshold", "0", "-f", "h264", &path])
            .status();
        if !made.is_ok_and(|status| status.success()) {
            return skip("ffmpeg with libx264 can't be run");
        }
        args.push(format!("--video={path}"));
    }
    args.extend([file, "--video-resolution=low".to_owned()]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ended = run(&small(&args));
    assert_flawless(&ended, 6, 5.0);
    assert_eq!(ended.number("/video/frames/decodable"), ended.number("/video/frames/received"));
    assert_eq!(ended.report()["run"]["options"]["video"].as_array().unwrap().len(), 3);
}

/// The built-in clip of 180p under another timebase, with RTP's timestamps, every fifth frame hidden, and 3 s
/// of pause after each 50.
fn odd_file() -> Vec<u8> {
    const CLIP: &[u8] = include_bytes!("../../../engine/media/clips/video-180p.ivf");
    let mut file = CLIP.to_vec();
    file[16..24].copy_from_slice(&[30, 0, 0, 0, 1, 0, 0, 0]);
    let (mut at, mut frame) = (32, 0_u64);
    while at < file.len() {
        let bytes = u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        let ticks = frame * 3_600 + frame / 50 * 270_000;
        file[at + 4..at + 12].copy_from_slice(&ticks.to_le_bytes());
        if frame % 5 == 3 {
            // show_frame (RFC 6386 §9.1).
            file[at + 12] &= !0x10;
        }
        (at, frame) = (at + 12 + bytes, frame + 1);
    }
    file
}

/// What its timestamps are is certain, so it plays as it is meant; nobody sees what is hidden, and its pauses
/// are its own.
#[test]
fn a_file_of_odd_timing_plays_as_it_is_meant_and_its_pauses_are_nobodys_fault() {
    let _beside = beside();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("odd.ivf");
    std::fs::write(&path, odd_file()).unwrap();
    let ended = run(&longer(&["--video", path.to_str().unwrap()]));
    assert_flawless(&ended, 6, 5.0);
    let notice = "odd.ivf would have 120.0000 s a frame by its timebase; its timestamps are RTP's";
    assert!(ended.stderr.contains(notice), "{}", ended.stderr);
    let number = |name: &str| ended.number(&format!("/video/{name}"));
    assert!(number("watch_ratio") > 0.99 && number("interruptions/count") == 0.0);
    assert!(number("freezes/count") >= 5.0, "a browser counts them");
    assert_eq!(number("freezes/causes/silent/count"), number("freezes/count"));
}

/// The codec of each video stream that subscribers got.
fn codecs(ended: &Ended) -> Vec<String> {
    let rows = ended.report()["streams"].as_array().unwrap();
    rows.iter().map(|row| row["codec"].as_str().unwrap().to_owned()).collect()
}

/// The codec of each track that came to the SFU.
fn came(ended: &Ended) -> Vec<String> {
    let published = ended.report().pointer("/server/embedded/rooms/0/published").unwrap();
    let codec = |row: &Value| row["codec"].as_str().unwrap_or("none").to_owned();
    let mut codecs: Vec<String> = published.as_array().unwrap().iter().map(codec).collect();
    codecs.sort_unstable();
    codecs
}

/// Who can't receive a track's codec gets the VP8 that is published once the SFU asks for it, whole.
#[test]
fn who_lacks_a_codec_gets_the_backup() {
    let _beside = beside();
    let args = ["--audio-publishers=0", "--subscribe-codecs=vp8,h264", "--duration=4s"];
    for (codec, signal) in [("vp9", "--signal=v0"), ("h265", "--signal=v1")] {
        let ended = run(&small(&[&args[..], &["--video-codec", codec, signal]].concat()));
        ended.assert_code(0);
        assert_eq!(ended.number("/publish/tracks"), 2.0, "{codec}: the track and its backup");
        assert_eq!(codecs(&ended), ["vp8"; 5], "{codec}");
        let mut both = ["video/VP8".to_owned(), format!("video/{}", codec.to_uppercase())];
        both.sort_unstable();
        assert_eq!(came(&ended), both);
        assert_eq!(ended.number("/video/packets/unrecovered"), 0.0, "{codec}");
        let frames = |name: &str| ended.number(&format!("/video/frames/{name}"));
        assert!(frames("received") > 5.0 * 50.0, "{codec}: {}", frames("received"));
        assert_eq!(frames("decodable"), frames("received"), "{codec}");
        assert_layer(&ended, 720);
    }
}

/// In a large room each gets what it can; a small one gets the backup as a whole, from a keyframe on, and
/// on the streams that are there.
#[test]
fn others_keep_the_codec_only_in_large_rooms() {
    let _beside = beside();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cohorts.toml");
    let text = "[[cohort]]\nname = \"poor\"\ncount = 1\nsubscribe_codecs = \"vp8\"\n";
    std::fs::write(&file, text).unwrap();
    let scenario = &format!("--scenario={}", file.display());
    let args = ["run", "--no-tui", "--seed=7", "--num-per-second=50", "--audio-publishers=0"];
    let more = ["--video-publishers=1", "--video-codec=av1", "--duration=4s", scenario];
    for (subscribers, kept) in [("--subscribers=4", 3), ("--subscribers=2", 0)] {
        let ended = run(&[&args[..], &more, &[subscribers]].concat());
        assert_eq!(ended.number("/publish/tracks"), 2.0, "{subscribers}");
        assert_eq!(ended.number("/video/packets/unrecovered"), 0.0, "{subscribers}");
        let last = codecs(&ended).iter().filter(|codec| *codec == "av1").count();
        assert_eq!(last, kept, "{subscribers}: {:?}", codecs(&ended));
        let frames = |name: &str| ended.number(&format!("/video/frames/{name}"));
        assert_eq!(frames("decodable"), frames("received"), "{subscribers}");
    }
}
