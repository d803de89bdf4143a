//! Offers, answers and candidates (livekit pkg/rtc/transport.go): the dual peer connections of
//! LiveKit's v0 protocol, where the server offers to subscribers and publishers offer to the server,
//! and the single one of v1, where the client offers always and the server says how many m-lines it
//! lacks.

use std::time::Instant;

use livekit_protocol as proto;
use proto::SessionDescription;
use proto::signal_request::Message as Request;
use stampede_sdp::Slots;

use super::offers::Wanted;
use super::tracks::Changes;
use super::{
    CANDIDATES_HELD_MAX, EndReason, FIRST_SLOTS, MediaCommand, Output, Receiving, Session,
    SignalVersion, Target, candidate,
};

impl Session {
    pub(super) fn start_publishing(&mut self, now: Instant, server_allows_fast: bool) {
        let Some(publishing) = &mut self.publishing else { return };
        let requests = publishing.start(now.checked_add(self.publish_timeout));
        // Without tracks there is nothing to wait for.
        let at_once = requests.is_empty() || (server_allows_fast && self.fast_publish);
        for request in requests {
            self.send(Request::AddTrack(request));
        }
        if at_once {
            self.offer_tracks(now);
        }
    }

    /// An offer of our tracks, once.
    pub(super) fn offer_tracks(&mut self, now: Instant) {
        if let Some(publishing) = &mut self.publishing
            && publishing.is_to_be_offered()
        {
            self.want_offer(now, Wanted { added: Slots::default(), publish: true });
        }
    }

    /// An offer with a track's backup, which was announced.
    pub(super) fn offer_backup(&mut self, now: Instant) {
        self.want_offer(now, Wanted { added: Slots::default(), publish: true });
    }

    /// An offer with what is wanted more.
    fn want_offer(&mut self, now: Instant, wanted: Wanted) {
        let command = self.own_offers.want(now, wanted);
        self.outputs.extend(command.map(Output::Media));
    }

    /// True if the client offers what it receives by.
    pub(super) fn offers_slots(&self) -> bool {
        self.version == SignalVersion::V1 && self.receiving.is_some()
    }

    /// The first m-lines to receive by, if none went along with the join.
    pub(super) fn start_receiving(&mut self, now: Instant) {
        if self.offers_slots() && !self.own_offers.is_begun() {
            self.want_offer(now, Wanted { added: FIRST_SLOTS, publish: false });
        }
    }

    /// The server lacks m-lines for what we are subscribed to; without any it wants an offer all the
    /// same, to answer with what has changed.
    pub(super) fn on_slots_wanted(
        &mut self,
        now: Instant,
        wanted: proto::MediaSectionsRequirement,
    ) {
        if !self.offers_slots() {
            self.counters.unneeded += 1;
            return;
        }
        let asked = Slots { audio: wanted.num_audios, video: wanted.num_videos };
        let fitting = self.own_offers.fitting(asked);
        let left_out = |asked: u32, fitting: u32| u64::from(asked - fitting);
        self.counters.tracks_ignored +=
            left_out(asked.audio, fitting.audio) + left_out(asked.video, fitting.video);
        // One that can't be served would be asked for again after each offer.
        if asked == Slots::default() || fitting != Slots::default() {
            self.want_offer(now, Wanted { added: fitting, publish: false });
        }
    }

    pub(super) fn on_offer(&mut self, now: Instant, offer: SessionDescription) {
        if let Err(flood) = self.meters.offer(now, offer.sdp.len()) {
            return self.end(EndReason::ServerFlooded { flood });
        }
        if !self.has(Target::Subscriber) {
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
        let Some(Receiving { tracks, .. }) = &mut self.receiving else { return };
        let SessionDescription { sdp, id, mid_to_track_id, .. } = offer;
        self.offers.worked_on = Some(id);
        let mid_to_track_id: Vec<(String, String)> = mid_to_track_id.into_iter().collect();
        let mut changes = Changes::default();
        // An old server names none.
        if !mid_to_track_id.is_empty() {
            tracks.named(&mid_to_track_id, &sdp, &mut changes);
        }
        self.descriptions.set_offer(&sdp);
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
        self.descriptions.set_answer(&sdp);
        self.send(Request::Answer(SessionDescription {
            r#type: "answer".to_owned(),
            sdp,
            id: offer_id,
            ..SessionDescription::default()
        }));
    }

    pub(super) fn on_local_offer(&mut self, id: u32, sdp: String) {
        if !self.own_offers.made(id) {
            self.counters.offers_ignored += 1;
            return;
        }
        if !self.has(Target::Subscriber) {
            self.descriptions.set_offer(&sdp);
        }
        self.send(Request::Offer(SessionDescription {
            r#type: "offer".to_owned(),
            sdp,
            id,
            ..SessionDescription::default()
        }));
    }

    pub(super) fn on_answer(&mut self, now: Instant, answer: SessionDescription) {
        // It makes as much work as an offer.
        if let Err(flood) = self.meters.offer(now, answer.sdp.len()) {
            return self.end(EndReason::ServerFlooded { flood });
        }
        let SessionDescription { sdp, id, mid_to_track_id, .. } = answer;
        if sdp.is_empty() {
            self.counters.malformed += 1;
            return;
        }
        if !self.own_offers.answered(now, id) {
            self.counters.answers_ignored += 1;
            return;
        }
        let mid_to_track_id: Vec<(String, String)> = mid_to_track_id.into_iter().collect();
        let mut changes = Changes::default();
        let single = self.offers_slots();
        if let Some(Receiving { tracks, .. }) = &mut self.receiving
            && single
        {
            tracks.named(&mid_to_track_id, &sdp, &mut changes);
        }
        self.settle_publishing();
        if !self.has(Target::Subscriber) {
            self.descriptions.set_answer(&sdp);
        }
        let command = MediaCommand::RemoteAnswer { sdp, mid_to_track_id };
        self.outputs.push_back(Output::Media(command));
        self.apply(changes);
        self.release_candidates(Target::Publisher);
    }

    /// Nothing is waited for any more once all tracks are answered, and so is the offer.
    pub(super) fn settle_publishing(&mut self) {
        let Some(publishing) = &mut self.publishing else { return };
        if publishing.are_tracks_settled() && self.own_offers.are_tracks_answered() {
            publishing.deadline = None;
        }
    }

    /// The peer connection that we have; of two the one to receive by. The single one goes by the
    /// publisher's name.
    pub(crate) fn own_target(&self) -> Target {
        match self.has(Target::Subscriber) {
            true => Target::Subscriber,
            false => Target::Publisher,
        }
    }

    /// True if we have this peer connection.
    fn has(&self, target: Target) -> bool {
        match (self.version, target) {
            (SignalVersion::V0, Target::Subscriber) => self.receiving.is_some(),
            (SignalVersion::V0, Target::Publisher) => self.publishing.is_some(),
            (SignalVersion::V1, target) => target == Target::Publisher,
        }
    }

    pub(super) fn on_trickle(&mut self, now: Instant, trickle: &proto::TrickleRequest) {
        if let Err(flood) = self.meters.candidate(now) {
            return self.end(EndReason::ServerFlooded { flood });
        }
        let target = Target::from_proto(trickle.target).filter(|target| self.has(*target));
        let Some(target) = target else {
            self.counters.candidates_dropped += 1;
            return;
        };
        let waits = target == Target::Subscriber && self.offers.waiting.is_some();
        let remote = &mut self.remotes[target as usize];
        match candidate::parse(&trickle.candidate_init) {
            Ok(None) => {}
            Err(()) => self.counters.candidates_dropped += 1,
            // One that comes after an offer that waits may belong to it.
            Ok(Some(candidate)) if remote.described && !waits => {
                let command = MediaCommand::RemoteCandidate { target, candidate };
                self.outputs.push_back(Output::Media(command));
            }
            Ok(Some(candidate)) => {
                if remote.held_candidates.len() < CANDIDATES_HELD_MAX {
                    remote.held_candidates.push(candidate);
                } else {
                    self.counters.candidates_dropped += 1;
                }
            }
        }
    }

    fn release_candidates(&mut self, target: Target) {
        let remote = &mut self.remotes[target as usize];
        remote.described = true;
        for candidate in std::mem::take(&mut remote.held_candidates) {
            let command = MediaCommand::RemoteCandidate { target, candidate };
            self.outputs.push_back(Output::Media(command));
        }
    }
}
