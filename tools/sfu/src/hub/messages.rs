//! Building of protocol messages.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use livekit_protocol as proto;
use livekit_token::Claims;
use prost::Message as _;
use proto::signal_response::Message;
use stampede_core::MediaKind;

use crate::IceServer;

/// What the SFU calls itself: the livekit-server that it is like, because clients compare versions before
/// they call one another (client-sdk-js src/room/rpc/client), and behind it its own.
const SERVER_VERSION: &str = concat!("1.13.5+stampede.", env!("CARGO_PKG_VERSION"));

/// The signalling protocol it speaks (LiveKit `pkg/rtc/types/protocol_version.go`): the last one
/// before packet trailers, for it would not strip them for subscribers that don't know them.
const PROTOCOL_VERSION: i32 = 16;

/// Seconds between a client's pings, and without one until it gives up.
const PING_INTERVAL_S: i32 = 5;
const PING_TIMEOUT_S: i32 = 15;

/// LiveKit's defaults for a room (`pkg/config/config.go`).
const EMPTY_TIMEOUT_S: u32 = 300;
const DEPARTURE_TIMEOUT_S: u32 = 20;

/// Codecs of one track: its own and the backup. What is announced beyond them is left out.
const CODECS_MAX: usize = 2;

const CODECS: [&str; 6] =
    ["audio/opus", "video/VP8", "video/H264", "video/VP9", "video/AV1", "video/H265"];

/// TURN servers that clients are told of, and whether they are to use nothing else.
#[derive(Debug, Clone, Default)]
pub(crate) struct Relaying {
    pub(crate) servers: Vec<IceServer>,
    pub(crate) force: bool,
}

/// One binary frame.
pub(crate) fn frame(message: Message) -> Bytes {
    proto::SignalResponse { message: Some(message) }.encode_to_vec().into()
}

pub(super) fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn codecs() -> Vec<proto::Codec> {
    CODECS.map(|mime| proto::Codec { mime: mime.to_owned(), fmtp_line: String::new() }).to_vec()
}

pub(super) fn room_info(sid: String, name: &str) -> proto::Room {
    let now = unix_ms();
    proto::Room {
        sid,
        name: name.to_owned(),
        empty_timeout: EMPTY_TIMEOUT_S,
        departure_timeout: DEPARTURE_TIMEOUT_S,
        creation_time: now / 1_000,
        creation_time_ms: now,
        enabled_codecs: codecs(),
        ..proto::Room::default()
    }
}

pub(super) fn participant_info(claims: &Claims, sid: &str) -> proto::ParticipantInfo {
    let grants = &claims.video;
    let now = unix_ms();
    proto::ParticipantInfo {
        sid: sid.to_owned(),
        identity: claims.sub.clone(),
        name: claims.name.clone(),
        metadata: claims.metadata.clone(),
        attributes: claims.attributes.clone(),
        state: proto::participant_info::State::Joined as i32,
        joined_at: now / 1_000,
        joined_at_ms: now,
        permission: Some(proto::ParticipantPermission {
            can_subscribe: grants.can_subscribe.unwrap_or(true),
            can_publish: grants.can_publish.unwrap_or(true),
            can_publish_data: grants.can_publish_data.unwrap_or(true),
            hidden: grants.hidden,
            can_update_metadata: grants.can_update_own_metadata.unwrap_or(false),
            ..proto::ParticipantPermission::default()
        }),
        kind: participant_kind(&claims.kind) as i32,
        ..proto::ParticipantInfo::default()
    }
}

/// Each of the capabilities that there are, once: others are told of them.
pub(super) fn known_capabilities(mut named: Vec<i32>) -> Vec<i32> {
    named.retain(|&capability| proto::client_info::Capability::try_from(capability).is_ok());
    named.sort_unstable();
    named.dedup();
    named.shrink_to_fit();
    named
}

fn participant_kind(kind: &str) -> proto::participant_info::Kind {
    use proto::participant_info::Kind;
    match kind {
        "ingress" => Kind::Ingress,
        "egress" => Kind::Egress,
        "sip" => Kind::Sip,
        "agent" => Kind::Agent,
        _ => Kind::Standard,
    }
}

fn server_info() -> proto::ServerInfo {
    proto::ServerInfo {
        edition: proto::server_info::Edition::Standard as i32,
        version: SERVER_VERSION.to_owned(),
        protocol: PROTOCOL_VERSION,
        node_id: "embedded".to_owned(),
        ..proto::ServerInfo::default()
    }
}

/// What is the same for everybody who joins.
pub(super) fn join_response(relaying: &Relaying) -> proto::JoinResponse {
    proto::JoinResponse {
        ice_servers: ice_servers(relaying),
        client_configuration: client_configuration(relaying),
        server_version: SERVER_VERSION.to_owned(),
        ping_interval: PING_INTERVAL_S,
        ping_timeout: PING_TIMEOUT_S,
        server_info: Some(server_info()),
        enabled_publish_codecs: codecs(),
        ..proto::JoinResponse::default()
    }
}

fn ice_servers(relaying: &Relaying) -> Vec<proto::IceServer> {
    let server = |server: &IceServer| proto::IceServer {
        urls: server.urls.clone(),
        username: server.username.clone(),
        credential: server.credential.clone(),
    };
    relaying.servers.iter().map(server).collect()
}

fn client_configuration(relaying: &Relaying) -> Option<proto::ClientConfiguration> {
    let force_relay = proto::ClientConfigSetting::Enabled as i32;
    let configuration = proto::ClientConfiguration { force_relay, ..Default::default() };
    relaying.force.then_some(configuration)
}

/// What a client that resumes is told first. Reliable data is not numbered.
pub(super) fn reconnect_response(relaying: &Relaying) -> proto::ReconnectResponse {
    proto::ReconnectResponse {
        ice_servers: ice_servers(relaying),
        client_configuration: client_configuration(relaying),
        server_info: Some(server_info()),
        ..proto::ReconnectResponse::default()
    }
}

/// The client is to resume: its media has lost its way (LiveKit `pkg/rtc/participant.go`,
/// `onAnyTransportFailed`).
pub(super) fn leave_to_resume() -> proto::LeaveRequest {
    proto::LeaveRequest {
        can_reconnect: false,
        reason: proto::DisconnectReason::ConnectionTimeout as i32,
        action: proto::leave_request::Action::Resume as i32,
        regions: None,
    }
}

pub(crate) fn leave(reason: proto::DisconnectReason) -> proto::LeaveRequest {
    use proto::DisconnectReason as Reason;
    use proto::leave_request::Action;
    let action = match reason {
        Reason::StateMismatch => Action::Reconnect,
        _ => Action::Disconnect,
    };
    proto::LeaveRequest {
        can_reconnect: action == Action::Reconnect,
        reason: reason as i32,
        action: action as i32,
        regions: None,
    }
}

pub(super) fn update(participants: Vec<proto::ParticipantInfo>) -> proto::ParticipantUpdate {
    proto::ParticipantUpdate { participants }
}

pub(super) fn description(
    kind: &str,
    id: u32,
    sdp: String,
    mid_to_track_id: HashMap<String, String>,
) -> proto::SessionDescription {
    proto::SessionDescription { r#type: kind.to_owned(), sdp, id, mid_to_track_id }
}

/// The SFU's only candidate, as trickle.
pub(super) fn trickle(
    address: std::net::SocketAddr,
    target: proto::SignalTarget,
) -> proto::TrickleRequest {
    let candidate =
        format!("candidate:1 1 udp 2130706431 {} {} typ host", address.ip(), address.port());
    let init = serde_json::json!({
        "candidate": candidate, "sdpMid": "", "sdpMLineIndex": 0, "usernameFragment": null,
    });
    proto::TrickleRequest { candidate_init: init.to_string(), target: target as i32, r#final: true }
}

/// What a client announced with add_track, as others will see it. The deprecated fields are still
/// what older clients read, and what LiveKit fills.
#[allow(deprecated)]
pub(super) fn track_info(request: &proto::AddTrackRequest, sid: String) -> proto::TrackInfo {
    let mime_type = request
        .simulcast_codecs
        .first()
        .map(|codec| mime_type(&codec.codec, request.r#type))
        .unwrap_or_default();
    let mut codecs: Vec<proto::SimulcastCodecInfo> = Vec::new();
    for codec in &request.simulcast_codecs {
        if codecs.len() == CODECS_MAX {
            break;
        }
        let mime_type = self::mime_type(&codec.codec, request.r#type);
        if !codecs.iter().any(|known| known.mime_type == mime_type) {
            codecs.push(proto::SimulcastCodecInfo {
                mime_type,
                cid: codec.cid.clone(),
                layers: codec.layers.clone(),
                video_layer_mode: codec.video_layer_mode,
                ..proto::SimulcastCodecInfo::default()
            });
        }
    }
    proto::TrackInfo {
        sid,
        r#type: request.r#type,
        name: request.name.clone(),
        muted: request.muted,
        width: request.width,
        height: request.height,
        simulcast: request.layers.len() > 1,
        disable_dtx: request.disable_dtx,
        source: request.source,
        layers: request.layers.clone(),
        mime_type,
        codecs,
        stereo: request.stereo,
        disable_red: request.disable_red,
        encryption: request.encryption,
        stream: request.stream.clone(),
        audio_features: request.audio_features.clone(),
        backup_codec_policy: request.backup_codec_policy,
        ..proto::TrackInfo::default()
    }
}

/// Names in a track's codecs those that are announced later (LiveKit `pkg/rtc/mediatrackreceiver.go`,
/// `UpdateCodecInfo`); what was not announced with the track is left out.
pub(super) fn name_codecs(info: &mut proto::TrackInfo, codecs: &[proto::SimulcastCodec]) {
    let kind = info.r#type;
    for codec in codecs {
        let mime_type = mime_type(&codec.codec, kind);
        let known = info.codecs.iter_mut().find(|known| known.mime_type == mime_type);
        let Some(known) = known else { continue };
        known.cid.clone_from(&codec.cid);
        if !codec.layers.is_empty() {
            known.layers.clone_from(&codec.layers);
        }
    }
}

/// A track as it is in its second codec, with the layers that it has in that.
#[allow(deprecated)] // `layers`: where those of the first codec are
pub(super) fn in_second_codec(mut info: proto::TrackInfo) -> proto::TrackInfo {
    if let Some(codec) = info.codecs.get(1) {
        info.mime_type.clone_from(&codec.mime_type);
        if !codec.layers.is_empty() {
            info.layers.clone_from(&codec.layers);
        }
    }
    info
}

fn mime_type(codec: &str, kind: i32) -> String {
    if codec.is_empty() || codec.contains('/') {
        return codec.to_owned();
    }
    let known = CODECS.iter().find(|mime| mime.ends_with(&format!("/{}", codec.to_uppercase())));
    match known {
        Some(mime) => (*mime).to_owned(),
        None if kind == proto::TrackType::Audio as i32 => format!("audio/{codec}"),
        None => format!("video/{codec}"),
    }
}

/// The kind of a track, of which there are two: nothing else is carried as one.
pub(super) fn media_kind(kind: i32) -> Option<MediaKind> {
    match proto::TrackType::try_from(kind) {
        Ok(proto::TrackType::Audio) => Some(MediaKind::Audio),
        Ok(proto::TrackType::Video) => Some(MediaKind::Video),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_track_has_two_codecs_however_many_are_announced() {
        let codec =
            |codec: &str| proto::SimulcastCodec { codec: codec.into(), ..Default::default() };
        let first = ["vp9", "vp9", "video/VP9", "vp8"].map(codec);
        let more = (0..50_000).map(|n| codec(&format!("x{n}")));
        let request = proto::AddTrackRequest {
            r#type: proto::TrackType::Video as i32,
            simulcast_codecs: first.into_iter().chain(more).collect(),
            ..proto::AddTrackRequest::default()
        };
        let info = track_info(&request, "TR_V".to_owned());
        let codecs: Vec<_> = info.codecs.iter().map(|codec| codec.mime_type.as_str()).collect();
        assert_eq!(codecs, ["video/VP9", "video/VP8"]);
    }
}
