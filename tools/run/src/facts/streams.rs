//! The rows of received streams.

use std::time::Instant;

use stampede_core::{Arrival, MediaKind, StreamReport};
use stampede_counters::Columns;
use stampede_engine::{EngineReport, PeerRow};
use stampede_report::show::round;
use stampede_report::types::StreamRow;

use crate::data::RunData;
use crate::joins::of_first_try;
use crate::viewers::Viewers;

/// All streams of a run.
pub(super) fn all(data: &RunData, viewers: &Viewers<'_>) -> Vec<StreamRow> {
    let engine = data.engine.as_ref();
    let workers = engine.map_or(&[][..], |engine: &EngineReport| &engine.workers);
    let mut rows = Vec::new();
    for worker in workers {
        for peer in &worker.peers {
            let member = data.joins.member(&peer.label);
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
    let packets = &stream.packets;
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
        counters: Columns(stream.counters()),
        loss_rate: packets.loss_rate(),
        missing_rate: packets.missing_rate(),
        bitrate_bps: None,
        height_px_mean: stream.height_mean.map(|height| round(height, 1)),
        jitter_ms: stream.jitter.map(|jitter| round(jitter.as_secs_f64() * 1_000.0, 3)),
        first_packet_s: since(stream.first_packet),
        last_packet_s: since(stream.last_packet),
        first_keyframe_s: since(stream.first_keyframe),
        sender_packets: stream.sender_packets,
        sender_report_s: since(stream.sender_report_at),
        kernel_drops: peer.kernel_drops,
        closed: stream.closed,
    }
}
