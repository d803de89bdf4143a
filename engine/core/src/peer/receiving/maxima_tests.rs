//! What a subscriber does at the maxima of what it keeps of streams and tracks.

use std::time::{Duration, Instant};

use stampede_media::{AssemblerPacket, Codec, FrameAssembler};
use stampede_sdp::Description;

use super::formats::Format;
use super::recorder::{Recorder, WAITING_FRAMES_MAX};
use super::stream::Accepted;
use super::streams::{CLOSED_COVERS_MAX, Streams};
use super::tracks::{TRACK_STATES_MAX, TrackStates};
use crate::accounting::{MediaPacket, StreamLedger, Via};
use crate::peer::CLOSED_STREAMS_MAX;
use crate::peer::candidates::LocalId;
use crate::peer::outbox::Outbox;
use crate::{Arrival, MediaKind, PeerEvent, PeerSink, PeerUpdate, RecordedFrame, RecordedStream};

const OFFER: &str = include_str!("../../../tests/data/subscriber-offer-vp8-2.sdp");
/// The audio of that offer.
const SSRC: u32 = 3_151_829_842;
const DEADLINE: Duration = Duration::from_millis(500);

fn arrival() -> Arrival {
    Arrival { instant: Instant::now(), unix_ns: 0 }
}

/// A server that sends each packet of its audio by another SSRC.
#[test]
fn closed_streams_beyond_the_maximum_are_in_the_sums_only_and_counted() {
    let (at, mut outbox) = (arrival(), Outbox::default());
    let mut streams = Streams::new(DEADLINE, false);
    let all = CLOSED_STREAMS_MAX.max(CLOSED_COVERS_MAX) as u32 + 4;
    for ssrc in (1..).take(all as usize) {
        let offer = OFFER.replace(&SSRC.to_string(), &format!("{ssrc}"));
        let offer = Description::parse(&offer).unwrap();
        streams.apply_offer(at.instant, &offer, &[], &mut outbox);
        let format =
            Format { wire: 111, media: 111, red: false, codec: Codec::Opus, clock_rate: 48_000 };
        let packet = Accepted {
            sequence: 1,
            timestamp: 0,
            marker: false,
            format,
            payload: &[0xfc, 1, 2],
            captured_unix_ns: None,
            dependency_descriptor: None,
        };
        let route = streams.route(ssrc).unwrap();
        streams.accept(route, packet, at, &mut outbox);
    }
    let audio = |kind| kind == MediaKind::Audio;
    let reports = streams.reports();
    let closed = reports.iter().filter(|report| report.closed && audio(report.kind)).count();
    assert_eq!((closed, streams.left_out()), (CLOSED_STREAMS_MAX, 3));
    assert_eq!(streams.counters().1.packets.received, u64::from(all));
    let mut covers = Vec::new();
    streams.covers(false, &mut |cover| covers.push(cover));
    let ended: Vec<_> = covers.iter().filter(|cover| cover.last).collect();
    let newest = ended.last().map(|cover| cover.stream);
    assert_eq!(ended.len(), CLOSED_COVERS_MAX, "the oldest are forgotten");
    assert!(
        newest.is_some_and(|newest| covers.iter().all(|open| open.last || open.stream != newest))
    );
}

#[test]
fn tracks_beyond_the_maximum_are_not_remembered() {
    let mut tracks = TrackStates::default();
    let id = |number: usize| format!("TR_{number}");
    for number in 0..=TRACK_STATES_MAX {
        let track_id = id(number);
        tracks.take(PeerUpdate::Track { track_id, same_clock: true, muted: false });
    }
    let mut is_known =
        |number| tracks.take(PeerUpdate::Muted { track_id: id(number), muted: true }).is_some();
    assert!(is_known(0) && is_known(TRACK_STATES_MAX - 1) && !is_known(TRACK_STATES_MAX));
    // One that is gone makes room.
    tracks.take(PeerUpdate::TrackGone { track_id: id(0), orderly: false });
    let track_id = id(TRACK_STATES_MAX);
    tracks.take(PeerUpdate::Track { track_id: track_id.clone(), same_clock: true, muted: false });
    assert!(tracks.take(PeerUpdate::Muted { track_id, muted: true }).is_some());
}

/// RTP timestamps of the frames that are handed out.
#[derive(Default)]
struct Recorded(Vec<u32>);

impl PeerSink for Recorded {
    fn transmit(&mut self, _: LocalId, _: std::net::SocketAddr, _: &[u8]) {}
    fn event(&mut self, _: PeerEvent) {}
    fn recorded(&mut self, _: &RecordedStream, frame: RecordedFrame) {
        self.0.push(frame.timestamp_ticks as u32);
    }
}

#[test]
fn frames_that_wait_to_be_judged_are_kept_so_many() {
    let (at, mut outbox) = (arrival(), Outbox::default());
    let (kind, codec) = (MediaKind::Video, Codec::Vp8);
    let stream = RecordedStream { id: 0, ssrc: 1, kind, codec, track_id: None };
    let mut recorder = Recorder::new(stream, FrameAssembler::new(codec).unwrap());
    let mut ledger = StreamLedger::new(DEADLINE);
    ledger.set_codec(codec);
    ledger.keep_frames();
    let payload = |frame: u32| {
        let keyframe = if frame == 0 { 0x10 } else { 0x11 };
        [0x90, 0x80, 0x80 | (frame >> 8) as u8, frame as u8, keyframe, 1, 2, 3]
    };
    let frames = WAITING_FRAMES_MAX as u32 + 5;
    for frame in 0..frames {
        recorder.push(AssemblerPacket {
            sequence: (1 << 16) + u64::from(frame),
            timestamp: 3_000 * frame,
            marker: true,
            payload: &payload(frame),
        });
        recorder.follow(&mut ledger, &mut outbox);
    }
    for frame in 0..frames {
        ledger.media(MediaPacket {
            sequence: frame as u16,
            timestamp: 3_000 * frame,
            marker: true,
            payload: Some(&payload(frame)),
            dependency_descriptor: None,
            payload_bytes: 8,
            at,
            via: Via::Primary,
        });
        recorder.follow(&mut ledger, &mut outbox);
    }
    let mut recorded = Recorded::default();
    outbox.flush(at.instant, &mut recorded);
    assert_eq!((recorded.0.len(), recorded.0[0]), (WAITING_FRAMES_MAX, 5 * 3_000));
}
