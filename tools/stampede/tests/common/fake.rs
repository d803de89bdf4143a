//! A server that is no good: CreateRoom and the join answer what a test tells them to. And what
//! stands before a good one: a TLS terminator with a certificate of a private CA, an HTTP proxy, a line
//! that can be cut.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread;

use axum::Router;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_response::Message as Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// An offer of livekit-server 1.13.5 with data channels only.
const OFFER: &str = include_str!("../../../../signaling/tests/data/subscriber-offer-vp8-1.sdp");

/// How a [`Fake`] joins participants.
#[derive(Debug, Clone)]
pub(crate) enum Join {
    /// It answers HTTP with this.
    Refuse(u16, &'static str),
    /// It closes the websocket after the join response.
    Close(u16, &'static str),
    /// After the join response and an offer it sends one of these after the other.
    Flood(Flood),
}

/// What is sent without end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Flood {
    Offers,
    Candidates,
    /// A single one is enough.
    LongSdp,
    LongMessage,
}

/// Runs `serve` on a thread and a listener of its own; its address.
pub(crate) fn start<F: Future<Output = ()>>(
    serve: impl FnOnce(TcpListener) -> F + Send + 'static,
) -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    // It ends with the process of the test.
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { serve(TcpListener::from_std(listener).unwrap()).await });
    });
    address
}

/// A server that answers CreateRoom with this status and text (an empty one makes the room), and
/// joins participants like this; its address.
pub(crate) fn server(create: (u16, &'static str), join: Join) -> SocketAddr {
    let made = move || async move {
        let status = StatusCode::from_u16(create.0).unwrap();
        if status.is_success() {
            let room = proto::Room { sid: "RM_1".into(), ..Default::default() };
            return (status, room.encode_to_vec()).into_response();
        }
        (status, create.1).into_response()
    };
    let joined = move |upgrade: WebSocketUpgrade| {
        let join = join.clone();
        async move { answer(upgrade, join) }
    };
    let app = Router::new()
        .route("/twirp/livekit.RoomService/CreateRoom", post(made))
        .route("/rtc", get(joined));
    start(async move |listener| axum::serve(listener, app).await.unwrap())
}

fn answer(upgrade: WebSocketUpgrade, join: Join) -> Response {
    match join {
        Join::Refuse(status, text) => (StatusCode::from_u16(status).unwrap(), text).into_response(),
        join => upgrade.max_write_buffer_size(1 << 26).on_upgrade(|socket| play(socket, join)),
    }
}

async fn play(mut socket: WebSocket, join: Join) {
    let participant = proto::ParticipantInfo { sid: "PA_1".into(), ..Default::default() };
    let room = proto::Room { sid: "RM_1".into(), ..Default::default() };
    let response = Signal::Join(proto::JoinResponse {
        room: Some(room),
        participant: Some(participant),
        subscriber_primary: true,
        ..Default::default()
    });
    let _ = socket.send(message(response)).await;
    match join {
        Join::Close(code, text) => {
            let frame = CloseFrame { code, reason: text.into() };
            let _ = socket.send(Message::Close(Some(frame))).await;
            while let Some(Ok(_)) = socket.recv().await {}
        }
        Join::Flood(flood) => {
            let mut id = 1;
            let mut one = message(offer(id, OFFER));
            // Until nobody takes it any more.
            while socket.send(one).await.is_ok() {
                id += 1;
                one = flooding(flood, id);
            }
        }
        Join::Refuse(..) => {}
    }
}

fn flooding(flood: Flood, id: u32) -> Message {
    match flood {
        Flood::Offers => message(offer(id, OFFER)),
        Flood::Candidates => {
            let line =
                format!("candidate:{id} 1 udp 2130706431 127.0.0.1 {} typ host", id % 65_535);
            message(Signal::Trickle(proto::TrickleRequest {
                candidate_init: format!(r#"{{"candidate":"{line}"}}"#),
                target: proto::SignalTarget::Subscriber as i32,
                ..Default::default()
            }))
        }
        Flood::LongSdp => message(offer(id, &format!("{OFFER}{}", "a=x\r\n".repeat(1 << 19)))),
        Flood::LongMessage => Message::Binary(vec![0; 17 << 20].into()),
    }
}

fn message(message: Signal) -> Message {
    let response = proto::SignalResponse { message: Some(message) };
    Message::Binary(response.encode_to_vec().into())
}

fn offer(id: u32, sdp: &str) -> Signal {
    let (r#type, sdp) = ("offer".to_owned(), sdp.to_owned());
    Signal::Offer(proto::SessionDescription { r#type, sdp, id, ..Default::default() })
}

/// A TLS terminator before `target`, with a certificate for 127.0.0.1; its address, and the PEM of
/// the CA that signed it.
pub(crate) fn tls(target: SocketAddr) -> (SocketAddr, String) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let address = start(async move |listener| {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut server = TcpStream::connect(target).await.unwrap();
                let _ = copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
    (address, pem)
}

/// A way to a server that cuts all its connections when it is told to, and takes new ones.
pub(crate) struct Line {
    pub(crate) address: SocketAddr,
    cuts: watch::Sender<u32>,
}

impl Line {
    pub(crate) fn to(target: SocketAddr) -> Self {
        let (cuts, cut) = watch::channel(0);
        let address = start(async move |listener| {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut cut = cut.clone();
                cut.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(target).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut stream, &mut server) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, cuts }
    }

    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

/// Requests that a proxy got: the first line and its `Proxy-Authorization`.
pub(crate) type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// An HTTP proxy that takes every host for `target`.
pub(crate) fn proxy(target: SocketAddr) -> (SocketAddr, Asked) {
    let asked = Asked::default();
    let log = Arc::clone(&asked);
    let address = start(async move |listener| {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(forward(stream, target, Arc::clone(&log)));
        }
    });
    (address, asked)
}

async fn forward(mut stream: TcpStream, target: SocketAddr, asked: Asked) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let (line, rest) = head.split_once("\r\n").unwrap();
    let authorization = rest.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("proxy-authorization").then(|| value.to_owned())
    });
    asked.lock().unwrap().push((line.to_owned(), authorization));
    let mut server = TcpStream::connect(target).await.unwrap();
    if line.starts_with("CONNECT ") {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    } else {
        // `POST http://host/path HTTP/1.1`; one request a connection.
        let mut words = line.split(' ');
        let (method, url) = (words.next().unwrap(), words.next().unwrap());
        let path = &url[url.find("://").unwrap() + 3..];
        let path = &path[path.find('/').unwrap()..];
        let request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n{rest}");
        server.write_all(request.as_bytes()).await.unwrap();
    }
    let _ = copy_bidirectional(&mut stream, &mut server).await;
}
