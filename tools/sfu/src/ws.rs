//! One client's WebSocket.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket, close_code};
use livekit_protocol as proto;
use livekit_token::Claims;
use proto::signal_response::Message;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::bounded;
use crate::hub::outbox::{OUTBOX_MESSAGES_MAX, Outbox, OutboxItem, SignalKey};
use crate::hub::{JoinRequest, UnknownParticipant, messages};
use crate::state::ServerState;

/// WebSocket pings (LiveKit `pkg/service/rtcservice.go`, 10 s).
const WEBSOCKET_PING_INTERVAL: Duration = Duration::from_secs(10);

/// How often a client gets a fresh token (LiveKit `pkg/service/roommanager.go`, 5 min).
const TOKEN_REFRESH_INTERVAL: Duration = Duration::from_secs(300);

/// How long a frame may take to leave for a client that does not read.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// What a client wants.
pub(crate) enum Entry {
    /// A new participant.
    Join(JoinRequest),
    /// The participant that this token's identity has in its room, with a new websocket.
    Resume(Claims),
}

/// Lets the client in and serves it until either side ends it.
pub(crate) async fn run(mut socket: WebSocket, state: ServerState, entry: Entry) {
    state.stalled().await;
    let (queue, mut outgoing) = mpsc::channel(OUTBOX_MESSAGES_MAX);
    let overflow = Arc::new(Notify::new());
    let outbox = Outbox { queue, overflow: overflow.clone() };
    let entered = match entry {
        Entry::Join(request) => state.hub().join(request, outbox),
        // LiveKit's answer (`pkg/service/roommanager.go`, `StartSession`).
        Entry::Resume(claims) => state
            .hub()
            .resume(&claims, outbox)
            .map_err(|UnknownParticipant| proto::DisconnectReason::StateMismatch),
    };
    match entered {
        Ok(signal) => {
            let ended = serve(&mut socket, &state, signal, &mut outgoing, &overflow).await;
            if let Ended::Lost = ended {
                state.hub().signal_lost(signal);
            }
        }
        Err(reason) => {
            let leave = Message::Leave(messages::leave(reason));
            // A client that is gone already needs no answer.
            let _ = send(&mut socket, Frame::Binary(messages::frame(leave))).await;
        }
    }
    // What was said last, a leave message above all, still goes out.
    while let Ok(OutboxItem::Frame(frame)) = outgoing.try_recv() {
        if send(&mut socket, Frame::Binary(frame)).await.is_err() {
            return;
        }
    }
    let _ = send(&mut socket, goodbye()).await;
}

enum Ended {
    /// The rooms know.
    Known,
    /// The connection is gone without a word.
    Lost,
}

async fn serve(
    socket: &mut WebSocket,
    state: &ServerState,
    signal: SignalKey,
    outgoing: &mut mpsc::Receiver<OutboxItem>,
    overflow: &Notify,
) -> Ended {
    let start = Instant::now();
    let mut ping = interval_at(start + WEBSOCKET_PING_INTERVAL, WEBSOCKET_PING_INTERVAL);
    let mut refresh = interval_at(start, TOKEN_REFRESH_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        state.stalled().await;
        tokio::select! {
            biased;
            () = overflow.notified() => {
                state.hub().count_signalling_overflow();
                return Ended::Lost;
            }
            next = outgoing.recv() => match next {
                Some(OutboxItem::Frame(frame)) => {
                    if send(socket, Frame::Binary(frame)).await.is_err() {
                        return Ended::Lost;
                    }
                }
                Some(OutboxItem::Close) | None => return Ended::Known,
            },
            frame = socket.recv() => match frame {
                Some(Ok(Frame::Binary(frame))) => {
                    if !handle(state, signal, &frame) {
                        return Ended::Known;
                    }
                }
                Some(Ok(Frame::Text(_))) => {
                    tracing::debug!(?signal, "JSON signalling is not supported");
                    return Ended::Lost;
                }
                Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => {}
                Some(Ok(Frame::Close(_)) | Err(_)) | None => return Ended::Lost,
            },
            _ = ping.tick() => {
                if send(socket, Frame::Ping(Default::default())).await.is_err() {
                    return Ended::Lost;
                }
            }
            _ = refresh.tick() => {
                // Of the hub: a participant may have been moved to another room.
                let claims = state.hub().claims(signal).cloned();
                let token = claims.and_then(|claims| state.auth().refreshed(&claims));
                if let Some(token) = token {
                    let frame = messages::frame(Message::RefreshToken(token));
                    if send(socket, Frame::Binary(frame)).await.is_err() {
                        return Ended::Lost;
                    }
                }
            }
        }
    }
}

/// Whether the websocket is still a participant's. A frame that is no request is refused.
fn handle(state: &ServerState, signal: SignalKey, frame: &[u8]) -> bool {
    match bounded::request(frame) {
        Ok(Some(message)) => state.hub().request(signal, message),
        Ok(None) => true,
        Err(error) => {
            state.hub().refuse_request(signal, &error);
            true
        }
    }
}

fn goodbye() -> Frame {
    Frame::Close(Some(CloseFrame { code: close_code::NORMAL, reason: "".into() }))
}

struct SendFailed;

async fn send(socket: &mut WebSocket, frame: Frame) -> Result<(), SendFailed> {
    match tokio::time::timeout(SEND_TIMEOUT, socket.send(frame)).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(SendFailed),
    }
}
