//! One received stream: its ledger, its keyframe requests, what its sender says of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use stampede_media::{AssemblerPacket, FrameAssembler, PacketTrailer, Red};

use super::formats::Format;
use super::nack::NackList;
use super::recorder::Recorder;
use crate::accounting::{Stamp, StampSource, StreamLedger};
use crate::peer::outbox::Outbox;
use crate::peer::{PLI_INTERVAL_MAX, PLI_INTERVAL_MIN, PLI_WHILE_RECEIVED};
use crate::watch::StreamCover;
use crate::{
    Arrival, CapturedPacket, FeedbackCounters, MediaCounters, MediaKind, PacketCounters,
    RecordedStream, SenderWindow, StreamReport, StreamsCounters,
};

/// Header and payload of an authentic packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Accepted<'a> {
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    pub(super) marker: bool,
    pub(super) format: Format,
    pub(super) payload: &'a [u8],
    /// Its header extension abs-capture-time, in nanoseconds since the Unix epoch.
    pub(super) captured_unix_ns: Option<u64>,
    /// Value of AV1's dependency descriptor extension.
    pub(super) dependency_descriptor: Option<&'a [u8]>,
}

impl Accepted<'_> {
    pub(super) fn captured(
        &self,
        ssrc: u32,
        repaired: bool,
        at: Arrival,
        payload: bool,
    ) -> CapturedPacket {
        CapturedPacket {
            at_unix_ns: at.unix_ns,
            ssrc,
            sequence: self.sequence,
            timestamp: self.timestamp,
            marker: self.marker,
            payload_type: if self.format.red { self.format.wire } else { self.format.media },
            repaired,
            payload_bytes: self.payload.len(),
            payload: if payload { Bytes::copy_from_slice(self.payload) } else { Bytes::new() },
        }
    }
}

/// One received stream. What each packet touches lies in front.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Stream {
    pub(super) kind: MediaKind,
    payload_type: Option<u8>,
    /// There is a gap whose deadline is waited for.
    pub(super) waits_for_gap: bool,
    /// A keyframe was wanted when it was asked last.
    keyframe_wanted: bool,
    pub(super) recorder: Option<Box<Recorder>>,
    pub(super) ledger: StreamLedger,
    keyframe_requests: KeyframeRequests,
    pub(super) nacks: NackList,
    pub(super) ssrc: u32,
    pub(super) rtx: Option<u32>,
    /// Counts the streams of a peer.
    id: u32,
    pub(super) mid: Box<str>,
    pub(super) track_id: Option<Arc<str>>,
    /// NACKs sent in the measured window.
    pub(super) nack_sent: u64,
    /// REMBs that went out with reports on it, and transport-wide reports about it, in the measured
    /// window.
    pub(super) remb_sent: u64,
    pub(super) twcc_sent: u64,
    sender_report: Option<(u64, Arrival)>,
    /// The sender's count and ours at the first and at the last report of the measured window.
    sender_marks: Option<[SenderMark; 2]>,
}

/// Counts when a sender report came: their low bits, as the report itself has them. Only what they grow
/// by is asked for.
#[derive(Debug, Clone, Copy)]
struct SenderMark {
    sent: u32,
    /// What was expected so far, and padding.
    span: u32,
    padding_only: u32,
    missing: u32,
    reordered: u32,
}

impl SenderMark {
    fn new(sent: u64, packets: &PacketCounters) -> Self {
        let &PacketCounters { expected, padding_only, missing, reordered, .. } = packets;
        Self {
            sent: sent as u32,
            span: (expected + padding_only) as u32,
            padding_only: padding_only as u32,
            missing: missing as u32,
            reordered: reordered as u32,
        }
    }
}

#[derive(Debug)]
struct KeyframeRequests {
    next_at: Option<Instant>,
    interval: Duration,
    sent: u64,
}

impl Stream {
    pub(super) fn new(
        id: u32,
        (ssrc, rtx): (u32, Option<u32>),
        mid: &str,
        kind: MediaKind,
        track: Option<&str>,
        ledger: StreamLedger,
    ) -> Self {
        Self {
            ssrc,
            rtx,
            mid: mid.into(),
            kind,
            track_id: track.map(Arc::from),
            id,
            payload_type: None,
            ledger,
            keyframe_requests: KeyframeRequests {
                next_at: None,
                interval: PLI_INTERVAL_MIN,
                sent: 0,
            },
            waits_for_gap: false,
            keyframe_wanted: false,
            nacks: NackList::default(),
            nack_sent: 0,
            remb_sent: 0,
            twcc_sent: 0,
            sender_report: None,
            sender_marks: None,
            recorder: None,
        }
    }

    /// The sender says how many packets it has sent.
    pub(super) fn set_sender_report(&mut self, packets: u64, at: Arrival) {
        self.sender_report = Some((packets, at));
        let mark = SenderMark::new(packets, &self.ledger.packets());
        let first = self.sender_marks.map_or(mark, |[first, _]| first);
        self.sender_marks = Some([first, mark]);
    }

    /// The measured window begins.
    pub(super) fn begin_measuring(&mut self, now: Instant) {
        self.ledger.restart_counting(now);
        (self.nack_sent, self.remb_sent, self.twcc_sent) = (0, 0, 0);
        self.sender_marks = None;
        self.keyframe_requests.sent = 0;
    }

    pub(super) fn cover(&mut self, last: bool) -> StreamCover {
        let (ended, open, trouble) = self.ledger.take_cover();
        StreamCover {
            track_id: self.track_id.clone(),
            stream: self.id,
            kind: self.kind,
            received: self.ledger.received(),
            ended,
            open,
            trouble,
            layers: self.ledger.take_layers(last),
            last,
        }
    }

    pub(super) fn learn_codec(&mut self, format: Format, recording: bool, outbox: &mut Outbox) {
        if self.payload_type == Some(format.media) {
            return;
        }
        self.payload_type = Some(format.media);
        if self.ledger.codec() == Some(format.codec) {
            return;
        }
        self.ledger.set_codec(format.codec);
        self.end_recording(outbox);
        if !recording {
            return;
        }
        match FrameAssembler::new(format.codec) {
            Err(error) => {
                tracing::warn!(ssrc = self.ssrc, track = ?self.track_id, "not recorded: {error}")
            }
            Ok(assembler) => {
                let stream = RecordedStream {
                    id: self.id,
                    ssrc: self.ssrc,
                    kind: self.kind,
                    codec: format.codec,
                    track_id: self.track_id.clone(),
                };
                self.ledger.keep_frames();
                self.recorder = Some(Box::new(Recorder::new(stream, assembler)));
            }
        }
    }

    /// Takes the publisher's stamps off a packet; returns its payload without them.
    pub(super) fn read_stamps<'a>(&mut self, packet: &Accepted<'a>) -> &'a [u8] {
        let mut stamp = |source, unix_ns| {
            self.ledger.stamp(packet.timestamp, Stamp { source, unix_ns });
        };
        if let Some(unix_ns) = packet.captured_unix_ns {
            stamp(StampSource::AbsCaptureTime, unix_ns);
        }
        if self.kind != MediaKind::Video || !packet.marker {
            return packet.payload;
        }
        let Some(trailer) = PacketTrailer::find(packet.payload) else { return packet.payload };
        if let Some(unix_ns) = trailer.timestamp_us.and_then(|us| us.checked_mul(1_000)) {
            stamp(StampSource::PacketTrailer, unix_ns);
        }
        &packet.payload[..packet.payload.len() - trailer.len]
    }

    /// Takes the payloads in front of this packet's own for those that it passes over.
    pub(super) fn repair(&mut self, packet: &Accepted<'_>, red: Red<'_>, at: Arrival) {
        if !self.ledger.sequences.passes_over(packet.sequence) {
            return;
        }
        for block in red.redundant() {
            let sequence = packet.sequence.wrapping_sub(block.behind);
            let timestamp = packet.timestamp.wrapping_sub(block.timestamp_offset);
            let receipt = self.ledger.redundant(sequence, timestamp, block.payload, at);
            if let (Some(receipt), Some(recorder)) = (receipt, &mut self.recorder) {
                recorder.push(AssemblerPacket {
                    sequence: receipt.sequence,
                    timestamp,
                    marker: false,
                    payload: block.payload,
                });
            }
        }
    }

    /// Hands out what was measured, and recorded frames that nothing before can change any more.
    pub(super) fn release_frames(&mut self, outbox: &mut Outbox) {
        for sample in self.ledger.drain_samples() {
            outbox.sample(sample);
        }
        if let Some(recorder) = &mut self.recorder {
            // Not at the deadline alone: what comes behind it ends a gap too, and so does a full window.
            if let Some(floor) = self.ledger.sequences.open_floor() {
                recorder.give_up_before(floor);
            }
            recorder.follow(&mut self.ledger, outbox);
        }
    }

    fn end_recording(&mut self, outbox: &mut Outbox) {
        if let Some(recorder) = self.recorder.take() {
            recorder.end(&mut self.ledger, outbox);
        }
    }

    /// Gives up on gaps that were due before `now`.
    pub(super) fn expire_gaps(&mut self, now: Instant, outbox: &mut Outbox) {
        self.ledger.expire_gaps(now);
        if let (Some(recorder), Some(floor)) =
            (&mut self.recorder, self.ledger.sequences.open_floor())
        {
            recorder.abandon_before(floor);
        }
        self.release_frames(outbox);
    }

    /// It waits for something, or did until now.
    #[inline]
    pub(super) fn may_be_due(&self) -> bool {
        let waits = self.waits_for_gap || self.ledger.sequences.next_deadline().is_some();
        waits || self.keyframe_wanted || self.ledger.keyframe_wanted()
    }

    /// A keyframe is wanted.
    pub(super) fn is_keyframe_wanted(&self) -> bool {
        self.ledger.keyframe_wanted()
    }

    /// [`Self::poll_keyframe_request`] has not been told yet that a keyframe is wanted, or no longer.
    pub(super) fn has_keyframe_news(&self) -> bool {
        self.keyframe_wanted != self.ledger.keyframe_wanted()
    }

    pub(super) fn poll_keyframe_request(
        &mut self,
        now: Instant,
        due: &mut Vec<u32>,
    ) -> Option<Instant> {
        let requests = &mut self.keyframe_requests;
        self.keyframe_wanted = self.ledger.keyframe_wanted();
        if !self.keyframe_wanted {
            requests.interval = PLI_INTERVAL_MIN;
            return None;
        }
        let receiving = self.ledger.span().is_some_and(|(_, last)| {
            now.saturating_duration_since(last.instant) < PLI_WHILE_RECEIVED
        });
        if !receiving {
            return None;
        }
        if let Some(next_at) = requests.next_at.filter(|&next_at| next_at > now) {
            return Some(next_at);
        }
        due.push(self.ssrc);
        self.ledger.asked_for_keyframe(now);
        let requests = &mut self.keyframe_requests;
        requests.sent += 1;
        let next_at = now + requests.interval;
        requests.interval = (requests.interval * 2).min(PLI_INTERVAL_MAX);
        requests.next_at = Some(next_at);
        Some(next_at)
    }

    pub(super) fn finish(&mut self, now: Instant, leaving: Option<Instant>, outbox: &mut Outbox) {
        self.ledger.finish(now, leaving.map_or(now, |leaving| leaving.min(now)));
        self.release_frames(outbox);
        self.end_recording(outbox);
    }

    pub(super) fn counters(&self) -> MediaCounters {
        let packets = self.ledger.packets();
        let switches = self.ledger.layer_switches();
        MediaCounters {
            streams: StreamsCounters { announced: 1, received: u64::from(packets.received > 0) },
            packets,
            frames: self.ledger.frames(),
            freezes: self.ledger.freezes(),
            feedback: FeedbackCounters {
                nack_sent: self.nack_sent,
                remb_sent: self.remb_sent,
                twcc_sent: self.twcc_sent,
                pli_sent: self.keyframe_requests.sent,
                layer_switches: switches.map(|(up, down)| up + down),
                layer_switches_down: switches.map(|(_, down)| down),
            },
            latency: self.ledger.latency(),
        }
    }

    fn sender_window(&self) -> Option<SenderWindow> {
        let [first, last] = self.sender_marks?;
        // The field has 32 bits and wraps (RFC 3550 §6.4.1).
        let sent = u64::from(last.sent.wrapping_sub(first.sent));
        let grown = |part: fn(&SenderMark) -> u32| {
            let grown = part(&last).wrapping_sub(part(&first)).cast_signed();
            u64::from(grown.max(0).cast_unsigned())
        };
        (sent > 0).then(|| SenderWindow {
            sent,
            span: grown(|mark| mark.span),
            padding_only: grown(|mark| mark.padding_only),
            // What came after a higher number was sent, and arrived.
            missing: grown(|mark| mark.missing).saturating_sub(grown(|mark| mark.reordered)),
        })
    }

    pub(super) fn report(&self, closed: bool) -> StreamReport {
        let counters = self.counters();
        let span = self.ledger.span();
        StreamReport {
            kind: self.kind,
            codec: self.ledger.codec(),
            ssrc: self.ssrc,
            mid: self.mid.to_string(),
            track_id: self.track_id.as_deref().map(str::to_owned),
            packets: counters.packets,
            frames: counters.frames,
            freezes: counters.freezes,
            jitter: self.ledger.jitter(),
            feedback: counters.feedback,
            latency: counters.latency,
            first_packet: span.map(|(first, _)| first),
            last_packet: span.map(|(_, last)| last),
            first_keyframe: self.ledger.first_keyframe(),
            sender_packets: self.sender_report.map(|(packets, _)| packets),
            sender_report_at: self.sender_report.map(|(_, at)| at),
            sender_window: self.sender_window(),
            bitrate_bps: self.ledger.bitrate_bps(),
            height_mean: self.ledger.height_mean(),
            closed,
        }
    }
}
