//! Received streams one by one: the rows of the CSV, and the worst of them in the JSON.

use std::cmp::Ordering;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stampede_counters::{Columns, MediaCounters};

/// Most streams in the JSON.
pub const STREAMS_WORST_MAX: usize = 50;

/// One received stream (primary SSRC) of one subscriber over the measured window. Moments are
/// seconds since the start of the run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StreamRow {
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
    /// What was counted of it.
    #[serde(flatten)]
    pub counters: Columns<MediaCounters>,
    /// `unrecovered / expected`.
    pub loss_rate: Option<f64>,
    /// `missing / expected`.
    pub missing_rate: Option<f64>,
    /// Payload bits over the time in which its track was expected to play, whatever part of that the
    /// stream was there for; `null` where that is not known.
    pub bitrate_bps: Option<f64>,
    /// Mean height of its pictures over the time that they were shown; `null` where it is not known.
    pub height_px_mean: Option<f64>,
    /// Interarrival jitter at the end.
    pub jitter_ms: Option<f64>,
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

/// The worst at most [`STREAMS_WORST_MAX`], worst first.
pub fn worst(rows: &[StreamRow]) -> Vec<StreamRow> {
    let mut worst: Vec<&StreamRow> = rows.iter().collect();
    worst.sort_by(|a, b| badness(a, b));
    worst.into_iter().take(STREAMS_WORST_MAX).cloned().collect()
}

/// Orders by what a viewer would complain about: nothing received, loss for good, freezes, late
/// frames; then what was repaired, and jitter. Closed streams that got nothing are no complaint.
fn badness(a: &StreamRow, b: &StreamRow) -> Ordering {
    let silent = |row: &StreamRow| !row.closed && row.counters.packets.received == 0;
    let frozen_s = |row: &StreamRow| row.counters.freezes.total_s.as_secs_f64();
    let down = |a: f64, b: f64| b.total_cmp(&a);
    silent(b)
        .cmp(&silent(a))
        .then_with(|| down(a.loss_rate.unwrap_or(0.0), b.loss_rate.unwrap_or(0.0)))
        .then_with(|| frozen_s(b).total_cmp(&frozen_s(a)))
        .then_with(|| down(a.missing_rate.unwrap_or(0.0), b.missing_rate.unwrap_or(0.0)))
        .then_with(|| down(a.jitter_ms.unwrap_or(0.0), b.jitter_ms.unwrap_or(0.0)))
        .then_with(|| (&a.identity, a.ssrc).cmp(&(&b.identity, b.ssrc)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stampede_counters::Seconds;

    use super::*;

    fn named(identity: &str) -> StreamRow {
        let mut row = StreamRow { identity: identity.to_owned(), ..StreamRow::default() };
        row.counters.packets.received = 10;
        row
    }

    #[test]
    fn the_worst_come_first_and_are_few() {
        let mut rows: Vec<_> = (0..100).map(|number| named(&format!("s{number:03}"))).collect();
        rows[70].loss_rate = Some(0.02);
        rows[71].loss_rate = Some(0.5);
        rows[72].counters.freezes.total_s = Seconds(Duration::from_secs(2));
        rows[73].jitter_ms = Some(30.0);
        rows[74].counters.packets.received = 0;
        (rows[75].counters.packets.received, rows[75].closed) = (0, true);
        let worst = worst(&rows);
        let names: Vec<_> = worst.iter().map(|row| row.identity.as_str()).collect();
        assert_eq!(names[..6], ["s074", "s071", "s070", "s072", "s073", "s000"]);
        assert_eq!(worst.len(), STREAMS_WORST_MAX);
    }
}
