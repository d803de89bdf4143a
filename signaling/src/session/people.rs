//! What participants say of themselves and hear of each other besides tracks: attributes, and who
//! speaks.

use livekit_protocol as proto;
use proto::request_response::Reason;
use proto::signal_request::Message as Request;

use super::{Other, Session, SessionEvent};

/// Others that are met at most; further ones are not told of.
pub const OTHERS_MET_MAX: usize = 4_096;

/// The attribute that [`Session::update_attribute`] changes.
pub const UPDATE_ATTRIBUTE: &str = "stampede.update";

impl Session {
    /// Changes our own attribute [`UPDATE_ATTRIBUTE`] to this number, which others are told with all
    /// that they know of us. Needs the grant `canUpdateOwnMetadata`. Nothing before `join` and after
    /// the end.
    pub fn update_attribute(&mut self, number: u32) {
        if self.ended || !self.joined {
            return;
        }
        let attributes = [(UPDATE_ATTRIBUTE.to_owned(), number.to_string())].into();
        self.send(Request::UpdateMetadata(proto::UpdateParticipantMetadata {
            attributes,
            request_id: number,
            ..proto::UpdateParticipantMetadata::default()
        }));
    }

    pub(super) fn on_update_answered(&mut self, reason: Reason) {
        if !matches!(reason, Reason::Ok | Reason::Queued) {
            let reason = reason.as_str_name().to_ascii_lowercase();
            self.event(SessionEvent::UpdateRefused { reason });
        }
    }

    /// Tells which updates of others these are; one event, however many they are.
    pub(super) fn tell_updates(&mut self, participants: &[proto::ParticipantInfo]) {
        if !self.watch_others {
            return;
        }
        let others = participants.iter().filter(|participant| participant.sid != self.own_sid);
        let updates: Vec<(String, u32)> = others
            .filter_map(|participant| {
                let number = participant.attributes.get(UPDATE_ATTRIBUTE)?.parse().ok()?;
                Some((participant.identity.clone(), number))
            })
            .collect();
        if !updates.is_empty() {
            self.event(SessionEvent::OthersUpdated(updates));
        }
    }

    /// Tells who is connected now, and who is gone.
    pub(super) fn tell_others(&mut self, participants: &[proto::ParticipantInfo]) {
        use proto::participant_info::State;
        let Some(known) = &mut self.others else { return };
        let (mut met, mut parted) = (Vec::new(), Vec::new());
        for other in participants.iter().filter(|other| other.sid != self.own_sid) {
            if other.state == State::Disconnected as i32 {
                parted.extend(known.take(&other.sid));
            } else if other.state == State::Active as i32
                && known.len() < OTHERS_MET_MAX
                && known.insert(other.sid.clone())
            {
                met.push(Other {
                    sid: other.sid.clone(),
                    identity: other.identity.clone(),
                    client_protocol: other.client_protocol,
                });
            }
        }
        if !parted.is_empty() {
            self.event(SessionEvent::OthersParted(parted));
        }
        if !met.is_empty() {
            self.event(SessionEvent::OthersMet(met));
        }
    }

    /// Tells that everybody who was met is gone: we are in another room.
    pub(super) fn others_left_behind(&mut self) {
        let parted: Vec<_> = self.others.iter_mut().flat_map(|known| known.drain()).collect();
        if !parted.is_empty() {
            self.event(SessionEvent::OthersParted(parted));
        }
    }

    pub(super) fn on_speakers_changed(&mut self, changed: proto::SpeakersChanged) {
        let speakers: Vec<(String, bool)> =
            changed.speakers.into_iter().map(|speaker| (speaker.sid, speaker.active)).collect();
        if !speakers.is_empty() {
            self.event(SessionEvent::SpeakersChanged(speakers));
        }
    }
}
