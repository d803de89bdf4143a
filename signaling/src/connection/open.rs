//! From a URL to an open websocket, one step at a time so that each failure has its own name.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use flate2::Compression;
use flate2::write::GzEncoder;
use livekit_protocol as proto;
use prost::Message as _;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async_with_config};

use super::error::{ConnectError, ConnectStep, ERROR_BODY_CHARS_MAX};
use super::framing::Framed;
use super::{ConnectOptions, ConnectTimings, Transport, dial};
use crate::server_url::ServerUrl;
use crate::session::{CLIENT_PROTOCOL, DataTracks, FIRST_OFFER_ID, SignalVersion, Subscription};
use crate::text;

/// LiveKit's protocol number this client speaks (livekit rtc/types/protocol_version.go).
pub const PROTOCOL: u32 = 17;

/// Read buffer of a connection. tungstenite's default of 128 KiB is a quarter of a gigabyte at
/// 2,000 connections; a message larger than this takes a few more reads.
pub(super) const READ_BUFFER_BYTES: usize = 1024;

/// Outgoing messages are gathered up to here before they are written; a flush follows anyway.
const WRITE_BUFFER_BYTES: usize = 4 * 1024;

/// Most bytes waiting for a server that does not read; beyond, the connection ends.
const WRITE_BUFFER_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(super) type Socket = WebSocketStream<Framed<MaybeTlsStream<Box<dyn Transport>>>>;

/// The step that a connection is at. Atomic only to keep the future `Send`.
#[derive(Default)]
struct Progress(AtomicUsize);

impl Progress {
    fn reach(&self, step: ConnectStep) {
        self.0.store(step as usize, Ordering::Relaxed);
    }

    fn step(&self) -> ConnectStep {
        let at = self.0.load(Ordering::Relaxed);
        ConnectStep::ALL.get(at).copied().unwrap_or(ConnectStep::Dns)
    }
}

/// What a websocket that takes a session up again says of it.
pub(super) struct Resume<'a> {
    /// Our participant sid (`PA_…`).
    pub(super) sid: &'a str,
    /// Why.
    pub(super) reason: proto::ReconnectReason,
}

pub(super) async fn open(
    options: &ConnectOptions,
    resume: Option<Resume<'_>>,
) -> Result<(Socket, ConnectTimings), ConnectError> {
    let progress = Progress::default();
    let timeout = options.connect_timeout;
    match tokio::time::timeout(timeout, open_steps(options, resume, &progress)).await {
        Ok(result) => result,
        Err(_) => {
            let address = options.url.authority();
            Err(ConnectError::Timeout { address, timeout, step: progress.step() })
        }
    }
}

async fn open_steps(
    options: &ConnectOptions,
    resume: Option<Resume<'_>>,
    progress: &Progress,
) -> Result<(Socket, ConnectTimings), ConnectError> {
    let started = now();
    let url = &options.url;
    let request = request(options, resume.as_ref())?;
    let transport = transport(options, progress).await?;
    let tcp = now();
    let (stream, tls) = if url.is_secure() {
        progress.reach(ConnectStep::Tls);
        (connect_tls(options, transport).await?, Some(now()))
    } else {
        (MaybeTlsStream::Plain(transport), None)
    };
    progress.reach(ConnectStep::Websocket);
    let stream = Framed::new(stream);
    let limits = limits(options.message_bytes_max);
    let (socket, _response) = client_async_with_config(request, stream, Some(limits))
        .await
        .map_err(|error| handshake_error(url, error))?;
    Ok((socket, ConnectTimings { started, tcp, tls, websocket: now() }))
}

/// The other side sees a reset (RST), and no orderly end, once this socket is dropped.
pub(super) fn reset_on_drop(socket: &Socket) {
    match socket.get_ref().get_ref() {
        MaybeTlsStream::Plain(transport) => transport.reset_on_drop(),
        MaybeTlsStream::Rustls(tls) => tls.get_ref().0.reset_on_drop(),
        // No other kind is made here.
        _ => {}
    }
}

pub(super) fn now() -> Instant {
    // tokio's clock, so that tests can move it.
    tokio::time::Instant::now().into_std()
}

pub(super) fn limits(message_bytes_max: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max))
}

/// The request of the upgrade. The token goes in a header: a URL ends up in access logs and error
/// texts. The capability keeps the server from stripping publishers' stamps
/// (pkg/rtc/subscribedtrack.go); older servers ignore it.
fn request(options: &ConnectOptions, resume: Option<&Resume<'_>>) -> Result<Request, ConnectError> {
    let (url, session) = (&options.url, &options.session);
    let auto_subscribe = matches!(
        session.role.receives.map(|receives| receives.subscription),
        Some(Subscription::Auto | Subscription::Layout { auto: true, .. })
    );
    let subscribes = (auto_subscribe, session.role.data_tracks_of_others == DataTracks::Auto);
    let client_protocol = if session.role.rpc { CLIENT_PROTOCOL } else { 0 };
    let query = match session.version {
        SignalVersion::V0 => query_v0(subscribes, client_protocol, resume),
        SignalVersion::V1 => {
            let offer = session.first_offer.as_deref().filter(|_| resume.is_none());
            query_v1(subscribes, client_protocol, offer, resume)
        }
    };
    let bad = |detail: String| ConnectError::Protocol { address: url.authority(), detail };
    let mut request = url
        .websocket(&query)
        .into_client_request()
        .map_err(|error| bad(format!("the URL makes no request: {error}")))?;
    let mut bearer = HeaderValue::from_str(&format!("Bearer {}", options.token.expose()))
        .map_err(|_| bad("the token can't be sent in a header".to_owned()))?;
    bearer.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, bearer);
    Ok(request)
}

/// livekit pkg/service/rtcservice.go:239, utils.go:179.
fn query_v0(
    (auto_subscribe, data_tracks): (bool, bool),
    client_protocol: i32,
    resume: Option<&Resume<'_>>,
) -> String {
    let mut query = format!(
        "/rtc?protocol={PROTOCOL}&sdk=rust&version={}&auto_subscribe={}\
         &capabilities=CAP_PACKET_TRAILER",
        env!("CARGO_PKG_VERSION"),
        u8::from(auto_subscribe),
    );
    if data_tracks {
        query.push_str("&auto_subscribe_data_track=1");
    }
    if client_protocol > 0 {
        query.push_str(&format!("&client_protocol={client_protocol}"));
    }
    if let Some(Resume { sid, reason }) = resume {
        // The sid is the server's word: only what a sid is made of goes into a URL.
        let sid: String = sid.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let reason = *reason as i32;
        query.push_str(&format!("&reconnect=1&sid={sid}&reconnect_reason={reason}"));
    }
    query
}

/// livekit pkg/service/rtcservice.go:191: a message in the URL. It is compressed as the SDKs do it: an
/// offer has thousands of bytes, and proxies bound a URL at 8 kB.
fn query_v1(
    (auto_subscribe, data_tracks): (bool, bool),
    client_protocol: i32,
    offer: Option<&str>,
    resume: Option<&Resume<'_>>,
) -> String {
    let client_info = proto::ClientInfo {
        sdk: proto::client_info::Sdk::Rust as i32,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: PROTOCOL as i32,
        os: std::env::consts::OS.to_owned(),
        capabilities: vec![proto::client_info::Capability::CapPacketTrailer as i32],
        client_protocol,
        ..proto::ClientInfo::default()
    };
    let mut request = proto::JoinRequest {
        client_info: Some(client_info),
        connection_settings: Some(proto::ConnectionSettings {
            auto_subscribe,
            auto_subscribe_data_track: data_tracks.then_some(true),
            ..proto::ConnectionSettings::default()
        }),
        publisher_offer: offer.map(|sdp| proto::SessionDescription {
            r#type: "offer".to_owned(),
            sdp: sdp.to_owned(),
            id: FIRST_OFFER_ID,
            ..proto::SessionDescription::default()
        }),
        ..proto::JoinRequest::default()
    };
    if let Some(Resume { sid, reason }) = resume {
        request.reconnect = true;
        request.reconnect_reason = *reason as i32;
        (*sid).clone_into(&mut request.participant_sid);
    }
    let plain = request.encode_to_vec();
    // Writing to memory does not fail; uncompressed is right all the same.
    let (compression, join_request) = match gzip(&plain) {
        Ok(packed) => (proto::wrapped_join_request::Compression::Gzip, packed),
        Err(_) => (proto::wrapped_join_request::Compression::None, plain),
    };
    let wrapped = proto::WrappedJoinRequest { compression: compression as i32, join_request };
    format!("/rtc/v1?join_request={}", URL_SAFE.encode(wrapped.encode_to_vec()))
}

fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// What was given to dial with; else TCP to the server, or a tunnel to it.
async fn transport(
    options: &ConnectOptions,
    progress: &Progress,
) -> Result<Box<dyn Transport>, ConnectError> {
    if let Some(dial) = &options.dial {
        progress.reach(ConnectStep::Tcp);
        let dialled = dial.dial(&options.url).await;
        return dialled.map_err(|error| tcp_error(&options.url, &error));
    }
    let looked_up;
    let addresses = match (&options.addresses, &options.proxy) {
        (Some(addresses), _) => &addresses[..],
        (None, None) => {
            looked_up = options.url.resolve().await?;
            &looked_up
        }
        (None, Some(proxy)) => {
            looked_up = dial::lookup(proxy.host(), proxy.port()).await?;
            &looked_up
        }
    };
    progress.reach(ConnectStep::Tcp);
    let stream = dial::connect(addresses).await;
    let Some(proxy) = &options.proxy else {
        let stream = stream.map_err(|error| tcp_error(&options.url, &error))?;
        return Ok(Box::new(stream));
    };
    let mut stream = stream.map_err(|error| match tcp_error(&options.url, &error) {
        local @ ConnectError::LocalResources { .. } => local,
        _ => {
            let detail = error.to_string();
            ConnectError::Proxy { proxy: proxy.authority(), status: None, detail }
        }
    })?;
    progress.reach(ConnectStep::Proxy);
    dial::tunnel(proxy, &options.url, &mut stream).await?;
    Ok(Box::new(stream))
}

/// What this machine lacks when a connection can't be made. Linux errno: ENFILE, EMFILE, ENOMEM,
/// EADDRNOTAVAIL (no local port left), ENOBUFS.
pub(crate) const LOCAL_ERRORS: [i32; 5] = [23, 24, 12, 99, 105];

fn tcp_error(url: &ServerUrl, error: &io::Error) -> ConnectError {
    let address = url.authority();
    let detail = error.to_string();
    match error.raw_os_error() {
        _ if error.kind() == io::ErrorKind::ConnectionRefused => ConnectError::Refused { address },
        Some(code) if LOCAL_ERRORS.contains(&code) => {
            ConnectError::LocalResources { address, detail }
        }
        _ => ConnectError::Unreachable { address, detail },
    }
}

async fn connect_tls(
    options: &ConnectOptions,
    stream: Box<dyn Transport>,
) -> Result<MaybeTlsStream<Box<dyn Transport>>, ConnectError> {
    let tls = |detail: String| ConnectError::Tls { address: options.url.authority(), detail };
    let name = ServerName::try_from(options.url.host_bare())
        .map_err(|_| tls("the host name can't be in a certificate".to_owned()))?;
    TlsConnector::from(options.tls.config())
        .connect(name, stream)
        .await
        .map(MaybeTlsStream::Rustls)
        .map_err(|error| tls(error.to_string()))
}

fn handshake_error(url: &ServerUrl, error: WsError) -> ConnectError {
    let address = url.authority();
    match error {
        WsError::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            ConnectError::Http {
                status: response.status().as_u16(),
                body: text::foreign(&String::from_utf8_lossy(body), ERROR_BODY_CHARS_MAX),
            }
        }
        WsError::Io(error) => tcp_error(url, &error),
        error => {
            let detail = text::foreign(&error.to_string(), ERROR_BODY_CHARS_MAX);
            ConnectError::Protocol { address, detail }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::TlsSetup;
    use crate::error_kind::ErrorKind;
    use crate::session::{Quality, Role};
    use crate::token::Token;

    fn options(url: &str, role: Role) -> ConnectOptions {
        let url = ServerUrl::parse(url).unwrap();
        let (token, tls) = (Token::new("eyJSECRET").unwrap(), TlsSetup::new().unwrap());
        ConnectOptions::new(url, token, role, tls)
    }

    fn subscriber(subscription: Subscription) -> Role {
        Role::subscriber(subscription, Quality::Low)
    }

    #[test]
    fn the_token_is_in_the_header_and_nowhere_else() {
        let role = subscriber(Subscription::Manual { audio: true, video: true });
        let mut options = options("https://h.example/prefix/", role);
        for version in [SignalVersion::V1, SignalVersion::V0] {
            options.session.version = version;
            let request = request(&options, None).unwrap();
            assert_eq!(request.headers()[AUTHORIZATION], "Bearer eyJSECRET");
            assert!(!format!("{request:?}").contains("SECRET"));
        }
        assert_eq!(
            request(&options, None).unwrap().uri().to_string(),
            format!(
                "wss://h.example:443/prefix/rtc?protocol=17&sdk=rust&version={}&auto_subscribe=0\
                 &capabilities=CAP_PACKET_TRAILER",
                env!("CARGO_PKG_VERSION")
            ),
        );
    }

    #[test]
    fn who_answers_calls_says_by_either_version_what_it_understands() {
        let mut options = options("ws://h", Role { rpc: true, ..subscriber(Subscription::Auto) });
        options.session.version = SignalVersion::V1;
        let client = read(&request(&options, None).unwrap()).client_info.unwrap();
        assert_eq!(client.client_protocol, CLIENT_PROTOCOL);
        options.session.version = SignalVersion::V0;
        let joins = request(&options, None).unwrap();
        assert!(joins.uri().query().unwrap().ends_with("&client_protocol=2"), "{}", joins.uri());
    }

    #[test]
    fn a_resume_names_the_participant_and_why() {
        let reason = proto::ReconnectReason::RrSignalDisconnected;
        let resume = Resume { sid: "PA_x1&auto_subscribe=1", reason };
        let options = options("ws://h", Role::publisher(Vec::new()));
        let request = request(&options, Some(&resume)).unwrap();
        let query = request.uri().query().unwrap();
        assert!(query.ends_with("&reconnect=1&sid=PA_x1auto_subscribe1&reconnect_reason=1"));
    }

    /// What a server reads of a v1 request.
    fn read(request: &Request) -> proto::JoinRequest {
        let uri = request.uri();
        assert_eq!(uri.path(), "/rtc/v1");
        let encoded = uri.query().and_then(|query| query.strip_prefix("join_request=")).unwrap();
        let wrapped = URL_SAFE.decode(encoded).unwrap();
        let wrapped = proto::WrappedJoinRequest::decode(wrapped.as_slice()).unwrap();
        assert_eq!(wrapped.compression(), proto::wrapped_join_request::Compression::Gzip);
        let mut plain = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(wrapped.join_request.as_slice());
        io::Read::read_to_end(&mut decoder, &mut plain).unwrap();
        proto::JoinRequest::decode(plain.as_slice()).unwrap()
    }

    #[test]
    fn a_single_connection_joins_with_its_offer_and_resumes_without() {
        let mut options = options("ws://h", subscriber(Subscription::Auto));
        options.session.version = SignalVersion::V1;
        let sdp = "v=0\r\n".repeat(2_000);
        options.session.first_offer = Some(sdp.clone());
        let joins = request(&options, None).unwrap();
        assert!(joins.uri().query().unwrap().len() < 1_000, "proxies bound a URL");
        let join = read(&joins);
        assert!(join.connection_settings.unwrap().auto_subscribe && !join.reconnect);
        let offer = join.publisher_offer.unwrap();
        assert_eq!((offer.r#type.as_str(), offer.id, offer.sdp), ("offer", 1, sdp));
        let client = join.client_info.unwrap();
        assert_eq!((client.protocol, client.client_protocol), (PROTOCOL as i32, 0));
        let reason = proto::ReconnectReason::RrSignalDisconnected;
        let resume = Resume { sid: "PA_x1", reason };
        let resumes = read(&request(&options, Some(&resume)).unwrap());
        assert!(resumes.reconnect && resumes.publisher_offer.is_none());
        assert_eq!(
            (resumes.participant_sid.as_str(), resumes.reconnect_reason()),
            ("PA_x1", reason)
        );
    }

    #[test]
    fn our_own_limits_are_not_called_the_servers() {
        let url = ServerUrl::parse("ws://h").unwrap();
        let kind = |code| tcp_error(&url, &io::Error::from_raw_os_error(code)).kind();
        assert_eq!(kind(24), ErrorKind::LocalResources);
        assert_eq!(kind(99), ErrorKind::LocalResources);
        assert_eq!(kind(111), ErrorKind::Refused);
        assert_eq!(kind(113), ErrorKind::Unreachable);
    }
}
