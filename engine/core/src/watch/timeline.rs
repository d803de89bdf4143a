//! What signalling says, by moments.

use std::sync::Arc;
use std::time::Instant;

/// Most changes that a timeline keeps. At the maximum the oldest is forgotten: what was before the
/// one that is then the oldest is not known any more, and not expected.
pub const CHANGES_MAX: usize = 4_096;

/// A value that changes at moments; before the first of them there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline<T> {
    /// In order of time; of changes at one moment the later said.
    changes: Vec<(Instant, T)>,
}

impl<T> Default for Timeline<T> {
    fn default() -> Self {
        Self { changes: Vec::new() }
    }
}

impl<T: PartialEq> Timeline<T> {
    /// From this moment on it is `value`. Moments may come in any order; what is said of one moment
    /// twice is as it was said last.
    pub fn set(&mut self, at: Instant, value: T) {
        let index = self.changes.partition_point(|(other, _)| *other <= at);
        if let Some(index) = index.checked_sub(1) {
            let (before, current) = &mut self.changes[index];
            if *current == value {
                return;
            }
            if *before == at {
                *current = value;
                return;
            }
        }
        self.changes.insert(index, (at, value));
        if self.changes.len() > CHANGES_MAX {
            self.changes.remove(0);
        }
    }

    /// The value at this moment.
    pub fn at(&self, at: Instant) -> Option<&T> {
        let index = self.changes.partition_point(|(other, _)| *other <= at);
        self.changes.get(index.checked_sub(1)?).map(|(_, value)| value)
    }

    /// The value in force now.
    pub fn current(&self) -> Option<&T> {
        self.changes.last().map(|(_, value)| value)
    }

    /// The moments of its changes.
    pub fn moments(&self) -> impl Iterator<Item = Instant> + '_ {
        self.changes.iter().map(|(at, _)| *at)
    }

    /// What was said at this moment and after it.
    pub fn since(&self, at: Instant) -> impl Iterator<Item = &(Instant, T)> {
        let first = self.changes.partition_point(|(other, _)| *other < at);
        self.changes[first..].iter()
    }

    /// Forgets what was in force before this moment only.
    pub fn forget_before(&mut self, at: Instant) {
        let first = self.changes.partition_point(|(other, _)| *other <= at);
        self.changes.drain(..first.saturating_sub(1));
    }

    /// Values in force at any moment of `from..until`, each with the moment from which it holds.
    pub fn during(&self, from: Instant, until: Instant) -> impl Iterator<Item = &(Instant, T)> {
        let first = self.changes.partition_point(|(other, _)| *other <= from).saturating_sub(1);
        self.changes[first..].iter().take_while(move |(at, _)| *at < until)
    }
}

/// What is known of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publishing {
    /// It is there.
    There {
        /// Muted by its publisher.
        muted: bool,
    },
    /// Its publisher vanished without a word; the track is expected on.
    Vanished {
        /// As it was before.
        muted: bool,
        /// How its publisher went, as far as known.
        reason: Arc<str>,
    },
    /// Unpublished, or its publisher left in order.
    Over,
}

impl Publishing {
    /// Whether it should play.
    pub fn plays(&self) -> bool {
        match self {
            Self::There { muted } | Self::Vanished { muted, .. } => !muted,
            Self::Over => false,
        }
    }
}

/// How a subscriber is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// Media can flow.
    Up,
    /// It was up and is not any more.
    Down {
        /// Why, as far as known.
        reason: Arc<str>,
    },
}
