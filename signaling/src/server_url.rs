//! The address of a LiveKit server.

use std::fmt;
use std::net::SocketAddr;

use thiserror::Error;
use url::{Host, Url};

/// Why a URL can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UrlError {
    /// Not a URL.
    #[error("{url:?} is not a URL ({detail}); write it like ws://127.0.0.1:7880")]
    Malformed {
        /// What was given, without any query or password.
        url: String,
        /// What the parser said.
        detail: String,
    },
    /// Not one of ws, wss, http, https.
    #[error("{scheme}:// is not a LiveKit URL; use ws://, wss://, http:// or https://")]
    Scheme {
        /// The scheme given.
        scheme: String,
    },
    /// No host name.
    #[error("{url:?} has no host name")]
    NoHost {
        /// What was given.
        url: String,
    },
    /// User name or password in it.
    #[error("the URL holds a user name or password; LiveKit takes --api-key and --api-secret")]
    Credentials,
    /// A query or fragment, which could be a token.
    #[error("the URL holds a query or fragment; give only scheme, host, port and path")]
    Query,
}

/// A checked LiveKit URL. `http` counts as `ws`, `https` as `wss`; a path is kept as a prefix
/// (`wss://host/prefix` joins at `/prefix/rtc`).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ServerUrl {
    secure: bool,
    host: Host<String>,
    port: u16,
    /// Path without a trailing slash: empty or `/prefix`.
    prefix: String,
}

impl ServerUrl {
    /// Parses and checks `text`.
    ///
    /// # Errors
    /// See [`UrlError`].
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        let url = Url::parse(text).map_err(|error| UrlError::Malformed {
            url: without_secrets(text),
            detail: error.to_string(),
        })?;
        let secure = match url.scheme() {
            "ws" | "http" => false,
            "wss" | "https" => true,
            other => return Err(UrlError::Scheme { scheme: other.to_owned() }),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlError::Credentials);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(UrlError::Query);
        }
        let host = match url.host() {
            Some(host) => host.to_owned(),
            None => return Err(UrlError::NoHost { url: without_secrets(text) }),
        };
        let port = url.port().unwrap_or(if secure { 443 } else { 80 });
        let prefix = url.path().trim_end_matches('/').to_owned();
        Ok(Self { secure, host, port, prefix })
    }

    /// True for `wss` and `https`.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Host name or address, IPv6 in brackets.
    #[must_use]
    pub fn host(&self) -> String {
        self.host.to_string()
    }

    /// Port, the scheme's default if none was given.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// True for addresses of LiveKit's cloud, whose acceptable use policy limits load tests.
    #[must_use]
    pub fn is_livekit_cloud(&self) -> bool {
        match &self.host {
            Host::Domain(name) => {
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                ["livekit.cloud", "livekit.run"]
                    .iter()
                    .any(|zone| name == *zone || name.ends_with(&format!(".{zone}")))
            }
            _ => false,
        }
    }

    /// The address itself where the host is one, so that no resolver is asked.
    #[must_use]
    pub fn literal_address(&self) -> Option<SocketAddr> {
        match &self.host {
            Host::Domain(_) => None,
            Host::Ipv4(ip) => Some(SocketAddr::from((*ip, self.port))),
            Host::Ipv6(ip) => Some(SocketAddr::from((*ip, self.port))),
        }
    }

    /// `ws[s]://host:port/prefix` and `path_and_query`.
    pub(crate) fn websocket(&self, path_and_query: &str) -> String {
        let scheme = if self.secure { "wss" } else { "ws" };
        format!("{scheme}://{}{}{path_and_query}", self.authority(), self.prefix)
    }

    /// `http[s]://host:port/prefix` and `path`.
    pub(crate) fn http(&self, path: &str) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}{}{path}", self.authority(), self.prefix)
    }

    /// Host without brackets, as TLS and the resolver want it.
    pub(crate) fn host_bare(&self) -> String {
        match &self.host {
            Host::Domain(name) => name.clone(),
            Host::Ipv4(ip) => ip.to_string(),
            Host::Ipv6(ip) => ip.to_string(),
        }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "wss" } else { "ws" };
        let default = if self.secure { 443 } else { 80 };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port != default {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.prefix)
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerUrl({self})")
    }
}

impl std::str::FromStr for ServerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        Self::parse(text)
    }
}

/// What may be repeated of a URL that did not parse: nothing from `?`, `#` or before an `@`.
fn without_secrets(text: &str) -> String {
    let end = text.find(['?', '#']).unwrap_or(text.len());
    let text = &text[..end];
    let text = text.rsplit_once('@').map_or(text, |(_, after)| after);
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_ports_and_prefixes() {
        let cases = [
            ("ws://127.0.0.1:7880", "ws://127.0.0.1:7880/rtc", "ws://127.0.0.1:7880"),
            ("http://localhost", "ws://localhost:80/rtc", "ws://localhost"),
            ("wss://Example.com/", "wss://example.com:443/rtc", "wss://example.com"),
            ("https://h:8443/a/b/", "wss://h:8443/a/b/rtc", "wss://h:8443/a/b"),
            ("ws://[::1]:7880", "ws://[::1]:7880/rtc", "ws://[::1]:7880"),
        ];
        for (given, websocket, shown) in cases {
            let url = ServerUrl::parse(given).unwrap();
            assert_eq!(url.websocket("/rtc"), websocket, "{given}");
            assert_eq!(url.to_string(), shown, "{given}");
        }
        assert_eq!(ServerUrl::parse("wss://h/p").unwrap().http("/twirp"), "https://h:443/p/twirp");
    }

    #[test]
    fn refuses_what_is_not_a_server() {
        assert!(matches!(ServerUrl::parse("127.0.0.1:7880"), Err(UrlError::Malformed { .. })));
        assert!(matches!(ServerUrl::parse("ftp://h"), Err(UrlError::Scheme { .. })));
        assert!(matches!(ServerUrl::parse(""), Err(UrlError::Malformed { .. })));
        assert!(matches!(ServerUrl::parse("ws://"), Err(UrlError::Malformed { .. })));
        assert_eq!(ServerUrl::parse("ws://u:pw@h"), Err(UrlError::Credentials));
        assert_eq!(ServerUrl::parse("ws://h/?access_token=x"), Err(UrlError::Query));
        assert!(matches!(ServerUrl::parse("ws://h:99999"), Err(UrlError::Malformed { .. })));
    }

    #[test]
    fn errors_never_repeat_secrets() {
        for text in ["ws//u:SECRET@h?access_token=SECRET", "ws://h:port?t=SECRET", "x#SECRET"] {
            let error = ServerUrl::parse(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn knows_the_cloud() {
        assert!(ServerUrl::parse("wss://x.livekit.cloud").unwrap().is_livekit_cloud());
        assert!(ServerUrl::parse("wss://x.LiveKit.cloud.").unwrap().is_livekit_cloud());
        assert!(!ServerUrl::parse("wss://livekit.cloud.example.com").unwrap().is_livekit_cloud());
        assert!(!ServerUrl::parse("wss://notlivekit.cloud").unwrap().is_livekit_cloud());
    }
}
