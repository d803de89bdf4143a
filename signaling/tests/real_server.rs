//! Against a livekit-server named by LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // helpers of tests

mod common;

use std::time::Duration;

use common::{audio_track, video_track};
use stampede_signaling::rooms::{RoomError, RoomOptions};
use stampede_signaling::session::*;
use stampede_signaling::*;
use stampede_testing::skip_without_server;

struct Server {
    url: ServerUrl,
    credentials: ApiCredentials,
    tls: TlsSetup,
}

/// `None`, and a line saying so, where no server is named.
fn server() -> Option<Server> {
    let Ok(url) = std::env::var("LIVEKIT_URL") else {
        skip_without_server("LIVEKIT_URL is not set");
        return None;
    };
    let variable = |name| std::env::var(name).unwrap_or_default();
    let credentials =
        ApiCredentials::new(&variable("LIVEKIT_API_KEY"), &variable("LIVEKIT_API_SECRET")).unwrap();
    let url = ServerUrl::parse(&url).unwrap();
    Some(Server { url, credentials, tls: TlsSetup::new().unwrap() })
}

impl Server {
    fn token(&self, room: &str, identity: &str, publish: bool) -> Token {
        let grant = JoinGrant {
            room,
            identity,
            can_publish: publish,
            can_publish_data: false,
            can_subscribe: !publish,
            hidden: false,
            ttl: TOKEN_TTL,
            profile: &PLAIN,
        };
        self.credentials.join_token(&grant).unwrap()
    }

    async fn join(&self, room: &str, identity: &str, role: Role) -> Connection {
        let token = self.token(room, identity, role.publishes());
        let options = ConnectOptions::new(self.url.clone(), token, role, self.tls.clone());
        Connection::connect(options).await.unwrap()
    }

    fn rooms(&self) -> RoomClient {
        RoomClient::new(self.url.clone(), self.credentials.clone(), &self.tls, &Proxies::none())
            .unwrap()
    }
}

fn room(name: &str) -> String {
    format!("stampede-signaling-{name}-{}", std::process::id())
}

fn subscriber(subscription: Subscription) -> Role {
    Role::subscriber(subscription, Quality::Low)
}

/// Updates until `done` says so.
async fn until(connection: &mut Connection, mut done: impl FnMut(&Update) -> bool) {
    let wait = async {
        loop {
            let update = connection.next().await.expect("a session that goes on");
            if let Update::Event(SessionEvent::Ended(reason)) = &update {
                panic!("ended: {reason}");
            }
            if done(&update) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("within 10 s");
}

#[tokio::test]
async fn a_subscriber_joins_and_is_offered() {
    let Some(server) = server() else { return };
    let room = room("join");
    let mut connection = server.join(&room, "sub", subscriber(Subscription::Auto)).await;
    let mut order = Vec::new();
    until(&mut connection, |update| {
        match update {
            Update::Event(SessionEvent::Joined(joined)) => {
                assert_eq!((joined.room_name.as_str(), joined.identity.as_str()), (&*room, "sub"));
                assert!(joined.participant_sid.starts_with("PA_"));
                assert!(joined.subscriber_primary && joined.protocol >= 15);
                assert!(!joined.server_version.is_empty());
                order.push("joined");
            }
            Update::Media(MediaCommand::RemoteOffer { sdp, .. }) => {
                assert!(sdp.starts_with("v=0"));
                order.push("offer");
            }
            Update::Media(MediaCommand::RemoteCandidate { candidate, .. }) => {
                assert!(candidate.starts_with("candidate:"));
                order.push("candidate");
            }
            _ => {}
        }
        order.last() == Some(&"candidate")
    })
    .await;
    assert_eq!(order, ["joined", "offer", "candidate"]);
    assert_eq!(connection.session().counters().malformed, 0);
    let listed = server.rooms().participants(&room).await.unwrap();
    assert_eq!(listed.iter().map(|p| p.identity.as_str()).collect::<Vec<_>>(), ["sub"]);

    assert!(connection.leave(Duration::from_secs(5)).await, "the server closes after leave");
    let wait_gone = async {
        while server.rooms().participants(&room).await.is_ok_and(|list| !list.is_empty()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), wait_gone).await.expect("forgotten at once");
    let _ = server.rooms().delete(&room).await;
}

#[tokio::test]
async fn a_publishers_tracks_are_accepted_and_seen() {
    let Some(server) = server() else { return };
    let room = room("publish");
    let manual = Subscription::Manual { audio: true, video: true };
    let mut watcher = server.join(&room, "sub", subscriber(manual)).await;
    until(&mut watcher, |u| matches!(u, Update::Event(SessionEvent::Joined(_)))).await;

    let tracks = vec![video_track("cid-video"), audio_track("cid-audio")];
    let mut publisher = server.join(&room, "pub", Role::publisher(tracks)).await;
    let (mut published, mut asked) = (Vec::new(), false);
    until(&mut publisher, |update| {
        match update {
            Update::Event(SessionEvent::Joined(joined)) => assert!(!joined.subscriber_primary),
            Update::Event(SessionEvent::TrackPublished { cid, sid }) => {
                assert!(sid.starts_with("TR_"), "{sid}");
                published.push(cid.clone());
            }
            Update::Media(MediaCommand::CreateOffer { .. }) => asked = true,
            _ => {}
        }
        published.len() == 2 && asked
    })
    .await;
    published.sort();
    assert_eq!(published, ["cid-audio", "cid-video"]);
    assert!(publisher.leave(Duration::from_secs(5)).await);
    let _ = watcher.leave(Duration::from_secs(5)).await;
    let _ = server.rooms().delete(&room).await;
}

#[tokio::test]
async fn pings_are_answered() {
    let Some(server) = server() else { return };
    let room = room("ping");
    let mut connection = server.join(&room, "sub", subscriber(Subscription::Auto)).await;
    until(&mut connection, |u| matches!(u, Update::Event(SessionEvent::Pong { .. }))).await;
    connection.leave(Duration::from_secs(5)).await;
    let _ = server.rooms().delete(&room).await;
}

#[tokio::test]
async fn the_second_of_an_identity_evicts_the_first() {
    let Some(server) = server() else { return };
    let room = room("twice");
    let mut first = server.join(&room, "twin", subscriber(Subscription::Auto)).await;
    until(&mut first, |u| matches!(u, Update::Event(SessionEvent::Joined(_)))).await;
    let mut second = server.join(&room, "twin", subscriber(Subscription::Auto)).await;
    let reason = loop {
        match first.next().await {
            Some(Update::Event(SessionEvent::Ended(reason))) => break reason,
            Some(_) => {}
            None => panic!("None before Ended"),
        }
    };
    assert_eq!(reason.kind().key(), "server_left_duplicate_identity");
    second.leave(Duration::from_secs(5)).await;
    let _ = server.rooms().delete(&room).await;
}

#[tokio::test]
async fn a_wrong_secret_is_http_401_and_shows_no_token() {
    let Some(server) = server() else { return };
    let wrong = ApiCredentials::new(server.credentials.key(), &"wrong-".repeat(8)).unwrap();
    let server = Server { credentials: wrong, ..server };
    let token = server.token("room", "me", false);
    let role = subscriber(Subscription::Auto);
    let options = ConnectOptions::new(server.url.clone(), token.clone(), role, server.tls.clone());
    let error = Connection::connect(options).await.unwrap_err();
    assert_eq!((error.kind().key(), error.is_retryable()), ("http_401", false));
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("eyJ") && !shown.contains(token.expose()), "{shown}");

    let error = server.rooms().list().await.unwrap_err();
    assert!(matches!(error, RoomError::Unauthorized { status: 401, .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("eyJ"), "{error:?}");
}

#[tokio::test]
async fn a_wrong_path_is_http_404() {
    let Some(server) = server() else { return };
    let url = ServerUrl::parse(&format!("{}/elsewhere", server.url)).unwrap();
    let server = Server { url, ..server };
    let token = server.token("room", "me", false);
    let role = subscriber(Subscription::Auto);
    let options = ConnectOptions::new(server.url.clone(), token, role, server.tls.clone());
    assert_eq!(Connection::connect(options).await.unwrap_err().kind().key(), "http_404");
    assert_eq!(server.rooms().list().await.unwrap_err().kind().key(), "not_livekit");
}

#[tokio::test]
async fn rooms_are_created_listed_and_deleted() {
    let Some(server) = server() else { return };
    let (rooms, name) = (server.rooms(), room("rooms"));
    let options = RoomOptions { empty_timeout_s: 60, ..RoomOptions::default() };
    let created = rooms.create(&name, options).await.unwrap();
    assert_eq!(created.name, name);
    assert!(created.sid.starts_with("RM_"));
    assert_eq!(rooms.create(&name, options).await.unwrap().sid, created.sid, "existing is fine");
    assert!(rooms.list().await.unwrap().iter().any(|room| room.name == name));
    rooms.delete(&name).await.unwrap();
    assert!(!rooms.list().await.unwrap().iter().any(|room| room.name == name));
    let error = rooms.delete(&name).await.unwrap_err();
    assert_eq!(error.kind().key(), "room_not_found", "{error:?}");
}

#[tokio::test]
async fn nobody_there() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = ServerUrl::parse(&format!("ws://{unused}")).unwrap();
    let credentials = ApiCredentials::new("key", "secret").unwrap();
    let rooms =
        RoomClient::new(url, credentials, &TlsSetup::new().unwrap(), &Proxies::none()).unwrap();
    let error = rooms.list().await.unwrap_err();
    assert_eq!(error.kind().key(), "unreachable");
    assert!(error.to_string().contains("refused"), "{error}");
}
