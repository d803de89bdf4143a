//! The data tracks of others that a participant subscribes to by itself, as LiveKit's SDKs do: nobody
//! is subscribed to a data track by the server unless it asks for all of them (livekit pkg/rtc/room.go,
//! `OnUpdateDataSubscriptions`).

use std::collections::{HashMap, HashSet};

use livekit_protocol as proto;
use proto::signal_request::Message as Request;

use super::Session;

/// Most data tracks of others that a session subscribes to by itself, and most of those who publish
/// some that it remembers; further tracks are ignored, and counted.
pub const DATA_TRACKS_MAX: usize = 4_096;

/// What somebody publishes, as of the latest that was said of it.
#[derive(Debug, Default)]
struct Publisher {
    version: u32,
    tracks: Vec<String>,
    /// Its further ones, past [`DATA_TRACKS_MAX`].
    ignored: usize,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct DataSubscriptions {
    /// By participant sid; only those that publish some.
    publishers: HashMap<String, Publisher>,
    /// Tracks of all of them.
    tracks: usize,
    /// Tracks past [`DATA_TRACKS_MAX`] since this was last taken.
    ignored: u64,
}

impl DataSubscriptions {
    /// Whether this participant has data tracks here.
    pub(super) fn is_publisher(&self, participant_sid: &str) -> bool {
        self.publishers.contains_key(participant_sid)
    }

    /// Takes what is said of others; the tracks that are new. What is gone the server forgets by
    /// itself.
    fn update(&mut self, participants: &[proto::ParticipantInfo], own_sid: &str) -> Vec<String> {
        let gone = proto::participant_info::State::Disconnected as i32;
        let mut new = Vec::new();
        for participant in participants.iter().filter(|other| other.sid != own_sid) {
            let known = self.publishers.get(&participant.sid);
            if known.is_some_and(|known| participant.version < known.version) {
                continue;
            }
            let before = self.publishers.remove(&participant.sid).unwrap_or_default();
            self.tracks -= before.tracks.len();
            if participant.state == gone || participant.data_tracks.is_empty() {
                continue;
            }
            let room = DATA_TRACKS_MAX - self.tracks;
            let all = participant.data_tracks.iter().map(|track| track.sid.clone());
            let tracks: Vec<_> = all.take(room).collect();
            let ignored = participant.data_tracks.len() - tracks.len();
            // Whoever says it once more has none more.
            self.ignored += ignored.saturating_sub(before.ignored) as u64;
            self.tracks += tracks.len();
            let before: HashSet<_> = before.tracks.iter().collect();
            new.extend(tracks.iter().filter(|sid| !before.contains(sid)).cloned());
            if tracks.is_empty() && self.publishers.len() >= DATA_TRACKS_MAX {
                continue;
            }
            let publisher = Publisher { version: participant.version, tracks, ignored };
            self.publishers.insert(participant.sid.clone(), publisher);
        }
        new
    }

    fn clear(&mut self) {
        *self = Self { ignored: self.ignored, ..Self::default() };
    }
}

impl Session {
    /// Subscribes to data tracks of others that are new, if it does so by itself.
    pub(super) fn subscribe_to_data_tracks(&mut self, participants: &[proto::ParticipantInfo]) {
        let Some(subscriptions) = &mut self.data_subscriptions else { return };
        let new = subscriptions.update(participants, &self.own_sid);
        self.counters.tracks_ignored += std::mem::take(&mut subscriptions.ignored);
        self.send_data_subscriptions(new);
    }

    /// Asks for all of them once more: a request may be lost with its websocket, and a sync state has
    /// no place for them (livekit_rtc.proto, `SyncState`). For those that it has a server changes
    /// nothing (livekit pkg/rtc/subscriptionmanager.go, `SubscribeToDataTrack`).
    pub(super) fn subscribe_to_data_tracks_again(&mut self) {
        let publishers = self.data_subscriptions.iter().flat_map(|all| all.publishers.values());
        let tracks = publishers.flat_map(|publisher| publisher.tracks.iter().cloned()).collect();
        self.send_data_subscriptions(tracks);
    }

    /// Those of another room are left behind.
    pub(super) fn data_tracks_left_behind(&mut self) {
        if let Some(subscriptions) = &mut self.data_subscriptions {
            subscriptions.clear();
        }
    }

    fn send_data_subscriptions(&mut self, tracks: Vec<String>) {
        if tracks.is_empty() {
            return;
        }
        let update = |track_sid| proto::update_data_subscription::Update {
            track_sid,
            subscribe: true,
            options: None,
        };
        let updates = tracks.into_iter().map(update).collect();
        self.send(Request::UpdateDataSubscription(proto::UpdateDataSubscription { updates }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_tracks(number: usize, tracks: usize) -> proto::ParticipantInfo {
        let track = |track| proto::DataTrackInfo {
            sid: format!("DTR_{number}_{track}"),
            ..proto::DataTrackInfo::default()
        };
        proto::ParticipantInfo {
            sid: format!("PA_{number}"),
            version: 1,
            data_tracks: (0..tracks).map(track).collect(),
            ..proto::ParticipantInfo::default()
        }
    }

    #[test]
    fn who_comes_past_the_maximum_is_not_remembered_for_good() {
        let mut all = DataSubscriptions::default();
        let first = [with_tracks(0, DATA_TRACKS_MAX + 3)];
        assert_eq!(all.update(&first, "PA_own").len(), DATA_TRACKS_MAX);
        assert_eq!(all.ignored, 3);
        // The same said again is nothing new.
        assert_eq!(all.update(&first, "PA_own"), Vec::<String>::new());
        assert_eq!(all.ignored, 3);
        let others: Vec<_> =
            (1..=2 * DATA_TRACKS_MAX).map(|number| with_tracks(number, 1)).collect();
        assert_eq!(all.update(&others, "PA_own"), Vec::<String>::new());
        assert_eq!(all.publishers.len(), DATA_TRACKS_MAX);
        assert_eq!(all.ignored, 3 + others.len() as u64);
        all.update(&others[..10], "PA_own");
        assert_eq!(all.ignored, 3 + others.len() as u64);
    }
}
