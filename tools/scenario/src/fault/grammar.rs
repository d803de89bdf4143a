//! Faults as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use stampede_units::parse;
use stampede_units::show::ExactDuration;

use super::error::{FaultError, FaultValueError, PERIOD_MIN};
use super::simulation::{Shown, parse_simulation};
use super::{FaultKind, FaultSpec, Schedule, Who};

/// How long a websocket stalls unless it is said.
const STALL_DEFAULT: Duration = Duration::from_secs(5);
/// How long an outage lasts unless it is said.
const OUTAGE_DEFAULT: Duration = Duration::from_secs(2);
/// How long who leaves is away unless it is said.
const PAUSE_DEFAULT: Duration = Duration::from_secs(1);

const KEYS: [&str; 7] = ["for", "at", "every", "spread", "share", "who", "cohort"];

impl FromStr for FaultSpec {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        if text.trim().is_empty() {
            return Err(FaultError::Empty);
        }
        let mut parts = text.split(',').map(str::trim);
        let mut kind = kind(parts.next().unwrap_or_default())?;
        let mut given = Given::default();
        let mut seen = Vec::new();
        for part in parts {
            let (name, value) =
                part.split_once('=').ok_or_else(|| FaultError::NoValue(part.to_owned()))?;
            let (name, value) = (name.trim(), value.trim());
            let key = KEYS.into_iter().find(|key| *key == name);
            let key = key.ok_or_else(|| FaultError::UnknownKey(name.to_owned()))?;
            if seen.contains(&key) {
                return Err(FaultError::Twice(key));
            }
            seen.push(key);
            let reason = |reason| FaultError::Value { key, value: value.to_owned(), reason };
            given.set(key, value).map_err(reason)?;
        }
        if let Some(length) = given.length {
            match &mut kind {
                FaultKind::SignalStall { length: of }
                | FaultKind::Outage { length: of }
                | FaultKind::LeaveRejoin { pause: of } => *of = length,
                _ => return Err(FaultError::NoLength(ExactDuration(length).to_string())),
            }
        }
        given.spec(kind)
    }
}

fn kind(word: &str) -> Result<FaultKind, FaultError> {
    if let Some((name, value)) = word.split_once('=')
        && name.trim() == "simulate"
    {
        let value = value.trim();
        let reason =
            |reason| FaultError::Value { key: "simulate", value: value.to_owned(), reason };
        return parse_simulation(value).map(FaultKind::Simulate).map_err(reason);
    }
    Ok(match word {
        "signal_drop" => FaultKind::SignalDrop,
        "signal_stall" => FaultKind::SignalStall { length: STALL_DEFAULT },
        "network_change" => FaultKind::NetworkChange,
        "outage" => FaultKind::Outage { length: OUTAGE_DEFAULT },
        "leave_rejoin" => FaultKind::LeaveRejoin { pause: PAUSE_DEFAULT },
        "move" => FaultKind::Move,
        _ => return Err(FaultError::UnknownKind(word.to_owned())),
    })
}

/// What stands behind the kind.
#[derive(Default)]
struct Given {
    length: Option<Duration>,
    at: Option<Duration>,
    period: Option<Duration>,
    spread: Duration,
    share: Option<f64>,
    who: Option<Who>,
    cohort: Option<String>,
}

impl Given {
    fn set(&mut self, key: &str, value: &str) -> Result<(), FaultValueError> {
        match key {
            "for" => match parse::duration(value)? {
                Duration::ZERO => return Err(FaultValueError::NoTime),
                length => self.length = Some(length),
            },
            "at" => self.at = Some(parse::duration(value)?),
            "every" => match parse::duration(value)? {
                period if period < PERIOD_MIN => return Err(FaultValueError::Period),
                period => self.period = Some(period),
            },
            "spread" => self.spread = parse::duration(value)?,
            "share" => match parse::percent(value)? {
                share if share > 0.0 => self.share = Some(share),
                _ => return Err(FaultValueError::NoShare),
            },
            "who" => {
                let who = Who::ALL.into_iter().find(|who| who.name() == value);
                self.who = Some(who.ok_or(FaultValueError::Who)?);
            }
            _ if value.is_empty() => return Err(FaultValueError::NoCohort),
            _ => self.cohort = Some(value.to_owned()),
        }
        Ok(())
    }

    fn spec(self, kind: FaultKind) -> Result<FaultSpec, FaultError> {
        let who = self.who.unwrap_or(Who::Subscribers);
        if let Some(cohort) = &self.cohort
            && who != Who::Subscribers
        {
            return Err(FaultError::CohortOfOthers { cohort: cohort.clone(), who });
        }
        let schedule = match (self.at, self.period) {
            (at, None) => Schedule::Once { at: at.unwrap_or_default() },
            (_, Some(period)) if self.spread > period => {
                return Err(FaultError::SpreadOverPeriod { spread: self.spread, period });
            }
            (at, Some(period)) => Schedule::Every { first: at.unwrap_or(period), period },
        };
        Ok(FaultSpec {
            kind,
            schedule,
            spread: self.spread,
            who,
            cohort: self.cohort,
            share: self.share.unwrap_or(1.0),
        })
    }
}

impl Who {
    const ALL: [Self; 3] = [Self::Subscribers, Self::Publishers, Self::All];

    fn name(self) -> &'static str {
        match self {
            Self::Subscribers => "subscribers",
            Self::Publishers => "publishers",
            Self::All => "all",
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FaultKind {
    /// What it is called: the first word of a fault, and of `simulate=NAME` all of it but a
    /// parameter. Figures of one kind stand under this name.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::SignalDrop => "signal_drop".to_owned(),
            Self::SignalStall { .. } => "signal_stall".to_owned(),
            Self::NetworkChange => "network_change".to_owned(),
            Self::Outage { .. } => "outage".to_owned(),
            Self::LeaveRejoin { .. } => "leave_rejoin".to_owned(),
            Self::Move => "move".to_owned(),
            Self::Simulate(simulation) => format!("simulate={}", simulation.name()),
        }
    }
}

impl fmt::Display for FaultSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = match self.kind {
            FaultKind::SignalStall { length } => Some((length, STALL_DEFAULT)),
            FaultKind::Outage { length } => Some((length, OUTAGE_DEFAULT)),
            FaultKind::LeaveRejoin { pause } => Some((pause, PAUSE_DEFAULT)),
            _ => None,
        };
        match &self.kind {
            FaultKind::Simulate(simulation) => write!(f, "simulate={}", Shown(*simulation))?,
            kind => f.write_str(&kind.name())?,
        }
        if let Some((length, default)) = length
            && length != default
        {
            write!(f, ",for={}", ExactDuration(length))?;
        }
        match self.schedule {
            Schedule::Once { at: Duration::ZERO } => {}
            Schedule::Once { at } => write!(f, ",at={}", ExactDuration(at))?,
            Schedule::Every { first, period } => {
                if first != period {
                    write!(f, ",at={}", ExactDuration(first))?;
                }
                write!(f, ",every={}", ExactDuration(period))?;
            }
        }
        if !self.spread.is_zero() {
            write!(f, ",spread={}", ExactDuration(self.spread))?;
        }
        if self.share != 1.0 {
            write!(f, ",share={}", exact_percent(self.share))?;
        }
        if self.who != Who::Subscribers {
            write!(f, ",who={}", self.who)?;
        }
        match &self.cohort {
            Some(cohort) => write!(f, ",cohort={cohort}"),
            None => Ok(()),
        }
    }
}

/// A share as [`parse::percent`] reads it back: with as few digits as that takes.
fn exact_percent(share: f64) -> String {
    let percent = share * 100.0;
    let mut texts = (0..=17).map(|digits| format!("{percent:.digits$}%"));
    texts.find(|text| parse::percent(text) == Ok(share)).unwrap_or_else(|| format!("{percent}%"))
}

#[cfg(test)]
mod tests {
    use super::super::{CandidateProtocol, Simulation};
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn every_key_is_read_in_any_order() {
        let spec: FaultSpec = "signal_stall, cohort=mobile,share=12.5%,spread=2s,every=30s,\
                               at=10s,who=subscribers,for=7s"
            .parse()
            .unwrap();
        let wanted = FaultSpec {
            kind: FaultKind::SignalStall { length: 7 * S },
            schedule: Schedule::Every { first: 10 * S, period: 30 * S },
            spread: 2 * S,
            who: Who::Subscribers,
            cohort: Some("mobile".to_owned()),
            share: 0.125,
        };
        assert_eq!(spec, wanted);
        let text = "signal_stall,for=7s,at=10s,every=30s,spread=2s,share=12.5%,cohort=mobile";
        assert_eq!(spec.to_string(), text);
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let spec: FaultSpec = "outage".parse().unwrap();
        let wanted = FaultSpec {
            kind: FaultKind::Outage { length: 2 * S },
            schedule: Schedule::Once { at: Duration::ZERO },
            spread: Duration::ZERO,
            who: Who::Subscribers,
            cohort: None,
            share: 1.0,
        };
        assert_eq!(spec, wanted);
        let kind = |text: &str| text.parse::<FaultSpec>().unwrap().kind;
        assert_eq!(kind("signal_stall"), FaultKind::SignalStall { length: 5 * S });
        assert_eq!(kind("leave_rejoin"), FaultKind::LeaveRejoin { pause: S });
        let simulated = |name: &str| kind(&format!("simulate={name}"));
        let speaks = Simulation::SpeakerUpdate { length: 3 * S };
        assert_eq!(simulated("speaker_update"), FaultKind::Simulate(speaks));
        let tcp = Simulation::SwitchCandidateProtocol(CandidateProtocol::Tcp);
        assert_eq!(simulated("switch_candidate_protocol"), FaultKind::Simulate(tcp));
        let free = Simulation::SubscriberBandwidth { rate_bps: 0 };
        assert_eq!(simulated("subscriber_bandwidth:0"), FaultKind::Simulate(free));
    }

    #[test]
    fn what_is_written_is_read_back_and_written_the_same() {
        for (text, canonical) in [
            ("signal_drop", "signal_drop"),
            ("signal_drop,at=0s,share=100%,who=subscribers,spread=0", "signal_drop"),
            ("signal_stall,for=5s", "signal_stall"),
            ("network_change,share=7%", "network_change,share=7%"),
            ("network_change,share=0.0001%", "network_change,share=0.0001%"),
            ("network_change,share=33.3333333333%", "network_change,share=33.3333333333%"),
            ("outage,for=1500ms,who=all", "outage,for=1500ms,who=all"),
            ("leave_rejoin,every=1m,at=1m", "leave_rejoin,every=60s"),
            ("leave_rejoin,every=1m,at=0", "leave_rejoin,at=0s,every=60s"),
            ("move,at=1.5s,who=publishers", "move,at=1500ms,who=publishers"),
            ("simulate=speaker_update:3s", "simulate=speaker_update"),
            ("simulate = speaker_update:10s", "simulate=speaker_update:10s"),
            ("simulate=switch_candidate_protocol:tls", "simulate=switch_candidate_protocol:tls"),
            ("simulate=switch_candidate_protocol:tcp", "simulate=switch_candidate_protocol"),
            ("simulate=subscriber_bandwidth:0.5Mbps", "simulate=subscriber_bandwidth:500kbps"),
            (
                "simulate=subscriber_bandwidth:1234567bps",
                "simulate=subscriber_bandwidth:1234567bps",
            ),
            ("simulate=subscriber_bandwidth:0", "simulate=subscriber_bandwidth:0bps"),
            ("simulate=node_failure", "simulate=node_failure"),
            ("simulate=migration,cohort=a+impair-1", "simulate=migration,cohort=a+impair-1"),
            ("simulate=server_leave", "simulate=server_leave"),
            ("simulate=disconnect_signal_on_resume", "simulate=disconnect_signal_on_resume"),
            (
                "simulate=disconnect_signal_on_resume_no_messages",
                "simulate=disconnect_signal_on_resume_no_messages",
            ),
            ("simulate=leave_request_full_reconnect", "simulate=leave_request_full_reconnect"),
        ] {
            let spec: FaultSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(spec), "{text}");
        }
        for permille in 1..=1_000 {
            let text = format!("{}%", f64::from(permille) / 10.0);
            let share = parse::percent(&text).unwrap();
            assert_eq!(exact_percent(share), text);
        }
        for share in [1.0 / 3.0, 0.1 + 0.2, f64::MIN_POSITIVE] {
            assert!(parse::percent(&exact_percent(share)).is_ok(), "{share}");
        }
    }

    #[test]
    fn errors_name_the_key_the_value_and_what_is_allowed() {
        for (text, needs) in [
            ("", &["empty", "signal_drop,at=10s"][..]),
            ("at=10s", &["'at=10s' is no fault", "begin with signal_drop"]),
            ("signal-drop", &["'signal-drop'", "signal_stall"]),
            ("simulate", &["'simulate'", "simulate=NAME"]),
            ("simulate=", &["simulate=:", "speaker_update"]),
            ("simulate=crash", &["simulate=crash:", "node_failure"]),
            ("simulate=migration:3s", &["simulate=migration:3s", "no parameter"]),
            ("simulate=speaker_update:1.5s", &["whole seconds"]),
            ("simulate=speaker_update:0s", &["whole seconds"]),
            ("simulate=speaker_update:2h", &["1h"]),
            ("simulate=speaker_update:3", &["without a unit"]),
            ("simulate=subscriber_bandwidth", &["missing", "500kbps"]),
            ("simulate=subscriber_bandwidth:500", &["without a unit"]),
            ("simulate=subscriber_bandwidth:1bps", &["between 1kbps"]),
            ("simulate=subscriber_bandwidth:-1kbps", &["between 1kbps"]),
            ("simulate=switch_candidate_protocol:sctp", &["udp, tcp or tls"]),
            ("signal_drop,10s", &["'10s' has no value", "at=10s"]),
            ("signal_drop,when=10s", &["'when' is no key", "for, at, every"]),
            ("signal_drop,at=1s,at=2s", &["at is given twice"]),
            ("signal_drop,at=10", &["at=10:", "without a unit"]),
            ("signal_drop,at=-1s", &["at=-1s:", "number"]),
            ("signal_drop,every=999ms", &["every=999ms:", "1s or longer"]),
            ("signal_drop,every=0s", &["1s or longer"]),
            ("signal_drop,share=0%", &["above 0%"]),
            ("signal_drop,share=0.5", &["% sign"]),
            ("signal_drop,share=101%", &["between 0% and 100%"]),
            ("signal_drop,who=viewers", &["who=viewers:", "subscribers, publishers or all"]),
            ("signal_drop,cohort=", &["name a cohort"]),
            ("signal_drop,cohort=m,who=all", &["cohort=m", "who=all", "leave one"]),
            ("signal_drop,for=5s", &["for=5s has no meaning", "signal_stall"]),
            ("outage,for=0s", &["for=0s:", "longer than 0"]),
            ("outage,every=5s,spread=6s", &["spread=6s", "every=5s"]),
            ("signal_drop,", &["''", "no value"]),
        ] {
            let error = text.parse::<FaultSpec>().unwrap_err().to_string();
            for need in needs {
                assert!(error.contains(need), "{text}: {error}");
            }
        }
    }

    #[test]
    fn a_kind_is_called_as_it_is_written_without_its_parameter() {
        let name = |text: &str| text.parse::<FaultSpec>().unwrap().kind.name();
        assert_eq!(name("outage,for=9s"), "outage");
        assert_eq!(name("simulate=speaker_update:9s"), "simulate=speaker_update");
    }
}
