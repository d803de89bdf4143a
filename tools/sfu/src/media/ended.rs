//! Ledger rows of what is over.

use std::collections::VecDeque;
use std::sync::Arc;

use super::handle::Rows;
use crate::ledger::{CongestionLedger, PublishedTrackLedger, SubscriberTrackLedger};

/// Ledger rows of ended subscriptions, and as many of ended publications, kept by a worker; the
/// oldest is dropped.
const ENDED_ROWS_MAX: usize = 100_000;

/// The last rows of subscriptions and publications that ended on a worker.
#[derive(Debug, Default)]
pub(crate) struct EndedRows {
    subscribed: VecDeque<(Arc<str>, Arc<str>, SubscriberTrackLedger)>,
    published: VecDeque<(Arc<str>, PublishedTrackLedger)>,
    congestion: VecDeque<(Arc<str>, Arc<str>, CongestionLedger)>,
}

impl EndedRows {
    /// Keeps the row of a subscription that a participant had in this room.
    pub(crate) fn keep_subscribed(
        &mut self,
        room: Arc<str>,
        identity: Arc<str>,
        row: SubscriberTrackLedger,
    ) {
        push(&mut self.subscribed, (room, identity, row));
    }

    /// Keeps the row of a track that was published in this room.
    pub(crate) fn keep_published(&mut self, room: Arc<str>, row: PublishedTrackLedger) {
        push(&mut self.published, (room, row));
    }

    /// Keeps what a participant in this room told of the way to it.
    pub(crate) fn keep_congestion(
        &mut self,
        room: Arc<str>,
        identity: Arc<str>,
        row: CongestionLedger,
    ) {
        push(&mut self.congestion, (room, identity, row));
    }

    /// The rows.
    pub(crate) fn rows(&self) -> Rows {
        Rows {
            published: self.published.iter().cloned().collect(),
            subscribed: self.subscribed.iter().cloned().collect(),
            congestion: self.congestion.iter().cloned().collect(),
        }
    }
}

fn push<T>(rows: &mut VecDeque<T>, row: T) {
    if rows.len() >= ENDED_ROWS_MAX {
        rows.pop_front();
    }
    rows.push_back(row);
}

#[cfg(test)]
mod tests;
