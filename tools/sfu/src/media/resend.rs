//! Packets kept for retransmission, once a track and worker for all its subscribers. Pure.
//!
//! Nothing is kept a subscriber: the numbers that it got a packet under follow from its
//! [`Rewriter`](super::rewrite::Rewriter), whose mappings lead back to the publisher's.

use std::time::{Duration, Instant};

use super::layers::LAYERS_MAX;
use super::packet::MediaPacket;

/// Numberings (publisher SSRCs) of one track with packets kept; of more, the one that was made
/// first goes. Twice the layers, so that a publisher may change all its SSRCs.
pub(crate) const SOURCES_MAX: usize = 2 * LAYERS_MAX;

/// The last packets of a track.
#[derive(Debug, Default)]
pub(crate) struct ResendCache {
    /// Packets kept a source.
    packets_max: usize,
    sources: Vec<Source>,
}

#[derive(Debug)]
struct Source {
    id: u32,
    /// By sequence number modulo the length.
    ring: Vec<Option<MediaPacket>>,
}

impl ResendCache {
    /// Keeps up to `packets_max` packets of each source; the oldest number gives way.
    pub(crate) fn new(packets_max: usize) -> Self {
        Self { packets_max, sources: Vec::new() }
    }

    /// Keeps a packet.
    pub(crate) fn keep(&mut self, packet: &MediaPacket) {
        if self.packets_max == 0 {
            return;
        }
        let id = packet.numbers.source;
        let at = match self.sources.iter().position(|source| source.id == id) {
            Some(at) => at,
            None => {
                if self.sources.len() >= SOURCES_MAX {
                    self.sources.remove(0);
                }
                self.sources.push(Source { id, ring: vec![None; self.packets_max] });
                self.sources.len() - 1
            }
        };
        let slot = slot(packet.numbers.seq, self.packets_max);
        self.sources[at].ring[slot] = Some(packet.clone());
    }

    /// The packet of that number of the publisher's, if it is kept and no older than `age_max`.
    pub(crate) fn get(
        &self,
        source: u32,
        seq: u64,
        now: Instant,
        age_max: Duration,
    ) -> Option<&MediaPacket> {
        let source = self.sources.iter().find(|known| known.id == source)?;
        let packet = source.ring.get(slot(seq, self.packets_max))?.as_ref()?;
        let age = now.saturating_duration_since(packet.numbers.arrived_at);
        (packet.numbers.seq == seq && age <= age_max).then_some(packet)
    }
}

fn slot(seq: u64, packets_max: usize) -> usize {
    (seq % packets_max.max(1) as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::packet::Extensions;
    use crate::media::rewrite::{Numbers, Vp8Numbers};

    fn packet(source: u32, seq: u64, arrived_at: Instant) -> MediaPacket {
        MediaPacket {
            layer: 0,
            numbers: Numbers {
                source,
                seq,
                timestamp: 0,
                vp8: Vp8Numbers::default(),
                captured_at_unix_us: None,
                arrived_at,
            },
            marker: false,
            starts_keyframe: false,
            extensions: Extensions::default(),
            payload: [].into(),
            primary_at: None,
            frame: None,
        }
    }

    #[test]
    fn the_newest_packets_of_each_source_are_kept_for_a_while() {
        let now = Instant::now();
        let age = Duration::from_secs(1);
        let mut cache = ResendCache::new(4);
        for seq in 10..15 {
            cache.keep(&packet(1, seq, now));
        }
        cache.keep(&packet(2, 10, now));
        assert!(cache.get(1, 10, now, age).is_none(), "the fifth took its place");
        assert_eq!(cache.get(1, 11, now, age).unwrap().numbers.seq, 11);
        assert_eq!(cache.get(2, 10, now, age).unwrap().numbers.source, 2);
        assert!(cache.get(2, 11, now, age).is_none());
        assert!(cache.get(1, 14, now + age * 2, age).is_none(), "too old");
    }

    #[test]
    fn sources_and_packets_are_bounded() {
        let now = Instant::now();
        let mut cache = ResendCache::new(2);
        for source in 0..SOURCES_MAX as u32 + 1 {
            cache.keep(&packet(source, 1, now));
        }
        assert!(cache.get(0, 1, now, Duration::ZERO).is_none());
        assert!(cache.get(1, 1, now, Duration::ZERO).is_some());
        let mut nothing = ResendCache::new(0);
        nothing.keep(&packet(1, 1, now));
        assert!(nothing.get(1, 1, now, Duration::ZERO).is_none());
    }
}
