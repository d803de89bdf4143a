//! Watch time, twice: the product's account, fed as `tools/run` feeds it, and a model of a few lines
//! that knows nothing but when which whole frame was there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_core::MediaKind;
use stampede_core::watch::{
    Connection, Facts, Publishing, Rules, Seat, Stay, Tally, Timeline, TrackWatch,
};

use stampede_report::errors::ErrorFact;

use crate::clips;
use crate::news::{News, Why};

/// Intervals that the bound on what a frame covers follows.
const INTERVALS: usize = 30;
/// Each of them counts for no more.
const INTERVAL_MAX: Duration = Duration::from_secs(1);

/// How long after a connection was lost what its owner hears may be about that
/// (`tools/run/src/audience.rs`).
const EXPLAINED_WITHIN: Duration = Duration::from_secs(5);

/// A track of somebody: who publishes it, and whether it is video.
pub type Publication = (usize, bool);

/// What one participant gets of a publication.
#[derive(Default)]
pub struct Track {
    watch: TrackWatch,
    wanted: Timeline<bool>,
    /// When whole frames came, and of video their number and whether each is a keyframe.
    pub frames: Vec<(Instant, Option<(u32, bool)>)>,
    /// When packets of audio came: each is a frame.
    heard: Vec<Instant>,
}

/// The accounts of a run.
pub struct Accounts {
    start: Instant,
    seats: Vec<Seat>,
    publications: BTreeMap<Publication, Timeline<Publishing>>,
    /// By subscriber and publication.
    pub tracks: BTreeMap<(usize, Publication), Track>,
    sids: BTreeMap<(usize, String), Publication>,
    /// Of whom it is known whose fault it is that they don't stand.
    explained: BTreeSet<usize>,
    /// What ended connections, and tries to come back.
    pub errors: BTreeMap<String, ErrorFact>,
}

/// What a track comes to, by both.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Who watched.
    pub subscriber: usize,
    /// What.
    pub publication: Publication,
    /// By the product.
    pub tally: Tally,
    /// By the model: expected, played, and gaps.
    pub model: Model,
}

/// What the model says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Model {
    /// From the first frame to the end.
    pub expected: Duration,
    /// Of it covered by frames.
    pub played: Duration,
    /// Stretches that are not.
    pub gaps: u32,
}

impl Accounts {
    /// Of so many participants, of which each was to be there at its moment.
    #[must_use]
    pub fn new(start: Instant, scheduled: &[Instant]) -> Self {
        let seat =
            |at: &Instant| Seat { stays: vec![Stay { from: *at, until: None }], ..Seat::default() };
        Self {
            start,
            seats: scheduled.iter().map(seat).collect(),
            publications: BTreeMap::new(),
            tracks: BTreeMap::new(),
            sids: BTreeMap::new(),
            explained: BTreeSet::new(),
            errors: BTreeMap::new(),
        }
    }

    /// Takes what happened to a participant; `of` finds one by its identity.
    pub fn take(
        &mut self,
        now: Instant,
        client: usize,
        news: News,
        of: impl Fn(&str) -> Option<usize>,
    ) {
        match news {
            News::Stands => {
                self.seats[client].connection.set(now, Connection::Up);
                self.publishes(now, client, |_| Publishing::There { muted: false });
                self.explained.remove(&client);
            }
            News::Broke(why) => self.broke(now, client, &why, 0),
            News::GaveUp(why) => self.broke(now, client, &why, 1),
            News::Left => {
                self.seats[client].stays[0].until = Some(now);
                self.publishes(now, client, |_| Publishing::Over);
            }
            News::Published(kind) => {
                let publication = (client, kind == MediaKind::Video);
                let timeline = self.publications.entry(publication).or_default();
                timeline.set(now, Publishing::There { muted: false });
            }
            News::Available(sid, identity, kind) => {
                if let Some(publisher) = of(&identity) {
                    let publication = (publisher, kind == MediaKind::Video);
                    self.sids.insert((client, sid), publication);
                    self.tracks.entry((client, publication)).or_default();
                }
            }
            News::Wanted(sid, wanted) => {
                if let Some(track) = self.track(client, Some(sid)) {
                    track.wanted.set(now, wanted);
                }
            }
            News::Cover(stream, cover) => {
                let sid = cover.track_id.as_ref().map(ToString::to_string);
                if let Some(track) = self.track(client, sid) {
                    track.watch.cover(now, stream, cover);
                }
            }
            News::Frame(sid, kind, data) => {
                if let Some(track) = self.track(client, sid) {
                    let video = kind == MediaKind::Video;
                    track.frames.push((now, clips::video_frame(&data).filter(|_| video)));
                }
            }
            News::Closed(_) => {}
        }
    }

    /// It is gone, or still is.
    fn broke(&mut self, now: Instant, client: usize, why: &Why, count: u64) {
        let Why { kind, class } = why;
        let fact = || ErrorFact { kind: kind.clone(), class: *class, ..Default::default() };
        self.errors.entry(kind.clone()).or_insert_with(fact).count += count;
        let reason: Arc<str> = kind.as_str().into();
        let explains = class.tells() && self.explained.insert(client);
        let is_news = |since: Option<Instant>| {
            since.is_some_and(|since| now.saturating_duration_since(since) <= EXPLAINED_WITHIN)
        };
        let connection = &mut self.seats[client].connection;
        let down = Connection::Down { reason: reason.clone() };
        let since = connection.moments().last();
        match connection.current() {
            Some(Connection::Up) => connection.set(now, down),
            Some(Connection::Down { .. }) if explains && is_news(since) => {
                connection.set(since.unwrap_or(now), down);
            }
            _ => {}
        }
        let own = self.publications.iter_mut().filter(|((publisher, _), _)| *publisher == client);
        for (_, timeline) in own {
            let since = timeline.moments().last();
            let gone = Publishing::Vanished { muted: false, reason: reason.clone() };
            match timeline.current() {
                Some(Publishing::There { .. }) => timeline.set(now, gone),
                Some(Publishing::Vanished { .. }) if explains && is_news(since) => {
                    timeline.set(since.unwrap_or(now), gone);
                }
                _ => {}
            }
        }
    }

    /// When packets of an audio stream came.
    pub fn heard(&mut self, client: usize, sid: Option<String>, packets: &[Instant]) {
        if let Some(track) = self.track(client, sid) {
            track.heard.extend(packets);
            track.heard.sort_unstable();
        }
    }

    fn publishes(&mut self, now: Instant, client: usize, is: impl Fn(&Publishing) -> Publishing) {
        let own = self.publications.iter_mut().filter(|((publisher, _), _)| *publisher == client);
        for (_, timeline) in own {
            if let Some(was) = timeline.current() {
                let is = is(was);
                timeline.set(now, is);
            }
        }
    }

    fn track(&mut self, client: usize, sid: Option<String>) -> Option<&mut Track> {
        let publication = self.sids.get(&(client, sid?))?;
        self.tracks.get_mut(&(client, *publication))
    }

    /// When the latest frame of it could be shown.
    #[must_use]
    pub fn latest_frame(&self, subscriber: usize, publication: Publication) -> Option<Instant> {
        let track = self.tracks.get(&(subscriber, publication))?;
        shown(&track.frames, publication.1).last().copied()
    }

    /// What everything comes to.
    #[must_use]
    pub fn watched(&self, until: Instant) -> Vec<Watched> {
        let nothing = Timeline::default();
        let tracks = self.tracks.iter();
        tracks
            .map(|(&(subscriber, publication), track)| {
                let facts = Facts {
                    seat: &self.seats[subscriber],
                    publishing: self.publications.get(&publication).unwrap_or(&nothing),
                    wanted: &track.wanted,
                    excused: &[],
                    still_max: Duration::ZERO,
                    rules: Rules::default(),
                };
                let tally = track.watch.tally(&facts, self.start, until);
                let left = self.seats[subscriber].stays[0].until.unwrap_or(until);
                let over =
                    |(at, is): &(Instant, Publishing)| (*is == Publishing::Over).then_some(*at);
                let over = facts.publishing.since(self.start).find_map(over);
                let end = over.map_or(left, |over| over.min(left)).min(until);
                let shown = match publication.1 {
                    true => shown(&track.frames, true),
                    false => track.heard.clone(),
                };
                let begins = facts.publishing.moments().next().unwrap_or(end);
                let due = begins.max(self.seats[subscriber].stays[0].from);
                let model = model(&shown, due + facts.rules.join_grace, end);
                Watched { subscriber, publication, tally, model }
            })
            .collect()
    }
}

/// When frames could be shown: of video those that follow on the one before, or need none.
fn shown(frames: &[(Instant, Option<(u32, bool)>)], video: bool) -> Vec<Instant> {
    let mut last: Option<u32> = None;
    let mut shown = Vec::new();
    for &(at, frame) in frames {
        if !video {
            shown.push(at);
            continue;
        }
        let Some((number, keyframe)) = frame else { continue };
        let follows = |last: u32| (last + 1) % clips::VIDEO_FRAMES as u32 == number;
        if keyframe || last.is_some_and(follows) {
            last = Some(number);
            shown.push(at);
        }
    }
    shown
}

/// A frame covers up to the next one, but no longer than libwebrtc's freeze bound of the intervals before
/// it (docs/measurement.md, "Watch time"). Expected is from the first frame on, or from when its grace ends.
fn model(shown: &[Instant], grace_ends: Instant, end: Instant) -> Model {
    let begins = shown.first().map_or(grace_ends, |first| grace_ends.min(*first));
    let expected = end.saturating_duration_since(begins);
    let mut model = Model { expected, ..Model::default() };
    let mut intervals: VecDeque<Duration> = VecDeque::new();
    let next = shown.iter().skip(1).chain([&end]);
    for (at, next) in shown.iter().zip(next) {
        let bound = bound(&intervals);
        let length = (*next).min(end).saturating_duration_since(*at);
        model.gaps += u32::from(length > bound);
        model.played += length.min(bound);
        intervals.push_back(length.min(INTERVAL_MAX));
        if intervals.len() > INTERVALS {
            intervals.pop_front();
        }
    }
    model
}

/// max(3 × average, average + 150 ms), and half a second before there are five.
fn bound(intervals: &VecDeque<Duration>) -> Duration {
    if intervals.len() < 5 {
        return Duration::from_millis(500);
    }
    let average = intervals.iter().sum::<Duration>() / intervals.len() as u32;
    (average * 3).max(average + Duration::from_millis(150))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_follows_references_and_bounds_what_a_frame_covers() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let frames = [
            (at(0), Some((0, true))),
            (at(50), Some((1, false))),
            // 2 was lost.
            (at(150), Some((3, false))),
            (at(1_000), Some((20, true))),
            (at(1_050), Some((21, false))),
            // 59 is the last before the first.
            (at(1_100), Some((0, true))),
        ];
        let shown = shown(&frames, true);
        assert_eq!(shown, [at(0), at(50), at(1_000), at(1_050), at(1_100)]);
        let ms = Duration::from_millis;
        let played = ms(50 + 500 + 50 + 50 + 100);
        let of = |grace| model(&shown, at(grace), at(1_200));
        assert_eq!(of(5_000), Model { expected: ms(1_200), played, gaps: 1 });
        let steady: VecDeque<Duration> = [ms(50); 30].into();
        assert_eq!(bound(&steady), ms(200));
        assert_eq!(model(&[], at(1_000), at(1_200)).expected, ms(200));
    }
}
