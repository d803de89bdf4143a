//! What the accounting has to say, from the whole story after the fact.
//!
//! Written from the definitions of docs/measurement.md alone, number by number and frame by frame,
//! over everything that was sent and everything that arrived. It parses no packet: which frame a
//! packet is of, and which frame that one refers to, it has from the sender.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use stampede_core::{FrameCounters, FreezeCounters, PacketCounters};

/// A frame as it was sent.
#[derive(Debug, Clone)]
pub struct SentFrame {
    /// Sequence numbers of its packets, not wrapped.
    pub sequences: Range<u64>,
    pub keyframe: bool,
    /// Its RTP timestamp, since the stream's beginning.
    pub due: Duration,
    /// The frame it refers to, by index.
    pub refers_to: Option<usize>,
}

/// A packet that reached the receiver.
#[derive(Debug, Clone, Copy)]
pub struct Arrived {
    /// Of its first transmission.
    pub sequence: u64,
    pub by_rtx: bool,
    pub at: Instant,
}

/// All that happened to one stream.
#[derive(Debug, Clone)]
pub struct Story {
    pub deadline: Duration,
    pub frames: Vec<SentFrame>,
    /// Sequence numbers without payload.
    pub padding: BTreeSet<u64>,
    /// Those with a blank frame of the server's own.
    pub server_made: BTreeSet<u64>,
    /// In order of arrival.
    pub arrivals: Vec<Arrived>,
    /// When signalling said that the track was muted, and that it no longer was.
    pub mutes: Vec<(Instant, bool)>,
    /// When the measured window began.
    pub measured_from: Option<Instant>,
}

/// What became of one sequence number.
#[derive(Debug, Clone, Copy)]
struct Number {
    /// The first copy that came.
    came: Option<Arrived>,
    /// When the first higher number came, if that was before any copy.
    passed_over: Option<Instant>,
    duplicates: u64,
    rtx_redundant: u64,
}

impl Story {
    /// Sequence numbers of the stream that the receiver can know of.
    fn range(&self) -> Option<Range<u64>> {
        let begun = self.arrivals.first()?.at;
        let highest = self.arrivals.iter().map(|arrived| arrived.sequence).max()?;
        // Its first packets may have changed places.
        let early = self.arrivals.iter().filter(|arrived| arrived.at <= begun + self.deadline);
        let first = early.map(|arrived| arrived.sequence).min()?;
        Some(first..highest + 1)
    }

    /// The part of it that lies in the measured window.
    fn measured(&self) -> Range<u64> {
        let Some(range) = self.range() else { return 0..0 };
        let Some(from) = self.measured_from else { return range };
        let before = self.arrivals.iter().take_while(|arrived| arrived.at <= from);
        let highest_before = before.map(|arrived| arrived.sequence).max();
        highest_before.map_or(range.start, |highest| highest + 1)..range.end
    }

    fn numbers(&self) -> BTreeMap<u64, Number> {
        let Some(range) = self.range() else { return BTreeMap::new() };
        let mut copies: BTreeMap<u64, Vec<(usize, Arrived)>> = BTreeMap::new();
        for (turn, arrived) in self.arrivals.iter().enumerate() {
            copies.entry(arrived.sequence).or_default().push((turn, *arrived));
        }
        let mut numbers = BTreeMap::new();
        // From the highest down: which of all higher ones came first.
        let mut higher: Option<(usize, Instant)> = None;
        for sequence in range.rev() {
            let own = copies.get(&sequence).map_or(&[][..], Vec::as_slice);
            let first = own.first();
            let passed = higher.filter(|&(turn, _)| first.is_none_or(|&(own, _)| turn < own));
            let again = own.iter().skip(1);
            let redundant = again.clone().filter(|(_, copy)| copy.by_rtx).count() as u64;
            let number = Number {
                came: first.map(|&(_, arrived)| arrived),
                passed_over: passed.map(|(_, at)| at),
                duplicates: again.count() as u64 - redundant,
                rtx_redundant: redundant,
            };
            numbers.insert(sequence, number);
            let first = first.map(|&(turn, arrived)| (turn, arrived.at));
            higher = higher.into_iter().chain(first).min();
        }
        numbers
    }

    /// It came before it was passed over, or not too long after.
    fn in_time(&self, number: &Number) -> bool {
        let Some(came) = number.came else { return false };
        number.passed_over.is_none_or(|passed| came.at <= passed + self.deadline)
    }

    fn is_blank(&self, sequence: u64) -> bool {
        self.padding.contains(&sequence) || self.server_made.contains(&sequence)
    }

    /// Packets, but for their bytes; those that may still come count as unrecovered.
    pub fn packets(&self) -> PacketCounters {
        let measured = self.measured();
        let mut counted = PacketCounters::default();
        self.count_strays(measured.start, &mut counted);
        for (sequence, number) in self.numbers() {
            if !measured.contains(&sequence) {
                continue;
            }
            counted.duplicate += number.duplicates;
            counted.rtx_redundant += number.rtx_redundant;
            if self.is_blank(sequence) && number.came.is_some() {
                counted.padding_only += 1;
                counted.server_made += u64::from(self.server_made.contains(&sequence));
                continue;
            }
            counted.expected += 1;
            counted.received += u64::from(number.came.is_some());
            if number.passed_over.is_none() {
                continue;
            }
            counted.missing += 1;
            match number.came {
                Some(_) if self.in_time(&number) => counted.repaired += 1,
                Some(_) => counted.late += 1,
                None => {}
            }
            counted.reordered += u64::from(number.came.is_some_and(|came| !came.by_rtx));
            counted.rtx_repairs += u64::from(number.came.is_some_and(|came| came.by_rtx));
        }
        counted.unrecovered = counted.missing - counted.repaired;
        counted
    }

    /// The highest sequence number that had come by then.
    fn highest_by(&self, moment: Instant) -> Option<u64> {
        let before = self.arrivals.iter().filter(|arrived| arrived.at <= moment);
        before.map(|arrived| arrived.sequence).max()
    }

    /// What came in the measured window, but belongs to before it, or to before the stream.
    fn count_strays(&self, first: u64, counted: &mut PacketCounters) {
        let mut seen = BTreeSet::new();
        for arrived in self.arrivals.iter().filter(|arrived| arrived.sequence < first) {
            let new = seen.insert(arrived.sequence);
            if self.measured_from.is_some_and(|from| arrived.at <= from) {
                continue;
            }
            match (new, arrived.by_rtx) {
                (true, _) => counted.stale += 1,
                (false, false) => counted.duplicate += 1,
                (false, true) => counted.rtx_redundant += 1,
            }
        }
    }

    /// Frames, and freezes by libwebrtc's rule.
    pub fn frames(&self) -> (FrameCounters, FreezeCounters) {
        let numbers = self.numbers();
        let range = self.range().unwrap_or(0..0);
        let measured = self.measured();
        let mut counted =
            FrameCounters { decodable: Some(0), dropped: Some(0), ..FrameCounters::default() };
        let mut decodable = vec![false; self.frames.len()];
        let mut shown: Vec<(usize, Instant)> = Vec::new();
        for (index, frame) in self.frames.iter().enumerate() {
            // One that had begun before we came, or that we did not wait for, is nobody's loss.
            if frame.sequences.start < range.start || frame.sequences.end > range.end {
                continue;
            }
            let numbers = || frame.sequences.clone().filter_map(|number| numbers.get(&number));
            let complete = numbers().all(|number| self.in_time(number));
            let refers = frame.refers_to.is_some_and(|other| decodable[other]);
            decodable[index] = complete && (frame.keyframe || refers);
            if frame.sequences.start >= measured.start {
                counted.received += u64::from(numbers().any(|number| self.in_time(number)));
                counted.complete += u64::from(complete);
                counted.keyframes += u64::from(complete && frame.keyframe);
                let shown = decodable[index];
                let sum = if shown { &mut counted.decodable } else { &mut counted.dropped };
                *sum = sum.map(|sum| sum + 1);
            }
            if decodable[index] {
                let whole = numbers().filter_map(|number| number.came.map(|came| came.at)).max();
                // Frames are shown in order.
                let before = shown.last().map(|&(_, at)| at);
                shown.extend(whole.max(before).map(|at| (index, at)));
            }
        }
        (counted, self.freezes(&shown))
    }

    /// Which frames were complete in time, and when.
    pub fn complete_frames(&self) -> Vec<(usize, Instant)> {
        let numbers = self.numbers();
        let whole = |frame: &SentFrame| {
            let mut last = None;
            for sequence in frame.sequences.clone() {
                let number = numbers.get(&sequence).filter(|number| self.in_time(number))?;
                last = last.max(number.came.map(|came| came.at));
            }
            last
        };
        let frames = self.frames.iter().enumerate();
        frames.filter_map(|(index, frame)| Some((index, whole(frame)?))).collect()
    }

    /// `shown`: which frame was shown when.
    fn freezes(&self, shown: &[(usize, Instant)]) -> FreezeCounters {
        let mut counted = FreezeCounters::default();
        let mut intervals_ms: Vec<u128> = Vec::new();
        for pair in shown.windows(2) {
            let [(before, since), (after, until)] = [pair[0], pair[1]];
            if self.stood_still(&self.frames[before], &self.frames[after]) {
                continue;
            }
            let interval = until - since;
            intervals_ms.push(interval.as_millis());
            let last: Vec<_> = intervals_ms.iter().rev().take(30).collect();
            let average = last.iter().copied().sum::<u128>() / last.len() as u128;
            let bound = (3 * average).max(average + 150);
            let measured = self.frames[after].sequences.start >= self.measured().start;
            // Of one that began before the measured window, the part inside it.
            let from = self.measured_from.map_or(since, |from| from.max(since));
            let frozen = until.saturating_duration_since(from);
            let long = interval.as_millis() >= bound && !frozen.is_zero();
            if last.len() < 5 || !long || !measured {
                continue;
            }
            counted.count += 1;
            counted.total_s.0 += frozen;
            counted.streams = 1;
            let lossy = after - before > 1;
            let causes = &mut counted.causes;
            // What its timestamp does not explain of the time that it took.
            let behind = interval.saturating_sub(self.frames[after].due - self.frames[before].due);
            let late = behind > Duration::from_millis(250).min(interval / 2);
            let cause = match (lossy, late) {
                (true, _) => &mut causes.loss,
                (false, true) => &mut causes.late,
                (false, false) => &mut causes.silent,
            };
            cause.count += 1;
            cause.total_s.0 += frozen;
        }
        counted
    }

    /// The track was muted somewhere between these frames, as far as signalling tells.
    fn stood_still(&self, before: &SentFrame, after: &SentFrame) -> bool {
        self.mutes.chunks(2).any(|pair| {
            let &[(muted, true), (unmuted, false)] = pair else { panic!("{pair:?}") };
            let came_after = self.highest_by(muted) < Some(after.sequences.start);
            let not_over = Some(before.sequences.end) <= self.highest_by(unmuted).map(|to| to + 1);
            came_after && not_over
        })
    }
}
