//! How many instructions does the packet path take, and does it stay so?
//!
//! Counted by callgrind, so repeatable where times are not; each benchmark fails above its bound,
//! which CI checks. A frame is seven packets of 1,000 bytes, as 720p has; the frames before the
//! counted ones settle what only the first packets of a stream do. Callgrind hides AVX-512 from
//! the program, so encryption takes more instructions here than on a machine that has it.
//!
//! `receive` is of a peer that tells nothing of congestion, `receive_estimating` and
//! `receive_reporting` of one that does as Chrome, by its own estimates (REMB) and by arrival times
//! (TWCC): more is sent then, about every 220 and 62 ms.
//!
//! `receive_meeting` is of a peer that gets a video and a voice of each of 1, 15 or 60 others, a packet of
//! both at a time, and is asked for its figures once a second: a visit costs by what came, not by how
//! many streams there are.
//!
//! `send_media` is a turn of the embedded SFU's worker with one frame, a packet sent: numbers,
//! header, encryption into the buffer of the send queue, and the ledger; `send_small` the same with
//! frames of one packet of 800 bytes, as 180p has. `hear_estimates` is what comes back: an estimate
//! with a receiver report. `join` is the worker's part of a subscriber's join: description, ICE, DTLS
//! and keys. The kernel is in none.
//!
//! `publisher_send` is what a publisher takes for a packet, from the timer of a frame to the datagram
//! in the memory from which it is sent: numbers, header, encryption, what is kept for
//! retransmission, and a sender report each second.
//!
//! `ring_drain` is what a datagram takes on its way from the packet ring to the worker's batch, in runs of
//! seven to each of 500 sockets in turn.
//!
//! Needs valgrind and `cargo install gungraun-runner` in the version of Cargo.lock.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench may panic, and documents nothing")]
#![allow(unused_qualifications, reason = "gungraun's macros write them")]

mod publishing;
mod receiving;

use std::hint::black_box;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use gungraun::prelude::*;
use gungraun::{Callgrind, EntryPoint, EventKind};
use publishing::Publisher;
use receiving::{
    Meeting, PAYLOAD_BYTES, Pair, RUN, Sender, Sink, Stamps, TICKS_PER_S, Visit, arrival, connect,
    payloads, sender_addr,
};
use stampede_core::{Arrival, DtlsIdentity, Peer, PeerOptions, Scratch};
use stampede_sfu::bench_support::FanOut;
use stampede_udp::bench_support::FilledRing;

/// Frames before the counted ones: seven seconds, after which estimates are sent.
const FRAMES_SETTLING: u64 = 190;
/// Frames counted.
const FRAMES: u64 = 100;
const PACKETS: u64 = FRAMES * RUN as u64;

/// A peer and the sealed frames that it gets.
struct Receiving {
    peer: Peer,
    sender: Sender,
    stamps: Stamps,
    sink: Sink,
    scratch: Scratch,
    frames: Vec<(Arrival, Vec<Vec<u8>>)>,
}

impl Receiving {
    fn new(stamps: Stamps) -> Self {
        let options = PeerOptions::new(DtlsIdentity::generate().unwrap());
        let start = Instant::now();
        let Pair { peer, mut sender, .. } = connect(start, &options, stamps);
        let begin = start + Duration::from_secs(11);
        let frames = (1..=FRAMES_SETTLING + FRAMES).map(|frame| {
            let now = begin + Duration::from_millis(37) * frame as u32;
            (arrival(now, begin), sender.seal(now, frame, &payloads(frame)))
        });
        let mut frames: Vec<_> = frames.collect();
        let counted = frames.split_off(FRAMES_SETTLING as usize);
        let mut new = Self {
            peer,
            sender,
            stamps,
            sink: Sink::default(),
            scratch: Scratch::default(),
            frames,
        };
        new.receive();
        new.frames = counted;
        new
    }

    fn receive(&mut self) {
        for (at, datagrams) in &self.frames {
            for datagram in datagrams {
                self.peer.handle_datagram(*at, sender_addr(), datagram, &mut self.scratch);
            }
            self.peer.drain(at.instant, &mut self.sink);
        }
    }

    /// Nothing was refused: what is counted is what the name says.
    fn check(self) {
        let counters = self.peer.counters();
        assert_eq!(counters.video.packets.received, self.sender.sequence - 1);
        assert_eq!(counters.video.frames.complete, counters.video.frames.received);
        assert_eq!(counters.transport.rejected, 0);
        let told = (counters.video.feedback.remb_sent > 0, counters.video.feedback.twcc_sent > 0);
        let expected = match self.stamps {
            Stamps::None => (false, false),
            Stamps::SendTimes => (true, false),
            Stamps::Numbers => (false, true),
        };
        assert_eq!(told, expected);
    }
}

/// Seconds before the counted ones.
const SECONDS_SETTLING: u64 = 2;

/// A peer in a meeting, and what it is to receive.
struct InMeeting {
    meeting: Meeting,
    visits: Vec<Visit>,
}

impl InMeeting {
    fn new(streams: usize, seconds: u64) -> Self {
        let options = PeerOptions::new(DtlsIdentity::generate().unwrap());
        let mut meeting = Meeting::new(streams, &options);
        let settling = meeting.seal(SECONDS_SETTLING * TICKS_PER_S);
        settling.iter().for_each(|visit| meeting.receive(visit));
        let visits = meeting.seal(seconds * TICKS_PER_S);
        Self { meeting, visits }
    }

    fn receive(&mut self) {
        self.visits.iter().for_each(|visit| self.meeting.receive(visit));
    }

    fn check(self) {
        self.meeting.check();
    }
}

/// Instructions of a packet in a meeting: one bound whatever the number of streams, for with 120 of them
/// a packet costs what it does with 2. The dev profile asserts at each visit that no stream was forgotten.
const fn meeting(streams: u64) -> u64 {
    bound(4_050, 5_200 + 20 * streams)
}

/// Packets of a meeting.
const fn spoken(streams: u64, seconds: u64) -> u64 {
    streams * seconds * TICKS_PER_S
}

/// Frames that a publisher sends before the counted ones: more than are kept for retransmission.
const FRAMES_SENT_SETTLING: u64 = 90;
/// Subscribers that the SFU sends to.
const SUBSCRIBERS: u16 = 50;
/// Frames before the counted ones, which the subscribers open to see that they can.
const FRAMES_FORWARDED_SETTLING: u64 = 5;
/// Frames counted.
const FRAMES_FORWARDED: u64 = 20;
const FRAME_TIME: Duration = Duration::from_millis(37);
const PACKETS_SENT: u64 = FRAMES_FORWARDED * RUN as u64 * SUBSCRIBERS as u64;
/// Frames before estimates come: after a second it is known what the track takes.
const FRAMES_MEASURED: u64 = 40;
/// Estimates that each of the subscribers sends.
const ESTIMATES: u64 = 20;
/// Payload of a frame of 180p.
const SMALL_BYTES: usize = 800;
/// Subscribers whose join is counted.
const JOINS: u16 = 11;
const RING_SOCKETS: u16 = 500;
/// Datagrams that are handed out at a time.
const BATCH: usize = 256;
/// What the first of them waits for: the crypto library proves itself once a process.
const LIBRARY_PROOF: u64 = 11_600_000;

/// A worker of the embedded SFU, its subscribers, and frames that wait to be sent to them.
struct Sending {
    room: FanOut,
    parts: usize,
    bytes: usize,
}

impl Sending {
    fn new(subscribers: u16) -> Self {
        Self::of(subscribers, RUN, PAYLOAD_BYTES)
    }

    /// Frames of one small packet.
    fn small(subscribers: u16) -> Self {
        Self::of(subscribers, 1, SMALL_BYTES)
    }

    fn of(subscribers: u16, parts: usize, bytes: usize) -> Self {
        let mut new = Self { room: FanOut::new(subscribers), parts, bytes };
        new.publish(1..=FRAMES_FORWARDED_SETTLING);
        new.forward();
        new.room.hear();
        new.publish(FRAMES_FORWARDED_SETTLING + 1..=FRAMES_FORWARDED_SETTLING + FRAMES_FORWARDED);
        new
    }

    /// One whose subscribers have told what they estimate, which is still to be heard.
    fn told(subscribers: u16) -> Self {
        let room = FanOut::new(subscribers);
        let mut new = Self { room, parts: RUN, bytes: PAYLOAD_BYTES };
        new.publish(1..=FRAMES_MEASURED);
        new.forward();
        new.room.hear();
        new.room.tell(ESTIMATES);
        new
    }

    fn publish(&mut self, frames: RangeInclusive<u64>) {
        for frame in frames {
            let [first, further] = payloads(frame).map(|payload| payload[..self.bytes].into());
            let mut parts = vec![further; self.parts];
            parts[0] = first;
            self.room.publish(&parts, frame as u32, FRAME_TIME);
        }
    }

    fn forward(&mut self) {
        while self.room.forward() {}
    }

    /// Everybody was sent everything, and was heard.
    fn check(self) {
        self.room.check();
    }
}

/// A publisher, and how many frames it is to send.
struct Publishing {
    publisher: Publisher,
    sink: publishing::Sink,
    frames: u64,
}

impl Publishing {
    fn new(frames: u64) -> Self {
        let start = Instant::now();
        let (options, clip) = (publishing::options(), publishing::clip());
        let publisher = Publisher::connect(start, &options, clip, Duration::ZERO);
        let mut new = Self { publisher, sink: publishing::sink(), frames: FRAMES_SENT_SETTLING };
        new.send();
        new.sink.packets = 0;
        new.frames = frames;
        new
    }

    fn send(&mut self) {
        while self.sink.packets < self.frames * publishing::RUN {
            self.publisher.fire(&mut self.sink);
        }
    }

    /// Everything left.
    fn check(self) {
        assert_eq!(self.sink.packets, self.frames * publishing::RUN);
        assert!(self.publisher.frames_sent() >= FRAMES_SENT_SETTLING + self.frames);
    }
}

/// A packet ring with a frame for each of these sockets.
fn filled_ring(sockets: u16) -> FilledRing {
    FilledRing::new(sockets, sockets.into(), RUN, PAYLOAD_BYTES).unwrap()
}

/// A bound of release code, and of the dev profile's, in which CI counts so that nothing is built for it.
/// Each is ten percent above what was counted when it was set.
const fn bound(release: u64, dev: u64) -> u64 {
    if cfg!(debug_assertions) { dev } else { release }
}

fn at_most(instructions_per_packet: u64, packets: u64) -> LibraryBenchmarkConfig {
    let mut callgrind = Callgrind::default();
    callgrind.hard_limits([(EventKind::Ir, instructions_per_packet * packets)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

#[library_benchmark(config = at_most(bound(5_700, 6_580), PACKETS))]
#[bench::frames_of_seven(args = (Stamps::None,), setup = Receiving::new, teardown = Receiving::check)]
fn receive(mut receiving: Receiving) -> Receiving {
    receiving.receive();
    black_box(receiving)
}

#[library_benchmark(config = at_most(bound(6_150, 7_100), PACKETS))]
#[bench::frames_of_seven(
    args = (Stamps::SendTimes,), setup = Receiving::new, teardown = Receiving::check
)]
fn receive_estimating(mut receiving: Receiving) -> Receiving {
    receiving.receive();
    black_box(receiving)
}

#[library_benchmark(config = at_most(bound(6_350, 7_430), PACKETS))]
#[bench::frames_of_seven(
    args = (Stamps::Numbers,), setup = Receiving::new, teardown = Receiving::check
)]
fn receive_reporting(mut receiving: Receiving) -> Receiving {
    receiving.receive();
    black_box(receiving)
}

#[library_benchmark]
#[bench::of_2(
    config = at_most(meeting(2), spoken(2, 20)),
    args = (2, 20), setup = InMeeting::new, teardown = InMeeting::check
)]
#[bench::of_30(
    config = at_most(meeting(30), spoken(30, 4)),
    args = (30, 4), setup = InMeeting::new, teardown = InMeeting::check
)]
#[bench::of_120(
    config = at_most(meeting(120), spoken(120, 2)),
    args = (120, 2), setup = InMeeting::new, teardown = InMeeting::check
)]
fn receive_meeting(mut meeting: InMeeting) -> InMeeting {
    meeting.receive();
    black_box(meeting)
}

#[library_benchmark(config = at_most(bound(4_930, 5_580), PACKETS_SENT))]
#[bench::to_fifty(args = (SUBSCRIBERS,), setup = Sending::new, teardown = Sending::check)]
fn send_media(mut sending: Sending) -> Sending {
    sending.forward();
    black_box(sending)
}

#[library_benchmark(config = at_most(bound(4_600, 5_520), PACKETS_SENT / RUN as u64))]
#[bench::to_fifty(args = (SUBSCRIBERS,), setup = Sending::small, teardown = Sending::check)]
fn send_small(mut sending: Sending) -> Sending {
    sending.forward();
    black_box(sending)
}

#[library_benchmark(config = at_most(bound(4_000, 5_860), ESTIMATES * SUBSCRIBERS as u64))]
#[bench::of_fifty(args = (SUBSCRIBERS,), setup = Sending::told, teardown = Sending::check)]
fn hear_estimates(mut sending: Sending) -> Sending {
    sending.room.listen();
    black_box(sending)
}

/// The same bound, of what the worker does alone and not its clients.
fn at_worker(instructions: u64) -> LibraryBenchmarkConfig {
    let mut callgrind = Callgrind::default();
    callgrind.entry_point(EntryPoint::Custom("stampede_sfu::bench_support::worker_*".to_owned()));
    callgrind.hard_limits([(EventKind::Ir, instructions)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

#[library_benchmark(config = at_worker(LIBRARY_PROOF + 4_750_000 * JOINS as u64))]
#[bench::of_eleven(args = (JOINS,))]
fn join(subscribers: u16) -> FanOut {
    FanOut::new(black_box(subscribers))
}

#[library_benchmark(config = at_most(bound(6_300, 7_090), PACKETS))]
#[bench::frames_of_seven(
    args = (FRAMES,), setup = Publishing::new, teardown = Publishing::check
)]
fn publisher_send(mut publishing: Publishing) -> Publishing {
    publishing.send();
    black_box(publishing)
}

library_benchmark_group!(
    name = receiving_peer,
    benchmarks = [receive, receive_estimating, receive_reporting, receive_meeting]
);
library_benchmark_group!(
    name = sending_sfu,
    benchmarks = [send_media, send_small, hear_estimates, join]
);
#[library_benchmark(config = at_most(bound(83, 153), RUN as u64 * RING_SOCKETS as u64))]
#[bench::runs_of_seven(args = (RING_SOCKETS,), setup = filled_ring)]
fn ring_drain(mut ring: FilledRing) -> FilledRing {
    let bytes = ring.drain(BATCH);
    assert_eq!(bytes, RUN * PAYLOAD_BYTES * usize::from(RING_SOCKETS));
    black_box(ring)
}

library_benchmark_group!(name = packet_ring, benchmarks = [ring_drain]);
library_benchmark_group!(name = publishing_peer, benchmarks = [publisher_send]);

gungraun::main!(
    library_benchmark_groups = receiving_peer,
    publishing_peer,
    sending_sfu,
    packet_ring
);
