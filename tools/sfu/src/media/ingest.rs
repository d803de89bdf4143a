//! From a publisher's RTP packet to a [`MediaPacket`]: which track and layer, its numbers, its
//! keyframe; everything that need not be repeated for each subscriber.

use std::time::{SystemTime, UNIX_EPOCH};

use stampede_core::MediaKind;
use str0m::format::PayloadParams;
use str0m::media::Frequency;
use str0m::rtp::RtpPacket;

use super::codec;
use super::layers::layer_of_rid;
use super::rewrite::{DenseSequence, Numbers};
use super::track::{Extensions, MediaPacket, Source, SourceStream};
use super::worker::Worker;

/// SSRCs of one publisher at most; packets of further ones are ignored. Three layers of a few
/// republished tracks are far below it.
pub(crate) const PUBLISHER_SSRCS_MAX: usize = 512;

impl Worker {
    /// Takes a packet of the publisher `index` into its track's burst.
    pub(crate) fn ingest(&mut self, index: usize, packet: RtpPacket) {
        let Some((track_index, stream_index)) = self.source_stream(index, &packet) else {
            return;
        };
        let Some(track) = self.tracks.get_mut(track_index) else { return };
        let Some(source) = &mut track.source else { return };
        let Source { streams, ledger, .. } = source;
        let Some(stream) = streams.get_mut(stream_index) else { return };
        if packet.payload.is_empty() {
            stream.note(*packet.seq_no);
            stream.sequence.padding(*packet.seq_no);
            ledger.padding_only += 1;
            return;
        }
        if *packet.header.payload_type != stream.payload_type {
            let config = self.peers[index].rtc.codec_config();
            let Some(params) = params_of(config.params(), *packet.header.payload_type) else {
                return;
            };
            stream.payload_type = *packet.header.payload_type;
            stream.params = params;
        }
        stream.note(*packet.seq_no);
        ledger.packets_received += 1;
        ledger.bytes_received += packet.payload.len() as u64;
        let Some(seq) = stream.sequence.map(*packet.seq_no) else { return };
        let inspected = codec::inspect(stream.params.spec().codec, &packet.payload);
        let withheld = self.faults.withhold_keyframes && track.kind == MediaKind::Video;
        if inspected.starts_keyframe && stream.params.spec().codec.is_video() {
            ledger.keyframes += 1;
        }
        let params = stream.params;
        track.activity.heard(stream.layer, packet.timestamp);
        let captured_at_unix_us = captured_at(&packet, stream.params.spec().clock_rate);
        let layer = stream.layer;
        let source = stream.id;
        track.set_params(params);
        if track.burst.is_empty() {
            self.burst_tracks.push(track_index);
        }
        track.burst.push(MediaPacket {
            layer,
            numbers: Numbers {
                source,
                seq,
                timestamp: packet.header.timestamp,
                vp8: inspected.vp8,
                captured_at_unix_us,
                arrived_at: packet.timestamp,
            },
            marker: packet.header.marker,
            starts_keyframe: inspected.starts_keyframe && !withheld,
            extensions: Extensions::read(&packet.header.ext_vals),
            payload: packet.payload,
        });
    }

    /// The track and stream of a packet's SSRC, learned with the first packet.
    fn source_stream(&mut self, index: usize, packet: &RtpPacket) -> Option<(usize, usize)> {
        let peer = self.peers.get_mut(index)?;
        let ssrc = *packet.header.ssrc;
        if let Some(known) = peer.streams.get(&ssrc) {
            return *known;
        }
        if peer.streams.len() >= PUBLISHER_SSRCS_MAX {
            return None;
        }
        let (mid, rid) = {
            let mut api = peer.rtc.direct_api();
            let stream = api.stream_rx(&packet.header.ssrc)?;
            (stream.mid(), stream.rid())
        };
        // The mid may be bound a moment later, by an add_track after the offer: ask again then.
        let track_index = peer.mids.iter().find(|(known, _)| *known == mid)?.1;
        let layer = layer_of_rid(rid.as_deref());
        let params = params_of(peer.rtc.codec_config().params(), *packet.header.payload_type);
        let found = match (layer, params, self.tracks.get_mut(track_index)) {
            (Some(layer), Some(params), Some(track)) => track.source.as_mut().map(|source| {
                self.source_streams += 1;
                source.streams.push(SourceStream {
                    ssrc,
                    layer,
                    id: self.source_streams,
                    sequence: DenseSequence::default(),
                    first_seq: *packet.seq_no,
                    highest_seq: *packet.seq_no,
                    received: 0,
                    params,
                    payload_type: *packet.header.payload_type,
                });
                (track_index, source.streams.len() - 1)
            }),
            _ => None,
        };
        tracing::debug!(
            peer = self.peers[index].key.0,
            ssrc,
            %mid,
            rid = rid.map(|rid| rid.to_string()),
            known = found.is_some(),
            "new incoming stream"
        );
        self.peers[index].streams.insert(ssrc, found);
        found
    }
}

impl SourceStream {
    /// Counts an arrival for the loss figure.
    fn note(&mut self, seq: u64) {
        self.received += 1;
        self.first_seq = self.first_seq.min(seq);
        self.highest_seq = self.highest_seq.max(seq);
    }
}

fn params_of(params: &[PayloadParams], payload_type: u8) -> Option<PayloadParams> {
    params.iter().find(|params| *params.pt() == payload_type).copied()
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
