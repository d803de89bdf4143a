//! What of a LiveKit server's metrics is kept, and what it comes to over a run.

use std::time::Instant;

use super::parse::{Sample, samples};
use stampede_report::types::{ServerMetrics, ServerSecond};

/// Largest value taken of a server; of what is larger, no count is whole any more, and none that a
/// server can have reached. It is passed over as if it were not exposed, and so is one below zero.
const VALUE_MAX: f64 = (1_u64 << 53) as f64;

/// Figures of one scrape, or of several servers together. `None`: the server does not expose it.
///
/// Names as of livekit-server 1.13 (`pkg/telemetry/prometheus/packets.go`, `rooms.go`) and Go's
/// process collector. A counter vector without a label value yet is not exposed at all.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Figures {
    pub cpu_s: Option<f64>,
    pub rss_bytes: Option<f64>,
    pub goroutines: Option<f64>,
    pub rooms: Option<f64>,
    pub participants: Option<f64>,
    pub tracks_published: Option<f64>,
    pub tracks_subscribed: Option<f64>,
    pub packets_out: Option<f64>,
    pub packets_resent: Option<f64>,
    pub packets_in: Option<f64>,
    pub bytes_out: Option<f64>,
    pub bytes_in: Option<f64>,
    pub nacks: Option<f64>,
    pub plis: Option<f64>,
}

/// Adds where there is something to add.
fn add(sum: &mut Option<f64>, value: Option<f64>) {
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or(0.0) + value);
    }
}

impl Figures {
    /// Reads an exposition.
    pub(super) fn read(text: &str) -> Self {
        let mut figures = Self::default();
        for sample in samples(text).filter(|sample| (0.0..=VALUE_MAX).contains(&sample.value)) {
            if let Some(place) = figures.place(&sample) {
                add(place, Some(sample.value));
            }
        }
        figures
    }

    fn place(&mut self, sample: &Sample<'_>) -> Option<&mut Option<f64>> {
        let outgoing = sample.has("direction", "outgoing");
        let resent = sample.has("transmission", "retransmit");
        Some(match sample.name {
            "process_cpu_seconds_total" => &mut self.cpu_s,
            "process_resident_memory_bytes" => &mut self.rss_bytes,
            "go_goroutines" => &mut self.goroutines,
            "livekit_room_total" => &mut self.rooms,
            "livekit_participant_total" => &mut self.participants,
            "livekit_track_published_total" => &mut self.tracks_published,
            "livekit_track_subscribed_total" => &mut self.tracks_subscribed,
            "livekit_packet_total" if outgoing && resent => &mut self.packets_resent,
            "livekit_packet_total" if outgoing => &mut self.packets_out,
            "livekit_packet_total" => &mut self.packets_in,
            "livekit_packet_bytes" if outgoing => &mut self.bytes_out,
            "livekit_packet_bytes" => &mut self.bytes_in,
            // Those of downstream tracks: what subscribers asked for.
            "livekit_nack_total" if outgoing => &mut self.nacks,
            "livekit_pli_total" if outgoing => &mut self.plis,
            _ => return None,
        })
    }

    /// Adds another server's.
    pub(super) fn merge(&mut self, other: &Self) {
        let Self { cpu_s, rss_bytes, goroutines, rooms, participants, .. } = other;
        add(&mut self.cpu_s, *cpu_s);
        add(&mut self.rss_bytes, *rss_bytes);
        add(&mut self.goroutines, *goroutines);
        add(&mut self.rooms, *rooms);
        add(&mut self.participants, *participants);
        add(&mut self.tracks_published, other.tracks_published);
        add(&mut self.tracks_subscribed, other.tracks_subscribed);
        add(&mut self.packets_out, other.packets_out);
        add(&mut self.packets_resent, other.packets_resent);
        add(&mut self.packets_in, other.packets_in);
        add(&mut self.bytes_out, other.bytes_out);
        add(&mut self.bytes_in, other.bytes_in);
        add(&mut self.nacks, other.nacks);
        add(&mut self.plis, other.plis);
    }
}

/// Figures and when they were read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    /// When the answer was here.
    pub at: Instant,
    /// What it said.
    pub figures: Figures,
}

/// Growth of a counter. One that was not exposed at first began at 0; one that fell belongs to a
/// server that was started anew, and says nothing.
fn growth(before: Option<f64>, after: Option<f64>) -> Option<f64> {
    let growth = after? - before.unwrap_or(0.0);
    (growth >= 0.0).then_some(growth)
}

fn count(value: Option<f64>) -> Option<u64> {
    value.map(|value| value.round() as u64)
}

/// Between two scrapes, for the series.
pub(super) fn second(before: &Reading, after: &Reading) -> ServerSecond {
    let seconds = (after.at.saturating_duration_since(before.at)).as_secs_f64();
    let (then, now) = (&before.figures, &after.figures);
    let rate = |before: Option<f64>, after: Option<f64>| {
        growth(before, after).filter(|_| seconds > 0.0).map(|growth| growth / seconds)
    };
    ServerSecond {
        cpu_cores: rate(then.cpu_s, now.cpu_s).map(|cores| (cores * 1e3).round() / 1e3),
        rss_bytes: count(now.rss_bytes),
        rooms: count(now.rooms),
        participants: count(now.participants),
        tracks_published: count(now.tracks_published),
        tracks_subscribed: count(now.tracks_subscribed),
        packets_out: count(rate(then.packets_out, now.packets_out)),
        packets_resent: count(rate(then.packets_resent, now.packets_resent)),
        packets_in: count(rate(then.packets_in, now.packets_in)),
        bitrate_out_bps: rate(then.bytes_out, now.bytes_out).map(|bytes| (bytes * 8.0).round()),
        nacks: count(rate(then.nacks, now.nacks)),
        plis: count(rate(then.plis, now.plis)),
    }
}

/// Over a whole run: from the first scrape to the last.
pub(super) fn total(first: &Reading, last: &Reading, metrics: &mut ServerMetrics) {
    let seconds = (last.at.saturating_duration_since(first.at)).as_secs_f64();
    let (then, now) = (&first.figures, &last.figures);
    metrics.cpu_s = growth(then.cpu_s, now.cpu_s).map(|cpu| (cpu * 1e3).round() / 1e3);
    metrics.cpu_cores = metrics.cpu_s.filter(|_| seconds > 0.0).map(|cpu| cpu / seconds);
    metrics.packets_out = count(growth(then.packets_out, now.packets_out));
    metrics.packets_resent = count(growth(then.packets_resent, now.packets_resent));
    metrics.packets_in = count(growth(then.packets_in, now.packets_in));
    metrics.bytes_out = count(growth(then.bytes_out, now.bytes_out));
    metrics.nacks = count(growth(then.nacks, now.nacks));
    metrics.plis = count(growth(then.plis, now.plis));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TEXT: &str = "\
# TYPE livekit_packet_total counter
livekit_packet_total{country=\"\",direction=\"outgoing\",node_id=\"N\",transmission=\"initial\"} 90
livekit_packet_total{country=\"DE\",direction=\"outgoing\",node_id=\"N\",transmission=\"initial\"} 10
livekit_packet_total{country=\"\",direction=\"outgoing\",node_id=\"N\",transmission=\"retransmit\"} 7
livekit_packet_total{country=\"\",direction=\"incoming\",node_id=\"N\",transmission=\"initial\"} 3
livekit_nack_total{country=\"\",direction=\"incoming\",node_id=\"N\"} 100
livekit_nack_total{country=\"\",direction=\"outgoing\",node_id=\"N\"} 4
livekit_participant_total{node_id=\"N\"} 21
process_cpu_seconds_total 1.5
process_resident_memory_bytes 1.5e+08
go_goroutines NaN
";

    #[test]
    fn livekit_s_own_series_are_found_and_added_up() {
        let figures = Figures::read(TEXT);
        assert_eq!(figures.packets_out, Some(100.0));
        assert_eq!((figures.packets_resent, figures.packets_in), (Some(7.0), Some(3.0)));
        assert_eq!((figures.nacks, figures.participants), (Some(4.0), Some(21.0)));
        assert_eq!((figures.cpu_s, figures.rss_bytes), (Some(1.5), Some(1.5e8)));
        assert_eq!((figures.goroutines, figures.plis, figures.rooms), (None, None, None));
        let mut both = figures;
        both.merge(&figures);
        assert_eq!((both.packets_out, both.plis), (Some(200.0), None));
    }

    #[test]
    fn what_no_server_can_have_counted_is_not_taken() {
        let figures = Figures::read(
            "livekit_packet_total{direction=\"incoming\"} 1e300\n\
             livekit_room_total -3\nlivekit_participant_total 9007199254740992\n\
             process_resident_memory_bytes +Inf\n",
        );
        let most = Figures { participants: Some(VALUE_MAX), ..Figures::default() };
        assert_eq!(figures, most);
    }

    #[test]
    fn a_second_holds_rates_and_what_is_unknown_stays_so() {
        let at = Instant::now();
        let before = Reading { at, figures: Figures::default() };
        let mut figures = Figures::read(TEXT);
        let after = Reading { at: at + Duration::from_secs(2), figures };
        let row = second(&before, &after);
        assert_eq!((row.packets_out, row.nacks, row.plis), (Some(50), Some(2), None));
        assert_eq!((row.cpu_cores, row.participants), (Some(0.75), Some(21)));
        figures.packets_out = Some(1.0);
        let restarted = Reading { at: at + Duration::from_secs(3), figures };
        assert_eq!(second(&after, &restarted).packets_out, None, "a counter that fell");
    }
}
