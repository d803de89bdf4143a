//! One client's WebSocket.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket, close_code};
use livekit_protocol as proto;
use livekit_token::Claims;
use prost::Message as _;
use proto::signal_response::Message;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::hub::{JoinRequest, Joined, OUTBOX_MESSAGES_MAX, Outbox, OutboxItem, messages};
use crate::state::ServerState;

/// WebSocket pings (LiveKit `pkg/service/rtcservice.go`, 10 s).
const WEBSOCKET_PING_INTERVAL: Duration = Duration::from_secs(10);

/// How often a client gets a fresh token (LiveKit `pkg/service/roommanager.go`, 5 min).
const TOKEN_REFRESH_INTERVAL: Duration = Duration::from_secs(300);

/// How long a frame may take to leave for a client that does not read.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Resuming is not supported: the client is told to come back anew.
pub(crate) async fn refuse_resume(mut socket: WebSocket) {
    let leave = messages::leave(proto::DisconnectReason::StateMismatch);
    // A client that is gone already needs no answer.
    let _ = send(&mut socket, Frame::Binary(messages::frame(Message::Leave(leave)))).await;
    let _ = send(&mut socket, goodbye()).await;
}

/// Joins the client and serves it until either side ends it.
pub(crate) async fn run(mut socket: WebSocket, state: ServerState, request: JoinRequest) {
    state.stalled().await;
    let (queue, mut outgoing) = mpsc::channel(OUTBOX_MESSAGES_MAX);
    let overflow = Arc::new(Notify::new());
    let claims = request.claims.clone();
    let outbox = Outbox { queue, overflow: overflow.clone() };
    let joined = state.hub().join(request, outbox);
    let who = match joined {
        Ok(who) => who,
        Err(reason) => {
            let leave = Message::Leave(messages::leave(reason));
            let _ = send(&mut socket, Frame::Binary(messages::frame(leave))).await;
            let _ = send(&mut socket, goodbye()).await;
            return;
        }
    };
    let ended = serve(&mut socket, &state, &who, &claims, &mut outgoing, &overflow).await;
    if let Ended::Lost(reason) = ended {
        state.hub().remove(&who.room, &who.sid, reason, false);
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
    Lost(proto::DisconnectReason),
}

async fn serve(
    socket: &mut WebSocket,
    state: &ServerState,
    who: &Joined,
    claims: &Claims,
    outgoing: &mut mpsc::Receiver<OutboxItem>,
    overflow: &Notify,
) -> Ended {
    let start = Instant::now();
    let mut ping = interval_at(start + WEBSOCKET_PING_INTERVAL, WEBSOCKET_PING_INTERVAL);
    let mut refresh = interval_at(start, TOKEN_REFRESH_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let lost = Ended::Lost(proto::DisconnectReason::SignalClose);
    loop {
        state.stalled().await;
        tokio::select! {
            biased;
            () = overflow.notified() => {
                state.hub().count_signalling_overflow();
                return lost;
            }
            next = outgoing.recv() => match next {
                Some(OutboxItem::Frame(frame)) => {
                    if send(socket, Frame::Binary(frame)).await.is_err() {
                        return lost;
                    }
                }
                Some(OutboxItem::Close) | None => return Ended::Known,
            },
            frame = socket.recv() => match frame {
                Some(Ok(Frame::Binary(frame))) => {
                    if !handle(state, who, &frame) {
                        return Ended::Known;
                    }
                }
                Some(Ok(Frame::Text(_))) => {
                    tracing::debug!(room = who.room, "JSON signalling is not supported");
                    return lost;
                }
                Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => {}
                Some(Ok(Frame::Close(_)) | Err(_)) | None => return lost,
            },
            _ = ping.tick() => {
                if send(socket, Frame::Ping(Default::default())).await.is_err() {
                    return lost;
                }
            }
            _ = refresh.tick() => {
                if let Some(token) = state.auth().refreshed(claims) {
                    let frame = messages::frame(Message::RefreshToken(token));
                    if send(socket, Frame::Binary(frame)).await.is_err() {
                        return lost;
                    }
                }
            }
        }
    }
}

/// Whether the participant is still there. A frame that is no request is ignored.
fn handle(state: &ServerState, who: &Joined, frame: &[u8]) -> bool {
    match proto::SignalRequest::decode(frame) {
        Ok(proto::SignalRequest { message: Some(message) }) => state.hub().request(who, message),
        Ok(_) => true,
        Err(error) => {
            tracing::debug!(room = who.room, %error, "not a SignalRequest");
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
