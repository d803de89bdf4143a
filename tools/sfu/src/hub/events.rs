//! What media workers tell.

use std::collections::HashSet;
use std::sync::Arc;

use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_response::Message;

use super::room::Participant;
use super::{Hub, messages};
use crate::bounded;
use crate::media::message::{Command, DATA_TRACK_CHANNEL, Event, PeerKey, Role, TrackKey};

/// What comes over this data channel is sent once.
const LOSSY_CHANNEL: &str = "_lossy";

impl Hub {
    /// Carries out one event of a worker. Events of peers already removed are ignored.
    pub(crate) fn event(&mut self, event: Event) {
        match event {
            Event::Offer { peer, id, sdp, mid_to_track_id } => {
                let mids = mid_to_track_id.into_iter().collect();
                let offer = messages::description("offer", id, sdp, mids);
                self.send(peer, Message::Offer(offer));
                self.trickle(peer, proto::SignalTarget::Subscriber);
            }
            Event::Answer { peer, id, sdp, codecs, mid_to_track_id } => {
                if let Some((participant, _)) = self.of_peer(peer) {
                    participant.offers_out = participant.offers_out.saturating_sub(1);
                }
                let mids = mid_to_track_id.into_iter().collect();
                let answer = messages::description("answer", id, sdp, mids);
                self.send(peer, Message::Answer(answer));
                self.trickle(peer, proto::SignalTarget::Publisher);
                self.publish_answered(peer, codecs);
            }
            Event::SlotsWanted { peer, missing } => {
                let required = proto::MediaSectionsRequirement {
                    num_audios: missing.audio,
                    num_videos: missing.video,
                };
                self.send(peer, Message::MediaSectionsRequirement(required));
            }
            Event::NegotiationFailed { peer, error } => {
                tracing::warn!(peer = peer.0, %error, "negotiation failed");
                self.end(peer, proto::DisconnectReason::StateMismatch);
            }
            Event::Connected { peer } => self.connected(peer),
            Event::Lost { peer, failure } => {
                tracing::info!(peer = peer.0, %failure, "media lost");
                self.media_lost(peer);
            }
            Event::Recovered { peer } => {
                if let Some((participant, role)) = self.of_peer(peer) {
                    participant.session.media_recovered(role);
                }
            }
            Event::IceRestarted { peer } => {
                self.counted.ice_restarts += u64::from(self.peers.contains_key(&peer));
            }
            // LiveKit goes on until ICE fails (`DisableCloseByDTLS`). What has closed DTLS can't be
            // resumed, so there is nothing to wait for here.
            Event::Closed { peer } => self.end(peer, proto::DisconnectReason::ClientInitiated),
            Event::Failed { peer, failure } => {
                tracing::info!(peer = peer.0, %failure, "connection ended");
                self.end(peer, proto::DisconnectReason::StateMismatch);
            }
            Event::Speaks { peer, level } => {
                if let Some((name, sid, _)) = self.peers.get(&peer).cloned() {
                    self.tell_speaker(&name, &sid, level);
                }
            }
            Event::Began { peer, track, codec } => self.track_began(peer, track, codec),
            Event::Takes { peer, track, codecs } => self.takes(peer, track, &codecs),
            Event::Fits { peer, track, fits } => self.tell_stream_state(peer, track, fits),
            Event::Data { peer, channel, payload } if channel == DATA_TRACK_CHANNEL => {
                self.data_track_packet(peer, &payload);
            }
            Event::Data { peer, channel, payload } => self.data(peer, &channel, &payload),
        }
    }

    /// Whose peer connection this is.
    fn of_peer(&mut self, peer: PeerKey) -> Option<(&mut Participant, Role)> {
        let (room, sid, role) = self.peers.get(&peer)?;
        Some((self.rooms.get_mut(room)?.participants.get_mut(sid)?, *role))
    }

    fn send(&mut self, peer: PeerKey, message: Message) {
        if let Some((participant, _)) = self.of_peer(peer) {
            participant.send(message);
        }
    }

    /// Sends the worker's candidate once a peer connection; it is in the SDP too.
    fn trickle(&mut self, peer: PeerKey, target: proto::SignalTarget) {
        let Some((room, sid, _)) = self.peers.get(&peer) else { return };
        let room = self.rooms.get_mut(room);
        let Some(participant) = room.and_then(|room| room.participants.get_mut(sid)) else {
            return;
        };
        let Some(worker) = self.workers.get(participant.worker) else { return };
        let Some(sent) = participant.trickled.get_mut(target as usize) else { return };
        if !std::mem::replace(sent, true) {
            participant.send(Message::Trickle(messages::trickle(worker.address(), target)));
        }
    }

    fn publish_answered(&mut self, peer: PeerKey, codecs: Vec<(TrackKey, Option<&'static str>)>) {
        let Some((name, ..)) = self.peers.get(&peer).cloned() else { return };
        for (key, mime_type) in codecs {
            let room = self.rooms.get_mut(&name);
            let Some(track) = room.and_then(|room| room.tracks.get_mut(&key)) else { continue };
            if let Some(mime_type) = mime_type.filter(|_| track.backup_of.is_none()) {
                track.info.mime_type = mime_type.to_owned();
                if let Some(codec) = track.info.codecs.first_mut() {
                    codec.mime_type = mime_type.to_owned();
                }
            }
            self.go_live(&name, key);
        }
    }

    fn connected(&mut self, peer: PeerKey) {
        let Some((name, sid, role)) = self.peers.get(&peer).cloned() else { return };
        let room = self.rooms.get_mut(&name);
        let Some(participant) = room.and_then(|room| room.participants.get_mut(&sid)) else {
            return;
        };
        let primary = (role == Role::Subscriber) == participant.subscriber_primary;
        participant.session.connected(primary);
        if primary {
            participant.info.state = proto::participant_info::State::Active as i32;
            self.announce(&name, &sid);
            if self.subscribe_to_data_tracks(&name, &sid) {
                self.tell_handles(&name, &sid);
            }
        }
    }

    fn end(&mut self, peer: PeerKey, reason: proto::DisconnectReason) {
        if let Some((name, sid, _)) = self.peers.get(&peer).cloned() {
            self.remove(&name, &sid, reason, true);
        }
    }

    /// Passes a data packet on to the others, or to those it names.
    fn data(&mut self, peer: PeerKey, channel: &str, payload: &[u8]) {
        let Some((name, sid, _)) = self.peers.get(&peer).cloned() else { return };
        let Some(room) = self.rooms.get(&name) else { return };
        let Some(sender) = room.participants.get(&sid) else { return };
        let allowed = sender.grants().can_publish_data.unwrap_or(true);
        let Some(mut packet) = bounded::data(payload).ok().filter(|_| allowed) else {
            self.counted.messages_refused += 1;
            return;
        };
        // As livekit-server does: by which channel it came, not what the client says.
        #[allow(deprecated)]
        {
            packet.kind = i32::from(channel == LOSSY_CHANNEL);
        }
        packet.participant_sid = sid.to_string();
        packet.participant_identity = sender.info.identity.clone();
        let names: HashSet<&String> = packet.destination_identities.iter().collect();
        let named = |one: &Participant| names.is_empty() || names.contains(&one.info.identity);
        let mut targets = vec![Vec::new(); self.workers.len()];
        for (_, other) in room.participants.iter().filter(|(other, _)| **other != sid) {
            if !named(other) {
                continue;
            }
            // Who only sends is sent data over that connection, as LiveKit does
            // (`pkg/rtc/transportmanager.go`, `getTransport`).
            match other.subscriber.or(other.publisher) {
                Some(peer) => targets[other.worker].push(peer),
                None => self.counted.messages_undeliverable += 1,
            }
        }
        let payload: Arc<[u8]> = packet.encode_to_vec().into();
        let channel: Arc<str> = channel.into();
        for (worker, targets) in targets.into_iter().enumerate() {
            if !targets.is_empty() {
                let (channel, payload) = (channel.clone(), payload.clone());
                self.command(worker, Command::Data { targets: targets.into(), channel, payload });
            }
        }
    }
}
