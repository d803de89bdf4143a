//! A published track as a worker sees it: of a publisher of its own, or of another worker's that it
//! has subscribers for.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use stampede_core::MediaKind;
use str0m::format::PayloadParams;

use super::egress::extensions::{ExtensionIds, Layout, Layouts};
use super::layers::{LAYERS_MAX, LayerActivity, Step};
use super::message::TrackKey;
use super::packet::MediaPacket;
use super::rates::Rates;
use super::resend::ResendCache;
use super::source::Source;

/// Keyframes are asked for at most this often a layer.
const KEYFRAME_INTERVAL_MIN: Duration = Duration::from_millis(500);

/// Packets of a track that a subscriber gets in one round, most.
const ROUND_PACKETS_MAX: usize = 64;

/// Packets of a track that wait to be forwarded, most: more are dropped and counted. They are 5 s of a
/// video stream, so a worker that has so many is far behind.
const BACKLOG_PACKETS_MAX: usize = 1_024;

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
    /// The layer to forward under each limit, as of this slice.
    choices: [Option<u8>; LAYERS_MAX],
    /// Indices of subscribed peers of this worker.
    subscribers: Vec<usize>,
    /// Place of the one whose turn is next in the round under way.
    next_subscriber: usize,
    /// Packets that arrived and that not everybody has got yet.
    burst: Vec<MediaPacket>,
    /// Number of the first of them, counted from the first that ever came.
    burst_begin: u64,
    /// How many of them, the first ones, were passed to other workers.
    burst_shared: usize,
    /// How many of them, the first ones, may be sent now.
    ready: usize,
    /// How many of them, the first ones, everybody has when the round under way is over.
    goal: usize,
    /// Extensions of those that may be sent now.
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
            next_subscriber: 0,
            burst: Vec::new(),
            burst_begin: 0,
            burst_shared: 0,
            ready: 0,
            goal: 0,
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

    /// The subscribed peer of this worker whose turn is next in the round under way; each has one, whoever
    /// comes or goes meanwhile.
    pub(crate) fn next_subscriber(&mut self) -> Option<usize> {
        let next = self.subscribers.get(self.next_subscriber).copied()?;
        self.next_subscriber += 1;
        Some(next)
    }

    pub(crate) fn add_subscriber(&mut self, peer: usize) {
        self.subscribers.push(peer);
    }

    pub(crate) fn remove_subscriber(&mut self, peer: usize) {
        let Some(place) = self.subscribers.iter().position(|&known| known == peer) else { return };
        self.subscribers.remove(place);
        self.next_subscriber -= usize::from(place < self.next_subscriber);
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

    /// Takes packets of its publisher's into the burst, as far as there is room. How many subscribers
    /// lack how many of them: the product.
    pub(crate) fn extend(
        &mut self,
        params: PayloadParams,
        packets: impl IntoIterator<Item = MediaPacket>,
    ) -> u64 {
        self.set_params(params);
        let mut dropped = 0;
        for packet in packets {
            self.measure(&packet);
            if self.burst.len() < BACKLOG_PACKETS_MAX {
                self.burst.push(packet);
            } else {
                dropped += 1;
            }
        }
        dropped * self.subscribers.len() as u64
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

    /// Packets that arrived and that not everybody has got yet.
    pub(crate) fn burst(&self) -> &[MediaPacket] {
        &self.burst
    }

    /// Those of them that a subscriber is to get now that has got all before the packet of this number,
    /// each with its place, their extensions for who knows them by these ids, and the number of the
    /// packet behind them.
    pub(crate) fn due(
        &mut self,
        from: u64,
        ids: &ExtensionIds,
    ) -> (impl Iterator<Item = (usize, &MediaPacket)>, &Layout, u64) {
        let ready = self.ready.min(self.burst.len());
        let first = usize::try_from(from.saturating_sub(self.burst_begin)).unwrap_or(ready);
        let packets = self.burst[..ready].iter().enumerate().skip(first);
        let layout = self.layouts.of(&self.burst[..ready], ids);
        (packets, layout, self.burst_begin + ready as u64)
    }

    /// Those of them that other workers have not had yet, which want them, once.
    pub(crate) fn unshared(&mut self) -> Option<(&[usize], PayloadParams, &[MediaPacket])> {
        let shared = std::mem::replace(&mut self.burst_shared, self.burst.len());
        let new = self.burst.get(shared..).filter(|new| !new.is_empty())?;
        Some((self.source.as_ref()?.interested(), self.params?, new))
    }

    /// Before it takes part in a round that is under way: those who have had their turn get it in the
    /// next.
    pub(crate) fn enter_round(&mut self) {
        self.next_subscriber = 0;
    }

    /// Before what has come so far goes to everybody, each in turn.
    pub(crate) fn begin_round(&mut self) {
        self.enter_round();
        self.begin_slice();
        self.goal = self.ready;
    }

    /// Before some of those go on whose turn has not been yet: they get what has come meanwhile, too.
    pub(crate) fn begin_slice(&mut self) {
        let before = self.ready;
        self.ready = self.burst.len().min(ROUND_PACKETS_MAX);
        if self.ready == before {
            return;
        }
        self.choices = self.activity.choices();
        self.layouts.begin_anew();
        for packet in &self.burst[before..self.ready] {
            self.resend.keep(packet);
        }
        self.find_keyframes(before);
    }

    /// Everybody has had a turn. Who waits for a keyframe that is in the rest will have it.
    pub(crate) fn end_round(&mut self) {
        self.burst.drain(..self.goal);
        self.burst_begin += self.goal as u64;
        self.burst_shared = self.burst_shared.saturating_sub(self.goal);
        self.ready -= self.goal;
        self.goal = 0;
        self.layouts.begin_anew();
        self.find_keyframes(0);
    }

    fn find_keyframes(&mut self, from: usize) {
        for packet in self.burst[from..].iter().filter(|packet| packet.starts_keyframe) {
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

    /// Whether to ask the publisher for a keyframe of a layer now. One that is in what nobody has got
    /// yet will do.
    pub(crate) fn keyframe_due(&mut self, layer: u8, now: Instant) -> bool {
        let Some(gate) = self.keyframes.get_mut(usize::from(layer)) else { return false };
        let mut rest = self.burst.iter().skip(self.ready);
        if gate.wanted && rest.any(|packet| packet.starts_keyframe && packet.layer == layer) {
            gate.satisfied();
        }
        gate.due(now)
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

    fn packet(seq: u64) -> MediaPacket {
        MediaPacket {
            layer: 0,
            numbers: Numbers {
                source: 1,
                seq,
                timestamp: 0,
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
        }
    }

    /// A track with as many subscribers, and what each of them got.
    struct Room {
        track: Track,
        came: u64,
        got: Vec<(u64, Vec<u64>)>,
    }

    impl Room {
        fn new(subscribers: usize) -> Self {
            let mut track = Track::new(TrackKey(1), MediaKind::Video, 0, 0);
            (0..subscribers).for_each(|subscriber| track.add_subscriber(subscriber));
            Self { track, came: 0, got: vec![(0, Vec::new()); subscribers] }
        }

        fn come(&mut self, packets: u64) {
            let lacking = self.offer(packets);
            assert_eq!(lacking, 0);
        }

        /// The same, where there may be no room.
        fn offer(&mut self, packets: u64) -> u64 {
            let coming = (self.came..self.came + packets).map(packet);
            self.came += packets;
            self.track.extend(codecs(Role::Publisher).params()[0], coming)
        }

        /// So many of them have their turn.
        fn slice(&mut self, turns: usize) {
            self.track.begin_slice();
            for _ in 0..turns {
                let Some(subscriber) = self.track.next_subscriber() else { return };
                let (next, got) = &mut self.got[subscriber];
                let ids = ExtensionIds::default();
                let (packets, _, now) = self.track.due(*next, &ids);
                got.extend(packets.map(|(_, packet)| packet.numbers.seq));
                *next = now;
            }
        }

        fn counts(&self) -> Vec<usize> {
            self.got.iter().map(|(_, got)| got.len()).collect()
        }
    }

    #[test]
    fn who_has_not_had_a_turn_gets_what_comes_meanwhile_too() {
        let mut room = Room::new(4);
        room.come(3);
        room.track.begin_round();
        room.slice(2);
        assert_eq!(room.counts(), [3, 3, 0, 0]);
        room.come(2);
        room.slice(9);
        assert_eq!(room.counts(), [3, 3, 5, 5]);
        room.track.end_round();
        assert_eq!(room.track.burst().len(), 2, "two lack them");
        room.track.begin_round();
        room.slice(9);
        room.track.end_round();
        assert_eq!(room.counts(), [5, 5, 5, 5]);
        assert!(room.track.burst().is_empty());
    }

    #[test]
    fn a_track_that_enters_a_round_goes_to_the_others_in_the_next() {
        let mut room = Room::new(3);
        room.come(1);
        room.track.begin_round();
        room.slice(9);
        room.track.end_round();
        room.come(2);
        room.track.enter_round();
        // The first has had its turn.
        assert_eq!(room.track.next_subscriber(), Some(0));
        room.slice(9);
        room.track.end_round();
        assert_eq!(room.counts(), [1, 3, 3]);
        room.track.begin_round();
        room.slice(9);
        room.track.end_round();
        assert_eq!(room.counts(), [3, 3, 3]);
        assert!(room.track.burst().is_empty());
    }

    #[test]
    fn a_round_gives_no_one_more_packets_than_its_bound() {
        let mut room = Room::new(1);
        room.come(ROUND_PACKETS_MAX as u64 * 2 + 5);
        for got in [64, 128, 133, 133] {
            room.track.begin_round();
            room.slice(1);
            room.track.end_round();
            assert_eq!(room.counts(), [got]);
        }
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted_for_each_who_lacks_it() {
        let mut room = Room::new(3);
        room.come(BACKLOG_PACKETS_MAX as u64 - 1);
        assert_eq!(room.offer(3), 2 * 3);
        assert_eq!(room.track.burst().len(), BACKLOG_PACKETS_MAX);
        room.track.begin_round();
        room.slice(3);
        room.track.end_round();
        room.come(1);
        while !room.track.burst().is_empty() {
            room.track.begin_round();
            room.slice(3);
            room.track.end_round();
        }
        let kept: Vec<u64> = (0..1_024).chain([1_026]).collect();
        for (_, got) in &room.got {
            assert_eq!(*got, kept);
        }
    }

    #[test]
    fn no_keyframe_is_asked_for_while_one_waits_to_be_sent() {
        let now = Instant::now();
        let mut room = Room::new(1);
        room.come(ROUND_PACKETS_MAX as u64);
        let params = codecs(Role::Publisher).params()[0];
        room.track.extend(params, [MediaPacket { starts_keyframe: true, ..packet(64) }]);
        room.track.begin_round();
        room.slice(1);
        room.track.want_keyframe(1);
        room.track.want_keyframe(0);
        assert!(room.track.keyframe_due(1, now), "of another layer");
        assert!(!room.track.keyframe_due(0, now));
        room.track.end_round();
        assert!(!room.track.keyframe_due(0, now));
        room.track.begin_round();
        room.slice(1);
        assert_eq!(room.counts(), [65]);
        room.track.want_keyframe(0);
        assert!(room.track.keyframe_due(0, now), "everybody has that one");
    }

    proptest::proptest! {
        /// Whatever comes when and finds room, and whoever comes and goes: everybody who stays gets every
        /// packet once and in order.
        #[test]
        fn everybody_gets_everything_in_order(
            steps in proptest::collection::vec((0u64..70, 0usize..5, 0usize..8), 1..60),
        ) {
            let mut room = Room::new(6);
            let (mut left, mut under_way) = (Vec::new(), false);
            for (packets, turns, goes) in steps {
                let free = BACKLOG_PACKETS_MAX - room.track.burst().len();
                room.come(packets.min(free as u64));
                if !std::mem::replace(&mut under_way, true) {
                    room.track.begin_round();
                }
                room.slice(turns);
                // The first and the last stay.
                if (1..5).contains(&goes) && !left.contains(&goes) {
                    left.push(goes);
                    room.track.remove_subscriber(goes);
                }
                if turns == 4 {
                    room.slice(usize::MAX);
                    room.track.end_round();
                    under_way = false;
                }
            }
            if under_way {
                room.slice(usize::MAX);
                room.track.end_round();
            }
            while !room.track.burst().is_empty() {
                room.track.begin_round();
                room.slice(usize::MAX);
                room.track.end_round();
            }
            for (subscriber, (_, got)) in room.got.iter().enumerate() {
                let all = if left.contains(&subscriber) { got.len() as u64 } else { room.came };
                proptest::prop_assert!(got.iter().copied().eq(0..all), "{subscriber}: {got:?}");
            }
        }
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
