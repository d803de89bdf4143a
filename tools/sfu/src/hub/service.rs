//! RoomService's part of the rooms.

use std::collections::HashSet;
use std::sync::Arc;

use livekit_protocol as proto;

use super::Hub;
use crate::limits;

impl Hub {
    /// Makes a room; one that exists is returned as it is (LiveKit does the same). `None` if there are
    /// as many as there may be.
    pub(crate) fn create_room(
        &mut self,
        request: &proto::CreateRoomRequest,
    ) -> Option<proto::Room> {
        let exists = self.rooms.contains_key(&request.name);
        if !exists && self.rooms.len() >= limits::ROOMS_MAX {
            return None;
        }
        let room = self.room(&request.name);
        if !exists {
            if request.empty_timeout > 0 {
                room.info.empty_timeout = request.empty_timeout;
            }
            if request.departure_timeout > 0 {
                room.info.departure_timeout = request.departure_timeout;
            }
            room.info.max_participants = request.max_participants;
            room.info.metadata.clone_from(&request.metadata);
        }
        Some(room.current())
    }

    /// The rooms named, or all.
    pub(crate) fn list_rooms(&self, names: &[String]) -> Vec<proto::Room> {
        let names: HashSet<&String> = names.iter().collect();
        let rooms = self.rooms.iter();
        rooms
            .filter(|(name, _)| names.is_empty() || names.contains(name))
            .map(|(_, room)| room.current())
            .collect()
    }

    /// Ends a room and everybody's stay in it. Whether there was one.
    pub(crate) fn delete_room(&mut self, name: &str) -> bool {
        let Some(room) = self.rooms.get(name) else { return false };
        let sids: Vec<_> = room.participants.keys().cloned().collect();
        for sid in sids {
            self.remove(name, &sid, proto::DisconnectReason::RoomDeleted, true);
        }
        self.close_room(name);
        true
    }

    /// Sends everybody away because the server ends.
    pub(crate) fn shut_down(&mut self) {
        let everybody: Vec<(String, Arc<str>)> = self
            .rooms
            .iter()
            .flat_map(|(name, room)| {
                room.participants.keys().map(|sid| (name.clone(), sid.clone()))
            })
            .collect();
        for (name, sid) in everybody {
            self.remove(&name, &sid, proto::DisconnectReason::ServerShutdown, true);
        }
    }

    /// The participants of a room.
    pub(crate) fn list_participants(&self, name: &str) -> Vec<proto::ParticipantInfo> {
        let participants = self.rooms.get(name).map(|room| room.participants.values());
        participants.into_iter().flatten().map(|p| p.info.clone()).collect()
    }

    /// Removes a participant by its identity. Whether there was one.
    pub(crate) fn remove_participant(&mut self, name: &str, identity: &str) -> bool {
        let sid = self.rooms.get(name).and_then(|room| room.identities.get(identity)).cloned();
        let Some(sid) = sid else { return false };
        self.remove(name, &sid, proto::DisconnectReason::ParticipantRemoved, true);
        true
    }
}
