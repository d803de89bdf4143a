//! Hand-made server messages, shaped as livekit-server 1.13.5 sends them.

#![allow(dead_code)] // each test file uses its part

use std::time::{Duration, Instant};

use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use stampede_sdp::MediaKind;
use stampede_signaling::session::{
    DisconnectReason, EndReason, LocalLayer, LocalTrack, MediaCommand, MediaInput, Output, Quality,
    Role, Session, SessionEvent, SessionOptions, Subscription, TrackSource,
};

/// The data-channels-only offer and the offer with an audio and a video track, as captured.
pub(crate) const OFFER_DATA: &str = include_str!("../data/subscriber-offer-vp8-1.sdp");
pub(crate) const OFFER_TRACKS: &str = include_str!("../data/subscriber-offer-vp8-2.sdp");
/// From OFFER_TRACKS.
pub(crate) const PUBLISHER: &str = "PA_g6f6jC2ScKiR";
pub(crate) const AUDIO: &str = "TR_AMPvZVst3PnizD";

/// The video track's sid in OFFER_TRACKS.
pub(crate) fn video() -> &'static str {
    let line = OFFER_TRACKS.lines().rfind(|line| line.starts_with("a=msid:")).unwrap();
    line.rsplit(' ').next().unwrap()
}

pub(crate) fn response(message: Response) -> proto::SignalResponse {
    proto::SignalResponse { message: Some(message) }
}

pub(crate) fn participant(sid: &str, tracks: Vec<proto::TrackInfo>) -> proto::ParticipantInfo {
    proto::ParticipantInfo {
        sid: sid.into(),
        identity: format!("identity of {sid}"),
        state: proto::participant_info::State::Active as i32,
        tracks,
        ..Default::default()
    }
}

pub(crate) fn track(sid: &str, kind: proto::TrackType) -> proto::TrackInfo {
    proto::TrackInfo {
        sid: sid.into(),
        r#type: kind as i32,
        width: 1280,
        height: 720,
        ..Default::default()
    }
}

pub(crate) fn audio_and_video() -> Vec<proto::TrackInfo> {
    vec![track(AUDIO, proto::TrackType::Audio), track(video(), proto::TrackType::Video)]
}

pub(crate) fn join_response(others: Vec<proto::ParticipantInfo>) -> proto::JoinResponse {
    proto::JoinResponse {
        room: Some(proto::Room { sid: "RM_1".into(), name: "room".into(), ..Default::default() }),
        participant: Some(participant("PA_self", vec![])),
        other_participants: others,
        subscriber_primary: true,
        ping_interval: 5,
        ping_timeout: 15,
        server_info: Some(proto::ServerInfo {
            version: "1.13.5".into(),
            protocol: 17,
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn join(others: Vec<proto::ParticipantInfo>) -> proto::SignalResponse {
    response(Response::Join(join_response(others)))
}

pub(crate) fn update(participants: Vec<proto::ParticipantInfo>) -> proto::SignalResponse {
    response(Response::Update(proto::ParticipantUpdate { participants }))
}

pub(crate) fn offer(id: u32, sdp: &str, map: &[(&str, &str)]) -> proto::SignalResponse {
    response(Response::Offer(proto::SessionDescription {
        r#type: "offer".into(),
        sdp: sdp.into(),
        id,
        mid_to_track_id: map.iter().map(|(m, t)| ((*m).into(), (*t).into())).collect(),
    }))
}

pub(crate) fn trickle(
    target: proto::SignalTarget,
    json: &str,
    last: bool,
) -> proto::SignalResponse {
    response(Response::Trickle(proto::TrickleRequest {
        candidate_init: json.into(),
        target: target as i32,
        r#final: last,
    }))
}

pub(crate) fn candidate_json(port: u16) -> String {
    format!(
        r#"{{"candidate":"candidate:2878742611 1 udp 2130706431 127.0.0.1 {port} typ host","sdpMid":"","sdpMLineIndex":0,"usernameFragment":null}}"#
    )
}

pub(crate) fn leave(
    action: proto::leave_request::Action,
    reason: DisconnectReason,
) -> proto::SignalResponse {
    response(Response::Leave(proto::LeaveRequest {
        action: action as i32,
        reason: reason as i32,
        ..Default::default()
    }))
}

pub(crate) fn video_track(cid: &str) -> LocalTrack {
    let layer =
        |quality, width, height, bitrate_bps| LocalLayer { quality, width, height, bitrate_bps };
    LocalTrack {
        cid: cid.into(),
        name: "camera".into(),
        kind: MediaKind::Video,
        source: TrackSource::Camera,
        codec: "vp8".into(),
        width: 1280,
        height: 720,
        layers: vec![
            layer(Quality::Low, 320, 180, 150_000),
            layer(Quality::Medium, 640, 360, 600_000),
            layer(Quality::High, 1280, 720, 1_900_000),
        ],
        red: false,
        dtx: false,
        layers_in_one_stream: false,
        backup: None,
    }
}

pub(crate) fn audio_track(cid: &str) -> LocalTrack {
    LocalTrack {
        cid: cid.into(),
        name: "microphone".into(),
        kind: MediaKind::Audio,
        source: TrackSource::Microphone,
        codec: "opus".into(),
        width: 0,
        height: 0,
        layers: vec![],
        red: false,
        dtx: false,
        layers_in_one_stream: false,
        backup: None,
    }
}

/// A session and all that it put out.
pub(crate) struct Harness {
    pub(crate) session: Session,
    pub(crate) now: Instant,
    pub(crate) sent: Vec<Request>,
    pub(crate) media: Vec<MediaCommand>,
    pub(crate) events: Vec<SessionEvent>,
    /// `S`, `M` or `E` for each output, in order.
    pub(crate) order: String,
}

impl Harness {
    pub(crate) fn new(role: Role) -> Self {
        Self::with(SessionOptions::new(role))
    }

    pub(crate) fn with(options: SessionOptions) -> Self {
        let now = Instant::now();
        let session = Session::new(options, now);
        let (sent, media, events, order) = Default::default();
        Self { session, now, sent, media, events, order }
    }

    pub(crate) fn subscriber(subscription: Subscription, quality: Quality) -> Self {
        Self::new(Role::subscriber(subscription, quality))
    }

    pub(crate) fn joined_subscriber() -> Self {
        let mut harness = Self::subscriber(Subscription::Auto, Quality::High);
        harness.receive(join(vec![]));
        harness.clear();
        harness
    }

    pub(crate) fn receive(&mut self, message: proto::SignalResponse) {
        self.session.handle_message(self.now, &message.encode_to_vec().into());
        self.drain();
    }

    pub(crate) fn media(&mut self, input: MediaInput) {
        self.session.handle_media(input);
        self.drain();
    }

    /// Moves time to each timeout up to `by` from now.
    pub(crate) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(at) = self.session.next_timeout().filter(|at| *at <= end) {
            self.now = at;
            self.session.handle_timeout(at);
            self.drain();
        }
        self.now = end;
        self.session.handle_timeout(end);
        self.drain();
    }

    pub(crate) fn drain(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Send(request) => {
                    self.order.push('S');
                    self.sent.push(request.message.unwrap());
                }
                Output::Media(command) => {
                    self.order.push('M');
                    self.media.push(command);
                }
                Output::Event(event) => {
                    self.order.push('E');
                    self.events.push(event);
                }
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.sent.clear();
        self.media.clear();
        self.events.clear();
        self.order.clear();
    }

    pub(crate) fn settings(&self) -> Vec<(Vec<String>, i32)> {
        let settings = self.sent.iter().filter_map(|request| match request {
            Request::TrackSetting(s) => Some((s.track_sids.clone(), s.quality)),
            _ => None,
        });
        settings.collect()
    }

    pub(crate) fn answers(&self) -> Vec<u32> {
        let answers = self.sent.iter().filter_map(|request| match request {
            Request::Answer(answer) => Some(answer.id),
            _ => None,
        });
        answers.collect()
    }

    pub(crate) fn pings(&self) -> Vec<proto::Ping> {
        let pings = self.sent.iter().filter_map(|request| match request {
            Request::PingReq(ping) => Some(*ping),
            _ => None,
        });
        pings.collect()
    }

    pub(crate) fn end(&self) -> Option<&EndReason> {
        match self.events.last() {
            Some(SessionEvent::Ended(reason)) => Some(reason),
            _ => None,
        }
    }

    pub(crate) fn sent_leave(&self) -> bool {
        matches!(self.sent.last(), Some(Request::Leave(leave))
            if leave.reason == DisconnectReason::ClientInitiated as i32)
    }
}
