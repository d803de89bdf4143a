//! What a client has the server play (`SimulateScenario`; LiveKit `pkg/rtc/room.go`,
//! `onSimulateScenario`).

use std::time::Duration;

use livekit_protocol as proto;
use proto::signal_response::Message;
use proto::simulate_scenario::Scenario;

use super::session::ResumeEnd;
use super::{Hub, Place, messages};
use crate::media::message::Command;

/// Level of a simulated speaker (LiveKit `pkg/rtc/room.go`).
const SPEAKER_LEVEL: f32 = 0.9;

impl Hub {
    /// Plays a scenario for the participant that asks for it.
    pub(super) fn simulate(&mut self, who: &Place, scenario: Scenario) {
        let now = self.now;
        let room = self.rooms.get_mut(&who.room);
        let Some(participant) = room.and_then(|room| room.participants.get_mut(&who.sid)) else {
            return;
        };
        self.counted.scenarios_simulated += 1;
        tracing::info!(room = who.room, sid = %who.sid, ?scenario, "simulates");
        match scenario {
            Scenario::SpeakerUpdate(seconds) => {
                let seconds = u64::try_from(seconds).unwrap_or_default();
                participant.session.speak_until(now + Duration::from_secs(seconds));
                self.tell_speaker(&who.room, &who.sid, SPEAKER_LEVEL);
            }
            Scenario::NodeFailure(_) => {
                let reason = proto::DisconnectReason::ServerShutdown;
                self.remove(&who.room, &who.sid, reason, false);
            }
            Scenario::Migration(_) => {
                self.remove(&who.room, &who.sid, proto::DisconnectReason::Migration, false);
            }
            Scenario::ServerLeave(_) => {
                let reason = proto::DisconnectReason::ServerShutdown;
                self.remove(&who.room, &who.sid, reason, true);
            }
            // The candidates stay, and clients choose between UDP and TCP; with v0 signalling
            // LiveKit restarts ICE at once, and so is done here. With v1 it remembers the protocol for
            // the client's next restart.
            Scenario::SwitchCandidateProtocol(_) => {
                let subscriber = participant.subscriber.filter(|_| !participant.single);
                let worker = participant.worker;
                if let Some(peer) = subscriber {
                    self.command(worker, Command::RestartIce(peer));
                }
            }
            Scenario::SubscriberBandwidth(bps) => {
                participant.bandwidth_bps = u64::try_from(bps).ok().filter(|bps| *bps > 0);
                self.allot(&who.room, &who.sid);
            }
            Scenario::DisconnectSignalOnResume(_) => {
                participant.session.simulate_resume(ResumeEnd::AfterMessages, now);
            }
            Scenario::DisconnectSignalOnResumeNoMessages(_) => {
                participant.session.simulate_resume(ResumeEnd::WithoutMessages, now);
            }
            // 1.13.5 knows no such case and ignores it. It is played here as its name has it, for
            // no other scenario ends with this action.
            Scenario::LeaveRequestFullReconnect(_) => {
                self.remove(&who.room, &who.sid, proto::DisconnectReason::StateMismatch, true);
            }
        }
    }

    /// Tells a speaker and who has subscribed to it that it speaks as loud as this, or no longer: 0
    /// (LiveKit `pkg/rtc/participant_signal.go`, `SendSpeakerUpdate`).
    pub(super) fn tell_speaker(&self, name: &str, sid: &str, level: f32) {
        let Some(room) = self.rooms.get(name) else { return };
        let Some(speaker) = room.participants.get(sid) else { return };
        let info = proto::SpeakerInfo { sid: sid.to_owned(), level, active: level > 0.0 };
        let changed = proto::SpeakersChanged { speakers: vec![info] };
        let frame = messages::frame(Message::SpeakersChanged(changed));
        for (other, participant) in &room.participants {
            let mut tracks = speaker.tracks.iter();
            let hears = tracks.any(|track| participant.subscriptions.contains_key(track));
            if hears || **other == *sid {
                participant.send_frame(frame.clone());
            }
        }
    }
}
