//! Which of the room's tracks a subscriber with a [`Layout`] shows, and how large.
//!
//! Participants are shown in the order in which they are seen, as many as the layout has room for.
//! When one leaves, the first that waits takes its place.

use livekit_protocol as proto;
use proto::signal_request::Message as Request;

use super::event::SessionEvent;
use super::layout::Layout;
use super::track::VideoSize;
use super::tracks::Changes;
use stampede_sdp::MediaKind;

/// What is wanted of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Its sound.
    Audio,
    /// Its picture, at this size.
    Video(VideoSize),
    /// Neither.
    Nothing,
}

impl Wanted {
    fn size(self) -> Option<VideoSize> {
        match self {
            Self::Video(size) => Some(size),
            Self::Audio | Self::Nothing => None,
        }
    }
}

/// What came of a change.
#[derive(Debug)]
pub(super) struct Arranged {
    /// What is to be sent to the server.
    pub(super) requests: Vec<Request>,
    /// Which tracks are shown or heard from now on, and which are not.
    pub(super) events: Vec<SessionEvent>,
}

#[derive(Debug)]
struct SeatedTrack {
    sid: String,
    kind: MediaKind,
    place: Option<usize>,
    requested: Option<Wanted>,
}

#[derive(Debug)]
struct Publisher {
    sid: String,
    shown: bool,
    tracks: Vec<SeatedTrack>,
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

    /// Seats what is new, frees the places of what is gone, and says what is to be sent to the server.
    /// A video that is new to the offers is requested again: a server may have dropped what came
    /// before the subscription stood.
    pub(super) fn arrange(&mut self, changes: &Changes) -> Arranged {
        for track in &changes.announced {
            self.announced(&track.publisher_sid, &track.sid, track.kind);
        }
        for event in &changes.events {
            if let SessionEvent::TrackGone { sid, .. } = event {
                self.gone(sid);
            }
        }
        let mut changed = self.assign();
        let events = changed.iter().map(|(sid, wanted)| SessionEvent::TrackWanted {
            sid: sid.clone(),
            wanted: *wanted != Wanted::Nothing,
            size: wanted.size(),
        });
        let events = events.collect();
        for sid in &changes.video_sids {
            if let Some(wanted) = self.requested(sid)
                && !changed.iter().any(|(changed, _)| changed == sid)
            {
                changed.push((sid.clone(), wanted));
            }
        }
        Arranged { requests: self.requests(changed), events }
    }

    /// Sizes first, so that a manual subscription starts at the right layer.
    fn requests(&self, changed: Vec<(String, Wanted)>) -> Vec<Request> {
        let mut requests = Vec::new();
        let mut subscribe = Vec::new();
        for (sid, wanted) in changed {
            let mut setting = proto::UpdateTrackSettings {
                track_sids: vec![sid.clone()],
                ..proto::UpdateTrackSettings::default()
            };
            match wanted {
                Wanted::Audio => {}
                Wanted::Video(size) => {
                    setting.quality = size.quality.to_proto() as i32;
                    (setting.width, setting.height) = (size.width, size.height);
                    requests.push(Request::TrackSetting(setting));
                }
                Wanted::Nothing if self.auto => {
                    setting.disabled = true;
                    requests.push(Request::TrackSetting(setting));
                }
                Wanted::Nothing => continue,
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

    /// Videos that were switched off, for a sync state.
    pub(super) fn disabled(&self) -> Vec<String> {
        let all = self.publishers.iter().flat_map(|known| &known.tracks);
        let off = |track: &&SeatedTrack| track.requested == Some(Wanted::Nothing);
        all.filter(|track| self.auto && off(track)).map(|track| track.sid.clone()).collect()
    }

    /// Tracks that were subscribed to by hand, for a sync state.
    pub(super) fn subscribed(&self) -> Vec<String> {
        let all = self.publishers.iter().flat_map(|known| &known.tracks);
        let shown =
            |track: &&SeatedTrack| track.requested.is_some_and(|wanted| wanted != Wanted::Nothing);
        let by_hand = all.filter(|track| !self.auto && shown(track));
        by_hand.map(|track| track.sid.clone()).collect()
    }

    /// A track that is there now.
    fn announced(&mut self, publisher: &str, sid: &str, kind: MediaKind) {
        let track = SeatedTrack { sid: sid.to_owned(), kind, place: None, requested: None };
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

    /// Gives free places to those who wait; the tracks of which something else is wanted now.
    fn assign(&mut self) -> Vec<(String, Wanted)> {
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
            if track.kind == MediaKind::Video && track.place.is_none() {
                track.place = places.next();
            }
        }
        let mut changed = Vec::new();
        for publisher in &mut self.publishers {
            for track in &mut publisher.tracks {
                let wanted = wanted_of(self.layout, self.auto, publisher.shown, track);
                if track.requested != Some(wanted) {
                    track.requested = Some(wanted);
                    changed.push((track.sid.clone(), wanted));
                }
            }
        }
        changed
    }

    /// What was last requested of a track; `None` if it is not known yet.
    fn requested(&self, sid: &str) -> Option<Wanted> {
        let mut tracks = self.publishers.iter().flat_map(|known| &known.tracks);
        tracks.find(|track| track.sid == sid)?.requested
    }
}

fn wanted_of(layout: Layout, auto: bool, shown: bool, track: &SeatedTrack) -> Wanted {
    match (track.kind, track.place) {
        (MediaKind::Audio, _) if shown || auto => Wanted::Audio,
        (MediaKind::Video, Some(place)) => Wanted::Video(layout.size(place)),
        _ => Wanted::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::{LARGE, MIDDLE, SMALL};
    use super::*;

    fn arrive(seats: &mut Seats, publisher: usize) -> Vec<(String, Wanted)> {
        seats.announced(&format!("P{publisher}"), &format!("A{publisher}"), MediaKind::Audio);
        seats.announced(&format!("P{publisher}"), &format!("V{publisher}"), MediaKind::Video);
        seats.assign()
    }

    #[test]
    fn the_first_is_large_five_are_small_and_the_rest_waits() {
        let mut seats = Seats::new(Layout::Speaker, false);
        let first = arrive(&mut seats, 0);
        assert_eq!(
            first,
            [("A0".to_owned(), Wanted::Audio), ("V0".to_owned(), Wanted::Video(LARGE))]
        );
        for publisher in 1..6 {
            let [_, (_, video)] = &arrive(&mut seats, publisher)[..] else { panic!() };
            assert_eq!(*video, Wanted::Video(SMALL));
        }
        let seventh = arrive(&mut seats, 6);
        assert!(seventh.iter().all(|(_, wanted)| *wanted == Wanted::Nothing), "{seventh:?}");
        assert!(seats.assign().is_empty(), "nothing is requested twice");
    }

    #[test]
    fn who_waits_takes_the_place_of_who_leaves() {
        let mut seats = Seats::new(Layout::Speaker, false);
        for publisher in 0..8 {
            arrive(&mut seats, publisher);
        }
        seats.gone("V0");
        let no_video = seats.assign();
        assert!(no_video.is_empty(), "its audio still sits there: {no_video:?}");
        seats.gone("A0");
        let moved = seats.assign();
        assert_eq!(
            moved,
            [("A6".to_owned(), Wanted::Audio), ("V6".to_owned(), Wanted::Video(LARGE))]
        );
        assert_eq!(seats.requested("V7"), Some(Wanted::Nothing));
        assert_eq!(seats.subscribed().len(), 12, "six with audio and video");
        assert_eq!(seats.requested("V0"), None);
    }

    #[test]
    fn with_automatic_subscription_audio_is_heard_and_only_video_switched_off() {
        let mut seats = Seats::new(Layout::Grid3x3, true);
        for publisher in 0..9 {
            let [(_, audio), (_, video)] = arrive(&mut seats, publisher)[..] else { panic!() };
            assert_eq!((audio, video), (Wanted::Audio, Wanted::Video(MIDDLE)));
        }
        let [(_, audio), (_, video)] = arrive(&mut seats, 9)[..] else { panic!() };
        assert_eq!((audio, video), (Wanted::Audio, Wanted::Nothing));
    }
}
