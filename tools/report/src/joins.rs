//! The books of the joins: requested = joined + failed + pending + not started, in every form of a
//! report, and what is wrong when too many of them did not come to anything.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::show::group;
use super::threshold::Threshold;
use super::types::JoinSection;

/// Share of the started joins that may fail, or never end, in a run that passes.
pub const JOIN_FAILURE_RATE_MAX: f64 = 0.01;
/// Joins that had neither ended nor failed, by what they were waiting for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PendingAt {
    /// For the websocket to open, or for another try.
    pub websocket: u64,
    /// For the join response.
    pub signal: u64,
    /// For ICE to connect.
    pub ice: u64,
    /// For DTLS to connect.
    pub dtls: u64,
}

impl PendingAt {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.websocket + self.signal + self.ice + self.dtls
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.websocket += other.websocket;
        self.signal += other.signal;
        self.ice += other.ice;
        self.dtls += other.dtls;
    }

    /// In the order of the steps, with their keys and with what people call them.
    pub fn named(&self) -> [(&'static str, &'static str, u64); 4] {
        [
            ("websocket", "the websocket", self.websocket),
            ("signal", "the join response", self.signal),
            ("ice", "ICE", self.ice),
            ("dtls", "DTLS", self.dtls),
        ]
    }

    /// `4 at ICE, 1 at DTLS`; empty if there are none.
    pub fn said(&self) -> String {
        let there = self.named().into_iter().filter(|(_, _, count)| *count > 0);
        let parts: Vec<_> =
            there.map(|(_, name, count)| format!("{} at {name}", group(count))).collect();
        parts.join(", ")
    }
}

impl JoinSection {
    /// `5 of 11 joined, 2 failed, 3 still joining (3 at ICE), 1 never started`: what is left out
    /// is 0, so that the parts are always all that were requested.
    pub fn balance(&self) -> String {
        let mut text = format!("{} of {} joined", group(self.joined), group(self.requested));
        if self.failed > 0 {
            let _ = write!(text, ", {} failed", group(self.failed));
        }
        if self.pending > 0 {
            let _ = write!(text, ", {} still joining", group(self.pending));
            let at = self.pending_at.map_or(String::new(), |at| at.said());
            if !at.is_empty() {
                let _ = write!(text, " ({at})");
            }
        }
        if self.not_started > 0 {
            let _ = write!(text, ", {} never started", group(self.not_started));
        }
        text
    }

    /// Fills in what reports of versions before these keys did not say but imply. They counted
    /// tries that dropped out, not participants; what is more than there were is cut.
    pub(super) fn complete(&mut self, as_read: &Value) {
        if as_read.get("pending").is_some() {
            return;
        }
        self.started = self.started.min(self.requested);
        self.not_started = self.requested - self.started;
        self.pending = self.started.saturating_sub(self.joined + self.failed);
        self.pending_at = (self.pending == 0).then(PendingAt::default);
        self.drops = self.dropped;
        self.dropped = self.dropped.min(self.joined);
    }
}

/// What the fixed bound on joins is about; a threshold of the user's own takes the place of each
/// half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundJoins {
    /// Joins that failed.
    pub failed: bool,
    /// Joins that never ended.
    pub pending: bool,
}

impl BoundJoins {
    /// Where these thresholds are set.
    pub fn under<'a>(thresholds: impl Iterator<Item = &'a Threshold> + Clone) -> Self {
        let own = |key: &str| thresholds.clone().any(|threshold| threshold.key == key);
        Self { failed: !own("join.failed"), pending: !own("join.pending") }
    }
}

/// Of the joins that came to nothing, what the verdict goes by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LostJoins {
    /// Failed, or never ended.
    pub all: u64,
    /// Of them those that `--impair`, or a cohort's impair, explains: it kept everything from them.
    pub on_purpose: u64,
    /// Of all those to which the fixed bound applies, less those on purpose.
    pub bounded: u64,
}

impl LostJoins {
    /// True if they are too many for a run that passes.
    pub(super) fn too_many(&self, started: u64) -> bool {
        self.bounded as f64 > JOIN_FAILURE_RATE_MAX * started as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threshold::Thresholds;

    #[test]
    fn the_balance_leaves_out_only_what_is_nothing() {
        let mut join = JoinSection { requested: 11, started: 11, joined: 11, ..Default::default() };
        assert_eq!(join.balance(), "11 of 11 joined");
        join.requested = 1_011;
        (join.joined, join.failed, join.pending, join.not_started) = (5, 2, 4, 1_000);
        join.pending_at = Some(PendingAt { ice: 3, signal: 1, ..PendingAt::default() });
        assert_eq!(
            join.balance(),
            "5 of 1,011 joined, 2 failed, 4 still joining (1 at the join response, 3 at ICE), \
             1,000 never started"
        );
    }

    #[test]
    fn a_report_of_an_older_version_balances_when_it_is_read() {
        let old = serde_json::json!({"requested": 11, "started": 10, "joined": 4, "failed": 1,
            "dropped": 9});
        let mut join: JoinSection = serde_json::from_value(old.clone()).unwrap();
        join.complete(&old);
        assert_eq!((join.pending, join.not_started), (5, 1));
        assert_eq!((join.drops, join.dropped, join.pending_at), (9, 4, None));
        let new = serde_json::to_value(&join).unwrap();
        let mut again: JoinSection = serde_json::from_value(new.clone()).unwrap();
        again.complete(&new);
        assert_eq!((again.pending, again.not_started, again.drops), (5, 1, 9));
    }

    #[test]
    fn a_threshold_of_ones_own_takes_the_place_of_its_half_of_the_bound() {
        for (text, failed, pending) in [
            ("join.joined>3", true, true),
            ("join.failed<4", false, true),
            ("join.pending<=4 && video.loss_rate<1%", true, false),
            ("join.pending_at.ice<4", true, true),
        ] {
            let own: Thresholds = text.parse().unwrap();
            assert_eq!(BoundJoins::under(own.0.iter()), BoundJoins { failed, pending }, "{text}");
        }
        let lost = LostJoins { all: 2, on_purpose: 1, bounded: 1 };
        assert!(lost.too_many(99) && !lost.too_many(100) && lost.too_many(0));
    }
}
