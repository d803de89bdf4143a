//! Connections that break and come back: another network, ICE restarted, ICE lost, a cut.

#![allow(clippy::unwrap_used)]

mod common;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::*;
use stampede_core::{
    AudioOptions, MediaFailure, MediaKind, PacketCounters, Peer, PeerCounters, PeerEvent,
    PublishLayer, PublishTrack, Slots,
};
use str0m::change::{SdpAnswer, SdpOffer};
use str0m::media::{self, Direction, Pt};
use str0m::rtp::{RtpWrite, Ssrc};
use str0m::{Event, Rtc};

fn other_addr() -> SocketAddr {
    "127.0.0.1:40002".parse().unwrap()
}

/// Times that ICE came up.
fn connections(sim: &Sim) -> usize {
    sim.sink.events.iter().filter(|event| **event == PeerEvent::IceConnected).count()
}

fn losses(sim: &Sim) -> usize {
    let lost = |event: &&PeerEvent| matches!(event, PeerEvent::Disconnected { .. });
    sim.sink.events.iter().filter(lost).count()
}

/// The line `a=ice-ufrag:…` of a description.
fn ufrag(sdp: &str) -> &str {
    sdp.lines().find(|line| line.starts_with("a=ice-ufrag:")).unwrap()
}

/// Candidates in a description.
fn candidates(sdp: &str) -> Vec<&str> {
    sdp.lines().filter(|line| line.starts_with("a=candidate:")).collect()
}

/// Lets nothing of either side through from here on.
fn cut(sim: &mut Sim) {
    sim.fate = Box::new(|_| Fate::Drop);
    sim.fate_up = Box::new(|_| Fate::Drop);
}

fn mend(sim: &mut Sim) {
    sim.fate = Box::new(|_| Fate::Deliver(ms(0)));
    sim.fate_up = Box::new(|_| Fate::Deliver(ms(0)));
}

/// The peer's socket is another one from here on.
fn change_network(sim: &mut Sim, to: SocketAddr) {
    let via = sim.peer.change_network(sim.now, to).unwrap();
    assert_eq!((via.index(), sim.peer.local()), (0, to));
    sim.peer_address = to;
    sim.exchange();
}

fn await_frame(sim: &mut Sim) {
    let here = sim.arrival();
    sim.peer.await_frame(here);
}

/// When the frame that was waited for came, or left; `None` if nothing was said.
fn next_frame(sim: &Sim) -> Option<Instant> {
    let told = sim.sink.events.iter().filter_map(|event| match event {
        PeerEvent::NextFrame { at } => Some(at.instant),
        _ => None,
    });
    let told: Vec<_> = told.collect();
    assert!(told.len() <= 1, "{told:?}");
    told.first().copied()
}

/// A subscriber, and a server that sends a frame of two packets each 40 ms.
struct Subscriber {
    sim: Sim,
    video: Ssrc,
    payload_type: Pt,
    frames: u64,
    sequence: u64,
}

impl Subscriber {
    fn connect() -> Self {
        let mut sim = Sim::subscriber(false);
        let start = sim.start;
        let mut changes = sim.server.rtc.sdp_api();
        let mid = changes.add_media(media::MediaKind::Video, Direction::SendOnly, None, None, None);
        let (offer, pending) = changes.apply().unwrap();
        let answer = sim.peer.accept_offer(start, &offer.to_sdp_string(), &[]).unwrap();
        let answer = SdpAnswer::from_sdp_string(&answer).unwrap();
        sim.server.rtc.sdp_api().accept_answer(pending, answer).unwrap();
        sim.run_until_event(Duration::from_secs(5), |event| *event == PeerEvent::Connected);
        sim.run(ms(100));
        let mut params = sim.server.rtc.codec_config().params().iter();
        let vp8 = params.find(|p| p.spec().codec == str0m::format::Codec::Vp8).unwrap();
        let payload_type = vp8.pt();
        let video = sim.server.rtc.direct_api().stream_tx_by_mid(mid, None).unwrap().ssrc();
        Self { sim, video, payload_type, frames: 0, sequence: 1_000 }
    }

    /// Sends so many frames, keyframes all.
    fn play(&mut self, frames: u64) {
        let clip = vp8_clip(1, 25, 1, |_| 2);
        for _ in 0..frames {
            self.sim.run(ms(40));
            let (now, video, payload_type) = (self.sim.now, self.video, self.payload_type);
            let timestamp = self.frames as u32 * 3_600;
            let sequence = &mut self.sequence;
            self.sim.server_writes(|rtc| {
                let mut direct = rtc.direct_api();
                let stream = direct.stream_tx(&video).unwrap();
                for (index, payload) in clip.frames[0].packets.iter().enumerate() {
                    let rtp = RtpWrite::new(
                        payload_type,
                        (*sequence).into(),
                        timestamp,
                        now,
                        payload.clone(),
                    );
                    stream.write_rtp(rtp.marker(index == 1));
                    *sequence += 1;
                }
            });
            self.frames += 1;
        }
    }

    /// The server restarts ICE by an offer; the answer.
    fn restart_ice(&mut self) -> (String, String) {
        let now = self.sim.now;
        let mut changes = self.sim.server.rtc.sdp_api();
        changes.ice_restart(true);
        let (offer, pending) = changes.apply().unwrap();
        let offer = offer.to_sdp_string();
        let text = self.sim.peer.accept_offer(now, &offer, &[]).unwrap();
        let answer = SdpAnswer::from_sdp_string(&text).unwrap();
        self.sim.server.rtc.sdp_api().accept_answer(pending, answer).unwrap();
        self.sim.exchange();
        (offer, text)
    }

    fn counters(&self) -> PeerCounters {
        self.sim.peer.counters()
    }

    fn packets(&self) -> PacketCounters {
        self.counters().video.packets
    }
}

#[test]
fn a_subscriber_goes_on_from_another_network() {
    let mut subscriber = Subscriber::connect();
    subscriber.play(50);
    subscriber.sim.run(ms(100));
    let before = subscriber.packets();
    assert_eq!((before.received, before.missing), (100, 0));
    assert_eq!(connections(&subscriber.sim), 1);
    let last_frame = subscriber.sim.now - ms(90);

    change_network(&mut subscriber.sim, other_addr());
    await_frame(&mut subscriber.sim);
    let trickled = subscriber.sim.sink.events.iter().find_map(|event| match event {
        PeerEvent::LocalCandidate { candidate } => Some(candidate.clone()),
        _ => None,
    });
    assert!(trickled.unwrap().contains("127.0.0.1 40002 typ host"));
    // Those of two frames are under way to the old socket.
    subscriber.play(2);
    let (offer, answer) = subscriber.restart_ice();
    assert_eq!(candidates(&answer).len(), 1, "{answer}");
    assert!(candidates(&answer)[0].contains("127.0.0.1 40002"), "{answer}");
    assert_ne!(ufrag(&answer), ufrag(&offer));
    let here = subscriber.sim.arrival();
    let frame = subscriber.sim.peer.last_frame_unix_ns(here).unwrap() - UNIX_BASE_NS;
    assert_eq!(u128::from(frame), (last_frame - subscriber.sim.start).as_nanos());
    subscriber.play(100);
    subscriber.sim.run(Duration::from_secs(1));

    assert_eq!((connections(&subscriber.sim), losses(&subscriber.sim)), (2, 0));
    assert!(subscriber.sim.peer.is_connected());
    let delivered: BTreeSet<_> =
        subscriber.sim.delivered.iter().filter_map(|datagram| rtp(&datagram.bytes)).collect();
    let after = subscriber.packets();
    // What reached one of its sockets was counted, and what reached none is not held against anybody.
    let came = delivered.iter().filter(|(ssrc, _)| *ssrc == *subscriber.video).count() as u64;
    assert_eq!((after.received, after.expected + after.cut_off), (came, 304));
    assert_eq!((after.missing, after.unrecovered), (after.repaired, 0), "{after:?}");
    assert!((2..=10).contains(&after.cut_off), "{after:?}");
    let reports = subscriber.sim.peer.final_report(subscriber.sim.now).streams;
    assert_eq!((reports.len(), reports[0].ssrc), (1, *subscriber.video));
    let next = next_frame(&subscriber.sim).unwrap();
    let at = next - subscriber.sim.start;
    let came_first = subscriber.sim.delivered.iter().filter(|datagram| {
        datagram.at > last_frame
            && rtp(&datagram.bytes).is_some_and(|(s, _)| s == *subscriber.video)
    });
    assert_eq!(Some(at), came_first.map(|datagram| datagram.at - subscriber.sim.start).next());
    let mut covers = Vec::new();
    subscriber.sim.peer.covers(&mut |cover| covers.push(cover));
    assert_eq!(covers[0].ended.len(), 1);
    assert!(covers[0].open.unwrap().before.on_purpose, "nobody's fault");
}

#[test]
fn each_restart_of_ice_tells_once_when_it_stands() {
    let mut subscriber = Subscriber::connect();
    subscriber.play(10);
    for restart in 0..3 {
        assert_eq!(connections(&subscriber.sim), 1 + restart);
        let (_, answer) = subscriber.restart_ice();
        let (_, again) = subscriber.restart_ice();
        assert_ne!(ufrag(&answer), ufrag(&again));
        subscriber.play(100);
    }
    assert_eq!((connections(&subscriber.sim), losses(&subscriber.sim)), (4, 0));
    assert_eq!(subscriber.packets().missing, 0, "media goes on meanwhile");
}

#[test]
fn ice_that_was_lost_comes_back_with_a_restart() {
    let mut subscriber = Subscriber::connect();
    subscriber.play(25);
    for round in 1..=2 {
        cut(&mut subscriber.sim);
        let from = subscriber.sim.now;
        while losses(&subscriber.sim) < round {
            subscriber.sim.run(ms(100));
            assert!(subscriber.sim.now - from < Duration::from_secs(30), "round {round}");
        }
        // Of the checks 3 s apart nine in a row have no answer, and the last one has had 3 s: str0m's
        // defaults.
        let noticed = subscriber.sim.now - from;
        assert!((18..=25).contains(&noticed.as_secs()), "{noticed:?}");
        assert!(!subscriber.sim.peer.is_connected() && subscriber.sim.peer.is_alive());
        let failure = subscriber.sim.sink.events.last().unwrap();
        let PeerEvent::Disconnected { failure } = failure else { panic!("{failure:?}") };
        assert!(matches!(**failure, MediaFailure::Broke { .. }), "{failure:?}");
        mend(&mut subscriber.sim);
        subscriber.restart_ice();
        subscriber.play(50);
        assert_eq!(connections(&subscriber.sim), 1 + round);
        assert!(subscriber.sim.peer.is_connected());
    }
    let dtls = |event: &&PeerEvent| **event == PeerEvent::Connected;
    assert_eq!(subscriber.sim.sink.events.iter().filter(dtls).count(), 1, "not anew");
    subscriber.sim.run(ms(100));
    let packets = subscriber.packets();
    assert_eq!((packets.received, packets.expected), (250, 250));
}

#[test]
fn ice_that_never_worked_is_given_up_in_time() {
    let mut subscriber = Subscriber::connect();
    subscriber.play(1);
    change_network(&mut subscriber.sim, other_addr());
    cut(&mut subscriber.sim);
    let from = subscriber.sim.now;
    while losses(&subscriber.sim) == 0 {
        subscriber.sim.run(ms(100));
        assert!(subscriber.sim.now - from < Duration::from_secs(30));
    }
    let noticed = subscriber.sim.now - from;
    assert!((15..=25).contains(&noticed.as_secs()), "{noticed:?}");
    assert_eq!(connections(&subscriber.sim), 1);
}

#[test]
fn a_network_that_is_lost_is_told_and_another_one_may_be_found() {
    let mut subscriber = Subscriber::connect();
    subscriber.play(10);
    let now = subscriber.sim.now;
    subscriber.sim.peer.lose_network(now, "no more of these".to_owned());
    subscriber.sim.peer_address = other_addr();
    subscriber.sim.run(ms(500));
    let said = subscriber.sim.sink.events.last().unwrap();
    let PeerEvent::Disconnected { failure } = said else { panic!("{said:?}") };
    assert_eq!(
        failure.to_string(),
        "no socket could be had on 127.0.0.1 after a change of network: no more of these"
    );
    assert!(!subscriber.sim.peer.is_connected());
    let sent = subscriber.sim.sent_by_peer;
    subscriber.sim.run(Duration::from_secs(1));
    assert_eq!(subscriber.sim.sent_by_peer, sent, "it has no socket");
    change_network(&mut subscriber.sim, other_addr());
    subscriber.restart_ice();
    subscriber.play(50);
    assert!(subscriber.sim.peer.is_connected());
    assert_eq!((connections(&subscriber.sim), losses(&subscriber.sim)), (2, 1));
}

#[test]
fn networks_are_changed_so_often_and_no_more() {
    let mut subscriber = Subscriber::connect();
    let ip = peer_addr().ip();
    for change in 0..stampede_core::peer::NETWORK_CHANGES_MAX as u16 {
        let to = SocketAddr::new(ip, 41_000 + change);
        subscriber.sim.peer.change_network(subscriber.sim.now, to).unwrap();
        subscriber.sim.peer_address = to;
        subscriber.sim.exchange();
    }
    let before = subscriber.sim.peer.local();
    subscriber.sim.peer.change_network(subscriber.sim.now, other_addr()).unwrap_err();
    assert_eq!(subscriber.sim.peer.local(), before);
    subscriber.restart_ice();
    subscriber.play(100);
    assert_eq!((connections(&subscriber.sim), losses(&subscriber.sim)), (2, 0));
    assert!(subscriber.packets().received >= 150);
}

#[test]
fn last_frames_are_of_all_streams_and_the_next_one_is_told_once() {
    let mut subscriber = Subscriber::connect();
    let last = |sim: &Sim| sim.peer.last_frame_unix_ns(sim.arrival());
    assert_eq!(last(&subscriber.sim), None);
    subscriber.play(5);
    subscriber.sim.run(ms(30));
    let at = subscriber.sim.now - ms(20);
    let unix_ns = UNIX_BASE_NS + (at - subscriber.sim.start).as_nanos() as u64;
    assert_eq!(last(&subscriber.sim), Some(unix_ns));
    let now = subscriber.sim.now;
    subscriber.sim.peer.begin_measuring(now);
    assert_eq!(last(&subscriber.sim), Some(unix_ns), "it is no count");
    subscriber.sim.run(Duration::from_secs(2));
    assert_eq!(next_frame(&subscriber.sim), None);
    await_frame(&mut subscriber.sim);
    subscriber.sim.run(Duration::from_secs(1));
    await_frame(&mut subscriber.sim);
    let asked = subscriber.sim.now;
    assert_eq!(next_frame(&subscriber.sim), None);
    subscriber.play(5);
    assert_eq!(next_frame(&subscriber.sim), Some(asked + ms(50)), "40 ms, and 10 on its way");
}

/// A publisher of one video track at 25 frames a second.
fn publisher() -> Sim {
    let start = Instant::now();
    let server = Server::new(start, Rtc::builder());
    let clip = Arc::new(vp8_clip(250, 25, 25, |_| 2));
    let track = PublishTrack {
        cid: "cam".to_owned(),
        kind: MediaKind::Video,
        layers: vec![PublishLayer { rid: None, clip }],
        start_offset: Duration::ZERO,
        speaking: None,
        audio: AudioOptions::default(),
    };
    let peer = Peer::publisher(start, peer_addr(), &options(), vec![track]).unwrap();
    let mut sim = Sim::new(start, peer, server);
    let offer = sim.peer.create_offer(start, Slots::default(), true).unwrap();
    answer(&mut sim, &offer);
    sim.run_until_event(Duration::from_secs(5), |event| *event == PeerEvent::Connected);
    sim
}

/// The server's answer is taken; returns it.
fn answer(sim: &mut Sim, offer: &str) -> String {
    let offer = SdpOffer::from_sdp_string(offer).unwrap();
    let answer = sim.server.rtc.sdp_api().accept_offer(offer).unwrap().to_sdp_string();
    sim.peer.accept_answer(sim.now, &answer, &[]).unwrap();
    sim.exchange();
    answer
}

/// Sequence numbers and arrivals of what the server received, of one SSRC only.
fn received(sim: &Sim) -> Vec<(u64, Instant)> {
    let packets = sim.server.events.iter().filter_map(|event| match event {
        Event::RtpPacket(packet) => Some(packet),
        _ => None,
    });
    let packets: Vec<_> = packets.collect();
    let ssrcs: BTreeSet<u32> = packets.iter().map(|packet| *packet.header.ssrc).collect();
    assert_eq!(ssrcs.len(), 1, "{ssrcs:?}");
    packets.iter().map(|packet| (*packet.seq_no, packet.timestamp)).collect()
}

#[test]
fn a_publisher_goes_on_from_another_network() {
    let mut sim = publisher();
    sim.run(Duration::from_secs(2));
    let first = ufrag(&sim.peer.restart_ice(sim.now).unwrap()).to_owned();
    // No check arrives for as long as the server's answer takes, so that nothing can be sent.
    let is_stun = |bytes: &[u8]| bytes[0] < 4;
    sim.fate_up = Box::new(move |bytes| match is_stun(bytes) {
        true => Fate::Drop,
        false => panic!("it has no way"),
    });
    let changed = sim.now;
    change_network(&mut sim, other_addr());
    await_frame(&mut sim);
    let offer = sim.peer.restart_ice(sim.now).unwrap();
    assert_ne!(ufrag(&offer), first);
    assert_eq!(candidates(&offer).len(), 1, "{offer}");
    assert!(candidates(&offer)[0].contains("127.0.0.1 40002"), "{offer}");
    sim.run(ms(300));
    mend(&mut sim);
    answer(&mut sim, &offer);
    sim.run(Duration::from_secs(3));
    assert_eq!((connections(&sim), losses(&sim)), (2, 0));

    // Nothing was sent where it could not arrive, and what was not sent is counted.
    let received = received(&sim);
    let numbers: BTreeSet<u64> = received.iter().map(|(number, _)| *number).collect();
    let span = numbers.last().unwrap() + 1 - numbers.first().unwrap();
    let missing = span - numbers.len() as u64;
    let unsent = sim.peer.counters().impairment.unsent;
    assert!((2..=60).contains(&unsent), "{unsent}");
    assert!(missing <= unsent, "{missing} of {unsent}");
    let next = next_frame(&sim).unwrap();
    assert!(next > changed && next - changed < Duration::from_secs(1), "{:?}", next - changed);
    let first_back = received.iter().map(|(_, at)| *at).find(|at| *at > changed + ms(11)).unwrap();
    assert!(first_back <= next + ms(10), "{:?}", first_back - next);
    let last = sim.peer.last_frame_unix_ns(sim.arrival()).unwrap();
    assert!(sim.arrival().unix_ns - last <= 40_000_000);
}

#[test]
fn a_publisher_finds_the_way_without_a_restart_too() {
    let mut sim = publisher();
    for port in 40_002..40_006 {
        change_network(&mut sim, SocketAddr::new(peer_addr().ip(), port));
        sim.run(Duration::from_secs(1));
        let last = sim.peer.last_frame_unix_ns(sim.arrival()).unwrap();
        assert!(sim.arrival().unix_ns - last <= 40_000_000);
    }
    assert_eq!((connections(&sim), losses(&sim)), (5, 0));
}

#[test]
fn a_publisher_of_which_ice_was_lost_comes_back_with_a_restart() {
    let mut sim = publisher();
    sim.run(Duration::from_secs(1));
    cut(&mut sim);
    sim.run(Duration::from_secs(30));
    assert_eq!((losses(&sim), sim.peer.is_connected()), (1, false));
    let lost = sim.now;
    await_frame(&mut sim);
    let last = sim.peer.last_frame_unix_ns(sim.arrival()).unwrap();
    assert!(sim.arrival().unix_ns - last > 4_000_000_000, "none has had a way since");
    sim.run(Duration::from_secs(1));
    assert_eq!(next_frame(&sim), None);
    mend(&mut sim);
    let offer = sim.peer.restart_ice(sim.now).unwrap();
    answer(&mut sim, &offer);
    sim.run(Duration::from_secs(2));
    assert_eq!((connections(&sim), sim.peer.is_connected()), (2, true));
    assert!(next_frame(&sim).unwrap() > lost + Duration::from_secs(1));
    let back = received(&sim).iter().filter(|(_, at)| *at > lost).count();
    assert!(back >= 90, "{back}");
    cut(&mut sim);
    sim.run(Duration::from_secs(30));
    assert_eq!((losses(&sim), connections(&sim)), (2, 2));
}

#[test]
fn nothing_leaves_a_peer_that_is_cut_off() {
    let mut sim = publisher();
    sim.run(Duration::from_secs(1));
    let sent = Rc::new(Cell::new(0));
    let counted = sent.clone();
    sim.fate_up = Box::new(move |_| {
        counted.set(counted.get() + 1);
        Fate::Deliver(ms(0))
    });
    let before = sim.peer.counters();
    let from = sim.now;
    sim.peer.cut_off_until(from + ms(500));
    await_frame(&mut sim);
    sim.run(ms(499));
    let during = sim.peer.counters();
    assert_eq!(sent.get(), 0);
    assert_eq!(during.transport.datagrams.sent, before.transport.datagrams.sent);
    assert!(during.impairment.unsent >= 24, "{:?}", during.impairment);
    assert_eq!(next_frame(&sim), None);
    sim.run(ms(100));
    assert!(sent.get() >= 4);
    assert!(next_frame(&sim).unwrap() >= from + ms(500));
    assert_eq!(sim.peer.counters().impairment.unsent, during.impairment.unsent);
    let now = sim.now;
    sim.peer.begin_measuring(now);
    assert_eq!(sim.peer.counters().impairment.unsent, 0);
}
