//! A websocket to a LiveKit server, driving one [`Session`].
//!
//! Made for thousands on one tokio thread: no task, one sleep, a 1 KiB read buffer; messages are
//! decoded from the buffer they were read into.

mod dial;
mod error;
mod framing;
mod open;
mod tls;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::{Sink, Stream};
use livekit_protocol as proto;
use prost::Message as _;
use prost::bytes::Bytes;
use tokio::time::Sleep;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::Role as WsRole;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

pub use crate::session::flood::MESSAGE_BYTES_MAX;
pub use dial::{Dial, Dialling, Transport};
pub use error::{ConnectError, ConnectStep, ERROR_BODY_CHARS_MAX};
pub(crate) use open::LOCAL_ERRORS;
pub use open::PROTOCOL;
pub use tls::{TlsSetup, TlsSetupError};

use crate::proxy::Proxy;
use crate::server_url::ServerUrl;
use crate::session::{
    EndReason, Flood, MediaCommand, MediaInput, Output, Role, Session, SessionEvent,
    SessionOptions, Simulation, Target,
};
use crate::text;
use crate::token::Token;
use open::{Resume, Socket, now};

/// tungstenite logs the whole handshake, with the token, at `log`'s trace level. That level is
/// compiled out of the `log` crate by a feature of our dependency on it; this line holds it there.
const _: () = assert!(log::STATIC_MAX_LEVEL as usize <= log::LevelFilter::Debug as usize);

/// Most encoded messages waiting for the socket. At it the session ends with
/// [`EndReason::OutboundFull`]: a server that does not read has failed.
pub const OUTBOUND_MESSAGES_MAX: usize = 256;

/// What stands for a close code where there is none (RFC 6455 §7.1.5).
const CLOSED_WITHOUT_CODE: u16 = 1005;
const CLOSED_WITHOUT_FRAME: u16 = 1006;

/// A websocket that has read or written a message above this is begun anew, see
/// [`Connection::renew`].
const LARGE_MESSAGE_BYTES: usize = open::READ_BUFFER_BYTES / 2;

/// Longest wait for the TCP, TLS and websocket handshakes together unless told otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a connection needs.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The server.
    pub url: ServerUrl,
    /// Its addresses, or those of `proxy` if there is one, if already resolved
    /// ([`ServerUrl::resolve`]). The first that answers is taken (RFC 8305).
    pub addresses: Option<Arc<[SocketAddr]>>,
    /// The proxy to go through ([`Proxies::of`](crate::proxy::Proxies::of)).
    pub proxy: Option<Proxy>,
    /// What makes the byte streams; `None` for TCP to `addresses`.
    pub dial: Option<Arc<dyn Dial>>,
    /// The join token.
    pub token: Token,
    /// TLS for `wss://`; shared by all connections.
    pub tls: TlsSetup,
    /// Limit for opening the websocket.
    pub connect_timeout: Duration,
    /// Longest message taken of the server; at most
    /// [`BYTES_BURST_MAX`](crate::session::flood::BYTES_BURST_MAX).
    pub message_bytes_max: usize,
    /// What to do in the room.
    pub session: SessionOptions,
}

impl ConnectOptions {
    /// Options with the usual limits.
    #[must_use]
    pub fn new(url: ServerUrl, token: Token, role: Role, tls: TlsSetup) -> Self {
        Self {
            url,
            addresses: None,
            proxy: None,
            dial: None,
            token,
            tls,
            connect_timeout: CONNECT_TIMEOUT,
            message_bytes_max: MESSAGE_BYTES_MAX,
            session: SessionOptions::new(role),
        }
    }
}

/// What [`Connection::next`] gives out.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// Do this with the media plane.
    Media(MediaCommand),
    /// This happened.
    Event(SessionEvent),
}

/// When each step of opening the websocket was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectTimings {
    /// `connect` was called.
    pub started: Instant,
    /// The TCP connection stood.
    pub tcp: Instant,
    /// TLS stood; `None` for `ws://`.
    pub tls: Option<Instant>,
    /// The server answered 101.
    pub websocket: Instant,
}

/// An open signalling connection.
///
/// Dropping it closes the socket without a `leave`; the server then keeps the participant until
/// its ICE has died. Use [`leave`](Self::leave).
pub struct Connection {
    /// `None` while another one is dialled.
    socket: Option<Socket>,
    session: Session,
    timings: ConnectTimings,
    message_bytes_max: usize,
    /// At most [`OUTBOUND_MESSAGES_MAX`].
    outbound: VecDeque<Bytes>,
    /// Filled by one message or one call at a time, and handed out before the next is read.
    updates: VecDeque<Update>,
    needs_flush: bool,
    /// Set when the socket gave an error or its end.
    socket_done: bool,
    /// Its buffers are larger than what mostly comes has use for.
    grown: bool,
    sleep: Pin<Box<Sleep>>,
    sleep_until: Option<Instant>,
    /// Nothing is read or written before; see [`Self::stall_until`].
    stalled_until: Option<Instant>,
}

impl Connection {
    /// Opens the websocket. The join itself is reported by [`next`](Self::next).
    ///
    /// # Errors
    /// [`ConnectError`]; its `kind()` is what reports count by.
    pub async fn connect(options: ConnectOptions) -> Result<Self, ConnectError> {
        let (socket, timings) = open::open(&options, None).await?;
        tracing::debug!(url = %options.url, "websocket open");
        Ok(Self {
            socket: Some(socket),
            session: Session::new(options.session, timings.websocket),
            timings,
            message_bytes_max: options.message_bytes_max,
            outbound: VecDeque::new(),
            updates: VecDeque::new(),
            needs_flush: false,
            socket_done: false,
            grown: true,
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            sleep_until: None,
            stalled_until: None,
        })
    }

    /// Opens a new websocket for a session that has ended with
    /// [`WayBack::Resume`](crate::session::WayBack::Resume) and
    /// [can be taken up again](Session::can_resume): goes on with [`next`](Self::next), whose first
    /// word is [`SessionEvent::Resumed`] or another end. The old websocket is closed before the new
    /// one is dialled, so that there are never two.
    ///
    /// # Errors
    /// [`ConnectError`]; the session stays ended and may be tried again.
    pub async fn resume(
        &mut self,
        options: &ConnectOptions,
        why: &EndReason,
    ) -> Result<(), ConnectError> {
        self.hang_up();
        let reason = reconnect_reason(why, self.session.own_target());
        let resume = Resume { sid: self.session.participant_sid(), reason };
        let (socket, timings) = open::open(options, Some(resume)).await?;
        tracing::debug!(url = %options.url, "websocket open again");
        self.socket = Some(socket);
        self.message_bytes_max = options.message_bytes_max;
        (self.socket_done, self.grown) = (false, true);
        self.session.resume(timings.websocket);
        Ok(())
    }

    /// Gives up the websocket, and what waits to be sent over it.
    fn hang_up(&mut self) {
        (self.socket, self.socket_done) = (None, true);
        self.stalled_until = None;
        self.outbound.clear();
        self.needs_flush = false;
    }

    /// Resets the TCP connection on purpose, as a failing network or proxy would: the server is told
    /// nothing, and [`next`](Self::next) the end of a session that can be resumed.
    pub fn reset(&mut self) {
        if let Some(socket) = &self.socket {
            open::reset_on_drop(socket);
        }
        self.lose("reset on purpose");
    }

    /// Goes without the websocket from here on: the way to it is not there any more.
    pub fn lose(&mut self, why: &str) {
        self.hang_up();
        let detail = why.to_owned();
        self.session.handle_transport_end(EndReason::ConnectionLost { detail });
        self.pump();
    }

    /// Reads and writes nothing until then, as if nothing came through; what the session does by
    /// time goes on.
    pub fn stall_until(&mut self, at: Instant) {
        self.stalled_until = Some(at);
    }

    /// See [`Session::simulate`].
    pub fn simulate(&mut self, scenario: Simulation) {
        self.session.simulate(scenario);
        self.pump();
    }

    /// See [`Session::update_attribute`].
    pub fn update_attribute(&mut self, number: u32) {
        self.session.update_attribute(number);
        self.pump();
    }

    /// When the steps of connecting were done.
    #[must_use]
    pub fn timings(&self) -> ConnectTimings {
        self.timings
    }

    /// The session, for its counters and token.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The next update; `None` after [`SessionEvent::Ended`] was given out. Cancel-safe.
    pub async fn next(&mut self) -> Option<Update> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The media plane's part. What is to be sent goes out with the next call of
    /// [`next`](Self::next).
    pub fn media(&mut self, input: MediaInput) {
        self.session.handle_media(input);
        self.pump();
    }

    /// See [`Session::subscribe`].
    pub fn subscribe(&mut self, track_sids: Vec<String>, subscribe: bool) {
        self.session.subscribe(track_sids, subscribe);
        self.pump();
    }

    /// See [`Session::set_quality`].
    pub fn set_quality(&mut self, track_sids: Vec<String>, quality: crate::session::Quality) {
        self.session.set_quality(track_sids, quality);
        self.pump();
    }

    /// Sends `leave` and a close frame, then waits for the server to close, all within `limit`.
    /// True if the server closed in time. Waiting matters: a socket closed with unread input is
    /// reset, and a reset can overtake the `leave`.
    pub async fn leave(&mut self, limit: Duration) -> bool {
        self.stalled_until = None;
        self.session.leave();
        self.pump();
        tokio::time::timeout(limit, poll_fn(|cx| self.poll_drain(cx))).await.unwrap_or(false)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Update>> {
        loop {
            let stalled = self.is_stalled();
            if !stalled {
                self.write(cx);
            }
            if let Some(update) = self.updates.pop_front() {
                return Poll::Ready(Some(update));
            }
            if self.session.is_ended() {
                return Poll::Ready(None);
            }
            let read = !stalled && self.read(cx).is_ready();
            let progress = read || self.tick(cx).is_ready();
            if !progress {
                return Poll::Pending;
            }
            self.pump();
        }
    }

    /// True until [`Self::stall_until`] is over.
    fn is_stalled(&mut self) -> bool {
        self.stalled_until = self.stalled_until.filter(|at| now() < *at);
        self.stalled_until.is_some()
    }

    /// Moves what the session put out to where it goes.
    fn pump(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Media(command) => self.updates.push_back(Update::Media(command)),
                Output::Event(event) => self.updates.push_back(Update::Event(event)),
                Output::Send(_) if self.socket_done => {}
                Output::Send(request) => {
                    if self.outbound.len() >= OUTBOUND_MESSAGES_MAX {
                        self.session.handle_transport_end(EndReason::OutboundFull);
                    } else {
                        self.outbound.push_back(request.encode_to_vec().into());
                    }
                }
            }
        }
    }

    /// Writes as much as the socket takes.
    fn write(&mut self, cx: &mut Context<'_>) {
        if let Err(error) = self.try_write(cx) {
            self.socket_failed(&error);
        }
    }

    fn try_write(&mut self, cx: &mut Context<'_>) -> Result<(), WsError> {
        let Some(socket) = self.socket.as_mut().filter(|_| !self.socket_done) else {
            return Ok(());
        };
        while !self.outbound.is_empty() {
            match Pin::new(&mut *socket).poll_ready(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(result) => result?,
            }
            if let Some(bytes) = self.outbound.pop_front() {
                self.needs_flush = true;
                self.grown |= bytes.len() > LARGE_MESSAGE_BYTES;
                Pin::new(&mut *socket).start_send(Message::Binary(bytes))?;
            }
        }
        if self.needs_flush {
            match Pin::new(socket).poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(result) => {
                    self.needs_flush = false;
                    result?;
                }
            }
        }
        Ok(())
    }

    /// Reads one message into the session. Pending if there is none.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(socket) = self.socket.as_mut().filter(|_| !self.socket_done) else {
            return Poll::Pending;
        };
        let Poll::Ready(item) = Pin::new(socket).poll_next(cx) else {
            // What a join made of it is not needed again.
            self.updates.shrink_to_fit();
            // The new one has to be told who waits for it.
            return if self.renew(cx) { self.read(cx) } else { Poll::Pending };
        };
        match item {
            Some(Ok(Message::Binary(bytes))) => {
                self.session.handle_message(now(), &bytes);
                self.grown |= bytes.len() > LARGE_MESSAGE_BYTES;
            }
            // The server answers in JSON only to clients that speak it.
            Some(Ok(message @ (Message::Text(_) | Message::Frame(_)))) => {
                self.session.handle_malformed(now(), message.len());
                self.grown |= message.len() > LARGE_MESSAGE_BYTES;
            }
            // tungstenite has queued the pong.
            Some(Ok(Message::Ping(_))) => self.needs_flush = true,
            Some(Ok(Message::Pong(_))) => {}
            Some(Ok(Message::Close(frame))) => {
                self.needs_flush = true;
                let (code, text) = match frame {
                    Some(frame) => (
                        frame.code.into(),
                        text::foreign(frame.reason.as_str(), ERROR_BODY_CHARS_MAX),
                    ),
                    None => (CLOSED_WITHOUT_CODE, String::new()),
                };
                self.session.handle_transport_end(EndReason::Closed { code, text });
            }
            Some(Err(error)) => self.socket_failed(&error),
            None => self.socket_failed(&WsError::ConnectionClosed),
        }
        // Of a flood not even a farewell is waited for: that would be reading on.
        self.socket_done |= self.session.is_flooded();
        Poll::Ready(())
    }

    /// Begins the websocket anew if it has grown and nothing is under way; true if it did.
    ///
    /// A websocket's buffers stay as large as the largest message was, and those of a join have ten
    /// kilobytes.
    fn renew(&mut self, cx: &mut Context<'_>) -> bool {
        let idle = |socket: &Socket| socket.get_ref().is_between_messages();
        let sent = self.outbound.is_empty() && !self.needs_flush;
        if !self.grown
            || !sent
            || self.session.is_ended()
            || !self.socket.as_ref().is_some_and(idle)
        {
            return false;
        }
        self.grown = false;
        let Some(socket) = self.socket.take() else { return false };
        let stream = socket.into_inner();
        let limits = open::limits(self.message_bytes_max);
        let anew = WebSocketStream::from_raw_socket(stream, WsRole::Client, Some(limits));
        // It waits for nothing.
        if let Poll::Ready(socket) = pin!(anew).poll(cx) {
            self.socket = Some(socket);
        }
        true
    }

    fn socket_failed(&mut self, error: &WsError) {
        self.socket_done = true;
        self.outbound.clear();
        let reason = match error {
            WsError::ConnectionClosed
            | WsError::AlreadyClosed
            | WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                EndReason::Closed { code: CLOSED_WITHOUT_FRAME, text: String::new() }
            }
            WsError::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
                let flood = Flood::Message { bytes: *size, most: *max_size };
                EndReason::ServerFlooded { flood }
            }
            WsError::WriteBufferFull(_) => EndReason::OutboundFull,
            error => {
                let detail = text::foreign(&error.to_string(), ERROR_BODY_CHARS_MAX);
                EndReason::ConnectionLost { detail }
            }
        };
        self.session.handle_transport_end(reason);
        self.pump();
    }

    /// Ready if the session's time has come. The sleep is only moved when it would ring too late:
    /// ringing early is harmless, and a pong need not touch the timer.
    fn tick(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timeout = self.session.next_timeout();
        let Some(wanted) = [timeout, self.stalled_until].into_iter().flatten().min() else {
            return Poll::Pending;
        };
        if self.sleep_until.is_none_or(|until| wanted < until) {
            self.sleep.as_mut().reset(wanted.into());
            self.sleep_until = Some(wanted);
        }
        if self.sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.sleep_until = None;
        self.session.handle_timeout(now());
        Poll::Ready(())
    }

    /// Writes everything, closes, and reads until the server has closed too.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.write(cx);
        let written = self.outbound.is_empty() && !self.needs_flush;
        let Some(socket) = self.socket.as_mut().filter(|_| !self.socket_done) else {
            return Poll::Ready(true);
        };
        // Idempotent: queues one close frame.
        if written && let Poll::Ready(Err(error)) = Pin::new(&mut *socket).poll_close(cx) {
            self.socket_failed(&error);
            return Poll::Ready(true);
        }
        loop {
            match Pin::new(&mut *socket).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => break,
            }
        }
        self.socket_done = true;
        Poll::Ready(true)
    }
}

/// Why we resume, as the server is told (livekit_models.proto `ReconnectReason`).
fn reconnect_reason(why: &EndReason, own: Target) -> proto::ReconnectReason {
    match why {
        EndReason::Closed { .. }
        | EndReason::ConnectionLost { .. }
        | EndReason::OutboundFull
        | EndReason::PingTimeout => proto::ReconnectReason::RrSignalDisconnected,
        EndReason::MediaLost { .. } => match own {
            Target::Publisher => proto::ReconnectReason::RrPublisherFailed,
            Target::Subscriber => proto::ReconnectReason::RrSubscriberFailed,
        },
        _ => proto::ReconnectReason::RrUnknown,
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("joined", &self.session.is_joined())
            .field("ended", &self.session.is_ended())
            .field("outbound", &self.outbound.len())
            .finish_non_exhaustive()
    }
}
