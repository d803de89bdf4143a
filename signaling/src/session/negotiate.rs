//! Offers, answers and candidates: the dual peer connections of LiveKit's v0 protocol, where the
//! server offers to subscribers and publishers offer to the server (livekit pkg/rtc/transport.go).

use std::time::Instant;

use livekit_protocol as proto;
use proto::SessionDescription;
use proto::signal_request::Message as Request;

use super::publish::OfferState;
use super::tracks::Changes;
use super::{
    CANDIDATES_HELD_MAX, EndReason, MediaCommand, Output, RoleState, Session, Target, candidate,
    flood,
};

impl Session {
    pub(super) fn start_publishing(&mut self, now: Instant, server_allows_fast: bool) {
        let RoleState::Publisher(publishing) = &mut self.role else { return };
        let requests = publishing.start(now.checked_add(self.publish_timeout));
        let at_once = server_allows_fast && self.fast_publish && !requests.is_empty();
        for request in requests {
            self.send(Request::AddTrack(request));
        }
        if at_once {
            self.ask_offer();
        }
    }

    pub(super) fn ask_offer(&mut self) {
        let RoleState::Publisher(publishing) = &mut self.role else { return };
        if publishing.offer == OfferState::NotAsked {
            publishing.offer = OfferState::Asked;
            self.outputs.push_back(Output::Media(MediaCommand::CreateOffer));
        }
    }

    pub(super) fn on_offer(&mut self, now: Instant, offer: SessionDescription) {
        if let Err(flood) = self.meters.offer(now, offer.sdp.len()) {
            return self.end(EndReason::ServerFlooded { flood });
        }
        if !matches!(self.role, RoleState::Subscriber { .. }) {
            self.counters.offers_ignored += 1;
            return;
        }
        if offer.r#type != "offer" || offer.sdp.is_empty() {
            self.counters.malformed += 1;
            return;
        }
        let id = offer.id;
        // Serial number arithmetic (RFC 1982): ids grow by one; servers before ids send 0.
        let outdated = |last: u32| id.wrapping_sub(last).cast_signed() <= 0;
        if id != 0 && self.last_offer_id.is_some_and(outdated) {
            self.counters.offers_ignored += 1;
            return;
        }
        if id != 0 {
            self.last_offer_id = Some(id);
        }
        if self.offers.worked_on.is_none() {
            return self.work_on(offer);
        }
        if self.offers.waiting.replace(offer).is_some() {
            self.counters.offers_ignored += 1;
        }
    }

    /// Gives an offer to the engine.
    fn work_on(&mut self, offer: SessionDescription) {
        let RoleState::Subscriber { tracks, .. } = &mut self.role else { return };
        let SessionDescription { sdp, id, mid_to_track_id, .. } = offer;
        self.offers.worked_on = Some(id);
        let mid_to_track_id: Vec<(String, String)> = mid_to_track_id.into_iter().collect();
        let mut changes = Changes::default();
        tracks.offered(&mid_to_track_id, &sdp, &mut changes);
        self.descriptions.offer = sdp.as_str().into();
        let command = MediaCommand::RemoteOffer { id, sdp, mid_to_track_id };
        self.outputs.push_back(Output::Media(command));
        self.apply(changes);
        self.release_candidates(Target::Subscriber);
    }

    pub(super) fn on_local_answer(&mut self, offer_id: u32, sdp: String) {
        if self.offers.worked_on != Some(offer_id) {
            self.counters.answers_ignored += 1;
            return;
        }
        self.offers.worked_on = None;
        if let Some(newer) = self.offers.waiting.take() {
            // The server no longer waits for this one.
            self.counters.answers_ignored += 1;
            return self.work_on(newer);
        }
        self.descriptions.answer = sdp.as_str().into();
        self.send(Request::Answer(SessionDescription {
            r#type: "answer".to_owned(),
            sdp,
            id: offer_id,
            ..SessionDescription::default()
        }));
    }

    pub(super) fn on_local_offer(&mut self, sdp: String) {
        let RoleState::Publisher(publishing) = &mut self.role else {
            self.counters.offers_ignored += 1;
            return;
        };
        if publishing.offer != OfferState::Asked {
            self.counters.offers_ignored += 1;
            return;
        }
        let id = publishing.next_offer();
        self.descriptions.offer = sdp.as_str().into();
        self.send(Request::Offer(SessionDescription {
            r#type: "offer".to_owned(),
            sdp,
            id,
            ..SessionDescription::default()
        }));
    }

    pub(super) fn on_answer(&mut self, answer: SessionDescription) {
        if answer.sdp.is_empty() {
            self.counters.malformed += 1;
            return;
        }
        if let Err(flood) = flood::sdp(answer.sdp.len()) {
            return self.end(EndReason::ServerFlooded { flood });
        }
        let expected = match &mut self.role {
            RoleState::Publisher(publishing) => publishing.answered(),
            RoleState::Subscriber { .. } => false,
        };
        if !expected {
            self.counters.answers_ignored += 1;
            return;
        }
        self.descriptions.answer = answer.sdp.as_str().into();
        self.outputs.push_back(Output::Media(MediaCommand::RemoteAnswer { sdp: answer.sdp }));
        self.release_candidates(Target::Publisher);
    }

    /// The one peer connection that a role has.
    pub(crate) fn own_target(&self) -> Target {
        match self.role {
            RoleState::Subscriber { .. } => Target::Subscriber,
            RoleState::Publisher(_) => Target::Publisher,
        }
    }

    pub(super) fn on_trickle(&mut self, now: Instant, trickle: &proto::TrickleRequest) {
        if let Err(flood) = self.meters.candidate(now) {
            return self.end(EndReason::ServerFlooded { flood });
        }
        let target = self.own_target();
        if trickle.target != target.to_proto() as i32 {
            self.counters.candidates_dropped += 1;
            return;
        }
        match candidate::parse(&trickle.candidate_init) {
            Ok(None) => {}
            Err(()) => self.counters.candidates_dropped += 1,
            // One that comes after an offer that waits may belong to it.
            Ok(Some(candidate)) if self.remote_described && self.offers.waiting.is_none() => {
                let command = MediaCommand::RemoteCandidate { target, candidate };
                self.outputs.push_back(Output::Media(command));
            }
            Ok(Some(candidate)) => {
                if self.held_candidates.len() < CANDIDATES_HELD_MAX {
                    self.held_candidates.push(candidate);
                } else {
                    self.counters.candidates_dropped += 1;
                }
            }
        }
    }

    fn release_candidates(&mut self, target: Target) {
        self.remote_described = true;
        for candidate in std::mem::take(&mut self.held_candidates) {
            let command = MediaCommand::RemoteCandidate { target, candidate };
            self.outputs.push_back(Output::Media(command));
        }
    }
}
