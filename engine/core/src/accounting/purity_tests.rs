//! What a server does to a stream besides forwarding it must not show in its figures: each test
//! compares a disturbed stream with the plain one, in virtual time.

use std::time::{Duration, Instant};

use stampede_media::Codec;

use super::{LatencyCounters, MediaPacket, Stamp, StampSource, StreamLedger, Via};
use crate::{Arrival, FrameCounters, FreezeCounters, PacketCounters, Sample};

const BASE_NS: u64 = 1_700_000_000_000_000_000;
const MS: Duration = Duration::from_millis(1);
/// From the publisher's stamp to the arrival of a frame's first packet.
const TRANSIT: Duration = Duration::from_millis(30);

/// A VP8 stream as a server sends it, packet by packet, with a clock of its own.
struct Stream {
    ledger: StreamLedger,
    start: Instant,
    /// Time since `start`.
    now: Duration,
    sequence: u16,
    picture_id: u16,
    /// Added to every RTP timestamp.
    timestamp_offset: u32,
    height: u8,
    /// The middle packet of each frame is lost; see [`Self::repair`].
    lossy: bool,
    lost: Vec<(u16, u32, Vec<u8>)>,
    samples: Vec<Sample>,
}

impl Stream {
    fn new(codec: Codec, sequence: u16) -> Self {
        let mut ledger = StreamLedger::new(500 * MS);
        ledger.set_codec(codec);
        ledger.set_same_clock(true);
        Self {
            ledger,
            start: Instant::now(),
            now: Duration::ZERO,
            sequence,
            picture_id: 0x7ff0,
            timestamp_offset: u32::MAX - 90_000,
            height: 36,
            lossy: false,
            lost: Vec::new(),
            samples: Vec::new(),
        }
    }

    fn at(&self) -> Arrival {
        let unix_ns = BASE_NS + self.now.as_nanos() as u64;
        Arrival { instant: self.start + self.now, unix_ns }
    }

    fn next_sequence(&mut self) -> u16 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn timestamp(&self, rate: u64) -> u32 {
        let ticks = self.now.as_micros() as u64 * rate / 1_000_000;
        self.timestamp_offset.wrapping_add(ticks as u32)
    }

    fn send(&mut self, payload: &[u8], timestamp: u32, marker: bool) {
        let sequence = self.next_sequence();
        self.arrive(sequence, payload, timestamp, marker, Via::Primary);
    }

    fn arrive(&mut self, sequence: u16, payload: &[u8], timestamp: u32, marker: bool, via: Via) {
        let at = self.at();
        self.ledger.media(MediaPacket {
            sequence,
            timestamp,
            marker,
            payload: Some(payload),
            dependency_descriptor: None,
            payload_bytes: payload.len(),
            at,
            via,
        });
        self.samples.extend(self.ledger.drain_samples());
    }

    /// What was lost comes by RTX.
    fn repair(&mut self) {
        for (sequence, timestamp, payload) in std::mem::take(&mut self.lost) {
            self.arrive(sequence, &payload, timestamp, false, Via::Rtx);
        }
    }

    /// One frame of three packets, stamped, `40 ms` after the one before.
    fn frame(&mut self, keyframe: bool) {
        let timestamp = self.timestamp(90_000);
        let stamp = Stamp {
            source: StampSource::AbsCaptureTime,
            unix_ns: self.at().unix_ns - TRANSIT.as_nanos() as u64,
        };
        self.ledger.stamp(timestamp, stamp);
        self.picture_id = (self.picture_id + 1) & 0x7fff;
        let id = self.picture_id.to_be_bytes();
        for index in 0..3 {
            let start = if index == 0 { 0x90 } else { 0x80 };
            let tag = 0x10 | u8::from(!keyframe);
            let header = [tag, 0, 0, 0x9d, 1, 0x2a, 64, 0, self.height, 0];
            let mut payload = vec![start, 0x80, 0x80 | id[0], id[1]];
            payload.extend(if index == 0 { header } else { [7; 10] });
            if self.lossy && index == 1 {
                let sequence = self.next_sequence();
                self.lost.push((sequence, timestamp, payload));
                continue;
            }
            self.send(&payload, timestamp, index == 2);
        }
        self.now += 40 * MS;
    }

    /// `frames` of them, every 25th a keyframe.
    fn frames(&mut self, frames: usize) {
        (0..frames).for_each(|frame| self.frame(frame % 25 == 0));
    }

    fn opus(&mut self) {
        let timestamp = self.timestamp(48_000);
        self.send(&[0xfc, 1, 2, 3, 4], timestamp, false);
        self.now += 20 * MS;
    }

    fn padding(&mut self) {
        let (sequence, at) = (self.next_sequence(), self.at());
        self.ledger.padding(sequence, at);
    }

    fn server_made(&mut self) {
        let (sequence, at) = (self.next_sequence(), self.at());
        self.ledger.server_made(sequence, at);
    }

    fn figures(mut self) -> Figures {
        self.ledger.finish(self.at().instant, self.at().instant);
        self.samples.extend(self.ledger.drain_samples());
        let latencies = self.samples.iter().map(|sample| match sample {
            Sample::Latency { latency, .. } => *latency,
            other => panic!("{other:?}"),
        });
        Figures {
            packets: self.ledger.packets(),
            frames: self.ledger.frames(),
            freezes: self.ledger.freezes(),
            jitter: self.ledger.jitter(),
            bitrate: self.ledger.bitrate_bps(),
            counted: self.ledger.latency(),
            latencies: latencies.collect(),
            switches: self.ledger.layer_switches(),
        }
    }
}

#[derive(Debug, PartialEq)]
struct Figures {
    packets: PacketCounters,
    frames: FrameCounters,
    freezes: FreezeCounters,
    jitter: Option<Duration>,
    bitrate: Option<f64>,
    counted: LatencyCounters,
    latencies: Vec<Duration>,
    switches: Option<(u64, u64)>,
}

impl Figures {
    /// Without the counts of what is not media.
    fn pure(self) -> Self {
        let packets = PacketCounters {
            padding_only: 0,
            server_made: 0,
            duplicate: 0,
            rtx_redundant: 0,
            ..self.packets
        };
        Self { packets, ..self }
    }
}

fn plain(frames: usize) -> Figures {
    let mut stream = Stream::new(Codec::Vp8, 65_000);
    stream.frames(frames);
    stream.figures()
}

#[test]
fn the_plain_stream_is_what_it_should_be() {
    // Over the wrap of sequence numbers (65,000 + 750), timestamps and picture ids.
    let figures = plain(250);
    assert_eq!((figures.packets.expected, figures.packets.received), (750, 750));
    assert_eq!((figures.packets.missing, figures.freezes.count), (0, 0));
    assert_eq!((figures.frames.decodable, figures.frames.dropped), (Some(250), Some(0)));
    assert_eq!(figures.jitter, Some(Duration::ZERO));
    assert_eq!(figures.latencies, [TRANSIT; 250]);
    assert_eq!(figures.switches, Some((0, 0)));
}

#[test]
fn padding_and_probes_between_frames_change_nothing() {
    let mut stream = Stream::new(Codec::Vp8, 65_000);
    for frame in 0..250 {
        stream.frame(frame % 25 == 0);
        (0..frame % 4).for_each(|_| stream.padding());
    }
    let figures = stream.figures();
    assert_eq!(figures.packets.padding_only, 373);
    assert_eq!(figures.pure(), plain(250));
}

#[test]
fn duplicates_and_rtx_repeats_change_nothing() {
    let mut stream = Stream::new(Codec::Vp8, 65_000);
    for frame in 0..250 {
        stream.frame(frame % 25 == 0);
        let at = stream.at();
        for via in [Via::Primary, Via::Rtx] {
            let payload = [0x80, 0x80, 1, 7, 7];
            stream.ledger.media(MediaPacket {
                sequence: stream.sequence.wrapping_sub(1),
                timestamp: 1,
                marker: false,
                payload: Some(&payload),
                dependency_descriptor: None,
                payload_bytes: 5,
                at,
                via,
            });
        }
    }
    let figures = stream.figures();
    assert_eq!((figures.packets.duplicate, figures.packets.rtx_redundant), (250, 250));
    assert_eq!(figures.pure(), plain(250));
}

#[test]
fn a_layer_switch_shows_only_as_one() {
    let mut stream = Stream::new(Codec::Vp8, 65_000);
    stream.frames(125);
    // The server reckons the new layer's timestamps a little wrong.
    stream.height = 72;
    stream.timestamp_offset = stream.timestamp_offset.wrapping_add(1_234);
    stream.frames(125);
    let figures = stream.figures();
    assert_eq!(figures.switches, Some((1, 0)));
    assert_eq!(Figures { switches: Some((0, 0)), ..figures }, plain(250));
}

#[test]
fn blank_frames_at_the_end_of_a_track_are_nobodys() {
    let mut stream = Stream::new(Codec::Vp8, 65_000);
    stream.frames(250);
    for _ in 0..7 {
        stream.server_made();
        stream.now += 33 * MS;
    }
    let figures = stream.figures();
    assert_eq!((figures.packets.server_made, figures.packets.padding_only), (7, 7));
    assert_eq!(figures.pure(), plain(250));
}

#[test]
fn a_muted_video_neither_freezes_nor_jitters() {
    // Signalling before, during and after the pause in the media.
    for (mute_ms, unmute_ms) in [(0, 0), (0, 4_200), (300, 3_000), (3_900, 4_100)] {
        let mut stream = Stream::new(Codec::Vp8, 65_000);
        stream.frames(125);
        let stopped = stream.now;
        stream.now = stopped + mute_ms * MS;
        stream.ledger.set_muted(true);
        if unmute_ms < 4_000 {
            stream.ledger.set_muted(false);
        }
        // Timestamps go on with the wall clock, give or take what the server gets wrong.
        stream.now = stopped + 4_000 * MS;
        stream.timestamp_offset = stream.timestamp_offset.wrapping_sub(4_000);
        for frame in 0..125 {
            if stream.now >= stopped + unmute_ms * MS {
                stream.ledger.set_muted(false);
            }
            stream.frame(frame % 25 == 0);
        }
        let (figures, expected) = (stream.figures(), plain(250));
        assert_eq!(Figures { bitrate: expected.bitrate, ..figures }, expected, "{mute_ms}");
    }
}

#[test]
fn what_stops_and_stays_stopped_is_a_freeze() {
    let mut stream = Stream::new(Codec::Vp8, 65_000);
    stream.frames(250);
    let last_shown = stream.now - 40 * MS;
    stream.now += 5_000 * MS;
    stream.ledger.finish(stream.at().instant, stream.at().instant);
    let (_, open, _) = stream.ledger.take_cover();
    let covered_until = open.unwrap().until - stream.start;
    assert_eq!(covered_until, last_shown + 190 * MS, "as long as any frame covered");
    let freezes = stream.ledger.freezes();
    assert_eq!((freezes.count, freezes.total_s.0), (1, Duration::from_millis(5_040)));
    let mut stream = Stream::new(Codec::Vp8, 65_000);
    stream.frames(250);
    stream.ledger.set_muted(true);
    stream.now += 5_000 * MS;
    stream.ledger.finish(stream.at().instant, stream.at().instant);
    assert_eq!(stream.ledger.freezes().count, 0, "muted");
}

#[test]
fn without_a_mute_the_same_pause_is_a_freeze() {
    let mut stream = Stream::new(Codec::Vp8, 65_000);
    stream.frames(125);
    stream.now += 4_000 * MS;
    stream.frames(125);
    let freezes = stream.figures().freezes;
    assert_eq!((freezes.count, freezes.causes.silent.count), (1, 1), "its clock went on");
    assert_eq!(freezes.total_s.0, 4_040 * MS);
}

#[test]
fn silence_while_muted_is_no_audio() {
    let mut stream = Stream::new(Codec::Opus, 65_500);
    (0..100).for_each(|_| stream.opus());
    let before = stream.ledger.bitrate_bps();
    stream.ledger.set_muted(true);
    for _ in 0..50 {
        stream.server_made();
        stream.now += 20 * MS;
    }
    assert_eq!(stream.ledger.bitrate_bps(), before);
    stream.ledger.set_muted(false);
    stream.timestamp_offset = stream.timestamp_offset.wrapping_add(2_000);
    (0..100).for_each(|_| stream.opus());
    let figures = stream.figures();
    assert_eq!((figures.packets.expected, figures.packets.received), (200, 200));
    assert_eq!((figures.packets.server_made, figures.packets.missing), (50, 0));
    assert_eq!((figures.frames.received, figures.frames.dropped), (200, Some(0)));
    assert_eq!(figures.jitter, Some(Duration::ZERO));
    assert_eq!(figures.counted, LatencyCounters { unstamped: 200, ..LatencyCounters::default() });
}

#[test]
fn freezes_are_told_apart_by_their_cause() {
    let mut stream = Stream::new(Codec::Vp8, 1);
    stream.frames(50);
    // Late: nothing is missing.
    stream.now += 600 * MS;
    stream.timestamp_offset = stream.timestamp_offset.wrapping_sub(600 * 90);
    stream.frame(true);
    (0..20).for_each(|_| stream.frame(false));
    // Lost: frames that can't be decoded until the next keyframe.
    stream.sequence += 1;
    stream.picture_id += 1;
    (0..20).for_each(|_| stream.frame(false));
    stream.frame(true);
    let freezes = stream.figures().freezes;
    assert_eq!((freezes.count, freezes.causes.loss.count), (2, 1), "{freezes:?}");
    assert_eq!(freezes.causes.late.total_s.0, 640 * MS);
}

#[test]
fn a_keyframe_answers_the_first_pli_since_the_last_one() {
    let mut stream = Stream::new(Codec::Vp8, 1);
    stream.ledger.set_same_clock(false);
    stream.frame(true);
    for _ in 0..2 {
        let now = stream.at().instant;
        stream.ledger.asked_for_keyframe(now);
        stream.frame(false);
    }
    stream.frame(true);
    stream.frame(true);
    assert_eq!(stream.samples, [Sample::KeyframeAfterPli(80 * MS)]);
}

#[test]
fn a_gap_of_before_the_window_is_repaired_for_its_frame() {
    let mut stream = Stream::new(Codec::Vp8, 65_520);
    stream.frames(50);
    stream.lossy = true;
    stream.frame(false);
    stream.lossy = false;
    let now = stream.at().instant;
    stream.ledger.restart_counting(now);
    stream.frame(false);
    stream.repair();
    (0..20).for_each(|_| stream.frame(false));
    assert!(!stream.ledger.keyframe_wanted());
    let figures = stream.figures();
    assert_eq!((figures.packets.expected, figures.packets.received), (63, 63));
    assert_eq!((figures.packets.missing, figures.packets.stale), (0, 1));
    // The frame that was repaired began before the window.
    assert_eq!((figures.frames.decodable, figures.frames.dropped), (Some(21), Some(0)));
    assert_eq!(figures.freezes, FreezeCounters::default());
}

#[test]
fn an_end_while_a_gap_is_open_loses_nothing() {
    let mut stream = Stream::new(Codec::Vp8, 65_520);
    stream.frames(50);
    stream.lossy = true;
    stream.frame(false);
    stream.lossy = false;
    // 480 ms after the gap was seen.
    (0..11).for_each(|_| stream.frame(false));
    let figures = stream.figures();
    assert_eq!((figures.packets.expected, figures.packets.received), (185, 185));
    assert_eq!((figures.packets.missing, figures.packets.unrecovered), (0, 0));
    assert_eq!((figures.frames.received, figures.frames.dropped), (50, Some(0)));
    // A little later the deadline has passed.
    let mut stream = Stream::new(Codec::Vp8, 65_520);
    stream.frames(50);
    stream.lossy = true;
    stream.frame(false);
    stream.lossy = false;
    (0..12).for_each(|_| stream.frame(false));
    let figures = stream.figures();
    assert_eq!((figures.packets.missing, figures.packets.unrecovered), (1, 1));
    assert_eq!((figures.frames.received, figures.frames.dropped), (63, Some(13)));
}

#[test]
fn a_change_of_codec_forgets_nothing() {
    let mut stream = Stream::new(Codec::Vp8, 1);
    stream.frames(50);
    stream.now += 600 * MS;
    stream.frame(false);
    let first = stream.ledger.first_keyframe();
    stream.ledger.set_codec(Codec::H264);
    let timestamp = stream.timestamp(90_000);
    // SPS, PPS and an IDR slice in a STAP-A, and a slice.
    stream.send(&[0x78, 0, 1, 0x67, 0, 1, 0x68, 0, 2, 0x65, 0x88], timestamp, true);
    stream.now += 40 * MS;
    let timestamp = stream.timestamp(90_000);
    stream.send(&[0x61, 0x88], timestamp, true);
    assert_eq!(stream.ledger.first_keyframe(), first);
    let figures = stream.figures();
    let frames = figures.frames;
    assert_eq!((frames.received, frames.keyframes, frames.dropped), (53, 3, Some(0)));
    assert_eq!((frames.decodable, figures.freezes.count), (Some(53), 1));
}
