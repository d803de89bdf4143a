//! How participants that had been connected came back, and what was done to them on purpose.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stampede_counters::RecoveryCounters;

use crate::hist::Hist;

/// Ways back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RecoveriesSection {
    /// A new websocket took the session up again; the media connection had stood meanwhile.
    pub resume: RecoverySection,
    /// A new websocket, and ICE restarted over it.
    pub ice_restart: RecoverySection,
    /// A new session of the same identity.
    pub full_reconnect: RecoverySection,
    /// The server moved the participant to another room.
    pub moved: RecoverySection,
}

/// One way back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RecoverySection {
    /// Tries and what became of them.
    #[serde(flatten)]
    pub counted: RecoveryCounters,
    /// From the last playable frame before the path broke to the first one after session and media
    /// connection stood again; of a publisher, frames sent. Recoveries after which no frame came
    /// have no value here.
    pub ms: Option<Hist>,
}

impl RecoveriesSection {
    /// All of them, by their keys and what people call them.
    #[must_use]
    pub fn named(&self) -> [(&'static str, &RecoverySection); 4] {
        [
            ("resume", &self.resume),
            ("ICE restart", &self.ice_restart),
            ("full reconnect", &self.full_reconnect),
            ("move", &self.moved),
        ]
    }

    /// Of several runs.
    pub(crate) fn merged<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let way = |way: fn(&Self) -> &RecoverySection| {
            let mut counted = RecoveryCounters::default();
            all.clone().for_each(|one| counted.merge(&way(one).counted));
            let ms = Hist::merged(all.clone().filter_map(|one| way(one).ms.as_ref()));
            RecoverySection { counted, ms }
        };
        Self {
            resume: way(|one| &one.resume),
            ice_restart: way(|one| &one.ice_restart),
            full_reconnect: way(|one| &one.full_reconnect),
            moved: way(|one| &one.moved),
        }
    }
}

/// One `--fault`: what was done on purpose, and how it was taken.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FaultRow {
    /// The host that did it, in a merged report.
    pub host: Option<String>,
    /// As `--fault` has it.
    pub fault: String,
    /// Times that it was due and done.
    pub fired: u64,
    /// Participants to whom it was done, counted anew each time.
    pub hit: u64,
    /// Participants to whom it could not be done: they were not connected just then, or the server
    /// refused.
    pub missed: u64,
    /// Of those hit: had to come back, and did.
    pub recovered: u64,
    /// Of those hit: had to come back, and gave up.
    pub failed: u64,
    /// Of those hit: on their way back when the run ended.
    pub unfinished: u64,
    /// Of those hit: sent away for good by the server, as it was asked to (`server_leave`).
    pub sent_away: u64,
    /// Of those that came back, as `recoveries.*.ms` has it, over all tries of all ways.
    pub ms: Option<Hist>,
}

impl FaultRow {
    /// `hit 20 (1 missed): 19 came back (p50 310 ms, p99 800 ms), 1 gave up`.
    #[must_use]
    pub fn told(&self) -> String {
        let mut text = format!("hit {}", self.hit);
        if self.missed > 0 {
            text += &format!(" ({} missed)", self.missed);
        }
        let mut parts = Vec::new();
        if self.recovered > 0 {
            let times =
                self.ms.as_ref().map(|ms| format!(" (p50 {:.0} ms, p99 {:.0} ms)", ms.p50, ms.p99));
            parts.push(format!("{} came back{}", self.recovered, times.unwrap_or_default()));
        }
        for (count, what) in [
            (self.failed, "gave up"),
            (self.unfinished, "on their way back at the end"),
            (self.sent_away, "sent away, as asked for"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        if parts.is_empty() && self.hit > 0 {
            parts.push("nobody had to come back".to_owned());
        }
        if !parts.is_empty() {
            text += &format!(": {}", parts.join(", "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_tells_how_it_was_taken() {
        let row = FaultRow { hit: 20, missed: 1, ..FaultRow::default() };
        assert_eq!(row.told(), "hit 20 (1 missed): nobody had to come back");
        let row = FaultRow { recovered: 18, failed: 1, unfinished: 1, ..row };
        let told = "hit 20 (1 missed): 18 came back, 1 gave up, 1 on their way back at the end";
        assert_eq!(row.told(), told);
        assert_eq!(FaultRow::default().told(), "hit 0");
    }
}
