//! The TURN servers that a server names (livekit_rtc.proto `ICEServer`), by their URIs (RFC 7065).

use std::fmt;

use livekit_protocol as proto;

/// Most TURN servers of a message that are read; LiveKit names one or two.
pub const TURN_SERVERS_MAX: usize = 16;
/// Longest URI that is read, longest user name and longest password (RFC 8489 §14.3: 508 bytes).
const TEXT_BYTES_MAX: usize = 508;
/// Longest host name (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 255;
/// RFC 8656 §3.
const PORT: u16 = 3_478;
const TLS_PORT: u16 = 5_349;

/// How a TURN server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnScheme {
    /// `turn:…?transport=udp`, and without a transport.
    Udp,
    /// `turn:…?transport=tcp`.
    Tcp,
    /// `turns:…`, over TCP.
    Tls,
}

/// A TURN server.
#[derive(Clone, PartialEq, Eq)]
pub struct TurnServer {
    /// How it is reached.
    pub scheme: TurnScheme,
    /// Its name or address; IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User name.
    pub username: String,
    /// Password.
    pub credential: String,
}

/// Without its credentials.
impl fmt::Debug for TurnServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port, .. } = self;
        write!(f, "TurnServer({scheme:?} {host}:{port})")
    }
}

/// Those that can be used: STUN servers, TURN over DTLS and what can't be read are passed over.
pub(super) fn read(servers: &[proto::IceServer]) -> Vec<TurnServer> {
    let of = |server: &proto::IceServer| {
        let proto::IceServer { urls, username, credential } = server;
        let fits = username.len() <= TEXT_BYTES_MAX && credential.len() <= TEXT_BYTES_MAX;
        let uris: Vec<_> =
            urls.iter().take(TURN_SERVERS_MAX).filter_map(|uri| parse(uri)).collect();
        let (username, credential) = (username.clone(), credential.clone());
        uris.into_iter().filter(move |_| fits).map(move |(scheme, host, port)| TurnServer {
            scheme,
            host,
            port,
            username: username.clone(),
            credential: credential.clone(),
        })
    };
    servers.iter().take(TURN_SERVERS_MAX).flat_map(of).take(TURN_SERVERS_MAX).collect()
}

fn parse(uri: &str) -> Option<(TurnScheme, String, u16)> {
    if uri.len() > TEXT_BYTES_MAX {
        return None;
    }
    let (scheme, rest) = uri.trim().split_once(':')?;
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (rest, None),
    };
    let transport = match query {
        None => None,
        Some(query) => Some(query.strip_prefix("transport=")?),
    };
    let scheme = match (scheme.to_ascii_lowercase().as_str(), transport) {
        ("turn", None | Some("udp")) => TurnScheme::Udp,
        ("turn", Some("tcp")) => TurnScheme::Tcp,
        ("turns", None | Some("tcp")) => TurnScheme::Tls,
        _ => return None,
    };
    let (host, port) = match place.strip_prefix('[') {
        Some(v6) => {
            let (host, rest) = v6.split_once(']')?;
            (host, rest.strip_prefix(':').or(rest.is_empty().then_some("")))
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, Some("")),
        },
    };
    let port = match port? {
        "" if scheme == TurnScheme::Tls => TLS_PORT,
        "" => PORT,
        port => port.parse().ok().filter(|port| *port != 0)?,
    };
    let is_printable = host.bytes().all(|byte| byte.is_ascii_graphic());
    let is_host = !host.is_empty() && host.len() <= HOST_BYTES_MAX && is_printable;
    is_host.then(|| (scheme, host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn uris_of_turn_servers_are_read() {
        for (uri, scheme, host, port) in [
            ("turn:10.0.0.1:3479?transport=udp", TurnScheme::Udp, "10.0.0.1", 3_479),
            ("turn:turn.example.com", TurnScheme::Udp, "turn.example.com", 3_478),
            ("turn:[::1]:80?transport=tcp", TurnScheme::Tcp, "::1", 80),
            ("turns:turn.example.com:443?transport=tcp", TurnScheme::Tls, "turn.example.com", 443),
            ("TURNS:[2001:db8::1]", TurnScheme::Tls, "2001:db8::1", 5_349),
        ] {
            assert_eq!(parse(uri), Some((scheme, host.to_owned(), port)), "{uri}");
        }
        for uri in [
            "stun:stun.l.google.com:19302",
            "turns:a:443?transport=udp",
            "turn:a:0",
            "turn:a:70000",
            "turn:",
            "turn:a?transport=sctp",
            "turn:[::1",
            "turn:[::1]x",
            "turn:a b",
            "http://a",
            "",
        ] {
            assert_eq!(parse(uri), None, "{uri}");
        }
    }

    #[test]
    fn what_a_server_names_is_bounded_and_its_credentials_are_not_shown() {
        let server = |urls: usize, username: &str| proto::IceServer {
            urls: vec!["turn:a".to_owned(); urls],
            username: username.to_owned(),
            credential: "hidden".to_owned(),
        };
        assert_eq!(read(&[server(3, "user")]).len(), 3);
        assert_eq!(read(&vec![server(1_000, "user"); 1_000]).len(), TURN_SERVERS_MAX);
        assert_eq!(read(&[server(1, &"u".repeat(509))]), []);
        let shown = format!("{:?}", read(&[server(1, "user")]));
        assert_eq!(shown, "[TurnServer(Udp a:3478)]");
    }

    proptest! {
        #[test]
        fn any_uri_is_read_or_not(uri in ".{0,80}") {
            let _ = parse(&uri);
            let _ = parse(&format!("turn:{uri}"));
        }
    }
}
