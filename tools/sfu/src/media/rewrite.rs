//! Rewriting of sequence numbers, timestamps and VP8 picture ids. Pure.
//!
//! It is done in two steps so that the part repeated for every subscriber is a few additions:
//! [`DenseSequence`] takes padding-only packets out of a publisher's numbering once, and a
//! [`Rewriter`] per subscription adds offsets that only change when its source changes.

use std::collections::VecDeque;
use std::time::Instant;

/// Padding positions remembered, so that a packet that arrives late is numbered right. When there
/// are more, the oldest is forgotten and packets before it are refused as too late.
pub(crate) const PADDING_POSITIONS_MAX: usize = 64;

/// A publisher's extended sequence numbers with padding-only packets taken out.
///
/// Holes left by packets lost upstream stay holes, so that a subscriber sees the loss.
#[derive(Debug, Default)]
pub(crate) struct DenseSequence {
    highest: Option<u64>,
    paddings: VecDeque<u64>,
    forgotten: u64,
    forgotten_up_to: Option<u64>,
}

impl DenseSequence {
    /// Takes a padding-only packet out of the numbering. One that arrives after a later packet
    /// was already numbered leaves a hole: the later numbers can't be taken back.
    pub(crate) fn padding(&mut self, seq: u64) {
        if self.highest.is_some_and(|highest| seq <= highest) {
            return;
        }
        self.highest = Some(seq);
        self.paddings.push_back(seq);
        if self.paddings.len() > PADDING_POSITIONS_MAX {
            self.forgotten_up_to = self.paddings.pop_front();
            self.forgotten += 1;
        }
    }

    /// The dense number of a media packet; `None` when it is older than what is remembered.
    pub(crate) fn map(&mut self, seq: u64) -> Option<u64> {
        if self.forgotten_up_to.is_some_and(|position| seq <= position) {
            return None;
        }
        self.highest = Some(self.highest.map_or(seq, |highest| highest.max(seq)));
        let before = self.paddings.iter().rev().skip_while(|&&position| position > seq).count();
        seq.checked_sub(self.forgotten + before as u64)
    }
}

/// VP8 payload descriptor fields that must stay continuous over a switch (RFC 7741 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Vp8Numbers {
    /// PictureID and how many bits it has (7 or 15).
    pub(crate) picture_id: Option<u16>,
    /// TL0PICIDX.
    pub(crate) tl0_pic_idx: Option<u8>,
    /// KEYIDX, 5 bits.
    pub(crate) key_idx: Option<u8>,
}

/// What a rewriter needs to know of a packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    /// Identifies the numbering: one publisher SSRC.
    pub(crate) source: u32,
    /// Dense extended sequence number in that numbering.
    pub(crate) seq: u64,
    /// RTP timestamp.
    pub(crate) timestamp: u32,
    /// VP8 numbers, default for other codecs.
    pub(crate) vp8: Vp8Numbers,
    /// Capture time by the publisher's sender reports, microseconds since the Unix epoch.
    pub(crate) captured_at_unix_us: Option<i64>,
    /// When it arrived.
    pub(crate) arrived_at: Instant,
}

/// The numbers a subscriber gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rewritten {
    /// Extended sequence number.
    pub(crate) seq: u64,
    /// RTP timestamp.
    pub(crate) timestamp: u32,
    /// VP8 numbers to patch in, `None` when they stay as they are.
    pub(crate) vp8: Option<Vp8Numbers>,
}

/// Mappings of earlier sources that a [`Rewriter`] remembers for retransmissions; of more, the
/// oldest is forgotten. Keyframes bound how often a source can change.
pub(crate) const EARLIER_MAPPINGS_MAX: usize = 8;

/// Rewrites one subscription's packets so that switches of the source can't be seen.
#[derive(Debug, Clone)]
pub(crate) struct Rewriter {
    mapping: Mapping,
    /// Whether packets of the mapping's source pass.
    passing: bool,
    started: bool,
    last: Last,
    earlier: VecDeque<Mapping>,
}

/// How the numbers of one source become those of a subscriber.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mapping {
    /// Identifies the numbering: one publisher SSRC.
    pub(crate) source: u32,
    first_seq: u64,
    seq_offset: u64,
    timestamp_offset: u32,
    picture_id_offset: u16,
    tl0_offset: u8,
    key_idx_offset: u8,
    vp8_patched: bool,
}

/// The last packet in order that was forwarded: outgoing numbers and when it was.
#[derive(Debug, Clone, Copy)]
struct Last {
    seq: u64,
    timestamp: u32,
    picture_id: u16,
    tl0_pic_idx: u8,
    key_idx: u8,
    captured_at_unix_us: Option<i64>,
    arrived_at: Option<Instant>,
}

/// PictureIDs count modulo 2^15; a 7-bit one is its low bits.
const PICTURE_ID_MASK: u16 = 0x7fff;
/// KEYIDX counts modulo 2^5.
const KEY_IDX_MASK: u8 = 0x1f;
/// A switch is never taken to last longer than this; a clock that jumped is not believed.
const SWITCH_GAP_US_MAX: i64 = 60_000_000;

impl Rewriter {
    /// `first_seq` is the sequence number of the first packet to be sent; below 2^16 because a
    /// receiver can't know the SRTP rollover counter of a later start (RFC 3711 §3.3.1).
    pub(crate) fn new(first_seq: u16) -> Self {
        Self {
            mapping: Mapping {
                source: 0,
                first_seq: 0,
                seq_offset: 0,
                timestamp_offset: 0,
                picture_id_offset: 0,
                tl0_offset: 0,
                key_idx_offset: 0,
                vp8_patched: false,
            },
            passing: false,
            started: false,
            earlier: VecDeque::new(),
            last: Last {
                seq: u64::from(first_seq).wrapping_sub(1),
                timestamp: 0,
                picture_id: 0,
                tl0_pic_idx: 0,
                key_idx: 0,
                captured_at_unix_us: None,
                arrived_at: None,
            },
        }
    }

    /// The source whose packets pass now.
    pub(crate) fn source(&self) -> Option<u32> {
        self.passing.then_some(self.mapping.source)
    }

    /// The source that passed last.
    pub(crate) fn newest(&self) -> u32 {
        self.mapping.source
    }

    /// Lets nothing pass until the next [`switch`](Self::switch).
    pub(crate) fn stop(&mut self) {
        self.passing = false;
    }

    /// Makes the source of `packet` the one that passes, from this packet on, and numbers it on
    /// where the old one ended. For video the packet has to start a keyframe.
    pub(crate) fn switch(&mut self, packet: &Numbers, clock_rate: u32) {
        let before = self.mapping;
        let mapping = &mut self.mapping;
        mapping.source = packet.source;
        mapping.first_seq = packet.seq;
        mapping.seq_offset = self.last.seq.wrapping_add(1).wrapping_sub(packet.seq);
        self.passing = true;
        if !self.started {
            self.started = true;
            return;
        }
        if self.earlier.len() >= EARLIER_MAPPINGS_MAX {
            self.earlier.pop_front();
        }
        self.earlier.push_back(before);
        let timestamp = self.last.timestamp.wrapping_add(self.ticks_since_last(packet, clock_rate));
        let mapping = &mut self.mapping;
        mapping.timestamp_offset = timestamp.wrapping_sub(packet.timestamp);
        mapping.vp8_patched = true;
        if let Some(picture_id) = packet.vp8.picture_id {
            let next = self.last.picture_id.wrapping_add(1);
            mapping.picture_id_offset = next.wrapping_sub(picture_id) & PICTURE_ID_MASK;
        }
        if let Some(tl0) = packet.vp8.tl0_pic_idx {
            mapping.tl0_offset = self.last.tl0_pic_idx.wrapping_add(1).wrapping_sub(tl0);
        }
        if let Some(key_idx) = packet.vp8.key_idx {
            let next = self.last.key_idx.wrapping_add(1);
            mapping.key_idx_offset = next.wrapping_sub(key_idx) & KEY_IDX_MASK;
        }
    }

    /// Media time between the last packet sent and this one, by the publisher's clock where both
    /// are known and else by arrival; at least a millisecond, so that frames stay distinct.
    fn ticks_since_last(&self, packet: &Numbers, clock_rate: u32) -> u32 {
        let by_capture = match (self.last.captured_at_unix_us, packet.captured_at_unix_us) {
            (Some(then), Some(now)) => Some(now - then).filter(|us| *us < SWITCH_GAP_US_MAX),
            _ => None,
        };
        let by_arrival = || {
            self.last.arrived_at.map_or(0, |then| {
                let gap = packet.arrived_at.saturating_duration_since(then);
                i64::try_from(gap.as_micros()).unwrap_or(SWITCH_GAP_US_MAX)
            })
        };
        let us = by_capture.unwrap_or_else(by_arrival).clamp(1_000, SWITCH_GAP_US_MAX);
        let ticks = us * i64::from(clock_rate) / 1_000_000;
        u32::try_from(ticks).unwrap_or(clock_rate)
    }

    /// The outgoing numbers of a packet of the current source; `None` for one of another source
    /// or from before the switch.
    pub(crate) fn rewrite(&mut self, packet: &Numbers) -> Option<Rewritten> {
        if self.source() != Some(packet.source) {
            return None;
        }
        let out = self.mapping.apply(packet)?;
        if out.seq.wrapping_sub(self.last.seq) as i64 > 0 {
            let vp8 = self.mapping.vp8(packet.vp8);
            self.last = Last {
                seq: out.seq,
                timestamp: out.timestamp,
                picture_id: vp8.picture_id.unwrap_or(self.last.picture_id),
                tl0_pic_idx: vp8.tl0_pic_idx.unwrap_or(self.last.tl0_pic_idx),
                key_idx: vp8.key_idx.unwrap_or(self.last.key_idx),
                captured_at_unix_us: packet.captured_at_unix_us,
                arrived_at: Some(packet.arrived_at),
            };
        }
        Some(out)
    }

    /// RTP timestamp and arrival of the newest packet that passed.
    pub(crate) fn last_passed(&self) -> Option<(u32, Instant)> {
        Some((self.last.timestamp, self.last.arrived_at?))
    }

    /// What became of a number that the subscriber got: the mapping it was made by and the
    /// publisher's sequence number. `None` for one that can't have been sent.
    pub(crate) fn trace(&self, seq: u16) -> Option<(Mapping, u64)> {
        self.last.arrived_at?;
        let behind = (self.last.seq as u16).wrapping_sub(seq);
        let seq = self.last.seq.checked_sub(u64::from(behind))?;
        let newest_first = std::iter::once(&self.mapping).chain(self.earlier.iter().rev());
        let mapping = newest_first.into_iter().find(|mapping| mapping.first_out() <= seq)?;
        Some((*mapping, seq.wrapping_sub(mapping.seq_offset)))
    }
}

impl Mapping {
    /// The first number a subscriber got by it.
    fn first_out(&self) -> u64 {
        self.first_seq.wrapping_add(self.seq_offset)
    }

    /// The outgoing numbers of a packet of its source; `None` for one from before the switch.
    pub(crate) fn apply(&self, packet: &Numbers) -> Option<Rewritten> {
        (packet.seq >= self.first_seq).then(|| Rewritten {
            seq: packet.seq.wrapping_add(self.seq_offset),
            timestamp: packet.timestamp.wrapping_add(self.timestamp_offset),
            vp8: self.vp8_patched.then(|| self.vp8(packet.vp8)),
        })
    }

    fn vp8(&self, vp8: Vp8Numbers) -> Vp8Numbers {
        Vp8Numbers {
            picture_id: vp8
                .picture_id
                .map(|id| id.wrapping_add(self.picture_id_offset) & PICTURE_ID_MASK),
            tl0_pic_idx: vp8.tl0_pic_idx.map(|tl0| tl0.wrapping_add(self.tl0_offset)),
            key_idx: vp8
                .key_idx
                .map(|key_idx| key_idx.wrapping_add(self.key_idx_offset) & KEY_IDX_MASK),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::time::Duration;

    fn packet(source: u32, seq: u64, timestamp: u32, at: Instant) -> Numbers {
        Numbers {
            source,
            seq,
            timestamp,
            vp8: Vp8Numbers {
                picture_id: Some((timestamp / 3_000) as u16 & PICTURE_ID_MASK),
                tl0_pic_idx: Some((timestamp / 3_000) as u8),
                key_idx: None,
            },
            captured_at_unix_us: None,
            arrived_at: at,
        }
    }

    #[test]
    fn a_switch_continues_every_number() {
        let now = Instant::now();
        let mut rewriter = Rewriter::new(100);
        let first = packet(1, 900_000, 3_000, now);
        rewriter.switch(&first, 90_000);
        let out = rewriter.rewrite(&first).unwrap();
        assert_eq!((out.seq, out.timestamp, out.vp8), (100, 3_000, None));
        assert_eq!(rewriter.rewrite(&packet(1, 900_001, 6_000, now)).unwrap().seq, 101);
        assert_eq!(rewriter.rewrite(&packet(2, 5, 0, now)), None, "not the current source");

        let later = now + Duration::from_millis(100);
        let switch = packet(2, 7, 3_000_000, later);
        rewriter.switch(&switch, 90_000);
        let out = rewriter.rewrite(&switch).unwrap();
        assert_eq!((out.seq, out.timestamp), (102, 6_000 + 9_000));
        let vp8 = out.vp8.unwrap();
        assert_eq!((vp8.picture_id, vp8.tl0_pic_idx), (Some(3), Some(3)));
        assert_eq!(rewriter.rewrite(&packet(2, 6, 0, later)), None, "from before the switch");
        assert_eq!(rewriter.rewrite(&packet(1, 900_002, 9_000, later)), None, "the old source");
    }

    #[test]
    fn behind_more_padding_than_is_remembered_a_late_packet_is_refused() {
        let mut dense = DenseSequence::default();
        assert_eq!(dense.map(10), Some(10));
        let last = 11 + PADDING_POSITIONS_MAX as u64;
        (12..=last).for_each(|seq| dense.padding(seq));
        assert_eq!(dense.map(11), Some(11));
        dense.padding(last + 1);
        assert_eq!(dense.map(11), None, "it is not known any more how many came before");
        assert_eq!(dense.map(last + 2), Some(12));
    }

    #[test]
    fn of_more_sources_than_are_remembered_the_oldest_is_forgotten() {
        let now = Instant::now();
        let mut rewriter = Rewriter::new(100);
        let sources = EARLIER_MAPPINGS_MAX as u32 + 2;
        for source in 1..=sources {
            let first = packet(source, 500, 3_000 * source, now);
            rewriter.switch(&first, 90_000);
            assert_eq!(rewriter.rewrite(&first).unwrap().seq, 99 + u64::from(source));
        }
        let source = |sent| rewriter.trace(sent).map(|(mapping, _)| mapping.source);
        assert_eq!((source(100), source(101)), (None, Some(2)));
        assert_eq!(source(99 + sources as u16), Some(sources));
    }

    #[test]
    fn numbers_sent_lead_back_to_the_packet_they_were_made_of() {
        let now = Instant::now();
        let mut rewriter = Rewriter::new(0xfffe);
        assert!(rewriter.trace(0xfffe).is_none(), "nothing was sent");
        let mut sent = Vec::new();
        for (source, first) in [(1, 500), (2, 70_000), (1, 600)] {
            rewriter.switch(&packet(source, first, 0, now), 90_000);
            for seq in first..first + 3 {
                let out = rewriter.rewrite(&packet(source, seq, seq as u32, now)).unwrap();
                sent.push((source, seq, out));
            }
        }
        rewriter.stop();
        for (source, seq, out) in sent {
            let (mapping, found) = rewriter.trace(out.seq as u16).unwrap();
            assert_eq!((mapping.source, found), (source, seq));
            assert_eq!(mapping.apply(&packet(source, seq, seq as u32, now)), Some(out));
        }
        assert!(rewriter.trace(0xfffd).is_none(), "before the first");
        assert!(rewriter.trace(8).is_none(), "not sent yet");
    }

    #[test]
    fn holes_upstream_stay_holes_and_late_packets_fill_them() {
        let now = Instant::now();
        let mut rewriter = Rewriter::new(10);
        rewriter.switch(&packet(1, 50, 0, now), 90_000);
        let seqs: Vec<u64> = [50, 51, 54, 52]
            .map(|seq| rewriter.rewrite(&packet(1, seq, 0, now)).unwrap().seq)
            .to_vec();
        assert_eq!(seqs, [10, 11, 14, 12]);
    }

    #[test]
    fn the_publishers_clock_decides_the_timestamp_of_a_switch() {
        let now = Instant::now();
        let mut rewriter = Rewriter::new(1);
        let mut first = packet(1, 1, 1_000, now);
        first.captured_at_unix_us = Some(5_000_000);
        rewriter.switch(&first, 90_000);
        rewriter.rewrite(&first).unwrap();
        let mut second = packet(2, 1, 777, now + Duration::from_millis(500));
        second.captured_at_unix_us = Some(5_040_000);
        rewriter.switch(&second, 90_000);
        assert_eq!(rewriter.rewrite(&second).unwrap().timestamp, 1_000 + 3_600);
    }

    #[test]
    fn padding_leaves_no_hole() {
        let mut dense = DenseSequence::default();
        assert_eq!(dense.map(100), Some(100));
        dense.padding(101);
        dense.padding(102);
        assert_eq!(dense.map(103), Some(101));
        assert_eq!(dense.map(99), Some(99), "late, from before the padding");
        dense.padding(90);
        assert_eq!(dense.map(105), Some(103), "a late padding changes nothing");
    }

    proptest! {
        /// In order, media packets of any mix with padding are numbered without holes; numbers
        /// are never used twice, whatever the order.
        #[test]
        fn dense_numbers_are_dense_and_unique(
            kinds in proptest::collection::vec(any::<bool>(), 1..300),
            swaps in proptest::collection::vec(0usize..300, 0..20),
        ) {
            let mut dense = DenseSequence::default();
            let mut next = None;
            for (i, media) in kinds.iter().enumerate() {
                let seq = 1_000 + i as u64;
                if *media {
                    let mapped = dense.map(seq).unwrap();
                    prop_assert!(next.is_none_or(|next| next == mapped));
                    next = Some(mapped + 1);
                } else {
                    dense.padding(seq);
                }
            }
            let mut shuffled: Vec<(u64, bool)> =
                kinds.iter().enumerate().map(|(i, k)| (1_000 + i as u64, *k)).collect();
            for i in swaps {
                let len = shuffled.len();
                shuffled.swap(i % len, (i + 3) % len);
            }
            let mut dense = DenseSequence::default();
            let mut seen = BTreeSet::new();
            for (seq, media) in shuffled {
                if media {
                    if let Some(mapped) = dense.map(seq) {
                        prop_assert!(seen.insert(mapped), "{mapped} twice");
                    }
                } else {
                    dense.padding(seq);
                }
            }
        }

        /// Any run of switches gives consecutive sequence numbers and picture ids, and
        /// timestamps that only grow.
        #[test]
        fn switches_are_invisible(
            runs in proptest::collection::vec((0u64..1 << 40, any::<u32>(), 1u64..20), 1..20),
        ) {
            let start = Instant::now();
            let mut at = start;
            let mut rewriter = Rewriter::new(65_530);
            let mut last: Option<Rewritten> = None;
            let mut last_id: Option<u16> = None;
            for (source, (seq, timestamp, len)) in runs.into_iter().enumerate() {
                for i in 0..len {
                    at += Duration::from_millis(33);
                    let numbers = Numbers {
                        source: source as u32,
                        seq: seq + i,
                        timestamp: timestamp.wrapping_add(i as u32 * 3_000),
                        vp8: Vp8Numbers {
                            picture_id: Some((timestamp as u16).wrapping_add(i as u16) & 0x7fff),
                            ..Vp8Numbers::default()
                        },
                        captured_at_unix_us: None,
                        arrived_at: at,
                    };
                    if i == 0 {
                        rewriter.switch(&numbers, 90_000);
                    }
                    let out = rewriter.rewrite(&numbers).unwrap();
                    let id = out.vp8.map_or(numbers.vp8.picture_id, |vp8| vp8.picture_id);
                    if let Some(last) = last {
                        prop_assert_eq!(out.seq, last.seq + 1);
                        prop_assert!((out.timestamp.wrapping_sub(last.timestamp) as i32) > 0);
                        prop_assert_eq!(id, last_id.map(|id| (id + 1) & 0x7fff));
                    } else {
                        prop_assert_eq!(out.seq, 65_530);
                    }
                    last = Some(out);
                    last_id = id;
                }
            }
        }
    }
}
