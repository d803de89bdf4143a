//! Which HTTP proxy stands between us and a server, if any: as curl decides it.
//!
//! For `ws://` and `http://` that is `http_proxy`, for `wss://` and `https://` `https_proxy`, for
//! both `all_proxy`, each in small letters first; `no_proxy` names the hosts that are reached
//! directly. Unlike curl, nothing of the environment is taken for this machine itself: a proxy that
//! could reach our loopback addresses would be a strange one, while a forgotten variable is
//! common.

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::header::HeaderValue;
use thiserror::Error;
use tokio_tungstenite::tungstenite::http::Uri;
use url::{Host, Url};

use crate::server_url::ServerUrl;

/// The port of a proxy that names none, as curl has it.
const PORT: u16 = 1080;

/// Why a proxy can't be used. Texts never hold its password.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProxyError {
    /// Not an HTTP proxy.
    #[error(
        "{from}: a proxy of kind {scheme}:// can't be used, only http://; name one, or give \
         --proxy none"
    )]
    Scheme {
        /// The flag or variable.
        from: &'static str,
        /// The scheme given.
        scheme: String,
    },
    /// Not a URL.
    #[error(
        "{from}: this is no URL of a proxy; write it like http://HOST:3128, or \
         http://USER:PASSWORD@HOST:3128 with what is special in them percent-encoded"
    )]
    Malformed {
        /// The flag or variable.
        from: &'static str,
    },
}

/// An HTTP proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Without brackets.
    host: String,
    port: u16,
    /// `Basic …`; marked as sensitive.
    authorization: Option<HeaderValue>,
    /// With the password.
    url: Url,
    from: &'static str,
}

impl Proxy {
    fn parse(from: &'static str, text: &str) -> Result<Self, ProxyError> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        if !scheme.eq_ignore_ascii_case("http") {
            let scheme = scheme.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
            return Err(ProxyError::Scheme { from, scheme });
        }
        let malformed = || ProxyError::Malformed { from };
        // A scheme that is not HTTP's keeps a port 80 that was given.
        let parsed = Url::parse(&format!("proxy://{rest}")).map_err(|_| malformed())?;
        let port = parsed.port().unwrap_or(PORT);
        let mut url = Url::parse(&format!("http://{rest}")).map_err(|_| malformed())?;
        url.set_port(Some(port)).map_err(|()| malformed())?;
        url.set_path("");
        url.set_query(None);
        url.set_fragment(None);
        let host = match url.host().ok_or_else(malformed)? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(ip) => ip.to_string(),
            Host::Ipv6(ip) => ip.to_string(),
        };
        let matcher = Matcher::builder().all(url.as_str()).build();
        let any = Uri::from_static("http://any");
        let authorization = matcher.intercept(&any).ok_or_else(malformed)?.basic_auth().cloned();
        Ok(Self { host, port, authorization, url, from })
    }

    /// `host:port`, IPv6 in brackets.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", self.url.host_str().unwrap_or_default(), self.port)
    }

    /// The flag or variable that named it.
    #[must_use]
    pub fn named_by(&self) -> &'static str {
        self.from
    }

    /// Host without brackets, for the resolver.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Value of `Proxy-Authorization`.
    pub(crate) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({}, {})", self.authority(), self.from)
    }
}

/// A proxy as it was named.
#[derive(Clone, PartialEq, Eq)]
struct Named {
    from: &'static str,
    text: String,
}

/// The proxies of this process. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Proxies(Arc<Rules>);

#[derive(Default, PartialEq, Eq)]
struct Rules {
    plain: Option<Named>,
    secure: Option<Named>,
    /// Hosts that are reached directly.
    no: String,
    /// A flag named the proxy: it is asked for, for loopback too.
    asked: bool,
}

impl Proxies {
    /// No proxy at all.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Those of the environment, read with `variable`.
    pub fn of_environment(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let first = |names: &[&'static str]| {
            names.iter().find_map(|from| {
                let text = variable(from)?.to_string_lossy().into_owned();
                (!text.trim().is_empty()).then_some(Named { from, text })
            })
        };
        // In a CGI program HTTP_PROXY is the request's `Proxy` header (CVE-2016-5385).
        let plain: &[&'static str] = match variable("REQUEST_METHOD") {
            None => &["http_proxy", "HTTP_PROXY"],
            Some(_) => &["http_proxy"],
        };
        let all = first(&["all_proxy", "ALL_PROXY"]);
        Self(Arc::new(Rules {
            plain: first(plain).or_else(|| all.clone()),
            secure: first(&["https_proxy", "HTTPS_PROXY"]).or(all),
            no: no_proxy(variable),
            asked: false,
        }))
    }

    /// One for everything but what `NO_PROXY` names, as the flag `from` says; `none` for none.
    ///
    /// # Errors
    /// [`ProxyError`].
    pub fn asked(
        from: &'static str,
        text: &str,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ProxyError> {
        if text.trim().eq_ignore_ascii_case("none") {
            return Ok(Self::none());
        }
        Proxy::parse(from, text)?;
        let named = Some(Named { from, text: text.to_owned() });
        Ok(Self(Arc::new(Rules {
            plain: named.clone(),
            secure: named,
            no: no_proxy(variable),
            asked: true,
        })))
    }

    /// The proxy on the way to a server.
    ///
    /// # Errors
    /// [`ProxyError`], of the one that this server would be reached by.
    pub fn of(&self, url: &ServerUrl) -> Result<Option<Proxy>, ProxyError> {
        let http = Url::parse(&url.http("/")).ok();
        http.map_or(Ok(None), |url| self.of_http(&url))
    }

    /// The same for an `http://` or `https://` URL.
    ///
    /// # Errors
    /// [`ProxyError`].
    pub fn of_http(&self, url: &Url) -> Result<Option<Proxy>, ProxyError> {
        let rules = &*self.0;
        let named = if url.scheme() == "https" { &rules.secure } else { &rules.plain };
        let (Some(named), Some(host)) = (named, url.host()) else { return Ok(None) };
        if !rules.asked && is_loopback(&host) {
            return Ok(None);
        }
        let matcher = Matcher::builder().all("http://proxy").no(&rules.no).build();
        let direct = |uri: Uri| matcher.intercept(&uri).is_none();
        if format!("http://{host}/").parse::<Uri>().is_ok_and(direct) {
            return Ok(None);
        }
        Proxy::parse(named.from, &named.text).map(Some)
    }

    /// Makes an HTTP client take these proxies and no others.
    pub(crate) fn apply(&self, builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
        if *self == Self::none() {
            return builder.no_proxy();
        }
        let proxies = self.clone();
        // What can't be parsed was refused when the server's proxy was asked for.
        builder.proxy(reqwest::Proxy::custom(move |url| {
            proxies.of_http(url).ok().flatten().map(|proxy| proxy.url)
        }))
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies").finish_non_exhaustive()
    }
}

fn no_proxy(variable: impl Fn(&str) -> Option<OsString>) -> String {
    let filled = |name: &&str| {
        variable(name).map(|value| value.to_string_lossy().into_owned()).filter(|v| !v.is_empty())
    };
    ["no_proxy", "NO_PROXY"].iter().find_map(filled).unwrap_or_default()
}

fn is_loopback<S: AsRef<str>>(host: &Host<S>) -> bool {
    match host {
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.to_canonical().is_loopback(),
        Host::Domain(name) => {
            let name = name.as_ref().trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment<'a>(
        variables: &'a [(&str, &str)],
    ) -> impl Fn(&str) -> Option<OsString> + use<'a> {
        move |name| {
            let found = variables.iter().find(|(known, _)| *known == name)?;
            Some(OsString::from(found.1))
        }
    }

    fn through(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let proxies = Proxies::of_environment(environment(variables));
        proxies.of(&ServerUrl::parse(url).unwrap()).unwrap().map(|proxy| proxy.authority())
    }

    #[test]
    fn each_scheme_has_its_variable_in_small_letters_first() {
        let all = [
            ("http_proxy", "http://small:1"),
            ("HTTP_PROXY", "http://capital:1"),
            ("HTTPS_PROXY", "secure:2/path?x"),
            ("ALL_PROXY", "http://all:3"),
        ];
        let of = |from: usize, to: usize, url: &str| through(&all[from..to], url);
        assert_eq!(of(0, 4, "ws://h"), Some("small:1".into()));
        assert_eq!(of(1, 4, "http://h"), Some("capital:1".into()));
        assert_eq!(of(0, 4, "wss://h"), Some("secure:2".into()));
        assert_eq!(of(3, 4, "ws://h"), Some("all:3".into()));
        assert_eq!(of(3, 4, "https://h"), Some("all:3".into()));
        assert_eq!(of(2, 3, "ws://h"), None);
        let cgi = [("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "http://evil")];
        assert_eq!(through(&cgi, "ws://h"), None);
        assert_eq!(
            through(&[("http_proxy", ""), ("HTTP_PROXY", "x")], "ws://h").unwrap(),
            "x:1080"
        );
    }

    #[test]
    fn no_proxy_names_hosts_domains_and_networks() {
        let to = |no: &str, url: &str| {
            through(&[("ALL_PROXY", "p:80"), ("NO_PROXY", no)], url).is_some()
        };
        for (no, url, proxied) in [
            ("example.com", "ws://example.com:7880", false),
            ("example.com", "wss://live.example.com", false),
            ("example.com", "wss://notexample.com", true),
            (".example.com, other", "ws://a.example.com", false),
            ("10.0.0.0/8", "ws://10.1.2.3", false),
            ("10.0.0.0/8", "ws://11.1.2.3", true),
            ("fd00::/8", "ws://[fd00::1]:7880", false),
            ("*", "wss://anything", false),
            ("", "ws://127.0.0.1:7880", false),
            ("", "ws://localhost", false),
            ("", "ws://[::1]", false),
            ("", "ws://sfu.localhost", false),
            ("", "ws://localhost.example.com", true),
        ] {
            assert_eq!(to(no, url), proxied, "{url} with NO_PROXY={no}");
        }
    }

    #[test]
    fn a_proxy_that_is_asked_for_is_taken_for_loopback_too() {
        let url = ServerUrl::parse("ws://127.0.0.1:7880").unwrap();
        let asked = |text: &str, no: &str| {
            let no = [("no_proxy", no)];
            let proxies = Proxies::asked("--proxy", text, environment(&no)).unwrap();
            proxies.of(&url).unwrap().map(|proxy| (proxy.authority(), proxy.named_by()))
        };
        assert_eq!(asked("[fd00::1]:80", ""), Some(("[fd00::1]:80".into(), "--proxy")));
        assert_eq!(asked("p", "127.0.0.1"), None);
        assert_eq!(asked("none", ""), None);
    }

    #[test]
    fn what_is_no_http_proxy_is_refused_where_it_is_needed_and_nowhere_else() {
        let variables = [("HTTPS_PROXY", "socks5h://u:SECRET@h:1"), ("HTTP_PROXY", "http://p")];
        let proxies = Proxies::of_environment(environment(&variables));
        let of = |url: &str| proxies.of(&ServerUrl::parse(url).unwrap());
        assert!(of("ws://h").is_ok());
        let error = of("wss://h").unwrap_err().to_string();
        assert!(error.contains("HTTPS_PROXY") && error.contains("socks5h://"), "{error}");
        assert!(!error.contains("SECRET"));
        for text in ["http://", "http://u:SECRET@:3", "http://h:99999", "a b", "https://h"] {
            let error = Proxies::asked("--proxy", text, |_| None).unwrap_err().to_string();
            assert!(error.contains("--proxy") && !error.contains("SECRET"), "{text}: {error}");
        }
    }

    #[test]
    fn user_and_password_are_sent_and_never_shown() {
        let proxies = Proxies::asked("--proxy", "http://us%40er:p%3Aw@h:3128", |_| None).unwrap();
        let proxy = proxies.of(&ServerUrl::parse("wss://x").unwrap()).unwrap().unwrap();
        // base64 of `us@er:p:w`.
        assert_eq!(proxy.authorization().unwrap(), "Basic dXNAZXI6cDp3");
        assert!(proxy.authorization().unwrap().is_sensitive());
        assert_eq!(format!("{proxy:?} {proxies:?}"), "Proxy(h:3128, --proxy) Proxies { .. }");
    }
}
