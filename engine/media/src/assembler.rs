//! RTP payloads back into frames, in order, from packets in any order.
//!
//! Pure: no clock and no socket. Whoever feeds it decides when a gap has waited long enough and
//! says so with [`FrameAssembler::abandon_before`].

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use stampede_counters::AssemblerCounters;

use crate::clip::{Codec, is_recordable};
use crate::{h264, h265, vp8};

/// Sequence numbers between the oldest unresolved packet and the newest one. A packet further
/// ahead makes the assembler abandon the oldest gaps (counted) until it fits.
pub const WINDOW_PACKETS_MAX: usize = 2_048;
/// Longest RTP payload kept. A longer one never fits a WebRTC path's MTU; it is counted as
/// malformed and treated as lost, so that a window is at most 4 MiB.
pub const PAYLOAD_BYTES_MAX: usize = 2_048;
/// Complete frames waiting for [`FrameAssembler::poll`]. At the maximum the oldest is dropped and
/// counted (`frames_not_polled`); a caller that polls after each push never gets there.
pub const READY_FRAMES_MAX: usize = WINDOW_PACKETS_MAX;

/// One RTP packet of the primary stream; RTX must be unwrapped already.
#[derive(Debug, Clone, Copy)]
pub struct AssemblerPacket<'a> {
    /// Extended sequence number (RFC 3550 A.1): wraps are the caller's business.
    pub sequence: u64,
    /// RTP timestamp as on the wire.
    pub timestamp: u32,
    /// RTP marker: last packet of a video frame.
    pub marker: bool,
    /// Payload without padding. An empty one is the same as [`FrameAssembler::skip`].
    pub payload: &'a [u8],
}

/// A frame all of whose packets arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssembledFrame {
    /// Extended sequence number of its first packet.
    pub first_sequence: u64,
    /// Extended sequence number of its last packet.
    pub last_sequence: u64,
    /// Packets with payload it came in.
    pub packets: u32,
    /// RTP timestamp extended past 32 bits; the low 32 bits are the wire's. The first frame's
    /// upper half is 1, so that an earlier timestamp after a jump still fits.
    pub timestamp: u64,
    /// True where decoding can begin. Always true for Opus.
    pub keyframe: bool,
    /// VP8 PictureID, as on the wire.
    pub picture_id: Option<u16>,
    /// VP8 TL0PICIDX.
    pub tl0_pic_idx: Option<u8>,
    /// VP8 temporal layer.
    pub temporal_id: Option<u8>,
    /// True if packets were abandoned between the frame before (or the start) and this one.
    pub after_gap: bool,
    /// The encoded frame, payload descriptors removed; of H.264 and H.265 the access unit in Annex B
    /// form.
    pub data: Bytes,
}

/// The codec has no assembly here yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} frames can't be assembled yet; record VP8, H.264, H.265 or Opus")]
pub struct UnsupportedCodec(pub Codec);

/// What is known about one sequence number of the window.
#[derive(Debug)]
enum Slot {
    /// Not seen; may still come.
    Empty,
    /// Carries nothing (padding only).
    Skipped,
    /// Given up.
    Lost,
    Packet(StoredPacket),
}

#[derive(Debug)]
struct StoredPacket {
    timestamp: u32,
    marker: bool,
    starts_frame: bool,
    descriptor: vp8::Descriptor,
    units: Units,
    /// Without descriptor.
    data: Bytes,
}

/// What a packet of H.264 or H.265 holds.
#[derive(Debug, Clone, Copy, Default)]
struct Units {
    /// A part of a picture that decoding can begin with.
    keyframe: bool,
    /// A sequence parameter set.
    parameters: bool,
    /// A video parameter set; only H.265 has any.
    video_parameters: bool,
}

enum Scan {
    /// The frame's end was not seen yet.
    Open,
    /// A lost packet at this index is inside the frame.
    Cut(usize),
    /// The frame is the first so many slots.
    Complete(usize),
}

/// Puts one stream's packets together into frames. See the module page.
///
/// ```
/// use stampede_media::{AssemblerPacket, Codec, FrameAssembler};
/// let mut assembler = FrameAssembler::new(Codec::Opus).unwrap();
/// assembler.push(AssemblerPacket { sequence: 7, timestamp: 960, marker: false, payload: &[1] });
/// let frame = assembler.poll().unwrap();
/// assert_eq!((frame.first_sequence, &frame.data[..]), (7, &[1][..]));
/// assert!(assembler.poll().is_none());
/// ```
#[derive(Debug)]
pub struct FrameAssembler {
    codec: Codec,
    /// Sequence number of `slots[0]`; `None` until the first packet or [`Self::start_at`].
    base: Option<u64>,
    slots: VecDeque<Slot>,
    /// Slots at the front already known to belong to one open frame.
    scanned: usize,
    /// The first sequence number is known: nothing may be put before `base` any more.
    anchored: bool,
    /// Something was received or lost; before that a frame without beginning is not a loss.
    begun: bool,
    /// Rest of an incomplete frame still to be thrown away.
    discarding: Option<u32>,
    gap: bool,
    last_timestamp: Option<u64>,
    ready: VecDeque<AssembledFrame>,
    counters: AssemblerCounters,
}

impl FrameAssembler {
    /// An assembler for one stream of `codec`: VP8, H.264, H.265 or Opus so far.
    ///
    /// A keyframe of H.264 or H.265 that came without parameter sets counts as incomplete: where they
    /// were sent in packets of their own, nothing in its slices tells that one of those is lost.
    pub fn new(codec: Codec) -> Result<FrameAssembler, UnsupportedCodec> {
        if !is_recordable(codec) {
            return Err(UnsupportedCodec(codec));
        }
        Ok(FrameAssembler {
            codec,
            base: None,
            slots: VecDeque::new(),
            scanned: 0,
            anchored: false,
            begun: false,
            discarding: None,
            gap: false,
            last_timestamp: None,
            ready: VecDeque::new(),
            counters: AssemblerCounters::default(),
        })
    }

    /// Says which sequence number is the stream's first, where that is known (a resumed stream, a
    /// test). Without it the first pushed packet counts as the first, and packets from before it
    /// are taken only while nothing has been resolved. No effect once something was pushed.
    pub fn start_at(&mut self, sequence: u64) {
        if self.base.is_none() {
            self.base = Some(sequence);
            self.anchored = true;
            self.begun = true;
        }
    }

    /// Takes one packet, in any order. Frames it completes come out of [`Self::poll`].
    pub fn push(&mut self, packet: AssemblerPacket<'_>) {
        if packet.payload.is_empty() {
            self.skip(packet.sequence);
            return;
        }
        let Some(index) = self.place(packet.sequence) else { return };
        let slot = match self.store(&packet) {
            Some(stored) => {
                self.counters.packets += 1;
                Slot::Packet(stored)
            }
            None => {
                self.counters.packets_malformed += 1;
                Slot::Lost
            }
        };
        self.slots[index] = slot;
        self.resolve();
    }

    /// Says that `sequence` arrived and carries no media (padding only), or was never meant to be
    /// sent: it is neither waited for nor counted as lost.
    pub fn skip(&mut self, sequence: u64) {
        let Some(index) = self.place(sequence) else { return };
        self.counters.packets_skipped += 1;
        self.slots[index] = Slot::Skipped;
        self.resolve();
    }

    /// Gives up on every sequence number below `sequence` that did not arrive: frames they cut are
    /// counted as incomplete, frames behind them come out of [`Self::poll`]. This is the playout
    /// deadline; the clock is the caller's.
    pub fn abandon_before(&mut self, sequence: u64) {
        let Some(base) = self.base else { return };
        let count = sequence.saturating_sub(base);
        if count == 0 {
            return;
        }
        self.anchored = true;
        let known = usize::try_from(count).unwrap_or(usize::MAX).min(self.slots.len());
        for slot in self.slots.iter_mut().take(known) {
            if matches!(slot, Slot::Empty) {
                *slot = Slot::Lost;
                self.counters.packets_abandoned += 1;
            }
        }
        self.resolve();
        let end = self.next_base() + self.slots.len() as u64;
        if end < sequence {
            // Never seen at all: one lost slot cuts whatever is still open, the rest is arithmetic.
            self.counters.packets_abandoned += sequence - end;
            self.slots.push_back(Slot::Lost);
            self.resolve();
            self.base = Some(sequence);
        }
    }

    /// Gives up on everything still open, at the end of a stream.
    pub fn finish(&mut self) {
        if let Some(base) = self.base {
            let end = base + self.slots.len() as u64;
            self.abandon_before(end);
            // A last frame without marker whose end nobody can know.
            if !self.slots.is_empty() {
                self.slots.push_back(Slot::Lost);
                self.resolve();
            }
        }
    }

    /// The next complete frame in order, if there is one. Call until `None` after each input.
    pub fn poll(&mut self) -> Option<AssembledFrame> {
        self.ready.pop_front()
    }

    /// Everything below this is resolved: handed out, skipped or given up. `None` before the
    /// first packet. The first gap the assembler waits for is at or behind it.
    pub fn next_sequence(&self) -> Option<u64> {
        self.base
    }

    /// True if something below `sequence` is missing and not given up: only
    /// [`abandon_before`](Self::abandon_before) lets go what is behind it.
    pub fn waits_before(&self, sequence: u64) -> bool {
        let count = sequence.saturating_sub(self.base.unwrap_or(sequence));
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.slots.iter().take(count).any(|slot| matches!(slot, Slot::Empty))
    }

    /// Packets held back because something before them is missing or their frame is still open.
    pub fn packets_waiting(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot, Slot::Packet(_))).count()
    }

    /// What happened so far.
    pub fn counters(&self) -> &AssemblerCounters {
        &self.counters
    }

    fn next_base(&self) -> u64 {
        self.base.unwrap_or(0)
    }

    /// Index of the free slot for `sequence`, making room for it; `None` (counted) if there is
    /// nothing to store.
    fn place(&mut self, sequence: u64) -> Option<usize> {
        let base = *self.base.get_or_insert(sequence);
        if sequence < base {
            let before = usize::try_from(base - sequence).unwrap_or(usize::MAX);
            if self.anchored || before.saturating_add(self.slots.len()) > WINDOW_PACKETS_MAX {
                self.counters.packets_late += 1;
                return None;
            }
            for _ in 0..before {
                self.slots.push_front(Slot::Empty);
            }
            self.scanned = 0;
            self.base = Some(sequence);
            return Some(0);
        }
        self.make_room(sequence);
        let index = usize::try_from(sequence - self.next_base()).ok()?;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || Slot::Empty);
        }
        if matches!(self.slots[index], Slot::Empty | Slot::Lost) {
            return Some(index);
        }
        self.counters.packets_duplicate += 1;
        None
    }

    /// Moves the window so that `sequence` is inside it.
    fn make_room(&mut self, sequence: u64) {
        let window = WINDOW_PACKETS_MAX as u64;
        if sequence - self.next_base() < window {
            return;
        }
        let lowest = sequence - window + 1;
        self.abandon_before(lowest);
        if self.next_base() >= lowest {
            return;
        }
        // One frame as long as the window, and no end in sight: it can't be a real one.
        if let Some(Slot::Packet(packet)) = self.slots.front() {
            self.discarding = Some(packet.timestamp);
            self.counters.frames_incomplete += 1;
            self.gap = true;
        }
        while self.next_base() < lowest {
            self.pop_front();
        }
        self.resolve();
    }

    fn store(&self, packet: &AssemblerPacket<'_>) -> Option<StoredPacket> {
        if packet.payload.len() > PAYLOAD_BYTES_MAX {
            return None;
        }
        let AssemblerPacket { timestamp, payload, .. } = *packet;
        let stored = StoredPacket {
            timestamp,
            marker: packet.marker,
            starts_frame: true,
            descriptor: vp8::Descriptor::default(),
            units: Units::default(),
            data: Bytes::new(),
        };
        match self.codec {
            Codec::Vp8 => {
                let descriptor = vp8::Descriptor::parse(payload).ok()?;
                let data = Bytes::copy_from_slice(payload.get(descriptor.len..)?);
                let starts_frame = descriptor.starts_frame();
                Some(StoredPacket { starts_frame, descriptor, data, ..stored })
            }
            Codec::H264 => {
                let summary = h264::Summary::of(payload).ok()?;
                let mut data = Vec::with_capacity(payload.len() + 16);
                h264::append_annex_b(payload, &mut data).ok()?;
                let units = Units {
                    keyframe: summary.idr,
                    parameters: summary.parameters,
                    ..Units::default()
                };
                let starts_frame = summary.head.is_some();
                Some(StoredPacket { starts_frame, units, data: data.into(), ..stored })
            }
            Codec::H265 => {
                let summary = h265::Summary::of(payload).ok()?;
                let mut data = Vec::with_capacity(payload.len() + 16);
                h265::append_annex_b(payload, &mut data).ok()?;
                let units = Units {
                    keyframe: summary.irap(),
                    parameters: summary.parameters,
                    video_parameters: summary.video_parameters,
                };
                let starts_frame = summary.head.is_some();
                Some(StoredPacket { starts_frame, units, data: data.into(), ..stored })
            }
            // RFC 7587 §4.2: one Opus packet a payload; the marker means a talk spurt's start.
            _ => {
                Some(StoredPacket { marker: true, data: Bytes::copy_from_slice(payload), ..stored })
            }
        }
    }

    /// A packet that can begin a frame always does. Not so of H.264 and H.265, where parameter sets
    /// can, and the slice behind them too.
    fn begins_surely(&self, packet: &StoredPacket) -> bool {
        packet.starts_frame && !matches!(self.codec, Codec::H264 | Codec::H265)
    }

    fn pop_front(&mut self) -> Option<Slot> {
        let slot = self.slots.pop_front()?;
        self.base = self.base.map(|base| base + 1);
        self.scanned = 0;
        self.anchored = true;
        self.begun |= !matches!(slot, Slot::Skipped);
        Some(slot)
    }

    /// Takes whatever is complete or lost off the front of the window.
    fn resolve(&mut self) {
        while let Some(front) = self.slots.front() {
            match front {
                Slot::Empty => return,
                Slot::Skipped => {
                    if !self.anchored && self.packets_waiting() == 0 {
                        return;
                    }
                    self.pop_front();
                }
                Slot::Lost => {
                    self.gap = true;
                    self.pop_front();
                }
                Slot::Packet(packet) => {
                    let (timestamp, starts) = (packet.timestamp, packet.starts_frame);
                    let more = if starts {
                        self.discarding = None;
                        self.resolve_frame(timestamp)
                    } else {
                        self.resolve_tail(timestamp)
                    };
                    if !more {
                        return;
                    }
                }
            }
        }
    }

    /// The front is a packet from the middle of a frame whose beginning is gone.
    fn resolve_tail(&mut self, timestamp: u32) -> bool {
        if self.discarding != Some(timestamp) {
            let starts = |slot: &Slot| matches!(slot, Slot::Packet(next) if next.starts_frame);
            if !self.anchored && !self.slots.iter().any(starts) {
                // The beginning may be right behind, reordered; the next frame decides.
                return false;
            }
            if self.begun {
                self.counters.frames_incomplete += 1;
                self.gap = true;
            } else {
                self.counters.frames_cut_at_start += 1;
            }
            self.discarding = Some(timestamp);
        }
        if let Some(Slot::Packet(StoredPacket { marker: true, .. })) = self.pop_front() {
            self.discarding = None;
        }
        true
    }

    /// The front is the first packet of a frame.
    fn resolve_frame(&mut self, timestamp: u32) -> bool {
        match self.scan(timestamp) {
            Scan::Open => false,
            Scan::Cut(lost_index) => {
                self.counters.frames_incomplete += 1;
                self.discarding = Some(timestamp);
                self.gap = true;
                for _ in 0..=lost_index {
                    self.pop_front();
                }
                true
            }
            Scan::Complete(len) => {
                self.emit(len, timestamp);
                true
            }
        }
    }

    fn scan(&mut self, timestamp: u32) -> Scan {
        for (index, slot) in self.slots.iter().enumerate().skip(self.scanned) {
            match slot {
                Slot::Empty => {
                    self.scanned = index;
                    return Scan::Open;
                }
                Slot::Lost => return Scan::Cut(index),
                Slot::Skipped => {}
                // Nothing is missing in between, so the frame ended without a marker.
                Slot::Packet(packet)
                    if index > 0
                        && (packet.timestamp != timestamp || self.begins_surely(packet)) =>
                {
                    return Scan::Complete(index);
                }
                Slot::Packet(packet) if packet.marker => return Scan::Complete(index + 1),
                Slot::Packet(_) => {}
            }
        }
        self.scanned = self.slots.len();
        Scan::Open
    }

    fn emit(&mut self, slots: usize, timestamp: u32) {
        let mut parts = Vec::with_capacity(slots);
        let first_sequence = self.next_base();
        let mut last_sequence = first_sequence;
        for _ in 0..slots {
            let sequence = self.next_base();
            if let Some(Slot::Packet(packet)) = self.pop_front() {
                last_sequence = sequence;
                parts.push(packet);
            }
        }
        let Some(descriptor) = parts.first().map(|first| first.descriptor) else { return };
        let packets = parts.len() as u32;
        let units = parts.iter().fold(Units::default(), |sum, part| Units {
            keyframe: sum.keyframe | part.units.keyframe,
            parameters: sum.parameters | part.units.parameters,
            video_parameters: sum.video_parameters | part.units.video_parameters,
        });
        let video_parameters = units.video_parameters || self.codec != Codec::H265;
        if units.keyframe && !(units.parameters && video_parameters) {
            self.counters.frames_incomplete += 1;
            self.gap = true;
            return;
        }
        let data = match <[StoredPacket; 1]>::try_from(parts) {
            Ok([only]) => only.data,
            Err(parts) => {
                let len = parts.iter().map(|part| part.data.len()).sum();
                let mut data = BytesMut::with_capacity(len);
                parts.iter().for_each(|part| data.extend_from_slice(&part.data));
                data.freeze()
            }
        };
        let frame = AssembledFrame {
            first_sequence,
            last_sequence,
            packets,
            timestamp: self.extend_timestamp(timestamp),
            keyframe: match self.codec {
                Codec::Vp8 => vp8::is_keyframe(&data),
                Codec::H264 | Codec::H265 => units.keyframe,
                _ => true,
            },
            picture_id: descriptor.picture_id,
            tl0_pic_idx: descriptor.tl0_pic_idx,
            temporal_id: descriptor.temporal_id,
            after_gap: std::mem::take(&mut self.gap),
            data,
        };
        self.counters.frames_complete += 1;
        if self.ready.len() >= READY_FRAMES_MAX {
            self.ready.pop_front();
            self.counters.frames_not_polled += 1;
        }
        self.ready.push_back(frame);
    }

    /// RTP timestamps compare modulo 2^32 (RFC 3550 §5.1): the nearer of the two directions.
    fn extend_timestamp(&mut self, timestamp: u32) -> u64 {
        let extended = match self.last_timestamp {
            None => (1 << 32) | u64::from(timestamp),
            Some(last) => {
                let ahead = timestamp.wrapping_sub(last as u32);
                let behind = (last as u32).wrapping_sub(timestamp);
                if ahead <= behind || last < u64::from(behind) {
                    last + u64::from(ahead)
                } else {
                    last - u64::from(behind)
                }
            }
        };
        self.last_timestamp = Some(extended);
        extended
    }
}
