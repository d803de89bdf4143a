//! Why a peer has no media connection.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use stampede_sdp::Candidate;

use crate::{PathKind, Transport};

/// A candidate of the server, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteCandidate {
    /// One that can be checked.
    Udp(SocketAddr),
    /// TCP.
    Tcp(SocketAddr),
    /// A host name (mDNS) in an address' place, or another transport: its first characters.
    Other(Box<str>),
}

/// Most characters kept of a candidate that is not an address.
const OTHER_CHARS_MAX: usize = 64;

impl RemoteCandidate {
    /// `None` for RTCP's component: RTCP is multiplexed.
    pub(super) fn of(candidate: &Candidate<'_>) -> Option<Self> {
        if candidate.is_rtcp() {
            return None;
        }
        Some(match candidate.socket_address() {
            Some(to) if candidate.is_udp() => Self::Udp(to),
            Some(to) if candidate.is_tcp() => Self::Tcp(to),
            _ => {
                let Candidate { transport, address, port, .. } = candidate;
                let text = format!("{transport} {address}:{port}");
                Self::Other(text.chars().take(OTHER_CHARS_MAX).collect())
            }
        })
    }
}

impl fmt::Display for RemoteCandidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "udp {address}"),
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// How near ICE came to a pair that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// No datagram came at all.
    Nothing,
    /// The server's checks came, and none of ours was answered.
    Checks,
    /// Something came, but no pair was agreed on.
    Answers,
}

/// Both sides' candidates, of which no pair worked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoCandidatePair {
    /// Our sockets.
    pub locals: Vec<SocketAddr>,
    /// The server's candidates, those that can't be used included.
    pub remotes: Vec<RemoteCandidate>,
    /// Candidates of the server beyond what is remembered.
    pub left_out: u32,
    /// Of the server's candidates those to which this machine has no route.
    pub unreachable: Vec<SocketAddr>,
    /// A local address on which no socket could be had, and why.
    pub refused_local: Option<(IpAddr, String)>,
    /// The first TCP connection that could not be made, or ended, and why.
    pub undialled: Option<(SocketAddr, String)>,
    /// Which ways were to be tried.
    pub transport: Transport,
    /// What became of the TURN servers that were tried, in words.
    pub relays: Vec<String>,
    /// The server named TURN servers that may be tried.
    pub relays_named: bool,
    /// The server wanted relays alone.
    pub relays_only: bool,
    /// What came back.
    pub heard: Heard,
}

impl NoCandidatePair {
    fn udp(&self) -> impl Iterator<Item = &SocketAddr> {
        self.remotes.iter().filter_map(|remote| match remote {
            RemoteCandidate::Udp(address) => Some(address),
            RemoteCandidate::Tcp(_) | RemoteCandidate::Other(_) => None,
        })
    }
}

impl fmt::Display for NoCandidatePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no candidate pair worked: ")?;
        match self.locals[..] {
            [] => f.write_str("no candidate of ours")?,
            _ => write!(f, "our candidates {}", list(&self.locals))?,
        }
        if self.remotes.is_empty() {
            return f.write_str("; the server named none");
        }
        write!(f, ", the server's {}", list(&self.remotes))?;
        if self.left_out > 0 {
            write!(f, " and {} more", self.left_out)?;
        }
        let is_checked = |address: &&SocketAddr| !self.unreachable.contains(address);
        let ports: BTreeSet<u16> =
            self.udp().filter(is_checked).map(|address| address.port()).collect();
        if !self.unreachable.is_empty() {
            write!(f, "; this machine has no route to {}", list(&self.unreachable))?;
        }
        if let Some((ip, why)) = &self.refused_local {
            write!(f, "; no socket could be had on {ip}: {why}")?;
        }
        if !ports.is_empty() && self.transport.tries(PathKind::Udp) && !self.relays_only {
            let noun = if ports.len() == 1 { "port" } else { "ports" };
            let ports = list(&ports);
            match self.heard {
                Heard::Nothing => write!(f, "; nothing came back on UDP {noun} {ports}")?,
                Heard::Checks => write!(
                    f,
                    "; the server's checks came, but ours to UDP {noun} {ports} were not answered"
                )?,
                Heard::Answers => write!(f, "; UDP {noun} {ports} answered, but nothing lasted")?,
            }
        }
        if let Some((to, why)) = &self.undialled {
            write!(f, "; TCP to {to}: {why}")?;
        }
        for said in &self.relays {
            write!(f, "; the TURN server at {said}")?;
        }
        if self.relays_only {
            f.write_str("; the server wants relays alone (force_relay)")?;
            match (self.transport, self.relays_named) {
                (Transport::Only(path), _) if !path.is_relayed() => {
                    write!(f, ", and --transport {} has none", self.transport)?;
                }
                (_, false) => f.write_str(", and named no TURN server that can be used")?,
                _ => {}
            }
            return Ok(());
        }
        let has_tcp = self.remotes.iter().any(|remote| matches!(remote, RemoteCandidate::Tcp(_)));
        let has_udp = self.udp().next().is_some();
        match self.transport {
            Transport::Only(path) => {
                write!(f, "; with --transport {} nothing else is tried", self.transport)?;
                match path {
                    PathKind::Udp if !has_udp => f.write_str(", and the server has no UDP address"),
                    PathKind::Tcp if !has_tcp => f.write_str(", and the server has no TCP address"),
                    path if path.is_relayed() && !self.relays_named => {
                        f.write_str(", and the server named no TURN server of that kind")
                    }
                    path if path.is_relayed() && !has_udp => {
                        f.write_str(", and the server has no UDP address to relay to")
                    }
                    _ => Ok(()),
                }
            }
            Transport::Auto if !has_tcp && !has_udp => f.write_str("; it offers no address"),
            Transport::Auto if !has_tcp => f.write_str("; it offers no TCP"),
            Transport::Auto => Ok(()),
        }
    }
}

/// `a`, `a and b`, `a, b and c`.
fn list<'a, T: fmt::Display + 'a>(items: impl IntoIterator<Item = &'a T>) -> String {
    let items: Vec<String> = items.into_iter().map(T::to_string).collect();
    match items.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => items.concat(),
    }
}

/// Why a peer has no media connection, or has none any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediaFailure {
    /// Nothing was negotiated: there was no description to connect by.
    #[error("the server sent no {what}")]
    NotNegotiated {
        /// `offer` or `answer`.
        what: &'static str,
    },
    /// ICE found no way.
    #[error("{0}")]
    NoCandidatePair(Box<NoCandidatePair>),
    /// A candidate pair works, but no DTLS came up over it.
    #[error("ICE connected to {remote}, but DTLS did not come up: {reason}")]
    Dtls {
        /// The server's address.
        remote: SocketAddr,
        /// In which way.
        reason: String,
    },
    /// The server said goodbye to a connection that stood (DTLS close_notify, RFC 8446 §6.1).
    #[error("the server closed the connection")]
    Closed,
    /// It broke, connected or not, in a way that says no more than this.
    #[error("{reason}")]
    Broke {
        /// Why, as far as known.
        reason: String,
    },
}

impl MediaFailure {
    /// Stable snake_case name for `join.errors{KIND: n}`, of a participant that never connected.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotNegotiated { .. } => "media_timeout",
            Self::NoCandidatePair(pair) if pair.refused_local.is_some() => "local_resources",
            // The only one of these that is proven to be the server's.
            Self::NoCandidatePair(pair) if pair.remotes.is_empty() => "server_no_candidates",
            Self::NoCandidatePair(_) => "no_candidate_pair",
            Self::Dtls { .. } => "dtls_failed",
            Self::Closed | Self::Broke { .. } => "media_lost",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(address: &str) -> RemoteCandidate {
        RemoteCandidate::Udp(address.parse().unwrap())
    }

    fn tcp(address: &str) -> RemoteCandidate {
        RemoteCandidate::Tcp(address.parse().unwrap())
    }

    fn none() -> NoCandidatePair {
        NoCandidatePair {
            locals: vec!["127.0.0.1:40001".parse().unwrap()],
            remotes: vec![],
            left_out: 0,
            unreachable: vec![],
            refused_local: None,
            undialled: None,
            transport: Transport::Auto,
            relays: vec![],
            relays_named: false,
            relays_only: false,
            heard: Heard::Nothing,
        }
    }

    #[test]
    fn lines_of_any_kind_are_read() {
        let parse = |line: &str| RemoteCandidate::of(&Candidate::parse(line)?);
        let line = |rest: &str| format!("candidate:1 1 {rest} typ host");
        assert_eq!(parse(&line("UDP 5 10.0.0.1 7882")), Some(udp("10.0.0.1:7882")));
        assert_eq!(parse(&line("udp 5 fe80::1 7882")), Some(udp("[fe80::1]:7882")));
        assert_eq!(parse(&line("tcp 5 10.0.0.1 7881")), Some(tcp("10.0.0.1:7881")));
        let name = RemoteCandidate::Other("udp a.local:7882".into());
        assert_eq!(parse(&line("udp 5 a.local 7882")), Some(name));
        assert_eq!(parse("candidate:1 2 udp 5 10.0.0.1 7882 typ host"), None);
        assert_eq!((parse(""), parse("candidate:1 1 udp 5 10.0.0.1")), (None, None));
        let Some(RemoteCandidate::Other(text)) = parse(&line(&format!("udp 5 {:0200} 1", 1)))
        else {
            panic!("no name");
        };
        assert_eq!(text.len(), OTHER_CHARS_MAX);
    }

    #[test]
    fn what_is_said_names_both_sides_and_what_came_back() {
        let both = vec![udp("10.0.0.5:8210"), tcp("10.0.0.5:7881")];
        let ours = "no candidate pair worked: our candidates 127.0.0.1:40001";
        for (pair, said) in [
            (none(), "; the server named none"),
            (
                NoCandidatePair { remotes: both.clone(), ..none() },
                ", the server's udp 10.0.0.5:8210 and tcp 10.0.0.5:7881; nothing came back on UDP \
                 port 8210",
            ),
            (
                NoCandidatePair {
                    remotes: vec![tcp("10.0.0.5:7881")],
                    left_out: 3,
                    undialled: Some(("10.0.0.5:7881".parse().unwrap(), "refused".to_owned())),
                    ..none()
                },
                ", the server's tcp 10.0.0.5:7881 and 3 more; TCP to 10.0.0.5:7881: refused",
            ),
            (
                NoCandidatePair { remotes: vec![both[0].clone()], heard: Heard::Checks, ..none() },
                ", the server's udp 10.0.0.5:8210; the server's checks came, but ours to UDP port \
                 8210 were not answered; it offers no TCP",
            ),
            (
                NoCandidatePair {
                    remotes: vec![udp("[2001:db8::1]:7882")],
                    unreachable: vec!["[2001:db8::1]:7882".parse().unwrap()],
                    ..none()
                },
                ", the server's udp [2001:db8::1]:7882; this machine has no route to \
                 [2001:db8::1]:7882; it offers no TCP",
            ),
            (
                NoCandidatePair {
                    remotes: vec![both[0].clone()],
                    transport: Transport::Only(PathKind::Tcp),
                    ..none()
                },
                ", the server's udp 10.0.0.5:8210; with --transport tcp nothing else is tried, and \
                 the server has no TCP address",
            ),
            (
                NoCandidatePair {
                    remotes: vec![both[0].clone()],
                    transport: Transport::Only(PathKind::TurnTcp),
                    relays: vec!["a:1 (TCP) did not answer".to_owned()],
                    relays_named: true,
                    ..none()
                },
                ", the server's udp 10.0.0.5:8210; the TURN server at a:1 (TCP) did not answer; with \
                 --transport turn-tcp nothing else is tried",
            ),
            (
                NoCandidatePair { remotes: vec![both[0].clone()], relays_only: true, ..none() },
                ", the server's udp 10.0.0.5:8210; the server wants relays alone (force_relay), and \
                 named no TURN server that can be used",
            ),
        ] {
            assert_eq!(pair.to_string(), format!("{ours}{said}"));
            let kind = match pair.remotes[..] {
                [] => "server_no_candidates",
                _ => "no_candidate_pair",
            };
            assert_eq!(MediaFailure::NoCandidatePair(Box::new(pair)).kind(), kind);
        }
        let refused = Some(("::1".parse().unwrap(), "Too many open files".to_owned()));
        let refused = NoCandidatePair { remotes: both, refused_local: refused, ..none() };
        let refused = MediaFailure::NoCandidatePair(Box::new(refused));
        assert_eq!(refused.kind(), "local_resources");
        assert!(refused.to_string().contains("no socket could be had on ::1: Too many open files"));
    }
}
