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
use crate::media::handle::{WorkerHandle, WorkerReport};

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

fn merge(ledger: &mut Ledger, reports: Vec<WorkerReport>) {
    let mut published: HashMap<Arc<str>, Vec<PublishedTrackLedger>> = HashMap::new();
    let mut subscribed: HashMap<Arc<str>, BTreeMap<Arc<str>, Vec<SubscriberTrackLedger>>> =
        HashMap::new();
    let mut congestion: HashMap<(Arc<str>, Arc<str>), CongestionLedger> = HashMap::new();
    for report in reports {
        ledger.workers.push(report.worker);
        for (room, row) in report.published {
            published.entry(room).or_default().push(row);
        }
        for (room, identity, row) in report.congestion {
            let known = congestion.entry((room, identity)).or_default();
            add_congestion(known, row);
        }
        for (room, identity, row) in report.subscribed {
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
    row.capacity_bps = more.capacity_bps;
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
