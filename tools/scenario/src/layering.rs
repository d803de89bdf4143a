//! `--scalability-mode`: whether the pictures of published video are divided into layers within one
//! stream.

use std::fmt;
use std::str::FromStr;

use stampede_media::{Codec, ScalabilityMode};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layering {
    /// Not divided.
    None,
    /// As the mode says.
    Mode(ScalabilityMode),
}

impl Layering {
    /// What livekit-client publishes of a codec, unless it is told otherwise.
    #[must_use]
    pub fn usual(codec: Option<Codec>) -> Self {
        match codec.filter(|&codec| Self::is_for(codec)) {
            Some(_) => Self::Mode(ScalabilityMode::L3T3Key),
            None => Self::None,
        }
    }

    /// Whether pictures of this codec can be divided so.
    #[must_use]
    pub fn is_for(codec: Codec) -> bool {
        matches!(codec, Codec::Vp9 | Codec::Av1)
    }

    /// The mode, if there is one.
    #[must_use]
    pub fn mode(self) -> Option<ScalabilityMode> {
        match self {
            Self::None => None,
            Self::Mode(mode) => Some(mode),
        }
    }
}

/// It names no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("use L3T3_KEY, L1T3 or none")]
pub struct LayeringError;

impl FromStr for Layering {
    type Err = LayeringError;

    fn from_str(text: &str) -> Result<Self, LayeringError> {
        match text.trim() {
            "none" => Ok(Self::None),
            mode => mode.parse().map(Self::Mode).map_err(|_| LayeringError),
        }
    }
}

impl fmt::Display for Layering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Mode(mode) => mode.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_read() {
        for text in ["none", "L1T3", "L3T3_KEY"] {
            assert_eq!(text.parse::<Layering>().unwrap().to_string(), text);
        }
        assert_eq!("L2T1".parse::<Layering>(), Err(LayeringError));
        assert_eq!(Layering::usual(Some(Codec::H264)), Layering::None);
        assert_eq!(Layering::usual(Some(Codec::Av1)).mode(), Some(ScalabilityMode::L3T3Key));
    }
}
