//! Data tracks, and who can be called, as far as signalling knows.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use livekit_protocol as proto;
use proto::request_response::{Reason, Request as About};
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use stampede_signaling::session::*;

fn publisher() -> Harness {
    let role = Role {
        data: true,
        data_track: true,
        data_tracks_of_others: DataTracks::Auto,
        ..Role::subscriber(Subscription::Auto, Quality::High)
    };
    let mut h = Harness::with(SessionOptions {
        version: SignalVersion::V1,
        first_offer: Some("first".to_owned()),
        ..SessionOptions::new(role)
    });
    h.receive(join(vec![]));
    h
}

/// The requests for a data track among what was sent.
fn requests(h: &Harness) -> Vec<&proto::PublishDataTrackRequest> {
    fn request(message: &Request) -> Option<&proto::PublishDataTrackRequest> {
        match message {
            Request::PublishDataTrackRequest(request) => Some(request),
            _ => None,
        }
    }
    h.sent.iter().filter_map(request).collect()
}

fn taken() -> proto::SignalResponse {
    let info = proto::DataTrackInfo {
        pub_handle: DATA_TRACK_HANDLE.into(),
        sid: "DTR_1".to_owned(),
        name: "stampede".to_owned(),
        ..proto::DataTrackInfo::default()
    };
    let published = proto::PublishDataTrackResponse { info: Some(info) };
    response(Response::PublishDataTrackResponse(published))
}

fn answered(reason: Reason) -> proto::SignalResponse {
    let about = About::PublishDataTrack(proto::PublishDataTrackRequest::default());
    response(Response::RequestResponse(proto::RequestResponse {
        reason: reason as i32,
        request: Some(about),
        ..proto::RequestResponse::default()
    }))
}

fn resume(h: &mut Harness) -> proto::SyncState {
    h.session.handle_transport_end(EndReason::PingTimeout);
    h.session.resume(h.now);
    h.clear();
    h.receive(response(Response::Reconnect(proto::ReconnectResponse::default())));
    let Some(Request::SyncState(state)) = h.sent.first() else { panic!("{:?}", h.sent) };
    state.clone()
}

#[test]
fn a_data_track_is_published_once_and_named_when_the_session_is_resumed() {
    let mut h = publisher();
    let [request] = &requests(&h)[..] else { panic!("{:?}", h.sent) };
    assert_eq!((request.pub_handle, request.name.as_str()), (1, "stampede"));
    h.clear();
    h.receive(taken());
    assert_eq!(h.events, [SessionEvent::DataTrackPublished { handle: 1 }]);
    let state = resume(&mut h);
    let [published] = &state.publish_data_tracks[..] else { panic!("{state:?}") };
    assert_eq!(published.info.as_ref().unwrap().sid, "DTR_1");
    assert!(requests(&h).is_empty(), "{:?}", h.sent);
}

#[test]
fn what_was_not_answered_before_a_resume_is_asked_again() {
    let mut h = publisher();
    assert!(resume(&mut h).publish_data_tracks.is_empty());
    assert_eq!(requests(&h).len(), 1);
    // The server had taken the first request.
    h.clear();
    h.receive(answered(Reason::DuplicateHandle));
    assert_eq!(h.events, [SessionEvent::DataTrackPublished { handle: 1 }]);
}

#[test]
fn a_data_track_that_is_refused_is_not_asked_for_again() {
    let mut h = publisher();
    h.clear();
    h.receive(answered(Reason::NotAllowed));
    let reason = "not_allowed".to_owned();
    assert_eq!(h.events, [SessionEvent::DataTrackRefused { reason }]);
    assert!(resume(&mut h).publish_data_tracks.is_empty());
    assert!(requests(&h).is_empty());
    // What nobody asked for changes nothing.
    let role = Role::subscriber(Subscription::Auto, Quality::High);
    let mut h = Harness::with(SessionOptions::new(role));
    h.receive(join(vec![]));
    h.clear();
    h.receive(taken());
    assert_eq!(h.events, []);
}

/// Somebody who publishes these data tracks.
fn with_data(sid: &str, version: u32, tracks: &[&str]) -> proto::ParticipantInfo {
    let track = |sid: &&str| proto::DataTrackInfo { sid: sid.to_string(), ..Default::default() };
    let data_tracks = tracks.iter().map(track).collect();
    proto::ParticipantInfo { version, data_tracks, ..participant(sid, vec![]) }
}

/// What was asked for since this was last asked; everything is subscribed to.
fn subscribed(h: &mut Harness) -> Vec<String> {
    let mut sids = Vec::new();
    for message in &h.sent {
        if let Request::UpdateDataSubscription(update) = message {
            assert!(update.updates.iter().all(|one| one.subscribe));
            sids.extend(update.updates.iter().map(|one| one.track_sid.clone()));
        }
    }
    sids.sort();
    h.clear();
    sids
}

#[test]
fn who_chooses_by_itself_subscribes_to_each_data_track_once_and_again_after_a_resume() {
    let role = Role {
        data_tracks_of_others: DataTracks::Manual,
        ..Role::subscriber(Subscription::Manual { audio: false, video: false }, Quality::High)
    };
    let mut h = Harness::with(SessionOptions::new(role.clone()));
    h.receive(join(vec![with_data("PA_1", 1, &["DTR_1"])]));
    assert_eq!(subscribed(&mut h), ["DTR_1"]);
    h.receive(update(vec![with_data("PA_1", 2, &["DTR_1", "DTR_2"])]));
    assert_eq!(subscribed(&mut h), ["DTR_2"]);
    // Its own, one that is no news, and an older word of somebody.
    h.receive(update(vec![with_data("PA_self", 1, &["DTR_own"])]));
    h.receive(update(vec![with_data("PA_1", 2, &["DTR_1", "DTR_2"])]));
    h.receive(update(vec![with_data("PA_1", 1, &["DTR_0"])]));
    assert_eq!(subscribed(&mut h), Vec::<String>::new());
    h.receive(update(vec![with_data("PA_1", 3, &["DTR_2"]), with_data("PA_2", 1, &["DTR_3"])]));
    assert_eq!(subscribed(&mut h), ["DTR_3"]);
    resume(&mut h);
    assert_eq!(subscribed(&mut h), ["DTR_2", "DTR_3"]);
    // What a server that takes it up tells is no news.
    h.receive(update(vec![with_data("PA_1", 4, &["DTR_2"]), with_data("PA_2", 1, &["DTR_3"])]));
    assert_eq!(subscribed(&mut h), Vec::<String>::new());
    // Who has left and comes back has other tracks.
    let gone = proto::participant_info::State::Disconnected as i32;
    let left = proto::ParticipantInfo { state: gone, ..with_data("PA_1", 5, &["DTR_2"]) };
    h.receive(update(vec![left, with_data("PA_3", 1, &["DTR_4"])]));
    assert_eq!(subscribed(&mut h), ["DTR_4"]);
    resume(&mut h);
    assert_eq!(subscribed(&mut h), ["DTR_3", "DTR_4"]);
    // In another room there are others.
    h.receive(response(Response::RoomMoved(proto::RoomMovedResponse {
        room: Some(proto::Room { name: "other".into(), ..Default::default() }),
        token: "new-token".into(),
        participant: Some(participant("PA_moved", vec![])),
        other_participants: vec![with_data("PA_9", 1, &["DTR_9"])],
    })));
    assert_eq!(subscribed(&mut h), ["DTR_9"]);
    resume(&mut h);
    assert_eq!(subscribed(&mut h), ["DTR_9"]);
    for data_tracks_of_others in [DataTracks::Auto, DataTracks::None] {
        let role = Role { data_tracks_of_others, ..role.clone() };
        let mut h = Harness::with(SessionOptions::new(role));
        h.receive(join(vec![with_data("PA_1", 1, &["DTR_1"])]));
        assert_eq!(subscribed(&mut h), Vec::<String>::new());
    }
}

#[test]
fn data_tracks_past_the_most_are_counted() {
    let role = Role {
        data_tracks_of_others: DataTracks::Manual,
        ..Role::subscriber(Subscription::Auto, Quality::High)
    };
    let mut h = Harness::with(SessionOptions::new(role));
    let sids: Vec<_> = (0..=DATA_TRACKS_MAX).map(|number| format!("DTR_{number}")).collect();
    let sids: Vec<_> = sids.iter().map(String::as_str).collect();
    h.receive(join(vec![with_data("PA_1", 1, &sids)]));
    assert_eq!(subscribed(&mut h).len(), DATA_TRACKS_MAX);
    assert_eq!(h.session.counters().tracks_ignored, 1);
}

#[test]
fn others_are_met_once_they_are_connected_and_until_they_leave() {
    use proto::participant_info::State;
    let role = Role { rpc: true, ..Role::subscriber(Subscription::Auto, Quality::High) };
    let mut h = Harness::with(SessionOptions { meet_others: true, ..SessionOptions::new(role) });
    let of = |sid: &str, state: State| proto::ParticipantInfo {
        state: state as i32,
        client_protocol: 2,
        ..participant(sid, vec![])
    };
    h.receive(join(vec![of("PA_1", State::Active), of("PA_2", State::Joined)]));
    let other = |sid: &str| Other {
        sid: sid.to_owned(),
        identity: format!("identity of {sid}"),
        client_protocol: 2,
    };
    let met = SessionEvent::OthersMet(vec![other("PA_1")]);
    assert!(h.events.contains(&met), "{:?}", h.events);
    h.clear();
    let both =
        vec![of("PA_1", State::Active), of("PA_2", State::Active), of("PA_self", State::Active)];
    h.receive(update(both));
    assert_eq!(h.events, [SessionEvent::OthersMet(vec![other("PA_2")])]);
    h.clear();
    h.receive(update(vec![of("PA_1", State::Disconnected), of("PA_9", State::Disconnected)]));
    assert_eq!(h.events, [SessionEvent::OthersParted(vec!["PA_1".to_owned()])]);
}

/// Who only sends calls too.
#[test]
fn who_is_moved_leaves_the_others_behind_and_meets_those_there() {
    use proto::participant_info::State;
    for subscribes in [true, false] {
        let mut role = Role { rpc: true, ..Role::subscriber(Subscription::Auto, Quality::High) };
        if !subscribes {
            role.receives = None;
        }
        let mut h =
            Harness::with(SessionOptions { meet_others: true, ..SessionOptions::new(role) });
        let of = |sid: &str| proto::ParticipantInfo {
            state: State::Active as i32,
            ..participant(sid, vec![])
        };
        h.receive(join(vec![of("PA_1")]));
        h.clear();
        h.receive(response(Response::RoomMoved(proto::RoomMovedResponse {
            room: Some(proto::Room { name: "other".into(), ..Default::default() }),
            token: "new-token".into(),
            participant: Some(of("PA_moved")),
            other_participants: vec![of("PA_2"), of("PA_moved")],
        })));
        let (room, participant_sid) = ("other".into(), "PA_moved".into());
        let (sid, identity) = ("PA_2".to_owned(), "identity of PA_2".to_owned());
        let told = [
            SessionEvent::OthersParted(vec!["PA_1".to_owned()]),
            SessionEvent::Moved { room, participant_sid },
            SessionEvent::OthersMet(vec![Other { sid, identity, client_protocol: 0 }]),
        ];
        assert_eq!(h.events, told, "subscribes: {subscribes}");
        h.clear();
        let gone = proto::ParticipantInfo { state: State::Disconnected as i32, ..of("PA_1") };
        h.receive(update(vec![gone]));
        assert_eq!(h.events, []);
    }
}
