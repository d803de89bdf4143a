//! The time that the packets of an audio stream cover.

use std::time::{Duration, Instant};

use crate::watch::{Cover, FrameTime, Intervals, PAUSE_COVER, Span, Trouble};

/// An Opus payload of so many bytes says that nothing follows: of such frames an encoder sends the
/// first and leaves out the others (libopus, `opus_encode`; RFC 6716 §3.1, a code 0 packet without
/// a frame).
const PAUSE_BYTES_MAX: usize = 2;

/// Of audio a packet is a frame, and a pause of the publisher's own (DTX) is play.
#[derive(Debug, Default)]
pub(super) struct Heard {
    cover: Cover,
    intervals: Intervals,
    last: Option<Instant>,
    /// The last packet is one of a pause: the next is due at its refresh.
    pausing: bool,
    highest: Option<u64>,
}

impl Heard {
    /// A packet that is new and in time.
    pub(super) fn packet(&mut self, sequence: u64, at: Instant, time: FrameTime, bytes: usize) {
        if let Some(highest) = self.highest
            && sequence > highest + 1
        {
            self.cover.trouble(Trouble { lost: true, ..Trouble::default() });
        }
        self.highest = self.highest.max(Some(sequence));
        let gap = self.last.map(|last| at.saturating_duration_since(last));
        let expected = self.pausing && gap.is_some_and(|gap| gap > self.intervals.cover());
        let paused = self.cover.shown(at, time, self.covers(), true) || expected;
        if let Some(gap) = gap.filter(|_| !paused) {
            self.intervals.push(gap);
        }
        self.last = self.last.max(Some(at));
        self.pausing = paused || bytes <= PAUSE_BYTES_MAX;
    }

    /// How long the last packet covers at most.
    fn covers(&self) -> Duration {
        let covers = self.intervals.cover();
        if self.pausing { covers.max(PAUSE_COVER) } else { covers }
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
        self.cover.take(self.covers())
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.cover.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tone up to one second, and then silence: a refresh every 400 ms, and behind each a packet
    /// that says that nothing follows. Gives back up to when it covers, in milliseconds, if nothing
    /// comes any more at `end_ms`.
    fn covered_ms(end_ms: u64, pause_bytes: usize) -> (usize, u64) {
        let start = Instant::now();
        let mut heard = Heard::default();
        let tone = (0..50).map(|packet| (packet * 20, 80));
        let pauses = (0..20).flat_map(|refresh| {
            let at_ms = 1_000 + refresh * 420;
            [(at_ms, 20), (at_ms + 20, pause_bytes)]
        });
        let packets = tone.chain(pauses).take_while(|(at_ms, _)| *at_ms < end_ms);
        for (sequence, (at_ms, bytes)) in packets.enumerate() {
            let time = FrameTime { timestamp: (at_ms * 48) as u32, clock_rate: 48_000 };
            heard.packet(sequence as u64, start + Duration::from_millis(at_ms), time, bytes);
        }
        let (ended, open, trouble) = heard.take_cover();
        assert_eq!(trouble, Trouble::default());
        (ended.len(), (open.unwrap().until - start).as_millis() as u64)
    }

    #[test]
    fn a_pause_that_nothing_has_ended_yet_covers_up_to_its_refresh() {
        assert_eq!(covered_ms(1_000, 1), (0, 980 + 170), "a tone covers its freeze bound");
        // The first pause is known by its packet, further ones by the one before too.
        assert_eq!(covered_ms(1_300, 1), (0, 1_020 + 550));
        assert_eq!(covered_ms(3_500, 1), (0, 3_120 + 550));
        assert_eq!(covered_ms(3_110, 40), (0, 3_100 + 550));
    }

    #[test]
    fn pauses_leave_the_intervals_of_speech_alone() {
        let start = Instant::now();
        let mut heard = Heard::default();
        let pauses = (0..40).map(|refresh| (1_000 + refresh * 400, 1));
        let speech = (0..50).map(|packet| (17_000 + packet * 20, 80));
        let tone = (0..50).map(|packet| (packet * 20, 80));
        for (sequence, (at_ms, bytes)) in tone.chain(pauses).chain(speech).enumerate() {
            let time = FrameTime { timestamp: (at_ms * 48) as u32, clock_rate: 48_000 };
            heard.packet(sequence as u64, start + Duration::from_millis(at_ms), time, bytes);
        }
        let (ended, open, _) = heard.take_cover();
        assert_eq!(ended, []);
        assert_eq!(open.unwrap().until, start + Duration::from_millis(17_980 + 170));
    }
}
