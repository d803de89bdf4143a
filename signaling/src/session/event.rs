//! What goes into a [`Session`](super::Session) and what comes out of it.

use std::time::Duration;

use livekit_protocol as proto;
use proto::SignalRequest;
use stampede_sdp::Slots;

use super::end::EndReason;
use super::layout::Layout;
use super::track::{Departure, LocalTrack, Quality, RemoteTrack, VideoSize};
use super::turn_servers::TurnServer;

/// Which of the participant's two peer connections (livekit_rtc.proto `SignalTarget`).
/// The single one of [`SignalVersion::V1`](super::SignalVersion::V1) goes by the publisher's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// We offer, the server answers.
    Publisher,
    /// The server offers, we answer.
    Subscriber,
}

impl Target {
    pub(crate) fn from_proto(target: i32) -> Option<Self> {
        match proto::SignalTarget::try_from(target).ok()? {
            proto::SignalTarget::Publisher => Some(Self::Publisher),
            proto::SignalTarget::Subscriber => Some(Self::Subscriber),
        }
    }

    pub(crate) fn to_proto(self) -> proto::SignalTarget {
        match self {
            Self::Publisher => proto::SignalTarget::Publisher,
            Self::Subscriber => proto::SignalTarget::Subscriber,
        }
    }
}

/// How a subscriber gets its tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Subscription {
    /// `auto_subscribe=1`: the server subscribes us to everything.
    #[default]
    Auto,
    /// `auto_subscribe=0`: the session sends `subscription` for every track of the wanted kinds as
    /// soon as it is known. With both `false` nothing is subscribed until
    /// [`Session::subscribe`](super::Session::subscribe) says so.
    Manual {
        /// Subscribe to audio tracks.
        audio: bool,
        /// Subscribe to video tracks.
        video: bool,
    },
    /// What a layout shows, at the sizes it has; the role's quality does not count.
    Layout {
        /// The layout.
        layout: Layout,
        /// `auto_subscribe=1`, and videos that are not shown are disabled, as browsers do with
        /// adaptive stream; else only what is shown is subscribed to, as `lk perf load-test` does.
        auto: bool,
    },
}

/// What a participant is in the room for: it receives, it sends, or both.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Role {
    /// It receives: the server offers and the engine answers, or over a single connection the other
    /// way round.
    pub receives: Option<Receives>,
    /// What it sends: every track is announced with `add_track`, then the engine offers. At most
    /// [`PUBLISH_TRACKS_MAX`](super::PUBLISH_TRACKS_MAX).
    pub tracks: Vec<LocalTrack>,
    /// It sends data messages: without tracks the engine offers as soon as it has joined.
    pub data: bool,
    /// It publishes a data track, [`DATA_TRACK_HANDLE`](super::DATA_TRACK_HANDLE).
    pub data_track: bool,
    /// It answers calls between participants (LiveKit's RPC), as packets and as text streams: it says
    /// that it speaks [`CLIENT_PROTOCOL`](super::CLIENT_PROTOCOL), and offers as with `data`.
    pub rpc: bool,
    /// How it gets the data tracks of others.
    pub data_tracks_of_others: DataTracks,
}

/// How a participant gets the data tracks of others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DataTracks {
    /// Not at all.
    #[default]
    None,
    /// The server subscribes it to all of them (`auto_subscribe_data_track`).
    Auto,
    /// It subscribes to each of them as soon as it is known (`update_data_subscription`).
    Manual,
}

/// What a participant receives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Receives {
    /// Automatic or manual subscription.
    pub subscription: Subscription,
    /// Layer asked for, for every video track.
    pub quality: Quality,
}

impl Role {
    /// One that only receives.
    #[must_use]
    pub fn subscriber(subscription: Subscription, quality: Quality) -> Self {
        Self { receives: Some(Receives { subscription, quality }), ..Self::default() }
    }

    /// One that only sends.
    #[must_use]
    pub fn publisher(tracks: Vec<LocalTrack>) -> Self {
        Self { tracks, ..Self::default() }
    }

    /// True if it sends.
    #[must_use]
    pub fn publishes(&self) -> bool {
        !self.tracks.is_empty()
    }
}

/// What the media plane tells the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaInput {
    /// The subscriber peer's answer to [`MediaCommand::RemoteOffer`] with this id. An answer to an
    /// offer that was superseded or already answered is counted and dropped.
    LocalAnswer {
        /// Id of the offer that is answered.
        offer_id: u32,
        /// The answer.
        sdp: String,
    },
    /// Our offer, asked for by [`MediaCommand::CreateOffer`] or
    /// [`MediaCommand::RestartIce`].
    LocalOffer {
        /// As asked. An outdated one is counted and dropped.
        id: u32,
        /// The offer.
        sdp: String,
    },
    /// A local candidate gathered after the SDP went out; not needed when the SDP had them all.
    LocalCandidate {
        /// Of which connection.
        target: Target,
        /// `candidate:…`, without `a=`.
        candidate: String,
    },
    /// The engine could not use an offer or an answer: ends the session.
    NegotiationFailed {
        /// What was wrong.
        reason: String,
    },
    /// ICE or DTLS was lost or never came up: ends the session, without a `leave`, so that it can be
    /// taken up again with ICE restarted.
    Disconnected {
        /// What was lost.
        reason: String,
    },
}

/// What the session wants of the media plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaCommand {
    /// TURN servers that may be used from now on, in the place of those before.
    TurnServers {
        /// In the server's order, [`TURN_SERVERS_MAX`](super::TURN_SERVERS_MAX) at most.
        servers: Vec<TurnServer>,
        /// The server wants no other ways (`ClientConfiguration.force_relay`).
        only: bool,
    },
    /// Apply the server's offer to the subscriber peer, and hand back
    /// [`MediaInput::LocalAnswer`] with the same id.
    RemoteOffer {
        /// The server's id of this offer.
        id: u32,
        /// The offer, as it came.
        sdp: String,
        /// `mid` to track sid, authoritative, in no order; empty on old servers.
        mid_to_track_id: Vec<(String, String)>,
    },
    /// Make an offer and hand back [`MediaInput::LocalOffer`]: of our tracks, and over a single
    /// connection of the m-lines to receive by.
    CreateOffer {
        /// Its id.
        id: u32,
        /// M-lines to receive by that it has more than the one before.
        added: Slots,
        /// Our tracks are in it too, and in every one after it.
        publish: bool,
    },
    /// Make an offer that restarts ICE (RFC 8445 §9), and hand back [`MediaInput::LocalOffer`].
    RestartIce {
        /// The offer's id.
        id: u32,
    },
    /// Apply the server's answer to our offer.
    RemoteAnswer {
        /// The answer, as it came.
        sdp: String,
        /// `mid` to track sid, authoritative, in no order; empty for a publisher.
        mid_to_track_id: Vec<(String, String)>,
    },
    /// A candidate of the server. Never comes before the description it belongs to.
    RemoteCandidate {
        /// For which connection.
        target: Target,
        /// `candidate:…`, without `a=`.
        candidate: String,
    },
}

impl MediaCommand {
    /// Which connection it is for: who has one has none of the other's. `None`: for all of them.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        Some(match self {
            Self::TurnServers { .. } => return None,
            Self::RemoteOffer { .. } => Target::Subscriber,
            Self::CreateOffer { .. } | Self::RestartIce { .. } | Self::RemoteAnswer { .. } => {
                Target::Publisher
            }
            Self::RemoteCandidate { target, .. } => *target,
        })
    }
}

/// What the session asks of its caller; drained with
/// [`Session::poll_output`](super::Session::poll_output).
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send this message to the server.
    Send(Box<SignalRequest>),
    /// Do this with the media plane.
    Media(MediaCommand),
    /// This happened.
    Event(SessionEvent),
}

/// Facts from `JoinResponse`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Our participant sid (`PA_…`).
    pub participant_sid: String,
    /// Our identity as the server has it.
    pub identity: String,
    /// Room sid (`RM_…`).
    pub room_sid: String,
    /// Room name.
    pub room_name: String,
    /// Server version; empty when it did not say.
    pub server_version: String,
    /// Server region; empty when it did not say.
    pub region: String,
    /// The server's protocol number; 0 when it did not say.
    pub protocol: i32,
    /// Others in the room when we joined (hidden ones excluded by the server).
    pub participants: usize,
    /// The server will offer.
    pub subscriber_primary: bool,
    /// The server allows an offer before `track_published`.
    pub fast_publish: bool,
    /// How often we ping; zero when the server asked for none.
    pub ping_interval: Duration,
}

/// Which layers the server still wants of a published track (dynacast,
/// livekit_rtc.proto `SubscribedQualityUpdate`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedCodec {
    /// Codec as the server names it; empty on servers before per-codec updates.
    pub codec: String,
    /// Quality and whether anyone wants it.
    pub qualities: Vec<(Quality, bool)>,
}

/// Somebody else in the room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    /// Its participant sid.
    pub sid: String,
    /// Its identity.
    pub identity: String,
    /// Which protocol between clients it speaks.
    pub client_protocol: i32,
}

/// What happened in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// `join` came; a LiveKit server sends it before anything else.
    Joined(Box<Joined>),
    /// The server took a track's announcement in its backup codec: it is in the next offer of our
    /// tracks.
    BackupPublished {
        /// Client id of what is sent then.
        cid: String,
    },
    /// The server accepted one of our tracks.
    TrackPublished {
        /// Our client id.
        cid: String,
        /// The server's sid.
        sid: String,
    },
    /// The server refused one of our tracks. If none is left the session ends.
    PublishRefused {
        /// Our client id.
        cid: String,
        /// `request_response.Reason` in lower case, such as `not_allowed`.
        reason: String,
    },
    /// The server accepted our data track.
    DataTrackPublished {
        /// Its handle.
        handle: u16,
    },
    /// The server refused our data track.
    DataTrackRefused {
        /// `request_response.Reason` in lower case, such as `not_allowed`.
        reason: String,
    },
    /// The first subscriber of one of our tracks (`track_subscribed`).
    PublishedTrackSubscribed {
        /// Our track's sid.
        sid: String,
    },
    /// Dynacast: layers of our track that are wanted. Ignoring it is harmless.
    QualityWanted {
        /// Our track's sid.
        sid: String,
        /// Per codec.
        codecs: Vec<WantedCodec>,
    },
    /// The server muted or unmuted one of our tracks.
    PublishedTrackMuted {
        /// Our track's sid.
        sid: String,
        /// True if muted.
        muted: bool,
    },
    /// The server took one of our tracks out of the room.
    PublishedTrackGone {
        /// Our track's sid.
        sid: String,
    },
    /// Somebody else's track is there; quality (and subscription, if manual) was asked for.
    TrackAvailable(Box<RemoteTrack>),
    /// A track appeared in an offer: its media will come.
    TrackSubscribed {
        /// Track sid.
        sid: String,
        /// The offer's m-line.
        mid: String,
    },
    /// A track that was in the last offer is in this one no longer.
    TrackUnsubscribed {
        /// Track sid.
        sid: String,
    },
    /// Muted or unmuted by its publisher.
    TrackMuted {
        /// Track sid.
        sid: String,
        /// True if muted.
        muted: bool,
    },
    /// Unpublished, or its publisher left.
    TrackGone {
        /// Track sid.
        sid: String,
        /// Which of the two, and why.
        departure: Departure,
    },
    /// Whether we want a track that is available: by what we told the server, or by what it does
    /// unasked. Tracks of which nothing is said are wanted.
    TrackWanted {
        /// Track sid.
        sid: String,
        /// False if it was not subscribed to, or is switched off.
        wanted: bool,
        /// At which size, of a video that a layout shows; else it is what
        /// [`Receives::quality`] says.
        size: Option<VideoSize>,
    },
    /// The server can't give us this track (`subscription_response`).
    SubscriptionFailed {
        /// Track sid.
        sid: String,
        /// `unknown`, `codec_unsupported` or `track_not_found`.
        error: &'static str,
    },
    /// The server paused or resumed a stream (`stream_state_update`).
    StreamState {
        /// Track sid.
        sid: String,
        /// True if paused.
        paused: bool,
    },
    /// A pong came.
    Pong {
        /// Round trip of the signalling connection.
        rtt: Duration,
    },
    /// Others are connected now ([`SessionOptions::meet_others`](super::SessionOptions)).
    OthersMet(Vec<Other>),
    /// Sids of others that were met and are gone.
    OthersParted(Vec<String>),
    /// Others have made these updates of themselves
    /// ([`Session::update_attribute`](super::Session::update_attribute)): identities, and the number
    /// that each is at. Only with `watch_others`.
    OthersUpdated(Vec<(String, u32)>),
    /// The server refused an update that we made of ourselves.
    UpdateRefused {
        /// `request_response.Reason` in lower case, such as `not_allowed`.
        reason: String,
    },
    /// Who speaks has changed: participant sids, and whether each is active now.
    SpeakersChanged(Vec<(String, bool)>),
    /// The server took the session up again after
    /// [`Session::resume`](super::Session::resume).
    Resumed,
    /// The server moved us to another room (`room_moved`). The tracks of the former one are gone, and
    /// those of the new one are told next; connections and our own tracks stay.
    Moved {
        /// Name of the new room.
        room: String,
        /// Our participant sid there.
        participant_sid: String,
    },
    /// The last event, unless the session is resumed. Nothing but already queued messages follows.
    Ended(EndReason),
}
