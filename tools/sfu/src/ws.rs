//! One client's WebSocket.

mod pace;

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use livekit_protocol as proto;
use livekit_token::Claims;
use proto::signal_response::Message;
use stampede_protobuf::Refusal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message as Frame};

use self::pace::{Pace, cost};
use crate::bounded::{self, BoundedError};
use crate::hub::outbox::{Hangup, OUTBOX_MESSAGES_MAX, Outbox, OutboxItem, SignalKey};
use crate::hub::{Caused, JoinRequest, UnknownParticipant, messages};
use crate::state::ServerState;

/// WebSocket pings (LiveKit `pkg/service/wsprotocol.go`, `pingFrequency`).
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// How long a client may say nothing, answers to pings included. Every client answers them while it
/// lives (RFC 6455 5.5.2), and SDKs themselves give up after 15 s in which they hear nothing.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How often a client gets a fresh token (LiveKit `pkg/service/roommanager.go`, 5 min).
const TOKEN_REFRESH_INTERVAL: Duration = Duration::from_secs(300);

/// How long a frame may take to leave for a client that does not read.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long all that is left to be said may take, until the client has closed too (LiveKit
/// `pkg/service/wsprotocol.go`, `closeWriteTimeout`).
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// What is read and thrown away of a client that is being told goodbye: the rest of a message that was
/// too large. If anything is left unread the kernel resets the connection, and the goodbye with it.
const FAREWELL_BYTES_MAX: u64 = 16 << 20;

/// Largest signalling message of a client (LiveKit `pkg/service/rtcservice.go`, 2 MiB).
const MESSAGE_BYTES_MAX: usize = 2 << 20;

/// Read buffer of a WebSocket; the library's default of 128 KiB is too much for thousands.
const READ_BUFFER_BYTES: usize = 4 << 10;

/// What a client wants.
pub(crate) enum Entry {
    /// A new participant.
    Join(JoinRequest),
    /// The participant that this token's identity has in its room, with a new websocket.
    Resume(Claims),
}

/// How a websocket ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The rooms want it.
    HungUp(Hangup),
    /// The connection is gone, or the client has closed it.
    Gone,
    /// Something is wrong.
    By(Fault),
}

impl Ended {
    /// What the client is told of it, if it is still there.
    fn goodbye(self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::HungUp(Hangup::Over) => (CloseCode::Normal, String::new()),
            Self::HungUp(Hangup::ServerEnds) => (CloseCode::Away, "the server ends".to_owned()),
            Self::By(fault) => (fault.code(), fault.to_string()),
            Self::Gone => return None,
        };
        Some(CloseFrame { code, reason: reason.into() })
    }
}

/// Why a websocket is closed that nobody wanted to end: all but the last are the client's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("not what RFC 6455 says")]
    Protocol,
    #[error("text that is not UTF-8")]
    Utf8,
    #[error("JSON signalling is not supported: send binary messages")]
    Json,
    #[error("not a SignalRequest")]
    Unreadable,
    #[error("a message is over 2 MiB")]
    TooLarge,
    #[error("messages are read too slowly")]
    TooSlow,
    #[error("pings are not answered")]
    Silent,
    #[error("the server failed")]
    Internal,
}

impl Fault {
    /// RFC 6455 7.4.1.
    fn code(self) -> CloseCode {
        match self {
            Self::Protocol => CloseCode::Protocol,
            Self::Json => CloseCode::Unsupported,
            Self::Utf8 | Self::Unreadable => CloseCode::Invalid,
            Self::TooLarge => CloseCode::Size,
            Self::TooSlow | Self::Silent => CloseCode::Policy,
            Self::Internal => CloseCode::Error,
        }
    }
}

/// What it means that nothing can be read any more.
fn read_failed(error: &WsError) -> Ended {
    match error {
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ended::Gone,
        WsError::Protocol(_) => Ended::By(Fault::Protocol),
        WsError::Capacity(_) => Ended::By(Fault::TooLarge),
        WsError::Utf8(_) => Ended::By(Fault::Utf8),
        _ => Ended::Gone,
    }
}

/// Lets the client in and serves it until either side ends it.
pub(crate) async fn run<S>(stream: S, state: ServerState, entry: Entry)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0);
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    state.stalled().await;
    let (queue, outgoing) = mpsc::channel(OUTBOX_MESSAGES_MAX);
    let overflow = Arc::new(Notify::new());
    let outbox = Outbox { queue, overflow: overflow.clone() };
    let mut connection = Connection { socket, outgoing, overflow };
    // What goes wrong here is one client's, who is told, and not forgotten among the participants.
    let entered = catch_unwind(AssertUnwindSafe(|| enter(&state, entry, outbox)));
    let (ended, refusal) = match entered {
        Ok(Ok(signal)) => {
            let served = AssertUnwindSafe(connection.serve(&state, signal)).catch_unwind().await;
            let ended = served.map_or(Ended::By(Fault::Internal), |Err(ended)| ended);
            let mut hub = state.hub();
            match ended {
                Ended::HungUp(_) => {}
                Ended::Gone => hub.signal_lost(signal),
                Ended::By(fault) => {
                    tracing::debug!(?signal, %fault, "websocket closed");
                    match fault {
                        Fault::TooSlow => hub.count_signalling_overflow(),
                        Fault::Silent => hub.count_signalling_timeout(),
                        _ => {}
                    }
                    hub.signal_lost(signal);
                }
            }
            (ended, None)
        }
        Ok(Err(reason)) => {
            let leave = messages::frame(Message::Leave(messages::leave(reason)));
            (Ended::HungUp(Hangup::Over), Some(leave))
        }
        Err(_) => (Ended::By(Fault::Internal), None),
    };
    // Who is gone by now needs no goodbye.
    let _ = timeout(FAREWELL_TIMEOUT, connection.farewell(ended, refusal)).await;
}

fn enter(
    state: &ServerState,
    entry: Entry,
    outbox: Outbox,
) -> Result<SignalKey, proto::DisconnectReason> {
    match entry {
        Entry::Join(request) => state.hub().join(request, outbox),
        // LiveKit's answer (`pkg/service/roommanager.go`, `StartSession`).
        Entry::Resume(claims) => state
            .hub()
            .resume(&claims, outbox)
            .map_err(|UnknownParticipant| proto::DisconnectReason::StateMismatch),
    }
}

/// A client's websocket and what is to be sent by it.
struct Connection<S> {
    socket: WebSocketStream<S>,
    outgoing: mpsc::Receiver<OutboxItem>,
    /// Told when `outgoing` was full.
    overflow: Arc<Notify>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Carries messages both ways until something ends it, which is the error.
    async fn serve(&mut self, state: &ServerState, signal: SignalKey) -> Result<Infallible, Ended> {
        let start = Instant::now();
        let mut ping = interval_at(start + PING_INTERVAL, PING_INTERVAL);
        let mut refresh = interval_at(start, TOKEN_REFRESH_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard_at = start;
        let mut pace = Pace::new();
        let mut delayed = false;
        loop {
            state.stalled().await;
            let waits_until = pace.waits_until(state.hub().offers_wait(signal), Instant::now());
            if !std::mem::replace(&mut delayed, waits_until.is_some()) && delayed {
                state.hub().count_delayed_requests();
            }
            tokio::select! {
                biased;
                () = self.overflow.notified() => return Err(Ended::By(Fault::TooSlow)),
                next = self.outgoing.recv() => match next {
                    Some(OutboxItem::Frame(frame)) => self.send(Frame::Binary(frame)).await?,
                    Some(OutboxItem::FreshToken) => self.send_token(state, signal).await?,
                    Some(OutboxItem::Close(why)) => return Err(Ended::HungUp(why)),
                    None => return Err(Ended::HungUp(Hangup::Over)),
                },
                () = sleep_until(waits_until.unwrap_or(start)), if waits_until.is_some() => {
                    heard_at = Instant::now();
                }
                frame = self.socket.next(), if waits_until.is_none() => {
                    heard_at = Instant::now();
                    let mut cost = 1;
                    match frame {
                        Some(Ok(Frame::Binary(frame))) => match handle(state, signal, &frame)? {
                            Some(asked) => cost = asked,
                            None => return Err(Ended::HungUp(Hangup::Over)),
                        },
                        Some(Ok(Frame::Text(_))) => return Err(Ended::By(Fault::Json)),
                        Some(Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_))) => {}
                        Some(Err(error)) => return Err(read_failed(&error)),
                        Some(Ok(Frame::Close(_))) | None => return Err(Ended::Gone),
                    }
                    pace.read(cost, heard_at);
                    // What others were told waits in their queues, which are short.
                    tokio::task::yield_now().await;
                }
                _ = ping.tick() => {
                    if heard_at.elapsed() >= SILENCE_MAX {
                        return Err(Ended::By(Fault::Silent));
                    }
                    self.send(Frame::Ping(Bytes::new())).await?;
                }
                _ = refresh.tick() => self.send_token(state, signal).await?,
            }
        }
    }

    /// A fresh token for what the participant may do now: it may have been moved to another room.
    async fn send_token(&mut self, state: &ServerState, signal: SignalKey) -> Result<(), Ended> {
        let claims = state.hub().claims(signal).cloned();
        match claims.and_then(|claims| state.auth().refreshed(&claims)) {
            Some(token) => {
                let frame = messages::frame(Message::RefreshToken(token));
                self.send(Frame::Binary(frame)).await
            }
            None => Ok(()),
        }
    }

    /// Sends one frame; whoever does not take it in time, or has too much waiting behind it, reads too
    /// slowly.
    async fn send(&mut self, frame: Frame) -> Result<(), Ended> {
        tokio::select! {
            biased;
            () = self.overflow.notified() => Err(Ended::By(Fault::TooSlow)),
            sent = timeout(SEND_TIMEOUT, self.socket.send(frame)) => match sent {
                Ok(sent) => sent.map_err(|_| Ended::Gone),
                Err(_) => Err(Ended::By(Fault::TooSlow)),
            },
        }
    }

    /// Says what is left to be said, a leave message above all, and why the websocket is closed; then waits
    /// until the client has closed it too.
    async fn farewell(&mut self, mut ended: Ended, refusal: Option<Bytes>) -> Result<(), WsError> {
        while let Ok(item) = self.outgoing.try_recv() {
            match item {
                // Who does not read is not sent more.
                OutboxItem::Frame(frame) if ended != Ended::By(Fault::TooSlow) => {
                    self.socket.send(Frame::Binary(frame)).await?;
                }
                OutboxItem::Close(why) if matches!(ended, Ended::HungUp(_)) => {
                    ended = Ended::HungUp(why);
                }
                _ => {}
            }
        }
        if let Some(leave) = refusal {
            self.socket.send(Frame::Binary(leave)).await?;
        }
        let Some(close) = ended.goodbye() else {
            // The answer to its own close frame.
            return self.socket.flush().await;
        };
        self.socket.send(Frame::Close(Some(close))).await?;
        let stream = self.socket.get_mut();
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(FAREWELL_BYTES_MAX), &mut tokio::io::sink()).await?;
        Ok(())
    }
}

/// What a request costs; `None` if the websocket is no longer a participant's. A request of a kind that is not known here is ignored, one
/// that holds too much is refused, and one that can't be read ends the websocket, as with LiveKit
/// (`pkg/service/rtcservice.go`).
fn handle(state: &ServerState, signal: SignalKey, frame: &[u8]) -> Result<Option<u32>, Ended> {
    match bounded::request(frame) {
        Ok(Some(message)) => {
            let mut hub = state.hub();
            let before = hub.caused(signal);
            let goes_on = hub.request(signal, message);
            let caused = hub.caused(signal).since(before);
            Ok(goes_on.then(|| cost(frame.len(), caused)))
        }
        Ok(None) => Ok(Some(cost(frame.len(), Caused::default()))),
        Err(error) => {
            state.hub().refuse_request(signal, &error);
            match error {
                BoundedError::Refused(Refusal::TooMany { .. }) => {
                    Ok(Some(cost(frame.len(), Caused::default())))
                }
                _ => Err(Ended::By(Fault::Unreadable)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
