//! From the accounts of a run to its figures of watch time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_core::MediaKind;
use stampede_core::watch::{Cause, Interruption, Tally};

use crate::audience::{Audience, Viewer, Watched};
use crate::data::RunData;
use crate::joins::of_first_try;
use stampede_report::facts::{CauseGroup, WatchFacts};
use stampede_report::layers::{LayerSums, LayersSection};
use stampede_report::running::LiveWatch;
use stampede_report::types::SeriesRow;
use stampede_report::watch::{
    InterruptionRow, LISTED_MAX, Stretch, WORST_MAX, WatchSection, WatchSums, WorstTrack,
    WorstViewer, ratio, seconds,
};

/// A subscriber and what its tracks came to.
struct Seen<'a> {
    viewer: &'a Viewer,
    tracks: Vec<Watched<'a>>,
}

/// What all subscribers could watch.
pub(crate) struct Viewers<'a> {
    seen: Vec<Seen<'a>>,
    /// By kind and cohort, what was expected up to when everybody was told to leave: counters of
    /// packets and frames go on until then.
    counted: BTreeMap<(usize, u16), Duration>,
    /// The same by room, subscriber and number of the publication.
    tracks_counted: HashMap<(&'a str, &'a str, usize), Duration>,
    audience: &'a Audience,
    started: Instant,
    until: Instant,
}

/// A track that is due for so long, of whose subscriber the connection stands, and has not sent a
/// packet, has not begun late: it never came.
const NEVER_CAME_MIN: Duration = Duration::from_secs(3);

impl Seen<'_> {
    /// Expected and played of all its tracks together.
    fn totals(&self) -> (Duration, Duration) {
        let tallies = self.tracks.iter().map(|track| &track.tally);
        tallies.fold((Duration::ZERO, Duration::ZERO), |(expected, played), tally| {
            (expected + tally.expected, played + tally.played)
        })
    }
}

/// What a subscriber has where it does not play; of two at once the later one here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Frozen,
    Interrupted,
    Disconnected,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::Interrupted => "interrupted",
            Self::Disconnected => "disconnected",
        }
    }
}

/// Stretches of several tracks as those of one: at each moment the worst, neighbours of one state
/// joined.
fn laid_over(parts: &[(f64, f64, State)]) -> Vec<Stretch> {
    // Where any begins or ends, and how many of each state there are from there on.
    let mut moments: Vec<(f64, State, i32)> = parts
        .iter()
        .flat_map(|(from_s, to_s, state)| [(*from_s, *state, 1), (*to_s, *state, -1)])
        .collect();
    moments.sort_by(|a, b| a.0.total_cmp(&b.0));
    let states = [State::Disconnected, State::Interrupted, State::Frozen];
    let mut counts = [0; 3];
    let mut strip: Vec<Stretch> = Vec::new();
    let mut moments = moments.into_iter().peekable();
    while let Some((at_s, state, change)) = moments.next() {
        counts[state as usize] += change;
        let Some(next_s) = moments.peek().map(|next| next.0).filter(|next_s| *next_s > at_s) else {
            continue;
        };
        let Some(state) = states.into_iter().find(|state| counts[*state as usize] > 0) else {
            continue;
        };
        match strip.last_mut().filter(|last| last.to_s == at_s && last.state == state.name()) {
            Some(last) => last.to_s = next_s,
            None => {
                let state = state.name().to_owned();
                strip.push(Stretch { from_s: at_s, to_s: next_s, state });
            }
        }
    }
    strip
}

fn index(kind: MediaKind) -> usize {
    usize::from(kind == MediaKind::Audio)
}

impl<'a> Viewers<'a> {
    /// Of a run that has ended.
    pub(crate) fn of(data: &'a RunData) -> Self {
        let end = data.measured.end.map_or(data.clock.started + data.duration, |end| end.at);
        let mut viewers = Self::until(&data.audience, data.clock.started, end);
        for watched in data.audience.watched(data.measured.leaving.unwrap_or(end)) {
            let key = (index(watched.publication.kind), watched.viewer.cohort);
            *viewers.counted.entry(key).or_default() += watched.tally.expected;
            let track = (&*watched.viewer.room, watched.viewer.identity.as_str(), watched.index);
            viewers.tracks_counted.insert(track, watched.tally.expected);
        }
        viewers
    }

    /// Time in which the tracks of a kind were expected while their packets were counted, of all
    /// subscribers or of one cohort.
    pub(crate) fn counted(&self, kind: MediaKind, cohort: Option<u16>) -> Duration {
        let kind = index(kind);
        let of = |(own, part): &(usize, u16)| *own == kind && cohort.is_none_or(|one| one == *part);
        self.counted.iter().filter(|(key, _)| of(key)).map(|(_, expected)| *expected).sum()
    }

    /// The same of one track: of the publication with this number of the subscriber's room.
    pub(crate) fn track_counted(
        &self,
        room: &str,
        identity: &str,
        publication: usize,
    ) -> Option<Duration> {
        self.tracks_counted.get(&(room, identity, publication)).copied()
    }

    /// Up to a moment.
    pub(crate) fn until(audience: &'a Audience, started: Instant, until: Instant) -> Self {
        let mut seen: Vec<Seen<'a>> = Vec::new();
        for watched in audience.watched(until) {
            let viewer = watched.viewer;
            match seen.last_mut().filter(|last| std::ptr::eq(last.viewer, viewer)) {
                Some(last) => last.tracks.push(watched),
                None => seen.push(Seen { viewer, tracks: vec![watched] }),
            }
        }
        let (counted, tracks_counted) = (BTreeMap::new(), HashMap::new());
        Self { seen, counted, tracks_counted, audience, started, until }
    }

    /// Of one kind of media, of all subscribers or of one cohort.
    pub(crate) fn sums(&self, kind: MediaKind, cohort: Option<u16>) -> WatchSums {
        let mut sums = WatchSums::default();
        for (number, seen) in self.seen.iter().enumerate() {
            if cohort.is_some_and(|cohort| cohort != seen.viewer.cohort) {
                continue;
            }
            for track in seen.tracks.iter().filter(|track| track.publication.kind == kind) {
                sums.add(number, &track.tally);
            }
        }
        sums
    }

    /// Which layers were on the screen, of all subscribers or of one cohort, and what excuses smaller
    /// ones.
    pub(crate) fn layers(&self, cohort: Option<u16>, excused: Option<&str>) -> LayersSection {
        let mut sums = LayerSums::default();
        let of_cohort = |seen: &&Seen<'_>| cohort.is_none_or(|cohort| cohort == seen.viewer.cohort);
        for track in self.seen.iter().filter(of_cohort).flat_map(|seen| &seen.tracks) {
            sums.merge(track.layers);
        }
        sums.section(excused)
    }

    /// The subscribers that could watch least; `None` if nobody was expected to watch anything.
    /// `cohort_name` is what their cohorts are called, if there are any.
    pub(crate) fn section(
        &self,
        cohort_name: &dyn Fn(u16) -> Option<String>,
    ) -> Option<WatchSection> {
        if self.seen.is_empty() {
            return None;
        }
        let mut order: Vec<(f64, Duration, &Seen<'_>)> = self
            .seen
            .iter()
            .map(|seen| {
                let (expected, played) = seen.totals();
                (ratio(played, expected).unwrap_or_default(), expected.saturating_sub(played), seen)
            })
            .collect();
        order.retain(|(_, missed, _)| !missed.is_zero());
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        let worst = order.into_iter().map(|(_, _, seen)| seen).take(WORST_MAX);
        Some(WatchSection {
            subscribers: self.seen.len() as u64,
            worst: worst.map(|seen| self.worst(seen, cohort_name)).collect(),
        })
    }

    fn worst(&self, seen: &Seen<'_>, cohort_name: &dyn Fn(u16) -> Option<String>) -> WorstViewer {
        let (expected, played) = seen.totals();
        let mut tracks: Vec<&Watched<'_>> = seen.tracks.iter().collect();
        tracks.sort_by_key(|track| {
            std::cmp::Reverse(track.tally.expected.saturating_sub(track.tally.played))
        });
        let tracks = tracks.into_iter().map(|track| WorstTrack {
            publisher: track.publication.publisher.clone(),
            source: track.publication.source.name().to_owned(),
            kind: if index(track.publication.kind) == 0 { "video" } else { "audio" }.to_owned(),
            expected_s: seconds(track.tally.expected),
            played_s: seconds(track.tally.played),
            interruptions: self.rows(&track.tally.interruptions),
        });
        WorstViewer {
            host: None,
            subscriber: seen.viewer.identity.clone(),
            room: seen.viewer.room.to_string(),
            cohort: cohort_name(seen.viewer.cohort),
            watch_ratio: ratio(played, expected).unwrap_or_default(),
            expected_s: seconds(expected),
            played_s: seconds(played),
            tracks: tracks.collect(),
            strip: self.strip(seen),
        }
    }

    fn rows(&self, interruptions: &[Interruption]) -> Vec<InterruptionRow> {
        let rows = interruptions.iter().take(LISTED_MAX).map(|one| InterruptionRow {
            from_s: self.at_s(one.from),
            to_s: self.at_s(one.until),
            cause: one.cause.name().to_owned(),
            reason: one.reason.as_deref().map(str::to_owned),
        });
        rows.collect()
    }

    /// What a viewer of all of its tracks had: the worst that any of them had.
    fn strip(&self, seen: &Seen<'_>) -> Vec<Stretch> {
        let mut parts: Vec<(f64, f64, State)> = Vec::new();
        for Watched { tally, .. } in &seen.tracks {
            parts.extend(tally.interruptions.iter().map(|one| {
                let disconnected = matches!(one.cause, Cause::Disconnected | Cause::NotJoined);
                let state = if disconnected { State::Disconnected } else { State::Interrupted };
                (self.at_s(one.from), self.at_s(one.until), state)
            }));
            let frozen = tally.frozen.iter();
            parts
                .extend(frozen.map(|(from, to)| (self.at_s(*from), self.at_s(*to), State::Frozen)));
        }
        let mut strip = laid_over(&parts);
        if strip.len() > LISTED_MAX {
            strip.sort_by(|a, b| (b.to_s - b.from_s).total_cmp(&(a.to_s - a.from_s)));
            strip.truncate(LISTED_MAX);
            strip.sort_by(|a, b| a.from_s.total_cmp(&b.from_s));
        }
        strip
    }

    /// When a subscriber's interruptions began and ended since the start of the run, in words.
    pub(crate) fn timeline(&self, identity: &str) -> Vec<(Duration, String)> {
        let identity = of_first_try(identity);
        let mut lines = Vec::new();
        for seen in self.seen.iter().filter(|seen| seen.viewer.identity == identity) {
            for track in &seen.tracks {
                self.track_timeline(track, &mut lines);
            }
        }
        lines.sort_by_key(|(at, _)| *at);
        lines
    }

    fn track_timeline(&self, track: &Watched<'_>, lines: &mut Vec<(Duration, String)>) {
        let since = |at: Instant| at.saturating_duration_since(self.started);
        let what =
            format!("{} of {}", track.publication.source.name(), track.publication.publisher);
        for one in track.tally.interruptions.iter().take(LISTED_MAX) {
            let reason = one.reason.as_deref().map(|reason| format!(" ({reason})"));
            let cause = format!("{}{}", one.cause.name(), reason.unwrap_or_default());
            lines.push((since(one.from), format!("interrupted: {what}: {cause}")));
            let length = format!("after {:.3} s", one.length().as_secs_f64());
            let text = match one.back {
                true => format!("interruption over {length}: {what}"),
                false => format!("still interrupted {length}: {what}"),
            };
            lines.push((since(one.until), text));
        }
    }

    /// The identities of those that could watch least, at most `most`, worst first.
    pub(crate) fn worst_identities(&self, most: usize) -> Vec<String> {
        let section = self.section(&|_| None);
        let worst = section.into_iter().flat_map(|section| section.worst);
        worst.map(|viewer| viewer.subscriber).take(most).collect()
    }

    /// Tracks of which nothing has come although they were expected for so long, or, in a window
    /// shorter than the grace for their beginning, were due for [`NEVER_CAME_MIN`].
    pub(crate) fn silent(&self, expected_min: Duration) -> u64 {
        let within_grace = self.audience.never_came(self.until, NEVER_CAME_MIN, expected_min);
        let tracks = self.seen.iter().flat_map(|seen| &seen.tracks);
        let silent = |track: &&Watched<'_>| !track.received && track.tally.expected >= expected_min;
        tracks.filter(silent).count() as u64 + within_grace
    }

    /// Fills in how many subscribers were interrupted in each second.
    pub(crate) fn fill(&self, series: &mut [SeriesRow]) {
        for seen in &self.seen {
            let strip = seen.tracks.iter().flat_map(|track| &track.tally.interruptions);
            let mut rows: Vec<bool> = vec![false; series.len()];
            for one in strip {
                let (from_s, to_s) = (self.at_s(one.from), self.at_s(one.until));
                let first = series.partition_point(|row| row.t_s <= from_s);
                for (row, hit) in series.iter().zip(&mut rows).skip(first) {
                    if row.t_s - row.length_s >= to_s {
                        break;
                    }
                    *hit = true;
                }
            }
            for (row, hit) in series.iter_mut().zip(rows) {
                row.interrupted += u64::from(hit);
            }
        }
    }

    /// What is known while a run goes on.
    pub(crate) fn live(&self) -> LiveWatch {
        LiveWatch {
            video: self.sums(MediaKind::Video, None).so_far(),
            audio: self.sums(MediaKind::Audio, None).so_far(),
            layers: self.layers(None, None),
            interrupted: self.interrupted_now(),
        }
    }

    /// Subscribers that are interrupted at the end of what is looked at.
    pub(crate) fn interrupted_now(&self) -> u64 {
        let now =
            |tally: &Tally| tally.interruptions.last().is_some_and(|last| last.until >= self.until);
        let seen = self.seen.iter();
        seen.filter(|seen| seen.tracks.iter().any(|track| now(&track.tally))).count() as u64
    }

    /// What the verdict has to know.
    pub(crate) fn facts(&self) -> WatchFacts {
        let kinds = [MediaKind::Video, MediaKind::Audio]
            .map(|kind| self.sums(kind, None).so_far().missed());
        let mut short_gaps_s = [0.0; Cause::ALL.len()];
        let tallies = self.seen.iter().flat_map(|seen| &seen.tracks).map(|track| &track.tally);
        for gaps in tallies.map(|tally| tally.short_gaps_by) {
            short_gaps_s.iter_mut().zip(gaps).for_each(|(sum, own)| *sum += own.as_secs_f64());
        }
        let groups = self.groups();
        WatchFacts { subscribers: self.seen.len() as u64, kinds, short_gaps_s, groups }
    }

    fn groups(&self) -> Vec<CauseGroup> {
        type Key = (usize, Cause, Option<Arc<str>>);
        // By subscriber, then by track.
        type Tracks<'b> = BTreeMap<usize, Vec<&'b Interruption>>;
        let mut by_key: BTreeMap<Key, BTreeMap<usize, Tracks<'_>>> = BTreeMap::new();
        for (number, seen) in self.seen.iter().enumerate() {
            for (track_number, track) in seen.tracks.iter().enumerate() {
                for one in &track.tally.interruptions {
                    let key = (index(track.publication.kind), one.cause, one.reason.clone());
                    let own = by_key.entry(key).or_default().entry(number).or_default();
                    own.entry(track_number).or_default().push(one);
                }
            }
        }
        let mut groups: Vec<CauseGroup> = by_key
            .into_iter()
            .map(|((kind, cause, reason), subscribers)| {
                let length_s = |all: &Vec<&Interruption>| -> f64 {
                    all.iter().map(|one| one.length().as_secs_f64()).sum()
                };
                // Of several tracks of a subscriber the one that was away longest.
                let mut lengths: Vec<f64> = subscribers
                    .values()
                    .map(|tracks| tracks.values().map(length_s).fold(0.0, f64::max))
                    .collect();
                lengths.sort_by(f64::total_cmp);
                let all = || subscribers.values().flat_map(BTreeMap::values).flatten();
                let from = all().map(|one| one.from).min().unwrap_or(self.started);
                let until = all().map(|one| one.until).max().unwrap_or(self.until);
                let away = |tracks: &&Tracks<'_>| tracks.values().flatten().any(|one| !one.back);
                let not_back = subscribers.values().filter(away).count() as u64;
                let once =
                    subscribers.values().flat_map(BTreeMap::values).all(|all| all.len() == 1);
                let back = (not_back == 0 && once).then(|| until.saturating_duration_since(from));
                let of_kind = |number: &usize| {
                    let tracks = &self.seen[*number].tracks;
                    tracks.iter().filter(|track| index(track.publication.kind) == kind).count()
                };
                CauseGroup {
                    video: kind == 0,
                    cause,
                    reason: reason.as_deref().map(str::to_owned),
                    subscribers: subscribers.len() as u64,
                    tracks: subscribers.values().map(|tracks| tracks.len() as u64).sum(),
                    of_tracks: subscribers.keys().map(of_kind).sum::<usize>() as u64,
                    total_s: all().map(|one| one.length().as_secs_f64()).sum(),
                    length_s_p50: lengths[lengths.len() / 2],
                    from_s: self.at_s(from),
                    back_after_s: back.map(seconds),
                    not_back,
                }
            })
            .collect();
        groups.sort_by(|a, b| b.total_s.total_cmp(&a.total_s));
        groups
    }

    fn at_s(&self, at: Instant) -> f64 {
        seconds(at.saturating_duration_since(self.started))
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use stampede_core::watch::Rules;
    use stampede_signaling::session::{RemoteTrack, Subscription, TrackSource, VideoSize};

    use super::*;
    use crate::audience::Pauses;
    use crate::joins::ParticipantId;

    #[test]
    fn of_several_tracks_the_worst_is_shown_and_neighbours_are_joined() {
        let parts = [
            (1.0, 4.0, State::Interrupted),
            (2.0, 3.0, State::Disconnected),
            (4.0, 5.0, State::Interrupted),
            (0.5, 1.5, State::Frozen),
            (7.0, 7.2, State::Frozen),
        ];
        let strip = laid_over(&parts);
        let told: Vec<_> =
            strip.iter().map(|one| (one.from_s, one.to_s, one.state.as_str())).collect();
        let wanted = [
            (0.5, 1.0, "frozen"),
            (1.0, 2.0, "interrupted"),
            (2.0, 3.0, "disconnected"),
            (3.0, 5.0, "interrupted"),
            (7.0, 7.2, "frozen"),
        ];
        assert_eq!(told, wanted);
        assert!(laid_over(&[]).is_empty());
    }

    /// Two subscribers of one camera, of which nothing comes; the second one loses its connection
    /// for a while.
    #[test]
    fn interruptions_are_told_with_begin_and_end() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let room: Rc<str> = "room".into();
        let mut audience = Audience::new(Rules::default(), Pauses::default(), start);
        for number in 0..2 {
            let viewer = Viewer {
                identity: format!("sub-{number}"),
                room: Rc::clone(&room),
                cohort: 0,
                subscription: Subscription::Auto,
                asked: VideoSize::default(),
            };
            audience.seat(ParticipantId(number), viewer);
            audience.scheduled(ParticipantId(number), at(0));
            audience.connected(ParticipantId(number), at(10));
        }
        let camera = RemoteTrack {
            sid: "TR_1".to_owned(),
            kind: MediaKind::Video,
            source: TrackSource::Camera,
            publisher_sid: "PA_1".to_owned(),
            publisher_identity: "pub".to_owned(),
            width: 0,
            height: 0,
            mime_type: String::new(),
            muted: false,
            layers: Vec::new(),
        };
        audience.published(&room, at(0), &camera);
        audience.disconnected(ParticipantId(1), at(6_000), "ping_timeout");
        audience.connected(ParticipantId(1), at(7_000));
        audience.left(ParticipantId(1), at(9_000));
        let viewers = Viewers::until(&audience, start, at(10_000));
        let told = |identity: &str| -> Vec<String> {
            let lines = viewers.timeline(identity).into_iter();
            lines.map(|(at, text)| format!("{} {text}", at.as_millis())).collect()
        };
        let silent = [
            "5000 interrupted: camera of pub: silent",
            "10000 still interrupted after 5.000 s: camera of pub",
        ];
        assert_eq!(told("sub-0"), silent);
        assert_eq!(told("sub-0-try2"), silent, "a further try of it");
        let lost = [
            "5000 interrupted: camera of pub: disconnected (ping_timeout)",
            "9000 still interrupted after 4.000 s: camera of pub",
        ];
        assert_eq!(told("sub-1"), lost);
        assert_eq!(viewers.worst_identities(1), ["sub-0"], "of two that saw nothing the longer");
        let section = viewers.section(&|_| None).unwrap();
        assert_eq!((section.subscribers, section.worst.len()), (2, 2));
        let strips: Vec<_> = section.worst.iter().map(|worst| &worst.strip[..]).collect();
        assert_eq!(strips[1][0].state, "disconnected");
        assert_eq!((strips[0][0].from_s, strips[0][0].to_s), (5.0, 10.0));
    }
}
