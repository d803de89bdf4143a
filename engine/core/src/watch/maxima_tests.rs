//! What accounts do at their maxima: nothing falls out of their sums.

use std::time::{Duration, Instant};

use super::*;
use crate::MediaKind;

/// Spans of a second, so far from the end of each to the next.
fn track(start: Instant, spans: u32, gap: Duration) -> TrackWatch {
    let second = Duration::from_secs(1);
    let ended = (0..spans).map(|number| {
        let from = start + (second + gap) * number;
        Span { from, until: from + second, before: Trouble::default() }
    });
    let news = StreamCover {
        track_id: None,
        stream: 1,
        kind: MediaKind::Video,
        received: true,
        ended: ended.collect(),
        open: None,
        trouble: Trouble::default(),
        layers: Vec::new(),
        last: false,
    };
    let mut track = TrackWatch::default();
    track.cover(start, 1, news);
    track
}

/// Reads it as of somebody who was there from `start` on.
fn read<T>(start: Instant, how: impl FnOnce(&Facts<'_>) -> T) -> T {
    let mut seat = Seat { stays: vec![Stay { from: start, until: None }], ..Seat::default() };
    seat.connection.set(start, Connection::Up);
    let mut publishing = Timeline::default();
    publishing.set(start, Publishing::There { muted: false });
    let facts = Facts {
        seat: &seat,
        publishing: &publishing,
        wanted: &Timeline::default(),
        excused: &[],
        still_max: Duration::ZERO,
        rules: Rules::default(),
    };
    how(&facts)
}

#[test]
fn spans_and_interruptions_beyond_the_maxima_stay_in_the_sums() {
    let (start, two) = (Instant::now(), Duration::from_secs(2));
    let spans = SPANS_MAX as u32;
    assert!(!track(start, spans - 1, two).wants_folding());
    let mut track = track(start, spans, two);
    assert!(track.wants_folding());
    let end = start + Duration::from_secs(3) * spans;
    let before = read(start, |facts| track.tally(facts, start, end));
    assert_eq!(before.expected, end - start);
    assert_eq!(before.played, Duration::from_secs(1) * spans);
    assert_eq!(before.interruptions.len(), INTERRUPTIONS_MAX);
    let further = before.further[Cause::Silent as usize];
    let more = spans - INTERRUPTIONS_MAX as u32;
    assert_eq!(further, (more.into(), two * more));
    read(start, |facts| track.fold(facts, start));
    assert!(!track.wants_folding());
    assert_eq!(read(start, |facts| track.tally(facts, start, end)), before);
}

#[test]
fn short_gaps_beyond_the_maximum_are_in_the_sum_only() {
    let (start, gap) = (Instant::now(), Duration::from_millis(500));
    let gaps = SHORT_GAPS_KEPT_MAX as u32 + 9;
    let track = track(start, gaps + 1, gap);
    let end = start + Duration::from_millis(1_500) * gaps + Duration::from_secs(1);
    let tally = read(start, |facts| track.tally(facts, start, end));
    assert_eq!((tally.frozen.len(), tally.short_gaps), (SHORT_GAPS_KEPT_MAX, gap * gaps));
    assert_eq!(tally.expected, tally.played + tally.short_gaps);
}

#[test]
fn a_timeline_forgets_its_oldest_change() {
    let (start, mut timeline) = (Instant::now(), Timeline::default());
    let at = |number: usize| start + Duration::from_secs(number as u64);
    for number in 0..=CHANGES_MAX {
        timeline.set(at(number), number);
    }
    assert_eq!(timeline.moments().count(), CHANGES_MAX);
    assert_eq!((timeline.at(at(0)), timeline.at(at(1))), (None, Some(&1)));
    assert_eq!(timeline.current(), Some(&CHANGES_MAX));
}
