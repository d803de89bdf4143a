//! A subscriber that offers, over LiveKit's single connection, against a plain str0m server.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::*;
use stampede_core::{
    AudioOptions, MediaKind, NegotiateError, Peer, PeerEvent, PeerRole, PublishLayer, PublishTrack,
    Slots,
};
use stampede_sdp::Description;
use str0m::change::SdpOffer;
use str0m::rtp::{RtpWrite, Ssrc};
use str0m::{Event, Rtc};

/// Names the tracks of an answer by mid.
fn mids(answer: &str) -> Vec<(String, String)> {
    let description = Description::parse(answer).unwrap();
    let bound = description.media.iter().filter(|media| !media.ssrcs.is_empty());
    bound.map(|media| (media.mid.to_owned(), format!("TR_{}", media.mid))).collect()
}

struct Pair {
    sim: Sim,
}

impl Pair {
    fn new() -> Self {
        Self { sim: Sim::subscriber(false) }
    }

    /// Of a peer that sends a track too.
    fn that_sends(codec_clip: stampede_media::MediaClip) -> Self {
        let layer = PublishLayer { rid: None, clip: codec_clip.into() };
        let track = PublishTrack {
            cid: "cam".to_owned(),
            kind: MediaKind::Video,
            layers: vec![layer],
            start_offset: Duration::ZERO,
            speaking: None,
            audio: AudioOptions::default(),
        };
        let start = std::time::Instant::now();
        let role = PeerRole { tracks: vec![track], ..PeerRole::subscriber(false) };
        let peer = Peer::with_role(start, peer_addr(), &options(), role).unwrap();
        let config = Rtc::builder().set_stats_interval(Some(Duration::from_secs(1)));
        Self { sim: Sim::new(start, peer, Server::new(start, config)) }
    }

    fn connected(slots: Slots) -> Self {
        Self::new().connect(slots)
    }

    fn connect(mut self, slots: Slots) -> Self {
        let pair = &mut self;
        let offer = pair.sim.peer.create_offer(pair.sim.now, slots, false).unwrap();
        pair.negotiate(&offer);
        pair.sim.run_until_event(Duration::from_secs(5), |event| *event == PeerEvent::Connected);
        pair.sim.run(ms(100));
        self
    }

    /// The server's answer to an offer.
    fn answer(&mut self, offer: &str) -> String {
        let offer = SdpOffer::from_sdp_string(offer).unwrap();
        self.sim.server.rtc.sdp_api().accept_offer(offer).unwrap().to_sdp_string()
    }

    fn negotiate(&mut self, offer: &str) -> String {
        let answer = self.answer(offer);
        self.sim.peer.accept_answer(self.sim.now, &answer, &mids(&answer)).unwrap();
        self.sim.exchange();
        answer
    }

    /// Sends so many frames of one packet over a slot.
    fn send(&mut self, mid: &str, frames: usize, first: u64) {
        let clip = vp8_clip(frames, 25, 10, |_| 1);
        let mut direct = self.sim.server.rtc.direct_api();
        let ssrc: Ssrc = direct.stream_tx_by_mid(mid.into(), None).unwrap().ssrc();
        let begin = self.sim.now;
        for (number, frame) in clip.frames.iter().enumerate() {
            self.sim.run_until(begin + ms(40 * number as u64));
            let now = self.sim.now;
            self.sim.server_writes(|rtc| {
                let mut direct = rtc.direct_api();
                let stream = direct.stream_tx(&ssrc).unwrap();
                let (sequence, payload) = (first + number as u64, frame.packets[0].clone());
                let timestamp = frame.timestamp_ticks as u32;
                let rtp = RtpWrite::new(96.into(), sequence.into(), timestamp, now, payload);
                stream.write_rtp(rtp.marker(true));
            });
        }
        self.sim.run(ms(100));
    }
}

const TWO: Slots = Slots { audio: 1, video: 2 };

#[test]
fn what_the_server_sends_on_a_slot_is_received() {
    let mut pair = Pair::connected(TWO);
    pair.send("slot1", 50, 1);
    // A further slot is negotiated while the first goes on.
    let offer =
        pair.sim.peer.create_offer(pair.sim.now, Slots { audio: 0, video: 1 }, false).unwrap();
    pair.negotiate(&offer);
    pair.send("slot1", 50, 51);
    pair.send("slot3", 25, 1);
    let streams = pair.sim.finish();
    let received = |mid: &str| {
        let stream = streams.iter().find(|stream| stream.mid == mid).unwrap();
        assert_eq!((stream.kind, stream.closed), (MediaKind::Video, false));
        assert_eq!(stream.track_id.as_deref(), Some(format!("TR_{mid}").as_str()));
        let packets = &stream.packets;
        (packets.received, packets.missing, stream.frames.complete)
    };
    assert_eq!(received("slot1"), (100, 0, 100));
    assert_eq!(received("slot3"), (25, 0, 25));
    assert_eq!(pair.sim.peer.counters().transport.errors, 0);
}

#[test]
fn a_slot_is_used_again_by_another_track() {
    let mut pair = Pair::connected(TWO);
    pair.send("slot1", 30, 1);
    let offer = pair.sim.peer.create_offer(pair.sim.now, Slots::default(), true).unwrap();
    let answer = pair.answer(&offer);
    let ssrcs = |answer: &str, mid: &str| {
        let answer = Description::parse(answer).unwrap();
        let media = answer.media.iter().find(|media| media.mid == mid).unwrap();
        media.ssrcs[0].ssrc
    };
    // Track and SSRC are others, the mid is the same.
    let (old, other) = (ssrcs(&answer, "slot1"), 77_777_777);
    let changed = answer.replace(&old.to_string(), &other.to_string());
    let named = [("slot1".to_owned(), "TR_other".to_owned())];
    pair.sim.peer.accept_answer(pair.sim.now, &changed, &named).unwrap();
    // What the track is gone from is inactive.
    let offer = pair.sim.peer.create_offer(pair.sim.now, Slots::default(), true).unwrap();
    let answer = pair.answer(&offer);
    let none = answer.replace("a=sendonly", "a=inactive");
    pair.sim.peer.accept_answer(pair.sim.now, &none, &[]).unwrap();
    let streams = pair.sim.finish();
    let of = |ssrc: u32| streams.iter().find(|stream| stream.ssrc == ssrc).unwrap();
    assert_eq!((of(old).closed, of(old).packets.received), (true, 30));
    assert_eq!((of(other).closed, of(other).track_id.as_deref()), (true, Some("TR_other")));
    assert!(streams.iter().all(|stream| stream.closed), "{streams:?}");
}

#[test]
fn ice_is_restarted_by_an_offer_and_media_goes_on() {
    let mut pair = Pair::connected(TWO);
    pair.send("slot1", 30, 1);
    let ufrag =
        |text: &str| Description::parse(text).unwrap().transport().ice_ufrag.unwrap().to_owned();
    let plain = pair.sim.peer.create_offer(pair.sim.now, Slots::default(), true).unwrap();
    let before = pair.negotiate(&plain);
    let restart = pair.sim.peer.restart_ice(pair.sim.now).unwrap();
    assert_ne!(ufrag(&plain), ufrag(&restart));
    pair.sim.sink.events.clear();
    let after = pair.negotiate(&restart);
    assert_ne!(ufrag(&before), ufrag(&after));
    pair.sim.run_until_event(Duration::from_secs(5), |event| *event == PeerEvent::IceConnected);
    pair.send("slot1", 30, 31);
    // Later offers have the new credentials.
    let later = pair.sim.peer.create_offer(pair.sim.now, Slots::default(), true).unwrap();
    assert_eq!(ufrag(&later), ufrag(&restart));
    let streams = pair.sim.finish();
    let stream = streams.iter().find(|stream| stream.mid == "slot1").unwrap();
    let packets = &stream.packets;
    assert_eq!((packets.received, packets.missing), (60, 0));
}

#[test]
fn whoever_offers_takes_no_offers_and_no_answer_twice() {
    let mut pair = Pair::new();
    let now = pair.sim.now;
    let too_early = pair.sim.peer.accept_answer(now, "v=0\r\nm=audio 9 X 0\r\na=mid:0\r\n", &[]);
    assert!(matches!(too_early, Err(NegotiateError::NoOffer)), "{too_early:?}");
    assert!(matches!(pair.sim.peer.restart_ice(now), Err(NegotiateError::WrongRole(_))));
    let offer = pair.sim.peer.create_offer(now, TWO, false).unwrap();
    let captured = include_str!("data/subscriber-offer-vp8-2.sdp");
    let refused = pair.sim.peer.accept_offer(now, captured, &[]);
    assert!(matches!(refused, Err(NegotiateError::WrongRole(_))), "{refused:?}");
    let answer = pair.negotiate(&offer);
    let again = pair.sim.peer.accept_answer(now, &answer, &[]);
    assert!(matches!(again, Err(NegotiateError::NoOffer)), "{again:?}");
    assert!(pair.sim.peer.is_alive());
}

/// Both ways over one connection, as a browser in a meeting: what it sends is offered behind what it
/// receives by, and neither half takes anything from the other.
#[test]
fn a_peer_that_does_both_sends_and_receives_over_one_connection() {
    let mut pair = Pair::that_sends(vp8_clip(50, 25, 10, |_| 2)).connect(TWO);
    pair.send("slot1", 25, 1);
    assert_eq!(pair.sim.peer.counters().publish.packets_sent, 0, "its track was not offered yet");
    let offer = pair.sim.peer.create_offer(pair.sim.now, Slots::default(), true).unwrap();
    let offered = Description::parse(&offer).unwrap();
    let words: Vec<_> = offered.media.iter().map(|media| media.media_word).collect();
    assert_eq!(words, ["application", "audio", "video", "video", "video"]);
    assert!(offered.media.last().unwrap().direction.sends());
    assert_eq!(offered.bundled.len(), 5);
    pair.negotiate(&offer);
    // A keyframe is asked for, and receiver reports come, in the same datagrams that tell of what
    // the server sends.
    pair.sim.server_writes(|rtc| {
        let mut direct = rtc.direct_api();
        let mid = offered.media.last().unwrap().mid;
        if let Some(stream) = direct.stream_rx_by_mid(mid.into(), None) {
            stream.request_keyframe(str0m::media::KeyframeRequestKind::Pli);
        }
    });
    pair.send("slot1", 50, 26);
    let sent_before_restart = pair.sim.peer.counters().publish.packets_sent;
    assert!(sent_before_restart >= 50, "{sent_before_restart}");
    // Both go on over a restart of ICE.
    let restart = pair.sim.peer.restart_ice(pair.sim.now).unwrap();
    pair.negotiate(&restart);
    pair.send("slot1", 25, 76);
    pair.sim.run(Duration::from_secs(3));
    let published = pair.sim.peer.counters().publish;
    assert!(published.packets_sent > sent_before_restart, "{published:?}");
    assert_eq!(published.upstream_lost, Some(0), "the server's reports are read: {published:?}");
    let arrived = pair.sim.server.events.iter();
    let arrived = arrived.filter(|event| matches!(event, Event::RtpPacket(_))).count() as u64;
    let sent = published.packets_sent;
    let streams = pair.sim.finish();
    assert!(arrived <= sent && sent - arrived <= 4, "{arrived} of {sent}");
    let [stream] = &streams.iter().filter(|one| one.packets.received > 0).collect::<Vec<_>>()[..]
    else {
        panic!("{streams:?}")
    };
    assert_eq!((stream.packets.received, stream.packets.missing), (100, 0));
    let transport = pair.sim.peer.counters().transport;
    assert_eq!((transport.errors, transport.rejected), (0, 0), "{transport:?}");
}

/// A server that answers with what can't be read is asked again, with everything.
#[test]
fn tracks_are_offered_again_after_an_answer_that_could_not_be_applied() {
    let mut pair = Pair::that_sends(vp8_clip(50, 25, 10, |_| 1)).connect(TWO);
    let now = pair.sim.now;
    let first = pair.sim.peer.create_offer(now, Slots::default(), true).unwrap();
    let answer = pair.answer(&first).replace("a=setup:", "a=no-setup:");
    let broken = answer.split("m=").take(2).collect::<Vec<_>>().join("m=");
    assert!(pair.sim.peer.accept_answer(now, &broken, &[]).is_err());
    let again = pair.sim.peer.create_offer(now, Slots::default(), false).unwrap();
    let described = Description::parse(&again).unwrap();
    assert_eq!(described.media.len(), 5, "{again}");
    assert!(described.media.last().unwrap().direction.sends());
}
