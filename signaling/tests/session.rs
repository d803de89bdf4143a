//! The session against captured offers and hand-made messages, in virtual time.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests

mod common;

use std::time::Duration;

use common::*;
use livekit_protocol as proto;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use stampede_sdp::{MediaKind, Slots};
use stampede_signaling::session::*;

const SECOND: Duration = Duration::from_secs(1);

fn pong(ping: proto::Ping) -> proto::SignalResponse {
    let pong = proto::Pong { last_ping_timestamp: ping.timestamp, timestamp: 1 };
    response(Response::PongResp(pong))
}

/// The order measured on livekit-server 1.13.5: join, refresh_token, offer with data channels only,
/// two trickles, then an update and the offer with the tracks after our answer.
#[test]
fn real_order_of_a_subscribers_join() {
    let mut h = Harness::subscriber(Subscription::Auto, Quality::Low);
    h.receive(join(vec![participant(PUBLISHER, audio_and_video())]));
    let SessionEvent::Joined(joined) = &h.events[0] else { panic!("{:?}", h.events) };
    assert_eq!(joined.participant_sid, "PA_self");
    assert_eq!(joined.server_version, "1.13.5");
    assert_eq!(joined.protocol, 17);
    assert_eq!(joined.participants, 1);
    assert!(joined.subscriber_primary);
    assert_eq!(joined.ping_interval, 5 * SECOND);
    assert!(matches!(&h.events[1], SessionEvent::TrackAvailable(t)
        if t.sid == AUDIO && t.kind == MediaKind::Audio && t.publisher_sid == PUBLISHER));
    assert!(matches!(&h.events[2], SessionEvent::TrackAvailable(t)
        if t.sid == video() && t.kind == MediaKind::Video && (t.width, t.height) == (1280, 720)));
    // Quality LOW is 0 on the wire and sent all the same, for the video track only.
    assert_eq!(h.settings(), [(vec![video().to_owned()], 0)]);

    h.receive(response(Response::RefreshToken("eyJ.new.token".into())));
    assert_eq!(h.session.refreshed_token().unwrap().expose(), "eyJ.new.token");

    h.clear();
    let subscriber = proto::SignalTarget::Subscriber;
    h.receive(offer(77, OFFER_DATA, &[]));
    h.receive(trickle(subscriber, &candidate_json(7882), false));
    h.receive(trickle(subscriber, &candidate_json(7881), true));
    let MediaCommand::RemoteOffer { id: 77, sdp, .. } = &h.media[0] else { panic!() };
    assert_eq!(sdp, OFFER_DATA);
    assert!(
        matches!(&h.media[1], MediaCommand::RemoteCandidate { candidate, .. } if candidate.contains("7882"))
    );
    assert_eq!(h.media.len(), 3);

    h.media(MediaInput::LocalAnswer { offer_id: 77, sdp: "v=0 answer".into() });
    let Request::Answer(answer) = &h.sent[0] else { panic!() };
    assert_eq!((answer.r#type.as_str(), answer.sdp.as_str()), ("answer", "v=0 answer"));
    assert_eq!(answer.id, 77);

    h.clear();
    h.receive(offer(78, OFFER_TRACKS, &[("1", AUDIO), ("2", video())]));
    let MediaCommand::RemoteOffer { id: 78, mid_to_track_id, .. } = &h.media[0] else { panic!() };
    let mut map = mid_to_track_id.clone();
    map.sort();
    assert_eq!(map, [("1".into(), AUDIO.into()), ("2".into(), video().to_owned())]);
    let mut mids: Vec<_> = h
        .events
        .iter()
        .map(|event| match event {
            SessionEvent::TrackSubscribed { sid, mid } => (mid.clone(), sid.clone()),
            other => panic!("{other:?}"),
        })
        .collect();
    mids.sort();
    assert_eq!(mids, map);
    // Asked for again now that the subscription stands, and then never more.
    assert_eq!(h.settings(), [(vec![video().to_owned()], 0)]);
    h.media(MediaInput::LocalAnswer { offer_id: 78, sdp: "a".into() });
    h.clear();
    h.receive(offer(79, OFFER_TRACKS, &[("1", AUDIO), ("2", video())]));
    assert_eq!((h.settings().len(), h.events.len()), (0, 0));
    assert_eq!(h.session.counters().malformed, 0);
}

#[test]
fn a_track_published_later_gets_its_quality_by_update() {
    for (quality, number) in [(Quality::Low, 0), (Quality::Medium, 1), (Quality::High, 2)] {
        let mut h = Harness::subscriber(Subscription::Auto, quality);
        h.receive(join(vec![]));
        assert!(h.settings().is_empty());
        h.receive(update(vec![participant(PUBLISHER, audio_and_video())]));
        assert_eq!(h.settings(), [(vec![video().to_owned()], number)]);
        h.receive(update(vec![participant(PUBLISHER, audio_and_video())]));
        assert_eq!(h.settings().len(), 1, "told once, asked once");
    }
}

#[test]
fn manual_subscription_sends_quality_first() {
    let mut h =
        Harness::subscriber(Subscription::Manual { audio: false, video: true }, Quality::Medium);
    h.receive(join(vec![participant(PUBLISHER, audio_and_video())]));
    let [Request::TrackSetting(setting), Request::Subscription(subscription)] = &h.sent[..] else {
        panic!("{:?}", h.sent)
    };
    assert_eq!((setting.quality, setting.disabled), (1, false));
    assert_eq!(setting.track_sids, [video()]);
    assert_eq!(subscription.track_sids, [video()]);
    assert!(subscription.subscribe);
}

#[test]
fn subscription_by_hand() {
    let mut h =
        Harness::subscriber(Subscription::Manual { audio: false, video: false }, Quality::Low);
    h.receive(join(vec![participant(PUBLISHER, audio_and_video())]));
    h.clear();
    h.session.subscribe(vec![AUDIO.into(), video().into()], true);
    h.drain();
    assert_eq!(h.settings(), [(vec![video().to_owned()], 0)]);
    assert!(
        matches!(&h.sent[1], Request::Subscription(s) if s.subscribe && s.track_sids.len() == 2)
    );
    h.clear();
    h.session.subscribe(vec![AUDIO.into()], false);
    h.session.set_quality(vec![video().into()], Quality::High);
    h.drain();
    assert!(matches!(&h.sent[0], Request::Subscription(s) if !s.subscribe));
    assert_eq!(h.settings(), [(vec![video().to_owned()], 2)]);
}

#[test]
fn a_layout_says_sizes_and_subscribes_to_what_it_shows() {
    let layout = Subscription::Layout { layout: Layout::Speaker, auto: false };
    let mut h = Harness::subscriber(layout, Quality::High);
    h.receive(join(vec![participant(PUBLISHER, audio_and_video())]));
    let [Request::TrackSetting(setting), Request::Subscription(subscription)] = &h.sent[..] else {
        panic!("{:?}", h.sent)
    };
    assert_eq!((setting.quality, setting.width, setting.height), (2, 1_280, 720));
    assert_eq!(setting.track_sids, [video()]);
    assert_eq!(subscription.track_sids.len(), 2, "audio and video of those shown");
    assert!(subscription.subscribe);
}

#[test]
fn an_older_update_that_comes_late_says_nothing() {
    let mut h = Harness::joined_subscriber();
    let at_version = |version: u32, tracks| {
        let mut info = participant(PUBLISHER, tracks);
        info.version = version;
        update(vec![info])
    };
    h.receive(at_version(2, audio_and_video()));
    h.clear();
    h.receive(at_version(1, vec![]));
    assert_eq!((h.session.remote_tracks(), h.events.len()), (2, 0));
    h.receive(at_version(2, audio_and_video()[1..].to_vec()));
    assert_eq!(h.session.remote_tracks(), 1);
}

#[test]
fn tracks_go_with_their_publisher_and_alone() {
    let mut h = Harness::joined_subscriber();
    h.receive(update(vec![participant(PUBLISHER, audio_and_video())]));
    assert_eq!(h.session.remote_tracks(), 2);
    h.clear();
    let mut muted = audio_and_video();
    muted[0].muted = true;
    h.receive(update(vec![participant(PUBLISHER, muted)]));
    assert_eq!(h.events, [SessionEvent::TrackMuted { sid: AUDIO.into(), muted: true }]);
    h.clear();
    h.receive(update(vec![participant(PUBLISHER, audio_and_video()[1..].to_vec())]));
    let departure = Departure::Unpublished;
    assert_eq!(h.events, [SessionEvent::TrackGone { sid: AUDIO.into(), departure }]);
    h.clear();
    let mut gone = participant(PUBLISHER, vec![]);
    gone.state = proto::participant_info::State::Disconnected as i32;
    gone.disconnect_reason = DisconnectReason::SignalClose as i32;
    h.receive(update(vec![gone]));
    let departure = Departure::Left { reason: DisconnectReason::SignalClose };
    assert!(!departure.is_orderly());
    assert_eq!(h.events, [SessionEvent::TrackGone { sid: video().into(), departure }]);
    assert_eq!(h.session.remote_tracks(), 0);
}

#[test]
fn two_thousand_bystanders_cost_nothing() {
    let mut h = Harness::joined_subscriber();
    let crowd = (0..2_000).map(|i| participant(&format!("PA_{i}"), vec![])).collect();
    h.receive(update(crowd));
    assert_eq!((h.session.remote_tracks(), h.order.as_str()), (0, ""));
}

#[test]
fn a_track_first_seen_in_an_offer_gets_its_quality_too() {
    let mut h = Harness::subscriber(Subscription::Auto, Quality::Low);
    h.receive(join(vec![]));
    h.receive(offer(1, OFFER_TRACKS, &[("1", AUDIO), ("2", video()), ("9", "TR_nowhere")]));
    assert_eq!(h.settings(), [(vec![video().to_owned()], 0)]);
    assert_eq!(h.session.remote_tracks(), 2);
    h.clear();
    h.receive(update(vec![participant(PUBLISHER, audio_and_video())]));
    assert_eq!(h.events.len(), 2, "announced once its publisher is known: {:?}", h.events);
    h.media(MediaInput::LocalAnswer { offer_id: 1, sdp: "x".into() });
    h.clear();
    h.receive(offer(2, OFFER_TRACKS, &[("1", AUDIO)]));
    assert_eq!(h.events, [SessionEvent::TrackUnsubscribed { sid: video().into() }]);
}

#[test]
fn each_offer_is_answered_once() {
    let answer = |offer_id| MediaInput::LocalAnswer { offer_id, sdp: "x".into() };
    let mut h = Harness::joined_subscriber();
    h.receive(offer(5, OFFER_DATA, &[]));
    h.receive(offer(5, OFFER_DATA, &[])); // repeated while the engine works
    assert_eq!(h.media.len(), 1);
    h.media(answer(4));
    h.media(answer(5));
    h.media(answer(5));
    assert_eq!(h.answers(), [5]);
    h.receive(offer(5, OFFER_DATA, &[])); // repeated after the answer
    h.receive(offer(3, OFFER_DATA, &[])); // outdated
    assert_eq!(h.media.len(), 1);
    h.receive(offer(6, OFFER_DATA, &[]));
    h.receive(offer(7, OFFER_DATA, &[])); // supersedes 6
    h.media(answer(6));
    h.media(answer(7));
    assert_eq!(h.answers(), [5, 7]);
    let counters = h.session.counters();
    assert_eq!((counters.offers_ignored, counters.answers_ignored), (3, 3));
}

#[test]
fn offers_without_ids_are_all_taken_and_the_last_is_answered() {
    let mut h = Harness::joined_subscriber();
    h.receive(offer(0, OFFER_DATA, &[]));
    h.receive(offer(0, OFFER_TRACKS, &[]));
    h.media(MediaInput::LocalAnswer { offer_id: 0, sdp: "first".into() });
    assert_eq!(h.answers().len(), 0);
    h.media(MediaInput::LocalAnswer { offer_id: 0, sdp: "second".into() });
    assert!(matches!(&h.sent[..], [Request::Answer(a)] if a.sdp == "second"));
    h.receive(offer(0, OFFER_TRACKS, &[]));
    assert_eq!(h.media.len(), 3);
}

#[test]
fn candidates_wait_for_their_description() {
    let subscriber = proto::SignalTarget::Subscriber;
    let mut h = Harness::joined_subscriber();
    h.receive(trickle(subscriber, &candidate_json(1), false));
    h.receive(trickle(proto::SignalTarget::Publisher, &candidate_json(2), false));
    h.receive(trickle(subscriber, "{", false));
    h.receive(trickle(subscriber, r#"{"candidate":""}"#, true));
    assert!(h.media.is_empty());
    h.receive(offer(1, OFFER_DATA, &[]));
    assert_eq!(h.order, "MM");
    assert!(matches!(h.media[0], MediaCommand::RemoteOffer { .. }));
    assert!(matches!(&h.media[1], MediaCommand::RemoteCandidate { candidate, .. }
        if candidate.starts_with("candidate:")));
    assert_eq!(h.session.counters().candidates_dropped, 2);

    let mut h = Harness::joined_subscriber();
    for port in 0..100 {
        h.receive(trickle(subscriber, &candidate_json(port), false));
    }
    h.receive(offer(1, OFFER_DATA, &[]));
    assert_eq!(h.media.len(), 1 + CANDIDATES_HELD_MAX);
    assert_eq!(h.session.counters().candidates_dropped, 100 - CANDIDATES_HELD_MAX as u64);
}

/// So that a server that does not wait for answers makes no more work than one that does.
#[test]
fn the_engine_works_on_one_offer_at_a_time_and_then_on_the_last() {
    let subscriber = proto::SignalTarget::Subscriber;
    let answer = |offer_id| MediaInput::LocalAnswer { offer_id, sdp: "x".into() };
    let mut h = Harness::joined_subscriber();
    for id in 1..=100 {
        h.receive(offer(id, OFFER_DATA, &[]));
    }
    assert_eq!(h.media.len(), 1);
    // It may belong to what waits.
    h.receive(trickle(subscriber, &candidate_json(1), false));
    h.clear();
    h.media(answer(1));
    assert!(matches!(h.media[0], MediaCommand::RemoteOffer { id: 100, .. }), "{:?}", h.media);
    assert!(matches!(h.media[1], MediaCommand::RemoteCandidate { .. }));
    h.media(answer(100));
    assert_eq!(h.answers(), [100]);
    assert_eq!(h.session.counters().offers_ignored, 98);
    assert_eq!(h.end(), None);
}

#[test]
fn bounds_are_on_what_comes_at_once_and_not_on_a_long_life() {
    let answer = |offer_id| MediaInput::LocalAnswer { offer_id, sdp: "x".into() };
    let subscriber = proto::SignalTarget::Subscriber;
    let mut h = Harness::joined_subscriber();
    for id in 1..=5 * flood::OFFERS_BURST_MAX {
        h.now += Duration::from_millis(100);
        h.receive(offer(id, OFFER_DATA, &[]));
        h.receive(trickle(subscriber, &candidate_json(1), false));
        h.media(answer(id));
        h.clear();
    }
    assert_eq!(h.end(), None);
    let mut h = Harness::joined_subscriber();
    for _ in 0..=flood::CANDIDATES_BURST_MAX {
        h.receive(trickle(subscriber, &candidate_json(1), false));
    }
    let flood = Flood::Candidates;
    assert_eq!(h.end(), Some(&EndReason::ServerFlooded { flood }));
    assert!(h.session.is_flooded() && !h.sent_leave(), "nothing more is said to it");
}

#[test]
fn local_candidates_are_trickled() {
    let mut h = Harness::joined_subscriber();
    let candidate = "candidate:1 1 udp 1 127.0.0.1 9 typ host".to_owned();
    h.media(MediaInput::LocalCandidate { target: Target::Subscriber, candidate });
    let Request::Trickle(trickle) = &h.sent[0] else { panic!() };
    assert_eq!(trickle.target, 1);
    let json: serde_json::Value = serde_json::from_str(&trickle.candidate_init).unwrap();
    assert_eq!(json["candidate"], "candidate:1 1 udp 1 127.0.0.1 9 typ host");
}

fn published(cid: &str, sid: &str) -> proto::SignalResponse {
    response(Response::TrackPublished(proto::TrackPublishedResponse {
        cid: cid.into(),
        track: Some(track(sid, proto::TrackType::Video)),
    }))
}

fn refused(cid: &str, reason: proto::request_response::Reason) -> proto::SignalResponse {
    response(Response::RequestResponse(proto::RequestResponse {
        reason: reason as i32,
        request: Some(proto::request_response::Request::AddTrack(proto::AddTrackRequest {
            cid: cid.into(),
            ..Default::default()
        })),
        ..Default::default()
    }))
}

fn publisher() -> Harness {
    Harness::new(Role::publisher(vec![video_track("v"), audio_track("a")]))
}

#[test]
#[allow(deprecated)]
fn publisher_announces_waits_offers_and_is_answered() {
    let mut h = publisher();
    h.receive(join(vec![participant(PUBLISHER, audio_and_video())]));
    let [Request::AddTrack(video), Request::AddTrack(audio)] = &h.sent[..] else {
        panic!("{:?}", h.sent)
    };
    assert_eq!((video.cid.as_str(), video.r#type, video.source), ("v", 1, 1));
    assert_eq!((video.width, video.height), (1280, 720));
    let layers = |layers: &[proto::VideoLayer]| {
        layers.iter().map(|l| (l.quality, l.width, l.height, l.bitrate)).collect::<Vec<_>>()
    };
    let expected = [(0, 320, 180, 150_000), (1, 640, 360, 600_000), (2, 1280, 720, 1_900_000)];
    assert_eq!(layers(&video.layers), expected);
    let [codec] = &video.simulcast_codecs[..] else { panic!() };
    assert_eq!((codec.codec.as_str(), codec.cid.as_str()), ("vp8", "v"));
    assert_eq!(layers(&codec.layers), expected);
    assert_eq!((audio.cid.as_str(), audio.r#type, audio.source), ("a", 0, 2));
    assert!(audio.disable_red && audio.simulcast_codecs.is_empty());
    assert_eq!(h.events.len(), 1, "a publisher is told of nobody's tracks: {:?}", h.events);

    h.receive(published("v", "TR_V"));
    assert!(h.media.is_empty());
    h.receive(published("a", "TR_A"));
    assert_eq!(
        h.media,
        [MediaCommand::CreateOffer { id: 1, added: Slots::default(), publish: true }]
    );
    h.clear();
    h.media(MediaInput::LocalOffer { id: 1, sdp: "offer".into() });
    h.media(MediaInput::LocalOffer { id: 1, sdp: "again".into() });
    let [Request::Offer(offer)] = &h.sent[..] else { panic!("{:?}", h.sent) };
    assert_eq!((offer.r#type.as_str(), offer.sdp.as_str()), ("offer", "offer"));

    let target = proto::SignalTarget::Publisher;
    h.receive(trickle(target, &candidate_json(7882), false));
    assert!(h.media.is_empty());
    let answer = proto::SessionDescription {
        r#type: "answer".into(),
        sdp: "answer".into(),
        id: offer_id(&h),
        ..Default::default()
    };
    h.receive(response(Response::Answer(answer.clone())));
    h.receive(response(Response::Answer(answer)));
    assert_eq!(h.media.len(), 2);
    assert_eq!(
        h.media[0],
        MediaCommand::RemoteAnswer { sdp: "answer".into(), mid_to_track_id: Vec::new() }
    );
    assert!(matches!(h.media[1], MediaCommand::RemoteCandidate { .. }));
    let counters = h.session.counters();
    assert_eq!((counters.answers_ignored, counters.offers_ignored), (1, 1));
    // Long after: no publish timeout any more.
    h.clear();
    for _ in 0..10 {
        h.advance(5 * SECOND);
        let ping = *h.pings().last().unwrap();
        h.receive(pong(ping));
    }
    assert_eq!(h.end(), None);
}

/// Each of the two connections has its own descriptions and candidates.
#[test]
fn by_v0_who_sends_and_receives_has_two_connections() {
    let subscriber = Role::subscriber(Subscription::Auto, Quality::High);
    let mut h = Harness::new(Role { tracks: vec![video_track("v")], ..subscriber });
    h.receive(join(vec![participant(PUBLISHER, audio_and_video())]));
    h.receive(published("v", "TR_V"));
    h.clear();
    let (publisher, receiver) = (proto::SignalTarget::Publisher, proto::SignalTarget::Subscriber);
    h.receive(trickle(publisher, &candidate_json(7881), false));
    h.receive(trickle(receiver, &candidate_json(7882), false));
    assert!(h.media.is_empty(), "neither is described");
    h.receive(offer(1, OFFER_TRACKS, &[]));
    let targets = |h: &Harness| h.media.iter().filter_map(MediaCommand::target).collect::<Vec<_>>();
    assert_eq!(targets(&h), [Target::Subscriber; 2]);
    assert!(matches!(&h.media[1], MediaCommand::RemoteCandidate { candidate, .. }
        if candidate.contains("7882")));
    h.media(MediaInput::LocalAnswer { offer_id: 1, sdp: "our answer".into() });
    h.media(MediaInput::LocalOffer { id: 1, sdp: "our offer".into() });
    for (target, expected) in [(Target::Publisher, publisher), (Target::Subscriber, receiver)] {
        h.media(MediaInput::LocalCandidate { target, candidate: "candidate:1".into() });
        let Some(Request::Trickle(ours)) = h.sent.last() else { panic!("{:?}", h.sent) };
        assert_eq!(ours.target(), expected);
    }
    h.clear();
    let answer = proto::SessionDescription {
        r#type: "answer".into(),
        sdp: "answer".into(),
        id: 1,
        ..Default::default()
    };
    h.receive(response(Response::Answer(answer)));
    assert_eq!(targets(&h), [Target::Publisher; 2]);
    assert!(matches!(&h.media[1], MediaCommand::RemoteCandidate { candidate, .. }
        if candidate.contains("7881")));
    assert!(h.events.is_empty(), "its tracks are those of the offer: {:?}", h.events);

    // The server restarts its own connection, and we ours; it hears what we receive by.
    assert!(h.session.can_resume());
    h.session.handle_transport_end(EndReason::ConnectionLost { detail: "lost".into() });
    h.session.resume(h.now);
    h.clear();
    h.receive(response(Response::Reconnect(proto::ReconnectResponse::default())));
    assert_eq!(h.media, [MediaCommand::RestartIce { id: 2 }]);
    let Some(Request::SyncState(state)) = h.sent.first() else { panic!("{:?}", h.sent) };
    assert_eq!(state.offer.as_ref().unwrap().sdp, OFFER_TRACKS);
    assert_eq!(state.answer.as_ref().unwrap().sdp, "our answer");
    assert_eq!(state.publish_tracks.len(), 1);
}

/// A second codec is named in the announcement, announced anew once the server wants it, and then offered.
#[test]
fn a_backup_is_published_once_the_server_asks_for_it() {
    let mut track = video_track("v");
    track.codec = "vp9".into();
    track.backup = Some(Box::new(LocalBackup {
        cid: "v-backup".into(),
        codec: "vp8".into(),
        layers: track.layers.clone(),
    }));
    let mut h = Harness::new(Role::publisher(vec![track]));
    h.receive(join(vec![]));
    let [Request::AddTrack(request)] = &h.sent[..] else { panic!("{:?}", h.sent) };
    let named = |request: &proto::AddTrackRequest| -> Vec<(String, String)> {
        let codecs = request.simulcast_codecs.iter();
        codecs.map(|one| (one.codec.clone(), one.cid.clone())).collect()
    };
    let pair = |codec: &str, cid: &str| (codec.to_owned(), cid.to_owned());
    assert_eq!(named(request), [pair("vp9", "v"), pair("vp8", "")]);
    h.receive(published("v", "TR_V"));
    h.media(MediaInput::LocalOffer { id: 1, sdp: "offer".into() });
    let answer = |id| {
        let (r#type, sdp) = ("answer".to_owned(), "answer".to_owned());
        let answer = proto::SessionDescription { r#type, sdp, id, ..Default::default() };
        response(Response::Answer(answer))
    };
    h.receive(answer(1));
    h.clear();
    let wants = |enabled| {
        let quality = proto::VideoQuality::Low as i32;
        let codec = |codec: &str, enabled| proto::SubscribedCodec {
            codec: codec.into(),
            qualities: vec![proto::SubscribedQuality { quality, enabled }],
        };
        response(Response::SubscribedQualityUpdate(proto::SubscribedQualityUpdate {
            track_sid: "TR_V".into(),
            subscribed_codecs: vec![codec("vp9", true), codec("vp8", enabled)],
            ..Default::default()
        }))
    };
    h.receive(wants(false));
    assert!(h.sent.is_empty(), "nobody wants it: {:?}", h.sent);
    h.receive(wants(true));
    h.receive(wants(true));
    let [Request::AddTrack(request)] = &h.sent[..] else { panic!("once: {:?}", h.sent) };
    assert_eq!((request.sid.as_str(), request.cid.as_str()), ("TR_V", "v-backup"));
    assert_eq!(named(request), [pair("vp8", "v-backup")]);
    assert!(!h.session.can_resume(), "its answer would be lost");
    h.clear();
    h.receive(published("v-backup", "TR_V"));
    assert!(h.session.can_resume());
    assert_eq!(h.events, [SessionEvent::BackupPublished { cid: "v-backup".into() }]);
    h.advance(SECOND);
    let offer = MediaCommand::CreateOffer { id: 2, added: Slots::default(), publish: true };
    assert_eq!(h.media, [offer]);
}

/// A track goes on without a second codec of which the server says nothing.
#[test]
fn an_unanswered_backup_is_waited_for_no_longer_than_a_track() {
    let mut track = video_track("v");
    track.codec = "vp9".into();
    let layers = track.layers.clone();
    let (cid, codec) = ("v-backup".into(), "vp8".into());
    track.backup = Some(Box::new(LocalBackup { cid, codec, layers }));
    let mut h = Harness::new(Role::publisher(vec![track]));
    h.receive(join(vec![]));
    h.receive(published("v", "TR_V"));
    h.media(MediaInput::LocalOffer { id: 1, sdp: "offer".into() });
    h.receive(response(Response::Answer(proto::SessionDescription {
        r#type: "answer".into(),
        sdp: "answer".into(),
        id: 1,
        ..Default::default()
    })));
    let quality = proto::VideoQuality::Low as i32;
    h.receive(response(Response::SubscribedQualityUpdate(proto::SubscribedQualityUpdate {
        track_sid: "TR_V".into(),
        subscribed_codecs: vec![proto::SubscribedCodec {
            codec: "vp8".into(),
            qualities: vec![proto::SubscribedQuality { quality, enabled: true }],
        }],
        ..Default::default()
    })));
    assert!(!h.session.can_resume());
    h.advance(9 * SECOND);
    assert!(!h.session.can_resume());
    h.advance(SECOND);
    assert!(h.session.can_resume() && h.end().is_none());
    h.clear();
    h.receive(published("v-backup", "TR_V"));
    assert!(h.events.is_empty(), "too late: {:?}", h.events);
}

fn offer_id(h: &Harness) -> u32 {
    match &h.sent[0] {
        Request::Offer(offer) => offer.id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn fast_publish_offers_with_the_announcement() {
    let mut join = join_response(vec![]);
    join.fast_publish = true;
    let mut h = publisher();
    h.receive(response(Response::Join(join.clone())));
    assert_eq!(h.order, "ESSM");
    assert_eq!(
        h.media,
        [MediaCommand::CreateOffer { id: 1, added: Slots::default(), publish: true }]
    );
    h.receive(published("v", "TR_V"));
    h.receive(published("a", "TR_A"));
    assert_eq!(h.media.len(), 1, "asked once");

    let tracks = vec![video_track("v")];
    let mut options = SessionOptions::new(Role::publisher(tracks));
    options.fast_publish = false;
    let mut h = publisher();
    h.session = Session::new(options, h.now);
    h.receive(response(Response::Join(join)));
    assert!(h.media.is_empty());
}

#[test]
fn refused_tracks() {
    use proto::request_response::Reason;
    let mut h = publisher();
    h.receive(join(vec![]));
    h.receive(refused("v", Reason::Queued));
    h.receive(refused("v", Reason::NotAllowed));
    h.receive(published("a", "TR_A"));
    assert_eq!(
        h.media,
        [MediaCommand::CreateOffer { id: 1, added: Slots::default(), publish: true }],
        "what is left is published"
    );
    assert!(
        h.events.contains(&SessionEvent::PublishRefused {
            cid: "v".into(),
            reason: "not_allowed".into()
        })
    );

    let mut h = publisher();
    h.receive(join(vec![]));
    h.receive(refused("v", Reason::NotAllowed));
    h.receive(refused("a", Reason::LimitExceeded));
    assert_eq!(h.end().unwrap().kind().key(), "publish_refused");
    assert!(h.sent_leave() && h.media.is_empty());
}

#[test]
fn publish_and_join_timeouts() {
    let mut h = publisher();
    h.receive(join(vec![]));
    h.receive(published("v", "TR_V"));
    h.advance(10 * SECOND);
    assert_eq!(h.end(), Some(&EndReason::PublishTimeout));
    assert!(h.sent_leave());

    let mut h = Harness::subscriber(Subscription::Auto, Quality::High);
    h.advance(10 * SECOND - Duration::from_nanos(1));
    assert_eq!(h.end(), None);
    h.advance(Duration::from_nanos(1));
    assert_eq!(h.end(), Some(&EndReason::JoinTimeout));
    assert_eq!(h.session.next_timeout(), None);
}

#[test]
fn pings_carry_the_round_trip_and_their_loss_ends_the_session() {
    let mut h = Harness::joined_subscriber();
    h.advance(5 * SECOND);
    assert_eq!(h.pings(), [proto::Ping { timestamp: 5_000, rtt: 0 }]);
    h.now += Duration::from_millis(30);
    let ping = h.pings()[0];
    h.receive(pong(ping));
    assert_eq!(h.events, [SessionEvent::Pong { rtt: Duration::from_millis(30) }]);
    h.advance(5 * SECOND);
    assert_eq!(h.pings()[1].rtt, 30);
    // No pong from here on: the ping at 10 s is the oldest unanswered one, 15 s make it 25 s.
    h.advance(Duration::from_secs(14));
    assert_eq!(h.end(), None);
    h.advance(SECOND);
    assert_eq!(h.end(), Some(&EndReason::PingTimeout));
    assert!(!h.sent_leave(), "a leave would end what can be resumed");
}

fn lost() -> EndReason {
    EndReason::ConnectionLost { detail: "reset".into() }
}

fn reconnect() -> proto::SignalResponse {
    response(Response::Reconnect(proto::ReconnectResponse::default()))
}

fn sync_state(h: &Harness) -> &proto::SyncState {
    let found = h.sent.iter().find_map(|request| match request {
        Request::SyncState(state) => Some(state),
        _ => None,
    });
    found.unwrap()
}

#[test]
fn what_was_negotiated_long_ago_is_told_word_by_word() {
    let mut h = Harness::joined_subscriber();
    let answer = "a=rtpmap:96 VP8/90000\r\n".repeat(100);
    h.receive(offer(4, OFFER_TRACKS, &[]));
    h.media(MediaInput::LocalAnswer { offer_id: 4, sdp: answer.clone() });
    h.advance(5 * SECOND);
    let ping = h.pings()[0];
    h.receive(pong(ping));
    h.session.handle_transport_end(lost());
    h.drain();
    h.clear();
    h.session.resume(h.now);
    h.receive(reconnect());
    let state = sync_state(&h);
    let told = [&state.offer, &state.answer].map(|text| text.as_ref().map(|text| &*text.sdp));
    assert_eq!(told, [Some(OFFER_TRACKS), Some(&*answer)]);
}

#[test]
fn a_lost_subscriber_is_taken_up_again_and_answers_the_restart() {
    let mut h = Harness::joined_subscriber();
    h.receive(offer(4, OFFER_DATA, &[]));
    h.session.handle_transport_end(lost());
    h.drain();
    assert_eq!(h.end().unwrap().way_back(), WayBack::Resume);
    assert_eq!(h.session.participant_sid(), "PA_self");
    h.clear();

    h.session.resume(h.now);
    h.receive(reconnect());
    let state = sync_state(&h);
    let subscription = state.subscription.as_ref().unwrap();
    assert!(subscription.track_sids.is_empty() && !subscription.subscribe);
    assert_eq!(h.events, [SessionEvent::Resumed]);
    // The answer to what was asked on the old websocket goes nowhere, that to the restart does.
    h.media(MediaInput::LocalAnswer { offer_id: 4, sdp: "old".into() });
    assert!(h.answers().is_empty());
    h.receive(offer(5, OFFER_TRACKS, &[("2", video())]));
    h.media(MediaInput::LocalAnswer { offer_id: 5, sdp: "new".into() });
    assert_eq!(h.answers(), [5]);
    // Pings go on.
    h.advance(5 * SECOND);
    assert_eq!(h.pings().len(), 1);
    h.receive(reconnect());
    assert_eq!(h.session.counters().unneeded, 1, "nobody resumed a second time");
}

#[test]
fn a_manual_subscriber_says_what_it_is_subscribed_to() {
    let manual = Subscription::Manual { audio: false, video: true };
    let mut h = Harness::subscriber(manual, Quality::High);
    h.receive(join(vec![participant(PUBLISHER, audio_and_video())]));
    h.session.handle_transport_end(lost());
    h.session.resume(h.now);
    h.receive(reconnect());
    let subscription = sync_state(&h).subscription.clone().unwrap();
    assert_eq!((subscription.track_sids, subscription.subscribe), (vec![video().to_owned()], true));
}

#[test]
fn a_resumed_publisher_names_its_tracks_and_restarts_its_ice() {
    let mut h = publisher();
    h.receive(join(vec![]));
    h.receive(published("v", "TR_V"));
    h.receive(published("a", "TR_A"));
    h.clear();
    h.media(MediaInput::LocalOffer { id: 1, sdp: "offer".into() });
    let first = offer_id(&h);
    let answer = |id| {
        let r#type = "answer".into();
        let answer =
            proto::SessionDescription { r#type, sdp: "a".into(), id, ..Default::default() };
        response(Response::Answer(answer))
    };
    h.receive(answer(first));
    h.session.handle_transport_end(lost());
    h.drain();
    h.clear();
    h.session.resume(h.now);
    h.receive(reconnect());
    let tracks = &sync_state(&h).publish_tracks;
    let sids: Vec<_> =
        tracks.iter().map(|track| track.track.as_ref().unwrap().sid.as_str()).collect();
    assert_eq!(sids, ["TR_V", "TR_A"]);
    assert_eq!(h.media, [MediaCommand::RestartIce { id: 2 }]);
    h.clear();
    h.media(MediaInput::LocalOffer { id: 2, sdp: "restart".into() });
    let second = offer_id(&h);
    assert!(second > first);
    h.receive(answer(second));
    assert_eq!(
        h.media,
        [MediaCommand::RemoteAnswer { sdp: "a".into(), mid_to_track_id: Vec::new() }]
    );
}

#[test]
fn a_resume_that_nobody_answers_ends_and_one_before_the_join_is_none() {
    let mut h = Harness::joined_subscriber();
    h.session.handle_transport_end(lost());
    h.session.resume(h.now);
    h.advance(10 * SECOND);
    assert_eq!(h.end(), Some(&EndReason::JoinTimeout));
    let mut h = Harness::subscriber(Subscription::Auto, Quality::High);
    h.session.handle_transport_end(lost());
    h.session.resume(h.now);
    assert!(h.session.is_ended());
    let reason = DisconnectReason::ServerShutdown;
    let reasons = [
        (EndReason::Left, WayBack::None),
        (EndReason::ServerLeft { reason }, WayBack::None),
        (EndReason::PingTimeout, WayBack::Resume),
        (EndReason::MediaLost { reason: "ice".into() }, WayBack::Resume),
        (EndReason::ReconnectAsked { resume: true, reason }, WayBack::Resume),
        (EndReason::ReconnectAsked { resume: false, reason }, WayBack::Reconnect),
        (EndReason::NegotiationFailed { reason: "sdp".into() }, WayBack::Reconnect),
    ];
    for (reason, back) in reasons {
        assert_eq!(reason.way_back(), back, "{reason}");
    }
}

#[test]
fn the_old_pong_counts_as_life() {
    let mut h = Harness::joined_subscriber();
    for _ in 0..20 {
        h.advance(5 * SECOND);
        h.receive(response(Response::Pong(1)));
    }
    assert_eq!(h.end(), None);
    assert_eq!(h.pings().len(), 20);
}

#[test]
fn a_server_may_ask_for_no_pings() {
    let mut join = join_response(vec![]);
    join.ping_interval = 0;
    let mut h = Harness::subscriber(Subscription::Auto, Quality::High);
    h.receive(response(Response::Join(join)));
    assert_eq!(h.session.next_timeout(), None);
    let mut join = join_response(vec![]);
    (join.ping_interval, join.ping_timeout) = (-5, i32::MAX);
    let mut h = Harness::subscriber(Subscription::Auto, Quality::High);
    h.receive(response(Response::Join(join)));
    assert_eq!(h.session.next_timeout(), None);
}

#[test]
fn leaving() {
    let mut h = Harness::joined_subscriber();
    h.session.leave();
    h.session.leave();
    h.drain();
    assert_eq!(h.order, "SE");
    assert!(h.sent_leave());
    assert_eq!(h.end(), Some(&EndReason::Left));
    // Nothing more, whatever comes.
    h.clear();
    h.receive(offer(1, OFFER_DATA, &[]));
    h.media(MediaInput::LocalAnswer { offer_id: 1, sdp: "x".into() });
    h.advance(Duration::from_secs(100));
    h.session.handle_transport_end(EndReason::PingTimeout);
    h.drain();
    assert_eq!(h.order, "");
}

#[test]
fn the_servers_leave_and_its_action() {
    use proto::DisconnectReason as Reason;
    use proto::leave_request::Action;
    let cases = [
        (Action::Disconnect, Reason::RoomDeleted, "server_left_room_deleted", false),
        (Action::Disconnect, Reason::DuplicateIdentity, "server_left_duplicate_identity", false),
        (Action::Disconnect, Reason::ServerShutdown, "server_left_server_shutdown", true),
        (Action::Resume, Reason::MediaFailure, "server_asked_resume", true),
        (Action::Reconnect, Reason::StateMismatch, "server_asked_reconnect", true),
    ];
    for (action, reason, kind, retryable) in cases {
        let mut h = Harness::joined_subscriber();
        h.receive(leave(action, reason));
        let end = h.end().unwrap();
        assert_eq!((end.kind().key(), end.is_retryable()), (kind, retryable));
        assert!(!h.sent_leave(), "no leave in answer to a leave");
    }
    let old = proto::LeaveRequest { can_reconnect: true, reason: 99, ..Default::default() };
    let mut h = Harness::joined_subscriber();
    h.receive(response(Response::Leave(old)));
    let reason = Reason::UnknownReason;
    assert_eq!(h.end(), Some(&EndReason::ReconnectAsked { resume: false, reason }));
}

#[test]
fn failures_of_the_media_plane_end_the_session_politely() {
    let mut h = Harness::joined_subscriber();
    h.media(MediaInput::NegotiationFailed { reason: "bad sdp".into() });
    assert_eq!(h.end().unwrap().kind().key(), "negotiation_failed");
    assert!(h.sent_leave());
    let mut h = Harness::joined_subscriber();
    // What may be taken up again is left alone until it is not.
    h.media(MediaInput::Disconnected { reason: "ice".into() });
    assert_eq!(h.end().unwrap().to_string(), "media connection lost: ice");
    assert!(!h.sent_leave());
    h.clear();
    h.session.leave();
    h.session.leave();
    h.drain();
    assert_eq!(h.order, "S");
    assert!(h.sent_leave());
}

#[test]
fn a_sync_state_has_all_that_another_node_would_need() {
    let layout = Subscription::Layout { layout: Layout::Grid3x3, auto: true };
    let mut h = Harness::subscriber(layout, Quality::High);
    let many = (0..10).map(|number| {
        let (sid, track) = (format!("PA_{number}"), format!("TR_{number}"));
        let mut publisher = participant(&sid, audio_and_video());
        publisher.tracks.retain(|track| track.sid == video());
        publisher.tracks[0].sid = track;
        publisher
    });
    h.receive(join(many.collect()));
    h.receive(offer(4, OFFER_TRACKS, &[("2", video())]));
    h.media(MediaInput::LocalAnswer { offer_id: 4, sdp: "answer".into() });
    h.session.handle_transport_end(lost());
    h.session.resume(h.now);
    h.clear();
    h.receive(reconnect());
    let state = sync_state(&h);
    let subscription = state.subscription.as_ref().unwrap();
    assert!(subscription.track_sids.is_empty() && !subscription.subscribe);
    assert_eq!(state.track_sids_disabled, ["TR_9"], "the tenth of nine places");
    assert_eq!(state.offer.as_ref().unwrap().sdp, OFFER_TRACKS);
    assert_eq!(state.answer.as_ref().unwrap().sdp, "answer");
}

#[test]
fn a_publisher_whose_tracks_are_not_answered_yet_can_not_resume() {
    let mut h = publisher();
    h.receive(join(vec![]));
    h.receive(published("v", "TR_V"));
    assert!(!h.session.can_resume(), "the answer would be lost with the websocket");
    h.receive(published("a", "TR_A"));
    assert!(h.session.can_resume());
}

#[test]
fn a_server_may_move_us_to_another_room() {
    let mut h = Harness::joined_subscriber();
    h.receive(response(Response::Update(proto::ParticipantUpdate {
        participants: vec![participant(PUBLISHER, audio_and_video())],
    })));
    h.clear();
    let mut there = participant("PA_there", audio_and_video());
    there.tracks.iter_mut().for_each(|track| track.sid.push_str("_there"));
    h.receive(response(Response::RoomMoved(proto::RoomMovedResponse {
        room: Some(proto::Room { name: "other".into(), ..Default::default() }),
        token: "new-token".into(),
        participant: Some(participant("PA_moved", vec![])),
        other_participants: vec![there],
    })));
    assert_eq!(h.session.participant_sid(), "PA_moved");
    assert_eq!(h.session.refreshed_token().unwrap().expose(), "new-token");
    let gone = |event: &SessionEvent| match event {
        SessionEvent::TrackGone { departure, .. } => *departure == Departure::Moved,
        _ => false,
    };
    assert_eq!(h.events.iter().filter(|event| gone(event)).count(), 2);
    let (room, participant_sid) = ("other".into(), "PA_moved".into());
    assert_eq!(h.events[2], SessionEvent::Moved { room, participant_sid });
    let there = |event: &SessionEvent| match event {
        SessionEvent::TrackAvailable(track) => track.sid.ends_with("_there"),
        _ => false,
    };
    assert_eq!(h.events[3..].iter().filter(|event| there(event)).count(), 2);
    let before = h.session.counters().malformed;
    h.receive(response(Response::RoomMoved(proto::RoomMovedResponse::default())));
    assert_eq!(h.session.counters().malformed, before + 1);
}

#[test]
fn malformed_messages_are_counted() {
    let mut h = Harness::subscriber(Subscription::Auto, Quality::High);
    let now = h.now;
    h.session.handle_message(now, &vec![0xff; 40].into());
    h.session.handle_malformed(now, 11);
    let no_participant = proto::JoinResponse { participant: None, ..join_response(vec![]) };
    h.receive(response(Response::Join(no_participant)));
    assert!(!h.session.is_joined());
    h.receive(join(vec![]));
    h.receive(join(vec![]));
    h.receive(offer(1, "", &[]));
    h.receive(response(Response::RefreshToken("with space\r\n".into())));
    assert_eq!(h.session.counters().malformed, 6);
    h.receive(proto::SignalResponse { message: None });
    assert_eq!(h.session.counters().unneeded, 1);
    assert_eq!(h.end(), None);
}

#[test]
fn notices_for_either_role() {
    let mut h = Harness::joined_subscriber();
    h.receive(response(Response::SubscriptionResponse(proto::SubscriptionResponse {
        track_sid: "TR_x".into(),
        err: proto::SubscriptionError::SeCodecUnsupported as i32,
    })));
    h.receive(response(Response::StreamStateUpdate(proto::StreamStateUpdate {
        stream_states: vec![proto::StreamStateInfo {
            track_sid: "TR_x".into(),
            state: proto::StreamState::Paused as i32,
            ..Default::default()
        }],
    })));
    let quality = |quality: proto::VideoQuality, enabled| proto::SubscribedQuality {
        quality: quality as i32,
        enabled,
    };
    h.receive(response(Response::SubscribedQualityUpdate(proto::SubscribedQualityUpdate {
        track_sid: "TR_x".into(),
        subscribed_codecs: vec![proto::SubscribedCodec {
            codec: "vp8".into(),
            qualities: vec![
                quality(proto::VideoQuality::Low, true),
                quality(proto::VideoQuality::High, false),
                quality(proto::VideoQuality::Off, false),
            ],
        }],
        ..Default::default()
    })));
    let sid = || "TR_x".to_owned();
    assert_eq!(
        h.events,
        [
            SessionEvent::SubscriptionFailed { sid: sid(), error: "codec_unsupported" },
            SessionEvent::StreamState { sid: sid(), paused: true },
            SessionEvent::QualityWanted {
                sid: sid(),
                codecs: vec![WantedCodec {
                    codec: "vp8".into(),
                    qualities: vec![(Quality::Low, true), (Quality::High, false)],
                }],
            },
        ]
    );
}

#[test]
fn a_redirect_ends_the_session() {
    let mut join = join_response(vec![]);
    join.alternative_url = "wss://elsewhere".into();
    let mut h = Harness::subscriber(Subscription::Auto, Quality::High);
    h.receive(response(Response::Join(join)));
    assert_eq!(h.end(), Some(&EndReason::Redirected { url: "wss://elsewhere".into() }));
}

#[test]
fn turn_servers_and_whether_to_use_them_alone_are_the_media_planes_to_know_first() {
    let servers = |port: u16| proto::IceServer {
        urls: vec![format!("turn:10.0.0.1:{port}?transport=udp"), "stun:10.0.0.1".into()],
        username: "user".into(),
        credential: "hidden".into(),
    };
    let force_relay = proto::ClientConfigSetting::Enabled as i32;
    let configuration = proto::ClientConfiguration { force_relay, ..Default::default() };
    let told = |port, only| MediaCommand::TurnServers {
        servers: vec![TurnServer {
            scheme: TurnScheme::Udp,
            host: "10.0.0.1".into(),
            port,
            username: "user".into(),
            credential: "hidden".into(),
        }],
        only,
    };
    let mut h = publisher();
    h.receive(response(Response::Join(proto::JoinResponse {
        ice_servers: vec![servers(3_478)],
        fast_publish: true,
        ..join_response(vec![])
    })));
    assert_eq!(h.media[0], told(3_478, false));
    assert!(matches!(h.media[1..], [MediaCommand::CreateOffer { .. }]), "{:?}", h.media);
    h.receive(published("v", "TR_V"));
    h.receive(published("a", "TR_A"));
    h.media(MediaInput::LocalOffer { id: 1, sdp: "offer".into() });
    h.session.handle_transport_end(lost());
    h.drain();
    h.clear();
    h.session.resume(h.now);
    h.receive(response(Response::Reconnect(proto::ReconnectResponse {
        ice_servers: vec![servers(443)],
        client_configuration: Some(configuration),
        ..Default::default()
    })));
    assert_eq!(h.media[0], told(443, true));
    assert!(matches!(h.media[1..], [MediaCommand::RestartIce { .. }]), "{:?}", h.media);
    // What is wanted no more is told once.
    for told_last in [true, false] {
        h.session.handle_transport_end(lost());
        h.drain();
        h.clear();
        h.session.resume(h.now);
        h.receive(response(Response::Reconnect(proto::ReconnectResponse::default())));
        let nothing = MediaCommand::TurnServers { servers: vec![], only: false };
        assert_eq!(h.media.contains(&nothing), told_last, "{:?}", h.media);
    }
}
