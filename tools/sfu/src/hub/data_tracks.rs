//! Data tracks: who publishes them, who is subscribed, and by which handles (LiveKit
//! `pkg/rtc/participant_data_track.go`, `pkg/rtc/datatrack.go`).

use std::collections::HashMap;
use std::sync::Arc;

use livekit_protocol as proto;
use proto::data_track_subscriber_handles::PublishedDataTrack;
use proto::request_response::{Reason, Request as About};
use proto::signal_response::Message;

use super::{Hub, Place};
use crate::media::message::{Command, DATA_TRACK_HANDLE, PeerKey};

/// Data tracks of a participant; further ones are refused.
const DATA_TRACKS_MAX: usize = 100;
/// Longest name of one, as LiveKit's.
const NAME_CHARS_MAX: usize = 256;

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
    /// The handle of its latest subscription.
    handle: u16,
}

impl DataTracks {
    pub(super) fn new(auto_subscribe: bool) -> Self {
        Self { auto_subscribe, ..Self::default() }
    }

    /// Whether it publishes this one.
    pub(super) fn has(&self, sid: &str) -> bool {
        self.published.iter().any(|track| track.info.sid == sid)
    }

    fn next_handle(&mut self) -> u16 {
        self.handle = self.handle.checked_add(1).unwrap_or(1);
        self.handle
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
        } else if request.name.is_empty() || request.name.len() > NAME_CHARS_MAX {
            Reason::InvalidName
        } else if published.iter().any(|track| track.info.pub_handle == request.pub_handle) {
            Reason::DuplicateHandle
        } else if published.iter().any(|track| track.info.name == request.name) {
            Reason::DuplicateName
        } else if published.len() >= DATA_TRACKS_MAX {
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
        for other in others {
            if self.set_data_subscription(&who.room, &other, &sid, true) {
                self.tell_handles(&who.room, &other);
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
        for (other, _) in subscribers {
            self.tell_handles(&who.room, &other);
        }
    }

    pub(super) fn update_data_subscription(
        &mut self,
        who: &Place,
        update: &proto::UpdateDataSubscription,
    ) {
        let mut changed = false;
        for one in &update.updates {
            let (track, subscribe) = (&one.track_sid, one.subscribe);
            changed |= self.set_data_subscription(&who.room, &who.sid, track, subscribe);
        }
        if changed {
            self.tell_handles(&who.room, &who.sid);
        }
    }

    /// Subscribes a participant to a data track of somebody else, or no longer. Whether that changed
    /// anything.
    fn set_data_subscription(&mut self, name: &str, sid: &str, track: &str, wanted: bool) -> bool {
        let Some(room) = self.rooms.get_mut(name) else { return false };
        let of = |(other, one): &(&Arc<str>, &super::Participant)| {
            ***other != *sid && one.data_tracks.has(track)
        };
        let publisher = room.participants.iter().find(of).map(|(other, _)| other.clone());
        let Some(publisher) = publisher else { return false };
        let Some((sid, subscriber)) = room.participants.get_key_value(sid) else { return false };
        if subscriber.subscriber.is_none() {
            return false;
        }
        let sid = sid.clone();
        let published = |room: &mut super::Room| {
            let tracks = &mut room.participants.get_mut(&publisher)?.data_tracks.published;
            let place = tracks.iter().position(|one| one.info.sid == track)?;
            let subscribers = &mut tracks[place].subscribers;
            let known = subscribers.iter().position(|(known, _)| *known == sid);
            if let Some(place) = known.filter(|_| !wanted) {
                subscribers.swap_remove(place);
            }
            Some(known.is_some())
        };
        let Some(was) = published(room) else { return false };
        if wanted && !was {
            let handle = room.participants.get_mut(&sid).map(|one| one.data_tracks.next_handle());
            let tracks = room.participants.get_mut(&publisher).map(|one| &mut one.data_tracks);
            let of = |one: &&mut DataTrack| one.info.sid == track;
            let track = tracks.and_then(|tracks| tracks.published.iter_mut().find(of));
            if let (Some(handle), Some(track)) = (handle, track) {
                track.subscribers.push((sid, handle));
            }
        }
        was != wanted
    }

    /// Subscribes who is there now to the data tracks it finds, if it wants all.
    pub(super) fn subscribe_to_data_tracks(&mut self, name: &str, sid: &str) {
        let Some(room) = self.rooms.get(name) else { return };
        let wants = room.participants.get(sid).is_some_and(|one| one.data_tracks.auto_subscribe);
        let tracks = room.participants.values().filter(|_| wants);
        let tracks = tracks.flat_map(|other| &other.data_tracks.published);
        let tracks: Vec<String> = tracks.map(|track| track.info.sid.clone()).collect();
        let mut changed = false;
        for track in tracks {
            changed |= self.set_data_subscription(name, sid, &track, true);
        }
        if changed {
            self.tell_handles(name, sid);
        }
    }

    /// Tells a participant all its handles.
    pub(super) fn tell_handles(&self, name: &str, sid: &str) {
        let sub_handles = self.handles(name, sid);
        let room = self.rooms.get(name);
        if let Some(participant) = room.and_then(|room| room.participants.get(sid)) {
            let handles = proto::DataTrackSubscriberHandles { sub_handles };
            participant.send(Message::DataTrackSubscriberHandles(handles));
        }
    }

    /// Tells who resumes its handles, if it has any.
    pub(super) fn tell_handles_again(&self, name: &str, sid: &str) {
        if !self.handles(name, sid).is_empty() {
            self.tell_handles(name, sid);
        }
    }

    fn handles(&self, name: &str, sid: &str) -> HashMap<u32, PublishedDataTrack> {
        let mut sub_handles = HashMap::new();
        let participants = self.rooms.get(name).map(|room| room.participants.values());
        for publisher in participants.into_iter().flatten() {
            for track in &publisher.data_tracks.published {
                let of = |(known, _): &&(Arc<str>, u16)| **known == *sid;
                let Some((_, handle)) = track.subscribers.iter().find(of) else { continue };
                let published = PublishedDataTrack {
                    publisher_identity: publisher.info.identity.clone(),
                    publisher_sid: publisher.info.sid.clone(),
                    track_sid: track.info.sid.clone(),
                };
                sub_handles.insert(u32::from(*handle), published);
            }
        }
        sub_handles
    }

    /// Takes a participant that has left the room `name` out of all data tracks, and ends its own.
    pub(super) fn leave_data_tracks(&mut self, name: &str, left: &mut super::Participant) {
        let sid = left.info.sid.clone();
        left.info.data_tracks.clear();
        let published = std::mem::take(&mut left.data_tracks.published);
        let Some(room) = self.rooms.get_mut(name) else { return };
        for other in room.participants.values_mut() {
            for track in &mut other.data_tracks.published {
                track.subscribers.retain(|(known, _)| **known != *sid);
            }
        }
        let mut told: Vec<Arc<str>> = Vec::new();
        for (other, _) in published.into_iter().flat_map(|track| track.subscribers) {
            if !told.contains(&other) {
                self.tell_handles(name, &other);
                told.push(other);
            }
        }
    }

    /// Passes a packet on to those who are subscribed to its track.
    pub(super) fn data_track_packet(&mut self, peer: PeerKey, payload: &[u8]) {
        let Some((name, sid, _)) = self.peers.get(&peer) else { return };
        let Some(room) = self.rooms.get(name) else { return };
        let Some(sender) = room.participants.get(sid) else { return };
        let Some(handle) = payload.get(DATA_TRACK_HANDLE) else { return };
        let handle = u32::from(u16::from_be_bytes([handle[0], handle[1]]));
        let published = &sender.data_tracks.published;
        let Some(track) = published.iter().find(|one| one.info.pub_handle == handle) else {
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
