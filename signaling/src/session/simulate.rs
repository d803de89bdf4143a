//! What a LiveKit server does to a participant that asks for it.

use std::time::Duration;

use livekit_protocol as proto;
use proto::simulate_scenario::Scenario;

/// One variant of `SimulateScenario` (livekit_rtc.proto; livekit rtc/room.go).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Simulation {
    /// The server says that the participant speaks.
    SpeakerUpdate {
        /// How long, in whole seconds.
        length: Duration,
    },
    /// The connection is dropped as if the node had failed.
    NodeFailure,
    /// The connection is dropped as if the participant were taken to another node.
    Migration,
    /// The server tells the participant to leave for good.
    ServerLeave,
    /// Only candidates of this protocol are used from the next ICE restart on.
    SwitchCandidateProtocol(CandidateProtocol),
    /// The server takes this for the bandwidth of the participant, whatever is measured.
    SubscriberBandwidth {
        /// Bits a second; 0 ends it.
        rate_bps: u64,
    },
    /// The next websocket that resumes is closed after the first messages.
    DisconnectSignalOnResume,
    /// The next websockets that resume are closed before any message.
    DisconnectSignalOnResumeNoMessages,
    /// The server asks for a full reconnect; livekit-server 1.13.5 ignores it.
    LeaveRequestFullReconnect,
}

/// `CandidateProtocol` of livekit_rtc.proto.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CandidateProtocol {
    /// UDP.
    Udp,
    /// TCP without TLS.
    Tcp,
    /// TURN over TLS.
    Tls,
}

impl CandidateProtocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Udp, Self::Tcp, Self::Tls];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

impl Simulation {
    /// The variant's name in livekit_rtc.proto.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SpeakerUpdate { .. } => "speaker_update",
            Self::NodeFailure => "node_failure",
            Self::Migration => "migration",
            Self::ServerLeave => "server_leave",
            Self::SwitchCandidateProtocol(_) => "switch_candidate_protocol",
            Self::SubscriberBandwidth { .. } => "subscriber_bandwidth",
            Self::DisconnectSignalOnResume => "disconnect_signal_on_resume",
            Self::DisconnectSignalOnResumeNoMessages => "disconnect_signal_on_resume_no_messages",
            Self::LeaveRequestFullReconnect => "leave_request_full_reconnect",
        }
    }
}

impl Simulation {
    /// As it goes over the wire.
    pub(super) fn to_proto(self) -> Scenario {
        match self {
            Self::SpeakerUpdate { length } => {
                Scenario::SpeakerUpdate(i32::try_from(length.as_secs()).unwrap_or(i32::MAX))
            }
            Self::NodeFailure => Scenario::NodeFailure(true),
            Self::Migration => Scenario::Migration(true),
            Self::ServerLeave => Scenario::ServerLeave(true),
            Self::SwitchCandidateProtocol(to) => {
                let protocol = match to {
                    CandidateProtocol::Udp => proto::CandidateProtocol::Udp,
                    CandidateProtocol::Tcp => proto::CandidateProtocol::Tcp,
                    CandidateProtocol::Tls => proto::CandidateProtocol::Tls,
                };
                Scenario::SwitchCandidateProtocol(protocol as i32)
            }
            Self::SubscriberBandwidth { rate_bps } => {
                Scenario::SubscriberBandwidth(i64::try_from(rate_bps).unwrap_or(i64::MAX))
            }
            Self::DisconnectSignalOnResume => Scenario::DisconnectSignalOnResume(true),
            Self::DisconnectSignalOnResumeNoMessages => {
                Scenario::DisconnectSignalOnResumeNoMessages(true)
            }
            Self::LeaveRequestFullReconnect => Scenario::LeaveRequestFullReconnect(true),
        }
    }
}
