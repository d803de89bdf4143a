//! The HTTP side: routes, CORS, errors.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::TokioIo;
use livekit_protocol::client_info::Capability;
use livekit_token::Claims;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use stampede_http::Limits;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use crate::auth::{AuthError, may_join};
use crate::hub::{Client, Connections, JoinRequest};
use crate::join_request::{self, JoinRequestError};
use crate::limits;
use crate::state::ServerState;
use crate::twirp;
use crate::ws::{self, Entry};

/// Largest body of a RoomService call; a larger one is refused with 413.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Connections that have not joined: so many are accepted at a time, however many have. As many participants
/// as one machine can carry may connect at once, all from one address, and take seconds to say what they
/// want; beyond that, what is idle for a second makes room for others.
pub(crate) const LIMITS: Limits =
    Limits { connections_max: 16_384, source_connections_max: 12_288 };

pub(crate) fn router(state: ServerState) -> Router {
    Router::new()
        .route("/", get(|| async { "OK" }))
        .route("/rtc", get(join::<JoinQuery>))
        .route("/rtc/validate", get(validate::<JoinQuery>))
        .route("/rtc/v1", get(join::<JoinQueryV1>))
        .route("/rtc/v1/validate", get(validate::<JoinQueryV1>))
        .route("/twirp/livekit.RoomService/{method}", post(room_service))
        .route("/debug/ledger", get(ledger))
        .fallback(|| async { (StatusCode::NOT_FOUND, "404 page not found\n") })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(cors))
        .with_state(state)
}

/// Lets pages of any origin call, as LiveKit does: access is a matter of tokens.
async fn cors(request: Request, next: Next) -> Response {
    let wanted = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    let any = HeaderValue::from_static("*");
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any.clone());
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.unwrap_or(any));
    response
}

/// Query of `/rtc` (v0). Booleans are `1` or `true`. With a `join_request` it is one of v1, which
/// LiveKit's Go SDK sends here.
#[derive(Debug, Default, Deserialize)]
struct JoinQuery {
    access_token: Option<String>,
    join_request: Option<String>,
    protocol: Option<String>,
    sdk: Option<String>,
    auto_subscribe: Option<String>,
    auto_subscribe_data_track: Option<String>,
    client_protocol: Option<String>,
    /// Names of `ClientInfo.Capability`, with commas between them.
    capabilities: Option<String>,
    adaptive_stream: Option<String>,
    subscriber_allow_pause: Option<String>,
    reconnect: Option<String>,
}

/// Query of `/rtc/v1`. Everything else is in the message.
#[derive(Debug, Default, Deserialize)]
struct JoinQueryV1 {
    access_token: Option<String>,
    join_request: Option<String>,
}

/// A query that says what a client wants.
trait Entering: DeserializeOwned + Send {
    fn entry(self, state: &ServerState, headers: &HeaderMap) -> Result<Entry, JoinError>;
}

fn is_true(value: Option<&String>, default: bool) -> bool {
    value.map_or(default, |value| matches!(value.as_str(), "1" | "true"))
}

/// What of a v0 query's list is known, as LiveKit reads it (`pkg/service/utils.go`, `ParseClientInfo`).
fn capabilities(names: &str) -> Vec<i32> {
    let known = names.split(',').filter_map(|name| Capability::from_str_name(name.trim()));
    known.map(|capability| capability as i32).collect()
}

/// Why nobody joins.
#[derive(Debug, thiserror::Error)]
enum JoinError {
    #[error(transparent)]
    NotAllowed(#[from] AuthError),
    #[error(transparent)]
    Unreadable(#[from] JoinRequestError),
    #[error(transparent)]
    TooLong(#[from] limits::TooLong),
}

impl JoinError {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotAllowed(error) => error.status(),
            Self::Unreadable(_) | Self::TooLong(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl IntoResponse for JoinError {
    fn into_response(self) -> Response {
        (self.status(), self.to_string()).into_response()
    }
}

fn join_claims(
    state: &ServerState,
    headers: &HeaderMap,
    query_token: Option<&String>,
) -> Result<Claims, JoinError> {
    let claims = state.auth().claims(headers, query_token.map(String::as_str))?;
    may_join(&claims)?;
    limits::check_claims(&claims)?;
    Ok(claims)
}

impl Entering for JoinQuery {
    fn entry(self, state: &ServerState, headers: &HeaderMap) -> Result<Entry, JoinError> {
        if self.join_request.as_ref().is_some_and(|request| !request.is_empty()) {
            let (access_token, join_request) = (self.access_token, self.join_request);
            return JoinQueryV1 { access_token, join_request }.entry(state, headers);
        }
        let claims = join_claims(state, headers, self.access_token.as_ref())?;
        if is_true(self.reconnect.as_ref(), false) {
            return Ok(Entry::Resume(claims));
        }
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
        let (protocol, client_protocol) = (number(self.protocol), number(self.client_protocol));
        Ok(Entry::Join(JoinRequest {
            claims,
            connections: Connections::Dual { protocol: protocol.unwrap_or_default() },
            auto_subscribe: is_true(self.auto_subscribe.as_ref(), true),
            auto_subscribe_data_track: is_true(self.auto_subscribe_data_track.as_ref(), false),
            client: Client {
                protocol: client_protocol.unwrap_or_default(),
                capabilities: self.capabilities.as_deref().map(capabilities).unwrap_or_default(),
            },
            adaptive_stream: is_true(self.adaptive_stream.as_ref(), false),
            allow_pause: is_true(self.subscriber_allow_pause.as_ref(), false),
            sdk: self.sdk.unwrap_or_default(),
        }))
    }
}

impl Entering for JoinQueryV1 {
    /// LiveKit `pkg/service/rtcservice.go`, `validateInternal`: what the client says of itself wins
    /// over its token, a resume brings nothing else, and what is not set is off.
    fn entry(self, state: &ServerState, headers: &HeaderMap) -> Result<Entry, JoinError> {
        let mut claims = join_claims(state, headers, self.access_token.as_ref())?;
        let request = join_request::unpack(self.join_request.as_deref())?;
        if request.reconnect {
            return Ok(Entry::Resume(claims));
        }
        if !request.metadata.is_empty() {
            claims.metadata = request.metadata;
        }
        claims.attributes.extend(request.participant_attributes);
        limits::check_claims(&claims)?;
        let settings = request.connection_settings.unwrap_or_default();
        let client = request.client_info.unwrap_or_default();
        let sdk = client.sdk().as_str_name().to_owned();
        Ok(Entry::Join(JoinRequest {
            claims,
            connections: Connections::Single {
                offer: request.publisher_offer,
                tracks: request.add_track_requests,
            },
            auto_subscribe: settings.auto_subscribe,
            auto_subscribe_data_track: settings.auto_subscribe_data_track(),
            client: Client { protocol: client.client_protocol, capabilities: client.capabilities },
            adaptive_stream: settings.adaptive_stream,
            allow_pause: settings.subscriber_allow_pause.unwrap_or(false),
            sdk,
        }))
    }
}

async fn validate<Q: Entering>(
    State(state): State<ServerState>,
    Query(query): Query<Q>,
    headers: HeaderMap,
) -> Response {
    match query.entry(&state, &headers) {
        Ok(_) => "success".into_response(),
        Err(error) => error.into_response(),
    }
}

/// Lets a client in whose request says what it wants.
async fn join<Q: Entering>(
    State(state): State<ServerState>,
    Query(query): Query<Q>,
    mut request: Request,
) -> Response {
    // As LiveKit answers a request that is none to become a websocket.
    let Ok(response) = create_response_with_body(&request, Body::empty) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let entry = match query.entry(&state, request.headers()) {
        Ok(entry) => entry,
        Err(error) => {
            state.hub().count_refused_join();
            return error.into_response();
        }
    };
    if state.hub().refuses() {
        return (StatusCode::SERVICE_UNAVAILABLE, "refused on purpose\n").into_response();
    }
    let upgrading = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrading.await {
            Ok(upgraded) => ws::run(TokioIo::new(upgraded), state, entry).await,
            Err(error) => tracing::debug!(%error, "a client left before it was a websocket"),
        }
    });
    response
}

async fn room_service(
    State(state): State<ServerState>,
    Path(method): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    twirp::call(&state, &method, &headers, &body)
}

/// The ledger, for a token that may list rooms.
async fn ledger(State(state): State<ServerState>, headers: HeaderMap) -> Response {
    let allowed = state.auth().claims(&headers, None).and_then(|claims| {
        claims.video.room_list.then_some(()).ok_or(AuthError::NotGranted("roomList"))
    });
    if let Err(error) = allowed {
        return (error.status(), error.to_string()).into_response();
    }
    let reporter = state.reporter().clone();
    // Waits for the workers' answers, which must not hold up signalling.
    let ledger = tokio::task::spawn_blocking(move || reporter.ledger()).await;
    let json = match ledger {
        Ok(Ok(ledger)) => serde_json::to_vec(&ledger).ok(),
        Ok(Err(error)) => {
            return (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response();
        }
        Err(_) => None,
    };
    match json {
        Some(json) => {
            ([(header::CONTENT_TYPE, "application/json")], Body::from(json)).into_response()
        }
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_by_their_names() {
        let names = "CAP_PACKET_TRAILER, CAP_COMPRESSION_DEFLATE_RAW,,CAP_OF_ANOTHER_DAY";
        let known = [Capability::CapPacketTrailer, Capability::CapCompressionDeflateRaw];
        assert_eq!(capabilities(names), known.map(|known| known as i32));
        assert!(capabilities("").is_empty());
    }
}
