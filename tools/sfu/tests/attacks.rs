//! What a hostile participant, or somebody who can write others' addresses into datagrams, can't do to the
//! others, nor to the SFU.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::io::Write;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use base64::Engine as _;
use common::{
    Camera, Client, drive, grants, http, options, run_for, seen, start, subscribe, token,
};
use flate2::write::GzEncoder;
use livekit_protocol as proto;
use livekit_token::VideoGrants;
use prost::Message as _;
use proto::request_response::Reason;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use stampede_sfu::{Congestion, Sfu, SfuOptions};
use str0m::ice::{StunMessage, TransId};
use str0m::media::MediaKind;

const ROOM: &str = "room";

async fn camera(sfu: &Sfu) -> Camera {
    let grants = VideoGrants { can_subscribe: Some(false), ..grants(ROOM) };
    Camera::publish(Client::connect(sfu, "publisher", grants).await, "camera").await
}

/// An RTP packet of this SSRC that says by its header that it is of this m-line, and is of nobody.
fn forged_rtp(ssrc: u32, mid: &str) -> Vec<u8> {
    let mut packet = vec![0x90, 96, 0, 7, 0, 0, 0, 9];
    packet.extend(ssrc.to_be_bytes());
    // The one-byte form of header extensions, of which the mid is number 4 (RFC 8285 §4.2).
    let mut block = vec![4 << 4 | (mid.len() as u8 - 1)];
    block.extend(mid.bytes());
    block.resize(block.len().next_multiple_of(4), 0);
    packet.extend([0xbe, 0xde, 0, (block.len() / 4) as u8]);
    packet.extend(block);
    packet.resize(packet.len() + 100, 0x55);
    packet
}

/// A DTLS 1.2 record in clear, of this number.
fn forged_dtls(kind: u8, number: u16, body: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0];
    record.extend(number.to_be_bytes());
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

/// Records that end a handshake where they are believed: a fatal alert, a close_notify, a broken
/// ClientHello, a message of another handshake, and rubbish.
fn forged_records(n: u16) -> Vec<Vec<u8>> {
    vec![
        forged_dtls(21, n, &[2, 40]),
        forged_dtls(21, n, &[1, 0]),
        forged_dtls(22, n, &[1, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 4, 0xfe, 0xfd, 1, 2]),
        forged_dtls(
            22,
            n,
            &[20, 0, 0, 12, 0, 9, 0, 0, 0, 0, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2],
        ),
        forged_dtls(22, n, &[2, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0xfe, 0xfd]),
        forged_dtls(20, n, &[1]),
        forged_dtls(23, n, &[7; 60]),
        vec![22; 200],
    ]
}

fn counted(sfu: &Sfu) -> (u64, u64) {
    let worker = sfu.ledger().unwrap().workers[0].counted;
    (worker.addresses_refused, worker.datagrams_malformed)
}

#[tokio::test]
async fn media_from_a_publishers_address_that_is_not_its_own_takes_no_stream_from_it() {
    let sfu = start("", 1);
    let mut camera = camera(&sfu).await;
    let mut viewer = subscribe(&sfu, ROOM, "viewer", &camera.track).await;
    camera.stream_more(&mut viewer, 10).await;
    let mid = camera.mid.to_string();
    for ssrc in 1..=20 {
        camera.client.publisher.forge(&forged_rtp(ssrc, &mid));
    }
    camera.stream_more(&mut viewer, 20).await;
    assert_eq!(counted(&sfu), (20, 0));
    let received = || {
        let ledger = sfu.ledger().unwrap();
        let published = &ledger.rooms[0].published[0].counted;
        (published.packets_received, published.packets_lost)
    };
    drive(&mut [&mut camera.client, &mut viewer], |_| received() == (camera.sent, 0)).await;
}

#[tokio::test]
async fn dtls_in_clear_from_somebodys_address_ends_nothing() {
    let sfu = start("", 1);
    let mut camera = camera(&sfu).await;
    let mut viewer = subscribe(&sfu, ROOM, "viewer", &camera.track).await;
    camera.stream_more(&mut viewer, 10).await;
    for n in 100..200 {
        for record in forged_records(n) {
            camera.client.publisher.forge(&record);
            viewer.subscriber.forge(&record);
        }
        run_for(&mut [&mut camera.client, &mut viewer], Duration::from_millis(1)).await;
    }
    camera.stream_more(&mut viewer, 50).await;
    assert!(viewer.left.is_none() && camera.client.left.is_none());
    // Data in clear, of either.
    assert_eq!(counted(&sfu), (0, 200));
}

/// Parts of messages of a handshake, each of which nothing but its peer's own could make whole, and changes of
/// cipher before their time: what a DTLS keeps that believes it.
fn forged_parts(n: u16) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    for (kind, message) in [(1, 0), (11, 1), (16, 2), (15, 3), (2, 0), (11, 60), (1, n as u8)] {
        let mut part = vec![kind, 0, 1, 0, 0, message, 0, 0, 50, 0, 0, 20];
        part.resize(12 + 20, 9);
        parts.push(forged_dtls(22, n, &part));
    }
    parts.push(forged_dtls(20, n, &[1]));
    parts.push(
        [forged_dtls(20, n, &[1]), vec![22, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0]].concat(),
    );
    parts.push(forged_dtls(22, n, &[]));
    parts
}

#[tokio::test]
async fn who_joins_joins_whatever_comes_from_its_address_meanwhile() {
    let sfu = start("", 1);
    let mut camera = camera(&sfu).await;
    for n in 0..8 {
        let grants = VideoGrants { can_publish: Some(false), ..grants(ROOM) };
        let mut viewer = Client::connect(&sfu, &format!("viewer-{n}"), grants).await;
        // As soon as the SFU has answered it, and in each millisecond from then on.
        let mut number = 0;
        drive(&mut [&mut viewer], |c| {
            if c[0].subscriber.remote.is_some() && !c[0].subscriber.connected {
                number += 1;
                for forged in forged_records(number).iter().chain(&forged_parts(number)) {
                    c[0].subscriber.forge(forged);
                }
            }
            c[0].subscriber.connected
        })
        .await;
        drive(&mut [&mut viewer], |c| !c[0].mid_to_track.is_empty()).await;
        camera.stream_more(&mut viewer, 5).await;
        assert!(viewer.left.is_none(), "{n}");
    }
    assert!(counted(&sfu).1 > 0);
}

/// An authentic check but for its signature, of who knows both names.
fn forged_check(receiver: &str, sender: &str) -> Vec<u8> {
    let username = format!("{receiver}:{sender}");
    let check = StunMessage::binding_request(&username, TransId::new(), true, 1, 1, true);
    let mut bytes = [0; 500];
    let hmac = stampede_core::crypto::provider().sha1_hmac_provider;
    let signed = |key: &[u8], parts: &[&[u8]]| hmac.sha1_hmac(key, parts);
    let len = check.to_bytes(Some(b"not its password"), &mut bytes, signed).unwrap();
    bytes[..len].to_vec()
}

#[tokio::test]
async fn a_stranger_has_no_part_in_anybodys_handshake() {
    let sfu = start("", 1);
    let mut camera = camera(&sfu).await;
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.set_nonblocking(true).unwrap();
    let grants = VideoGrants { can_publish: Some(false), ..grants(ROOM) };
    let mut viewer = Client::connect(&sfu, "viewer", grants).await;
    let mut sent = 0;
    drive(&mut [&mut viewer], |c| {
        let connection = &mut c[0].subscriber;
        if let (Some(to), Some(receiver)) = (connection.remote, connection.remote_ufrag())
            && !connection.connected
        {
            let sender = connection.rtc.direct_api().local_ice_credentials().ufrag;
            stranger.send_to(&forged_check(&receiver, &sender), to).unwrap();
            for forged in forged_records(sent).iter().chain(&forged_parts(sent)) {
                stranger.send_to(forged, to).unwrap();
            }
            sent += 1;
        }
        connection.connected
    })
    .await;
    let each = forged_records(0).len() + forged_parts(0).len();
    let known = |sfu: &Sfu| sfu.ledger().unwrap().workers[0].counted;
    assert!(sent > 0);
    drive(&mut [&mut viewer], |c| {
        let unknown = known(&sfu).datagrams_unknown;
        unknown >= u64::from(sent) * each as u64 && !c[0].mid_to_track.is_empty()
    })
    .await;
    assert!(stranger.recv(&mut [0; 2_000]).is_err(), "it is not answered");
    assert_eq!(counted(&sfu), (0, 0), "none of it was a peer's");
    camera.stream_more(&mut viewer, 20).await;
}

/// Somebody who watches, and from now on checks from another's address alone.
async fn squatter(sfu: &Sfu, camera: &mut Camera, name: &str, plot: &UdpSocket) -> Client {
    let mut squatter = subscribe(sfu, ROOM, name, &camera.track).await;
    camera.stream_more(&mut squatter, 5).await;
    squatter.subscriber.checks_from = Some(plot.try_clone().unwrap());
    squatter
}

#[tokio::test]
async fn nobody_holds_an_address_by_checking_from_it() {
    let sfu = start("", 1);
    let mut camera = camera(&sfu).await;
    let plot = UdpSocket::bind("127.0.0.1:0").unwrap();
    // One that has a connection, and one that never had.
    let mut first = squatter(&sfu, &mut camera, "first", &plot).await;
    let hidden = VideoGrants { can_publish: Some(false), ..grants(ROOM) };
    let mut second = Client::connect(&sfu, "second", hidden).await;
    second.subscriber.checks_from = Some(plot.try_clone().unwrap());
    drive(&mut [&mut first, &mut second, &mut camera.client], |c| {
        c[0].subscriber.diverted >= 3 && c[1].subscriber.diverted >= 3
    })
    .await;
    // The rightful one comes, and they go on.
    let mut victim = Client::connect_on(&sfu, "victim", ROOM, plot).await;
    let began = Instant::now();
    let before = (first.subscriber.diverted, second.subscriber.diverted);
    let goal = 200;
    while camera.seen(&victim) < goal
        || first.subscriber.diverted < before.0 + 2
        || second.subscriber.diverted < before.1 + 2
    {
        assert!(began.elapsed() < Duration::from_secs(15), "{} packets", camera.seen(&victim));
        let more = camera.seen(&victim) + 1;
        let track = camera.track.clone();
        let late = Instant::now() + Duration::from_millis(200);
        let until = |victim: &Client| seen(victim, &track) >= more || Instant::now() > late;
        camera.stream(&mut victim, until).await;
        run_for(&mut [&mut first, &mut second], Duration::from_millis(2)).await;
    }
    assert!(victim.subscriber.connected && victim.left.is_none());
    // What is for them does not go to it.
    let before = victim.subscriber.datagrams;
    camera.stream_more(&mut victim, 50).await;
    assert!(victim.subscriber.datagrams - before < 70, "it gets others' media");
}

#[tokio::test]
async fn thirty_who_check_from_an_address_do_not_keep_its_owner_out() {
    let sfu = start("", 1);
    let mut camera = camera(&sfu).await;
    let plot = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut squatters = Vec::new();
    for number in 0..30 {
        let hidden = VideoGrants { can_publish: Some(false), hidden: true, ..grants(ROOM) };
        let mut squatter = Client::connect(&sfu, &format!("squatter-{number}"), hidden).await;
        squatter.subscriber.checks_from = Some(plot.try_clone().unwrap());
        squatters.push(squatter);
    }
    let mut all: Vec<&mut Client> = squatters.iter_mut().collect();
    drive(&mut all, |c| c.iter().all(|it| it.subscriber.diverted >= 2)).await;
    let mut victim = Client::connect_on(&sfu, "victim", ROOM, plot).await;
    let began = Instant::now();
    while camera.seen(&victim) < 50 {
        assert!(began.elapsed() < Duration::from_secs(15), "{} packets", camera.seen(&victim));
        let late = Instant::now() + Duration::from_millis(20);
        camera.stream(&mut victim, |_| Instant::now() > late).await;
        run_for(&mut all, Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn who_was_never_anywhere_but_at_anothers_address_takes_nothing_from_it() {
    let sfu = start("", 1);
    let mut camera = camera(&sfu).await;
    let mut viewer = subscribe(&sfu, ROOM, "viewer", &camera.track).await;
    camera.stream_more(&mut viewer, 10).await;
    let hidden = VideoGrants { can_subscribe: Some(false), ..grants(ROOM) };
    let mut thief = Client::connect(&sfu, "thief", hidden).await;
    thief.publisher.checks_from = Some(viewer.subscriber.socket.try_clone().unwrap());
    thief.publish("loot", MediaKind::Video, &[]).await;
    drive(&mut [&mut thief, &mut viewer, &mut camera.client], |c| c[0].publisher.diverted >= 8)
        .await;
    run_for(&mut [&mut thief, &mut viewer, &mut camera.client], Duration::from_millis(500)).await;
    assert!(counted(&sfu).0 > 0);
    assert!(!thief.publisher.connected);
    thief.send(Request::Leave(proto::LeaveRequest::default())).await;
    drive(&mut [&mut thief], |c| c[0].closed).await;
    camera.stream_more(&mut viewer, 50).await;
    assert!(viewer.left.is_none());
}

#[tokio::test]
async fn a_check_from_anothers_address_takes_nothing_during_a_restart_of_ice() {
    let sfu = start("", 1);
    let mut camera = camera(&sfu).await;
    let mut victim = subscribe(&sfu, ROOM, "viewer", &camera.track).await;
    let mut thief = subscribe(&sfu, ROOM, "thief", &camera.track).await;
    camera.stream_more(&mut victim, 10).await;
    thief.subscriber.checks_from = Some(victim.subscriber.socket.try_clone().unwrap());
    let viewing = VideoGrants { can_publish: Some(false), ..grants(ROOM) };
    for _ in 0..3 {
        let stolen = thief.subscriber.diverted;
        victim.hang_up().await;
        drive(&mut [&mut thief, &mut victim, &mut camera.client], |c| {
            c[0].subscriber.diverted > stolen
        })
        .await;
        victim.resume(&sfu, "viewer", viewing.clone()).await;
        camera.stream_more(&mut victim, 20).await;
    }
    thief.send(Request::Leave(proto::LeaveRequest::default())).await;
    drive(&mut [&mut thief], |c| c[0].closed).await;
    camera.stream_more(&mut victim, 50).await;
    assert!(victim.left.is_none() && !victim.closed);
}

#[tokio::test]
async fn a_report_of_arrivals_that_can_not_be_read_takes_down_nobody() {
    let sfu = Sfu::start(SfuOptions { congestion: Congestion::Twcc, ..options() }).unwrap();
    let mut camera = camera(&sfu).await;
    let mut viewer = subscribe(&sfu, ROOM, "viewer", &camera.track).await;
    camera.stream_more(&mut viewer, 50).await;
    let numbers: Vec<u16> = viewer.subscriber.numbered.iter().map(|it| it.number).collect();
    let number = *numbers.last().unwrap();
    // Of one packet: a run of no small deltas, and one of a large one.
    let mut report = vec![0x8f, 205, 0, 6, 0, 0, 0, 9, 0, 0, 0, 9];
    report.extend(number.to_be_bytes());
    report.extend([0, 1, 0, 0, 9, 0, 0x20, 0, 0x40, 1, 0, 4, 0, 0]);
    let hostile = [&[0x80, 201, 0, 1, 0, 0, 0, 9], &report[..]].concat();
    let (mut up, mut down) = (camera.client.publisher.sealer(), viewer.subscriber.sealer());
    for _ in 0..5 {
        camera.client.publisher.forge_rtcp(&mut up, &hostile);
        viewer.subscriber.forge_rtcp(&mut down, &hostile);
    }
    camera.stream_more(&mut viewer, 50).await;
    // What a publisher tells of arrivals str0m, which has sent it none, does not look at.
    assert_eq!(counted(&sfu).1, 5);
}

/// What the SFU says to a request that it refuses.
async fn refused(client: &mut Client, request: Request) -> proto::RequestResponse {
    client.responses.clear();
    client.send(request).await;
    let of = |response: &Response| match response {
        Response::RequestResponse(response) => Some(response.clone()),
        _ => None,
    };
    drive(&mut [&mut *client], |c| c[0].responses.iter().any(|it| of(it).is_some())).await;
    client.responses.iter().find_map(of).unwrap()
}

#[tokio::test]
async fn requests_of_a_million_of_anything_are_refused_and_counted() {
    let sfu = start("", 1);
    let mut client = Client::connect(&sfu, "hostile", grants(ROOM)).await;
    const MANY: usize = 1_000_000;
    let layers = vec![proto::VideoLayer::default(); MANY];
    let add_track = proto::AddTrackRequest { layers, ..proto::AddTrackRequest::default() };
    let state = proto::SyncState {
        publish_tracks: vec![proto::TrackPublishedResponse::default(); MANY],
        ..proto::SyncState::default()
    };
    let subscription = proto::UpdateSubscription {
        track_sids: vec![String::new(); MANY],
        subscribe: true,
        ..proto::UpdateSubscription::default()
    };
    let requests = [
        Request::AddTrack(add_track),
        Request::SyncState(state),
        Request::Subscription(subscription),
    ];
    for (n, request) in requests.into_iter().enumerate() {
        let response = refused(&mut client, request).await;
        assert_eq!(response.reason(), Reason::LimitExceeded);
        assert!(response.message.contains("16384"), "{}", response.message);
        assert_eq!(sfu.ledger().unwrap().signalling.requests_refused, n as u64 + 1);
    }
    // It may go on with what is none.
    let camera = Camera::publish(client, "camera").await;
    assert!(!camera.client.closed);
}

#[tokio::test]
async fn a_message_of_more_than_two_megabytes_ends_the_connection_of_its_sender() {
    let sfu = start("", 1);
    let mut client = Client::connect(&sfu, "hostile", grants(ROOM)).await;
    let mut other = Client::connect(&sfu, "other", grants(ROOM)).await;
    let metadata = "x".repeat(2 << 20);
    let update = proto::UpdateParticipantMetadata { metadata, ..Default::default() };
    client.send(Request::UpdateMetadata(update)).await;
    drive(&mut [&mut client], |c| c[0].closed).await;
    other.send(Request::Ping(1)).await;
    drive(&mut [&mut other], |c| c[0].responses.iter().any(|it| matches!(it, Response::Pong(1))))
        .await;
}

#[tokio::test]
async fn a_track_is_said_to_have_as_much_as_a_track_has() {
    let sfu = start("", 1);
    let mut client = Client::connect(&sfu, "hostile", grants(ROOM)).await;
    let video = |name: &str, layers: usize| proto::AddTrackRequest {
        cid: "cid".into(),
        name: name.into(),
        r#type: proto::TrackType::Video as i32,
        layers: vec![proto::VideoLayer::default(); layers],
        ..proto::AddTrackRequest::default()
    };
    for request in [video("", 17), video(&"x".repeat(17 << 10), 1)] {
        let response = refused(&mut client, Request::AddTrack(request)).await;
        assert_eq!(response.reason(), Reason::LimitExceeded);
        assert_eq!(response.request, None, "what is too long is not sent back");
    }
    client.send(Request::AddTrack(video("name", 16))).await;
    drive(&mut [&mut client], |c| c[0].published("cid").is_some()).await;
}

#[tokio::test]
async fn what_participants_are_called_and_say_of_themselves_is_bounded() {
    let sfu = start("", 1);
    let join = |identity: usize, room: usize| {
        let token = token(&"i".repeat(identity), grants(&"r".repeat(room)));
        format!("/rtc/validate?access_token={token}")
    };
    for (identity, room, status) in [(256, 256, 200), (257, 1, 400), (1, 257, 400)] {
        let (answered, body) = http(&sfu, "GET", &join(identity, room), &[], &[]).await;
        let body = String::from_utf8(body).unwrap();
        assert_eq!(answered, status, "{identity} {room}: {body}");
        assert!(status == 200 || body.ends_with("of 257 bytes; at most 256 are taken"), "{body}");
    }
    let request = proto::JoinRequest {
        participant_attributes: HashMap::from([("key".to_owned(), "v".repeat(64 << 10))]),
        ..proto::JoinRequest::default()
    };
    // Packed, because a URL is no longer than 64 KiB.
    let mut packed = GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(&request.encode_to_vec()).unwrap();
    let wrapped = proto::WrappedJoinRequest {
        compression: proto::wrapped_join_request::Compression::Gzip as i32,
        join_request: packed.finish().unwrap(),
    };
    let wrapped = base64::engine::general_purpose::URL_SAFE.encode(wrapped.encode_to_vec());
    let token = token("v1", grants(ROOM));
    let path = format!("/rtc/v1/validate?access_token={token}&join_request={wrapped}");
    let (status, body) = http(&sfu, "GET", &path, &[], &[]).await;
    assert_eq!(status, 400);
    assert_eq!(body, b"attributes of 65539 bytes; at most 65536 are taken");

    let own = VideoGrants { can_update_own_metadata: Some(true), ..grants(ROOM) };
    let mut client = Client::connect(&sfu, "talkative", own).await;
    let update = |name: &str, attribute: usize| {
        Request::UpdateMetadata(proto::UpdateParticipantMetadata {
            name: name.to_owned(),
            attributes: HashMap::from([(format!("key-{attribute}"), "v".repeat(attribute))]),
            ..proto::UpdateParticipantMetadata::default()
        })
    };
    // Together they are too long.
    for (request, reason) in [
        (update("name", 40_000), Reason::Ok),
        (update("name", 30_000), Reason::LimitExceeded),
        (update(&"x".repeat(257), 1), Reason::LimitExceeded),
        (update("name", 20_000), Reason::Ok),
    ] {
        assert_eq!(refused(&mut client, request).await.reason(), reason);
    }
}

#[tokio::test]
async fn messages_that_are_not_passed_on_are_counted() {
    let sfu = start("", 1);
    let mut camera = camera(&sfu).await;
    let mut viewer = subscribe(&sfu, ROOM, "viewer", &camera.track).await;
    camera.stream(&mut viewer, |viewer| !viewer.mid_to_track.is_empty()).await;
    let channel = loop {
        run_for(&mut [&mut camera.client, &mut viewer], Duration::from_millis(5)).await;
        if let Some(channel) = camera.client.channels.get("_reliable") {
            break *channel;
        }
    };
    let packet = |receivers: usize| {
        let user = proto::UserPacket { payload: b"hello".to_vec(), ..Default::default() };
        let packet = proto::DataPacket {
            destination_identities: vec![String::new(); receivers],
            value: Some(proto::data_packet::Value::User(user)),
            ..proto::DataPacket::default()
        };
        packet.encode_to_vec()
    };
    let messages = [vec![0xff; 10], packet(16_385), packet(0)];
    for message in &messages {
        camera.client.publisher.rtc.channel(channel).unwrap().write(true, message).unwrap();
    }
    drive(&mut [&mut camera.client, &mut viewer], |c| c[1].data.len() == 1).await;
    let ledger = sfu.ledger().unwrap();
    let worker = ledger.workers[0].counted;
    assert_eq!((worker.messages_received, worker.messages_sent), (3, 1));
    assert_eq!(ledger.signalling.messages_refused, 2);
}
