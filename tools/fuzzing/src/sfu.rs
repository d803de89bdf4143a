//! The embedded SFU: its media worker and its rooms, among clients of which one has gone mad.

use std::time::Duration;

use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_request::Message as Request;
use stampede_sfu::bench_support::{FanOut, Rooms};

use crate::bytes::{Bytes, pieces};
use crate::sdp::OFFERS;
use crate::subscriber::compound;

const STEPS_MAX: usize = 128;
/// Who is mad, and who watches.
const MAD: usize = 0;
const WATCHES: usize = 1;

/// Datagrams of a client that is connected, of a stranger, and what the client sealed. The other one is
/// served as before.
pub(crate) fn datagrams(input: &[u8]) {
    let mut input = Bytes::of(input);
    let mut fan_out = FanOut::new(2);
    fan_out.serves(WATCHES);
    let (rtp, mut rtcp) = fan_out.sealers(MAD).unwrap();
    let ssrc = fan_out.ssrc(MAD).unwrap();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let how = input.u8();
        // From its own address, a stranger's, or that of the other one.
        let from = match how >> 6 {
            0 | 1 => MAD,
            2 => usize::MAX,
            _ => WATCHES,
        };
        match how & 7 {
            0 | 1 => fan_out.hears(from, input.piece()),
            // What it said itself, with some changes. (What others said, it does not hear.)
            2 | 3 => {
                let Some(mut datagram) = fan_out.said(MAD, input.u8().into()) else { continue };
                for change in input.short().chunks_exact(3) {
                    let at = usize::from(u16::from_le_bytes([change[0], change[1]]));
                    let at = at % datagram.len().max(1);
                    if let Some(byte) = datagram.get_mut(at) {
                        *byte = change[2];
                    }
                }
                fan_out.hears(from, &datagram);
            }
            4 | 5 => {
                let Some(mut compound) = compound(&mut input) else { continue };
                if how & 8 == 8
                    && let Some(media) = compound.get_mut(8..12)
                {
                    media.copy_from_slice(&ssrc.to_be_bytes());
                }
                if let Some(sealed) = rtcp.seal(&compound) {
                    fan_out.hears(from, &sealed);
                }
            }
            6 => {
                // Media of who is to send none.
                let (sequence, ssrc) = (input.u16(), input.u32());
                let mut packet = vec![0x80, input.u8()];
                packet.extend(sequence.to_be_bytes());
                packet.extend([0, 0, 0, 1]);
                packet.extend(ssrc.to_be_bytes());
                packet.extend(input.short());
                packet.resize(packet.len() + rtp.tag_bytes(), 0);
                if rtp.seal(&mut packet, 12, ssrc, sequence.into()).is_some() {
                    fan_out.hears(from, &packet);
                }
            }
            _ => fan_out.runs(Duration::from_millis(input.u8().into())),
        }
    }
    fan_out.runs(Duration::from_millis(20));
    fan_out.serves(WATCHES);
}

pub(crate) fn datagram_seeds() -> Vec<Vec<u8>> {
    let mut seeds = crate::subscriber::datagram_seeds();
    let mut told = Vec::new();
    // A NACK, a PLI, a REMB and a report about what it gets, then media.
    for (kind, count, body) in [
        (205, 1, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0xff, 0xff][..]),
        (206, 1, &[0, 0, 0, 1, 0, 0, 0, 0]),
        (206, 15, b"\0\0\0\x01\0\0\0\0REMB\x01\x04\0\0\0\0\0\x07"),
        (201, 1, &[1; 32]),
        (205, 15, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 4, 0, 0, 0, 1, 0x20, 4, 4, 4, 4]),
    ] {
        told.extend([4 | 8, 0, kind - 192, count, body.len() as u8]);
        told.extend(body);
        told.extend([1, 7, 200]);
    }
    told.extend([6, 1, 0, 9, 9, 9, 9, 96, 4, 0x10, 0, 0, 0]);
    // Its own checks and media from a stranger, and again.
    told.extend([0x83, 0, 0, 0x82, 0, 0, 2, 1, 0, 7, 50]);
    seeds.push(told);
    seeds
}

/// Answers of a client to an offer that it got, and offers of somebody who comes.
pub(crate) fn sdp(input: &[u8]) {
    let mut input = Bytes::of(input);
    let how = input.u8();
    let mut fan_out = FanOut::new(2);
    for _ in 0..=how >> 6 {
        let (what, id) = (input.below(3), input.u8());
        let text =
            String::from_utf8_lossy(if how >> 6 == 0 { input.rest() } else { input.piece() });
        match what {
            0 => fan_out.answers(MAD as u16, id.into(), text.into_owned()),
            1 => fan_out.is_offered(&text, false),
            _ => fan_out.is_offered(&text, true),
        }
        fan_out.runs(Duration::from_millis(5));
    }
    fan_out.serves(WATCHES);
}

pub(crate) fn sdp_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for what in 0..3 {
        for offer in [OFFERS[1], OFFERS[3]] {
            let sends = offer.replace("a=sendonly", "a=recvonly");
            let offer = if what == 0 { &sends } else { offer };
            seeds.push([&[0, what, 2][..], offer.as_bytes()].concat());
            seeds.push(
                [
                    &[0x40, what, 2],
                    &pieces([offer.as_bytes()])[..],
                    &[2, 1],
                    &pieces([OFFERS[0].as_bytes()]),
                ]
                .concat(),
            );
        }
    }
    seeds
}

/// What a participant says over its websocket and its data channels.
pub(crate) fn requests(input: &[u8]) {
    let mut input = Bytes::of(input);
    let mut rooms = Rooms::default();
    let len = input.len();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let how = input.u8();
        let who = usize::from(how >> 4);
        match how & 7 {
            0 => rooms.pass(Duration::from_millis(u64::from(input.u16()))),
            1 => rooms.comes_back(who),
            2 => rooms.hears_data(who, how & 8 == 8, input.piece()),
            _ => rooms.hears(who, input.piece()),
        }
    }
    // Two of them, to whom it is told, with what the server adds.
    assert!(rooms.told_bytes <= (64 << 10) + 64 * len, "{} bytes are told", rooms.told_bytes);
    rooms.close();
}

pub(crate) fn request_seeds() -> Vec<Vec<u8>> {
    let request = |message| proto::SignalRequest { message: Some(message) }.encode_to_vec();
    let description = |kind: &str| proto::SessionDescription {
        r#type: kind.into(),
        sdp: OFFERS[1].into(),
        id: 1,
        ..Default::default()
    };
    let layer =
        |quality| proto::VideoLayer { quality, width: 640, height: 360, ..Default::default() };
    let add = |cid: &str, kind: proto::TrackType| proto::AddTrackRequest {
        cid: cid.into(),
        r#type: kind as i32,
        width: 640,
        height: 360,
        layers: (0..3).map(layer).collect(),
        simulcast_codecs: vec![proto::SimulcastCodec {
            codec: "vp8".into(),
            cid: cid.into(),
            layers: (0..3).map(layer).collect(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let sids = || vec!["TR_1".to_owned(), "TR_2".to_owned()];
    let subscription = || proto::UpdateSubscription {
        track_sids: sids(),
        subscribe: true,
        participant_tracks: vec![proto::ParticipantTracks {
            participant_sid: "PA_1".into(),
            track_sids: sids(),
        }],
    };
    let messages: Vec<Vec<u8>> = [
        Request::AddTrack(add("camera", proto::TrackType::Video)),
        Request::AddTrack(add("microphone", proto::TrackType::Audio)),
        Request::Offer(description("offer")),
        Request::Answer(description("answer")),
        Request::Trickle(proto::TrickleRequest {
            candidate_init: r#"{"candidate":"candidate:1 1 udp 1 127.0.0.1 7882 typ host"}"#.into(),
            ..Default::default()
        }),
        Request::Mute(proto::MuteTrackRequest { sid: "TR_1".into(), muted: true }),
        Request::Subscription(subscription()),
        Request::TrackSetting(proto::UpdateTrackSettings {
            track_sids: sids(),
            width: 320,
            height: 180,
            fps: 15,
            ..Default::default()
        }),
        Request::SubscriptionPermission(proto::SubscriptionPermission {
            all_participants: false,
            track_permissions: vec![proto::TrackPermission {
                participant_sid: "PA_1".into(),
                track_sids: sids(),
                ..Default::default()
            }],
        }),
        Request::SyncState(proto::SyncState {
            answer: Some(description("answer")),
            subscription: Some(subscription()),
            track_sids_disabled: sids(),
            ..Default::default()
        }),
        Request::Simulate(proto::SimulateScenario {
            scenario: Some(proto::simulate_scenario::Scenario::SpeakerUpdate(3)),
        }),
        Request::PingReq(proto::Ping { timestamp: 1, rtt: 2 }),
        Request::UpdateMetadata(proto::UpdateParticipantMetadata {
            metadata: "metadata".into(),
            attributes: [("lang".to_owned(), "en".to_owned())].into(),
            ..Default::default()
        }),
        Request::PublishDataTrackRequest(proto::PublishDataTrackRequest {
            pub_handle: 1,
            name: "data".into(),
            ..Default::default()
        }),
        Request::Leave(proto::LeaveRequest::default()),
    ]
    .into_iter()
    .map(request)
    .collect();
    let user = proto::data_packet::Value::User(proto::UserPacket {
        payload: vec![7; 40],
        ..Default::default()
    });
    let data = proto::DataPacket {
        value: Some(user),
        destination_identities: vec!["bob".into()],
        ..Default::default()
    };
    let data = data.encode_to_vec();
    [0, 0x10]
        .into_iter()
        .map(|who| {
            let mut seed = Vec::new();
            for message in &messages {
                seed.push(3 | who);
                seed.extend(pieces([message.as_slice()]));
                seed.extend([0, 200, 0]);
            }
            seed.push(2 | 8 | who);
            seed.extend(pieces([data.as_slice()]));
            seed.extend([1 | who, 2 | who, 12, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
            seed
        })
        .collect()
}
