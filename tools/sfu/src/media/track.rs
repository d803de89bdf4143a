//! A published track as a worker sees it: of a publisher of its own, or of another worker's that it
//! has subscribers for.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use stampede_core::MediaKind;
use str0m::format::PayloadParams;

use super::egress::extensions::{ExtensionIds, Layout, Layouts};
use super::layers::{LAYERS_MAX, LayerActivity, Step};
use super::message::TrackKey;
use super::packet::{MediaBatch, MediaPacket};
use super::rates::Rates;
use super::resend::ResendCache;
use super::source::Source;

/// Keyframes are asked for at most this often a layer.
const KEYFRAME_INTERVAL_MIN: Duration = Duration::from_millis(500);

/// How long a packet can be asked for again. More than twice the playout deadline of 500 ms.
const RETRANSMIT_CACHE_AGE: Duration = Duration::from_millis(1_500);

/// A track on one worker.
pub(crate) struct Track {
    key: TrackKey,
    kind: MediaKind,
    /// The worker of the publisher.
    home: usize,
    /// Set on the worker of the publisher only.
    source: Option<Source>,
    /// Codec of the packets, once one has arrived.
    params: Option<PayloadParams>,
    params_version: u32,
    activity: LayerActivity,
    /// What its layers take; of video alone.
    rates: Rates,
    /// The layer to forward under each limit, as of this share.
    choices: [Option<u8>; LAYERS_MAX],
    /// Indices of subscribed peers of this worker.
    subscribers: Vec<usize>,
    /// Packets that arrived and were not forwarded yet.
    burst: Vec<MediaPacket>,
    /// How many of them, the first ones, were passed to other workers.
    burst_shared: usize,
    /// How many of them, the first ones, are sent now.
    share: usize,
    /// Their extensions.
    layouts: Layouts,
    keyframes: [KeyframeGate; LAYERS_MAX],
    /// Packets that subscribers may ask for again.
    resend: ResendCache,
}

impl Track {
    /// Keeps `resend_packets_max` packets of each of its numberings.
    pub(crate) fn new(
        key: TrackKey,
        kind: MediaKind,
        home: usize,
        resend_packets_max: usize,
    ) -> Self {
        Self {
            key,
            kind,
            home,
            source: None,
            params: None,
            params_version: 0,
            activity: LayerActivity::default(),
            rates: Rates::default(),
            choices: [None; LAYERS_MAX],
            subscribers: Vec::new(),
            burst: Vec::new(),
            burst_shared: 0,
            share: 0,
            layouts: Layouts::default(),
            keyframes: [KeyframeGate::default(); LAYERS_MAX],
            resend: ResendCache::new(resend_packets_max),
        }
    }

    pub(crate) fn key(&self) -> TrackKey {
        self.key
    }

    pub(crate) fn kind(&self) -> MediaKind {
        self.kind
    }

    /// The worker of the publisher.
    pub(crate) fn home(&self) -> usize {
        self.home
    }

    /// The publisher's side, on the publisher's worker.
    pub(crate) fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    pub(crate) fn source_mut(&mut self) -> Option<&mut Source> {
        self.source.as_mut()
    }

    /// Its publisher is this one, unless it has one already.
    pub(crate) fn set_source(&mut self, source: impl FnOnce() -> Source) {
        self.source.get_or_insert_with(source);
    }

    /// Its publisher is gone.
    pub(crate) fn take_source(&mut self) -> Option<Source> {
        self.source.take()
    }

    /// Indices of subscribed peers of this worker.
    pub(crate) fn subscribers(&self) -> &[usize] {
        &self.subscribers
    }

    pub(crate) fn add_subscriber(&mut self, peer: usize) {
        self.subscribers.push(peer);
    }

    pub(crate) fn remove_subscriber(&mut self, peer: usize) {
        self.subscribers.retain(|&subscriber| subscriber != peer);
    }

    /// Whether nobody sends it and nobody gets it.
    pub(crate) fn is_unused(&self) -> bool {
        self.source.is_none() && self.subscribers.is_empty()
    }

    /// The codec of its packets, once one has arrived.
    pub(crate) fn params(&self) -> Option<PayloadParams> {
        self.params
    }

    /// Counts changes of [`params`](Self::params), which are long to compare.
    pub(crate) fn params_version(&self) -> u32 {
        self.params_version
    }

    /// Takes a packet of its publisher's into the burst.
    pub(crate) fn push(&mut self, params: PayloadParams, packet: MediaPacket) {
        self.set_params(params);
        self.measure(&packet);
        self.burst.push(packet);
    }

    /// Takes packets of another worker's publisher into the burst.
    pub(crate) fn extend(&mut self, batch: MediaBatch) {
        self.set_params(batch.params);
        for packet in &batch.packets {
            self.measure(packet);
        }
        self.burst.extend(batch.packets);
    }

    fn measure(&mut self, packet: &MediaPacket) {
        let at = packet.numbers.arrived_at;
        self.activity.heard(packet.spatial(), at);
        // The others follow: until they have come nobody should do with less.
        if let Some(frame) = packet.frame.as_ref().filter(|frame| frame.begins_keyframe()) {
            frame.targets.iter().for_each(|layer| self.activity.heard(layer.spatial, at));
        }
        if self.kind == MediaKind::Video {
            self.rates.add(packet);
        }
    }

    /// What its layers take, lowest first, without those of more pictures a second than are needed; 0 is
    /// all of them. None before they were measured.
    pub(crate) fn steps(&self, now: Instant, pictures_per_s: u32) -> Cow<'_, [Step]> {
        self.rates.steps(now, pictures_per_s)
    }

    /// The temporal layer of a spatial one above which none is needed.
    pub(crate) fn temporal(&self, spatial: u8, pictures_per_s: u32) -> u8 {
        self.rates.temporal(spatial, pictures_per_s)
    }

    fn set_params(&mut self, params: PayloadParams) {
        if self.params != Some(params) {
            self.params = Some(params);
            self.params_version += 1;
        }
    }

    /// Packets that arrived and were not forwarded yet.
    pub(crate) fn burst(&self) -> &[MediaPacket] {
        &self.burst
    }

    /// Those of them that are sent now, with their extensions for who knows them by these ids.
    pub(crate) fn share(&mut self, ids: &ExtensionIds) -> (&[MediaPacket], &Layout) {
        let packets = &self.burst[..self.share.min(self.burst.len())];
        (packets, self.layouts.of(packets, ids))
    }

    /// Those of them that other workers have not had yet, which want them, once.
    pub(crate) fn unshared(&mut self) -> Option<(&[usize], PayloadParams, &[MediaPacket])> {
        let shared = std::mem::replace(&mut self.burst_shared, self.burst.len());
        let new = self.burst.get(shared..).filter(|new| !new.is_empty())?;
        Some((self.source.as_ref()?.interested(), self.params?, new))
    }

    /// Before the first packets of the burst go to everybody: so many, and to the end of the frame that
    /// they would cut in two, which is to leave as one run, but no more than `packets_max`.
    pub(crate) fn begin_share(&mut self, packets: usize, packets_max: usize) {
        let frame = |packet: &MediaPacket| (packet.numbers.source, packet.numbers.timestamp);
        let more = self.burst.get(packets.saturating_sub(1)..).unwrap_or_default();
        let rest = more.windows(2).take_while(|pair| frame(&pair[0]) == frame(&pair[1])).count();
        self.share = (packets + rest).min(packets_max).min(self.burst.len());
        self.choices = self.activity.choices();
        self.layouts.begin_share();
        for packet in &self.burst[..self.share] {
            self.resend.keep(packet);
        }
        self.find_keyframes();
    }

    /// After that; how many are left. Who waits for a keyframe that is in the rest will have it.
    pub(crate) fn end_share(&mut self) -> usize {
        self.burst.drain(..self.share.min(self.burst.len()));
        self.share = 0;
        self.burst_shared = self.burst.len();
        self.find_keyframes();
        self.burst.len()
    }

    fn find_keyframes(&mut self) {
        for packet in self.burst.iter().filter(|packet| packet.starts_keyframe) {
            if let Some(gate) = self.keyframes.get_mut(usize::from(packet.layer)) {
                gate.satisfied();
            }
        }
    }

    /// The layer to forward to who wants none above `limit`.
    pub(crate) fn choice(&self, limit: u8) -> Option<u8> {
        match self.kind {
            MediaKind::Audio => Some(0),
            MediaKind::Video => self.choices[usize::from(limit).min(LAYERS_MAX - 1)],
        }
    }

    /// The packet of that number of the publisher's, if it may still be asked for.
    pub(crate) fn kept(&self, source: u32, seq: u64, now: Instant) -> Option<&MediaPacket> {
        self.resend.get(source, seq, now, RETRANSMIT_CACHE_AGE)
    }

    /// Somebody needs a keyframe of a layer.
    pub(crate) fn want_keyframe(&mut self, layer: u8) {
        if let Some(gate) = self.keyframes.get_mut(usize::from(layer)) {
            gate.want();
        }
    }

    /// Whether to ask the publisher for a keyframe of a layer now.
    pub(crate) fn keyframe_due(&mut self, layer: u8, now: Instant) -> bool {
        self.keyframes.get_mut(usize::from(layer)).is_some_and(|gate| gate.due(now))
    }
}

/// Merges keyframe requests: one goes at once, more within the interval become one at its end.
#[derive(Debug, Clone, Copy, Default)]
struct KeyframeGate {
    wanted: bool,
    last_at: Option<Instant>,
}

impl KeyframeGate {
    /// Somebody needs a keyframe.
    fn want(&mut self) {
        self.wanted = true;
    }

    /// A keyframe has come.
    fn satisfied(&mut self) {
        self.wanted = false;
    }

    /// Whether to send a request now.
    fn due(&mut self, now: Instant) -> bool {
        let open = self
            .last_at
            .is_none_or(|at| now.saturating_duration_since(at) >= KEYFRAME_INTERVAL_MIN);
        if !(self.wanted && open) {
            return false;
        }
        self.wanted = false;
        self.last_at = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::connection::codecs;
    use crate::media::message::Role;
    use crate::media::packet::Extensions;
    use crate::media::rewrite::{Numbers, Vp8Numbers};

    #[test]
    fn a_share_ends_with_a_frame_if_that_is_not_too_long() {
        let packet = |source: u32, timestamp: u32| MediaPacket {
            layer: 0,
            numbers: Numbers {
                source,
                seq: 0,
                timestamp,
                vp8: Vp8Numbers::default(),
                captured_at_unix_us: None,
                arrived_at: Instant::now(),
            },
            marker: false,
            starts_keyframe: false,
            extensions: Extensions::default(),
            payload: [0u8; 4].as_slice().into(),
            primary_at: None,
            frame: None,
        };
        // Two layers of a frame, of two and six packets, and a frame after them.
        let frames = [(1, 1), (1, 1), (2, 1), (2, 1), (2, 1), (2, 1), (2, 1), (2, 1), (1, 2)];
        let params = codecs(Role::Publisher).params()[0];
        for (packets, packets_max, share) in
            [(1, 64, 2), (2, 64, 2), (3, 64, 8), (8, 64, 8), (9, 64, 9), (64, 64, 9), (3, 5, 5)]
        {
            let mut track = Track::new(TrackKey(1), MediaKind::Video, 0, 0);
            for (source, timestamp) in frames {
                track.push(params, packet(source, timestamp));
            }
            track.begin_share(packets, packets_max);
            assert_eq!(track.share(&ExtensionIds::default()).0.len(), share, "{packets}");
            assert_eq!(track.end_share(), frames.len() - share);
        }
        // A keyframe of 60 packets does not go at once while somebody joins.
        let mut large = Track::new(TrackKey(1), MediaKind::Video, 0, 0);
        (0..60).for_each(|_| large.push(params, packet(1, 1)));
        for (share, left) in [(16, 44), (16, 28), (16, 12), (12, 0)] {
            large.begin_share(8, 16);
            assert_eq!(large.share(&ExtensionIds::default()).0.len(), share);
            assert_eq!(large.end_share(), left);
        }
        let mut empty = Track::new(TrackKey(1), MediaKind::Video, 0, 0);
        empty.begin_share(8, 64);
        assert_eq!(empty.end_share(), 0);
    }

    #[test]
    fn keyframe_requests_are_merged_but_never_lost() {
        let now = Instant::now();
        let mut gate = KeyframeGate::default();
        assert!(!gate.due(now));
        gate.want();
        assert!(gate.due(now));
        gate.want();
        gate.want();
        assert!(!gate.due(now + Duration::from_millis(499)));
        assert!(gate.due(now + KEYFRAME_INTERVAL_MIN));
        assert!(!gate.due(now + KEYFRAME_INTERVAL_MIN * 9));
        gate.want();
        gate.satisfied();
        assert!(!gate.due(now + KEYFRAME_INTERVAL_MIN * 9));
    }
}
