//! Putting the ledger together from the rooms and the workers.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use stampede_counters::UpstreamCounters;

use crate::hub::Hub;
use crate::ledger::{
    CongestionLedger, Ledger, LedgerTotals, PublishedTrackLedger, RoomLedger, SubscriberLedger,
    SubscriberTrackLedger,
};
use crate::media::handle::{Rows, WorkerHandle, WorkerReport};

/// How long a worker may take to answer. It does within milliseconds, and within one share of a
/// burst when it is saturated.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);

/// There is no ledger, because a part of it is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("media worker {worker} of the SFU did not answer within {}s", ANSWER_TIMEOUT.as_secs())]
pub struct LedgerError {
    /// Its number from 0.
    pub worker: usize,
}

/// Asks for the ledger from any thread.
#[derive(Clone)]
pub(crate) struct Reporter {
    pub(crate) hub: Arc<Mutex<Hub>>,
    pub(crate) workers: Vec<WorkerHandle>,
    pub(crate) backend: String,
}

impl Reporter {
    /// The ledger now. Waits for the workers, so not for an async task.
    pub(crate) fn ledger(&self) -> Result<Ledger, LedgerError> {
        let answers: Vec<_> = self.workers.iter().map(WorkerHandle::ask).collect();
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let reports: Vec<WorkerReport> = answers
            .into_iter()
            .enumerate()
            .map(|(worker, answer)| {
                answer.recv_deadline(deadline).map_err(|_| LedgerError { worker })
            })
            .collect::<Result<_, _>>()?;
        let mut ledger = self.hub.lock().unwrap_or_else(PoisonError::into_inner).ledger();
        merge(&mut ledger, reports);
        ledger.backend.clone_from(&self.backend);
        Ok(ledger)
    }
}

/// Puts the workers' parts into what the rooms know.
pub(crate) fn merge(ledger: &mut Ledger, reports: Vec<WorkerReport>) {
    let mut published: HashMap<Arc<str>, Vec<PublishedTrackLedger>> = HashMap::new();
    let mut subscribed: HashMap<Arc<str>, BTreeMap<Arc<str>, Vec<SubscriberTrackLedger>>> =
        HashMap::new();
    let mut congestion: HashMap<(Arc<str>, Arc<str>), CongestionLedger> = HashMap::new();
    // Of several rows of one subscriber the one that is there says how it is now, whichever worker has it.
    let (mut ended, mut live) = (Vec::new(), Vec::new());
    for report in reports {
        ledger.workers.push(report.worker);
        ended.push(over(report.ended));
        live.push(report.live);
    }
    for rows in ended.into_iter().chain(live) {
        for (room, row) in rows.published {
            published.entry(room).or_default().push(row);
        }
        for (room, identity, row) in rows.congestion {
            let known = congestion.entry((room, identity)).or_default();
            add_congestion(known, row);
        }
        for (room, identity, row) in rows.subscribed {
            let tracks = subscribed.entry(room).or_default().entry(identity).or_default();
            match tracks.iter_mut().find(|track| track.track_sid == row.track_sid) {
                Some(track) => add(track, &row),
                None => tracks.push(row),
            }
        }
    }
    for room in &mut ledger.rooms {
        room.published = published.remove(room.room.as_str()).unwrap_or_default();
        room.subscribers = subscribed
            .remove(room.room.as_str())
            .unwrap_or_default()
            .into_iter()
            .map(|(identity, tracks)| SubscriberLedger {
                congestion: congestion.remove(&(room.room.as_str().into(), identity.clone())),
                identity: identity.to_string(),
                tracks,
            })
            .collect();
    }
    ledger.totals = totals(&ledger.rooms);
}

/// Rows of what is over, of which nothing is forwarded now.
fn over(mut rows: Rows) -> Rows {
    for (_, _, row) in &mut rows.subscribed {
        (row.layer, row.temporal_layer) = (None, None);
    }
    for (_, _, row) in &mut rows.congestion {
        row.capacity_bps = None;
    }
    rows
}

/// A subscriber that came back to the same track goes on in its row.
fn add(row: &mut SubscriberTrackLedger, more: &SubscriberTrackLedger) {
    row.counts.merge(&more.counts);
    row.layer = more.layer.or(row.layer);
    row.temporal_layer = more.temporal_layer.or(row.temporal_layer);
}

/// The same of the way to it, which may be another one.
fn add_congestion(row: &mut CongestionLedger, more: CongestionLedger) {
    row.counted.merge(&more.counted);
    let lowest = [row.estimate_bps_min, more.estimate_bps_min];
    row.estimate_bps_min = lowest.into_iter().flatten().min();
    row.estimate_bps = more.estimate_bps.or(row.estimate_bps);
    row.capacity_bps = more.capacity_bps.or(row.capacity_bps);
}

fn totals(rooms: &[RoomLedger]) -> LedgerTotals {
    let mut totals = LedgerTotals::default();
    for room in rooms {
        for track in &room.published {
            totals.upstream.merge(&UpstreamCounters {
                publisher_packets_received: track.counted.packets_received,
                publisher_packets_lost: track.counted.packets_lost,
                plis_relayed: track.counted.plis_sent,
            });
        }
        for way in room.subscribers.iter().filter_map(|subscriber| subscriber.congestion.as_ref()) {
            totals.congestion.merge(&way.counted);
        }
        for track in room.subscribers.iter().flat_map(|subscriber| &subscriber.tracks) {
            totals.forward.merge(&track.counts);
        }
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_back_is_as_it_is_now() {
        let track = |layer| SubscriberTrackLedger {
            track_sid: "TR_1".into(),
            layer,
            ..SubscriberTrackLedger::default()
        };
        let way = |bps: u64, capacity_bps| CongestionLedger {
            estimate_bps: Some(bps),
            estimate_bps_min: Some(bps),
            capacity_bps,
            ..CongestionLedger::default()
        };
        let rows = |layer, way| Rows {
            subscribed: vec![("room".into(), "viewer".into(), track(layer))],
            congestion: vec![("room".into(), "viewer".into(), way)],
            ..Rows::default()
        };
        let merged = |reports| {
            let room = RoomLedger { room: "room".into(), ..RoomLedger::default() };
            let mut ledger = Ledger { rooms: vec![room], ..Ledger::default() };
            merge(&mut ledger, reports);
            let viewer = ledger.rooms.remove(0).subscribers.remove(0);
            (viewer.tracks[0].layer, viewer.congestion.unwrap_or_default())
        };
        let live = |rows| WorkerReport { live: rows, ..WorkerReport::default() };
        let ended = |rows| WorkerReport { ended: rows, ..WorkerReport::default() };
        let before = || rows(Some(2), way(100, Some(70)));
        // The worker it had before is the second one.
        let now = merged(vec![live(rows(Some(1), way(300, Some(200)))), ended(before())]);
        let is = CongestionLedger { estimate_bps_min: Some(100), ..way(300, Some(200)) };
        assert_eq!(now, (Some(1), is));
        // It is sent no layer yet, and nothing is known to be too much.
        let now = merged(vec![ended(before()), live(rows(None, way(300, None)))]);
        assert_eq!((now.0, now.1.capacity_bps), (None, None));
        let now = merged(vec![ended(before())]);
        assert_eq!((now.0, now.1), (None, way(100, None)));
    }
}
