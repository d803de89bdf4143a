//! The figures of a run that is under way, under the keys of the report; what `abort` thresholds
//! are set against. Counts begin anew with the measured window. What is known only at the end is
//! not there at all.

use serde_json::{Value, json};
use stampede_core::{MediaCounters, PeerCounters};

use super::types::{JoinSection, WatchFigures};

/// Watch time so far.
#[derive(Debug, Clone, Default)]
pub struct LiveWatch {
    /// Of video.
    pub video: WatchFigures,
    /// Of audio.
    pub audio: WatchFigures,
    /// Subscribers with a track that is interrupted now.
    pub interrupted: u64,
}

/// The workers so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct LiveWorkers {
    /// Sums over their peers.
    pub totals: PeerCounters,
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Datagrams the kernel dropped at our receive buffers.
    pub kernel_drops: u64,
    /// Datagrams the kernel refused to send.
    pub send_errors: u64,
    /// Datagrams not sent because our own send queue was full.
    pub send_queue_full: u64,
}

/// The figures now.
pub fn figures(join: &JoinSection, watch: &LiveWatch, workers: &LiveWorkers) -> Value {
    let sum = &workers.totals;
    let sent = &sum.publish;
    json!({
        "join": {
            "requested": join.requested,
            "started": join.started,
            "joined": join.joined,
            "failed": join.failed,
            "pending": join.pending,
            "pending_at": join.pending_at.unwrap_or_default(),
            "not_started": join.not_started,
            "dropped": join.dropped,
            "drops": join.drops,
            "tries_failed": join.tries_failed,
            "retries": join.retries,
            "resumed": join.resumed,
            "errors": join.errors,
            "peak": join.peak,
        },
        "video": video(&sum.video, &watch.video),
        "audio": media(&sum.audio, &watch.audio),
        "publish": {
            "tracks": sent.tracks,
            "packets_sent": sent.packets_sent,
            "bytes_sent": sent.bytes_sent,
            "retransmitted": sent.retransmitted,
            "nack_received": sent.nack_received,
            "pli_received": sent.pli_received,
            "frames_sent": sent.frames_sent,
            "keyframes_sent": sent.keyframes_sent,
            "late_packets": sent.late_packets,
            "layer_pauses": sent.layer_pauses,
            "upstream_lost": sent.upstream_lost,
            "upstream_loss_rate": sent.upstream_loss_rate(),
        },
        "generator": {
            "packets_in": workers.datagrams_in,
            "packets_out": workers.datagrams_out,
            "udp_dropped": workers.kernel_drops,
            "send_errors": workers.send_errors,
            "send_queue_full": workers.send_queue_full,
        },
    })
}

fn media(counters: &MediaCounters, watch: &WatchFigures) -> Value {
    let (packets, frames) = (&counters.packets, &counters.frames);
    let gaps = &watch.interruptions;
    let causes: serde_json::Map<String, Value> = gaps
        .causes
        .named()
        .map(|(name, of)| (name.to_owned(), json!({"count": of.count, "total_s": of.total_s})))
        .collect();
    json!({
        "tracks_received": counters.streams_received,
        "watch_ratio": watch.watch_ratio,
        "expected_s": watch.expected_s,
        "played_s": watch.played_s,
        "short_gaps_s": watch.short_gaps_s,
        "short_gaps_on_purpose_s": watch.short_gaps_on_purpose_s,
        "interruptions": {
            "count": gaps.count,
            "subscribers": gaps.subscribers,
            "total_s": gaps.total_s,
            "causes": causes,
        },
        "packets": {
            "expected": packets.expected,
            "received": packets.received,
            "missing": packets.missing,
            "repaired": packets.repaired,
            "late": packets.late,
            "unrecovered": packets.unrecovered,
            "duplicate": packets.duplicate,
            "reordered": packets.reordered,
            "server_made": packets.server_made,
        },
        "loss_rate": packets.loss_rate(),
        "missing_rate": packets.missing_rate(),
        "frames": {
            "received": frames.received,
            "complete": frames.complete,
            "decodable": frames.decodable,
            "dropped": frames.dropped,
        },
        "nack_sent": counters.nack_sent,
        "pli_sent": counters.pli_sent,
    })
}

/// The same, and what audio does not have.
fn video(counters: &MediaCounters, watch: &WatchFigures) -> Value {
    let mut section = media(counters, watch);
    section["freezes"] = json!({
        "count": counters.freezes.count,
        "total_s": counters.freezes.total.as_secs_f64(),
        "streams": counters.freezes.streams,
    });
    section
}

/// Which figures there are.
pub fn shape() -> Value {
    figures(&JoinSection::default(), &LiveWatch::default(), &LiveWorkers::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys;

    #[test]
    fn watch_time_ends_a_run_as_soon_as_it_is_known() {
        use std::time::Duration;

        use crate::testing::watched;
        use crate::threshold::{Thresholds, crossed};

        let running = |video| {
            let watch = LiveWatch { video, ..LiveWatch::default() };
            figures(&JoinSection::default(), &watch, &LiveWorkers::default())
        };
        for (expr, value) in [
            ("video.watch_ratio>=99% abort", 0.8),
            ("video.interruptions.count==0 abort", 1.0),
            ("video.interruptions.total_s<2s abort", 4.0),
            ("video.interruptions.causes.silent.count<1 abort", 1.0),
        ] {
            let tests = expr.parse::<Thresholds>().unwrap().0;
            let looked =
                |figures| crossed(&tests, &running(figures), Duration::ZERO).map(|one| one.1);
            assert_eq!(looked(watched(&[(10, 4), (10, 0)])), Some(value), "{expr}");
            assert_eq!(looked(watched(&[(10, 0), (10, 0)])), None, "{expr}");
            assert_eq!(looked(WatchFigures::default()), None, "nothing known: {expr}");
        }
        let error = "video.interruptions.length_s.p50<2s abort".parse::<Thresholds>().unwrap_err();
        assert!(error.contains("known only at the end"), "{error}");
    }

    #[test]
    fn running_figures_have_the_keys_of_the_report_and_null_where_nothing_is_known() {
        fn leaves(value: &Value, name: &str, keys: &mut Vec<String>) {
            match value.as_object() {
                Some(object) => {
                    for (key, value) in object {
                        let name = format!("{name}.{key}");
                        leaves(value, name.trim_start_matches('.'), keys);
                    }
                }
                None => keys.push(name.to_owned()),
            }
        }
        let shape = shape();
        let mut all = Vec::new();
        leaves(&shape, "", &mut all);
        let known = keys::Keys::of_schema();
        assert!(all.len() > 40);
        for key in all.iter().filter(|key| *key != "join.errors") {
            assert_eq!(known.check(key), Ok(()), "{key}");
        }
        assert_eq!(keys::value(&shape, "video.loss_rate"), None);
    }
}
