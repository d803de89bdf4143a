//! What an account comes to.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most interruptions kept one by one of a track. Further ones are in the sums of
/// [`Tally::further`].
pub const INTERRUPTIONS_MAX: usize = 256;
/// Most short gaps kept one by one of a track, the first ones; all are in [`Tally::short_gaps`].
pub const SHORT_GAPS_KEPT_MAX: usize = 64;

/// The bounds that an account is read with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// A gap of this length is an interruption.
    pub interruption_min: Duration,
    /// A track is expected this long after its subscriber was to join, or after it was published,
    /// unless it plays before.
    pub join_grace: Duration,
    /// The same after it was unmuted, resumed, or shown again.
    pub resume_grace: Duration,
    /// Nothing need come for so long before signalling says that it has ended in order: a publisher
    /// stops first, and the news of it takes its way over the server. What was silent for longer is
    /// a gap, all of it.
    pub end_grace: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            interruption_min: Duration::from_secs(1),
            join_grace: Duration::from_secs(5),
            resume_grace: Duration::from_secs(1),
            end_grace: Duration::from_secs(1),
        }
    }
}

/// Why nothing could be watched: the first of these that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// Packets were dropped on purpose in this process.
    OnPurpose,
    /// The subscriber had not joined.
    NotJoined,
    /// The subscriber's connection was down.
    Disconnected,
    /// The publisher had vanished.
    PublisherGone,
    /// Packets were lost for good.
    Loss,
    /// Frames came whole and could not be decoded, and nothing was lost.
    NoKeyframe,
    /// Frames came too late to be shown when they were due.
    Late,
    /// Nothing came, and signalling stood.
    Silent,
}

impl Cause {
    /// All of them, in the order in which they are asked.
    pub const ALL: [Self; 8] = [
        Self::OnPurpose,
        Self::NotJoined,
        Self::Disconnected,
        Self::PublisherGone,
        Self::Loss,
        Self::NoKeyframe,
        Self::Late,
        Self::Silent,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::OnPurpose => "on_purpose",
            Self::NotJoined => "not_joined",
            Self::Disconnected => "disconnected",
            Self::PublisherGone => "publisher_gone",
            Self::Loss => "loss",
            Self::NoKeyframe => "no_keyframe",
            Self::Late => "late",
            Self::Silent => "silent",
        }
    }
}

/// A stretch in which a track could not be watched although it should have played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interruption {
    /// The nominal end of the last frame, or when the first was expected.
    pub from: Instant,
    /// The next playable frame, or the end of what is looked at.
    pub until: Instant,
    /// Why.
    pub cause: Cause,
    /// More of the cause, as far as known.
    pub reason: Option<Arc<str>>,
    /// A playable frame ended it; else it was no longer expected, or the window ended.
    pub back: bool,
}

impl Interruption {
    /// How long.
    pub fn length(&self) -> Duration {
        self.until.saturating_duration_since(self.from)
    }
}

/// Expected time in its parts:
/// `expected == played + short_gaps + the interruptions' lengths + those of further ones`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// The track should have played.
    pub expected: Duration,
    /// It did.
    pub played: Duration,
    /// It did not, for less than an interruption.
    pub short_gaps: Duration,
    /// The same by [`Cause::ALL`].
    pub short_gaps_by: [Duration; Cause::ALL.len()],
    /// Where the first [`SHORT_GAPS_KEPT_MAX`] of them began and ended.
    pub frozen: Vec<(Instant, Instant)>,
    /// It did not, for longer; in order of time.
    pub interruptions: Vec<Interruption>,
    /// Interruptions past [`INTERRUPTIONS_MAX`], by [`Cause::ALL`]: how many, and their lengths
    /// added up.
    pub further: [(u64, Duration); Cause::ALL.len()],
}

impl Tally {
    /// Adds an interruption.
    pub(super) fn interrupted(&mut self, interruption: Interruption) {
        if self.interruptions.len() < INTERRUPTIONS_MAX {
            self.interruptions.push(interruption);
        } else {
            let (count, total) = &mut self.further[interruption.cause as usize];
            *count += 1;
            *total += interruption.length();
        }
    }

    /// Of `short_gaps` those in which packets were dropped on purpose.
    pub fn short_gaps_on_purpose(&self) -> Duration {
        self.short_gaps_by[Cause::OnPurpose as usize]
    }

    /// Adds a gap that is no interruption.
    pub(super) fn froze(&mut self, from: Instant, until: Instant, cause: Cause) {
        let length = until.saturating_duration_since(from);
        self.short_gaps += length;
        self.short_gaps_by[cause as usize] += length;
        self.keep_frozen(from, until);
    }

    fn keep_frozen(&mut self, from: Instant, until: Instant) {
        if self.frozen.len() < SHORT_GAPS_KEPT_MAX {
            self.frozen.push((from, until));
        }
    }

    /// Adds what came after.
    pub(super) fn append(&mut self, later: Self) {
        self.expected += later.expected;
        self.played += later.played;
        self.short_gaps += later.short_gaps;
        later.frozen.into_iter().for_each(|(from, until)| self.keep_frozen(from, until));
        later.interruptions.into_iter().for_each(|one| self.interrupted(one));
        for (sum, own) in self.short_gaps_by.iter_mut().zip(later.short_gaps_by) {
            *sum += own;
        }
        for (sum, own) in self.further.iter_mut().zip(later.further) {
            (sum.0, sum.1) = (sum.0 + own.0, sum.1 + own.1);
        }
    }
}
