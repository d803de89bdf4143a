//! Clients that lose their websocket, their port or both, and come back.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{Camera, Client, drive, grants, options, row, run_for, start, subscribe, token};
use livekit_protocol as proto;
use livekit_token::VideoGrants;
use proto::leave_request::Action;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use stampede_sfu::{Sfu, SfuOptions};

const ROOM: &str = "room";

fn publisher() -> VideoGrants {
    VideoGrants { can_subscribe: Some(false), ..grants(ROOM) }
}

fn subscriber() -> VideoGrants {
    VideoGrants { can_publish: Some(false), ..grants(ROOM) }
}

async fn publish(sfu: &Sfu) -> Camera {
    Camera::publish(Client::connect(sfu, "publisher", publisher()).await, "camera").await
}

fn participants(sfu: &Sfu) -> u64 {
    sfu.ledger().unwrap().rooms[0].participants
}

/// SSRCs of the track on the wire, as the viewer saw them.
fn ssrcs(viewer: &Client, track: &str) -> usize {
    let of_track = |ssrc: &&u32| viewer.ssrc_track.get(ssrc) == Some(&(track.to_owned(), false));
    viewer.wire.keys().filter(of_track).count()
}

#[tokio::test]
async fn media_goes_on_without_a_websocket_and_through_a_resume() {
    let sfu = start("", 1);
    let mut camera = publish(&sfu).await;
    let track = camera.track.clone();
    let mut viewer = subscribe(&sfu, ROOM, "viewer", &track).await;
    camera.stream_more(&mut viewer, 10).await;

    viewer.hang_up().await;
    camera.stream_more(&mut viewer, 100).await;
    assert_eq!(participants(&sfu), 2, "it lingers");

    viewer.resume(&sfu, "viewer", subscriber()).await;
    camera.stream(&mut viewer, |_| sfu.ledger().unwrap().signalling.ice_restarts == 1).await;
    camera.stream_more(&mut viewer, 20).await;
    let kinds: Vec<&Response> = viewer.responses.iter().collect();
    assert!(
        matches!(
            kinds[..],
            [
                Response::Reconnect(proto::ReconnectResponse { server_info: Some(_), .. }),
                Response::Update(_),
                Response::RoomUpdate(_),
                ..
            ]
        ),
        "{kinds:?}"
    );
    let Response::Update(update) = kinds[1] else { panic!() };
    let mut names: Vec<&str> = update.participants.iter().map(|p| p.identity.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["publisher", "viewer"]);
    assert!(kinds.iter().any(|kind| matches!(kind, Response::RefreshToken(_))));
    assert_eq!(ssrcs(&viewer, &track), 1, "one stream all the time");
    let seqs = viewer.wire_seqs(&track, false);
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "not a packet lost");
    let ledger = sfu.ledger().unwrap();
    assert_eq!((ledger.signalling.resumes, ledger.signalling.attendance.joins), (1, 2));
}

#[tokio::test]
async fn a_viewer_resumes_from_another_port() {
    let sfu = start("", 1);
    let mut camera = publish(&sfu).await;
    let track = camera.track.clone();
    let mut viewer = subscribe(&sfu, ROOM, "viewer", &track).await;
    camera.stream_more(&mut viewer, 10).await;
    viewer.hang_up().await;
    viewer.subscriber.change_port();
    viewer.resume(&sfu, "viewer", subscriber()).await;
    camera.stream_more(&mut viewer, 20).await;
    assert_eq!(ssrcs(&viewer, &track), 1, "the same stream");
    let seqs = viewer.wire_seqs(&track, false);
    assert!(seqs.windows(2).all(|pair| pair[1] > pair[0]), "its numbers go on");
    // Again, with an offer that may have been lost: the websocket is replaced while it is out.
    viewer.resume_with(&sfu, &token("viewer", subscriber())).await;
    viewer.subscriber.change_port();
    viewer.resume_with(&sfu, &token("viewer", subscriber())).await;
    camera.stream_more(&mut viewer, 20).await;
    assert_eq!(sfu.ledger().unwrap().signalling.resumes, 3);
    assert_eq!(row(&sfu, ROOM, "viewer", &track).counts.layer_switches, 0);
}

#[tokio::test]
async fn a_publisher_resumes_from_another_port() {
    let sfu = start("", 2);
    let mut camera = publish(&sfu).await;
    let track = camera.track.clone();
    let mut viewer = subscribe(&sfu, ROOM, "viewer", &track).await;
    camera.stream_more(&mut viewer, 10).await;
    camera.client.hang_up().await;
    camera.client.publisher.change_port();
    camera.client.resume(&sfu, "publisher", publisher()).await;
    camera.stream(&mut viewer, |_| sfu.ledger().unwrap().signalling.ice_restarts == 1).await;
    let state = proto::SyncState {
        publish_tracks: vec![proto::TrackPublishedResponse {
            cid: "camera".into(),
            track: Some(proto::TrackInfo { sid: track.clone(), ..proto::TrackInfo::default() }),
        }],
        ..proto::SyncState::default()
    };
    camera.client.send(Request::SyncState(state)).await;
    camera.stream_more(&mut viewer, 20).await;
    assert!(camera.client.left.is_none());
    let ledger = sfu.ledger().unwrap();
    assert_eq!(ledger.rooms[0].published.len(), 1, "the same track");
    assert_eq!(ledger.rooms[0].published[0].track_sid, track);
}

#[tokio::test]
async fn who_publishes_what_is_unknown_joins_anew() {
    let sfu = start("", 1);
    let mut camera = publish(&sfu).await;
    camera.client.resume(&sfu, "publisher", publisher()).await;
    let track = proto::TrackInfo { sid: "TR_other".into(), ..proto::TrackInfo::default() };
    let published = proto::TrackPublishedResponse { cid: String::new(), track: Some(track) };
    let state = proto::SyncState { publish_tracks: vec![published], ..proto::SyncState::default() };
    camera.client.send(Request::SyncState(state)).await;
    drive(&mut [&mut camera.client], |c| c[0].closed).await;
    assert_eq!(camera.client.left.as_ref().unwrap().action(), Action::Reconnect);
    assert_eq!(participants(&sfu), 0);
}

#[tokio::test]
async fn who_resumes_says_what_it_wants() {
    let sfu = start("", 1);
    let mut camera = publish(&sfu).await;
    let track = camera.track.clone();
    let mut paused = subscribe(&sfu, ROOM, "paused", &track).await;
    let mut without = subscribe(&sfu, ROOM, "without", &track).await;
    for viewer in [&mut paused, &mut without] {
        camera.stream_more(viewer, 10).await;
        viewer.hang_up().await;
    }
    paused.resume(&sfu, "paused", subscriber()).await;
    let state = proto::SyncState {
        track_sids_disabled: vec![track.clone()],
        ..proto::SyncState::default()
    };
    paused.send(Request::SyncState(state)).await;
    without.resume(&sfu, "without", subscriber()).await;
    let subscription = proto::UpdateSubscription {
        track_sids: vec![track.clone()],
        subscribe: false,
        ..proto::UpdateSubscription::default()
    };
    let state =
        proto::SyncState { subscription: Some(subscription), ..proto::SyncState::default() };
    without.send(Request::SyncState(state)).await;
    drive(&mut [&mut without], |c| c[0].mid_to_track.is_empty()).await;
    // The ping's answer shows that what came before was done.
    paused.send(Request::Ping(1)).await;
    drive(&mut [&mut paused], |c| c[0].responses.contains(&Response::Pong(1))).await;
    run_for(&mut [&mut paused], Duration::from_millis(50)).await;
    let before = row(&sfu, ROOM, "paused", &track).counts.packets_sent;
    let mut other = subscribe(&sfu, ROOM, "other", &track).await;
    camera.stream_more(&mut other, 20).await;
    assert_eq!(row(&sfu, ROOM, "paused", &track).counts.packets_sent, before);
}

#[tokio::test]
async fn who_was_never_connected_is_removed_with_its_websocket() {
    let sfu = start("", 1);
    let mut camera = publish(&sfu).await;
    let mut viewer = Client::connect(&sfu, "viewer", subscriber()).await;
    assert!(!viewer.subscriber.connected, "no more was done than join");
    viewer.hang_up().await;
    drive(&mut [&mut camera.client], |_| participants(&sfu) == 1).await;
    viewer.resume(&sfu, "viewer", subscriber()).await;
    assert_eq!(viewer.left.as_ref().map(|leave| leave.action()), Some(Action::Reconnect));
    assert_eq!(sfu.ledger().unwrap().signalling.resumes_refused, 1);
}

#[tokio::test]
async fn an_identity_that_lingers_is_evicted_by_the_next_of_its_name() {
    let sfu = start("", 1);
    let mut camera = publish(&sfu).await;
    let track = camera.track.clone();
    let mut viewer = subscribe(&sfu, ROOM, "viewer", &track).await;
    viewer.hang_up().await;
    run_for(&mut [&mut viewer], Duration::from_millis(50)).await;
    let mut next = subscribe(&sfu, ROOM, "viewer", &track).await;
    assert_eq!(participants(&sfu), 2);
    camera.stream_more(&mut next, 10).await;
}

/// Takes as long as ICE does to find out, 15 s.
#[tokio::test]
async fn who_falls_silent_is_told_to_resume_and_departs_if_it_does_not() {
    let departure_time = Duration::from_secs(3);
    let sfu = Sfu::start(SfuOptions { departure_time, ..options() }).unwrap();
    let mut camera = publish(&sfu).await;
    let track = camera.track.clone();
    let mut back = subscribe(&sfu, ROOM, "back", &track).await;
    let mut gone = subscribe(&sfu, ROOM, "gone", &track).await;
    camera.stream_more(&mut back, 10).await;
    for client in [&mut back, &mut gone] {
        client.subscriber.muted = true;
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while !(back.closed && gone.closed) {
        assert!(Instant::now() < deadline, "nobody noticed");
        run_for(&mut [&mut camera.client, &mut back, &mut gone], Duration::from_millis(50)).await;
    }
    for client in [&back, &gone] {
        let leave = client.left.as_ref().unwrap();
        assert_eq!(leave.action(), Action::Resume);
        assert_eq!(leave.reason(), proto::DisconnectReason::ConnectionTimeout);
    }
    assert_eq!(participants(&sfu), 3, "they may come back");
    back.subscriber.muted = false;
    back.subscriber.change_port();
    back.resume(&sfu, "back", subscriber()).await;
    camera.stream_more(&mut back, 20).await;
    assert_eq!(ssrcs(&back, &track), 1);
    camera.stream(&mut back, |_| participants(&sfu) == 2).await;
    let counted = sfu.ledger().unwrap().signalling;
    assert_eq!((counted.media_lost, counted.departures, counted.resumes), (2, 1, 1));
    gone.resume(&sfu, "gone", subscriber()).await;
    assert_eq!(gone.left.as_ref().map(|leave| leave.action()), Some(Action::Reconnect));
}
