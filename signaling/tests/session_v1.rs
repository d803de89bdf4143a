//! Subscribers over the single connection of LiveKit's v1, where the client offers.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::*;
use livekit_protocol as proto;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use stampede_sdp::Slots;
use stampede_signaling::session::*;

impl Harness {
    /// Joined, with an offer in the join or without.
    fn joined(first_offer: Option<&str>) -> Self {
        Self::joined_as(Role::subscriber(Subscription::Auto, Quality::High), first_offer)
    }

    fn joined_as(role: Role, first_offer: Option<&str>) -> Self {
        let options = SessionOptions {
            version: SignalVersion::V1,
            first_offer: first_offer.map(str::to_owned),
            ..SessionOptions::new(role)
        };
        let mut harness = Self::with(options);
        harness.receive(join(vec![]));
        harness
    }

    /// The engine makes the offer with this id, which goes out.
    fn offers(&mut self, id: u32, sdp: &str) -> u32 {
        self.sent.clear();
        self.media(MediaInput::LocalOffer { id, sdp: sdp.to_owned() });
        let [Request::Offer(offer)] = &self.sent[..] else { panic!("{:?}", self.sent) };
        assert_eq!((offer.r#type.as_str(), offer.sdp.as_str()), ("offer", sdp));
        offer.id
    }

    fn answer(&mut self, id: u32, tracks: &[(&str, &str)]) {
        let mid_to_track_id =
            tracks.iter().map(|(mid, sid)| (mid.to_string(), sid.to_string())).collect();
        let (r#type, sdp) = ("answer".to_owned(), ANSWER.to_owned());
        let answer = proto::SessionDescription { r#type, sdp, id, mid_to_track_id };
        self.receive(response(Response::Answer(answer)));
    }

    fn wants(&mut self, num_audios: u32, num_videos: u32) {
        let wanted = proto::MediaSectionsRequirement { num_audios, num_videos };
        self.receive(response(Response::MediaSectionsRequirement(wanted)));
    }

    /// What the engine was asked for, a moment later: what is wanted of an offer is gathered for 20 ms.
    fn take_media(&mut self) -> Vec<MediaCommand> {
        self.advance(Duration::from_millis(20));
        std::mem::take(&mut self.media)
    }
}

const ANSWER: &str = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:slot3\r\na=sendonly\r\n\
                      m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:slot0\r\na=sendonly\r\n";

fn create(id: u32, audio: u32, video: u32) -> MediaCommand {
    MediaCommand::CreateOffer { id, added: Slots { audio, video }, publish: false }
}

fn applied(tracks: &[(&str, &str)]) -> MediaCommand {
    let named = tracks.iter().map(|(mid, sid)| (mid.to_string(), sid.to_string()));
    MediaCommand::RemoteAnswer { sdp: ANSWER.to_owned(), mid_to_track_id: named.collect() }
}

#[test]
fn the_joins_offer_is_answered_and_slots_are_added_as_the_server_lacks_them() {
    let mut h = Harness::joined(Some("first"));
    assert!(h.media.is_empty(), "it is on its way: {:?}", h.media);
    h.answer(1, &[("slot3", "TR_V")]);
    assert_eq!(h.take_media(), [applied(&[("slot3", "TR_V")])]);
    let subscribed = SessionEvent::TrackSubscribed { sid: "TR_V".into(), mid: "slot3".into() };
    assert!(h.events.contains(&subscribed), "{:?}", h.events);
    // Of two in a row both are served by one offer.
    h.wants(0, 2);
    h.wants(0, 0);
    assert_eq!(h.take_media(), [create(2, 0, 2)]);
    let id = h.offers(2, "second");
    assert_eq!(id, 2);
    h.answer(1, &[]);
    assert!(h.media.is_empty(), "that one was answered before");
    h.answer(id, &[("slot3", "TR_V"), ("slot6", "TR_W")]);
    // Of several tracks in no order.
    let applied = h.take_media();
    assert!(matches!(&applied[..], [MediaCommand::RemoteAnswer { .. }]), "{applied:?}");
    // One that lacks nothing is an offer too.
    h.wants(0, 0);
    assert_eq!(h.take_media(), [create(3, 0, 0)]);
    let id = h.offers(3, "third");
    // Nothing is named any more: all are gone.
    h.answer(id, &[]);
    let gone = |sid: &str| SessionEvent::TrackUnsubscribed { sid: sid.into() };
    assert!(h.events.contains(&gone("TR_V")), "{:?}", h.events);
    assert_eq!(h.session.counters().answers_ignored, 1);
    assert_eq!((h.session.counters().joined_v0, h.session.counters().joined_v1), (0, 1));
}

#[test]
fn without_an_offer_in_the_join_it_follows() {
    let mut h = Harness::joined(None);
    assert_eq!(h.take_media(), [create(1, FIRST_SLOTS.audio, FIRST_SLOTS.video)]);
    assert_eq!(h.offers(1, "first"), 1);
}

#[test]
fn the_one_connection_goes_by_the_publishers_name_and_the_server_offers_nothing() {
    let mut h = Harness::joined(Some("first"));
    for target in [proto::SignalTarget::Subscriber, proto::SignalTarget::Publisher] {
        h.receive(trickle(target, &candidate_json(7882), false));
    }
    assert!(h.media.is_empty(), "its description is not there yet");
    h.answer(1, &[]);
    assert!(matches!(h.media[..], [_, MediaCommand::RemoteCandidate { .. }]), "{:?}", h.media);
    let (r#type, sdp) = ("offer".to_owned(), ANSWER.to_owned());
    let offer = proto::SessionDescription { r#type, sdp, id: 5, ..Default::default() };
    h.receive(response(Response::Offer(offer)));
    let counters = h.session.counters();
    assert_eq!((counters.offers_ignored, counters.candidates_dropped), (1, 1));
    let candidate = "candidate:1".into();
    h.media(MediaInput::LocalCandidate { target: Target::Publisher, candidate });
    let Some(Request::Trickle(ours)) = h.sent.last() else { panic!("{:?}", h.sent) };
    assert_eq!(ours.target(), proto::SignalTarget::Publisher);
}

#[test]
fn a_resume_restarts_ice_by_an_offer_of_ours() {
    let mut h = Harness::joined(Some("first"));
    h.answer(1, &[("slot3", "TR_V")]);
    h.wants(1, 0);
    h.take_media();
    let detail = "reset".to_owned();
    h.session.handle_transport_end(EndReason::ConnectionLost { detail });
    h.drain();
    h.session.resume(h.now);
    h.sent.clear();
    h.receive(response(Response::Reconnect(proto::ReconnectResponse::default())));
    let [Request::SyncState(state)] = &h.sent[..] else { panic!("{:?}", h.sent) };
    assert_eq!(state.offer.as_ref().map(|offer| offer.sdp.as_str()), Some("first"));
    assert_eq!(h.take_media(), [MediaCommand::RestartIce { id: 3 }]);
    let id = h.offers(3, "restart");
    h.answer(id, &[("slot3", "TR_V")]);
    assert_eq!(h.take_media(), [applied(&[("slot3", "TR_V")])]);
}

/// As livekit-client: joins with what it receives by, then publishes on the same connection.
#[test]
fn whoever_does_both_offers_its_tracks_behind_what_it_receives_by() {
    let role = Role {
        tracks: vec![video_track("cam")],
        ..Role::subscriber(Subscription::Auto, Quality::High)
    };
    let mut h = Harness::joined_as(role, Some("first"));
    assert!(
        matches!(&h.sent[..], [Request::AddTrack(track)] if track.cid == "cam"),
        "{:?}",
        h.sent
    );
    assert_eq!(h.take_media(), [], "an offer is under way");
    let track = Some(track("TR_own", proto::TrackType::Video));
    let published = proto::TrackPublishedResponse { cid: "cam".to_owned(), track };
    h.receive(response(Response::TrackPublished(published)));
    h.answer(1, &[]);
    let [_, offer] = &h.take_media()[..] else { panic!() };
    let added = Slots::default();
    assert_eq!(*offer, MediaCommand::CreateOffer { id: 2, added, publish: true });
    assert_eq!(h.offers(2, "with tracks"), 2);
    assert!(!h.session.can_resume(), "its tracks wait for their answer");
    h.wants(0, 1);
    h.answer(2, &[("slot3", "TR_other")]);
    assert!(h.session.can_resume());
    assert_eq!(h.take_media().last(), Some(&create(3, 0, 1)), "they are offered once");
    // Back on another websocket it says what it has of both.
    h.session.handle_transport_end(EndReason::PingTimeout);
    h.session.resume(h.now);
    h.clear();
    h.receive(response(Response::Reconnect(proto::ReconnectResponse::default())));
    let Some(Request::SyncState(state)) = h.sent.first() else { panic!("{:?}", h.sent) };
    assert_eq!(state.publish_tracks.len(), 1);
    assert!(state.offer.is_some() && state.answer.is_some());
}
