//! By what a peer's media goes: which ways are allowed, and which one it was.

use std::fmt;
use std::str::FromStr;

/// A way to the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathKind {
    /// UDP from one of this machine's addresses.
    #[default]
    Udp,
    /// TCP to a candidate of the server (RFC 6544).
    Tcp,
}

impl PathKind {
    /// As it is called in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// Which ways are tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transport {
    /// UDP, and what else there is where that does not work.
    #[default]
    Auto,
    /// This one alone.
    Only(PathKind),
}

impl Transport {
    /// Whether this way may be tried.
    #[must_use]
    pub fn tries(self, path: PathKind) -> bool {
        match self {
            Self::Auto => true,
            Self::Only(only) => path == only,
        }
    }
}

/// It names no transport.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("use auto (UDP, and TCP where that does not work), udp or tcp")]
pub struct TransportError;

impl FromStr for Transport {
    type Err = TransportError;

    fn from_str(text: &str) -> Result<Self, TransportError> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            "udp" => Ok(Self::Only(PathKind::Udp)),
            "tcp" => Ok(Self::Only(PathKind::Tcp)),
            _ => Err(TransportError),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Only(path) => f.write_str(&path.name().replace('_', "-")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_are_written_as_read() {
        for text in ["auto", "udp", "tcp"] {
            assert_eq!(text.parse::<Transport>().unwrap().to_string(), text);
        }
        assert_eq!("sctp".parse::<Transport>(), Err(TransportError));
        let tcp = Transport::Only(PathKind::Tcp);
        assert!(tcp.tries(PathKind::Tcp) && !tcp.tries(PathKind::Udp));
        assert!(Transport::Auto.tries(PathKind::Tcp) && Transport::Auto.tries(PathKind::Udp));
    }
}
