//! Random messages in random order: never a panic, never two answers for one offer, one end.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests

mod common;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use common::*;
use livekit_protocol as proto;
use proptest::prelude::*;
use prost::Message as _;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use stampede_signaling::session::*;

#[derive(Debug, Clone)]
enum Step {
    Join { publishers: usize, fast: bool, ping: i32 },
    Offer { id: u32, tracks: usize },
    Answer,
    Update { publisher: usize, tracks: usize, gone: bool },
    Trickle { publisher: bool, good: bool },
    Published(usize),
    Refused(usize),
    Leave(i32),
    Pong(i64),
    Noise(Vec<u8>),
    LocalAnswer(u32),
    LocalOffer,
    LocalCandidate,
    Failed,
    Advance(u64),
    OwnLeave,
}

fn step() -> impl Strategy<Value = Step> {
    // Endings are rare, so that most runs get somewhere.
    prop_oneof![
        6 => (0..3_usize, any::<bool>(), -1..7_i32)
            .prop_map(|(publishers, fast, ping)| Step::Join { publishers, fast, ping }),
        20 => (0..8_u32, 0..3_usize).prop_map(|(id, tracks)| Step::Offer { id, tracks }),
        4 => Just(Step::Answer),
        10 => (0..3_usize, 0..4_usize, any::<bool>())
            .prop_map(|(publisher, tracks, gone)| Step::Update { publisher, tracks, gone }),
        6 => (any::<bool>(), any::<bool>())
            .prop_map(|(publisher, good)| Step::Trickle { publisher, good }),
        6 => (0..3_usize).prop_map(Step::Published),
        3 => (0..3_usize).prop_map(Step::Refused),
        1 => (-1..4_i32).prop_map(Step::Leave),
        6 => (0..60_000_i64).prop_map(Step::Pong),
        4 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Step::Noise),
        20 => (0..8_u32).prop_map(Step::LocalAnswer),
        5 => Just(Step::LocalOffer),
        3 => Just(Step::LocalCandidate),
        1 => Just(Step::Failed),
        8 => (0..8_000_u64).prop_map(Step::Advance),
        1 => Just(Step::OwnLeave),
    ]
}

fn tracks(publisher: usize, count: usize) -> Vec<proto::TrackInfo> {
    let kinds = [proto::TrackType::Video, proto::TrackType::Audio, proto::TrackType::Data];
    (0..count).map(|i| track(&format!("TR_{publisher}_{i}"), kinds[i % 3])).collect()
}

fn message(step: &Step) -> Option<proto::SignalResponse> {
    Some(match step {
        Step::Join { publishers, fast, ping } => {
            let others =
                (0..*publishers).map(|p| participant(&format!("PA_{p}"), tracks(p, 2))).collect();
            let mut join = join_response(others);
            (join.fast_publish, join.ping_interval) = (*fast, *ping);
            response(Response::Join(join))
        }
        Step::Offer { id, tracks } => {
            let map = [("1", "TR_0_1"), ("2", "TR_0_0"), ("7", "TR_9_9")];
            offer(*id, OFFER_TRACKS, &map[..*tracks])
        }
        Step::Answer => response(Response::Answer(proto::SessionDescription {
            r#type: "answer".into(),
            sdp: "x".into(),
            ..Default::default()
        })),
        Step::Update { publisher, tracks: count, gone } => {
            let mut info = participant(&format!("PA_{publisher}"), tracks(*publisher, *count));
            if *gone {
                info.state = proto::participant_info::State::Disconnected as i32;
            }
            update(vec![info, participant("PA_self", tracks(5, 1))])
        }
        Step::Trickle { publisher, good } => {
            let target = if *publisher {
                proto::SignalTarget::Publisher
            } else {
                proto::SignalTarget::Subscriber
            };
            let json = if *good { candidate_json(1) } else { "nonsense".into() };
            trickle(target, &json, false)
        }
        Step::Published(i) => response(Response::TrackPublished(proto::TrackPublishedResponse {
            cid: format!("cid{i}"),
            track: None,
        })),
        Step::Refused(i) => response(Response::RequestResponse(proto::RequestResponse {
            reason: 2,
            request: Some(proto::request_response::Request::AddTrack(proto::AddTrackRequest {
                cid: format!("cid{i}"),
                ..Default::default()
            })),
            ..Default::default()
        })),
        Step::Leave(action) => {
            response(Response::Leave(proto::LeaveRequest { action: *action, ..Default::default() }))
        }
        Step::Pong(stamp) => {
            response(Response::PongResp(proto::Pong { last_ping_timestamp: *stamp, timestamp: 0 }))
        }
        _ => return None,
    })
}

fn run(role: Role, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut now = Instant::now();
    let mut session = Session::new(SessionOptions::new(role), now);
    let mut open_offers: HashMap<u32, u32> = HashMap::new();
    let (mut joins, mut ends, mut create_offers, mut offers_sent, mut leaves) = (0, 0, 0, 0, 0);
    for step in steps {
        if let Some(message) = message(&step) {
            session.handle_message(now, &message.encode_to_vec().into());
        }
        match step {
            Step::Noise(bytes) => session.handle_message(now, &bytes.into()),
            Step::LocalAnswer(offer_id) => {
                session.handle_media(MediaInput::LocalAnswer { offer_id, sdp: "a".into() });
            }
            Step::LocalOffer => {
                session.handle_media(MediaInput::LocalOffer { id: 1, sdp: "o".into() })
            }
            Step::LocalCandidate => {
                let (target, candidate) = (Target::Subscriber, "candidate:x".into());
                session.handle_media(MediaInput::LocalCandidate { target, candidate })
            }
            Step::Failed => session.handle_media(MediaInput::Disconnected { reason: "x".into() }),
            Step::Advance(ms) => {
                now += Duration::from_millis(ms);
                session.handle_timeout(now);
                if let Some(next) = session.next_timeout() {
                    prop_assert!(next > now, "a timeout that never clears");
                }
            }
            Step::OwnLeave => session.leave(),
            _ => {}
        }
        while let Some(output) = session.poll_output() {
            // After the end only a farewell that was not said yet.
            let farewell = matches!(&output, Output::Send(request)
                if matches!(request.message, Some(Request::Leave(_))));
            prop_assert!(ends == 0 || farewell, "nothing follows the end: {output:?}");
            match output {
                Output::Media(MediaCommand::RemoteOffer { id, .. }) => {
                    *open_offers.entry(id).or_default() += 1;
                }
                Output::Media(MediaCommand::CreateOffer { .. }) => create_offers += 1,
                Output::Media(_) => {}
                Output::Send(request) => match request.message {
                    Some(Request::Answer(answer)) => {
                        let open = open_offers.get_mut(&answer.id);
                        let open = open.filter(|open| **open > 0);
                        prop_assert!(open.is_some(), "answer {} to no offer", answer.id);
                        // Ids other than 0 name one offer each.
                        *open.unwrap() -= 1;
                    }
                    Some(Request::Offer(_)) => offers_sent += 1,
                    Some(Request::Leave(_)) => leaves += 1,
                    _ => {}
                },
                Output::Event(SessionEvent::Ended(_)) => ends += 1,
                Output::Event(SessionEvent::Joined(_)) => joins += 1,
                Output::Event(_) => {}
            }
        }
        for (id, count) in &open_offers {
            prop_assert!(*id == 0 || *count <= 1, "offer {id} handed out twice");
        }
        prop_assert_eq!(session.is_ended(), ends == 1);
    }
    prop_assert!(joins <= 1 && ends <= 1 && leaves <= 1);
    prop_assert!(create_offers <= 1 && offers_sent <= create_offers);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn subscriber_survives_any_order(
        steps in proptest::collection::vec(step(), 1..80),
        manual in any::<bool>(),
    ) {
        let subscription = if manual {
            Subscription::Manual { audio: true, video: true }
        } else {
            Subscription::Auto
        };
        run(Role::subscriber(subscription, Quality::Low), steps)?;
    }

    #[test]
    fn publisher_survives_any_order(
        steps in proptest::collection::vec(step(), 1..80),
        count in 0..3_usize,
    ) {
        let tracks = (0..count).map(|i| video_track(&format!("cid{i}"))).collect();
        run(Role::publisher(tracks), steps)?;
    }
}
