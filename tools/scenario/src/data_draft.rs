//! Data messages as they are asked for: how many, how large and by which ways.

use std::fmt;
use std::str::FromStr;

use stampede_core::data::DataKind;

use crate::choices::DataTrackSubscribe;

/// How data messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataKinds {
    /// Whether each of [`DataKind::ALL`] is among them.
    each: [bool; DataKind::COUNT],
}

impl DataKinds {
    /// Over both channels of messages.
    pub const BOTH: Self = Self { each: [true, true, false] };
    /// In no way.
    pub(crate) const NONE: Self = Self { each: [false; DataKind::COUNT] };
    /// In every way.
    const EVERY: Self = Self { each: [true; DataKind::COUNT] };

    /// Whether each of [`DataKind::ALL`] is among them.
    pub(crate) fn each(self) -> [bool; DataKind::COUNT] {
        self.each
    }

    /// These too.
    pub(crate) fn add(&mut self, more: Self) {
        self.each.iter_mut().zip(more.each).for_each(|(all, one)| *all |= one);
    }

    /// Whether this one is among them.
    pub fn has(self, kind: DataKind) -> bool {
        self.each[kind as usize]
    }
}

/// It names no kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("use reliable, lossy, track, both (reliable and lossy) or all; several with commas")]
pub struct DataKindsError;

impl FromStr for DataKinds {
    type Err = DataKindsError;

    fn from_str(text: &str) -> Result<Self, DataKindsError> {
        let mut kinds = Self { each: [false; DataKind::COUNT] };
        for word in text.split(',') {
            let more = match word.trim() {
                "both" => Self::BOTH,
                "all" => Self::EVERY,
                word => Self { each: DataKind::ALL.map(|kind| kind.name() == word) },
            };
            if more.each == [false; DataKind::COUNT] {
                return Err(DataKindsError);
            }
            kinds.add(more);
        }
        Ok(kinds)
    }
}

impl fmt::Display for DataKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BOTH => f.write_str("both"),
            Self::EVERY => f.write_str("all"),
            _ => {
                let kinds = DataKind::ALL.into_iter().filter(|kind| self.has(*kind));
                let names: Vec<_> = kinds.map(DataKind::name).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

/// Data messages as they were asked for, of a run or of a cohort; `None` is what was not given.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DataDraft {
    /// Who sends them: per room, or of a cohort over all rooms.
    pub publishers: Option<u32>,
    /// Messages of each kind that one of them sends in a second.
    pub rate: Option<f64>,
    /// Bytes of a message.
    pub bytes: Option<usize>,
    /// How they travel.
    pub kinds: Option<DataKinds>,
    /// How subscribers get data tracks.
    pub subscribe: Option<DataTrackSubscribe>,
}

impl DataDraft {
    /// Somebody sends.
    pub(crate) fn sends(&self) -> bool {
        self.publishers.is_some_and(|publishers| publishers > 0)
    }

    /// What of these is given that says nothing without senders, by its flag.
    pub(crate) fn how(&self) -> Option<&'static str> {
        let given = [
            (self.rate.is_some(), "data-rate"),
            (self.bytes.is_some(), "data-size"),
            (self.kinds.is_some(), "data-kind"),
        ];
        given.into_iter().find(|(given, _)| *given).map(|(_, flag)| flag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_read() {
        for text in ["reliable", "lossy", "both", "track", "lossy,track", "all"] {
            assert_eq!(text.parse::<DataKinds>().unwrap().to_string(), text);
        }
        for (text, shortest) in [("lossy, reliable", "both"), ("both,track", "all")] {
            assert_eq!(text.parse::<DataKinds>().unwrap().to_string(), shortest);
        }
        for text in ["stream", "", "lossy,", "both,stream"] {
            assert_eq!(text.parse::<DataKinds>(), Err(DataKindsError));
        }
        let lossy: DataKinds = "lossy".parse().unwrap();
        assert_eq!(DataKind::ALL.map(|kind| lossy.has(kind)), [false, true, false]);
    }
}
