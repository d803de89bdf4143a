//! The time that the packets of an audio stream cover.

use std::time::Instant;

use crate::watch::{Cover, FrameTime, Intervals, Span, Trouble};

/// Of audio a packet is a frame, and a pause of the publisher's own (DTX) is play.
#[derive(Debug, Default)]
pub(super) struct Heard {
    cover: Cover,
    intervals: Intervals,
    last: Option<Instant>,
    highest: Option<u64>,
}

impl Heard {
    /// A packet that is new and in time.
    pub(super) fn packet(&mut self, sequence: u64, at: Instant, time: FrameTime) {
        if let Some(highest) = self.highest
            && sequence > highest + 1
        {
            self.cover.trouble(Trouble { lost: true, ..Trouble::default() });
        }
        self.highest = self.highest.max(Some(sequence));
        let paused = self.cover.shown(at, time, self.intervals.cover(), true);
        if let Some(last) = self.last.filter(|_| !paused) {
            self.intervals.push(at.saturating_duration_since(last));
        }
        self.last = self.last.max(Some(at));
    }

    /// A sequence number without media.
    pub(super) fn skip(&mut self, sequence: u64) {
        if self.highest.is_some_and(|highest| sequence == highest + 1) {
            self.highest = Some(sequence);
        }
    }

    /// Packets of the stream were dropped on purpose.
    pub(super) fn dropped_on_purpose(&mut self) {
        self.cover.trouble(Trouble { on_purpose: true, ..Trouble::default() });
    }

    /// What is new; see [`Cover::take`].
    pub(super) fn take_cover(&mut self) -> (Vec<Span>, Option<Span>, Trouble) {
        self.cover.take(self.intervals.cover())
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.cover.heap_bytes()
    }
}
