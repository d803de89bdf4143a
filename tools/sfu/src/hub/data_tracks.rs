//! Data tracks: who publishes them, who is subscribed, and by which handles (LiveKit
//! `pkg/rtc/participant_data_track.go`, `pkg/rtc/datatrack.go`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use livekit_protocol as proto;
use prost::Message as _;
use proto::data_track_subscriber_handles::PublishedDataTrack;
use proto::request_response::{Reason, Request as About};
use proto::signal_response::Message;

use super::{Hub, Place};
use crate::media::message::{Command, DATA_TRACK_HANDLE, PeerKey};

/// Data tracks of a participant; further ones are refused.
pub(super) const DATA_TRACKS_MAX: usize = 100;
/// Longest name of one in bytes, as LiveKit's.
pub(super) const NAME_BYTES_MAX: usize = 256;
/// Longest encoded request to publish one: what it says of the track is told to everybody in the room.
const REQUEST_BYTES_MAX: usize = 1_024;

/// A published data track.
pub(super) struct DataTrack {
    info: proto::DataTrackInfo,
    /// Who gets its packets, and under which handle.
    subscribers: Vec<(Arc<str>, u16)>,
}

/// What a participant has to do with data tracks.
#[derive(Default)]
pub(super) struct DataTracks {
    published: Vec<DataTrack>,
    /// It is subscribed to all of others.
    auto_subscribe: bool,
    /// Those of others that it is subscribed to, by its handles of them.
    handles: HashMap<u32, PublishedDataTrack>,
    /// The handle of its latest subscription.
    handle: u16,
}

impl DataTracks {
    pub(super) fn new(auto_subscribe: bool) -> Self {
        Self { auto_subscribe, ..Self::default() }
    }

    /// Of those that it publishes.
    pub(super) fn sids(&self) -> impl Iterator<Item = &str> {
        self.published.iter().map(|track| track.info.sid.as_str())
    }

    /// Subscribes it to a track, by a handle that it has for no other; `None` if it has none left.
    fn subscribe(&mut self, track: PublishedDataTrack) -> Option<u16> {
        if self.handles.len() >= usize::from(u16::MAX) {
            return None;
        }
        loop {
            self.handle = self.handle.checked_add(1).unwrap_or(1);
            if let Entry::Vacant(free) = self.handles.entry(u32::from(self.handle)) {
                free.insert(track);
                return Some(self.handle);
            }
        }
    }
}

impl Hub {
    pub(super) fn publish_data_track(
        &mut self,
        who: &Place,
        request: proto::PublishDataTrackRequest,
    ) {
        let sid = self.id("DTR_");
        let Some(room) = self.rooms.get_mut(&who.room) else { return };
        let Some(participant) = room.participants.get_mut(&who.sid) else { return };
        let published = &participant.data_tracks.published;
        let reason = if !participant.grants().can_publish_data.unwrap_or(true) {
            Reason::NotAllowed
        } else if !(1..=u32::from(u16::MAX)).contains(&request.pub_handle) {
            Reason::InvalidHandle
        } else if request.name.is_empty() || request.name.len() > NAME_BYTES_MAX {
            Reason::InvalidName
        } else if published.iter().any(|track| track.info.pub_handle == request.pub_handle) {
            Reason::DuplicateHandle
        } else if published.iter().any(|track| track.info.name == request.name) {
            Reason::DuplicateName
        } else if published.len() >= DATA_TRACKS_MAX || request.encoded_len() > REQUEST_BYTES_MAX {
            Reason::LimitExceeded
        } else {
            Reason::Ok
        };
        if reason != Reason::Ok {
            return participant.send(Message::RequestResponse(proto::RequestResponse {
                reason: reason as i32,
                request: Some(About::PublishDataTrack(request)),
                ..proto::RequestResponse::default()
            }));
        }
        let info = proto::DataTrackInfo {
            pub_handle: request.pub_handle,
            sid: sid.clone(),
            name: request.name,
            encryption: request.encryption,
            frame_encoding: request.frame_encoding,
            schema: request.schema,
        };
        let track = DataTrack { info: info.clone(), subscribers: Vec::new() };
        participant.data_tracks.published.push(track);
        participant.info.data_tracks.push(info.clone());
        if participant.announced && !participant.info.is_publisher {
            room.announced_subscribers = room.announced_subscribers.saturating_sub(1);
        }
        participant.info.is_publisher = true;
        let response = proto::PublishDataTrackResponse { info: Some(info) };
        participant.send(Message::PublishDataTrackResponse(response));
        let others = room.participants.iter().filter(|(_, one)| one.data_tracks.auto_subscribe);
        let others: Vec<_> = others.map(|(other, _)| other.clone()).collect();
        self.announce(&who.room, &who.sid);
        for other in others.iter().filter(|other| **other != who.sid) {
            if self.set_data_subscription(&who.room, (&who.sid, &sid), other, true) {
                self.tell_handles(&who.room, other);
            }
        }
    }

    pub(super) fn unpublish_data_track(
        &mut self,
        who: &Place,
        request: proto::UnpublishDataTrackRequest,
    ) {
        let Some(room) = self.rooms.get_mut(&who.room) else { return };
        let Some(participant) = room.participants.get_mut(&who.sid) else { return };
        let published = &mut participant.data_tracks.published;
        let of = |track: &DataTrack| track.info.pub_handle == request.pub_handle;
        let Some(place) = published.iter().position(of) else {
            return participant.send(Message::RequestResponse(proto::RequestResponse {
                reason: Reason::NotFound as i32,
                request: Some(About::UnpublishDataTrack(request)),
                ..proto::RequestResponse::default()
            }));
        };
        let DataTrack { info, subscribers } = published.swap_remove(place);
        participant.info.data_tracks.retain(|track| track.sid != info.sid);
        let response = proto::UnpublishDataTrackResponse { info: Some(info) };
        participant.send(Message::UnpublishDataTrackResponse(response));
        self.announce_update(&who.room, &who.sid);
        for (other, handle) in subscribers {
            self.forget_handle(&who.room, &other, handle);
            self.tell_handles(&who.room, &other);
        }
    }

    pub(super) fn update_data_subscription(
        &mut self,
        who: &Place,
        update: &proto::UpdateDataSubscription,
    ) {
        let Some(room) = self.rooms.get(&who.room) else { return };
        let of = |(sid, one): (&Arc<str>, &super::Participant)| {
            let tracks = one.data_tracks.sids().map(str::to_owned);
            tracks.map(|track| (track, sid.clone())).collect::<Vec<_>>()
        };
        let publishers: HashMap<String, Arc<str>> = room.participants.iter().flat_map(of).collect();
        let mut changed = false;
        for one in &update.updates {
            let Some(publisher) = publishers.get(&one.track_sid) else { continue };
            let track = (publisher, one.track_sid.as_str());
            changed |= self.set_data_subscription(&who.room, track, &who.sid, one.subscribe);
        }
        if changed {
            self.tell_handles(&who.room, &who.sid);
        }
    }

    /// Subscribes a participant to a data track of somebody else, or no longer. Whether that changed
    /// anything.
    fn set_data_subscription(
        &mut self,
        name: &str,
        (publisher, track): (&Arc<str>, &str),
        sid: &Arc<str>,
        wanted: bool,
    ) -> bool {
        let Some(room) = self.rooms.get_mut(name) else { return false };
        let connected = room.participants.get(sid).is_some_and(|one| one.subscriber.is_some());
        let Some(other) = room.participants.get_mut(publisher) else { return false };
        if publisher == sid || !connected {
            return false;
        }
        let published = PublishedDataTrack {
            publisher_identity: other.info.identity.clone(),
            publisher_sid: other.info.sid.clone(),
            track_sid: track.to_owned(),
        };
        let of = |one: &&mut DataTrack| one.info.sid == track;
        let Some(known) = other.data_tracks.published.iter_mut().find(of) else { return false };
        let place = known.subscribers.iter().position(|(known, _)| known == sid);
        match place {
            Some(place) if !wanted => {
                let (_, handle) = known.subscribers.swap_remove(place);
                self.forget_handle(name, sid, handle);
                true
            }
            None if wanted => {
                let subscriber = room.participants.get_mut(sid);
                let handle = subscriber.and_then(|one| one.data_tracks.subscribe(published));
                let other = room.participants.get_mut(publisher);
                let tracks = other.map(|one| &mut one.data_tracks.published);
                let known = tracks.and_then(|tracks| tracks.iter_mut().find(of));
                if let (Some(handle), Some(known)) = (handle, known) {
                    known.subscribers.push((sid.clone(), handle));
                }
                handle.is_some()
            }
            _ => false,
        }
    }

    fn forget_handle(&mut self, name: &str, sid: &str, handle: u16) {
        let room = self.rooms.get_mut(name);
        if let Some(participant) = room.and_then(|room| room.participants.get_mut(sid)) {
            participant.data_tracks.handles.remove(&u32::from(handle));
        }
    }

    /// Subscribes who is there now to the data tracks it finds, if it wants all. Whether there are any.
    pub(super) fn subscribe_to_data_tracks(&mut self, name: &str, sid: &Arc<str>) -> bool {
        let Some(room) = self.rooms.get(name) else { return false };
        if !room.participants.get(sid).is_some_and(|one| one.data_tracks.auto_subscribe) {
            return false;
        }
        let tracks = room.participants.iter().flat_map(|(publisher, other)| {
            let published = other.data_tracks.published.iter();
            published.map(|track| (publisher.clone(), track.info.sid.clone()))
        });
        let tracks: Vec<_> = tracks.collect();
        let mut changed = false;
        for (publisher, track) in &tracks {
            changed |= self.set_data_subscription(name, (publisher, track), sid, true);
        }
        changed
    }

    /// Tells a participant all its handles.
    pub(super) fn tell_handles(&self, name: &str, sid: &str) {
        let room = self.rooms.get(name);
        if let Some(participant) = room.and_then(|room| room.participants.get(sid)) {
            let sub_handles = participant.data_tracks.handles.clone();
            let handles = proto::DataTrackSubscriberHandles { sub_handles };
            participant.send(Message::DataTrackSubscriberHandles(handles));
        }
    }

    /// Tells who resumes its handles, if it has any.
    pub(super) fn tell_handles_again(&self, name: &str, sid: &str) {
        let room = self.rooms.get(name);
        let participant = room.and_then(|room| room.participants.get(sid));
        if participant.is_some_and(|one| !one.data_tracks.handles.is_empty()) {
            self.tell_handles(name, sid);
        }
    }

    /// Takes a participant that has left the room `name` out of all data tracks, and ends its own.
    pub(super) fn leave_data_tracks(&mut self, name: &str, left: &mut super::Participant) {
        let sid = left.info.sid.clone();
        left.info.data_tracks.clear();
        let published = std::mem::take(&mut left.data_tracks.published);
        let handles = std::mem::take(&mut left.data_tracks.handles);
        let Some(room) = self.rooms.get_mut(name) else { return };
        for track in handles.into_values() {
            let other = room.participants.get_mut(track.publisher_sid.as_str());
            for one in other.into_iter().flat_map(|other| &mut other.data_tracks.published) {
                if one.info.sid == track.track_sid {
                    one.subscribers.retain(|(known, _)| **known != *sid);
                }
            }
        }
        let mut told: Vec<Arc<str>> = Vec::new();
        for (other, handle) in published.into_iter().flat_map(|track| track.subscribers) {
            self.forget_handle(name, &other, handle);
            if !told.contains(&other) {
                told.push(other);
            }
        }
        told.iter().for_each(|other| self.tell_handles(name, other));
    }

    /// Passes a packet on to those who are subscribed to its track.
    pub(super) fn data_track_packet(&mut self, peer: PeerKey, payload: &[u8]) {
        let Some((name, sid, _)) = self.peers.get(&peer) else { return };
        let Some(room) = self.rooms.get(name) else { return };
        let Some(sender) = room.participants.get(sid) else { return };
        let track = payload.get(DATA_TRACK_HANDLE).and_then(|handle| {
            let handle = u32::from(u16::from_be_bytes([handle[0], handle[1]]));
            sender.data_tracks.published.iter().find(|one| one.info.pub_handle == handle)
        });
        let Some(track) = track else {
            self.counted.messages_refused += 1;
            return;
        };
        let mut targets = vec![Vec::new(); self.workers.len()];
        for (other, handle) in &track.subscribers {
            if let Some(participant) = room.participants.get(other)
                && let Some(peer) = participant.subscriber
            {
                targets[participant.worker].push((peer, *handle));
            }
        }
        let payload: Arc<[u8]> = payload.into();
        for (worker, targets) in targets.into_iter().enumerate() {
            if !targets.is_empty() {
                let (targets, payload) = (targets.into(), payload.clone());
                self.command(worker, Command::DataTrack { targets, payload });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_given_for_one_track_at_a_time() {
        let mut tracks = DataTracks { handle: u16::MAX - 1, ..DataTracks::default() };
        let subscribe = |tracks: &mut DataTracks| tracks.subscribe(PublishedDataTrack::default());
        assert_eq!(subscribe(&mut tracks), Some(u16::MAX));
        assert_eq!(subscribe(&mut tracks), Some(1));
        tracks.handle = u16::MAX - 1;
        assert_eq!(subscribe(&mut tracks), Some(2), "65,535 and 1 are in use");
        tracks.handles.remove(&1);
        tracks.handle = u16::MAX;
        assert_eq!(subscribe(&mut tracks), Some(1));
        for _ in tracks.handles.len()..usize::from(u16::MAX) {
            assert!(subscribe(&mut tracks).is_some());
        }
        assert_eq!(subscribe(&mut tracks), None, "all are in use");
    }
}
