//! Everything counted of one received stream.

use std::time::{Duration, Instant};

use stampede_media::Codec;

use super::{FrameLedger, FramePacket, JitterMeter, Placement, Receipt, SequenceLedger, Via};
use crate::{Arrival, FrameCounters, FreezeCounters, PacketCounters};

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
#[derive(Debug)]
pub struct StreamLedger {
    /// Sequence numbers.
    pub sequences: SequenceLedger,
    /// Frames; `None` for audio and before the codec is known.
    pub frames: Option<FrameLedger>,
    jitter: JitterMeter,
    codec: Option<Codec>,
    first: Option<Arrival>,
    last: Option<Arrival>,
}

impl StreamLedger {
    /// A ledger with this playout deadline.
    pub fn new(deadline: Duration) -> Self {
        Self {
            sequences: SequenceLedger::new(deadline),
            frames: None,
            jitter: JitterMeter::default(),
            codec: None,
            first: None,
            last: None,
        }
    }

    /// What the stream carries, known with its first packet. A stream that changes its codec goes
    /// on with a new frame ledger; what was counted stays only in the packets.
    pub fn set_codec(&mut self, codec: Codec) {
        if self.codec != Some(codec) {
            self.codec = Some(codec);
            self.frames = codec.is_video().then(|| FrameLedger::new(codec));
        }
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
            self.jitter.record(at.unix_ns, packet.timestamp, codec.clock_rate());
        }
        if receipt.usable {
            self.first.get_or_insert(at);
            if self.last.is_none_or(|last| last.instant <= at.instant) {
                self.last = Some(at);
            }
            if let Some(frames) = &mut self.frames {
                frames.push(FramePacket {
                    sequence: receipt.sequence,
                    timestamp: packet.timestamp,
                    marker: packet.marker,
                    payload: packet.payload,
                    dependency_descriptor: packet.dependency_descriptor,
                    at,
                });
            }
        }
        self.settle_frames();
        receipt
    }

    /// Takes a packet without payload on the primary SSRC.
    pub fn padding(&mut self, sequence: u16, at: Arrival) -> Receipt {
        let receipt = self.sequences.padding(sequence, at.instant);
        if receipt.usable
            && let Some(frames) = &mut self.frames
        {
            frames.skip(receipt.sequence);
        }
        self.settle_frames();
        receipt
    }

    /// What a sequence number would be if it arrived now.
    pub fn placement(&self, sequence: u16) -> Placement {
        self.sequences.placement(sequence)
    }

    /// Gives up on what was due before `now`; see [`SequenceLedger::settle`].
    pub fn settle(&mut self, now: Instant) {
        self.sequences.settle(now);
        self.settle_frames();
    }

    /// Settles everything, at the end of the stream.
    pub fn finish(&mut self) {
        while let Some(deadline) = self.sequences.next_deadline() {
            self.sequences.settle(deadline + Duration::from_nanos(1));
        }
        if let Some(frames) = &mut self.frames {
            frames.finish();
        }
    }

    /// Counts from here on only.
    pub fn restart_counting(&mut self) {
        self.settle_frames();
        self.sequences.restart_counting();
        if let Some(frames) = &mut self.frames {
            frames.restart_counting();
        }
        self.first = None;
        self.last = None;
    }

    /// Packets so far.
    pub fn packets(&self) -> PacketCounters {
        self.sequences.counters()
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
        let in_time = packets.received - packets.late;
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
        self.frames.as_ref().map(FrameLedger::freezes).unwrap_or_default()
    }

    /// Jitter now.
    pub fn jitter(&self) -> Option<Duration> {
        self.jitter.jitter()
    }

    /// First and last packet with payload that came in time.
    pub fn span(&self) -> Option<(Arrival, Arrival)> {
        Some((self.first?, self.last?))
    }

    /// Payload bits a second between first and last packet; `None` with fewer than two.
    pub fn bitrate_bps(&self) -> Option<f64> {
        let (first, last) = self.span()?;
        let seconds = last.instant.saturating_duration_since(first.instant).as_secs_f64();
        (seconds > 0.0).then(|| self.sequences.counters().bytes as f64 * 8.0 / seconds)
    }

    /// First complete keyframe.
    pub fn first_keyframe(&self) -> Option<Arrival> {
        self.frames.as_ref().and_then(FrameLedger::first_keyframe)
    }

    /// A real client would ask for a keyframe now.
    pub fn keyframe_wanted(&self) -> bool {
        self.frames.as_ref().is_some_and(FrameLedger::keyframe_wanted)
    }

    /// Bytes of this ledger, heap included.
    pub fn bytes(&self) -> usize {
        let frames = self.frames.as_ref().map_or(0, FrameLedger::heap_bytes);
        size_of::<Self>() + self.sequences.heap_bytes() + frames
    }

    fn settle_frames(&mut self) {
        if let (Some(frames), Some(floor)) = (&mut self.frames, self.sequences.open_floor()) {
            frames.settle(floor);
        }
    }
}
