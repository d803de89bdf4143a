//! Which of the room's tracks a subscriber with a [`Layout`] shows, and how large.
//!
//! Participants are shown in the order in which they are seen, as many as the layout has room for.
//! When one leaves, the first that waits takes its place.

use livekit_protocol as proto;
use proto::signal_request::Message as Request;

use super::event::SessionEvent;
use super::layout::{Layout, VideoSize};
use super::track::TrackKind;
use super::tracks::Changes;

/// What is wanted of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// Hear it.
    Hear,
    /// See it at this size.
    See(VideoSize),
    /// Neither.
    Nothing,
}

/// What came of a change.
#[derive(Debug)]
pub(super) struct Arranged {
    /// What the server is to be told.
    pub(super) requests: Vec<Request>,
    /// Which tracks are shown or heard from now on, and which are not.
    pub(super) wanted: Vec<SessionEvent>,
}

#[derive(Debug)]
struct Seen {
    sid: String,
    kind: TrackKind,
    place: Option<usize>,
    told: Option<Wish>,
}

#[derive(Debug)]
struct Publisher {
    sid: String,
    shown: bool,
    tracks: Vec<Seen>,
}

/// Who sits where.
#[derive(Debug)]
pub(super) struct Seats {
    layout: Layout,
    /// The server subscribes to everything: videos that are not shown must be switched off.
    auto: bool,
    /// In order of arrival.
    publishers: Vec<Publisher>,
}

impl Seats {
    pub(super) fn new(layout: Layout, auto: bool) -> Self {
        Self { layout, auto, publishers: Vec::new() }
    }

    /// Seats what is new, frees the places of what is gone, and says what the server is to be told.
    /// A video that is new to the offers is told of again: a server may have dropped what it was
    /// told before the subscription stood.
    pub(super) fn arrange(&mut self, changes: &Changes) -> Arranged {
        for track in &changes.announced {
            self.announced(&track.publisher_sid, &track.sid, track.kind);
        }
        for event in &changes.events {
            if let SessionEvent::TrackGone { sid, .. } = event {
                self.gone(sid);
            }
        }
        let mut wishes = self.settle();
        let wanted = wishes.iter().map(|(sid, wish)| SessionEvent::TrackWanted {
            sid: sid.clone(),
            wanted: *wish != Wish::Nothing,
        });
        let wanted = wanted.collect();
        for sid in &changes.video_sids {
            if let Some(wish) = self.told(sid)
                && !wishes.iter().any(|(told, _)| told == sid)
            {
                wishes.push((sid.clone(), wish));
            }
        }
        Arranged { requests: self.requests(wishes), wanted }
    }

    /// Sizes first, so that a manual subscription starts at the right layer.
    fn requests(&self, wishes: Vec<(String, Wish)>) -> Vec<Request> {
        let mut requests = Vec::new();
        let mut subscribe = Vec::new();
        for (sid, wish) in wishes {
            let mut setting = proto::UpdateTrackSettings {
                track_sids: vec![sid.clone()],
                ..proto::UpdateTrackSettings::default()
            };
            match wish {
                Wish::Hear => {}
                Wish::See(size) => {
                    setting.quality = size.quality.to_proto() as i32;
                    (setting.width, setting.height) = (size.width, size.height);
                    requests.push(Request::TrackSetting(setting));
                }
                Wish::Nothing if self.auto => {
                    setting.disabled = true;
                    requests.push(Request::TrackSetting(setting));
                }
                Wish::Nothing => continue,
            }
            subscribe.push(sid);
        }
        if !self.auto && !subscribe.is_empty() {
            requests.push(Request::Subscription(proto::UpdateSubscription {
                track_sids: subscribe,
                subscribe: true,
                participant_tracks: Vec::new(),
            }));
        }
        requests
    }

    /// Tracks that were subscribed to by hand, for a sync state.
    pub(super) fn subscribed(&self) -> Vec<String> {
        let all = self.publishers.iter().flat_map(|known| &known.tracks);
        let shown = |track: &&Seen| track.told.is_some_and(|wish| wish != Wish::Nothing);
        let by_hand = all.filter(|track| !self.auto && shown(track));
        by_hand.map(|track| track.sid.clone()).collect()
    }

    /// A track that is there now.
    fn announced(&mut self, publisher: &str, sid: &str, kind: TrackKind) {
        let track = Seen { sid: sid.to_owned(), kind, place: None, told: None };
        match self.publishers.iter_mut().find(|known| known.sid == publisher) {
            Some(known) => known.tracks.push(track),
            None => {
                let (sid, shown) = (publisher.to_owned(), false);
                self.publishers.push(Publisher { sid, shown, tracks: vec![track] });
            }
        }
    }

    /// A track that is no more.
    fn gone(&mut self, sid: &str) {
        for publisher in &mut self.publishers {
            publisher.tracks.retain(|track| track.sid != sid);
        }
        self.publishers.retain(|publisher| !publisher.tracks.is_empty());
    }

    /// Gives free places to those who wait; the tracks whose wish has changed.
    fn settle(&mut self) -> Vec<(String, Wish)> {
        let max = self.layout.participants_max();
        let mut free = max - self.publishers.iter().filter(|known| known.shown).count().min(max);
        for waiting in self.publishers.iter_mut().filter(|known| !known.shown) {
            if free == 0 {
                break;
            }
            waiting.shown = true;
            free -= 1;
        }
        let all = self.publishers.iter().flat_map(|known| &known.tracks);
        let taken: Vec<usize> = all.filter_map(|track| track.place).collect();
        let mut places = (0..max).filter(|place| !taken.contains(place));
        let shown = self.publishers.iter_mut().filter(|known| known.shown);
        for track in shown.flat_map(|known| &mut known.tracks) {
            if track.kind == TrackKind::Video && track.place.is_none() {
                track.place = places.next();
            }
        }
        let mut changed = Vec::new();
        for publisher in &mut self.publishers {
            for track in &mut publisher.tracks {
                let wish = wish(self.layout, self.auto, publisher.shown, track);
                if track.told != Some(wish) {
                    track.told = Some(wish);
                    changed.push((track.sid.clone(), wish));
                }
            }
        }
        changed
    }

    /// What the server was last told of a track; `None` if it is not known yet.
    fn told(&self, sid: &str) -> Option<Wish> {
        let mut tracks = self.publishers.iter().flat_map(|known| &known.tracks);
        tracks.find(|track| track.sid == sid)?.told
    }
}

fn wish(layout: Layout, auto: bool, shown: bool, track: &Seen) -> Wish {
    match (track.kind, track.place) {
        (TrackKind::Audio, _) if shown || auto => Wish::Hear,
        (TrackKind::Video, Some(place)) => Wish::See(layout.size(place)),
        _ => Wish::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::{LARGE, MIDDLE, SMALL};
    use super::*;

    fn arrive(seats: &mut Seats, publisher: usize) -> Vec<(String, Wish)> {
        seats.announced(&format!("P{publisher}"), &format!("A{publisher}"), TrackKind::Audio);
        seats.announced(&format!("P{publisher}"), &format!("V{publisher}"), TrackKind::Video);
        seats.settle()
    }

    #[test]
    fn the_first_is_large_five_are_small_and_the_rest_waits() {
        let mut seats = Seats::new(Layout::Speaker, false);
        let first = arrive(&mut seats, 0);
        assert_eq!(first, [("A0".to_owned(), Wish::Hear), ("V0".to_owned(), Wish::See(LARGE))]);
        for publisher in 1..6 {
            let [_, (_, video)] = &arrive(&mut seats, publisher)[..] else { panic!() };
            assert_eq!(*video, Wish::See(SMALL));
        }
        let seventh = arrive(&mut seats, 6);
        assert!(seventh.iter().all(|(_, wish)| *wish == Wish::Nothing), "{seventh:?}");
        assert!(seats.settle().is_empty(), "nothing is told twice");
    }

    #[test]
    fn who_waits_takes_the_place_of_who_leaves() {
        let mut seats = Seats::new(Layout::Speaker, false);
        for publisher in 0..8 {
            arrive(&mut seats, publisher);
        }
        seats.gone("V0");
        let no_video = seats.settle();
        assert!(no_video.is_empty(), "its audio still sits there: {no_video:?}");
        seats.gone("A0");
        let moved = seats.settle();
        assert_eq!(moved, [("A6".to_owned(), Wish::Hear), ("V6".to_owned(), Wish::See(LARGE))]);
        assert_eq!(seats.told("V7"), Some(Wish::Nothing));
        assert_eq!(seats.subscribed().len(), 12, "six with audio and video");
        assert_eq!(seats.told("V0"), None);
    }

    #[test]
    fn with_automatic_subscription_audio_is_heard_and_only_video_switched_off() {
        let mut seats = Seats::new(Layout::Grid3x3, true);
        for publisher in 0..9 {
            let [(_, audio), (_, video)] = arrive(&mut seats, publisher)[..] else { panic!() };
            assert_eq!((audio, video), (Wish::Hear, Wish::See(MIDDLE)));
        }
        let [(_, audio), (_, video)] = arrive(&mut seats, 9)[..] else { panic!() };
        assert_eq!((audio, video), (Wish::Hear, Wish::Nothing));
    }
}
