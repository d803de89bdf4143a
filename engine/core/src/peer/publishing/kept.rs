//! What was sent of a layer and may be asked for again. Pure.
//!
//! Kept are no packets but what they were made of: the frame of the clip, which all publishers share,
//! and its numbers. Made again they are the same.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::peer::RETRANSMIT_AGE_MAX;

/// A frame that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SentFrame {
    /// Sequence number of its first packet, extended.
    pub(super) first_sequence: u64,
    /// How many packets it has.
    pub(super) packets: usize,
    /// Index in the layer's clip.
    pub(super) index: usize,
    /// RTP timestamp.
    pub(super) timestamp: u32,
    pub(super) picture_id: u16,
    pub(super) tl0_pic_idx: u8,
    /// Number of its first layer frame (dependency descriptor).
    pub(super) frame_number: u16,
    /// When it was captured, since the Unix epoch, if that is said.
    pub(super) captured: Option<Duration>,
    /// Its last packet has LiveKit's trailer.
    pub(super) trailer: bool,
}

/// The frames of a layer's last packets.
#[derive(Debug, Default)]
pub(super) struct Kept {
    frames: VecDeque<(Instant, SentFrame)>,
    /// Most packets.
    packets_max: u64,
}

impl Kept {
    pub(super) fn new(packets_max: usize) -> Self {
        Self { frames: VecDeque::new(), packets_max: packets_max as u64 }
    }

    /// Keeps a frame, and lets go what is too old or too far back.
    pub(super) fn keep(&mut self, now: Instant, frame: SentFrame) {
        let next = frame.first_sequence + frame.packets as u64;
        self.frames.push_back((now, frame));
        let too_old = |(at, frame): &(Instant, SentFrame)| {
            let end = frame.first_sequence + frame.packets as u64;
            now.saturating_duration_since(*at) > RETRANSMIT_AGE_MAX
                || end + self.packets_max <= next
        };
        while self.frames.front().is_some_and(too_old) {
            self.frames.pop_front();
        }
    }

    /// The frame and the packet in it of a sequence number, as a NACK names it, unless it is too old.
    pub(super) fn find(&self, now: Instant, sequence: u16) -> Option<(SentFrame, usize)> {
        let (_, last) = self.frames.back()?;
        let newest = last.first_sequence + last.packets as u64 - 1;
        let back = u64::from((newest as u16).wrapping_sub(sequence));
        let wanted = newest.checked_sub(back).filter(|_| back < self.packets_max)?;
        let at = self.frames.partition_point(|(_, frame)| frame.first_sequence <= wanted);
        let (at, frame) = self.frames.get(at.checked_sub(1)?)?;
        if now.saturating_duration_since(*at) > RETRANSMIT_AGE_MAX {
            return None;
        }
        let packet = (wanted - frame.first_sequence) as usize;
        (packet < frame.packets).then_some((*frame, packet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first_sequence: u64, packets: usize) -> SentFrame {
        SentFrame {
            first_sequence,
            packets,
            index: 0,
            timestamp: 0,
            picture_id: 0,
            tl0_pic_idx: 0,
            frame_number: 0,
            captured: None,
            trailer: false,
        }
    }

    #[test]
    fn packets_are_found_by_their_numbers_over_the_wrap() {
        let (start, mut kept) = (Instant::now(), Kept::new(512));
        assert_eq!(kept.find(start, 1), None);
        let begin = 65_530;
        for number in 0..5 {
            kept.keep(start, frame(begin + number * 3, 3));
        }
        for sequence in begin..begin + 15 {
            let (found, packet) = kept.find(start, sequence as u16).unwrap();
            assert_eq!(found.first_sequence + packet as u64, sequence);
        }
        assert_eq!(kept.find(start, (begin - 1) as u16), None, "before the first");
        assert_eq!(kept.find(start, (begin + 15) as u16), None, "not sent yet");
    }

    #[test]
    fn a_frame_of_nothing_is_passed_over() {
        let (start, mut kept) = (Instant::now(), Kept::new(512));
        kept.keep(start, frame(7, 2));
        kept.keep(start, frame(20, 1));
        assert_eq!(kept.find(start, 9), None, "what was between was not kept");
        assert!(kept.find(start, 8).is_some() && kept.find(start, 20).is_some());
    }

    #[test]
    fn too_many_and_too_old_ones_are_let_go() {
        let (start, mut kept) = (Instant::now(), Kept::new(10));
        for number in 0..10 {
            kept.keep(start, frame(1 + number * 4, 4));
        }
        assert_eq!(kept.frames.len(), 3, "not more than it takes");
        assert!(kept.find(start, 31).is_some());
        assert_eq!(kept.find(start, 30), None, "ten packets and no more");
        // A layer that pauses keeps its last ones.
        let late = start + RETRANSMIT_AGE_MAX + Duration::from_millis(1);
        assert!(kept.find(start + RETRANSMIT_AGE_MAX, 40).is_some());
        assert_eq!(kept.find(late, 40), None);
        kept.keep(late, frame(41, 4));
        assert_eq!(kept.frames.len(), 1);
        assert_eq!(kept.find(start, 40), None);
    }
}
