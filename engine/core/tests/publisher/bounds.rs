//! When a publisher sends beside str0m: once the handshake is over, not after the end of the connection,
//! and of what it is asked for again not more at a time than a drain may send.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use stampede_core::peer::PACKETS_PER_DRAIN_MAX;
use stampede_core::{MediaFailure, MediaKind, Peer, PeerEvent, Scratch, Slots};
use str0m::Rtc;
use str0m::change::SdpOffer;

use super::common::*;
use super::{connect, packets, track};

/// `RESENDS_MAX` of `peer/publishing.rs`.
const RESENDS_MAX: u64 = 4_096;

type Datagrams = Rc<RefCell<Vec<Vec<u8>>>>;

/// The datagrams that the peer sends from now on.
fn sent(sim: &mut Sim) -> Datagrams {
    let sent = Datagrams::default();
    let into = Rc::clone(&sent);
    sim.fate_up = Box::new(move |bytes| {
        into.borrow_mut().push(bytes.to_vec());
        Fate::Deliver(Duration::ZERO)
    });
    sent
}

fn is_rtp(datagram: &[u8]) -> bool {
    rtp(datagram).is_some()
}

fn is_rtcp(datagram: &[u8]) -> bool {
    !is_rtp(datagram) && datagram[0] >> 6 == 2
}

/// As livekit-server answers: it is the DTLS client, so that the end of the handshake is ours to send.
/// Who has not got it has no keys, and drops media.
#[test]
fn nothing_is_sent_before_the_end_of_our_handshake() {
    let start = Instant::now();
    let cam = track("cam", MediaKind::Video, vec![(None, vp8_clip(30, 30, 30, |_| 4))]);
    let peer = Peer::publisher(start, peer_addr(), &options(), vec![cam]).unwrap();
    let mut sim = Sim::new(start, peer, Server::new(start, Rtc::builder()));
    let offer = sim.peer.create_offer(start, Slots::default(), true).unwrap();
    let offer = offer.replace("a=setup:actpass", "a=setup:passive");
    let offer = SdpOffer::from_sdp_string(&offer).unwrap();
    let answer = sim.server.rtc.sdp_api().accept_offer(offer).unwrap().to_sdp_string();
    assert!(answer.contains("a=setup:active"), "{answer}");
    sim.peer.accept_answer(start, &answer, &[]).unwrap();
    let sent = sent(&mut sim);
    sim.run_until_event(Duration::from_secs(5), |event| *event == PeerEvent::Connected);
    sim.run(Duration::from_secs(1));
    let sent = sent.borrow();
    // RFC 7983 §7.
    let end = sent.iter().rposition(|bytes| (20..64).contains(&bytes[0])).unwrap();
    let media = sent.iter().position(|bytes| is_rtp(bytes) || is_rtcp(bytes)).unwrap();
    assert!(end < media, "the handshake ends with {end}, media begins with {media}");
    // Its first picture was due with the connection.
    let first: Vec<_> = sent.iter().filter_map(|bytes| rtp(bytes)).take(4).collect();
    let got = packets(&sim).map(|packet| (*packet.header.ssrc, packet.header.sequence_number));
    assert_eq!(got.take(4).collect::<Vec<_>>(), first);
}

#[test]
fn nothing_is_sent_after_the_server_has_closed_the_connection() {
    let clip = vp8_clip(30, 30, 30, |_| 4);
    let (mut sim, _) = connect(vec![track("cam", MediaKind::Video, vec![(None, clip)])]);
    sim.run(Duration::from_secs(1));
    sim.server_writes(|rtc| rtc.close().unwrap());
    let closed = |event: &PeerEvent| {
        let PeerEvent::Disconnected { failure } = event else { return false };
        matches!(**failure, MediaFailure::Closed)
    };
    sim.run_until_event(Duration::from_secs(1), closed);
    let before = sim.peer.counters();
    let sent = sent(&mut sim);
    sim.run(Duration::from_secs(1));
    assert_eq!(*sent.borrow(), Vec::<Vec<u8>>::new());
    let after = sim.peer.counters();
    assert_eq!(after.publish, before.publish, "nothing counts as sent");
    assert_eq!(after.impairment.unsent, 0, "nor as kept from leaving on purpose");
}

#[test]
fn what_is_asked_for_again_is_sent_a_drain_at_a_time() {
    let clip = vp8_clip(300, 30, 300, |_| 20);
    let (mut sim, _) = connect(vec![track("cam", MediaKind::Video, vec![(None, clip)])]);
    sim.run(ms(500));
    // One picture is lost, and what the server says of it is kept from the peer.
    let mut lost = 0;
    sim.fate_up = Box::new(move |bytes| {
        lost += u64::from(is_rtp(bytes));
        if is_rtp(bytes) && lost <= 20 { Fate::Drop } else { Fate::Deliver(ms(0)) }
    });
    let told = Datagrams::default();
    let into = Rc::clone(&told);
    sim.fate = Box::new(move |bytes| {
        if is_rtcp(bytes) {
            into.borrow_mut().push(bytes.to_vec());
            return Fate::Drop;
        }
        Fate::Deliver(ms(0))
    });
    sim.run(ms(200));
    let (at, told) = (sim.arrival(), told.take());
    let again = |sim: &Sim| sim.peer.counters().publish.retransmitted;
    let tell = |sim: &mut Sim, datagram: &[u8], times: u64| {
        for _ in 0..times {
            sim.peer.handle_datagram(at, server_addr(), datagram, &mut Scratch::default());
        }
    };
    // Of all that it said, what asks for the whole picture.
    let nack = told.iter().find(|datagram| {
        let before = again(&sim);
        tell(&mut sim, datagram, 1);
        sim.peer.drain(at.instant, &mut sim.sink);
        again(&sim) - before == 20
    });
    let nack = nack.unwrap_or_else(|| panic!("none of {}", told.len()));
    tell(&mut sim, nack, 30);
    let most = PACKETS_PER_DRAIN_MAX as u64;
    for (now, left) in [(most, 344), (most, 88), (88, 0)] {
        let (before, datagrams) = (again(&sim), sim.sink.datagrams.len());
        let wake = sim.peer.drain(at.instant, &mut sim.sink);
        assert_eq!(again(&sim) - before, now);
        assert_eq!((sim.sink.datagrams.len() - datagrams) as u64, now);
        assert_eq!(wake <= at.instant, left > 0, "the rest is wanted at once");
    }
    // Between two drains it takes note of so many, and counts the rest.
    let (before, unsent) = (again(&sim), sim.peer.counters().transport.dropped_unsent);
    tell(&mut sim, nack, RESENDS_MAX / 20 + 1);
    while sim.peer.drain(at.instant, &mut sim.sink) <= at.instant {}
    assert_eq!(again(&sim) - before, RESENDS_MAX);
    let unsent = sim.peer.counters().transport.dropped_unsent - unsent;
    assert_eq!(unsent, 20 - RESENDS_MAX % 20);
}
