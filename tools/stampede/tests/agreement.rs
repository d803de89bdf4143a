//! The figures agree with instruments that nobody here wrote: Chromium's and libwebrtc's own
//! statistics of the same room behind the same losses, and ffmpeg's decoder on what was recorded.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::foreign::{Client, Figures, Server};
use common::relay::{Relay, rtp_payload_type};
use common::{Ended, Running, alone};
use rustix::process::Signal;
use serde_json::Value;
use stampede_media::{ClipFrame, MediaClip, builtin, record::IvfWriter};
use stampede_testing::skip;

/// Payload types of the embedded SFU's offers.
const VP8: u8 = 96;
const VP8_RTX: u8 = 97;
const OPUS: u8 = 111;
/// Length of Stampede's measured window. All losses lie in it.
const WINDOW: Duration = Duration::from_secs(14);
/// Loss may differ by a thousandth of the packets: 0.1 percentage points.
const LOSS_RATE_DIFFERENCE_MAX: f64 = 0.001;
/// So may the count of freezes.
const FREEZES_DIFFERENCE_MAX: f64 = 1.0;
/// Frames that one side counts and the other doesn't: each window begins and ends where its owner
/// looked at the clock, and a decoder holds some back.
const FRAMES_DIFFERENCE_MAX: f64 = 10.0;

/// Which packets a network loses, the same ones for every client, counted from the moment at which
/// losses begin. First come losses that RTX repairs, then whole bursts that it does not, because
/// retransmissions are lost too.
#[derive(Debug, Clone)]
struct Losses {
    video: Vec<bool>,
    audio: Vec<bool>,
    /// Packets of video from which on no retransmission passes, and from which on they do again.
    no_rtx: std::ops::Range<usize>,
    /// Bursts of video that nothing repairs.
    bursts: usize,
}

impl Losses {
    fn new(seed: u64) -> Self {
        const REPAIRED: usize = 700;
        const QUIET: usize = 150;
        const BURSTS: usize = 4;
        const BURST_EVERY: usize = 350;
        const BURST_PACKETS: usize = 10;
        let mut state = seed;
        let mut below = |end: usize| {
            // xorshift64 (Marsaglia 2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % end as u64) as usize
        };
        let no_rtx = REPAIRED + QUIET..REPAIRED + QUIET + BURSTS * BURST_EVERY;
        let mut video: Vec<bool> = (0..REPAIRED).map(|_| below(100) < 3).collect();
        video.resize(no_rtx.end, false);
        for burst in 0..BURSTS {
            let first = no_rtx.start + burst * BURST_EVERY + below(50);
            video[first..first + BURST_PACKETS].fill(true);
        }
        let audio = (0..500).map(|_| below(100) < 3).collect();
        Self { video, audio, no_rtx, bursts: BURSTS }
    }

    fn lost(&self, of: &[bool]) -> f64 {
        of.iter().filter(|lost| **lost).count() as f64
    }

    /// Packets of video lost for good.
    fn final_video(&self) -> f64 {
        self.lost(&self.video[self.no_rtx.clone()])
    }
}

/// What the network has done to one client.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Done {
    video: usize,
    video_lost: usize,
    audio: usize,
    audio_lost: usize,
    rtx_lost: usize,
}

/// The network, once losses may begin.
fn network(losses: Losses, begun: Arc<AtomicBool>, done: Arc<Mutex<Vec<Done>>>) -> Relay {
    Relay::start(move || {
        let (losses, begun, done) = (losses.clone(), Arc::clone(&begun), Arc::clone(&done));
        let number = {
            let mut done = done.lock().unwrap();
            done.push(Done::default());
            done.len() - 1
        };
        Box::new(move |datagram| {
            let Some(payload_type) = rtp_payload_type(datagram) else { return true };
            if !begun.load(Ordering::Relaxed) {
                return true;
            }
            let mut all = done.lock().unwrap();
            let client = &mut all[number];
            let is_lost = |of: &[bool], packet: usize| of.get(packet).copied().unwrap_or(false);
            let lost = match payload_type {
                VP8 => {
                    let lost = is_lost(&losses.video, client.video);
                    client.video += 1;
                    client.video_lost += usize::from(lost);
                    lost
                }
                VP8_RTX => {
                    let lost = losses.no_rtx.contains(&client.video);
                    client.rtx_lost += usize::from(lost);
                    lost
                }
                OPUS => {
                    let lost = is_lost(&losses.audio, client.audio);
                    client.audio += 1;
                    client.audio_lost += usize::from(lost);
                    lost
                }
                other => panic!("payload type {other} is none of the embedded SFU's"),
            };
            !lost
        })
    })
}

fn unix_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1_000.0
}

/// What a libwebrtc client counted between two moments. Its words, and ours:
///
/// - `packetsLost` (RFC 3550 §6.4.1 over the primary SSRC): what RTX brought is not subtracted,
///   because libwebrtc keeps recovered packets out of its receive statistics
///   (`rtp_video_stream_receiver2.cc`). So it is our `missing`, and only without RTX our
///   `unrecovered`.
/// - `retransmittedPacketsReceived`: what came by RTX, useful or not; our `repaired` at least.
/// - `packetsReceived`: primary SSRC and, for video, RTX (W3C webrtc-stats adds them up).
/// - `freezeCount`: the same rule as ours, on rendered instead of received frames.
#[derive(Debug)]
struct Counted {
    lost: f64,
    retransmitted: f64,
    /// First transmissions, lost ones included: our `expected`.
    expected: f64,
    audio_lost: f64,
    audio_expected: f64,
    frames_decoded: f64,
    freezes: f64,
    nacks: f64,
}

fn counted(figures: &Figures, from_ms: f64, to_ms: f64) -> Counted {
    let samples = figures.0["samples"].as_array().expect("samples");
    let of = |sample: &Value, pointer: &str| sample.pointer(pointer).unwrap().as_f64().unwrap();
    // Between two samples counters grow evenly: nothing is lost at either end of the window.
    let at = |moment_ms: f64, pointer: &str| {
        let after = samples.partition_point(|sample| of(sample, "/at_ms") < moment_ms);
        let [before, after] = &samples[after - 1..=after] else { unreachable!() };
        let span_ms = of(after, "/at_ms") - of(before, "/at_ms");
        let share = (moment_ms - of(before, "/at_ms")) / span_ms;
        of(before, pointer) + share * (of(after, pointer) - of(before, pointer))
    };
    let between = |pointer: &str| at(to_ms, pointer) - at(from_ms, pointer);
    let (lost, audio_lost) = (between("/video/packetsLost"), between("/audio/packetsLost"));
    let retransmitted = between("/video/retransmittedPacketsReceived");
    Counted {
        lost,
        retransmitted,
        expected: lost + between("/video/packetsReceived") - retransmitted,
        audio_lost,
        audio_expected: audio_lost + between("/audio/packetsReceived"),
        frames_decoded: between("/video/framesDecoded"),
        freezes: between("/video/freezeCount"),
        nacks: between("/video/nackCount"),
    }
}

/// A stream of the report.
struct Row<'a>(&'a Value);

impl Row<'_> {
    fn number(&self, name: &str) -> f64 {
        self.0[name].as_f64().unwrap_or_else(|| panic!("{name}: {:#}", self.0))
    }
}

/// Those that received anything.
fn rows<'a>(ended: &'a Ended, kind: &str) -> Vec<Row<'a>> {
    let all = ended.report()["streams"].as_array().unwrap().iter();
    all.filter(|row| row["kind"] == kind && row["received"] != 0).map(Row).collect()
}

#[track_caller]
fn assert_near(what: &str, left: f64, right: f64, difference_max: f64) {
    assert!((left - right).abs() <= difference_max, "{what}: {left} and {right}");
}

/// Stampede, Chromium and LiveKit's Python client (native libwebrtc) behind a network that loses
/// the same packets for all of them.
#[test]
fn libwebrtc_counts_the_same_losses_and_freezes() {
    let _alone = alone();
    let clients = [Client::Chromium, Client::Python];
    let commands = clients.map(Client::available);
    if commands.iter().all(Option::is_none) {
        return;
    }
    let losses = Losses::new(11);
    let (begun, done) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let relay = network(losses.clone(), Arc::clone(&begun), Arc::clone(&done));
    let (ip, port) = (relay.address.ip().to_string(), relay.address.port().to_string());
    // Whoever tells of losses would get another layer, and other packets than those that are counted.
    let flags = ["--node-ip", &ip, "--rtc-port", &port, "--congestion=none"];
    let server = Server::embedded(&flags);
    let room = server.room();
    // Plain Opus: what is lost of it is lost for good.
    let args = ["--video-publishers=1", "--audio-publishers=1", "--subscribers=0", "--duration=3m"];
    let publisher = server.stampede(&room, &[&args[..], &["--no-audio-red"]].concat());
    let args = ["subscribe", "--seconds", "90", "--samples", "yes"];
    let mut foreign: Vec<_> = clients
        .into_iter()
        .zip(commands)
        .filter_map(|(client, command)| Some((client, server.client(command?, &room, &args))))
        .collect();
    for (_, client) in &mut foreign {
        client.wait_for("watching");
    }
    let window = format!("--duration={}s", WINDOW.as_secs());
    let args = ["--subscribers=3", "--threshold=video.loss_rate<5% && audio.loss_rate<5%", &window];
    let mut running = server.stampede(&room, &args);
    running.wait_for(" hold ");
    let from_ms = unix_ms();
    std::thread::sleep(Duration::from_millis(600));
    begun.store(true, Ordering::Relaxed);
    let to_ms = from_ms + WINDOW.as_secs_f64() * 1_000.0;
    let ended = running.end();
    std::thread::sleep(Duration::from_millis(500));
    let foreign: Vec<_> =
        foreign.into_iter().map(|(client, running)| (client, running.finish())).collect();
    drop(publisher);

    let done: Vec<Done> = done.lock().unwrap().iter().copied().filter(|d| d.video > 0).collect();
    assert_eq!(done.len(), 3 + foreign.len(), "every subscriber came through the relay");
    for client in &done {
        assert_eq!(client.video_lost as f64, losses.lost(&losses.video), "{client:?} of {done:?}");
        assert_eq!(client.audio_lost as f64, losses.lost(&losses.audio), "{client:?} of {done:?}");
        assert!(client.rtx_lost >= losses.final_video() as usize, "{client:?} of {done:?}");
    }
    assert_ours(&ended, &losses);
    for (client, figures) in &foreign {
        let theirs = counted(figures, from_ms, to_ms);
        let last = |name: &str| figures.number(&format!("/video/{name}"));
        let (plis, jitter_ms) = (last("pliCount"), last("jitter") * 1_000.0);
        let said = format!("{client:?}: {theirs:?}, {plis} PLI, {jitter_ms} ms of jitter");
        let _ = writeln!(std::io::stderr(), "{said}");
        for (video, audio) in rows(&ended, "video").iter().zip(&rows(&ended, "audio")) {
            assert_agree(&theirs, video, audio, &losses);
        }
    }
}

/// Ours is exact: it is what the network did, packet for packet.
fn assert_ours(ended: &Ended, losses: &Losses) {
    // What was lost on purpose leaves more than 1 % of the time without a picture.
    ended.assert_code(1);
    let (video, audio) = (rows(ended, "video"), rows(ended, "audio"));
    assert_eq!((video.len(), audio.len()), (3, 3));
    for row in &video {
        let names = ["frames_decodable", "freezes", "expected", "pli_sent", "nack_sent"];
        let figures = names.map(|name| (name, row.number(name)));
        let _ = writeln!(std::io::stderr(), "Stampede: {figures:?} {}", row.0["jitter_ms"]);
        assert_eq!(row.number("missing"), losses.lost(&losses.video));
        assert_eq!(row.number("unrecovered"), losses.final_video());
        // A keyframe may come so early that there is nothing to see.
        assert_near("freezes", row.number("freezes"), losses.bursts as f64, 1.0);
    }
    for row in &audio {
        assert_eq!(row.number("unrecovered"), losses.lost(&losses.audio));
    }
}

fn assert_agree(theirs: &Counted, video: &Row<'_>, audio: &Row<'_>, losses: &Losses) {
    let near = |what: &str, theirs: f64, ours: f64| {
        assert_near(what, theirs, ours, LOSS_RATE_DIFFERENCE_MAX);
    };
    let rate = |part: f64, all: f64| part / all;
    near(
        "missing of video",
        rate(theirs.lost, theirs.expected),
        rate(video.number("missing"), video.number("expected")),
    );
    // Their retransmissions may have come twice, so this is a floor for what they lost for good.
    let repaired = theirs.retransmitted.min(theirs.lost - losses.final_video());
    near(
        "unrecovered of video",
        rate(theirs.lost - repaired, theirs.expected),
        rate(video.number("unrecovered"), video.number("expected")),
    );
    near(
        "unrecovered of audio",
        rate(theirs.audio_lost, theirs.audio_expected),
        rate(audio.number("unrecovered"), audio.number("expected")),
    );
    assert!(theirs.nacks > 0.0, "{theirs:?}");
    assert_near("freezes", theirs.freezes, video.number("freezes"), FREEZES_DIFFERENCE_MAX);
    let decodable = video.number("frames_decodable");
    assert_near("frames", theirs.frames_decoded, decodable, FRAMES_DIFFERENCE_MAX);
}

/// A clip's frames without the payload descriptors of their packets, as an IVF file.
fn write_ivf(clip: &MediaClip, path: &Path) {
    let bytes = |frame: &ClipFrame| -> Vec<u8> {
        frame.packets.iter().flat_map(|packet| packet[6..].to_vec()).collect()
    };
    let mut out = Vec::new();
    let mut writer = IvfWriter::begin(0, &bytes(&clip.frames[0]), &mut out).unwrap();
    for (number, frame) in clip.frames.iter().enumerate() {
        writer.frame(3_000 * number as u64, &bytes(frame), &mut out);
    }
    std::fs::write(path, out).unwrap();
}

/// Checksums of the pictures that ffmpeg decodes; it may complain about nothing. `None` (and says
/// so) where it isn't installed.
fn decoded(path: &Path) -> Option<Vec<String>> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-xerror", "-err_detect", "explode", "-i"])
        .arg(path)
        .args(["-fps_mode", "passthrough", "-f", "framemd5", "-"])
        .output();
    let output = output.inspect_err(|error| skip(format!("ffmpeg can't be run: {error}"))).ok()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", path.display());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    Some(lines.map(|line| line.rsplit(',').next().unwrap().trim().to_owned()).collect())
}

/// What is called decodable is what a decoder shows: ffmpeg finds as many pictures in a recording
/// as its stream has decodable frames, and each of them is, bit for bit, a picture of the clip that
/// was published. (A frame whose references were lost decodes too, into a picture of nobody's.)
#[test]
fn ffmpeg_decodes_exactly_the_frames_called_decodable() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("published.ivf");
    write_ivf(&builtin::video_layers().unwrap()[2], &source);
    let Some(pictures) = decoded(&source) else { return };
    let pictures: HashSet<String> = pictures.into_iter().collect();
    let recordings = dir.path().join("recordings");
    std::fs::create_dir(&recordings).unwrap();
    // A run that ends in its ramp is accounted from its first packet on, as recordings are.
    let mut running = Running::start(&[
        "run",
        "--no-tui",
        "--seed=7",
        "--subscribers=500",
        "--num-per-second=1",
        "--duration=5s",
        "--record",
        &recordings.display().to_string(),
        "--record-subscribers=500",
        "--embedded-impair=loss=8%,burst=8",
        "--playout-deadline=30ms",
    ]);
    running.wait_for(" ramp ");
    std::thread::sleep(Duration::from_secs(9));
    running.signal(Signal::INT);
    let ended = running.end();
    ended.assert_code(105);

    let (mut complete, mut decodable) = (0.0, 0.0);
    let mut streams = 0;
    let files = common::files(&recordings, "ivf");
    for row in rows(&ended, "video") {
        let identity = row.0["identity"].as_str().unwrap();
        let named = |file: &&std::path::PathBuf| file.to_string_lossy().contains(identity);
        let Some(file) = files.iter().find(named) else {
            assert_eq!(row.number("frames_decodable"), 0.0, "{identity} has no recording");
            continue;
        };
        let shown = decoded(file).unwrap();
        assert_eq!(shown.len() as f64, row.number("frames_decodable"), "{identity}");
        let strange = shown.iter().filter(|picture| !pictures.contains(*picture)).count();
        assert_eq!(strange, 0, "{identity}: pictures that nobody published");
        complete += row.number("frames_complete");
        decodable += row.number("frames_decodable");
        streams += 1;
    }
    // It was no easy matter: frames came whole and could not be shown all the same.
    assert!(streams >= 5 && decodable > 100.0, "{streams} streams, {decodable} decodable");
    assert!(complete > decodable + 20.0, "{complete} complete, {decodable} decodable");
    assert_eq!(ended.number("/recordings/frames_dropped"), 0.0);
}
