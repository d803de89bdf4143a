//! A receiving peer and the plain str0m sender it is connected to, without sockets.

#![allow(dead_code, unused_imports, reason = "not every bench uses all of it")]

mod meeting;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use meeting::{Meeting, TICKS_PER_S, Visit};
use stampede_core::{
    Arrival, Peer, PeerEvent, PeerOptions, PeerSink, RecordedFrame, RecordedStream, Scratch,
};
use str0m::change::SdpAnswer;
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{Extension, ExtensionMap, RtpWrite, Ssrc};
use str0m::{Candidate, Input, Output, Rtc};

pub(crate) const PAYLOAD_BYTES: usize = 1_000;
/// Packets of a frame.
pub(crate) const RUN: usize = 7;

#[derive(Default)]
pub(crate) struct Sink {
    pub(crate) datagrams: Vec<Vec<u8>>,
    pub(crate) connected: bool,
}

impl PeerSink for Sink {
    fn transmit(&mut self, _: stampede_core::LocalId, _: SocketAddr, payload: &[u8]) {
        self.datagrams.push(payload.to_vec());
    }

    fn event(&mut self, event: PeerEvent) {
        self.connected |= event == PeerEvent::Connected;
    }

    fn recorded(&mut self, _: &RecordedStream, _: RecordedFrame) {}
}

pub(crate) struct Sender {
    pub(crate) rtc: Rtc,
    ssrc: Ssrc,
    payload_type: Pt,
    pub(crate) sequence: u64,
}

fn peer_addr() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 40_001))
}

pub(crate) fn sender_addr() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 7_882))
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

/// A peer and the sender it is connected to.
pub(crate) struct Pair {
    pub(crate) peer: Peer,
    pub(crate) sender: Sender,
    /// What the peer's part took.
    pub(crate) peer_time: Duration,
}

/// Adds what `work` takes to `sum`.
fn timed<T>(sum: &mut Duration, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    *sum += begun.elapsed();
    done
}

/// What a sender stamps its packets with, by which it asks for feedback.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stamps {
    /// Nothing: none is asked for.
    None,
    /// When it was sent: the peer is to tell what it estimates (REMB).
    SendTimes,
    /// A number of the whole transport: the peer is to tell of arrivals (TWCC).
    Numbers,
}

impl Stamps {
    fn extensions(self) -> ExtensionMap {
        let mut map = ExtensionMap::empty();
        match self {
            Self::None => {}
            Self::SendTimes => map.set(2, Extension::AbsoluteSendTime),
            Self::Numbers => map.set(3, Extension::TransportSequenceNumber),
        }
        map
    }
}

/// Connects a peer and a sender of one video.
pub(crate) fn connect(start: Instant, options: &PeerOptions, stamps: Stamps) -> Pair {
    let (peer, rtc, mids, peer_time) = establish(start, options, stamps, &[MediaKind::Video]);
    Pair { peer, sender: Sender::new(rtc, mids[0]), peer_time }
}

/// Connects a peer and a str0m that has an m-line for each of these; gives back the m-lines' names and
/// what the peer's part took.
pub(crate) fn establish(
    start: Instant,
    options: &PeerOptions,
    stamps: Stamps,
    media: &[MediaKind],
) -> (Peer, Rtc, Vec<Mid>, Duration) {
    let mut peer_time = Duration::ZERO;
    let mut peer =
        timed(&mut peer_time, || Peer::subscriber(start, peer_addr(), options, false).unwrap());
    let mut rtc = Rtc::builder()
        .set_crypto_provider(Arc::new(stampede_core::crypto::provider()))
        .set_rtp_mode(true)
        .set_extension_map(stamps.extensions())
        .build(start);
    rtc.add_local_candidate(Candidate::host(sender_addr(), "udp").unwrap()).unwrap();
    let mut changes = rtc.sdp_api();
    let add = |&kind: &MediaKind| changes.add_media(kind, Direction::SendOnly, None, None, None);
    let mids: Vec<_> = media.iter().map(add).collect();
    let (offer, pending) = changes.apply().unwrap();
    let offer = offer.to_sdp_string();
    let answer = timed(&mut peer_time, || peer.accept_offer(start, &offer, &[]).unwrap());
    rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&answer).unwrap()).unwrap();
    let (mut now, mut sink, mut scratch) = (start, Sink::default(), Scratch::default());
    while !sink.connected {
        assert!(now < start + Duration::from_secs(10), "not connected");
        now += Duration::from_millis(5);
        rtc.handle_input(Input::Timeout(now)).unwrap();
        timed(&mut peer_time, || peer.handle_timeout(now));
        for _ in 0..8 {
            let datagrams = poll(&mut rtc);
            timed(&mut peer_time, || {
                for bytes in datagrams {
                    let at = arrival(now, start);
                    peer.handle_datagram(at, sender_addr(), &bytes, &mut scratch);
                }
                peer.drain(now, &mut sink);
            });
            for bytes in sink.datagrams.drain(..) {
                let receive =
                    Receive::new(Protocol::Udp, peer_addr(), sender_addr(), &bytes).unwrap();
                rtc.handle_input(Input::Receive(now, receive)).unwrap();
            }
        }
    }
    (peer, rtc, mids, peer_time)
}

/// The payload type that was negotiated for a codec.
pub(crate) fn payload_type(rtc: &Rtc, codec: Codec) -> Pt {
    let mut params = rtc.codec_config().params().iter();
    params.find(|params| params.spec().codec == codec).unwrap().pt()
}

pub(crate) fn arrival(now: Instant, start: Instant) -> Arrival {
    Arrival { instant: now, unix_ns: 1 << 60 | (now - start).as_nanos() as u64 }
}

impl Sender {
    /// Sends VP8 in the m-line `mid` of a connection whose answer is known.
    pub(crate) fn new(mut rtc: Rtc, mid: Mid) -> Self {
        let payload_type = payload_type(&rtc, Codec::Vp8);
        let mut direct = rtc.direct_api();
        let stream = direct.stream_tx_by_mid(mid, None).unwrap();
        stream.set_rtx_cache(1, Duration::from_millis(1), None);
        let ssrc = stream.ssrc();
        Self { rtc, ssrc, payload_type, sequence: 1 }
    }

    /// One frame of seven packets: 27 frames a second are 187 packets.
    pub(crate) fn seal(
        &mut self,
        now: Instant,
        frame: u64,
        payloads: &[Arc<[u8]>; 2],
    ) -> Vec<Vec<u8>> {
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
pub(crate) fn payloads(frame: u64) -> [Arc<[u8]>; 2] {
    let key = if frame == 1 { 0x10 } else { 0x11 };
    [0x90, 0x80].map(|start| {
        let (high, low) = ((frame >> 8) as u8 | 0x80, frame as u8);
        let mut payload = vec![start, 0xe0, high, low, low, 0, key, 0, 0, 0x9d, 0x01, 0x2a];
        payload.resize(PAYLOAD_BYTES, 0x5a);
        payload.into()
    })
}
