//! Moving a participant to another room. LiveKit's open-source server has the call but not the
//! move: only its cloud sends `room_moved`. What is done here is what its messages say
//! (protocol `livekit_rtc.proto`, `livekit_room.proto`), what `MoveToRoom` of
//! `pkg/rtc/participant.go` does, and what livekit-client expects (`src/room/Room.ts`).

use std::collections::BTreeMap;
use std::sync::Arc;

use livekit_protocol as proto;
use livekit_token::Claims;
use proto::signal_response::Message;

use super::room::RoomTrack;
use super::{Hub, Left, Place};
use crate::media::message::{Command, PeerKey, TrackKey};

/// Why a participant can't be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MoveError {
    /// The room it should be in has no participant of this identity.
    #[error("there is no such participant")]
    UnknownParticipant,
    /// No room is named, or the one it is in.
    #[error("the destination is no other room")]
    NoOtherRoom,
    /// The other room has as many participants as it may have, or there are as many rooms.
    #[error("the destination has as many participants as it may have, or is a room too many")]
    Full,
}

impl Hub {
    /// Moves a participant to another room, which is made if need be, on the peer connections it
    /// has: it is another participant there, with the tracks it had, and its subscriptions to
    /// tracks of the old room end. `token` makes it a token for what it may do there.
    ///
    /// # Errors
    /// It can't be moved, and stays.
    pub(crate) fn move_participant(
        &mut self,
        request: &proto::MoveParticipantRequest,
        token: impl FnOnce(&Claims) -> Option<String>,
    ) -> Result<(), MoveError> {
        let (from, to) = (request.room.as_str(), request.destination_room.as_str());
        if to.is_empty() || to == from {
            return Err(MoveError::NoOtherRoom);
        }
        let identity = request.identity.as_str();
        let sid_in =
            |hub: &Self, room: &str| hub.rooms.get(room)?.identities.get(identity).cloned();
        let former = sid_in(self, from).ok_or(MoveError::UnknownParticipant)?;
        let duplicate = sid_in(self, to);
        // Of the same identity there is one at a time.
        if !self.has_room_for(to, usize::from(duplicate.is_none())) {
            return Err(MoveError::Full);
        }
        if let Some(duplicate) = duplicate {
            self.remove(to, &duplicate, proto::DisconnectReason::DuplicateIdentity, true);
        }
        let sid: Arc<str> = self.id("PA_").into();
        let left = self.detach(from, &former, proto::DisconnectReason::UnknownReason);
        let Some(Left { mut participant, tracks }) = left else {
            return Err(MoveError::UnknownParticipant);
        };
        let worker = participant.worker;
        for track in std::mem::take(&mut participant.subscriptions).into_keys() {
            if let Some(peer) = participant.subscriber {
                self.command(worker, Command::Unsubscribe { peer, track });
            }
        }
        participant.claims.video.room = to.to_owned();
        participant.info.sid = sid.to_string();
        participant.info.version += 1;
        participant.info.tracks.clear();
        participant.info.is_publisher = false;
        participant.announced = false;
        let place = Place { room: to.to_owned(), sid: sid.clone() };
        if let Some(signal) = &participant.signal {
            self.signals.insert(signal.key, place.clone());
        }
        let publisher = participant.publisher;
        for (peer, role) in participant.peers() {
            self.peers.insert(peer, (to.to_owned(), sid.clone(), role));
            self.command(worker, Command::Relabel { peer, label: participant.label() });
        }
        let token = token(&participant.claims).unwrap_or_default();
        let room = self.room(to);
        room.empty_since = None;
        room.had_participants = true;
        room.identities.insert(identity.into(), sid.clone());
        room.participants.insert(sid, participant);
        self.counted.attendance.joins += 1;
        self.counted.moves += 1;
        self.counts.entry(to.to_owned()).or_default().joins += 1;
        tracing::info!(room = from, identity, to, "moved");
        self.settle(&place, publisher, tracks);
        self.tell_moved(&place, token);
        // Those it had are over, whether it finds others or not.
        self.subscribe_to_data_tracks(&place.room, &place.sid);
        self.tell_handles(&place.room, &place.sid);
        Ok(())
    }

    /// Publishes the tracks of a participant that has come from another room, and subscribes it to
    /// those it finds.
    fn settle(
        &mut self,
        place: &Place,
        publisher: Option<PeerKey>,
        mut tracks: Vec<(TrackKey, RoomTrack)>,
    ) {
        // What is a backup stays behind what it is one of.
        tracks.sort_by_key(|(former, _)| *former);
        let keys: BTreeMap<TrackKey, TrackKey> =
            tracks.iter().map(|(former, _)| (*former, TrackKey(self.next_key()))).collect();
        let workers = self.workers.len();
        let Some(room) = self.rooms.get_mut(&place.room) else { return };
        let found: Vec<TrackKey> = room.published().collect();
        let Some(participant) = room.participants.get_mut(&place.sid) else { return };
        let worker = participant.worker;
        for (former, track) in tracks {
            let Some(&key) = keys.get(&former) else { continue };
            let mids = participant.mids.values_mut();
            for bound in mids.filter(|bound| bound.track == Some(former)) {
                bound.track = Some(key);
            }
            participant.tracks.push(key);
            let (publisher, subscribers) = (place.sid.clone(), vec![0; workers]);
            let backup_of = track.backup_of.and_then(|own| keys.get(&own).copied());
            room.tracks.insert(key, RoomTrack { publisher, subscribers, backup_of, ..track });
        }
        // What was announced as a backup is one of a track's that has another key here, or of none.
        participant.pending.retain_mut(|pending| {
            let Some(own) = &mut pending.backup_of else { return true };
            keys.get(own).map(|key| *own = *key).is_some()
        });
        let auto_subscribe = participant.auto_subscribe;
        let bindings = self.bindings(place).map(|(_, _, tracks)| tracks).unwrap_or_default();
        for track in bindings {
            if let Some(peer) = publisher {
                self.command(worker, Command::BindTrack { peer, track });
            }
        }
        for &key in keys.values() {
            self.go_live(&place.room, key);
        }
        if keys.is_empty() {
            self.announce(&place.room, &place.sid);
        }
        if auto_subscribe {
            for key in found {
                self.subscribe(&place.room, &place.sid, key);
            }
            self.reallot(&place.room, &place.sid);
        }
    }

    /// Tells a participant where it is now: before anything else of that room, for what is negotiated
    /// comes from the workers and updates go to the others.
    fn tell_moved(&self, place: &Place, token: String) {
        let Some(room) = self.rooms.get(&place.room) else { return };
        let Some(participant) = room.participants.get(&place.sid) else { return };
        let others = room.visible().filter(|info| *info.sid != *place.sid);
        participant.send(Message::RoomMoved(proto::RoomMovedResponse {
            room: Some(room.current()),
            token,
            participant: Some(participant.info.clone()),
            other_participants: others.cloned().collect(),
        }));
    }
}
