//! What a client has the server play, and being moved to another room.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Client, drive, grants, http, row, run_for, start, token, vp8};
use livekit_protocol as proto;
use livekit_token::VideoGrants;
use prost::Message as _;
use proto::DisconnectReason as Reason;
use proto::leave_request::Action;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use proto::simulate_scenario::Scenario;
use stampede_sfu::Sfu;
use str0m::media::MediaKind;

const ROOM: &str = "room";

async fn connect(sfu: &Sfu, identity: &str) -> Client {
    let grants = VideoGrants { can_publish: Some(false), ..grants(ROOM) };
    let mut client = Client::connect(sfu, identity, grants).await;
    drive(&mut [&mut client], |c| c[0].subscriber.connected).await;
    client
}

/// One that publishes a track of three layers, and subscribes.
async fn publish(sfu: &Sfu, identity: &str, room: &str) -> (Client, String) {
    let mut client = Client::connect(sfu, identity, grants(room)).await;
    client.publish("camera", MediaKind::Video, &["q", "h", "f"]).await;
    drive(&mut [&mut client], |c| {
        c[0].subscriber.connected && c[0].publisher.connected && c[0].published("camera").is_some()
    })
    .await;
    let track = client.published("camera").unwrap();
    (client, track)
}

async fn simulate(client: &mut Client, scenario: Scenario) {
    let simulate = proto::SimulateScenario { scenario: Some(scenario) };
    client.send(Request::Simulate(simulate)).await;
}

async fn resume(client: &mut Client, sfu: &Sfu, identity: &str) {
    client.resume_with(sfu, &token(identity, grants(ROOM))).await;
}

fn speakers(client: &Client) -> Vec<proto::SpeakerInfo> {
    let changed = client.responses.iter().filter_map(|response| match response {
        Response::SpeakersChanged(changed) => Some(changed.speakers.clone()),
        _ => None,
    });
    changed.flatten().collect()
}

#[tokio::test]
async fn a_speaker_is_heard_by_who_has_subscribed_to_it_and_falls_silent() {
    let sfu = start("", 1);
    let (mut speaker, track) = publish(&sfu, "speaker", ROOM).await;
    let mut listener = connect(&sfu, "listener").await;
    drive(&mut [&mut speaker, &mut listener], |c| {
        c[1].mid_to_track.values().any(|known| *known == track)
    })
    .await;
    let mut deaf = Client::connect_with(&sfu, "deaf", grants(ROOM), "auto_subscribe=0").await;
    simulate(&mut speaker, Scenario::SpeakerUpdate(1)).await;
    drive(&mut [&mut speaker, &mut listener, &mut deaf], |c| {
        c[..2].iter().all(|client| speakers(client).len() == 2)
    })
    .await;
    let said: Vec<(f32, bool)> = speakers(&listener).iter().map(|s| (s.level, s.active)).collect();
    assert_eq!(said, [(0.9, true), (0.0, false)]);
    assert!(speakers(&deaf).is_empty());
}

#[tokio::test]
async fn ends_are_as_the_server_has_them_and_a_resume_finds_nobody() {
    let sfu = start("", 1);
    let cases = [
        (Scenario::NodeFailure(true), None),
        (Scenario::Migration(true), None),
        (Scenario::ServerLeave(true), Some((Action::Disconnect, Reason::ServerShutdown))),
        (
            Scenario::LeaveRequestFullReconnect(true),
            Some((Action::Reconnect, Reason::StateMismatch)),
        ),
    ];
    for (scenario, leave) in cases {
        let mut client = connect(&sfu, "client").await;
        simulate(&mut client, scenario).await;
        drive(&mut [&mut client], |c| c[0].closed).await;
        let left = client.left.as_ref().map(|left| (left.action(), left.reason()));
        assert_eq!(left, leave, "{scenario:?}");
        resume(&mut client, &sfu, "client").await;
        let left = client.left.as_ref().map(|left| (left.action(), left.reason()));
        assert_eq!(left, Some((Action::Reconnect, Reason::StateMismatch)), "{scenario:?}");
    }
    let counted = sfu.ledger().unwrap().signalling;
    assert_eq!((counted.scenarios_simulated, counted.resumes_refused), (4, 4));
    assert_eq!(sfu.ledger().unwrap().rooms[0].participants, 0);
}

#[tokio::test]
async fn switching_candidates_restarts_ice() {
    let sfu = start("", 1);
    let mut client = connect(&sfu, "client").await;
    let offers = client.offers;
    let tcp = proto::CandidateProtocol::Tcp as i32;
    simulate(&mut client, Scenario::SwitchCandidateProtocol(tcp)).await;
    drive(&mut [&mut client], |c| {
        c[0].offers == offers + 1 && sfu.ledger().unwrap().signalling.ice_restarts == 1
    })
    .await;
}

#[tokio::test]
async fn resumes_end_on_purpose_and_the_next_one_works() {
    let sfu = start("", 1);
    let mut client = connect(&sfu, "client").await;
    simulate(&mut client, Scenario::DisconnectSignalOnResume(true)).await;
    simulate(&mut client, Scenario::DisconnectSignalOnResumeNoMessages(true)).await;
    client.send(Request::Ping(1)).await;
    drive(&mut [&mut client], |c| c[0].responses.contains(&Response::Pong(1))).await;
    for _ in 0..3 {
        resume(&mut client, &sfu, "client").await;
        assert!(client.closed && client.responses.is_empty() && client.left.is_none());
    }
    resume(&mut client, &sfu, "client").await;
    drive(&mut [&mut client], |c| c[0].closed).await;
    assert!(matches!(client.responses[0], Response::Reconnect(_)));
    assert!(client.responses.iter().any(|response| matches!(response, Response::RoomUpdate(_))));
    assert!(client.left.is_none());
    resume(&mut client, &sfu, "client").await;
    drive(&mut [&mut client], |_| sfu.ledger().unwrap().signalling.ice_restarts == 1).await;
    assert!(!client.closed);
    assert_eq!(sfu.ledger().unwrap().signalling.resumes, 2);
}

fn states(client: &Client) -> Vec<(String, proto::StreamState)> {
    let updates = client.responses.iter().filter_map(|response| match response {
        Response::StreamStateUpdate(update) => Some(update.stream_states.clone()),
        _ => None,
    });
    updates.flatten().map(|info| (info.track_sid.clone(), info.state())).collect()
}

#[tokio::test]
async fn a_small_bandwidth_limits_layers_and_pauses_what_does_not_fit() {
    let sfu = start("", 1);
    let (mut publisher, track) = publish(&sfu, "publisher", ROOM).await;
    let mid = *publisher.mids.first().unwrap();
    let mut viewer = connect(&sfu, "viewer").await;
    drive(&mut [&mut publisher, &mut viewer], |c| {
        c[1].mid_to_track.values().any(|known| *known == track)
    })
    .await;
    let mut sent = 0;
    // Bandwidths with the layer they leave, and how often the track was said to pause or go on.
    let steps = [(0, Some(2), 0), (700_000, Some(1), 0), (200_000, Some(0), 0)];
    let steps = steps.into_iter().chain([(50_000, None, 1), (0, Some(2), 2)]);
    for (bps, layer, said) in steps {
        simulate(&mut viewer, Scenario::SubscriberBandwidth(bps)).await;
        loop {
            for (layer, rid) in ["q", "h", "f"].into_iter().enumerate() {
                let payload = vp8(sent as u16, true, layer as u8, 200);
                publisher.write(mid, Some(rid), 1_000 + sent, 3_000 * sent as u32, payload);
            }
            sent += 1;
            assert!(sent < 2_000, "{bps} bit/s");
            run_for(&mut [&mut publisher, &mut viewer], Duration::from_millis(5)).await;
            if row(&sfu, ROOM, "viewer", &track).layer == layer && states(&viewer).len() == said {
                break;
            }
        }
    }
    use proto::StreamState::{Active, Paused};
    assert_eq!(states(&viewer), [(track.clone(), Paused), (track, Active)]);
}

/// Asks for a move, with the rights that this token has.
async fn move_to(sfu: &Sfu, grants: VideoGrants, identity: &str, to: &str) -> u16 {
    let request = proto::MoveParticipantRequest {
        room: ROOM.into(),
        identity: identity.into(),
        destination_room: to.into(),
    };
    let bearer = format!("Bearer {}", token("admin", grants));
    let headers = [("Content-Type", "application/protobuf"), ("Authorization", bearer.as_str())];
    let path = "/twirp/livekit.RoomService/MoveParticipant";
    http(sfu, "POST", path, &headers, &request.encode_to_vec()).await.0
}

#[tokio::test]
async fn a_participant_moves_with_its_tracks_and_gets_those_of_the_other_room() {
    let sfu = start("", 2);
    let (mut mover, camera) = publish(&sfu, "mover", ROOM).await;
    let mid = *mover.mids.first().unwrap();
    let (mut stays, left_behind) = publish(&sfu, "stays", ROOM).await;
    let (mut host, found) = publish(&sfu, "host", "other").await;
    drive(&mut [&mut mover, &mut stays, &mut host], |c| {
        c[0].mid_to_track.values().any(|known| *known == left_behind)
            && c[1].mid_to_track.values().any(|known| *known == camera)
    })
    .await;
    let admin = || VideoGrants { room_admin: true, room: ROOM.into(), ..VideoGrants::default() };
    assert_eq!(move_to(&sfu, grants(ROOM), "mover", "other").await, 401);
    assert_eq!(move_to(&sfu, admin(), "nobody", "other").await, 404);
    assert_eq!(move_to(&sfu, admin(), "mover", ROOM).await, 400);
    mover.responses.clear();
    assert_eq!(move_to(&sfu, admin(), "mover", "other").await, 200);
    drive(&mut [&mut mover, &mut stays, &mut host], |c| {
        c[0].mid_to_track.values().eq([&found])
            && !c[1].mid_to_track.values().any(|known| *known == camera)
            && c[2].mid_to_track.values().any(|known| *known == camera)
    })
    .await;
    let Some(Response::RoomMoved(moved)) = mover.responses.first() else {
        panic!("{:?}", mover.responses.first())
    };
    let moved = moved.clone();
    assert_eq!(moved.room.unwrap().name, "other");
    let me = moved.participant.unwrap();
    assert_ne!(me.sid, mover.join.as_ref().unwrap().participant.as_ref().unwrap().sid);
    let tracks: Vec<&str> = me.tracks.iter().map(|track| track.sid.as_str()).collect();
    assert_eq!(tracks, [camera.as_str()]);
    let others: Vec<&str> =
        moved.other_participants.iter().map(|other| other.identity.as_str()).collect();
    assert_eq!(others, ["host"]);

    // Its media goes to the other room on the connections it has.
    let mut sent = 0;
    while host.packets.get(&camera).map_or(0, Vec::len) < 10 {
        mover.write(
            mid,
            Some("f"),
            1_000 + sent,
            3_000 * sent as u32,
            vp8(sent as u16, true, 2, 99),
        );
        sent += 1;
        assert!(sent < 2_000);
        run_for(&mut [&mut mover, &mut stays, &mut host], Duration::from_millis(5)).await;
    }
    let ledger = sfu.ledger().unwrap();
    let room = |name: &str| ledger.rooms.iter().find(|row| row.room == name).unwrap();
    assert_eq!((room("other").participants, room(ROOM).participants), (2, 1));
    assert_eq!((room(ROOM).attendance.leaves, room("other").attendance.joins), (1, 2));
    assert_eq!(ledger.signalling.moves, 1);
    let rows = |name: &str| {
        let subscribers = room(name).subscribers.iter();
        let mover = subscribers.filter(|row| row.identity == "mover");
        mover.flat_map(|row| row.tracks.iter().map(|row| row.track_sid.clone())).collect::<Vec<_>>()
    };
    assert_eq!((rows(ROOM), rows("other")), (vec![left_behind], vec![found]));

    // The old token leads nowhere, the new one back to where it is.
    mover.resume_with(&sfu, &token("mover", grants(ROOM))).await;
    assert_eq!(mover.left.as_ref().unwrap().action(), Action::Reconnect);
    mover.resume_with(&sfu, &moved.token).await;
    assert!(matches!(mover.responses[0], Response::Reconnect(_)));
}
