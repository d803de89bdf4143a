//! ICE candidates.

use std::net::{IpAddr, SocketAddr};

/// An ICE candidate: `candidate:foundation component transport priority address port …`
/// (RFC 8839 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// All of it, behind `candidate:`.
    pub value: &'a str,
    /// 1, or 2 for RTCP where that is not multiplexed.
    pub component: &'a str,
    /// `udp` or `tcp`, in whatever case.
    pub transport: &'a str,
    /// An IP address or a host name (mDNS).
    pub address: &'a str,
    /// As written.
    pub port: &'a str,
}

impl<'a> Candidate<'a> {
    /// Reads a candidate as signalling sends it, with or without `a=`. `None` for what is none or
    /// has too few words.
    #[must_use]
    pub fn parse(line: &'a str) -> Option<Self> {
        let line = line.trim();
        let attribute = line.strip_prefix("a=").unwrap_or(line);
        Self::parse_value(attribute.strip_prefix("candidate:")?)
    }

    pub(crate) fn parse_value(value: &'a str) -> Option<Self> {
        let mut words = value.split_ascii_whitespace().skip(1);
        let (component, transport) = (words.next()?, words.next()?);
        let (address, port) = (words.nth(1)?, words.next()?);
        Some(Self { value, component, transport, address, port })
    }

    /// Where it is; `None` for a host name.
    #[must_use]
    pub fn socket_address(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.address.parse().ok()?;
        Some(SocketAddr::new(ip, self.port.parse().ok()?))
    }

    /// Its transport is UDP.
    #[must_use]
    pub fn is_udp(&self) -> bool {
        self.transport.eq_ignore_ascii_case("udp")
    }

    /// Its transport is TCP.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        self.transport.eq_ignore_ascii_case("tcp")
    }

    /// RTCP's component, which nobody uses who multiplexes it (RFC 8843 §9.3.2.1).
    #[must_use]
    pub fn is_rtcp(&self) -> bool {
        self.component == "2"
    }
}
