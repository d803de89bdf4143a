//! Whatever the network sends, a peer counts it and lives on.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::*;
use stampede_core::{Arrival, Peer, PeerEvent, Scratch, Slots};
use str0m::Rtc;
use str0m::change::{SdpAnswer, SdpOffer};
use str0m::media::{Direction, MediaKind};

fn connected() -> Sim {
    let start = Instant::now();
    let server = Server::new(start, Rtc::builder());
    let peer = Peer::subscriber(start, peer_addr(), &options(), true).unwrap();
    let mut sim = Sim::new(start, peer, server);
    let mut changes = sim.server.rtc.sdp_api();
    changes.add_media(MediaKind::Video, Direction::SendOnly, None, None, None);
    changes.add_channel("_reliable".to_owned());
    let (offer, pending) = changes.apply().unwrap();
    let answer = sim.peer.accept_offer(start, &offer.to_sdp_string(), &[]).unwrap();
    let answer = SdpAnswer::from_sdp_string(&answer).unwrap();
    sim.server.rtc.sdp_api().accept_answer(pending, answer).unwrap();
    sim.run_until_event(Duration::from_secs(5), |event| *event == PeerEvent::Connected);
    sim
}

/// Random bytes with a first byte that leads into each of RFC 7983's branches, and mutations of
/// real datagrams.
fn hostile_datagram(rng: &mut Rng, real: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = if rng.chance(500) && !real.is_empty() {
        real[rng.below(real.len() as u64) as usize].clone()
    } else {
        let length = rng.below(1_500) as usize;
        (0..length).map(|_| rng.next() as u8).collect()
    };
    if let Some(first) = bytes.first_mut()
        && rng.chance(700)
    {
        *first = [0, 1, 22, 23, 63, 0x80, 0x90, 0xbf][rng.below(8) as usize];
    }
    for _ in 0..rng.below(6) {
        let at = rng.below(bytes.len() as u64) as usize;
        if let Some(byte) = bytes.get_mut(at) {
            *byte = rng.next() as u8;
        }
    }
    bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize + 1);
    bytes
}

#[test]
fn malformed_datagrams_never_panic() {
    let mut sim = connected();
    let real: Vec<_> = sim.delivered.iter().map(|delivered| delivered.bytes.clone()).collect();
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        for _ in 0..500 {
            let bytes = hostile_datagram(&mut rng, &real);
            let at = Arrival { instant: sim.now, unix_ns: UNIX_BASE_NS };
            sim.peer.handle_datagram(at, server_addr(), &bytes, &mut Scratch::default());
            if rng.chance(100) {
                sim.now += Duration::from_micros(rng.below(20_000));
                sim.peer.handle_timeout(sim.now);
                sim.peer.drain(sim.now, &mut sim.sink);
            }
        }
    }
    let transport = sim.peer.counters().transport;
    assert!(transport.malformed > 100 && transport.unknown_ssrc > 100, "{transport:?}");
    let video = sim.peer.counters().video;
    assert_eq!((video.packets.received, video.packets.missing), (0, 0), "nothing was believed");
    sim.peer.close(sim.now, &mut sim.sink);
    sim.peer.final_report(sim.now);
}

/// dimpl would hand it out as if the server had encrypted it.
#[test]
fn dtls_data_in_clear_is_malformed() {
    let mut sim = connected();
    let mut record = vec![23, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 28];
    record.extend([0x13, 0x88, 0x13, 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 4]);
    record.resize(13 + 28, 0);
    let before = sim.peer.counters().transport.malformed;
    for number in 1..=200 {
        record[10] = number;
        let at = Arrival { instant: sim.now, unix_ns: UNIX_BASE_NS };
        sim.peer.handle_datagram(at, server_addr(), &record, &mut Scratch::default());
    }
    assert_eq!(sim.peer.counters().transport.malformed, before + 200);
    sim.run(Duration::from_secs(1));
    assert!(sim.peer.is_alive());
}

#[test]
fn media_before_an_offer_or_a_connection_is_counted() {
    let now = Instant::now();
    let mut peer = Peer::subscriber(now, peer_addr(), &options(), false).unwrap();
    let mut packet = vec![0x80, 96, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4];
    packet.extend([0; 64]);
    let at = Arrival { instant: now, unix_ns: UNIX_BASE_NS };
    peer.handle_datagram(at, server_addr(), &packet, &mut Scratch::default());
    peer.handle_datagram(at, server_addr(), &[], &mut Scratch::default());
    let transport = peer.counters().transport;
    assert_eq!((transport.before_connected, transport.malformed), (1, 1));
    assert_eq!(transport.datagrams.received, 2);
}

#[test]
fn bad_negotiation_is_an_error_and_the_peer_stays_usable() {
    let now = Instant::now();
    let mut peer = Peer::subscriber(now, peer_addr(), &options(), false).unwrap();
    for offer in ["", "v=0", "nonsense\r\n", "v=0\r\nm=video\r\n", "m=audio 9 X 0\r\na=ssrc:x"] {
        assert!(peer.accept_offer(now, offer, &[]).is_err(), "{offer:?}");
    }
    assert!(peer.accept_answer(now, "v=0", &[]).is_err());
    for unusable in [
        "",
        "candidate:375738803 1 tcp 1671430143 127.0.0.1 7881 typ host tcptype passive",
        "candidate:1 1 udp 2130706431 5b3f.local 7882 typ host",
        "candidate:1 1 udp 2130706431 media-3.example.com 7882 typ host",
    ] {
        peer.add_remote_candidate(now, unusable).unwrap();
    }
    for broken in ["candidate:", "rubbish", "candidate:1 1 udp x 127.0.0.1 7882 typ host"] {
        assert!(peer.add_remote_candidate(now, broken).is_err(), "{broken:?}");
    }
    let offer = include_str!("data/subscriber-offer-vp8-2.sdp");
    let answer = peer.accept_offer(now, offer, &[]).unwrap();
    let count = |line: &str| answer.lines().filter(|l| l.trim_end() == line).count();
    assert_eq!((count("a=recvonly"), count("a=sendonly")), (2, 0), "{answer}");
    assert!(answer.contains("127.0.0.1 40001 typ host"));
    assert!(!answer.contains("a=ssrc:") && !answer.contains("transport-wide-cc"), "{answer}");
    assert!(peer.is_alive());
}

#[test]
fn bad_answers_to_an_offer_of_slots_are_errors_and_the_peer_stays_usable() {
    let now = Instant::now();
    let mut peer = Peer::subscriber(now, peer_addr(), &options(), false).unwrap();
    let good = {
        let mut server = Server::new(now, Rtc::builder());
        let offer = peer.create_offer(now, Slots { audio: 1, video: 1 }, false).unwrap();
        let offer = SdpOffer::from_sdp_string(&offer).unwrap();
        server.rtc.sdp_api().accept_offer(offer).unwrap().to_sdp_string()
    };
    let without = |start: &str| -> String {
        let kept = good.lines().filter(|line| !line.starts_with(start));
        kept.map(|line| format!("{line}\r\n")).collect()
    };
    let answers = [
        String::new(),
        "v=0\r\n".to_owned(),
        without("m="),
        without("a=mid:"),
        without("a=ice-ufrag:"),
        without("a=fingerprint:"),
        good.replace("m=application", "m=video"),
        good.replace("a=mid:slot1", "a=mid:slot0"),
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        // The former offer is used up by some of them.
        peer.create_offer(now, Slots::default(), true).unwrap();
        assert!(peer.accept_answer(now, &answer, &[]).is_err(), "{number}: {answer}");
    }
}

/// A subscriber that is told of a server which has not said anything yet.
fn meeting(start: Instant) -> Sim {
    let server = Server::new(start, Rtc::builder());
    let peer = Peer::subscriber(start, peer_addr(), &options(), false).unwrap();
    let mut sim = Sim::new(start, peer, server);
    let mut changes = sim.server.rtc.sdp_api();
    changes.add_media(MediaKind::Video, Direction::SendOnly, None, None, None);
    let (offer, pending) = changes.apply().unwrap();
    let answer = sim.peer.accept_offer(start, &offer.to_sdp_string(), &[]).unwrap();
    let answer = SdpAnswer::from_sdp_string(&answer).unwrap();
    sim.server.rtc.sdp_api().accept_answer(pending, answer).unwrap();
    sim
}

/// Records and messages of DTLS in clear that end a handshake, or stay in it, where they are believed.
fn forged_handshakes(number: u16) -> Vec<Vec<u8>> {
    let record = |kind: u8, body: &[u8]| {
        let mut record = vec![kind, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0];
        record.extend(number.to_be_bytes());
        record.extend((body.len() as u16).to_be_bytes());
        record.extend(body);
        record
    };
    let mut forged = vec![
        record(21, &[2, 40]),
        record(21, &[1, 0]),
        record(20, &[1]),
        record(23, &[7; 60]),
        vec![22; 200],
    ];
    for kind in [1, 2, 3, 11, 12, 13, 14, 16, 20] {
        for message in 0..8 {
            let mut body = vec![kind, 0, 1, 0, 0, message, 0, 0, 50, 0, 0, 20];
            body.resize(12 + 20, 9);
            forged.push(record(22, &body));
        }
    }
    forged
}

#[test]
fn a_handshake_gets_there_whatever_comes_from_the_servers_address() {
    let mut sim = meeting(Instant::now());
    let start = sim.now;
    let mut number = 0;
    while !sim.sink.events.contains(&PeerEvent::Connected) {
        assert!(sim.now < start + Duration::from_secs(4), "it does not");
        for datagram in forged_handshakes(number) {
            let at = sim.arrival();
            sim.peer.handle_datagram(at, server_addr(), &datagram, &mut Scratch::default());
        }
        number += 1;
        sim.run(Duration::from_millis(5));
    }
    assert!(sim.peer.is_alive() && number > 1);
}

/// Whole messages, which nobody could tell from the server's.
#[test]
fn a_stranger_has_no_part_in_a_handshake() {
    let mut sim = meeting(Instant::now());
    let start = sim.now;
    let stranger = "127.0.0.1:9".parse().unwrap();
    // A HelloVerifyRequest, after which the client begins anew.
    let verify =
        [22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 3, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 4];
    let verify = [&verify[..], &[0xfe, 0xff, 1, 7]].concat();
    let mut strange = 0;
    while !sim.sink.events.contains(&PeerEvent::Connected) {
        assert!(sim.now < start + Duration::from_secs(1), "it takes part");
        for datagram in forged_handshakes(strange).into_iter().chain([verify.clone()]) {
            let at = sim.arrival();
            sim.peer.handle_datagram(at, stranger, &datagram, &mut Scratch::default());
        }
        strange += 1;
        sim.run(Duration::from_millis(5));
    }
    let each = forged_handshakes(0).len() as u64 + 1;
    assert_eq!(sim.peer.counters().transport.malformed, each * u64::from(strange));
    // STUN that is nobody's, and is for nobody.
    for length in [0, 4, 40, 96] {
        let mut stun = vec![0, 1, 0, length, 0x21, 0x12, 0xa4, 0x42];
        stun.resize(20 + usize::from(length), 9);
        for first in [[0, 1], [1, 1], [1, 0x11]] {
            stun[..2].copy_from_slice(&first);
            let at = sim.arrival();
            sim.peer.handle_datagram(at, stranger, &stun, &mut Scratch::default());
        }
    }
    sim.run(Duration::from_secs(1));
    assert!(sim.peer.is_alive());
}
