//! RoomService: create, list and delete rooms, list participants (Twirp over HTTP,
//! livekit pkg/service/roomservice.go).
//!
//! livekit-api's client is not used because it loses the HTTP status where the server answers in
//! plain text, and livekit-server does so for a bad secret (401) while repeating the whole token;
//! it also drops a path prefix of the URL, takes no private CA, and brings a second TLS provider.

use std::time::Duration;

use livekit_protocol as proto;
use livekit_token::VideoGrants;
use prost::Message;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use thiserror::Error;

use crate::connection::{ERROR_BODY_CHARS_MAX, TlsSetup};
use crate::error_kind::ErrorKind;
use crate::proxy::Proxies;
use crate::server_url::ServerUrl;
use crate::text;
use crate::token::{ApiCredentials, TokenError};

/// Longest answer read: 10,000 participants with tracks. A longer one is an error.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Longest wait for one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Lifetime of the token signed for each call; the server allows a minute of clock skew.
const CALL_TOKEN_TTL: Duration = Duration::from_secs(600);

/// Why a RoomService call failed. Texts never hold a token or the secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RoomError {
    /// 401 or 403: wrong key, wrong secret, or an API key without the right.
    #[error("the server refused the API key or secret (HTTP {status}: {detail})")]
    Unauthorized {
        /// 401 or 403.
        status: u16,
        /// What the server said.
        detail: String,
    },
    /// There is no such room.
    #[error("no such room: {detail}")]
    NotFound {
        /// What the server said.
        detail: String,
    },
    /// No answer.
    #[error("{address}: can't reach the server: {detail}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What went wrong underneath.
        detail: String,
    },
    /// No answer in time.
    #[error("{address}: no answer within {timeout:?}")]
    Timeout {
        /// Host and port.
        address: String,
        /// The limit.
        timeout: Duration,
    },
    /// The proxy on the way wants a user and a password (407).
    #[error("the proxy on the way to {address} wants a user and a password: {detail}")]
    ProxyUnauthorized {
        /// Host and port of the server.
        address: String,
        /// What the proxy said.
        detail: String,
    },
    /// The server answered with an error of its own: it refuses this call, or fails (5xx).
    #[error("{}", server_text(*status, code, detail))]
    Server {
        /// HTTP status.
        status: u16,
        /// Twirp error code, such as `resource_exhausted`; empty if it gave none.
        code: String,
        /// What the server said.
        detail: String,
    },
    /// The answer is not RoomService's.
    #[error("{address}: no LiveKit RoomService there: {detail}")]
    NotLiveKit {
        /// Host and port.
        address: String,
        /// What came instead.
        detail: String,
    },
    /// The call could not be made.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The HTTP client could not be made.
    #[error("the HTTP client can't be set up: {detail}")]
    Client {
        /// What was wrong.
        detail: String,
    },
}

impl RoomError {
    /// What it is counted by.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unauthorized { .. } => ErrorKind::Unauthorized,
            Self::NotFound { .. } => ErrorKind::RoomNotFound,
            Self::Unreachable { .. } => ErrorKind::Unreachable,
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::ProxyUnauthorized { .. } => ErrorKind::Proxy,
            Self::Server { status, .. } => ErrorKind::http(*status),
            Self::NotLiveKit { .. } => ErrorKind::NotLiveKit,
            Self::Token(_) => ErrorKind::BadCredentials,
            Self::Client { .. } => ErrorKind::Client,
        }
    }
}

/// What a new room is made with. Zero leaves the server's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RoomOptions {
    /// Keep an empty, never joined room this long.
    pub empty_timeout_s: u32,
    /// Keep the room this long after the last one left.
    pub departure_timeout_s: u32,
    /// Most participants.
    pub participants_max: u32,
}

/// A room as the server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomInfo {
    /// Room sid (`RM_…`).
    pub sid: String,
    /// Name.
    pub name: String,
    /// Participants, hidden ones excluded; updated by the server every few seconds.
    pub participants: u32,
    /// Publishers among them.
    pub publishers: u32,
}

impl From<proto::Room> for RoomInfo {
    fn from(room: proto::Room) -> Self {
        Self {
            sid: room.sid,
            name: room.name,
            participants: room.num_participants,
            publishers: room.num_publishers,
        }
    }
}

/// A participant as the server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParticipantEntry {
    /// Participant sid (`PA_…`).
    pub sid: String,
    /// Identity.
    pub identity: String,
    /// ICE and DTLS are up.
    pub active: bool,
    /// Sids of published tracks.
    pub track_sids: Vec<String>,
}

/// A client of one server's RoomService. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RoomClient {
    url: ServerUrl,
    credentials: ApiCredentials,
    http: reqwest::Client,
    /// The proxy on the way, for errors.
    proxy: Option<String>,
}

impl RoomClient {
    /// A client for `url`, which is reached as `proxies` say.
    ///
    /// # Errors
    /// [`RoomError::Client`].
    pub fn new(
        url: ServerUrl,
        credentials: ApiCredentials,
        tls: &TlsSetup,
        proxies: &Proxies,
    ) -> Result<Self, RoomError> {
        let http = tls
            .http_client(proxies)
            .timeout(CALL_TIMEOUT)
            .build()
            .map_err(|error| RoomError::Client { detail: chain(&error) })?;
        let proxy = proxies.of(&url).ok().flatten().map(|proxy| proxy.authority());
        Ok(Self { url, credentials, http, proxy })
    }

    /// Creates a room. One that exists already is fine: it is given back as it is.
    ///
    /// # Errors
    /// [`RoomError`].
    pub async fn create(&self, name: &str, options: RoomOptions) -> Result<RoomInfo, RoomError> {
        let request = proto::CreateRoomRequest {
            name: name.to_owned(),
            empty_timeout: options.empty_timeout_s,
            departure_timeout: options.departure_timeout_s,
            max_participants: options.participants_max,
            ..proto::CreateRoomRequest::default()
        };
        let grants = VideoGrants { room_create: true, ..VideoGrants::default() };
        let room: proto::Room = self.call("CreateRoom", &request, grants).await?;
        Ok(room.into())
    }

    /// Lists all rooms.
    ///
    /// # Errors
    /// [`RoomError`].
    pub async fn list(&self) -> Result<Vec<RoomInfo>, RoomError> {
        let request = proto::ListRoomsRequest::default();
        let grants = VideoGrants { room_list: true, ..VideoGrants::default() };
        let list: proto::ListRoomsResponse = self.call("ListRooms", &request, grants).await?;
        Ok(list.rooms.into_iter().map(RoomInfo::from).collect())
    }

    /// Deletes a room, and with it every participant's session.
    ///
    /// # Errors
    /// [`RoomError::NotFound`] if there is none, and the others.
    pub async fn delete(&self, name: &str) -> Result<(), RoomError> {
        let request = proto::DeleteRoomRequest { room: name.to_owned() };
        let grants = VideoGrants { room_create: true, ..VideoGrants::default() };
        let _: proto::DeleteRoomResponse = self.call("DeleteRoom", &request, grants).await?;
        Ok(())
    }

    /// Moves a participant to another room, with its connections and tracks. LiveKit's cloud can;
    /// livekit-server 1.13.5 has no such thing.
    ///
    /// # Errors
    /// [`RoomError::NotFound`] if there is no such room or participant, and the others.
    pub async fn move_participant(
        &self,
        room: &str,
        identity: &str,
        destination_room: &str,
    ) -> Result<(), RoomError> {
        let request = proto::MoveParticipantRequest {
            room: room.to_owned(),
            identity: identity.to_owned(),
            destination_room: destination_room.to_owned(),
        };
        let grants = VideoGrants {
            room_admin: true,
            room: room.to_owned(),
            destination_room: destination_room.to_owned(),
            ..VideoGrants::default()
        };
        let _: proto::MoveParticipantResponse =
            self.call("MoveParticipant", &request, grants).await?;
        Ok(())
    }

    /// Lists a room's participants.
    ///
    /// # Errors
    /// [`RoomError::NotFound`] if there is no such room (some servers give an empty list), and the
    /// others.
    pub async fn participants(&self, room: &str) -> Result<Vec<ParticipantEntry>, RoomError> {
        let request = proto::ListParticipantsRequest { room: room.to_owned() };
        let grants =
            VideoGrants { room_admin: true, room: room.to_owned(), ..VideoGrants::default() };
        let list: proto::ListParticipantsResponse =
            self.call("ListParticipants", &request, grants).await?;
        let active = proto::participant_info::State::Active as i32;
        let entry = |info: proto::ParticipantInfo| ParticipantEntry {
            active: info.state == active,
            track_sids: info.tracks.into_iter().map(|track| track.sid).collect(),
            sid: info.sid,
            identity: info.identity,
        };
        Ok(list.participants.into_iter().map(entry).collect())
    }

    async fn call<Q: Message, R: Message + Default>(
        &self,
        method: &str,
        request: &Q,
        grants: VideoGrants,
    ) -> Result<R, RoomError> {
        let token = self.credentials.sign(grants, "", CALL_TOKEN_TTL)?;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
            .map_err(|_| TokenError::NotAToken)?;
        bearer.set_sensitive(true);
        let response = self
            .http
            .post(self.url.http(&format!("/twirp/livekit.RoomService/{method}")))
            .header(CONTENT_TYPE, "application/protobuf")
            .header(AUTHORIZATION, bearer)
            .body(request.encode_to_vec())
            .send()
            .await
            .map_err(|error| self.transport_error(&error))?;
        let status = response.status();
        let body = self.body(response).await?;
        if status != StatusCode::OK {
            return Err(self.refusal(status, &body));
        }
        R::decode(body.as_slice())
            .map_err(|error| self.not_livekit(format!("unreadable answer: {error}")))
    }

    async fn body(&self, mut response: reqwest::Response) -> Result<Vec<u8>, RoomError> {
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(None) => return Ok(body),
                Ok(Some(part)) if body.len() + part.len() <= ANSWER_BYTES_MAX => {
                    body.extend_from_slice(&part);
                }
                Ok(Some(_)) => {
                    let detail = format!("its answer is longer than {ANSWER_BYTES_MAX} bytes");
                    return Err(self.not_livekit(detail));
                }
                Err(error) => return Err(self.transport_error(&error)),
            }
        }
    }

    fn transport_error(&self, error: &reqwest::Error) -> RoomError {
        let address = self.url.authority();
        if error.is_timeout() {
            RoomError::Timeout { address, timeout: CALL_TIMEOUT }
        } else {
            let through = self.proxy.as_ref().map(|proxy| format!("through the proxy {proxy}: "));
            let detail = through.unwrap_or_default() + &chain(error);
            RoomError::Unreachable { address, detail }
        }
    }

    fn not_livekit(&self, detail: String) -> RoomError {
        RoomError::NotLiveKit { address: self.url.authority(), detail }
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> RoomError {
        /// Twirp's error body (twitchtv.github.io/twirp, "Error serialization").
        #[derive(serde::Deserialize)]
        struct Twirp {
            code: String,
            #[serde(default)]
            msg: String,
        }
        let twirp: Option<Twirp> = serde_json::from_slice(body).ok();
        let shown = match &twirp {
            Some(twirp) => text::foreign(&twirp.msg, ERROR_BODY_CHARS_MAX),
            None => text::foreign(&String::from_utf8_lossy(body), ERROR_BODY_CHARS_MAX),
        };
        let code = twirp.map(|twirp| text::foreign(&twirp.code, 40)).unwrap_or_default();
        let number = status.as_u16();
        match (number, code.as_str()) {
            (401 | 403, _) => RoomError::Unauthorized { status: number, detail: shown },
            (404, "not_found") => RoomError::NotFound { detail: shown },
            (407, _) => {
                RoomError::ProxyUnauthorized { address: self.url.authority(), detail: shown }
            }
            // Also in the plain text of whatever stands before LiveKit.
            (500.., _) => RoomError::Server { status: number, code, detail: shown },
            (_, "") | (404, _) => self.not_livekit(format!("HTTP {number} {shown}")),
            _ => RoomError::Server { status: number, code, detail: shown },
        }
    }
}

fn server_text(status: u16, code: &str, detail: &str) -> String {
    let what = if status >= 500 { "the server failed" } else { "the server refused" };
    let said = [code, detail].into_iter().filter(|part| !part.is_empty());
    let said: String = said.map(|part| format!(": {part}")).collect();
    format!("{what}{said} (HTTP {status})")
}

/// An error and its causes on one line; reqwest's own text says only "error sending request".
fn chain(error: &dyn std::error::Error) -> String {
    let mut parts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        let part = cause.to_string();
        if !parts.iter().any(|before| before.contains(&part)) {
            parts.push(part);
        }
        source = cause.source();
    }
    text::foreign(&parts.join(": "), ERROR_BODY_CHARS_MAX * 2)
}
