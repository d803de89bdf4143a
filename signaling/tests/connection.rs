//! The websocket client against a server in this process.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests

mod common;
#[path = "common/server.rs"]
mod server;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_request::Message as Request;
use server::*;
use stampede_signaling::session::*;
use stampede_signaling::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

async fn connect(url: ServerUrl) -> Connection {
    Connection::connect(options(url)).await.unwrap()
}

async fn error(url: ServerUrl) -> ConnectError {
    let error = Connection::connect(options(url)).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("SECRET"), "{error:?}");
    error
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

#[tokio::test]
async fn join_offer_answer_leave() {
    let (url, server) = serve(|stream| async {
        let mut peer = accept(stream).await;
        send(&mut peer, join(vec![participant(PUBLISHER, audio_and_video())])).await;
        send(&mut peer, offer(9, OFFER_TRACKS, &[("1", AUDIO), ("2", video())])).await;
        let mut requests = Vec::new();
        loop {
            let request = receive(&mut peer).await;
            let left = matches!(request, Request::Leave(_));
            requests.push(request);
            if left {
                break;
            }
        }
        peer.close(None).await.unwrap();
        while peer.next().await.is_some() {}
        requests
    })
    .await;
    let mut connection = connect(url).await;
    let timings = connection.timings();
    assert!(timings.started <= timings.tcp && timings.tcp <= timings.websocket);
    assert_eq!(timings.tls, None);
    let mut joined = false;
    loop {
        match connection.next().await.unwrap() {
            Update::Event(SessionEvent::Joined(_)) => joined = true,
            Update::Media(MediaCommand::RemoteOffer { id, sdp, .. }) => {
                assert_eq!((id, sdp.as_str()), (9, OFFER_TRACKS));
                connection.media(MediaInput::LocalAnswer { offer_id: id, sdp: "answer".into() });
                break;
            }
            _ => {}
        }
    }
    assert!(joined);
    assert!(connection.leave(Duration::from_secs(5)).await, "the server closed in time");
    assert_eq!(end(&mut connection).await, EndReason::Left);
    assert_eq!(connection.next().await, None);
    let requests = server.await.unwrap();
    assert!(matches!(&requests[0], Request::TrackSetting(s) if s.quality == 0), "{requests:?}");
    assert!(requests.iter().any(|r| matches!(r, Request::Answer(a) if a.id == 9)));
    assert!(matches!(requests.last(), Some(Request::Leave(_))));
}

#[tokio::test]
async fn http_refusals() {
    let body = format!("invalid token: {TOKEN}, error: signature is invalid");
    let answer = |status: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let refusal = error(serve_http(answer("401 Unauthorized", &body)).await).await;
    assert_eq!((refusal.kind().key(), refusal.is_retryable()), ("http_401", false));
    let text = "HTTP 401: the server does not accept the token; check --api-key and --api-secret \
                (it said: invalid token: <token>, error: signature is invalid)";
    assert_eq!(refusal.to_string(), text);

    let refusal = error(serve_http(answer("403 Forbidden", "no grant")).await).await;
    assert_eq!(refusal.kind().key(), "http_403");
    let refusal = error(serve_http(answer("404 Not Found", "")).await).await;
    assert_eq!(refusal, ConnectError::Http { status: 404, body: String::new() });
    let long = "full\r\n".repeat(100);
    let refusal = error(serve_http(answer("503 Service Unavailable", &long)).await).await;
    assert_eq!((refusal.kind().key(), refusal.is_retryable()), ("http_503", true));
    let ConnectError::Http { body, .. } = refusal else { panic!() };
    assert_eq!(body.chars().count(), connection::ERROR_BODY_CHARS_MAX + 1);
    let refusal = error(serve_http(answer("200 OK", "hello")).await).await;
    assert_eq!(refusal.kind().key(), "http_other");
}

#[tokio::test]
async fn what_is_no_livekit_server() {
    let refusal = error(serve_http("SSH-2.0-OpenSSH_10.0\r\n".into()).await).await;
    assert_eq!(refusal.kind().key(), "websocket_protocol");
    let (url, _server) = serve(|stream| async { drop(stream) }).await;
    assert!(matches!(error(url).await.kind().key(), "websocket_protocol" | "unreachable"));

    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = ServerUrl::parse(&format!("ws://{unused}")).unwrap();
    assert_eq!(error(url).await.kind().key(), "refused");

    let url = ServerUrl::parse("ws://no-such-host.invalid").unwrap();
    assert_eq!(error(url).await.kind().key(), "dns");

    let (url, _server) = serve(|mut stream| async move {
        // Reads, and never answers.
        let mut sink = Vec::new();
        let _ = stream.read_to_end(&mut sink).await;
    })
    .await;
    let mut options = options(url);
    options.connect_timeout = Duration::from_millis(50);
    let timeout = Connection::connect(options).await.unwrap_err();
    assert!(
        matches!(timeout, ConnectError::Timeout { step: ConnectStep::Websocket, .. }),
        "{timeout:?}"
    );
}

#[tokio::test]
async fn addresses_given_are_the_ones_used() {
    let (url, _server) = serve(|stream| async {
        let mut peer = accept(stream).await;
        send(&mut peer, join(vec![])).await;
        while peer.next().await.is_some() {}
    })
    .await;
    let mut options = options(ServerUrl::parse("ws://no-such-host.invalid").unwrap());
    options.addresses = Some(Arc::from(url.resolve().await.unwrap()));
    assert!(Connection::connect(options).await.unwrap().next().await.is_some());
}

/// Nobody answers at the first address, as with a server that listens on 127.0.0.1 only.
#[tokio::test]
async fn the_address_that_answers_is_taken_of_both_families() {
    let (url, _server) = serve(|stream| async {
        let mut peer = accept(stream).await;
        send(&mut peer, join(vec![])).await;
        while peer.next().await.is_some() {}
    })
    .await;
    let mut options = options(ServerUrl::parse("ws://both-families.invalid").unwrap());
    let v6 = (std::net::Ipv6Addr::LOCALHOST, url.port()).into();
    let v4 = (std::net::Ipv4Addr::LOCALHOST, url.port()).into();
    options.addresses = Some(Arc::from([v6, v4]));
    let mut connection = Connection::connect(options.clone()).await.unwrap();
    assert!(matches!(connection.next().await, Some(Update::Event(SessionEvent::Joined(_)))));

    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let v6 = (std::net::Ipv6Addr::LOCALHOST, unused.port()).into();
    options.addresses = Some(Arc::from([v6, unused]));
    // Also where the machine has no IPv6: that says nothing of the server.
    assert_eq!(Connection::connect(options).await.unwrap_err().kind().key(), "refused");
}

/// A proxy that answers the first CONNECT with `answer`, and connects to `target` if it has one;
/// gives back the request's head.
async fn proxy(answer: &'static str, target: Option<ServerUrl>) -> (Proxies, JoinHandle<String>) {
    let script = move |mut stream: TcpStream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        if let Some(target) = target {
            let mut server = TcpStream::connect(("127.0.0.1", target.port())).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
        }
        String::from_utf8(head).unwrap()
    };
    let (url, task) = serve(script).await;
    let named = format!("http://user:p%20w@127.0.0.1:{}", url.port());
    (Proxies::asked("--proxy", &named, |_| None).unwrap(), task)
}

#[tokio::test]
async fn a_tunnel_through_the_proxy() {
    let (url, _server) = serve(|stream| async {
        let mut peer = accept(stream).await;
        send(&mut peer, join(vec![])).await;
        peer.close(None).await.unwrap();
        while peer.next().await.is_some() {}
    })
    .await;
    let (proxies, task) = proxy("HTTP/1.1 200 Connection established\r\n\r\n", Some(url)).await;
    // The proxy looks it up, not we.
    let mut options = options(ServerUrl::parse("ws://inside.invalid:7880").unwrap());
    options.proxy = proxies.of(&options.url).unwrap();
    let mut connection = Connection::connect(options).await.unwrap();
    assert!(matches!(connection.next().await, Some(Update::Event(SessionEvent::Joined(_)))));
    assert_eq!(end(&mut connection).await.kind().key(), "signal_closed_1005");
    drop(connection);
    let head = task.await.unwrap();
    assert!(
        head.starts_with("CONNECT inside.invalid:7880 HTTP/1.1\r\nHost: inside.invalid:7880\r\n")
    );
    // base64 of `user:p w`. The token is for the server alone.
    assert!(head.contains("\r\nProxy-Authorization: Basic dXNlcjpwIHc=\r\n"), "{head}");
    assert!(!head.contains("Bearer"), "{head}");
}

#[tokio::test]
async fn a_proxy_that_does_not_connect_us_is_named() {
    let through = async |answer: &'static str| {
        let (proxies, _task) = proxy(answer, None).await;
        let mut options = options(ServerUrl::parse("wss://inside.invalid").unwrap());
        options.proxy = proxies.of(&options.url).unwrap();
        Connection::connect(options).await.unwrap_err()
    };
    let denied = through("HTTP/1.1 403 Forbidden\r\n\r\n").await;
    assert_eq!((denied.kind().key(), denied.is_retryable()), ("proxy", false));
    assert!(denied.to_string().contains("refused to connect us: HTTP/1.1 403 Forbidden"));
    let unknown = through("HTTP/1.1 407 Who are you\r\n\r\n").await.to_string();
    assert!(unknown.contains("wants a user and a password") && !unknown.contains("p w"));
    let other = through("SSH-2.0-OpenSSH\r\n\r\n").await;
    assert!(other.is_retryable() && other.to_string().contains("no HTTP proxy"), "{other}");
    let talker = through("HTTP/1.1 200 OK\r\n\r\nhello").await.to_string();
    assert!(talker.contains("more than its answer"), "{talker}");

    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxies = Proxies::asked("--proxy", &unused.to_string(), |_| None).unwrap();
    let mut options = options(ServerUrl::parse("ws://inside.invalid").unwrap());
    options.proxy = proxies.of(&options.url).unwrap();
    let dead = Connection::connect(options).await.unwrap_err();
    assert_eq!(dead.kind().key(), "proxy");
    assert!(dead.to_string().contains(&unused.to_string()), "{dead}");
}

/// Joins, then gets `flood` again and again; answers each offer.
async fn flooded(flood: impl Fn(u32) -> proto::SignalResponse + Send + 'static) -> EndReason {
    let (url, server) = serve(|stream| async move {
        let mut peer = accept(stream).await;
        send(&mut peer, join(vec![])).await;
        send(&mut peer, offer(1, OFFER_DATA, &[])).await;
        for round in 2.. {
            let message = Message::Binary(flood(round).encode_to_vec().into());
            if peer.feed(message).await.is_err() {
                return;
            }
        }
    })
    .await;
    let mut options = options(url);
    // Longer than an SDP that is refused.
    options.message_bytes_max = 4 << 20;
    let mut connection = Connection::connect(options).await.unwrap();
    let mut offers = 0;
    let reason = loop {
        match connection.next().await.unwrap() {
            Update::Media(MediaCommand::RemoteOffer { id, .. }) => {
                offers += 1;
                connection.media(MediaInput::LocalAnswer { offer_id: id, sdp: "x".into() });
            }
            Update::Event(SessionEvent::Ended(reason)) => break reason,
            _ => {}
        }
    };
    assert!(offers >= 1);
    assert!(connection.leave(Duration::ZERO).await, "nothing more of it is read");
    drop(connection);
    server.await.unwrap();
    reason
}

#[tokio::test]
async fn floods_end_the_session_and_name_the_server() {
    let kind = flooded(|round| offer(round, OFFER_DATA, &[])).await.kind().key();
    assert_eq!(kind, "server_flooded_offers");
    let subscriber = proto::SignalTarget::Subscriber;
    let kind = flooded(move |_| trickle(subscriber, &candidate_json(7), false)).await.kind().key();
    assert_eq!(kind, "server_flooded_candidates");
    let mutes = |round: u32| {
        let mut tracks = audio_and_video();
        tracks.iter_mut().for_each(|track| track.muted = round.is_multiple_of(2));
        update(vec![participant(PUBLISHER, tracks)])
    };
    assert_eq!(flooded(mutes).await.kind().key(), "server_flooded_events");
    let pong =
        |_| proto::SignalResponse { message: Some(proto::signal_response::Message::Pong(7)) };
    assert_eq!(flooded(pong).await.kind().key(), "server_flooded_messages");
    let long = "a=x\r\n".repeat(1 << 19);
    let reason = flooded(move |round| offer(round, &long, &[])).await;
    assert_eq!(reason.kind().key(), "server_flooded_sdp");
    assert!(reason.to_string().contains("2621440 bytes"), "{reason}");
}

#[tokio::test]
async fn garbage_and_text_are_counted_and_survived() {
    let (url, _server) = serve(|stream| async {
        let mut peer = accept(stream).await;
        peer.send(Message::Binary(vec![0xff; 100].into())).await.unwrap();
        peer.send(Message::Text(r#"{"join":{}}"#.into())).await.unwrap();
        peer.send(Message::Binary(Vec::new().into())).await.unwrap();
        peer.send(Message::Ping(vec![1].into())).await.unwrap();
        send(&mut peer, join(vec![])).await;
        let pong = peer.next().await.unwrap().unwrap();
        assert!(matches!(pong, Message::Pong(_)), "{pong:?}");
        let goodbye = CloseFrame { code: 4000.into(), reason: format!("bye {TOKEN}").into() };
        peer.close(Some(goodbye)).await.unwrap();
        while peer.next().await.is_some() {}
    })
    .await;
    let mut connection = connect(url).await;
    assert!(matches!(connection.next().await, Some(Update::Event(SessionEvent::Joined(_)))));
    assert_eq!(connection.session().counters().malformed, 2);
    assert_eq!(connection.session().counters().unneeded, 1);
    let reason = end(&mut connection).await;
    assert_eq!(reason, EndReason::Closed { code: 4000, text: "bye <token>".into() });
    assert_eq!(reason.kind().key(), "signal_closed_4xxx");
    let text = r#"the server closed the websocket: code 4000, "bye <token>""#;
    assert_eq!(reason.to_string(), text);
}

#[tokio::test]
async fn closed_in_the_middle_of_the_join() {
    let (url, _server) = serve(|stream| async {
        let mut peer = accept(stream).await;
        peer.close(None).await.unwrap();
    })
    .await;
    assert_eq!(end(&mut connect(url).await).await.kind().key(), "signal_closed_1005");

    let (url, _server) = serve(|stream| async {
        let mut peer = accept(stream).await;
        let frame = CloseFrame { code: 1011.into(), reason: "no node".into() };
        peer.close(Some(frame)).await.unwrap();
        while peer.next().await.is_some() {}
    })
    .await;
    let reason = end(&mut connect(url).await).await;
    assert_eq!(reason.kind().key(), "signal_closed_1011");
    assert!(reason.to_string().contains("no node"), "{reason}");

    // Half a frame, then the end of the TCP connection.
    let (url, _server) = serve(|stream| async {
        let mut raw = accept(stream).await.into_inner();
        raw.write_all(&[0x82, 100, 1, 2, 3]).await.unwrap();
    })
    .await;
    let mut connection = connect(url).await;
    assert!(matches!(
        end(&mut connection).await.kind().key(),
        "signal_closed_1006" | "signal_lost"
    ));
    assert_eq!(connection.next().await, None);
    assert!(connection.leave(Duration::from_secs(5)).await, "leaving a dead socket is no wait");
}

#[tokio::test]
async fn large_messages_are_taken_and_monstrous_ones_refused() {
    let (url, _server) = serve(|stream| async {
        let mut peer = accept(stream).await;
        let crowd = (0..10_000).map(|i| participant(&format!("PA_{i}"), vec![])).collect();
        send(&mut peer, join(crowd)).await;
        send(&mut peer, offer(1, OFFER_DATA, &[])).await;
        // The header of a frame one byte past the limit.
        let mut raw = peer.into_inner();
        let len = connection::MESSAGE_BYTES_MAX as u64 + 1;
        raw.write_all(&[&[0x82, 127], &len.to_be_bytes()[..]].concat()).await.unwrap();
        raw
    })
    .await;
    let mut connection = connect(url).await;
    let Some(Update::Event(SessionEvent::Joined(joined))) = connection.next().await else {
        panic!()
    };
    assert_eq!(joined.participants, 10_000);
    let offer = connection.next().await;
    assert!(matches!(offer, Some(Update::Media(MediaCommand::RemoteOffer { id: 1, .. }))));
    let reason = end(&mut connection).await;
    let most = connection::MESSAGE_BYTES_MAX;
    let flood = Flood::Message { bytes: most + 1, most };
    assert_eq!(reason, EndReason::ServerFlooded { flood });
    assert_eq!(reason.kind().key(), "server_flooded_message_size");
    let text = reason.to_string();
    for word in ["2097153 bytes", "--message-size-max is 2097152", "raise it"] {
        assert!(text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn the_longest_message_is_what_was_asked_for_on_a_websocket_begun_anew_too() {
    let (url, _server) = serve(|stream| async {
        let mut peer = accept(stream).await;
        let crowd = (0..300).map(|i| participant(&format!("PA_{i}"), vec![])).collect();
        send(&mut peer, join(crowd)).await;
        // By now nothing is under way, and the websocket has begun anew.
        let Some(Ok(_)) = peer.next().await else { panic!() };
        send(&mut peer, join(vec![])).await;
        let token = proto::signal_response::Message::RefreshToken("x".repeat(20_000));
        send(&mut peer, proto::SignalResponse { message: Some(token) }).await;
        peer
    })
    .await;
    let mut options = options(url);
    options.message_bytes_max = 20_000;
    let mut connection = Connection::connect(options).await.unwrap();
    let Some(Update::Event(SessionEvent::Joined(joined))) = connection.next().await else {
        panic!()
    };
    assert_eq!(joined.participants, 300);
    connection.simulate(Simulation::NodeFailure);
    let reason = end(&mut connection).await;
    let EndReason::ServerFlooded { flood: Flood::Message { bytes, most: 20_000 } } = reason else {
        panic!("{reason:?}")
    };
    assert_eq!(bytes, 20_005, "with the field's number and length");
}

#[tokio::test]
async fn unanswered_pings_end_it() {
    let (url, server) = serve(|stream| async {
        let mut peer = accept(stream).await;
        send(&mut peer, join(vec![])).await;
        let mut pings = 0;
        while let Some(Ok(message)) = peer.next().await {
            let Message::Binary(bytes) = message else { continue };
            match proto::SignalRequest::decode(bytes).unwrap().message.unwrap() {
                Request::PingReq(_) => pings += 1,
                other => panic!("a leave would end what can be resumed: {other:?}"),
            }
        }
        pings
    })
    .await;
    let mut connection = connect(url).await;
    assert!(matches!(connection.next().await, Some(Update::Event(SessionEvent::Joined(_)))));
    tokio::time::pause(); // from here on time jumps to the next timer
    assert_eq!(end(&mut connection).await, EndReason::PingTimeout);
    drop(connection);
    // Pings at 5, 10, 15 and 20 s; given up 15 s after the first.
    assert!((3..=4).contains(&server.await.unwrap()));
}

#[tokio::test]
async fn a_server_that_never_closes_holds_nobody_up() {
    let (url, server) = serve(|stream| async {
        let mut peer = accept(stream).await;
        send(&mut peer, join(vec![])).await;
        let request = receive(&mut peer).await;
        (peer, request)
    })
    .await;
    let mut connection = connect(url).await;
    connection.next().await.unwrap();
    tokio::time::pause();
    // The server stops reading after the leave, so its half of the close never comes.
    assert!(!connection.leave(Duration::from_secs(1)).await);
    assert!(matches!(server.await.unwrap().1, Request::Leave(_)));
}

#[tokio::test]
async fn a_full_outbound_queue_ends_the_session() {
    let (url, _server) = serve(|stream| async {
        let mut peer = accept(stream).await;
        send(&mut peer, join(vec![])).await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut connection = connect(url).await;
    connection.next().await.unwrap();
    for _ in 0..=connection::OUTBOUND_MESSAGES_MAX {
        connection.subscribe(vec!["TR_x".into()], true);
    }
    assert_eq!(end(&mut connection).await, EndReason::OutboundFull);
}

#[tokio::test]
async fn next_may_be_dropped_at_any_time() {
    let (url, server) = serve(|stream| async {
        let mut peer = accept(stream).await;
        send(&mut peer, join(vec![])).await;
        for id in 1..=200 {
            send(&mut peer, offer(id, OFFER_TRACKS, &[])).await;
            let Request::Answer(answer) = receive(&mut peer).await else { panic!() };
            assert_eq!(answer.id, id);
        }
    })
    .await;
    let mut connection = connect(url).await;
    let mut answered = 0;
    while answered < 200 {
        // Polls `next` once or twice, then drops it.
        let update = tokio::select! {
            biased;
            update = connection.next() => update,
            () = tokio::task::yield_now() => continue,
        };
        match update.unwrap() {
            Update::Media(MediaCommand::RemoteOffer { id, .. }) => {
                connection.media(MediaInput::LocalAnswer { offer_id: id, sdp: "x".repeat(9_000) });
                answered += 1;
            }
            Update::Event(SessionEvent::Ended(reason)) => panic!("{reason}"),
            _ => {}
        }
    }
    tokio::select! {
        _ = connection.next() => {}
        result = server => result.unwrap(),
    }
}

/// A CA, and a certificate of it for `localhost`, as a TLS acceptor and the CA's PEM.
fn private_ca() -> (tokio_rustls::TlsAcceptor, String) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
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
    (Arc::new(config).into(), ca_certificate.pem())
}

#[tokio::test]
async fn tls_with_a_private_ca() {
    let (acceptor, pem) = private_ca();
    let script = move |stream: TcpStream| async move {
        let stream = acceptor.accept(stream).await?;
        let mut peer = tokio_tungstenite::accept_async(stream).await.unwrap();
        let message = prost::Message::encode_to_vec(&join(vec![]));
        peer.send(Message::Binary(message.into())).await.unwrap();
        while peer.next().await.is_some() {}
        Ok::<_, std::io::Error>(())
    };
    let (url, _server) = serve(script.clone()).await;
    let url = ServerUrl::parse(&format!("wss://localhost:{}", url.port())).unwrap();
    let mut trusting = options(url);
    trusting.tls = TlsSetup::system(Some(pem.as_bytes())).unwrap();
    trusting.addresses =
        Some(Arc::from([(std::net::Ipv4Addr::LOCALHOST, trusting.url.port()).into()]));
    let mut connection = Connection::connect(trusting).await.unwrap();
    let timings = connection.timings();
    assert!(timings.tls.is_some_and(|tls| timings.tcp <= tls && tls <= timings.websocket));
    assert!(matches!(connection.next().await, Some(Update::Event(SessionEvent::Joined(_)))));

    let (url, server) = serve(script).await;
    let url = ServerUrl::parse(&format!("wss://localhost:{}", url.port())).unwrap();
    let mut wary = options(url);
    wary.addresses = Some(Arc::from([(std::net::Ipv4Addr::LOCALHOST, wary.url.port()).into()]));
    let refusal = Connection::connect(wary).await.unwrap_err();
    assert_eq!(refusal.kind().key(), "tls");
    assert!(refusal.to_string().contains("UnknownIssuer"), "{refusal}");
    assert!(server.await.unwrap().is_err());

    // A plain server asked for TLS.
    let plain = serve_http("HTTP/1.1 400 Bad Request\r\n\r\n".into());
    let url = ServerUrl::parse(&plain.await.to_string().replace("ws://", "wss://")).unwrap();
    let mut impatient = options(url);
    impatient.connect_timeout = Duration::from_millis(200);
    assert!(matches!(
        Connection::connect(impatient).await.unwrap_err().kind().key(),
        "tls" | "connect_timeout"
    ));
}
