//! What a participant is, and what it publishes.

use std::net::SocketAddr;
use std::time::Duration;

use stampede_core::{MediaKind, PathKind, PublishLayer, PublishTrack};
use stampede_signaling::session::{
    LocalLayer, LocalTrack, Quality, Role, SignalVersion, Subscription, TrackSource,
};

use crate::clips;

/// What a participant is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSpec {
    /// It publishes video.
    pub video: bool,
    /// It publishes audio.
    pub audio: bool,
    /// It subscribes to everything.
    pub subscribes: bool,
    /// By this protocol; who does both does it by v1.
    pub version: SignalVersion,
    /// When it joins, since the start.
    pub joins_at: Duration,
    /// By what its media goes: UDP, or a TURN server.
    pub way: PathKind,
    /// How long its media worker takes over an offer or an answer.
    pub answers_after: Duration,
}

impl ClientSpec {
    /// It publishes something.
    #[must_use]
    pub fn publishes(&self) -> bool {
        self.video || self.audio
    }

    /// It to its session.
    pub(crate) fn role(&self) -> Role {
        let receives = Role::subscriber(Subscription::Auto, Quality::High).receives;
        Role {
            receives: receives.filter(|_| self.subscribes),
            tracks: self.tracks().map(|(track, _)| track).collect(),
            ..Role::default()
        }
    }

    /// What it publishes, for its session and its peer.
    pub(crate) fn tracks(&self) -> impl Iterator<Item = (LocalTrack, PublishTrack)> {
        let kinds = [(MediaKind::Video, self.video), (MediaKind::Audio, self.audio)];
        kinds.into_iter().filter(|(_, sends)| *sends).map(|(kind, _)| track(kind))
    }
}

/// The TURN server of a participant.
#[must_use]
pub fn relay_of(index: usize) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 1 + index as u8], 3_478))
}

/// A track for the session, and the same for the peer.
fn track(kind: MediaKind) -> (LocalTrack, PublishTrack) {
    let (cid, source, codec, clip) = match kind {
        MediaKind::Video => ("cam", TrackSource::Camera, "vp8", clips::video()),
        MediaKind::Audio => ("mic", TrackSource::Microphone, "opus", clips::audio()),
    };
    let (width, height) = (u32::from(clip.width), u32::from(clip.height));
    let layer = LocalLayer { quality: Quality::High, width, height, bitrate_bps: 100_000 };
    let local = LocalTrack {
        cid: cid.to_owned(),
        name: cid.to_owned(),
        kind,
        source,
        codec: codec.to_owned(),
        width,
        height,
        layers: if kind == MediaKind::Video { vec![layer] } else { Vec::new() },
        red: false,
        dtx: false,
        layers_in_one_stream: false,
        backup: None,
    };
    let publish = PublishTrack {
        cid: cid.to_owned(),
        kind,
        layers: vec![PublishLayer { rid: None, clip }],
        start_offset: Duration::ZERO,
        speaking: None,
        audio: Default::default(),
    };
    (local, publish)
}
