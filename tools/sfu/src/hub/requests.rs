//! What clients send over their WebSocket.

use std::collections::HashMap;
use std::sync::Arc;

use livekit_protocol as proto;
use prost::Message as _;
use proto::request_response::Reason;
use proto::signal_request::Message as Request;
use proto::signal_response::Message;
use stampede_core::MediaKind;
use stampede_protobuf::Refusal;
use stampede_sdp::Description;

use super::codecs::Backup;
use super::outbox::SignalKey;
use super::room::{BoundMid, PendingTrack, RoomTrack};
use super::{Hub, Place, messages};
use crate::bounded::BoundedError;
use crate::limits;
use crate::media::message::{Command, PeerKey, PublishedTrack, Role, TrackKey};

/// Tracks a participant may announce without having offered them (LiveKit
/// `pkg/rtc/participant.go`, `maxPendingTracks`).
pub(super) const PENDING_TRACKS_MAX: usize = 20;

impl Hub {
    /// Carries out one request that came over this websocket. Whether it goes on.
    pub(crate) fn request(&mut self, signal: SignalKey, request: Request) -> bool {
        let Some(who) = self.signals.get(&signal).cloned() else { return false };
        let room = self.rooms.get_mut(&who.room);
        if let Some(participant) = room.and_then(|room| room.participants.get_mut(&who.sid)) {
            participant.session.heard(self.now);
        }
        self.request_of(&who, request);
        self.signals.contains_key(&signal)
    }

    /// A message that came over this websocket is not to be carried out, which its participant is told.
    pub(crate) fn refuse_request(&mut self, signal: SignalKey, why: &BoundedError) {
        self.counted.requests_refused += 1;
        let Some(who) = self.signals.get(&signal) else { return };
        tracing::debug!(room = who.room, sid = %who.sid, %why, "a request is refused");
        let reason = match why {
            BoundedError::Refused(Refusal::TooMany { .. }) => Reason::LimitExceeded,
            _ => Reason::InvalidRequest,
        };
        let (reason, message) = (reason as i32, why.to_string());
        let refused = proto::RequestResponse { reason, message, ..Default::default() };
        self.answer(who, Message::RequestResponse(refused));
    }

    fn request_of(&mut self, who: &Place, request: Request) {
        match request {
            Request::Offer(offer) => self.offer(who, offer),
            Request::Answer(answer) => self.answer_offer(who, answer),
            Request::AddTrack(request) => self.add_track(who, &request),
            Request::Mute(mute) => self.mute(who, &mute),
            Request::Subscription(update) => self.update_subscription(who, update),
            Request::TrackSetting(setting) => self.track_setting(who, &setting),
            Request::Leave(_) => {
                let reason = proto::DisconnectReason::ClientInitiated;
                self.remove(&who.room, &who.sid, reason, false);
            }
            Request::SyncState(state) => self.sync_state(who, state),
            Request::Simulate(simulate) => {
                if let Some(scenario) = simulate.scenario {
                    self.simulate(who, scenario);
                }
            }
            Request::Ping(timestamp) => self.answer(who, Message::Pong(timestamp)),
            Request::PingReq(ping) => {
                let pong = proto::Pong {
                    last_ping_timestamp: ping.timestamp,
                    timestamp: messages::unix_ms(),
                };
                self.answer(who, Message::PongResp(pong));
            }
            Request::UpdateMetadata(update) => self.update_metadata(who, update),
            Request::PublishDataTrackRequest(request) => self.publish_data_track(who, request),
            Request::UnpublishDataTrackRequest(request) => self.unpublish_data_track(who, request),
            Request::UpdateDataSubscription(update) => self.update_data_subscription(who, &update),
            // An ICE-lite server needs no candidates: it learns a client's address from its
            // first connectivity check.
            Request::Trickle(_) => {}
            // Asked for by clients, not needed for anything here: layers and audio features
            // show in the media, permissions are "all", data blobs are not offered.
            _ => {}
        }
    }

    fn answer(&self, who: &Place, message: Message) {
        let room = self.rooms.get(&who.room);
        if let Some(participant) = room.and_then(|room| room.participants.get(&who.sid)) {
            participant.send(message);
        }
    }

    /// An offer that can't be read ends the participant's stay.
    pub(super) fn offer(&mut self, who: &Place, offer: proto::SessionDescription) {
        let description = match Description::parse(&offer.sdp) {
            Ok(description) => description,
            Err(error) => {
                tracing::warn!(room = who.room, %error, "an offer can't be read");
                self.remove(&who.room, &who.sid, proto::DisconnectReason::StateMismatch, true);
                return;
            }
        };
        self.ensure_publisher(who);
        self.follow_media(who, &description);
        let Some((worker, peer, tracks)) = self.bindings(who) else { return };
        let room = self.rooms.get_mut(&who.room);
        let participant = room.and_then(|room| room.participants.get_mut(&who.sid));
        let single = participant.is_some_and(|participant| {
            participant.offers_out += 1;
            participant.single
        });
        let sdp = as_taken(&description, single);
        self.command(worker, Command::Offer { peer, id: offer.id, sdp, tracks });
    }

    fn ensure_publisher(&mut self, who: &Place) {
        let peer = PeerKey(self.next_key());
        let room = self.rooms.get_mut(&who.room);
        let Some(participant) = room.and_then(|room| room.participants.get_mut(&who.sid)) else {
            return;
        };
        if participant.publisher.is_some() {
            return;
        }
        participant.publisher = Some(peer);
        let worker = participant.worker;
        let label = participant.label();
        self.peers.insert(peer, (who.room.clone(), who.sid.clone(), Role::Publisher));
        let (role, tracks, allow_pause) = (Role::Publisher, Vec::new(), false);
        self.command(worker, Command::AddPeer { peer, role, label, tracks, allow_pause });
    }

    /// Notes what an offer sends, ends tracks that it no longer sends, and finds the m-lines of
    /// pending tracks.
    fn follow_media(&mut self, who: &Place, offer: &Description<'_>) {
        let room = self.rooms.get_mut(&who.room);
        let Some(participant) = room.and_then(|room| room.participants.get_mut(&who.sid)) else {
            return;
        };
        let mut ended = Vec::new();
        for media in &offer.media {
            let Some(kind) = media.media_type.kind() else { continue };
            let known = participant.mids.get(media.mid);
            let same = known.is_some_and(|known| known.track_id.as_deref() == media.track_id);
            if media.direction.sends() && same {
                continue;
            }
            ended.extend(participant.mids.remove(media.mid).and_then(|known| known.track));
            if media.direction.sends() {
                let track_id = media.track_id.map(str::to_owned);
                let bound = BoundMid { kind, track_id, track: None };
                participant.mids.insert(media.mid.to_owned(), bound);
            }
        }
        for key in &ended {
            self.unpublish(&who.room, *key);
        }
        self.bind_pending(who);
        if !ended.is_empty() {
            self.refresh_tracks(who);
            self.announce(&who.room, &who.sid);
        }
    }

    /// Finds an m-line for each pending track: by its client id, else the first of its kind
    /// whose own id is no pending track's (LiveKit `pkg/rtc/participant.go`).
    fn bind_pending(&mut self, who: &Place) -> Vec<PublishedTrack> {
        let mut bound = Vec::new();
        let workers = self.workers.len();
        loop {
            let key = TrackKey(self.next_key());
            let Some(room) = self.rooms.get_mut(&who.room) else { break };
            let Some(participant) = room.participants.get_mut(&who.sid) else { break };
            let Some((pending, mid)) = next_binding(&participant.pending, &participant.mids) else {
                break;
            };
            let mut pending = participant.pending.remove(pending);
            pending.info.mid = mid.clone();
            let sid: Arc<str> = pending.info.sid.as_str().into();
            let track = published(key, mid.clone(), pending.kind, &pending.info);
            if let Some(entry) = participant.mids.get_mut(&mid) {
                entry.track = Some(key);
            }
            participant.tracks.push(key);
            room.tracks.insert(
                key,
                RoomTrack {
                    sid: sid.clone(),
                    publisher: who.sid.clone(),
                    kind: pending.kind,
                    home: participant.worker,
                    backup: Backup::of(&pending.info).filter(|_| pending.backup_of.is_none()),
                    backup_of: pending.backup_of,
                    info: pending.info,
                    subscribers: vec![0; workers],
                },
            );
            bound.push(track);
        }
        bound
    }

    /// All bound tracks of a publisher.
    pub(super) fn bindings(&self, who: &Place) -> Option<(usize, PeerKey, Vec<PublishedTrack>)> {
        let room = self.rooms.get(&who.room)?;
        let participant = room.participants.get(&who.sid)?;
        let tracks = participant.mids.iter().filter_map(|(mid, bound)| {
            let track = bound.track?;
            let info = &room.tracks.get(&track)?.info;
            Some(published(track, mid.clone(), bound.kind, info))
        });
        Some((participant.worker, participant.publisher?, tracks.collect()))
    }

    fn answer_offer(&mut self, who: &Place, answer: proto::SessionDescription) {
        let room = self.rooms.get(&who.room);
        let Some(participant) = room.and_then(|room| room.participants.get(&who.sid)) else {
            return;
        };
        let Some(peer) = participant.subscriber else { return };
        let command = Command::Answer { peer, id: answer.id, sdp: answer.sdp };
        self.command(participant.worker, command);
    }

    pub(super) fn add_track(&mut self, who: &Place, request: &proto::AddTrackRequest) {
        let prefix = match (messages::media_kind(request.r#type), request.source) {
            (Some(MediaKind::Audio), _) => "TR_AM",
            (_, source) if source == proto::TrackSource::ScreenShare as i32 => "TR_VS",
            _ => "TR_VC",
        };
        let sid = self.id(prefix);
        let room = self.rooms.get_mut(&who.room);
        let Some(participant) = room.and_then(|room| room.participants.get_mut(&who.sid)) else {
            return;
        };
        let (worker, peer) = (participant.worker, participant.publisher);
        let kind = messages::media_kind(request.r#type);
        let taken = if !participant.grants().can_publish.unwrap_or(true) {
            Err(Reason::NotAllowed)
        } else if participant.pending.len() >= PENDING_TRACKS_MAX
            || participant.tracks.len() >= limits::TRACKS_MAX
            || is_excessive(request)
        {
            Err(Reason::LimitExceeded)
        } else if !request.sid.is_empty() {
            self.add_backup(who, request)
        } else if let Some(kind) = kind {
            let info = messages::track_info(request, sid);
            let cid = request.cid.clone();
            participant.send(Message::TrackPublished(proto::TrackPublishedResponse {
                cid: cid.clone(),
                track: Some(info.clone()),
            }));
            participant.pending.push(PendingTrack { cid, kind, info, backup_of: None });
            Ok(())
        } else {
            Err(Reason::NotAllowed)
        };
        if let Err(reason) = taken {
            // What is too long is not sent back.
            let about = (!is_excessive(request)).then(|| request.clone());
            let cid = about.as_ref().map_or("of this request", |about| about.cid.as_str());
            let refused = proto::RequestResponse {
                reason: reason as i32,
                message: format!("track {cid} can't be published"),
                request: about.map(proto::request_response::Request::AddTrack),
                ..proto::RequestResponse::default()
            };
            return self.answer(who, Message::RequestResponse(refused));
        }
        // The offer may have come first; its answer is long sent, so the track is live at once.
        for track in self.bind_pending(who) {
            let key = track.track;
            if let Some(peer) = peer {
                self.command(worker, Command::BindTrack { peer, track });
            }
            self.go_live(&who.room, key);
        }
    }

    /// Rebuilds a participant's list of tracks.
    fn refresh_tracks(&mut self, who: &Place) {
        let Some(room) = self.rooms.get_mut(&who.room) else { return };
        let Some(participant) = room.participants.get_mut(&who.sid) else { return };
        let tracks = &room.tracks;
        let live: Vec<proto::TrackInfo> = participant
            .tracks
            .iter()
            .filter_map(|key| Some(tracks.get(key)?.info.clone()))
            .collect();
        participant.info.tracks.retain(|info| live.iter().any(|track| track.sid == info.sid));
    }

    fn mute(&mut self, who: &Place, mute: &proto::MuteTrackRequest) {
        let Some(room) = self.rooms.get_mut(&who.room) else { return };
        let Some(participant) = room.participants.get_mut(&who.sid) else { return };
        for key in &participant.tracks {
            if let Some(track) = room.tracks.get_mut(key)
                && *track.sid == *mute.sid
            {
                track.info.muted = mute.muted;
            }
        }
        for info in &mut participant.info.tracks {
            if info.sid == mute.sid {
                info.muted = mute.muted;
            }
        }
        for pending in &mut participant.pending {
            if pending.info.sid == mute.sid {
                pending.info.muted = mute.muted;
            }
        }
        self.announce(&who.room, &who.sid);
    }

    fn update_metadata(&mut self, who: &Place, update: proto::UpdateParticipantMetadata) {
        let room = self.rooms.get_mut(&who.room);
        let Some(participant) = room.and_then(|room| room.participants.get_mut(&who.sid)) else {
            return;
        };
        let allowed = participant.grants().can_update_own_metadata.unwrap_or(false);
        let mut info = participant.info.clone();
        let reason = if !allowed {
            Reason::NotAllowed
        } else if apply_update(&mut info, update.clone()).is_err() {
            Reason::LimitExceeded
        } else {
            participant.info = info;
            // Or the next token would take it back (LiveKit `pkg/rtc/participant.go`, `SetMetadata`).
            let (info, claims) = (&participant.info, &mut participant.claims);
            claims.name.clone_from(&info.name);
            claims.metadata.clone_from(&info.metadata);
            claims.attributes.clone_from(&info.attributes);
            Reason::Ok
        };
        participant.send(Message::RequestResponse(proto::RequestResponse {
            request_id: update.request_id,
            reason: reason as i32,
            request: Some(proto::request_response::Request::UpdateMetadata(update)),
            ..proto::RequestResponse::default()
        }));
        if reason == Reason::Ok {
            participant.refresh_token();
            self.announce_update(&who.room, &who.sid);
        }
    }
}

/// Whether an announced track is said to be more than a track is.
fn is_excessive(request: &proto::AddTrackRequest) -> bool {
    let codecs = &request.simulcast_codecs;
    request.encoded_len() > limits::ADD_TRACK_BYTES_MAX
        || request.layers.len() > limits::LAYERS_MAX
        || codecs.len() > limits::LAYERS_MAX
        || codecs.iter().any(|codec| codec.layers.len() > limits::LAYERS_MAX)
}

/// What is empty stays as it was, and an attribute without a value is taken away (LiveKit
/// `pkg/rtc/participant.go`, `UpdateMetadata`, `SetAttributes`).
///
/// # Errors
/// It would say more of itself than it may.
fn apply_update(
    info: &mut proto::ParticipantInfo,
    update: proto::UpdateParticipantMetadata,
) -> Result<(), limits::TooLong> {
    if !update.metadata.is_empty() {
        info.metadata = update.metadata;
    }
    if !update.name.is_empty() {
        info.name = update.name;
    }
    info.attributes.extend(update.attributes);
    info.attributes.retain(|_, value| !value.is_empty());
    limits::check_metadata(&info.name, &info.metadata, &info.attributes)
}

/// The offer as the SFU takes it. A client that offers `sendrecv` media would get an answer that
/// promises to send. An ICE-lite server has no use for candidates, and those of another family only
/// would end ICE before it began. On a single connection LiveKit is the DTLS client (pion's default),
/// which str0m is of a passive peer.
fn as_taken(offer: &Description<'_>, single: bool) -> String {
    offer.rewrite(|media, line| match line {
        "a=sendrecv" if media.is_some_and(|media| media.media_type.kind().is_some()) => {
            Some("a=sendonly".into())
        }
        "a=setup:actpass" if single => Some("a=setup:passive".into()),
        _ => (!line.starts_with("a=candidate:")).then(|| line.into()),
    })
}

/// The next pending track that has an m-line: its index and the mid.
fn next_binding(
    pending: &[PendingTrack],
    mids: &HashMap<String, BoundMid>,
) -> Option<(usize, String)> {
    let mut free: Vec<(&String, &BoundMid)> =
        mids.iter().filter(|(_, bound)| bound.track.is_none()).collect();
    // In order of m-lines: mids are numbers for browsers, short random words for str0m.
    free.sort_by_key(|(mid, _)| (mid.len(), mid.as_str()));
    let exact = pending.iter().enumerate().find_map(|(index, track)| {
        let found = free.iter().find(|(_, bound)| bound.track_id.as_ref() == Some(&track.cid))?;
        Some((index, found.0.clone()))
    });
    exact.or_else(|| {
        pending.iter().enumerate().find_map(|(index, track)| {
            let found = free.iter().find(|(_, bound)| bound.kind == track.kind)?;
            Some((index, found.0.clone()))
        })
    })
}

/// Whether a publisher's audio may be redundant: unless it said that it wants no RED.
fn may_be_redundant(info: &proto::TrackInfo) -> bool {
    info.r#type == proto::TrackType::Audio as i32 && !info.disable_red
}

/// What a worker is told of a track that is bound to an m-line.
fn published(
    track: TrackKey,
    mid: String,
    kind: MediaKind,
    info: &proto::TrackInfo,
) -> PublishedTrack {
    PublishedTrack {
        track,
        sid: info.sid.as_str().into(),
        mid,
        kind,
        mime_type: info.mime_type.clone(),
        dtx: may_pause(info),
        red: may_be_redundant(info),
        microphone: info.source() == proto::TrackSource::Microphone,
    }
}

/// Whether a publisher may leave out silence: unless it said that it wants no DTX.
#[allow(deprecated)] // `disable_dtx` is what older clients set
fn may_pause(info: &proto::TrackInfo) -> bool {
    !info.disable_dtx && !info.audio_features().any(|it| it == proto::AudioTrackFeature::TfNoDtx)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(cid: &str, kind: MediaKind) -> PendingTrack {
        PendingTrack { cid: cid.into(), kind, info: proto::TrackInfo::default(), backup_of: None }
    }

    fn mid(kind: MediaKind, track_id: Option<&str>) -> BoundMid {
        BoundMid { kind, track_id: track_id.map(str::to_owned), track: None }
    }

    #[test]
    fn an_offer_is_taken_without_candidates_and_media_the_other_way() {
        let text = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=sendrecv\r\n\
            a=candidate:1 1 udp 1 ::1 9 typ host\r\na=end-of-candidates\r\na=setup:actpass\r\n\
            m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\na=sendrecv\r\n";
        let taken = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=sendonly\r\n\
            a=end-of-candidates\r\na=setup:actpass\r\n\
            m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\na=sendrecv\r\n";
        let offer = Description::parse(text).unwrap();
        assert_eq!(as_taken(&offer, false), taken);
        assert_eq!(as_taken(&offer, true), taken.replace("actpass", "passive"));
    }

    #[test]
    fn an_update_leaves_alone_what_it_does_not_name() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut info = proto::ParticipantInfo {
            metadata: "about".to_owned(),
            attributes: [pair("a", "1"), pair("b", "2")].into(),
            ..proto::ParticipantInfo::default()
        };
        apply_update(
            &mut info,
            proto::UpdateParticipantMetadata {
                name: "me".to_owned(),
                attributes: [pair("a", ""), pair("c", "3")].into(),
                ..proto::UpdateParticipantMetadata::default()
            },
        )
        .unwrap();
        assert_eq!((info.metadata.as_str(), info.name.as_str()), ("about", "me"));
        assert_eq!(info.attributes, [pair("b", "2"), pair("c", "3")].into());
    }

    #[test]
    fn a_client_id_wins_over_the_kind() {
        let mids = HashMap::from([
            ("0".to_owned(), mid(MediaKind::Video, Some("x"))),
            ("1".to_owned(), mid(MediaKind::Video, Some("cam"))),
        ]);
        let tracks = [pending("cam", MediaKind::Video)];
        assert_eq!(next_binding(&tracks, &mids), Some((0, "1".to_owned())));
        let tracks = [pending("other", MediaKind::Video)];
        assert_eq!(next_binding(&tracks, &mids), Some((0, "0".to_owned())));
        assert_eq!(next_binding(&[pending("mic", MediaKind::Audio)], &mids), None);
    }
}
