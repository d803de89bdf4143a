//! Everything counted of one received stream.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use stampede_media::Codec;

use super::heard::Heard;
use super::{
    FinishedFrame, FrameLedger, FramePacket, JitterMeter, LatencyCounters, LatencyMeter,
    OPEN_FRAMES_MAX, PictureSize, Placement, Receipt, SequenceLedger, Stamp, Via,
};
use crate::watch::{FrameTime, LayerTime, Span, Trouble};
use crate::{Arrival, FrameCounters, FreezeCounters, MediaKind, PacketCounters, Sample};

/// Most complete frames kept for [`StreamLedger::next_kept`]. At the maximum the oldest is forgotten;
/// a caller that asks after each packet never gets there.
pub(super) const KEPT_FRAMES_MAX: usize = 2 * OPEN_FRAMES_MAX;

/// One packet with payload, or of which only the header could be read.
#[derive(Debug, Clone, Copy)]
pub struct MediaPacket<'a> {
    /// Sequence number of the first transmission.
    pub sequence: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// RTP marker.
    pub marker: bool,
    /// Payload; `None` where only the header could be read.
    pub payload: Option<&'a [u8]>,
    /// Value of the dependency descriptor header extension, where the packet has one.
    pub dependency_descriptor: Option<&'a [u8]>,
    /// Length of the payload.
    pub payload_bytes: usize,
    /// When the kernel had it.
    pub at: Arrival,
    /// How it came.
    pub via: Via,
}

/// Ledgers of one stream, fed packet by packet.
///
/// With thousands of streams nothing of one is in the near caches when its packet comes: fields are
/// laid out in the order in which packets need them, what only frames need behind.
#[derive(Debug)]
#[repr(C)]
#[allow(clippy::box_collection, reason = "a pointer in each stream, and the queue in few")]
pub struct StreamLedger {
    codec: Option<Codec>,
    muted: bool,
    /// A media packet has come, whenever.
    received: bool,
    picture: PictureSize,
    /// RTP timestamp of the last packet of audio that came in order.
    newest: u32,
    /// Frames; `None` for audio and before the codec is known, which pay nothing for them.
    pub frames: Option<Box<FrameLedger>>,
    /// Of audio the time that packets cover; of video `frames` has it.
    heard: Option<Box<Heard>>,
    jitter: JitterMeter,
    last: Option<Arrival>,
    first: Option<Arrival>,
    samples: Vec<Sample>,
    /// Sequence numbers.
    pub sequences: SequenceLedger,
    latency: LatencyMeter,
    server_made: u64,
    /// The oldest PLI that no keyframe has answered yet.
    keyframe_asked: Option<Instant>,
    /// Complete video frames that nobody has asked for, if they are kept.
    kept: Option<Box<VecDeque<FinishedFrame>>>,
}

impl StreamLedger {
    /// A ledger with this playout deadline.
    pub fn new(deadline: Duration) -> Self {
        Self {
            sequences: SequenceLedger::new(deadline),
            frames: None,
            heard: None,
            received: false,
            newest: 0,
            jitter: JitterMeter::default(),
            latency: LatencyMeter::default(),
            picture: PictureSize::default(),
            server_made: 0,
            muted: false,
            keyframe_asked: None,
            samples: Vec::new(),
            kept: None,
            codec: None,
            first: None,
            last: None,
        }
    }

    /// What the stream carries, known with its first packet. A stream that changes its codec goes
    /// on counting; its references begin anew.
    pub fn set_codec(&mut self, codec: Codec) {
        if self.codec == Some(codec) {
            return;
        }
        if codec.is_video() {
            // What was still open ends as a frame of the old codec.
            self.judge_before(u64::MAX);
        }
        match &mut self.frames {
            Some(frames) if codec.is_video() => frames.change_codec(codec),
            frames => {
                *frames = codec.is_video().then(|| Box::new(FrameLedger::new(codec)));
                if let Some(frames) = frames {
                    frames.set_muted(self.muted, None);
                }
            }
        }
        if !codec.is_video() {
            self.heard.get_or_insert_default();
        }
        self.codec = Some(codec);
    }

    /// The codec, once known.
    pub fn codec(&self) -> Option<Codec> {
        self.codec
    }

    /// Takes a packet with payload.
    pub fn media(&mut self, packet: MediaPacket<'_>) -> Receipt {
        let at = packet.at;
        let receipt =
            self.sequences.media(packet.sequence, at.instant, packet.payload_bytes, packet.via);
        if receipt.in_order
            && let Some(codec) = self.codec
        {
            if packet.payload.is_some_and(|payload| self.picture.observe(codec, payload)) {
                self.jitter.interrupt();
                self.latency.interrupt();
            }
            self.jitter.record(at.unix_ns, packet.timestamp, codec.clock_rate());
        }
        // Nothing before this packet changes with one in the middle of a frame, in its turn.
        let mut judges = !receipt.in_order;
        if receipt.usable {
            self.received = true;
            if receipt.measured {
                self.first.get_or_insert(at);
            }
            if self.last.is_none_or(|last| last.instant <= at.instant) {
                self.last = Some(at);
            }
            if let Some(frames) = &mut self.frames {
                judges |= frames.push(FramePacket {
                    sequence: receipt.sequence,
                    timestamp: packet.timestamp,
                    marker: packet.marker,
                    payload: packet.payload,
                    dependency_descriptor: packet.dependency_descriptor,
                    at,
                });
            } else {
                if receipt.in_order {
                    self.newest = packet.timestamp;
                }
                let bytes = packet.payload.map_or(packet.payload_bytes, <[u8]>::len);
                self.hear(&receipt, packet.timestamp, bytes, at);
            }
        }
        if judges {
            self.judge_frames();
        }
        receipt
    }

    /// Takes the payload of an earlier packet that a packet of redundant audio (RED) brings, before
    /// that packet itself, which passes others over. `None` if it repairs nothing: it is older than
    /// what came in order before, or came too late.
    pub fn redundant(
        &mut self,
        sequence: u16,
        timestamp: u32,
        payload: &[u8],
        at: Arrival,
    ) -> Option<Receipt> {
        // A sender that lacks the packet before puts an older one in its place.
        if payload.is_empty() || timestamp.wrapping_sub(self.newest).cast_signed() <= 0 {
            return None;
        }
        let receipt = self.sequences.redundant(sequence, at.instant)?;
        self.hear(&receipt, timestamp, payload.len(), at);
        Some(receipt)
    }

    /// An Opus packet, which is a frame, came in time.
    fn hear(&mut self, receipt: &Receipt, timestamp: u32, bytes: usize, at: Arrival) {
        if let (Some(heard), Some(codec)) = (&mut self.heard, self.codec) {
            let time = FrameTime { timestamp, clock_rate: codec.clock_rate() };
            heard.packet(receipt.sequence, at.instant, time, bytes);
        }
        self.finish_frame(FinishedFrame {
            timestamp,
            last_sequence: receipt.sequence,
            keyframe: false,
            decodable: true,
            at,
            measured: receipt.measured,
            shown: true,
            height: None,
        });
    }

    /// A packet of the frame with this RTP timestamp carried its publisher's stamp. Call it before
    /// [`Self::media`] with that packet.
    pub fn stamp(&mut self, timestamp: u32, stamp: Stamp) {
        self.latency.stamp(timestamp, stamp);
    }

    /// Whether the publisher's clock is this host's.
    pub fn set_same_clock(&mut self, same_clock: bool) {
        self.latency.set_same_clock(same_clock);
    }

    /// The publisher muted or unmuted the track, says signalling. The pause is no freeze, and
    /// neither jitter nor capture times are carried over it.
    pub fn set_muted(&mut self, muted: bool) {
        if std::mem::replace(&mut self.muted, muted) == muted {
            return;
        }
        self.jitter.interrupt();
        self.latency.interrupt();
        if let Some(frames) = &mut self.frames {
            frames.set_muted(muted, self.sequences.highest());
        }
    }

    /// A PLI was sent.
    pub fn asked_for_keyframe(&mut self, now: Instant) {
        self.keyframe_asked.get_or_insert(now);
    }

    /// Keeps complete video frames for [`Self::next_kept`] from here on.
    pub fn keep_frames(&mut self) {
        self.kept.get_or_insert_default();
    }

    /// The next complete video frame, in order, if frames are kept.
    pub fn next_kept(&mut self) -> Option<FinishedFrame> {
        self.kept.as_mut()?.pop_front()
    }

    /// Takes what was measured since the last call.
    pub fn drain_samples(&mut self) -> impl Iterator<Item = Sample> + '_ {
        self.samples.drain(..)
    }

    /// Takes a packet without payload on the primary SSRC.
    pub fn padding(&mut self, sequence: u16, at: Arrival) -> Receipt {
        let receipt = self.sequences.padding(sequence, at.instant);
        if receipt.usable
            && let Some(frames) = &mut self.frames
        {
            frames.skip(receipt.sequence);
        }
        if let Some(heard) = &mut self.heard {
            heard.skip(receipt.sequence);
        }
        self.judge_frames();
        receipt
    }

    /// Takes a packet that the server made itself to fill a pause
    /// ([`is_server_made`](super::is_server_made)): to everything but its own count it is padding.
    pub fn server_made(&mut self, sequence: u16, at: Arrival) -> Receipt {
        let before = self.sequences.padding_only();
        let receipt = self.padding(sequence, at);
        // Late ones too: they are no media either.
        self.server_made += self.sequences.padding_only() - before;
        if let Some(frames) = &mut self.frames {
            frames.blank();
        }
        receipt
    }

    /// What a sequence number would be if it arrived now.
    pub fn placement(&self, sequence: u16) -> Placement {
        self.sequences.placement(sequence)
    }

    /// Gives up on what was due before `now`; see [`SequenceLedger::expire_gaps`].
    pub fn expire_gaps(&mut self, now: Instant) {
        self.sequences.expire_gaps(now);
        self.judge_frames();
    }

    /// Judges everything at `now`, the end of the stream. What is missing and might still have
    /// come in time was cut off by us, not lost: such sequence numbers are not expected, and
    /// frames that wait for them are not counted.
    ///
    /// The last picture stood until `stood_until`: that may be a freeze.
    pub fn finish(&mut self, now: Instant, stood_until: Instant) {
        self.expire_gaps(now);
        self.sequences.finish(now);
        if let Some(frames) = &mut self.frames {
            frames.finish(stood_until);
        }
    }

    /// We go on from elsewhere, on purpose: what is sent to where we were does not count.
    pub fn away(&mut self) {
        self.sequences.away();
        self.dropped_on_purpose();
    }

    /// Packets of the stream were dropped on purpose.
    pub fn dropped_on_purpose(&mut self) {
        if let Some(frames) = &mut self.frames {
            frames.dropped_on_purpose();
        }
        if let Some(heard) = &mut self.heard {
            heard.dropped_on_purpose();
        }
    }

    /// Takes what is new of the time that could be watched: the spans that have ended, the open
    /// one, and what was seen since its last frame.
    pub fn take_cover(&mut self) -> (Vec<Span>, Option<Span>, Trouble) {
        let (ended, open, mut trouble) = match (&mut self.frames, &mut self.heard) {
            (Some(frames), _) => frames.take_cover(),
            (None, Some(heard)) => heard.take_cover(),
            (None, None) => return Default::default(),
        };
        trouble.lost |= self.sequences.next_deadline().is_some();
        (ended, open, trouble)
    }

    /// Takes how long which layer was shown since the last call; `last` at the end of the stream.
    pub fn take_layers(&mut self, last: bool) -> Vec<LayerTime> {
        self.frames.as_mut().map_or_else(Vec::new, |frames| frames.take_layers(last))
    }

    /// A media packet has come, in the measured window or before.
    pub fn received(&self) -> bool {
        self.received
    }

    /// Counts from `now` on only.
    pub fn restart_counting(&mut self, now: Instant) {
        self.judge_frames();
        self.sequences.restart_counting();
        if let Some(frames) = &mut self.frames {
            frames.restart_counting(now, self.sequences.highest());
        }
        self.latency.restart_counting();
        self.server_made = 0;
        self.samples.clear();
        // `last` stays: when media came last is no count, and without a `first` it is no span.
        self.first = None;
    }

    /// Packets so far.
    pub fn packets(&self) -> PacketCounters {
        PacketCounters { server_made: self.server_made, ..self.sequences.counters() }
    }

    /// Frames so far. An Opus packet is a frame, decodable on its own (RFC 7587 §4.2).
    pub fn frames(&self) -> FrameCounters {
        if let Some(frames) = &self.frames {
            return frames.counters();
        }
        if self.codec != Some(Codec::Opus) {
            return FrameCounters::default();
        }
        let packets = self.sequences.counters();
        let in_time = packets.received - packets.late + packets.repaired_by_red;
        FrameCounters {
            received: in_time,
            complete: in_time,
            decodable: Some(in_time),
            dropped: Some(packets.unrecovered),
            keyframes: 0,
        }
    }

    /// Freezes so far.
    pub fn freezes(&self) -> FreezeCounters {
        self.frames.as_deref().map(FrameLedger::freezes).unwrap_or_default()
    }

    /// What is known of the frames' latency so far.
    pub fn latency(&self) -> LatencyCounters {
        self.latency.counters()
    }

    /// Switches of layers so far, to larger and to smaller pictures; `None` before one was seen.
    pub fn layer_switches(&self) -> Option<(u64, u64)> {
        self.frames.as_ref()?.layers().switches()
    }

    /// Mean height of the pictures over the time that they were shown; `None` where it is not known.
    pub fn height_mean(&self) -> Option<f64> {
        self.frames.as_ref()?.layers().height_mean()
    }

    /// Jitter now.
    pub fn jitter(&self) -> Option<Duration> {
        self.jitter.jitter()
    }

    /// First and last packet with payload that came in time.
    pub fn span(&self) -> Option<(Arrival, Arrival)> {
        Some((self.first?, self.last?))
    }

    /// When the last playable frame came, in the measured window or before. An Opus packet that
    /// came in time is one.
    pub fn last_playable(&self) -> Option<Arrival> {
        match &self.frames {
            Some(frames) => frames.last_shown(),
            None => self.last.filter(|_| self.codec.is_some()),
        }
    }

    /// Waits for the first playable frame that comes after this.
    pub fn await_frame(&mut self, after: Instant) {
        if let Some(frames) = &mut self.frames {
            frames.await_frame(after);
        }
    }

    /// The first playable frame after what [`Self::await_frame`] was told last, or of all. Of
    /// audio the latest one: ask after each packet.
    pub fn awaited_frame(&self) -> Option<Arrival> {
        match &self.frames {
            Some(frames) => frames.awaited_frame(),
            None => self.last_playable(),
        }
    }

    /// When the last packet with payload came that was in time, in the measured window or before.
    pub fn last_packet(&self) -> Option<Arrival> {
        self.last
    }

    /// Payload bits a second between first and last packet; `None` with fewer than two.
    pub fn bitrate_bps(&self) -> Option<f64> {
        let (first, last) = self.span()?;
        let seconds = last.instant.saturating_duration_since(first.instant).as_secs_f64();
        (seconds > 0.0).then(|| self.sequences.counters().bytes as f64 * 8.0 / seconds)
    }

    /// First complete keyframe.
    pub fn first_keyframe(&self) -> Option<Arrival> {
        self.frames.as_deref().and_then(FrameLedger::first_keyframe)
    }

    /// A real client would ask for a keyframe now.
    pub fn keyframe_wanted(&self) -> bool {
        self.frames.as_deref().is_some_and(FrameLedger::keyframe_wanted)
    }

    /// Bytes of this ledger, heap included.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        let of_frames = |frames: &FrameLedger| size_of_val(frames) + frames.heap_bytes();
        let frames = self.frames.as_deref().map_or(0, of_frames);
        let kept = self.kept.as_deref().map_or(0, VecDeque::capacity);
        size_of::<Self>()
            + self.sequences.heap_bytes()
            + self.latency.heap_bytes()
            + self.samples.capacity() * size_of::<Sample>()
            + kept * size_of::<FinishedFrame>()
            + self.heard.as_ref().map_or(0, |heard| heard.heap_bytes())
            + frames
    }

    fn judge_frames(&mut self) {
        if let Some(floor) = self.sequences.open_floor() {
            self.judge_before(floor);
        }
    }

    fn judge_before(&mut self, floor: u64) {
        while let Some(frame) = self.frames.as_deref_mut().and_then(|frames| frames.judge(floor)) {
            if let Some(kept) = &mut self.kept {
                if kept.len() >= KEPT_FRAMES_MAX {
                    kept.pop_front();
                }
                kept.push_back(frame);
            }
            self.finish_frame(frame);
        }
    }

    fn finish_frame(&mut self, frame: FinishedFrame) {
        let Some(codec) = self.codec else { return };
        if frame.keyframe
            && let Some(asked) = self.keyframe_asked.take_if(|asked| *asked <= frame.at.instant)
        {
            self.sample(Sample::KeyframeAfterPli(frame.at.instant - asked));
        }
        if !frame.shown {
            return;
        }
        let latency = self.latency.complete(frame.timestamp, codec.clock_rate(), frame.at);
        if !frame.measured {
            self.latency.restart_counting();
        } else if let Some(latency) = latency {
            let kind = if codec.is_video() { MediaKind::Video } else { MediaKind::Audio };
            self.sample(Sample::Latency { kind, height: frame.height, latency });
        }
    }

    fn sample(&mut self, sample: Sample) {
        if self.samples.capacity() == 0 {
            // They are taken after each packet.
            self.samples.reserve_exact(1);
        }
        self.samples.push(sample);
    }
}
