//! RoomService over Twirp, protobuf and JSON (<https://twitchtv.github.io/twirp/docs/spec_v7.html>).

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use livekit_protocol as proto;
use livekit_token::{Claims, VideoGrants};
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::hub::MoveError;
use crate::limits;
use crate::state::ServerState;

/// A Twirp error code with its HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    BadRoute,
    Malformed,
    Unauthenticated,
    NotFound,
    InvalidArgument,
    ResourceExhausted,
    Internal,
}

struct TwirpError(Code, String);

impl Code {
    fn name(self) -> &'static str {
        match self {
            Self::BadRoute => "bad_route",
            Self::Malformed => "malformed",
            Self::Unauthenticated => "unauthenticated",
            Self::NotFound => "not_found",
            Self::InvalidArgument => "invalid_argument",
            Self::ResourceExhausted => "resource_exhausted",
            Self::Internal => "internal",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::BadRoute | Self::NotFound => StatusCode::NOT_FOUND,
            Self::Malformed | Self::InvalidArgument => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for TwirpError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "code": self.0.name(), "msg": self.1 });
        let headers = [(header::CONTENT_TYPE, "application/json")];
        (self.0.status(), headers, body.to_string()).into_response()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

/// Answers one call.
pub(crate) fn call(
    state: &ServerState,
    method: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Response {
    answer(state, method, headers, body).unwrap_or_else(TwirpError::into_response)
}

fn answer(
    state: &ServerState,
    method: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, TwirpError> {
    let encoding = encoding(headers)?;
    let claims = state
        .auth()
        .claims(headers, None)
        .map_err(|error| TwirpError(Code::Unauthenticated, error.to_string()))?;
    let grants = &claims.video;
    match method {
        "CreateRoom" => {
            require(grants.room_create, "roomCreate")?;
            let request: proto::CreateRoomRequest = decode(encoding, body)?;
            if request.name.is_empty() {
                let message = "the room's name is empty".to_owned();
                return Err(TwirpError(Code::InvalidArgument, message));
            }
            let too_long =
                |error: limits::TooLong| TwirpError(Code::InvalidArgument, error.to_string());
            let (name, metadata) = (request.name.len(), request.metadata.len());
            limits::check("a room name", name, limits::ROOM_NAME_BYTES_MAX).map_err(too_long)?;
            limits::check("metadata", metadata, limits::METADATA_BYTES_MAX).map_err(too_long)?;
            let room = state.hub().create_room(&request).ok_or_else(|| {
                let message = format!("there are {} rooms, which is most", limits::ROOMS_MAX);
                TwirpError(Code::ResourceExhausted, message)
            })?;
            encode(encoding, &room)
        }
        "ListRooms" => {
            require(grants.room_list, "roomList")?;
            let request: proto::ListRoomsRequest = decode(encoding, body)?;
            let rooms = state.hub().list_rooms(&request.names);
            encode(encoding, &proto::ListRoomsResponse { rooms })
        }
        "DeleteRoom" => {
            require(grants.room_create, "roomCreate")?;
            let request: proto::DeleteRoomRequest = decode(encoding, body)?;
            if !state.hub().delete_room(&request.room) {
                return Err(TwirpError(Code::NotFound, "there is no such room".to_owned()));
            }
            encode(encoding, &proto::DeleteRoomResponse {})
        }
        "ListParticipants" => {
            let request: proto::ListParticipantsRequest = decode(encoding, body)?;
            require_admin(grants, &request.room)?;
            let participants = state.hub().list_participants(&request.room);
            encode(encoding, &proto::ListParticipantsResponse { participants })
        }
        "RemoveParticipant" => {
            let request: proto::RoomParticipantIdentity = decode(encoding, body)?;
            require_admin(grants, &request.room)?;
            if !state.hub().remove_participant(&request.room, &request.identity) {
                return Err(TwirpError(Code::NotFound, "there is no such participant".to_owned()));
            }
            encode(encoding, &proto::RemoveParticipantResponse::default())
        }
        "MoveParticipant" => {
            let request: proto::MoveParticipantRequest = decode(encoding, body)?;
            require_admin(grants, &request.room)?;
            let token = |claims: &Claims| state.auth().refreshed(claims);
            state.hub().move_participant(&request, token).map_err(|error| {
                let code = match error {
                    MoveError::UnknownParticipant => Code::NotFound,
                    MoveError::NoOtherRoom => Code::InvalidArgument,
                    MoveError::Full => Code::ResourceExhausted,
                };
                TwirpError(code, error.to_string())
            })?;
            encode(encoding, &proto::MoveParticipantResponse {})
        }
        _ => Err(TwirpError(Code::BadRoute, format!("no method {method} here"))),
    }
}

fn require(granted: bool, grant: &str) -> Result<(), TwirpError> {
    if granted {
        return Ok(());
    }
    Err(TwirpError(Code::Unauthenticated, format!("the token does not grant {grant}")))
}

fn require_admin(grants: &VideoGrants, room: &str) -> Result<(), TwirpError> {
    require(grants.room_admin && grants.room == room, "roomAdmin of this room")
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, TwirpError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match kind {
        "application/protobuf" => Ok(Encoding::Protobuf),
        "application/json" => Ok(Encoding::Json),
        _ => {
            let message = "Content-Type must be application/protobuf or application/json";
            Err(TwirpError(Code::BadRoute, message.to_owned()))
        }
    }
}

fn decode<T: Message + Default + DeserializeOwned>(
    encoding: Encoding,
    body: &[u8],
) -> Result<T, TwirpError> {
    let malformed = |error: String| TwirpError(Code::Malformed, error);
    match encoding {
        Encoding::Protobuf => T::decode(body).map_err(|error| malformed(error.to_string())),
        Encoding::Json => {
            serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))
        }
    }
}

fn encode<T: Message + Serialize>(encoding: Encoding, message: &T) -> Result<Response, TwirpError> {
    let (kind, body) = match encoding {
        Encoding::Protobuf => ("application/protobuf", message.encode_to_vec()),
        Encoding::Json => {
            let body = serde_json::to_vec(message)
                .map_err(|error| TwirpError(Code::Internal, error.to_string()))?;
            ("application/json", body)
        }
    };
    Ok(([(header::CONTENT_TYPE, kind)], Body::from(body)).into_response())
}
