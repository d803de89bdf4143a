//! What a session does at the maxima of what it keeps of others, and of what a server may have it do.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use livekit_protocol as proto;
use proto::TrackType;
use proto::participant_info::State;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use stampede_signaling::session::flood::*;
use stampede_signaling::session::*;

#[test]
fn tracks_beyond_those_that_may_be_announced_are_counted() {
    let tracks = (0..PUBLISH_TRACKS_MAX + 3).map(|number| audio_track(&number.to_string()));
    let mut h = Harness::new(Role::publisher(tracks.collect()));
    h.receive(join(vec![]));
    let announced = h.sent.iter().filter(|request| matches!(request, Request::AddTrack(_)));
    assert_eq!(announced.count(), PUBLISH_TRACKS_MAX);
    assert_eq!(h.session.counters().tracks_ignored, 3);
}

#[test]
fn tracks_of_others_beyond_those_that_are_kept_are_counted() {
    let track = |number: usize| track(&format!("TR_{number}"), TrackType::Audio);
    let mut h = Harness::subscriber(Subscription::Auto, Quality::High);
    let others = (0..REMOTE_TRACKS_MAX).map(track).collect();
    h.receive(join(vec![participant("PA_1", others)]));
    let available = |h: &Harness| {
        let is = |event: &&SessionEvent| matches!(event, SessionEvent::TrackAvailable(_));
        h.events.iter().filter(is).count()
    };
    assert_eq!((available(&h), h.session.counters().tracks_ignored), (REMOTE_TRACKS_MAX, 0));
    h.clear();
    let further = |number: usize| participant("PA_2", vec![track(REMOTE_TRACKS_MAX + number)]);
    h.receive(update(vec![further(0)]));
    assert_eq!((available(&h), h.session.counters().tracks_ignored), (0, 1));
    // Those that go make room.
    h.receive(update(vec![participant("PA_1", vec![])]));
    h.clear();
    h.receive(update(vec![further(1)]));
    assert_eq!((available(&h), h.session.counters().tracks_ignored), (1, 1));
    assert_eq!(h.end(), None);
}

#[test]
fn so_many_others_are_met_and_whoever_goes_makes_room() {
    let role = Role { rpc: true, ..Role::subscriber(Subscription::Auto, Quality::High) };
    let mut h = Harness::with(SessionOptions { meet_others: true, ..SessionOptions::new(role) });
    let other = |number: usize, state: State| proto::ParticipantInfo {
        state: state as i32,
        ..participant(&format!("PA_{number}"), vec![])
    };
    h.receive(join((0..OTHERS_MET_MAX + 2).map(|number| other(number, State::Active)).collect()));
    let met = |h: &Harness| {
        let of = |event: &SessionEvent| match event {
            SessionEvent::OthersMet(others) => others.len(),
            _ => 0,
        };
        h.events.iter().map(of).sum::<usize>()
    };
    assert_eq!(met(&h), OTHERS_MET_MAX);
    h.clear();
    h.receive(update(vec![other(0, State::Disconnected), other(OTHERS_MET_MAX, State::Active)]));
    assert_eq!(met(&h), 1);
}

/// How many of these messages, all at once behind a join, end a session, and by what.
fn flooded_by(message: impl Fn(u32) -> proto::SignalResponse) -> (u32, Flood) {
    let mut h = Harness::subscriber(Subscription::Auto, Quality::High);
    h.receive(join(vec![]));
    for number in 1.. {
        h.clear();
        h.receive(message(number));
        if let Some(EndReason::ServerFlooded { flood }) = h.end() {
            return (number, *flood);
        }
        h.media(MediaInput::LocalAnswer { offer_id: number, sdp: "x".into() });
    }
    unreachable!("more than any bound");
}

#[test]
fn a_server_that_sends_one_too_many_of_anything_ends_the_session() {
    let pong = |_| response(Response::Pong(7));
    // The join is one.
    assert_eq!(flooded_by(pong), (MESSAGES_BURST_MAX, Flood::Messages));
    let large = "x".repeat(1 << 20);
    let token = |_| response(Response::RefreshToken(large.clone()));
    assert_eq!(flooded_by(token), (BYTES_BURST_MAX >> 20, Flood::Bytes));
    let muted = |number: u32| {
        let track = track("TR_1", TrackType::Audio);
        let muted = number.is_multiple_of(2);
        update(vec![participant("PA_1", vec![proto::TrackInfo { muted, ..track }])])
    };
    let (number, flood) = flooded_by(muted);
    // Having joined is an event too.
    assert_eq!(flood, Flood::Events);
    assert!((EVENTS_BURST_MAX - 8..=EVENTS_BURST_MAX).contains(&number), "{number}");
    let offers = |number| offer(number, OFFER_DATA, &[]);
    assert_eq!(flooded_by(offers), (OFFERS_BURST_MAX + 1, Flood::Offers));
    let candidate = |_| trickle(proto::SignalTarget::Subscriber, &candidate_json(1), false);
    assert_eq!(flooded_by(candidate), (CANDIDATES_BURST_MAX + 1, Flood::Candidates));
    let long = "a".repeat(SDP_BYTES_MAX + 1);
    let too_long = |number| offer(number, &long, &[]);
    assert_eq!(flooded_by(too_long), (1, Flood::Sdp { bytes: SDP_BYTES_MAX + 1 }));
}
