//! What participants told and heard of each other over signalling.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stampede_counters::{MetadataCounters, SpeakerCounters};

use crate::hist::Hist;
use crate::show::group;

/// Signalling besides joins.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SignallingSection {
    /// Round trips of pings over the websockets, in the measured window.
    pub ping_rtt_ms: Option<Hist>,
    /// Updates that participants made of themselves.
    pub metadata: MetadataSection,
    /// Speakers.
    pub speakers: SpeakersSection,
}

/// Updates that participants made of themselves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MetadataSection {
    /// Updates and what became of them.
    #[serde(flatten)]
    pub counted: MetadataCounters,
    /// From an update until another participant was told of it, or of a newer one.
    pub latency_ms: Option<Hist>,
}

/// Speakers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SpeakersSection {
    /// Turns and what was told of them.
    #[serde(flatten)]
    pub counted: SpeakerCounters,
    /// From the first loud packet of a turn until a subscriber was told who speaks.
    pub latency_ms: Option<Hist>,
}

impl SignallingSection {
    /// What there is to tell, with what people call it.
    #[must_use]
    pub fn told(&self) -> Vec<(&'static str, String)> {
        let mut told = Vec::new();
        if let Some(rtt) = &self.ping_rtt_ms {
            told.push(("pings", format!("{} round trips{}", group(rtt.count), times(Some(rtt)))));
        }
        let MetadataCounters { sent, refused, expected, seen, superseded, missing } =
            self.metadata.counted;
        if sent > 0 {
            let mut text = format!(
                "{} sent; {} of {} told{}",
                group(sent),
                group(seen.saturating_add(superseded)),
                group(expected),
                times(self.metadata.latency_ms.as_ref())
            );
            for (count, what) in [
                (superseded, "by a newer one"),
                (missing, "missing"),
                (refused, "refused by the server"),
            ] {
                if count > 0 {
                    text += &format!(", {} {what}", group(count));
                }
            }
            told.push(("updates", text));
        }
        let SpeakerCounters { turns, expected, named, missed, flaps } = self.speakers.counted;
        if turns > 0 {
            let mut text = format!(
                "{} turns; {} of {} told{}",
                group(turns),
                group(named),
                group(expected),
                times(self.speakers.latency_ms.as_ref())
            );
            for (count, what) in [(missed, "missed"), (flaps, "flaps")] {
                if count > 0 {
                    text += &format!(", {} {what}", group(count));
                }
            }
            told.push(("speakers", text));
        }
        told
    }

    /// Of several runs.
    pub(crate) fn merged<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let hist = |hist: fn(&Self) -> Option<&Hist>| Hist::merged(all.clone().filter_map(hist));
        let mut merged = Self {
            ping_rtt_ms: hist(|one| one.ping_rtt_ms.as_ref()),
            metadata: MetadataSection {
                latency_ms: hist(|one| one.metadata.latency_ms.as_ref()),
                ..MetadataSection::default()
            },
            speakers: SpeakersSection {
                latency_ms: hist(|one| one.speakers.latency_ms.as_ref()),
                ..SpeakersSection::default()
            },
        };
        for one in all {
            merged.metadata.counted.merge(&one.metadata.counted);
            merged.speakers.counted.merge(&one.speakers.counted);
        }
        merged
    }
}

/// ` (p50 64 ms, p99 80 ms)`; nothing where it is not known.
fn times(ms: Option<&Hist>) -> String {
    ms.map_or_else(String::new, |ms| format!(" (p50 {:.1} ms, p99 {:.1} ms)", ms.p50, ms.p99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_to_tell_is_told_with_its_times() {
        let mut section = SignallingSection::default();
        assert_eq!(section.told(), []);
        section.metadata.counted = MetadataCounters {
            sent: 10,
            refused: 1,
            expected: 90,
            seen: 80,
            superseded: 6,
            missing: 4,
        };
        section.speakers.counted =
            SpeakerCounters { turns: 2, expected: 8, named: 8, ..SpeakerCounters::default() };
        let ms = crate::testing::report().join.phases_ms.dtls;
        assert!(ms.is_some());
        section.ping_rtt_ms.clone_from(&ms);
        let told = section.told();
        assert_eq!(
            told.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            ["pings", "updates", "speakers"]
        );
        assert!(told[0].1.contains("round trips (p50 "), "{told:?}");
        let updates =
            "10 sent; 86 of 90 told, 6 by a newer one, 4 missing, 1 refused by the server";
        assert_eq!(told[1].1, updates);
        assert_eq!(told[2].1, "2 turns; 8 of 8 told");
        let both = SignallingSection::merged([&section, &section].into_iter());
        assert_eq!((both.metadata.counted.seen, both.speakers.counted.turns), (160, 4));
    }
}
