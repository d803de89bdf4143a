//! What a LiveKit server can be asked to simulate.
//!
//! The names are those of the variants of `SimulateScenario` (livekit_rtc.proto), which
//! livekit-server handles in `Room.onSimulateScenario` (pkg/rtc/room.go).

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use stampede_units::parse;
use stampede_units::show::ExactDuration;

use super::FaultValueError;

/// How long a simulated speaker speaks unless it is said.
const SPEAKER_UPDATE_DEFAULT: Duration = Duration::from_secs(3);
/// The longest; a longer one is a typing error.
const SPEAKER_UPDATE_MAX: Duration = Duration::from_secs(3_600);
/// Rates that a subscriber can be held to, in bits a second; besides 0.
const RATE_BPS: RangeInclusive<f64> = 1e3..=100e9;

/// One variant of `SimulateScenario`.
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
    const ALL: [Self; 3] = [Self::Udp, Self::Tcp, Self::Tls];

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

impl FromStr for Simulation {
    type Err = FaultValueError;

    /// `NAME` or `NAME:PARAMETER`.
    fn from_str(text: &str) -> Result<Self, FaultValueError> {
        let (name, parameter) = match text.split_once(':') {
            Some((name, parameter)) => (name.trim(), Some(parameter.trim())),
            None => (text, None),
        };
        let simulation = match name {
            "speaker_update" => {
                let length = parameter.map_or(Ok(SPEAKER_UPDATE_DEFAULT), speaker_update)?;
                return Ok(Self::SpeakerUpdate { length });
            }
            "switch_candidate_protocol" => {
                let protocol = parameter.map_or(Ok(CandidateProtocol::Tcp), protocol)?;
                return Ok(Self::SwitchCandidateProtocol(protocol));
            }
            "subscriber_bandwidth" => {
                let rate_bps = rate_bps(parameter.ok_or(FaultValueError::NoBandwidth)?)?;
                return Ok(Self::SubscriberBandwidth { rate_bps });
            }
            "node_failure" => Self::NodeFailure,
            "migration" => Self::Migration,
            "server_leave" => Self::ServerLeave,
            "disconnect_signal_on_resume" => Self::DisconnectSignalOnResume,
            "disconnect_signal_on_resume_no_messages" => Self::DisconnectSignalOnResumeNoMessages,
            "leave_request_full_reconnect" => Self::LeaveRequestFullReconnect,
            _ => return Err(FaultValueError::Simulation),
        };
        match parameter {
            None => Ok(simulation),
            Some(_) => Err(FaultValueError::NoParameter),
        }
    }
}

/// The request counts in whole seconds (`int32 speaker_update`).
fn speaker_update(text: &str) -> Result<Duration, FaultValueError> {
    let length = parse::duration(text)?;
    let whole = length.subsec_nanos() == 0 && !length.is_zero() && length <= SPEAKER_UPDATE_MAX;
    if whole { Ok(length) } else { Err(FaultValueError::SpeakerUpdate) }
}

fn protocol(text: &str) -> Result<CandidateProtocol, FaultValueError> {
    let found = CandidateProtocol::ALL.into_iter().find(|protocol| protocol.name() == text);
    found.ok_or(FaultValueError::Protocol)
}

fn rate_bps(text: &str) -> Result<u64, FaultValueError> {
    if text == "0" {
        return Ok(0);
    }
    let rate = parse::bits_per_second(text)?;
    let possible = rate == 0.0 || RATE_BPS.contains(&rate);
    if possible { Ok(rate as u64) } else { Err(FaultValueError::Bandwidth) }
}

impl fmt::Display for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match *self {
            Self::SpeakerUpdate { length } if length != SPEAKER_UPDATE_DEFAULT => {
                write!(f, ":{}", ExactDuration(length))
            }
            Self::SwitchCandidateProtocol(protocol) if protocol != CandidateProtocol::Tcp => {
                write!(f, ":{}", protocol.name())
            }
            Self::SubscriberBandwidth { rate_bps } => {
                let units = [(1_000_000_000, "Gbps"), (1_000_000, "Mbps"), (1_000, "kbps")];
                let exact =
                    |(size, _): &(u64, &str)| rate_bps > 0 && rate_bps.is_multiple_of(*size);
                let (size, unit) = units.into_iter().find(exact).unwrap_or((1, "bps"));
                write!(f, ":{}{unit}", rate_bps / size)
            }
            _ => Ok(()),
        }
    }
}
