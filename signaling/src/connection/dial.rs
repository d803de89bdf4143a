//! From a host name to a TCP connection: the first of its addresses that answers, and a tunnel
//! through the proxy if there is one.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;

use super::error::{ConnectError, ERROR_BODY_CHARS_MAX};
use crate::proxy::Proxy;
use crate::server_url::ServerUrl;
use crate::text;

/// How long an address has to answer before the next one is tried beside it (RFC 8305 §5,
/// "Connection Attempt Delay").
pub(super) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Most addresses of a name that are tried; the others would not be reached within the connect
/// timeout anyhow.
pub(super) const ADDRESSES_MAX: usize = 32;

/// Longest answer of a proxy to CONNECT that is read.
const PROXY_ANSWER_BYTES_MAX: usize = 16 * 1024;

/// A byte stream to a server: TCP, or what stands for it.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {
    /// The other side is to see a reset, and no orderly end, once this is dropped. Does nothing where
    /// there is no such thing.
    fn reset_on_drop(&self) {}
}

impl Transport for TcpStream {
    fn reset_on_drop(&self) {
        if let Err(error) = self.set_zero_linger() {
            tracing::debug!(%error, "SO_LINGER");
        }
    }
}

impl Transport for DuplexStream {}

/// A byte stream that is being made.
pub type Dialling<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Transport>>> + Send + 'a>>;

/// Makes the byte streams that connections run over, in the place of TCP: in memory, say, so that
/// sessions run in virtual time. TLS and the websocket come on top.
pub trait Dial: fmt::Debug + Send + Sync {
    /// A stream to the server of this URL.
    fn dial<'a>(&'a self, url: &'a ServerUrl) -> Dialling<'a>;
}

impl ServerUrl {
    /// The server's addresses. Resolve once and give them to every connection
    /// ([`ConnectOptions::addresses`](super::ConnectOptions::addresses)): a resolver is asked once
    /// and not 2,000 times.
    ///
    /// # Errors
    /// [`ConnectError::Dns`].
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        match self.literal_address() {
            Some(address) => Ok(vec![address]),
            None => lookup(&self.host_bare(), self.port()).await,
        }
    }
}

/// A host's addresses, in the resolver's order (RFC 6724).
pub(super) async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    let dns = |detail: String| ConnectError::Dns { host: host.to_owned(), detail };
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| dns(error.to_string()))?
        .collect();
    if addresses.is_empty() { Err(dns("it has no address".to_owned())) } else { Ok(addresses) }
}

/// A TCP connection to the first of these that answers.
pub(super) async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let stream = race(addresses, TcpStream::connect).await?;
    // Messages are small and answered at once; Nagle would add 40 ms to some.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Happy eyeballs (RFC 8305 §5): the families take turns, the next address is tried
/// [`ATTEMPT_DELAY`] after the one before, or as soon as one fails; the first that stands wins.
async fn race<T, F: Future<Output = io::Result<T>>>(
    addresses: &[SocketAddr],
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let connect = &connect;
    let mut waiting = interleaved(addresses).into_iter().take(ADDRESSES_MAX);
    let mut attempts = FuturesUnordered::new();
    let mut failed: Option<(bool, io::Error)> = None;
    loop {
        match waiting.next() {
            Some(address) => attempts.push(async move { (address, connect(address).await) }),
            None if attempts.is_empty() => break,
            None => {}
        }
        let more = waiting.len() > 0;
        tokio::select! {
            biased;
            Some((address, result)) = attempts.next() => match result {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    let telling = !is_without_route(address, &error);
                    if failed.as_ref().is_none_or(|(before, _)| telling || !before) {
                        failed = Some((telling, error));
                    }
                }
            },
            () = tokio::time::sleep(ATTEMPT_DELAY), if more => {}
        }
    }
    let none = || io::Error::new(io::ErrorKind::NotFound, "no address to connect to");
    Err(failed.map_or_else(none, |(_, error)| error))
}

/// One of each family in turn, beginning with that of the first; each family in its own order.
fn interleaved(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut own, mut other) = (Vec::new(), Vec::new());
    for address in addresses {
        let family = if address.is_ipv6() == first { &mut own } else { &mut other };
        if !family.contains(address) {
            family.push(*address);
        }
    }
    let mut all = Vec::with_capacity(addresses.len());
    let (mut own, mut other) = (own.into_iter(), other.into_iter());
    loop {
        let pair = (own.next(), other.next());
        all.extend(pair.0.into_iter().chain(pair.1));
        if pair == (None, None) {
            return all;
        }
    }
}

/// True if this says only that the machine has nothing of the address's family: what another
/// address said is worth more. Without IPv6, connecting to `::1` finds no local address.
fn is_without_route(address: SocketAddr, error: &io::Error) -> bool {
    match error.kind() {
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::Unsupported => true,
        io::ErrorKind::AddrNotAvailable => address.is_ipv6(),
        _ => false,
    }
}

/// Makes the proxy at the other end of `stream` connect us to the server (RFC 9110 §9.3.6).
pub(super) async fn tunnel(
    proxy: &Proxy,
    url: &ServerUrl,
    stream: &mut TcpStream,
) -> Result<(), ConnectError> {
    let broken =
        |detail: String| ConnectError::Proxy { proxy: proxy.authority(), status: None, detail };
    let target = url.authority();
    let agent = concat!("stampede/", env!("CARGO_PKG_VERSION"));
    let mut request =
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {agent}\r\n");
    if let Some(value) = proxy.authorization().and_then(|value| value.to_str().ok()) {
        request.push_str(&format!("Proxy-Authorization: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| broken(error.to_string()))?;
    let mut answer = Vec::new();
    let end = loop {
        if stream.read_buf(&mut answer).await.map_err(|error| broken(error.to_string()))? == 0 {
            return Err(broken("it closed the connection instead of answering CONNECT".to_owned()));
        }
        if let Some(at) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if answer.len() > PROXY_ANSWER_BYTES_MAX {
            return Err(broken(format!(
                "its answer to CONNECT has no end within {PROXY_ANSWER_BYTES_MAX} bytes"
            )));
        }
    };
    let head = String::from_utf8_lossy(&answer[..end]);
    let line = head.lines().next().unwrap_or_default();
    let mut words = line.splitn(3, ' ');
    let version = words.next().unwrap_or_default();
    let status: Option<u16> = words.next().and_then(|word| word.parse().ok());
    let detail = text::foreign(line, ERROR_BODY_CHARS_MAX);
    match status.filter(|_| version.starts_with("HTTP/")) {
        // In a tunnel we speak first, with TLS and without.
        Some(200..=299) if answer.len() == end => Ok(()),
        Some(200..=299) => Err(broken("it sent more than its answer to CONNECT".to_owned())),
        Some(status) => {
            Err(ConnectError::Proxy { proxy: proxy.authority(), status: Some(status), detail })
        }
        None => Err(broken(format!("it is no HTTP proxy, it answered {detail:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::Instant;

    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn refused() -> io::Error {
        io::ErrorKind::ConnectionRefused.into()
    }

    #[test]
    fn families_take_turns_in_the_resolvers_order() {
        let given =
            addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1", "[::1]:1", "1.0.0.2:1"]);
        let expected = ["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1", "[::3]:1"];
        assert_eq!(interleaved(&given), addresses(&expected));
        assert!(interleaved(&[]).is_empty());
    }

    /// Plays a race in which each address answers after so many ms, with or without success; says
    /// who was tried when, who won and when.
    async fn play(
        given: &[(&str, u64, bool)],
    ) -> (Vec<(SocketAddr, u128)>, io::Result<SocketAddr>, u128) {
        let began = Instant::now();
        let tried = RefCell::new(Vec::new());
        let list = addresses(&given.iter().map(|(text, ..)| *text).collect::<Vec<_>>());
        let result = race(&list, |address| {
            tried.borrow_mut().push((address, began.elapsed().as_millis()));
            let place = list.iter().position(|known| *known == address).unwrap();
            let (_, answers_ms, works) = given[place];
            async move {
                tokio::time::sleep(Duration::from_millis(answers_ms)).await;
                if works { Ok(address) } else { Err(refused()) }
            }
        })
        .await;
        (tried.into_inner(), result, began.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_costs_a_quarter_of_a_second() {
        let (silent, works) = (("[::1]:1", 60_000, false), ("1.0.0.1:1", 30, true));
        let (tried, winner, took) = play(&[silent, works]).await;
        let [silent, works] = [silent.0, works.0].map(|text| text.parse().unwrap());
        assert_eq!(tried, [(silent, 0), (works, 250)]);
        assert_eq!((winner.unwrap(), took), (works, 280));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_brings_the_next_at_once_and_a_late_first_may_still_win() {
        let (tried, winner, took) =
            play(&[("[::1]:1", 5, false), ("1.0.0.1:1", 9_000, true), ("[::2]:1", 300, true)])
                .await;
        assert_eq!(tried.iter().map(|(_, at)| *at).collect::<Vec<_>>(), [0, 5, 255]);
        assert_eq!((winner.unwrap(), took), ("[::2]:1".parse().unwrap(), 555));
        let (_, winner, took) = play(&[("[::1]:1", 400, true), ("1.0.0.1:1", 400, true)]).await;
        assert_eq!((winner.unwrap(), took), ("[::1]:1".parse().unwrap(), 400));
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_name_with_very_many_addresses_so_many_are_tried() {
        let list: Vec<_> = (0..=ADDRESSES_MAX as u8 + 1)
            .map(|number| SocketAddr::from(([10, 0, 0, number], 1)))
            .collect();
        let tried = RefCell::new(Vec::new());
        let refuse = async |address: SocketAddr| {
            tried.borrow_mut().push(address);
            Err::<(), _>(refused())
        };
        race(&list, refuse).await.unwrap_err();
        assert_eq!(tried.into_inner(), list[..ADDRESSES_MAX]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_error_is_of_an_address_that_could_be_tried() {
        let list = addresses(&["[::1]:1", "127.0.0.1:1", "[::2]:1"]);
        let error = race(&list, async |address: SocketAddr| match address {
            SocketAddr::V6(_) => Err::<(), _>(io::ErrorKind::AddrNotAvailable.into()),
            SocketAddr::V4(_) => Err(refused()),
        })
        .await
        .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let none = race(&[], async |_| Ok(())).await.unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::NotFound);
    }
}
