//! What subscribers tell of the way to them, and what they get for it. It is looked at for each RTCP
//! packet that tells something, and where somebody lacks a layer, never for a packet of media.

use stampede_core::MediaKind;
use str0m::rtp::rtcp::Twcc;

use super::Worker;
use crate::media::congestion::allocate::{Demand, allocate, next_bps, usage_bps};
use crate::media::congestion::remote::Estimate;
use crate::media::congestion::{Act, Usage};
use crate::media::layers::Cap;
use crate::media::message::Event;
use crate::media::subscription::Subscription;

impl Worker {
    /// A subscriber says how much the way to it carries.
    pub(super) fn take_estimate(&mut self, index: usize, estimate_bps: u64) {
        let tracks = self.wanted_tracks(index);
        if tracks.is_empty() {
            return;
        }
        let usage_bps = usage_bps(&self.demands(index, &tracks));
        let now = self.now;
        let Some(peer) = self.peers.get_mut(index) else { return };
        let (mut packets, mut repeated) = (0u32, 0u32);
        for &track in &tracks {
            let asked = peer.subscriptions_mut().of_track(track).map(|s| s.take_asked());
            let (more, again) = asked.unwrap_or_default();
            packets = packets.saturating_add(more);
            repeated = repeated.saturating_add(again);
        }
        let estimate = Estimate { bps: estimate_bps, usage_bps, packets, repeated };
        if let Some(act) = peer.take_estimate(now, estimate) {
            self.act(index, act);
        }
        self.wake_for_congestion(index);
    }

    /// A subscriber says when packets arrived.
    pub(super) fn take_arrivals(&mut self, index: usize, report: Twcc) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(index) else { return };
        if let Some(act) = peer.take_arrivals(now, report) {
            self.act(index, act);
        }
        self.wake_for_congestion(index);
    }

    /// What a subscriber wants has changed: if it gets less than that, what fits may be another.
    pub(super) fn share_out_anew(&mut self, index: usize) {
        let Some(congestion) = self.peers.get(index).and_then(|peer| peer.congestion()) else {
            return;
        };
        if congestion.is_deficient() {
            let capacity_bps = congestion.capacity_bps();
            self.act(index, Act::Allocate { capacity_bps });
            self.wake_for_congestion(index);
        }
    }

    /// Looks whether a probe is due.
    pub(super) fn follow_congestion(&mut self, index: usize) {
        let now = self.now;
        let congestion = self.peers.get(index).and_then(|peer| peer.congestion());
        if congestion.and_then(|c| c.next_at()).is_none_or(|at| at > now) {
            return;
        }
        let tracks = self.wanted_tracks(index);
        let demands = self.demands(index, &tracks);
        let (bps, next_bps) = (usage_bps(&demands), next_bps(&demands));
        let (mut sent_bytes, mut pads) = (0, false);
        if let Some(peer) = self.peers.get(index) {
            for subscription in peer.subscriptions().iter() {
                if subscription.offer().kind == MediaKind::Video {
                    sent_bytes += subscription.sent_bytes();
                }
                let track = self.tracks.get(subscription.track());
                pads |= track.is_some_and(|track| subscription.pads(track));
            }
        }
        let usage = Usage { bps, next_bps, sent_bytes };
        let congestion = self.peers.get_mut(index).and_then(|peer| peer.congestion_mut());
        if let Some(act) = congestion.and_then(|congestion| congestion.tick(now, usage, pads)) {
            self.act(index, act);
        }
        self.wake_for_congestion(index);
    }

    fn wake_for_congestion(&mut self, index: usize) {
        let congestion = self.peers.get(index).and_then(|peer| peer.congestion());
        if let Some(at) = congestion.and_then(|congestion| congestion.next_at()) {
            self.schedule(index, at);
        }
    }

    /// Video that a subscriber wants: indices of the tracks, in the order in which they were subscribed
    /// to.
    fn wanted_tracks(&self, index: usize) -> Vec<usize> {
        let Some(peer) = self.peers.get(index) else { return Vec::new() };
        let wanted = peer.subscriptions().iter().filter(|subscription| {
            let track = self.tracks.get(subscription.track());
            track.is_some_and(|track| subscription.demand(track, self.now).is_some())
        });
        wanted.map(|subscription| subscription.track()).collect()
    }

    /// What is to be shared out of these tracks.
    fn demands(&self, index: usize, tracks: &[usize]) -> Vec<Demand<'_>> {
        let Some(peer) = self.peers.get(index) else { return Vec::new() };
        let of = |&track: &usize| {
            let subscription = peer.subscriptions().to_track(track)?;
            subscription.demand(self.tracks.get(track)?, self.now)
        };
        tracks.iter().filter_map(of).collect()
    }

    fn act(&mut self, index: usize, act: Act) {
        match act {
            Act::Allocate { capacity_bps } => self.share_out(index, capacity_bps, false),
            Act::Boost { capacity_bps } => self.share_out(index, capacity_bps, true),
            Act::Pad { bytes } => self.pad(index, bytes),
        }
    }

    /// Shares out what the way carries. With `upwards` nobody gets less than it has.
    fn share_out(&mut self, index: usize, capacity_bps: u64, upwards: bool) {
        let tracks = self.wanted_tracks(index);
        let demands = self.demands(index, &tracks);
        let allow_pause = self.peers.get(index).is_some_and(|peer| peer.allows_pause());
        let caps = allocate(&demands, capacity_bps, allow_pause, upwards);
        let mut held =
            demands.into_iter().zip(&caps).map(|(demand, &cap)| Demand { cap, ..demand });
        let deficient = held.any(|held| held.is_deficient());
        for (&track, cap) in tracks.iter().zip(caps) {
            self.hold_to(index, track, cap);
        }
        if !deficient {
            // Nothing looks any more whether there is room: nor may anything wait for that which is
            // not wanted now, or of which nothing is known.
            let all =
                self.peers.get(index).into_iter().flat_map(|peer| peer.subscriptions().iter());
            let held = all.filter(|one| !one.is_removed() && one.is_held());
            let held: Vec<usize> = held.map(Subscription::track).collect();
            held.into_iter().for_each(|track| self.hold_to(index, track, Cap::Open));
        }
        let now = self.now;
        let congestion = self.peers.get_mut(index).and_then(|peer| peer.congestion_mut());
        if let Some(congestion) = congestion {
            congestion.allocated(now, deficient);
        }
    }

    /// Holds a track to what fits the way to a subscriber, who is told if it pauses or resumes.
    fn hold_to(&mut self, index: usize, track: usize, cap: Cap) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let key = peer.key();
        let Some(subscription) = peer.subscriptions_mut().of_track(track) else { return };
        if subscription.hold_to(cap)
            && let Some(known) = self.tracks.get(track)
        {
            let fits = cap != Cap::Paused;
            self.events.emit(Event::Fits { peer: key, track: known.key(), fits });
        }
    }

    /// Sends padding beside the video of a subscriber.
    fn pad(&mut self, index: usize, bytes: u64) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let carrier = |subscription: &Subscription| {
            let track = self.tracks.get(subscription.track())?;
            subscription.pads(track).then_some((subscription.track(), track))
        };
        let Some((track, known)) = peer.subscriptions().find_map(carrier) else { return };
        let sending = peer.sending(&mut self.socket, self.now, (self.clock)());
        let Some((subscriptions, mut egress, _)) = sending else { return };
        let Some(subscription) = subscriptions.of_track(track) else { return };
        let (packets, sent) = subscription.pad(&mut egress, known, bytes);
        if let Some(congestion) = peer.congestion_mut() {
            congestion.padded(packets, sent);
        }
    }
}
