//! A small websocket server in this process, scripted by each test.

#![allow(dead_code)] // each test file uses its part

use std::future::Future;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use stampede_signaling::session::{Quality, Role, Subscription};
use stampede_signaling::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

/// Looks like a token and is none.
pub(crate) const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJTRUNSRVQiOjF9.SECRETSIGNATURE";

pub(crate) type Peer = WebSocketStream<TcpStream>;

/// Listens, and runs `script` on the first connection.
pub(crate) async fn serve<F, T>(
    script: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> (ServerUrl, JoinHandle<T>)
where
    F: Future<Output = T> + Send,
    T: Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move { script(listener.accept().await.unwrap().0).await });
    (ServerUrl::parse(&format!("ws://127.0.0.1:{port}")).unwrap(), task)
}

/// Answers any request with these bytes.
pub(crate) async fn serve_http(answer: String) -> ServerUrl {
    let script = |mut stream: TcpStream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
    };
    serve(script).await.0
}

#[allow(clippy::result_large_err)] // tungstenite's callback type
pub(crate) async fn accept(stream: TcpStream) -> Peer {
    tokio_tungstenite::accept_hdr_async(stream, |request: &Request, response: Response| {
        assert_eq!(request.headers()["authorization"], format!("Bearer {TOKEN}"));
        assert!(!request.uri().to_string().contains("SECRET"));
        Ok(response)
    })
    .await
    .unwrap()
}

pub(crate) async fn send(peer: &mut Peer, message: proto::SignalResponse) {
    peer.send(Message::Binary(message.encode_to_vec().into())).await.unwrap();
}

pub(crate) async fn receive(peer: &mut Peer) -> proto::signal_request::Message {
    loop {
        if let Message::Binary(bytes) = peer.next().await.unwrap().unwrap() {
            return proto::SignalRequest::decode(bytes).unwrap().message.unwrap();
        }
    }
}

pub(crate) fn options(url: ServerUrl) -> ConnectOptions {
    let role = Role::subscriber(Subscription::Auto, Quality::Low);
    let tls = TlsSetup::new().unwrap();
    let mut options = ConnectOptions::new(url, Token::new(TOKEN).unwrap(), role, tls);
    options.connect_timeout = Duration::from_secs(5);
    options
}
