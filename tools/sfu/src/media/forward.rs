//! From a burst of publisher packets to every subscriber: the SFU's hot path.
//!
//! A burst is what arrived within one poll of the backend (about a millisecond). It is written
//! subscriber by subscriber, all tracks of the burst at once, while the subscriber's state is in
//! the cache, and so that packets of a frame can leave as one run.
//!
//! A worker that has fallen behind finds long bursts. While somebody joins it sends a small share
//! of them a round, so that handshakes are answered between; else all of it in large shares.

use std::time::Instant;

use stampede_core::MediaKind;
use str0m::Input;
use str0m::media::KeyframeRequestKind;
use str0m::rtp::Ssrc;

use super::Command;
use super::egress;
use super::layers::LAYERS_MAX;
use super::peer::{Peer, Stage, Subscription};
use super::rewrite::Rewritten;
use super::track::{MediaBatch, MediaPacket, Track};
use super::worker::{
    BURST_PACKETS_MAX, Outgoing, SHARE_PACKETS_MAX, SHARE_PACKETS_MIN, SHARE_SENDS_MAX, Worker,
};

impl Worker {
    /// Takes packets that other workers' publishers sent.
    pub(crate) fn receive_media(&mut self) {
        while let Ok(batch) = self.media.try_recv() {
            let Some(&index) = self.track_index.get(&batch.track) else { continue };
            let Some(track) = self.tracks.get_mut(index) else { continue };
            track.set_params(batch.params);
            for packet in &batch.packets {
                track.activity.heard(packet.layer, packet.numbers.arrived_at);
            }
            if track.burst.is_empty() {
                self.burst_tracks.push(index);
            }
            track.burst.extend(batch.packets);
        }
    }

    /// Sends the burst to everybody, share by share. While somebody joins a rest is left for the
    /// next round, unless it would be a long one.
    pub(crate) fn forward(&mut self) {
        for i in 0..self.burst_tracks.len() {
            self.share_burst(self.burst_tracks[i]);
        }
        while !self.burst_tracks.is_empty() {
            let tracks = std::mem::take(&mut self.burst_tracks);
            let subscribers = tracks.iter().map(|&index| self.tracks[index].subscribers.len());
            let joining = self.is_joining();
            let share = if joining { share_packets(subscribers.sum()) } else { SHARE_PACKETS_MAX };
            for &index in &tracks {
                self.tracks[index].begin_share(share);
            }
            self.forward_share(&tracks, share);
            let mut left = 0;
            for &index in &tracks {
                self.tracks[index].end_share(share);
                left = left.max(self.tracks[index].burst.len());
                self.relay_keyframe_requests(index);
            }
            self.burst_tracks = tracks;
            let tracks = &self.tracks;
            self.burst_tracks.retain(|&index| !tracks[index].burst.is_empty());
            if joining && left <= BURST_PACKETS_MAX {
                return;
            }
            self.out.now = Instant::now();
            self.answer_reports();
        }
    }

    /// Sends the first packets of these tracks' bursts, as many as make a share, to everybody.
    fn forward_share(&mut self, tracks: &[usize], share: usize) {
        self.burst += 1;
        for i in 0..tracks.len() {
            for s in 0..self.tracks[tracks[i]].subscribers.len() {
                let peer = self.tracks[tracks[i]].subscribers[s];
                self.forward_to(peer, &tracks[i..], share);
            }
        }
    }

    /// Sends the share of these tracks' burst to one subscriber, unless it has had it.
    fn forward_to(&mut self, index: usize, tracks: &[usize], share: usize) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        if peer.burst == self.burst || !peer.connected {
            return;
        }
        peer.burst = self.burst;
        for &track in tracks {
            if let Some(&subscription) = peer.by_track.get(&track) {
                send_share(&mut self.out, peer, subscription, &mut self.tracks[track], share);
            }
        }
    }

    /// Gives what is new of a track's burst to the workers that have subscribers for it.
    fn share_burst(&mut self, index: usize) {
        let track = &mut self.tracks[index];
        let shared = std::mem::replace(&mut track.burst_shared, track.burst.len());
        let new = track.burst.get(shared..).unwrap_or_default();
        let (Some(source), Some(params)) = (&track.source, track.params) else { return };
        if new.is_empty() {
            return;
        }
        for &worker in &source.interested {
            let Some(handle) = self.workers.get().and_then(|workers| workers.get(worker)) else {
                continue;
            };
            let batch = MediaBatch { track: track.key, params, packets: new.to_vec() };
            match handle.media.try_send(batch) {
                Ok(()) => handle.waker.wake(),
                Err(_) => self.mailbox_full += new.len() as u64,
            }
        }
    }

    /// Asks the publisher for the keyframes that are wanted and due.
    pub(crate) fn relay_keyframe_requests(&mut self, index: usize) {
        for layer in 0..LAYERS_MAX {
            let now = self.out.now;
            let Some(track) = self.tracks.get_mut(index) else { return };
            if !track.keyframes[layer].due(now) {
                continue;
            }
            if track.source.is_some() {
                self.request_keyframe(index, layer as u8);
            } else {
                let command = Command::Keyframe { track: track.key, layer: layer as u8 };
                let home = track.home;
                if let Some(handle) = self.workers.get().and_then(|workers| workers.get(home))
                    && handle.commands.try_send(command).is_ok()
                {
                    handle.waker.wake();
                }
            }
        }
    }

    /// Sends a PLI to the publisher.
    fn request_keyframe(&mut self, index: usize, layer: u8) {
        if self.faults.withhold_keyframes {
            return;
        }
        let Some(source) = self.tracks[index].source.as_mut() else { return };
        let Some(stream) = source.streams.iter().rev().find(|stream| stream.layer == layer) else {
            return;
        };
        let ssrc = Ssrc::from(stream.ssrc);
        let publisher = source.peer;
        source.ledger.plis_sent += 1;
        let Some(peer) = self.peers.get_mut(publisher) else { return };
        if let Some(stream) = peer.rtc.direct_api().stream_rx(&ssrc) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
        self.advance(publisher);
    }

    /// Lets str0m see the time, which is what makes it send what was written, and drains it.
    pub(crate) fn advance(&mut self, index: usize) {
        let now = self.out.now;
        let Some(peer) = self.peers.get_mut(index) else { return };
        self.out.fed_at = now;
        if let Err(error) = peer.rtc.handle_input(Input::Timeout(now)) {
            self.fail(index, error.to_string());
            return;
        }
        self.drain(index);
    }
}

/// Packets of each track that are sent to so many subscriptions before anything else is looked at,
/// while participants join.
fn share_packets(subscriptions: usize) -> usize {
    (SHARE_SENDS_MAX / subscriptions.max(1)).clamp(SHARE_PACKETS_MIN, SHARE_PACKETS_MAX)
}

/// Sends a share of a track's burst to one subscription.
fn send_share(to: &mut Outgoing, peer: &mut Peer, index: usize, track: &mut Track, share: usize) {
    let Some(subscription) = peer.subscriptions.get_mut(index) else { return };
    if subscription.stage != Stage::Active || subscription.removed || subscription.offer.paused {
        return;
    }
    let Some(format) = subscription.look_up_format(track, &peer.rtc) else { return };
    let video = track.kind == MediaKind::Video;
    let limit = usize::from(subscription.offer.limit).min(LAYERS_MAX - 1);
    let wanted = if video { track.choices[limit] } else { Some(0) };
    for packet in track.burst.iter().take(share) {
        let Some(subscription) = peer.subscriptions.get_mut(index) else { break };
        let clock_rate = subscription.clock_rate;
        let Some(out) = rewrite(subscription, packet, wanted, clock_rate) else { continue };
        egress::send(to, peer, index, format, packet, &out);
    }
    if let Some(wanted) = wanted
        && peer.subscriptions.get(index).is_some_and(|s| s.layer != Some(wanted))
    {
        track.keyframes[usize::from(wanted)].want();
    }
}

/// The numbers of a packet that this subscription is to get, after switching to its source if
/// that is the wanted layer and it starts a keyframe.
fn rewrite(
    subscription: &mut Subscription,
    packet: &MediaPacket,
    wanted: Option<u8>,
    clock_rate: u32,
) -> Option<Rewritten> {
    let current = subscription.rewriter.source();
    if current != Some(packet.numbers.source) {
        // Of two sources of the same layer the later one counts: the publisher changed its SSRC.
        let outdated = subscription.layer == Some(packet.layer)
            && current.is_some_and(|current| current > packet.numbers.source);
        if wanted != Some(packet.layer) || !packet.starts_keyframe || outdated {
            return None;
        }
        subscription.rewriter.switch(&packet.numbers, clock_rate);
        if subscription.layer.is_some_and(|layer| layer != packet.layer) {
            subscription.ledger.layer_switches += 1;
        }
        subscription.layer = Some(packet.layer);
    }
    subscription.rewriter.rewrite(&packet.numbers)
}

/// A subscriber asks for a keyframe of the layer it gets.
pub(crate) fn want_keyframe(track: &mut Track, layer: Option<u8>) {
    if let Some(gate) = track.keyframes.get_mut(usize::from(layer.unwrap_or(0))) {
        gate.want();
    }
}
