//! A participant's session, and whatever a server sends to it.

use std::time::{Duration, Instant};

use bytes::Bytes as Message;
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_response::Message as Response;
use stampede_sdp::MediaKind;
use stampede_signaling::session::flood::EVENTS_BURST_MAX;
use stampede_signaling::session::{
    DataTracks, LocalLayer, LocalTrack, MediaCommand, MediaInput, Output, Quality, Receives, Role,
    Session, SessionOptions, SignalVersion, Subscription, TrackSource,
};

use crate::bytes::{Bytes, pieces};
use crate::sdp::OFFERS;

const STEPS_MAX: usize = 256;

fn track(cid: &str, kind: MediaKind) -> LocalTrack {
    let layer = |quality| LocalLayer { quality, width: 640, height: 360, bitrate_bps: 500_000 };
    let video = kind == MediaKind::Video;
    LocalTrack {
        cid: cid.into(),
        name: cid.into(),
        kind,
        source: if video { TrackSource::Camera } else { TrackSource::Microphone },
        codec: if video { "vp8" } else { "opus" }.into(),
        width: 640,
        height: 360,
        layers: if video { vec![layer(Quality::Low), layer(Quality::High)] } else { Vec::new() },
        red: !video,
        dtx: !video,
        layers_in_one_stream: false,
        backup: None,
    }
}

/// What the first byte says of who it is.
fn options(how: u8) -> SessionOptions {
    let subscription = match how & 3 {
        0 => Subscription::Manual { audio: true, video: true },
        _ => Subscription::Auto,
    };
    let receives = (how & 3 != 3).then_some(Receives { subscription, quality: Quality::Low });
    let tracks = match how & 4 == 4 || receives.is_none() {
        true => vec![track("camera", MediaKind::Video), track("microphone", MediaKind::Audio)],
        false => Vec::new(),
    };
    let data = how & 8 == 8;
    let data_tracks_of_others = if data { DataTracks::Manual } else { DataTracks::None };
    let role = Role { receives, tracks, data, data_track: data, rpc: data, data_tracks_of_others };
    let mut options = SessionOptions::new(role);
    options.version = if how & 16 == 16 { SignalVersion::V1 } else { SignalVersion::V0 };
    options.watch_others = how & 32 == 32;
    options.meet_others = how & 64 == 64;
    options
}

/// Messages of a server, in the middle of which time passes and the media plane does what it is asked.
/// Each is counted; none makes more of it than bounds say, and afterwards hardly anything is left.
pub(crate) fn run(input: &[u8]) {
    let (len, mut input) = (input.len(), Bytes::of(input));
    let mut now = Instant::now();
    let mut session = Session::new(options(input.u8()), now);
    let mut fed = 0;
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        match input.below(8) {
            0 => {
                now += Duration::from_millis(u64::from(input.u16()));
                session.handle_timeout(now);
            }
            1 => session.resume(now),
            _ => {
                // Of those that ended nothing is looked at any more.
                fed += u64::from(!session.is_ended());
                let message = Message::copy_from_slice(input.piece());
                session.handle_message(now, &message);
            }
        }
        let mut outputs = 0_u32;
        while let Some(output) = session.poll_output() {
            outputs += 1;
            match output {
                Output::Media(MediaCommand::RemoteOffer { id, .. }) => {
                    let sdp = "v=0\r\n".to_owned();
                    session.handle_media(MediaInput::LocalAnswer { offer_id: id, sdp });
                }
                Output::Media(
                    MediaCommand::CreateOffer { id, .. } | MediaCommand::RestartIce { id },
                ) => {
                    let sdp = "v=0\r\n".to_owned();
                    session.handle_media(MediaInput::LocalOffer { id, sdp });
                }
                Output::Send(request) => drop(request.encode_to_vec()),
                Output::Media(_) | Output::Event(_) => {}
            }
        }
        assert!(outputs <= 2 * EVENTS_BURST_MAX, "{outputs} things come of one message");
        if let Some(at) = session.next_timeout() {
            assert!(at > now || !session.is_ended());
        }
    }
    let counted = session.counters();
    let all = counted.messages + counted.unneeded + counted.malformed;
    assert!(all >= fed || session.is_flooded(), "{counted:?} of {fed}");
    // One message may hold several things that are malformed, of two bytes each at least.
    assert!(all <= 2 * fed + len as u64, "{counted:?} of {fed}");
}

fn response(message: Response) -> Vec<u8> {
    proto::SignalResponse { message: Some(message) }.encode_to_vec()
}

fn participant(sid: &str, tracks: usize) -> proto::ParticipantInfo {
    proto::ParticipantInfo {
        sid: sid.into(),
        identity: format!("identity of {sid}"),
        state: proto::participant_info::State::Active as i32,
        joined_at: 1_795_893_015,
        permission: Some(proto::ParticipantPermission { can_publish: true, ..Default::default() }),
        tracks: (0..tracks)
            .map(|number| proto::TrackInfo {
                sid: format!("TR_{number}"),
                r#type: (number % 2) as i32,
                width: 1_280,
                height: 720,
                mime_type: "video/VP8".into(),
                codecs: vec![proto::SimulcastCodecInfo {
                    layers: vec![proto::VideoLayer::default(); 3],
                    ..Default::default()
                }],
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

/// What a server says, a message of each kind that is looked at.
pub(crate) fn messages() -> Vec<Vec<u8>> {
    let join = proto::JoinResponse {
        room: Some(proto::Room { sid: "RM_1".into(), name: "room".into(), ..Default::default() }),
        participant: Some(participant("PA_self", 0)),
        other_participants: vec![participant("PA_1", 2), participant("PA_2", 0)],
        subscriber_primary: true,
        ping_interval: 5,
        ping_timeout: 15,
        fast_publish: true,
        ice_servers: vec![proto::IceServer {
            urls: vec!["turn:127.0.0.1:3478?transport=udp".into()],
            username: "user".into(),
            credential: "password".into(),
        }],
        ..Default::default()
    };
    let description = |kind: &str, id| proto::SessionDescription {
        r#type: kind.into(),
        sdp: OFFERS[1].into(),
        id,
        mid_to_track_id: [("1".to_owned(), "TR_1".to_owned())].into(),
    };
    let candidate = r#"{"candidate":"candidate:1 1 udp 2130706431 127.0.0.1 7882 typ host"}"#;
    let trickle = |target: proto::SignalTarget| proto::TrickleRequest {
        candidate_init: candidate.into(),
        target: target as i32,
        ..Default::default()
    };
    let published = |cid: &str| proto::TrackPublishedResponse {
        cid: cid.into(),
        track: participant("PA_self", 2).tracks.pop(),
    };
    let mut gone = participant("PA_1", 0);
    gone.state = proto::participant_info::State::Disconnected as i32;
    let update = |participants| Response::Update(proto::ParticipantUpdate { participants });
    [
        Response::Join(join),
        Response::RefreshToken("eyJ.new.token".into()),
        Response::Offer(description("offer", 1)),
        Response::Answer(description("answer", 1)),
        Response::Trickle(trickle(proto::SignalTarget::Subscriber)),
        Response::Trickle(trickle(proto::SignalTarget::Publisher)),
        update(vec![participant("PA_3", 2), participant("PA_2", 1)]),
        update(vec![gone]),
        Response::TrackPublished(published("camera")),
        Response::TrackPublished(published("microphone")),
        Response::SpeakersChanged(proto::SpeakersChanged {
            speakers: vec![proto::SpeakerInfo { sid: "PA_3".into(), level: 0.5, active: true }],
        }),
        Response::StreamStateUpdate(proto::StreamStateUpdate {
            stream_states: vec![proto::StreamStateInfo {
                participant_sid: "PA_3".into(),
                track_sid: "TR_1".into(),
                state: 1,
            }],
        }),
        Response::SubscribedQualityUpdate(proto::SubscribedQualityUpdate {
            track_sid: "TR_1".into(),
            subscribed_codecs: vec![proto::SubscribedCodec {
                codec: "vp8".into(),
                qualities: vec![proto::SubscribedQuality { quality: 2, enabled: true }],
            }],
            ..Default::default()
        }),
        Response::MediaSectionsRequirement(proto::MediaSectionsRequirement {
            num_audios: 1,
            num_videos: 2,
        }),
        Response::PongResp(proto::Pong { last_ping_timestamp: 1, timestamp: 2 }),
        Response::SubscriptionResponse(proto::SubscriptionResponse {
            track_sid: "TR_1".into(),
            err: 1,
        }),
        Response::Reconnect(proto::ReconnectResponse::default()),
        Response::RoomMoved(proto::RoomMovedResponse {
            participant: Some(participant("PA_moved", 0)),
            other_participants: vec![participant("PA_4", 2)],
            ..Default::default()
        }),
        Response::Leave(proto::LeaveRequest { action: 1, ..Default::default() }),
    ]
    .into_iter()
    .map(response)
    .collect()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let messages = messages();
    let seed = |how: u8| {
        let mut seed = vec![how];
        for message in &messages {
            seed.push(2);
            seed.extend(pieces([message.as_slice()]));
            seed.extend([0, 100, 1]);
        }
        // It is taken up again.
        seed.extend([1, 2]);
        seed.extend(pieces([messages[16].as_slice()]));
        seed
    };
    [0, 1, 3, 5, 0x1d, 0x11, 0x61, 0x6d].into_iter().map(seed).collect()
}
