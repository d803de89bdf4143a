//! What the accounting alone costs: ns a packet of sequence numbers, frames and their references,
//! latency, jitter and the search for the server's own frames, by codec.
//!
//! - `hot`: one stream, whose state stays in the near caches.
//! - `cold`: 2,000 streams, one packet each in turn, so that nothing of a stream is in the near
//!   caches when its packet comes. Payloads are shared, for the cost of reading them is not asked.
//!
//! Every packet is new and in order, as nearly all are; the built-in clips, whose frames carry
//! abs-capture-time on their first packet, in laps.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench may panic, and documents nothing")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use stampede_core::accounting::{
    MediaPacket, Stamp, StampSource, StreamLedger, Via, is_server_made,
};
use stampede_core::{Arrival, Codec};
use stampede_media::dependency_descriptor::{Descriptor, Mandatory, Structure};
use stampede_media::{MediaClip, builtin};

const COLD_STREAMS: usize = 2_000;
/// From one stream to the next, prime to their number: further than a prefetcher looks.
const STREAM_STEP: usize = 787;
const DEADLINE: Duration = Duration::from_millis(500);
const BASE_NS: u64 = 1 << 60;

struct Packet {
    frame: u64,
    ticks: u64,
    first: bool,
    marker: bool,
    payload: Arc<[u8]>,
    descriptor: Option<Vec<u8>>,
}

/// A clip's packets, for any number of streams in step.
struct Feed {
    codec: Codec,
    packets: Vec<Packet>,
    lap_ticks: u64,
    interval: Duration,
}

impl Feed {
    fn new(clip: &MediaClip, described: bool) -> Self {
        let mut packets = Vec::new();
        for (number, frame) in (0_u64..).zip(&clip.frames) {
            for (index, payload) in frame.packets.iter().enumerate() {
                let marker = index + 1 == frame.packets.len();
                let descriptor = described.then(|| {
                    let mandatory = Mandatory {
                        start_of_frame: index == 0,
                        end_of_frame: marker,
                        template_id: u8::from(!frame.keyframe),
                        frame_number: number as u16,
                    };
                    let structure = Structure::single_layer();
                    Descriptor::write(
                        mandatory,
                        (frame.keyframe && index == 0).then_some(&structure),
                    )
                });
                packets.push(Packet {
                    frame: number,
                    ticks: frame.timestamp_ticks,
                    first: index == 0,
                    marker: marker && clip.codec.is_video(),
                    payload: payload.clone(),
                    descriptor,
                });
            }
        }
        let interval = Duration::from_secs_f64(1.0 / clip.packet_rate());
        Self { codec: clip.codec, packets, lap_ticks: clip.duration_ticks, interval }
    }

    fn frames(&self) -> u64 {
        self.packets.last().map_or(0, |packet| packet.frame + 1)
    }
}

struct Streams<'a> {
    feed: &'a Feed,
    ledgers: Vec<StreamLedger>,
    start: Instant,
    /// Packets that every stream got; the first `next` in turn have one more.
    turn: usize,
    next: usize,
    samples: usize,
}

impl<'a> Streams<'a> {
    fn new(feed: &'a Feed, count: usize) -> Self {
        let ledger = || {
            let mut ledger = StreamLedger::new(DEADLINE);
            ledger.set_codec(feed.codec);
            ledger.set_same_clock(true);
            ledger
        };
        let ledgers = (0..count).map(|_| ledger()).collect();
        let mut streams =
            Self { feed, ledgers, start: Instant::now(), turn: 0, next: 0, samples: 0 };
        // What only the first frames do, and the growth of what grows.
        streams.receive(count as u64 * feed.packets.len().min(200) as u64);
        streams
    }

    fn receive(&mut self, packets: u64) {
        for _ in 0..packets {
            let feed = self.feed;
            let lap = (self.turn / feed.packets.len()) as u64;
            let packet = &feed.packets[self.turn % feed.packets.len()];
            let since = feed.interval * self.turn as u32;
            let at =
                Arrival { instant: self.start + since, unix_ns: BASE_NS + since.as_nanos() as u64 };
            let timestamp = (lap * feed.lap_ticks + packet.ticks) as u32;
            let place = self.next * STREAM_STEP % self.ledgers.len();
            let ledger = &mut self.ledgers[place];
            self.samples += receive(ledger, feed.codec, packet, self.turn as u16, timestamp, at);
            self.next += 1;
            if self.next == self.ledgers.len() {
                self.next = 0;
                self.turn += 1;
            }
        }
    }

    /// Everything was counted, and nothing was lost: the bench measures what it says.
    fn check(&mut self) {
        while self.next != 0 {
            self.receive(1);
        }
        let packets = self.turn as u64;
        for ledger in &self.ledgers {
            assert_eq!(ledger.packets().received, packets);
            let laps = packets / self.feed.packets.len() as u64;
            let frames = ledger.frames();
            assert!(frames.complete >= laps * self.feed.frames(), "{frames:?}");
            assert_eq!(frames.decodable, Some(frames.complete));
            assert_eq!(ledger.latency().measured(), frames.complete);
        }
        assert!(self.samples > 0);
    }
}

/// What a receiving peer does with an opened packet.
fn receive(
    ledger: &mut StreamLedger,
    codec: Codec,
    packet: &Packet,
    sequence: u16,
    timestamp: u32,
    at: Arrival,
) -> usize {
    let payload = black_box(&packet.payload[..]);
    if is_server_made(codec, payload) {
        ledger.server_made(sequence, at);
        return 0;
    }
    if packet.first {
        let unix_ns = at.unix_ns - 5_000_000;
        ledger.stamp(timestamp, Stamp { source: StampSource::AbsCaptureTime, unix_ns });
    }
    ledger.media(MediaPacket {
        sequence,
        timestamp,
        marker: packet.marker,
        payload: Some(payload),
        dependency_descriptor: packet.descriptor.as_deref(),
        payload_bytes: payload.len(),
        at,
        via: Via::Primary,
    });
    ledger.drain_samples().map(black_box).count()
}

fn accounting(criterion: &mut Criterion) {
    // The largest of VP8, as before there was more of the others.
    let video = |codec| {
        let clips = builtin::video(codec).unwrap();
        let height = if codec == Codec::Vp8 { 720 } else { 360 };
        clips.into_iter().find(|clip| clip.height == height).unwrap()
    };
    let feeds = [
        ("vp8", Feed::new(&video(Codec::Vp8), false)),
        ("vp9", Feed::new(&video(Codec::Vp9), false)),
        ("h264", Feed::new(&video(Codec::H264), false)),
        ("av1", Feed::new(&video(Codec::Av1), false)),
        ("av1_described", Feed::new(&video(Codec::Av1), true)),
        ("opus", Feed::new(&builtin::audio().unwrap(), false)),
    ];
    let mut group = criterion.benchmark_group("accounting");
    group.sample_size(10).warm_up_time(Duration::from_millis(200));
    group.measurement_time(Duration::from_secs(1)).throughput(Throughput::Elements(1));
    for (name, feed) in &feeds {
        for (order, count) in [("hot", 1), ("cold", COLD_STREAMS)] {
            let mut streams = Streams::new(feed, count);
            group.bench_function(BenchmarkId::new(*name, order), |bench| {
                bench.iter_custom(|packets| {
                    let begun = Instant::now();
                    streams.receive(packets);
                    begun.elapsed()
                });
            });
            streams.check();
        }
    }
    group.finish();
}

criterion_group!(benches, accounting);
criterion_main!(benches);
