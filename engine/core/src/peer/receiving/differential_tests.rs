//! The receive path against str0m's: the same packets at the same times, sealed for each peer with
//! its own keys, give the same counts.
//!
//! Nothing here arrives more than 100 packets behind, where str0m stops looking; and a forged RTX
//! packet may count as rejected on one path and as redundant on the other.

#[path = "../../../tests/common/mod.rs"]
mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::{Client, Rng, Server, Sim, ms, options, peer_addr, server_addr, vp8_clip};
use proptest::prelude::*;
use str0m::Rtc;
use str0m::change::SdpAnswer;
use str0m::media::Direction;
use str0m::rtp::Extension;

use super::reference::Reference;
use crate::accounting::LatencyCounters;
use crate::srtp::{KeySlot, seal_rtp};
use crate::{
    Arrival, MediaKind, Peer, PeerEvent, PeerSink, PeerUpdate, StreamReport, TransportCounters,
};

const FPS: u64 = 30;

/// A subscriber of either kind.
trait Subscriber: Client + Sized {
    fn subscribe(now: Instant) -> Self;
    fn accept(&mut self, now: Instant, sdp: &str, tracks: &[(String, String)]) -> String;
    fn take(&mut self, update: PeerUpdate);
    fn keys(&self) -> &KeySlot;
    fn report(self, now: Instant) -> (Vec<StreamReport>, TransportCounters);
}

impl Subscriber for Peer {
    fn subscribe(now: Instant) -> Self {
        Peer::subscriber(now, peer_addr(), &options(), true).unwrap()
    }

    fn accept(&mut self, now: Instant, sdp: &str, tracks: &[(String, String)]) -> String {
        self.accept_offer(now, sdp, tracks).unwrap()
    }

    fn take(&mut self, update: PeerUpdate) {
        self.update(update);
    }

    fn keys(&self) -> &KeySlot {
        &self.receiving.as_ref().unwrap().keys
    }

    fn report(mut self, now: Instant) -> (Vec<StreamReport>, TransportCounters) {
        self.close(now, &mut common::Sink::default());
        let report = self.final_report(now);
        (report.streams, report.counters.transport)
    }
}

impl Client for Reference {
    fn handle_datagram(&mut self, at: Arrival, source: SocketAddr, payload: &[u8]) {
        self.handle_datagram(at, source, payload);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.handle_timeout(now);
    }

    fn drain(&mut self, now: Instant, sink: &mut dyn PeerSink) -> Instant {
        self.drain(now, sink)
    }
}

impl Subscriber for Reference {
    fn subscribe(now: Instant) -> Self {
        Reference::new(now, peer_addr(), &options())
    }

    fn accept(&mut self, now: Instant, sdp: &str, tracks: &[(String, String)]) -> String {
        self.accept_offer(now, sdp, tracks)
    }

    fn take(&mut self, update: PeerUpdate) {
        self.update(update);
    }

    fn keys(&self) -> &KeySlot {
        &self.keys
    }

    fn report(self, now: Instant) -> (Vec<StreamReport>, TransportCounters) {
        self.finish(now)
    }
}

struct Rig<S> {
    sim: Sim<S>,
    base: Instant,
    ssrc: u32,
    rtx: u32,
    payload_type: u8,
    rtx_type: u8,
    mid: String,
    mid_id: u8,
    capture_id: u8,
}

impl<S: Subscriber> Rig<S> {
    fn connect() -> Self {
        let start = Instant::now();
        let builder = Rtc::builder().set_extension(5, Extension::AbsoluteCaptureTime);
        let mut sim = Sim::new(start, S::subscribe(start), Server::new(start, builder));
        let mut changes = sim.server.rtc.sdp_api();
        let kind = str0m::media::MediaKind::Video;
        let mid = changes.add_media(kind, Direction::SendOnly, None, None, None);
        let (offer, pending) = changes.apply().unwrap();
        let track_id = "TR_cam".to_owned();
        let tracks = [(mid.to_string(), track_id.clone())];
        let answer = sim.peer.accept(start, &offer.to_sdp_string(), &tracks);
        sim.peer.take(PeerUpdate::Track { track_id, same_clock: true, muted: false });
        let answer = SdpAnswer::from_sdp_string(&answer).unwrap();
        sim.server.rtc.sdp_api().accept_answer(pending, answer).unwrap();
        sim.run_until_event(Duration::from_secs(5), |event| *event == PeerEvent::Connected);
        sim.run(ms(100));
        let mut direct = sim.server.rtc.direct_api();
        let stream = direct.stream_tx_by_mid(mid, None).unwrap();
        let (ssrc, rtx) = (*stream.ssrc(), *stream.rtx().unwrap());
        let params = sim.server.rtc.codec_config().params().iter();
        let vp8 = |p: &&str0m::format::PayloadParams| p.spec().codec == str0m::format::Codec::Vp8;
        let params = *params.clone().find(vp8).unwrap();
        let media = sim.server.rtc.media(mid).unwrap();
        let mid_id = media.remote_extmap().id_of(Extension::RtpMid).unwrap();
        let capture_id = media.remote_extmap().id_of(Extension::AbsoluteCaptureTime).unwrap();
        Self {
            base: sim.now,
            sim,
            ssrc,
            rtx,
            payload_type: *params.pt(),
            rtx_type: *params.resend().unwrap(),
            mid: mid.to_string(),
            mid_id,
            capture_id,
        }
    }

    fn deliver(&mut self, packet: &Packet) {
        self.sim.run_until(self.base + Duration::from_micros(packet.at_us));
        let (ssrc, payload_type) = match packet.kind {
            PacketKind::Media => (self.ssrc, self.payload_type),
            PacketKind::Rtx => (self.rtx, self.rtx_type),
            // Probes on the RTX stream may have the media's payload type.
            PacketKind::RtxPadding => (self.rtx, self.payload_type),
            PacketKind::Renamed => (self.ssrc ^ 0x5555, self.payload_type),
        };
        let mid = (packet.kind == PacketKind::Renamed).then_some((self.mid_id, self.mid.as_str()));
        let now = self.sim.arrival();
        let ago_us = packet.captured_us.map(|captured_us| packet.at_us - captured_us);
        let captured_ns = ago_us.map(|us| now.unix_ns - us * 1_000);
        let captured = captured_ns.map(|ns| (self.capture_id, ns));
        let (clear, header) = packet.clear(ssrc, payload_type, mid, captured);
        let keying = self.sim.peer.keys().get().unwrap();
        let mut sealed = seal_rtp(keying, &clear, header, packet.index);
        if packet.forged {
            *sealed.last_mut().unwrap() ^= 1;
        }
        let at = self.sim.arrival();
        Client::handle_datagram(&mut self.sim.peer, at, server_addr(), &sealed);
        self.sim.exchange();
    }

    fn finish(mut self) -> (Vec<StreamReport>, TransportCounters) {
        self.sim.run(Duration::from_secs(2));
        self.sim.peer.report(self.sim.now)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PacketKind {
    Media,
    Rtx,
    RtxPadding,
    /// Media on another SSRC, with the MID.
    Renamed,
}

/// A clear packet and when it arrives.
#[derive(Debug, Clone)]
struct Packet {
    at_us: u64,
    kind: PacketKind,
    index: u64,
    timestamp: u32,
    marker: bool,
    /// Padding of this length behind the payload, its count included.
    padding: u8,
    payload: Vec<u8>,
    forged: bool,
    /// When it was captured, where it has a stamp.
    captured_us: Option<u64>,
}

impl Packet {
    fn clear(
        &self,
        ssrc: u32,
        payload_type: u8,
        mid: Option<(u8, &str)>,
        captured: Option<(u8, u64)>,
    ) -> (Vec<u8>, usize) {
        let mut elements = Vec::new();
        if let Some((id, mid)) = mid {
            elements.push(id << 4 | (mid.len() as u8 - 1));
            elements.extend(mid.as_bytes());
        }
        if let Some((id, unix_ns)) = captured {
            elements.push(id << 4 | 7);
            let seconds = unix_ns / 1_000_000_000 + 2_208_988_800;
            let fraction = ((unix_ns % 1_000_000_000) << 32) / 1_000_000_000;
            elements.extend((seconds << 32 | fraction).to_be_bytes());
        }
        elements.resize(elements.len().next_multiple_of(4), 0);
        let extension = u8::from(!elements.is_empty()) << 4;
        let padded = u8::from(self.padding > 0) << 5;
        let mut clear = vec![0x80 | padded | extension, u8::from(self.marker) << 7 | payload_type];
        clear.extend((self.index as u16).to_be_bytes());
        clear.extend(self.timestamp.to_be_bytes());
        clear.extend(ssrc.to_be_bytes());
        if !elements.is_empty() {
            clear.extend([0xbe, 0xde, 0, (elements.len() / 4) as u8]);
            clear.extend(elements);
        }
        let header = clear.len();
        clear.extend(&self.payload);
        if self.padding > 0 {
            clear.resize(clear.len() + usize::from(self.padding), self.padding);
        }
        (clear, header)
    }
}

/// Shares in 1/1000.
#[derive(Debug, Clone)]
struct Weather {
    seed: u64,
    lost: u64,
    duplicated: u64,
    reordered: u64,
    forged: u64,
    padded: u64,
    /// Of the lost ones.
    repaired: u64,
    first_sequence: u16,
}

/// Three seconds of VP8 in this weather, in order of arrival.
fn packets(weather: &Weather) -> Vec<Packet> {
    let mut rng = Rng::new(weather.seed);
    let clip = vp8_clip(90, FPS, 30, |frame| 1 + (frame * 5) % 7);
    let mut out: Vec<Packet> = Vec::new();
    let mut index = u64::from(weather.first_sequence);
    let mut rtx_index = u64::from(weather.first_sequence ^ 0x7000);
    let mut send = |rng: &mut Rng, mut packet: Packet, begun: bool| {
        if !begun {
            out.push(packet);
            return;
        }
        if rng.chance(weather.forged) {
            out.push(Packet { forged: true, at_us: packet.at_us - 1, ..packet.clone() });
        }
        if rng.chance(weather.duplicated) {
            out.push(Packet { at_us: packet.at_us + rng.below(200_000), ..packet.clone() });
        }
        if !rng.chance(weather.lost) {
            if rng.chance(weather.reordered) {
                packet.at_us += rng.below(250_000);
            }
            out.push(packet);
            return;
        }
        for turn in 0..2 {
            // Now and then it comes twice.
            if !rng.chance(weather.repaired / (1 + 3 * turn)) {
                continue;
            }
            let mut payload = (packet.index as u16).to_be_bytes().to_vec();
            payload.extend(&packet.payload);
            let at_us = packet.at_us + 20_000 + turn * 100_000 + rng.below(500_000);
            let kind = PacketKind::Rtx;
            let repair = Packet { at_us, kind, index: rtx_index, payload, ..packet.clone() };
            if rng.chance(weather.forged) {
                out.push(Packet { forged: true, at_us: at_us - 1, ..repair.clone() });
            }
            out.push(repair);
            rtx_index += 1;
        }
        if rng.chance(weather.padded) {
            let (kind, index, payload) = (PacketKind::RtxPadding, rtx_index, Vec::new());
            out.push(Packet { kind, index, payload, padding: 200, ..packet });
            rtx_index += 1;
        }
    };
    for (number, frame) in clip.frames.iter().enumerate() {
        let at_us = 1_000 + number as u64 * 1_000_000 / FPS;
        let timestamp = (frame.timestamp_ticks as u32).wrapping_sub(90_000);
        for (part, payload) in frame.packets.iter().enumerate() {
            let marker = part + 1 == frame.packets.len();
            let padding = u8::from(rng.chance(weather.padded)) * 3;
            let (kind, payload, forged) = (PacketKind::Media, payload.to_vec(), false);
            let at_us = at_us + part as u64 * 50;
            // As libwebrtc does: not on every frame.
            let captured_us = (part == 0 && number % 3 != 1).then(|| at_us - 500 - rng.below(400));
            let packet = Packet {
                at_us,
                kind,
                index,
                timestamp,
                marker,
                padding,
                payload,
                forged,
                captured_us,
            };
            send(&mut rng, packet, number > 0);
            index += 1;
        }
        if rng.chance(weather.padded) {
            // Padding only, with the timestamp of the frame before it, as LiveKit's.
            let (kind, payload, at_us) = (PacketKind::Media, Vec::new(), at_us + 500);
            let (marker, padding, forged) = (false, 255, false);
            let packet = Packet {
                at_us,
                kind,
                index,
                timestamp,
                marker,
                padding,
                payload,
                forged,
                captured_us: None,
            };
            send(&mut rng, packet, number > 0);
            index += 1;
        }
    }
    out.sort_by_key(|packet| packet.at_us);
    out
}

fn run<S: Subscriber>(packets: &[Packet]) -> (Vec<StreamReport>, TransportCounters) {
    let mut rig = Rig::<S>::connect();
    for packet in packets {
        rig.deliver(packet);
    }
    rig.finish()
}

/// Runs both paths and compares; returns what our own says of the video.
fn compare(packets: &[Packet]) -> Vec<StreamReport> {
    let (own, own_transport) = run::<Peer>(packets);
    let (reference, reference_transport) = run::<Reference>(packets);
    assert_eq!(own.len(), reference.len());
    let redundant = |reports: &[StreamReport]| -> u64 {
        reports.iter().map(|report| report.packets.rtx_redundant).sum()
    };
    // What one calls redundant and the other rejected.
    assert_eq!(
        redundant(&own) + own_transport.rejected,
        redundant(&reference) + reference_transport.rejected
    );
    for (own, reference) in own.iter().zip(&reference) {
        let counts = [own, reference]
            .map(|report| crate::PacketCounters { rtx_redundant: 0, ..report.packets });
        assert_eq!(counts[0], counts[1]);
        assert_eq!((own.frames, own.freezes), (reference.frames, reference.freezes));
        assert_eq!((own.jitter, own.bitrate_bps), (reference.jitter, reference.bitrate_bps));
        assert_eq!((own.codec, own.closed), (reference.codec, reference.closed));
        assert_eq!(own.feedback.layer_switches, reference.feedback.layer_switches);
        // NTP fractions are rounded differently.
        let max = [own, reference].map(|report| report.latency.max_s.0);
        assert!(max[0].abs_diff(max[1]) < Duration::from_micros(1), "{max:?}");
        let latency = [own, reference]
            .map(|report| LatencyCounters { max_s: own.latency.max_s, ..report.latency });
        assert_eq!(latency[0], latency[1]);
    }
    assert!(own_transport.rejected >= reference_transport.rejected);
    assert_eq!(own_transport.unknown_ssrc, reference_transport.unknown_ssrc);
    assert_eq!(own_transport.malformed, reference_transport.malformed);
    own
}

fn weather() -> impl Strategy<Value = Weather> {
    let shares = (0..150_u64, 0..100_u64, 0..100_u64, 0..50_u64, 0..100_u64, 0..1_000_u64);
    (any::<u64>(), shares, prop_oneof![65_200..=65_535_u16, 0..400_u16, any::<u16>()]).prop_map(
        |(seed, (lost, duplicated, reordered, forged, padded, repaired), first_sequence)| {
            let repaired = repaired + 1;
            Weather { seed, lost, duplicated, reordered, forged, padded, repaired, first_sequence }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn both_paths_count_the_same(weather in weather()) {
        compare(&packets(&weather));
    }
}

#[test]
fn bad_weather_is_worth_comparing() {
    let weather = Weather {
        seed: 5,
        lost: 100,
        duplicated: 50,
        reordered: 50,
        forged: 30,
        padded: 50,
        repaired: 800,
        first_sequence: 65_300,
    };
    let own = compare(&packets(&weather));
    let [video] = own.as_slice() else { panic!("{} streams", own.len()) };
    let packets = video.packets;
    assert!(packets.repaired > 10 && packets.late > 0 && packets.unrecovered > 0, "{packets:?}");
    assert!(packets.duplicate > 5 && packets.reordered > 5, "{packets:?}");
    assert!(packets.padding_only > 0 && packets.rtx_redundant > 0, "{packets:?}");
    assert!(video.frames.dropped > Some(0) && video.frames.decodable > Some(0));
    let latency = video.latency;
    assert!(latency.abs_capture_time > 20 && latency.interpolated > 10, "{latency:?}");
    assert_eq!((latency.other_clock, latency.implausible), (0, 0), "{latency:?}");
}

#[test]
fn a_sender_that_changes_its_ssrc_is_found_by_its_mid() {
    let clean = Weather {
        seed: 1,
        lost: 0,
        duplicated: 0,
        reordered: 0,
        forged: 0,
        padded: 0,
        repaired: 0,
        first_sequence: 500,
    };
    let mut all = packets(&clean);
    let half = all.len() / 2;
    for packet in &mut all[half..] {
        packet.kind = PacketKind::Renamed;
    }
    let own = compare(&all);
    let received: Vec<_> = own.iter().map(|stream| stream.packets.received).collect();
    assert_eq!(received, [half as u64, (all.len() - half) as u64]);
    // A forged packet moves nothing.
    for packet in &mut all[half..] {
        packet.forged = true;
    }
    let (own, transport) = run::<Peer>(&all);
    assert_eq!(own.iter().map(|s| s.packets.received).collect::<Vec<_>>(), [half as u64]);
    assert_eq!(transport.unknown_ssrc, (all.len() - half) as u64);
}

#[test]
fn what_is_far_behind_is_opened_and_counted_in_full() {
    let mut rig = Rig::<Peer>::connect();
    let clip = vp8_clip(300, FPS, 300, |_| 4);
    let mut index = 65_000;
    let mut held = None;
    for (number, frame) in clip.frames.iter().enumerate() {
        for (part, payload) in frame.packets.iter().enumerate() {
            let packet = Packet {
                at_us: number as u64 * 3_000 + part as u64,
                kind: PacketKind::Media,
                index,
                timestamp: frame.timestamp_ticks as u32,
                marker: part == 3,
                padding: 0,
                payload: payload.to_vec(),
                forged: false,
                captured_us: None,
            };
            index += 1;
            if number == 10 && part == 1 {
                held = Some(packet);
                continue;
            }
            rig.deliver(&packet);
        }
        // 480 packets behind, 360 ms late.
        if number == 130 {
            let late = held.take().unwrap();
            rig.deliver(&Packet { at_us: 130 * 3_000 + 10, ..late });
        }
    }
    let (streams, _) = rig.finish();
    let packets = streams[0].packets;
    assert_eq!((packets.missing, packets.repaired, packets.bytes), (1, 1, clip.payload_bytes()));
    assert_eq!(streams[0].frames.decodable, Some(300));
    assert_eq!(streams[0].kind, MediaKind::Video);
}

#[test]
fn forged_packets_at_the_beginning_delay_no_report() {
    let mut rig = Rig::<Peer>::connect();
    let clip = vp8_clip(60, FPS, 60, |_| 1);
    let packet = |index: u64, forged| Packet {
        at_us: index * 33_000,
        kind: PacketKind::Media,
        index: 100 + index,
        timestamp: index as u32 * 3_000,
        marker: true,
        padding: 0,
        payload: clip.frames[index as usize].packets[0].to_vec(),
        forged,
        captured_us: None,
    };
    (0..3).for_each(|index| rig.deliver(&packet(index, true)));
    rig.sim.run(ms(10));
    let before = rig.sim.server.rtcp.len();
    (3..50).for_each(|index| rig.deliver(&packet(index, false)));
    let reports = rig.sim.server.rtcp[before..].iter();
    let reports = reports.filter(|rtcp| matches!(rtcp, str0m::rtp::rtcp::Rtcp::ReceiverReport(_)));
    assert!(reports.count() >= 1, "within 1.6 s, the first after half a second");
}
