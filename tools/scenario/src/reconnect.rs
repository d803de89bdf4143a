//! How who was connected comes back.

use std::fmt;
use std::str::FromStr;

/// Tries of livekit-client: `DEFAULT_RETRY_DELAYS_IN_MS` (DefaultReconnectPolicy.ts) has so many
/// pauses.
const TRIES_SDK: u32 = 10;
/// Most tries; more is a typing error.
const TRIES_MAX: u32 = 100;

/// How often a participant that was connected tries to come back, on the schedule of
/// livekit-client (DefaultReconnectPolicy.ts): `sdk` is as often as livekit-client does, `none` not
/// at all, a number that often.
///
/// ```
/// use stampede_scenario::Reconnect;
///
/// assert_eq!("sdk".parse(), Ok(Reconnect::default()));
/// assert_eq!("3".parse::<Reconnect>().map(Reconnect::tries), Ok(3));
/// assert_eq!("none".parse::<Reconnect>().map(Reconnect::tries), Ok(0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconnect {
    tries: u32,
}

impl Reconnect {
    /// Tries before it is given up.
    #[must_use]
    pub fn tries(self) -> u32 {
        self.tries
    }
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { tries: TRIES_SDK }
    }
}

/// Why it is no way to come back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "use sdk (livekit-client's {TRIES_SDK} tries), none, or a number of tries from 1 to {TRIES_MAX}"
)]
pub struct ReconnectError;

impl FromStr for Reconnect {
    type Err = ReconnectError;

    fn from_str(text: &str) -> Result<Self, ReconnectError> {
        let tries = match text.trim() {
            "sdk" => TRIES_SDK,
            "none" => 0,
            number => {
                let tries = number.parse().ok().filter(|tries| (1..=TRIES_MAX).contains(tries));
                tries.ok_or(ReconnectError)?
            }
        };
        Ok(Self { tries })
    }
}

impl fmt::Display for Reconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tries {
            0 => f.write_str("none"),
            TRIES_SDK => f.write_str("sdk"),
            tries => write!(f, "{tries}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_and_written_back() {
        for (text, tries) in [("sdk", 10), ("none", 0), ("1", 1), ("100", 100)] {
            let reconnect: Reconnect = text.parse().unwrap();
            assert_eq!((reconnect.tries(), reconnect.to_string()), (tries, text.to_owned()));
        }
        assert_eq!("10".parse::<Reconnect>().unwrap().to_string(), "sdk", "they are the same");
        for text in ["", "0", "101", "-1", "1.5", "SDK", "always"] {
            let error = text.parse::<Reconnect>().unwrap_err().to_string();
            assert!(error.contains("sdk") && error.contains("1 to 100"), "{text}: {error}");
        }
    }
}
