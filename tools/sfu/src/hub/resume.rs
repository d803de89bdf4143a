//! Participants whose websocket or media is lost, and what becomes of them.

use std::collections::HashSet;

use livekit_protocol as proto;
use livekit_token::Claims;
use proto::signal_response::Message;

use super::outbox::{Hangup, Outbox, SignalKey};
use super::room::{Participant, Signal};
use super::session::{ResumeEnd, SignalLost};
use super::{Hub, Place, messages};
use crate::media::message::{Command, PeerKey};

/// Why a client can't resume: its token's room has no participant of its identity (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such participant to resume")]
pub(crate) struct UnknownParticipant;

impl Hub {
    /// What the token of this websocket's participant says now; `None` once it has no such websocket.
    pub(crate) fn claims(&self, signal: SignalKey) -> Option<&Claims> {
        let place = self.signals.get(&signal)?;
        Some(&self.rooms.get(&place.room)?.participants.get(&place.sid)?.claims)
    }

    /// A websocket is gone without a word.
    pub(crate) fn signal_lost(&mut self, signal: SignalKey) {
        if let Some(place) = self.signals.get(&signal).cloned() {
            self.drop_signal(&place);
        }
    }

    /// Takes its websocket from a participant, which stays for a resume unless it was never
    /// connected.
    pub(super) fn drop_signal(&mut self, place: &Place) {
        let room = self.rooms.get_mut(&place.room);
        let participant = room.and_then(|room| room.participants.get_mut(&place.sid));
        let Some(participant) = participant else { return };
        if let Some(key) = participant.hang_up(Hangup::Over) {
            self.signals.remove(&key);
        }
        match participant.session.signal_lost(self.now, self.departure_time) {
            SignalLost::Remove => {
                let reason = proto::DisconnectReason::SignalClose;
                self.remove(&place.room, &place.sid, reason, false);
            }
            SignalLost::Linger => {
                let (worker, subscriber) = (participant.worker, participant.subscriber);
                if let Some(peer) = subscriber {
                    self.command(worker, Command::Suspend(peer));
                }
            }
        }
    }

    /// ICE has no way to the client: it is told to resume, and has its departure time for it
    /// (LiveKit `pkg/rtc/participant.go`, `onAnyTransportFailed`).
    pub(super) fn media_lost(&mut self, peer: PeerKey) {
        let Some((room, sid, role)) = self.peers.get(&peer).cloned() else { return };
        let place = Place { room, sid };
        let room = self.rooms.get_mut(&place.room);
        let participant = room.and_then(|room| room.participants.get_mut(&place.sid));
        let Some(participant) = participant else { return };
        self.counted.media_lost += 1;
        participant.session.media_lost(role, self.now, self.departure_time);
        participant.send(Message::Leave(messages::leave_to_resume()));
        if let Some(key) = participant.hang_up(Hangup::Over) {
            self.signals.remove(&key);
        }
        let (worker, subscriber) = (participant.worker, participant.subscriber);
        if let Some(peer) = subscriber {
            self.command(worker, Command::Suspend(peer));
        }
    }

    /// A new websocket takes over a participant, which is the one of the token's identity in the
    /// token's room, whatever sid the client names (LiveKit `pkg/service/roommanager.go`,
    /// `StartSession`). It is told everything anew, and ICE is restarted
    /// (`pkg/rtc/room.go`, `ResumeParticipant`).
    ///
    /// # Errors
    /// There is no such participant.
    pub(crate) fn resume(
        &mut self,
        claims: &Claims,
        outbox: Outbox,
    ) -> Result<SignalKey, UnknownParticipant> {
        let key = SignalKey(self.next_key());
        let name = &claims.video.room;
        let known = self.rooms.get_mut(name).and_then(|room| {
            let sid = room.identities.get(claims.sub.as_str())?.clone();
            Some((room.participants.get_mut(&sid)?, sid))
        });
        let Some((participant, sid)) = known else {
            self.counted.resumes_refused += 1;
            return Err(UnknownParticipant);
        };
        if let Some(former) = participant.hang_up(Hangup::Over) {
            self.signals.remove(&former);
        }
        participant.signal = Some(Signal { key, outbox });
        let end = participant.session.take_resume_end(self.now);
        let heard_at = participant.session.heard_at();
        let place = Place { room: name.clone(), sid };
        self.signals.insert(key, place.clone());
        if end == Some(ResumeEnd::WithoutMessages) {
            self.drop_signal(&place);
            return Ok(key);
        }
        self.counted.resumes += 1;
        tracing::info!(room = name, identity = claims.sub, "resumed");
        self.tell_everything(&place, heard_at);
        self.tell_codecs_again(&place);
        self.tell_handles_again(&place.room, &place.sid);
        self.restart_subscriber(&place);
        if end == Some(ResumeEnd::AfterMessages) {
            self.drop_signal(&place);
        }
        Ok(key)
    }

    /// Tells a participant that resumes what it may have missed.
    fn tell_everything(&self, place: &Place, heard_at: std::time::Instant) {
        let Some(room) = self.rooms.get(&place.room) else { return };
        let Some(participant) = room.participants.get(&place.sid) else { return };
        participant.send(Message::Reconnect(messages::reconnect_response(&self.relaying)));
        let departed = room.departed_since(heard_at);
        if !departed.is_empty() {
            participant.send(Message::Update(messages::update(departed)));
        }
        let mut present: Vec<proto::ParticipantInfo> = room.visible().cloned().collect();
        if !present.iter().any(|info| *info.sid == *place.sid) {
            present.push(participant.info.clone());
        }
        participant.send(Message::Update(messages::update(present)));
        participant.send(Message::RoomUpdate(proto::RoomUpdate { room: Some(room.current()) }));
    }

    /// Offers an ICE restart of the subscriber's connection; that of the publisher's, and of a single
    /// one, is the client's to offer.
    fn restart_subscriber(&mut self, place: &Place) {
        let room = self.rooms.get_mut(&place.room);
        let participant = room.and_then(|room| room.participants.get_mut(&place.sid));
        let Some(participant) = participant else { return };
        participant.session.resumed(self.now);
        participant.trickled = [false; 2];
        let (worker, subscriber) = (participant.worker, participant.subscriber);
        if let Some(peer) = subscriber {
            // What the former websocket was to carry may be lost with it.
            self.command(worker, Command::Suspend(peer));
            self.command(worker, Command::RestartIce(peer));
        }
    }

    /// What a client that resumes believes to be the case (LiveKit `pkg/rtc/room.go`,
    /// `onSyncState`): it has to join anew if it publishes what is unknown here. Its descriptions
    /// and data channels are not looked at there either.
    pub(super) fn sync_state(&mut self, who: &Place, state: proto::SyncState) {
        let room = self.rooms.get(&who.room);
        let Some(participant) = room.and_then(|room| room.participants.get(&who.sid)) else {
            return;
        };
        if !publishes_all(participant, &state) {
            self.remove(&who.room, &who.sid, proto::DisconnectReason::StateMismatch, true);
            return;
        }
        for sid in &state.track_sids_disabled {
            self.disable(who, sid);
        }
        self.reallot(&who.room, &who.sid);
        if let Some(subscription) = state.subscription {
            self.update_subscription(who, subscription);
        }
    }
}

/// Whether a participant publishes everything that its client believes it does.
fn publishes_all(participant: &Participant, state: &proto::SyncState) -> bool {
    let pending = participant.pending.iter().map(|pending| &pending.info);
    let tracks = participant.info.tracks.iter().chain(pending);
    let tracks: HashSet<&str> = tracks.map(|info| info.sid.as_str()).collect();
    let data_tracks: HashSet<&str> = participant.data_tracks.sids().collect();
    let mut told = state.publish_tracks.iter().map(|it| it.track.as_ref());
    let mut told_data = state.publish_data_tracks.iter().map(|it| it.info.as_ref());
    told.all(|track| track.is_some_and(|track| tracks.contains(track.sid.as_str())))
        && told_data.all(|info| info.is_some_and(|info| data_tracks.contains(info.sid.as_str())))
}
