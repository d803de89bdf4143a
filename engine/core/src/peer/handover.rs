//! What comes of calls at a connection whose participant sends by another one, as by LiveKit's v0:
//! the server sends by the subscriber's connection and is sent to by the publisher's (livekit
//! pkg/rtc/transportmanager.go, `getTransport`). Calls and answers are the sending one's.

use std::time::Instant;

use str0m::channel::{ChannelData, ChannelId};

use super::Peer;
use crate::Arrival;
use crate::data::{DataKind, RpcRead, RpcReceived};

/// Messages that wait at most for being handed over, which is done with each drain; one more is
/// dropped, and counted.
const HANDED_OVER_MAX: usize = 1_024;

/// A message, and when the kernel had the datagram that completed it.
#[derive(Debug)]
struct Heard {
    data: ChannelData,
    at: Option<Arrival>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Handover {
    id: Option<ChannelId>,
    waiting: Vec<Heard>,
    pub(super) dropped: u64,
}

impl Handover {
    /// A channel is open; calls come over the reliable one.
    pub(super) fn opened(&mut self, id: ChannelId, label: &str) {
        if label == DataKind::Reliable.label() {
            self.id = Some(id);
        }
    }

    /// Keeps a message that may be of a call; gives it back if it is not.
    pub(super) fn take(&mut self, at: Option<Arrival>, data: ChannelData) -> Option<ChannelData> {
        let read = RpcReceived::read(&data.data);
        let is_other = !matches!(read, Ok(RpcReceived { what, .. }) if what != RpcRead::Other);
        if self.id != Some(data.id) || is_other {
            return Some(data);
        }
        match self.waiting.len() < HANDED_OVER_MAX {
            true => self.waiting.push(Heard { data, at }),
            false => self.dropped += 1,
        }
        None
    }
}

impl Peer {
    /// Gives what came of calls to the connection by which the same participant sends; to be called
    /// after each drain of one with [`PeerRole::calls_elsewhere`](super::PeerRole::calls_elsewhere).
    /// True if the other one is to be drained now.
    pub fn hand_calls_to(&mut self, now: Instant, other: &mut Self) -> bool {
        let Some(handover) = &mut self.handover else { return false };
        let mut handed = false;
        for Heard { data, at } in std::mem::take(&mut handover.waiting) {
            // Parts of streams may be of one that is no call.
            let is_call = other.hears_call(now, at, &data.data);
            if !is_call && let Some(channels) = &mut self.channels {
                channels.received(at, &data, &mut self.outbox);
            }
            handed |= is_call;
        }
        handed
    }

    fn hears_call(&mut self, now: Instant, at: Option<Arrival>, message: &[u8]) -> bool {
        let Some(rpc) = self.rpc.as_mut().filter(|_| !self.closed) else { return false };
        self.now = self.now.max(now);
        rpc.heard(self.now, at, message, &mut self.outbox)
    }
}
