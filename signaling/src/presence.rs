//! Whether a server is still there.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::connection::{LOCAL_ERRORS, TlsSetup};
use crate::proxy::Proxies;
use crate::server_url::ServerUrl;

/// Why a server is taken to be gone.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Absence {
    /// Its host answers, and nothing listens there.
    #[error("connection refused")]
    Refused,
    /// Nothing came back.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// The connection ended without an answer.
    #[error("it closed the connection without an answer")]
    Closed,
    /// What stands in front of it says so.
    #[error("HTTP {0} of what is in front of it")]
    Gateway(u16),
    /// Something else in the way to it.
    #[error("{0}")]
    Unreachable(String),
}

/// Asks a server for anything at all, over a connection of its own. Whatever it answers, it is
/// there; `Ok` as well where this machine could not ask.
///
/// The path is one below that of joins, so that a proxy sends it where it sends those; without a
/// token livekit-server answers it with 401 and does nothing (livekit service/rtcservice.go).
///
/// # Errors
/// [`Absence`].
pub async fn ask(
    url: &ServerUrl,
    tls: &TlsSetup,
    proxies: &Proxies,
    limit: Duration,
) -> Result<(), Absence> {
    let Ok(http) = tls.http_client(proxies).timeout(limit).build() else { return Ok(()) };
    match http.get(url.http("/rtc/validate")).send().await {
        Ok(response) => match response.status().as_u16() {
            status @ (502..=504) => Err(Absence::Gateway(status)),
            _ => Ok(()),
        },
        Err(error) if error.is_timeout() => Err(Absence::Silent(limit)),
        Err(error) => match io_error(&error) {
            Some(io) if is_our_own(io) => Ok(()),
            Some(io) if io.kind() == io::ErrorKind::ConnectionRefused => Err(Absence::Refused),
            Some(io) if error.is_connect() => Err(Absence::Unreachable(io.to_string())),
            // TLS, or a URL that is none: joins would have failed by it, so it is no news.
            None if error.is_connect() || error.is_builder() => Ok(()),
            _ => Err(Absence::Closed),
        },
    }
}

fn io_error(error: &reqwest::Error) -> Option<&io::Error> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            // A wrapper tells the kind of what it holds only if it is asked for it.
            let inner = io.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>());
            return Some(inner.unwrap_or(io));
        }
        source = cause.source();
    }
    None
}

/// True if this process or machine lacked something.
fn is_our_own(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| LOCAL_ERRORS.contains(&code))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(300);

    async fn asked(listener: &TcpListener) -> Result<(), Absence> {
        let url = format!("ws://{}", listener.local_addr().unwrap());
        ask(&url.parse().unwrap(), &TlsSetup::new().unwrap(), &Proxies::none(), LIMIT).await
    }

    async fn answers(text: &'static str) -> Result<(), Absence> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let answer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1_024];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
        };
        tokio::join!(asked(&listener), answer).0
    }

    #[tokio::test]
    async fn whatever_is_answered_somebody_is_there_but_not_behind_a_gateway_that_says_so() {
        for text in ["200 OK", "401 Unauthorized", "404 Not Found", "500 Internal Server Error"] {
            let text = format!("HTTP/1.1 {text}\r\ncontent-length: 0\r\n\r\n");
            assert_eq!(answers(text.leak()).await, Ok(()));
        }
        let gateway = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(answers(gateway).await, Err(Absence::Gateway(502)));
        assert_eq!(answers("").await, Err(Absence::Closed));
    }

    #[tokio::test]
    async fn nobody_there_and_nobody_answering_are_two_things() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        assert_eq!(asked(&listener).await, Err(Absence::Silent(LIMIT)), "it only listens");
        let url = format!("ws://{}", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let gone = ask(&url, &TlsSetup::new().unwrap(), &Proxies::none(), LIMIT).await;
        assert_eq!(gone, Err(Absence::Refused));
    }
}
