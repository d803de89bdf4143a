//! What does a message of the server cost the signalling thread? Decoding and the session's answer,
//! by kind, without the websocket around it (`--example crowd` of `stampede-signaling` has that too).
//!
//! `join` and `update` name 2,000 others, of whom one publishes: what a room of 2,000 tells each of
//! them. `offer` is a server's for one video (v0).

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench may panic, and documents nothing")]

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use livekit_protocol as proto;
use prost::Message as _;
use prost::bytes::Bytes;
use proto::signal_response::Message;
use stampede_signaling::session::{
    Output, Quality, Role, Session, SessionOptions, SignalVersion, Subscription,
};

/// Others in the room.
const OTHERS: usize = 2_000;

fn other(index: usize) -> proto::ParticipantInfo {
    let track = |sid: String| proto::TrackInfo {
        sid,
        r#type: proto::TrackType::Video as i32,
        ..proto::TrackInfo::default()
    };
    proto::ParticipantInfo {
        sid: format!("PA_{index:012}"),
        identity: format!("sub-{index}"),
        name: format!("sub-{index}"),
        state: proto::participant_info::State::Active as i32,
        joined_at: 1_700_000_000,
        joined_at_ms: 1_700_000_000_000,
        version: 3,
        region: "local".to_owned(),
        permission: Some(proto::ParticipantPermission {
            can_subscribe: true,
            ..proto::ParticipantPermission::default()
        }),
        tracks: (index == 0).then(|| track("TR_VC0123456789".to_owned())).into_iter().collect(),
        ..proto::ParticipantInfo::default()
    }
}

fn encoded(message: Message) -> Bytes {
    proto::SignalResponse { message: Some(message) }.encode_to_vec().into()
}

fn join() -> Bytes {
    encoded(Message::Join(proto::JoinResponse {
        room: Some(proto::Room { name: "room".to_owned(), ..proto::Room::default() }),
        participant: Some(proto::ParticipantInfo {
            sid: "PA_own".to_owned(),
            ..proto::ParticipantInfo::default()
        }),
        other_participants: (0..OTHERS).map(other).collect(),
        subscriber_primary: true,
        ping_interval: 5,
        ping_timeout: 15,
        ..proto::JoinResponse::default()
    }))
}

/// What a room of many sends to each after its join.
fn messages() -> Vec<(&'static str, Bytes)> {
    let quality = |index| proto::ConnectionQualityInfo {
        participant_sid: format!("PA_{index:012}"),
        quality: proto::ConnectionQuality::Excellent as i32,
        score: 4.5,
    };
    let speaker = proto::SpeakerInfo { sid: "PA_000000000000".into(), level: 0.5, active: true };
    let sdp = include_str!("../../signaling/tests/data/subscriber-offer-vp8-1.sdp");
    vec![
        (
            "update_of_2000",
            encoded(Message::Update(proto::ParticipantUpdate {
                participants: (0..OTHERS).map(other).collect(),
            })),
        ),
        (
            "update_of_one",
            encoded(Message::Update(proto::ParticipantUpdate { participants: vec![other(1)] })),
        ),
        (
            "room_update",
            encoded(Message::RoomUpdate(proto::RoomUpdate {
                room: Some(proto::Room { name: "room".to_owned(), ..proto::Room::default() }),
            })),
        ),
        (
            "connection_quality",
            encoded(Message::ConnectionQuality(proto::ConnectionQualityUpdate {
                updates: (0..2).map(quality).collect(),
            })),
        ),
        (
            "speakers_changed",
            encoded(Message::SpeakersChanged(proto::SpeakersChanged { speakers: vec![speaker] })),
        ),
        ("pong", encoded(Message::PongResp(proto::Pong { last_ping_timestamp: 1, timestamp: 1 }))),
        (
            "offer",
            encoded(Message::Offer(proto::SessionDescription {
                r#type: "offer".to_owned(),
                sdp: sdp.to_owned(),
                ..proto::SessionDescription::default()
            })),
        ),
    ]
}

fn session(now: Instant) -> Session {
    let role = Role::subscriber(Subscription::Auto, Quality::High);
    Session::new(SessionOptions { version: SignalVersion::V0, ..SessionOptions::new(role) }, now)
}

/// Hears one message, and everything that it makes of it.
fn hear(mut session: Session, now: Instant, message: &Bytes) -> (Session, Vec<Output>) {
    session.handle_message(now, message);
    let outputs = std::iter::from_fn(|| session.poll_output()).collect();
    (session, outputs)
}

fn signalling(criterion: &mut Criterion) {
    let now = Instant::now();
    let mut group = criterion.benchmark_group("signalling");
    group.sample_size(20).measurement_time(Duration::from_secs(1));
    let join = join();
    group.bench_function("join_of_2000", |bench| {
        bench.iter_batched(
            || session(now),
            |session| hear(session, now, &join),
            BatchSize::SmallInput,
        );
    });
    for (kind, message) in messages() {
        group.bench_function(kind, |bench| {
            bench.iter_batched(
                || hear(session(now), now, &join).0,
                |session| hear(session, now, &message),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, signalling);
criterion_main!(benches);
