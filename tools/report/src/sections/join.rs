//! Joins: requested = joined + failed + pending + not started, in every form of a report.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stampede_counters::{JoinCounters, SessionCounters};
pub use stampede_counters::{JoinPaths, PendingAt};

use crate::hist::Hist;
use crate::show::group;

/// Joins of publishers and subscribers.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct JoinSection {
    /// Where participants stand, and what became of their tries.
    #[serde(flatten)]
    pub counted: JoinCounters,
    /// The pending ones by the step they hang at; `null` in reports of versions without it.
    pub pending_at: Option<PendingAt>,
    /// Failed and dropped tries by kind.
    pub errors: BTreeMap<String, u64>,
    /// By kind of error, or of end that a session survived, what was said the first time: close
    /// codes and texts, answers of the server, errors of this machine.
    pub error_texts: BTreeMap<String, String>,
    /// By what the media of those who joined came up; `null` in reports of versions that knew only
    /// UDP.
    pub paths: Option<JoinPaths>,
    /// What the sessions made of the server's messages.
    pub signalling: SessionCounters,
    /// Most participants connected at one moment; `null` in a merged report without series.
    pub peak: Option<u64>,
    /// From the scheduled start of each join.
    pub phases_ms: Phases,
    /// The same of those who joined by each way, by its key in `paths`; empty where all came by UDP.
    pub phases_ms_by_path: BTreeMap<String, Phases>,
}

/// Counters that older reports lack and imply.
pub const JOINS_IMPLIED: [&str; 3] = ["join.pending", "join.not_started", "join.drops"];

/// `4 at ICE, 1 at DTLS`; empty if there are none.
pub fn said(pending_at: &PendingAt) -> String {
    let there = pending_at.named().into_iter().filter(|(_, _, count)| *count > 0);
    let parts: Vec<_> =
        there.map(|(_, name, count)| format!("{} at {name}", group(count))).collect();
    parts.join(", ")
}

impl JoinSection {
    /// `5 of 11 joined, 2 failed, 3 still joining (3 at ICE), 1 never started`: what is left out
    /// is 0, so that the parts are always all that were requested.
    pub fn balance(&self) -> String {
        let JoinCounters { requested, joined, failed, pending, not_started, .. } = self.counted;
        let mut text = format!("{} of {} joined", group(joined), group(requested));
        if failed > 0 {
            let _ = write!(text, ", {} failed", group(failed));
        }
        if pending > 0 {
            let _ = write!(text, ", {} still joining", group(pending));
            let at = self.pending_at.map_or(String::new(), |at| said(&at));
            if !at.is_empty() {
                let _ = write!(text, " ({at})");
            }
        }
        if not_started > 0 {
            let _ = write!(text, ", {} never started", group(not_started));
        }
        text
    }

    /// `, 3 by TCP, 2 dropped out, 7 sessions lost, 5 resumed`: by what they came, what became of those who had joined, and what
    /// it took; only what there was. Sessions are not told where each was lost for good.
    pub fn afterwards(&self) -> String {
        let JoinCounters { dropped, drops, retries, resumed, leaves, rejoins, .. } = self.counted;
        let parts = [
            (dropped, "dropped out"),
            (if drops == dropped { 0 } else { drops }, "sessions lost"),
            (retries, "retries"),
            (resumed, "resumed"),
            (leaves, "left as planned"),
            (rejoins, "joined again"),
        ];
        let there = parts.into_iter().filter(|(count, _)| *count > 0);
        let by = self.paths.as_ref().map(ways).unwrap_or_default();
        there.fold(by, |text, (count, word)| text + &format!(", {} {word}", group(count)))
    }

    /// Fills in what reports of versions before these keys did not say but imply. They counted
    /// tries that dropped out, not participants; what is more than there were is cut.
    pub(crate) fn complete(&mut self, as_read: &Value) {
        if as_read.get("pending").is_some() {
            return;
        }
        let join = &mut self.counted;
        join.started = join.started.min(join.requested);
        join.not_started = join.requested - join.started;
        join.pending = join.started.saturating_sub(join.joined).saturating_sub(join.failed);
        self.pending_at = (join.pending == 0).then(PendingAt::default);
        join.drops = join.dropped;
        join.dropped = join.dropped.min(join.joined);
    }
}

/// `, 3 by TCP, 1 by TURN over UDP`; empty where all came by UDP.
fn ways(paths: &JoinPaths) -> String {
    let others = paths.named().into_iter().skip(1).filter(|(_, count)| *count > 0);
    others.map(|(way, count)| format!(", {} by {way}", group(count))).collect()
}

/// Join phases, each from the scheduled start of the join.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Phases {
    /// Websocket open.
    pub websocket: Option<Hist>,
    /// Join response received.
    pub signal: Option<Hist>,
    /// ICE connected.
    pub ice: Option<Hist>,
    /// DTLS connected.
    pub dtls: Option<Hist>,
    /// First RTP packet.
    pub first_packet: Option<Hist>,
    /// First keyframe complete.
    pub first_keyframe: Option<Hist>,
}

impl Phases {
    /// All of them in their order, with what people call them.
    pub fn named(&self) -> [(&'static str, Option<&Hist>); 6] {
        [
            ("websocket open", self.websocket.as_ref()),
            ("join response", self.signal.as_ref()),
            ("ICE connected", self.ice.as_ref()),
            ("DTLS connected", self.dtls.as_ref()),
            ("first packet", self.first_packet.as_ref()),
            ("first keyframe", self.first_keyframe.as_ref()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_balance_leaves_out_only_what_is_nothing() {
        let mut join = JoinSection::default();
        let counted = JoinCounters { requested: 11, joined: 11, ..JoinCounters::default() };
        join.counted = counted;
        assert_eq!(join.balance(), "11 of 11 joined");
        let counted = JoinCounters { requested: 1_011, joined: 5, failed: 2, ..counted };
        join.counted = JoinCounters { pending: 4, not_started: 1_000, ..counted };
        join.pending_at = Some(PendingAt { ice: 3, signal: 1, ..PendingAt::default() });
        assert_eq!(
            join.balance(),
            "5 of 1,011 joined, 2 failed, 4 still joining (1 at the join response, 3 at ICE), \
             1,000 never started"
        );
    }

    #[test]
    fn what_came_after_the_joins_is_told_where_there_was_any() {
        let mut join = JoinSection::default();
        assert_eq!(join.afterwards(), "");
        join.counted = JoinCounters { dropped: 2, drops: 2, leaves: 1_000, ..join.counted };
        assert_eq!(join.afterwards(), ", 2 dropped out, 1,000 left as planned");
        join.paths = Some(JoinPaths { udp: 6, tcp: 3, turn_tls: 1, ..JoinPaths::default() });
        let by = ", 3 by TCP, 1 by TURN over TLS, 2 dropped out, 1,000 left as planned";
        assert_eq!(join.afterwards(), by);
        join.paths = None;
        join.counted = JoinCounters { dropped: 0, drops: 7, rejoins: 3, ..join.counted };
        assert_eq!(join.afterwards(), ", 7 sessions lost, 1,000 left as planned, 3 joined again");
    }

    #[test]
    fn a_report_of_an_older_version_balances_when_it_is_read() {
        let old = serde_json::json!({"requested": 11, "started": 10, "joined": 4, "failed": 1,
            "dropped": 9});
        let mut join: JoinSection = serde_json::from_value(old.clone()).unwrap();
        join.complete(&old);
        let counted = join.counted;
        assert_eq!((counted.pending, counted.not_started, join.pending_at), (5, 1, None));
        assert_eq!((counted.drops, counted.dropped), (9, 4));
        let new = serde_json::to_value(&join).unwrap();
        let mut again: JoinSection = serde_json::from_value(new.clone()).unwrap();
        again.complete(&new);
        assert_eq!(again.counted, counted);
    }
}
