//! Frames of one video stream: complete, decodable, dropped, without decoding.

use std::collections::VecDeque;
use std::time::Instant;

use stampede_media::{Codec, vp8};

use super::FreezeDetector;
use crate::{Arrival, FrameCounters, FreezeCounters};

/// Most frames open at once, behind a gap that may still be repaired. At the maximum the oldest is
/// settled as it is.
pub const OPEN_FRAMES_MAX: usize = 128;
/// Most packets without payload remembered between frames not settled yet. At the maximum the
/// oldest is forgotten, and the frame around it may count as incomplete.
pub const SKIPS_MAX: usize = 256;
/// A jump of the picture id by more than this is not taken for that many lost frames.
const LOST_FRAMES_MAX: u16 = 1_024;

/// One packet that arrived in time.
#[derive(Debug, Clone, Copy)]
pub struct FramePacket<'a> {
    /// Extended sequence number.
    pub sequence: u64,
    /// RTP timestamp.
    pub timestamp: u32,
    /// RTP marker: the frame ends here.
    pub marker: bool,
    /// Payload; `None` where only the header could be read.
    pub payload: Option<&'a [u8]>,
    /// When it arrived.
    pub at: Arrival,
}

/// A frame that was complete in time.
#[derive(Debug, Clone, Copy)]
pub struct FinishedFrame {
    /// RTP timestamp.
    pub timestamp: u32,
    /// Decoding can begin here.
    pub keyframe: bool,
    /// Its last packet arrived.
    pub at: Arrival,
}

#[derive(Debug)]
struct OpenFrame {
    timestamp: u32,
    /// Lowest and highest sequence number received.
    low: u64,
    high: u64,
    packets: u64,
    /// First and last sequence number, where known.
    start: Option<u64>,
    end: Option<u64>,
    last_arrival: Arrival,
    keyframe: bool,
    descriptor: Option<vp8::Descriptor>,
}

/// What is known of the decoder's references (VP8).
#[derive(Debug, Default)]
struct References {
    /// The newest base-layer frame is decodable.
    base: bool,
    /// So are all frames of higher temporal layers since the last sync.
    upper: bool,
    base_index: Option<u8>,
    /// Of the last frame settled, whatever became of it; with its width in bits.
    picture_id: Option<u16>,
}

/// The frames of one stream. Frames are settled in order, as soon as nothing before them can
/// change any more: see [`Self::settle`].
///
/// VP8 dependencies are followed by TL0PICIDX, TID and Y where present, else by picture id, else
/// by sequence numbers (RFC 7741). Of other codecs frames are counted by timestamp and marker.
#[derive(Debug)]
pub struct FrameLedger {
    codec: Codec,
    open: VecDeque<OpenFrame>,
    /// Sequence numbers without payload behind `settled`.
    skips: VecDeque<u64>,
    /// Last sequence number of the last frame settled.
    settled: Option<u64>,
    references: References,
    counted: Counted,
    freezes: FreezeDetector,
    /// A frame since the last shown one was lost or could not be decoded.
    lossy: bool,
    finished: VecDeque<FinishedFrame>,
    shown_at: Option<Instant>,
    first_keyframe: Option<Arrival>,
    keyframe_wanted: bool,
}

#[derive(Debug, Default)]
struct Counted {
    received: u64,
    complete: u64,
    decodable: u64,
    dropped: u64,
    keyframes: u64,
}

impl FrameLedger {
    /// A ledger for a video codec.
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            open: VecDeque::new(),
            skips: VecDeque::new(),
            settled: None,
            references: References::default(),
            counted: Counted::default(),
            freezes: FreezeDetector::default(),
            lossy: false,
            finished: VecDeque::new(),
            shown_at: None,
            first_keyframe: None,
            keyframe_wanted: false,
        }
    }

    /// Takes a packet that is new and in time, in any order.
    pub fn push(&mut self, packet: FramePacket<'_>) {
        if self.settled.is_some_and(|settled| packet.sequence <= settled) {
            return;
        }
        let descriptor = match (self.codec, packet.payload) {
            (Codec::Vp8, Some(payload)) => vp8::Descriptor::parse(payload).ok(),
            _ => None,
        };
        let keyframe =
            self.codec == Codec::Vp8 && packet.payload.is_some_and(vp8::is_keyframe_packet);
        let frame = self.open_frame(&packet);
        frame.packets += 1;
        frame.low = frame.low.min(packet.sequence);
        frame.high = frame.high.max(packet.sequence);
        if packet.at.instant >= frame.last_arrival.instant {
            frame.last_arrival = packet.at;
        }
        if packet.marker {
            frame.end = Some(packet.sequence);
        }
        if let Some(descriptor) = descriptor {
            if descriptor.starts_frame() {
                frame.start = Some(packet.sequence);
            }
            frame.keyframe |= keyframe;
            frame.descriptor = Some(descriptor);
        }
    }

    /// A sequence number without payload.
    pub fn skip(&mut self, sequence: u64) {
        if self.settled.is_some_and(|settled| sequence <= settled) {
            return;
        }
        if self.skips.len() >= SKIPS_MAX {
            self.skips.pop_front();
        }
        let at = self.skips.partition_point(|&other| other < sequence);
        self.skips.insert(at, sequence);
    }

    /// Settles frames in order while nothing before them can change: `floor` is the lowest
    /// sequence number that may still arrive in time
    /// ([`SequenceLedger::open_floor`](super::SequenceLedger::open_floor)).
    pub fn settle(&mut self, floor: u64) {
        while let Some(head) = self.open.front() {
            let next_low = self.open.get(1).map(|next| next.low);
            let end = head.end.or_else(|| {
                next_low.filter(|&low| self.whole(head.high + 1, low)).map(|_| head.high)
            });
            let start = head.start.or_else(|| self.inferred_start(head));
            let complete = match (start, end) {
                (Some(start), Some(end)) => {
                    end >= start && head.packets + self.skipped(start, end) == end - start + 1
                }
                _ => false,
            };
            let settled = if complete {
                floor >= head.low
            } else {
                next_low.is_some_and(|low| floor >= low) || end.is_some_and(|end| floor > end)
            };
            if !settled && self.open.len() < OPEN_FRAMES_MAX {
                break;
            }
            self.settle_head(complete);
        }
    }

    /// Settles everything at the end of the stream. A last frame that was still arriving is not
    /// counted: it was cut by us, not lost.
    pub fn finish(&mut self) {
        self.settle(u64::MAX);
        self.open.clear();
    }

    /// The counts so far. `decodable` and `dropped` are `None` for all but VP8.
    pub fn counters(&self) -> FrameCounters {
        let known = self.codec == Codec::Vp8;
        FrameCounters {
            received: self.counted.received,
            complete: self.counted.complete,
            decodable: known.then_some(self.counted.decodable),
            dropped: known.then_some(self.counted.dropped),
            keyframes: self.counted.keyframes,
        }
    }

    /// Freezes so far.
    pub fn freezes(&self) -> FreezeCounters {
        self.freezes.counters()
    }

    /// The publisher muted or unmuted the track; see [`FreezeDetector::set_muted`].
    pub fn set_muted(&mut self, muted: bool) {
        self.freezes.set_muted(muted);
    }

    /// The next frame that was settled as complete, in order. Ask until there is none after each
    /// [`Self::settle`]: they are kept.
    pub fn next_finished(&mut self) -> Option<FinishedFrame> {
        self.finished.pop_front()
    }

    /// When the first complete keyframe was complete.
    pub fn first_keyframe(&self) -> Option<Arrival> {
        self.first_keyframe
    }

    /// A frame could not be decoded, and no complete keyframe came since: a real client asks for
    /// one (PLI).
    pub fn keyframe_wanted(&self) -> bool {
        self.keyframe_wanted
    }

    /// Counts from here on only; what is known of references stays.
    pub fn restart_counting(&mut self) {
        self.counted = Counted::default();
        self.freezes.restart_counting();
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.open.capacity() * size_of::<OpenFrame>()
            + self.skips.capacity() * size_of::<u64>()
            + self.finished.capacity() * size_of::<FinishedFrame>()
    }

    fn open_frame(&mut self, packet: &FramePacket<'_>) -> &mut OpenFrame {
        let found = self.open.iter().rposition(|frame| frame.timestamp == packet.timestamp);
        let index = found.unwrap_or_else(|| {
            let index = self.open.partition_point(|frame| frame.low < packet.sequence);
            let frame = OpenFrame {
                timestamp: packet.timestamp,
                low: packet.sequence,
                high: packet.sequence,
                packets: 0,
                start: None,
                end: None,
                last_arrival: packet.at,
                keyframe: false,
                descriptor: None,
            };
            self.open.insert(index, frame);
            index
        });
        &mut self.open[index]
    }

    /// Without a start bit: right behind the frame before, or at the beginning of the stream.
    fn inferred_start(&self, head: &OpenFrame) -> Option<u64> {
        let begins = match self.settled {
            Some(settled) => self.whole(settled + 1, head.low),
            None => self.codec != Codec::Vp8,
        };
        begins.then_some(head.low)
    }

    /// Sequence numbers without payload in `first..=last`.
    fn skipped(&self, first: u64, last: u64) -> u64 {
        let from = self.skips.partition_point(|&skip| skip < first);
        let to = self.skips.partition_point(|&skip| skip <= last);
        (to - from) as u64
    }

    /// Nothing with payload is between `first` and `next`.
    fn whole(&self, first: u64, next: u64) -> bool {
        next <= first || self.skipped(first, next - 1) == next - first
    }

    fn settle_head(&mut self, complete: bool) {
        let Some(head) = self.open.pop_front() else { return };
        let contiguous = self.settled.is_none_or(|settled| self.whole(settled + 1, head.low));
        let first_ever = self.settled.is_none();
        self.settled = Some(head.high);
        while self.skips.front().is_some_and(|&skip| skip <= head.high) {
            self.skips.pop_front();
        }
        if !complete && first_ever && self.codec == Codec::Vp8 && head.start.is_none() {
            // We joined in the middle of it.
            self.keyframe_wanted = true;
            self.remember(&head);
            return;
        }
        self.counted.received += 1;
        if complete {
            self.counted.complete += 1;
            self.finished.push_back(FinishedFrame {
                timestamp: head.timestamp,
                keyframe: head.keyframe,
                at: head.last_arrival,
            });
            if head.keyframe {
                self.counted.keyframes += 1;
                self.first_keyframe.get_or_insert(head.last_arrival);
            }
        }
        if self.codec == Codec::Vp8 {
            self.follow_references(&head, complete, contiguous);
        }
    }

    fn follow_references(&mut self, head: &OpenFrame, complete: bool, contiguous: bool) {
        let lost = if contiguous { Some(0) } else { self.frames_between(head) };
        self.counted.dropped += u64::from(lost.unwrap_or(1));
        if lost != Some(0) {
            self.lose_references(head);
        }
        let decodable = complete && self.is_decodable(head, lost == Some(0));
        self.lossy |= lost != Some(0) || !decodable;
        if decodable {
            self.counted.decodable += 1;
            let shown_at = self
                .shown_at
                .map_or(head.last_arrival.instant, |before| before.max(head.last_arrival.instant));
            self.shown_at = Some(shown_at);
            self.freezes.shown(shown_at, std::mem::take(&mut self.lossy));
        } else {
            self.counted.dropped += 1;
        }
        self.update_references(head, decodable);
        self.remember(head);
        if head.keyframe && decodable {
            self.keyframe_wanted = false;
        } else if !self.references.base {
            self.keyframe_wanted = true;
        }
    }

    /// How many frames were lost whole before this one; `None` if it can't be known.
    fn frames_between(&self, head: &OpenFrame) -> Option<u16> {
        let descriptor = head.descriptor?;
        let (before, now) = (self.references.picture_id?, descriptor.picture_id?);
        let mask = if descriptor.picture_id_wide { 0x7fff } else { 0x7f };
        let step = now.wrapping_sub(before) & mask;
        (1..=LOST_FRAMES_MAX).contains(&step).then(|| step - 1)
    }

    /// Frames were lost whole before this one: of the base layer too, unless TL0PICIDX denies it.
    fn lose_references(&mut self, head: &OpenFrame) {
        self.references.upper = false;
        let Some(descriptor) = head.descriptor else { return };
        if let (Some(tid), Some(index)) = (descriptor.temporal_id, descriptor.tl0_pic_idx) {
            let expected = if tid == 0 { index.wrapping_sub(1) } else { index };
            self.references.base &= self.references.base_index == Some(expected);
        }
    }

    fn is_decodable(&self, head: &OpenFrame, nothing_lost: bool) -> bool {
        if head.keyframe {
            return true;
        }
        let references = &self.references;
        let layers = head.descriptor.and_then(|descriptor| {
            Some((descriptor.temporal_id?, descriptor.tl0_pic_idx?, descriptor.layer_sync))
        });
        match layers {
            None => references.base && references.upper && nothing_lost,
            Some((0, index, _)) => {
                references.base
                    && (nothing_lost || references.base_index == Some(index.wrapping_sub(1)))
            }
            Some((_, index, sync)) => {
                let base_known = nothing_lost || references.base_index == Some(index);
                references.base && base_known && (sync || (references.upper && nothing_lost))
            }
        }
    }

    fn update_references(&mut self, head: &OpenFrame, decodable: bool) {
        let descriptor = head.descriptor.unwrap_or_default();
        let upper_layer = descriptor.temporal_id.unwrap_or(0) > 0;
        let references = &mut self.references;
        if decodable {
            if head.keyframe || (upper_layer && descriptor.layer_sync) {
                references.upper = true;
            }
            if !upper_layer {
                references.base = true;
                references.base_index = descriptor.tl0_pic_idx;
            }
        } else if upper_layer {
            references.upper = false;
        } else if !(descriptor.non_reference && head.descriptor.is_some()) {
            references.base = false;
        }
    }

    fn remember(&mut self, head: &OpenFrame) {
        if let Some(descriptor) = head.descriptor {
            self.references.picture_id = descriptor.picture_id;
        }
    }
}
