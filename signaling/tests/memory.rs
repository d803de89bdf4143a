//! A large message must not stay with its connection. Alone in its file: it looks at the memory of
//! the whole process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // helpers of tests

mod common;
#[path = "common/server.rs"]
mod server;

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use common::*;
use futures_util::SinkExt;
use livekit_protocol as proto;
use server::*;
use stampede_signaling::session::{MediaCommand, SessionEvent};
use stampede_signaling::*;
use tokio_tungstenite::tungstenite::{Bytes, Message};

const CONNECTIONS: u64 = 48;
const JOIN_BYTES_MIN: u64 = 1024 * 1024;

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// The next update, if it is there.
async fn at_hand(connection: &mut Connection) -> Option<Update> {
    poll_fn(|cx| match pin!(connection.next()).poll(cx) {
        Poll::Ready(update) => Poll::Ready(update),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[tokio::test]
async fn a_join_of_megabytes_does_not_stay() {
    let crowd = (0..8_000).map(|i| {
        let metadata = "x".repeat(150);
        proto::ParticipantInfo { metadata, ..participant(&format!("PA_{i}"), vec![]) }
    });
    let crowd = crowd.collect();
    let join = Bytes::from(prost::Message::encode_to_vec(&join(crowd)));
    assert!(join.len() as u64 > JOIN_BYTES_MIN);
    let mut kept = Vec::new();
    let mut before = 0;
    for index in 0..=CONNECTIONS {
        let message = Message::Binary(join.clone());
        let (url, server) = serve(|stream| async {
            let mut peer = accept(stream).await;
            peer.send(message).await.unwrap();
            send(&mut peer, offer(1, OFFER_TRACKS, &[])).await;
            // Only the client's memory counts: the server's end keeps no buffer.
            let stream = peer.into_inner();
            std::future::pending::<()>().await;
            drop(stream);
        })
        .await;
        let mut connection = Connection::connect(options(url)).await.unwrap();
        let update = connection.next().await;
        assert!(matches!(update, Some(Update::Event(SessionEvent::Joined(_)))));
        let update = connection.next().await;
        assert!(matches!(update, Some(Update::Media(MediaCommand::RemoteOffer { .. }))));
        // Whoever waits for what follows has the buffers let go of it.
        while let Some(update) = at_hand(&mut connection).await {
            assert!(!matches!(update, Update::Event(SessionEvent::Ended(_))));
        }
        kept.push((connection, server));
        if index == 0 {
            before = resident_bytes(); // whatever the first one costs is no growth
        }
    }
    let growth = resident_bytes().saturating_sub(before);
    let retained = CONNECTIONS * JOIN_BYTES_MIN;
    println!("grew by {growth} bytes; {retained} if every join stayed");
    assert!(growth < retained / 4, "grew by {growth} bytes");
}
