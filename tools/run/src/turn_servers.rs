//! The TURN servers that servers name: where they are.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use stampede_engine::{PathKind, Transport, TurnServer};
use stampede_signaling::session::{TurnScheme, TurnServer as Named};

/// Longest wait for the address of a name.
const RESOLVED_WITHIN: Duration = Duration::from_secs(2);
/// Most names of which it is kept what they resolve to; LiveKit names one or two.
const NAMES_MAX: usize = 64;

/// Resolves them, each name once: thousands of participants are told of the same ones.
#[derive(Debug)]
pub(crate) struct TurnServers {
    transport: Transport,
    /// Names may be looked up.
    looks_up: bool,
    known: RefCell<HashMap<String, Option<IpAddr>>>,
}

impl TurnServers {
    pub(crate) fn new(transport: Transport, looks_up: bool) -> Self {
        Self { transport, looks_up, known: RefCell::default() }
    }

    /// Those that may be tried, with their addresses.
    pub(crate) async fn resolve(&self, named: Vec<Named>) -> Vec<TurnServer> {
        let mut servers = Vec::with_capacity(named.len());
        for Named { scheme, host, port, username, credential } in named {
            let by = match scheme {
                TurnScheme::Udp => PathKind::TurnUdp,
                TurnScheme::Tcp => PathKind::TurnTcp,
                TurnScheme::Tls => PathKind::TurnTls,
            };
            if !self.transport.tries(by) {
                continue;
            }
            let ip = match host.parse() {
                Ok(ip) => Some(ip),
                Err(_) => self.look_up(&host, port).await,
            };
            servers.push(TurnServer {
                by,
                host: host.into(),
                address: ip.map(|ip| SocketAddr::new(ip, port)),
                username: username.into(),
                credential: credential.into(),
            });
        }
        servers
    }

    async fn look_up(&self, host: &str, port: u16) -> Option<IpAddr> {
        if !self.looks_up {
            return None;
        }
        if let Some(known) = self.known.borrow().get(host) {
            return *known;
        }
        let found = tokio::time::timeout(RESOLVED_WITHIN, tokio::net::lookup_host((host, port)));
        let ip = match found.await {
            Ok(Ok(mut addresses)) => {
                // Most TURN servers relay IPv4 alone.
                let all: Vec<_> = addresses.by_ref().map(|address| address.ip()).collect();
                all.iter().find(|ip| ip.is_ipv4()).or(all.first()).copied()
            }
            Ok(Err(_)) | Err(_) => None,
        };
        let mut known = self.known.borrow_mut();
        if known.len() < NAMES_MAX {
            known.insert(host.to_owned(), ip);
        }
        ip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(scheme: TurnScheme, host: &str) -> Named {
        let (username, credential) = ("user".to_owned(), "secret".to_owned());
        Named { scheme, host: host.to_owned(), port: 3_478, username, credential }
    }

    #[tokio::test]
    async fn those_that_may_be_tried_have_their_addresses() {
        let all = vec![
            named(TurnScheme::Udp, "10.0.0.1"),
            named(TurnScheme::Tcp, "::1"),
            named(TurnScheme::Tls, "turn.invalid"),
        ];
        let auto = TurnServers::new(Transport::Auto, false).resolve(all.clone()).await;
        let addresses: Vec<_> = auto.iter().map(|server| server.address).collect();
        let known = ["10.0.0.1:3478", "[::1]:3478"].map(|address| address.parse().ok());
        assert_eq!(addresses, [known[0], known[1], None]);
        let only = TurnServers::new(Transport::Only(PathKind::TurnTcp), true).resolve(all).await;
        assert_eq!(only.iter().map(|server| server.by).collect::<Vec<_>>(), [PathKind::TurnTcp]);
    }
}
