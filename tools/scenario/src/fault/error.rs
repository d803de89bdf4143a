//! Why a fault can't be used.

use std::time::Duration;

use stampede_units::UnitError;
use stampede_units::show::ExactDuration;

use super::Who;

/// The shortest period: more often is a storm, and its firings could not be told apart in a report
/// of seconds.
pub(super) const PERIOD_MIN: Duration = Duration::from_secs(1);

/// Why a fault can't be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FaultError {
    /// Nothing in it.
    #[error("it is empty; write it like signal_drop,at=10s,share=10%")]
    Empty,
    /// It does not begin with what happens.
    #[error(
        "'{0}' is no fault; begin with signal_drop, signal_stall, network_change, outage, \
         leave_rejoin, move or simulate=NAME"
    )]
    UnknownKind(String),
    /// No such key.
    #[error("'{0}' is no key; use for, at, every, spread, share, who or cohort")]
    UnknownKey(String),
    /// A key without a value.
    #[error("'{0}' has no value; write it like at=10s")]
    NoValue(String),
    /// A key that counts once.
    #[error("{0} is given twice; leave one out")]
    Twice(&'static str),
    /// A value that is none.
    #[error("{key}={value}: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it, and what is allowed.
        reason: FaultValueError,
    },
    /// A length of what has none.
    #[error("for={0} has no meaning here: only signal_stall, outage and leave_rejoin last")]
    NoLength(String),
    /// Hits of one firing after those of the next.
    #[error(
        "spread={} is longer than every={}: lower it",
        ExactDuration(*spread),
        ExactDuration(*period)
    )]
    SpreadOverPeriod {
        /// Of the hits of one firing.
        spread: Duration,
        /// Between two firings.
        period: Duration,
    },
    /// A cohort of participants who are in none.
    #[error("cohort={cohort} is of subscribers, but who={who}: leave one of them out")]
    CohortOfOthers {
        /// The cohort.
        cohort: String,
        /// The others.
        who: Who,
    },
}

/// Why a value can't be used. Its text is the end of a sentence that begins with the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultValueError {
    /// It is no duration, percentage or rate.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// Nothing is hit.
    #[error("it must be above 0% and at most 100%")]
    NoShare,
    /// It takes no time.
    #[error("it must be longer than 0")]
    NoTime,
    /// Too often.
    #[error("it must be {} or longer", ExactDuration(PERIOD_MIN))]
    Period,
    /// Nobody is called so.
    #[error("use subscribers, publishers or all")]
    Who,
    /// A cohort without a name.
    #[error("it is empty; name a cohort")]
    NoCohort,
    /// Nothing that can be simulated.
    #[error(
        "it can't be simulated; use speaker_update, node_failure, migration, server_leave, \
         switch_candidate_protocol, subscriber_bandwidth, disconnect_signal_on_resume, \
         disconnect_signal_on_resume_no_messages or leave_request_full_reconnect"
    )]
    Simulation,
    /// A parameter of what has none.
    #[error("it takes no parameter; leave the ':' and what follows out")]
    NoParameter,
    /// No whole seconds.
    #[error("it must be whole seconds from 1s to 1h; write it like speaker_update:3s")]
    SpeakerUpdate,
    /// No protocol.
    #[error("use udp, tcp or tls; write it like switch_candidate_protocol:tcp")]
    Protocol,
    /// No bandwidth at all.
    #[error("the bandwidth is missing; write it like subscriber_bandwidth:500kbps, 0 ends it")]
    NoBandwidth,
    /// A bandwidth that nobody has.
    #[error("it must be 0 or lie between 1kbps and 100Gbps")]
    Bandwidth,
}
