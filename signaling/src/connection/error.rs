//! Why a websocket could not be opened.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::error_kind::ErrorKind;

/// Longest part of a server's error body that is kept, in characters.
pub const ERROR_BODY_CHARS_MAX: usize = 200;

/// The steps to an open websocket, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectStep {
    /// The host's name is looked up.
    Dns,
    /// The server, or the proxy, is dialled.
    Tcp,
    /// The proxy is asked for a tunnel.
    Proxy,
    /// TLS is agreed on.
    Tls,
    /// The upgrade to a websocket is awaited.
    Websocket,
}

impl ConnectStep {
    pub(super) const ALL: [Self; 5] =
        [Self::Dns, Self::Tcp, Self::Proxy, Self::Tls, Self::Websocket];
}

impl fmt::Display for ConnectStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Websocket => "websocket",
        })
    }
}

/// Why [`Connection::connect`](super::Connection::connect) failed. Texts never hold the token.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConnectError {
    /// The URL can't be used.
    #[error(transparent)]
    Url(#[from] crate::UrlError),
    /// The host name has no address.
    #[error("{host}: can't resolve the host name: {detail}")]
    Dns {
        /// Host as given.
        host: String,
        /// What the resolver said.
        detail: String,
    },
    /// Nothing listens there.
    #[error("{address}: connection refused; is the server running and the port right?")]
    Refused {
        /// Host and port.
        address: String,
    },
    /// Not open within the connect timeout.
    #[error("{address}: no websocket within {timeout:?} (got as far as: {step})")]
    Timeout {
        /// Host and port.
        address: String,
        /// The limit.
        timeout: Duration,
        /// The step that it was at.
        step: ConnectStep,
    },
    /// This process or machine is out of file descriptors, ports or memory: our fault, not the
    /// server's.
    #[error("{address}: this machine can't open another connection: {detail}")]
    LocalResources {
        /// Host and port.
        address: String,
        /// The operating system's error.
        detail: String,
    },
    /// Any other TCP failure.
    #[error("{address}: {detail}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// The operating system's error.
        detail: String,
    },
    /// The HTTP proxy on the way can't be reached, or does not connect us.
    #[error("{}", proxy_text(proxy, *status, detail))]
    Proxy {
        /// Host and port of the proxy.
        proxy: String,
        /// What it answered, if it did.
        status: Option<u16>,
        /// The operating system's error, or the answer's first line.
        detail: String,
    },
    /// The TLS handshake failed.
    #[error("{address}: TLS handshake failed: {detail}")]
    Tls {
        /// Host and port.
        address: String,
        /// What rustls said.
        detail: String,
    },
    /// The server answered with something other than 101.
    #[error("{}", http_text(*status, body))]
    Http {
        /// Status code.
        status: u16,
        /// Start of the body, at most [`ERROR_BODY_CHARS_MAX`] characters, printable only.
        body: String,
    },
    /// The answer is not a websocket handshake.
    #[error("{address}: not a LiveKit server: {detail}")]
    Protocol {
        /// Host and port.
        address: String,
        /// What was wrong.
        detail: String,
    },
}

impl ConnectError {
    /// What it is counted by.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Url(_) => ErrorKind::BadUrl,
            Self::Dns { .. } => ErrorKind::Dns,
            Self::Refused { .. } => ErrorKind::Refused,
            Self::Timeout { .. } => ErrorKind::ConnectTimeout,
            Self::LocalResources { .. } => ErrorKind::LocalResources,
            Self::Unreachable { .. } => ErrorKind::Unreachable,
            Self::Proxy { .. } => ErrorKind::Proxy,
            Self::Tls { .. } => ErrorKind::Tls,
            Self::Http { status, .. } => ErrorKind::http(*status),
            Self::Protocol { .. } => ErrorKind::WebsocketProtocol,
        }
    }

    /// True if trying again can help: not for a bad URL, or a 4xx other than 408 and 429.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Url(_) => false,
            Self::Http { status, .. } | Self::Proxy { status: Some(status), .. } => {
                *status >= 500 || matches!(status, 408 | 429)
            }
            _ => true,
        }
    }
}

fn proxy_text(proxy: &str, status: Option<u16>, detail: &str) -> String {
    match status {
        None => format!("the proxy {proxy}: {detail}"),
        Some(407) => format!(
            "the proxy {proxy} wants a user and a password ({detail}); name it as \
             http://USER:PASSWORD@{proxy}"
        ),
        Some(_) => format!("the proxy {proxy} refused to connect us: {detail}"),
    }
}

fn http_text(status: u16, body: &str) -> String {
    let meaning = match status {
        401 => "the server does not accept the token; check --api-key and --api-secret",
        403 => "the token does not allow joining this room",
        404 => "no LiveKit signalling at this URL; check --url",
        503 => "the server takes no more participants or is shutting down",
        _ => "the server refused the websocket",
    };
    if body.is_empty() {
        format!("HTTP {status}: {meaning}")
    } else {
        format!("HTTP {status}: {meaning} (it said: {body})")
    }
}
