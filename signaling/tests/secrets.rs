//! Secrets and tokens never come out in text: not by Debug, Display, nor tracing.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests

mod common;
#[path = "common/server.rs"]
mod server;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use livekit_protocol as proto;
use proto::signal_response::Message as Response;
use server::*;
use stampede_signaling::*;

const SECRET: &str = "SECRET-of-the-api-0123456789-0123456789";

fn grant<'a>(room: &'a str, identity: &'a str) -> JoinGrant<'a> {
    JoinGrant {
        room,
        identity,
        can_publish: false,
        can_publish_data: false,
        can_subscribe: true,
        hidden: true,
        ttl: TOKEN_TTL,
        profile: &PLAIN,
    }
}

#[test]
fn credentials_and_tokens() {
    let credentials = ApiCredentials::new(" key ", &format!("{SECRET}\n")).unwrap();
    assert_eq!(credentials.key(), "key");
    assert_eq!(credentials.warning(), None);
    let token = credentials.join_token(&grant("room", "me")).unwrap();
    let verifier = livekit_token::TokenVerifier::with_api_key("key", SECRET);
    let claims = verifier.verify(token.expose()).unwrap();
    assert_eq!((claims.sub.as_str(), claims.iss.as_str()), ("me", "key"));
    assert_eq!(claims.video.room, "room");
    assert!(claims.video.room_join && claims.video.hidden);
    assert_eq!(claims.video.can_publish, Some(false));
    assert_eq!(claims.video.can_subscribe, Some(true));
    assert_eq!(claims.exp - claims.nbf, 6 * 3600);

    let rooms = RoomClient::new(
        ServerUrl::parse("ws://h").unwrap(),
        credentials.clone(),
        &TlsSetup::new().unwrap(),
        &Proxies::none(),
    );
    let shown = format!("{credentials:?} {token:?} {:?} {rooms:?}", Some(&token));
    assert!(!shown.contains("SECRET") && !shown.contains(token.expose()), "{shown}");
    assert!(shown.contains("Token(<redacted>)"));
}

#[test]
fn empty_credentials_are_refused_and_short_ones_warned_about() {
    assert_eq!(ApiCredentials::new(" ", "s"), Err(TokenError::EmptyKey));
    assert_eq!(ApiCredentials::new("k", "\n"), Err(TokenError::EmptySecret));
    let short = ApiCredentials::new("devkey", "secret").unwrap();
    let warning = short.warning().unwrap();
    assert!(warning.contains("6 characters") && !warning.contains("\"secret\""), "{warning}");
    assert_eq!(short.join_token(&grant("", "me")), Err(TokenError::EmptyRoom));
    assert_eq!(short.join_token(&grant("room", "")), Err(TokenError::EmptyIdentity));
    for bad in ["", "a b", "a\r\nX: y", "ü"] {
        assert_eq!(Token::new(bad), Err(TokenError::NotAToken), "{bad:?}");
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_whole_session_at_trace_level() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let (url, server) = serve(|stream| async {
        let mut peer = accept(stream).await;
        send(&mut peer, join(vec![])).await;
        send(&mut peer, response(Response::RefreshToken(format!("{TOKEN}NEW")))).await;
        send(&mut peer, offer(1, OFFER_DATA, &[])).await;
        receive(&mut peer).await;
    })
    .await;
    let options = options(url);
    let mut shown = format!("{options:?}");
    let mut connection = Connection::connect(options).await.unwrap();
    for _ in 0..2 {
        shown += &format!("{:?}", connection.next().await);
    }
    assert_eq!(connection.session().refreshed_token().unwrap().expose(), format!("{TOKEN}NEW"));
    shown += &format!("{connection:?} {:?}", connection.session());
    connection.leave(Duration::from_secs(1)).await;
    server.await.unwrap();
    shown += &String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(shown.contains("websocket open"), "the log was taken: {shown}");
    assert!(!shown.contains("SECRET") && !shown.contains("eyJ"), "{shown}");
}
