mod maxima;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stampede_core::MediaKind;
use stampede_core::watch::{Cause, LayerTime, Rules, Span, StreamCover, Tally, Trouble};
use stampede_engine::{CoverNews, PeerCover, PeerId};
use stampede_scenario::OwnIdentities;
use stampede_signaling::session::{
    Departure, DisconnectReason, Layout, Quality, RemoteTrack, SessionEvent, Subscription,
    TrackSource, VideoSize,
};

use super::{Audience, ParticipantId, Pauses, Viewer};

const OWN: &str = "stampede-x-pub-";
const SUBSCRIBER: ParticipantId = ParticipantId(1);

struct Rig {
    audience: Audience,
    start: Instant,
    room: Rc<str>,
}

impl Rig {
    fn new(subscription: Subscription) -> Self {
        let (start, room) = (Instant::now(), Rc::from("room"));
        let mut audience = Audience::new(Rules::default(), Pauses::default(), start);
        let viewer = Viewer {
            identity: "sub".to_owned(),
            room: Rc::clone(&room),
            cohort: 0,
            subscription,
            asked: VideoSize::default(),
        };
        audience.seat(SUBSCRIBER, viewer);
        audience.scheduled(SUBSCRIBER, start);
        audience.peer(SUBSCRIBER, PeerId::default());
        Self { audience, start, room }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn track(sid: &str, publisher: &str, source: TrackSource) -> RemoteTrack {
        RemoteTrack {
            sid: sid.to_owned(),
            kind: MediaKind::Video,
            source,
            publisher_sid: format!("PA_{publisher}"),
            publisher_identity: publisher.to_owned(),
            width: 0,
            height: 0,
            mime_type: String::new(),
            muted: false,
            layers: Vec::new(),
        }
    }

    fn heard(&mut self, ms: u64, event: SessionEvent) {
        let own = OwnIdentities::prefixed(OWN.to_owned());
        self.audience.heard(SUBSCRIBER, self.at(ms), &event, &own);
    }

    fn available(&mut self, ms: u64, sid: &str, publisher: &str, source: TrackSource) {
        let track = Self::track(sid, publisher, source);
        self.heard(ms, SessionEvent::TrackAvailable(Box::new(track)));
    }

    /// The stream of this track played without a gap.
    fn played(&mut self, sid: &str, stream: u32, from_ms: u64, until_ms: u64) {
        let span =
            Span { from: self.at(from_ms), until: self.at(until_ms), before: Trouble::default() };
        let cover = StreamCover {
            track_id: Some(Arc::from(sid)),
            stream,
            kind: MediaKind::Video,
            received: true,
            ended: vec![span],
            open: None,
            trouble: Trouble::default(),
            layers: Vec::new(),
            last: true,
        };
        self.told(until_ms, cover);
    }

    /// Pictures of these heights and temporal layer 0 were shown, for so many seconds each.
    fn shown(&mut self, sid: &str, at_ms: u64, layers: &[(u16, u64)]) {
        let layers = layers.iter().map(|(height, seconds)| LayerTime {
            height: Some(*height),
            temporal: Some(0),
            played: Duration::from_secs(*seconds),
            frames: 25 * seconds,
        });
        let span = Span { from: self.at(0), until: self.at(at_ms), before: Trouble::default() };
        let cover = StreamCover {
            track_id: Some(Arc::from(sid)),
            stream: 0,
            kind: MediaKind::Video,
            received: true,
            ended: Vec::new(),
            open: Some(span),
            trouble: Trouble::default(),
            layers: layers.collect(),
            last: false,
        };
        self.told(at_ms, cover);
    }

    fn told(&mut self, at_ms: u64, cover: StreamCover) {
        self.audience.covers(CoverNews {
            worker: 0,
            made_at: self.at(at_ms),
            whole: true,
            covers: vec![PeerCover { peer: PeerId::default(), cover }],
            cut_off: Vec::new(),
        });
    }

    /// By (publisher, source), in order of their publication.
    fn tallies(&self, until_ms: u64) -> Vec<(String, Tally)> {
        let watched = self.audience.watched(self.at(until_ms));
        watched.map(|one| (one.publication.publisher.clone(), one.tally)).collect()
    }
}

fn ms(length: Duration) -> u128 {
    length.as_millis()
}

#[test]
fn who_never_joined_is_expected_to_see_what_its_room_publishes() {
    let mut rig = Rig::new(Subscription::Auto);
    let track = Rig::track("TR_1", "stampede-x-pub-1-0", TrackSource::Camera);
    let (room, at) = (Rc::clone(&rig.room), rig.at(0));
    rig.audience.published(&room, at, &track);
    let [(publisher, tally)] = &rig.tallies(12_000)[..] else { panic!() };
    assert_eq!(publisher, "stampede-x-pub-1-0");
    // After the grace of five seconds.
    assert_eq!((ms(tally.expected), ms(tally.played)), (7_000, 0));
    assert_eq!(tally.interruptions[0].cause, Cause::NotJoined);
}

/// A short run ends within the grace, in which watch time misses nothing.
#[test]
fn what_never_came_within_the_grace_is_counted_once_it_was_due_for_some_time() {
    let mut rig = Rig::new(Subscription::Auto);
    let (room, at) = (Rc::clone(&rig.room), rig.at(0));
    for sid in ["TR_1", "TR_2"] {
        let track = Rig::track(sid, &format!("stampede-x-pub-1-{sid}"), TrackSource::Camera);
        rig.audience.published(&room, at, &track);
    }
    let never = |rig: &Rig, until_ms| {
        let (due, expected) = (Duration::from_secs(3), Duration::from_secs(1));
        rig.audience.never_came(rig.at(until_ms), due, expected)
    };
    assert_eq!(never(&rig, 4_900), 0, "it was not there");
    rig.audience.connected(SUBSCRIBER, rig.at(1_000));
    rig.played("TR_1", 0, 1_100, 4_900);
    assert_eq!(rig.tallies(4_900).len(), 1, "of the other nothing is expected yet");
    assert_eq!((never(&rig, 3_900), never(&rig, 4_000), never(&rig, 5_900)), (0, 1, 1));
    assert_eq!(never(&rig, 6_000), 0, "watch time misses it");
    rig.audience.window_begins(rig.at(2_000));
    assert_eq!((never(&rig, 4_900), never(&rig, 5_000)), (0, 1));
    rig.audience.excuse(SUBSCRIBER, rig.at(2_000), rig.at(2_100));
    assert_eq!(never(&rig, 5_000), 0, "something was done to it");
}

/// In a meeting everybody publishes, and is shown the others.
#[test]
fn nobody_is_expected_to_see_its_own() {
    for subscription in
        [Subscription::Auto, Subscription::Layout { layout: Layout::Speaker, auto: false }]
    {
        let mut rig = Rig::new(subscription);
        let (room, at) = (Rc::clone(&rig.room), rig.at(0));
        for (sid, publisher) in [("TR_1", "sub"), ("TR_2", "other")] {
            rig.audience.published(&room, at, &Rig::track(sid, publisher, TrackSource::Camera));
        }
        let tallies = rig.tallies(12_000);
        let publishers: Vec<_> = tallies.iter().map(|(publisher, _)| &**publisher).collect();
        assert_eq!(publishers, ["other"], "{subscription:?}");
    }
}

#[test]
fn a_publisher_that_comes_back_is_the_same_one_and_its_absence_counts() {
    let mut rig = Rig::new(Subscription::Auto);
    rig.audience.connected(SUBSCRIBER, rig.at(0));
    rig.available(0, "TR_1", "alice", TrackSource::Camera);
    rig.played("TR_1", 0, 100, 4_000);
    let departure = Departure::Left { reason: DisconnectReason::ConnectionTimeout };
    rig.heard(6_000, SessionEvent::TrackGone { sid: "TR_1".to_owned(), departure });
    rig.available(9_000, "TR_2", "alice-try2", TrackSource::Camera);
    rig.played("TR_2", 1, 9_500, 12_000);
    let [(_, tally)] = &rig.tallies(12_000)[..] else { panic!("one track, not two") };
    assert_eq!((ms(tally.expected), ms(tally.played)), (11_900, 6_400));
    let [gap] = &tally.interruptions[..] else { panic!("{tally:?}") };
    assert_eq!((gap.cause, ms(gap.length())), (Cause::PublisherGone, 5_500));
    assert_eq!(gap.reason.as_deref(), Some("CONNECTION_TIMEOUT"));
}

#[test]
fn an_orderly_end_ends_what_is_expected() {
    for departure in
        [Departure::Unpublished, Departure::Left { reason: DisconnectReason::ClientInitiated }]
    {
        let mut rig = Rig::new(Subscription::Auto);
        rig.audience.connected(SUBSCRIBER, rig.at(0));
        rig.available(0, "TR_1", "alice", TrackSource::Camera);
        rig.played("TR_1", 0, 0, 4_000);
        rig.heard(4_000, SessionEvent::TrackGone { sid: "TR_1".to_owned(), departure });
        let [(_, tally)] = &rig.tallies(60_000)[..] else { panic!() };
        assert_eq!((ms(tally.expected), ms(tally.played)), (4_000, 4_000), "{departure:?}");
    }
}

#[test]
fn the_news_of_an_orderly_end_may_take_its_way_but_a_blackout_is_none() {
    let tally = |news_ms: u64, connected: bool| {
        let mut rig = Rig::new(Subscription::Auto);
        rig.audience.connected(SUBSCRIBER, rig.at(0));
        rig.available(0, "TR_1", "alice", TrackSource::Camera);
        rig.played("TR_1", 0, 0, 4_000);
        if !connected {
            rig.audience.disconnected(SUBSCRIBER, rig.at(4_100), "gone");
        }
        let sid = "TR_1".to_owned();
        rig.heard(news_ms, SessionEvent::TrackMuted { sid, muted: true });
        let [(_, tally)] = &rig.tallies(60_000)[..] else { panic!() };
        (ms(tally.expected), ms(tally.short_gaps), tally.interruptions.len())
    };
    assert_eq!(tally(4_300, true), (4_000, 0, 0));
    assert_eq!(tally(5_000, true), (4_000, 0, 0));
    assert_eq!(tally(5_001, true), (5_001, 0, 1), "what was silent for longer is a gap");
    assert_eq!(tally(4_300, false), (4_300, 300, 0), "signalling did not stand");
}

#[test]
fn mutes_pauses_and_what_a_layout_hides_are_not_expected() {
    let sid = || "TR_1".to_owned();
    for off_and_on in [
        [true, false].map(|muted| SessionEvent::TrackMuted { sid: sid(), muted }),
        [true, false].map(|paused| SessionEvent::StreamState { sid: sid(), paused }),
        [false, true].map(|wanted| SessionEvent::TrackWanted { sid: sid(), wanted, size: None }),
    ] {
        let mut rig = Rig::new(Subscription::Auto);
        rig.audience.connected(SUBSCRIBER, rig.at(0));
        rig.available(0, "TR_1", "alice", TrackSource::Camera);
        rig.played("TR_1", 0, 0, 4_000);
        let [off, on] = off_and_on.clone();
        rig.heard(4_000, off);
        rig.heard(8_000, on);
        rig.played("TR_1", 1, 8_300, 10_000);
        let [(_, tally)] = &rig.tallies(10_000)[..] else { panic!() };
        let parts = (ms(tally.expected), ms(tally.played));
        assert_eq!(parts, (5_700, 5_700), "{off_and_on:?}");
    }
}

#[test]
fn of_a_layout_the_first_are_expected_by_who_never_joined() {
    let layout = Subscription::Layout { layout: Layout::Speaker, auto: false };
    let mut rig = Rig::new(layout);
    let (room, at) = (Rc::clone(&rig.room), rig.at(0));
    for number in 0..8 {
        let (sid, publisher) = (format!("TR_{number}"), format!("pub-{number}"));
        let track = Rig::track(&sid, &publisher, TrackSource::Camera);
        rig.audience.published(&room, at, &track);
    }
    assert_eq!(rig.tallies(9_000).len(), 6, "as many as the layout shows");
}

/// A shared screen takes a place of its own, so that the cameras of who comes late find none.
#[test]
fn of_a_layout_as_many_videos_are_expected_as_it_has_places() {
    let layout = Subscription::Layout { layout: Layout::Speaker, auto: false };
    let mut rig = Rig::new(layout);
    let (room, at) = (Rc::clone(&rig.room), rig.at(0));
    for number in 0..5 {
        for (what, source) in [("c", TrackSource::Camera), ("s", TrackSource::ScreenShare)] {
            let (sid, publisher) = (format!("TR_{what}{number}"), format!("pub-{number}"));
            rig.audience.published(&room, at, &Rig::track(&sid, &publisher, source));
        }
        let publisher = format!("pub-{number}");
        let mut sound = Rig::track(&format!("TR_a{number}"), &publisher, TrackSource::Microphone);
        sound.kind = MediaKind::Audio;
        rig.audience.published(&room, at, &sound);
    }
    let of = |kind: MediaKind| -> Vec<String> {
        let watched = rig.audience.watched(rig.at(9_000));
        let own = watched.filter(|one| one.publication.kind == kind);
        own.map(|one| one.publication.publisher.clone()).collect()
    };
    assert_eq!(of(MediaKind::Video), ["pub-0", "pub-0", "pub-1", "pub-1", "pub-2", "pub-2"]);
    let heard = ["pub-0", "pub-1", "pub-2", "pub-3", "pub-4"];
    assert_eq!(of(MediaKind::Audio), heard, "whose picture is not shown is heard");
}

#[test]
fn a_screen_share_may_stand_still_but_not_go_with_its_publisher() {
    let mut rig = Rig::new(Subscription::Auto);
    rig.audience.connected(SUBSCRIBER, rig.at(0));
    rig.available(0, "TR_1", "alice", TrackSource::ScreenShare);
    rig.played("TR_1", 0, 0, 1_000);
    let [(_, still)] = &rig.tallies(20_000)[..] else { panic!() };
    assert_eq!(ms(still.played), 20_000);
    let departure = Departure::Left { reason: DisconnectReason::SignalClose };
    rig.heard(15_000, SessionEvent::TrackGone { sid: "TR_1".to_owned(), departure });
    let [(_, gone)] = &rig.tallies(20_000)[..] else { panic!() };
    assert_eq!(gone.interruptions[0].cause, Cause::PublisherGone);
}

/// A file of variable rate has pauses of its own; what is silent for longer is a gap.
#[test]
fn the_pauses_of_our_own_file_are_play_up_to_the_longest() {
    let publisher = "stampede-x-pub-1-0";
    let played = |source| {
        let mut rig = Rig::new(Subscription::Auto);
        rig.audience.bounds.pauses.camera = Duration::from_secs(6);
        rig.audience.connected(SUBSCRIBER, rig.at(0));
        let (room, at) = (Rc::clone(&rig.room), rig.at(0));
        rig.audience.published(&room, at, &Rig::track("TR_1", publisher, source));
        rig.available(0, "TR_1", publisher, source);
        for (stream, from_ms) in [0, 6_000, 14_000].into_iter().enumerate() {
            rig.played("TR_1", stream as u32, from_ms, from_ms + 1_000);
        }
        let [(_, tally)] = &rig.tallies(15_000)[..] else { panic!() };
        let gaps = tally.interruptions.iter().map(|gap| (gap.cause, ms(gap.length())));
        (ms(tally.played), gaps.collect::<Vec<_>>())
    };
    let (short, long) = ((Cause::Silent, 5_000), (Cause::Silent, 7_000));
    assert_eq!(played(TrackSource::Camera), (8_000, vec![long]));
    assert_eq!(played(TrackSource::ScreenShare), (3_000, vec![short, long]), "steady");
}

#[test]
fn a_shared_screen_of_this_run_sends_all_the_time_so_silence_is_a_gap() {
    let mut rig = Rig::new(Subscription::Auto);
    rig.audience.connected(SUBSCRIBER, rig.at(0));
    let publisher = "stampede-x-pub-1-0";
    let (room, at) = (Rc::clone(&rig.room), rig.at(0));
    let track = Rig::track("TR_1", publisher, TrackSource::ScreenShare);
    rig.audience.published(&room, at, &track);
    rig.available(0, "TR_1", publisher, TrackSource::ScreenShare);
    rig.played("TR_1", 0, 0, 1_000);
    let [(_, tally)] = &rig.tallies(20_000)[..] else { panic!() };
    assert_eq!((ms(tally.expected), ms(tally.played)), (20_000, 1_000));
    let [gap] = &tally.interruptions[..] else { panic!("{tally:?}") };
    assert_eq!((gap.cause, ms(gap.length())), (Cause::Silent, 19_000));
}

#[test]
fn two_cameras_of_one_publisher_are_two_tracks() {
    let mut rig = Rig::new(Subscription::Auto);
    rig.audience.connected(SUBSCRIBER, rig.at(0));
    rig.available(0, "TR_1", "alice", TrackSource::Unknown);
    rig.available(0, "TR_2", "alice", TrackSource::Unknown);
    rig.played("TR_1", 0, 0, 9_000);
    let tallies = rig.tallies(9_000);
    assert_eq!(tallies.len(), 2);
    assert_eq!(tallies[1].1.played, Duration::ZERO, "the other one's blackout is seen");
}

#[test]
fn news_of_a_stream_waits_for_the_name_of_its_track() {
    let mut rig = Rig::new(Subscription::Auto);
    rig.audience.connected(SUBSCRIBER, rig.at(0));
    rig.played("TR_1", 0, 100, 4_000);
    rig.available(5_000, "TR_1", "alice", TrackSource::Camera);
    rig.played("TR_1", 1, 4_000, 9_000);
    let [(_, tally)] = &rig.tallies(9_000)[..] else { panic!() };
    assert_eq!((ms(tally.expected), ms(tally.played)), (4_000, 4_000), "from its publication on");
}

#[test]
fn the_last_frame_of_a_visit_does_not_stand_into_the_next_one() {
    let mut rig = Rig::new(Subscription::Auto);
    rig.audience.connected(SUBSCRIBER, rig.at(100));
    rig.available(100, "TR_1", "pub", TrackSource::Camera);
    rig.audience.left(SUBSCRIBER, rig.at(1_000));
    rig.played("TR_1", 0, 200, 1_190);
    // It is back at once, and sees its first frame after 300 ms: that is joining, and no gap.
    rig.audience.scheduled(SUBSCRIBER, rig.at(1_020));
    rig.audience.connected(SUBSCRIBER, rig.at(1_100));
    rig.played("TR_1", 1, 1_320, 3_000);
    let [(_, tally)] = &rig.tallies(3_000)[..] else { panic!() };
    assert_eq!((ms(tally.expected), ms(tally.played)), (800 + 1_680, 800 + 1_680), "{tally:?}");
    // Had it not come back it would be missed from the end of the grace on, and not before it joined.
    rig.audience.left(SUBSCRIBER, rig.at(3_000));
    rig.audience.scheduled(SUBSCRIBER, rig.at(4_000));
    let [(_, tally)] = &rig.tallies(11_000)[..] else { panic!() };
    assert_eq!(ms(tally.expected), 800 + 1_680 + 2_000);
    assert_eq!(tally.interruptions.last().unwrap().cause, Cause::NotJoined);
}

#[test]
fn stays_beyond_those_that_are_kept_are_in_the_sums() {
    let mut rig = Rig::new(Subscription::Auto);
    rig.audience.connected(SUBSCRIBER, rig.at(0));
    rig.available(0, "TR_1", "pub", TrackSource::Camera);
    // 100 visits of a second, one every two; in each of them 100 ms are missed at its end.
    for visit in 0..100 {
        let at = 2_000 * visit;
        if visit > 0 {
            rig.audience.scheduled(SUBSCRIBER, rig.at(at));
            rig.audience.connected(SUBSCRIBER, rig.at(at));
        }
        rig.played("TR_1", visit as u32, at, at + 900);
        rig.audience.left(SUBSCRIBER, rig.at(at + 1_000));
    }
    let taken = rig.audience.taken(SUBSCRIBER).unwrap();
    assert!(taken.seat.stays.len() <= super::STAYS_MAX, "{}", taken.seat.stays.len());
    assert!(taken.seat.connection.moments().count() <= 2 * super::STAYS_MAX + 2);
    let [(_, tally)] = &rig.tallies(200_000)[..] else { panic!() };
    assert_eq!((ms(tally.expected), ms(tally.played)), (100_000, 90_000));
}

/// News of a stream that nobody has named yet, then of what a layout shows small and, once somebody
/// has left, large.
#[test]
fn a_layer_is_held_against_what_was_asked_for_then() {
    let mut rig = Rig::new(Subscription::Layout { layout: Layout::Speaker, auto: false });
    rig.audience.connected(SUBSCRIBER, rig.start);
    rig.shown("TR_1", 900, &[(180, 4)]);
    let size = |quality, width, height| VideoSize { quality, width, height };
    let (small, large) = (size(Quality::Low, 320, 180), size(Quality::High, 1_280, 720));
    let track = RemoteTrack {
        layers: vec![small, large],
        ..Rig::track("TR_1", "pub", TrackSource::Camera)
    };
    rig.heard(950, SessionEvent::TrackAvailable(Box::new(track)));
    let shown = |size| {
        let sid = "TR_1".to_owned();
        SessionEvent::TrackWanted { sid, wanted: true, size: Some(size) }
    };
    rig.heard(960, shown(small));
    rig.audience.window_begins(rig.at(1_000));
    // From before the window: it is in none.
    rig.shown("TR_1", 999, &[(180, 50)]);
    rig.shown("TR_1", 2_000, &[(180, 10)]);
    rig.heard(2_000, shown(large));
    rig.shown("TR_1", 3_000, &[(180, 2), (720, 8)]);
    let end = rig.at(30_000);
    let [watched] = <[_; 1]>::try_from(rig.audience.watched(end).collect::<Vec<_>>())
        .unwrap_or_else(|all| panic!("{} tracks", all.len()));
    let section = watched.layers.section(None);
    assert_eq!((section.asked_s, section.lower_s), (20.0, 2.0));
    let rows: Vec<_> =
        section.heights.iter().map(|row| (row.name.as_str(), row.shown_s, row.fps)).collect();
    assert_eq!(rows, [("720p", 8.0, Some(25.0)), ("180p", 12.0, Some(25.0))]);
}

#[test]
fn who_is_moved_watches_the_other_room_from_then_on() {
    let mut rig = Rig::new(Subscription::Auto);
    let other: Rc<str> = "other".into();
    let at = |ms| rig.start + Duration::from_millis(ms);
    let (zero, moved, later) = (at(0), at(5_000), at(12_000));
    // Somebody watches the other room, so that it is known.
    let viewer = Viewer {
        identity: "else".to_owned(),
        room: Rc::clone(&other),
        cohort: 0,
        subscription: Subscription::Auto,
        asked: VideoSize::default(),
    };
    rig.audience.seat(ParticipantId(2), viewer);
    let there = Rig::track("TR_2", "stampede-x-pub-2-0", TrackSource::Camera);
    rig.audience.published(&other, zero, &there);
    rig.audience.connected(SUBSCRIBER, zero);
    rig.available(0, "TR_1", "pub", TrackSource::Camera);
    rig.played("TR_1", 0, 0, 5_050);
    let (room, participant_sid) = ("other".to_owned(), "PA_new".to_owned());
    let own = OwnIdentities::prefixed(OWN.to_owned());
    rig.audience.heard(SUBSCRIBER, moved, &SessionEvent::Moved { room, participant_sid }, &own);
    rig.played("TR_2", 1, 5_200, 12_000);
    let tallies: Vec<_> = rig
        .audience
        .watched(later)
        .map(|one| (one.publication.publisher.clone(), one.tally))
        .collect();
    let of = |name: &str| &tallies.iter().find(|(publisher, _)| publisher == name).unwrap().1;
    assert_eq!((ms(of("pub").expected), ms(of("pub").played)), (5_000, 5_000));
    let there = of("stampede-x-pub-2-0");
    assert_eq!((ms(there.expected), ms(there.played)), (6_800, 6_800), "{there:?}");
}

#[test]
fn a_publisher_that_is_moved_away_and_back_is_expected_again() {
    let mut rig = Rig::new(Subscription::Auto);
    rig.audience.connected(SUBSCRIBER, rig.at(0));
    let (name, other) = (format!("{OWN}1-0"), Rc::from("other"));
    let (room, at) = (Rc::clone(&rig.room), [rig.at(0), rig.at(4_000), rig.at(6_000)]);
    rig.audience.published(&room, at[0], &Rig::track("TR_1", &name, TrackSource::Camera));
    rig.available(10, "TR_1", &name, TrackSource::Camera);
    rig.played("TR_1", 0, 0, 4_000);
    rig.audience.publisher_moved(&room, &other, &name, at[1]);
    rig.audience.publisher_moved(&other, &room, &name, at[2]);
    // It is heard of again under its former sid, and ends too early.
    rig.available(6_010, "TR_1", &name, TrackSource::Camera);
    rig.played("TR_1", 1, 6_200, 8_000);
    let [(_, tally)] = &rig.tallies(10_000)[..] else { panic!() };
    assert_eq!((ms(tally.expected), ms(tally.played)), (7_800, 5_800), "{tally:?}");
}

#[test]
fn a_publisher_that_is_moved_on_its_way_back_is_expected_there() {
    let mut rig = Rig::new(Subscription::Auto);
    rig.audience.connected(SUBSCRIBER, rig.at(0));
    let (name, room, other) = (format!("{OWN}1-0"), Rc::clone(&rig.room), Rc::from("other"));
    rig.audience.published(&other, rig.at(0), &Rig::track("TR_1", &name, TrackSource::Camera));
    rig.audience.publisher_gone(&other, &name, rig.at(1_000), Some("signal_lost"));
    rig.audience.publisher_moved(&other, &room, &name, rig.at(2_000));
    rig.audience.publisher_back(&room, &name, rig.at(3_000));
    rig.available(3_010, "TR_1", &name, TrackSource::Camera);
    rig.played("TR_1", 0, 3_200, 4_000);
    let [(_, tally)] = &rig.tallies(9_000)[..] else { panic!() };
    assert!(ms(tally.expected) >= 5_800 && ms(tally.played) == 800, "{tally:?}");
}

#[test]
fn a_peer_that_is_closed_is_forgotten_and_its_time_is_not() {
    let mut rig = Rig::new(Subscription::Auto);
    rig.audience.connected(SUBSCRIBER, rig.at(0));
    rig.available(0, "TR_1", "alice", TrackSource::Camera);
    rig.played("TR_1", 0, 0, 4_000);
    rig.audience.peer_closed(PeerId::default());
    rig.played("TR_1", 0, 4_000, 6_000);
    let second = PeerId::new(0, 2);
    rig.audience.peer(SUBSCRIBER, second);
    assert_eq!(rig.audience.peers.get(&second), Some(&(SUBSCRIBER.0, 2)), "never a number twice");
    assert_eq!(rig.audience.peers.len(), 1);
    let [(_, tally)] = &rig.tallies(10_000)[..] else { panic!() };
    assert_eq!((ms(tally.expected), ms(tally.played)), (10_000, 4_000));
}

#[test]
fn what_was_broken_on_purpose_explains_no_more_than_it_lasted() {
    let mut rig = Rig::new(Subscription::Auto);
    rig.audience.connected(SUBSCRIBER, rig.at(0));
    rig.available(0, "TR_1", "pub", TrackSource::Camera);
    rig.played("TR_1", 0, 0, 5_000);
    // It was broken, stood again a second later, and nothing came for ten seconds more.
    rig.audience.excuse(SUBSCRIBER, rig.at(5_000), rig.at(7_000));
    rig.played("TR_1", 1, 16_000, 20_000);
    // Another time it is back with what was broken.
    rig.audience.excuse(SUBSCRIBER, rig.at(20_000), rig.at(21_800));
    rig.played("TR_1", 2, 22_000, 30_000);
    let [(_, tally)] = &rig.tallies(30_000)[..] else { panic!() };
    let told: Vec<_> =
        tally.interruptions.iter().map(|one| (one.cause, ms(one.length()), one.back)).collect();
    let wanted = [
        (Cause::OnPurpose, 2_000, true),
        (Cause::Silent, 9_000, true),
        (Cause::OnPurpose, 2_000, true),
    ];
    assert_eq!(told, wanted);
}

#[test]
fn a_publisher_that_is_broken_on_purpose_is_excused_and_no_other() {
    let mut rig = Rig::new(Subscription::Auto);
    rig.audience.connected(SUBSCRIBER, rig.at(0));
    let room = Rc::clone(&rig.room);
    for (sid, publisher) in [("TR_1", "stampede-x-pub-1-0"), ("TR_2", "stampede-x-pub-1-1")] {
        let track = Rig::track(sid, publisher, TrackSource::Camera);
        rig.audience.published(&room, rig.at(0), &track);
        rig.available(0, sid, publisher, TrackSource::Camera);
    }
    rig.played("TR_1", 0, 0, 5_000);
    rig.played("TR_2", 1, 0, 5_000);
    let one = "stampede-x-pub-1-0";
    rig.audience.publisher_gone(&room, one, rig.at(5_000), Some("signal_lost"));
    rig.audience.publisher_back(&room, one, rig.at(6_000));
    rig.audience.excuse_publisher(&room, one, rig.at(5_000), rig.at(7_000));
    rig.played("TR_1", 0, 7_000, 9_000);
    rig.played("TR_2", 1, 7_000, 9_000);
    let causes: Vec<_> =
        rig.tallies(9_000).into_iter().map(|(_, tally)| tally.interruptions[0].cause).collect();
    assert_eq!(causes, [Cause::OnPurpose, Cause::Silent]);
}

#[test]
fn what_is_heard_on_the_way_back_is_why_it_began() {
    let reasons = |later_ms: u64| {
        let mut rig = Rig::new(Subscription::Auto);
        let (name, room) = (format!("{OWN}1-0"), Rc::clone(&rig.room));
        rig.audience.connected(SUBSCRIBER, rig.at(0));
        let track = Rig::track("TR_1", &name, TrackSource::Camera);
        rig.audience.published(&room, rig.at(0), &track);
        rig.available(0, "TR_1", &name, TrackSource::Camera);
        rig.played("TR_1", 0, 0, 5_000);
        // First its publisher loses its connection, and then it too.
        let nobody = ParticipantId(usize::MAX);
        rig.audience.publisher_gone(&room, &name, rig.at(5_000), Some("signal_lost"));
        rig.audience.explained(nobody, (&room, &name), rig.at(5_000 + later_ms), "refused");
        rig.played("TR_1", 1, 14_000, 20_000);
        rig.audience.publisher_back(&room, &name, rig.at(14_000));
        rig.audience.disconnected(SUBSCRIBER, rig.at(20_000), "signal_lost");
        rig.audience.explained(SUBSCRIBER, (&room, "sub"), rig.at(20_000 + later_ms), "refused");
        rig.audience.connected(SUBSCRIBER, rig.at(29_000));
        // It stands: what is said now is of something else.
        rig.audience.explained(SUBSCRIBER, (&room, "sub"), rig.at(29_001), "server_left");
        let [(_, tally)] = &rig.tallies(30_000)[..] else { panic!() };
        let told = tally.interruptions.iter();
        told.map(|one| (one.cause, one.reason.as_deref().unwrap_or_default().to_owned()))
            .collect::<Vec<_>>()
    };
    let both = |reason: &str| {
        [Cause::PublisherGone, Cause::Disconnected].map(|cause| (cause, reason.to_owned()))
    };
    assert_eq!(reasons(5_000), both("refused"));
    assert_eq!(reasons(5_001), both("signal_lost"));
}
