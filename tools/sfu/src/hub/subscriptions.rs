//! Who gets which tracks, and how much of them.

use std::sync::Arc;

use livekit_protocol as proto;
use proto::StreamState;
use proto::signal_response::Message;
use stampede_core::MediaKind;

use super::bandwidth::{self, Allotment};
use super::room::{Participant, RoomTrack, Setting};
use super::{Hub, Place};
use crate::media::layers::{LAYERS_MAX, limit_for_size};
use crate::media::message::{Command, PeerKey, TrackKey};

impl Hub {
    /// Subscribes a participant to a track. What its media may take is then to be shared out anew
    /// ([`reallot`](Self::reallot)).
    pub(super) fn subscribe(&mut self, name: &str, sid: &str, key: TrackKey) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        if room.subscribed(sid, room.own(key)).is_some() {
            return;
        }
        let Some(track) = room.tracks.get_mut(&key) else { return };
        let Some(participant) = room.participants.get_mut(sid) else { return };
        let Some(peer) = participant.subscriber else { return };
        if *track.publisher == *sid {
            return;
        }
        let setting = Setting::upto(LAYERS_MAX as u8 - 1);
        participant.subscriptions.insert(key, setting);
        let worker = participant.worker;
        let offer = track.offer(key, setting);
        track.add_subscriber(key, worker, &self.workers);
        self.command(worker, Command::Subscribe { peer, track: offer });
    }

    /// Ends a subscription, with the same left to do.
    pub(super) fn unsubscribe(&mut self, name: &str, sid: &str, key: TrackKey) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let Some(participant) = room.participants.get_mut(sid) else { return };
        let Some(peer) = participant.subscriber else { return };
        if participant.subscriptions.remove(&key).is_none() {
            return;
        }
        let worker = participant.worker;
        if let Some(track) = room.tracks.get_mut(&key) {
            track.remove_subscriber(key, worker, &self.workers);
        }
        let own = room.own(key);
        self.command(worker, Command::Unsubscribe { peer, track: key });
        self.follow_codecs(name, own);
    }

    /// Ends a track: its subscriptions, its source and its backup.
    pub(super) fn unpublish(&mut self, name: &str, key: TrackKey) -> Option<RoomTrack> {
        self.part_codecs(name, key);
        let room = self.rooms.get_mut(name)?;
        let track = room.tracks.remove(key)?;
        let mut subscribers = Vec::new();
        let mut limited = Vec::new();
        for (sid, participant) in &mut room.participants {
            participant.tracks.retain(|&known| known != key);
            if participant.subscriptions.remove(&key).is_some()
                && let Some(peer) = participant.subscriber
            {
                subscribers.push((participant.worker, peer));
                limited.extend(participant.bandwidth_bps.map(|_| sid.clone()));
            }
        }
        for (worker, peer) in subscribers {
            self.command(worker, Command::Unsubscribe { peer, track: key });
        }
        self.command(track.home, Command::UnpublishTrack(key));
        for sid in limited {
            self.reallot(name, &sid);
        }
        Some(track)
    }

    /// Shows a bound track to the room and subscribes those who want everything.
    pub(super) fn publish(&mut self, name: &str, key: TrackKey) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let Some(track) = room.tracks.get(&key) else { return };
        let publisher = track.publisher.clone();
        let Some(participant) = room.participants.get_mut(&publisher) else { return };
        if participant.info.tracks.iter().any(|info| *info.sid == *track.sid) {
            return;
        }
        if participant.announced && !participant.info.is_publisher {
            room.announced_subscribers = room.announced_subscribers.saturating_sub(1);
        }
        participant.info.is_publisher = true;
        participant.info.tracks.push(track.info.clone());
        tracing::info!(
            room = name,
            identity = participant.info.identity,
            track = %track.sid,
            "published"
        );
        let subscribers: Vec<Arc<str>> = room
            .participants
            .iter()
            .filter(|(_, participant)| participant.auto_subscribe)
            .map(|(sid, _)| sid.clone())
            .collect();
        self.announce(name, &publisher);
        for sid in subscribers {
            self.subscribe(name, &sid, key);
            self.reallot(name, &sid);
        }
    }

    pub(super) fn update_subscription(&mut self, who: &Place, update: proto::UpdateSubscription) {
        let of_participants =
            update.participant_tracks.into_iter().flat_map(|tracks| tracks.track_sids);
        for sid in update.track_sids.into_iter().chain(of_participants) {
            let Some(key) = self.track_key(&who.room, &sid) else { continue };
            let Some(room) = self.rooms.get(&who.room) else { return };
            match (room.subscribed(&who.sid, key), update.subscribe) {
                (None, true) => {
                    let sent = room.sent(key);
                    self.subscribe(&who.room, &who.sid, sent);
                }
                (Some(key), false) => self.unsubscribe(&who.room, &who.sid, key),
                _ => {}
            }
        }
        self.reallot(&who.room, &who.sid);
    }

    /// The key of a track in its own codec.
    pub(super) fn track_key(&self, name: &str, sid: &str) -> Option<TrackKey> {
        self.rooms.get(name)?.tracks.of_sid(sid)
    }

    pub(super) fn track_setting(&mut self, who: &Place, setting: &proto::UpdateTrackSettings) {
        for sid in &setting.track_sids {
            let Some(key) = self.subscribed_key(who, sid) else { continue };
            let Some(room) = self.rooms.get_mut(&who.room) else { return };
            let limit = room.tracks.get(&key).map_or(2, |track| limit(&track.info, setting));
            let Some(participant) = room.participants.get_mut(&who.sid) else { return };
            let Some(known) = participant.subscriptions.get_mut(&key) else { continue };
            let former = known.wanted;
            (known.wanted.limit, known.wanted.paused) = (limit, setting.disabled);
            // As with LiveKit (`pkg/rtc/subscribedtrack.go`), who says none has said what counted before.
            if setting.fps > 0 {
                known.wanted.pictures_per_s = setting.fps;
            }
            if known.wanted != former {
                self.apply(who, key);
            }
        }
        self.reallot(&who.room, &who.sid);
    }

    /// The key by which a participant gets the track of this id.
    fn subscribed_key(&self, who: &Place, sid: &str) -> Option<TrackKey> {
        let own = self.track_key(&who.room, sid)?;
        self.rooms.get(&who.room)?.subscribed(&who.sid, own)
    }

    /// The client has no use for a track now; which layer it wanted stays. What is left is to be shared
    /// out anew.
    pub(super) fn disable(&mut self, who: &Place, sid: &str) {
        let Some(key) = self.subscribed_key(who, sid) else { return };
        let room = self.rooms.get_mut(&who.room);
        let participant = room.and_then(|room| room.participants.get_mut(&who.sid));
        let Some(participant) = participant else { return };
        let Some(setting) = participant.subscriptions.get_mut(&key) else { return };
        if !std::mem::replace(&mut setting.wanted.paused, true) {
            self.apply(who, key);
        }
    }

    /// Has the worker do as a subscription's setting says.
    fn apply(&mut self, who: &Place, track: TrackKey) {
        let room = self.rooms.get(&who.room);
        let Some(participant) = room.and_then(|room| room.participants.get(&who.sid)) else {
            return;
        };
        let Some(peer) = participant.subscriber else { return };
        let Some(setting) = participant.subscriptions.get(&track) else { return };
        let wanted = setting.effective();
        self.command(participant.worker, Command::Setting { peer, track, wanted });
    }

    /// Tells a subscriber that a track pauses because it does not fit the way to it, or goes on.
    pub(super) fn tell_stream_state(&mut self, peer: PeerKey, key: TrackKey, fits: bool) {
        let Some((name, sid, _)) = self.peers.get(&peer) else { return };
        let Some(room) = self.rooms.get(name) else { return };
        let (Some(participant), Some(track)) = (room.participants.get(sid), room.tracks.get(&key))
        else {
            return;
        };
        let state = if fits { StreamState::Active } else { StreamState::Paused };
        send_states(participant, vec![stream_state(track, state)]);
    }

    /// Shares out anew what a subscriber's media may take, if that is limited on purpose.
    pub(super) fn reallot(&mut self, name: &str, sid: &str) {
        let room = self.rooms.get(name);
        let participant = room.and_then(|room| room.participants.get(sid));
        if participant.is_some_and(|participant| participant.bandwidth_bps.is_some()) {
            self.allot(name, sid);
        }
    }

    /// Shares out what a subscriber's media may take, or lifts the limits where it may take all, and
    /// tells it which tracks pause for it and which no longer do.
    pub(super) fn allot(&mut self, name: &str, sid: &str) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let Some(participant) = room.participants.get_mut(sid) else { return };
        let Some(peer) = participant.subscriber else { return };
        let capacity_bps = participant.bandwidth_bps;
        // In the order in which they were published: keys are numbered upwards.
        let videos = room.tracks.iter().filter(|(_, track)| track.kind == MediaKind::Video);
        let (tracks, wanted): (Vec<_>, Vec<_>) = videos
            .filter_map(|(key, track)| {
                let setting = participant.subscriptions.get(key)?;
                // What its client has disabled takes nothing.
                if setting.wanted.paused && capacity_bps.is_some() {
                    return None;
                }
                let layers = bandwidth::layers(&track.info);
                Some(((*key, track), bandwidth::Wanted { layers, limit: setting.wanted.limit }))
            })
            .unzip();
        let mut states = Vec::new();
        let mut commands = Vec::new();
        let allotments = match capacity_bps {
            Some(capacity_bps) => bandwidth::allot(&wanted, capacity_bps),
            None => vec![Allotment::All; wanted.len()],
        };
        for ((key, track), allotment) in tracks.into_iter().zip(allotments) {
            let Some(setting) = participant.subscriptions.get_mut(&key) else { continue };
            let former = std::mem::replace(&mut setting.allotment, allotment);
            if former == allotment {
                continue;
            }
            let wanted = setting.effective();
            commands.push(Command::Setting { peer, track: key, wanted });
            let pauses = allotment == Allotment::Paused;
            if pauses != (former == Allotment::Paused) {
                let state = if pauses { StreamState::Paused } else { StreamState::Active };
                states.push(stream_state(track, state));
            }
        }
        send_states(participant, states);
        let worker = participant.worker;
        for command in commands {
            self.command(worker, command);
        }
    }
}

fn stream_state(track: &RoomTrack, state: StreamState) -> proto::StreamStateInfo {
    proto::StreamStateInfo {
        participant_sid: track.publisher.to_string(),
        track_sid: track.sid.to_string(),
        state: state as i32,
    }
}

/// Clients of the single connection are not told: LiveKit's lacks the means (`pkg/rtc/participant.go`,
/// `onStreamStateChange`), so that a track just stops.
fn send_states(participant: &Participant, states: Vec<proto::StreamStateInfo>) {
    if !states.is_empty() && !participant.single {
        let update = proto::StreamStateUpdate { stream_states: states };
        participant.send(Message::StreamStateUpdate(update));
    }
}

#[allow(deprecated)] // `layers`: what every client fills; codecs[].layers may be empty
/// A width wins over the quality; quality 0 is LOW (LiveKit `pkg/rtc/subscribedtrack.go`).
fn limit(info: &proto::TrackInfo, setting: &proto::UpdateTrackSettings) -> u8 {
    if setting.width > 0 {
        let layers: Vec<(u8, u32, u32)> = info
            .layers
            .iter()
            .filter_map(|layer| {
                Some((u8::try_from(layer.quality).ok()?, layer.width, layer.height))
            })
            .filter(|(layer, ..)| *layer < 3)
            .collect();
        if !layers.is_empty() {
            return limit_for_size(&layers, setting.width, setting.height);
        }
    }
    match proto::VideoQuality::try_from(setting.quality) {
        Ok(proto::VideoQuality::Low) => 0,
        Ok(proto::VideoQuality::Medium) => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(deprecated)]
    #[test]
    fn a_setting_names_a_size_or_a_quality() {
        let layer = |quality, width, height| proto::VideoLayer {
            quality,
            width,
            height,
            ..proto::VideoLayer::default()
        };
        let info = proto::TrackInfo {
            layers: vec![layer(0, 320, 180), layer(1, 640, 360), layer(2, 1280, 720)],
            ..proto::TrackInfo::default()
        };
        let setting = |quality, width, height| proto::UpdateTrackSettings {
            quality,
            width,
            height,
            ..proto::UpdateTrackSettings::default()
        };
        assert_eq!(limit(&info, &setting(0, 0, 0)), 0);
        assert_eq!(limit(&info, &setting(1, 0, 0)), 1);
        assert_eq!(limit(&info, &setting(2, 0, 0)), 2);
        assert_eq!(limit(&info, &setting(0, 640, 360)), 1, "a size wins");
    }
}
