//! Frames of one video stream: complete, decodable, dropped, without decoding.

use std::collections::VecDeque;
use std::time::Instant;

use stampede_media::Codec;

use super::FreezeDetector;
use super::packet::FramePacket;
use super::references::{FrameInfo, Gap, Heights, JudgedFrame, Layer, References};
use crate::watch::{Cover, FrameTime, LayerMeter, LayerTime, Span, Trouble};
use crate::{Arrival, FrameCounters, FreezeCounters};

/// Most frames open at once, behind a gap that may still be repaired. At the maximum the oldest is
/// judged as it is.
pub const OPEN_FRAMES_MAX: usize = 128;
/// Room for so many open frames is kept once none is open any more.
const OPEN_FRAMES_KEPT: usize = 4;
/// Most packets without payload remembered between frames not judged yet. At the maximum the
/// oldest is forgotten, and the frame around it may count as incomplete.
pub const SKIPS_MAX: usize = 256;

/// A frame that was complete in time.
#[derive(Debug, Clone, Copy)]
pub struct FinishedFrame {
    /// RTP timestamp.
    pub timestamp: u32,
    /// Extended sequence number of its last packet with payload.
    pub last_sequence: u64,
    /// Decoding can begin here.
    pub keyframe: bool,
    /// Every frame it depends on is decodable too.
    pub decodable: bool,
    /// Its last packet arrived.
    pub at: Arrival,
    /// It lies in the measured window.
    pub measured: bool,
    /// It is a picture to be seen; others refer to one that is not (an alternate reference frame).
    pub shown: bool,
    /// Height of its picture in pixels, where known; `None` for audio.
    pub height: Option<u16>,
}

#[derive(Debug)]
struct OpenFrame {
    timestamp: u32,
    /// Lowest and highest sequence number received.
    low: u64,
    high: u64,
    packets: u64,
    /// Last sequence number, where known.
    end: Option<u64>,
    last_arrival: Arrival,
    /// It lies in the measured window.
    measured: bool,
    info: FrameInfo,
}

/// Where signalling said that the track stands still, in sequence numbers: it may come before or
/// after the pause in the media.
#[derive(Debug, Clone, Copy)]
struct Pause {
    /// The highest when it was muted.
    after: u64,
    /// The highest when it was unmuted.
    until: Option<u64>,
}

/// The frames of one stream. Frames are judged in order, as soon as nothing before them can
/// change any more: see [`Self::judge`].
///
/// This file puts packets together into frames; which frame depends on which is followed codec by
/// codec in `references`. Of audio nothing is counted here.
#[derive(Debug)]
#[repr(C)]
pub struct FrameLedger {
    open: VecDeque<OpenFrame>,
    /// Last sequence number of the last frame judged.
    judged: Option<u64>,
    /// First sequence number of the measured window.
    measured_from: u64,
    references: Option<References>,
    /// Whether the last frame judged was whole at its end.
    judged_end: bool,
    /// A frame since the last shown one was lost or could not be decoded.
    lossy: bool,
    /// What was seen since the last shown one.
    trouble: Trouble,
    keyframe_wanted: bool,
    /// Sequence numbers without payload behind `judged`.
    skips: VecDeque<u64>,
    counted: Counted,
    pause: Option<Pause>,
    shown_at: Option<Arrival>,
    /// The first frame shown after `awaited_after` is still to come.
    awaiting: bool,
    /// `None`: the first of all.
    awaited_after: Option<Instant>,
    awaited: Option<Arrival>,
    /// Last sequence number of the last frame shown.
    shown: Option<u64>,
    freezes: FreezeDetector,
    /// The server's own picture is on the screen, not the publisher's.
    blanked: bool,
    cover: Cover,
    clock_rate: u32,
    heights: Heights,
    layers: LayerMeter,
    first_keyframe: Option<Arrival>,
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
            open: VecDeque::new(),
            skips: VecDeque::new(),
            judged: None,
            judged_end: false,
            references: References::new(codec),
            counted: Counted::default(),
            freezes: FreezeDetector::default(),
            blanked: false,
            cover: Cover::default(),
            heights: Heights::default(),
            layers: LayerMeter::default(),
            clock_rate: codec.clock_rate(),
            lossy: false,
            trouble: Trouble::default(),
            shown_at: None,
            awaiting: true,
            awaited_after: None,
            awaited: None,
            shown: None,
            pause: None,
            measured_from: 0,
            first_keyframe: None,
            keyframe_wanted: false,
        }
    }

    /// Takes a packet that is new and in time, in any order; true if it begins or ends a frame, so
    /// that there may be something to judge, even where it came in its turn.
    pub fn push(&mut self, packet: FramePacket<'_>) -> bool {
        if self.judged.is_some_and(|judged| packet.sequence <= judged) {
            return false;
        }
        let Some(frame) = self.open_frame(&packet) else { return false };
        frame.packets += 1;
        frame.low = frame.low.min(packet.sequence);
        frame.high = frame.high.max(packet.sequence);
        if packet.at.instant >= frame.last_arrival.instant {
            frame.last_arrival = packet.at;
        }
        if packet.marker {
            frame.end = Some(packet.sequence);
        }
        frame.info.read(&packet);
        packet.marker || frame.packets == 1
    }

    /// A sequence number without payload.
    pub fn skip(&mut self, sequence: u64) {
        if self.judged.is_some_and(|judged| sequence <= judged) {
            return;
        }
        if self.skips.len() >= SKIPS_MAX {
            self.skips.pop_front();
        }
        let at = self.skips.partition_point(|&other| other < sequence);
        self.skips.insert(at, sequence);
    }

    /// Judges frames in order while nothing before them can change, up to the next one that is
    /// complete: ask until there is none. `floor` is the lowest sequence number that may still arrive
    /// in time ([`SequenceLedger::open_floor`](super::SequenceLedger::open_floor)).
    pub fn judge(&mut self, floor: u64) -> Option<FinishedFrame> {
        while let Some(head) = self.open.front() {
            let next_low = self.open.get(1).map(|next| next.low);
            let end = head.end.or_else(|| {
                next_low.filter(|&low| self.whole(head.high + 1, low)).map(|_| head.high)
            });
            // What came before a stated start means that the true one is missing.
            let start = self.inferred_start(head).or_else(|| self.stated_start(head));
            let start = start.filter(|&start| start <= head.low);
            let complete = match (start, end) {
                (Some(start), Some(end)) => {
                    end >= start && head.packets + self.skipped(start, end) == end - start + 1
                }
                _ => false,
            };
            let judged = if complete {
                floor >= head.low
            } else {
                next_low.is_some_and(|low| floor >= low) || end.is_some_and(|end| floor > end)
            };
            if !judged && self.open.len() < OPEN_FRAMES_MAX {
                break;
            }
            let known = (start.is_some(), end.is_some());
            let finished = self.judge_head(complete, known);
            if finished.is_some() {
                return finished;
            }
        }
        if self.open.is_empty() && self.open.capacity() > OPEN_FRAMES_KEPT {
            // What a gap made it grow to.
            self.open = VecDeque::new();
        }
        None
    }

    /// Ends the stream; [`Self::judge`] it first. Frames that are still arriving, or wait for a
    /// gap that may yet be repaired, are not counted: they were cut off by us, not lost.
    ///
    /// If the last frame stands until `stood_until`, and that is a freeze, it is one although
    /// nothing ends it, unless the track stands still on purpose.
    pub fn finish(&mut self, stood_until: Instant) {
        self.open.clear();
        if !self.is_paused() && !self.blanked {
            self.freezes.end(stood_until, self.lossy);
        }
    }

    /// The server shows a blank picture, as when a track has ended.
    pub fn blank(&mut self) {
        self.blanked = true;
    }

    fn is_paused(&self) -> bool {
        self.pause.is_some_and(|pause| pause.until.is_none())
    }

    /// Takes what is new of the time that the frames cover, and says what was seen since the last
    /// one; see [`Cover::take`].
    pub fn take_cover(&mut self) -> (Vec<Span>, Option<Span>, Trouble) {
        let (ended, open, _) = self.cover.take(self.freezes.intervals().cover());
        (ended, open, self.trouble)
    }

    /// Takes how long which layer was shown since the last call; `last` at the end of the stream.
    pub fn take_layers(&mut self, last: bool) -> Vec<LayerTime> {
        self.layers.take(last)
    }

    /// Which layers were shown so far.
    pub fn layers(&self) -> &LayerMeter {
        &self.layers
    }

    /// Packets of the stream were dropped on purpose.
    pub fn dropped_on_purpose(&mut self) {
        self.trouble.on_purpose = true;
    }

    /// The stream goes on with another video codec: decoding begins anew. [`Self::judge`] the open
    /// frames first, as they are.
    pub fn change_codec(&mut self, codec: Codec) {
        self.open.clear();
        self.references = References::new(codec);
        self.heights = Heights::default();
    }

    /// The counts so far.
    pub fn counters(&self) -> FrameCounters {
        let known = self.references.is_some();
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

    /// The publisher muted or unmuted the track, when `highest` was the highest sequence number.
    /// While it stands still on purpose nothing freezes and no frame is missing: the time from the
    /// last frame before to the first one after is no interval (libwebrtc counts it as a pause).
    pub fn set_muted(&mut self, muted: bool, highest: Option<u64>) {
        let at = highest.unwrap_or(0);
        if muted {
            // One that no frame was shown behind goes on.
            let open = self.pause.filter(|pause| {
                pause.until.is_none_or(|until| self.shown.is_none_or(|shown| shown <= until))
            });
            let after = open.map_or(at, |pause| pause.after);
            self.pause = Some(Pause { after, until: None });
        } else if let Some(pause) = &mut self.pause {
            pause.until = Some(at);
        }
    }

    /// Whether the track may have stood still between a frame that ended with `last` and one that
    /// begins with `next`.
    fn is_over_pause(&self, last: Option<u64>, next: u64) -> bool {
        self.pause.is_some_and(|pause| {
            let ended = |until| last.is_some_and(|last| last > until);
            next > pause.after && !pause.until.is_some_and(ended)
        })
    }

    /// When the first complete keyframe was complete.
    pub fn first_keyframe(&self) -> Option<Arrival> {
        self.first_keyframe
    }

    /// Waits for the first frame that can be shown later than this.
    pub fn await_frame(&mut self, after: Instant) {
        (self.awaiting, self.awaited_after, self.awaited) = (true, Some(after), None);
    }

    /// The frame that was waited for: when it was complete, and those before it. Without
    /// [`Self::await_frame`] it is the first of all.
    pub fn awaited_frame(&self) -> Option<Arrival> {
        self.awaited
    }

    /// When the last frame that could be shown was complete, and those before it.
    pub fn last_shown(&self) -> Option<Arrival> {
        self.shown_at
    }

    /// A frame could not be decoded, and no complete keyframe came since: a real client asks for
    /// one (PLI).
    pub fn keyframe_wanted(&self) -> bool {
        self.keyframe_wanted
    }

    /// Counts from `now` on only: frames that lie behind the highest sequence number so far, and
    /// the part of a freeze that is still to come. What is known of references stays.
    pub fn restart_counting(&mut self, now: Instant, highest: Option<u64>) {
        self.measured_from = highest.map_or(0, |highest| highest + 1);
        self.open.iter_mut().for_each(|frame| frame.measured = false);
        self.counted = Counted::default();
        self.freezes.restart_counting(now);
        self.layers.restart_counting(now);
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub fn heap_bytes(&self) -> usize {
        let info: usize = self.open.iter().map(|frame| frame.info.heap_bytes()).sum();
        let references = self.references.as_ref().map_or(0, References::heap_bytes);
        let own = self.open.capacity() * size_of::<OpenFrame>()
            + self.skips.capacity() * size_of::<u64>();
        own + info + references + self.layers.heap_bytes() + self.freezes.heap_bytes()
    }

    /// The frame of a packet; `None` for audio.
    fn open_frame(&mut self, packet: &FramePacket<'_>) -> Option<&mut OpenFrame> {
        let found = self.open.iter().rposition(|frame| frame.timestamp == packet.timestamp);
        let index = match found {
            Some(index) => index,
            None => {
                let frame = OpenFrame {
                    timestamp: packet.timestamp,
                    low: packet.sequence,
                    high: packet.sequence,
                    packets: 0,
                    end: None,
                    last_arrival: packet.at,
                    measured: packet.sequence >= self.measured_from,
                    info: self.references.as_ref()?.info(),
                };
                if self.open.capacity() == 0 {
                    // Mostly one is judged before the next one begins.
                    self.open.reserve_exact(1);
                }
                let index = self.open.partition_point(|frame| frame.low < packet.sequence);
                self.open.insert(index, frame);
                index
            }
        };
        self.open.get_mut(index)
    }

    /// Right behind the frame before.
    fn inferred_start(&self, head: &OpenFrame) -> Option<u64> {
        self.judged.filter(|judged| self.whole(judged + 1, head.low)).map(|_| head.low)
    }

    /// Where the payload of one of its packets says so.
    fn stated_start(&self, head: &OpenFrame) -> Option<u64> {
        self.references.as_ref()?.start(&head.info)
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

    /// `known`: whether the frame's beginning and its end are.
    fn judge_head(&mut self, complete: bool, known: (bool, bool)) -> Option<FinishedFrame> {
        let mut head = self.open.pop_front()?;
        let references = self.references.as_mut()?;
        let keyframe = head.info.keyframe();
        let first_ever = self.judged.is_none();
        if !complete && first_ever && !known.0 {
            // We joined in the middle of it.
            references.pass_over(&head.info);
            self.keyframe_wanted = true;
            self.trouble.undecodable = true;
            self.close_head(&head, known.1);
            return None;
        }
        if self.is_over_pause(self.judged, head.low)
            && let Some(references) = &mut self.references
        {
            references.interrupt();
        }
        let contiguous = self.judged.is_none_or(|judged| self.whole(judged + 1, head.low));
        let gap = match contiguous {
            true => Gap::None,
            false if self.judged_end && known.0 => Gap::Frames,
            false => Gap::Within,
        };
        let gap_before = gap != Gap::None;
        self.close_head(&head, known.1);
        let measured = head.measured;
        if complete && keyframe {
            self.first_keyframe.get_or_insert(head.last_arrival);
        }
        let timestamp = head.timestamp;
        let hidden = head.info.hidden();
        if let Some(heights) = head.info.heights().filter(|_| complete) {
            self.heights = heights;
        }
        let mut judged = JudgedFrame { info: &mut head.info, timestamp, complete, gap };
        let references = self.references.as_mut()?;
        let followed = references.judge(&mut judged);
        let layer = references.layer(&head.info);
        self.keyframe_wanted = references.needs_keyframe();
        let finished = complete.then(|| FinishedFrame {
            timestamp,
            last_sequence: head.high,
            keyframe,
            decodable: followed.decodable,
            at: head.last_arrival,
            measured,
            shown: !hidden,
            height: layer.height(&self.heights),
        });
        self.lossy |= followed.lost > 0 || !followed.decodable;
        self.trouble.lost |= !complete || gap_before;
        self.trouble.undecodable |= !followed.decodable;
        if followed.decodable && !hidden {
            self.show(&head, layer);
        }
        if measured {
            self.counted.dropped += followed.lost;
            if !hidden {
                self.counted.received += 1;
                self.counted.complete += u64::from(complete);
                self.counted.keyframes += u64::from(complete && keyframe);
                self.counted.decodable += u64::from(followed.decodable);
                self.counted.dropped += u64::from(!followed.decodable);
            }
        } else {
            self.freezes.forget();
        }
        finished
    }

    fn close_head(&mut self, head: &OpenFrame, end_known: bool) {
        self.judged = Some(head.high);
        self.judged_end = end_known;
        while self.skips.front().is_some_and(|&skip| skip <= head.high) {
            self.skips.pop_front();
        }
    }

    fn show(&mut self, frame: &OpenFrame, layer: Layer) {
        let shown = self.shown_at.filter(|before| before.instant > frame.last_arrival.instant);
        let shown = shown.unwrap_or(frame.last_arrival);
        self.shown_at = Some(shown);
        let shown_at = shown.instant;
        if self.awaiting && self.awaited_after.is_none_or(|after| shown_at > after) {
            (self.awaiting, self.awaited) = (false, Some(shown));
        }
        if self.is_over_pause(self.shown, frame.low) {
            self.freezes.pause();
        }
        self.shown = Some(frame.high);
        self.blanked = false;
        let trouble = std::mem::take(&mut self.trouble);
        let time = FrameTime { timestamp: frame.timestamp, clock_rate: self.clock_rate };
        let cover = self.freezes.intervals().cover();
        self.cover.trouble(trouble);
        self.cover.shown(shown_at, time, cover, false);
        self.layers.shown(shown_at, cover, layer.height(&self.heights), layer.temporal);
        self.freezes.shown(shown_at, time, std::mem::take(&mut self.lossy));
    }
}
