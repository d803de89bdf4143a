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
    /// A TURN server that is reached over UDP (RFC 8656).
    TurnUdp,
    /// A TURN server that is reached over TCP.
    TurnTcp,
    /// A TURN server that is reached over TLS.
    TurnTls,
}

/// Each way with its names: in reports, and as `--transport` has it.
const NAMES: [(PathKind, &str, &str); 5] = [
    (PathKind::Udp, "udp", "udp"),
    (PathKind::Tcp, "tcp", "tcp"),
    (PathKind::TurnUdp, "turn_udp", "turn-udp"),
    (PathKind::TurnTcp, "turn_tcp", "turn-tcp"),
    (PathKind::TurnTls, "turn_tls", "turn-tls"),
];

impl PathKind {
    /// Those by way of a TURN server, in the order in which they are tried.
    pub const RELAYED: [Self; 3] = [Self::TurnUdp, Self::TurnTcp, Self::TurnTls];

    fn names(self) -> (&'static str, &'static str) {
        let own = NAMES.iter().find(|(path, ..)| *path == self);
        own.map_or(("", ""), |(_, name, option)| (*name, *option))
    }

    /// As it is called in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.names().0
    }

    /// It goes by way of a TURN server.
    #[must_use]
    pub fn is_relayed(self) -> bool {
        Self::RELAYED.contains(&self)
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

    /// Only ways by a TURN server are tried.
    #[must_use]
    pub fn is_relayed(self) -> bool {
        matches!(self, Self::Only(path) if path.is_relayed())
    }
}

/// It names no transport.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "use auto (UDP, TCP where that does not work, and then TURN), udp, tcp, turn-udp, turn-tcp or \
     turn-tls"
)]
pub struct TransportError;

impl FromStr for Transport {
    type Err = TransportError;

    fn from_str(text: &str) -> Result<Self, TransportError> {
        let text = text.trim();
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let named = NAMES.iter().find(|(.., option)| *option == text);
        named.map(|(path, ..)| Self::Only(*path)).ok_or(TransportError)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Only(path) => path.names().1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_are_written_as_read() {
        for text in ["auto", "udp", "tcp", "turn-udp", "turn-tcp", "turn-tls"] {
            assert_eq!(text.parse::<Transport>().unwrap().to_string(), text);
        }
        assert_eq!("sctp".parse::<Transport>(), Err(TransportError));
        assert_eq!("turn_udp".parse::<Transport>(), Err(TransportError));
        let tcp = Transport::Only(PathKind::Tcp);
        assert!(tcp.tries(PathKind::Tcp) && !tcp.tries(PathKind::Udp) && !tcp.is_relayed());
        for (path, name, _) in NAMES {
            assert!(Transport::Auto.tries(path));
            assert_eq!(
                (path.name(), Transport::Only(path).is_relayed()),
                (name, path.is_relayed())
            );
        }
        assert!(!PathKind::Udp.is_relayed() && PathKind::TurnTls.is_relayed());
    }
}
