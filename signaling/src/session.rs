//! One participant's side of the LiveKit signalling protocol, as a pure state machine.
//!
//! No socket, no runtime, no clock: messages, the media plane's answers and moments go in, and
//! [`Output`]s come out of [`Session::poll_output`]. The protocol is LiveKit's v0 (`/rtc`, two peer
//! connections) or v1 (`/rtc/v1`, one): livekit-protocol's livekit_rtc.proto, and livekit
//! pkg/service and pkg/rtc.

mod candidate;
mod data_subscriptions;
mod data_track;
mod descriptions;
mod end;
mod event;
pub mod flood;
mod layout;
mod negotiate;
mod offers;
mod people;
mod publish;
mod seats;
mod simulate;
mod track;
mod tracks;
mod turn_servers;

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use livekit_protocol as proto;
use prost::bytes::Bytes;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use proto::{SignalRequest, SignalResponse};
pub use stampede_counters::SessionCounters;
use stampede_sdp::{MediaKind, Slots};

pub use data_subscriptions::DATA_TRACKS_MAX;
pub use data_track::DATA_TRACK_HANDLE;
pub use end::{EndReason, WayBack};
pub use event::{
    DataTracks, Joined, MediaCommand, MediaInput, Other, Output, Receives, Role, SessionEvent,
    Subscription, Target, WantedCodec,
};
pub use flood::Flood;
pub use layout::Layout;
pub use livekit_protocol::DisconnectReason;
pub use people::{OTHERS_MET_MAX, UPDATE_ATTRIBUTE};
pub use simulate::{CandidateProtocol, Simulation};
pub use track::{
    Departure, LocalBackup, LocalLayer, LocalTrack, Quality, RemoteTrack, TrackSource, VideoSize,
    height_due,
};
pub use tracks::REMOTE_TRACKS_MAX;
pub use turn_servers::{TURN_SERVERS_MAX, TurnScheme, TurnServer};

use crate::text;
use crate::token::Token;
use crate::wire::{self, DecodeError};
use data_subscriptions::DataSubscriptions;
use data_track::DataTrack;
use descriptions::Descriptions;
use flood::Meters;
use offers::OwnOffers;
use publish::{Publishing, Remaining};
use seats::{Arranged, Seats};
use tracks::{Changes, TrackTable};

/// Most tracks a publisher may announce: the server queues no more than 20 pending ones
/// (livekit rtc/participant.go). Further ones are not announced, and counted.
pub const PUBLISH_TRACKS_MAX: usize = 20;

/// Most server candidates kept while the description they belong to is not there yet, or waits for
/// the engine. Further
/// ones are dropped and counted; the description itself carries candidates as well.
pub const CANDIDATES_HELD_MAX: usize = 32;

/// M-lines to receive by that the first offer of a single connection has (client-sdk-js
/// src/room/RTCEngine.ts; the Rust SDK has as many).
pub const FIRST_SLOTS: Slots = Slots { audio: 3, video: 3 };

/// Id of an offer that goes along with the join.
pub const FIRST_OFFER_ID: u32 = 1;

/// The protocol between clients (client-sdk-js src/version.ts) of who answers calls: requests and
/// answers as text streams, and those in a single message. Nothing packed: that is a capability.
pub const CLIENT_PROTOCOL: i32 = 2;

/// Shortest ping interval taken from a server.
const PING_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Which of LiveKit's signalling protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignalVersion {
    /// `/rtc`: one peer connection to send, on which we offer, and one to receive, on which the
    /// server offers.
    V0,
    /// `/rtc/v1`: one peer connection, on which we offer.
    V1,
}

/// How a [`Session`] behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionOptions {
    /// Whether it receives, sends, or over a single connection both.
    pub role: Role,
    /// The protocol.
    pub version: SignalVersion,
    /// An offer that goes along with the join of who receives ([`SignalVersion::V1`]), with
    /// [`FIRST_SLOTS`]; without one it is asked for after the join.
    pub first_offer: Option<String>,
    /// Longest wait for `join`, or `reconnect` when resuming, after the websocket stands.
    pub join_timeout: Duration,
    /// Longest wait from `join` until every track is published and the offer answered.
    pub publish_timeout: Duration,
    /// Offer at once where the server allows it (`fast_publish`), not after `track_published`.
    pub fast_publish: bool,
    /// Tell of updates that others make of themselves ([`SessionEvent::OthersUpdated`]): all
    /// participants are then read, with tracks or without.
    pub watch_others: bool,
    /// Tell who else is connected ([`SessionEvent::OthersMet`]): all participants are then read too.
    pub meet_others: bool,
}

impl SessionOptions {
    /// Options with the usual limits (10 s each).
    #[must_use]
    pub fn new(role: Role) -> Self {
        let limit = Duration::from_secs(10);
        Self {
            role,
            version: SignalVersion::V0,
            first_offer: None,
            join_timeout: limit,
            publish_timeout: limit,
            fast_publish: true,
            watch_others: false,
            meet_others: false,
        }
    }
}

/// The server's offers that are not answered yet. The engine works on one at a time; of those that
/// come meanwhile only the last one counts, so that a server makes no more work than it waits for.
#[derive(Debug, Default)]
struct Offers {
    /// Id of the one the engine works on.
    worked_on: Option<u32>,
    waiting: Option<proto::SessionDescription>,
}

#[derive(Debug, Clone, Copy)]
struct Ping {
    interval: Duration,
    timeout: Duration,
    next: Instant,
    /// When the oldest unanswered ping is given up.
    give_up: Option<Instant>,
    /// Stamp and moment of the last ping.
    last: Option<(i64, Instant)>,
    rtt: Duration,
}

/// The server's end of a connection.
#[derive(Debug, Default)]
struct Remote {
    /// Its description is there.
    described: bool,
    /// Its candidates that came before that.
    held_candidates: Vec<String>,
}

/// One participant's signalling state. See the [module](self) documentation.
#[derive(Debug)]
pub struct Session {
    /// What it receives, if it does.
    receiving: Option<Receiving>,
    /// What it sends, if it does.
    publishing: Option<Publishing>,
    data_track: DataTrack,
    /// The data tracks of others, if it subscribes to them by itself.
    data_subscriptions: Option<DataSubscriptions>,
    version: SignalVersion,
    fast_publish: bool,
    watch_others: bool,
    /// Sids of others that are connected, if they are to be told of.
    others: Option<HashSet<String>>,
    join_timeout: Duration,
    publish_timeout: Duration,
    started: Instant,
    /// For `join`, or for `reconnect` while resuming.
    join_deadline: Option<Instant>,
    own_sid: String,
    joined: bool,
    /// A new websocket stands and `reconnect` has not come yet.
    resuming: bool,
    /// TURN servers, or the wish for relays alone, were told last.
    named_ways: bool,
    ended: bool,
    flooded: bool,
    /// A `leave` went out, or came, over this websocket.
    said_goodbye: bool,
    /// Interval and timeout the server asked for, for when the session is resumed.
    ping_asked_s: (i32, i32),
    offers: Offers,
    own_offers: OwnOffers,
    descriptions: Descriptions,
    last_offer_id: Option<u32>,
    /// The server's ends of the publisher's and the subscriber's connection.
    remotes: [Remote; 2],
    ping: Option<Ping>,
    refreshed_token: Option<Token>,
    meters: Meters,
    counters: SessionCounters,
    /// Bounded by what one input makes: the owner drains it after each.
    outputs: VecDeque<Output>,
}

/// The tracks of others.
#[derive(Debug)]
struct Receiving {
    subscription: Subscription,
    quality: Quality,
    tracks: TrackTable,
    /// With [`Subscription::Layout`] only.
    seats: Option<Seats>,
}

impl Receiving {
    fn new(Receives { subscription, quality }: Receives) -> Self {
        let seats = match subscription {
            Subscription::Layout { layout, auto } => Some(Seats::new(layout, auto)),
            Subscription::Auto | Subscription::Manual { .. } => None,
        };
        Self { subscription, quality, tracks: TrackTable::default(), seats }
    }
}

impl Session {
    /// A session whose websocket stands since `now`.
    #[must_use]
    pub fn new(options: SessionOptions, now: Instant) -> Self {
        let mut counters = SessionCounters::default();
        let Role { receives, mut tracks, data, data_track, rpc, data_tracks_of_others } =
            options.role;
        counters.tracks_ignored = tracks.len().saturating_sub(PUBLISH_TRACKS_MAX) as u64;
        tracks.truncate(PUBLISH_TRACKS_MAX);
        // Who receives over the same connection has channels in its offers anyhow.
        let alone = receives.is_none() || options.version == SignalVersion::V0;
        let sends = !tracks.is_empty() || ((data || rpc) && alone);
        let publishing = sends.then(|| Publishing::new(tracks));
        let mut own_offers = OwnOffers::default();
        if options.first_offer.is_some() {
            own_offers.sent_with_join();
        }
        let descriptions = Descriptions::new(options.first_offer.unwrap_or_default());
        Self {
            receiving: receives.map(Receiving::new),
            publishing,
            data_track: DataTrack::new(data_track),
            data_subscriptions: (data_tracks_of_others == DataTracks::Manual)
                .then(DataSubscriptions::default),
            version: options.version,
            fast_publish: options.fast_publish,
            watch_others: options.watch_others,
            others: options.meet_others.then(HashSet::new),
            join_timeout: options.join_timeout,
            publish_timeout: options.publish_timeout,
            started: now,
            join_deadline: now.checked_add(options.join_timeout),
            own_sid: String::new(),
            joined: false,
            resuming: false,
            named_ways: false,
            ended: false,
            flooded: false,
            said_goodbye: false,
            ping_asked_s: (0, 0),
            offers: Offers::default(),
            own_offers,
            descriptions,
            last_offer_id: None,
            remotes: Default::default(),
            ping: None,
            refreshed_token: None,
            meters: Meters::new(now),
            counters,
            outputs: VecDeque::new(),
        }
    }

    /// The next thing to do; `None` until there is new input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is wanted; `None` once the session has ended.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.ended {
            return None;
        }
        let publish = self.publishing.as_ref().and_then(|publishing| publishing.deadline);
        let ping = self.ping.map(|ping| ping.give_up.map_or(ping.next, |at| at.min(ping.next)));
        let offer = self.own_offers.next_at();
        let backup = self.publishing.as_ref().and_then(Publishing::backups_until);
        [self.join_deadline, publish, backup, ping, offer].into_iter().flatten().min()
    }

    /// True after `join`.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.joined
    }

    /// The protocol that it speaks.
    #[must_use]
    pub fn version(&self) -> SignalVersion {
        self.version
    }

    /// True once [`SessionEvent::Ended`] was put out.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// True once it has ended with [`EndReason::ServerFlooded`].
    #[must_use]
    pub fn is_flooded(&self) -> bool {
        self.flooded
    }

    /// Our participant sid (`PA_…`), which a resume names; empty before `join`.
    #[must_use]
    pub fn participant_sid(&self) -> &str {
        &self.own_sid
    }

    /// True if [`Self::resume`] can be tried: the server knows us, and no track of ours waits for
    /// the answer to its `add_track`, which would be lost with the websocket.
    #[must_use]
    pub fn can_resume(&self) -> bool {
        self.joined
            && self.publishing.as_ref().is_none_or(|publishing| {
                // Tracks that join others in a connection can't be offered a second time under
                // the names that a server may have taken.
                let waits = publishing.is_offered() && !self.own_offers.are_tracks_answered();
                publishing.is_settled() && !(waits && self.offers_slots())
            })
    }

    /// Takes the session up again: a new websocket stands since `now`, opened with `reconnect=1`
    /// and our sid. Tracks and negotiation stay as they are; the server says `reconnect`, and whoever
    /// offers restarts ICE. Only after an end with
    /// [`WayBack::Resume`]; nothing otherwise.
    pub fn resume(&mut self, now: Instant) {
        if self.can_resume() && self.ended {
            self.ended = false;
            self.resuming = true;
            self.said_goodbye = false;
            self.join_deadline = now.checked_add(self.join_timeout);
            self.ping = None;
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> SessionCounters {
        self.counters
    }

    /// The newest token the server sent (`refresh_token`), for joining again.
    #[must_use]
    pub fn refreshed_token(&self) -> Option<&Token> {
        self.refreshed_token.as_ref()
    }

    /// Tracks of others that are known; 0 for who only sends.
    #[must_use]
    pub fn remote_tracks(&self) -> usize {
        self.receiving.as_ref().map_or(0, |receiving| receiving.tracks.len())
    }

    /// A binary websocket message of the server. One that does not decode is counted, not fatal.
    /// Too many, or one that holds too much, end the session ([`EndReason::ServerFlooded`]).
    pub fn handle_message(&mut self, now: Instant, message: &Bytes) {
        if let Err(flood) = self.meters.message(now, message.len()) {
            return self.end(EndReason::ServerFlooded { flood });
        }
        let all = self.watch_others || self.others.is_some();
        let (receiving, data) = (self.receiving.as_ref(), self.data_subscriptions.as_ref());
        let known = |sid: &str| {
            all || receiving.is_some_and(|one| one.tracks.is_publisher(sid))
                || data.is_some_and(|one| one.is_publisher(sid))
        };
        match wire::decode(message, data.is_some(), known) {
            Ok(wire::Decoded { response, skipped }) => self.dispatch(now, response, skipped),
            Err(DecodeError::Malformed) => self.counters.malformed += 1,
            Err(DecodeError::TooMany { what, most }) => {
                let flood = Flood::Entries { what, most };
                self.end(EndReason::ServerFlooded { flood });
            }
        }
    }

    fn dispatch(&mut self, now: Instant, response: SignalResponse, skipped: usize) {
        if self.ended {
            return;
        }
        let Some(message) = response.message else {
            self.counters.unneeded += 1;
            return;
        };
        self.counters.messages += 1;
        let before = self.outputs.len();
        self.take(now, message, skipped);
        let made = self.outputs.len().saturating_sub(before);
        if let Err(flood) = self.meters.events(now, made) {
            // What it made is not handed out: the engine is spared it.
            self.outputs.truncate(before);
            self.end(EndReason::ServerFlooded { flood });
        }
    }

    fn take(&mut self, now: Instant, message: Response, skipped: usize) {
        match message {
            Response::Join(join) => self.on_join(now, join, skipped),
            Response::Reconnect(reconnect) => self.on_reconnect(now, &reconnect),
            Response::Offer(offer) => self.on_offer(now, offer),
            Response::Answer(answer) => self.on_answer(now, answer),
            Response::MediaSectionsRequirement(wanted) => self.on_slots_wanted(now, wanted),
            Response::Trickle(trickle) => self.on_trickle(now, &trickle),
            Response::Update(update) => self.on_participants(update.participants),
            Response::TrackPublished(published) => self.on_track_published(now, published),
            Response::PublishDataTrackResponse(published) => {
                self.on_data_track_published(published);
            }
            Response::RequestResponse(response) => self.on_request_response(now, response),
            Response::Leave(leave) => self.on_leave(&leave),
            Response::RoomMoved(moved) => self.on_moved(moved),
            Response::RefreshToken(token) => self.on_refresh_token(&token),
            Response::PongResp(pong) => self.on_pong(now, Some(pong.last_ping_timestamp)),
            Response::Pong(_) => self.on_pong(now, None),
            Response::SubscriptionResponse(response) => self.on_subscription_response(response),
            Response::StreamStateUpdate(update) => self.on_stream_state(update),
            Response::SubscribedQualityUpdate(update) => self.on_quality_wanted(now, update),
            Response::SpeakersChanged(changed) => self.on_speakers_changed(changed),
            Response::TrackSubscribed(track) => {
                self.event(SessionEvent::PublishedTrackSubscribed { sid: track.track_sid });
            }
            Response::TrackUnpublished(track) => {
                if let Some(publishing) = &mut self.publishing {
                    publishing.forget(&track.track_sid);
                }
                self.event(SessionEvent::PublishedTrackGone { sid: track.track_sid });
            }
            Response::Mute(mute) => {
                let (sid, muted) = (mute.sid, mute.muted);
                self.event(SessionEvent::PublishedTrackMuted { sid, muted });
            }
            // Connection quality, room counts and handles of data tracks: nothing here depends on
            // them.
            _ => self.counters.unneeded += 1,
        }
    }

    /// Something of this length came that is no message. Counted, and fatal only as a flood.
    pub fn handle_malformed(&mut self, now: Instant, bytes: usize) {
        self.counters.malformed += 1;
        if let Err(flood) = self.meters.message(now, bytes) {
            self.end(EndReason::ServerFlooded { flood });
        }
    }

    /// The media plane's part.
    pub fn handle_media(&mut self, input: MediaInput) {
        if self.ended {
            return;
        }
        match input {
            MediaInput::LocalAnswer { offer_id, sdp } => self.on_local_answer(offer_id, sdp),
            MediaInput::LocalOffer { id, sdp } => self.on_local_offer(id, sdp),
            MediaInput::LocalCandidate { target, candidate } => {
                self.send(Request::Trickle(proto::TrickleRequest {
                    candidate_init: candidate::format(&candidate),
                    target: target.to_proto() as i32,
                    r#final: false,
                }));
            }
            MediaInput::NegotiationFailed { reason } => {
                self.end_with_leave(EndReason::NegotiationFailed { reason });
            }
            MediaInput::Disconnected { reason } => {
                self.end(EndReason::MediaLost { reason });
            }
        }
    }

    /// Time has come. Harmless if called early.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.ended {
            return;
        }
        if self.join_deadline.is_some_and(|at| now >= at) {
            return match self.resuming {
                // A leave would end what another try is to take up.
                true => self.end(EndReason::JoinTimeout),
                false => self.end_with_leave(EndReason::JoinTimeout),
            };
        }
        let publishing = self.publishing.as_ref();
        if publishing.and_then(|publishing| publishing.deadline).is_some_and(|at| now >= at) {
            return self.end_with_leave(EndReason::PublishTimeout);
        }
        if let Some(publishing) = &mut self.publishing {
            publishing.give_up_backups(now);
        }
        let offer = self.own_offers.next(now);
        self.outputs.extend(offer.map(Output::Media));
        let Some(ping) = self.ping else { return };
        if ping.give_up.is_some_and(|at| now >= at) {
            // Without a `leave`: it would end what a resume is to take up.
            return self.end(EndReason::PingTimeout);
        }
        if now >= ping.next {
            self.descriptions.pack();
            self.send_ping(now, ping);
        }
    }

    /// Subscribes to or unsubscribes from tracks by hand ([`Subscription::Manual`]). Nothing for who
    /// only sends.
    pub fn subscribe(&mut self, track_sids: Vec<String>, subscribe: bool) {
        let Some(Receiving { quality, tracks, .. }) = &self.receiving else { return };
        if self.ended || track_sids.is_empty() {
            return;
        }
        let quality = *quality;
        let is_video = |sid: &&String| tracks.kind(sid) != Some(MediaKind::Audio);
        let video: Vec<String> = track_sids.iter().filter(is_video).cloned().collect();
        if subscribe {
            self.send_quality(video, quality);
        }
        for sid in &track_sids {
            self.event(SessionEvent::TrackWanted {
                sid: sid.clone(),
                wanted: subscribe,
                size: None,
            });
        }
        self.send_subscription(track_sids, subscribe);
    }

    /// Asks for another layer of these video tracks. Nothing for a publisher.
    pub fn set_quality(&mut self, track_sids: Vec<String>, quality: Quality) {
        if !self.ended && self.receiving.is_some() {
            self.send_quality(track_sids, quality);
        }
    }

    /// Leaves: `leave` goes out and the session ends. Of one that has ended without a word the
    /// server hears it now, if the websocket still stands, so that it forgets us at once.
    pub fn leave(&mut self) {
        if self.ended {
            return self.send_leave();
        }
        self.end_with_leave(EndReason::Left);
    }

    /// Asks the server to do something to us (livekit rtc/room.go, `SimulateScenario`): a tool of
    /// LiveKit's own for testing how clients come back.
    pub fn simulate(&mut self, scenario: Simulation) {
        if !self.ended {
            let scenario = Some(scenario.to_proto());
            self.send(Request::Simulate(proto::SimulateScenario { scenario }));
        }
    }

    /// The transport failed or closed. Nothing if the session has ended already.
    pub fn handle_transport_end(&mut self, reason: EndReason) {
        self.end(reason);
    }

    fn on_join(&mut self, now: Instant, join: proto::JoinResponse, skipped: usize) {
        if self.joined {
            self.counters.malformed += 1;
            return;
        }
        if !join.alternative_url.is_empty() {
            let url = text::foreign(&join.alternative_url, 200);
            return self.end(EndReason::Redirected { url });
        }
        let Some(participant) = join.participant else {
            self.counters.malformed += 1;
            return;
        };
        self.joined = true;
        match self.version {
            SignalVersion::V0 => self.counters.joined_v0 = 1,
            SignalVersion::V1 => self.counters.joined_v1 = 1,
        }
        self.join_deadline = None;
        self.own_sid.clone_from(&participant.sid);
        self.ping_asked_s = (join.ping_interval, join.ping_timeout);
        self.start_pings(now);
        let room = join.room.unwrap_or_default();
        let info = join.server_info.unwrap_or_default();
        let or = |new: String, old: String| if new.is_empty() { old } else { new };
        self.event(SessionEvent::Joined(Box::new(Joined {
            participant_sid: participant.sid,
            identity: participant.identity,
            room_sid: room.sid,
            room_name: room.name,
            server_version: or(info.version, join.server_version),
            region: or(info.region, join.server_region),
            protocol: info.protocol,
            participants: join.other_participants.len() + skipped,
            subscriber_primary: join.subscriber_primary,
            fast_publish: join.fast_publish,
            ping_interval: self.ping.map_or(Duration::ZERO, |ping| ping.interval),
        })));
        self.on_ice_servers(&join.ice_servers, join.client_configuration.as_ref());
        self.on_participants(join.other_participants);
        self.start_receiving(now);
        self.start_publishing(now, join.fast_publish);
        self.publish_data_track();
    }

    /// The server knows us again (livekit rtc/room.go, `ResumeParticipant`). It wants to hear what
    /// we have, and restarts ICE itself on the connection that it offers; on the other one we do.
    fn on_reconnect(&mut self, now: Instant, reconnect: &proto::ReconnectResponse) {
        if !std::mem::take(&mut self.resuming) {
            self.counters.unneeded += 1;
            return;
        }
        self.join_deadline = None;
        // Whatever was under way on the old websocket is answered by nobody. Another node numbers its
        // offers anew.
        self.offers = Offers::default();
        self.last_offer_id = None;
        self.remotes.iter_mut().for_each(|remote| remote.held_candidates.clear());
        self.start_pings(now);
        self.send_sync_state();
        self.publish_data_track();
        self.subscribe_to_data_tracks_again();
        self.event(SessionEvent::Resumed);
        self.on_ice_servers(&reconnect.ice_servers, reconnect.client_configuration.as_ref());
        let restart = self.own_offers.restart();
        self.outputs.extend(restart.map(Output::Media));
    }

    /// What the media plane has to know before it looks for a way. Nothing where the server names
    /// none and wants none, and never did.
    fn on_ice_servers(
        &mut self,
        servers: &[proto::IceServer],
        configuration: Option<&proto::ClientConfiguration>,
    ) {
        let servers = turn_servers::read(servers);
        let relay = configuration.map(|configuration| configuration.force_relay());
        let only = relay == Some(proto::ClientConfigSetting::Enabled);
        let is_any = only || !servers.is_empty();
        if std::mem::replace(&mut self.named_ways, is_any) || is_any {
            let command = MediaCommand::TurnServers { servers, only };
            self.outputs.push_back(Output::Media(command));
        }
    }

    /// livekit rtc/room.go, `onSyncState`: tracks it doesn't know make it ask for a full
    /// reconnect. Tracks are named that differ from what the server does by itself: those not
    /// wanted with `auto_subscribe`, else those wanted. Data channels are the server's own, which
    /// it opens anew; what comes over them nobody reads, so that there is no state of it.
    fn send_sync_state(&mut self) {
        let mut state = proto::SyncState::default();
        let mut subscription = proto::UpdateSubscription::default();
        if let Some(Receiving { subscription: how, tracks, seats, .. }) = &self.receiving {
            match how {
                Subscription::Auto => {}
                Subscription::Manual { audio, video } => {
                    subscription.subscribe = true;
                    subscription.track_sids = tracks.sids(*audio, *video);
                }
                Subscription::Layout { auto, .. } => {
                    let seats = seats.as_ref();
                    subscription.subscribe = !auto;
                    subscription.track_sids = seats.map_or_else(Vec::new, Seats::subscribed);
                    state.track_sids_disabled = seats.map_or_else(Vec::new, Seats::disabled);
                }
            }
        }
        if let Some(publishing) = &self.publishing {
            state.publish_tracks = publishing.published().to_vec();
        }
        state.publish_data_tracks.extend(self.data_track.accepted().cloned());
        state.subscription = Some(subscription);
        let [offer, answer] = self.descriptions.get();
        state.offer = description("offer", offer);
        state.answer = description("answer", answer);
        self.send(Request::SyncState(state));
    }

    fn on_participants(&mut self, participants: Vec<proto::ParticipantInfo>) {
        self.tell_updates(&participants);
        self.tell_others(&participants);
        self.subscribe_to_data_tracks(&participants);
        let Some(Receiving { tracks, .. }) = &mut self.receiving else { return };
        let mut changes = Changes::default();
        for participant in participants {
            if participant.sid == self.own_sid {
                continue;
            }
            if participant.state == proto::participant_info::State::Disconnected as i32 {
                let reason = DisconnectReason::try_from(participant.disconnect_reason)
                    .unwrap_or(DisconnectReason::UnknownReason);
                tracks.remove_publisher(&participant.sid, reason, &mut changes);
            } else {
                tracks.update(participant, &mut changes);
            }
        }
        self.apply(changes);
    }

    fn apply(&mut self, changes: Changes) {
        let Some(Receiving { subscription, quality, seats, .. }) = &mut self.receiving else {
            return;
        };
        let (subscription, quality) = (*subscription, *quality);
        self.counters.tracks_ignored += changes.ignored;
        if let Some(seats) = seats {
            let Arranged { requests, events } = seats.arrange(&changes);
            changes.events.into_iter().chain(events).for_each(|event| self.event(event));
            return requests.into_iter().for_each(|request| self.send(request));
        }
        for event in changes.events {
            self.event(event);
        }
        // Quality first, so that a manual subscription starts at the right layer.
        self.send_quality(changes.video_sids, quality);
        if let Subscription::Manual { audio, video } = subscription {
            let wanted = |kind: MediaKind| match kind {
                MediaKind::Audio => audio,
                MediaKind::Video => video,
            };
            let (sids, others): (Vec<_>, Vec<_>) =
                changes.announced.into_iter().partition(|track| wanted(track.kind));
            for track in others {
                self.event(SessionEvent::TrackWanted { sid: track.sid, wanted: false, size: None });
            }
            self.send_subscription(sids.into_iter().map(|track| track.sid).collect(), true);
        }
    }

    fn send_quality(&mut self, track_sids: Vec<String>, quality: Quality) {
        if !track_sids.is_empty() {
            self.send(Request::TrackSetting(proto::UpdateTrackSettings {
                track_sids,
                quality: quality.to_proto() as i32,
                ..proto::UpdateTrackSettings::default()
            }));
        }
    }

    fn send_subscription(&mut self, track_sids: Vec<String>, subscribe: bool) {
        if !track_sids.is_empty() {
            self.send(Request::Subscription(proto::UpdateSubscription {
                track_sids,
                subscribe,
                participant_tracks: Vec::new(),
            }));
        }
    }

    fn on_track_published(&mut self, now: Instant, published: proto::TrackPublishedResponse) {
        let Some(publishing) = &mut self.publishing else {
            self.counters.unneeded += 1;
            return;
        };
        let remaining = publishing.answered_track(&published.cid, true);
        if remaining == Remaining::Unknown {
            self.counters.unneeded += 1;
            return;
        }
        let sid = published.track.as_ref().map(|track| track.sid.clone()).unwrap_or_default();
        let cid = published.cid.clone();
        if publishing.is_backup(&cid) {
            // The track itself is known already, and so is its sid.
            self.event(SessionEvent::BackupPublished { cid });
            return self.offer_backup(now);
        }
        publishing.remember(published);
        self.settle_publishing();
        self.event(SessionEvent::TrackPublished { cid, sid });
        if remaining == Remaining::NonePending {
            self.offer_tracks(now);
        }
    }

    fn on_request_response(&mut self, now: Instant, response: proto::RequestResponse) {
        use proto::request_response::{Reason, Request as About};
        let reason = Reason::try_from(response.reason).unwrap_or(Reason::UnclassifiedError);
        if let Some(About::UpdateMetadata(_)) = response.request {
            return self.on_update_answered(reason);
        }
        if let Some(About::PublishDataTrack(_)) = response.request {
            return self.on_data_track_answered(reason);
        }
        let (Some(publishing), Some(About::AddTrack(request))) =
            (&mut self.publishing, response.request)
        else {
            self.counters.unneeded += 1;
            return;
        };
        if matches!(reason, Reason::Ok | Reason::Queued) {
            return;
        }
        let remaining = publishing.answered_track(&request.cid, false);
        self.settle_publishing();
        let reason = reason.as_str_name().to_ascii_lowercase();
        if remaining != Remaining::Unknown {
            let (cid, reason) = (request.cid, reason.clone());
            self.event(SessionEvent::PublishRefused { cid, reason });
        }
        match remaining {
            Remaining::NonePending => self.offer_tracks(now),
            Remaining::AllRefused => self.end_with_leave(EndReason::PublishRefused { reason }),
            Remaining::Others | Remaining::Unknown => {}
        }
    }

    fn on_leave(&mut self, leave: &proto::LeaveRequest) {
        use proto::leave_request::Action;
        self.said_goodbye = true;
        let reason =
            DisconnectReason::try_from(leave.reason).unwrap_or(DisconnectReason::UnknownReason);
        // `can_reconnect` is what servers before protocol 13 sent instead of `action`.
        let end = match Action::try_from(leave.action) {
            Ok(Action::Resume) => EndReason::ReconnectAsked { resume: true, reason },
            Ok(Action::Reconnect) => EndReason::ReconnectAsked { resume: false, reason },
            _ if leave.can_reconnect => EndReason::ReconnectAsked { resume: false, reason },
            _ => EndReason::ServerLeft { reason },
        };
        self.end(end);
    }

    /// Only LiveKit's cloud and the embedded SFU move anybody. Connections, our tracks and what was
    /// negotiated stay; sid, token and the others are new (client-sdk-js src/room/Room.ts).
    fn on_moved(&mut self, moved: proto::RoomMovedResponse) {
        let (true, Some(room), Some(own)) = (self.joined, moved.room, moved.participant) else {
            self.counters.malformed += 1;
            return;
        };
        self.on_refresh_token(&moved.token);
        self.own_sid.clone_from(&own.sid);
        self.others_left_behind();
        self.data_tracks_left_behind();
        if let Some(Receiving { tracks, .. }) = &mut self.receiving {
            let mut changes = Changes::default();
            tracks.remove_all(&mut changes);
            self.apply(changes);
        }
        self.event(SessionEvent::Moved { room: room.name, participant_sid: own.sid });
        self.on_participants(moved.other_participants);
    }

    fn on_refresh_token(&mut self, token: &str) {
        match Token::new(token) {
            Ok(token) => self.refreshed_token = Some(token),
            Err(_) => self.counters.malformed += 1,
        }
    }

    fn start_pings(&mut self, now: Instant) {
        let (interval_s, timeout_s) = self.ping_asked_s;
        let seconds = |value: i32| Duration::from_secs(u64::try_from(value).unwrap_or(0));
        let (interval, timeout) = (seconds(interval_s), seconds(timeout_s));
        if interval.is_zero() || timeout.is_zero() {
            return; // the server wants none
        }
        let interval = interval.max(PING_INTERVAL_MIN);
        let Some(next) = now.checked_add(interval) else { return };
        self.ping =
            Some(Ping { interval, timeout, next, give_up: None, last: None, rtt: Duration::ZERO });
    }

    fn send_ping(&mut self, now: Instant, mut ping: Ping) {
        let since_start = now.saturating_duration_since(self.started);
        // Only echoed by the server (livekit pkg/service/rtcservice.go:646), so any clock will do.
        let timestamp = i64::try_from(since_start.as_millis()).unwrap_or(i64::MAX);
        let rtt = i64::try_from(ping.rtt.as_millis()).unwrap_or(i64::MAX);
        ping.last = Some((timestamp, now));
        ping.give_up = ping.give_up.or_else(|| now.checked_add(ping.timeout));
        ping.next = now + ping.interval;
        self.ping = Some(ping);
        self.send(Request::PingReq(proto::Ping { timestamp, rtt }));
    }

    fn on_pong(&mut self, now: Instant, echoed: Option<i64>) {
        let Some(ping) = &mut self.ping else { return };
        ping.give_up = None;
        let Some((timestamp, sent_at)) = ping.last else { return };
        if echoed == Some(timestamp) {
            ping.last = None;
            ping.rtt = now.saturating_duration_since(sent_at);
            let rtt = ping.rtt;
            self.event(SessionEvent::Pong { rtt });
        }
    }

    fn on_subscription_response(&mut self, response: proto::SubscriptionResponse) {
        let error = match proto::SubscriptionError::try_from(response.err) {
            Ok(proto::SubscriptionError::SeCodecUnsupported) => "codec_unsupported",
            Ok(proto::SubscriptionError::SeTrackNotfound) => "track_not_found",
            Ok(proto::SubscriptionError::SeUnknown) | Err(_) => "unknown",
        };
        self.event(SessionEvent::SubscriptionFailed { sid: response.track_sid, error });
    }

    fn on_stream_state(&mut self, update: proto::StreamStateUpdate) {
        for stream in update.stream_states {
            let paused = stream.state == proto::StreamState::Paused as i32;
            self.event(SessionEvent::StreamState { sid: stream.track_sid, paused });
        }
    }

    #[allow(deprecated)] // `subscribed_qualities` is all that older servers send
    fn on_quality_wanted(&mut self, now: Instant, update: proto::SubscribedQualityUpdate) {
        let qualities = |list: &[proto::SubscribedQuality]| {
            list.iter()
                .filter_map(|one| Some((Quality::from_proto(one.quality)?, one.enabled)))
                .collect()
        };
        let mut codecs: Vec<WantedCodec> = update
            .subscribed_codecs
            .iter()
            .map(|one| WantedCodec {
                codec: one.codec.clone(),
                qualities: qualities(&one.qualities),
            })
            .collect();
        if codecs.is_empty() {
            let qualities = qualities(&update.subscribed_qualities);
            codecs.push(WantedCodec { codec: String::new(), qualities });
        }
        let enabled = |one: &&WantedCodec| one.qualities.iter().any(|(_, enabled)| *enabled);
        if let Some(publishing) = &mut self.publishing {
            let wanted = codecs.iter().filter(enabled);
            let (sid, until) = (&update.track_sid, now.checked_add(self.publish_timeout));
            let requests: Vec<_> =
                wanted.filter_map(|one| publishing.wanted(sid, &one.codec, until)).collect();
            for request in requests {
                self.send(Request::AddTrack(request));
            }
        }
        self.event(SessionEvent::QualityWanted { sid: update.track_sid, codecs });
    }

    fn send(&mut self, message: Request) {
        self.outputs.push_back(Output::Send(Box::new(SignalRequest { message: Some(message) })));
    }

    fn event(&mut self, event: SessionEvent) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Ends with a `leave`, so that the server forgets us at once and not after ICE has died.
    fn end_with_leave(&mut self, reason: EndReason) {
        if self.ended {
            return;
        }
        self.send_leave();
        self.end(reason);
    }

    /// Says `leave`, once a websocket, and not in answer to one.
    fn send_leave(&mut self) {
        if std::mem::replace(&mut self.said_goodbye, true) {
            return;
        }
        self.send(Request::Leave(proto::LeaveRequest {
            reason: DisconnectReason::ClientInitiated as i32,
            action: proto::leave_request::Action::Disconnect as i32,
            ..proto::LeaveRequest::default()
        }));
    }

    fn end(&mut self, reason: EndReason) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.flooded = matches!(reason, EndReason::ServerFlooded { .. });
        self.event(SessionEvent::Ended(reason));
    }
}

/// A description of a sync state; `None` if there was none yet.
fn description(kind: &str, sdp: &str) -> Option<proto::SessionDescription> {
    (!sdp.is_empty()).then(|| proto::SessionDescription {
        r#type: kind.to_owned(),
        sdp: sdp.to_owned(),
        ..proto::SessionDescription::default()
    })
}
