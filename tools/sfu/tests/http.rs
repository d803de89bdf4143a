//! HTTP: tokens, routes, RoomService, the ledger.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, KEY, SECRET, grants, http, start, token, url_v1};
use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use livekit_token::{AccessToken, VideoGrants};
use prost::Message;
use stampede_sfu::{Ledger, Sfu};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

const UPGRADE: [(&str, &str); 4] = [
    ("Connection", "Upgrade, close"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

async fn upgrade_status(sfu: &Sfu, token: Option<&str>) -> u16 {
    let path = token.map_or("/rtc".to_owned(), |token| format!("/rtc?access_token={token}"));
    http(sfu, "GET", &path, &UPGRADE, b"").await.0
}

#[tokio::test]
async fn tokens_are_checked() {
    let sfu = start("", 1);
    let good = token("alice", grants("room"));
    let wrong_secret = AccessToken::with_api_key(KEY, "another-secret-of-32-characters-xx")
        .with_identity("alice")
        .with_grants(grants("room"))
        .to_jwt()
        .unwrap();
    let wrong_key = AccessToken::with_api_key("otherkey", SECRET)
        .with_identity("alice")
        .with_grants(grants("room"))
        .to_jwt()
        .unwrap();
    let no_join = token("alice", VideoGrants { room_join: false, ..grants("room") });
    for (name, token) in [("secret", &wrong_secret), ("key", &wrong_key), ("join", &no_join)] {
        assert_eq!(upgrade_status(&sfu, Some(token)).await, 401, "{name}");
        let path = format!("/rtc/validate?access_token={token}");
        assert_eq!(http(&sfu, "GET", &path, &[], b"").await.0, 401, "{name}");
    }
    assert_eq!(upgrade_status(&sfu, Some("nonsense")).await, 401);
    assert_eq!(upgrade_status(&sfu, None).await, 401);
    let path = format!("/rtc/validate?access_token={good}");
    assert_eq!(http(&sfu, "GET", &path, &[], b"").await, (200, b"success".to_vec()));
    let headers = [("Authorization", bearer(&good))];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(http(&sfu, "GET", "/rtc/validate", &headers, b"").await.0, 200);
    assert_eq!(sfu.ledger().unwrap().signalling.joins_refused, 5);
}

#[tokio::test]
async fn unknown_paths_are_not_found() {
    let sfu = start("", 1);
    let good = token("alice", grants("room"));
    for path in ["/rtc/v2", "/rtc/v1/", "/nothing", "/rtc/"] {
        let path = format!("{path}?access_token={good}&join_request=AA==");
        assert_eq!(http(&sfu, "GET", &path, &UPGRADE, b"").await.0, 404, "{path}");
    }
    let not_an_upgrade = format!("/rtc?access_token={good}");
    assert_eq!(http(&sfu, "GET", &not_an_upgrade, &[], b"").await.0, 404);
    assert_eq!(http(&sfu, "GET", "/", &[], b"").await, (200, b"OK".to_vec()));
    assert_eq!(http(&sfu, "OPTIONS", "/rtc/validate", &[], b"").await.0, 204);
}

#[tokio::test]
async fn a_join_request_is_checked_after_the_token() {
    let sfu = start("", 1);
    let good = token("alice", grants("room"));
    let request = proto::JoinRequest { metadata: "any".into(), ..Default::default() };
    let request = url_v1(&sfu, "", "", &request);
    let (_, request) = request.split_once("join_request=").unwrap();
    let path = |route: &str, token: &str, request: &str| {
        format!("{route}?access_token={token}&join_request={request}")
    };
    for route in ["/rtc/v1", "/rtc/v1/validate", "/rtc", "/rtc/validate"] {
        let status = async |token: &str, request: &str| {
            http(&sfu, "GET", &path(route, token, request), &UPGRADE, b"").await.0
        };
        assert_eq!(status("nonsense", request).await, 401, "{route}");
        assert_eq!(status(&good, "%2B%2B%2B").await, 400, "{route}");
        // By v0 it is not needed.
        if route.contains("v1") {
            assert_eq!(status(&good, "").await, 400, "{route}");
            let without = format!("{route}?access_token={good}");
            assert_eq!(http(&sfu, "GET", &without, &UPGRADE, b"").await.0, 400, "{route}");
        }
    }
    assert_eq!(sfu.ledger().unwrap().signalling.joins_refused, 6);
    let valid = path("/rtc/v1/validate", &good, request);
    assert_eq!(http(&sfu, "GET", &valid, &[], b"").await, (200, b"success".to_vec()));
    let headers = [("Authorization", bearer(&good))];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let valid = format!("/rtc/v1/validate?join_request={request}");
    assert_eq!(http(&sfu, "GET", &valid, &headers, b"").await.0, 200);
    let not_an_upgrade = path("/rtc/v1", &good, request);
    assert_eq!(http(&sfu, "GET", &not_an_upgrade, &[], b"").await.0, 404);
}

async fn call(
    sfu: &Sfu,
    method: &str,
    grants: VideoGrants,
    kind: &str,
    body: &[u8],
) -> (u16, Vec<u8>) {
    let token = bearer(&token("admin", grants));
    let headers = [("Authorization", token.as_str()), ("Content-Type", kind)];
    http(sfu, "POST", &format!("/twirp/livekit.RoomService/{method}"), &headers, body).await
}

const PROTOBUF: &str = "application/protobuf";
const JSON: &str = "application/json";

#[tokio::test]
async fn rooms_are_created_listed_and_deleted_in_protobuf() {
    let sfu = start("", 1);
    let create = || VideoGrants { room_create: true, ..VideoGrants::default() };
    let list = || VideoGrants { room_list: true, ..VideoGrants::default() };
    let request = proto::CreateRoomRequest { name: "blue".into(), ..Default::default() };
    let (status, body) =
        call(&sfu, "CreateRoom", create(), PROTOBUF, &request.encode_to_vec()).await;
    assert_eq!(status, 200);
    let room = proto::Room::decode(body.as_slice()).unwrap();
    assert_eq!(room.name, "blue");
    assert!(room.sid.starts_with("RM_"));
    let (_, again) = call(&sfu, "CreateRoom", create(), PROTOBUF, &request.encode_to_vec()).await;
    assert_eq!(proto::Room::decode(again.as_slice()).unwrap().sid, room.sid);

    let (status, body) = call(&sfu, "ListRooms", list(), PROTOBUF, b"").await;
    assert_eq!(status, 200);
    let rooms = proto::ListRoomsResponse::decode(body.as_slice()).unwrap().rooms;
    assert_eq!(rooms.len(), 1);

    let client = Client::connect(&sfu, "alice", grants("blue")).await;
    let admin = VideoGrants { room_admin: true, room: "blue".into(), ..VideoGrants::default() };
    let request = proto::ListParticipantsRequest { room: "blue".into() };
    let (status, body) =
        call(&sfu, "ListParticipants", admin, PROTOBUF, &request.encode_to_vec()).await;
    assert_eq!(status, 200);
    let list = proto::ListParticipantsResponse::decode(body.as_slice()).unwrap();
    assert_eq!(list.participants[0].identity, "alice");

    let request = proto::DeleteRoomRequest { room: "blue".into() };
    let (status, _) = call(&sfu, "DeleteRoom", create(), PROTOBUF, &request.encode_to_vec()).await;
    assert_eq!(status, 200);
    let mut client = client;
    common::drive(&mut [&mut client], |clients| clients[0].closed).await;
    let left = client.left.unwrap();
    assert_eq!(left.reason(), proto::DisconnectReason::RoomDeleted);
    let (status, body) =
        call(&sfu, "DeleteRoom", create(), PROTOBUF, &request.encode_to_vec()).await;
    assert_eq!(status, 404);
    let error: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(error["code"], "not_found");
}

#[tokio::test]
async fn room_service_speaks_json_and_checks_grants() {
    let sfu = start("", 1);
    let create = || VideoGrants { room_create: true, ..VideoGrants::default() };
    let body = br#"{"name":"green","empty_timeout":5,"maxParticipants":9}"#;
    let (status, body) = call(&sfu, "CreateRoom", create(), JSON, body).await;
    assert_eq!(status, 200);
    let room: proto::Room = serde_json::from_slice(&body).unwrap();
    assert_eq!((room.name.as_str(), room.empty_timeout, room.max_participants), ("green", 5, 9));

    let (status, body) = call(&sfu, "ListRooms", create(), JSON, b"{}").await;
    assert_eq!(status, 401);
    let error: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(error["code"], "unauthenticated");
    let other = VideoGrants { room_admin: true, room: "red".into(), ..VideoGrants::default() };
    let body = br#"{"room":"green"}"#;
    assert_eq!(call(&sfu, "ListParticipants", other, JSON, body).await.0, 401);
    assert_eq!(call(&sfu, "CreateRoom", create(), JSON, b"{").await.0, 400);
    assert_eq!(call(&sfu, "CreateRoom", create(), JSON, b"{}").await.0, 400);
    assert_eq!(call(&sfu, "NoSuchMethod", create(), JSON, b"{}").await.0, 404);
    assert_eq!(call(&sfu, "CreateRoom", create(), "text/plain", b"{}").await.0, 404);
    let headers = [("Content-Type", JSON)];
    let path = "/twirp/livekit.RoomService/ListRooms";
    assert_eq!(http(&sfu, "POST", path, &headers, b"{}").await.0, 401);
}

#[tokio::test]
async fn the_ledger_is_served_to_those_who_may_list_rooms() {
    let sfu = start("", 2);
    let _client = Client::connect(&sfu, "alice", grants("room")).await;
    let may = token("parent", VideoGrants { room_list: true, ..VideoGrants::default() });
    let headers = [("Authorization", bearer(&may))];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let (status, body) = http(&sfu, "GET", "/debug/ledger", &headers, b"").await;
    assert_eq!(status, 200);
    let ledger: Ledger = serde_json::from_slice(&body).unwrap();
    assert_eq!((ledger.signalling.attendance.joins, ledger.workers.len()), (1, 2));
    assert_eq!(http(&sfu, "GET", "/debug/ledger", &[], b"").await.0, 401);
}

/// The code that the SFU closes a websocket with.
async fn close_code(ws: &mut WebSocketStream<MaybeTlsStream<TcpStream>>) -> u16 {
    loop {
        match ws.next().await.unwrap().unwrap() {
            Frame::Close(close) => return close.unwrap().code.into(),
            _ => continue,
        }
    }
}

async fn websocket(sfu: &Sfu) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
    let token = token("alice", grants("room"));
    let url = format!("{}/rtc?access_token={token}&protocol=17", sfu.url());
    tokio_tungstenite::connect_async(url).await.unwrap().0
}

#[tokio::test]
async fn a_websocket_is_told_why_it_is_closed() {
    let sfu = start("", 1);
    let mut ws = websocket(&sfu).await;
    // What is left of it unread must not reset the connection, or its sender would never know why.
    let _ = ws.send(Frame::Binary(vec![0; 3 << 20].into())).await;
    assert_eq!(close_code(&mut ws).await, 1_009);
    let mut ws = websocket(&sfu).await;
    ws.send(Frame::Text("{}".into())).await.unwrap();
    assert_eq!(close_code(&mut ws).await, 1_003);
    let mut ws = websocket(&sfu).await;
    let ended = tokio::task::spawn_blocking(move || sfu.stop());
    assert_eq!(close_code(&mut ws).await, 1_001);
    ended.await.unwrap();
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?}", common::options());
    assert!(shown.contains(KEY) && !shown.contains(SECRET));
}
