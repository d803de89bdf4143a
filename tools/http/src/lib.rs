//! HTTP servers that strangers may reach.
//!
//! A connection costs a file descriptor and a few kilobytes before anybody is known to be behind it. So each
//! has to come to the point: its headers within [`HEADER_TIMEOUT`], everything within [`LIFE_MAX`]. And
//! those that have not may only be so many ([`Limits`]). Where a newcomer finds no room, the one that has
//! waited for longest makes room, of the source that has most; it has [`GRACE`] before. So who holds
//! connections open for nothing loses them to whoever needs them, and a burst of clients that do say what
//! they want loses none: it is let in as fast as they say it. A connection that became a websocket is
//! its handler's, and is not counted here any more.
//!
//! hyper speaks HTTP, axum routes it; what is here is whom they are given.

#![forbid(unsafe_code)]

mod bucket;
mod gate;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

pub use self::bucket::TokenBucket;
pub use self::gate::source;
use self::gate::{Gate, Room};

/// How long the headers of a request may take, the first of a connection and the next of one that is kept.
/// It is counted from the moment at which nothing else is to be done for it. Where thousands of participants
/// join at once on a machine that is busy with them, they connect many seconds before they say anything;
/// after 30 s they give up themselves.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection is spoken HTTP on. Then an answer that is under way has [`LAST_ANSWER_TIMEOUT`]
/// to leave, which ends bodies that do not come and clients that do not read.
pub const LIFE_MAX: Duration = Duration::from_secs(60);

/// How long the last answer of a connection may take.
pub const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests that a connection may make a second, and so many at once. What goes beyond is read later.
pub const REQUESTS_PER_S: u32 = 1_000;
/// Requests that a connection may make at once.
pub const REQUESTS_BURST: u32 = 5_000;

/// How long nobody is displaced for.
pub const GRACE: Duration = Duration::from_secs(1);

/// How long nobody is accepted after the system refused to.
pub const BACK_OFF: Duration = Duration::from_millis(100);

/// File descriptors that connections leave to everything else. One that is upgraded keeps its own.
const DESCRIPTORS_RESERVED: usize = 64;

/// Headers, and what waits to be written, of one connection.
const BUFFER_BYTES_MAX: usize = 128 << 10;

/// How many connections at a time may be spoken HTTP on. Those that were upgraded are no longer counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub connections_max: usize,
    /// From one [`source`].
    pub source_connections_max: usize,
}

impl Limits {
    /// These, but no more than this process may have files open, less `DESCRIPTORS_RESERVED`, or half of
    /// them if there are few.
    #[must_use]
    pub fn within_descriptors(self) -> Self {
        self.within(getrlimit(Resource::Nofile).current)
    }

    fn within(self, descriptors_max: Option<u64>) -> Self {
        let free = descriptors_max.map_or(usize::MAX, |max| {
            let max = usize::try_from(max).unwrap_or(usize::MAX);
            max - (max / 2).min(DESCRIPTORS_RESERVED)
        });
        let connections_max = self.connections_max.min(free).max(1);
        // A share of what there is, as it was asked for.
        let share = self.source_connections_max.saturating_mul(connections_max);
        let source_connections_max = (share / self.connections_max.max(1)).max(1);
        Self { connections_max, source_connections_max }
    }
}

/// What a server tells of itself.
#[derive(Debug)]
pub enum Event {
    /// A connection was closed because a request, or the reading of its answer, took too long; one that
    /// was kept for another request that did not come is one of them.
    TimedOut,
    /// A connection was closed because there was no room for a newcomer.
    Displaced,
    /// The system lets nobody in; it is asked again each [`BACK_OFF`]. Told once a server, however
    /// often it happens.
    Refused(io::Error),
}

/// Serves HTTP/1.1 until the future is dropped, with all connections but upgraded ones. `told` hears what
/// becomes of connections.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    told: impl FnMut(Event),
) -> Infallible {
    run(listener, router, limits, told).await
}

/// Where connections come from.
trait Accept {
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next one, and who is at its other end. Nothing is lost if the future is dropped.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, IpAddr)>> + Send;
}

impl Accept for TcpListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, IpAddr)> {
        let (stream, address) = TcpListener::accept(self).await?;
        // Small messages that are waited for. A connection that is gone already says so when it is read.
        let _ = stream.set_nodelay(true);
        Ok((stream, address.ip()))
    }
}

async fn run<A: Accept>(
    mut listener: A,
    router: Router,
    limits: Limits,
    mut told: impl FnMut(Event),
) -> Infallible {
    let mut gate = Gate::new(limits);
    let mut connections = JoinSet::new();
    let mut newcomer: Option<(A::Io, IpAddr)> = None;
    let mut refused_until: Option<Instant> = None;
    let mut was_refused = false;
    loop {
        while let Some(ended) = connections.try_join_next_with_id() {
            leave(&mut gate, ended, &mut told);
        }
        let now = Instant::now();
        let waits_until = match newcomer.take() {
            None => refused_until.filter(|until| *until > now),
            Some((io, source)) => match gate.room(source, now) {
                Room::Free => {
                    let task = connections.spawn(connection(io, router.clone()));
                    gate.enter(source, now, task);
                    continue;
                }
                Room::Of(oldest) => {
                    gate.displace(oldest);
                    told(Event::Displaced);
                    newcomer = Some((io, source));
                    continue;
                }
                Room::At(when) => {
                    newcomer = Some((io, source));
                    Some(when)
                }
            },
        };
        tokio::select! {
            Some(ended) = connections.join_next_with_id() => leave(&mut gate, ended, &mut told),
            () = sleep_until(waits_until.unwrap_or(now)), if waits_until.is_some() => {}
            accepted = listener.accept(), if waits_until.is_none() => match accepted {
                Ok(accepted) => newcomer = Some(accepted),
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    let now = Instant::now();
                    // Out of descriptors: what is held for nothing can be had back.
                    if let Some(oldest) = gate.displaceable(now) {
                        gate.displace(oldest);
                        told(Event::Displaced);
                    }
                    refused_until = Some(now + BACK_OFF);
                    if !std::mem::replace(&mut was_refused, true) {
                        told(Event::Refused(error));
                    }
                }
            },
        }
    }
}

/// What [`connection`] came to.
type Ended = Result<(Id, bool), JoinError>;

fn leave(gate: &mut Gate, ended: Ended, told: &mut impl FnMut(Event)) {
    match ended {
        Ok((task, timed_out)) => {
            gate.leave(task);
            if timed_out {
                told(Event::TimedOut);
            }
        }
        // It was displaced, or its handler panicked.
        Err(error) => gate.leave(error.id()),
    }
}

/// It is the one connection's that would have been next, not the system's (accept(2)).
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Speaks HTTP on a connection until it ends or is upgraded. Whether it ended because something took too
/// long.
async fn connection(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    router: Router,
) -> bool {
    let router = TowerToHyperService::new(router);
    let bucket = Mutex::new(TokenBucket::new(REQUESTS_PER_S, REQUESTS_BURST));
    // The next request of a connection is read when this one is answered.
    let service = service_fn(move |request: Request<Incoming>| {
        let now = Instant::now();
        let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let waits_until = bucket.waits_until(now);
        bucket.take(1, now);
        let answer = router.clone();
        async move {
            if let Some(until) = waits_until {
                sleep_until(until).await;
            }
            answer.call(request).await
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    if let Ok(ended) = timeout(LIFE_MAX, connection.as_mut()).await {
        return ended.is_err_and(|error| error.is_timeout());
    }
    connection.as_mut().graceful_shutdown();
    timeout(LAST_ANSWER_TIMEOUT, connection).await.is_err()
}
