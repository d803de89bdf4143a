//! How what a LiveKit server is asked to simulate is written.
//!
//! The names are those of the variants of `SimulateScenario` (livekit_rtc.proto), which
//! livekit-server handles in `Room.onSimulateScenario` (pkg/rtc/room.go).

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use stampede_signaling::session::{CandidateProtocol, Simulation};
use stampede_units::parse;
use stampede_units::show::ExactDuration;

use super::error::FaultValueError;

/// How long a simulated speaker speaks unless it is said.
const SPEAKER_UPDATE_DEFAULT: Duration = Duration::from_secs(3);
/// The longest; a longer one is a typing error.
const SPEAKER_UPDATE_MAX: Duration = Duration::from_secs(3_600);
/// Rates that a subscriber can be held to, in bits a second; besides 0.
const RATE_BPS: RangeInclusive<f64> = 1e3..=100e9;

/// Reads `NAME` or `NAME:PARAMETER`.
pub(super) fn parse_simulation(text: &str) -> Result<Simulation, FaultValueError> {
    let (name, parameter) = match text.split_once(':') {
        Some((name, parameter)) => (name.trim(), Some(parameter.trim())),
        None => (text, None),
    };
    let simulation = match name {
        "speaker_update" => {
            let length = parameter.map_or(Ok(SPEAKER_UPDATE_DEFAULT), speaker_update)?;
            return Ok(Simulation::SpeakerUpdate { length });
        }
        "switch_candidate_protocol" => {
            let protocol = parameter.map_or(Ok(CandidateProtocol::Tcp), protocol)?;
            return Ok(Simulation::SwitchCandidateProtocol(protocol));
        }
        "subscriber_bandwidth" => {
            let rate_bps = rate_bps(parameter.ok_or(FaultValueError::NoBandwidth)?)?;
            return Ok(Simulation::SubscriberBandwidth { rate_bps });
        }
        "node_failure" => Simulation::NodeFailure,
        "migration" => Simulation::Migration,
        "server_leave" => Simulation::ServerLeave,
        "disconnect_signal_on_resume" => Simulation::DisconnectSignalOnResume,
        "disconnect_signal_on_resume_no_messages" => Simulation::DisconnectSignalOnResumeNoMessages,
        "leave_request_full_reconnect" => Simulation::LeaveRequestFullReconnect,
        _ => return Err(FaultValueError::Simulation),
    };
    match parameter {
        None => Ok(simulation),
        Some(_) => Err(FaultValueError::NoParameter),
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

/// Writes it so that [`parse_simulation`] reads it.
pub(super) struct Shown(pub Simulation);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())?;
        match self.0 {
            Simulation::SpeakerUpdate { length } if length != SPEAKER_UPDATE_DEFAULT => {
                write!(f, ":{}", ExactDuration(length))
            }
            Simulation::SwitchCandidateProtocol(protocol) if protocol != CandidateProtocol::Tcp => {
                write!(f, ":{}", protocol.name())
            }
            Simulation::SubscriberBandwidth { rate_bps } => {
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
