//! A websocket over a pipe, in virtual time: how it ends, and what is sent meanwhile.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;

use axum::http::HeaderMap;
use livekit_token::{AccessToken, VideoGrants};
use prost::Message as _;
use proto::signal_request::Message as Request;
use stampede_udp::{BackendChoice, BackendLimits};
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::pace::{REQUESTS_BURST, REQUESTS_PER_S};
use super::*;
use crate::SfuOptions;
use crate::auth::Auth;
use crate::faults::{Refusals, Stalls};
use crate::hub::{Client, Connections, Hub};
use crate::ledger::Ledger;
use crate::limits;
use crate::media::handle::{Inbox, WorkerHandle};
use crate::report::Reporter;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// Enough for everything that is said to one client.
const PIPE_BYTES: usize = 1 << 20;

struct Rig {
    state: ServerState,
    options: SfuOptions,
    _inbox: Option<Inbox>,
}

type ClientSocket = WebSocketStream<DuplexStream>;

impl Rig {
    fn new() -> Self {
        // Only for its waker, which nothing else can make.
        let backend = stampede_udp::open(BackendChoice::Auto, BackendLimits::default());
        let waker = backend.unwrap().0.waker();
        let (worker, inbox) = WorkerHandle::new(waker, SocketAddr::from((Ipv4Addr::LOCALHOST, 9)));
        Self { _inbox: Some(inbox), ..Self::with(vec![worker]) }
    }

    fn with(workers: Vec<WorkerHandle>) -> Self {
        let start = std::time::Instant::now();
        let options = SfuOptions::default();
        let hub = Hub::new(workers.clone(), Refusals::new(0.0), options.departure_time, 1, start);
        let hub = Arc::new(Mutex::new(hub));
        let reporter = Reporter { hub: Arc::clone(&hub), workers, backend: String::new() };
        let stalls = Stalls::new(start, Vec::new());
        let state = ServerState::new(hub, Auth::new(&options), reporter, stalls);
        Self { state, options, _inbox: None }
    }

    fn claims(&self, token: &str) -> Claims {
        self.state.auth().claims(&HeaderMap::new(), Some(token)).unwrap()
    }

    /// Joins over a pipe that holds so much; the task ends with the websocket.
    fn join(&self, identity: &str, pipe_bytes: usize) -> (DuplexStream, JoinHandle<()>) {
        let token = AccessToken::with_api_key(&self.options.api_key, &self.options.api_secret)
            .with_identity(identity)
            .with_attributes([("seat", "7")])
            .with_ttl(Duration::from_secs(60))
            .with_grants(VideoGrants {
                room_join: true,
                room: "room".into(),
                can_update_own_metadata: Some(true),
                ..VideoGrants::default()
            });
        let request = JoinRequest {
            claims: self.claims(&token.to_jwt().unwrap()),
            connections: Connections::Dual { protocol: 17 },
            auto_subscribe: true,
            auto_subscribe_data_track: false,
            client: Client::default(),
            adaptive_stream: false,
            allow_pause: false,
            sdk: String::new(),
        };
        let (near, far) = duplex(pipe_bytes);
        (near, tokio::spawn(run(far, self.state.clone(), Entry::Join(request))))
    }

    async fn client(&self, identity: &str) -> (ClientSocket, JoinHandle<()>) {
        let (near, task) = self.join(identity, PIPE_BYTES);
        (WebSocketStream::from_raw_socket(near, Role::Client, None).await, task)
    }

    fn ledger(&self) -> Ledger {
        self.state.hub().ledger()
    }
}

/// What a client hears until its websocket is closed, and why that was.
async fn until_closed(socket: &mut ClientSocket) -> (Vec<Message>, CloseFrame) {
    let mut heard = Vec::new();
    loop {
        match socket.next().await.unwrap().unwrap() {
            Frame::Binary(frame) => {
                heard.extend(proto::SignalResponse::decode(frame).unwrap().message);
            }
            Frame::Close(close) => return (heard, close.unwrap()),
            _ => {}
        }
    }
}

/// The next fresh token.
async fn next_token(socket: &mut ClientSocket) -> String {
    loop {
        if let Frame::Binary(frame) = socket.next().await.unwrap().unwrap()
            && let Some(Message::RefreshToken(token)) =
                proto::SignalResponse::decode(frame).unwrap().message
        {
            return token;
        }
    }
}

/// A frame of a client with an all-zero mask, of `length` bytes, of which `payload` are sent.
fn frame(first: u8, length: usize, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(0x80 | length as u8),
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

fn said(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, payload.len(), payload)
}

#[tokio::test(start_paused = true)]
async fn each_fault_has_its_close_code() {
    let mib = vec![0; 1 << 20];
    let fragments = [said(0x02, &mib), said(0x00, &mib), said(0x00, b"1")].concat();
    for (what, bytes, code) in [
        ("a reserved opcode", said(0x83, b""), CloseCode::Protocol),
        ("reserved bits", said(0xc2, b""), CloseCode::Protocol),
        ("no mask", vec![0x82, 0], CloseCode::Protocol),
        ("a ping in fragments", said(0x09, b""), CloseCode::Protocol),
        ("a fragment of nothing", said(0x80, b""), CloseCode::Protocol),
        ("JSON", said(0x81, b"{}"), CloseCode::Unsupported),
        ("text that is none", said(0x81, &[0xff]), CloseCode::Invalid),
        ("no SignalRequest", said(0x82, &[0xff]), CloseCode::Invalid),
        ("3 MiB", frame(0x82, 3 << 20, &mib), CloseCode::Size),
        ("fragments of more than 2 MiB", fragments, CloseCode::Size),
    ] {
        let rig = Rig::new();
        let (mut socket, task) = rig.client("alice").await;
        socket.get_mut().write_all(&bytes).await.unwrap();
        let (_, close) = until_closed(&mut socket).await;
        assert_eq!(close.code, code, "{what}: {close:?}");
        assert!(!close.reason.is_empty(), "{what}");
        drop(socket);
        task.await.unwrap();
        // It was never connected, so it does not come back.
        let ledger = rig.ledger();
        assert_eq!((ledger.rooms[0].participants, ledger.signalling.attendance.leaves), (0, 1));
    }
}

/// Rooms that have no worker at all can't be joined, which nothing expects.
#[tokio::test(start_paused = true)]
async fn a_panic_is_told_as_an_internal_error() {
    let rig = Rig::with(Vec::new());
    let (mut socket, task) = rig.client("alice").await;
    assert_eq!(until_closed(&mut socket).await.1.code, CloseCode::Error);
    drop(socket);
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_of_another_day_is_ignored() {
    let rig = Rig::new();
    let (mut socket, _task) = rig.client("alice").await;
    // Field 1,000, a varint.
    socket.get_mut().write_all(&said(0x82, &[0xc0, 0x3e, 1])).await.unwrap();
    socket.get_mut().write_all(&said(0x82, b"")).await.unwrap();
    socket.send(Frame::Ping(Bytes::from_static(b"there?"))).await.unwrap();
    while socket.next().await.unwrap().unwrap() != Frame::Pong(Bytes::from_static(b"there?")) {}
}

#[tokio::test(start_paused = true)]
async fn goodbyes_say_whether_it_is_the_server_that_ends() {
    let rig = Rig::new();
    let (mut removed, _task) = rig.client("alice").await;
    let (mut left, _task) = rig.client("bob").await;
    sleep(SECOND).await;
    assert!(rig.state.hub().remove_participant("room", "alice"));
    let (heard, close) = until_closed(&mut removed).await;
    assert!(matches!(heard.last(), Some(Message::Leave(_))), "{heard:?}");
    assert_eq!(close.code, CloseCode::Normal);
    rig.state.hub().shut_down();
    let (heard, close) = until_closed(&mut left).await;
    assert!(matches!(heard.last(), Some(Message::Leave(_))), "{heard:?}");
    assert_eq!(close.code, CloseCode::Away);
}

#[tokio::test(start_paused = true)]
async fn a_client_s_own_close_is_answered_with_its_code() {
    let rig = Rig::new();
    let (mut socket, task) = rig.client("alice").await;
    let close = CloseFrame { code: CloseCode::from(4_001), reason: "done".into() };
    socket.close(Some(close.clone())).await.unwrap();
    assert_eq!(until_closed(&mut socket).await.1, close);
    task.await.unwrap();
    assert_eq!(rig.ledger().signalling.attendance.leaves, 1);
}

/// The bytes that come until the other end closes.
async fn rest(stream: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test(start_paused = true)]
async fn who_answers_no_pings_is_closed_and_counted() {
    let rig = Rig::new();
    let (mut lively, _task) = rig.client("lively").await;
    let lively = tokio::spawn(async move { until_closed(&mut lively).await });
    let (mut silent, _task) = rig.join("silent", PIPE_BYTES);
    let start = Instant::now();
    let bytes = rest(&mut silent).await;
    assert_eq!(start.elapsed().as_secs(), SILENCE_MAX.as_secs());
    let reason = Fault::Silent.to_string();
    let policy: [u8; 2] = 1_008_u16.to_be_bytes();
    let close = [&[0x88, 2 + reason.len() as u8], &policy[..], reason.as_bytes()].concat();
    assert!(bytes.ends_with(&close), "{bytes:?}");
    assert_eq!(rig.ledger().signalling.signalling_timeouts, 1);
    sleep(20 * SILENCE_MAX).await;
    assert!(!lively.is_finished(), "it answered");
    assert_eq!(rig.ledger().rooms[0].participants, 1);
}

/// Whose message is too large, and goes on for ever.
#[tokio::test(start_paused = true)]
async fn of_who_is_told_goodbye_so_much_is_read_and_no_more() {
    let rig = Rig::new();
    let (mut endless, task) = rig.join("endless", PIPE_BYTES);
    endless.write_all(&frame(0x82, MESSAGE_BYTES_MAX + 1, &[])).await.unwrap();
    let (part, mut written) = (vec![0; 64 << 10], 0);
    while endless.write_all(&part).await.is_ok() {
        written += part.len() as u64;
        assert!(written < 2 * FAREWELL_BYTES_MAX, "it is read for ever");
    }
    task.await.unwrap();
    // And what the pipe held in the end.
    let most = FAREWELL_BYTES_MAX + 2 * PIPE_BYTES as u64;
    assert!((FAREWELL_BYTES_MAX..most).contains(&written), "{written}");
    assert_eq!(rig.ledger().rooms[0].participants, 0);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_closed_and_counted() {
    let rig = Rig::new();
    let (mut deaf, task) = rig.join("deaf", 64);
    let start = Instant::now();
    task.await.unwrap();
    let expected = SEND_TIMEOUT + FAREWELL_TIMEOUT;
    assert_eq!(start.elapsed().as_secs(), expected.as_secs());
    assert_eq!(rig.ledger().signalling.signalling_overflows, 1);
    assert_eq!(rig.ledger().rooms[0].participants, 0);
    assert_eq!(rest(&mut deaf).await.len(), 64);
}

#[tokio::test(start_paused = true)]
async fn who_reads_too_slowly_has_200_messages_waiting_at_most() {
    let rig = Rig::new();
    let (_slow, task) = rig.join("slow", 64);
    let (mut other, _other_task) = rig.client("other").await;
    sleep(MS).await;
    let start = Instant::now();
    for number in 0..=OUTBOX_MESSAGES_MAX {
        assert_eq!(rig.ledger().signalling.signalling_overflows, 0, "{number}");
        let update = proto::UpdateParticipantMetadata {
            metadata: number.to_string(),
            ..proto::UpdateParticipantMetadata::default()
        };
        let request = proto::SignalRequest { message: Some(Request::UpdateMetadata(update)) };
        other.send(Frame::Binary(request.encode_to_vec().into())).await.unwrap();
        // Read what is said to it, or it would be too slow itself.
        while let Ok(Some(Ok(_))) = timeout(MS, other.next()).await {}
    }
    task.await.unwrap();
    assert!(start.elapsed() < SEND_TIMEOUT + FAREWELL_TIMEOUT, "{:?}", start.elapsed());
    let ledger = rig.ledger();
    assert_eq!((ledger.signalling.signalling_overflows, ledger.rooms[0].participants), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn fresh_tokens_say_what_the_participant_says_now() {
    let rig = Rig::new();
    let (mut socket, _task) = rig.client("alice").await;
    let start = Instant::now();
    let first = rig.claims(&next_token(&mut socket).await);
    assert_eq!((first.sub.as_str(), first.attributes["seat"].as_str()), ("alice", "7"));
    // The token it came with was one of a minute.
    assert!((600..=601).contains(&(first.exp - first.nbf)), "{first:?}");
    let update = proto::UpdateParticipantMetadata {
        metadata: "about".into(),
        name: "Alice".into(),
        attributes: [("seat".to_owned(), String::new()), ("hand".to_owned(), "up".to_owned())]
            .into(),
        ..proto::UpdateParticipantMetadata::default()
    };
    let request = proto::SignalRequest { message: Some(Request::UpdateMetadata(update)) };
    socket.send(Frame::Binary(request.encode_to_vec().into())).await.unwrap();
    let second = rig.claims(&next_token(&mut socket).await);
    assert_eq!((second.name.as_str(), second.metadata.as_str()), ("Alice", "about"));
    assert_eq!(second.attributes, [("hand".to_owned(), "up".to_owned())].into());
    assert!(start.elapsed() < SECOND, "at once");
    let third = rig.claims(&next_token(&mut socket).await);
    assert_eq!(Claims { exp: 0, nbf: 0, ..third }, Claims { exp: 0, nbf: 0, ..second });
    assert_eq!(start.elapsed().as_secs(), TOKEN_REFRESH_INTERVAL.as_secs());
}

fn asks(request: Request) -> Frame {
    let request = proto::SignalRequest { message: Some(request) };
    Frame::Binary(request.encode_to_vec().into())
}

/// Waits for the answer to the ping of this number.
async fn pong(socket: &mut ClientSocket, number: i64) {
    loop {
        if let Frame::Binary(frame) = socket.next().await.unwrap().unwrap()
            && let Some(Message::Pong(heard)) =
                proto::SignalResponse::decode(frame).unwrap().message
            && heard == number
        {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_without_end_is_heard_at_a_rate_and_the_others_at_once() {
    let rig = Rig::new();
    let (eager, _task) = rig.client("eager").await;
    let (mut other, _other_task) = rig.client("other").await;
    let (mut asks_all, mut hears_all) = eager.split();
    let last = i64::from(REQUESTS_BURST + 2 * REQUESTS_PER_S);
    let start = Instant::now();
    tokio::spawn(async move {
        for number in 1..=last {
            asks_all.send(asks(Request::Ping(number))).await.unwrap();
        }
        std::future::pending::<()>().await;
    });
    let answered = tokio::spawn(async move {
        let mut pongs = 0;
        while pongs < last {
            if let Frame::Binary(frame) = hears_all.next().await.unwrap().unwrap()
                && let Some(Message::Pong(number)) =
                    proto::SignalResponse::decode(frame).unwrap().message
            {
                pongs += 1;
                assert_eq!(number, pongs, "none is lost");
            }
        }
        start.elapsed()
    });
    for number in 0..20 {
        sleep(50 * MS).await;
        let asked = Instant::now();
        other.send(asks(Request::Ping(number))).await.unwrap();
        pong(&mut other, number).await;
        assert_eq!(asked.elapsed(), Duration::ZERO);
    }
    assert!(!answered.is_finished() && rig.ledger().signalling.requests_delayed > 0);
    let took = answered.await.unwrap();
    assert!((1_990..2_010).contains(&took.as_millis()), "{took:?}");
    assert_eq!(rig.ledger().signalling.signalling_overflows, 0);
    assert_eq!(rig.ledger().rooms[0].participants, 2);
}

#[tokio::test(start_paused = true)]
async fn who_tells_much_to_many_is_heard_more_slowly() {
    let rig = Rig::new();
    let mut others = Vec::new();
    for number in 0..8 {
        let (mut socket, _task) = rig.client(&format!("other-{number}")).await;
        others.push(tokio::spawn(async move { until_closed(&mut socket).await }));
    }
    let (mut talker, _task) = rig.client("talker").await;
    let start = Instant::now();
    // 512 KiB each, which costs 512, and to nine people as much again and more.
    let metadata = "x".repeat(limits::METADATA_BYTES_MAX);
    for number in 0..40 {
        let update = proto::UpdateParticipantMetadata {
            metadata: metadata.clone(),
            ..proto::UpdateParticipantMetadata::default()
        };
        talker.send(asks(Request::UpdateMetadata(update))).await.unwrap();
        talker.send(asks(Request::Ping(number))).await.unwrap();
        pong(&mut talker, number).await;
    }
    let caused = Caused { told_bytes: 9 * (512 << 10), commands: 0 };
    let each = f64::from(cost(512 << 10, caused) + 1);
    assert!(each > 400.0);
    let expected = (each * 39.0 - f64::from(REQUESTS_BURST)) / f64::from(REQUESTS_PER_S);
    let took = start.elapsed().as_secs_f64();
    assert!((took - expected).abs() < 1.0, "{took} s, expected {expected}");
    assert!(others.iter().all(|other| !other.is_finished()), "nobody was closed");
}

/// Nobody answers: there is no worker.
#[tokio::test(start_paused = true)]
async fn who_offers_without_end_has_four_offers_waiting() {
    let rig = Rig::new();
    let (mut socket, _task) = rig.client("eager").await;
    let offer = proto::SessionDescription {
        r#type: "offer".into(),
        sdp: "v=0\r\nm=video 9 X 96\r\na=mid:0\r\na=sendonly\r\n".into(),
        ..proto::SessionDescription::default()
    };
    let start = Instant::now();
    for _ in 0..6 {
        socket.send(asks(Request::Offer(offer.clone()))).await.unwrap();
    }
    socket.send(asks(Request::Ping(7))).await.unwrap();
    pong(&mut socket, 7).await;
    // The fifth, the sixth and the ping.
    assert_eq!(start.elapsed().as_secs(), 15);
    assert!(rig.ledger().signalling.requests_delayed >= 1);
}

/// What is queued for each of the others may be 200 messages, and they read all the time.
#[tokio::test(start_paused = true)]
async fn nobody_is_too_slow_for_one_who_is_told_of_without_end() {
    let rig = Rig::new();
    let (mut listener, listening) = rig.client("listener").await;
    let heard = tokio::spawn(async move { until_closed(&mut listener).await });
    let mut tasks = vec![listening];
    for number in 0..5 {
        let (near, task) = rig.join(&format!("eager-{number}"), PIPE_BYTES);
        tasks.push(task);
        let update = |metadata: u32| {
            let metadata = metadata.to_string();
            let update = proto::UpdateParticipantMetadata { metadata, ..Default::default() };
            let request = Request::UpdateMetadata(update);
            let request = proto::SignalRequest { message: Some(request) }.encode_to_vec();
            said(0x82, &request)
        };
        let all: Vec<u8> = (0..1_000).flat_map(update).collect();
        let (mut reads, mut writes) = tokio::io::split(near);
        tokio::spawn(async move {
            writes.write_all(&all).await.unwrap();
            std::future::pending::<()>().await;
        });
        tokio::spawn(async move { tokio::io::copy(&mut reads, &mut tokio::io::sink()).await });
    }
    sleep(5 * SECOND).await;
    assert!(!heard.is_finished());
    assert_eq!(rig.ledger().signalling.signalling_overflows, 0);
    assert_eq!(rig.ledger().rooms[0].participants, 6);
}
