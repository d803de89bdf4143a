//! Clients that Stampede did not write, on both ends: Chromium with livekit-client, and LiveKit's
//! Python client (native libwebrtc). `tools/foreign` holds the scripts that drive them.
//!
//! Each scenario runs against the embedded SFU, and against the server of `LIVEKIT_URL` where that
//! is set. A client that isn't installed skips its tests and says so, unless
//! `STAMPEDE_FOREIGN=required` is set (as `.ci/run` does): then it fails them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::foreign::{Client, Figures, Server};
use common::{Ended, alone};
use rustix::process::Signal;

/// How long a foreign subscriber watches.
const WATCH_SECONDS: &str = "8";
/// How long a foreign publisher sends; longer than any subscriber needs, ended early by the test.
const PUBLISH_SECONDS: &str = "60";
/// Frames a foreign subscriber must decode in `WATCH_SECONDS` of a 20 to 30 fps picture.
const FRAMES_DECODED_MIN: f64 = 50.0;
/// What a foreign subscriber may lose: its own socket may overflow where it shares two cores with
/// an encoder. What Stampede receives must be whole.
const LOSS_RATE_MAX: f64 = 0.01;

/// What a foreign client's figures have to be.
trait FiguresExt {
    fn assert_watched(&self);
    fn assert_whole(&self);
    fn assert_size(&self, width: f64, height: f64);
    fn assert_published(&self);
}

impl FiguresExt for Figures {
    /// A subscriber saw a moving picture and heard sound.
    fn assert_watched(&self) {
        let decoded = self.number("/video/framesDecoded");
        let half = self.number("/video/framesDecodedHalf");
        assert!(decoded > FRAMES_DECODED_MIN, "{decoded} frames: {:#}", self.0);
        assert!(0.0 < half && half < decoded, "the picture stands: {:#}", self.0);
        assert!(self.number("/audio/packetsReceived") > 100.0, "{:#}", self.0);
        assert!(self.number("/audio/totalSamplesReceived") > 0.0, "{:#}", self.0);
    }

    /// A subscriber lost next to nothing.
    fn assert_whole(&self) {
        for kind in ["video", "audio"] {
            let lost = self.number(&format!("/{kind}/packetsLost"));
            let received = self.number(&format!("/{kind}/packetsReceived"));
            assert!(lost <= LOSS_RATE_MAX * received, "{lost} {kind} packets lost: {:#}", self.0);
        }
    }

    fn assert_size(&self, width: f64, height: f64) {
        let found = (self.number("/video/width"), self.number("/video/height"));
        assert_eq!(found, (width, height), "{:#}", self.0);
    }

    /// A publisher sent layers and sound. An encoder short of CPU leaves the top layer out.
    fn assert_published(&self) {
        assert!(self.number("/video/layersActive") >= 2.0, "{:#}", self.0);
        assert!(self.number("/video/framesSent") > FRAMES_DECODED_MIN, "{:#}", self.0);
        assert!(self.number("/audio/packetsSent") > 100.0, "{:#}", self.0);
    }
}

/// Stampede publishes its built-in clips, simulcast; a foreign client watches a layer.
fn stampede_to(client: Client, layer: &str, server: &Server) {
    let Some(command) = client.available() else { return };
    let room = server.room();
    let publisher = server.stampede(
        &room,
        &["--video-publishers=1", "--audio-publishers=1", "--subscribers=0", "--duration=2m"],
    );
    let mut args = vec!["subscribe", "--seconds", WATCH_SECONDS];
    if layer != "high" {
        args.extend(["--quality", layer]);
    }
    let figures = server.client(command, &room, &args).end();
    publisher.signal(Signal::INT);
    let ended = publisher.end();

    figures.assert_watched();
    figures.assert_whole();
    match layer {
        "high" => figures.assert_size(1280.0, 720.0),
        "medium" => figures.assert_size(640.0, 360.0),
        _ => figures.assert_size(320.0, 180.0),
    }
    // 105: a signal ended it, with a full report all the same.
    ended.assert_code(105);
    assert_eq!(ended.number("/join/joined"), 1.0);
    assert!(ended.number("/publish/frames_sent") > FRAMES_DECODED_MIN);
    assert!(ended.number("/publish/keyframes_sent") >= 1.0);
}

/// A foreign client publishes its own encoder's pictures, simulcast; Stampede watches.
fn stampede_from(client: Client, server: &Server) {
    let Some(command) = client.available() else { return };
    let room = server.room();
    let args = ["publish", "--seconds", PUBLISH_SECONDS];
    let mut publisher = server.client(command, &room, &args);
    publisher.wait_for("published");
    let ended = server.stampede(&room, &["--subscribers=2", "--duration=6s"]).end();
    let figures = publisher.finish();

    figures.assert_published();
    assert_received(&ended, 2.0);
}

/// A foreign client mutes both its tracks for a while in the measured window. Nothing is sent then,
/// or what the server makes up: neither is loss, and a picture that is not there does not freeze.
fn a_mute_is_no_loss(server: &Server) {
    const MUTED: Duration = Duration::from_millis(2_500);
    let Some(command) = Client::Python.available() else { return };
    let room = server.room();
    let mut publisher = server.client(command, &room, &["publish", "--seconds", PUBLISH_SECONDS]);
    publisher.wait_for("published");
    let args = ["--subscribers=2", "--video-resolution=low", "--duration=9s"];
    let mut run = server.stampede(&room, &args);
    run.wait_for(" hold ");
    std::thread::sleep(Duration::from_secs(2));
    for word in ["muted", "unmuted"] {
        publisher.signal(Signal::USR1);
        publisher.wait_for(word);
        std::thread::sleep(MUTED);
    }
    let ended = run.end();
    let figures = publisher.finish();

    assert_eq!(figures.number("/mutes"), 1.0);
    assert_received(&ended, 2.0);
    for kind in ["video", "audio"] {
        assert_eq!(ended.number(&format!("/{kind}/packets/missing")), 0.0, "{kind}");
    }
    // It was muted: of 9 s hardly more than 6.5 s have pictures, and there were some after it.
    let shown_s = ended.number("/video/frames/decodable") / 2.0 / 30.0;
    assert!(shown_s < 7.2, "{shown_s}: {:#}", ended.report()["video"]);
    for row in ended.report()["streams"].as_array().unwrap() {
        let at = |key: &str| row[key].as_f64().unwrap();
        assert!(at("last_packet_s") - at("first_packet_s") > 8.0, "{row:#}");
    }
    let freezes = &ended.report()["video"]["freezes"];
    assert_eq!(freezes["causes"]["loss"]["count"], 0, "{freezes:#}");
    assert!(freezes["total_s"].as_f64() < Some(1.0), "the mute counts as one: {freezes:#}");
}

/// Every subscriber got both tracks, all of them, and could show what it got.
fn assert_received(ended: &Ended, subscribers: f64) {
    ended.assert_code(0);
    assert_eq!(ended.number("/join/joined"), subscribers);
    for kind in ["video", "audio"] {
        assert_eq!(ended.number(&format!("/{kind}/tracks_received")), subscribers, "{kind}");
        assert_eq!(ended.number(&format!("/{kind}/packets/unrecovered")), 0.0, "{kind}");
        assert!(ended.number(&format!("/{kind}/packets/received")) > 100.0, "{kind}");
    }
    let decodable = ended.number("/video/frames/decodable");
    assert!(decodable > FRAMES_DECODED_MIN * subscribers, "{decodable} frames");
}

/// Two foreign clients meet; Stampede is at most the server.
fn between(publisher: Client, subscriber: Client, server: &Server) {
    let Some(publish) = publisher.available() else { return };
    let Some(subscribe) = subscriber.available() else { return };
    let room = server.room();
    let args = ["publish", "--seconds", PUBLISH_SECONDS];
    let mut publisher = server.client(publish, &room, &args);
    publisher.wait_for("published");
    let args = ["subscribe", "--seconds", WATCH_SECONDS];
    let watched = server.client(subscribe, &room, &args).end();
    let published = publisher.finish();

    published.assert_published();
    watched.assert_watched();
    watched.assert_whole();
}

/// Makes each scenario a test against the embedded SFU and one against the real server.
macro_rules! scenarios {
    ($($name:ident: $scenario:expr;)*) => {
        mod embedded {
            use super::*;
            $(#[test]
            fn $name() {
                let _alone = alone();
                $scenario(&Server::embedded(&[]));
            })*
        }

        mod real {
            use super::*;
            $(#[test]
            fn $name() {
                let _alone = alone();
                if let Some(server) = Server::real() {
                    $scenario(&server);
                }
            })*
        }
    };
}

scenarios! {
    chromium_watches_stampede: |server| stampede_to(Client::Chromium, "high", server);
    chromium_watches_the_low_layer: |server| stampede_to(Client::Chromium, "low", server);
    python_watches_stampede: |server| stampede_to(Client::Python, "high", server);
    stampede_watches_chromium: |server| stampede_from(Client::Chromium, server);
    stampede_watches_python: |server| stampede_from(Client::Python, server);
    a_mute_by_python_is_no_loss: a_mute_is_no_loss;
    chromium_watches_python: |server| between(Client::Python, Client::Chromium, server);
    python_watches_chromium: |server| between(Client::Chromium, Client::Python, server);
}

/// Chromium asks again for what the embedded SFU drops, and gets it: the picture goes on without
/// a new keyframe. (RTX as a foreign client does it, from Stampede's packets.)
#[test]
fn chromium_repairs_what_the_embedded_sfu_drops() {
    let _alone = alone();
    let Some(command) = Client::Chromium.available() else { return };
    let server = Server::embedded(&["--drop", "2%", "--seed", "3"]);
    let room = server.room();
    let args = ["--video-publishers=1", "--audio-publishers=1", "--subscribers=0", "--duration=2m"];
    let publisher = server.stampede(&room, &args);
    let args = ["subscribe", "--seconds", WATCH_SECONDS];
    let figures = server.client(command, &room, &args).end();
    drop(publisher);

    figures.assert_watched();
    assert!(figures.number("/video/packetsLost") > 0.0, "{:#}", figures.0);
    assert!(figures.number("/video/nackCount") > 0.0, "{:#}", figures.0);
    // One packet in fifty is lost: without repair hardly any second would be free of a PLI.
    assert!(figures.number("/video/pliCount") <= 2.0, "{:#}", figures.0);
}
