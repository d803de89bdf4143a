//! What receiving costs a subscriber: ns a packet of opening, accounting and feedback, without
//! sockets. By number of peers, by order of arrival, and by receive path.
//!
//! - `cold`: one packet a peer in turn, drained after each: nothing of a peer is in the near
//!   caches when its packet comes.
//! - `runs`: seven packets a peer at a time, drained after them, as a worker does that gathers a
//!   few milliseconds.
//!
//! Each packet can be received once, so the packets of a sample are sealed before it, untimed, by
//! plain str0m senders. They are read from memory that no cache holds, which real ones are not:
//! the kernel has just written them.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench may panic, and documents nothing")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use stampede_core::{
    Arrival, DtlsIdentity, Peer, PeerEvent, PeerOptions, PeerSink, ReceivePath, RecordedFrame,
    RecordedStream,
};
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpWrite, Ssrc};
use str0m::{Candidate, Input, Output, Rtc};

const PAYLOAD_BYTES: usize = 1_000;
const RUN: usize = 7;
/// Most packets sealed at a time.
const CHUNK_MAX: usize = 28_000;

#[derive(Default)]
struct Sink {
    datagrams: Vec<Vec<u8>>,
    connected: bool,
}

impl PeerSink for Sink {
    fn transmit(&mut self, _: SocketAddr, payload: &[u8]) {
        self.datagrams.push(payload.to_vec());
    }

    fn event(&mut self, event: PeerEvent) {
        self.connected |= event == PeerEvent::Connected;
    }

    fn recorded(&mut self, _: &RecordedStream, _: RecordedFrame) {}
}

struct Sender {
    rtc: Rtc,
    ssrc: Ssrc,
    payload_type: Pt,
    sequence: u64,
}

fn peer_addr() -> SocketAddr {
    "127.0.0.1:40001".parse().unwrap()
}

fn sender_addr() -> SocketAddr {
    "127.0.0.1:7882".parse().unwrap()
}

fn poll(rtc: &mut Rtc) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        match rtc.poll_output().unwrap() {
            Output::Timeout(_) => return out,
            Output::Transmit(transmit) => out.push(transmit.contents.to_vec()),
            Output::Event(_) => {}
        }
    }
}

/// A peer that a sender is connected to.
fn connect(start: Instant, options: &PeerOptions) -> (Peer, Sender) {
    let mut peer = Peer::subscriber(start, peer_addr(), options, false).unwrap();
    let mut rtc = Rtc::builder()
        .set_crypto_provider(Arc::new(stampede_core::crypto::provider()))
        .set_rtp_mode(true)
        .build(start);
    rtc.add_local_candidate(Candidate::host(sender_addr(), "udp").unwrap()).unwrap();
    let mut changes = rtc.sdp_api();
    let mid = changes.add_media(MediaKind::Video, Direction::SendOnly, None, None, None);
    let (offer, pending) = changes.apply().unwrap();
    let answer = peer.accept_offer(start, &offer.to_sdp_string(), &[]).unwrap();
    rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&answer).unwrap()).unwrap();
    let (mut now, mut sink) = (start, Sink::default());
    while !sink.connected {
        assert!(now < start + Duration::from_secs(10), "not connected");
        now += Duration::from_millis(5);
        rtc.handle_input(Input::Timeout(now)).unwrap();
        peer.handle_timeout(now);
        for _ in 0..8 {
            for bytes in poll(&mut rtc) {
                peer.handle_datagram(arrival(now, start), sender_addr(), &bytes);
            }
            peer.drain(now, &mut sink);
            for bytes in sink.datagrams.drain(..) {
                let receive =
                    Receive::new(Protocol::Udp, peer_addr(), sender_addr(), &bytes).unwrap();
                rtc.handle_input(Input::Receive(now, receive)).unwrap();
            }
        }
    }
    let vp8 = rtc.codec_config().params().iter();
    let vp8 = vp8.filter(|p| p.spec().codec == str0m::format::Codec::Vp8);
    let payload_type = vp8.map(|p| p.pt()).next().unwrap();
    let mut direct = rtc.direct_api();
    let stream = direct.stream_tx_by_mid(mid, None).unwrap();
    stream.set_rtx_cache(1, Duration::from_millis(1), None);
    let ssrc = stream.ssrc();
    (peer, Sender { rtc, ssrc, payload_type, sequence: 1 })
}

fn arrival(now: Instant, start: Instant) -> Arrival {
    Arrival { instant: now, unix_ns: 1 << 60 | (now - start).as_nanos() as u64 }
}

impl Sender {
    /// One frame of seven packets: 27 frames a second are 187 packets.
    fn seal(&mut self, now: Instant, frame: u64, payloads: &[Arc<[u8]>; 2]) -> Vec<Vec<u8>> {
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
        let mut out = poll(&mut self.rtc);
        let mut direct = self.rtc.direct_api();
        let stream = direct.stream_tx(&self.ssrc).unwrap();
        for part in 0..RUN {
            let payload = payloads[usize::from(part > 0)].clone();
            let timestamp = (frame * 3_333) as u32;
            let rtp =
                RtpWrite::new(self.payload_type, self.sequence.into(), timestamp, now, payload);
            stream.write_rtp(rtp.marker(part + 1 == RUN));
            self.sequence += 1;
        }
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
        out.extend(poll(&mut self.rtc));
        out.retain(|datagram| datagram.len() > PAYLOAD_BYTES);
        assert_eq!(out.len(), RUN);
        out
    }
}

/// First and further packets of a VP8 frame, the first one of all a keyframe.
fn payloads(frame: u64) -> [Arc<[u8]>; 2] {
    let key = if frame == 1 { 0x10 } else { 0x11 };
    [0x90, 0x80].map(|start| {
        let (high, low) = ((frame >> 8) as u8 | 0x80, frame as u8);
        let mut payload = vec![start, 0xe0, high, low, low, 0, key, 0, 0, 0x9d, 0x01, 0x2a];
        payload.resize(PAYLOAD_BYTES, 0x5a);
        payload.into()
    })
}

struct Crowd {
    start: Instant,
    frame: u64,
    pairs: Vec<(Peer, Sender)>,
    sink: Sink,
}

impl Crowd {
    fn new(peers: usize, options: &PeerOptions) -> Self {
        let start = Instant::now();
        let pairs = (0..peers).map(|_| connect(start, options)).collect();
        Self { start: start + Duration::from_secs(11), frame: 0, pairs, sink: Sink::default() }
    }

    /// How long at least `packets` packets take; scaled to `packets`.
    fn receive(&mut self, packets: u64, in_runs: bool) -> Duration {
        let (mut taken, mut received) = (Duration::ZERO, 0_u64);
        while received < packets {
            let frames = CHUNK_MAX.div_ceil(self.pairs.len() * RUN).max(1);
            for _ in 0..frames {
                self.frame += 1;
                let now = self.start + Duration::from_millis(37) * self.frame as u32;
                let (frame, payloads) = (self.frame, payloads(self.frame));
                let senders = self.pairs.iter_mut().map(|(_, sender)| sender);
                let sealed: Vec<_> =
                    senders.map(|sender| sender.seal(now, frame, &payloads)).collect();
                let at = arrival(now, self.start);
                let begun = Instant::now();
                self.receive_frame(at, &sealed, in_runs);
                taken += begun.elapsed();
                received += (self.pairs.len() * RUN) as u64;
                self.sink.datagrams.clear();
            }
        }
        taken.mul_f64(packets as f64 / received as f64)
    }

    fn receive_frame(&mut self, at: Arrival, sealed: &[Vec<Vec<u8>>], in_runs: bool) {
        if in_runs {
            for ((peer, _), datagrams) in self.pairs.iter_mut().zip(sealed) {
                for datagram in datagrams {
                    peer.handle_datagram(at, sender_addr(), datagram);
                }
                peer.drain(at.instant, &mut self.sink);
            }
            return;
        }
        for part in 0..RUN {
            for ((peer, _), datagrams) in self.pairs.iter_mut().zip(sealed) {
                peer.handle_datagram(at, sender_addr(), &datagrams[part]);
                peer.drain(at.instant, &mut self.sink);
            }
        }
    }

    /// Nothing was refused: the bench measures what it says.
    fn check(&self) {
        for (peer, sender) in &self.pairs {
            let counters = peer.counters();
            assert_eq!(counters.video.packets.received, sender.sequence - 1);
            assert_eq!(counters.video.frames.complete, counters.video.frames.received);
            assert_eq!(counters.transport.rejected, 0);
        }
    }
}

fn peer_receive(criterion: &mut Criterion) {
    let identity = DtlsIdentity::generate().unwrap();
    let mut group = criterion.benchmark_group("peer_receive");
    group.sample_size(10).warm_up_time(Duration::from_millis(300));
    group.measurement_time(Duration::from_secs(1)).throughput(Throughput::Elements(1));
    for (path, name) in [(ReceivePath::Fast, "fast"), (ReceivePath::Str0m, "str0m")] {
        for peers in [100, 1_000, 2_000] {
            let options = PeerOptions { receive_path: path, ..PeerOptions::new(identity.clone()) };
            let mut crowd = Crowd::new(peers, &options);
            for (order, in_runs) in [("cold", false), ("runs", true)] {
                group.bench_function(BenchmarkId::new(format!("{name}/{order}"), peers), |bench| {
                    bench.iter_custom(|packets| crowd.receive(packets, in_runs));
                });
            }
            crowd.check();
        }
    }
    group.finish();
}

criterion_group!(benches, peer_receive);
criterion_main!(benches);
