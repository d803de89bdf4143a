//! From a burst of publisher packets to every subscriber: the SFU's hot path.
//!
//! A track's burst is what has come of it and not everybody has got yet: where the worker keeps up,
//! what arrived within one poll of the backend (about a millisecond). It is written subscriber by
//! subscriber, all tracks of the round at once, while the subscriber's state is in the cache, and
//! so that packets of a frame can leave as one run.
//!
//! A round goes to every subscriber once. It is made in slices, between which the worker looks what has
//! come: who is still to be visited gets what came meanwhile too, of other tracks as well, so that a
//! large keyframe to thousands of subscribers does not hold up the frames behind it for longer than
//! itself.

use std::time::{Duration, Instant};

use super::peers::PeerTable;
use super::socket::MediaSocket;
use super::tracks::TrackTable;

/// How long is sent before anything else is looked at.
const SLICE: Duration = Duration::from_millis(5);

/// Subscribers between two looks at the clock: packets say when they are sent. The time of the turn is too
/// early for those whose turn comes late.
const CLOCK_PEERS: usize = 16;

/// Sends bursts slice by slice.
#[derive(Debug, Default)]
pub(crate) struct Forwarder {
    /// Number of the last round.
    round: u64,
    /// Tracks of the round under way; none between two rounds.
    tracks: Vec<usize>,
    /// Place of the track whose subscribers are visited.
    place: usize,
    /// Peers that got the first packet of a stream.
    begun: Vec<usize>,
}

impl Forwarder {
    /// Whether a round is under way.
    pub(crate) fn is_under_way(&self) -> bool {
        !self.tracks.is_empty()
    }

    /// Tracks of the round under way.
    pub(crate) fn tracks(&self) -> &[usize] {
        &self.tracks
    }

    /// Begins a round with all tracks that have packets to forward, or lets them into the one that is
    /// under way.
    pub(crate) fn begin_round(&mut self, tracks: &mut TrackTable) {
        if self.is_under_way() {
            for index in tracks.take_bursts() {
                if let Some(track) = tracks.get_mut(index) {
                    track.enter_round();
                    self.tracks.push(index);
                }
            }
            return;
        }
        self.round += 1;
        self.place = 0;
        self.tracks = tracks.take_bursts();
        for &index in &self.tracks {
            if let Some(track) = tracks.get_mut(index) {
                track.begin_round();
            }
        }
    }

    /// Sends a slice of the round under way, to one subscriber after the other.
    pub(crate) fn forward(
        &mut self,
        tracks: &mut TrackTable,
        peers: &mut PeerTable,
        socket: &mut MediaSocket,
        clock: fn() -> Instant,
    ) {
        if !self.is_under_way() {
            return;
        }
        for &index in &self.tracks {
            if let Some(track) = tracks.get_mut(index) {
                track.begin_slice();
            }
        }
        let now = clock();
        let (mut sent_at, mut served) = (now, 0);
        while let Some(&index) = self.tracks.get(self.place) {
            let Some(subscriber) = tracks.get_mut(index).and_then(|it| it.next_subscriber()) else {
                self.place += 1;
                continue;
            };
            let Some(peer) = peers.get_mut(subscriber) else { continue };
            if !peer.is_connected() || !peer.begin_round(self.round) {
                continue;
            }
            served += 1;
            if served % CLOCK_PEERS == 0 {
                sent_at = clock();
            }
            if let Some((subscriptions, mut egress, rtc)) = peer.sending(socket, now, sent_at) {
                let mut begins = false;
                for &track in &self.tracks[self.place..] {
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
            if sent_at - now >= SLICE {
                return;
            }
        }
        for &index in &self.tracks {
            if let Some(track) = tracks.get_mut(index) {
                track.end_round();
            }
        }
        tracks.put_back_bursts(std::mem::take(&mut self.tracks));
    }

    /// Peers that got the first packet of a stream since the last call.
    pub(crate) fn take_begun(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.begun)
    }
}
