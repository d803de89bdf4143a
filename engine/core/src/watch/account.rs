//! One track of one subscriber, from first to last.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::tally::{Cause, Interruption, Rules, Tally};
use super::{Connection, Publishing, Span, StreamCover, Timeline, Trouble};

/// Most ended spans that an account keeps one by one. At the maximum the older half is
/// [folded](TrackWatch::fold): its time stays in the sums.
pub const SPANS_MAX: usize = 512;

/// What is known of a subscriber beside its tracks.
#[derive(Debug, Clone, Default)]
pub struct Seat {
    /// When it was to be there; in order of time, none within another.
    pub stays: Vec<Stay>,
    /// Its connection; nothing before it was connected for the first time.
    pub connection: Timeline<Connection>,
    /// From when to when packets other than media were dropped on purpose; in order of time.
    pub cut_off: Vec<[Instant; 2]>,
    /// From when to when its path was broken on purpose; in order of time. What is missed beyond is
    /// put down to what it looks like.
    pub excused: Vec<[Instant; 2]>,
}

/// A stay of a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stay {
    /// When it was to join.
    pub from: Instant,
    /// When it was asked to leave, if it was.
    pub until: Option<Instant>,
}

impl Seat {
    /// When it was connected of its own accord in the stay that began last before this moment; `None`
    /// if it was not.
    fn joined(&self, at: Instant) -> Option<Instant> {
        let begun = self.stays.partition_point(|stay| stay.from <= at);
        let from = self.stays.get(begun.saturating_sub(1))?.from;
        if self.connection.at(from) == Some(&Connection::Up) {
            return Some(from);
        }
        let up = |(_, connection): &&(Instant, Connection)| *connection == Connection::Up;
        self.connection.since(from).find(up).map(|(at, _)| *at)
    }
}

/// What an account is read against.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The subscriber.
    pub seat: &'a Seat,
    /// The publication.
    pub publishing: &'a Timeline<Publishing>,
    /// Whether the subscriber has it: subscribed, shown by its layout, not paused by the server.
    pub wanted: &'a Timeline<bool>,
    /// The same of its publisher.
    pub excused: &'a [[Instant; 2]],
    /// A picture of it may stand still for so long: silence alone is no gap, once it played. For ever
    /// of a foreign screen share, which sends nothing while nothing changes; of a file of variable rate
    /// as long as the longest of its pauses.
    pub still_max: Duration,
    /// The bounds.
    pub rules: Rules,
}

/// A span of one or more streams of the track, with what was seen at its ends.
#[derive(Debug, Clone, Copy)]
struct Played {
    from: Instant,
    until: Instant,
    before: Trouble,
    after: Trouble,
}

/// A stream that goes on.
#[derive(Debug, Clone)]
struct Running {
    /// Which stream of which peer, as its owner numbers them.
    stream: u64,
    open: Option<Span>,
    trouble: Trouble,
}

/// The account of one (subscriber, publisher, source), over all SSRCs, sids, tries and reconnects
/// that it had.
#[derive(Debug, Clone, Default)]
pub struct TrackWatch {
    received: bool,
    /// Ended spans of all streams: in order of time, none touches another.
    ended: Vec<Played>,
    running: Vec<Running>,
    /// What streams saw that ended without a playable frame, and when they ended.
    unplayed: Option<(Instant, Trouble)>,
    /// What came before the first of `ended`, once it was folded.
    folded: Option<(Instant, Box<Tally>)>,
}

impl TrackWatch {
    /// A media packet of it has come.
    pub fn received(&self) -> bool {
        self.received
    }

    /// Takes what is new of one of its streams. `stream` tells them apart over all peers; `now` is
    /// when the news was made.
    pub fn cover(&mut self, now: Instant, stream: u64, news: StreamCover) {
        self.received |= news.received;
        let index = self.running.iter().position(|known| known.stream == stream);
        let index = index.unwrap_or_else(|| {
            self.running.push(Running { stream, open: None, trouble: Trouble::default() });
            self.running.len() - 1
        });
        let count = news.ended.len();
        for (number, span) in news.ended.iter().enumerate() {
            // What was seen after a span is what the next one saw before it.
            let next = news.ended.get(number + 1).or(news.open.as_ref());
            let after = next.filter(|_| number < count).map(|next| next.before);
            self.play(*span, after.unwrap_or_default());
        }
        let running = &mut self.running[index];
        (running.open, running.trouble) = (news.open, news.trouble);
        if news.last {
            let ended = self.running.swap_remove(index);
            match ended.open {
                Some(span) => self.play(span, ended.trouble),
                None => {
                    let before = self.unplayed.map(|(_, trouble)| trouble).unwrap_or_default();
                    self.unplayed = Some((now, before.or(ended.trouble)));
                }
            }
        }
    }

    /// True if so many spans are kept that the older ones should be folded.
    pub fn wants_folding(&self) -> bool {
        self.ended.len() >= SPANS_MAX
    }

    /// What was folded so far is not of the window that begins now.
    pub fn forget_folded(&mut self) {
        self.folded = None;
    }

    /// Puts the older half of the spans into sums. `from` is where the window of later tallies
    /// begins; a window that ends before the fold can't be read any more.
    pub fn fold(&mut self, facts: &Facts<'_>, from: Instant) {
        let Some(cut) = self.ended.get(self.ended.len() / 2).map(|span| span.from) else { return };
        self.fold_until(facts, from, cut);
        // What plays at the cut ended the interruption before it.
        let last = self.folded.as_mut().and_then(|(_, folded)| folded.interruptions.last_mut());
        if let Some(last) = last.filter(|last| last.until == cut) {
            last.back = true;
        }
    }

    /// Puts everything before `cut` into sums, at which nothing played.
    pub fn fold_until(&mut self, facts: &Facts<'_>, from: Instant, cut: Instant) {
        let tally = self.tally(facts, from, cut);
        self.ended.retain(|span| span.from >= cut);
        self.folded = Some((cut, Box::new(tally)));
    }

    /// Parts the expected time of `from..until`; what was folded is within. Reading changes nothing.
    pub fn tally(&self, facts: &Facts<'_>, from: Instant, until: Instant) -> Tally {
        let (mut tally, from) = match &self.folded {
            Some((cut, folded)) => (Tally::clone(folded), from.max(*cut)),
            None => (Tally::default(), from),
        };
        let played = self.played();
        for stretch in stretches(facts, until) {
            let grace_ends = stretch.from + stretch.grace;
            let first = played.get(played.partition_point(|span| span.until <= stretch.from));
            let plays = first.map_or(grace_ends, |span| span.from.clamp(stretch.from, grace_ends));
            let start = plays.max(from);
            let end = self.end(facts, &played, &stretch);
            if start < end {
                tally.append(self.part(facts, &played, start, end));
            }
        }
        tally
    }

    /// For how long of `from..until` it could have played since its subscriber was there, whatever
    /// grace it has for its beginning.
    pub fn due(facts: &Facts<'_>, from: Instant, until: Instant) -> Duration {
        let due = stretches(facts, until).into_iter().filter_map(|stretch| {
            let start = facts.seat.joined(stretch.from)?.max(stretch.from).max(from);
            Some(stretch.until.saturating_duration_since(start))
        });
        due.sum()
    }

    /// All spans, running ones included, in order of time; none touches another.
    fn played(&self) -> Vec<Played> {
        let mut all = self.ended.clone();
        for running in &self.running {
            let Some(span) = running.open else { continue };
            let after = running.trouble;
            let Span { from, until, before } = span;
            insert(&mut all, Played { from, until, before, after });
        }
        all
    }

    fn play(&mut self, span: Span, after: Trouble) {
        let Span { from, until, before } = span;
        insert(&mut self.ended, Played { from, until, before, after });
    }

    /// One stretch in which the track is expected from its first moment to its last.
    fn part(&self, facts: &Facts<'_>, played: &[Played], from: Instant, until: Instant) -> Tally {
        let mut tally = Tally::default();
        let Some(expected) = until.checked_duration_since(from) else { return tally };
        tally.expected = expected;
        let mut at = from;
        let first = played.partition_point(|span| span.until <= from);
        for span in &played[first..] {
            if span.from >= until {
                break;
            }
            if span.from > at {
                self.gap(facts, played, (at, span.from), true, &mut tally);
            }
            let (begins, ends) = (span.from.max(at), span.until.min(until));
            tally.played += ends.saturating_duration_since(begins);
            at = at.max(ends);
        }
        if at < until {
            self.gap(facts, played, (at, until), false, &mut tally);
        }
        tally
    }

    /// Where a stretch ends: in order, it does so with the last frame, if silence alone lies
    /// between that and the news.
    fn end(&self, facts: &Facts<'_>, played: &[Played], stretch: &Stretch) -> Instant {
        let index = played.partition_point(|span| span.from < stretch.until);
        let last = index.checked_sub(1).and_then(|index| played.get(index));
        let Some(last) = last.filter(|last| stretch.in_order && last.until > stretch.from) else {
            return stretch.until;
        };
        let silence = stretch.until.saturating_duration_since(last.until);
        let is_news = !silence.is_zero()
            && silence <= facts.rules.end_grace
            && self.cause(facts, played, (last.until, stretch.until), true).0 == Cause::Silent;
        if is_news { last.until } else { stretch.until }
    }

    fn gap(
        &self,
        facts: &Facts<'_>,
        played: &[Played],
        (from, until): (Instant, Instant),
        back: bool,
        tally: &mut Tally,
    ) {
        // What was broken on purpose explains no more than it lasted, and the joining after it.
        let ends = facts.excused.iter().chain(&facts.seat.excused);
        let within = ends.filter(|[first, last]| *first < until && *last > from);
        if let Some(end) = within.map(|[_, last]| *last).max()
            && until.saturating_duration_since(end) >= facts.rules.interruption_min
        {
            self.part_of_gap(facts, played, (from, end), (true, true), tally);
            return self.part_of_gap(facts, played, (end, until), (back, false), tally);
        }
        self.part_of_gap(facts, played, (from, until), (back, true), tally);
    }

    /// `on_purpose` is false of what follows after something was broken on purpose.
    fn part_of_gap(
        &self,
        facts: &Facts<'_>,
        played: &[Played],
        (from, until): (Instant, Instant),
        (back, on_purpose): (bool, bool),
        tally: &mut Tally,
    ) {
        let length = until - from;
        let (cause, reason) = self.cause(facts, played, (from, until), on_purpose);
        let had_picture = played.first().is_some_and(|span| span.from < from);
        if length <= facts.still_max && had_picture && cause == Cause::Silent {
            tally.played += length;
        } else if length >= facts.rules.interruption_min {
            tally.interrupted(Interruption { from, until, cause, reason, back });
        } else {
            tally.froze(from, until, cause);
        }
    }

    /// The first cause that holds of this gap.
    fn cause(
        &self,
        facts: &Facts<'_>,
        played: &[Played],
        (from, until): (Instant, Instant),
        on_purpose: bool,
    ) -> (Cause, Option<Arc<str>>) {
        let trouble = self.trouble(played, from, until);
        let seat = facts.seat;
        let within = |[first, last]: &[Instant; 2]| *first < until && *last > from;
        let mut spans = seat.cut_off.iter().chain(&seat.excused).chain(facts.excused);
        if on_purpose && (trouble.on_purpose || spans.any(within)) {
            return (Cause::OnPurpose, None);
        }
        // Joined in the middle of it: what the longer part of it is.
        let joined = seat.joined(from);
        let joined_late =
            |joined: Instant| joined > from && joined - from >= until - joined.min(until);
        if joined.is_none_or(joined_late) {
            return (Cause::NotJoined, None);
        }
        let mut connections = seat.connection.during(from, until);
        let down = connections.find_map(|(_, connection)| match connection {
            Connection::Down { reason } => Some(Arc::clone(reason)),
            Connection::Up => None,
        });
        if down.is_some() {
            return (Cause::Disconnected, down);
        }
        let mut publishing = facts.publishing.during(from, until);
        let gone = publishing.find_map(|(_, publishing)| match publishing {
            Publishing::Vanished { reason, .. } => Some(Arc::clone(reason)),
            Publishing::There { .. } | Publishing::Over => None,
        });
        if gone.is_some() {
            return (Cause::PublisherGone, gone);
        }
        let cause = match trouble {
            Trouble { lost: true, .. } => Cause::Loss,
            Trouble { undecodable: true, .. } => Cause::NoKeyframe,
            Trouble { late: true, .. } => Cause::Late,
            _ => Cause::Silent,
        };
        (cause, None)
    }

    /// What the streams saw around a gap.
    fn trouble(&self, played: &[Played], from: Instant, until: Instant) -> Trouble {
        let mut trouble = Trouble::default();
        let next = played.partition_point(|span| span.from < until);
        if let Some(after) = played.get(next) {
            trouble = trouble.or(after.before);
        }
        if let Some(before) = next.checked_sub(1).and_then(|index| played.get(index)) {
            trouble = trouble.or(before.after);
        }
        for running in self.running.iter().filter(|running| running.open.is_none()) {
            trouble = trouble.or(running.trouble);
        }
        if let Some((ended, unplayed)) = self.unplayed
            && ended > from
        {
            trouble = trouble.or(unplayed);
        }
        trouble
    }
}

/// Puts a span into spans that are in order of time and do not touch, merging those it touches.
fn insert(spans: &mut Vec<Played>, mut new: Played) {
    if new.until <= new.from {
        return;
    }
    let first = spans.partition_point(|span| span.until < new.from);
    let end = first + spans[first..].partition_point(|span| span.from <= new.until);
    for span in &spans[first..end] {
        if span.from <= new.from {
            (new.from, new.before) = (span.from, span.before);
        }
        if span.until >= new.until {
            (new.until, new.after) = (span.until, span.after);
        }
    }
    spans.splice(first..end, [new]);
}

/// A stretch in which signalling says that the track should play.
struct Stretch {
    from: Instant,
    until: Instant,
    /// How long it may take to begin.
    grace: Duration,
    /// It ended because signalling said so, rather than with what is looked at.
    in_order: bool,
}

/// The stretches up to `until`, in order.
fn stretches(facts: &Facts<'_>, until: Instant) -> Vec<Stretch> {
    let stays = facts.seat.stays.iter();
    stays.flat_map(|stay| stretches_of(facts, stay, until)).collect()
}

/// Those of one stay.
fn stretches_of(facts: &Facts<'_>, stay: &Stay, until: Instant) -> Vec<Stretch> {
    let scheduled = stay.from;
    let end = stay.until.map_or(until, |left| left.min(until));
    if scheduled >= end {
        return Vec::new();
    }
    let changes = facts.publishing.moments().chain(facts.wanted.moments());
    let mut moments: Vec<Instant> =
        changes.filter(|at| *at > scheduled && *at < end).chain([scheduled]).collect();
    moments.sort_unstable();
    moments.dedup();
    let mut stretches: Vec<Stretch> = Vec::new();
    let (mut playing, mut was_there) = (false, false);
    for at in moments {
        let publishing = facts.publishing.at(at);
        // Muted from the start, or not subscribed to yet, is not played yet.
        let there = publishing.is_some_and(|publishing| *publishing != Publishing::Over)
            && (was_there || playing);
        let wanted = facts.wanted.at(at);
        let plays =
            publishing.is_some_and(Publishing::plays) && wanted.is_none_or(|wanted| *wanted);
        match (playing, plays) {
            (false, true) => {
                let rules = facts.rules;
                let grace = if was_there { rules.resume_grace } else { rules.join_grace };
                stretches.push(Stretch { from: at, until: end, grace, in_order: false });
            }
            (true, false) => {
                if let Some(last) = stretches.last_mut() {
                    (last.until, last.in_order) = (at, true);
                }
            }
            _ => {}
        }
        playing = plays;
        was_there = there || plays;
    }
    stretches
}
