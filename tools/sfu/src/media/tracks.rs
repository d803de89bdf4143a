//! The tracks of one worker, and which of them have packets to forward.

use rustc_hash::FxHashMap;
use slab::Slab;
use stampede_core::MediaKind;
use str0m::format::PayloadParams;

use super::message::TrackKey;
use super::packet::{MediaBatch, MediaPacket};
use super::source::Source;
use super::track::Track;

/// Packets of one video stream kept for retransmission, once for all subscribers: 256 packets are
/// 1.3 s of a 190 packets/s stream, more than twice the playout deadline of 500 ms.
const RESEND_PACKETS_MAX: usize = 256;

/// Tracks by index and key.
#[derive(Default)]
pub(crate) struct TrackTable {
    tracks: Slab<Track>,
    by_key: FxHashMap<TrackKey, usize>,
    /// Those with packets to forward.
    bursts: Vec<usize>,
    /// Packets that found no room, once for each subscriber.
    packets_dropped: u64,
    /// Packets of SSRCs that are not looked at.
    packets_ignored: u64,
    /// Numberings of publishers made so far.
    sources: u32,
}

impl TrackTable {
    /// The index of a track, which is made if need be. `home` is its publisher's worker.
    pub(crate) fn find_or_insert(&mut self, key: TrackKey, kind: MediaKind, home: usize) -> usize {
        if let Some(&index) = self.by_key.get(&key) {
            return index;
        }
        let packets_max = match kind {
            MediaKind::Video => RESEND_PACKETS_MAX,
            MediaKind::Audio => 0,
        };
        let index = self.tracks.insert(Track::new(key, kind, home, packets_max));
        self.by_key.insert(key, index);
        index
    }

    pub(crate) fn index_of(&self, key: TrackKey) -> Option<usize> {
        self.by_key.get(&key).copied()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Track> {
        self.tracks.get(index)
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut Track> {
        self.tracks.get_mut(index)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Track> {
        self.tracks.iter().map(|(_, track)| track)
    }

    /// Indices of the tracks of one publisher.
    pub(crate) fn published_by(&self, peer: usize) -> Vec<usize> {
        let of_peer = |track: &Track| track.source().is_some_and(|source| source.peer() == peer);
        self.tracks.iter().filter(|(_, track)| of_peer(track)).map(|(index, _)| index).collect()
    }

    /// A number for a publisher's SSRC that no other has.
    pub(crate) fn next_source_id(&mut self) -> u32 {
        self.sources += 1;
        self.sources
    }

    /// A packet came of an SSRC beyond those of its publisher that are looked at.
    pub(crate) fn ignore_packet(&mut self) {
        self.packets_ignored += 1;
    }

    /// How many did.
    pub(crate) fn packets_ignored(&self) -> u64 {
        self.packets_ignored
    }

    /// A peer no longer gets the track, which is forgotten if nobody does or sends it.
    pub(crate) fn leave(&mut self, index: usize, peer: usize) {
        if let Some(track) = self.tracks.get_mut(index) {
            track.remove_subscriber(peer);
        }
        self.forget_if_unused(index);
    }

    /// Takes the publisher from the track, which is forgotten if nobody gets it.
    pub(crate) fn end_source(&mut self, index: usize) -> Option<Source> {
        let source = self.tracks.get_mut(index)?.take_source()?;
        self.forget_if_unused(index);
        Some(source)
    }

    fn forget_if_unused(&mut self, index: usize) {
        if self.tracks.get(index).is_some_and(Track::is_unused) {
            let track = self.tracks.remove(index);
            self.by_key.remove(&track.key());
            self.bursts.retain(|&burst| burst != index);
        }
    }

    /// Takes packets of a track that are to be forwarded. Those that find no room are dropped and
    /// counted.
    pub(crate) fn take(
        &mut self,
        index: usize,
        params: PayloadParams,
        packets: impl IntoIterator<Item = MediaPacket>,
    ) {
        let Some(track) = self.tracks.get_mut(index) else { return };
        if track.burst().is_empty() {
            self.bursts.push(index);
        }
        self.packets_dropped += track.extend(params, packets);
    }

    /// Takes packets that another worker's publisher sent.
    pub(crate) fn extend(&mut self, batch: MediaBatch) {
        if let Some(index) = self.index_of(batch.track) {
            self.take(index, batch.params, batch.packets);
        }
    }

    /// Packets that found no room, once for each subscriber that lacks them.
    pub(crate) fn packets_dropped(&self) -> u64 {
        self.packets_dropped
    }

    /// Whether any track has packets to forward.
    pub(crate) fn has_bursts(&self) -> bool {
        !self.bursts.is_empty()
    }

    /// Indices of the tracks with packets to forward, which are then to be given back.
    pub(crate) fn take_bursts(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.bursts)
    }

    /// Keeps of these tracks those that still have packets to forward.
    pub(crate) fn put_back_bursts(&mut self, bursts: Vec<usize>) {
        // Behind those that have come since: a burst whose index is lost is never sent.
        for index in bursts {
            let waits = self.tracks.get(index).is_some_and(|track| !track.burst().is_empty());
            if waits && !self.bursts.contains(&index) {
                self.bursts.push(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]

    use std::time::Instant;

    use super::*;
    use crate::media::connection::codecs;
    use crate::media::message::Role;
    use crate::media::packet::{Extensions, MediaPacket};
    use crate::media::rewrite::{Numbers, Vp8Numbers};

    #[test]
    fn a_burst_that_comes_while_others_are_sent_is_not_forgotten() {
        let mut tracks = TrackTable::default();
        let params = *codecs(Role::Publisher).params().first().unwrap();
        let numbers = Numbers {
            source: 1,
            seq: 1,
            timestamp: 0,
            vp8: Vp8Numbers::default(),
            captured_at_unix_us: None,
            arrived_at: Instant::now(),
        };
        let packet = MediaPacket {
            layer: 0,
            numbers,
            marker: true,
            starts_keyframe: false,
            extensions: Extensions::default(),
            payload: [].into(),
            primary_at: None,
            frame: None,
        };
        let come = |tracks: &mut TrackTable, key| {
            tracks.find_or_insert(TrackKey(key), MediaKind::Audio, 0);
            tracks.extend(MediaBatch {
                track: TrackKey(key),
                params,
                packets: vec![packet.clone()],
            });
        };
        for key in [1, 2] {
            come(&mut tracks, key);
        }
        let taken = tracks.take_bursts();
        assert_eq!(taken, [0, 1]);
        come(&mut tracks, 3);
        let first = tracks.get_mut(0).unwrap();
        first.begin_round();
        first.end_round();
        come(&mut tracks, 1);
        tracks.put_back_bursts(taken);
        let mut waiting = tracks.take_bursts();
        waiting.sort_unstable();
        assert_eq!(waiting, [0, 1, 2]);
    }
}
