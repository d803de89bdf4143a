//! In virtual time, over pipes instead of sockets: what ends when, and who makes room for whom.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;

/// What a pipe holds that nobody reads.
const PIPE_BYTES: usize = 1_024;
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Connections, or what accept(2) says instead, as they are put in.
struct Listener(mpsc::UnboundedReceiver<io::Result<(DuplexStream, IpAddr)>>);

impl Accept for Listener {
    type Io = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, IpAddr)> {
        match self.0.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }
}

struct Rig {
    accepting: mpsc::UnboundedSender<io::Result<(DuplexStream, IpAddr)>>,
    told: Arc<Mutex<Vec<Event>>>,
    server: JoinHandle<()>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Says hello on an upgraded connection, and waits.
async fn upgrade(mut request: Request) -> Response {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgraded.await.unwrap());
        io.write_all(b"hello").await.unwrap();
        std::future::pending::<()>().await;
    });
    let headers = [("connection", "upgrade"), ("upgrade", "websocket")];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

impl Rig {
    fn new(connections_max: usize, source_connections_max: usize) -> Self {
        let (accepting, accepted) = mpsc::unbounded_channel();
        let told = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&told);
        let router = Router::new()
            .route("/", get(|| async { "OK" }))
            .route("/large", get(|| async { Body::from(vec![b'a'; 1 << 20]) }))
            .route("/body", post(|body: Bytes| async move { body.len().to_string() }))
            .route("/upgrade", get(upgrade));
        let limits = Limits { connections_max, source_connections_max };
        let server = tokio::spawn(async move {
            run(Listener(accepted), router, limits, |event| hears.lock().unwrap().push(event))
                .await;
        });
        Self { accepting, told, server }
    }

    /// A connection from 10.0.0.`host`.
    fn connect(&self, host: u8) -> DuplexStream {
        let (near, far) = duplex(PIPE_BYTES);
        let source = Ipv4Addr::new(10, 0, 0, host).into();
        self.accepting.send(Ok((far, source))).unwrap();
        near
    }

    fn refuse(&self, errno: rustix::io::Errno) {
        self.accepting.send(Err(errno.into())).unwrap();
    }

    /// How many connections were closed because they took too long, and for want of room, and how often it
    /// was said that nobody can be let in.
    fn told(&self) -> (usize, usize, usize) {
        let told = self.told.lock().unwrap();
        let count = |of: fn(&Event) -> bool| told.iter().filter(|event| of(event)).count();
        (
            count(|event| matches!(event, Event::TimedOut)),
            count(|event| matches!(event, Event::Displaced)),
            count(|event| matches!(event, Event::Refused(_))),
        )
    }
}

async fn say(stream: &mut DuplexStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// What comes within a millisecond.
async fn heard(stream: &mut DuplexStream) -> String {
    let mut text = vec![0; PIPE_BYTES];
    let mut length = 0;
    while let Ok(Ok(more)) = timeout(MS, stream.read(&mut text[length..])).await {
        length += more;
        if more == 0 {
            break;
        }
    }
    String::from_utf8_lossy(&text[..length]).into_owned()
}

/// When the other end closes it.
async fn closes_after(stream: &mut DuplexStream) -> Duration {
    let start = Instant::now();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    start.elapsed()
}

async fn is_served(rig: &Rig, host: u8) -> bool {
    let mut stream = rig.connect(host);
    say(&mut stream, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    heard(&mut stream).await.starts_with("HTTP/1.1 200")
}

/// As far as hyper's timer is exact.
fn is_about(found: Duration, expected: Duration) -> bool {
    found >= expected && found < expected + 5 * MS
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_half_of_it_is_closed_when_its_time_is_up() {
    let rig = Rig::new(8, 8);
    let mut silent = rig.connect(1);
    assert!(is_about(closes_after(&mut silent).await, HEADER_TIMEOUT));

    // A byte a second does not buy time.
    let mut slow = rig.connect(1);
    let start = Instant::now();
    while slow.write_all(b"G").await.is_ok() {
        sleep(SECOND).await;
        assert!(start.elapsed() < LIFE_MAX, "it is still read");
    }
    assert!(start.elapsed() <= HEADER_TIMEOUT + SECOND + 5 * MS, "{:?}", start.elapsed());

    // Nor does a request that was answered: what is kept for another is closed.
    let mut kept = rig.connect(1);
    say(&mut kept, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(heard(&mut kept).await.starts_with("HTTP/1.1 200"));
    let closed = closes_after(&mut kept).await;
    assert!(is_about(closed + MS, HEADER_TIMEOUT), "{closed:?}");
    assert_eq!(rig.told(), (3, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_and_a_client_that_does_not_read_end_with_their_lives() {
    let rig = Rig::new(8, 8);
    let mut body = rig.connect(1);
    say(&mut body, "POST /body HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n1234").await;
    let end = LIFE_MAX + LAST_ANSWER_TIMEOUT;
    let closed = closes_after(&mut body).await;
    assert!(is_about(closed, end), "{closed:?}");

    let mut deaf = rig.connect(1);
    say(&mut deaf, "GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await;
    sleep(end - MS).await;
    assert_eq!(rig.told(), (1, 0, 0));
    sleep(2 * MS).await;
    assert_eq!(rig.told(), (2, 0, 0));
    assert!(is_served(&rig, 1).await);
}

#[tokio::test(start_paused = true)]
async fn headers_have_so_many_bytes_and_no_more() {
    let rig = Rig::new(9, 9);
    for (bytes, answer) in [(BUFFER_BYTES_MAX - 100, "200 OK"), (BUFFER_BYTES_MAX, "431 ")] {
        let (mut reads, mut writes) = tokio::io::split(rig.connect(1));
        let headers = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(bytes));
        // The rest of what is refused is not read.
        let said = tokio::spawn(async move {
            let _ = writes.write_all(headers.as_bytes()).await;
            writes
        });
        let mut text = [0; 12];
        reads.read_exact(&mut text).await.unwrap();
        let text = String::from_utf8_lossy(&text);
        assert!(format!("HTTP/1.1 {answer}").starts_with(&*text), "{bytes}: {text}");
        said.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_under_way_leaves_before_its_connection_ends() {
    let rig = Rig::new(8, 8);
    let mut late = rig.connect(1);
    say(&mut late, "POST /body HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n").await;
    sleep(LIFE_MAX + SECOND).await;
    say(&mut late, "123456789").await;
    let answer = heard(&mut late).await;
    assert!(answer.contains("connection: close") && answer.ends_with("\r\n\r\n9"), "{answer}");
    assert_eq!(rig.told(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_holds_connections_for_nothing_loses_the_oldest_to_a_newcomer() {
    let rig = Rig::new(4, 3);
    let mut held: Vec<DuplexStream> = Vec::new();
    for _ in 0..3 {
        held.push(rig.connect(1));
        sleep(10 * MS).await;
    }
    held.push(rig.connect(2));
    sleep(MS).await;
    // Everybody has a second: the newcomer waits for the rest of it.
    let mut newcomer = rig.connect(3);
    say(&mut newcomer, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    sleep(GRACE - 40 * MS).await;
    assert_eq!((heard(&mut newcomer).await.as_str(), rig.told()), ("", (0, 0, 0)));
    sleep(20 * MS).await;
    assert!(heard(&mut newcomer).await.starts_with("HTTP/1.1 200"));
    assert_eq!(rig.told(), (0, 1, 0));
    // It was the oldest of the source that had most.
    assert!(closes_after(&mut held[0]).await < MS);
    for other in &mut held[1..] {
        assert!(timeout(MS, other.read_u8()).await.is_err(), "another one was closed too");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_has_a_share_and_makes_room_within_it() {
    let rig = Rig::new(8, 2);
    let _held = [rig.connect(1), rig.connect(1)];
    sleep(2 * GRACE).await;
    assert!(is_served(&rig, 2).await);
    assert_eq!(rig.told(), (0, 0, 0), "there was room");
    assert!(is_served(&rig, 1).await);
    assert_eq!(rig.told(), (0, 1, 0), "of its own");
}

/// 60 idle connections blocked everybody where 64 files may be open.
#[tokio::test(start_paused = true)]
async fn idle_connections_block_nobody() {
    let rig = Rig::new(32, 16);
    let _idle: Vec<DuplexStream> = (0..60).map(|_| rig.connect(1)).collect();
    let mut newcomer = rig.connect(2);
    say(&mut newcomer, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let start = Instant::now();
    while !heard(&mut newcomer).await.starts_with("HTTP/1.1 200") {
        assert!(start.elapsed() < HEADER_TIMEOUT, "{:?}", rig.told());
    }
    // Sixteen are let in each second.
    assert!(start.elapsed() < 4 * GRACE, "{:?}", start.elapsed());
}

/// What thousands of participants on one machine do.
#[tokio::test(start_paused = true)]
async fn a_burst_from_one_address_that_says_what_it_wants_loses_nobody() {
    let rig = Rig::new(64, 32);
    let start = Instant::now();
    let mut joined = Vec::new();
    for _ in 0..5_000 {
        let mut stream = rig.connect(1);
        let request =
            "GET /upgrade HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        say(&mut stream, request).await;
        joined.push(stream);
    }
    for stream in &mut joined {
        let answer = heard(stream).await;
        assert!(answer.starts_with("HTTP/1.1 101") && answer.ends_with("hello"), "{answer}");
    }
    assert_eq!(rig.told(), (0, 0, 0));
    assert!(start.elapsed() < 20 * SECOND, "they waited for each other");
    // They are nobody's to close any more.
    sleep(2 * (LIFE_MAX + LAST_ANSWER_TIMEOUT)).await;
    assert!(timeout(MS, joined[0].read_u8()).await.is_err());
    assert_eq!(rig.told(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn without_descriptors_nobody_is_accepted_for_a_while_and_it_is_said_once() {
    let rig = Rig::new(8, 8);
    let mut idle = rig.connect(1);
    sleep(2 * GRACE).await;
    for _ in 0..5 {
        rig.refuse(rustix::io::Errno::MFILE);
    }
    let start = Instant::now();
    let mut next = rig.connect(2);
    say(&mut next, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    while !heard(&mut next).await.starts_with("HTTP/1.1 200") {
        assert!(start.elapsed() < SECOND);
    }
    assert!(start.elapsed() >= 5 * BACK_OFF, "it did not back off");
    // Whoever is there for nothing gives its descriptor back.
    assert!(closes_after(&mut idle).await < MS);
    assert_eq!(rig.told(), (0, 1, 1));
    // What is of a single connection stops nobody.
    rig.refuse(rustix::io::Errno::CONNABORTED);
    let start = Instant::now();
    assert!(is_served(&rig, 3).await && start.elapsed() < BACK_OFF);
}

#[test]
fn limits_leave_descriptors_to_others() {
    let limits = Limits { connections_max: 2_048, source_connections_max: 1_024 };
    let within = |descriptors| {
        let Limits { connections_max, source_connections_max } = limits.within(descriptors);
        (connections_max, source_connections_max)
    };
    assert_eq!(within(None), (2_048, 1_024));
    assert_eq!(within(Some(1 << 20)), (2_048, 1_024));
    assert_eq!(within(Some(1_088)), (1_024, 512));
    assert_eq!(within(Some(64)), (32, 16));
    assert_eq!(within(Some(1)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn requests_of_one_connection_are_answered_at_a_rate() {
    let rig = Rig::new(4, 4);
    let (mut eager, mut other) = (rig.connect(1), rig.connect(1));
    let start = Instant::now();
    let all = REQUESTS_BURST + REQUESTS_PER_S / 2;
    let request = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut answers = 0;
    for number in 0..all {
        say(&mut eager, request).await;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nOK") {
            answer.push(eager.read_u8().await.unwrap());
        }
        answers += 1;
        if number == all - 1 {
            let asked = Instant::now();
            say(&mut other, request).await;
            assert!(heard(&mut other).await.ends_with("OK"));
            assert!(asked.elapsed() <= MS);
        }
    }
    assert_eq!(answers, all);
    let took = start.elapsed().as_millis();
    assert!((498..=502).contains(&took), "{took} ms");
}
