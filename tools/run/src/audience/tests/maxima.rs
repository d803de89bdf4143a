//! What the accounts do at the maxima of what they keep of a room and of a subscriber.

use super::super::{
    EXCUSES_MAX, FORMER_ROOMS_MAX, NAMELESS_LAYERS_MAX, NAMELESS_MAX, PUBLICATIONS_MAX, SIDS_MAX,
    merge,
};
use super::*;
use stampede_core::watch::SPANS_MAX;

impl Rig {
    fn publications(&self) -> usize {
        self.audience.rooms[&self.room].publications.len()
    }

    /// News of a stream of this track, which goes on.
    fn news(&self, sid: &str, stream: u32) -> StreamCover {
        StreamCover {
            track_id: Some(Arc::from(sid)),
            stream,
            kind: MediaKind::Video,
            received: true,
            ended: Vec::new(),
            open: None,
            trouble: Trouble::default(),
            layers: Vec::new(),
            last: false,
        }
    }
}

#[test]
fn what_is_published_beyond_the_maximum_is_expected_of_nobody() {
    let mut rig = Rig::new(Subscription::Auto);
    rig.audience.connected(SUBSCRIBER, rig.at(0));
    for number in 0..PUBLICATIONS_MAX + 2 {
        let name = format!("pub-{number}");
        rig.available(0, &format!("TR_{number}"), &name, TrackSource::Camera);
    }
    assert_eq!(rig.publications(), PUBLICATIONS_MAX);
    assert_eq!(rig.tallies(9_000).len(), PUBLICATIONS_MAX);
    // Who is known may have another session, and with it another sid.
    let mut again = Rig::track("TR_again", "pub-0", TrackSource::Camera);
    again.publisher_sid = "PA_again".to_owned();
    rig.heard(1, SessionEvent::TrackAvailable(Box::new(again)));
    assert!(rig.audience.rooms[&rig.room].by_sid.contains_key("TR_again"));
}

#[test]
fn so_many_sids_of_a_room_are_told_apart() {
    let mut rig = Rig::new(Subscription::Auto);
    let found = |number: usize| Rig::track(&format!("TR_{number}"), "pub", TrackSource::Camera);
    let room = Rc::clone(&rig.room);
    for number in 0..=SIDS_MAX {
        rig.audience.publisher_gone(&room, "pub", rig.at(0), Some("left"));
        let mut track = found(number);
        // Each is that of another session of the same publisher.
        track.publisher_sid = format!("PA_{number}");
        rig.audience.published(&room, rig.at(0), &track);
    }
    assert_eq!((rig.publications(), rig.audience.rooms[&room].by_sid.len()), (1, SIDS_MAX));
}

#[test]
fn news_of_streams_that_nobody_names_is_bounded() {
    let mut rig = Rig::new(Subscription::Auto);
    rig.audience.connected(SUBSCRIBER, rig.at(0));
    for stream in 0..NAMELESS_MAX as u32 + 3 {
        let news = rig.news(&format!("TR_{stream}"), stream);
        rig.told(1_000, news);
    }
    let waiting = |rig: &Rig| rig.audience.seats[SUBSCRIBER.0].as_ref().unwrap().nameless.len();
    assert_eq!(waiting(&rig), NAMELESS_MAX);
    // One of them goes on and on, with a gap and another layer each second.
    let seconds = 3 * SPANS_MAX.max(NAMELESS_LAYERS_MAX) as u64;
    for second in 1..=seconds {
        let [from, until] = [rig.at(1_000 * second), rig.at(1_000 * second + 500)];
        let layer = LayerTime {
            height: Some(180),
            temporal: Some(0),
            played: Duration::from_millis(500),
            frames: 12,
        };
        let ended = vec![Span { from, until, before: Trouble::default() }];
        rig.told(1_000 * second, StreamCover { ended, layers: vec![layer], ..rig.news("TR_0", 0) });
    }
    let taken = rig.audience.seats[SUBSCRIBER.0].as_ref().unwrap();
    let (_, _, news) = &taken.nameless[0];
    assert_eq!((news.ended.len(), news.layers.len()), (SPANS_MAX, NAMELESS_LAYERS_MAX));
    let newest = news.ended.last().unwrap().from;
    assert_eq!(newest, rig.at(1_000 * seconds), "the oldest are forgotten");
}

#[test]
fn of_the_rooms_that_one_was_in_before_the_oldest_is_forgotten() {
    let mut rig = Rig::new(Subscription::Auto);
    rig.audience.connected(SUBSCRIBER, rig.at(0));
    for number in 0..FORMER_ROOMS_MAX + 2 {
        rig.audience.moved(SUBSCRIBER, rig.at(1_000), &format!("room-{number}"));
    }
    let taken = rig.audience.seats[SUBSCRIBER.0].as_ref().unwrap();
    let former: Vec<_> = taken.former.iter().map(|(room, _)| &**room).collect();
    assert_eq!((former.len(), former[0]), (FORMER_ROOMS_MAX, "room-1"));
}

#[test]
fn of_what_was_done_on_purpose_the_oldest_is_forgotten() {
    let (start, mut spans) = (Instant::now(), Vec::new());
    let at = |seconds: usize| start + Duration::from_secs(seconds as u64);
    for number in 0..=EXCUSES_MAX {
        merge(&mut spans, at(3 * number), at(3 * number + 1));
    }
    assert_eq!((spans.len(), spans[0][0]), (EXCUSES_MAX, at(3)));
    // What touches others takes no place of its own.
    merge(&mut spans, at(3), at(3 * EXCUSES_MAX));
    assert_eq!(spans, [[at(3), at(3 * EXCUSES_MAX + 1)]]);
}
