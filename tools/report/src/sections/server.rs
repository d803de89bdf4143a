//! The server's own figures: the embedded SFU's ledger, and what a real server says of itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stampede_sfu::{Ledger, LedgerTotals};

/// The server's own figures.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ServerSection {
    /// The embedded SFU's ledger; `null` at a real server, or when it could not be had.
    pub embedded: Option<EmbeddedSection>,
    /// Why `embedded` is `null` although the embedded SFU ran.
    pub embedded_missing: Option<String>,
    /// Scraped from the server; `null` without `--server-metrics`.
    pub metrics: Option<ServerMetrics>,
}

/// The embedded SFU's ledger.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EmbeddedSection {
    /// Everything since it started.
    #[serde(flatten)]
    pub ledger: Ledger,
    /// Its totals over the measured window only, to set against `video` and `audio`.
    pub measured: Option<LedgerTotals>,
}

/// A server's (or several servers') own figures over the whole run: from before the first join to
/// after the last leave. `null`: not exposed, or the scrapes failed.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ServerMetrics {
    /// What was scraped, and how well.
    pub targets: Vec<ServerTarget>,
    /// CPU time.
    pub cpu_s: Option<f64>,
    /// The same in cores.
    pub cpu_cores: Option<f64>,
    /// Most memory seen.
    pub rss_bytes_max: Option<u64>,
    /// Most participants seen.
    pub participants_max: Option<u64>,
    /// Packets it says it sent, resent ones not. livekit-server counts signalling messages among
    /// them: ten to twenty a participant in a short run.
    pub packets_out: Option<u64>,
    /// RTP packets it says it sent again.
    pub packets_resent: Option<u64>,
    /// Packets it says it received, signalling messages among them.
    pub packets_in: Option<u64>,
    /// Bytes of `packets_out`.
    pub bytes_out: Option<u64>,
    /// NACKs of subscribers.
    pub nacks: Option<u64>,
    /// PLIs of subscribers.
    pub plis: Option<u64>,
    /// What it sent set against what arrived.
    pub reconciliation: Option<Reconciliation>,
}

/// One scraped address.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ServerTarget {
    /// Without user, password and query.
    pub url: String,
    /// Scrapes tried.
    pub scrapes: u64,
    /// Of them failed; their seconds are `null` in the series.
    pub failed: u64,
    /// The last failure.
    pub error: Option<String>,
}

/// What the server says it sent against what arrived, over the whole run. The server's count holds
/// signalling messages and whatever it sent to others, so it is an upper bound of what was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reconciliation {
    /// Packets sent as the server says, padding, resent ones and signalling messages included.
    pub sent: u64,
    /// RTP packets that reached our peers, padding, duplicates and resent ones included.
    pub arrived: u64,
    /// `sent - arrived`, as far as a number of 64 bits goes; below zero if more arrived than the server
    /// counted.
    pub difference: i64,
}

impl Reconciliation {
    /// Of these counts.
    pub fn new(sent: u64, arrived: u64) -> Self {
        let difference = i128::from(sent) - i128::from(arrived);
        let difference = difference.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        Self { sent, arrived, difference }
    }

    /// `difference / sent`, without its sign; `None` if nothing was sent.
    pub fn share(&self) -> Option<f64> {
        (self.sent > 0).then(|| self.difference.unsigned_abs() as f64 / self.sent as f64)
    }
}

/// A server in one second, between two scrapes. Counts are of that second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ServerSecond {
    /// CPU of its process.
    pub cpu_cores: Option<f64>,
    /// Memory of its process.
    pub rss_bytes: Option<u64>,
    /// Rooms.
    pub rooms: Option<u64>,
    /// Participants.
    pub participants: Option<u64>,
    /// Tracks published.
    pub tracks_published: Option<u64>,
    /// Subscriptions.
    pub tracks_subscribed: Option<u64>,
    /// Packets sent. livekit-server adds up each track once in 5 s, so this lags.
    pub packets_out: Option<u64>,
    /// RTP packets sent again.
    pub packets_resent: Option<u64>,
    /// Packets received.
    pub packets_in: Option<u64>,
    /// Bits sent.
    pub bitrate_out_bps: Option<f64>,
    /// NACKs of subscribers.
    pub nacks: Option<u64>,
    /// PLIs of subscribers.
    pub plis: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_has_a_sign_and_its_share_has_none() {
        let short = Reconciliation::new(1_000, 990);
        assert_eq!((short.difference, short.share()), (10, Some(0.01)));
        let more = Reconciliation::new(1_000, 1_010);
        assert_eq!((more.difference, more.share()), (-10, Some(0.01)));
        assert_eq!(Reconciliation::new(0, 5).share(), None);
        assert_eq!(Reconciliation::new(u64::MAX, 0).difference, i64::MAX);
        assert_eq!(Reconciliation::new(0, u64::MAX).difference, i64::MIN);
    }
}
