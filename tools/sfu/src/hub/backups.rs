//! Tracks in a second codec, for those who can't receive their own (LiveKit's backup codecs).
//!
//! Who is sent a track that has a backup is asked which codecs it takes. If some take the backup only,
//! the publisher is told so (`subscribed_quality_update`), announces the track once more and sends it
//! by an m-line of its own. To the workers that is another track: a subscription goes from one to the
//! other on the m-line that it has.

use livekit_protocol as proto;
use proto::request_response::Reason;
use proto::signal_response::Message;

use super::codecs::{Backup, Takes};
use super::room::PendingTrack;
use super::{Hub, Place, messages};
use crate::media::message::{Command, PeerKey, TrackKey};

impl Hub {
    /// A publisher announces that it will send a track of its own in the backup codec.
    ///
    /// # Errors
    /// It has no such track, or none that has a backup.
    pub(super) fn add_backup(
        &mut self,
        who: &Place,
        request: &proto::AddTrackRequest,
    ) -> Result<(), Reason> {
        let own = self.track_key(&who.room, &request.sid).ok_or(Reason::NotFound)?;
        let room = self.rooms.get_mut(&who.room).ok_or(Reason::NotFound)?;
        let track = room.tracks.get_mut(&own).filter(|track| track.publisher == who.sid);
        let track = track.filter(|track| track.backup.is_some()).ok_or(Reason::NotFound)?;
        messages::name_codecs(&mut track.info, &request.simulcast_codecs);
        let (kind, info) = (track.kind, track.info.clone());
        let participant = room.participants.get_mut(&who.sid).ok_or(Reason::NotFound)?;
        for known in participant.info.tracks.iter_mut().filter(|known| known.sid == info.sid) {
            known.codecs.clone_from(&info.codecs);
        }
        let cid = request.cid.clone();
        participant.send(Message::TrackPublished(proto::TrackPublishedResponse {
            cid: cid.clone(),
            track: Some(info.clone()),
        }));
        let info = messages::in_second_codec(info);
        participant.pending.retain(|pending| pending.backup_of != Some(own));
        participant.pending.push(PendingTrack { cid, kind, info, backup_of: Some(own) });
        Ok(())
    }

    /// The m-line of a track was answered: it is shown to the room. A backup waits for its media.
    pub(super) fn go_live(&mut self, name: &str, key: TrackKey) {
        let track = self.rooms.get(name).and_then(|room| room.tracks.get(&key));
        if track.is_some_and(|track| track.backup_of.is_none()) {
            self.publish(name, key);
        }
    }

    /// A track's first packet of a codec has come: if it is a backup, it is sent to those who wait for
    /// it (LiveKit `pkg/rtc/mediatrack.go`, `AddReceiver`), unless it is not the codec they wait for.
    pub(super) fn track_began(&mut self, peer: PeerKey, key: TrackKey, codec: Option<&str>) {
        let Some((name, ..)) = self.peers.get(&peer).cloned() else { return };
        let Some(room) = self.rooms.get_mut(&name) else { return };
        let Some(own) = room.tracks.get(&key).and_then(|track| track.backup_of) else { return };
        let participants = room.participants.len();
        let Some(backup) = room.tracks.get_mut(&own).and_then(|track| track.backup.as_mut()) else {
            return;
        };
        if !codec.is_some_and(|codec| backup.is_in(codec)) {
            tracing::warn!(room = name, track = key.0, codec, "a backup came in another codec");
            return;
        }
        let former = backup.track().filter(|former| *former != key);
        if !backup.publish(key, participants) {
            return;
        }
        tracing::info!(room = name, backup = key.0, "published in a second codec");
        // One that was announced anew takes the place of the one before.
        if let Some(former) = former {
            for sid in room.holders(former) {
                self.switch(&name, &sid, former, key);
            }
            self.unpublish(&name, former);
        }
        self.follow_codecs(&name, own);
    }

    /// A subscriber's client takes a track in these codecs.
    pub(super) fn takes(&mut self, peer: PeerKey, key: TrackKey, codecs: &[&str]) {
        let Some((name, sid, _)) = self.peers.get(&peer).cloned() else { return };
        let Some(room) = self.rooms.get_mut(&name) else { return };
        let own = room.own(key);
        let Some(track) = room.tracks.get(&own) else { return };
        let Some(backup) = &track.backup else { return };
        let takes = backup.choose(&track.info.mime_type, codecs);
        // It may have been switched since.
        let Some(key) = room.subscribed(&sid, own) else { return };
        let participant = room.participants.get_mut(&sid);
        let setting = participant.and_then(|participant| participant.subscriptions.get_mut(&key));
        let Some(setting) = setting else { return };
        if takes == Takes::NEITHER {
            tracing::warn!(room = name, subscriber = %sid, ?codecs, "takes no codec of a track");
        }
        setting.takes = takes;
        self.follow_codecs(&name, own);
    }

    /// Sends a track to everybody in the codec that it is to get, and tells the publisher which are
    /// wanted, if that is news.
    pub(super) fn follow_codecs(&mut self, name: &str, own: TrackKey) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let Some(track) = room.tracks.get_mut(&own) else { return };
        let Some(backup) = &mut track.backup else { return };
        let (mut takes, mut moves) = (Vec::new(), Vec::new());
        let keys = [Some(own), backup.track()];
        for (sid, participant) in &room.participants {
            for key in keys.into_iter().flatten() {
                let Some(setting) = participant.subscriptions.get(&key) else { continue };
                takes.push(setting.takes);
                let to = backup.sent(own, setting.takes);
                if to != key {
                    moves.push((sid.clone(), key, to));
                }
            }
        }
        // Who is on its way to another room is told there.
        if let Some(publisher) = room.participants.get(&track.publisher)
            && let Some(wanted) = backup.news(takes)
        {
            let update = backup.message(&track.info, wanted);
            publisher.send(Message::SubscribedQualityUpdate(update));
        }
        for (sid, from, to) in moves {
            self.switch(name, &sid, from, to);
        }
    }

    /// A subscription goes on with another codec's packets.
    fn switch(&mut self, name: &str, sid: &str, from: TrackKey, to: TrackKey) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let Some(participant) = room.participants.get_mut(sid) else { return };
        let Some(peer) = participant.subscriber else { return };
        if !room.tracks.contains_key(&to) {
            return;
        }
        let Some(setting) = participant.subscriptions.remove(&from) else { return };
        participant.subscriptions.insert(to, setting);
        let worker = participant.worker;
        if let Some(track) = room.tracks.get_mut(&from) {
            track.remove_subscriber(from, worker, &self.workers);
        }
        if let Some(track) = room.tracks.get_mut(&to) {
            track.add_subscriber(to, worker, &self.workers);
        }
        self.command(worker, Command::Switch { peer, from, to });
        self.reallot(name, sid);
    }

    /// Before a track ends: its backup ends with it, and who got that as a backup goes back to the track's
    /// own codec.
    pub(super) fn part_codecs(&mut self, name: &str, key: TrackKey) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let Some(track) = room.tracks.get(&key) else { return };
        if let Some(own) = track.backup_of {
            let Some(backup) = room.tracks.get_mut(&own).and_then(|own| own.backup.as_mut()) else {
                return;
            };
            if backup.track() != Some(key) {
                return;
            }
            backup.unpublish();
            for sid in room.holders(key) {
                self.switch(name, &sid, key, own);
            }
            self.follow_codecs(name, own);
            return;
        }
        let publisher = track.publisher.clone();
        if let Some(backup) = room.tracks.get_mut(&key).and_then(|track| track.backup.as_mut()) {
            backup.unpublish();
        }
        if let Some(participant) = room.participants.get_mut(&publisher) {
            participant.pending.retain(|pending| pending.backup_of != Some(key));
        }
        let backups = room.tracks.iter().filter(|(_, track)| track.backup_of == Some(key));
        for backup in backups.map(|(backup, _)| *backup).collect::<Vec<_>>() {
            self.unpublish(name, backup);
        }
    }

    /// Tells a publisher that may have missed it which codecs of its tracks are wanted.
    pub(super) fn tell_codecs_again(&self, place: &Place) {
        let Some(room) = self.rooms.get(&place.room) else { return };
        let Some(participant) = room.participants.get(&place.sid) else { return };
        for track in participant.tracks.iter().filter_map(|key| room.tracks.get(key)) {
            if let Some((backup, wanted)) =
                track.backup.as_ref().and_then(|backup: &Backup| Some((backup, backup.told()?)))
            {
                let update = backup.message(&track.info, wanted);
                participant.send(Message::SubscribedQualityUpdate(update));
            }
        }
    }
}
