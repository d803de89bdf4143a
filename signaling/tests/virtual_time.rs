//! Connections over streams in memory, in virtual time.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use stampede_signaling::connection::{Dial, Dialling};
use stampede_signaling::session::*;
use stampede_signaling::*;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

/// Bytes under way in each direction.
const BUFFER_BYTES: usize = 64 * 1024;

/// Streams in memory, whose other ends go to the test.
#[derive(Debug)]
struct InMemory(mpsc::UnboundedSender<DuplexStream>);

impl Dial for InMemory {
    fn dial<'a>(&'a self, _: &'a ServerUrl) -> Dialling<'a> {
        Box::pin(async {
            let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
            self.0.send(theirs).map_err(|_| std::io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(ours) as _)
        })
    }
}

fn options() -> (ConnectOptions, mpsc::UnboundedReceiver<DuplexStream>) {
    let (streams, dialled) = mpsc::unbounded_channel();
    let role = Role::subscriber(Subscription::Auto, Quality::Low);
    let url = ServerUrl::parse("ws://nowhere.invalid").unwrap();
    let tls = TlsSetup::new().unwrap();
    let mut options = ConnectOptions::new(url, Token::new("token").unwrap(), role, tls);
    options.dial = Some(Arc::new(InMemory(streams)));
    (options, dialled)
}

/// Runs until the session ends.
async fn end(connection: &mut Connection) -> EndReason {
    loop {
        match connection.next().await {
            Some(Update::Event(SessionEvent::Ended(reason))) => return reason,
            Some(_) => {}
            None => panic!("None before Ended"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_silent_is_given_up_in_virtual_time() {
    let (options, mut dialled) = options();
    let join_timeout = options.session.join_timeout;
    let server = tokio::spawn(async move {
        let mut peers = Vec::new();
        while let Some(stream) = dialled.recv().await {
            let mut peer = tokio_tungstenite::accept_async(stream).await.unwrap();
            // The first connection gets a join, the second nothing, and none a pong.
            if peers.is_empty() {
                let bytes = join(Vec::new()).encode_to_vec();
                peer.send(Message::Binary(bytes.into())).await.unwrap();
            }
            peers.push(peer);
        }
        let mut left = 0;
        for mut peer in peers {
            while let Some(Ok(_)) = peer.next().await {}
            left += 1;
        }
        left
    });

    let started = Instant::now();
    let mut first = Connection::connect(options.clone()).await.unwrap();
    // The pings of `join`: every 5 s, each given up after 15 s.
    assert_eq!(end(&mut first).await, EndReason::PingTimeout);
    assert_eq!(started.elapsed(), Duration::from_secs(5 + 15));

    let started = Instant::now();
    let mut second = Connection::connect(options.clone()).await.unwrap();
    assert_eq!(end(&mut second).await, EndReason::JoinTimeout);
    assert_eq!(started.elapsed(), join_timeout);

    drop((first, second, options));
    assert_eq!(server.await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_fails_is_named_as_tcp_would_be() {
    let (options, dialled) = options();
    drop(dialled);
    let error = Connection::connect(options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
}
