//! A deterministic network between a [`Peer`] and a plain str0m instance, in virtual time.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use stampede_core::{
    Arrival, Codec, DtlsIdentity, Peer, PeerEvent, PeerOptions, PeerSink, PeerUpdate,
    RecordedFrame, RecordedStream, Sample, Scratch, StreamReport,
};
use stampede_media::{ClipFrame, MediaClip};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RawPacket;
use str0m::rtp::rtcp::Rtcp;
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

pub mod link;

pub const UNIX_BASE_NS: u64 = 1_700_000_000_000_000_000;

pub fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

pub fn options() -> PeerOptions {
    static IDENTITY: OnceLock<DtlsIdentity> = OnceLock::new();
    PeerOptions::new(IDENTITY.get_or_init(|| DtlsIdentity::generate().unwrap()).clone())
}

pub fn peer_addr() -> SocketAddr {
    "127.0.0.1:40001".parse().unwrap()
}

pub fn server_addr() -> SocketAddr {
    "127.0.0.1:7882".parse().unwrap()
}

/// xorshift64*: the tests' own seed, nothing else.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.next() % 1_000 < per_mille
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// What a peer put out.
#[derive(Default)]
pub struct Sink {
    pub datagrams: Vec<(SocketAddr, Vec<u8>)>,
    pub events: Vec<PeerEvent>,
    pub recorded: Vec<(RecordedStream, RecordedFrame)>,
    pub samples: Vec<Sample>,
}

impl PeerSink for Sink {
    fn transmit(&mut self, _: stampede_core::LocalId, destination: SocketAddr, payload: &[u8]) {
        self.datagrams.push((destination, payload.to_vec()));
    }

    fn event(&mut self, event: PeerEvent) {
        self.events.push(event);
    }

    fn recorded(&mut self, stream: &RecordedStream, frame: RecordedFrame) {
        self.recorded.push((stream.clone(), frame));
    }

    fn sample(&mut self, sample: Sample) {
        self.samples.push(sample);
    }
}

/// A plain str0m instance: the SFU's side.
pub struct Server {
    pub rtc: Rtc,
    pub events: Vec<Event>,
    pub wake: Instant,
    /// Original sequence number of each RTX packet, by (RTX SSRC, its own sequence number).
    pub originals: HashMap<(u32, u16), u16>,
    pub rtx_ssrcs: Vec<u32>,
    /// RTCP that the peer sent.
    pub rtcp: Vec<Rtcp>,
}

impl Server {
    pub fn new(now: Instant, config: RtcConfig) -> Self {
        let mut rtc = config.set_rtp_mode(true).enable_raw_packets(true).build(now);
        rtc.add_local_candidate(Candidate::host(server_addr(), "udp").unwrap()).unwrap();
        let (events, originals) = (Vec::new(), HashMap::new());
        let (rtx_ssrcs, rtcp) = (Vec::new(), Vec::new());
        Self { rtc, events, wake: now, originals, rtx_ssrcs, rtcp }
    }

    /// One that puts frames together itself.
    pub fn in_frames(now: Instant, config: RtcConfig) -> Self {
        let mut rtc = config.build(now);
        rtc.add_local_candidate(Candidate::host(server_addr(), "udp").unwrap()).unwrap();
        let (events, originals) = (Vec::new(), HashMap::new());
        let (rtx_ssrcs, rtcp) = (Vec::new(), Vec::new());
        Self { rtc, events, wake: now, originals, rtx_ssrcs, rtcp }
    }

    /// What it sends, and to where.
    fn poll(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut out = Vec::new();
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(at) => {
                    self.wake = at;
                    return out;
                }
                Output::Transmit(transmit) => {
                    out.push((transmit.destination, transmit.contents.to_vec()));
                }
                Output::Event(Event::RawPacket(raw)) => match *raw {
                    RawPacket::RtpTx(header, bytes)
                        if self.rtx_ssrcs.contains(&header.ssrc)
                            && bytes.len() >= header.header_len + 2 =>
                    {
                        let at = header.header_len;
                        let original = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
                        let key = (*header.ssrc, header.sequence_number);
                        self.originals.insert(key, original);
                    }
                    RawPacket::RtcpRx(rtcp) => self.rtcp.push(rtcp),
                    _ => {}
                },
                Output::Event(event) => self.events.push(event),
            }
        }
    }
}

/// What happens to a datagram from the server.
pub enum Fate {
    Deliver(Duration),
    Twice(Duration, Duration),
    Drop,
}

type FateOf = Box<dyn FnMut(&[u8]) -> Fate>;

/// A datagram that reached the peer.
pub struct Delivered {
    pub at: Instant,
    pub bytes: Vec<u8>,
}

/// What [`Sim`] connects to the server.
pub trait Client {
    fn handle_datagram(&mut self, at: Arrival, source: SocketAddr, payload: &[u8]);
    fn handle_timeout(&mut self, now: Instant);
    fn drain(&mut self, now: Instant, sink: &mut dyn PeerSink) -> Instant;
}

impl Client for Peer {
    fn handle_datagram(&mut self, at: Arrival, source: SocketAddr, payload: &[u8]) {
        self.handle_datagram(at, source, payload, &mut Scratch::default());
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.handle_timeout(now);
    }

    fn drain(&mut self, now: Instant, sink: &mut dyn PeerSink) -> Instant {
        self.drain(now, sink)
    }
}

pub struct Sim<C = Peer> {
    pub start: Instant,
    pub now: Instant,
    pub peer: C,
    pub server: Server,
    pub sink: Sink,
    pub delay: Duration,
    /// `now`, for those that decide over datagrams.
    pub clock: Rc<Cell<Instant>>,
    /// Decides over datagrams to the peer.
    pub fate: FateOf,
    /// Decides over datagrams to the server.
    pub fate_up: FateOf,
    pub delivered: Vec<Delivered>,
    /// Where the peer's socket is.
    pub peer_address: SocketAddr,
    /// Whether it goes to the peer, the peer's address, and what it is.
    queue: BTreeMap<(Instant, u64), (bool, SocketAddr, Vec<u8>)>,
    serial: u64,
    peer_wake: Instant,
    /// Datagrams the peer has sent.
    pub sent_by_peer: u64,
}

impl<C: Client> Sim<C> {
    pub fn new(start: Instant, peer: C, server: Server) -> Self {
        let delay = ms(10);
        Self {
            start,
            now: start,
            peer,
            server,
            sink: Sink::default(),
            delay,
            clock: Rc::new(Cell::new(start)),
            fate: Box::new(move |_| Fate::Deliver(Duration::ZERO)),
            fate_up: Box::new(move |_| Fate::Deliver(Duration::ZERO)),
            delivered: Vec::new(),
            peer_address: peer_addr(),
            queue: BTreeMap::new(),
            serial: 0,
            peer_wake: start,
            sent_by_peer: 0,
        }
    }

    pub fn arrival(&self) -> Arrival {
        let since = (self.now - self.start).as_nanos() as u64;
        Arrival { instant: self.now, unix_ns: UNIX_BASE_NS + since }
    }

    fn push(&mut self, to_peer: bool, peer: SocketAddr, at: Instant, bytes: Vec<u8>) {
        self.serial += 1;
        self.queue.insert((at, self.serial), (to_peer, peer, bytes));
    }

    fn send(&mut self, to_peer: bool, peer: SocketAddr, bytes: Vec<u8>) {
        self.clock.set(self.now);
        let fate = if to_peer { (self.fate)(&bytes) } else { (self.fate_up)(&bytes) };
        let at = self.now + self.delay;
        match fate {
            Fate::Drop => {}
            Fate::Deliver(more) => self.push(to_peer, peer, at + more, bytes),
            Fate::Twice(first, second) => {
                self.push(to_peer, peer, at + first, bytes.clone());
                self.push(to_peer, peer, at + second, bytes);
            }
        }
    }

    /// Takes what both sides have to say at this moment.
    pub fn exchange(&mut self) {
        for (destination, bytes) in self.server.poll() {
            self.send(true, destination, bytes);
        }
        self.peer_wake = self.peer.drain(self.now, &mut self.sink);
        for (_, bytes) in std::mem::take(&mut self.sink.datagrams) {
            self.sent_by_peer += 1;
            self.send(false, self.peer_address, bytes);
        }
    }

    /// Lets the server's application act: writes, then drives its clock.
    pub fn server_writes(&mut self, write: impl FnOnce(&mut Rtc)) {
        write(&mut self.server.rtc);
        self.server.rtc.handle_input(Input::Timeout(self.now)).unwrap();
        self.exchange();
    }

    /// Runs until `end`.
    pub fn run_until(&mut self, end: Instant) {
        self.exchange();
        loop {
            let queued = self.queue.first_key_value().map(|(&(at, _), _)| at);
            let next = self.peer_wake.min(self.server.wake);
            let next = queued.map_or(next, |at| at.min(next)).max(self.now);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            self.step();
        }
    }

    pub fn run(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    fn step(&mut self) {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (to_peer, address, bytes) = entry.remove();
            if to_peer && address != self.peer_address {
                // Its socket is closed.
            } else if to_peer {
                self.peer.handle_datagram(self.arrival(), server_addr(), &bytes);
                self.delivered.push(Delivered { at: self.now, bytes });
            } else {
                let receive = Receive::new(Protocol::Udp, address, server_addr(), &bytes).unwrap();
                self.server.rtc.handle_input(Input::Receive(self.now, receive)).unwrap();
            }
            self.exchange();
        }
        if self.server.wake <= self.now {
            self.server.rtc.handle_input(Input::Timeout(self.now)).unwrap();
        }
        if self.peer_wake <= self.now {
            self.peer.handle_timeout(self.now);
        }
        self.exchange();
    }

    pub fn run_until_event(&mut self, limit: Duration, wanted: impl Fn(&PeerEvent) -> bool) {
        let end = self.now + limit;
        while !self.sink.events.iter().any(&wanted) {
            assert!(self.now < end, "not in {limit:?}: {:?}", self.sink.events);
            self.run(ms(5));
        }
    }
}

impl Sim {
    /// A subscriber and a plain server that have not said anything yet.
    pub fn subscriber(recording: bool) -> Self {
        let start = Instant::now();
        let server = Server::new(start, Rtc::builder());
        let peer = Peer::subscriber(start, peer_addr(), &options(), recording).unwrap();
        Self::new(start, peer, server)
    }

    /// The publisher has ended: what waits is decided, and nobody watches on.
    pub fn finish(&mut self) -> Vec<StreamReport> {
        self.peer.update(PeerUpdate::Leaving);
        self.run(Duration::from_secs(3));
        let now = self.now;
        self.peer.close(now, &mut self.sink);
        self.peer.final_report(now).streams
    }
}

/// RTP datagrams only: SSRC, sequence number.
pub fn rtp(datagram: &[u8]) -> Option<(u32, u16)> {
    let is_rtp =
        datagram.len() >= 12 && datagram[0] >> 6 == 2 && !(64..96).contains(&(datagram[1] & 0x7f));
    is_rtp.then(|| {
        let ssrc = u32::from_be_bytes([datagram[8], datagram[9], datagram[10], datagram[11]]);
        (ssrc, u16::from_be_bytes([datagram[2], datagram[3]]))
    })
}

/// A VP8 clip of recognisable frames: `packets_of(frame)` packets each, a keyframe every
/// `keyframe_every`, at `fps`.
pub fn vp8_clip(
    frames: usize,
    fps: u64,
    keyframe_every: usize,
    packets_of: impl Fn(usize) -> usize,
) -> MediaClip {
    let step = 90_000 / fps;
    let frames: Vec<_> = (0..frames)
        .map(|frame| {
            let keyframe = frame % keyframe_every == 0;
            let data = frame_data(frame, keyframe, packets_of(frame) * 100);
            let packets = data.chunks(100).enumerate().map(|(index, chunk)| {
                let start = if index == 0 { 0x90 } else { 0x80 };
                let (id, tl0) = (frame as u16, frame as u8);
                let mut packet = vec![start, 0xe0, 0x80 | (id >> 8) as u8, id as u8, tl0, 0];
                packet.extend_from_slice(chunk);
                Arc::from(packet)
            });
            ClipFrame {
                timestamp_ticks: frame as u64 * step,
                keyframe,
                packets: packets.collect(),
                frame_bytes: data.len(),
            }
        })
        .collect();
    MediaClip {
        name: "test".to_owned(),
        codec: Codec::Vp8,
        clock_rate: 90_000,
        width: 64,
        height: 64,
        channels: 0,
        duration_ticks: frames.len() as u64 * step,
        frame_rate: fps as f64,
        scalability: None,
        frames,
    }
}

/// The bytes of a frame of [`vp8_clip`].
pub fn frame_data(frame: usize, keyframe: bool, bytes: usize) -> Vec<u8> {
    let mut data = vec![if keyframe { 0x10 } else { 0x11 }, 0, 0, 0x9d, 0x01, 0x2a, 64, 0, 64, 0];
    data.extend((frame as u32).to_be_bytes());
    let mut rng = Rng::new(frame as u64 + 1);
    while data.len() < bytes {
        data.push(rng.next() as u8);
    }
    data
}

/// An Opus clip of 20 ms packets.
pub fn opus_clip(packets: usize) -> MediaClip {
    let frames: Vec<_> = (0..packets)
        .map(|index| ClipFrame {
            timestamp_ticks: index as u64 * 960,
            keyframe: true,
            packets: vec![Arc::from([0xfc, index as u8, (index >> 8) as u8, 1, 2, 3].as_slice())],
            frame_bytes: 6,
        })
        .collect();
    MediaClip {
        name: "test".to_owned(),
        codec: Codec::Opus,
        clock_rate: 48_000,
        width: 0,
        height: 0,
        channels: 1,
        duration_ticks: packets as u64 * 960,
        frame_rate: 50.0,
        scalability: None,
        frames,
    }
}
