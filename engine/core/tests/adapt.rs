//! A publisher that obeys the server's feedback, over a way to the server whose rate is limited for a
//! while. The server is a plain str0m.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::*;
use stampede_core::crypto::{provider, with_key_slot};
use stampede_core::srtp::KeySlot;
use stampede_core::{
    AudioOptions, MediaKind, Peer, PeerEvent, PeerOptions, PublishLayer, PublishTrack, Sample,
    Scratch, Slots,
};
use str0m::change::SdpOffer;
use str0m::rtp::Extension;
use str0m::rtp::rtcp::Twcc;
use str0m::{Event, Rtc};

/// With 25 frames a second and 156 bytes a packet 125, 437 and 1,560 kbit/s.
const PACKETS_A_FRAME: [(&str, usize); 3] = [("q", 4), ("h", 14), ("f", 50)];
/// Room for the lower two.
const LIMIT_BPS: f64 = 900e3;
/// Where packets queue at the limit, as in a home router.
const QUEUE_MAX: Duration = Duration::from_millis(300);
/// When the limit comes, and goes.
const LIMITED: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(40)];

fn publisher(adapt: bool, feedback: bool) -> Sim {
    publisher_with_keys(adapt, feedback).0
}

/// With the keys of the server's SRTP, too.
fn publisher_with_keys(adapt: bool, feedback: bool) -> (Sim, KeySlot) {
    let start = Instant::now();
    let layer = |(rid, packets): (&'static str, usize)| PublishLayer {
        rid: Some(rid),
        clip: Arc::new(vp8_clip(50, 25, 25, move |_| packets)),
    };
    let track = PublishTrack {
        cid: "camera".to_owned(),
        kind: MediaKind::Video,
        layers: PACKETS_A_FRAME.map(layer).into(),
        start_offset: Duration::ZERO,
        speaking: None,
        audio: AudioOptions::default(),
    };
    let mut config = Rtc::builder();
    if !feedback {
        config = config.clear_extension_map().set_extension(4, Extension::RtpMid);
        config = config.set_extension(10, Extension::RtpStreamId);
    }
    let config = config.set_crypto_provider(Arc::new(provider()));
    let (server, keys) = with_key_slot(|| Server::new(start, config));
    let options = PeerOptions { adapt, ..options() };
    let peer = Peer::publisher(start, peer_addr(), &options, vec![track]).unwrap();
    let mut sim = Sim::new(start, peer, server);
    let text = sim.peer.create_offer(start, Slots::default(), true).unwrap();
    let offer = SdpOffer::from_sdp_string(&text).unwrap();
    let answer = sim.server.rtc.sdp_api().accept_offer(offer).unwrap();
    sim.peer.accept_answer(start, &answer.to_sdp_string(), &[]).unwrap();
    let (clock, mut free_at) = (Rc::clone(&sim.clock), start);
    sim.fate_up = Box::new(move |datagram| {
        let now = clock.get();
        if !(LIMITED[0]..LIMITED[1]).contains(&(now - start)) {
            return Fate::Deliver(Duration::ZERO);
        }
        let waits = free_at.saturating_duration_since(now);
        if waits > QUEUE_MAX {
            return Fate::Drop;
        }
        let takes = Duration::from_secs_f64(datagram.len() as f64 * 8.0 / LIMIT_BPS);
        free_at = now.max(free_at) + takes;
        Fate::Deliver(waits + takes)
    });
    sim.run_until_event(Duration::from_secs(5), |event| *event == PeerEvent::Connected);
    (sim, keys)
}

/// How many layers came in the next second, and packets of all together.
fn arriving(sim: &mut Sim) -> (usize, usize) {
    sim.server.events.clear();
    sim.run(Duration::from_secs(1));
    let mut streams = BTreeMap::<u32, usize>::new();
    for event in &sim.server.events {
        if let Event::RtpPacket(packet) = event
            && !packet.payload.is_empty()
        {
            *streams.entry(*packet.header.ssrc).or_default() += 1;
        }
    }
    (streams.len(), streams.values().sum())
}

/// Whether this is what comes of all three layers in a second.
fn is_everything((layers, packets): (usize, usize)) -> bool {
    layers == 3 && packets > 25 * 60
}

/// Whether this is what comes of the lower two. Packets this small are two thirds of what they take of
/// the way, and padding looks for more room, so some are lost.
fn is_lower_two((layers, packets): (usize, usize)) -> bool {
    layers == 2 && (25 * 8..25 * 24).contains(&packets)
}

#[test]
fn layers_go_and_come_back_with_the_rate_of_the_way() {
    let mut sim = publisher(true, true);
    sim.run(Duration::from_secs(7));
    let came = arriving(&mut sim);
    assert!(is_everything(came), "{came:?}");
    let dropped = sim.peer.counters().publish.layer_drops;

    sim.run_until(sim.start + LIMITED[0] + Duration::from_secs(8));
    for second in 18..36 {
        let came = arriving(&mut sim);
        assert!(is_lower_two(came), "{came:?} in second {second}");
    }
    let publish = sim.peer.counters().publish;
    assert!(publish.layer_drops > dropped && publish.frames_withheld > 25 * 16);

    sim.run_until(sim.start + LIMITED[1] + Duration::from_secs(15));
    let came = arriving(&mut sim);
    assert!(is_everything(came), "{came:?}");
    let estimates = sim.sink.samples.iter().filter_map(|sample| match sample {
        Sample::UplinkEstimate { bitrate_bps } => Some(*bitrate_bps),
        _ => None,
    });
    assert_eq!(estimates.clone().next(), Some(300_000));
    assert!(estimates.max() > Some(2_000_000));
}

#[test]
fn who_does_not_obey_sends_all_the_same() {
    let mut sim = publisher(false, true);
    sim.run_until(sim.start + LIMITED[0] + Duration::from_secs(5));
    // Whatever the way lets through of them.
    assert_eq!(arriving(&mut sim).0, 3);
    let publish = sim.peer.counters().publish;
    assert_eq!((publish.layer_drops, publish.frames_withheld), (0, 0));
    assert!(sim.sink.samples.iter().all(|s| !matches!(s, Sample::UplinkEstimate { .. })));
}

#[test]
fn a_report_of_arrivals_that_str0m_panics_at_is_none() {
    let (mut sim, keys) = publisher_with_keys(true, true);
    sim.run(Duration::from_secs(2));
    let mut numbers = sim.server.events.iter().filter_map(|event| match event {
        Event::RtpPacket(packet) => packet.header.ext_vals.transport_cc,
        _ => None,
    });
    let number = numbers.next_back().unwrap();
    // Of one packet: a run of no small deltas, and one of a large one.
    let mut report = vec![0x8f, 205, 0, 6, 0, 0, 0, 9, 0, 0, 0, 9];
    report.extend(number.to_be_bytes());
    report.extend([0, 1, 0, 0, 9, 0, 0x20, 0, 0x40, 1, 0, 4, 0, 0]);
    let read = Twcc::try_from(&report[4..]).unwrap().into_iter(sim.start, u64::from(number).into());
    assert!(std::panic::catch_unwind(|| read.count()).is_err(), "str0m has learnt to read it");
    // Behind another packet, too.
    let compound = [&[0x80, 201, 0, 1, 0, 0, 0, 9], &report[..]].concat();
    let mut sealer = keys.get().unwrap().srtcp_sealer().unwrap();
    let before = sim.peer.counters().transport.malformed;
    for hostile in [report, compound] {
        let datagram = sealer.seal(&hostile).unwrap();
        let at = sim.arrival();
        sim.peer.handle_datagram(at, server_addr(), &datagram, &mut Scratch::default());
    }
    assert_eq!(sim.peer.counters().transport.malformed, before + 2);
    sim.run(Duration::from_secs(4));
    let came = arriving(&mut sim);
    assert!(is_everything(came), "{came:?}");
}

#[test]
fn without_feedback_everything_is_sent() {
    let mut sim = publisher(true, false);
    sim.run(Duration::from_secs(5));
    let came = arriving(&mut sim);
    assert!(is_everything(came), "{came:?}");
    assert_eq!(sim.peer.counters().publish.layer_drops, 0);
}
