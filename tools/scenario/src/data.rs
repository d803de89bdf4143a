//! Data messages: who sends which, how many and how large.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use stampede_core::data::{DataKind, DataRole, DataRoom, DataSends, SENDERS_MAX};
use stampede_report::Failure;

/// Messages of each kind that a data publisher sends in a second.
const RATE: f64 = 10.0;
/// Their payload.
const BYTES: usize = 256;

/// How data messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataKinds {
    /// Whether each of [`DataKind::ALL`] is among them.
    each: [bool; DataKind::COUNT],
}

impl DataKinds {
    /// Over both channels of messages.
    pub const BOTH: Self = Self { each: [true, true, false] };
    /// In every way.
    const EVERY: Self = Self { each: [true; DataKind::COUNT] };

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
            kinds.each.iter_mut().zip(more.each).for_each(|(all, one)| *all |= one);
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

/// Data messages as they were asked for; `None` is what was not given.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DataDraft {
    /// Who sends them, per room.
    pub publishers: Option<u32>,
    /// Messages of each kind that one of them sends in a second.
    pub rate: Option<f64>,
    /// Bytes of a message.
    pub bytes: Option<usize>,
    /// How they travel.
    pub kinds: Option<DataKinds>,
}

/// Data messages that are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DataSpec {
    /// Who sends them, per room.
    pub publishers: u32,
    /// Messages of each kind that one of them sends in a second.
    pub rate: f64,
    /// Bytes of a message.
    pub bytes: usize,
    /// How they travel.
    pub kinds: DataKinds,
}

impl DataSpec {
    /// Checks what was asked for; `None` where no data is sent.
    ///
    /// # Errors
    /// The first contradiction, exit code 104.
    pub(crate) fn new(draft: &DataDraft) -> Result<Option<Self>, Failure> {
        let DataDraft { publishers, rate, bytes, kinds } = *draft;
        let publishers = publishers.unwrap_or(0);
        if publishers == 0 {
            let given = [
                (rate.is_some(), "--data-rate"),
                (bytes.is_some(), "--data-size"),
                (kinds.is_some(), "--data-kind"),
            ];
            return match given.into_iter().find(|(given, _)| *given) {
                Some((_, flag)) => Err(Failure::config(format!(
                    "{flag} is given but nobody sends data: add --data-publishers 1"
                ))),
                None => Ok(None),
            };
        }
        if publishers as usize > SENDERS_MAX {
            return Err(Failure::config(format!(
                "--data-publishers {publishers}: {SENDERS_MAX} is the most for one room, because \
                 everybody in it keeps account of each; use more --rooms"
            )));
        }
        let (rate, bytes) = (rate.unwrap_or(RATE), bytes.unwrap_or(BYTES));
        Ok(Some(Self { publishers, rate, bytes, kinds: kinds.unwrap_or(DataKinds::BOTH) }))
    }

    /// The boards of so many rooms.
    pub(crate) fn rooms(&self, rooms: usize, run_id: &str) -> Vec<Arc<DataRoom>> {
        let room = |index: usize| {
            let mut tag = DefaultHasher::new();
            (run_id, index).hash(&mut tag);
            // Checked above.
            DataRoom::new(tag.finish(), self.publishers as usize, self.kinds.each).ok()
        };
        (0..rooms).filter_map(room).map(Arc::new).collect()
    }

    /// What somebody has to do with data in this room: this one of its senders, if it is one.
    /// `phase`, 0 to 1, spreads them.
    pub(crate) fn role(
        &self,
        room: &Arc<DataRoom>,
        sender: u32,
        phase: f64,
        expects: bool,
    ) -> Option<DataRole> {
        let every = Duration::from_secs_f64(1.0 / self.rate);
        let sender = (sender < self.publishers).then_some(sender as usize);
        let sends = sender.map(|_| DataSends {
            every,
            bytes: self.bytes,
            offset: every.mul_f64(phase),
        });
        (sends.is_some() || expects).then(|| {
            let room = Arc::clone(room);
            DataRole { room, sender, sends, expects }
        })
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

    #[test]
    fn how_is_nothing_without_who() {
        assert_eq!(DataSpec::new(&DataDraft::default()).unwrap(), None);
        let how = DataDraft { rate: Some(5.0), ..DataDraft::default() };
        let failure = DataSpec::new(&how).unwrap_err().to_string();
        assert!(failure.contains("--data-rate") && failure.contains("--data-publishers"));
        let all = DataSpec::new(&DataDraft { publishers: Some(3), ..how }).unwrap().unwrap();
        assert_eq!((all.publishers, all.rate, all.kinds), (3, 5.0, DataKinds::BOTH));
        let many = DataDraft { publishers: Some(1_001), ..DataDraft::default() };
        assert!(DataSpec::new(&many).is_err());
    }
}
