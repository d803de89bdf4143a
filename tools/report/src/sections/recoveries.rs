//! How participants that had been connected came back, and what was done to them on purpose.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stampede_counters::RecoveryCounters;

use crate::hist::Hist;
use crate::show::group;

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

impl RecoverySection {
    /// `50 of 60 tries (p50 64 ms, p99 80 ms), 9 failed, 1 unfinished`.
    #[must_use]
    pub fn told(&self) -> String {
        let RecoveryCounters { tries, recovered, failed, unfinished } = self.counted;
        let mut text =
            format!("{} of {} tries{}", group(recovered), group(tries), times(self.ms.as_ref()));
        for (count, what) in [(failed, "failed"), (unfinished, "unfinished")] {
            if count > 0 {
                text += &format!(", {} {what}", group(count));
            }
        }
        text
    }
}

/// ` (p50 64 ms, p99 80 ms)`; nothing where it is not known.
fn times(ms: Option<&Hist>) -> String {
    ms.map_or_else(String::new, |ms| format!(" (p50 {:.0} ms, p99 {:.0} ms)", ms.p50, ms.p99))
}

impl RecoveriesSection {
    /// Ways in which somebody tried to come back, with their keys and what people call them.
    pub fn tried(&self) -> impl Iterator<Item = (&'static str, &'static str, &RecoverySection)> {
        self.named().into_iter().filter(|(.., way)| way.counted.tries > 0)
    }

    /// All of them, with their keys and what people call them.
    #[must_use]
    pub fn named(&self) -> [(&'static str, &'static str, &RecoverySection); 4] {
        [
            ("resume", "resume", &self.resume),
            ("ice_restart", "ICE restart", &self.ice_restart),
            ("full_reconnect", "full reconnect", &self.full_reconnect),
            ("moved", "move", &self.moved),
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
    /// As `--fault` has it, with its host in a merged report.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.host {
            Some(host) => format!("{host}: {}", self.fault),
            None => self.fault.clone(),
        }
    }

    /// `hit 20 (1 missed): 19 came back (p50 310 ms, p99 800 ms), 1 gave up`.
    #[must_use]
    pub fn told(&self) -> String {
        let mut text = format!("hit {}", group(self.hit));
        if self.missed > 0 {
            text += &format!(" ({} missed)", group(self.missed));
        }
        let mut parts = Vec::new();
        if self.recovered > 0 {
            parts.push(format!("{} came back{}", group(self.recovered), times(self.ms.as_ref())));
        }
        for (count, what) in [
            (self.failed, "gave up"),
            (self.unfinished, "unfinished"),
            (self.sent_away, "sent away, as asked for"),
        ] {
            if count > 0 {
                parts.push(format!("{} {what}", group(count)));
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
        let told = "hit 20 (1 missed): 18 came back, 1 gave up, 1 unfinished";
        assert_eq!(row.told(), told);
        assert_eq!(FaultRow::default().told(), "hit 0");
        let row = FaultRow { host: Some("a".to_owned()), fault: "outage".to_owned(), ..row };
        assert_eq!(row.name(), "a: outage");
    }

    #[test]
    fn a_way_back_tells_how_often_it_was_tried_and_how_long_it_took() {
        let mut all = RecoveriesSection::default();
        assert_eq!(all.tried().count(), 0);
        let counted = RecoveryCounters { tries: 1_060, recovered: 1_050, failed: 9, unfinished: 1 };
        all.full_reconnect.counted = counted;
        let told: Vec<_> = all.tried().map(|(_, name, way)| (name, way.told())).collect();
        let text = "1,050 of 1,060 tries, 9 failed, 1 unfinished";
        assert_eq!(told, [("full reconnect", text.to_owned())]);
        let ms = crate::testing::report().join.phases_ms.dtls;
        assert!(ms.is_some());
        all.full_reconnect.ms = ms;
        let told = all.full_reconnect.told();
        assert!(told.starts_with("1,050 of 1,060 tries (p50 ") && told.contains(" ms), 9 failed"));
    }
}
