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
/// Most bytes of them; a message that does not fit is dropped, and counted.
const HANDED_OVER_BYTES_MAX: usize = 4 << 20;

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
    /// Bytes of them.
    bytes: usize,
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
        if self.id != Some(data.id) {
            return Some(data);
        }
        let read = RpcReceived::read(&data.data);
        if !matches!(read, Ok(RpcReceived { what, .. }) if what != RpcRead::Other) {
            return Some(data);
        }
        let bytes = self.bytes + data.data.len();
        if self.waiting.len() < HANDED_OVER_MAX && bytes <= HANDED_OVER_BYTES_MAX {
            self.bytes = bytes;
            self.waiting.push(Heard { data, at });
        } else {
            self.dropped += 1;
        }
        None
    }

    /// What waits.
    fn hand_over(&mut self) -> Vec<Heard> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }
}

impl Peer {
    /// Gives what came of calls to the connection by which the same participant sends; to be called
    /// after each drain of one with [`PeerRole::calls_elsewhere`](super::PeerRole::calls_elsewhere).
    /// True if the other one is to be drained now.
    pub fn hand_calls_to(&mut self, now: Instant, other: &mut Self) -> bool {
        let Some(handover) = &mut self.handover else { return false };
        let mut handed = false;
        for Heard { data, at } in handover.hand_over() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::put_response;
    use crate::{DtlsIdentity, PeerOptions};

    /// A peer that hands over, and the ids of two channels.
    fn channels() -> [ChannelId; 2] {
        let options = PeerOptions::new(DtlsIdentity::generate().unwrap());
        let local: std::net::SocketAddr = "127.0.0.1:40001".parse().unwrap();
        let mut peer = Peer::subscriber(Instant::now(), local, &options, false).unwrap();
        let mut changes = peer.rtc.sdp_api();
        ["_reliable", "_lossy"].map(|label| changes.add_channel(label.to_owned()))
    }

    #[test]
    fn what_waits_is_bounded_by_its_number() {
        let ([reliable, _], mut handover) = (channels(), Handover::default());
        handover.opened(reliable, DataKind::Reliable.label());
        for _ in 0..HANDED_OVER_MAX + 2 {
            let data = put_response("bob", "1", b"");
            assert!(
                handover.take(None, ChannelData { id: reliable, binary: true, data }).is_none()
            );
        }
        assert_eq!((handover.waiting.len(), handover.dropped), (HANDED_OVER_MAX, 2));
    }

    #[test]
    fn what_waits_is_bounded_by_its_bytes() {
        let [reliable, lossy] = channels();
        let mut handover = Handover::default();
        handover.opened(reliable, DataKind::Reliable.label());
        let message = put_response("bob", "1", &vec![0; 60_000]);
        let room = HANDED_OVER_BYTES_MAX / message.len();
        let take = |handover: &mut Handover, id| {
            let data = ChannelData { id, binary: true, data: message.clone() };
            handover.take(None, data).is_none()
        };
        assert!(!take(&mut handover, lossy), "calls come over the reliable one");
        for _ in 0..room + 2 {
            assert!(take(&mut handover, reliable));
        }
        assert_eq!((handover.waiting.len(), handover.dropped), (room, 2));
        // What was handed over makes room.
        assert_eq!(handover.hand_over().len(), room);
        assert!(take(&mut handover, reliable));
        assert_eq!((handover.waiting.len(), handover.dropped), (1, 2));
    }
}
