//! Data messages.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stampede_counters::{DataCounters, MessageCounters, OtherDataCounters};
use stampede_units::show::share;

use crate::hist::Hist;
use crate::show::group;

/// Data messages that were sent, and what came of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DataSection {
    /// Over the channel that loses nothing and keeps the order.
    pub reliable: MessageSection,
    /// Over the channel that does neither.
    pub lossy: MessageSection,
    /// As frames of data tracks, which may be lost too.
    pub track: MessageSection,
    /// Everything else that came.
    #[serde(flatten)]
    pub other: OtherDataCounters,
}

/// Messages of one kind.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MessageSection {
    /// What was counted.
    #[serde(flatten)]
    pub counted: MessageCounters,
    /// `lost / decided`; `null` while nothing is decided.
    pub loss_rate: Option<f64>,
    /// From when a message was sent to the arrival of its last datagram; of messages that count as
    /// received.
    pub latency_ms: Option<Hist>,
}

impl MessageSection {
    /// `29,900 of 30,000 sent messages came (0.33 % lost), …`; `None` if there were none.
    #[must_use]
    pub fn told(&self) -> Option<String> {
        let MessageCounters { sent, not_sent, expected, received, late, lost, .. } = self.counted;
        if sent + not_sent + expected == 0 {
            return None;
        }
        let mut text =
            format!("{} sent, {} of {} received", group(sent), group(received), group(expected));
        let lost_rate = self.loss_rate.map_or(String::new(), |rate| format!(" ({})", share(rate)));
        for (count, what, more) in [
            (lost, "lost", lost_rate.as_str()),
            (late, "late", ""),
            (self.counted.duplicate, "twice", ""),
            (self.counted.reordered, "out of order", ""),
            (not_sent, "not sent", ""),
        ] {
            if count > 0 {
                text += &format!(", {} {what}{more}", group(count));
            }
        }
        if let Some(latency) = &self.latency_ms {
            text += &format!("; latency {:.1} ms p50, {:.1} ms p99", latency.p50, latency.p99);
        }
        Some(text)
    }
}

impl DataSection {
    /// Of these counters and latencies.
    pub fn of(counted: &DataCounters, [reliable, lossy, track]: [Option<Hist>; 3]) -> Self {
        let messages = |counted: MessageCounters, latency_ms| MessageSection {
            counted,
            loss_rate: counted.loss_rate(),
            latency_ms,
        };
        Self {
            reliable: messages(counted.reliable, reliable),
            lossy: messages(counted.lossy, lossy),
            track: messages(counted.track, track),
            other: counted.other,
        }
    }

    /// Its counters.
    pub fn counters(&self) -> DataCounters {
        let [reliable, lossy, track] = self.named().map(|(_, one)| one.counted);
        DataCounters { reliable, lossy, track, other: self.other }
    }

    /// All kinds, by name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, &MessageSection); 3] {
        [("reliable", &self.reliable), ("lossy", &self.lossy), ("track", &self.track)]
    }

    /// Of several runs.
    pub(crate) fn merged(all: &[&Self]) -> Option<Self> {
        let mut counted = DataCounters::default();
        all.iter().for_each(|one| counted.merge(&one.counters()));
        let latency = |of: fn(&Self) -> &MessageSection| {
            Hist::merged(all.iter().filter_map(|one| of(one).latency_ms.as_ref()))
        };
        let latencies =
            [latency(|one| &one.reliable), latency(|one| &one.lossy), latency(|one| &one.track)];
        (!all.is_empty()).then(|| Self::of(&counted, latencies))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_what_there_is_to_tell() {
        assert_eq!(MessageSection::default().told(), None);
        let reliable = MessageCounters {
            sent: 100,
            expected: 1_000,
            decided: 1_000,
            received: 990,
            lost: 10,
            late: 2,
            ..MessageCounters::default()
        };
        let counted = DataCounters { reliable, ..DataCounters::default() };
        let section = DataSection::of(&counted, [None, None, None]);
        let told = section.reliable.told().unwrap();
        assert_eq!(told, "100 sent, 990 of 1,000 received, 10 lost (1.00 %), 2 late");
        let twice = DataSection::merged(&[&section, &section]).unwrap();
        assert_eq!(twice.reliable.counted.lost, 20);
        assert_eq!(twice.reliable.loss_rate, Some(0.01));
        assert_eq!(twice.counters().reliable.sent, 200);
    }
}
