//! The HTTP side: routes, CORS, errors.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use livekit_token::Claims;
use serde::Deserialize;

use crate::auth::{AuthError, may_join};
use crate::hub::JoinRequest;
use crate::state::ServerState;
use crate::twirp;
use crate::ws::{self, Entry};

/// Largest body of a RoomService call; a larger one is refused with 413.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Largest signalling message of a client (LiveKit `pkg/service/rtcservice.go`, 2 MiB).
const MESSAGE_BYTES_MAX: usize = 2 << 20;

/// Buffers of a WebSocket; the library's default of 128 KiB each is too much for thousands.
const SOCKET_BUFFER_BYTES: usize = 4 << 10;

pub(crate) fn router(state: ServerState) -> Router {
    Router::new()
        .route("/", get(|| async { "OK" }))
        .route("/rtc", get(join))
        .route("/rtc/validate", get(validate))
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

/// Query of `/rtc` (v0). Booleans are `1` or `true`.
#[derive(Debug, Default, Deserialize)]
struct JoinQuery {
    access_token: Option<String>,
    protocol: Option<String>,
    sdk: Option<String>,
    auto_subscribe: Option<String>,
    adaptive_stream: Option<String>,
    reconnect: Option<String>,
}

fn is_true(value: Option<&String>, default: bool) -> bool {
    value.map_or(default, |value| matches!(value.as_str(), "1" | "true"))
}

fn refuse(state: &ServerState, error: AuthError) -> Response {
    state.hub().count_refused_join();
    (error.status(), error.to_string()).into_response()
}

fn join_claims(
    state: &ServerState,
    headers: &HeaderMap,
    query: &JoinQuery,
) -> Result<Claims, AuthError> {
    let claims = state.auth().claims(headers, query.access_token.as_deref())?;
    may_join(&claims)?;
    Ok(claims)
}

async fn validate(
    State(state): State<ServerState>,
    Query(query): Query<JoinQuery>,
    headers: HeaderMap,
) -> Response {
    match join_claims(&state, &headers, &query) {
        Ok(_) => "success".into_response(),
        Err(error) => (error.status(), error.to_string()).into_response(),
    }
}

async fn join(
    State(state): State<ServerState>,
    Query(query): Query<JoinQuery>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    // As LiveKit answers a request that is none.
    let Ok(upgrade) = upgrade else { return StatusCode::NOT_FOUND.into_response() };
    let claims = match join_claims(&state, &headers, &query) {
        Ok(claims) => claims,
        Err(error) => return refuse(&state, error),
    };
    if state.hub().refuses() {
        return (StatusCode::SERVICE_UNAVAILABLE, "refused on purpose\n").into_response();
    }
    let request = JoinRequest {
        claims,
        protocol: query.protocol.and_then(|protocol| protocol.parse().ok()).unwrap_or_default(),
        auto_subscribe: is_true(query.auto_subscribe.as_ref(), true),
        adaptive_stream: is_true(query.adaptive_stream.as_ref(), false),
        sdk: query.sdk.unwrap_or_default(),
    };
    let reconnect = is_true(query.reconnect.as_ref(), false);
    upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .read_buffer_size(SOCKET_BUFFER_BYTES)
        .write_buffer_size(0)
        .on_upgrade(move |socket| async move {
            let entry =
                if reconnect { Entry::Resume(request.claims) } else { Entry::Join(request) };
            ws::run(socket, state, entry).await;
        })
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
