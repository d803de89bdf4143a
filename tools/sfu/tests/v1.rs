//! Clients of v1: a single peer connection on which the client offers and both send.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::{Camera, Client, Report, drive, grants, http, row, run_for, start, token, vp8};
use livekit_protocol as proto;
use livekit_token::VideoGrants;
use prost::Message as _;
use proto::leave_request::Action;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use proto::simulate_scenario::Scenario;
use stampede_sdp::{Description, Direction, Media};
use stampede_sfu::Sfu;
use str0m::media::MediaKind;

const ROOM: &str = "room";

fn subscriber() -> VideoGrants {
    VideoGrants { can_publish: Some(false), ..grants(ROOM) }
}

async fn v0(sfu: &Sfu, identity: &str) -> Client {
    Client::connect(sfu, identity, grants(ROOM)).await
}

/// One that is connected.
async fn v1(sfu: &Sfu, identity: &str, slots: (u32, u32)) -> Client {
    let mut client = Client::connect_single(sfu, identity, grants(ROOM), slots).await;
    drive(&mut [&mut client], |c| c[0].publisher.connected).await;
    client
}

/// SSRCs of a track's packets as the viewer was told.
fn ssrcs(viewer: &Client, track: &str) -> BTreeSet<u32> {
    let of_track = |(_, known): &(&u32, &(String, bool))| known.0 == track;
    viewer.ssrc_track.iter().filter(of_track).map(|(ssrc, _)| *ssrc).collect()
}

fn has_line(media: &Media<'_>, description: &Description<'_>, wanted: &str) -> bool {
    let mut found = false;
    description.rewrite(|of, line| {
        found |= of.is_some_and(|of| of.mid == media.mid) && line.starts_with(wanted);
        None
    });
    found
}

/// How a slot is answered.
fn assert_slot(answer: &proto::SessionDescription, mid: &str, sent: Option<(&str, &str)>) {
    let description = Description::parse(&answer.sdp).unwrap();
    let media = description.media.iter().find(|media| media.mid == mid).unwrap();
    let line = |wanted: &str| has_line(media, &description, wanted);
    assert!(line("a=rtcp-mux") && line("a=setup:active"), "{}", answer.sdp);
    assert!(!line("a=rtcp-fb:96 transport-cc"), "no sequence numbers for it: {}", answer.sdp);
    let Some((publisher, track)) = sent else {
        assert!(!line("a=msid") && !line("a=ssrc"), "{}", answer.sdp);
        assert!(!answer.mid_to_track_id.contains_key(mid));
        return;
    };
    assert!(media.direction.sends());
    assert!(line(&format!("a=msid:{publisher}|{track} {track}")), "{}", answer.sdp);
    assert!(line("a=ssrc-group:FID ") && line("a=ssrc:"), "{}", answer.sdp);
    assert!(answer.sdp.contains(&format!(" cname:{publisher}|{track}")), "{}", answer.sdp);
    assert_eq!(answer.mid_to_track_id.get(mid).map(String::as_str), Some(track));
}

/// LiveKit's Go SDK sends its join request to the path of v0.
#[tokio::test]
async fn a_join_request_by_the_old_path_is_one_of_v1() {
    let sfu = start("", 1);
    let mut old = Camera::publish(v0(&sfu, "old").await, "camera").await;
    let viewer = Client::connect_single_at(&sfu, "/rtc", "viewer", grants(ROOM), (1, 1));
    let mut viewer = viewer.await;
    old.stream_more(&mut viewer, 20).await;
    assert!(!viewer.responses.iter().any(|it| matches!(it, Response::Offer(_))));
    assert_eq!(sfu.ledger().unwrap().signalling.joins_v1, 1);
}

#[tokio::test]
async fn clients_of_both_versions_see_each_other() {
    let sfu = start("", 2);
    let mut old = Camera::publish(v0(&sfu, "old").await, "camera").await;
    let mut viewer = v1(&sfu, "viewer", (1, 2)).await;
    old.stream_more(&mut viewer, 50).await;

    let join = viewer.join.as_ref().unwrap();
    assert!(!join.subscriber_primary && join.fast_publish);
    assert!(join.other_participants.iter().any(|info| info.identity == "old"));
    let position = |wanted: fn(&Response) -> bool| viewer.responses.iter().position(wanted);
    let joined = position(|it| matches!(it, Response::Join(_)));
    let answered = position(|it| matches!(it, Response::Answer(_)));
    let trickled = position(|it| matches!(it, Response::Trickle(_)));
    assert!(joined == Some(0) && answered < trickled, "{:#?}", viewer.responses);
    let Some(Response::Trickle(trickle)) = viewer.responses.get(trickled.unwrap()) else {
        panic!()
    };
    assert_eq!(trickle.target(), proto::SignalTarget::Publisher);
    assert!(!viewer.responses.iter().any(|it| matches!(it, Response::Offer(_))));
    let [answer] = &viewer.answers[..] else { panic!("{}", viewer.answers.len()) };
    let description = Description::parse(&answer.sdp).unwrap();
    assert_eq!((answer.id, description.bundled.len()), (1, 4));
    let publisher = old.client.join.as_ref().unwrap().participant.as_ref().unwrap().sid.clone();
    let videos = description.media.iter().filter(|media| media.media_word == "video");
    let [first, second] = videos.map(|media| media.mid).collect::<Vec<_>>()[..] else { panic!() };
    assert_slot(answer, first, Some((&publisher, &old.track)));
    assert_slot(answer, second, None);

    let mut new = Camera::publish(v1(&sfu, "new", (0, 0)).await, "camera").await;
    new.stream_more(&mut viewer, 50).await;
    new.stream_more(&mut old.client, 50).await;
    assert_eq!(row(&sfu, ROOM, "viewer", &new.track).counts.dropped, 0);
    let counted = sfu.ledger().unwrap().signalling;
    assert_eq!((counted.attendance.joins, counted.joins_v1), (3, 2));
    let peers: usize = sfu.ledger().unwrap().workers.iter().map(|worker| worker.peers).sum();
    assert_eq!(peers, 4, "two of who joined by v0");
}

/// The last sender report that a viewer has of a track.
fn report(viewer: &Client, track: &str) -> Option<Report> {
    viewer.packets.get(track)?.last()?.report
}

#[tokio::test]
async fn audio_and_video_of_a_single_connection_are_reported_together() {
    let sfu = start("", 1);
    let mut viewer = v1(&sfu, "viewer", (1, 1)).await;
    let mut camera = Camera::publish(v1(&sfu, "camera", (0, 0)).await, "camera").await;
    let microphone = camera.client.publish("microphone", MediaKind::Audio, &[]).await;
    drive(&mut [&mut camera.client], |c| {
        c[0].published("microphone").is_some() && c[0].publisher.rtc.media(microphone).is_some()
    })
    .await;
    let audio = camera.client.published("microphone").unwrap();
    let told =
        |viewer: &Client, video: &str| Some([report(viewer, video)?, report(viewer, &audio)?]);
    let deadline = Instant::now() + Duration::from_secs(20);
    let reports = loop {
        assert!(Instant::now() < deadline, "no report");
        let sent = camera.sent;
        camera.client.write(microphone, None, 100 + sent, 960 * sent as u32, vec![9; 40]);
        camera.stream_more(&mut viewer, 1).await;
        // The one may have had a report of before the other's first packet.
        if let Some([video, audio]) = told(&viewer, &camera.track)
            && video.ntp_time == audio.ntp_time
        {
            break [video, audio];
        }
    };
    for (track, of_it, bytes) in [(&camera.track, reports[0], 300), (&audio, reports[1], 40)] {
        let seen = viewer.packets[track].len() as u32;
        assert!((1..=seen).contains(&of_it.packets), "{of_it:?} of {seen}");
        assert_eq!(of_it.octets, bytes * of_it.packets);
    }
}

#[tokio::test]
async fn slots_are_asked_for_and_used_again() {
    let sfu = start("", 1);
    let mut viewer = v1(&sfu, "viewer", (0, 0)).await;
    assert_eq!(viewer.answers[0].mid_to_track_id.len(), 0);
    let mut camera = Camera::publish(v0(&sfu, "camera").await, "camera").await;
    camera.stream_more(&mut viewer, 20).await;
    assert_eq!(viewer.required, [(0, 1)]);
    // Who publishes is known before its track is.
    let told = viewer.responses.iter().position(|it| {
        matches!(it, Response::Update(update) if update.participants.iter().any(|info| {
            info.tracks.iter().any(|track| track.sid == camera.track)
        }))
    });
    let bound = viewer.responses.iter().position(
        |it| matches!(it, Response::Answer(answer) if !answer.mid_to_track_id.is_empty()),
    );
    assert!(told.is_some() && told < bound, "{told:?} {bound:?}");
    let (slot, _) = viewer.mid_to_track.iter().next().unwrap();
    let slot = slot.clone();
    let before = ssrcs(&viewer, &camera.track);
    assert_eq!(before.len(), 2, "with RTX");

    camera.client.send(Request::Leave(proto::LeaveRequest::default())).await;
    drive(&mut [&mut camera.client, &mut viewer], |c| {
        c[1].required.len() == 2 && c[1].answers.len() == 3
    })
    .await;
    assert_eq!(viewer.required[1], (0, 0), "an offer is wanted, and no m-line");
    assert_slot(&viewer.answers[2], &slot, None);
    let description = Description::parse(&viewer.answers[2].sdp).unwrap();
    let media = description.media.iter().find(|media| media.mid == slot).unwrap();
    assert_eq!(media.direction, Direction::Inactive);

    let mut camera = Camera::publish(v1(&sfu, "other", (0, 0)).await, "camera").await;
    camera.stream_more(&mut viewer, 20).await;
    assert_eq!(viewer.required[2], (0, 0), "there is a free one");
    assert_eq!(viewer.mid_to_track.get(&slot), Some(&camera.track));
    // The other SSRC is told of, from its first packet on, and the old one no longer.
    viewer.reported.clear();
    let track = camera.track.clone();
    camera.stream(&mut viewer, |viewer| report(viewer, &track).is_some()).await;
    let told = u64::from(report(&viewer, &track).unwrap().packets);
    assert!((1..=camera.sent).contains(&told), "{told} of {}", camera.sent);
    let after = ssrcs(&viewer, &camera.track);
    assert!(viewer.reported.iter().all(|ssrc| after.contains(ssrc)), "{:?}", viewer.reported);
    assert!(after.len() == 2 && after.is_disjoint(&before), "{after:?} {before:?}");
    let sid = camera.client.join.as_ref().unwrap().participant.as_ref().unwrap().sid.clone();
    assert_slot(viewer.answers.last().unwrap(), &slot, Some((&sid, &camera.track)));
}

#[tokio::test]
async fn media_goes_on_through_a_resume_whose_restart_of_ice_the_client_offers() {
    let sfu = start("", 1);
    let mut camera = Camera::publish(v1(&sfu, "camera", (0, 0)).await, "camera").await;
    let mut viewer = v1(&sfu, "viewer", (0, 1)).await;
    camera.stream_more(&mut viewer, 20).await;
    viewer.hang_up().await;
    camera.stream_more(&mut viewer, 100).await;
    // What comes meanwhile it learns of later.
    let mut second = Camera::publish(v1(&sfu, "second", (0, 0)).await, "camera").await;

    viewer.resume(&sfu, "viewer", subscriber()).await;
    assert!(matches!(viewer.responses[0], Response::Reconnect(_)));
    let update = proto::UpdateSubscription { subscribe: true, ..Default::default() };
    let state = proto::SyncState { subscription: Some(update), ..Default::default() };
    viewer.send(Request::SyncState(state)).await;
    camera.stream_more(&mut viewer, 50).await;
    second.stream_more(&mut viewer, 50).await;
    let ledger = sfu.ledger().unwrap().signalling;
    assert_eq!((ledger.resumes, ledger.ice_restarts, ledger.media_lost), (1, 1, 0));
    assert!(!viewer.responses.iter().any(|it| matches!(it, Response::Offer(_))));

    // The publisher comes back too, from another port.
    camera.client.hang_up().await;
    camera.client.publisher.change_port();
    camera.client.resume(&sfu, "camera", grants(ROOM)).await;
    camera.stream_more(&mut viewer, 50).await;
    assert_eq!(sfu.ledger().unwrap().signalling.ice_restarts, 2);
    // And nobody does who publishes what is not known.
    let unknown = proto::TrackPublishedResponse {
        track: Some(proto::TrackInfo { sid: "TR_unknown".into(), ..Default::default() }),
        ..proto::TrackPublishedResponse::default()
    };
    let state = proto::SyncState { publish_tracks: vec![unknown], ..Default::default() };
    viewer.send(Request::SyncState(state)).await;
    drive(&mut [&mut viewer], |c| c[0].closed).await;
    assert_eq!(viewer.left.as_ref().unwrap().action(), Action::Reconnect);
}

#[tokio::test]
async fn simulated_scenarios_are_played_for_a_single_connection() {
    let sfu = start("", 1);
    let mut camera = Camera::publish(v1(&sfu, "camera", (0, 0)).await, "camera").await;
    let mut viewer = v1(&sfu, "viewer", (0, 1)).await;
    camera.stream_more(&mut viewer, 20).await;
    let simulate = async |client: &mut Client, scenario| {
        let simulate = proto::SimulateScenario { scenario: Some(scenario) };
        client.send(Request::Simulate(simulate)).await;
    };
    let tcp = proto::CandidateProtocol::Tcp as i32;
    simulate(&mut viewer, Scenario::SwitchCandidateProtocol(tcp)).await;
    simulate(&mut viewer, Scenario::SubscriberBandwidth(1_000)).await;
    let played =
        |count| move |sfu: &Sfu| sfu.ledger().unwrap().signalling.scenarios_simulated == count;
    let (two, three) = (played(2), played(3));
    drive(&mut [&mut viewer], |_| two(&sfu)).await;
    run_for(&mut [&mut camera.client, &mut viewer], Duration::from_millis(50)).await;
    let before = row(&sfu, ROOM, "viewer", &camera.track).counts.packets_sent;
    for _ in 0..20 {
        camera.client.write(camera.mid, None, 1_000 + camera.sent, 0, vp8(0, true, 0, 300));
        camera.sent += 1;
        run_for(&mut [&mut camera.client, &mut viewer], Duration::from_millis(5)).await;
    }
    assert_eq!(row(&sfu, ROOM, "viewer", &camera.track).counts.packets_sent, before, "it pauses");
    assert_eq!(sfu.ledger().unwrap().signalling.ice_restarts, 0);
    assert!(!viewer.responses.iter().any(|it| matches!(it, Response::StreamStateUpdate(_))));
    simulate(&mut viewer, Scenario::SubscriberBandwidth(0)).await;
    drive(&mut [&mut viewer], |_| three(&sfu)).await;
    camera.stream_more(&mut viewer, 20).await;
    simulate(&mut viewer, Scenario::NodeFailure(true)).await;
    drive(&mut [&mut viewer], |c| c[0].closed).await;
    assert!(viewer.left.is_none());
    viewer.resume_with(&sfu, &token("viewer", subscriber())).await;
    assert_eq!(viewer.left.as_ref().unwrap().action(), Action::Reconnect);
}

#[tokio::test]
async fn whoever_is_moved_gets_the_tracks_of_the_other_room_on_the_connection_it_has() {
    let sfu = start("", 2);
    let mut camera = Camera::publish(v1(&sfu, "camera", (0, 0)).await, "camera").await;
    let mut viewer = v1(&sfu, "viewer", (0, 1)).await;
    camera.stream_more(&mut viewer, 20).await;
    let other = VideoGrants { room: "other".into(), ..grants(ROOM) };
    let client = Client::connect_single(&sfu, "there", other, (0, 1)).await;
    let mut there = Camera::publish(client, "camera").await;
    let request = proto::MoveParticipantRequest {
        room: ROOM.into(),
        identity: "viewer".into(),
        destination_room: "other".into(),
    };
    let admin = VideoGrants { room_admin: true, room: ROOM.into(), ..VideoGrants::default() };
    let bearer = format!("Bearer {}", token("admin", admin));
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/protobuf")];
    let path = "/twirp/livekit.RoomService/MoveParticipant";
    assert_eq!(http(&sfu, "POST", path, &headers, &request.encode_to_vec()).await.0, 200);
    there.stream_more(&mut viewer, 50).await;
    assert!(viewer.responses.iter().any(|it| matches!(it, Response::RoomMoved(_))));
    assert_eq!(viewer.mid_to_track.values().collect::<Vec<_>>(), [&there.track]);
    assert_eq!(sfu.ledger().unwrap().signalling.ice_restarts, 0);
}

#[tokio::test]
async fn layers_and_data_go_both_ways_over_the_connection_of_the_client() {
    let sfu = start("", 1);
    let mut camera = v1(&sfu, "camera", (0, 0)).await;
    let mid = camera.publish("camera", MediaKind::Video, &["q", "h", "f"]).await;
    drive(&mut [&mut camera], |c| c[0].published("camera").is_some() && c[0].answers.len() == 2)
        .await;
    let track = camera.published("camera").unwrap();
    let mut viewer = v1(&sfu, "viewer", (0, 1)).await;
    for count in 0..100 {
        for rid in ["q", "h", "f"] {
            let layer = ["q", "h", "f"].iter().position(|it| *it == rid).unwrap() as u8;
            let payload = vp8(count, true, layer, 300);
            camera.write(mid, Some(rid), 500 + u64::from(count), 3_000 * u32::from(count), payload);
        }
        run_for(&mut [&mut camera, &mut viewer], Duration::from_millis(5)).await;
    }
    let last = viewer.packets[&track].last().unwrap();
    assert_eq!(last.payload.last(), Some(&2), "the highest layer");
    assert!(camera.keyframe_requests.is_empty(), "every packet starts a keyframe");

    drive(&mut [&mut camera, &mut viewer], |c| {
        c.iter().all(|client| client.channels.contains_key("_reliable"))
    })
    .await;
    let user = proto::UserPacket { payload: b"hello".to_vec(), ..proto::UserPacket::default() };
    let packet = proto::DataPacket {
        value: Some(proto::data_packet::Value::User(user)),
        ..proto::DataPacket::default()
    };
    let id = camera.channels["_reliable"];
    let mut channel = camera.publisher.rtc.channel(id).unwrap();
    channel.write(true, &packet.encode_to_vec()).unwrap();
    drive(&mut [&mut camera, &mut viewer], |c| !c[1].data.is_empty()).await;
    let received = proto::DataPacket::decode(&viewer.data[0][..]).unwrap();
    assert_eq!(received.participant_identity, "camera");
}
