//! Redundant audio with losses, against what was dropped: packet for packet, in virtual time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use stampede_media::Codec;
use stampede_sdp::Description;

use super::formats::Format;
use super::routes::Route;
use super::stream::Accepted;
use super::streams::Streams;
use crate::peer::candidates::LocalId;
use crate::peer::outbox::Outbox;
use crate::publish::{AudioFrames, AudioOptions};
use crate::watch::StreamCover;
use crate::{
    Arrival, MediaCounters, PacketCounters, PeerEvent, PeerSink, RecordedFrame, RecordedStream,
};

const OFFER: &str = include_str!("../../../tests/data/subscriber-offer-vp8-2.sdp");
/// The audio of that offer.
const SSRC: u32 = 3_151_829_842;
const FIRST: u16 = 65_500;
const TICKS: u32 = 960;
const FRAME: Duration = Duration::from_millis(20);
const DEADLINE: Duration = Duration::from_millis(500);

/// What a recording subscriber hands out.
#[derive(Default)]
struct Recorded(Vec<(u64, Vec<u8>)>);

impl PeerSink for Recorded {
    fn transmit(&mut self, _: LocalId, _: std::net::SocketAddr, _: &[u8]) {}
    fn event(&mut self, _: PeerEvent) {}
    fn recorded(&mut self, _: &RecordedStream, frame: RecordedFrame) {
        self.0.push((frame.timestamp_ticks, frame.data.to_vec()));
    }
}

struct Rig {
    start: Instant,
    frames: AudioFrames,
    streams: Streams,
    outbox: Outbox,
    route: Route,
    /// Of the next packet.
    sequence: u16,
}

impl Rig {
    fn new(options: AudioOptions) -> Self {
        let start = Instant::now();
        let (mut streams, mut outbox) = (Streams::new(DEADLINE, true), Outbox::default());
        streams.apply_offer(start, &Description::parse(OFFER).unwrap(), &[], &mut outbox);
        let route = streams.route(SSRC).unwrap();
        let frames = AudioFrames::new(options, 111);
        Self { start, frames, streams, outbox, route, sequence: FIRST }
    }

    fn at(&self, frame: u32) -> Arrival {
        let since = FRAME * frame;
        Arrival { instant: self.start + since, unix_ns: since.as_nanos() as u64 }
    }

    /// The publisher's next frame; its sequence number if a packet came of it, which is lost on the
    /// way if `lost`.
    fn frame(&mut self, number: u32, silent: bool, lost: bool) -> Option<u16> {
        let packet = self.frames.next(number * TICKS, &opus(number), silent)?;
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        if !lost {
            self.arrive(self.at(number), number, sequence, &packet.payload, packet.red);
        }
        Some(sequence)
    }

    fn receive(&mut self, number: u32, payload: &[u8], red: bool) {
        self.receive_at(number, number, payload, red);
    }

    /// As if no frame had been left out, so that a frame's number is that of its packet too.
    fn receive_at(&mut self, at: u32, number: u32, payload: &[u8], red: bool) {
        let sequence = FIRST.wrapping_add(number as u16);
        self.arrive(self.at(at), number, sequence, payload, red);
    }

    fn arrive(&mut self, at: Arrival, number: u32, sequence: u16, payload: &[u8], red: bool) {
        let wire = if red { 63 } else { 111 };
        let format = Format { wire, media: 111, red, codec: Codec::Opus, clock_rate: 48_000 };
        let packet = Accepted {
            sequence,
            timestamp: number * TICKS,
            marker: false,
            format,
            payload,
            captured_unix_ns: None,
            dependency_descriptor: None,
        };
        self.streams.expire_gaps(at.instant, &mut self.outbox);
        self.streams.accept(self.route, packet, at, &mut self.outbox);
    }

    fn cover(&mut self) -> StreamCover {
        let mut all = Vec::new();
        self.streams.covers(false, &mut |cover| all.push(cover));
        all.into_iter().find(|cover| cover.kind == crate::MediaKind::Audio).unwrap()
    }

    /// What was counted in the end, and what was recorded.
    fn finish(mut self, frames: u32) -> (MediaCounters, Recorded) {
        let end = self.at(frames).instant + 2 * DEADLINE;
        self.streams.expire_gaps(end, &mut self.outbox);
        self.streams.finish(end, &mut self.outbox);
        let mut recorded = Recorded::default();
        self.outbox.flush(end, &mut recorded);
        (self.streams.counters().1, recorded)
    }
}

fn opus(number: u32) -> Arc<[u8]> {
    Arc::from([&[0xfc][..], &number.to_be_bytes()].concat())
}

/// Speech of as many frames, of which these are lost; the last one is not.
fn with_losses(lost: &[bool]) -> (MediaCounters, Recorded, Vec<(u64, u64)>) {
    let mut rig = Rig::new(AudioOptions { red: true, dtx: true });
    for (number, lost) in (0..).zip(lost) {
        rig.frame(number, false, *lost);
    }
    let cover = rig.cover();
    let ms = |at: Instant| (at - rig.start).as_millis() as u64;
    let spans = cover.ended.iter().chain(&cover.open).map(|it| (ms(it.from), ms(it.until)));
    let spans = spans.collect();
    let (counted, recorded) = rig.finish(lost.len() as u32);
    (counted, recorded, spans)
}

/// What the definitions say of losses: a packet is repaired if the next one came.
fn reference(lost: &[bool]) -> PacketCounters {
    let first = lost.iter().position(|lost| !lost).unwrap_or(0);
    let after = &lost[first..];
    let missing = after.iter().filter(|lost| **lost).count() as u64;
    let repaired_by_red = after.windows(2).filter(|pair| pair[0] && !pair[1]).count() as u64;
    PacketCounters {
        expected: after.len() as u64,
        received: after.len() as u64 - missing,
        missing,
        repaired_by_red,
        unrecovered: missing - repaired_by_red,
        ..PacketCounters::default()
    }
}

#[track_caller]
fn assert_as_reference(lost: &[bool]) -> (MediaCounters, Recorded, Vec<(u64, u64)>) {
    let (counted, recorded, spans) = with_losses(lost);
    let packets = PacketCounters { bytes: 0, ..counted.packets };
    assert_eq!(packets, reference(lost));
    let playable = packets.received + packets.repaired_by_red;
    assert_eq!(counted.frames.decodable, Some(playable));
    assert_eq!(counted.frames.dropped, Some(packets.unrecovered));
    // Plain Opus, in its order, also what redundancy brought.
    assert_eq!(recorded.0.len() as u64, playable);
    assert!(recorded.0.windows(2).all(|pair| pair[0].0 < pair[1].0));
    let number = |data: &[u8]| u64::from(u32::from_be_bytes(*data.last_chunk().unwrap()));
    if let Some((first_ticks, first)) = recorded.0.first() {
        for (ticks, data) in &recorded.0 {
            let since = (number(data) - number(first)) * u64::from(TICKS);
            assert_eq!((ticks - first_ticks, data.len()), (since, 5));
        }
    }
    (counted, recorded, spans)
}

#[test]
fn single_losses_are_repaired_and_nothing_is_missed() {
    let lost: Vec<bool> = (0..2_000).map(|number| number % 7 == 3).collect();
    let (counted, _, spans) = assert_as_reference(&lost);
    assert_eq!((counted.packets.missing, counted.packets.unrecovered), (286, 0));
    assert_eq!(spans.len(), 1, "no gap in what was heard");
}

#[test]
fn of_two_in_a_row_the_second_is_repaired() {
    let lost: Vec<bool> = (0..2_000).map(|number| matches!(number % 50, 20 | 21)).collect();
    let (counted, ..) = assert_as_reference(&lost);
    let packets = counted.packets;
    assert_eq!((packets.missing, packets.repaired_by_red, packets.unrecovered), (80, 40, 40));
}

#[test]
fn of_two_percent_lost_at_random_nearly_all_is_repaired() {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut lost: Vec<bool> = (0..20_000).map(|_| rng.u32(..100) < 2).collect();
    lost.push(false);
    let (counted, ..) = assert_as_reference(&lost);
    let packets = counted.packets;
    assert!(packets.missing > 300, "{packets:?}");
    assert!(packets.repaired_by_red as f64 > 0.95 * packets.missing as f64, "{packets:?}");
}

#[test]
fn what_was_only_overtaken_is_no_repair_of_redundancy() {
    let mut rig = Rig::new(AudioOptions { red: true, dtx: false });
    let made = |number: u32| rig.frames.next(number * TICKS, &opus(number), false);
    let packets: Vec<_> = (0..100).map(made).map(Option::unwrap).collect();
    // Each tenth comes 60 ms late, one of them after its deadline; another one comes twice.
    let late = |number| match number {
        45 => 40,
        _ if number % 10 == 5 => 3,
        _ => 0,
    };
    let mut arrivals: Vec<u32> = (0..100).chain([58]).collect();
    arrivals.sort_by_key(|number| number + late(*number));
    for number in arrivals {
        let packet = &packets[number as usize];
        rig.receive_at(number + late(number), number, &packet.payload, packet.red);
    }
    let (counted, recorded) = rig.finish(100);
    let packets = PacketCounters { bytes: 0, ..counted.packets };
    let wanted = PacketCounters {
        expected: 100,
        received: 99,
        missing: 10,
        repaired: 9,
        reordered: 9,
        // Its sound was there in time; it itself came when nobody could play it.
        repaired_by_red: 1,
        duplicate: 2,
        ..PacketCounters::default()
    };
    assert_eq!(packets, wanted);
    assert_eq!((counted.frames.decodable, recorded.0.len()), (Some(100), 100));
}

#[test]
fn an_older_payload_in_the_place_of_the_one_before_repairs_nothing() {
    // A livekit-server that makes RED of what it has puts the packet before last in front where it
    // lacks the last one.
    let mut rig = Rig::new(AudioOptions::default());
    for number in 0..10 {
        rig.frame(number, false, false);
    }
    let then = opus(9);
    let made = stampede_media::red::wrap(111, &opus(11), Some((2 * TICKS, &then))).unwrap();
    rig.receive(11, &made, true);
    let (counted, _) = rig.finish(11);
    let PacketCounters { missing, repaired_by_red, unrecovered, .. } = counted.packets;
    assert_eq!((missing, repaired_by_red, unrecovered), (1, 0, 1));
}

#[test]
fn what_cannot_be_taken_apart_is_counted_and_missing() {
    let mut rig = Rig::new(AudioOptions::default());
    rig.frame(0, false, false);
    rig.receive(1, &[0xef, 0x0f, 0, 9, 0x6f, 1], true);
    rig.sequence = FIRST.wrapping_add(2);
    rig.frame(2, false, false);
    let (counted, _) = rig.finish(2);
    let PacketCounters { expected, received, unrecovered, red_malformed, .. } = counted.packets;
    assert_eq!((expected, received, unrecovered, red_malformed), (3, 2, 1, 1));
}

#[test]
fn silence_that_is_left_out_is_play_and_its_end_is_not() {
    let mut rig = Rig::new(AudioOptions { red: true, dtx: true });
    let mut last = 0;
    // A second of speech, ten of silence, a second of speech, and silence of which nothing comes.
    for number in 0..600 {
        let silent = (50..550).contains(&number);
        if rig.frame(number, silent, false).is_some() {
            last = number;
        }
    }
    for number in 600..640 {
        let silent = rig.frame(number, true, number > 615);
        last = if silent.is_some() && number <= 615 { number } else { last };
    }
    let cover = rig.cover();
    assert_eq!(cover.ended, []);
    let open = cover.open.unwrap();
    assert_eq!(open.from, rig.start);
    // Up to when the next refresh was due, and no longer.
    assert_eq!(open.until, rig.at(last).instant + crate::watch::PAUSE_COVER);
    let jitter = rig.streams.jitter(rig.route).unwrap();
    assert!(jitter < Duration::from_millis(1), "{jitter:?}");
    let (counted, recorded) = rig.finish(640);
    assert_eq!(counted.packets.missing, 0);
    assert_eq!(counted.packets.received, recorded.0.len() as u64);
    // 420 ms of silence are two packets.
    assert!((120..190).contains(&counted.packets.received), "{:?}", counted.packets);
}

proptest! {
    #[test]
    fn any_losses_count_as_the_definitions_say(
        mut lost in proptest::collection::vec(proptest::bool::weighted(0.3), 2..300)
    ) {
        lost.push(false);
        assert_as_reference(&lost);
    }
}
