//! From a burst of publisher packets to every subscriber: the SFU's hot path.
//!
//! A burst is what arrived within one poll of the backend (about a millisecond). It is written
//! subscriber by subscriber, all tracks of the burst at once, while the subscriber's state is in
//! the cache, and so that packets of a frame can leave as one run.
//!
//! A worker that has fallen behind finds long bursts. While somebody joins it sends a small share
//! of them a turn, so that handshakes are answered between; else all of it in large shares.

use std::time::Instant;

use super::peers::PeerTable;
use super::socket::MediaSocket;
use super::track::Track;
use super::tracks::TrackTable;

/// Datagrams sent before anything else is looked at while participants join, about 20 ms of work. A
/// worker that fell behind may find thousands of packets, which are seconds of it for many
/// subscribers.
const SHARE_SENDS_MAX: usize = 8_192;
/// Packets of a track in a share, least. It goes on to the end of the last frame, whose run is to stay
/// whole, but by no more than as many again: a run has no more packets of full length, and a large
/// keyframe is not to hold up those who join.
const SHARE_PACKETS_MIN: usize = 8;
/// The same, most.
const SHARE_PACKETS_MAX: usize = 64;

/// Subscribers between two looks at the clock: packets say when they are sent. The time of the turn is too
/// early for those whose share comes late.
const CLOCK_PEERS: usize = 16;

/// Packets of a track that wait for a later turn while somebody joins; when there are more, their
/// shares are sent at once, and who joins waits.
const BURST_PACKETS_MAX: usize = 1_024;

/// Sends bursts share by share.
#[derive(Debug, Default)]
pub(crate) struct Forwarder {
    /// Number of the last share.
    share: u64,
    /// Peers that got the first packet of a stream.
    begun: Vec<usize>,
}

impl Forwarder {
    /// Sends a share of these tracks' bursts to everybody. Whether the next share is for a later
    /// turn.
    pub(crate) fn forward(
        &mut self,
        bursts: &[usize],
        tracks: &mut TrackTable,
        peers: &mut PeerTable,
        socket: &mut MediaSocket,
        now: Instant,
    ) -> bool {
        let joining = peers.is_joining(now);
        let subscribers = |&index: &usize| tracks.get(index).map_or(0, |t| t.subscribers().len());
        let packets = if joining {
            share_packets(bursts.iter().map(subscribers).sum())
        } else {
            SHARE_PACKETS_MAX
        };
        for &index in bursts {
            if let Some(track) = tracks.get_mut(index) {
                track.begin_share(packets, packets_with_the_frame(packets));
            }
        }
        self.send_share(bursts, tracks, peers, socket, now);
        let ends = bursts.iter().map(|&index| tracks.get_mut(index).map_or(0, Track::end_share));
        let left = ends.max().unwrap_or(0);
        joining && left <= BURST_PACKETS_MAX
    }

    /// Peers that got the first packet of a stream since the last call.
    pub(crate) fn take_begun(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.begun)
    }

    /// Sends the first packets of these tracks' bursts to everybody, to one subscriber after the
    /// other.
    fn send_share(
        &mut self,
        bursts: &[usize],
        tracks: &mut TrackTable,
        peers: &mut PeerTable,
        socket: &mut MediaSocket,
        now: Instant,
    ) {
        self.share += 1;
        let (mut sent_at, mut served) = (now, 0);
        for (i, &index) in bursts.iter().enumerate() {
            for s in 0.. {
                let subscriber = tracks.get(index).and_then(|track| track.subscribers().get(s));
                let Some(&subscriber) = subscriber else { break };
                let Some(peer) = peers.get_mut(subscriber) else { continue };
                if !peer.is_connected() || !peer.begin_share(self.share) {
                    continue;
                }
                if served % CLOCK_PEERS == 0 {
                    sent_at = Instant::now();
                }
                served += 1;
                let sending = peer.sending(socket, now, sent_at);
                let Some((subscriptions, mut egress, rtc)) = sending else { continue };
                let mut begins = false;
                for &track in &bursts[i..] {
                    if let Some(subscription) = subscriptions.of_track(track)
                        && let Some(track) = tracks.get_mut(track)
                    {
                        begins |= subscription.send(&mut egress, rtc, track);
                    }
                }
                if begins {
                    self.begun.push(subscriber);
                }
            }
        }
    }
}

/// Packets of each track that are sent to so many subscriptions before anything else is looked at,
/// while participants join.
fn share_packets(subscriptions: usize) -> usize {
    (SHARE_SENDS_MAX / subscriptions.max(1)).clamp(SHARE_PACKETS_MIN, SHARE_PACKETS_MAX)
}

/// Packets of each track in a share that ends with a frame, most.
fn packets_with_the_frame(packets: usize) -> usize {
    (packets + SHARE_PACKETS_MIN).min(SHARE_PACKETS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_while_somebody_joins_is_bounded_with_the_rest_of_its_frame() {
        // Subscribers, packets of each track, and with the end of the frame.
        for (subscriptions, packets, with_frame) in
            [(0, 64, 64), (1, 64, 64), (256, 32, 40), (1_024, 8, 16), (2_000, 8, 16)]
        {
            assert_eq!(share_packets(subscriptions), packets, "{subscriptions}");
            assert_eq!(packets_with_the_frame(packets), with_frame, "{subscriptions}");
            let sends = with_frame * subscriptions;
            assert!(subscriptions > 1_024 || sends <= 2 * SHARE_SENDS_MAX, "{sends}");
        }
    }
}
