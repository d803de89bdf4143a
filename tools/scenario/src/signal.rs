//! Which signalling protocol participants speak.

use std::fmt;
use std::str::FromStr;

use stampede_signaling::session::SignalVersion;

/// `auto` is what LiveKit's SDKs do: v1, a single peer connection, and v0 where the server knows no
/// v1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Signal {
    /// v1, or v0 where the server answers 404.
    #[default]
    Auto,
    /// This one, come what may.
    Only(SignalVersion),
}

impl Signal {
    /// What is tried first.
    #[must_use]
    pub fn first(self) -> SignalVersion {
        match self {
            Self::Auto => SignalVersion::V1,
            Self::Only(version) => version,
        }
    }
}

/// It names no protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("use auto (v1, or v0 where the server knows no v1), v0 or v1")]
pub struct SignalError;

impl FromStr for Signal {
    type Err = SignalError;

    fn from_str(text: &str) -> Result<Self, SignalError> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            "v0" => Ok(Self::Only(SignalVersion::V0)),
            "v1" => Ok(Self::Only(SignalVersion::V1)),
            _ => Err(SignalError),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Only(SignalVersion::V0) => "v0",
            Self::Only(SignalVersion::V1) => "v1",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_read() {
        for text in ["auto", "v0", "v1"] {
            assert_eq!(text.parse::<Signal>().unwrap().to_string(), text);
        }
        assert_eq!("v2".parse::<Signal>(), Err(SignalError));
        assert_eq!(Signal::default().first(), SignalVersion::V1);
    }
}
