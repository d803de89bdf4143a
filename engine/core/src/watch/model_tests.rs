//! Accounts against a model that walks through time millisecond by millisecond.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::cover::FrameTime;
use super::*;
use crate::MediaKind;

/// Length of a schedule.
const END_MS: usize = 20_000;

/// What may happen, and when.
#[derive(Debug, Clone)]
enum Happening {
    Publish {
        muted: bool,
    },
    Vanish {
        muted: bool,
    },
    Unpublish,
    Want(bool),
    Connect,
    Drop,
    /// A new stream takes the place of the old one (another SSRC, or another try).
    NewStream,
    /// The frames stop for so long.
    Silence(u16),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => any::<bool>().prop_map(|muted| Happening::Publish { muted }),
        1 => any::<bool>().prop_map(|muted| Happening::Vanish { muted }),
        1 => Just(Happening::Unpublish),
        2 => any::<bool>().prop_map(Happening::Want),
        1 => Just(Happening::Connect),
        1 => Just(Happening::Drop),
        1 => Just(Happening::NewStream),
        4 => (0_u16..5_000).prop_map(Happening::Silence),
    ]
}

#[derive(Debug, Clone)]
struct Script {
    scheduled_ms: usize,
    left_ms: Option<usize>,
    /// It comes again, if it left before.
    again_ms: Option<usize>,
    interval_ms: usize,
    happenings: Vec<(usize, Happening)>,
    /// How often news is read.
    read_every_ms: usize,
    window_ms: (usize, usize),
    still_max: Duration,
    fold: bool,
}

impl Script {
    /// When it is there, as `[from, until)`.
    fn stays(&self) -> impl Iterator<Item = [usize; 2]> {
        let first = [self.scheduled_ms, self.left_ms.unwrap_or(END_MS).min(END_MS)];
        [Some(first), self.again_ms.map(|again| [again, END_MS])].into_iter().flatten()
    }
}

fn script() -> impl Strategy<Value = Script> {
    let happenings = prop::collection::vec((0..END_MS, happening()), 0..14);
    let window = (0..END_MS, 0..=END_MS);
    let left = prop::option::of((0..END_MS, prop::option::of(0..END_MS)));
    let flags = (0..3_usize, any::<bool>());
    (0_usize..8_000, left, 15_usize..400, happenings, 40_usize..3_000, window, flags).prop_map(
        |(scheduled_ms, left, interval_ms, mut happenings, read_every_ms, (a, b), flags)| {
            let (left_ms, again_ms) = left.unzip();
            // It leaves after it came, and comes again after it left.
            let left_ms = left_ms.map(|left: usize| left.max(scheduled_ms + 1));
            let again_ms = again_ms.flatten().filter(|again| left_ms < Some(*again));
            happenings.sort_by_key(|(at, _)| *at);
            let (still, fold) = flags;
            let still_max = [Duration::ZERO, Duration::from_secs(2), Duration::MAX][still];
            let window_ms = (a.min(b), a.max(b));
            Script {
                scheduled_ms,
                left_ms,
                again_ms,
                interval_ms,
                happenings,
                read_every_ms,
                window_ms,
                still_max,
                fold,
            }
        },
    )
}

/// What came of a script: the account with its timelines, and the model's view by milliseconds.
struct Played {
    start: Instant,
    watch: TrackWatch,
    seat: Seat,
    publishing: Timeline<Publishing>,
    wanted: Timeline<bool>,
    covered: Vec<bool>,
    plays: Vec<bool>,
}

impl Played {
    fn facts(&self, still_max: Duration) -> Facts<'_> {
        Facts {
            seat: &self.seat,
            publishing: &self.publishing,
            wanted: &self.wanted,
            excused: &[],
            still_max,
            rules: Rules::default(),
        }
    }

    fn at(&self, ms: usize) -> Instant {
        self.start + Duration::from_millis(ms as u64)
    }
}

struct StreamModel {
    number: u64,
    cover: Cover,
    intervals: Intervals,
    last_ms: Option<usize>,
    shown: bool,
    /// The model's.
    covered: Vec<bool>,
}

impl StreamModel {
    fn new(number: u64) -> Self {
        let (cover, intervals) = (Cover::default(), Intervals::default());
        let covered = vec![false; END_MS + 2_000];
        Self { number, cover, intervals, last_ms: None, shown: false, covered }
    }

    /// What this stream covered is covered.
    fn end(&self, covered: &mut [bool]) {
        covered.iter_mut().zip(&self.covered).for_each(|(all, own)| *all |= own);
    }

    fn news(&mut self, last: bool) -> StreamCover {
        let (ended, open, trouble) = self.cover.take(self.intervals.cover());
        StreamCover {
            track_id: None,
            stream: 0,
            kind: MediaKind::Video,
            received: self.shown,
            ended,
            open,
            trouble,
            layers: Vec::new(),
            last,
        }
    }
}

fn play(script: &Script) -> Played {
    let start = Instant::now();
    let at = |ms: usize| start + Duration::from_millis(ms as u64);
    let mut played = Played {
        start,
        watch: TrackWatch::default(),
        seat: Seat {
            stays: script
                .stays()
                .map(|[from, until]| Stay {
                    from: at(from),
                    until: (until < END_MS).then(|| at(until)),
                })
                .collect(),
            ..Seat::default()
        },
        publishing: Timeline::default(),
        wanted: Timeline::default(),
        covered: vec![false; END_MS + 2_000],
        plays: vec![false; END_MS],
    };
    let reason: Arc<str> = "test".into();
    let mut stream = StreamModel::new(0);
    let (mut published, mut wanted, mut silent_until) = (None, true, 0);
    let mut happenings = script.happenings.iter().peekable();
    for ms in 0..END_MS {
        while let Some((_, what)) = happenings.next_if(|(at, _)| *at == ms) {
            let moment = at(ms);
            match what {
                Happening::Publish { muted } => {
                    played.publishing.set(moment, Publishing::There { muted: *muted });
                    published = Some(!muted);
                }
                Happening::Vanish { muted } => {
                    let reason = Arc::clone(&reason);
                    played.publishing.set(moment, Publishing::Vanished { muted: *muted, reason });
                    published = Some(!muted);
                }
                Happening::Unpublish => {
                    played.publishing.set(moment, Publishing::Over);
                    published = Some(false);
                }
                Happening::Want(now) => {
                    played.wanted.set(moment, *now);
                    wanted = *now;
                }
                Happening::Connect => played.seat.connection.set(moment, Connection::Up),
                Happening::Drop => {
                    let reason = Arc::clone(&reason);
                    played.seat.connection.set(moment, Connection::Down { reason });
                }
                Happening::NewStream => {
                    let news = stream.news(true);
                    played.watch.cover(moment, stream.number, news);
                    stream.end(&mut played.covered);
                    stream = StreamModel::new(stream.number + 1);
                }
                Happening::Silence(length) => {
                    silent_until = silent_until.max(ms + usize::from(*length));
                }
            }
        }
        played.plays[ms] = published == Some(true) && wanted;
        if ms % script.interval_ms == 0 && ms >= silent_until && published == Some(true) {
            let bound = stream.intervals.cover();
            let frame = FrameTime { timestamp: (ms * 90) as u32, clock_rate: 90_000 };
            stream.cover.shown(at(ms), frame, bound, false);
            if let Some(last) = stream.last_ms.replace(ms) {
                stream.intervals.push(Duration::from_millis((ms - last) as u64));
            }
            stream.shown = true;
            // A frame covers up to the next, at most its bound.
            let bound_ms = stream.intervals.cover().as_millis() as usize;
            stream.covered[ms..].fill(false);
            stream.covered[ms..(ms + bound_ms).min(END_MS + 2_000)].fill(true);
        }
        if ms % script.read_every_ms == 0 {
            let news = stream.news(false);
            played.watch.cover(at(ms), stream.number, news);
            if script.fold {
                let facts = Facts {
                    seat: &played.seat,
                    publishing: &played.publishing,
                    wanted: &played.wanted,
                    excused: &[],
                    still_max: script.still_max,
                    rules: Rules::default(),
                };
                played.watch.fold(&facts, at(script.window_ms.0));
            }
        }
    }
    let news = stream.news(true);
    played.watch.cover(at(END_MS), stream.number, news);
    stream.end(&mut played.covered);
    played
}

/// Expected, played, short gaps and interruptions (from, length), in milliseconds.
type ModelTally = (usize, usize, usize, Vec<(usize, usize)>);

fn model(script: &Script, played: &Played) -> ModelTally {
    let rules = Rules::default();
    let grace_ms = |first: bool| {
        let grace = if first { rules.join_grace } else { rules.resume_grace };
        grace.as_millis() as usize
    };
    let (begin, end) = script.window_ms;
    let (mut expected, mut watched, mut short) = (0, 0, 0);
    let mut interruptions = Vec::new();
    let mut gap = 0;
    // Nothing came, and signalling knows of no reason.
    let is_silent = |from_ms: usize, until_ms: usize| {
        let (from, until) = (played.at(from_ms), played.at(until_ms));
        let connected = played.seat.connection.moments().next().is_some_and(|at| at <= from);
        let mut connections = played.seat.connection.during(from, until);
        let mut publishing = played.publishing.during(from, until);
        connected
            && connections.all(|(_, connection)| *connection == Connection::Up)
            && !publishing.any(|(_, state)| matches!(state, Publishing::Vanished { .. }))
    };
    let mut close = |gap: &mut usize, ms: usize, short: &mut usize| {
        if *gap >= 1_000 {
            interruptions.push((ms - *gap, *gap));
        } else {
            *short += *gap;
        }
        *gap = 0;
    };
    // Since when it plays by what signalling says; whether the grace of that is over.
    let (mut since, mut begun, mut before) = (None, false, false);
    // Up to where the last frame of the stretch covers.
    let mut covered_to = None;
    for ms in script.scheduled_ms..end {
        if !script.stays().any(|[from, until]| (from..until).contains(&ms)) {
            // Nothing of an earlier stay is of use to a later one.
            (since, begun, before, covered_to) = (None, false, false, None);
            close(&mut gap, ms, &mut short);
            continue;
        }
        if !played.plays[ms] {
            let silent = covered_to.take().filter(|to| (1..=1_000).contains(&(ms - to)));
            if silent.is_some_and(|to| is_silent(to, ms)) {
                // The news of an orderly end took its way.
                expected -= gap;
                gap = 0;
            }
            since = None;
            let state = played.publishing.at(played.at(ms));
            before &= state.is_some_and(|state| *state != Publishing::Over);
            close(&mut gap, ms, &mut short);
            continue;
        }
        if since.is_none() {
            since = Some(ms);
            begun = false;
            covered_to = None;
        }
        if played.covered[ms] {
            covered_to = Some(ms + 1);
        }
        begun |= played.covered[ms] || ms - since.unwrap_or(ms) >= grace_ms(!before);
        let next_plays = ms + 1 < END_MS && played.plays[ms + 1];
        if begun && ms >= begin {
            expected += 1;
            if played.covered[ms] {
                watched += 1;
                close(&mut gap, ms, &mut short);
            } else {
                gap += 1;
            }
        }
        if !next_plays {
            before = true;
        }
    }
    close(&mut gap, end, &mut short);
    (expected, watched, short, interruptions)
}

/// What was folded can only be read as a part of its window.
fn whole(script: Script) -> Script {
    let end = if script.fold { END_MS } else { script.window_ms.1 };
    Script { window_ms: (script.window_ms.0, end), ..script }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn accounts_are_as_the_model_says_and_their_parts_are_the_whole(script in script()) {
        let script = whole(Script { still_max: Duration::ZERO, ..script });
        let played = play(&script);
        let facts = played.facts(Duration::ZERO);
        let (from, until) = script.window_ms;
        let tally = played.watch.tally(&facts, played.at(from), played.at(until));
        let (expected, watched, short, interruptions) = model(&script, &played);
        let ms = |length: Duration| length.as_micros() as f64 / 1_000.0;
        let found: Vec<(usize, usize)> = tally
            .interruptions
            .iter()
            .map(|one| {
                let from_ms = (one.from - played.start).as_millis() as usize;
                (from_ms, one.length().as_millis() as usize)
            })
            .collect();
        prop_assert_eq!(found, interruptions);
        prop_assert_eq!(ms(tally.expected), expected as f64);
        prop_assert_eq!(ms(tally.played), watched as f64);
        prop_assert_eq!(ms(tally.short_gaps), short as f64);
    }

    #[test]
    fn whatever_is_read_and_when_the_parts_are_the_whole(script in script()) {
        let script = whole(script);
        let played = play(&script);
        let facts = played.facts(script.still_max);
        let (from, until) = script.window_ms;
        for until in [until, END_MS, until] {
            let tally = played.watch.tally(&facts, played.at(from), played.at(until));
            let kept = tally.interruptions.iter().map(|interruption| interruption.length());
            let interrupted = kept.chain(tally.further.iter().map(|(_, total)| *total));
            let parts = tally.played + tally.short_gaps + interrupted.sum::<Duration>();
            prop_assert_eq!(parts, tally.expected);
            prop_assert!(tally.expected <= Duration::from_millis((until - from) as u64));
            prop_assert_eq!(tally.short_gaps_by.iter().sum::<Duration>(), tally.short_gaps);
            let again = played.watch.tally(&facts, played.at(from), played.at(until));
            prop_assert_eq!(&tally, &again, "reading changes nothing");
        }
    }
}
