//! Received streams one by one: the rows of the CSV, and the worst of them in the JSON.

use std::cmp::Ordering;
use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stampede_core::{Arrival, MediaKind, StreamReport};
use stampede_engine::{EngineReport, PeerRow};

use super::build::round;
use super::viewers::Viewers;
use crate::run::RunData;
use crate::run::of_first_try;

/// Most streams in the JSON.
pub(crate) const WORST_MAX: usize = 50;

/// One received stream (primary SSRC) of one subscriber over the measured window. Moments are
/// seconds since the start of the run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct StreamRow {
    /// Its host in a merged report.
    pub host: Option<String>,
    /// The subscriber.
    pub identity: String,
    /// Its room.
    pub room: Option<String>,
    /// Its cohort, if the scenario has any.
    pub cohort: Option<String>,
    /// The media worker that held it.
    pub worker: u64,
    /// `audio` or `video`.
    pub kind: String,
    /// Codec; `null` if no packet came.
    pub codec: Option<String>,
    /// Primary SSRC.
    pub ssrc: u32,
    /// Mid of its m-line.
    pub mid: String,
    /// LiveKit's track id.
    pub track_id: Option<String>,
    /// Packets that should have arrived.
    pub expected: u64,
    /// Packets that arrived, each once.
    pub received: u64,
    /// Packets not there when passed over.
    pub missing: u64,
    /// Missing ones that came in time.
    pub repaired: u64,
    /// Missing ones that came too late.
    pub late: u64,
    /// Missing ones that were not repaired in time.
    pub unrecovered: u64,
    /// Packets that came more than once.
    pub duplicate: u64,
    /// Packets that came after a higher sequence number.
    pub reordered: u64,
    /// Repairs that came by RTX.
    pub rtx_repairs: u64,
    /// RTX packets that brought nothing.
    pub rtx_redundant: u64,
    /// Packets without payload.
    pub padding_only: u64,
    /// Packets from too far behind to be told from duplicates.
    pub stale: u64,
    /// Payload bytes.
    pub payload_bytes: u64,
    /// `unrecovered / expected`.
    pub loss_rate: Option<f64>,
    /// `missing / expected`.
    pub missing_rate: Option<f64>,
    /// Payload bits over the time in which its track was expected to play, whatever part of that the
    /// stream was there for; `null` where that is not known.
    pub bitrate_bps: Option<f64>,
    /// Frames of which a packet arrived.
    pub frames_received: u64,
    /// Frames with every packet there in time.
    pub frames_complete: u64,
    /// Complete frames with decodable references.
    pub frames_decodable: Option<u64>,
    /// Frames known to exist that can't be shown.
    pub frames_dropped: Option<u64>,
    /// Complete keyframes.
    pub keyframes: u64,
    /// Freezes by libwebrtc's rule.
    pub freezes: u64,
    /// Together.
    pub freezes_total_s: f64,
    /// Interarrival jitter at the end.
    pub jitter_ms: Option<f64>,
    /// NACK messages sent.
    pub nack_sent: u64,
    /// PLI messages sent.
    pub pli_sent: u64,
    /// First packet.
    pub first_packet_s: Option<f64>,
    /// Last packet.
    pub last_packet_s: Option<f64>,
    /// First complete keyframe.
    pub first_keyframe_s: Option<f64>,
    /// Packets the server says it sent since the stream began, in its last sender report.
    pub sender_packets: Option<u64>,
    /// When that came.
    pub sender_report_s: Option<f64>,
    /// Datagrams the kernel dropped at this subscriber's receive buffer, as in `udp_dropped`.
    pub kernel_drops: u64,
    /// The stream was replaced or removed by a later offer.
    pub closed: bool,
}

/// All streams of a run.
pub(crate) fn all(data: &RunData, viewers: &Viewers<'_>) -> Vec<StreamRow> {
    let engine = data.engine.as_ref();
    let workers = engine.map_or(&[][..], |engine: &EngineReport| &engine.workers);
    let mut rows = Vec::new();
    for worker in workers {
        for peer in &worker.peers {
            let member = data.book.member(&peer.label);
            for stream in &peer.report.streams {
                let mut row = row(stream, peer, data.clock.started);
                row.worker = worker.worker as u64;
                row.bitrate_bps = member.and_then(|member| {
                    let sid = stream.track_id.as_deref()?;
                    let publication = data.audience.publication_of(&member.room, sid)?;
                    let subscriber = of_first_try(&peer.label);
                    let expected = viewers.track_counted(&member.room, subscriber, publication)?;
                    Some((stream.packets.bytes as f64 * 8.0 / expected.as_secs_f64()).round())
                });
                row.room = member.map(|member| member.room.clone());
                row.cohort = member.and_then(|member| member.cohort.clone());
                rows.push(row);
            }
        }
    }
    rows
}

fn row(stream: &StreamReport, peer: &PeerRow, started: Instant) -> StreamRow {
    let since = |arrival: Option<Arrival>| {
        let since = arrival?.instant.checked_duration_since(started)?;
        Some(round(since.as_secs_f64(), 3))
    };
    let (packets, frames) = (&stream.packets, &stream.frames);
    StreamRow {
        host: None,
        identity: peer.label.clone(),
        room: None,
        cohort: None,
        worker: 0,
        kind: match stream.kind {
            MediaKind::Video => "video".to_owned(),
            MediaKind::Audio => "audio".to_owned(),
        },
        codec: stream.codec.map(|codec| format!("{codec:?}").to_lowercase()),
        ssrc: stream.ssrc,
        mid: stream.mid.clone(),
        track_id: stream.track_id.clone(),
        expected: packets.expected,
        received: packets.received,
        missing: packets.missing,
        repaired: packets.repaired,
        late: packets.late,
        unrecovered: packets.unrecovered,
        duplicate: packets.duplicate,
        reordered: packets.reordered,
        rtx_repairs: packets.rtx_repairs,
        rtx_redundant: packets.rtx_redundant,
        padding_only: packets.padding_only,
        stale: packets.stale,
        payload_bytes: packets.bytes,
        loss_rate: packets.loss_rate(),
        missing_rate: packets.missing_rate(),
        bitrate_bps: None,
        frames_received: frames.received,
        frames_complete: frames.complete,
        frames_decodable: frames.decodable,
        frames_dropped: frames.dropped,
        keyframes: frames.keyframes,
        freezes: stream.freezes.count,
        freezes_total_s: round(stream.freezes.total.as_secs_f64(), 3),
        jitter_ms: stream.jitter.map(|jitter| round(jitter.as_secs_f64() * 1_000.0, 3)),
        nack_sent: stream.nack_sent,
        pli_sent: stream.pli_sent,
        first_packet_s: since(stream.first_packet),
        last_packet_s: since(stream.last_packet),
        first_keyframe_s: since(stream.first_keyframe),
        sender_packets: stream.sender_packets,
        sender_report_s: since(stream.sender_report_at),
        kernel_drops: peer.kernel_drops,
        closed: stream.closed,
    }
}

/// The worst at most [`WORST_MAX`], worst first.
pub(crate) fn worst(rows: &[StreamRow]) -> Vec<StreamRow> {
    let mut worst: Vec<&StreamRow> = rows.iter().collect();
    worst.sort_by(|a, b| badness(a, b));
    worst.into_iter().take(WORST_MAX).cloned().collect()
}

/// Orders by what a viewer would complain about: nothing received, loss for good, freezes, late
/// frames; then what was repaired, and jitter. Closed streams that got nothing are no complaint.
fn badness(a: &StreamRow, b: &StreamRow) -> Ordering {
    let silent = |row: &StreamRow| !row.closed && row.received == 0;
    let down = |a: f64, b: f64| b.total_cmp(&a);
    silent(b)
        .cmp(&silent(a))
        .then_with(|| down(a.loss_rate.unwrap_or(0.0), b.loss_rate.unwrap_or(0.0)))
        .then_with(|| down(a.freezes_total_s, b.freezes_total_s))
        .then_with(|| down(a.missing_rate.unwrap_or(0.0), b.missing_rate.unwrap_or(0.0)))
        .then_with(|| down(a.jitter_ms.unwrap_or(0.0), b.jitter_ms.unwrap_or(0.0)))
        .then_with(|| (&a.identity, a.ssrc).cmp(&(&b.identity, b.ssrc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(identity: &str) -> StreamRow {
        StreamRow { identity: identity.to_owned(), received: 10, ..StreamRow::default() }
    }

    #[test]
    fn the_worst_come_first_and_are_few() {
        let mut rows: Vec<_> = (0..100).map(|number| named(&format!("s{number:03}"))).collect();
        rows[70].loss_rate = Some(0.02);
        rows[71].loss_rate = Some(0.5);
        rows[72].freezes_total_s = 2.0;
        rows[73].jitter_ms = Some(30.0);
        rows[74].received = 0;
        (rows[75].received, rows[75].closed) = (0, true);
        let worst = worst(&rows);
        let names: Vec<_> = worst.iter().map(|row| row.identity.as_str()).collect();
        assert_eq!(names[..6], ["s074", "s071", "s070", "s072", "s073", "s000"]);
        assert_eq!(worst.len(), WORST_MAX);
    }
}
