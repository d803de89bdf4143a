//! A publishing peer and the plain str0m receiver it is connected to, without sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_core::{
    Arrival, AudioOptions, DtlsIdentity, LocalId, MediaKind, Peer, PeerEvent, PeerOptions,
    PeerSink, PublishLayer, PublishTrack, RecordedFrame, RecordedStream, Scratch, Slots,
};
use stampede_media::clip::ClipFrame;
use stampede_media::{Codec, MediaClip, packetize};
use str0m::change::SdpOffer;
use str0m::net::{Protocol, Receive};
use str0m::rtp::{Extension, ExtensionMap};
use str0m::{Candidate, Input, Output, Rtc};

/// Frames of 720p a second: seven packets each.
const FRAMES_PER_SECOND: u64 = 30;
/// A frame of seven packets.
const FRAME_BYTES: usize = 7_400;
/// Packets of a frame.
pub(crate) const RUN: u64 = 7;
/// Longest datagram.
const DATAGRAM_BYTES_MAX: usize = 1_500;

/// Where datagrams are put as a worker puts them: into memory from which they are sent.
pub(crate) struct Sink {
    room: Vec<u8>,
    /// Datagrams that are long enough for media.
    pub(crate) packets: u64,
    /// What is not thrown away, while it connects.
    kept: Option<Vec<Vec<u8>>>,
    connected: bool,
}

impl PeerSink for Sink {
    fn transmit(&mut self, _: LocalId, _: SocketAddr, payload: &[u8]) {
        self.room[..payload.len()].copy_from_slice(payload);
        self.packets += u64::from(payload.len() > 1_000);
        if let Some(kept) = &mut self.kept {
            kept.push(payload.to_vec());
        }
    }

    fn event(&mut self, event: PeerEvent) {
        self.connected |= event == PeerEvent::Connected;
    }

    fn recorded(&mut self, _: &RecordedStream, _: RecordedFrame) {}
}

/// A publisher that is connected.
pub(crate) struct Publisher {
    peer: Peer,
    due: Instant,
}

fn peer_addr() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 40_001))
}

fn server_addr() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 7_882))
}

/// A second of VP8, a keyframe first.
pub(crate) fn clip() -> Arc<MediaClip> {
    let step = 90_000 / FRAMES_PER_SECOND;
    let frame = |index: u64| {
        let mut data = vec![0x5a; FRAME_BYTES];
        data[0] = if index == 0 { 0x10 } else { 0x11 };
        ClipFrame {
            timestamp_ticks: index * step,
            keyframe: index == 0,
            packets: packetize::vp8(&data, index as u16, index as u8),
            frame_bytes: data.len(),
        }
    };
    Arc::new(MediaClip {
        name: "bench".to_owned(),
        codec: Codec::Vp8,
        clock_rate: 90_000,
        width: 1_280,
        height: 720,
        channels: 0,
        duration_ticks: FRAMES_PER_SECOND * step,
        frame_rate: FRAMES_PER_SECOND as f64,
        scalability: None,
        frames: (0..FRAMES_PER_SECOND).map(frame).collect(),
    })
}

pub(crate) fn options() -> PeerOptions {
    PeerOptions::new(DtlsIdentity::generate().unwrap())
}

pub(crate) fn sink() -> Sink {
    Sink { room: vec![0; DATAGRAM_BYTES_MAX], packets: 0, kept: None, connected: false }
}

/// A server that agrees on what livekit-server does: mids, transport-wide numbers, capture times.
fn server(start: Instant) -> Rtc {
    let mut extensions = ExtensionMap::empty();
    extensions.set(3, Extension::TransportSequenceNumber);
    extensions.set(4, Extension::RtpMid);
    extensions.set(9, Extension::AbsoluteCaptureTime);
    let mut rtc = Rtc::builder()
        .set_crypto_provider(Arc::new(stampede_core::crypto::provider()))
        .set_rtp_mode(true)
        .set_extension_map(extensions)
        .build(start);
    rtc.add_local_candidate(Candidate::host(server_addr(), "udp").unwrap()).unwrap();
    rtc
}

impl Publisher {
    /// One whose first frame is due `start_offset` after it has connected.
    pub(crate) fn connect(
        start: Instant,
        options: &PeerOptions,
        clip: Arc<MediaClip>,
        start_offset: Duration,
    ) -> Self {
        let track = PublishTrack {
            cid: "camera".to_owned(),
            kind: MediaKind::Video,
            layers: vec![PublishLayer { rid: None, clip }],
            start_offset,
            speaking: None,
            audio: AudioOptions::default(),
        };
        let mut peer = Peer::publisher(start, peer_addr(), options, vec![track]).unwrap();
        let mut rtc = server(start);
        let offer = peer.create_offer(start, Slots::default(), true).unwrap();
        let offer = SdpOffer::from_sdp_string(&offer).unwrap();
        let answer = rtc.sdp_api().accept_offer(offer).unwrap();
        peer.accept_answer(start, &answer.to_sdp_string(), &[]).unwrap();
        let (mut now, mut sink, mut scratch) = (start, sink(), Scratch::default());
        sink.kept = Some(Vec::new());
        let mut due = start;
        while !sink.connected {
            assert!(now < start + Duration::from_secs(10), "not connected");
            now += Duration::from_millis(5);
            rtc.handle_input(Input::Timeout(now)).unwrap();
            peer.handle_timeout(now);
            for _ in 0..8 {
                for bytes in poll(&mut rtc) {
                    let unix_ns = 1 << 60 | (now - start).as_nanos() as u64;
                    let at = Arrival { instant: now, unix_ns };
                    peer.handle_datagram(at, server_addr(), &bytes, &mut scratch);
                }
                due = peer.drain(now, &mut sink);
                for bytes in sink.kept.iter_mut().flat_map(|kept| kept.drain(..)) {
                    let receive = Receive::new(Protocol::Udp, peer_addr(), server_addr(), &bytes);
                    rtc.handle_input(Input::Receive(now, receive.unwrap())).unwrap();
                }
            }
        }
        Self { peer, due }
    }

    /// Does what is due, as a worker has it do.
    pub(crate) fn fire(&mut self, sink: &mut Sink) {
        self.peer.handle_timeout(self.due);
        self.due = self.peer.drain(self.due, sink).max(self.due);
    }

    /// Frames that it has sent.
    pub(crate) fn frames_sent(&self) -> u64 {
        self.peer.counters().publish.frames_sent
    }
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
