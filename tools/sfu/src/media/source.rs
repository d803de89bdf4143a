//! The publisher's side of a track: its SSRCs, and what it sent.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use stampede_media::Red;
use str0m::format::{Codec, PayloadParams};
use str0m::media::{Frequency, Pt};
use str0m::rtp::RtpPacket;

use super::codec;
use super::message::{PeerLabel, PublishedTrack};
use super::packet::{Extensions, MediaPacket};
use super::rewrite::{DenseSequence, Numbers};
use super::scalable::frame::{DescriptorValue, Descriptors};
use super::speech::Speech;
use crate::ledger::PublishedTrackLedger;

/// The publisher's side of a track.
pub(crate) struct Source {
    peer: usize,
    room: Arc<str>,
    /// Other workers that want the packets.
    interested: Vec<usize>,
    /// Numberings, one an SSRC seen.
    streams: Vec<SourceStream>,
    /// Of the latest packet to forward, if one has come.
    codec: Option<Codec>,
    /// Of a microphone; LiveKit `pkg/rtc/uptrackmanager.go`, `GetAudioLevel`, listens to no other track.
    speech: Option<Speech>,
    ledger: PublishedTrackLedger,
}

/// One SSRC of a publisher.
struct SourceStream {
    ssrc: u32,
    layer: u8,
    /// Unique number of this numbering.
    id: u32,
    sequence: DenseSequence,
    first_seq: u64,
    highest_seq: u64,
    received: u64,
    params: PayloadParams,
    /// Of several layers in one stream; of simulcast layers each is one.
    descriptors: Option<Descriptors>,
}

impl Source {
    /// Of a track that the publisher at index `peer` of its worker has bound.
    pub(crate) fn new(peer: usize, label: &PeerLabel, track: &PublishedTrack) -> Self {
        Self {
            peer,
            room: label.room.clone(),
            interested: Vec::new(),
            streams: Vec::new(),
            codec: None,
            speech: track.microphone.then(Speech::default),
            ledger: PublishedTrackLedger {
                identity: label.identity.to_string(),
                track_sid: track.sid.to_string(),
                kind: track.kind.to_string(),
                ..PublishedTrackLedger::default()
            },
        }
    }

    /// Index of the publisher's peer.
    pub(crate) fn peer(&self) -> usize {
        self.peer
    }

    /// The room it is published in.
    pub(crate) fn room(&self) -> &Arc<str> {
        &self.room
    }

    /// Other workers that want the packets.
    pub(crate) fn interested(&self) -> &[usize] {
        &self.interested
    }

    /// Another worker wants the packets, or no longer.
    pub(crate) fn set_interest(&mut self, worker: usize, wanted: bool) {
        self.interested.retain(|&known| known != worker);
        if wanted {
            self.interested.push(worker);
        }
    }

    /// The SSRC to ask for a keyframe of a layer, which counts as asked: of several the newest.
    pub(crate) fn keyframe_ssrc(&mut self, layer: u8) -> Option<u32> {
        let stream = self.streams.iter().rev().find(|stream| stream.layer == layer)?;
        self.ledger.counted.plis_sent += 1;
        Some(stream.ssrc)
    }

    /// A packet to forward has come, of this codec: whether it is the first one of it.
    pub(crate) fn begin(&mut self, codec: Codec) -> bool {
        self.codec.replace(codec) != Some(codec)
    }

    /// Starts a numbering, `id`, for the SSRC of this packet, which is of this layer, and whether that is
    /// one of simulcast; its index.
    pub(crate) fn add_stream(
        &mut self,
        id: u32,
        (layer, simulcast): (u8, bool),
        params: PayloadParams,
        packet: &RtpPacket,
    ) -> usize {
        self.streams.push(SourceStream {
            ssrc: *packet.header.ssrc,
            layer,
            id,
            sequence: DenseSequence::default(),
            first_seq: *packet.seq_no,
            highest_seq: *packet.seq_no,
            received: 0,
            params,
            descriptors: (!simulcast).then(Descriptors::default),
        });
        self.streams.len() - 1
    }

    /// Reads and numbers a packet of one of its streams, with the parameters of its codec. `None`
    /// if it is not to be forwarded: without payload, of an unknown payload type, too late, or of
    /// no such stream.
    pub(crate) fn take(
        &mut self,
        stream: usize,
        packet: RtpPacket,
        known: &[PayloadParams],
    ) -> Option<(PayloadParams, MediaPacket)> {
        let stream = self.streams.get_mut(stream)?;
        if packet.payload.is_empty() {
            stream.count(*packet.seq_no);
            stream.sequence.padding(*packet.seq_no);
            self.ledger.counted.padding_only += 1;
            return None;
        }
        let payload_type = packet.header.payload_type;
        if !carries(&stream.params, payload_type) {
            stream.params = params_of(known, *payload_type)?;
        }
        let mut primary_at = None;
        if stream.params.red() == Some(payload_type) {
            let Ok(red) = Red::parse(&packet.payload) else {
                stream.count(*packet.seq_no);
                stream.sequence.padding(*packet.seq_no);
                self.ledger.counted.red_malformed += 1;
                return None;
            };
            primary_at = Some(packet.payload.len() - red.primary.len());
        }
        stream.count(*packet.seq_no);
        self.ledger.counted.packets_received += 1;
        self.ledger.counted.bytes_received += packet.payload.len() as u64;
        let seq = stream.sequence.map(*packet.seq_no)?;
        let spec = stream.params.spec();
        let inspected = codec::inspect(spec.codec, &packet.payload);
        self.ledger.counted.keyframes +=
            u64::from(inspected.starts_keyframe && spec.codec.is_video());
        let numbers = Numbers {
            source: stream.id,
            seq,
            timestamp: packet.header.timestamp,
            vp8: inspected.vp8,
            captured_at_unix_us: captured_at(&packet, spec.clock_rate),
            arrived_at: packet.timestamp,
        };
        let value = packet.header.ext_vals.user_values.get::<DescriptorValue>();
        let frame = match (value, &mut stream.descriptors) {
            (Some(DescriptorValue(bytes)), Some(descriptors))
                if matches!(spec.codec, Codec::Vp9 | Codec::Av1) =>
            {
                descriptors.read(bytes)
            }
            _ => None,
        };
        let packet = MediaPacket {
            layer: stream.layer,
            numbers,
            marker: packet.header.marker,
            starts_keyframe: inspected.starts_keyframe,
            extensions: Extensions::read(&packet.header.ext_vals),
            payload: packet.payload,
            primary_at,
            frame,
        };
        Some((stream.params, packet))
    }

    /// What one of its packets shows of whoever speaks, if that is news: see [`Speech::hear`].
    pub(crate) fn hear(&mut self, params: PayloadParams, packet: &MediaPacket) -> Option<f32> {
        let rate = params.spec().clock_rate.get();
        let numbers = &packet.numbers;
        let level = packet.extensions.audio_level?;
        self.speech.as_mut()?.hear(numbers.arrived_at, level, numbers.timestamp, rate)
    }

    /// Its row of the ledger now.
    pub(crate) fn row(&self) -> PublishedTrackLedger {
        let mut row = self.ledger.clone();
        let latest = self.streams.last().map(|stream| stream.params.spec().codec);
        row.codec = latest.and_then(codec::mime_type).map(str::to_owned);
        row.counted.packets_lost = self.streams.iter().map(SourceStream::lost).sum();
        row
    }
}

impl SourceStream {
    /// Counts an arrival for the loss figure.
    fn count(&mut self, seq: u64) {
        self.received += 1;
        self.first_seq = self.first_seq.min(seq);
        self.highest_seq = self.highest_seq.max(seq);
    }

    /// Sequence numbers that never arrived.
    fn lost(&self) -> u64 {
        (self.highest_seq - self.first_seq + 1).saturating_sub(self.received)
    }
}

/// The parameters of a payload type; of redundant audio those of what it consists of.
pub(crate) fn params_of(params: &[PayloadParams], payload_type: u8) -> Option<PayloadParams> {
    params.iter().find(|params| carries(params, payload_type.into())).copied()
}

fn carries(params: &PayloadParams, payload_type: Pt) -> bool {
    params.pt() == payload_type || params.red() == Some(payload_type)
}

/// When a frame was captured by the clock of the publisher's last sender report (RFC 3550 §6.4.1).
fn captured_at(packet: &RtpPacket, clock_rate: Frequency) -> Option<i64> {
    let report = packet.last_sender_info.as_ref()?;
    let since = packet.header.timestamp.wrapping_sub(report.rtp_time.numer() as u32) as i32;
    let us = i64::from(since) * 1_000_000 / i64::from(clock_rate.get().max(1));
    let report_at = unix_us(report.ntp_time)?;
    Some(report_at + us)
}

fn unix_us(at: SystemTime) -> Option<i64> {
    let since = at.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_micros()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]

    use std::time::{Duration, Instant};

    use super::*;
    use crate::media::connection::codecs;
    use crate::media::message::{Role, TrackKey};
    use crate::media::rewrite::Vp8Numbers;

    #[test]
    fn only_a_microphone_is_listened_to() {
        let label = PeerLabel { room: "room".into(), identity: "alice".into() };
        let params = codecs(Role::Publisher);
        let opus = *params.params().iter().find(|one| one.spec().codec == Codec::Opus).unwrap();
        let heard = |microphone| {
            let track = PublishedTrack {
                track: TrackKey(1),
                sid: "TR_1".into(),
                mid: "0".into(),
                kind: stampede_core::MediaKind::Audio,
                mime_type: "audio/opus".into(),
                dtx: true,
                red: false,
                microphone,
            };
            let (mut source, start) = (Source::new(0, &label, &track), Instant::now());
            let loud = |number: u32| MediaPacket {
                layer: 0,
                numbers: Numbers {
                    source: 1,
                    seq: u64::from(number),
                    timestamp: 960 * number,
                    vp8: Vp8Numbers::default(),
                    captured_at_unix_us: None,
                    arrived_at: start + Duration::from_millis(20) * number,
                },
                marker: false,
                starts_keyframe: true,
                extensions: Extensions { audio_level: Some(-20), ..Extensions::default() },
                payload: [0u8; 4].as_slice().into(),
                primary_at: None,
                frame: None,
            };
            (0..100).filter(|number| source.hear(opus, &loud(*number)).is_some()).count()
        };
        assert_eq!((heard(true), heard(false)), (1, 0));
    }
}
