//! Rows of the peers that a worker has closed: at most so many, for who comes and goes has a new
//! peer each time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::net::SocketAddr;

use stampede_core::{MediaKind, PeerReport};

use crate::PeerId;

/// One peer at its end.
#[derive(Debug, Clone)]
pub struct PeerRow {
    /// Which.
    pub id: PeerId,
    /// The participant's identity.
    pub label: String,
    /// [`PeerSpec::cohort`](crate::PeerSpec::cohort).
    pub cohort: u16,
    /// Datagrams the kernel dropped at its receive buffer, from the socket's first to its last.
    pub kernel_drops: u64,
    /// Where its latest datagram came from.
    pub remote: Option<SocketAddr>,
    /// Everything it counted.
    pub report: PeerReport,
}

impl PeerRow {
    /// Whether a packet of one of its streams was lost for good.
    pub fn lost_for_good(&self) -> bool {
        self.report.streams.iter().any(|stream| stream.packets.unrecovered > 0)
    }
}

/// Most rows of closed peers that a worker keeps, besides as many as it had peers at once: a run in
/// which nobody comes twice has the rows of all. At the maximum the row with the least to tell goes,
/// the oldest of equals, and what reports need of it goes into [`LeftOut`].
pub const CLOSED_ROWS_MAX: usize = 4_096;
/// Most tracks of peers without a row that are told apart; further ones are in no count of tracks
/// received.
pub const TRACKS_LEFT_OUT_MAX: usize = 65_536;

/// What is known of the peers of which there is no row. All that they counted is in the worker's
/// counters as well.
#[derive(Debug, Clone, Default)]
pub struct LeftOut {
    /// How many rows are not there.
    pub rows: u64,
    /// Streams that they would have had.
    pub streams: u64,
    /// Of these such as got a packet.
    pub streams_received: u64,
    /// Peers that lost a packet for good.
    pub lossy: u64,
    /// Peers whose latest datagram did not come from this machine.
    pub distant: u64,
    /// What they received, each once; at most [`TRACKS_LEFT_OUT_MAX`].
    pub tracks: HashSet<TrackLeftOut>,
}

/// A track of which a peer without a row got a packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TrackLeftOut {
    /// The participant's identity.
    pub label: String,
    /// [`PeerSpec::cohort`](crate::PeerSpec::cohort).
    pub cohort: u16,
    /// Audio or video.
    pub kind: MediaKind,
    /// LiveKit's track id.
    pub track_id: String,
}

impl LeftOut {
    fn add(&mut self, row: PeerRow) {
        self.rows += 1;
        self.streams += row.report.streams.len() as u64;
        self.lossy += u64::from(row.lost_for_good());
        self.distant += u64::from(row.remote.is_some_and(|remote| !remote.ip().is_loopback()));
        for stream in row.report.streams {
            if stream.packets.received == 0 {
                continue;
            }
            self.streams_received += 1;
            if let Some(track_id) = stream.track_id
                && self.tracks.len() < TRACKS_LEFT_OUT_MAX
            {
                let (label, cohort, kind) = (row.label.clone(), row.cohort, stream.kind);
                self.tracks.insert(TrackLeftOut { label, cohort, kind, track_id });
            }
        }
    }
}

/// How much a row has to tell: lost for good, then missing, then freezes, then what the kernel
/// dropped.
type Weight = (u64, u64, u64, u64);

fn weight(row: &PeerRow) -> Weight {
    let PeerReport { counters, .. } = &row.report;
    let mut packets = counters.video.packets;
    packets.merge(&counters.audio.packets);
    (packets.unrecovered, packets.missing, counters.video.freezes.count, row.kernel_drops)
}

#[derive(Debug)]
struct Kept {
    weight: Weight,
    /// Peers closed before it.
    number: u64,
    row: Box<PeerRow>,
}

impl Kept {
    fn order(&self) -> (Weight, u64) {
        (self.weight, self.number)
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Kept {}

impl PartialOrd for Kept {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kept {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

/// The rows of the measured window.
#[derive(Debug, Default)]
pub(crate) struct ClosedRows {
    /// The one with the least to tell on top.
    kept: BinaryHeap<Reverse<Kept>>,
    closed: u64,
    peers_max: usize,
    left_out: LeftOut,
}

impl ClosedRows {
    /// The worker has so many peers now.
    pub(crate) fn there_are(&mut self, peers: usize) {
        self.peers_max = self.peers_max.max(peers);
    }

    /// A peer is closed.
    pub(crate) fn push(&mut self, row: PeerRow) {
        let (weight, number) = (weight(&row), self.closed);
        self.closed += 1;
        self.kept.push(Reverse(Kept { weight, number, row: Box::new(row) }));
        while self.kept.len() > self.peers_max + CLOSED_ROWS_MAX
            && let Some(Reverse(least)) = self.kept.pop()
        {
            self.left_out.add(*least.row);
        }
    }

    /// The measured window begins: what was before is not of it.
    pub(crate) fn begin_measuring(&mut self) {
        self.kept.clear();
        self.left_out = LeftOut::default();
    }

    /// The rows in the order in which their peers were closed, and what is known of the others.
    pub(crate) fn finish(self) -> (Vec<PeerRow>, LeftOut) {
        let mut kept: Vec<Kept> = self.kept.into_iter().map(|Reverse(kept)| kept).collect();
        kept.sort_unstable_by_key(|kept| kept.number);
        (kept.into_iter().map(|kept| *kept.row).collect(), self.left_out)
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use stampede_core::{PacketCounters, StreamReport};

    use super::*;

    fn stream(unrecovered: u64, sid: &str) -> StreamReport {
        StreamReport {
            kind: MediaKind::Video,
            codec: None,
            ssrc: 7,
            mid: String::new(),
            track_id: Some(sid.to_owned()),
            packets: PacketCounters { received: 9, unrecovered, ..PacketCounters::default() },
            frames: Default::default(),
            freezes: Default::default(),
            jitter: None,
            feedback: Default::default(),
            latency: Default::default(),
            first_packet: None,
            last_packet: None,
            first_keyframe: None,
            sender_packets: None,
            sender_report_at: None,
            sender_window: None,
            bitrate_bps: None,
            height_mean: None,
            closed: false,
        }
    }

    fn row(serial: u32, unrecovered: u64) -> PeerRow {
        let mut report =
            PeerReport { streams: vec![stream(unrecovered, "TR_1")], ..PeerReport::default() };
        report.counters.video.packets = report.streams[0].packets;
        PeerRow {
            id: PeerId { worker: 0, serial },
            label: format!("sub-{}", serial % 3),
            cohort: 0,
            kernel_drops: 0,
            remote: Some(SocketAddr::from(([127, 0, 0, 1], 1))),
            report,
        }
    }

    #[test]
    fn the_rows_with_the_least_to_tell_go_and_are_counted() {
        let mut rows = ClosedRows::default();
        rows.there_are(2);
        rows.there_are(1);
        let (max, beyond) = (CLOSED_ROWS_MAX as u32 + 2, 1_000);
        let lossy = |serial| u64::from(serial == 3);
        (0..max + beyond).for_each(|serial| rows.push(row(serial, lossy(serial))));
        let (kept, left_out) = rows.finish();
        let serials: Vec<u32> = kept.iter().map(|row| row.id.serial).collect();
        let expected: Vec<u32> = std::iter::once(3).chain(beyond + 1..max + beyond).collect();
        assert_eq!(serials, expected, "the lossy one, and the latest of the others in order");
        let LeftOut { rows, streams, streams_received, lossy, distant, tracks } = left_out;
        assert_eq!((rows, streams, streams_received), (1_000, 1_000, 1_000));
        assert_eq!((lossy, distant), (0, 0));
        let mut labels: Vec<_> = tracks.iter().map(|track| track.label.as_str()).collect();
        labels.sort_unstable();
        assert_eq!(labels, ["sub-0", "sub-1", "sub-2"], "however often they came");
    }

    #[test]
    fn where_all_are_lossy_the_lossless_do_not_stay_for_it() {
        let mut rows = ClosedRows::default();
        let max = CLOSED_ROWS_MAX as u32;
        (0..=max).for_each(|serial| rows.push(row(serial, 2)));
        let distant = SocketAddr::from(([192, 0, 2, 1], 1));
        rows.push(PeerRow { remote: Some(distant), ..row(max + 1, 0) });
        let (kept, left_out) = rows.finish();
        assert_eq!(kept.len(), CLOSED_ROWS_MAX);
        assert!(kept.iter().all(PeerRow::lost_for_good));
        assert_eq!((left_out.rows, left_out.lossy, left_out.distant), (2, 1, 1));
    }

    #[test]
    fn of_rows_that_are_left_out_so_many_tracks_are_told_apart() {
        let all = TRACKS_LEFT_OUT_MAX as u64 + 3;
        let mut left_out = LeftOut::default();
        let streams = (0..all).map(|sid| stream(0, &sid.to_string())).collect();
        left_out.add(PeerRow { report: PeerReport { streams, ..row(0, 0).report }, ..row(0, 0) });
        assert_eq!(left_out.tracks.len(), TRACKS_LEFT_OUT_MAX);
        assert_eq!((left_out.streams, left_out.streams_received), (all, all));
    }

    #[test]
    fn the_measured_window_begins_without_any() {
        let mut rows = ClosedRows::default();
        (0..=CLOSED_ROWS_MAX as u32).for_each(|serial| rows.push(row(serial, 0)));
        rows.begin_measuring();
        rows.push(row(9, 0));
        let (kept, left_out) = rows.finish();
        assert_eq!((kept.len(), left_out.rows, left_out.tracks.len()), (1, 0, 0));
    }
}
