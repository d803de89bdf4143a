//! The TURN servers that servers name: where they are.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use stampede_engine::{PathKind, Transport, TurnServer};
use stampede_signaling::session::{TurnScheme, TurnServer as Named};
use tokio::sync::OnceCell;

use crate::clock::now;

/// Longest wait for the address of a name.
const RESOLVED_WITHIN: Duration = Duration::from_secs(2);
/// How long a name without an address is taken for one, before it is looked up again.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Most names of which it is kept what they resolve to; LiveKit names one or two.
const NAMES_MAX: usize = 64;

/// Resolves them, each name once at a time: thousands of participants are told of the same ones. What
/// a name resolves to is kept; one that has no address may have one later.
#[derive(Debug)]
pub(crate) struct TurnServers {
    transport: Transport,
    /// Names may be looked up.
    looks_up: bool,
    known: RefCell<HashMap<String, Rc<Address>>>,
}

/// What a name resolves to.
#[derive(Debug, Default)]
struct Address {
    ip: OnceCell<IpAddr>,
    /// When it was seen last that it has none.
    failed_at: Cell<Option<Instant>>,
}

impl TurnServers {
    pub(crate) fn new(transport: Transport, looks_up: bool) -> Self {
        Self { transport, looks_up, known: RefCell::default() }
    }

    /// Those that may be tried, with the addresses that are known already.
    pub(crate) fn at_once(&self, named: &[Named]) -> Vec<TurnServer> {
        let with_address = |named: &Named| {
            let by = way(named.scheme);
            let known = || self.known.borrow().get(&named.host)?.ip.get().copied();
            self.transport.tries(by).then(|| TurnServer {
                by,
                host: named.host.as_str().into(),
                address: parsed(named).or_else(known).map(|ip| SocketAddr::new(ip, named.port)),
                username: named.username.as_str().into(),
                credential: named.credential.as_str().into(),
            })
        };
        named.iter().filter_map(with_address).collect()
    }

    /// Names have to be looked up before all that can be known of these is.
    pub(crate) fn is_to_resolve(&self, named: &[Named]) -> bool {
        self.unknown(named).next().is_some()
    }

    fn unknown<'a>(&self, named: &'a [Named]) -> impl Iterator<Item = &'a Named> {
        let is_known = |host: &str| {
            self.known.borrow().get(host).is_some_and(|address| address.ip.get().is_some())
        };
        named.iter().filter(move |named| {
            self.looks_up
                && self.transport.tries(way(named.scheme))
                && parsed(named).is_none()
                && !is_known(&named.host)
        })
    }

    /// Those that may be tried, with their addresses.
    pub(crate) async fn resolve(&self, named: &[Named]) -> Vec<TurnServer> {
        for Named { host, port, .. } in self.unknown(named) {
            let Some(address) = self.address_of(host) else { continue };
            // Without one it is told as it is.
            let _ = address.ip.get_or_try_init(|| address.look_up(host, *port)).await;
        }
        self.at_once(named)
    }

    /// Where it is kept what a name resolves to; `None` if there is no room.
    fn address_of(&self, host: &str) -> Option<Rc<Address>> {
        let mut known = self.known.borrow_mut();
        if let Some(address) = known.get(host) {
            return Some(Rc::clone(address));
        }
        if known.len() >= NAMES_MAX {
            return None;
        }
        Some(Rc::clone(known.entry(host.to_owned()).or_default()))
    }
}

fn way(scheme: TurnScheme) -> PathKind {
    match scheme {
        TurnScheme::Udp => PathKind::TurnUdp,
        TurnScheme::Tcp => PathKind::TurnTcp,
        TurnScheme::Tls => PathKind::TurnTls,
    }
}

fn parsed(named: &Named) -> Option<IpAddr> {
    named.host.parse().ok()
}

impl Address {
    /// The address of a name, or nothing within [`RESOLVED_WITHIN`].
    async fn look_up(&self, host: &str, port: u16) -> Result<IpAddr, ()> {
        // Who waited for the one before need not wait for another.
        if self.failed_at.get().is_some_and(|at| now() < at + AGAIN_AFTER) {
            return Err(());
        }
        let found = tokio::time::timeout(RESOLVED_WITHIN, tokio::net::lookup_host((host, port)));
        // Most TURN servers relay IPv4 alone.
        let ip = found.await.ok().and_then(Result::ok).and_then(|addresses| {
            let all: Vec<_> = addresses.map(|address| address.ip()).collect();
            all.iter().find(|ip| ip.is_ipv4()).or(all.first()).copied()
        });
        self.failed_at.set(ip.is_none().then(now));
        ip.ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(scheme: TurnScheme, host: &str) -> Named {
        let (username, credential) = ("user".to_owned(), "secret".to_owned());
        Named { scheme, host: host.to_owned(), port: 3_478, username, credential }
    }

    #[test]
    fn of_so_many_names_it_is_kept_what_they_resolve_to() {
        let servers = TurnServers::new(Transport::Auto, true);
        let has_room = |number: usize| servers.address_of(&format!("turn-{number}")).is_some();
        assert!((0..NAMES_MAX).all(has_room));
        assert!(!has_room(NAMES_MAX) && has_room(0));
    }

    #[tokio::test]
    async fn those_that_may_be_tried_have_their_addresses() {
        let all = vec![
            named(TurnScheme::Udp, "10.0.0.1"),
            named(TurnScheme::Tcp, "::1"),
            named(TurnScheme::Tls, "turn.invalid"),
        ];
        let offline = TurnServers::new(Transport::Auto, false);
        assert!(!offline.is_to_resolve(&all));
        let auto = offline.resolve(&all).await;
        let addresses: Vec<_> = auto.iter().map(|server| server.address).collect();
        let known = ["10.0.0.1:3478", "[::1]:3478"].map(|address| address.parse().ok());
        assert_eq!(addresses, [known[0], known[1], None]);
        let only = TurnServers::new(Transport::Only(PathKind::TurnTcp), true);
        assert!(!only.is_to_resolve(&all), "nobody tries the one whose name is not known");
        let only = only.resolve(&all).await;
        assert_eq!(only.iter().map(|server| server.by).collect::<Vec<_>>(), [PathKind::TurnTcp]);
    }

    #[tokio::test]
    async fn a_name_is_told_without_its_address_till_it_is_known_and_kept_only_then() {
        let all = [named(TurnScheme::Udp, "localhost"), named(TurnScheme::Udp, "turn.invalid")];
        let servers = TurnServers::new(Transport::Auto, true);
        let addresses = |servers: Vec<TurnServer>| -> Vec<_> {
            servers
                .into_iter()
                .map(|server| server.address.map(|at| at.ip().is_loopback()))
                .collect()
        };
        assert_eq!(addresses(servers.at_once(&all)), [None, None]);
        assert!(servers.is_to_resolve(&all));
        assert_eq!(addresses(servers.resolve(&all).await), [Some(true), None]);
        assert_eq!(addresses(servers.at_once(&all)), [Some(true), None]);
        // What has no address may have one later.
        assert!(servers.is_to_resolve(&all) && !servers.is_to_resolve(&all[..1]));
    }
}
